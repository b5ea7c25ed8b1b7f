//! A simulated disk: what a program sees of its files, and a journal of everything that it did to them, from which every
//! state that a crash may leave behind can be made.
//!
//! What it assumes of a real disk: bytes that were flushed stay; of those that were not, any subset of the 4 KiB pages may
//! be there, each whole or torn at a sector of 512 bytes; making, naming and removing a file happens or does not. After
//! a failed flush the program still sees what it wrote, but what did not reach the disk never will.

use crate::Random;
use shards::log::map::FileMap;
use shards::storage::{FileName, Mapped, Storage};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;

/// What is in the files of a disk that has been switched off.
pub type Files = BTreeMap<FileName, Arc<Vec<u8>>>;

/// Something that was done to the disk.
#[derive(Clone)]
pub enum Effect {
    /// A file of zeros, which are on disk when it is done; in its middle it may be absent or short.
    Create {
        file: FileName,
        bytes: usize,
    },
    /// Not flushed.
    Write {
        file: FileName,
        offset: usize,
        data: Arc<Vec<u8>>,
    },
    Sync {
        file: FileName,
    },
    /// A flush that failed. The seed says which pages reached the disk; the others never will.
    SyncFailed {
        file: FileName,
        seed: u64,
    },
    Shrink {
        file: FileName,
        bytes: usize,
    },
    Rename {
        from: FileName,
        to: FileName,
    },
    Remove {
        file: FileName,
    },
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Effect::Create { file, bytes } => write!(f, "create {file} {bytes}"),
            Effect::Write { file, offset, data } => {
                write!(f, "write {file} {offset} {} {:08x}", data.len(), crc32c::crc32c(data))
            }
            Effect::Sync { file } => write!(f, "sync {file}"),
            Effect::SyncFailed { file, seed } => write!(f, "sync {file} fails {seed:x}"),
            Effect::Shrink { file, bytes } => write!(f, "shrink {file} {bytes}"),
            Effect::Rename { from, to } => write!(f, "rename {from} {to}"),
            Effect::Remove { file } => write!(f, "remove {file}"),
        }
    }
}

/// The disk as it really is: what is safe, and what waits to be flushed.
#[derive(Clone, Default)]
pub struct Platter {
    files: BTreeMap<FileName, PlatterFile>,
}

#[derive(Clone, Default)]
struct PlatterFile {
    safe: Arc<Vec<u8>>,
    waiting: Vec<(usize, Arc<Vec<u8>>)>,
}

/// What becomes of a page that was not flushed.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Lost,
    Whole,
    /// These sectors are there, the others are not.
    Torn(u8),
}

impl PlatterFile {
    fn seen(&self) -> Arc<Vec<u8>> {
        let mut seen = self.safe.clone();
        for (offset, data) in &self.waiting {
            write_at(Arc::make_mut(&mut seen), *offset, data);
        }
        seen
    }

    fn sync(&mut self) {
        self.safe = self.seen();
        self.waiting.clear();
    }

    /// What a crash leaves of the file.
    fn crash(&self, random: &mut Random) -> Arc<Vec<u8>> {
        if self.waiting.is_empty() {
            return self.safe.clone();
        }
        let pages: BTreeSet<usize> = self
            .waiting
            .iter()
            .filter(|(_, data)| !data.is_empty())
            .flat_map(|(offset, data)| offset / PAGE_BYTES..=(offset + data.len() - 1) / PAGE_BYTES)
            .collect();
        let (mode, chosen) = (random.below(8), random.below(pages.len().max(1)));
        let seen = self.seen();
        let mut left = self.safe.as_ref().clone();
        for (number, page) in pages.into_iter().enumerate() {
            let torn = Fate::Torn(random.number() as u8);
            let fate = match mode {
                0 => Fate::Lost,
                1 => Fate::Whole,
                2 if number == chosen => Fate::Lost,
                2 => Fate::Whole,
                3 if number == chosen => Fate::Whole,
                3 => Fate::Lost,
                4 if number == chosen => torn,
                4 => Fate::Whole,
                _ => [Fate::Lost, Fate::Whole, torn][random.below(3)],
            };
            let sectors = match fate {
                Fate::Lost => 0,
                Fate::Whole => u8::MAX,
                Fate::Torn(sectors) => sectors,
            };
            for sector in (0..PAGE_BYTES / SECTOR_BYTES).filter(|sector| sectors & (1 << sector) != 0) {
                let start = page * PAGE_BYTES + sector * SECTOR_BYTES;
                let end = (start + SECTOR_BYTES).min(seen.len());
                if start < end {
                    write_at(&mut left, start, &seen[start..end]);
                }
            }
        }
        // The length may be there without the data.
        if left.len() < seen.len() && random.below(2) == 0 {
            left.resize(seen.len(), 0);
        }
        Arc::new(left)
    }
}

impl Platter {
    pub fn new(files: &Files) -> Platter {
        let file = |safe: &Arc<Vec<u8>>| PlatterFile { safe: safe.clone(), waiting: Vec::new() };
        Platter { files: files.iter().map(|(name, safe)| (*name, file(safe))).collect() }
    }

