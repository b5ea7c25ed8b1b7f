//! The protocols that servers are spoken to in, from the client's side: bytes in, events out. Nothing here is shared with
//! the server that this project builds, so that a mistake of its codecs cannot hide.

pub mod http;
pub mod mqtt;
pub mod mqtt_websocket;
pub mod redis;
pub mod sse;
pub mod websocket;

use crate::target::Publishing;
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// MQTT 3.1.1
    Mqtt4,
    /// MQTT 5.0
    Mqtt5,
    /// The same over WebSocket.
    Mqtt4WebSocket,
    Mqtt5WebSocket,
    /// Server-sent events; only to subscribe.
    Sse,
    /// Each message is one of a socket, in what the server wraps them.
    WebSocket,
    /// One request for each message; only to publish, and to read.
    Rest,
    /// Redis pub/sub.
    Redis,
}

impl Protocol {
    pub fn is_mqtt(self) -> bool {
        use Protocol::{Mqtt4, Mqtt4WebSocket, Mqtt5, Mqtt5WebSocket};
        matches!(self, Mqtt4 | Mqtt5 | Mqtt4WebSocket | Mqtt5WebSocket)
    }

    /// Whether the server says that it has accepted a message of this QoS.
    pub fn is_answered(self, qos: u8) -> bool {
        if self.is_mqtt() { qos > 0 } else { self != Protocol::Sse }
    }
}

/// What has come from the server.
#[derive(Debug)]
pub enum Event {
    /// The connection stands: CONNACK, 101, or the head of a stream.
    Open {
        is_resumed: bool,
        /// Messages above QoS 0 that the server takes before it has acknowledged one (MQTT 5).
        receive_max: u16,
    },
    Subscribed,
    /// `is_state`: what was there before the subscription.
    Message {
        payload: Bytes,
        is_state: bool,
    },
    /// The oldest message that was published is accepted (`id` 0), or the one of this packet identifier.
    Acknowledged {
        id: u16,
    },
    /// The oldest request is answered, with this body.
    Answer(Bytes),
}

impl Event {
    /// The connection stands, and nothing is known of it.
    fn open() -> Event {
        Event::Open { is_resumed: false, receive_max: u16::MAX }
    }
}

/// How a connection begins.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// For the Host field.
    pub host: &'a str,
    /// Of the request that begins it, where there is one.
    pub path: &'a str,
    pub name: &'a str,
    /// Nothing is kept of it when it ends.
    pub is_clean: bool,
    /// Of a WebSocket that publishes.
    pub publishing: Option<&'a Publishing>,
}

pub struct Message<'a> {
    /// Topic, channel, method and path of the request, or what goes around it in a WebSocket.
    pub target: &'a str,
    pub host: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    /// Packet identifier from QoS 1 on, or what a WebSocket's answer is to refer to.
    pub id: u16,
}

/// One side of a connection.
pub enum Wire {
    Mqtt(mqtt::Mqtt),
    MqttWebSocket(mqtt_websocket::MqttWebSocket),
    Sse(sse::Sse),
    WebSocket(websocket::WebSocket),
    Rest(http::Rest),
    Redis,
}

impl Wire {
    pub fn new(protocol: Protocol) -> Wire {
        match protocol {
            Protocol::Mqtt4 => Wire::Mqtt(mqtt::Mqtt::new(4)),
            Protocol::Mqtt5 => Wire::Mqtt(mqtt::Mqtt::new(5)),
            Protocol::Mqtt4WebSocket => Wire::MqttWebSocket(mqtt_websocket::MqttWebSocket::new(4)),
            Protocol::Mqtt5WebSocket => Wire::MqttWebSocket(mqtt_websocket::MqttWebSocket::new(5)),
            Protocol::Sse => Wire::Sse(sse::Sse::default()),
            Protocol::WebSocket => Wire::WebSocket(websocket::WebSocket::default()),
            Protocol::Rest => Wire::Rest(http::Rest::default()),
            Protocol::Redis => Wire::Redis,
        }
    }

    /// Whether [`Event::Open`] follows [`Wire::open`].
    pub fn is_greeted(&self) -> bool {
        !matches!(self, Wire::Rest(_) | Wire::Redis)
    }

    /// Whether a subscription is a request of its own.
    pub fn subscribes(&self) -> bool {
        matches!(self, Wire::Mqtt(_) | Wire::MqttWebSocket(_) | Wire::Redis)
    }

    pub fn open(&mut self, opening: &Opening<'_>, out: &mut Vec<u8>) {
        match self {
            Wire::Mqtt(mqtt) => mqtt.connect(opening, out),
            Wire::MqttWebSocket(mqtt) => mqtt.open(opening, out),
            Wire::Sse(sse) => sse.open(opening, out),
            Wire::WebSocket(socket) => socket.open(opening, out),
            Wire::Rest(rest) => *rest = http::Rest::default(),
            Wire::Redis => {}
        }
    }

    pub fn subscribe(&mut self, filter: &str, qos: u8, out: &mut Vec<u8>) {
        match self {
            Wire::Mqtt(mqtt) => mqtt.subscribe(filter, qos, out),
            Wire::MqttWebSocket(mqtt) => mqtt.subscribe(filter, qos, out),
            Wire::Redis => redis::command(&[b"SUBSCRIBE", filter.as_bytes()], out),
            Wire::Sse(_) | Wire::WebSocket(_) | Wire::Rest(_) => {}
        }
    }

    pub fn publish(&mut self, message: &Message<'_>, out: &mut Vec<u8>) {
        match self {
            Wire::Mqtt(mqtt) => mqtt.publish(message, out),
            Wire::MqttWebSocket(mqtt) => mqtt.publish(message, out),
            Wire::WebSocket(socket) => socket.publish(message, out),
            Wire::Rest(_) => http::request(message, out),
            Wire::Redis => redis::command(&[b"PUBLISH", message.target.as_bytes(), message.payload], out),
            Wire::Sse(_) => {}
        }
    }

    /// The next event; what the protocol wants in return is appended to `replies`. An error names what is wrong with
    /// what the server has sent.
    pub fn decode(&mut self, incoming: &mut BytesMut, replies: &mut Vec<u8>) -> Result<Option<Event>, String> {
        match self {
            Wire::Mqtt(mqtt) => mqtt.decode(incoming, replies),
            Wire::MqttWebSocket(mqtt) => mqtt.decode(incoming, replies),
            Wire::Sse(sse) => sse.decode(incoming),
            Wire::WebSocket(socket) => socket.decode(incoming, replies),
            Wire::Rest(rest) => rest.decode(incoming),
            Wire::Redis => redis::decode(incoming),
        }
    }
}
