//! `backup` and `restore`: the data directory copied file by file, and read in full before the copy is called good.
//!
//! A backup needs nothing of the server that may be running on the data: no lock, no help. What makes that sound:
//! - Sealed segments and their indexes never change. They may vanish, because compaction has put a rewritten segment in
//!   their place: then the shard is listed again, and what is missing is copied.
//! - The segment that is being appended to is copied up to its last whole batch. It has no index yet; that is how it is
//!   told from the others.
//! - Segments are copied newest first. A batch is written only when all before it are on disk, so that what is copied
//!   later holds everything that comes before what was copied earlier: the chain of the copy has no gap. And what a
//!   rewritten segment relies on was on disk before it was listed, hence before any newer segment was copied.
//! - What the mark file names as flushed is read before anything else, the manifest after everything else: table numbers
//!   are in it before records use them.
//!
//! Of each shard the copy is hence a moment of its own after the backup began, as after a power cut at that moment.

use super::ToolError;
use crate::progress::Shown;
use shards::log::format::{ALIGNMENT, BATCH_MAGIC, BatchHeader, HEADER_BYTES, SegmentHeader};
use shards::log::job;
use shards::log::mark::Mark;
use shards::log::recover::{self, RecoveryError, Survey};
use shards::log::segment::Walk;
use shards::manifest::{DataDirectory, DataError, Manifest, shard_folder};
use shards::progress::Progress;
use shards::storage::{Directory, FileName, Storage};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MANIFEST: &str = "manifest.json";
const LOCK: &str = "lock";
/// How often a shard is listed again before it is given up: each time, compaction has removed something meanwhile.
const LISTINGS_MAX: usize = 100;
/// How long a header that is just being written may look damaged.
const HEADER_PATIENCE: Duration = Duration::from_millis(20);

/// What was copied.
#[derive(Debug, Default)]
pub struct Summary {
    pub shards: u16,
    pub segments: usize,
    pub bytes: u64,
    /// Records, messages, deletes and replaced versions.
    pub events: u64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Summary { shards, segments, bytes, events } = self;
        write!(f, "{shards} shards, {segments} segments, {bytes} bytes, up to event {events} in all")
    }
}

/// Copies the data directory `data`, on which a server may be running, to the new folder `target`.
pub fn backup(data: &Path, target: &Path) -> Result<Summary, ToolError> {
    let manifest = DataDirectory::peek(data)?;
    must_be_free(target)?;
    let name = target.file_name().ok_or_else(|| refused(target, "is not the name of a new folder"))?;
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent).map_err(ToolError::io(&parent))?;
    let canonical = |path: &Path| path.canonicalize().map_err(ToolError::io(path));
    if canonical(&parent)?.starts_with(canonical(data)?) {
        return Err(refused(target, "is inside the data directory"));
    }
    let staged = parent.join(format!(".{}.incomplete-{}", name.to_string_lossy(), std::process::id()));
    fs::create_dir(&staged).map_err(ToolError::io(&staged))?;
    let result = copy(data, &staged, &manifest, false).and_then(|summary| {
        File::open(&staged).and_then(|folder| folder.sync_all()).map_err(ToolError::io(&staged))?;
        fs::rename(&staged, target).map_err(ToolError::io(target))?;
        File::open(&parent).and_then(|folder| folder.sync_all()).map_err(ToolError::io(&parent))?;
        Ok(summary)
    });
    if result.is_err() {
        let _ = fs::remove_dir_all(&staged); // give the space back; the error is what matters
    }
    result
}

