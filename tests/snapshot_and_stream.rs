//! Promise 8: no gap and no duplicate between the snapshot and the live stream. Writers number the values of each key;
//! now and then a delete takes the place of a number. Subscribers of every protocol come and go meanwhile: whatever
//! number one sees first of a key, the next must be the one after it, to the end of the subscription. Each subscription
//! is one race; those under way when the writers stop must see the very last number of each of their keys.

mod common;

use common::wire::{self, Mqtt, Sse, WebSocket, data_of};
use common::{Options, PATIENCE, Server};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Keys of the two writers.
const KEYS: [&[&str]; 2] = [&["a/k0", "a/k1", "b/k0"], &["a/k2", "a/k3/deep", "b/k1"]];
/// Publishes of a writer that wait for their acknowledgement: keeps the writers from drowning slow readers.
const WINDOW: usize = 8;
/// Every so many numbers a key is deleted instead.
const DELETE_EVERY: u64 = 17;
/// How long a reader waits before it looks whether the writers have stopped.
const GLANCE: Duration = Duration::from_millis(100);

/// What the threads of a test share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Races that were run to their end.
    races: AtomicUsize,
    events: AtomicUsize,
    /// Set by each writer when it has stopped: the last number of each key.
    last: Mutex<BTreeMap<String, u64>>,
}

impl Shared {
    /// The last numbers, once all writers have stopped.
    fn finals(&self) -> Option<BTreeMap<String, u64>> {
        let last = self.last.lock().expect("no panic");
        (last.len() == KEYS.iter().map(|keys| keys.len()).sum::<usize>()).then(|| last.clone())
    }
}

/// Writes numbers to its keys until told to stop; the last number of each is a value, not a delete.
fn write(addr: SocketAddr, name: &str, keys: &[&str], shared: &Shared) {
    let mut mqtt = Mqtt::open(addr, 4, name);
    let mut numbers = vec![0u64; keys.len()];
    let (mut waiting, mut id, mut at) = (0, 0u16, 0);
    loop {
        let stopping = shared.stop.load(Ordering::Relaxed);
        if !stopping || at != 0 || numbers.iter().any(|n| n.is_multiple_of(DELETE_EVERY)) {
            numbers[at] += 1;
            let payload = match numbers[at] {
                n if n.is_multiple_of(DELETE_EVERY) => Vec::new(),
                n => format!("{{\"n\":{n}}}").into_bytes(),
            };
            id = id % u16::MAX + 1;
            mqtt.connection.send(&wire::publish(4, &format!("Sensors/{}", keys[at]), &payload, (1, true), id));
            at = (at + 1) % keys.len();
            waiting += 1;
            if waiting < WINDOW {
                continue;
            }
        }
        if waiting == 0 {
            break;
        }
        assert_eq!(mqtt.expect().0, 0x40);
        waiting -= 1;
    }
    let mut last = shared.last.lock().expect("no panic");
    last.extend(keys.iter().map(|key| (*key).to_owned()).zip(numbers));
}

/// What a subscription covers.
#[derive(Clone, Copy, Debug)]
struct Scope {
    /// MQTT filter, or URL path.
    text: &'static str,
    covers: fn(&str) -> bool,
}

const FILTERS: &[Scope] = &[
    Scope { text: "Sensors/a/k0", covers: |key| key == "a/k0" },
    Scope { text: "Sensors/b/k1", covers: |key| key == "b/k1" },
    Scope { text: "Sensors/#", covers: |_| true },
    Scope { text: "Sensors/a/#", covers: |key| key.starts_with("a/") },
    Scope { text: "Sensors/+/k0", covers: |key| key.ends_with("/k0") },
    Scope { text: "Sensors/a/+/deep", covers: |key| key == "a/k3/deep" },
    Scope { text: "+/b/+", covers: |key| key.starts_with("b/") },
];

const PATHS: &[Scope] = &[
    Scope { text: "/Sensors/a/k0", covers: |key| key == "a/k0" },
    Scope { text: "/Sensors/b/k1", covers: |key| key == "b/k1" },
    Scope { text: "/Sensors/", covers: |_| true },
    Scope { text: "/Sensors/a/", covers: |key| key.starts_with("a/") },
];

