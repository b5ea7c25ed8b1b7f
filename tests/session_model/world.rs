//! The server without sockets, clock and threads: real shards and real connections in one thread. Someone else decides
//! everything that is chance in a server: whose turn it is, when a disk answers, how bytes are split on their way in and
//! out. A turn does what `src/shard_thread.rs` does, in its order.

use shards::command::{Completion, ConnectionRef};
use shards::limits::Limits;
use shards::link::{Wake, mesh};
use shards::outbox::SendBuffer;
use shards::schema::{Export, TableDef, TableId};
use shards::session::system_tables;
use shards::shard::{Parts, Shard};
use shards::storage::{Directory, FileName, Storage, StorageCompletion, StorageRequest};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tablecast::connection::{Connection, Kind, State, Surroundings};
use tablecast::protocol::frames::FrameEncoder;
use tablecast::protocol::http::health::Health;
use tablecast::protocol::{Catalog, Scratch};
use tablecast::reactor::Slot;
use tablecast::server;

/// Where time begins, in microseconds since 1970.
const START_US: u64 = 1_700_000_000_000_000;

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// Where decisions come from.
pub enum Chance {
    Seed(u64),
    /// Each byte is a decision; when they are used up, all decisions are the first choice.
    Bytes(VecDeque<u8>),
}

impl Chance {
    /// 0 to `bound` - 1.
    pub fn below(&mut self, bound: usize) -> usize {
        match self {
            Chance::Seed(state) => {
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((*state >> 33) % bound as u64) as usize
            }
            Chance::Bytes(bytes) => usize::from(bytes.pop_front().unwrap_or(0)) % bound,
        }
    }

    /// Whether all decisions are made.
    pub fn is_empty(&self) -> bool {
        matches!(self, Chance::Bytes(bytes) if bytes.is_empty())
    }

    /// True once in so many times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }
}

/// One connection, as the network sees it.
#[derive(Default)]
pub struct Line {
    slot: Option<Slot>,
    /// Sent by the client, not yet received.
    inbound: VecDeque<u8>,
    /// The client sends no more; with `is_reset` it does not read either.
    hung_up: bool,
    is_reset: bool,
    told_end: bool,
    /// A send under way: what of it has not arrived yet.
    sending: Option<(SendBuffer, VecDeque<u8>)>,
    /// For the client to take.
    outbound: Vec<u8>,
    /// The server sends no more.
    is_finished: bool,
    /// The reactor was told to close it.
    is_closing: bool,
}

struct Core {
    shard: Shard,
    directory: Directory,
    scratch: Scratch,
    connections: Vec<Option<Connection>>,
    generations: Vec<u32>,
    lines: HashMap<Slot, usize>,
    accepting: VecDeque<usize>,
    starved: Vec<Slot>,
    disk: Vec<StorageRequest>,
    turns: u64,
}

/// What becomes of something that the disk was asked for and has not answered when the server is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lost,
    Done,
    Torn,
}

pub struct World {
    pub chance: Chance,
    pub now_us: u64,
    pub limits: Limits,
    /// A disk answers once in so many turns.
    pub disk_delay: usize,
    /// The most bytes that outboxes have held, beyond what they may.
    pub outbox_bytes_most: usize,
    cores: Vec<Core>,
    catalog: Catalog,
    lines: Vec<Line>,
    tables: Vec<(TableId, Arc<TableDef>)>,
    salt: u64,
    /// Turns that every shard has had.
    round: u64,
    folder: tempfile::TempDir,
}

impl World {
    pub fn new(shards: usize, chance: Chance, limits: Limits) -> World {
        // In memory where that is possible: what is tested is not the disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
        let export = Export { path: String::new(), rest: false, sse: false, ws: false, mqtt: true };
        let table = TableDef { exports: vec![export], ..TableDef::new("T") };
        let all = std::iter::once(table).chain(system_tables());
        let tables: Vec<_> = (0..).map(TableId).zip(all.map(Arc::new)).collect();
        let health = Arc::new(Health::new(shards));
        let catalog = server::catalog(tables.clone(), Default::default(), None, Vec::new(), health);
        let (cores, lines) = (Vec::new(), Vec::new());
        let mut world = World {
            chance,
            now_us: START_US,
            limits,
            disk_delay: 3,
            outbox_bytes_most: 0,
            cores,
            catalog,
            lines,
            tables,
            salt: 1,
            round: 0,
            folder,
        };
        world.open(shards);
        world
    }

