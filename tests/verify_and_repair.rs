//! Promise 3: rot is found, never hidden; and what can be read comes back. Data made by the real server, killed and
//! stopped, is damaged in every way that is known here: `verify` names file and offset, a strict server refuses it, one
//! that is not strict serves the other shards, `repair` says what is lost and loses nothing else.

mod common;

use common::http::Connection;
use common::wire::{self, Mqtt, Random};
use common::{Options, PATIENCE, Server, eventually, get, put_json};
use serde_json::{Value, json};
use shards::log::recover;
use shards::progress::Progress;
use shards::storage::Directory;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tempfile::TempDir;

const SHARDS: usize = 2;
const KEYS: usize = 24;
/// Lives of the server that made the data: each begins a segment.
const LIVES: usize = 4;
/// Of a segment's file that is kept: what is behind it are zeros, and copying them takes time.
const SEGMENT_BYTES: u64 = 64 << 10;

/// Data that the real server has written.
struct Made {
    home: TempDir,
    /// What each event of it was, by shard and seq.
    events: BTreeMap<(u64, u64), Event>,
}

#[derive(Clone, Debug, PartialEq)]
struct Event {
    key: String,
    /// `Null`: a delete.
    document: Value,
}

impl Made {
    /// A copy that may be damaged.
    fn copy(&self) -> TempDir {
        let copy = TempDir::with_prefix("tablecast-repair-").expect("make a temporary folder");
        copy_all(&self.home.path().join("data"), &copy.path().join("data"));
        copy
    }

    /// The newest version of each key, by shard and key, of the events that `is_left` leaves.
    fn newest(&self, is_left: impl Fn(u64, u64) -> bool) -> BTreeMap<(u64, &str), &Value> {
        let left = self.events.iter().filter(|((shard, seq), _)| is_left(*shard, *seq));
        left.map(|((shard, _), event)| ((*shard, event.key.as_str()), &event.document)).collect()
    }
}

/// What is in the log is what these tests write.
const NOTHING_ELSE: &[&str] = &["--mqtt-sys-interval", "0"];

/// `stops`: the last life ends in peace, so that the mark file names all of it; else it is killed, as the others.
fn make(stops: bool) -> Made {
    let home = TempDir::with_prefix("tablecast-repair-").expect("make a temporary folder");
    let data = home.path().join("data");
    for life in 0..LIVES {
        let options = Options { data: Some(data.clone()), shards: SHARDS, ..Options::default() };
        let mut server = Server::start(options.args(NOTHING_ELSE));
        let mut connection = Connection::open(server.http());
        for key in 0..KEYS {
            let path = format!("/Sensors/key-{key}");
            let response = match (life * KEYS + key) % 11 {
                10 => connection.request("DELETE", &path, &[], b""),
                _ => {
                    let body = json!({ "temp": life * 100 + key, "location": "x".repeat(key * 7) }).to_string();
                    connection.request("PUT", &path, &[("Content-Type", "application/json")], body.as_bytes())
                }
            };
            assert!(response.status < 300 || response.status == 404, "{response:?}");
        }
        eventually("indexes of all segments but the newest", PATIENCE, || {
            let indexed = |path: &PathBuf| path.with_extension("index").exists();
            let sealed = |shard| segments(&data, shard).into_iter().take(life);
            (0..SHARDS as u64).flat_map(sealed).all(|path| indexed(&path)).then_some(())
        });
        if stops && life + 1 == LIVES {
            assert!(server.terminate().success());
        } else {
            server.kill9();
        }
    }
    for shard in 0..SHARDS as u64 {
        for segment in segments(&data, shard) {
            let file = fs::OpenOptions::new().write(true).open(&segment).expect("a segment");
            file.set_len(file.metadata().expect("its length").len().min(SEGMENT_BYTES)).expect("cut zeros off");
        }
    }
    let events = events(&data);
    assert!(events.len() > LIVES * KEYS * 9 / 10, "{} events", events.len());
    Made { home, events }
}

fn killed() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| make(false))
}

fn stopped() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| make(true))
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("list a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("its type").is_dir() {
            true => copy_all(&entry.path(), &target),
            false => copy(&entry.path(), &target),
        }
    }
}

/// Runs a verb: its exit code and what it prints.
fn tool(data: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tablecast"));
    command.env_remove("TABLECAST_TEST_IO");
    let output = command.args(arguments).arg("--data").arg(data).output().expect("start tablecast");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().unwrap_or_else(|| panic!("{arguments:?} ended by a signal: {text}"));
    assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    (code, text)
}

