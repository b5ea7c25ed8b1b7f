//! The real binary under saturation: one publisher, 1,000 MQTT subscribers, 32 messages in flight, 128-byte JSON, QoS 0.
//! The server is pinned to core 0 (one shard), this generator to core 1. Prints deliveries per second and per server
//! CPU second. The generator is a bare epoll loop: it counts bytes, and knows only as much MQTT as it takes to connect.
//!
//! `cargo bench --bench deliveries [-- --subscribers N --in-flight N --seconds N --io uring|epoll --protocol mqtt|mqtts|sse|ws]`

#[path = "common/process.rs"]
mod process;

use process::{Process, argument, number};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Server {
    process: Process,
    http: SocketAddr,
    mqtt: SocketAddr,
    mqtts: SocketAddr,
    tls: Arc<ClientConfig>,
    _data: tempfile::TempDir,
}

fn start() -> Server {
    let data = tempfile::tempdir().expect("a data directory");
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (data.path().join("certificate.pem"), data.path().join("key.pem"));
    std::fs::write(&certificate, own.cert.pem()).expect("write the certificate");
    std::fs::write(&key, own.signing_key.serialize_pem()).expect("write the key");
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let tls = Arc::new(tls.with_root_certificates(roots).with_no_client_auth());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tablecast"));
    command
        .args(["run", "--shards", "1", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"])
        .args(["--io", &argument("io", "auto"), "--log-level", "error", "--https", "off"])
        .args(["--mqtts", "127.0.0.1:0", "--tls-certificate"])
        .arg(&certificate)
        .arg("--tls-key")
        .arg(&key)
        .arg("--data")
        .arg(data.path().join("data"));
    let (process, [http, mqtt, mqtts]) = Process::start_listening(&mut command, ["http", "mqtt", "mqtts"]);
    Server { process, http, mqtt, mqtts, tls, _data: data }
}

/// One that only counts: plain, or with TLS.
struct Subscriber<S> {
    tcp: S,
    tls: Option<Box<ClientConnection>>,
}

impl<S: Read + Write> Read for Subscriber<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.tls {
            None => self.tcp.read(buffer),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.tcp).read(buffer),
        }
    }
}

impl<S: Read + Write> Write for Subscriber<S> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.tls {
            None => self.tcp.write(bytes),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.tcp).write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.tcp.flush()
    }
}

fn connect(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Subscriber<TcpStream> {
    let tcp = TcpStream::connect(address).expect("connect");
    tcp.set_nodelay(true).expect("nodelay");
    let client = |config: &Arc<ClientConfig>| {
        Box::new(ClientConnection::new(config.clone(), "localhost".try_into().expect("a name")).expect("a client"))
    };
    Subscriber { tcp, tls: tls.map(client) }
}

fn mqtt_connect(address: SocketAddr, tls: Option<&Arc<ClientConfig>>, name: &str) -> Subscriber<TcpStream> {
    let mut stream = connect(address, tls);
    let mut packet = vec![0x10, 12 + name.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, name.len() as u8];
    packet.extend_from_slice(name.as_bytes());
    stream.write_all(&packet).expect("CONNECT");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("CONNACK");
    assert_eq!(answer, [0x20, 2, 0, 0]);
    stream
}

fn subscriber(server: &Server, protocol: &str, number: usize) -> Subscriber<TcpStream> {
    if protocol.starts_with("mqtt") {
        let (address, tls) = if protocol == "mqtts" { (server.mqtts, Some(&server.tls)) } else { (server.mqtt, None) };
        let mut stream = mqtt_connect(address, tls, &format!("s{number}"));
        let mut packet = vec![0x82, 14, 0, 1, 0, 9];
        packet.extend_from_slice(b"Sensors/1\0");
        stream.write_all(&packet).expect("SUBSCRIBE");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("SUBACK");
        return stream;
    }
    let mut stream = connect(server.http, None);
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
    let mut streams: Vec<Subscriber<mio::net::TcpStream>> = Vec::new();
    for number in 0..count {
        let Subscriber { tcp, tls } = subscriber(&server, &protocol, number);
        tcp.set_nonblocking(true).expect("non-blocking");
        let mut tcp = mio::net::TcpStream::from_std(tcp);
        poll.registry().register(&mut tcp, mio::Token(number), mio::Interest::READABLE).expect("register");
        streams.push(Subscriber { tcp, tls });
    }
    let mut publisher = mqtt_connect(server.mqtt, None, "publisher");
    let payload = format!("{{\"temp\":20.5,\"location\":\"{}\"}}", "x".repeat(128 - 28));
    let remaining = 2 + "Sensors/1".len() + payload.len();
    let mut packet = vec![0x30, remaining as u8 & 0x7f | 0x80, (remaining >> 7) as u8, 0, 9];
    packet.extend_from_slice(b"Sensors/1");
    packet.extend_from_slice(payload.as_bytes());

    let mut buffer = vec![0; 1 << 20];
    let mut received = 0u64;
    let mut read_all = |streams: &mut [Subscriber<mio::net::TcpStream>], poll: &mut mio::Poll, wait: Duration| -> u64 {
        let mut events = mio::Events::with_capacity(1024);
        poll.poll(&mut events, Some(wait)).expect("poll");
        let mut bytes = 0;
        for event in &events {
            while let Ok(length) = streams[event.token().0].read(&mut buffer) {
                assert!(length > 0, "the server closed a subscriber");
                bytes += length as u64;
                // With TLS a read gives one record, and what is left of the others raises no event.
                if length < buffer.len() && streams[event.token().0].tls.is_none() {
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
    let (started, cpu) = (Instant::now(), server.process.cpu_seconds());
    while started.elapsed() < Duration::from_secs(seconds) {
        while (published + per_batch) as f64 - delivered / count as f64 <= in_flight as f64 {
            publisher.write_all(&batch).expect("publish");
            published += per_batch;
        }
        delivered += read_all(&mut streams, &mut poll, Duration::from_millis(100)) as f64 / frame;
    }
    let (elapsed, used) = (started.elapsed().as_secs_f64(), server.process.cpu_seconds() - cpu);
    println!(
        "{protocol} 1 -> {count}, {in_flight} in flight, {frame:.0}-byte frames: {:.2} M deliveries/s, {:.2} M per server CPU second ({:.0} % of a core)",
        delivered / elapsed / 1e6,
        delivered / used / 1e6,
        100.0 * used / elapsed
    );
}
