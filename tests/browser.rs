//! Promise: a page in a browser, served by the server itself, does with the browser's own `fetch`, `EventSource` and
//! `WebSocket` what other clients do; and its event stream outlives the server: the browser connects again with
//! `Last-Event-ID` and sees every change once (promises 8, 9, 11 of `reliability.md`).

mod common;

use common::{Options, PATIENCE, Server, http, lines, peers, poll, put_json};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// A page in headless Chromium.
struct Page {
    driver: Child,
    answers: Receiver<String>,
    errors: lines::Tail,
}

impl Page {
    fn open(server: &Server, path: &str) -> Page {
        let mut command = peers::program_command("page.mjs", &["--page", path], &server.endpoints());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut driver = command.spawn().expect("run Node");
        let answers = lines::lines(driver.stdout.take().expect("piped"));
        let errors = lines::tail(driver.stderr.take().expect("piped"));
        let page = Page { driver, answers, errors };
        assert_eq!(page.answer(), json!({ "ready": true }));
        page
    }

    #[track_caller]
    fn answer(&self) -> Value {
        let line = self.answers.recv_timeout(2 * PATIENCE);
        let line = line.unwrap_or_else(|e| panic!("no answer of the page's driver ({e}):\n{}", self.errors.text()));
        serde_json::from_str(&line).expect("JSON")
    }

    /// The value of an expression in the page.
    #[track_caller]
    fn eval(&mut self, expression: &str) -> Value {
        let line = json!({ "eval": expression });
        writeln!(self.driver.stdin.as_mut().expect("piped"), "{line}").expect("ask the page's driver");
        let mut answer = self.answer();
        assert!(answer["error"].is_null(), "{expression}: {answer}\n{}", self.errors.text());
        answer["value"].take()
    }

    /// Asks until it is so.
    #[track_caller]
    fn wait_for(&mut self, condition: &str) {
        let mut last = Value::Null;
        let found = poll(2 * PATIENCE, || {
            last = self.eval(&format!("[!!({condition}), seen, socket]"));
            (last[0] == true).then_some(())
        });
        assert!(found.is_some(), "never in the page: {condition}; {last}");
    }

    /// What the event stream has shown, once.
    #[track_caller]
    fn changes(&mut self) -> Vec<Change> {
        let events = self.eval("seen.events.splice(0)");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let change = |event: &Value| (text(&event["type"]), text(&event["id"]), event["value"]["n"].as_i64());
        events.as_array().expect("a list").iter().map(change).collect()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        drop(self.driver.stdin.take()); // it takes the browser down with it
        if lines::wait_exit(&mut self.driver, PATIENCE).is_none() {
            let _ = self.driver.kill();
            let _ = self.driver.wait();
        }
    }
}

fn start() -> Server {
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/browser");
    Server::start(Options { app: Some(app), ..Options::default() })
}

/// Kind, record and number of a change.
type Change = (String, String, Option<i64>);

fn put(id: &str, n: i64) -> Change {
    ("put".into(), id.into(), Some(n))
}

/// Shards are not in step: only the changes of one record have an order.
fn by_record(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort_by(|one, other| one.1.cmp(&other.1));
    changes
}

#[test]
fn fetch_reads_and_writes() {
    let server = start();
    let mut page = Page::open(&server, "/");
    page.wait_for("seen.opened === 1");
    let written = page.eval("request('PUT', '/Sensors/1', { n: 1 })");
    assert_eq!((&written["status"], &written["value"]), (&json!(204), &Value::Null));
    let read = page.eval("request('GET', '/Sensors/1')");
    assert_eq!((&read["status"], &read["type"]), (&json!(200), &json!("application/json")));
    assert_eq!(read["value"], json!({ "id": "1", "n": 1 }));
    let etag = read["etag"].as_str().expect("an ETag");
    let conditional = |page: &mut Page, method: &str, body: &str, name: &str, tag: &str| {
        let headers = json!({ name: tag });
        page.eval(&format!("request('{method}', '/Sensors/1', {body}, {headers}).then((answer) => answer.status)"))
    };
    assert_eq!(conditional(&mut page, "GET", "undefined", "If-None-Match", etag), 304);
    assert_eq!(conditional(&mut page, "PUT", "{ n: 2 }", "If-None-Match", "*"), 412);
    assert_eq!(conditional(&mut page, "PUT", "{ n: 2 }", "If-Match", etag), 204);
    assert_eq!(conditional(&mut page, "PUT", "{ n: 3 }", "If-Match", etag), 412, "it has been written since");
    assert_eq!(conditional(&mut page, "GET", "undefined", "If-None-Match", etag), 200);
    let created = page.eval("request('POST', '/Sensors/', { n: 4 })");
    let id = created["value"].as_str().expect("an id").to_owned();
    assert_eq!((&created["status"], &created["location"]), (&json!(201), &json!(id)));
    let all = page.eval("request('GET', '/Sensors/?n=ge=2&sort(n)&select(n)')");
    assert_eq!((&all["status"], &all["value"]), (&json!(200), &json!([2, 4])));
    let deleted = page.eval("request('DELETE', '/Sensors/1')");
    assert_eq!((&deleted["status"], &deleted["value"]), (&json!(200), &json!(true)));
    let gone = page.eval("request('GET', '/Sensors/1').then((answer) => answer.status)");
    assert_eq!(gone, 404);
    page.wait_for("seen.events.length >= 4");
    let wanted = [put("1", 1), put("1", 2), put(&id, 4), ("delete".into(), "1".into(), None)];
    assert_eq!(by_record(page.changes()), by_record(wanted.into()), "the page hears of what it does");
}

