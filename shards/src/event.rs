//! What happened: the unit of fan-out, replay and delivery. Made once by the shard that owns the key, shared by
//! reference from there on.

use crate::clock::Version;
use crate::command::ConnectionRef;
use crate::log::Position;
use crate::schema::TableId;
use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
    Message,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub kind: EventKind,
    pub table: TableId,
    pub version: Version,
    /// The shard that owns the key, and how far it had come with this event.
    pub shard: u16,
    pub position: Position,
    /// Quality of service of the write: an upper bound for the delivery's [MQTT-3.8.4-8].
    pub qos: u8,
    /// Who wrote it, for subscribers that do not want to hear themselves.
    pub origin: Option<ConnectionRef>,
    pub body: Body,
}

/// An encoded key and a canonical document in one allocation.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    bytes: Bytes,
    key_bytes: u16,
}

impl Body {
    pub fn new(key: &[u8], document: &[u8]) -> Body {
        let mut bytes = Vec::with_capacity(key.len() + document.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(document);
        Body { bytes: bytes.into(), key_bytes: key.len() as u16 }
    }

    /// `bytes` holds the key in its first `key_bytes` bytes.
    pub fn from_parts(bytes: Vec<u8>, key_bytes: usize) -> Body {
        Body::from_slice(bytes.into(), key_bytes)
    }

    /// A part of a larger allocation, laid out in the same way.
    pub fn from_slice(bytes: Bytes, key_bytes: usize) -> Body {
        assert!(key_bytes <= bytes.len() && key_bytes <= usize::from(u16::MAX), "the key is a part of the bytes");
        Body { bytes, key_bytes: key_bytes as u16 }
    }

    pub fn key(&self) -> &[u8] {
        &self.bytes[..usize::from(self.key_bytes)]
    }

    /// Empty for a delete and for a message without payload.
    pub fn document(&self) -> &[u8] {
        &self.bytes[usize::from(self.key_bytes)..]
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
