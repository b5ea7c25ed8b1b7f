//! The index file of a sealed segment: what stands where in it, so that a start reads indexes and not data, and how the
//! chain goes on behind it. It can always be made again from the segment. In the order of (table, key), the newest
//! record of each key; messages and older versions are only counted.
//!
//! Header, 96 bytes; little-endian; checksums are CRC-32C:
//!
//! | at | size | field |
//! |----|------|-------|
//! | 0  | 4 | magic `TCI1` |
//! | 4  | 2 | version of this file's format |
//! | 6  | 2 | shard |
//! | 8  | 4 | segment number |
//! | 12 | 4 | number of entries |
//! | 16 | 8 | salt of the segment |
//! | 24 | 8 | seq of the first event of the segment |
//! | 32 | 8 | seq of the first event after it |
//! | 40 | 8 | the highest durable seq that the segment names |
//! | 48 | 4 | checksum of its last batch header |
//! | 52 | 4 | where its batches end |
//! | 56 | 4 | epoch of its last batch |
//! | 60 | 4 | number of tables |
//! | 64 | 8 | the highest version |
//! | 72 | 8 | length of the keys |
//! | 80 | 8 | zero |
//! | 88 | 4 | checksum of the body |
//! | 92 | 4 | checksum of bytes 0..92 |
//!
//! Body: for each table 16 bytes (table 4, zero 4, bytes of its records 8); entries of 36 bytes (version 8, expiry in
//! milliseconds or 0 8, offset 4, length 4, where the key stands 4, length of the key 2, table 2, kind 1, zero 3); keys.

use super::format::{Record, RecordKind, u16_at, u32_at, u64_at};
use crate::clock::Version;
use crate::record_key::first_word;
use crate::schema::TableId;
use crate::storage::Mapped;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

const MAGIC: u32 = u32::from_le_bytes(*b"TCI1");
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 96;
const CHECKED: usize = HEADER_BYTES - 4;
const TABLE_BYTES: usize = 16;
const ENTRY_BYTES: usize = 36;

/// Where a segment ends and how the chain goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentEnd {
    pub shard: u16,
    pub segment: u32,
    pub salt: u64,
    pub first_seq: u64,
    pub next_seq: u64,
    pub durable_seq: u64,
    pub last_checksum: u32,
    /// Offset behind the last batch.
    pub end: u32,
    pub epoch: u32,
}

/// The newest record of a key in a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IndexEntry<'a> {
    pub table: TableId,
    pub key: &'a [u8],
    pub kind: RecordKind,
    pub version: Version,
    pub expires_ms: Option<u64>,
    pub offset: u32,
    /// Of the whole record.
    pub bytes: u32,
}

pub struct SegmentIndex {
    bytes: Box<dyn Mapped>,
    end: SegmentEnd,
    max_version: Version,
    entries: usize,
    tables: usize,
}

/// An index that has no file yet.
struct Made(Vec<u8>);

impl Mapped for Made {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl SegmentIndex {
    /// `None`: damaged, or of another format.
    pub fn decode(mapped: Box<dyn Mapped>) -> Option<SegmentIndex> {
        let bytes = mapped.bytes();
        let header = bytes.get(..HEADER_BYTES)?;
        let sound = u32_at(header, 0) == MAGIC
            && u16_at(header, 4) == VERSION
            && crc32c::crc32c(&header[..CHECKED]) == u32_at(header, CHECKED);
        if !sound {
            return None;
        }
        let (entries, tables) = (u32_at(header, 12) as usize, u32_at(header, 60) as usize);
        let keys_at = HEADER_BYTES.checked_add(tables.checked_mul(TABLE_BYTES)?)?.checked_add(entries * ENTRY_BYTES)?;
        let length = keys_at.checked_add(usize::try_from(u64_at(header, 72)).ok()?)?;
        if length != bytes.len() || crc32c::crc32c(&bytes[HEADER_BYTES..]) != u32_at(header, 88) {
            return None;
        }
        let end = SegmentEnd {
            shard: u16_at(header, 6),
            segment: u32_at(header, 8),
            salt: u64_at(header, 16),
            first_seq: u64_at(header, 24),
            next_seq: u64_at(header, 32),
            durable_seq: u64_at(header, 40),
            last_checksum: u32_at(header, 48),
            end: u32_at(header, 52),
            epoch: u32_at(header, 56),
        };
        let max_version = Version(u64_at(header, 64));
        let index = SegmentIndex { bytes: mapped, end, max_version, entries, tables };
        (0..entries).all(|at| index.checked_entry(at).is_some()).then_some(index)
    }

    /// One that was made just now.
    pub fn made(bytes: Vec<u8>) -> Option<SegmentIndex> {
        SegmentIndex::decode(Box::new(Made(bytes)))
    }

    pub fn end(&self) -> &SegmentEnd {
        &self.end
    }

    pub fn max_version(&self) -> Version {
        self.max_version
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Its bytes, for a file.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }

