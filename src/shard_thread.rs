//! The loop of one shard's thread: reactor → sessions → shard → disk and sockets, one turn after the other (the turn
//! itself is described in `shards/src/shard.rs`). Everything here belongs to this thread; other threads reach it through
//! the shard's rings, its wake-up and [`Shared`].

use crate::addresses::Addresses;
use crate::connection::{Connection, Kind, State, Surroundings};
use crate::protocol::http::health::Damage;
use crate::protocol::{Catalog, Scratch};
use crate::reactor::{self, Commit, Completion, EventFd, Reactor, Slot};
use crate::sys_topics::{SysTopics, Tally, Teller};
use crate::tls::Tls;
use crate::tls::stream::TlsStream;
use crate::wheel::Wheel;
use shards::command::{Completion as ShardCompletion, ConnectionRef};
use shards::counters::Counter;
use shards::log::job::Done;
use shards::log::mark::Mark;
use shards::log::recover::Place;
use shards::outbox::SendBuffer;
use shards::shard::Shard;
use shards::storage::{Directory, FileName, Mapped, Storage, StorageCompletion, StorageRequest};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tracing::{error, info, warn};

/// How long connections have to go by themselves when the server drains.
const DRAIN_US: u64 = 5_000_000;
/// Time between two lines of the log that say that an address has too many connections: a flood must not fill the log.
const REFUSAL_SAID_US: u64 = 10_000_000;
/// A connection accepted this shortly before the end may still say what it came for.
const NEWCOMER_US: u64 = 250_000;
/// TLS handshakes that one turn goes on with: each takes some tenths of a millisecond, and others are being served.
const HANDSHAKES_PER_TURN: usize = 4;

pub const RUN: u8 = 0;
/// Finish what is under way, say goodbye, stop.
pub const DRAIN: u8 = 1;
/// Close connections at once, flush, stop.
pub const STOP: u8 = 2;

/// What the threads of a server share beside their rings.
pub struct Shared {
    /// [`RUN`], [`DRAIN`] or [`STOP`].
    pub phase: AtomicU8,
    /// Shards that have nothing left to do.
    pub finished: AtomicUsize,
    pub tally: Tally,
    pub addresses: Addresses,
}

impl Shared {
    pub fn new(tally: Tally, addresses: Addresses) -> Shared {
        Shared { phase: AtomicU8::new(RUN), finished: AtomicUsize::new(0), tally, addresses }
    }
}

/// Names a place in the log of a shard for people: file, offset, and what it means.
pub fn describe(directory: &Directory, place: Place, detail: String) -> Damage {
    let path = directory.path(FileName::Segment(place.segment));
    let shard = path.parent().and_then(|shard| shard.parent());
    let file = shard.and_then(|data| path.strip_prefix(data).ok()).unwrap_or(&path);
    Damage { file: file.display().to_string(), offset: place.offset, detail }
}

/// What a thread is given to work with.
pub struct Parts {
    pub shard: Shard,
    pub catalog: Arc<Catalog>,
    pub directory: Directory,
    pub wake: Arc<EventFd>,
    pub shared: Arc<Shared>,
    /// What the connections of each listener speak.
    pub kinds: Vec<Kind>,
    /// For listeners that speak TLS.
    pub tls: Option<Arc<Tls>>,
    /// Cores on which work for the disk may run.
    pub cores: Arc<[usize]>,
    pub accepts_per_second: u32,
    /// On one of the threads.
    pub sys_topics: Option<SysTopics>,
}

/// Why a thread cannot go on.
#[derive(Debug)]
pub enum Failure {
    Disk(io::Error),
    Reactor(io::Error),
}

/// What comes back from threads that work for the disk.
enum Background {
    Created(u32, io::Result<(Box<dyn Mapped>, Arc<File>)>),
    Marked(io::Result<Mark>),
    Done(io::Result<Done>),
}

