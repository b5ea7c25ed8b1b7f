//! The MQTT packet codec, 3.1.1 and 5.0: reading borrows from the receive buffer, writing appends to the outbox.
//!
//! Reading checks everything that the specifications call malformed: flags, lengths, UTF-8, property sets. Whether a
//! packet is allowed *now* is the session's affair.

use super::property::{self, Properties};

mod write;
pub use write::{
    AckKind, ConnAck, PublishHead, write_ack, write_connack, write_disconnect, write_pingresp, write_suback,
    write_unsuback,
};
pub(super) use write::{write_text, write_variable};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1, and 3.1, which a server reads in the same way
    V4,
    /// 5.0
    V5,
}

/// Why bytes are no packet that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// It cannot be read according to the specification (MQTT 5 §1.2); the text says what is wrong.
    Malformed(&'static str),
    /// It can be read and is not allowed.
    Protocol(&'static str),
    /// Longer than the server accepts.
    TooLarge,
    /// CONNECT names a protocol or a level that is not served.
    UnsupportedVersion,
}

impl PacketError {
    /// The reason code of MQTT 5 §2.4.
    pub fn reason(self) -> u8 {
        match self {
            PacketError::Malformed(_) => reason::MALFORMED_PACKET,
            PacketError::Protocol(_) => reason::PROTOCOL_ERROR,
            PacketError::TooLarge => reason::PACKET_TOO_LARGE,
            PacketError::UnsupportedVersion => reason::UNSUPPORTED_PROTOCOL_VERSION,
        }
    }
}

impl std::fmt::Display for PacketError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PacketError::Malformed(what) => write!(f, "malformed packet: {what}"),
            PacketError::Protocol(what) => write!(f, "protocol error: {what}"),
            PacketError::TooLarge => f.write_str("packet too large"),
            PacketError::UnsupportedVersion => f.write_str("unsupported protocol version"),
        }
    }
}

/// Reason codes, MQTT 5 §2.4.
pub mod reason {
    pub const SUCCESS: u8 = 0x00;
    pub const DISCONNECT_WITH_WILL: u8 = 0x04;
    pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
    pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub const CONTINUE_AUTHENTICATION: u8 = 0x18;
    pub const REAUTHENTICATE: u8 = 0x19;
    pub const UNSPECIFIED: u8 = 0x80;
    pub const MALFORMED_PACKET: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const IMPLEMENTATION_SPECIFIC: u8 = 0x83;
    pub const UNSUPPORTED_PROTOCOL_VERSION: u8 = 0x84;
    pub const CLIENT_IDENTIFIER_NOT_VALID: u8 = 0x85;
    pub const BAD_CREDENTIALS: u8 = 0x86;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const SERVER_UNAVAILABLE: u8 = 0x88;
    pub const SERVER_BUSY: u8 = 0x89;
    pub const BANNED: u8 = 0x8a;
    pub const SERVER_SHUTTING_DOWN: u8 = 0x8b;
    pub const BAD_AUTHENTICATION_METHOD: u8 = 0x8c;
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8d;
    pub const SESSION_TAKEN_OVER: u8 = 0x8e;
    pub const TOPIC_FILTER_INVALID: u8 = 0x8f;
    pub const TOPIC_NAME_INVALID: u8 = 0x90;
    pub const PACKET_IDENTIFIER_IN_USE: u8 = 0x91;
    pub const PACKET_IDENTIFIER_NOT_FOUND: u8 = 0x92;
    pub const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
    pub const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub const PACKET_TOO_LARGE: u8 = 0x95;
    pub const MESSAGE_RATE_TOO_HIGH: u8 = 0x96;
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    pub const ADMINISTRATIVE_ACTION: u8 = 0x98;
    pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
    pub const RETAIN_NOT_SUPPORTED: u8 = 0x9a;
    pub const QOS_NOT_SUPPORTED: u8 = 0x9b;
    pub const USE_ANOTHER_SERVER: u8 = 0x9c;
    pub const SERVER_MOVED: u8 = 0x9d;
    pub const SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: u8 = 0x9e;
    pub const CONNECTION_RATE_EXCEEDED: u8 = 0x9f;
    pub const MAXIMUM_CONNECT_TIME: u8 = 0xa0;
    pub const SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: u8 = 0xa1;
    pub const WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: u8 = 0xa2;
}

/// The reason codes that a client may give, by packet (§3.4.2.1, §3.5.2.1, §3.6.2.1, §3.7.2.1, §3.14.2.1, §3.15.2.1).
mod given {
    use super::reason::*;

