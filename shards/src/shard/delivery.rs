//! Fan-out: one function through which all delivery passes, and the subscriptions and scans that it serves.

use super::sharing::is_group;
use super::{ScanOwner, Shard};
use crate::clock::Version;
use crate::command::{Completion, ConnectionRef, Control};
use crate::event::{Event, EventKind};
use crate::key::KeyCodec;
use crate::limits::{INDEXED_PER_TURN, QUERY_CHUNKS_PER_TURN};
use crate::live::LiveQuery;
use crate::log::Position;
use crate::outbox::{Encoded, FrameKind, Frames, Origin, Outboxes};
use crate::query::Query;
use crate::query::plan::Plan;
use crate::query::project::Subject;
use crate::scan::{Chunk, Row, ScanRef, Step, Verdict, owner};
use crate::schema::{TableDef, TableId};
use crate::subscription::{
    DETAILED, PATCHES, QOS, RETAIN_AS_PUBLISHED, Request, State, Subscriber, Subscribers, Subscription, SubscriptionRef,
};
use crate::topic::{KeyFilter, Target};
use std::sync::Arc;

/// Everything an encoder may put into a frame.
#[derive(Clone, Copy)]
pub struct FrameContext<'a> {
    pub table: &'a TableDef,
    pub codec: KeyCodec,
    pub kind: EventKind,
    pub key: &'a [u8],
    pub key_text: &'a str,
    pub version: Version,
    /// As the publisher's protocol has encoded them.
    pub properties: &'a [u8],
    /// Canonical; empty for a delete and for a message without payload.
    pub document: &'a [u8],
    /// The same as JSON, where it is at hand; else empty.
    pub json: &'a [u8],
    /// How long it is still worth delivering.
    pub expires_in_ms: Option<u64>,
    /// A topic alias, and whether the subscriber knows what it stands for (MQTT 5 §3.3.2.3.4).
    pub topic_alias: Option<(u16, bool)>,
    /// Of the subscriptions that it is delivered for.
    pub identifiers: &'a [u32],
    /// How far each shard has come, as a subscriber that is live has seen it.
    pub seen: &'a [Position],
    /// Events that were left out for this subscriber since its last frame.
    pub skipped: u64,
    /// For frames with [`FrameKind::PATCH`]: what the subscriber was shown of the record before.
    pub previous: &'a [u8],
}

/// Turns events into the bytes of a protocol: called once per event and kind of frame, however many subscribers.
pub trait Encoder: Send {
    /// Appends a frame; `None`: subscribers of this kind get nothing for such an event.
    fn encode(&mut self, kind: FrameKind, context: &FrameContext<'_>, out: &mut Vec<u8>) -> Option<Encoded>;
}

/// The kind of frame in which a subscriber hears of an event.
pub(super) fn kind_for(subscriber: &Subscriber, event: &Event) -> FrameKind {
    let kind = subscriber.kind.with_qos((subscriber.options & QOS).min(event.terms.qos));
    let retain = subscriber.options & RETAIN_AS_PUBLISHED != 0 && event.kind != EventKind::Message;
    if retain { kind.with(FrameKind::RETAIN) } else { kind }
}

/// The one delivery in which a client hears of an event that several of its subscriptions match [MQTT-3.3.4-2].
pub(super) struct Merged {
    pub connection: u32,
    pub kind: FrameKind,
    pub identifiers: Vec<u32>,
}

/// Adds a subscription's part to the deliveries of an event: one per client and topic name.
pub(super) fn merge<'a>(
    all: &'a mut Vec<Merged>,
    subscriber: Subscriber,
    subscription: &Subscription,
    event: &Event,
) -> &'a mut Merged {
    let kind = kind_for(&subscriber, event);
    let same = |own: &Merged| own.connection == subscriber.connection && own.kind.path == kind.path;
    let at = all.iter().position(same).unwrap_or_else(|| {
        all.push(Merged { connection: subscriber.connection, kind, identifiers: Vec::new() });
        all.len() - 1
    });
    let own = &mut all[at];
    let retain = if kind.has(FrameKind::RETAIN) { own.kind.with(FrameKind::RETAIN) } else { own.kind };
    own.kind = retain.with_qos(own.kind.qos().max(kind.qos()));
    own.identifiers.extend(subscription.identifier);
    own
}

