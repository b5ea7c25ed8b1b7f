//! What is hard on any broker: packet identifiers all the way round, storms of connections with one identifier, many
//! sessions, a window that never opens.

use crate::client::{Client, Gone};
use crate::common::server::write_app;
use crate::common::{Options, PATIENCE, Server};
use crate::rig::{own, unique};
use crate::wire::{Connect, NO_LOCAL, Packet, Properties, Publish, Value, ack, id, subscribe};
use std::collections::{HashSet, VecDeque};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// A client uses every packet identifier there is, in rotation and out of order, with QoS 1 and 2.
#[test]
fn every_packet_identifier_of_a_client() {
    let server = own(2);
    for level in [4, 5] {
        let mut watcher = Client::clean(server.mqtt(), level, "watcher");
        watcher.subscribe("round/#", 0);
        let mut client = Client::clean(server.mqtt(), level, "client");
        let all: Vec<u16> = (1..=u16::MAX).map(|n| n.wrapping_mul(40_503)).filter(|id| *id != 0).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 65_535);
        for chunk in all.chunks(500) {
            let qos = 1 + (chunk[0] & 1) as u8;
            let publish = |id: &u16| Publish::new("round/x", id.to_string()).qos(qos).id(*id).bytes(level);
            client.send(&chunk.iter().flat_map(publish).collect::<Vec<u8>>());
            for id in chunk {
                match (qos, client.next()) {
                    (1, Packet::PubAck(got)) => assert_eq!(got.id, *id),
                    (2, Packet::PubRec(got)) => assert_eq!(got.id, *id),
                    (_, other) => panic!("for {id}: {other:?}"),
                }
            }
            if qos == 2 {
                client.send(&chunk.iter().flat_map(|id| ack(0x62, *id)).collect::<Vec<u8>>());
                chunk.iter().for_each(|id| assert!(matches!(client.next(), Packet::PubComp(got) if got.id == *id)));
            }
            chunk.iter().for_each(|id| assert_eq!(watcher.message().text(), id.to_string()));
        }
    }
}

