//! What the files of one shard hold, judged in full: not only up to the first damage, as a start does, and every byte of
//! it. Used by `verify`, which says it, and by `repair`, which also does what [`Examined::gaps`] asks for.
//!
//! The *trunk* is the sequence of segments that link best: each begins where the one before it ends, by seq and by
//! checksum. Where two of them do not link, or one of them is damaged, there is a *gap*. It reaches from the end of a
//! sound segment to the beginning of the next, and a rewritten segment with what can be salvaged from any file closes it.

use super::salvage::{Area, Salvage, salvage};
use super::snapshot::Snapshot;
use shards::limits::READ_AT_START_BYTES;
use shards::log::format::{HEADER_BYTES, Record, SegmentHeader};
use shards::log::index::{SegmentEnd, SegmentIndex};
use shards::log::recover::{self, Place, RecoveryError};
use shards::log::segment::Walk;
use shards::log::{job, mark};
use shards::progress::Progress;
use shards::storage::FileName;
use std::io;
use std::ops::Range;
use std::path::Path;

/// What a segment is to its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Zeros: made in advance.
    NotBegun,
    /// Its header cannot be read.
    Headless,
    /// Another shard's.
    Foreign(u16),
    /// It belongs under another number.
    Misnamed(u32),
    /// A rewritten segment stands for it.
    Replaced(u32),
    /// It fits nowhere.
    Stray,
    Sound,
    /// Part of it cannot be read.
    Damaged,
}

pub enum Index {
    Absent,
    Sound(SegmentIndex),
    /// Damaged, or of another segment.
    Unreadable,
    /// It says something else than the segment holds.
    Differs(SegmentIndex),
}

pub struct Segment {
    pub number: u32,
    pub header: Option<SegmentHeader>,
    pub role: Role,
    /// As far as its batches follow each other.
    pub end: SegmentEnd,
    pub batches: u64,
    pub records: u64,
    /// Of the file.
    pub bytes: u64,
    /// Nothing but zeros follows.
    is_zero_behind: bool,
    /// Of a rewritten one: it is as long as its header says.
    is_whole: bool,
    pub index: Index,
    /// What can be read of it, where not all can be.
    pub salvage: Option<Salvage>,
}

/// A stretch of the log that no sound segment holds.
pub struct Gap {
    pub first_seq: u64,
    /// Checksum of the batch header before it.
    pub previous_checksum: u32,
    pub next_seq: u64,
    /// Checksum that the segment behind it expects; `None`: there is none.
    pub last_checksum: Option<u32>,
    pub epochs: (u32, u32),
    /// Seqs of it about which nothing is known.
    pub lost: Vec<Range<u64>>,
}

/// Something that is not as it must be.
pub struct Problem {
    /// In the directory of the shard.
    pub file: String,
    pub offset: u64,
    pub what: String,
    /// The events that cannot be read there, as far as that is known.
    pub lost: Option<Range<u64>>,
}

pub struct Examined {
    pub snapshot: Snapshot,
    /// By number.
    pub segments: Vec<Segment>,
    /// Indexes whose segments are missing.
    pub orphans: Vec<SegmentIndex>,
    /// What a start of the server would say: where the unfinished tail begins, if there is one.
    pub verdict: Result<Option<Place>, RecoveryError>,
    pub problems: Vec<Problem>,
    /// What is worth a word and no damage.
    pub notes: Vec<String>,
    pub gaps: Vec<Gap>,
    /// Of the whole log.
    pub next_seq: u64,
    pub durable_seq: u64,
}

