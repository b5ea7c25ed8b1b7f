//! Packets byte by byte, every kind of malformed one with its error, and what must hold for any bytes. `foreign.rs` asks
//! two codecs of other people.

mod foreign;

use super::*;
use PacketError::{Malformed, Protocol, TooLarge, UnsupportedVersion};
use Version::{V4, V5};
use proptest::prelude::*;

const MAX: usize = 1 << 20;

/// `"10 02 'MQTT'"`: hexadecimal bytes, and text in quotes.
fn wire(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in text.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
        } else {
            bytes.extend(part.split_whitespace().map(|hex| u8::from_str_radix(hex, 16).expect("two digits")));
        }
    }
    bytes
}

fn read(bytes: &[u8], version: Version) -> Result<Packet<'_>> {
    let (packet, length) = decode(bytes, version, MAX)?.expect("the packet is whole");
    assert_eq!(length, bytes.len());
    Ok(packet)
}

/// Properties with some of them set.
fn with(set: impl FnOnce(&mut Properties<'static>)) -> Properties<'static> {
    let mut properties = Properties::default();
    set(&mut properties);
    properties
}

fn bare(packet_id: u16) -> Ack<'static> {
    Ack { packet_id, reason: 0, properties: Properties::default() }
}

fn publish(qos: u8, retain: bool, topic: &'static str, packet_id: u16, payload: &'static [u8]) -> Publish<'static> {
    Publish { dup: false, qos, retain, topic, packet_id, properties: Properties::default(), payload }
}

#[test]
fn packets_of_3_1_1_are_read() {
    let filter = |filter, qos| Filter { filter, qos, no_local: false, retain_as_published: false, retain_handling: 0 };
    let properties = Properties::default();
    let cases: Vec<(&str, Packet<'_>)> = vec![
        ("30 07 00 03 'a/b' 'hi'", Packet::Publish(publish(0, false, "a/b", 0, b"hi"))),
        ("31 05 00 03 'a/b'", Packet::Publish(publish(0, true, "a/b", 0, b""))),
        ("32 08 00 03 'a/b' 00 0a 'x'", Packet::Publish(publish(1, false, "a/b", 10, b"x"))),
        ("34 07 00 03 'a/b' ff ff", Packet::Publish(publish(2, false, "a/b", 65535, b""))),
        ("3b 06 00 02 'ab' 00 01", Packet::Publish(Publish { dup: true, ..publish(1, true, "ab", 1, b"") })),
        ("40 02 00 01", Packet::PubAck(bare(1))),
        ("50 02 00 01", Packet::PubRec(bare(1))),
        ("62 02 00 01", Packet::PubRel(bare(1))),
        ("70 02 01 00", Packet::PubComp(bare(256))),
        (
            "82 0d 00 01 00 03 'a/#' 00 00 02 '+b' 01",
            Packet::Subscribe { packet_id: 1, properties, filters: vec![filter("a/#", 0), filter("+b", 1)] },
        ),
        ("a2 06 00 02 00 02 'ab'", Packet::Unsubscribe { packet_id: 2, properties, filters: vec!["ab"] }),
        ("c0 00", Packet::PingReq),
        ("e0 00", Packet::Disconnect { reason: 0, properties }),
    ];
    for (text, expected) in cases {
        let bytes = wire(text);
        assert_eq!(read(&bytes, V4).as_ref(), Ok(&expected), "{text}");
    }
}