pub(super) fn context<'a>(
    table: &'a TableDef,
    codec: KeyCodec,
    key_text: &'a str,
    event: &'a Event,
    seen: &'a [Position],
    now_ms: u64,
    identifiers: &'a [u32],
) -> FrameContext<'a> {
    FrameContext {
        table,
        codec,
        kind: event.kind,
        key: event.body.key(),
        key_text,
        version: event.version,
        properties: event.body.properties(),
        document: event.body.document(),
        json: event.body.text(),
        expires_in_ms: event.terms.expires_ms.map(|at| at.saturating_sub(now_ms)),
        topic_alias: None,
        identifiers,
        seen,
        skipped: 0,
        previous: &[],
    }
}

impl Shard {
    /// Delivers an event to the connections of this shard.
    pub(super) fn deliver(&mut self, event: &Event) {
        let Shard { tables, subscriptions, scans, outboxes, encoder, frames, key_text, seen, now_us, .. } = self;
        let (query_scratch, selected) = (&mut self.query_scratch, &mut self.selected);
        let shown_before = &mut self.shown_before;
        let own = &mut seen[usize::from(event.shard)];
        *own = event.reached.max(*own);
        let table = &mut tables[usize::from(event.table.0)];
        if table.subscribers.is_empty() {
            return;
        }
        let Some(definition) = table.definition.as_deref() else { return };
        let text = table.codec.text(event.body.key(), key_text);
        let context = context(definition, table.codec, text, event, seen, *now_us / 1000, &[]);
        let origin = Origin::Event { shard: event.shard, position: event.position };
        frames.clear();
        let push = |encoder: &mut dyn Encoder, frames: &mut Frames, outboxes: &mut Outboxes, kind, connection| {
            if let Some(frame) = frames.get(kind, |out| encoder.encode(kind, &context, out)) {
                outboxes.push(connection, frame, &origin);
            }
        };
        // Those that share a client, or have something of their own to say.
        let mut merged: Vec<Merged> = Vec::new();
        let mut groups: Vec<ConnectionRef> = Vec::new();
        let mut add = |subscriber: Subscriber, subscription: &Subscription, is_live: bool| {
            if is_group(subscription.connection) {
                if !groups.contains(&subscription.connection) {
                    groups.push(subscription.connection);
                }
            } else if subscription.hears(event) && !subscription.is_shadowed(subscriber.target, text) {
                let own = merge(&mut merged, subscriber, subscription, event);
                if is_live {
                    own.kind = own.kind.with(FrameKind::POSITION);
                }
            }
        };
        let mut joins = false;
        outboxes.run.ask(event);
        table.subscribers.visit(text, &mut |subscribers| {
            joins |= !subscribers.joining.is_empty();
            outboxes.run.ask_for(subscribers);
        });
        if !outboxes.run.is_asked() {
            outboxes.settle();
            outboxes.run.turn();
            table.subscribers.visit(text, &mut |subscribers| {
                for subscriber in subscribers.live() {
                    outboxes.run.add(subscriber, kind_for(subscriber, event).with(FrameKind::POSITION));
                }
            });
        }
        outboxes.extend_run(frames, (event.shard, event.position), |kind, out| encoder.encode(kind, &context, out));
        let apart = outboxes.run.take_apart();
        for subscriber in &apart {
            if let Some(subscription) = subscriptions.get(subscriber.subscription as usize) {
                add(*subscriber, subscription, true);
            }
        }
        outboxes.run.give_apart(apart);
        if joins {
            table.subscribers.visit(text, &mut |subscribers| {
                for &(index, target) in &subscribers.joining {
                    let Some(subscription) = subscriptions.get(index as usize) else { continue };
                    let verdict = match subscription.state {
                        State::Scanning(scan) => {
                            let is_wanted = event.kind != EventKind::Delete;
                            let scan = scans.get_mut(scan.index as usize).map(|open| &mut open.scan);
                            scan.map(|scan| scan.apply(usize::from(target), event, is_wanted))
                        }
                        // Before the scan: state comes with it; without one, what happens from here on is news.
                        _ if subscription.snapshot && event.kind != EventKind::Message => Some(Verdict::Absorbed),
                        _ => Some(Verdict::Deliver),
                    };
                    if verdict == Some(Verdict::Deliver) {
                        add(subscription.subscriber(index, usize::from(target)), subscription, false);
                    }
                }
            });
        }
        for Merged { connection, kind, identifiers } in &merged {
            let topic_alias = outboxes.alias(*connection, event, *kind);
            if identifiers.is_empty() && topic_alias.is_none() {
                push(&mut **encoder, frames, outboxes, *kind, *connection);
            } else {
                let context = FrameContext { identifiers, topic_alias, ..context };
                if let Some(frame) = frames.own(*kind, |out| encoder.encode(*kind, &context, out)) {
                    outboxes.push(*connection, frame, &origin);
                }
            }
        }
        if !table.live.is_empty() {
            let before = event.previous.as_deref().unwrap_or_default();
            for number in table.live.concerned([before, event.body.document()]) {
                let LiveQuery { filter, query, subscribers } = table.live.get(number);
                if !filter.matches(text) {
                    continue;
                }
                let was = !before.is_empty() && query.matches(before, query_scratch);
                let is = !event.body.document().is_empty() && query.matches(event.body.document(), query_scratch);
                let kind = match event.kind {
                    EventKind::Put | EventKind::Message if is => event.kind,
                    EventKind::Put if was => EventKind::Leave,
                    EventKind::Delete if was => EventKind::Delete,
                    EventKind::Put => EventKind::Leave,
                    _ => continue,
                };
                selected.clear();
                if is {
                    query.select.project(&Subject::of(table.codec, event), selected);
                }
                frames.clear();
                let follows = kind == EventKind::Put && was;
                let wants_patch = |own: &Subscriber| own.options & PATCHES != 0;
                shown_before.clear();
                if follows && subscribers.live().iter().any(wants_patch) {
                    let before = Subject { document: before, ..Subject::of(table.codec, event) };
                    query.select.project(&before, shown_before);
                }
                let context = FrameContext { kind, document: selected, json: &[], previous: shown_before, ..context };
                let mut push = |subscriber: &Subscriber, flags: u8| {
                    // What was not there before does not leave; but a scan may hold it.
                    if kind == EventKind::Leave && !was {
                        return;
                    }
                    let kind = kind_for(subscriber, event).with(flags);
                    let frame = if subscriber.options & DETAILED == 0 {
                        frames.get(kind, |out| encoder.encode(kind, &context, out))
                    } else {
                        let found = subscriptions.get(subscriber.subscription as usize);
                        let Some(subscription) = found.filter(|found| found.hears(event)) else { return };
                        let context = FrameContext { identifiers: subscription.identifier.as_slice(), ..context };
                        frames.own(kind, |out| encoder.encode(kind, &context, out))
                    };
                    if let Some(frame) = frame {
                        outboxes.push(subscriber.connection, frame, &origin);
                    }
                };
                for subscriber in subscribers.live() {
                    let patch = if follows && wants_patch(subscriber) { FrameKind::PATCH } else { 0 };
                    push(subscriber, FrameKind::POSITION | patch);
                }
                for &(index, target) in &subscribers.joining {
                    let Some(subscription) = subscriptions.get(index as usize) else { continue };
                    let verdict = match subscription.state {
                        State::Scanning(scan) => {
                            let scan = scans.get_mut(scan.index as usize).map(|open| &mut open.scan);
                            scan.map(|scan| scan.apply(usize::from(target), event, is))
                        }
                        _ if subscription.snapshot && event.kind != EventKind::Message => Some(Verdict::Absorbed),
                        _ => Some(Verdict::Deliver),
                    };
                    if verdict == Some(Verdict::Deliver) {
                        push(&subscription.subscriber(index, usize::from(target)), 0);
                    }
                }
            }
        }
        for group in groups {
            self.share_out(group, event);
        }
    }

