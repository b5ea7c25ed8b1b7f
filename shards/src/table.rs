//! One shard's slice of a table: where each record stands in the log, in key order, and who is interested in what.
//! Values live in the log; memory holds the key and 16 bytes per record.

use crate::clock::Version;
use crate::document;
use crate::event::Body;
use crate::key::{KeyCodec, decode_integer};
use crate::limits::{SCAN_CHUNK_BYTES, SCAN_CHUNK_RECORDS};
use crate::log::{Location, Log};
use crate::scan::{Chunk, Row};
use crate::schema::TableDef;
use crate::subscription::Subscribers;
use crate::topic::{KeyFilter, Tree};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Where a record stands, and its version.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub location: Location,
    pub version: Version,
}

/// The set of shards that want to hear of a filter's events.
pub(crate) type ShardSet = u64;

pub struct Table {
    /// `None`: in the log, but no longer declared; its records are kept.
    pub definition: Option<Arc<TableDef>>,
    pub codec: KeyCodec,
    index: BTreeMap<Box<[u8]>, Entry>,
    pub(crate) subscribers: Tree<Subscribers>,
    pub(crate) interest: Tree<ShardSet>,
    /// The next key this shard generates, where keys are numbers.
    next_key: i64,
}

impl Table {
    pub fn new(definition: Option<Arc<TableDef>>) -> Table {
        let codec = definition.as_ref().map_or(KeyCodec::Text, |definition| KeyCodec::of(definition));
        Table {
            definition,
            codec,
            index: BTreeMap::new(),
            subscribers: Tree::default(),
            interest: Tree::default(),
            next_key: 1,
        }
    }

    pub fn get(&self, key: &[u8]) -> Option<Entry> {
        self.index.get(key).copied()
    }

    pub fn set(&mut self, key: &[u8], entry: Entry) {
        match self.index.get_mut(key) {
            Some(known) => *known = entry,
            None => {
                self.index.insert(key.into(), entry);
            }
        }
    }

    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.index.remove(key).is_some()
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The largest key that is a number, where keys may be numbers.
    pub fn largest_integer_key(&self) -> Option<i64> {
        match self.codec {
            KeyCodec::Integer => self.index.last_key_value().map(|(key, _)| decode_integer(key)),
            KeyCodec::Auto => {
                let (key, _) = self
                    .index
                    .range::<[u8], _>((Bound::Unbounded, Bound::Excluded(KeyCodec::FIRST_TEXT)))
                    .next_back()?;
                let mut scratch = String::new();
                self.codec.text(key, &mut scratch).parse::<f64>().ok().map(|number| number as i64)
            }
            KeyCodec::Text => None,
        }
    }

    /// Generated keys start above `largest`; each shard of `shards` takes every n-th.
    pub fn start_keys(&mut self, largest: i64, shard: u16, shards: usize) {
        let shards = shards as i64;
        let above = largest.max(0).saturating_add(1);
        self.next_key = above.saturating_add((i64::from(shard) - above).rem_euclid(shards));
    }

    /// A key that this shard has not given out before. It may be taken by a record that a client named so. `None`: there
    /// are no more.
    pub fn generate_key(&mut self, shards: usize) -> Option<i64> {
        let key = self.next_key;
        self.next_key = self.next_key.checked_add(shards as i64)?;
        Some(key)
    }

    /// The next records that match, after a key; as many as fit a chunk.
    pub fn chunk(&self, filter: &KeyFilter, after: Option<&[u8]>, log: &Log) -> Chunk {
        let mut gather = Gather::default();
        if let KeyFilter::Exact { key, .. } = filter {
            if after.is_none()
                && let Some(entry) = self.get(key)
            {
                gather.add(key, entry, log);
            }
            return gather.finish(None, true);
        }
        let prefix = if self.codec == KeyCodec::Text { filter.prefix() } else { String::new() };
        let start = match after {
            Some(after) if after >= prefix.as_bytes() => Bound::Excluded(after),
            _ => Bound::Included(prefix.as_bytes()),
        };
        let everything = *filter == KeyFilter::all();
        let mut scratch = String::new();
        let mut looked_at = 0;
        for (key, entry) in self.index.range::<[u8], _>((start, Bound::Unbounded)) {
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            if everything || filter.matches(self.codec.text(key, &mut scratch)) {
                gather.add(key, *entry, log);
            }
            looked_at += 1;
            if looked_at >= SCAN_CHUNK_RECORDS || gather.bytes.len() >= SCAN_CHUNK_BYTES {
                return gather.finish(Some(key.clone()), false);
            }
        }
        gather.finish(None, true)
    }
}

/// Rows that share one allocation.
#[derive(Default)]
struct Gather {
    bytes: Vec<u8>,
    /// Version, length of the key, end of the row in `bytes`.
    rows: Vec<(Version, usize, usize)>,
}

impl Gather {
    fn add(&mut self, key: &[u8], entry: Entry, log: &Log) {
        let Some(record) = log.read(entry.location) else { return };
        debug_assert!(document::is_well_formed(record.document), "the log holds canonical documents");
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(record.document);
        self.rows.push((entry.version, key.len(), self.bytes.len()));
    }

    fn finish(self, upto: Option<Box<[u8]>>, done: bool) -> Chunk {
        let bytes = Bytes::from(self.bytes);
        let mut start = 0;
        let row = |(version, key_bytes, end): (Version, usize, usize)| {
            let body = Body::from_slice(bytes.slice(start..end), key_bytes);
            start = end;
            Row { version, body }
        };
        Chunk { rows: self.rows.into_iter().map(row).collect(), upto, done }
    }
}