#[test]
fn packets_of_5_0_are_read() {
    let properties = Properties::default();
    let typed = with(|p| (p.content_type, p.payload_is_text) = (Some("a/b"), true));
    let aliased = with(|p| (p.topic_alias, p.response_topic) = (Some(7), Some("r")));
    let filter = Filter { filter: "a", qos: 2, no_local: true, retain_as_published: true, retain_handling: 2 };
    let numbered = with(|p| p.subscription_identifier = Some(128));
    let expiring = with(|p| p.session_expiry_interval = Some(60));
    let method = with(|p| p.authentication_method = Some("x"));
    let cases: Vec<(&str, Packet<'_>)> = vec![
        ("30 06 00 01 'a' 00 'hi'", Packet::Publish(publish(0, false, "a", 0, b"hi"))),
        ("32 08 00 01 'a' 00 09 00 'hi'", Packet::Publish(publish(1, false, "a", 9, b"hi"))),
        (
            "30 0e 00 01 'a' 08 01 01 03 00 03 'a/b' 'hi'",
            Packet::Publish(Publish { properties: typed, ..publish(0, false, "a", 0, b"hi") }),
        ),
        (
            "30 0a 00 00 07 23 00 07 08 00 01 'r'",
            Packet::Publish(Publish { properties: aliased, ..publish(0, false, "", 0, b"") }),
        ),
        // Expiry, correlation data: checked, of no consequence.
        ("30 0d 00 01 'a' 09 02 00 00 00 00 09 00 01 ff", Packet::Publish(publish(0, false, "a", 0, b""))),
        ("40 02 00 01", Packet::PubAck(bare(1))),
        ("40 03 00 01 10", Packet::PubAck(Ack { reason: 0x10, ..bare(1) })),
        ("40 04 00 01 10 00", Packet::PubAck(Ack { reason: 0x10, ..bare(1) })),
        ("40 08 00 01 80 04 1f 00 01 'x'", Packet::PubAck(Ack { reason: 0x80, ..bare(1) })),
        ("62 03 00 01 92", Packet::PubRel(Ack { reason: 0x92, ..bare(1) })),
        ("82 07 00 01 00 00 01 'a' 2e", Packet::Subscribe { packet_id: 1, properties, filters: vec![filter] }),
        (
            "82 0a 00 01 03 0b 80 01 00 01 'a' 2e",
            Packet::Subscribe { packet_id: 1, properties: numbered, filters: vec![filter] },
        ),
        ("a2 06 00 01 00 00 01 'a'", Packet::Unsubscribe { packet_id: 1, properties, filters: vec!["a"] }),
        ("c0 00", Packet::PingReq),
        ("e0 00", Packet::Disconnect { reason: 0, properties }),
        ("e0 01 04", Packet::Disconnect { reason: 4, properties }),
        ("e0 07 00 05 11 00 00 00 3c", Packet::Disconnect { reason: 0, properties: expiring }),
        ("f0 00", Packet::Auth { reason: 0, properties }),
        ("f0 06 19 04 15 00 01 'x'", Packet::Auth { reason: 0x19, properties: method }),
    ];
    for (text, expected) in cases {
        let bytes = wire(text);
        assert_eq!(read(&bytes, V5).as_ref(), Ok(&expected), "{text}");
    }
}

