//! Rewriting a data directory for another number of shards. All events of the old shards, history included, go in the
//! order of their versions to the shards that own their keys now, into new directories beside the old ones; the manifest
//! that names the new ones then replaces the old manifest in one step. Killed before that, the old layout is as it was;
//! killed after, what is left of the old one is removed by the next start.
//!
//! Positions of the old layout mean nothing in the new one: its epoch is higher than any of the old.

use crate::limits::{SALT_FACTOR, SegmentSizes};
use crate::log::format::SegmentHeader;
use crate::log::recover::{self, RecoveryError, Survey};
use crate::log::segment::{Found, Rewriter};
use crate::manifest::{DataDirectory, DataError};
use crate::progress::Progress;
use crate::scan::owner;
use crate::storage::Directory;
use std::io;
use std::iter::Peekable;

#[derive(Debug)]
pub enum ReshardError {
    Data(DataError),
    /// An old shard cannot be read in full. Nothing was changed.
    Recovery {
        shard: u16,
        error: RecoveryError,
    },
    Io(io::Error),
}

impl std::fmt::Display for ReshardError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReshardError::Data(error) => write!(f, "{error}"),
            ReshardError::Recovery { shard, error } => write!(f, "shard {shard}: {error}; it must be repaired first"),
            ReshardError::Io(error) => write!(f, "writing the new shards: {error}"),
        }
    }
}

impl From<io::Error> for ReshardError {
    fn from(error: io::Error) -> Self {
        ReshardError::Io(error)
    }
}

/// A shard of the new layout.
struct Target<'a> {
    storage: &'a Directory,
    shard: u16,
    epoch: u32,
    next_seq: u64,
    next_segment: u32,
    previous_checksum: u32,
    open: Option<Rewriter<'a>>,
}

impl<'a> Target<'a> {
    fn push(&mut self, found: &Found<'_>, bytes_max: usize) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|open| open.bytes() + found.bytes.len() > bytes_max) {
            self.finish()?;
        }
        let (seq, epoch) = (self.next_seq, self.epoch);
        self.begin()?.push(seq, epoch, found.bytes)?;
        self.next_seq += 1;
        Ok(())
    }

    /// The segment that is being written.
    fn begin(&mut self) -> io::Result<&mut Rewriter<'a>> {
        if self.open.is_none() {
            let header = SegmentHeader {
                shard: self.shard,
                segment: self.next_segment,
                epoch: self.epoch,
                salt: (u64::from(self.epoch) << 32 | u64::from(self.next_segment)).wrapping_mul(SALT_FACTOR),
                first_seq: self.next_seq,
                previous_checksum: self.previous_checksum,
                rewritten: None,
            };
            self.next_segment += 1;
            self.open = Some(Rewriter::new(self.storage, header, 0)?);
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("no segment is open"))
    }

    fn finish(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        // The chain goes on with any number that the next segment repeats.
        self.previous_checksum = self.previous_checksum.wrapping_mul(31).wrapping_add(self.next_segment);
        open.finish(self.next_seq, self.previous_checksum, self.epoch)
    }
}

