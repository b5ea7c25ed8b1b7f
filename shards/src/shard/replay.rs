//! Clients that are behind: the shard that owns events reads them from its log, a bounded number of records a turn; the
//! client's shard hands them out as far as there is room, and asks for the next.

use super::Shard;
use super::delivery::{FrameContext, Merged, context, kind_for, merge};
use super::sharing::is_group;
use crate::client::{Inflight, Phase, Progress, Source};
use crate::command::{Completion, ConnectionRef, Control, Data};
use crate::counters::Counter;
use crate::event::{Body, Event, EventKind};
use crate::limits::{REPLAY_RECORDS_PER_TURN, SCAN_CHUNK_BYTES, SCAN_CHUNK_RECORDS};
use crate::log::format::{Record, RecordKind};
use crate::log::{Location, Position};
use crate::outbox::{FrameKind, Origin};
use crate::query::project::Subject;
use crate::replay::{Answer, Mode, ReplayRequest, Replayed, ReplayedEvent, Start, StreamStart, Wanted};
use crate::scan::owner;
use crate::schema::TableId;
use crate::subscription::{State, Subscriber, Subscription, SubscriptionRef};
use crate::topic::{KeyFilter, Target};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

impl Shard {
    // The owner's side.

    /// Everything up to here has been delivered to whoever was interested.
    pub(super) fn reached(&self) -> Position {
        let position = self.log.position();
        match self.held_back.front() {
            Some((event, _)) => Position { seq: event.position.seq - 1, ..event.position },
            None => position,
        }
    }

    /// Answers those who asked for events of this shard, as far as a turn allows.
    pub(super) fn serve_replays(&mut self) {
        let mut left = REPLAY_RECORDS_PER_TURN;
        while left > 0
            && let Some((from, request)) = self.replays.pop_front()
        {
            let connection = request.connection;
            let answer = match &request.wanted {
                Wanted::Check { start, is_exact } => {
                    left -= 1;
                    let position = match *start {
                        Start::Position(position) => position,
                        Start::Time(at_us) => self.log.before_time(at_us),
                        Start::Previous(count) => match &*request.targets {
                            [Target { table, filter: KeyFilter::Exact { key, .. }, .. }]
                                if owner(*table, key, self.shards()) == self.index =>
                            {
                                self.search_start(from, connection, *table, key, count);
                                continue;
                            }
                            _ => self.reached(),
                        },
                    };
                    let is_known = !is_exact || self.log.knows(position);
                    let is_complete = is_known && self.holds_all_after(position, &request.targets);
                    Answer::Checked { is_complete, from: position }
                }
                Wanted::Again { events, rows } => {
                    left = left.saturating_sub(events.len() + rows.len());
                    self.read_again(events, rows)
                }
                Wanted::After { .. } => self.read_after(&request, &mut left),
            };
            self.send_data(from, Data::Replayed(Replayed { connection, answer }));
        }
    }

    /// Whether the log still has all events of these tables after a position.
    fn holds_all_after(&self, position: Position, targets: &[Target]) -> bool {
        let pruned = |target: &Target| {
            let is_pruned = self.pruned.get(usize::from(target.table.0)).is_some_and(|pruned| *pruned > position);
            is_pruned && self.system.figures != Some(target.table) // nobody waits for old figures
        };
        !self.tables_are_missing && !targets.iter().any(pruned)
    }

    fn read_again(&self, events: &[Position], rows: &[(TableId, Box<[u8]>)]) -> Answer {
        let mut found = Vec::new();
        let mut hint = None;
        for wanted in events {
            let before = Position { seq: wanted.seq.saturating_sub(1), ..*wanted };
            let _ = self.log.events_after(before, hint, &mut |position, location, record| {
                hint = location.or(hint);
                let Some(record) = record else { return ControlFlow::Continue(()) };
                if position == *wanted {
                    found.push(self.event_of(record, position));
                }
                ControlFlow::Break(())
            });
        }
        let row = |(table, key): &(TableId, Box<[u8]>)| {
            let entry = self.table(*table).visible(key)?;
            let record = self.log.read(entry.location).ok()?;
            Some(self.event_of(&record, Position::default()))
        };
        Answer::Again { events: found, rows: rows.iter().filter_map(row).collect() }
    }

