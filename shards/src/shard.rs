//! The turn of a shard: everything that happens to its tables, in the order in which it happens.
//!
//! A shard is plain data behind one thread. The thread's loop (root crate, `shard_thread.rs`) does, each turn:
//!
//! 0. [`Shard::begin_turn`]: a bounded number of records that have expired go, compaction takes a step (`compaction.rs`);
//! 1. [`Shard::receive`]: takes a bounded number of messages from the rings, control lanes before data lanes;
//! 2. hands received bytes to the protocol sessions, which call [`Shard::submit`], [`Shard::read`],
//!    [`Shard::subscribe`], … here. In this order: a client that was told of its subscription and publishes at another
//!    shard finds the subscription's requests already answered there;
//! 3. writes are applied (`write.rs`): validated, stamped, appended to the open batch, made into events;
//! 4. events are fanned out (`delivery.rs`): to local subscribers, and once to each interested shard;
//! 5. [`Shard::storage_request`]: if no flush is in flight, the open batch is flushed;
//! 6. [`Shard::storage_complete`]: acknowledgements that waited for the flush are released;
//! 7. takes [`Shard::completion`]s for its sessions, sends the dirty outboxes, and [`Shard::end_turn`]s.
//!
//! Nothing here knows of sockets or of the clock: bytes, completions and the time are arguments. Messages to itself a
//! shard handles at once, so that one shard and many run the same code.

mod compaction;
mod delivery;
mod past;
mod replay;
mod sessions;
mod sharing;
mod write;

use crate::clock::{Clock, Version};
use crate::command::{Completion, Control, Data, Outcome, Refusal, Token};
use crate::counters::{Counter, Counters};
use crate::event::Event;
use crate::limits::{COMMANDS_OUTSTANDING_MAX, Limits, REACHED_INTERVAL_US, RING_MESSAGES_PER_TURN};
use crate::link::Links;
use crate::log::format::RecordKind;
use crate::log::recover::{self, Place, Recovery, RecoveryError};
use crate::log::{Location, Log, Position, Unreadable, index};
use crate::outbox::{Frames, Outboxes};
use crate::progress::Progress;
use crate::query::plan::Plan;
use crate::query::{Query, Scratch};
use crate::record_key::RecordKey;
use crate::replay::ReplayRequest;
use crate::scan::{Scan, ScanRef};
use crate::schema::{TableDef, TableId};
use crate::session::{SYSTEM, Sessions, Wills};
use crate::storage::{Storage, StorageCompletion, StorageRequest};
use crate::subscription::Subscription;
use crate::table::{Entry, Table};
use crate::validate::Builder;
use compaction::Compaction;
pub use delivery::{Encoder, FrameContext};
use past::PastTask;
use sharing::Groups;
pub use sharing::Sharing;
use slab::Slab;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;

/// An answer that waits for the flush of its event.
struct Pending {
    seq: u64,
    from: u16,
    token: Token,
    outcome: Outcome,
    weight: u32,
}

/// Whom a scan is for.
enum ScanOwner {
    Subscription(u32),
    Reader(Token),
}

struct OpenScan {
    generation: u32,
    owner: ScanOwner,
    scan: Scan,
}

/// See `session.rs`.
#[derive(Clone, Copy)]
struct System {
    sessions: Option<TableId>,
    receipts: Option<TableId>,
    figures: Option<TableId>,
}

/// Entries of an index that are loaded before progress is told.
const COUNTED_TOGETHER: u64 = 4096;

/// What expires: time (milliseconds since 1970), version, table and key of every such record.
type Expiries = BTreeSet<(u64, Version, TableId, Box<[u8]>)>;

