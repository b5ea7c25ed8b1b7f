//! CONNECT, CONNACK and the session's end in MQTT 5.

use crate::both::{anyone, bytes_to_close, connect, fatal, fatal_connect, publish, refused, sleeper, stored, watch};
use crate::client::{Client, Gone};
use crate::common::PATIENCE;
use crate::rig::{own, shared, unique};
use crate::wire::{self, Connect, Packet, Properties, Publish, Value, Will, binary, id, packet};
use std::thread::sleep;
use std::time::Duration;

/// What a client that offers a protocol that is not served may get: nothing, CONNACK with 0x84, or with 3.1.1's code 1.
#[track_caller]
fn not_served(what: &str, answer: &[u8]) {
    let is_5 = answer.len() >= 5 && answer[0] == 0x20 && answer[2..4] == [0, 0x84];
    assert!(answer.is_empty() || is_5 || answer == [0x20, 2, 0, 1], "{what}: {answer:02x?}");
}

pub fn wrong_protocol_name() {
    for name in ["MQTX", "mqtt", "MQT", "MQTTT", "", "MQIsdp"] {
        not_served(name, &connect::other_protocol(5, name));
    }
}

pub fn other_versions() {
    for level in [0, 1, 2, 6, 7, 0x85, 0xff] {
        let rest = [&binary("MQTT")[..], &[level, 2, 0, 60, 0], &binary("c")].concat();
        not_served(&format!("level {level}"), &bytes_to_close(shared(5), &packet(0x10, &rest)));
    }
}

/// Clean Start discards what was there, but the new session may outlive its connection.
pub fn clean_start_discards() {
    let (name, topic) = (unique("start"), unique("start"));
    sleeper(shared(5), 5, &name, &topic, 1);
    publish(5, Publish::new(&topic, "for the old session").qos(1));
    let connect = Connect::clean(5, &name).with(id::SESSION_EXPIRY, Value::Four(3600));
    let mut client = Client::open(shared(5), &connect);
    assert!(!client.connack.present);
    client.quiet();
    publish(5, Publish::new(&topic, "nobody hears it").qos(1));
    client.quiet();
    client.subscribe(&topic, 1);
    client.end();
    publish(5, Publish::new(&topic, "for the new session").qos(1));
    let mut client = Client::lasting(shared(5), 5, &name, true);
    assert_eq!(client.take().text(), "for the new session");
}

/// A session is kept if, and as long as, its expiry interval says so; DISCONNECT may change it.
pub fn stored_if_it_may_expire_later() {
    let topic = unique("expiry");
    for (connect_with, disconnect_with, kept) in [
        (None, None, false),
        (Some(0), None, false),
        (Some(3600), None, true),
        (Some(u32::MAX), None, true),
        (Some(3600), Some(0), false),
        (Some(1), Some(3600), true),
    ] {
        let name = unique("expiry");
        let mut connect = Connect::clean(5, &name);
        if let Some(seconds) = connect_with {
            connect = connect.with(id::SESSION_EXPIRY, Value::Four(seconds));
        }
        let mut client = Client::open(shared(5), &connect);
        client.subscribe(&topic, 1);
        let mut bye = vec![0];
        if let Some(seconds) = disconnect_with {
            bye.extend(Properties(vec![(id::SESSION_EXPIRY, Value::Four(seconds))]).encode());
        }
        client.send(&packet(0xe0, &bye));
        assert_eq!(client.closed(), []);
        sleep(Duration::from_millis(1200));
        let again = Connect { clean: false, ..Connect::clean(5, &name) };
        let present = Client::open(shared(5), &again).connack.present;
        assert_eq!(present, kept, "CONNECT with {connect_with:?}, DISCONNECT with {disconnect_with:?}");
    }
    // A connection that asked for 0 cannot ask for more when it goes.
    let more = [&[0][..], &Properties(vec![(id::SESSION_EXPIRY, Value::Four(9))]).encode()].concat();
    fatal(5, "a session that is to live on after all", &packet(0xe0, &more), &[0x82]);
}

