//! Segments as a whole: reading the batches of one in order, and writing one anew (compaction, repair, re-sharding).

use super::format::{
    ALIGNMENT, BATCH_MAGIC, BatchHeader, HEADER_BYTES, RECORD_HEADER_BYTES, Record, Rewritten, SegmentHeader,
    set_skipped, u32_at,
};
use super::index::{IndexBuilder, SegmentEnd};
use super::{Location, Position};
use crate::clock::Version;
use crate::limits::REWRITE_BYTES;
use crate::storage::{FileName, Storage};
use std::io;
use std::ops::ControlFlow;

/// The batches of one segment, in order, as far as they are sound and continue the chain.
pub struct Walk<'a> {
    bytes: &'a [u8],
    pub header: SegmentHeader,
    /// Where the next batch would stand.
    pub at: usize,
    /// Behind the last sound batch. Of a rewritten segment that was walked to its end: what its header says.
    pub next_seq: u64,
    pub checksum: u32,
    /// The highest that a batch names.
    pub durable_seq: u64,
    pub epoch: u32,
}

/// A sound batch.
pub struct WalkedBatch<'a> {
    pub header: BatchHeader,
    /// Where its header stands.
    pub at: usize,
    pub body: &'a [u8],
}

/// A record where it was found.
pub struct Found<'a> {
    pub seq: u64,
    /// In the segment.
    pub offset: u32,
    pub bytes: &'a [u8],
    pub record: Record<'a>,
}

impl<'a> Walk<'a> {
    pub fn new(header: SegmentHeader, bytes: &'a [u8]) -> Walk<'a> {
        Walk {
            bytes,
            header,
            at: HEADER_BYTES,
            next_seq: header.first_seq,
            checksum: header.previous_checksum,
            durable_seq: header.first_seq.saturating_sub(1),
            epoch: header.epoch,
        }
    }

    fn batch_at(&self, at: usize) -> Option<(WalkedBatch<'a>, u32)> {
        let (header, checksum) = BatchHeader::decode(self.bytes.get(at..)?)?;
        let start = at + HEADER_BYTES;
        let body = self.bytes.get(start..start.checked_add(header.body_bytes as usize)?)?;
        let own = header.shard == self.header.shard && header.salt == self.header.salt;
        (own && crc32c::crc32c(body) == header.body_checksum).then_some((WalkedBatch { header, at, body }, checksum))
    }

    /// Goes on at a batch that was seen before. From there on only the batches themselves are checked.
    pub fn go_to(&mut self, at: usize) {
        if let Some((header, _)) = self.bytes.get(at..).and_then(BatchHeader::decode) {
            (self.at, self.next_seq, self.checksum) = (at, header.first_seq, header.previous_checksum);
        }
    }

    /// Passes over batches whose events all lie at or before a position, by their headers alone; `look` is shown the
    /// position before each batch that is begun, and where it stands.
    pub fn pass_over(
        &mut self,
        upto: Position,
        mut look: impl FnMut(Position, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        while let Some((header, checksum)) = self.bytes.get(self.at..).and_then(BatchHeader::decode) {
            let next_at = self.at + HEADER_BYTES + header.body_bytes as usize;
            let Some((next, _)) = self.bytes.get(next_at..).and_then(BatchHeader::decode) else { break };
            let before = Position { epoch: next.epoch, seq: next.first_seq.saturating_sub(1) };
            let is_own = next.salt == self.header.salt && next.previous_checksum == checksum;
            if !is_own || before > upto || header.epoch > upto.epoch {
                break;
            }
            (self.at, self.next_seq, self.checksum) = (next_at, next.first_seq, checksum);
            look(before, next_at)?;
        }
        ControlFlow::Continue(())
    }

    /// The next batch; `None` at the end of the segment or at damage.
    pub fn next_batch(&mut self) -> Option<WalkedBatch<'a>> {
        let (batch, checksum) = self.batch_at(self.at)?;
        let in_order = match self.header.rewritten {
            None => batch.header.first_seq == self.next_seq,
            Some(rewritten) => (self.next_seq..rewritten.next_seq).contains(&batch.header.first_seq),
        };
        if !in_order || batch.header.previous_checksum != self.checksum {
            return None;
        }
        let next_seq = batch.next_seq()?;
        self.next_seq = next_seq;
        self.checksum = checksum;
        self.durable_seq = self.durable_seq.max(batch.header.durable_seq);
        self.epoch = batch.header.epoch;
        self.at = batch.at + HEADER_BYTES + batch.body.len();
        Some(batch)
    }

    /// The next batch that is sound in itself, behind any damage and whatever the chain says: for repair.
    pub fn salvage_batch(&mut self) -> Option<WalkedBatch<'a>> {
        while self.at + HEADER_BYTES <= self.bytes.len() {
            if u32_at(self.bytes, self.at) == BATCH_MAGIC
                && let Some((batch, _)) = self.batch_at(self.at)
                && batch.header.first_seq >= self.next_seq
                && let Some(next_seq) = batch.next_seq()
            {
                self.next_seq = next_seq;
                self.epoch = batch.header.epoch;
                self.durable_seq = self.durable_seq.max(batch.header.durable_seq);
                self.at = batch.at + HEADER_BYTES + batch.body.len();
                return Some(batch);
            }
            self.at += ALIGNMENT;
        }
        None
    }

