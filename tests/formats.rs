//! Promise: a value is the same value in JSON, CBOR and MessagePack, whichever of them and whichever protocol it came in
//! by and goes out by; bytes that are no record pass through untouched (compat §7).
//!
//! The tests read and write CBOR and MessagePack with their own codec ([`common::codec`]), not with the server's.

mod common;

use common::{
    ALL_FORMATS, Command, Format, Op, Options, PATIENCE, Publish, Publisher, PublisherKind, Response, Server,
    Subscribe, Subscriber, SubscriberKind, get, http, normal, put_json,
};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tempfile::TempDir;

const SCHEMA: &str = r#"
type Open @table @export {
  id: ID @primaryKey
}

type Typed @table @export {
  id: ID @primaryKey
  at: Date
  bytes: Bytes
  long: Long
  ratio: Float
}

type Topics @table @export(name: "") {
  id: ID @primaryKey
}
"#;

fn start() -> (TempDir, Server) {
    let dir = TempDir::with_prefix("tablecast-formats-").expect("make a folder");
    common::server::write_app(dir.path(), SCHEMA);
    let server = Server::start(Options { app: Some(dir.path().to_owned()), ..Options::default() });
    (dir, server)
}

fn put(at: SocketAddr, path: &str, content_type: &str, body: &[u8]) -> Response {
    http(at, "PUT", path, &[("Content-Type", content_type)], body)
}

fn get_as(at: SocketAddr, path: &str, format: Format) -> Response {
    let response = http(at, "GET", path, &[("Accept", format.content_type())], b"");
    assert_eq!(response.status, 200, "{path}: {response:?}");
    assert_eq!(response.header("content-type"), Some(format.content_type()), "{path}");
    response
}

/// Values at the edges of what the three formats have in common.
fn edges() -> Value {
    json!({
        "integers": [0, -1, 23, 24, -24, -25, 127, 128, -128, -129, 255, 256, 65_535, 65_536, 4_294_967_295_u64,
            4_294_967_296_u64, 9_007_199_254_740_991_i64, 9_007_199_254_740_993_i64, i64::MIN, i64::MAX],
        "unsigned": u64::MAX,
        "floats": [0.1, -0.5, 1.5e300, 5e-324, f64::MAX, f64::MIN_POSITIVE, 3.0, 1e21, 123_456_789.123_456_78],
        "texts": ["", "plain", "Grüße", "日本語", "🚦🏳️‍🌈", "quote\" back\\slash /", "line\nfeed\ttab\r", "\u{1}\u{7f}\u{2028}",
            "nul\u{0}inside", "x".repeat(70_000)],
        "none": null,
        "flags": [true, false],
        "empty": { "list": [], "map": {}, "": "an empty name" },
        "nested": { "a": [{ "b": [[[{ "c": [null, { "d": 1 }] }]]] }] },
        "schlüssel 🔑": { "with space": 1, "dotted.name": 2, "a/b": 3 },
        "many": (0..100).map(|i| json!({ "i": i, "half": f64::from(i) / 2.0 })).collect::<Vec<_>>(),
    })
}

fn with_id(mut value: Value, id: &str) -> Value {
    value["id"] = id.into();
    value
}

#[test]
fn a_record_put_in_one_format_is_the_same_in_every_other() {
    let (_dir, server) = start();
    let at = server.http();
    for put_in in ALL_FORMATS {
        let id = put_in.name();
        let path = format!("/Open/{id}");
        let written = put(at, &path, put_in.content_type(), &put_in.encode(&edges()));
        assert_eq!(written.status, 204, "{written:?}");
        let wanted = with_id(edges(), id);
        for &got_in in ALL_FORMATS {
            let got = got_in.decode(&get_as(at, &path, got_in).body).expect("a document");
            for (name, value) in wanted.as_object().expect("a map") {
                // Not normalised: an integer stays one, and so does a float.
                assert_eq!(&got[name], value, "{name}: put as {put_in:?}, got as {got_in:?}");
            }
            assert_eq!(got.as_object().map(serde_json::Map::len), wanted.as_object().map(serde_json::Map::len));
            let by_suffix = get(at, &format!("{path}.{}", got_in.name()));
            assert_eq!(by_suffix.header("content-type"), Some(got_in.content_type()));
            assert_eq!(got_in.decode(&by_suffix.body), Some(got), "by suffix");
        }
    }
    // The whole collection: MessagePack is a sequence of records.
    let ids = ["cbor", "json", "msgpack"];
    let wanted: Vec<Value> = ids.iter().map(|id| with_id(edges(), id)).collect();
    for &format in ALL_FORMATS {
        let body = get_as(at, "/Open/", format).body;
        let rows = match format {
            Format::MsgPack => format.decode_sequence(&body),
            _ => format.decode(&body).and_then(|rows| rows.as_array().cloned()),
        };
        assert_eq!(rows.as_ref(), Some(&wanted), "{format:?}");
    }
}