impl Segment {
    /// Reads a segment from its beginning to its end.
    fn read(snapshot: &Snapshot, shard: u16, number: u32) -> Segment {
        let bytes = snapshot.bytes(FileName::Segment(number)).unwrap_or_default();
        let found = SegmentHeader::decode(bytes);
        let role = match found {
            None if bytes.iter().all(|byte| *byte == 0) => Role::NotBegun,
            None => Role::Headless,
            Some(header) if header.shard != shard => Role::Foreign(header.shard),
            Some(header) if header.segment != number => Role::Misnamed(header.segment),
            Some(_) => Role::Sound,
        };
        let header = found.unwrap_or(SegmentHeader {
            shard,
            segment: number,
            epoch: 0,
            salt: 0,
            first_seq: 0,
            previous_checksum: 0,
            rewritten: None,
        });
        let mut walk = Walk::new(header, bytes);
        let (mut batches, mut records, mut sound) = (0, 0, true);
        while let Some(batch) = walk.next_batch() {
            batches += 1;
            for found in batch.records() {
                records += 1;
                sound &= Record::decode(found.bytes).is_some();
            }
        }
        let is_whole = walk.finish() && sound;
        let index = Segment::index(snapshot, number, found);
        // An index is made of what was on disk: this segment was begun.
        let was_begun = role == Role::NotBegun && matches!(index, Index::Sound(_));
        let role = if was_begun { Role::Headless } else { role };
        Segment {
            number,
            header: found,
            role,
            end: walk.end(),
            batches,
            records,
            bytes: bytes.len() as u64,
            is_zero_behind: bytes.get(walk.at..).is_none_or(|rest| rest.iter().all(|byte| *byte == 0)),
            is_whole,
            index,
            salvage: None,
        }
    }

    fn index(snapshot: &Snapshot, number: u32, header: Option<SegmentHeader>) -> Index {
        let Some(mapped) = snapshot.share(FileName::Index(number)) else { return Index::Absent };
        let Some(index) = SegmentIndex::decode(mapped) else { return Index::Unreadable };
        let is_own = |header: SegmentHeader| {
            let end = index.end();
            (end.shard, end.segment, end.salt, end.first_seq) == (header.shard, number, header.salt, header.first_seq)
        };
        match header {
            Some(header) if !is_own(header) => Index::Unreadable,
            None if index.end().segment != number => Index::Unreadable,
            _ => Index::Sound(index),
        }
    }

    fn first_seq(&self) -> u64 {
        self.end.first_seq
    }

    fn previous_checksum(&self) -> u32 {
        self.header.map_or(0, |header| header.previous_checksum)
    }

    fn epoch(&self) -> u32 {
        self.header.map_or(0, |header| header.epoch)
    }

    fn is_rewritten(&self) -> bool {
        self.header.is_some_and(|header| header.rewritten.is_some())
    }

    /// Seq and checksum with which the segment behind it begins, as far as this one knows.
    fn link(&self) -> (u64, u32) {
        match self.header.and_then(|header| header.rewritten) {
            Some(rewritten) => (rewritten.next_seq, rewritten.last_checksum),
            None => (self.end.next_seq, self.end.last_checksum),
        }
    }

    /// Begun, and nothing in it.
    pub fn is_empty(&self) -> bool {
        !self.is_rewritten() && self.end.end as usize <= HEADER_BYTES && self.is_zero_behind
    }

    fn links_to(&self, next: &Segment) -> bool {
        self.link() == (next.first_seq(), next.previous_checksum()) && next.epoch() >= self.epoch()
    }

    /// Whether the first segment of a log begins like this.
    fn is_first(&self) -> bool {
        self.first_seq() == 1 && self.previous_checksum() == 0
    }

    /// Whether a repair takes it out of the log, to go on with what can be read of it.
    pub fn is_set_aside(&self) -> bool {
        !matches!(self.role, Role::Sound | Role::NotBegun)
    }

    pub fn file(&self) -> String {
        FileName::Segment(self.number).to_string()
    }
}

