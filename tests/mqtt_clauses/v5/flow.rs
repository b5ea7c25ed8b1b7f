//! Receive maximum, maximum packet size, topic aliases.

use crate::both::{anyone, fatal, in_order_by_qos, publish, sorted_numbers, watch};
use crate::client::Client;
use crate::rig::{shared, unique};
use crate::wire::{Connect, PINGREQ, Packet, Properties, Publish, Value, ack, ack_with, id, subscribe};

fn limited(maximum: u16) -> Connect {
    Connect::lasting(5, &unique("window")).with(id::RECEIVE_MAXIMUM, Value::Two(maximum))
}

/// No more than the receive maximum is on its way, QoS 1 and 2 together; each end makes room for one more.
pub fn server_keeps_the_receive_maximum() {
    let topic = unique("window");
    for maximum in [1, 3, 10] {
        let mut client = Client::open(shared(5), &limited(maximum));
        client.subscribe(&topic, 2);
        let mut publisher = anyone(5);
        for n in 0..30 {
            publisher.publish(&Publish::new(&topic, n.to_string()).qos(1 + n % 2));
        }
        let mut open: Vec<Publish> = (0..maximum).map(|_| client.message()).collect();
        let mut seen = open.clone();
        client.quiet();
        for n in usize::from(maximum)..30 {
            let done = open.remove(0);
            if done.qos == 2 {
                client.send(&ack(0x50, done.id));
                assert!(matches!(client.next(), Packet::PubRel(ack) if ack.id == done.id));
                if n < 14 {
                    client.quiet(); // PUBREC is not the end of the exchange
                }
                client.send(&ack(0x70, done.id));
            } else {
                client.acknowledge(&done);
            }
            open.push(client.message());
            seen.extend(open.last().cloned());
            if n < 14 {
                client.quiet();
            }
        }
        assert_eq!(sorted_numbers(&seen), (0..30).collect::<Vec<_>>());
        in_order_by_qos(&seen);
        open.iter().for_each(|publish| client.acknowledge(publish));
        client.quiet();
    }
}

/// A full window holds up PUBLISH and nothing else.
pub fn others_are_not_held_up() {
    let (topic, other) = (unique("window"), unique("window"));
    let mut client = Client::open(shared(5), &limited(1));
    client.subscribe(&topic, 1);
    (0..5).for_each(|n: u8| publish(5, Publish::new(&topic, n.to_string()).qos(1)));
    let first = client.message();
    client.send(&PINGREQ);
    assert_eq!(client.next(), Packet::PingResp);
    let none = Properties::default();
    client.send(&subscribe(5, 9, &none, &[(&other, 1)]));
    assert!(matches!(client.next(), Packet::SubAck(ack) if ack.id == 9));
    client.send(&Publish::new(&unique("window"), "x").qos(1).id(10).bytes(5));
    assert!(matches!(client.next(), Packet::PubAck(ack) if ack.id == 10));
    client.send(&Publish::new(&unique("window"), "x").qos(2).id(11).bytes(5));
    assert!(matches!(client.next(), Packet::PubRec(ack) if ack.id == 11));
    client.send(&ack(0x62, 11));
    assert!(matches!(client.next(), Packet::PubComp(ack) if ack.id == 11));
    client.send(&crate::wire::unsubscribe(5, 12, &[&other]));
    assert!(matches!(client.next(), Packet::UnsubAck(ack) if ack.id == 12));
    client.acknowledge(&first);
    assert_eq!(client.take_texts(4), ["1", "2", "3", "4"]);
}

/// The first window is not empty: something comes without anything having been acknowledged.
pub fn initial_quota() {
    let topic = unique("window");
    for maximum in [None, Some(1), Some(2), Some(65_535)] {
        let mut connect = Connect::lasting(5, &unique("window"));
        if let Some(maximum) = maximum {
            connect = connect.with(id::RECEIVE_MAXIMUM, Value::Two(maximum));
        }
        let mut client = Client::open(shared(5), &connect);
        client.subscribe(&topic, 1);
        (0..8).for_each(|n: u8| publish(5, Publish::new(&topic, n.to_string()).qos(1)));
        let at_once = usize::from(maximum.unwrap_or(65_535)).min(8);
        (0..at_once).for_each(|n| assert_eq!(client.message().text(), n.to_string()));
        client.quiet();
        // The window starts anew with each connection, and what is sent again counts.
        client.cut();
        let mut client = Client::open(shared(5), &connect);
        (0..at_once).for_each(|n| assert_eq!((client.message().text(), n), (n.to_string(), n)));
        client.quiet();
    }
}