#[test]
fn connects_are_read_whatever_version_is_expected() {
    let plain = Connect {
        version: V4,
        clean: true,
        keep_alive: 60,
        client_id: "c",
        will: None,
        username: None,
        password: None,
        properties: Properties::default(),
    };
    let will = |qos, retain| Some(Will { topic: "w", payload: b"bye", qos, retain, properties: Properties::default() });
    let limits = with(|p| {
        p.session_expiry_interval = Some(1);
        p.receive_maximum = Some(20);
        p.maximum_packet_size = Some(256);
        p.request_problem_information = Some(false);
    });
    let cases: Vec<(&str, Connect<'_>)> = vec![
        ("10 0d 00 04 'MQTT' 04 02 00 3c 00 01 'c'", plain.clone()),
        (
            "10 0c 00 04 'MQTT' 04 00 00 00 00 00",
            Connect { clean: false, keep_alive: 0, client_id: "", ..plain.clone() },
        ),
        (
            "10 17 00 04 'MQTT' 04 c2 00 3c 00 01 'c' 00 04 'user' 00 02 ff 00",
            Connect { username: Some("user"), password: Some(&[0xff, 0]), ..plain.clone() },
        ),
        (
            "10 15 00 04 'MQTT' 04 2e 00 3c 00 01 'c' 00 01 'w' 00 03 'bye'",
            Connect { will: will(1, true), ..plain.clone() },
        ),
        ("10 0e 00 04 'MQTT' 05 02 00 3c 00 00 01 'c'", Connect { version: V5, ..plain.clone() }),
        (
            "10 11 00 04 'MQTT' 05 42 00 3c 00 00 01 'c' 00 01 'p'",
            Connect { version: V5, password: Some(b"p"), ..plain.clone() },
        ),
        (
            "10 1d 00 04 'MQTT' 05 02 00 3c 0f 11 00 00 00 01 21 00 14 27 00 00 01 00 17 00 00 01 'c'",
            Connect { version: V5, properties: limits, ..plain.clone() },
        ),
        (
            "10 1c 00 04 'MQTT' 05 16 00 3c 00 00 01 'c' 05 18 00 00 00 05 00 01 'w' 00 03 'bye'",
            Connect { version: V5, will: will(2, false), ..plain.clone() },
        ),
    ];
    for (text, expected) in cases {
        let bytes = wire(text);
        for version in [V4, V5] {
            assert_eq!(read(&bytes, version), Ok(Packet::Connect(Box::new(expected.clone()))), "{text}");
        }
    }
}

#[test]
fn user_properties_are_found_among_others() {
    let bytes = wire("30 19 00 01 'a' 14 26 00 01 'k' 00 01 '1' 23 00 05 26 00 01 'k' 00 02 '22' 01 01 'x'");
    let Ok(Packet::Publish(publish)) = read(&bytes, V5) else { panic!("a PUBLISH") };
    assert_eq!((publish.properties.user("k"), publish.properties.user("j")), (Some("22"), None));
    assert_eq!((publish.properties.topic_alias, publish.payload), (Some(5), &b"x"[..]));
}

const EARLY: PacketError = Malformed("it ends too early");
const FLAGS: PacketError = Malformed("reserved flags of the fixed header are set");
const FOLLOWS: PacketError = Malformed("bytes follow the packet's content");
const PROPERTY: PacketError = Malformed("an unknown property, or one that belongs to another packet");
const TWICE: PacketError = Protocol("a property is given twice");
const ZERO: PacketError = Protocol("a property is 0 that must not be");
const WILL: PacketError = Malformed("the will flags contradict each other");
const SERVERS: PacketError = Protocol("only a server sends this packet");
const RESERVED: PacketError = Malformed("packet type 0 or 15 is reserved");

