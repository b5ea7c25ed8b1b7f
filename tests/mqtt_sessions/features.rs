//! Wills, shared subscriptions, topic aliases, flow control and message properties, with foreign clients.

use crate::client::Client;
use crate::common::PATIENCE;
use crate::common::lines::{lines, poll};
use crate::foreign::{ALL, Foreign, Kind, VERSION_5, mosquitto, numbers, run};
use crate::rig::own;
use crate::wire::{Connect, Publish, Value, id};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use serde_json::json;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn wills_of_foreign_clients() {
    let server = own(2);
    let mut watcher = Client::clean(server.mqtt(), 5, "watcher");
    watcher.subscribe("will/#", 2);
    for kind in ALL {
        let topic = format!("will/{kind:?}");
        let mut client = Foreign::start(kind, &server.endpoints());
        let will = json!({ "topic": topic, "payload": "gone", "qos": 1, "retain": true });
        client.connect(json!({ "id": "dying", "will": will }));
        client.drop_line();
        let seen = watcher.take();
        assert_eq!((seen.topic, seen.payload), (topic.clone(), b"gone".to_vec()), "{kind:?}");
        client.connect(json!({ "id": "leaving", "will": will }));
        client.disconnect();
        watcher.quiet();
        let mut late = Client::clean(server.mqtt(), 4, "late");
        late.subscribe(&topic, 1);
        let seen = late.take();
        assert_eq!((seen.text(), seen.retain), ("gone".into(), true), "{kind:?}");
    }
    // mosquitto_sub, killed.
    let mut command = mosquitto("mosquitto_sub", &server, 5);
    command.args(["-t", "none", "-d", "--will-topic", "will/mosquitto", "--will-payload", "killed", "--will-qos", "2"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start mosquitto_sub");
    let out = lines(child.stdout.take().expect("piped"));
    while !out.recv_timeout(PATIENCE).expect("it subscribes").starts_with("Subscribed") {}
    child.kill().expect("kill mosquitto_sub");
    child.wait().expect("wait for mosquitto_sub");
    assert_eq!(watcher.take().text(), "killed");
}

#[test]
fn will_delay_of_foreign_clients() {
    let server = own(2);
    let mut watcher = Client::clean(server.mqtt(), 5, "watcher");
    watcher.subscribe("will/#", 1);
    for kind in VERSION_5 {
        let will = json!({
            "topic": "will/x", "payload": "late", "qos": 1, "delay": 2, "contentType": "text/x-will",
            "user": [["first", "1"], ["second", "2"]],
        });
        let session = json!({ "id": "dying", "clean": false, "expiry": 60, "will": will });
        let mut client = Foreign::start(kind, &server.endpoints());
        client.connect(session.clone());
        client.drop_line();
        // Back in time: nothing is published.
        assert_eq!(client.connect(session)["present"], true);
        let since = Instant::now();
        client.drop_line();
        let seen = watcher.take();
        let after = since.elapsed();
        assert!((1500..6000).contains(&after.as_millis()), "{kind:?}: {after:?}");
        assert_eq!(seen.properties.text(id::CONTENT_TYPE), Some("text/x-will"));
        assert_eq!(seen.properties.user(), [("first", "1"), ("second", "2")], "{kind:?}");
        Client::clean(server.mqtt(), 5, "dying").end();
    }
    watcher.quiet();
}

/// A will survives the server: it is published when the server is there again, once, and not if it was taken back.
#[test]
fn a_will_survives_the_server() {
    for level in [4, 5] {
        let mut server = own(2);
        let mut watcher = Client::lasting(server.mqtt(), level, "watcher", false);
        watcher.subscribe("will/#", 1);
        watcher.end();
        let will = |text: &str| crate::wire::Will::new("will/x", text).qos(1).retain();
        let connect = |name: &str, text: &str| Connect::clean(level, name).will(will(text));
        let _dying = Client::open(server.mqtt(), &connect("dying", "gone with the server"));
        Client::open(server.mqtt(), &connect("leaving", "taken back")).end();
        // Nothing tells a client when its DISCONNECT is on disk.
        std::thread::sleep(std::time::Duration::from_millis(200));
        server.kill9();
        server.restart();
        let mut watcher = Client::lasting(server.mqtt(), level, "watcher", true);
        assert_eq!(watcher.take().text(), "gone with the server");
        watcher.quiet();
        watcher.end();
        std::thread::sleep(std::time::Duration::from_millis(200)); // what was acknowledged at QoS 1 just before comes again
        server.kill9();
        server.restart();
        let mut watcher = Client::lasting(server.mqtt(), level, "watcher", true);
        watcher.quiet();
    }
}

/// Each message goes to one of the group: paho, mqtt.js, rumqttc and mosquitto_sub share.
#[test]
fn foreign_clients_share() {
    const COUNT: usize = 120;
    let server = own(4);
    let mut members: Vec<Foreign> = VERSION_5.map(|kind| Foreign::start(kind, &server.endpoints())).into();
    for (n, member) in members.iter_mut().enumerate() {
        member.connect(json!({ "id": format!("member-{n}") }));
        member.subscribe("$share/group/work/#", 1);
    }
    let mut command = mosquitto("mosquitto_sub", &server, 5);
    command.args(["-d", "-t", "$share/group/work/#", "-q", "1", "-F", "=%p"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start mosquitto_sub");
    let out = lines(child.stdout.take().expect("piped"));
    while !out.recv_timeout(PATIENCE).expect("it subscribes").starts_with("Subscribed") {}
    let mut all = Client::clean(server.mqtt(), 5, "all");
    all.subscribe("work/#", 1);
    let mut publisher = Client::clean(server.mqtt(), 5, "publisher");
    let mut seen = Vec::new();
    let mut collect = |members: &mut Vec<Foreign>, wanted: usize| {
        let found = poll(PATIENCE, || {
            for member in members.iter_mut() {
                while let Some(message) = member.event_within("message", Duration::ZERO) {
                    seen.push(message["payload"].as_str().expect("text").parse::<usize>().expect("a number"));
                }
            }
            while let Ok(line) = out.try_recv() {
                seen.extend(line.strip_prefix('=').map(|text| text.parse::<usize>().expect("a number")));
            }
            (seen.len() >= wanted).then_some(())
        });
        let mut sorted = seen.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..wanted).collect::<Vec<_>>(), "each once ({found:?})");
    };
    for n in 0..COUNT {
        publisher.publish(&Publish::new(&format!("work/{}", n % 7), n.to_string()).qos(1));
    }
    collect(&mut members, COUNT);
    // Those that leave, with and without a word, get nothing more; nothing is lost with them.
    members[0].disconnect();
    child.kill().expect("kill mosquitto_sub");
    child.wait().expect("wait for mosquitto_sub");
    members.remove(0);
    for n in COUNT..2 * COUNT {
        publisher.publish(&Publish::new(&format!("work/{}", n % 7), n.to_string()).qos(1));
    }
    collect(&mut members, 2 * COUNT);
    assert_eq!(all.take_texts(2 * COUNT).len(), 2 * COUNT);
}

#[test]
fn topic_aliases_of_foreign_clients() {
    let server = own(2);
    let mut watcher = Client::clean(server.mqtt(), 5, "watcher");
    watcher.subscribe("alias/#", 1);
    // mqtt.js assigns them by itself, as far as the server's maximum goes.
    let mut client = Foreign::start(Kind::MqttJs5, &server.endpoints());
    let connected = client.connect(json!({ "id": "aliases", "assignAliases": true, "aliasMaximum": 10 }));
    let maximum = connected["properties"]["topicAliasMaximum"].as_u64().expect("a maximum");
    assert!(maximum >= 1);
    for n in 0..200_u32 {
        let topic = format!("alias/{}", n * 31 % 43);
        client.publish(&topic, &topic, (n % 2) as u8);
        let seen = watcher.take();
        assert_eq!((&seen.topic, seen.text()), (&topic, topic.clone()));
    }
    // It takes the server's as well.
    client.subscribe("back/#", 1);
    let mut publisher = Client::clean(server.mqtt(), 5, "publisher");
    for n in 0..60 {
        let topic = format!("back/{}", n % 13);
        publisher.publish(&Publish::new(&topic, &topic).qos(1));
        let seen = client.message();
        assert_eq!((seen["topic"].as_str(), seen["payload"].as_str()), (Some(&topic[..]), Some(&topic[..])));
    }
    // paho leaves them to the application.
    let mut client = Foreign::start(Kind::Paho5, &server.endpoints());
    client.connect(json!({ "id": "aliases" }));
    for (topic, payload) in [("alias/one", "set"), ("", "used"), ("alias/two", "moved"), ("", "used")] {
        client.tell(json!({ "op": "publish", "topic": topic, "payload": payload, "qos": 1, "alias": 1 }));
        assert!(client.event("published")["code"].as_u64().is_some_and(|code| code < 0x80));
    }
    let seen: Vec<(String, String)> =
        (0..4).map(|_| watcher.take()).map(|seen| (seen.topic.clone(), seen.text())).collect();
    let wanted = [("alias/one", "set"), ("alias/one", "used"), ("alias/two", "moved"), ("alias/two", "used")];
    assert_eq!(seen, wanted.map(|(topic, text)| (topic.to_owned(), text.to_owned())));
    run(mosquitto("mosquitto_pub", &server, 5).args([
        "-t",
        "alias/mosquitto",
        "-m",
        "x",
        "-q",
        "1",
        "-D",
        "publish",
        "topic-alias",
        "1",
    ]));
    assert_eq!(watcher.take().topic, "alias/mosquitto");
}

/// paho with a receive maximum of 3 that acknowledges late.
#[test]
fn paho_sets_the_pace() {
    let server = own(2);
    let mut client = Foreign::start(Kind::Paho5, &server.endpoints());
    client.connect(json!({ "id": "slow", "manual": true, "receiveMaximum": 3 }));
    client.subscribe("pace/#", 1);
    let mut publisher = Client::clean(server.mqtt(), 5, "publisher");
    for n in 0..30 {
        publisher.publish(&Publish::new("pace/x", n.to_string()).qos(1));
    }
    let mut open: Vec<serde_json::Value> = (0..3).map(|_| client.message()).collect();
    client.quiet();
    for n in 3..30 {
        let done = open.remove(0);
        client.tell(json!({ "op": "ack", "id": done["id"], "qos": done["qos"] }));
        let next = client.message();
        assert_eq!(next["payload"], n.to_string());
        open.push(next);
    }
    client.quiet();
}

/// rumqttc with a receive maximum of 2 that acknowledges late.
#[test]
fn rumqttc_sets_the_pace() {
    let server = own(2);
    let addr = server.mqtt();
    let mut options = rumqttc::v5::MqttOptions::new("slow", addr.ip().to_string(), addr.port());
    options.set_receive_maximum(Some(2)).set_manual_acks(true);
    let (client, mut connection) = rumqttc::v5::Client::new(options, 100);
    client.subscribe("pace/#", QoS::AtLeastOnce).expect("ask for a subscription");
    let mut next = |within: Duration| {
        let end = Instant::now() + within;
        loop {
            match connection.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Ok(rumqttc::v5::Event::Incoming(packet @ (Packet::Publish(_) | Packet::SubAck(_))))) => {
                    return Some(packet);
                }
                Ok(Ok(_)) => {}
                Ok(Err(e)) => panic!("rumqttc: {e}"),
                Err(_) => return None,
            }
        }
    };
    assert!(matches!(next(PATIENCE), Some(Packet::SubAck(_))));
    let mut publisher = Client::clean(addr, 5, "publisher");
    for n in 0..20 {
        publisher.publish(&Publish::new("pace/x", n.to_string()).qos(1));
    }
    let mut open = Vec::new();
    let mut seen = Vec::new();
    while seen.len() < 20 {
        match next(if open.len() == 2 { Duration::from_millis(100) } else { PATIENCE }) {
            Some(Packet::Publish(publish)) => {
                seen.push(String::from_utf8_lossy(&publish.payload).into_owned());
                open.push(publish);
                assert!(open.len() <= 2, "{} are on their way", open.len());
            }
            None if open.len() == 2 => client.ack(&open.remove(0)).expect("acknowledge"),
            other => panic!("{other:?} after {seen:?}"),
        }
    }
    assert_eq!(seen, numbers(0..20));
}

