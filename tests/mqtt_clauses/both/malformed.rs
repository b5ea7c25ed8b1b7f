//! What no client may send: strings, reserved bits, packet identifiers, lengths.

use super::{anyone, bytes_to_close, fatal, fatal_connect, nothing, publish, watch};
use crate::rig::{shared, unique};
use crate::wire::{Connect, Packet, Publish, ack, binary, packet, subscribe, unsubscribe};

/// Every string of every packet, one at a time.
#[track_caller]
fn each_string(level: u8, what: &str, bad: &[u8]) {
    let (none, text) = (nothing(level), binary(bad));
    let after = [
        ("topic of QoS 0", packet(0x30, &[&text, none, b"x"].concat())),
        ("topic of QoS 1", packet(0x32, &[&text, &[0, 9][..], none, b"x"].concat())),
        ("filter of SUBSCRIBE", packet(0x82, &[&[0, 9][..], none, &text, &[0]].concat())),
        ("filter of UNSUBSCRIBE", packet(0xa2, &[&[0, 9][..], none, &text].concat())),
    ];
    for (name, bytes) in after {
        fatal(level, &format!("{what} in the {name}"), &bytes, &[0x81, 0x82]);
    }
    let connect = Connect::clean(level, "");
    let id = unique("string");
    let before = [
        ("client identifier", connect.bytes_with(2, &text)),
        ("will topic", connect.bytes_with(6, &[&binary(&id), none, &text, &binary("x")].concat())),
        ("user name", connect.bytes_with(0x82, &[binary(&id), text.clone()].concat())),
    ];
    for (name, bytes) in before {
        fatal_connect(level, &format!("{what} in the {name}"), &bytes, &[0x81, 0x82]);
    }
}

pub fn ill_formed_utf8(level: u8) {
    let bad: [(&str, &[u8]); 6] = [
        ("a lone byte", b"a\xff"),
        ("an overlong form", b"a\xc0\xaf"),
        ("U+D800", b"a\xed\xa0\x80"),
        ("U+DFFF", b"a\xed\xbf\xbf"),
        ("half a character", b"a\xe2\x82"),
        ("more than U+10FFFF", b"a\xf4\x90\x80\x80"),
    ];
    for (what, bad) in bad {
        each_string(level, what, bad);
    }
}

pub fn null_character(level: u8) {
    each_string(level, "U+0000", b"a\0b");
    each_string(level, "an overlong U+0000", b"a\xc0\x80b");
}

pub fn byte_order_mark_stays(level: u8) {
    let place = unique("mark");
    let (marked, plain) = (format!("{place}/\u{feff}x"), format!("{place}/x"));
    let mut all = watch(level, &format!("{place}/#"), 1);
    let mut only_plain = watch(level, &plain, 1);
    let mut only_marked = watch(level, &marked, 1);
    publish(level, Publish::new(&marked, "marked").qos(1));
    let seen = all.take();
    assert_eq!((seen.topic.as_bytes(), seen.text()), (marked.as_bytes(), "marked".into()));
    assert_eq!(only_marked.take().text(), "marked");
    publish(level, Publish::new(&plain, "plain").qos(1));
    assert_eq!(all.take().topic, plain);
    assert_eq!(only_plain.take().text(), "plain");
    only_plain.quiet();
    only_marked.quiet();
}

/// Every packet a client may send, with every fixed header it may not have.
pub fn reserved_flags(level: u8) {
    let none = nothing(level);
    let packets: [(&str, u8, u8, Vec<u8>); 9] = [
        ("PUBACK", 4, 0, vec![0, 1]),
        ("PUBREC", 5, 0, vec![0, 1]),
        ("PUBREL", 6, 2, vec![0, 1]),
        ("PUBCOMP", 7, 0, vec![0, 1]),
        ("SUBSCRIBE", 8, 2, [&[0, 1][..], none, &binary("a"), &[0]].concat()),
        ("UNSUBSCRIBE", 10, 2, [&[0, 1][..], none, &binary("a")].concat()),
        ("PINGREQ", 12, 0, vec![]),
        ("DISCONNECT", 14, 0, vec![]),
        ("CONNECT", 1, 0, Connect::clean(level, "flags").bytes()[2..].to_vec()),
    ];
    for (name, kind, right, rest) in packets {
        for flags in (0..16).filter(|flags| *flags != right) {
            let what = format!("{name} with flags {flags:04b}");
            fatal(level, &what, &packet(kind << 4 | flags, &rest), &[0x81, 0x82]);
        }
    }
    let connect = Connect::clean(level, "flags").bytes();
    for flags in 1..16 {
        let bytes = [&[0x10 | flags][..], &connect[1..]].concat();
        let answer = bytes_to_close(shared(level), &bytes);
        assert!(
            answer.is_empty() || (level == 5 && answer[0] == 0x20 && answer[3] == 0x81),
            "flags {flags:04b}: {answer:02x?}"
        );
    }
}

