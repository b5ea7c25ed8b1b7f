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

const EARLY: PacketError = PacketError::Malformed("it ends too early");

impl<'a> Input<'a> {
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(EARLY)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(EARLY)?;
        self.0 = rest;
        Ok(*taken)
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8> {
        self.array().map(u8::from_be_bytes)
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub fn binary(&mut self) -> Result<&'a [u8]> {
        let count = self.u16()?;
        self.take(usize::from(count))
    }

    /// UTF-8 without U+0000 [MQTT-1.5.4-1, MQTT-1.5.4-2].
    #[inline]
    pub fn text(&mut self) -> Result<&'a str> {
        let bytes = self.binary()?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !has_zero(bytes) => Ok(text),
            Ok(_) => Err(PacketError::Malformed("a string contains U+0000")),
            Err(_) => Err(PacketError::Malformed("a string is not UTF-8")),
        }
    }

    /// A variable byte integer in its shortest form [MQTT-1.5.5-1].
    #[inline]
    pub fn variable(&mut self) -> Result<u32> {
        let (value, length) = variable(self.0)?.ok_or(EARLY)?;
        self.0 = &self.0[length..];
        Ok(value)
    }

    /// A packet identifier: never 0 [MQTT-2.2.1-3].
    #[inline]
    fn packet_id(&mut self) -> Result<u16> {
        match self.u16()? {
            0 => Err(PacketError::Protocol("the packet identifier is 0")),
            id => Ok(id),
        }
    }
}

/// Whether one of the bytes is 0, eight at a time: what lies beyond the last whole eight is looked at together with what
/// is before it.
#[inline]
fn has_zero(bytes: &[u8]) -> bool {
    let in_word = |word: u64| word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
    let Some(last) = bytes.last_chunk() else { return bytes.contains(&0) };
    let (words, _) = bytes.as_chunks();
    words.iter().fold(in_word(u64::from_ne_bytes(*last)), |found, word| found | in_word(u64::from_ne_bytes(*word))) != 0
}

/// The value and the length of a variable byte integer; `None`: more bytes are needed.
#[inline]
pub(super) fn variable(bytes: &[u8]) -> Result<Option<(u32, usize)>> {
    match bytes {
        [byte, ..] if *byte < 0x80 => Ok(Some((u32::from(*byte), 1))),
        _ => long_variable(bytes),
    }
}

fn long_variable(bytes: &[u8]) -> Result<Option<(u32, usize)>> {
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

/// Where the content of the packet at the start of `input` begins and ends, once its fixed header is there.
#[inline]
fn content(input: &[u8], bytes_max: usize) -> Result<Option<(usize, usize)>> {
    let Some(rest) = input.get(1..) else { return Ok(None) };
    let Some((remaining, header)) = variable(rest)? else { return Ok(None) };
    let length = 1 + header + remaining as usize;
    if length > bytes_max { Err(PacketError::TooLarge) } else { Ok(Some((1 + header, length))) }
}

/// The length of the packet at the start of `input`, fixed header included, once that header is there.
pub fn packet_length(input: &[u8], bytes_max: usize) -> Result<Option<usize>> {
    Ok(content(input, bytes_max)?.map(|(_, end)| end))
}

/// What [`decode`] gives. A packet is large for a result: whatever reads one builds this itself and at once, for handing
/// parts of it on costs more than reading them.
type Decoded<'a> = Result<Option<(Packet<'a>, usize)>>;

/// The packet at the start of `input` and its length; `None`: more bytes are needed. CONNECT names its version itself;
/// `version` says how to read the others.
pub fn decode(input: &[u8], version: Version, bytes_max: usize) -> Result<Option<(Packet<'_>, usize)>> {
    let Some((begin, length)) = content(input, bytes_max)? else { return Ok(None) };
    let Some(body) = input.get(begin..length).map(Input) else { return Ok(None) };
    let first = input[0];
    match first {
        0x30..=0x3f => publish(first, body, version, length),
        0x40 => ack(body, version, given::RECEIVED, length, Packet::PubAck),
        0x50 => ack(body, version, given::RECEIVED, length, Packet::PubRec),
        0x62 => ack(body, version, given::RELEASED, length, Packet::PubRel),
        0x70 => ack(body, version, given::RELEASED, length, Packet::PubComp),
        0x82 => subscribe(body, version, length),
        0xa2 => unsubscribe(body, version, length),
        0xc0 => whole(Packet::PingReq, body, length),
        0xe0 => disconnect(body, version, length),
        0x10 => connect(body, length),
        0xf0 if version == Version::V5 => auth(body, length),
        0x20 | 0x90 | 0xb0 | 0xd0 => Err(PacketError::Protocol("only a server sends this packet")),
        0x00 | 0xf0 => Err(PacketError::Malformed("packet type 0 or 15 is reserved")),
        _ => Err(PacketError::Malformed("reserved flags of the fixed header are set")), // [MQTT-2.1.3-1]
    }
}

