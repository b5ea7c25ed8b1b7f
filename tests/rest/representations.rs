//! What answers are written as, how they are compressed, and what the server says of itself.

use crate::common::{get, http, put_json};
use crate::{curl, start};
use serde_json::{Value, json};
use std::io::Read;
use std::net::SocketAddr;

fn fill(at: SocketAddr) {
    let records = [
        json!({ "name": "nail, long", "price": 0.5, "count": 100, "sold": true, "since": "2026-01-02T03:04:05.000Z" }),
        json!({ "name": "say \"hi\"", "price": 2, "tags": ["a", "b"], "size": { "width": 3, "height": 4 } }),
        json!({ "name": "true", "price": null, "extra": "yes: no" }),
    ];
    for (n, record) in records.iter().enumerate() {
        assert_eq!(put_json(at, &format!("/Goods/{}", n + 1), record).status, 204);
    }
}

fn text_of(at: SocketAddr, path: &str, accept: &str) -> (String, String) {
    let response = http(at, "GET", path, &[("Accept", accept)], b"");
    assert_eq!(response.status, 200, "{path}: {response:?}");
    (response.header("content-type").unwrap_or_default().to_owned(), response.text())
}

#[test]
fn csv() {
    let (_app, server) = start(2);
    let at = server.http();
    let names = "id,name,price,count,sold,since,tags,size\r\n";
    assert_eq!(text_of(at, "/Goods/", "text/csv"), ("text/csv; charset=utf-8".into(), names.into()), "nothing yet");
    fill(at);
    let rows = [
        "1,\"nail, long\",0.5,100,true,2026-01-02T03:04:05.000Z,,\r\n",
        "2,\"say \"\"hi\"\"\",2,,,,\"[\"\"a\"\",\"\"b\"\"]\",\"{\"\"height\"\":4,\"\"width\"\":3}\"\r\n",
        "3,true,,,,,,\r\n",
    ];
    assert_eq!(text_of(at, "/Goods/", "text/csv").1, format!("{names}{}", rows.concat()));
    let response = get(at, "/Goods/.csv?select(name,price)&price=lt=1");
    assert_eq!(response.text(), "name,price\r\n\"nail, long\",0.5\r\n");
    assert_eq!(response.header("content-disposition"), Some("attachment; filename=\"data.csv\""));
    let (name, price) = ("\"say \"\"hi\"\"\"", "2");
    let one = format!("name,price,id\r\n{name},{price},2\r\n");
    assert_eq!(get(at, "/Goods/2.csv?select(name,price,id)").text(), one);
    // Another reader agrees.
    let program = "import csv,sys,json; print(json.dumps(list(csv.DictReader(open(sys.argv[1], newline='')))))";
    let file = server.home().join("goods.csv");
    std::fs::write(&file, text_of(at, "/Goods/", "text/csv").1).expect("write the file");
    let output = std::process::Command::new("python3").args(["-c", program]).arg(&file).output().expect("run python3");
    let read: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(read[1]["name"], "say \"hi\"");
    assert_eq!(read[1]["size"], "{\"height\":4,\"width\":3}");
}

#[test]
fn lines_of_json() {
    let (_app, server) = start(2);
    let at = server.http();
    fill(at);
    for accept in ["application/x-ndjson", "application/ndjson"] {
        let (content_type, text) = text_of(at, "/Goods/?select(id)", accept);
        assert_eq!((content_type.as_str(), text.as_str()), ("application/x-ndjson", "\"1\"\n\"2\"\n\"3\"\n"));
    }
    assert_eq!(text_of(at, "/Goods/?id=none", "application/x-ndjson").1, "");
    let lines = text_of(at, "/Goods/", "application/x-ndjson").1;
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(Value::Array(records), get(at, "/Goods/").json());
}

#[test]
fn yaml() {
    let (_app, server) = start(2);
    let at = server.http();
    fill(at);
    let expected =
        "id: \"2\"\nname: \"say \\\"hi\\\"\"\nprice: 2\ntags:\n  - a\n  - b\nsize:\n  width: 3\n  height: 4\n";
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&text_of(at, "/Goods/2", "text/yaml").1), sorted(expected));
    let list = text_of(at, "/Goods/?select(id,name)", "application/yaml").1;
    assert_eq!(
        list,
        "- id: \"1\"\n  name: \"nail, long\"\n- id: \"2\"\n  name: \"say \\\"hi\\\"\"\n- id: \"3\"\n  name: \"true\"\n"
    );
    assert_eq!(text_of(at, "/Goods/?id=none", "text/yaml").1, "[]\n");
}

