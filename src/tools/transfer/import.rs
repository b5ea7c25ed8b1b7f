//! `import`: records from a file, written through the engine. All shards are driven in this thread; each has thousands
//! of writes in flight, which share its flushes.

use super::input::{Input, Item, Parts};
use super::{Form, name_of};
use crate::app::App;
use crate::progress::Shown;
use crate::protocol::explain;
use crate::protocol::format::{Decoder, Format};
use crate::protocol::http::health::Health;
use crate::protocol::payload::is_map;
use crate::server::{self, Opening, ServerError};
use crate::settings::Settings;
use crate::shard_thread::now_us;
use crate::tools::ToolError;
use shards::command::{Completion, ConnectionRef, Operation, Outcome, Refusal, Token, Write};
use shards::document::{Reader, Token as Piece, attribute};
use shards::event::Body;
use shards::key::KeyCodec;
use shards::link::{Wake, mesh};
use shards::manifest::DataDirectory;
use shards::progress::Progress;
use shards::scan::owner;
use shards::schema::{TableDef, TableId};
use shards::shard::Shard;
use shards::storage::{Directory, StorageRequest};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// How much larger than a record its line may be: escapes of six bytes for one, and names.
const LINE_SHARE: usize = 8;
const INPUT_BUFFER_BYTES: usize = 1 << 20;

/// What an import has done.
#[derive(Debug, Default)]
pub struct Summary {
    pub imported: u64,
    pub refused: u64,
}

/// Writes the records of a file, or of standard input, to the data directory of `settings`. What is wrong with a record
/// is said on standard error, and the import goes on.
pub fn import(settings: &Settings, app: App, form: Form, file: Option<&Path>) -> Result<Summary, ToolError> {
    let path = file.unwrap_or(Path::new("standard input"));
    let progress = Arc::new(Progress::default());
    let from: Box<dyn BufRead> = match file {
        None => Box::new(io::stdin().lock()),
        Some(path) => {
            let file = File::open(path).map_err(ToolError::io(path))?;
            progress.expect(file.metadata().map_err(ToolError::io(path))?.len());
            Box::new(BufReader::with_capacity(INPUT_BUFFER_BYTES, file))
        }
    };
    let mut import = Import::open(settings, app, form)?;
    let _shown = Shown::start("importing", progress.clone());
    let mut input = Input::new(from, form, LINE_SHARE * import.document_bytes_max);
    let result = import.read(&mut input, &progress, path);
    // What was taken in before anything went wrong is finished.
    import.finish().and(result)?;
    Ok(import.summary)
}

/// Shards of one thread need not be woken.
struct Awake;

impl Wake for Awake {
    fn wake(&self) {}
}

struct Table {
    id: TableId,
    codec: KeyCodec,
    definition: Arc<TableDef>,
}

struct Import {
    form: Form,
    tables: HashMap<String, Table>,
    shards: Vec<Shard>,
    directories: Vec<Directory>,
    document_bytes_max: usize,
    started: Instant,
    decoder: Decoder,
    scratch: Vec<u8>,
    summary: Summary,
    /// Its lock keeps servers out.
    data: DataDirectory,
}

impl Import {
    fn open(settings: &Settings, app: App, form: Form) -> Result<Import, ToolError> {
        let mut data = server::open_data(settings).map_err(|error| match error {
            ServerError::Data(error) => ToolError::Data(error),
            error => ToolError::Server(error),
        })?;
        let ids = data.register(app.tables.iter())?;
        let tables: Vec<(TableId, Arc<TableDef>)> = ids.into_iter().zip(app.tables.into_iter().map(Arc::new)).collect();
        let count = usize::from(data.manifest.shards);
        let wakes: Vec<Arc<dyn Wake>> = (0..count).map(|_| Arc::new(Awake) as Arc<dyn Wake>).collect();
        let directory = |shard| {
            let path = data.shard_path(shard);
            Directory::open(&path).map_err(ToolError::io(&path))
        };
        let directories = (0..data.manifest.shards).map(directory).collect::<Result<Vec<_>, _>>()?;
        let limits = server::limits(settings);
        let opening = Opening { tables: &tables, limits, directories: &directories, null_on_delete: false };
        let shards = opening.open_shards(mesh(&wakes), true, &Health::new(count)).map_err(|error| match error {
            ServerError::Recovery { shard, error } => ToolError::log(&data.shard_path(shard), error),
            error => ToolError::Server(error),
        })?;
        let table = |(id, definition): (TableId, Arc<TableDef>)| {
            (name_of(&definition), Table { id, codec: KeyCodec::of(&definition), definition })
        };
        Ok(Import {
            form,
            tables: tables.into_iter().map(table).collect(),
            shards,
            directories,
            // Patches may have made a record twice as large as a packet.
            document_bytes_max: 2 * limits.packet_bytes_max,
            started: Instant::now(),
            decoder: Decoder::default(),
            scratch: Vec::new(),
            summary: Summary::default(),
            data,
        })
    }