pub fn discarded_when_expired() {
    let (name, topic) = (unique("expired"), unique("expired"));
    for crash in [false, true] {
        let mut server = crash.then(|| own(2));
        let addr = server.as_ref().map_or(shared(5), |server| server.mqtt());
        let connect = Connect::clean(5, &name).with(id::SESSION_EXPIRY, Value::Four(1));
        let mut client = Client::open(addr, &connect);
        client.subscribe(&topic, 1);
        client.cut();
        let mut publisher = Client::clean(addr, 5, &unique("publisher"));
        publisher.publish(&Publish::new(&topic, "too late").qos(1));
        publisher.end();
        if let Some(server) = &mut server {
            server.kill9();
        }
        sleep(Duration::from_millis(2500));
        let addr = server.as_mut().map_or(shared(5), |server| {
            server.restart();
            server.mqtt()
        });
        let mut client = Client::open(addr, &Connect { clean: false, ..connect });
        assert!(!client.connack.present, "the session has expired (crash: {crash})");
        client.quiet();
    }
}

/// While the connection is open the session does not expire.
pub fn kept_while_connected() {
    let (name, topic) = (unique("open"), unique("open"));
    let connect = Connect::clean(5, &name).with(id::SESSION_EXPIRY, Value::Four(1));
    let mut client = Client::open(shared(5), &connect);
    client.subscribe(&topic, 1);
    sleep(Duration::from_millis(2500));
    publish(5, Publish::new(&topic, "still there").qos(1));
    assert_eq!(client.take().text(), "still there");
    client.cut();
    let client = Client::open(shared(5), &Connect { clean: false, ..connect });
    assert!(client.connack.present);
}

pub fn password_without_user_name() {
    // MQTT 5 allows it; the password is unknown here, or taken.
    match Client::try_open(shared(5), &Connect::clean(5, &unique("password")).password("secret")) {
        Ok(client) => client.end(),
        Err(Ok(connack)) => assert!([0x86, 0x87].contains(&connack.code), "{connack:?}"),
        Err(Err(gone)) => panic!("{gone:?}"),
    }
}

/// No Response Information unless it is asked for; and this server has none.
pub fn response_information() {
    for value in [None, Some(0)] {
        let mut connect = Connect::clean(5, &unique("response"));
        if let Some(value) = value {
            connect = connect.with(id::REQUEST_RESPONSE, Value::Byte(value));
        }
        let client = Client::open(shared(5), &connect);
        assert_eq!(client.connack.properties.get(id::RESPONSE_INFORMATION), None);
    }
}

/// With Request Problem Information 0 no acknowledgement carries a text.
pub fn no_problem_information() {
    let connect = Connect::clean(5, &unique("problem")).with(id::REQUEST_PROBLEM, Value::Byte(0));
    let mut client = Client::open(shared(5), &connect);
    for bytes in super::errors::provocations(&"x".repeat(40)) {
        client.send(&bytes);
        let packet = client.next();
        let properties = super::errors::properties_of(&packet).expect("an acknowledgement");
        assert_eq!(properties, &Properties::default(), "{packet:?}");
    }
}

pub fn empty_identifier_is_assigned() {
    let mut seen = Vec::new();
    for clean in [true, false] {
        for _ in 0..3 {
            let mut client = Client::open(shared(5), &Connect { clean, ..Connect::clean(5, "") });
            let assigned =
                client.connack.properties.text(id::ASSIGNED_ID).expect("an identifier is assigned").to_owned();
            assert!(!assigned.is_empty() && !client.connack.present);
            client.ping();
            seen.push((assigned, client));
        }
    }
    for (n, (assigned, _)) in seen.iter().enumerate() {
        assert!(seen[..n].iter().all(|(other, _)| other != assigned), "{assigned} twice");
    }
    let own = Client::clean(shared(5), 5, &unique("named"));
    assert_eq!(own.connack.properties.text(id::ASSIGNED_ID), None, "nothing is assigned to who has a name");
}

/// The assigned identifier is the client's from then on: its session is found under it.
pub fn assigned_identifier_is_used() {
    let topic = unique("assigned");
    let connect = Connect::lasting(5, "");
    let mut client = Client::open(shared(5), &connect);
    let assigned = client.connack.properties.text(id::ASSIGNED_ID).expect("an identifier is assigned").to_owned();
    client.subscribe(&topic, 1);
    let mut again = Client::open(shared(5), &Connect { id: assigned, ..connect });
    client.ended_with(0x8e);
    assert!(again.connack.present);
    publish(5, Publish::new(&topic, "found").qos(1));
    assert_eq!(again.take().text(), "found");
}

