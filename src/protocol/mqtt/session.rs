//! The state machine of one MQTT connection: which packets are legal when, and what each does.
//!
//! A connection is *fresh* until CONNECT, *joining* until its client identifier belongs to it (another connection may
//! have to go first [MQTT-3.1.4-3]) and what is stored of its session has been taken up (`resume.rs`), then *connected*.
//! What it publishes is in `publish.rs` and `inbound.rs`, what it subscribes to in `subscribe.rs`; what it is sent, the
//! engine keeps (`shards::client`).

use super::inbound::{Owed, Tag};
use super::packet::{
    self, Ack, AckKind, ConnAck, Connect, Packet, PacketError, Version, reason, return_code, write_ack, write_connack,
    write_disconnect, write_pingresp,
};
use super::resume::{Joining, Saves};
use super::subscribe::{Own, Replying};
use crate::protocol::format::Format;
use crate::protocol::{Context, Credentials, Flow, Session, explain};
use litemap::LiteMap;
use shards::client::Phase;
use shards::command::{Completion, Outcome, Refusal};
use shards::counters::Counter;
use shards::limits::{CONNECT_BYTES_MAX, INFLIGHT_MAX, KEY_BYTES_MAX};
use shards::session::Will;
use shards::subscription::SubscriptionRef;
use std::collections::{BTreeMap, VecDeque};
use tracing::{debug, info};

/// How long a connection may take to its CONNECT.
const CONNECT_DEADLINE_US: u64 = 5_000_000;
/// How long a packet may take from its first byte to its last: this, and a second more for each of so many bytes. A
/// client without keep-alive must not hold half a packet for ever.
const PACKET_US: u64 = 20_000_000;
const PACKET_BYTES_PER_S: u64 = 4 << 10;
/// Longest keep-alive that is granted to version 5, in seconds: the client does not choose the server's timeouts.
const KEEP_ALIVE_MAX: u16 = 300;
/// A connection may be this much longer silent than its keep-alive says [MQTT-3.1.2-22].
const KEEP_ALIVE_FACTOR: f64 = 1.5;
/// Publishes of one connection that may wait for their acknowledgement: told to version 5 as receive maximum.
pub(super) const RECEIVE_MAXIMUM: u16 = INFLIGHT_MAX as u16;
/// Characters of a reason string that is sent.
const REASON_BYTES_MAX: usize = 256;
/// What else is in a packet with a reason string, at most.
const REASON_PACKET_BYTES: usize = 16;
/// A session expiry interval that stands for never (§3.1.2.11.2).
const NEVER: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Fresh,
    Joining,
    Connected,
    /// A goodbye has been written; input is ignored.
    Closing,
}

pub struct MqttSession {
    pub(super) version: Version,
    pub(super) state: State,
    /// What payloads are where no property says so: from the upgrade request, over WebSocket.
    pub(super) incoming: Option<Format>,
    pub(super) outgoing: Format,
    pub(super) client_id: Box<str>,
    /// Names the session in the log.
    pub(super) number: u64,
    /// How long the session outlives its connection, in seconds; `None`: for ever.
    pub(super) expiry_s: Option<u32>,
    pub(super) will: Option<Box<Will>>,
    keep_alive_us: u64,
    last_packet_us: u64,
    /// A packet has begun to arrive: when, and when it must be complete.
    packet_begun_us: Option<u64>,
    packet_due_us: u64,
    pub(super) joining: Option<Box<Joining>>,
    /// Subscriptions of a session that was taken up and goes on when it has been saved.
    pub(super) resuming: Option<Box<[SubscriptionRef]>>,
    pub(super) saves: Saves,
    pub(super) subscriptions: LiteMap<Box<str>, Own>,
    /// One of them leaves out what the session itself publishes.
    pub(super) has_no_local: bool,
    pub(super) replying: Option<Box<Replying>>,
    /// What its topic aliases stand for, by number less one.
    pub(super) aliases: Vec<Box<str>>,
    pub(super) owed: VecDeque<Owed>,
    /// The tag of the write that the first of `owed` waits for.
    pub(super) first_tag: u64,
    /// Packet identifiers of QoS 2 messages that were taken and are not released, and the shards that took them.
    pub(super) received: BTreeMap<u16, u16>,
    /// Messages at QoS 1 and 2 whose exchange is not complete.
    pub(super) unfinished: usize,
    pub(super) wants_problem_information: bool,
    /// The server is about to stop: nothing more is read, what is owed is still acknowledged.
    stopping: bool,
    /// CONNECT asked for a session that outlives the connection.
    asked_expiry: bool,
    /// The largest packet that the client takes.
    packet_bytes_max: usize,
    ended: bool,
}

