//! The bytes of the log. Little-endian, everything 8-byte aligned; a length is trusted only after the checksum of the
//! header that holds it. Checksums are CRC-32C.
//!
//! A segment is a file: a segment header, then batches back to back, then zeros. Segments follow each other by seq, not
//! by number. An *appended* segment was written by commits. A *rewritten* one holds what compaction (or repair) has kept
//! of the appended segments that it replaces; it was written as a whole and got its name when it was on disk, so that
//! any damage to it is corruption. Of two segments that cover the same events the one with the higher number counts.
//!
//! Segment header, 64 bytes:
//!
//! | at | size | field |
//! |----|------|-------|
//! | 0  | 4 | magic `TCS1` |
//! | 4  | 2 | format version |
//! | 6  | 2 | shard |
//! | 8  | 4 | segment number |
//! | 12 | 4 | epoch: rises at each start of the server; of a rewritten segment the highest of those it replaces |
//! | 16 | 8 | salt: random, repeated in each batch, so that bytes of a recycled block are never taken for a batch |
//! | 24 | 8 | seq of the first event |
//! | 32 | 4 | checksum of the last batch header before this segment |
//! | 36 | 4 | rewritten: its length in bytes; appended: 0 |
//! | 40 | 8 | rewritten: seq of the first event after it; appended: 0 |
//! | 48 | 4 | rewritten: checksum of the last batch header of the last segment that it replaces; appended: 0 |
//! | 52 | 8 | zero |
//! | 60 | 4 | checksum of bytes 0..60 |
//!
//! Batch header, 64 bytes, followed by the body:
//!
//! | at | size | field |
//! |----|------|-------|
//! | 0  | 4 | magic `TCB1` |
//! | 4  | 2 | format version |
//! | 6  | 2 | shard |
//! | 8  | 4 | number of records |
//! | 12 | 4 | length of the body |
//! | 16 | 8 | salt of the segment |
//! | 24 | 8 | seq of the first record; each other one follows the one before it (see `skipped`) |
//! | 32 | 8 | durable seq: the highest that was known to be flushed when this batch was formed |
//! | 40 | 4 | epoch |
//! | 44 | 4 | checksum of the batch header before this one (a chain, across segments) |
//! | 48 | 4 | checksum of the body |
//! | 52 | 8 | zero |
//! | 60 | 4 | checksum of bytes 0..60 |
//!
//! Record, padded with zeros to 8 bytes:
//!
//! | at | size | field |
//! |----|------|-------|
//! | 0  | 4 | length, header and padding included |
//! | 4  | 1 | kind: 1 put, 2 delete, 3 message |
//! | 5  | 1 | flags: 1 it may expire |
//! | 6  | 2 | table |
//! | 8  | 8 | version |
//! | 16 | 2 | length of the key |
//! | 18 | 2 | zero |
//! | 20 | 4 | length of the document |
//! | 24 | 4 | skipped: events that stood between the record before and this one (rewritten segments; else 0) |
//! | 28 | 4 | checksum of bytes 0..28 and 32..length |
//! | 32 | 8 | when it expires, in milliseconds since 1970, or 0; only if it may |
//! | … | … | key, then document (canonical form) |

use crate::clock::Version;
use crate::schema::TableId;

pub const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"TCS1");
pub const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"TCB1");
/// 1 was never released.
pub const FORMAT_VERSION: u16 = 2;
pub const HEADER_BYTES: usize = 64;
pub const RECORD_HEADER_BYTES: usize = 32;
/// What a record may need beyond header, key and document: its expiry and padding.
pub const RECORD_EXTRA_BYTES: usize = 8 + ALIGNMENT;
/// Alignment of batches and records.
pub const ALIGNMENT: usize = 8;

