//! The three qualities of service, resending, and order.

use super::{anyone, publish, sleeper, watch};
use crate::client::Client;
use crate::rig::{own, shared, unique};
use crate::wire::{Packet, Publish, ack};
use std::collections::HashSet;

/// A PUBREL in this place.
#[track_caller]
fn released(client: &mut Client, id: u16) {
    match client.next() {
        Packet::PubRel(ack) => assert_eq!((ack.id, ack.code()), (id, 0)),
        other => panic!("instead of PUBREL {id}: {other:?}"),
    }
}

/// What is on its way has identifiers of its own, none of them 0; one is free again once it is acknowledged.
pub fn identifiers_are_unused(level: u8, qos: u8) {
    const COUNT: usize = 200;
    let topic = unique("unused");
    let mut client = watch(level, &topic, qos);
    let mut publisher = anyone(level);
    let mut open: Vec<Publish> = Vec::new();
    for n in 0..COUNT {
        publisher.publish(&Publish::new(&topic, n.to_string()).qos(qos));
        let seen = client.message();
        assert_eq!((seen.qos, seen.dup), (qos, false));
        assert!(seen.id != 0 && open.iter().all(|other| other.id != seen.id), "{} is in use", seen.id);
        open.push(seen);
        if n % 3 == 2 {
            let done = open.remove(n % open.len());
            client.acknowledge(&done);
        }
    }
    let ids: HashSet<u16> = open.iter().map(|publish| publish.id).collect();
    assert_eq!(ids.len(), open.len());
}

/// A message of QoS 1 is sent with DUP 0, and again with DUP 1 and the same identifier until there is a PUBACK, but only
/// after a reconnect.
pub fn qos_1_sender(level: u8) {
    let (id, topic) = (unique("sender"), unique("sender"));
    let mut client = Client::lasting(shared(level), level, &id, false);
    client.subscribe(&topic, 1);
    publish(level, Publish::new(&topic, "one").qos(1));
    publish(level, Publish::new(&topic, "two").qos(1));
    let (one, two) = (client.message(), client.message());
    assert_eq!((one.qos, one.dup, two.qos, two.dup), (1, false, 1, false));
    assert_ne!(one.id, two.id);
    client.quiet();
    client.acknowledge(&one);
    client.ping();
    client.cut();
    for _ in 0..2 {
        let mut client = Client::lasting(shared(level), level, &id, true);
        assert_eq!(client.message(), Publish { dup: true, ..two.clone() });
        client.quiet();
        client.cut();
    }
    let mut client = Client::lasting(shared(level), level, &id, true);
    assert_eq!(client.take(), Publish { dup: true, ..two });
    client.ping();
    client.cut();
    Client::lasting(shared(level), level, &id, true).quiet();
}

/// After its PUBACK an identifier is that of a new message, DUP or not.
pub fn qos_1_receiver(level: u8) {
    let topic = unique("receiver");
    let mut watcher = watch(level, &topic, 1);
    let mut client = anyone(level);
    for (text, dup) in [("one", false), ("two", true), ("three", false)] {
        client.send(&Publish { dup, ..Publish::new(&topic, text).qos(1).id(77) }.bytes(level));
        assert_eq!(client.ack(4, 77).code(), 0);
        assert_eq!(watcher.take().text(), text);
    }
    watcher.quiet();
}

/// PUBLISH, PUBREC, PUBREL, PUBCOMP; what is unanswered is sent again after a reconnect, and PUBLISH never after PUBREL.
pub fn qos_2_sender(level: u8) {
    let (id, topic) = (unique("sender"), unique("sender"));
    let mut client = Client::lasting(shared(level), level, &id, false);
    client.subscribe(&topic, 2);
    publish(level, Publish::new(&topic, "text").qos(2));
    let first = client.message();
    assert_eq!((first.qos, first.dup), (2, false));
    client.quiet();
    client.cut();
    let mut client = Client::lasting(shared(level), level, &id, true);
    assert_eq!(client.message(), Publish { dup: true, ..first.clone() });
    client.send(&ack(0x50, first.id));
    released(&mut client, first.id);
    client.quiet();
    client.cut();
    for _ in 0..2 {
        let mut client = Client::lasting(shared(level), level, &id, true);
        released(&mut client, first.id);
        client.quiet();
        client.cut();
    }
    let mut client = Client::lasting(shared(level), level, &id, true);
    released(&mut client, first.id);
    client.send(&ack(0x70, first.id));
    client.ping();
    client.cut();
    Client::lasting(shared(level), level, &id, true).quiet();
}