    /// Registers a subscription here and at every shard that owns some of its keys. [`Completion::Subscribed`]
    /// follows; then [`Shard::start`] lets it begin.
    pub fn subscribe(&mut self, request: Request) -> SubscriptionRef {
        if let Some(group) = request.group.clone() {
            return self.join_group(&group, request);
        }
        let connection = request.connection;
        let live = request.query.clone();
        let (subscription, targets) = self.insert_subscription(request, State::Joining { missing: usize::MAX });
        let index = subscription.index;
        if let (Some(query), Some(target)) = (live, targets.first()) {
            let table = self.table_mut(target.table);
            let was_empty = table.live.is_empty();
            let number = table.live.enter(&target.filter, &query);
            self.subscriptions[index as usize].query = Some(number);
            if was_empty {
                self.watch(target.table, true);
            }
        }
        self.note_overlaps(connection, index);
        let mut asked = 0;
        for (number, target) in targets.iter().enumerate() {
            let query = self.subscriptions[index as usize].query;
            let table = self.table_mut(target.table);
            let subscribers = table.subscribers.entry(&target.filter);
            match query {
                None => subscribers.joining.push((index, number as u16)),
                Some(query) => {
                    subscribers.queries += 1;
                    table.live.subscribers(query).joining.push((index, number as u16));
                }
            }
            for shard in self.peers_of(target) {
                let filter = target.filter.clone();
                self.links.send_control(shard, Control::Interest { table: target.table, filter, subscription });
                asked += 1;
            }
        }
        self.subscriptions[index as usize].state = State::Joining { missing: asked };
        if asked == 0 {
            self.subscribed(subscription);
        }
        subscription
    }

