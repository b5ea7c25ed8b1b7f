//! MQTT 3.1.1 and 5.0 with mqttbytes. Messages are acknowledged as soon as they are read.

use super::{Event, Message, Opening};
use bytes::{Bytes, BytesMut};
use mqttbytes::{Error, QoS, v4, v5};
use std::collections::HashSet;

const PACKET_BYTES_MAX: usize = 16 << 20;
/// Of a session that is kept, in seconds.
const SESSION_EXPIRY_S: u32 = 3600;
/// As long as it can be, which is longer than any run: nothing is sent to stay alive.
const KEEP_ALIVE_S: u16 = u16::MAX;

pub struct Mqtt {
    version: u8,
    /// mqttbytes writes to this.
    scratch: BytesMut,
    /// Packet identifiers of messages at QoS 2 that are received and not released; they outlive the connection.
    held: HashSet<u16>,
    subscriptions: u16,
    /// Quality of service that the last subscription asked for.
    asked: u8,
}

fn qos_of(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

/// What both versions have in common.
enum Packet {
    ConnAck {
        is_accepted: bool,
        is_resumed: bool,
        receive_max: Option<u16>,
        code: String,
    },
    /// The quality of service that is granted, or none.
    SubAck(Option<u8>),
    Publish {
        payload: Bytes,
        qos: QoS,
        id: u16,
        retain: bool,
    },
    PubAck {
        id: u16,
        problem: Option<String>,
    },
    PubRec {
        id: u16,
        problem: Option<String>,
    },
    PubRel(u16),
    PubComp {
        id: u16,
        problem: Option<String>,
    },
    Other,
    Disconnect(String),
}

impl Mqtt {
    pub fn new(version: u8) -> Mqtt {
        Mqtt { version, scratch: BytesMut::new(), held: HashSet::new(), subscriptions: 0, asked: 0 }
    }

    /// mqttbytes fails to write only what is not valid, and nothing of that is made here.
    fn write<const N: usize>(
        &mut self,
        results: [impl FnOnce(&mut BytesMut) -> Result<usize, Error>; N],
        out: &mut Vec<u8>,
    ) {
        for write in results {
            write(&mut self.scratch).expect("a valid packet");
        }
        out.extend_from_slice(&self.scratch);
        self.scratch.clear();
    }

    pub fn connect(&mut self, opening: &Opening<'_>, out: &mut Vec<u8>) {
        if self.version == 4 {
            let mut connect = v4::Connect::new(opening.name);
            (connect.clean_session, connect.keep_alive) = (opening.is_clean, KEEP_ALIVE_S);
            return self.write([|to: &mut BytesMut| connect.write(to)], out);
        }
        let mut connect = v5::Connect::new(opening.name);
        (connect.clean_session, connect.keep_alive) = (opening.is_clean, KEEP_ALIVE_S);
        connect.properties = (!opening.is_clean).then_some(v5::ConnectProperties {
            session_expiry_interval: Some(SESSION_EXPIRY_S),
            receive_maximum: None,
            max_packet_size: None,
            topic_alias_max: None,
            request_response_info: None,
            request_problem_info: None,
            user_properties: Vec::new(),
            authentication_method: None,
            authentication_data: None,
        });
        self.write([|to: &mut BytesMut| connect.write(to)], out);
    }

    pub fn subscribe(&mut self, filter: &str, qos: u8, out: &mut Vec<u8>) {
        self.subscriptions = self.subscriptions % u16::MAX + 1;
        self.asked = qos;
        let (id, qos) = (self.subscriptions, qos_of(qos));
        if self.version == 4 {
            let mut subscribe = v4::Subscribe::new(filter, qos);
            subscribe.pkid = id;
            return self.write([|to: &mut BytesMut| subscribe.write(to)], out);
        }
        let mut subscribe = v5::Subscribe::new(filter, qos);
        subscribe.pkid = id;
        self.write([|to: &mut BytesMut| subscribe.write(to)], out);
    }

    pub fn publish(&mut self, message: &Message<'_>, out: &mut Vec<u8>) {
        let qos = qos_of(message.qos);
        if self.version == 4 {
            let mut publish = v4::Publish::new(message.target, qos, message.payload);
            (publish.pkid, publish.retain) = (message.id, message.retain);
            return self.write([|to: &mut BytesMut| publish.write(to)], out);
        }
        let mut publish = v5::Publish::new(message.target, qos, message.payload);
        (publish.pkid, publish.retain) = (message.id, message.retain);
        self.write([|to: &mut BytesMut| publish.write(to)], out);
    }

    fn read(&self, incoming: &mut BytesMut) -> Result<Option<Packet>, Error> {
        let result = if self.version == 4 {
            v4::read(incoming, PACKET_BYTES_MAX).map(|packet| match packet {
                v4::Packet::ConnAck(own) => Packet::ConnAck {
                    is_accepted: own.code == v4::ConnectReturnCode::Success,
                    is_resumed: own.session_present,
                    receive_max: None,
                    code: format!("{:?}", own.code),
                },
                v4::Packet::SubAck(own) => Packet::SubAck(own.return_codes.first().and_then(|code| match code {
                    v4::SubscribeReasonCode::Success(qos) => Some(*qos as u8),
                    v4::SubscribeReasonCode::Failure => None,
                })),
                v4::Packet::Publish(v4::Publish { payload, qos, pkid: id, retain, .. }) => {
                    Packet::Publish { payload, qos, id, retain }
                }
                v4::Packet::PubAck(own) => Packet::PubAck { id: own.pkid, problem: None },
                v4::Packet::PubRec(own) => Packet::PubRec { id: own.pkid, problem: None },
                v4::Packet::PubRel(own) => Packet::PubRel(own.pkid),
                v4::Packet::PubComp(own) => Packet::PubComp { id: own.pkid, problem: None },
                v4::Packet::Disconnect => Packet::Disconnect("DISCONNECT from a server of version 3.1.1".into()),
                _ => Packet::Other,
            })
        } else {
            // mqttbytes refuses a DISCONNECT without a reason code, which is a valid one (MQTT 5 §3.14.2.1).
            if incoming.starts_with(&[0xe0, 0]) {
                return Ok(Some(Packet::Disconnect("normal".into())));
            }
            v5::read(incoming, PACKET_BYTES_MAX).map(|packet| match packet {
                v5::Packet::ConnAck(own) => Packet::ConnAck {
                    is_accepted: own.code == v5::ConnectReturnCode::Success,
                    is_resumed: own.session_present,
                    receive_max: own.properties.as_ref().and_then(|properties| properties.receive_max),
                    code: format!("{:?}", own.code),
                },
                v5::Packet::SubAck(own) => Packet::SubAck(own.return_codes.first().and_then(|code| match code {
                    v5::SubscribeReasonCode::QoS0 => Some(0),
                    v5::SubscribeReasonCode::QoS1 => Some(1),
                    v5::SubscribeReasonCode::QoS2 => Some(2),
                    _ => None,
                })),
                v5::Packet::Publish(v5::Publish { payload, qos, pkid: id, retain, .. }) => {
                    Packet::Publish { payload, qos, id, retain }
                }
                v5::Packet::PubAck(own) => {
                    use v5::PubAckReason::{NoMatchingSubscribers, Success};
                    let is_fine = matches!(own.reason, Success | NoMatchingSubscribers);
                    Packet::PubAck { id: own.pkid, problem: (!is_fine).then(|| format!("{:?}", own.reason)) }
                }
                v5::Packet::PubRec(own) => {
                    use v5::PubRecReason::{NoMatchingSubscribers, Success};
                    let is_fine = matches!(own.reason, Success | NoMatchingSubscribers);
                    Packet::PubRec { id: own.pkid, problem: (!is_fine).then(|| format!("{:?}", own.reason)) }
                }
                v5::Packet::PubRel(own) => Packet::PubRel(own.pkid),
                v5::Packet::PubComp(own) => {
                    let is_fine = own.reason == v5::PubCompReason::Success;
                    Packet::PubComp { id: own.pkid, problem: (!is_fine).then(|| format!("{:?}", own.reason)) }
                }
                v5::Packet::Disconnect(own) => Packet::Disconnect(format!("{:?}", own.reason_code)),
                _ => Packet::Other,
            })
        };
        match result {
            Ok(packet) => Ok(Some(packet)),
            Err(Error::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A short acknowledgement: two bytes of packet identifier, the same in both versions.
    fn acknowledge(first: u8, id: u16, out: &mut Vec<u8>) {
        let [high, low] = id.to_be_bytes();
        out.extend_from_slice(&[first, 2, high, low]);
    }

    pub fn decode(&mut self, incoming: &mut BytesMut, replies: &mut Vec<u8>) -> Result<Option<Event>, String> {
        loop {
            let Some(packet) = self.read(incoming).map_err(|error| format!("MQTT: {error:?}"))? else {
                return Ok(None);
            };
            match packet {
                Packet::ConnAck { is_accepted: true, is_resumed, receive_max, .. } => {
                    if !is_resumed {
                        self.held.clear();
                    }
                    let receive_max = receive_max.unwrap_or(u16::MAX);
                    return Ok(Some(Event::Open { is_resumed, receive_max }));
                }
                Packet::ConnAck { code, .. } => return Err(format!("CONNECT was refused: {code}")),
                Packet::SubAck(Some(qos)) if qos == self.asked => return Ok(Some(Event::Subscribed)),
                Packet::SubAck(Some(qos)) => {
                    return Err(format!("SUBSCRIBE for QoS {} was granted QoS {qos}", self.asked));
                }
                Packet::SubAck(None) => return Err("SUBSCRIBE was refused".into()),
                Packet::Publish { payload, qos, id, retain } => {
                    let is_new = match qos {
                        QoS::AtMostOnce => true,
                        QoS::AtLeastOnce => {
                            Mqtt::acknowledge(0x40, id, replies);
                            true
                        }
                        QoS::ExactlyOnce => {
                            Mqtt::acknowledge(0x50, id, replies);
                            self.held.insert(id)
                        }
                    };
                    if is_new {
                        return Ok(Some(Event::Message { payload, is_state: retain }));
                    }
                }
                Packet::PubRel(id) => {
                    self.held.remove(&id);
                    Mqtt::acknowledge(0x70, id, replies);
                }
                Packet::PubAck { problem: Some(problem), .. }
                | Packet::PubRec { problem: Some(problem), .. }
                | Packet::PubComp { problem: Some(problem), .. } => {
                    return Err(format!("PUBLISH was refused: {problem}"));
                }
                Packet::PubRec { id, .. } => Mqtt::acknowledge(0x62, id, replies),
                Packet::PubAck { id, .. } | Packet::PubComp { id, .. } => return Ok(Some(Event::Acknowledged { id })),
                Packet::Disconnect(reason) => return Err(format!("DISCONNECT: {reason}")),
                Packet::Other => {}
            }
        }
    }
}
