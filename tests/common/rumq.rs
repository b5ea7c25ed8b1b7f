//! rumqttc, MQTT 3.1.1 and 5, behind the same interface as the foreign programs: each connection is a thread.

use super::Endpoints;
use super::peers::{Body, Event, Message, Subscribe};
use super::publish::{Command, Op, Publish, Reply};
use rumqttc::{v5, valid_topic};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Larger than any test's message: rumqttc's own limit is 10 KiB.
const MAX_PACKET: u32 = 64 << 20;
const QUEUE: usize = 1024;

#[derive(Clone)]
enum Client {
    V4(rumqttc::Client),
    V5(v5::Client),
}

enum Connection {
    V4(Box<rumqttc::Connection>),
    V5(Box<v5::Connection>),
}

/// What the two versions' events have in common.
enum Seen {
    Connected,
    Subscribed(u8),
    /// QoS 0: on its way; otherwise acknowledged with this code.
    Published(u16),
    Sent,
    Message {
        topic: String,
        payload: Vec<u8>,
        qos: u8,
        retain: bool,
        content_type: Option<String>,
    },
    Disconnected,
    Other,
    Failed(String),
}

/// Ends a connection with a DISCONNECT.
pub struct Stop {
    client: Client,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stop {
    pub fn stop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = match &self.client {
                Client::V4(client) => client.try_disconnect().is_ok(),
                Client::V5(client) => client.try_disconnect().is_ok(),
            };
            // A thread that waits for a peer that is gone ends with the process.
            super::lines::poll(Duration::from_secs(2), || thread.is_finished().then_some(()));
        }
    }
}

fn qos(level: u8) -> rumqttc::QoS {
    rumqttc::qos(level).expect("QoS 0 to 2")
}

fn v5_qos(level: u8) -> v5::mqttbytes::QoS {
    v5::mqttbytes::qos(level).expect("QoS 0 to 2")
}

fn connect(
    five: bool,
    at: &Endpoints,
    client_id: &Option<String>,
    keep_session: bool,
    credentials: &Option<(String, String)>,
) -> (Client, Connection) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let unique = || format!("rumqttc-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let id = client_id.clone().unwrap_or_else(unique);
    let (host, port) = (at.mqtt.ip().to_string(), at.mqtt.port());
    if five {
        let mut options = v5::MqttOptions::new(id, host, port);
        options.set_keep_alive(Duration::from_secs(60)).set_clean_start(!keep_session);
        options.set_max_packet_size(Some(MAX_PACKET));
        if keep_session {
            options.set_session_expiry_interval(Some(3600));
        }
        if let Some((user, password)) = credentials {
            options.set_credentials(user, password);
        }
        let (client, connection) = v5::Client::new(options, QUEUE);
        (Client::V5(client), Connection::V5(Box::new(connection)))
    } else {
        let mut options = rumqttc::MqttOptions::new(id, host, port);
        options.set_keep_alive(Duration::from_secs(60)).set_clean_session(!keep_session);
        options.set_max_packet_size(MAX_PACKET as usize, MAX_PACKET as usize);
        if let Some((user, password)) = credentials {
            options.set_credentials(user, password);
        }
        let (client, connection) = rumqttc::Client::new(options, QUEUE);
        (Client::V4(client), Connection::V4(Box::new(connection)))
    }
}

impl Connection {
    /// Waits for the next event; the call after a failure connects again.
    fn next(&mut self) -> Seen {
        match self {
            Connection::V4(connection) => match connection.recv() {
                Ok(Ok(event)) => seen_v4(event),
                Ok(Err(e)) => Seen::Failed(e.to_string()),
                Err(_) => Seen::Disconnected,
            },
            Connection::V5(connection) => match connection.recv() {
                Ok(Ok(event)) => seen_v5(event),
                Ok(Err(e)) => Seen::Failed(e.to_string()),
                Err(_) => Seen::Disconnected,
            },
        }
    }
}