/// Until PUBREL the same identifier is the same message; after PUBCOMP it is a new one.
pub fn qos_2_receiver(level: u8) {
    let topic = unique("receiver");
    let mut watcher = watch(level, &topic, 2);
    let mut client = anyone(level);
    for round in ["one", "two"] {
        let sent = Publish::new(&topic, round).qos(2).id(77);
        for dup in [false, true, true, false] {
            client.send(&Publish { dup, ..sent.clone() }.bytes(level));
            assert!(client.ack(5, 77).code() < 0x80);
        }
        client.send(&ack(0x62, 77));
        assert_eq!(client.ack(7, 77).code(), 0);
        assert_eq!(watcher.take().text(), round);
    }
    publish(level, Publish::new(&topic, "marker").qos(2));
    assert_eq!(watcher.take().text(), "marker");
    watcher.quiet();
}

/// The same over reconnects of the sender: its session remembers the identifier.
pub fn qos_2_receiver_over_reconnect(level: u8) {
    let (id, topic) = (unique("receiver"), unique("receiver"));
    let mut watcher = watch(level, &topic, 2);
    let mut client = Client::lasting(shared(level), level, &id, false);
    let sent = Publish::new(&topic, "once").qos(2).id(9);
    client.send(&sent.bytes(level));
    assert!(client.ack(5, 9).code() < 0x80);
    for _ in 0..3 {
        client.cut();
        client = Client::lasting(shared(level), level, &id, true);
        client.send(&sent.clone().dup().bytes(level));
        assert!(client.ack(5, 9).code() < 0x80);
    }
    client.send(&ack(0x62, 9));
    client.cut(); // PUBCOMP may be lost: PUBREL is sent again
    client = Client::lasting(shared(level), level, &id, true);
    client.send(&ack(0x62, 9));
    assert!([0, 0x92].contains(&client.ack(7, 9).code()));
    assert_eq!(watcher.take().text(), "once");
    client.publish(&Publish::new(&topic, "marker").qos(2).id(9));
    assert_eq!(watcher.take().text(), "marker");
    watcher.quiet();
}

/// All that was not acknowledged comes again when the client does, and nothing else. In 3.1.1 it comes in its first
/// order, whatever the QoS.
pub fn resent(level: u8) {
    let (id, topic) = (unique("resend"), unique("resend"));
    let mut client = Client::lasting(shared(level), level, &id, false);
    client.subscribe(&topic, 2);
    let mut publisher = anyone(level);
    for n in 0..20 {
        publisher.publish(&Publish::new(&topic, n.to_string()).qos(1 + n % 2));
    }
    let sent: Vec<Publish> = (0..20).map(|_| client.message()).collect();
    for publish in sent.iter().step_by(4) {
        client.acknowledge(publish);
    }
    client.ping();
    client.cut();
    let mut client = Client::lasting(shared(level), level, &id, true);
    let left: Vec<&Publish> = sent.iter().enumerate().filter(|(n, _)| n % 4 != 0).map(|(_, publish)| publish).collect();
    let again: Vec<Publish> = left.iter().map(|_| client.message()).collect();
    let of =
        |all: &[Publish], qos: u8| all.iter().filter(|one| one.qos == qos || level == 4).cloned().collect::<Vec<_>>();
    let wanted: Vec<Publish> = left.iter().map(|publish| Publish { dup: true, ..(*publish).clone() }).collect();
    for qos in 1..=2 {
        assert_eq!(of(&again, qos), of(&wanted, qos));
    }
    client.quiet();
}

/// A message is added to the sessions of all clients that have subscribed, whether they are there or not.
pub fn added_to_all_sessions(level: u8) {
    let place = unique("added");
    let topic = format!("{place}/x/y");
    let filters = [topic.clone(), format!("{place}/#"), format!("{place}/+/y"), "+/x/y".to_owned()];
    let ids: Vec<String> = filters.iter().map(|_| unique("added")).collect();
    for (id, filter) in ids.iter().zip(&filters) {
        sleeper(shared(level), level, id, filter, 1);
    }
    let other = unique("added");
    sleeper(shared(level), level, &other, &format!("{place}/x"), 1);
    let mut live = watch(level, &topic, 1);
    publish(level, Publish::new(&topic, "for all").qos(1));
    assert_eq!(live.take().text(), "for all");
    for id in &ids {
        assert_eq!(Client::lasting(shared(level), level, id, true).take().text(), "for all");
    }
    Client::lasting(shared(level), level, &other, true).quiet();
}

