//! MQTT packets, written from the specification alone: nothing of the server's codec is in here. What a server sends is
//! read strictly: reserved bits, lengths, properties and reason codes that the specification does not allow are errors.

use std::fmt::Write;

/// A property's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Byte(u8),
    Two(u16),
    Four(u32),
    Variable(u32),
    Text(String),
    Binary(Vec<u8>),
    Pair(String, String),
}

/// The identifiers of properties (MQTT 5, table 2-4).
pub mod id {
    pub const PAYLOAD_FORMAT: u8 = 1;
    pub const MESSAGE_EXPIRY: u8 = 2;
    pub const CONTENT_TYPE: u8 = 3;
    pub const RESPONSE_TOPIC: u8 = 8;
    pub const CORRELATION: u8 = 9;
    pub const SUBSCRIPTION: u8 = 11;
    pub const SESSION_EXPIRY: u8 = 17;
    pub const ASSIGNED_ID: u8 = 18;
    pub const SERVER_KEEP_ALIVE: u8 = 19;
    pub const AUTH_METHOD: u8 = 21;
    pub const AUTH_DATA: u8 = 22;
    pub const REQUEST_PROBLEM: u8 = 23;
    pub const WILL_DELAY: u8 = 24;
    pub const REQUEST_RESPONSE: u8 = 25;
    pub const RESPONSE_INFORMATION: u8 = 26;
    pub const REASON: u8 = 31;
    pub const RECEIVE_MAXIMUM: u8 = 33;
    pub const ALIAS_MAXIMUM: u8 = 34;
    pub const ALIAS: u8 = 35;
    pub const MAXIMUM_QOS: u8 = 36;
    pub const RETAIN_AVAILABLE: u8 = 37;
    pub const USER: u8 = 38;
    pub const MAXIMUM_PACKET: u8 = 39;
    pub const WILDCARDS: u8 = 40;
    pub const SUBSCRIPTION_IDS: u8 = 41;
    pub const SHARED: u8 = 42;
}

/// The properties a server may put into a packet of this type.
fn allowed(kind: u8) -> &'static [u8] {
    match kind {
        2 => &[17, 18, 19, 21, 22, 26, 28, 31, 33, 34, 36, 37, 38, 39, 40, 41, 42],
        3 => &[1, 2, 3, 8, 9, 11, 35, 38],
        14 => &[28, 31, 38], // Session Expiry Interval is the client's alone [MQTT-3.14.2-2]
        15 => &[21, 22, 31, 38],
        _ => &[31, 38],
    }
}

/// The reason codes (3.1.1: return codes) a server may put into a packet of this type.
fn codes(kind: u8, level: u8) -> &'static [u8] {
    match (kind, level) {
        (2, 4) => &[0, 1, 2, 3, 4, 5],
        (9, 4) => &[0, 1, 2, 0x80],
        (2, _) => &[
            0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a,
            0x9b, 0x9c, 0x9d, 0x9f,
        ],
        (4 | 5, _) => &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        (6 | 7, _) => &[0, 0x92],
        (9, _) => &[0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2],
        (11, _) => &[0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91],
        (14, _) => &[
            0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98,
            0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
        ],
        (15, _) => &[0, 0x18],
        _ => &[],
    }
}

/// A list of properties, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(pub Vec<(u8, Value)>);

impl Properties {
    pub fn get(&self, id: u8) -> Option<&Value> {
        self.0.iter().find(|(other, _)| *other == id).map(|(_, value)| value)
    }

    pub fn number(&self, id: u8) -> Option<u32> {
        self.get(id).and_then(|value| match value {
            Value::Byte(n) => Some(u32::from(*n)),
            Value::Two(n) => Some(u32::from(*n)),
            Value::Four(n) | Value::Variable(n) => Some(*n),
            _ => None,
        })
    }

