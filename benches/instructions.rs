//! How many instructions the hot paths take, counted by callgrind: the same on a busy machine and on a quiet one, and so
//! what CI holds them to. `cargo bench --profile dev --bench instructions` compares with `perf/instructions.json` and
//! fails where a path takes more than [`TOLERANCE`] more; with `-- --write` it writes what it finds there, and a line to
//! `perf/instructions-history.csv` (`loadgen plot` draws it). `-- --slow PATH` looks at one path, a tenth of whose work is
//! done twice, beside what it takes when it is not, to show that this is found.
//!
//! Figures are those of the development profile, which CI builds anyway; `perf/run` measures release builds.

#[path = "common/world.rs"]
mod world;

use serde_json::{Map, Value};
use shards::command::Operation;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tablecast::protocol::format::{self, Decoder, Format};
use tablecast::protocol::frames::Protocol;
use tablecast::protocol::http::request;
use tablecast::protocol::mqtt::packet::{self, Version};
use tablecast::protocol::ws::frame;
use world::World;

/// A path may take this much more than is written down. Runs repeat to the instruction; but the compiler inlines a little
/// differently from one folder to another (2.6 % were seen).
const TOLERANCE: f64 = 1.08;
/// Two runs with these numbers of rounds: what differs between them is the rounds' own.
const ROUNDS: [u32; 2] = [20, 60];

/// Prepared once, then run again and again.
type Work = Box<dyn FnMut()>;
type Prepare = fn() -> Work;

/// By name, how each is prepared.
const PATHS: [(&str, Prepare); 11] = [
    ("decode an MQTT PUBLISH", decode_publish),
    ("read an HTTP request head", read_head),
    ("unmask a WebSocket frame", read_frame),
    ("JSON to a document", from_json),
    ("a document to JSON", to_json),
    ("a turn that writes a record", || turn(0, Operation::Put, 1, 0)),
    ("a message to 200 subscribers", || turn(200, Operation::Message, 1, 0)),
    ("16 messages to 200 subscribers", || turn(200, Operation::Message, 16, 0)),
    ("a message at QoS 1 to 200 subscribers", || turn(200, Operation::Message, 1, 1)),
    ("16 messages at QoS 1 to 200 subscribers", || turn(200, Operation::Message, 16, 1)),
    ("16 messages to 200 SSE subscribers", || turn_over(Protocol::Sse, 200, Operation::Message, 16, 0)),
];

const JSON: &[u8] =
    br#"{"temp":21.5,"location":"hall 4","tags":["a","b"],"on":true,"count":12345,"note":"nothing to see"}"#;

fn decode_publish() -> Work {
    let mut bytes = vec![0x30, 130 | 0x80, 1, 0, 9];
    bytes[1] = 0x80 | ((2 + 9 + 128) & 0x7f) as u8;
    bytes.extend_from_slice(b"Sensors/1");
    bytes.resize(bytes.len() + 128, b'x');
    Box::new(move || {
        let decoded = packet::decode(black_box(&bytes), Version::V4, 1 << 20);
        assert!(matches!(black_box(decoded), Ok(Some((packet::Packet::Publish(_), _)))));
    })
}

fn read_head() -> Work {
    let head =
        b"GET /Sensors/101 HTTP/1.1\r\nHost: localhost:9926\r\nUser-Agent: bench\r\nAccept: application/json\r\n\r\n";
    Box::new(move || {
        let mut reader = request::Reader::default();
        assert!(matches!(reader.read(black_box(head), 1 << 20), Ok(request::Progress::Request(..))));
    })
}

fn read_frame() -> Work {
    let bytes = [&[0x82, 0x80 | 126, 0, 128, 1, 2, 3, 4], &[b'x'; 128][..]].concat();
    let (mut reader, mut data) = (frame::Reader::default(), Vec::new());
    Box::new(move || {
        assert!(black_box(reader.read(black_box(&bytes), 1 << 20, &mut data)).is_ok());
    })
}

fn from_json() -> Work {
    let (mut decoder, mut document) = (Decoder::default(), Vec::new());
    Box::new(move || {
        document.clear();
        decoder.decode(Format::Json, black_box(JSON), &mut document).expect("JSON");
    })
}

fn to_json() -> Work {
    let (mut document, mut text) = (Vec::new(), Vec::new());
    Decoder::default().decode(Format::Json, JSON, &mut document).expect("JSON");
    Box::new(move || {
        text.clear();
        format::encode(Format::Json, black_box(&document), &mut text);
    })
}

