//! Properties of PUBLISH: what a publisher says arrives as it was said.

use crate::both::{anyone, fatal, publish, stored, watch};
use crate::client::Client;
use crate::rig::{shared, unique};
use crate::wire::{Packet, Properties, Publish, Value, ack, binary, id, packet, variable};
use std::thread::sleep;
use std::time::Duration;

/// A property arrives at live, late and offline subscribers alike.
#[track_caller]
fn unaltered(property: u8, values: &[Value]) {
    for value in values {
        let (topic, name) = (unique("property"), unique("property"));
        let mut live = [0, 1, 2].map(|qos| watch(5, &topic, qos));
        crate::both::sleeper(shared(5), 5, &name, &topic, 1);
        publish(5, Publish::new(&topic, "text").qos(2).retain().with(property, value.clone()));
        let late = stored(5, &topic).expect("it was retained");
        let away = Client::lasting(shared(5), 5, &name, true).take();
        for seen in live.iter_mut().map(|client| client.take()).chain([late, away]) {
            // Payload format indicator 0 says the same as none (3.3.2.3.2).
            let none = (property, value) == (id::PAYLOAD_FORMAT, &Value::Byte(0)) && seen.properties.0.is_empty();
            assert!(none || seen.properties.0 == [(property, value.clone())], "{value:?} became {seen:?}");
            assert_eq!(seen.text(), "text");
        }
    }
    // Without it, there is none.
    let topic = unique("property");
    let mut live = watch(5, &topic, 1);
    publish(5, Publish::new(&topic, "text").qos(1));
    assert_eq!(live.take().properties.get(property), None);
}

pub fn payload_format() {
    unaltered(id::PAYLOAD_FORMAT, &[Value::Byte(0), Value::Byte(1)]);
    let bytes = Publish::new("a", "x").with(id::PAYLOAD_FORMAT, Value::Byte(2)).bytes(5);
    fatal(5, "payload format indicator 2", &bytes, &[0x81, 0x82]);
}

pub fn content_type() {
    let values = ["text/plain", "", "no type at all", "\u{feff}\u{1f600}", "application/octet-stream"];
    unaltered(id::CONTENT_TYPE, &values.map(|text| Value::Text(text.into())));
}

pub fn response_topic() {
    let values = ["a", "a/b", "/", "$SYS/answer", "with space/\u{e9}"];
    unaltered(id::RESPONSE_TOPIC, &values.map(|text| Value::Text(text.into())));
}

pub fn correlation_data() {
    let values = [vec![], vec![0], vec![0xff, 0xfe, 0, 1], (0..=255).collect(), vec![7; 5000]];
    unaltered(id::CORRELATION, &values.map(Value::Binary));
}

const PAIRS: [(&str, &str); 7] =
    [("b", "1"), ("a", "2"), ("b", "1"), ("b", "0"), ("", ""), ("\u{e9}", "\u{feff}x"), ("format", "no format")];

#[track_caller]
fn user_properties(pairs: &[(&str, &str)]) {
    let topic = unique("user");
    let mut live = watch(5, &topic, 1);
    let sent =
        pairs.iter().fold(Publish::new(&topic, "text").qos(1).retain(), |sent, (name, value)| sent.user(name, value));
    publish(5, sent);
    assert_eq!(live.take().properties.user(), pairs);
    assert_eq!(stored(5, &topic).expect("it was retained").properties.user(), pairs);
}

pub fn user_properties_unaltered() {
    for pair in PAIRS {
        user_properties(&[pair]);
    }
    user_properties(&[("long", &"x".repeat(10_000))]);
}

