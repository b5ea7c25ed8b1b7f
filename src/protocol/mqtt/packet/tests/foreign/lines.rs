//! What each codec understood of a packet, in one line of words.

use super::super::*;
use bytes::BytesMut;
use mqttbytes::{v4 as bytes4, v5 as bytes5};
use rmqtt_codec::{v3 as rmqtt4, v5 as rmqtt5};
use tokio_util::codec::Decoder;

pub type Line = std::result::Result<String, String>;

/// The properties of a packet; what is not there is as good as its default.
#[derive(Debug, Default, PartialEq)]
pub struct Said<'a> {
    pub payload_is_text: bool,
    pub message_expiry: Option<u32>,
    pub content_type: Option<&'a str>,
    pub response_topic: Option<&'a str>,
    pub correlation_data: Option<&'a [u8]>,
    pub subscription_identifiers: Vec<u32>,
    pub session_expiry: u32,
    pub assigned_client_id: Option<&'a str>,
    pub server_keep_alive: Option<u16>,
    pub authentication_method: Option<&'a str>,
    pub no_problem_information: bool,
    pub will_delay: Option<u32>,
    pub response_information: bool,
    pub information: Option<&'a str>,
    pub reason_string: Option<&'a str>,
    pub receive_maximum: Option<u16>,
    pub topic_alias_maximum: u16,
    pub topic_alias: Option<u16>,
    pub maximum_packet_size: Option<u32>,
    /// The last of each name that the tests give.
    pub user: [Option<&'a str>; 2],
}

pub const NAMES: [&str; 2] = ["k", "j"];

/// Nothing, as in all packets of 3.1.1.
fn nothing() -> Said<'static> {
    Said::default()
}

fn last<'a>(user: impl DoubleEndedIterator<Item = (&'a str, &'a str)> + Clone) -> [Option<&'a str>; 2] {
    NAMES.map(|name| user.clone().rev().find(|(key, _)| *key == name).map(|(_, value)| value))
}

fn pairs(user: &[(String, String)]) -> [Option<&str>; 2] {
    last(user.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

fn strings(user: &rmqtt5::UserProperties) -> [Option<&str>; 2] {
    last(user.iter().map(|(key, value)| (&**key, &**value)))
}

fn said<'a>(p: &Properties<'a>) -> Said<'a> {
    Said {
        payload_is_text: p.payload_format() == Some(1),
        message_expiry: p.message_expiry_interval(),
        content_type: p.content_type(),
        response_topic: p.response_topic(),
        correlation_data: p.correlation_data(),
        subscription_identifiers: p.subscription_identifier().into_iter().collect(),
        session_expiry: p.session_expiry_interval().unwrap_or(0),
        authentication_method: p.authentication_method(),
        no_problem_information: p.request_problem_information() == Some(false),
        will_delay: p.will_delay_interval(),
        response_information: p.request_response_information() == Some(true),
        reason_string: p.reason_string(),
        receive_maximum: p.receive_maximum(),
        topic_alias_maximum: p.topic_alias_maximum().unwrap_or(0),
        topic_alias: p.topic_alias(),
        maximum_packet_size: p.maximum_packet_size(),
        user: NAMES.map(|name| p.user(name)),
        ..Said::default()
    }
}

pub fn of_ours(bytes: &[u8], version: Version) -> Line {
    match decode(bytes, version, MAX) {
        Ok(Some((packet, _))) => Ok(of_packet(&packet)),
        Ok(None) => Err("too short".into()),
        Err(error) => Err(error.to_string()),
    }
}

pub fn of_packet(packet: &Packet<'_>) -> String {
    let ack =
        |kind: &str, ack: &Ack<'_>| format!("{kind} {} {} {:?}", ack.packet_id, ack.reason, said(&ack.properties));
    match packet {
        Packet::Connect(c) => {
            let will = c.will.as_ref().map(|w| (w.topic, w.payload, w.qos, w.retain, said(&w.properties)));
            let (login, said) = (login(c.username, c.password), said(&c.properties));
            format!("connect {} {} {} {will:?} {login:?} {said:?}", c.clean, c.keep_alive, c.client_id)
        }
        Packet::Publish(p) => {
            let flags = (p.dup, p.qos, p.retain, p.packet_id);
            format!("publish {} {flags:?} {:?} {:?}", p.topic, said(&p.properties), p.payload)
        }
        Packet::PubAck(a) => ack("puback", a),
        Packet::PubRec(a) => ack("pubrec", a),
        Packet::PubRel(a) => ack("pubrel", a),
        Packet::PubComp(a) => ack("pubcomp", a),
        Packet::Subscribe { packet_id, properties, filters } => {
            let filters: Vec<_> = filters
                .iter()
                .map(|f| (f.filter, f.qos, f.no_local, f.retain_as_published, f.retain_handling))
                .collect();
            format!("subscribe {packet_id} {:?} {filters:?}", said(properties))
        }
        Packet::Unsubscribe { packet_id, properties, filters } => {
            format!("unsubscribe {packet_id} {:?} {filters:?}", said(properties))
        }
        Packet::PingReq => "pingreq".into(),
        Packet::Disconnect { reason, properties } => format!("disconnect {reason} {:?}", said(properties)),
        Packet::Auth { reason, properties } => format!("auth {reason} {:?}", said(properties)),
    }
}

