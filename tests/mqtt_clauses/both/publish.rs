//! PUBLISH and retained messages.

use super::{anyone, publish, stored, stored_up_to, watch};
use crate::client::Client;
use crate::rig::{shared, unique};
use crate::wire::{Packet, Publish, ack};

/// DUP of an incoming PUBLISH says nothing about an outgoing one.
pub fn dup_is_not_handed_on(level: u8) {
    let topic = unique("dup");
    let mut watcher = watch(level, &topic, 2);
    for qos in 1..=2 {
        publish(level, Publish::new(&topic, "x").qos(qos).dup());
        let seen = watcher.take();
        assert_eq!((seen.qos, seen.dup), (qos, false));
    }
}

/// A message of QoS 0 goes out once, without DUP and without a packet identifier.
pub fn qos_0(level: u8) {
    let topic = unique("zero");
    let mut watcher = watch(level, &topic, 2);
    publish(level, Publish::new(&topic, "\u{1}\u{2}text"));
    let seen = watcher.message();
    assert_eq!((seen.first(), seen.payload), (0x30, b"\x01\x02text".to_vec()));
    watcher.quiet();
}

pub fn retained_with_its_qos(level: u8) {
    for qos in 0..=2 {
        let topic = unique("retained");
        publish(level, Publish::new(&topic, "text").qos(qos).retain());
        let seen = stored_up_to(level, &topic, 2).expect("it was retained");
        assert_eq!((seen.text(), seen.qos, seen.retain), ("text".into(), qos, true));
    }
}

pub fn retained_is_replaced(level: u8) {
    let topic = unique("retained");
    for text in ["one", "two", "three"] {
        publish(level, Publish::new(&topic, text).qos(1).retain());
        assert_eq!(stored(level, &topic).expect("it was retained").text(), text);
    }
}

/// A new subscription gets the last retained message of each topic that matches, and no other.
pub fn retained_to_new_subscription(level: u8) {
    let place = unique("retained");
    for round in ["old", "new"] {
        for name in ["a", "b", "b/c"] {
            publish(level, Publish::new(&format!("{place}/{name}"), format!("{round} {name}")).qos(1).retain());
        }
    }
    publish(level, Publish::new(&format!("{place}x/a"), "elsewhere").qos(1).retain());
    let mut seen = watch(level, &format!("{place}/#"), 1).take_texts(3);
    seen.sort();
    assert_eq!(seen, ["new a", "new b", "new b/c"]);
    let mut some = watch(level, &format!("{place}/+"), 1);
    let mut seen = some.take_texts(2);
    seen.sort();
    assert_eq!(seen, ["new a", "new b"]);
    some.quiet();
}

pub fn retained_qos_0_replaces(level: u8) {
    let topic = unique("retained");
    publish(level, Publish::new(&topic, "old").qos(2).retain());
    publish(level, Publish::new(&topic, "new").retain());
    let seen = stored(level, &topic).expect("this server keeps retained messages of QoS 0");
    assert_eq!((seen.text(), seen.qos), ("new".into(), 0));
}

pub fn retain_flag_when_new(level: u8) {
    let topic = unique("retained");
    publish(level, Publish::new(&topic, "text").qos(1).retain());
    let seen = watch(level, &topic, 1).take();
    assert_eq!((seen.text(), seen.retain), ("text".into(), true));
}

pub fn retain_flag_when_established(level: u8) {
    let topic = unique("retained");
    let mut watcher = watch(level, &topic, 1);
    publish(level, Publish::new(&topic, "kept").qos(1).retain());
    publish(level, Publish::new(&topic, "passing").qos(1));
    for text in ["kept", "passing"] {
        let seen = watcher.take();
        assert_eq!((seen.text(), seen.retain), (text.into(), false));
    }
}

/// An empty retained message is delivered like any other, and there is none from then on.
pub fn empty_retained_removes(level: u8) {
    for qos in 0..=2 {
        let topic = unique("retained");
        let mut watcher = watch(level, &topic, 2);
        publish(level, Publish::new(&topic, "there").qos(1).retain());
        assert_eq!(watcher.take().text(), "there");
        publish(level, Publish::new(&topic, "").qos(qos).retain());
        let seen = watcher.take();
        assert_eq!((seen.payload, seen.retain, seen.qos), (vec![], false, qos));
        assert_eq!(stored(level, &topic), None);
    }
}

