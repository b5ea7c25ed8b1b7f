//! The append log of one shard: records gather in the open batch; a flush writes and syncs it while the next batch
//! fills (group commit with no timer); bytes not yet written are read from the batches in memory, all others through
//! read-only maps. `format.rs` has the bytes, `recover.rs` what happens at start, `job.rs` what is done to full segments
//! behind the shard's back: indexes, compaction (`compact.rs`), a search for rot; `past.rs` finds earlier states.

pub mod compact;
pub mod format;
pub mod index;
pub mod job;
pub mod map;
pub mod mark;
pub mod past;
pub mod recover;
pub mod segment;

use crate::clock::Version;
use crate::limits::{
    BATCH_BYTES_MAX, MARK_INTERVAL_US, SALT_FACTOR, SCRUB_INTERVAL_US, SEGMENT_RETRY_US, SEGMENT_SHARE, SegmentSizes,
    UNSYNCED_BYTES_MAX,
};
use crate::schema::TableId;
use crate::storage::{Mapped, StorageCompletion, StorageRequest};
use compact::RewriteDone;
use format::{BatchHeader, HEADER_BYTES, RECORD_EXTRA_BYTES, RECORD_HEADER_BYTES, Record, RecordHead, SegmentHeader};
use index::{SegmentEnd, SegmentIndex};
use job::{Done, Job};
use mark::Mark;
use recover::Place;
use segment::{Walk, WalkedBatch};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    pub segment: u32,
    pub offset: u32,
}

/// How far a shard has come: a position names a moment in its history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub epoch: u32,
    pub seq: u64,
}

/// Whether a record of some size can be appended now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Yes,
    /// Soon: a flush or a new segment is under way.
    Wait,
    /// The disk is full.
    Full,
    /// Never: it is larger than a segment.
    TooLarge,
    /// A flush has failed: nothing more is written.
    Fenced,
    /// Something that was acknowledged cannot be read: nothing more is written.
    Damaged,
}

/// Is shown events: position, place and record.
pub type Visit<'v> = dyn FnMut(Position, Option<Location>, Option<&Record<'_>>) -> ControlFlow<()> + 'v;

/// A record that the log must have cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Where an appended record stands, and its length there.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    pub location: Location,
    pub bytes: u32,
    pub expires_ms: Option<u64>,
}

/// Appended, not yet known to be on disk.
struct Batch {
    segment: u32,
    offset: usize,
    /// Segment header where this batch is the first, room for the batch header, records.
    bytes: Arc<Vec<u8>>,
    first_seq: u64,
    count: u32,
    /// The segment's.
    salt: u64,
}

impl Batch {
    /// Where the batch header stands in `bytes`.
    fn header_at(&self) -> usize {
        if self.offset == 0 { HEADER_BYTES } else { 0 }
    }

    fn body_bytes(&self) -> usize {
        self.bytes.len() - self.header_at() - HEADER_BYTES
    }

    fn last_seq(&self) -> u64 {
        self.first_seq + u64::from(self.count) - 1
    }

    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }
}

/// The segment that is being appended to.
struct Active {
    segment: u32,
    bytes: usize,
    first_seq: u64,
}

/// A segment that nothing is appended to any more.
pub struct Sealed {
    pub segment: u32,
    pub first_seq: u64,
    /// Seq of the first event behind it.
    pub next_seq: u64,
    /// `None`: it was sealed just now, a job makes it.
    pub index: Option<SegmentIndex>,
    /// The index stands in a file.
    pub is_indexed: bool,
}

/// What the records of a segment are good for, per table.
#[derive(Default)]
pub struct Usage {
    /// By table number.
    pub tables: Vec<TableUsage>,
    pub max_version: Version,
}

#[derive(Clone, Copy, Default)]
pub struct TableUsage {
    /// Of all records.
    pub bytes: u64,
    /// Of those that are the newest of their key.
    pub live: u64,
}