#[test]
fn forms_become_what_is_declared() {
    let (_app, server) = start(1);
    let at = server.http();
    let form = "name=a+b%26c&price=1.5&count=7&sold=on&tags=x&tags=y&extra=1&extra=2&other=5";
    let headers = [("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")];
    assert_eq!(http(at, "PUT", "/Goods/f", &headers, form.as_bytes()).status, 204);
    let expected = json!({ "id": "f", "name": "a b&c", "price": 1.5, "count": 7, "sold": true, "tags": ["x", "y"],
        "extra": ["1", "2"], "other": "5" });
    assert_eq!(get(at, "/Goods/f").json(), expected);
    let refused = http(at, "PUT", "/Goods/f", &headers, b"name=x&count=many");
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("count"), "{}", refused.text());
    let json = http(at, "PUT", "/Goods/f", &headers, br#"{"name":"x"}"#);
    assert!(json.status == 400 && json.text().contains("application/json"), "{}", json.text());
    // As a browser sends it.
    let base = format!("http://{at}/Goods/g");
    curl(&["-X", "PUT", "--data-urlencode", "name=ä & ö", "-d", "count=1", "--fail", &base]);
    assert_eq!(get(at, "/Goods/g").json()["name"], "ä & ö");
}

/// Every coding, of one record and of a collection that is streamed; entity tags tell them apart.
#[test]
fn large_answers_are_compressed() {
    let (_app, server) = start(2);
    let at = server.http();
    let long = "abcdefgh".repeat(1000);
    for n in 0..300 {
        assert_eq!(put_json(at, &format!("/Free/{n:03}"), &json!({ "text": long[..100 + n], "n": n })).status, 204);
    }
    assert_eq!(put_json(at, "/Free/long", &json!({ "text": long })).status, 204);
    let plain = get(at, "/Free/");
    assert_eq!(plain.header("content-encoding"), None);
    let etag = get(at, "/Free/long").header("etag").expect("an ETag").to_owned();
    for coding in ["gzip", "br", "zstd"] {
        for path in ["/Free/", "/Free/long"] {
            let expected = get(at, path).body;
            let response = http(at, "GET", path, &[("Accept-Encoding", coding)], b"");
            assert_eq!(response.header("content-encoding"), Some(coding), "{path}");
            assert!(
                response.body.len() * 4 < expected.len(),
                "{coding}: {} of {}",
                response.body.len(),
                expected.len()
            );
            // curl brings decoders of its own.
            let url = format!("http://{at}{path}");
            let field = format!("Accept-Encoding: {coding}");
            assert_eq!(curl(&["--compressed", "-H", &field, &url]), expected, "{coding} {path}");
        }
        let coded = http(at, "GET", "/Free/long", &[("Accept-Encoding", coding)], b"");
        let tag = coded.header("etag").expect("an ETag").to_owned();
        assert_ne!(tag, etag);
        for tag in [&tag, &etag] {
            let fields = [("Accept-Encoding", coding), ("If-None-Match", tag.as_str())];
            let known = http(at, "GET", "/Free/long", &fields, b"");
            assert_eq!((known.status, known.header("etag")), (304, Some(tag.as_str())));
        }
    }
    let coded = http(at, "GET", "/Free/long", &[("Accept-Encoding", "br")], b"");
    let headers = [("If-Match", coded.header("etag").expect("an ETag")), ("Content-Type", "application/json")];
    let text = json!({ "text": long }).to_string();
    assert_eq!(http(at, "PUT", "/Free/long", &headers, text.as_bytes()).status, 204, "the tag names the version");
    assert_eq!(http(at, "PUT", "/Free/long", &headers, text.as_bytes()).status, 412);
    let small = http(at, "GET", "/Free/000", &[("Accept-Encoding", "gzip")], b"");
    assert_eq!(small.header("content-encoding"), None, "it is in one packet anyway");
    let head = http(at, "HEAD", "/Free/long", &[("Accept-Encoding", "gzip")], b"");
    assert_eq!(head.header("content-encoding"), Some("gzip"));
    let mut decoded = String::new();
    let coded = http(at, "GET", "/Free/long", &[("Accept-Encoding", "gzip;q=0.5, br;q=0.1")], b"");
    flate2::read::GzDecoder::new(&coded.body[..]).read_to_string(&mut decoded).expect("gzip");
    assert_eq!(serde_json::from_str::<Value>(&decoded).expect("JSON")["text"], long.as_str());
}

#[test]
fn writes_tell_a_position_and_reads_wait_for_it() {
    for shards in [1, 2, 4] {
        let (_app, server) = start(shards);
        let at = server.http();
        let mut last = String::new();
        for n in 0..20 {
            let response = put_json(at, &format!("/Free/{n}"), &json!({ "n": n }));
            last = response.header("position").expect("a position").to_owned();
            assert_eq!(last.split('_').count(), shards, "{last}");
            let read = get(at, &format!("/Free/{n}?min={last}"));
            assert_eq!((read.status, read.json()["n"].as_i64()), (200, Some(n)));
        }
        let took = get(at, "/Free/1").header("server-timing").expect("Server-Timing").to_owned();
        assert!(took.starts_with("db;dur="), "{took}");
        assert_eq!(get(at, &format!("/Free/?min={last}")).json().as_array().map(Vec::len), Some(20));
        assert_eq!(get(at, "/Free/1?min=yesterday").status, 400);
        let beyond = vec!["9-9"; shards].join("_");
        assert_eq!(get(at, &format!("/Free/1?min={beyond}")).status, 412);
        assert_eq!(get(at, "/Free/1?min=1-1_1-1_1-1").status, 412, "a server with three shards");
    }
}