    fn event_of(&self, record: &Record<'_>, position: Position) -> Event {
        Event {
            kind: match record.kind {
                RecordKind::Put => EventKind::Put,
                RecordKind::Delete => EventKind::Delete,
                RecordKind::Message => EventKind::Message,
            },
            table: record.table,
            version: record.version,
            shard: self.index,
            position,
            reached: position,
            terms: record.terms,
            body: Body::with_properties(record.key, record.properties, record.document),
            previous: None,
        }
    }

    fn read_after(&self, request: &ReplayRequest, left: &mut usize) -> Answer {
        let Wanted::After { from, hint, mode, count } = request.wanted else { return Answer::Gone };
        if !self.holds_all_after(from, &request.targets) {
            return Answer::Gone;
        }
        let (reached, now_ms) = (self.reached(), self.now_ms());
        let count = count.min(SCAN_CHUNK_RECORDS);
        let (mut events, mut bytes, mut left_out) = (Vec::new(), 0, 0);
        let (mut upto, mut place, mut is_at_end) = (from, hint, false);
        let mut scratch = String::new();
        let end = self.log.events_after(from, hint, &mut |position, location, record| {
            is_at_end = position > reached;
            if is_at_end || *left == 0 || events.len() >= count || bytes >= SCAN_CHUNK_BYTES {
                return ControlFlow::Break(());
            }
            *left -= 1;
            (upto, place) = (upto.max(position), location.or(place));
            let Some(record) = record else { return ControlFlow::Continue(()) };
            let table = self.tables.get(usize::from(record.table.0));
            let Some(table) = table.filter(|_| request.targets.iter().any(|target| target.table == record.table))
            else {
                return ControlFlow::Continue(());
            };
            let text = table.codec.text(record.key, &mut scratch);
            let concerns = |target: &Target| target.table == record.table && target.filter.matches(text);
            if super::write::has_expired(record, now_ms) || !request.targets.iter().any(concerns) {
                return ControlFlow::Continue(());
            }
            let is_newest = match record.kind {
                RecordKind::Put => table.visible(record.key).is_some_and(|entry| entry.version == record.version),
                RecordKind::Delete => table.visible(record.key).is_none(),
                RecordKind::Message => false,
            };
            let (is_wanted, counts) = match mode {
                Mode::Everything => (true, false),
                Mode::Newest => (is_newest, true),
                Mode::Reliable { at_most_once } => {
                    let wants_state = at_most_once.is_some_and(|after| position > after);
                    (record.terms.qos > 0 || wants_state && is_newest, wants_state)
                }
            };
            if !is_wanted {
                left_out += u64::from(counts);
                return ControlFlow::Continue(());
            }
            bytes += record.key.len() + record.document.len();
            events.push(ReplayedEvent { event: self.event_of(record, position), is_newest });
            ControlFlow::Continue(())
        });
        // What is held back will be delivered as it happens.
        let is_live = end.is_continue() || is_at_end;
        if is_live {
            upto = upto.max(reached);
        }
        Answer::After { events, upto, hint: place, is_live, left_out }
    }

    // The client's side.

    /// How far a client has come: what a later connection of its session needs.
    pub fn progress(&mut self, connection: ConnectionRef) -> Progress {
        let client = self.outboxes.client(connection);
        client.map(|client| client.progress(&self.seen)).unwrap_or_default()
    }

    /// Rises whenever [`Shard::progress`] changes.
    pub fn changes(&mut self, connection: ConnectionRef) -> u64 {
        self.outboxes.client(connection).map_or(0, |client| client.changes)
    }

    /// Where what a subscription of a client that is behind was to be given begins.
    pub fn since(&mut self, subscription: SubscriptionRef) -> Option<Arc<[Position]>> {
        let found = self.subscriptions.get(subscription.index as usize)?;
        let is_behind = self.outboxes.client_at(found.connection.index).is_some_and(|client| client.is_behind());
        if found.since.is_none() && is_behind && matches!(found.state, State::Joining { .. } | State::Ready) {
            return Some(self.seen.clone().into()); // as if it began now
        }
        found.since.clone().filter(|since| is_behind && since.iter().any(|since| *since != Position::default()))
    }