fn verify(data: &Path) -> (i32, Value) {
    let (code, text) = tool(data, &["verify", "--json"]);
    (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// Seqs that verify calls lost, by shard, and the end of each shard's log.
fn lost(report: &Value) -> Vec<(Vec<Range<u64>>, u64)> {
    let number = |value: &Value| value.as_u64().expect("a number");
    let range = |lost: &Value| number(&lost["first"])..number(&lost["last"]) + 1;
    let shard = |shard: &Value| {
        (shard["lost"].as_array().expect("a list").iter().map(range).collect(), number(&shard["next_seq"]))
    };
    report["shards"].as_array().expect("a list").iter().map(shard).collect()
}

fn is_lost(lost: &[(Vec<Range<u64>>, u64)], shard: u64, seq: u64) -> bool {
    let (ranges, next_seq) = &lost[shard as usize];
    seq >= *next_seq || ranges.iter().any(|range| range.contains(&seq))
}

/// All events, as `inspect` shows them.
fn events(data: &Path) -> BTreeMap<(u64, u64), Event> {
    let (code, text) = tool(data, &["inspect", "--records", "--json"]);
    assert_eq!(code, 0, "{text}");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let records = lines.filter(|line| line["type"] == "record");
    let event = |line: Value| {
        let number = |name: &str| line[name].as_u64().expect("a number");
        let key = line["key"].as_str().expect("a text").to_owned();
        assert_eq!(line["table"], "Sensors");
        ((number("shard"), number("seq")), Event { key, document: line["document"].clone() })
    };
    records.map(event).collect()
}

/// Segments of a shard, by number.
fn segments(data: &Path, shard: u64) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join(format!("shard-{shard:02}"))).expect("list a shard");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
    found.sort();
    found
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("read a file");
    change(&mut bytes);
    fs::write(path, bytes).expect("write a file");
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).expect("copy a file");
}

fn flip(path: &Path, offset: usize) {
    change(path, |bytes| bytes[offset] ^= 0x10);
}

/// Where the last batch of a segment begins.
fn last_batch(path: &Path) -> usize {
    let bytes = fs::read(path).expect("read a segment");
    let mut starts = (0..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(b"TCB1"));
    starts.next_back().expect("a batch")
}

/// Does something to the files of shard 0.
type Damage = fn(&Path, &[PathBuf]);

/// What it is called, what it does, and which file `verify` must name.
const DAMAGES: [(&str, Damage, &str); 14] = [
    ("a bit of a record", |_, files| flip(&files[1], 64 + 64 + 40), "00000002.log"),
    ("a bit of a batch header", |_, files| flip(&files[1], 64 + 30), "00000002.log"),
    ("a segment header", |_, files| flip(&files[1], 24), "00000002.log"),
    ("the first segment header", |_, files| flip(&files[0], 24), "00000001.log"),
    ("all segment headers", |_, files| files.iter().for_each(|file| flip(file, 24)), "00000003.log"),
    ("cut in the middle", |_, files| change(&files[1], |bytes| bytes.truncate(bytes.len() / 2)), "00000002.log"),
    ("cut to nothing", |_, files| change(&files[2], Vec::clear), "00000003.log"),
    ("zeros", |_, files| change(&files[1], |bytes| bytes[200..712].fill(0)), "00000002.log"),
    ("missing in the middle", |_, files| fs::remove_file(&files[1]).expect("remove"), "00000002.index"),
    ("missing with its index", |_, files| remove_with_index(&files[1]), "00000001.log"),
    ("missing at the beginning", |_, files| remove_with_index(&files[0]), "00000001.log"),
    (
        "swapped",
        |data, files| {
            fs::rename(&files[1], data.join("aside")).expect("rename");
            fs::rename(&files[2], &files[1]).expect("rename");
            fs::rename(data.join("aside"), &files[2]).expect("rename");
        },
        "00000003.log",
    ),
    ("of another shard", |data, files| copy(&segments(data, 1)[1], &files[1]), "00000002.log"),
    ("the segment that was written last", |_, files| flip(&files[3], 64 + 64 + 40), "00000004.log"),
];

fn remove_with_index(segment: &Path) {
    fs::remove_file(segment).expect("remove a segment");
    fs::remove_file(segment.with_extension("index")).expect("remove its index");
}

