//! Reason codes, reason strings, DISCONNECT and AUTH.

use crate::both::{anyone, fatal, publish, refused, sorted_numbers, stored, watch};
use crate::client::{Client, PAUSE};
use crate::rig::{shared, unique};
use crate::wire::{self, Connect, Packet, Properties, Publish, Value, ack, ack_with, binary, id, packet, subscribe};

/// Packets whose acknowledgement says no: one for each type, in the order PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK,
/// UNSUBACK.
pub fn provocations(text: &str) -> [Vec<u8>; 6] {
    [
        Publish::new(&format!("$no/{text}"), "x").qos(1).id(101).bytes(5),
        Publish::new(&format!("$no/{text}"), "x").qos(2).id(102).bytes(5),
        ack(0x50, 103),
        ack(0x62, 104),
        subscribe(5, 105, &Properties::default(), &[(&format!("{text}#"), 0)]),
        wire::unsubscribe(5, 106, &[&format!("{text}/never")]),
    ]
}

pub fn properties_of(packet: &Packet) -> Option<&Properties> {
    match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => Some(&ack.properties),
        Packet::SubAck(ack) | Packet::UnsubAck(ack) => Some(&ack.properties),
        _ => None,
    }
}

/// The acknowledgement of this type (its number) when the server says no.
#[track_caller]
fn refusal(client: &mut Client, kind: u8, text: &str) -> (Vec<u8>, Properties) {
    let at = [4, 5, 6, 7, 9, 11].iter().position(|known| *known == kind).expect("a known type");
    client.send(&provocations(text)[at]);
    match (kind, client.next()) {
        (4, Packet::PubAck(ack)) | (5, Packet::PubRec(ack)) | (6, Packet::PubRel(ack)) | (7, Packet::PubComp(ack)) => {
            (ack.codes, ack.properties)
        }
        (9, Packet::SubAck(ack)) | (11, Packet::UnsubAck(ack)) => (ack.codes, ack.properties),
        other => panic!("instead of packet type {kind}: {other:?}"),
    }
}

/// The code of a refusal is one that belongs there, and so is that of a success.
pub fn code_of(kind: u8) {
    let mut client = anyone(5);
    let wanted = match kind {
        4 | 5 => 0x90,
        6 | 7 => 0x92,
        9 => 0x8f,
        _ => 0x11,
    };
    assert_eq!(refusal(&mut client, kind, "code").0, [wanted]);
    let topic = unique("code");
    client.subscribe(&topic, 2);
    for qos in 1..=2 {
        // The reader of these tests knows the codes of each packet.
        client.publish(&Publish::new(&topic, "x").qos(qos));
        assert_eq!(client.take().qos, qos);
        let nobody = client.try_publish(&Publish::new(&unique("nobody"), "x").qos(qos));
        assert!([0, 0x10].contains(&nobody), "{nobody:#x}");
    }
    assert_eq!(client.unsubscribe(&[&topic]).codes, [0]);
}

/// An acknowledgement has a text or a user property only where the client takes a packet of that size.
pub fn within_the_limit(kind: u8, property: u8) {
    let small = anyone(5).length; // that of CONNACK: with less a client could not be told that it is connected
    for limit in [small, small + 1, small + 30, small + 200, 10_000] {
        let connect = Connect::clean(5, &unique("limit")).with(id::MAXIMUM_PACKET, Value::Four(limit as u32));
        let mut client = Client::open(shared(5), &connect);
        let text = "x".repeat(600);
        let (_, properties) = refusal(&mut client, kind, &text); // the client measures each packet
        assert!(client.length <= limit, "{} bytes of {limit}", client.length);
        assert!(property != id::USER || properties.user().is_empty(), "{properties:?}");
        client.ping();
    }
}

pub fn disconnect_within_the_limit(property: u8) {
    let small = anyone(5).length;
    for limit in [small, small + 1, small + 30, small + 200, 10_000] {
        let connect = Connect::clean(5, &unique("limit")).with(id::MAXIMUM_PACKET, Value::Four(limit as u32));
        let mut client = Client::open(shared(5), &connect);
        client.send(&Publish::new("a/#", "x").bytes(5));
        match &client.closed()[..] {
            [Packet::Disconnect { properties, .. }] => {
                assert!(property != id::USER || properties.user().is_empty(), "{properties:?}");
            }
            seen => panic!("{seen:?}"),
        }
    }
}

