//! The bytes of the log. Little-endian, everything 8-byte aligned; a length is trusted only after the checksum of the
//! header that holds it. Checksums are CRC-32C.
//!
//! A segment is a file: a segment header, then batches back to back, then zeros.
//!
//! Segment header, 64 bytes:
//!
//! | at | size | field |
//! |----|------|-------|
//! | 0  | 4 | magic `TCS1` |
//! | 4  | 2 | format version |
//! | 6  | 2 | shard |
//! | 8  | 4 | segment number |
//! | 12 | 4 | epoch: rises at each start of the server |
//! | 16 | 8 | salt: random, repeated in each batch, so that bytes of a recycled block are never taken for a batch |
//! | 24 | 8 | seq of the first event |
//! | 32 | 4 | checksum of the last batch header before this segment |
//! | 36 | 24 | zero |
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
//! | 24 | 8 | seq of the first record; the others follow without gaps |
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
//! | 5  | 1 | zero |
//! | 6  | 2 | table |
//! | 8  | 8 | version |
//! | 16 | 2 | length of the key |
//! | 18 | 2 | zero |
//! | 20 | 4 | length of the document |
//! | 24 | … | key, then document (canonical form) |

use crate::clock::Version;
use crate::schema::TableId;

pub const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"TCS1");
pub const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"TCB1");
pub const FORMAT_VERSION: u16 = 1;
pub const HEADER_BYTES: usize = 64;
pub const RECORD_HEADER_BYTES: usize = 24;
/// Alignment of batches and records.
pub const ALIGNMENT: usize = 8;

const CHECKED: usize = HEADER_BYTES - 4;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
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
        let checksum = crc32c::crc32c(&out[..CHECKED]);
        out[CHECKED..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<SegmentHeader> {
        let header = checked(bytes, SEGMENT_MAGIC)?;
        Some(SegmentHeader {
            shard: u16_at(header, 6),
            segment: u32_at(header, 8),
            epoch: u32_at(header, 12),
            salt: u64_at(header, 16),
            first_seq: u64_at(header, 24),
            previous_checksum: u32_at(header, 32),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    Put = 1,
    Delete = 2,
    Message = 3,
}

/// A record as it stands in a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record<'a> {
    pub kind: RecordKind,
    pub table: TableId,
    pub version: Version,
    pub key: &'a [u8],
    pub document: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the start of `bytes`, and its length there.
    pub fn decode(bytes: &'a [u8]) -> Option<(Record<'a>, usize)> {
        let header = bytes.get(..RECORD_HEADER_BYTES)?;
        let length = u32_at(header, 0) as usize;
        let kind = match header[4] {
            1 => RecordKind::Put,
            2 => RecordKind::Delete,
            3 => RecordKind::Message,
            _ => return None,
        };
        let key_end = RECORD_HEADER_BYTES + usize::from(u16_at(header, 16));
        let document_end = key_end.checked_add(u32_at(header, 20) as usize)?;
        if length > bytes.len() || !length.is_multiple_of(ALIGNMENT) || document_end > length {
            return None;
        }
        let record = Record {
            kind,
            table: TableId(u16_at(header, 6)),
            version: Version(u64_at(header, 8)),
            key: &bytes[RECORD_HEADER_BYTES..key_end],
            document: &bytes[key_end..document_end],
        };
        Some((record, length))
    }
}

/// Appends the head of a record, its document still to follow. [`finish_record`] closes it.
pub fn begin_record(kind: RecordKind, table: TableId, version: Version, key: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[kind as u8, 0]);
    out.extend_from_slice(&table.0.to_le_bytes());
    out.extend_from_slice(&version.0.to_le_bytes());
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(&[0; 6]);
    out.extend_from_slice(key);
}

/// Fills in the lengths of the record that starts at `start` and ends with `out`, and pads it.
pub fn finish_record(start: usize, key_bytes: usize, out: &mut Vec<u8>) {
    let document_bytes = (out.len() - start - RECORD_HEADER_BYTES - key_bytes) as u32;
    out[start + 20..start + 24].copy_from_slice(&document_bytes.to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_survive_and_a_flipped_bit_is_seen() {
        let segment = SegmentHeader { shard: 1, segment: 2, epoch: 3, salt: 4, first_seq: 5, previous_checksum: 6 };
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
        fn records_survive(key in proptest::collection::vec(any::<u8>(), 0..100),
                           document in proptest::collection::vec(any::<u8>(), 0..100), version in any::<u64>()) {
            let mut out = vec![0; 8];
            begin_record(RecordKind::Put, TableId(7), Version(version), &key, &mut out);
            out.extend_from_slice(&document);
            finish_record(8, key.len(), &mut out);
            let (record, length) = Record::decode(&out[8..]).unwrap();
            prop_assert_eq!(length, out.len() - 8);
            let expected = Record { kind: RecordKind::Put, table: TableId(7), version: Version(version),
                key: &key, document: &document };
            prop_assert_eq!(record, expected);
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
            let _ = BatchHeader::decode(&bytes);
            let _ = SegmentHeader::decode(&bytes);
        }
    }
}
