//! One client: it sends what chance tells it to, mostly what the specification allows, and checks each packet that
//! comes. It keeps the promises of a client: it acknowledges in the end, and sends again what was not acknowledged when
//! its session goes on [MQTT-4.4.0-1].

use crate::model::{Check, Interval, Ledger, Session};
use crate::terms::{TOPICS, Terms};
use crate::wire::{self, Ack, Connect, Packet, Properties, Publish, Value, Will, id};
use crate::world::World;
use std::collections::{HashMap, HashSet, VecDeque};

const FILTERS: [&str; 11] =
    ["a/#", "a/+", "a/b", "+/b", "d", "a/b/e", "a/c", "+/+/e", "$share/g/s/+", "$share/h/s/x", "$share/g/s/x"];
/// The server answers these with a failure.
const BAD_FILTERS: [&str; 4] = ["a/#/b", "a+", "$share/g", "$share/+/a"];
/// What a packet may take on its way: times are compared with so much tolerance.
const SLACK_US: u64 = 2_000_000;
/// Packets that a failure shows.
const LOG_MAX: usize = 4000;

/// A message at QoS 1 or 2 that was sent and is not through.
struct Out {
    packet_id: u16,
    message: usize,
    publish: Publish,
    is_released: bool,
}

/// What has happened to a line.
#[derive(Default)]
struct Connection {
    line: usize,
    is_connected: bool,
    /// The server must close it, and may say why.
    is_doomed: bool,
    doomed_us: u64,
    doomed_step: u64,
    /// The server was killed; what it sent before is still read.
    is_left: bool,
    rx: Vec<u8>,
    expiry_s: Option<u32>,
    receive_maximum: usize,
    /// Messages received on this connection and not acknowledged.
    unacked: HashSet<u16>,
    /// Answers that are due, by kind of packet and in order: identifier, reason codes that are allowed.
    due: HashMap<u8, VecDeque<(u16, Vec<u8>)>>,
    pings: usize,
    /// Acknowledgements to send: first byte and identifier.
    todo: VecDeque<(u8, u16)>,
    /// Messages of the session that are to be sent again.
    again: usize,
    aliases: HashMap<u16, String>,
    own_aliases: Vec<&'static str>,
    will: Option<usize>,
    will_delay_s: u64,
    /// Filters whose SUBSCRIBE or UNSUBSCRIBE is under way.
    changing: HashMap<u16, Vec<String>>,
    /// Whether CONNACK must say that there is a session; `None`: it may.
    expects_session: Option<bool>,
}

pub struct Client {
    pub name: String,
    pub level: u8,
    pub session: Session,
    now: Option<Connection>,
    /// Earlier ones that the server has to end, and whether their CONNECT was answered.
    left: Vec<(usize, bool)>,
    out: VecDeque<Out>,
    /// Received at QoS 2 and not released.
    held: HashMap<u16, usize>,
    /// Received at QoS 1 on an earlier connection and not acknowledged.
    open: HashMap<u16, usize>,
    next_id: u16,
    exists: bool,
    expiry_s: Option<u32>,
    /// When the last connection has ended, at the earliest.
    ended_us: u64,
    /// The same, at the latest: while the server has not noticed, unknown.
    noticed_us: Option<u64>,
    ended_line: Option<usize>,
    /// The will that waits for its delay.
    last_will: Option<usize>,
    /// All that it has ever left.
    wills: Vec<usize>,
    /// DISCONNECT was sent, and may not have been read: whether it changes the expiry, and the will that it takes back.
    goodbye: Option<(bool, Option<usize>)>,
    /// The server was killed before it is known to have stored the session.
    is_uncertain: bool,
    is_stored: bool,
    pub window: usize,
    pub log: VecDeque<String>,
    pub received: u64,
    ended_step: u64,
}

impl Client {
    pub fn new(name: &str, level: u8, ledger: &mut Ledger) -> Client {
        Client {
            name: name.into(),
            level,
            session: ledger.session(),
            now: None,
            left: Vec::new(),
            out: VecDeque::new(),
            held: HashMap::new(),
            open: HashMap::new(),
            next_id: 1,
            exists: false,
            expiry_s: Some(0),
            ended_us: 0,
            noticed_us: Some(0),
            ended_line: None,
            last_will: None,
            wills: Vec::new(),
            goodbye: None,
            is_uncertain: false,
            is_stored: false,
            window: 20,
            log: VecDeque::new(),
            received: 0,
            ended_step: 0,
        }
    }

    fn note(&mut self, text: String) {
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(text);
    }

    fn send(&mut self, world: &mut World, ledger: &mut Ledger, bytes: &[u8], what: String) {
        ledger.step += 1;
        self.note(format!("{:>6} > {what}", ledger.step));
        if let Some(now) = &self.now {
            world.send(now.line, bytes);
        }
    }