/// Gives a data directory another number of shards.
pub fn reshard(
    data: &mut DataDirectory,
    shards: u16,
    sizes: SegmentSizes,
    progress: &Progress,
) -> Result<(), ReshardError> {
    let mut old: Vec<Survey> = Vec::new();
    for shard in 0..data.manifest.shards {
        let storage = Directory::open(&data.shard_path(shard))?;
        let survey = recover::survey(&storage, shard, usize::MAX, &Progress::default());
        old.push(survey.map_err(|error| ReshardError::Recovery { shard, error })?);
    }
    let lengths = old.iter().flat_map(|survey| &survey.segments).map(|sound| u64::from(sound.index.end().end));
    progress.expect(lengths.sum());
    let system = data.manifest.system_tables();
    let epoch = old.iter().map(|survey| survey.epoch).max().unwrap_or(0) + 1;
    let layout = data.begin_layout().map_err(ReshardError::Data)?;
    let paths = (0..shards).map(|shard| Directory::open(&data.path_in_layout(shard, layout)));
    let directories = paths.collect::<io::Result<Vec<_>>>()?;
    let target = |(shard, storage)| Target {
        storage,
        shard: shard as u16,
        epoch,
        next_seq: 1,
        next_segment: 1,
        previous_checksum: 0,
        open: None,
    };
    let mut targets: Vec<Target<'_>> = directories.iter().enumerate().map(target).collect();
    let mut sources: Vec<Peekable<_>> = old.iter().map(|survey| survey.events().peekable()).collect();
    // Events of one key come from one shard in order; across shards the clock decides.
    while let Some(source) = sources
        .iter_mut()
        .filter_map(|source| source.peek().map(|found| found.record.version).map(|version| (version, source)))
        .min_by_key(|(version, _)| *version)
        .map(|(_, source)| source)
    {
        let Some(found) = source.next() else { break };
        progress.add(found.bytes.len() as u64);
        if system.contains(&found.record.table) {
            continue; // sessions hold positions in the old logs
        }
        let to = owner(found.record.table, found.record.key, usize::from(shards));
        targets[usize::from(to)].push(&found, sizes.max)?;
    }
    for target in &mut targets {
        if target.next_segment == 1 {
            target.begin()?; // nothing has come to it; the epoch must be there all the same
        }
        target.finish()?;
    }
    data.switch_layout(shards, layout).map_err(ReshardError::Data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Completion, ConnectionRef, Operation, Token, Write};
    use crate::event::Body;
    use crate::limits::Limits;
    use crate::link::{Wake, mesh};
    use crate::outbox::{Encoded, FrameKind};
    use crate::schema::{TableDef, TableId};
    use crate::shard::{Encoder, FrameContext, Parts, Shard};
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    struct Silent;

    impl Wake for Silent {
        fn wake(&self) {}
    }

    impl Encoder for Silent {
        fn encode(&mut self, _: FrameKind, _: &FrameContext<'_>, _: &mut Vec<u8>) -> Option<Encoded> {
            None
        }
    }

    const TABLE: TableId = TableId(0);

    fn limits() -> Limits {
        Limits {
            packet_bytes_max: 1 << 10,
            segments: SegmentSizes { first: 16 << 10, max: 64 << 10, read_at_start: 1 << 20 },
            ..Limits::default()
        }
    }

    fn open(data: &DataDirectory) -> Vec<(Shard, Directory)> {
        let count = usize::from(data.manifest.shards);
        let wakes: Vec<_> = (0..count).map(|_| Arc::new(Silent) as Arc<dyn Wake>).collect();
        let tables = [(TABLE, Arc::new(TableDef::new("T")))];
        let open = |(index, links)| {
            let directory = Directory::open(&data.shard_path(index as u16)).unwrap();
            let (salt, encoder) = (index as u64, Box::new(Silent));
            let parts =
                Parts { index: index as u16, limits: limits(), tables: &tables, links, encoder, salt, now_us: 1 };
            (Shard::open(parts, &directory).unwrap().0, directory)
        };
        mesh(&wakes).into_iter().enumerate().map(open).collect()
    }

    fn settle(shards: &mut [(Shard, Directory)], now_us: &mut u64) {
        for _ in 0..20 {
            for (shard, directory) in shards.iter_mut() {
                *now_us += 1;
                shard.begin_turn(*now_us, *now_us);
                shard.receive();
                while let Some(request) = shard.storage_request() {
                    shard.storage_complete(request.run(directory)).unwrap();
                }
                while let Some(Completion::Outcome { .. }) = shard.completion() {}
                shard.end_turn();
            }
        }
        assert!(shards.iter().all(|(shard, _)| shard.is_idle()));
    }

    /// Every record, and how many events its key has.
    fn contents(path: &Path) -> BTreeMap<Vec<u8>, (u64, Vec<u8>, usize)> {
        let data = DataDirectory::open(path, 1).unwrap();
        let count = usize::from(data.manifest.shards);
        let mut found = BTreeMap::new();
        for (shard, _) in open(&data) {
            let mut events: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
            shard.log().history(&mut |_, record| *events.entry(record.key.to_vec()).or_default() += 1);
            for (key, entry) in shard.table(TABLE).entries() {
                assert_eq!(owner(TABLE, key, count), shard.index());
                let document = shard.peek(TABLE, key).unwrap().unwrap().document.to_vec();
                found.insert(key.to_vec(), (entry.version.0, document, events[key]));
            }
        }
        found
    }

    #[test]
    fn everything_is_there_with_another_number_of_shards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut now_us = 1_000_000;
        {
            let data = DataDirectory::open(path, 3).unwrap();
            data.save().unwrap();
            let mut shards = open(&data);
            let connection = ConnectionRef { shard: 0, index: 0, generation: 1 };
            for number in 0..3000u32 {
                let key = format!("key-{}", number % 700);
                let mut document = Vec::new();
                crate::document::Writer::write_map(&mut document, 1);
                crate::document::Writer::write_str(&mut document, "n");
                crate::document::Writer::write_bytes(&mut document, &vec![1; number as usize % 300]);
                let (operation, document) =
                    if number % 11 == 10 { (Operation::Delete, Vec::new()) } else { (Operation::Put, document) };
                let token = Some(Token { connection, tag: 0 });
                let body = Body::new(key.as_bytes(), &document);
                shards[0].0.submit(Write { token, ..Write::new(operation, TABLE, body) });
                if number % 100 == 99 {
                    settle(&mut shards, &mut now_us);
                }
            }
            settle(&mut shards, &mut now_us);
        }
        let before = contents(path);
        assert!(before.len() > 500);
        for shards in [1, 4, 2] {
            let mut data = DataDirectory::open(path, 1).unwrap();
            let epoch = open(&data)[0].0.log().position().epoch;
            let old = data.shard_path(0);
            reshard(&mut data, shards, limits().segment_sizes(), &Progress::default()).unwrap();
            assert_eq!((data.manifest.shards, old.exists()), (shards, false));
            assert!(open(&data)[0].0.log().position().epoch > epoch);
            drop(data);
            assert!(contents(path) == before, "{shards} shards");
        }
        // Rot is found before anything is changed, though the indexes say nothing of it.
        {
            let mut data = DataDirectory::open(path, 1).unwrap();
            let files = Directory::open(&data.shard_path(0)).unwrap();
            let segment = files.path(crate::storage::FileName::Segment(1));
            let mut bytes = std::fs::read(&segment).unwrap();
            bytes[3000] ^= 1;
            std::fs::write(&segment, &bytes).unwrap();
            let refused = reshard(&mut data, 3, limits().segment_sizes(), &Progress::default());
            assert!(matches!(refused, Err(ReshardError::Recovery { shard: 0, .. })), "{refused:?}");
            assert_eq!(data.manifest.shards, 2);
            bytes[3000] ^= 1;
            std::fs::write(&segment, &bytes).unwrap();
        }
        // Killed in the middle: what was begun is removed, the layout is as it was.
        let data = DataDirectory::open(path, 1).unwrap();
        let begun = data.path_in_layout(0, data.manifest.layout + 1);
        std::fs::create_dir_all(&begun).unwrap();
        std::fs::write(begun.join("staged"), b"unfinished").unwrap();
        drop(data);
        assert!(contents(path) == before);
        assert!(!begun.exists());
    }
}