    /// Walks to the end. False: a rewritten segment is damaged at `at`. An appended one ends where its batches end.
    pub fn finish(&mut self) -> bool {
        match self.header.rewritten {
            None => true,
            Some(rewritten) => {
                let whole = self.at == rewritten.bytes as usize && self.at == self.bytes.len();
                if whole {
                    self.next_seq = rewritten.next_seq;
                    self.checksum = rewritten.last_checksum;
                    self.durable_seq = self.durable_seq.max(rewritten.next_seq.saturating_sub(1));
                    self.epoch = self.header.epoch; // of the last one that it replaces, all of which may have gone
                }
                whole
            }
        }
    }

    pub fn end(&self) -> SegmentEnd {
        SegmentEnd {
            shard: self.header.shard,
            segment: self.header.segment,
            salt: self.header.salt,
            first_seq: self.header.first_seq,
            next_seq: self.next_seq,
            durable_seq: self.durable_seq,
            last_checksum: self.checksum,
            end: self.at as u32,
            epoch: self.epoch,
        }
    }
}

impl<'a> WalkedBatch<'a> {
    pub fn records(&self) -> impl Iterator<Item = Found<'a>> + use<'a> {
        let (body, start) = (self.body, self.at + HEADER_BYTES);
        let (mut offset, mut seq, mut is_first) = (0, self.header.first_seq, true);
        std::iter::from_fn(move || {
            let (record, length) = Record::decode_unchecked(&body[offset..])?;
            if !std::mem::replace(&mut is_first, false) {
                seq = seq.saturating_add(1 + u64::from(record.skipped));
            }
            let found = Found { seq, offset: (start + offset) as u32, bytes: &body[offset..offset + length], record };
            offset += length;
            Some(found)
        })
    }

    /// Seq of the event behind the batch; `None`: its records are not what the header says.
    fn next_seq(&self) -> Option<u64> {
        let (mut count, mut bytes, mut last) = (0, 0, 0);
        for found in self.records() {
            count += 1;
            bytes += found.bytes.len();
            last = found.seq;
        }
        (count == self.header.count && count > 0 && bytes == self.body.len()).then(|| last.checked_add(1))?
    }
}

/// Writes a rewritten segment and its index, a piece at a time, under the name of [`FileName::Staged`] until it is whole.
pub struct Rewriter<'a> {
    storage: &'a dyn Storage,
    header: SegmentHeader,
    /// What is not written yet stands at offset `written` of the file.
    buffer: Vec<u8>,
    written: usize,
    open: Option<OpenBatch>,
    checksum: u32,
    /// Known to be on disk: what was dropped here relies on it.
    durable_seq: u64,
    index: IndexBuilder,
}

struct OpenBatch {
    /// In the buffer.
    at: usize,
    first_seq: u64,
    last_seq: u64,
    count: u32,
    epoch: u32,
}