    pub fn is_connected(&self) -> bool {
        self.now.as_ref().is_some_and(|now| now.is_connected)
    }

    pub fn is_on(&self) -> bool {
        self.now.is_some()
    }

    /// Whether there is a session that should be taken up.
    pub fn is_awaited(&self, now_us: u64) -> bool {
        let expires = self.expiry_s.map(|seconds| self.ended_us + u64::from(seconds) * 1_000_000);
        self.exists && !self.is_uncertain && self.now.is_none() && expires.is_none_or(|at| at > now_us + SLACK_US)
    }

    /// Whether the order in which the server meets this CONNECT and the one before is known.
    pub fn may_connect(&self) -> bool {
        self.now.as_ref().is_none_or(|now| now.is_connected)
            && self.left.iter().all(|(_, was_connected)| *was_connected)
    }

    pub fn is_live(&self) -> bool {
        self.is_connected() && !self.is_uncertain
    }

    /// When a member of groups has left for good: what it held went with it [MQTT-4.8.2-5].
    pub fn lost_as_member(&self) -> u64 {
        let is_member = self.session.intervals.iter().any(|own| own.parts().0.is_some());
        if is_member && !self.is_live() { self.ended_step + 1 } else { 0 }
    }

    /// The session's state that ends with it.
    fn forget(&mut self, ledger: &mut Ledger) -> Session {
        if self.session.intervals.iter().any(|own| own.parts().0.is_some()) {
            ledger.members_lost = ledger.step + 1;
        }
        for out in &self.out {
            // A shard may hear of the end of the session before it hears of what was sent again last.
            let message = &mut ledger.messages[out.message];
            message.events_max += u32::from(message.transmissions > 1);
        }
        self.out.clear();
        self.held.clear();
        self.open.clear();
        std::mem::replace(&mut self.session, ledger.session())
    }

    pub fn connect(&mut self, world: &mut World, ledger: &mut Ledger, terms: Terms) -> Option<usize> {
        let core = world.chance.below(world.shards());
        self.leave(world, ledger, false, false);
        let is_clean = terms.is_clean || self.is_uncertain;
        let mut connect = Connect { clean: is_clean, ..Connect::clean(self.level, &self.name) }.keep_alive(0);
        let mut now = Connection { receive_maximum: usize::from(u16::MAX), ..Connection::default() };
        now.expiry_s = match (self.level, is_clean) {
            (5, _) => terms.expiry_s,
            (_, true) => Some(0),
            (_, false) => None,
        };
        if self.level == 5 {
            let seconds = now.expiry_s.unwrap_or(u32::MAX);
            connect = connect.with(id::SESSION_EXPIRY, Value::Four(seconds));
            if let Some(maximum) = terms.receive_maximum {
                connect = connect.with(id::RECEIVE_MAXIMUM, Value::Two(maximum));
                now.receive_maximum = usize::from(maximum);
            }
            if terms.alias_maximum > 0 {
                connect = connect.with(id::ALIAS_MAXIMUM, Value::Two(terms.alias_maximum));
            }
        }
        if let Some((topic, qos, delay_s)) = terms.will {
            let (number, payload) = ledger.message(topic, qos, false, 0, true);
            let mut will = Will::new(topic, &payload).qos(qos);
            if self.level == 5 && delay_s > 0 {
                will = will.with(id::WILL_DELAY, Value::Four(delay_s));
                now.will_delay_s = u64::from(delay_s);
            }
            connect = connect.will(will);
            now.will = Some(number);
        }
        now.expects_session = self.expects_session(world, is_clean);
        if now.expects_session != Some(true) {
            // The session has ended, or may have.
            self.wills.iter().for_each(|will| ledger.messages[*will].not_before_us = 0);
        }
        now.line = world.connect(core);
        let line = now.line;
        self.now = Some(now);
        self.is_stored = false;
        let will = self.now.as_ref().and_then(|now| now.will);
        let what = format!("CONNECT to {core} clean {is_clean} {terms:?} m{will:?}");
        self.send(world, ledger, &connect.bytes(), what);
        Some(line)
    }

    fn expects_session(&mut self, world: &World, is_clean: bool) -> Option<bool> {
        let goodbye = self.goodbye.take();
        if is_clean || !self.exists {
            return Some(false);
        }
        if goodbye.is_some_and(|(changes_expiry, _)| changes_expiry) {
            return None; // it may still be on its way
        }
        let Some(seconds) = self.expiry_s else { return Some(true) };
        if seconds == 0 {
            return Some(false);
        }
        let expires = |from_us: u64| from_us + u64::from(seconds) * 1_000_000;
        if expires(self.ended_us) > world.now_us + SLACK_US {
            return Some(true);
        }
        let is_over = self.noticed_us.is_some_and(|at| expires(at) + SLACK_US < world.now_us);
        if is_over { Some(false) } else { None }
    }