fn start(data: &Path, arguments: &[&str]) -> Result<Server, String> {
    let options = Options { data: Some(data.to_owned()), shards: SHARDS, ..Options::default() };
    Server::try_start(options.args(&[NOTHING_ELSE, arguments].concat()))
}

/// What a server answers for each key.
fn read_all(server: &Server) -> BTreeMap<String, (u16, Value)> {
    let mut connection = Connection::open(server.http());
    let mut read = |key: usize| {
        let key = format!("key-{key}");
        let response = connection.request("GET", &format!("/Sensors/{key}"), &[], b"");
        let body = if response.status == 200 { response.json() } else { Value::Null };
        (key, (response.status, body))
    };
    (0..KEYS).map(&mut read).collect()
}

/// Every record that has an event left must be there with the newest of them.
#[track_caller]
fn assert_serves(server: &Server, made: &Made, lost: &[(Vec<Range<u64>>, u64)], name: &str) {
    let answers = read_all(server);
    let newest = made.newest(|shard, seq| !is_lost(lost, shard, seq));
    for ((_, key), document) in &newest {
        let expected = if document.is_null() { (404, Value::Null) } else { (200, (*document).clone()) };
        assert_eq!(answers[*key], expected, "{name}: {key}");
    }
    let there = answers.values().filter(|(status, _)| *status == 200).count();
    assert_eq!(there, newest.values().filter(|document| !document.is_null()).count(), "{name}: nothing is made up");
}

/// Names and lengths of all files.
fn listing(data: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("list a folder") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("its type").is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path(), entry.metadata().expect("its length").len());
            }
        }
    }
    found
}

#[test]
fn sound_data_is_called_clean() {
    for made in [killed(), stopped()] {
        let copy = made.copy();
        let data = copy.path().join("data");
        let before = listing(&data);
        let (code, report) = verify(&data);
        assert_eq!((code, report["status"].as_str()), (0, Some("ok")), "{report}");
        assert!(lost(&report).iter().all(|(ranges, _)| ranges.is_empty()));
        assert_eq!(tool(&data, &["repair"]), (0, "nothing to repair\n".to_owned()));
        assert_eq!(tool(&data, &["repair", "--accept-loss"]), (0, "nothing to repair\n".to_owned()));
        assert_eq!(listing(&data), before, "nothing was changed");
    }
    let empty = TempDir::new().expect("make a temporary folder");
    assert_eq!(tool(empty.path(), &["verify"]).0, 2, "no data directory");
}