    pub fn text(&self, id: u8) -> Option<&str> {
        match self.get(id) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The user properties, in order.
    pub fn user(&self) -> Vec<(&str, &str)> {
        self.0
            .iter()
            .filter_map(|(_, value)| if let Value::Pair(a, b) = value { Some((&a[..], &b[..])) } else { None })
            .collect()
    }

    /// The subscription identifiers, sorted: their order means nothing.
    pub fn subscriptions(&self) -> Vec<u32> {
        let numbers = self.0.iter().filter(|(other, _)| *other == id::SUBSCRIPTION);
        let mut all: Vec<u32> =
            numbers.filter_map(|(_, value)| if let Value::Variable(n) = value { Some(*n) } else { None }).collect();
        all.sort_unstable();
        all
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for (id, value) in &self.0 {
            list.push(*id);
            match value {
                Value::Byte(n) => list.push(*n),
                Value::Two(n) => list.extend(n.to_be_bytes()),
                Value::Four(n) => list.extend(n.to_be_bytes()),
                Value::Variable(n) => list.extend(variable(*n as usize)),
                Value::Text(text) => list.extend(binary(text)),
                Value::Binary(bytes) => list.extend(binary(bytes)),
                Value::Pair(name, value) => list.extend([binary(name), binary(value)].concat()),
            }
        }
        [variable(list.len()), list].concat()
    }
}

/// A variable byte integer.
pub fn variable(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (n % 128) as u8;
        n /= 128;
        if n == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 128);
    }
}

/// A length of two bytes and that many bytes.
pub fn binary(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// A packet: the first byte, the remaining length, the rest.
pub fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    [&[first][..], &variable(rest.len()), rest].concat()
}

/// A packet that has only a packet identifier.
pub fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

/// One of PUBACK (0x40), PUBREC (0x50), PUBREL (0x62), PUBCOMP (0x70) with a reason code, for MQTT 5.
pub fn ack_with(first: u8, id: u16, code: u8) -> Vec<u8> {
    packet(first, &[&id.to_be_bytes()[..], &[code]].concat())
}

pub const PINGREQ: [u8; 2] = [0xc0, 0];
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

#[derive(Clone, Debug, Default)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub properties: Properties,
}

impl Will {
    pub fn new(topic: &str, payload: &str) -> Will {
        Will { topic: topic.into(), payload: payload.into(), ..Will::default() }
    }

    pub fn qos(mut self, qos: u8) -> Will {
        self.qos = qos;
        self
    }

    pub fn retain(mut self) -> Will {
        self.retain = true;
        self
    }

    pub fn with(mut self, id: u8, value: Value) -> Will {
        self.properties.0.push((id, value));
        self
    }
}

#[derive(Clone, Debug)]
pub struct Connect {
    pub level: u8,
    pub clean: bool,
    pub keep_alive: u16,
    pub id: String,
    pub properties: Properties,
    pub will: Option<Will>,
    pub user: Option<String>,
    pub password: Option<String>,
}

impl Connect {
    /// A session that ends with its connection.
    pub fn clean(level: u8, id: &str) -> Connect {
        Connect {
            level,
            clean: true,
            keep_alive: 60,
            id: id.into(),
            properties: Properties::default(),
            will: None,
            user: None,
            password: None,
        }
    }

    /// A session that outlives its connection (MQTT 5: by an hour), and goes on if it is there already.
    pub fn lasting(level: u8, id: &str) -> Connect {
        let connect = Connect { clean: false, ..Connect::clean(level, id) };
        if level == 5 { connect.with(id::SESSION_EXPIRY, Value::Four(3600)) } else { connect }
    }

    pub fn with(mut self, id: u8, value: Value) -> Connect {
        self.properties.0.push((id, value));
        self
    }

    pub fn keep_alive(mut self, seconds: u16) -> Connect {
        self.keep_alive = seconds;
        self
    }

    pub fn will(mut self, will: Will) -> Connect {
        self.will = Some(will);
        self
    }

    pub fn user(mut self, user: &str) -> Connect {
        self.user = Some(user.into());
        self
    }

