//! `export` and `import`: records as text or CBOR, between data directories of any number of shards.
//!
//! A file is a sequence of records, each a map of `table` (`database.Table` outside the database `data`), `id` (the key
//! as text, as in a URL), `version` (milliseconds since 1970) and `value` (the record):
//!
//! - `ndjson`: one JSON object a line, in the lossless form of `protocol/format/lossless.rs`:
//!   `{"table":"Sensors","id":"101","version":1763779530123.456,"value":{"id":"101","temp":20.5}}`
//! - `cbor`: a CBOR sequence (RFC 8742) of the same maps.
//!
//! Export reads the log as recovery would, without changing anything: the newest record of each key, from the indexes of
//! all segments of all shards merged. Import writes through the engine, as clients would.

mod import;
mod input;

pub use import::{Summary, import};

use super::ToolError;
use crate::app::App;
use crate::progress::Shown;
use crate::protocol::format::{self, write_lossless};
use crate::shard_thread::now_us;
use shards::document::Writer;
use shards::key::KeyCodec;
use shards::log::format::{Record, RecordKind};
use shards::log::index::{IndexEntry, SegmentIndex, merge};
use shards::log::recover::{self, Survey};
use shards::manifest::{DataDirectory, Manifest};
use shards::progress::Progress;
use shards::scan::owner;
use shards::schema::TableDef;
use shards::storage::{Directory, Mapped};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The form of an exported file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// One JSON object a line.
    #[default]
    Ndjson,
    /// A CBOR sequence.
    Cbor,
}

const OUTPUT_BUFFER_BYTES: usize = 256 << 10;

/// The name of a table in a file.
fn name_of(table: &TableDef) -> String {
    match table.database.as_str() {
        "data" => table.name.clone(),
        database => format!("{database}.{}", table.name),
    }
}

/// A table that is exported.
struct Exported {
    name: String,
    codec: KeyCodec,
}

/// Writes the records of an app's tables (`names`: of these only) to a file or to standard output. Gives their number.
pub fn export(data: &Path, app: &App, names: &[String], form: Form, output: Option<&Path>) -> Result<u64, ToolError> {
    DataDirectory::peek(data)?; // opening would make a new data directory
    let data = DataDirectory::open(data, 1)?;
    let tables = chosen(&data.manifest, app, names)?;
    let progress = Arc::new(Progress::default());
    let shown = Shown::start("reading the log", progress.clone());
    let mut shards = Vec::new();
    for shard in 0..data.manifest.shards {
        let path = data.shard_path(shard);
        fs::metadata(&path).map_err(ToolError::io(&path))?;
        let survey = recover::survey(&Directory::existing(&path), shard, 0, &progress);
        shards.push((survey.map_err(|error| ToolError::log(&path, error))?, path));
    }
    drop(shown);
    let progress = Arc::new(Progress::default());
    let _shown = Shown::start("exporting", progress.clone());
    let export = |out: &mut dyn Write| Exporter { tables, form, shards: &shards }.run(out, &progress);
    match output {
        None => export(&mut BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, io::stdout().lock())),
        Some(path) => to_file(path, export),
    }
}

/// The tables to export, by number.
fn chosen(manifest: &Manifest, app: &App, names: &[String]) -> Result<Vec<Option<Exported>>, ToolError> {
    let known: Vec<String> = app.tables.iter().map(name_of).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        let known = known.join(", ");
        return Err(ToolError::Refused(format!("the app has no table {unknown} (expected one of {known})")));
    }
    let exported = |stored: &shards::manifest::TableName| {
        let table = app.tables.iter().find(|table| table.database == stored.database && table.name == stored.name)?;
        let name = name_of(table);
        let wanted = names.is_empty() || names.contains(&name);
        wanted.then(|| Exported { name, codec: KeyCodec::of(table) })
    };
    Ok(manifest.tables.iter().map(exported).collect())
}