pub fn rejected_identifiers() {
    for name in ["+", "a#", "a/b", "$x", "\u{1f600}", &"x".repeat(2000), &"x".repeat(65_535)] {
        match Client::try_open(shared(5), &Connect::clean(5, name)) {
            Ok(client) => client.end(),
            Err(Ok(_)) => assert_eq!(refused(shared(5), &Connect::clean(5, name)).code, 0x85),
            Err(Err(gone)) => assert_eq!(gone, Gone::Closed),
        }
    }
}

/// Whoever fails authentication is not connected.
pub fn failed_checks_close() {
    let with_method = Connect::clean(5, &unique("checks")).with(id::AUTH_METHOD, Value::Text("magic".into()));
    assert!([0x8c, 0x87].contains(&refused(shared(5), &with_method).code));
    let with_user = Connect::clean(5, &unique("checks")).user("nobody").password("nothing");
    match Client::try_open(shared(5), &with_user) {
        Ok(client) => client.end(),
        Err(Ok(_)) => assert!([0x86, 0x87].contains(&refused(shared(5), &with_user).code)),
        Err(Err(gone)) => assert_eq!(gone, Gone::Closed),
    }
}

pub fn refused_is_not_read() {
    let with_method = Connect::clean(5, &unique("refused")).with(id::AUTH_METHOD, Value::Text("magic".into()));
    connect::refused_is_not_read(5, &with_method);
}

pub fn one_connack() {
    let mut client = anyone(5);
    let again = Connect::clean(5, &unique("one")).bytes();
    client.send(&[again.clone(), again].concat());
    client.ended_with(0x82);
}

pub fn flags_of_connack() {
    let name = unique("flags");
    for (connect, flags) in
        [(Connect::lasting(5, &name), 0), (Connect::lasting(5, &name), 1), (Connect::clean(5, &name), 0)]
    {
        let mut client = Client::raw(shared(5), 5);
        client.send(&connect.bytes());
        let bytes = client.connection.within(PATIENCE).ahead(4).expect("CONNACK").to_vec();
        let at = 2 + usize::from(bytes[1] & 0x80 != 0);
        assert_eq!((bytes[0], bytes[at]), (0x20, flags));
    }
}

pub fn session_present_of_clean() {
    let name = unique("present");
    sleeper(shared(5), 5, &name, "present/x", 1);
    for _ in 0..2 {
        let connect = Connect { clean: true, ..Connect::lasting(5, &name) };
        let client = Client::open(shared(5), &connect);
        assert_eq!((client.connack.present, client.connack.code), (false, 0));
        client.end();
    }
}

pub fn session_present_of_refusal() {
    let name = unique("present");
    sleeper(shared(5), 5, &name, "present/x", 1);
    refused(shared(5), &Connect::lasting(5, &name).with(id::AUTH_METHOD, Value::Text("magic".into())));
    let bad = Connect::lasting(5, &name);
    fatal_connect(5, "the reserved flag", &bad.bytes_with(1, &bad.payload()), &[0x81]);
    Client::lasting(shared(5), 5, &name, true).end();
}

/// Refusals of several kinds; the reader of these tests knows the codes of CONNACK.
pub fn codes_of_connack() {
    let connect = Connect::clean(5, &unique("codes"));
    let mut refusals = vec![
        connect.clone().with(id::AUTH_METHOD, Value::Text("magic".into())).bytes(),
        connect.clone().with(id::RECEIVE_MAXIMUM, Value::Two(0)).bytes(),
        connect.clone().with(id::MAXIMUM_PACKET, Value::Four(0)).bytes(),
        connect.clone().with(id::REQUEST_PROBLEM, Value::Byte(2)).bytes(),
        connect.clone().with(id::AUTH_DATA, Value::Binary(vec![1])).bytes(),
        connect.bytes_with(3, &connect.payload()),
        connect.clone().will(Will::new("a/#", "x")).bytes(),
        connect.clone().will(Will::new("", "x")).bytes(),
    ];
    refusals.push(connect.clone().with(id::CONTENT_TYPE, Value::Text("x".into())).bytes());
    for bytes in refusals {
        let mut client = Client::raw(shared(5), 5);
        client.send(&bytes);
        match &client.closed()[..] {
            [Packet::ConnAck(connack)] => assert!(connack.code >= 0x80 && !connack.present, "{connack:?}"),
            seen => panic!("{bytes:02x?} was answered with {seen:?}"),
        }
    }
    assert_eq!(anyone(5).connack.code, 0);
}