    /// PUBACK and PUBREC [MQTT-3.4.2-1, MQTT-3.5.2-1].
    pub const RECEIVED: &[u8] = &[
        SUCCESS,
        NO_MATCHING_SUBSCRIBERS,
        UNSPECIFIED,
        IMPLEMENTATION_SPECIFIC,
        NOT_AUTHORIZED,
        TOPIC_NAME_INVALID,
        PACKET_IDENTIFIER_IN_USE,
        QUOTA_EXCEEDED,
        PAYLOAD_FORMAT_INVALID,
    ];
    /// PUBREL and PUBCOMP [MQTT-3.6.2-1, MQTT-3.7.2-1].
    pub const RELEASED: &[u8] = &[SUCCESS, PACKET_IDENTIFIER_NOT_FOUND];
    /// DISCONNECT [MQTT-3.14.2-1].
    pub const DISCONNECT: &[u8] = &[
        SUCCESS,
        DISCONNECT_WITH_WILL,
        UNSPECIFIED,
        MALFORMED_PACKET,
        PROTOCOL_ERROR,
        IMPLEMENTATION_SPECIFIC,
        TOPIC_NAME_INVALID,
        RECEIVE_MAXIMUM_EXCEEDED,
        TOPIC_ALIAS_INVALID,
        PACKET_TOO_LARGE,
        MESSAGE_RATE_TOO_HIGH,
        QUOTA_EXCEEDED,
        ADMINISTRATIVE_ACTION,
        PAYLOAD_FORMAT_INVALID,
    ];
    /// AUTH [MQTT-3.15.2-1].
    pub const AUTH: &[u8] = &[CONTINUE_AUTHENTICATION, REAUTHENTICATE];
}

/// CONNACK return codes, MQTT 3.1.1 §3.2.2.3.
pub mod return_code {
    pub const ACCEPTED: u8 = 0;
    pub const UNACCEPTABLE_PROTOCOL_VERSION: u8 = 1;
    pub const IDENTIFIER_REJECTED: u8 = 2;
    pub const SERVER_UNAVAILABLE: u8 = 3;
    pub const BAD_CREDENTIALS: u8 = 4;
    pub const NOT_AUTHORIZED: u8 = 5;
}

#[derive(Clone, Debug, PartialEq)]
pub struct Will<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    pub properties: Properties<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Connect<'a> {
    pub version: Version,
    pub clean: bool,
    /// Seconds; 0: never.
    pub keep_alive: u16,
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub properties: Properties<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: &'a str,
    /// Only for QoS above 0.
    pub packet_id: u16,
    pub properties: Properties<'a>,
    pub payload: &'a [u8],
}

/// One filter of a SUBSCRIBE packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter<'a> {
    pub filter: &'a str,
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// 0: send retained messages; 1: only if the subscription is new; 2: never.
    pub retain_handling: u8,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack<'a> {
    pub packet_id: u16,
    pub reason: u8,
    pub properties: Properties<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Packet<'a> {
    Connect(Box<Connect<'a>>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe { packet_id: u16, properties: Properties<'a>, filters: Vec<Filter<'a>> },
    Unsubscribe { packet_id: u16, properties: Properties<'a>, filters: Vec<&'a str> },
    PingReq,
    Disconnect { reason: u8, properties: Properties<'a> },
    Auth { reason: u8, properties: Properties<'a> },
}

/// A slice that is read from the front. Everything that reads a length reads it here.
#[derive(Clone, Copy)]
pub(super) struct Input<'a>(pub &'a [u8]);

type Result<T> = std::result::Result<T, PacketError>;

impl<'a> Input<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(PacketError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub fn binary(&mut self) -> Result<&'a [u8]> {
        let count = self.u16()?;
        self.take(usize::from(count))
    }

    /// UTF-8 without U+0000 [MQTT-1.5.4-1, MQTT-1.5.4-2].
    pub fn text(&mut self) -> Result<&'a str> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(bytes).map_err(|_| PacketError::Malformed("a string is not UTF-8"))?;
        // Without an early end: a few wide instructions for the short strings that these are.
        if bytes.iter().fold(false, |found, byte| found | (*byte == 0)) {
            return Err(PacketError::Malformed("a string contains U+0000"));
        }
        Ok(text)
    }

    /// A variable byte integer in its shortest form [MQTT-1.5.5-1].
    pub fn variable(&mut self) -> Result<u32> {
        match variable(self.0)? {
            Some((value, length)) => {
                self.0 = &self.0[length..];
                Ok(value)
            }
            None => Err(PacketError::Malformed("it ends too early")),
        }
    }

    /// A packet identifier: never 0 [MQTT-2.2.1-3].
    fn packet_id(&mut self) -> Result<u16> {
        match self.u16()? {
            0 => Err(PacketError::Protocol("the packet identifier is 0")),
            id => Ok(id),
        }
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(PacketError::Malformed("bytes follow the packet's content")) }
    }
}

