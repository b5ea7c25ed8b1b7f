//! Packets byte by byte, every kind of malformed one with its error, and what must hold for any bytes. `foreign.rs` asks
//! two codecs of other people.

mod foreign;

use super::super::property::{content_type_of, without_format};

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

fn write_variable(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn write_packet(first: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    write_variable(content.len() as u32, out);
    out.extend_from_slice(content);
}

/// The properties of a list.
fn listed(text: &str) -> Properties<'static> {
    let list = wire(text);
    let mut bytes = Vec::new();
    write_variable(list.len() as u32, &mut bytes);
    bytes.extend_from_slice(&list);
    property::read(&mut Input(bytes.leak()), property::Set::MAX).expect("a sound list")
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
    let typed = listed("01 01 03 00 03 'a/b'");
    let aliased = listed("23 00 07 08 00 01 'r'");
    let data = listed("02 00 00 00 00 09 00 01 ff");
    let told = listed("1f 00 01 'x'");
    let filter = Filter { filter: "a", qos: 2, no_local: true, retain_as_published: true, retain_handling: 2 };
    let numbered = listed("0b 80 01");
    let expiring = listed("11 00 00 00 3c");
    let method = listed("15 00 01 'x'");
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
        (
            "30 0d 00 01 'a' 09 02 00 00 00 00 09 00 01 ff",
            Packet::Publish(Publish { properties: data, ..publish(0, false, "a", 0, b"") }),
        ),
        ("40 02 00 01", Packet::PubAck(bare(1))),
        ("40 03 00 01 10", Packet::PubAck(Ack { reason: 0x10, ..bare(1) })),
        ("40 04 00 01 10 00", Packet::PubAck(Ack { reason: 0x10, ..bare(1) })),
        ("40 08 00 01 80 04 1f 00 01 'x'", Packet::PubAck(Ack { reason: 0x80, properties: told, packet_id: 1 })),
        ("50 03 00 01 10", Packet::PubRec(Ack { reason: 0x10, ..bare(1) })),
        ("50 02 00 01", Packet::PubRec(bare(1))),
        ("62 03 00 01 92", Packet::PubRel(Ack { reason: 0x92, ..bare(1) })),
        ("70 08 00 01 00 04 1f 00 01 'x'", Packet::PubComp(Ack { reason: 0, properties: told, packet_id: 1 })),
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
        ("f0 06 18 04 15 00 01 'x'", Packet::Auth { reason: 0x18, properties: method }),
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
    let limits = listed("11 00 00 00 01 21 00 14 27 00 00 01 00 17 00");
    let delayed = listed("18 00 00 00 05");
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
            Connect {
                version: V5,
                will: will(2, false).map(|will| Will { properties: delayed, ..will }),
                ..plain.clone()
            },
        ),
        // MQTT 3.1
        ("10 0f 00 06 'MQIsdp' 03 02 00 3c 00 01 'c'", plain.clone()),
    ];
    for (text, expected) in cases {
        let bytes = wire(text);
        for version in [V4, V5] {
            assert_eq!(read(&bytes, version), Ok(Packet::Connect(Box::new(expected.clone()))), "{text}");
        }
    }
}

