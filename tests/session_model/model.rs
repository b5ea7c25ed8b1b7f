//! What the specification says may and must be seen, known from the clients' side alone: which packets they have sent
//! and received, and in which order. Steps are counted, so that "before" has a meaning; what lies between the sending of
//! a packet and its answer may have happened at any moment in between.

use crate::wire::Publish;
use std::collections::{BTreeSet, HashMap};

/// A message that a client has published, or may have left as its will.
#[derive(Debug)]
pub struct Message {
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub is_will: bool,
    /// The session that has published it; 0 for a will.
    pub publisher: u64,
    /// When it was sent first.
    pub sent: u64,
    /// When its publisher was told that the server has it.
    pub acked: Option<u64>,
    /// The round of turns in which that was.
    pub acked_round: u64,
    pub transmissions: u32,
    /// How often the server may have taken it as a message of its own.
    pub events_max: u32,
    /// A will with a delay.
    pub not_before_us: u64,
    pub was_seen: bool,
}

/// A subscription from SUBSCRIBE to the answer to UNSUBSCRIBE, or to a SUBSCRIBE that replaces it.
#[derive(Clone, Debug)]
pub struct Interval {
    pub filter: String,
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// The retained messages come first.
    pub has_snapshot: bool,
    pub identifier: Option<u32>,
    pub sent: u64,
    /// The round of turns in which that was.
    pub round: u64,
    pub acked: Option<u64>,
    /// UNSUBSCRIBE was sent, and answered.
    pub ending: Option<u64>,
    pub ended: Option<u64>,
    /// From here on nothing may be missing: the same filter was there before, and no message is lost by replacing a
    /// subscription [MQTT-3.8.4-4].
    pub complete_since: Option<u64>,
}

impl Interval {
    /// The group's name, with its filter; and the filter proper.
    pub fn parts(&self) -> (Option<&str>, &str) {
        match self.filter.strip_prefix("$share/") {
            None => (None, &self.filter),
            Some(rest) => (Some(rest), rest.split_once('/').map_or("", |(_, filter)| filter)),
        }
    }

    pub fn matches(&self, topic: &str) -> bool {
        matches(self.parts().1, topic)
    }
}

/// MQTT 5 §4.7; topics that begin with `$` are not in use here.
pub fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    let mut parts = filter.split('/');
    loop {
        match (parts.next(), levels.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(part), Some(level)) if part == level => {}
            (part, level) => return level.is_none() && part.is_none(),
        }
    }
}

/// What a session has seen of a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub count: u32,
    pub exactly: u32,
}

/// A session, as its client knows it.
#[derive(Debug, Default)]
pub struct Session {
    pub serial: u64,
    pub intervals: Vec<Interval>,
    pub seen: HashMap<usize, Seen>,
    /// Messages at QoS 1 and 2 in the order of their first delivery.
    pub sequence: Vec<usize>,
    pub connections: u32,
    /// The server was killed so many times while the session was there.
    pub crashes: u32,
}

pub struct Ledger {
    pub step: u64,
    /// All shards have had so many turns.
    pub round: u64,
    pub now_us: u64,
    pub messages: Vec<Message>,
    by_payload: HashMap<String, usize>,
    pub last_serial: u64,
    /// When sessions with a part in a group have ended: what they held at QoS 2 went with them [MQTT-4.8.2-5].
    pub members_lost: u64,
    pub crashes: u32,
    /// All groups that there ever were.
    pub groups: BTreeSet<String>,
    /// Those that have had a member at QoS 0.
    pub weak_groups: BTreeSet<String>,
    /// How often a message was delivered at QoS 2 through groups.
    shared: HashMap<usize, u32>,
    pub deliveries: u64,
}

/// Turns of all shards after which a message has reached every one of them.
const ROUNDS: u64 = 4;

pub type Check<T = ()> = Result<T, String>;

