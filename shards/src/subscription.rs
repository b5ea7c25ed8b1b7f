//! Who wants to hear of which keys. The shard of the socket keeps the subscription; a shard that owns keys keeps, for
//! each filter, only the set of shards where somebody listens (`Table::interest`).
//!
//! Life: *joining* until every shard concerned has confirmed its interest; *ready* until the session starts it (after
//! its SUBACK or response head); *scanning* while the current records are handed out; then *live*.

use crate::command::ConnectionRef;
use crate::event::Event;
use crate::log::Position;
use crate::outbox::FrameKind;
use crate::query::Query;
use crate::scan::ScanRef;
use crate::topic::Target;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionRef {
    pub index: u32,
    pub generation: u32,
}

/// What a session asks for.
#[derive(Clone, Debug)]
pub struct Request {
    pub connection: ConnectionRef,
    pub targets: Vec<Target>,
    /// Encoding of the frames; path and flags are set per delivery.
    pub encoding: u8,
    /// Highest quality of service of deliveries, 0 to 2.
    pub qos: u8,
    /// Events that name this publisher are left out (MQTT 5 §3.8.3.1); 0: none.
    pub no_local: u64,
    /// Deliveries of puts and deletes carry the RETAIN bit (MQTT 5 §3.8.3.1).
    pub retain_as_published: bool,
    /// Goes with each delivery (MQTT 5 §3.3.2.3.8).
    pub identifier: Option<u32>,
    /// The current records come first.
    pub snapshot: bool,
    /// Of a client that is behind: what it was to be given begins after these positions of the shards.
    pub since: Option<Arc<[Position]>>,
    /// Of what is read from the log only what was written after this time, in microseconds since 1970.
    pub after_us: u64,
    /// It is shared with the other members of the group of this name (MQTT 5 §4.8.2).
    pub group: Option<Box<str>>,
    /// Of one target: only records that the query wants, and of them what it selects.
    pub query: Option<Arc<Query>>,
    /// With a query: changes of records will do, where the state before was sent.
    pub patches: bool,
}

impl Request {
    /// At most once, beginning with the current records.
    pub fn new(connection: ConnectionRef, targets: Vec<Target>, encoding: u8) -> Request {
        Request {
            connection,
            targets,
            encoding,
            qos: 0,
            no_local: 0,
            retain_as_published: false,
            identifier: None,
            snapshot: true,
            since: None,
            after_us: 0,
            group: None,
            query: None,
            patches: false,
        }
    }
}

pub(crate) enum State {
    Joining {
        missing: usize,
    },
    Ready,
    Scanning(ScanRef),
    Live,
    /// A member of a group: it is given events by the group, at this shard, under this number.
    Shared {
        home: u16,
        group: u32,
    },
}

pub(crate) struct Subscription {
    pub generation: u32,
    pub connection: ConnectionRef,
    pub targets: Arc<[Target]>,
    pub encoding: u8,
    pub options: u8,
    pub no_local: u64,
    pub identifier: Option<u32>,
    pub snapshot: bool,
    pub since: Option<Arc<[Position]>>,
    pub after_us: u64,
    /// The number of its live query, at the table of its target.
    pub query: Option<u32>,
    pub state: State,
    /// Per target, where this subscription stands in the list of live subscribers.
    pub places: Box<[u32]>,
}

/// Bits of [`Subscriber::options`].
pub(crate) const QOS: u8 = 3;
pub(crate) const RETAIN_AS_PUBLISHED: u8 = 4;
/// What it gets depends on more than this line: it leaves out its own events, has an identifier, or overlaps with
/// another one of its client.
pub(crate) const DETAILED: u8 = 8;
pub(crate) const PATCHES: u8 = 16;

/// One line of a list of live subscribers: all that fan-out looks at, in 16 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Subscriber {
    pub connection: u32,
    pub subscription: u32,
    pub kind: FrameKind,
    pub options: u8,
    pub target: u16,
}

/// Everything registered under one filter.
#[derive(Default)]
pub(crate) struct Subscribers {
    live: Vec<Subscriber>,
    /// Names those that are live as they are now; 0: nobody has asked since they changed.
    stamp: u64,
    /// Not live yet: subscription and number of the target.
    pub joining: Vec<(u32, u16)>,
    /// Subscriptions to live queries under this filter: they stand in lists of their own.
    pub queries: u32,
}

impl Subscribers {
    pub fn live(&self) -> &[Subscriber] {
        &self.live
    }

    /// A number that no other list has, nor this one when it has changed.
    pub fn stamp(&mut self, last: &mut u64) -> u64 {
        if self.stamp == 0 {
            *last += 1;
            self.stamp = *last;
        }
        self.stamp
    }

    /// A subscriber goes live; gives its place.
    pub fn enter(&mut self, subscriber: Subscriber) -> u32 {
        self.stamp = 0;
        self.live.push(subscriber);
        self.live.len() as u32 - 1
    }

    /// Takes out the one at a place; gives the one that is there now.
    pub fn leave(&mut self, place: u32) -> Option<Subscriber> {
        self.stamp = 0;
        self.live.swap_remove(place as usize);
        self.live.get(place as usize).copied()
    }

    /// The one at a place has become [`DETAILED`].
    pub fn detail(&mut self, place: u32) {
        self.stamp = 0;
        self.live[place as usize].options |= DETAILED;
    }

    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.joining.is_empty() && self.queries == 0
    }
}

impl Subscription {
    pub fn subscriber(&self, index: u32, target: usize) -> Subscriber {
        let shadowed = self.targets[..target].iter().any(|earlier| earlier.table == self.targets[target].table);
        let kind = FrameKind { encoding: self.encoding, path: self.targets[target].path, flags: 0 };
        Subscriber {
            connection: self.connection.index,
            subscription: index,
            kind,
            options: self.options | if shadowed { DETAILED } else { 0 },
            target: target as u16,
        }
    }

    /// 0 to 2.
    pub fn qos(&self) -> u8 {
        self.options & QOS
    }

    /// Whether it wants an event of this publisher.
    pub fn hears(&self, event: &Event) -> bool {
        self.no_local == 0 || self.no_local != event.terms.publisher
    }

    /// Whether some key matches this and another one.
    pub fn overlaps(&self, other: &Subscription) -> bool {
        let meet = |a: &Target, b: &Target| a.table == b.table && a.filter.overlaps(&b.filter);
        self.targets.iter().any(|own| other.targets.iter().any(|other| meet(own, other)))
    }

    /// Whether an earlier target delivers what `target` matches.
    pub fn is_shadowed(&self, target: u16, key_text: &str) -> bool {
        let table = self.targets[usize::from(target)].table;
        let earlier = &self.targets[..usize::from(target)];
        earlier.iter().any(|other| other.table == table && other.filter.matches(key_text))
    }
}