#[test]
fn the_event_stream_outlives_the_server() {
    const ROUNDS: i64 = 3;
    let mut server = start();
    let mut page = Page::open(&server, "/");
    page.wait_for("seen.opened === 1");
    let mut wanted = Vec::new();
    let mut write = |server: &Server, n: i64| {
        let id = (n % 5).to_string();
        assert_eq!(put_json(server.http(), &format!("/Sensors/{id}"), &json!({ "n": n })).status, 204);
        wanted.push(put(&id, n));
    };
    for round in 0..ROUNDS {
        for n in 0..20 {
            write(&server, round * 100 + n);
        }
        // The last of them must have come: what the page has not seen when it loses the server is read later.
        let opened = page.eval("seen.opened").as_i64().expect("a number");
        page.wait_for(&format!("seen.events.length >= {}", round * 40 + 10));
        server.kill9();
        page.wait_for("seen.lost > 0 && source.readyState === EventSource.CONNECTING");
        server.restart_on_same_ports();
        for n in 20..40 {
            write(&server, round * 100 + n);
        }
        let still = page.eval("seen.opened");
        page.wait_for(&format!("seen.opened > {opened}"));
        assert_eq!(still, opened, "the writes came while the page had no stream");
    }
    page.wait_for(&format!("seen.events.length >= {}", ROUNDS * 40));
    write(&server, 1000);
    page.wait_for("seen.events.at(-1).value.n === 1000");
    std::thread::sleep(Duration::from_millis(150)); // nothing may come twice
    assert!(page.eval("new Set(seen.ids).size > 1 && seen.ids.every((id) => id !== '')").as_bool() == Some(true));
    assert_eq!(by_record(page.changes()), by_record(wanted));
}

#[test]
fn a_web_socket_writes_and_listens() {
    let mut server = start();
    let mut page = Page::open(&server, "/");
    page.eval("openSocket()");
    page.wait_for("socket.state === 'open'");
    page.eval("say({ type: 'put', id: 'a', value: { n: 1 }, ref: 7 })");
    page.wait_for("socket.messages.length === 2");
    let messages = page.eval("socket.messages.sort((one, other) => one.type.localeCompare(other.type))");
    assert_eq!((&messages[0]["type"], &messages[0]["ref"]), (&json!("ack"), &json!(7)));
    assert_eq!((&messages[1]["type"], &messages[1]["value"]["n"]), (&json!("put"), &json!(1)));
    page.wait_for("seen.events.length === 1");
    assert_eq!(page.changes(), [put("a", 1)], "its event stream hears of it as well");
    assert_eq!(http(server.http(), "GET", "/Sensors/a", &[], b"").json(), json!({ "id": "a", "n": 1 }));
    page.eval("webSocket.close(3001, 'enough')");
    page.wait_for("socket.state === 'closed'");
    assert_eq!(page.eval("socket.close"), json!({ "code": 3001, "wasClean": true }));

    page.eval("openSocket()");
    page.wait_for("socket.state === 'open' && socket.messages.length === 1");
    assert_eq!(page.eval("socket.messages[0].value.n"), 1, "what is stored comes first");
    server.kill9();
    page.wait_for("socket.state === 'closed'");
    assert_eq!(page.eval("socket.close"), json!({ "code": 1006, "wasClean": false }));
    server.restart_on_same_ports();
    page.eval("openSocket()");
    page.wait_for("socket.state === 'open' && socket.messages.length === 1");
    server.terminate();
    page.wait_for("socket.state === 'closed'");
    assert_eq!(page.eval("socket.close"), json!({ "code": 1012, "wasClean": true }), "the server says why");
}
