//! Tables of what is sent and what is stored, or refused.

use super::*;
use crate::schema::Element;

fn attribute(name: &str, kind: Kind) -> Attribute {
    Attribute { name: name.into(), kind, required: false, indexed: false, role: Role::Plain, description: None }
}

fn table(attributes: Vec<Attribute>) -> TableDef {
    TableDef {
        primary_key: attributes.iter().position(|attribute| attribute.name == "id"),
        attributes,
        ..TableDef::new("T")
    }
}

/// Builds documents tersely: `doc(&[("a", &|out| out.write_int(1))])`.
type Put<'a> = &'a dyn Fn(&mut Vec<u8>);

fn doc(pairs: &[(&str, Put<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    out.write_map(pairs.len() as u32);
    for (name, value) in pairs {
        out.write_str(name);
        value(&mut out);
    }
    out
}

fn build(table: &TableDef, mode: Mode, previous: Option<&[u8]>, sent: &[u8]) -> Result<Vec<u8>, Vec<Violation>> {
    let mut out = Vec::new();
    let codec = KeyCodec::of(table);
    let subject = Subject { table, codec, key: b"k", mode, previous, version: Version(1_500_000) };
    Builder::default().build(&subject, sent, &mut out).map(|is_as_sent| {
        assert_eq!(is_as_sent, out == sent);
        out
    })
}

#[test]
fn the_key_is_set_and_order_is_kept() {
    let table = table(vec![attribute("id", Kind::Id), attribute("temp", Kind::Float)]);
    let sent = doc(&[("temp", &|o| o.write_int(3)), ("x", &|o| o.write_null())]);
    let expected = doc(&[("temp", &|o| o.write_int(3)), ("x", &|o| o.write_null()), ("id", &|o| o.write_str("k"))]);
    assert_eq!(build(&table, Mode::Replace, None, &sent), Ok(expected));
    let sent = doc(&[("id", &|o| o.write_str("other")), ("temp", &|o| o.write_int(3))]);
    let expected = doc(&[("id", &|o| o.write_str("k")), ("temp", &|o| o.write_int(3))]);
    assert_eq!(build(&table, Mode::Replace, None, &sent), Ok(expected));
}

#[test]
fn a_name_given_twice_takes_the_last_value() {
    let table = table(vec![]);
    let sent = doc(&[("a", &|o| o.write_int(1)), ("a", &|o| o.write_int(2))]);
    assert_eq!(build(&table, Mode::Replace, None, &sent), Ok(doc(&[("a", &|o| o.write_int(2))])));
}

#[test]
fn a_patch_merges_shallowly_and_keeps_places() {
    let table = table(vec![attribute("id", Kind::Id)]);
    let stored = doc(&[("a", &|o| o.write_int(1)), ("b", &|o| o.write_int(2)), ("id", &|o| o.write_str("k"))]);
    let sent = doc(&[("c", &|o| o.write_int(3)), ("a", &|o| o.write_int(9))]);
    let expected = doc(&[
        ("a", &|o| o.write_int(9)),
        ("b", &|o| o.write_int(2)),
        ("id", &|o| o.write_str("k")),
        ("c", &|o| o.write_int(3)),
    ]);
    assert_eq!(build(&table, Mode::Merge, Some(&stored), &sent), Ok(expected));
    let created = doc(&[("c", &|o| o.write_int(3)), ("a", &|o| o.write_int(9)), ("id", &|o| o.write_str("k"))]);
    assert_eq!(build(&table, Mode::Merge, None, &sent), Ok(created));
}

#[test]
fn times_are_the_servers() {
    let mut created = attribute("created", Kind::Float);
    created.role = Role::CreatedTime;
    let mut updated = attribute("updated", Kind::Date);
    updated.role = Role::UpdatedTime;
    let table = table(vec![created, updated]);
    let sent = doc(&[("updated", &|o| o.write_str("never"))]);
    let first = build(&table, Mode::Replace, None, &sent).unwrap();
    let date = Date { seconds: 1, nanos: 500_000_000 };
    let expected = doc(&[("updated", &|o| o.write_date(date)), ("created", &|o| o.write_float(1500.0))]);
    assert_eq!(first, expected);
    let stored = doc(&[("created", &|o| o.write_float(7.0))]);
    let second = build(&table, Mode::Replace, Some(&stored), &doc(&[])).unwrap();
    assert_eq!(second, doc(&[("created", &|o| o.write_float(7.0)), ("updated", &|o| o.write_date(date))]));
}

#[test]
fn values_are_coerced_or_refused() {
    let date = Date { seconds: 0, nanos: 0 };
    let array = Kind::Array(Box::new(Element { kind: Kind::Int, required: true }));
    let ok: &[(Kind, Put<'_>, Put<'_>)] = &[
        (Kind::Int, &|o| o.write_float(20.0), &|o| o.write_int(20)),
        (Kind::Date, &|o| o.write_str("1970-01-01T00:00:00Z"), &|o| o.write_date(date)),
        (Kind::Date, &|o| o.write_int(0), &|o| o.write_date(date)),
        (Kind::BigInt, &|o| o.write_str("18446744073709551615"), &|o| o.write_uint(u64::MAX)),
        (Kind::Bytes, &|o| o.write_str("hi"), &|o| o.write_bytes(b"hi")),
        (Kind::Float, &|o| o.write_int(20), &|o| o.write_int(20)),
        (Kind::Any, &|o| o.write_bool(true), &|o| o.write_bool(true)),
        (Kind::String, &|o| o.write_null(), &|o| o.write_null()),
    ];
    for (kind, sent, stored) in ok {
        let table = table(vec![attribute("p", kind.clone())]);
        assert_eq!(build(&table, Mode::Replace, None, &doc(&[("p", sent)])), Ok(doc(&[("p", stored)])), "{kind:?}");
    }
    let wrong: &[(Kind, Put<'_>)] = &[
        (Kind::String, &|o| o.write_int(7)),
        (Kind::Float, &|o| o.write_str("12.5")),
        (Kind::Int, &|o| o.write_int(1 << 31)),
        (Kind::Int, &|o| o.write_float(1.5)),
        (Kind::Long, &|o| o.write_int((1 << 53) + 1)),
        (Kind::Boolean, &|o| o.write_int(1)),
        (Kind::Date, &|o| o.write_str("soon")),
        (Kind::BigInt, &|o| o.write_str("x")),
        (Kind::Bytes, &|o| o.write_int(1)),
        (array, &|o| o.write_str("x")),
        (Kind::Id, &|o| o.write_array(0)),
    ];
    for (kind, sent) in wrong {
        let table = table(vec![attribute("p", kind.clone())]);
        let refused = build(&table, Mode::Replace, None, &doc(&[("p", sent)])).unwrap_err();
        assert!(matches!(refused[0].rule, Rule::MustBe { .. }), "{kind:?}");
    }
}

#[test]
fn all_violations_are_collected_in_schema_order() {
    let mut required = attribute("n", Kind::Int);
    required.required = true;
    let inner = Object { attributes: vec![attribute("deep", Kind::Float)], sealed: true };
    let mut table = table(vec![attribute("id", Kind::Id), required, attribute("o", Kind::Object(inner))]);
    table.sealed = true;
    let sent = doc(&[
        ("extra", &|o| o.write_int(1)),
        ("o", &|o| {
            o.write_map(2);
            o.write_str("deep");
            o.write_bool(true);
            o.write_str("odd");
            o.write_null();
        }),
    ]);
    let found: Vec<_> = build(&table, Mode::Replace, None, &sent)
        .unwrap_err()
        .into_iter()
        .map(|violation| violation.property)
        .collect();
    assert_eq!(found, ["n", "o.deep", "o.odd", "extra"]);
    // A patch is checked only where it says something.
    assert!(build(&table, Mode::Merge, None, &doc(&[])).is_ok());
}
