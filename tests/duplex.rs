//! A WebSocket both ways: what a client writes on it is a write like any other, and further subscriptions share it.

mod common;

use common::{Options, Server, get, put_json};
use serde_json::{Value, json};
use std::net::TcpStream;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

struct Socket(WebSocket<MaybeTlsStream<TcpStream>>);

impl Socket {
    fn open(server: &Server, path: &str) -> Socket {
        Socket(tungstenite::connect(format!("ws://{}{path}", server.http())).expect("a WebSocket").0)
    }

    fn say(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).expect("send");
    }

    #[track_caller]
    fn next(&mut self) -> Value {
        serde_json::from_str(self.0.read().expect("a frame").to_text().expect("text")).expect("JSON")
    }

    /// Says something and takes its answer; events that come before are given as well.
    #[track_caller]
    fn ask(&mut self, frame: &Value) -> (Value, Vec<Value>) {
        self.say(frame);
        let mut events = Vec::new();
        loop {
            let next = self.next();
            if next.get("ref") == frame.get("ref") {
                return (next, events);
            }
            events.push(next);
        }
    }
}

#[test]
fn writes_are_acknowledged() {
    for shards in [1, 2, 4] {
        let server = Server::start(Options::default().shards(shards));
        let at = server.http();
        let mut socket = Socket::open(&server, "/Sensors/?duplex");
        let (ack, mut events) = socket.ask(&json!({ "type": "put", "id": "1", "value": { "temp": 1 }, "ref": "a" }));
        assert_eq!(ack["type"], "ack", "{ack}");
        assert!(ack["version"].as_f64().is_some_and(|version| version > 1.7e12));
        assert_eq!(get(at, "/Sensors/1").json()["temp"], 1);
        if events.is_empty() {
            events.push(socket.next());
        }
        let wanted = (&json!("put"), &json!("1"), &json!("Sensors"));
        assert_eq!((&events[0]["type"], &events[0]["id"], &events[0]["path"]), wanted, "{events:?}");
        // The place in the acknowledgement: from there on everything that comes later.
        put_json(at, "/Sensors/2", &json!({ "temp": 2 }));
        let place = ack["position"].as_str().expect("a position");
        let mut later = Socket::open(&server, &format!("/Sensors/?startTime={place}"));
        assert_eq!(later.next()["id"], "2");
        for (frame, temp) in [
            (json!({ "type": "patch", "id": "1", "value": { "location": "lab" }, "ref": 2 }), json!(1)),
            (json!({ "type": "message", "id": "1", "value": { "temp": 9 }, "ref": 3 }), json!(1)),
        ] {
            assert_eq!(socket.ask(&frame).0["type"], "ack");
            assert_eq!(get(at, "/Sensors/1").json()["temp"], temp, "{frame}");
        }
        assert_eq!(socket.ask(&json!({ "type": "delete", "id": "1", "ref": { "any": "value" } })).0["type"], "ack");
        assert_eq!(get(at, "/Sensors/1").status, 404);
        // A socket on one record needs no id.
        let mut one = Socket::open(&server, "/Sensors/7?duplex");
        assert_eq!(one.ask(&json!({ "type": "put", "value": { "temp": 7 }, "ref": 1 })).0["type"], "ack");
        assert_eq!(get(at, "/Sensors/7").json()["temp"], 7);
    }
}

#[test]
fn what_cannot_be_done_is_a_problem() {
    let server = Server::start(Options::default());
    let mut socket = Socket::open(&server, "/Sensors/?duplex");
    for (frame, status, words) in [
        (json!({ "type": "put", "id": "1", "value": { "temp": "warm" }, "ref": 1 }), 400, "temp must be a number"),
        (json!({ "type": "put", "id": "1", "value": 5, "ref": 2 }), 400, "object"),
        (json!({ "type": "put", "value": {}, "ref": 3 }), 400, "id"),
        (json!({ "type": "put", "id": "1", "value": {}, "path": "Nowhere", "ref": 4 }), 404, "Nowhere"),
        (json!({ "type": "dance", "ref": 5 }), 400, "expected type"),
        (json!({ "type": "subscribe", "path": "/Sensors/?temp=gt=x", "ref": 6 }), 400, "position 8"),
        (json!({ "type": "unsubscribe", "ref": 7 }), 404, "ref"),
    ] {
        let (answer, _) = socket.ask(&frame);
        assert_eq!((&answer["type"], &answer["status"]), (&json!("problem"), &json!(status)), "{frame}: {answer}");
        assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{frame}: {answer}");
    }
    socket.0.send(Message::text("{")).expect("send");
    assert_eq!(socket.next()["type"], "problem");
    // Without `duplex` a socket only listens, as Harper's do.
    let mut listener = Socket::open(&server, "/Sensors/");
    listener.say(&json!({ "type": "put", "id": "9", "value": { "temp": 1 } }));
    assert_eq!(listener.next()["status"], 501);
    assert_eq!(get(server.http(), "/Sensors/9").status, 404);
}

#[test]
fn several_subscriptions_on_one_socket() {
    let server = Server::start(Options::default().shards(2));
    let at = server.http();
    put_json(at, "/Sensors/1", &json!({ "temp": 50 }));
    let mut socket = Socket::open(&server, "/Sensors/none?duplex");
    let subscribe = |path: &str, name: &str| json!({ "type": "subscribe", "path": path, "ref": name });
    assert_eq!(socket.ask(&subscribe("/Sensors/?temp=gt=30", "hot")).0["type"], "subscribed");
    assert_eq!(socket.next()["id"], "1");
    assert_eq!(socket.ask(&subscribe("/Sensors/?temp=lt=10", "cold")).0["type"], "subscribed");
    assert_eq!(socket.ask(&subscribe("/Sensors/", "cold")).0["type"], "problem", "the ref is taken");
    put_json(at, "/Sensors/2", &json!({ "temp": 20 }));
    put_json(at, "/Sensors/2", &json!({ "temp": 5 }));
    put_json(at, "/Sensors/1", &json!({ "temp": 20 }));
    let seen: Vec<(Value, Value)> =
        (0..2).map(|_| socket.next()).map(|own| (own["type"].clone(), own["id"].clone())).collect();
    assert_eq!(seen.iter().filter(|own| **own == (json!("put"), json!("2"))).count(), 1, "{seen:?}");
    assert_eq!(seen.iter().filter(|own| **own == (json!("leave"), json!("1"))).count(), 1, "{seen:?}");
    assert_eq!(socket.ask(&json!({ "type": "unsubscribe", "ref": "cold" })).0["type"], "unsubscribed");
    put_json(at, "/Sensors/2", &json!({ "temp": 4 }));
    put_json(at, "/Sensors/3", &json!({ "temp": 99 }));
    assert_eq!(socket.next()["id"], "3");
}

/// The same in CBOR, with the test's own codec.
#[test]
fn in_the_format_of_the_socket() {
    let server = Server::start(Options::default());
    let mut socket = Socket::open(&server, "/Sensors/.cbor?duplex");
    let frame = json!({ "type": "put", "id": "1", "value": { "temp": 1.5 }, "ref": 1 });
    socket.0.send(Message::binary(common::Format::Cbor.encode(&frame))).expect("send");
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let Message::Binary(bytes) = socket.0.read().expect("a frame") else { panic!("not binary") };
        kinds.push(common::Format::Cbor.decode(&bytes).expect("CBOR")["type"].clone());
    }
    assert!(kinds.contains(&json!("ack")) && kinds.contains(&json!("put")), "{kinds:?}");
}