    /// The connection is not used any more: the client hangs up, or another one takes over.
    fn leave(&mut self, world: &mut World, ledger: &mut Ledger, hangs_up: bool, is_reset: bool) {
        let Some(now) = self.now.take() else { return };
        ledger.step += 1;
        if hangs_up {
            world.hang_up(now.line, is_reset);
        }
        self.left.push((now.line, now.is_connected));
        self.end(world, ledger, now, false);
    }

    /// What follows from the end of a connection.
    fn end(&mut self, world: &World, ledger: &mut Ledger, mut now: Connection, is_killed: bool) {
        ledger.step += 1;
        let ended_us = if now.is_doomed { now.doomed_us } else { world.now_us };
        if now.is_connected {
            self.exists = true;
            self.ended_step = ledger.step;
            self.expiry_s = now.expiry_s;
            self.ended_us = ended_us;
            self.noticed_us = None;
            self.ended_line = Some(now.line);
        } else if now.expects_session != Some(true) || now.expiry_s != self.expiry_s || now.expiry_s == Some(5) {
            // It may have begun a session, or ended one, or changed when it expires.
            self.is_uncertain = true;
        }
        if let Some(will) = now.will.take() {
            self.last_will = Some(will);
            self.wills.push(will);
            let message = &mut ledger.messages[will];
            message.sent = if now.is_doomed { now.doomed_step } else { ledger.step };
            message.not_before_us = if now.will_delay_s == 0 || now.expiry_s == Some(0) {
                0
            } else {
                ended_us + now.will_delay_s.min(now.expiry_s.map_or(u64::MAX, u64::from)) * 1_000_000
            };
            if now.is_connected && message.not_before_us == 0 && !is_killed {
                message.acked = Some(ledger.step); // it must be sent
            }
        }
        for own in self.session.intervals.iter_mut().filter(|own| own.acked.is_none()) {
            own.complete_since = None;
        }
        for number in now.unacked {
            self.open.entry(number).or_insert(usize::MAX);
        }
    }

    /// DISCONNECT, and the end.
    pub fn disconnect(&mut self, world: &mut World, ledger: &mut Ledger, expiry_s: Option<u32>) {
        let Some(now) = &mut self.now else { return };
        let (mut bytes, before) = (wire::DISCONNECT.to_vec(), now.expiry_s);
        if let Some(seconds) = expiry_s.filter(|_| self.level == 5 && now.expiry_s != Some(0)) {
            let properties = Properties(vec![(id::SESSION_EXPIRY, Value::Four(seconds))]);
            bytes = wire::packet(0xe0, &[&[0][..], &properties.encode()].concat());
            now.expiry_s = Some(seconds);
        }
        let goodbye = (now.expiry_s != before, now.will.take());
        self.send(world, ledger, &bytes, format!("DISCONNECT {expiry_s:?}"));
        self.leave(world, ledger, true, false);
        self.goodbye = Some(goodbye);
    }

