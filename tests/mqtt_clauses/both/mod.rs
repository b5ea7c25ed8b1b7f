//! What both versions of MQTT say alike: each test body takes the protocol level, 4 for 3.1.1 and 5 for 5.0.

pub mod connect;
pub mod delivery;
pub mod malformed;
pub mod publish;
pub mod session;
pub mod subscribe;
pub mod topics;
pub mod websocket;
pub mod will;

use crate::client::Client;
use crate::common::{Connection, PATIENCE};
use crate::rig::{shared, unique};
use crate::wire::{ConnAck, Connect, Packet, Publish};
use std::net::SocketAddr;

/// A subscriber with a clean session.
#[track_caller]
pub fn watch(level: u8, filter: &str, options: u8) -> Client {
    let mut client = Client::clean(shared(level), level, &unique("watch"));
    client.subscribe(filter, options);
    client
}

/// A client with a clean session.
#[track_caller]
pub fn anyone(level: u8) -> Client {
    Client::clean(shared(level), level, &unique("anyone"))
}

/// Publishes on a connection of its own.
#[track_caller]
pub fn publish(level: u8, publish: Publish) {
    let mut client = anyone(level);
    client.publish(&publish);
    client.end();
}

/// What is retained under a topic: the first message of a new subscription, if one comes before a later one.
#[track_caller]
pub fn stored(level: u8, topic: &str) -> Option<Publish> {
    stored_up_to(level, topic, 1)
}

/// [`stored`] for a subscription of this QoS.
#[track_caller]
pub fn stored_up_to(level: u8, topic: &str, qos: u8) -> Option<Publish> {
    let mut client = watch(level, topic, qos);
    publish(level, Publish::new(topic, "-marker-").qos(1));
    let first = client.take();
    if first.text() == "-marker-" { None } else { Some(first) }
}

/// These bytes, sent by a connected client, end its connection. MQTT 5 gives one of these reasons.
#[track_caller]
pub fn fatal(level: u8, what: &str, bytes: &[u8], codes: &[u8]) {
    let mut client = Client::clean(shared(level), level, &unique("fatal"));
    client.id = format!("{what} ({})", client.id);
    client.send(bytes);
    let code = client.ended();
    assert!(code.is_none_or(|code| codes.contains(&code)), "{what}: reason {code:02x?} instead of {codes:02x?}");
}

/// These bytes are no CONNECT: 3.1.1 closes without a word, MQTT 5 with one of these reasons in CONNACK.
#[track_caller]
pub fn fatal_connect(level: u8, what: &str, bytes: &[u8], codes: &[u8]) {
    let mut client = Client::raw(shared(level), level);
    client.id = what.into();
    client.send(bytes);
    match (level, &client.closed()[..]) {
        (4, []) => {}
        (5, [Packet::ConnAck(ConnAck { present: false, code, .. })]) if codes.contains(code) => {}
        (_, seen) => panic!("{what} (MQTT {level}): {seen:?} instead of {codes:02x?}"),
    }
}

/// A CONNECT that is refused in CONNACK, after which the connection is closed.
#[track_caller]
pub fn refused(addr: SocketAddr, connect: &Connect) -> ConnAck {
    let mut client = Client::raw(addr, connect.level);
    client.send(&connect.bytes());
    match &client.closed()[..] {
        [Packet::ConnAck(connack)] if connack.code != 0 => {
            assert!(!connack.present, "Session Present in a refusal");
            connack.clone()
        }
        seen => panic!("{} was to be refused: {seen:?}", connect.id),
    }
}

/// All bytes that come until the server closes, for what may be answered in the form of either version.
#[track_caller]
pub fn bytes_to_close(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut connection = Connection::open(addr);
    connection.send(bytes);
    connection.within(PATIENCE);
    assert!(connection.read_to_close(), "not closed; so far {:?}", connection.seen());
    connection.rest()
}

/// The empty list of properties, where the version has one.
pub fn nothing(level: u8) -> &'static [u8] {
    if level == 5 { &[0] } else { &[] }
}

/// A session that outlives its connection and is subscribed to a filter, but not connected.
#[track_caller]
pub fn sleeper(addr: SocketAddr, level: u8, id: &str, filter: &str, qos: u8) {
    let mut client = Client::lasting(addr, level, id, false);
    client.subscribe(filter, qos);
    client.end();
}

/// Messages whose payloads are numbers: those of one QoS are in their order. Nothing is said of two QoS.
#[track_caller]
pub fn in_order_by_qos(seen: &[Publish]) {
    for qos in 0..=2 {
        let numbers: Vec<u32> =
            seen.iter().filter(|seen| seen.qos == qos).filter_map(|seen| seen.text().parse().ok()).collect();
        assert!(numbers.is_sorted(), "QoS {qos}: {numbers:?}");
    }
}

/// The payloads, sorted as numbers.
pub fn sorted_numbers(seen: &[Publish]) -> Vec<u32> {
    let mut all: Vec<u32> = seen.iter().map(|seen| seen.text().parse().expect("a number")).collect();
    all.sort_unstable();
    all
}
