//! The data directory: `manifest.json` says its format, how many shards wrote it, and which number each table has in
//! the log; `lock` keeps a second server out; `shard-NN/` holds the segments of a shard, `shard-NN.L/` those of layout
//! `L`: each change of the number of shards makes a new layout (`reshard.rs`).

use crate::limits::TABLES_MAX;
use crate::log::format::{FORMAT_VERSION, FORMAT_VERSION_LEAST};
use crate::schema::{TableDef, TableId};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Version of the log format.
    pub format: u16,
    pub shards: u16,
    /// Which directories hold the shards; rises with each change of their number.
    #[serde(default)]
    pub layout: u32,
    /// A table's number is its index here; tables that are no longer declared keep theirs.
    pub tables: Vec<TableName>,
}

impl Manifest {
    /// The tables that are the server's own.
    pub fn system_tables(&self) -> Vec<TableId> {
        let system = self.tables.iter().enumerate().filter(|(_, name)| name.database == crate::session::SYSTEM);
        system.map(|(number, _)| TableId(number as u16)).collect()
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct TableName {
    pub database: String,
    pub name: String,
}

#[derive(Debug)]
pub enum DataError {
    Io(PathBuf, io::Error),
    /// Another server has it open.
    Locked(PathBuf),
    Unreadable(PathBuf, serde_json::Error),
    Format {
        found: u16,
    },
    /// A shard has no directory, though others have data.
    NoShard(PathBuf),
    /// There are shards, but nothing says which tables are in them.
    NoManifest(PathBuf),
    TooManyTables,
}

impl std::fmt::Display for DataError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DataError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            DataError::Locked(path) => write!(f, "{}: another server has this data directory open", path.display()),
            DataError::Unreadable(path, error) => write!(f, "{}: {error}", path.display()),
            DataError::Format { found } => {
                write!(
                    f,
                    "the data directory has format {found}; this version reads formats {FORMAT_VERSION_LEAST} to \
                     {FORMAT_VERSION}"
                )
            }
            DataError::NoShard(path) => {
                write!(
                    f,
                    "{} is missing, with all its records; restore it from a backup, or make an empty folder of that name to \
                     go on without them",
                    path.display()
                )
            }
            DataError::NoManifest(path) => {
                write!(
                    f,
                    "{}: manifest.json is missing beside the data of shards; restore it from a backup",
                    path.display()
                )
            }
            DataError::TooManyTables => {
                write!(f, "a data directory holds at most {TABLES_MAX} tables, dropped ones included")
            }
        }
    }
}

fn check_format(manifest: &Manifest) -> Result<(), DataError> {
    let known = (FORMAT_VERSION_LEAST..=FORMAT_VERSION).contains(&manifest.format);
    if known { Ok(()) } else { Err(DataError::Format { found: manifest.format }) }
}

/// An open data directory. Dropping it lets another server in.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    pub manifest: Manifest,
    _lock: File,
}