pub struct ShardThread<R> {
    reactor: R,
    shard: Shard,
    catalog: Arc<Catalog>,
    scratch: Scratch,
    directory: Directory,
    wake: Arc<EventFd>,
    shared: Arc<Shared>,
    kinds: Vec<Kind>,
    tls: Option<Arc<Tls>>,
    cores: Arc<[usize]>,
    /// By slot index.
    connections: Vec<Option<Connection>>,
    open: usize,
    wheel: Wheel<Slot>,
    /// Deadlines are counted from here.
    started: Instant,
    /// Sessions that found no room for commands; tried again each turn.
    starved: Vec<Slot>,
    /// Connections whose TLS handshake can go on.
    handshakes: VecDeque<Slot>,
    /// Connections whose TLS has something to send, maybe.
    senders: Vec<Slot>,
    /// Segments that are or will be appended to, and their descriptors: opened before they are needed, so that a server
    /// that has run out of descriptors can still write.
    segments: Vec<(u32, Arc<File>)>,
    background: (mpsc::Sender<Background>, mpsc::Receiver<Background>),
    /// It has been said that something cannot be read.
    damage_is_known: bool,
    /// It has been said that the disk is full.
    no_room: bool,
    /// It has been said that work on the log was put off.
    work_fails: bool,
    stop_at_us: Option<u64>,
    finished: bool,
    teller: Teller,
    sys_topics: Option<SysTopics>,
    /// When it was last said that an address has too many connections.
    refusal_said_us: Option<u64>,
}

/// Gives a connection a place in the wheel for this deadline, if it comes before the one it has.
fn put_into(wheel: &mut Wheel<Slot>, connection: &mut Connection, deadline_us: u64) {
    if deadline_us >= connection.comes_up_us || connection.state == State::Closed {
        return; // what is inserted later does not come up sooner
    }
    let comes_up_us = wheel.comes_up_us(deadline_us);
    if comes_up_us < connection.comes_up_us {
        connection.comes_up_us = comes_up_us;
        wheel.insert(deadline_us, connection.slot);
    }
}

/// The wall clock, in microseconds since 1970.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
}

impl<R: Reactor> ShardThread<R> {
    pub fn new(reactor: R, parts: Parts) -> ShardThread<R> {
        let Parts { shard, catalog, directory, wake, shared, kinds, tls, cores, sys_topics, .. } = parts;
        let teller = Teller::new(shard.index());
        let damage_is_known = shard.damage().is_some(); // what was found at start was said there
        ShardThread {
            reactor,
            shard,
            catalog,
            scratch: Scratch::default(),
            directory,
            wake,
            shared,
            kinds,
            tls,
            cores,
            connections: Vec::new(),
            open: 0,
            wheel: Wheel::new(0),
            started: Instant::now(),
            starved: Vec::new(),
            handshakes: VecDeque::new(),
            senders: Vec::new(),
            segments: Vec::new(),
            background: mpsc::channel(),
            damage_is_known,
            no_room: false,
            work_fails: false,
            stop_at_us: None,
            finished: false,
            teller,
            sys_topics,
            refusal_said_us: None,
        }
    }

    /// What is to be there before the first connection is.
    pub fn begin(&mut self) {
        self.shard.begin_turn(now_us(), self.ticks_us());
        self.write_figures();
        self.shard.end_turn();
    }

    fn write_figures(&mut self) {
        if let Some(topics) = &mut self.sys_topics {
            topics.write(&mut self.shard, &self.shared.tally);
        }
    }