pub fn empty_retained_is_not_kept(level: u8) {
    let topic = unique("retained");
    publish(level, Publish::new(&topic, "").qos(1).retain());
    assert_eq!(stored(level, &topic), None);
}

pub fn not_retained(level: u8) {
    for qos in 0..=2 {
        let (fresh, kept) = (unique("passing"), unique("retained"));
        publish(level, Publish::new(&fresh, "passing").qos(qos));
        assert_eq!(stored(level, &fresh), None);
        publish(level, Publish::new(&kept, "kept").qos(1).retain());
        publish(level, Publish::new(&kept, "passing").qos(qos));
        publish(level, Publish::new(&kept, "").qos(qos));
        assert_eq!(stored(level, &kept).expect("it was retained").text(), "kept");
    }
}

/// A message arrives under its own topic, and it matches what was subscribed to.
pub fn topic_matches_filter(level: u8) {
    let place = unique("match");
    let topics = ["a", "a/b", "a/b/c", "/", "//", "a//b", " a b ", "Ä/ö", "a.b", "%2F"];
    let mut all = watch(level, &format!("{place}/#"), 1);
    let mut one = watch(level, &format!("{place}/a/+"), 1);
    for topic in topics {
        let topic = format!("{place}/{topic}");
        publish(level, Publish::new(&topic, &topic).qos(1));
        let seen = all.take();
        assert_eq!((&seen.topic, seen.text()), (&topic, topic.clone()));
    }
    assert_eq!(one.take().topic, format!("{place}/a/b"));
    one.quiet();
}

/// QoS 0: nothing; 1: PUBACK; 2: PUBREC.
pub fn answer_by_qos(level: u8) {
    let topic = unique("answer");
    let mut client = anyone(level);
    client.start(&Publish::new(&topic, "x"));
    client.quiet();
    let id = client.start(&Publish::new(&topic, "x").qos(1).id(0x1234));
    assert!(matches!(client.next(), Packet::PubAck(ack) if ack.id == id && ack.code() < 0x80));
    let id = client.start(&Publish::new(&topic, "x").qos(2).id(0xfffe));
    assert!(matches!(client.next(), Packet::PubRec(ack) if ack.id == id && ack.code() < 0x80));
    client.send(&ack(0x62, id));
    assert!(matches!(client.next(), Packet::PubComp(ack) if ack.id == id && ack.code() == 0));
}

/// Subscriptions that overlap: the highest QoS of them counts. This server sends one copy.
pub fn overlapping(level: u8) {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
        let place = unique("overlap");
        let topic = format!("{place}/x");
        let filters = [format!("{place}/#"), format!("{place}/+"), topic.clone()];
        let mut client = Client::clean(shared(level), level, &unique("overlap"));
        for (filter, qos) in filters.iter().zip(order) {
            client.subscribe(filter, qos);
        }
        for qos in 0..=2 {
            publish(level, Publish::new(&topic, "x").qos(qos));
            assert_eq!(client.take().qos, qos, "the highest subscription has QoS 2");
        }
        let highest = order.iter().position(|qos| *qos == 2).expect("one has 2");
        client.unsubscribe(&[&filters[highest]]);
        publish(level, Publish::new(&topic, "x").qos(2));
        assert_eq!(client.take().qos, 1, "the highest left has QoS 1");
        client.quiet();
    }
}

/// Identifiers of acknowledgements are those of what they acknowledge.
pub fn identifiers_of_acknowledgements(level: u8) {
    let topic = unique("ids");
    let mut client = anyone(level);
    for id in [1, 2, 0x7f, 0x80, 0x100, 0x8000, 0xffff] {
        client.send(&Publish::new(&topic, "x").qos(1).id(id).bytes(level));
        assert!(matches!(client.next(), Packet::PubAck(ack) if ack.id == id));
        client.send(&Publish::new(&topic, "x").qos(2).id(id).bytes(level));
        assert!(matches!(client.next(), Packet::PubRec(ack) if ack.id == id));
        client.send(&ack(0x62, id));
        assert!(matches!(client.next(), Packet::PubComp(ack) if ack.id == id));
    }
    let mut watcher = watch(level, &topic, 2);
    client.publish(&Publish::new(&topic, "x").qos(2));
    let seen = watcher.message();
    watcher.send(&ack(0x50, seen.id));
    assert!(matches!(watcher.next(), Packet::PubRel(ack) if ack.id == seen.id));
    watcher.send(&ack(0x70, seen.id));
    watcher.quiet();
}
