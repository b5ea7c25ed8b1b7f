//! Promise 1: an acknowledged write survives process death. The real binary is killed with SIGKILL at random moments
//! while writers of all protocols are at work, and started again on its data: of every key the record must be the last
//! one that was acknowledged, or one that was sent later, byte for byte; nothing may be there that nobody sent.

mod common;

use common::http::Connection;
use common::wire::{self, Mqtt, Random, WebSocket};
use common::{Options, PATIENCE, Server, eventually, get};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Keys of one writer.
const KEYS: usize = 6;
/// Publishes of one MQTT writer that wait for their acknowledgement.
const WINDOW: usize = 16;

/// What may be stored under a key. `Null` stands for no record.
#[derive(Clone, Debug, Default)]
struct Expected {
    acked: Value,
    /// Sent after it, in order, and not acknowledged.
    later: VecDeque<Value>,
}

impl Expected {
    fn allows(&self, stored: &Value) -> bool {
        self.acked == *stored || self.later.contains(stored)
    }

    /// The oldest write on its way is acknowledged.
    fn ack(&mut self) {
        self.acked = self.later.pop_front().expect("something was sent");
    }
}

/// What one writer knows.
struct Writer {
    name: String,
    keys: BTreeMap<String, Expected>,
    /// Records of POSTs without an answer: their keys are unknown.
    unanswered: Vec<Value>,
    count: u64,
    random: Random,
}

impl Writer {
    fn new(name: String, seed: u64) -> Writer {
        let keys = (0..KEYS).map(|n| (format!("{name}-{n}"), Expected::default())).collect();
        Writer { name, keys, unanswered: Vec::new(), count: 0, random: Random(seed | 1) }
    }

    fn some_key(&mut self) -> String {
        format!("{}-{}", self.name, self.random.below(KEYS as u64))
    }

    /// A record that is like no other: what is stored can be told apart from all that was sent.
    fn record(&mut self) -> Value {
        self.count += 1;
        let pad = "0123456789abcdef".repeat(self.random.below(100) as usize);
        json!({ "n": self.count, "by": self.name, "pad": format!("{pad}{}", self.count) })
    }

    fn expected(&mut self, key: &str) -> &mut Expected {
        self.keys.entry(key.to_owned()).or_default()
    }
}

fn with_id(mut record: Value, id: &str) -> Value {
    record["id"] = id.into();
    record
}

/// MQTT over TCP, or inside a WebSocket.
enum Line {
    Tcp(Mqtt),
    WebSocket(WebSocket),
}

impl Line {
    fn over_web_socket(addr: SocketAddr, level: u8, client_id: &str) -> Line {
        let mut connection = Connection::open(addr);
        connection.send(wire::handshake(addr, "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n").as_bytes());
        assert_eq!(connection.response_head().expect("an answer to the handshake").status, 101);
        let mut inside = WebSocket { connection };
        inside.connection.send(&wire::frame(0x82, &wire::connect_as(level, client_id)));
        assert_eq!(inside.expect().1[..2], [0x20, 2], "CONNACK");
        Line::WebSocket(inside)
    }

    fn write(&mut self, packets: &[u8]) -> std::io::Result<()> {
        match self {
            Line::Tcp(mqtt) => std::io::Write::write_all(&mut mqtt.connection.stream(), packets),
            Line::WebSocket(inside) => {
                std::io::Write::write_all(&mut inside.connection.stream(), &wire::frame(0x82, packets))
            }
        }
    }

    /// The next packet: its first byte and its body.
    fn next(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        match self {
            Line::Tcp(mqtt) => {
                mqtt.connection.within(PATIENCE);
                mqtt.next()
            }
            Line::WebSocket(inside) => {
                inside.connection.within(PATIENCE);
                // The server sends each of its small packets in a frame of its own.
                inside.next().map(|(_, packet)| (packet[0], packet[2..].to_vec()))
            }
        }
    }
}

