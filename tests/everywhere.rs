//! Promise: what any client writes over any protocol, every client of every protocol gets: each event once, in order per
//! key, with the right value in the format it asked for; and what has been acknowledged is there for all of them at once.
//!
//! Each matrix starts a server, all subscribers once, and then drives all publishers at the same time, each on keys of
//! its own. `Sensors/before` is written first (so that everybody starts with state) and `Sensors/end` last.

mod common;

use common::{
    ALL_FORMATS, ALL_PUBLISHERS, ALL_SUBSCRIBERS, Command, Connection, Endpoints, Format, Message, Op, Options,
    PATIENCE, Publish, Publisher, PublisherKind, Server, Subscribe, Subscriber, SubscriberKind, Transport, get, http,
    normal, put_json,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// How long all subscribers together may take for the events of a whole matrix, on a machine that is busy.
const MATRIX: Duration = Duration::from_secs(60);

/// One event of a key, as every subscriber has to see it.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    kind: &'static str,
    value: Value,
    /// The publisher's: deliveries have this or the subscription's, whichever is less. REST writes count as 1.
    qos: u8,
}

/// A put over REST of the record.
fn put_by_rest(at: &Endpoints, id: &str) -> (String, Vec<Expected>) {
    let value = record(0, 1.5, id);
    assert_eq!(put_json(at.http, &format!("/Sensors/{id}"), &value).status, 204);
    (id.to_owned(), vec![Expected { kind: "put", value: normal(with_id(value, id)), qos: 1 }])
}

type Events = BTreeMap<String, Vec<Expected>>;

/// A subscriber of the matrix.
#[derive(Clone, Copy, Debug)]
struct Feed {
    kind: SubscriberKind,
    format: Format,
    qos: u8,
}

/// Every client in JSON, and those that can ask for a format in CBOR or MessagePack too, taking turns over the servers.
/// The browser's WebSocket runs in one format for each server: it is the one that costs.
fn feeds(turn: usize) -> Vec<Feed> {
    let mut all = Vec::new();
    for (index, &kind) in ALL_SUBSCRIBERS.iter().enumerate() {
        let mut add = |format, qos: usize| all.push(Feed { kind, format, qos: (qos % 2) as u8 });
        if kind == SubscriberKind::BrowserWs {
            add(ALL_FORMATS[turn % 3], 0);
            continue;
        }
        add(Format::Json, index + turn);
        if kind.formats().len() > 1 {
            add(ALL_FORMATS[1 + (index / 2 + turn) % 2], index + turn + 1);
        }
    }
    all
}

/// A publisher of the matrix. MQTT 3.1.1 names no format with a publish: over WebSocket the connection does.
fn sources() -> Vec<(PublisherKind, Format)> {
    let mut all = Vec::new();
    for &kind in ALL_PUBLISHERS {
        let by_connection = kind.transport() == Transport::MqttWs;
        let formats = if by_connection { ALL_FORMATS } else { kind.formats() };
        all.extend(formats.iter().map(|&format| (kind, format)));
    }
    all
}

fn record(seq: u32, temp: f64, by: &str) -> Value {
    json!({ "temp": temp, "location": "Grüße 🚦", "by": by, "seq": seq, "tags": [1, null, { "a": true }] })
}

fn with_id(mut value: Value, id: &str) -> Value {
    value["id"] = id.into();
    value
}

/// Writes one key's history with one client, each step acknowledged before the next, and tells what it comes to.
fn drive(at: &Endpoints, kind: PublisherKind, format: Format) -> (String, Vec<Expected>) {
    let id = format!("{kind:?}-{}", format.name());
    let path = format!("Sensors/{id}");
    let mut publisher = Publisher::start(kind, at, &Publish { format, ..Publish::default() });
    let mut events = Vec::new();
    let mut send = |op, value: &Value, qos, expected: Option<Value>| {
        publisher.send(&Command::new(op, &path, value).format(format).qos(qos));
        let name = match op {
            Op::Message => "message",
            Op::Delete => "delete",
            Op::Put | Op::Patch => "put",
        };
        events.push(Expected { kind: name, value: expected.map_or(Value::Null, normal), qos });
    };
    let first = record(0, 20.5, &id);
    let second = record(1, -40.125, &id);
    send(Op::Put, &first, 1, Some(with_id(first.clone(), &id)));
    send(Op::Put, &second, 1, Some(with_id(second.clone(), &id)));
    if kind.transport() == Transport::Rest {
        let mut merged = with_id(second, &id);
        merged["temp"] = json!(7.25);
        merged["new"] = json!([]);
        send(Op::Patch, &json!({ "temp": 7.25, "new": [] }), 1, Some(merged));
    } else {
        let message = record(2, 0.5, &id);
        // A mosquitto_pub that has sent with QoS 0 has ended before the server may have read it.
        let qos = u8::from(matches!(kind, PublisherKind::Mosquitto4 | PublisherKind::Mosquitto5));
        send(Op::Message, &message, qos, Some(message.clone()));
    }
    send(Op::Delete, &Value::Null, 1, None);
    let last = record(3, 1e9, &id);
    send(Op::Put, &last, 1, Some(with_id(last.clone(), &id)));
    publisher.end();
    (id, events)
}