fn seen_v4(event: rumqttc::Event) -> Seen {
    use rumqttc::{Event, Outgoing, Packet, SubscribeReasonCode};
    match event {
        Event::Incoming(Packet::ConnAck(_)) => Seen::Connected,
        Event::Incoming(Packet::SubAck(ack)) => Seen::Subscribed(match ack.return_codes.first() {
            Some(SubscribeReasonCode::Success(qos)) => *qos as u8,
            _ => 0x80,
        }),
        Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => Seen::Published(0),
        Event::Incoming(Packet::Publish(p)) => Seen::Message {
            topic: p.topic,
            payload: p.payload.to_vec(),
            qos: p.qos as u8,
            retain: p.retain,
            content_type: None,
        },
        Event::Incoming(Packet::Disconnect) => Seen::Failed("the server sent DISCONNECT".into()),
        Event::Outgoing(Outgoing::Publish(_)) => Seen::Sent,
        Event::Outgoing(Outgoing::Disconnect) => Seen::Disconnected,
        _ => Seen::Other,
    }
}

fn seen_v5(event: v5::Event) -> Seen {
    use v5::Event;
    use v5::mqttbytes::v5::Packet;
    match event {
        Event::Incoming(Packet::ConnAck(_)) => Seen::Connected,
        Event::Incoming(Packet::SubAck(ack)) => Seen::Subscribed(ack.return_codes.first().map_or(0x80, suback_code)),
        Event::Incoming(Packet::PubAck(ack)) => Seen::Published(puback_code(ack.reason)),
        Event::Incoming(Packet::PubComp(_)) => Seen::Published(0),
        Event::Incoming(Packet::Publish(p)) => Seen::Message {
            topic: String::from_utf8_lossy(&p.topic).into_owned(),
            payload: p.payload.to_vec(),
            qos: p.qos as u8,
            retain: p.retain,
            content_type: p.properties.and_then(|properties| properties.content_type),
        },
        Event::Incoming(Packet::Disconnect(d)) => Seen::Failed(format!("the server sent DISCONNECT: {d:?}")),
        Event::Outgoing(rumqttc::Outgoing::Publish(_)) => Seen::Sent,
        Event::Outgoing(rumqttc::Outgoing::Disconnect) => Seen::Disconnected,
        _ => Seen::Other,
    }
}

fn suback_code(reason: &v5::mqttbytes::v5::SubscribeReasonCode) -> u8 {
    use v5::mqttbytes::v5::SubscribeReasonCode::*;
    match reason {
        Success(qos) => *qos as u8,
        Failure | Unspecified => 0x80,
        ImplementationSpecific => 0x83,
        NotAuthorized => 0x87,
        TopicFilterInvalid => 0x8f,
        PkidInUse => 0x91,
        QuotaExceeded => 0x97,
        SharedSubscriptionsNotSupported => 0x9e,
        SubscriptionIdNotSupported => 0xa1,
        WildcardSubscriptionsNotSupported => 0xa2,
    }
}

fn puback_code(reason: v5::mqttbytes::v5::PubAckReason) -> u16 {
    use v5::mqttbytes::v5::PubAckReason::*;
    match reason {
        Success => 0,
        NoMatchingSubscribers => 0x10,
        UnspecifiedError => 0x80,
        ImplementationSpecificError => 0x83,
        NotAuthorized => 0x87,
        TopicNameInvalid => 0x90,
        PacketIdentifierInUse => 0x91,
        QuotaExceeded => 0x97,
        PayloadFormatInvalid => 0x99,
    }
}

/// Subscribes; the events come as from any other subscriber.
pub(super) fn subscribe(five: bool, at: &Endpoints, to: &Subscribe) -> (Body, Receiver<Event>) {
    let (client, mut connection) = connect(five, at, &to.client_id, to.keep_session, &to.credentials);
    let (send, events) = mpsc::channel();
    let stopped = Arc::new(AtomicBool::new(false));
    let (to, ours, ended) = (to.clone(), client.clone(), stopped.clone());
    let thread = thread::spawn(move || {
        loop {
            let event = match connection.next() {
                Seen::Connected => match ask(&ours, &to) {
                    Ok(()) => continue,
                    Err(e) => Event::Closed(e),
                },
                Seen::Subscribed(0..0x80) => Event::Ready,
                Seen::Subscribed(code) => {
                    Event::Error { reason: "subscription refused".into(), code: Some(i64::from(code)) }
                }
                Seen::Message { topic, payload, qos, retain, content_type } => {
                    let level = if five { 5 } else { 4 };
                    Event::Message(Message::mqtt(&to, level, topic, payload, (qos, retain), content_type))
                }
                Seen::Failed(_) if to.reconnect && !ended.load(Ordering::Relaxed) => {
                    thread::sleep(Duration::from_millis(100)); // the back-off between two attempts
                    continue;
                }
                Seen::Failed(reason) => Event::Closed(reason),
                Seen::Disconnected => Event::Closed("disconnected".into()),
                Seen::Published(_) | Seen::Sent | Seen::Other => continue,
            };
            let last = matches!(event, Event::Closed(_));
            if send.send(event).is_err() || last {
                return;
            }
        }
    });
    (Body::Thread(Stop { client, stopped, thread: Some(thread) }), events)
}