    /// Where what a subscription was to be given begins: so does what another one is given that takes its place.
    pub fn begins(&self, subscription: SubscriptionRef) -> Option<Arc<[Position]>> {
        let found = self.subscriptions.get(subscription.index as usize)?;
        Some(found.since.clone().unwrap_or_else(|| vec![Position::default(); self.shards()].into()))
    }

    /// Whether a subscription has been handed the current records.
    pub fn is_live(&self, subscription: SubscriptionRef) -> bool {
        let found = self.subscriptions.get(subscription.index as usize);
        found.is_some_and(|found| matches!(found.state, State::Live | State::Shared { .. }))
    }

    /// Whether a subscription is not held up while it is handed the current records.
    pub fn has_begun(&self, subscription: SubscriptionRef) -> bool {
        match self.subscriptions.get(subscription.index as usize) {
            Some(Subscription { state: State::Scanning(scan), connection, .. }) => {
                !self.outboxes.is_stalled(*connection, *scan)
            }
            _ => true,
        }
    }

    /// A client has ended the exchange of a message that waits in this phase. False: there is none.
    pub fn acknowledge(&mut self, connection: ConnectionRef, packet_id: u16, phase: Phase) -> bool {
        let Some(client) = self.outboxes.client(connection) else { return false };
        let Some(ended) = client.end(packet_id, |own| own == phase) else { return false };
        if let Some(shared) = ended.shared {
            self.tell_group(shared, 1);
        }
        self.resume(connection);
        true
    }

    /// Clients with a pace may be given more.
    pub(super) fn resume_paced(&mut self) {
        while let Some(connection) = self.outboxes.next_paced() {
            self.resume(connection);
        }
    }

    /// A connection has room again: whatever waited for it goes on.
    pub fn resume(&mut self, connection: ConnectionRef) {
        if let Some(client) = self.outboxes.client(connection) {
            let (is_behind, has_again) = (client.is_behind(), client.has_again());
            let has_refused = std::mem::take(&mut client.has_refused);
            if has_refused {
                let own = client.subscriptions.clone();
                own.into_iter().for_each(|index| self.tell_group(index, 0));
            }
            if is_behind || has_again {
                self.catch_up(connection);
            }
        }
        self.resume_scans(connection);
    }

    /// Asks every shard whether all that a resumed client is to be given is still there; [`Completion::Checked`] follows.
    pub fn check_history(&mut self, connection: ConnectionRef, targets: Arc<[Target]>) {
        let shards = self.shards() as u16;
        let Some(client) = self.outboxes.client(connection) else { return };
        let mut oldest: Vec<Position> = vec![Position::default(); usize::from(shards)];
        client.behind().iter().for_each(|behind| oldest[usize::from(behind.shard)] = behind.from);
        for message in client.inflight() {
            if let (Source::Event { shard, position, .. }, true) = (&message.source, message.phase != Phase::Released)
                && let Some(oldest) = oldest.get_mut(usize::from(*shard))
            {
                *oldest = Position { seq: position.seq.saturating_sub(1), ..*position }.min(*oldest);
            }
        }
        client.checks = shards;
        for shard in 0..shards {
            let start = Start::Position(oldest[usize::from(shard)]);
            let wanted = Wanted::Check { start, is_exact: false };
            self.send_control(shard, Control::Replay(ReplayRequest { connection, targets: targets.clone(), wanted }));
        }
    }

