//! The data directory: `manifest.json` says its format, how many shards wrote it, and which number each table has in
//! the log; `lock` keeps a second server out; `shard-NN/` holds the segments of a shard.

use crate::limits::TABLES_MAX;
use crate::log::format::FORMAT_VERSION;
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
    /// A table's number is its index here; tables that are no longer declared keep theirs.
    pub tables: Vec<TableName>,
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
    Shards {
        found: u16,
        asked: u16,
    },
    TooManyTables,
}

impl std::fmt::Display for DataError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DataError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            DataError::Locked(path) => write!(f, "{}: another server has this data directory open", path.display()),
            DataError::Unreadable(path, error) => write!(f, "{}: {error}", path.display()),
            DataError::Format { found } => {
                write!(f, "the data directory has format {found}; this version reads format {FORMAT_VERSION}")
            }
            DataError::Shards { found, asked } => write!(
                f,
                "the data directory was written by {found} shards and cannot be opened by {asked} yet; start with --shards {found}"
            ),
            DataError::TooManyTables => {
                write!(f, "a data directory holds at most {TABLES_MAX} tables, dropped ones included")
            }
        }
    }
}

/// An open data directory. Dropping it lets another server in.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    pub manifest: Manifest,
    _lock: File,
}

impl DataDirectory {
    /// Opens a data directory, or makes one for `shards` shards (`None`: as many as it has, or `default_shards`).
    pub fn open(path: &Path, shards: Option<u16>, default_shards: u16) -> Result<DataDirectory, DataError> {
        let wrap = |path: &Path| {
            let path = path.to_owned();
            move |error| DataError::Io(path, error)
        };
        std::fs::create_dir_all(path).map_err(wrap(path))?;
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
                Manifest { format: FORMAT_VERSION, shards: shards.unwrap_or(default_shards), tables: Vec::new() }
            }
            Err(error) => return Err(DataError::Io(file, error)),
        };
        if manifest.format != FORMAT_VERSION {
            return Err(DataError::Format { found: manifest.format });
        }
        if let Some(asked) = shards.filter(|asked| *asked != manifest.shards) {
            return Err(DataError::Shards { found: manifest.shards, asked });
        }
        Ok(DataDirectory { path: path.to_owned(), manifest, _lock: lock })
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
    fn save(&self) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(&self.manifest)?;
        let fresh = self.path.join("manifest.json.new");
        let mut file = File::create(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&fresh, self.path.join("manifest.json"))?;
        File::open(&self.path)?.sync_all()
    }

    pub fn shard_path(&self, shard: u16) -> PathBuf {
        self.path.join(format!("shard-{shard:02}"))
    }
}