    fn open(&mut self, shards: usize) {
        let wakes: Vec<Arc<dyn Wake>> = (0..shards).map(|_| Arc::new(Nobody) as Arc<dyn Wake>).collect();
        for (index, links) in mesh(&wakes).into_iter().enumerate() {
            let directory = Directory::open(&self.folder.path().join(index.to_string())).expect("a folder");
            self.salt = self.salt.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            let parts = Parts {
                index: index as u16,
                limits: self.limits,
                tables: &self.tables,
                links,
                encoder: Box::new(FrameEncoder::new(false)),
                salt: self.salt,
                now_us: self.now_us,
            };
            let (shard, _) = Shard::open(parts, &directory).expect("what a crash leaves can be read");
            self.cores.push(Core {
                shard,
                directory,
                scratch: Scratch::default(),
                connections: Vec::new(),
                generations: Vec::new(),
                lines: HashMap::new(),
                accepting: VecDeque::new(),
                starved: Vec::new(),
                disk: Vec::new(),
                turns: self.round,
            });
        }
    }

    pub fn shards(&self) -> usize {
        self.cores.len()
    }

    pub fn round(&self) -> u64 {
        self.round
    }

    // What clients do.

    /// A client connects to a shard; gives the number of its line.
    pub fn connect(&mut self, core: usize) -> usize {
        self.lines.push(Line::default());
        let line = self.lines.len() - 1;
        self.cores[core].accepting.push_back(line);
        line
    }

    pub fn send(&mut self, line: usize, bytes: &[u8]) {
        self.lines[line].inbound.extend(bytes);
    }

    /// The client hangs up: a part of what it has sent last may never arrive.
    pub fn hang_up(&mut self, line: usize, is_reset: bool) {
        let own = &mut self.lines[line];
        (own.hung_up, own.is_reset) = (true, is_reset);
        if is_reset {
            let kept = self.chance.below(own.inbound.len() + 1);
            own.inbound.truncate(kept);
        }
    }

    /// What has arrived at the client.
    pub fn take(&mut self, line: usize) -> Vec<u8> {
        std::mem::take(&mut self.lines[line].outbound)
    }

    /// Whether the server has ended the connection, and all that it said has arrived.
    pub fn is_over(&self, line: usize) -> bool {
        let own = &self.lines[line];
        own.is_finished && own.sending.is_none() && own.outbound.is_empty()
    }

    /// Whether the server is through with a connection.
    pub fn is_released(&self, line: usize) -> bool {
        self.lines[line].is_finished && self.lines[line].slot.is_none()
    }

    /// How a connection stands, for a message of failure.
    pub fn describe(&self, line: usize) -> String {
        let own = &self.lines[line];
        let is_it = |core: &&Core| own.slot.is_some_and(|slot| core.lines.get(&slot) == Some(&line));
        let slot = own.slot.map_or(0, |slot| slot.index as usize);
        let connection = self.cores.iter().find(is_it).and_then(|core| core.connections[slot].as_ref());
        let connection = connection.map(|own| (own.state, own.blocked, own.peer_ended));
        format!("{connection:?}, {} bytes to come, hung up {}", own.inbound.len(), own.hung_up)
    }

    // What the server does.