    /// Tells all shards whether this one has live queries of a table.
    fn watch(&mut self, table: TableId, on: bool) {
        for shard in 0..self.shards() as u16 {
            self.send_control(shard, Control::Watch { table, on });
        }
    }

    /// The query of a subscription that has one.
    pub(super) fn live_query(&self, index: u32) -> Option<Arc<Query>> {
        let subscription = &self.subscriptions[index as usize];
        let table = self.table(subscription.targets.first()?.table);
        Some(table.live.get(subscription.query?).query.clone())
    }

    /// Gives a subscription its number.
    pub(super) fn insert_subscription(&mut self, request: Request, state: State) -> (SubscriptionRef, Arc<[Target]>) {
        let generation = self.next_generation();
        let bit = |flag: u8, on: bool| if on { flag } else { 0 };
        let has_details = request.no_local != 0 || request.identifier.is_some() || is_group(request.connection);
        let options = request.qos.min(2)
            | bit(RETAIN_AS_PUBLISHED, request.retain_as_published)
            | bit(DETAILED, has_details)
            | bit(PATCHES, request.patches);
        let targets: Arc<[Target]> = request.targets.into();
        let index = self.subscriptions.insert(Subscription {
            generation,
            connection: request.connection,
            targets: targets.clone(),
            encoding: request.encoding,
            options,
            no_local: request.no_local,
            identifier: request.identifier,
            query: None,
            after_us: request.after_us,
            snapshot: request.snapshot,
            since: request.since,
            state,
            places: vec![0; targets.len()].into(),
        }) as u32;
        (SubscriptionRef { index, generation }, targets)
    }

    /// Subscriptions of one client that may match one event are delivered together.
    fn note_overlaps(&mut self, connection: ConnectionRef, index: u32) {
        let Shard { tables, subscriptions, outboxes, .. } = self;
        let Some(client) = outboxes.client(connection) else { return };
        if client.alias_maximum > 0 {
            subscriptions[index as usize].options |= DETAILED;
        }
        for &other in &client.subscriptions {
            let is_apart = |own: &Subscription| own.query.is_some() || matches!(own.state, State::Shared { .. });
            let (other_one, own) = (&subscriptions[other as usize], &subscriptions[index as usize]);
            if is_apart(other_one)
                || is_apart(own)
                || !subscriptions[other as usize].overlaps(&subscriptions[index as usize])
            {
                continue;
            }
            for number in [other, index] {
                let subscription = &mut subscriptions[number as usize];
                subscription.options |= DETAILED;
                if matches!(subscription.state, State::Live) {
                    for (target, place) in subscription.targets.iter().zip(&subscription.places) {
                        let subscribers = tables[usize::from(target.table.0)].subscribers.entry(&target.filter);
                        subscribers.detail(*place);
                    }
                }
            }
        }
        client.subscriptions.push(index);
    }