/// The value and the length of a variable byte integer; `None`: more bytes are needed.
pub(super) fn variable(bytes: &[u8]) -> Result<Option<(u32, usize)>> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if index > 0 && *byte == 0 {
                return Err(PacketError::Malformed("a variable byte integer is longer than it needs to be"));
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(PacketError::Malformed("a variable byte integer of more than 4 bytes")) }
}

/// The length of the packet at the start of `input`, fixed header included, once that header is there.
pub fn packet_length(input: &[u8], bytes_max: usize) -> Result<Option<usize>> {
    let Some(rest) = input.get(1..) else { return Ok(None) };
    let Some((remaining, header)) = variable(rest)? else { return Ok(None) };
    let length = 1 + header + remaining as usize;
    if length > bytes_max { Err(PacketError::TooLarge) } else { Ok(Some(length)) }
}

/// The packet at the start of `input` and its length; `None`: more bytes are needed. CONNECT names its version itself;
/// `version` says how to read the others.
pub fn decode(input: &[u8], version: Version, bytes_max: usize) -> Result<Option<(Packet<'_>, usize)>> {
    let Some(length) = packet_length(input, bytes_max)? else { return Ok(None) };
    let Some(whole) = input.get(..length) else { return Ok(None) };
    let first = whole[0];
    let mut body = Input(&whole[1..]);
    body.variable()?;
    let flags = first & 0x0f;
    let expected_flags = match first >> 4 {
        3 => flags,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    if flags != expected_flags {
        return Err(PacketError::Malformed("reserved flags of the fixed header are set")); // [MQTT-2.1.3-1]
    }
    let packet = match first >> 4 {
        1 => Packet::Connect(Box::new(connect(&mut body)?)),
        3 => Packet::Publish(publish(flags, &mut body, version)?),
        4 => Packet::PubAck(ack(&mut body, version, given::RECEIVED)?),
        5 => Packet::PubRec(ack(&mut body, version, given::RECEIVED)?),
        6 => Packet::PubRel(ack(&mut body, version, given::RELEASED)?),
        7 => Packet::PubComp(ack(&mut body, version, given::RELEASED)?),
        8 => subscribe(&mut body, version)?,
        10 => unsubscribe(&mut body, version)?,
        12 => Packet::PingReq,
        14 => disconnect(&mut body, version)?,
        15 if version == Version::V5 => auth(&mut body)?,
        2 | 9 | 11 | 13 => return Err(PacketError::Protocol("only a server sends this packet")),
        _ => return Err(PacketError::Malformed("packet type 0 or 15 is reserved")),
    };
    body.end()?;
    Ok(Some((packet, length)))
}

#[inline(always)] // one copy of the packet less
fn properties<'a>(body: &mut Input<'a>, version: Version, allowed: property::Set) -> Result<Properties<'a>> {
    if version == Version::V4 { Ok(Properties::default()) } else { property::read(body, allowed) }
}

fn connect<'a>(body: &mut Input<'a>) -> Result<Connect<'a>> {
    let name = body.binary()?;
    let level = body.byte()?;
    let version = match (name, level) {
        (b"MQTT", 4) | (b"MQIsdp", 3) => Version::V4,
        (b"MQTT", 5) => Version::V5,
        _ => return Err(PacketError::UnsupportedVersion),
    };
    let flags = body.byte()?;
    if flags & 1 != 0 {
        return Err(PacketError::Malformed("the reserved CONNECT flag is set")); // [MQTT-3.1.2-3]
    }
    let has = |bit: u8| flags & bit != 0;
    let (will_qos, has_will) = (flags >> 3 & 3, has(4));
    if will_qos == 3 || (!has_will && flags & 0x38 != 0) {
        return Err(PacketError::Malformed("the will flags contradict each other")); // [MQTT-3.1.2-11] to -13
    }
    if version == Version::V4 && has(0x40) && !has(0x80) {
        return Err(PacketError::Malformed("a password without a user name")); // 3.1.1 [MQTT-3.1.2-22]
    }
    let keep_alive = body.u16()?;
    let connect_properties = properties(body, version, property::CONNECT)?;
    let client_id = body.text()?;
    let will = if has_will {
        let will_properties = properties(body, version, property::WILL)?;
        let topic = body.text()?;
        let payload = body.binary()?;
        Some(Will { topic, payload, qos: will_qos, retain: has(0x20), properties: will_properties })
    } else {
        None
    };
    let username = if has(0x80) { Some(body.text()?) } else { None };
    let password = if has(0x40) { Some(body.binary()?) } else { None };
    let properties = connect_properties;
    Ok(Connect { version, clean: has(2), keep_alive, client_id, will, username, password, properties })
}