pub fn refusal_closes() {
    let with_method = Connect::clean(5, &unique("refusal")).with(id::AUTH_METHOD, Value::Text("magic".into()));
    refused(shared(5), &with_method);
    let connect = Connect::clean(5, &unique("refusal"));
    fatal_connect(5, "no identifier", &connect.bytes_with(2, &[]), &[0x81, 0x82]);
}

/// Every QoS is supported, and so there is no Maximum QoS.
pub fn maximum_qos() {
    let client = anyone(5);
    assert_eq!(client.connack.properties.get(id::MAXIMUM_QOS), None);
    let topic = unique("maximum");
    let mut watcher = watch(5, &topic, 2);
    for qos in 0..=2 {
        publish(5, Publish::new(&topic, "x").qos(qos));
        assert_eq!(watcher.take().qos, qos);
    }
}

pub fn every_requested_qos_is_accepted() {
    let codes = anyone(5).try_subscribe(&[("qos/0", 0), ("qos/1", 1), ("qos/2", 2)]);
    assert_eq!(codes, [0, 1, 2]);
}

/// The largest packet that the server takes, and one byte more.
pub fn packet_too_large() {
    let mut client = anyone(5);
    let largest = client.connack.properties.number(id::MAXIMUM_PACKET).expect("this server has a limit") as usize;
    let topic = unique("large");
    let of = |bytes: usize| {
        let head = Publish::new(&topic, "").qos(1).id(1).bytes(5).len() - 2;
        let publish = Publish::new(&topic, vec![b'x'; bytes - head - 4]).qos(1).id(1).bytes(5);
        assert_eq!(publish.len(), bytes);
        publish
    };
    client.send(&of(largest));
    assert!(client.ack(4, 1).code() < 0x80);
    let _ = client.try_send(&of(largest + 1));
    client.ended_with(0x95);
}

/// A refusal has a text only where it fits.
pub fn connack_within_its_limit(property: u8) {
    let connect = Connect::clean(5, &unique("limit")).with(id::AUTH_METHOD, Value::Text("magic".repeat(50)));
    for limit in [5, 8, 20, 40, 100, 1000] {
        let connack = refused(shared(5), &connect.clone().with(id::MAXIMUM_PACKET, Value::Four(limit)));
        let bytes = 4 + connack.properties.encode().len();
        assert!(bytes <= limit as usize, "{bytes} bytes of {limit}: {connack:?}");
        assert!(property != id::USER || connack.properties.user().is_empty(), "{connack:?}");
    }
}

/// The server changes keep-alives it does not want, and takes the others as they are.
pub fn keep_alive_of_the_client() {
    let client = Client::open(shared(5), &Connect::clean(5, &unique("alive")).keep_alive(30));
    assert_eq!(client.connack.properties.get(id::SERVER_KEEP_ALIVE), None);
    for asked in [0, 301, 65_535] {
        let client = Client::open(shared(5), &Connect::clean(5, &unique("alive")).keep_alive(asked));
        assert_eq!(client.connack.properties.number(id::SERVER_KEEP_ALIVE), Some(300), "asked for {asked}");
    }
    connect::keep_alive(5);
}

/// What the server says of itself is so.
pub fn capabilities() {
    let client = anyone(5);
    let said = |property: u8| client.connack.properties.number(property);
    for available in [id::RETAIN_AVAILABLE, id::WILDCARDS, id::SUBSCRIPTION_IDS, id::SHARED] {
        assert!(said(available).is_none_or(|value| value == 1), "property {available} in {:?}", client.connack);
    }
    assert!(said(id::RECEIVE_MAXIMUM).is_none_or(|maximum| maximum >= 1));
    assert!(said(id::ALIAS_MAXIMUM).is_some_and(|maximum| maximum >= 1), "topic aliases are taken");
    assert_eq!(said(id::SESSION_EXPIRY), None, "what was asked for (nothing) is granted");
}

