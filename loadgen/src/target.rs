//! Where a server is spoken to, and what its topics are called.

use crate::wire::Protocol;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};

/// Addresses are `host:port`. In names `{topic}` stands for a topic's number; `all_…` means all topics at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    pub mqtt: Option<String>,
    /// Of MQTT over WebSocket: an address and a path, as in `localhost:8080/mqtt`.
    pub mqtt_websocket: Option<String>,
    pub http: Option<String>,
    pub redis: Option<String>,
    /// Topic of MQTT, channel of redis.
    pub topic: String,
    pub all_topics: String,
    /// Paths of streams.
    pub sse: String,
    pub all_sse: String,
    pub websocket: String,
    pub all_websocket: String,
    /// Method and path of requests.
    pub publish: String,
    pub publish_websocket: Option<Publishing>,
    pub read: String,
    /// What it speaks in place of protocols that it does not know.
    pub instead: HashMap<Protocol, Protocol>,
}

/// How a WebSocket publishes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publishing {
    /// Of the socket. One with `{topic}` in it is for that topic alone.
    pub path: String,
    /// What is sent for a message: `{message}` is that, `{id}` its number on this socket.
    pub message: String,
    /// Stands in the answer to a message that is accepted: to the one whose number follows `"ref":`, or the oldest one.
    pub accepted: String,
    /// Stands in the answer to one that is not.
    pub refused: String,
}

impl Target {
    /// The protocols of a scenario, as this server speaks them.
    pub fn spoken(&self, protocols: &[Protocol]) -> Vec<Protocol> {
        protocols.iter().map(|own| self.instead.get(own).copied().unwrap_or(*own)).collect()
    }

    /// All that the server listens on.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        [&self.mqtt, &self.mqtt_websocket, &self.http, &self.redis].into_iter().flatten().map(|own| host(own))
    }

    /// What goes into the Host field; an error names what the server does not have.
    pub fn host(&self, protocol: Protocol) -> Result<&str, String> {
        let (name, address) = match protocol {
            Protocol::Mqtt4 | Protocol::Mqtt5 => ("mqtt", &self.mqtt),
            Protocol::Mqtt4WebSocket | Protocol::Mqtt5WebSocket => ("mqtt_websocket", &self.mqtt_websocket),
            Protocol::Sse | Protocol::WebSocket | Protocol::Rest => ("http", &self.http),
            Protocol::Redis => ("redis", &self.redis),
        };
        let address = address.as_deref().ok_or_else(|| format!("the server has no {name} address"))?;
        Ok(host(address))
    }

    pub fn address(&self, protocol: Protocol) -> Result<SocketAddr, String> {
        let host = self.host(protocol)?;
        let mut found = host.to_socket_addrs().map_err(|error| format!("address {host}: {error}"))?;
        found.next().ok_or_else(|| format!("address {host}: nothing found"))
    }

    /// The path of the request that opens a connection, or nothing where there is none.
    pub fn path(&self, protocol: Protocol, stream: &str) -> String {
        match (protocol, &self.mqtt_websocket) {
            (Protocol::Sse | Protocol::WebSocket, _) => stream.to_owned(),
            (Protocol::Mqtt4WebSocket | Protocol::Mqtt5WebSocket, Some(own)) => {
                own.find('/').map_or_else(|| "/".to_owned(), |at| own[at..].to_owned())
            }
            _ => String::new(),
        }
    }

    /// What a subscriber asks for: a filter, or the path of a stream. `None`: all topics.
    pub fn subscription(&self, protocol: Protocol, topic: Option<usize>) -> Result<String, String> {
        let (one, all) = match protocol {
            Protocol::Sse => (&self.sse, &self.all_sse),
            Protocol::WebSocket => (&self.websocket, &self.all_websocket),
            Protocol::Rest => (&self.read, &self.read),
            _ => (&self.topic, &self.all_topics),
        };
        let name = topic.map_or(all, |_| one);
        if name.is_empty() {
            return Err(format!("the server has no way to subscribe by {protocol:?} to {topic:?}"));
        }
        Ok(topic.map_or_else(|| name.clone(), |topic| numbered(name, topic)))
    }

    /// Topic of a message, or method and path, or what goes around it in a WebSocket.
    pub fn publication(&self, protocol: Protocol, topic: usize) -> Result<String, String> {
        let name = match (protocol, &self.publish_websocket) {
            (Protocol::WebSocket, own) => own.as_ref().map_or("", |own| &own.message),
            (Protocol::Rest, _) => &self.publish,
            _ => &self.topic,
        };
        match name.is_empty() {
            true => Err(format!("the server has no way to publish by {protocol:?}")),
            false => Ok(numbered(name, topic)),
        }
    }
}

/// An address without the path behind it.
fn host(address: &str) -> &str {
    address.split('/').next().unwrap_or_default()
}

pub fn numbered(name: &str, topic: usize) -> String {
    name.replace("{topic}", itoa::Buffer::new().format(topic))
}