    pub fn password(mut self, password: &str) -> Connect {
        self.password = Some(password.into());
        self
    }

    /// The flags that belong to what is in here.
    pub fn flags(&self) -> u8 {
        let will = self.will.as_ref().map_or(0, |will| 4 | will.qos << 3 | u8::from(will.retain) << 5);
        let (user, password) = (u8::from(self.user.is_some()), u8::from(self.password.is_some()));
        u8::from(self.clean) << 1 | will | password << 6 | user << 7
    }

    /// What follows the variable header.
    pub fn payload(&self) -> Vec<u8> {
        let mut out = binary(&self.id);
        if let Some(will) = &self.will {
            if self.level == 5 {
                out.extend(will.properties.encode());
            }
            out.extend([binary(&will.topic), binary(&will.payload)].concat());
        }
        for text in [&self.user, &self.password].into_iter().flatten() {
            out.extend(binary(text));
        }
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_with(self.flags(), &self.payload())
    }

    /// With other flags or another payload than belong together.
    pub fn bytes_with(&self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut rest = binary("MQTT");
        rest.extend([self.level, flags]);
        rest.extend(self.keep_alive.to_be_bytes());
        if self.level == 5 {
            rest.extend(self.properties.encode());
        }
        rest.extend_from_slice(payload);
        packet(0x10, &rest)
    }
}

/// A PUBLISH, sent or received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: String,
    /// 0 with QoS 0, and where the client is to choose one.
    pub id: u16,
    pub properties: Properties,
    pub payload: Vec<u8>,
}

impl Publish {
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Publish {
        Publish { topic: topic.into(), payload: payload.as_ref().to_vec(), ..Publish::default() }
    }

    pub fn qos(mut self, qos: u8) -> Publish {
        self.qos = qos;
        self
    }

    pub fn id(mut self, id: u16) -> Publish {
        self.id = id;
        self
    }

    pub fn retain(mut self) -> Publish {
        self.retain = true;
        self
    }

    pub fn dup(mut self) -> Publish {
        self.dup = true;
        self
    }

    pub fn with(mut self, id: u8, value: Value) -> Publish {
        self.properties.0.push((id, value));
        self
    }

    pub fn user(self, name: &str, value: &str) -> Publish {
        self.with(id::USER, Value::Pair(name.into(), value.into()))
    }

    pub fn first(&self) -> u8 {
        0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain)
    }

    pub fn bytes(&self, level: u8) -> Vec<u8> {
        let mut rest = binary(&self.topic);
        if self.qos > 0 {
            rest.extend(self.id.to_be_bytes());
        }
        if level == 5 {
            rest.extend(self.properties.encode());
        }
        rest.extend_from_slice(&self.payload);
        packet(self.first(), &rest)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// Subscription options beside the QoS.
pub const NO_LOCAL: u8 = 4;
pub const RETAIN_AS_PUBLISHED: u8 = 8;
pub const RETAIN_IF_NEW: u8 = 0x10;
pub const RETAIN_NEVER: u8 = 0x20;

pub fn subscribe(level: u8, id: u16, properties: &Properties, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut rest = id.to_be_bytes().to_vec();
    if level == 5 {
        rest.extend(properties.encode());
    }
    for (filter, options) in filters {
        rest.extend(binary(filter));
        rest.push(*options);
    }
    packet(0x82, &rest)
}

pub fn unsubscribe(level: u8, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut rest = id.to_be_bytes().to_vec();
    if level == 5 {
        rest.push(0);
    }
    filters.iter().for_each(|filter| rest.extend(binary(filter)));
    packet(0xa2, &rest)
}

/// A packet with a packet identifier, reason codes and properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    pub id: u16,
    pub codes: Vec<u8>,
    pub properties: Properties,
}

