//! Shared subscriptions (MQTT 5 §4.8.2): each event of a group's filter goes to one of its members, wherever they are
//! connected. A group lives at one shard, found by its name; that shard subscribes to the filter, hands each event to
//! the next member that has room, and goes on from the log when none has. What a member has not acknowledged at QoS 1
//! when it leaves is handed to another one; at QoS 2 it stays with the session that began it [MQTT-4.8.2-5].

use super::Shard;
use super::delivery::{Merged, context, merge};
use crate::client::{Behind, Phase, Source};
use crate::command::{Completion, ConnectionRef, Control, Data};
use crate::counters::Counter;
use crate::event::Event;
use crate::limits::SHARED_OUTSTANDING_MAX;
use crate::log::Position;
use crate::outbox::Origin;
use crate::replay::{Answer, Mode, ReplayRequest, Wanted};
use crate::scan::owner;
use crate::schema::TableId;
use crate::subscription::{Request, State, SubscriptionRef};
use crate::topic::Target;
use hashbrown::HashMap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// In place of a connection's index: the reader is the group whose number is in the generation.
const GROUP: u32 = u32::MAX;

/// One member of a group.
#[derive(Clone, Copy)]
struct Member {
    connection: ConnectionRef,
    /// Its subscription at its shard.
    subscription: SubscriptionRef,
    qos: u8,
    /// Handed to it and not acknowledged.
    outstanding: usize,
    /// It has refused something for lack of room.
    is_full: bool,
}

struct Group {
    name: Box<str>,
    targets: Arc<[Target]>,
    subscription: SubscriptionRef,
    /// Every shard concerned knows of the subscription.
    is_ready: bool,
    members: Vec<Member>,
    /// Whose turn it is.
    next: usize,
    behind: Vec<Behind>,
    /// Handed out, and given back.
    returned: VecDeque<(u16, Position)>,
    /// Those have been asked for.
    rereads: bool,
    /// Sessions of members that are offline: what happens meanwhile is for them.
    offline: Vec<u64>,
}

impl Group {
    /// Subscriptions have numbers of their shard's own.
    fn member(&mut self, shard: u16, subscription: SubscriptionRef) -> Option<&mut Member> {
        self.members.iter_mut().find(|own| own.subscription == subscription && own.connection.shard == shard)
    }
}

/// The groups that live at a shard.
#[derive(Default)]
pub(super) struct Groups {
    groups: HashMap<u32, Group>,
    numbers: HashMap<Box<str>, u32>,
    last: u32,
}

/// What members and groups tell each other.
pub enum Sharing {
    Join {
        name: Box<str>,
        targets: Arc<[Target]>,
        connection: ConnectionRef,
        subscription: SubscriptionRef,
        /// Of the member.
        session: u64,
        qos: u8,
        /// How far the member's session had come, if it is taken up again.
        from: Option<Vec<Position>>,
    },
    Joined {
        connection: ConnectionRef,
        subscription: SubscriptionRef,
        group: u32,
    },
    Leave {
        group: u32,
        subscription: SubscriptionRef,
        connection: ConnectionRef,
        returned: Vec<(u16, Position)>,
        /// The member's session, if that goes on.
        stays: Option<u64>,
    },
    /// For this member.
    Event {
        group: u32,
        connection: ConnectionRef,
        subscription: SubscriptionRef,
        event: Event,
    },
    /// The member has no room, or is gone.
    Refused {
        group: u32,
        subscription: SubscriptionRef,
        event: (u16, Position),
    },
    /// The member has acknowledged something, or has room again.
    Room {
        group: u32,
        subscription: SubscriptionRef,
        acknowledged: usize,
    },
}

impl Shard {
    // The member's side.

    /// Joins a group; [`Completion::Subscribed`] follows. There are no current records first [MQTT-3.3.1-9].
    pub(super) fn join_group(&mut self, name: &str, request: Request) -> SubscriptionRef {
        let home = owner(TableId(u16::MAX), name.as_bytes(), self.shards());
        let from = request.since.as_ref().map(|since| {
            // Where its client goes on; `since` only says that it does.
            let mut positions = since.to_vec();
            if let Some(client) = self.outboxes.client(request.connection) {
                client.behind().iter().for_each(|own| positions[usize::from(own.shard)] = own.from);
            }
            positions
        });
        let (connection, qos) = (request.connection, request.qos);
        let (subscription, targets) = self.insert_subscription(request, State::Shared { home, group: 0 });
        self.shared_subscriptions += 1;
        let mut session = 0;
        if let Some(client) = self.outboxes.client(connection) {
            client.subscriptions.push(subscription.index);
            session = client.session;
        }
        let name = name.into();
        let join = Sharing::Join { name, targets, connection, subscription, session, qos, from };
        self.send_data(home, Data::Sharing(join));
        subscription
    }

