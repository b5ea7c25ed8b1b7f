//! Sessions that outlive their connection, and those that do not.

use super::{anyone, in_order_by_qos, publish, sleeper, sorted_numbers, stored};
use crate::client::Client;
use crate::rig::{own, shared, unique};
use crate::wire::{Connect, Publish};

pub fn resumed(level: u8) {
    let (id, topic) = (unique("resume"), unique("resume"));
    let addr = shared(level);
    sleeper(addr, level, &id, &topic, 1);
    publish(level, Publish::new(&topic, "away").qos(1));
    for round in 0..3 {
        let mut client = Client::lasting(addr, level, &id, true);
        if round == 0 {
            assert_eq!(client.take().text(), "away");
        }
        publish(level, Publish::new(&topic, format!("live {round}")).qos(1));
        assert_eq!(client.take().text(), format!("live {round}"));
        client.ping(); // the acknowledgement has been read
        client.cut();
    }
    // Acknowledged is delivered: nothing comes again.
    Client::lasting(addr, level, &id, true).quiet();
}

pub fn created_when_missing(level: u8) {
    let (id, topic) = (unique("create"), unique("create"));
    let mut client = Client::lasting(shared(level), level, &id, false);
    client.quiet();
    client.subscribe(&topic, 1);
    client.cut();
    Client::lasting(shared(level), level, &id, true).end();
}

/// Messages of QoS 1 and 2 wait for a client that is away, in order; those of QoS 0 may.
pub fn messages_wait(level: u8) {
    let (id, topic) = (unique("wait"), unique("wait"));
    sleeper(shared(level), level, &id, &topic, 2);
    let mut publisher = anyone(level);
    for n in 0..30 {
        publisher.publish(&Publish::new(&topic, n.to_string()).qos(1 + n % 2));
    }
    let mut client = Client::lasting(shared(level), level, &id, true);
    let seen: Vec<Publish> = (0..30).map(|_| client.take()).collect();
    assert_eq!(sorted_numbers(&seen), (0..30).collect::<Vec<_>>());
    in_order_by_qos(&seen);
    for seen in seen {
        let n: u8 = seen.text().parse().expect("a number");
        assert_eq!((seen.qos, seen.dup, seen.retain), (1 + n % 2, false, false), "{n}");
    }
    client.quiet();
}

/// A clean connection ends the session that was there, and leaves none behind.
pub fn clean_discards(level: u8) {
    let (id, topic) = (unique("clean"), unique("clean"));
    sleeper(shared(level), level, &id, &topic, 1);
    publish(level, Publish::new(&topic, "for the old session").qos(1));
    let mut client = Client::clean(shared(level), level, &id);
    assert!(!client.connack.present);
    publish(level, Publish::new(&topic, "nobody hears it").qos(1));
    client.quiet();
    client.subscribe(&unique("clean"), 1);
    client.end();
    let mut client = Client::lasting(shared(level), level, &id, false);
    client.quiet();
}

/// What a clean session subscribed to ends with its connection.
pub fn clean_leaves_nothing(level: u8) {
    let (id, topic) = (unique("clean"), unique("clean"));
    let mut client = Client::clean(shared(level), level, &id);
    client.subscribe(&topic, 2);
    client.cut();
    publish(level, Publish::new(&topic, "nobody hears it").qos(2));
    Client::lasting(shared(level), level, &id, false).quiet();
}

pub fn retained_outlive_sessions(level: u8) {
    let topic = unique("outlive");
    let mut client = anyone(level);
    client.publish(&Publish::new(&topic, "retained").qos(1).retain());
    client.end();
    assert_eq!(stored(level, &topic).expect("it is still there").text(), "retained");
    let id = unique("outlive");
    let mut client = Client::lasting(shared(level), level, &id, false);
    client.publish(&Publish::new(&topic, "of a kept session").qos(1).retain());
    client.end();
    Client::clean(shared(level), level, &id).end();
    assert_eq!(stored(level, &topic).expect("it is still there").text(), "of a kept session");
}

/// Two identifiers are two sessions.
pub fn told_apart_by_identifier(level: u8) {
    let (a, b, place) = (unique("apart"), unique("apart"), unique("apart"));
    for id in [&a, &b] {
        sleeper(shared(level), level, id, &format!("{place}/{id}"), 1);
    }
    for id in [&b, &a] {
        publish(level, Publish::new(&format!("{place}/{id}"), id).qos(1));
    }
    for id in [&a, &b] {
        let mut client = Client::lasting(shared(level), level, id, true);
        assert_eq!(client.take().text(), **id);
        client.quiet();
    }
    assert!(!Client::open(shared(level), &Connect::lasting(level, &a.to_uppercase())).connack.present);
}

/// Subscriptions, queued messages and unfinished deliveries survive the death of the server, on any number of shards.
pub fn kept_over_a_crash(level: u8) {
    for shards in [1, 2, 4] {
        let mut server = own(shards);
        let topic = "crash/topic";
        let ids: Vec<String> = (0..6).map(|n| format!("client-{n}")).collect();
        ids.iter().for_each(|id| sleeper(server.mqtt(), level, id, "crash/#", 2));
        let mut publisher = Client::clean(server.mqtt(), level, "publisher");
        for n in 0..20 {
            publisher.publish(&Publish::new(topic, n.to_string()).qos(1 + n % 2));
        }
        // One of them has begun to take the messages.
        let mut begun = Client::lasting(server.mqtt(), level, &ids[0], true);
        let first: Vec<Publish> = (0..5).map(|_| begun.take()).collect();
        begun.ping();
        drop(publisher);
        server.kill9();
        server.restart();
        for (n, id) in ids.iter().enumerate() {
            let mut client = Client::lasting(server.mqtt(), level, id, true);
            let mut seen = if n == 0 { first.clone() } else { Vec::new() };
            while seen.len() < 20 {
                let next = client.take_after_crash();
                // What was acknowledged with QoS 1 just before the crash may come once more.
                if !(n == 0 && next.qos == 1 && first.iter().any(|first| first.payload == next.payload)) {
                    seen.push(next);
                }
            }
            assert_eq!(sorted_numbers(&seen), (0..20).collect::<Vec<_>>(), "{id} of {shards} shards");
            in_order_by_qos(&seen);
            client.quiet();
            client.end();
        }
        let mut publisher = Client::clean(server.mqtt(), level, "publisher");
        publisher.publish(&Publish::new(topic, "after").qos(2));
        for id in &ids {
            assert_eq!(Client::lasting(server.mqtt(), level, id, true).take().text(), "after");
        }
    }
}

/// A session goes on as long as its connection, whatever else happens.
pub fn lasts_with_its_connection(level: u8) {
    let topic = unique("last");
    let mut client = super::watch(level, &topic, 1);
    for round in 0..20 {
        let other = Client::clean(shared(level), level, &unique("passing"));
        if round % 2 == 0 {
            other.end()
        } else {
            other.cut()
        }
        publish(level, Publish::new(&topic, round.to_string()).qos(1));
        assert_eq!(client.take().text(), round.to_string());
    }
}