#[test]
fn each_malformed_packet_has_its_error() {
    let cases: Vec<(&str, Version, PacketError)> = vec![
        ("00 00", V4, RESERVED),
        ("f0 00", V4, RESERVED),
        ("20 02 00 00", V4, SERVERS),
        ("90 03 00 01 00", V4, SERVERS),
        ("b0 02 00 01", V4, SERVERS),
        ("d0 00", V5, SERVERS),
        // Flags [MQTT-2.1.3-1].
        ("11 00", V4, FLAGS),
        ("41 02 00 01", V4, FLAGS),
        ("60 02 00 01", V4, FLAGS),
        ("80 06 00 01 00 01 'a' 00", V4, FLAGS),
        ("a0 05 00 01 00 01 'a'", V4, FLAGS),
        ("c1 00", V4, FLAGS),
        ("e1 00", V5, FLAGS),
        ("f1 00", V5, FLAGS),
        ("36 05 00 01 'a' 00 01", V4, Malformed("QoS 3 does not exist")),
        ("38 03 00 01 'a'", V4, Malformed("DUP is set on a QoS 0 message")),
        // Lengths.
        ("30 80 00", V4, Malformed("a variable byte integer is longer than it needs to be")),
        ("30 ff ff ff ff 01", V4, Malformed("a variable byte integer of more than 4 bytes")),
        ("30 81 80 40", V4, TooLarge),
        ("30 01 00", V4, EARLY),
        ("30 04 00 03 'ab'", V4, EARLY),
        ("32 03 00 01 'a'", V4, EARLY),
        ("40 01 00", V4, EARLY),
        ("40 03 00 01 00", V4, FOLLOWS),
        ("c0 01 00", V4, FOLLOWS),
        ("e0 01 00", V4, FOLLOWS),
        ("30 03 00 01 'a'", V5, EARLY),
        ("30 04 00 01 'a' 01", V5, EARLY),
        ("30 05 00 01 'a' 01 01", V5, EARLY), // the list ends within a property
        // Strings [MQTT-1.5.4-1, -2].
        ("30 04 00 02 c3 28", V4, Malformed("a string is not UTF-8")),
        ("30 05 00 03 ed a0 80", V4, Malformed("a string is not UTF-8")),
        ("30 05 00 03 'a' 00 'b'", V4, Malformed("a string contains U+0000")),
        // Packet identifiers [MQTT-2.2.1-3].
        ("32 05 00 01 'a' 00 00", V4, Protocol("the packet identifier is 0")),
        ("40 02 00 00", V5, Protocol("the packet identifier is 0")),
        ("82 06 00 00 00 01 'a' 00", V4, Protocol("the packet identifier is 0")),
        // SUBSCRIBE, UNSUBSCRIBE.
        ("82 02 00 01", V4, Protocol("SUBSCRIBE without a filter")),
        ("a2 03 00 01 00", V5, Protocol("UNSUBSCRIBE without a filter")),
        ("82 06 00 01 00 01 'a' 03", V4, Malformed("reserved subscription options are set")),
        ("82 06 00 01 00 01 'a' 04", V4, Malformed("reserved subscription options are set")),
        ("82 07 00 01 00 00 01 'a' 30", V5, Protocol("retain handling 3 does not exist")),
        ("82 07 00 01 00 00 01 'a' 40", V5, Malformed("reserved subscription options are set")),
        ("82 05 00 01 00 01 'a'", V4, EARLY),
        // Properties.
        ("30 06 00 01 'a' 02 00 00", V5, PROPERTY),
        ("30 06 00 01 'a' 02 7f 00", V5, PROPERTY),
        ("30 06 00 01 'a' 02 0b 01", V5, PROPERTY), // a subscription identifier from a client [MQTT-3.3.4-6]
        ("30 09 00 01 'a' 05 11 00 00 00 01", V5, PROPERTY),
        ("30 08 00 01 'a' 04 01 00 01 00", V5, TWICE),
        ("30 06 00 01 'a' 02 01 02", V5, Protocol("a yes-or-no property is neither 0 nor 1")),
        ("82 09 00 01 02 0b 00 00 01 'a' 00", V5, ZERO),
        ("10 11 00 04 'MQTT' 05 02 00 3c 03 21 00 00 00 01 'c'", V5, ZERO),
        ("10 13 00 04 'MQTT' 05 02 00 3c 05 27 00 00 00 00 00 01 'c'", V5, ZERO),
        // CONNECT.
        ("10 0d 00 04 'MQTT' 03 02 00 3c 00 01 'c'", V4, UnsupportedVersion),
        ("10 0d 00 04 'MQTt' 04 02 00 3c 00 01 'c'", V4, UnsupportedVersion),
        ("10 0f 00 06 'MQIsdp' 03 02 00 3c 00 01 'c'", V4, UnsupportedVersion),
        ("10 0d 00 04 'MQTT' 04 03 00 3c 00 01 'c'", V4, Malformed("the reserved CONNECT flag is set")),
        ("10 0d 00 04 'MQTT' 04 0a 00 3c 00 01 'c'", V4, WILL),
        ("10 0d 00 04 'MQTT' 04 22 00 3c 00 01 'c'", V4, WILL),
        ("10 15 00 04 'MQTT' 04 1e 00 3c 00 01 'c' 00 01 'w' 00 03 'bye'", V4, WILL),
        ("10 10 00 04 'MQTT' 04 42 00 3c 00 01 'c' 00 01 'p'", V4, Malformed("a password without a user name")),
        ("10 0d 00 04 'MQTT' 04 82 00 3c 00 01 'c'", V4, EARLY),
        ("10 0e 00 04 'MQTT' 04 02 00 3c 00 01 'c' 00", V4, FOLLOWS),
    ];
    for (text, version, expected) in cases {
        assert_eq!(decode(&wire(text), version, 1 << 20).map(|_| ()), Err(expected), "{text}");
    }
}