    /// The other shards that own keys of a target.
    fn peers_of(&self, target: &Target) -> impl Iterator<Item = u16> + use<> {
        let own = self.index;
        let owners = match &target.filter {
            KeyFilter::Exact { key, .. } => {
                let owner = owner(target.table, key, self.shards());
                owner..owner + 1
            }
            KeyFilter::Pattern(_) => 0..self.shards() as u16,
        };
        owners.filter(move |shard| *shard != own)
    }

    pub(super) fn subscription_mut(&mut self, subscription: SubscriptionRef) -> Option<&mut Subscription> {
        let found = self.subscriptions.get_mut(subscription.index as usize);
        found.filter(|found| found.generation == subscription.generation)
    }

    pub(super) fn confirm(&mut self, from: u16, subscription: SubscriptionRef, reached: Position) {
        let seen = &mut self.seen[usize::from(from)];
        *seen = reached.max(*seen);
        let Some(found) = self.subscription_mut(subscription) else { return };
        let State::Joining { missing } = &mut found.state else { return };
        *missing -= 1;
        if *missing == 0 {
            self.subscribed(subscription);
        }
    }

    fn subscribed(&mut self, subscription: SubscriptionRef) {
        let Some(found) = self.subscription_mut(subscription) else { return };
        found.state = State::Ready;
        let connection = found.connection;
        if is_group(connection) {
            return self.group_subscribed(subscription, connection);
        }
        self.completions.push_back(Completion::Subscribed { connection, subscription });
    }

    /// Lets a subscription begin: first the current records, if it wants them, then what happens.
    pub fn start(&mut self, subscription: SubscriptionRef) {
        let Some(found) = self.subscription_mut(subscription) else { return };
        if !matches!(found.state, State::Ready) {
            return;
        }
        let (connection, targets) = (found.connection, found.targets.clone());
        let (snapshot, is_resumed) = (found.snapshot, found.since.is_some());
        // What happened before is no news to it, though its client may still have to hear of it for others.
        if !is_resumed && self.outboxes.client(connection).is_some_and(|client| client.is_behind()) {
            self.subscriptions[subscription.index as usize].since = Some(self.seen.clone().into());
        }
        if !snapshot {
            return self.go_live(subscription.index);
        }
        let plan = self.live_query(subscription.index).map(|query| Arc::new(Plan::by_key(query)));
        let scan = self.open_scan(ScanOwner::Subscription(subscription.index), targets, plan);
        self.subscriptions[subscription.index as usize].state = State::Scanning(scan);
        self.pump(scan);
    }

    fn go_live(&mut self, index: u32) {
        let targets = self.subscriptions[index as usize].targets.clone();
        for (number, target) in targets.iter().enumerate() {
            let own = &self.subscriptions[index as usize];
            let (subscriber, query) = (own.subscriber(index, number), own.query);
            let table = self.table_mut(target.table);
            let subscribers = match query {
                None => table.subscribers.entry(&target.filter),
                Some(query) => table.live.subscribers(query),
            };
            subscribers.joining.retain(|line| *line != (index, number as u16));
            self.subscriptions[index as usize].places[number] = subscribers.enter(subscriber);
        }
        self.subscriptions[index as usize].state = State::Live;
    }

    pub fn unsubscribe(&mut self, subscription: SubscriptionRef) {
        let Some(found) = self.subscription_mut(subscription) else { return };
        if matches!(found.state, State::Shared { .. }) {
            self.leave_group(subscription, false);
            return self.forget_subscription(subscription);
        }
        let targets = found.targets.clone();
        let (is_live, query) = (matches!(found.state, State::Live), found.query);
        if let State::Scanning(scan) = found.state {
            self.close_scan(scan);
        }
        for (number, target) in targets.iter().enumerate() {
            let mut last = false;
            // It stays in the slab until all its lines are gone: two of them may stand in one list.
            let Shard { subscriptions, tables, .. } = self;
            let mut take_out = |subscribers: &mut Subscribers| {
                if is_live {
                    let place = subscriptions[subscription.index as usize].places[number];
                    if let Some(moved) = subscribers.leave(place) {
                        subscriptions[moved.subscription as usize].places[usize::from(moved.target)] = place;
                    }
                } else {
                    subscribers.joining.retain(|line| *line != (subscription.index, number as u16));
                }
            };
            let table = &mut tables[usize::from(target.table.0)];
            if let Some(query) = query {
                take_out(table.live.subscribers(query));
                table.live.leave(query);
            }
            table.subscribers.edit(&target.filter, |subscribers| {
                match query {
                    None => take_out(subscribers),
                    Some(_) => subscribers.queries -= 1,
                }
                last = subscribers.is_empty();
                last
            });
            if query.is_some() && table.live.is_empty() {
                self.watch(target.table, false);
            }
            if last {
                for shard in self.peers_of(target) {
                    let filter = target.filter.clone();
                    self.links.send_control(shard, Control::NoInterest { table: target.table, filter });
                }
            }
        }
        self.forget_subscription(subscription);
    }

