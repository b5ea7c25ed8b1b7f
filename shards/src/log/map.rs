//! Read-only maps of segment files. A store through a writable map of a sparse file kills the process on a full disk;
//! a read-only map sees what was written to the file at once.

use crate::storage::Mapped;
use memmap2::Mmap;
use std::fs::File;
use std::io;

pub struct FileMap(Mmap);

impl FileMap {
    pub fn new(file: &File) -> io::Result<FileMap> {
        // SAFETY: segments are made at full size, other files are whole when they get their names, none is truncated
        // while mapped, and the data directory is locked against other servers. Bytes may change under the map only
        // where the owning shard appends, behind what it reads.
        unsafe { Mmap::map(file) }.map(FileMap)
    }
}

impl Mapped for FileMap {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}