    /// Turns until the server stops.
    pub fn run(mut self) -> Result<(), Failure> {
        let active = self.shard.log().active_segment();
        if active > 0 {
            let file = self.directory.open_segment(active).map_err(Failure::Disk)?;
            self.segments.push((active, Arc::new(file)));
        }
        let mut completions = Vec::new();
        let mut due = Vec::new();
        let mut dirty = Vec::new();
        let mut busy = true;
        loop {
            let timeout = if busy || !self.shard.may_sleep() { Some(Duration::ZERO) } else { self.sleep_for() };
            self.reactor.poll(timeout, &mut completions).map_err(Failure::Reactor)?;
            self.shard.wake_up();
            let ticks_us = self.ticks_us();
            self.shard.begin_turn(now_us(), ticks_us);
            // What peers asked for before a client was answered comes before what that client sends next.
            busy = self.shard.receive();
            for completion in completions.drain(..) {
                self.on_completion(completion).map_err(Failure::Disk)?;
            }
            self.reactor.recycle();
            self.shake_hands();
            self.tell_sessions();
            self.retry_starved();
            self.expire(&mut due);
            self.write_figures();
            if self.drain() {
                if let Some(request) = self.shard.last_request() {
                    // Without it a start knows less of the last flush, and loses nothing.
                    let _ = request.run(&self.directory);
                }
                return Ok(());
            }
            self.tell_sessions();
            self.serve_disk().map_err(Failure::Disk)?;
            self.report_damage();
            self.send(&mut dirty);
            self.teller.tell(&self.shard, &self.shared.tally);
            self.shard.end_turn();
            busy |= !self.starved.is_empty() && self.shard.has_room() || !self.handshakes.is_empty();
        }
    }

    fn ticks_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// How long the thread may sleep if nothing happens.
    fn sleep_for(&self) -> Option<Duration> {
        let figures = self.sys_topics.as_ref().map(|topics| topics.deadline_us());
        let due = [self.wheel.next_us(), self.shard.deadline_us(), self.teller.deadline_us(), figures];
        let next = due.into_iter().flatten().min();
        let mut wait = next.map(|at| Duration::from_micros(at.saturating_sub(self.ticks_us())));
        if self.stop_at_us.is_some() {
            let poll = Duration::from_millis(10);
            wait = Some(wait.map_or(poll, |wait| wait.min(poll)));
        }
        wait
    }

    fn connection(&mut self, slot: Slot) -> Option<&mut Connection> {
        let found = self.connections.get_mut(slot.index as usize)?.as_mut()?;
        (found.slot == slot).then_some(found)
    }

