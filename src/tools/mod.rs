//! The verbs that work on a data directory without serving it. Called by the command line.
//!
//! | verb                | changes | while a server runs |
//! |---------------------|---------|---------------------|
//! | `verify`            | nothing | yes |
//! | `repair`            | damaged shards, with `--accept-loss` | no: it takes the lock |
//! | `inspect`           | nothing | yes |
//! | `backup`, `restore` | see [`backup`] | |
//! | `export`, `import`  | see [`transfer`] | |
//!
//! The first three read through [`snapshot`], which holds the files of a shard still; [`examine`] says what is wrong
//! with them and what a repair would do, on top of [`salvage`], which reads segments behind damage.

pub mod backup;
pub mod data;
pub mod examine;
pub mod inspect;
pub mod repair;
pub mod salvage;
pub mod snapshot;
pub mod transfer;
pub mod verify;

use crate::server::ServerError;
use shards::log::recover::RecoveryError;
use shards::manifest::DataError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a verb has not done what it was asked for.
#[derive(Debug)]
pub enum ToolError {
    /// It was asked for something that it does not do.
    Refused(String),
    Data(DataError),
    Io(PathBuf, io::Error),
    /// What is stored in a file cannot be read.
    Damaged {
        file: PathBuf,
        offset: u64,
        what: String,
    },
    /// The shards could not be opened.
    Server(ServerError),
    /// What was to be imported is not all right; what exactly has been said.
    BadInput,
}

impl ToolError {
    /// See `tablecast --help`.
    pub fn exit_code(&self) -> u8 {
        match self {
            ToolError::Refused(_) => 2,
            ToolError::Damaged { .. } | ToolError::Data(DataError::Unreadable(..)) => 65,
            ToolError::Io(..) | ToolError::Data(DataError::Io(..)) => 74,
            ToolError::Server(error) => error.exit_code(),
            ToolError::Data(_) | ToolError::BadInput => 1,
        }
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> ToolError + use<> {
        let path = path.to_owned();
        move |error| ToolError::Io(path, error)
    }

    /// What is wrong with the log in a shard's directory.
    fn log(directory: &Path, error: RecoveryError) -> ToolError {
        match error {
            RecoveryError::Io(error) => ToolError::Io(directory.to_owned(), error),
            RecoveryError::Corrupt { at, seq, durable_seq } => {
                let what = format!("events {seq} to {durable_seq} were acknowledged and cannot be read");
                ToolError::damaged(directory, at.segment, at.offset, what)
            }
            RecoveryError::Foreign(at) => {
                let what = "it belongs to another shard, another place or another log";
                ToolError::damaged(directory, at.segment, at.offset, what)
            }
        }
    }

    fn damaged(directory: &Path, segment: u32, offset: u64, what: impl Into<String>) -> ToolError {
        let file = directory.join(shards::storage::FileName::Segment(segment).to_string());
        ToolError::Damaged { file, offset, what: what.into() }
    }
}

impl std::fmt::Display for ToolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ToolError::Refused(why) => f.write_str(why),
            ToolError::Data(error) => write!(f, "{error}"),
            ToolError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            ToolError::Damaged { file, offset, what } => {
                write!(f, "{} is damaged at offset {offset}: {what}", file.display())
            }
            ToolError::Server(error) => write!(f, "{error}"),
            ToolError::BadInput => f.write_str("some of the input was not imported"),
        }
    }
}

impl From<DataError> for ToolError {
    fn from(error: DataError) -> Self {
        ToolError::Data(error)
    }
}