/// User name and password; an empty one is as good as none, which mqttbytes does not tell apart.
fn login<'a>(username: Option<&'a str>, password: Option<&'a [u8]>) -> (Option<&'a str>, Option<&'a [u8]>) {
    (username.filter(|username| !username.is_empty()), password.filter(|password| !password.is_empty()))
}

pub fn of_mqttbytes(bytes: &[u8], version: Version) -> Line {
    let mut stream = BytesMut::from(bytes);
    match version {
        V4 => bytes4::read(&mut stream, MAX).map_err(|error| format!("{error:?}")).map(of_bytes4),
        V5 => bytes5::read(&mut stream, MAX).map_err(|error| format!("{error:?}")).map(of_bytes5),
    }
}

fn of_bytes4(packet: bytes4::Packet) -> String {
    use bytes4::Packet as P;
    let said = nothing();
    match packet {
        P::Connect(c) => {
            let will = c.last_will.as_ref().map(|w| (&*w.topic, &w.message[..], w.qos as u8, w.retain, nothing()));
            let login = c.login.as_ref().map(|l| login(Some(&l.username), Some(l.password.as_bytes())));
            let login = login.unwrap_or_default();
            format!("connect {} {} {} {will:?} {login:?} {said:?}", c.clean_session, c.keep_alive, c.client_id)
        }
        P::Publish(p) => {
            let flags = (p.dup, p.qos as u8, p.retain, p.pkid);
            format!("publish {} {flags:?} {said:?} {:?}", p.topic, &p.payload[..])
        }
        P::PubAck(a) => format!("puback {} 0 {said:?}", a.pkid),
        P::PubRec(a) => format!("pubrec {} 0 {said:?}", a.pkid),
        P::PubRel(a) => format!("pubrel {} 0 {said:?}", a.pkid),
        P::PubComp(a) => format!("pubcomp {} 0 {said:?}", a.pkid),
        P::Subscribe(s) => {
            let filters: Vec<_> = s.filters.iter().map(|f| (&*f.path, f.qos as u8, false, false, 0)).collect();
            format!("subscribe {} {said:?} {filters:?}", s.pkid)
        }
        P::Unsubscribe(u) => format!("unsubscribe {} {said:?} {:?}", u.pkid, u.topics),
        P::PingReq => "pingreq".into(),
        P::Disconnect => format!("disconnect 0 {said:?}"),
        P::ConnAck(a) => format!("connack {} {} {said:?}", a.session_present, a.code as u8),
        P::SubAck(a) => {
            let code = |code: &bytes4::SubscribeReasonCode| match code {
                bytes4::SubscribeReasonCode::Success(qos) => *qos as u8,
                bytes4::SubscribeReasonCode::Failure => 0x80,
            };
            format!("suback {} {:?}", a.pkid, a.return_codes.iter().map(code).collect::<Vec<_>>())
        }
        P::UnsubAck(a) => format!("unsuback {} []", a.pkid),
        P::PingResp => "pingresp".into(),
    }
}

