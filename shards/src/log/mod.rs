//! The append log of one shard: records gather in the open batch; a flush writes and syncs it while the next batch
//! fills (group commit with no timer); bytes not yet written are read from the batches in memory, all others through
//! read-only maps. `format.rs` has the bytes, `recover.rs` what happens at start.

pub mod format;
pub mod map;
pub mod recover;

use crate::clock::Version;
use crate::limits::{
    BATCH_BYTES_MAX, SEGMENT_BYTES_FIRST, SEGMENT_BYTES_MAX, SEGMENT_GROWTH, SEGMENT_RETRY_US, UNSYNCED_BYTES_MAX,
};
use crate::schema::TableId;
use crate::storage::{SegmentMap, StorageCompletion, StorageRequest};
use format::{BatchHeader, HEADER_BYTES, RECORD_HEADER_BYTES, Record, RecordKind, SegmentHeader};
use std::collections::{BTreeMap, VecDeque};
use std::io;
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
}

enum Spare {
    Absent { retry_at_us: u64 },
    Requested,
    Ready { segment: u32, bytes: usize },
}

pub struct Log {
    shard: u16,
    epoch: u32,
    maps: BTreeMap<u32, Box<dyn SegmentMap>>,
    active: Active,
    spare: Spare,
    disk_full: bool,
    fenced: bool,
    open: Batch,
    sealed: VecDeque<Batch>,
    in_flight: Option<Batch>,
    /// A buffer that was flushed, for the next batch.
    recycled: Vec<u8>,
    unsynced_bytes: usize,
    durable_seq: u64,
    previous_checksum: u32,
    segment_bytes_max: usize,
    /// Bytes of a record that waits for a segment of its size; 0: none does.
    needed: usize,
}

/// What recovery hands to a log that starts appending.
pub struct Start {
    pub shard: u16,
    pub epoch: u32,
    pub next_seq: u64,
    pub previous_checksum: u32,
    pub maps: BTreeMap<u32, Box<dyn SegmentMap>>,
    /// A fresh segment whose header is on disk already.
    pub segment: u32,
    pub segment_bytes: usize,
    pub salt: u64,
}

impl Log {
    pub fn new(start: Start, packet_bytes_max: usize) -> Log {
        let open = Batch {
            segment: start.segment,
            offset: HEADER_BYTES,
            bytes: Arc::new(vec![0; HEADER_BYTES]),
            first_seq: start.next_seq,
            count: 0,
            salt: start.salt,
        };
        Log {
            shard: start.shard,
            epoch: start.epoch,
            maps: start.maps,
            active: Active { segment: start.segment, bytes: start.segment_bytes },
            spare: Spare::Absent { retry_at_us: 0 },
            disk_full: false,
            fenced: false,
            open,
            sealed: VecDeque::new(),
            in_flight: None,
            recycled: Vec::new(),
            unsynced_bytes: 0,
            durable_seq: start.next_seq - 1,
            previous_checksum: start.previous_checksum,
            segment_bytes_max: SEGMENT_BYTES_MAX.max(4 * packet_bytes_max),
            needed: 0,
        }
    }

    /// The size of a first segment where packets may be `packet_bytes_max` long.
    pub fn first_segment_bytes(packet_bytes_max: usize) -> usize {
        SEGMENT_BYTES_FIRST.max(4 * packet_bytes_max)
    }