#[test]
fn a_patch_in_one_format_merges_into_a_record_of_another() {
    let (_dir, server) = start();
    let at = server.http();
    for (index, &put_in) in ALL_FORMATS.iter().enumerate() {
        let patch_in = ALL_FORMATS[(index + 1) % 3];
        let path = format!("/Open/{}", put_in.name());
        let value = json!({ "keep": { "n": u64::MAX }, "change": [1], "drop": "x" });
        assert_eq!(put(at, &path, put_in.content_type(), &put_in.encode(&value)).status, 204);
        let patch = json!({ "change": { "b": -1.5 }, "drop": null, "new": i64::MIN });
        let kind = [("Content-Type", patch_in.content_type())];
        assert_eq!(http(at, "PATCH", &path, &kind, &patch_in.encode(&patch)).status, 204);
        let wanted = json!({
            "id": put_in.name(), "keep": { "n": u64::MAX }, "change": { "b": -1.5 }, "drop": null, "new": i64::MIN,
        });
        for &format in ALL_FORMATS {
            assert_eq!(format.decode(&get_as(at, &path, format).body), Some(wanted.clone()), "{put_in:?} → {format:?}");
        }
    }
}

/// A map of one entry, its value given as bytes of the format.
fn one(format: Format, name: &str, value: &[u8]) -> Vec<u8> {
    assert!(name.len() < 24);
    let (map, text) = match format {
        Format::Cbor => (0xa1, 0x60),
        Format::MsgPack => (0x81, 0xa0),
        Format::Json => return [b"{\"", name.as_bytes(), b"\":", value, b"}"].concat(),
    };
    [&[map, text | name.len() as u8], name.as_bytes(), value].concat()
}

#[test]
fn a_date_is_the_same_time_however_it_is_written() {
    let (_dir, server) = start();
    let at = server.http();
    // 2026-01-05T23:54:54.125Z is 1767657294.125 s, and so are all of these.
    let seconds: u32 = 1_767_657_294;
    let bits = 1_767_657_294.125_f64.to_be_bytes();
    let nanos_and_seconds = (125_000_000_u64 << 34 | u64::from(seconds)).to_be_bytes();
    let cases: &[(Format, Vec<u8>)] = &[
        (Format::Json, b"\"2026-01-05T23:54:54.125Z\"".to_vec()),
        (Format::Json, b"\"2026-01-06T00:54:54.125+01:00\"".to_vec()),
        (Format::Json, b"1767657294125".to_vec()),
        (Format::Cbor, [&[0xc1, 0xfb], &bits[..]].concat()),
        (Format::Cbor, [&[0xc0, 0x78, 24], &b"2026-01-05T23:54:54.125Z"[..]].concat()),
        (Format::MsgPack, [&[0xd7, 0xff], &nanos_and_seconds[..]].concat()),
        (Format::MsgPack, [&[0xc7, 12, 0xff, 7, 0x73, 0x59, 0x40, 0, 0, 0, 0], &seconds.to_be_bytes()[..]].concat()),
    ];
    for (number, (put_in, value)) in cases.iter().enumerate() {
        let path = format!("/Typed/{number}");
        let written = put(at, &path, put_in.content_type(), &one(*put_in, "at", value));
        assert_eq!(written.status, 204, "case {number}: {written:?}");
        for &format in ALL_FORMATS {
            let body = get_as(at, &path, format).body;
            let got = format.decode(&body).expect("a document");
            assert_eq!(got["at"], "2026-01-05T23:54:54.125Z", "case {number} as {format:?}");
            // A time, not a text that looks like one.
            let is_tagged = match format {
                Format::Json => true,
                Format::Cbor => body.windows(4).any(|w| w[..3] == *b"bat" && matches!(w[3], 0xc0 | 0xc1)),
                Format::MsgPack => body.windows(4).any(|w| w[..3] == *b"\xa2at" && matches!(w[3], 0xc7 | 0xd6 | 0xd7)),
            };
            assert!(is_tagged, "case {number} as {format:?}: {}", body.escape_ascii());
        }
    }
    for wrong in [&b"\"yesterday\""[..], b"true", b"[]"] {
        let refused = put(at, "/Typed/wrong", "application/json", &one(Format::Json, "at", wrong));
        assert_eq!(refused.status, 400, "{refused:?}");
    }
}