/// Writes over MQTT, retained with QoS 1, until the connection breaks.
fn write_mqtt(mut writer: Writer, mut line: Line, level: u8, acks: &AtomicUsize) -> Writer {
    let mut waiting: VecDeque<(u16, String)> = VecDeque::new();
    let mut id = 0;
    loop {
        let mut batch = Vec::new();
        while waiting.len() < WINDOW {
            id = id % u16::MAX + 1;
            let key = writer.some_key();
            let topic = format!("Sensors/{key}");
            let (payload, state) = if writer.random.below(10) == 0 {
                (Vec::new(), Value::Null) // deletes the record
            } else {
                let record = writer.record();
                (record.to_string().into_bytes(), with_id(record, &key))
            };
            batch.extend(wire::publish(level, &topic, &payload, (1, true), id));
            writer.expected(&key).later.push_back(state);
            waiting.push_back((id, key));
        }
        if line.write(&batch).is_err() {
            return writer;
        }
        let Ok((first, body)) = line.next() else { return writer };
        let (id, key) = waiting.pop_front().expect("something waits");
        assert_eq!((first, &body[..]), (0x40, &id.to_be_bytes()[..]), "{}: PUBACKs come in order", writer.name);
        writer.expected(&key).ack();
        acks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes with PUT, PATCH, POST and DELETE, one after the other, until the connection breaks.
fn write_rest(mut writer: Writer, addr: SocketAddr, acks: &AtomicUsize) -> Writer {
    const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
    let mut connection = Connection::open(addr);
    loop {
        let record = writer.record();
        let body = record.to_string().into_bytes();
        connection.within(PATIENCE);
        let choice = writer.random.below(20);
        if choice < 3 {
            writer.unanswered.push(record.clone());
            let Ok(response) = connection.try_request("POST", "/Sensors/", JSON, &body) else { return writer };
            assert_eq!(response.status, 201, "POST: {response:?}");
            writer.unanswered.pop();
            let id = response.header("location").expect("Location").to_owned();
            let state = with_id(record, &id);
            writer.keys.insert(id, Expected { acked: state, later: VecDeque::new() });
        } else {
            let key = writer.some_key();
            let path = format!("/Sensors/{key}");
            let expected = writer.expected(&key);
            let (method, wanted, body, state) = match choice {
                3..=12 => ("PUT", 204, &body[..], with_id(record, &key)),
                13..=17 => {
                    let mut merged = if expected.acked.is_null() { json!({}) } else { expected.acked.clone() };
                    let patch = json!({ "n": record["n"], "patched": record["pad"] });
                    merged["n"] = patch["n"].clone();
                    merged["patched"] = patch["patched"].clone();
                    let state = with_id(merged, &key);
                    expected.later.push_back(state);
                    let sent = connection.try_request("PATCH", &path, JSON, patch.to_string().as_bytes());
                    let Ok(response) = sent else { return writer };
                    assert_eq!(response.status, 204, "PATCH: {response:?}");
                    expected.ack();
                    acks.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                _ => ("DELETE", 200, &b""[..], Value::Null),
            };
            expected.later.push_back(state);
            let Ok(response) = connection.try_request(method, &path, JSON, body) else { return writer };
            assert_eq!(response.status, wanted, "{method}: {response:?}");
            expected.ack();
        }
        acks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Compares what is stored with what the writers know; what is stored is the new beginning.
fn reread(server: &Server, writers: &mut [Writer], round: &str) {
    let rows = get(server.http(), "/Sensors/").json();
    let mut stored: BTreeMap<String, Value> = BTreeMap::new();
    for row in rows.as_array().expect("an array") {
        let id = row["id"].as_str().expect("a key").to_owned();
        assert!(stored.insert(id, row.clone()).is_none(), "{round}: {} is listed twice", row["id"]);
    }
    let mut unanswered = Vec::new();
    for writer in writers.iter_mut() {
        for (key, expected) in &mut writer.keys {
            let found = stored.remove(key).unwrap_or(Value::Null);
            assert!(
                expected.allows(&found),
                "{round}: {key} is {found}; acknowledged was {}, and {} were sent later\n{}",
                expected.acked,
                expected.later.len(),
                server.stderr()
            );
            *expected = Expected { acked: found, later: VecDeque::new() };
        }
        unanswered.append(&mut writer.unanswered);
    }
    for (key, found) in stored {
        let sent = unanswered.iter().position(|record| with_id(record.clone(), &key) == found);
        let sent = sent.unwrap_or_else(|| panic!("{round}: nobody sent {key}: {found}"));
        unanswered.swap_remove(sent);
        let expected = Expected { acked: found, later: VecDeque::new() };
        writers[0].keys.insert(key, expected);
    }
}

fn rounds(shards: usize, count: usize) {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64 | 1;
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut server = Server::start(Options::default().shards(shards));
    let names = ["mqtt4", "mqtt5", "mqtt-ws", "rest-a", "rest-b", "rest-c"];
    let mut writers: Vec<Writer> =
        names.iter().map(|name| Writer::new((*name).into(), random.below(u64::MAX >> 12))).collect();
    let mut all = 0;
    for round in 1..=count {
        let acks = Arc::new(AtomicUsize::new(0));
        let (http, mqtt) = (server.http(), server.mqtt());
        let running: Vec<_> = writers
            .into_iter()
            .map(|writer| {
                let acks = acks.clone();
                thread::spawn(move || match writer.name.as_str() {
                    "mqtt4" => {
                        let line = Line::Tcp(Mqtt::open(mqtt, 4, &writer.name));
                        write_mqtt(writer, line, 4, &acks)
                    }
                    "mqtt5" => {
                        let line = Line::Tcp(Mqtt::open(mqtt, 5, &writer.name));
                        write_mqtt(writer, line, 5, &acks)
                    }
                    "mqtt-ws" => {
                        let line = Line::over_web_socket(http, 4, &writer.name);
                        write_mqtt(writer, line, 4, &acks)
                    }
                    _ => write_rest(writer, http, &acks),
                })
            })
            .collect();
        let enough = 50 + random.below(800) as usize;
        eventually("acknowledgements under load", PATIENCE, || {
            let dead = running.iter().any(|writer| writer.is_finished());
            (dead || acks.load(Ordering::Relaxed) >= enough).then_some(())
        });
        thread::sleep(Duration::from_micros(random.below(3000))); // the random moment itself
        assert!(server.alive(), "the server ended by itself:\n{}", server.stderr());
        server.kill9();
        writers = running.into_iter().map(|writer| writer.join().expect("a writer")).collect();
        all += acks.load(Ordering::Relaxed);
        server.restart();
        reread(&server, &mut writers, &format!("round {round} on {shards} shards"));
    }
    println!("{shards} shards: {count} kills, {all} acknowledged writes, none lost");
}

#[test]
fn on_one_shard() {
    rounds(1, 6);
}

#[test]
fn on_two_shards() {
    rounds(2, 7);
}

#[test]
fn on_four_shards() {
    rounds(4, 7);
}
