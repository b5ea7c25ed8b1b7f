//! Promise: the applications that Harper's users start with load as they are and behave as their clients expect
//! (compat §13): the getting-started demo (a root table and Sensors; seven publishers × seven subscribers), the LED sign
//! demo (re-exported table, static files, plain-text messages), and the built-in demo page in a real browser.

mod common;

use common::{
    Command, Connection, Op, Options, PATIENCE, Publish, Publisher, PublisherKind, Response, Server, Subscribe,
    Subscriber, SubscriberKind, Transport, get, http, peers, put_json,
};
use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use tempfile::TempDir;

/// Written as its author did: a space before the argument, an unknown type, no line end at the end.
const GETTING_STARTED: &str = "type Topics @table @export (name: \"\"){\n    id: ID @primaryKey\n    data: Object\n}\n\n\
                               type Sensors @table @export {\n    id: ID @primaryKey\n    location: String\n    \
                               temp: Float\n}";
const LED_SIGN: &str = "## What each topic has now\ntype Topics @table @export (name: \"\") {\n    topic: String @primaryKey \
                        # the whole topic\n    value: String\n    updated_at: Date @updatedTime @indexed\n}\n";
const LED_SIGN_CONFIG: &str = "# comments, quotes of both kinds and spaces at line ends, as users have them\nrest: true\n\n\
                               graphqlSchema:  \n  files: '*.graphql'\n\njsResource: \n  files: resources.js \n\n\
                               # fastifyRoutes: \n#   path: .\n\nstatic: \n  files: 'dist/**'\n";

/// An application's folder; the files are (path, content).
fn app(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::with_prefix("tablecast-demo-").expect("make a folder");
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("in the folder")).expect("make a folder");
        fs::write(path, content).expect("write a file");
    }
    dir
}

fn dev(app: &Path) -> Server {
    Server::start(Options { command: "dev", app: Some(app.to_owned()), ..Options::default() })
}

fn getting_started() -> (TempDir, Server) {
    let config = "graphqlSchema:\n  files: \"schema.graphql\"\nrest: true\n";
    let dir = app(&[("config.yaml", config), ("schema.graphql", GETTING_STARTED)]);
    let server = dev(dir.path());
    (dir, server)
}

fn led_sign() -> (TempDir, Server) {
    let dir = app(&[
        ("config.yaml", LED_SIGN_CONFIG),
        ("schema.graphql", LED_SIGN),
        ("resources.js", "// resources.js\nexport const Topics = tables.Topics;\n"),
        ("dist/index.html", "<!doctype html><title>sign</title>"),
        ("dist/assets/index-1a2b.js", "export {};"),
        ("dist/favicon.ico", "icon"),
        ("dist/help/index.html", "help"),
    ]);
    let server = dev(dir.path());
    (dir, server)
}

#[track_caller]
fn expect(what: &str, response: &Response, status: u16, body: &str) {
    assert_eq!((response.status, response.text().as_str()), (status, body), "{what}: {response:?}");
}