/// A message on one line.
fn told(message: &Message) -> String {
    let Message { topic, id, kind, retain, qos, value, raw, content_type, .. } = message;
    let raw = raw.escape_ascii();
    format!("\n  {topic:?} {id} {kind:?} retain {retain:?} QoS {qos:?} {content_type:?} {value} of {raw}")
}

/// Whether a message is what this feed has to show of the event.
fn judge(feed: Feed, message: &Message, expected: &Expected) -> Result<(), String> {
    let check = |what: &str, ok: bool| if ok { Ok(()) } else { Err(format!("wrong {what}, wanted {expected:?}")) };
    check("value", message.value == expected.value)?;
    let raw = feed.format.decode(&message.raw);
    if feed.kind.mqtt_level().is_none() {
        check("envelope", message.envelope)?;
        check("type", message.kind.as_deref() == Some(expected.kind))?;
        let raw = raw.ok_or_else(|| format!("not {:?}", feed.format))?;
        check("id", raw["id"] == message.id)?;
        check("value in the raw bytes", normal(raw["value"].clone()) == expected.value)?;
        check("times", raw["version"].as_f64() > Some(1.7e12) && raw["localTime"].as_f64() > Some(1.7e12))?;
        // Beside those of Harper at most the position, which SSE has in its `id`.
        let others = raw.as_object().map_or(0, |members| members.keys().filter(|name| *name != "position").count());
        return check("members", others == 5);
    }
    let topic = format!("Sensors/{}", message.id.as_str().unwrap_or("?"));
    check("topic", message.topic.as_deref() == Some(&topic))?;
    // Only what was there when the subscription was made [MQTT-3.3.1-8].
    check("retain flag", message.retain == Some(message.id == "before"))?;
    check("QoS", message.qos == Some(feed.qos.min(expected.qos)))?;
    if expected.kind == "delete" {
        return check("tombstone", message.raw.is_empty());
    }
    check("bytes", raw.map(normal).as_ref() == Some(&expected.value))?;
    let named = feed.format != Format::Json && feed.kind.mqtt_level() == Some(5);
    let named = named.then(|| feed.format.content_type().to_owned());
    check("content type", message.content_type == named)
}

/// Reads until every event has come, then ends the client: nothing may be left over.
fn verify(feed: Feed, mut subscriber: Subscriber, all: &Events) -> Result<(), String> {
    let total = all.values().map(Vec::len).sum();
    let messages = subscriber.expect(total, MATRIX);
    let words = subscriber.words();
    let rest = subscriber.end();
    let mut seen: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for message in messages.into_iter().chain(rest) {
        seen.entry(message.id.as_str().unwrap_or("?").to_owned()).or_default().push(message);
    }
    for (id, expected) in all {
        let got = seen.remove(id).unwrap_or_default();
        if got.len() != expected.len() {
            let words = words.text();
            let last: Vec<&str> = words.lines().rev().take(6).collect();
            return Err(format!(
                "{id}: {} events, not {}: {}; the client's last words, backwards: {last:#?}",
                got.len(),
                expected.len(),
                got.iter().map(told).collect::<String>()
            ));
        }
        for (number, (message, expected)) in got.iter().zip(expected).enumerate() {
            judge(feed, message, expected).map_err(|why| format!("{id}, event {number}: {why}; {}", told(message)))?;
        }
    }
    if seen.is_empty() { Ok(()) } else { Err(format!("never written: {seen:#?}")) }
}

