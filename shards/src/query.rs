//! Queries: which records of a table are wanted, in which order, and what of each. Pure: a record is asked, nothing is
//! read. Parsing them is the protocols' affair; finding candidates by index is `index.rs`.
//!
//! A condition compares the values at an attribute path with constants. A path through an array stands for each of its
//! elements: one that fits is enough. What is absent counts as null. Null is equal to null and never within a range;
//! values of different kinds are unequal and in no range of each other.

pub mod order;
pub mod plan;
pub mod project;

use crate::document::{Reader, Token};
use std::ops::Bound;
use std::sync::Arc;

/// Names of attributes, from the record inwards.
pub type Path = Box<[Box<str>]>;

/// An encoded scalar ([`order`]).
pub type Scalar = Box<[u8]>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    Equal(Scalar),
    NotEqual(Scalar),
    /// Within both bounds, of which at least one is there. Nothing is within bounds of two kinds.
    Range(Bound<Scalar>, Bound<Scalar>),
    /// Of texts.
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    /// One of these, in order.
    OneOf(Arc<[Scalar]>),
    /// One of those that the query number so much of another table finds: put in their place before the query is carried
    /// out ([`Condition::fill_in`]).
    Joined(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Test {
    pub path: Path,
    pub comparison: Comparison,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Test(Test),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SortKey {
    pub path: Path,
    pub descending: bool,
}

/// What is asked of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Query {
    pub condition: Option<Condition>,
    pub select: project::Select,
    /// The first decides first; equal ones are in the order of their keys, in the direction of the last.
    pub sort: Vec<SortKey>,
    /// So many are passed over.
    pub offset: u64,
    pub limit: Option<u64>,
}

/// Calls `visit` with the values at a path: the elements of arrays, and null where there is nothing, until it says that
/// it has seen enough. Gives whether it has.
fn visit<'a>(document: &'a [u8], path: &[Box<str>], visit_value: &mut dyn FnMut(Token<'a>) -> bool) -> bool {
    let mut reader = Reader::new(document);
    match (reader.next(), path.split_first()) {
        (Some(Token::Array(count)), _) => (0..count).any(|_| match reader.value() {
            Some(element) => visit(element, path, visit_value),
            None => false,
        }),
        (Some(Token::Map(count)), Some((name, rest))) => {
            for _ in 0..count {
                let (Some(key), Some(value)) = (reader.key(), reader.value()) else { return false };
                if *key == **name {
                    return visit(value, rest, visit_value);
                }
            }
            visit_value(Token::Null)
        }
        (Some(Token::Map(_)), None) => false, // no scalar
        (Some(token), None) => visit_value(token),
        _ => visit_value(Token::Null),
    }
}

/// Calls `each` with every scalar at a path: what an index holds of a record.
pub fn values<'a>(document: &'a [u8], path: &[Box<str>], each: &mut dyn FnMut(Token<'a>)) {
    visit(document, path, &mut |token| {
        each(token);
        false
    });
}

/// Reused memory of comparisons.
#[derive(Default)]
pub struct Scratch(Vec<u8>);

impl Test {
    fn matches(&self, document: &[u8], scratch: &mut Scratch) -> bool {
        let comparison = match &self.comparison {
            Comparison::NotEqual(value) => {
                return !visit(document, &self.path, &mut |token| is_equal(token, value, scratch));
            }
            comparison => comparison,
        };
        visit(document, &self.path, &mut |token| match (comparison, token) {
            (Comparison::Equal(value), token) => is_equal(token, value, scratch),
            (Comparison::OneOf(values), token) => {
                scratch.0.clear();
                order::encode(token, &mut scratch.0)
                    && values.binary_search_by(|value| (**value).cmp(scratch.0.as_slice())).is_ok()
            }
            (Comparison::Range(lower, upper), token) => {
                scratch.0.clear();
                order::encode(token, &mut scratch.0) && is_within(&scratch.0, lower, upper)
            }
            (Comparison::StartsWith(text), Token::Str(own)) => own.starts_with(&**text),
            (Comparison::EndsWith(text), Token::Str(own)) => own.ends_with(&**text),
            (Comparison::Contains(text), Token::Str(own)) => own.contains(&**text),
            _ => false,
        })
    }
}

fn is_equal(token: Token<'_>, value: &[u8], scratch: &mut Scratch) -> bool {
    scratch.0.clear();
    order::encode(token, &mut scratch.0) && scratch.0 == value
}

fn is_within(value: &[u8], lower: &Bound<Scalar>, upper: &Bound<Scalar>) -> bool {
    let kind = |bound: &Scalar| order::is_same_kind(value, bound);
    let above = match lower {
        Bound::Included(lower) => kind(lower) && *value >= **lower,
        Bound::Excluded(lower) => kind(lower) && *value > **lower,
        Bound::Unbounded => true,
    };
    above
        && match upper {
            Bound::Included(upper) => kind(upper) && *value <= **upper,
            Bound::Excluded(upper) => kind(upper) && *value < **upper,
            Bound::Unbounded => true,
        }
        && value.first() != Some(&order::NULL)
}

impl Condition {
    /// Puts what a query of another table has found in the place of that query's number.
    pub fn fill_in(&mut self, number: usize, found: &Arc<[Scalar]>) {
        match self {
            Condition::All(all) | Condition::Any(all) => all.iter_mut().for_each(|one| one.fill_in(number, found)),
            Condition::Test(test) if test.comparison == Comparison::Joined(number) => {
                test.comparison = Comparison::OneOf(found.clone());
            }
            Condition::Test(_) => {}
        }
    }

    /// Whether a record is wanted.
    pub fn matches(&self, document: &[u8], scratch: &mut Scratch) -> bool {
        match self {
            Condition::All(all) => all.iter().all(|one| one.matches(document, scratch)),
            Condition::Any(any) => any.iter().any(|one| one.matches(document, scratch)),
            Condition::Test(test) => test.matches(document, scratch),
        }
    }

    /// The tests that every wanted record passes.
    pub fn conjuncts(&self) -> impl Iterator<Item = &Test> {
        let all = match self {
            Condition::All(all) => all.as_slice(),
            other => std::slice::from_ref(other),
        };
        all.iter().filter_map(|one| match one {
            Condition::Test(test) => Some(test),
            _ => None,
        })
    }
}

impl Query {
    /// Whether a record is wanted.
    pub fn matches(&self, document: &[u8], scratch: &mut Scratch) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.matches(document, scratch))
    }

    /// Where a record stands in the order: the least value at each path (of texts their beginning), then its key; upside
    /// down where it descends (the key as the last path).
    pub fn place(&self, key: &[u8], document: &[u8], out: &mut Vec<u8>) {
        for key in &self.sort {
            let start = out.len();
            let mut least: Option<Vec<u8>> = None;
            values(document, &key.path, &mut |token| {
                let mut own = Vec::new();
                if order::encode_cut(token, &mut own) && least.as_ref().is_none_or(|least| own < *least) {
                    least = Some(own);
                }
            });
            out.extend_from_slice(&least.unwrap_or_else(|| vec![order::NULL]));
            if key.descending {
                out[start..].iter_mut().for_each(|byte| *byte = !*byte);
            }
        }
        let start = out.len();
        order::encode(Token::Bytes(key), out);
        if self.sort.last().is_some_and(|last| last.descending) {
            out[start..].iter_mut().for_each(|byte| *byte = !*byte);
        }
    }
}
