//! The state machine of one MQTT connection: which packets are legal when, and what each does.
//!
//! A connection is *fresh* until CONNECT, *joining* until its client identifier belongs to it (another connection may
//! have to go first [MQTT-3.1.4-3]), then *connected*. Sessions end with their connection: what would outlive it
//! (persistent sessions), QoS 2 and shared subscriptions are refused in CONNACK and SUBACK.

use super::packet::{
    self, Ack, ConnAck, Connect, Filter, Packet, PacketError, Publish, Version, reason, return_code, write_connack,
    write_disconnect, write_pingresp, write_puback, write_suback, write_unsuback,
};
use crate::protocol::format::Format;
use crate::protocol::frames::{Encoding, Protocol};
use crate::protocol::framing::Framing;
use crate::protocol::{Context, Credentials, Flow, Session, explain};
use shards::command::{Completion, Outcome, Refusal, Write};
use shards::limits::{CONNECT_BYTES_MAX, INFLIGHT_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX};
use shards::subscription::{Request, SubscriptionRef};
use shards::topic::{self, TopicError};
use std::collections::{HashMap, VecDeque};
use tracing::{debug, info};

/// How long a connection may take to its CONNECT.
const CONNECT_DEADLINE_US: u64 = 5_000_000;
/// Longest keep-alive that is granted to version 5, in seconds: the client does not choose the server's timeouts.
const KEEP_ALIVE_MAX: u16 = 300;
/// A connection may be this much longer silent than its keep-alive says [MQTT-3.1.2-22].
const KEEP_ALIVE_FACTOR: f64 = 1.5;
/// Publishes of one connection that may wait for their acknowledgement: told to version 5 as receive maximum.
const RECEIVE_MAXIMUM: u16 = INFLIGHT_MAX as u16;
/// Characters of a reason string that is sent.
const REASON_BYTES_MAX: usize = 256;
/// What else is in a packet with a reason string, at most.
const REASON_PACKET_BYTES: usize = 16;

enum State {
    Fresh,
    Joining,
    Connected,
    /// A goodbye has been written; input is ignored.
    Closing,
}

/// An acknowledgement owed to the client; they go out in the order of the publishes [MQTT-4.6.0-2].
struct Owed {
    packet_id: u16,
    /// Reason code and string, once the outcome is known.
    outcome: Option<(u8, Option<String>)>,
}

/// A SUBSCRIBE whose SUBACK waits until every shard concerned knows of its subscriptions.
struct Subscribing {
    packet_id: u16,
    codes: Vec<u8>,
    waiting: Vec<SubscriptionRef>,
    granted: Vec<SubscriptionRef>,
}

pub struct MqttSession {
    pub(super) version: Version,
    state: State,
    /// What payloads are where no property says so: from the upgrade request, over WebSocket.
    pub(super) incoming: Option<Format>,
    outgoing: Format,
    client_id: Box<str>,
    will: Option<Write>,
    keep_alive_us: u64,
    last_packet_us: u64,
    subscriptions: HashMap<Box<str>, SubscriptionRef>,
    subscribing: Option<Box<Subscribing>>,
    owed: VecDeque<Owed>,
    /// The tag of the write that the first of `owed` waits for.
    first_tag: u64,
    /// The CONNACK that is sent when the client identifier is ours.
    connack: Option<Box<ConnAckParts>>,
    wants_problem_information: bool,
    /// The server is about to stop: nothing more is read, what is owed is still acknowledged.
    stopping: bool,
    /// CONNECT asked for a session that outlives the connection.
    asked_expiry: bool,
    /// The largest packet that the client takes.
    packet_bytes_max: usize,
    ended: bool,
}