    /// A member leaves its group. What it has in flight at QoS 1 goes to others if its connection ends.
    pub(super) fn leave_group(&mut self, subscription: SubscriptionRef, ends: bool) {
        let Some(found) = self.subscription_mut(subscription) else { return };
        let (State::Shared { home, group }, connection) = (&found.state, found.connection) else { return };
        let (home, group) = (*home, *group);
        let mut returned = Vec::new();
        let mut stays = None;
        if let Some(client) = self.outboxes.client(connection) {
            stays = (ends && client.is_durable).then_some(client.session);
            if !ends {
                client.unshare(subscription.index);
            }
            if ends {
                let own = client.inflight().filter(|own| own.shared == Some(subscription.index));
                let own: Vec<_> = own.filter(|own| own.phase == Phase::AtLeastOnce).cloned().collect();
                for message in own {
                    client.end(message.packet_id, |_| true);
                    if let Source::Event { shard, position, .. } = message.source {
                        returned.push((shard, position));
                    }
                }
            }
        }
        self.send_data(home, Data::Sharing(Sharing::Leave { group, subscription, connection, returned, stays }));
    }

    /// All groups of a connection that ends, before its progress is noted.
    pub fn leave_groups(&mut self, connection: ConnectionRef) {
        let Some(client) = self.outboxes.client(connection) else { return };
        let own = client.subscriptions.clone();
        for index in own {
            let found = &self.subscriptions[index as usize];
            if matches!(found.state, State::Shared { .. }) {
                let reference = SubscriptionRef { index, generation: found.generation };
                self.leave_group(reference, true);
                self.forget_subscription(reference);
            }
        }
    }

    /// A message that came through a group is through, or its client has room again.
    pub(super) fn tell_group(&mut self, index: u32, acknowledged: usize) {
        let Some(found) = self.subscriptions.get(index as usize) else { return };
        let subscription = SubscriptionRef { index, generation: found.generation };
        if let State::Shared { home, group } = found.state {
            self.send_data(home, Data::Sharing(Sharing::Room { group, subscription, acknowledged }));
        }
    }

    /// Delivers what a group has handed to a member. False: there is no room, or no such member.
    fn deliver_shared(&mut self, connection: ConnectionRef, reference: SubscriptionRef, event: &Event) -> bool {
        let Shard { tables, subscriptions, outboxes, encoder, frames, key_text, seen, now_us, .. } = self;
        let (stalled, is_full) = (outboxes.stall(connection, None), outboxes.is_full(connection));
        let Some(client) = outboxes.client(connection) else { return false };
        let found = subscriptions.get(reference.index as usize);
        let Some(subscription) = found.filter(|found| found.generation == reference.generation) else { return false };
        let table = &tables[usize::from(event.table.0)];
        let Some(definition) = table.definition.as_deref() else { return true };
        let text = table.codec.text(event.body.key(), key_text);
        let matches = |target: &Target| target.table == event.table && target.filter.matches(text);
        let Some(number) = subscription.targets.iter().position(matches) else { return true };
        let mut merged: Vec<Merged> = Vec::new();
        merge(&mut merged, subscription.subscriber(reference.index, number), subscription, event);
        let Some(own) = merged.first() else { return true };
        if own.kind.qos() == 0 && is_full {
            outboxes.counters[Counter::MessagesDropped] += 1;
            return true;
        }
        if !client.has_begun || (own.kind.qos() > 0 && (client.room() == 0 || stalled)) {
            client.has_refused = true;
            return false;
        }
        let context = context(definition, table.codec, text, event, seen, *now_us / 1000, &own.identifiers);
        if let Some(frame) = frames.own(own.kind, |out| encoder.encode(own.kind, &context, out)) {
            let shared = Some(reference.index);
            let origin = Origin::Replayed { shard: event.shard, position: event.position, shared };
            outboxes.push(connection.index, frame, &origin);
        }
        true
    }

    // The group's side.

