//! Reading a segment behind damage. Every batch header has its own checksum and the salt of its segment, every record
//! its own checksum: what is found sound is taken, wherever the damage begins and ends.
//!
//! Of a batch whose header is sound and whose body is not, the records before the first broken one are taken; in an
//! appended segment, where each event has a record, also those behind the last broken one, counted from the end.

use shards::log::format::{ALIGNMENT, BATCH_MAGIC, BatchHeader, HEADER_BYTES, Record, SegmentHeader};
use std::collections::BTreeMap;
use std::ops::Range;

/// A batch whose header is sound.
pub struct Batch<'a> {
    pub header: BatchHeader,
    /// Of the header, for the chain.
    pub checksum: u32,
    /// Where the header stands.
    pub at: usize,
    /// As much of it as the file holds.
    pub body: &'a [u8],
    /// The body is what was written.
    pub is_sound: bool,
}

impl Batch<'_> {
    pub fn end(&self) -> usize {
        self.at + HEADER_BYTES + self.body.len()
    }
}

/// A part of a segment, in order.
pub enum Part<'a> {
    Batch(Batch<'a>),
    /// Neither a batch nor zeros up to the end of the file.
    Unreadable(Range<usize>),
}

/// The parts of a segment from `at` on. `salt`: only batches of this segment.
pub fn parts(bytes: &[u8], at: usize, shard: u16, salt: Option<u64>) -> impl Iterator<Item = Part<'_>> {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut at = at;
    let mut found: Option<Batch<'_>> = None;
    std::iter::from_fn(move || {
        if let Some(batch) = found.take() {
            return Some(Part::Batch(batch));
        }
        let start = at;
        while at < used {
            match batch_at(bytes, at, shard, salt) {
                Some(batch) => {
                    let begin = at;
                    at = batch.end();
                    if begin == start {
                        return Some(Part::Batch(batch));
                    }
                    found = Some(batch);
                    return Some(Part::Unreadable(start..begin));
                }
                None => at += ALIGNMENT,
            }
        }
        (start < used).then_some(Part::Unreadable(start..used))
    })
}

fn batch_at(bytes: &[u8], at: usize, shard: u16, salt: Option<u64>) -> Option<Batch<'_>> {
    let rest = bytes.get(at..)?;
    if !rest.starts_with(&BATCH_MAGIC.to_le_bytes()) {
        return None;
    }
    let (header, checksum) = BatchHeader::decode(rest)?;
    if header.shard != shard || salt.is_some_and(|salt| salt != header.salt) {
        return None;
    }
    let body = &rest[HEADER_BYTES..];
    let body = &body[..body.len().min(header.body_bytes as usize)];
    let is_sound = body.len() == header.body_bytes as usize
        && crc32c::crc32c(body) == header.body_checksum
        && records(body, header.first_seq).fold((0, 0), |(count, bytes), it| (count + 1, bytes + it.bytes.len()))
            == (header.count as usize, body.len());
    Some(Batch { header, checksum, at, body, is_sound })
}

/// A record of a run of them.
pub struct Numbered<'a> {
    pub seq: u64,
    /// In the run.
    pub offset: usize,
    pub bytes: &'a [u8],
    pub record: Record<'a>,
}

/// The records from the start of `bytes` to the first one that is broken. The first one has `first_seq`.
pub fn records(bytes: &[u8], first_seq: u64) -> impl Iterator<Item = Numbered<'_>> {
    let (mut offset, mut seq) = (0, None);
    std::iter::from_fn(move || {
        let (record, length) = Record::decode(bytes.get(offset..)?)?;
        let own = match seq {
            None => first_seq,
            Some(before) => u64::checked_add(before, 1 + u64::from(record.skipped))?,
        };
        seq = Some(own);
        let numbered = Numbered { seq: own, offset, bytes: &bytes[offset..offset + length], record };
        offset += length;
        Some(numbered)
    })
}

/// Records that stand one behind the other, and whose seqs are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub first_seq: u64,
    /// Behind the last one.
    pub next_seq: u64,
    pub epoch: u32,
    /// Where they stand.
    pub bytes: Range<usize>,
}

/// A part that cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Area {
    pub bytes: Range<usize>,
    /// The events in it, as far as the sound parts around it say so.
    pub first_seq: u64,
    pub next_seq: Option<u64>,
}

/// What can be read of a segment.
#[derive(Default)]
pub struct Salvage {
    /// In the order in which they stand there.
    pub runs: Vec<Run>,
    pub areas: Vec<Area>,
    /// Seqs about which everything is known: those of the runs, and of a rewritten segment those between them that were
    /// dropped when it was written.
    pub covered: Vec<Range<u64>>,
    /// The highest durable seq that it names.
    pub durable_seq: u64,
}