#[test]
fn bytes_stay_bytes() {
    let (_dir, server) = start();
    let at = server.http();
    let bytes = [0, 1, 0x7b, 0x80, 0xc3, 0x28, 0xff];
    let buffer = json!({ "type": "Buffer", "data": bytes });
    for table in ["Typed", "Open"] {
        for (put_in, head) in [(Format::Cbor, &[0x47_u8][..]), (Format::MsgPack, &[0xc4, 7])] {
            let path = format!("/{table}/{}", put_in.name());
            let value = [head, &bytes].concat();
            assert_eq!(put(at, &path, put_in.content_type(), &one(put_in, "bytes", &value)).status, 204);
            for &format in ALL_FORMATS {
                let body = get_as(at, &path, format).body;
                assert_eq!(format.decode(&body).expect("a document")["bytes"], buffer, "{path} as {format:?}");
                let is_verbatim = body.windows(bytes.len()).any(|w| w == bytes);
                assert_eq!(is_verbatim, format != Format::Json, "{path} as {format:?}: {}", body.escape_ascii());
            }
        }
    }
    // Text for an attribute of bytes is its UTF-8.
    assert_eq!(put_json(at, "/Typed/text", &json!({ "bytes": "é" })).status, 204);
    assert_eq!(get(at, "/Typed/text").json()["bytes"], json!({ "type": "Buffer", "data": [0xc3, 0xa9] }));
}

#[test]
fn numbers_of_declared_attributes_keep_their_kind() {
    let (_dir, server) = start();
    let at = server.http();
    for put_in in ALL_FORMATS {
        let path = format!("/Typed/{}", put_in.name());
        let value = json!({ "long": -9_007_199_254_740_992_i64, "ratio": 2.5 });
        assert_eq!(put(at, &path, put_in.content_type(), &put_in.encode(&value)).status, 204);
        for &format in ALL_FORMATS {
            let got = format.decode(&get_as(at, &path, format).body).expect("a document");
            assert_eq!((&got["long"], &got["ratio"]), (&value["long"], &value["ratio"]), "{put_in:?} → {format:?}");
        }
        for (wrong, what) in [(json!({ "long": 1.5 }), "long"), (json!({ "ratio": "2.5" }), "ratio")] {
            let refused = put(at, &path, put_in.content_type(), &put_in.encode(&wrong));
            assert_eq!(refused.status, 400, "{refused:?}");
            assert!(refused.text().contains(what), "{refused:?}");
        }
        let cut = put_in.encode(&value);
        assert_eq!(put(at, &path, put_in.content_type(), &cut[..cut.len() - 1]).status, 400, "cut short, {put_in:?}");
    }
}