/// Properties between foreign clients of different makes.
#[test]
fn properties_between_foreign_clients() {
    let server = own(2);
    let mut clients = VERSION_5.map(|kind| Foreign::start(kind, &server.endpoints()));
    for (n, client) in clients.iter_mut().enumerate() {
        client.connect(json!({ "id": format!("client-{n}") }));
        client.tell(json!({ "op": "subscribe", "filters": [["properties/#", 2]], "number": 7 + n }));
        assert_eq!(client.event("subscribed")["codes"], json!([2]));
    }
    for from in 0..2 {
        let command = json!({
            "op": "publish", "topic": "properties/x", "payload": "text", "qos": 2, "expiry": 500,
            "contentType": "text/plain", "user": [["one", "1"], ["two", "2"]],
        });
        clients[from].tell(command);
        for (n, client) in clients.iter_mut().enumerate() {
            let seen = client.message()["properties"].clone();
            assert_eq!(seen["contentType"], "text/plain");
            assert_eq!(seen["user"], json!([["one", "1"], ["two", "2"]]));
            assert!(seen["messageExpiryInterval"].as_u64().is_some_and(|left| (490..=500).contains(&left)), "{seen}");
            let number = &seen["subscriptionIdentifier"];
            assert!(*number == json!(7 + n) || *number == json!([7 + n]), "{seen}");
        }
    }
    let reader = Connect::clean(5, "reader").with(id::REQUEST_PROBLEM, Value::Byte(1));
    let mut reader = Client::open(server.mqtt(), &reader);
    reader.subscribe("properties/#", 1);
    run(mosquitto("mosquitto_pub", &server, 5).args(["-t", "properties/x", "-m", "text", "-q", "1"]).args([
        "-D",
        "publish",
        "user-property",
        "a",
        "b",
        "-D",
        "publish",
        "content-type",
        "x/y",
        "-D",
        "publish",
        "response-topic",
        "answer",
        "-D",
        "publish",
        "correlation-data",
        "42",
    ]));
    let seen = reader.take();
    assert_eq!(seen.properties.user(), [("a", "b")]);
    assert_eq!(seen.properties.text(id::CONTENT_TYPE), Some("x/y"));
    assert_eq!(seen.properties.text(id::RESPONSE_TOPIC), Some("answer"));
    assert_eq!(seen.properties.get(id::CORRELATION), Some(&Value::Binary(b"42".to_vec())));
}