impl Examined {
    /// Reads the whole directory of a shard. The progress counts bytes.
    pub fn read(path: &Path, shard: u16, progress: &Progress) -> io::Result<Examined> {
        let snapshot = Snapshot::take(path)?;
        let verdict = match recover::survey(&snapshot, shard, READ_AT_START_BYTES, &Progress::default()) {
            Ok(survey) => Ok(survey.cut),
            Err(RecoveryError::Io(error)) => return Err(error),
            Err(error) => Err(error),
        };
        let numbers: Vec<u32> = snapshot.segments().collect();
        let bytes = |number: &u32| snapshot.bytes(FileName::Segment(*number)).map_or(0, |bytes| bytes.len() as u64);
        progress.expect(numbers.iter().map(bytes).sum());
        let read = |number: &u32| {
            let segment = Segment::read(&snapshot, shard, *number);
            progress.add(segment.bytes);
            segment
        };
        let mut segments: Vec<Segment> = numbers.iter().map(read).collect();
        mark_replaced(&mut segments);
        let trunk = trunk(&segments);
        for (at, segment) in segments.iter_mut().enumerate() {
            if segment.role == Role::Sound && !trunk.contains(&at) {
                segment.role = Role::Stray;
            }
        }
        let orphans: Vec<SegmentIndex> = snapshot
            .indexes()
            .filter(|number| snapshot.bytes(FileName::Segment(*number)).is_none())
            .filter_map(|number| SegmentIndex::decode(snapshot.share(FileName::Index(number))?))
            .filter(|index| index.end().shard == shard)
            .collect();
        let mut examined = Examined {
            snapshot,
            segments,
            orphans,
            verdict,
            problems: Vec::new(),
            notes: Vec::new(),
            gaps: Vec::new(),
            next_seq: 1,
            durable_seq: 0,
        };
        examined.judge(shard, &trunk);
        examined.find_gaps(&trunk);
        examined.compare_indexes();
        examined.describe(shard);
        Ok(examined)
    }

    /// Something that was acknowledged cannot be read, or may not be read for long.
    pub fn is_damaged(&self) -> bool {
        self.verdict.is_err() || !self.problems.is_empty() || !self.gaps.is_empty()
    }

    /// Seqs of the events that are lost, and how many there may be.
    pub fn lost(&self) -> impl Iterator<Item = &Range<u64>> {
        self.gaps.iter().flat_map(|gap| &gap.lost)
    }

    pub fn records(&self) -> u64 {
        self.segments.iter().filter(|segment| segment.role == Role::Sound).map(|segment| segment.records).sum()
    }

    /// Marks the damaged segments of the trunk, and reads what can be read of all that are not sound.
    fn judge(&mut self, shard: u16, trunk: &[usize]) {
        let mark = self.snapshot.bytes(FileName::Mark).map_or(0, |bytes| mark::decode(bytes, shard).durable_seq);
        self.durable_seq = mark;
        for at in trunk {
            let segment = &self.segments[*at];
            let promised = segment.first_seq().saturating_sub(1).max(segment.end.durable_seq);
            let indexed = match &segment.index {
                Index::Sound(index) => index.end().next_seq - 1,
                _ => 0,
            };
            self.durable_seq = self.durable_seq.max(promised).max(indexed);
        }
        for segment in self.segments.iter().filter(|segment| segment.role == Role::Headless) {
            if let Index::Sound(index) = &segment.index {
                self.durable_seq = self.durable_seq.max(index.end().next_seq - 1);
            }
        }
        for index in &self.orphans {
            self.durable_seq = self.durable_seq.max(index.end().next_seq - 1);
        }
        for (at, next) in trunk.iter().zip(trunk.iter().skip(1).map(Some).chain([None])) {
            let segment = &self.segments[*at];
            let is_damaged = match next.map(|next| &self.segments[*next]) {
                _ if !segment.is_whole => true,
                Some(next) => {
                    // What a crash has left behind its end is no damage while the next segment goes on from there.
                    !segment.links_to(next)
                        && (segment.link().0 >= next.first_seq() || !segment.is_rewritten() && !segment.is_zero_behind)
                }
                // The tail: what stands behind it may name something in it as flushed.
                None if segment.is_zero_behind => false,
                None => {
                    let rest = self.salvage(shard, segment).durable_seq;
                    self.durable_seq = self.durable_seq.max(rest);
                    self.durable_seq >= segment.end.next_seq
                }
            };
            let begins_wrong = *at == trunk[0] && segment.first_seq() == 1 && !segment.is_first();
            if is_damaged || begins_wrong {
                self.segments[*at].role = Role::Damaged;
            }
        }
        for at in 0..self.segments.len() {
            let segment = &self.segments[at];
            if matches!(segment.role, Role::Headless | Role::Misnamed(_) | Role::Replaced(_) | Role::Damaged) {
                let salvage = self.salvage(shard, segment);
                if matches!(segment.role, Role::Headless | Role::Damaged) {
                    self.durable_seq = self.durable_seq.max(salvage.durable_seq);
                }
                self.segments[at].salvage = Some(salvage);
            }
        }
    }