#[test]
fn getting_started_answers_with_the_statuses_of_harper() {
    let (_dir, server) = getting_started();
    let at = server.http();
    expect("an empty table", &get(at, "/Sensors/"), 200, "[]");
    expect("no such record", &get(at, "/Sensors/101"), 404, "");
    let sent = json!({ "temp": 21.5, "location": "lab", "publisher": "x", "timestamp": "2026-01-05T00:00:00Z" });
    for what in ["create", "replace"] {
        let written = put_json(at, "/Sensors/101", &sent);
        expect(what, &written, 204, "");
        assert!(written.header("content-type").is_none(), "{written:?}");
    }
    let read = get(at, "/Sensors/101");
    assert_eq!((read.status, read.header("content-type")), (200, Some("application/json")));
    assert!(read.header("etag").is_some_and(|tag| tag.starts_with('"') && tag.ends_with('"')), "{read:?}");
    let stored =
        json!({ "id": "101", "temp": 21.5, "location": "lab", "publisher": "x", "timestamp": "2026-01-05T00:00:00Z" });
    assert_eq!(read.json(), stored, "undeclared attributes are kept");
    assert_eq!(get(at, "/Sensors/").json(), json!([stored]));

    let wrong = put_json(at, "/Sensors/101", &json!({ "temp": "21.5" }));
    assert_eq!(wrong.status, 400, "text where a number is declared: {wrong:?}");
    assert!(wrong.text().contains("temp must be a number"), "{wrong:?}");
    assert_eq!(get(at, "/Sensors/101").json(), stored, "a refused write changes nothing");

    let named = put_json(at, "/Sensors/7", &json!({ "id": "other", "temp": 1.0 }));
    expect("the path names the record", &named, 204, "");
    assert_eq!(get(at, "/Sensors/7").json()["id"], "7");
    expect("not the body", &get(at, "/Sensors/other"), 404, "");

    let json_type = [("Content-Type", "application/json")];
    let patched = http(at, "PATCH", "/Sensors/101", &json_type, br#"{"temp":22}"#);
    expect("patch", &patched, 204, "");
    assert_eq!(get(at, "/Sensors/101").json()["temp"].as_f64(), Some(22.0));
    assert_eq!(get(at, "/Sensors/101").json()["location"], "lab");
    let posted = http(at, "POST", "/Sensors/", &json_type, br#"{"temp":3}"#);
    let id = posted.json();
    assert_eq!((posted.status, posted.header("location")), (201, id.as_str()), "{posted:?}");
    assert_eq!(get(at, &format!("/Sensors/{}", id.as_str().expect("an id"))).status, 200);
    let post_to_record = http(at, "POST", "/Sensors/101", &json_type, b"{}");
    assert_eq!(post_to_record.status, 405);
    assert!(post_to_record.header("allow").is_some_and(|allow| allow.contains("PUT")), "{post_to_record:?}");

    for what in ["delete", "delete what is gone"] {
        expect(what, &http(at, "DELETE", "/Sensors/101", &[], b""), 200, "true");
    }
    expect("deleted", &get(at, "/Sensors/101"), 404, "");
    assert_eq!(http(at, "HEAD", "/Sensors/101", &[], b"").status, 404);
    assert_eq!(http(at, "HEAD", "/Sensors/7", &[], b"").status, 200);
}

#[test]
fn getting_started_takes_every_other_path_and_topic_into_its_root_table() {
    let (_dir, server) = getting_started();
    let at = server.endpoints();
    expect("a path of no table", &get(at.http, "/favicon.ico"), 404, "");
    expect("a prefix of no table", &get(at.http, "/Nope/"), 200, "[]");
    let mut publisher = Publisher::start(PublisherKind::MqttJs4, &at, &Publish::default());
    publisher.put("factory/line-1/motor", &json!({ "data": { "rpm": [1, 2] } }));
    let motor = json!({ "id": "factory/line-1/motor", "data": { "rpm": [1, 2] } });
    assert_eq!(get(at.http, "/factory/line-1/motor").json(), motor);
    assert_eq!(get(at.http, "/factory%2Fline-1%2Fmotor").json(), motor, "a slash or %2F: the same record");
    assert_eq!(get(at.http, "/factory/").json(), json!([motor]));
    expect("PUT anywhere", &put_json(at.http, "/sensors/101", &json!({ "data": "lower case" })), 204, "");
    expect("names are case-sensitive", &get(at.http, "/Sensors/101"), 404, "");

    // Filters, what is stored for them already, and what each gets of the writes below.
    let cases: &[(&str, &[&str])] = &[
        ("factory/#", &["factory/a", "factory/a/b", "factory/end/b", "factory/line-1/motor"]),
        ("factory/+", &["factory/a"]),
        ("factory/+/b", &["factory/a/b", "factory/end/b"]),
        ("+/a", &["Sensors/a", "end/a", "factory/a", "other/a"]), // unlike Harper's, wildcards span tables
        ("+", &["a"]),
        ("Sensors/#", &["Sensors/1", "Sensors/a"]),
        ("Sensors/+", &["Sensors/1", "Sensors/a"]),
        ("factory/a", &["factory/a"]),
    ];
    let mut subscribers: Vec<_> = cases
        .iter()
        .map(|(filter, _)| {
            let to = Subscribe::to("").filter(filter).table("");
            Subscriber::start(SubscriberKind::Rumqttc4, &at, &to)
        })
        .collect();
    for topic in ["factory/a", "factory/a/b", "other/a", "Sensors/1", "end/a", "factory/end/b", "Sensors/a", "a"] {
        publisher.put(topic, &json!({ "location": "x" }));
    }
    for (subscriber, (filter, wanted)) in subscribers.iter_mut().zip(cases) {
        let seen = subscriber.expect(wanted.len(), PATIENCE);
        let mut topics: Vec<_> = seen.into_iter().filter_map(|m| m.topic).collect();
        topics.sort();
        assert_eq!(topics, *wanted, "{filter}");
    }
    for (subscriber, (filter, _)) in subscribers.into_iter().zip(cases) {
        let rest = subscriber.end();
        assert!(rest.is_empty(), "{filter} has more: {rest:#?}");
    }
}

#[test]
fn getting_started_listens_on_both_loopback_families() {
    let (_dir, mut server) = getting_started();
    server.options_mut().http = "localhost:0".into();
    server.options_mut().mqtt = "localhost:0".into();
    server.restart();
    let http_port = server.http().port();
    assert_eq!(put_json(server.http(), "/Sensors/101", &json!({ "temp": 1.5 })).status, 204);
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, http_port));
    if let Err(e) = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        panic!("this machine has no IPv6 loopback, which this test is about: {e}");
    }
    assert_eq!(get(v6, "/Sensors/101").json()["temp"], 1.5);
    let mqtt = SocketAddr::from((Ipv6Addr::LOCALHOST, server.mqtt().port()));
    Connection::try_open(mqtt).expect("MQTT on ::1");
}