impl Usage {
    fn table(&mut self, table: TableId) -> &mut TableUsage {
        let at = usize::from(table.0);
        if at >= self.tables.len() {
            self.tables.resize(at + 1, TableUsage::default());
        }
        &mut self.tables[at]
    }
}

enum Spare {
    Absent { retry_at_us: u64 },
    Requested,
    Ready { segment: u32, bytes: usize },
}

pub struct Log {
    shard: u16,
    epoch: u32,
    maps: BTreeMap<u32, Box<dyn Mapped>>,
    /// In the order of their seq.
    sealed: Vec<Sealed>,
    /// Of them, those whose index has no file yet.
    without_index: usize,
    usage: BTreeMap<u32, Usage>,
    active: Active,
    spare: Spare,
    /// Number of the next file.
    next_segment: u32,
    disk_full: bool,
    fenced: bool,
    /// Something that cannot be read was found there.
    damage: Cell<Option<Place>>,
    open: Batch,
    full: VecDeque<Batch>,
    in_flight: Option<Batch>,
    /// A buffer that was flushed, for the next batch.
    recycled: Vec<u8>,
    unsynced_bytes: usize,
    durable_seq: u64,
    previous_checksum: u32,
    sizes: SegmentSizes,
    /// Bytes of a record that waits for a segment of its size; 0: none does.
    needed: usize,
    job_is_running: bool,
    /// The running job, if it is to be tried again should it fail.
    job_again: Option<Job>,
    /// A rewrite is running.
    is_rewriting: bool,
    /// After one has failed, the next one waits.
    jobs_from_us: u64,
    /// Jobs that the shard wants done, in order.
    jobs: VecDeque<Job>,
    /// What the mark file says, and when it was refreshed last.
    mark: (Mark, u64),
    is_marking: bool,
    /// Segments that were there at start and have not been read in full, and when the next one is.
    scrub: (VecDeque<u32>, u64),
}

/// What recovery hands to a log that starts appending.
pub struct Start {
    pub shard: u16,
    pub epoch: u32,
    pub next_seq: u64,
    pub previous_checksum: u32,
    pub maps: BTreeMap<u32, Box<dyn Mapped>>,
    pub sealed: Vec<Sealed>,
    /// Segments that have not been read in full.
    pub unread: VecDeque<u32>,
    /// What the mark file says.
    pub mark: Mark,
    /// A fresh segment whose header is on disk already, and its length.
    pub segment: u32,
    pub segment_bytes: usize,
    pub salt: u64,
}

impl Log {
    pub fn new(start: Start, sizes: SegmentSizes) -> Log {
        let open = Batch {
            segment: start.segment,
            offset: HEADER_BYTES,
            bytes: Arc::new(vec![0; HEADER_BYTES]),
            first_seq: start.next_seq,
            count: 0,
            salt: start.salt,
        };
        let mut log = Log {
            shard: start.shard,
            epoch: start.epoch,
            maps: start.maps,
            without_index: start.sealed.iter().filter(|sealed| !sealed.is_indexed).count(),
            sealed: start.sealed,
            usage: BTreeMap::new(),
            active: Active { segment: start.segment, bytes: start.segment_bytes, first_seq: start.next_seq },
            spare: Spare::Absent { retry_at_us: 0 },
            next_segment: start.segment + 1,
            disk_full: false,
            fenced: false,
            damage: Cell::new(None),
            open,
            full: VecDeque::new(),
            in_flight: None,
            recycled: Vec::new(),
            unsynced_bytes: 0,
            durable_seq: start.next_seq - 1,
            previous_checksum: start.previous_checksum,
            sizes,
            needed: 0,
            job_is_running: false,
            job_again: None,
            is_rewriting: false,
            jobs_from_us: 0,
            jobs: VecDeque::new(),
            mark: (start.mark, 0),
            is_marking: false,
            scrub: (start.unread, 0),
        };
        for sealed in &log.sealed {
            let usage = log.usage.entry(sealed.segment).or_default();
            if let Some(index) = &sealed.index {
                usage.max_version = index.max_version();
                index.tables().for_each(|(table, bytes)| usage.table(table).bytes = bytes);
            }
        }
        log
    }