fn matrix(shards: usize, turn: usize) {
    // One after the other: each starts more than sixty programs at once.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let server = Server::start(Options::default().shards(shards));
    let at = server.endpoints();
    let mut all = Events::new();
    all.extend([put_by_rest(&at, "before")]);

    let feeds = feeds(turn);
    let subscribers: Vec<(Feed, Subscriber)> = thread::scope(|scope| {
        let starting: Vec<_> = feeds
            .iter()
            .map(|&feed| {
                let mut to = Subscribe::to("Sensors/").format(feed.format).qos(feed.qos);
                to.within = MATRIX;
                (feed, scope.spawn(move || Subscriber::start(feed.kind, &at, &to)))
            })
            .collect();
        starting.into_iter().map(|(feed, start)| (feed, start.join().expect("a subscriber starts"))).collect()
    });
    thread::scope(|scope| {
        let driving: Vec<_> =
            sources().into_iter().map(|(kind, format)| scope.spawn(move || drive(&at, kind, format))).collect();
        all.extend(driving.into_iter().map(|drive| drive.join().expect("a publisher is acknowledged")));
    });
    all.extend([put_by_rest(&at, "end")]);

    let all = &all;
    let wrong: Vec<String> = thread::scope(|scope| {
        let verifying: Vec<_> = subscribers
            .into_iter()
            .map(|(feed, subscriber)| scope.spawn(move || verify(feed, subscriber, all).map_err(|e| (feed, e))))
            .collect();
        verifying
            .into_iter()
            .filter_map(|verify| verify.join().expect("a subscriber has every event").err())
            .map(|(feed, why)| format!("{feed:?}: {why}"))
            .collect()
    });
    assert!(
        wrong.is_empty(),
        "{} of {} subscribers on {shards} shards:\n{}",
        wrong.len(),
        feeds.len(),
        wrong.join("\n")
    );
    for (id, events) in all {
        let stored = get(at.http, &format!("/Sensors/{id}"));
        assert_eq!(normal(stored.json()), events.last().expect("every key has events").value, "stored under {id}");
    }
}

#[test]
fn every_client_to_every_client_on_1_shard() {
    matrix(1, 0);
}

#[test]
fn every_client_to_every_client_on_2_shards() {
    matrix(2, 1);
}

#[test]
fn every_client_to_every_client_on_4_shards() {
    matrix(4, 2);
}

/// The data of the first event of an SSE stream.
fn sse_first(at: &Endpoints, path: &str) -> Value {
    let mut connection = Connection::open(at.http);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n", at.http);
    connection.send(request.as_bytes());
    let head = connection.response_head().expect("the head of the stream");
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let mut text = String::new();
    loop {
        let chunk = connection.chunk().expect("an event").expect("the stream goes on");
        text += std::str::from_utf8(&chunk).expect("events are text");
        if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: "))
            && text.ends_with("\n\n")
        {
            return serde_json::from_str(data).expect("an envelope is JSON");
        }
    }
}

/// The first frame of a WebSocket.
fn ws_first(at: &Endpoints, path: &str) -> Value {
    let stream = TcpStream::connect(at.http).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    let (mut socket, _) = tungstenite::client(format!("ws://{}{path}", at.http), stream).expect("an upgrade");
    let frame = socket.read().expect("a frame");
    serde_json::from_str(frame.to_text().expect("JSON comes as text")).expect("an envelope is JSON")
}

/// The first message of a new subscription.
fn mqtt_first(kind: SubscriberKind, at: &Endpoints, topic: &str) -> Message {
    Subscriber::start(kind, at, &Subscribe::to(topic)).expect(1, PATIENCE).remove(0)
}

/// Every way to look at a record, right now.
fn seen_everywhere(at: &Endpoints, path: &str, value: &Value) {
    let url = format!("/{path}");
    assert_eq!(&normal(get(at.http, &url).json()), value, "REST, {path}");
    assert_eq!(&normal(ws_first(at, &url)["value"].clone()), value, "WebSocket, {path}");
    assert_eq!(&normal(sse_first(at, &url)["value"].clone()), value, "SSE, {path}");
    for kind in [SubscriberKind::Rumqttc4, SubscriberKind::Rumqttc5] {
        assert_eq!(&mqtt_first(kind, at, path).value, value, "{kind:?}, {path}");
    }
}

#[test]
fn what_is_acknowledged_is_there_for_every_protocol_at_once() {
    let server = Server::start(Options::default().shards(4));
    let at = server.endpoints();
    let writers = [
        (PublisherKind::Rumqttc4, Format::Json),
        (PublisherKind::Rumqttc5, Format::Cbor),
        (PublisherKind::PahoWs4, Format::MsgPack),
        (PublisherKind::MqttJsWs5, Format::Json),
        (PublisherKind::Requests, Format::MsgPack),
        (PublisherKind::Fetch, Format::Cbor),
    ];
    thread::scope(|scope| {
        for (kind, format) in writers {
            scope.spawn(move || {
                let mut writer = Publisher::start(kind, &at, &Publish { format, ..Publish::default() });
                for round in 0..6 {
                    let id = format!("{kind:?}-{}", round / 2); // a new record, then a change of it
                    let path = format!("Sensors/{id}");
                    let value = record(round, f64::from(round), "ack");
                    writer.send(&Command::new(Op::Put, &path, &value).format(format));
                    seen_everywhere(&at, &path, &normal(with_id(value, &id)));
                }
                writer.end();
            });
        }
    });
}