    fn salvage(&self, shard: u16, segment: &Segment) -> Salvage {
        let bytes = self.snapshot.bytes(FileName::Segment(segment.number)).unwrap_or_default();
        let salt = match &segment.index {
            Index::Sound(index) => Some(index.end().salt),
            _ => None,
        };
        salvage(bytes, shard, segment.header, salt)
    }

    fn find_gaps(&mut self, trunk: &[usize]) {
        // Where the sound part of the log has come to: seq, checksum, epoch.
        let mut point = (1, 0, 0);
        let mut gaps = Vec::new();
        let mut is_open = false;
        for at in trunk {
            let segment = &self.segments[*at];
            if segment.role == Role::Damaged {
                is_open = true;
                continue;
            }
            let begin = (segment.first_seq(), segment.previous_checksum());
            if is_open || begin != (point.0, point.1) {
                gaps.push(self.gap(point, begin.0, Some(begin.1), segment.epoch()));
                is_open = false;
            }
            let (seq, checksum) = segment.link();
            point = (seq, checksum, segment.epoch());
        }
        // Behind the last sound segment: what was promised, and what else can be read.
        let readable = |segment: &Segment| segment.salvage.as_ref().map_or(0, Salvage::next_seq);
        let is_misplaced = |segment: &Segment| matches!(segment.role, Role::Misnamed(_));
        let misplaced = self.segments.iter().filter(|segment| is_misplaced(segment)).map(readable).max();
        let any = self.segments.iter().map(readable).max().unwrap_or(0);
        let promised = self.durable_seq + 1;
        let needs_repair =
            is_open || !gaps.is_empty() || promised > point.0 || misplaced.is_some_and(|it| it > point.0);
        self.next_seq = point.0;
        if needs_repair && promised.max(any) > point.0 {
            self.next_seq = promised.max(any);
            gaps.push(self.gap(point, self.next_seq, None, u32::MAX));
        }
        self.gaps = gaps;
    }

    fn gap(&self, from: (u64, u32, u32), next_seq: u64, last_checksum: Option<u32>, epoch_max: u32) -> Gap {
        let (first_seq, previous_checksum, epoch) = from;
        let salvaged = self.segments.iter().filter_map(|segment| segment.salvage.as_ref());
        let mut covered: Vec<Range<u64>> = salvaged.flat_map(|salvage| salvage.covered.iter().cloned()).collect();
        covered.sort_unstable_by_key(|range| range.start);
        let (mut lost, mut at) = (Vec::new(), first_seq);
        for range in covered.into_iter().filter(|range| range.start < next_seq) {
            if range.start > at {
                lost.push(at..range.start);
            }
            at = at.max(range.end);
        }
        if at < next_seq {
            lost.push(at..next_seq);
        }
        Gap { first_seq, previous_checksum, next_seq, last_checksum, epochs: (epoch, epoch_max), lost }
    }

    /// What a sound segment holds is what its index must say.
    fn compare_indexes(&mut self) {
        for segment in self.segments.iter_mut().filter(|segment| segment.role == Role::Sound) {
            let bytes = self.snapshot.bytes(FileName::Segment(segment.number)).unwrap_or_default();
            segment.index = match std::mem::replace(&mut segment.index, Index::Absent) {
                Index::Sound(index) => match job::index(segment.number, bytes) {
                    Ok((_, made)) if made == index.bytes() => Index::Sound(index),
                    _ => Index::Differs(index),
                },
                other => other,
            };
        }
    }