/// Why a connection is ended by the server.
pub(super) struct Goodbye {
    pub code: u8,
    pub text: String,
}

impl From<PacketError> for Goodbye {
    fn from(error: PacketError) -> Goodbye {
        Goodbye { code: error.reason(), text: error.to_string() }
    }
}

impl Goodbye {
    pub fn new(code: u8, text: impl Into<String>) -> Goodbye {
        Goodbye { code, text: text.into() }
    }
}

impl MqttSession {
    /// A connection that was opened at `ticks_us`. `incoming` and `outgoing` as in
    /// [`crate::protocol::Upgrade::MqttOverWebSocket`].
    pub fn new(ticks_us: u64, incoming: Option<Format>, outgoing: Format) -> MqttSession {
        MqttSession {
            version: Version::V4,
            state: State::Fresh,
            incoming,
            outgoing,
            client_id: "".into(),
            number: 0,
            expiry_s: Some(0),
            will: None,
            keep_alive_us: 0,
            last_packet_us: ticks_us,
            packet_begun_us: None,
            packet_due_us: u64::MAX,
            joining: None,
            resuming: None,
            saves: Saves::default(),
            subscriptions: LiteMap::new(),
            has_no_local: false,
            replying: None,
            aliases: Vec::new(),
            owed: VecDeque::new(),
            first_tag: 0,
            received: BTreeMap::new(),
            unfinished: 0,
            wants_problem_information: true,
            stopping: false,
            asked_expiry: false,
            packet_bytes_max: usize::MAX,
            ended: false,
        }
    }

    pub(super) fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    /// Whether the session outlives its connection.
    pub(super) fn is_durable(&self) -> bool {
        self.expiry_s != Some(0)
    }

    /// Whether there is a record of the session.
    pub(super) fn is_kept(&self) -> bool {
        self.is_durable() || self.saves.is_stored
    }

    fn packet(&mut self, context: &mut Context<'_>, packet: Packet<'_>) -> Result<Flow, Goodbye> {
        match (self.state, packet) {
            (State::Fresh, Packet::Connect(connect)) => return self.connect(context, &connect),
            (State::Fresh, _) => {
                return Err(Goodbye::new(reason::PROTOCOL_ERROR, "the first packet is not CONNECT")); // [MQTT-3.1.0-1]
            }
            (_, Packet::Connect(_)) => {
                return Err(Goodbye::new(reason::PROTOCOL_ERROR, "a second CONNECT")); // [MQTT-3.1.0-2]
            }
            (_, Packet::Publish(publish)) => return self.publish(context, &publish),
            (_, Packet::PubRel(ack)) => return self.release(context, &ack),
            (_, Packet::PubAck(ack)) => self.finished(context, &ack, Phase::AtLeastOnce),
            (_, Packet::PubRec(ack)) => self.recorded(context, &ack),
            (_, Packet::PubComp(ack)) => self.finished(context, &ack, Phase::Released),
            (_, Packet::Subscribe { packet_id, properties, filters }) => {
                return Ok(self.subscribe(context, packet_id, &properties, &filters));
            }
            (_, Packet::Unsubscribe { packet_id, filters, .. }) => {
                return Ok(self.unsubscribe(context, packet_id, &filters));
            }
            (_, Packet::PingReq) => context.write_packet(write_pingresp), // [MQTT-3.12.4-1]
            (_, Packet::Disconnect { reason: code, properties }) => {
                if let Some(seconds) = properties.session_expiry_interval() {
                    if !self.asked_expiry && seconds > 0 {
                        // It was 0 in CONNECT [MQTT-3.14.2-2].
                        return Err(Goodbye::new(reason::PROTOCOL_ERROR, "session expiry was 0 and cannot be raised"));
                    }
                    self.expiry_s = Some(seconds).filter(|seconds| *seconds != NEVER);
                }
                if code == reason::SUCCESS {
                    self.will = None; // no other reason takes it back [MQTT-3.14.4-3]
                }
                self.state = State::Closing;
                return Ok(Flow::Close);
            }
            (_, Packet::Auth { .. }) => {
                return Err(Goodbye::new(reason::PROTOCOL_ERROR, "no authentication method was agreed upon"));
            }
        }
        Ok(Flow::Continue)
    }

