//! Subscription options, subscription identifiers, shared subscriptions.

use crate::both::topics::filter_refused;
use crate::both::{anyone, fatal, publish, subscribe as both, watch};
use crate::client::Client;
use crate::rig::{shared, unique};
use crate::wire::{
    Connect, NO_LOCAL, Packet, Properties, Publish, RETAIN_AS_PUBLISHED, RETAIN_IF_NEW, RETAIN_NEVER, Value, ack,
    ack_with, id, subscribe,
};

/// A client does not hear itself where it said so, but where it did not.
pub fn no_local() {
    let place = unique("local");
    let mut client = anyone(5);
    client.subscribe(&format!("{place}/+"), 1 | NO_LOCAL);
    client.subscribe(&format!("{place}/heard"), 1);
    for qos in 0..=2 {
        client.publish(&Publish::new(&format!("{place}/own"), "own").qos(qos));
        publish(5, Publish::new(&format!("{place}/own"), "other").qos(qos));
        assert_eq!(client.take().text(), "other");
        client.publish(&Publish::new(&format!("{place}/heard"), "own").qos(qos));
        assert_eq!(client.take().text(), "own");
    }
    client.quiet();
    // It is the identifier that counts, not the connection.
    let (name, topic) = (unique("local"), unique("local"));
    let mut first = Client::lasting(shared(5), 5, &name, false);
    first.subscribe(&topic, 1 | NO_LOCAL);
    first.publish(&Publish::new(&topic, "own").qos(1));
    first.end();
    publish(5, Publish::new(&topic, "other").qos(1));
    let mut second = Client::lasting(shared(5), 5, &name, true);
    assert_eq!(second.take().text(), "other");
    second.publish(&Publish::new(&topic, "own").qos(1));
    second.quiet();
}

pub fn no_local_on_shared() {
    let bytes = subscribe(5, 1, &Properties::default(), &[("$share/group/t", 1 | NO_LOCAL)]);
    fatal(5, "no local on a shared subscription", &bytes, &[0x82]);
}

/// Retain handling 0: at every SUBSCRIBE; 1: for a new subscription; 2: never.
pub fn retain_handling(handling: u8) {
    let place = unique("handling");
    let (filter, topic) = (format!("{place}/+"), format!("{place}/x"));
    publish(5, Publish::new(&topic, "retained").qos(1).retain());
    let mut client = anyone(5);
    let options = 1 | handling << 4;
    let comes = |client: &mut Client, retained: bool| {
        publish(5, Publish::new(&topic, "live").qos(1));
        let mut texts = Vec::new();
        while texts.last().is_none_or(|text| text != "live") {
            texts.push(client.take().text());
        }
        assert_eq!(texts.len() == 2, retained, "retain handling {handling}: {texts:?}");
    };
    client.subscribe(&filter, options);
    comes(&mut client, handling < 2);
    client.subscribe(&filter, options);
    comes(&mut client, handling == 0);
    client.unsubscribe(&[&filter]);
    client.subscribe(&filter, options);
    comes(&mut client, handling < 2);
    // In a session that goes on the subscription exists already.
    let name = unique("handling");
    let mut client = Client::lasting(shared(5), 5, &name, false);
    client.subscribe(&filter, options);
    comes(&mut client, handling < 2);
    client.end();
    let mut client = Client::lasting(shared(5), 5, &name, true);
    client.subscribe(&filter, options);
    comes(&mut client, handling == 0);
    assert_eq!((RETAIN_IF_NEW, RETAIN_NEVER), (1 << 4, 2 << 4));
}

pub fn retain_as_published(wanted: bool) {
    let topic = unique("published");
    let options = 1 | if wanted { RETAIN_AS_PUBLISHED } else { 0 };
    let mut client = watch(5, &topic, options);
    for retain in [true, false, true] {
        publish(5, Publish { retain, ..Publish::new(&topic, "live").qos(1) });
        assert_eq!(client.take().retain, retain && wanted);
    }
    // An empty message that removes the retained one.
    publish(5, Publish::new(&topic, "").qos(1).retain());
    let seen = client.take();
    assert_eq!((seen.retain, seen.payload.len()), (wanted, 0));
    // What a new subscription starts with is retained either way.
    publish(5, Publish::new(&topic, "kept").qos(1).retain());
    assert_eq!(client.take().retain, wanted);
    assert!(watch(5, &topic, options).take().retain);
}

/// Offline messages keep the flag as well.
pub fn retain_as_published_offline() {
    let (name, topic) = (unique("published"), unique("published"));
    let mut client = Client::lasting(shared(5), 5, &name, false);
    client.subscribe(&topic, 1 | RETAIN_AS_PUBLISHED | RETAIN_NEVER);
    client.end();
    for retain in [true, false] {
        publish(5, Publish { retain, ..Publish::new(&topic, "away").qos(1) });
    }
    let mut client = Client::lasting(shared(5), 5, &name, true);
    assert_eq!([client.take().retain, client.take().retain], [true, false]);
}

