//! The files of one shard, held still while they are read, also under a running server: nothing is locked, and what the
//! server appends, seals, rewrites and removes meanwhile neither shows nor looks like damage.
//!
//! - The mark file is read first: what it promises is then in the segments that are looked at later.
//! - All files are mapped between two listings that name the same ones: a set of segments that existed at one moment. A
//!   map outlives the removal of its file.
//! - The segment that is being appended to, and those that are not begun, are copied from the end to the beginning, a
//!   page at a time. Batches are written one after the other, so that before any byte of the copy stands all that was
//!   written earlier: the copy ends as a crash could have left it, in an unfinished tail at worst.

use shards::log::format::{HEADER_BYTES, SegmentHeader};
use shards::storage::{Directory, FileName, Mapped, Storage};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const ATTEMPTS: usize = 100;
const PAGE: usize = 4096;

pub struct Snapshot {
    files: BTreeMap<FileName, Arc<dyn Mapped>>,
    /// Names in the directory that no shard gives.
    pub others: Vec<String>,
}

/// A share in a mapped file.
struct Share(Arc<dyn Mapped>);

impl Mapped for Share {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

struct Copied(Vec<u8>);

impl Mapped for Copied {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Snapshot {
    /// Reads the directory of a shard; again and again while a running server adds and removes files meanwhile.
    pub fn take(path: &Path) -> io::Result<Snapshot> {
        let directory = Directory::existing(path);
        for _ in 0..ATTEMPTS {
            match attempt(&directory, path) {
                Ok(Some(snapshot)) => return Ok(snapshot),
                Ok(None) => {}
                // Removed between the listing and the mapping, unless the directory is not there at all.
                Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("its files change all the time"))
    }

    pub fn bytes(&self, file: FileName) -> Option<&[u8]> {
        self.files.get(&file).map(|mapped| mapped.bytes())
    }

    pub fn share(&self, file: FileName) -> Option<Box<dyn Mapped>> {
        self.files.get(&file).map(|mapped| Box::new(Share(mapped.clone())) as Box<dyn Mapped>)
    }

    /// Numbers of the segments.
    pub fn segments(&self) -> impl Iterator<Item = u32> + '_ {
        self.files.keys().filter_map(|file| match file {
            FileName::Segment(number) => Some(*number),
            _ => None,
        })
    }

    /// Numbers of the indexes.
    pub fn indexes(&self) -> impl Iterator<Item = u32> + '_ {
        self.files.keys().filter_map(|file| match file {
            FileName::Index(number) => Some(*number),
            _ => None,
        })
    }

    /// The highest number of a file.
    pub fn highest(&self) -> u32 {
        self.segments().chain(self.indexes()).max().unwrap_or(0)
    }
}

/// The files of the shard that are really there under the name that the shard gives them, and other names.
fn list(directory: &Directory, path: &Path) -> io::Result<(Vec<FileName>, Vec<String>)> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(path)? {
        names.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    let mut files = directory.files()?;
    files.dedup();
    files.retain(|file| names.remove(&file.to_string()) && *file != FileName::Staged && *file != FileName::Mark);
    names.remove(&FileName::Mark.to_string());
    Ok((files, names.into_iter().collect()))
}

/// `None`: the set of files has changed meanwhile.
fn attempt(directory: &Directory, path: &Path) -> io::Result<Option<Snapshot>> {
    let mark = match std::fs::read(directory.path(FileName::Mark)) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let (listed, others) = list(directory, path)?;
    let mut files: BTreeMap<FileName, Arc<dyn Mapped>> = BTreeMap::new();
    let mut newest: Option<(u64, u32)> = None;
    let mut moving = Vec::new();
    for file in &listed {
        let mapped: Arc<dyn Mapped> = directory.map(*file)?.into();
        if let FileName::Segment(number) = *file {
            match SegmentHeader::decode(mapped.bytes()) {
                Some(header) if header.rewritten.is_none() => newest = newest.max(Some((header.first_seq, number))),
                None if mapped.bytes().iter().take(HEADER_BYTES).all(|byte| *byte == 0) => moving.push(number),
                _ => {}
            }
        }
        files.insert(*file, mapped);
    }
    moving.sort_unstable_by(|a, b| b.cmp(a)); // later ones first
    for number in moving.into_iter().chain(newest.map(|(_, number)| number)) {
        let file = FileName::Segment(number);
        files.insert(file, Arc::new(Copied(copy_backwards(&directory.path(file))?)));
    }
    if list(directory, path)?.0 != listed {
        return Ok(None);
    }
    files.extend(mark.map(|bytes| (FileName::Mark, Arc::new(Copied(bytes)) as Arc<dyn Mapped>)));
    Ok(Some(Snapshot { files, others }))
}

fn copy_backwards(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    for page in (0..bytes.len().div_ceil(PAGE)).rev() {
        let start = page * PAGE;
        let end = bytes.len().min(start + PAGE);
        file.read_exact_at(&mut bytes[start..end], start as u64)?;
    }
    Ok(bytes)
}

fn only_read() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "a snapshot is only read")
}

impl Storage for Snapshot {
    fn files(&self) -> io::Result<Vec<FileName>> {
        Ok(self.files.keys().copied().collect())
    }

    fn map(&self, file: FileName) -> io::Result<Box<dyn Mapped>> {
        self.share(file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, _: FileName, _: u64) -> io::Result<Box<dyn Mapped>> {
        Err(only_read())
    }

    fn write(&self, _: FileName, _: u64, _: &[u8]) -> io::Result<()> {
        Err(only_read())
    }

    fn shrink(&self, _: FileName, _: u64) -> io::Result<()> {
        Err(only_read())
    }

    fn rename(&self, _: FileName, _: FileName) -> io::Result<()> {
        Err(only_read())
    }

    fn remove(&self, _: FileName) -> io::Result<()> {
        Err(only_read())
    }
}