    /// A turn of one shard.
    pub fn turn(&mut self, at: usize) {
        self.now_us += 1 + self.chance.below(200) as u64;
        let now_us = self.now_us;
        self.cores[at].shard.begin_turn(now_us, now_us - START_US);
        self.cores[at].shard.receive();
        self.network(at);
        self.answer_disk(at, self.disk_delay);
        self.tell_sessions(at);
        self.retry_starved(at);
        self.expire(at);
        self.tell_sessions(at);
        self.serve_disk(at);
        self.send_dirty(at);
        self.cores[at].shard.end_turn();
        self.cores[at].turns += 1;
        self.round = self.cores.iter().map(|core| core.turns).min().unwrap_or(0);
    }

    /// Turns of all shards until nothing happens any more.
    pub fn settle(&mut self) {
        let delay = std::mem::replace(&mut self.disk_delay, 1);
        for _ in 0..40 {
            for at in 0..self.cores.len() {
                self.turn(at);
            }
        }
        self.disk_delay = delay;
    }

    /// Time passes while nothing is under way.
    pub fn pass(&mut self, us: u64) {
        self.now_us += us;
    }

    /// Completions of the reactor, in any order.
    fn network(&mut self, at: usize) {
        while let Some(line) = self.cores[at].accepting.pop_front() {
            self.accept(at, line);
        }
        let mut lines: Vec<(Slot, usize)> = self.cores[at].lines.iter().map(|(slot, line)| (*slot, *line)).collect();
        lines.sort_unstable_by_key(|(_, line)| *line);
        let first = self.chance.below(lines.len().max(1));
        lines.rotate_left(first);
        for (slot, line) in lines {
            if self.lines[line].is_closing {
                self.release(at, slot, line);
                continue;
            }
            match self.chance.below(4) {
                0 => self.receive(at, slot, line),
                1 => self.arrive(at, slot, line),
                2 => {
                    self.receive(at, slot, line);
                    self.arrive(at, slot, line);
                }
                _ => {}
            }
        }
    }