const CHECKED: usize = HEADER_BYTES - 4;
const FLAG_EXPIRES: u8 = 1;
const EXPIRY_BYTES: usize = 8;
const RECORD_CHECKSUM_AT: usize = 28;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The header bytes at the start of `bytes`, if their checksum and magic are right.
fn checked(bytes: &[u8], magic: u32) -> Option<&[u8]> {
    let header = bytes.get(..HEADER_BYTES)?;
    let sound = u32_at(header, 0) == magic
        && u16_at(header, 4) == FORMAT_VERSION
        && crc32c::crc32c(&header[..CHECKED]) == u32_at(header, CHECKED);
    sound.then_some(header)
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentHeader {
    pub shard: u16,
    pub segment: u32,
    pub epoch: u32,
    pub salt: u64,
    pub first_seq: u64,
    pub previous_checksum: u32,
    pub rewritten: Option<Rewritten>,
}

/// What the header of a rewritten segment says besides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rewritten {
    pub bytes: u32,
    pub next_seq: u64,
    pub last_checksum: u32,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&SEGMENT_MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&self.shard.to_le_bytes());
        out[8..12].copy_from_slice(&self.segment.to_le_bytes());
        out[12..16].copy_from_slice(&self.epoch.to_le_bytes());
        out[16..24].copy_from_slice(&self.salt.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_seq.to_le_bytes());
        out[32..36].copy_from_slice(&self.previous_checksum.to_le_bytes());
        if let Some(rewritten) = self.rewritten {
            out[36..40].copy_from_slice(&rewritten.bytes.to_le_bytes());
            out[40..48].copy_from_slice(&rewritten.next_seq.to_le_bytes());
            out[48..52].copy_from_slice(&rewritten.last_checksum.to_le_bytes());
        }
        let checksum = crc32c::crc32c(&out[..CHECKED]);
        out[CHECKED..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<SegmentHeader> {
        let header = checked(bytes, SEGMENT_MAGIC)?;
        let rewritten =
            Rewritten { bytes: u32_at(header, 36), next_seq: u64_at(header, 40), last_checksum: u32_at(header, 48) };
        Some(SegmentHeader {
            shard: u16_at(header, 6),
            segment: u32_at(header, 8),
            epoch: u32_at(header, 12),
            salt: u64_at(header, 16),
            first_seq: u64_at(header, 24),
            previous_checksum: u32_at(header, 32),
            rewritten: (rewritten.bytes > 0).then_some(rewritten),
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BatchHeader {
    pub shard: u16,
    pub count: u32,
    pub body_bytes: u32,
    pub salt: u64,
    pub first_seq: u64,
    pub durable_seq: u64,
    pub epoch: u32,
    pub previous_checksum: u32,
    pub body_checksum: u32,
}

impl BatchHeader {
    /// The encoded header, and its own checksum for the chain.
    pub fn encode(&self) -> ([u8; HEADER_BYTES], u32) {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&self.shard.to_le_bytes());
        out[8..12].copy_from_slice(&self.count.to_le_bytes());
        out[12..16].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.salt.to_le_bytes());
        out[24..32].copy_from_slice(&self.first_seq.to_le_bytes());
        out[32..40].copy_from_slice(&self.durable_seq.to_le_bytes());
        out[40..44].copy_from_slice(&self.epoch.to_le_bytes());
        out[44..48].copy_from_slice(&self.previous_checksum.to_le_bytes());
        out[48..52].copy_from_slice(&self.body_checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&out[..CHECKED]);
        out[CHECKED..].copy_from_slice(&checksum.to_le_bytes());
        (out, checksum)
    }

    /// The header at the start of `bytes` and its own checksum.
    pub fn decode(bytes: &[u8]) -> Option<(BatchHeader, u32)> {
        let header = checked(bytes, BATCH_MAGIC)?;
        let batch = BatchHeader {
            shard: u16_at(header, 6),
            count: u32_at(header, 8),
            body_bytes: u32_at(header, 12),
            salt: u64_at(header, 16),
            first_seq: u64_at(header, 24),
            durable_seq: u64_at(header, 32),
            epoch: u32_at(header, 40),
            previous_checksum: u32_at(header, 44),
            body_checksum: u32_at(header, 48),
        };
        Some((batch, u32_at(header, CHECKED)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKind {
    Put = 1,
    Delete = 2,
    Message = 3,
}

impl RecordKind {
    pub(super) fn decode(byte: u8) -> Option<RecordKind> {
        match byte {
            1 => Some(RecordKind::Put),
            2 => Some(RecordKind::Delete),
            3 => Some(RecordKind::Message),
            _ => None,
        }
    }
}

/// A record as it stands in a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record<'a> {
    pub kind: RecordKind,
    pub table: TableId,
    pub version: Version,
    /// Milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Events that stood between the record before and this one.
    pub skipped: u32,
    pub key: &'a [u8],
    pub document: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the start of `bytes`, and its length there; its checksum was checked.
    pub fn decode(bytes: &'a [u8]) -> Option<(Record<'a>, usize)> {
        let (record, length) = Record::decode_unchecked(bytes)?;
        (record_checksum(&bytes[..length]) == u32_at(bytes, RECORD_CHECKSUM_AT)).then_some((record, length))
    }

    /// The same where the checksum of the batch has been checked already.
    pub fn decode_unchecked(bytes: &'a [u8]) -> Option<(Record<'a>, usize)> {
        let header = bytes.get(..RECORD_HEADER_BYTES)?;
        let length = u32_at(header, 0) as usize;
        let kind = RecordKind::decode(header[4])?;
        let expires = header[5] & FLAG_EXPIRES != 0;
        let key_at = RECORD_HEADER_BYTES + if expires { EXPIRY_BYTES } else { 0 };
        let key_end = key_at + usize::from(u16_at(header, 16));
        let document_end = key_end.checked_add(u32_at(header, 20) as usize)?;
        if length > bytes.len() || !length.is_multiple_of(ALIGNMENT) || document_end > length {
            return None;
        }
        let record = Record {
            kind,
            table: TableId(u16_at(header, 6)),
            version: Version(u64_at(header, 8)),
            expires_ms: expires.then(|| u64_at(bytes, RECORD_HEADER_BYTES)).filter(|at| *at > 0),
            skipped: u32_at(header, 24),
            key: &bytes[key_at..key_end],
            document: &bytes[key_end..document_end],
        };
        Some((record, length))
    }
}

fn record_checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..RECORD_CHECKSUM_AT]), &record[RECORD_HEADER_BYTES..])
}

/// Appends a record up to its document, which is still to follow. [`finish_record`] closes it.
pub fn begin_record(
    kind: RecordKind,
    table: TableId,
    version: Version,
    may_expire: bool,
    key: &[u8],
    out: &mut Vec<u8>,
) {
    let mut header = [0; RECORD_HEADER_BYTES];
    header[4] = kind as u8;
    header[5] = if may_expire { FLAG_EXPIRES } else { 0 };
    header[6..8].copy_from_slice(&table.0.to_le_bytes());
    header[8..16].copy_from_slice(&version.0.to_le_bytes());
    header[16..18].copy_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(&header);
    if may_expire {
        out.extend_from_slice(&[0; EXPIRY_BYTES]);
    }
    out.extend_from_slice(key);
}

/// Fills in expiry, lengths and checksum of the record that starts at `start` and ends with `out`, and pads it.
pub fn finish_record(start: usize, expires_ms: Option<u64>, out: &mut Vec<u8>) {
    let record = &mut out[start..];
    let expiry_bytes = if record[5] & FLAG_EXPIRES != 0 { EXPIRY_BYTES } else { 0 };
    if expiry_bytes > 0 {
        record[RECORD_HEADER_BYTES..][..EXPIRY_BYTES].copy_from_slice(&expires_ms.unwrap_or(0).to_le_bytes());
    }
    let document_at = RECORD_HEADER_BYTES + expiry_bytes + usize::from(u16_at(record, 16));
    let document_bytes = (record.len() - document_at) as u32;
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    let record = &mut out[start..];
    let length = record.len() as u32;
    record[..4].copy_from_slice(&length.to_le_bytes());
    record[20..24].copy_from_slice(&document_bytes.to_le_bytes());
    seal_record(record);
}

/// Says how many events stood between the record before and this one.
pub fn set_skipped(record: &mut [u8], skipped: u32) {
    record[24..28].copy_from_slice(&skipped.to_le_bytes());
    seal_record(record);
}

fn seal_record(record: &mut [u8]) {
    let checksum = record_checksum(record);
    record[RECORD_CHECKSUM_AT..RECORD_HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_survive_and_a_flipped_bit_is_seen() {
        let mut segment = SegmentHeader {
            shard: 1,
            segment: 2,
            epoch: 3,
            salt: 4,
            first_seq: 5,
            previous_checksum: 6,
            rewritten: None,
        };
        assert_eq!(SegmentHeader::decode(&segment.encode()), Some(segment));
        segment.rewritten = Some(Rewritten { bytes: 7, next_seq: 8, last_checksum: 9 });
        assert_eq!(SegmentHeader::decode(&segment.encode()), Some(segment));
        let batch = BatchHeader {
            shard: 1,
            count: 2,
            body_bytes: 3,
            salt: 4,
            first_seq: 5,
            durable_seq: 6,
            epoch: 7,
            previous_checksum: 8,
            body_checksum: 9,
        };
        let (bytes, checksum) = batch.encode();
        assert_eq!(BatchHeader::decode(&bytes), Some((batch, checksum)));
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BatchHeader::decode(&damaged), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn records_survive_and_a_flipped_bit_is_seen(
            key in proptest::collection::vec(any::<u8>(), 0..100),
            document in proptest::collection::vec(any::<u8>(), 0..100),
            version in any::<u64>(), expires_ms in any::<Option<u64>>(), skipped in any::<u32>(), bit in any::<usize>(),
        ) {
            let mut out = vec![0; 8];
            let expires_ms = expires_ms.filter(|at| *at > 0);
            begin_record(RecordKind::Put, TableId(7), Version(version), expires_ms.is_some(), &key, &mut out);
            out.extend_from_slice(&document);
            finish_record(8, expires_ms, &mut out);
            set_skipped(&mut out[8..], skipped);
            let (record, length) = Record::decode(&out[8..]).unwrap();
            prop_assert_eq!(length, out.len() - 8);
            let expected = Record { kind: RecordKind::Put, table: TableId(7), version: Version(version), expires_ms,
                skipped, key: &key, document: &document };
            prop_assert_eq!(record, expected);
            let bit = bit % (length * 8);
            out[8 + bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Record::decode(&out[8..]), None);
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
            let _ = BatchHeader::decode(&bytes);
            let _ = SegmentHeader::decode(&bytes);
        }
    }
}
