//! One shard as the server drives it, without sockets: commits go through the ring of the shard's own thread, segments
//! and jobs to a thread beside it; the clock is the real one.
#![allow(dead_code)] // each bench uses a part of it

use shards::command::{Completion, ConnectionRef, Operation, Outcome, Token, Write};
use shards::document::Writer;
use shards::event::Body;
use shards::limits::Limits;
use shards::link::{Wake, mesh};
use shards::log::job::{Done, Job};
use shards::outbox::{Encoded, FrameKind};
use shards::schema::{Attribute, Kind, Role, TableDef, TableId};
use shards::shard::{Encoder, FrameContext, Parts, Shard};
use shards::storage::{Directory, FileName, Mapped, Storage, StorageCompletion, StorageRequest};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tablecast::reactor::uring::Uring;
use tablecast::reactor::{self, Commit, EventFd, Reactor};

pub const TABLE: TableId = TableId(0);
const CONNECTION: ConnectionRef = ConnectionRef { shard: 0, index: 0, generation: 1 };

struct NoFrames;

impl Encoder for NoFrames {
    fn encode(&mut self, _: FrameKind, _: &FrameContext<'_>, _: &mut Vec<u8>) -> Option<Encoded> {
        None
    }
}

enum Background {
    Created(u32, io::Result<(Box<dyn Mapped>, Arc<File>)>),
    Done(io::Result<Done>),
}

pub struct Engine {
    pub shard: Shard,
    directory: Directory,
    reactor: Uring,
    wake: Arc<EventFd>,
    segments: Vec<(u32, Arc<File>)>,
    background: (mpsc::Sender<Background>, mpsc::Receiver<Background>),
    started: Instant,
    /// How far the wall clock is moved on.
    pub ahead_us: u64,
    /// A job of compaction is under way.
    pub is_rewriting: bool,
}

/// A table with text keys.
pub fn table() -> TableDef {
    let id = Attribute {
        name: "id".into(),
        kind: Kind::Id,
        required: false,
        indexed: false,
        role: Role::Plain,
        description: None,
    };
    TableDef { attributes: vec![id], primary_key: Some(0), ..TableDef::new("T") }
}

fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64
}

/// Recovers a shard from its directory.
pub fn open(folder: &Path, definition: TableDef, wake: Arc<dyn Wake>) -> Shard {
    let tables = [(TABLE, Arc::new(definition))];
    let parts = Parts {
        index: 0,
        limits: Limits::default(),
        tables: &tables,
        links: mesh(&[wake]).remove(0),
        encoder: Box::new(NoFrames),
        salt: wall_us(),
        now_us: wall_us(),
    };
    Shard::open(parts, &Directory::open(folder).expect("a directory")).expect("a sound log").0
}

impl Engine {
    pub fn open(folder: &Path, definition: TableDef) -> Engine {
        let wake = Arc::new(EventFd::new().expect("an eventfd"));
        Engine {
            shard: open(folder, definition, wake.clone()),
            directory: Directory::existing(folder),
            reactor: Uring::new(wake.clone()).expect("io_uring"),
            wake,
            segments: Vec::new(),
            background: mpsc::channel(),
            started: Instant::now(),
            ahead_us: 0,
            is_rewriting: false,
        }
    }

    /// Makes these writes in one turn, and turns until all are acknowledged.
    pub fn write(&mut self, writes: impl Iterator<Item = Write>) {
        self.begin_turn();
        let mut left = 0;
        for write in writes {
            self.shard.submit(write);
            left += 1;
        }
        left -= self.end_turn();
        while left > 0 {
            left -= self.turn(Duration::from_secs(1));
        }
    }

    /// One turn, when something has happened or the time is over; gives the number of acknowledgements.
    pub fn turn(&mut self, at_most: Duration) -> usize {
        let mut completions = Vec::new();
        let timeout = if self.shard.may_sleep() { at_most } else { Duration::ZERO };
        self.reactor.poll(Some(timeout), &mut completions).expect("the ring works");
        self.shard.wake_up();
        self.begin_turn();
        for completion in completions {
            match completion {
                reactor::Completion::Committed(result) => self.complete(StorageCompletion::Committed(result)),
                reactor::Completion::Woken => {
                    while let Ok(answer) = self.background.1.try_recv() {
                        self.complete_background(answer);
                    }
                }
                _ => panic!("there are no connections"),
            }
        }
        self.reactor.recycle();
        self.end_turn()
    }