    /// The log of a shard whose data cannot be read: it refuses everything.
    pub fn damaged(shard: u16, at: Place) -> Log {
        let maps = BTreeMap::new();
        let start = Start {
            shard,
            epoch: 0,
            next_seq: 1,
            previous_checksum: 0,
            maps,
            sealed: Vec::new(),
            unread: VecDeque::new(),
            mark: Mark::default(),
            segment: 0,
            segment_bytes: 0,
            salt: 0,
        };
        let log = Log::new(start, SegmentSizes::default());
        log.damage.set(Some(at));
        log
    }

    /// Where something was found that was acknowledged and cannot be read.
    pub fn damage(&self) -> Option<Place> {
        self.damage.get()
    }

    /// Segments that nothing is appended to any more, oldest first.
    pub fn sealed(&self) -> &[Sealed] {
        &self.sealed
    }

    /// What the records of a segment are good for.
    pub fn usage(&self, segment: u32) -> Option<&Usage> {
        self.usage.get(&segment)
    }

    /// A record has become the newest of its key.
    pub fn hold(&mut self, segment: u32, table: TableId, bytes: u64) {
        self.usage.entry(segment).or_default().table(table).live += bytes;
    }

    /// A record is no longer the newest of its key.
    pub fn release(&mut self, segment: u32, table: TableId, bytes: u64) {
        if let Some(usage) = self.usage.get_mut(&segment) {
            let live = &mut usage.table(table).live;
            *live = live.saturating_sub(bytes);
        }
    }

    /// What the newest records of these tables take up.
    pub fn live_bytes(&self, of: impl Fn(TableId) -> bool) -> u64 {
        let tables = self.usage.values().flat_map(|usage| usage.tables.iter().enumerate());
        tables.filter(|(table, _)| of(TableId(*table as u16))).map(|(_, usage)| usage.live).sum()
    }