impl Salvage {
    /// Whether the record that stands at this offset was read.
    pub fn holds(&self, offset: usize) -> bool {
        self.runs.iter().any(|run| run.bytes.contains(&offset))
    }

    /// Seq behind the highest one that was read.
    pub fn next_seq(&self) -> u64 {
        self.runs.iter().map(|run| run.next_seq).max().unwrap_or(0)
    }

    fn take(&mut self, run: Run) {
        if run.first_seq < run.next_seq {
            self.covered.push(run.first_seq..run.next_seq);
            self.runs.push(run);
        }
    }
}

/// Reads all that is sound of a segment. `header`: its own, if it is sound. `salt`: of the segment, where it is known
/// from elsewhere.
pub fn salvage(bytes: &[u8], shard: u16, header: Option<SegmentHeader>, salt: Option<u64>) -> Salvage {
    let salt = header.map(|header| header.salt).or(salt).or_else(|| likely_salt(bytes, shard));
    let rewritten = header.and_then(|header| header.rewritten);
    let mut salvage = Salvage::default();
    let mut expected = header.map_or(0, |header| header.first_seq);
    // Nothing is missing between the last part that was read and this one.
    let mut contiguous = header.is_some();
    for part in parts(bytes, if header.is_some() { HEADER_BYTES } else { 0 }, shard, salt) {
        let batch = match part {
            Part::Unreadable(bytes) => {
                salvage.areas.push(Area { bytes, first_seq: expected, next_seq: None });
                contiguous = false;
                continue;
            }
            Part::Batch(batch) => batch,
        };
        let own = &batch.header;
        salvage.durable_seq = salvage.durable_seq.max(own.durable_seq);
        if let Some(area) = salvage.areas.last_mut() {
            area.next_seq.get_or_insert(own.first_seq.max(area.first_seq));
        }
        if contiguous && rewritten.is_some() && expected < own.first_seq {
            salvage.covered.push(expected..own.first_seq);
        }
        let body_at = batch.at + HEADER_BYTES;
        let last = records(batch.body, own.first_seq).last();
        let (front, front_seq) = last.map_or((0, own.first_seq), |it| (it.offset + it.bytes.len(), it.seq + 1));
        let run = |first_seq, next_seq, bytes: Range<usize>| Run {
            first_seq,
            next_seq,
            epoch: own.epoch,
            bytes: body_at + bytes.start..body_at + bytes.end,
        };
        salvage.take(run(own.first_seq, front_seq, 0..front));
        expected = front_seq;
        contiguous = batch.is_sound;
        if !batch.is_sound {
            let next_seq = own.first_seq.saturating_add(u64::from(own.count));
            let is_complete = batch.body.len() == own.body_bytes as usize;
            let back = if is_complete && rewritten.is_none() { back(batch.body, front) } else { None };
            let broken = body_at + front..body_at + back.as_ref().map_or(batch.body.len(), |back| back.0);
            let back_seq = back.map(|(at, count)| (at, next_seq.saturating_sub(count)));
            let back_seq = back_seq.filter(|(_, first)| *first >= front_seq);
            let area_end = back_seq.map(|(_, first)| first).or(rewritten.is_none().then_some(next_seq));
            salvage.areas.push(Area { bytes: broken, first_seq: front_seq, next_seq: area_end });
            if let Some((at, first_seq)) = back_seq {
                salvage.take(run(first_seq, next_seq, at..batch.body.len()));
            }
            expected = if rewritten.is_none() { next_seq } else { front_seq };
        }
    }
    if let Some(rewritten) = rewritten {
        let is_whole = bytes.len() == rewritten.bytes as usize;
        if !is_whole {
            let bytes = bytes.len().min(rewritten.bytes as usize)..bytes.len();
            salvage.areas.push(Area { bytes, first_seq: expected, next_seq: Some(rewritten.next_seq) });
        } else if contiguous && expected < rewritten.next_seq {
            salvage.covered.push(expected..rewritten.next_seq);
        }
    }
    salvage
}

/// Records at the end of a body, behind its last broken one: where they begin, and how many they are.
fn back(body: &[u8], from: usize) -> Option<(usize, u64)> {
    let starts = (from.next_multiple_of(ALIGNMENT)..body.len()).step_by(ALIGNMENT);
    starts.filter(|at| Record::decode(&body[*at..]).is_some()).find_map(|at| {
        let (mut end, mut count) = (at, 0);
        for it in records(&body[at..], 0) {
            (end, count) = (at + it.offset + it.bytes.len(), count + 1);
        }
        (end == body.len()).then_some((at, count))
    })
}