/// Acknowledgements of the server come in the order of what they acknowledge; PUBREL in the order of PUBREC.
pub fn acknowledgements_in_order(level: u8, kind: u8) {
    const COUNT: u16 = 300;
    let place = unique("order");
    let mut client = anyone(level);
    let qos = if kind == 4 { 1 } else { 2 };
    let id = |n: u16| 1 + n * 7 % COUNT;
    if kind == 6 {
        client.subscribe(&format!("{place}/#"), 2);
        let mut publisher = anyone(level);
        (0..20).for_each(|n| publisher.publish(&Publish::new(&format!("{place}/{n}"), "x").qos(2)));
        let mut seen: Vec<u16> = (0..20).map(|_| client.message().id).collect();
        seen.reverse();
        let bytes: Vec<u8> = seen.iter().flat_map(|id| ack(0x50, *id)).collect();
        client.send(&bytes);
        seen.iter().for_each(|id| released(&mut client, *id));
        return;
    }
    // Different topics live on different shards; the order is one all the same.
    let bytes: Vec<u8> =
        (0..COUNT).flat_map(|n| Publish::new(&format!("{place}/{n}"), "x").qos(qos).id(id(n)).bytes(level)).collect();
    client.send(&bytes);
    for n in 0..COUNT {
        match client.next() {
            Packet::PubAck(ack) if kind == 4 => assert_eq!(ack.id, id(n)),
            Packet::PubRec(ack) if kind == 5 => assert_eq!(ack.id, id(n)),
            other => panic!("{other:?}"),
        }
    }
}

/// Messages of one client to one topic with one QoS arrive in their order, at each of several subscribers.
pub fn in_order(level: u8) {
    const COUNT: usize = 300;
    for qos in 0..=2 {
        let place = unique("order");
        let topic = format!("{place}/x");
        let mut live: Vec<Client> = [&topic[..], &format!("{place}/#")].map(|filter| watch(level, filter, qos)).into();
        let id = unique("order");
        sleeper(shared(level), level, &id, &topic, qos);
        let mut publisher = anyone(level);
        for n in 0..COUNT {
            publisher.start(&Publish::new(&topic, n.to_string()).qos(qos));
            if qos == 2 && n % 50 == 49 {
                finish(&mut publisher, 50);
            }
        }
        if qos == 1 {
            (0..COUNT).for_each(|_| assert!(matches!(publisher.next(), Packet::PubAck(_))));
        }
        publisher.ping();
        let wanted: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
        for client in &mut live {
            assert_eq!(client.take_texts(COUNT), wanted, "QoS {qos}");
        }
        if qos > 0 {
            let mut late = Client::lasting(shared(level), level, &id, true);
            assert_eq!(late.take_texts(COUNT), wanted, "QoS {qos}, offline");
        }
    }
}

/// Takes `count` exchanges of QoS 2 that the client has begun to their end.
fn finish(publisher: &mut Client, count: usize) {
    let mut done = 0;
    while done < count {
        match publisher.next() {
            Packet::PubRec(received) => publisher.send(&ack(0x62, received.id)),
            Packet::PubComp(_) => done += 1,
            other => panic!("in an exchange of QoS 2: {other:?}"),
        }
    }
}

/// Order holds however many shards there are.
pub fn in_order_on_shards(level: u8) {
    const COUNT: usize = 200;
    for shards in [1, 4] {
        let server = own(shards);
        let mut watchers: Vec<Client> =
            (0..6).map(|n| Client::clean(server.mqtt(), level, &format!("watcher-{n}"))).collect();
        watchers.iter_mut().for_each(|watcher| watcher.subscribe("order/#", 1));
        let mut publishers: Vec<Client> =
            (0..4).map(|n| Client::clean(server.mqtt(), level, &format!("publisher-{n}"))).collect();
        for n in 0..COUNT {
            for (at, publisher) in publishers.iter_mut().enumerate() {
                publisher.start(&Publish::new("order/one", format!("{at} {n}")).qos(1));
            }
        }
        for watcher in &mut watchers {
            let all = watcher.take_texts(4 * COUNT);
            for at in 0..4 {
                let mine: Vec<&str> = all.iter().filter_map(|text| text.strip_prefix(&format!("{at} "))).collect();
                let wanted: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
                assert_eq!(mine, wanted, "publisher {at} on {shards} shards");
            }
        }
    }
}
