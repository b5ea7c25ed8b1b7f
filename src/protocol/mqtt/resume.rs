//! What outlives a connection: taking up a stored session at CONNECT, saving it, and putting it away at the end.

use super::inbound::Tag;
use super::packet::{AckKind, ConnAck, reason, return_code, write_ack, write_connack};
use super::publish::TOPIC_ALIAS_MAXIMUM;
use super::session::{Goodbye, MqttSession, RECEIVE_MAXIMUM, State};
use super::subscribe::targets_of;
use crate::protocol::{Context, Flow};
use shards::client::{Client, Phase, Progress};
use shards::command::Token;
use shards::counters::Counter;
use shards::session::StoredSession;
use shards::subscription::SubscriptionRef;
use tracing::info;

/// How often the progress of a connected session is stored: after a crash no more than this is sent again at QoS 1.
const SAVE_INTERVAL_US: u64 = 10_000_000;

/// What is known between CONNECT and CONNACK.
pub(super) struct Joining {
    pub is_assigned: bool,
    pub server_keep_alive: Option<u16>,
    /// The client's receive maximum.
    pub window: u16,
    /// Topic aliases that it takes.
    pub alias_maximum: u16,
    /// The session that is being taken up.
    pub stored: Option<StoredSession>,
    /// Its subscriptions that are not known everywhere, and all of them.
    pub waiting: Vec<SubscriptionRef>,
    pub subscribed: Vec<SubscriptionRef>,
}

/// How the session is stored: one save at a time, each with a number.
#[derive(Default)]
pub(super) struct Saves {
    begun: u64,
    pub done: u64,
    /// Something has changed since the one that is under way was begun.
    again: bool,
    /// When the next is due though nobody waits for it, and what the last one has covered.
    pub next_us: u64,
    changes: u64,
    /// There is a record of the session.
    pub is_stored: bool,
}

impl MqttSession {
    /// The client identifier is ours.
    pub(super) fn joined(&mut self, context: &mut Context<'_>, stored: Option<&[u8]>, has_room: bool) -> Flow {
        if self.is_durable() && !has_room {
            let text = "the server keeps as many sessions as it can";
            return self.refuse(context, reason::QUOTA_EXCEEDED, return_code::SERVER_UNAVAILABLE, text);
        }
        let Some(joining) = &self.joining else { return Flow::Continue };
        let (window, alias_maximum) = (joining.window, joining.alias_maximum);
        let shards = context.shard.shards();
        let stored = stored.and_then(StoredSession::decode).filter(|stored| stored.expiry_s != Some(0));
        let Some(stored) = stored.filter(|stored| stored.progress.positions.len() == shards) else {
            return self.begin(context, false);
        };
        self.saves.is_stored = true;
        let mut client = self.client(context, stored.number, window, alias_maximum);
        client.resume(&stored.progress);
        context.shard.outboxes.attach(context.connection, client);
        let filters = stored.subscriptions.iter().filter_map(|own| targets_of(context, &own.filter).ok());
        let targets = filters.flat_map(|(targets, _)| targets).collect();
        if let Some(joining) = &mut self.joining {
            joining.stored = Some(stored);
        }
        context.shard.check_history(context.connection, targets);
        Flow::Blocked
    }

    /// What the engine keeps of this client.
    fn client(&self, context: &Context<'_>, session: u64, window: u16, alias_maximum: u16) -> Client {
        let mut client = Client::new(window, self.is_kept());
        client.session = session;
        client.encoding = self.encoding(context, self.outgoing);
        client.alias_maximum = alias_maximum;
        client
    }

    /// It is known whether everything that the session has missed is still there.
    pub(super) fn checked(&mut self, context: &mut Context<'_>, is_complete: bool) -> Flow {
        let Some(stored) = self.joining.as_mut().and_then(|joining| joining.stored.take()) else {
            return Flow::Continue;
        };
        if !is_complete {
            info!(client = %self.client_id, "a session is not taken up: what it has missed is no longer kept");
            context.shard.discard_session(&self.client_id, stored.number);
            self.saves.is_stored = false;
            return self.begin(context, false);
        }
        self.number = stored.number;
        let subscribed: Vec<SubscriptionRef> =
            stored.subscriptions.iter().filter_map(|own| self.reopen(context, own)).collect();
        if let Some(joining) = &mut self.joining {
            joining.waiting = subscribed.clone();
            joining.subscribed = subscribed;
        }
        self.resubscribed(context, SubscriptionRef { index: u32::MAX, generation: 0 })
    }

    /// Every shard concerned knows of a subscription of the session that is being taken up.
    pub(super) fn resubscribed(&mut self, context: &mut Context<'_>, subscription: SubscriptionRef) -> Flow {
        let Some(joining) = &mut self.joining else { return Flow::Continue };
        joining.waiting.retain(|waiting| *waiting != subscription);
        if joining.waiting.is_empty() { self.begin(context, true) } else { Flow::Blocked }
    }

    /// Accepts the connection, with the session that was stored or a new one.
    fn begin(&mut self, context: &mut Context<'_>, session_present: bool) -> Flow {
        let Some(joining) = self.joining.take() else { return Flow::Continue };
        if !session_present {
            self.number = uuid::Uuid::new_v4().as_u64_pair().0 | 1;
            let client = self.client(context, self.number, joining.window, joining.alias_maximum);
            context.shard.outboxes.attach(context.connection, client);
        }
        let accepted = ConnAck {
            session_present,
            code: reason::SUCCESS,
            assigned_client_id: joining.is_assigned.then_some(&self.client_id),
            server_keep_alive: joining.server_keep_alive,
            receive_maximum: Some(RECEIVE_MAXIMUM),
            maximum_packet_size: Some(context.shard.limits().packet_bytes_max as u32),
            topic_alias_maximum: Some(TOPIC_ALIAS_MAXIMUM),
            ..ConnAck::default()
        };
        let version = self.version;
        context.write_packet(|out| write_connack(version, &accepted, out));
        self.state = State::Connected;
        context.count(Counter::Clients, 1);
        if self.saves.is_stored {
            context.count(Counter::ClientsStored, 1);
        }
        self.saves.next_us = context.ticks_us() + SAVE_INTERVAL_US;
        if session_present {
            self.resuming = Some(joining.subscribed.into());
        }
        if self.is_kept() || self.will.is_some() {
            self.save(context);
        }
        if self.resuming.is_some() { Flow::Blocked } else { Flow::Continue }
    }