/// The salt that most batches of a segment without a header have.
fn likely_salt(bytes: &[u8], shard: u16) -> Option<u64> {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for part in parts(bytes, 0, shard, None) {
        if let Part::Batch(batch) = part {
            *counts.entry(batch.header.salt).or_default() += 1;
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(salt, _)| salt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shards::clock::Version;
    use shards::log::format::{RecordHead, RecordKind, begin_record, finish_record};
    use shards::schema::TableId;

    const SALT: u64 = 77;

    /// A segment of batches of five records each, and where each batch begins.
    fn segment(batches: u64) -> (Vec<u8>, Vec<usize>) {
        let header = SegmentHeader {
            shard: 1,
            segment: 1,
            epoch: 1,
            salt: SALT,
            first_seq: 1,
            previous_checksum: 0,
            rewritten: None,
        };
        let mut bytes = header.encode().to_vec();
        let (mut starts, mut previous_checksum) = (Vec::new(), 0);
        for batch in 0..batches {
            let mut body = Vec::new();
            for record in 0..5 {
                let start = body.len();
                let key = format!("key {batch} {record}");
                let head = RecordHead {
                    kind: RecordKind::Put,
                    table: TableId(0),
                    version: Version(1),
                    may_expire: false,
                    qos: 0,
                    publisher: 0,
                    key: key.as_bytes(),
                    properties: &[],
                };
                begin_record(&head, &mut body);
                body.extend_from_slice(&[0xc0; 100]);
                finish_record(start, None, &mut body);
            }
            starts.push(bytes.len());
            let header = BatchHeader {
                shard: 1,
                count: 5,
                body_bytes: body.len() as u32,
                salt: SALT,
                first_seq: 1 + 5 * batch,
                durable_seq: 5 * batch,
                epoch: 1,
                previous_checksum,
                body_checksum: crc32c::crc32c(&body),
            };
            let (encoded, checksum) = header.encode();
            previous_checksum = checksum;
            bytes.extend_from_slice(&encoded);
            bytes.extend_from_slice(&body);
        }
        bytes.resize(bytes.len() + 4096, 0);
        (bytes, starts)
    }

    /// The events of an unreadable area.
    type Events = (u64, Option<u64>);

    fn seqs(bytes: &[u8], has_header: bool) -> (Vec<Range<u64>>, Vec<Events>) {
        let header = has_header.then(|| SegmentHeader::decode(bytes)).flatten();
        let salvage = salvage(bytes, 1, header, None);
        let runs = salvage.runs.iter().map(|run| run.first_seq..run.next_seq).collect();
        (runs, salvage.areas.iter().map(|area| (area.first_seq, area.next_seq)).collect())
    }

    #[test]
    fn what_is_sound_is_taken() {
        let (bytes, starts) = segment(4);
        let whole = [1..6, 6..11, 11..16, 16..21];
        assert_eq!(seqs(&bytes, true), (whole.to_vec(), vec![]));
        let mut damaged = bytes.clone();
        damaged[..HEADER_BYTES].fill(0xff);
        assert_eq!(seqs(&damaged, false), (whole.to_vec(), vec![(0, Some(1))]));
        // A batch header.
        let mut damaged = bytes.clone();
        damaged[starts[1] + 20] ^= 1;
        assert_eq!(seqs(&damaged, true), (vec![1..6, 11..16, 16..21], vec![(6, Some(11))]));
        // The third of the five records of a batch.
        let record = (starts[2] - starts[1] - HEADER_BYTES) / 5;
        let mut damaged = bytes.clone();
        damaged[starts[1] + HEADER_BYTES + 2 * record + 50] ^= 1;
        assert_eq!(seqs(&damaged, true), (vec![1..6, 6..8, 9..11, 11..16, 16..21], vec![(8, Some(9))]));
        // Cut off in the middle of it.
        let cut = &bytes[..starts[1] + HEADER_BYTES + 2 * record + 50];
        assert_eq!(seqs(cut, true), (vec![1..6, 6..8], vec![(8, Some(11))]));
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_made_up(at in 0usize..3000, length in 1usize..800, byte: u8) {
            let (bytes, _) = segment(4);
            let mut damaged = bytes.clone();
            let end = (at + length).min(bytes.len());
            damaged[at..end].fill(byte);
            let header = SegmentHeader::decode(&damaged);
            let found = salvage(&damaged, 1, header, None);
            let all: Vec<(u64, Vec<u8>)> = salvage(&bytes, 1, SegmentHeader::decode(&bytes), None).runs.iter()
                .flat_map(|run| records(&bytes[run.bytes.clone()], run.first_seq))
                .map(|it| (it.seq, it.bytes.to_vec()))
                .collect();
            for run in &found.runs {
                for it in records(&damaged[run.bytes.clone()], run.first_seq) {
                    proptest::prop_assert!(all.contains(&(it.seq, it.bytes.to_vec())));
                }
            }
        }
    }
}
