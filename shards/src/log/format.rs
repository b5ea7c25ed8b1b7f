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
//! | 5  | 1 | flags: 1 it may expire; 2 and 4 quality of service (0 to 2); 8 the publisher is named |
//! | 6  | 2 | table |
//! | 8  | 8 | version |
//! | 16 | 2 | length of the key |
//! | 18 | 2 | length of the properties |
//! | 20 | 4 | length of the document |
//! | 24 | 4 | skipped: events that stood between the record before and this one (rewritten segments; else 0) |
//! | 28 | 4 | checksum of bytes 0..28 and 32..length |
//! | 32 | 8 | when it expires, in milliseconds since 1970, or 0; only if it may |
//! | …  | 8 | the session that published it; only if it is named |
//! | … | … | key, then properties (encoded, the protocol's affair), then document (canonical form) |

use crate::clock::Version;
use crate::event::Terms;
use crate::schema::TableId;

pub const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"TCS1");
pub const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"TCB1");
/// 1 was never released; 2 is 3 without quality of service, publisher and properties, and is still read.
pub const FORMAT_VERSION: u16 = 3;
/// The oldest that is read.
pub const FORMAT_VERSION_LEAST: u16 = 2;
pub const HEADER_BYTES: usize = 64;
pub const RECORD_HEADER_BYTES: usize = 32;
/// What a record may need beyond header, key, properties and document: expiry, publisher and padding.
pub const RECORD_EXTRA_BYTES: usize = EXPIRY_BYTES + PUBLISHER_BYTES + ALIGNMENT;
/// Alignment of batches and records.
pub const ALIGNMENT: usize = 8;

const CHECKED: usize = HEADER_BYTES - 4;
const FLAG_EXPIRES: u8 = 1;
const QOS_SHIFT: u8 = 1;
const FLAG_PUBLISHER: u8 = 8;
const EXPIRY_BYTES: usize = 8;
const PUBLISHER_BYTES: usize = 8;
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
        && (FORMAT_VERSION_LEAST..=FORMAT_VERSION).contains(&u16_at(header, 4))
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
    pub terms: Terms,
    /// Events that stood between the record before and this one.
    pub skipped: u32,
    pub key: &'a [u8],
    pub properties: &'a [u8],
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
        let publisher_at = RECORD_HEADER_BYTES + if expires { EXPIRY_BYTES } else { 0 };
        let has_publisher = header[5] & FLAG_PUBLISHER != 0;
        let key_at = publisher_at + if has_publisher { PUBLISHER_BYTES } else { 0 };
        let key_end = key_at + usize::from(u16_at(header, 16));
        let document_at = key_end + usize::from(u16_at(header, 18));
        let document_end = document_at.checked_add(u32_at(header, 20) as usize)?;
        if length > bytes.len() || !length.is_multiple_of(ALIGNMENT) || document_end > length {
            return None;
        }
        let record = Record {
            kind,
            table: TableId(u16_at(header, 6)),
            version: Version(u64_at(header, 8)),
            terms: Terms {
                qos: (header[5] >> QOS_SHIFT & 3).min(2),
                publisher: if has_publisher { u64_at(bytes, publisher_at) } else { 0 },
                expires_ms: expires.then(|| u64_at(bytes, RECORD_HEADER_BYTES)).filter(|at| *at > 0),
            },
            skipped: u32_at(header, 24),
            key: &bytes[key_at..key_end],
            properties: &bytes[key_end..document_at],
            document: &bytes[document_at..document_end],
        };
        Some((record, length))
    }
}

fn record_checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..RECORD_CHECKSUM_AT]), &record[RECORD_HEADER_BYTES..])
}

/// What is known of a record before its document is.
#[derive(Clone, Copy, Debug)]
pub struct RecordHead<'a> {
    pub kind: RecordKind,
    pub table: TableId,
    pub version: Version,
    /// The document may say when it expires.
    pub may_expire: bool,
    /// 0 to 2.
    pub qos: u8,
    /// 0: not named.
    pub publisher: u64,
    pub key: &'a [u8],
    pub properties: &'a [u8],
}

/// Appends a record up to its document, which is still to follow. [`finish_record`] closes it.
pub fn begin_record(head: &RecordHead<'_>, out: &mut Vec<u8>) {
    let mut header = [0; RECORD_HEADER_BYTES];
    header[4] = head.kind as u8;
    header[5] = if head.may_expire { FLAG_EXPIRES } else { 0 }
        | head.qos << QOS_SHIFT
        | if head.publisher > 0 { FLAG_PUBLISHER } else { 0 };
    header[6..8].copy_from_slice(&head.table.0.to_le_bytes());
    header[8..16].copy_from_slice(&head.version.0.to_le_bytes());
    header[16..18].copy_from_slice(&(head.key.len() as u16).to_le_bytes());
    header[18..20].copy_from_slice(&(head.properties.len() as u16).to_le_bytes());
    out.extend_from_slice(&header);
    if head.may_expire {
        out.extend_from_slice(&[0; EXPIRY_BYTES]);
    }
    if head.publisher > 0 {
        out.extend_from_slice(&head.publisher.to_le_bytes());
    }
    out.extend_from_slice(head.key);
    out.extend_from_slice(head.properties);
}

/// Fills in expiry, lengths and checksum of the record that starts at `start` and ends with `out`, and pads it.
pub fn finish_record(start: usize, expires_ms: Option<u64>, out: &mut Vec<u8>) {
    let record = &mut out[start..];
    let expiry_bytes = if record[5] & FLAG_EXPIRES != 0 { EXPIRY_BYTES } else { 0 };
    if expiry_bytes > 0 {
        record[RECORD_HEADER_BYTES..][..EXPIRY_BYTES].copy_from_slice(&expires_ms.unwrap_or(0).to_le_bytes());
    }
    let publisher_bytes = if record[5] & FLAG_PUBLISHER != 0 { PUBLISHER_BYTES } else { 0 };
    let document_at = RECORD_HEADER_BYTES
        + expiry_bytes
        + publisher_bytes
        + usize::from(u16_at(record, 16))
        + usize::from(u16_at(record, 18));
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
            properties in proptest::collection::vec(any::<u8>(), 0..20), qos in 0u8..3, publisher in any::<u64>(),
            version in any::<u64>(), expires_ms in any::<Option<u64>>(), skipped in any::<u32>(), bit in any::<usize>(),
        ) {
            let mut out = vec![0; 8];
            let expires_ms = expires_ms.filter(|at| *at > 0);
            let (kind, table, version) = (RecordKind::Put, TableId(7), Version(version));
            let may_expire = expires_ms.is_some();
            let (key, properties) = (&key[..], &properties[..]);
            let head = RecordHead { kind, table, version, may_expire, qos, publisher, key, properties };
            begin_record(&head, &mut out);
            out.extend_from_slice(&document);
            finish_record(8, expires_ms, &mut out);
            set_skipped(&mut out[8..], skipped);
            let (record, length) = Record::decode(&out[8..]).unwrap();
            prop_assert_eq!(length, out.len() - 8);
            let terms = Terms { qos, publisher, expires_ms };
            let expected = Record { kind, table, version, terms, skipped, key, properties, document: &document };
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