/// Copies a backup, or the data directory of a server that has stopped, to the new data directory `data`.
pub fn restore(source: &Path, data: &Path) -> Result<Summary, ToolError> {
    let manifest = DataDirectory::peek(source)?;
    // A backup has no lock. Where there is one, a server must not be using it.
    let _source_lock = match File::open(source.join(LOCK)) {
        Ok(file) => {
            lock(&file, source)?;
            Some(file)
        }
        Err(_) => None,
    };
    must_be_free(data)?;
    let is_new = !data.exists();
    fs::create_dir_all(data).map_err(ToolError::io(data))?;
    let lock_path = data.join(LOCK);
    let own_lock = File::create(&lock_path).map_err(ToolError::io(&lock_path))?;
    lock(&own_lock, data)?;
    let staged = data.join("restoring");
    fs::create_dir(&staged).map_err(ToolError::io(&staged))?;
    let result = read_in_full(source, source, &manifest, "verifying the backup")
        .and_then(|_| copy(source, &staged, &manifest, true))
        .and_then(|summary| {
            // The manifest last: with it the data directory is complete.
            let shards = (0..manifest.shards).map(|shard| shard_path(&staged, &manifest, shard));
            for path in shards.chain([staged.join(MANIFEST)]) {
                let to = data.join(path.file_name().unwrap_or_default());
                fs::rename(&path, &to).map_err(ToolError::io(&to))?;
            }
            fs::remove_dir(&staged).map_err(ToolError::io(&staged))?;
            File::open(data).and_then(|folder| folder.sync_all()).map_err(ToolError::io(data))?;
            Ok(summary)
        });
    if result.is_err() {
        // Give the space back, so that it can be tried again; the error is what matters.
        let _ = fs::remove_dir_all(&staged);
        let _ = fs::remove_file(&lock_path);
        if is_new {
            let _ = fs::remove_dir(data);
        }
    }
    result
}

fn refused(path: &Path, why: &str) -> ToolError {
    ToolError::Refused(format!("{} {why}", path.display()))
}

fn lock(file: &File, directory: &Path) -> Result<(), ToolError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(fs::TryLockError::WouldBlock) => Err(DataError::Locked(directory.to_owned()).into()),
        Err(fs::TryLockError::Error(error)) => Err(ToolError::Io(directory.join(LOCK), error)),
    }
}

fn shard_path(data: &Path, manifest: &Manifest, shard: u16) -> PathBuf {
    data.join(shard_folder(shard, manifest.layout))
}

/// A new folder, or an empty one.
fn must_be_free(path: &Path) -> Result<(), ToolError> {
    match fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(refused(path, "is not empty (expected the name of a new folder)")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ToolError::Io(path.to_owned(), error)),
    }
}

/// Copies all shards, reads the copy in full, and adds the manifest.
fn copy(from: &Path, to: &Path, manifest: &Manifest, new_epoch: bool) -> Result<Summary, ToolError> {
    let progress = Arc::new(Progress::default());
    let shown = Shown::start("copying", progress.clone());
    let folders: Vec<_> = (0..manifest.shards)
        .map(|shard| (shard, shard_path(from, manifest, shard), shard_path(to, manifest, shard)))
        .collect();
    for (_, from, _) in &folders {
        let entries = fs::read_dir(from).map_err(ToolError::io(from))?;
        progress.expect(entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum());
    }
    for (shard, from, to) in folders {
        let target = Directory::open(&to).map_err(ToolError::io(&to))?;
        let mut copy = ShardCopy {
            shard,
            source: Directory::existing(&from),
            from,
            target,
            to,
            whole: BTreeMap::new(),
            progress: &progress,
        };
        let survey = copy.run()?;
        copy.settle(survey, new_epoch)?;
    }
    drop(shown);
    let summary = read_in_full(to, from, manifest, "verifying the copy")?;
    let path = from.join(MANIFEST);
    let text = fs::read(&path).map_err(ToolError::io(&path))?;
    let path = to.join(MANIFEST);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&text)?;
        file.sync_all()
    });
    written.map_err(ToolError::io(&path))?;
    let copied = DataDirectory::peek(to)?;
    if (copied.shards, copied.layout) != (manifest.shards, manifest.layout) {
        return Err(refused(from, "was given another number of shards meanwhile; try again"));
    }
    Ok(summary)
}