/// One packet's reserved flags, for the clauses that name a packet.
pub fn flags_of(level: u8, kind: u8, right: u8, rest: &[u8]) {
    for flags in (0..16).filter(|flags| *flags != right) {
        let bytes = packet(kind << 4 | flags, rest);
        fatal(level, &format!("type {kind} with flags {flags:04b}"), &bytes, &[0x81, 0x82]);
    }
}

pub fn pubrel_flags(level: u8) {
    flags_of(level, 6, 2, &[0, 1]);
}

pub fn subscribe_flags(level: u8) {
    flags_of(level, 8, 2, &[&[0, 1][..], nothing(level), &binary("a"), &[0]].concat());
}

pub fn unsubscribe_flags(level: u8) {
    flags_of(level, 10, 2, &[&[0, 1][..], nothing(level), &binary("a")].concat());
}

pub fn disconnect_flags(level: u8) {
    flags_of(level, 14, 0, &[]);
}

/// The reader of these tests refuses what is reserved: here it sees every packet a server sends.
pub fn server_flags(level: u8) {
    let topic = unique("flags");
    let mut client = anyone(level);
    client.subscribe(&topic, 2);
    for qos in 0..=2 {
        client.publish(&Publish::new(&topic, "x").qos(qos));
        assert_eq!(client.take().qos, qos);
    }
    client.ping();
    client.unsubscribe(&[&topic]);
    client.send(&[0xc1, 0]);
    let last = client.closed();
    assert!(last.iter().all(|packet| matches!(packet, Packet::Disconnect { .. })), "{last:?}");
}

pub fn packet_identifier_zero(level: u8) {
    let none = crate::wire::Properties::default();
    let packets = [
        ("SUBSCRIBE", subscribe(level, 0, &none, &[("a", 0)])),
        ("UNSUBSCRIBE", unsubscribe(level, 0, &["a"])),
        ("PUBLISH of QoS 1", Publish::new("a", "x").qos(1).bytes(level)),
        ("PUBLISH of QoS 2", Publish::new("a", "x").qos(2).bytes(level)),
        ("PUBREL", ack(0x62, 0)),
    ];
    for (name, bytes) in packets {
        fatal(level, &format!("packet identifier 0 in {name}"), &bytes, &[0x81, 0x82]);
    }
}

/// A CONNECT that is not as section 3.1 says.
pub fn connect_format(level: u8) {
    let none = nothing(level);
    let connect = Connect::clean(level, &unique("format"));
    let (id, whole) = (binary(&connect.id), connect.bytes());
    let long = |first: u8, extra: &[u8]| packet(first, &[&whole[2..], extra].concat());
    let cases = [
        ("the reserved flag", connect.bytes_with(3, &id)),
        ("will QoS 3", connect.bytes_with(0x1e, &[&id[..], none, &binary("a"), &binary("b")].concat())),
        ("will QoS without a will", connect.bytes_with(0x0a, &id)),
        ("will retain without a will", connect.bytes_with(0x22, &id)),
        ("a will without a topic", connect.bytes_with(6, &id)),
        ("a will without a payload", connect.bytes_with(6, &[&id[..], none, &binary("a")].concat())),
        ("no client identifier", connect.bytes_with(2, &[])),
        ("no user name", connect.bytes_with(0x82, &id)),
        ("a user name too many", connect.bytes_with(2, &[&id[..], &binary("me")].concat())),
        ("no password", connect.bytes_with(0xc2, &[&id[..], &binary("me")].concat())),
        ("a byte too many", long(0x10, &[0])),
        ("a string longer than the packet", connect.bytes_with(2, &[0, 9, b'a'])),
        ("nothing behind the flags", packet(0x10, &[&binary("MQTT")[..], &[level, 2]].concat())),
    ];
    for (what, bytes) in cases {
        fatal_connect(level, what, &bytes, &[0x81, 0x82]);
    }
}

pub fn reserved_connect_flag(level: u8) {
    let connect = Connect::clean(level, &unique("reserved"));
    fatal_connect(level, "the reserved flag", &connect.bytes_with(3, &connect.payload()), &[0x81]);
}

