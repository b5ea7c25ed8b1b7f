//! What an incoming PUBLISH, or a last will, does to a table (compat §3.6): retained with a payload it is a put,
//! retained and empty a delete, otherwise a message.

use super::packet::{Publish, Will, reason};
use super::property::Properties;
use super::session::{Goodbye, MqttSession};
use crate::protocol::{Context, payload};
use shards::command::{Operation, Write};
use shards::event::Body;
use shards::key::KeyCodec;
use shards::topic;

impl MqttSession {
    /// The write that a PUBLISH asks for, or the reason why it cannot be made.
    pub(super) fn prepare(&self, context: &mut Context<'_>, publish: &Publish<'_>) -> Result<Write, Goodbye> {
        let Publish { qos, retain, topic, ref properties, payload, .. } = *publish;
        self.write_for(context, topic, qos, retain, properties, payload)
    }

    pub(super) fn will_write(&self, context: &mut Context<'_>, will: &Will<'_>) -> Result<Write, Goodbye> {
        self.write_for(context, will.topic, will.qos, will.retain, &will.properties, will.payload)
    }

    fn write_for(
        &self,
        context: &mut Context<'_>,
        topic: &str,
        qos: u8,
        retain: bool,
        properties: &Properties<'_>,
        payload: &[u8],
    ) -> Result<Write, Goodbye> {
        let invalid = |text: String| Goodbye::new(reason::TOPIC_NAME_INVALID, text);
        topic::check_name(topic).map_err(|error| invalid(error.to_string()))?;
        if topic.starts_with('$') {
            return Err(invalid("topics that start with $ are the server's".into())); // MQTT 5 §4.7.2
        }
        let resolved = context.catalog.mqtt.resolve(topic);
        let Some(resolved) = resolved else { return Err(invalid(format!("no table is exported at {topic}"))) };
        let operation = match (retain, payload.is_empty()) {
            (true, true) => Operation::Delete,
            (true, false) => Operation::Put,
            (false, _) => Operation::Message,
        };
        let mut bytes = Vec::with_capacity(resolved.rest.len() + payload.len() + 64);
        match resolved.rest {
            // The table's own topic: messages may be sent there, nothing is stored.
            "" if !resolved.slash && operation == Operation::Message => {}
            rest => KeyCodec::of(context.catalog.table(resolved.table))
                .encode_text(rest, &mut bytes)
                .map_err(|error| invalid(error.to_string()))?,
        }
        let key_bytes = bytes.len();
        if !payload.is_empty() {
            let content_type = properties.content_type().or(self.incoming.map(|format| format.media_type()));
            payload::document(content_type, payload, &mut context.scratch.decoder, &mut bytes)
                .map_err(|error| Goodbye::new(reason::PAYLOAD_FORMAT_INVALID, error.to_string()))?;
        }
        let body = Body::from_parts(bytes, key_bytes);
        Ok(Write { operation, table: resolved.table, body, qos, origin: Some(context.connection), token: None })
    }
}
