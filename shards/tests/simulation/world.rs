//! A server without sockets: shards with their rings, each on a disk of its own, clients that write and subscribe, and a
//! scheduler that decides by a seed who takes a turn, when a disk answers and how time passes.

use crate::Random;
use crate::disk::{Disk, Files};
use crate::oracle::{
    Bounds, COMMITTED, Check, EXPIRES_AT, Event, MEMORY, Model, Shown, Submitted, Subscriber, TABLES, properties,
    tables, time_property,
};
use shards::clock::Version;
use shards::command::{Completion, ConnectionRef, Operation, Outcome, Refusal, Stored, Token, Write};
use shards::event::{Body, EventKind};
use shards::key::KeyCodec;
use shards::limits::{Limits, SegmentSizes};
use shards::link::{Links, Wake, mesh};
use shards::log::Position;
use shards::log::format::{HEADER_BYTES, RecordKind};
use shards::log::job::Job;
use shards::outbox::{Encoded, FrameKind};
use shards::scan::owner;
use shards::schema::{TableDef, TableId};
use shards::shard::{Encoder, FrameContext, Parts, Shard};
use shards::storage::{FileName, Storage, StorageCompletion, StorageRequest};
use shards::subscription::{Request, SubscriptionRef};
use shards::topic::{KeyFilter, Target};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

pub type Tables = Vec<(TableId, Arc<TableDef>)>;

const SECOND_US: u64 = 1_000_000;
const HOUR_US: u64 = 3600 * SECOND_US;

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// Small segments, so that a short run fills many. Some logs are read whole at start, others afterwards.
fn limits(salt: u64) -> Limits {
    let read_at_start = if salt.is_multiple_of(2) { 0 } else { 1 << 20 };
    let segments = SegmentSizes { first: 16 << 10, max: 64 << 10, read_at_start };
    Limits { packet_bytes_max: 1 << 10, segments, ..Limits::default() }
}

pub fn links(shards: usize) -> Vec<Links> {
    let wakes: Vec<Arc<dyn Wake>> = (0..shards).map(|_| Arc::new(Nobody) as Arc<dyn Wake>).collect();
    mesh(&wakes)
}

/// Opens one shard from what is on its disk.
pub fn open(
    index: u16,
    links: Links,
    tables: &Tables,
    disk: &Disk,
    salt: u64,
    now_us: u64,
) -> Result<Shard, shards::log::recover::RecoveryError> {
    let parts = Parts { index, limits: limits(salt), tables, links, encoder: Box::new(Frames), salt, now_us };
    Shard::open(parts, disk).map(|(shard, _)| shard)
}

/// Frames are what the oracle wants to know of an event. Lengths in bytes: kind 1, row 1, table 1, key 1, version 8,
/// checksum of the document 4, then the key.
struct Frames;

const FRAME_BYTES: usize = 16;

impl Encoder for Frames {
    fn encode(&mut self, kind: FrameKind, context: &FrameContext<'_>, out: &mut Vec<u8>) -> Option<Encoded> {
        let event = match context.kind {
            EventKind::Put => 1,
            EventKind::Delete => 2,
            EventKind::Message => 3,
            EventKind::Leave => unreachable!("there are no live queries here"),
        };
        let table: u8 = context.table.name.parse().expect("a table's name is its number");
        out.extend_from_slice(&[event, u8::from(kind.has(FrameKind::RETAIN)), table, context.key.len() as u8]);
        out.extend_from_slice(&context.version.0.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(context.document).to_le_bytes());
        out.extend_from_slice(context.key);
        Some(Encoded { packet_id_at: None, payload_bytes: None })
    }
}

