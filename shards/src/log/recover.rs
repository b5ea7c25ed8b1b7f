//! What happens at start: the chain of segments is followed, through their indexes where they have one and batch by
//! batch where not, and damage is judged by the durable mark (architecture §8). Damage above the highest durable seq seen
//! anywhere (batch headers, segment headers, the mark file) was never promised: it is cut off and said. Damage at or
//! below it is corruption: the shard does not open, the error says where. Nothing is changed before that verdict, and
//! every change after it may be interrupted: the next start finds the same log.

use super::format::{ALIGNMENT, BATCH_MAGIC, BatchHeader, HEADER_BYTES, SegmentHeader};
use super::index::SegmentIndex;
use super::job::{self, check, read_index};
use super::mark::{self, Mark};
use super::segment::{Found, Walk};
use super::{Log, Sealed, Start};
use crate::limits::{SEGMENT_BYTES_LEAST, SegmentSizes};
use crate::progress::Progress;
use crate::storage::{FileName, Mapped, Storage};
use std::collections::{BTreeMap, VecDeque};
use std::io;

/// What recovery found.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Entries of indexes that were there, and of those that were made because none was.
    pub indexed: u64,
    pub walked: u64,
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

impl RecoveryError {
    /// Where the data is damaged; `None`: it may be sound.
    pub fn place(&self) -> Option<Place> {
        match self {
            RecoveryError::Io(_) => None,
            RecoveryError::Corrupt { at, .. } | RecoveryError::Foreign(at) => Some(*at),
        }
    }
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
                "{} is damaged at offset {}: events {seq} to {durable_seq} were acknowledged and cannot be read",
                FileName::Segment(at.segment),
                at.offset
            ),
            RecoveryError::Foreign(at) => {
                write!(f, "{} belongs to another shard, another place or another log", FileName::Segment(at.segment))
            }
        }
    }
}

/// What the log of a shard holds, before anything is changed.
pub struct Survey {
    /// In the order of their seq.
    pub segments: Vec<SoundSegment>,
    pub next_seq: u64,
    pub previous_checksum: u32,
    pub epoch: u32,
    /// Known to have been flushed.
    pub durable_seq: u64,
    /// Where what a crash left unfinished begins.
    pub cut: Option<Place>,
    /// Replaced by a rewritten segment; or not begun; or begun, and never promised.
    pub unused: Vec<u32>,
    mark: Mark,
    /// Every byte was read; else those of segments with an index were not.
    read_whole: bool,
    files: Vec<FileName>,
}

/// A segment that continues the chain.
pub struct SoundSegment {
    pub header: SegmentHeader,
    pub map: Box<dyn Mapped>,
    pub index: SegmentIndex,
    /// The index was read from its file.
    pub is_indexed: bool,
}