    fn connect(&mut self, context: &mut Context<'_>, connect: &Connect<'_>) -> Result<Flow, Goodbye> {
        context.count(Counter::Connects, 1);
        self.version = connect.version;
        let (is_v5, properties) = (self.is_v5(), &connect.properties);
        self.packet_bytes_max = properties.maximum_packet_size().map_or(usize::MAX, |bytes| bytes as usize);
        self.wants_problem_information = properties.request_problem_information().unwrap_or(true);
        if properties.authentication_method().is_some() {
            return Err(Goodbye::new(reason::BAD_AUTHENTICATION_METHOD, "no authentication method is supported"));
        }
        let credentials = (connect.username.is_some() || connect.password.is_some()).then(|| Credentials {
            username: connect.username.unwrap_or_default(),
            password: connect.password.unwrap_or_default(),
        });
        if !context.catalog.authority.admits(context.address, context.identity, credentials) {
            return Ok(self.refuse(context, reason::BAD_CREDENTIALS, return_code::BAD_CREDENTIALS, "bad credentials"));
        }
        if !is_v5 && !connect.clean && connect.client_id.is_empty() {
            let text = "no client identifier"; // 3.1.1 [MQTT-3.1.3-8]
            return Ok(self.refuse(context, 0, return_code::IDENTIFIER_REJECTED, text));
        }
        if connect.client_id.contains(['+', '#']) || connect.client_id.len() > KEY_BYTES_MAX {
            let (code, old) = (reason::CLIENT_IDENTIFIER_NOT_VALID, return_code::IDENTIFIER_REJECTED);
            return Ok(self.refuse(context, code, old, "a client identifier with a wildcard, or longer than a key"));
        }
        self.client_id = match connect.client_id {
            "" => uuid::Uuid::new_v4().simple().to_string().into(),
            id => id.into(),
        };
        let mut keep_alive = connect.keep_alive;
        let mut server_keep_alive = None;
        if is_v5 && (keep_alive == 0 || keep_alive > KEEP_ALIVE_MAX) {
            keep_alive = KEEP_ALIVE_MAX; // [MQTT-3.1.2-21]
            server_keep_alive = Some(keep_alive);
        }
        self.keep_alive_us = (f64::from(keep_alive) * KEEP_ALIVE_FACTOR * 1e6) as u64;
        self.expiry_s = match (is_v5, connect.clean) {
            (true, _) => Some(properties.session_expiry_interval().unwrap_or(0)).filter(|seconds| *seconds != NEVER),
            (false, true) => Some(0),
            (false, false) => None,
        };
        self.asked_expiry = self.is_durable();
        if self.packet_bytes_max != usize::MAX {
            let bytes = self.packet_bytes_max.saturating_add(context.framing.head_bytes(self.packet_bytes_max));
            context.shard.outboxes.set_frame_bytes_max(context.connection, bytes);
        }
        if let Some(will) = &connect.will {
            match self.will_of(context, will) {
                Ok(will) => self.will = Some(Box::new(will)),
                Err(goodbye) => {
                    return Ok(self.refuse(context, goodbye.code, return_code::SERVER_UNAVAILABLE, &goodbye.text));
                }
            }
        }
        self.joining = Some(Box::new(Joining {
            is_assigned: connect.client_id.is_empty(),
            server_keep_alive,
            window: properties.receive_maximum().unwrap_or(u16::MAX),
            alias_maximum: properties.topic_alias_maximum().unwrap_or(0),
            stored: None,
            waiting: Vec::new(),
            subscribed: Vec::new(),
        }));
        self.state = State::Joining;
        context.shard.join(&self.client_id, context.connection, connect.clean);
        Ok(Flow::Blocked)
    }

