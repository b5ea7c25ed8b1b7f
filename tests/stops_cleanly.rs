//! Promise 18: a server that is told to stop loses nobody, and one that cannot start says why: goodbyes of every
//! protocol, acknowledged writes, connections that still wait to be accepted, exit codes and messages.

mod common;

use common::http::Connection;
use common::wire::{self, Mqtt, Sse, WebSocket};
use common::{Options, PATIENCE, Server, eventually, get};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

/// Publishes with QoS 1, sixteen at a time, each to a key of its own: how many were acknowledged, in order, and the
/// packet that ended it.
fn publish_until_the_end(addr: SocketAddr, level: u8, name: &str, acks: &AtomicUsize) -> (u32, Option<u8>) {
    let mut mqtt = Mqtt::open(addr, level, name);
    let (mut sent, mut acked) = (0u32, 0u32);
    loop {
        let mut batch = Vec::new();
        while sent < acked + 16 {
            sent += 1;
            let topic = format!("Sensors/{name}-{sent}");
            batch.extend(wire::publish(level, &topic, b"{}", (1, true), (sent % 65_535) as u16 + 1));
        }
        let broken = std::io::Write::write_all(&mut mqtt.connection.stream(), &batch).is_err();
        mqtt.connection.within(PATIENCE);
        match mqtt.next() {
            Ok((0x40, id)) => {
                acked += 1;
                assert_eq!(id, ((acked % 65_535) as u16 + 1).to_be_bytes());
                acks.fetch_add(1, Ordering::Relaxed);
            }
            Ok((first, body)) => {
                assert_eq!((level, first), (5, 0xe0), "{body:02x?}");
                return (acked, Some(body[0]));
            }
            Err(e) => {
                assert!(broken || e.kind() == std::io::ErrorKind::UnexpectedEof, "{name}: {e}");
                return (acked, None);
            }
        }
    }
}

/// PUTs one after the other until the server ends the connection: how many were acknowledged, and whether the last
/// answer said so.
fn put_until_the_end(addr: SocketAddr, name: &str, acks: &AtomicUsize) -> (u32, bool) {
    let mut connection = Connection::open(addr);
    let mut acked = 0;
    loop {
        connection.within(PATIENCE);
        let path = format!("/Sensors/{name}-{}", acked + 1);
        let Ok(response) = connection.try_request("PUT", &path, JSON, b"{}") else { return (acked, false) };
        assert_eq!(response.status, 204, "{response:?}");
        acked += 1;
        acks.fetch_add(1, Ordering::Relaxed);
        if response.header("connection") == Some("close") {
            return (acked, true);
        }
    }
}

fn load_and_sigterm(shards: usize) {
    let mut server = Server::start(Options::default().shards(shards));
    let acks = Arc::new(AtomicUsize::new(0));
    let (http, mqtt) = (server.http(), server.mqtt());
    let publishers: Vec<_> = [(4, "m4"), (5, "m5"), (5, "m5b")]
        .into_iter()
        .map(|(level, name)| {
            let acks = acks.clone();
            (level, name, thread::spawn(move || publish_until_the_end(mqtt, level, name, &acks)))
        })
        .collect();
    let putters: Vec<_> = ["h1", "h2", "h3"]
        .into_iter()
        .map(|name| {
            let acks = acks.clone();
            (name, thread::spawn(move || put_until_the_end(http, name, &acks)))
        })
        .collect();
    eventually("acknowledgements under load", PATIENCE, || (acks.load(Ordering::Relaxed) > 500).then_some(()));
    let status = server.terminate();
    assert_eq!(status.code(), Some(0), "{}", server.stderr());
    let mut acknowledged = Vec::new();
    for (level, name, publisher) in publishers {
        let (count, goodbye) = publisher.join().expect("a publisher");
        assert_eq!(goodbye, (level == 5).then_some(0x8b), "{name}: version 5 is told why");
        acknowledged.push((name, count));
    }
    let mut told = 0;
    for (name, putter) in putters {
        let (count, said) = putter.join().expect("a writer");
        told += usize::from(said);
        acknowledged.push((name, count));
    }
    println!("{shards} shards: {acknowledged:?}; {told} of 3 HTTP connections were told with an answer");
    server.restart();
    let rows = get(server.http(), "/Sensors/").json();
    let stored: std::collections::BTreeSet<&str> =
        rows.as_array().expect("rows").iter().filter_map(|row| row["id"].as_str()).collect();
    for (name, count) in acknowledged {
        for n in 1..=count {
            assert!(stored.contains(&*format!("{name}-{n}")), "{name}-{n} of {count} was acknowledged and is lost");
        }
    }
}

#[test]
fn sigterm_under_load_loses_nothing_acknowledged() {
    for shards in [1, 2, 4] {
        load_and_sigterm(shards);
    }
}

