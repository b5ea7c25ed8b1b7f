//! What MQTT 3.1.1 says otherwise than 5.0.

use crate::both::{anyone, bytes_to_close, connect, fatal_connect, publish, refused, sleeper, stored};
use crate::client::{Client, Gone};
use crate::common::PATIENCE;
use crate::rig::{shared, unique};
use crate::wire::{Connect, DISCONNECT, Packet, Publish, binary, packet};

/// CONNACK with return code 1.
const UNACCEPTABLE_LEVEL: [u8; 4] = [0x20, 2, 0, 1];

pub fn wrong_protocol_name() {
    for name in ["MQTX", "mqtt", "MQT", "MQTTT", "", "HTTP"] {
        let answer = connect::other_protocol(4, name);
        assert!(answer.is_empty() || answer == UNACCEPTABLE_LEVEL, "{name}: {answer:02x?}");
    }
}

pub fn unknown_level() {
    for level in [0, 1, 2, 3, 6, 7, 0x7f, 0x84, 0xff] {
        let rest = [&binary("MQTT")[..], &[level, 2, 0, 60], &binary("c")].concat();
        assert_eq!(bytes_to_close(shared(4), &packet(0x10, &rest)), UNACCEPTABLE_LEVEL, "level {level}");
    }
}

pub fn password_without_user_name() {
    let connect = Connect::clean(4, &unique("password"));
    let payload = [binary(&connect.id), binary("secret")].concat();
    fatal_connect(4, "a password without a user name", &connect.bytes_with(0x42, &payload), &[]);
}

pub fn empty_identifier_without_clean_session() {
    assert_eq!(refused(shared(4), &Connect::lasting(4, "")).code, 2);
}

/// A server may refuse identifiers that are longer, or of other characters, than it must take.
pub fn rejected_identifiers() {
    assert_eq!(refused(shared(4), &Connect::lasting(4, "")).code, 2);
    let ids =
        ["a/b".to_owned(), "+".into(), "a#".into(), "\u{fffd}\u{1f600}".into(), "x".repeat(2000), "x".repeat(65_535)];
    for id in ids {
        match Client::try_open(shared(4), &Connect::clean(4, &id)) {
            Ok(client) => client.end(),
            Err(Ok(connack)) => {
                assert_eq!(connack.code, 2);
                assert_eq!(refused(shared(4), &Connect::clean(4, &id)).code, 2);
            }
            Err(Err(gone)) => panic!("{} bytes of {:?}: {gone:?}", id.len(), id.chars().next()),
        }
    }
}

pub fn refused_is_not_read() {
    connect::refused_is_not_read(4, &Connect::lasting(4, ""));
}

pub fn session_present_of_clean() {
    let id = unique("present");
    sleeper(shared(4), 4, &id, "present/x", 1);
    for _ in 0..2 {
        let client = Client::clean(shared(4), 4, &id);
        assert_eq!((client.connack.present, client.connack.code), (false, 0));
    }
}

/// Also when there is a session of that identifier.
pub fn session_present_of_refusal() {
    let id = unique("present");
    sleeper(shared(4), 4, &id, "present/x", 1);
    let rest = [&binary("MQTT")[..], &[9, 0, 0, 60], &binary(&id)].concat();
    assert_eq!(bytes_to_close(shared(4), &packet(0x10, &rest)), UNACCEPTABLE_LEVEL);
    // Unknown credentials are refused by a server that knows users.
    let with_user = Connect::lasting(4, &id).user("nobody").password("nothing");
    match Client::try_open(shared(4), &with_user) {
        Ok(client) => assert!(client.connack.present),
        Err(Ok(connack)) => assert_eq!((connack.present, [4, 5].contains(&connack.code)), (false, true)),
        Err(Err(gone)) => panic!("{gone:?}"),
    }
    Client::lasting(shared(4), 4, &id, true).end();
}

pub fn refusal_closes() {
    refused(shared(4), &Connect::lasting(4, ""));
    let rest = [&binary("MQTT")[..], &[3, 2, 0, 60], &binary("c")].concat();
    assert_eq!(bytes_to_close(shared(4), &packet(0x10, &rest)), UNACCEPTABLE_LEVEL);
}

/// For these there is no return code.
pub fn no_code_no_connack() {
    let connect = Connect::clean(4, &unique("code"));
    let will = [binary(&connect.id), binary("a"), binary("b")].concat();
    for (what, flags, payload) in [
        ("the reserved flag", 3, binary(&connect.id)),
        ("will QoS 3", 0x1e, will.clone()),
        ("will QoS without will", 0x0a, binary(&connect.id)),
        ("bytes too many", 2, will),
    ] {
        fatal_connect(4, what, &connect.bytes_with(flags, &payload), &[]);
    }
    let will = [binary(&connect.id), binary("a/#"), binary("b")].concat();
    let answer = bytes_to_close(shared(4), &connect.bytes_with(6, &will));
    assert!(answer.is_empty() || answer == [0x20, 2, 0, 3], "a will to a wildcard: {answer:02x?}");
}

/// 3.1.1 has no way to say no: it is acknowledged and goes nowhere, or the connection is closed.
pub fn publish_not_allowed() {
    for qos in 1..=2 {
        let mut client = anyone(4);
        client.send(&Publish::new("$SYS/secret", "x").qos(qos).id(3).retain().bytes(4));
        match client.next_within(PATIENCE) {
            Ok(Packet::PubAck(ack)) if qos == 1 => assert_eq!(ack.id, 3),
            Ok(Packet::PubRec(ack)) if qos == 2 => assert_eq!(ack.id, 3),
            Err(Gone::Closed) => {}
            other => panic!("QoS {qos}: {other:?}"),
        }
    }
    let mut client = anyone(4);
    if client.try_subscribe(&[("$SYS/secret", 0)]) == [0] {
        client.quiet();
    }
}

/// The reader of these tests knows only 0, 1, 2 and 0x80.
pub fn suback_codes() {
    let mut client = anyone(4);
    let filters = ["a", "+/b", "c/#", "d#", "e+", "$share", "$share/g", "$share//t", "$SYS/#", "$x", "/", "//", " "];
    for qos in 0..=2 {
        let asked: Vec<(&str, u8)> = filters.iter().map(|filter| (*filter, qos)).collect();
        let codes = client.try_subscribe(&asked);
        assert_eq!(codes.len(), filters.len());
        assert_eq!((&codes[..3], &codes[3..5]), (&[qos; 3][..], &[0x80, 0x80][..]));
    }
}

pub fn nothing_is_read_after_disconnect() {
    let topic = unique("after");
    let mut client = anyone(4);
    client.send(&[&DISCONNECT[..], &Publish::new(&topic, "after").retain().bytes(4)].concat());
    assert_eq!(client.closed(), []);
    assert_eq!(stored(4, &topic), None);
    publish(4, Publish::new(&topic, "before").retain());
    assert_eq!(stored(4, &topic).expect("it was retained").text(), "before");
}