/// Reads every segment of every shard. Damage is said to be in `named`, of which `data` is a copy.
fn read_in_full(data: &Path, named: &Path, manifest: &Manifest, what: &'static str) -> Result<Summary, ToolError> {
    let progress = Arc::new(Progress::default());
    let _shown = Shown::start(what, progress.clone());
    let mut summary = Summary { shards: manifest.shards, ..Summary::default() };
    for shard in 0..manifest.shards {
        let (path, named) = (shard_path(data, manifest, shard), shard_path(named, manifest, shard));
        let survey = survey(&path, &named, shard)?;
        progress.expect(survey.segments.iter().map(|sound| u64::from(sound.index.end().end)).sum());
        for sound in &survey.segments {
            let (segment, end) = (sound.header.segment, sound.index.end());
            let what = "its checksums are wrong";
            job::check(segment, sound.map.bytes(), Some(end))
                .map_err(|offset| ToolError::damaged(&named, segment, offset, what))?;
            progress.add(end.end.into());
            summary.segments += usize::from(end.end as usize > HEADER_BYTES);
            summary.bytes += u64::from(end.end);
        }
        summary.events += survey.next_seq - 1;
    }
    Ok(summary)
}

fn survey(path: &Path, named: &Path, shard: u16) -> Result<Survey, ToolError> {
    fs::metadata(path).map_err(ToolError::io(path))?;
    recover::survey(&Directory::existing(path), shard, 0, &Progress::default())
        .map_err(|error| ToolError::log(named, error))
}

/// Why a listing has not led to a copy.
enum Setback {
    /// Something that was listed is gone.
    Vanished,
    Failed(ToolError),
}

/// The copying of one shard.
struct ShardCopy<'a> {
    shard: u16,
    source: Directory,
    from: PathBuf,
    target: Directory,
    to: PathBuf,
    /// Segments that were copied and will not change, by number; their headers tell them from later ones of that number.
    whole: BTreeMap<u32, SegmentHeader>,
    progress: &'a Progress,
}

