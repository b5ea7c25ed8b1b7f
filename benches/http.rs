//! The real binary under requests for one record, 64 connections without pipelining, one shard on core 0; the generator,
//! `wrk`, is on core 1. Read "per CPU second": requests in a second of the server's user and system time. Beside it in
//! the same rounds, on the same core: nginx with the same bytes, from a file whose descriptor it keeps and out of its
//! configuration; and redis for writes, another protocol with another generator (`redis-benchmark`), for scale.
//!
//! `cargo bench --bench http [-- --only get|put --rounds N --seconds N --connections N --io uring|epoll --beside BINARY]`.
//! `--beside`: another build of the server, in the same rounds. Needs the packages wrk, nginx and redis.

mod common {
    pub mod process;
}

use common::process::{Process, argument, number};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SERVER_CORE: usize = 0;
const GENERATOR_CORE: usize = 1;
const RECORD_BYTES: usize = 128;

const SCHEMA: &str = "type Sensors @table @export { id: ID @primaryKey }
type Memory @table(durability: \"memory\") @export { id: ID @primaryKey }
";

/// What asks.
enum Generator {
    Wrk {
        url: String,
        script: PathBuf,
    },
    /// It counts requests, not time: so many.
    RedisBenchmark {
        port: u16,
        requests: usize,
    },
}

/// One line of a table.
struct Candidate<'a> {
    name: String,
    server: &'a Process,
    generator: Generator,
    rounds: Vec<Round>,
}

#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    per_cpu_second: f64,
    /// Part of the server's core that was in use.
    busy: f64,
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn wait_for(address: SocketAddr) {
    let until = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "nothing listens at {address}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts a server of ours, or another build of it.
fn start_ours(binary: &str, app: &Path, data: &Path) -> (Process, SocketAddr) {
    let mut command = command(binary);
    command
        .arg("run")
        .arg(app)
        .args(["--shards", "1", "--http", "127.0.0.1:0", "--https", "off", "--mqtt", "off", "--mqtts", "off"])
        .args(["--io", &argument("io", "auto"), "--log-level", "error", "--data"])
        .arg(data);
    let (process, [address]) = Process::start_listening(&mut command, ["http"]);
    (process, address)
}

fn start_nginx(folder: &Path, body: &str) -> (Process, SocketAddr) {
    let address = free_address();
    fs::write(folder.join("record.json"), body).expect("write the file");
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {name};"));
    // One process, as a worker by itself works.
    let configuration = format!(
        "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr crit;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; keepalive_requests 1000000000; default_type application/json; {}
            sendfile on; open_file_cache max=16 inactive=1h; open_file_cache_valid 1h;
            server {{
                listen {address}; root {};
                location = /inline {{ return 200 '{body}'; }}
            }}
        }}",
        temporary.join(" "),
        folder.display()
    );
    fs::write(folder.join("nginx.conf"), configuration).expect("write the configuration");
    let mut command = command("nginx");
    command.arg("-p").arg(folder).args(["-c", "nginx.conf", "-e", "stderr"]);
    let process = Process::start(&mut command);
    wait_for(address);
    (process, address)
}

fn start_redis(folder: &Path, fsync: &str) -> (Process, u16) {
    let address = free_address();
    let mut command = command("redis-server");
    command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
    command.args(["--appendfsync", fsync, "--logfile", "redis.log", "--dir"]).arg(folder).stdout(Stdio::null());
    let process = Process::start(&mut command);
    wait_for(address);
    (process, address.port())
}

/// One request by hand; gives the body of the answer.
fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
    answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

/// What a generator found: the number in the line that has `what` in it.
fn figure(output: &str, what: &str) -> f64 {
    let line = output.split(['\n', '\r']).rfind(|line| line.contains(what));
    let words = line.into_iter().flat_map(str::split_whitespace);
    words.filter_map(|word| word.parse().ok()).next().unwrap_or_else(|| panic!("no {what} in {output}"))
}

impl Generator {
    /// Asks for so many seconds; gives requests in a second, and in all.
    fn run(&self, connections: usize, seconds: usize) -> (f64, f64) {
        let mut command = match self {
            Generator::Wrk { url, script } => {
                let mut command = command("wrk");
                command.args(["-t1", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), "-s"]);
                command.arg(script).arg(url);
                command
            }
            Generator::RedisBenchmark { port, requests } => {
                let mut command = command("redis-benchmark");
                command.args(["-p", &port.to_string(), "-c", &connections.to_string(), "-n", &requests.to_string()]);
                command.args(["-q", "-t", "set", "-d", &RECORD_BYTES.to_string()]);
                command
            }
        };
        let output = command.output().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
        match self {
            Generator::Wrk { .. } => (figure(&text, "Requests/sec:"), figure(&text, "requests in")),
            Generator::RedisBenchmark { requests, .. } => (figure(&text, "requests per second"), *requests as f64),
        }
    }
}

