//! What happens at start: the chain of batches is walked, each record is shown to the tables, and damage is judged by
//! the durable mark (architecture §8). Damage above the highest durable seq seen anywhere was never promised: it is cut
//! off and said. Damage at or below it is corruption: the shard does not open, the error says where.

use super::format::{BATCH_MAGIC, BatchHeader, HEADER_BYTES, Record, SegmentHeader};
use super::{Location, Log, Start};
use crate::storage::{SegmentMap, Storage};
use std::collections::BTreeMap;
use std::io;

/// What recovery found.
#[derive(Debug, Default)]
pub struct Recovery {
    pub records: u64,
    pub segments: usize,
    /// The tail that a crash left unfinished: never acknowledged.
    pub cut: Option<Place>,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: u32,
    pub offset: u64,
}

#[derive(Debug)]
pub enum RecoveryError {
    Io(io::Error),
    /// Promised data cannot be read.
    Corrupt {
        at: Place,
        /// The first event that is missing.
        seq: u64,
        /// The highest one that had been acknowledged.
        durable_seq: u64,
    },
    /// The segment belongs to another shard or format.
    Foreign(Place),
}

impl From<io::Error> for RecoveryError {
    fn from(error: io::Error) -> Self {
        RecoveryError::Io(error)
    }
}

impl std::fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecoveryError::Io(error) => write!(f, "{error}"),
            RecoveryError::Corrupt { at, seq, durable_seq } => write!(
                f,
                "segment {:08}.log is damaged at offset {}: events {seq} to {durable_seq} were acknowledged and cannot be read",
                at.segment, at.offset
            ),
            RecoveryError::Foreign(at) => {
                write!(f, "segment {:08}.log belongs to another shard or another log", at.segment)
            }
        }
    }
}

/// Where the walk stands.
struct Walk {
    shard: u16,
    next_seq: u64,
    previous_checksum: u32,
    epoch: u32,
    durable_seq: u64,
}