pub struct Shard {
    index: u16,
    now_us: u64,
    ticks_us: u64,
    limits: Limits,
    tables: Vec<Table>,
    log: Log,
    /// The data could not be read at start: nothing is known of any record.
    tables_are_missing: bool,
    compaction: Compaction,
    expiries: Expiries,
    /// Events that wait for the disk, because their table delivers what is committed, because they are to come exactly
    /// once, or because such an event is before them: a shard's events are delivered in the order of its log. And what
    /// they made of their records.
    held_back: VecDeque<(Event, Option<Entry>)>,
    clock: Clock,
    builder: Builder,
    /// Reused copy of the record that a write replaces.
    previous: Vec<u8>,
    links: Links,
    pub outboxes: Outboxes,
    subscriptions: Slab<Subscription>,
    scans: Slab<OpenScan>,
    /// Chunks of queries that wait for their turn, or for an index that is being made; and the shards that ask.
    waiting_scans: VecDeque<(u16, Control)>,
    /// Chunks of queries that may still be read in this turn.
    query_chunks_left: usize,
    /// Scans of this shard that have looked at much and found nothing: they go on in the next turn.
    barren_scans: Vec<ScanRef>,
    /// Told apart, slots of `subscriptions` and `scans` can be used again.
    generations: u32,
    /// The tables that are the server's own, where it has them.
    system: System,
    sessions: Sessions,
    /// After a start: the session that was looked at last, and whether it was the last one.
    adopted_upto: Box<[u8]>,
    sessions_are_adopted: bool,
    /// After a start: all records are in the indexes of their tables.
    indexes_are_built: bool,
    /// Those that are sent after a delay.
    wills: Wills,
    /// Groups of shared subscriptions that live here.
    groups: Groups,
    /// Subscriptions here that are members of groups.
    shared_subscriptions: u64,
    encoder: Box<dyn Encoder>,
    frames: Frames,
    key_text: String,
    query_scratch: Scratch,
    /// Reused memory: what a live query selects of a record.
    selected: Vec<u8>,
    /// The same of what was there before.
    shown_before: Vec<u8>,
    /// How far each shard's events have been delivered here.
    seen: Vec<Position>,
    /// What peers were last told of this shard, and when.
    told: (Position, u64),
    /// Clients that are to be given events of this shard's log, and the shards they are connected to.
    replays: VecDeque<(u16, ReplayRequest)>,
    /// Searches for earlier states of records.
    pasts: VecDeque<PastTask>,
    /// By table: history up to here may have been dropped.
    pruned: Vec<Position>,
    pending: VecDeque<Pending>,
    /// Writes that wait for room in the log, what must not overtake them, and the shards they came from.
    deferred: VecDeque<(u16, Data)>,
    /// Weight of this shard's connections' commands that have not been answered.
    outstanding: usize,
    /// Weight of the commands carried out for each shard that nobody waits for.
    credits: Vec<u32>,
    completions: VecDeque<Completion>,
}

/// What a shard is made of.
pub struct Parts<'a> {
    pub index: u16,
    pub limits: Limits,
    pub tables: &'a [(TableId, Arc<TableDef>)],
    pub links: Links,
    pub encoder: Box<dyn Encoder>,
    /// Any random number.
    pub salt: u64,
    /// The wall time, in microseconds since 1970: what has expired is not loaded.
    pub now_us: u64,
}

impl Shard {
    /// Recovers the shard from its log.
    pub fn open(parts: Parts<'_>, storage: &dyn Storage) -> Result<(Shard, Recovery), RecoveryError> {
        let progress = Progress::default();
        let (log, recovery) = recover::open(storage, parts.index, parts.salt, parts.limits.segment_sizes(), &progress)?;
        Ok((Shard::with_log(parts, log, &progress), recovery))
    }

    /// A shard over a log that was recovered.
    pub fn with_log(parts: Parts<'_>, log: Log, progress: &Progress) -> Shard {
        let mut shard = Shard::new(parts, log);
        shard.load(progress);
        shard
    }

    /// A shard whose data cannot be read: it refuses reads and writes of its records, and serves its connections.
    pub fn damaged(parts: Parts<'_>, at: Place) -> Shard {
        let log = Log::damaged(parts.index, at);
        let mut shard = Shard::new(parts, log);
        shard.tables_are_missing = true;
        shard
    }