    pub(super) fn sharing(&mut self, from: u16, message: Sharing) {
        match message {
            Sharing::Join { name, targets, connection, subscription, session, qos, from: positions } => {
                let number = self.group_of(name, targets, positions);
                let Some(group) = self.groups.groups.get_mut(&number) else { return };
                let member = Member { connection, subscription, qos, outstanding: 0, is_full: false };
                group.members.push(member);
                group.offline.retain(|offline| *offline != session);
                if group.is_ready {
                    self.send_data(from, Data::Sharing(Sharing::Joined { connection, subscription, group: number }));
                    self.feed_group(number);
                }
            }
            Sharing::Joined { connection, subscription, group: number } => {
                let Some(found) = self.subscription_mut(subscription) else {
                    // It has gone before it knew its group.
                    let (returned, stays) = (Vec::new(), None);
                    let leave = Sharing::Leave { group: number, subscription, connection, returned, stays };
                    return self.send_data(from, Data::Sharing(leave));
                };
                if let State::Shared { group, .. } = &mut found.state {
                    *group = number;
                }
                self.completions.push_back(Completion::Subscribed { connection, subscription });
            }
            Sharing::Leave { group: number, subscription, connection, returned, stays } => {
                let Some(group) = self.groups.groups.get_mut(&number) else { return };
                group.members.retain(|own| (own.subscription, own.connection) != (subscription, connection));
                group.returned.extend(returned);
                group.offline.extend(stays);
                if group.members.is_empty() && group.offline.is_empty() {
                    return self.drop_group(number);
                }
                self.feed_group(number);
            }
            Sharing::Event { group, connection, subscription, event } => {
                let in_flight =
                    |shard: &mut Shard| shard.outboxes.client(connection).map_or(0, |own| own.inflight().count());
                let before = in_flight(self);
                if !self.deliver_shared(connection, subscription, &event) {
                    let event = (event.shard, event.position);
                    self.send_data(from, Data::Sharing(Sharing::Refused { group, subscription, event }));
                } else if in_flight(self) == before {
                    // At most once, or nothing for this client: nothing will be acknowledged.
                    let qos = self.subscription_mut(subscription).map_or(0, |own| own.qos().min(event.terms.qos));
                    let acknowledged = usize::from(qos > 0);
                    self.send_data(from, Data::Sharing(Sharing::Room { group, subscription, acknowledged }));
                }
            }
            Sharing::Refused { group: number, subscription, event } => {
                let Some(group) = self.groups.groups.get_mut(&number) else { return };
                if let Some(member) = group.member(from, subscription) {
                    member.outstanding = member.outstanding.saturating_sub(1);
                    member.is_full = true;
                }
                group.returned.push_back(event);
                self.feed_group(number);
            }
            Sharing::Room { group: number, subscription, acknowledged } => {
                let Some(group) = self.groups.groups.get_mut(&number) else { return };
                if let Some(member) = group.member(from, subscription) {
                    member.outstanding = member.outstanding.saturating_sub(acknowledged);
                    member.is_full = false;
                }
                self.feed_group(number);
            }
        }
    }

    /// The number of a group; it is made where it does not exist, and goes on from `positions` if those are given.
    fn group_of(&mut self, name: Box<str>, targets: Arc<[Target]>, positions: Option<Vec<Position>>) -> u32 {
        if let Some(number) = self.groups.numbers.get(&name) {
            return *number;
        }
        self.groups.last += 1;
        let number = self.groups.last;
        let behind = positions.unwrap_or_default();
        let behind = behind.iter().enumerate().map(|(shard, from)| Behind::new(shard as u16, *from)).collect();
        let connection = ConnectionRef { shard: self.index, index: GROUP, generation: number };
        let request = Request { snapshot: false, ..Request::new(connection, targets.to_vec(), 0) };
        let group = Group {
            name: name.clone(),
            targets,
            subscription: SubscriptionRef { index: 0, generation: 0 },
            is_ready: false,
            members: Vec::new(),
            next: 0,
            behind,
            returned: VecDeque::new(),
            rereads: false,
            offline: Vec::new(),
        };
        self.groups.groups.insert(number, group);
        self.groups.numbers.insert(name, number);
        let subscription = self.subscribe(request);
        if let Some(group) = self.groups.groups.get_mut(&number) {
            group.subscription = subscription;
        }
        number
    }

    /// Every shard concerned knows of a group's subscription.
    pub(super) fn group_subscribed(&mut self, subscription: SubscriptionRef, connection: ConnectionRef) {
        let number = connection.generation;
        self.start(subscription);
        let Some(group) = self.groups.groups.get_mut(&number) else { return };
        group.is_ready = true;
        let members = group.members.clone();
        for Member { connection, subscription, .. } in members {
            let joined = Sharing::Joined { connection, subscription, group: number };
            self.send_data(connection.shard, Data::Sharing(joined));
        }
        self.feed_group(number);
    }

    /// A session has ended: nothing is kept for it any more.
    pub(super) fn forget_member(&mut self, session: u64) {
        let mut dropped = Vec::new();
        for (number, group) in &mut self.groups.groups {
            let before = group.offline.len();
            group.offline.retain(|offline| *offline != session);
            if group.offline.len() < before && group.offline.is_empty() && group.members.is_empty() {
                dropped.push(*number);
            }
        }
        dropped.into_iter().for_each(|number| self.drop_group(number));
    }

    fn drop_group(&mut self, number: u32) {
        let Some(group) = self.groups.groups.remove(&number) else { return };
        self.groups.numbers.remove(&group.name);
        self.unsubscribe(group.subscription);
    }