impl Ledger {
    pub fn new() -> Ledger {
        Ledger {
            step: 1,
            round: 0,
            now_us: 0,
            messages: Vec::new(),
            by_payload: HashMap::new(),
            last_serial: 0,
            members_lost: 0,
            crashes: 0,
            groups: BTreeSet::new(),
            weak_groups: BTreeSet::new(),
            shared: HashMap::new(),
            deliveries: 0,
        }
    }

    pub fn session(&mut self) -> Session {
        self.last_serial += 1;
        Session { serial: self.last_serial, ..Session::default() }
    }

    /// A message that is about to be sent; gives its number and its payload.
    pub fn message(&mut self, topic: &str, qos: u8, retain: bool, publisher: u64, is_will: bool) -> (usize, String) {
        let number = self.messages.len();
        let payload = format!("m{number}");
        self.messages.push(Message {
            topic: topic.into(),
            qos,
            retain,
            is_will,
            publisher,
            sent: self.step,
            acked: None,
            acked_round: u64::MAX,
            transmissions: 1,
            events_max: 1,
            not_before_us: 0,
            was_seen: false,
        });
        self.by_payload.insert(payload.clone(), number);
        (number, payload)
    }

    /// The publisher was told that the server has a message.
    pub fn acknowledged(&mut self, number: usize) {
        let message = &mut self.messages[number];
        if message.acked.is_none() {
            (message.acked, message.acked_round) = (Some(self.step), self.round);
        }
    }

    /// The message of a delivery.
    pub fn number_of(&self, publish: &Publish) -> Check<usize> {
        let number = self.by_payload.get(&publish.text()).copied();
        let number = number.ok_or_else(|| format!("nobody has sent what was delivered: {publish:?}"))?;
        match self.messages[number].topic == publish.topic {
            true => Ok(number),
            false => Err(format!("{publish:?} was sent to {}", self.messages[number].topic)),
        }
    }

