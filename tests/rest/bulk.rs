//! Many records by one request: arrays, and sequences that are longer than memory.

use crate::common::{ALL_FORMATS, Connection, Format, PATIENCE, get, http};
use crate::{curl, start};
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

fn send(at: SocketAddr, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
    let response = http(at, method, path, &[("Content-Type", content_type)], body);
    let body = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    (response.status, body)
}

fn count(at: SocketAddr, path: &str) -> usize {
    get(at, path).json().as_array().expect("an array").len()
}

#[test]
fn arrays() {
    for shards in [1, 2, 4] {
        let (_app, server) = start(shards);
        let at = server.http();
        let records: Vec<Value> = (0..1000).map(|n| json!({ "id": format!("k{n}"), "n": n })).collect();
        for format in ALL_FORMATS {
            let body = format.encode(&Value::Array(records.clone()));
            assert_eq!(send(at, "PUT", "/Free/", format.content_type(), &body), (204, Value::Null), "{format:?}");
            assert_eq!(count(at, "/Free/"), 1000);
            assert_eq!(get(at, "/Free/k999").json()["n"], 999);
            assert_eq!(http(at, "DELETE", "/Free/", &[], b"").status, 200);
        }
        // POST makes keys where there are none, and refuses those that exist.
        let body = json!([{ "text": "a" }, { "id": 2000, "text": "b" }, { "text": "c" }, { "text": "d" }]).to_string();
        assert_eq!(send(at, "POST", "/Numbered/", "application/json", body.as_bytes()), (201, json!({ "written": 4 })));
        assert_eq!(count(at, "/Numbered/"), 4, "a key that was generated is nobody else's");
        let body = json!([{ "id": 2000, "text": "x" }, { "text": "e" }, 5, { "id": "no number" }]).to_string();
        let (status, answer) = send(at, "POST", "/Numbered/", "application/json", body.as_bytes());
        assert_eq!((status, &answer["written"], &answer["refused"]), (409, &json!(1), &json!(3)), "{answer}");
        let mut listed: Vec<i64> =
            answer["errors"].as_array().expect("errors").iter().filter_map(|it| it["record"].as_i64()).collect();
        listed.sort_unstable();
        assert_eq!(listed, [1, 3, 4]);
        assert_eq!(send(at, "PUT", "/Free/", "application/json", b"[]").0, 204);
        assert_eq!(send(at, "PUT", "/Free/", "application/json", b"{}").0, 400, "one record has a path of its own");
        assert_eq!(send(at, "PUT", "/Free/", "application/json", br#"[{"a":1}]"#).0, 400, "no key");
    }
}

#[test]
fn lines_with_errors() {
    let (_app, server) = start(2);
    let at = server.http();
    let long = format!("{{\"id\":\"long\",\"text\":\"{}\"}}", "x".repeat(2 << 20));
    let lines =
        [r#"{"id":"a","name":"1"}"#, "", "{bad", r#"{"id":"b"}"#, &long, "[1]", "\r", r#"{"id":"c","name":"2"}"#];
    let body = lines.join("\n");
    let (status, answer) = send(at, "PUT", "/Goods/", "application/x-ndjson", body.as_bytes());
    assert_eq!((status, &answer["written"], &answer["refused"]), (400, &json!(2), &json!(4)), "{answer}");
    let errors = answer["errors"].as_array().expect("errors");
    let of = |number: i64| {
        let found = errors.iter().find(|it| it["record"] == number).expect("an error of that record");
        found["detail"].as_str().expect("a text")
    };
    assert!(of(2).contains("JSON"), "{}", of(2));
    assert!(of(3).contains("name"), "{}", of(3));
    assert!(of(4).contains("longer"), "{}", of(4));
    assert!(of(5).contains("object"), "{}", of(5));
    assert_eq!(count(at, "/Goods/"), 2);
    // A sequence belongs to a collection; the connection is closed, for nobody takes the rest.
    let mut connection = Connection::open(at);
    let answer = connection.request("PUT", "/Goods/a", &[("Content-Type", "application/x-ndjson")], b"{}\n");
    assert_eq!((answer.status, answer.header("connection")), (415, Some("close")));
    assert_eq!(send(at, "PUT", "/Nothing/", "application/x-ndjson", b"{}\n").0, 404);
}

#[test]
fn sequences_of_cbor() {
    let (_app, server) = start(2);
    let at = server.http();
    let items: Vec<Vec<u8>> = (0..500).map(|n| Format::Cbor.encode(&json!({ "id": format!("{n}"), "n": n }))).collect();
    assert_eq!(send(at, "PUT", "/Free/", "application/cbor-seq", &items.concat()), (204, Value::Null));
    assert_eq!(count(at, "/Free/"), 500);
    // What cannot be read ends it: where the next item begins is not known.
    let broken = [&items[0][..], &items[1], &[0xff], &items[2]].concat();
    let (status, answer) = send(at, "PUT", "/Free/", "application/cbor-seq", &broken);
    assert_eq!((status, &answer["written"]), (400, &json!(2)), "{answer}");
    let cut = [&items[0][..], &items[1][..4]].concat();
    let (status, answer) = send(at, "PUT", "/Free/", "application/cbor-seq", &cut);
    assert!(status == 400 && answer["detail"].as_str().expect("a text").contains("ends within"), "{answer}");
}

/// However it arrives: by length and in chunks, byte by byte, with `Expect`, and the next request behind it.
#[test]
fn framing_of_sequences() {
    let (_app, server) = start(2);
    let at = server.http();
    let body: String = (0..50).map(|n| format!("{{\"id\":\"{n}\"}}\n")).collect();
    let chunks: String =
        body.as_bytes().chunks(7).map(|it| format!("{:x}\r\n{}\r\n", it.len(), String::from_utf8_lossy(it))).collect();
    let head = "PUT /Free/ HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n";
    let next = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let whole = [
        format!("{head}Content-Length: {}\r\n\r\n{body}{next}", body.len()),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\nT: t\r\n\r\n{next}"),
    ];
    for (input, step) in whole.iter().flat_map(|input| [(input, 1), (input, 13), (input, input.len())]) {
        let mut connection = Connection::open(at);
        connection.within(PATIENCE);
        input.as_bytes().chunks(step).for_each(|part| connection.send(part));
        assert_eq!(connection.response(false).expect("an answer").status, 204);
        assert_eq!(connection.response(false).expect("the next answer").status, 200);
    }
    let mut connection = Connection::open(at);
    connection.send(format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
    let leave = connection.take_until(b"\r\n\r\n").expect("an answer");
    assert!(leave.starts_with(b"HTTP/1.1 100 "), "{}", leave.escape_ascii());
    connection.send(body.as_bytes());
    assert_eq!(connection.response(false).expect("an answer").status, 204);
    let mut connection = Connection::open(at);
    connection.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\n{{}}\nX").as_bytes());
    let answer = connection.response(false).expect("an answer");
    assert!(answer.status == 400 && answer.text().contains("chunk"), "{}", answer.text());
    assert!(connection.read_to_close());
}

fn anonymous_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("read the status");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// A body far larger than what the server may hold of it: curl sends it as fast as it is taken, and a reader of the same
/// server is served meanwhile.
#[test]
fn a_long_body_in_little_memory() {
    const LINES: usize = 400_000;
    let (_app, server) = start(2);
    let at = server.http();
    let url = format!("http://{at}/Free/");
    let arguments =
        ["--silent", "--fail-with-body", "-X", "PUT", "-T", "-", "-H", "Content-Type: application/x-ndjson", &url];
    let mut curl =
        Command::new("curl").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run curl");
    let mut input = std::io::BufWriter::new(curl.stdin.take().expect("a pipe"));
    let before = anonymous_kib(server.pid());
    let mut most = 0;
    let text = "x".repeat(150);
    for n in 0..LINES {
        writeln!(input, "{{\"id\":\"{}\",\"n\":{n},\"text\":\"{text}\"}}", n % 100).expect("curl takes it");
        if n % 20_000 == 0 {
            most = most.max(anonymous_kib(server.pid()));
            assert_eq!(get(at, "/health").status, 200);
        }
    }
    drop(input);
    let output = curl.wait_with_output().expect("curl ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(get(at, "/Free/99").json()["n"], LINES - 1);
    println!("{} KiB before, {most} KiB at most, for {} MiB", before, (LINES * 180) >> 20);
    assert!(most < before + (48 << 10), "{before} KiB before, {most} KiB at most");
}

#[test]
fn curl_uploads_a_file() {
    let (_app, server) = start(4);
    let at = server.http();
    let file = server.home().join("goods.ndjson");
    let lines: String = (0..5000).map(|n| format!("{{\"id\":\"{n}\",\"name\":\"n{n}\",\"price\":{n}}}\n")).collect();
    std::fs::write(&file, lines).expect("write the file");
    let data = format!("@{}", file.display());
    let url = format!("http://{at}/Goods/");
    curl(&["--fail", "-X", "POST", "-H", "Content-Type: application/x-ndjson", "--data-binary", &data, &url]);
    assert_eq!(count(at, "/Goods/?price=ge=4000"), 1000);
}
