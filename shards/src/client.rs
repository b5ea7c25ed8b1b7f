//! What is under way to one client that acknowledges what it gets (MQTT QoS 1 and 2): the messages in flight, and where
//! in the log to go on when it could not be given more.
//!
//! A client that has no room (its receive maximum is used up, its outbox is full) *falls behind* on the shards whose
//! events it misses. Nothing is queued for it: from there on the events are read from the log (`shard/replay.rs`), until
//! it has caught up. A session that is resumed begins behind on every shard.

use crate::limits::{INFLIGHT_MAX, TOPIC_ALIASES_MAX};
use crate::log::{Location, Position};
use crate::outbox::FrameKind;
use crate::schema::TableId;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// What a message in flight was made of: enough to make it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An event of a shard, under one of the paths of its table.
    Event { shard: u16, position: Position, path: u8 },
    /// A current record.
    Row { table: TableId, key: Box<[u8]> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sent at QoS 1: PUBACK will end it.
    AtLeastOnce,
    /// Sent at QoS 2: PUBREC is next.
    ExactlyOnce,
    /// PUBREL is due or sent: PUBCOMP will end it.
    Released,
}

impl Phase {
    /// In which a message begins, by its quality of service, which is above 0.
    pub fn of(kind: FrameKind) -> Phase {
        if kind.qos() == 1 { Phase::AtLeastOnce } else { Phase::ExactlyOnce }
    }
}

/// A message that was sent and is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inflight {
    pub packet_id: u16,
    pub phase: Phase,
    /// The subscription it was shared out through, if any: its number at this shard.
    pub shared: Option<u32>,
    pub source: Source,
}

/// A shard whose events the client is to read from the log.
#[derive(Clone, Copy, Debug)]
pub struct Behind {
    pub shard: u16,
    /// Everything up to here was sent.
    pub from: Position,
    /// Messages at QoS 0 are missing, too, after this.
    pub from_at_most_once: Option<Position>,
    pub partly: Option<Partly>,
    /// Where `from` stands in the log, to find it quickly.
    pub hint: Option<Location>,
    /// Of a stream that goes on: nothing is left out until it has caught up.
    pub everything: bool,
    /// The shard has been asked for the next events.
    pub asked: bool,
}

/// What must be known to go on with a client later, on another connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How far each shard's events have been sent.
    pub positions: Vec<Position>,
    /// The events next to those, where they were sent under some of their table's paths but not all.
    pub partly: Vec<Partly>,
    /// Oldest first.
    pub inflight: Vec<Inflight>,
}

/// An event that was sent under these of its table's paths only (a bit for each).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partly {
    pub shard: u16,
    pub position: Position,
    pub paths: u64,
}

/// So many events in each window of time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    window_us: u64,
    allowance: u32,
    left: u32,
    /// When the current window ends.
    ends_us: u64,
    /// It stands in the queue of those that wait for that.
    pub is_queued: bool,
}

impl Pace {
    /// Events in a second.
    pub fn new(per_second: f64) -> Pace {
        // Short enough to be smooth, long enough that a timer for each is cheap.
        const WINDOW_US_MIN: f64 = 50_000.0;
        let window_us = (1e6 / per_second).max(WINDOW_US_MIN);
        let allowance = (per_second * window_us / 1e6).round().max(1.0) as u32;
        Pace { window_us: window_us as u64, allowance, left: 0, ends_us: 0, is_queued: false }
    }

    /// How many events may still be sent now; and otherwise, when that will be.
    fn left(&mut self, now_us: u64) -> Result<u32, u64> {
        if now_us >= self.ends_us {
            (self.left, self.ends_us) = (self.allowance, now_us + self.window_us);
        }
        if self.left > 0 { Ok(self.left) } else { Err(self.ends_us) }
    }
}

#[derive(Default)]
struct Aliases {
    /// By table, path and key.
    known: HashMap<Box<[u8]>, u16>,
    /// Reused, to look them up.
    name: Vec<u8>,
}