pub fn user_properties_in_order() {
    user_properties(&PAIRS);
    let many: Vec<(String, String)> = (0..200).map(|n| (format!("{}", n * 37 % 101), n.to_string())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    user_properties(&many);
}

/// A string that is not UTF-8 in this property.
#[track_caller]
fn must_be_utf8(what: &str, first: u8, head: &[u8], properties: &[u8], tail: &[u8]) {
    let rest = [head, &variable(properties.len()), properties, tail].concat();
    fatal(5, what, &packet(first, &rest), &[0x81, 0x82]);
}

pub fn text_is_utf8(property: u8) {
    for bad in [&b"\xff"[..], b"\xed\xa0\x80", b"a\0b"] {
        let list = [&[property][..], &binary(bad)].concat();
        must_be_utf8(&format!("property {property}"), 0x30, &binary("a"), &list, b"x");
    }
}

/// Both strings of a pair, in every packet that may have one.
pub fn pairs_are_utf8() {
    for (name, value) in [(&b"\xff"[..], &b"x"[..]), (b"x", b"\xff"), (b"\0", b"x"), (b"x", b"\0")] {
        let list = [&[id::USER][..], &binary(name), &binary(value)].concat();
        must_be_utf8("a pair in PUBLISH", 0x30, &binary("a"), &list, b"x");
        must_be_utf8("a pair in SUBSCRIBE", 0x82, &[0, 1], &list, &[&binary("a")[..], &[0]].concat());
        must_be_utf8("a pair in UNSUBSCRIBE", 0xa2, &[0, 1], &list, &binary("a"));
        must_be_utf8("a pair in PUBACK", 0x40, &[0, 1, 0], &list, &[]);
        must_be_utf8("a pair in DISCONNECT", 0xe0, &[0], &list, &[]);
    }
}

pub fn response_topic_without_wildcards() {
    for topic in ["#", "a/+", "+", "a#"] {
        let bytes = Publish::new("a", "x").qos(1).id(1).with(id::RESPONSE_TOPIC, Value::Text(topic.into())).bytes(5);
        fatal(5, &format!("response topic {topic}"), &bytes, &[0x81, 0x82, 0x90]);
    }
}

/// What has waited longer than its interval is not delivered any more, retained or queued.
pub fn expired_messages_are_deleted() {
    let (topic, name) = (unique("expiry"), unique("expiry"));
    crate::both::sleeper(shared(5), 5, &name, &topic, 1);
    for (text, seconds) in [("gone", 1), ("there", 100), ("gone too", 1)] {
        publish(5, Publish::new(&topic, text).qos(1).with(id::MESSAGE_EXPIRY, Value::Four(seconds)));
    }
    let retained = unique("expiry");
    publish(5, Publish::new(&retained, "gone").qos(1).retain().with(id::MESSAGE_EXPIRY, Value::Four(1)));
    assert_eq!(stored(5, &retained).expect("still retained").text(), "gone");
    sleep(Duration::from_millis(2200));
    assert_eq!(stored(5, &retained), None);
    let mut client = Client::lasting(shared(5), 5, &name, true);
    assert_eq!(client.take().text(), "there");
    client.quiet();
}

/// The interval that goes out is what is left of it.
pub fn remaining_interval() {
    let (topic, name) = (unique("expiry"), unique("expiry"));
    crate::both::sleeper(shared(5), 5, &name, &topic, 1);
    let mut live = watch(5, &topic, 1);
    publish(5, Publish::new(&topic, "text").qos(1).retain().with(id::MESSAGE_EXPIRY, Value::Four(100)));
    let now = live.take().properties.number(id::MESSAGE_EXPIRY);
    assert!(now.is_some_and(|seconds| (98..=100).contains(&seconds)), "{now:?}");
    sleep(Duration::from_millis(2300));
    let late = stored(5, &topic).expect("it was retained");
    for seen in [late, Client::lasting(shared(5), 5, &name, true).take()] {
        let left = seen.properties.number(id::MESSAGE_EXPIRY);
        assert!(left.is_some_and(|seconds| (90..=98).contains(&seconds)), "{left:?} are left: {seen:?}");
    }
    publish(5, Publish::new(&topic, "for ever").qos(1));
    assert_eq!(live.take().properties.get(id::MESSAGE_EXPIRY), None);
}

/// A message that has been sent once does not expire: its exchange is brought to its end.
pub fn no_expiry_once_sent() {
    let (topic, name) = (unique("expiry"), unique("expiry"));
    let mut client = Client::lasting(shared(5), 5, &name, false);
    client.subscribe(&topic, 2);
    publish(5, Publish::new(&topic, "begun").qos(2).with(id::MESSAGE_EXPIRY, Value::Four(1)));
    let begun = client.message();
    client.cut();
    sleep(Duration::from_millis(2200));
    let mut client = Client::lasting(shared(5), 5, &name, true);
    let again = client.message();
    assert_eq!((again.text(), again.id, again.dup), ("begun".into(), begun.id, true));
    client.acknowledge(&again);
    client.quiet();
}

pub fn exchange_goes_on_after_expiry() {
    let topic = unique("expiry");
    let mut client = anyone(5);
    client.send(&Publish::new(&topic, "x").qos(2).id(5).with(id::MESSAGE_EXPIRY, Value::Four(1)).bytes(5));
    assert!(client.ack(5, 5).code() < 0x80);
    sleep(Duration::from_millis(1700));
    client.send(&ack(0x62, 5));
    assert_eq!(client.ack(7, 5).code(), 0);
    client.publish(&Publish::new(&topic, "x").qos(2).id(5));
}

/// A list of properties that is empty still has its length.
pub fn empty_list_has_a_length() {
    let mut client = anyone(5);
    client.subscribe("empty/list", 0);
    client.send(&Publish::new("empty/list", "x").bytes(5));
    let seen = client.message();
    assert_eq!((seen.properties, seen.payload), (Properties::default(), b"x".to_vec()));
    assert_eq!(client.length, 2 + 2 + 10 + 1 + 1);
    fatal(5, "PUBLISH without a list", &packet(0x30, &binary("a")), &[0x81, 0x82]);
    let longer = [&binary("a")[..], &[5, id::PAYLOAD_FORMAT, 1]].concat();
    fatal(5, "a list longer than the packet", &packet(0x30, &longer), &[0x81, 0x82]);
}

/// The reader of these tests refuses longer forms: here it reads lengths at every border.
pub fn shortest_integers() {
    let topic = unique("length");
    let mut watcher = watch(5, &topic, 0);
    let mut client = anyone(5);
    for border in [127, 128, 16_383, 16_384, 200_000] {
        let head = 2 + topic.len() + 1;
        for length in [border - 1, border, border + 1] {
            let payload = vec![b'x'; length - head];
            client.send(&Publish::new(&topic, &payload).bytes(5));
            assert_eq!(watcher.message().payload.len(), payload.len());
        }
        let long = "x".repeat(border.min(60_000));
        client.send(&Publish::new(&topic, "x").user("long", &long).bytes(5));
        assert_eq!(watcher.message().properties.user(), [("long", &long[..])]);
    }
    for number in [1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455] {
        let topic = unique("length");
        let mut numbered = anyone(5);
        numbered.subscribe_as(number, &topic, 1);
        publish(5, Publish::new(&topic, "x").qos(1));
        assert_eq!(numbered.take().properties.subscriptions(), [number]);
    }
}

/// A PUBLISH of a client has no subscription identifier.
pub fn no_subscription_identifier_from_a_client() {
    let bytes = Publish::new("a", "x").qos(1).id(1).with(id::SUBSCRIPTION, Value::Variable(1)).bytes(5);
    fatal(5, "a subscription identifier", &bytes, &[0x81, 0x82]);
}

/// What is retained keeps its properties, and a later message brings none of them.
pub fn replaced_with_its_properties() {
    let topic = unique("replace");
    publish(
        5,
        Publish::new(&topic, "one").qos(1).retain().user("a", "1").with(id::CONTENT_TYPE, Value::Text("x".into())),
    );
    publish(5, Publish::new(&topic, "two").qos(1).retain().user("b", "2"));
    let seen = stored(5, &topic).expect("it was retained");
    assert_eq!((seen.text(), seen.properties.user(), seen.properties.0.len()), ("two".into(), vec![("b", "2")], 1));
    let mut client = anyone(5);
    client.start(&Publish::new(&topic, "").qos(1).retain());
    assert!(matches!(client.next(), Packet::PubAck(_)));
    assert_eq!(stored(5, &topic), None);
}
