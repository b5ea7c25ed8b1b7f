//! Properties of MQTT 5 packets (§2.2.2): a list is checked in one pass when its packet is read (each identifier against
//! the set that its packet allows, each value, nothing single given twice) and kept as the bytes that it is. Values are
//! found in those bytes when they are asked for.

use super::packet::{Input, PacketError, variable};

/// Property identifiers, MQTT 5 §2.2.2.2.
pub mod id {
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 1;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 2;
    pub const CONTENT_TYPE: u8 = 3;
    pub const RESPONSE_TOPIC: u8 = 8;
    pub const CORRELATION_DATA: u8 = 9;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 11;
    pub const SESSION_EXPIRY_INTERVAL: u8 = 17;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 18;
    pub const SERVER_KEEP_ALIVE: u8 = 19;
    pub const AUTHENTICATION_METHOD: u8 = 21;
    pub const AUTHENTICATION_DATA: u8 = 22;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 23;
    pub const WILL_DELAY_INTERVAL: u8 = 24;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 25;
    pub const RESPONSE_INFORMATION: u8 = 26;
    pub const REASON_STRING: u8 = 31;
    pub const RECEIVE_MAXIMUM: u8 = 33;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    pub const TOPIC_ALIAS: u8 = 35;
    pub const USER_PROPERTY: u8 = 38;
    pub const MAXIMUM_PACKET_SIZE: u8 = 39;
}

/// Bit n stands for property identifier n.
pub type Set = u64;

const fn set(ids: &[u8]) -> Set {
    let mut bits = 0;
    let mut at = 0;
    while at < ids.len() {
        bits |= 1 << ids[at];
        at += 1;
    }
    bits
}

pub const CONNECT: Set = set(&[
    id::SESSION_EXPIRY_INTERVAL,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
    id::REQUEST_PROBLEM_INFORMATION,
    id::REQUEST_RESPONSE_INFORMATION,
    id::RECEIVE_MAXIMUM,
    id::TOPIC_ALIAS_MAXIMUM,
    id::USER_PROPERTY,
    id::MAXIMUM_PACKET_SIZE,
]);
pub const WILL: Set = set(&[
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::WILL_DELAY_INTERVAL,
    id::USER_PROPERTY,
]);
/// From a client: without a subscription identifier [MQTT-3.3.4-6].
pub const PUBLISH: Set = set(&[
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::TOPIC_ALIAS,
    id::USER_PROPERTY,
]);
pub const PUBACK: Set = set(&[id::REASON_STRING, id::USER_PROPERTY]);
pub const SUBSCRIBE: Set = set(&[id::SUBSCRIPTION_IDENTIFIER, id::USER_PROPERTY]);
pub const UNSUBSCRIBE: Set = set(&[id::USER_PROPERTY]);
/// From a client: without a server reference.
pub const DISCONNECT: Set = set(&[id::SESSION_EXPIRY_INTERVAL, id::REASON_STRING, id::USER_PROPERTY]);
pub const AUTH: Set = set(&[id::AUTHENTICATION_METHOD, id::AUTHENTICATION_DATA, id::REASON_STRING, id::USER_PROPERTY]);

/// What goes on to subscribers with the message, payload format indicator aside [MQTT-3.3.2-15, -16, -17, -20].
const FORWARDED: [u8; 3] = [id::CONTENT_TYPE, id::RESPONSE_TOPIC, id::CORRELATION_DATA];

/// The properties of a packet: its own bytes, checked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Properties<'a> {
    /// The list without its length.
    list: &'a [u8],
    content_type: Option<&'a str>,
    /// Which there are.
    given: Set,
}

