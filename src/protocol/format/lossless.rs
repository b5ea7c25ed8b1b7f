//! JSON in which every document survives exactly: the form of exported records. What JSON cannot say is an object with
//! one member whose name begins with `$`:
//!
//! | value | form |
//! |-------|------|
//! | date | `{"$date":"2026-11-21T22:53:36.123Z"}`; beyond six digits of year `{"$date":[seconds since 1970, nanoseconds]}` |
//! | bytes | `{"$bytes":"base64"}` (RFC 4648 §4, padded) |
//! | not a number, the infinities | `{"$float":"NaN"}`, `{"$float":"Infinity"}`, `{"$float":"-Infinity"}` |
//! | a map that looks like one of these, or like `{"type":"Buffer","data":…}` | `{"$map":[["name",value],…]}` |
//!
//! Plain JSON is read as everywhere else (`json.rs`).

use super::json::{buffer, write_float, write_json_text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use shards::date::{parse_iso, write_iso};
use shards::document::{Date, Reader, Token, Writer};
use shards::limits::DOCUMENT_DEPTH_MAX;
use simd_json::{Node, StaticNode};

const DATE: &str = "$date";
const BYTES: &str = "$bytes";
const FLOAT: &str = "$float";
const MAP: &str = "$map";

/// Appends a document on one line.
pub fn write_lossless(document: &[u8], out: &mut Vec<u8>) {
    if write_value(&mut Reader::new(document), out).is_none() {
        debug_assert!(false, "documents are checked when they come in");
    }
}

fn write_value(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    match reader.next()? {
        Token::Null => out.extend_from_slice(b"null"),
        Token::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Token::Int(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Token::Uint(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Token::Float(value) if value.is_finite() => write_float(value, out),
        Token::Float(value) => {
            let name = if value.is_nan() { "NaN" } else { ["Infinity", "-Infinity"][usize::from(value < 0.0)] };
            write_form(FLOAT, out, |out| write_json_text(name, out));
        }
        Token::Str(text) => write_json_text(text, out),
        Token::Bytes(bytes) => write_form(BYTES, out, |out| write_json_text(&BASE64.encode(bytes), out)),
        Token::Date(date) => write_form(DATE, out, |out| {
            let mut text = String::new();
            write_iso(date, &mut text);
            if parse_iso(&text) == Some(date) {
                return write_json_text(&text, out);
            }
            let mut list = Vec::new();
            list.write_array(2);
            list.write_int(date.seconds);
            list.write_int(date.nanos.into());
            super::write_json(&list, out);
        }),
        Token::Array(count) => {
            out.push(b'[');
            for index in 0..count {
                if index > 0 {
                    out.push(b',');
                }
                write_value(reader, out)?;
            }
            out.push(b']');
        }
        Token::Map(count) => {
            let escaped = looks_special(reader.clone(), count);
            out.extend_from_slice(if escaped { b"{\"$map\":[" } else { b"{" });
            for index in 0..count {
                if index > 0 {
                    out.push(b',');
                }
                if escaped {
                    out.push(b'[');
                }
                write_json_text(reader.key()?, out);
                out.push(if escaped { b',' } else { b':' });
                write_value(reader, out)?;
                if escaped {
                    out.push(b']');
                }
            }
            out.extend_from_slice(if escaped { b"]}" } else { b"}" });
        }
    }
    Some(())
}

fn write_form(name: &str, out: &mut Vec<u8>, value: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'{');
    write_json_text(name, out);
    out.push(b':');
    value(out);
    out.push(b'}');
}

/// Whether a map would be read as something else.
fn looks_special(mut content: Reader<'_>, count: u32) -> bool {
    match (count, content.key()) {
        (1, Some(name)) => name.starts_with('$'),
        (2, Some("type")) => content.next() == Some(Token::Str("Buffer")),
        _ => false,
    }
}

/// Appends the canonical form of what stands on a tape. The error says what is wrong.
pub(super) fn read(nodes: &[Node<'_>], out: &mut Vec<u8>) -> Result<(), String> {
    value(nodes, 0, 0, out).map(|_| ())
}

/// Reads the value at `at`; gives the place behind it.
fn value(nodes: &[Node<'_>], at: usize, depth: usize, out: &mut Vec<u8>) -> Result<usize, String> {
    let Some(node) = nodes.get(at) else { return Err("it ends too early".to_owned()) };
    if depth > DOCUMENT_DEPTH_MAX {
        return Err(format!("nested more than {DOCUMENT_DEPTH_MAX} levels deep"));
    }
    match *node {
        Node::String(text) => out.write_str(text),
        Node::Static(StaticNode::Null) => out.write_null(),
        Node::Static(StaticNode::Bool(value)) => out.write_bool(value),
        Node::Static(StaticNode::I64(value)) => out.write_int(value),
        Node::Static(StaticNode::U64(value)) => out.write_uint(value),
        Node::Static(StaticNode::F64(value)) => out.write_float(value),
        Node::Array { len, .. } => {
            out.write_array(len as u32);
            return (0..len).try_fold(at + 1, |at, _| value(nodes, at, depth + 1, out));
        }
        Node::Object { len, .. } => {
            if let Some(after) = buffer(nodes, at, len, out) {
                return Ok(after);
            }
            if let (1, Some(Node::String(name))) = (len, nodes.get(at + 1))
                && name.starts_with('$')
            {
                return form(nodes, name, at + 2, depth, out);
            }
            out.write_map(len as u32);
            return (0..len).try_fold(at + 1, |at, _| {
                if let Some(Node::String(name)) = nodes.get(at) {
                    out.write_str(name);
                }
                value(nodes, at + 1, depth + 1, out)
            });
        }
    }
    Ok(at + 1)
}

/// Reads the value of `{"$name":value}`.
fn form(nodes: &[Node<'_>], name: &str, at: usize, depth: usize, out: &mut Vec<u8>) -> Result<usize, String> {
    let rest = nodes.get(at..).unwrap_or_default();
    match (name, rest) {
        (DATE, [Node::String(text), ..]) => {
            out.write_date(parse_iso(text).ok_or_else(|| format!("{DATE}: {text:?} is not a date"))?);
            Ok(at + 1)
        }
        (DATE, [Node::Array { len: 2, .. }, Node::Static(seconds), Node::Static(nanos), ..]) => {
            let date = integer(*seconds).zip(integer(*nanos)).and_then(|(seconds, nanos)| {
                let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
                Some(Date { seconds, nanos })
            });
            out.write_date(date.ok_or_else(|| format!("{DATE}: expected [seconds, nanoseconds]"))?);
            Ok(at + 3)
        }
        (BYTES, [Node::String(text), ..]) => {
            out.write_bytes(&BASE64.decode(text).map_err(|error| format!("{BYTES}: not base64: {error}"))?);
            Ok(at + 1)
        }
        (FLOAT, [Node::String(text), ..]) => {
            out.write_float(match *text {
                "NaN" => f64::NAN,
                "Infinity" => f64::INFINITY,
                "-Infinity" => f64::NEG_INFINITY,
                other => return Err(format!("{FLOAT}: expected NaN, Infinity or -Infinity, found {other:?}")),
            });
            Ok(at + 1)
        }
        (MAP, [Node::Array { len, .. }, ..]) => {
            out.write_map(*len as u32);
            (0..*len).try_fold(at + 1, |at, _| match nodes.get(at..) {
                Some([Node::Array { len: 2, .. }, Node::String(name), ..]) => {
                    out.write_str(name);
                    value(nodes, at + 2, depth + 1, out)
                }
                _ => Err(format!("{MAP}: expected a list of [name, value]")),
            })
        }
        (DATE | BYTES | FLOAT | MAP, _) => Err(format!("{name}: its value is not of the expected kind")),
        _ => Err(format!("{name} is not known (expected {DATE}, {BYTES}, {FLOAT} or {MAP})")),
    }
}

fn integer(node: StaticNode) -> Option<i64> {
    match node {
        StaticNode::I64(value) => Some(value),
        StaticNode::U64(value) => i64::try_from(value).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, tests::document};
    use super::*;
    use proptest::prelude::*;

    fn back(json: &str) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        Decoder::default().decode_lossless(json.as_bytes(), &mut out).map_err(|error| error.to_string())?;
        Ok(out)
    }

    fn survives(document: &[u8]) -> String {
        let mut json = Vec::new();
        write_lossless(document, &mut json);
        let json = String::from_utf8(json).unwrap();
        assert_eq!(back(&json).as_deref(), Ok(document), "{json}");
        json
    }

    fn one(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    proptest! {
        #[test]
        fn any_document_survives(document in document(3)) {
            survives(&document);
        }

        #[test]
        fn any_date_and_float_survive(seconds: i64, nanos in 0u32..1_000_000_000, bits: u64) {
            survives(&one(|out| out.write_date(Date { seconds, nanos })));
            survives(&one(|out| out.write_date(Date { seconds: seconds >> 30, nanos })));
            let float = f64::from_bits(bits);
            survives(&one(|out| out.write_float(if float.is_nan() { f64::NAN } else { float })));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[\\[\\]{}$:,\"a-z0-9]{0,60}") {
            let _ = back(&text);
        }
    }

    #[test]
    fn what_looks_like_something_else_stays_what_it_is() {
        let date = Date { seconds: 0, nanos: 1_000_000 };
        let cases = [
            (one(|out| out.write_date(date)), r#"{"$date":"1970-01-01T00:00:00.001Z"}"#),
            (one(|out| out.write_bytes(&[0, 255])), r#"{"$bytes":"AP8="}"#),
            (one(|out| out.write_float(f64::INFINITY)), r#"{"$float":"Infinity"}"#),
            (one(|out| out.write_float(20.0)), "20.0"),
            (one(|out| out.write_float(-0.0)), "-0.0"),
            (one(|out| out.write_uint(u64::MAX)), "18446744073709551615"),
            (one(|out| out.write_int(i64::MIN)), "-9223372036854775808"),
            (
                one(|out| {
                    out.write_map(1);
                    out.write_str("$date");
                    out.write_str("x");
                }),
                r#"{"$map":[["$date","x"]]}"#,
            ),
            (
                one(|out| {
                    out.write_map(2);
                    out.write_str("type");
                    out.write_str("Buffer");
                    out.write_str("data");
                    out.write_array(1);
                    out.write_int(1);
                }),
                r#"{"$map":[["type","Buffer"],["data",[1]]]}"#,
            ),
        ];
        for (document, json) in cases {
            assert_eq!(survives(&document), json);
        }
        assert_eq!(back(r#"{"type":"Buffer","data":[1,2]}"#), Ok(one(|out| out.write_bytes(&[1, 2]))));
    }

    #[test]
    fn the_deepest_document_survives() {
        let mut deepest = one(|out| (0..DOCUMENT_DEPTH_MAX).for_each(|_| out.write_array(1)));
        deepest.write_date(Date { seconds: 1, nanos: 0 });
        assert!(shards::document::is_well_formed(&deepest));
        survives(&deepest);
        assert!(back(&format!("{}1{}", "[".repeat(65), "]".repeat(65))).is_err());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (json, what) in [
            (r#"{"$date":"hello"}"#, "$date: \"hello\" is not a date"),
            (r#"{"$date":[1,1000000000]}"#, "$date: expected [seconds, nanoseconds]"),
            (r#"{"$bytes":"*"}"#, "$bytes: not base64"),
            (r#"{"$float":"1"}"#, "$float: expected NaN"),
            (r#"{"$map":[["a"]]}"#, "$map: expected a list of [name, value]"),
            (r#"{"$bytes":1}"#, "$bytes: its value is not of the expected kind"),
            (r#"{"$other":1}"#, "$other is not known"),
        ] {
            let error = back(json).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
    }
}
