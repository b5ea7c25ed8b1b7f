//! A session comes back to 10,000 queued messages: from CONNECT to the last acknowledgement, and what that costs the
//! server. The server is pinned to core 0 (one shard), the client to core 1; the client acknowledges as it reads.
//!
//! `cargo bench --bench resume [-- --messages N --qos 1|2 --rounds N]`

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

fn number(name: &str, default: usize) -> usize {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| *argument == format!("--{name}"));
    at.and_then(|at| arguments.get(at + 1)).map_or(default, |value| value.parse().expect("a number"))
}

struct Server {
    child: Child,
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
        .args([
            "run",
            "--shards",
            "1",
            "--http",
            "127.0.0.1:0",
            "--mqtt",
            "127.0.0.1:0",
            "--log-level",
            "error",
            "--data",
        ])
        .arg(data.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = lines.map_while(Result::ok).find(|line| line.starts_with("listening mqtt ")).expect("an address");
    let mqtt = line.rsplit(' ').next().expect("an address").parse().expect("an address");
    Server { child, mqtt, _data: data }
}

/// Seconds of CPU that a process has used, user and system.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("/proc");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
    ticks / 100.0
}

/// Connects with 3.1.1; gives the stream and whether there was a session.
fn connect(address: SocketAddr, name: &str, clean: bool) -> (TcpStream, bool) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let flags = u8::from(clean) << 1;
    let mut packet =
        vec![0x10, 12 + name.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0, 0, name.len() as u8];
    packet.extend_from_slice(name.as_bytes());
    stream.write_all(&packet).expect("CONNECT");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("CONNACK");
    assert_eq!((answer[0], answer[3]), (0x20, 0));
    (stream, answer[2] == 1)
}

/// Reads packets until `body` has seen enough.
fn packets(stream: &mut TcpStream, mut body: impl FnMut(&mut TcpStream, u8, &[u8]) -> bool) {
    let mut buffer = vec![0; 1 << 20];
    let mut filled = 0;
    loop {
        let length = stream.read(&mut buffer[filled..]).expect("read");
        assert!(length > 0, "the server closed the connection");
        filled += length;
        let mut at = 0;
        while filled - at >= 2 {
            // Packets here are shorter than 16 KiB.
            let (remaining, head) = match buffer[at + 1] {
                short @ 0..=0x7f => (usize::from(short), 2),
                low if filled - at >= 3 => (usize::from(low & 0x7f) | usize::from(buffer[at + 2]) << 7, 3),
                _ => break,
            };
            if filled - at < head + remaining {
                break;
            }
            let goes_on = body(stream, buffer[at], &buffer[at + head..at + head + remaining]);
            at += head + remaining;
            if !goes_on {
                return;
            }
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return; // `cargo test --benches` only builds it
    }
    let (count, qos, rounds) = (number("messages", 10_000), number("qos", 1) as u8, number("rounds", 5));
    let server = start();
    tablecast::reactor::run_on(&[1]).expect("a second core");
    let (mut subscriber, _) = connect(server.mqtt, "resumes", false);
    subscriber.write_all(&[0x82, 14, 0, 1, 0, 9]).expect("SUBSCRIBE");
    subscriber.write_all(&[b"Sensors/#".as_slice(), &[qos]].concat()).expect("SUBSCRIBE");
    packets(&mut subscriber, |_, first, _| first != 0x90);
    drop(subscriber);
    let payload = format!("{{\"temp\":20.5,\"location\":\"{}\"}}", "x".repeat(128 - 28));
    for round in 0..rounds {
        let (mut publisher, _) = connect(server.mqtt, "publisher", true);
        for first in (0..count).step_by(500) {
            let mut batch = Vec::new();
            let last = (first + 500).min(count);
            for id in first..last {
                let remaining = 2 + 9 + 2 + payload.len();
                batch.extend_from_slice(&[
                    0x32 + 2 * (qos - 1),
                    remaining as u8 & 0x7f | 0x80,
                    (remaining >> 7) as u8,
                    0,
                    9,
                ]);
                batch.extend_from_slice(format!("Sensors/{}", id % 10).as_bytes());
                batch.extend_from_slice(&(id as u16 + 1).to_be_bytes());
                batch.extend_from_slice(payload.as_bytes());
            }
            publisher.write_all(&batch).expect("publish");
            let mut left = last - first;
            packets(&mut publisher, |stream, first, body| {
                if first == 0x50 {
                    stream.write_all(&[0x62, 2, body[0], body[1]]).expect("PUBREL");
                } else {
                    left -= 1;
                }
                left > 0
            });
        }
        let (before, started) = (cpu_seconds(server.child.id()), Instant::now());
        let (mut subscriber, present) = connect(server.mqtt, "resumes", false);
        assert!(present, "the session was kept");
        let mut left = count;
        packets(&mut subscriber, |stream, first, body| {
            if first >> 4 == 3 {
                let at = 2 + usize::from(body[1]);
                stream.write_all(&[if qos == 1 { 0x40 } else { 0x50 }, 2, body[at], body[at + 1]]).expect("ack");
            } else if first == 0x62 {
                stream.write_all(&[0x70, 2, body[0], body[1]]).expect("PUBCOMP");
            }
            left -= usize::from(first >> 4 == if qos == 1 { 3 } else { 6 });
            left > 0
        });
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(server.child.id()) - before);
        subscriber.write_all(&[0xe0, 0]).expect("DISCONNECT");
        println!(
            "round {round}: {count} messages at QoS {qos} in {seconds:.3} s: {:.0} a second, {:.0} per server CPU second",
            count as f64 / seconds,
            count as f64 / cpu.max(0.01)
        );
    }
}
