//! Tests of `define`: schema text → definitions or messages.

use super::{define, parse};
use crate::diagnostic::Diagnostics;
use shards::schema::*;

fn defined(texts: &[&str]) -> (Vec<TableDef>, Vec<String>) {
    let mut diagnostics = Diagnostics::default();
    let names = ["a", "b"];
    let documents: Vec<_> = texts.iter().zip(names).map(|(text, name)| parse(name, text, &mut diagnostics)).collect();
    (define(&documents, &mut diagnostics), diagnostics.lines())
}

fn one(text: &str) -> TableDef {
    let (mut tables, lines) = defined(&[text]);
    assert!(tables.len() == 1 && lines.is_empty(), "{text:?}: {lines:?}");
    tables.remove(0)
}

fn attribute(name: &str, kind: Kind) -> Attribute {
    Attribute { name: name.to_owned(), kind, required: false, indexed: false, role: Role::Plain, description: None }
}

fn everywhere(path: &str) -> Export {
    Export { path: path.to_owned(), rest: true, sse: true, ws: true, mqtt: true }
}

fn plain_table(name: &str, exports: Vec<Export>, attributes: Vec<Attribute>) -> TableDef {
    TableDef { exports, attributes, primary_key: Some(0), ..TableDef::new(name) }
}

#[test]
fn the_schema_of_the_getting_started_demo() {
    let text = "type Topics @table @export (name: \"\") {\n  id: ID @primaryKey\n  data: Object\n}\n\n\
                type Sensors @table @export {\n  id: ID @primaryKey\n  location: String\n  temp: Float\n}";
    let (tables, lines) = defined(&[text]);
    let topics = vec![attribute("id", Kind::Id), attribute("data", Kind::Any)];
    let sensors = vec![attribute("id", Kind::Id), attribute("location", Kind::String), attribute("temp", Kind::Float)];
    assert_eq!(
        tables,
        [
            plain_table("Topics", vec![everywhere("")], topics),
            plain_table("Sensors", vec![everywhere("Sensors")], sensors),
        ]
    );
    assert_eq!(lines, ["a:3:9: warning: type Object is not known: its values are not checked"]);
}

#[test]
fn the_schema_of_the_led_sign_demo() {
    let table = one("type Topics @table @export(name: \"\") {\n\ttopic: String @primaryKey\n\tvalue: String\n\
         \tupdated_at: Date @updatedTime @indexed\n}\n");
    let updated = Attribute { role: Role::UpdatedTime, indexed: true, ..attribute("updated_at", Kind::Date) };
    let attributes = vec![attribute("topic", Kind::String), attribute("value", Kind::String), updated];
    assert_eq!(table, plain_table("Topics", vec![everywhere("")], attributes));
}

#[test]
fn type_directives() {
    let table = one("\"d\" type T @table(table: \"t\", database: \"b\", durability: \"memory\") @sealed");
    assert_eq!((table.name.as_str(), table.database.as_str(), table.sealed), ("t", "b", true));
    assert_eq!((table.durability, table.description.as_deref()), (Durability::Memory, Some("d")));
    assert_eq!((table.exports.len(), table.primary_key), (0, None));
    assert_eq!(one("type T @table(schema: \"b\", durability: \"disk\")").database, "b");
    let table = one("type T @table(expiration: 1.5, deliver: \"committed\", retention: 60, retentionBytes: 1000)");
    assert_eq!((table.expiration_ms, table.deliver), (Some(1500), Deliver::Committed));
    assert_eq!(table.retention, Retention { window_us: 60_000_000, bytes: Some(1000) });
    let table = one("type T @table(expiration: 0)");
    assert_eq!((table.expiration_ms, table.deliver, table.retention), (None, Deliver::Applied, Retention::default()));

    for (arguments, expected) in [
        ("", everywhere("T")),
        ("(name: \"/a/b/\")", everywhere("a/b")),
        ("(name: \"/\")", everywhere("")),
        ("(rest: false)", Export { rest: false, ..everywhere("T") }),
        ("(name: \"x\" mqtt: false, ws: false sse: true)", Export { mqtt: false, ws: false, ..everywhere("x") }),
        ("(sse: false)", Export { sse: false, ..everywhere("T") }),
    ] {
        assert_eq!(one(&format!("type T @table @export{arguments}")).exports, [expected], "{arguments}");
    }
}

