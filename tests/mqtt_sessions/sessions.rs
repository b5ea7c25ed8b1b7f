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
        for n in 0..10 {
            let qos = if n % 2 == 0 { "1" } else { "2" };
            run(mosquitto("mosquitto_pub", &server, level).args(["-t", "q/x", "-q", qos, "-m", &n.to_string()]));
        }
        assert_eq!(sub(&server, &["-C", "4", "-W", "20"]), numbers(0..4));
        server.kill9();
        server.restart();
        assert_eq!(sub(&server, &["-C", "6", "-W", "20"]), numbers(4..10));
    }
}

/// rumqttc keeps its own half of the session as long as its event loop lives.
#[test]
fn rumqttc_comes_back() {
    let mut server = own(4);
    let addr = server.mqtt();
    let mut options = rumqttc::MqttOptions::new("sleeper", addr.ip().to_string(), addr.port());
    options.set_clean_session(false).set_keep_alive(Duration::from_secs(60));
    let (client, mut connection) = rumqttc::Client::new(options, 100);
    client.subscribe("q/#", QoS::ExactlyOnce).expect("ask for a subscription");
    let mut seen = Vec::new();
    let mut connects = Vec::new();
    let mut published = 0;
    let end = Instant::now() + Duration::from_secs(40);
    while seen.len() < 60 {
        assert!(Instant::now() < end, "{} messages: {seen:?}", seen.len());
        match connection.recv_timeout(Duration::from_millis(200)) {
            Ok(Ok(Event::Incoming(Packet::ConnAck(ack)))) => connects.push(ack.session_present),
            Ok(Ok(Event::Incoming(Packet::SubAck(_)))) => {
                publish_numbers(server.mqtt(), "q/x", 0..20, 2);
                published = 20;
            }
            Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                seen.push(String::from_utf8(publish.payload.to_vec()).expect("text"));
                if published < 60 && seen.len() == published {
                    server.kill9();
                    server.restart_on_same_ports();
                    publish_numbers(server.mqtt(), "q/x", published..published + 20, 2);
                    published += 20;
                }
            }
            Ok(Err(_)) => std::thread::sleep(Duration::from_millis(20)), // it connects again at the next turn
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
        publisher.resume(&format!("publisher-{kind:?}"), false);
        for n in 0..COUNT {
            publisher.tell(json!({ "op": "publish", "topic": topic, "payload": n.to_string(), "qos": 2 }));
            if n % 30 == 29 {
                publisher.drop_line();
                publisher.tell(json!({ "op": "again" }));
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
