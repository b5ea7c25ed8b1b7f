//! One shard's slice of a table: where each record stands in the log, in key order, and who is interested in what.
//! Values live in the log; memory holds the key and 24 bytes per record.

use crate::clock::Version;
use crate::document;
use crate::event::{Body, Terms};
use crate::index::{Index, Indexes, Range};
use crate::key::{KeyCodec, decode_integer};
use crate::limits::{SCAN_CHUNK_BYTES, SCAN_CHUNK_RECORDS, SCAN_LOOKED_AT};
use crate::live::LiveQueries;
use crate::log::{Location, Log};
use crate::query::plan::{Known, Order, Plan};
use crate::query::{Condition, Query, Scratch, order, values};
use crate::record_key::{KeyBytes, Probe, RecordKey};
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
    index: BTreeMap<RecordKey, Entry>,
    pub(crate) indexes: Indexes,
    /// Only while something is held back until it is on disk.
    uncommitted: BTreeMap<Box<[u8]>, Uncommitted>,
    pub(crate) subscribers: Tree<Subscribers>,
    pub(crate) interest: Tree<ShardSet>,
    /// Of this shard's subscribers.
    pub(crate) live: LiveQueries,
    /// Shards that have live queries: they are told what a record was before.
    pub(crate) watchers: ShardSet,
    /// The next key this shard generates, where keys are numbers.
    next_key: i64,
}

impl Table {
    pub fn new(definition: Option<Arc<TableDef>>) -> Table {
        let codec = definition.as_ref().map_or(KeyCodec::Text, |definition| KeyCodec::of(definition));
        Table {
            indexes: definition.as_deref().map(Indexes::new).unwrap_or_default(),
            definition,
            codec,
            index: BTreeMap::new(),
            uncommitted: BTreeMap::new(),
            subscribers: Tree::default(),
            interest: Tree::default(),
            live: LiveQueries::default(),
            watchers: 0,
            next_key: 1,
        }
    }

    /// The newest version of a record.
    pub fn get(&self, key: &[u8]) -> Option<Entry> {
        self.index.get(Probe::new(key).key()).copied()
    }

    /// The version that readers see.
    pub fn visible(&self, key: &[u8]) -> Option<Entry> {
        match self.uncommitted.get(key) {
            Some(uncommitted) => uncommitted.visible,
            None => self.get(key),
        }
    }

    /// Takes over all records at once, in the order of their keys.
    pub fn load(&mut self, rows: Vec<(RecordKey, Entry)>) {
        self.index = rows.into_iter().collect();
    }

    /// Gives what was there before.
    pub fn set(&mut self, key: &[u8], entry: Entry) -> Option<Entry> {
        match self.index.get_mut(Probe::new(key).key()) {
            Some(known) => Some(std::mem::replace(known, entry)),
            None => {
                self.index.insert(RecordKey::new(key), entry);
                None
            }
        }
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        self.index.remove(Probe::new(key).key())
    }

    /// A record has been copied to another place.
    pub fn moved(&mut self, key: &[u8], from: Location, to: Location) -> bool {
        let stands = |entry: &&mut Entry| entry.location == from;
        let uncommitted = self.uncommitted.get_mut(key).and_then(|uncommitted| uncommitted.visible.as_mut());
        if let Some(entry) = uncommitted.filter(stands) {
            entry.location = to;
        }
        match self.index.get_mut(Probe::new(key).key()).filter(stands) {
            Some(entry) => {
                entry.location = to;
                true
            }
            None => false,
        }
    }

