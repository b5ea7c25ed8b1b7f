//! Promise: a backup of a server at work holds everything that was acknowledged before it began, and is refused rather
//! than wrong; records survive an export and an import exactly, whatever their types and however many shards there are.

mod common;

use ciborium::Value as Cbor;
use common::wire::Mqtt;
use common::{Connection, Options, Server, eventually, get, http, server};
use serde_json::Value;
use shards::log::format::{HEADER_BYTES, SegmentHeader};
use shards::log::recover::{Survey, survey};
use shards::progress::Progress;
use shards::storage::Directory;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Runs a verb to its end.
fn tool(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tablecast"));
    command.env_remove("TABLECAST_TEST_IO");
    command.args(arguments).stdin(Stdio::null()).output().expect("run tablecast")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn fine(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, said(output));
}

#[track_caller]
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not in {said:?}"));
}

struct Place {
    folder: TempDir,
}

impl Place {
    fn new(schema: &str) -> Place {
        let place = Place { folder: TempDir::with_prefix("tablecast-backup-").expect("make a folder") };
        server::write_app(&place.path("app"), schema);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn serve(&self, data: &str, shards: usize) -> Server {
        let (app, data) = (Some(self.path("app")), Some(self.path(data)));
        Server::start(Options { app, data, ..Options::default().shards(shards) })
    }
}

fn stop(mut server: Server) {
    assert!(server.terminate().success());
}

fn survey_of(data: &Path, shard: u16) -> Survey {
    let directory = Directory::existing(&data.join(format!("shard-{shard:02}")));
    survey(&directory, shard, usize::MAX, &Progress::default()).expect("a sound log")
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for shard in fs::read_dir(data).expect("a data directory").flatten().filter(|entry| entry.path().is_dir()) {
        let files = fs::read_dir(shard.path()).expect("a shard").flatten().map(|entry| entry.path());
        found.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "log")));
    }
    found.sort();
    found
}

fn has_rewritten(data: &Path) -> bool {
    let is_rewritten = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.len() >= HEADER_BYTES && SegmentHeader::decode(&bytes).is_some_and(|header| header.rewritten.is_some())
    };
    segments(data).iter().any(is_rewritten)
}

const LOAD: &str = "type Load @table(retention: 0) @export { id: ID @primaryKey }\n";
/// Small enough for many, large enough to fill segments.
const PAD: usize = 24 << 10;
const KEYS: u64 = 20;

/// What one writer has had acknowledged.
#[derive(Default)]
struct Acknowledged(Vec<AtomicU64>);