    /// A stream is to begin after some place: asks every shard whether all that has happened since is still there;
    /// [`Completion::Checked`] follows. If so, subscribe (without current records) and [`Shard::resume_client`].
    pub fn check_start(&mut self, connection: ConnectionRef, targets: Arc<[Target]>, start: &StreamStart) {
        let shards = self.shards();
        let Some(client) = self.outboxes.client(connection) else { return };
        let positions = match start {
            StreamStart::Positions(positions) => positions.clone(),
            StreamStart::Time(_) | StreamStart::Previous(_) => vec![Position::default(); shards],
        };
        client.resume(&Progress { positions: positions.clone(), ..Progress::default() });
        (client.checks, client.is_gone) = (shards as u16, false);
        self.outboxes.update_behind(connection);
        for (shard, position) in positions.iter().enumerate().take(shards) {
            let start = match start {
                StreamStart::Positions(_) => Start::Position(*position),
                StreamStart::Time(at_us) => Start::Time(*at_us),
                StreamStart::Previous(count) => Start::Previous(*count),
            };
            let request =
                ReplayRequest { connection, targets: targets.clone(), wanted: Wanted::Check { start, is_exact: true } };
            self.send_control(shard as u16, Control::Replay(request));
        }
    }

    /// A stream cannot go on from where it was: it begins anew.
    pub fn begin_anew(&mut self, connection: ConnectionRef) {
        if let Some(client) = self.outboxes.client(connection) {
            client.behind().clear();
            (client.has_begun, client.is_gone, client.skipped) = (true, false, 0);
        }
        self.outboxes.update_behind(connection);
    }

    /// Sends what was in flight again, then what has happened since.
    pub fn resume_client(&mut self, connection: ConnectionRef) {
        let Some(client) = self.outboxes.client(connection) else { return };
        client.has_begun = true;
        if client.subscriptions.is_empty() && client.inflight().next().is_none() {
            client.behind().clear();
            return self.outboxes.update_behind(connection);
        }
        self.resume(connection); // groups may have been told that there is no room
    }

    /// Asks for what is to be sent again, as far as there is room.
    fn ask_again(&mut self, connection: ConnectionRef) {
        let shards = self.shards();
        let Some(client) = self.outboxes.client(connection) else { return };
        type Lists = (Vec<Position>, Vec<(TableId, Box<[u8]>)>);
        let mut lists: BTreeMap<u16, Lists> = BTreeMap::new();
        for message in client.take_again() {
            match message.source {
                Source::Event { shard, position, .. } => {
                    lists.entry(shard).or_default().0.push(position);
                }
                Source::Row { table, key } => {
                    lists.entry(owner(table, &key, shards)).or_default().1.push((table, key));
                }
            }
        }
        client.checks = lists.len() as u16;
        for (shard, (mut events, mut rows)) in lists {
            events.sort_unstable();
            events.dedup();
            rows.sort_unstable();
            rows.dedup();
            let wanted = Wanted::Again { events, rows };
            self.send_control(shard, Control::Replay(ReplayRequest { connection, targets: Arc::new([]), wanted }));
        }
    }

    /// Asks for what is to be sent again, then for the next events of the shards that a client is behind on, as far as
    /// it has room.
    pub fn catch_up(&mut self, connection: ConnectionRef) {
        let Shard { outboxes, subscriptions, .. } = self;
        let Some(client) = outboxes.client(connection) else { return };
        if client.checks > 0 {
            return;
        }
        if client.has_again() {
            return self.ask_again(connection);
        }
        if !client.is_behind() {
            return;
        }
        if outboxes.stall(connection, None) {
            return; // asked again when bytes have been sent
        }
        let count = outboxes.allowance(connection);
        let Some(client) = outboxes.client(connection) else { return };
        let (count, is_stream) = (client.room().min(count), client.is_stream);
        if count == 0 {
            return; // asked again when something was acknowledged, or when it is time
        }
        let own = client.subscriptions.iter().filter_map(|index| subscriptions.get(*index as usize));
        let targets: Arc<[Target]> = own.flat_map(|subscription| subscription.targets.iter().cloned()).collect();
        let mut requests = Vec::new();
        let is_paced = client.pace.is_some();
        // A pace is one for all shards: each in its turn is asked for what it allows.
        let at_once = if is_paced { 1 } else { usize::MAX };
        if is_paced {
            if client.behind().iter().any(|behind| behind.asked) {
                return;
            }
            client.behind().rotate_left(1);
        }
        for behind in client.behind().iter_mut().filter(|behind| !behind.asked).take(at_once) {
            behind.asked = true;
            let (from, hint) = (behind.from, behind.hint);
            let mode = match (behind.everything, is_stream) {
                (true, _) if !is_paced => Mode::Everything,
                (_, true) => Mode::Newest,
                (_, false) => Mode::Reliable { at_most_once: behind.from_at_most_once },
            };
            requests.push((behind.shard, Wanted::After { from, hint, mode, count }));
        }
        for (shard, wanted) in requests {
            let targets = targets.clone();
            self.send_control(shard, Control::Replay(ReplayRequest { connection, targets, wanted }));
        }
    }