/// Each has its own accessor, and the others say that it is not there.
#[test]
fn properties_are_found_by_name() {
    fn all(p: Properties<'static>) -> Vec<String> {
        let flags = [p.request_problem_information(), p.request_response_information()];
        let shorts = [p.topic_alias(), p.receive_maximum(), p.topic_alias_maximum()];
        let longs = [
            p.message_expiry_interval(),
            p.subscription_identifier(),
            p.session_expiry_interval(),
            p.maximum_packet_size(),
            p.will_delay_interval(),
        ];
        let texts = [p.content_type(), p.response_topic(), p.authentication_method(), p.reason_string(), p.user("k")];
        let mut found = vec![];
        found.extend(p.payload_format().filter(|format| *format == 1).map(|_| "text".to_owned()));
        found.extend(flags.iter().enumerate().filter_map(|(n, value)| value.map(|value| format!("flag {n} {value}"))));
        found
            .extend(shorts.iter().enumerate().filter_map(|(n, value)| value.map(|value| format!("short {n} {value}"))));
        found.extend(longs.iter().enumerate().filter_map(|(n, value)| value.map(|value| format!("long {n} {value}"))));
        found.extend(texts.iter().enumerate().filter_map(|(n, value)| value.map(|value| format!("text {n} {value}"))));
        found.extend(p.correlation_data().map(|data| format!("data {data:?}")));
        found
    }
    let cases = [
        ("01 00", vec![]),
        ("01 01", vec!["text"]),
        ("17 00", vec!["flag 0 false"]),
        ("19 01", vec!["flag 1 true"]),
        ("23 01 00", vec!["short 0 256"]),
        ("23 00 00", vec!["short 0 0"]),
        ("21 00 01", vec!["short 1 1"]),
        ("22 ff ff", vec!["short 2 65535"]),
        ("02 00 00 00 00", vec!["long 0 0"]),
        ("0b ff 7f", vec!["long 1 16383"]),
        ("11 ff ff ff ff", vec!["long 2 4294967295"]),
        ("27 00 00 00 01", vec!["long 3 1"]),
        ("18 00 01 00 00", vec!["long 4 65536"]),
        ("03 00 03 'a/b'", vec!["text 0 a/b"]),
        ("08 00 00", vec!["text 1 "]),
        ("15 00 01 'm'", vec!["text 2 m"]),
        ("1f 00 01 'r'", vec!["text 3 r"]),
        ("26 00 01 'k' 00 01 'v'", vec!["text 4 v"]),
        ("26 00 01 'j' 00 01 'v'", vec![]),
        ("09 00 02 00 ff", vec!["data [0, 255]"]),
        ("16 00 01 'd' 15 00 01 'm'", vec!["text 2 m"]),
        ("09 00 00 23 00 05 01 01 02 00 00 00 09", vec!["text", "short 0 5", "long 0 9", "data []"]),
        ("", vec![]),
    ];
    for (text, expected) in cases {
        assert_eq!(all(listed(text)), expected, "{text}");
        assert_eq!(listed(text).is_empty(), text.is_empty());
    }
    assert!(size_of::<Properties<'_>>() <= 40);
}

#[test]
fn what_subscribers_are_told_is_taken_out_in_its_order() {
    let cases = [
        ("", "", None, ""),
        ("23 00 01 02 00 00 00 05", "", None, ""),
        ("01 00", "01 00", None, ""),
        ("01 01", "01 01", None, ""),
        ("03 00 03 'a/b' 01 01", "01 01 03 00 03 'a/b'", Some("a/b"), ""),
        ("03 00 03 'a/b' 23 00 01", "03 00 03 'a/b'", Some("a/b"), ""),
        ("03 00 00", "03 00 00", Some(""), ""),
        (
            "26 00 01 'k' 00 01 '1' 09 00 01 ff 26 00 00 00 00 08 00 01 'r' 23 00 07 26 00 01 'k' 00 01 '2'",
            "08 00 01 'r' 09 00 01 ff 26 00 01 'k' 00 01 '1' 26 00 00 00 00 26 00 01 'k' 00 01 '2'",
            None,
            "08 00 01 'r' 09 00 01 ff 26 00 01 'k' 00 01 '1' 26 00 00 00 00 26 00 01 'k' 00 01 '2'",
        ),
        (
            "09 00 01 ff 03 00 03 'a/b' 02 00 00 00 01 01 01",
            "01 01 03 00 03 'a/b' 09 00 01 ff",
            Some("a/b"),
            "09 00 01 ff",
        ),
        ("18 00 00 00 01 08 00 01 'r'", "08 00 01 'r'", None, "08 00 01 'r'"), // of a will
    ];
    for (list, stored, content_type, rest) in cases {
        let bytes = written(|out| listed(list).forwarded(out));
        assert_eq!(bytes, wire(stored), "{list}");
        assert_eq!((content_type_of(&bytes), without_format(&bytes)), (content_type, &wire(rest)[..]), "{list}");
    }
}

/// A stored list that is cut off or no list at all.
#[test]
fn stored_properties_need_not_be_sound() {
    let cases = [
        ("01", None, ""),
        ("03", None, ""),
        ("03 00", None, ""),
        ("03 00 05 'ab'", None, ""),
        ("01 01 03 ff ff", None, ""),
        ("03 00 01 ff 08", None, "08"),
        ("ff 03 00 01 'a'", None, "ff 03 00 01 'a'"),
    ];
    for (stored, content_type, rest) in cases {
        let stored = wire(stored);
        assert_eq!((content_type_of(&stored), without_format(&stored)), (content_type, &wire(rest)[..]), "{stored:x?}");
    }
}

#[test]
fn user_properties_are_found_among_others() {
    let bytes = wire("30 19 00 01 'a' 14 26 00 01 'k' 00 01 '1' 23 00 05 26 00 01 'k' 00 02 '22' 01 01 'x'");
    let Ok(Packet::Publish(publish)) = read(&bytes, V5) else { panic!("a PUBLISH") };
    assert_eq!((publish.properties.user("k"), publish.properties.user("j")), (Some("22"), None));
    assert_eq!((publish.properties.topic_alias(), publish.payload), (Some(5), &b"x"[..]));
}

const FLAGS: PacketError = Malformed("reserved flags of the fixed header are set");
const FOLLOWS: PacketError = Malformed("bytes follow the packet's content");
const PROPERTY: PacketError = Malformed("an unknown property, or one that belongs to another packet");
const TWICE: PacketError = Protocol("a property is given twice");
const ZERO: PacketError = Protocol("a property is 0 that must not be");
const WILL: PacketError = Malformed("the will flags contradict each other");
const SERVERS: PacketError = Protocol("only a server sends this packet");
const CODE: PacketError = Protocol("a reason code that this packet cannot have");
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
        ("82 0f 00 01 00 00 09 '$share/g/' 04", V5, Protocol("no local on a shared subscription")),
        // Reason codes that a client cannot give, or not in this packet.
        ("40 03 00 01 11", V5, CODE),
        ("40 03 00 01 01", V5, CODE),
        ("40 04 00 01 92 00", V5, CODE),
        ("50 03 00 01 92", V5, CODE),
        ("62 03 00 01 10", V5, CODE),
        ("70 03 00 01 80", V5, CODE),
        ("e0 01 89", V5, CODE),
        ("e0 01 01", V5, CODE),
        ("f0 00", V5, CODE),
        ("f0 06 00 04 15 00 01 'x'", V5, CODE),
        ("f0 01 18", V5, Protocol("AUTH without a method")),
        ("f0 06 18 04 16 00 01 'x'", V5, Protocol("authentication data without a method")),
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
        ("10 0f 00 06 'MQIsdp' 04 02 00 3c 00 01 'c'", V4, UnsupportedVersion),
        ("10 0d 00 04 'MQTT' 06 02 00 3c 00 01 'c'", V4, UnsupportedVersion),
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

/// A PUBLISH of version 3.1.1 and QoS 0, to be changed.
fn head(topic: &str) -> PublishHead<'_> {
    PublishHead {
        version: V4,
        qos: 0,
        dup: false,
        retain: false,
        topic: ("T", "/", topic),
        topic_alias: None,
        payload_format: None,
        content_type: None,
        message_expiry: None,
        properties: &[],
        subscription_identifiers: &[],
        payload_bytes: 2,
    }
}