impl<'a> Properties<'a> {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn content_type(&self) -> Option<&'a str> {
        self.content_type
    }

    /// 0: bytes; 1: UTF-8.
    pub fn payload_format(&self) -> Option<u8> {
        self.byte(id::PAYLOAD_FORMAT_INDICATOR)
    }

    pub fn message_expiry_interval(&self) -> Option<u32> {
        self.long(id::MESSAGE_EXPIRY_INTERVAL)
    }

    pub fn response_topic(&self) -> Option<&'a str> {
        self.text(id::RESPONSE_TOPIC)
    }

    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.value(id::CORRELATION_DATA).and_then(|value| value.get(2..))
    }

    pub fn topic_alias(&self) -> Option<u16> {
        self.short(id::TOPIC_ALIAS)
    }

    pub fn subscription_identifier(&self) -> Option<u32> {
        let value = self.value(id::SUBSCRIPTION_IDENTIFIER)?;
        variable(value).ok()?.map(|(value, _)| value)
    }

    pub fn session_expiry_interval(&self) -> Option<u32> {
        self.long(id::SESSION_EXPIRY_INTERVAL)
    }

    pub fn authentication_method(&self) -> Option<&'a str> {
        self.text(id::AUTHENTICATION_METHOD)
    }

    pub fn request_problem_information(&self) -> Option<bool> {
        self.byte(id::REQUEST_PROBLEM_INFORMATION).map(|value| value == 1)
    }

    pub fn request_response_information(&self) -> Option<bool> {
        self.byte(id::REQUEST_RESPONSE_INFORMATION).map(|value| value == 1)
    }

    pub fn receive_maximum(&self) -> Option<u16> {
        self.short(id::RECEIVE_MAXIMUM)
    }

    pub fn topic_alias_maximum(&self) -> Option<u16> {
        self.short(id::TOPIC_ALIAS_MAXIMUM)
    }

    pub fn maximum_packet_size(&self) -> Option<u32> {
        self.long(id::MAXIMUM_PACKET_SIZE)
    }

    pub fn will_delay_interval(&self) -> Option<u32> {
        self.long(id::WILL_DELAY_INTERVAL)
    }

    pub fn reason_string(&self) -> Option<&'a str> {
        self.text(id::REASON_STRING)
    }

    /// The value of a user property; of several the last.
    pub fn user(&self, name: &str) -> Option<&'a str> {
        if !self.has(id::USER_PROPERTY) {
            return None;
        }
        let values = walk(self.list).filter(|property| property[0] == id::USER_PROPERTY).filter_map(|property| {
            let mut input = Input(&property[1..]);
            let key = input.binary().ok()?;
            (key == name.as_bytes()).then(|| input.text().ok())?
        });
        values.last()
    }

    /// Appends what a server passes on to subscribers, encoded as it stands in a packet: payload format indicator,
    /// content type, response topic, correlation data, user properties in their order
    /// [MQTT-3.3.2-4, -15, -16, -17, -18, -20].
    pub fn forwarded(&self, out: &mut Vec<u8>) {
        if let Some(format) = self.payload_format() {
            out.extend_from_slice(&[id::PAYLOAD_FORMAT_INDICATOR, format]);
        }
        for id in FORWARDED {
            if let Some(value) = self.value(id) {
                out.push(id);
                out.extend_from_slice(value);
            }
        }
        if self.has(id::USER_PROPERTY) {
            for property in walk(self.list).filter(|property| property[0] == id::USER_PROPERTY) {
                out.extend_from_slice(property);
            }
        }
    }

    fn has(&self, id: u8) -> bool {
        self.given & 1 << id != 0
    }

    /// The value of a property as it is encoded.
    fn value(&self, id: u8) -> Option<&'a [u8]> {
        if !self.has(id) {
            return None;
        }
        walk(self.list).find(|property| property[0] == id).map(|property| &property[1..])
    }

    fn byte(&self, id: u8) -> Option<u8> {
        self.value(id)?.first().copied()
    }

    fn short(&self, id: u8) -> Option<u16> {
        Input(self.value(id)?).u16().ok()
    }

    fn long(&self, id: u8) -> Option<u32> {
        Input(self.value(id)?).u32().ok()
    }

    fn text(&self, id: u8) -> Option<&'a str> {
        Input(self.value(id)?).text().ok()
    }
}

/// The properties of a list one by one, each as it is encoded, identifier included. Ends where the list is not sound.
fn walk(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (property, behind) = rest.split_at_checked(1 + value_bytes(rest)?)?;
        rest = behind;
        Some(property)
    })
}

/// How long the value of the first property of a list is.
fn value_bytes(list: &[u8]) -> Option<usize> {
    let (id, value) = list.split_first()?;
    let prefixed = |at: usize| Some(2 + usize::from(u16::from_be_bytes([*value.get(at)?, *value.get(at + 1)?])));
    match *id {
        id::PAYLOAD_FORMAT_INDICATOR | id::REQUEST_PROBLEM_INFORMATION | id::REQUEST_RESPONSE_INFORMATION => Some(1),
        id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => Some(2),
        id::MESSAGE_EXPIRY_INTERVAL
        | id::SESSION_EXPIRY_INTERVAL
        | id::WILL_DELAY_INTERVAL
        | id::MAXIMUM_PACKET_SIZE => Some(4),
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::CORRELATION_DATA
        | id::AUTHENTICATION_METHOD
        | id::AUTHENTICATION_DATA
        | id::REASON_STRING => prefixed(0),
        id::SUBSCRIPTION_IDENTIFIER => variable(value).ok()?.map(|(_, length)| length),
        id::USER_PROPERTY => {
            let key = prefixed(0)?;
            Some(key + prefixed(key)?)
        }
        _ => None,
    }
}

