//! Reading many records in key order across shards while they change: snapshots of subscriptions and collections over
//! REST. Kept by the shard whose connection reads; the owners only answer requests for the next chunk.
//!
//! Each owner gives its records in key order; the scan merges them. Its cursor is the last key handed out. An event
//! that arrives while the scan runs is delivered at once if its key lies at or before the cursor (that record was
//! handed out already), changes the buffered row if it lies in what was fetched, and is dropped if it lies beyond (the
//! chunk that will be fetched later includes it). Chunks and events of one owner arrive in one order, hence: no gap and
//! no duplicate, and every record appears in its newest state.

use crate::clock::Version;
use crate::event::{Body, Event, EventKind, Terms};
use crate::limits::SCAN_CHUNK_RECORDS;
use crate::query::plan::Plan;
use crate::topic::{KeyFilter, Target};
use std::collections::VecDeque;
use std::sync::Arc;

/// A scan of one shard, and whose turn it is under that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanRef {
    pub index: u32,
    pub generation: u32,
}

/// A record on its way to a reader.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub version: Version,
    pub terms: Terms,
    pub body: Body,
    /// Its place, where rows do not come in the order of their keys.
    pub place: Option<Box<[u8]>>,
}

impl Row {
    fn place(&self) -> &[u8] {
        self.place.as_deref().unwrap_or(self.body.key())
    }
}

/// What an owner gives in one go.
#[derive(Debug, Default)]
pub struct Chunk {
    pub rows: Vec<Row>,
    /// Every record up to this place has been looked at.
    pub upto: Option<Box<[u8]>>,
    /// There are no more.
    pub done: bool,
    /// Records are missing, because the owner cannot read them.
    pub is_damaged: bool,
}

#[derive(Debug, PartialEq)]
pub enum Step {
    Row {
        target: usize,
        row: Row,
    },
    /// Owners have been asked, or must be: see [`Scan::requests`].
    Wait,
    /// Records are missing that their shard cannot read. The scan is over.
    Damaged,
    End,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The event is news to the reader now.
    Deliver,
    /// The reader sees, or will see, its effect in a row.
    Absorbed,
}

struct Source {
    shard: u16,
    rows: VecDeque<Row>,
    upto: Option<Box<[u8]>>,
    done: bool,
    asked: bool,
}

pub struct Scan {
    targets: Arc<[Target]>,
    /// Index of the target being read.
    at: usize,
    shards: u16,
    sources: Vec<Source>,
    cursor: Option<Box<[u8]>>,
    is_damaged: bool,
    /// Which rows, and in which order; all in the order of their keys if there is none.
    plan: Option<Arc<Plan>>,
}

/// The shard that owns a key: FNV-1a over table and key, spread over the shards. Part of the data format.
pub fn owner(table: crate::schema::TableId, key: &[u8], shards: usize) -> u16 {
    const PRIME: u64 = 0x100_0000_01b3;
    let bytes = table.0.to_le_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in bytes.iter().chain(key) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    // FNV's high bits are weak for short keys: mix them once.
    hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((u128::from(hash) * shards as u128) >> 64) as u16
}

impl Scan {
    pub fn new(targets: Arc<[Target]>, plan: Option<Arc<Plan>>, shards: usize) -> Scan {
        let (shards, sources) = (shards as u16, Vec::new());
        let mut scan = Scan { targets, at: 0, shards, sources, cursor: None, is_damaged: false, plan };
        scan.enter_target();
        scan
    }

    fn enter_target(&mut self) {
        self.cursor = None;
        self.sources.clear();
        let Some(target) = self.targets.get(self.at) else { return };
        let owners = match &target.filter {
            KeyFilter::Exact { key, .. } => {
                let owner = owner(target.table, key, usize::from(self.shards));
                owner..owner + 1
            }
            KeyFilter::Pattern(_) => 0..self.shards,
        };
        let source = |shard| Source { shard, rows: VecDeque::new(), upto: None, done: false, asked: false };
        self.sources.extend(owners.map(source));
    }

    /// The next record in key order, if it is known.
    pub fn step(&mut self) -> Step {
        loop {
            if self.at == self.targets.len() {
                return Step::End;
            }
            if !self.can_step() {
                return Step::Wait;
            }
            let heads =
                (0..self.sources.len()).filter_map(|index| Some((self.sources[index].rows.front()?.place(), index)));
            let next = if self.is_descending() { heads.max() } else { heads.min() };
            match next.map(|(_, index)| index).and_then(|index| self.sources[index].rows.pop_front()) {
                Some(row) => {
                    self.cursor = Some(row.place().into());
                    return Step::Row { target: self.at, row };
                }
                None => {
                    self.at += 1;
                    self.enter_target();
                }
            }
        }
    }