    /// As much of a text as goes into a reason string; none where the packet would be too large for the client
    /// [MQTT-3.2.2-19, MQTT-3.4.2-2, MQTT-3.14.2-3].
    pub(super) fn reason_text<'t>(&self, text: &'t str) -> Option<&'t str> {
        let cut = &text[..text.floor_char_boundary(REASON_BYTES_MAX)];
        (cut.len() + REASON_PACKET_BYTES <= self.packet_bytes_max).then_some(cut)
    }

    /// A CONNACK that says no, and the end [MQTT-3.2.2-7].
    pub(super) fn refuse(&mut self, context: &mut Context<'_>, reason: u8, code: u8, text: &str) -> Flow {
        info!(client = %context.address, "MQTT connection refused: {text}");
        let version = self.version;
        let code = if version == Version::V5 { reason } else { code };
        let connack = ConnAck { code, reason_string: self.reason_text(text), ..ConnAck::default() };
        context.write_packet(|out| write_connack(version, &connack, out));
        self.will = None;
        self.state = State::Closing;
        Flow::Close
    }

    /// PUBACK or PUBCOMP: a message that was sent is through.
    fn finished(&mut self, context: &mut Context<'_>, ack: &Ack<'_>, phase: Phase) {
        if !context.shard.acknowledge(context.connection, ack.packet_id, phase) {
            debug!(client = %self.client_id, "packet {} was acknowledged and not sent", ack.packet_id);
        }
    }

    /// PUBREC: the client has the message; from now on it is only to forget its identifier [MQTT-4.3.3-4].
    fn recorded(&mut self, context: &mut Context<'_>, ack: &Ack<'_>) {
        if ack.reason >= reason::UNSPECIFIED {
            return self.finished(context, ack, Phase::ExactlyOnce); // it will not have it: that is the end of it
        }
        let packet_id = ack.packet_id;
        let is_known =
            context.shard.outboxes.client(context.connection).is_some_and(|client| client.release(packet_id));
        let code = if is_known { reason::SUCCESS } else { reason::PACKET_IDENTIFIER_NOT_FOUND };
        self.write_release(context, packet_id, code);
    }

    /// PUBREL: where the session is kept, not before that is on disk.
    fn write_release(&mut self, context: &mut Context<'_>, packet_id: u16, code: u8) {
        let version = self.version;
        let write = |out: &mut Vec<u8>| write_ack(AckKind::PubRel, version, packet_id, code, None, out);
        if code == reason::SUCCESS && self.is_kept() { context.hold(write) } else { context.write_packet(write) }
    }

    /// Ends the connection for cause, and says why where the version has words for it.
    pub(super) fn say_goodbye(&mut self, context: &mut Context<'_>, goodbye: &Goodbye) -> Flow {
        info!(client = %self.client_id, address = %context.address, "MQTT connection closed: {}", goodbye.text);
        let is_v5 = self.is_v5();
        match self.state {
            State::Closing => {}
            State::Fresh if goodbye.code == reason::UNSUPPORTED_PROTOCOL_VERSION => {
                // A client of another version reads at least the first bytes [MQTT-3.1.2-2].
                let code = return_code::UNACCEPTABLE_PROTOCOL_VERSION;
                context.write_packet(|out| write_connack(Version::V4, &ConnAck { code, ..ConnAck::default() }, out));
            }
            State::Fresh | State::Joining if is_v5 => {
                // These two are no codes of CONNACK (§3.2.2.2): the server is unavailable to this connection.
                let code = match goodbye.code {
                    reason::SERVER_SHUTTING_DOWN | reason::SESSION_TAKEN_OVER => reason::SERVER_UNAVAILABLE,
                    code => code,
                };
                let reason_string = self.reason_text(&goodbye.text);
                let connack = ConnAck { code, reason_string, ..ConnAck::default() };
                context.write_packet(|out| write_connack(Version::V5, &connack, out));
            }
            State::Connected if is_v5 => {
                let text = self.reason_text(&goodbye.text).filter(|_| self.wants_problem_information);
                context.write_packet(|out| write_disconnect(goodbye.code, text, out));
            }
            _ => {}
        }
        if self.state != State::Connected {
            self.will = None; // there was no connection that it could be for
        }
        self.state = State::Closing;
        Flow::Close
    }

    fn or_goodbye(&mut self, context: &mut Context<'_>, result: Result<Flow, Goodbye>) -> Flow {
        result.unwrap_or_else(|goodbye| self.say_goodbye(context, &goodbye))
    }

    fn outcome(&mut self, context: &mut Context<'_>, tag: Tag, outcome: &Outcome) -> Flow {
        let problem = match outcome {
            Outcome::Refused(refusal) => Some(goodbye_for(refusal)),
            _ => None,
        };
        match tag {
            Tag::Save => self.saved(context, problem),
            Tag::Owed(tag) => {
                let existed = matches!(outcome, Outcome::Written { existed: true, .. });
                let result = self.settle(context, tag, problem, existed);
                self.or_goodbye(context, result)
            }
        }
    }
}

