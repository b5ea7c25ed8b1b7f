//! Writes that are made only where the record is in the state that the client believes in (RFC 9110 §13.1), and the record
//! as the answer to a write (RFC 7240 §4.2).

use crate::common::{Connection, Options, Server, get, http};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

fn start(shards: usize) -> Server {
    Server::start(Options::default().shards(shards))
}

fn put(at: SocketAddr, path: &str, field: (&str, &str), body: &Value) -> u16 {
    let headers = [("Content-Type", "application/json"), field];
    http(at, "PUT", path, &headers, body.to_string().as_bytes()).status
}

#[test]
fn conditions_of_one_record() {
    for shards in [1, 2, 4] {
        let server = start(shards);
        let at = server.http();
        let path = "/Sensors/1";
        assert_eq!(put(at, path, ("If-Match", "*"), &json!({ "temp": 1 })), 412, "there is none yet");
        assert_eq!(put(at, path, ("If-None-Match", "*"), &json!({ "temp": 1 })), 204);
        assert_eq!(put(at, path, ("If-None-Match", "*"), &json!({ "temp": 2 })), 412, "now there is one");
        let first = get(at, path).header("etag").expect("an ETag").to_owned();
        let in_cbor = http(at, "GET", path, &[("Accept", "application/cbor")], b"");
        let in_cbor = in_cbor.header("etag").expect("an ETag").to_owned();
        assert_eq!(put(at, path, ("If-Match", &first), &json!({ "temp": 3 })), 204);
        assert_eq!(put(at, path, ("If-Match", &first), &json!({ "temp": 4 })), 412, "somebody was quicker");
        assert_eq!(put(at, path, ("If-Match", &in_cbor), &json!({ "temp": 4 })), 412);
        assert_eq!(put(at, path, ("If-None-Match", &first), &json!({ "temp": 5 })), 204);
        let now = get(at, path).header("etag").expect("an ETag").to_owned();
        assert_eq!(
            put(at, path, ("If-Match", &format!("W/{now}")), &json!({ "temp": 6 })),
            412,
            "weak tags never match"
        );
        assert_eq!(put(at, path, ("If-Match", &format!("\"x\", {now}")), &json!({ "temp": 7 })), 204, "one of several");
        assert_eq!(get(at, path).json()["temp"], 7);
        let gone = |field: (&str, &str)| http(at, "DELETE", path, &[field], b"").status;
        assert_eq!(gone(("If-Match", &now)), 412);
        let now = get(at, path).header("etag").expect("an ETag").to_owned();
        assert_eq!(gone(("If-Match", &now)), 200);
        assert_eq!(gone(("If-Match", "*")), 412);
    }
}

/// Many clients add one to a number, each with the version that it has read: none is lost.
#[test]
fn nobody_overwrites_what_he_has_not_seen() {
    let server = start(2);
    let at = server.http();
    assert_eq!(put(at, "/Sensors/sum", ("If-None-Match", "*"), &json!({ "temp": 0 })), 204);
    let made = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = Connection::open(at);
                for _ in 0..50 {
                    let seen = connection.request("GET", "/Sensors/sum", &[], b"");
                    let (tag, temp) = (seen.header("etag").expect("an ETag").to_owned(), seen.json()["temp"].as_f64());
                    let body = json!({ "temp": temp.expect("a number") + 1.0 }).to_string();
                    let headers = [("Content-Type", "application/json"), ("If-Match", tag.as_str())];
                    match connection.request("PATCH", "/Sensors/sum", &headers, body.as_bytes()).status {
                        204 => _ = made.fetch_add(1, Ordering::Relaxed),
                        412 => {}
                        other => panic!("{other}"),
                    }
                }
            });
        }
    });
    let made = made.into_inner();
    assert!(made >= 50);
    assert_eq!(get(at, "/Sensors/sum").json()["temp"].as_f64(), Some(made as f64));
}

#[test]
fn the_record_is_the_answer() {
    let server = start(2);
    let at = server.http();
    let headers = [("Content-Type", "application/json"), ("Prefer", "return=representation")];
    let answer = http(at, "PUT", "/Sensors/1", &headers, br#"{"temp":1}"#);
    assert_eq!((answer.status, answer.json()), (200, json!({ "id": "1", "temp": 1 })));
    let answer = http(at, "PATCH", "/Sensors/1", &headers, br#"{"location":"lab"}"#);
    assert_eq!((answer.status, answer.json()["location"].clone()), (200, json!("lab")));
    assert!(answer.header("etag").is_some());
}
