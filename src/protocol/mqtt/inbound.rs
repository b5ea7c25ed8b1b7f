//! Messages from the client and what they are answered with: PUBACK, or PUBREC, PUBREL and PUBCOMP (MQTT 5 §4.3).

use super::packet::{Ack, AckKind, Publish, Version, reason, write_ack};
use super::session::{Goodbye, MqttSession, RECEIVE_MAXIMUM};
use crate::protocol::{Context, Flow};
use shards::command::Token;
use shards::counters::Counter;
use shards::scan::owner;
use shards::session::{Receipt, receipt_key};
use shards::topic::{self, TopicError};
use tracing::debug;

/// How long at least the receipt of a QoS 2 message is kept that is never released, in milliseconds.
const RECEIPT_MS: u64 = 24 * 3600 * 1000;

/// An acknowledgement owed to the client; they go out in the order of the packets [MQTT-4.6.0-2].
pub(super) struct Owed {
    packet_id: u16,
    kind: AckKind,
    /// Outcomes that are still to come.
    waiting: u16,
    /// Of a PUBCOMP: some shard knew of the message.
    is_known: bool,
    code: u8,
    text: Option<String>,
}

/// What an outcome is for: the number in its token.
pub(super) enum Tag {
    Owed(u64),
    /// The session was saved.
    Save,
}

impl Tag {
    pub fn of(tag: u64) -> Tag {
        if tag == u64::MAX { Tag::Save } else { Tag::Owed(tag) }
    }

    pub fn number(self) -> u64 {
        match self {
            Tag::Owed(tag) => tag,
            Tag::Save => u64::MAX,
        }
    }
}

impl MqttSession {
    pub(super) fn publish(&mut self, context: &mut Context<'_>, publish: &Publish<'_>) -> Result<Flow, Goodbye> {
        context.count(Counter::MessagesReceived, 1);
        context.count(Counter::PayloadBytesReceived, publish.payload.len() as u64);
        let aliased;
        let publish = if publish.properties.topic_alias().is_some() || publish.topic.is_empty() {
            let topic: Box<str> = self.topic_of(publish)?.into();
            aliased = topic;
            &Publish { topic: &aliased, ..publish.clone() }
        } else {
            publish
        };
        let is_again = publish.qos == 2 && self.received.contains_key(&publish.packet_id);
        let is_full = self.unfinished >= usize::from(RECEIVE_MAXIMUM);
        if publish.qos > 0 && !is_again && is_full && self.is_v5() {
            // [MQTT-3.3.4-9]
            return Err(Goodbye::new(reason::RECEIVE_MAXIMUM_EXCEEDED, "more publishes than the receive maximum"));
        }
        if publish.properties.response_topic().is_some_and(|topic| topic.contains(['+', '#'])) {
            let text = "the response topic has a wildcard"; // [MQTT-3.3.2-14]
            return Err(Goodbye::new(reason::PROTOCOL_ERROR, text));
        }
        if is_again {
            // It was taken; what is new is only that the client asks [MQTT-4.3.3-10].
            let tag = self.owe(publish.packet_id, AckKind::PubRec, 0);
            return self.settle_now(context, tag);
        }
        let prepared = self.prepare(context, publish);
        if prepared.is_err() && topic::check_name(publish.topic) == Err(TopicError::Wildcard) {
            // What is no topic name at all ends the connection, whatever the QoS; one without a table does not.
            return Err(Goodbye::new(reason::TOPIC_NAME_INVALID, TopicError::Wildcard.to_string())); // [MQTT-3.3.2-2]
        }
        if publish.qos == 0 {
            match prepared {
                Ok(write) => context.shard.submit(write),
                Err(goodbye) => debug!(client = %self.client_id, topic = publish.topic, "dropped: {}", goodbye.text),
            }
            return Ok(Flow::Continue);
        }
        self.unfinished += 1;
        let packet_id = publish.packet_id;
        let kind = if publish.qos == 1 { AckKind::PubAck } else { AckKind::PubRec };
        let tag = self.owe(packet_id, kind, 1);
        match prepared {
            Ok(mut write) => {
                if publish.qos == 2 {
                    let shard = owner(write.table, write.body.key(), context.shard.shards());
                    self.received.insert(packet_id, shard);
                    write.receipt = self.receipt(context, packet_id);
                }
                write.token = Some(Token { connection: context.connection, tag });
                context.shard.submit(write);
                let is_full = self.unfinished >= usize::from(RECEIVE_MAXIMUM);
                // A client of 3.1.1 knows of no maximum: it is not read from until there is room. PUBREL must be.
                let waits = is_full && !self.is_v5() && !self.owed.is_empty();
                Ok(if waits { Flow::Blocked } else { Flow::Continue })
            }
            Err(goodbye) => self.settle(context, tag, Some(goodbye), false),
        }
    }

