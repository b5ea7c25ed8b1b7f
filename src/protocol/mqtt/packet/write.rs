//! The packets that a server sends. How long each becomes is known before its first byte is written: nothing is put
//! together elsewhere and copied.

use super::super::property::id::{
    ASSIGNED_CLIENT_IDENTIFIER, CONTENT_TYPE, MAXIMUM_PACKET_SIZE, MESSAGE_EXPIRY_INTERVAL, PAYLOAD_FORMAT_INDICATOR,
    REASON_STRING, RECEIVE_MAXIMUM, RESPONSE_INFORMATION, SERVER_KEEP_ALIVE, SESSION_EXPIRY_INTERVAL,
    SUBSCRIPTION_IDENTIFIER, TOPIC_ALIAS, TOPIC_ALIAS_MAXIMUM,
};
use super::{Version, reason};

/// Bytes of a variable byte integer; more than 4 are none that may be sent [MQTT-1.5.5].
#[inline]
fn variable_bytes(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        0x20_0000..=0xfff_ffff => 4,
        _ => 5,
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

/// Zeros that are appended without a call, as a few wide stores.
const ROOM: usize = 64;

/// Room for a packet, or for what comes before its payload, that is filled from the front.
struct Output<'a>(&'a mut [u8]);

impl<'a> Output<'a> {
    /// At the end of `out`.
    #[inline]
    fn new(bytes: usize, out: &'a mut Vec<u8>) -> Output<'a> {
        let start = out.len();
        if bytes <= ROOM {
            out.extend_from_slice(&[0; ROOM]);
            out.truncate(start + bytes);
        } else {
            out.resize(start + bytes, 0);
        }
        Output(&mut out[start..])
    }

    /// With the fixed header of a packet written: `remaining` bytes follow it, of which all but `elsewhere` go in here.
    #[inline]
    fn packet(first: u8, remaining: usize, elsewhere: usize, out: &'a mut Vec<u8>) -> Output<'a> {
        let mut output = Output::new(1 + with_length(remaining) - elsewhere, out);
        output.array([first]);
        output.variable(remaining as u32);
        output
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        let (here, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        self.0 = rest;
    }

    /// The same for few bytes, without a call: as two pieces of one size that overlap, the second where they end.
    #[inline]
    fn short(&mut self, bytes: &[u8]) {
        fn pieces<const N: usize>(bytes: &[u8], here: &mut [u8]) -> Option<()> {
            *here.first_chunk_mut::<N>()? = *bytes.first_chunk()?;
            *here.last_chunk_mut::<N>()? = *bytes.last_chunk()?;
            Some(())
        }
        let (here, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        match bytes.len() {
            0 => {}
            length @ 1..4 => [0, length / 2, length - 1].iter().for_each(|at| here[*at] = bytes[*at]),
            4..8 => _ = pieces::<4>(bytes, here),
            8..16 => _ = pieces::<8>(bytes, here),
            16..32 => _ = pieces::<16>(bytes, here),
            _ => here.copy_from_slice(bytes),
        }
        self.0 = rest;
    }

    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes(&bytes);
    }

    #[inline]
    fn u16(&mut self, value: u16) {
        self.array(value.to_be_bytes());
    }

    #[inline]
    fn variable(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.array([value as u8 | 0x80]);
            value >>= 7;
        }
        self.array([value as u8]);
    }

    // Properties.

    fn short_property(&mut self, id: u8, value: u16) {
        self.array([id]);
        self.u16(value);
    }

    fn long_property(&mut self, id: u8, value: u32) {
        self.array([id]);
        self.array(value.to_be_bytes());
    }

    fn text_property(&mut self, id: u8, text: &str) {
        self.short_property(id, text.len() as u16);
        self.bytes(text.as_bytes());
    }

    /// A property list of at most a reason string.
    fn reason_string(&mut self, text: Option<&str>) {
        self.variable(text_bytes(text) as u32);
        if let Some(text) = text {
            self.text_property(REASON_STRING, text);
        }
    }
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
        return Output::packet(0x20, 2, 0, out).array(head);
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
    let mut output = Output::packet(0x20, 2 + with_length(list_bytes), 0, out);
    output.array(head);
    output.variable(list_bytes as u32);
    for (id, value) in longs {
        value.into_iter().for_each(|value| output.long_property(id, value));
    }
    for (id, value) in shorts {
        value.into_iter().for_each(|value| output.short_property(id, value));
    }
    for (id, text) in texts {
        text.into_iter().for_each(|text| output.text_property(id, text));
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
    let mut output = Output::packet(kind as u8, 3 + with_length(text_bytes(reason_string)), 0, out);
    output.array([high, low, code]);
    output.reason_string(reason_string);
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
    let mut output = Output::packet(first, 2 + list_bytes + codes.len(), 0, out);
    output.u16(packet_id);
    output.bytes(&[0][..list_bytes]);
    output.bytes(codes);
}

pub fn write_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Only version 5 has a DISCONNECT from the server.
pub fn write_disconnect(code: u8, text: Option<&str>, out: &mut Vec<u8>) {
    let mut output = Output::packet(0xe0, 1 + with_length(text_bytes(text)), 0, out);
    output.array([code]);
    output.reason_string(text);
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
    /// 0: bytes; 1: UTF-8.
    pub payload_format: Option<u8>,
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
        let list_bytes = self.list_bytes();
        let first = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let mut output = Output::packet(first, self.remaining_bytes(list_bytes), self.payload_bytes, out);
        output.u16(self.topic_bytes() as u16);
        output.short(self.topic.0.as_bytes());
        output.short(self.topic.1.as_bytes());
        output.short(self.topic.2.as_bytes());
        let behind = output.0.len();
        if self.qos > 0 {
            output.array([0, 0]);
        }
        if self.version == Version::V5 {
            output.variable(list_bytes as u32);
            if list_bytes > 0 {
                self.write_list(output);
            }
        }
        (self.qos > 0).then(|| out.len() - behind)
    }

    #[inline(never)] // most have none, and are written faster without it in the way
    fn write_list(&self, mut output: Output<'_>) {
        if let Some(format) = self.payload_format {
            output.array([PAYLOAD_FORMAT_INDICATOR, format]);
        }
        if let Some(text) = self.content_type {
            output.text_property(CONTENT_TYPE, text);
        }
        if let Some(seconds) = self.message_expiry {
            output.long_property(MESSAGE_EXPIRY_INTERVAL, seconds);
        }
        if let Some(alias) = self.topic_alias {
            output.short_property(TOPIC_ALIAS, alias);
        }
        for identifier in self.subscription_identifiers {
            output.array([SUBSCRIPTION_IDENTIFIER]);
            output.variable(*identifier);
        }
        output.bytes(self.properties);
    }

    #[inline]
    fn topic_bytes(&self) -> usize {
        self.topic.0.len() + self.topic.1.len() + self.topic.2.len()
    }

    /// Bytes of the property list without its length.
    #[inline(never)]
    fn list_bytes(&self) -> usize {
        if self.version == Version::V4 {
            return 0;
        }
        let identifiers = self.subscription_identifiers.iter();
        2 * usize::from(self.payload_format.is_some())
            + text_bytes(self.content_type)
            + 5 * usize::from(self.message_expiry.is_some())
            + 3 * usize::from(self.topic_alias.is_some())
            + identifiers.map(|identifier| 1 + variable_bytes(*identifier as usize)).sum::<usize>()
            + self.properties.len()
    }

    /// Bytes behind the fixed header.
    #[inline]
    fn remaining_bytes(&self, list_bytes: usize) -> usize {
        let packet_id = if self.qos > 0 { 2 } else { 0 };
        let list = if self.version == Version::V5 { with_length(list_bytes) } else { 0 };
        2 + self.topic_bytes() + packet_id + list + self.payload_bytes
    }
}