pub fn qos_3(level: u8) {
    let rest = [&binary("a")[..], &[0, 1], nothing(level), b"x"].concat();
    for first in [0x36, 0x37, 0x3e, 0x3f] {
        fatal(level, &format!("PUBLISH {first:#04x}"), &packet(first, &rest), &[0x81]);
    }
}

pub fn dup_with_qos_0(level: u8) {
    fatal(level, "DUP with QoS 0", &Publish::new("a", "x").dup().bytes(level), &[0x81, 0x82]);
}

pub fn no_topic(level: u8) {
    fatal(level, "an empty PUBLISH", &packet(0x30, &[]), &[0x81, 0x82]);
    fatal(level, "a cut topic", &packet(0x30, &[0, 5, b'a']), &[0x81, 0x82]);
    fatal(level, "a cut packet identifier", &packet(0x32, &[0, 1, b'a', 0]), &[0x81, 0x82]);
    each_string(level, "no UTF-8", b"\xfe");
}

pub fn wildcards_in_topic(level: u8) {
    for topic in ["#", "+", "a/#", "a/+", "+/a", "a/+/b", "a#", "a+b"] {
        for qos in 0..=2 {
            let bytes = Publish::new(topic, "x").qos(qos).id(u16::from(qos)).bytes(level);
            fatal(level, &format!("PUBLISH to {topic} with QoS {qos}"), &bytes, &[0x81, 0x82, 0x90]);
        }
    }
}

pub fn no_filters(level: u8) {
    let rest = [&[0, 1][..], nothing(level)].concat();
    fatal(level, "SUBSCRIBE without a filter", &packet(0x82, &rest), &[0x81, 0x82]);
}

pub fn no_filters_to_unsubscribe(level: u8) {
    let rest = [&[0, 1][..], nothing(level)].concat();
    fatal(level, "UNSUBSCRIBE without a filter", &packet(0xa2, &rest), &[0x81, 0x82]);
}

pub fn filter_is_utf8(level: u8) {
    for (what, first, end) in [("SUBSCRIBE", 0x82, &[0][..]), ("UNSUBSCRIBE", 0xa2, &[])] {
        let rest = [&[0, 1][..], nothing(level), &binary(b"a/\xc3"), end].concat();
        fatal(level, what, &packet(first, &rest), &[0x81, 0x82]);
    }
}

/// The options of a subscription that the version does not know.
pub fn reserved_options(level: u8) {
    let reserved: &[u8] = if level == 5 { &[0x40, 0x80, 0xc0, 3] } else { &[4, 8, 0x10, 0x20, 0x40, 0x80, 3] };
    for options in reserved {
        let bytes = subscribe(level, 1, &Default::default(), &[("a", 0), ("b", *options)]);
        fatal(level, &format!("options {options:#04x}"), &bytes, &[0x81, 0x82]);
    }
}

/// A protocol violation ends the connection on which it came, and no other.
pub fn violation_closes(level: u8) {
    let topic = unique("other");
    let mut other = watch(level, &topic, 1);
    fatal(level, "packet type 0", &[0, 0], &[0x81, 0x82]);
    fatal(level, "a CONNACK from a client", &packet(0x20, &[0, 0]), &[0x81, 0x82]);
    fatal(level, "a SUBACK from a client", &packet(0x90, &[0, 1, 0]), &[0x81, 0x82]);
    fatal(level, "a PINGRESP from a client", &packet(0xd0, &[]), &[0x81, 0x82]);
    fatal(level, "a length of five bytes", &[0x30, 0x80, 0x80, 0x80, 0x80, 1], &[0x81, 0x82]);
    publish(level, Publish::new(&topic, "still here").qos(1));
    assert_eq!(other.take().text(), "still here");
}

/// The strings of a CONNECT, one clause each.
pub fn connect_string(level: u8, which: &str) {
    let connect = Connect::clean(level, &unique("string"));
    let (bad, id) = (binary(b"\xc3\x28"), binary(&connect.id));
    let bytes = match which {
        "client identifier" => connect.bytes_with(2, &bad),
        "will topic" => connect.bytes_with(6, &[&id[..], nothing(level), &bad, &binary("x")].concat()),
        _ => connect.bytes_with(0x82, &[id, bad].concat()),
    };
    fatal_connect(level, which, &bytes, &[0x81, 0x82, 0x85, 0x86, 0x90]);
}