#[test]
fn field_types_and_directives() {
    let array = |kind, required| Kind::Array(Box::new(Element { kind, required }));
    for (field, expected) in [
        ("a: ID", attribute("a", Kind::Id)),
        ("a: Int", attribute("a", Kind::Int)),
        ("a: Long", attribute("a", Kind::Long)),
        ("a: Boolean", attribute("a", Kind::Boolean)),
        ("a: BigInt", attribute("a", Kind::BigInt)),
        ("a: Bytes", attribute("a", Kind::Bytes)),
        ("a: Blob", attribute("a", Kind::Blob)),
        ("a: Any", attribute("a", Kind::Any)),
        (
            "\"\"\"doc\"\"\" a: Date!",
            Attribute { required: true, description: Some("doc".to_owned()), ..attribute("a", Kind::Date) },
        ),
        ("a: [Int!]!", Attribute { required: true, ..attribute("a", array(Kind::Int, true)) }),
        ("a: [[Int]]", attribute("a", array(array(Kind::Int, false), false))),
        ("a: String @indexed", Attribute { indexed: true, ..attribute("a", Kind::String) }),
        ("a: Float @createdTime", Attribute { role: Role::CreatedTime, ..attribute("a", Kind::Float) }),
        ("a: Long @updatedTime", Attribute { role: Role::UpdatedTime, ..attribute("a", Kind::Long) }),
        ("__createdtime__: Long", Attribute { role: Role::CreatedTime, ..attribute("__createdtime__", Kind::Long) }),
        ("__updatedtime__: Long", Attribute { role: Role::UpdatedTime, ..attribute("__updatedtime__", Kind::Long) }),
    ] {
        assert_eq!(one(&format!("type T @table {{ {field} }}")).attributes, [expected], "{field}");
    }
}

#[test]
fn nested_types() {
    let (tables, lines) = defined(&[
        "type T @table { id: ID @primaryKey a: Address! list: [Address!] }",
        "type Address @sealed { street: String! geo: Geo } type Geo { x: Float } type Query { t: T @foo }",
    ]);
    let geo = Object { attributes: vec![attribute("x", Kind::Float)], sealed: false };
    let street = Attribute { required: true, ..attribute("street", Kind::String) };
    let address = Object { attributes: vec![street, attribute("geo", Kind::Object(geo))], sealed: true };
    assert!(tables.len() == 1 && lines.is_empty(), "{lines:?}");
    assert_eq!(tables[0].attributes[1].kind, Kind::Object(address.clone()));
    let element = Element { kind: Kind::Object(address), required: true };
    assert_eq!(tables[0].attributes[2].kind, Kind::Array(Box::new(element)));

    let (tables, lines) = defined(&["type T @table { n: Node } type Node { v: Int next: [Node] }"]);
    let next = Kind::Array(Box::new(Element { kind: Kind::Any, required: false }));
    let node = Object { attributes: vec![attribute("v", Kind::Int), attribute("next", next)], sealed: false };
    assert_eq!(tables[0].attributes[0].kind, Kind::Object(node));
    assert_eq!(lines, ["a:1:53: warning: type Node contains itself: its values are not checked"]);
}