impl Ack {
    pub fn code(&self) -> u8 {
        self.codes[0]
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnAck {
    pub present: bool,
    pub code: u8,
    pub properties: Properties,
}

/// What a server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    SubAck(Ack),
    UnsubAck(Ack),
    PingResp,
    Disconnect { code: u8, properties: Properties },
    Auth { code: u8, properties: Properties },
}

struct Reader<'a> {
    kind: u8,
    level: u8,
    rest: &'a [u8],
}

type Result<T> = std::result::Result<T, String>;

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        if self.rest.len() < n {
            return Err(format!("{n} bytes are needed, {} are left", self.rest.len()));
        }
        let (taken, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn two(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    fn four(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn binary(&mut self) -> Result<&'a [u8]> {
        let length = self.two()?;
        self.take(usize::from(length))
    }

    fn text(&mut self) -> Result<String> {
        let text = String::from_utf8(self.binary()?.to_vec()).map_err(|e| format!("a string is not UTF-8: {e}"))?;
        if text.contains('\0') { Err(format!("U+0000 in {text:?}")) } else { Ok(text) }
    }

    fn variable(&mut self) -> Result<usize> {
        let (value, length) = read_variable(self.rest)?.ok_or("a length is cut off")?;
        self.take(length)?;
        Ok(value)
    }

    fn packet_id(&mut self) -> Result<u16> {
        match self.two()? {
            0 => Err("packet identifier 0".into()),
            id => Ok(id),
        }
    }

    fn code(&mut self) -> Result<u8> {
        let code = self.byte()?;
        match codes(self.kind, self.level).contains(&code) {
            true => Ok(code),
            false => Err(format!("reason code {code:#04x} does not belong into packet type {}", self.kind)),
        }
    }

    fn properties(&mut self) -> Result<Properties> {
        let mut all = Properties::default();
        if self.level < 5 {
            return Ok(all);
        }
        let length = self.variable()?;
        let mut list = Reader { rest: self.take(length)?, ..*self };
        while !list.rest.is_empty() {
            let id = list.byte()?;
            if !allowed(self.kind).contains(&id) {
                return Err(format!("property {id} does not belong into packet type {}", self.kind));
            }
            if all.get(id).is_some() && ![id::USER, id::SUBSCRIPTION].contains(&id) {
                return Err(format!("property {id} is there twice"));
            }
            let value = match id {
                1 | 36 | 37 | 40 | 41 | 42 => Value::Byte(list.byte()?),
                19 | 33 | 34 | 35 => Value::Two(list.two()?),
                2 | 17 | 39 => Value::Four(list.four()?),
                id::SUBSCRIPTION => Value::Variable(list.variable()? as u32),
                9 | 22 => Value::Binary(list.binary()?.to_vec()),
                id::USER => Value::Pair(list.text()?, list.text()?),
                _ => Value::Text(list.text()?),
            };
            all.0.push((id, value));
        }
        Ok(all)
    }

    /// A reason code and properties, each of which may be left out at the end.
    fn short(&mut self) -> Result<(u8, Properties)> {
        if self.rest.is_empty() {
            return Ok((0, Properties::default()));
        }
        let code = self.code()?;
        let properties = if self.rest.is_empty() { Properties::default() } else { self.properties()? };
        Ok((code, properties))
    }

    fn ack(&mut self) -> Result<Ack> {
        let id = self.packet_id()?;
        let (code, properties) = if self.level == 5 { self.short()? } else { (0, Properties::default()) };
        Ok(Ack { id, codes: vec![code], properties })
    }

    fn list(&mut self) -> Result<Ack> {
        let (id, properties) = (self.packet_id()?, self.properties()?);
        let mut codes = Vec::new();
        while !self.rest.is_empty() {
            codes.push(self.code()?);
        }
        Ok(Ack { id, codes, properties })
    }
}

/// A variable byte integer and its length; none if it is not whole yet.
pub fn read_variable(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 127) << (7 * at);
        if byte & 128 == 0 {
            let minimal = at == 0 || *byte != 0;
            return if minimal {
                Ok(Some((value, at + 1)))
            } else {
                Err(format!("{value} is not in its shortest form"))
            };
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err("a length of more than four bytes".into()) }
}