    /// A shard has answered.
    pub(super) fn replayed(&mut self, from: u16, replayed: Replayed) {
        let Replayed { connection, answer } = replayed;
        if is_group(connection) {
            return self.group_replayed(connection, from, answer);
        }
        if self.outboxes.client(connection).is_none() {
            return; // gone meanwhile
        }
        match answer {
            Answer::Checked { is_complete, from: position } => {
                let Some(client) = self.outboxes.client(connection) else { return };
                if let (true, Some(own)) = (client.is_stream, client.behind().iter_mut().find(|own| own.shard == from))
                {
                    own.from = position;
                }
                client.is_gone |= !is_complete;
                client.checks -= 1;
                if client.checks == 0 {
                    let is_complete = !client.is_gone;
                    self.completions.push_back(Completion::Checked { connection, is_complete });
                }
            }
            Answer::Again { events, rows } => {
                let sent: Vec<u16> =
                    events.iter().chain(&rows).flat_map(|event| self.deliver_again(connection, event)).collect();
                let shards = self.shards();
                let Some(client) = self.outboxes.client(connection) else { return };
                let of_this = |message: &&Inflight| match &message.source {
                    Source::Event { shard, .. } => *shard == from,
                    Source::Row { table, key } => owner(*table, key, shards) == from,
                };
                // What is no longer there, or no longer subscribed to, is not waited for.
                let gone = client.inflight().filter(|message| message.phase != Phase::Released).filter(of_this);
                let gone = gone.map(|message| (message.packet_id, message.phase));
                let gone: Vec<_> = gone.filter(|(id, _)| !sent.contains(id) && client.has_asked_again(*id)).collect();
                for (packet_id, phase) in gone {
                    if phase == Phase::ExactlyOnce {
                        // The client may have it: its identifier is free when it says so.
                        client.release(packet_id);
                        self.completions.push_back(Completion::Release { connection, packet_id });
                    } else {
                        client.end(packet_id, |_| true);
                    }
                }
                client.checks -= 1;
                self.catch_up(connection);
            }
            Answer::Gone => self.completions.push_back(Completion::Lost { connection }),
            Answer::After { events, upto, hint, is_live, left_out } => {
                match self.outboxes.client(connection) {
                    Some(client) if client.is_stream => client.skipped += left_out,
                    _ => self.outboxes.counters[Counter::MessagesDropped] += left_out,
                }
                for (number, ReplayedEvent { event, is_newest }) in events.iter().enumerate() {
                    if !self.deliver_replayed(connection, event, *is_newest) {
                        // It has been told nobody yet, and is counted again.
                        if let Some(client) = self.outboxes.client(connection).filter(|it| it.is_stream && number == 0)
                        {
                            client.skipped -= left_out;
                        }
                        // No room after all: it is read again from here.
                        let before = Position { seq: event.position.seq - 1, ..event.position };
                        return self.note_progress(connection, from, before, None, false);
                    }
                }
                self.note_progress(connection, from, upto, hint, is_live);
                self.catch_up(connection);
            }
        }
    }

    fn note_progress(
        &mut self,
        connection: ConnectionRef,
        shard: u16,
        upto: Position,
        hint: Option<Location>,
        is_live: bool,
    ) {
        let seen = &mut self.seen[usize::from(shard)];
        let Some(client) = self.outboxes.client(connection) else { return };
        client.changes += 1;
        if let Some(behind) = client.behind().iter_mut().find(|behind| behind.shard == shard) {
            behind.asked = false;
            behind.from = behind.from.max(upto);
            behind.hint = hint;
        }
        if is_live {
            *seen = (*seen).max(upto);
            client.behind().retain(|behind| behind.shard != shard);
        }
        self.outboxes.update_behind(connection);
    }

