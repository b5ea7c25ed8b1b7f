//! Our codec beside two of other people: `mqttbytes` and `rmqtt-codec`. What each understands of a
//! packet is put in one line of words; the lines must be the same. On damaged packets they must agree whether there is a
//! packet at all, but for the checks listed here that one of them does not make.

mod lines;

use super::*;
use bytes::BytesMut;
use lines::Line;
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

/// The property list of a packet: each of `ids` or not, user properties up to three, in any order.
fn properties(version: Version, ids: &[u8]) -> BoxedStrategy<Vec<u8>> {
    if version == V4 {
        return Just(Vec::new()).boxed();
    }
    let single: Vec<_> = ids.iter().map(|id| prop::option::weighted(0.4, property_of(*id))).collect();
    (single, prop::collection::vec(property_of(38), 0..3))
        .prop_map(|(single, user)| single.into_iter().flatten().chain(user).collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(|list| {
            let list = list.concat();
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
    let own = properties(version, &[17, 33, 39, 34, 25, 23, 21]);
    let head = (any::<bool>(), number(2), own, text("[a-z0-9]{1,23}"));
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

/// A reason code and properties, as far as they are not left out.
fn reasoned(version: Version, codes: &'static [u8], ids: &[u8]) -> BoxedStrategy<Vec<Vec<u8>>> {
    if version == V4 {
        return Just(Vec::new()).boxed();
    }
    (prop::sample::select(codes), properties(version, ids), 0..3)
        .prop_map(|(code, properties, left_out)| match left_out {
            0 if code == 0 => Vec::new(),
            1 => vec![vec![code]],
            _ => vec![vec![code], properties],
        })
        .boxed()
}

fn ack(version: Version) -> BoxedStrategy<(u8, Vec<Vec<u8>>)> {
    let kinds =
        vec![(0x40u8, given::RECEIVED), (0x50, given::RECEIVED), (0x62, given::RELEASED), (0x70, given::RELEASED)];
    (prop::sample::select(kinds), number(2))
        .prop_flat_map(move |((first, codes), packet_id)| {
            let parts = move |rest: Vec<Vec<u8>>| (first, [vec![packet_id.clone()], rest].concat());
            reasoned(version, codes, &[31]).prop_map(parts)
        })
        .boxed()
}

/// mqttbytes knows no DISCONNECT of version 5 without content.
fn disconnect(version: Version) -> BoxedStrategy<(u8, Vec<Vec<u8>>)> {
    let content = reasoned(version, given::DISCONNECT, &[17, 31]);
    content
        .prop_filter("content", move |parts| version == V4 || parts.len() == 2)
        .prop_map(|parts| (0xe0, parts))
        .boxed()
}

/// Version 5 only; mqttbytes does not know it.
fn auth() -> BoxedStrategy<(Version, Vec<u8>)> {
    let own = [property_of(21), properties(V5, &[22, 31])];
    let listed = |(code, (method, rest)): (u8, (Vec<u8>, Vec<u8>))| {
        let list = [&method[..], &rest[1..]].concat(); // the rest is short: its length is one byte
        whole(0xf0, vec![vec![code, list.len() as u8], list])
    };
    let [method, rest] = own;
    (prop::sample::select(given::AUTH), (method, rest)).prop_map(listed).prop_map(|bytes| (V5, bytes)).boxed()
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

/// mqttbytes does not know MQTT 3.1.
#[test]
fn two_codecs_understand_the_same_connect_of_3_1() {
    for text in [
        "10 0f 00 06 'MQIsdp' 03 02 00 3c 00 01 'c'",
        "10 23 00 06 'MQIsdp' 03 e6 00 00 00 01 'c' 00 01 'w' 00 03 'bye' 00 04 'user' 00 04 'word'",
    ] {
        let ours = lines::of_ours(&wire(text), V4);
        assert!(ours.is_ok(), "{ours:?}");
        assert_eq!(ours, lines::of_rmqtt(&wire(text), V4));
    }
}

/// What a server passes on of a PUBLISH: the properties that are the message's own, all user properties in their order.
fn passed_on(bytes: &[u8]) -> (String, Vec<(String, String)>) {
    let bytes5::Packet::Publish(publish) = bytes5::read(&mut BytesMut::from(bytes), MAX).unwrap() else {
        panic!("a PUBLISH")
    };
    let p = publish.properties.unwrap_or(bytes5::PublishProperties {
        payload_format_indicator: None,
        message_expiry_interval: None,
        topic_alias: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
        subscription_identifiers: Vec::new(),
        content_type: None,
    });
    let (format, data) = (p.payload_format_indicator, p.correlation_data);
    let others = format!("{format:?} {:?} {:?} {data:?}", p.content_type, p.response_topic);
    (others, p.user_properties)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn two_codecs_understand_the_same_auth((version, bytes) in auth()) {
        let ours = lines::of_ours(&bytes, version);
        prop_assert!(ours.is_ok(), "{:?}", ours);
        prop_assert_eq!(&ours, &lines::of_rmqtt(&bytes, version));
        prop_assert_eq!(&ours, &lines::of_ours(&rewritten_by_rmqtt(&bytes, version), version));
    }

    #[test]
    fn what_is_passed_on_arrives((first, parts) in publish(V5)) {
        let bytes = whole(first, parts);
        let Ok(Some((Packet::Publish(publish), _))) = decode(&bytes, V5, MAX) else { panic!("a PUBLISH") };
        let stored = written(|out| publish.properties.forwarded(out));
        let content_type = content_type_of(&stored);
        prop_assert_eq!(content_type, publish.properties.content_type());
        // As it was stored, and with a type that the server gives.
        let verbatim = PublishHead { version: V5, properties: &stored, ..head("k") };
        prop_assert_eq!(passed_on(&written_publish(verbatim, 0)), passed_on(&bytes));
        let payload_format = publish.properties.payload_format();
        prop_assert_eq!(payload_format_of(&stored), payload_format);
        let properties = without_format(&stored);
        let given = PublishHead { version: V5, payload_format, content_type, properties, ..head("k") };
        prop_assert_eq!(passed_on(&written_publish(given, 0)), passed_on(&bytes));
    }

    /// In pieces of any length, down to single bytes: the same packets as in one piece.
    #[test]
    fn a_stream_may_be_cut_anywhere(
        packets in prop::collection::vec(packet(), 1..6),
        cuts in prop::collection::vec(1usize..40, 1..20),
    ) {
        let whole: Vec<String> = packets.iter().map(|(version, bytes)| lines::of_ours(bytes, *version).unwrap()).collect();
        let stream: Vec<u8> = packets.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        for cuts in [vec![1], cuts] {
            let (mut arrived, mut taken, mut found) = (0, 0, Vec::new());
            for cut in cuts.iter().cycle() {
                while let Some((version, _)) = packets.get(found.len())
                    && let Some((packet, length)) = decode(&stream[taken..arrived], *version, MAX).unwrap()
                {
                    found.push(lines::of_packet(&packet));
                    taken += length;
                }
                if arrived == stream.len() {
                    break;
                }
                arrived = stream.len().min(arrived + cut);
            }
            prop_assert_eq!(&found, &whole);
        }
    }

    #[test]
    fn three_codecs_understand_the_same((version, bytes) in packet()) {
        let ours = lines::of_ours(&bytes, version);
        prop_assert!(ours.is_ok(), "{:?}", ours);
        prop_assert_eq!(&ours, &lines::of_mqttbytes(&bytes, version), "mqttbytes");
        prop_assert_eq!(&ours, &lines::of_rmqtt(&bytes, version), "rmqtt-codec");
        let rewritten = rewritten_by_mqttbytes(&bytes, version);
        prop_assert_eq!(&ours, &lines::of_ours(&rewritten, version), "written by mqttbytes");
        let rewritten = rewritten_by_rmqtt(&bytes, version);
        prop_assert_eq!(&ours, &lines::of_ours(&rewritten, version), "written by rmqtt-codec");
    }
}

/// What our writers wrote, as the foreign codecs understand it.
fn both_read(version: Version, expected: &str, write: impl FnOnce(&mut Vec<u8>)) {
    let bytes = written(write);
    assert_eq!(lines::of_mqttbytes(&bytes, version).as_deref(), Ok(expected), "mqttbytes, {bytes:x?}");
    assert_eq!(lines::of_rmqtt(&bytes, version).as_deref(), Ok(expected), "rmqtt-codec, {bytes:x?}");
}

/// Codes that a server gives in CONNACK (§3.2.2.2) and DISCONNECT (§3.14.2.1). mqttbytes does not know 0x8c in the latter.
const CONNACK_CODES: [u8; 22] = [
    0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a, 0x9b,
    0x9c, 0x9d, 0x9f,
];
const DISCONNECT_CODES: [u8; 28] = [
    0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
];
const SUBACK_CODES: [u8; 12] = [0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
const UNSUBACK_CODES: [u8; 7] = [0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];

#[test]
fn every_code_that_we_write_is_understood() {
    let nothing = lines::Said::default();
    for code in 0..=5 {
        let connack = ConnAck { code, session_present: code == 0, ..ConnAck::default() };
        both_read(V4, &format!("connack {} {code} {nothing:?}", code == 0), |out| write_connack(V4, &connack, out));
    }
    both_read(V4, "suback 1 [0, 1, 2, 128]", |out| write_suback(V4, 1, &[0, 1, 2, 0x80], out));
    both_read(V5, &format!("suback 2 {SUBACK_CODES:?}"), |out| write_suback(V5, 2, &SUBACK_CODES, out));
    both_read(V4, "unsuback 3 []", |out| write_unsuback(V4, 3, &[0], out));
    both_read(V5, &format!("unsuback 3 {UNSUBACK_CODES:?}"), |out| write_unsuback(V5, 3, &UNSUBACK_CODES, out));
    both_read(V4, "pingresp", write_pingresp);
    let kinds = [
        (AckKind::PubAck, "puback", given::RECEIVED),
        (AckKind::PubRec, "pubrec", given::RECEIVED),
        (AckKind::PubRel, "pubrel", given::RELEASED),
        (AckKind::PubComp, "pubcomp", given::RELEASED),
    ];
    for reason_string in [None, Some("because")] {
        let said = lines::Said { reason_string, ..lines::Said::default() };
        for (kind, name, codes) in kinds {
            for code in codes {
                let says = format!("{name} 9 0 {nothing:?}");
                both_read(V4, &says, |out| write_ack(kind, V4, 9, *code, reason_string, out));
                let says = format!("{name} 9 {code} {said:?}");
                both_read(V5, &says, |out| write_ack(kind, V5, 9, *code, reason_string, out));
            }
        }
        for code in DISCONNECT_CODES {
            both_read(V5, &format!("disconnect {code} {said:?}"), |out| write_disconnect(code, reason_string, out));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_connack_that_we_write_is_understood(
        session_present in any::<bool>(),
        code in prop::sample::select(&CONNACK_CODES[..]),
        (session_expiry_interval, maximum_packet_size) in (any::<Option<u32>>(), prop::option::of(1u32..)),
        receive_maximum in prop::option::of(1u16..u16::MAX),
        (topic_alias_maximum, server_keep_alive) in any::<(Option<u16>, Option<u16>)>(),
        texts in prop::collection::vec(prop::option::of("[a-zä]{0,150}"), 3),
    ) {
        let [assigned_client_id, reason_string, response_information] = [0, 1, 2].map(|at: usize| texts[at].as_deref());
        let connack = ConnAck {
            session_present,
            code,
            session_expiry_interval,
            receive_maximum,
            maximum_packet_size,
            assigned_client_id,
            topic_alias_maximum,
            reason_string,
            server_keep_alive,
            response_information,
        };
        let said = lines::Said {
            session_expiry: session_expiry_interval.unwrap_or(0),
            receive_maximum,
            maximum_packet_size,
            assigned_client_id,
            topic_alias_maximum: topic_alias_maximum.unwrap_or(0),
            reason_string,
            server_keep_alive,
            information: response_information,
            ..lines::Said::default()
        };
        both_read(V5, &format!("connack {session_present} {code} {said:?}"), |out| write_connack(V5, &connack, out));
    }

    #[test]
    fn any_publish_that_we_write_is_understood(
        version in any_version(),
        (qos, dup, retain) in (0u8..3, any::<bool>(), any::<bool>()),
        key in "[a-zä]{0,40}",
        packet_id in 1u16..,
        (payload_format, content_type) in (prop::option::of(0u8..2), prop::option::of("[a-z/]{0,40}")),
        message_expiry in prop::option::of(1u32..),
        topic_alias in prop::option::of(1u16..),
        subscription_identifiers in prop::collection::vec(1u32..0x0fff_ffff, 0..4),
        user in prop::option::of("[a-zä]{0,9}"),
        payload_bytes in 0usize..300,
    ) {
        let dup = dup && qos > 0;
        let content_type = content_type.as_deref();
        let properties = written(|out| if let Some(value) = &user {
            out.extend_from_slice(b"\x26\0\x01k");
            write_text(value, out);
        });
        let head = PublishHead {
            version,
            qos,
            dup,
            retain,
            topic: ("T", "/", &key),
            topic_alias,
            payload_format,
            content_type,
            message_expiry,
            properties: &properties,
            subscription_identifiers: &subscription_identifiers,
            payload_bytes,
        };
        let said = lines::Said {
            payload_is_text: payload_format == Some(1),
            message_expiry,
            content_type,
            subscription_identifiers: subscription_identifiers.clone(),
            topic_alias,
            user: [user.as_deref(), None],
            ..lines::Said::default()
        };
        let said = if version == V5 { said } else { lines::Said::default() };
        let flags = (dup, qos, retain, if qos > 0 { packet_id } else { 0 });
        let bytes = written_publish(head, packet_id);
        let payload = &bytes[bytes.len() - payload_bytes..];
        both_read(version, &format!("publish T/{key} {flags:?} {said:?} {payload:?}"), |out| out.extend_from_slice(&bytes));
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

/// An empty identifier of a session that is to be kept: the session's affair with us.
const REFUSED_BY_RMQTT: [(&str, &str); 1] = [("connect false", "InvalidClientId")];

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
        let ours = lines::of_ours(&bytes, version);
        let theirs = lines::of_mqttbytes(&bytes, version);
        let agreed = agree(&ours, &theirs, &UNCHECKED_BY_MQTTBYTES, &REFUSED_BY_MQTTBYTES);
        prop_assert!(agreed, "{:?}: ours {:?}, mqttbytes {:?}", version, ours, theirs);
        let theirs = lines::of_rmqtt(&bytes, version);
        let agreed = agree(&ours, &theirs, &[], &REFUSED_BY_RMQTT);
        prop_assert!(agreed, "{:?}: ours {:?}, rmqtt-codec {:?}", version, ours, theirs);
    }
}
