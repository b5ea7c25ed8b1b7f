//! The packets that a server sends. How long each becomes is known before its first byte is written: nothing is put
//! together elsewhere and copied.

use super::super::property::{
    self,
    id::{
        ASSIGNED_CLIENT_IDENTIFIER, CONTENT_TYPE, MAXIMUM_PACKET_SIZE, MESSAGE_EXPIRY_INTERVAL,
        PAYLOAD_FORMAT_INDICATOR, REASON_STRING, RECEIVE_MAXIMUM, RESPONSE_INFORMATION, SERVER_KEEP_ALIVE,
        SESSION_EXPIRY_INTERVAL, SUBSCRIPTION_IDENTIFIER, TOPIC_ALIAS, TOPIC_ALIAS_MAXIMUM,
    },
};
use super::{Version, reason};

pub fn write_variable(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a variable byte integer.
fn variable_bytes(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// A length and that many bytes behind it.
fn with_length(bytes: usize) -> usize {
    variable_bytes(bytes) + bytes
}

/// Bytes of a property that is a string.
fn text_bytes(text: Option<&str>) -> usize {
    text.map_or(0, |text| 3 + text.len())
}

pub fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The fixed header of a packet.
fn write_header(first: u8, remaining: usize, out: &mut Vec<u8>) {
    out.push(first);
    write_variable(remaining as u32, out);
}

/// Appends a packet whose content is there already.
#[cfg(test)]
pub fn write_packet(first: u8, content: &[u8], out: &mut Vec<u8>) {
    write_header(first, content.len(), out);
    out.extend_from_slice(content);
}

/// What a CONNACK says; all but the first two only to version 5.
#[derive(Clone, Debug, Default)]
pub struct ConnAck<'a> {
    pub session_present: bool,
    /// A reason code for version 5, a return code for 3.1.1.
    pub code: u8,
    pub session_expiry_interval: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub maximum_packet_size: Option<u32>,
    pub assigned_client_id: Option<&'a str>,
    pub topic_alias_maximum: Option<u16>,
    pub reason_string: Option<&'a str>,
    pub server_keep_alive: Option<u16>,
    pub response_information: Option<&'a str>,
}

pub fn write_connack(version: Version, connack: &ConnAck<'_>, out: &mut Vec<u8>) {
    let head = [u8::from(connack.session_present), connack.code];
    if version == Version::V4 {
        write_header(0x20, head.len(), out);
        return out.extend_from_slice(&head);
    }
    let longs = [
        (SESSION_EXPIRY_INTERVAL, connack.session_expiry_interval),
        (MAXIMUM_PACKET_SIZE, connack.maximum_packet_size),
    ];
    let shorts = [
        (RECEIVE_MAXIMUM, connack.receive_maximum),
        (TOPIC_ALIAS_MAXIMUM, connack.topic_alias_maximum),
        (SERVER_KEEP_ALIVE, connack.server_keep_alive),
    ];
    let texts = [
        (ASSIGNED_CLIENT_IDENTIFIER, connack.assigned_client_id),
        (REASON_STRING, connack.reason_string),
        (RESPONSE_INFORMATION, connack.response_information),
    ];
    let list_bytes = longs.iter().filter(|(_, value)| value.is_some()).count() * 5
        + shorts.iter().filter(|(_, value)| value.is_some()).count() * 3
        + texts.iter().map(|(_, text)| text_bytes(*text)).sum::<usize>();
    write_header(0x20, head.len() + with_length(list_bytes), out);
    out.extend_from_slice(&head);
    write_variable(list_bytes as u32, out);
    for (id, value) in longs {
        value.into_iter().for_each(|value| property::write_u32(id, value, out));
    }
    for (id, value) in shorts {
        value.into_iter().for_each(|value| property::write_u16(id, value, out));
    }
    for (id, text) in texts {
        text.into_iter().for_each(|text| property::write_string(id, text, out));
    }
}

/// The four packets that acknowledge; the discriminant is the first byte, with the flags that PUBREL has [MQTT-3.6.1-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AckKind {
    PubAck = 0x40,
    PubRec = 0x50,
    PubRel = 0x62,
    PubComp = 0x70,
}

/// Reason code and reason string only go to version 5. Success without a text is left out (§3.4.2.1).
pub fn write_ack(
    kind: AckKind,
    version: Version,
    packet_id: u16,
    code: u8,
    reason_string: Option<&str>,
    out: &mut Vec<u8>,
) {
    let [high, low] = packet_id.to_be_bytes();
    if version == Version::V4 || (code == reason::SUCCESS && reason_string.is_none()) {
        return out.extend_from_slice(&[kind as u8, 2, high, low]);
    }
    write_header(kind as u8, 3 + with_length(text_bytes(reason_string)), out);
    out.extend_from_slice(&[high, low, code]);
    write_reason_string(reason_string, out);
}