/// The demo's names of its clients, and ours that stand for them (mqttx is mqtt.js with MQTT 5).
const PUBLISHERS: [(&str, PublisherKind); 7] = [
    ("nodejs-mqtt", PublisherKind::MqttJs4),
    ("nodejs-ws", PublisherKind::Fetch),
    ("nodejs-http", PublisherKind::Fetch),
    ("python-mqtt", PublisherKind::Paho4),
    ("python-ws", PublisherKind::Requests),
    ("python-http", PublisherKind::Requests),
    ("mqttx-mqtt", PublisherKind::MqttJs5),
];
const SUBSCRIBERS: [(&str, SubscriberKind, u8); 7] = [
    ("nodejs-mqtt", SubscriberKind::MqttJs4, 0),
    ("python-mqtt", SubscriberKind::Paho4, 0),
    ("mqttx-mqtt", SubscriberKind::MqttJs5, 1),
    ("nodejs-ws", SubscriberKind::Ws, 0),
    ("python-ws", SubscriberKind::Websockets, 0),
    ("nodejs-sse", SubscriberKind::EventSource, 0),
    ("python-sse", SubscriberKind::SseClientPy, 0),
];

#[test]
fn getting_started_passes_its_own_seven_by_seven_matrix() {
    let (_dir, server) = getting_started();
    let at = server.endpoints();
    // The record does not exist yet: every subscription is live all the same.
    let mut subscribers: Vec<(&str, Subscriber)> = std::thread::scope(|scope| {
        let starting: Vec<_> = SUBSCRIBERS
            .iter()
            .map(|&(name, kind, qos)| {
                (name, scope.spawn(move || Subscriber::start(kind, &at, &Subscribe::to("Sensors/101").qos(qos))))
            })
            .collect();
        starting.into_iter().map(|(name, start)| (name, start.join().expect("a subscriber starts"))).collect()
    });
    let mut failed = Vec::new();
    for (number, (publisher_name, kind)) in PUBLISHERS.into_iter().enumerate() {
        let location = format!("test-lab-publisher-{publisher_name}");
        let sent = json!({
            "temp": 20.0625 + number as f64,
            "location": location,
            "publisher": publisher_name,
            "timestamp": "2026-01-05T23:54:54Z",
        });
        let mut publisher = Publisher::start(kind, &at, &Publish::default());
        publisher.put("Sensors/101", &sent);
        publisher.end();
        let mut wanted = sent;
        wanted["id"] = "101".into();
        for (name, subscriber) in &mut subscribers {
            let Some(message) = subscriber.next(PATIENCE) else {
                failed.push(format!("{publisher_name} → {name}: nothing came"));
                continue;
            };
            let is_mqtt = matches!(subscriber.kind().transport(), Transport::Mqtt);
            let one_line = !message.raw.contains(&b'\n');
            if message.value != wanted || message.envelope == is_mqtt || !one_line {
                failed.push(format!("{publisher_name} → {name}: {message:#?}"));
            }
        }
    }
    assert!(failed.is_empty(), "{} of 49 failed:\n{}", failed.len(), failed.join("\n"));
    for (name, subscriber) in subscribers {
        let rest = subscriber.end();
        assert!(rest.is_empty(), "{name} got more than seven: {rest:#?}");
    }
}