impl Session for MqttSession {
    fn receive(&mut self, context: &mut Context<'_>, input: &[u8]) -> (usize, Flow) {
        if self.state == State::Closing {
            return (input.len(), Flow::Continue);
        }
        let is_busy = self.replying.is_some() || self.resuming.is_some();
        let waits = self.state == State::Joining || is_busy || self.stopping;
        if waits || !context.shard.has_room() {
            return (0, Flow::Blocked);
        }
        let packet_bytes_max = context.shard.limits().packet_bytes_max;
        let is_fresh = self.state == State::Fresh;
        let bytes_max = if is_fresh { packet_bytes_max.min(CONNECT_BYTES_MAX) } else { packet_bytes_max };
        // Until CONNECT has been read its bytes decide the version; nothing but CONNECT is looked into.
        if is_fresh && input.first().is_some_and(|first| first >> 4 != 1) {
            let goodbye = Goodbye::new(reason::PROTOCOL_ERROR, "the first packet is not CONNECT");
            return (input.len(), self.say_goodbye(context, &goodbye));
        }
        match packet::decode(input, self.version, bytes_max) {
            Ok(None) if input.is_empty() => (0, Flow::Continue),
            Ok(None) => {
                let length = packet::packet_length(input, bytes_max).ok().flatten().unwrap_or(0) as u64;
                let begun_us = *self.packet_begun_us.get_or_insert(context.ticks_us());
                self.packet_due_us = begun_us + PACKET_US + length * 1_000_000 / PACKET_BYTES_PER_S;
                (0, Flow::Continue)
            }
            Ok(Some((packet, length))) => {
                (self.packet_begun_us, self.packet_due_us) = (None, u64::MAX);
                self.last_packet_us = context.ticks_us();
                context.count(Counter::PacketsReceived, 1);
                context.count(Counter::BytesReceived, length as u64);
                let result = self.packet(context, packet);
                (length, self.or_goodbye(context, result))
            }
            Err(error) => {
                if is_fresh && input.get(8) == Some(&5) {
                    self.version = Version::V5; // the answer to a malformed CONNECT of version 5
                }
                (input.len(), self.say_goodbye(context, &error.into()))
            }
        }
    }

