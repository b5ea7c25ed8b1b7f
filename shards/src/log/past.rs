//! Earlier states of one record: the log is searched from its end backwards, segment by segment, a bounded number of
//! records at a time.

use super::format::{BatchHeader, HEADER_BYTES, Record, RecordKind, SegmentHeader};
use super::segment::{Found, Walk, WalkedBatch};
use super::{Location, Log, Position};
use crate::clock::Version;
use crate::schema::TableId;
use std::collections::VecDeque;

/// Up to when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Upto {
    Now,
    /// In microseconds since 1970.
    Time(u64),
    Position(Position),
}

/// A put or a delete of the record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PastState {
    pub position: Position,
    pub version: Version,
    pub location: Location,
    pub is_delete: bool,
}

/// A search that goes on from turn to turn.
pub struct Search {
    pub table: TableId,
    pub key: Box<[u8]>,
    pub upto: Upto,
    /// How many of the newest are looked for.
    count: usize,
    /// Still to be walked through, the newest first; and how far the first one has been.
    segments: VecDeque<u32>,
    at: Option<usize>,
    /// What was in memory when the search began has been looked at: segments are walked up to here.
    before: Position,
    /// Nothing behind this has been shown to readers.
    limit: Position,
    /// Of the segment that is being walked through.
    here: VecDeque<PastState>,
    /// In order.
    pub found: VecDeque<PastState>,
    /// A segment has gone meanwhile.
    pub is_lost: bool,
}

impl Search {
    fn look(&mut self, position: Position, location: Location, record: &Record<'_>) {
        let is_early = match self.upto {
            Upto::Now => true,
            Upto::Time(at_us) => record.version.0 <= at_us,
            Upto::Position(upto) => position <= upto,
        };
        if !is_early
            || position > self.limit
            || record.table != self.table
            || record.kind == RecordKind::Message
            || *record.key != *self.key
        {
            return;
        }
        let is_delete = record.kind == RecordKind::Delete;
        self.here.push_back(PastState { position, version: record.version, location, is_delete });
        if self.here.len() + self.found.len() > self.count {
            self.here.pop_front();
        }
    }

    /// What a segment had comes before what later ones had.
    fn end_segment(&mut self) {
        let mut here = std::mem::take(&mut self.here);
        here.append(&mut self.found);
        self.found = here;
        self.at = None;
    }
}

impl Log {
    /// Begins to look for the newest states of a record, not behind `limit`.
    pub fn search(&self, table: TableId, key: &[u8], upto: Upto, count: usize, limit: Position) -> Search {
        let can_have = |at: usize| {
            let sealed = &self.sealed[at];
            let is_late = match upto {
                Upto::Now => false,
                // Versions rise along the log: all that follows a later one is later.
                Upto::Time(at_us) => {
                    let before = at.checked_sub(1).and_then(|before| self.sealed[before].index.as_ref());
                    before.is_some_and(|index| index.max_version().0 > at_us)
                }
                Upto::Position(upto) => {
                    sealed.first_seq > upto.seq && sealed.index.as_ref().is_some_and(|it| it.end().epoch >= upto.epoch)
                }
            };
            !is_late && sealed.index.as_ref().is_none_or(|index| index.find(table, key).is_some())
        };
        let sealed = (0..self.sealed.len()).rev().filter(|at| can_have(*at)).map(|at| self.sealed[at].segment);
        let mut search = Search {
            table,
            key: key.into(),
            upto,
            count,
            segments: [self.active.segment].into_iter().chain(sealed).collect(),
            at: None,
            before: Position { epoch: self.epoch, seq: self.durable_seq },
            limit,
            here: VecDeque::new(),
            found: VecDeque::new(),
            is_lost: false,
        };
        for batch in self.in_memory() {
            let at = batch.header_at() + HEADER_BYTES;
            let header = BatchHeader { first_seq: batch.first_seq, ..BatchHeader::default() };
            for Found { seq, offset, record, .. } in (WalkedBatch { header, at: 0, body: &batch.bytes[at..] }).records()
            {
                let offset = (batch.offset + batch.header_at()) as u32 + offset;
                let location = Location { segment: batch.segment, offset };
                search.look(Position { epoch: self.epoch, seq }, location, &record);
            }
        }
        search.end_segment();
        search
    }

    /// Goes on with a search, looking at no more than so many records. True: it is done.
    pub fn go_on(&self, search: &mut Search, left: &mut usize) -> bool {
        while search.found.len() < search.count
            && let Some(segment) = search.segments.front().copied()
        {
            let map = self.maps.get(&segment);
            let Some((map, header)) = map.and_then(|map| Some((map, SegmentHeader::decode(map.bytes())?))) else {
                search.is_lost |= segment != self.active.segment;
                search.segments.pop_front();
                search.end_segment();
                continue;
            };
            let mut walk = Walk::new(header, map.bytes());
            search.at.into_iter().for_each(|at| walk.go_to(at));
            let is_at_end = search.at.is_some_and(|at| walk.at != at);
            while let Some(batch) = walk.next_batch().filter(|_| !is_at_end) {
                if (Position { epoch: batch.header.epoch, seq: batch.header.first_seq }) > search.before {
                    break;
                }
                for Found { seq, offset, record, .. } in batch.records() {
                    let position = Position { epoch: batch.header.epoch, seq };
                    search.look(position, Location { segment, offset }, &record);
                    *left = left.saturating_sub(1);
                }
                if *left == 0 {
                    search.at = Some(walk.at);
                    return false;
                }
            }
            search.segments.pop_front();
            search.end_segment();
        }
        true
    }
}