/// Reads what is there and judges it. Up to `read_at_start` bytes are read whole, also where there are indexes.
pub fn survey(
    storage: &dyn Storage,
    shard: u16,
    read_at_start: usize,
    progress: &Progress,
) -> Result<Survey, RecoveryError> {
    let files = storage.files()?;
    let mut mapped: Vec<(u32, Box<dyn Mapped>)> = Vec::new();
    for file in &files {
        if let FileName::Segment(segment) = *file {
            mapped.push((segment, storage.map(*file)?));
        }
    }
    let mark = match files.contains(&FileName::Mark) {
        true => mark::decode(storage.map(FileName::Mark)?.bytes(), shard),
        false => Mark::default(),
    };
    let mut begun: Vec<(SegmentHeader, Box<dyn Mapped>)> = Vec::new();
    let mut headless = Vec::new();
    for (segment, map) in mapped {
        match SegmentHeader::decode(map.bytes()) {
            Some(header) if header.shard != shard || header.segment != segment => {
                return Err(RecoveryError::Foreign(Place { segment, offset: 0 }));
            }
            Some(header) => begun.push((header, map)),
            None => headless.push((segment, map)),
        }
    }
    begun.sort_by_key(|(header, _)| (header.first_seq, header.segment));
    let replaced: Vec<u32> =
        begun.iter().filter_map(|(own, _)| is_replaced(own, &begun).then_some(own.segment)).collect();
    begun.retain(|(header, _)| !replaced.contains(&header.segment));

    let mut survey = Survey {
        segments: Vec::new(),
        next_seq: 1,
        previous_checksum: 0,
        epoch: 0,
        durable_seq: mark.durable_seq,
        cut: None,
        unused: replaced,
        mark,
        read_whole: true,
        files,
    };
    let total: usize = begun.iter().map(|(_, map)| map.bytes().len()).sum();
    survey.read_whole = total <= read_at_start;
    progress.expect(2 * total as u64); // the other half is loading the tables
    let mut begun = begun.into_iter().peekable();
    while let Some((header, map)) = begun.next_if(|(header, _)| survey.continues(header)) {
        survey.cut = None; // an older one was judged when this segment was begun
        progress.add(map.bytes().len() as u64);
        survey.add(storage, header, map)?;
    }
    // What does not continue the chain: is anything of it proof that something promised is missing?
    let mut broken = None;
    for (segment, map) in headless {
        if !is_zero(map.bytes()) {
            broken = broken.or(Some(Place { segment, offset: 0 }));
            survey.look_for_promises(map.bytes(), shard, None);
        }
        survey.unused.push(segment);
    }
    for (header, map) in begun {
        let segment = header.segment;
        broken = broken.or(Some(Place { segment, offset: 0 }));
        if header.epoch >= survey.epoch {
            // A segment is begun only when everything before it is on disk.
            let next_seq = header.rewritten.map_or(header.first_seq, |rewritten| rewritten.next_seq);
            survey.durable_seq = survey.durable_seq.max(next_seq.saturating_sub(1));
        }
        survey.look_for_promises(&map.bytes()[HEADER_BYTES..], shard, Some(header.salt));
        survey.unused.push(segment);
    }
    // An index is made when the whole segment is on disk.
    for file in &survey.files {
        if let FileName::Index(number) = *file
            && !survey.segments.iter().any(|sound| sound.header.segment == number)
            && let Some(index) = SegmentIndex::decode(storage.map(*file)?).filter(|index| index.end().shard == shard)
        {
            survey.durable_seq = survey.durable_seq.max(index.end().next_seq.saturating_sub(1));
        }
    }
    if survey.durable_seq >= survey.next_seq {
        let last = survey.segments.last();
        let end = last.map(|last| Place { segment: last.header.segment, offset: u64::from(last.index.end().end) });
        let at = survey.cut.or(broken).or(end).unwrap_or(Place { segment: 1, offset: 0 });
        return Err(RecoveryError::Corrupt { at, seq: survey.next_seq, durable_seq: survey.durable_seq });
    }
    survey.cut = survey.cut.or(broken);
    Ok(survey)
}

/// Whether a rewritten segment of a higher number covers this one.
fn is_replaced(own: &SegmentHeader, all: &[(SegmentHeader, Box<dyn Mapped>)]) -> bool {
    all.iter().any(|(other, map)| {
        other.segment > own.segment
            && other.rewritten.is_some_and(|rewritten| {
                (other.first_seq..rewritten.next_seq).contains(&own.first_seq)
                    && rewritten.bytes as usize == map.bytes().len()
            })
    })
}

impl Survey {
    /// Every event that is kept, in order.
    pub fn events(&self) -> impl Iterator<Item = Found<'_>> {
        self.segments.iter().flat_map(|sound| {
            let mut walk = Walk::new(sound.header, sound.map.bytes());
            std::iter::from_fn(move || walk.next_batch()).flat_map(|batch| batch.records())
        })
    }

    fn continues(&self, header: &SegmentHeader) -> bool {
        header.first_seq == self.next_seq
            && header.previous_checksum == self.previous_checksum
            && header.epoch >= self.epoch
    }

    /// Takes a segment that continues the chain.
    fn add(&mut self, storage: &dyn Storage, header: SegmentHeader, map: Box<dyn Mapped>) -> Result<(), RecoveryError> {
        let bytes = map.bytes();
        let segment = header.segment;
        let indexed = read_index(storage, segment, &header);
        let is_indexed = indexed.is_some();
        let index = match indexed {
            Some(index) => {
                let end = index.end();
                let damage = if self.read_whole {
                    check(segment, bytes, Some(end)).err()
                } else {
                    (bytes.len() < end.end as usize).then_some(bytes.len() as u64)
                };
                if let Some(offset) = damage {
                    let at = Place { segment, offset };
                    return Err(RecoveryError::Corrupt {
                        at,
                        seq: header.first_seq,
                        durable_seq: end.next_seq.saturating_sub(1),
                    });
                }
                index
            }
            None => {
                let (end, made) = job::index(segment, bytes).map_err(|offset| {
                    let durable_seq = header.rewritten.map_or(0, |rewritten| rewritten.next_seq.saturating_sub(1));
                    RecoveryError::Corrupt { at: Place { segment, offset }, seq: header.first_seq, durable_seq }
                })?;
                let rest = &bytes[end.end as usize..];
                if !is_zero(rest) {
                    self.cut = Some(Place { segment, offset: end.end.into() });
                    self.epoch = header.epoch;
                    self.look_for_promises(rest, header.shard, Some(header.salt));
                }
                SegmentIndex::made(made)
                    .ok_or_else(|| io::Error::other("an index that was just made cannot be read"))?
            }
        };
        let end = index.end();
        self.next_seq = end.next_seq;
        self.previous_checksum = end.last_checksum;
        self.epoch = header.epoch;
        self.durable_seq = self.durable_seq.max(end.durable_seq);
        self.segments.push(SoundSegment { header, map, index, is_indexed });
        Ok(())
    }

    /// Looks behind damage for batches that name something as flushed. `salt` is the segment's, if it is known: without it anybody's document could promise something.
    fn look_for_promises(&mut self, bytes: &[u8], shard: u16, salt: Option<u64>) {
        for at in (0..bytes.len()).step_by(ALIGNMENT) {
            if bytes[at..].starts_with(&BATCH_MAGIC.to_le_bytes())
                && let Some((batch, _)) = BatchHeader::decode(&bytes[at..])
                && batch.shard == shard
                && batch.epoch >= self.epoch
                && salt.is_none_or(|salt| salt == batch.salt)
                && batch.durable_seq < batch.first_seq
            {
                self.durable_seq = self.durable_seq.max(batch.durable_seq);
            }
        }
    }
}

