//! CONNECT and CONNACK.

use super::{anyone, bytes_to_close, fatal, fatal_connect, publish, stored, watch};
use crate::client::Client;
use crate::rig::{shared, unique};
use crate::wire::{Connect, PINGREQ, Packet, Properties, Publish, Will, ack, binary, packet, subscribe};
use std::time::{Duration, Instant};

pub fn first_packet(level: u8) {
    let packets = [
        PINGREQ.to_vec(),
        Publish::new(&unique("first"), "x").bytes(level),
        subscribe(level, 1, &Properties::default(), &[("a", 0)]),
        ack(0x40, 1),
        packet(0xe0, &[]),
    ];
    for bytes in packets {
        let answer = bytes_to_close(shared(level), &bytes);
        assert!(answer.is_empty(), "{bytes:02x?} was answered with {answer:02x?}");
    }
}

pub fn second_connect(level: u8) {
    fatal(level, "a second CONNECT", &Connect::clean(level, &unique("second")).bytes(), &[0x82]);
    let mut client = anyone(level);
    let again = Connect::clean(level, &client.id).bytes();
    client.send(&again);
    client.ended_with(0x82);
}

/// A CONNECT with another protocol name or level.
pub fn other_protocol(level: u8, name: &str) -> Vec<u8> {
    let rest = [&binary(name)[..], &[level, 2, 0, 60], if level == 5 { &[0] } else { &[] }, &binary("c")].concat();
    bytes_to_close(shared(4), &packet(0x10, &rest))
}

/// Every client identifier that a server must take.
pub fn allowed_identifiers(level: u8) {
    let alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for length in 1..=23 {
        let at = (length * 7) % 40;
        let id = format!("{alphabet}{alphabet}").split_off(at)[..length].to_owned();
        assert_eq!(Client::clean(shared(level), level, &id).connack.code, 0, "{id}");
    }
    for chunk in alphabet.as_bytes().chunks(23) {
        let id = String::from_utf8(chunk.to_vec()).expect("ASCII");
        Client::clean(shared(level), level, &id).end();
    }
}

/// Two clients without an identifier are two clients.
pub fn empty_identifiers(level: u8) {
    let topic = unique("nameless");
    let mut clients: Vec<Client> = (0..5).map(|_| Client::clean(shared(level), level, "")).collect();
    clients.iter_mut().for_each(|client| client.subscribe(&topic, 1));
    publish(level, Publish::new(&topic, "to all").qos(1));
    for client in &mut clients {
        assert_eq!(client.take().text(), "to all");
        client.quiet();
    }
}

pub fn missing_identifier(level: u8) {
    fatal_connect(level, "no client identifier", &Connect::clean(level, "").bytes_with(2, &[]), &[0x81, 0x82, 0x85]);
}

pub fn accepted(level: u8) {
    let client = anyone(level);
    assert_eq!((client.connack.code, client.connack.present), (0, false));
}

/// Client identifier, will topic, will payload, user name, password.
pub fn order_of_payload(level: u8) {
    let (id, topic) = (unique("order"), unique("order"));
    let mut watcher = watch(level, &topic, 0);
    let connect = Connect::clean(level, &id).will(Will::new(&topic, "the will"));
    Client::open(shared(level), &connect).cut();
    let seen = watcher.take();
    assert_eq!((seen.topic, seen.payload), (topic, b"the will".to_vec()));
    // With all five fields the credentials are read where they stand: they are unknown, or taken.
    let connect = connect.user("nobody").password("nothing");
    match Client::try_open(shared(level), &connect) {
        Ok(client) => client.end(),
        Err(Ok(connack)) => {
            let unauthorised: &[u8] = if level == 5 { &[0x86, 0x87] } else { &[4, 5] };
            assert!(unauthorised.contains(&connack.code), "{connack:?}");
        }
        Err(Err(gone)) => panic!("a whole CONNECT was not understood: {gone:?}"),
    }
}

/// User name and password are there as the flags say.
pub fn credentials(level: u8, which: &str) {
    let connect = Connect::clean(level, &unique("credentials"));
    let (id, user, password) = (binary(&connect.id), binary("me"), binary("secret"));
    let (flags, payload) = match which {
        "user name without its flag" => (0x02, [id, user].concat()),
        "flag without a user name" => (0x82, id),
        "password without its flag" => (0x82, [id, user, password].concat()),
        "flag without a password" => (0xc2, [id, user].concat()),
        _ => panic!("{which}?"),
    };
    fatal_connect(level, which, &connect.bytes_with(flags, &payload), &[0x81, 0x82]);
}

