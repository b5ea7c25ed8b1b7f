//! One shard's slice of a table: where each record stands in the log, in key order, and who is interested in what.
//! Values live in the log; memory holds the key and 24 bytes per record.

use crate::clock::Version;
use crate::document;
use crate::event::{Body, Terms};
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
    /// Its length in the log.
    pub bytes: u32,
    /// It may have expired: the log says when.
    pub expires: bool,
}

const _: () = assert!(size_of::<Entry>() == 24, "memory per record");

/// What readers see of a key whose newest versions are not on disk yet, where delivery waits for that.
struct Uncommitted {
    visible: Option<Entry>,
    /// Versions that are on their way to the disk.
    pending: u32,
}

/// The set of shards that want to hear of a filter's events.
pub(crate) type ShardSet = u64;

pub struct Table {
    /// `None`: in the log, but no longer declared; its records are kept.
    pub definition: Option<Arc<TableDef>>,
    pub codec: KeyCodec,
    index: BTreeMap<Box<[u8]>, Entry>,
    /// Only of tables that deliver what is committed.
    uncommitted: BTreeMap<Box<[u8]>, Uncommitted>,
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
            uncommitted: BTreeMap::new(),
            subscribers: Tree::default(),
            interest: Tree::default(),
            next_key: 1,
        }
    }

    /// The newest version of a record.
    pub fn get(&self, key: &[u8]) -> Option<Entry> {
        self.index.get(key).copied()
    }

    /// The version that readers see.
    pub fn visible(&self, key: &[u8]) -> Option<Entry> {
        match self.uncommitted.get(key) {
            Some(uncommitted) => uncommitted.visible,
            None => self.get(key),
        }
    }

    /// Takes over all records at once, in the order of their keys.
    pub fn load(&mut self, rows: Vec<(Box<[u8]>, Entry)>) {
        self.index = rows.into_iter().collect();
    }

    /// Gives what was there before.
    pub fn set(&mut self, key: &[u8], entry: Entry) -> Option<Entry> {
        match self.index.get_mut(key) {
            Some(known) => Some(std::mem::replace(known, entry)),
            None => {
                self.index.insert(key.into(), entry);
                None
            }
        }
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        self.index.remove(key)
    }

    /// A record has been copied to another place.
    pub fn moved(&mut self, key: &[u8], from: Location, to: Location) -> bool {
        let stands = |entry: &&mut Entry| entry.location == from;
        let uncommitted = self.uncommitted.get_mut(key).and_then(|uncommitted| uncommitted.visible.as_mut());
        if let Some(entry) = uncommitted.filter(stands) {
            entry.location = to;
        }
        match self.index.get_mut(key).filter(stands) {
            Some(entry) => {
                entry.location = to;
                true
            }
            None => false,
        }
    }

    /// All records, in the order of their keys.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], Entry)> {
        self.index.iter().map(|(key, entry)| (&**key, *entry))
    }

    /// A write that readers do not see yet; `before` is what they saw of the key.
    pub fn hold_back(&mut self, key: &[u8], before: Option<Entry>) {
        match self.uncommitted.get_mut(key) {
            Some(uncommitted) => uncommitted.pending += 1,
            None => _ = self.uncommitted.insert(key.into(), Uncommitted { visible: before, pending: 1 }),
        }
    }

    /// The oldest write of a key that was held back is on disk now; `after` is what it made of the record.
    pub fn commit(&mut self, key: &[u8], after: Option<Entry>) {
        if let Some(uncommitted) = self.uncommitted.get_mut(key) {
            uncommitted.pending -= 1;
            uncommitted.visible = after;
            if uncommitted.pending == 0 {
                self.uncommitted.remove(key);
            }
        }
    }

    /// At most `count` keys behind a key.
    pub fn keys_after(&self, after: &[u8], count: usize) -> Vec<Box<[u8]>> {
        let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        self.index.range::<[u8], _>((from, Bound::Unbounded)).take(count).map(|(key, _)| key.clone()).collect()
    }

    /// The keys that begin with `prefix`.
    pub fn keys_below(&self, prefix: &[u8]) -> Vec<Box<[u8]>> {
        let found = self.index.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded)).map(|(key, _)| key);
        found.take_while(|key| key.starts_with(prefix)).cloned().collect()
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

    /// What readers see from a key on, in order.
    fn visible_from<'a>(&'a self, start: Bound<&'a [u8]>) -> impl Iterator<Item = (&'a [u8], Option<Entry>)> {
        let mut stored = self.index.range::<[u8], _>((start, Bound::Unbounded)).peekable();
        let mut held = self.uncommitted.range::<[u8], _>((start, Bound::Unbounded)).peekable();
        std::iter::from_fn(move || {
            let Some((key, uncommitted)) = held.peek() else {
                return stored.next().map(|(key, entry)| (&**key, Some(*entry)));
            };
            match stored.peek() {
                Some((other, _)) if other < key => stored.next().map(|(key, entry)| (&**key, Some(*entry))),
                other => {
                    if other.is_some_and(|(other, _)| other == key) {
                        stored.next();
                    }
                    let found = (&***key, uncommitted.visible);
                    held.next();
                    Some(found)
                }
            }
        })
    }

    /// The next records that match, after a key; as many as fit a chunk. Those that have expired are left out.
    pub fn chunk(&self, filter: &KeyFilter, after: Option<&[u8]>, log: &Log, now_ms: u64) -> Chunk {
        let mut gather = Gather { log, now_ms, bytes: Vec::new(), rows: Vec::new(), is_damaged: false };
        if let KeyFilter::Exact { key, .. } = filter {
            if after.is_none() {
                gather.add(key, self.visible(key));
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
        for (key, entry) in self.visible_from(start) {
            if !key.starts_with(prefix.as_bytes()) {
                break;
            }
            if everything || filter.matches(self.codec.text(key, &mut scratch)) {
                gather.add(key, entry);
            }
            looked_at += 1;
            if looked_at >= SCAN_CHUNK_RECORDS || gather.bytes.len() >= SCAN_CHUNK_BYTES {
                return gather.finish(Some(key.into()), false);
            }
        }
        gather.finish(None, true)
    }
}

/// A row in a [`Gather`].
struct Gathered {
    version: Version,
    terms: Terms,
    key_bytes: usize,
    properties_bytes: usize,
    /// Of the row, in the bytes.
    end: usize,
}

/// Rows that share one allocation.
struct Gather<'a> {
    log: &'a Log,
    now_ms: u64,
    bytes: Vec<u8>,
    rows: Vec<Gathered>,
    is_damaged: bool,
}

impl Gather<'_> {
    fn add(&mut self, key: &[u8], entry: Option<Entry>) {
        let Some(entry) = entry else { return };
        let Ok(record) = self.log.read(entry.location) else {
            self.is_damaged = true;
            return;
        };
        if record.terms.expires_ms.is_some_and(|at| at <= self.now_ms) {
            return;
        }
        debug_assert!(document::is_well_formed(record.document), "the log holds canonical documents");
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(record.properties);
        self.bytes.extend_from_slice(record.document);
        self.rows.push(Gathered {
            version: entry.version,
            terms: record.terms,
            key_bytes: key.len(),
            properties_bytes: record.properties.len(),
            end: self.bytes.len(),
        });
    }

    fn finish(self, upto: Option<Box<[u8]>>, done: bool) -> Chunk {
        let bytes = Bytes::from(self.bytes);
        let mut start = 0;
        let row = |own: Gathered| {
            let body = Body::from_slice(bytes.slice(start..own.end), own.key_bytes, own.properties_bytes);
            start = own.end;
            Row { version: own.version, terms: own.terms, body }
        };
        Chunk { rows: self.rows.into_iter().map(row).collect(), upto, done, is_damaged: self.is_damaged }
    }
}