const UNKNOWN: PacketError = PacketError::Malformed("an unknown property, or one that belongs to another packet");

/// Reads the length and the list of properties.
#[inline(always)]
pub(super) fn read<'a>(body: &mut Input<'a>, allowed: Set) -> Result<Properties<'a>, PacketError> {
    if let [0, rest @ ..] = body.0 {
        body.0 = rest;
        return Ok(Properties::default());
    }
    read_list(body, allowed)
}

fn read_list<'a>(body: &mut Input<'a>, allowed: Set) -> Result<Properties<'a>, PacketError> {
    let length = body.variable()? as usize;
    let list = body.take(length)?;
    let mut input = Input(list);
    let mut content_type = None;
    let mut given: Set = 0;
    while let Some((id, rest)) = input.0.split_first() {
        let bit = 1u64.checked_shl(u32::from(*id)).unwrap_or(0);
        if bit & allowed == 0 {
            return Err(UNKNOWN);
        }
        if bit & given != 0 && *id != id::USER_PROPERTY {
            return Err(PacketError::Protocol("a property is given twice"));
        }
        given |= bit;
        input.0 = rest;
        match *id {
            id::USER_PROPERTY => _ = (input.text()?, input.text()?),
            id::CONTENT_TYPE => content_type = Some(input.text()?),
            id::RESPONSE_TOPIC | id::AUTHENTICATION_METHOD | id::REASON_STRING => _ = input.text()?,
            id::CORRELATION_DATA | id::AUTHENTICATION_DATA => _ = input.binary()?,
            id::PAYLOAD_FORMAT_INDICATOR | id::REQUEST_PROBLEM_INFORMATION | id::REQUEST_RESPONSE_INFORMATION => {
                if input.byte()? > 1 {
                    return Err(PacketError::Protocol("a yes-or-no property is neither 0 nor 1"));
                }
            }
            id::MESSAGE_EXPIRY_INTERVAL | id::SESSION_EXPIRY_INTERVAL | id::WILL_DELAY_INTERVAL => _ = input.u32()?,
            // 0 as an alias has a reason code of its own (§3.3.2.3.4), which the session gives.
            id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => _ = input.u16()?,
            id::RECEIVE_MAXIMUM => not_zero(u32::from(input.u16()?))?,
            id::MAXIMUM_PACKET_SIZE => not_zero(input.u32()?)?,
            id::SUBSCRIPTION_IDENTIFIER => not_zero(input.variable()?)?,
            _ => return Err(UNKNOWN),
        }
    }
    if given & (1 << id::AUTHENTICATION_DATA | 1 << id::AUTHENTICATION_METHOD) == 1 << id::AUTHENTICATION_DATA {
        // §3.1.2.11.10; of AUTH, §3.15.2.2.2.
        return Err(PacketError::Protocol("authentication data without a method"));
    }
    Ok(Properties { list, content_type, given })
}

/// §3.1.2.11.3, §3.1.2.11.4, §3.8.2.1.2.
fn not_zero(value: u32) -> Result<(), PacketError> {
    if value == 0 { Err(PacketError::Protocol("a property is 0 that must not be")) } else { Ok(()) }
}

// What `forwarded` has written, when it comes back from the log: nothing here relies on its being sound.

/// Splits this property off the start of a stored list; if it is cut off, nothing of the list can be used.
fn leading(stored: &[u8], id: u8) -> Option<(&[u8], &[u8])> {
    let split = || stored.split_at_checked(1 + value_bytes(stored)?);
    (stored.first() == Some(&id)).then(|| split().unwrap_or_default())
}

/// The payload format indicator among stored properties.
pub fn payload_format_of(stored: &[u8]) -> Option<u8> {
    let (property, _) = leading(stored, id::PAYLOAD_FORMAT_INDICATOR)?;
    property.get(1).copied()
}

/// The content type among stored properties.
pub fn content_type_of(stored: &[u8]) -> Option<&str> {
    let stored = leading(stored, id::PAYLOAD_FORMAT_INDICATOR).map_or(stored, |(_, rest)| rest);
    let (property, _) = leading(stored, id::CONTENT_TYPE)?;
    std::str::from_utf8(property.get(3..)?).ok()
}

/// Stored properties behind payload format indicator and content type.
pub fn without_format(stored: &[u8]) -> &[u8] {
    let stored = leading(stored, id::PAYLOAD_FORMAT_INDICATOR).map_or(stored, |(_, rest)| rest);
    leading(stored, id::CONTENT_TYPE).map_or(stored, |(_, rest)| rest)
}
