//! HTTP requests that two readers might understand in two ways, those that are simply wrong, and what the server owes
//! the right ones (RFC 9110, RFC 9112).

use crate::common::wire::trickle;
use crate::common::{Connection, Options, PATIENCE, Response};
use crate::{Bystander, each, to_close};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A request as bytes, and what its answer must be.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    status: u16,
    /// Text that the body has, in order.
    body: &'static [&'static str],
    /// Whether the connection ends with the answer.
    closes: bool,
}

/// A message that cannot be understood: the connection ends, nothing behind it is read as a request.
fn broken(name: &'static str, bytes: impl Into<Vec<u8>>, status: u16) -> Case {
    Case { name, bytes: bytes.into(), status, body: &[], closes: true }
}

/// A whole request that is refused, or not: the connection goes on.
fn whole(name: &'static str, bytes: impl Into<Vec<u8>>, status: u16, body: &'static [&'static str]) -> Case {
    Case { name, bytes: bytes.into(), status, body, closes: false }
}

/// PUT of a JSON body.
fn put(body: &str) -> String {
    with_body("PUT", "/Sensors/x", "application/json", body)
}

fn with_body(method: &str, path: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// A request without a body, with further fields.
fn plain(method: &str, path: &str, fields: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

/// PUT with a chunked body as given.
fn chunked(body: &str) -> String {
    format!("PUT /Sensors/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

fn framing_cases() -> Vec<Case> {
    let get = |fields: &str| format!("GET /Sensors/x HTTP/1.1\r\n{fields}\r\n");
    let put = |fields: &str| format!("PUT /Sensors/x HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{{}}");
    let long = "x".repeat(9000);
    let many: String = (0..70).map(|n| format!("F{n}: 1\r\n")).collect();
    vec![
        broken(
            "9112 6.3 Content-Length and Transfer-Encoding",
            put("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
            400,
        ),
        broken("9112 6.3 differing Content-Lengths", put("Content-Length: 2\r\nContent-Length: 3\r\n"), 400),
        broken("9112 6.3 the same Content-Length twice", put("Content-Length: 2\r\nContent-Length: 2\r\n"), 400),
        broken("9112 6.3 a list of Content-Lengths", put("Content-Length: 2, 2\r\n"), 400),
        broken("9110 8.6 negative Content-Length", put("Content-Length: -2\r\n"), 400),
        broken("9110 8.6 Content-Length with a plus", put("Content-Length: +2\r\n"), 400),
        broken("9110 8.6 Content-Length in hexadecimal", put("Content-Length: 0x2\r\n"), 400),
        broken("9110 8.6 Content-Length of 30 digits", put("Content-Length: 200000000000000000000000000000\r\n"), 400),
        broken("9110 8.6 empty Content-Length", put("Content-Length: \r\n"), 400),
        broken("9112 6.1 unknown transfer coding", put("Transfer-Encoding: snappy\r\n"), 400),
        broken("9112 6.1 a coding before chunked", put("Transfer-Encoding: gzip, chunked\r\n"), 501),
        broken("9112 6.3 chunked is not last", put("Transfer-Encoding: chunked, gzip\r\n"), 400),
        broken(
            "9112 6.1 two Transfer-Encoding fields",
            put("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            400,
        ),
        broken("9112 6.1 a vertical tab in Transfer-Encoding", put("Transfer-Encoding: \x0bchunked\r\n"), 400),
        broken(
            "9112 6.1 chunked in HTTP/1.0",
            "PUT /Sensors/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        broken("9112 7.1 a chunk size that is no number", chunked("zz\r\n{}\r\n0\r\n\r\n"), 400),
        broken("9112 7.1 an empty chunk size", chunked("\r\n{}\r\n0\r\n\r\n"), 400),
        broken("9112 7.1 a negative chunk size", chunked("-2\r\n{}\r\n0\r\n\r\n"), 400),
        broken("9112 7.1 a chunk size with 0x", chunked("0x2\r\n{}\r\n0\r\n\r\n"), 400),
        broken("9112 7.1 a chunk size beyond 64 bits", chunked("fffffffffffffffff\r\n{}"), 400),
        broken("9112 7.1 a chunk longer than its size", chunked("1\r\n{}\r\n0\r\n\r\n"), 400),
        broken("9112 7.1 a chunk size that ends with a bare LF", chunked("2\n{}\r\n0\r\n\r\n"), 400),
        broken("9112 7.1.2 a trailer without a colon", chunked("0\r\nnonsense\r\n\r\n"), 400),
        broken("a chunk larger than the bound", chunked("7fffffff\r\n"), 413),
        broken("9112 3.2 no Host", get(""), 400),
        broken("9112 3.2 two Hosts", get("Host: localhost\r\nHost: b\r\n"), 400),
        broken("9112 2.2 bare LF after the request line", "GET / HTTP/1.1\nHost: localhost\r\n\r\n", 400),
        broken("9112 2.2 bare LF after a field", "GET / HTTP/1.1\r\nHost: localhost\n\r\n", 400),
        broken("9112 2.2 a bare CR in a field", get("Host: localhost\r\nX: a\rb\r\n"), 400),
        broken("9110 5.5 a NUL in a field", get("Host: localhost\r\nX: a\0b\r\n"), 400),
        broken("9112 5.2 obs-fold", get("Host: localhost\r\nX: a\r\n b\r\n"), 400),
        broken("9112 5.1 space before the colon", get("Host : a\r\n"), 400),
        broken("9112 5.1 a field without a colon", get("Host: localhost\r\nnonsense\r\n"), 400),
        broken("9112 5.1 a field without a name", get("Host: localhost\r\n: b\r\n"), 400),
        broken("9112 2.2 white space before the first field", "GET / HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
        broken("9112 3 two spaces in the request line", "GET  /Sensors/x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        broken("9112 3 no version (HTTP/0.9)", "GET /\r\n\r\n", 400),
        broken("9112 3 a control character in the target", "GET /\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        broken("9110 9.1 a method with a bracket", "GE(T / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        broken("9112 3.2 a fragment in the target", plain("GET", "/a#b", ""), 400),
        broken("9112 3.2 a target without a slash", plain("GET", "Sensors/x", ""), 400),
        broken("9112 2.3 HTTP/2.0", "GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        broken("TLS on the plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400),
        broken("a head larger than 8 KiB", get(&format!("Host: localhost\r\nX: {long}\r\n")), 431),
        broken("more than 64 fields", get(&format!("Host: localhost\r\n{many}")), 431),
        broken("a target longer than any key", plain("GET", &format!("/{}", "y".repeat(7600)), ""), 414),
        broken("a body larger than the bound", put("Content-Length: 99999999\r\n"), 413),
        broken("9110 10.1.1 an unknown expectation", put("Content-Length: 2\r\nExpect: coffee\r\n"), 417),
    ]
}

fn request_cases() -> Vec<Case> {
    let typed = r#"{"temp":"warm","location":7}"#;
    vec![
        whole("a percent sign without digits", plain("GET", "/Sensors/%", ""), 400, &["bad_path"]),
        whole("a percent escape that is not hexadecimal", plain("GET", "/Sensors/%zz", ""), 400, &["bad_path"]),
        whole("a percent escape that is cut", plain("GET", "/Sensors/%4", ""), 400, &["bad_path"]),
        whole("escapes that are not UTF-8", plain("GET", "/Sensors/%ff", ""), 400, &["bad_path"]),
        whole("an escaped NUL", plain("GET", "/Sensors/%00", ""), 400, &["bad_path"]),
        whole(
            "a key longer than a key may be",
            plain("GET", &format!("/Sensors/{}", "k".repeat(2000)), ""),
            400,
            &["bad_key"],
        ),
        whole("no body", with_body("PUT", "/Sensors/x", "application/json", ""), 400, &["no_body"]),
        whole("broken JSON, with the position", put(r#"{"temp": nope}"#), 400, &["bad_body", " 9"]),
        whole("JSON that is cut", put(r#"{"temp": 1"#), 400, &["bad_body"]),
        whole("JSON with something behind", put("{} {}"), 400, &["bad_body"]),
        whole(
            "JSON that is not UTF-8",
            [put("\"").replace(": 1\r\n\r\n\"", ": 3\r\n\r\n").as_bytes(), b"\"\xff\""].concat(),
            400,
            &["bad_body"],
        ),
        whole("JSON nested 200 deep", put(&"[".repeat(200)), 400, &["bad_body"]),
        whole("an array as a record", put("[1]"), 400, &["a record is an object"]),
        whole("a number as a record", put("7"), 400, &["a record is an object"]),
        whole("null as a record", put("null"), 400, &["a record is an object"]),
        whole("CBOR that is cut", with_body("PUT", "/Sensors/x", "application/cbor", "\x01\x02"), 400, &["bad_body"]),
        whole(
            "wrong types, each named",
            put(typed),
            400,
            &["property location must be a string", "property temp must be a number"],
        ),
        whole("wrong types in PATCH", with_body("PATCH", "/Sensors/x", "application/json", typed), 400, &["temp"]),
        whole("wrong types in POST", with_body("POST", "/Sensors/", "application/json", typed), 400, &["temp"]),
        whole(
            "JSON that is called a form",
            with_body("PUT", "/Sensors/x", "application/x-www-form-urlencoded", "{}"),
            400,
            &["application/json"],
        ),
        whole("POST to a record", with_body("POST", "/Sensors/x", "application/json", "{}"), 405, &["GET"]),
        whole("PATCH of a collection", with_body("PATCH", "/Sensors/", "application/json", "{}"), 405, &["GET"]),
        whole("PUT of a table", with_body("PUT", "/Sensors", "application/json", "{}"), 405, &["GET"]),
        whole("TRACE", plain("TRACE", "/Sensors/x", ""), 405, &[]),
        whole("CONNECT", plain("CONNECT", "/Sensors/x", ""), 405, &[]),
        whole("an unknown method", plain("BREW", "/Sensors/x", ""), 501, &["BREW"]),
        whole("a query that is none", plain("GET", "/Sensors/?temp=gt=x", ""), 400, &["position 8", "number"]),
        whole("a query of a record", plain("GET", "/Sensors/x?temp=1", ""), 400, &["collection"]),
        whole(
            "PUT of one record to a collection",
            with_body("PUT", "/Sensors/", "application/json", "{}"),
            400,
            &["array"],
        ),
        whole(
            "nothing that can be sent is accepted",
            plain("GET", "/Sensors/", "Accept: image/png\r\n"),
            406,
            &["application/json"],
        ),
        whole("wrong credentials", plain("GET", "/Sensors/x", "Authorization: Basic YTpi\r\n"), 401, &[]),
        whole("a missing record", plain("GET", "/Sensors/none", ""), 404, &[]),
        whole(
            "PUT from another origin",
            put("{}").replace("Host: localhost", "Host: localhost\r\nOrigin: http://evil.example"),
            403,
            &["origin"],
        ),
        whole(
            "POST from another origin",
            with_body("POST", "/Sensors/", "text/plain", "{}")
                .replace("Host: localhost", "Host: localhost\r\nOrigin: null"),
            403,
            &["origin"],
        ),
        whole(
            "DELETE from another origin",
            plain("DELETE", "/Sensors/x", "Origin: http://evil.example\r\n"),
            403,
            &["origin"],
        ),
        whole("GET from another origin", plain("GET", "/Sensors/none", "Origin: http://evil.example\r\n"), 404, &[]),
        whole(
            "PUT from the same origin",
            put("{}").replace("Host: localhost", "Host: localhost\r\nOrigin: http://localhost"),
            204,
            &[],
        ),
        whole(
            "9110 13.1.1 a condition that does not hold",
            put("{}").replace("Host: localhost", "Host: localhost\r\nIf-Match: \"x\""),
            412,
            &["state"],
        ),
        whole(
            "9110 13.1 two conditions",
            put("{}").replace("Host: localhost", "Host: localhost\r\nIf-Match: \"x\"\r\nIf-None-Match: *"),
            400,
            &["at once"],
        ),
        whole("9110 13.1 a condition on many", plain("DELETE", "/Sensors/", "If-Match: *\r\n"), 501, &["one record"]),
        whole(
            "9110 8.4 a coded body",
            put("{}").replace("Host: localhost", "Host: localhost\r\nContent-Encoding: gzip"),
            415,
            &["content coding"],
        ),
        whole(
            "a stranger's name for this machine, in a browser",
            plain("GET", "/Sensors/", "Accept-Language: en\r\n").replace("Host: localhost", "Host: evil.example"),
            403,
            &["host_not_allowed"],
        ),
        whole("a chunked body, with extension and trailer", chunked("2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n"), 204, &[]),
        whole("absolute form", plain("GET", "http://other.example/Sensors/none", ""), 404, &[]),
        whole("OPTIONS *", plain("OPTIONS", "*", ""), 204, &[]),
    ]
}

/// Reads one answer, and checks what follows it.
fn run(case: &Case, addr: SocketAddr, send: fn(&mut Connection, &[u8])) -> Result<(), String> {
    let mut connection = Connection::open(addr);
    connection.within(PATIENCE);
    send(&mut connection, &case.bytes);
    let response = connection.response(false).map_err(|e| format!("{e}; got {:?}", connection.seen()))?;
    let text = response.text();
    let mut rest = &text[..];
    for part in case.body {
        let at = rest.find(part).ok_or_else(|| format!("{part:?} is not in {}: {text}", response.status))?;
        rest = &rest[at..];
    }
    if response.status != case.status {
        return Err(format!("{} instead of {}: {text}", response.status, case.status));
    }
    if response.status >= 400 && !text.is_empty() && response.status != 401 {
        let problem = response.json();
        if problem["status"] != case.status || response.header("content-type") != Some("application/problem+json") {
            return Err(format!("not a problem document: {response:?}"));
        }
    }
    if matches!(response.status, 405) && response.header("allow").is_none() {
        return Err("405 without Allow".into());
    }
    if case.closes {
        let closed = response.header("connection") == Some("close");
        let rest = to_close(&mut connection)?;
        return if closed && rest.is_empty() { Ok(()) } else { Err(format!("closes: {closed}, then {rest:?}")) };
    }
    let next = connection.try_request("GET", "/Sensors/none", &[], b"").map_err(|e| format!("then: {e}"))?;
    if next.status == 404 { Ok(()) } else { Err(format!("then {next:?}")) }
}

#[test]
fn every_wrong_request_has_its_answer() {
    let mut bystander = Bystander::new(Options::default());
    let addr = bystander.server.http();
    let cases: Vec<Case> = [framing_cases(), request_cases()].into_iter().flatten().collect();
    println!("{} cases", cases.len());
    each(&cases, 60, |case| case.name.into(), |case| run(case, addr, |connection, bytes| connection.send(bytes)));
    bystander.check();
}

#[test]
fn byte_at_a_time_equals_whole() {
    let mut bystander = Bystander::new(Options::default());
    let addr = bystander.server.http();
    let short = |case: &Case| case.bytes.len() < 300;
    let cases: Vec<Case> = request_cases().into_iter().filter(short).collect();
    each(&cases, 30, |case| case.name.into(), |case| run(case, addr, trickle));
    bystander.check();
}

#[test]
fn an_unknown_table_is_not_found() {
    let app = tempfile::TempDir::new().expect("a folder");
    crate::common::server::write_app(app.path(), "type Sensors @table @export { id: ID @primaryKey }\n");
    let server = crate::common::Server::start(Options { app: Some(app.path().into()), ..Options::default() });
    for path in ["/", "/sensors/1", "/Sensor/1", "/Sensors.json/x/../y", "//", "/%2e%2e/etc/passwd"] {
        for method in ["GET", "DELETE", "HEAD"] {
            let response = crate::common::http(server.http(), method, path, &[], b"");
            assert_eq!(response.status, 404, "{method} {path}: {response:?}");
        }
    }
}

fn exchange(connection: &mut Connection, bytes: &str, to_head: bool) -> Response {
    connection.within(PATIENCE).send(bytes.as_bytes());
    connection.response(to_head).expect("an answer")
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut bystander = Bystander::new(Options::default().shards(4));
    let mut bytes = String::new();
    for n in 0..200 {
        bytes += &with_body("PUT", &format!("/Sensors/p{n}"), "application/json", &format!("{{\"n\":{n}}}"));
        bytes += &plain("GET", &format!("/Sensors/p{n}"), "");
        bytes += &plain("HEAD", &format!("/Sensors/p{n}"), "");
    }
    bytes += &plain("GET", "/Sensors/p7", "Connection: close\r\n");
    bytes += &plain("DELETE", "/Sensors/p7", ""); // behind the last one: not carried out
    let mut connection = Connection::open(bystander.server.http());
    connection.within(PATIENCE).send(bytes.as_bytes());
    for n in 0..200 {
        assert_eq!(connection.response(false).expect("PUT").status, 204);
        let got = connection.response(false).expect("GET");
        assert_eq!((got.status, got.json()["n"].as_u64()), (200, Some(n)));
        let head = connection.response(true).expect("HEAD");
        assert_eq!(head.header("content-length"), Some(&*got.body.len().to_string()), "9110 9.3.2");
    }
    let last = connection.response(false).expect("the last one");
    assert_eq!((last.status, last.header("connection")), (200, Some("close")), "9112 9.6");
    assert_eq!(to_close(&mut connection), Ok(Vec::new()));
    assert_eq!(crate::common::get(bystander.server.http(), "/Sensors/p7").status, 200);
    bystander.check();
}

#[test]
fn what_a_good_client_relies_on() {
    let mut bystander = Bystander::new(Options::default());
    let addr = bystander.server.http();
    let mut one = Connection::open(addr);
    assert_eq!(exchange(&mut one, &put(r#"{"temp":1.5}"#), false).status, 204);
    let got = exchange(&mut one, &plain("GET", "/Sensors/x", ""), false);
    let etag = got.header("etag").expect("ETag").to_owned();
    // Conditional GET, RFC 9110 §13.1.2.
    for (tags, status) in [
        (etag.clone(), 304),
        (format!("W/{etag}"), 304),
        (format!("\"q\", {etag}"), 304),
        ("*".into(), 304),
        ("\"q\"".into(), 200),
    ] {
        let again = exchange(&mut one, &plain("GET", "/Sensors/x", &format!("If-None-Match: {tags}\r\n")), false);
        assert_eq!((again.status, again.header("etag")), (status, Some(&*etag)), "If-None-Match: {tags}");
        assert_eq!(again.body.is_empty(), status == 304);
    }
    // Expect, RFC 9110 §10.1.1: asked first, the body comes when 100 has been said.
    one.send(b"PUT /Sensors/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(one.take(25).expect("100"), b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(exchange(&mut one, "{}", false).status, 204);
    // HTTP/1.0: closed unless it asks for more.
    let mut old = Connection::open(addr);
    let kept = exchange(&mut old, "GET /Sensors/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false);
    assert_eq!((kept.status, kept.header("connection")), (200, Some("keep-alive")));
    let list = exchange(&mut old, "GET /Sensors/ HTTP/1.0\r\n\r\n", false);
    assert_eq!((list.status, list.header("transfer-encoding")), (200, None), "9112 6.1: no chunks for HTTP/1.0");
    assert!(list.json().as_array().is_some_and(|rows| rows.len() >= 2), "{list:?}");
    // HEAD of a collection has no body: what follows on the connection is the next answer.
    let head = exchange(&mut one, &plain("HEAD", "/Sensors/", ""), true);
    assert_eq!(head.status, 200);
    assert_eq!(exchange(&mut one, &plain("HEAD", "/Sensors/none", ""), true).status, 404);
    assert_eq!(exchange(&mut one, &plain("GET", "/Sensors/x", ""), false).status, 200);
    // A preflight where no origin is allowed grants nothing.
    let preflight = "Origin: http://b.example\r\nAccess-Control-Request-Method: PUT\r\n";
    let refused = exchange(&mut one, &plain("OPTIONS", "/Sensors/x", preflight), false);
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (204, None));
    bystander.check();
    let mut listed = Bystander::new(Options::default().args(&["--cors", "http://b.example"]));
    let mut one = Connection::open(listed.server.http());
    let granted = exchange(&mut one, &plain("OPTIONS", "/Sensors/x", preflight), false);
    assert_eq!((granted.status, granted.header("access-control-allow-origin")), (200, Some("http://b.example")));
    assert!(granted.header("access-control-allow-methods").is_some_and(|methods| methods.contains("PUT")));
    let write = put("{}").replace("Host: localhost", "Host: localhost\r\nOrigin: http://b.example");
    assert_eq!(exchange(&mut one, &write, false).status, 204);
    let write = put("{}").replace("Host: localhost", "Host: localhost\r\nOrigin: http://c.example");
    assert_eq!(exchange(&mut one, &write, false).status, 403);
    listed.check();
}

#[test]
fn slow_heads_are_cut() {
    let mut bystander = Bystander::new(Options::default());
    let since = Instant::now();
    let starts = ["G", "GET /Sensors/x HTTP/1.1\r\n", "GET /Sensors/x HTTP/1.1\r\nHost: localhost\r\n"];
    let mut waiting: Vec<Connection> = starts.iter().map(|_| Connection::open(bystander.server.http())).collect();
    for (connection, start) in waiting.iter_mut().zip(starts) {
        connection.within(PATIENCE).send(start.as_bytes());
    }
    // One that goes on sending, slowly: a byte now and then buys no time.
    let mut dribbling = Connection::open(bystander.server.http());
    dribbling.send(b"GET / HTTP/1.1\r\nX: ");
    while since.elapsed() < Duration::from_secs(4) {
        dribbling.send(b"x");
        std::thread::sleep(Duration::from_millis(500)); // the client's own pace
    }
    waiting.push(dribbling);
    for mut connection in waiting {
        connection.within(PATIENCE);
        let response = connection.response(false).expect("an answer");
        let after = since.elapsed();
        assert_eq!((response.status, response.header("connection")), (408, Some("close")));
        assert!((4800..5700).contains(&(after.as_millis() as u64)), "cut after {after:?}");
        assert_eq!(to_close(&mut connection), Ok(Vec::new()));
    }
    bystander.check();
}
