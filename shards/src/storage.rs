//! The small trait behind which the disk sits, and the real disk behind it: one directory per shard. Used at start
//! (recovery), by the jobs that run behind the shard's back, and to make segments; the appends themselves are requests
//! that the shard hands out ([`StorageRequest`]) and whose completions it is told.

use crate::limits::WRITE_BEHIND_SHARE;
use crate::log::job::{Done, Job};
use crate::log::map::FileMap;
use crate::log::mark::{Mark, SLOT_BYTES};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// A file of a shard's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// `00000001.log`: batches of records.
    Segment(u32),
    /// `00000001.index`: what stands where in the segment of that number.
    Index(u32),
    /// `mark`: how far the log is known to be on disk.
    Mark,
    /// `staged`: a segment or an index that is being written; it gets its name when it is complete.
    Staged,
}

impl FileName {
    fn parse(name: &str) -> Option<FileName> {
        match name {
            "mark" => Some(FileName::Mark),
            "staged" => Some(FileName::Staged),
            _ => match name.split_once('.')? {
                (number, "log") => number.parse().ok().map(FileName::Segment),
                (number, "index") => number.parse().ok().map(FileName::Index),
                _ => None,
            },
        }
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FileName::Segment(number) => write!(f, "{number:08}.log"),
            FileName::Index(number) => write!(f, "{number:08}.index"),
            FileName::Mark => f.write_str("mark"),
            FileName::Staged => f.write_str("staged"),
        }
    }
}

/// The bytes of a file, as the disk shows them now: those written earlier are seen at once.
pub trait Mapped: Send + Sync {
    fn bytes(&self) -> &[u8];
}

/// Every operation that changes something is on disk when it returns, but for [`Storage::write_behind`].
pub trait Storage {
    /// The files there are, in the order of [`FileName`].
    fn files(&self) -> io::Result<Vec<FileName>>;
    fn map(&self, file: FileName) -> io::Result<Box<dyn Mapped>>;
    /// Makes a file of `bytes` zeros that are really on disk, so that appending needs no allocation. A file of that
    /// name is replaced.
    fn create(&self, file: FileName, bytes: u64) -> io::Result<Box<dyn Mapped>>;
    /// Writes and flushes; makes the file if it is absent.
    fn write(&self, file: FileName, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Writes, and makes the file if it is absent; the next [`Storage::write`] to the file flushes it. For much data that nobody waits for: it may take its
    /// time, so that the disk is free for others.
    fn write_behind(&self, file: FileName, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write(file, offset, data)
    }
    /// Cuts a file off. Never called on one that is mapped.
    fn shrink(&self, file: FileName, bytes: u64) -> io::Result<()>;
    /// Gives a file that was written another name, in one step; a file of that name is replaced.
    fn rename(&self, from: FileName, to: FileName) -> io::Result<()>;
    fn remove(&self, file: FileName) -> io::Result<()>;
}

/// What a shard asks of the disk while it runs. At most one of each kind is under way.
pub enum StorageRequest {
    /// Make a segment ([`Storage::create`]), in the background.
    Create { segment: u32, bytes: u64 },
    /// Write, then fdatasync; both must have succeeded before the completion says so.
    Commit { segment: u32, offset: u64, data: Arc<Vec<u8>> },
    /// Write a slot of the mark file ([`crate::log::mark`]), in the background.
    Mark { shard: u16, mark: Mark },
    /// Something that may take long ([`Job::run`]), in the background.
    Job(Job),
}

impl StorageRequest {
    /// Carries the request out, here and now.
    pub fn run(self, storage: &dyn Storage) -> StorageCompletion {
        match self {
            StorageRequest::Create { segment, bytes } => {
                let result = storage.create(FileName::Segment(segment), bytes);
                StorageCompletion::Created { segment, result }
            }
            StorageRequest::Commit { segment, offset, data } => {
                StorageCompletion::Committed(storage.write(FileName::Segment(segment), offset, &data))
            }
            StorageRequest::Mark { shard, mark } => {
                let bytes = mark.encode(shard);
                let result = storage.write(FileName::Mark, mark.slot * SLOT_BYTES, &bytes);
                StorageCompletion::Marked(result.map(|()| mark))
            }
            StorageRequest::Job(job) => StorageCompletion::Done(job.run(storage)),
        }
    }
}

/// The answer to a [`StorageRequest`].
pub enum StorageCompletion {
    Created { segment: u32, result: io::Result<Box<dyn Mapped>> },
    Committed(io::Result<()>),
    Marked(io::Result<Mark>),
    Done(io::Result<Done>),
}

/// The files of one directory.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    /// Part of the time that writing behind may keep the disk busy: one in so many.
    share: u32,
}