#[inline(always)]
fn whole<'a>(packet: Packet<'a>, rest: Input<'a>, length: usize) -> Decoded<'a> {
    if rest.0.is_empty() {
        Ok(Some((packet, length)))
    } else {
        Err(PacketError::Malformed("bytes follow the packet's content"))
    }
}

#[inline(always)]
fn properties<'a>(body: &mut Input<'a>, version: Version, allowed: property::Set) -> Result<Properties<'a>> {
    if version == Version::V4 { Ok(Properties::default()) } else { property::read(body, allowed) }
}

fn connect<'a>(mut body: Input<'a>, length: usize) -> Decoded<'a> {
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
    let connect_properties = properties(&mut body, version, property::CONNECT)?;
    let client_id = body.text()?;
    let will = if has_will {
        let will_properties = properties(&mut body, version, property::WILL)?;
        let topic = body.text()?;
        let payload = body.binary()?;
        Some(Will { topic, payload, qos: will_qos, retain: has(0x20), properties: will_properties })
    } else {
        None
    };
    let username = if has(0x80) { Some(body.text()?) } else { None };
    let password = if has(0x40) { Some(body.binary()?) } else { None };
    let properties = connect_properties;
    let connect = Connect { version, clean: has(2), keep_alive, client_id, will, username, password, properties };
    whole(Packet::Connect(Box::new(connect)), body, length)
}

fn publish<'a>(first: u8, mut body: Input<'a>, version: Version, length: usize) -> Decoded<'a> {
    let (dup, qos, retain) = (first & 8 != 0, first >> 1 & 3, first & 1 != 0);
    if qos == 3 {
        return Err(PacketError::Malformed("QoS 3 does not exist")); // [MQTT-3.3.1-4]
    }
    if dup && qos == 0 {
        return Err(PacketError::Malformed("DUP is set on a QoS 0 message")); // [MQTT-3.3.1-2]
    }
    let topic = body.text()?;
    let packet_id = if qos > 0 { body.packet_id()? } else { 0 };
    let properties = properties(&mut body, version, property::PUBLISH)?;
    Ok(Some((Packet::Publish(Publish { dup, qos, retain, topic, packet_id, properties, payload: body.0 }), length)))
}

#[inline(always)]
fn ack<'a>(
    mut body: Input<'a>,
    version: Version,
    codes: &[u8],
    length: usize,
    kind: impl FnOnce(Ack<'a>) -> Packet<'a>,
) -> Decoded<'a> {
    let packet_id = body.packet_id()?;
    let (reason, properties) = reason_and_properties(&mut body, version, codes, property::PUBACK)?;
    whole(kind(Ack { packet_id, reason, properties }), body, length)
}

fn subscribe<'a>(mut body: Input<'a>, version: Version, length: usize) -> Decoded<'a> {
    let packet_id = body.packet_id()?;
    let properties = properties(&mut body, version, property::SUBSCRIBE)?;
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
    Ok(Some((Packet::Subscribe { packet_id, properties, filters }, length)))
}

fn unsubscribe<'a>(mut body: Input<'a>, version: Version, length: usize) -> Decoded<'a> {
    let packet_id = body.packet_id()?;
    let properties = properties(&mut body, version, property::UNSUBSCRIBE)?;
    let mut filters = Vec::new();
    while !body.0.is_empty() {
        filters.push(body.text()?);
    }
    if filters.is_empty() {
        return Err(PacketError::Protocol("UNSUBSCRIBE without a filter")); // [MQTT-3.10.3-2]
    }
    Ok(Some((Packet::Unsubscribe { packet_id, properties, filters }, length)))
}

fn disconnect<'a>(mut body: Input<'a>, version: Version, length: usize) -> Decoded<'a> {
    let (reason, properties) = reason_and_properties(&mut body, version, given::DISCONNECT, property::DISCONNECT)?;
    whole(Packet::Disconnect { reason, properties }, body, length)
}

fn auth<'a>(mut body: Input<'a>, length: usize) -> Decoded<'a> {
    let (reason, properties) = reason_and_properties(&mut body, Version::V5, given::AUTH, property::AUTH)?;
    if properties.authentication_method().is_none() {
        return Err(PacketError::Protocol("AUTH without a method")); // §3.15.2.2.2
    }
    whole(Packet::Auth { reason, properties }, body, length)
}

/// What is left out is success, and no properties.
#[inline(always)]
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