    /// Whether [`Scan::step`] would not say [`Step::Wait`].
    pub fn can_step(&self) -> bool {
        self.sources.iter().all(|source| source.done || !source.rows.is_empty())
    }

    /// Whether records are missing that their shards cannot read.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Whether nothing follows what was handed out.
    pub fn is_at_end(&self) -> bool {
        self.at + 1 >= self.targets.len() && self.sources.iter().all(|source| source.done && source.rows.is_empty())
    }

    /// Calls `ask` with the owners to be asked now: shard, target, and the place after which to go on.
    pub fn requests(&mut self, mut ask: impl FnMut(u16, &Target, Option<&Arc<Plan>>, Option<Box<[u8]>>)) {
        let Some(target) = self.targets.get(self.at) else { return };
        let plan = self.plan.as_ref();
        for source in &mut self.sources {
            if !source.done && !source.asked && source.rows.is_empty() {
                source.asked = true;
                ask(source.shard, target, plan, source.upto.clone());
            }
        }
    }

    fn is_descending(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.descending)
    }

    /// An owner has answered.
    pub fn offer(&mut self, shard: u16, chunk: Chunk) {
        let Some(source) = self.sources.iter_mut().find(|source| source.shard == shard) else { return };
        self.is_damaged |= chunk.is_damaged;
        source.asked = false;
        source.done = chunk.done;
        source.upto = chunk.upto.or(source.upto.take());
        source.rows.extend(chunk.rows);
    }

    /// What an event that matches target number `target` means to the reader. `is_wanted`: the record has a place among
    /// the rows after it.
    pub fn apply(&mut self, target: usize, event: &Event, is_wanted: bool) -> Verdict {
        if event.kind == EventKind::Message || target < self.at {
            return Verdict::Deliver;
        }
        if target > self.at {
            return Verdict::Absorbed;
        }
        let key = event.body.key();
        if self.cursor.as_deref().is_some_and(|cursor| key <= cursor) {
            return Verdict::Deliver;
        }
        let Some(source) = self.sources.iter_mut().find(|source| source.shard == event.shard) else {
            return Verdict::Absorbed;
        };
        if source.done || source.upto.as_deref().is_some_and(|upto| key <= upto) {
            let place = source.rows.binary_search_by(|row| row.body.key().cmp(key));
            let row = Row { version: event.version, terms: event.terms, body: event.body.clone(), place: None };
            match (place, is_wanted) {
                (Ok(at), false) => {
                    source.rows.remove(at);
                }
                (Ok(at), true) => source.rows[at] = row,
                (Err(_), false) => {}
                // A reader that has stopped must not gather all that is new: what lies beyond is fetched again later.
                (Err(at), _) if source.rows.len() >= 2 * SCAN_CHUNK_RECORDS && !source.asked => {
                    source.rows.truncate(at);
                    let last = source.rows.back().map(|row| row.body.key().into());
                    source.upto = last.or_else(|| self.cursor.clone());
                    source.done = false;
                }
                (Err(at), _) => source.rows.insert(at, row),
            }
        }
        Verdict::Absorbed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableId;

    /// Keys as people choose them spread over the shards. The owners of a few keys are pinned: they are part of the
    /// data format.
    #[test]
    fn keys_spread_evenly_and_stay_where_they_are() {
        let shapes: [fn(u32) -> String; 3] =
            [|n| n.to_string(), |n| format!("device-{n:05}"), |n| format!("a/{n}/temp")];
        for shards in [2, 3, 4, 64] {
            for shape in shapes {
                let mut counts = vec![0usize; shards];
                (0..64_000).for_each(|n| counts[usize::from(owner(TableId(1), shape(n).as_bytes(), shards))] += 1);
                let mean = 64_000 / shards;
                assert!(counts.iter().all(|count| count.abs_diff(mean) < mean / 5), "{counts:?}");
            }
        }
        let pinned: Vec<u16> = ["101", "102", "a/b", ""].map(|key| owner(TableId(7), key.as_bytes(), 64)).to_vec();
        assert_eq!(pinned, PINNED);
    }

    const PINNED: [u16; 4] = [19, 1, 8, 21];
}