#[test]
fn growth_is_bounded() {
    let chain: String = (0..40).map(|n| format!("type N{n} {{ a: N{} }} ", n + 1)).collect();
    let growing: String = (0..40)
        .map(|n| format!("type N{n} {{ a: N{next} b: N{next} c: N{next} d: N{next} }} ", next = n + 1))
        .collect();
    for (types, expected) in [(chain, "nested too deeply"), (growing, "too many attributes")] {
        let (_, lines) = defined(&[&format!("type T @table {{ a: N0 }} {types} type N40 {{ a: Int }}")]);
        assert!(lines.iter().any(|line| line.contains(expected)), "{lines:?}");
    }
    let many: String = (0..4097).map(|n| format!("type T{n} @table ")).collect();
    let (_, lines) = defined(&[&many]);
    assert!(lines.len() == 1 && lines[0].ends_with("too many tables (expected at most 4096)"), "{lines:?}");
}

#[test]
fn warnings() {
    for (text, expected) in [
        (
            "type T @table(eviction: 1.5)",
            "a:1:15: warning: @table(eviction:) has no effect: records vanish when they expire",
        ),
        ("type T @table(audit: true)", "a:1:15: warning: @table(audit:) is not supported, ignored"),
        ("type T @table @splitSegments", "a:1:16: warning: @splitSegments is not supported, ignored"),
        ("type T @table @replicate", "a:1:16: warning: @replicate is not supported, ignored"),
        ("type T @table @hidden", "a:1:16: warning: @hidden is not supported, ignored"),
        ("type T @export", "a:1:9: warning: @export has no effect on a type without @table, ignored"),
        ("type T @table { a: Int @hidden }", "a:1:25: warning: @hidden is not supported, ignored"),
        ("type T @table { a: Int @enumerable }", "a:1:25: warning: @enumerable is not supported, ignored"),
        ("type T @table { a: Int @allow(role: \"x\") }", "a:1:25: warning: @allow is not supported, ignored"),
        (
            "type T @table { a: Int @embed(source: \"b\", model: m) }",
            "a:1:25: warning: @embed is not supported, ignored",
        ),
        (
            "type T @table { a: [V] @relationship(from: b) }",
            "a:1:21: warning: @relationship is ignored: V is no table (did you mean T?)",
        ),
        (
            "type T @table { id: ID @primaryKey a: T @relationship(to: b) }",
            "a:1:59: warning: @relationship is ignored: b is no attribute of T (did you mean a?)",
        ),
        (
            "type T @table { a: T @relationship }",
            "a:1:23: warning: @relationship is ignored: neither `from` nor `to` is given",
        ),
        (
            "type T @table { a: ID b: T @relationship(from: a) }",
            "a:1:29: warning: @relationship is ignored: T has no @primaryKey",
        ),
        ("type T @table { a: Int @computed(from: \"b\") }", "a:1:25: warning: @computed is not supported, ignored"),
        (
            "type T @table { a: [Float] @indexed(type: \"HNSW\", M: 16) }",
            "a:1:37: warning: @indexed with arguments (a vector index) is not supported, ignored",
        ),
        ("type T @table { a: ID @primaryKey b: ID @primaryKey }", "a:1:42: warning: a second @primaryKey, ignored"),
        (
            "type T @table { a: Strng }",
            "a:1:20: warning: type Strng is not known (did you mean String?): its values are not checked",
        ),
        (
            "type T @table { a: U } type U @table",
            "a:1:20: warning: type U is a table (records of it are joined by @relationship): its values are not checked",
        ),
        (
            "type T @table { a: N } type N { b: ID @primaryKey }",
            "a:1:40: warning: @primaryKey has no effect in a type without @table, ignored",
        ),
    ] {
        assert_eq!(defined(&[text]).1, [expected], "{text}");
    }
    let (tables, _) = defined(&[
        "type T @table { a: Long! @expiresAt b: [U!]! @relationship(to: c) c: ID @indexed(type: \"HNSW\") }",
    ]);
    let seen: Vec<_> = tables[0].attributes.iter().map(|it| (it.role, it.indexed, it.required)).collect();
    assert_eq!(seen, [(Role::ExpiresAt, true, true), (Role::Virtual, false, false), (Role::Plain, false, false)]);
}

