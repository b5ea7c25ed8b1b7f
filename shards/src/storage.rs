//! The small trait behind which the disk sits, and the real disk behind it: one directory per shard, one file per
//! segment. Used at start (recovery) and to make segments; the appends themselves are requests that the shard hands out
//! ([`StorageRequest`]) and whose completions it is told.

use crate::log::map::FileMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The bytes of one segment, as the disk shows them now: those written earlier are seen at once.
pub trait SegmentMap: Send {
    fn bytes(&self) -> &[u8];
}

pub trait Storage {
    /// Numbers of the segments there are, rising.
    fn segments(&self) -> io::Result<Vec<u32>>;
    fn map(&self, segment: u32) -> io::Result<Box<dyn SegmentMap>>;
    /// Makes a segment of `bytes` zeros that are really on disk, so that appending needs no allocation.
    fn create(&self, segment: u32, bytes: u64) -> io::Result<Box<dyn SegmentMap>>;
    /// Writes and flushes.
    fn write(&self, segment: u32, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Cuts off zeros behind the last batch. Never called on a segment that is mapped.
    fn shrink(&self, segment: u32, bytes: u64) -> io::Result<()>;
    fn remove(&self, segment: u32) -> io::Result<()>;
}

/// What a shard asks of the disk while it runs. At most one of each kind is under way.
pub enum StorageRequest {
    /// Make a segment ([`Storage::create`]), in the background.
    Create { segment: u32, bytes: u64 },
    /// Write, then fdatasync; both must have succeeded before the completion says so.
    Commit { segment: u32, offset: u64, data: Arc<Vec<u8>> },
}

/// The answer to a [`StorageRequest`].
pub enum StorageCompletion {
    Created { segment: u32, result: io::Result<Box<dyn SegmentMap>> },
    Committed(io::Result<()>),
}

/// Segments as files of one directory.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory of one shard; made if absent.
    pub fn open(path: &Path) -> io::Result<Directory> {
        std::fs::create_dir_all(path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Directory { path: path.to_owned() })
    }

    pub fn segment_path(&self, segment: u32) -> PathBuf {
        self.path.join(format!("{segment:08}.log"))
    }

    /// A descriptor for appending.
    pub fn open_segment(&self, segment: u32) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.segment_path(segment))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn fill(&self, path: &Path, bytes: u64) -> io::Result<File> {
        const ZEROS: &[u8] = &[0; 256 << 10];
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        // SAFETY: a plain system call on a descriptor that is open for the length of the call.
        let error = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) };
        if error != 0 {
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
    fn segments(&self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if let Some(number) = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok()) {
                found.push(number);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn map(&self, segment: u32) -> io::Result<Box<dyn SegmentMap>> {
        let file = File::open(self.segment_path(segment))?;
        // After a failed flush the cache may show bytes that the disk does not hold: read what is really there.
        // SAFETY: a plain system call on a descriptor that is open for the length of the call; it is advice only.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        Ok(Box::new(FileMap::new(&file)?))
    }

    fn create(&self, segment: u32, bytes: u64) -> io::Result<Box<dyn SegmentMap>> {
        let path = self.segment_path(segment);
        let file = self.fill(&path, bytes).inspect_err(|_| {
            let _ = std::fs::remove_file(&path); // give the space back; the error is what matters
        })?;
        self.sync_directory()?;
        Ok(Box::new(FileMap::new(&file)?))
    }

    fn write(&self, segment: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let file = self.open_segment(segment)?;
        file.write_all_at(data, offset)?;
        file.sync_data()
    }

    fn shrink(&self, segment: u32, bytes: u64) -> io::Result<()> {
        let file = self.open_segment(segment)?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn remove(&self, segment: u32) -> io::Result<()> {
        std::fs::remove_file(self.segment_path(segment))?;
        self.sync_directory()
    }
}
