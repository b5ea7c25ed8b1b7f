//! `$SYS` as tools see it: mosquitto's tree and words, figures that add up over all shards, and nobody finds it who has
//! not asked for it by name.

mod common;

use common::wire::{self, Mqtt};
use common::{Connection, Options, PATIENCE, Server, clients, eventually, get, put_json};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

/// Time between two updates, and some patience.
const UPDATE: Duration = Duration::from_secs(2);
const TWO_UPDATES: Duration = Duration::from_secs(30);

fn options(others: &[&str]) -> Options {
    Options::default().args(&[&["--mqtt-sys-interval", "2"], others].concat())
}

/// What mosquitto 2.0 publishes and we do, too, below `$SYS/broker`.
const PLAIN: [&str; 22] = [
    "version",
    "uptime",
    "clients/connected",
    "clients/disconnected",
    "clients/expired",
    "clients/maximum",
    "clients/total",
    "messages/received",
    "messages/sent",
    "messages/stored",
    "publish/messages/dropped",
    "publish/messages/received",
    "publish/messages/sent",
    "publish/bytes/received",
    "publish/bytes/sent",
    "bytes/received",
    "bytes/sent",
    "subscriptions/count",
    "shared_subscriptions/count",
    "retained messages/count",
    "store/messages/count",
    "store/messages/bytes",
];

const LOADS: [&str; 9] = [
    "messages/received",
    "messages/sent",
    "publish/dropped",
    "publish/received",
    "publish/sent",
    "bytes/received",
    "bytes/sent",
    "sockets",
    "connections",
];

type Figures = BTreeMap<String, String>;

/// A client that watches the figures, and all that it has received.
struct Watcher {
    mqtt: Mqtt,
    figures: Figures,
    messages: u64,
    bytes: u64,
    payload_bytes: u64,
}

impl Watcher {
    #[track_caller]
    fn open(server: &Server, client_id: &str, filter: &str, qos: u8) -> Watcher {
        let mut mqtt = Mqtt::open(server.mqtt(), 4, client_id);
        assert_eq!(mqtt.subscribe(1, &[(filter, qos)]), [qos]);
        Watcher { mqtt, figures: Figures::new(), messages: 0, bytes: 4 + 5, payload_bytes: 0 }
    }

    /// Takes one message, if it comes within this time.
    fn next(&mut self, within: Duration) -> bool {
        self.mqtt.connection.within(within);
        let Ok((first, body)) = self.mqtt.next() else { return false };
        let received = self.mqtt.received(first, &body).expect("a PUBLISH");
        assert_eq!(first & 6, 0, "figures come at QoS 0");
        self.messages += 1;
        self.bytes += wire::packet(first, &body).len() as u64;
        self.payload_bytes += received.payload.len() as u64;
        let name = received.topic.strip_prefix("$SYS/broker/").expect("below $SYS/broker").to_owned();
        self.figures.insert(name, String::from_utf8(received.payload).expect("text"));
        true
    }

    /// Takes all messages until none has come for a while.
    fn settle(&mut self) {
        while self.next(UPDATE / 4) {}
    }

    /// Takes messages until the figures are as wanted.
    #[track_caller]
    fn until(&mut self, what: &str, wanted: impl Fn(&Figures) -> bool) {
        let end = Instant::now() + TWO_UPDATES;
        while !wanted(&self.figures) {
            assert!(Instant::now() < end, "not seen: {what}; {:?}", self.figures);
            self.next(Duration::from_secs(1));
        }
    }

    #[track_caller]
    fn number(&self, name: &str) -> u64 {
        let text = self.figures.get(name).unwrap_or_else(|| panic!("no {name}"));
        text.parse().unwrap_or_else(|_| panic!("{name} is {text}"))
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[test]
fn mosquitto_sub_finds_the_whole_tree() {
    clients::setup();
    let server = Server::start(options(&[]));
    let mut expected: Vec<String> = PLAIN.map(|name| format!("$SYS/broker/{name}")).to_vec();
    for load in LOADS {
        expected.extend(["1min", "5min", "15min"].map(|span| format!("$SYS/broker/load/{load}/{span}")));
    }
    expected.sort();
    for (version, filter) in [("mqttv311", "$SYS/#"), ("mqttv5", "$SYS/broker/#")] {
        let output = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &server.mqtt().port().to_string(), "-V", version, "-q", "1"])
            .args(["-t", filter, "-F", "%t\t%r\t%q\t%p", "-W", "20", "-C", &expected.len().to_string()])
            .output()
            .expect("run mosquitto_sub");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let mut found = Vec::new();
        for line in text.lines() {
            let [topic, retain, qos, payload] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert_eq!((retain, qos), ("1", "0"), "{line}");
            let is_right = match topic.strip_prefix("$SYS/broker/").expect("below $SYS/broker") {
                "version" => payload == concat!("tablecast version ", env!("CARGO_PKG_VERSION")),
                "uptime" => payload.strip_suffix(" seconds").is_some_and(is_number),
                load if load.starts_with("load/") => {
                    payload.split_once('.').is_some_and(|(whole, part)| is_number(whole) && part.len() == 2)
                }
                _ => is_number(payload),
            };
            assert!(is_right, "{line}");
            found.push(topic.to_owned());
        }
        found.sort();
        assert_eq!(found, expected);
    }
}