    /// An event of a group's filter has happened.
    pub(super) fn share_out(&mut self, connection: ConnectionRef, event: &Event) {
        let number = connection.generation;
        let Some(group) = self.groups.groups.get_mut(&number) else { return };
        let waits = group.behind.iter().any(|own| own.shard == event.shard);
        let is_reliable = event.terms.qos > 0;
        if waits && is_reliable {
            return; // it is read from the log in its turn
        }
        if !self.hand_out(number, event) && is_reliable {
            let Some(group) = self.groups.groups.get_mut(&number) else { return };
            let before = Position { seq: event.position.seq.saturating_sub(1), ..event.position };
            group.behind.push(Behind::new(event.shard, before));
        }
    }

    /// Gives an event to the next member that can take it. False: none can.
    fn hand_out(&mut self, number: u32, event: &Event) -> bool {
        let Some(group) = self.groups.groups.get_mut(&number) else { return true };
        let count = group.members.len();
        for turn in 0..count {
            let at = (group.next + turn) % count;
            let member = &mut group.members[at];
            let qos = member.qos.min(event.terms.qos);
            if qos > 0 && (member.is_full || member.outstanding >= SHARED_OUTSTANDING_MAX) {
                continue;
            }
            member.outstanding += usize::from(qos > 0);
            group.next = at + 1;
            let Member { connection, subscription, .. } = *member;
            let event = Sharing::Event { group: number, connection, subscription, event: event.clone() };
            self.send_data(connection.shard, Data::Sharing(event));
            return true;
        }
        false
    }

    /// Asks for what was given back, then for what comes next in the log, if some member has room.
    fn feed_group(&mut self, number: u32) {
        let own = self.index;
        let Some(group) = self.groups.groups.get_mut(&number).filter(|group| group.is_ready) else { return };
        let room = |member: &Member| SHARED_OUTSTANDING_MAX.saturating_sub(member.outstanding);
        let count: usize = group.members.iter().filter(|member| !member.is_full).map(room).sum();
        if count == 0 {
            return;
        }
        let connection = ConnectionRef { shard: own, index: GROUP, generation: number };
        let mut requests = Vec::new();
        if !group.returned.is_empty() && !group.rereads {
            let mut lists: BTreeMap<u16, Vec<Position>> = BTreeMap::new();
            for (shard, position) in group.returned.drain(..) {
                lists.entry(shard).or_default().push(position);
            }
            group.rereads = true;
            for (shard, mut events) in lists {
                events.sort_unstable();
                requests.push((shard, Wanted::Again { events, rows: Vec::new() }));
            }
        }
        for behind in group.behind.iter_mut().filter(|behind| !behind.asked) {
            behind.asked = true;
            let (from, hint) = (behind.from, behind.hint);
            requests
                .push((behind.shard, Wanted::After { from, hint, mode: Mode::Reliable { at_most_once: None }, count }));
        }
        let targets = group.targets.clone();
        for (shard, wanted) in requests {
            let targets = targets.clone();
            self.send_control(shard, Control::Replay(ReplayRequest { connection, targets, wanted }));
        }
    }

    /// What a group has asked for.
    pub(super) fn group_replayed(&mut self, connection: ConnectionRef, from: u16, answer: Answer) {
        let number = connection.generation;
        match answer {
            Answer::Checked { .. } => {}
            Answer::Again { events, .. } => {
                if let Some(group) = self.groups.groups.get_mut(&number) {
                    group.rereads = false;
                }
                for event in &events {
                    if !self.hand_out(number, event)
                        && let Some(group) = self.groups.groups.get_mut(&number)
                    {
                        group.returned.push_back((event.shard, event.position));
                    }
                }
            }
            Answer::Gone => {
                if let Some(group) = self.groups.groups.get_mut(&number) {
                    group.behind.retain(|behind| behind.shard != from); // it goes on with what happens now
                }
            }
            Answer::After { events, mut upto, mut hint, mut is_live, .. } => {
                for own in &events {
                    if !self.hand_out(number, &own.event) {
                        let position = own.event.position;
                        (upto, is_live) = (Position { seq: position.seq.saturating_sub(1), ..position }, false);
                        hint = None; // it may stand behind that
                        break;
                    }
                }
                let Some(group) = self.groups.groups.get_mut(&number) else { return };
                if let Some(behind) = group.behind.iter_mut().find(|behind| behind.shard == from) {
                    (behind.asked, behind.from, behind.hint) = (false, behind.from.max(upto), hint);
                }
                if is_live {
                    group.behind.retain(|behind| behind.shard != from);
                }
            }
        }
        self.feed_group(number);
    }
}

/// Whether a reader is a group.
pub(super) fn is_group(connection: ConnectionRef) -> bool {
    connection.index == GROUP
}