impl DataDirectory {
    /// Opens a data directory, or makes one for `shards` shards.
    pub fn open(path: &Path, shards: u16) -> Result<DataDirectory, DataError> {
        let wrap = |path: &Path| {
            let path = path.to_owned();
            move |error| DataError::Io(path, error)
        };
        std::fs::create_dir_all(path).map_err(wrap(path))?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(wrap(parent))?;
        }
        let lock = File::create(path.join("lock")).map_err(wrap(path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(DataError::Locked(path.to_owned())),
            Err(std::fs::TryLockError::Error(error)) => return Err(DataError::Io(path.to_owned(), error)),
        }
        let file = path.join("manifest.json");
        let manifest = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| DataError::Unreadable(file, error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if holds_shards(path).map_err(wrap(path))? {
                    return Err(DataError::NoManifest(path.to_owned()));
                }
                Manifest { format: FORMAT_VERSION, shards, layout: 0, tables: Vec::new() }
            }
            Err(error) => return Err(DataError::Io(file, error)),
        };
        check_format(&manifest)?;
        let is_older = manifest.format < FORMAT_VERSION;
        let manifest = Manifest { format: FORMAT_VERSION, ..manifest };
        let data = DataDirectory { path: path.to_owned(), manifest, _lock: lock };
        data.remove_other_layouts().map_err(wrap(path))?;
        // All directories are made before the first segment is.
        let paths = || (0..data.manifest.shards).map(|shard| data.shard_path(shard));
        match paths().find(|path| !path.exists()) {
            Some(missing) if paths().any(|path| holds_files(&path)) => Err(DataError::NoShard(missing)),
            _ if is_older => data.save().map_err(wrap(path)).map(|()| data),
            _ => Ok(data),
        }
    }

    /// The manifest of a directory that a server may have open: for looking only.
    pub fn peek(path: &Path) -> Result<Manifest, DataError> {
        let file = path.join("manifest.json");
        let text = std::fs::read(&file).map_err(|error| DataError::Io(file.clone(), error))?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| DataError::Unreadable(file, error))?;
        check_format(&manifest)?;
        Ok(manifest)
    }

    /// Shards of a layout that was left, or never finished.
    fn remove_other_layouts(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            // Only what bears a name that is given here: a copy that somebody keeps is not touched.
            let Some(name) = name.to_str().and_then(|name| name.strip_prefix("shard-")) else { continue };
            let (shard, layout) = name.split_once('.').unwrap_or((name, "0"));
            let (Ok(shard), Ok(layout)) = (shard.parse(), layout.parse()) else { continue };
            if layout != self.manifest.layout && entry.file_name() == *shard_folder(shard, layout) {
                self.keep_damaged(&entry.path(), name)?;
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// What repair has taken out of a shard is not removed with it.
    fn keep_damaged(&self, path: &Path, shard: &str) -> io::Result<()> {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().filter(|name| name.starts_with("damaged-")) {
                std::fs::rename(entry.path(), self.path.join(format!("{name}-of-shard-{shard}")))?;
            }
        }
        Ok(())
    }

    /// The number of a layout that is to be written.
    pub(crate) fn begin_layout(&self) -> Result<u32, DataError> {
        // The old manifest must be there to go back to.
        self.save().map_err(|error| DataError::Io(self.path.clone(), error))?;
        Ok(self.manifest.layout + 1)
    }

    /// Makes a layout that was written in full the current one.
    pub(crate) fn switch_layout(&mut self, shards: u16, layout: u32) -> Result<(), DataError> {
        let before = (self.manifest.shards, self.manifest.layout);
        (self.manifest.shards, self.manifest.layout) = (shards, layout);
        let saved = self.save();
        if saved.is_err() {
            (self.manifest.shards, self.manifest.layout) = before;
        }
        saved.and_then(|()| self.remove_other_layouts()).map_err(|error| DataError::Io(self.path.clone(), error))
    }

    /// The numbers of the declared tables, in their order; new ones are given numbers, and the manifest is on disk
    /// before any record uses them.
    pub fn register<'a>(&mut self, tables: impl Iterator<Item = &'a TableDef>) -> Result<Vec<TableId>, DataError> {
        let mut ids = Vec::new();
        for table in tables {
            let known = |other: &TableName| other.database == table.database && other.name == table.name;
            let at = match self.manifest.tables.iter().position(known) {
                Some(at) => at,
                None => {
                    self.manifest.tables.push(TableName { database: table.database.clone(), name: table.name.clone() });
                    self.manifest.tables.len() - 1
                }
            };
            if at >= TABLES_MAX {
                return Err(DataError::TooManyTables);
            }
            ids.push(TableId(at as u16));
        }
        self.save().map_err(|error| DataError::Io(self.path.join("manifest.json"), error))?;
        Ok(ids)
    }

    /// Replaces the manifest as a whole: after a crash there is the old one or the new one.
    pub(crate) fn save(&self) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&self.manifest)?;
        let fresh = self.path.join("manifest.json.new");
        let mut file = File::create(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&fresh, self.path.join("manifest.json"))?;
        File::open(&self.path)?.sync_all()
    }

    pub fn shard_path(&self, shard: u16) -> PathBuf {
        self.path_in_layout(shard, self.manifest.layout)
    }

    pub(crate) fn path_in_layout(&self, shard: u16, layout: u32) -> PathBuf {
        self.path.join(shard_folder(shard, layout))
    }
}

fn holds_files(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

fn holds_shards(path: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(path)? {
        if entry?.file_name().to_str().is_some_and(|name| name.starts_with("shard-")) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The folder of a shard inside the data directory.
pub fn shard_folder(shard: u16, layout: u32) -> String {
    if layout == 0 { format!("shard-{shard:02}") } else { format!("shard-{shard:02}.{layout}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data directory of two shards with a file in each, in layout `layout`.
    fn made(path: &Path, layout: u32) {
        let mut data = DataDirectory::open(path, 2).unwrap();
        data.manifest.layout = layout;
        data.save().unwrap();
        for shard in 0..2 {
            std::fs::create_dir_all(data.shard_path(shard)).unwrap();
            std::fs::write(data.shard_path(shard).join("00000001.log"), b"x").unwrap();
        }
    }

    #[test]
    fn what_is_missing_is_never_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        made(folder.path(), 1);
        std::fs::rename(folder.path().join("shard-01.1"), folder.path().join("elsewhere")).unwrap();
        let refused = DataDirectory::open(folder.path(), 2).unwrap_err();
        assert!(matches!(&refused, DataError::NoShard(path) if path.ends_with("shard-01.1")), "{refused}");
        std::fs::remove_file(folder.path().join("manifest.json")).unwrap();
        let refused = DataDirectory::open(folder.path(), 2).unwrap_err();
        assert!(matches!(refused, DataError::NoManifest(_)), "{refused}");
        assert!(folder.path().join("shard-00.1/00000001.log").exists(), "nothing is removed");
    }

    #[test]
    fn other_layouts_go_but_not_what_somebody_keeps() {
        let folder = tempfile::tempdir().unwrap();
        made(folder.path(), 0);
        made(folder.path(), 2);
        let old = folder.path().join("shard-00");
        std::fs::create_dir_all(old.join("damaged-2026")).unwrap();
        for kept in ["shard-00-copy", "shard-0.1", "shard-00.1.bak"] {
            std::fs::create_dir_all(folder.path().join(kept)).unwrap();
        }
        drop(DataDirectory::open(folder.path(), 2).unwrap());
        assert!(!old.exists() && !folder.path().join("shard-01").exists());
        for kept in ["shard-00-copy", "shard-0.1", "shard-00.1.bak", "shard-00.2", "damaged-2026-of-shard-00"] {
            assert!(folder.path().join(kept).exists(), "{kept}");
        }
    }
}