/// A refusal by PUBREC makes room as well.
pub fn refusal_frees_the_window() {
    let topic = unique("window");
    let mut client = Client::open(shared(5), &limited(1));
    client.subscribe(&topic, 2);
    (0..4).for_each(|n: u8| publish(5, Publish::new(&topic, n.to_string()).qos(2)));
    for n in 0..4 {
        let seen = client.message();
        assert_eq!(seen.text(), n.to_string());
        client.quiet();
        client.send(&ack_with(0x50, seen.id, 0x83));
    }
    client.quiet();
}

/// One publish more than the server's receive maximum is the end.
pub fn client_exceeds_the_receive_maximum() {
    let topic = unique("exceed");
    let mut client = anyone(5);
    let maximum = client.connack.properties.number(id::RECEIVE_MAXIMUM).expect("this server has a maximum") as u16;
    for n in 1..=maximum {
        client.send(&Publish::new(&topic, "x").qos(2).id(n).bytes(5));
    }
    for n in 1..=maximum {
        assert!(client.ack(5, n).code() < 0x80);
    }
    client.ping();
    // The same identifier again is no further message.
    client.send(&Publish::new(&topic, "x").qos(2).id(maximum).dup().bytes(5));
    assert!(client.ack(5, maximum).code() < 0x80);
    let _ = client.try_send(&Publish::new(&topic, "x").qos(2).id(maximum + 1).bytes(5));
    client.ended_with(0x93);
}

/// A message that is too large for a client is not sent, and counts as sent: the next ones come.
pub fn too_large_for_the_client() {
    let (topic, name) = (unique("size"), unique("size"));
    let limit = anyone(5).length.max(100) as u32;
    let connect = Connect::lasting(5, &name)
        .with(id::MAXIMUM_PACKET, Value::Four(limit))
        .with(id::RECEIVE_MAXIMUM, Value::Two(1));
    let mut all = watch(5, &topic, 2);
    let mut client = Client::open(shared(5), &connect);
    client.subscribe(&topic, 2);
    let head = 2 + 2 + topic.len() + 2 + 1;
    let fits = |qos: u8| limit as usize - head + if qos == 0 { 2 } else { 0 };
    for qos in 0..=2 {
        for bytes in [fits(qos) + 1, fits(qos), fits(qos) + 1000] {
            publish(5, Publish::new(&topic, "x".repeat(bytes)).qos(qos));
            assert_eq!(all.take().payload.len(), bytes);
        }
        assert_eq!(client.take().payload.len(), fits(qos), "QoS {qos}");
        client.quiet();
    }
    // Properties count too.
    publish(5, Publish::new(&topic, "x").qos(1).user("long", &"x".repeat(limit as usize)));
    publish(5, Publish::new(&topic, "small").qos(1));
    assert_eq!(client.take().text(), "small");
    client.ping();
    client.cut();
    // Nor are they kept for another time.
    let mut client = Client::open(shared(5), &connect);
    assert!(client.connack.present);
    client.quiet();
    client.cut();
    publish(5, Publish::new(&topic, "x".repeat(2000)).qos(1));
    publish(5, Publish::new(&topic, "after").qos(1));
    let mut client = Client::open(shared(5), &connect);
    assert_eq!(client.take().text(), "after");
    client.quiet();
}

/// The retained ones as well: the client measures each packet.
pub fn no_packet_above_the_limit() {
    let place = unique("size");
    let limit = anyone(5).length.max(100);
    for bytes in [10, limit - 40, limit, limit * 2, 100_000] {
        publish(5, Publish::new(&format!("{place}/{bytes}"), "x".repeat(bytes)).qos(1).retain());
    }
    let connect = Connect::clean(5, &unique("size")).with(id::MAXIMUM_PACKET, Value::Four(limit as u32));
    let mut client = Client::open(shared(5), &connect);
    client.subscribe(&format!("{place}/#"), 1);
    let mut seen: Vec<usize> = (0..2).map(|_| client.take().payload.len()).collect();
    seen.sort_unstable();
    assert_eq!(seen, [10, limit - 40]);
    client.quiet();
}