impl Directory {
    /// The directory of one shard; made if absent.
    pub fn open(path: &Path) -> io::Result<Directory> {
        std::fs::create_dir_all(path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Directory::existing(path))
    }

    /// A directory that is there, or that is only read.
    pub fn existing(path: &Path) -> Directory {
        Directory { path: path.to_owned(), share: 1 }
    }

    /// The same, for work beside which others commit: writing behind leaves the disk to them most of the time.
    pub fn giving_way(&self) -> Directory {
        Directory { path: self.path.clone(), share: WRITE_BEHIND_SHARE }
    }

    pub fn path(&self, file: FileName) -> PathBuf {
        self.path.join(file.to_string())
    }

    /// A descriptor for appending.
    pub fn open_segment(&self, segment: u32) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path(FileName::Segment(segment)))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn fill(&self, path: &Path, bytes: u64) -> io::Result<File> {
        const ZEROS: &[u8] = &[0; 256 << 10];
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        // SAFETY: a plain system call on a descriptor that is open for the length of the call.
        let error = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) };
        // Where it is not known, or was interrupted, the zeros that follow do it.
        if !matches!(error, 0 | libc::EOPNOTSUPP | libc::EINTR) {
            return Err(io::Error::from_raw_os_error(error));
        }
        let mut at = 0;
        while at < bytes {
            let count = ZEROS.len().min((bytes - at) as usize);
            file.write_all_at(&ZEROS[..count], at)?;
            at += count as u64;
        }
        file.sync_all()?;
        // Pages that stay cached as large folios would be written back whole for each small commit.
        // SAFETY: as above; the result is advice only.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        Ok(file)
    }
}

impl Storage for Directory {
    fn files(&self) -> io::Result<Vec<FileName>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            found.extend(entry?.file_name().to_str().and_then(FileName::parse));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn map(&self, file: FileName) -> io::Result<Box<dyn Mapped>> {
        let file = File::open(self.path(file))?;
        // After a failed flush the cache may show bytes that the disk does not hold: read what is really there.
        // SAFETY: a plain system call on a descriptor that is open for the length of the call; it is advice only.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        Ok(Box::new(FileMap::new(&file)?))
    }

    fn create(&self, file: FileName, bytes: u64) -> io::Result<Box<dyn Mapped>> {
        let path = self.path(file);
        let file = self.fill(&path, bytes).inspect_err(|_| {
            let _ = std::fs::remove_file(&path); // give the space back; the error is what matters
        })?;
        self.sync()?;
        Ok(Box::new(FileMap::new(&file)?))
    }

    fn write(&self, file: FileName, offset: u64, data: &[u8]) -> io::Result<()> {
        let path = self.path(file);
        let (file, is_new) = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => (file, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (File::create(&path)?, true),
            Err(error) => return Err(error),
        };
        file.write_all_at(data, offset)?;
        file.sync_data()?;
        if is_new { self.sync() } else { Ok(()) }
    }

    fn write_behind(&self, file: FileName, offset: u64, data: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.path(file))?;
        let started = Instant::now();
        file.write_all_at(data, offset)?;
        let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        // No flush of the device and none of the journal: commits do not wait behind this.
        // SAFETY: a plain system call on a descriptor that is open for the length of the call; a file system that does
        // not know it leaves the data to the flush that follows.
        unsafe { libc::sync_file_range(file.as_raw_fd(), offset as i64, data.len() as i64, flags) };
        std::thread::sleep(started.elapsed() * (self.share - 1));
        Ok(())
    }

    fn shrink(&self, file: FileName, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(file))?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn rename(&self, from: FileName, to: FileName) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))?;
        self.sync()
    }

    fn remove(&self, file: FileName) -> io::Result<()> {
        std::fs::remove_file(self.path(file))?;
        self.sync()
    }
}