/// Everything that clients have sent and received, counted by them and by the server.
fn figures_add_up(shards: usize) {
    const CLIENTS: usize = 4;
    const MESSAGES: u64 = 50;
    const PAYLOAD: &[u8] = b"{\"temp\":21.25}";
    let server = Server::start(options(&[]).shards(shards));
    let mut watcher = Watcher::open(&server, "watcher", "$SYS/broker/#", 1);
    let subscribe = wire::subscribe(4, 1, &[("$SYS/broker/#", 1)]);
    let mut sent = vec![wire::connect_as(4, "watcher"), subscribe];
    let (mut received_packets, mut received_bytes, mut received_messages) = (2, 0, 0);
    // One that goes, and of which the session stays.
    let mut away = Mqtt { connection: Connection::open(server.mqtt()), level: 4 };
    for packet in [wire::connect(4, 0, 60, &wire::text("away")), vec![0xe0, 0]] {
        away.connection.send(&packet);
        sent.push(packet);
    }
    assert_eq!(away.expect(), (0x20, vec![0, 0]));
    (received_packets, received_bytes) = (received_packets + 1, received_bytes + 4);
    // Some that publish at QoS 1, and hear what one of them says.
    let mut all = Vec::new();
    for number in 0..CLIENTS {
        let name = format!("client-{number}");
        let mut mqtt = Mqtt::open(server.mqtt(), 4, &name);
        assert_eq!(mqtt.subscribe(1, &[("Sensors/0", 0)]), [0]);
        sent.extend([wire::connect_as(4, &name), wire::subscribe(4, 1, &[("Sensors/0", 0)])]);
        (received_packets, received_bytes) = (received_packets + 2, received_bytes + 4 + 5);
        all.push(mqtt);
    }
    for id in 1..=MESSAGES as u16 {
        for (number, mqtt) in all.iter_mut().enumerate() {
            // The first is the record, the others are messages: none of those is left out for a newer one.
            let packet = wire::publish(4, &format!("Sensors/{number}"), PAYLOAD, (1, id == 1), id);
            mqtt.connection.send(&packet);
            sent.push(packet);
        }
    }
    for mqtt in &mut all {
        let (mut acknowledged, mut heard) = (0, 0);
        while acknowledged < MESSAGES || heard < MESSAGES {
            let (first, body) = mqtt.expect();
            (received_packets, received_bytes) =
                (received_packets + 1, received_bytes + wire::packet(first, &body).len() as u64);
            match mqtt.received(first, &body) {
                Some(message) => {
                    heard += 1;
                    received_messages += 1;
                    watcher.payload_bytes += message.payload.len() as u64;
                }
                None => acknowledged += 1,
            }
        }
    }
    let expected_sent: u64 = sent.iter().map(|packet| packet.len() as u64).sum();
    let published = MESSAGES * CLIENTS as u64;
    // An update in which all of that has been told. What it says was so before it was sent.
    watcher.until("all that was published", |figures| {
        figures.get("publish/messages/received") == Some(&published.to_string())
    });
    watcher.settle();
    let (messages, bytes, payload_bytes) = (watcher.messages, watcher.bytes, watcher.payload_bytes);
    let before = watcher.figures.clone();
    watcher.until("another update", |figures| figures["uptime"] != before["uptime"]);
    watcher.settle();
    let expected = [
        ("publish/messages/received", published),
        ("publish/bytes/received", published * PAYLOAD.len() as u64),
        ("publish/messages/sent", received_messages + messages),
        ("publish/bytes/sent", payload_bytes),
        ("publish/messages/dropped", 0),
        ("messages/received", sent.len() as u64),
        ("messages/sent", received_packets + messages),
        ("bytes/received", expected_sent),
        ("bytes/sent", received_bytes + bytes),
        ("clients/connected", CLIENTS as u64 + 1),
        ("clients/disconnected", 1),
        ("clients/total", CLIENTS as u64 + 2),
        ("clients/expired", 0),
        ("subscriptions/count", CLIENTS as u64 + 1),
        ("retained messages/count", CLIENTS as u64),
        ("store/messages/count", CLIENTS as u64),
        ("messages/stored", CLIENTS as u64),
    ];
    for (name, expected) in expected {
        assert_eq!(watcher.number(name), expected, "{name} with {shards} shards");
    }
    let maximum = watcher.number("clients/maximum");
    assert!((CLIENTS as u64 + 1..=CLIENTS as u64 + 2).contains(&maximum), "{maximum}");
    let stored = watcher.number("store/messages/bytes");
    assert!((100..10_000).contains(&stored), "{stored}");
    let load = |name: &str| watcher.figures[&format!("load/{name}")].parse::<f64>().expect("a number");
    assert!(load("publish/received/1min") > load("publish/received/5min"));
    assert!(load("publish/received/5min") > load("publish/received/15min") && load("connections/15min") > 0.0);
    // Those that go are counted, too.
    drop(all);
    watcher.until("the clients are gone", |figures| figures["clients/connected"] == "1");
    assert_eq!(watcher.number("clients/maximum"), maximum);
}