    /// Numbers of the indexes whose segments are missing or not begun.
    pub fn useless_indexes(&self) -> Vec<u32> {
        let is_used = |number: &u32| {
            let own = self.segments.iter().find(|segment| segment.number == *number);
            own.is_some_and(|segment| segment.role != Role::NotBegun)
        };
        self.snapshot.indexes().filter(|number| !is_used(number)).collect()
    }

    fn problem(&mut self, file: FileName, offset: u64, what: impl Into<String>, lost: Option<Range<u64>>) {
        self.problems.push(Problem { file: file.to_string(), offset, what: what.into(), lost });
    }

    /// Puts into words what was found.
    fn describe(&mut self, shard: u16) {
        let needs_repair = self.verdict.is_err() || !self.gaps.is_empty();
        for at in 0..self.segments.len() {
            let segment = &self.segments[at];
            let file = FileName::Segment(segment.number);
            match segment.role {
                Role::Headless if needs_repair => {
                    let holds = segment
                        .salvage
                        .as_ref()
                        .map_or(0, |it| it.runs.iter().map(|run| run.next_seq - run.first_seq).sum());
                    let what =
                        format!("its header cannot be read; {} in it can be", super::data::counted(holds, "event"));
                    self.problem(file, 0, what, None);
                }
                Role::Foreign(other) => self.problem(file, 0, format!("it belongs to shard {other}"), None),
                Role::Misnamed(other) => {
                    let what = format!("it belongs under the name {}", FileName::Segment(other));
                    self.problem(file, 0, what, None);
                }
                Role::Stray => self.problem(file, 0, "it does not fit the segments around it: of another log", None),
                Role::Replaced(by) => {
                    self.notes
                        .push(format!("{file} was replaced by {}; the next start removes it", FileName::Segment(by)));
                }
                _ => {}
            }
            self.describe_damage(at);
            self.describe_index(at);
        }
        for number in self.useless_indexes() {
            self.problem(FileName::Index(number), 0, "its segment is missing, or was never begun", None);
        }
        for name in &self.snapshot.others {
            self.notes.push(match name.as_str() {
                "staged" => "staged was not finished; the next start removes it".to_owned(),
                name if name.starts_with("damaged-") => format!("{name} holds what a repair has set aside"),
                name => format!("{name} is no file of a shard"),
            });
        }
        if self
            .snapshot
            .bytes(FileName::Mark)
            .is_some_and(|bytes| !bytes.is_empty() && mark::decode(bytes, shard).durable_seq == 0)
        {
            self.notes.push("mark cannot be read, or promises nothing; it is written anew".to_owned());
        }
        let named: Vec<Range<u64>> = self.problems.iter().filter_map(|problem| problem.lost.clone()).collect();
        let missing: Vec<Range<u64>> = self
            .lost()
            .filter(|lost| !named.iter().any(|it| it.start <= lost.start && lost.end <= it.end))
            .cloned()
            .collect();
        for lost in missing {
            let before = self
                .segments
                .iter()
                .filter(|it| matches!(it.role, Role::Sound | Role::Damaged) && it.first_seq() <= lost.start);
            let place = before.max_by_key(|it| it.first_seq()).map(|it| (it.number, u64::from(it.end.end)));
            let (number, offset) = place.unwrap_or((1, 0));
            self.problem(FileName::Segment(number), offset, "what follows is missing", Some(lost));
        }
    }