    fn accept(&mut self, at: usize, line: usize) {
        let core = &mut self.cores[at];
        let index = match core.connections.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                core.connections.push(None);
                core.generations.push(0);
                core.connections.len() - 1
            }
        };
        core.generations[index] += 1;
        let slot = Slot { index: index as u32, generation: core.generations[index] };
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let connection = Connection::open(Kind::Mqtt, slot, address, None, core.shard.ticks_us());
        core.shard.outboxes.open(connection.reference(at as u16));
        core.connections[index] = Some(connection);
        core.lines.insert(slot, line);
        self.lines[line].slot = Some(slot);
    }

    /// Some of what the client has sent is received.
    fn receive(&mut self, at: usize, slot: Slot, line: usize) {
        let own = &mut self.lines[line];
        if self.cores[at].connection(slot).is_some_and(|connection| connection.paused) {
            return;
        }
        if !own.inbound.is_empty() {
            let count = match self.chance.below(3) {
                0 => 1 + self.chance.below(own.inbound.len().min(16)),
                _ => own.inbound.len().min(16 << 10),
            };
            let bytes: Vec<u8> = own.inbound.drain(..count).collect();
            self.with(at, slot, |connection, around| connection.receive(around, &bytes));
        } else if own.hung_up && !std::mem::replace(&mut own.told_end, true) {
            self.with(at, slot, |connection, around| connection.end_of_input(around));
            if self.cores[at].connection(slot).is_some_and(|own| matches!(own.state, State::Lingering { .. })) {
                self.break_off(at, slot);
            }
        }
    }

    /// Some of what is being sent arrives; when all of it has, the send is complete.
    fn arrive(&mut self, at: usize, slot: Slot, line: usize) {
        let own = &mut self.lines[line];
        let Some((_, rest)) = &mut own.sending else { return };
        if !own.is_reset {
            let count = if self.chance.one_in(3) { self.chance.below(rest.len() + 1) } else { rest.len() };
            own.outbound.extend(rest.drain(..count));
            if !rest.is_empty() {
                return;
            }
        }
        if let Some((buffer, _)) = own.sending.take() {
            let failed = own.is_reset;
            self.sent(at, slot, buffer, failed);
        }
    }

    fn sent(&mut self, at: usize, slot: Slot, buffer: SendBuffer, failed: bool) {
        let core = &mut self.cores[at];
        let Some(connection) = core.connection(slot) else { return };
        let reference = connection.reference(at as u16);
        if let Some(buffer) = connection.sent(buffer)
            && core.shard.outboxes.sent(reference, buffer)
        {
            core.shard.resume(reference);
            self.with(at, slot, |connection, around| {
                if connection.blocked && connection.state == State::Open {
                    connection.retry(around);
                }
            });
        }
        if failed {
            return self.break_off(at, slot);
        }
        self.close_if_sent(at, slot);
    }

    fn with(&mut self, at: usize, slot: Slot, body: impl FnOnce(&mut Connection, &mut Surroundings<'_>)) {
        let core = &mut self.cores[at];
        let Some(connection) = core.connections.get_mut(slot.index as usize).and_then(Option::as_mut) else { return };
        if connection.slot != slot {
            return;
        }
        let mut around = Surroundings { shard: &mut core.shard, catalog: &self.catalog, scratch: &mut core.scratch };
        body(connection, &mut around);
        if connection.blocked && !connection.starved && !core.shard.has_room() {
            connection.starved = true;
            core.starved.push(slot);
        }
        connection.paused = connection.wants_pause();
        self.close_if_sent(at, slot);
    }

    fn close_if_sent(&mut self, at: usize, slot: Slot) {
        let core = &mut self.cores[at];
        let ticks_us = core.shard.ticks_us();
        let Some(connection) = core.connections.get_mut(slot.index as usize).and_then(Option::as_mut) else { return };
        if !matches!(connection.state, State::Draining { .. }) || connection.slot != slot {
            return;
        }
        let drained = core.shard.outboxes.is_drained(connection.reference(at as u16));
        if !connection.is_finished(drained) {
            return;
        }
        let line = &mut self.lines[core.lines[&slot]];
        line.is_finished = true;
        if connection.peer_ended {
            connection.state = State::Closed;
            line.is_closing = true;
        } else {
            connection.state = State::Lingering { since_us: ticks_us };
        }
    }

    fn break_off(&mut self, at: usize, slot: Slot) {
        self.with(at, slot, |connection, around| connection.close(around));
        let core = &mut self.cores[at];
        if let Some(connection) = core.connection(slot)
            && connection.state != State::Closed
        {
            connection.state = State::Closed;
            let line = &mut self.lines[core.lines[&slot]];
            (line.is_finished, line.is_closing) = (true, true);
        }
    }

    /// Nothing of a connection is under way any more.
    fn release(&mut self, at: usize, slot: Slot, line: usize) {
        let own = &mut self.lines[line];
        own.sending = None;
        own.slot = None;
        own.inbound.clear();
        let core = &mut self.cores[at];
        core.lines.remove(&slot);
        core.connections[slot.index as usize] = None;
        let reference = ConnectionRef { shard: at as u16, index: slot.index, generation: slot.generation };
        core.shard.outboxes.close(reference);
    }

    fn tell_sessions(&mut self, at: usize) {
        while let Some(completion) = self.cores[at].shard.completion() {
            let ConnectionRef { index, generation, .. } = match &completion {
                Completion::Outcome { token, .. } | Completion::ScanReady { token, .. } => token.connection,
                Completion::Subscribed { connection, .. }
                | Completion::Joined { connection, .. }
                | Completion::Checked { connection, .. }
                | Completion::Release { connection, .. }
                | Completion::Unsaved { connection }
                | Completion::Lost { connection }
                | Completion::Evicted { connection }
                | Completion::Overflowed { connection } => *connection,
            };
            self.with(at, Slot { index, generation }, |connection, around| connection.complete(around, completion));
        }
    }

    fn retry_starved(&mut self, at: usize) {
        let mut waiting = std::mem::take(&mut self.cores[at].starved).into_iter();
        while self.cores[at].shard.has_room()
            && let Some(slot) = waiting.next()
        {
            self.with(at, slot, |connection, around| {
                connection.starved = false;
                if connection.blocked && connection.state == State::Open {
                    connection.retry(around);
                }
            });
        }
        let served = std::mem::take(&mut self.cores[at].starved);
        self.cores[at].starved.extend(waiting);
        self.cores[at].starved.extend(served);
    }

    /// What the wheel finds: here all connections are looked at.
    fn expire(&mut self, at: usize) {
        let ticks_us = self.cores[at].shard.ticks_us();
        let due = self.cores[at].connections.iter().flatten().filter(|own| own.deadline() <= ticks_us);
        let due: Vec<Slot> = due.map(|own| own.slot).collect();
        for slot in due {
            let mut give_up = false;
            self.with(at, slot, |connection, around| give_up = connection.expire(around));
            if give_up {
                self.break_off(at, slot);
            }
        }
    }

    /// The disk has answered some of what it was asked for.
    fn answer_disk(&mut self, at: usize, delay: usize) {
        let mut waiting = Vec::new();
        for request in std::mem::take(&mut self.cores[at].disk) {
            if !self.chance.one_in(delay) {
                waiting.push(request);
                continue;
            }
            let core = &mut self.cores[at];
            let completion = request.run(&core.directory);
            core.shard.storage_complete(completion).expect("the disk is well");
        }
        self.cores[at].disk.append(&mut waiting);
    }

    fn serve_disk(&mut self, at: usize) {
        let core = &mut self.cores[at];
        while let Some(request) = core.shard.storage_request() {
            core.disk.push(request);
        }
    }

    fn send_dirty(&mut self, at: usize) {
        let core = &mut self.cores[at];
        let mut dirty = Vec::new();
        core.shard.outboxes.take_dirty(&mut dirty);
        for index in dirty {
            let Some(connection) = core.connections.get_mut(index as usize).and_then(Option::as_mut) else { continue };
            let reference = connection.reference(at as u16);
            self.outbox_bytes_most = self.outbox_bytes_most.max(core.shard.outboxes.bytes(reference));
            if connection.state == State::Closed {
                continue;
            }
            if let Some(buffer) = core.shard.outboxes.take(index) {
                connection.begin_send(core.shard.ticks_us(), buffer.len());
                let bytes = flat(&buffer);
                self.lines[core.lines[&connection.slot]].sending = Some((buffer, bytes));
            }
        }
    }

    /// The server is killed and started again. What is being sent may arrive in part.
    pub fn crash(&mut self) {
        for line in &mut self.lines {
            if let Some((_, rest)) = line.sending.take().filter(|_| !line.is_reset) {
                let count = self.chance.below(rest.len() + 1);
                line.outbound.extend(rest.into_iter().take(count));
            }
            (line.is_finished, line.slot) = (true, None);
            line.inbound.clear();
        }
        let shards = self.cores.len();
        for core in std::mem::take(&mut self.cores) {
            for request in core.disk {
                let fate = [Fate::Lost, Fate::Done, Fate::Torn][self.chance.below(3)];
                match request {
                    StorageRequest::Commit { segment, offset, data } if fate == Fate::Torn => {
                        let part = &data[..self.chance.below(data.len() + 1)];
                        core.directory.write(FileName::Segment(segment), offset, part).expect("the disk is well");
                    }
                    request if fate == Fate::Done => drop::<StorageCompletion>(request.run(&core.directory)),
                    _ => {}
                }
            }
        }
        self.open(shards);
    }
}

impl Core {
    fn connection(&mut self, slot: Slot) -> Option<&mut Connection> {
        self.connections.get_mut(slot.index as usize)?.as_mut().filter(|own| own.slot == slot)
    }
}

/// The bytes of a send in their order.
fn flat(buffer: &SendBuffer) -> VecDeque<u8> {
    let (mut out, mut from) = (VecDeque::with_capacity(buffer.len()), 0);
    for splice in &buffer.splices {
        out.extend(&buffer.bytes[from..splice.at]);
        out.extend(&splice.bytes);
        from = splice.at;
    }
    out.extend(&buffer.bytes[from..]);
    out
}
