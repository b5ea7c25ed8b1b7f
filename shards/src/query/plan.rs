//! How a query is carried out: over the keys of a table, or over a part of one of its indexes. What comes of it is
//! compared with the whole condition all the same. Made where the query comes in, from what that shard holds, and the
//! same for all shards.

use super::order::{self, Value};
use super::{Comparison, Condition, Query, Scalar, Test};
use crate::index::{Indexes, Range, after};
use crate::key::{KeyCodec, encode_integer};
use crate::schema::TableDef;
use std::ops::Bound;
use std::sync::Arc;

/// Entries of an index that are counted to judge how selective it is.
const COUNTED_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The keys in `[lower, upper)`.
    Keys { lower: Box<[u8]>, upper: Option<Box<[u8]>> },
    /// These keys, in order.
    Points(Arc<[Box<[u8]>]>),
    /// Parts of an index, in order and apart.
    Index { number: u16, name: Box<str>, ranges: Vec<Range> },
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub query: Arc<Query>,
    pub order: Order,
    pub descending: bool,
    /// Rows come in the order that the query asks for.
    pub is_sorted: bool,
    /// Rows of the planning shard that are looked at, as far as they were counted.
    pub estimate: usize,
}

/// What the planner knows of a table.
pub struct Known<'a> {
    pub definition: &'a TableDef,
    pub codec: KeyCodec,
    pub indexes: &'a Indexes,
    pub records: usize,
}

/// All values of the kind of `value`, from there on or up to there.
fn half_open(lower: Option<&Scalar>, upper: Option<&Scalar>) -> Option<Range> {
    let kind = *lower.or(upper)?.first()?;
    let lower = lower.map_or_else(|| vec![kind], |lower| order::cut(lower));
    let upper = upper.map_or_else(|| vec![kind + 1].into(), |upper| after(&order::cut(upper)));
    Some(Range { lower: lower.into(), upper })
}

fn bound(bound: &Bound<Scalar>) -> Option<&Scalar> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

/// Where in an index everything lies that passes a test; `None`: that cannot be said.
pub(crate) fn ranges(comparison: &Comparison) -> Option<Vec<Range>> {
    let point = |value: &Scalar| Range::beginning(order::cut(value));
    Some(match comparison {
        Comparison::Equal(value) => vec![point(value)],
        Comparison::OneOf(values) => {
            let mut all: Vec<Range> = values.iter().map(point).collect();
            all.dedup(); // cut values may have become one
            all
        }
        Comparison::Range(lower, upper) => vec![half_open(bound(lower), bound(upper))?],
        Comparison::StartsWith(text) => {
            let mut encoded = Vec::new();
            order::encode_cut(crate::document::Token::Str(text), &mut encoded);
            vec![Range::beginning(order::prefix(&encoded).to_vec())]
        }
        Comparison::NotEqual(_) | Comparison::EndsWith(_) | Comparison::Contains(_) | Comparison::Joined(_) => {
            return None;
        }
    })
}

/// A scalar as a key; `None`: no key is equal to it. For a number between two keys the one below.
fn key_of(value: &[u8], codec: KeyCodec) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    match (codec, order::decode(value)?) {
        (KeyCodec::Text, Value::Text(text)) => key = text,
        (KeyCodec::Integer, Value::Number(whole)) => {
            let bounded = whole.clamp(i64::MIN.into(), i64::MAX.into());
            encode_integer(i64::try_from(bounded).ok()?, &mut key);
        }
        _ => return None,
    }
    Some(key)
}

