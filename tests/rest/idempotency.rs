//! A request with an `Idempotency-Key` is carried out once, however often it is sent, and whatever happens to the server.

use crate::common::{Connection, Response, get, http};
use crate::start;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

fn send(at: SocketAddr, method: &str, path: &str, name: &str, body: &str) -> Response {
    http(at, method, path, &[("Content-Type", "application/json"), ("Idempotency-Key", name)], body.as_bytes())
}

#[test]
fn a_request_is_carried_out_once() {
    for shards in [1, 2, 4] {
        let (_app, mut server) = start(shards);
        let mut at = server.http();
        for (table, body) in [("Numbered", r#"{"text":"a"}"#), ("Goods", r#"{"name":"b"}"#)] {
            let path = format!("/{table}/");
            let first = send(at, "POST", &path, &format!("\"{table} two\""), body);
            assert_eq!(first.status, 201, "{}", first.text());
            let (location, id) = (first.header("location").expect("a location").to_owned(), first.text());
            // Others take keys in between.
            (0..5).for_each(|_| {
                assert_eq!(
                    http(at, "POST", &path, &[("Content-Type", "application/json")], body.as_bytes()).status,
                    201
                )
            });
            for crash in [false, true] {
                if crash {
                    server.kill9();
                    server.restart();
                    at = server.http();
                }
                let again = send(at, "POST", &path, &format!("{table} two"), body);
                assert_eq!(
                    (again.status, again.header("location"), again.text()),
                    (201, Some(location.as_str()), id.clone())
                );
                let other = send(at, "POST", &path, &format!("{table} two"), r#"{"name":"other","text":"other"}"#);
                assert_eq!(other.status, 422, "{}", other.text());
            }
            assert_eq!(get(at, &path).json().as_array().map(Vec::len), Some(6));
            http(at, "DELETE", &path, &[], b"");
            let gone = send(at, "POST", &path, &format!("{table} two"), body);
            assert_eq!(gone.status, 201, "what was done is not done again");
            assert_eq!(get(at, &path).json().as_array().map(Vec::len), Some(0));
        }
        for n in 0..10 {
            for _ in 0..3 {
                assert_eq!(send(at, "POST", "/Free/", &format!("free {n}"), r#"{"n":1}"#).status, 201);
                assert_eq!(send(at, "DELETE", "/Free/none", &format!("gone {n}"), "").status, 200);
            }
        }
        assert_eq!(get(at, "/Free/").json().as_array().map(Vec::len), Some(10));
        // A write that is refused may be mended under a new name, and tried again under the same one.
        assert_eq!(send(at, "PUT", "/Goods/x", "bad", r#"{"count":1}"#).status, 400);
        assert_eq!(send(at, "PUT", "/Goods/x", "bad", r#"{"count":1}"#).status, 400);
        for (name, body) in [("", "{}"), ("\u{e4}", "{}")] {
            assert_eq!(send(at, "PUT", "/Free/x", name, body).status, 400, "{name}");
        }
        assert_eq!(send(at, "POST", "/Free/", "many", "[{}]").status, 501);
        assert_eq!(send(at, "DELETE", "/Free/", "all", "").status, 501);
        // The body of a refused request is nobody's next request.
        let mut connection = Connection::open(at);
        let lines = "GET /health HTTP/1.1\nHost: a\n\n";
        let headers = [("Content-Type", "application/x-ndjson"), ("Idempotency-Key", "lines")];
        let answer = connection.request("POST", "/Free/", &headers, lines.as_bytes());
        assert_eq!((answer.status, answer.header("connection")), (501, Some("close")));
        assert!(connection.read_to_close());
        // Many at once.
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(send(at, "POST", "/Numbered/", "at once", r#"{"text":"c"}"#).status, 201));
            }
        });
        let all = get(at, "/Numbered/?text=c").json();
        assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    }
}

/// Clients create records and try each until it is answered, while the server is killed again and again.
#[test]
fn retries_over_crashes_count_once() {
    const CLIENTS: usize = 4;
    const EACH: usize = 300;
    let (_app, mut server) = start(2);
    let at = server.http();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || {
                    for n in 0..EACH {
                        let name = format!("{client}-{n}");
                        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", name.as_str())];
                        let path = ["/Numbered/", "/Free/"][n % 2];
                        let ask = || -> std::io::Result<Response> {
                            let mut connection = Connection::try_open(at)?;
                            connection.within(Duration::from_secs(5)).try_request("POST", path, &headers, b"{}")
                        };
                        loop {
                            match ask() {
                                Ok(response) if response.status == 201 => break,
                                Ok(response) => assert_eq!(response.status, 503, "{}", response.text()),
                                Err(_) => thread::sleep(Duration::from_millis(5)),
                            }
                        }
                    }
                })
            })
            .collect();
        let killer = scope.spawn(|| {
            let mut kills = 0;
            while !is_done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(150));
                server.kill9();
                server.restart_on_same_ports();
                kills += 1;
            }
            kills
        });
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        is_done.store(true, Ordering::Relaxed);
        println!("{} kills", killer.join().expect("the killer"));
        ended.into_iter().for_each(|ended| ended.expect("a client"));
    });
    for path in ["/Numbered/", "/Free/"] {
        assert_eq!(get(at, path).json().as_array().map(Vec::len), Some(CLIENTS * EACH / 2), "{path}");
    }
}