#[test]
fn accept_chooses_the_format_of_answers() {
    let (_dir, server) = start();
    let at = server.http();
    assert_eq!(put_json(at, "/Open/1", &json!({ "a": 1 })).status, 204);
    let wanted = json!({ "a": 1, "id": "1" });
    let cases = [
        ("*/*", Some(Format::Json)),
        ("application/cbor", Some(Format::Cbor)),
        ("application/x-msgpack", Some(Format::MsgPack)),
        ("APPLICATION/CBOR", Some(Format::Cbor)),
        ("application/json, application/cbor", Some(Format::Cbor)),
        ("application/json, application/cbor;q=0.5", Some(Format::Json)),
        ("text/html, application/xhtml+xml, */*;q=0.8", Some(Format::Json)),
        ("image/png", None),
    ];
    for (accept, format) in cases {
        let response = http(at, "GET", "/Open/1", &[("Accept", accept)], b"");
        match format {
            Some(format) => {
                assert_eq!(response.header("content-type"), Some(format.content_type()), "{accept}");
                assert_eq!(format.decode(&response.body).as_ref(), Some(&wanted), "{accept}");
                let vary = response.header("vary").unwrap_or("").to_ascii_lowercase();
                assert!(vary.contains("accept"), "{accept}: {response:?}");
            }
            None => assert_eq!(response.status, 406, "{accept}"),
        }
    }
    // A suffix is stronger than Accept.
    let cbor = http(at, "GET", "/Open/1.cbor", &[("Accept", "application/json")], b"");
    assert_eq!(cbor.header("content-type"), Some("application/cbor"));
}

/// What the subscriber's raw bytes are, by the tests' own codec.
#[track_caller]
fn raw_value(subscriber: &mut Subscriber, format: Format) -> Value {
    let message = subscriber.expect(1, PATIENCE).remove(0);
    let raw = message.raw.escape_ascii().to_string();
    format.decode(&message.raw).unwrap_or_else(|| panic!("{:?} was sent no {format:?}: {raw}", subscriber.kind()))
}

#[test]
fn mqtt_5_names_the_format_of_each_publish_and_of_each_subscription() {
    let (_dir, server) = start();
    let at = server.endpoints();
    let to = Subscribe::to("Open/").filter("Open/#");
    let mut subscribers: Vec<(Format, Subscriber)> = Vec::new();
    for &format in ALL_FORMATS {
        subscribers.push((format, Subscriber::start(SubscriberKind::Rumqttc5, &at, &to.clone().format(format))));
        subscribers.push((format, Subscriber::start(SubscriberKind::Mosquitto5, &at, &to.clone().format(format))));
    }
    subscribers.push((Format::Json, Subscriber::start(SubscriberKind::Rumqttc4, &at, &to)));
    let mut publisher = Publisher::start(PublisherKind::Rumqttc5, &at, &Publish::default());
    for &sent_in in ALL_FORMATS {
        let id = sent_in.name();
        let topic = format!("Open/{id}");
        publisher.send(&Command::new(Op::Put, &topic, &edges()).format(sent_in));
        publisher.send(&Command::new(Op::Message, &topic, &edges()).format(sent_in));
        for (format, subscriber) in &mut subscribers {
            assert_eq!(raw_value(subscriber, *format), with_id(edges(), id), "put, {sent_in:?} → {format:?}");
            assert_eq!(raw_value(subscriber, *format), edges(), "message, {sent_in:?} → {format:?}");
        }
        for &format in ALL_FORMATS {
            let got = format.decode(&get_as(at.http, &format!("/{topic}"), format).body);
            assert_eq!(got, Some(with_id(edges(), id)), "{sent_in:?} → REST as {format:?}");
        }
    }
    // What was put over REST comes in the subscription's format too, and so does the state of a new subscription.
    let written = put(at.http, "/Open/rest", "application/x-msgpack", &Format::MsgPack.encode(&edges()));
    assert_eq!(written.status, 204);
    for (format, subscriber) in &mut subscribers {
        assert_eq!(raw_value(subscriber, *format), with_id(edges(), "rest"), "REST → {format:?}");
        let again = Subscribe::to("Open/rest").format(*format);
        let mut late = Subscriber::start(subscriber.kind(), &at, &again);
        assert_eq!(raw_value(&mut late, *format), with_id(edges(), "rest"), "state as {format:?}");
    }
}

#[test]
fn mqtt_5_refuses_a_publish_that_is_not_what_its_content_type_says() {
    let (_dir, server) = start();
    let at = server.endpoints();
    // The connection's own Content-Type, for a payload that is something else.
    let cbor = Publish { format: Format::Cbor, ..Publish::default() };
    let mut publisher = Publisher::start(PublisherKind::MqttJsWs5, &at, &cbor);
    let refused = publisher.publish(&Command::raw(Op::Put, "Open/bad", b"{\"a\":1}"));
    assert_eq!((refused.ok, refused.status), (false, Some(0x99)), "{refused:?}");
    assert_eq!(get(at.http, "/Open/bad").status, 404);
    publisher.send(&Command::new(Op::Put, "Open/good", &json!({ "a": 1 })).format(Format::Cbor));
    assert_eq!(get(at.http, "/Open/good").json(), json!({ "a": 1, "id": "good" }));
}

