//! Promises: a live query shows a record while it is wanted and says when it leaves, with no gap between the current
//! records and what happens; and a stream that was cut goes on where it was (promises 8, 9, 11 of `reliability.md`).

mod common;

use common::{Connection, Options, PATIENCE, Server, http, put_json};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SCHEMA: &str =
    "type Sensors @table @export { id: ID @primaryKey n: Int temp: Float site: String tags: [String] }";

fn start(shards: usize, args: &[&str]) -> (TempDir, Server) {
    let dir = TempDir::with_prefix("tablecast-live-").expect("make a folder");
    common::server::write_app(dir.path(), SCHEMA);
    let options = Options { app: Some(dir.path().to_owned()), ..Options::default() };
    let server = Server::start(options.shards(shards).args(args));
    (dir, server)
}

/// An event stream on a raw socket.
struct Stream {
    connection: Connection,
    body: Vec<u8>,
    last_id: Option<String>,
}

impl Stream {
    fn open(at: SocketAddr, path: &str, last_id: Option<&str>) -> Stream {
        let mut connection = Connection::open(at);
        let id = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{id}\r\n");
        connection.send(request.as_bytes());
        let head = connection.within(PATIENCE).response_head().expect("a response");
        assert_eq!(head.status, 200, "{path}");
        Stream { connection, body: Vec::new(), last_id: last_id.map(str::to_owned) }
    }