fn ask(client: &Client, to: &Subscribe) -> Result<(), String> {
    match client {
        Client::V4(client) => client.try_subscribe(&to.filter, qos(to.qos)).map_err(|e| e.to_string()),
        Client::V5(client) => {
            let user_properties = vec![("format".to_owned(), to.format.name().to_owned())];
            let properties = v5::mqttbytes::v5::SubscribeProperties { id: None, user_properties };
            client.try_subscribe_with_properties(&to.filter, v5_qos(to.qos), properties).map_err(|e| e.to_string())
        }
    }
}

/// A connection to publish on.
pub struct Publishing {
    stop: Stop,
    seen: Receiver<Seen>,
}

pub(super) fn publisher(five: bool, at: &Endpoints, options: &Publish) -> Result<Publishing, String> {
    let (client, mut connection) = connect(five, at, &options.client_id, false, &options.credentials);
    let (send, seen): (Sender<Seen>, _) = mpsc::channel();
    let thread = thread::spawn(move || {
        loop {
            let event = connection.next();
            let last = matches!(event, Seen::Failed(_) | Seen::Disconnected);
            if send.send(event).is_err() || last {
                return;
            }
        }
    });
    let stop = Stop { client, stopped: Arc::default(), thread: Some(thread) };
    let mut publishing = Publishing { stop, seen };
    match publishing.wait(Duration::from_secs(15), |event| matches!(event, Seen::Connected)) {
        Ok(_) => Ok(publishing),
        Err(e) => Err(e),
    }
}

impl Publishing {
    fn wait(&mut self, within: Duration, wanted: impl Fn(&Seen) -> bool) -> Result<Seen, String> {
        let end = std::time::Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            match self.seen.recv_timeout(left) {
                Ok(event) if wanted(&event) => return Ok(event),
                Ok(Seen::Failed(e)) => return Err(e),
                Ok(_) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    pub(super) fn publish(&mut self, command: &Command, within: Duration) -> Reply {
        let (retain, payload) = (command.op != Op::Message, command.payload());
        if !valid_topic(&command.path) {
            return Reply::failed(None, "rumqttc does not send such a topic");
        }
        let sent = match &self.stop.client {
            Client::V4(client) => {
                client.publish(&command.path, qos(command.qos), retain, payload).map_err(|e| e.to_string())
            }
            Client::V5(client) => {
                let properties = v5::mqttbytes::v5::PublishProperties {
                    content_type: command.mqtt_content_type().map(str::to_owned),
                    ..Default::default()
                };
                client
                    .publish_with_properties(&command.path, v5_qos(command.qos), retain, payload, properties)
                    .map_err(|e| e.to_string())
            }
        };
        if let Err(e) = sent {
            return Reply::failed(None, e);
        }
        let acknowledged = command.qos > 0;
        let wanted = |event: &Seen| match event {
            Seen::Published(_) => acknowledged,
            Seen::Sent => !acknowledged,
            _ => false,
        };
        match self.wait(within, wanted) {
            Ok(Seen::Published(code @ 0x80..)) => Reply::failed(Some(code), "refused"),
            Ok(Seen::Published(code)) => Reply::ok(code),
            Ok(_) => Reply::ok(0),
            Err(e) => Reply::failed(None, e),
        }
    }

    pub(super) fn stop(&mut self) {
        self.stop.stop();
    }
}