#[test]
fn the_headers_of_an_upgrade_choose_the_formats_of_mqtt_over_web_socket() {
    let (_dir, server) = start();
    let at = server.endpoints();
    // Without the wide numbers: the publishers are JavaScript and Python.
    let value = json!({ "n": [1, -2, 0.5, 1e300], "text": "Grüße 🚦", "none": null, "deep": { "a": [{ "b": true }] } });
    let mut subscribers: Vec<(Format, Subscriber)> = ALL_FORMATS
        .iter()
        .map(|&format| {
            let to = Subscribe::to("Open/").format(format);
            (format, Subscriber::start(SubscriberKind::PahoWs4, &at, &to))
        })
        .collect();
    for kind in [PublisherKind::MqttJsWs4, PublisherKind::PahoWs4] {
        for &format in ALL_FORMATS {
            let mut publisher = Publisher::start(kind, &at, &Publish { format, ..Publish::default() });
            let id = format!("{kind:?}-{}", format.name());
            publisher.send(&Command::new(Op::Put, &format!("Open/{id}"), &value).format(format));
            publisher.end();
            let wanted = normal(with_id(value.clone(), &id));
            for (own, subscriber) in &mut subscribers {
                assert_eq!(normal(raw_value(subscriber, *own)), wanted, "{id} → {own:?}");
            }
            assert_eq!(normal(get(at.http, &format!("/Open/{id}")).json()), wanted, "{id} → REST");
        }
    }
}

#[test]
fn what_is_no_record_passes_verbatim_between_mqtt_and_rest() {
    let (_dir, server) = start();
    let at = server.endpoints();
    let large: Vec<u8> = (0..300_000_u32).map(|i| (i * 7 + i / 256) as u8).collect();
    let payloads: &[&[u8]] = &[
        b"on",
        b"[1,2]",
        b"42",
        b"\"text\"",
        b"null",
        b"{bad",
        b" {\"a\":1}",
        b"\xa1\x61\x61\x01",
        b"\x00\xff\x00",
        "é".as_bytes(),
        &large,
    ];
    let mut subscribers: Vec<Subscriber> = [Format::Json, Format::Cbor]
        .iter()
        .map(|&format| {
            let to = Subscribe::to("").filter("raw/#").table("").format(format);
            Subscriber::start(SubscriberKind::Rumqttc5, &at, &to)
        })
        .collect();
    subscribers.push(Subscriber::start(SubscriberKind::Rumqttc4, &at, &Subscribe::to("").filter("raw/#").table("")));
    let mut publishers =
        [PublisherKind::Rumqttc4, PublisherKind::Rumqttc5].map(|kind| Publisher::start(kind, &at, &Publish::default()));
    for (number, payload) in payloads.iter().enumerate() {
        let topic = format!("raw/{number}");
        let shown = payload[..payload.len().min(20)].escape_ascii();
        publishers[number % 2].send(&Command::raw(Op::Put, &topic, payload));
        let stored = get(at.http, &format!("/{topic}"));
        assert_eq!((stored.status, stored.header("content-type")), (200, Some("application/octet-stream")), "{shown}");
        assert!(stored.body == *payload, "{shown} came back as {}", stored.body.escape_ascii());
        // Bytes have one form, whatever else the client would rather have.
        let cbor = get_as_is(at.http, &format!("/{topic}"), "application/cbor");
        assert!(cbor.body == *payload, "{shown}: {cbor:?}");
        publishers[number % 2].send(&Command::raw(Op::Message, &topic, payload));
        for subscriber in &mut subscribers {
            for message in subscriber.expect(2, PATIENCE) {
                assert!(message.raw == *payload, "{shown} came as {}", message.raw.escape_ascii());
                assert_eq!(message.content_type, None, "{shown}");
            }
        }
    }
}

fn get_as_is(at: SocketAddr, path: &str, accept: &str) -> Response {
    http(at, "GET", path, &[("Accept", accept)], b"")
}