    /// All records, in the order of their keys.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], Entry)> {
        self.stored_in((Bound::Unbounded, Bound::Unbounded))
    }

    /// Whether anybody may want to hear of an event.
    pub fn is_heard(&self) -> bool {
        !self.subscribers.is_empty() || !self.interest.is_empty()
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
        self.stored_in((from, Bound::Unbounded)).take(count).map(|(key, _)| key.into()).collect()
    }

    /// The keys that begin with `prefix`.
    pub fn keys_below(&self, prefix: &[u8]) -> Vec<Box<[u8]>> {
        let found = self.stored_in((Bound::Included(prefix), Bound::Unbounded)).map(|(key, _)| key);
        found.take_while(|key| key.starts_with(prefix)).map(Into::into).collect()
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
            KeyCodec::Integer => self.index.last_key_value().map(|(key, _)| decode_integer(key.bytes())),
            KeyCodec::Auto => {
                let (key, _) = self.stored_in((Bound::Unbounded, Bound::Excluded(KeyCodec::FIRST_TEXT))).next_back()?;
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

    /// The records in a range of keys, in order.
    fn stored_in<'a>(
        &'a self,
        (from, upto): (Bound<&'a [u8]>, Bound<&'a [u8]>),
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], Entry)> + 'a {
        let (from, upto) = (from.map(Probe::new), upto.map(Probe::new));
        let range = (from.as_ref().map(Probe::key), upto.as_ref().map(Probe::key));
        self.index.range::<KeyBytes, _>(range).map(|(key, entry)| (key.bytes(), *entry))
    }

    /// What readers see of the keys in a range, in order.
    fn visible_in<'a>(
        &'a self,
        range: (Bound<&'a [u8]>, Bound<&'a [u8]>),
        descending: bool,
    ) -> Box<dyn Iterator<Item = (&'a [u8], Option<Entry>)> + 'a> {
        let stored = self.stored_in(range).map(|(key, entry)| (key, Some(entry)));
        if self.uncommitted.is_empty() {
            return if descending { Box::new(stored.rev()) } else { Box::new(stored) };
        }
        let held = self.uncommitted.range::<[u8], _>(range).map(|(key, own)| (&**key, own.visible));
        if descending { Box::new(join(stored.rev(), held.rev(), true)) } else { Box::new(join(stored, held, false)) }
    }

    /// How a query is best carried out.
    pub fn plan(&self, query: Arc<Query>) -> Option<Plan> {
        let definition = self.definition.as_deref()?;
        let known = Known { definition, codec: self.codec, indexes: &self.indexes, records: self.len() };
        Some(Plan::new(query, &known))
    }

    /// The next records that match, behind a place; as many as fit a chunk. Those that have expired are left out.
    pub fn chunk(
        &self,
        filter: &KeyFilter,
        plan: Option<&Plan>,
        after: Option<&[u8]>,
        log: &Log,
        now_ms: u64,
    ) -> Chunk {
        let condition = plan.and_then(|plan| plan.query.condition.as_ref());
        let mut gather = Gather {
            log,
            now_ms,
            condition,
            scratch: Scratch::default(),
            bytes: Vec::new(),
            rows: Vec::new(),
            is_damaged: false,
        };
        if let KeyFilter::Exact { key, .. } = filter {
            if after.is_none() {
                gather.add(key, self.visible(key), None);
            }
            return gather.finish(None, true);
        }
        if let Some(Plan { order: Order::Index { number, ranges, .. }, descending, .. }) = plan {
            return self.index_chunk(filter, *number, ranges, *descending, after, gather);
        }
        if let Some(Plan { order: Order::Points(points), .. }) = plan {
            let from = after.map_or(0, |after| points.partition_point(|key| **key <= *after));
            let mut scratch = String::new();
            for (looked_at, key) in points[from..].iter().enumerate() {
                if filter.matches(self.codec.text(key, &mut scratch)) {
                    gather.add(key, self.visible(key), None);
                }
                if gather.is_full(looked_at + 1) {
                    return gather.finish(Some(key.clone()), false);
                }
            }
            return gather.finish(None, true);
        }
        let prefix = if self.codec == KeyCodec::Text { filter.prefix() } else { String::new() };
        let (mut lower, mut upper) = (Bound::Included(prefix.as_bytes()), Bound::Unbounded);
        let descending = plan.is_some_and(|plan| plan.descending);
        if let Some(Plan { order: Order::Keys { lower: least, upper: end }, .. }) = plan {
            lower = Bound::Included((&**least).max(prefix.as_bytes()));
            upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        }
        match after {
            Some(after) if descending => upper = Bound::Excluded(after),
            Some(after) if after >= prefix.as_bytes() => lower = Bound::Excluded(after),
            _ => {}
        }
        if !is_ordered(lower, upper) {
            return gather.finish(None, true);
        }
        let everything = *filter == KeyFilter::all();
        let mut scratch = String::new();
        let mut looked_at = 0;
        for (key, entry) in self.visible_in((lower, upper), descending) {
            if !key.starts_with(prefix.as_bytes()) {
                if descending && key > prefix.as_bytes() {
                    continue;
                }
                break;
            }
            if everything || filter.matches(self.codec.text(key, &mut scratch)) {
                gather.add(key, entry, None);
            }
            looked_at += 1;
            if gather.is_full(looked_at) {
                return gather.finish(Some(key.into()), false);
            }
        }
        gather.finish(None, true)
    }

    /// The same by parts of an index.
    fn index_chunk(
        &self,
        filter: &KeyFilter,
        number: u16,
        ranges: &[Range],
        descending: bool,
        after: Option<&[u8]>,
        mut gather: Gather<'_>,
    ) -> Chunk {
        let Some(index) = self.indexes.get(number) else { return gather.finish(None, true) };
        let everything = *filter == KeyFilter::all();
        let is_behind = |range: &&Range| match after {
            Some(after) if descending => *range.lower <= *after,
            Some(after) => *after < *range.upper,
            None => true,
        };
        let mut in_order: Vec<&Range> = ranges.iter().filter(is_behind).collect();
        if descending {
            in_order.reverse();
        }
        let mut scratch = String::new();
        let mut looked_at = 0;
        for range in in_order {
            for entry in index.entries(range, after, descending) {
                let (value, key) = entry.split_at(order::end_of_first(entry));
                if everything || filter.matches(self.codec.text(key, &mut scratch)) {
                    let candidate = Candidate { index, ranges, value, entry, descending };
                    gather.add(key, self.visible(key), Some(&candidate));
                }
                looked_at += 1;
                if gather.is_full(looked_at) {
                    return gather.finish(Some(entry.into()), false);
                }
            }
        }
        gather.finish(None, true)
    }

    /// Whether a scan of this kind can be answered now; if not, its index is being made.
    pub fn can_carry_out(&self, plan: &Plan) -> bool {
        !matches!(plan.order, Order::Index { .. }) || self.indexes.is_built()
    }

    /// Puts some more records into the indexes after a start. True: there is more to do.
    pub fn build_indexes(&mut self, log: &Log, count: usize) -> bool {
        if self.indexes.is_built() {
            return false;
        }
        let from = self.indexes.built_upto().map_or(Bound::Unbounded, Bound::Excluded);
        let read = |entry: Entry| log.read(entry.location).ok().map(|record| record.document.to_vec());
        let mut versions: Vec<(Box<[u8]>, Vec<u8>)> = Vec::new();
        let mut upto: Option<Box<[u8]>> = None;
        for (key, entry) in self.stored_in((from, Bound::Unbounded)).take(count) {
            versions.extend(read(entry).map(|document| (key.into(), document)));
            upto = Some(key.into());
        }
        let behind = |key: &[u8]| match from {
            Bound::Excluded(from) => key > from,
            _ => true,
        };
        // What readers still see of keys that were written since.
        for (key, own) in self.uncommitted.iter().filter(|(key, _)| behind(key)) {
            if upto.as_ref().is_none_or(|upto| key <= upto)
                && let Some(document) = own.visible.and_then(read)
            {
                versions.push((key.clone(), document));
            }
        }
        self.indexes.build(upto, &versions);
        !self.indexes.is_built()
    }
}