/// A property list of at most a reason string.
fn write_reason_string(text: Option<&str>, out: &mut Vec<u8>) {
    write_variable(text_bytes(text) as u32, out);
    if let Some(text) = text {
        property::write_string(REASON_STRING, text, out);
    }
}

pub fn write_suback(version: Version, packet_id: u16, codes: &[u8], out: &mut Vec<u8>) {
    write_codes(0x90, version, packet_id, codes, out);
}

/// 3.1.1 has no codes here (§3.11).
pub fn write_unsuback(version: Version, packet_id: u16, codes: &[u8], out: &mut Vec<u8>) {
    let codes = if version == Version::V4 { &[] } else { codes };
    write_codes(0xb0, version, packet_id, codes, out);
}

fn write_codes(first: u8, version: Version, packet_id: u16, codes: &[u8], out: &mut Vec<u8>) {
    let list_bytes = usize::from(version == Version::V5);
    write_header(first, 2 + list_bytes + codes.len(), out);
    out.extend_from_slice(&packet_id.to_be_bytes());
    out.extend_from_slice(&[0][..list_bytes]);
    out.extend_from_slice(codes);
}

pub fn write_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Only version 5 has a DISCONNECT from the server.
pub fn write_disconnect(code: u8, text: Option<&str>, out: &mut Vec<u8>) {
    write_header(0xe0, 1 + with_length(text_bytes(text)), out);
    out.push(code);
    write_reason_string(text, out);
}

/// An outgoing PUBLISH, but for its payload. What 3.1.1 has no place for is left out there.
#[derive(Clone, Copy, Debug)]
pub struct PublishHead<'a> {
    pub version: Version,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    /// The topic in three parts.
    pub topic: (&'a str, &'a str, &'a str),
    pub topic_alias: Option<u16>,
    pub payload_is_text: bool,
    pub content_type: Option<&'a str>,
    pub message_expiry: Option<u32>,
    /// More properties, encoded.
    pub properties: &'a [u8],
    pub subscription_identifiers: &'a [u32],
    pub payload_bytes: usize,
}

impl PublishHead<'_> {
    /// Bytes of the whole packet.
    pub fn packet_bytes(&self) -> usize {
        1 + with_length(self.remaining_bytes(self.list_bytes()))
    }

    /// Appends everything before the payload. Gives the place of the packet identifier in `out`, which is two zeros, for
    /// QoS above 0: each subscriber's is filled in by its outbox.
    pub fn write(&self, out: &mut Vec<u8>) -> Option<usize> {
        let (list_bytes, topic_bytes) = (self.list_bytes(), self.topic_bytes());
        let first = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        write_header(first, self.remaining_bytes(list_bytes), out);
        out.extend_from_slice(&(topic_bytes as u16).to_be_bytes());
        for part in [self.topic.0, self.topic.1, self.topic.2] {
            out.extend_from_slice(part.as_bytes());
        }
        let packet_id_at = (self.qos > 0).then(|| {
            out.extend_from_slice(&[0, 0]);
            out.len() - 2
        });
        if self.version == Version::V5 {
            write_variable(list_bytes as u32, out);
            if list_bytes > 0 {
                self.write_list(out);
            }
        }
        packet_id_at
    }

    fn write_list(&self, out: &mut Vec<u8>) {
        if self.payload_is_text {
            property::write_byte(PAYLOAD_FORMAT_INDICATOR, 1, out);
        }
        if let Some(text) = self.content_type {
            property::write_string(CONTENT_TYPE, text, out);
        }
        if let Some(seconds) = self.message_expiry {
            property::write_u32(MESSAGE_EXPIRY_INTERVAL, seconds, out);
        }
        if let Some(alias) = self.topic_alias {
            property::write_u16(TOPIC_ALIAS, alias, out);
        }
        for identifier in self.subscription_identifiers {
            property::write_number(SUBSCRIPTION_IDENTIFIER, *identifier, out);
        }
        out.extend_from_slice(self.properties);
    }

    fn topic_bytes(&self) -> usize {
        self.topic.0.len() + self.topic.1.len() + self.topic.2.len()
    }

    /// Bytes of the property list without its length.
    fn list_bytes(&self) -> usize {
        let identifiers = self.subscription_identifiers.iter();
        2 * usize::from(self.payload_is_text)
            + text_bytes(self.content_type)
            + 5 * usize::from(self.message_expiry.is_some())
            + 3 * usize::from(self.topic_alias.is_some())
            + identifiers.map(|identifier| 1 + variable_bytes(*identifier as usize)).sum::<usize>()
            + self.properties.len()
    }

    /// Bytes behind the fixed header.
    fn remaining_bytes(&self, list_bytes: usize) -> usize {
        let packet_id = if self.qos > 0 { 2 } else { 0 };
        let list = if self.version == Version::V5 { with_length(list_bytes) } else { 0 };
        2 + self.topic_bytes() + packet_id + list + self.payload_bytes
    }
}
