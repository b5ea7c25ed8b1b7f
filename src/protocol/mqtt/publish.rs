//! What an incoming PUBLISH, or a last will, does to a table (compat §3.6): retained with a payload it is a put,
//! retained and empty a delete, otherwise a message.

use super::packet::{Publish, reason};
use super::property::Properties;
use super::session::{Goodbye, MqttSession};
use crate::protocol::{Context, Scratch, payload};
use bytes::Bytes;
use shards::command::{Operation, Write};
use shards::event::{Body, Terms};
use shards::key::KeyCodec;
use shards::schema::TableId;
use shards::session::Will;
use shards::topic::{self, TopicError};

/// Topic aliases that a client may use at a time, told in CONNACK.
pub(super) const TOPIC_ALIAS_MAXIMUM: u16 = 32;

/// What is written, and where.
struct Prepared {
    operation: Operation,
    table: TableId,
    body: Body,
}

impl MqttSession {
    /// The topic name of a PUBLISH: its own, or the one that its alias stands for (MQTT 5 §3.3.2.3.4).
    pub(super) fn topic_of<'a>(&'a mut self, publish: &Publish<'a>) -> Result<&'a str, Goodbye> {
        let Some(alias) = publish.properties.topic_alias() else {
            return match publish.topic {
                "" => Err(Goodbye::new(reason::PROTOCOL_ERROR, TopicError::Empty.to_string())),
                topic => Ok(topic),
            };
        };
        if alias == 0 || alias > TOPIC_ALIAS_MAXIMUM {
            let text = format!("topic alias {alias} is not within 1 to {TOPIC_ALIAS_MAXIMUM}"); // [MQTT-3.3.2-8, -9]
            return Err(Goodbye::new(reason::TOPIC_ALIAS_INVALID, text));
        }
        let at = usize::from(alias) - 1;
        if !publish.topic.is_empty() {
            if self.aliases.len() <= at {
                self.aliases.resize(at + 1, Box::default());
            }
            self.aliases[at] = publish.topic.into();
        }
        match self.aliases.get(at).map(|topic| &**topic) {
            None | Some("") => Err(Goodbye::new(reason::PROTOCOL_ERROR, "a topic alias that stands for nothing")),
            Some(topic) => Ok(topic),
        }
    }

    /// The write that a PUBLISH asks for, or the reason why it cannot be made.
    pub(super) fn prepare(&self, context: &mut Context<'_>, publish: &Publish<'_>) -> Result<Write, Goodbye> {
        let Publish { qos, retain, topic, ref properties, payload, .. } = *publish;
        let Prepared { operation, table, body } = self.prepare_body(context, topic, retain, properties, payload)?;
        let now_ms = context.shard.now_us() / 1000;
        let terms = Terms {
            qos,
            publisher: if self.has_no_local { self.number } else { 0 },
            expires_ms: properties.message_expiry_interval().map(|seconds| now_ms + u64::from(seconds) * 1000),
        };
        Ok(Write { terms, ..Write::new(operation, table, body) })
    }

    pub(super) fn will_of(&self, context: &mut Context<'_>, will: &super::packet::Will<'_>) -> Result<Will, Goodbye> {
        let Prepared { operation, table, body } =
            self.prepare_body(context, will.topic, will.retain, &will.properties, will.payload)?;
        Ok(Will {
            operation,
            table,
            body,
            qos: will.qos,
            message_expiry_s: will.properties.message_expiry_interval(),
            delay_s: will.properties.will_delay_interval().unwrap_or(0),
        })
    }

    fn prepare_body(
        &self,
        context: &mut Context<'_>,
        topic: &str,
        retain: bool,
        properties: &Properties<'_>,
        payload: &[u8],
    ) -> Result<Prepared, Goodbye> {
        let invalid = |text: String| Goodbye::new(reason::TOPIC_NAME_INVALID, text);
        topic::check_name(topic).map_err(|error| invalid(error.to_string()))?;
        if topic.starts_with('$') {
            return Err(invalid("topics that start with $ are the server's".into())); // MQTT 5 §4.7.2
        }
        if properties.payload_format() == Some(1) && std::str::from_utf8(payload).is_err() {
            let text = "the payload is said to be UTF-8 and is not"; // MQTT 5 §3.3.2.3.2
            return Err(Goodbye::new(reason::PAYLOAD_FORMAT_INVALID, text));
        }
        let resolved = context.catalog.mqtt.resolve(topic);
        let Some(resolved) = resolved else { return Err(invalid(format!("no table is exported at {topic}"))) };
        let operation = match (retain, payload.is_empty()) {
            (true, true) => Operation::Delete,
            (true, false) => Operation::Put,
            (false, _) => Operation::Message,
        };
        let Scratch { decoder, body: bytes, .. } = &mut *context.scratch;
        bytes.clear();
        match resolved.rest {
            // The table's own topic: messages may be sent there, nothing is stored.
            "" if !resolved.slash && operation == Operation::Message => {}
            rest => KeyCodec::of(context.catalog.table(resolved.table))
                .encode_text(rest, bytes)
                .map_err(|error| invalid(error.to_string()))?,
        }
        let key_bytes = bytes.len();
        properties.forwarded(bytes);
        let properties_bytes = bytes.len() - key_bytes;
        if properties_bytes > usize::from(u16::MAX) {
            return Err(Goodbye::new(reason::QUOTA_EXCEEDED, "more than 64 KiB of properties"));
        }
        let mut text_bytes = 0;
        if !payload.is_empty() {
            let content_type = properties.content_type().or(self.incoming.map(|format| format.media_type()));
            let is_exact = payload::document(content_type, payload, decoder, bytes)
                .map_err(|error| Goodbye::new(reason::PAYLOAD_FORMAT_INVALID, error.to_string()))?;
            // A message is passed on as it came; a record is likely changed by its schema.
            if is_exact && operation == Operation::Message {
                bytes.extend_from_slice(payload);
                text_bytes = payload.len();
            }
        }
        let body = Body::from_slice(Bytes::copy_from_slice(bytes), key_bytes, properties_bytes).with_text(text_bytes);
        Ok(Prepared { operation, table: resolved.table, body })
    }
}
