//! Promise 7: a full disk is an answer, not a crash. The real server on a small file system of its own is filled until it
//! refuses: writes are told why, reads and the connections that are there go on, writing resumes by itself when space
//! returns, and nothing that was acknowledged is lost, not even when the server is killed while the disk is full.

mod common;

use common::http::{Connection, http};
use common::wire::{self, Mqtt, Sse};
use common::{Options, PATIENCE, Server, eventually, get};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DISK_BYTES: u64 = 48 << 20;
/// Two files that are in the way until they are deleted.
const BALLAST_BYTES: usize = 10 << 20;
const RESERVE_BYTES: usize = 9 << 20;
const RESUMES_WITHIN: Duration = Duration::from_secs(3);
const PAD_BYTES: usize = 12 << 10;
/// So many refusals in a row are taken for all shards being full.
const REFUSALS: usize = 40;
const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
const QUOTA_EXCEEDED: u8 = 0x97;

/// A small file system.
struct Disk {
    home: TempDir,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program} {arguments:?}: {}", text.trim())) }
}

impl Disk {
    /// An ext4 image on a loop device, or else a tmpfs of that size. `None`: neither may be mounted here.
    fn mount() -> Option<Disk> {
        let disk = Disk { home: TempDir::with_prefix("tablecast-disk-").expect("a folder") };
        let image = disk.home.path().join("image");
        std::fs::create_dir(disk.path()).expect("a folder");
        std::fs::File::create(&image).and_then(|file| file.set_len(DISK_BYTES)).expect("an image");
        let (image, path) = (image.to_string_lossy().into_owned(), disk.path().to_string_lossy().into_owned());
        let on_loop = run("mkfs.ext4", &["-q", "-F", "-m", "0", &image])
            .and_then(|()| run("mount", &["-t", "ext4", "-o", "loop", &image, &path]));
        let Err(why) = on_loop else { return Some(disk) };
        let size = format!("size={DISK_BYTES}");
        match run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &path]) {
            Ok(()) => {
                eprintln!("NOTE: no loop mount ({why}): the disk of this test is a tmpfs");
                Some(disk)
            }
            Err(also) => {
                eprintln!("SKIPPED: promise 7 is NOT tested, nothing can be mounted here: {why}; {also}");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("disk")
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    fn reserve(&self) -> PathBuf {
        self.path().join("reserve")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(why) = run("umount", &["--lazy", &self.path().to_string_lossy()]) {
            eprintln!("{why}");
        }
    }
}

/// A connection that writes with PUT and one that publishes retained with QoS 1, and what was acknowledged to them.
struct Writers {
    rest: Connection,
    mqtt: Mqtt,
    acked: BTreeMap<String, u64>,
    count: u64,
}

impl Writers {
    fn open(server: &Server, acked: BTreeMap<String, u64>, count: u64) -> Writers {
        let mqtt = Mqtt::open(server.mqtt(), 5, "writer");
        Writers { rest: Connection::open(server.http()), mqtt, acked, count }
    }

    /// A record like no other, of a key that may be known: every third one replaces another.
    fn next(&mut self) -> (String, Value) {
        self.count += 1;
        let number = if self.count.is_multiple_of(3) { self.count / 2 } else { self.count };
        (format!("k{number}"), json!({ "n": self.count, "pad": "x".repeat(PAD_BYTES) }))
    }

    /// The answer's status; 204 is an acknowledgement.
    fn put(&mut self) -> common::Response {
        let (key, record) = self.next();
        let path = format!("/Sensors/{key}");
        let response = self.rest.request("PUT", &path, JSON, record.to_string().as_bytes());
        if response.status == 204 {
            self.acked.insert(key, self.count);
        }
        response
    }

    /// The reason code; 0 is an acknowledgement.
    fn publish(&mut self) -> u8 {
        let (key, record) = self.next();
        let id = (self.count % 60_000) as u16 + 1;
        let topic = format!("Sensors/{key}");
        self.mqtt.connection.send(&wire::publish(5, &topic, record.to_string().as_bytes(), (1, true), id));
        let (first, body) = self.mqtt.expect();
        assert_eq!((first, &body[..2]), (0x40, &id.to_be_bytes()[..]), "{body:02x?}");
        let code = body.get(2).copied().unwrap_or(0);
        if code == 0 {
            self.acked.insert(key, self.count);
        }
        code
    }

    /// Writes until every shard refuses; gives the number of acknowledged writes.
    fn fill(&mut self, mut now_and_then: impl FnMut()) -> u64 {
        let (mut refused, mut written) = (0, 0);
        while refused < REFUSALS {
            let is_put = self.count.is_multiple_of(2);
            let is_written = match is_put {
                true => match self.put().status {
                    204 => true,
                    status => {
                        assert_eq!(status, 507);
                        false
                    }
                },
                false => match self.publish() {
                    0 => true,
                    code => {
                        assert_eq!(code, QUOTA_EXCEEDED);
                        false
                    }
                },
            };
            refused = if is_written { 0 } else { refused + 1 };
            written += u64::from(is_written);
            if is_written && written % 100 == 0 {
                now_and_then();
            }
        }
        written
    }
}

fn check_all(server: &Server, acked: &BTreeMap<String, u64>) {
    let mut connection = Connection::open(server.http());
    for (key, n) in acked {
        let response = connection.request("GET", &format!("/Sensors/{key}"), &[], b"");
        assert_eq!((response.status, response.json()["n"].as_u64()), (200, Some(*n)), "{key}");
    }
    let rows = get(server.http(), "/Sensors/").json();
    let listed = rows.as_array().expect("an array").len();
    assert!(listed >= acked.len(), "{listed} records are listed, {} were acknowledged", acked.len());
}

fn segments(path: &Path) -> usize {
    let shards = std::fs::read_dir(path).expect("the data directory").map(|entry| entry.unwrap().path());
    let folders = shards.filter(|path| path.is_dir());
    let names = folders.flat_map(|path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()));
    names.filter(|name| name.to_string_lossy().ends_with(".log")).count()
}