    /// The position of the newest event.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.next_seq() - 1 }
    }

    fn next_seq(&self) -> u64 {
        self.open.first_seq + u64::from(self.open.count)
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
        if self.unsynced_bytes > UNSYNCED_BYTES_MAX {
            return Room::Wait;
        }
        let needed = RECORD_HEADER_BYTES + bytes + format::ALIGNMENT;
        if needed + 2 * HEADER_BYTES > self.segment_bytes_max {
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
            _ if self.disk_full => Room::Full,
            _ => {
                self.needed = needed;
                Room::Wait
            }
        }
    }

    /// Closes the open batch and opens the next one, in segment `roll` if given.
    fn seal(&mut self, roll: Option<(u32, usize)>) {
        let next_seq = self.next_seq();
        let end = self.open.end();
        let (segment, offset, salt) = match roll {
            Some((segment, bytes)) => {
                self.active = Active { segment, bytes };
                // Any change will do: the salt only has to differ from what may lie in recycled blocks.
                (segment, 0, self.open.salt.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1))
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
            self.sealed.push_back(full);
        }
    }

    /// Appends a record; `document` writes the document behind the head. Where it fails, nothing was appended; `None`:
    /// it has become larger than the room that the caller asked for with [`Log::room`], and does not fit.
    pub fn append<E>(
        &mut self,
        kind: RecordKind,
        table: TableId,
        version: Version,
        key: &[u8],
        document: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Location, Option<E>> {
        let bytes = Arc::get_mut(&mut self.open.bytes).expect("a batch is shared only while it is flushed");
        let start = bytes.len();
        format::begin_record(kind, table, version, key, bytes);
        if let Err(error) = document(bytes) {
            bytes.truncate(start);
            return Err(Some(error));
        }
        if self.open.offset + bytes.len() + format::ALIGNMENT > self.active.bytes {
            bytes.truncate(start);
            return Err(None);
        }
        format::finish_record(start, key.len(), bytes);
        self.unsynced_bytes += bytes.len() - start;
        let location = Location { segment: self.open.segment, offset: (self.open.offset + start) as u32 };
        self.open.count += 1;
        Ok(location)
    }

    /// The record at a location that [`Log::append`] or recovery gave.
    pub fn read(&self, location: Location) -> Option<Record<'_>> {
        let offset = location.offset as usize;
        let in_memory = [Some(&self.open), self.in_flight.as_ref()].into_iter().flatten().chain(&self.sealed);
        for batch in in_memory {
            if batch.segment == location.segment && (batch.offset..batch.end()).contains(&offset) {
                return Record::decode(&batch.bytes[offset - batch.offset..]).map(|(record, _)| record);
            }
        }
        let map = self.maps.get(&location.segment)?;
        Record::decode(map.bytes().get(offset..)?).map(|(record, _)| record)
    }

    /// What the log wants of the disk now. Called at the end of each turn, until it gives nothing.
    pub fn request(&mut self, ticks_us: u64) -> Option<StorageRequest> {
        if self.fenced {
            return None;
        }
        if let Spare::Absent { retry_at_us } = self.spare
            && ticks_us >= retry_at_us
            && (self.open.end() > self.active.bytes / 4 || self.needed > 0)
        {
            self.spare = Spare::Requested;
            let grown = (self.active.bytes * SEGMENT_GROWTH).max((self.needed + 2 * HEADER_BYTES).next_power_of_two());
            let bytes = grown.min(self.segment_bytes_max) as u64;
            self.needed = 0;
            return Some(StorageRequest::Create { segment: self.active.segment + 1, bytes });
        }
        if self.in_flight.is_some() {
            return None;
        }
        if self.sealed.is_empty() {
            self.seal(None);
        }
        let mut batch = self.sealed.pop_front()?;
        self.close(&mut batch);
        let data = batch.bytes.clone();
        let request = StorageRequest::Commit { segment: batch.segment, offset: batch.offset as u64, data };
        self.in_flight = Some(batch);
        Some(request)
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
            };
            bytes[..HEADER_BYTES].copy_from_slice(&segment.encode());
        }
        self.previous_checksum = checksum;
    }

    /// The disk has answered. A failed flush fences the log: what waited is never acknowledged.
    pub fn complete(&mut self, completion: StorageCompletion, ticks_us: u64) -> io::Result<()> {
        match completion {
            StorageCompletion::Created { segment, result: Ok(map) } => {
                self.disk_full = false;
                self.spare = Spare::Ready { segment, bytes: map.bytes().len() };
                self.maps.insert(segment, map);
                Ok(())
            }
            StorageCompletion::Created { result: Err(error), .. } => {
                self.disk_full = true;
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
                Ok(())
            }
        }
    }

    /// Whether everything that was appended is on disk.
    pub fn is_clean(&self) -> bool {
        self.durable_seq + 1 == self.next_seq()
    }

    /// Whether the next segment is there already.
    pub fn has_spare(&self) -> bool {
        matches!(self.spare, Spare::Ready { .. })
    }

    /// Whether a full disk is what keeps a new segment from being made: the time of the next attempt.
    pub fn retry_at_us(&self) -> Option<u64> {
        match self.spare {
            Spare::Absent { retry_at_us } if self.disk_full => Some(retry_at_us),
            _ => None,
        }
    }
}