    /// The position of the newest event.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.next_seq() - 1 }
    }

    fn next_seq(&self) -> u64 {
        self.open.first_seq + u64::from(self.open.count)
    }

    /// The segment that is being appended to; 0: none, the data cannot be read.
    pub fn active_segment(&self) -> u32 {
        self.active.segment
    }

    /// Everything up to this seq is on disk.
    pub fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Whether a record of at most `bytes` of key and document can be appended. Seals the open batch where the record
    /// would not fit it.
    pub fn room(&mut self, bytes: usize) -> Room {
        if self.fenced {
            return Room::Fenced;
        }
        if self.damage.get().is_some() {
            return Room::Damaged;
        }
        if self.unsynced_bytes > UNSYNCED_BYTES_MAX {
            return Room::Wait;
        }
        let needed = RECORD_HEADER_BYTES + bytes + RECORD_EXTRA_BYTES;
        if needed + 2 * HEADER_BYTES > self.sizes.max {
            return Room::TooLarge;
        }
        let fits_segment = self.open.end() + needed <= self.active.bytes;
        if fits_segment && (self.open.count == 0 || self.open.bytes.len() + needed <= BATCH_BYTES_MAX) {
            return Room::Yes;
        }
        if fits_segment {
            self.seal(None);
            return self.room(bytes);
        }
        match self.spare {
            Spare::Ready { segment, bytes: spare_bytes } => {
                self.spare = Spare::Absent { retry_at_us: 0 };
                self.seal(Some((segment, spare_bytes)));
                self.room(bytes)
            }
            _ => {
                self.needed = needed;
                if self.disk_full { Room::Full } else { Room::Wait }
            }
        }
    }

    /// Closes the open batch and opens the next one, in segment `roll` if given.
    fn seal(&mut self, roll: Option<(u32, usize)>) {
        let next_seq = self.next_seq();
        let end = self.open.end();
        let (segment, offset, salt) = match roll {
            Some((segment, bytes)) => {
                let before = std::mem::replace(&mut self.active, Active { segment, bytes, first_seq: next_seq });
                self.retire(&before, next_seq);
                // Any change will do: the salt only has to differ from what may lie in recycled blocks.
                (segment, 0, self.open.salt.wrapping_mul(SALT_FACTOR).wrapping_add(1))
            }
            None if self.open.count == 0 => return,
            None => (self.open.segment, end, self.open.salt),
        };
        let mut bytes = std::mem::take(&mut self.recycled);
        bytes.clear();
        bytes.resize(if offset == 0 { 2 * HEADER_BYTES } else { HEADER_BYTES }, 0);
        let next = Batch { segment, offset, bytes: Arc::new(bytes), first_seq: next_seq, count: 0, salt };
        let full = std::mem::replace(&mut self.open, next);
        if full.count > 0 {
            self.full.push_back(full);
        }
    }

    /// Nothing more is appended to this segment.
    fn retire(&mut self, active: &Active, next_seq: u64) {
        let Active { segment, first_seq, .. } = *active;
        if first_seq == next_seq {
            // It was too small for the first record. The next start removes it: until then it may be what bears the epoch.
            self.forget(segment);
        } else {
            self.sealed.push(Sealed { segment, first_seq, next_seq, index: None, is_indexed: false });
            self.without_index += 1;
        }
    }

    fn forget(&mut self, segment: u32) {
        self.maps.remove(&segment);
        self.usage.remove(&segment);
    }

    /// Appends a record. `document` writes the document behind what it is given, which begins with others; it says when
    /// the record expires, if that may be. Where it fails, nothing was appended; `None`: it has become larger than the
    /// room that the caller asked for with [`Log::room`], and does not fit.
    pub fn append<E>(
        &mut self,
        head: &RecordHead<'_>,
        document: impl FnOnce(usize, &mut Vec<u8>) -> Result<Option<u64>, E>,
    ) -> Result<Placed, Option<E>> {
        let bytes = Arc::get_mut(&mut self.open.bytes).expect("a batch is shared only while it is flushed");
        let start = bytes.len();
        format::begin_record(head, bytes);
        let expires_ms = match document(bytes.len(), bytes) {
            Ok(expires_ms) => expires_ms,
            Err(error) => {
                bytes.truncate(start);
                return Err(Some(error));
            }
        };
        if self.open.offset + bytes.len() + format::ALIGNMENT > self.active.bytes {
            bytes.truncate(start);
            return Err(None);
        }
        format::finish_record(start, expires_ms, bytes);
        let length = bytes.len() - start;
        self.unsynced_bytes += length;
        let location = Location { segment: self.open.segment, offset: (self.open.offset + start) as u32 };
        self.open.count += 1;
        let usage = self.usage.entry(location.segment).or_default();
        usage.max_version = head.version;
        usage.table(head.table).bytes += length as u64;
        Ok(Placed { location, bytes: length as u32, expires_ms })
    }

    /// Batches that may not be on disk yet, oldest first.
    fn in_memory(&self) -> impl Iterator<Item = &Batch> {
        self.in_flight.iter().chain(&self.full).chain([&self.open])
    }

    /// The record at a location that [`Log::append`] or recovery gave.
    pub fn read(&self, location: Location) -> Result<Record<'_>, Unreadable> {
        let offset = location.offset as usize;
        let holds = |batch: &&Batch| batch.segment == location.segment && (batch.offset..batch.end()).contains(&offset);
        let record = match self.in_memory().find(holds) {
            Some(batch) => Record::decode_unchecked(&batch.bytes[offset - batch.offset..]),
            None => {
                let map = self.maps.get(&location.segment);
                map.and_then(|map| Record::decode(map.bytes().get(offset..)?))
            }
        };
        if record.is_none() && self.damage.get().is_none() {
            self.damage.set(Some(Place { segment: location.segment, offset: u64::from(location.offset) }));
        }
        record.map(|(record, _)| record).ok_or(Unreadable)
    }

    /// Shows every event that is still kept, in order, with its seq.
    pub fn history(&self, visit: &mut dyn FnMut(u64, &Record<'_>)) {
        let segments = self.sealed.iter().map(|sealed| sealed.segment).chain([self.active.segment]);
        for map in segments.filter_map(|segment| self.maps.get(&segment)) {
            let Some(header) = SegmentHeader::decode(map.bytes()) else { continue };
            let mut walk = Walk::new(header, map.bytes());
            // What is not on disk yet may be in the map in part.
            while let Some(batch) = walk.next_batch().filter(|batch| batch.header.first_seq <= self.durable_seq) {
                batch.records().for_each(|found| visit(found.seq, &found.record));
            }
        }
        for batch in self.in_memory() {
            let at = batch.header_at() + HEADER_BYTES;
            let header = BatchHeader { first_seq: batch.first_seq, ..BatchHeader::default() };
            let batch = WalkedBatch { header, at: 0, body: &batch.bytes[at..] };
            batch.records().for_each(|found| visit(found.seq, &found.record));
        }
    }

    /// Whether a segment was written by compaction.
    pub fn is_rewritten(&self, segment: u32) -> bool {
        let header = self.maps.get(&segment).and_then(|map| SegmentHeader::decode(map.bytes()));
        header.is_some_and(|header| header.rewritten.is_some())
    }

    /// Shows the events after a position, in order, until `visit` breaks off: position, place and record. A record is
    /// `None` for a look at a batch that is passed over, so that long walks can be broken off, too. `hint` is a place
    /// that was shown before, at or before `from`.
    pub fn events_after(&self, from: Position, hint: Option<Location>, visit: &mut Visit<'_>) -> ControlFlow<()> {
        let durable = Position { epoch: self.epoch, seq: self.durable_seq };
        let sealed = self.sealed.iter().map(|sealed| {
            let epoch = sealed.index.as_ref().map_or(self.epoch, |index| index.end().epoch);
            (sealed.segment, Position { epoch, seq: sealed.next_seq.saturating_sub(1) })
        });
        let on_disk = sealed.chain([(self.active.segment, durable)]).filter(|(_, last)| from < durable && *last > from);
        for (segment, _) in on_disk {
            let Some(map) = self.maps.get(&segment) else { continue };
            let Some(header) = SegmentHeader::decode(map.bytes()) else { continue };
            let mut walk = Walk::new(header, map.bytes());
            if let Some(hint) = hint.filter(|hint| hint.segment == segment) {
                walk.go_to(hint.offset as usize);
            }
            walk.pass_over(from, |position, at| visit(position, Some(Location { segment, offset: at as u32 }), None))?;
            // What is not on disk yet may be in the map in part.
            while let Some(batch) = walk.next_batch().filter(|batch| batch.header.first_seq <= self.durable_seq) {
                let place = Some(Location { segment, offset: batch.at as u32 });
                for found in batch.records() {
                    let position = Position { epoch: batch.header.epoch, seq: found.seq };
                    if position > from {
                        visit(position, place, Some(&found.record))?;
                    }
                }
            }
        }
        for batch in self.in_memory() {
            let at = batch.header_at() + HEADER_BYTES;
            let header = BatchHeader { first_seq: batch.first_seq, ..BatchHeader::default() };
            let walked = WalkedBatch { header, at: 0, body: &batch.bytes[at..] };
            for found in walked.records() {
                let position = Position { epoch: self.epoch, seq: found.seq };
                if position > from {
                    visit(position, None, Some(&found.record))?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Whether a position is a place in this log: not of another one, and not taken back by a crash.
    pub fn knows(&self, position: Position) -> bool {
        if position.epoch >= self.epoch {
            return position <= self.position();
        }
        let later = self
            .sealed
            .iter()
            .find(|sealed| sealed.index.as_ref().is_some_and(|index| index.end().epoch > position.epoch));
        position.seq < later.map_or(self.active.first_seq, |sealed| sealed.first_seq)
    }

    /// A place before everything that happened after a time (microseconds since 1970), and not long before it.
    pub fn before_time(&self, at_us: u64) -> Position {
        let earlier = self.sealed.iter().filter_map(|sealed| sealed.index.as_ref());
        let earlier = earlier.take_while(|index| index.max_version().0 <= at_us);
        earlier.last().map_or(Position::default(), |index| Position {
            epoch: index.end().epoch,
            seq: index.end().next_seq.saturating_sub(1),
        })
    }

    /// Has a job done, after those that were asked for earlier.
    pub fn enqueue(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    /// A number for a file.
    pub fn number(&mut self) -> u32 {
        self.next_segment += 1;
        self.next_segment - 1
    }

    /// What the log wants of the disk now. Called at the end of each turn, until it gives nothing.
    pub fn request(&mut self, ticks_us: u64) -> Option<StorageRequest> {
        if self.fenced || self.active.bytes == 0 {
            return None;
        }
        if let Spare::Absent { retry_at_us } = self.spare
            && ticks_us >= retry_at_us
            && (retry_at_us > 0 || self.open.end() > self.active.bytes / 4 || self.needed > 0)
        {
            self.spare = Spare::Requested;
            // On a full disk a small one will do.
            let share = if self.disk_full { 0 } else { self.bytes() / SEGMENT_SHARE };
            let bytes = share.clamp(self.sizes.first, self.sizes.max).max(self.needed + 2 * HEADER_BYTES);
            let segment = self.number();
            return Some(StorageRequest::Create { segment, bytes: bytes.next_multiple_of(4096) as u64 });
        }
        if !self.is_marking
            && self.mark_is_due().is_some_and(|at_us| ticks_us >= at_us)
            && let Some(request) = self.mark()
        {
            self.mark.1 = ticks_us;
            self.is_marking = true;
            return Some(request);
        }
        if !self.job_is_running
            && ticks_us >= self.jobs_from_us
            && let Some(job) = self.next_job(ticks_us)
        {
            self.job_is_running = true;
            self.is_rewriting = matches!(job, Job::Rewrite(_));
            self.job_again = match &job {
                Job::Remove { segments } => Some(Job::Remove { segments: segments.clone() }),
                Job::Scrub { segment, next_seq } => Some(Job::Scrub { segment: *segment, next_seq: *next_seq }),
                Job::Index { .. } | Job::Rewrite(_) => None,
            };
            return Some(StorageRequest::Job(job));
        }
        if self.in_flight.is_some() {
            return None;
        }
        if self.full.is_empty() {
            self.seal(None);
        }
        let mut batch = self.full.pop_front()?;
        self.close(&mut batch);
        let data = batch.bytes.clone();
        let request = StorageRequest::Commit { segment: batch.segment, offset: batch.offset as u64, data };
        self.in_flight = Some(batch);
        Some(request)
    }

    /// Bytes that the log takes up.
    fn bytes(&self) -> usize {
        self.maps.values().map(|map| map.bytes().len()).sum()
    }

    fn next_job(&mut self, ticks_us: u64) -> Option<Job> {
        if self.damage.get().is_some() {
            return None; // nothing is changed that may be needed for repair
        }
        // First what may give space back: on a full disk no index can be made.
        if let Some(job) = self.jobs.pop_front() {
            return Some(job);
        }
        if let Some(sealed) = self.unindexed() {
            return Some(Job::Index { segment: sealed.segment, next_seq: sealed.next_seq });
        }
        let (unread, due_us) = &mut self.scrub;
        if ticks_us < *due_us {
            return None;
        }
        // Compaction has read those that are gone.
        let found = |segment| self.sealed.iter().find(|sealed| sealed.segment == segment);
        let sealed = std::iter::from_fn(|| unread.pop_front()).find_map(found)?;
        *due_us = ticks_us + SCRUB_INTERVAL_US;
        Some(Job::Scrub { segment: sealed.segment, next_seq: sealed.next_seq })
    }

    /// When the mark file is to be refreshed; `None`: it says what there is to say.
    fn mark_is_due(&self) -> Option<u64> {
        (self.mark.0.durable_seq < self.durable_seq).then_some(self.mark.1 + MARK_INTERVAL_US)
    }

    /// Refreshes the mark file; `None`: it says what there is to say.
    pub fn mark(&self) -> Option<StorageRequest> {
        self.mark_is_due()?;
        let mark = Mark { durable_seq: self.durable_seq, slot: 1 - self.mark.0.slot };
        Some(StorageRequest::Mark { shard: self.shard, mark })
    }

    /// A sealed segment that is on disk and has no index yet.
    fn unindexed(&self) -> Option<&Sealed> {
        if self.without_index == 0 {
            return None; // asked in every turn, and there may be thousands
        }
        self.sealed.iter().find(|sealed| !sealed.is_indexed && sealed.next_seq <= self.durable_seq + 1)
    }

    /// Whether a rewrite is running, or waits for its turn.
    pub fn rewrites(&self) -> bool {
        self.is_rewriting || self.jobs.iter().any(|job| matches!(job, Job::Rewrite(_)))
    }

    /// Writes the headers of a batch that is about to be flushed.
    fn close(&mut self, batch: &mut Batch) {
        let at = batch.header_at();
        let bytes = Arc::get_mut(&mut batch.bytes).expect("a batch is shared only while it is flushed");
        let body = &bytes[at + HEADER_BYTES..];
        let header = BatchHeader {
            shard: self.shard,
            count: batch.count,
            body_bytes: body.len() as u32,
            salt: batch.salt,
            first_seq: batch.first_seq,
            durable_seq: self.durable_seq,
            epoch: self.epoch,
            previous_checksum: self.previous_checksum,
            body_checksum: crc32c::crc32c(body),
        };
        let (encoded, checksum) = header.encode();
        bytes[at..at + HEADER_BYTES].copy_from_slice(&encoded);
        if at > 0 {
            let segment = SegmentHeader {
                shard: self.shard,
                segment: batch.segment,
                epoch: self.epoch,
                salt: batch.salt,
                first_seq: batch.first_seq,
                previous_checksum: self.previous_checksum,
                rewritten: None,
            };
            bytes[..HEADER_BYTES].copy_from_slice(&segment.encode());
        }
        self.previous_checksum = checksum;
    }

    /// The disk has answered. A failed flush fences the log: what waited is never acknowledged.
    ///
    /// Gives what a compaction has made: the shard moves its records there.
    pub fn complete(&mut self, completion: StorageCompletion, ticks_us: u64) -> io::Result<Option<RewriteDone>> {
        match completion {
            StorageCompletion::Created { segment, result: Ok(map) } => {
                self.disk_full = false;
                self.needed = 0;
                self.spare = Spare::Ready { segment, bytes: map.bytes().len() };
                self.maps.insert(segment, map);
                Ok(None)
            }
            StorageCompletion::Created { result: Err(error), .. } => {
                self.disk_full = recover::is_full(&error);
                self.spare = Spare::Absent { retry_at_us: ticks_us + SEGMENT_RETRY_US };
                Err(error)
            }
            StorageCompletion::Committed(Err(error)) => {
                self.fenced = true;
                Err(error)
            }
            StorageCompletion::Committed(Ok(())) => {
                if let Some(batch) = self.in_flight.take() {
                    self.durable_seq = batch.last_seq();
                    self.unsynced_bytes = self.unsynced_bytes.saturating_sub(batch.body_bytes());
                    if let Ok(bytes) = Arc::try_unwrap(batch.bytes) {
                        self.recycled = bytes;
                    }
                }
                Ok(None)
            }
            StorageCompletion::Marked(result) => {
                self.is_marking = false;
                self.mark.0 = result?;
                Ok(None)
            }
            StorageCompletion::Done(result) => {
                self.job_is_running = false;
                self.is_rewriting = false;
                let again = self.job_again.take();
                let failed = |_: &io::Error| {
                    self.jobs_from_us = ticks_us + SEGMENT_RETRY_US;
                    again.into_iter().for_each(|job| self.jobs.push_front(job));
                };
                match result.inspect_err(failed)? {
                    Done::Indexed { segment, index } => {
                        if let Some(sealed) = self.sealed.iter_mut().find(|sealed| sealed.segment == segment) {
                            sealed.index = Some(index);
                            sealed.is_indexed = true;
                            self.without_index -= 1;
                        }
                    }
                    Done::Damaged(place) => self.damage.set(Some(place)),
                    Done::Rewritten(done) => return Ok(Some(done)),
                    Done::Removed | Done::Scrubbed => {}
                }
                Ok(None)
            }
        }
    }

    /// Puts a rewritten segment into the place of those that it replaces. These stay readable until [`Log::drop_replaced`].
    /// False: they are not there, and nothing was changed.
    pub fn replace(&mut self, done: RewriteDone) -> bool {
        let RewriteDone { segment, sources, map, index, .. } = done;
        let end: SegmentEnd = *index.end();
        let Some(at) = self.sealed.iter().position(|sealed| sources.first() == Some(&sealed.segment)) else {
            return false;
        };
        let replaced = self.sealed[at..].iter().take(sources.len()).map(|sealed| sealed.segment);
        if !replaced.eq(sources.iter().copied()) {
            return false;
        }
        let usage = self.usage.entry(segment).or_default();
        usage.max_version = index.max_version();
        index.tables().for_each(|(table, bytes)| usage.table(table).bytes = bytes);
        self.maps.insert(segment, map);
        self.sealed.retain(|sealed| !sources.contains(&sealed.segment));
        let (first_seq, next_seq) = (end.first_seq, end.next_seq);
        self.sealed.insert(at, Sealed { segment, first_seq, next_seq, index: Some(index), is_indexed: true });
        true
    }

    /// Nothing points at these segments any more.
    pub fn drop_replaced(&mut self, segments: Vec<u32>) {
        segments.iter().for_each(|segment| self.forget(*segment));
        self.jobs.push_back(Job::Remove { segments });
    }

    /// Whether everything that was appended is on disk.
    pub fn is_clean(&self) -> bool {
        self.durable_seq + 1 == self.next_seq()
    }

    /// Whether the next segment is there already.
    pub fn has_spare(&self) -> bool {
        matches!(self.spare, Spare::Ready { .. })
    }

    /// When a turn is due though nothing happens.
    pub fn deadline_us(&self) -> Option<u64> {
        let retry = match self.spare {
            Spare::Absent { retry_at_us } if retry_at_us > 0 => Some(retry_at_us),
            _ => None,
        };
        if self.fenced {
            return None;
        }
        let mark = self.mark_is_due().filter(|_| !self.is_marking);
        let may_work = !self.job_is_running && self.damage.get().is_none();
        let has_job = !self.jobs.is_empty() || self.unindexed().is_some();
        let scrub = (!self.scrub.0.is_empty()).then_some(self.scrub.1);
        let jobs = if has_job { Some(self.jobs_from_us) } else { scrub.map(|at_us| at_us.max(self.jobs_from_us)) };
        [retry, mark, jobs.filter(|_| may_work)].into_iter().flatten().min()
    }
}