/// A whole packet from a server.
pub fn decode(first: u8, rest: &[u8], level: u8) -> Result<Packet> {
    let kind = first >> 4;
    let mut reader = Reader { kind, level, rest };
    let flags = if kind == 6 { 2 } else { 0 };
    if kind != 3 && first & 15 != flags {
        return Err(format!("reserved flags: first byte {first:#04x}"));
    }
    let packet = match kind {
        2 => {
            let flags = reader.byte()?;
            if flags > 1 {
                return Err(format!("reserved flags of CONNACK: {flags:#04x}"));
            }
            let (code, properties) = (reader.code()?, reader.properties()?);
            Packet::ConnAck(ConnAck { present: flags == 1, code, properties })
        }
        3 => {
            let (dup, qos, retain) = (first & 8 != 0, first >> 1 & 3, first & 1 != 0);
            if qos == 3 || (dup && qos == 0) {
                return Err(format!("flags of PUBLISH: {first:#04x}"));
            }
            let topic = reader.text()?;
            let id = if qos > 0 { reader.packet_id()? } else { 0 };
            let properties = reader.properties()?;
            let payload = std::mem::take(&mut reader.rest).to_vec();
            Packet::Publish(Publish { dup, qos, retain, topic, id, properties, payload })
        }
        4 => Packet::PubAck(reader.ack()?),
        5 => Packet::PubRec(reader.ack()?),
        6 => Packet::PubRel(reader.ack()?),
        7 => Packet::PubComp(reader.ack()?),
        9 => Packet::SubAck(reader.list()?),
        11 => match level {
            5 => Packet::UnsubAck(reader.list()?),
            _ => Packet::UnsubAck(Ack { id: reader.packet_id()?, ..Ack::default() }),
        },
        13 => Packet::PingResp,
        14 if level == 5 => {
            let (code, properties) = reader.short()?;
            Packet::Disconnect { code, properties }
        }
        15 if level == 5 => {
            let (code, properties) = reader.short()?;
            Packet::Auth { code, properties }
        }
        _ => return Err(format!("a server sends no packet of type {kind} with level {level}")),
    };
    match reader.rest.len() {
        0 => Ok(packet),
        n => Err(format!("{n} bytes are left over behind {packet:?}")),
    }
}

/// Bytes for a message of failure.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        write!(out, "{byte:02x} ").expect("a string takes everything");
    }
    out
}

#[test]
fn this_reader_is_strict() {
    assert_eq!(decode(0xd0, &[], 4), Ok(Packet::PingResp));
    let bad: [(u8, &[u8], u8); 12] = [
        (0xd1, &[], 4),
        (0x20, &[2, 0], 4),
        (0x20, &[0, 6], 4),
        (0x20, &[0, 1, 0], 5),
        (0x20, &[0, 0, 3, 17, 0, 0], 5),
        (0x60, &[0, 1], 4),
        (0x38, &[0, 1, b'a'], 4),
        (0x32, &[0, 1, b'a', 0, 0], 4),
        (0x40, &[0, 1, 0], 4),
        (0x40, &[0, 1, 0x92], 5),
        (0xe0, &[0, 5, 17, 0, 0, 0, 0], 5),
        (0x90, &[0, 1, 3], 4),
    ];
    for (first, rest, level) in bad {
        assert!(decode(first, rest, level).is_err(), "{first:02x} {}", hex(rest));
    }
    assert_eq!(read_variable(&variable(268_435_455)), Ok(Some((268_435_455, 4))));
    assert!(read_variable(&[0x80, 0]).is_err());
    let properties =
        Properties(vec![(id::USER, Value::Pair("a".into(), "b".into())), (id::SUBSCRIPTION, Value::Variable(300))]);
    let sent = Publish { properties, ..Publish::new("t", "p") };
    let bytes = sent.bytes(5);
    assert_eq!(decode(bytes[0], &bytes[2..], 5), Ok(Packet::Publish(sent)));
}