    /// Hands out an event that was read from the log. False: there is no room for it.
    fn deliver_replayed(&mut self, connection: ConnectionRef, event: &Event, is_newest: bool) -> bool {
        let Shard { tables, subscriptions, outboxes, encoder, frames, key_text, seen, now_us, .. } = self;
        let (query_scratch, selected) = (&mut self.query_scratch, &mut self.selected);
        if outboxes.allowance(connection) == 0 {
            return false;
        }
        let Some(client) = outboxes.client(connection) else { return true };
        let shard = usize::from(event.shard);
        let (is_stream, skipped) = (client.is_stream, client.skipped);
        let mut positions = client.progress(seen).positions;
        positions[shard] = event.position;
        let behind = client.behind().iter().find(|behind| behind.shard == event.shard).copied();
        let takes_state =
            is_newest && behind.and_then(|behind| behind.from_at_most_once).is_some_and(|after| event.position > after);
        let table = &tables[usize::from(event.table.0)];
        let Some(definition) = table.definition.as_deref() else { return true };
        let text = table.codec.text(event.body.key(), key_text);
        // Deliveries by path, as in `deliver`.
        let mut merged: Vec<Merged> = Vec::new();
        let mut live: Vec<(Subscriber, &Subscription, u32)> = Vec::new();
        let mut at_most_once = Vec::new();
        for index in &client.subscriptions {
            let Some(subscription) = subscriptions.get(*index as usize) else { continue };
            let is_known = match &subscription.since {
                Some(since) => event.position <= since[shard],
                None => matches!(subscription.state, State::Joining { .. } | State::Ready), // from its start on
            };
            let qos = subscription.qos().min(event.terms.qos);
            let is_shared = matches!(subscription.state, State::Shared { .. });
            if is_known || is_shared || !subscription.hears(event) || event.version.0 <= subscription.after_us {
                continue;
            }
            for (number, target) in subscription.targets.iter().enumerate() {
                let matches = target.table == event.table && target.filter.matches(text);
                if !matches || subscription.is_shadowed(number as u16, text) {
                    continue;
                }
                let subscriber = subscription.subscriber(*index, number);
                if let Some(query) = subscription.query {
                    // At QoS 0 one was delivered as it happened, unless nothing could be.
                    live.extend((is_stream || takes_state).then_some((subscriber, subscription, query)));
                } else if qos == 0 && !takes_state && !is_stream {
                    at_most_once.push((subscriber, subscription));
                } else {
                    merge(&mut merged, subscriber, subscription, event);
                }
            }
        }
        let mut dropped = 0;
        for (subscriber, subscription) in at_most_once {
            // The delivery that there is names this subscription, too [MQTT-3.3.4-4].
            if merged.iter().any(|own| own.kind.path == subscriber.kind.path) {
                merge(&mut merged, subscriber, subscription, event);
            } else {
                dropped += u64::from(event.kind == EventKind::Message && behind.is_some());
            }
        }
        let is_told = !merged.is_empty() || !live.is_empty();
        for own in &merged {
            if own.kind.qos() > 0 {
                let Some(client) = outboxes.client(connection) else { return true };
                if client
                    .behind()
                    .iter()
                    .any(|behind| behind.shard == event.shard && behind.was_sent(event.position, own.kind.path))
                {
                    continue;
                }
                if client.room() == 0 {
                    return false;
                }
                if merged.len() > 1
                    && let Some(behind) = client.behind().iter_mut().find(|behind| behind.shard == event.shard)
                {
                    behind.note_sent(event.position, own.kind.path);
                }
            }
            let context = context(definition, table.codec, text, event, &positions, *now_us / 1000, &own.identifiers);
            let context = FrameContext { skipped, ..context };
            let kind = if is_stream { own.kind.with(FrameKind::POSITION) } else { own.kind };
            if let Some(frame) = frames.own(kind, |out| encoder.encode(kind, &context, out)) {
                let origin = Origin::Replayed { shard: event.shard, position: event.position, shared: None };
                outboxes.push(connection.index, frame, &origin);
            }
        }
        for (subscriber, subscription, number) in live {
            let query = &table.live.get(number).query;
            let document = event.body.document();
            let is = !document.is_empty() && query.matches(document, query_scratch);
            // What it was before is not known here: that it is not wanted is said in any case.
            let kind = match event.kind {
                EventKind::Message if !is => continue,
                EventKind::Put if !is => EventKind::Leave,
                kind => kind,
            };
            selected.clear();
            if is {
                query.select.project(&Subject::of(table.codec, event), selected);
            }
            let identifiers = subscription.identifier.as_slice();
            let context = context(definition, table.codec, text, event, &positions, *now_us / 1000, identifiers);
            let context = FrameContext { kind, document: selected, json: &[], skipped, ..context };
            let kind = kind_for(&subscriber, event).with(FrameKind::POSITION);
            if let Some(frame) = frames.own(kind, |out| encoder.encode(kind, &context, out)) {
                let origin = Origin::Replayed { shard: event.shard, position: event.position, shared: None };
                outboxes.push(connection.index, frame, &origin);
            }
        }
        if let Some(client) = outboxes.client(connection).filter(|_| is_told) {
            client.skipped = 0;
        }
        outboxes.counters[Counter::MessagesDropped] += dropped;
        true
    }

