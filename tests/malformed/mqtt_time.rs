//! MQTT where time or another connection plays a part: deadlines, takeover and wills.

use crate::Bystander;
use crate::common::wire::{Mqtt, connect, connect_as, no_properties, packet, text};
use crate::common::{Connection, Options, PATIENCE};
use std::time::{Duration, Instant};

/// Reads to the end: what came last, and when the end was.
fn ended(mut mqtt: Mqtt, since: Instant) -> (Option<(u8, Vec<u8>)>, Duration) {
    mqtt.connection.within(PATIENCE);
    let mut last = None;
    while let Ok(packet) = mqtt.next() {
        last = Some(packet);
    }
    assert!(since.elapsed() < PATIENCE, "the server did not close");
    (last, since.elapsed())
}

fn open(bystander: &Bystander, level: u8, keep_alive: u16, flags: u8, rest: &[u8]) -> Mqtt {
    let mut mqtt = Mqtt { connection: Connection::open(bystander.server.mqtt()), level };
    let body = [&no_properties(level)[..], rest].concat();
    mqtt.connection.send(&connect(level, flags, keep_alive, &body));
    let (first, body) = mqtt.expect();
    assert_eq!((first, body[1]), (0x20, 0));
    mqtt
}

/// CONNECT's flags and payload for a will on `Sensors/<key>`.
fn will(level: u8, client_id: &str, key: &str, retain: bool) -> (u8, Vec<u8>) {
    let topic = text(format!("Sensors/{key}"));
    let payload = text(format!("{{\"gone\":\"{client_id}\"}}"));
    (if retain { 0x26 } else { 0x06 }, [text(client_id), no_properties(level), topic, payload].concat())
}

#[test]
fn keep_alive_ends_at_one_and_a_half() {
    let mut bystander = Bystander::new(Options::default());
    let mut waiting = Vec::new();
    for level in [4, 5] {
        let mut mqtt = open(&bystander, level, 1, 2, &text(format!("silent-{level}")));
        mqtt.ping();
        waiting.push((level, mqtt, Instant::now()));
    }
    for (level, mqtt, since) in waiting {
        let (last, after) = ended(mqtt, since);
        // [MQTT-3.1.2-22]; the second is read after the first, so only the first's upper bound is tight.
        assert!(after >= Duration::from_millis(1400), "level {level} was closed after {after:?}");
        assert!(after <= Duration::from_millis(2500), "level {level} was closed after {after:?}");
        match last {
            None => assert_eq!(level, 4),
            Some((first, body)) => assert_eq!((level, first, body[0]), (5, 0xe0, 0x8d)),
        }
    }
    // Packets keep it alive for longer than that; so do PUBLISHes without a PINGREQ.
    let mut mqtt = open(&bystander, 4, 1, 2, &text("lively"));
    let since = Instant::now();
    let mut id = 0;
    while since.elapsed() < Duration::from_millis(2200) {
        std::thread::sleep(Duration::from_millis(300)); // the client's own pace
        id += 1;
        mqtt.put("Sensors/lively", b"{}", id);
    }
    mqtt.ping();
    bystander.check();
}

#[test]
fn connect_must_come_within_five_seconds() {
    let mut bystander = Bystander::new(Options::default());
    let whole = connect_as(4, "late");
    let mut waiting = Vec::new();
    for length in [0, 1, whole.len() - 1] {
        let mut mqtt = Mqtt { connection: Connection::open(bystander.server.mqtt()), level: 4 };
        mqtt.connection.send(&whole[..length]);
        waiting.push((length, mqtt, Instant::now()));
    }
    for (length, mqtt, since) in waiting {
        let (last, after) = ended(mqtt, since);
        assert_eq!(last, None);
        let bounds = Duration::from_millis(4800)..Duration::from_millis(5700);
        assert!(bounds.contains(&after), "closed after {after:?} with {length} bytes sent");
    }
    bystander.check();
}