fn decode_frames(mut bytes: &[u8]) -> Vec<Shown> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(FRAME_BYTES) {
        let (key, rest) = rest.split_at(usize::from(head[3]));
        frames.push(Shown {
            kind: [RecordKind::Put, RecordKind::Delete, RecordKind::Message][usize::from(head[0]) - 1],
            is_row: head[1] == 1,
            table: usize::from(head[2]),
            key: key.to_vec(),
            version: u64::from_le_bytes(head[4..12].try_into().expect("eight bytes")),
            document_checksum: u32::from_le_bytes(head[12..16].try_into().expect("four bytes")),
            synced: 0,
            now_ms: 0,
        });
        bytes = rest;
    }
    frames
}

/// A commit that is under way.
struct Commit {
    segment: u32,
    offset: u64,
    data: Arc<Vec<u8>>,
    written: bool,
    last_seq: u64,
}

/// What a client heard before the oracle could judge it.
enum Heard {
    Outcome { tag: u64, version: Version, position: Position },
    Frame { subscriber: usize, shown: Shown },
    Read { reading: Reading, stored: Stored, synced: u64 },
}

/// How things stood when the journal had a certain length.
#[derive(Clone, Copy, Default)]
pub struct Note {
    pub journal: usize,
    pub durable: u64,
    pub applied: u64,
    pub now_us: u64,
}

/// A shard, its disk, and what is known of both.
pub struct Node {
    pub shard: Shard,
    pub disk: Disk,
    pub base: Files,
    pub model: Model,
    pub notes: Vec<Note>,
    commit: Option<Commit>,
    create: Option<(u32, u64)>,
    mark: Option<StorageRequest>,
    job: Option<Job>,
    /// The last seq that was flushed.
    synced: u64,
    heard: VecDeque<Heard>,
    disk_full_until_us: Option<u64>,
}

/// A read that was asked for.
struct Reading {
    table: usize,
    key: Vec<u8>,
    /// The state that was known to be on disk by then.
    floor: u64,
}

struct Subscription {
    connection: ConnectionRef,
    reference: SubscriptionRef,
    filter: KeyFilter,
    tables: Vec<usize>,
    started: bool,
    ended: bool,
    subscriber: Subscriber,
}

pub struct World {
    pub nodes: Vec<Node>,
    pub tables: Tables,
    pub random: Random,
    pub now_us: u64,
    /// A flush has failed: the process would have ended.
    pub dead: bool,
    pub trace: Option<Vec<String>>,
    submitted: BTreeMap<u64, Submitted>,
    reads: BTreeMap<u64, Reading>,
    next_tag: u64,
    subscriptions: Vec<Subscription>,
    had_disk_full: bool,
    steps: u64,
    /// How often time leaps.
    haste: usize,
    /// How often what happened, for a look at what the simulator reaches.
    pub happened: BTreeMap<&'static str, u64>,
}

impl World {
    /// Opens a shard on each of the disks; what they hold is measured against the models, which are cut to it.
    pub fn open(disks: Vec<(Files, Model)>, now_us: u64, mut random: Random, first_tag: u64) -> Check<World> {
        let tables = tables();
        let mut nodes = Vec::new();
        let haste = [1, 1, 4, 20][random.below(4)];
        let shards = disks.len();
        for ((index, links), (base, model)) in links(shards).into_iter().enumerate().zip(disks) {
            let disk = Disk::new(&base, random.number());
            let shard = open(index as u16, links, &tables, &disk, random.number(), now_us)
                .map_err(|error| format!("shard {index} does not open: {error}"))?;
            let synced = shard.log().position().seq;
            nodes.push(Node {
                shard,
                disk,
                base,
                model,
                notes: Vec::new(),
                commit: None,
                create: None,
                mark: None,
                job: None,
                synced,
                heard: VecDeque::new(),
                disk_full_until_us: None,
            });
        }
        let mut world = World {
            nodes,
            tables,
            random,
            now_us,
            dead: false,
            trace: None,
            submitted: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_tag: first_tag,
            subscriptions: Vec::new(),
            had_disk_full: false,
            steps: 0,
            haste,
            happened: BTreeMap::new(),
        };
        for at in 0..shards {
            world.subscribe(at, KeyFilter::all(), (0..TABLES).collect());
            world.note(at);
        }
        Ok(world)
    }