    pub fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Create { file, bytes } => {
                self.files.insert(*file, PlatterFile { safe: Arc::new(vec![0; *bytes]), waiting: Vec::new() });
            }
            Effect::Write { file, offset, data } => {
                self.file(*file).waiting.push((*offset, data.clone()));
            }
            Effect::Sync { file } => self.file(*file).sync(),
            Effect::SyncFailed { file, seed } => {
                let file = self.file(*file);
                file.safe = file.crash(&mut Random::new(*seed));
                file.waiting.clear();
            }
            Effect::Shrink { file, bytes } => {
                let file = self.file(*file);
                file.sync();
                Arc::make_mut(&mut file.safe).truncate(*bytes);
            }
            Effect::Rename { from, to } => {
                let file = self.files.remove(from).expect("a file that is renamed exists");
                self.files.insert(*to, file);
            }
            Effect::Remove { file } => {
                self.files.remove(file).expect("a file that is removed exists");
            }
        }
    }

    fn file(&mut self, file: FileName) -> &mut PlatterFile {
        self.files.get_mut(&file).expect("a file that is written exists")
    }

    /// Whether more than one state may be left behind by a crash now.
    pub fn is_open(&self) -> bool {
        self.files.values().any(|file| !file.waiting.is_empty())
    }

    /// What a crash leaves behind, where it falls into the middle of `next`, if that has one.
    pub fn crash(&self, next: Option<&Effect>, random: &mut Random) -> Files {
        let mut files: Files = self.files.iter().map(|(name, file)| (*name, file.crash(random))).collect();
        if let Some(Effect::Create { file, bytes }) = next {
            files.insert(*file, Arc::new(vec![0; random.below(bytes + 1)]));
        }
        files
    }
}

fn write_at(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

/// A file as the program sees it. A map must show what is written later without being told: it is one of a real file,
/// made when somebody looks.
#[derive(Default)]
struct Seen {
    bytes: Arc<Vec<u8>>,
    real: Option<File>,
}

struct LiveMap {
    file: Arc<Mutex<Seen>>,
    map: OnceLock<FileMap>,
}

impl Mapped for LiveMap {
    fn bytes(&self) -> &[u8] {
        let map = || {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            if file.real.is_none() {
                let made = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile());
                let real = made.expect("a temporary file can be made");
                real.write_all_at(&file.bytes, 0).expect("a temporary file can be written");
                file.real = Some(real);
            }
            FileMap::new(file.real.as_ref().expect("just made")).expect("a temporary file can be mapped")
        };
        self.map.get_or_init(map).bytes()
    }
}

/// A map of a file that is not written any more.
struct Snapshot {
    bytes: Arc<Vec<u8>>,
    _mapped: Arc<()>,
}

impl Mapped for Snapshot {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

struct Node {
    seen: Arc<Mutex<Seen>>,
    /// Shared by its snapshots.
    mapped: Arc<()>,
}

impl Node {
    fn new(bytes: Arc<Vec<u8>>) -> Node {
        Node { seen: Arc::new(Mutex::new(Seen { bytes, real: None })), mapped: Arc::new(()) }
    }

