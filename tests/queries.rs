//! Promise: a query finds what a plain reading of it finds, whatever indexes there are, on any number of shards, before
//! and after a restart; and what it cannot do it says, with the place.

mod common;

use common::{Options, Response, Server, get, http, put_json};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use tempfile::TempDir;

const ATTRIBUTES: &str = "id: ID @primaryKey\n n: Int I\n f: Float\n s: String I\n b: Boolean I\n d: Date I\n \
                          tags: [String] I\n place: Place\n";

fn schema() -> String {
    let table = |name: &str, index: &str| {
        let attributes = ATTRIBUTES.replace(" I\n", &format!(" {index}\n"));
        format!("type {name} @table @export {{\n {attributes}}}\n")
    };
    let place = "type Place { city: String zip: Int }\n";
    let numbers = "type Numbers @table @export { id: Int @primaryKey n: Int @indexed }\n";
    [table("Indexed", "@indexed").as_str(), &table("Plain", ""), place, numbers].concat()
}

fn start(shards: usize) -> (TempDir, Server) {
    let dir = TempDir::with_prefix("tablecast-queries-").expect("make a folder");
    common::server::write_app(dir.path(), &schema());
    let server = Server::start(Options { app: Some(dir.path().to_owned()), ..Options::default() }.shards(shards));
    (dir, server)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

const TEXTS: [&str; 8] = ["", "a", "ab", "abc", "b", "ä/&|", "zz\u{0}", "null"];

fn text(random: &mut Random) -> Value {
    match random.below(12) {
        0 => Value::String(format!("{}{}", "long".repeat(80), random.below(3))),
        _ => (*random.one(&TEXTS)).into(),
    }
}

fn date(random: &mut Random) -> Value {
    format!("2026-01-0{}T00:00:00.000Z", 1 + random.below(9)).into()
}

fn value(random: &mut Random, attribute: &str) -> Value {
    match attribute {
        "n" => (random.below(12) as i64 - 6).into(),
        "f" => (random.below(9) as f64 / 2.0 - 2.0).into(),
        "s" => text(random),
        "b" => (random.below(2) == 0).into(),
        "d" => date(random),
        "tags" => (0..random.below(4)).map(|_| text(random)).collect(),
        _ => {
            let mut place = json!({ "city": text(random) });
            if random.below(2) == 0 {
                place["zip"] = random.below(5).into();
            }
            place
        }
    }
}

const NAMES: [&str; 7] = ["n", "f", "s", "b", "d", "tags", "place"];

fn document(random: &mut Random, id: u64) -> Value {
    let mut document = json!({ "id": format!("{id:03}") });
    for name in NAMES {
        match random.below(8) {
            0 => {}
            1 => document[name] = Value::Null,
            _ => document[name] = value(random, name),
        }
    }
    document
}

/// What is asked, in a form of this test's own.
enum Asked {
    Test(&'static str, &'static str, Value),
    All(Vec<Asked>),
    Any(Vec<Asked>),
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl Asked {
    fn random(random: &mut Random, depth: u64) -> Asked {
        if depth > 0 && random.below(2) == 0 {
            let parts = (0..1 + random.below(3)).map(|_| Asked::random(random, depth - 1)).collect();
            return if random.below(2) == 0 { Asked::All(parts) } else { Asked::Any(parts) };
        }
        let name = *random.one(&["n", "f", "s", "b", "d", "tags", "place.city", "place.zip", "id"]);
        let own = match name {
            "id" => format!("{:03}", random.below(60)).into(),
            "tags" | "place.city" => text(random),
            "place.zip" => random.below(5).into(),
            name => value(random, name),
        };
        let texts = matches!(name, "s" | "tags" | "place.city" | "id");
        let operators: &[&str] = match name {
            "b" => &["==", "!="],
            _ if texts => &["==", "!=", "=lt=", "=le=", "=gt=", "=ge=", "=ct=", "=sw=", "=ew="],
            _ => &["==", "!=", "<", "<=", ">", ">="],
        };
        let operator = *random.one(operators);
        let is_null = random.below(10) == 0 && matches!(operator, "==" | "!=");
        Asked::Test(name, operator, if is_null { Value::Null } else { own })
    }

    fn text(&self) -> String {
        let join = |parts: &[Asked], by: &str| parts.iter().map(Asked::text).collect::<Vec<_>>().join(by);
        match self {
            Asked::All(parts) => format!("({})", join(parts, "&")),
            Asked::Any(parts) => format!("({})", join(parts, "|")),
            Asked::Test(name, operator, value) => {
                let value = match value {
                    Value::String(text) if matches!(*operator, "=ct=" | "=sw=" | "=ew=") || *name == "d" => {
                        encode(text)
                    }
                    Value::String(text) => format!("string:{}", encode(text)),
                    other => other.to_string(),
                };
                format!("{name}{operator}{value}")
            }
        }
    }

    fn holds(&self, document: &Value) -> bool {
        match self {
            Asked::All(parts) => parts.iter().all(|part| part.holds(document)),
            Asked::Any(parts) => parts.iter().any(|part| part.holds(document)),
            Asked::Test(name, operator, wanted) => {
                let mut found = Vec::new();
                gather(document, &name.split('.').collect::<Vec<_>>(), &mut found);
                if *operator == "!=" {
                    return !found.contains(wanted);
                }
                found.iter().any(|own| compares(own, operator, wanted))
            }
        }
    }
}

fn gather(value: &Value, path: &[&str], found: &mut Vec<Value>) {
    match (value, path) {
        (Value::Array(elements), _) => elements.iter().for_each(|element| gather(element, path, found)),
        (Value::Object(map), [name, rest @ ..]) => gather(map.get(*name).unwrap_or(&Value::Null), rest, found),
        (Value::Object(_), []) => {}
        (scalar, []) => found.push(scalar.clone()),
        _ => found.push(Value::Null),
    }
}

fn compares(own: &Value, operator: &str, wanted: &Value) -> bool {
    use std::cmp::Ordering;
    let order = match (own, wanted) {
        (Value::Number(own), Value::Number(wanted)) => own.as_f64().partial_cmp(&wanted.as_f64()),
        (Value::String(own), Value::String(wanted)) => match operator {
            "=ct=" => return own.contains(wanted.as_str()),
            "=sw=" => return own.starts_with(wanted.as_str()),
            "=ew=" => return own.ends_with(wanted.as_str()),
            _ => Some(own.cmp(wanted)),
        },
        (own, wanted) if operator == "==" => return own == wanted,
        _ => None,
    };
    match operator {
        "==" => order == Some(Ordering::Equal),
        "<" | "=lt=" => order == Some(Ordering::Less),
        "<=" | "=le=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        ">" | "=gt=" => order == Some(Ordering::Greater),
        ">=" | "=ge=" => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        _ => false,
    }
}

fn ask(at: SocketAddr, table: &str, query: &str) -> Vec<Value> {
    let response = get(at, &format!("/{table}/?{query}"));
    assert_eq!(response.status, 200, "{table} {query}: {}", response.text());
    match response.json() {
        Value::Array(rows) => rows,
        other => panic!("{table} {query}: {other}"),
    }
}

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
}

/// The least value of an attribute, as one sorts by it.
fn sort_value(document: &Value, name: &str) -> (u8, i64, String) {
    match &document[name] {
        Value::Null => (0, 0, String::new()),
        Value::Bool(flag) => (1, i64::from(*flag), String::new()),
        Value::Number(number) => (2, (number.as_f64().expect("a number") * 2.0) as i64, String::new()),
        Value::String(text) => (4, 0, text.clone()),
        other => panic!("{other}"),
    }
}

fn compare_all(at: SocketAddr, documents: &[Value], random: &mut Random, rounds: usize) {
    for _ in 0..rounds {
        let asked = Asked::random(random, 2);
        let query = asked.text();
        let wanted: BTreeSet<String> =
            ids(&documents.iter().filter(|own| asked.holds(own)).cloned().collect::<Vec<_>>()).into_iter().collect();
        for table in ["Indexed", "Plain"] {
            let found = ids(&ask(at, table, &query));
            let unique: BTreeSet<String> = found.iter().cloned().collect();
            assert_eq!(unique.len(), found.len(), "{table} {query}: some record twice");
            assert_eq!(unique, wanted, "{table} {query}");
        }
        // In order, and a part of it.
        let (name, descending) = (*random.one(&["n", "f", "s", "b", "d", "id"]), random.below(2) == 0);
        let mut sorted: Vec<&Value> = documents.iter().filter(|own| asked.holds(own)).collect();
        sorted.sort_by_key(|own| (sort_value(own, name), own["id"].to_string()));
        if descending {
            sorted.reverse();
        }
        let (from, count) = (random.below(5) as usize, 1 + random.below(20) as usize);
        let part: Vec<Value> = sorted.into_iter().skip(from).take(count).cloned().collect();
        let sign = if descending { "-" } else { "+" };
        for table in ["Indexed", "Plain"] {
            let query = format!("{query}&sort({sign}{name})&limit({from},{})", from + count);
            assert_eq!(ids(&ask(at, table, &query)), ids(&part), "{table} {query}");
        }
    }
}

fn put_all(at: SocketAddr, documents: &[Value]) {
    for document in documents {
        for table in ["Indexed", "Plain"] {
            let path = format!("/{table}/{}", document["id"].as_str().expect("an id"));
            assert_eq!(put_json(at, &path, document).status, 204, "{document}");
        }
    }
}

/// Random documents and queries against a naive evaluator: with and without indexes, on 1, 2 and 4 shards, after
/// changes, and after a restart.
#[test]
fn as_a_plain_reading_says() {
    for shards in [1, 2, 4] {
        let (_dir, mut server) = start(shards);
        let mut random = Random(shards as u64);
        let mut documents: Vec<Value> = (0..60).map(|id| document(&mut random, id)).collect();
        put_all(server.http(), &documents);
        compare_all(server.http(), &documents, &mut random, 200);
        for id in 0..30 {
            documents[id as usize] = document(&mut random, id);
        }
        put_all(server.http(), &documents[..30]);
        let gone = documents.split_off(55);
        for document in &gone {
            for table in ["Indexed", "Plain"] {
                let path = format!("/{table}/{}", document["id"].as_str().expect("an id"));
                assert_eq!(http(server.http(), "DELETE", &path, &[], b"").status, 200);
            }
        }
        compare_all(server.http(), &documents, &mut random, 100);
        server.restart();
        compare_all(server.http(), &documents, &mut random, 100);
    }
}

fn plan(at: SocketAddr, path: &str) -> Value {
    get(at, path).json()
}

#[test]
fn the_planner_says_what_it_does() {
    let (_dir, server) = start(2);
    let at = server.http();
    let documents: Vec<Value> =
        (0..200).map(|n| json!({ "id": format!("{n:03}"), "n": n, "s": format!("s{}", n % 10), "f": n })).collect();
    put_all(at, &documents);
    for (query, by, attribute) in [
        ("n=17&explain", "index", "n"),
        ("n=17&s=s7&explain", "index", "n"),
        ("s=s7&f=gt=0&explain", "index", "s"),
        ("(n=1|n=5)&explain", "index", "n"),
        ("s==s7*&n=gt=190&explain", "index", "n"),
        ("f=17&explain", "scan", ""),
        ("id=017&explain", "key", ""),
        ("id=gt=100&explain", "key", ""),
        ("sort(-n)&limit(3)&explain", "index", "n"),
        ("explain", "scan", ""),
    ] {
        let plan = plan(at, &format!("/Indexed/?{query}"));
        let wanted = if attribute.is_empty() { Value::Null } else { attribute.into() };
        assert_eq!((&plan["by"], &plan["attribute"]), (&by.into(), &wanted), "{query}: {plan}");
    }
    assert_eq!(ids(&ask(at, "Indexed", "sort(-n)&limit(3)")), ["199", "198", "197"]);
    assert_eq!(ids(&ask(at, "Indexed", "id==01*&limit(2)")), ["010", "011"]);
    assert_eq!(ask(at, "Indexed", "id=ge=198").len(), 2);
}

#[test]
fn keys_that_are_numbers() {
    let (_dir, server) = start(2);
    let at = server.http();
    for n in -5..20_i64 {
        assert_eq!(put_json(at, &format!("/Numbers/{n}"), &json!({ "n": n * 2 })).status, 204);
    }
    let keys = |query: &str| -> Vec<i64> {
        ask(at, "Numbers", query).iter().map(|row| row["id"].as_i64().expect("a number")).collect()
    };
    assert_eq!(keys("id=gt=-3&lt=2"), [-2, -1, 0, 1]);
    assert_eq!(keys("id=gt=17.5"), [18, 19]);
    assert_eq!(keys("id=le=-4"), [-5, -4]);
    assert_eq!(keys("sort(-id)&limit(2)"), [19, 18]);
    assert_eq!(keys("(id=3|id=7|id=99)"), [3, 7]);
    assert_eq!(keys("n=gt=30&sort(-n)"), [19, 18, 17, 16]);
}

#[test]
fn what_is_selected() {
    let (_dir, server) = start(2);
    let at = server.http();
    let document = json!({ "id": "1", "n": 7, "s": "x", "place": { "city": "Ulm", "zip": 5 } });
    put_all(at, std::slice::from_ref(&document));
    let rows = |query: &str| Value::Array(ask(at, "Plain", query));
    assert_eq!(rows("select(n)"), json!([7]));
    assert_eq!(rows("select(n,)"), json!([{ "n": 7 }]));
    assert_eq!(rows("select(s,n)"), json!([{ "s": "x", "n": 7 }]));
    assert_eq!(rows("select([n,f])"), json!([[7, null]]));
    assert_eq!(rows("select($id,place{city})"), json!([{ "$id": "1", "place": { "city": "Ulm" } }]));
    assert_eq!(rows("select(place.zip)"), json!([5]));
    assert!(rows("select($updatedtime)")[0].as_f64().is_some_and(|at| at > 1.7e12));
    assert_eq!(get(at, "/Plain/1?select(n,s)").json(), json!({ "n": 7, "s": "x" }));
    assert_eq!(rows("limit(0)"), json!([]));
}

fn refused(response: &Response, status: u16, words: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert!(response.text().contains(words), "{}", response.text());
}

#[test]
fn mistakes_are_named() {
    let (_dir, server) = start(1);
    let at = server.http();
    refused(&get(at, "/Plain/?n=gt=x"), 400, "position 5: `x`: n is a number");
    refused(&get(at, "/Plain/?n=1&s=2|s=3"), 400, "parentheses");
    refused(&get(at, "/Plain/1?n=1"), 400, "collection");
    refused(&http(at, "DELETE", "/Plain/?limit(3)", &[], b""), 400, "limit");
    refused(&http(at, "PUT", "/Plain/1?n=1", &[("Content-Type", "application/json")], b"{}"), 400, "collection");
    // A sort without an index holds so much and no more.
    assert_eq!(get(at, "/Plain/?sort(n)").status, 200);
}

#[test]
fn what_a_query_finds_is_changed_or_deleted() {
    let (_dir, server) = start(2);
    let at = server.http();
    let documents: Vec<Value> = (0..100).map(|n| json!({ "id": format!("{n:03}"), "n": n % 7, "s": "old" })).collect();
    put_all(at, &documents);
    for table in ["Indexed", "Plain"] {
        let headers = [("Content-Type", "application/json")];
        let patch = http(at, "PATCH", &format!("/{table}/?n=3"), &headers, br#"{"s":"new"}"#);
        assert_eq!(patch.status, 204, "{}", patch.text());
        assert_eq!(ask(at, table, "s=new").len(), 14);
        assert!(ask(at, table, "s=new").iter().all(|row| row["n"] == 3));
        let delete = http(at, "DELETE", &format!("/{table}/?n=gt=3&s=old"), &[], b"");
        assert_eq!((delete.status, delete.text().as_str()), (200, "true"));
        assert_eq!(ask(at, table, "").len(), 100 - 3 * 14);
        assert_eq!(ask(at, table, "n=ge=4").len(), 0);
    }
}