/// One message for overlapping subscriptions, with the identifiers of all that have one.
pub fn identifiers_of_overlapping() {
    let place = unique("numbers");
    let leaf = unique("leaf");
    let topic = format!("{place}/{leaf}");
    let mut client = anyone(5);
    client.subscribe_as(1, &topic, 0);
    client.subscribe_as(268_435_455, &format!("{place}/#"), 2);
    client.subscribe_as(7, &format!("{place}/+"), 1);
    client.subscribe(&format!("+/{leaf}"), 1);
    for qos in 0..=2 {
        publish(5, Publish::new(&topic, "x").qos(qos));
        let seen = client.take();
        assert_eq!((seen.qos, seen.properties.subscriptions()), (qos, vec![1, 7, 268_435_455]));
    }
    client.unsubscribe(&[&format!("{place}/+")]);
    client.subscribe_as(9, &topic, 0); // a new identifier for the same filter
    publish(5, Publish::new(&topic, "x").qos(1));
    assert_eq!(client.take().properties.subscriptions(), [9, 268_435_455]);
    client.subscribe(&topic, 0); // and none
    publish(5, Publish::new(&topic, "x").qos(1));
    assert_eq!(client.take().properties.subscriptions(), [268_435_455]);
    // Two subscriptions with the same identifier.
    let mut client = anyone(5);
    client.subscribe_as(5, &topic, 0);
    client.subscribe_as(5, &format!("{place}/#"), 0);
    publish(5, Publish::new(&topic, "x").qos(1));
    let seen = client.take();
    assert!([vec![5], vec![5, 5]].contains(&seen.properties.subscriptions()), "{seen:?}");
    client.quiet();
}