/// The server uses every packet identifier there is; those of a few messages that are never acknowledged are left out
/// each time round.
#[test]
fn every_packet_identifier_of_the_server() {
    const COUNT: usize = 140_000;
    let server = own(2);
    let addr = server.mqtt();
    for qos in [1, 2] {
        let name = unique("reader");
        let mut reader = Client::lasting(addr, 5, &name, false);
        let topic = unique("round");
        reader.subscribe(&topic, qos);
        let publisher = thread::spawn(move || {
            let mut publisher = Client::clean(addr, 4, "publisher");
            for chunk in 0..COUNT / 500 {
                let publish = |n: usize| Publish::new(&topic, n.to_string()).qos(qos).id((n % 500) as u16 + 1);
                let from = chunk * 500;
                let bytes: Vec<u8> = (from..from + 500).flat_map(|n| publish(n).bytes(4)).collect();
                publisher.send(&bytes);
                for _ in 0..500 {
                    match publisher.next() {
                        Packet::PubAck(_) if qos == 1 => {}
                        Packet::PubRec(got) if qos == 2 => publisher.send(&ack(0x62, got.id)),
                        other => panic!("{other:?}"),
                    }
                }
                if qos == 2 {
                    (0..500).for_each(|_| assert!(matches!(publisher.next(), Packet::PubComp(_))));
                }
            }
        });
        let mut kept: Vec<Publish> = Vec::new();
        let mut ids = HashSet::new();
        let (mut released, mut n) = (0, 0);
        // For speed the acknowledgements of QoS 2 overlap.
        while n < COUNT || released < if qos == 2 { COUNT - kept.len() } else { 0 } {
            match reader.next() {
                Packet::Publish(seen) => {
                    assert_eq!((seen.text(), seen.qos, seen.dup), (n.to_string(), qos, false));
                    assert!(kept.iter().all(|kept| kept.id != seen.id), "{} is in use", seen.id);
                    ids.insert(seen.id);
                    if n % 20_000 == 77 {
                        kept.push(seen);
                    } else {
                        reader.send(&ack(if qos == 1 { 0x40 } else { 0x50 }, seen.id));
                    }
                    n += 1;
                }
                Packet::PubRel(got) if qos == 2 => {
                    reader.send(&ack(0x70, got.id));
                    released += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        publisher.join().expect("the publisher");
        assert_eq!(kept.len(), 7);
        println!("QoS {qos}: {} identifiers", ids.len());
        // What was kept is still on its way.
        reader.ping(); // all acknowledgements have been read
        reader.cut();
        let mut reader = Client::lasting(addr, 5, &name, true);
        let mut again: Vec<Publish> = (0..7).map(|_| reader.take()).collect();
        again.sort_by_key(|seen| seen.text().parse::<usize>().expect("a number"));
        let wanted: Vec<Publish> = kept.into_iter().map(|kept| Publish { dup: true, ..kept }).collect();
        assert_eq!(again, wanted);
        reader.quiet();
    }
}

/// Many connections fight for one client identifier on four shards. One is left, with the session and all that was
/// published meanwhile.
#[test]
fn reconnect_storm() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 60;
    let mut server = own(4);
    let addr = server.mqtt();
    for level in [4, 5] {
        let id = format!("storm-{level}");
        let topic = format!("storm/{level}");
        let mut first = Client::lasting(addr, level, &id, false);
        first.subscribe(&topic, 1);
        drop(first);
        let barrier = Barrier::new(THREADS + 1);
        let seen: HashSet<String> = thread::scope(|scope| {
            let fighters: Vec<_> = (0..THREADS)
                .map(|n| {
                    let (barrier, id) = (&barrier, &id);
                    scope.spawn(move || {
                        let mut seen = Vec::new();
                        barrier.wait();
                        for round in 0..ROUNDS {
                            // Refused or cut off: another was quicker. Never a session that is new.
                            let Ok(mut client) = Client::try_open(addr, &Connect::lasting(level, id)) else { continue };
                            assert!(client.connack.present, "the session was lost in round {round} of thread {n}");
                            while let Ok(Packet::Publish(publish)) = client.read(Duration::from_millis(3)) {
                                seen.push(publish.text());
                                if client.try_send(&ack(0x40, publish.id)).is_err() {
                                    break;
                                }
                            }
                        }
                        seen
                    })
                })
                .collect();
            let mut publisher = Client::clean(addr, level, "publisher");
            barrier.wait();
            for n in 0..200 {
                publisher.publish(&Publish::new(&topic, n.to_string()).qos(1));
            }
            fighters.into_iter().flat_map(|fighter| fighter.join().expect("a fighter")).collect()
        });
        // Whoever comes last has the session to itself and gets what nobody has acknowledged.
        let mut last = Client::lasting(addr, level, &id, true);
        let mut seen = seen;
        while let Ok(packet) = last.next_within(Duration::from_millis(500)) {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            last.acknowledge(&publish);
            seen.insert(publish.text());
        }
        let missing: Vec<usize> = (0..200).filter(|n| !seen.contains(&n.to_string())).collect();
        assert!(missing.is_empty(), "MQTT {level}: {missing:?} never came");
        let mut publisher = Client::clean(addr, level, "publisher");
        publisher.publish(&Publish::new(&topic, "after").qos(1));
        assert_eq!(last.take().text(), "after");
        last.quiet();
    }
    assert!(server.alive(), "{}", server.stderr());
}

/// Everyone connects with the same identifier at the same time, clean and lasting in turn, and everyone gets an answer:
/// CONNACK, or the end of the connection.
#[test]
fn every_connect_is_answered() {
    let server = own(4);
    let addr = server.mqtt();
    let connections: Vec<Client> = (0..300)
        .map(|n| {
            let connect = if n % 3 == 0 { Connect::clean(5, "same") } else { Connect::lasting(5, "same") };
            let mut client = Client::raw(addr, 5);
            client.send(&connect.bytes());
            client
        })
        .collect();
    let mut open = 0;
    for (n, mut client) in connections.into_iter().enumerate() {
        match client.read(PATIENCE) {
            Ok(Packet::ConnAck(connack)) => assert!(connack.code == 0 || connack.code >= 0x80, "{connack:?}"),
            Err(Gone::Closed) => continue,
            other => panic!("connection {n}: {other:?}"),
        }
        // All but one are told that another has come.
        match client.read(Duration::from_millis(300)) {
            Ok(Packet::Disconnect { code, .. }) => assert_eq!(code, 0x8e),
            Err(Gone::Closed) => {}
            Err(Gone::Late) => {
                client.ping();
                open += 1;
            }
            other => panic!("connection {n}: {other:?}"),
        }
    }
    assert_eq!(open, 1);
}

/// Thousands of sessions sleep over a crash; each wakes up with its own messages.
#[test]
fn many_sessions_survive_a_crash() {
    const COUNT: usize = 1500;
    let mut server = own(4);
    for n in 0..COUNT {
        let mut client = Client::lasting(server.mqtt(), [4, 5][n % 2], &format!("sleeper-{n}"), false);
        client.subscribe(&format!("own/{n}/#"), 1 + (n % 2) as u8);
        client.end();
    }
    let mut publisher = Client::clean(server.mqtt(), 5, "publisher");
    for n in 0..COUNT {
        publisher.start(&Publish::new(&format!("own/{n}/x"), n.to_string()).qos(1));
        if n % 500 == 499 {
            (0..500).for_each(|_| assert!(matches!(publisher.next(), Packet::PubAck(_))));
        }
    }
    server.kill9();
    server.restart();
    for n in 0..COUNT {
        let mut client = Client::lasting(server.mqtt(), [4, 5][n % 2], &format!("sleeper-{n}"), true);
        let seen = client.take();
        assert_eq!((seen.topic, seen.qos), (format!("own/{n}/x"), 1));
    }
}

/// Subscribers that never acknowledge do not hold up the others, nor the publisher.
#[test]
fn a_shut_window_holds_up_nobody_else() {
    let server = own(2);
    let addr = server.mqtt();
    let mut silent: Vec<Client> = (0..5)
        .map(|n| {
            let connect = Connect::lasting(5, &format!("silent-{n}")).with(id::RECEIVE_MAXIMUM, Value::Two(1));
            let mut client = Client::open(addr, &connect);
            client.subscribe("window/#", 2);
            client
        })
        .collect();
    let mut lively = Client::clean(addr, 5, "lively");
    lively.subscribe("window/#", 1);
    let mut publisher = Client::clean(addr, 5, "publisher");
    let since = Instant::now();
    for n in 0..3000 {
        publisher.start(&Publish::new("window/x", format!("{n} {}", "x".repeat(500))).qos(1));
        if n % 500 == 499 {
            (0..500).for_each(|_| assert!(matches!(publisher.next(), Packet::PubAck(_))));
        }
        assert!(lively.take().text().starts_with(&format!("{n} ")));
    }
    println!("3000 messages in {:?}", since.elapsed());
    for client in &mut silent {
        let first = client.message();
        client.quiet();
        client.acknowledge(&first);
        for n in 1..3000 {
            let seen = client.take();
            assert!(seen.text().starts_with(&format!("{n} ")), "{} instead of {n}", &seen.text()[..6]);
        }
    }
}

/// Messages of different QoS on one topic, which a client takes all of: they stay in the order in which one client
/// published them, live and after a night away. (The specification asks for that only within one QoS.)
#[test]
fn qos_1_and_2_keep_their_common_order() {
    let server = own(2);
    let addr = server.mqtt();
    let mut live = Client::clean(addr, 5, "live");
    live.subscribe("common/x", 2);
    Client::lasting(addr, 5, "sleeper", false).subscribe("common/x", 2);
    let mut publisher = Client::clean(addr, 5, "publisher");
    for n in 0..100_u8 {
        publisher.publish(&Publish::new("common/x", n.to_string()).qos(1 + n % 2));
    }
    let mut sleeper = Client::lasting(addr, 5, "sleeper", true);
    for client in [&mut live, &mut sleeper] {
        let mut open = VecDeque::new();
        for n in 0..100 {
            let seen = client.message();
            assert_eq!(seen.text(), n.to_string(), "{}", client.id);
            open.push_back(seen);
        }
        open.iter().for_each(|seen| client.acknowledge(seen));
    }
}

/// A session with a long queue, cut off while it is being delivered, again and again: nothing is lost, and what was
/// acknowledged does not come twice.
#[test]
fn a_long_queue_in_many_parts() {
    const COUNT: usize = 5000;
    let server = own(4);
    let addr = server.mqtt();
    for level in [4, 5] {
        let name = format!("slow-{level}");
        Client::lasting(addr, level, &name, false).subscribe("queue/#", 2);
        let mut publisher = Client::clean(addr, level, "publisher");
        for n in 0..COUNT {
            publisher.start(&Publish::new(&format!("queue/{}", n % 9), n.to_string()).qos(1));
            if n % 500 == 499 {
                (0..500).for_each(|_| assert!(matches!(publisher.next(), Packet::PubAck(_))));
            }
        }
        let mut seen = HashSet::new();
        let mut parts = 0;
        while seen.len() < COUNT {
            let mut client = Client::lasting(addr, level, &name, true);
            for _ in 0..(37 + parts * 61).min(COUNT - seen.len()) {
                let publish = client.take();
                assert!(seen.insert(publish.text()), "{} twice", publish.text());
            }
            client.ping(); // all acknowledgements have been read
            client.cut();
            parts += 1;
        }
        assert!(parts > 5);
        Client::lasting(addr, level, &name, true).quiet();
    }
}

/// A client comes back with a smaller receive maximum than what it has in flight: that is sent again, in order, no more
/// at a time than it takes now [MQTT-3.3.4-9].
#[test]
fn a_smaller_window_after_the_break() {
    let server = own(2);
    let addr = server.mqtt();
    for qos in [1, 2] {
        let name = unique("smaller");
        let topic = unique("smaller");
        let mut client = Client::lasting(addr, 5, &name, false);
        client.subscribe(&topic, qos);
        let mut publisher = Client::clean(addr, 5, "publisher");
        (0..20).for_each(|n| publisher.publish(&Publish::new(&topic, n.to_string()).qos(qos)));
        (0..15).for_each(|n| assert_eq!(client.message().text(), n.to_string()));
        client.cut();
        let connect = Connect::lasting(5, &name).with(id::RECEIVE_MAXIMUM, Value::Two(4));
        let mut client = Client::open(addr, &connect);
        assert!(client.connack.present);
        let mut open = VecDeque::new();
        for n in 0..20 {
            if open.len() == 4 {
                client.quiet();
                client.acknowledge(&open.pop_front().expect("four are open"));
            }
            let seen = client.message();
            assert_eq!(seen.text(), n.to_string());
            open.push_back(seen);
        }
        open.iter().for_each(|seen| client.acknowledge(seen));
        client.quiet();
    }
}

/// One table under two paths, a client that has subscribed to both and takes one message at a time: each event comes
/// once under each path.
#[test]
fn two_paths_and_a_window_of_one() {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("two-paths-app");
    write_app(&folder, "type T @table @export(name: \"a\") { id: ID @primaryKey }");
    let config = "graphqlSchema:\n  files: '*.graphql'\njsResource:\n  files: resources.js\nrest: true\n";
    std::fs::write(folder.join("config.yaml"), config).expect("write config.yaml");
    std::fs::write(folder.join("resources.js"), "export const b = tables.T;\n").expect("write resources.js");
    let server = Server::start(Options { app: Some(folder), ..Options::default() });
    let addr = server.mqtt();
    for qos in [1, 2] {
        let name = unique("both");
        let connect = Connect::lasting(5, &name).with(id::RECEIVE_MAXIMUM, Value::Two(1));
        let mut client = Client::open(addr, &connect);
        client.subscribe("a/#", qos);
        client.subscribe("b/#", qos);
        let mut publisher = Client::clean(addr, 5, "publisher");
        (0..10).for_each(|n| publisher.publish(&Publish::new("a/x", n.to_string()).qos(qos)));
        let mut seen = Vec::new();
        for n in 0..20 {
            if n == 7 {
                client.ping();
                client.cut();
                client = Client::open(addr, &connect);
            }
            let publish = client.take();
            seen.push((publish.text(), publish.topic));
        }
        client.quiet();
        let wanted = |path: &str| (0..10).map(|n: usize| (n.to_string(), format!("{path}/x"))).collect::<Vec<_>>();
        for path in ["a", "b"] {
            let own: Vec<_> = seen.iter().filter(|(_, topic)| topic.starts_with(path)).cloned().collect();
            assert_eq!(own, wanted(path));
        }
    }
}

/// A subscription that is made again before its retained messages have come: none of them is missing, whatever the
/// retain handling (but 2).
#[test]
fn subscribed_again_in_the_middle() {
    const COUNT: usize = 3000;
    let server = own(2);
    let addr = server.mqtt();
    let mut publisher = Client::clean(addr, 5, "publisher");
    for n in 0..COUNT {
        publisher.start(&Publish::new(&format!("again/{n}"), "state").qos(1).retain());
        if n % 500 == 499 {
            (0..500).for_each(|_| assert!(matches!(publisher.next(), Packet::PubAck(_))));
        }
    }
    for handling in [0, 1] {
        let connect = Connect::clean(5, "again").with(id::RECEIVE_MAXIMUM, Value::Two(10));
        let mut client = Client::open(addr, &connect);
        let mut topics = HashSet::new();
        client.subscribe("again/#", 1 | handling << 4);
        (0..25).for_each(|_| assert!(topics.insert(client.take().topic)));
        client.subscribe("again/#", 1 | handling << 4);
        while topics.len() < COUNT {
            topics.insert(client.take().topic);
        }
    }
}

/// A live query beside a subscription whose window is always full: each event comes once for either, the query's with
/// its identifier; and a client that does not want to hear itself does not.
#[test]
fn a_live_query_beside_a_full_window() {
    const COUNT: usize = 30;
    let server = own(2);
    let addr = server.mqtt();
    let live = |filter: &str, options: u8, number: u32| {
        let query = Value::Pair("query".into(), "n=gt=5".into());
        let properties = Properties(vec![(id::SUBSCRIPTION, Value::Variable(number)), (id::USER, query)]);
        subscribe(5, 9, &properties, &[(filter, options)])
    };
    let mut client = Client::open(addr, &Connect::clean(5, "both").with(id::RECEIVE_MAXIMUM, Value::Two(1)));
    client.subscribe("both/#", 1);
    client.send(&live("both/+", 1, 7));
    assert_eq!(client.sub_ack(9).codes, [0], "live queries are granted QoS 0");
    let mut deaf = Client::clean(addr, 5, "deaf");
    deaf.send(&live("both/+", NO_LOCAL, 8));
    assert_eq!(deaf.sub_ack(9).codes, [0]);
    deaf.publish(&Publish::new("both/own", "{\"n\":9}").qos(1));
    let mut publisher = Client::clean(addr, 5, "publisher");
    for n in 0..COUNT {
        let payload = format!("{{\"n\":{}}}", 10 * (n % 2));
        publisher.publish(&Publish::new(&format!("both/{n}"), payload).qos(1).retain());
    }
    let (mut queried, mut plain) = (Vec::new(), Vec::new());
    while queried.len() < COUNT / 2 + 1 || plain.len() < COUNT + 1 {
        let seen = client.message();
        if seen.qos == 0 {
            assert_eq!(seen.properties.number(id::SUBSCRIPTION), Some(7));
            queried.push(seen.topic);
        } else {
            client.acknowledge(&seen);
            plain.push(seen.topic);
        }
    }
    client.quiet();
    for (seen, count) in [(&queried, COUNT / 2 + 1), (&plain, COUNT + 1)] {
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), count, "{seen:?}");
    }
    for _ in 0..COUNT / 2 {
        let seen = deaf.message();
        assert_eq!((seen.properties.number(id::SUBSCRIPTION), seen.topic == "both/own"), (Some(8), false));
    }
    deaf.quiet();
}
