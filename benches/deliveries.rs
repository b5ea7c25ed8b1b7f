//! The real binary under saturation: one publisher, 1,000 MQTT subscribers, 32 messages in flight, 128-byte JSON, QoS 0.
//! The server is pinned to core 0 (one shard), this generator to core 1. Prints deliveries per second and per server
//! CPU second. The generator is a bare epoll loop: it counts bytes, and knows only as much MQTT as it takes to connect.
//!
//! `cargo bench --bench deliveries [-- --subscribers N --in-flight N --seconds N --io uring|epoll --protocol mqtt|sse|ws]`

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn argument(name: &str, default: &str) -> String {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| *argument == format!("--{name}"));
    at.and_then(|at| arguments.get(at + 1).cloned()).unwrap_or_else(|| default.to_owned())
}

fn number(name: &str, default: usize) -> usize {
    argument(name, &default.to_string()).parse().expect("a number")
}

struct Server {
    child: Child,
    http: SocketAddr,
    mqtt: SocketAddr,
    _data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start() -> Server {
    let data = tempfile::tempdir().expect("a data directory");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tablecast"))
        .args(["run", "--shards", "1", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"])
        .args(["--io", &argument("io", "auto"), "--log-level", "error", "--data"])
        .arg(data.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut address = |kind: &str| {
        let line = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with(&format!("listening {kind} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("an address")
    };
    let (http, mqtt) = (address("http"), address("mqtt"));
    Server { child, http, mqtt, _data: data }
}

/// Seconds of CPU that a process has used, user and system.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("/proc");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
    ticks / 100.0
}

fn mqtt_connect(address: SocketAddr, name: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let mut packet = vec![0x10, 12 + name.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, name.len() as u8];
    packet.extend_from_slice(name.as_bytes());
    stream.write_all(&packet).expect("CONNECT");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("CONNACK");
    assert_eq!(answer, [0x20, 2, 0, 0]);
    stream
}

fn subscriber(server: &Server, protocol: &str, number: usize) -> TcpStream {
    if protocol == "mqtt" {
        let mut stream = mqtt_connect(server.mqtt, &format!("s{number}"));
        let mut packet = vec![0x82, 14, 0, 1, 0, 9];
        packet.extend_from_slice(b"Sensors/1\0");
        stream.write_all(&packet).expect("SUBSCRIBE");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("SUBACK");
        return stream;
    }
    let mut stream = TcpStream::connect(server.http).expect("connect");
    let head = match protocol {
        "sse" => "Accept: text/event-stream\r\n",
        _ => {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        }
    };
    write!(stream, "GET /Sensors/1 HTTP/1.1\r\nHost: x\r\n{head}\r\n").expect("request");
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a response");
        seen.push(byte[0]);
    }
    stream
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return; // `cargo test --benches` only builds it
    }
    let (count, in_flight) = (number("subscribers", 1000), number("in-flight", 32));
    let seconds = number("seconds", 5) as u64;
    let protocol = argument("protocol", "mqtt");
    tablecast::reactor::raise_descriptor_limit();
    let server = start();
    tablecast::reactor::run_on(&[1]).expect("a second core");
    let mut poll = mio::Poll::new().expect("epoll");
    let mut streams: Vec<mio::net::TcpStream> = Vec::new();
    for number in 0..count {
        let stream = subscriber(&server, &protocol, number);
        stream.set_nonblocking(true).expect("non-blocking");
        let mut stream = mio::net::TcpStream::from_std(stream);
        poll.registry().register(&mut stream, mio::Token(number), mio::Interest::READABLE).expect("register");
        streams.push(stream);
    }
    let mut publisher = mqtt_connect(server.mqtt, "publisher");
    let payload = format!("{{\"temp\":20.5,\"location\":\"{}\"}}", "x".repeat(128 - 28));
    let remaining = 2 + "Sensors/1".len() + payload.len();
    let mut packet = vec![0x30, remaining as u8 & 0x7f | 0x80, (remaining >> 7) as u8, 0, 9];
    packet.extend_from_slice(b"Sensors/1");
    packet.extend_from_slice(payload.as_bytes());

    let mut buffer = vec![0; 1 << 20];
    let mut received = 0u64;
    let mut read_all = |streams: &mut [mio::net::TcpStream], poll: &mut mio::Poll, wait: Duration| -> u64 {
        let mut events = mio::Events::with_capacity(1024);
        poll.poll(&mut events, Some(wait)).expect("poll");
        let mut bytes = 0;
        for event in &events {
            while let Ok(length) = streams[event.token().0].read(&mut buffer) {
                assert!(length > 0, "the server closed a subscriber");
                bytes += length as u64;
                if length < buffer.len() {
                    break;
                }
            }
        }
        bytes
    };
    // One message tells how long a frame is in this protocol.
    publisher.write_all(&packet).expect("publish");
    let until = Instant::now() + Duration::from_secs(5);
    let mut quiet = 0;
    while quiet < 5 && Instant::now() < until {
        let bytes = read_all(&mut streams, &mut poll, Duration::from_millis(20));
        received += bytes;
        quiet = if bytes == 0 { quiet + 1 } else { 0 };
    }
    let frame = received as f64 / count as f64;
    assert!(frame > 100.0, "nothing was delivered");
    // SSE frames grow with the position in them; the window is kept by their size now, the rate is counted in messages.
    let (mut published, mut delivered) = (0u64, 0f64);
    let batch: Vec<u8> = packet.repeat(8.min(in_flight));
    let per_batch = 8.min(in_flight) as u64;
    let (started, cpu) = (Instant::now(), cpu_seconds(server.child.id()));
    while started.elapsed() < Duration::from_secs(seconds) {
        while (published + per_batch) as f64 - delivered / count as f64 <= in_flight as f64 {
            publisher.write_all(&batch).expect("publish");
            published += per_batch;
        }
        delivered += read_all(&mut streams, &mut poll, Duration::from_millis(100)) as f64 / frame;
    }
    let (elapsed, used) = (started.elapsed().as_secs_f64(), cpu_seconds(server.child.id()) - cpu);
    println!(
        "{protocol} 1 -> {count}, {in_flight} in flight, {frame:.0}-byte frames: {:.2} M deliveries/s, {:.2} M per server CPU second ({:.0} % of a core)",
        delivered / elapsed / 1e6,
        delivered / used / 1e6,
        100.0 * used / elapsed
    );
}
