//! Topic names and filters: what is one, and which match.

use super::{anyone, publish, stored, watch};
use crate::client::{Client, Gone};
use crate::common::PATIENCE;
use crate::rig::{own, unique};
use crate::wire::{Packet, Properties, Publish, subscribe};

/// A filter that is none: its code says so, or the connection ends.
#[track_caller]
pub fn filter_refused(level: u8, filter: &str) {
    let mut client = anyone(level);
    client.send(&subscribe(level, 5, &Properties::default(), &[(filter, 0)]));
    match client.next_within(PATIENCE) {
        Ok(Packet::SubAck(ack)) => assert_eq!(ack.codes, [if level == 5 { 0x8f } else { 0x80 }], "{filter:?}"),
        Ok(Packet::Disconnect { code, .. }) => assert!([0x81, 0x82, 0x8f].contains(&code), "{filter:?}: {code:#x}"),
        Err(Gone::Closed) if level == 4 => {}
        other => panic!("{filter:?}: {other:?}"),
    }
}

/// A topic that no client may publish to: not acknowledged as done, or the connection ends.
#[track_caller]
pub fn topic_refused(level: u8, topic: &str) {
    let mut client = anyone(level);
    client.send(&Publish::new(topic, "x").qos(1).id(5).bytes(level));
    match client.next_within(PATIENCE) {
        Ok(Packet::PubAck(ack)) if level == 5 => assert_eq!(ack.code(), 0x90, "{topic:?}"),
        Ok(Packet::Disconnect { code, .. }) => assert!([0x81, 0x82, 0x90].contains(&code), "{topic:?}: {code:#x}"),
        Err(Gone::Closed) if level == 4 => {}
        other => panic!("{topic:?}: {other:?}"),
    }
}

pub fn multi_level_wildcard(level: u8) {
    for filter in ["a#", "a/b#", "#/a", "a/#/b", "##", "a/##", "#a", "+#", "/#/"] {
        filter_refused(level, filter);
    }
    let place = unique("multi");
    // The parent is included; a sibling that only begins alike is not.
    let topics = [place.clone(), format!("{place}/"), format!("{place}/a"), format!("{place}/a/b/c")];
    let mut client = watch(level, &format!("{place}/#"), 1);
    for topic in &topics {
        publish(level, Publish::new(topic, "x").qos(1));
        assert_eq!(client.take().topic, *topic);
    }
    publish(level, Publish::new(&format!("{place}x"), "x").qos(1));
    publish(level, Publish::new(&format!("x/{place}/a"), "x").qos(1));
    client.quiet();
    let mut all = watch(level, "#", 1);
    publish(level, Publish::new(&place, "for all").qos(1));
    while all.take().text() != "for all" {}
}

pub fn single_level_wildcard(level: u8) {
    for filter in ["a+", "+a", "a/b+", "a/+b", "++", "a/++/b", "+a/b"] {
        filter_refused(level, filter);
    }
    let place = unique("single");
    let all = ["a", "b", "", "a/b", "a/", "/a", "a/b/c", "a//c", "a/x/c"];
    let cases: [(&str, &[&str]); 7] = [
        ("+", &["a", "b", ""]),
        ("a/+", &["a/b", "a/"]),
        ("+/b", &["a/b"]),
        ("+/+", &["a/b", "a/", "/a"]),
        ("/+", &["/a"]),
        ("a/+/c", &["a/b/c", "a//c", "a/x/c"]),
        ("+/+/#", &["a/b", "a/", "/a", "a/b/c", "a//c", "a/x/c"]),
    ];
    let mut publisher = anyone(level);
    for (filter, matching) in cases {
        let mut client = watch(level, &format!("{place}/{filter}"), 1);
        for topic in all {
            publisher.publish(&Publish::new(&format!("{place}/{topic}"), topic).qos(1));
        }
        let mut seen = client.take_texts(matching.len());
        seen.sort();
        let mut wanted: Vec<String> = matching.iter().map(|topic| topic.to_string()).collect();
        wanted.sort();
        assert_eq!(seen, wanted, "{filter}");
        client.quiet();
    }
}