    /// Names a QoS 2 message in the log, where the session outlives the connection.
    fn receipt(&self, context: &Context<'_>, packet_id: u16) -> Option<Receipt> {
        let now_ms = context.shard.now_us() / 1000;
        let kept_ms = |seconds: u32| now_ms + (u64::from(seconds) * 1000).max(RECEIPT_MS);
        let expires_ms = self.expiry_s.map(kept_ms);
        self.is_kept().then(|| Receipt { key: receipt_key(self.number, packet_id).into(), expires_ms })
    }

    /// PUBREL: the client will not send the message again; its identifier is free when that is on disk.
    pub(super) fn release(&mut self, context: &mut Context<'_>, ack: &Ack<'_>) -> Result<Flow, Goodbye> {
        let packet_id = ack.packet_id;
        let taken_by = self.received.remove(&packet_id);
        if !self.is_kept() {
            let tag = self.owe(packet_id, AckKind::PubComp, 0);
            self.owed_mut(tag).is_known = taken_by.is_some();
            return self.settle_now(context, tag);
        }
        // One that was taken on an earlier connection: any shard may have it.
        let shards = taken_by.map_or(0..context.shard.shards() as u16, |shard| shard..shard + 1);
        let tag = self.owe(packet_id, AckKind::PubComp, shards.len() as u16);
        self.owed_mut(tag).is_known = taken_by.is_some();
        let key = receipt_key(self.number, packet_id);
        for shard in shards {
            context.shard.release_receipt(Token { connection: context.connection, tag }, shard, &key);
        }
        Ok(Flow::Continue)
    }

    /// Notes an acknowledgement that is to be sent when so many outcomes have come; gives its tag.
    fn owe(&mut self, packet_id: u16, kind: AckKind, waiting: u16) -> u64 {
        let owed = Owed { packet_id, kind, waiting, is_known: true, code: reason::SUCCESS, text: None };
        self.owed.push_back(owed);
        self.first_tag + self.owed.len() as u64 - 1
    }

    fn owed_mut(&mut self, tag: u64) -> &mut Owed {
        let at = (tag - self.first_tag) as usize;
        &mut self.owed[at]
    }

    /// An outcome is known: every acknowledgement whose turn it is goes out.
    pub(super) fn settle(
        &mut self,
        context: &mut Context<'_>,
        tag: u64,
        problem: Option<Goodbye>,
        existed: bool,
    ) -> Result<Flow, Goodbye> {
        let said = match problem {
            None => None,
            // An acknowledgement of 3.1.1 cannot say no: it must not be sent, the connection ends [MQTT-3.3.5-2].
            Some(problem) if self.version == Version::V4 => return Err(problem),
            Some(problem) => {
                let text = self.reason_text(&problem.text).filter(|_| self.wants_problem_information);
                Some((problem.code, text.map(str::to_owned)))
            }
        };
        let at = tag.wrapping_sub(self.first_tag) as usize;
        let Some(owed) = self.owed.get_mut(at) else { return Ok(Flow::Continue) };
        if let (AckKind::PubComp, Some((code, text))) = (owed.kind, &said) {
            return Err(Goodbye::new(*code, text.clone().unwrap_or_default())); // PUBCOMP has no words for it
        }
        owed.waiting = owed.waiting.saturating_sub(1);
        owed.is_known |= existed && owed.kind == AckKind::PubComp;
        if let Some((code, text)) = said {
            (owed.code, owed.text) = (code, text);
            if owed.kind == AckKind::PubRec {
                let packet_id = owed.packet_id;
                self.received.remove(&packet_id); // the exchange ends with a refusal [MQTT-4.3.3-9]
            }
        }
        self.settle_now(context, tag)
    }

    fn settle_now(&mut self, context: &mut Context<'_>, _: u64) -> Result<Flow, Goodbye> {
        let version = self.version;
        while let Some(owed) = self.owed.pop_front_if(|owed| owed.waiting == 0) {
            self.first_tag += 1;
            let is_unknown = owed.kind == AckKind::PubComp && !owed.is_known;
            let code = if is_unknown { reason::PACKET_IDENTIFIER_NOT_FOUND } else { owed.code };
            context.write_packet(|out| write_ack(owed.kind, version, owed.packet_id, code, owed.text.as_deref(), out));
            let is_over = owed.kind != AckKind::PubRec || owed.code >= reason::UNSPECIFIED;
            self.unfinished = self.unfinished.saturating_sub(usize::from(is_over && !is_unknown));
        }
        Ok(Flow::Continue)
    }
}
