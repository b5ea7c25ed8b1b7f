//! YAML 1.2 out of the canonical form, in block style.

use super::json::write_json_text;
use base64::Engine;
use shards::document::{Reader, Token};

/// Words that a reader takes for something else than text, YAML 1.1's among them.
const RESERVED: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

/// Appends a document and a line feed. What it has inside is indented by so many columns, and more.
pub fn write_yaml(document: &[u8], indent: usize, out: &mut Vec<u8>) {
    let _ = write_value(&mut Reader::new(document), indent, false, out);
}

/// `below`: behind the name of an attribute, where what has parts begins on the next line.
fn write_value(reader: &mut Reader<'_>, indent: usize, below: bool, out: &mut Vec<u8>) -> Option<()> {
    let token = reader.next()?;
    let count = match token {
        Token::Array(count @ 1..) | Token::Map(count @ 1..) => count,
        _ => {
            out.extend_from_slice(if below { b" " } else { b"" });
            write_scalar(token, out);
            out.push(b'\n');
            return Some(());
        }
    };
    out.extend_from_slice(if below { b"\n" } else { b"" });
    for index in 0..count {
        if below || index > 0 {
            out.resize(out.len() + indent, b' ');
        }
        if matches!(token, Token::Array(_)) {
            out.extend_from_slice(b"- ");
            write_value(reader, indent + 2, false, out)?;
        } else {
            write_text(reader.key()?, out);
            out.push(b':');
            write_value(reader, indent + 2, true, out)?;
        }
    }
    Some(())
}

fn write_scalar(token: Token<'_>, out: &mut Vec<u8>) {
    match token {
        Token::Null => out.extend_from_slice(b"null"),
        Token::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Token::Int(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Token::Uint(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Token::Float(value) if value.is_nan() => out.extend_from_slice(b".nan"),
        Token::Float(value) if value.is_infinite() => {
            out.extend_from_slice(if value > 0.0 { b".inf" } else { b"-.inf" });
        }
        Token::Float(value) => out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes()),
        Token::Str(text) => write_text(text, out),
        Token::Bytes(bytes) => {
            out.extend_from_slice(b"!!binary ");
            write_json_text(&base64::engine::general_purpose::STANDARD.encode(bytes), out);
        }
        Token::Date(date) => {
            let mut text = String::new();
            shards::date::write_iso(date, &mut text);
            out.extend_from_slice(text.as_bytes());
        }
        Token::Array(_) => out.extend_from_slice(b"[]"),
        Token::Map(_) => out.extend_from_slice(b"{}"),
    }
}

/// As it is where no reader can mistake it; in quotes otherwise, with the escapes of JSON (YAML 1.2 §7.3.1).
fn write_text(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let is_plain = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-./ ".contains(byte))
        && !text.ends_with(' ')
        && !RESERVED.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_plain { out.extend_from_slice(bytes) } else { write_json_text(text, out) }
}