#[inline(always)] // one copy of the packet less
fn publish<'a>(flags: u8, body: &mut Input<'a>, version: Version) -> Result<Publish<'a>> {
    let (dup, qos, retain) = (flags & 8 != 0, flags >> 1 & 3, flags & 1 != 0);
    if qos == 3 {
        return Err(PacketError::Malformed("QoS 3 does not exist")); // [MQTT-3.3.1-4]
    }
    if dup && qos == 0 {
        return Err(PacketError::Malformed("DUP is set on a QoS 0 message")); // [MQTT-3.3.1-2]
    }
    let topic = body.text()?;
    let packet_id = if qos > 0 { body.packet_id()? } else { 0 };
    let properties = properties(body, version, property::PUBLISH)?;
    let payload = std::mem::take(&mut body.0);
    Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload })
}

#[inline(always)] // one copy of the packet less
fn ack<'a>(body: &mut Input<'a>, version: Version, codes: &[u8]) -> Result<Ack<'a>> {
    let packet_id = body.packet_id()?;
    let (reason, properties) = reason_and_properties(body, version, codes, property::PUBACK)?;
    Ok(Ack { packet_id, reason, properties })
}

fn subscribe<'a>(body: &mut Input<'a>, version: Version) -> Result<Packet<'a>> {
    let packet_id = body.packet_id()?;
    let properties = properties(body, version, property::SUBSCRIBE)?;
    let mut filters = Vec::new();
    while !body.0.is_empty() {
        let filter = body.text()?;
        let options = body.byte()?;
        let reserved = if version == Version::V5 { 0xc0 } else { 0xfc };
        let (qos, retain_handling) = (options & 3, options >> 4 & 3);
        if options & reserved != 0 || qos == 3 {
            return Err(PacketError::Malformed("reserved subscription options are set")); // [MQTT-3.8.3-5]
        }
        if retain_handling == 3 {
            return Err(PacketError::Protocol("retain handling 3 does not exist")); // §3.8.3.1
        }
        let (no_local, retain_as_published) = (options & 4 != 0, options & 8 != 0);
        if no_local && filter.starts_with("$share/") {
            return Err(PacketError::Protocol("no local on a shared subscription")); // [MQTT-3.8.3-4]
        }
        filters.push(Filter { filter, qos, no_local, retain_as_published, retain_handling });
    }
    if filters.is_empty() {
        return Err(PacketError::Protocol("SUBSCRIBE without a filter")); // [MQTT-3.8.3-2]
    }
    Ok(Packet::Subscribe { packet_id, properties, filters })
}

fn unsubscribe<'a>(body: &mut Input<'a>, version: Version) -> Result<Packet<'a>> {
    let packet_id = body.packet_id()?;
    let properties = properties(body, version, property::UNSUBSCRIBE)?;
    let mut filters = Vec::new();
    while !body.0.is_empty() {
        filters.push(body.text()?);
    }
    if filters.is_empty() {
        return Err(PacketError::Protocol("UNSUBSCRIBE without a filter")); // [MQTT-3.10.3-2]
    }
    Ok(Packet::Unsubscribe { packet_id, properties, filters })
}

fn disconnect<'a>(body: &mut Input<'a>, version: Version) -> Result<Packet<'a>> {
    let (reason, properties) = reason_and_properties(body, version, given::DISCONNECT, property::DISCONNECT)?;
    Ok(Packet::Disconnect { reason, properties })
}

fn auth<'a>(body: &mut Input<'a>) -> Result<Packet<'a>> {
    let (reason, properties) = reason_and_properties(body, Version::V5, given::AUTH, property::AUTH)?;
    if properties.authentication_method().is_none() {
        return Err(PacketError::Protocol("AUTH without a method")); // §3.15.2.2.2
    }
    Ok(Packet::Auth { reason, properties })
}

/// What is left out is success, and no properties.
#[inline(always)] // one copy of the packet less
fn reason_and_properties<'a>(
    body: &mut Input<'a>,
    version: Version,
    codes: &[u8],
    allowed: property::Set,
) -> Result<(u8, Properties<'a>)> {
    if version == Version::V4 {
        return Ok((reason::SUCCESS, Properties::default()));
    }
    let reason = if body.0.is_empty() { reason::SUCCESS } else { body.byte()? };
    if !codes.contains(&reason) {
        return Err(PacketError::Protocol("a reason code that this packet cannot have"));
    }
    let properties = if body.0.is_empty() { Properties::default() } else { property::read(body, allowed)? };
    Ok((reason, properties))
}

#[cfg(test)]
mod tests;