fn of_bytes5(packet: bytes5::Packet) -> String {
    use bytes5::Packet as P;
    macro_rules! ack {
        ($kind:literal, $ack:expr) => {{
            let said = $ack.properties.as_ref().map_or(nothing(), |p| Said {
                reason_string: p.reason_string.as_deref(),
                user: pairs(&p.user_properties),
                ..Said::default()
            });
            format!("{} {} {} {said:?}", $kind, $ack.pkid, $ack.reason as u8)
        }};
    }
    match packet {
        P::Connect(c) => {
            fn of_will(w: &bytes5::LastWill) -> Said<'_> {
                w.properties.as_ref().map_or(nothing(), |p| Said {
                    will_delay: p.delay_interval,
                    payload_is_text: p.payload_format_indicator == Some(1),
                    message_expiry: p.message_expiry_interval,
                    content_type: p.content_type.as_deref(),
                    response_topic: p.response_topic.as_deref(),
                    correlation_data: p.correlation_data.as_deref(),
                    user: pairs(&p.user_properties),
                    ..Said::default()
                })
            }
            let will = c.last_will.as_ref().map(|w| (&*w.topic, &w.message[..], w.qos as u8, w.retain, of_will(w)));
            let login = c.login.as_ref().map(|l| login(Some(&l.username), Some(l.password.as_bytes())));
            let login = login.unwrap_or_default();
            let said = c.properties.as_ref().map_or(nothing(), |p| Said {
                session_expiry: p.session_expiry_interval.unwrap_or(0),
                receive_maximum: p.receive_maximum,
                maximum_packet_size: p.max_packet_size,
                topic_alias_maximum: p.topic_alias_max.unwrap_or(0),
                response_information: p.request_response_info == Some(1),
                no_problem_information: p.request_problem_info == Some(0),
                authentication_method: p.authentication_method.as_deref(),
                user: pairs(&p.user_properties),
                ..Said::default()
            });
            format!("connect {} {} {} {will:?} {login:?} {said:?}", c.clean_session, c.keep_alive, c.client_id)
        }
        P::Publish(p) => {
            let flags = (p.dup, p.qos as u8, p.retain, p.pkid);
            let said = p.properties.as_ref().map_or(nothing(), |q| Said {
                payload_is_text: q.payload_format_indicator == Some(1),
                message_expiry: q.message_expiry_interval,
                content_type: q.content_type.as_deref(),
                response_topic: q.response_topic.as_deref(),
                correlation_data: q.correlation_data.as_deref(),
                topic_alias: q.topic_alias,
                subscription_identifiers: q.subscription_identifiers.iter().map(|id| *id as u32).collect(),
                user: pairs(&q.user_properties),
                ..Said::default()
            });
            format!("publish {} {flags:?} {said:?} {:?}", p.topic, &p.payload[..])
        }
        P::PubAck(a) => ack!("puback", a),
        P::PubRec(a) => ack!("pubrec", a),
        P::PubRel(a) => ack!("pubrel", a),
        P::PubComp(a) => ack!("pubcomp", a),
        P::Subscribe(s) => {
            let filters: Vec<_> = s
                .filters
                .iter()
                .map(|f| {
                    let handling = match f.retain_forward_rule {
                        bytes5::RetainForwardRule::OnEverySubscribe => 0,
                        bytes5::RetainForwardRule::OnNewSubscribe => 1,
                        bytes5::RetainForwardRule::Never => 2,
                    };
                    (&*f.path, f.qos as u8, f.nolocal, f.preserve_retain, handling)
                })
                .collect();
            let said = s.properties.as_ref().map_or(nothing(), |p| Said {
                subscription_identifiers: p.id.iter().map(|id| *id as u32).collect(),
                user: pairs(&p.user_properties),
                ..Said::default()
            });
            format!("subscribe {} {said:?} {filters:?}", s.pkid)
        }
        P::Unsubscribe(u) => {
            let user = u.properties.as_ref().map_or([None, None], |p| pairs(&p.user_properties));
            format!("unsubscribe {} {:?} {:?}", u.pkid, Said { user, ..Said::default() }, u.filters)
        }
        P::PingReq => "pingreq".into(),
        P::Disconnect(d) => {
            let said = d.properties.as_ref().map_or(nothing(), |p| Said {
                session_expiry: p.session_expiry_interval.unwrap_or(0),
                reason_string: p.reason_string.as_deref(),
                user: pairs(&p.user_properties),
                ..Said::default()
            });
            format!("disconnect {} {said:?}", d.reason_code as u8)
        }
        P::ConnAck(a) => {
            let said = a.properties.as_ref().map_or(nothing(), |p| Said {
                session_expiry: p.session_expiry_interval.unwrap_or(0),
                receive_maximum: p.receive_max,
                maximum_packet_size: p.max_packet_size,
                assigned_client_id: p.assigned_client_identifier.as_deref(),
                topic_alias_maximum: p.topic_alias_max.unwrap_or(0),
                reason_string: p.reason_string.as_deref(),
                server_keep_alive: p.server_keep_alive,
                information: p.response_information.as_deref(),
                ..Said::default()
            });
            format!("connack {} {} {said:?}", a.session_present, a.code as u8)
        }
        P::SubAck(a) => format!("suback {} {:?}", a.pkid, a.return_codes.iter().map(|c| *c as u8).collect::<Vec<_>>()),
        P::UnsubAck(a) => format!("unsuback {} {:?}", a.pkid, a.reasons.iter().map(|c| *c as u8).collect::<Vec<_>>()),
        P::PingResp => "pingresp".into(),
    }
}