/// What comes with aliases, if it comes with aliases, is within the client's maximum and understood; without a maximum
/// there are none. The client of these tests checks each.
pub fn aliases_of_the_server() {
    for maximum in [None, Some(0), Some(1), Some(3), Some(65_535)] {
        let place = unique("alias");
        let mut connect = Connect::clean(5, &unique("alias"));
        if let Some(maximum) = maximum {
            connect = connect.with(id::ALIAS_MAXIMUM, Value::Two(maximum));
        }
        let mut client = Client::open(shared(5), &connect);
        client.subscribe(&format!("{place}/#"), 1);
        let mut publisher = anyone(5);
        for n in 0..60_u8 {
            let topic = format!("{place}/{}", n % 7);
            publisher.publish(&Publish::new(&topic, &topic).qos(n % 2));
            let seen = client.take();
            assert_eq!((&seen.topic, seen.text()), (&topic, topic.clone()));
            let aliased = seen.properties.get(id::ALIAS).is_some();
            assert!(!aliased || maximum.is_some_and(|maximum| maximum > 0));
        }
    }
}

fn alias_maximum(client: &Client) -> u16 {
    let maximum = client.connack.properties.number(id::ALIAS_MAXIMUM);
    maximum.filter(|maximum| *maximum > 0).expect("this server takes topic aliases") as u16
}

fn aliased(topic: &str, alias: u16, text: &str) -> Publish {
    Publish::new(topic, text).qos(1).with(id::ALIAS, Value::Two(alias))
}

/// Every alias up to the server's maximum, set, used and set anew.
pub fn every_alias_is_taken() {
    let place = unique("alias");
    let mut watcher = watch(5, &format!("{place}/#"), 1);
    let mut client = anyone(5);
    let maximum = alias_maximum(&client).min(100);
    for round in 0..2 {
        for alias in 1..=maximum {
            let topic = format!("{place}/{round}/{alias}");
            client.publish(&aliased(&topic, alias, "set"));
            let seen = watcher.take();
            assert_eq!((seen.text(), seen.topic), ("set".into(), topic));
        }
        for alias in (1..=maximum).rev() {
            for qos in 0..=2 {
                client.publish(&aliased("", alias, "used").qos(qos));
                let seen = watcher.take();
                assert_eq!((seen.text(), &seen.topic), ("used".into(), &format!("{place}/{round}/{alias}")));
                assert_eq!(seen.properties, Properties::default(), "an alias is the connection's own");
            }
        }
    }
}

/// An alias belongs to its connection, also where the session goes on.
pub fn aliases_are_not_carried_over() {
    let (name, topic) = (unique("alias"), unique("alias"));
    let mut client = Client::lasting(shared(5), 5, &name, false);
    client.publish(&aliased(&topic, 1, "set"));
    client.end();
    let mut client = Client::lasting(shared(5), 5, &name, true);
    client.send(&aliased("", 1, "x").id(1).bytes(5));
    assert!([0x82, 0x94].contains(&client.ended().expect("a reason")));
    // Nor does it belong to another client at the same time.
    let mut one = anyone(5);
    one.publish(&aliased(&topic, 1, "set"));
    fatal(5, "an alias of another connection", &aliased("", 1, "x").id(1).bytes(5), &[0x82, 0x94]);
    one.publish(&aliased("", 1, "used"));
}

pub fn alias_0() {
    fatal(5, "alias 0 with a topic", &aliased("a", 0, "x").id(1).bytes(5), &[0x94]);
    fatal(5, "alias 0 without a topic", &aliased("", 0, "x").id(1).bytes(5), &[0x94]);
}

pub fn alias_above_the_maximum() {
    let maximum = alias_maximum(&anyone(5));
    if let Some(above) = maximum.checked_add(1) {
        fatal(5, "an alias above the maximum", &aliased("a", above, "x").id(1).bytes(5), &[0x94]);
        fatal(5, "alias 65,535", &aliased("a", 65_535, "x").id(1).bytes(5), &[0x94]);
    }
    fatal(5, "an alias that was never set", &aliased("", 1, "x").id(1).bytes(5), &[0x82, 0x94]);
}

/// Without acknowledgements the window stays as full as it is, however long the client waits.
pub fn nothing_more_at_quota_0() {
    let topic = unique("window");
    let mut client = Client::open(shared(5), &limited(2));
    client.subscribe(&topic, 2);
    (0..10).for_each(|n: u8| publish(5, Publish::new(&topic, n.to_string()).qos(1 + n % 2)));
    let first = [client.message(), client.message()];
    for _ in 0..4 {
        client.quiet();
    }
    first.iter().for_each(|publish| client.acknowledge(publish));
    let mut seen = first.to_vec();
    seen.extend((0..8).map(|_| client.take()));
    assert_eq!(sorted_numbers(&seen), (0..10).collect::<Vec<_>>());
    in_order_by_qos(&seen);
}