#[test]
fn everybody_is_told() {
    let mut server = Server::start(Options::default());
    let mut mqtt5 = Mqtt::open(server.mqtt(), 5, "five");
    let mut mqtt4 = Mqtt::open(server.mqtt(), 4, "four");
    let mut web_socket = WebSocket::open(server.http(), "/Sensors/");
    let mut sse = Sse::open(server.http(), "/Sensors/");
    let mut tunnel = Connection::open(server.http());
    tunnel.send(wire::handshake(server.http(), "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n").as_bytes());
    assert_eq!(tunnel.response_head().expect("an answer").status, 101);
    let mut tunnel = WebSocket { connection: tunnel };
    tunnel.connection.send(&wire::frame(0x82, &wire::connect_as(5, "inside")));
    assert_eq!(tunnel.expect().1[3], 0);
    // A request that has begun is finished first.
    let mut begun = Connection::open(server.http());
    begun.send(b"PUT /Sensors/begun HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{\"n\"");
    let mut idle = Connection::open(server.http());
    assert_eq!(idle.request("GET", "/Sensors/none", &[], b"").status, 404);
    // The unfinished request has been read once something behind it is answered, on each of the shards.
    for n in 0..8 {
        Mqtt::open(server.mqtt(), 4, &format!("ping-{n}")).ping();
    }
    mqtt5.ping();
    mqtt4.ping();
    server.signal(libc::SIGTERM);
    let (first, body) = mqtt5.expect();
    assert_eq!((first, body[0]), (0xe0, 0x8b));
    mqtt4.connection.within(PATIENCE);
    assert_eq!(mqtt4.next().expect_err("3.1.1 has no words").kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(web_socket.expect_close().0, 1012);
    let (first, packet) = tunnel.expect();
    assert_eq!((first, packet[0], packet[2]), (0x82, 0xe0, 0x8b), "MQTT inside a WebSocket says its own goodbye first");
    assert_eq!(tunnel.expect_close().0, 1012);
    sse.connection.within(PATIENCE);
    assert_eq!(sse.next().expect("the last chunk"), None, "the stream ends as HTTP says, and the client comes back");
    idle.within(PATIENCE);
    assert!(idle.read_to_close() && idle.rest().is_empty(), "an idle connection is closed");
    begun.within(PATIENCE).send(b":1  }");
    let end = begun.rest(); // nothing was answered before the request was whole
    assert!(end.is_empty());
    let response = begun.response(false).expect("the answer to a request that had begun");
    assert_eq!((response.status, response.header("connection")), (204, Some("close")));
    drop((mqtt4, mqtt5, web_socket, sse, tunnel, idle, begun));
    assert_eq!(server.wait().code(), Some(0), "{}", server.stderr());
    server.restart();
    assert_eq!(get(server.http(), "/Sensors/begun").json()["n"], 1);
}

/// The process is halted, so that connections pile up unaccepted; then it is told to stop, and goes on.
#[test]
fn waiting_connections_are_accepted_first() {
    let mut server = Server::start(Options::default());
    let (http, mqtt) = (server.http(), server.mqtt());
    server.signal(libc::SIGSTOP);
    let halted = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).ok()?;
        stat.rsplit(") ").next()?.starts_with('T').then_some(())
    };
    eventually("the server is halted", PATIENCE, halted);
    let waiting: Vec<Connection> = (0..30)
        .map(|n| {
            let mut connection = Connection::open(http);
            let head = format!("PUT /Sensors/waited-{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}");
            connection.send(head.as_bytes());
            connection
        })
        .collect();
    let clients: Vec<Mqtt> = (0..10)
        .map(|n| {
            let mut mqtt = Mqtt { connection: Connection::open(mqtt), level: 5 };
            mqtt.connection.send(&wire::connect_as(5, &format!("waited-{n}")));
            mqtt
        })
        .collect();
    server.signal(libc::SIGTERM);
    server.signal(libc::SIGCONT);
    for mut connection in waiting {
        connection.within(PATIENCE);
        let response = connection.response(false).expect("an answer, not a reset");
        assert_eq!(response.status, 204);
        // Answered before the signal was seen it does not say `close`, but is closed all the same.
        assert!(connection.read_to_close() && connection.rest().is_empty());
    }
    for mut client in clients {
        let (first, body) = client.expect();
        assert!(first == 0x20 && matches!(body[1], 0 | 0x88), "{first:02x} {body:02x?}");
    }
    assert_eq!(server.wait().code(), Some(0), "{}", server.stderr());
    server.restart();
    for n in 0..30 {
        assert_eq!(get(server.http(), &format!("/Sensors/waited-{n}")).status, 200, "waited-{n} was acknowledged");
    }
}