/// [MQTT-3.1.4-3]: the newer connection has the client identifier; on four shards the two mostly live on different ones.
#[test]
fn a_client_id_is_taken_over_across_shards() {
    let mut bystander = Bystander::new(Options::default().shards(4));
    for level in [4, 5] {
        let (flags, rest) = will(level, "twice", "taken", false);
        let mut watcher = Mqtt::open(bystander.server.mqtt(), level, "watcher");
        watcher.subscribe(1, &[("Sensors/taken", 0)]);
        let mut current = open(&bystander, level, 60, flags, &rest);
        for round in 0..20 {
            let since = Instant::now();
            let next = open(&bystander, level, 60, flags, &rest);
            let (last, _) = ended(std::mem::replace(&mut current, next), since);
            match last {
                Some((first, body)) => assert_eq!((level, first, body[0]), (5, 0xe0, 0x8e), "round {round}"),
                None => assert_eq!(level, 4, "round {round}"),
            }
            // The will of a session that was taken over is published [MQTT-3.1.2-8].
            assert_eq!(watcher.expect_message().payload, br#"{"gone":"twice"}"#);
            current.ping();
        }
        current.connection.send(&[0xe0, 0]);
    }
    bystander.check();
}

#[test]
fn wills() {
    let mut bystander = Bystander::new(Options::default());
    let end_of_input: fn(&mut Mqtt) = |mqtt| {
        mqtt.connection.stream().shutdown(std::net::Shutdown::Both).expect("shut down");
    };
    let violation: fn(&mut Mqtt) = |mqtt| mqtt.connection.send(&[0xc1, 0]);
    let disconnect: fn(&mut Mqtt) = |mqtt| mqtt.connection.send(&[0xe0, 0]);
    let with_will: fn(&mut Mqtt) = |mqtt| mqtt.connection.send(&packet(0xe0, &[0x04]));
    let silence: fn(&mut Mqtt) = |_| {};
    // (name, level, keep-alive, how it ends, whether the will is published)
    let cases = [
        ("dropped", 4, 60, end_of_input, true),
        ("dropped", 5, 60, end_of_input, true),
        ("broke-the-rules", 4, 60, violation, true),
        ("broke-the-rules", 5, 60, violation, true),
        ("silent", 4, 1, silence, true),
        ("silent", 5, 1, silence, true),
        ("said-goodbye", 4, 60, disconnect, false),
        ("said-goodbye", 5, 60, disconnect, false),
        ("asked-for-the-will", 5, 60, with_will, true),
    ];
    for (name, level, keep_alive, end, published) in cases {
        let client_id = format!("{name}-{level}");
        let (flags, rest) = will(level, &client_id, &client_id, true);
        let mut watcher = Mqtt::open(bystander.server.mqtt(), 5, "watcher");
        watcher.subscribe(1, &[(&format!("Sensors/{client_id}"), 0)]);
        let mut mqtt = open(&bystander, level, keep_alive, flags, &rest);
        end(&mut mqtt);
        let (last, _) = ended(mqtt, Instant::now());
        assert!(last.is_none_or(|(first, _)| first == 0xe0), "{client_id}");
        // Ordered behind the will, had there been one: what the watcher sees first tells.
        let mut writer = Mqtt::open(bystander.server.mqtt(), 4, "writer");
        if published {
            let wanted = format!("{{\"gone\":\"{client_id}\",\"id\":\"{client_id}\"}}");
            let got: serde_json::Value = serde_json::from_slice(&watcher.expect_message().payload).expect("JSON");
            assert_eq!(got.to_string(), wanted);
        }
        writer.put(&format!("Sensors/{client_id}"), b"{\"after\":1}", 1);
        let got: serde_json::Value = serde_json::from_slice(&watcher.expect_message().payload).expect("JSON");
        assert_eq!(got["after"], 1, "{client_id}: {got}");
    }
    bystander.check();
}

/// Publishes beyond the receive maximum are version 5's fault; 3.1.1 has no such thing and is only slowed down.
#[test]
fn a_flood_of_publishes_is_answered() {
    let mut bystander = Bystander::new(Options::default());
    let mut mqtt = Mqtt::open(bystander.server.mqtt(), 4, "flood");
    let count = 5000u16;
    let mut bytes = Vec::new();
    for id in 1..=count {
        bytes.extend(crate::common::wire::publish(4, "Sensors/flood", b"{}", (1, true), id));
    }
    mqtt.connection.send(&bytes);
    for id in 1..=count {
        assert_eq!(mqtt.expect(), (0x40, id.to_be_bytes().to_vec()));
    }
    bystander.check();
}