/// Opens the log of one shard: judges it, and starts a new epoch in a fresh segment. The indexes of its segments are there
/// to load the tables from. `salt` is any random number.
pub fn open(
    storage: &dyn Storage,
    shard: u16,
    salt: u64,
    sizes: SegmentSizes,
    progress: &Progress,
) -> Result<(Log, Recovery), RecoveryError> {
    let Survey { segments, next_seq, previous_checksum, epoch, durable_seq: _, cut, unused, mark, read_whole, files } =
        survey(storage, shard, sizes.read_at_start, progress)?;
    let highest = files.iter().filter_map(|file| match file {
        FileName::Segment(segment) | FileName::Index(segment) => Some(*segment),
        FileName::Mark | FileName::Staged => None,
    });
    let segment = highest.max().unwrap_or(0) + 1;
    // A killed server may have left bytes in the cache of the system that were never flushed. The header that follows
    // says that everything before it is on disk.
    for sound in segments.iter().filter(|sound| !sound.is_indexed) {
        storage.write(FileName::Segment(sound.header.segment), 0, &[])?;
    }
    let create = |bytes: usize| storage.create(FileName::Segment(segment), bytes as u64);
    let map = match create(sizes.first) {
        // On a full disk there is room for the header at least: reads are served, and writes once there is space.
        Err(error) if is_full(&error) => create(SEGMENT_BYTES_LEAST)?,
        created => created?,
    };
    let segment_bytes = map.bytes().len();
    let header = SegmentHeader {
        shard,
        segment,
        epoch: epoch + 1,
        salt,
        first_seq: next_seq,
        previous_checksum,
        rewritten: None,
    };
    // The epoch is on disk before the first position of it is given out.
    storage.write(FileName::Segment(segment), 0, &header.encode())?;
    // Only now that nothing promised is missing, and the new epoch is on disk, may anything be changed.
    let mut sealed = Vec::new();
    let mut maps = BTreeMap::new();
    let mut unread = VecDeque::new();
    let mut recovery = Recovery { cut, ..Recovery::default() };
    let mut remove = unused;
    for sound in segments {
        let own = sound.header.segment;
        let end = *sound.index.end();
        if end.end as usize <= HEADER_BYTES && sound.header.rewritten.is_none() {
            remove.push(own);
            continue;
        }
        let mut map = sound.map;
        // Zeros behind the last batch are given back; what a crash left there stays, as evidence.
        if (end.end as usize) < map.bytes().len() && is_zero(&map.bytes()[end.end as usize..]) {
            drop(map);
            storage.shrink(FileName::Segment(own), u64::from(end.end))?;
            map = storage.map(FileName::Segment(own))?;
        }
        if sound.is_indexed && !read_whole {
            unread.push_back(own);
        }
        let records = if sound.is_indexed { &mut recovery.indexed } else { &mut recovery.walked };
        *records += sound.index.len() as u64;
        maps.insert(own, map);
        let (first_seq, next_seq) = (end.first_seq, end.next_seq);
        let (index, is_indexed) = (Some(sound.index), sound.is_indexed);
        sealed.push(Sealed { segment: own, first_seq, next_seq, index, is_indexed });
    }
    for unused in remove {
        for file in [FileName::Index(unused), FileName::Segment(unused)] {
            if files.contains(&file) {
                storage.remove(file)?;
            }
        }
    }
    if files.contains(&FileName::Staged) {
        storage.remove(FileName::Staged)?;
    }
    recovery.segments = sealed.len();
    maps.insert(segment, map);
    let start = Start {
        shard,
        epoch: epoch + 1,
        next_seq,
        previous_checksum,
        maps,
        sealed,
        unread,
        mark,
        segment,
        segment_bytes,
        salt,
    };
    Ok((Log::new(start, sizes), recovery))
}

/// Whether an error means that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
