//! What a shard has done behind its back: jobs that read and write whole segments, each run to its end on another
//! thread, one at a time. A job knows nothing but the disk and its own arguments; what it has found or made goes back to
//! the shard as [`Done`].

use super::compact::{Rewrite, RewriteDone};
use super::format::SegmentHeader;
use super::index::{IndexBuilder, SegmentEnd, SegmentIndex};
use super::recover::Place;
use super::segment::{Walk, write_index};
use crate::storage::{FileName, Mapped, Storage};
use std::io;

pub enum Job {
    /// Writes the index of a sealed segment. `next_seq`: of the first event behind it.
    Index { segment: u32, next_seq: u64 },
    /// Compaction.
    Rewrite(Rewrite),
    /// Removes segments and their indexes.
    Remove { segments: Vec<u32> },
    /// Reads a sealed segment, to find rot.
    Scrub { segment: u32, next_seq: u64 },
}

pub enum Done {
    Indexed {
        segment: u32,
        index: SegmentIndex,
    },
    Rewritten(RewriteDone),
    Removed,
    Scrubbed,
    /// A sealed segment cannot be read in full.
    Damaged(Place),
}

impl Job {
    pub fn run(self, storage: &dyn Storage) -> io::Result<Done> {
        match self {
            Job::Index { segment, next_seq } => {
                let map = storage.map(FileName::Segment(segment))?;
                let bytes = match index(segment, map.bytes()) {
                    Ok((end, bytes)) if end.next_seq == next_seq => bytes,
                    Ok((end, _)) => return Ok(Done::Damaged(Place { segment, offset: end.end.into() })),
                    Err(offset) => return Ok(Done::Damaged(Place { segment, offset })),
                };
                write_index(storage, segment, &bytes)?;
                let index = SegmentIndex::decode(storage.map(FileName::Index(segment))?);
                let index = index.ok_or_else(|| io::Error::other("an index that was just written cannot be read"))?;
                Ok(Done::Indexed { segment, index })
            }
            Job::Rewrite(rewrite) => rewrite.run(storage),
            Job::Remove { segments } => {
                for segment in segments {
                    for file in [FileName::Index(segment), FileName::Segment(segment)] {
                        match storage.remove(file) {
                            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                            _ => {}
                        }
                    }
                }
                Ok(Done::Removed)
            }
            Job::Scrub { segment, next_seq } => {
                let map = storage.map(FileName::Segment(segment))?;
                let index = storage.map(FileName::Index(segment)).ok().and_then(SegmentIndex::decode);
                match check(segment, map.bytes(), index.as_ref().map(SegmentIndex::end)) {
                    Ok(end) if end.next_seq == next_seq => Ok(Done::Scrubbed),
                    Ok(end) => Ok(Done::Damaged(Place { segment, offset: end.end.into() })),
                    Err(offset) => Ok(Done::Damaged(Place { segment, offset })),
                }
            }
        }
    }
}

/// Walks a segment and makes its index. The error is the offset of the damage.
pub fn index(segment: u32, bytes: &[u8]) -> Result<(SegmentEnd, Vec<u8>), u64> {
    let header = SegmentHeader::decode(bytes).filter(|header| header.segment == segment).ok_or(0u64)?;
    let mut walk = Walk::new(header, bytes);
    let mut builder = IndexBuilder::default();
    while let Some(batch) = walk.next_batch() {
        for found in batch.records() {
            builder.push(&found.record, found.offset, found.bytes.len() as u32);
        }
    }
    if !walk.finish() {
        return Err(walk.at as u64);
    }
    let end = walk.end();
    Ok((end, builder.finish(&end)))
}

/// Reads a segment in full and compares it with what its index says of its end. The error is the offset of the damage.
pub fn check(segment: u32, bytes: &[u8], expected: Option<&SegmentEnd>) -> Result<SegmentEnd, u64> {
    let header = SegmentHeader::decode(bytes).filter(|header| header.segment == segment).ok_or(0u64)?;
    let mut walk = Walk::new(header, bytes);
    while walk.next_batch().is_some() {}
    let ends_well = walk.finish() && expected.is_none_or(|expected| walk.end() == *expected);
    if ends_well { Ok(walk.end()) } else { Err(walk.at as u64) }
}

/// The index file of a segment, if it is there, sound, and of this very segment.
pub(super) fn read_index(storage: &dyn Storage, segment: u32, header: &SegmentHeader) -> Option<SegmentIndex> {
    let mapped: Box<dyn Mapped> = storage.map(FileName::Index(segment)).ok()?;
    let index = SegmentIndex::decode(mapped)?;
    let end = index.end();
    let own = end.shard == header.shard
        && end.segment == segment
        && end.salt == header.salt
        && end.first_seq == header.first_seq;
    own.then_some(index)
}