    fn begin_turn(&mut self) {
        self.shard.begin_turn(wall_us() + self.ahead_us, self.started.elapsed().as_micros() as u64);
    }

    fn end_turn(&mut self) -> usize {
        let mut acknowledged = 0;
        while let Some(completion) = self.shard.completion() {
            match completion {
                Completion::Outcome { outcome: Outcome::Written { .. }, .. } => acknowledged += 1,
                other => panic!("unexpected: {other:?}"),
            }
        }
        while let Some(request) = self.shard.storage_request() {
            self.serve(request);
        }
        self.shard.end_turn();
        acknowledged
    }

    fn complete(&mut self, completion: StorageCompletion) {
        self.shard.storage_complete(completion).expect("the disk works");
    }

    fn complete_background(&mut self, answer: Background) {
        match answer {
            Background::Created(segment, result) => {
                let result = result.map(|(map, file)| {
                    self.segments.push((segment, file));
                    map
                });
                self.complete(StorageCompletion::Created { segment, result });
            }
            Background::Done(result) => {
                self.is_rewriting = false;
                self.complete(StorageCompletion::Done(result));
            }
        }
    }

    fn serve(&mut self, request: StorageRequest) {
        match request {
            StorageRequest::Commit { segment, offset, data } => {
                self.segments.retain(|(own, _)| *own >= segment);
                let known = self.segments.iter().find(|(own, _)| *own == segment).map(|(_, file)| file.clone());
                let file = known.unwrap_or_else(|| {
                    let file = Arc::new(self.directory.open_segment(segment).expect("the segment"));
                    self.segments.push((segment, file.clone()));
                    file
                });
                self.reactor.commit(Commit { file, offset, data });
            }
            StorageRequest::Create { segment, bytes } => self.in_background(move |directory| {
                let create = || {
                    let map = directory.create(FileName::Segment(segment), bytes)?;
                    Ok((map, Arc::new(directory.open_segment(segment)?)))
                };
                Background::Created(segment, create())
            }),
            request @ StorageRequest::Mark { .. } => {
                let completion = request.run(&self.directory);
                self.shard.storage_complete(completion).expect("the mark is written");
            }
            StorageRequest::Job(job) => {
                self.is_rewriting = matches!(job, Job::Rewrite(_));
                self.in_background(move |directory| {
                    reactor::give_way();
                    Background::Done(job.run(&directory.giving_way()))
                });
            }
        }
    }

    fn in_background(&self, work: impl FnOnce(&Directory) -> Background + Send + 'static) {
        let (directory, sender, wake) = (self.directory.clone(), self.background.0.clone(), self.wake.clone());
        std::thread::spawn(move || {
            // The receiver is gone only at the end of the bench.
            if sender.send(work(&directory)).is_ok() {
                wake.wake();
            }
        });
    }

    /// Turns until everything is on disk and each sealed segment has its index.
    pub fn settle(&mut self) {
        while !self.shard.is_idle() || self.shard.log().sealed().iter().any(|sealed| !sealed.is_indexed) {
            self.turn(Duration::from_millis(20));
        }
    }
}

/// A put of a record whose document has 200 bytes (if the key has 16).
pub fn put(key: &str, number: u32) -> Write {
    let mut sent = Vec::with_capacity(256);
    sent.write_map(2);
    sent.write_str("n");
    sent.write_uint(u64::from(number) | 1 << 20); // of one length, mostly
    sent.write_str("pad");
    sent.write_str(PADDING);
    let token = Some(Token { connection: CONNECTION, tag: 0 });
    Write { token, ..Write::new(Operation::Put, TABLE, Body::new(key.as_bytes(), &sent)) }
}

const PADDING: &str = match std::str::from_utf8(&[b'x'; 166]) {
    Ok(text) => text,
    Err(_) => panic!("letters are text"),
};

/// The key of a number: 16 characters in no order.
pub fn random_key(number: u64) -> String {
    // Each step can be undone, so that no two numbers have one key.
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits ^= bits >> 32;
    format!("{:016x}", bits.wrapping_mul(0xd6e8_feb8_6659_fd93))
}

/// Pseudo-random numbers (xorshift).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

pub fn median<T: PartialOrd + Copy>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    values[values.len() / 2]
}
