//! Sessions that outlive their connection, with foreign clients.

use crate::client::Client;
use crate::foreign::{ALL, Foreign, Kind, mosquitto, numbers, run};
use crate::rig::own;
use crate::wire::Publish;
use rumqttc::{Event, Packet, QoS};
use serde_json::json;
use std::time::{Duration, Instant};

/// Publishes `n` messages of this QoS, each acknowledged.
fn publish_numbers(addr: std::net::SocketAddr, topic: &str, range: std::ops::Range<usize>, qos: u8) {
    let mut publisher = Client::clean(addr, 5, "numbers");
    for n in range {
        publisher.publish(&Publish::new(topic, n.to_string()).qos(qos));
    }
    publisher.end();
}

fn comes_back(kind: Kind) {
    let mut server = own(4);
    let mut client = Foreign::start(kind, &server.endpoints());
    client.resume("sleeper", false);
    client.subscribe("one/+", 1);
    client.subscribe("two/#", 2);
    client.disconnect();
    publish_numbers(server.mqtt(), "one/x", 0..20, 1);
    publish_numbers(server.mqtt(), "two/x/y", 20..40, 2);
    client.resume("sleeper", true);
    let mut seen = client.payloads(40);
    seen.sort_by_key(|text| text.parse::<usize>().expect("a number"));
    assert_eq!(seen, numbers(0..40));
    client.quiet();
    // Lost, not closed; and the server dies meanwhile.
    client.drop_line();
    publish_numbers(server.mqtt(), "two/z", 40..60, 2);
    server.kill9();
    server.restart_on_same_ports();
    publish_numbers(server.mqtt(), "two/z", 60..70, 2);
    client.resume("sleeper", true);
    assert_eq!(client.payloads(30), numbers(40..70));
    client.quiet();
    client.disconnect();
    // A clean connection ends it.
    assert_eq!(client.connect(json!({ "id": "sleeper" }))["present"], false);
    client.disconnect();
    client.resume("sleeper", false);
    publish_numbers(server.mqtt(), "two/z", 70..71, 2);
    client.quiet();
}

#[test]
fn paho_4_comes_back() {
    comes_back(Kind::Paho4);
}

#[test]
fn paho_5_comes_back() {
    comes_back(Kind::Paho5);
}

#[test]
fn mqtt_js_4_comes_back() {
    comes_back(Kind::MqttJs4);
}

#[test]
fn mqtt_js_5_comes_back() {
    comes_back(Kind::MqttJs5);
}

#[test]
fn mosquitto_comes_back() {
    for level in [4, 5] {
        let mut server = own(2);
        let sub = |server: &crate::common::Server, more: &[&str]| {
            run(mosquitto("mosquitto_sub", server, level)
                .args(["-c", "-i", "sleeper", "-t", "q/#", "-q", "2"])
                .args(more))
        };
        assert_eq!(sub(&server, &["-E"]), [""; 0], "it only subscribes");
        for round in 0..2 {
            for n in 0..10 {
                let payload = (round * 10 + n).to_string();
                run(mosquitto("mosquitto_pub", &server, level).args(["-t", "q/x", "-q", "2", "-m", &payload]));
            }
            server.kill9();
            server.restart();
            assert_eq!(sub(&server, &["-C", "10", "-W", "20"]), numbers(round * 10..round * 10 + 10));
        }
    }
}

/// QoS 1: of QoS 2 rumqttc forgets its own half with the connection, and then refuses the PUBREL that is due.
#[test]
fn rumqttc_comes_back() {
    let mut server = own(4);
    let addr = server.mqtt();
    let mut options = rumqttc::MqttOptions::new("sleeper", addr.ip().to_string(), addr.port());
    options.set_clean_session(false).set_keep_alive(Duration::from_secs(60));
    let (client, mut connection) = rumqttc::Client::new(options, 100);
    client.subscribe("q/#", QoS::AtLeastOnce).expect("ask for a subscription");
    let mut seen: Vec<String> = Vec::new();
    let (mut connects, mut faults) = (Vec::new(), Vec::new());
    let mut published = 0;
    let end = Instant::now() + Duration::from_secs(40);
    while seen.len() < 60 {
        assert!(Instant::now() < end, "{} messages: {seen:?}; {faults:?}", seen.len());
        match connection.recv_timeout(Duration::from_millis(200)) {
            Ok(Ok(Event::Incoming(Packet::ConnAck(ack)))) => connects.push(ack.session_present),
            Ok(Ok(Event::Incoming(Packet::SubAck(_)))) => {
                publish_numbers(server.mqtt(), "q/x", 0..20, 1);
                published = 20;
            }
            Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                let text = String::from_utf8(publish.payload.to_vec()).expect("text");
                // Its last acknowledgements may be lost with the server.
                if !seen.contains(&text) {
                    seen.push(text);
                    if published < 60 && seen.len() == published {
                        server.kill9();
                        server.restart_on_same_ports();
                        publish_numbers(server.mqtt(), "q/x", published..published + 20, 1);
                        published += 20;
                    }
                }
            }
            Ok(Err(e)) => {
                faults.push(e.to_string());
                std::thread::sleep(Duration::from_millis(20)); // it connects again at the next turn
            }
            Ok(Ok(_)) | Err(_) => {}
        }
    }
    assert_eq!(seen, numbers(0..60));
    assert_eq!(connects, [false, true, true]);
}

/// What a client has in flight itself is sent again by it, and taken once: QoS 2 from foreign publishers whose
/// connection breaks again and again.
#[test]
fn foreign_publishers_deliver_once() {
    const COUNT: usize = 150;
    let server = own(2);
    for kind in ALL {
        let topic = format!("once/{kind:?}");
        let mut watcher = Client::clean(server.mqtt(), 5, "watcher");
        watcher.subscribe(&topic, 2);
        let mut publisher = Foreign::start(kind, &server.endpoints());
        let is_paho = matches!(kind, Kind::Paho4 | Kind::Paho5);
        // mqtt.js keeps what it has to send only where it connects again by itself.
        let session =
            json!({ "id": format!("publisher-{kind:?}"), "clean": false, "expiry": 3600, "reconnect": !is_paho });
        assert_eq!(publisher.connect(session)["present"], false);
        for n in 0..COUNT {
            publisher.tell(json!({ "op": "publish", "topic": topic, "payload": n.to_string(), "qos": 2 }));
            if n % 30 == 29 {
                publisher.drop_line();
                if is_paho {
                    publisher.tell(json!({ "op": "again" }));
                }
                assert_eq!(publisher.event("connected")["present"], true, "{kind:?}");
            }
        }
        let mut seen: Vec<usize> = (0..COUNT).map(|_| watcher.take().text().parse().expect("a number")).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..COUNT).collect::<Vec<_>>(), "{kind:?}");
        watcher.quiet();
        (0..COUNT).for_each(|_| drop(publisher.event("published")));
    }
}
