//! Properties of MQTT 5 packets (§2.2.2): read in one pass over the bytes, each identifier checked against the set that
//! its packet allows, each single one refused when it is given twice.

use super::packet::{Input, PacketError, write_text};

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
    pub const REASON_STRING: u8 = 31;
    pub const RECEIVE_MAXIMUM: u8 = 33;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    pub const TOPIC_ALIAS: u8 = 35;
    pub const MAXIMUM_QOS: u8 = 36;
    pub const USER_PROPERTY: u8 = 38;
    pub const MAXIMUM_PACKET_SIZE: u8 = 39;
    pub const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 41;
    pub const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 42;
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

/// The properties of a packet; those that this server takes no notice of are checked and left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Properties<'a> {
    pub content_type: Option<&'a str>,
    pub payload_is_text: bool,
    pub response_topic: Option<&'a str>,
    pub subscription_identifier: Option<u32>,
    pub session_expiry_interval: Option<u32>,
    pub authentication_method: Option<&'a str>,
    pub request_problem_information: Option<bool>,
    pub receive_maximum: Option<u16>,
    pub topic_alias: Option<u16>,
    pub maximum_packet_size: Option<u32>,
    /// All user properties, as they stand in the packet.
    user: UserProperties<'a>,
}

/// The part of the packet that holds user properties, other properties in between.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct UserProperties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// The value of a user property; of several the last.
    pub fn user(&self, name: &str) -> Option<&'a str> {
        let mut found = None;
        let mut input = Input(self.user.0);
        while !input.0.is_empty() {
            match property(&mut input) {
                Ok(Property::User(key, value)) if key == name => found = Some(value),
                Ok(_) => {}
                Err(_) => break, // not reached: what was read once reads again
            }
        }
        found
    }
}

enum Property<'a> {
    Byte(u8, u8),
    Short(u8, u16),
    Long(u8, u32),
    Text(u8, &'a str),
    Binary,
    User(&'a str, &'a str),
}

fn property<'a>(input: &mut Input<'a>) -> Result<Property<'a>, PacketError> {
    let id = input.byte()?;
    Ok(match id {
        id::PAYLOAD_FORMAT_INDICATOR | id::REQUEST_PROBLEM_INFORMATION | id::REQUEST_RESPONSE_INFORMATION => {
            match input.byte()? {
                value @ 0..=1 => Property::Byte(id, value),
                _ => return Err(PacketError::Protocol("a yes-or-no property is neither 0 nor 1")),
            }
        }
        id::MESSAGE_EXPIRY_INTERVAL
        | id::SESSION_EXPIRY_INTERVAL
        | id::WILL_DELAY_INTERVAL
        | id::MAXIMUM_PACKET_SIZE => Property::Long(id, input.u32()?),
        id::CONTENT_TYPE | id::RESPONSE_TOPIC | id::AUTHENTICATION_METHOD | id::REASON_STRING => {
            Property::Text(id, input.text()?)
        }
        id::CORRELATION_DATA | id::AUTHENTICATION_DATA => {
            input.binary()?;
            Property::Binary
        }
        id::SUBSCRIPTION_IDENTIFIER => Property::Long(id, input.variable()?),
        id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => Property::Short(id, input.u16()?),
        id::USER_PROPERTY => Property::User(input.text()?, input.text()?),
        _ => return Err(PacketError::Malformed("an unknown property, or one that belongs to another packet")),
    })
}

/// Reads the length and the list of properties.
pub(super) fn read<'a>(body: &mut Input<'a>, allowed: Set) -> Result<Properties<'a>, PacketError> {
    let length = body.variable()? as usize;
    let list = body.take(length)?;
    let mut input = Input(list);
    let mut found = Properties::default();
    let mut given: Set = 0;
    while !input.0.is_empty() {
        let bit = 1u64.checked_shl(u32::from(input.0[0])).unwrap_or(0);
        if bit & allowed == 0 {
            return Err(PacketError::Malformed("an unknown property, or one that belongs to another packet"));
        }
        match property(&mut input)? {
            Property::User(..) => {
                found.user = UserProperties(list);
                continue;
            }
            Property::Byte(id::PAYLOAD_FORMAT_INDICATOR, value) => found.payload_is_text = value == 1,
            Property::Byte(id::REQUEST_PROBLEM_INFORMATION, value) => {
                found.request_problem_information = Some(value == 1);
            }
            Property::Long(id::SESSION_EXPIRY_INTERVAL, value) => found.session_expiry_interval = Some(value),
            Property::Long(id::SUBSCRIPTION_IDENTIFIER | id::MAXIMUM_PACKET_SIZE, 0)
            | Property::Short(id::RECEIVE_MAXIMUM, 0) => {
                return Err(PacketError::Protocol("a property is 0 that must not be")); // §3.1.2.11, §3.8.2.1.2
            }
            Property::Long(id::SUBSCRIPTION_IDENTIFIER, value) => found.subscription_identifier = Some(value),
            Property::Long(id::MAXIMUM_PACKET_SIZE, value) => found.maximum_packet_size = Some(value),
            Property::Short(id::RECEIVE_MAXIMUM, value) => found.receive_maximum = Some(value),
            Property::Short(id::TOPIC_ALIAS, value) => found.topic_alias = Some(value),
            Property::Text(id::CONTENT_TYPE, text) => found.content_type = Some(text),
            Property::Text(id::RESPONSE_TOPIC, text) => found.response_topic = Some(text),
            Property::Text(id::AUTHENTICATION_METHOD, text) => found.authentication_method = Some(text),
            Property::Byte(..) | Property::Short(..) | Property::Long(..) | Property::Text(..) => {}
            Property::Binary => {}
        }
        if given & bit != 0 {
            return Err(PacketError::Protocol("a property is given twice"));
        }
        given |= bit;
    }
    Ok(found)
}

pub(super) fn write_byte(id: u8, value: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[id, value]);
}

pub(super) fn write_u16(id: u8, value: u16, out: &mut Vec<u8>) {
    out.push(id);
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn write_u32(id: u8, value: u32, out: &mut Vec<u8>) {
    out.push(id);
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn write_string(id: u8, text: &str, out: &mut Vec<u8>) {
    out.push(id);
    write_text(text, out);
}