    /// The next event's envelope; comments are passed over.
    fn next(&mut self, within: Duration) -> Option<Value> {
        let end = Instant::now() + within;
        loop {
            if let Some(at) = self.body.windows(2).position(|two| two == b"\n\n") {
                let event = String::from_utf8(self.body.drain(..at + 2).collect()).expect("UTF-8");
                let mut data = None;
                for line in event.lines() {
                    if let Some(id) = line.strip_prefix("id: ") {
                        self.last_id = Some(id.to_owned());
                    }
                    if let Some(text) = line.strip_prefix("data: ") {
                        data = Some(serde_json::from_str(text).expect("JSON"));
                    }
                }
                match data {
                    Some(data) => return Some(data),
                    None => continue,
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            match self.connection.within(left).chunk() {
                Ok(Some(chunk)) => self.body.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    #[track_caller]
    fn take(&mut self) -> Value {
        self.next(PATIENCE).expect("an event")
    }

    #[track_caller]
    fn takes(&mut self, kind: &str, id: &str) -> Value {
        let event = self.take();
        assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some(kind), Some(id)), "{event}");
        event["value"].clone()
    }

    fn quiet(&mut self) {
        assert_eq!(self.next(Duration::from_millis(150)), None);
    }
}

fn put(at: SocketAddr, id: &str, value: &Value) {
    let response = put_json(at, &format!("/Sensors/{id}"), value);
    assert_eq!(response.status, 204, "{}", response.text());
}

fn delete(at: SocketAddr, id: &str) {
    assert_eq!(http(at, "DELETE", &format!("/Sensors/{id}"), &[], b"").status, 200);
}

#[test]
fn records_come_and_leave() {
    for shards in [1, 2, 4] {
        let (_dir, server) = start(shards, &[]);
        let at = server.http();
        for n in 0..10 {
            put(at, &n.to_string(), &json!({ "temp": n * 10, "site": "a" }));
        }
        let mut hot = Stream::open(at, "/Sensors/?temp=gt=30", None);
        let mut same = Stream::open(at, "/Sensors/?temp=gt=30", None);
        let mut names = Stream::open(at, "/Sensors/?temp=gt=30&select(temp)", None);
        let mut one = Stream::open(at, "/Sensors/5?temp=gt=50", None);
        for id in ["4", "5", "6", "7", "8", "9"] {
            assert!(hot.takes("put", id)["temp"].as_f64().is_some_and(|temp| temp > 30.0));
            same.takes("put", id);
            assert_eq!(names.takes("put", id), json!(id.parse::<i64>().unwrap() * 10));
        }
        one.quiet();
        put(at, "1", &json!({ "temp": 35, "site": "b" })); // comes in
        put(at, "2", &json!({ "temp": 25 })); // stays out
        put(at, "5", &json!({ "temp": 55 })); // stays in
        put(at, "6", &json!({ "temp": 5 })); // leaves
        delete(at, "7");
        delete(at, "2"); // was never in
        put(at, "6", &json!({ "temp": null })); // still out
        put(at, "6", &json!({ "temp": 99 })); // back in
        for stream in [&mut hot, &mut same] {
            stream.takes("put", "1");
            stream.takes("put", "5");
            assert_eq!(stream.takes("leave", "6"), Value::Null);
            stream.takes("delete", "7");
            stream.takes("put", "6");
            stream.quiet();
        }
        let seen: Vec<Value> = (0..5).map(|_| names.take()["value"].clone()).collect();
        assert_eq!(seen, [json!(35), json!(55), Value::Null, Value::Null, json!(99)]);
        one.takes("put", "5");
        put(at, "5", &json!({ "temp": 50 }));
        one.takes("leave", "5");
        drop(hot);
        put(at, "8", &json!({ "temp": 1 }));
        same.takes("put", "5");
        same.takes("leave", "8");
    }
}

#[test]
fn over_web_socket_and_mqtt() {
    let (_dir, server) = start(2, &[]);
    let at = server.http();
    put(at, "1", &json!({ "temp": 50 }));
    let (mut socket, _) = tungstenite::connect(format!("ws://{at}/Sensors/?temp=gt=30")).expect("a WebSocket");
    let mut text = || -> Value { serde_json::from_str(socket.read().expect("a frame").to_text().unwrap()).unwrap() };
    let first = text();
    assert_eq!((&first["type"], &first["id"]), (&json!("put"), &json!("1")));
    let mut paho = std::process::Command::new("mosquitto_sub")
        .args(["-V", "5", "-h", "127.0.0.1", "-p", &server.mqtt().port().to_string(), "-t", "Sensors/#", "-q", "1"])
        .args([
            "-D",
            "subscribe",
            "user-property",
            "query",
            "temp=gt=30&select(temp)",
            "-C",
            "3",
            "-F",
            "%t %p",
            "-W",
            "20",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start mosquitto_sub");
    thread::sleep(Duration::from_millis(500));
    put(at, "2", &json!({ "temp": 60 }));
    put(at, "3", &json!({ "temp": 10 }));
    put(at, "1", &json!({ "temp": 20 }));
    assert_eq!((text()["id"].clone(), text()["type"].clone()), (json!("2"), json!("leave")));
    let mut lines = String::new();
    std::io::Read::read_to_string(&mut paho.stdout.take().unwrap(), &mut lines).unwrap();
    paho.wait().unwrap();
    assert_eq!(lines.lines().map(str::trim).collect::<Vec<_>>(), ["Sensors/1 50", "Sensors/2 60", "Sensors/1"]);
}

#[test]
fn what_cannot_be_live_is_refused() {
    let (_dir, server) = start(1, &[]);
    let sse = |path: &str| http(server.http(), "GET", path, &[("Accept", "text/event-stream")], b"");
    for (path, words) in [
        ("/Sensors/?limit(3)", "limit and sort"),
        ("/Sensors/?temp=gt=x", "position 8"),
        ("/Sensors/?startTime=yesterday", "neither a position nor a time"),
        ("/Sensors/?previousCount=3", "one record"),
        ("/Sensors/?maxRate=0", "events per second"),
        ("/Sensors/?at=5", "GET"),
        ("/Sensors/?explain", "explain"),
        ("/Sensors/?duplex", "WebSocket"),
    ] {
        let response = sse(path);
        assert_eq!(response.status, 400, "{path}");
        assert!(response.text().contains(words), "{path}: {}", response.text());
    }
}

/// Writes race with subscriptions: what each of them has seen in the end is what a query finds.
#[test]
fn no_gap_and_the_truth_in_the_end() {
    for shards in [1, 2, 4] {
        let (_dir, server) = start(shards, &[]);
        let at = server.http();
        let over = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let mut workers = Vec::new();
            for worker in 0..2_u64 {
                let over = &over;
                workers.push(scope.spawn(move || {
                    let mut connection = Connection::open(at);
                    let mut state = worker * 77 + 5;
                    let mut next = |bound: u64| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        (state >> 33) % bound
                    };
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        let path = format!("/Sensors/{}", next(40));
                        let body = format!("{{\"temp\":{}}}", next(100));
                        let headers = [("Content-Type", "application/json")];
                        match next(5) {
                            0 => drop(connection.request("DELETE", &path, &[], b"")),
                            _ => assert_eq!(connection.request("PUT", &path, &headers, body.as_bytes()).status, 204),
                        }
                    }
                }));
            }
            let mut streams: Vec<(u64, Stream)> = Vec::new();
            for round in 0..30_u64 {
                let limit = round % 5 * 20;
                streams.push((limit, Stream::open(at, &format!("/Sensors/?temp=ge={limit}"), None)));
                thread::sleep(Duration::from_millis(10));
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            workers.into_iter().for_each(|worker| worker.join().expect("a writer"));
            for (limit, stream) in &mut streams {
                let rows = common::get(at, &format!("/Sensors/?temp=ge={limit}")).json();
                let rows = rows.as_array().expect("rows").iter();
                let truth: BTreeMap<String, Value> =
                    rows.map(|row| (row["id"].as_str().unwrap().to_owned(), row["temp"].clone())).collect();
                let mut held: BTreeMap<String, Value> = BTreeMap::new();
                // What is there may be the truth by chance, before the last event has come.
                let patience = |held: &BTreeMap<String, Value>| {
                    if *held == truth { Duration::from_millis(300) } else { PATIENCE }
                };
                while let Some(event) = stream.next(patience(&held)) {
                    let id = event["id"].as_str().expect("an id").to_owned();
                    match event["type"].as_str() {
                        Some("put") => drop(held.insert(id, event["value"]["temp"].clone())),
                        Some("leave" | "delete") => {
                            assert!(held.remove(&id).is_some(), "{id} leaves and was not there: {event}");
                        }
                        other => panic!("{other:?}"),
                    }
                }
                assert_eq!(held, truth, "temp=ge={limit}");
            }
        });
    }
}

/// A stream is cut again and again and goes on by its last id, also over crashes of the server: every event once, in
/// order.
#[test]
fn a_stream_goes_on_where_it_was() {
    for shards in [1, 2, 4] {
        let (_dir, mut server) = start(shards, &[]);
        let mut stream = Stream::open(server.http(), "/Sensors/", None);
        let mut seen: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut sent: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        let mut last_id = None;
        for round in 0..12_i64 {
            for n in 0..50_i64 {
                let id = format!("{}", n % 7);
                put(server.http(), &id, &json!({ "n": round * 50 + n }));
                sent.entry(id).or_default().push(round * 50 + n);
            }
            // Some are read, then the line is cut; the rest is there afterwards.
            for _ in 0..(round * 7) % 50 {
                let event = stream.take();
                let id = event["id"].as_str().expect("an id").to_owned();
                seen.entry(id).or_default().push(event["value"]["n"].as_i64().expect("a number"));
            }
            last_id = stream.last_id.clone().or(last_id);
            drop(stream);
            if round == 5 {
                server.kill9();
                server.restart();
            }
            stream = Stream::open(server.http(), "/Sensors/", last_id.as_deref());
            if last_id.is_none() {
                seen.clear(); // it began anew, with the current records
            }
        }
        let has_all = |seen: &BTreeMap<String, Vec<i64>>| {
            sent.iter().all(|(id, all)| seen.get(id).and_then(|own| own.last()) == all.last())
        };
        while let Some(event) = stream.next(if has_all(&seen) { Duration::from_millis(300) } else { PATIENCE }) {
            let id = event["id"].as_str().expect("an id").to_owned();
            seen.entry(id).or_default().push(event["value"]["n"].as_i64().expect("a number"));
        }
        for (id, wanted) in &sent {
            let own = &seen[id];
            // The stream began with what was current then.
            let from = wanted.iter().position(|n| n == &own[0]).expect("something that was sent");
            assert_eq!(own, &wanted[from..], "record {id} on {shards} shards");
        }
    }
}

#[test]
fn from_a_time_and_from_a_place_of_another_protocol() {
    let (_dir, server) = start(2, &[]);
    let at = server.http();
    let mut live = Stream::open(at, "/Sensors/", None);
    for n in 0..10 {
        put(at, &format!("{}", n % 3), &json!({ "n": n }));
    }
    let events: Vec<Value> = (0..10).map(|_| live.take()).collect();
    let time = events[4]["localTime"].as_f64().expect("a time");
    let numbers = |stream: &mut Stream| -> Vec<i64> {
        let mut seen = Vec::new();
        while let Some(event) = stream.next(Duration::from_secs(1)) {
            seen.push(event["value"]["n"].as_i64().expect("a number"));
        }
        seen.sort_unstable();
        seen
    };
    assert_eq!(numbers(&mut Stream::open(at, &format!("/Sensors/?startTime={time}"), None)), [5, 6, 7, 8, 9]);
    assert_eq!(numbers(&mut Stream::open(at, "/Sensors/?startTime=0", None)), (0..10).collect::<Vec<_>>());
    assert_eq!(numbers(&mut Stream::open(at, &format!("/Sensors/1?startTime={time}"), None)), [7]);
    // A WebSocket goes on where an event stream was, and the other way round.
    let place = live.last_id.clone().expect("an id");
    put(at, "9", &json!({ "n": 99 }));
    let (mut socket, _) = tungstenite::connect(format!("ws://{at}/Sensors/?startTime={place}")).expect("a WebSocket");
    let event: Value = serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap();
    assert_eq!(event["value"]["n"], 99);
    put(at, "9", &json!({ "n": 100 }));
    let place = event["position"].as_str().expect("a position");
    assert_eq!(numbers(&mut Stream::open(at, "/Sensors/", Some(place))), [100]);
    // A live query goes on, too.
    put(at, "9", &json!({ "n": 1 }));
    let mut query = Stream::open(at, &format!("/Sensors/?n=gt=50&startTime={place}"), None);
    query.takes("put", "9");
    query.takes("leave", "9");
}

/// A place that is none of this server's, or whose history is gone, is answered with a reset and the current records.
#[test]
fn a_place_that_is_gone_is_reset() {
    let (_dir, server) = start(2, &[]);
    let at = server.http();
    put(at, "1", &json!({ "n": 1 }));
    for place in ["9-99_9-99", "1-999999_1-999999", "1-1", "1-1_1-1_1-1", "of another server"] {
        let mut stream = Stream::open(at, "/Sensors/", Some(place));
        assert_eq!(stream.take()["type"], "reset", "{place}");
        assert_eq!(stream.takes("put", "1")["n"], 1);
        put(at, "1", &json!({ "n": 1 }));
        stream.takes("put", "1");
    }
}

/// Readers that stop reading get the newest state of each record when they go on, and are told how much they have
/// missed; the others are not held up.
#[test]
fn a_slow_reader_gets_the_newest_states() {
    let (_dir, server) = start(2, &["--outbox-bytes-max", "65536"]);
    let at = server.http();
    let mut slow = Stream::open(at, "/Sensors/", None);
    let mut quick = Stream::open(at, "/Sensors/?n=ge=0", None);
    let filler = "x".repeat(2000);
    let mut connection = Connection::open(at);
    const COUNT: i64 = 4000;
    for n in 0..COUNT {
        let body = json!({ "n": n, "site": filler }).to_string();
        let path = format!("/Sensors/{}", n % 10);
        let headers = [("Content-Type", "application/json")];
        assert_eq!(connection.request("PUT", &path, &headers, body.as_bytes()).status, 204);
        assert_eq!(quick.take()["value"]["n"], n);
    }
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let (mut events, mut skipped) = (0, 0);
    while let Some(event) = slow.next(Duration::from_secs(3)) {
        let n = event["value"]["n"].as_i64().expect("a number");
        let before = last.insert(event["id"].as_str().expect("an id").to_owned(), n);
        assert!(before.is_none_or(|before| before < n), "{before:?} {n}");
        events += 1;
        skipped += event["skipped"].as_i64().unwrap_or(0);
    }
    let newest: Vec<i64> = last.values().copied().collect();
    assert_eq!(newest, (COUNT - 10..COUNT).collect::<Vec<_>>(), "the newest state of each");
    assert_eq!(events + skipped, COUNT, "{events} events, {skipped} skipped");
    assert!(skipped > 0, "it was to be slow");
}

/// RFC 7396 §2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return *target = patch.clone() };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().expect("an object");
    for (name, value) in patch {
        match value {
            Value::Null => _ = target.remove(name),
            value => merge(target.entry(name.as_str()).or_insert(Value::Null), value),
        }
    }
}

/// After the first full state only what has changed is sent, and what one makes of it is the truth: also where nulls are
/// written, where records leave and come back, and after a break.
#[test]
fn patches_make_the_truth() {
    for (shards, query) in
        [(1, "patch"), (2, "patch"), (4, "patch&temp=gt=20"), (2, "patch&temp=gt=20&select(id,temp,site,deep)")]
    {
        let (_app, server) = start(shards, &[]);
        let at = server.http();
        for n in 0..5 {
            put(at, &n.to_string(), &json!({ "temp": 10 * n, "site": "here" }));
        }
        let path = format!("/Sensors/?{query}");
        let mut stream = Stream::open(at, &path, None);
        let mut mirror: BTreeMap<String, Value> = BTreeMap::new();
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        let mut follow = |stream: &mut Stream, mirror: &mut BTreeMap<String, Value>| {
            while let Some(event) = stream.next(Duration::from_millis(500)) {
                let id = event["id"].as_str().expect("an id").to_owned();
                let kind = event["type"].as_str().expect("a type");
                *kinds.entry(kind.to_owned()).or_default() += 1;
                match kind {
                    "put" => _ = mirror.insert(id, event["value"].clone()),
                    "patch" => merge(mirror.get_mut(&id).expect("a state before"), &event["value"]),
                    _ => _ = mirror.remove(&id),
                }
            }
        };
        follow(&mut stream, &mut mirror);
        let mut state = 3u64;
        let mut next = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for round in 0..3 {
            for _ in 0..150 {
                let id = next(5).to_string();
                let value = match next(6) {
                    0 => json!({ "temp": next(50), "deep": { "a": next(3), "b": { "c": next(3) } } }),
                    1 => json!({ "temp": next(50), "deep": { "a": null }, "site": "there" }),
                    2 => json!({ "temp": next(50), "tags": ["x", next(4).to_string()], "deep": [next(2)] }),
                    3 => json!({ "temp": null, "site": null }),
                    4 => {
                        delete(at, &id);
                        continue;
                    }
                    _ => json!({ "temp": 30 + next(3), "site": "here", "deep": { "a": 1 } }),
                };
                put(at, &id, &value);
            }
            follow(&mut stream, &mut mirror);
            let wanted = http(at, "GET", &path.replace("patch", "id=ne=none"), &[], b"").json();
            let wanted: BTreeMap<String, Value> = wanted
                .as_array()
                .expect("an array")
                .iter()
                .map(|it| (it["id"].as_str().expect("an id").to_owned(), it.clone()))
                .collect();
            assert_eq!(mirror, wanted, "{query}, {shards} shards");
            if round == 1 {
                let last = stream.last_id.clone();
                drop(stream);
                put(at, "1", &json!({ "temp": 49 }));
                stream = Stream::open(at, &path, last.as_deref());
                follow(&mut stream, &mut mirror);
            }
        }
        assert!(kinds["patch"] > 30 && kinds["put"] > 20, "{kinds:?}");
    }
}

/// A reader that wants no more than so many events a second is given the newest states, and told what it missed.
#[test]
fn a_pace_is_kept() {
    for shards in [1, 4] {
        let (_app, server) = start(shards, &[]);
        let at = server.http();
        put(at, "a", &json!({ "n": 0 }));
        let mut slow = Stream::open(at, "/Sensors/?maxRate=5", None);
        let mut all = Stream::open(at, "/Sensors/", None);
        assert_eq!((slow.takes("put", "a")["n"].as_i64(), all.takes("put", "a")["n"].as_i64()), (Some(0), Some(0)));
        let begin = Instant::now();
        let writer = thread::spawn(move || {
            for n in 1..=400 {
                put(at, ["a", "b"][n % 2], &json!({ "n": n }));
                thread::sleep(Duration::from_millis(5));
            }
        });
        let mut seen = Vec::new();
        let mut skipped = 0;
        while !seen.ends_with(&[399, 400]) && !seen.ends_with(&[400, 399]) {
            let event = slow.take();
            skipped += event["skipped"].as_u64().unwrap_or(0);
            seen.push(event["value"]["n"].as_u64().expect("a number"));
        }
        let seconds = begin.elapsed().as_secs_f64();
        writer.join().expect("the writer");
        assert!(seen.len() as f64 <= 5.0 * seconds + 2.0, "{} events in {seconds} s", seen.len());
        assert!(seen.len() >= 8, "it goes on all the time: {seen:?}");
        assert_eq!(skipped + seen.len() as u64, 400, "{seen:?}");
        slow.quiet();
        for n in 1..=400 {
            assert_eq!(all.take()["value"]["n"], n);
        }
        // A quiet record comes at once.
        thread::sleep(Duration::from_millis(300));
        let begin = Instant::now();
        put(at, "a", &json!({ "n": 401 }));
        assert_eq!(slow.take()["value"]["n"], 401);
        assert!(begin.elapsed() < Duration::from_millis(150), "{:?}", begin.elapsed());
    }
}

/// The states of a record before: as the beginning of a stream, and by GET.
#[test]
fn history_of_a_record() {
    for shards in [1, 2, 4] {
        let (_app, mut server) = start(shards, &[]);
        let mut at = server.http();
        let mut places = Vec::new();
        for n in 0..30 {
            let response = put_json(at, "/Sensors/r", &json!({ "n": n }));
            places.push(response.header("position").expect("a position").to_owned());
            put(at, "other", &json!({ "n": n }));
            thread::sleep(Duration::from_millis(2));
            if n == 20 {
                server.kill9();
                server.restart();
                at = server.http();
            }
        }
        let n_at = |place: &str| {
            let response = http(at, "GET", &format!("/Sensors/r?at={place}"), &[], b"");
            assert_eq!(response.status, 200, "{place}: {}", response.text());
            response.json()["n"].as_i64()
        };
        for (n, place) in places.iter().enumerate() {
            assert_eq!(n_at(place), Some(n as i64), "{place}, {shards} shards");
        }
        for count in [1, 3, 29] {
            let mut stream = Stream::open(at, &format!("/Sensors/r?previousCount={count}"), None);
            let first = 30 - count.min(30);
            let mut versions = Vec::new();
            for n in first..30 {
                let event = stream.take();
                assert_eq!((&event["type"], &event["value"]["n"]), (&json!("put"), &json!(n)), "{count}");
                versions.push(event["version"].as_f64().expect("a version"));
            }
            stream.quiet();
            // By time: what a stream tells of an event is when it was.
            for (n, version) in (first..30).zip(&versions) {
                assert_eq!(n_at(&version.to_string()), Some(n.into()), "{version}");
            }
        }
        let mut stream = Stream::open(at, "/Sensors/r?previousCount=1000", None);
        (0..30).for_each(|n| assert_eq!(stream.takes("put", "r")["n"], n));
        put(at, "r", &json!({ "n": 30 }));
        assert_eq!(stream.takes("put", "r")["n"], 30);
        delete(at, "r");
        assert_eq!(http(at, "GET", "/Sensors/r?at=2999-01-01", &[], b"").status, 404);
        assert_eq!(http(at, "GET", "/Sensors/r?at=1999-01-01", &[], b"").status, 404);
        assert_eq!(http(at, "GET", "/Sensors/never?at=2026-01-01", &[], b"").status, 404);
        assert_eq!(n_at(&places[7]), Some(7));
        let mut stream = Stream::open(at, "/Sensors/r?previousCount=2", None);
        stream.takes("put", "r");
        stream.takes("delete", "r");
        let elsewhere = vec!["9-9"; shards].join("_");
        for place in [elsewhere.as_str(), "1-1_1-1_1-1"] {
            assert_eq!(http(at, "GET", &format!("/Sensors/r?at={place}"), &[], b"").status, 410, "{place}");
        }
        for refused in
            ["/Sensors/?previousCount=3", "/Sensors/r?previousCount=0", "/Sensors/r?previousCount=3&startTime=5"]
        {
            assert_eq!(http(at, "GET", refused, &[("Accept", "text/event-stream")], b"").status, 400, "{refused}");
        }
        for refused in ["/Sensors/r?previousCount=3", "/Sensors/?at=5", "/Sensors/r?at=soon"] {
            assert_eq!(http(at, "GET", refused, &[], b"").status, 400, "{refused}");
        }
    }
}