fn turn(subscribers: u32, operation: Operation, events: u16, qos: u8) -> Work {
    turn_over(Protocol::MqttV4, subscribers, operation, events, qos)
}

fn turn_over(protocol: Protocol, subscribers: u32, operation: Operation, events: u16, qos: u8) -> Work {
    let mut world = World::new(1, subscribers, qos, protocol);
    Box::new(move || {
        black_box(world.turn_of(operation, events, qos));
    })
}

fn perf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("perf").join(name)
}

/// The instructions of so many rounds of a path and of all around them.
fn count(path: &str, rounds: u32, is_slow: bool) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(std::env::current_exe().expect("this program")).args([path, &rounds.to_string()]);
    command.args(is_slow.then_some("slow"));
    let output = command.output().expect("run valgrind, from the package of that name");
    let told = String::from_utf8_lossy(&output.stderr);
    let line = told.lines().find_map(|line| line.split_once("Collected : "));
    let counted = line.and_then(|(_, count)| count.trim().parse().ok());
    counted.unwrap_or_else(|| panic!("valgrind says: {told}"))
}

/// The instructions of one round of a path.
fn each(path: &str, is_slow: bool) -> u64 {
    let [few, many] = ROUNDS.map(|rounds| count(path, rounds, is_slow));
    (many - few) / u64::from(ROUNDS[1] - ROUNDS[0])
}

/// Runs a path, as the program that is counted.
fn run(path: &str, rounds: u32, is_slow: bool) {
    let (_, prepare) = PATHS.iter().find(|(name, _)| *name == path).expect("a path");
    let mut path = prepare();
    for round in 0..rounds {
        path();
        if is_slow && round % 10 == 0 {
            path();
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (slow, writes) = match words[..] {
        [] => (None, false),
        ["--write"] => (None, true),
        ["--slow", path] => (Some(path), false),
        [path, rounds, ref rest @ ..] => {
            run(path, rounds.parse().expect("a number of rounds"), rest == ["slow"]);
            return ExitCode::SUCCESS;
        }
        _ => panic!("what is {words:?}?"),
    };
    let file = perf("instructions.json");
    let known: Map<String, Value> = match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).expect("perf/instructions.json is JSON"),
        Err(_) if writes => Map::new(),
        Err(error) => panic!("{}: {error}", file.display()),
    };
    let (mut found, mut is_over) = (Map::new(), false);
    println!("{:<42}{:>12}{:>12}", "instructions", "now", "then");
    for (path, _) in PATHS.into_iter().filter(|(path, _)| slow.is_none_or(|slow| slow == *path)) {
        let now = each(path, slow == Some(path));
        found.insert(path.to_owned(), now.into());
        let then = if slow.is_some() { Some(each(path, false)) } else { known.get(path).and_then(Value::as_u64) };
        let ratio = then.map(|then| now as f64 / then as f64);
        let over = ratio.is_some_and(|ratio| ratio > TOLERANCE) || (then.is_none() && !writes);
        is_over |= over;
        let verdict = if over { "  TOO MANY" } else { "" };
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{:>12} {ratio:>8.3}", then.unwrap_or_default()));
        println!("{path:<42}{now:>12}{ratio}{verdict}");
    }
    if writes {
        let text = serde_json::to_string_pretty(&found).expect("numbers") + "\n";
        std::fs::write(&file, text).expect("write perf/instructions.json");
        note(&found);
        return ExitCode::SUCCESS;
    }
    ExitCode::from(u8::from(is_over))
}

/// Adds a line to the history.
fn note(found: &Map<String, Value>) {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().expect("run git");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let file = perf("instructions-history.csv");
    let paths: Vec<&str> = PATHS.iter().map(|(path, _)| *path).collect();
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    // New paths come last: lines from before them are shorter.
    let head = format!("unix_time,after,{}\n", paths.join(","));
    let lines = before.split_once('\n').map_or("", |(_, lines)| lines);
    let counts: Vec<String> = paths.iter().map(|path| found[*path].to_string()).collect();
    let (time, revision) = (git(&["log", "-1", "--format=%ct"]), git(&["rev-parse", "--short", "HEAD"]));
    std::fs::write(&file, format!("{head}{lines}{time},{revision},{}\n", counts.join(","))).expect("write the history");
}