/// One subscription, and what it has seen of each key.
struct Race {
    name: String,
    scope: Scope,
    seen: BTreeMap<String, u64>,
    events: usize,
    wanted: usize,
    quiet_since: Instant,
}

impl Race {
    fn new(name: &str, scope: Scope) -> Race {
        let keys = KEYS.concat().iter().filter(|key| (scope.covers)(key)).count();
        let name = format!("{name} on {}", scope.text);
        // Enough to be past the snapshot by some events of each key.
        Race { name, scope, seen: BTreeMap::new(), events: 0, wanted: 4 * keys, quiet_since: Instant::now() }
    }

    /// The next event of a key: a number, or a delete, which counts as one.
    fn event(&mut self, key: &str, value: Option<u64>) {
        assert!((self.scope.covers)(key), "{}: got {key}", self.name);
        self.events += 1;
        self.quiet_since = Instant::now();
        match (self.seen.get_mut(key), value) {
            (Some(last), Some(n)) => {
                assert_eq!(n, *last + 1, "{}: {key} jumped from {last}, event {}", self.name, self.events);
                *last = n;
            }
            (Some(last), None) => {
                *last += 1;
                assert!(last.is_multiple_of(DELETE_EVERY), "{}: {key} was deleted at {last}", self.name);
            }
            (None, Some(n)) => drop(self.seen.insert(key.to_owned(), n)),
            (None, None) => {} // a delete is the first thing seen: its number is not known
        }
    }

    /// Whether the race is over: enough was seen, or everything there will ever be.
    fn over(&self, shared: &Shared) -> bool {
        let Some(finals) = shared.finals() else { return self.events >= self.wanted };
        let missing: Vec<_> =
            finals.iter().filter(|(key, n)| (self.scope.covers)(key) && self.seen.get(*key) != Some(n)).collect();
        let waited = self.quiet_since.elapsed();
        assert!(
            missing.is_empty() || waited < PATIENCE,
            "{}: never came: {missing:?}; seen {:?}",
            self.name,
            self.seen
        );
        missing.is_empty()
    }

    fn done(self, shared: &Shared) {
        shared.races.fetch_add(1, Ordering::Relaxed);
        shared.events.fetch_add(self.events, Ordering::Relaxed);
    }
}