/// However many copies come, together they carry the identifiers of what matched, and no other.
pub fn identifier_of_each_copy() {
    let place = unique("copies");
    let topic = format!("{place}/x");
    let mut client = anyone(5);
    client.subscribe_as(1, &topic, 1);
    client.subscribe_as(2, &format!("{place}/#"), 1);
    client.subscribe_as(3, &format!("{place}/y"), 1);
    publish(5, Publish::new(&topic, "x").qos(1));
    let mut numbers = Vec::new();
    while numbers.len() < 2 {
        numbers.extend(client.take().properties.subscriptions());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
    client.quiet();
}

/// The identifier is there live, for retained messages, and after a night away.
pub fn identifier_is_sent() {
    let (name, topic) = (unique("number"), unique("number"));
    publish(5, Publish::new(&topic, "retained").qos(1).retain());
    let mut client = Client::lasting(shared(5), 5, &name, false);
    client.subscribe_as(42, &topic, 1);
    for text in ["retained", "live", "away"] {
        if text == "live" {
            publish(5, Publish::new(&topic, text).qos(1));
        }
        if text == "away" {
            client.ping();
            client.end();
            publish(5, Publish::new(&topic, text).qos(1));
            client = Client::lasting(shared(5), 5, &name, true);
        }
        let seen = client.take();
        assert_eq!((seen.text(), seen.properties.subscriptions()), (text.into(), vec![42]));
    }
}

pub fn replaced() {
    both::replaced(5);
    // Options are replaced too.
    let topic = unique("replace");
    let mut client = anyone(5);
    client.subscribe(&topic, 1 | NO_LOCAL);
    client.subscribe(&topic, 1);
    client.publish(&Publish::new(&topic, "own").qos(1));
    assert_eq!(client.take().text(), "own");
    client.quiet();
}

pub fn replaced_without_loss() {
    both::replaced_without_loss(5);
    let topic = unique("replace");
    publish(5, Publish::new(&topic, "retained").qos(1).retain());
    let mut client = anyone(5);
    for _ in 0..3 {
        client.subscribe(&topic, 1);
        let seen = client.take();
        assert_eq!((seen.text(), seen.retain), ("retained".into(), true));
    }
}

/// Filters of shared subscriptions that are none.
pub fn share_names() {
    for filter in ["$share", "$share/", "$share//t", "$share//", "$share/g", "$share/g/"] {
        filter_refused(5, filter);
    }
    let mut client = anyone(5);
    for filter in ["$share/g/t", "$share/g/#", "$share/g/+/t", "$share/a b/t", "$share/\u{e9}//", "$share/g/$share/t"] {
        let codes = client.try_subscribe(&[(filter, 1)]);
        // What lies below `$` may be refused.
        assert!(codes == [1] || (filter.contains("/$") && codes[0] >= 0x80), "{filter}: {codes:02x?}");
    }
}

pub fn share_names_without_wildcards() {
    for filter in ["$share/+/t", "$share/#", "$share/g+/t", "$share/g#/t", "$share/#/t", "$share/g/t#", "$share/g/+t"] {
        filter_refused(5, filter);
    }
}

/// Each message goes to one of a group, at that one's QoS, and to each group; there is no retained message.
pub fn shared_with_its_own_qos() {
    let topic = unique("shared");
    publish(5, Publish::new(&topic, "retained").qos(1).retain());
    let mut alone = anyone(5);
    alone.subscribe(&format!("$share/alone/{topic}"), 2);
    alone.quiet();
    let mut group = [0, 1, 2].map(|qos| {
        let mut client = anyone(5);
        client.subscribe(&format!("$share/group/{topic}"), qos);
        client
    });
    for n in 0..60 {
        publish(5, Publish::new(&topic, n.to_string()).qos(2));
        let seen = alone.take();
        assert_eq!((seen.text(), seen.qos), (n.to_string(), 2));
    }
    let mut all = Vec::new();
    for (qos, client) in group.iter_mut().enumerate() {
        while let Ok(packet) = client.next_within(crate::client::PAUSE) {
            let Packet::Publish(seen) = packet else { panic!("{packet:?}") };
            assert_eq!(usize::from(seen.qos), qos);
            client.acknowledge(&seen);
            all.push(seen.text().parse::<u32>().expect("a number"));
        }
    }
    all.sort_unstable();
    assert_eq!(all, (0..60).collect::<Vec<_>>(), "each message went to one of the group");
    // Who leaves gets nothing more.
    let [mut first, second, third] = group;
    second.end();
    third.cut();
    publish(5, Publish::new(&topic, "marker").qos(1));
    assert_eq!(first.take().text(), "marker");
    first.unsubscribe(&[&format!("$share/group/{topic}")]);
    publish(5, Publish::new(&topic, "nobody").qos(1));
    first.quiet();
}

/// A member with a session, which is sent a message of QoS 2 while it is alone; then another member comes.
fn begun(expiry: u32, topic: &str) -> (Connect, Client, Publish, Client) {
    let filter = format!("$share/group/{topic}");
    let connect = Connect { clean: false, ..Connect::clean(5, &unique("member")) };
    let connect = connect.with(id::SESSION_EXPIRY, Value::Four(expiry));
    let mut first = Client::open(shared(5), &connect);
    first.subscribe(&filter, 2);
    publish(5, Publish::new(topic, "begun").qos(2));
    let sent = first.message();
    let mut second = anyone(5);
    second.subscribe(&filter, 2);
    (connect, first, sent, second)
}

pub fn shared_delivery_is_completed() {
    let topic = unique("shared");
    let (connect, first, sent, mut second) = begun(3600, &topic);
    first.cut();
    second.quiet();
    let mut first = Client::open(shared(5), &connect);
    assert_eq!(first.message(), Publish { dup: true, ..sent.clone() });
    first.send(&ack(0x50, sent.id));
    assert!(matches!(first.next(), Packet::PubRel(ack) if ack.id == sent.id));
    first.cut();
    let mut first = Client::open(shared(5), &connect);
    assert!(matches!(first.next(), Packet::PubRel(ack) if ack.id == sent.id));
    first.send(&ack(0x70, sent.id));
    first.quiet();
    second.quiet();
}

pub fn shared_delivery_ends_with_the_session() {
    let topic = unique("shared");
    let (connect, first, _, mut second) = begun(1, &topic);
    first.cut();
    std::thread::sleep(std::time::Duration::from_millis(2200));
    second.quiet();
    let mut first = Client::open(shared(5), &connect);
    assert!(!first.connack.present);
    first.quiet();
    publish(5, Publish::new(&topic, "next").qos(2));
    assert_eq!(second.take().text(), "next");
    second.quiet();
}

pub fn shared_refusal_is_final() {
    for (qos, first) in [(1, 0x40), (2, 0x50)] {
        let topic = unique("shared");
        let filter = format!("$share/group/{topic}");
        let mut members = [anyone(5), anyone(5)];
        members.iter_mut().for_each(|member| member.subscribe(&filter, 2));
        for n in 0..6 {
            publish(5, Publish::new(&topic, n.to_string()).qos(qos));
        }
        let mut seen = Vec::new();
        for member in &mut members {
            while let Ok(Packet::Publish(publish)) = member.next_within(crate::client::PAUSE) {
                member.send(&ack_with(first, publish.id, 0x83));
                seen.push(publish.text());
            }
        }
        seen.sort();
        assert_eq!(seen, ["0", "1", "2", "3", "4", "5"], "each once, whoever refused it");
        members.iter_mut().for_each(Client::quiet);
    }
}

/// UNSUBACK has a code for each filter, in their order.
pub fn unsuback_in_order() {
    let names = [unique("un"), unique("un"), unique("un")];
    let mut client = anyone(5);
    client.subscribe(&names[0], 0);
    client.subscribe(&names[2], 0);
    let ack = client.unsubscribe(&[&names[0], &names[1], &names[2], &names[0]]);
    assert_eq!(ack.codes, [0, 0x11, 0, 0x11]);
}