    fn read(&mut self, input: &mut Input<Box<dyn BufRead>>, progress: &Progress, path: &Path) -> Result<(), ToolError> {
        loop {
            let before = input.consumed;
            match input.next().map_err(ToolError::io(path))? {
                Item::Record(number, item) => {
                    if let Err(what) = self.submit(number, item)? {
                        self.refuse(number, &what);
                    }
                }
                Item::TooLarge(number) => self.refuse(number, "it is larger than a record can be"),
                Item::Broken { number, at, what } => {
                    self.refuse(number, &format!("{what}, at byte {at} of the input; what follows is not read"));
                    return Ok(());
                }
                Item::End => return Ok(()),
            }
            progress.add(input.consumed - before);
        }
    }

    fn refuse(&mut self, number: u64, what: &str) {
        self.summary.refused += 1;
        let item = if self.form == Form::Ndjson { "line" } else { "item" };
        // Nobody may be reading; the import goes on all the same.
        let _ = writeln!(io::stderr(), "{item} {number}: {what}");
    }

    /// Hands a record to its shard. The error within is what is wrong with the record.
    fn submit(&mut self, number: u64, item: &[u8]) -> Result<Result<(), String>, ToolError> {
        let (table, body) = match self.record(item) {
            Ok(record) => record,
            Err(what) => return Ok(Err(what)),
        };
        let shard = owner(table, body.key(), self.shards.len());
        let at = usize::from(shard);
        while !self.shards[at].has_room() {
            self.turn()?;
        }
        let connection = ConnectionRef { shard, index: 0, generation: 0 };
        let token = Some(Token { connection, tag: number });
        self.shards[at].submit(Write { token, ..Write::new(Operation::Put, table, body) });
        Ok(Ok(()))
    }

    /// Decodes a record: its table, its key and its document.
    fn record(&mut self, item: &[u8]) -> Result<(TableId, Body), String> {
        let Parts { table, id, value } = Parts::of(self.form, item)?;
        let table = table.ok_or("table is missing")?;
        let decoded;
        let name = match self.plain(table) {
            Some(name) => name,
            None => {
                decoded = self.decode_text(table)?;
                &decoded
            }
        };
        let Some(Table { id: table, codec, definition }) = self.tables.get(name) else {
            return Err(format!("the app has no table {name:?}"));
        };
        let (table, codec) = (*table, *codec);
        let mut bytes = Vec::with_capacity(item.len());
        if let Some(text) = id.and_then(|id| self.plain(id)) {
            codec.encode_text(text, &mut bytes).map_err(|error| format!("id: {error}"))?;
        } else if let Some(id) = id {
            self.scratch.clear();
            self.decoder.decode(self.form.format(), id, &mut self.scratch).map_err(|error| format!("id: {error}"))?;
            encode_key(codec, &self.scratch, &mut bytes)?;
        }
        let value = value.ok_or("value is missing")?;
        self.scratch.clear();
        match self.form {
            Form::Ndjson => self.decoder.decode_lossless(value, &mut self.scratch),
            Form::Cbor => self.decoder.decode(Format::Cbor, value, &mut self.scratch),
        }
        .map_err(|error| format!("value: {error}"))?;
        if !is_map(&self.scratch) {
            return Err("value must be an object".to_owned());
        }
        if self.scratch.len() > self.document_bytes_max {
            return Err(explain(&Refusal::TooLarge));
        }
        if id.is_none() {
            let named = definition.primary_key.and_then(|at| attribute(&self.scratch, &definition.attributes[at].name));
            encode_key(codec, named.ok_or("id is missing")?, &mut bytes)?;
        }
        let key_bytes = bytes.len();
        bytes.extend_from_slice(&self.scratch);
        Ok((table, Body::from_parts(bytes, key_bytes, 0)))
    }

