//! Will delay and will properties.

use crate::both::{publish, watch, will};
use crate::client::{Client, PAUSE};
use crate::rig::{shared, unique};
use crate::wire::{Connect, Publish, Value, Will, id, packet};
use std::time::{Duration, Instant};

fn willing(name: &str, topic: &str, delay: u32, expiry: u32) -> Connect {
    let will = Will::new(topic, name).qos(1).with(id::WILL_DELAY, Value::Four(delay));
    Connect { clean: false, ..Connect::clean(5, name) }.with(id::SESSION_EXPIRY, Value::Four(expiry)).will(will)
}

/// The will comes when its delay is over or the session ends, whichever is first.
#[track_caller]
fn comes_after(watcher: &mut Client, since: Instant, least: u64, most: u64) {
    watcher.take();
    let after = since.elapsed();
    let bounds = Duration::from_millis(least)..Duration::from_millis(most);
    assert!(bounds.contains(&after), "the will came after {after:?} instead of {bounds:?}");
}

pub fn published_after_its_delay() {
    let topic = unique("delay");
    let mut watcher = watch(5, &topic, 1);
    for (delay, expiry, least, most) in [(0, 60, 0, 1500), (2, 60, 1500, 5000), (60, 1, 500, 4000), (60, 0, 0, 1500)] {
        let client = Client::open(shared(5), &willing(&unique("delay"), &topic, delay, expiry));
        let since = Instant::now();
        client.cut();
        comes_after(&mut watcher, since, least, most);
    }
    // Reason 0x04 asks for the will; it waits for its delay as well.
    let mut client = Client::open(shared(5), &willing(&unique("delay"), &topic, 1, 60));
    let since = Instant::now();
    client.send(&packet(0xe0, &[4]));
    client.closed();
    comes_after(&mut watcher, since, 500, 4000);
    // A clean start ends the session, and with it the delay.
    let name = unique("delay");
    Client::open(shared(5), &willing(&name, &topic, 60, 60)).cut();
    watcher.quiet();
    let since = Instant::now();
    Client::clean(shared(5), 5, &name).end();
    comes_after(&mut watcher, since, 0, 1500);
}

/// A client that is back in time has no will published.
pub fn not_sent_when_back_in_time() {
    let (name, topic) = (unique("back"), unique("back"));
    let mut watcher = watch(5, &topic, 1);
    let connect = willing(&name, &topic, 1, 60);
    for _ in 0..3 {
        Client::open(shared(5), &connect).cut();
    }
    let client = Client::open(shared(5), &connect);
    assert!(client.connack.present);
    std::thread::sleep(Duration::from_millis(1700));
    publish(5, Publish::new(&topic, "marker").qos(1));
    assert_eq!(watcher.take().text(), "marker");
    // The same when the old connection is taken over instead of lost.
    let second = Client::open(shared(5), &connect);
    drop(client);
    std::thread::sleep(Duration::from_millis(1700));
    publish(5, Publish::new(&topic, "marker").qos(1));
    assert_eq!(watcher.take().text(), "marker");
    second.end();
    std::thread::sleep(PAUSE);
    watcher.quiet();
}

pub fn removed_from_session() {
    will::removed_from_session(5);
    // Discarded by a DISCONNECT while the delay would have been running.
    let (name, topic) = (unique("removed"), unique("removed"));
    let mut watcher = watch(5, &topic, 1);
    let connect = willing(&name, &topic, 1, 60);
    Client::open(shared(5), &connect).end();
    std::thread::sleep(Duration::from_millis(1700));
    publish(5, Publish::new(&topic, "marker").qos(1));
    assert_eq!(watcher.take().text(), "marker");
}

/// Every property of a will is that of the message.
pub fn properties_in_order() {
    let topic = unique("properties");
    let mut watcher = watch(5, &topic, 1);
    let pair = |a: &str, b: &str| Value::Pair(a.into(), b.into());
    let will = Will::new(&topic, "text")
        .qos(1)
        .with(id::PAYLOAD_FORMAT, Value::Byte(1))
        .with(id::MESSAGE_EXPIRY, Value::Four(100))
        .with(id::CONTENT_TYPE, Value::Text("text/plain".into()))
        .with(id::RESPONSE_TOPIC, Value::Text("answer/here".into()))
        .with(id::CORRELATION, Value::Binary(vec![0, 0xff, 1]))
        .with(id::USER, pair("z", "1"))
        .with(id::USER, pair("a", "2"))
        .with(id::USER, pair("z", "1"))
        .with(id::USER, pair("", ""));
    will::dies_with(5, will);
    let seen = watcher.take();
    let properties = &seen.properties;
    assert_eq!(properties.user(), [("z", "1"), ("a", "2"), ("z", "1"), ("", "")]);
    assert_eq!(properties.number(id::PAYLOAD_FORMAT), Some(1));
    assert!(properties.number(id::MESSAGE_EXPIRY).is_some_and(|seconds| (95..=100).contains(&seconds)));
    assert_eq!(properties.text(id::CONTENT_TYPE), Some("text/plain"));
    assert_eq!(properties.text(id::RESPONSE_TOPIC), Some("answer/here"));
    assert_eq!(properties.get(id::CORRELATION), Some(&Value::Binary(vec![0, 0xff, 1])));
    assert_eq!(properties.get(id::WILL_DELAY), None);
    assert_eq!((seen.text(), seen.retain), ("text".into(), false));
}

/// Only reason 0x00 discards it.
pub fn discarded_by_normal_disconnect_only() {
    will::discarded_by_disconnect(5);
    let topic = unique("reasons");
    let mut watcher = watch(5, &topic, 1);
    for code in [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        let will = Will::new(&topic, format!("{code:02x}").as_str()).qos(1);
        let mut client = Client::open(shared(5), &Connect::clean(5, &unique("reasons")).will(will));
        client.send(&packet(0xe0, &[code]));
        assert_eq!(client.closed(), []);
        assert_eq!(watcher.take().text(), format!("{code:02x}"));
    }
}