#[test]
fn figures_add_up_on_one_shard() {
    figures_add_up(1);
}

#[test]
fn figures_add_up_on_two_shards() {
    figures_add_up(2);
}

#[test]
fn figures_add_up_on_four_shards() {
    figures_add_up(4);
}

#[test]
fn a_slow_reader_is_not_given_everything_and_that_is_counted() {
    const MESSAGES: usize = 2500;
    let payload = vec![b'x'; 16 << 10];
    let server = Server::start(options(&["--outbox-bytes-max", "64KiB"]));
    let mut watcher = Watcher::open(&server, "watcher", "$SYS/broker/publish/messages/dropped", 0);
    let mut slow = Mqtt::open(server.mqtt(), 4, "slow");
    slow.subscribe(1, &[("Sensors/flood", 0)]);
    let mut publisher = Mqtt::open(server.mqtt(), 4, "publisher");
    for _ in 0..MESSAGES {
        publisher.connection.send(&wire::publish(4, "Sensors/flood", &payload, (0, false), 0));
    }
    publisher.put("Sensors/last", b"{}", 1);
    // It reads again, and is told what it asks for when it has caught up.
    slow.connection.send(&wire::subscribe(4, 2, &[("Sensors/last", 0)]));
    let mut heard = 0;
    loop {
        let (first, body) = slow.expect();
        match slow.received(first, &body) {
            Some(message) if message.topic == "Sensors/last" => break,
            Some(_) => heard += 1,
            None => assert_eq!(first, 0x90),
        }
    }
    assert!(heard < MESSAGES, "the system has taken it all");
    let dropped = (MESSAGES - heard).to_string();
    watcher.until("what the slow reader did not get", |figures| figures.values().any(|text| *text == dropped));
}

#[test]
fn nobody_finds_it_by_chance_and_nobody_writes_it() {
    let server = Server::start(options(&[]));
    let mut watcher = Watcher::open(&server, "watcher", "$SYS/+/uptime", 0);
    watcher.until("the uptime", |figures| figures.contains_key("uptime"));
    for level in [4, 5] {
        let refused = if level == 5 { 0x8f } else { 0x80 };
        let mut mqtt = Mqtt::open(server.mqtt(), level, &format!("curious-{level}"));
        // The root's table takes all names, but none that begin with `$` [MQTT-4.7.2-1].
        let codes = mqtt.subscribe(1, &[("#", 0), ("+/broker/uptime", 0), ("+/#", 0), ("$other/#", 0), ("$SYS", 0)]);
        assert_eq!(codes, [0, 0, 0, refused, 0]);
        let before = watcher.figures.clone();
        watcher.until("another update", |figures| *figures != before);
        let topic = format!("probe/{level}");
        mqtt.connection.send(&wire::publish(level, &topic, b"{}", (0, false), 0));
        assert_eq!(mqtt.expect_message().topic, topic, "the first that it hears");
        assert_eq!(mqtt.subscribe(2, &[("$SYS/broker/version", 0)]), [0]);
        assert_eq!(mqtt.expect_message().topic, "$SYS/broker/version");
        // QoS 0 is passed over, QoS 1 refused.
        for retain in [true, false] {
            mqtt.connection.send(&wire::publish(level, "$SYS/broker/uptime", b"1", (0, retain), 0));
        }
        mqtt.ping();
        mqtt.connection.send(&wire::publish(level, "$SYS/broker/uptime", b"1", (1, true), 9));
        match level {
            4 => assert!(mqtt.connection.within(PATIENCE).read_to_close(), "3.1.1 has no other no"),
            _ => assert_eq!(mqtt.expect().1[..3], [0, 9, 0x90]),
        }
    }
    assert!(watcher.figures["uptime"].ends_with(" seconds"), "{:?}", watcher.figures);
    // Not over HTTP, not even where a table is exported at the root: what it holds below that name is its own.
    assert_eq!(get(server.http(), "/$SYS/broker/uptime").status, 404);
    assert_eq!(get(server.http(), "/$SYS/broker/").json(), serde_json::json!([]));
    put_json(server.http(), "/$SYS/broker/uptime", &serde_json::json!({"data": {"own": true}}));
    let mut mqtt = Mqtt::open(server.mqtt(), 4, "later");
    mqtt.subscribe(1, &[("$SYS/broker/uptime", 0)]);
    assert!(mqtt.expect_message().payload.ends_with(b" seconds"));
}