    /// What cannot be read of a damaged segment, and what an unfinished tail holds.
    fn describe_damage(&mut self, at: usize) {
        let segment = &self.segments[at];
        let file = FileName::Segment(segment.number);
        let Some(salvage) = segment.salvage.as_ref().filter(|_| segment.role == Role::Damaged) else { return };
        let lost_in = |area: &Area| {
            let end = area.next_seq.unwrap_or(self.next_seq);
            let lost = self.lost().find(|lost| lost.start < end.max(area.first_seq + 1) && area.first_seq < lost.end);
            lost.map(|lost| lost.start.max(area.first_seq)..lost.end.min(end.max(area.first_seq + 1)))
        };
        let areas: Vec<_> = salvage.areas.iter().map(|area| (area.bytes.clone(), lost_in(area))).collect();
        let end = u64::from(segment.end.end);
        let has_areas = !areas.is_empty();
        for (bytes, lost) in areas {
            let what = format!("cannot be read up to offset {}", bytes.end);
            self.problem(file, bytes.start as u64, what, lost);
        }
        if !has_areas {
            self.problem(file, end, "it does not go on to where the next segment begins", None);
        }
    }

    fn describe_index(&mut self, at: usize) {
        let segment = &self.segments[at];
        let file = FileName::Index(segment.number);
        match segment.index {
            Index::Unreadable if segment.role == Role::Sound => {
                self.problem(file, 0, "it cannot be read; it can be made again from the segment", None);
            }
            Index::Unreadable if segment.role != Role::NotBegun => self.problem(file, 0, "it cannot be read", None),
            Index::Differs(_) => {
                self.problem(file, 0, "it says something else than the segment; it can be made again from it", None);
            }
            Index::Absent if segment.role == Role::Sound && at + 1 < self.segments.len() && !segment.is_empty() => {
                self.notes.push(format!("{file} is absent; the server makes it"));
            }
            _ => {}
        }
    }
}

/// Finds the segments for which a rewritten one stands, as recovery does.
fn mark_replaced(segments: &mut [Segment]) {
    let replacers: Vec<(u32, Range<u64>)> = segments
        .iter()
        .filter(|it| it.role == Role::Sound)
        .filter_map(|it| Some((it, it.header?.rewritten?)))
        .filter(|(it, rewritten)| u64::from(rewritten.bytes) == it.bytes)
        .map(|(it, rewritten)| (it.number, it.first_seq()..rewritten.next_seq))
        .collect();
    for segment in segments.iter_mut().filter(|segment| segment.role == Role::Sound) {
        let by =
            replacers.iter().find(|(number, range)| *number > segment.number && range.contains(&segment.first_seq()));
        if let Some((number, _)) = by {
            segment.role = Role::Replaced(*number);
        }
    }
}

/// Worth of a link between two segments, and of a segment as such.
const LINK: u64 = 2;

/// The segments that link best, in the order of their seq.
fn trunk(segments: &[Segment]) -> Vec<usize> {
    let mut own: Vec<usize> = (0..segments.len()).filter(|at| segments[*at].role == Role::Sound).collect();
    own.sort_by_key(|at| (segments[*at].first_seq(), segments[*at].number));
    // Of each the best sequence that ends with it: its worth, and the segment before.
    let mut best: Vec<(u64, Option<usize>)> = Vec::with_capacity(own.len());
    for (rank, at) in own.iter().enumerate() {
        let segment = &segments[*at];
        let mut choice = (1 + u64::from(segment.is_first()), None);
        for before in (0..rank).rev() {
            let other = &segments[own[before]];
            let links = other.links_to(segment);
            let fits = links
                || other.link().0 <= segment.first_seq()
                    && other.first_seq() < segment.first_seq()
                    && other.epoch() <= segment.epoch()
                    && !other.is_empty();
            let worth = best[before].0 + 1 + if links { LINK } else { 0 };
            if fits && worth > choice.0 {
                choice = (worth, Some(before));
            }
        }
        best.push(choice);
    }
    // Of equals the one that goes farthest.
    let mut at = (0..best.len()).max_by_key(|rank| (best[*rank].0, *rank));
    let mut trunk = Vec::new();
    while let Some(rank) = at {
        trunk.push(own[rank]);
        at = best[rank].1;
    }
    trunk.reverse();
    trunk
}
