//! A shard alone in the world, driven by hand on a real directory: the time is an argument, and what the shard asks of
//! the disk is done at once, jobs included.
#![allow(dead_code)] // each test binary uses a part of it

use shards::command::{Completion, ConnectionRef, Operation, Write};
use shards::document::{self, Reader, Token, Writer};
use shards::event::Body;
use shards::limits::Limits;
use shards::link::{Wake, mesh};
use shards::outbox::{Encoded, FrameKind};
use shards::schema::{Attribute, Export, Kind, Role, TableDef, TableId};
use shards::shard::{Encoder, FrameContext, Parts, Shard};
use shards::storage::Directory;
use shards::subscription::Request;
use shards::topic::{KeyFilter, Target};
use std::path::Path;
use std::sync::Arc;

/// A wall time to begin with.
pub const START_US: u64 = 1_700_000_000_000_000;
pub const TABLE: TableId = TableId(0);

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// A frame is the document.
struct Plain;

impl Encoder for Plain {
    fn encode(&mut self, _: FrameKind, context: &FrameContext<'_>, out: &mut Vec<u8>) -> Option<Encoded> {
        out.extend_from_slice(context.document);
        out.push(0); // deletes are frames too
        Some(Encoded { packet_id_at: None, payload_bytes: None })
    }
}

/// A table with text keys.
pub fn table() -> TableDef {
    TableDef {
        exports: vec![Export { path: "T".into(), rest: true, sse: true, ws: true, mqtt: true }],
        attributes: vec![attribute("id", Kind::Id, Role::Plain)],
        primary_key: Some(0),
        ..TableDef::new("T")
    }
}

pub fn attribute(name: &str, kind: Kind, role: Role) -> Attribute {
    Attribute { name: name.into(), kind, required: false, indexed: false, role, description: None }
}

pub struct World {
    pub shard: Shard,
    pub directory: Directory,
    pub now_us: u64,
    /// By a clock that never jumps.
    pub ticks_us: u64,
    listener: Option<ConnectionRef>,
    /// Bytes of frames that the listener was sent.
    pub heard: usize,
}

impl World {
    /// Opens what is there.
    pub fn open(folder: &Path, definition: &TableDef, now_us: u64) -> World {
        let tables = [(TABLE, Arc::new(definition.clone()))];
        let parts = Parts {
            index: 0,
            limits: Limits::default(),
            tables: &tables,
            links: mesh(&[Arc::new(Nobody) as Arc<dyn Wake>]).remove(0),
            encoder: Box::new(Plain),
            salt: now_us,
            now_us,
        };
        let directory = Directory::open(folder).unwrap();
        let (shard, _) = Shard::open(parts, &directory).unwrap();
        World { shard, directory, now_us, ticks_us: 0, listener: None, heard: 0 }
    }

    /// One turn, some time after the last one, with these writes; everything is flushed.
    pub fn turn(&mut self, after_us: u64, writes: impl IntoIterator<Item = Write>) {
        self.now_us += after_us;
        self.ticks_us += after_us;
        self.shard.begin_turn(self.now_us, self.ticks_us);
        for write in writes {
            self.shard.submit(write);
        }
        self.serve_disk();
        while let Some(completion) = self.shard.completion() {
            match completion {
                Completion::Subscribed { subscription, .. } => self.shard.start(subscription),
                other => panic!("unexpected: {other:?}"),
            }
        }
        if let Some(listener) = self.listener {
            let mut dirty = Vec::new();
            self.shard.outboxes.take_dirty(&mut dirty);
            for index in dirty {
                let buffer = self.shard.outboxes.take(index).expect("something waits");
                self.heard += buffer.len();
                self.shard.outboxes.sent(listener, buffer);
            }
        }
        self.shard.end_turn();
    }

    fn serve_disk(&mut self) {
        while let Some(request) = self.shard.storage_request() {
            let completion = request.run(&self.directory);
            self.shard.storage_complete(completion).unwrap();
        }
    }

    /// Hears of everything from now on; see `heard`.
    pub fn listen(&mut self) {
        let connection = ConnectionRef { shard: 0, index: 0, generation: 1 };
        self.shard.outboxes.open(connection);
        self.shard.subscribe(Request {
            snapshot: false,
            ..Request::new(connection, vec![Target { table: TABLE, path: 0, filter: KeyFilter::all() }], 0)
        });
        self.listener = Some(connection);
        self.turn(0, []);
    }

    /// Turns until the shard has nothing left to do: no compaction is under way and the next looks find nothing.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 8 {
            let records = self.shard.table(TABLE).len();
            self.turn(if quiet == 0 { 1_000 } else { 1_100_000 }, []);
            let busy = !self.shard.may_sleep() || self.shard.table(TABLE).len() != records;
            self.shard.wake_up();
            quiet = if busy { 0 } else { quiet + 1 };
        }
    }

    /// Records that are in the table, and their bytes in the log.
    pub fn live(&self) -> (usize, u64) {
        let entries = self.shard.table(TABLE).entries();
        entries.fold((0, 0), |(count, bytes), (_, entry)| (count + 1, bytes + u64::from(entry.bytes)))
    }

    /// The value of `n` in a record.
    pub fn read(&self, key: &str) -> Option<u64> {
        let stored = self.shard.peek(TABLE, key.as_bytes()).expect("it can be read")?;
        let value = document::attribute(&stored.document, "n")?;
        match Reader::new(value).next()? {
            Token::Uint(number) => Some(number),
            Token::Int(number) => Some(number as u64),
            _ => None,
        }
    }
}

/// Bytes of the files of a directory with this ending.
pub fn bytes_of(folder: &Path, ending: &str) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = files.filter(|file| file.file_name().to_string_lossy().ends_with(ending));
    files.map(|file| file.metadata().unwrap().len()).sum()
}

/// A put of a record whose document is a number and padding.
pub fn put(key: &str, number: u64, padding: usize) -> Write {
    write(Operation::Put, key, &[("n", number)], padding)
}

/// A write of some numbers and padding; nobody waits for its outcome.
pub fn write(operation: Operation, key: &str, numbers: &[(&str, u64)], padding: usize) -> Write {
    let mut sent = Vec::new();
    if operation != Operation::Delete {
        sent.write_map(numbers.len() as u32 + 1);
        for (name, number) in numbers {
            sent.write_str(name);
            sent.write_uint(*number);
        }
        sent.write_str("pad");
        sent.write_str(&"x".repeat(padding));
    }
    Write::new(operation, TABLE, Body::new(key.as_bytes(), &sent))
}

/// The key of a number: 16 characters in no order.
pub fn key(number: u64) -> String {
    // Each step can be undone, so that no two numbers have one key.
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits ^= bits >> 32;
    format!("{:016x}", bits.wrapping_mul(0xd6e8_feb8_6659_fd93))
}