fn is_ordered(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    match (lower, upper) {
        (Bound::Included(lower) | Bound::Excluded(lower), Bound::Excluded(upper)) => lower < upper,
        _ => true,
    }
}

/// Of each key what is held back, else what is stored; both in order.
fn join<'a>(
    stored: impl Iterator<Item = (&'a [u8], Option<Entry>)>,
    held: impl Iterator<Item = (&'a [u8], Option<Entry>)>,
    descending: bool,
) -> impl Iterator<Item = (&'a [u8], Option<Entry>)> {
    let (mut stored, mut held) = (stored.peekable(), held.peekable());
    std::iter::from_fn(move || {
        let Some((key, _)) = held.peek() else { return stored.next() };
        match stored.peek() {
            Some((other, _)) if other != key && (other < key) != descending => stored.next(),
            other => {
                if other.is_some_and(|(other, _)| other == key) {
                    stored.next();
                }
                held.next()
            }
        }
    })
}

/// An entry of an index that led to a record.
struct Candidate<'a> {
    index: &'a Index,
    ranges: &'a [Range],
    value: &'a [u8],
    entry: &'a [u8],
    descending: bool,
}

impl Candidate<'_> {
    /// Whether this entry is the one that stands for the record: of several in the ranges the first.
    fn stands_for(&self, document: &[u8]) -> bool {
        let mut best: Option<Vec<u8>> = None;
        let mut own = Vec::new();
        values(document, &[self.index.name().into()], &mut |token| {
            own.clear();
            let is_encoded = order::encode_cut(token, &mut own);
            // They are in order and apart.
            let at = self.ranges.partition_point(|range| *range.upper <= *own);
            if !is_encoded || !self.ranges.get(at).is_some_and(|range| range.contains(&own)) {
                return;
            }
            let is_better = |best: &Vec<u8>| if self.descending { own > *best } else { own < *best };
            if best.as_ref().is_none_or(is_better) {
                best = Some(own.clone());
            }
        });
        best.as_deref() == Some(self.value)
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
    place: Option<Box<[u8]>>,
}

