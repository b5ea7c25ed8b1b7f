//! Wills.

use super::{fatal_connect, nothing, publish, stored, watch};
use crate::client::Client;
use crate::rig::{shared, unique};
use crate::wire::{Connect, Publish, Will, binary};

/// A client with this will, whose connection then breaks.
#[track_caller]
pub fn dies_with(level: u8, will: Will) {
    Client::open(shared(level), &Connect::clean(level, &unique("dying")).will(will)).cut();
}

/// The next message is the one published now: none came before it.
#[track_caller]
pub fn nothing_before_marker(level: u8, watcher: &mut Client, topic: &str) {
    std::thread::sleep(crate::client::PAUSE); // a will would come in this time
    publish(level, Publish::new(topic, "marker").qos(1));
    assert_eq!(watcher.take().text(), "marker");
}

pub fn published_when_closed(level: u8) {
    let topic = unique("will");
    let mut watcher = watch(level, &topic, 1);
    dies_with(level, Will::new(&topic, "cut").qos(1));
    assert_eq!(watcher.take().text(), "cut");
    let connect = Connect::clean(level, &unique("dying")).will(Will::new(&topic, "violation").qos(1));
    let mut client = Client::open(shared(level), &connect);
    client.send(&[0, 0]);
    client.closed();
    assert_eq!(watcher.take().text(), "violation");
    // A will is also left behind by a connection whose client comes back and replaces it.
    let connect = Connect::clean(level, &unique("dying")).will(Will::new(&topic, "replaced").qos(1));
    let mut first = Client::open(shared(level), &connect);
    let second = Client::open(shared(level), &Connect::clean(level, &connect.id));
    first.ended_with(0x8e);
    assert_eq!(watcher.take().text(), "replaced");
    second.end();
    nothing_before_marker(level, &mut watcher, &topic);
}

pub fn discarded_by_disconnect(level: u8) {
    let topic = unique("will");
    let mut watcher = watch(level, &topic, 1);
    for retain in [false, true] {
        let will = Will { retain, ..Will::new(&topic, "discarded").qos(1) };
        Client::open(shared(level), &Connect::clean(level, &unique("leaving")).will(will)).end();
    }
    nothing_before_marker(level, &mut watcher, &topic);
    assert_eq!(stored(level, &topic), None);
}

/// A will is gone once it was published or discarded: it does not come back with the next connection of the session.
pub fn removed_from_session(level: u8) {
    let (id, topic) = (unique("will"), unique("will"));
    let mut watcher = watch(level, &topic, 1);
    let connect = Connect::lasting(level, &id).will(Will::new(&topic, "once").qos(1));
    Client::open(shared(level), &connect).cut();
    assert_eq!(watcher.take().text(), "once");
    Client::lasting(shared(level), level, &id, true).cut();
    nothing_before_marker(level, &mut watcher, &topic);
    Client::open(shared(level), &connect).end();
    Client::lasting(shared(level), level, &id, true).cut();
    nothing_before_marker(level, &mut watcher, &topic);
}

pub fn fields_must_be_there(level: u8) {
    let connect = Connect::clean(level, &unique("will"));
    let (id, none, topic) = (binary(&connect.id), nothing(level), binary("a"));
    fatal_connect(level, "no will at all", &connect.bytes_with(6, &id), &[0x81]);
    fatal_connect(level, "no will payload", &connect.bytes_with(6, &[&id, none, &topic].concat()), &[0x81]);
}

pub fn fields_must_not_be_there(level: u8) {
    let connect = Connect::clean(level, &unique("will"));
    let payload = [&binary(&connect.id)[..], nothing(level), &binary("a"), &binary("b")].concat();
    fatal_connect(level, "a will without its flag", &connect.bytes_with(2, &payload), &[0x81, 0x82]);
    for flags in [0x0a, 0x12, 0x22, 0x2a] {
        let what = format!("flags {flags:08b}");
        fatal_connect(level, &what, &connect.bytes_with(flags, &binary(&connect.id)), &[0x81, 0x82]);
    }
}

pub fn no_flag_no_will(level: u8) {
    let topic = unique("will");
    let mut watcher = watch(level, &topic, 1);
    let id = unique("willing");
    // The same client once had one.
    Client::open(shared(level), &Connect::clean(level, &id).will(Will::new(&topic, "had one").qos(1))).end();
    Client::clean(shared(level), level, &id).cut();
    nothing_before_marker(level, &mut watcher, &topic);
}

pub fn qos_without_flag(level: u8) {
    let connect = Connect::clean(level, &unique("will"));
    for qos in 1..=3 {
        let bytes = connect.bytes_with(2 | qos << 3, &connect.payload());
        fatal_connect(level, &format!("will QoS {qos} without a will"), &bytes, &[0x81, 0x82]);
    }
}

pub fn retain_without_flag(level: u8) {
    let connect = Connect::clean(level, &unique("will"));
    fatal_connect(level, "will retain", &connect.bytes_with(0x22, &connect.payload()), &[0x81, 0x82]);
}

pub fn every_qos(level: u8) {
    let topic = unique("will");
    let mut watcher = watch(level, &topic, 2);
    for qos in 0..=2 {
        dies_with(level, Will::new(&topic, "x").qos(qos));
        assert_eq!(watcher.take().qos, qos);
    }
    let connect = Connect::clean(level, &unique("will")).will(Will::new(&topic, "x"));
    let bytes = connect.bytes_with(0x1e, &connect.payload());
    fatal_connect(level, "will QoS 3", &bytes, &[0x81]);
}

pub fn not_retained(level: u8) {
    let topic = unique("will");
    let mut watcher = watch(level, &topic, 1);
    dies_with(level, Will::new(&topic, "passing").qos(1));
    let seen = watcher.take();
    assert_eq!((seen.text(), seen.retain), ("passing".into(), false));
    assert_eq!(stored(level, &topic), None);
}

pub fn retained(level: u8) {
    let topic = unique("will");
    let mut watcher = watch(level, &topic, 1);
    dies_with(level, Will::new(&topic, "staying").qos(1).retain());
    let seen = watcher.take();
    assert_eq!((seen.text(), seen.retain), ("staying".into(), false), "as an established subscriber sees it");
    let seen = stored(level, &topic).expect("the will was retained");
    assert_eq!((seen.text(), seen.retain), ("staying".into(), true));
}