#[test]
fn led_sign_serves_its_files_and_its_table_at_both_paths() {
    let (_dir, server) = led_sign();
    let at = server.http();
    for path in ["/", "/index.html"] {
        let index = get(at, path);
        expect(path, &index, 200, "<!doctype html><title>sign</title>");
        assert_eq!(index.header("content-type"), Some("text/html; charset=utf-8"));
    }
    let script = get(at, "/assets/index-1a2b.js");
    assert_eq!((script.status, script.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    expect("files come before the root table", &get(at, "/favicon.ico"), 200, "icon");
    let moved = get(at, "/help");
    assert_eq!((moved.status, moved.header("location")), (301, Some("/help/")), "a folder without its slash");
    expect("the folder's page", &get(at, "/help/"), 200, "help");
    expect("no file and no record", &get(at, "/assets/gone.js"), 404, "");
    expect("the source is not served", &get(at, "/schema.graphql"), 404, "");

    let sent = json!({ "topic": "led-sign/2FE598/message", "value": "hi", "updated_at": "1999-01-01T00:00:00Z" });
    let page = [("Content-Type", "application/json"), ("Origin", "http://localhost:5173")];
    let written = http(at, "PUT", "/Topics/led-sign%2F2FE598%2Fmessage", &page, sent.to_string().as_bytes());
    expect("set a value", &written, 204, "");
    for path in ["/Topics/led-sign%2F2FE598%2Fmessage", "/Topics/led-sign/2FE598/message", "/led-sign/2FE598/message"] {
        let read = get(at, path).json();
        assert_eq!((&read["topic"], &read["value"]), (&json!("led-sign/2FE598/message"), &json!("hi")), "{path}");
        let updated = read["updated_at"].as_str().expect("a time").to_owned();
        assert!(updated.starts_with("20") && updated.ends_with('Z'), "the server sets the time: {updated}");
    }
    expect("load one topic (trailing slash)", &get(at, "/Topics/led-sign%2F2FE598%2Fmessage/"), 200, "[]");
    expect("a topic of no record (trailing slash)", &get(at, "/Topics/x/"), 200, "[]");
    let discovered = http(at, "GET", "/Topics/", &page, b"");
    assert_eq!(discovered.json().as_array().map(Vec::len), Some(1), "discover signs");
}

#[test]
fn led_sign_lets_pages_of_other_origins_in() {
    let (_dir, server) = led_sign();
    let at = server.http();
    let origin = [("Origin", "http://localhost:5173")];
    let allowed = |response: &Response| {
        let allowed = response.header("access-control-allow-origin").map(str::to_owned);
        assert!(matches!(allowed.as_deref(), Some("*" | "http://localhost:5173")), "{response:?}");
    };
    allowed(&http(at, "GET", "/Topics/", &origin, b""));
    allowed(&http(at, "GET", "/index.html", &origin, b""));
    allowed(&http(at, "GET", "/Topics/none", &origin, b""));
    let asked = [
        ("Origin", "http://localhost:5173"),
        ("Access-Control-Request-Method", "PUT"),
        ("Access-Control-Request-Headers", "content-type"),
    ];
    let preflight = http(at, "OPTIONS", "/Topics/led-sign%2Fx", &asked, b"");
    allowed(&preflight);
    assert_eq!(preflight.status, 200);
    assert!(preflight.header("access-control-allow-methods").is_some_and(|m| m.contains("PUT")), "{preflight:?}");
    let headers = preflight.header("access-control-allow-headers").unwrap_or("").to_ascii_lowercase();
    assert!(headers.contains("content-type"), "{preflight:?}");
    let mut stream = Connection::open(at);
    stream.send(
        b"GET /Topics/led-sign/ HTTP/1.1\r\nHost: x\r\nOrigin: http://a.example\r\nAccept: text/event-stream\r\n\r\n",
    );
    let head = stream.response_head().expect("the head of a stream");
    assert_eq!(head.status, 200);
    assert!(head.header("access-control-allow-origin").is_some(), "{head:?}");
}

#[test]
fn led_sign_passes_plain_text_on_and_stores_none_of_it() {
    let (_dir, server) = led_sign();
    let at = server.endpoints();
    let sign = Subscribe::to("led-sign/2FE598/").table("");
    let kinds = [SubscriberKind::Rumqttc4, SubscriberKind::Rumqttc5, SubscriberKind::Ws, SubscriberKind::EventSource];
    let mut subscribers = kinds.map(|kind| Subscriber::start(kind, &at, &sign));
    let mut publisher = Publisher::start(PublisherKind::MqttJs4, &at, &Publish::default());
    for (field, text) in [("power", "on"), ("brightness", "10"), ("message", "héllo")] {
        let topic = format!("led-sign/2FE598/{field}");
        let reply = publisher.send(&Command::raw(Op::Message, &topic, text.as_bytes()).qos(1));
        assert_eq!(reply.status, Some(0), "PUBACK");
        let buffer = json!({ "type": "Buffer", "data": text.as_bytes() });
        for subscriber in &mut subscribers {
            let message = subscriber.expect(1, PATIENCE).remove(0);
            if message.envelope {
                assert_eq!((message.kind.as_deref(), &message.id), (Some("message"), &json!(topic)));
                assert_eq!(message.value, json!({ "contentType": "application/octet-stream", "data": buffer }));
            } else {
                assert_eq!((message.topic.as_deref(), &*message.raw), (Some(&*topic), text.as_bytes()));
            }
        }
        expect("nothing is stored", &get(at.http, &format!("/Topics/{topic}")), 404, "");
    }
    expect("nothing is stored", &get(at.http, "/Topics/"), 200, "[]");
    // What is stored reaches the sign as the record, under the topic it subscribed to.
    expect("set a value", &put_json(at.http, "/Topics/led-sign%2F2FE598%2Fmessage", &json!({ "value": "x" })), 204, "");
    for subscriber in &mut subscribers {
        let message = subscriber.expect(1, PATIENCE).remove(0);
        assert_eq!(message.value["value"], "x", "{message:?}");
        assert_eq!(message.value["topic"], "led-sign/2FE598/message", "{message:?}");
        if !message.envelope {
            assert_eq!(message.topic.as_deref(), Some("led-sign/2FE598/message"), "no leading slash");
        }
    }
}

#[test]
fn led_sign_can_mount_its_files_under_a_path() {
    let config = LED_SIGN_CONFIG.to_owned() + "  urlPath: 'app'";
    let dir = app(&[
        ("config.yaml", &config),
        ("schema.graphql", LED_SIGN),
        ("resources.js", "export const Topics = tables.Topics;"),
        ("dist/index.html", "sign"),
    ]);
    let server = dev(dir.path());
    expect("the folder", &get(server.http(), "/app/"), 200, "sign");
    expect("the file", &get(server.http(), "/app/index.html"), 200, "sign");
    expect("not at the root", &get(server.http(), "/index.html"), 404, "");
}

/// The page works in a browser: writes over REST and MQTT reach all its streams, sensors come, move and go. The
/// screenshots are left in `target/screenshots`.
#[test]
fn the_built_in_demo_page_works_in_a_browser() {
    let server = Server::start(Options { command: "dev", built_in: true, ..Options::default() });
    let at = server.endpoints();
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target").join("screenshots");
    fs::create_dir_all(&shots).expect("make the folder of screenshots");
    let shot = |name: &str| shots.join(format!("demo-{name}.png"));
    for name in ["desktop", "phone", "dark"] {
        let _ = fs::remove_file(shot(name));
    }
    let output = peers::program_command("demo_page.mjs", &["--shots", &shots.display().to_string()], &at)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("run Node");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}", output.status);
    let last: Value = said
        .lines()
        .find_map(|l| serde_json::from_str(l).ok().filter(|l: &Value| l["done"].is_u64()))
        .unwrap_or_else(|| panic!("the page's driver said nothing of its end:\n{said}"));
    assert_eq!(last["done"], 9, "every step of the script: {said}");
    for name in ["desktop", "phone", "dark"] {
        let png = fs::read(shot(name)).expect("a screenshot");
        assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000, "{name}: {} bytes", png.len());
    }
    // What the page wrote is what the server has.
    assert_eq!(get(at.http, "/Topics/led-sign/demo/message").json()["value"], "outside");
    assert_eq!(get(at.http, "/Topics/led-sign/demo/power").json()["value"], "off");
    assert_eq!(get(at.http, "/Topics/led-sign/demo/brightness").json()["value"], "35");
    let sensors = get(at.http, "/Sensors/").json();
    let sensors: Vec<_> =
        sensors.as_array().expect("a list").iter().map(|s| (s["id"].clone(), s["temp"].as_f64())).collect();
    assert_eq!(sensors, [(json!("101"), Some(30.5))]);
}