fn a_full_disk_is_an_answer(shards: usize) {
    let Some(disk) = Disk::mount() else { return };
    std::fs::write(disk.ballast(), vec![1; BALLAST_BYTES]).expect("room for the ballast");
    std::fs::write(disk.reserve(), vec![1; RESERVE_BYTES]).expect("room for the reserve");
    let data = disk.path().join("data");
    let mut server = Server::start(Options { data: Some(data.clone()), ..Options::default() }.shards(shards));
    let mut watcher = Mqtt::open(server.mqtt(), 4, "watcher");
    watcher.subscribe(1, &[("Sensors/watched", 0)]);
    let mut stream = Sse::open(server.http(), "/Sensors/watched");
    let mut old_publisher = Mqtt::open(server.mqtt(), 4, "old-publisher");
    let address = server.http();
    let put_watched = |n: u64| {
        let body = json!({ "n": n }).to_string();
        http(address, "PUT", "/Sensors/watched", JSON, body.as_bytes()).status
    };

    let mut writers = Writers::open(&server, BTreeMap::new(), 0);
    let mut watched = 0;
    let written = writers.fill(|| {
        if put_watched(watched + 1) == 204 {
            watched += 1;
        }
    });
    println!("{shards} shards: {written} writes, {} segments, then full", segments(&data));
    assert!(written > 500, "only {written} writes found room");

    // Writes are told why, whatever asks, and connections stay.
    let refusal = eventually("a refusal", PATIENCE, || Some(writers.put()).filter(|answer| answer.status != 204));
    assert_eq!((refusal.status, refusal.header("content-type")), (507, Some("application/problem+json")));
    assert_eq!((&refusal.json()["code"], &refusal.json()["status"]), (&json!("disk_full"), &json!(507)));
    let pad = json!({ "pad": "x".repeat(PAD_BYTES) }).to_string();
    for (method, path) in [("POST", "/Sensors/"), ("PATCH", "/Sensors/k1"), ("PUT", "/Sensors/k1")] {
        let answer = http(server.http(), method, path, JSON, pad.as_bytes());
        assert_eq!(answer.status, 507, "{method}: {answer:?}");
    }
    assert_eq!(writers.publish(), QUOTA_EXCEEDED);
    for (qos, id) in [(0, 0), (1, 7)] {
        writers.mqtt.connection.send(&wire::publish(5, "Sensors/k1", pad.as_bytes(), (qos, false), id));
    }
    let (first, body) = writers.mqtt.expect();
    assert_eq!((first, &body[..3]), (0x40, &[0, 7, QUOTA_EXCEEDED][..]), "a message is stored in the log too");
    writers.mqtt.ping();
    // An acknowledgement of 3.1.1 cannot say no: the connection ends, the log says why.
    old_publisher.connection.send(&wire::publish(4, "Sensors/k1", pad.as_bytes(), (1, true), 9));
    old_publisher.connection.within(PATIENCE);
    assert!(old_publisher.connection.read_to_close() && old_publisher.connection.rest().is_empty());
    for line in ["client=old-publisher", "The disk is full", "no room for another log segment"] {
        eventually(line, PATIENCE, || server.stderr().contains(line).then_some(()));
    }

    // Reads go on, and so do subscriptions, those that were there and new ones.
    check_all(&server, &writers.acked);
    let mut heard = 0;
    while heard < watched {
        let message = watcher.expect_message();
        heard = serde_json::from_slice::<Value>(&message.payload).unwrap()["n"].as_u64().expect("a number");
    }
    watcher.ping();
    let mut newcomer = Mqtt::open(server.mqtt(), 5, "newcomer");
    newcomer.subscribe(1, &[("Sensors/watched", 0)]);
    let retained: Value = serde_json::from_slice(&newcomer.expect_message().payload).unwrap();
    assert_eq!(retained["n"], watched);
    let state = Sse::open(server.http(), "/Sensors/watched").expect();
    assert!(state.contains(&format!("\"n\":{watched}")), "{state}");
    assert_eq!(get(server.http(), "/health").json()["status"], "ok");
    assert!(server.alive());

    // Space returns: writing resumes by itself.
    std::fs::remove_file(disk.ballast()).expect("delete the ballast");
    let freed = Instant::now();
    let (mut rest, mut mqtt) = (None, None);
    let (mut in_a_row, mut resumed) = (0, Duration::ZERO);
    while in_a_row < REFUSALS {
        let (status, code) = (writers.put().status, writers.publish());
        rest = rest.or((status == 204).then(|| freed.elapsed()));
        mqtt = mqtt.or((code == 0).then(|| freed.elapsed()));
        let both = status == 204 && code == 0;
        if both && in_a_row == 0 {
            resumed = freed.elapsed();
        }
        in_a_row = if both { in_a_row + 1 } else { 0 };
        assert!(freed.elapsed() < 4 * RESUMES_WITHIN, "writes are refused still: {status}, {code:#x}");
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("{shards} shards: first PUT after {rest:?}, first publish after {mqtt:?}, all shards after {resumed:?}");
    assert!(resumed < RESUMES_WITHIN, "writing has resumed after {resumed:?}");
    assert_eq!(put_watched(10_000), 204);
    let message: Value = serde_json::from_slice(&watcher.expect_message().payload).unwrap();
    assert_eq!(message["n"], 10_000, "who was connected all the time hears of it");
    while !stream.expect().contains("\"n\":10000") {}

    // Full again, and killed: what was acknowledged is there.
    let written = writers.fill(|| {});
    println!("{shards} shards: {written} more writes, {} segments, then full again", segments(&data));
    let Writers { mut acked, count, .. } = writers;
    acked.insert("watched".into(), 10_000);
    server.kill9();
    // It starts on the full disk, too, for those who read.
    server.restart();
    check_all(&server, &acked);
    let refusal = http(server.http(), "PUT", "/Sensors/k1", JSON, pad.as_bytes());
    assert_eq!(refusal.status, 507, "{refusal:?}");
    server.kill9();
    std::fs::remove_file(disk.reserve()).expect("delete the reserve");
    server.restart();
    check_all(&server, &acked);
    assert!(server.alive());
    let mut writers = Writers::open(&server, acked, count);
    writers.fill(|| {});
    check_all(&server, &writers.acked);
}

#[test]
fn with_one_shard() {
    a_full_disk_is_an_answer(1);
}

#[test]
fn with_two_shards() {
    a_full_disk_is_an_answer(2);
}