    fn with<T>(&self, body: impl FnOnce(&mut Seen) -> T) -> T {
        body(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn len(&self) -> usize {
        self.with(|seen| seen.bytes.len())
    }

    fn write(&self, name: FileName, offset: usize, data: &[u8]) {
        assert_eq!(Arc::strong_count(&self.mapped), 1, "{name} is written though it was opened as it is");
        self.with(|seen| {
            write_at(Arc::make_mut(&mut seen.bytes), offset, data);
            if let Some(real) = &seen.real {
                real.write_all_at(data, offset as u64).expect("a temporary file can be written");
            }
        });
    }
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<FileName, Node>,
    journal: Vec<Effect>,
    /// The flush after so many others fails.
    sync_fails_after: Option<u32>,
    /// The same of what jobs flush.
    job_sync_fails_after: Option<u32>,
    /// Bytes that all files may have.
    space: Option<usize>,
    random: Option<Random>,
}

/// What a shard has for a disk.
pub struct Disk {
    state: RefCell<State>,
}

impl Disk {
    pub fn new(files: &Files, seed: u64) -> Disk {
        let nodes = files.iter().map(|(name, bytes)| (*name, Node::new(bytes.clone()))).collect();
        Disk { state: RefCell::new(State { nodes, random: Some(Random::new(seed)), ..State::default() }) }
    }

    /// Everything that was done so far.
    pub fn journal(&self) -> std::cell::Ref<'_, [Effect]> {
        std::cell::Ref::map(self.state.borrow(), |state| state.journal.as_slice())
    }

    pub fn fail_sync_after(&self, syncs: u32) {
        self.state.borrow_mut().sync_fails_after = Some(syncs);
    }

    pub fn fail_job_sync_after(&self, syncs: u32) {
        self.state.borrow_mut().job_sync_fails_after = Some(syncs);
    }

    /// From now on there is room for so many more bytes. `None`: as many as one likes.
    pub fn set_space(&self, more: Option<usize>) {
        let mut state = self.state.borrow_mut();
        let used = state.used();
        state.space = more.map(|more| used + more);
    }

    /// The first half of a commit.
    pub fn append(&self, file: FileName, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state.borrow_mut().write(file, offset as usize, data)
    }

    /// The second half of a commit.
    pub fn sync(&self, file: FileName) -> io::Result<()> {
        self.state.borrow_mut().sync(file, false)
    }
}

fn no_space() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl State {
    /// Makes a file that is absent.
    fn make(&mut self, file: FileName) {
        if !self.nodes.contains_key(&file) {
            self.journal.push(Effect::Create { file, bytes: 0 });
            self.nodes.insert(file, Node::new(Arc::default()));
        }
    }

    fn used(&self) -> usize {
        self.nodes.values().map(Node::len).sum()
    }

    fn node(&self, file: FileName) -> io::Result<&Node> {
        self.nodes.get(&file).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// How much of `bytes` more there is room for.
    fn room(&self, bytes: usize) -> usize {
        self.space.map_or(bytes, |space| bytes.min(space.saturating_sub(self.used())))
    }

    fn create(&mut self, file: FileName, bytes: usize) -> io::Result<()> {
        self.nodes.remove(&file);
        let room = self.room(bytes);
        self.journal.push(Effect::Create { file, bytes: room });
        self.nodes.insert(file, Node::new(Arc::new(vec![0; room])));
        if room == bytes {
            return Ok(());
        }
        // The space is given back, unless that fails too.
        if self.random.as_mut().is_some_and(|random| random.below(2) == 0) {
            self.nodes.remove(&file);
            self.journal.push(Effect::Remove { file });
        }
        Err(no_space())
    }

    fn write(&mut self, file: FileName, offset: usize, data: &[u8]) -> io::Result<()> {
        let length = self.node(file)?.len();
        let growth = (offset + data.len()).saturating_sub(length);
        let data = &data[..data.len() - (growth - self.room(growth)).min(data.len())];
        let whole = self.room(growth) == growth;
        if !data.is_empty() {
            self.node(file)?.write(file, offset, data);
            self.journal.push(Effect::Write { file, offset, data: Arc::new(data.to_vec()) });
        }
        if whole { Ok(()) } else { Err(no_space()) }
    }

    fn sync(&mut self, file: FileName, of_job: bool) -> io::Result<()> {
        let fails_after = if of_job { &mut self.job_sync_fails_after } else { &mut self.sync_fails_after };
        match fails_after {
            Some(0) => {
                *fails_after = None;
                let seed = self.random.as_mut().map_or(0, Random::number);
                self.journal.push(Effect::SyncFailed { file, seed });
                Err(io::Error::from_raw_os_error(5)) // EIO
            }
            after => {
                *after = after.map(|after| after - 1);
                self.journal.push(Effect::Sync { file });
                Ok(())
            }
        }
    }
}

impl Storage for Disk {
    fn files(&self) -> io::Result<Vec<FileName>> {
        Ok(self.state.borrow().nodes.keys().copied().collect())
    }

    fn map(&self, file: FileName) -> io::Result<Box<dyn Mapped>> {
        let state = self.state.borrow();
        let node = state.node(file)?;
        Ok(Box::new(Snapshot { bytes: node.with(|seen| seen.bytes.clone()), _mapped: node.mapped.clone() }))
    }

    fn create(&self, file: FileName, bytes: u64) -> io::Result<Box<dyn Mapped>> {
        let mut state = self.state.borrow_mut();
        state.create(file, bytes as usize)?;
        let file = state.node(file)?.seen.clone();
        Ok(Box::new(LiveMap { file, map: OnceLock::new() }))
    }

    fn write(&self, file: FileName, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.make(file);
        state.write(file, offset as usize, data)?;
        state.sync(file, true)
    }

    fn write_behind(&self, file: FileName, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state.borrow_mut().make(file);
        self.append(file, offset, data)
    }

    fn shrink(&self, file: FileName, bytes: u64) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let node = state.node(file)?;
        assert_eq!(Arc::strong_count(&node.mapped), 1, "{file} is cut off while it is mapped");
        assert_eq!(Arc::strong_count(&node.seen), 1, "{file} is cut off while it is mapped");
        node.with(|seen| Arc::make_mut(&mut seen.bytes).truncate(bytes as usize));
        state.journal.push(Effect::Shrink { file, bytes: bytes as usize });
        Ok(())
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.node(from)?;
        let node = state.nodes.remove(&from).expect("it is there");
        state.nodes.insert(to, node);
        state.journal.push(Effect::Rename { from, to });
        Ok(())
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.node(file)?;
        state.nodes.remove(&file);
        state.journal.push(Effect::Remove { file });
        Ok(())
    }
}