/// Rows that share one allocation.
struct Gather<'a> {
    log: &'a Log,
    now_ms: u64,
    condition: Option<&'a Condition>,
    scratch: Scratch,
    bytes: Vec<u8>,
    rows: Vec<Gathered>,
    is_damaged: bool,
}

impl Gather<'_> {
    fn is_full(&self, looked_at: usize) -> bool {
        let looked_at_max = if self.condition.is_some() { SCAN_LOOKED_AT } else { SCAN_CHUNK_RECORDS };
        looked_at >= looked_at_max || self.rows.len() >= SCAN_CHUNK_RECORDS || self.bytes.len() >= SCAN_CHUNK_BYTES
    }

    fn add(&mut self, key: &[u8], entry: Option<Entry>, candidate: Option<&Candidate<'_>>) {
        let Some(entry) = entry else { return };
        let Ok(record) = self.log.read(entry.location) else {
            self.is_damaged = true;
            return;
        };
        if record.terms.expires_ms.is_some_and(|at| at <= self.now_ms) {
            return;
        }
        debug_assert!(document::is_well_formed(record.document), "the log holds canonical documents");
        if candidate.is_some_and(|candidate| !candidate.stands_for(record.document))
            || self.condition.is_some_and(|condition| !condition.matches(record.document, &mut self.scratch))
        {
            return;
        }
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(record.properties);
        self.bytes.extend_from_slice(record.document);
        self.rows.push(Gathered {
            version: entry.version,
            terms: record.terms,
            key_bytes: key.len(),
            properties_bytes: record.properties.len(),
            end: self.bytes.len(),
            place: candidate.map(|candidate| candidate.entry.into()),
        });
    }

    fn finish(self, upto: Option<Box<[u8]>>, done: bool) -> Chunk {
        let bytes = Bytes::from(self.bytes);
        let mut start = 0;
        let row = |own: Gathered| {
            let body = Body::from_slice(bytes.slice(start..own.end), own.key_bytes, own.properties_bytes);
            start = own.end;
            Row { version: own.version, terms: own.terms, body, place: own.place }
        };
        Chunk { rows: self.rows.into_iter().map(row).collect(), upto, done, is_damaged: self.is_damaged }
    }
}