#[derive(Clone, Default)]
struct ConnAckParts {
    assigned: bool,
    server_keep_alive: Option<u16>,
    no_session_expiry: bool,
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
            will: None,
            keep_alive_us: 0,
            last_packet_us: ticks_us,
            subscriptions: HashMap::new(),
            subscribing: None,
            owed: VecDeque::new(),
            first_tag: 0,
            connack: None,
            wants_problem_information: true,
            stopping: false,
            asked_expiry: false,
            packet_bytes_max: usize::MAX,
            ended: false,
        }
    }

    fn packet(&mut self, context: &mut Context<'_>, packet: Packet<'_>) -> Result<Flow, Goodbye> {
        match (&self.state, packet) {
            (State::Fresh, Packet::Connect(connect)) => return self.connect(context, &connect),
            (State::Fresh, _) => {
                return Err(Goodbye::new(reason::PROTOCOL_ERROR, "the first packet is not CONNECT")); // [MQTT-3.1.0-1]
            }
            (_, Packet::Connect(_)) => {
                return Err(Goodbye::new(reason::PROTOCOL_ERROR, "a second CONNECT")); // [MQTT-3.1.0-2]
            }
            (_, Packet::Publish(publish)) => return self.publish(context, &publish),
            (_, Packet::PubAck(ack)) => self.acknowledged(context, &ack),
            (_, Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_)) => {
                return Err(Goodbye::new(reason::PROTOCOL_ERROR, "a packet of a QoS 2 exchange that does not exist"));
            }
            (_, Packet::Subscribe { packet_id, properties, filters }) => {
                if properties.subscription_identifier.is_some() {
                    let text = "subscription identifiers are not supported"; // as CONNACK has said (§3.2.2.3.12)
                    return Err(Goodbye::new(reason::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED, text));
                }
                let format = properties.user("format").map(Format::of_name);
                return Ok(self.subscribe(context, packet_id, format, &filters));
            }
            (_, Packet::Unsubscribe { packet_id, filters, .. }) => self.unsubscribe(context, packet_id, &filters),
            (_, Packet::PingReq) => context.write(write_pingresp), // [MQTT-3.12.4-1]
            (_, Packet::Disconnect { reason: code, properties }) => {
                if !self.asked_expiry && properties.session_expiry_interval.is_some_and(|seconds| seconds > 0) {
                    // It was 0 in CONNECT [MQTT-3.14.2-2].
                    return Err(Goodbye::new(reason::PROTOCOL_ERROR, "session expiry was 0 and cannot be raised"));
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
        self.version = connect.version;
        let is_v5 = connect.version == Version::V5;
        self.packet_bytes_max = connect.properties.maximum_packet_size.map_or(usize::MAX, |bytes| bytes as usize);
        if connect.properties.authentication_method.is_some() {
            return Err(Goodbye::new(reason::BAD_AUTHENTICATION_METHOD, "no authentication method is supported"));
        }
        let credentials = (connect.username.is_some() || connect.password.is_some()).then(|| Credentials {
            username: connect.username.unwrap_or_default(),
            password: connect.password.unwrap_or_default(),
        });
        if !context.catalog.authority.admits(context.address, context.identity, credentials) {
            return Ok(self.refuse(context, reason::BAD_CREDENTIALS, return_code::BAD_CREDENTIALS, "bad credentials"));
        }
        if !is_v5 && !connect.clean {
            // A session that would be lost with the connection must not look like one that is kept.
            if connect.client_id.is_empty() {
                let text = "no client identifier"; // 3.1.1 [MQTT-3.1.3-8]
                return Ok(self.refuse(context, 0, return_code::IDENTIFIER_REJECTED, text));
            }
            let text = "persistent sessions (clean session 0) are not available";
            return Ok(self.refuse(context, 0, return_code::SERVER_UNAVAILABLE, text));
        }
        if connect.client_id.contains(['+', '#']) {
            let text = "a client identifier with a wildcard";
            return Ok(self.refuse(context, 0x85, return_code::IDENTIFIER_REJECTED, text));
        }
        let mut parts = ConnAckParts { assigned: connect.client_id.is_empty(), ..ConnAckParts::default() };
        self.client_id = match connect.client_id {
            "" => uuid::Uuid::new_v4().simple().to_string().into(),
            id => id.into(),
        };
        let mut keep_alive = connect.keep_alive;
        if is_v5 && (keep_alive == 0 || keep_alive > KEEP_ALIVE_MAX) {
            keep_alive = KEEP_ALIVE_MAX; // [MQTT-3.1.2-21]
            parts.server_keep_alive = Some(keep_alive);
        }
        self.keep_alive_us = (f64::from(keep_alive) * KEEP_ALIVE_FACTOR * 1e6) as u64;
        self.asked_expiry = connect.properties.session_expiry_interval.is_some_and(|seconds| seconds > 0);
        parts.no_session_expiry = self.asked_expiry;
        self.wants_problem_information = connect.properties.request_problem_information.unwrap_or(true);
        let window = connect.properties.receive_maximum.unwrap_or(u16::MAX).min(INFLIGHT_MAX as u16);
        context.shard.outboxes.set_window(context.connection, window);
        if self.packet_bytes_max != usize::MAX {
            let head = if context.framing == Framing::WebSocket { 10 } else { 0 };
            let bytes = self.packet_bytes_max.saturating_add(head);
            context.shard.outboxes.set_frame_bytes_max(context.connection, bytes);
        }
        if let Some(will) = &connect.will {
            if will.qos == 2 {
                let text = "QoS 2 is not supported"; // [MQTT-3.2.2-12]
                return Ok(self.refuse(context, reason::QOS_NOT_SUPPORTED, return_code::SERVER_UNAVAILABLE, text));
            }
            match self.will_write(context, will) {
                Ok(write) => self.will = Some(write),
                Err(goodbye) => {
                    return Ok(self.refuse(context, goodbye.code, return_code::SERVER_UNAVAILABLE, &goodbye.text));
                }
            }
        }
        self.state = State::Joining;
        self.connack = Some(Box::new(parts));
        context.shard.join(&self.client_id, context.connection);
        Ok(Flow::Blocked)
    }

    /// As much of a text as goes into a reason string; none where the packet would be too large for the client
    /// [MQTT-3.2.2-19, MQTT-3.4.2-2, MQTT-3.14.2-3].
    fn reason_text<'t>(&self, text: &'t str) -> Option<&'t str> {
        let cut = &text[..text.floor_char_boundary(REASON_BYTES_MAX)];
        (cut.len() + REASON_PACKET_BYTES <= self.packet_bytes_max).then_some(cut)
    }

    /// A CONNACK that says no, and the end [MQTT-3.2.2-7].
    fn refuse(&mut self, context: &mut Context<'_>, reason: u8, code: u8, text: &str) -> Flow {
        info!(client = %context.address, "MQTT connection refused: {text}");
        let version = self.version;
        let code = if version == Version::V5 { reason } else { code };
        let connack = ConnAck { code, reason_string: self.reason_text(text), ..ConnAck::default() };
        context.write(|out| write_connack(version, &connack, out));
        self.will = None;
        self.state = State::Closing;
        Flow::Close
    }

    fn joined(&mut self, context: &mut Context<'_>) -> Flow {
        let Some(parts) = self.connack.take() else { return Flow::Continue };
        let accepted = ConnAck {
            code: reason::SUCCESS,
            assigned_client_id: parts.assigned.then_some(&self.client_id),
            server_keep_alive: parts.server_keep_alive,
            receive_maximum: Some(RECEIVE_MAXIMUM),
            maximum_packet_size: Some(context.shard.limits().packet_bytes_max as u32),
            no_session_expiry: parts.no_session_expiry,
            ..ConnAck::default()
        };
        let version = self.version;
        context.write(|out| write_connack(version, &accepted, out));
        self.state = State::Connected;
        Flow::Continue
    }

    fn publish(&mut self, context: &mut Context<'_>, publish: &Publish<'_>) -> Result<Flow, Goodbye> {
        if publish.qos == 2 {
            return Err(Goodbye::new(reason::QOS_NOT_SUPPORTED, "QoS 2 is not supported")); // [MQTT-3.2.2-11]
        }
        if publish.properties.topic_alias.is_some() {
            return Err(Goodbye::new(reason::TOPIC_ALIAS_INVALID, "topic aliases are not supported")); // [MQTT-3.3.2-9]
        }
        if publish.qos == 1 && self.owed.len() >= usize::from(RECEIVE_MAXIMUM) && self.version == Version::V5 {
            return Err(Goodbye::new(reason::RECEIVE_MAXIMUM_EXCEEDED, "more publishes than the receive maximum"));
        }
        if publish.properties.response_topic.is_some_and(|topic| topic.contains(['+', '#'])) {
            let text = "the response topic has a wildcard"; // [MQTT-3.3.2-14]
            return Err(Goodbye::new(reason::PROTOCOL_ERROR, text));
        }
        let prepared = self.prepare(context, publish);
        if prepared.is_err() {
            // What is no topic name at all ends the connection, whatever the QoS; one without a table does not.
            match topic::check_name(publish.topic) {
                Err(error @ TopicError::Empty) => {
                    return Err(Goodbye::new(reason::PROTOCOL_ERROR, error.to_string())); // §3.3.2.1, without an alias
                }
                Err(error @ TopicError::Wildcard) => {
                    return Err(Goodbye::new(reason::TOPIC_NAME_INVALID, error.to_string())); // [MQTT-3.3.2-2]
                }
                _ => {}
            }
        }
        if publish.qos == 0 {
            match prepared {
                Ok(write) => context.shard.submit(write),
                Err(goodbye) => debug!(client = %self.client_id, topic = publish.topic, "dropped: {}", goodbye.text),
            }
            return Ok(Flow::Continue);
        }
        let tag = self.first_tag + self.owed.len() as u64;
        self.owed.push_back(Owed { packet_id: publish.packet_id, outcome: None });
        match prepared {
            Ok(mut write) => {
                write.token = Some(shards::command::Token { connection: context.connection, tag });
                context.shard.submit(write);
                Ok(if self.owed.len() >= usize::from(RECEIVE_MAXIMUM) && self.version == Version::V4 {
                    Flow::Blocked
                } else {
                    Flow::Continue
                })
            }
            Err(goodbye) => self.settle(context, tag, Some(goodbye)),
        }
    }

    /// An outcome is known: every acknowledgement whose turn it is goes out.
    fn settle(&mut self, context: &mut Context<'_>, tag: u64, problem: Option<Goodbye>) -> Result<Flow, Goodbye> {
        let outcome = match problem {
            None => (reason::SUCCESS, None),
            // An acknowledgement of 3.1.1 cannot say no: it must not be sent, the connection ends [MQTT-3.3.5-2].
            Some(problem) if self.version == Version::V4 => return Err(problem),
            Some(problem) => {
                let text = self.reason_text(&problem.text).filter(|_| self.wants_problem_information);
                (problem.code, text.map(str::to_owned))
            }
        };
        let Some(owed) = self.owed.get_mut((tag - self.first_tag) as usize) else { return Ok(Flow::Continue) };
        owed.outcome = Some(outcome);
        let version = self.version;
        while let Some(Owed { packet_id, outcome: Some((code, text)) }) = self.owed.front() {
            context.write(|out| write_puback(version, *packet_id, *code, text.as_deref(), out));
            self.owed.pop_front();
            self.first_tag += 1;
        }
        Ok(Flow::Continue)
    }

    fn acknowledged(&mut self, context: &mut Context<'_>, ack: &Ack<'_>) {
        if !context.shard.outboxes.acknowledge(context.connection, ack.packet_id) {
            debug!(client = %self.client_id, "PUBACK {} for nothing that was sent", ack.packet_id);
        }
    }

    fn subscribe(
        &mut self,
        context: &mut Context<'_>,
        packet_id: u16,
        format: Option<Option<Format>>,
        filters: &[Filter<'_>],
    ) -> Flow {
        let mut pending = Subscribing { packet_id, codes: Vec::new(), waiting: Vec::new(), granted: Vec::new() };
        let is_v5 = self.version == Version::V5;
        let mut codes = Vec::new();
        for filter in filters {
            let granted = match format {
                Some(None) => Err(reason::UNSPECIFIED),
                _ => self.subscribe_one(context, filter, format.flatten().unwrap_or(self.outgoing)),
            };
            codes.push(match granted {
                Ok(subscription) => {
                    pending.waiting.push(subscription);
                    filter.qos.min(1)
                }
                Err(code) => {
                    debug!(client = %self.client_id, filter = filter.filter, "SUBSCRIBE refused: {code:#x}");
                    if is_v5 { code } else { reason::UNSPECIFIED }
                }
            });
        }
        pending.codes = codes;
        // A filter that was given twice: the second subscription has replaced the first.
        pending.waiting.retain(|waiting| self.subscriptions.values().any(|own| own == waiting));
        self.subscribing = Some(Box::new(pending));
        self.finish_subscribing(context, None)
    }

    fn subscribe_one(
        &mut self,
        context: &mut Context<'_>,
        filter: &Filter<'_>,
        format: Format,
    ) -> Result<SubscriptionRef, u8> {
        let levels = topic::parse_filter(filter.filter).map_err(|_| reason::TOPIC_FILTER_INVALID)?;
        if filter.filter.starts_with("$share/") || filter.filter == "$share" {
            return Err(reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED);
        }
        if filter.filter.starts_with('$') {
            return Err(reason::TOPIC_FILTER_INVALID); // nothing is published below `$`
        }
        let targets = context.catalog.mqtt.compile(&levels);
        if targets.is_empty() {
            return Err(reason::TOPIC_FILTER_INVALID); // no such table (compat §3.4)
        }
        let existing = self.subscriptions.get(filter.filter).copied();
        if existing.is_none() && self.subscriptions.len() >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            return Err(reason::QUOTA_EXCEEDED);
        }
        let protocol = match (self.version, context.framing) {
            (Version::V4, Framing::None) => Protocol::MqttV4,
            (Version::V5, Framing::None) => Protocol::MqttV5,
            (Version::V4, Framing::WebSocket) => Protocol::MqttV4OverWebSocket,
            (Version::V5, Framing::WebSocket) => Protocol::MqttV5OverWebSocket,
        };
        let is_v5 = self.version == Version::V5;
        let snapshot = match filter.retain_handling {
            0 => true,
            1 => existing.is_none(),
            _ => false,
        };
        let subscription = context.shard.subscribe(Request {
            connection: context.connection,
            targets,
            encoding: Encoding { protocol, format }.code(),
            qos: filter.qos.min(1),
            no_local: is_v5 && filter.no_local,
            retain_as_published: is_v5 && filter.retain_as_published,
            snapshot,
        });
        self.subscriptions.insert(filter.filter.into(), subscription);
        if let Some(replaced) = existing {
            context.shard.unsubscribe(replaced); // the new one hears already [MQTT-3.8.4-3]
        }
        Ok(subscription)
    }

    /// Sends the SUBACK and lets the subscriptions begin, once all of them are known everywhere.
    fn finish_subscribing(&mut self, context: &mut Context<'_>, confirmed: Option<SubscriptionRef>) -> Flow {
        let Some(pending) = &mut self.subscribing else { return Flow::Continue };
        if let Some(confirmed) = confirmed {
            pending.waiting.retain(|waiting| *waiting != confirmed);
            pending.granted.push(confirmed);
        }
        if !pending.waiting.is_empty() {
            return Flow::Blocked;
        }
        let (version, packet_id) = (self.version, pending.packet_id);
        context.write(|out| write_suback(version, packet_id, &pending.codes, out));
        for subscription in std::mem::take(&mut pending.granted) {
            context.shard.start(subscription);
        }
        self.subscribing = None;
        Flow::Continue
    }

    fn unsubscribe(&mut self, context: &mut Context<'_>, packet_id: u16, filters: &[&str]) {
        let mut codes = Vec::new();
        for filter in filters {
            codes.push(match self.subscriptions.remove(*filter) {
                Some(subscription) => {
                    context.shard.unsubscribe(subscription);
                    reason::SUCCESS
                }
                None => reason::NO_SUBSCRIPTION_EXISTED,
            });
        }
        let version = self.version;
        context.write(|out| write_unsuback(version, packet_id, &codes, out));
    }

    /// Ends the connection for cause, and says why where the version has words for it.
    fn say_goodbye(&mut self, context: &mut Context<'_>, goodbye: &Goodbye) -> Flow {
        info!(client = %self.client_id, address = %context.address, "MQTT connection closed: {}", goodbye.text);
        let is_v5 = self.version == Version::V5;
        match self.state {
            State::Closing => {}
            State::Fresh if goodbye.code == reason::UNSUPPORTED_PROTOCOL_VERSION => {
                // A client of another version reads at least the first bytes [MQTT-3.1.2-2].
                let code = return_code::UNACCEPTABLE_PROTOCOL_VERSION;
                context.write(|out| write_connack(Version::V4, &ConnAck { code, ..ConnAck::default() }, out));
            }
            State::Fresh | State::Joining if is_v5 => {
                // These two are no codes of CONNACK (§3.2.2.2): the server is unavailable to this connection.
                let code = match goodbye.code {
                    reason::SERVER_SHUTTING_DOWN | reason::SESSION_TAKEN_OVER => reason::SERVER_UNAVAILABLE,
                    code => code,
                };
                let reason_string = self.reason_text(&goodbye.text);
                let connack = ConnAck { code, reason_string, ..ConnAck::default() };
                context.write(|out| write_connack(Version::V5, &connack, out));
            }
            State::Connected if is_v5 => {
                let text = self.reason_text(&goodbye.text).filter(|_| self.wants_problem_information);
                context.write(|out| write_disconnect(goodbye.code, text, out));
            }
            _ => {}
        }
        self.state = State::Closing;
        Flow::Close
    }
}

