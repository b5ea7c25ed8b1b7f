//! SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK.

use super::{anyone, publish, watch};
use crate::client::Client;
use crate::rig::{shared, unique};
use crate::wire::{self, Packet, Properties, Publish, ack};
use std::thread;

pub fn answered(level: u8) {
    let mut client = anyone(level);
    for id in [1, 0x100, 0xffff] {
        client.send(&wire::subscribe(level, id, &Properties::default(), &[(&unique("sub"), 0)]));
        match client.next() {
            Packet::SubAck(ack) => assert_eq!((ack.id, &ack.codes[..]), (id, &[0][..])),
            other => panic!("instead of SUBACK: {other:?}"),
        }
    }
}

pub fn unsubscribe_answered(level: u8) {
    let mut client = anyone(level);
    let filter = unique("sub");
    client.subscribe(&filter, 0);
    // The second time there is nothing to unsubscribe from.
    for id in [0xffff, 0x100] {
        client.send(&wire::unsubscribe(level, id, &[&filter]));
        match client.next() {
            Packet::UnsubAck(ack) => assert_eq!(ack.id, id),
            other => panic!("instead of UNSUBACK: {other:?}"),
        }
    }
}

pub fn identifiers(level: u8) {
    answered(level);
    unsubscribe_answered(level);
}

pub fn wildcards_work(level: u8) {
    let place = unique("wild");
    let mut client = anyone(level);
    let filters = [format!("{place}/#"), format!("y{place}/+/x"), format!("+/{place}")];
    let asked: Vec<(&str, u8)> = filters.iter().map(|filter| (&filter[..], 1)).collect();
    assert_eq!(client.try_subscribe(&asked), [1, 1, 1]);
    publish(level, Publish::new(&format!("{place}/a/x"), "inside").qos(1));
    assert_eq!(client.take().text(), "inside");
    publish(level, Publish::new(&format!("y{place}/a/x"), "between").qos(1));
    assert_eq!(client.take().text(), "between");
    publish(level, Publish::new(&format!("a/{place}"), "below").qos(1));
    assert_eq!(client.take().text(), "below");
}

/// A second SUBSCRIBE for the same filter: another QoS, the retained messages again, and nothing twice or lost.
pub fn replaced(level: u8) {
    let topic = unique("replace");
    publish(level, Publish::new(&topic, "retained").qos(1).retain());
    let mut client = anyone(level);
    for qos in [2, 0, 1] {
        client.subscribe(&topic, qos);
        let seen = client.take();
        assert_eq!((seen.text(), seen.retain, seen.qos), ("retained".into(), true, qos.min(1)));
        publish(level, Publish::new(&topic, "live").qos(2));
        let seen = client.take();
        assert_eq!((seen.text(), seen.qos), ("live".into(), qos));
    }
    client.quiet();
}

/// While a subscription is replaced again and again no message is lost and none comes twice.
pub fn replaced_without_loss(level: u8) {
    const COUNT: usize = 400;
    let topic = unique("replace");
    let mut client = watch(level, &topic, 1);
    let to = topic.clone();
    let publisher = thread::spawn(move || {
        let mut publisher = anyone(level);
        for n in 0..COUNT {
            publisher.publish(&Publish::new(&to, n.to_string()).qos(1));
        }
    });
    for _ in 0..40 {
        client.subscribe(&topic, 1);
    }
    publisher.join().expect("the publisher");
    let seen = client.take_texts(COUNT);
    let wanted: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
    assert_eq!(seen, wanted);
    client.quiet();
}

/// Many filters in one SUBSCRIBE are many SUBSCRIBEs with one answer; the second of two that are alike counts.
pub fn many_filters(level: u8) {
    let place = unique("many");
    let names: Vec<String> = (0..60).map(|n| format!("{place}/{n}")).collect();
    let mut asked: Vec<(&str, u8)> = names.iter().enumerate().map(|(n, name)| (&name[..], (n % 3) as u8)).collect();
    asked.push((&names[0], 2));
    let mut client = anyone(level);
    let codes = client.try_subscribe(&asked);
    assert_eq!(codes, asked.iter().map(|(_, qos)| *qos).collect::<Vec<u8>>());
    let mut publisher = anyone(level);
    for (n, name) in names.iter().enumerate() {
        publisher.publish(&Publish::new(name, "x").qos(2));
        let seen = client.take();
        assert_eq!((&seen.topic, usize::from(seen.qos)), (name, if n == 0 { 2 } else { n % 3 }));
    }
    client.quiet();
}

/// Filters that are none: each has its place among the codes, and the others are granted.
pub fn codes_in_order(level: u8) {
    let place = unique("codes");
    let (one, two, zero) = (format!("{place}/one"), format!("{place}/two"), format!("{place}/zero"));
    let filters = [(&one[..], 1), ("a/#/b", 1), (&two[..], 2), ("a+", 0), (&zero[..], 0), ("#a", 2)];
    let no = if level == 5 { 0x8f } else { 0x80 };
    assert_eq!(anyone(level).try_subscribe(&filters), [1, no, 2, no, 0, no]);
}