/// What is malformed, and what is against the protocol, each with the reasons that fit.
pub fn violations() {
    let user = |bytes: &[u8]| [&variable_list(bytes)[..], bytes].concat();
    let publish = |properties: &[u8]| packet(0x30, &[&binary("a")[..], &user(properties), b"x"].concat());
    let subscribe = |properties: &[u8]| packet(0x82, &[&[0, 1][..], &user(properties), &binary("a"), &[0]].concat());
    let malformed: [(&str, Vec<u8>); 12] = [
        ("packet type 0", vec![0, 0]),
        ("flags of PINGREQ", vec![0xc1, 0]),
        ("QoS 3", packet(0x36, &[&binary("a")[..], &[0, 1, 0]].concat())),
        ("a length of five bytes", vec![0x30, 0xff, 0xff, 0xff, 0xff, 1]),
        ("an unknown property", publish(&[0x7f, 1])),
        ("a property cut off", publish(&[id::MESSAGE_EXPIRY, 0, 0])),
        ("a property of CONNECT in PUBLISH", publish(&[id::RECEIVE_MAXIMUM, 0, 9])),
        ("a property of PUBLISH in SUBSCRIBE", subscribe(&[id::CONTENT_TYPE, 0, 1, b'x'])),
        ("bytes behind PINGREQ", packet(0xc0, &[0])),
        ("reserved subscription options", wire::subscribe(5, 1, &Properties::default(), &[("a", 0xc0)])),
        ("PUBACK of one byte", packet(0x40, &[1])),
        ("SUBSCRIBE without options", packet(0x82, &[&[0, 1, 0][..], &binary("a")].concat())),
    ];
    for (what, bytes) in malformed {
        fatal(5, what, &bytes, &[0x81, 0x82]);
    }
    let protocol: [(&str, Vec<u8>); 11] = [
        ("a second CONNECT", Connect::clean(5, "again").bytes()),
        ("a CONNACK from a client", packet(0x20, &[0, 0, 0])),
        ("payload format twice", publish(&[id::PAYLOAD_FORMAT, 1, id::PAYLOAD_FORMAT, 1])),
        ("message expiry twice", publish(&[2, 0, 0, 0, 9, 2, 0, 0, 0, 9])),
        ("content type twice", publish(&[3, 0, 1, b'x', 3, 0, 1, b'x'])),
        ("response topic twice", publish(&[8, 0, 1, b'x', 8, 0, 1, b'x'])),
        ("correlation data twice", publish(&[9, 0, 1, b'x', 9, 0, 1, b'x'])),
        ("subscription identifier 0", subscribe(&[id::SUBSCRIPTION, 0])),
        ("subscription identifier twice", subscribe(&[id::SUBSCRIPTION, 1, id::SUBSCRIPTION, 2])),
        ("retain handling 3", wire::subscribe(5, 1, &Properties::default(), &[("a", 0x30)])),
        ("neither topic nor alias", Publish::new("", "x").bytes(5)),
    ];
    for (what, bytes) in protocol {
        fatal(5, what, &bytes, &[0x82, 0x81]);
    }
}

fn variable_list(bytes: &[u8]) -> Vec<u8> {
    wire::variable(bytes.len())
}

/// A code of 0x80 or more, said or not, is the end of the connection.
pub fn codes_end_the_connection() {
    let with_method = Connect::clean(5, &unique("end")).with(id::AUTH_METHOD, Value::Text("magic".into()));
    assert!(refused(shared(5), &with_method).code >= 0x80);
    fatal(5, "a wildcard in a topic", &Publish::new("a/#", "x").bytes(5), &[0x90, 0x82, 0x81]);
    // From the client it is the end as well, and is not answered.
    for code in [0x80, 0x81, 0x99] {
        let mut client = anyone(5);
        client.send(&packet(0xe0, &[code]));
        assert_eq!(client.closed(), []);
    }
}

pub fn disconnect_flags() {
    for flags in 1..16 {
        let mut client = anyone(5);
        client.send(&packet(0xe0 | flags, &[]));
        assert_eq!(client.ended(), Some(0x81), "flags {flags:04b}");
    }
}

/// DISCONNECTs for several reasons; the reader of these tests knows the codes.
pub fn codes_of_disconnect() {
    let ends: [(Vec<u8>, &[u8]); 5] = [
        (vec![0xc3, 0], &[0x81]),
        (Connect::clean(5, "x").bytes(), &[0x82]),
        (Publish::new("a/+", "x").bytes(5), &[0x90, 0x82, 0x81]),
        (Publish::new("", "x").with(id::ALIAS, Value::Two(0)).bytes(5), &[0x94]),
        (subscribe(5, 1, &Properties::default(), &[("$share/g/t", wire::NO_LOCAL)]), &[0x82]),
    ];
    for (bytes, codes) in ends {
        fatal(5, "an end", &bytes, codes);
    }
    // A client's own codes: those that are none are against the protocol.
    for code in [0x01, 0x03, 0x05, 0x7f] {
        let mut client = anyone(5);
        client.send(&packet(0xe0, &[code]));
        let seen = client.closed();
        assert!(matches!(&seen[..], [] | [Packet::Disconnect { code: 0x81 | 0x82, .. }]), "{code:#x}: {seen:?}");
    }
}

/// The server's DISCONNECT has no Session Expiry Interval; the reader of these tests refuses one.
pub fn no_expiry_in_disconnect() {
    let connect = Connect::lasting(5, &unique("expiry"));
    let mut first = Client::open(shared(5), &connect);
    let mut second = Client::open(shared(5), &connect);
    first.ended_with(0x8e);
    second.send(&[0xc7, 0]);
    match &second.closed()[..] {
        [Packet::Disconnect { code: 0x81, properties }] => assert_eq!(properties.get(id::SESSION_EXPIRY), None),
        seen => panic!("{seen:?}"),
    }
}