    /// The first delivery of an event to a session, or what may be one: whether it may be, and as it is.
    pub fn delivered(&mut self, session: &mut Session, number: usize, publish: &Publish) -> Check {
        self.deliveries += 1;
        let message = &mut self.messages[number];
        let is_shared = message.topic.starts_with("s/");
        let step = self.step;
        if message.is_will && message.not_before_us > self.now_us {
            return Err(format!("the will {number} is sent {} µs early", message.not_before_us - self.now_us));
        }
        let may = |own: &&Interval| {
            let over_before = own.ended.is_some_and(|ended| ended < message.sent);
            // Shards hear of a message some turns after its publisher was answered: nothing orders the two.
            // A group has begun before some of its members; when a subscription has begun that was never answered, and is
            // found with its session later, is known to a second only.
            let is_known = own.parts().0.is_none() && own.acked.is_some();
            let through_before = is_known && message.acked_round.saturating_add(ROUNDS) < own.round;
            own.matches(&message.topic) && !over_before && (!through_before || (message.retain && own.has_snapshot))
        };
        let may: Vec<&Interval> = session.intervals.iter().filter(may).collect();
        if may.is_empty() && !(publish.dup && publish.retain) {
            return Err(format!("no subscription covers message {number}"));
        }
        // While a subscription is handed the retained messages, a new one is its part of these.
        let must = |own: &&&Interval| {
            !(message.retain && own.has_snapshot)
                && own.acked.is_some_and(|acked| acked < message.sent)
                && own.ending.is_none_or(|ending| ending > step)
        };
        let must: Vec<&Interval> = may.iter().filter(must).copied().collect();
        let identifiers = publish.properties.subscriptions();
        // What was on its way when the subscription was made is not known to be the session's own.
        let leaves_out = |own: &&Interval| own.no_local && own.sent < message.sent;
        let own_only = !message.is_will && message.publisher == session.serial && may.iter().all(leaves_out);
        // Whether retained messages of one's own are "forwarded" is left open where they come with a subscription.
        if own_only && !message.retain {
            return Err(format!("message {number} is the session's own, and no-local is set"));
        }
        let hears = |own: &&&Interval| !(own.no_local && message.publisher == session.serial && !message.is_will);
        // A retained message that comes with one subscription, or a message that is shared out: its terms alone hold.
        let alone = |own: &&Interval| {
            let retained = message.retain && publish.retain && own.has_snapshot;
            let fits = publish.qos == own.qos.min(message.qos) && identifiers == Vec::from_iter(own.identifier);
            fits && (retained
                || (own.parts().0.is_some() && publish.retain == (message.retain && own.retain_as_published)))
        };
        // What is sent again names the subscriptions that cover it now; of a retained message the newest state is sent.
        if !publish.dup && !may.iter().any(alone) {
            if is_shared {
                return Err(format!("none of the shared subscriptions gives this: {may:#?}"));
            }
            let least = must.iter().filter(hears).map(|own| own.qos).max().unwrap_or(0).min(message.qos);
            let most = may.iter().map(|own| own.qos).max().unwrap_or(0).min(message.qos);
            if !(least..=most).contains(&publish.qos) {
                return Err(format!("QoS {} is not within {least} to {most}", publish.qos));
            }
            let missing: Vec<u32> = must.iter().filter(hears).filter_map(|own| own.identifier).collect();
            let allowed: Vec<u32> = may.iter().filter_map(|own| own.identifier).collect();
            let has_missing = missing.iter().any(|id| !identifiers.contains(id));
            if has_missing || identifiers.iter().any(|id| !allowed.contains(id)) {
                return Err(format!("identifiers {identifiers:?}: expected {missing:?}, allowed {allowed:?}"));
            }
            let may_retain = message.retain && may.iter().any(|own| own.retain_as_published);
            let must_retain = message.retain && must.iter().filter(hears).any(|own| own.retain_as_published);
            if (publish.retain && !may_retain) || (!publish.retain && must_retain) {
                return Err(format!("RETAIN is {} of {number} {message:?}: {may:#?}", publish.retain));
            }
        }
        message.was_seen = true;
        if publish.dup && publish.retain {
            session.seen.entry(number).or_default(); // not counted: it may have been another one when it was sent first
            return Ok(());
        }
        let snapshots = may.iter().filter(|own| own.has_snapshot).count() as u32;
        let seen = session.seen.entry(number).or_default();
        // A retained message comes once more with each subscription, and again where that was cut short.
        let mut most = message.events_max + if message.retain { snapshots * (1 + session.connections) } else { 0 };
        if is_shared {
            most *= self.groups.len() as u32;
        }
        // No-local was taken back while the message, which others have delivered, waited in the log.
        if message.publisher == session.serial && may.iter().any(|own| own.no_local) {
            most += message.events_max;
        }
        if publish.qos == 2 {
            seen.exactly += 1;
            if is_shared {
                let shared = self.shared.entry(number).or_default();
                *shared += 1;
                let groups = self
                    .groups
                    .iter()
                    .filter(|name| name.split_once('/').is_some_and(|(_, filter)| matches(filter, &message.topic)));
                let bound = groups.count() as u32 * message.events_max;
                if *shared > bound && !message.retain && self.crashes == 0 {
                    return Err(format!("message {number} was handed to members {shared} times at QoS 2"));
                }
            } else if seen.exactly > most {
                return Err(format!("message {number} was delivered {} times at QoS 2", seen.exactly));
            }
        }
        if publish.dup && publish.qos == 1 {
            seen.count = seen.count.max(1); // its acknowledgement was lost, or it was
            return Ok(());
        }
        seen.count += 1;
        // What was acknowledged shortly before the server was killed may come again at QoS 1; a group's message may
        // come back from another member.
        let again = is_shared; // what counts there is how often at QoS 2, above
        let slack = if seen.count > seen.exactly { session.crashes * most } else { 0 };
        if seen.count > most + slack && !again {
            return Err(format!("message {number} was delivered {} times", seen.count));
        }
        if publish.qos > 0 && !is_shared && !message.retain && seen.count == 1 {
            session.sequence.push(number);
        }
        Ok(())
    }