#[test]
fn it_is_not_there_for_other_protocols() {
    let folder = tempfile::tempdir().expect("a folder");
    common::server::write_app(folder.path(), "type Sensors @table @export {\n  id: ID @primaryKey\n}\n");
    let server = Server::start(Options { app: Some(folder.path().to_owned()), ..options(&[]) });
    for path in ["/$SYS/broker/uptime", "/$SYS/", "/$SYS", "/%24SYS/broker/uptime", "/system/figures/", "/figures/"] {
        assert_eq!(get(server.http(), path).status, 404, "{path}");
        let stream = common::http(server.http(), "GET", path, &[("Accept", "text/event-stream")], b"");
        assert_eq!(stream.status, 404, "{path}");
        let mut connection = Connection::open(server.http());
        connection.send(wire::handshake(server.http(), path, "").as_bytes());
        assert_eq!(connection.response_head().expect("an answer").status, 101, "{path}");
        let mut web_socket = wire::WebSocket { connection };
        assert_ne!(web_socket.expect_close().0, 1000, "{path}");
    }
    let watcher = Watcher::open(&server, "watcher", "$SYS/#", 2);
    drop(watcher);
}

/// Figures of an earlier run are not shown, however it ended.
#[test]
fn a_restart_begins_anew() {
    let mut server = Server::start(options(&[]));
    for kill in [true, false] {
        let mut watcher = Watcher::open(&server, "watcher", "$SYS/broker/#", 0);
        let mut publisher = Mqtt::open(server.mqtt(), 4, "publisher");
        for id in 1..=5 {
            publisher.put(&format!("Sensors/{id}"), b"{}", id);
        }
        watcher.until("five messages", |figures| {
            figures.get("publish/messages/received").is_some_and(|text| text == "5")
                && figures.get("uptime").is_some_and(|text| text != "0 seconds")
        });
        if kill {
            server.kill9();
        }
        server.restart();
        let mut watcher = Watcher::open(&server, "watcher", "$SYS/broker/#", 0);
        while watcher.figures.len() < PLAIN.len() + 3 * LOADS.len() {
            assert!(watcher.next(PATIENCE), "{:?}", watcher.figures);
        }
        let figures = &watcher.figures;
        assert_eq!((&*figures["publish/messages/received"], &*figures["retained messages/count"]), ("0", "5"));
        assert!(["0 seconds", "1 seconds", "2 seconds"].contains(&&*figures["uptime"]), "{figures:?}");
    }
}

/// A durable session that watches figures is taken up again with everything else that it subscribes to: old figures
/// are not kept for it, and it does not miss them.
#[test]
fn a_session_that_was_away_gets_what_it_waits_for() {
    let server = Server::start(options(&[]));
    let resume = wire::connect(4, 0, 60, &wire::text("durable"));
    let mut mqtt = Mqtt { connection: Connection::open(server.mqtt()), level: 4 };
    mqtt.connection.send(&resume);
    assert_eq!(mqtt.expect(), (0x20, vec![0, 0]));
    assert_eq!(mqtt.subscribe(1, &[("Sensors/#", 1), ("$SYS/broker/uptime", 1)]), [1, 1]);
    mqtt.connection.send(&[0xe0, 0]);
    assert!(mqtt.connection.within(PATIENCE).read_to_close());
    let mut watcher = Watcher::open(&server, "watcher", "$SYS/broker/clients/disconnected", 0);
    watcher.until("it is away", |figures| figures.values().any(|text| text == "1"));
    Mqtt::open(server.mqtt(), 4, "publisher").put("Sensors/1", b"{}", 1);
    let mut mqtt = Mqtt { connection: Connection::open(server.mqtt()), level: 4 };
    mqtt.connection.send(&resume);
    assert_eq!(mqtt.expect(), (0x20, vec![1, 0]), "the session is there");
    let message = mqtt.expect_message();
    assert_eq!((&*message.topic, message.id.is_some()), ("Sensors/1", true));
    eventually("figures go on", PATIENCE, || (mqtt.expect_message().topic == "$SYS/broker/uptime").then_some(()));
}