/// Behind DISCONNECT comes nothing, whatever is on its way.
pub fn nothing_after_disconnect() {
    let topic = unique("last");
    let mut client = watch(5, &topic, 1);
    let mut publisher = anyone(5);
    for _ in 0..200 {
        publisher.start(&Publish::new(&topic, "x".repeat(500)).qos(1));
    }
    client.send(&[0xc1, 0]);
    for _ in 0..200 {
        publisher.start(&Publish::new(&topic, "y".repeat(500)).qos(1));
    }
    let seen = client.closed();
    let (last, before) = seen.split_last().expect("a DISCONNECT");
    assert!(matches!(last, Packet::Disconnect { code: 0x81, .. }), "{last:?}");
    assert!(before.iter().all(|packet| matches!(packet, Packet::Publish(_))));
}

pub fn auth_flags() {
    for flags in 1..16 {
        fatal(5, &format!("AUTH with flags {flags:04b}"), &packet(0xf0 | flags, &[]), &[0x81]);
    }
}

/// No method, no AUTH: not from the server.
pub fn no_auth_from_the_server() {
    let mut client = anyone(5);
    let properties = &client.connack.properties;
    assert_eq!((properties.get(id::AUTH_METHOD), properties.get(id::AUTH_DATA)), (None, None));
    std::thread::sleep(PAUSE);
    client.quiet();
}

/// Nor from the client.
pub fn no_auth_from_the_client() {
    let method = Properties(vec![(id::AUTH_METHOD, Value::Text("magic".into()))]).encode();
    for rest in [vec![], vec![0x18], [&[0x18][..], &method].concat()] {
        fatal(5, "AUTH without a method in CONNECT", &packet(0xf0, &rest), &[0x82]);
    }
}

pub fn failed_re_authentication() {
    let method = Properties(vec![(id::AUTH_METHOD, Value::Text("magic".into()))]).encode();
    let bytes = packet(0xf0, &[&[0x19][..], &method].concat());
    fatal(5, "re-authentication", &bytes, &[0x82, 0x87, 0x8c]);
}

/// Refused with the code for it, at the first step there is.
pub fn unsupported_method() {
    for name in ["magic", "SCRAM-SHA-256", ""] {
        let connect = Connect::clean(5, &unique("method")).with(id::AUTH_METHOD, Value::Text(name.into()));
        assert_eq!(refused(shared(5), &connect).code, 0x8c, "{name:?}");
        let connect = connect.with(id::AUTH_DATA, Value::Binary(vec![1, 2, 3]));
        assert_eq!(refused(shared(5), &connect).code, 0x8c, "{name:?} with data");
    }
}

/// After a PUBREC of 0x80 or more the identifier is that of a new message.
pub fn identifier_is_free_after_refusal() {
    let topic = unique("free");
    let mut watcher = watch(5, &topic, 2);
    let mut client = anyone(5);
    for n in 0..3 {
        client.send(&Publish::new("$no/such", "x").qos(2).id(7).bytes(5));
        assert!(client.ack(5, 7).code() >= 0x80);
        client.publish(&Publish::new(&topic, n.to_string()).qos(2).id(7));
        assert_eq!(watcher.take().text(), n.to_string());
    }
}

/// A client that refuses a message has had it: it does not come again, and its place in the window is free.
pub fn refused_by_the_client() {
    let (name, topic) = (unique("refuse"), unique("refuse"));
    let connect = Connect::lasting(5, &name).with(id::RECEIVE_MAXIMUM, Value::Two(1));
    let mut client = Client::open(shared(5), &connect);
    client.subscribe(&topic, 2);
    for (n, qos) in [1, 2, 1, 2].into_iter().enumerate() {
        publish(5, Publish::new(&topic, n.to_string()).qos(qos));
    }
    let mut seen = Vec::new();
    for code in [0x80, 0x83, 0x97, 0x99] {
        let next = client.message();
        client.send(&ack_with(if next.qos == 1 { 0x40 } else { 0x50 }, next.id, code));
        seen.push(next);
    }
    assert_eq!(sorted_numbers(&seen), [0, 1, 2, 3]);
    client.quiet();
    client.cut();
    let mut client = Client::open(shared(5), &connect);
    assert!(client.connack.present);
    client.quiet();
}

/// A topic that is not allowed is refused, and nothing is stored.
pub fn dollar_topics_are_refused() {
    let mut client = anyone(5);
    for qos in 1..=2 {
        assert_eq!(client.try_publish(&Publish::new("$SYS/mine", "x").qos(qos).retain()), 0x90);
    }
    client.publish(&Publish::new("$SYS/mine", "x").retain());
    let topic = unique("after");
    client.publish(&Publish::new(&topic, "x").qos(1).retain());
    assert_eq!(stored(5, &topic).expect("it was retained").text(), "x");
}