    /// Fills the tables from the indexes of the log.
    fn load(&mut self, progress: &Progress) {
        let Shard { log, tables, clock, expiries, system, .. } = self;
        let indexes: Vec<_> = log.sealed().iter().filter_map(|sealed| sealed.index.as_ref()).collect();
        indexes.iter().for_each(|index| clock.observe(index.max_version()));
        let now_ms = self.now_us / 1000;
        let mut rows = Vec::new();
        let mut live: HashMap<(u32, TableId), u64> = HashMap::new();
        let mut current = None;
        let mut finish = |table: Option<TableId>, rows: &mut Vec<(RecordKey, Entry)>| {
            if let Some(id) = table.filter(|_| !rows.is_empty()) {
                let at = usize::from(id.0);
                if at >= tables.len() {
                    tables.resize_with(at + 1, || Table::new(None));
                }
                tables[at].load(std::mem::take(rows));
            }
        };
        let entries: u64 = indexes.iter().map(|index| index.len() as u64).sum();
        let share = (progress.left() / (entries * self.links.shards() as u64).max(1)).max(1);
        let mut counted = 0;
        index::merge(&indexes, &mut |segment, found| {
            // The counter is shared by all shards: it is touched now and then.
            counted += share;
            if counted >= COUNTED_TOGETHER * share {
                progress.add(std::mem::take(&mut counted));
            }
            if current != Some(found.table) {
                finish(current.replace(found.table), &mut rows);
            }
            let is_over = found.expires_ms.is_some_and(|at| at <= now_ms) || system.figures == Some(found.table);
            if found.kind != RecordKind::Put || is_over {
                return;
            }
            let location = Location { segment, offset: found.offset };
            if let Some(at_ms) = found.expires_ms {
                expiries.insert((at_ms, found.version, found.table, found.key.into()));
            }
            let expires = found.expires_ms.is_some();
            rows.push((
                RecordKey::new(found.key),
                Entry { location, version: found.version, bytes: found.bytes, expires },
            ));
            *live.entry((segment, found.table)).or_default() += u64::from(found.bytes);
        });
        progress.add(counted);
        finish(current, &mut rows);
        for ((segment, table), bytes) in live {
            self.log.hold(segment, table, bytes);
        }
        self.seen[usize::from(self.index)] = self.log.position();
        self.note_pruned();
    }

    fn new(parts: Parts<'_>, log: Log) -> Shard {
        let mut tables: Vec<Table> = Vec::new();
        for (id, definition) in parts.tables {
            let at = usize::from(id.0);
            if at >= tables.len() {
                tables.resize_with(at + 1, || Table::new(None));
            }
            tables[at] = Table::new(Some(definition.clone()));
        }
        let limits = Limits { segments: parts.limits.segment_sizes(), ..parts.limits };
        let shards = parts.links.shards();
        let named = |name: &str| {
            let is_it = |own: &&(TableId, Arc<TableDef>)| own.1.database == SYSTEM && own.1.name == name;
            parts.tables.iter().find(is_it).map(|(id, _)| *id)
        };
        let system = System { sessions: named("sessions"), receipts: named("receipts"), figures: named("figures") };
        Shard {
            index: parts.index,
            now_us: parts.now_us,
            ticks_us: 0,
            limits,
            tables,
            log,
            tables_are_missing: false,
            compaction: Compaction::default(),
            expiries: Expiries::new(),
            held_back: VecDeque::new(),
            clock: Clock::default(),
            builder: Builder::default(),
            previous: Vec::new(),
            links: parts.links,
            outboxes: Outboxes::new(parts.index, parts.limits.outbox_bytes_max),
            subscriptions: Slab::new(),
            scans: Slab::new(),
            waiting_scans: VecDeque::new(),
            query_chunks_left: 0,
            barren_scans: Vec::new(),
            generations: 0,
            system,
            sessions: Sessions::default(),
            adopted_upto: Box::default(),
            sessions_are_adopted: system.sessions.is_none(),
            indexes_are_built: false,
            wills: Wills::default(),
            groups: Groups::default(),
            shared_subscriptions: 0,
            encoder: parts.encoder,
            frames: Frames::default(),
            key_text: String::new(),
            query_scratch: Scratch::default(),
            selected: Vec::new(),
            shown_before: Vec::new(),
            seen: vec![Position::default(); shards],
            told: (Position::default(), 0),
            replays: VecDeque::new(),
            pasts: VecDeque::new(),
            pruned: Vec::new(),
            pending: VecDeque::new(),
            deferred: VecDeque::new(),
            outstanding: 0,
            credits: vec![0; shards],
            completions: VecDeque::new(),
        }
    }

    pub fn index(&self) -> u16 {
        self.index
    }