    /// Nothing refers to a subscription any more.
    pub(super) fn forget_subscription(&mut self, subscription: SubscriptionRef) {
        let Subscription { connection, state, .. } = self.subscriptions.remove(subscription.index as usize);
        self.shared_subscriptions -= u64::from(matches!(state, State::Shared { .. }));
        if let Some(client) = self.outboxes.client(connection) {
            client.subscriptions.retain(|own| *own != subscription.index);
        }
    }

    pub(super) fn offer(&mut self, from: u16, scan: ScanRef, chunk: Chunk) {
        if let Some(open) = self.open_scan_mut(scan) {
            open.scan.offer(from, chunk);
            self.pump(scan);
        }
    }

    /// Carries a scan on as far as it can go now.
    pub(super) fn pump(&mut self, scan: ScanRef) {
        let Some(open) = self.open_scan_mut(scan) else { return };
        match open.owner {
            ScanOwner::Reader(token) => {
                self.request_chunks(scan);
                // A reader steps by itself; tell it when it can.
                if let Some(open) = self.open_scan_mut(scan)
                    && open.scan.can_step()
                {
                    self.completions.push_back(Completion::ScanReady { token, scan });
                }
            }
            ScanOwner::Subscription(index) => self.pump_subscription(scan, index),
        }
    }

    fn pump_subscription(&mut self, scan: ScanRef, index: u32) {
        let connection = self.subscriptions[index as usize].connection;
        loop {
            if self.outboxes.stall(connection, Some(scan)) {
                return;
            }
            let Some(open) = self.open_scan_mut(scan) else { return };
            match open.scan.step() {
                Step::Row { target, row } => {
                    let last = open.scan.is_at_end();
                    self.deliver_row(index, target, &row, last);
                }
                Step::Wait => {
                    // A shard answers itself at once: go on if it did.
                    self.request_chunks(scan);
                    if !self.open_scan_mut(scan).is_some_and(|open| open.scan.can_step()) {
                        return;
                    }
                }
                Step::End | Step::Damaged => {
                    self.close_scan(scan);
                    return self.go_live(index);
                }
            }
        }
    }

    fn request_chunks(&mut self, scan: ScanRef) {
        let Some(open) = self.open_scan_mut(scan) else { return };
        let mut requests = Vec::new();
        open.scan.requests(|shard, target, plan, after| {
            let (table, filter, plan) = (target.table, target.filter.clone(), plan.cloned());
            requests.push((shard, Control::Scan { scan, table, filter, plan, after }));
        });
        for (shard, request) in requests {
            match request {
                Control::Scan { scan, table, filter, plan, after }
                    if shard == self.index && self.may_read_chunk(table, plan.as_deref()) =>
                {
                    self.offer_own(scan, table, &filter, plan.as_deref(), after.as_deref());
                }
                request => self.send_control(shard, request),
            }
        }
    }

    /// The next records of this shard's slice of a table.
    pub(super) fn chunk(&self, table: TableId, filter: &KeyFilter, plan: Option<&Plan>, after: Option<&[u8]>) -> Chunk {
        let mut chunk = self.table(table).chunk(filter, plan, after, &self.log, self.now_ms());
        chunk.is_damaged |= self.tables_are_missing;
        chunk
    }

