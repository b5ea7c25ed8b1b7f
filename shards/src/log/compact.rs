//! Compaction: segments of which enough can be dropped are written anew without it, together with their neighbours if
//! those are small. The shard decides what to rewrite ([`plan`]) and looks up, a few records a turn, which of them are
//! still the newest; a job copies them ([`Rewrite`]); the shard then moves its records to the new places, again a few a
//! turn, and has the old files removed. A crash at any point leaves the old segments or the new one (`recover.rs`).
//!
//! What is kept of a segment:
//! - the newest version of every record;
//! - history (messages, replaced versions, deletes) of tables whose retention has not passed;
//! - a delete, and a record that has expired, while an older segment still holds the key: else that older record would
//!   come back with the next start.

use super::Location;
use super::format::{RecordKind, SegmentHeader};
use super::index::SegmentIndex;
use super::job::{Done, read_index};
use super::recover::Place;
use super::segment::{Rewriter, Walk};
use crate::clock::Version;
use crate::limits::SALT_FACTOR;
use crate::storage::{FileName, Mapped, Storage};
use std::io;

/// What the table says of an entry of a segment's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is the newest version of a record.
    Live,
    /// The key has no record: this may be what keeps an older one from coming back.
    Covering,
    /// A newer one exists: history.
    Superseded,
}

/// A segment to be rewritten.
pub struct Source {
    pub segment: u32,
    /// Of each entry of its index.
    pub fates: Vec<Fate>,
    /// By table number: history is dropped. Tables beyond the end: it is kept.
    pub drop_history: Vec<bool>,
}

/// Segments that follow each other, to be written as one.
pub struct Rewrite {
    pub output: u32,
    pub sources: Vec<Source>,
    /// Older segments that stay.
    pub older: Vec<u32>,
    /// On disk when the job began: what is dropped relies on newer records up to here.
    pub durable_seq: u64,
    /// Sources are taken up to about so many bytes: how much is kept of them is only estimated.
    pub bytes_max: usize,
    /// Deletes of this version and later are kept.
    pub keep_deletes_from: Version,
}

pub struct RewriteDone {
    pub segment: u32,
    pub sources: Vec<u32>,
    pub map: Box<dyn Mapped>,
    pub index: SegmentIndex,
    /// Where each entry of the index stood before.
    pub moved: Vec<Location>,
}

impl Source {
    fn drops_history(&self, table: crate::schema::TableId) -> bool {
        self.drop_history.get(usize::from(table.0)).copied().unwrap_or(false)
    }
}

fn missing(what: &str, segment: u32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} of segment {segment:08}.log cannot be read"))
}

fn header_of(segment: u32, bytes: &[u8]) -> Option<SegmentHeader> {
    SegmentHeader::decode(bytes).filter(|header| header.segment == segment)
}

impl Rewrite {
    pub(super) fn run(self, storage: &dyn Storage) -> io::Result<Done> {
        let output = self.output;
        let result = self.write(storage);
        if result.is_err() {
            // The sources stay; what was made of them gives its space back. The error is what matters.
            for file in [FileName::Staged, FileName::Index(output), FileName::Segment(output)] {
                let _ = storage.remove(file);
            }
        }
        result
    }

    fn write(self, storage: &dyn Storage) -> io::Result<Done> {
        let older = self.older_indexes(storage)?;
        let mut rewriter: Option<Rewriter<'_>> = None;
        // New place and old place, rising.
        let mut moved: Vec<(Location, Location)> = Vec::new();
        let mut last = None;
        let mut taken = Vec::new();
        for source in &self.sources {
            if rewriter.as_ref().is_some_and(|rewriter| rewriter.bytes() > self.bytes_max) {
                break;
            }
            taken.push(source.segment);
            let map = storage.map(FileName::Segment(source.segment))?;
            let damaged = |offset| Ok(Done::Damaged(Place { segment: source.segment, offset }));
            let Some(header) = header_of(source.segment, map.bytes()) else { return damaged(0) };
            let index =
                read_index(storage, source.segment, &header).ok_or_else(|| missing("the index", source.segment))?;
            let kept = self.kept(source, &index, &older);
            let writer = match rewriter.as_mut() {
                Some(writer) => writer,
                None => {
                    let begin = SegmentHeader {
                        segment: self.output,
                        salt: header.salt.wrapping_mul(SALT_FACTOR),
                        rewritten: None,
                        ..header
                    };
                    rewriter.insert(Rewriter::new(storage, begin, self.durable_seq)?)
                }
            };
            writer.observe(index.max_version());
            let mut kept = kept.into_iter().peekable();
            let mut walk = Walk::new(header, map.bytes());
            while let Some(batch) = walk.next_batch() {
                for found in batch.records() {
                    let is_kept = kept.next_if_eq(&found.offset).is_some();
                    if is_kept || !source.drops_history(found.record.table) {
                        let old = Location { segment: source.segment, offset: found.offset };
                        moved.push((writer.push(found.seq, batch.header.epoch, found.bytes)?, old));
                    }
                }
            }
            if !walk.finish() || walk.end() != *index.end() {
                return damaged(walk.at as u64);
            }
            last = Some(walk.end());
        }
        let (Some(rewriter), Some(last)) = (rewriter, last) else { return Err(io::Error::other("nothing to rewrite")) };
        rewriter.finish(last.next_seq, last.last_checksum, last.epoch)?;
        let map = storage.map(FileName::Segment(self.output))?;
        let header = header_of(self.output, map.bytes()).ok_or_else(|| missing("the header", self.output))?;
        let index = read_index(storage, self.output, &header).ok_or_else(|| missing("the index", self.output))?;
        let place_before = |offset: u32| {
            let new = Location { segment: self.output, offset };
            let at = moved.binary_search_by_key(&new, |(new, _)| *new);
            at.map(|at| moved[at].1).map_err(|_| missing("an entry of the index", self.output))
        };
        let moved = (0..index.len()).map(|at| place_before(index.entry(at).offset)).collect::<io::Result<Vec<_>>>()?;
        Ok(Done::Rewritten(RewriteDone { segment: self.output, sources: taken, map, index, moved }))
    }

