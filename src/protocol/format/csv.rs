//! Comma-separated values (RFC 4180) out of the canonical form: a record is a line. What has parts is written as JSON,
//! bytes in base64; nothing and null are empty.

use super::json::{write_float, write_json};
use base64::Engine;
use shards::document::{Reader, Token, attribute};

/// Appends the line that names the columns.
pub fn write_names<'a>(columns: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    for (index, name) in columns.enumerate() {
        out.extend_from_slice(if index > 0 { b"," } else { b"" });
        write_text(name, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the line of a record, or of what is selected of one: a list of values, or one value.
pub fn write_row<'a>(document: &[u8], columns: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    let mut reader = Reader::new(document);
    match reader.next() {
        Some(Token::Map(_)) => {
            for (index, name) in columns.enumerate() {
                out.extend_from_slice(if index > 0 { b"," } else { b"" });
                write_cell(attribute(document, name).unwrap_or_default(), out);
            }
        }
        Some(Token::Array(count)) => {
            for index in 0..count {
                out.extend_from_slice(if index > 0 { b"," } else { b"" });
                write_cell(reader.value().unwrap_or_default(), out);
            }
        }
        _ => write_cell(document, out),
    }
    out.extend_from_slice(b"\r\n");
}

fn write_cell(value: &[u8], out: &mut Vec<u8>) {
    match Reader::new(value).next() {
        None | Some(Token::Null) => {}
        Some(Token::Str(text)) => write_text(text, out),
        Some(Token::Float(value)) => write_float(value, out),
        Some(Token::Bytes(bytes)) => {
            out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(bytes).as_bytes());
        }
        Some(Token::Date(date)) => {
            let mut text = String::new();
            shards::date::write_iso(date, &mut text);
            out.extend_from_slice(text.as_bytes());
        }
        Some(Token::Array(_) | Token::Map(_)) => {
            let mut json = Vec::new();
            write_json(value, &mut json);
            write_text(&String::from_utf8_lossy(&json), out);
        }
        Some(Token::Bool(_) | Token::Int(_) | Token::Uint(_)) => write_json(value, out),
    }
}

/// In quotes where a comma, a quote or a line break is in it, and where it is empty, which nothing is not.
fn write_text(text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() && !text.contains([',', '"', '\r', '\n']) && text.trim() == text {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}