/// Opens the log of one shard: shows every record to `visit`, judges damage, starts a new epoch in a fresh segment.
/// `salt` is any random number.
pub fn open(
    storage: &dyn Storage,
    shard: u16,
    salt: u64,
    packet_bytes_max: usize,
    visit: &mut dyn FnMut(Location, &Record<'_>),
) -> Result<(Log, Recovery), RecoveryError> {
    let mut walk = Walk { shard, next_seq: 1, previous_checksum: 0, epoch: 0, durable_seq: 0 };
    let mut recovery = Recovery::default();
    let mut maps: BTreeMap<u32, Box<dyn SegmentMap>> = BTreeMap::new();
    let segments = storage.segments()?;
    let mut sound_until = 0;
    let mut ends = BTreeMap::new();
    let mut broken = None;
    for &segment in &segments {
        let map = storage.map(segment)?;
        let Some(header) = walk.follows(segment, map.bytes())? else {
            if !is_zero(map.bytes()) && broken.is_none() {
                broken = recovery.cut.or(Some(Place { segment, offset: 0 }));
            }
            maps.insert(segment, map);
            continue;
        };
        if broken.is_some() {
            maps.insert(segment, map);
            continue;
        }
        sound_until = segment;
        recovery.cut = None; // an older one was judged when this segment was begun
        let end = walk.segment(segment, &header, map.bytes(), &mut recovery.records, visit);
        if !is_zero(&map.bytes()[end..]) {
            recovery.cut = Some(Place { segment, offset: end as u64 });
        } else if end < map.bytes().len() {
            ends.insert(segment, end);
        }
        maps.insert(segment, map);
    }
    walk.judge(&maps, broken.or(recovery.cut))?;
    recovery.cut = broken.or(recovery.cut.filter(|cut| cut.segment == sound_until));
    let segment = segments.last().copied().unwrap_or(0).max(sound_until) + 1;
    let segment_bytes = Log::first_segment_bytes(packet_bytes_max);
    let map = storage.create(segment, segment_bytes as u64)?;
    let header = SegmentHeader {
        shard,
        segment,
        epoch: walk.epoch + 1,
        salt,
        first_seq: walk.next_seq,
        previous_checksum: walk.previous_checksum,
    };
    // The epoch is on disk before the first position of it is given out.
    storage.write(segment, 0, &header.encode())?;
    // Only now that nothing promised is missing, and the new epoch is on disk, may anything be changed.
    for &unused in segments.iter().filter(|&&segment| segment > sound_until) {
        maps.remove(&unused);
        storage.remove(unused)?;
    }
    for (segment, end) in ends {
        maps.remove(&segment);
        if end <= HEADER_BYTES {
            storage.remove(segment)?;
        } else {
            storage.shrink(segment, end as u64)?;
            maps.insert(segment, storage.map(segment)?);
        }
    }
    recovery.segments = maps.len();
    maps.insert(segment, map);
    let start = Start {
        shard,
        epoch: walk.epoch + 1,
        next_seq: walk.next_seq,
        previous_checksum: walk.previous_checksum,
        maps,
        segment,
        segment_bytes,
        salt,
    };
    Ok((Log::new(start, packet_bytes_max), recovery))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

impl Walk {
    /// The header of a segment that continues the chain; `None` where it does not.
    fn follows(&mut self, segment: u32, bytes: &[u8]) -> Result<Option<SegmentHeader>, RecoveryError> {
        let Some(header) = SegmentHeader::decode(bytes) else { return Ok(None) };
        if header.shard != self.shard || header.segment != segment {
            return Err(RecoveryError::Foreign(Place { segment, offset: 0 }));
        }
        let continues = header.first_seq == self.next_seq
            && header.previous_checksum == self.previous_checksum
            && header.epoch >= self.epoch;
        if continues {
            self.epoch = header.epoch;
        }
        Ok(continues.then_some(header))
    }

    /// Walks the batches of a segment; gives the offset at which they end.
    fn segment(
        &mut self,
        segment: u32,
        header: &SegmentHeader,
        bytes: &[u8],
        records: &mut u64,
        visit: &mut dyn FnMut(Location, &Record<'_>),
    ) -> usize {
        let mut at = HEADER_BYTES;
        while let Some((batch, checksum)) = BatchHeader::decode(&bytes[at..]) {
            let start = at + HEADER_BYTES;
            let Some(body) = bytes.get(start..start + batch.body_bytes as usize) else { break };
            let chained = batch.shard == self.shard
                && batch.salt == header.salt
                && batch.first_seq == self.next_seq
                && batch.previous_checksum == self.previous_checksum;
            if !chained || crc32c::crc32c(body) != batch.body_checksum {
                break;
            }
            let mut offset = 0;
            while let Some((record, length)) = Record::decode(&body[offset..]) {
                visit(Location { segment, offset: (start + offset) as u32 }, &record);
                *records += 1;
                offset += length;
            }
            self.next_seq += u64::from(batch.count);
            self.previous_checksum = checksum;
            self.durable_seq = self.durable_seq.max(batch.durable_seq);
            at = start + body.len();
        }
        at
    }

    /// Looks behind the damage for a batch that proves that something missing had been promised.
    fn judge(&self, maps: &BTreeMap<u32, Box<dyn SegmentMap>>, damage: Option<Place>) -> Result<(), RecoveryError> {
        let mut durable_seq = self.durable_seq;
        if let Some(damage) = damage {
            for (&segment, map) in maps.range(damage.segment..) {
                let from = if segment == damage.segment { damage.offset as usize } else { 0 };
                // A segment is begun only when everything before it is on disk.
                if let Some(header) = SegmentHeader::decode(map.bytes()).filter(|_| segment > damage.segment)
                    && header.shard == self.shard
                    && header.epoch >= self.epoch
                {
                    durable_seq = durable_seq.max(header.first_seq.saturating_sub(1));
                }
                let bytes = map.bytes().get(from..).unwrap_or_default();
                for at in (0..bytes.len()).step_by(super::format::ALIGNMENT) {
                    if bytes[at..].starts_with(&BATCH_MAGIC.to_le_bytes())
                        && let Some((batch, _)) = BatchHeader::decode(&bytes[at..])
                        && batch.shard == self.shard
                        && batch.epoch >= self.epoch
                    {
                        durable_seq = durable_seq.max(batch.durable_seq);
                    }
                }
            }
        }
        if durable_seq < self.next_seq {
            return Ok(());
        }
        let at = damage.unwrap_or(Place { segment: 0, offset: 0 });
        Err(RecoveryError::Corrupt { at, seq: self.next_seq, durable_seq })
    }
}

#[cfg(test)]
mod tests;