impl<'a> Rewriter<'a> {
    /// `header.rewritten` is filled in at the end. `durable_seq` is known to be on disk: records may be left out because
    /// of newer ones up to there.
    pub fn new(storage: &'a dyn Storage, header: SegmentHeader, durable_seq: u64) -> io::Result<Rewriter<'a>> {
        begin_staged(storage)?;
        Ok(Rewriter {
            storage,
            header,
            buffer: vec![0; HEADER_BYTES],
            written: 0,
            open: None,
            checksum: header.previous_checksum,
            durable_seq,
            index: IndexBuilder::default(),
        })
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.written + self.buffer.len()
    }

    /// What was read so far is as new as this, whatever is kept of it.
    pub fn observe(&mut self, version: Version) {
        self.index.observe(version);
    }

    /// Adds a record as it stood in another segment; they come in the order of their seq. Gives its place.
    pub fn push(&mut self, seq: u64, epoch: u32, bytes: &[u8]) -> io::Result<Location> {
        let fits = |open: &OpenBatch| {
            open.epoch == epoch
                && self.buffer.len() - open.at < REWRITE_BYTES
                && seq - open.last_seq <= u64::from(u32::MAX)
        };
        if !self.open.as_ref().is_some_and(fits) {
            self.close_batch()?;
            let at = self.buffer.len();
            self.buffer.resize(at + HEADER_BYTES, 0);
            self.open = Some(OpenBatch { at, first_seq: seq, last_seq: seq, count: 0, epoch });
        }
        let Some(open) = self.open.as_mut() else { return Err(io::Error::other("no batch is open")) };
        let at = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        let skipped = if open.count == 0 { 0 } else { (seq - open.last_seq - 1) as u32 };
        let record = &mut self.buffer[at..];
        if u32_at(record, 24) != skipped {
            set_skipped(record, skipped);
        }
        open.last_seq = seq;
        open.count += 1;
        let offset = (self.written + at) as u32;
        if let Some((record, length)) = Record::decode_unchecked(&self.buffer[at..]) {
            self.index.push(&record, offset, length as u32);
        }
        Ok(Location { segment: self.header.segment, offset })
    }

    fn close_batch(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let body = &self.buffer[open.at + HEADER_BYTES..];
        let header = BatchHeader {
            shard: self.header.shard,
            count: open.count,
            body_bytes: body.len() as u32,
            salt: self.header.salt,
            first_seq: open.first_seq,
            durable_seq: self.durable_seq.max(open.last_seq),
            epoch: open.epoch,
            previous_checksum: self.checksum,
            body_checksum: crc32c::crc32c(body),
        };
        let (encoded, checksum) = header.encode();
        self.buffer[open.at..open.at + HEADER_BYTES].copy_from_slice(&encoded);
        self.checksum = checksum;
        if self.buffer.len() >= REWRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.storage.write_behind(FileName::Staged, self.written as u64, &self.buffer)?;
            self.written += self.buffer.len();
            self.buffer.clear();
        }
        Ok(())
    }

    /// Gives the segment its name, then its index. `next_seq`, `last_checksum` and `epoch` are those of the last segment
    /// that it replaces.
    pub fn finish(mut self, next_seq: u64, last_checksum: u32, epoch: u32) -> io::Result<()> {
        self.close_batch()?;
        self.flush()?;
        let bytes = self.written as u32;
        let names_durable = bytes as usize > HEADER_BYTES;
        self.header.epoch = epoch;
        self.header.rewritten = Some(Rewritten { bytes, next_seq, last_checksum });
        self.storage.write(FileName::Staged, 0, &self.header.encode())?;
        self.storage.rename(FileName::Staged, FileName::Segment(self.header.segment))?;
        let end = SegmentEnd {
            shard: self.header.shard,
            segment: self.header.segment,
            salt: self.header.salt,
            first_seq: self.header.first_seq,
            next_seq,
            durable_seq: if names_durable { self.durable_seq.max(next_seq - 1) } else { next_seq - 1 },
            last_checksum,
            end: bytes,
            epoch,
        };
        write_index(self.storage, self.header.segment, &self.index.finish(&end))
    }
}

/// Writes the index of a segment, whole or not at all.
pub fn write_index(storage: &dyn Storage, segment: u32, bytes: &[u8]) -> io::Result<()> {
    begin_staged(storage)?;
    storage.write_behind(FileName::Staged, 0, bytes)?;
    storage.write(FileName::Staged, 0, &[])?;
    storage.rename(FileName::Staged, FileName::Index(segment))
}

/// What was left of an earlier one must not shine through.
fn begin_staged(storage: &dyn Storage) -> io::Result<()> {
    match storage.remove(FileName::Staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

const _: () = assert!(RECORD_HEADER_BYTES > 24 + 4, "the field that `push` looks at is in the header");