    /// Calls something on a connection with all that sessions need, then does what follows from it.
    fn with(&mut self, slot: Slot, body: impl FnOnce(&mut Connection, &mut Surroundings<'_>)) {
        let Some(place) = self.connections.get_mut(slot.index as usize) else { return };
        let Some(connection) = place.as_mut().filter(|connection| connection.slot == slot) else { return };
        let mut around = Surroundings { shard: &mut self.shard, catalog: &self.catalog, scratch: &mut self.scratch };
        body(connection, &mut around);
        if connection.blocked && !connection.starved && !self.shard.has_room() {
            connection.starved = true;
            self.starved.push(slot);
        }
        if connection.joins_senders() {
            self.senders.push(slot);
        }
        if connection.wants_pause() != connection.paused {
            connection.paused = !connection.paused;
            if connection.paused { self.reactor.pause(slot) } else { self.reactor.resume(slot) }
        }
        self.close_if_sent(slot);
        self.schedule(slot);
    }

    /// A deadline may have come nearer than its place in the wheel: it takes another one.
    fn schedule(&mut self, slot: Slot) {
        let place = self.connections.get_mut(slot.index as usize).and_then(Option::as_mut);
        let Some(connection) = place.filter(|connection| connection.slot == slot) else { return };
        let deadline = connection.deadline();
        put_into(&mut self.wheel, connection, deadline);
    }

    /// A connection whose session has ended goes when its last byte has been sent.
    fn close_if_sent(&mut self, slot: Slot) {
        let shard = self.shard.index();
        let ticks_us = self.shard.ticks_us();
        let Some(connection) = self.connections.get_mut(slot.index as usize).and_then(Option::as_mut) else { return };
        if !matches!(connection.state, State::Draining { .. }) || connection.slot != slot {
            return;
        }
        let drained = self.shard.outboxes.is_drained(connection.reference(shard));
        if !connection.is_finished(drained) {
            return;
        }
        if connection.peer_ended {
            connection.state = State::Closed;
            self.reactor.close(slot);
        } else {
            // Closing with unread bytes would reset the connection, and the peer might lose our last words.
            connection.state = State::Lingering { since_us: ticks_us };
            self.reactor.finish(slot);
        }
    }

    fn break_off(&mut self, slot: Slot) {
        self.with(slot, |connection, around| connection.close(around));
        if let Some(connection) = self.connection(slot)
            && connection.state != State::Closed
        {
            connection.state = State::Closed;
            self.reactor.close(slot);
        }
    }

    fn on_completion(&mut self, completion: Completion) -> io::Result<()> {
        match completion {
            Completion::Accepted { listener, slot } => self.accept(listener, slot),
            Completion::Received { slot, received } => {
                // The bytes belong to the reactor: everything but the reactor may be touched while they are read.
                let bytes = self.reactor.bytes(received);
                let place = self.connections.get_mut(slot.index as usize).and_then(Option::as_mut);
                if let Some(connection) = place.filter(|connection| connection.slot == slot) {
                    let mut around =
                        Surroundings { shard: &mut self.shard, catalog: &self.catalog, scratch: &mut self.scratch };
                    connection.receive(&mut around, bytes);
                    if connection.is_handshaking() {
                        self.handshakes.push_back(slot);
                    }
                }
                self.with(slot, |_, _| {});
            }
            Completion::Ended { slot } => {
                let waits = self.connection(slot).filter(|connection| connection.is_handshaking());
                match waits {
                    Some(connection) => {
                        connection.hung_up = true;
                        self.handshakes.push_back(slot);
                    }
                    None => self.end_of_input(slot),
                }
            }
            Completion::Sent { slot, buffer, result } => self.sent(slot, buffer, &result),
            Completion::Released { slot } => {
                let shard = self.shard.index();
                if let Some(connection) = self.connection(slot) {
                    let (reference, address) = (connection.reference(shard), connection.address);
                    self.connections[slot.index as usize] = None;
                    self.shared.addresses.leave(address);
                    self.open -= 1;
                    self.shard.outboxes.close(reference);
                }
            }
            Completion::Committed(result) => {
                self.shard.storage_complete(StorageCompletion::Committed(result)).inspect_err(|error| {
                    error!("writing to disk failed: {error}; nothing more is acknowledged, the server stops");
                })?;
            }
            Completion::Woken => {
                while let Ok(answer) = self.background.1.try_recv() {
                    self.complete_background(answer);
                }
            }
        }
        Ok(())
    }

    /// Work that will be tried again has failed: said once, until something succeeds.
    fn warn_of(&mut self, result: io::Result<()>) {
        match result {
            Err(error) if !std::mem::replace(&mut self.work_fails, true) => {
                warn!("work on the log was put off and will be tried again: {error}");
            }
            Err(_) => {}
            Ok(()) => self.work_fails = false,
        }
    }

    fn report_damage(&mut self) {
        let Some(place) = self.shard.damage().filter(|_| !self.damage_is_known) else { return };
        self.damage_is_known = true;
        let shard = self.shard.index();
        let detail = "what is stored here fails its checksum; the shard takes no more writes, and this record and \
                      those near it may be unreadable";
        let damage = describe(&self.directory, place, detail.to_owned());
        error!(shard, file = damage.file, offset = damage.offset, "{detail}");
        self.catalog.health.report(shard, damage);
    }

    fn complete_background(&mut self, answer: Background) {
        match answer {
            Background::Created(segment, result) => {
                let result = result.map(|(map, file)| {
                    self.segments.push((segment, file));
                    map
                });
                if let Err(error) = self.shard.storage_complete(StorageCompletion::Created { segment, result }) {
                    if !std::mem::replace(&mut self.no_room, true) {
                        warn!("no room for another log segment: {error}; writes are refused until there is");
                    }
                } else if std::mem::take(&mut self.no_room) {
                    info!("there is room for another log segment; writes are taken again");
                }
            }
            Background::Marked(result) => {
                let result = self.shard.storage_complete(StorageCompletion::Marked(result));
                self.warn_of(result);
            }
            Background::Done(result) => {
                let result = self.shard.storage_complete(StorageCompletion::Done(result));
                self.warn_of(result);
            }
        }
    }

    fn accept(&mut self, listener: usize, slot: Slot) {
        let (Some(&kind), Some(peer)) = (self.kinds.get(listener), self.reactor.peer(slot)) else {
            return self.reactor.close(slot); // it is gone already
        };
        let address = peer.ip();
        if !self.shared.addresses.enter(address) {
            if self.refusal_said_us.is_none_or(|at| self.shard.ticks_us() >= at + REFUSAL_SAID_US) {
                self.refusal_said_us = Some(self.shard.ticks_us());
                warn!(%address, "connections are refused: this address has as many as it may (connectionsPerAddress)");
            }
            return self.reactor.close(slot);
        }
        let index = slot.index as usize;
        if index >= self.connections.len() {
            self.connections.resize_with(index + 1, || None);
        }
        let tls = match kind {
            Kind::Http | Kind::Mqtt => None,
            Kind::Https | Kind::Mqtts => {
                let Some(config) = self.tls.as_ref().map(|tls| tls.config(kind)) else {
                    return self.reactor.close(slot);
                };
                match TlsStream::new(config, kind == Kind::Https) {
                    Ok(tls) => Some(Box::new(tls)),
                    Err(error) => {
                        error!(client = %address, "TLS: {error}");
                        return self.reactor.close(slot);
                    }
                }
            }
        };
        let connection = Connection::open(kind, slot, address, tls, self.shard.ticks_us());
        self.shard.outboxes.open(connection.reference(self.shard.index()));
        self.connections[index] = Some(connection);
        self.open += 1;
        self.shard.outboxes.counters[Counter::Sockets] += 1;
        self.schedule(slot);
    }

    fn sent(&mut self, slot: Slot, buffer: SendBuffer, result: &io::Result<()>) {
        let shard = self.shard.index();
        let Some(connection) = self.connection(slot) else { return };
        let buffer = connection.sent(buffer);
        let is_open = connection.state == State::Open;
        let reference = connection.reference(shard);
        if connection.tls.is_some() {
            self.senders.push(slot); // more may have gathered meanwhile
        }
        if let Some(buffer) = buffer
            && self.shard.outboxes.sent(reference, buffer)
        {
            self.shard.resume(reference);
            self.with(slot, |connection, around| {
                if connection.blocked && connection.state == State::Open {
                    connection.retry(around);
                }
            });
        }
        if result.is_err() {
            return self.break_off(slot);
        }
        // An open one has only lost a deadline.
        if !is_open {
            self.close_if_sent(slot);
            self.schedule(slot);
        }
    }

    /// Goes on with a few TLS handshakes.
    fn shake_hands(&mut self) {
        for _ in 0..HANDSHAKES_PER_TURN {
            let Some(slot) = self.handshakes.pop_front() else { return };
            self.with(slot, |connection, around| {
                if connection.state == State::Open {
                    connection.advance_tls(around);
                }
            });
            if self.connection(slot).is_some_and(|connection| std::mem::take(&mut connection.hung_up)) {
                self.end_of_input(slot);
            }
        }
    }

    /// Nothing more comes from the socket.
    fn end_of_input(&mut self, slot: Slot) {
        if self.connection(slot).is_some_and(|connection| !connection.may_end()) {
            return self.break_off(slot); // something may have been cut off: as if it had been reset
        }
        self.with(slot, |connection, around| connection.end_of_input(around));
        if self.connection(slot).is_some_and(|connection| matches!(connection.state, State::Lingering { .. })) {
            self.break_off(slot);
        }
    }

    /// Hands completions of the shard to the sessions they are for, until there are no more.
    fn tell_sessions(&mut self) {
        while let Some(completion) = self.shard.completion() {
            let ConnectionRef { index, generation, .. } = match &completion {
                ShardCompletion::Outcome { token, .. } | ShardCompletion::ScanReady { token, .. } => token.connection,
                ShardCompletion::Subscribed { connection, .. }
                | ShardCompletion::Joined { connection, .. }
                | ShardCompletion::Checked { connection, .. }
                | ShardCompletion::Release { connection, .. }
                | ShardCompletion::Unsaved { connection }
                | ShardCompletion::Lost { connection }
                | ShardCompletion::Evicted { connection }
                | ShardCompletion::Overflowed { connection } => *connection,
            };
            self.with(Slot { index, generation }, |connection, around| connection.complete(around, completion));
        }
    }

    /// Lets those go on that found no room for commands; those that had no turn come first the next time.
    fn retry_starved(&mut self) {
        let mut waiting = std::mem::take(&mut self.starved).into_iter();
        while self.shard.has_room()
            && let Some(slot) = waiting.next()
        {
            self.with(slot, |connection, around| {
                connection.starved = false;
                if connection.blocked && connection.state == State::Open {
                    connection.retry(around);
                }
            });
        }
        let served = std::mem::take(&mut self.starved);
        self.starved.extend(waiting);
        self.starved.extend(served);
    }

    fn expire(&mut self, due: &mut Vec<Slot>) {
        let ticks_us = self.shard.ticks_us();
        self.wheel.advance(ticks_us, due);
        for slot in due.drain(..) {
            let Some(connection) = self.connection(slot).filter(|own| own.comes_up_us <= ticks_us) else { continue };
            connection.comes_up_us = u64::MAX; // it stands nowhere now
            if connection.deadline() <= ticks_us {
                let mut give_up = false;
                self.with(slot, |connection, around| give_up = connection.expire(around));
                if give_up {
                    self.break_off(slot);
                }
            }
            self.schedule(slot);
        }
    }

    /// Carries out the end of the server. True: this thread is done.
    fn drain(&mut self) -> bool {
        let phase = self.shared.phase.load(Ordering::Acquire);
        if phase == RUN {
            return false;
        }
        let ticks_us = self.shard.ticks_us();
        let begins = self.stop_at_us.is_none();
        if begins {
            info!(shard = self.shard.index(), connections = self.open, "stopping");
            self.reactor.stop_listening();
            self.stop_at_us = Some(ticks_us + DRAIN_US);
        }
        let out_of_time = phase == STOP || self.stop_at_us.is_some_and(|at| ticks_us >= at);
        let slots: Vec<Slot> = self.connections.iter().flatten().map(|connection| connection.slot).collect();
        for slot in slots {
            let Some(connection) = self.connection(slot) else { continue };
            let newcomer = !connection.heard && ticks_us < connection.opened_us + NEWCOMER_US;
            if out_of_time {
                self.with(slot, |connection, around| connection.stop(around));
                self.break_off(slot);
            } else if !newcomer {
                self.with(slot, |connection, around| connection.stop(around));
            }
        }
        // Connections that waited to be accepted come with the next turn.
        let idle = !begins && self.open == 0 && self.shard.is_idle();
        if idle && !std::mem::replace(&mut self.finished, true) {
            self.shared.finished.fetch_add(1, Ordering::AcqRel);
        }
        // Others may still need this shard: all go together, and each when its own last events are on disk.
        let all = self.shared.finished.load(Ordering::Acquire) >= self.shard.shards();
        (all && idle) || self.stop_at_us.is_some_and(|at| ticks_us >= at + DRAIN_US)
    }

    /// Does what the log asks of the disk.
    fn serve_disk(&mut self) -> io::Result<()> {
        while let Some(request) = self.shard.storage_request() {
            match request {
                StorageRequest::Commit { segment, offset, data } => {
                    self.segments.retain(|(own, _)| *own >= segment);
                    let known = self.segments.iter().find(|(own, _)| *own == segment).map(|(_, file)| file.clone());
                    let file = match known {
                        Some(file) => file,
                        None => {
                            let file = Arc::new(self.directory.open_segment(segment)?);
                            self.segments.push((segment, file.clone()));
                            file
                        }
                    };
                    self.reactor.commit(Commit { file, offset, data });
                }
                StorageRequest::Create { segment, bytes } => {
                    let work = move |directory: &Directory| {
                        let map = directory.create(FileName::Segment(segment), bytes)?;
                        Ok((map, Arc::new(directory.open_segment(segment)?)))
                    };
                    self.in_background(work, move |created| Background::Created(segment, created));
                }
                request @ StorageRequest::Mark { .. } => {
                    let work = move |directory: &Directory| match request.run(directory) {
                        StorageCompletion::Marked(result) => result,
                        _ => Err(io::Error::other("a mark is answered with a mark")),
                    };
                    self.in_background(work, Background::Marked);
                }
                StorageRequest::Job(job) => {
                    let work = move |directory: &Directory| {
                        reactor::give_way();
                        job.run(&directory.giving_way())
                    };
                    self.in_background(work, Background::Done);
                }
            }
        }
        Ok(())
    }

    /// Works for the disk on a thread of its own: it takes a while, and nobody waits for it.
    fn in_background<T: 'static>(
        &self,
        work: impl FnOnce(&Directory) -> io::Result<T> + Send + 'static,
        answer: impl FnOnce(io::Result<T>) -> Background + Clone + Send + 'static,
    ) {
        let (directory, sender, wake) = (self.directory.clone(), self.background.0.clone(), self.wake.clone());
        let refuse = (sender.clone(), wake.clone(), answer.clone());
        let tell = |sender: mpsc::Sender<Background>, wake: Arc<EventFd>, answer: Background| {
            // The receiver is gone only if the server has stopped.
            if sender.send(answer).is_ok() {
                shards::link::Wake::wake(&*wake);
            }
        };
        let name = format!("disk-{}", self.shard.index());
        let cores = self.cores.clone();
        let body = move || {
            // On any core of the process, not on this shard's alone. Where that is refused it works as well.
            let _ = reactor::run_on(&cores);
            // A shard that never hears of its work would wait for ever.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&directory)));
            tell(sender, wake, answer(done.unwrap_or_else(|_| Err(io::Error::other("a panic")))));
        };
        if let Err(error) = std::thread::Builder::new().name(name).spawn(body) {
            let (sender, wake, answer) = refuse;
            tell(sender, wake, answer(Err(error)));
        }
    }