#[test]
fn errors() {
    for (text, expected) in [
        ("type T @tabel", "a:1:9: error: unknown directive @tabel (did you mean @table?)"),
        (
            "type T @table { a: ID @primarykey }",
            "a:1:24: error: unknown directive @primarykey (did you mean @primaryKey?)",
        ),
        ("type T @primaryKey", "a:1:9: error: @primaryKey does not belong here (expected after a field)"),
        ("type T @table { a: ID @sealed }", "a:1:24: error: @sealed does not belong here (expected after a type)"),
        ("type T @table @table", "a:1:16: error: @table is given twice"),
        ("type T @table(tabel: \"x\")", "a:1:15: error: unknown argument @table(tabel:) (did you mean table?)"),
        ("type T @table @sealed(a: 1)", "a:1:23: error: unknown argument @sealed(a:)"),
        ("type T @table(table: 1)", "a:1:22: error: @table(table:): found `1` (expected a string)"),
        ("type T @table(table: \"a\" table: \"b\")", "a:1:26: error: @table(table:) is given twice"),
        (
            "type T @table(table: \"a/b\")",
            "a:1:22: error: @table(table:): found \"a/b\" (expected a name without slashes)",
        ),
        (
            "type T @table(expiration: \"1h\")",
            "a:1:27: error: @table(expiration:): found \"1h\" (expected a number of seconds)",
        ),
        (
            "type T @table(expiration: -1)",
            "a:1:27: error: @table(expiration:): found `-1` (expected a number of seconds)",
        ),
        ("type T @table @export(mqtt: \"no\")", "a:1:29: error: @export(mqtt:): found \"no\" (expected true or false)"),
        (
            "type T @table(database: \"a\", schema: \"b\")",
            "a:1:30: error: @table(schema:) is another name of `database` (expected only one of them)",
        ),
        (
            "type T @table(durability: \"tape\")",
            "a:1:27: error: @table(durability:): \"tape\" is not known (expected \"disk\" or \"memory\")",
        ),
        (
            "type T @table(durability: \"cluster\")",
            "a:1:27: error: @table(durability:): \"cluster\" is not available yet (expected \"disk\" or \"memory\")",
        ),
        (
            "type T @table @export(name: \"a/+\")",
            "a:1:29: error: @export(name:): \"a/+\" has a character that topics cannot have (expected a path without `+`, `#` and NUL)",
        ),
        (
            "type T @table @export(name: \"/$SYS\")",
            "a:1:29: error: @export(name:): \"$SYS\" is reserved for the server (expected a path that does not begin with `$`)",
        ),
        ("type T @table type T", "a:1:20: error: type T is defined twice (first at a:1:6)"),
        ("type T @table type U @table(table: \"T\")", "a:1:20: error: table data.T is declared twice (first at a:1:6)"),
        (
            "type T @table @export type U @table @export(name: \"T/\")",
            "a:1:51: error: two tables are exported at `/T` (first at a:1:16)",
        ),
        ("type T @table { a: ID a: Int }", "a:1:23: error: T has two attributes named a"),
        (
            "type T @table { a: Int @createdTime @updatedTime }",
            "a:1:38: error: a cannot be both @createdTime and @updatedTime",
        ),
        (
            "type T @table { a: [ID] @primaryKey }",
            "a:1:26: error: a cannot be the primary key (expected a scalar type such as ID)",
        ),
    ] {
        assert_eq!(defined(&[text]).1, [expected], "{text}");
    }
    let across = defined(&["type T @table", "type T @table"]).1;
    assert_eq!(across, ["b:1:6: error: type T is defined twice (first at a:1:6)"]);
    assert_eq!(defined(&["type T @tabel @exprt { a: ID @foo }"]).1.len(), 3, "all errors are collected");
}