    /// Tables, and how many bytes of records the segment holds of each.
    pub fn tables(&self) -> impl Iterator<Item = (TableId, u64)> + '_ {
        let bytes = &self.bytes.bytes()[HEADER_BYTES..];
        let tables = bytes.chunks_exact(TABLE_BYTES).take(self.tables);
        tables.map(|table| (TableId(u32_at(table, 0) as u16), u64_at(table, 8)))
    }

    fn checked_entry(&self, at: usize) -> Option<IndexEntry<'_>> {
        let bytes = self.bytes.bytes();
        let entries_at = HEADER_BYTES + self.tables * TABLE_BYTES;
        let start = entries_at + at * ENTRY_BYTES;
        let entry = bytes.get(start..start + ENTRY_BYTES)?;
        let keys = &bytes[entries_at + self.entries * ENTRY_BYTES..];
        let key_at = u32_at(entry, 24) as usize;
        let expires_ms = u64_at(entry, 8);
        Some(IndexEntry {
            table: TableId(u16_at(entry, 30)),
            key: keys.get(key_at..key_at + usize::from(u16_at(entry, 28)))?,
            kind: RecordKind::decode(entry[32])?,
            version: Version(u64_at(entry, 0)),
            expires_ms: (expires_ms > 0).then_some(expires_ms),
            offset: u32_at(entry, 16),
            bytes: u32_at(entry, 20),
        })
    }

    /// The entry of that number, below [`SegmentIndex::len`].
    pub fn entry(&self, at: usize) -> IndexEntry<'_> {
        self.checked_entry(at).expect("every entry was checked when the index was read")
    }

    /// The entry of a key.
    pub fn find(&self, table: TableId, key: &[u8]) -> Option<IndexEntry<'_>> {
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low.midpoint(high);
            let entry = self.entry(middle);
            match (entry.table, entry.key).cmp(&(table, key)) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(entry),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// Shows the newest entry of each key, in the order of (table, key). `indexes` are in the order of their events.
pub fn merge<'a>(indexes: &[&'a SegmentIndex], visit: &mut dyn FnMut(u32, IndexEntry<'a>)) {
    if let [index] = indexes {
        return (0..index.len()).for_each(|at| visit(index.end().segment, index.entry(at)));
    }
    // The least key first, of these the newest.
    let head = |rank: usize, at: usize| {
        let index = indexes[rank];
        (at < index.len()).then(|| {
            let entry = index.entry(at);
            Reverse((entry.table, entry.key, Reverse(rank), at))
        })
    };
    let mut heads: BinaryHeap<_> = (0..indexes.len()).filter_map(|rank| head(rank, 0)).collect();
    let mut last = None;
    while let Some(mut top) = heads.peek_mut() {
        let Reverse((table, key, Reverse(rank), at)) = *top;
        match head(rank, at + 1) {
            Some(next) => *top = next,
            None => _ = PeekMut::pop(top),
        }
        if last != Some((table, key)) {
            last = Some((table, key));
            visit(indexes[rank].end().segment, indexes[rank].entry(at));
        }
    }
}

/// Gathers the records of a segment in the order in which they stand there.
#[derive(Default)]
pub struct IndexBuilder {
    entries: Vec<Gathered>,
    keys: Vec<u8>,
    /// By table number.
    tables: Vec<u64>,
    max_version: Version,
}

struct Gathered {
    version: Version,
    expires_ms: u64,
    offset: u32,
    bytes: u32,
    key_at: u32,
    key_bytes: u16,
    table: TableId,
    kind: RecordKind,
    /// See [`first_word`].
    word: u64,
}

impl IndexBuilder {
    /// The newest version that stood there, whether or not its record is still kept: it tells how old all of it is.
    pub fn observe(&mut self, version: Version) {
        self.max_version = self.max_version.max(version);
    }

    pub fn push(&mut self, record: &Record<'_>, offset: u32, bytes: u32) {
        let table = usize::from(record.table.0);
        if table >= self.tables.len() {
            self.tables.resize(table + 1, 0);
        }
        self.tables[table] += u64::from(bytes);
        self.max_version = self.max_version.max(record.version);
        if record.kind == RecordKind::Message {
            return;
        }
        let key_at = self.keys.len() as u32;
        self.keys.extend_from_slice(record.key);
        self.entries.push(Gathered {
            version: record.version,
            expires_ms: record.terms.expires_ms.unwrap_or(0),
            offset,
            bytes,
            key_at,
            key_bytes: record.key.len() as u16,
            table: record.table,
            kind: record.kind,
            word: first_word(record.key),
        });
    }