/// A connection that is silent for one and a half times its keep-alive is ended as if the network had failed.
pub fn keep_alive(level: u8) {
    let topic = unique("silent");
    let mut watcher = watch(level, &topic, 0);
    let connect = Connect::clean(level, &unique("silent")).keep_alive(1).will(Will::new(&topic, "silent"));
    let mut client = Client::open(shared(level), &connect);
    let since = Instant::now();
    client.ended_with(0x8d);
    let after = since.elapsed();
    assert!((1400..3500).contains(&after.as_millis()), "closed after {after:?}");
    assert_eq!(watcher.take().text(), "silent");
    // A packet of any type starts the time again; PUBLISH does as well as PINGREQ.
    let mut lively = Client::open(shared(level), &Connect::clean(level, &unique("lively")).keep_alive(1));
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(2600) {
        std::thread::sleep(Duration::from_millis(400)); // the client's own pace
        lively.send(&Publish::new(&unique("lively"), "x").bytes(level));
    }
    lively.ping();
}

pub fn taken_over(level: u8) {
    let id = unique("taken");
    let mut first = Client::clean(shared(level), level, &id);
    for _ in 0..8 {
        let second = Client::clean(shared(level), level, &id);
        first.ended_with(0x8e);
        first = second;
    }
    first.ping();
}

/// Clean session and clean start also when the old connection is still open.
pub fn clean_at_takeover(level: u8) {
    let (id, topic) = (unique("taken"), unique("taken"));
    let mut first = Client::lasting(shared(level), level, &id, false);
    first.subscribe(&topic, 1);
    let mut second = Client::lasting(shared(level), level, &id, true);
    first.ended_with(0x8e);
    publish(level, Publish::new(&topic, "kept").qos(1));
    assert_eq!(second.take().text(), "kept");
    let mut third = Client::clean(shared(level), level, &id);
    second.ended_with(0x8e);
    assert!(!third.connack.present);
    publish(level, Publish::new(&topic, "lost").qos(1));
    third.quiet();
}

/// Nothing that follows a refused CONNECT is looked at.
pub fn refused_is_not_read(level: u8, connect: &Connect) {
    let topic = unique("refused");
    let bytes = [connect.bytes(), Publish::new(&topic, "x").retain().bytes(level)].concat();
    let mut client = Client::raw(shared(level), level);
    client.send(&bytes);
    match &client.closed()[..] {
        [Packet::ConnAck(connack)] => assert_ne!(connack.code, 0),
        seen => panic!("{seen:?}"),
    }
    assert_eq!(stored(level, &topic), None);
}

/// Whatever a client sends along with CONNECT, CONNACK is the first answer.
pub fn connack_first(level: u8) {
    let (id, topic) = (unique("eager"), unique("eager"));
    super::sleeper(shared(level), level, &id, &topic, 1);
    publish(level, Publish::new(&topic, "queued").qos(1));
    let mut client = Client::raw(shared(level), level);
    let none = Properties::default();
    let bytes = [
        Connect::lasting(level, &id).bytes(),
        subscribe(level, 7, &none, &[(&topic, 1)]),
        Publish::new(&topic, "x").qos(1).id(8).bytes(level),
        PINGREQ.to_vec(),
    ];
    client.send(&bytes.concat());
    match client.next() {
        Packet::ConnAck(connack) => assert_eq!((connack.code, connack.present), (0, true)),
        other => panic!("first came {other:?}"),
    }
    assert_eq!(client.sub_ack(7).codes, [1]);
    assert_eq!(client.ack(4, 8).code(), 0);
    client.wait("PINGRESP", |packet| matches!(packet, Packet::PingResp).then_some(()));
}

pub fn session_present(level: u8) {
    let id = unique("present");
    assert!(!Client::clean(shared(level), level, &id).connack.present, "a clean session is new");
    Client::lasting(shared(level), level, &id, false).end();
    Client::lasting(shared(level), level, &id, true).end();
    Client::lasting(shared(level), level, &id, true).cut();
    Client::lasting(shared(level), level, &id, true).end();
    let clean = Client::clean(shared(level), level, &id);
    assert!(!clean.connack.present, "a clean session is new");
    clean.end();
    Client::lasting(shared(level), level, &id, false).end();
}

pub fn pinged(level: u8) {
    let mut client = anyone(level);
    for _ in 0..3 {
        client.send(&PINGREQ);
        assert_eq!(client.next(), Packet::PingResp);
    }
    client.send(&PINGREQ.repeat(100));
    (0..100).for_each(|_| assert_eq!(client.next(), Packet::PingResp));
}