pub fn of_rmqtt(bytes: &[u8], version: Version) -> Line {
    let mut stream = BytesMut::from(bytes);
    match version {
        V4 => match rmqtt4::Codec::new(MAX as u32).decode(&mut stream) {
            Ok(Some((packet, _))) => Ok(of_rmqtt4(packet)),
            Ok(None) => Err("too short".into()),
            Err(error) => Err(format!("{error:?}")),
        },
        V5 => match rmqtt5::Codec::new(MAX as u32, 0).decode(&mut stream) {
            Ok(Some((packet, _))) => Ok(of_rmqtt5(packet)),
            Ok(None) => Err("too short".into()),
            Err(error) => Err(format!("{error:?}")),
        },
    }
}

fn of_rmqtt4(packet: rmqtt4::Packet) -> String {
    use rmqtt4::Packet as P;
    let said = nothing();
    match packet {
        P::Connect(c) => {
            let will = c.last_will.as_ref().map(|w| (&*w.topic, &w.message[..], w.qos.value(), w.retain, nothing()));
            let login = login(c.username.as_deref(), c.password.as_deref());
            format!("connect {} {} {} {will:?} {login:?} {said:?}", c.clean_session, c.keep_alive, c.client_id)
        }
        P::Publish(p) => {
            let flags = (p.dup, p.qos.value(), p.retain, p.packet_id.map_or(0, |id| id.get()));
            format!("publish {} {flags:?} {said:?} {:?}", p.topic, &p.payload[..])
        }
        P::PublishAck { packet_id } => format!("puback {packet_id} 0 {said:?}"),
        P::PublishReceived { packet_id } => format!("pubrec {packet_id} 0 {said:?}"),
        P::PublishRelease { packet_id } => format!("pubrel {packet_id} 0 {said:?}"),
        P::PublishComplete { packet_id } => format!("pubcomp {packet_id} 0 {said:?}"),
        P::Subscribe { packet_id, topic_filters } => {
            let filters: Vec<_> = topic_filters.iter().map(|(f, qos)| (&**f, qos.value(), false, false, 0)).collect();
            format!("subscribe {packet_id} {said:?} {filters:?}")
        }
        P::Unsubscribe { packet_id, topic_filters } => {
            let filters: Vec<&str> = topic_filters.iter().map(|filter| &**filter).collect();
            format!("unsubscribe {packet_id} {said:?} {filters:?}")
        }
        P::PingRequest => "pingreq".into(),
        P::Disconnect => format!("disconnect 0 {said:?}"),
        P::ConnectAck(a) => format!("connack {} {} {said:?}", a.session_present, u8::from(a.return_code)),
        P::SubscribeAck { packet_id, status } => {
            let code = |status: &rmqtt4::SubscribeReturnCode| match status {
                rmqtt4::SubscribeReturnCode::Success(qos) => qos.value(),
                rmqtt4::SubscribeReturnCode::Failure => 0x80,
            };
            format!("suback {packet_id} {:?}", status.iter().map(code).collect::<Vec<_>>())
        }
        P::UnsubscribeAck { packet_id } => format!("unsuback {packet_id} []"),
        P::PingResponse => "pingresp".into(),
    }
}