impl ShardCopy<'_> {
    /// Copies until what is there makes a whole log.
    fn run(&mut self) -> Result<Survey, ToolError> {
        let mut before = None;
        let why = io::Error::other(format!("its files were changing in each of {LISTINGS_MAX} listings"));
        let mut verdict = ToolError::Io(self.from.clone(), why);
        for _ in 0..LISTINGS_MAX {
            let listed = match self.pass() {
                Ok(listed) => listed,
                Err(Setback::Vanished) => continue,
                Err(Setback::Failed(error)) => return Err(error),
            };
            match recover::survey(&self.target, self.shard, 0, &Progress::default()) {
                Ok(survey) => return Ok(survey),
                Err(RecoveryError::Io(error)) => return Err(ToolError::Io(self.to.clone(), error)),
                Err(error) => {
                    // A listing that was made while files came and went may have missed some.
                    verdict = ToolError::log(&self.from, error);
                    if before.replace(listed.clone()) == Some(listed) {
                        break;
                    }
                }
            }
        }
        Err(verdict)
    }

    /// Lists the shard and copies what is not copied yet. Gives the listing.
    fn pass(&mut self) -> Result<Vec<FileName>, Setback> {
        match self.read(FileName::Mark) {
            Ok(bytes) => self.write(FileName::Mark, &bytes)?,
            Err(Setback::Vanished) => {} // a young log has none
            Err(failed) => return Err(failed),
        }
        let listed = self.source.files().map_err(|error| self.setback(FileName::Mark, error))?;
        let mut begun = Vec::new();
        for file in &listed {
            if let FileName::Segment(segment) = *file
                && let Some(header) = self.header(segment, listed.contains(&FileName::Index(segment)))?
            {
                begun.push((header, segment));
            }
        }
        self.forget_others(&begun)?;
        begun.sort_by_key(|(header, segment)| {
            std::cmp::Reverse((header.map_or(0, |header| header.first_seq), *segment))
        });
        for (header, segment) in begun {
            let index = FileName::Index(segment);
            match header {
                Some(header) if self.whole.get(&segment) == Some(&header) => {}
                Some(header) if header.rewritten.is_none() && !listed.contains(&index) => {
                    self.copy_open(segment)?;
                }
                header => {
                    if listed.contains(&index) {
                        self.copy_file(index)?;
                    }
                    self.copy_file(FileName::Segment(segment))?;
                    // A rewritten segment gets its index a moment after its name.
                    if let Some(header) = header.filter(|_| listed.contains(&index)) {
                        self.whole.insert(segment, header);
                    }
                }
            }
        }
        File::open(&self.to).and_then(|folder| folder.sync_all()).map_err(|error| self.failed(&self.to, error))?;
        Ok(listed)
    }

    /// The header of a segment; `None` within: it is damaged. `None`: nothing had been written to the segment when it was
    /// listed.
    fn header(&self, segment: u32, has_index: bool) -> Result<Option<Option<SegmentHeader>>, Setback> {
        let name = FileName::Segment(segment);
        let file = File::open(self.source.path(name)).map_err(|error| self.setback(name, error))?;
        let read = || {
            let mut bytes = [0; HEADER_BYTES];
            match file.read_exact_at(&mut bytes, 0) {
                Ok(()) => Ok(bytes),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok([0; HEADER_BYTES]),
                Err(error) => Err(self.setback(name, error)),
            }
        };
        let first = read()?;
        if let Some(header) = SegmentHeader::decode(&first) {
            return Ok(Some(Some(header)));
        }
        if first == [0; HEADER_BYTES] && !has_index {
            // Made beforehand, and perhaps begun since it was listed; or else its header was lost.
            let is_empty = self.read(name)?.iter().all(|byte| *byte == 0);
            return Ok((!is_empty && SegmentHeader::decode(&read()?).is_none()).then_some(None));
        }
        std::thread::sleep(HEADER_PATIENCE);
        Ok(Some(SegmentHeader::decode(&read()?)))
    }

    /// Removes from the copy what is not in the source any more.
    fn forget_others(&mut self, begun: &[(Option<SegmentHeader>, u32)]) -> Result<(), Setback> {
        let copied = self.target.files().map_err(|error| self.failed(&self.to, error))?;
        for file in copied {
            if let FileName::Segment(segment) | FileName::Index(segment) = file
                && !begun.iter().any(|(_, own)| *own == segment)
            {
                self.whole.remove(&segment);
                self.target.remove(file).map_err(|error| self.failed(&self.to, error))?;
            }
        }
        Ok(())
    }

    fn failed(&self, path: &Path, error: io::Error) -> Setback {
        Setback::Failed(ToolError::Io(path.to_owned(), error))
    }

    /// What an error of reading a file of the source means.
    fn setback(&self, file: FileName, error: io::Error) -> Setback {
        match error.kind() {
            io::ErrorKind::NotFound if self.from.is_dir() => Setback::Vanished,
            _ => self.failed(&self.source.path(file), error),
        }
    }

    fn read(&self, file: FileName) -> Result<Vec<u8>, Setback> {
        fs::read(self.source.path(file)).map_err(|error| self.setback(file, error))
    }

    fn write(&self, file: FileName, bytes: &[u8]) -> Result<(), Setback> {
        let path = self.target.path(file);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        self.progress.add(bytes.len() as u64);
        written.map_err(|error| self.failed(&path, error))
    }

    /// Copies a file that does not change, without its permissions: a backup may be kept where nobody can write.
    fn copy_file(&self, file: FileName) -> Result<(), Setback> {
        let to = self.target.path(file);
        let mut source = File::open(self.source.path(file)).map_err(|error| self.setback(file, error))?;
        let mut target = File::create(&to).map_err(|error| self.failed(&to, error))?;
        // Which of the two has failed is not said; a full disk is the likelier reason. Shares blocks where it can.
        let copied = io::copy(&mut source, &mut target).and_then(|bytes| target.sync_all().map(|()| bytes));
        self.progress.add(copied.map_err(|error| self.failed(&to, error))?);
        Ok(())
    }

    /// Copies a segment that may be being appended to, up to its last whole batch.
    fn copy_open(&self, segment: u32) -> Result<(), Setback> {
        let name = FileName::Segment(segment);
        let path = self.source.path(name);
        let file = File::open(&path).map_err(|error| self.setback(name, error))?;
        let mut bytes = self.read(name)?;
        let mut stuck_at = None;
        let end = loop {
            let Some(header) = SegmentHeader::decode(&bytes) else { return Err(Setback::Vanished) };
            let mut walk = Walk::new(header, &bytes);
            while walk.next_batch().is_some() {}
            let (end, next_seq) = (walk.at, walk.next_seq);
            if !names_as_flushed(&bytes[end..], &header, next_seq) {
                break end;
            }
            // It was flushed while we read, and is there in full now; or else it is damaged.
            if stuck_at == Some(end) {
                let what = format!("event {next_seq} was acknowledged and cannot be read");
                return Err(Setback::Failed(ToolError::damaged(&self.from, segment, end as u64, what)));
            }
            stuck_at = Some(end);
            file.read_exact_at(&mut bytes[end..], end as u64).map_err(|error| self.failed(&path, error))?;
        };
        self.progress.add((bytes.len() - end) as u64);
        self.write(name, &bytes[..end])
    }

    /// Removes what the copy does not need, and says in it how far it goes.
    fn settle(&self, survey: Survey, new_epoch: bool) -> Result<(), ToolError> {
        let Survey { segments, next_seq, previous_checksum, epoch, unused, .. } = survey;
        drop(segments);
        let failed = || ToolError::io(&self.to);
        let files = self.target.files().map_err(failed())?;
        for segment in unused {
            for file in [FileName::Index(segment), FileName::Segment(segment)] {
                if files.contains(&file) {
                    self.target.remove(file).map_err(failed())?;
                }
            }
        }
        if files.contains(&FileName::Mark) {
            self.target.remove(FileName::Mark).map_err(failed())?;
        }
        let mark = Mark { durable_seq: next_seq - 1, slot: 0 };
        self.target.write(FileName::Mark, 0, &mark.encode(self.shard)).map_err(failed())?;
        if !new_epoch {
            return Ok(());
        }
        // Positions of the restored log must not be taken for those that the old one gave out after the backup: its
        // epoch rises by 1 with each start, this one comes from the clock. The next start finds an empty segment.
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let segment = 1 + files.iter().map(number).max().unwrap_or(0);
        let header = SegmentHeader {
            shard: self.shard,
            segment,
            epoch: (epoch + 1).max(u32::try_from(seconds).unwrap_or(0)),
            salt: uuid::Uuid::new_v4().as_u64_pair().0,
            first_seq: next_seq,
            previous_checksum,
            rewritten: None,
        };
        self.target.write(FileName::Segment(segment), 0, &header.encode()).map_err(failed())
    }
}

fn number(file: &FileName) -> u32 {
    match file {
        FileName::Segment(segment) | FileName::Index(segment) => *segment,
        FileName::Mark | FileName::Staged => 0,
    }
}

/// Whether a batch in `rest` says that the event `seq` was flushed.
fn names_as_flushed(rest: &[u8], segment: &SegmentHeader, seq: u64) -> bool {
    (0..rest.len()).step_by(ALIGNMENT).any(|at| {
        rest[at..].starts_with(&BATCH_MAGIC.to_le_bytes())
            && BatchHeader::decode(&rest[at..]).is_some_and(|(batch, _)| {
                batch.shard == segment.shard && batch.epoch >= segment.epoch && batch.durable_seq >= seq
            })
    })
}