#[test]
fn every_kind_of_damage_is_found_and_repaired() {
    let made = killed();
    let shard_of: BTreeMap<&str, u64> =
        made.events.iter().map(|((shard, _), event)| (event.key.as_str(), *shard)).collect();
    for (name, damage, file) in DAMAGES {
        let copy = made.copy();
        let data = copy.path().join("data");
        damage(&data, &segments(&data, 0));
        let before = listing(&data);

        let (code, text) = tool(&data, &["verify"]);
        assert_eq!(code, 65, "{name}: {text}");
        assert!(text.contains(&format!("shard-00/{file}, offset ")), "{name}: {text}");
        assert!(text.contains("shard 1: clean"), "{name}: {text}");
        let lost = lost(&verify(&data).1);
        assert!(lost[1].0.is_empty(), "{name}: {lost:?}");

        let refused = start(&data, &["--strict", "true"]).map(drop).expect_err(name);
        let is_said = refused.contains("is damaged at offset") || refused.contains("belongs to another shard");
        assert!(refused.contains("exit status: 74") && is_said, "{name}: {refused}");

        let server = start(&data, &[]).unwrap_or_else(|why| panic!("{name}: {why}"));
        let health = get(server.http(), "/health").json();
        assert_eq!((&health["status"], &health["shards"][1]["status"]), (&json!("damaged"), &json!("ok")), "{name}");
        let damaged = &health["shards"][0];
        assert!(damaged["file"].as_str().is_some_and(|file| file.starts_with("shard-00/")), "{name}: {health}");
        assert!(damaged["offset"].is_u64(), "{name}: {health}");
        for (key, (status, _)) in read_all(&server) {
            assert_eq!(status == 503, shard_of[key.as_str()] == 0, "{name}: {key} is answered with {status}");
        }
        let hurt = shard_of.iter().find(|(_, shard)| **shard == 0).expect("a key of shard 0").0;
        assert_eq!(put_json(server.http(), &format!("/Sensors/{hurt}"), &json!({ "temp": 1 })).status, 503, "{name}");
        let mut mqtt = Mqtt::open(server.mqtt(), 5, "writer");
        let publish = wire::publish(5, &format!("Sensors/{hurt}"), br#"{"temp":1}"#, (1, true), 7);
        mqtt.connection.send(&publish);
        let (first, body) = mqtt.expect();
        assert!(first == 0x40 && body[..2] == [0, 7] && body[2] >= 0x80, "{name}: PUBACK says {body:02x?}");
        drop((mqtt, server));

        let (code, text) = tool(&data, &["repair"]);
        assert!(code == 65 && text.contains("--accept-loss"), "{name}: {text}");
        let of_shard_0 = |all: &BTreeMap<PathBuf, u64>| -> Vec<(PathBuf, u64)> {
            let own = all.iter().filter(|(path, _)| path.starts_with(data.join("shard-00")));
            own.map(|(path, bytes)| (path.clone(), *bytes)).collect()
        };
        assert_eq!(of_shard_0(&listing(&data)), of_shard_0(&before), "{name}: nothing was changed");
        let (code, text) = tool(&data, &["repair", "--accept-loss"]);
        assert_eq!(code, 0, "{name}: {text}");
        for range in &lost[0].0 {
            let named = if range.end - range.start == 1 { "event " } else { "events " };
            assert!(text.contains(&format!("lost: {named}{}", range.start)), "{name}: {text}");
        }
        let (code, report) = verify(&data);
        assert_eq!(code, 0, "{name}: {report}");
        let mut server = start(&data, &["--strict", "true"]).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_serves(&server, made, &lost, name);
        assert_eq!(put_json(server.http(), &format!("/Sensors/{hurt}"), &json!({ "temp": 1 })).status, 204, "{name}");
        assert!(server.terminate().success());
        assert_eq!(verify(&data).0, 0, "{name}: after a life of the server");
        // What was taken out is kept.
        let kept = listing(&data).into_keys().filter(|path| path.to_string_lossy().contains("/damaged-"));
        let kept: Vec<String> =
            kept.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
        let is_gone = name.starts_with("missing") && !file.ends_with("index");
        assert!(is_gone || kept.iter().any(|it| it == file), "{name}: {kept:?}");
    }
}

#[test]
fn damage_that_only_the_mark_file_knows_is_found() {
    let made = stopped();
    let copy = made.copy();
    let data = copy.path().join("data");
    let last = segments(&data, 0).pop().expect("a segment");
    let at = last_batch(&last);
    change(&last, |bytes| bytes[at..].fill(0));
    let (code, report) = verify(&data);
    let lost = lost(&report);
    let last_seq = made.events.keys().filter(|(shard, _)| *shard == 0).map(|(_, seq)| *seq).max().expect("an event");
    assert_eq!(code, 65, "{report}");
    assert!(matches!(lost[0].0[..], [Range { start, end }] if (start, end) == (last_seq, last_seq + 1)), "{report}");
    assert_eq!(report["shards"][0]["problems"][0]["offset"], json!(at), "{report}");
    let (code, text) = tool(&data, &["repair", "--accept-loss"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(verify(&data).0, 0);
    assert_serves(&start(&data, &["--strict", "true"]).expect("repaired"), made, &lost, "mark");

    // Without a promise it is a torn tail.
    let copy = killed().copy();
    let data = copy.path().join("data");
    let last = segments(&data, 0).pop().expect("a segment");
    let at = last_batch(&last);
    fs::remove_file(data.join("shard-00/mark")).ok();
    flip(&last, at + 80);
    let (code, report) = verify(&data);
    assert_eq!((code, report["shards"][0]["status"].as_str()), (0, Some("torn tail")), "{report}");
    assert_eq!(report["shards"][0]["torn_tail"]["offset"], json!(at), "{report}");
}

#[test]
fn records_that_change_are_named() {
    let made = killed();
    let copy = made.copy();
    let data = copy.path().join("data");
    // All of the last two lives: the index of the third segment names the records in it.
    let files = segments(&data, 0);
    let of_third: Vec<u64> = {
        let (_, text) = tool(&data, &["inspect", "--shard", "0", "--segment", "3", "--records", "--json"]);
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        lines.filter(|line| line["type"] == "record").filter_map(|line| line["seq"].as_u64()).collect()
    };
    fs::remove_file(&files[2]).expect("remove a segment"); // its index stays
    change(&files[3], |bytes| bytes[64..].fill(0));
    let (code, text) = tool(&data, &["repair", "--accept-loss"]);
    assert_eq!(code, 0, "{text}");
    let first = *of_third.first().expect("an event");
    let newest_before = made.newest(|shard, seq| shard == 0 && seq < first);
    let mut named = 0;
    for seq in of_third {
        let event = &made.events[&(0, seq)];
        let had = newest_before.get(&(0, event.key.as_str())).is_some_and(|document| !document.is_null());
        let expected = match (event.document.is_null(), had) {
            (true, true) => "its delete of ",
            (true, false) => continue,
            (false, true) => "the version of ",
            (false, false) => "and with it the record",
        };
        let line = text.lines().find(|line| line.contains(&format!("Sensors/{}: ", event.key)));
        assert!(line.is_some_and(|line| line.contains(expected)), "{}: {expected:?} in {text}", event.key);
        named += 1;
    }
    assert!(named > 5, "{text}");
}

#[test]
fn an_interrupted_repair_can_be_run_again() {
    let made = killed();
    let copy = made.copy();
    let data = copy.path().join("data");
    let shard = data.join("shard-00");
    let files = segments(&data, 0);
    flip(&files[0], 64 + 64 + 40);
    flip(&files[2], 64 + 64 + 40);
    fs::write(shard.join("staged"), b"half of something").expect("write");
    let damaged = TempDir::new().expect("make a temporary folder");
    copy_all(&data, damaged.path());
    let lost = lost(&verify(&data).1);
    assert_eq!(tool(&data, &["repair", "--accept-loss"]).0, 0);
    let written: Vec<PathBuf> = segments(&data, 0).into_iter().filter(|path| !files.contains(path)).collect();
    assert_eq!(written.len(), 2, "a gap each");
    // Each state on the way: the first `count` rewritten segments are there (the last of them with or without its
    // index), the first `removed` of the old names are gone.
    let olds = [&files[0], &files[2]].map(|path| [path.with_extension("index"), path.clone()]).concat();
    let states = [(0, true, 0), (1, false, 0), (1, true, 0), (2, false, 0), (2, true, 0), (2, true, 1), (2, true, 3)];
    for (count, indexed, removed) in states {
        let state = TempDir::new().expect("make a temporary folder");
        copy_all(damaged.path(), state.path());
        let target = state.path().join("shard-00");
        for (rank, path) in written.iter().take(count).enumerate() {
            fs::copy(path, target.join(path.file_name().expect("a name"))).expect("copy");
            let index = path.with_extension("index");
            if indexed || rank + 1 < count {
                fs::copy(&index, target.join(index.file_name().expect("a name"))).expect("copy");
            }
        }
        for old in &olds[..removed] {
            fs::remove_file(target.join(old.file_name().expect("a name"))).expect("remove");
        }
        let name = format!("{count} segments written, index {indexed}, {removed} names removed");
        if count < 2 {
            assert_eq!(verify(state.path()).0, 65, "{name}: still damaged");
        }
        let (code, text) = tool(state.path(), &["repair", "--accept-loss"]);
        assert_eq!(code, 0, "{name}: {text}");
        assert_eq!(verify(state.path()).0, 0, "{name}");
        assert_serves(&start(state.path(), &["--strict", "true"]).expect(&name), made, &lost, &name);
    }
}

#[test]
fn a_running_server_can_be_looked_at() {
    let server = Server::start(Options::default());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let mut connection = Connection::open(server.http());
                let body = json!({ "location": "x".repeat(2000) }).to_string();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let path = format!("/Sensors/{writer}-{}", n % 500);
                    let headers = [("Content-Type", "application/json")];
                    assert!(connection.request("PUT", &path, &headers, body.as_bytes()).status < 300);
                }
            });
        }
        for _ in 0..25 {
            let (code, text) = tool(&server.data(), &["verify"]);
            assert_eq!(code, 0, "{text}");
        }
        let (code, text) = tool(&server.data(), &["repair", "--accept-loss"]);
        assert!(code == 1 && text.contains("another server has this data directory open"), "{text}");
        assert_eq!(tool(&server.data(), &["inspect"]).0, 0);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn inspect_shows_what_stands_where() {
    let made = killed();
    let data = made.home.path().join("data");
    let (code, text) = tool(&data, &["inspect", "--shard", "1", "--segment", "2", "--records"]);
    assert_eq!(code, 0);
    for expected in
        ["format 3, 2 shards", "table 1: Sensors", "00000002.log  appended", "batch at 64: ", "put Sensors/"]
    {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    assert!(!text.contains("shard 0 in") && !text.contains("00000001.log"), "{text}");
    assert_eq!(tool(&data, &["inspect", "--shard", "2"]).0, 2);
}

/// Damages a copy at random. Gives what was done, for the message of a failure.
fn damage_at_random(data: &Path, random: &mut Random) -> String {
    let shard = random.below(SHARDS as u64);
    let folder = data.join(format!("shard-{shard:02}"));
    let entries = fs::read_dir(&folder).expect("list a shard").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    let mut pick = || random.below(files.len() as u64) as usize;
    let (file, other) = (files[pick()].clone(), files[pick()].clone());
    let bytes = fs::metadata(&file).expect("a file").len().clamp(1, 6 << 10);
    let (at, kind, value) = (random.below(bytes) as usize, random.below(8), random.below(256) as u8);
    let length = 1 + random.below(2000) as usize;
    match kind {
        0 | 1 => change(&file, |bytes| bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (value % 8))),
        2 => change(&file, |bytes| bytes.iter_mut().skip(at).take(length).for_each(|byte| *byte = value)),
        3 => change(&file, |bytes| bytes.iter_mut().skip(at & !7).take(length).for_each(|byte| *byte = 0)),
        4 => change(&file, |bytes| bytes.truncate(at)),
        5 => fs::remove_file(&file).expect("remove"),
        6 => copy(&other, &file),
        _ => change(&file, |bytes| {
            let piece: Vec<u8> = bytes.iter().skip(at & !7).take(length & !7).copied().collect();
            let to = (at + length) & !7;
            bytes.iter_mut().skip(to).zip(piece).for_each(|(byte, new)| *byte = new);
        }),
    }
    format!("kind {kind}, {}, other {}, at {at}, length {length}, value {value}", file.display(), other.display())
}