#[test]
fn what_is_acknowledged_as_deleted_is_gone_for_every_protocol_at_once() {
    let server = Server::start(Options::default().shards(2));
    let at = server.endpoints();
    for kind in [PublisherKind::Rumqttc4, PublisherKind::Rumqttc5, PublisherKind::Curl] {
        let id = format!("{kind:?}");
        let path = format!("Sensors/{id}");
        let url = format!("/{path}");
        let mut writer = Publisher::start(kind, &at, &Publish::default());
        writer.put(&path, &record(0, 0.5, "old"));
        writer.delete(&path);
        assert_eq!(get(at.http, &url).status, 404, "{kind:?}");
        assert_eq!(get(at.http, "/Sensors/").json(), json!([]), "{kind:?}");
        // A subscription that began after the delete starts with the record of after it.
        let mut subscribers: Vec<_> = [SubscriberKind::Rumqttc4, SubscriberKind::Rumqttc5]
            .map(|kind| Subscriber::start(kind, &at, &Subscribe::to(&path)))
            .into();
        let stream = TcpStream::connect(at.http).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        let (mut socket, _) = tungstenite::client(format!("ws://{}{url}", at.http), stream).expect("an upgrade");
        let new = record(1, 1.5, "new");
        writer.put(&path, &new);
        let wanted = normal(with_id(new, &id));
        for subscriber in &mut subscribers {
            assert_eq!(subscriber.expect_values(1, PATIENCE)[0], wanted, "{kind:?}");
        }
        let frame = socket.read().expect("a frame");
        let envelope: Value = serde_json::from_str(frame.to_text().expect("text")).expect("JSON");
        assert_eq!(normal(envelope["value"].clone()), wanted, "{kind:?}");
        writer.delete(&path);
    }
}

#[test]
fn a_read_on_a_waiting_connection_sees_what_was_acknowledged_on_another() {
    let server = Server::start(Options::default().shards(4));
    let at = server.endpoints();
    // Connections spread over the shards; each reads what another one has just written.
    let mut connections: Vec<Connection> = (0..8).map(|_| Connection::open(at.http)).collect();
    for round in 0..400 {
        let url = format!("/Sensors/{}", round % 7);
        let body = json!({ "temp": round }).to_string();
        let (writer, reader) = (round % 8, (round * 3 + 1) % 8);
        let json = [("Content-Type", "application/json")];
        assert_eq!(connections[writer].request("PUT", &url, &json, body.as_bytes()).status, 204);
        assert_eq!(connections[reader].request("GET", &url, &[], b"").json()["temp"], round, "round {round}");
    }
    assert_eq!(http(at.http, "DELETE", "/Sensors/0", &[], b"").status, 200);
    assert_eq!(connections[0].request("GET", "/Sensors/0", &[], b"").status, 404);
}

#[test]
fn the_odd_messages_too_reach_every_protocol() {
    let server = Server::start(Options::default().shards(4));
    let at = server.endpoints();
    use SubscriberKind::{EventSource, MqttJsWs5, Rumqttc4, Rumqttc5, Ws};
    let mut subscribers = [Rumqttc4, Rumqttc5, MqttJsWs5, Ws, EventSource]
        .map(|kind| Subscriber::start(kind, &at, &Subscribe::to("Sensors/")));
    let long = format!("deep/{}", "é".repeat(200));
    // What is sent without the retain flag: (path, payload, the envelope's id, its value).
    let cases: &[(&str, &[u8], Value, Value)] = &[
        ("Sensors/empty", b"", json!("empty"), Value::Null),
        ("Sensors", b"{\"to\":\"all\"}", Value::Null, json!({ "to": "all" })),
        ("Sensors/a b/ü", b"{\"n\":1}", json!("a b/ü"), json!({ "n": 1 })),
        (&format!("Sensors/{long}"), b"{}", json!(long), json!({})),
        ("Sensors//x", b"{\"n\":2}", json!("/x"), json!({ "n": 2 })),
    ];
    for (number, (path, payload, id, value)) in cases.iter().enumerate() {
        let kind = [PublisherKind::Rumqttc4, PublisherKind::Rumqttc5][number % 2];
        let mut publisher = Publisher::start(kind, &at, &Publish::default());
        publisher.send(&Command::raw(Op::Message, path, payload));
        for subscriber in &mut subscribers {
            let message = subscriber.expect(1, PATIENCE).remove(0);
            if message.envelope {
                assert_eq!((&message.id, &message.value), (id, value), "{}", told(&message));
                assert_eq!(message.kind.as_deref(), Some("message"), "{}", told(&message));
            } else {
                assert_eq!((message.topic.as_deref(), &*message.raw), (Some(*path), *payload), "{}", told(&message));
            }
        }
    }
    assert_eq!(get(at.http, "/Sensors/").json(), json!([]), "messages are not stored");
}
