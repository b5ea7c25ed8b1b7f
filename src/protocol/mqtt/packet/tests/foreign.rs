//! Our codec beside two of other people: `mqttbytes` and `rmqtt-codec`. What each understands of a
//! packet is put in one line of words; the lines must be the same. On damaged packets they must agree whether there is a
//! packet at all, but for the checks listed here that one of them does not make.

use super::*;
use bytes::BytesMut;
use mqttbytes::{v4 as bytes4, v5 as bytes5};
use rmqtt_codec::{v3 as rmqtt4, v5 as rmqtt5};
use tokio_util::codec::{Decoder, Encoder};

// Random packets, written by the book: one strategy per packet, of any content the specification allows.

fn text(pattern: &'static str) -> BoxedStrategy<Vec<u8>> {
    pattern.prop_map(|text: String| written(|out| write_text(&text, out))).boxed()
}

fn data(bytes_max: usize) -> BoxedStrategy<Vec<u8>> {
    let with_length = |bytes: Vec<u8>| [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
    prop::collection::vec(any::<u8>(), 0..bytes_max).prop_map(with_length).boxed()
}

fn number(bytes: usize) -> BoxedStrategy<Vec<u8>> {
    (1u32..u32::MAX).prop_map(move |n| (n | 0x0101_0101).to_be_bytes()[4 - bytes..].to_vec()).boxed()
}

fn property_of(id: u8) -> BoxedStrategy<Vec<u8>> {
    let value = match id {
        1 | 23 | 25 => (0u8..2).prop_map(|bit| vec![bit]).boxed(),
        2 | 17 | 24 | 39 => number(4),
        33..=35 => number(2),
        11 => (1u32..0x0fff_ffff).prop_map(|n| written(|out| write_variable(n, out))).boxed(),
        9 | 22 => data(9),
        38 => (text("[kj]"), text("[a-zä]{0,5}")).prop_map(|(key, value)| [key, value].concat()).boxed(),
        _ => text("[a-z/ä]{1,9}"),
    };
    value.prop_map(move |value| [vec![id], value].concat()).boxed()
}

/// The property list of a packet: each of `ids` or not, user properties up to three.
fn properties(version: Version, ids: &[u8]) -> BoxedStrategy<Vec<u8>> {
    if version == V4 {
        return Just(Vec::new()).boxed();
    }
    let single: Vec<_> = ids.iter().map(|id| prop::option::weighted(0.4, property_of(*id))).collect();
    (single, prop::collection::vec(property_of(38), 0..3))
        .prop_map(|(single, user)| {
            let list: Vec<u8> = single.into_iter().flatten().chain(user).flatten().collect();
            written(|out| {
                write_variable(list.len() as u32, out);
                out.extend_from_slice(&list);
            })
        })
        .boxed()
}

fn whole(first: u8, parts: Vec<Vec<u8>>) -> Vec<u8> {
    written(|out| write_packet(first, &parts.concat(), out))
}

fn connect(version: Version) -> BoxedStrategy<(u8, Vec<Vec<u8>>)> {
    let head = (any::<bool>(), number(2), properties(version, &[17, 33, 39, 34, 25, 23]), text("[a-z0-9]{1,23}"));
    let will = (0u8..3, any::<bool>(), properties(version, &[24, 1, 2, 3, 8, 9]), text("[a-z/]{1,9}"), data(20));
    (head, prop::option::of(will), prop::option::of((text("[a-z]{1,8}"), prop::option::of(text("[a-z]{1,8}")))))
        .prop_map(move |((clean, keep_alive, properties, client_id), will, login)| {
            let level = if version == V4 { 4 } else { 5 };
            let mut flags = u8::from(clean) << 1;
            let mut payload = client_id;
            if let Some((qos, retain, properties, topic, message)) = will {
                flags |= 4 | qos << 3 | u8::from(retain) << 5;
                payload.extend([properties, topic, message].concat());
            }
            if let Some((username, password)) = login {
                flags |= 0x80 | u8::from(password.is_some()) << 6;
                payload.extend([username, password.unwrap_or_default()].concat());
            }
            (0x10, vec![wire("00 04 'MQTT'"), vec![level, flags], keep_alive, properties, payload])
        })
        .boxed()
}

fn publish(version: Version) -> BoxedStrategy<(u8, Vec<Vec<u8>>)> {
    let properties = properties(version, &[1, 2, 3, 8, 9, 35]);
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (0u8..3, any::<bool>(), any::<bool>(), text("[a-zä/]{1,40}"), number(2), properties, payload)
        .prop_map(|(qos, dup, retain, topic, packet_id, properties, payload)| {
            let first = 0x30 | u8::from(dup && qos > 0) << 3 | qos << 1 | u8::from(retain);
            (first, vec![topic, if qos > 0 { packet_id } else { Vec::new() }, properties, payload])
        })
        .boxed()
}

fn subscribe(version: Version) -> BoxedStrategy<(u8, Vec<Vec<u8>>)> {
    let option = (0u8..3, 0u8..4, 0u8..3).prop_map(move |(qos, flags, handling)| {
        vec![if version == V4 { qos } else { qos | flags << 2 | handling << 4 }]
    });
    let filters = prop::collection::vec((text("[a-z/+#]{1,20}"), option), 1..4);
    (number(2), properties(version, &[11]), filters)
        .prop_map(|(packet_id, properties, filters)| {
            let filters: Vec<u8> = filters.into_iter().flat_map(|(filter, option)| [filter, option].concat()).collect();
            (0x82, vec![packet_id, properties, filters])
        })
        .boxed()
}

fn unsubscribe(version: Version) -> BoxedStrategy<(u8, Vec<Vec<u8>>)> {
    (number(2), properties(version, &[]), prop::collection::vec(text("[a-z/+#]{1,20}"), 1..4))
        .prop_map(|(packet_id, properties, filters)| (0xa2, vec![packet_id, properties, filters.concat()]))
        .boxed()
}

fn ack(version: Version) -> BoxedStrategy<(u8, Vec<Vec<u8>>)> {
    let reasons = (prop::sample::select(vec![0u8, 0x10, 0x80, 0x97]), prop::sample::select(vec![0u8, 0x92]));
    (
        prop::sample::select(vec![0x40u8, 0x50, 0x62, 0x70]),
        number(2),
        reasons,
        properties(version, &[31]),
        any::<bool>(),
    )
        .prop_map(move |(first, packet_id, (publish, release), properties, short)| {
            let reason = if first < 0x60 { publish } else { release };
            let long = version == V5 && !short;
            (first, vec![packet_id, if long { [vec![reason], properties].concat() } else { Vec::new() }])
        })
        .boxed()
}

fn disconnect(version: Version) -> BoxedStrategy<(u8, Vec<Vec<u8>>)> {
    (prop::sample::select(vec![0u8, 4, 0x80]), properties(version, &[17, 31]))
        .prop_map(move |(reason, properties)| {
            (0xe0, if version == V5 { vec![vec![reason], properties] } else { Vec::new() })
        })
        .boxed()
}

fn first_and_parts() -> BoxedStrategy<(Version, u8, Vec<Vec<u8>>)> {
    any_version()
        .prop_flat_map(|version| {
            prop_oneof![
                connect(version),
                publish(version),
                subscribe(version),
                unsubscribe(version),
                ack(version),
                disconnect(version),
                Just((0xc0, Vec::new())).boxed(),
            ]
            .prop_map(move |(first, parts)| (version, first, parts))
        })
        .boxed()
}

/// Any valid packet of a client.
pub fn packet() -> BoxedStrategy<(Version, Vec<u8>)> {
    first_and_parts().prop_map(|(version, first, parts)| (version, whole(first, parts))).boxed()
}

// What each codec understood, in one line.

type Line = std::result::Result<String, String>;

/// The last user property called `k`.
fn last<'a>(user: impl DoubleEndedIterator<Item = (&'a str, &'a str)>) -> Option<&'a str> {
    user.rev().find(|(key, _)| *key == "k").map(|(_, value)| value)
}

fn pairs(user: &[(String, String)]) -> Option<&str> {
    last(user.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

fn strings(user: &rmqtt5::UserProperties) -> Option<&str> {
    last(user.iter().map(|(key, value)| (&**key, &**value)))
}

fn line_of_ours(bytes: &[u8], version: Version) -> Line {
    let packet = match decode(bytes, version, MAX) {
        Ok(Some((packet, _))) => packet,
        Ok(None) => return Err("too short".into()),
        Err(error) => return Err(error.to_string()),
    };
    let ack =
        |kind: &str, ack: Ack<'_>| format!("{kind} {} {} {:?}", ack.packet_id, ack.reason, ack.properties.user("k"));
    Ok(match packet {
        Packet::Connect(c) => {
            let will = c.will.as_ref().map(|w| (w.topic, w.payload, w.qos, w.retain, w.properties.content_type()));
            let p = c.properties;
            format!(
                "connect {} {} {} {will:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                c.clean,
                c.keep_alive,
                c.client_id,
                c.username,
                c.password,
                p.session_expiry_interval().unwrap_or(0),
                p.receive_maximum(),
                p.maximum_packet_size(),
                p.user("k"),
            )
        }
        Packet::Publish(p) => {
            let q = p.properties;
            let flags = (p.dup, p.qos, p.retain, p.packet_id);
            let list =
                (q.content_type(), q.response_topic(), q.topic_alias(), q.payload_format() == Some(1), q.user("k"));
            format!("publish {} {flags:?} {list:?} {:?}", p.topic, p.payload)
        }
        Packet::PubAck(a) => ack("puback", a),
        Packet::PubRec(a) => ack("pubrec", a),
        Packet::PubRel(a) => ack("pubrel", a),
        Packet::PubComp(a) => ack("pubcomp", a),
        Packet::Subscribe { packet_id, properties, filters } => {
            let (id, user) = (properties.subscription_identifier(), properties.user("k"));
            let filters: Vec<_> = filters
                .iter()
                .map(|f| (f.filter, f.qos, f.no_local, f.retain_as_published, f.retain_handling))
                .collect();
            format!("subscribe {packet_id} {id:?} {user:?} {filters:?}")
        }
        Packet::Unsubscribe { packet_id, properties, filters } => {
            format!("unsubscribe {packet_id} {:?} {filters:?}", properties.user("k"))
        }
        Packet::PingReq => "pingreq".into(),
        Packet::Disconnect { reason, properties } => {
            format!("disconnect {reason} {:?} {:?}", properties.session_expiry_interval(), properties.user("k"))
        }
        Packet::Auth { reason, .. } => format!("auth {reason}"),
    })
}

fn line_of_mqttbytes(bytes: &[u8], version: Version) -> Line {
    let mut stream = BytesMut::from(bytes);
    match version {
        V4 => bytes4::read(&mut stream, MAX).map_err(|error| format!("{error:?}")).map(line_of_bytes4),
        V5 => bytes5::read(&mut stream, MAX).map_err(|error| format!("{error:?}")).map(line_of_bytes5),
    }
}

const NOTHING: Option<&str> = None;

fn line_of_bytes4(packet: bytes4::Packet) -> String {
    use bytes4::Packet as P;
    match packet {
        P::Connect(c) => {
            let will = c.last_will.as_ref().map(|w| (&*w.topic, &w.message[..], w.qos as u8, w.retain, NOTHING));
            let (username, password) =
                (c.login.as_ref().map(|l| &l.username), c.login.as_ref().map(|l| l.password.as_bytes()));
            let password = password.filter(|password| !password.is_empty());
            let (clean, keep_alive, id) = (c.clean_session, c.keep_alive, &c.client_id);
            format!("connect {clean} {keep_alive} {id} {will:?} {username:?} {password:?} 0 None None None")
        }
        P::Publish(p) => {
            let flags = (p.dup, p.qos as u8, p.retain, p.pkid);
            format!("publish {} {flags:?} (None, None, None, false, None) {:?}", p.topic, &p.payload[..])
        }
        P::PubAck(a) => format!("puback {} 0 None", a.pkid),
        P::PubRec(a) => format!("pubrec {} 0 None", a.pkid),
        P::PubRel(a) => format!("pubrel {} 0 None", a.pkid),
        P::PubComp(a) => format!("pubcomp {} 0 None", a.pkid),
        P::Subscribe(s) => {
            let filters: Vec<_> = s.filters.iter().map(|f| (&*f.path, f.qos as u8, false, false, 0)).collect();
            format!("subscribe {} None None {filters:?}", s.pkid)
        }
        P::Unsubscribe(u) => format!("unsubscribe {} None {:?}", u.pkid, u.topics),
        P::PingReq => "pingreq".into(),
        P::Disconnect => "disconnect 0 None None".into(),
        P::ConnAck(a) => format!("connack {} {}", a.session_present, a.code as u8),
        P::SubAck(a) => format!("suback {} {:?}", a.pkid, a.return_codes),
        P::UnsubAck(a) => format!("unsuback {}", a.pkid),
        P::PingResp => "pingresp".into(),
    }
}

fn line_of_bytes5(packet: bytes5::Packet) -> String {
    use bytes5::Packet as P;
    let empty = Vec::new();
    macro_rules! ack {
        ($kind:literal, $ack:expr) => {{
            let user = $ack.properties.as_ref().and_then(|properties| pairs(&properties.user_properties));
            format!("{} {} {} {user:?}", $kind, $ack.pkid, $ack.reason as u8)
        }};
    }
    match packet {
        P::Connect(c) => {
            let content_type = |w: &bytes5::LastWill| w.properties.as_ref().and_then(|p| p.content_type.clone());
            let will =
                c.last_will.as_ref().map(|w| (&*w.topic, &w.message[..], w.qos as u8, w.retain, content_type(w)));
            let (username, password) =
                (c.login.as_ref().map(|l| &l.username), c.login.as_ref().map(|l| l.password.as_bytes()));
            let (username, password) = (username.filter(|u| !u.is_empty()), password.filter(|p| !p.is_empty()));
            let p = c.properties.as_ref();
            format!(
                "connect {} {} {} {will:?} {username:?} {password:?} {:?} {:?} {:?} {:?}",
                c.clean_session,
                c.keep_alive,
                c.client_id,
                p.and_then(|p| p.session_expiry_interval).unwrap_or(0),
                p.and_then(|p| p.receive_maximum),
                p.and_then(|p| p.max_packet_size),
                pairs(p.map_or(&empty, |p| &p.user_properties)),
            )
        }
        P::Publish(p) => {
            let flags = (p.dup, p.qos as u8, p.retain, p.pkid);
            let q = p.properties.as_ref();
            let list = (
                q.and_then(|q| q.content_type.as_deref()),
                q.and_then(|q| q.response_topic.as_deref()),
                q.and_then(|q| q.topic_alias),
                q.is_some_and(|q| q.payload_format_indicator == Some(1)),
                pairs(q.map_or(&empty, |q| &q.user_properties)),
            );
            format!("publish {} {flags:?} {list:?} {:?}", p.topic, &p.payload[..])
        }
        P::PubAck(a) => ack!("puback", a),
        P::PubRec(a) => ack!("pubrec", a),
        P::PubRel(a) => ack!("pubrel", a),
        P::PubComp(a) => ack!("pubcomp", a),
        P::Subscribe(s) => {
            let p = s.properties.as_ref();
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
            let user = pairs(p.map_or(&empty, |p| &p.user_properties));
            format!("subscribe {} {:?} {user:?} {filters:?}", s.pkid, p.and_then(|p| p.id))
        }
        P::Unsubscribe(u) => {
            let user = pairs(u.properties.as_ref().map_or(&empty, |p| &p.user_properties));
            format!("unsubscribe {} {user:?} {:?}", u.pkid, u.filters)
        }
        P::PingReq => "pingreq".into(),
        P::Disconnect(d) => {
            let p = d.properties.as_ref();
            let user = pairs(p.map_or(&empty, |p| &p.user_properties));
            format!("disconnect {} {:?} {user:?}", d.reason_code as u8, p.and_then(|p| p.session_expiry_interval))
        }
        P::ConnAck(a) => {
            let p = a.properties.as_ref();
            let list = (
                p.and_then(|p| p.session_expiry_interval),
                p.and_then(|p| p.receive_max),
                p.and_then(|p| p.max_packet_size),
                p.and_then(|p| p.server_keep_alive),
            );
            let texts =
                (p.and_then(|p| p.assigned_client_identifier.as_deref()), p.and_then(|p| p.reason_string.as_deref()));
            format!("connack {} {} {list:?} {texts:?}", a.session_present, a.code as u8)
        }
        P::SubAck(a) => format!("suback {} {:?}", a.pkid, a.return_codes.iter().map(|c| *c as u8).collect::<Vec<_>>()),
        P::UnsubAck(a) => format!("unsuback {} {:?}", a.pkid, a.reasons.iter().map(|c| *c as u8).collect::<Vec<_>>()),
        P::PingResp => "pingresp".into(),
    }
}

fn line_of_rmqtt(bytes: &[u8], version: Version) -> Line {
    let mut stream = BytesMut::from(bytes);
    match version {
        V4 => match rmqtt4::Codec::new(MAX as u32).decode(&mut stream) {
            Ok(Some((packet, _))) => Ok(line_of_rmqtt4(packet)),
            Ok(None) => Err("too short".into()),
            Err(error) => Err(format!("{error:?}")),
        },
        V5 => match rmqtt5::Codec::new(MAX as u32, 0).decode(&mut stream) {
            Ok(Some((packet, _))) => Ok(line_of_rmqtt5(packet)),
            Ok(None) => Err("too short".into()),
            Err(error) => Err(format!("{error:?}")),
        },
    }
}

fn line_of_rmqtt4(packet: rmqtt4::Packet) -> String {
    use rmqtt4::Packet as P;
    match packet {
        P::Connect(c) => {
            let will = c.last_will.as_ref().map(|w| (&*w.topic, &w.message[..], w.qos.value(), w.retain, NOTHING));
            let (username, password) = (c.username.as_deref(), c.password.as_deref());
            let (clean, keep_alive, id) = (c.clean_session, c.keep_alive, &c.client_id);
            format!("connect {clean} {keep_alive} {id} {will:?} {username:?} {password:?} 0 None None None")
        }
        P::Publish(p) => {
            let flags = (p.dup, p.qos.value(), p.retain, p.packet_id.map_or(0, |id| id.get()));
            format!("publish {} {flags:?} (None, None, None, false, None) {:?}", p.topic, &p.payload[..])
        }
        P::PublishAck { packet_id } => format!("puback {packet_id} 0 None"),
        P::PublishReceived { packet_id } => format!("pubrec {packet_id} 0 None"),
        P::PublishRelease { packet_id } => format!("pubrel {packet_id} 0 None"),
        P::PublishComplete { packet_id } => format!("pubcomp {packet_id} 0 None"),
        P::Subscribe { packet_id, topic_filters } => {
            let filters: Vec<_> = topic_filters.iter().map(|(f, qos)| (&**f, qos.value(), false, false, 0)).collect();
            format!("subscribe {packet_id} None None {filters:?}")
        }
        P::Unsubscribe { packet_id, topic_filters } => {
            let filters: Vec<&str> = topic_filters.iter().map(|filter| &**filter).collect();
            format!("unsubscribe {packet_id} None {filters:?}")
        }
        P::PingRequest => "pingreq".into(),
        P::Disconnect => "disconnect 0 None None".into(),
        P::ConnectAck(a) => format!("connack {} {}", a.session_present, u8::from(a.return_code)),
        P::SubscribeAck { packet_id, status } => {
            let codes: Vec<bytes4::SubscribeReasonCode> = status
                .iter()
                .map(|status| match status {
                    rmqtt4::SubscribeReturnCode::Success(qos) => {
                        bytes4::SubscribeReasonCode::Success(mqttbytes::qos(qos.value()).expect("0 to 2"))
                    }
                    rmqtt4::SubscribeReturnCode::Failure => bytes4::SubscribeReasonCode::Failure,
                })
                .collect();
            format!("suback {packet_id} {codes:?}")
        }
        P::UnsubscribeAck { packet_id } => format!("unsuback {packet_id}"),
        P::PingResponse => "pingresp".into(),
    }
}

fn line_of_rmqtt5(packet: rmqtt5::Packet) -> String {
    use rmqtt5::Packet as P;
    macro_rules! ack {
        ($kind:literal, $ack:expr) => {
            format!("{} {} {} {:?}", $kind, $ack.packet_id, u8::from($ack.reason_code), strings(&$ack.properties))
        };
    }
    match packet {
        P::Connect(c) => {
            let will = c
                .last_will
                .as_ref()
                .map(|w| (&*w.topic, &w.message[..], w.qos.value(), w.retain, w.content_type.as_deref()));
            format!(
                "connect {} {} {} {will:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                c.clean_start,
                c.keep_alive,
                c.client_id,
                c.username.as_deref(),
                c.password.as_deref(),
                c.session_expiry_interval_secs,
                c.receive_max,
                c.max_packet_size,
                strings(&c.user_properties),
            )
        }
        P::Publish(p) => {
            let flags = (p.dup, p.qos.value(), p.retain, p.packet_id.map_or(0, |id| id.get()));
            let q = p.properties.clone().unwrap_or_default();
            let list = (
                q.content_type.as_deref(),
                q.response_topic.as_deref(),
                q.topic_alias,
                q.is_utf8_payload,
                strings(&q.user_properties),
            );
            format!("publish {} {flags:?} {list:?} {:?}", p.topic, &p.payload[..])
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
            format!("subscribe {} {:?} {:?} {filters:?}", s.packet_id, s.id, strings(&s.user_properties))
        }
        P::Unsubscribe(u) => {
            let filters: Vec<&str> = u.topic_filters.iter().map(|filter| &**filter).collect();
            format!("unsubscribe {} {:?} {filters:?}", u.packet_id, strings(&u.user_properties))
        }
        P::PingRequest => "pingreq".into(),
        P::Disconnect(d) => {
            let user = strings(&d.user_properties);
            format!("disconnect {} {:?} {user:?}", u8::from(d.reason_code), d.session_expiry_interval_secs)
        }
        P::Auth(a) => format!("auth {}", u8::from(a.reason_code)),
        P::ConnectAck(a) => {
            let list = (
                a.session_expiry_interval_secs,
                Some(a.receive_max.get()).filter(|maximum| *maximum != u16::MAX),
                a.max_packet_size,
                a.server_keepalive_sec,
            );
            let texts = (a.assigned_client_id.as_deref(), a.reason_string.as_deref());
            format!("connack {} {} {list:?} {texts:?}", a.session_present, u8::from(a.reason_code))
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

/// The packet as the foreign codec writes what it has read.
fn rewritten_by_rmqtt(bytes: &[u8], version: Version) -> Vec<u8> {
    let (mut stream, mut out) = (BytesMut::from(bytes), BytesMut::new());
    match version {
        V4 => {
            let mut codec = rmqtt4::Codec::new(MAX as u32);
            let (packet, _) = codec.decode(&mut stream).unwrap().unwrap();
            codec.encode(packet, &mut out).unwrap();
        }
        V5 => {
            let mut codec = rmqtt5::Codec::new(MAX as u32, 0);
            let (packet, _) = codec.decode(&mut stream).unwrap().unwrap();
            codec.encode(packet, &mut out).unwrap();
        }
    }
    out.to_vec()
}

fn rewritten_by_mqttbytes(bytes: &[u8], version: Version) -> Vec<u8> {
    let (mut stream, mut out) = (BytesMut::from(bytes), BytesMut::new());
    macro_rules! write {
        ($module:ident, $packet:expr) => {
            match $packet {
                $module::Packet::Connect(packet) => packet.write(&mut out),
                $module::Packet::Publish(packet) => packet.write(&mut out),
                $module::Packet::PubAck(packet) => packet.write(&mut out),
                $module::Packet::PubRec(packet) => packet.write(&mut out),
                $module::Packet::PubRel(packet) => packet.write(&mut out),
                $module::Packet::PubComp(packet) => packet.write(&mut out),
                $module::Packet::Subscribe(packet) => packet.write(&mut out),
                $module::Packet::Unsubscribe(packet) => packet.write(&mut out),
                _ => Ok(out.extend_from_slice(bytes)).map(|()| 0),
            }
        };
    }
    match version {
        V4 => write!(bytes4, bytes4::read(&mut stream, MAX).unwrap()).unwrap(),
        V5 => write!(bytes5, bytes5::read(&mut stream, MAX).unwrap()).unwrap(),
    };
    out.to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn three_codecs_understand_the_same((version, bytes) in packet()) {
        let ours = line_of_ours(&bytes, version);
        prop_assert!(ours.is_ok(), "{:?}", ours);
        prop_assert_eq!(&ours, &line_of_mqttbytes(&bytes, version), "mqttbytes");
        prop_assert_eq!(&ours, &line_of_rmqtt(&bytes, version), "rmqtt-codec");
        let rewritten = rewritten_by_mqttbytes(&bytes, version);
        prop_assert_eq!(&ours, &line_of_ours(&rewritten, version), "written by mqttbytes");
        let rewritten = rewritten_by_rmqtt(&bytes, version);
        prop_assert_eq!(&ours, &line_of_ours(&rewritten, version), "written by rmqtt-codec");
    }
}

/// What our writers wrote, as the foreign codecs understand it.
fn both_read(version: Version, expected: &str, write: impl FnOnce(&mut Vec<u8>)) {
    let bytes = written(write);
    assert_eq!(line_of_mqttbytes(&bytes, version).as_deref(), Ok(expected), "mqttbytes, {bytes:x?}");
    assert_eq!(line_of_rmqtt(&bytes, version).as_deref(), Ok(expected), "rmqtt-codec, {bytes:x?}");
}

#[test]
fn what_we_write_is_understood() {
    for code in 0..=5 {
        let connack = ConnAck { code, session_present: code == 0, ..ConnAck::default() };
        both_read(V4, &format!("connack {} {code}", code == 0), |out| write_connack(V4, &connack, out));
    }
    let plain = ConnAck::default();
    let silent = "(None, None, None, None) (None, None)";
    both_read(V5, &format!("connack false 0 {silent}"), |out| write_connack(V5, &plain, out));
    let full = ConnAck {
        session_present: true,
        assigned_client_id: Some("id"),
        server_keep_alive: Some(60),
        receive_maximum: Some(16),
        maximum_packet_size: Some(1024),
        session_expiry_interval: Some(0),
        ..ConnAck::default()
    };
    let says = r#"connack true 0 (Some(0), Some(16), Some(1024), Some(60)) (Some("id"), None)"#;
    both_read(V5, says, |out| write_connack(V5, &full, out));
    for code in [reason::MALFORMED_PACKET, reason::BAD_CREDENTIALS, reason::BAD_AUTHENTICATION_METHOD] {
        let refused = ConnAck { code, reason_string: Some("no"), ..ConnAck::default() };
        let says = format!(r#"connack false {code} (None, None, None, None) (None, Some("no"))"#);
        both_read(V5, &says, |out| write_connack(V5, &refused, out));
    }
    both_read(V4, "suback 1 [Success(AtMostOnce), Success(AtLeastOnce), Failure]", |out| {
        write_suback(V4, 1, &[0, 1, 0x80], out)
    });
    let codes = [0, 1, reason::UNSPECIFIED, reason::TOPIC_FILTER_INVALID, reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED];
    both_read(V5, &format!("suback 2 {codes:?}"), |out| write_suback(V5, 2, &codes, out));
    both_read(V4, "unsuback 3", |out| write_unsuback(V4, 3, &[0], out));
    let codes = [reason::SUCCESS, reason::NO_SUBSCRIPTION_EXISTED, reason::TOPIC_FILTER_INVALID];
    both_read(V5, &format!("unsuback 3 {codes:?}"), |out| write_unsuback(V5, 3, &codes, out));
    both_read(V4, "pingresp", write_pingresp);
    for text in [None, Some("because")] {
        both_read(V4, "puback 9 0 None", |out| write_ack(AckKind::PubAck, V4, 9, reason::QUOTA_EXCEEDED, text, out));
        both_read(V5, "puback 9 0 None", |out| write_ack(AckKind::PubAck, V5, 9, reason::SUCCESS, text, out));
        for code in [reason::TOPIC_NAME_INVALID, reason::QUOTA_EXCEEDED, reason::PAYLOAD_FORMAT_INVALID] {
            both_read(V5, &format!("puback 9 {code} None"), |out| write_ack(AckKind::PubAck, V5, 9, code, text, out));
        }
        for code in [0x81, 0x82, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x97, 0x99, 0x9b, 0x9e, 0xa1] {
            both_read(V5, &format!("disconnect {code} None None"), |out| write_disconnect(code, text, out));
        }
    }
    for version in [V4, V5] {
        for (id, retain) in [(None, false), (None, true), (Some(1), false), (Some(65535), true)] {
            for content_type in [None, Some("application/cbor")] {
                let content_type = content_type.filter(|_| version == V5);
                let (qos, number) = (u8::from(id.is_some()), id.unwrap_or(0));
                let says = format!(
                    "publish T/k {:?} ({content_type:?}, None, None, false, None) {:?}",
                    (false, qos, retain, number),
                    b"hi",
                );
                let head = PublishHead { version, qos, retain, content_type, ..head("k") };
                both_read(version, &says, |out| out.extend(written_publish(head, number)));
            }
        }
    }
}

fn damaged() -> BoxedStrategy<(Version, Vec<u8>)> {
    #[derive(Clone, Debug)]
    enum Damage {
        Set(prop::sample::Index, u8),
        Flip(prop::sample::Index, u8),
        Insert(prop::sample::Index, u8),
        Remove(prop::sample::Index),
        Cut(prop::sample::Index),
        First(u8),
    }
    let damage = prop_oneof![
        (any::<prop::sample::Index>(), 0u8..48).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (any::<prop::sample::Index>(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        any::<prop::sample::Index>().prop_map(Damage::Remove),
        any::<prop::sample::Index>().prop_map(Damage::Cut),
        (0u8..8).prop_map(Damage::First),
    ];
    (first_and_parts(), prop::collection::vec(damage, 1..3))
        .prop_map(|((version, mut first, parts), damages)| {
            let mut content = parts.concat();
            for damage in damages {
                let length = content.len();
                match damage {
                    Damage::First(bit) => first ^= 1 << bit,
                    Damage::Insert(at, byte) => content.insert(at.index(length + 1), byte),
                    _ if length == 0 => {}
                    Damage::Set(at, byte) => content[at.index(length)] = byte,
                    Damage::Flip(at, bit) => content[at.index(length)] ^= 1 << bit,
                    Damage::Remove(at) => _ = content.remove(at.index(length)),
                    Damage::Cut(at) => content.truncate(at.index(length)),
                }
            }
            (version, whole(first, vec![content]))
        })
        .boxed()
}

/// Checks that the others do not make, by our words for them.
const UNCHECKED_BY_BOTH: [&str; 17] = [
    "a password without a user name", // of version 3.1.1
    "a string contains U+0000",
    "bytes follow the packet's content",
    // They read both directions: what only a server sends, in packets and in properties.
    "only a server sends this packet",
    "an unknown property, or one that belongs to another packet",
    "DUP is set on a QoS 0 message",
    "reserved subscription options are set",
    "SUBSCRIBE without a filter",
    "UNSUBSCRIBE without a filter",
    "a variable byte integer is longer than it needs to be",
    "the will flags contradict each other",
    "unsupported protocol version", // MQTT 3.1 is another one
    "a property is given twice",
    "a reason code that this packet cannot have", // it exists, in another packet
    "authentication data without a method",
    "AUTH without a method",
    "no local on a shared subscription",
];
const UNCHECKED_BY_MQTTBYTES: [&str; 5] = [
    "reserved flags of the fixed header are set",
    "the reserved CONNECT flag is set",
    "it ends too early", // inside a property list, and a CONNECT of version 5 among those of 3.1.1
    "a yes-or-no property is neither 0 nor 1",
    "the packet identifier is 0",
];
/// What they refuse and we read: passwords are binary data, and mqttbytes knows neither AUTH nor a DISCONNECT without
/// content.
const REFUSED_BY_MQTTBYTES: [(&str, &str); 4] = [
    ("auth", "InvalidPacketType"),
    ("connect", "TopicNotUtf8"),
    ("disconnect", "InsufficientBytes"),
    ("disconnect", "PayloadRequired"),
];

fn agree(ours: &Line, theirs: &Line, unchecked: &[&str], refused: &[(&str, &str)]) -> bool {
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => ours == theirs,
        (Err(_), Err(_)) => true,
        (Err(ours), Ok(_)) => UNCHECKED_BY_BOTH.iter().chain(unchecked).any(|check| ours.ends_with(check)),
        (Ok(ours), Err(theirs)) => {
            refused.iter().any(|(kind, error)| ours.starts_with(kind) && theirs.starts_with(error))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_codecs_refuse_the_same((version, bytes) in damaged()) {
        let ours = line_of_ours(&bytes, version);
        let theirs = line_of_mqttbytes(&bytes, version);
        let agreed = agree(&ours, &theirs, &UNCHECKED_BY_MQTTBYTES, &REFUSED_BY_MQTTBYTES);
        prop_assert!(agreed, "{:?}: ours {:?}, mqttbytes {:?}", version, ours, theirs);
        let theirs = line_of_rmqtt(&bytes, version);
        let agreed = agree(&ours, &theirs, &[], &[]);
        prop_assert!(agreed, "{:?}: ours {:?}, rmqtt-codec {:?}", version, ours, theirs);
    }
}