/// The keys that can pass a test of the key.
fn key_range(test: &Test, codec: KeyCodec) -> Option<Order> {
    let behind = |key: Vec<u8>| {
        let mut next = key;
        next.push(0);
        next.into()
    };
    let (lower, upper) = match &test.comparison {
        Comparison::Equal(value) => {
            let key = key_of(value, codec)?;
            (key.clone(), Some(behind(key)))
        }
        Comparison::Range(lower, upper) => {
            let lower = match bound(lower) {
                Some(lower) => key_of(lower, codec)?,
                None => Vec::new(),
            };
            let upper = match bound(upper) {
                Some(upper) => Some(behind(key_of(upper, codec)?)),
                None => None,
            };
            (lower, upper)
        }
        Comparison::OneOf(values) if codec != KeyCodec::Auto => {
            let mut points: Vec<Box<[u8]>> =
                values.iter().filter_map(|value| key_of(value, codec)).map(Into::into).collect();
            points.sort();
            points.dedup();
            return Some(Order::Points(points.into()));
        }
        Comparison::StartsWith(text) if codec == KeyCodec::Text && !text.is_empty() => {
            (text.as_bytes().to_vec(), Some(after(text.as_bytes())))
        }
        _ => return None,
    };
    Some(Order::Keys { lower: lower.into(), upper })
}

impl Plan {
    /// Everything in the order of keys.
    fn scan(query: Arc<Query>, records: usize) -> Plan {
        let order = Order::Keys { lower: Box::default(), upper: None };
        let is_sorted = query.sort.is_empty();
        Plan { query, order, descending: false, is_sorted, estimate: records }
    }

    /// For rows that must come in the order of their keys: what a subscription begins with.
    pub fn by_key(query: Arc<Query>) -> Plan {
        Plan::scan(query, 0)
    }

    pub fn new(query: Arc<Query>, known: &Known<'_>) -> Plan {
        let Known { definition, codec, indexes, records } = *known;
        let key_name = definition.primary_key.map(|index| definition.attributes[index].name.as_str());
        let is_key = |path: &[Box<str>]| matches!(path, [name] if Some(&**name) == key_name);
        let mut plan = Plan::scan(query.clone(), records);
        let tests = query.condition.iter().flat_map(Condition::conjuncts);
        for test in tests.filter(|test| test.path.len() == 1) {
            if is_key(&test.path) {
                let Some(order) = key_range(test, codec) else { continue };
                let points = match (&test.comparison, &order) {
                    (Comparison::Equal(_), _) => Some(1),
                    (_, Order::Points(points)) => Some(points.len()),
                    _ => None,
                };
                let is_better = match points {
                    Some(points) => points < plan.estimate || points <= 1,
                    None => plan.estimate > 1 && matches!(plan.order, Order::Keys { .. }),
                };
                if is_better {
                    plan.order = order;
                    plan.estimate = points.unwrap_or(plan.estimate);
                }
            } else if let (Some((number, index)), Some(ranges)) = (indexes.of(&test.path[0]), ranges(&test.comparison))
            {
                let estimate = ranges.iter().map(|range| index.count(range, COUNTED_MAX)).sum();
                if estimate < plan.estimate {
                    plan.order = Order::Index { number, name: test.path[0].clone(), ranges };
                    plan.estimate = estimate;
                }
            }
        }
        let [sort] = query.sort.as_slice() else { return plan };
        if is_key(&sort.path) && codec != KeyCodec::Auto && matches!(plan.order, Order::Keys { .. }) {
            (plan.is_sorted, plan.descending) = (true, sort.descending);
        }
        if let ([name], Some((number, index))) = (&*sort.path, sort.path.first().and_then(|name| indexes.of(name)))
            && index.is_total
        {
            match &plan.order {
                Order::Index { number: own, .. } if *own == number => {
                    (plan.is_sorted, plan.descending) = (true, sort.descending);
                }
                // Rather in order through everything than all of it first and sorted then.
                Order::Keys { lower, upper: None } if lower.is_empty() => {
                    let everything = Range { lower: [order::NULL].into(), upper: [u8::MAX].into() };
                    plan.order = Order::Index { number, name: name.clone(), ranges: vec![everything] };
                    (plan.is_sorted, plan.descending) = (true, sort.descending);
                }
                _ => {}
            }
        }
        plan
    }
}