    /// The bytes of the index.
    pub fn finish(mut self, end: &SegmentEnd) -> Vec<u8> {
        let keys = &self.keys;
        let key = |entry: &Gathered| &keys[entry.key_at as usize..][..usize::from(entry.key_bytes)];
        // Newest first, of which the first of each key is kept.
        let order =
            |a: &Gathered, b: &Gathered| (a.table, a.word).cmp(&(b.table, b.word)).then_with(|| key(a).cmp(key(b)));
        self.entries.sort_unstable_by(|a, b| order(a, b).then(b.offset.cmp(&a.offset)));
        self.entries.dedup_by(|next, kept| order(next, kept).is_eq());
        let tables = self.tables.iter().enumerate().filter(|(_, bytes)| **bytes > 0);
        let keys_bytes: usize = self.entries.iter().map(|entry| usize::from(entry.key_bytes)).sum();
        let mut out = vec![0; HEADER_BYTES];
        out.reserve(tables.clone().count() * TABLE_BYTES + self.entries.len() * ENTRY_BYTES + keys_bytes);
        let mut table_count = 0u32;
        for (table, bytes) in tables {
            out.extend_from_slice(&(table as u64).to_le_bytes());
            out.extend_from_slice(&bytes.to_le_bytes());
            table_count += 1;
        }
        let mut key_at = 0;
        for entry in &self.entries {
            out.extend_from_slice(&entry.version.0.to_le_bytes());
            out.extend_from_slice(&entry.expires_ms.to_le_bytes());
            for word in [entry.offset, entry.bytes, key_at] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out.extend_from_slice(&entry.key_bytes.to_le_bytes());
            out.extend_from_slice(&entry.table.0.to_le_bytes());
            out.extend_from_slice(&[entry.kind as u8, 0, 0, 0]);
            key_at += u32::from(entry.key_bytes);
        }
        for entry in &self.entries {
            out.extend_from_slice(key(entry));
        }
        let body_checksum = crc32c::crc32c(&out[HEADER_BYTES..]);
        let header = &mut out[..HEADER_BYTES];
        header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..6].copy_from_slice(&VERSION.to_le_bytes());
        header[6..8].copy_from_slice(&end.shard.to_le_bytes());
        header[8..12].copy_from_slice(&end.segment.to_le_bytes());
        header[12..16].copy_from_slice(&(self.entries.len() as u32).to_le_bytes());
        header[16..24].copy_from_slice(&end.salt.to_le_bytes());
        header[24..32].copy_from_slice(&end.first_seq.to_le_bytes());
        header[32..40].copy_from_slice(&end.next_seq.to_le_bytes());
        header[40..48].copy_from_slice(&end.durable_seq.to_le_bytes());
        header[48..52].copy_from_slice(&end.last_checksum.to_le_bytes());
        header[52..56].copy_from_slice(&end.end.to_le_bytes());
        header[56..60].copy_from_slice(&end.epoch.to_le_bytes());
        header[60..64].copy_from_slice(&table_count.to_le_bytes());
        header[64..72].copy_from_slice(&self.max_version.0.to_le_bytes());
        header[72..80].copy_from_slice(&(keys_bytes as u64).to_le_bytes());
        header[88..92].copy_from_slice(&body_checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&header[..CHECKED]);
        header[CHECKED..].copy_from_slice(&checksum.to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const END: SegmentEnd = SegmentEnd {
        shard: 1,
        segment: 2,
        salt: 3,
        first_seq: 4,
        next_seq: 5,
        durable_seq: 6,
        last_checksum: 7,
        end: 8,
        epoch: 9,
    };

    proptest! {
        #[test]
        fn the_newest_of_each_key_is_found(
            keys in proptest::collection::vec((0u16..3, "[a-d]{0,3}", 1u8..4, any::<Option<u64>>()), 0..60),
            flip in any::<usize>(),
        ) {
            let mut builder = IndexBuilder::default();
            let mut expected = BTreeMap::new();
            let mut bytes_of = BTreeMap::new();
            for (number, (table, key, kind, expires_ms)) in keys.iter().enumerate() {
                let kind = RecordKind::decode(*kind).unwrap();
                let expires_ms = expires_ms.filter(|at| *at > 0);
                let terms = crate::event::Terms { expires_ms, ..Default::default() };
                let record = Record { kind, table: TableId(*table), version: Version(number as u64), terms,
                    skipped: 0, key: key.as_bytes(), properties: b"", document: b"" };
                builder.push(&record, number as u32 * 8, 40);
                *bytes_of.entry(TableId(*table)).or_insert(0) += 40;
                if kind != RecordKind::Message {
                    expected.insert((TableId(*table), key.as_bytes()), (number as u32 * 8, kind, expires_ms));
                }
            }
            let bytes = builder.finish(&END);
            let index = SegmentIndex::made(bytes.clone()).unwrap();
            prop_assert_eq!(index.end(), &END);
            prop_assert_eq!(index.len(), expected.len());
            prop_assert_eq!(index.tables().collect::<BTreeMap<_, _>>(), bytes_of);
            for (at, ((table, key), (offset, kind, expires_ms))) in expected.into_iter().enumerate() {
                let entry = index.entry(at);
                prop_assert_eq!((entry.table, entry.key, entry.offset), (table, key, offset));
                prop_assert_eq!((entry.kind, entry.expires_ms), (kind, expires_ms));
                prop_assert_eq!(index.find(table, key), Some(entry));
            }
            prop_assert!(index.find(TableId(9), b"a").is_none());
            let mut damaged = bytes;
            let bit = flip % (damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(SegmentIndex::made(damaged).is_none());
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = SegmentIndex::made(bytes);
        }
    }
}