    pub fn cut(&mut self, world: &mut World, ledger: &mut Ledger) {
        self.note(format!("{:>6} hangs up", ledger.step));
        let is_reset = world.chance.one_in(2);
        self.left.iter().for_each(|(line, _)| world.hang_up(*line, false)); // in case this one was to take over
        self.leave(world, ledger, true, is_reset);
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id % u16::MAX + 1;
            let id = self.next_id;
            let changing = self.now.as_ref().is_some_and(|now| now.changing.contains_key(&id));
            if !changing && self.out.iter().all(|out| out.packet_id != id) {
                return id;
            }
        }
    }

    pub fn publish(&mut self, world: &mut World, ledger: &mut Ledger, topic: &'static str, qos: u8, retain: bool) {
        let Some(now) = &mut self.now else { return };
        if now.again > 0 || (qos > 0 && self.out.len() >= self.window) {
            return;
        }
        let mut alias = None;
        if self.level == 5 && world.chance.one_in(4) {
            let place = now.own_aliases.iter().position(|own| *own == topic);
            alias = Some((place.unwrap_or(now.own_aliases.len()), place.is_some()));
            if place.is_none() {
                now.own_aliases.push(topic);
            }
        }
        let (number, payload) = ledger.message(topic, qos, retain, self.session.serial, false);
        let packet_id = if qos > 0 { self.free_id() } else { 0 };
        let publish = Publish { qos, retain, id: packet_id, ..Publish::new(topic, &payload) };
        let mut sent = publish.clone();
        if let Some((place, is_known)) = alias {
            sent = sent.with(id::ALIAS, Value::Two(place as u16 + 1));
            if is_known {
                sent.topic = String::new();
            }
        }
        let what = format!("PUBLISH {packet_id} QoS {qos} retain {retain} {topic} {payload}");
        self.send(world, ledger, &sent.bytes(self.level), what);
        ledger.messages[number].sent = ledger.step;
        if qos > 0 {
            self.owe(if qos == 1 { 4 } else { 5 }, packet_id, &[0]);
            self.out.push_back(Out { packet_id, message: number, publish, is_released: false });
        }
    }

    fn owe(&mut self, kind: u8, packet_id: u16, codes: &[u8]) {
        if let Some(now) = &mut self.now {
            now.due.entry(kind).or_default().push_back((packet_id, codes.to_vec()));
        }
    }

    /// Sends the next message of a session that goes on again.
    fn send_again(&mut self, world: &mut World, ledger: &mut Ledger) {
        let Some(now) = &mut self.now else { return };
        let at = self.out.len().saturating_sub(now.again);
        now.again = now.again.saturating_sub(1);
        let Some(out) = self.out.get(at) else { return };
        let (packet_id, number) = (out.packet_id, out.message);
        if out.is_released {
            self.owe(7, packet_id, &[0, 0x92]);
            return self.send(world, ledger, &wire::ack(0x62, packet_id), format!("PUBREL {packet_id} again"));
        }
        let publish = Publish { dup: true, ..out.publish.clone() };
        let message = &mut ledger.messages[number];
        message.transmissions += 1;
        message.events_max += u32::from(publish.qos == 1);
        self.owe(if publish.qos == 1 { 4 } else { 5 }, packet_id, &[0]);
        let what = format!("PUBLISH {packet_id} QoS {} {} m{number} again", publish.qos, publish.topic);
        self.send(world, ledger, &publish.bytes(self.level), what);
    }

    pub fn subscribe(
        &mut self,
        world: &mut World,
        ledger: &mut Ledger,
        filters: &[(&str, u8)],
        identifier: Option<u32>,
    ) {
        let packet_id = self.free_id();
        let Some(now) = &mut self.now else { return };
        if now.changing.values().flatten().any(|own| filters.iter().any(|(filter, _)| filter == own)) {
            return;
        }
        let codes = filters.iter().map(|(filter, options)| match BAD_FILTERS.contains(filter) {
            false => options & 3,
            true if self.level == 5 => 0x8f,
            true => 0x80,
        });
        now.due.entry(9).or_default().push_back((packet_id, codes.collect()));
        now.changing.insert(packet_id, filters.iter().map(|(filter, _)| filter.to_string()).collect());
        let identifier = identifier.filter(|_| self.level == 5);
        let properties =
            Properties(identifier.map(|own| (id::SUBSCRIPTION, Value::Variable(own))).into_iter().collect());
        let bytes = wire::subscribe(self.level, packet_id, &properties, filters);
        self.send(world, ledger, &bytes, format!("SUBSCRIBE {packet_id} {filters:?} identifier {identifier:?}"));
        for (filter, options) in filters.iter().filter(|(filter, _)| !BAD_FILTERS.contains(filter)) {
            let options = if self.level == 5 { *options } else { options & 3 };
            // One that takes the place of another goes on with what that one had still to give.
            let replaced = self.session.intervals.iter().find(|own| own.filter == *filter && own.ended.is_none());
            let own = Interval {
                filter: filter.to_string(),
                qos: options & 3,
                no_local: options & wire::NO_LOCAL != 0,
                retain_as_published: options & wire::RETAIN_AS_PUBLISHED != 0,
                has_snapshot: options & wire::RETAIN_NEVER == 0 && !filter.starts_with("$share/"),
                identifier,
                sent: ledger.step,
                round: replaced.map_or(ledger.round, |own| own.round),
                acked: None,
                ending: None,
                ended: None,
                complete_since: None,
            };
            ledger.groups.extend(own.parts().0.map(str::to_owned));
            ledger.weak_groups.extend(own.parts().0.filter(|_| own.qos == 0).map(str::to_owned));
            for earlier in self.session.intervals.iter_mut().filter(|own| own.filter == *filter) {
                earlier.ending.get_or_insert(ledger.step);
            }
            self.session.intervals.push(own);
        }
    }

    pub fn unsubscribe(&mut self, world: &mut World, ledger: &mut Ledger, filter: &str) {
        let packet_id = self.free_id();
        let Some(now) = &mut self.now else { return };
        if now.changing.values().flatten().any(|own| own == filter) {
            return;
        }
        // A SUBSCRIBE or UNSUBSCRIBE that was never answered has been carried out, or not.
        let own = self.session.intervals.iter().filter(|own| own.filter == filter && own.ended.is_none());
        let is_certain = own.clone().any(|own| own.acked.is_some() && own.ending.is_none());
        let codes: &[u8] = match own.count() {
            0 => &[0x11],
            _ if is_certain => &[0],
            _ => &[0, 0x11],
        };
        now.due.entry(11).or_default().push_back((packet_id, codes.to_vec()));
        now.changing.insert(packet_id, vec![filter.to_owned()]);
        let bytes = wire::unsubscribe(self.level, packet_id, &[filter]);
        self.send(world, ledger, &bytes, format!("UNSUBSCRIBE {packet_id} {filter}"));
        let step = ledger.step;
        for own in self.session.intervals.iter_mut().filter(|own| own.filter == filter) {
            own.ending.get_or_insert(step);
        }
    }

    /// Something that is against the rules; the server must close the connection.
    fn misbehave(&mut self, world: &mut World, ledger: &mut Ledger) {
        let publish = |topic: &str, first: u8, id: &[u8]| {
            let properties: &[u8] = if self.level == 5 { &[0] } else { &[] };
            wire::packet(first, &[&wire::binary(topic), id, properties, b"x"].concat())
        };
        let cases: [(&str, Vec<u8>); 12] = [
            ("a second CONNECT", Connect::clean(self.level, &self.name).bytes()),
            ("packet type 0", vec![0, 0]),
            ("PINGRESP", vec![0xd0, 0]),
            ("CONNACK", wire::packet(0x20, &[0, 0])),
            ("a topic with a wildcard", publish("a/#", 0x30, &[])),
            ("a topic that is not UTF-8", wire::packet(0x30, &[0, 2, 0xc3, 0x28, 0])),
            ("QoS 3", publish("a/b", 0x36, &[0, 1])),
            ("DUP at QoS 0", publish("a/b", 0x38, &[])),
            ("packet identifier 0", publish("a/b", 0x32, &[0, 0])),
            ("SUBSCRIBE without a filter", wire::subscribe(self.level, 1, &Properties::default(), &[])),
            ("PUBREL with wrong flags", wire::ack(0x60, 1)),
            ("AUTH without a method", wire::packet(0xf0, &[0x18, 0])),
        ];
        let (what, bytes) = &cases[world.chance.below(cases.len())];
        self.send(world, ledger, bytes, format!("illegal: {what}"));
        if let Some(now) = &mut self.now {
            (now.is_doomed, now.doomed_us, now.doomed_step) = (true, world.now_us, ledger.step);
        }
    }

    /// Sends an acknowledgement that is due; mostly the oldest one.
    pub fn acknowledge(&mut self, world: &mut World, ledger: &mut Ledger, is_tidy: bool) -> bool {
        let Some(now) = &mut self.now else { return false };
        let count = now.todo.len();
        let at = if !is_tidy && world.chance.one_in(4) { world.chance.below(count.max(1)) } else { 0 };
        let Some((first, packet_id)) = now.todo.remove(at) else { return false };
        if first != 0x50 {
            now.unacked.remove(&packet_id);
        }
        match first {
            0x40 => _ = self.open.remove(&packet_id),
            0x70 => _ = self.held.remove(&packet_id),
            _ => {}
        }
        self.send(world, ledger, &wire::ack(first, packet_id), format!("{first:#x} {packet_id}"));
        true
    }

    /// An acknowledgement of nothing: it is answered, or ignored.
    fn acknowledge_nothing(&mut self, world: &mut World, ledger: &mut Ledger) {
        let id = 60_000 + world.chance.below(5000) as u16;
        match world.chance.below(3) {
            0 => self.send(world, ledger, &wire::ack(0x40, id), format!("PUBACK {id} of nothing")),
            1 => self.send(world, ledger, &wire::ack(0x70, id), format!("PUBCOMP {id} of nothing")),
            _ => {
                self.owe(6, id, &[0x92]);
                self.send(world, ledger, &wire::ack(0x50, id), format!("PUBREC {id} of nothing"));
            }
        }
    }

    /// Does something.
    pub fn act(&mut self, world: &mut World, ledger: &mut Ledger) {
        let Some(now) = &self.now else { return };
        if !now.is_connected || now.is_doomed {
            if world.chance.one_in(100) {
                self.cut(world, ledger);
            }
            return;
        }
        if now.again > 0 {
            return self.send_again(world, ledger);
        }
        let chance = &mut world.chance;
        match chance.below(300) {
            0..110 => {
                let (topic, qos) = (TOPICS[chance.below(TOPICS.len())], chance.below(3) as u8);
                let retain = chance.one_in(8) && !topic.starts_with("s/");
                self.publish(world, ledger, topic, qos, retain);
            }
            110..130 => {
                let mut filters: Vec<(&str, u8)> = Vec::new();
                for _ in 0..1 + chance.below(3) {
                    let filter = match chance.one_in(12) {
                        true => BAD_FILTERS[chance.below(BAD_FILTERS.len())],
                        false => FILTERS[chance.below(FILTERS.len())],
                    };
                    // A member at QoS 0 may lose what is handed to it: there are few.
                    let is_shared = filter.starts_with('$') && !chance.one_in(40);
                    let mut options = if is_shared { 1 + chance.below(2) } else { chance.below(3) } as u8;
                    if self.level == 5 {
                        let no_local = if chance.one_in(4) && !filter.starts_with('$') { wire::NO_LOCAL } else { 0 };
                        let retain = [0, wire::RETAIN_IF_NEW, wire::RETAIN_NEVER][chance.below(3)];
                        options |= no_local | retain | if chance.one_in(3) { wire::RETAIN_AS_PUBLISHED } else { 0 };
                    }
                    if filters.iter().all(|(own, _)| *own != filter) {
                        filters.push((filter, options));
                    }
                }
                let identifier = chance.one_in(2).then(|| 1 + chance.below(300) as u32);
                self.subscribe(world, ledger, &filters, identifier);
            }
            130..137 => {
                let filter = FILTERS[chance.below(FILTERS.len())];
                self.unsubscribe(world, ledger, filter);
            }
            137..280 => _ = self.acknowledge(world, ledger, false),
            280..290 => self.ping(world, ledger),
            290..292 => {
                let expiry_s = [None, None, Some(60), Some(0)][chance.below(4)];
                self.disconnect(world, ledger, expiry_s);
            }
            292..295 => self.cut(world, ledger),
            295..299 => self.acknowledge_nothing(world, ledger),
            _ if chance.one_in(4) => self.misbehave(world, ledger),
            _ => {}
        }
    }

    pub fn ping(&mut self, world: &mut World, ledger: &mut Ledger) {
        if let Some(now) = &mut self.now {
            now.pings += 1;
        }
        self.send(world, ledger, &wire::PINGREQ, "PINGREQ".into());
    }

    /// Sends again what a session that goes on has to.
    pub fn resume(&mut self, world: &mut World, ledger: &mut Ledger) {
        while self.now.as_ref().is_some_and(|now| now.is_connected && !now.is_doomed && now.again > 0) {
            self.send_again(world, ledger);
        }
    }

    /// Acknowledges and sends again everything. False: there was nothing to do.
    pub fn settle(&mut self, world: &mut World, ledger: &mut Ledger) -> bool {
        let mut busy = false;
        while self.now.as_ref().is_some_and(|now| now.is_connected && !now.is_doomed && now.again > 0) {
            self.send_again(world, ledger);
            busy = true;
        }
        while self.now.as_ref().is_some_and(|now| !now.is_doomed) && self.acknowledge(world, ledger, true) {
            busy = true;
        }
        busy
    }

    /// The server was killed.
    pub fn crashed(&mut self, world: &mut World, ledger: &mut Ledger) -> Check {
        if let Some(now) = &mut self.now {
            now.is_left = true;
        }
        self.receive(world, ledger)?;
        let was_connected = self.is_connected();
        let now = self.now.take();
        self.note(format!("{:>6} the server is killed", ledger.step));
        self.left.clear();
        if let Some(now) = now {
            self.end(world, ledger, now, true);
        }
        self.is_uncertain |= self.goodbye.take().is_some();
        self.noticed_us = Some(world.now_us);
        // Whether the end of the last connection, or the beginning of this one, is on disk is not known.
        let is_known = if was_connected { self.is_stored } else { self.expiry_s != Some(0) && self.is_stored };
        self.is_uncertain |= !is_known;
        if was_connected && self.expiry_s == Some(0) {
            self.is_uncertain = true;
        }
        if self.is_uncertain || !was_connected {
            // Nor whether its wills were taken back.
            for will in &self.wills {
                let message = &mut ledger.messages[*will];
                (message.not_before_us, message.events_max) = (0, message.events_max.max(1));
            }
        }
        self.session.crashes += 1;
        // Some of what came may come again, and before it what is a little older than a subscription.
        self.session.sequence.clear();
        Ok(())
    }

    /// Reads what has come.
    pub fn receive(&mut self, world: &mut World, ledger: &mut Ledger) -> Check {
        (ledger.now_us, ledger.round) = (world.now_us, world.round());
        self.left.retain(|(line, _)| {
            world.take(*line);
            !world.is_over(*line)
        });
        let is_over = self.now.is_none() && self.ended_line.is_some_and(|line| world.is_released(line));
        if is_over && self.noticed_us.is_none() {
            self.noticed_us = Some(world.now_us);
            if let Some((_, Some(will))) = self.goodbye.take() {
                ledger.messages[will].events_max = 0; // [MQTT-3.14.4-3]
                self.wills.push(will);
            }
        }
        let Some(now) = &mut self.now else { return Ok(()) };
        now.rx.extend(world.take(now.line));
        let line = now.line;
        while let Some(now) = &mut self.now {
            let whole = now.rx.get(1..).map_or(Ok(None), wire::read_variable)?;
            let Some((length, bytes)) = whole.filter(|(length, bytes)| now.rx.len() > *length + *bytes) else { break };
            let rest: Vec<u8> = now.rx.drain(..1 + bytes + length).collect();
            let packet = wire::decode(rest[0], &rest[1 + bytes..], self.level)?;
            ledger.step += 1;
            self.note(format!("{:>6} < {}", ledger.step, brief(&packet)));
            self.received += 1;
            self.take(world, ledger, packet)?;
        }
        if world.is_over(line) && self.now.as_ref().is_some_and(|now| !now.is_left) {
            return self.closed(world, ledger);
        }
        Ok(())
    }

    /// The server has ended the connection.
    fn closed(&mut self, world: &World, ledger: &mut Ledger) -> Check {
        let Some(now) = self.now.take() else { return Ok(()) };
        self.note(format!("{:>6} the server hangs up", ledger.step));
        if !now.is_doomed {
            return Err("the server has closed the connection for nothing".into());
        }
        self.end(world, ledger, now, false);
        Ok(())
    }

    fn take(&mut self, world: &mut World, ledger: &mut Ledger, packet: Packet) -> Check {
        let Some(now) = &mut self.now else { return Ok(()) };
        if !now.is_connected && !matches!(packet, Packet::ConnAck(_)) {
            return Err(format!("{packet:?} before CONNACK")); // [MQTT-3.2.0-1]
        }
        match packet {
            Packet::ConnAck(ack) => self.accepted(ledger, world, &ack),
            Packet::Publish(publish) => self.message(ledger, publish),
            Packet::PubAck(ack) => {
                self.answer(4, &ack)?;
                self.through(ledger, &ack)
            }
            Packet::PubRec(ack) => {
                self.answer(5, &ack)?;
                let out = self.out.iter_mut().find(|out| out.packet_id == ack.id);
                let out = out.ok_or("PUBREC of what is through")?;
                out.is_released = true;
                ledger.acknowledged(out.message);
                self.owe(7, ack.id, &[0]);
                self.send(world, ledger, &wire::ack(0x62, ack.id), format!("PUBREL {}", ack.id));
                Ok(())
            }
            Packet::PubComp(ack) => {
                self.answer(7, &ack)?;
                self.through(ledger, &ack)
            }
            Packet::PubRel(ack) => {
                if now.due.get(&6).is_some_and(|due| due.front().is_some_and(|(id, _)| *id == ack.id)) {
                    return self.answer(6, &ack);
                }
                if !self.held.contains_key(&ack.id) && self.session.connections < 2 {
                    return Err(format!("PUBREL {} of what was not received", ack.id));
                }
                now.todo.push_back((0x70, ack.id));
                self.is_stored = true;
                Ok(())
            }
            Packet::SubAck(ack) => self.subscribed(ledger, &ack),
            Packet::UnsubAck(ack) => {
                self.answer(11, &ack)?;
                self.is_stored = true;
                let filters = self.now.as_mut().and_then(|now| now.changing.remove(&ack.id)).unwrap_or_default();
                for own in self.session.intervals.iter_mut().filter(|own| filters.contains(&own.filter)) {
                    own.ended.get_or_insert(ledger.step);
                }
                Ok(())
            }
            Packet::PingResp => match now.pings.checked_sub(1) {
                Some(left) => {
                    now.pings = left;
                    Ok(())
                }
                None => Err("PINGRESP for nothing".into()),
            },
            Packet::Disconnect { code, .. } => match now.is_doomed {
                true if code >= 0x80 => Ok(()),
                _ => Err(format!("DISCONNECT {code:#x} for nothing")),
            },
            Packet::Auth { .. } => Err("AUTH for nothing".into()),
        }
    }

    fn accepted(&mut self, ledger: &mut Ledger, world: &World, ack: &wire::ConnAck) -> Check {
        let Some(now) = &mut self.now else { return Ok(()) };
        if ack.code != 0 || std::mem::replace(&mut now.is_connected, true) {
            return Err(format!("{ack:?}"));
        }
        if now.expects_session.is_some_and(|expected| expected != ack.present) {
            return Err(format!("Session Present is {}, expected {:?}", ack.present, now.expects_session));
        }
        self.is_uncertain = false;
        if ack.present {
            now.again = self.out.len();
            self.session.connections += 1;
            // A will whose delay is not over is not sent [MQTT-3.1.3-9].
            let will = self.last_will.map(|will| &mut ledger.messages[will]);
            if let Some(will) = will.filter(|will| will.not_before_us > world.now_us) {
                will.events_max = 0;
            }
        } else {
            self.forget(ledger);
            self.session.connections = 1;
        }
        Ok(())
    }

    /// The answer must be the next of its kind.
    fn answer(&mut self, kind: u8, ack: &Ack) -> Check {
        let Some(now) = &mut self.now else { return Ok(()) };
        let due = now.due.entry(kind).or_default().pop_front();
        let (packet_id, codes) = due.ok_or_else(|| format!("an answer to nothing: {ack:?}"))?;
        let fits = match kind {
            9 => ack.codes == codes,
            _ => self.level == 4 || codes.contains(&ack.code()),
        };
        match ack.id == packet_id && fits {
            true => Ok(()),
            false => Err(format!("{ack:?} in place of {packet_id} {codes:?}")),
        }
    }

    /// A message of the client's own is through.
    fn through(&mut self, ledger: &mut Ledger, ack: &Ack) -> Check {
        let at = self.out.iter().position(|out| out.packet_id == ack.id);
        let out = at.and_then(|at| self.out.remove(at)).ok_or("an acknowledgement of what is through")?;
        ledger.acknowledged(out.message);
        Ok(())
    }

    fn subscribed(&mut self, ledger: &mut Ledger, ack: &Ack) -> Check {
        self.answer(9, ack)?;
        self.is_stored = true;
        let filters = self.now.as_mut().and_then(|now| now.changing.remove(&ack.id)).unwrap_or_default();
        let step = ledger.step;
        for filter in filters {
            let mut all = self.session.intervals.iter_mut().rev().filter(|own| own.filter == filter);
            let Some(own) = all.next() else { continue };
            own.acked = Some(step);
            own.complete_since = Some(step);
            let mut is_first = true;
            for earlier in all.filter(|own| own.ended.is_none()) {
                earlier.ended = Some(step);
                let was_sure = earlier.acked.is_some() && earlier.ending == Some(own.sent);
                let is_same = was_sure && earlier.no_local == own.no_local && earlier.qos > 0 && own.qos > 0;
                if std::mem::take(&mut is_first) && is_same {
                    own.complete_since = earlier.complete_since.or(own.complete_since);
                }
            }
        }
        Ok(())
    }

    fn message(&mut self, ledger: &mut Ledger, mut publish: Publish) -> Check {
        let Some(now) = &mut self.now else { return Ok(()) };
        if let Some(alias) = publish.properties.number(id::ALIAS) {
            if publish.topic.is_empty() {
                publish.topic = now.aliases.get(&(alias as u16)).ok_or("an unknown topic alias")?.clone();
            } else {
                now.aliases.insert(alias as u16, publish.topic.clone());
            }
        }
        let number = ledger.number_of(&publish)?;
        let packet_id = publish.id;
        if publish.qos > 0 {
            if !now.unacked.insert(packet_id) {
                return Err(format!("packet identifier {packet_id} is in use"));
            }
            if now.unacked.len() > now.receive_maximum {
                return Err(format!("{} messages are in flight", now.unacked.len())); // [MQTT-3.3.4-9]
            }
            if publish.dup && self.session.connections < 2 {
                return Err("DUP on the first connection of a session".into());
            }
            now.todo.push_back((if publish.qos == 1 { 0x40 } else { 0x50 }, packet_id));
        }
        if publish.qos == 2 {
            self.is_stored = true;
            if let Some(earlier) = self.held.insert(packet_id, number) {
                return match publish.dup && (earlier == number || publish.retain) {
                    true => Ok(()),
                    false => Err(format!("packet identifier {packet_id} of message {earlier} is in use")),
                };
            }
        }
        ledger.delivered(&mut self.session, number, &publish)
    }

    /// Everything has settled: nothing is due.
    pub fn is_done(&self, world: &World) -> Check {
        if let Some((line, _)) = self.left.first() {
            return Err(format!("line {line} was not closed: {}", world.describe(*line)));
        }
        let Some(now) = &self.now else { return Ok(()) };
        let due: Vec<_> = now.due.iter().filter(|(_, due)| !due.is_empty()).collect();
        if now.is_doomed {
            return Err("the connection was not closed".into());
        }
        if !now.is_connected || !due.is_empty() || now.pings > 0 || !self.out.is_empty() {
            return Err(format!("connected {} pings {}, due: {due:?}", now.is_connected, now.pings));
        }
        Ok(())
    }
}

fn brief(packet: &Packet) -> String {
    match packet {
        Packet::Publish(own) => {
            let (text, list) = (own.text(), &own.properties.0);
            format!(
                "PUBLISH {} QoS {} dup {} retain {} {} {text} {list:?}",
                own.id, own.qos, own.dup, own.retain, own.topic
            )
        }
        other => format!("{other:?}"),
    }
}