/// The whole packet, with its packet identifier filled in.
fn written_publish(head: PublishHead<'_>, packet_id: u16) -> Vec<u8> {
    let mut out = vec![0xaa]; // something before it
    let at = head.write(&mut out);
    assert_eq!(at.is_some(), head.qos > 0);
    if let Some(at) = at {
        assert_eq!(out[at..at + 2], [0, 0]);
        out[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
    }
    out.extend(b"hi".iter().cycle().take(head.payload_bytes));
    assert_eq!(out.len() - 1, head.packet_bytes());
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
        session_expiry_interval: Some(0),
        ..ConnAck::default()
    };
    let more = ConnAck {
        topic_alias_maximum: Some(10),
        response_information: Some("r"),
        session_present: true,
        ..ConnAck::default()
    };
    let v4 = head("k");
    let v5 = PublishHead { version: V5, ..v4 };
    let all = PublishHead {
        qos: 2,
        dup: true,
        topic: ("", "", ""),
        topic_alias: Some(3),
        payload_format: Some(1),
        content_type: Some("a/b"),
        message_expiry: Some(60),
        properties: b"\x08\0\x01r",
        subscription_identifiers: &[1, 200],
        ..v5
    };
    let refused = ConnAck { code: 0x86, reason_string: Some("no"), ..ConnAck::default() };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (written(|out| write_connack(V4, &ok, out)), "20 02 00 00"),
        (written(|out| write_connack(V4, &ConnAck { session_present: true, ..ok.clone() }, out)), "20 02 01 00"),
        (written(|out| write_connack(V4, &ConnAck { code: 4, ..ok.clone() }, out)), "20 02 00 04"),
        (written(|out| write_connack(V5, &ok, out)), "20 03 00 00 00"),
        (
            written(|out| write_connack(V5, &full, out)),
            "20 18 00 00 15 11 00 00 00 00 27 00 00 04 00 21 00 10 13 00 3c 12 00 02 'id'",
        ),
        (written(|out| write_connack(V5, &more, out)), "20 0a 01 00 07 22 00 0a 1a 00 01 'r'"),
        (written(|out| write_connack(V4, &full, out)), "20 02 00 00"),
        (written(|out| write_connack(V5, &refused, out)), "20 08 00 86 05 1f 00 02 'no'"),
        (written(|out| write_suback(V4, 258, &[1], out)), "90 03 01 02 01"),
        (written(|out| write_suback(V4, 1, &[0, 0x80], out)), "90 04 00 01 00 80"),
        (written(|out| write_suback(V5, 1, &[1, 0x8f], out)), "90 05 00 01 00 01 8f"),
        (written(|out| write_unsuback(V4, 7, &[0], out)), "b0 02 00 07"),
        (written(|out| write_unsuback(V5, 7, &[0], out)), "b0 04 00 07 00 00"),
        (written(|out| write_unsuback(V5, 7, &[0x11, 0], out)), "b0 05 00 07 00 11 00"),
        (written(|out| write_ack(AckKind::PubAck, V4, 9, 0x97, Some("full"), out)), "40 02 00 09"),
        (written(|out| write_ack(AckKind::PubAck, V5, 9, 0, None, out)), "40 02 00 09"),
        (written(|out| write_ack(AckKind::PubAck, V5, 9, 0x97, None, out)), "40 04 00 09 97 00"),
        (
            written(|out| write_ack(AckKind::PubAck, V5, 9, 0x97, Some("full"), out)),
            "40 0b 00 09 97 07 1f 00 04 'full'",
        ),
        (written(write_pingresp), "d0 00"),
        (written(|out| write_disconnect(0x8e, None, out)), "e0 02 8e 00"),
        (written(|out| write_disconnect(0x8e, Some("x"), out)), "e0 06 8e 04 1f 00 01 'x'"),
        (written(|out| write_ack(AckKind::PubRec, V4, 9, 0x97, None, out)), "50 02 00 09"),
        (written(|out| write_ack(AckKind::PubRec, V5, 9, 0x10, None, out)), "50 04 00 09 10 00"),
        (written(|out| write_ack(AckKind::PubRel, V4, 9, 0, None, out)), "62 02 00 09"),
        (written(|out| write_ack(AckKind::PubRel, V5, 9, 0x92, None, out)), "62 04 00 09 92 00"),
        (written(|out| write_ack(AckKind::PubComp, V5, 9, 0, None, out)), "70 02 00 09"),
        (written(|out| write_ack(AckKind::PubComp, V5, 9, 0, Some("x"), out)), "70 08 00 09 00 04 1f 00 01 'x'"),
        (written_publish(v4, 0), "30 07 00 03 'T/k' 'hi'"),
        (written_publish(PublishHead { retain: true, ..v4 }, 0), "31 07 00 03 'T/k' 'hi'"),
        (written_publish(PublishHead { qos: 1, ..v4 }, 258), "32 09 00 03 'T/k' 01 02 'hi'"),
        (written_publish(PublishHead { version: V4, ..all }, 1), "3c 06 00 00 00 01 'hi'"),
        (written_publish(v5, 0), "30 08 00 03 'T/k' 00 'hi'"),
        (written_publish(PublishHead { qos: 1, retain: true, ..v5 }, 1), "33 0a 00 03 'T/k' 00 01 00 'hi'"),
        (
            written_publish(PublishHead { content_type: Some("a/b"), ..v5 }, 0),
            "30 0e 00 03 'T/k' 06 03 00 03 'a/b' 'hi'",
        ),
        (
            written_publish(all, 0x1234),
            "3c 20 00 00 12 34 19 01 01 03 00 03 'a/b' 02 00 00 00 3c 23 00 03 0b 01 0b c8 01 08 00 01 'r' 'hi'",
        ),
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
        (version, qos) in (any_version(), 0u8..3),
        key in "[a-z]{0,300}",
        content_type in prop::option::of("[a-z/]{0,200}"),
        (message_expiry, topic_alias) in (any::<Option<u32>>(), any::<Option<u16>>()),
        identifiers in prop::collection::vec(1u32..0x0fff_ffff, 0..4),
        user in 0usize..5000,
        payload_bytes in 0usize..70_000,
    ) {
        let properties = b"\x26\0\x01k\0\x01v".repeat(user);
        let head = PublishHead {
            version,
            qos,
            topic_alias,
            content_type: content_type.as_deref(),
            message_expiry,
            properties: &properties,
            subscription_identifiers: &identifiers,
            payload_bytes,
            ..head(&key)
        };
        let out = written_publish(head, 1);
        prop_assert_eq!(packet_length(&out, usize::MAX), Ok(Some(out.len())));
    }

    #[test]
    fn stored_bytes_are_looked_at_without_panic(bytes in prop::collection::vec(0u8..12, 0..40)) {
        content_type_of(&bytes);
        prop_assert!(bytes.ends_with(without_format(&bytes)));
    }
}