    pub fn shards(&self) -> usize {
        self.links.shards()
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The wall time of this turn, in microseconds since 1970: for stamps.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    /// What this shard has counted, and how much of everything it has.
    pub fn counters(&self) -> Counters {
        let mut counters = self.outboxes.counters;
        let stored = self.system.sessions.map_or(0, |table| self.table(table).len());
        let is_apps = |table: &&Table| table.definition.as_ref().is_some_and(|own| own.database != SYSTEM);
        counters[Counter::SessionsStored] = stored as u64;
        counters[Counter::Subscriptions] = self.subscriptions.len() as u64;
        counters[Counter::SharedSubscriptions] = self.shared_subscriptions;
        counters[Counter::Records] = self.tables.iter().filter(is_apps).map(|table| table.len() as u64).sum();
        counters[Counter::RecordBytes] = self.log.live_bytes(|id| is_apps(&self.table(id)));
        counters
    }

    /// The log, to look at.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Where something was found that was acknowledged and cannot be read: the shard takes no more writes.
    pub fn damage(&self) -> Option<Place> {
        self.log.damage()
    }

    /// The time of this turn on a clock that never jumps, in microseconds: for deadlines.
    pub fn ticks_us(&self) -> u64 {
        self.ticks_us
    }

    pub fn table(&self, id: TableId) -> &Table {
        &self.tables[usize::from(id.0)]
    }

    pub fn table_mut(&mut self, id: TableId) -> &mut Table {
        &mut self.tables[usize::from(id.0)]
    }

    /// How far each shard has come, as seen from here.
    pub fn seen(&self) -> &[Position] {
        &self.seen
    }

    /// Whether connections may issue commands. If not, they are to be left unread until a later turn.
    pub fn has_room(&self) -> bool {
        self.outstanding < COMMANDS_OUTSTANDING_MAX
    }

    /// `now_us` is the wall time, `ticks_us` a clock that never jumps.
    pub fn begin_turn(&mut self, now_us: u64, ticks_us: u64) {
        self.now_us = now_us;
        self.ticks_us = ticks_us;
        self.outboxes.ticks_us = ticks_us;
        self.resume_paced();
        self.evict_expired();
        self.apply_deferred();
        self.adopt_sessions();
        self.send_wills();
        self.compact();
        self.build_indexes();
        self.serve_scans();
        self.serve_replays();
        self.serve_pasts();
    }

    /// Takes what peers have sent. True: there may be more.
    pub fn receive(&mut self) -> bool {
        let mut more = false;
        for from in 0..self.shards() as u16 {
            let mut left = RING_MESSAGES_PER_TURN;
            while left > 0
                && let Some(message) = self.links.receive_control(from)
            {
                self.control(from, message);
                left -= 1;
            }
            more |= left == 0;
        }
        for from in 0..self.shards() as u16 {
            let mut left = RING_MESSAGES_PER_TURN;
            while left > 0
                && let Some(message) = self.links.receive_data(from)
            {
                self.data(from, message);
                left -= 1;
            }
            more |= left == 0;
        }
        more
    }

    fn send_control(&mut self, to: u16, message: Control) {
        if to == self.index { self.control(to, message) } else { self.links.send_control(to, message) }
    }

    fn send_data(&mut self, to: u16, message: Data) {
        if to == self.index { self.data(to, message) } else { self.links.send_data(to, message) }
    }

    fn control(&mut self, from: u16, message: Control) {
        match message {
            Control::Interest { table, filter, subscription } => {
                *self.table_mut(table).interest.entry(&filter) |= 1 << from;
                let reached = self.reached();
                self.send_data(from, Data::Interested { subscription, reached });
            }
            Control::NoInterest { table, filter } => self.table_mut(table).interest.edit(&filter, |shards| {
                *shards &= !(1 << from);
                *shards == 0
            }),
            Control::Scan { table, ref plan, .. } if !self.may_read_chunk(table, plan.as_deref()) => {
                self.waiting_scans.push_back((from, message));
            }
            Control::Scan { scan, table, filter, plan, after } => {
                let chunk = self.chunk(table, &filter, plan.as_deref(), after.as_deref());
                let position = self.reached();
                self.send_data(from, Data::Chunk { scan, chunk, position });
            }
            Control::Watch { table, on } => {
                let watchers = &mut self.table_mut(table).watchers;
                *watchers = *watchers & !(1 << from) | u64::from(on) << from;
            }
            Control::Credit { weight } => self.outstanding -= weight as usize,
            Control::Replay(request) => self.replays.push_back((from, request)),
            Control::Evict { connection } => self.completions.push_back(Completion::Evicted { connection }),
        }
    }

    fn data(&mut self, from: u16, message: Data) {
        match message {
            Data::Write(write) => self.receive_write(from, write),
            Data::Read { token, table, key } => {
                let outcome = match self.peek(table, &key) {
                    Ok(stored) => Outcome::Record(stored),
                    Err(Unreadable) => Outcome::Refused(Refusal::Damaged),
                };
                self.send_data(from, Data::Outcome { token, outcome, weight: 1 });
            }
            Data::ReadPast { token, table, key, upto } => self.search_state(from, token, table, &key, upto),
            Data::Outcome { token, outcome, weight } => {
                self.outstanding -= weight as usize;
                self.completions.push_back(Completion::Outcome { token, outcome });
            }
            Data::Event(event) => self.deliver(&event),
            Data::Interested { subscription, reached } => self.confirm(from, subscription, reached),
            Data::Reached(reached) => {
                let seen = &mut self.seen[usize::from(from)];
                *seen = reached.max(*seen);
            }
            Data::Replayed(replayed) => self.replayed(from, replayed),
            Data::Sharing(message) => self.sharing(from, message),
            message @ (Data::Join { .. } | Data::Leave { .. } | Data::ForgetSession { .. }) => {
                self.session_message(from, message);
            }
            Data::Joined { connection, stored, has_room } => {
                self.completions.push_back(Completion::Joined { connection, stored, has_room });
            }
            Data::Chunk { scan, chunk, position } => {
                let seen = &mut self.seen[usize::from(from)];
                *seen = position.max(*seen);
                self.offer(from, scan, chunk);
            }
        }
    }

    /// What the disk is to do now; asked until it gives nothing.
    pub fn storage_request(&mut self) -> Option<StorageRequest> {
        self.log.request(self.ticks_us)
    }

    /// The disk has answered. An error of a flush fences the shard: the server must stop, and nothing that waited is
    /// acknowledged.
    pub fn storage_complete(&mut self, completion: StorageCompletion) -> io::Result<()> {
        let is_job = matches!(completion, StorageCompletion::Done(_));
        let result = match self.log.complete(completion, self.ticks_us) {
            Ok(Some(done)) => {
                self.rewritten(done);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                if is_job {
                    self.job_failed();
                }
                Err(error)
            }
        };
        self.release_held_back();
        let durable = self.log.durable_seq();
        while self.pending.front().is_some_and(|pending| pending.seq <= durable) {
            let Some(pending) = self.pending.pop_front() else { break };
            let Pending { from, token, outcome, weight, .. } = pending;
            self.send_data(from, Data::Outcome { token, outcome, weight });
        }
        self.apply_deferred();
        result
    }

    /// The last thing for the disk, when everything is flushed and the shard is about to stop.
    pub fn last_request(&mut self) -> Option<StorageRequest> {
        self.log.mark()
    }

    pub fn is_fenced(&self) -> bool {
        self.log.is_fenced()
    }

    /// When a turn is due though nothing happens, on the clock of [`Shard::ticks_us`].
    pub fn deadline_us(&self) -> Option<u64> {
        let expiry = self
            .expiries
            .first()
            .map(|(at_ms, ..)| self.ticks_us.saturating_add(at_ms.saturating_mul(1000).saturating_sub(self.now_us)));
        [
            self.log.deadline_us(),
            self.compaction_deadline_us(),
            expiry,
            self.tells_at_us(),
            self.will_deadline_us(),
            self.outboxes.paced_at_us(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When peers are to be told how far this shard has come: what they note of clients must not grow old.
    fn tells_at_us(&self) -> Option<u64> {
        (self.shards() > 1 && self.told.0 != self.reached()).then_some(self.told.1 + REACHED_INTERVAL_US)
    }

    /// What sessions are to be told.
    pub fn completion(&mut self) -> Option<Completion> {
        // Frames that are still to be given may find that an outbox is full, or that a session is to be saved first.
        if self.completions.is_empty() {
            self.outboxes.settle();
        }
        match self.outboxes.next_overflowed() {
            Some(connection) => Some(Completion::Overflowed { connection }),
            None => match self.outboxes.next_unsaved() {
                Some(connection) => Some(Completion::Unsaved { connection }),
                None => self.completions.pop_front(),
            },
        }
    }

    /// Sends what waits for peers, and wakes those that sleep.
    pub fn end_turn(&mut self) {
        for to in 0..self.shards() as u16 {
            let weight = std::mem::take(&mut self.credits[usize::from(to)]);
            if weight > 0 {
                self.send_control(to, Control::Credit { weight });
            }
        }
        if self.tells_at_us().is_some_and(|at_us| at_us <= self.ticks_us) {
            self.told = (self.reached(), self.ticks_us);
            let own = self.index;
            (0..self.shards() as u16)
                .filter(|to| *to != own)
                .for_each(|to| self.links.send_data(to, Data::Reached(self.told.0)));
        }
        self.links.flush();
    }

    /// Whether the thread may sleep until its reactor has news or a peer wakes it. [`Shard::wake_up`] follows in any case.
    pub fn may_sleep(&mut self) -> bool {
        // What was put off waits for the disk or for a peer; if neither is under way it can go on now.
        let put_off = !self.deferred.is_empty() && self.log.is_clean() && !self.links.is_congested();
        self.links.may_sleep()
            && !(put_off && self.log.has_spare())
            && !self.compacts()
            && self.replays.is_empty()
            && self.pasts.is_empty()
            && self.barren_scans.is_empty()
            && self.waiting_scans.is_empty()
            && self.indexes_are_built
            && self.sessions_are_adopted
    }

    pub fn wake_up(&mut self) {
        self.links.wake_up();
    }

    /// Whether nothing waits for the disk, for peers or for sessions.
    pub fn is_idle(&self) -> bool {
        self.outstanding == 0
            && self.log.is_clean()
            && self.pending.is_empty()
            && self.deferred.is_empty()
            && self.completions.is_empty()
    }

    fn next_generation(&mut self) -> u32 {
        self.generations = self.generations.wrapping_add(1);
        self.generations
    }

    fn fan_out(&mut self, mut event: Event) {
        event.reached = self.reached();
        let table = &mut self.tables[usize::from(event.table.0)];
        if !table.interest.is_empty() {
            let text = table.codec.text(event.body.key(), &mut self.key_text);
            let mut shards = 0;
            table.interest.visit(text, &mut |interested| shards |= *interested);
            while shards != 0 {
                let to = shards.trailing_zeros() as u16;
                shards &= shards - 1;
                self.links.send_data(to, Data::Event(event.clone()));
            }
        }
        self.deliver(&event);
    }

    /// How a query of a table is best carried out.
    pub fn plan(&self, table: TableId, query: Arc<Query>) -> Option<Plan> {
        self.table(table).plan(query)
    }

    /// Opens a scan for a reader; [`Completion::ScanReady`] says when to call [`Shard::scan_step`].
    pub fn scan(&mut self, token: Token, target: crate::topic::Target, plan: Option<Arc<Plan>>) -> ScanRef {
        let scan = self.open_scan(ScanOwner::Reader(token), Arc::new([target]), plan);
        self.pump(scan);
        scan
    }

    fn open_scan(
        &mut self,
        owner: ScanOwner,
        targets: Arc<[crate::topic::Target]>,
        plan: Option<Arc<Plan>>,
    ) -> ScanRef {
        let generation = self.next_generation();
        let scan = Scan::new(targets, plan, self.shards());
        let index = self.scans.insert(OpenScan { generation, owner, scan }) as u32;
        ScanRef { index, generation }
    }

    fn open_scan_mut(&mut self, scan: ScanRef) -> Option<&mut OpenScan> {
        self.scans.get_mut(scan.index as usize).filter(|open| open.generation == scan.generation)
    }

    pub fn close_scan(&mut self, scan: ScanRef) {
        if self.open_scan_mut(scan).is_some() {
            self.scans.remove(scan.index as usize);
        }
    }
}

#[cfg(test)]
mod tests;