    /// One send for each connection that something was written to in this turn.
    fn send(&mut self, dirty: &mut Vec<u32>) {
        self.shard.outboxes.take_dirty(dirty);
        let ticks_us = self.shard.ticks_us();
        for index in dirty.drain(..) {
            let Some(connection) = self.connections.get_mut(index as usize).and_then(Option::as_mut) else { continue };
            if connection.state == State::Closed {
                continue;
            }
            if connection.tls.is_some() {
                let slot = connection.slot;
                self.send_tls(slot);
                continue;
            }
            if let Some(buffer) = self.shard.outboxes.take(index) {
                let deadline = connection.begin_send(ticks_us, buffer.len());
                put_into(&mut self.wheel, connection, deadline);
                self.reactor.send(connection.slot, buffer);
            }
        }
        for slot in std::mem::take(&mut self.senders) {
            self.send_tls(slot);
        }
    }

    /// One send of a connection that speaks TLS, if none is under way and there is something to send.
    fn send_tls(&mut self, slot: Slot) {
        let (shard, ticks_us) = (self.shard.index(), self.shard.ticks_us());
        let place = self.connections.get_mut(slot.index as usize).and_then(Option::as_mut);
        let Some(connection) = place.filter(|own| own.slot == slot && own.state != State::Closed) else { return };
        match connection.seal(&mut self.shard.outboxes, shard, ticks_us) {
            Ok(None) => {}
            Ok(Some(buffer)) => {
                self.reactor.send(slot, buffer);
                self.schedule(slot);
            }
            Err(reason) => {
                warn!("TLS connection broken off: {reason}");
                self.break_off(slot);
            }
        }
    }
}