fn of_rmqtt5(packet: rmqtt5::Packet) -> String {
    use rmqtt5::Packet as P;
    macro_rules! ack {
        ($kind:literal, $ack:expr) => {{
            let (reason_string, user) = ($ack.reason_string.as_deref(), strings(&$ack.properties));
            let said = Said { reason_string, user, ..Said::default() };
            format!("{} {} {} {said:?}", $kind, $ack.packet_id, u8::from($ack.reason_code))
        }};
    }
    match packet {
        P::Connect(c) => {
            fn of_will(w: &rmqtt5::LastWill) -> Said<'_> {
                Said {
                    will_delay: w.will_delay_interval_sec,
                    payload_is_text: w.is_utf8_payload == Some(true),
                    message_expiry: w.message_expiry_interval.map(|seconds| seconds.get()),
                    content_type: w.content_type.as_deref(),
                    response_topic: w.response_topic.as_deref(),
                    correlation_data: w.correlation_data.as_deref(),
                    user: strings(&w.user_properties),
                    ..Said::default()
                }
            }
            let will = c.last_will.as_ref().map(|w| (&*w.topic, &w.message[..], w.qos.value(), w.retain, of_will(w)));
            let login = login(c.username.as_deref(), c.password.as_deref());
            let said = Said {
                session_expiry: c.session_expiry_interval_secs,
                receive_maximum: c.receive_max.map(|maximum| maximum.get()),
                maximum_packet_size: c.max_packet_size.map(|maximum| maximum.get()),
                topic_alias_maximum: c.topic_alias_max,
                response_information: c.request_response_info,
                no_problem_information: !c.request_problem_info,
                authentication_method: c.auth_method.as_deref(),
                user: strings(&c.user_properties),
                ..Said::default()
            };
            format!("connect {} {} {} {will:?} {login:?} {said:?}", c.clean_start, c.keep_alive, c.client_id)
        }
        P::Publish(p) => {
            let flags = (p.dup, p.qos.value(), p.retain, p.packet_id.map_or(0, |id| id.get()));
            let said = p.properties.as_ref().map_or(nothing(), |q| Said {
                payload_is_text: q.is_utf8_payload,
                message_expiry: q.message_expiry_interval.map(|seconds| seconds.get()),
                content_type: q.content_type.as_deref(),
                response_topic: q.response_topic.as_deref(),
                correlation_data: q.correlation_data.as_deref(),
                topic_alias: q.topic_alias.map(|alias| alias.get()),
                subscription_identifiers: q.subscription_ids.iter().map(|id| id.get()).collect(),
                user: strings(&q.user_properties),
                ..Said::default()
            });
            format!("publish {} {flags:?} {said:?} {:?}", p.topic, &p.payload[..])
        }
        P::PublishAck(a) => ack!("puback", a),
        P::PublishReceived(a) => ack!("pubrec", a),
        P::PublishRelease(a) => ack!("pubrel", a),
        P::PublishComplete(a) => ack!("pubcomp", a),
        P::Subscribe(s) => {
            let filters: Vec<_> = s
                .topic_filters
                .iter()
                .map(|(f, o)| (&**f, o.qos.value(), o.no_local, o.retain_as_published, u8::from(o.retain_handling)))
                .collect();
            let said = Said {
                subscription_identifiers: s.id.iter().map(|id| id.get()).collect(),
                user: strings(&s.user_properties),
                ..Said::default()
            };
            format!("subscribe {} {said:?} {filters:?}", s.packet_id)
        }
        P::Unsubscribe(u) => {
            let filters: Vec<&str> = u.topic_filters.iter().map(|filter| &**filter).collect();
            let said = Said { user: strings(&u.user_properties), ..Said::default() };
            format!("unsubscribe {} {said:?} {filters:?}", u.packet_id)
        }
        P::PingRequest => "pingreq".into(),
        P::Disconnect(d) => {
            let said = Said {
                session_expiry: d.session_expiry_interval_secs.unwrap_or(0),
                reason_string: d.reason_string.as_deref(),
                user: strings(&d.user_properties),
                ..Said::default()
            };
            format!("disconnect {} {said:?}", u8::from(d.reason_code))
        }
        P::Auth(a) => {
            let said = Said {
                authentication_method: a.auth_method.as_deref(),
                reason_string: a.reason_string.as_deref(),
                user: strings(&a.user_properties),
                ..Said::default()
            };
            format!("auth {} {said:?}", u8::from(a.reason_code))
        }
        P::ConnectAck(a) => {
            let said = Said {
                session_expiry: a.session_expiry_interval_secs.unwrap_or(0),
                receive_maximum: Some(a.receive_max.get()).filter(|maximum| *maximum != u16::MAX),
                maximum_packet_size: a.max_packet_size,
                assigned_client_id: a.assigned_client_id.as_deref(),
                topic_alias_maximum: a.topic_alias_max,
                reason_string: a.reason_string.as_deref(),
                server_keep_alive: a.server_keepalive_sec,
                information: a.response_info.as_deref(),
                ..Said::default()
            };
            format!("connack {} {} {said:?}", a.session_present, u8::from(a.reason_code))
        }
        P::SubscribeAck(a) => {
            let codes: Vec<u8> = a.status.iter().map(|status| u8::from(*status)).collect();
            format!("suback {} {codes:?}", a.packet_id)
        }
        P::UnsubscribeAck(a) => {
            let codes: Vec<u8> = a.status.iter().map(|status| u8::from(*status)).collect();
            format!("unsuback {} {codes:?}", a.packet_id)
        }
        P::PingResponse => "pingresp".into(),
    }
}