/// Writes a file that gets its name when it is complete. What is no regular file is written to as it is.
fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<u64, ToolError>) -> Result<u64, ToolError> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        let file = File::options().write(true).open(path).map_err(ToolError::io(path))?;
        return write(&mut BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, file));
    }
    let staged = PathBuf::from(format!("{}.incomplete-{}", path.display(), std::process::id()));
    let file = File::create(&staged).map_err(ToolError::io(&staged))?;
    let result = write(&mut BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, &file)).and_then(|count| {
        file.sync_all().and_then(|()| fs::rename(&staged, path)).map_err(ToolError::io(path))?;
        Ok(count)
    });
    if result.is_err() {
        let _ = fs::remove_file(&staged); // the error is what matters
    }
    result
}

struct Exporter<'a> {
    /// By table number.
    tables: Vec<Option<Exported>>,
    form: Form,
    /// What the log of each holds, and where it is.
    shards: &'a [(Survey, PathBuf)],
}

impl Exporter<'_> {
    fn run(&self, out: &mut dyn Write, progress: &Progress) -> Result<u64, ToolError> {
        // A key lives on one shard: all indexes can be merged at once, if those of a shard are in order.
        let indexes: Vec<&SegmentIndex> =
            self.shards.iter().flat_map(|(survey, _)| survey.segments.iter().map(|sound| &sound.index)).collect();
        progress.expect(indexes.iter().map(|index| index.len() as u64).sum());
        let maps: Vec<HashMap<u32, &dyn Mapped>> = self
            .shards
            .iter()
            .map(|(survey, _)| survey.segments.iter().map(|sound| (sound.header.segment, &*sound.map)).collect())
            .collect();
        let now_ms = now_us() / 1000;
        let mut line = Line::default();
        let mut count = 0;
        let mut result = Ok(());
        merge(&indexes, &mut |segment, found| {
            progress.add(1);
            let table = self.tables.get(usize::from(found.table.0)).and_then(Option::as_ref);
            let has_ended = found.kind != RecordKind::Put || found.expires_ms.is_some_and(|at| at <= now_ms);
            if let (Some(table), false, true) = (table, has_ended, result.is_ok()) {
                count += 1;
                let shard = usize::from(owner(found.table, found.key, self.shards.len()));
                let record = read(maps[shard].get(&segment).copied(), &found).ok_or_else(|| {
                    let path = &self.shards[shard].1;
                    ToolError::damaged(path, segment, found.offset.into(), "the checksum of a record is wrong")
                });
                result = record.and_then(|record| {
                    line.write(table, &found, record.document, self.form);
                    out.write_all(&line.bytes).map_err(ToolError::io(Path::new("output")))
                });
            }
        });
        result.and_then(|()| out.flush().map_err(ToolError::io(Path::new("output"))))?;
        Ok(count)
    }
}

/// The record that an index names; `None`: it cannot be read.
fn read<'m>(map: Option<&'m dyn Mapped>, found: &IndexEntry<'_>) -> Option<Record<'m>> {
    let (record, _) = Record::decode(map?.bytes().get(found.offset as usize..)?)?;
    (record.key == found.key && record.table == found.table).then_some(record)
}

/// Reused buffers.
#[derive(Default)]
struct Line {
    text: String,
    /// The record in canonical form.
    envelope: Vec<u8>,
    bytes: Vec<u8>,
}

impl Line {
    fn write(&mut self, table: &Exported, found: &IndexEntry<'_>, document: &[u8], form: Form) {
        self.envelope.clear();
        self.envelope.write_map(4);
        self.envelope.write_str("table");
        self.envelope.write_str(&table.name);
        self.envelope.write_str("id");
        self.envelope.write_str(table.codec.text(found.key, &mut self.text));
        self.envelope.write_str("version");
        self.envelope.write_float(found.version.as_millis());
        self.envelope.write_str("value");
        self.envelope.extend_from_slice(document);
        self.bytes.clear();
        match form {
            Form::Ndjson => {
                write_lossless(&self.envelope, &mut self.bytes);
                self.bytes.push(b'\n');
            }
            Form::Cbor => format::encode(format::Format::Cbor, &self.envelope, &mut self.bytes),
        }
    }
}