    /// The server was killed: what was not acknowledged may be repeated as a message of its own.
    pub fn crashed(&mut self) {
        self.crashes += 1;
        // A will may have been sent, and not yet be known to have been.
        let repeats = |own: &&mut Message| own.acked.is_none() || (own.is_will && own.events_max > 0);
        self.messages.iter_mut().filter(repeats).for_each(|own| own.events_max += 1);
        // Nor is it promised to anybody that it is on disk.
        self.messages.iter_mut().filter(|own| own.is_will).for_each(|own| own.acked = None);
    }

    /// Everything has settled: nothing may be missing.
    pub fn complete(&self, name: &str, session: &Session) -> Check {
        for (number, message) in self.messages.iter().enumerate() {
            if message.acked.is_none() || message.qos == 0 || session.seen.contains_key(&number) {
                continue;
            }
            let covers = |own: &&Interval| {
                let is_own = own.no_local && message.publisher == session.serial && !message.is_will;
                let is_there = own.ending.is_none() && own.complete_since.is_some_and(|since| since < message.sent);
                let is_state = message.retain && own.has_snapshot; // a later one may have come in its place
                own.parts().0.is_none()
                    && own.qos > 0
                    && is_there
                    && !is_own
                    && !is_state
                    && own.matches(&message.topic)
            };
            if let Some(own) = session.intervals.iter().find(covers) {
                return Err(format!("{name} has not got message {number} {message:?}, which {own:?} covers"));
            }
        }
        Ok(())
    }

    /// The same for groups: some member must have got it.
    pub fn complete_groups(&self, sessions: &[&Session]) -> Check {
        if self.crashes > 0 {
            return Ok(()); // where a group stands is known in memory only: it begins anew with whoever comes first
        }
        for (number, message) in self.messages.iter().enumerate() {
            if message.acked.is_none() || message.qos == 0 || message.was_seen || message.sent < self.members_lost {
                continue;
            }
            let covers = |own: &&Interval| {
                let is_there = own.ending.is_none() && own.complete_since.is_some_and(|since| since < message.sent);
                let is_strong = own.parts().0.is_some_and(|name| !self.weak_groups.contains(name));
                is_strong && is_there && own.matches(&message.topic)
            };
            if let Some(own) = sessions.iter().flat_map(|session| &session.intervals).find(covers) {
                return Err(format!("no member has got message {number} {message:?}, which {own:?} covers"));
            }
        }
        Ok(())
    }

    /// Messages to one topic come to all in the same order, and those of one publisher in its own [MQTT-4.6.0-6].
    pub fn in_order(&self, sessions: &[&Session]) -> Check {
        // One that was sent twice may stand in two places.
        let is_single =
            |number: &&usize| self.messages[**number].transmissions == 1 && !self.messages[**number].is_will;
        type Places = HashMap<usize, usize>;
        let mut before: HashMap<&str, Vec<(u64, Places)>> = HashMap::new();
        for session in sessions {
            let mut topics: HashMap<&str, Vec<usize>> = HashMap::new();
            for number in session.sequence.iter().filter(is_single) {
                topics.entry(&self.messages[*number].topic).or_default().push(*number);
            }
            for (topic, sequence) in topics {
                let mut last: HashMap<(u64, u8), usize> = HashMap::new();
                for &number in &sequence {
                    let message = &self.messages[number];
                    let earlier = last.insert((message.publisher, message.qos), number);
                    if let Some(earlier) = earlier.filter(|earlier| self.messages[*earlier].sent >= message.sent) {
                        return Err(format!("session {}: {number} came behind {earlier}", session.serial));
                    }
                }
                for (other, places) in before.entry(topic).or_default() {
                    let common: Vec<usize> = sequence.iter().copied().filter(|own| places.contains_key(own)).collect();
                    if let Some(pair) = common.windows(2).find(|pair| places[&pair[0]] > places[&pair[1]]) {
                        return Err(format!("{topic}: session {} saw {pair:?}, {other} the reverse", session.serial));
                    }
                }
                let places = sequence.iter().enumerate().map(|(place, number)| (*number, place)).collect();
                before.entry(topic).or_default().push((session.serial, places));
            }
        }
        Ok(())
    }
}