#[test]
fn queries_in_a_body() {
    let (_app, server) = start(2);
    let at = server.http();
    fill(at);
    let ask = |content_type: &str, body: &str| {
        http(at, "QUERY", "/Goods/", &[("Content-Type", content_type)], body.as_bytes())
    };
    let names = |content_type: &str, body: &str| {
        let response = ask(content_type, body);
        assert_eq!(response.status, 200, "{body}: {}", response.text());
        let all = response.json();
        all.as_array()
            .expect("an array")
            .iter()
            .map(|it| it["id"].as_str().unwrap_or("?").to_owned())
            .collect::<String>()
    };
    let object = |body: Value| names("application/json", &body.to_string());
    let test = |attribute: &str, comparator: &str, value: Value| json!({ "attribute": attribute, "comparator": comparator, "value": value });
    assert_eq!(object(json!({})), "123");
    assert_eq!(object(json!({ "conditions": [test("price", "greater_than", json!(1))] })), "2");
    assert_eq!(object(json!({ "conditions": [test("price", "between", json!([0, 2]))] })), "12");
    assert_eq!(object(json!({ "conditions": [test("price", "equals", json!(null))] })), "3");
    assert_eq!(object(json!({ "conditions": [test("name", "in", json!(["true", "x"]))] })), "3");
    assert_eq!(object(json!({ "conditions": [test("name", "contains", json!("a"))] })), "12");
    assert_eq!(object(json!({ "conditions": [test("since", "ge", json!("2026-01-01"))] })), "1");
    assert_eq!(object(json!({ "conditions": [{ "attribute": ["size", "width"], "value": 3 }] })), "2");
    let either =
        json!([test("id", "eq", json!("1")), { "operator": "and", "conditions": [test("id", "eq", json!("3"))] }]);
    assert_eq!(object(json!({ "operator": "or", "conditions": either })), "13");
    let sort = json!({ "attribute": "price", "descending": true, "next": { "attribute": "id" } });
    assert_eq!(object(json!({ "sort": sort, "limit": 2, "select": ["id"] })), "21");
    assert_eq!(object(json!({ "sort": sort, "offset": 1, "limit": 2, "select": ["id"] })), "13");
    assert_eq!(names("application/x-www-form-urlencoded", "price=gt=0.4&sort(-price)"), "21");
    for (body, expected) in [
        ("[]", "object"),
        (r#"{"conditions":[{"attribute":"price","comparator":"like","value":1}]}"#, "conditions[0].comparator"),
        (r#"{"conditions":[{"attribute":"size.width","comparator":"gt","value":{}}]}"#, "conditions[0].value"),
        (r#"{"conditions":[{"value":1}]}"#, "conditions[0].attribute"),
        (r#"{"limit":-1}"#, "limit"),
        (r#"{"where":1}"#, "where"),
    ] {
        let response = ask("application/json", body);
        assert!(response.status == 400 && response.text().contains(expected), "{body}: {}", response.text());
    }
}

#[test]
fn the_server_describes_itself() {
    let (_app, server) = start(2);
    let at = server.http();
    fill(at);
    let table = get(at, "/Goods").json();
    assert_eq!(table["description"], "What a shop sells.");
    let name = &table["attributes"][1];
    assert_eq!(
        *name,
        json!({ "name": "name", "type": "String", "indexed": true, "required": true, "description": "As on the label." })
    );
    assert_eq!(table["attributes"][6]["elements"], "String");
    assert_eq!(table["attributes"][7]["properties"][0]["name"], "width");
    assert!(table["estimatedRecordRange"].is_array());
    let api = get(at, "/openapi").json();
    assert_eq!(api["openapi"], "3.1.0");
    assert_eq!(api["components"]["schemas"]["Goods"]["description"], "What a shop sells.");
    let properties = &api["components"]["schemas"]["Goods"]["properties"];
    assert_eq!(properties["name"], json!({ "type": "string", "description": "As on the label." }));
    assert_eq!(properties["size"]["properties"]["width"]["type"], "integer");
    assert_eq!(api["paths"].as_object().map(|paths| paths.len()), Some(12));
    // Each reference leads somewhere, and each operation is answered.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(name, value)| match (name.as_str(), value) {
                ("$ref", Value::String(target)) => found.push(target),
                _ => references(value, found),
            }),
            Value::Array(all) => all.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&api, &mut found);
    assert!(found.len() > 10);
    for target in found {
        assert!(api.pointer(target.trim_start_matches('#')).is_some(), "{target}");
    }
    for (path, operations) in api["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys().filter(|name| *name != "parameters") {
            let query = if method == "patch" && path.ends_with('/') { "?id=1" } else { "" };
            let path = path.replace("{id}", "1") + query;
            let status = http(at, &method.to_uppercase(), &path, &[], b"").status;
            assert!(![405, 501].contains(&status), "{method} {path}: {status}");
        }
    }
}