/// A read that found nothing in time.
fn is_quiet(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

fn number(value: &Value) -> Option<u64> {
    value["n"].as_u64()
}

/// Subscribes and unsubscribes on one connection, filter after filter, at QoS 0 and 1.
fn race_mqtt(addr: SocketAddr, level: u8, shared: &Shared) {
    let mut mqtt = Mqtt::open(addr, level, &format!("race-{level}"));
    for round in 0.. {
        let scope = FILTERS[round % FILTERS.len()];
        let id = (round % 60_000) as u16 + 1;
        let qos = (round / FILTERS.len() % 2) as u8;
        let finishing = shared.stop.load(Ordering::Relaxed);
        let mut race = Race::new(&format!("MQTT {level} QoS {qos}"), scope);
        mqtt.connection.send(&wire::subscribe(level, id, &[(scope.text, qos)]));
        let mut subscribed = false;
        while !race.over(shared) {
            mqtt.connection.within(GLANCE);
            let (first, body) = match mqtt.next() {
                Ok(packet) => packet,
                Err(e) if is_quiet(&e) => continue,
                Err(e) => panic!("{}: {e}", race.name),
            };
            match mqtt.received(first, &body) {
                Some(message) => {
                    assert!(subscribed, "{}: a message before the SUBACK", race.name);
                    assert_eq!(message.id.is_some(), qos == 1, "{}", race.name);
                    if let Some(id) = message.id {
                        mqtt.connection.send(&wire::puback(id));
                    }
                    let key = message.topic.strip_prefix("Sensors/").expect("a key of Sensors");
                    let value = serde_json::from_slice(&message.payload).ok().and_then(|value| number(&value));
                    race.event(key, value);
                }
                None => {
                    assert_eq!((first, body.last()), (0x90, Some(&qos)), "{}: {body:02x?}", race.name);
                    subscribed = true;
                }
            }
        }
        race.done(shared);
        mqtt.connection.send(&wire::unsubscribe(level, id, scope.text));
        loop {
            let (first, body) = mqtt.expect();
            match mqtt.received(first, &body) {
                Some(message) => message.id.into_iter().for_each(|id| mqtt.connection.send(&wire::puback(id))),
                None => break assert_eq!(first, 0xb0, "UNSUBACK"),
            }
        }
        if finishing {
            return;
        }
    }
}

fn envelope(race: &mut Race, text: &str) {
    let event: Value = serde_json::from_str(text).expect("an envelope");
    race.event(event["id"].as_str().expect("a key"), number(&event["value"]));
}

fn race_sse(addr: SocketAddr, shared: &Shared) {
    for round in 0.. {
        let scope = PATHS[round % PATHS.len()];
        let finishing = shared.stop.load(Ordering::Relaxed);
        let mut race = Race::new("SSE", scope);
        let mut sse = Sse::open(addr, scope.text);
        while !race.over(shared) {
            sse.connection.within(GLANCE);
            match sse.next() {
                Ok(event) => {
                    let event = event.unwrap_or_else(|| panic!("{}: the stream ended", race.name));
                    data_of(&event).into_iter().for_each(|data| envelope(&mut race, data));
                }
                Err(e) => assert!(is_quiet(&e), "{}: {e}", race.name),
            }
        }
        race.done(shared);
        if finishing {
            return;
        }
    }
}

fn race_web_socket(addr: SocketAddr, shared: &Shared) {
    for round in 0.. {
        let scope = PATHS[round % PATHS.len()];
        let finishing = shared.stop.load(Ordering::Relaxed);
        let mut race = Race::new("WebSocket", scope);
        let mut web_socket = WebSocket::open(addr, scope.text);
        while !race.over(shared) {
            web_socket.connection.within(GLANCE);
            match web_socket.next() {
                Ok((0x81, text)) => envelope(&mut race, std::str::from_utf8(&text).expect("UTF-8")),
                Ok((first, payload)) => panic!("{}: {first:02x} {payload:02x?}", race.name),
                Err(e) => assert!(is_quiet(&e), "{}: {e}", race.name),
            }
        }
        race.done(shared);
        if finishing {
            return;
        }
    }
}

/// Races until there have been enough, or for a third of a minute on a machine that is busy with other things.
fn races(shards: usize) {
    const ENOUGH: usize = 5000;
    const LEAST: usize = 200;
    let server = Server::start(Options::default().shards(shards));
    let (http, mqtt) = (server.http(), server.mqtt());
    let shared = Shared::default();
    let since = Instant::now();
    thread::scope(|scope| {
        let shared = &shared;
        let mut readers = vec![
            scope.spawn(move || race_mqtt(mqtt, 4, shared)),
            scope.spawn(move || race_mqtt(mqtt, 5, shared)),
            scope.spawn(move || race_sse(http, shared)),
            scope.spawn(move || race_web_socket(http, shared)),
        ];
        readers.extend([
            scope.spawn(move || write(mqtt, "writer-0", KEYS[0], shared)),
            scope.spawn(move || write(mqtt, "writer-1", KEYS[1], shared)),
        ]);
        common::poll(Duration::from_secs(18), || {
            let failed = readers.iter().any(|thread| thread.is_finished());
            (failed || shared.races.load(Ordering::Relaxed) >= ENOUGH).then_some(())
        });
        shared.stop.store(true, Ordering::Relaxed);
    });
    let (races, events) = (shared.races.load(Ordering::Relaxed), shared.events.load(Ordering::Relaxed));
    println!("{shards} shards: {races} races, {events} events in {:?}", since.elapsed());
    assert!(races >= LEAST, "only {races} races");
}

#[test]
fn no_gap_and_no_duplicate_on_one_shard() {
    races(1);
}

#[test]
fn no_gap_and_no_duplicate_on_two_shards() {
    races(2);
}

#[test]
fn no_gap_and_no_duplicate_on_four_shards() {
    races(4);
}