struct Again {
    /// Still to be sent again, oldest first.
    left: Vec<u16>,
    /// What shards have been asked for last.
    asked: Vec<u16>,
}

/// Fan-out goes from one client to the next: what it looks at stands first, in one line of the cache.
#[repr(C)]
pub struct Client {
    /// Messages that may be in flight: the client's receive maximum.
    window: u16,
    /// The packet identifier that is tried next.
    next: u16,
    /// It may be sent messages: its CONNACK has been written.
    pub has_begun: bool,
    /// It acknowledges nothing (SSE, WebSocket): when it falls behind it is given the newest states.
    pub is_stream: bool,
    /// Its session outlives the connection: what QoS 2 promises must be on disk before it is said.
    pub is_durable: bool,
    /// It had no room for something that a group wanted to give it.
    pub has_refused: bool,
    /// A resumption has been told that something is missing.
    pub is_gone: bool,
    /// What its frames are encoded as, where no subscription says so.
    pub encoding: u8,
    /// Topic aliases that it takes (MQTT 5 §3.3.2.3.4).
    pub alias_maximum: u16,
    /// Answers that a resumption still waits for.
    pub checks: u16,
    /// Bit per packet identifier in use; made for the first.
    used: Option<Box<[u64; INFLIGHT_MAX / 64]>>,
    inflight: VecDeque<Inflight>,
    /// A stream that wants to be told no more often than so.
    pub pace: Option<Box<Pace>>,
    behind: Vec<Behind>,
    /// Rises with whatever changes [`Progress`].
    pub changes: u64,
    /// Frames that wait until the session has been saved.
    pub held: Vec<u8>,
    /// Part of `held` that the save under way covers.
    pub covered: usize,
    /// Its subscriptions, by their number at this shard.
    pub subscriptions: Vec<u32>,
    /// Events that were left out for it since it was last told of that.
    pub skipped: u64,
    /// Topic aliases that it knows.
    aliases: Option<Box<Aliases>>,
    /// Names its session.
    pub session: u64,
    /// What was in flight when the session was taken up; none if nothing was.
    again: Option<Box<Again>>,
}

impl Client {
    pub fn new(window: u16, is_durable: bool) -> Client {
        Client {
            window: window.clamp(1, INFLIGHT_MAX as u16),
            used: None,
            next: 1,
            inflight: VecDeque::new(),
            behind: Vec::new(),
            subscriptions: Vec::new(),
            is_stream: false,
            skipped: 0,
            pace: None,
            is_durable,
            held: Vec::new(),
            covered: 0,
            changes: 0,
            encoding: 0,
            alias_maximum: 0,
            aliases: None,
            has_begun: true,
            session: 0,
            again: None,
            has_refused: false,
            checks: 0,
            is_gone: false,
        }
    }

    /// A reader of a stream.
    pub fn stream(encoding: u8, pace: Option<Pace>) -> Client {
        Client { is_stream: true, encoding, pace: pace.map(Box::new), ..Client::new(u16::MAX, false) }
    }

    /// How many events its pace allows now; and where there are none, when it will. Of those a frame takes one.
    pub fn allowance(&mut self, now_us: u64) -> Result<u32, u64> {
        self.pace.as_mut().map_or(Ok(u32::MAX), |pace| pace.left(now_us))
    }