    fn complete(&mut self, context: &mut Context<'_>, completion: Completion) -> Flow {
        if self.state == State::Closing {
            return Flow::Continue;
        }
        match completion {
            Completion::Joined { stored, has_room, .. } => self.joined(context, stored.as_deref(), has_room),
            Completion::Checked { is_complete, .. } => self.checked(context, is_complete),
            Completion::Subscribed { subscription, .. } if self.state == State::Joining => {
                self.resubscribed(context, subscription)
            }
            Completion::Subscribed { subscription, .. } => self.confirmed(context, subscription),
            Completion::Outcome { token, outcome } => self.outcome(context, Tag::of(token.tag), &outcome),
            Completion::Release { packet_id, .. } => {
                self.write_release(context, packet_id, reason::SUCCESS);
                Flow::Continue
            }
            Completion::Unsaved { .. } => {
                self.save(context);
                Flow::Continue
            }
            Completion::Evicted { .. } => {
                let goodbye = Goodbye::new(reason::SESSION_TAKEN_OVER, "another connection took over the session");
                self.say_goodbye(context, &goodbye)
            }
            Completion::Lost { .. } => {
                self.expiry_s = Some(0); // it cannot go on, and says so the next time
                let goodbye = Goodbye::new(reason::QUOTA_EXCEEDED, "too slow: what is missing is no longer kept");
                self.say_goodbye(context, &goodbye)
            }
            Completion::Overflowed { .. } => {
                let goodbye = Goodbye::new(reason::QUOTA_EXCEEDED, "too slow: the outbox is full");
                self.say_goodbye(context, &goodbye)
            }
            Completion::ScanReady { .. } => Flow::Continue,
        }
    }

    fn deadline(&self) -> Option<u64> {
        let quiet = match self.state {
            State::Fresh => Some(self.last_packet_us + CONNECT_DEADLINE_US),
            _ if self.keep_alive_us == 0 => None,
            _ => Some(self.last_packet_us + self.keep_alive_us),
        };
        let save = (self.state == State::Connected && self.is_durable()).then_some(self.saves.next_us);
        [quiet, save, Some(self.packet_due_us)].into_iter().flatten().min()
    }

    fn expire(&mut self, context: &mut Context<'_>) -> Flow {
        self.save_if_due(context);
        let now_us = context.ticks_us();
        let is_fresh = self.state == State::Fresh;
        let quiet_us = if is_fresh { CONNECT_DEADLINE_US } else { self.keep_alive_us };
        let is_quiet = quiet_us != 0 && now_us >= self.last_packet_us + quiet_us;
        if !is_quiet && now_us < self.packet_due_us {
            return Flow::Continue;
        }
        let is_blocked =
            self.replying.is_some() || self.resuming.is_some() || !self.owed.is_empty() || !context.shard.has_room();
        if self.state == State::Joining || (is_blocked && !is_fresh) {
            self.last_packet_us = now_us; // the delay is ours
            self.packet_due_us = self.packet_begun_us.map_or(u64::MAX, |_| now_us + PACKET_US);
            return Flow::Continue;
        }
        let text = match is_quiet {
            true if is_fresh => "no CONNECT in time",
            true => "keep-alive timeout",
            false => "a packet did not arrive in time",
        };
        self.say_goodbye(context, &Goodbye::new(reason::KEEP_ALIVE_TIMEOUT, text))
    }

    fn stop(&mut self, context: &mut Context<'_>) -> Flow {
        if !self.owed.is_empty() {
            self.stopping = true; // acknowledgements first; a busy publisher must not put the end off
            return Flow::Continue;
        }
        self.say_goodbye(context, &Goodbye::new(reason::SERVER_SHUTTING_DOWN, "the server is shutting down"))
    }

    fn end(&mut self, context: &mut Context<'_>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.put_away(context);
        }
    }
}

pub(super) fn goodbye_for(refusal: &Refusal) -> Goodbye {
    let code = match refusal {
        Refusal::Invalid(_) => reason::PAYLOAD_FORMAT_INVALID,
        Refusal::DiskFull => reason::QUOTA_EXCEEDED,
        Refusal::TooLarge => reason::PACKET_TOO_LARGE,
        Refusal::Exists | Refusal::Precondition | Refusal::Fenced | Refusal::Damaged | Refusal::Forgotten => {
            reason::UNSPECIFIED
        }
    };
    Goodbye::new(code, explain(refusal))
}
