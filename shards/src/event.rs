//! What happened: the unit of fan-out, replay and delivery. Made once by the shard that owns the key, shared by
//! reference from there on.

use crate::clock::Version;
use crate::log::Position;
use crate::schema::TableId;
use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
    Message,
    /// A record is no longer what a live query wants. Only its subscribers hear of this.
    Leave,
}

/// What a publisher asks of the delivery; kept in the log with the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Quality of service of the write, 0 to 2: an upper bound for the delivery's [MQTT-3.8.4-8].
    pub qos: u8,
    /// The session that wrote it, where it does not want to hear itself; else 0.
    pub publisher: u64,
    /// When it is too old to be delivered, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

impl Terms {
    /// Those of a write that does not come over MQTT: each subscriber hears of it as reliably as it asked for.
    pub const RELIABLE: Terms = Terms { qos: 2, publisher: 0, expires_ms: None };
}

#[derive(Clone, Debug)]
pub struct Event {
    pub kind: EventKind,
    pub table: TableId,
    pub version: Version,
    /// The shard that owns the key, and the event's place in its history.
    pub shard: u16,
    pub position: Position,
    /// Everything of that shard up to here has been delivered with this event.
    pub reached: Position,
    pub terms: Terms,
    pub body: Body,
    /// The document that it replaces or deletes, where some shard has live queries of the table.
    pub previous: Option<Bytes>,
}

/// An encoded key, properties (encoded by a protocol; not looked into here) and a canonical document in one allocation; and
/// the text that the document was read from, where writing the document would give it again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    bytes: Bytes,
    key_bytes: u16,
    properties_bytes: u16,
    text_bytes: u16,
}

impl Body {
    pub fn new(key: &[u8], document: &[u8]) -> Body {
        Body::with_properties(key, &[], document)
    }

    pub fn with_properties(key: &[u8], properties: &[u8], document: &[u8]) -> Body {
        let mut bytes = Vec::with_capacity(key.len() + properties.len() + document.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(document);
        Body::from_slice(bytes.into(), key.len(), properties.len())
    }

    /// `bytes` holds the key, then properties, then the document.
    pub fn from_parts(bytes: Vec<u8>, key_bytes: usize, properties_bytes: usize) -> Body {
        Body::from_slice(bytes.into(), key_bytes, properties_bytes)
    }

    /// A part of a larger allocation, laid out in the same way.
    pub fn from_slice(bytes: Bytes, key_bytes: usize, properties_bytes: usize) -> Body {
        let fits = key_bytes.max(properties_bytes) <= usize::from(u16::MAX);
        assert!(fits && key_bytes + properties_bytes <= bytes.len(), "key and properties are parts of the bytes");
        Body { bytes, key_bytes: key_bytes as u16, properties_bytes: properties_bytes as u16, text_bytes: 0 }
    }

    /// So many bytes at the end are the text of the document.
    pub fn with_text(self, text_bytes: usize) -> Body {
        let others = usize::from(self.key_bytes) + usize::from(self.properties_bytes);
        assert!(text_bytes <= usize::from(u16::MAX) && others + text_bytes <= self.bytes.len(), "part of the bytes");
        Body { text_bytes: text_bytes as u16, ..self }
    }

    pub fn key(&self) -> &[u8] {
        &self.bytes[..usize::from(self.key_bytes)]
    }

    pub fn properties(&self) -> &[u8] {
        &self.bytes[usize::from(self.key_bytes)..][..usize::from(self.properties_bytes)]
    }

    /// Empty for a delete and for a message without payload.
    pub fn document(&self) -> &[u8] {
        let text_at = self.bytes.len() - usize::from(self.text_bytes);
        &self.bytes[usize::from(self.key_bytes) + usize::from(self.properties_bytes)..text_at]
    }

    /// The document as the text that it would be written as; empty where that is not at hand.
    pub fn text(&self) -> &[u8] {
        &self.bytes[self.bytes.len() - usize::from(self.text_bytes)..]
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
