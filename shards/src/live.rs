//! Live queries: subscriptions that hear of a record only while a query wants it, and when it leaves. Each distinct query
//! is kept once for all its subscribers at a shard, and evaluated once per event. An event looks only at queries that can
//! care: of each query one comparison is kept in order, by the attribute it compares, and found by the values that the
//! record has and had.

use crate::index::Range;
use crate::query::plan::ranges;
use crate::query::{Condition, Query, order, values};
use crate::subscription::Subscribers;
use crate::topic::KeyFilter;
use hashbrown::HashMap;
use slab::Slab;
use std::sync::Arc;

pub(crate) struct LiveQuery {
    pub filter: KeyFilter,
    pub query: Arc<Query>,
    pub subscribers: Subscribers,
}

/// The live queries of a table at one shard.
#[derive(Default)]
pub(crate) struct LiveQueries {
    queries: Slab<LiveQuery>,
    numbers: HashMap<(KeyFilter, Arc<Query>), u32>,
    /// `None`: to be made again, a query has come or gone.
    places: Option<Places>,
}

/// Where queries are found by a record's values.
#[derive(Default)]
struct Places {
    /// By attribute: in which range a value makes a query care.
    attributes: Vec<(Box<str>, Intervals)>,
    /// Queries that every event concerns.
    others: Vec<u32>,
}

/// Intervals by their lower ends: a search tree without pointers, whose nodes are the middles of its parts.
#[derive(Default)]
struct Intervals {
    ranges: Vec<(Range, u32)>,
    /// The highest upper end of each node's part.
    highest: Vec<Box<[u8]>>,
}

impl Intervals {
    fn arrange(&mut self) {
        self.ranges.sort_by(|(a, _), (b, _)| a.lower.cmp(&b.lower));
        self.highest = vec![Box::default(); self.ranges.len()];
        self.measure(0, self.ranges.len());
    }

    fn measure(&mut self, from: usize, to: usize) -> Box<[u8]> {
        if from >= to {
            return Box::default();
        }
        let middle = from + (to - from) / 2;
        let own = self.ranges[middle].0.upper.clone();
        let highest = own.max(self.measure(from, middle)).max(self.measure(middle + 1, to));
        self.highest[middle] = highest.clone();
        highest
    }

    /// All whose range has this value.
    fn find(&self, value: &[u8], (from, to): (usize, usize), found: &mut Vec<u32>) {
        if from >= to {
            return;
        }
        let middle = from + (to - from) / 2;
        if *self.highest[middle] <= *value {
            return;
        }
        self.find(value, (from, middle), found);
        let (range, number) = &self.ranges[middle];
        if *range.lower <= *value {
            if range.contains(value) {
                found.push(*number);
            }
            self.find(value, (middle + 1, to), found);
        }
    }
}

impl Places {
    fn of(queries: &Slab<LiveQuery>) -> Places {
        let mut places = Places::default();
        for (number, own) in queries {
            let tests = own.query.condition.iter().flat_map(Condition::conjuncts);
            let mut useful = tests.filter_map(|test| match &*test.path {
                [name] => Some((name, ranges(&test.comparison)?)),
                _ => None,
            });
            let Some((name, ranges)) = useful.next() else {
                places.others.push(number as u32);
                continue;
            };
            let at = places.attributes.iter().position(|(own, _)| own == name).unwrap_or_else(|| {
                places.attributes.push((name.clone(), Intervals::default()));
                places.attributes.len() - 1
            });
            let all = ranges.into_iter().map(|range| (range, number as u32));
            places.attributes[at].1.ranges.extend(all);
        }
        places.attributes.iter_mut().for_each(|(_, intervals)| intervals.arrange());
        places
    }
}

impl LiveQueries {
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    /// The number of a query over these keys.
    pub fn enter(&mut self, filter: &KeyFilter, query: &Arc<Query>) -> u32 {
        let LiveQueries { queries, numbers, places } = self;
        *numbers.entry((filter.clone(), query.clone())).or_insert_with(|| {
            *places = None;
            let (filter, query, subscribers) = (filter.clone(), query.clone(), Subscribers::default());
            queries.insert(LiveQuery { filter, query, subscribers }) as u32
        })
    }

    pub fn get(&self, number: u32) -> &LiveQuery {
        &self.queries[number as usize]
    }

    pub fn subscribers(&mut self, number: u32) -> &mut Subscribers {
        &mut self.queries[number as usize].subscribers
    }

    /// Forgets a query that nobody has subscribed to any more.
    pub fn leave(&mut self, number: u32) {
        if self.queries[number as usize].subscribers.is_empty() {
            let LiveQuery { filter, query, .. } = self.queries.remove(number as usize);
            self.numbers.remove(&(filter, query));
            self.places = None;
        }
    }

    /// The queries that may care for an event, each once, by what the record was and what it is.
    pub fn concerned(&mut self, documents: [&[u8]; 2]) -> Vec<u32> {
        let places = self.places.get_or_insert_with(|| Places::of(&self.queries));
        let mut found = places.others.clone();
        let mut value = Vec::new();
        for (name, intervals) in &places.attributes {
            for document in documents.iter().filter(|document| !document.is_empty()) {
                values(document, std::slice::from_ref(name), &mut |token| {
                    value.clear();
                    if order::encode_cut(token, &mut value) {
                        intervals.find(&value, (0, intervals.ranges.len()), &mut found);
                    }
                });
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_find_what_a_list_finds() {
        let mut state = 7u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for count in [0, 1, 2, 3, 10, 100] {
            let mut intervals = Intervals::default();
            for number in 0..count {
                let lower = next(50) as u8;
                let range = Range { lower: [lower].into(), upper: [lower + 1 + next(20) as u8].into() };
                intervals.ranges.push((range, number));
            }
            intervals.arrange();
            for value in 0..80u8 {
                let mut found = Vec::new();
                intervals.find(&[value], (0, intervals.ranges.len()), &mut found);
                found.sort_unstable();
                let mut wanted: Vec<u32> =
                    intervals.ranges.iter().filter(|(range, _)| range.contains(&[value])).map(|(_, n)| *n).collect();
                wanted.sort_unstable();
                assert_eq!(found, wanted);
            }
        }
    }
}