    pub fn take_allowance(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.left = pace.left.saturating_sub(1);
        }
    }

    /// Whether a message waits until the session has been saved: what QoS 2 promises must be on disk before it is said,
    /// and what comes behind a message that waits does, too, for the order.
    pub fn holds(&self, phase: Phase) -> bool {
        self.is_durable && (phase == Phase::ExactlyOnce || !self.held.is_empty())
    }

    /// Whether so many messages may be sent now, without more ado.
    pub fn takes_at_once(&self, phase: Phase, count: usize) -> bool {
        self.has_begun && count <= self.room() && !self.holds(phase)
    }

    /// How many more messages may be sent now.
    pub fn room(&self) -> usize {
        usize::from(self.window).saturating_sub(self.inflight.len())
    }

    fn mark(&mut self, packet_id: u16, on: bool) {
        let (word, bit) = (usize::from(packet_id - 1) / 64, (packet_id - 1) % 64);
        let used = self.used.get_or_insert_default();
        if on {
            used[word] |= 1 << bit;
        } else {
            used[word] &= !(1 << bit);
        }
    }

    /// Notes a message that is about to be sent, and gives its packet identifier. There must be room.
    pub fn begin(&mut self, phase: Phase, shared: Option<u32>, source: Source) -> u16 {
        let mut packet_id = self.next;
        let used = self.used.get_or_insert_default();
        loop {
            let (word, bit) = (usize::from(packet_id - 1) / 64, (packet_id - 1) % 64);
            if used[word] & (1 << bit) == 0 {
                used[word] |= 1 << bit;
                break;
            }
            packet_id = packet_id % INFLIGHT_MAX as u16 + 1;
        }
        self.next = packet_id % INFLIGHT_MAX as u16 + 1;
        self.inflight.push_back(Inflight { packet_id, phase, shared, source });
        self.changes += 1;
        packet_id
    }

    /// Takes over what an earlier connection of the session had in flight.
    pub fn resume(&mut self, progress: &Progress) {
        for message in &progress.inflight {
            if (1..=INFLIGHT_MAX as u16).contains(&message.packet_id) {
                self.mark(message.packet_id, true);
                self.inflight.push_back(message.clone());
            }
        }
        self.has_begun = false;
        let again = self.inflight.iter().filter(|own| own.phase != Phase::Released);
        let left: Vec<u16> = again.map(|own| own.packet_id).collect();
        self.again = (!left.is_empty()).then(|| Box::new(Again { left, asked: Vec::new() }));
        let everything = self.is_stream;
        let behind = (0..).zip(&progress.positions).map(|(shard, from)| Behind {
            everything,
            partly: progress.partly.iter().find(|own| own.shard == shard).copied(),
            ..Behind::new(shard, *from)
        });
        self.behind = behind.collect();
    }

    /// The acknowledgement that ends a message. `None`: nothing of this identifier waits for it.
    pub fn end(&mut self, packet_id: u16, is_due: impl Fn(Phase) -> bool) -> Option<Inflight> {
        let at = self.inflight.iter().position(|own| own.packet_id == packet_id)?;
        if !is_due(self.inflight[at].phase) {
            return None;
        }
        self.mark(packet_id, false);
        self.forget_again(packet_id);
        self.changes += 1;
        let ended = self.inflight.remove(at);
        if self.inflight.is_empty() && self.inflight.capacity() > 64 {
            self.inflight = VecDeque::new();
        }
        ended
    }

    /// PUBREC has come: PUBREL is due. False: nothing of this identifier waits for one.
    pub fn release(&mut self, packet_id: u16) -> bool {
        match self.inflight.iter_mut().find(|own| own.packet_id == packet_id) {
            Some(own) if own.phase != Phase::AtLeastOnce => {
                own.phase = Phase::Released;
                self.forget_again(packet_id);
                self.changes += 1;
                true
            }
            _ => false,
        }
    }

    /// Whether something that was in flight is still to be sent again.
    pub fn has_again(&self) -> bool {
        self.again.as_ref().is_some_and(|again| !again.left.is_empty())
    }

    /// What is to be sent again now: no more than the window allows [MQTT-3.3.4-9].
    pub fn take_again(&mut self) -> Vec<Inflight> {
        let Some(Again { left, asked }) = self.again.as_deref_mut() else { return Vec::new() };
        let sent = self.inflight.len() - left.len();
        let count = usize::from(self.window).saturating_sub(sent).min(left.len());
        *asked = left.drain(..count).collect();
        self.inflight.iter().filter(|own| asked.contains(&own.packet_id)).cloned().collect()
    }

    /// Whether shards have been asked for a message that is to be sent again.
    pub fn has_asked_again(&self, packet_id: u16) -> bool {
        self.again.as_ref().is_some_and(|again| again.asked.contains(&packet_id))
    }

    fn forget_again(&mut self, packet_id: u16) {
        if let Some(again) = &mut self.again {
            again.left.retain(|own| *own != packet_id);
        }
    }

    /// The alias of a topic name, and whether the client knows it; a new one while it takes more.
    pub fn alias(&mut self, table: TableId, path: u8, key: &[u8]) -> Option<(u16, bool)> {
        let [low, high] = table.0.to_le_bytes();
        let Aliases { known, name } = &mut **self.aliases.get_or_insert_default();
        name.clear();
        name.extend_from_slice(&[low, high, path]);
        name.extend_from_slice(key);
        if let Some(alias) = known.get(name.as_slice()) {
            return Some((*alias, true));
        }
        let alias = known.len() as u16 + 1;
        let is_new = alias <= self.alias_maximum.min(TOPIC_ALIASES_MAX);
        is_new.then(|| {
            known.insert(name.as_slice().into(), alias);
            (alias, false)
        })
    }

    /// A subscription that was shared ends: what came through it is the client's own affair.
    pub fn unshare(&mut self, subscription: u32) {
        let own = self.inflight.iter_mut().filter(|own| own.shared == Some(subscription));
        own.for_each(|own| own.shared = None);
    }

    /// What is in flight, oldest first.
    pub fn inflight(&self) -> impl Iterator<Item = &Inflight> {
        self.inflight.iter()
    }

    pub fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    pub fn behind(&mut self) -> &mut Vec<Behind> {
        &mut self.behind
    }

    /// Whether an event of this quality will be read from the log later.
    pub fn reads_later(&self, shard: u16, qos: u8) -> bool {
        let own = self.behind.iter().find(|own| own.shard == shard);
        own.is_some_and(|own| qos > 0 || own.everything || own.from_at_most_once.is_some())
    }

    /// An event could not be sent. `everything`: neither could one of QoS 0 after it.
    pub fn fall_behind(&mut self, shard: u16, position: Position, everything: bool) {
        let before = Position { seq: position.seq.saturating_sub(1), ..position };
        let at_most_once = everything.then_some(before);
        match self.behind.iter_mut().find(|own| own.shard == shard) {
            Some(own) => own.from_at_most_once = own.from_at_most_once.or(at_most_once),
            None => {
                let paths = self.inflight.iter().rev().map_while(|own| match own.source {
                    Source::Event { shard: of, position: at, path } => ((of, at) == (shard, position)).then_some(path),
                    Source::Row { .. } => None,
                });
                let paths = paths.fold(0, |paths, path| paths | path_bit(path));
                let partly = (paths != 0).then_some(Partly { shard, position, paths });
                self.behind.push(Behind { from_at_most_once: at_most_once, partly, ..Behind::new(shard, before) });
            }
        }
        self.changes += 1;
    }

    /// What a later connection needs; `seen` is how far this shard has come with the events of each.
    pub fn progress(&self, seen: &[Position]) -> Progress {
        let mut positions = seen.to_vec();
        for behind in &self.behind {
            positions[usize::from(behind.shard)] = behind.from;
        }
        let partly = self.behind.iter().filter_map(|behind| behind.partly).collect();
        Progress { positions, partly, inflight: self.inflight.iter().cloned().collect() }
    }
}

