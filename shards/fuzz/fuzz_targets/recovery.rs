//! A log of known content, damaged as the input says, is opened: no panic; and either the damage is reported, or every
//! event is still there. The log is quiet and marked, so that all of it was promised.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shards::clock::Version;
use shards::limits::SegmentSizes;
use shards::log::format::RecordKind;
use shards::log::job::{Done, Job};
use shards::log::recover;
use shards::log::{Log, Room, Sealed};
use shards::progress::Progress;
use shards::schema::TableId;
use shards::storage::{FileName, Mapped, Storage};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, LazyLock};

type Files = BTreeMap<FileName, Arc<Vec<u8>>>;

/// Files in memory. A map shows what was there when it was made.
#[derive(Clone, Default)]
struct Disk(RefCell<Files>);

struct Snapshot(Arc<Vec<u8>>);

impl Mapped for Snapshot {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Storage for Disk {
    fn files(&self) -> io::Result<Vec<FileName>> {
        Ok(self.0.borrow().keys().copied().collect())
    }

    fn map(&self, file: FileName) -> io::Result<Box<dyn Mapped>> {
        let found = self.0.borrow().get(&file).cloned();
        Ok(Box::new(Snapshot(found.ok_or(io::ErrorKind::NotFound)?)))
    }

    fn create(&self, file: FileName, bytes: u64) -> io::Result<Box<dyn Mapped>> {
        self.0.borrow_mut().insert(file, Arc::new(vec![0; bytes as usize]));
        self.map(file)
    }

    fn write(&self, file: FileName, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut files = self.0.borrow_mut();
        let bytes = Arc::make_mut(files.entry(file).or_default());
        let end = offset as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(data);
        Ok(())
    }

    fn shrink(&self, file: FileName, bytes: u64) -> io::Result<()> {
        let mut files = self.0.borrow_mut();
        Arc::make_mut(files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?).truncate(bytes as usize);
        Ok(())
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        let mut files = self.0.borrow_mut();
        let bytes = files.remove(&from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to, bytes);
        Ok(())
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        self.0.borrow_mut().remove(&file).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }
}

const SIZES: SegmentSizes = SegmentSizes { first: 4 << 10, max: 8 << 10, read_at_start: 0 };

fn open(disk: &Disk) -> Result<Log, recover::RecoveryError> {
    recover::open(disk, 0, 7, SIZES, &Progress::default()).map(|(log, _)| log)
}

fn events(log: &Log) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
    let mut events = Vec::new();
    log.history(&mut |seq, record| events.push((seq, record.key.to_vec(), record.document.to_vec())));
    events
}

fn serve(log: &mut Log, disk: &Disk, ticks_us: u64) {
    while let Some(request) = log.request(ticks_us) {
        let _ = log.complete(request.run(disk), ticks_us);
    }
}

/// A quiet log of several segments, some with and some without an index, and its events.
static SOUND: LazyLock<(Vec<(FileName, Vec<u8>)>, Vec<(u64, Vec<u8>, Vec<u8>)>)> = LazyLock::new(|| {
    let disk = Disk::default();
    for round in 0..3u8 {
        let mut log = open(&disk).expect("a sound log");
        for number in 0..40u8 {
            let document = vec![number; usize::from(number) * 5];
            while log.room(document.len() + 8) == Room::Wait {
                serve(&mut log, &disk, 0);
            }
            let write = |_, out: &mut Vec<u8>| {
                out.extend_from_slice(&document);
                Ok::<_, ()>((number % 5 == 0).then_some(u64::MAX / 2))
            };
            let kind =
                [RecordKind::Put, RecordKind::Put, RecordKind::Delete, RecordKind::Message][usize::from(number) % 4];
            let version = Version(u64::from(round) * 100 + u64::from(number) + 1);
            let head = RecordHead {
            kind: kind,
            table: TableId(u16::from(number % 3)),
            version: version,
            may_expire: number % 5 == 0,
            qos: 0,
            publisher: 0,
            key: &[round, number % 16],
            properties: &[],
        };
        log.append(&head, write)
                .expect("room");
            if number % 3 == 0 {
                if let Some(request) = log.request(0) {
                    let _ = log.complete(request.run(&disk), 0);
                }
            }
        }
        serve(&mut log, &disk, 0);
        if let Some(request) = log.mark() {
            request.run(&disk);
        }
    }
    let events = events(&open(&Disk(RefCell::new(disk.0.borrow().clone()))).expect("a sound log"));
    assert_eq!(events.len(), 120);
    let files = disk.0.into_inner().into_iter().map(|(name, bytes)| (name, bytes.to_vec()));
    (files.collect(), events)
});

/// Takes commands of 6 bytes: what, which file, offset (2), argument (2).
fn damage(files: &mut Vec<(FileName, Vec<u8>)>, input: &[u8]) {
    for command in input.chunks_exact(6).take(8) {
        if files.is_empty() {
            return;
        }
        let at = usize::from(command[1]) % files.len();
        let argument = usize::from(u16::from_le_bytes([command[4], command[5]]));
        let length = files[at].1.len();
        let offset = usize::from(u16::from_le_bytes([command[2], command[3]])) % length.max(1);
        match command[0] % 8 {
            0 if length > 0 => files[at].1[offset] ^= 1 << (argument % 8),
            1 if length > 0 => files[at].1[offset] = argument as u8,
            2 => files[at].1.truncate(offset),
            3 => files[at].1[offset..(offset + argument).min(length)].fill(0),
            4 => {
                let other = argument % files.len();
                let bytes = std::mem::take(&mut files[at].1);
                files[at].1 = std::mem::replace(&mut files[other].1, bytes);
            }
            5 => {
                let bytes = files[at].1.clone();
                let other = argument % files.len();
                files[other].1 = bytes;
            }
            6 => drop(files.remove(at)),
            _ => {
                let bytes = files[at].1.clone();
                files.push((FileName::Segment(argument as u32 % 20), bytes));
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let (sound, expected) = &*SOUND;
    let mut files = sound.clone();
    damage(&mut files, input);
    let disk = Disk(RefCell::new(files.into_iter().map(|(name, bytes)| (name, Arc::new(bytes))).collect()));
    // Without the mark the last flush of the last epoch is not known to have been promised.
    let mark = disk.0.borrow().get(&FileName::Mark).map_or(0, |mark| shards::log::mark::decode(mark, 0).durable_seq);
    let Ok(mut log) = open(&disk) else { return };
    let scrub = |sealed: &Sealed| Job::Scrub { segment: sealed.segment, next_seq: sealed.next_seq };
    if !log.sealed().iter().map(scrub).all(|job| matches!(job.run(&disk), Ok(Done::Scrubbed))) {
        return;
    }
    let found = events(&log);
    if mark >= expected.len() as u64 {
        assert!(found == *expected, "{} of {} events, and no word of it", found.len(), expected.len());
    } else {
        assert!(expected.starts_with(&found), "events that nobody wrote");
    }
    serve(&mut log, &disk, 1);
});