    /// Goes on with a session that was taken up, once it is on disk as it was found: what its last connection has not
    /// been able to store must not be said to the client.
    fn go_on(&mut self, context: &mut Context<'_>, subscribed: Vec<SubscriptionRef>) {
        // What was released is released again, before anything else is sent [MQTT-4.4.0-1].
        let version = self.version;
        let client = context.shard.outboxes.client(context.connection);
        let released: Vec<u16> = client
            .map(|client| client.inflight().filter(|own| own.phase == Phase::Released).map(|own| own.packet_id))
            .into_iter()
            .flatten()
            .collect();
        for packet_id in released {
            context.write_packet(|out| write_ack(AckKind::PubRel, version, packet_id, reason::SUCCESS, None, out));
        }
        for subscription in subscribed {
            context.shard.start(subscription);
        }
        context.shard.resume_client(context.connection);
    }

    fn stored(&self, context: &mut Context<'_>, ended_ms: Option<u64>, progress: Progress) -> StoredSession {
        StoredSession {
            number: self.number,
            expiry_s: self.expiry_s,
            ended_ms,
            will: self.will.as_deref().cloned(),
            subscriptions: self.stored_subscriptions(context),
            progress,
        }
    }

    /// Has the session stored, once more if that is under way. Gives the number of the save that covers all that is
    /// known now.
    pub(super) fn save(&mut self, context: &mut Context<'_>) -> u64 {
        if self.saves.done < self.saves.begun {
            self.saves.again = true;
            return self.saves.begun + 1;
        }
        context.shard.outboxes.cover(context.connection);
        let progress = context.shard.progress(context.connection);
        self.saves.changes = context.shard.changes(context.connection);
        let stored = self.stored(context, None, progress);
        let token = Token { connection: context.connection, tag: Tag::Save.number() };
        context.shard.save_session(&self.client_id, &stored, None, Some(token));
        if !std::mem::replace(&mut self.saves.is_stored, true) {
            context.count(Counter::ClientsStored, 1);
        }
        self.saves.begun += 1;
        self.saves.begun
    }

    /// A save is done: what was waiting for it goes on.
    pub(super) fn saved(&mut self, context: &mut Context<'_>, problem: Option<Goodbye>) -> Flow {
        if let Some(problem) = problem {
            let text = format!("the session cannot be stored: {}", problem.text);
            return self.say_goodbye(context, &Goodbye::new(problem.code, text));
        }
        self.saves.done = self.saves.begun;
        let more = context.shard.outboxes.saved(context.connection);
        if let Some(subscribed) = self.resuming.take() {
            self.go_on(context, subscribed.into());
        }
        if std::mem::take(&mut self.saves.again) || more {
            self.save(context);
        }
        if self.replying.is_some() { self.finish_replying(context) } else { Flow::Continue }
    }

    /// Stores the progress of a connected session now and then.
    pub(super) fn save_if_due(&mut self, context: &mut Context<'_>) {
        if self.state != State::Connected || !self.is_durable() || context.ticks_us() < self.saves.next_us {
            return;
        }
        self.saves.next_us = context.ticks_us() + SAVE_INTERVAL_US;
        if context.shard.changes(context.connection) != self.saves.changes {
            self.save(context);
        }
    }

    /// The connection is over: what outlives it is stored, the will is sent or left with the session.
    pub(super) fn put_away(&mut self, context: &mut Context<'_>) {
        // It never got as far as to have a session, or has one only now.
        let had_session = self.number != 0 && self.joining.is_none();
        if had_session {
            let counters = &mut context.shard.outboxes.counters;
            counters[Counter::Clients] -= 1;
            counters[Counter::ClientsStored] -= u64::from(self.saves.is_stored);
        }
        let now_ms = context.shard.now_us() / 1000;
        let mut waiting = None;
        if let Some(will) = self.will.take().map(|will| *will) {
            if will.delay_s == 0 || !self.is_durable() {
                context.shard.submit(will.into_write(now_ms)); // [MQTT-3.1.2-8]
            } else {
                self.will = Some(Box::new(will.clone()));
                let until_s = self.expiry_s.unwrap_or(u32::MAX); // not later than the session ends [MQTT-3.1.3-9]
                waiting = Some(shards::session::Will { delay_s: will.delay_s.min(until_s), ..will });
            }
        }
        context.shard.leave_groups(context.connection);
        if had_session && self.is_durable() {
            let progress = context.shard.progress(context.connection);
            let stored = self.stored(context, Some(now_ms), progress);
            context.shard.save_session(&self.client_id, &stored, stored.expires_ms(now_ms), None);
        } else if self.saves.is_stored && had_session {
            context.shard.discard_session(&self.client_id, self.number);
        }
        for (_, own) in std::mem::take(&mut self.subscriptions) {
            context.shard.unsubscribe(own.reference);
        }
        if !self.client_id.is_empty() {
            context.shard.leave(&self.client_id, context.connection, waiting);
        }
    }
}