#[test]
fn errors_have_the_reason_codes_of_the_specification() {
    let cases = [(EARLY, 0x81), (SERVERS, 0x82), (TooLarge, 0x95), (UnsupportedVersion, 0x84)];
    for (error, code) in cases {
        assert_eq!(error.reason(), code);
    }
}

#[test]
fn a_packet_of_exactly_the_limit_is_read() {
    let bytes = wire("30 07 00 03 'a/b' 'hi'");
    assert!(decode(&bytes, V4, bytes.len()).unwrap().is_some());
    assert_eq!(decode(&bytes, V4, bytes.len() - 1), Err(TooLarge));
    // Known from the first two bytes, before the rest arrives.
    assert_eq!(decode(&bytes[..2], V4, bytes.len() - 1), Err(TooLarge));
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// A PUBLISH as the frame encoder writes it, with its packet identifier filled in.
fn written_publish(version: Version, packet_id: Option<u16>, retain: bool, content_type: Option<&str>) -> Vec<u8> {
    let mut out = vec![0xaa]; // something before it
    let payload = b"hi";
    let topic = ("T", "/", "k");
    let acknowledged = packet_id.is_some();
    let at = write_publish_head(version, acknowledged, retain, topic, content_type, payload.len(), &mut out);
    out.extend_from_slice(payload);
    assert_eq!(at.is_some(), acknowledged);
    if let (Some(at), Some(id)) = (at, packet_id) {
        out[at..at + 2].copy_from_slice(&id.to_be_bytes());
    }
    assert_eq!(out.len() - 1, publish_bytes(version, acknowledged, 3, content_type, payload.len()));
    out.split_off(1)
}

/// The transcripts of compat §13.5, and what goes beyond them.
#[test]
fn packets_are_written_byte_by_byte() {
    let ok = ConnAck::default();
    let full = ConnAck {
        assigned_client_id: Some("id"),
        server_keep_alive: Some(60),
        receive_maximum: Some(16),
        maximum_packet_size: Some(1024),
        no_session_expiry: true,
        ..ConnAck::default()
    };
    let refused = ConnAck { code: 0x86, reason_string: Some("no"), ..ConnAck::default() };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (written(|out| write_connack(V4, &ok, out)), "20 02 00 00"),
        (written(|out| write_connack(V4, &ConnAck { session_present: true, ..ok.clone() }, out)), "20 02 01 00"),
        (written(|out| write_connack(V4, &ConnAck { code: 4, ..ok.clone() }, out)), "20 02 00 04"),
        (written(|out| write_connack(V5, &ok, out)), "20 09 00 00 06 24 01 29 00 2a 00"),
        (
            written(|out| write_connack(V5, &full, out)),
            "20 1e 00 00 1b 11 00 00 00 00 21 00 10 24 01 27 00 00 04 00 29 00 2a 00 12 00 02 'id' 13 00 3c",
        ),
        (written(|out| write_connack(V5, &refused, out)), "20 08 00 86 05 1f 00 02 'no'"),
        (written(|out| write_suback(V4, 258, &[1], out)), "90 03 01 02 01"),
        (written(|out| write_suback(V4, 1, &[0, 0x80], out)), "90 04 00 01 00 80"),
        (written(|out| write_suback(V5, 1, &[1, 0x8f], out)), "90 05 00 01 00 01 8f"),
        (written(|out| write_unsuback(V4, 7, &[0], out)), "b0 02 00 07"),
        (written(|out| write_unsuback(V5, 7, &[0], out)), "b0 04 00 07 00 00"),
        (written(|out| write_unsuback(V5, 7, &[0x11, 0], out)), "b0 05 00 07 00 11 00"),
        (written(|out| write_puback(V4, 9, 0x97, Some("full"), out)), "40 02 00 09"),
        (written(|out| write_puback(V5, 9, 0, None, out)), "40 02 00 09"),
        (written(|out| write_puback(V5, 9, 0x97, None, out)), "40 04 00 09 97 00"),
        (written(|out| write_puback(V5, 9, 0x97, Some("full"), out)), "40 0b 00 09 97 07 1f 00 04 'full'"),
        (written(write_pingresp), "d0 00"),
        (written(|out| write_disconnect(0x8e, None, out)), "e0 02 8e 00"),
        (written(|out| write_disconnect(0x8e, Some("x"), out)), "e0 06 8e 04 1f 00 01 'x'"),
        (written_publish(V4, None, false, None), "30 07 00 03 'T/k' 'hi'"),
        (written_publish(V4, None, true, None), "31 07 00 03 'T/k' 'hi'"),
        (written_publish(V4, Some(258), false, None), "32 09 00 03 'T/k' 01 02 'hi'"),
        (written_publish(V5, None, false, None), "30 08 00 03 'T/k' 00 'hi'"),
        (written_publish(V5, Some(1), true, None), "33 0a 00 03 'T/k' 00 01 00 'hi'"),
        (written_publish(V5, None, false, Some("a/b")), "30 0e 00 03 'T/k' 06 03 00 03 'a/b' 'hi'"),
    ];
    for (bytes, text) in cases {
        assert_eq!(bytes, wire(text), "{text}");
    }
}