impl<'a> Candidate<'a> {
    fn new(name: impl Into<String>, server: &'a Process, generator: Generator) -> Candidate<'a> {
        Candidate { name: name.into(), server, generator, rounds: Vec::new() }
    }

    fn run(&mut self, connections: usize, seconds: usize) {
        let (started, cpu) = (Instant::now(), self.server.cpu_seconds());
        let (per_second, requests) = self.generator.run(connections, seconds);
        let (elapsed, used) = (started.elapsed().as_secs_f64(), self.server.cpu_seconds() - cpu);
        self.rounds.push(Round { per_second, per_cpu_second: requests / used, busy: used / elapsed });
    }
}

/// Least, median, most.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

/// Lets all take turns, prints what came of it, and how the first compares to the others, round by round.
fn compare(title: &str, mut candidates: Vec<Candidate<'_>>) {
    let (rounds, seconds, connections) = (number("rounds", 5), number("seconds", 2), number("connections", 64));
    for round in 0..rounds {
        // Now this one is first, now that one.
        let count = candidates.len();
        for turn in 0..count {
            candidates[(round + turn) % count].run(connections, seconds);
        }
    }
    println!("\n{title}: {connections} connections, {rounds} rounds of {seconds} s, median (least to most)");
    println!("{:34} {:>10} {:>16} {:>17} {:>14}", "", "requests/s", "per CPU second", "", "server's core");
    let of = |candidate: &Candidate<'_>, value: fn(&Round) -> f64| spread(candidate.rounds.iter().map(value));
    for candidate in &candidates {
        let [_, rate, _] = of(candidate, |round| round.per_second);
        let [least, median, most] = of(candidate, |round| round.per_cpu_second);
        let [_, busy, _] = of(candidate, |round| round.busy);
        println!(
            "{:34} {rate:>10.0} {median:>16.0} {:>17} {:>12.0} %",
            candidate.name,
            format!("({least:.0} to {most:.0})"),
            100.0 * busy
        );
    }
    let (first, others) = candidates.split_first().expect("at least one");
    for other in others {
        let pairs = first.rounds.iter().zip(&other.rounds);
        let [least, median, most] = spread(pairs.map(|(own, other)| own.per_cpu_second / other.per_cpu_second));
        println!("{} / {}: {median:.2} ({least:.2} to {most:.2}) per CPU second", first.name, other.name);
    }
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return; // `cargo test --benches` only builds it
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path).expect("a folder");
        path
    };
    let app = path("app");
    fs::write(app.join("config.yaml"), "graphqlSchema:\n  files: schema.graphql\nrest: true\n").expect("write");
    fs::write(app.join("schema.graphql"), SCHEMA).expect("write");
    let record = format!("{{\"temp\":20.5,\"location\":\"{}\",\"id\":\"1\"}}", "x".repeat(RECORD_BYTES - 36));
    assert_eq!(record.len(), RECORD_BYTES);
    let (get, put) = (folder.path().join("get.lua"), folder.path().join("put.lua"));
    fs::write(&get, "").expect("write");
    let script = format!("wrk.method = 'PUT'\nwrk.body = '{record}'\nwrk.headers['Content-Type'] = 'application/json'");
    fs::write(&put, script).expect("write");

    let (own, beside, only) =
        (env!("CARGO_BIN_EXE_tablecast"), argument("beside", ""), argument("only", "get and put"));
    // Children stay on the core of who starts them.
    tablecast::reactor::run_on(&[SERVER_CORE]).expect("a first core");
    let mut ours = vec![("tablecast", start_ours(own, &app, &path("data")))];
    if !beside.is_empty() {
        ours.push(("the other build", start_ours(&beside, &app, &path("data-beside"))));
    }
    for (_, (_, address)) in &ours {
        for table in ["Sensors", "Memory"] {
            ask(*address, "PUT", &format!("/{table}/1"), &record);
        }
    }
    let body = ask(ours[0].1.1, "GET", "/Sensors/1", "");
    assert_eq!(body.len(), RECORD_BYTES);
    let (nginx, nginx_address) = start_nginx(&path("nginx"), &body);
    let (always, no) = (start_redis(&path("always"), "always"), start_redis(&path("no"), "no"));
    tablecast::reactor::run_on(&[GENERATOR_CORE]).expect("a second core");

    let wrk = |address: &SocketAddr, path: &str, script: &PathBuf| Generator::Wrk {
        url: format!("http://{address}{path}"),
        script: script.clone(),
    };
    if only.contains("get") {
        let mut candidates: Vec<Candidate<'_>> = Vec::new();
        for (name, (process, address)) in &ours {
            candidates.push(Candidate::new(*name, process, wrk(address, "/Sensors/1", &get)));
        }
        for (name, path) in [("nginx, file", "/record.json"), ("nginx, inline", "/inline")] {
            assert_eq!(ask(nginx_address, "GET", path, ""), body);
            candidates.push(Candidate::new(name, &nginx, wrk(&nginx_address, path, &get)));
        }
        compare(&format!("GET, {RECORD_BYTES} bytes of JSON"), candidates);
    }
    if only.contains("put") {
        let per_run = |per_second: usize| number("seconds", 2) * per_second;
        let peers = [
            ("disk", "/Sensors/1", "redis SET, appendfsync always", &always, 20_000),
            ("memory", "/Memory/1", "redis SET, appendfsync no", &no, 100_000),
        ];
        for (durability, path, peer, (redis, port), per_second) in peers {
            let mut candidates: Vec<Candidate<'_>> = Vec::new();
            for (name, (process, address)) in &ours {
                candidates.push(Candidate::new(*name, process, wrk(address, path, &put)));
            }
            let generator = Generator::RedisBenchmark { port: *port, requests: per_run(per_second) };
            candidates.push(Candidate::new(peer, redis, generator));
            compare(&format!("PUT, {RECORD_BYTES} bytes of JSON, durability {durability}"), candidates);
        }
    }
}