/// One case: whatever was done to the data, repair makes it clean again, and only what is called lost is gone.
fn check_random_damage(made: &Made, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let copy = made.copy();
    let data = copy.path().join("data");
    let done: Vec<String> = (0..1 + random.below(3)).map(|_| damage_at_random(&data, &mut random)).collect();
    let name = format!("seed {seed}: {done:?}");
    let (code, report) = verify(&data);
    assert!(code == 0 || code == 65, "{name}: {code}");
    let lost = lost(&report);
    let (repaired, text) = tool(&data, &["repair", "--accept-loss"]);
    assert_eq!(repaired, 0, "{name}: {text}");
    let (code, report) = verify(&data);
    assert_eq!(code, 0, "{name}: {text}{report}");
    let after = events(&data);
    for (place, event) in &after {
        assert_eq!(made.events.get(place), Some(event), "{name}: {place:?} is made up");
    }
    for (shard, seq) in made.events.keys().filter(|place| !after.contains_key(place)) {
        assert!(is_lost(&lost, *shard, *seq), "{name}: {shard} {seq} was not called lost: {lost:?}");
    }
    if seed.is_multiple_of(20) {
        let server = start(&data, &["--strict", "true"]).unwrap_or_else(|why| panic!("{name}: {why}"));
        let answers = read_all(&server);
        for ((_, key), document) in made.newest(|shard, seq| after.contains_key(&(shard, seq))) {
            let expected = if document.is_null() { (404, Value::Null) } else { (200, document.clone()) };
            assert_eq!(answers[key], expected, "{name}: {key}");
        }
        return;
    }
    for shard in 0..SHARDS as u16 {
        let directory = Directory::open(&data.join(format!("shard-{shard:02}"))).expect("a shard");
        let opened = recover::open(&directory, shard, seed, Default::default(), &Progress::default());
        if let Err(error) = opened {
            panic!("{name}: {error}");
        }
    }
}

#[test]
fn random_damage_is_survived() {
    let (killed, stopped) = (killed(), stopped());
    thread::scope(|scope| {
        for half in 0..2u64 {
            let made = if half == 0 { killed } else { stopped };
            scope.spawn(move || (0..100).for_each(|n| check_random_damage(made, 2 * n + half)));
        }
    });
}