#[test]
fn a_body_of_another_type_keeps_its_type_and_its_bytes() {
    let (_dir, server) = start();
    let at = server.endpoints();
    let png = b"\x89PNG\r\n\x1a\n\x00\xff".as_slice();
    let cases: &[(&str, &[u8])] = &[
        ("image/png", png),
        ("text/plain", "zwölf".as_bytes()),
        ("application/octet-stream", b"{\"a\":1}"),
        ("application/vnd.example+zip; v=1", b"PK\x03\x04"),
    ];
    let five = Subscribe::to("").filter("files/#").table("").format(Format::MsgPack);
    let mut five = Subscriber::start(SubscriberKind::Rumqttc5, &at, &five);
    let mut four = Subscriber::start(SubscriberKind::Rumqttc4, &at, &Subscribe::to("").filter("files/#").table(""));
    let mut socket = Subscriber::start(SubscriberKind::Ws, &at, &Subscribe::to("files/"));
    for (number, (content_type, body)) in cases.iter().enumerate() {
        let path = format!("/files/{number}");
        let written = put(at.http, &path, content_type, body);
        assert_eq!(written.status, 204, "{content_type}: {written:?}");
        let read = get_as_is(at.http, &path, "*/*");
        assert_eq!((read.header("content-type"), &*read.body), (Some(*content_type), *body));
        let message = five.expect(1, PATIENCE).remove(0);
        let named = Some(*content_type).filter(|own| *own != "application/octet-stream");
        assert_eq!((&*message.raw, message.content_type.as_deref()), (*body, named), "{content_type}");
        assert_eq!(four.expect(1, PATIENCE).remove(0).raw, *body, "{content_type}");
        let envelope = socket.expect(1, PATIENCE).remove(0);
        assert_eq!(envelope.value["contentType"], *content_type);
        let wanted = match std::str::from_utf8(body) {
            Ok(text) if content_type.starts_with("text/") => json!(text),
            _ => json!({ "type": "Buffer", "data": body }),
        };
        assert_eq!(envelope.value["data"], wanted, "{content_type}");
    }
}

#[test]
fn a_web_socket_gets_the_format_that_it_accepts() {
    let (_dir, server) = start();
    let at = server.endpoints();
    let kinds = [SubscriberKind::Ws, SubscriberKind::Websockets];
    let mut subscribers: Vec<(Format, Subscriber)> = ALL_FORMATS
        .iter()
        .flat_map(|&format| kinds.map(|kind| (format, kind)))
        .map(|(format, kind)| (format, Subscriber::start(kind, &at, &Subscribe::to("Open/1").format(format))))
        .collect();
    let written = put(at.http, "/Open/1", "application/cbor", &Format::Cbor.encode(&edges()));
    assert_eq!(written.status, 204);
    for (format, subscriber) in &mut subscribers {
        let envelope = raw_value(subscriber, *format);
        assert_eq!(envelope["value"], with_id(edges(), "1"), "{format:?}");
        assert_eq!((&envelope["id"], &envelope["type"]), (&json!("1"), &json!("put")), "{format:?}");
    }
}

