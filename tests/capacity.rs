//! How many clients fit: 5,000 idle MQTT connections cost at most 2 KiB of process memory each, and 8,000 live SSE
//! subscribers of one record all receive 100 updates, in order and without loss.

mod common;

use common::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const IDLE: usize = 5_000;
const IDLE_BYTES_MAX: usize = 2 << 10;
const SUBSCRIBERS: usize = 8_000;
const UPDATES: usize = 100;

/// Resident memory of a process, in bytes.
fn resident_bytes(pid: u32) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("the server runs");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

fn connect_mqtt(address: SocketAddr, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("connect");
    let name = format!("idle{number:05}");
    let mut packet = vec![0x10, 12 + name.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, name.len() as u8];
    packet.extend_from_slice(name.as_bytes());
    stream.write_all(&packet).expect("send CONNECT");
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).expect("receive CONNACK");
    assert_eq!(connack, [0x20, 2, 0, 0]);
    stream
}

#[test]
fn idle_mqtt_connections_cost_at_most_2_kib_each() {
    tablecast::reactor::raise_descriptor_limit();
    let server = Server::start(Options::default());
    // The first ones pay for what is allocated once.
    let warm: Vec<TcpStream> = (0..200).map(|number| connect_mqtt(server.mqtt(), IDLE + number)).collect();
    let before = resident_bytes(server.pid());
    let idle: Vec<TcpStream> = (0..IDLE).map(|number| connect_mqtt(server.mqtt(), number)).collect();
    let after = resident_bytes(server.pid());
    let each = after.saturating_sub(before) / idle.len();
    println!("{each} bytes for each of {} idle connections", idle.len());
    assert!(each <= IDLE_BYTES_MAX, "{each} bytes each");
    drop(warm);
}

#[test]
fn eight_thousand_sse_subscribers_all_receive_every_update() {
    tablecast::reactor::raise_descriptor_limit();
    let server = Server::start(Options::default());
    put_json(server.http(), "/Sensors/1", &serde_json::json!({"temp": 0}));
    let mut subscribers: Vec<(TcpStream, Vec<u8>)> = (0..SUBSCRIBERS)
        .map(|_| {
            let mut stream = TcpStream::connect(server.http()).expect("connect");
            stream
                .write_all(b"GET /Sensors/1 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
                .expect("send the request");
            stream.set_nonblocking(true).expect("non-blocking");
            (stream, Vec::new())
        })
        .collect();
    // Each has its snapshot before the first update is made.
    receive(&mut subscribers, 1);
    for number in 1..=UPDATES {
        put_json(server.http(), "/Sensors/1", &serde_json::json!({ "temp": number }));
    }
    receive(&mut subscribers, 1 + UPDATES);
    for (_, bytes) in &subscribers {
        let text = String::from_utf8_lossy(bytes);
        let temps: Vec<usize> = text
            .split("\"temp\":")
            .skip(1)
            .map(|rest| rest[..rest.find([',', '}']).expect("JSON")].parse().expect("a whole number"))
            .collect();
        assert!(temps.iter().copied().eq(0..=UPDATES), "{temps:?}");
    }
}

/// Reads until every subscriber has had `events` events.
fn receive(subscribers: &mut [(TcpStream, Vec<u8>)], events: usize) {
    let deadline = Instant::now() + Duration::from_secs(90);
    let mut buffer = vec![0; 64 << 10];
    let mut missing: Vec<usize> = (0..subscribers.len()).collect();
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "{} subscribers have not received {events} events", missing.len());
        missing.retain(|&index| {
            let (stream, seen) = &mut subscribers[index];
            match stream.read(&mut buffer) {
                Ok(0) => panic!("the server ended a stream"),
                Ok(length) => seen.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) => panic!("{error}"),
            }
            seen.windows(6).filter(|window| *window == b"data: ").count() < events
        });
    }
}