#[test]
fn sigint_stops_at_once() {
    let mut server = Server::start(Options::default());
    let mut mqtt = Mqtt::open(server.mqtt(), 5, "kept");
    mqtt.put("Sensors/kept", b"{}", 1);
    server.signal(libc::SIGINT);
    assert_eq!(server.wait().code(), Some(0), "{}", server.stderr());
    server.restart();
    assert_eq!(get(server.http(), "/Sensors/kept").status, 200);
}

/// Runs the binary to its end in a folder.
fn run(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tablecast"));
    command.env_remove("TABLECAST_TEST_IO");
    let Output { status, stdout, stderr } = command.current_dir(folder).args(args).output().expect("run tablecast");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn what_cannot_start_says_why() {
    let home = tempfile::TempDir::new().expect("a folder");
    common::server::write_app(&home.path().join("good"), "type A @table @export { id: ID @primaryKey }\n");
    common::server::write_app(
        &home.path().join("bad"),
        "type A @table @export {\n  id: ID @primaryKey\n  n: [Int\n}\n",
    );
    std::fs::write(home.path().join("wrong.yaml"), "http:\n  address: 1.2.3\n").expect("write");
    // (arguments, what standard error has)
    let cases: &[(&str, &[&str])] = &[
        ("run --nothing", &["--nothing"]),
        ("run a b", &["'b'"]),
        ("jump", &["jump"]),
        ("run missing", &["missing"]),
        ("run good --shards 0", &["shards", "1..=64"]),
        ("run good --shards many", &["many"]),
        ("run good --io tape", &["tape", "epoll"]),
        ("run good --packet-bytes-max 64MiB", &["16MiB"]),
        ("run good --config absent.yaml", &["absent.yaml"]),
        ("run good --config wrong.yaml", &["wrong.yaml:2:"]),
        ("run good --http 0.0.0.0:0 --mqtt off", &["http.address", "0.0.0.0"]),
        ("run good --http off --mqtt [::]:0", &["mqtt.address", "[::]"]),
        ("run bad", &["schema.graphql:"]),
        ("check missing", &["missing"]),
    ];
    for (arguments, wanted) in cases {
        let (code, _, stderr) = run(home.path(), &arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(code, Some(2), "{arguments}: {stderr}");
        for part in *wanted {
            assert!(stderr.contains(part), "{arguments}: {part:?} is not in: {stderr}");
        }
    }
    assert!(!home.path().join("tablecast-data").exists(), "nothing of this makes a data directory");
}

#[test]
fn check_tells_what_is_in_an_app_and_where_it_is_wrong() {
    let home = tempfile::TempDir::new().expect("a folder");
    common::server::write_app(&home.path().join("good"), common::server::DEMO_SCHEMA);
    let (code, stdout, stderr) = run(home.path(), &["check", "good"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("2 tables") && stdout.contains("/Sensors") && stdout.contains("temp: Float"), "{stdout}");
    assert!(stderr.contains("schema.graphql:4:9: warning: type Object is not known"), "{stderr}");
    // Each with the place that is wrong: line and column of the schema.
    let cases = [
        ("type A @table @export {\n  id: ID @primaryKey\n  n: [Int\n}\n", 4, 1),
        ("type A @table @export {\n  id ID\n}\n", 2, 6),
        ("type A @table @export {\n  id: ID @primaryKey\n  id: Int\n}\n", 3, 3),
        ("type A @table @export {\n  id: ID @primaryKey\n", 3, 1),
        ("type A @table(expiration: \"soon\") @export {\n  id: ID @primaryKey\n}\n", 1, 27),
    ];
    for (index, (schema, line, column)) in cases.into_iter().enumerate() {
        let name = format!("bad-{index}");
        common::server::write_app(&home.path().join(&name), schema);
        let (code, _, stderr) = run(home.path(), &["check", &name]);
        assert_eq!(code, Some(2), "{schema}: {stderr}");
        let place = format!("schema.graphql:{line}:{column}: error: ");
        assert!(stderr.contains(&place), "{schema}: {place:?} is not in: {stderr}");
    }
}

#[test]
fn a_data_directory_has_one_server() {
    let mut server = Server::start(Options::default().shards(2));
    let data = server.data();
    let mut mqtt = Mqtt::open(server.mqtt(), 4, "first");
    mqtt.put("Sensors/kept", b"{}", 1);
    let (app, data) = (server.app().display().to_string(), data.display().to_string());
    let home = server.home().to_owned();
    let args = ["run", &app, "--data", &data, "--shards", "2", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"];
    let (code, stdout, stderr) = run(&home, &args);
    assert_eq!((code, stdout.contains("ready")), (Some(1), false), "{stderr}");
    assert!(stderr.contains("another server has this data directory open") && stderr.contains(&data), "{stderr}");
    mqtt.ping(); // the first one never noticed
    assert!(server.terminate().success());
}