fn any_version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(V4), Just(V5)]
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), version in any_version()) {
        let _ = decode(&bytes, version, MAX);
    }

    /// Behind a sound fixed header, so that the content is reached.
    #[test]
    fn any_content_is_read_without_panic(
        first in any::<u8>(),
        content in prop::collection::vec(prop_oneof![3 => 0u8..48, 1 => any::<u8>()], 0..120),
        version in any_version(),
    ) {
        let first = if first & 0xf0 == 0x60 || first & 0xd0 == 0x80 { first & 0xf0 | 2 } else { first };
        let mut bytes = Vec::new();
        write_packet(first, &content, &mut bytes);
        if let Ok(Some((Packet::Publish(publish), _))) = decode(&bytes, version, MAX) {
            publish.properties.user("k");
        }
    }

    #[test]
    fn a_prefix_is_never_a_packet((version, bytes) in foreign::packet()) {
        for length in 0..bytes.len() {
            if let Ok(Some(found)) = decode(&bytes[..length], version, MAX) {
                prop_assert!(false, "{} of {} bytes read as {:?}", length, bytes.len(), found);
            }
        }
        let mut more = bytes.clone();
        more.extend_from_slice(&[0x30; 9]);
        let (_, length) = decode(&more, version, MAX).unwrap().expect("whole");
        prop_assert_eq!(length, bytes.len());
    }

    #[test]
    fn the_length_of_a_publish_is_known_beforehand(
        version in any_version(),
        acknowledged in any::<bool>(),
        key in "[a-z]{0,300}",
        content_type in prop::option::of("[a-z/]{0,200}"),
        payload in 0usize..70_000,
    ) {
        let mut out = Vec::new();
        let content_type = content_type.as_deref();
        write_publish_head(version, acknowledged, false, ("T", "/", &key), content_type, payload, &mut out);
        let bytes = publish_bytes(version, acknowledged, 2 + key.len(), content_type, payload);
        prop_assert_eq!(out.len() + payload, bytes);
        prop_assert_eq!(packet_length(&out, MAX), Ok(Some(bytes)));
    }
}
