//! What a schema says of time and delivery: records that expire vanish without an event, and stay away after a restart;
//! `deliver: "committed"` gives subscribers what is on disk; `durability` is what the acknowledgement says.

mod common;

use common::http::http;
use common::server::write_app;
use common::wire::Mqtt;
use common::{Options, Server, eventually, get};
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SCHEMA: &str = r#"
type Sessions @table(expiration: 1.5) @export { id: ID @primaryKey  n: Int }
type Tickets @table @export { id: ID @primaryKey  n: Int  until: Long @expiresAt }
type Ledger @table(deliver: "committed") @export { id: ID @primaryKey  n: Int }
type Cache @table(durability: "memory") @export { id: ID @primaryKey  n: Int }
"#;

/// The server, and the folder of its app.
fn start(shards: usize) -> (Server, tempfile::TempDir) {
    let app = tempfile::tempdir().expect("a folder");
    write_app(app.path(), SCHEMA);
    let options = Options { app: Some(app.path().to_owned()), ..Options::default() };
    (Server::start(options.shards(shards)), app)
}

fn put(server: &Server, path: &str, body: &serde_json::Value) -> u16 {
    http(server.http(), "PUT", path, &[("Content-Type", "application/json")], body.to_string().as_bytes()).status
}

fn count(server: &Server, path: &str) -> usize {
    get(server.http(), path).json().as_array().expect("an array").len()
}

#[test]
fn records_expire_on_time_without_an_event_and_do_not_come_back() {
    for shards in [1, 2, 4] {
        let (mut server, _app) = start(shards);
        let mut watcher = Mqtt::open(server.mqtt(), 4, "watcher");
        watcher.subscribe(1, &[("#", 0)]);
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        for n in 0..10 {
            assert_eq!(put(&server, &format!("/Sessions/{n}"), &json!({ "n": n })), 204);
            let until = if n < 5 { now_ms + 1_500 } else { now_ms + 3_600_000 };
            assert_eq!(put(&server, &format!("/Tickets/{n}"), &json!({ "n": n, "until": until })), 204);
        }
        assert_eq!((count(&server, "/Sessions/"), count(&server, "/Tickets/")), (10, 10));
        for _ in 0..20 {
            watcher.expect_message();
        }
        // A write gives a session a new life.
        std::thread::sleep(Duration::from_millis(900));
        assert_eq!(put(&server, "/Sessions/3", &json!({ "n": 33 })), 204);
        watcher.expect_message();
        eventually("the others expire", Duration::from_secs(5), || (count(&server, "/Sessions/") == 1).then_some(()));
        assert_eq!(get(server.http(), "/Sessions/3").json()["n"], 33);
        eventually("tickets expire", Duration::from_secs(5), || (count(&server, "/Tickets/") == 5).then_some(()));
        assert_eq!((get(server.http(), "/Tickets/1").status, get(server.http(), "/Tickets/7").status), (404, 200));
        eventually("the last one expires", Duration::from_secs(5), || {
            (get(server.http(), "/Sessions/3").status == 404).then_some(())
        });
        // Nobody was told: the answer to the ping comes first.
        watcher.ping();
        server.kill9();
        server.restart();
        assert_eq!((count(&server, "/Sessions/"), count(&server, "/Tickets/")), (0, 5), "{shards} shards");
        // An insert finds no trace of what has expired.
        assert_eq!(put(&server, "/Sessions/1", &json!({ "n": 1 })), 204);
        assert_eq!(get(server.http(), "/Sessions/1").json(), json!({ "id": "1", "n": 1 }));
    }
}

#[test]
fn committed_delivery_reaches_every_subscriber_once_and_in_order() {
    for shards in [1, 2] {
        let (server, _app) = start(shards);
        let mut watcher = Mqtt::open(server.mqtt(), 4, "watcher");
        watcher.subscribe(1, &[("Ledger/#", 0)]);
        let mut writer = Mqtt::open(server.mqtt(), 5, "writer");
        for n in 0..200 {
            writer.put(&format!("Ledger/{}", n % 7), format!(r#"{{"n":{n}}}"#).as_bytes(), 1);
        }
        let mut last = [-1; 7];
        for _ in 0..200 {
            let message = watcher.expect_message();
            let key: usize = message.topic["Ledger/".len()..].parse().expect("a number");
            let value: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
            let n = value["n"].as_i64().expect("a number");
            assert!(n > last[key] && n % 7 == key as i64, "in order: {n} after {}", last[key]);
            last[key] = n;
        }
        watcher.ping();
        assert_eq!(count(&server, "/Ledger/"), 7);
    }
}

#[test]
fn an_acknowledgement_says_how_durable_it_is() {
    let (server, _app) = start(2);
    let fields = [("Content-Type", "application/json")];
    for (table, expected) in [("Cache", "memory"), ("Sessions", "disk")] {
        for (method, path, body, status) in [
            ("PUT", format!("/{table}/1"), "{}", 204),
            ("PATCH", format!("/{table}/1"), "{}", 204),
            ("POST", format!("/{table}/"), "{}", 201),
            ("DELETE", format!("/{table}/1"), "", 200),
        ] {
            let response = http(server.http(), method, &path, &fields, body.as_bytes());
            assert_eq!((response.status, response.header("durability")), (status, Some(expected)), "{method} {path}");
        }
        assert_eq!(get(server.http(), &format!("/{table}/2")).header("durability"), None, "nothing was written");
    }
    let health = get(server.http(), "/health");
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("ok")));
    assert_eq!(health.json()["shards"].as_array().map(Vec::len), Some(2));
}