    pub fn next_tag(&self) -> u64 {
        self.next_tag
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        let steps = self.steps;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{steps} {}", line()));
        }
    }

    fn note(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let (journal, durable) = (node.disk.journal().len(), node.shard.log().durable_seq());
        node.notes.push(Note { journal, durable, applied: node.model.last_seq(), now_us: self.now_us });
    }

    fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    /// Something happens.
    pub fn step(&mut self) -> Check {
        self.steps += 1;
        let shards = self.nodes.len();
        let leap = self.random.below(2000);
        self.now_us += match leap / self.haste {
            0 => self.random.range(20 * HOUR_US, 100 * HOUR_US),
            1..=4 => self.random.range(60 * SECOND_US, HOUR_US),
            5..=60 => self.random.range(SECOND_US / 10, 3 * SECOND_US),
            _ => self.random.range(1, 200),
        };
        match self.random.below(100) {
            0 => {
                let filter = match self.random.below(3) {
                    0 => KeyFilter::all(),
                    1 => KeyFilter::below("a"),
                    _ => {
                        let key = self.key();
                        KeyFilter::exact(&key, KeyCodec::Text).ok_or("a key is a filter")?
                    }
                };
                let tables = (0..TABLES).filter(|_| self.random.below(2) == 0).collect::<Vec<_>>();
                if !tables.is_empty() && self.subscriptions.len() < 12 {
                    let at = self.random.below(shards);
                    self.subscribe(at, filter, tables);
                }
            }
            1 if self.random.below(4) == 0 => {
                let (at, syncs) = (self.random.below(shards), self.random.below(12));
                self.nodes[at].disk.fail_job_sync_after(syncs as u32);
            }
            1 => self.unsubscribe(),
            2..=9 => {
                let at = self.random.below(shards);
                self.read(at);
            }
            10..=45 => {
                let at = self.random.below(shards);
                self.write(at);
            }
            _ => {
                let at = self.random.below(shards);
                let answers = [0, 30, 60, 100][self.random.below(4)];
                self.turn(at, answers)?;
            }
        }
        Ok(())
    }

    /// The disk of a shard is full for a while.
    pub fn fill_disk(&mut self, at: usize) {
        let (more, for_us) = (self.random.below(20 << 10), self.random.range(1, 20 * SECOND_US));
        self.had_disk_full = true;
        self.nodes[at].disk.set_space(Some(more));
        self.nodes[at].disk_full_until_us = Some(self.now_us + for_us);
    }

    fn key(&mut self) -> String {
        // A few are written all the time, many hardly ever: old segments stay full while young ones empty.
        let number = if self.random.below(3) == 0 { self.random.below(90) } else { self.random.below(12) };
        if number % 4 == 0 { format!("a/{number}") } else { format!("k{number}") }
    }

    fn connection(&mut self, at: usize, index: u32) -> ConnectionRef {
        ConnectionRef { shard: at as u16, index, generation: 1 }
    }

    fn write(&mut self, at: usize) {
        if !self.nodes[at].shard.has_room() {
            return;
        }
        let operation = match self.random.below(20) {
            0..=8 => Operation::Put,
            9..=10 => Operation::Insert,
            11..=13 => Operation::Patch,
            14..=16 => Operation::Delete,
            _ => Operation::Message,
        };
        let table = self.random.below(TABLES);
        let key = self.key().into_bytes();
        self.next_tag += 1;
        let tag = self.next_tag;
        let data_bytes = match self.random.below(30) {
            0 => self.random.below(950),
            1..=5 => self.random.below(400),
            _ => self.random.below(60),
        };
        let mut sent = properties(tag, data_bytes, &mut self.random);
        if operation == Operation::Patch && self.random.below(2) == 0 {
            sent[1].0 = format!("p{}", self.random.below(2));
        }
        if table == EXPIRES_AT && operation != Operation::Message && self.random.below(2) == 0 {
            let life_ms = [1, 100, 5_000, 3_600_000][self.random.below(4)];
            sent.push(time_property(self.now_us / 1000 + self.random.range(0, life_ms)));
        }
        let submitted = Submitted { operation, table, key, sent, seq: None };
        let connection = self.connection(at, 0);
        self.say(|| format!("write {tag}: {operation:?} {table}/{}", String::from_utf8_lossy(&submitted.key)));
        let write = Write {
            token: Some(Token { connection, tag }),
            ..Write::new(operation, TableId(table as u16), Body::new(&submitted.key, &submitted.document()))
        };
        self.submitted.insert(tag, submitted);
        self.nodes[at].shard.submit(write);
    }

    fn read(&mut self, at: usize) {
        let (table, key) = (self.random.below(TABLES), self.key().into_bytes());
        let node = &self.nodes[usize::from(owner(TableId(table as u16), &key, self.nodes.len()))];
        let floor = node.model.flushed_state(table, &key, node.synced).unwrap_or(0);
        self.next_tag += 1;
        let token = Token { connection: self.connection(at, 0), tag: self.next_tag };
        self.nodes[at].shard.read(token, TableId(table as u16), &key);
        self.reads.insert(self.next_tag, Reading { table, key, floor });
    }

    fn subscribe(&mut self, at: usize, filter: KeyFilter, tables: Vec<usize>) {
        let connection = self.connection(at, 1 + self.subscriptions.len() as u32);
        let shard = &mut self.nodes[at].shard;
        shard.outboxes.open(connection);
        let target = |table: &usize| Target { table: TableId(*table as u16), path: 0, filter: filter.clone() };
        let reference = shard.subscribe(Request::new(connection, tables.iter().map(target).collect(), 0));
        let subscriber = Subscriber::default();
        let (started, ended) = (false, false);
        self.subscriptions.push(Subscription { connection, reference, filter, tables, started, ended, subscriber });
    }

    fn unsubscribe(&mut self) {
        let at = self.random.below(self.subscriptions.len());
        let subscription = &mut self.subscriptions[at];
        if !std::mem::replace(&mut subscription.ended, true) {
            let shard = &mut self.nodes[usize::from(subscription.connection.shard)].shard;
            shard.unsubscribe(subscription.reference);
        }
    }

    /// One turn of one shard; each request to its disk is answered with a chance of so many in 100.
    fn turn(&mut self, at: usize, answers: usize) -> Check {
        let now_us = self.now_us;
        let node = &mut self.nodes[at];
        if node.disk_full_until_us.is_some_and(|until| until <= now_us) {
            node.disk.set_space(None);
            node.disk_full_until_us = None;
        }
        node.shard.begin_turn(now_us, now_us);
        node.shard.receive();
        self.disk_answers(at, answers)?;
        loop {
            let node = &mut self.nodes[at];
            match node.shard.storage_request() {
                None => break,
                Some(StorageRequest::Commit { segment, offset, data }) => {
                    let batch_at = if offset == 0 { HEADER_BYTES } else { 0 };
                    let last_seq = node.model.learn(&data[batch_at..], node.synced, &mut self.submitted)?;
                    let commit = Commit { segment, offset, data, written: false, last_seq };
                    if node.commit.replace(commit).is_some() {
                        return Err(format!("shard {at} asks for a second commit"));
                    }
                }
                Some(StorageRequest::Create { segment, bytes }) => {
                    if node.create.replace((segment, bytes)).is_some() {
                        return Err(format!("shard {at} asks for a second segment"));
                    }
                }
                Some(request @ StorageRequest::Mark { .. }) => {
                    if node.mark.replace(request).is_some() {
                        return Err(format!("shard {at} asks for a second mark"));
                    }
                }
                Some(StorageRequest::Job(job)) => {
                    if node.job.replace(job).is_some() {
                        return Err(format!("shard {at} asks for a second job"));
                    }
                }
            }
        }
        self.take_completions(at)?;
        self.take_frames(at);
        self.nodes[at].shard.end_turn();
        self.judge()?;
        self.look(at)?;
        self.note(at);
        let position = self.nodes[at].shard.log().position();
        let (synced, journal) = (self.nodes[at].synced, self.nodes[at].disk.journal().len());
        self.say(|| {
            format!("turn {at} at {now_us}: epoch {} seq {}, {synced}, {journal}", position.epoch, position.seq)
        });
        Ok(())
    }

    fn disk_answers(&mut self, at: usize, answers: usize) -> Check {
        let mut chance = || self.random.below(100) < answers;
        let node = &mut self.nodes[at];
        let mut completions = Vec::new();
        if let Some(commit) = &mut node.commit {
            let file = FileName::Segment(commit.segment);
            if !commit.written && chance() {
                node.disk.append(file, commit.offset, &commit.data).map_err(|error| format!("append: {error}"))?;
                commit.written = true;
            }
        }
        if node.job.is_some()
            && chance()
            && let Some(job) = node.job.take()
        {
            let what = match job {
                Job::Index { .. } => "indexes",
                Job::Rewrite(_) => "rewrites",
                Job::Remove { .. } => "removals",
                Job::Scrub { .. } => "scrubs",
            };
            *self.happened.entry(what).or_default() += 1;
            let result = job.run(&node.disk);
            if result.is_err() {
                *self.happened.entry("failed jobs").or_default() += 1;
            }
            completions.push(StorageCompletion::Done(result));
        }
        if node.mark.is_some()
            && chance()
            && let Some(request) = node.mark.take()
        {
            *self.happened.entry("marks").or_default() += 1;
            completions.push(request.run(&node.disk));
        }
        if node.create.is_some()
            && chance()
            && let Some((segment, bytes)) = node.create.take()
        {
            let result = node.disk.create(FileName::Segment(segment), bytes);
            completions.push(StorageCompletion::Created { segment, result });
        }
        if node.commit.as_ref().is_some_and(|commit| commit.written)
            && chance()
            && let Some(commit) = node.commit.take()
        {
            let result = node.disk.sync(FileName::Segment(commit.segment));
            if result.is_ok() {
                node.synced = commit.last_seq;
            }
            drop(commit);
            completions.push(StorageCompletion::Committed(result));
        }
        for completion in completions {
            let failed_flush = matches!(completion, StorageCompletion::Committed(Err(_)));
            let result: io::Result<()> = node.shard.storage_complete(completion);
            if failed_flush && (result.is_ok() || !node.shard.is_fenced()) {
                return Err(format!("shard {at} is not fenced after a failed flush"));
            }
            if node.shard.is_fenced() && !std::mem::replace(&mut self.dead, true) {
                *self.happened.entry("failed flushes").or_default() += 1;
            }
        }
        Ok(())
    }

    fn take_completions(&mut self, at: usize) -> Check {
        while let Some(completion) = self.nodes[at].shard.completion() {
            match completion {
                Completion::Outcome { token, outcome: Outcome::Written { version, position, .. } } => {
                    self.count("acknowledgements");
                    let write = self.submitted.get(&token.tag).ok_or("an outcome for nobody")?;
                    let owner = usize::from(owner(TableId(write.table as u16), &write.key, self.nodes.len()));
                    if write.table != MEMORY && position.seq > self.nodes[owner].synced {
                        let synced = self.nodes[owner].synced;
                        return Err(format!("seq {} was acknowledged, {synced} is on disk", position.seq));
                    }
                    self.nodes[owner].heard.push_back(Heard::Outcome { tag: token.tag, version, position });
                }
                Completion::Outcome { token, outcome: Outcome::Record(stored) } => {
                    self.count("reads");
                    let reading = self.reads.remove(&token.tag).ok_or("a record for nobody")?;
                    self.has_read(reading, stored)?;
                }
                Completion::Outcome { token, outcome: Outcome::Refused(refusal) } => {
                    let tag = token.tag;
                    self.count(match &refusal {
                        Refusal::DiskFull => "refused: disk full",
                        Refusal::Exists => "refused: exists",
                        _ => "refused otherwise",
                    });
                    self.say(|| format!("write {tag} is refused: {refusal:?}"));
                    let write = self.submitted.remove(&tag).ok_or("an outcome for nobody")?;
                    let expected = match &refusal {
                        Refusal::Precondition => unreachable!("nothing is conditional here"),
                        Refusal::Exists => write.operation == Operation::Insert,
                        Refusal::TooLarge => write.operation == Operation::Patch,
                        Refusal::DiskFull => self.had_disk_full,
                        Refusal::Fenced => self.dead,
                        Refusal::Invalid(_) | Refusal::Damaged | Refusal::Forgotten => false,
                    };
                    if !expected || write.seq.is_some() {
                        return Err(format!("{:?} was refused as {refusal:?}", write.operation));
                    }
                }
                Completion::Subscribed { connection, subscription } => {
                    let shard = usize::from(connection.shard);
                    self.subscriptions[connection.index as usize - 1].started = true;
                    self.nodes[shard].shard.start(subscription);
                }
                Completion::Overflowed { connection } => return Err(format!("{connection:?} overflowed")),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whatever is held back or moved: readers can read.
    fn look(&mut self, at: usize) -> Check {
        let Node { shard, model, synced, .. } = &self.nodes[at];
        for (table, _) in self.tables.iter().filter(|(table, _)| usize::from(table.0) == COMMITTED) {
            for (key, _) in shard.table(*table).entries() {
                let stored = shard.peek(*table, key).map_err(|_| format!("shard {at}: a record cannot be read"))?;
                if let Some(stored) = stored {
                    model.verify_read(COMMITTED, key, stored.version.0, &stored.document, 0, *synced)?;
                }
            }
        }
        Ok(())
    }

    fn has_read(&mut self, reading: Reading, stored: Option<Stored>) -> Check {
        let owner = owner(TableId(reading.table as u16), &reading.key, self.nodes.len());
        let node = &mut self.nodes[usize::from(owner)];
        match stored {
            Some(stored) => node.heard.push_back(Heard::Read { reading, stored, synced: node.synced }),
            None => {
                let Reading { table, key, floor } = reading;
                let is_written = self.submitted.values().any(|write| (write.table, &write.key) == (table, &key));
                if !is_written && !node.model.may_be_absent(table, &key, floor, self.now_us) {
                    return Err(format!("a reader was not given {table}/{}", String::from_utf8_lossy(&key)));
                }
            }
        }
        Ok(())
    }

    fn take_frames(&mut self, at: usize) {
        let mut dirty = Vec::new();
        self.nodes[at].shard.outboxes.take_dirty(&mut dirty);
        for index in dirty {
            let shard = &mut self.nodes[at].shard;
            let Some(buffer) = shard.outboxes.take(index) else { continue };
            let frames = decode_frames(buffer.contiguous().expect("small frames"));
            let connection = ConnectionRef { shard: at as u16, index, generation: 1 };
            if shard.outboxes.sent(connection, buffer) {
                shard.resume(connection);
            }
            let subscriber = index as usize - 1;
            *self.happened.entry("frames").or_default() += frames.len() as u64;
            for mut shown in frames {
                let owner = usize::from(owner(TableId(shown.table as u16), &shown.key, self.nodes.len()));
                shown.synced = self.nodes[owner].synced;
                shown.now_ms = self.now_us / 1000;
                self.nodes[owner].heard.push_back(Heard::Frame { subscriber, shown });
            }
        }
    }

    /// Judges what clients have heard, as far as the history is known.
    fn judge(&mut self) -> Check {
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            let known = node.model.last_version();
            let is_known = |heard: &mut Heard| match heard {
                Heard::Outcome { version, .. } => version.0 <= known,
                Heard::Frame { shown, .. } => shown.version <= known,
                Heard::Read { stored, .. } => stored.version.0 <= known,
            };
            while let Some(heard) = node.heard.pop_front_if(is_known) {
                match heard {
                    Heard::Outcome { tag, version, position } => {
                        let write = self.submitted.remove(&tag).ok_or("a second outcome")?;
                        node.model.acknowledge(position.seq, version.0, &write)?;
                    }
                    Heard::Read { reading: Reading { table, key, floor }, stored, synced } => {
                        node.model.verify_read(table, &key, stored.version.0, &stored.document, floor, synced)?;
                    }
                    Heard::Frame { subscriber, shown } => {
                        self.subscriptions[subscriber].subscriber.take(at as u16, &shown, &node.model)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Lets everything come to rest: every write answered, every job done, the mark written.
    pub fn settle(&mut self) -> Check {
        for node in &mut self.nodes {
            node.disk.set_space(None);
            node.disk_full_until_us = None;
        }
        let mut rested = 0;
        for round in 0..3000 {
            let mut awake = false;
            for at in 0..self.nodes.len() {
                // What clients have asked for since is a part of the turn that comes.
                if round == 0 || self.must_wake(at) {
                    self.turn(at, 60)?;
                    awake = true;
                    if self.dead {
                        return Ok(());
                    }
                }
            }
            if awake {
                self.now_us += 50;
                continue;
            }
            // Everybody sleeps: what is to be done by itself is done at a deadline.
            rested += 1;
            let deadline = self.nodes.iter().filter_map(|node| node.shard.deadline_us()).min();
            match deadline {
                Some(deadline_us) if rested < 60 => self.now_us = self.now_us.max(deadline_us) + 1,
                _ => return self.verify_rest(),
            }
        }
        Err("does not come to rest".into())
    }

    /// Whether the loop around a shard would take a turn now.
    fn must_wake(&mut self, at: usize) -> bool {
        let now_us = self.now_us;
        let Node { shard, commit, create, job, mark, .. } = &mut self.nodes[at];
        let sleeps = shard.may_sleep();
        shard.wake_up();
        let is_due = shard.deadline_us().is_some_and(|deadline_us| deadline_us <= now_us);
        !sleeps || is_due || commit.is_some() || create.is_some() || job.is_some() || mark.is_some()
    }

    fn verify_rest(&self) -> Check {
        for node in &self.nodes {
            let log = node.shard.log();
            if !node.shard.is_idle() || !self.submitted.is_empty() || !self.reads.is_empty() {
                return Err(format!("sleeps, and {} writes have no outcome", self.submitted.len()));
            }
            if log.durable_seq() != log.position().seq || !node.heard.is_empty() {
                return Err(format!("{:?} at rest, {} durable", log.position(), log.durable_seq()));
            }
        }
        for subscription in self.subscriptions.iter().filter(|subscription| !subscription.ended) {
            if !subscription.started {
                return Err("a subscription was never confirmed".into());
            }
            let covers = |event: &Event| {
                subscription.tables.contains(&event.table)
                    && subscription.filter.matches(&String::from_utf8_lossy(&event.key))
            };
            for node in &self.nodes {
                subscription.subscriber.verify(&node.model, covers, self.now_us)?;
            }
        }
        Ok(())
    }

    /// What has to be true of a crash when the journal of a shard had this length.
    pub fn bounds_at(&self, at: usize, journal: usize) -> Bounds {
        let node = &self.nodes[at];
        let notes = &node.notes;
        // Until recovery was over, nothing was given out.
        let epoch = node.shard.log().position().epoch - u32::from(journal < notes[0].journal);
        let after = notes.partition_point(|note| note.journal <= journal);
        let before = notes[after.saturating_sub(1)];
        let after = notes[after.min(notes.len() - 1)];
        Bounds { floor: before.durable, ceiling: after.applied, epoch, now_us: after.now_us }
    }
}