#[test]
fn every_spelling_of_a_value_is_that_value() {
    let (_dir, server) = start();
    let at = server.http();
    // Longer heads than needed, lengths that are not said, half and single floats: all legal, all sent by somebody.
    let cases: &[(Format, &[u8], Value)] = &[
        (Format::Cbor, b"\x18\x01", json!(1)),
        (Format::Cbor, b"\x1b\0\0\0\0\0\0\0\x01", json!(1)),
        (Format::Cbor, b"\x3b\0\0\0\0\0\0\0\0", json!(-1)),
        (Format::Cbor, b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff", json!(i64::MIN)),
        (Format::Cbor, b"\xf9\x3e\x00", json!(1.5)),
        (Format::Cbor, b"\xfa\x3f\xc0\0\0", json!(1.5)),
        (Format::Cbor, b"\x7f\x62ab\x61c\xff", json!("abc")),
        (Format::Cbor, b"\x9f\x01\x82\x02\x03\xff", json!([1, [2, 3]])),
        (Format::Cbor, b"\xbf\x61a\xf5\xff", json!({ "a": true })),
        (Format::Cbor, b"\xb9\x00\x01\x61a\xf4", json!({ "a": false })),
        (Format::Cbor, b"\xd9\xd9\xf7\x01", json!(1)), // "self-described", which says nothing
        (Format::MsgPack, b"\xcc\x01", json!(1)),
        (Format::MsgPack, b"\xcf\0\0\0\0\0\0\0\x01", json!(1)),
        (Format::MsgPack, b"\xd0\xff", json!(-1)),
        (Format::MsgPack, b"\xd3\xff\xff\xff\xff\xff\xff\xff\xff", json!(-1)),
        (Format::MsgPack, b"\xd2\0\0\0\x05", json!(5)),
        (Format::MsgPack, b"\xca\x3f\xc0\0\0", json!(1.5)),
        (Format::MsgPack, b"\xdb\0\0\0\x03abc", json!("abc")),
        (Format::MsgPack, b"\xd9\x03abc", json!("abc")),
        (Format::MsgPack, b"\xdd\0\0\0\x01\xc0", json!([null])),
        (Format::MsgPack, b"\xdf\0\0\0\x01\xa1a\xc3", json!({ "a": true })),
        (Format::Json, b" [ 1 , -0.5e1 ] ", json!([1, -5.0])),
        (Format::Json, br#""\u00fc\ud83d\udea6\/""#, json!("ü🚦/")),
    ];
    for (number, (put_in, value, wanted)) in cases.iter().enumerate() {
        let shown = value.escape_ascii();
        let path = format!("/Open/{number}");
        let written = put(at, &path, put_in.content_type(), &one(*put_in, "v", value));
        assert_eq!(written.status, 204, "{put_in:?} {shown}: {written:?}");
        for &format in ALL_FORMATS {
            let got = format.decode(&get_as(at, &path, format).body).expect("a document");
            assert_eq!(&got["v"], wanted, "{put_in:?} {shown} as {format:?}");
        }
    }
}

#[test]
fn what_is_no_document_is_refused_and_changes_nothing() {
    let (_dir, server) = start();
    let at = server.http();
    assert_eq!(put_json(at, "/Open/1", &json!({ "a": 1 })).status, 204);
    let deep = |open: &[u8], n: usize, end: &[u8]| [open.repeat(n), b"\x01".to_vec(), end.repeat(n)].concat();
    let deep_json = [b"[".repeat(5000), b"]".repeat(5000)].concat();
    let cases: &[(Format, Vec<u8>)] = &[
        (Format::Json, b"nul".to_vec()),
        (Format::Json, b"01".to_vec()),
        (Format::Json, b"\"\xff\"".to_vec()),
        (Format::Json, b"\"\\ud800\"".to_vec()),
        (Format::Json, b"1}{".to_vec()),
        (Format::Json, deep_json),
        (Format::Cbor, b"\x62\xc3\x28".to_vec()),
        (Format::Cbor, b"\x9f\x01".to_vec()),
        (Format::Cbor, b"\xff".to_vec()),
        (Format::Cbor, b"\x1c".to_vec()),
        (Format::Cbor, b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        (Format::Cbor, b"\x01\x01".to_vec()),
        (Format::Cbor, deep(b"\x81", 5000, b"")),
        (Format::MsgPack, b"\xc1".to_vec()),
        (Format::MsgPack, b"\xdd\xff\xff\xff\xff".to_vec()),
        (Format::MsgPack, b"\xa2\xc3\x28".to_vec()),
        (Format::MsgPack, b"\x01\x01".to_vec()),
        (Format::MsgPack, deep(b"\x91", 5000, b"")),
    ];
    for (format, value) in cases {
        let shown = value[..value.len().min(20)].escape_ascii();
        let refused = put(at, "/Open/1", format.content_type(), &one(*format, "v", value));
        assert_eq!(refused.status, 400, "{format:?} {shown}: {refused:?}");
    }
    for (body, what) in [(&b"[{\"a\":2}]"[..], "a list"), (b"2", "a number"), (b"", "nothing"), (b"null", "null")] {
        assert_eq!(put(at, "/Open/1", "application/json", body).status, 400, "{what}");
    }
    assert_eq!(get(at, "/Open/1").json(), json!({ "a": 1, "id": "1" }));
}