pub fn granted_qos(level: u8) {
    let topic = unique("granted");
    for granted in 0..=2 {
        let mut client = watch(level, &topic, granted);
        for published in 0..=2 {
            publish(level, Publish::new(&topic, "x").qos(published));
            assert_eq!(client.take().qos, granted.min(published), "published with {published}, granted {granted}");
        }
    }
}

/// Only the very filter that was subscribed to is unsubscribed from.
pub fn compared_by_character(level: u8) {
    let place = unique("exact");
    let (filter, topic) = (format!("{place}/+"), format!("{place}/x"));
    let mut client = watch(level, &filter, 1);
    let others =
        [format!("{place}/#"), topic.clone(), filter.to_uppercase(), format!("{filter}/"), format!("/{filter}")];
    for other in &others {
        let ack = client.unsubscribe(&[other]);
        assert!(level == 4 || ack.codes == [0x11], "{other}: {ack:?}");
        publish(level, Publish::new(&topic, "still").qos(1));
        assert_eq!(client.take().text(), "still", "after {other}");
    }
    let ack = client.unsubscribe(&[&filter]);
    assert!(level == 4 || ack.codes == [0], "{ack:?}");
    publish(level, Publish::new(&topic, "no more").qos(1));
    client.quiet();
}

pub fn no_more_messages(level: u8) {
    let topic = unique("stop");
    let mut client = watch(level, &topic, 2);
    publish(level, Publish::new(&topic, "before").qos(2));
    assert_eq!(client.take().text(), "before");
    client.unsubscribe(&[&topic]);
    (0..=2).for_each(|qos| publish(level, Publish::new(&topic, "after").qos(qos)));
    client.quiet();
}

/// What the server had begun to send before UNSUBSCRIBE is brought to its end, here over a reconnect.
pub fn started_is_completed(level: u8) {
    let (id, topic) = (unique("complete"), unique("complete"));
    let mut client = Client::lasting(shared(level), level, &id, false);
    client.subscribe(&topic, 2);
    for (text, qos) in [("one", 1), ("two", 2), ("three", 2)] {
        publish(level, Publish::new(&topic, text).qos(qos));
    }
    let mut begun: Vec<Publish> = (0..3).map(|_| client.message()).collect();
    client.unsubscribe(&[&topic]);
    let two = begun.remove(begun.iter().position(|publish| publish.text() == "two").expect("it came"));
    client.send(&ack(0x50, two.id));
    assert!(matches!(client.next(), Packet::PubRel(ack) if ack.id == two.id));
    client.cut();
    let mut client = Client::lasting(shared(level), level, &id, true);
    let mut again = vec![client.next(), client.next(), client.next()];
    let released = again.iter().position(|packet| matches!(packet, Packet::PubRel(ack) if ack.id == two.id));
    again.remove(released.expect("a PUBREL for the second"));
    again.sort_by_key(|packet| matches!(packet, Packet::Publish(publish) if publish.qos == 2));
    begun.sort_by_key(|publish| publish.qos);
    assert_eq!(again, [0, 1].map(|n: usize| Packet::Publish(Publish { dup: true, ..begun[n].clone() })));
    client.send(&ack(0x70, two.id));
    begun.iter().for_each(|publish| client.acknowledge(publish));
    publish(level, Publish::new(&topic, "after").qos(2));
    client.quiet();
}

pub fn nothing_to_unsubscribe(level: u8) {
    let mut client = anyone(level);
    let ack = client.unsubscribe(&[&unique("none"), "+/none/#"]);
    assert_eq!(ack.codes, if level == 5 { vec![0x11, 0x11] } else { vec![] });
}

/// Many filters in one UNSUBSCRIBE.
pub fn unsubscribe_many(level: u8) {
    let place = unique("many");
    let names: Vec<String> = (0..10).map(|n| format!("{place}/{n}")).collect();
    let mut client = anyone(level);
    for name in &names {
        client.subscribe(name, 1);
    }
    let gone: Vec<&str> = names.iter().step_by(2).map(|name| &name[..]).chain(["never"]).collect();
    let ack = client.unsubscribe(&gone);
    assert!(level == 4 || ack.codes == [0, 0, 0, 0, 0, 0x11], "{ack:?}");
    let mut publisher = anyone(level);
    for name in &names {
        publisher.publish(&Publish::new(name, "x").qos(1));
    }
    let mut seen: Vec<String> = (0..5).map(|_| client.take().topic).collect();
    seen.sort();
    assert_eq!(seen, names.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>());
    client.quiet();
}