    /// Sends what is in flight of an event once more, each message under its packet identifier; gives those.
    fn deliver_again(&mut self, connection: ConnectionRef, event: &Event) -> Vec<u16> {
        let Shard { tables, subscriptions, outboxes, encoder, frames, key_text, seen, now_us, .. } = self;
        let Some(client) = outboxes.client(connection) else { return Vec::new() };
        let table = &tables[usize::from(event.table.0)];
        let Some(definition) = table.definition.as_deref() else { return Vec::new() };
        let is_source = |message: &&Inflight| match &message.source {
            Source::Event { shard, position, .. } => (*shard, *position) == (event.shard, event.position),
            Source::Row { table, key } => {
                event.position == Position::default() && (*table, &**key) == (event.table, event.body.key())
            }
        };
        let is_asked = |message: &&Inflight| client.has_asked_again(message.packet_id);
        let unreleased = client.inflight().filter(|message| message.phase != Phase::Released);
        let messages: Vec<Inflight> = unreleased.filter(is_source).filter(is_asked).cloned().collect();
        let text = table.codec.text(event.body.key(), key_text);
        let mut merged: Vec<Merged> = Vec::new();
        for index in &client.subscriptions {
            // A live query is heard of once at most: nothing of it is in flight.
            let found = subscriptions.get(*index as usize).filter(|found| found.query.is_none());
            let Some(subscription) = found else { continue };
            for (number, target) in subscription.targets.iter().enumerate() {
                if target.table == event.table && target.filter.matches(text) {
                    merge(&mut merged, subscription.subscriber(*index, number), subscription, event);
                }
            }
        }
        let encoding = client.encoding;
        let mut sent = Vec::new();
        for Inflight { packet_id, phase, source, .. } in messages {
            let (flags, path) = match source {
                Source::Event { path, .. } => (FrameKind::DUPLICATE, Some(path)),
                Source::Row { .. } => (FrameKind::DUPLICATE | FrameKind::RETAIN, None),
            };
            let same = merged.iter().find(|own| path.is_none_or(|path| own.kind.path == path));
            // Where nothing matches any more the client still has to end what it began [MQTT-3.10.4-3].
            let other = definition.exports.iter().position(|export| export.mqtt).unwrap_or_default() as u8;
            let kind = FrameKind { encoding, path: path.unwrap_or(other), flags: 0 };
            let qos = if phase == Phase::AtLeastOnce { 1 } else { 2 };
            let kind = same.map_or(kind, |own| own.kind).with_qos(qos).with(flags);
            let identifiers = same.map_or(&[][..], |own| &own.identifiers);
            let context = context(definition, table.codec, text, event, seen, *now_us / 1000, identifiers);
            if let Some(frame) = frames.own(kind, |out| encoder.encode(kind, &context, out)) {
                if !outboxes.takes(connection, frame.bytes.len()) {
                    continue;
                }
                outboxes.push(connection.index, frame, &Origin::Again { packet_id });
            }
            sent.push(packet_id);
        }
        sent
    }
}