/// In the set of an event's paths.
fn path_bit(path: u8) -> u64 {
    1 << (path % 64)
}

impl Behind {
    /// Whether the client was sent an event under this path already.
    pub fn was_sent(&self, position: Position, path: u8) -> bool {
        self.partly.is_some_and(|own| own.position == position && own.paths & path_bit(path) != 0)
    }

    /// The client was sent an event under this path.
    pub fn note_sent(&mut self, position: Position, path: u8) {
        let before = self.partly.filter(|own| own.position == position).map_or(0, |own| own.paths);
        self.partly = Some(Partly { shard: self.shard, position, paths: before | path_bit(path) });
    }

    pub fn new(shard: u16, from: Position) -> Behind {
        Behind { shard, from, from_at_most_once: None, partly: None, hint: None, everything: false, asked: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64) -> Source {
        Source::Event { shard: 0, position: Position { epoch: 1, seq }, path: 0 }
    }

    #[test]
    fn identifiers_rotate_and_are_never_given_twice() {
        let mut client = Client::new(u16::MAX, false);
        assert_eq!(client.room(), INFLIGHT_MAX, "whatever the client asked for");
        let ids: Vec<u16> =
            (0..INFLIGHT_MAX).map(|seq| client.begin(Phase::AtLeastOnce, None, event(seq as u64))).collect();
        assert_eq!(ids, (1..=INFLIGHT_MAX as u16).collect::<Vec<_>>());
        assert_eq!(client.room(), 0);
        assert!(client.end(7, |phase| phase == Phase::AtLeastOnce).is_some());
        assert!(client.end(7, |phase| phase == Phase::AtLeastOnce).is_none());
        assert_eq!((client.room(), client.begin(Phase::ExactlyOnce, None, event(9))), (1, 7));
    }

    #[test]
    fn each_acknowledgement_ends_what_waits_for_it() {
        let mut client = Client::new(2, true);
        let (once, exactly) =
            (client.begin(Phase::AtLeastOnce, None, event(1)), client.begin(Phase::ExactlyOnce, None, event(2)));
        assert!(!client.release(once) && client.end(exactly, |phase| phase == Phase::AtLeastOnce).is_none());
        assert!(client.release(exactly) && client.release(exactly), "a second PUBREC changes nothing");
        assert!(client.end(exactly, |phase| phase == Phase::Released).is_some());
        let progress = client.progress(&[Position { epoch: 1, seq: 5 }]);
        assert_eq!((progress.inflight.len(), progress.positions[0].seq), (1, 5));
        let mut later = Client::new(2, true);
        later.resume(&progress);
        assert_eq!((later.room(), later.begin(Phase::AtLeastOnce, None, event(3))), (1, 2));
        assert!(later.reads_later(0, 1) && !later.reads_later(0, 0));
    }

    #[test]
    fn a_later_connection_knows_which_paths_an_event_was_sent_under() {
        let mut client = Client::new(1, true);
        let at = Position { epoch: 1, seq: 7 };
        let id = client.begin(Phase::ExactlyOnce, None, event(7));
        client.fall_behind(0, at, false); // path 1
        assert!(client.release(id) && client.end(id, |phase| phase == Phase::Released).is_some());
        let mut later = Client::new(1, true);
        later.resume(&client.progress(&[at, at]));
        let behind = later.behind();
        assert_eq!((behind[0].from.seq, behind[1].from), (6, at));
        assert!(behind[0].was_sent(at, 0) && !behind[0].was_sent(at, 1) && !behind[1].was_sent(at, 0));
    }

    #[test]
    fn a_full_window_leaves_qos_0_alone_and_a_full_outbox_does_not() {
        let mut client = Client::new(1, false);
        client.fall_behind(0, Position { epoch: 2, seq: 10 }, false);
        assert!(client.reads_later(0, 2) && !client.reads_later(0, 0) && !client.reads_later(1, 2));
        client.fall_behind(0, Position { epoch: 2, seq: 15 }, true);
        let behind = client.behind()[0];
        assert_eq!((behind.from.seq, behind.from_at_most_once.map(|from| from.seq)), (9, Some(14)));
        assert!(client.reads_later(0, 0));
    }
}