fn record(count: u64) -> Vec<u8> {
    format!(r#"{{"n":{count},"pad":"{}"}}"#, "x".repeat(PAD)).into_bytes()
}

/// Writes until it is told to stop: each key gets rising numbers.
fn write_load(number: usize, mut put: impl FnMut(&str, &[u8], u64), stop: &AtomicBool, known: &Acknowledged) {
    let mut count = 0;
    while !stop.load(Ordering::Acquire) {
        count += 1;
        let key = count % KEYS;
        put(&format!("w{number}-{key}"), &record(count), count);
        known.0[key as usize].store(count, Ordering::Release);
    }
}

fn writers(
    http: SocketAddr,
    mqtt: SocketAddr,
    stop: &Arc<AtomicBool>,
) -> Vec<(Arc<Acknowledged>, thread::JoinHandle<()>)> {
    let start = |number: usize| {
        let known = Arc::new(Acknowledged((0..KEYS).map(|_| AtomicU64::new(0)).collect()));
        let (own, stop) = (known.clone(), stop.clone());
        let body = move || {
            if number.is_multiple_of(2) {
                let mut client = Mqtt::open(mqtt, 4, &format!("writer-{number}"));
                let put = |key: &str, body: &[u8], count: u64| {
                    client.put(&format!("Load/{key}"), body, (count % 65_535 + 1) as u16);
                };
                write_load(number, put, &stop, &own);
            } else {
                let mut client = Connection::open(http);
                let put = |key: &str, body: &[u8], _| {
                    let headers = [("Content-Type", "application/json")];
                    let answer = client.request("PUT", &format!("/Load/{key}"), &headers, body);
                    assert!(answer.status < 300, "{answer:?}");
                };
                write_load(number, put, &stop, &own);
            }
        };
        (known, thread::spawn(body))
    };
    (0..4).map(start).collect()
}

#[test]
fn a_backup_under_load_holds_all_that_was_acknowledged_before() {
    let place = Place::new(LOAD);
    let server = place.serve("data", 2);
    let stop_writing = Arc::new(AtomicBool::new(false));
    let writers = writers(server.http(), server.mqtt(), &stop_writing);
    eventually("a segment is rewritten", Duration::from_secs(60), || has_rewritten(&server.data()).then_some(()));
    let mut backups = Vec::new();
    let end = Instant::now() + Duration::from_secs(6);
    while backups.len() < 4 || Instant::now() < end {
        let read = |known: &Acknowledged| known.0.iter().map(|n| n.load(Ordering::Acquire)).collect::<Vec<_>>();
        let before: Vec<Vec<u64>> = writers.iter().map(|(known, _)| read(known)).collect();
        let name = format!("backup-{}", backups.len());
        fine(&tool(&["backup", &place.text(&name), "--data", &place.text("data")]));
        backups.push((name, before));
    }
    stop_writing.store(true, Ordering::Release);
    writers.into_iter().for_each(|(_, writer)| writer.join().expect("a writer"));
    // Writers went on while it was made, so that what it holds lies between what was known before and the end.
    let count = backups.len();
    for (number, (name, before)) in backups.into_iter().enumerate() {
        assert!(!place.path(&name).join("lock").exists());
        if number + 4 < count && number > 0 {
            for shard in 0..2 {
                survey_of(&place.path(&name), shard); // starting a server on each would take long
            }
            continue;
        }
        let data = format!("restored-{number}");
        fine(&tool(&["restore", &place.text(&name), "--data", &place.text(&data)]));
        let restored = place.serve(&data, 2);
        for (writer, keys) in before.iter().enumerate() {
            for (key, at_least) in keys.iter().enumerate().filter(|(_, n)| **n > 0) {
                let stored = get(restored.http(), &format!("/Load/w{writer}-{key}")).json();
                let n = stored["n"].as_u64().unwrap_or(0);
                assert!(n >= *at_least, "{name}: w{writer}-{key} is {n}, {at_least} was acknowledged before");
                assert_eq!(stored["pad"].as_str().map(str::len), Some(PAD));
            }
        }
        stop(restored);
    }
    stop(server);
}

/// A server that wrote some records and stopped.
fn stopped(place: &Place, shards: usize) {
    let server = place.serve("data", shards);
    let mut connection = Connection::open(server.http());
    for n in 0..300 {
        let body = format!(r#"{{"n":{n}}}"#);
        let answer = connection.request("PUT", &format!("/Load/{n}"), &[], body.as_bytes());
        assert!(answer.status < 300, "{answer:?}");
    }
    stop(server);
}

#[test]
fn a_stopped_server_is_copied_and_restored_with_another_epoch() {
    let place = Place::new(LOAD);
    stopped(&place, 2);
    let output = tool(&["backup", &place.text("copy"), "--data", &place.text("data")]);
    fine(&output);
    assert!(said(&output).contains("2 shards"), "{}", said(&output));
    // An empty folder will do.
    fs::create_dir(place.path("restored")).unwrap();
    fine(&tool(&["restore", &place.text("copy"), "--data", &place.text("restored")]));
    for shard in 0..2 {
        let (old, copied) = (survey_of(&place.path("data"), shard), survey_of(&place.path("copy"), shard));
        let restored = survey_of(&place.path("restored"), shard);
        assert_eq!((old.next_seq, old.epoch), (copied.next_seq, copied.epoch));
        assert_eq!(restored.next_seq, old.next_seq);
        assert!(restored.epoch > old.epoch + 1_000_000, "starts of the old server will not get there");
    }
    let before = survey_of(&place.path("restored"), 0).epoch;
    let server = place.serve("restored", 2);
    for n in 0..300 {
        assert_eq!(get(server.http(), &format!("/Load/{n}")).json()["n"], n);
    }
    stop(server);
    assert_eq!(survey_of(&place.path("restored"), 0).epoch, before + 1, "opening raises the epoch");
    // A data directory whose server has stopped can be restored from as well.
    fine(&tool(&["restore", &place.text("restored"), "--data", &place.text("again")]));
}

#[test]
fn targets_that_are_not_free_are_refused() {
    let place = Place::new(LOAD);
    stopped(&place, 1);
    let (data, copy) = (place.text("data"), place.text("copy"));
    fine(&tool(&["backup", &copy, "--data", &data]));
    refused(&tool(&["backup", &copy, "--data", &data]), 2, &["copy is not empty"]);
    refused(&tool(&["restore", &copy, "--data", &data]), 2, &["data is not empty"]);
    let inside = format!("{data}/copy");
    refused(&tool(&["backup", &inside, "--data", &data]), 2, &["inside the data directory"]);
    let nothing = place.text("nothing");
    refused(&tool(&["backup", &place.text("new"), "--data", &nothing]), 74, &["nothing/manifest.json"]);
    refused(&tool(&["restore", &nothing, "--data", &place.text("new")]), 74, &["nothing/manifest.json"]);
    assert!(!place.path("new").exists() && !place.path("nothing").exists());
    let server = place.serve("data", 1);
    refused(&tool(&["restore", &data, "--data", &place.text("new")]), 1, &["another server has this"]);
    stop(server);
}

#[test]
fn a_damaged_source_is_refused_with_file_and_offset() {
    let place = Place::new(LOAD);
    stopped(&place, 1);
    let (data, copy) = (place.text("data"), place.text("copy"));
    fine(&tool(&["backup", &copy, "--data", &data]));
    for (from, verb) in [
        ("data", ["backup", &place.text("new"), "--data", &data]),
        ("copy", ["restore", &copy, "--data", &place.text("new")]),
    ] {
        let segment = segments(&place.path(from)).remove(0);
        let whole = fs::read(&segment).unwrap();
        let header = SegmentHeader::decode(&whole).expect("a segment");
        for at in [HEADER_BYTES + 70, 5000, 100] {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            fs::write(&segment, &damaged).unwrap();
            let words = [&*segment.display().to_string(), "is damaged at offset "];
            refused(&tool(&verb), 65, &words);
        }
        assert_eq!(header.first_seq, 1);
        fs::write(&segment, &whole).unwrap();
        // Cut off where batches end: only the mark file knows that there was more.
        let mut cut = whole.clone();
        let half = survey_of(&place.path(from), 0).segments[0].index.end().end as usize / 2;
        let batch = (HEADER_BYTES..half).rev().find(|at| at % 8 == 0 && cut[*at..].starts_with(b"TCB1")).unwrap();
        cut[batch..].fill(0);
        fs::write(&segment, &cut).unwrap();
        refused(&tool(&verb), 65, &[&format!("is damaged at offset {batch}"), "were acknowledged"]);
        fs::write(&segment, &whole).unwrap();
        fine(&tool(&verb));
        fs::remove_dir_all(place.path("new")).unwrap();
    }
}

const EVERYTHING: &str = r#"
type Everything @table @export {
  id: ID @primaryKey
  whole: Int
  long: Long
  real: Float
  flag: Boolean
  at: Date
  big: BigInt
  raw: Bytes
  blob: Blob
  list: [Date]
  any: Any
  nested: Inner
}
type Inner { at: Date  raw: Bytes }
type Counters @table(database: "other") @export { id: Int @primaryKey  n: Int }
type Loose @table @export { n: Int }
type Empty @table @export { id: ID @primaryKey }
"#;

fn map(pairs: &[(&str, Cbor)]) -> Cbor {
    Cbor::Map(pairs.iter().map(|(name, value)| (Cbor::Text((*name).to_owned()), value.clone())).collect())
}

/// Paths and records, in every type there is and in shapes that JSON cannot tell apart.
fn everything() -> Vec<(String, Cbor)> {
    let date = |seconds: f64| Cbor::Tag(1, Box::new(Cbor::Float(seconds)));
    let iso = |text: &str| Cbor::Tag(0, Box::new(Cbor::Text(text.to_owned())));
    let bytes = |bytes: &[u8]| Cbor::Bytes(bytes.to_vec());
    let text = |text: &str| Cbor::Text(text.to_owned());
    let number = |n: i128| Cbor::Integer(ciborium::value::Integer::try_from(n).expect("64 bits"));
    let nested = (0..55).fold(date(1.5), |inner, _| Cbor::Array(vec![inner]));
    let any = [
        date(-1.25),
        iso("2026-11-21T22:53:36.123456789Z"),
        iso("-012345-01-02T03:04:05Z"),
        text("2026-11-21T22:53:36.123Z"),
        bytes(&[0, 255, 10]),
        bytes(&[]),
        number(u64::MAX.into()),
        number(i64::MIN.into()),
        number(1 << 53 | 1),
        Cbor::Float(0.1),
        Cbor::Float(20.0),
        Cbor::Float(-0.0),
        Cbor::Float(1e300),
        Cbor::Float(f64::NAN),
        Cbor::Float(f64::NEG_INFINITY),
        Cbor::Null,
        text("quotes \" \\ and \u{0} \n \u{2028} ä 😀"),
        map(&[("type", text("Buffer")), ("data", Cbor::Array(vec![number(1)]))]),
        map(&[("$date", text("2026-11-21T22:53:36.123Z"))]),
        map(&[("$map", Cbor::Array(vec![]))]),
        map(&[("a b\"", map(&[("", Cbor::Null)]))]),
        Cbor::Array(vec![bytes(&[1]), date(0.0), map(&[])]),
        nested,
        text(&"large ".repeat(150_000)),
        bytes(&vec![7; 700_000]),
    ];
    let mut all: Vec<(String, Cbor)> = any
        .into_iter()
        .enumerate()
        .map(|(n, any)| {
            // The large ones would be too large twice.
            let undeclared = if matches!(n, 23 | 24) { Cbor::Null } else { any.clone() };
            (format!("Everything/any-{n:02}"), map(&[("any", any), ("undeclared", undeclared)]))
        })
        .collect();
    all.push((
        "Everything/typed".into(),
        map(&[
            ("whole", number(-7)),
            ("long", number(1 << 53)),
            ("real", Cbor::Float(1.5)),
            ("flag", Cbor::Bool(true)),
            ("at", date(1.5)),
            ("big", number(u64::MAX.into())),
            ("raw", bytes(b"raw")),
            ("blob", bytes(b"blob")),
            ("list", Cbor::Array(vec![date(0.5), Cbor::Null])),
            ("nested", map(&[("at", date(2.0)), ("raw", bytes(&[9]))])),
        ]),
    ));
    all.extend((-40..40).map(|n: i128| (format!("Counters/{n}"), map(&[("n", number(n))]))));
    let loose = ["true", "1", "1.5", "-3", "007", "text", "a%20b", "%C3%A4"];
    all.extend(loose.iter().enumerate().map(|(n, key)| (format!("Loose/{key}"), map(&[("n", number(n as i128))]))));
    all
}

/// Everything that a reader sees: the bytes of each record, and of the collections, in every format.
fn seen(addr: SocketAddr) -> BTreeMap<(String, &'static str), Vec<u8>> {
    let mut paths: Vec<String> = everything().into_iter().map(|(path, _)| path).collect();
    paths.extend(["Everything/plain", "Everything/opaque"].map(str::to_owned));
    paths.extend(["Counters/", "Loose/", "Empty/", "Everything/"].map(str::to_owned));
    let mut found = BTreeMap::new();
    let mut connection = Connection::open(addr);
    for path in paths {
        for accept in ["application/json", "application/cbor", "application/x-msgpack"] {
            let answer = connection.request("GET", &format!("/{path}"), &[("Accept", accept)], b"");
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            found.insert((path.clone(), accept), answer.body);
        }
    }
    found
}

/// The lines of an export, without versions.
fn lines(place: &Place, data: &str) -> Vec<Value> {
    let output = tool(&["export", &place.text("app"), "--data", &place.text(data)]);
    fine(&output);
    let without_version = |line: &str| {
        let mut value: Value = serde_json::from_str(line).expect("a line of JSON");
        assert!(value.as_object_mut().expect("an object").remove("version").is_some_and(|version| version.is_f64()));
        value
    };
    String::from_utf8(output.stdout).expect("text").lines().map(without_version).collect()
}

#[test]
fn records_of_every_type_survive_export_and_import() {
    let place = Place::new(EVERYTHING);
    let server = place.serve("data-2", 2);
    let mut connection = Connection::open(server.http());
    for (path, value) in everything() {
        let mut body = Vec::new();
        ciborium::into_writer(&value, &mut body).expect("CBOR");
        let answer = connection.request("PUT", &format!("/{path}"), &[("Content-Type", "application/cbor")], &body);
        assert!(answer.status < 300, "{path}: {answer:?}");
    }
    for (path, content_type, body) in
        [("plain", "text/plain", &b"on"[..]), ("opaque", "image/png", &[0x89, b'P', 0, 255])]
    {
        let path = format!("/Everything/{path}");
        assert!(http(server.http(), "PUT", &path, &[("Content-Type", content_type)], body).status < 300);
    }
    http(server.http(), "DELETE", "/Counters/7", &[], b"");
    http(server.http(), "PUT", "/Counters/7", &[("Content-Type", "application/json")], br#"{"n":7}"#);
    http(server.http(), "PUT", "/Empty/gone", &[("Content-Type", "application/json")], b"{}");
    http(server.http(), "DELETE", "/Empty/gone", &[], b"");
    let app = place.text("app");
    let data = place.text("data-2");
    refused(&tool(&["export", &app, "--data", &data]), 1, &["another server has this data directory open"]);
    refused(&tool(&["import", &app, "--data", &data]), 1, &["another server has this data directory open"]);
    let expected = seen(server.http());
    stop(server);
    let original = lines(&place, "data-2");
    assert_eq!(original.len(), everything().len() + 2);
    let order: Vec<(i64, i64)> = original
        .iter()
        .filter(|line| line["table"] == "other.Counters")
        .map(|line| (line["id"].as_str().unwrap().parse().unwrap(), line["value"]["n"].as_i64().unwrap()))
        .collect();
    assert_eq!(order, (-40..40).map(|n| (n, n)).collect::<Vec<_>>(), "in the order of the keys");
    let mut from = "data-2".to_owned();
    for (format, shards) in [("ndjson", 1), ("cbor", 4), ("ndjson", 4), ("cbor", 2)] {
        let (file, to) = (place.text(&format!("{format}-{shards}")), format!("data-{format}-{shards}"));
        let with = |verb: &str, data: &str, rest: &[&str]| {
            let data = place.text(data);
            tool(&[&[verb, &app, "--data", &data, "--format", format], rest].concat())
        };
        fine(&with("export", &from, &["--output", &file]));
        let output = with("import", &to, &[&file, "--shards", &shards.to_string()]);
        fine(&output);
        let count = original.len();
        assert!(said(&output).contains(&format!("imported {count} records, refused 0")), "{}", said(&output));
        let server = place.serve(&to, shards);
        for (what, bytes) in seen(server.http()) {
            assert!(expected[&what] == bytes, "{format}, {shards} shards: {what:?} has changed");
        }
        stop(server);
        assert!(lines(&place, &to) == original, "{format}, {shards} shards");
        from = to;
    }
    let output = tool(&["export", &app, "--data", &data, "--table", "Loose", "--table", "Empty"]);
    fine(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() == 8 && text.lines().all(|line| line.starts_with(r#"{"table":"Loose","id":"#)));
    refused(&tool(&["export", &app, "--data", &data, "--table", "Losse"]), 2, &["no table Losse", "other.Counters"]);
    refused(&tool(&["export", &app, "--data", &place.text("none")]), 74, &["none/manifest.json"]);
    assert!(!place.path("none").exists());
}

#[test]
fn bad_lines_are_named_and_the_others_imported() {
    const LINES: usize = 300_000;
    let place = Place::new("type Sensors @table @export { id: ID @primaryKey  location: String  temp: Float }\n");
    let mut file = std::io::BufWriter::new(fs::File::create(place.path("lines")).unwrap());
    for n in 1..=LINES {
        match n {
            1000 => writeln!(file, r#"{{"table":"Sensors","id":"{n}","value":{{"temp":"warm"}}}}"#),
            150_000 => writeln!(file, r#"{{"table":"Sensors","id":"{n}","value":{{"temp":}}}}"#),
            299_999 => writeln!(file, r#"{{"table":"Sensor","id":"{n}","value":{{}}}}"#),
            _ => writeln!(
                file,
                r#"{{"table":"Sensors","id":"{n}","version":1.5,"value":{{"location":"lab","temp":{n}.5}}}}"#
            ),
        }
        .unwrap();
    }
    file.flush().unwrap();
    drop(file);
    let output =
        tool(&["import", &place.text("app"), &place.text("lines"), "--data", &place.text("data"), "--shards", "2"]);
    let words = [
        "line 1000: Value \"warm\" in property temp must be a number\n",
        "line 150000: value: the JSON is not valid",
        "line 299999: the app has no table \"Sensor\"\n",
        "imported 299997 records, refused 3",
    ];
    refused(&output, 1, &words);
    let server = place.serve("data", 2);
    for (n, status) in [(1, 200), (999, 200), (1000, 404), (150_000, 404), (299_998, 200), (299_999, 404), (LINES, 200)]
    {
        let answer = get(server.http(), &format!("/Sensors/{n}"));
        assert_eq!(answer.status, status, "{n}");
        assert!(status == 404 || answer.json()["temp"] == n as f64 + 0.5);
    }
    stop(server);
    let output = tool(&["export", &place.text("app"), "--data", &place.text("data"), "--output", &place.text("out")]);
    fine(&output);
    assert!(said(&output).ends_with("exported 299997 records\n"), "{}", said(&output));
}

#[test]
fn records_come_from_standard_input_too() {
    let place = Place::new("type T @table @export { id: Int @primaryKey  at: Date }\n");
    let lines = r#"
        {"table":"T","id":1,"value":{"at":"2026-11-21T22:53:36.123Z"}}
        {"value":{"id":2,"at":{"$date":"2026-11-21T22:53:36.123Z"}},"table":"\u0054"}
        {"table":"T","value":{}}
        {"table":"T","id":"x","value":{}}
        {"table":"T","id":3,"value":[]}
        {"table":"T","id":3,"value":{},"more":1}
        {"table":"T","id":4,"value":{"at":{"$date":"soon"}}}
    "#;
    let mut child = Command::new(env!("CARGO_BIN_EXE_tablecast"))
        .env_remove("TABLECAST_TEST_IO")
        .args(["import", &place.text("app"), "-", "--data", &place.text("data"), "--shards", "1"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run tablecast");
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let words = [
        "line 4: id is missing",
        "line 5: id: the key must be an integer",
        "line 6: value must be an object",
        "line 7: \"more\" is not known",
        "line 8: value: the JSON is not valid at byte 0: $date: \"soon\" is not a date",
        "imported 2 records, refused 5",
    ];
    refused(&child.wait_with_output().unwrap(), 1, &words);
    let server = place.serve("data", 1);
    for id in 1..=2 {
        let stored = get(server.http(), &format!("/T/{id}")).json();
        assert_eq!(stored, serde_json::json!({ "id": id, "at": "2026-11-21T22:53:36.123Z" }));
    }
    stop(server);
}