    /// Text that stands in the input as it is: most names and keys do.
    fn plain<'a>(&self, value: &'a [u8]) -> Option<&'a str> {
        let [b'"', text @ .., b'"'] = value else { return None };
        let is_plain = self.form == Form::Ndjson && text.iter().all(|byte| *byte >= 0x20 && !b"\"\\".contains(byte));
        std::str::from_utf8(text).ok().filter(|_| is_plain)
    }

    fn decode_text(&mut self, text: &[u8]) -> Result<String, String> {
        self.scratch.clear();
        self.decoder.decode(self.form.format(), text, &mut self.scratch).map_err(|error| format!("table: {error}"))?;
        match Reader::new(&self.scratch).next() {
            Some(Piece::Str(text)) => Ok(text.to_owned()),
            _ => Err("table must be text".to_owned()),
        }
    }

    /// A turn of every shard, the disk's part done here and now.
    fn turn(&mut self) -> Result<(), ToolError> {
        let ticks_us = self.started.elapsed().as_micros() as u64;
        let mut answers = Vec::new();
        for (shard, directory) in self.shards.iter_mut().zip(&self.directories) {
            shard.begin_turn(now_us(), ticks_us);
            shard.receive();
            while let Some(request) = shard.storage_request() {
                let is_needed = matches!(request, StorageRequest::Commit { .. });
                let result = shard.storage_complete(request.run(directory));
                // A segment that cannot be made shows in the writes that find no room; other work is put off.
                if let Err(error) = result
                    && is_needed
                {
                    return Err(ToolError::Io(self.data.shard_path(shard.index()), error));
                }
            }
            while let Some(completion) = shard.completion() {
                if let Completion::Outcome { token, outcome } = completion {
                    answers.push((token.tag, outcome));
                }
            }
            shard.end_turn();
        }
        for (number, outcome) in answers {
            self.answered(number, outcome)?;
        }
        Ok(())
    }

    fn answered(&mut self, number: u64, outcome: Outcome) -> Result<(), ToolError> {
        match outcome {
            Outcome::Refused(
                refusal @ (Refusal::Invalid(_) | Refusal::TooLarge | Refusal::Exists | Refusal::Precondition),
            ) => {
                self.refuse(number, &explain(&refusal));
            }
            Outcome::Refused(Refusal::DiskFull) => {
                let error = io::Error::from(io::ErrorKind::StorageFull);
                return Err(ToolError::Io(self.data.shard_path(0), error));
            }
            Outcome::Refused(Refusal::Damaged | Refusal::Fenced | Refusal::Forgotten) => {
                let damage = |shard: &Shard| Some((self.data.shard_path(shard.index()), shard.damage()?));
                let error = || ToolError::Io(self.data.shard_path(0), io::Error::other("an earlier flush has failed"));
                return Err(self.shards.iter().find_map(damage).map_or_else(error, |(path, at)| {
                    ToolError::damaged(&path, at.segment, at.offset, "what was acknowledged cannot be read")
                }));
            }
            Outcome::Written { .. } | Outcome::Record(_) => self.summary.imported += 1,
        }
        Ok(())
    }

    /// Sees everything that was submitted to the disk.
    fn finish(&mut self) -> Result<(), ToolError> {
        while !self.shards.iter().all(Shard::is_idle) {
            if self.shards.iter().any(Shard::is_fenced) {
                return Ok(()); // why was said when it happened
            }
            self.turn()?;
        }
        for (shard, directory) in self.shards.iter_mut().zip(&self.directories) {
            if let Some(request) = shard.last_request() {
                // Without it a start knows less of the last flush, and loses nothing.
                let _ = request.run(directory);
            }
        }
        Ok(())
    }
}

impl Form {
    fn format(self) -> Format {
        match self {
            Form::Ndjson => Format::Json,
            Form::Cbor => Format::Cbor,
        }
    }
}

/// Appends the encoded form of a key that stands in a canonical document.
fn encode_key(codec: KeyCodec, value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    match Reader::new(value).next() {
        Some(Piece::Str(text)) => codec.encode_text(text, out).map_err(|error| format!("id: {error}")),
        _ => codec.encode_value(value, out).ok_or_else(|| "id: it can be no key of this table".to_owned()),
    }
}