impl Session for MqttSession {
    fn receive(&mut self, context: &mut Context<'_>, input: &[u8]) -> (usize, Flow) {
        if matches!(self.state, State::Closing) {
            return (input.len(), Flow::Continue);
        }
        let waits = matches!(self.state, State::Joining) || self.subscribing.is_some() || self.stopping;
        if waits || !context.shard.has_room() {
            return (0, Flow::Blocked);
        }
        let packet_bytes_max = context.shard.limits().packet_bytes_max;
        let is_fresh = matches!(self.state, State::Fresh);
        let bytes_max = if is_fresh { packet_bytes_max.min(CONNECT_BYTES_MAX) } else { packet_bytes_max };
        // Until CONNECT has been read its bytes decide the version; nothing but CONNECT is looked into.
        if is_fresh && input.first().is_some_and(|first| first >> 4 != 1) {
            let goodbye = Goodbye::new(reason::PROTOCOL_ERROR, "the first packet is not CONNECT");
            return (input.len(), self.say_goodbye(context, &goodbye));
        }
        match packet::decode(input, self.version, bytes_max) {
            Ok(None) => (0, Flow::Continue),
            Ok(Some((packet, length))) => {
                self.last_packet_us = context.ticks_us();
                let flow = self.packet(context, packet);
                (length, flow.unwrap_or_else(|goodbye| self.say_goodbye(context, &goodbye)))
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
        match completion {
            Completion::Joined { .. } => self.joined(context),
            Completion::Subscribed { subscription, .. } => self.finish_subscribing(context, Some(subscription)),
            Completion::Outcome { token, outcome } => {
                let problem = match outcome {
                    Outcome::Refused(refusal) => Some(goodbye_for(&refusal)),
                    _ => None,
                };
                match self.settle(context, token.tag, problem) {
                    Ok(flow) => flow,
                    Err(goodbye) => self.say_goodbye(context, &goodbye),
                }
            }
            Completion::Evicted { .. } => {
                let goodbye = Goodbye::new(reason::SESSION_TAKEN_OVER, "another connection took over the session");
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
        match self.state {
            State::Fresh => Some(self.last_packet_us + CONNECT_DEADLINE_US),
            _ if self.keep_alive_us == 0 => None,
            _ => Some(self.last_packet_us + self.keep_alive_us),
        }
    }

    fn expire(&mut self, context: &mut Context<'_>) -> Flow {
        let is_fresh = matches!(self.state, State::Fresh);
        let is_blocked = self.subscribing.is_some() || !self.owed.is_empty() || !context.shard.has_room();
        if matches!(self.state, State::Joining) || (is_blocked && !is_fresh) {
            self.last_packet_us = context.ticks_us(); // the delay is ours
            return Flow::Continue;
        }
        let text = if is_fresh { "no CONNECT in time" } else { "keep-alive timeout" };
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
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        for (_, subscription) in self.subscriptions.drain() {
            context.shard.unsubscribe(subscription);
        }
        if !self.client_id.is_empty() {
            context.shard.leave(&self.client_id, context.connection);
        }
        if let Some(will) = self.will.take() {
            context.shard.submit(will); // [MQTT-3.1.2-8]
        }
    }
}

fn goodbye_for(refusal: &Refusal) -> Goodbye {
    let code = match refusal {
        Refusal::Invalid(_) => reason::PAYLOAD_FORMAT_INVALID,
        Refusal::DiskFull => reason::QUOTA_EXCEEDED,
        Refusal::TooLarge => reason::PACKET_TOO_LARGE,
        Refusal::Exists | Refusal::Fenced | Refusal::Damaged => reason::UNSPECIFIED,
    };
    Goodbye::new(code, explain(refusal))
}