/// Topics that begin with `$` are the server's own: wildcards at the start do not match them, and nobody publishes to
/// them, not even by another protocol.
pub fn dollar_topics(level: u8) {
    let server = own(2);
    let addr = server.mqtt();
    let mut filters = ["#", "+/x", "+/#", "+"].map(|filter| {
        let mut client = Client::clean(addr, level, &unique("wild"));
        client.subscribe(filter, 1);
        client
    });
    for topic in ["$SYS/x", "$x", "$x/x", "$share/x", "$/x"] {
        for qos in 0..=2 {
            let mut client = Client::clean(addr, level, "dollar");
            client.send(&Publish::new(topic, "x").qos(qos).id(u16::from(qos)).retain().bytes(level));
            let _ = client.try_send(&crate::wire::PINGREQ);
            let _ = client.next_within(PATIENCE);
        }
        let path = format!("/{}", topic.replace('$', "%24"));
        crate::common::put_json(server.http(), &path, &serde_json::json!({ "by": "http" }));
    }
    filters.iter_mut().for_each(Client::quiet);
    // Not in what a new subscription starts with, either.
    let mut late = Client::clean(addr, level, "late");
    late.subscribe("#", 1);
    late.quiet();
    Client::clean(addr, level, "marker").publish(&Publish::new("m/x", "marker").qos(1));
    filters[..3].iter_mut().for_each(|client| assert_eq!(client.take().text(), "marker"));
    filters[3].quiet();
}

pub fn at_least_one_character(level: u8) {
    topic_refused(level, "");
    filter_refused(level, "");
    for topic in ["/", "a", " ", "//"] {
        let mut client = anyone(level);
        assert_eq!(client.try_subscribe(&[(topic, 0)]), [0], "{topic:?}");
    }
}

/// A name is taken as it is: case, slashes, dots, escapes and Unicode forms all count.
pub fn not_normalised(level: u8) {
    let place = unique("norm");
    let names = [
        "a",
        "A",
        "/a",
        "a/",
        "//a",
        "a//",
        "a/./b",
        "a/b",
        "a//b",
        "a/../b",
        "a.b",
        "a%2Fb",
        "a%2fb",
        "a b",
        "\u{e9}",
        "e\u{301}",
        "\u{fb01}",
        "fi",
        "\u{feff}a",
        "a?b=c",
        "a\\b",
        "\u{202e}a",
        "\u{1f600}",
    ];
    let mut all = watch(level, &format!("{place}/#"), 1);
    let mut each: Vec<(String, Client)> = Vec::new();
    for name in names {
        let topic = format!("{place}/{name}");
        if !each.iter().any(|(other, _)| *other == topic) {
            let client = watch(level, &topic, 1);
            each.push((topic, client));
        }
    }
    let topics: Vec<String> = each.iter().map(|(topic, _)| topic.clone()).collect();
    for topic in &topics {
        publish(level, Publish::new(topic, topic).qos(1).retain());
        assert_eq!(all.take().topic, *topic);
    }
    for (topic, client) in &mut each {
        let seen = client.take();
        assert_eq!((&seen.topic, seen.text()), (&*topic, topic.clone()));
        client.quiet();
        assert_eq!(stored(level, topic).expect("it was retained").text(), *topic);
    }
}

/// `/a` and `a` are two topics, with and without a table's name before them.
pub fn leading_slash(level: u8) {
    let name = unique("slash");
    let mut with = watch(level, &format!("/{name}"), 1);
    let mut without = watch(level, &name, 1);
    let mut below = watch(level, &format!("+/{name}"), 1);
    publish(level, Publish::new(&name, "without").qos(1).retain());
    publish(level, Publish::new(&format!("/{name}"), "with").qos(1).retain());
    assert_eq!(with.take().topic, format!("/{name}"));
    assert_eq!(without.take().topic, name);
    assert_eq!(below.take().topic, format!("/{name}"));
    [with, without, below].iter_mut().for_each(Client::quiet);
    assert_eq!(stored(level, &name).expect("it was retained").text(), "without");
    assert_eq!(stored(level, &format!("/{name}")).expect("it was retained").text(), "with");
}

/// The longest topic that can be written at all comes whole or is refused, and so does every shorter one.
pub fn longest_topic(level: u8) {
    let place = unique("long");
    for bytes in [100, 1000, 1900, 2049, 10_000, 65_535] {
        let topic = format!("{place}/{}", "x".repeat(bytes - place.len() - 1));
        let mut client = anyone(level);
        if client.try_subscribe(&[(&topic, 1)]) != [1] {
            assert!(bytes > 1900, "a filter of {bytes} bytes is refused");
            topic_refused(level, &topic);
            continue;
        }
        publish(level, Publish::new(&topic, "text").qos(1));
        assert_eq!(client.take().topic, topic);
    }
}