    fn older_indexes(&self, storage: &dyn Storage) -> io::Result<Vec<SegmentIndex>> {
        let covers = |source: &Source| source.fates.contains(&Fate::Covering);
        if !self.sources.iter().any(covers) {
            return Ok(Vec::new());
        }
        let open = |&segment: &u32| {
            let mapped = storage.map(FileName::Segment(segment))?;
            let header = header_of(segment, mapped.bytes()).ok_or_else(|| missing("the header", segment))?;
            read_index(storage, segment, &header).ok_or_else(|| missing("the index", segment))
        };
        self.older.iter().map(open).collect()
    }

    /// Offsets of the records of a source that are kept whatever becomes of its history, rising.
    fn kept(&self, source: &Source, index: &SegmentIndex, older: &[SegmentIndex]) -> Vec<u32> {
        let mut kept = Vec::new();
        for (at, fate) in source.fates.iter().enumerate().take(index.len()) {
            let entry = index.entry(at);
            let is_needed = match fate {
                Fate::Live => true,
                Fate::Superseded => false,
                // A put without expiry that has no record was deleted later, and the delete says so.
                Fate::Covering if entry.kind == RecordKind::Put && entry.expires_ms.is_none() => false,
                Fate::Covering => {
                    let is_recent = entry.kind == RecordKind::Delete && entry.version >= self.keep_deletes_from;
                    let holds_key = |older: &SegmentIndex| {
                        older.find(entry.table, entry.key).is_some_and(|older| older.kind == RecordKind::Put)
                    };
                    is_recent || older.iter().any(holds_key)
                }
            };
            if is_needed {
                kept.push(entry.offset);
            }
        }
        kept.sort_unstable();
        kept
    }
}

/// What a planner knows of a sealed segment.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub segment: u32,
    /// Of its records.
    pub bytes: u64,
    /// Of those, what could be dropped now.
    pub droppable: u64,
}

/// Which neighbours to rewrite as one: positions in `candidates`. `None`: nothing is worth it.
pub fn plan(candidates: &[Candidate], segment_bytes_max: u64) -> Option<std::ops::Range<usize>> {
    use crate::limits::{COMPACTION_GARBAGE_SHARE, COMPACTION_SMALL_SEGMENTS, COMPACTION_SMALL_SHARE};
    let kept = |candidate: &Candidate| candidate.bytes - candidate.droppable;
    let wasteful = |candidate: &Candidate| {
        candidate.droppable > 0 && candidate.droppable * COMPACTION_GARBAGE_SHARE >= candidate.bytes
    };
    let small = |candidate: &Candidate| kept(candidate) * COMPACTION_SMALL_SHARE <= segment_bytes_max;
    // The emptiest first: it gives back the most for what is copied.
    let share = |candidate: &Candidate| candidate.droppable as f64 / candidate.bytes.max(1) as f64;
    let worst = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| wasteful(candidate))
        .max_by(|(_, a), (_, b)| share(a).total_cmp(&share(b)))
        .map(|(at, _)| at);
    let grow = |from: usize| {
        let mut range = from..from + 1;
        let mut bytes = kept(&candidates[from]);
        let mut joins = |candidate: &Candidate| {
            let fits = (wasteful(candidate) || small(candidate)) && bytes + kept(candidate) <= segment_bytes_max;
            if fits {
                bytes += kept(candidate);
            }
            fits
        };
        while range.end < candidates.len() && joins(&candidates[range.end]) {
            range.end += 1;
        }
        while range.start > 0 && joins(&candidates[range.start - 1]) {
            range.start -= 1;
        }
        range
    };
    if let Some(worst) = worst {
        return Some(grow(worst));
    }
    let firsts = (0..candidates.len()).filter(|at| small(&candidates[*at]));
    firsts.map(grow).find(|range| range.len() >= COMPACTION_SMALL_SEGMENTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(bytes: u64, droppable: u64) -> Candidate {
        Candidate { segment: 0, bytes, droppable }
    }

    #[test]
    fn the_emptiest_segment_is_rewritten_with_its_small_neighbours() {
        let candidates =
            [candidate(100, 0), candidate(100, 50), candidate(2, 0), candidate(100, 90), candidate(100, 0)];
        assert_eq!(plan(&candidates, 100), Some(1..4));
        assert_eq!(plan(&candidates, 11), Some(3..4), "the others would not fit");
        assert_eq!(plan(&[candidate(100, 0), candidate(100, 20)], 100), None, "a fifth is not worth it");
    }

    #[test]
    fn many_small_neighbours_become_one() {
        let mut candidates = vec![candidate(1, 0); 7];
        assert_eq!(plan(&candidates, 100), None);
        candidates.push(candidate(1, 0));
        assert_eq!(plan(&candidates, 100), Some(0..8));
        candidates.insert(4, candidate(90, 0));
        assert_eq!(plan(&candidates, 100), None, "a large one stands between them");
    }
}