/// Properties that may be there once are there once; what a client may not ask for is refused.
pub fn format_of_properties() {
    let connect = Connect::clean(5, &unique("format"));
    let twice = |property: u8, value: Value| connect.clone().with(property, value.clone()).with(property, value);
    let cases = [
        ("receive maximum 0", connect.clone().with(id::RECEIVE_MAXIMUM, Value::Two(0)), 0x82),
        ("maximum packet size 0", connect.clone().with(id::MAXIMUM_PACKET, Value::Four(0)), 0x82),
        ("session expiry twice", twice(id::SESSION_EXPIRY, Value::Four(1)), 0x82),
        ("receive maximum twice", twice(id::RECEIVE_MAXIMUM, Value::Two(9)), 0x82),
        ("alias maximum twice", twice(id::ALIAS_MAXIMUM, Value::Two(9)), 0x82),
        ("maximum packet size twice", twice(id::MAXIMUM_PACKET, Value::Four(900)), 0x82),
        ("problem information twice", twice(id::REQUEST_PROBLEM, Value::Byte(1)), 0x82),
        ("problem information 2", connect.clone().with(id::REQUEST_PROBLEM, Value::Byte(2)), 0x82),
        ("response information 2", connect.clone().with(id::REQUEST_RESPONSE, Value::Byte(2)), 0x82),
        ("data without a method", connect.clone().with(id::AUTH_DATA, Value::Binary(vec![1])), 0x82),
        ("a topic alias", connect.clone().with(id::ALIAS, Value::Two(1)), 0x81),
        ("an unknown property", connect.clone().with(0x7f, Value::Byte(0)), 0x81),
        (
            "will delay twice",
            {
                let will =
                    Will::new("a", "x").with(id::WILL_DELAY, Value::Four(1)).with(id::WILL_DELAY, Value::Four(1));
                connect.clone().will(will)
            },
            0x82,
        ),
        (
            "will payload format 2",
            connect.clone().will(Will::new("a", "x").with(id::PAYLOAD_FORMAT, Value::Byte(2))),
            0x82,
        ),
        ("a topic alias in the will", connect.clone().will(Will::new("a", "x").with(id::ALIAS, Value::Two(1))), 0x81),
    ];
    for (what, connect, code) in cases {
        // Where a property does not belong both words are in use: malformed and protocol error.
        fatal_connect(5, what, &connect.bytes(), &[code, 0x81, 0x82][..]);
    }
    let mut cut = connect.clone().with(id::SESSION_EXPIRY, Value::Four(1)).bytes();
    let at = cut.iter().position(|byte| *byte == id::SESSION_EXPIRY).expect("the property");
    cut[at - 1] = 4;
    fatal_connect(5, "a property that is cut off", &cut, &[0x81, 0x82]);
}

/// Nothing but CONNACK comes before CONNACK, DISCONNECT included.
pub fn no_disconnect_before_connack() {
    let connect = Connect::clean(5, &unique("before"));
    let starts = [
        wire::PINGREQ.to_vec(),
        Publish::new("a", "x").bytes(5),
        vec![0, 0],
        connect.bytes_with(3, &connect.payload()),
        connect.clone().with(id::RECEIVE_MAXIMUM, Value::Two(0)).bytes(),
        connect.clone().with(id::AUTH_METHOD, Value::Text("magic".into())).bytes(),
        [&connect.bytes()[..2], &vec![0xff; connect.bytes().len() - 2]].concat(),
    ];
    for bytes in starts {
        let answer = bytes_to_close(shared(5), &bytes);
        assert!(answer.is_empty() || answer[0] == 0x20, "{bytes:02x?} was answered with {answer:02x?}");
    }
}

pub fn will_is_stored() {
    let topic = unique("will");
    let mut watcher = watch(5, &topic, 2);
    let will = Will::new(&topic, "stored").qos(2).retain();
    Client::open(shared(5), &Connect::clean(5, &unique("will")).will(will)).cut();
    assert_eq!(watcher.take().text(), "stored");
    assert_eq!(stored(5, &topic).expect("it was retained").text(), "stored");
}
