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
    pub read: String,
    /// What it speaks in place of protocols that it does not know.
    pub instead: HashMap<Protocol, Protocol>,
}

impl Target {
    /// The protocols of a scenario, as this server speaks them.
    pub fn spoken(&self, protocols: &[Protocol]) -> Vec<Protocol> {
        protocols.iter().map(|own| self.instead.get(own).copied().unwrap_or(*own)).collect()
    }

    /// The address for a protocol, and what goes into the Host field.
    pub fn address(&self, protocol: Protocol) -> Result<(SocketAddr, &str), String> {
        let (name, address) = match protocol {
            Protocol::Mqtt4 | Protocol::Mqtt5 => ("mqtt", &self.mqtt),
            Protocol::Sse | Protocol::WebSocket | Protocol::Rest => ("http", &self.http),
            Protocol::Redis => ("redis", &self.redis),
        };
        let address = address.as_deref().ok_or_else(|| format!("the server has no {name} address"))?;
        let mut found = address.to_socket_addrs().map_err(|error| format!("{name} address {address}: {error}"))?;
        Ok((found.next().ok_or_else(|| format!("{name} address {address}: nothing found"))?, address))
    }

    /// What a subscriber asks for: a filter, or the path of a stream. `None`: all topics.
    pub fn subscription(&self, protocol: Protocol, topic: Option<usize>) -> Result<String, String> {
        let (one, all) = match protocol {
            Protocol::Mqtt4 | Protocol::Mqtt5 | Protocol::Redis => (&self.topic, &self.all_topics),
            Protocol::Sse => (&self.sse, &self.all_sse),
            Protocol::WebSocket => (&self.websocket, &self.all_websocket),
            Protocol::Rest => (&self.read, &self.read),
        };
        let name = topic.map_or(all, |_| one);
        if name.is_empty() {
            return Err(format!("the server has no way to subscribe by {protocol:?} to {topic:?}"));
        }
        Ok(topic.map_or_else(|| name.clone(), |topic| numbered(name, topic)))
    }

    /// Topic, or method and path, of a message.
    pub fn publication(&self, protocol: Protocol, topic: usize) -> Result<String, String> {
        let name = if protocol == Protocol::Rest { &self.publish } else { &self.topic };
        match name.is_empty() {
            true => Err(format!("the server has no way to publish by {protocol:?}")),
            false => Ok(numbered(name, topic)),
        }
    }
}

pub fn numbered(name: &str, topic: usize) -> String {
    name.replace("{topic}", itoa::Buffer::new().format(topic))
}