    /// This shard answers itself. After a chunk without a matching row it goes on in the next turn: nobody else would
    /// ask for more.
    fn offer_own(
        &mut self,
        scan: ScanRef,
        table: TableId,
        filter: &KeyFilter,
        plan: Option<&Plan>,
        after: Option<&[u8]>,
    ) {
        let chunk = self.chunk(table, filter, plan, after);
        self.seen[usize::from(self.index)] = self.reached();
        if chunk.rows.is_empty() && !chunk.done {
            self.barren_scans.push(scan);
        }
        let own = self.index;
        if let Some(open) = self.open_scan_mut(scan) {
            open.scan.offer(own, chunk);
        }
    }

    /// Whether a chunk is to be read now; if so, that counts. Only those of queries are many records' work.
    pub(super) fn may_read_chunk(&mut self, table: TableId, plan: Option<&Plan>) -> bool {
        let Some(plan) = plan else { return true };
        let may = self.query_chunks_left > 0 && self.table(table).can_carry_out(plan);
        self.query_chunks_left -= usize::from(may);
        may
    }

    /// A turn begins: scans that had to wait for it, or for an index, in their order.
    pub(super) fn serve_scans(&mut self) {
        self.query_chunks_left = QUERY_CHUNKS_PER_TURN;
        for (from, request) in std::mem::take(&mut self.waiting_scans) {
            self.control(from, request);
        }
        for scan in std::mem::take(&mut self.barren_scans) {
            self.pump(scan);
        }
    }

    /// Puts some more records into the indexes after a start.
    pub(super) fn build_indexes(&mut self) {
        if !self.indexes_are_built {
            let Shard { tables, log, .. } = self;
            self.indexes_are_built = !tables.iter_mut().any(|table| table.build_indexes(log, INDEXED_PER_TURN));
        }
    }

    /// Hands a current record to a subscriber.
    fn deliver_row(&mut self, index: u32, target: usize, row: &Row, last: bool) {
        let Shard { tables, subscriptions, outboxes, encoder, frames, key_text, seen, now_us, .. } = self;
        let subscription = &subscriptions[index as usize];
        let table = &tables[usize::from(subscription.targets[target].table.0)];
        let Some(definition) = table.definition.as_deref() else { return };
        let text = table.codec.text(row.body.key(), key_text);
        if subscription.is_shadowed(target as u16, text) {
            return;
        }
        let subscriber = subscription.subscriber(index, target);
        let mut kind = subscriber.kind.with(FrameKind::RETAIN).with_qos(subscription.qos().min(row.terms.qos));
        if last {
            kind = kind.with(FrameKind::POSITION);
        }
        let mut document = row.body.document();
        if let Some(query) = subscription.query {
            let (codec, key, expires_ms) = (table.codec, row.body.key(), row.terms.expires_ms);
            self.selected.clear();
            let subject = Subject { codec, key, version: row.version, expires_ms, document };
            table.live.get(query).query.select.project(&subject, &mut self.selected);
            document = &self.selected;
        }
        let context = FrameContext {
            table: definition,
            codec: table.codec,
            kind: EventKind::Put,
            key: row.body.key(),
            key_text: text,
            version: row.version,
            properties: row.body.properties(),
            document,
            json: &[],
            expires_in_ms: row.terms.expires_ms.map(|at| at.saturating_sub(*now_us / 1000)),
            topic_alias: None,
            identifiers: subscription.identifier.as_slice(),
            seen,
            skipped: 0,
            previous: &[],
        };
        if let Some(frame) = frames.own(kind, |out| encoder.encode(kind, &context, out)) {
            let origin = Origin::Row { table: subscription.targets[target].table, key: row.body.key() };
            outboxes.push(subscriber.connection, frame, &origin);
        }
    }

    /// The connection has room again: scans that waited for it go on.
    pub(super) fn resume_scans(&mut self, connection: ConnectionRef) {
        for scan in self.outboxes.take_stalled(connection) {
            self.pump(scan);
        }
    }

    /// The next record of a reader's scan. After [`Step::Wait`], [`Completion::ScanReady`] says when to go on.
    pub fn scan_step(&mut self, scan: ScanRef) -> Step {
        let Some(open) = self.open_scan_mut(scan) else { return Step::End };
        match open.scan.step() {
            Step::Wait => {
                self.pump(scan);
                Step::Wait
            }
            _ if open.scan.is_damaged() => Step::Damaged,
            step => step,
        }
    }
}
