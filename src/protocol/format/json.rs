//! JSON (RFC 8259) ⇄ the canonical form. Reading goes over simd-json's tape, whose nodes stand in the same order as our
//! tokens, unless the text is short and plain (`plain_json.rs`); writing is by hand.
//!
//! Bytes have no form in JSON: they are written as Node's `{"type":"Buffer","data":[…]}` and read back from it. Dates
//! are ISO text, and become dates again where the schema says so.

use super::{DecodeError, Format, plain_json};
use shards::document::{Reader, Token, Writer};
use shards::limits::DOCUMENT_DEPTH_MAX;
use simd_json::{Buffers, Node, StaticNode, Tape};

/// Reused buffers: with fresh ones simd-json loses to slower parsers on small documents.
pub(super) struct Scratch {
    input: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch { input: Vec::new(), buffers: Buffers::default(), tape: Tape::null() }
    }
}

impl Scratch {
    /// True: written again, it gives the same text.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<bool, DecodeError> {
        let start = out.len();
        if input.len() <= plain_json::BYTES_MAX
            && let Some(is_exact) = plain_json::decode(input, out)
        {
            return Ok(is_exact);
        }
        out.truncate(start);
        self.decode_by_tape(input, out).map(|()| false)
    }

    /// The same of any text.
    pub fn decode_by_tape(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.read(input, |nodes| {
            write_tape(nodes, out).ok_or_else(|| format!("nested more than {DOCUMENT_DEPTH_MAX} levels deep"))
        })
    }

    /// Parses the input and has what stands on the tape read.
    pub fn read(
        &mut self,
        input: &[u8],
        read: impl FnOnce(&[Node<'_>]) -> Result<(), String>,
    ) -> Result<(), DecodeError> {
        let error = |what: String, at: usize| DecodeError { format: Format::Json, what, at };
        if input.iter().all(u8::is_ascii_whitespace) {
            return Err(error("expected a value, found nothing".into(), 0));
        }
        self.input.clear();
        self.input.extend_from_slice(input);
        self.input.resize(input.len() + simd_json::INPUT_PADDING, 0);
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(&mut self.input, input.len(), &mut self.buffers, &mut tape);
        let result = match parsed {
            Ok(()) => read(&tape.0).map_err(|what| error(what, 0)),
            Err(failure) => {
                let at = failure.index().min(input.len());
                let found = input.get(at).map_or("the end".to_owned(), |byte| format!("`{}`", byte.escape_ascii()));
                Err(error(format!("unexpected {found}"), at))
            }
        };
        self.tape = tape.reset();
        result
    }
}

/// The tape and the canonical form list the same tokens in the same order. `None`: nested too deep.
fn write_tape(nodes: &[Node<'_>], out: &mut Vec<u8>) -> Option<()> {
    // Where the containers end that surround the current node.
    let mut ends = [0; DOCUMENT_DEPTH_MAX];
    let mut depth = 0;
    let mut at = 0;
    while let Some(node) = nodes.get(at) {
        while depth > 0 && at >= ends[depth - 1] {
            depth -= 1;
        }
        let mut enter = |count: usize| -> Option<()> {
            *ends.get_mut(depth)? = at + 1 + count;
            depth += 1;
            Some(())
        };
        match *node {
            Node::String(text) => out.write_str(text),
            Node::Array { len, count } => {
                enter(count)?;
                out.write_array(len as u32);
            }
            Node::Object { len, count } => {
                if let Some(after) = buffer(nodes, at, len, out) {
                    at = after;
                    continue;
                }
                enter(count)?;
                out.write_map(len as u32);
            }
            Node::Static(StaticNode::Null) => out.write_null(),
            Node::Static(StaticNode::Bool(value)) => out.write_bool(value),
            Node::Static(StaticNode::I64(value)) => out.write_int(value),
            Node::Static(StaticNode::U64(value)) => out.write_uint(value),
            Node::Static(StaticNode::F64(value)) => out.write_float(value),
        }
        at += 1;
    }
    Some(())
}

/// Reads `{"type":"Buffer","data":[bytes]}` as bytes; gives the place behind it.
pub(super) fn buffer(nodes: &[Node<'_>], at: usize, len: usize, out: &mut Vec<u8>) -> Option<usize> {
    let [Node::String("type"), Node::String("Buffer"), Node::String("data"), Node::Array { len: count, .. }, rest @ ..] =
        nodes.get(at + 1..)?
    else {
        return None;
    };
    if len != 2 {
        return None;
    }
    let byte = |node: &Node<'_>| match node {
        Node::Static(StaticNode::U64(value)) => u8::try_from(*value).ok(),
        Node::Static(StaticNode::I64(value)) => u8::try_from(*value).ok(),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = rest.get(..*count)?.iter().map(byte).collect();
    out.write_bytes(&bytes?);
    Some(at + 5 + count)
}

/// Appends a document as JSON on one line.
pub fn write_json(document: &[u8], out: &mut Vec<u8>) {
    let mut reader = Reader::new(document);
    if write_value(&mut reader, out).is_none() {
        debug_assert!(false, "documents are checked when they come in");
    }
}

fn write_value(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Option<()> {
    // Most values are texts, and were checked when they came in.
    if let Some(text) = reader.text_bytes() {
        write_text(text, out);
        return Some(());
    }
    match reader.next()? {
        Token::Null => out.extend_from_slice(b"null"),
        Token::Bool(true) => out.extend_from_slice(b"true"),
        Token::Bool(false) => out.extend_from_slice(b"false"),
        Token::Int(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Token::Uint(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        Token::Float(value) => write_float(value, out),
        Token::Str(text) => write_json_text(text, out),
        Token::Bytes(bytes) => {
            out.extend_from_slice(b"{\"type\":\"Buffer\",\"data\":[");
            for (index, byte) in bytes.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(itoa::Buffer::new().format(*byte).as_bytes());
            }
            out.extend_from_slice(b"]}");
        }
        Token::Date(date) => {
            let mut text = String::new();
            shards::date::write_iso(date, &mut text);
            write_json_text(&text, out);
        }
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
            out.push(b'{');
            for index in 0..count {
                if index > 0 {
                    out.push(b',');
                }
                write_text(reader.text_bytes()?, out);
                out.push(b':');
                write_value(reader, out)?;
            }
            out.push(b'}');
        }
    }
    Some(())
}

/// Appends a number; JSON has none for NaN and the infinities, which become null as in JavaScript.
pub fn write_float(value: f64, out: &mut Vec<u8>) {
    if value.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

/// How many bytes there are at the start, in whole chunks, none of which is special. Asked of all bytes of a chunk,
/// without an early end, that takes many at once.
pub(super) fn leading_chunks(bytes: &[u8], is_special: impl Fn(u8) -> bool) -> usize {
    const CHUNK: usize = 16;
    let mut length = 0;
    while let Some(chunk) = bytes[length..].first_chunk::<CHUNK>() {
        if chunk.iter().fold(0, |any, &byte| any | u8::from(is_special(byte))) != 0 {
            break;
        }
        length += CHUNK;
    }
    length
}

/// Appends text in quotes, escaped where it must be (RFC 8259 §7).
pub fn write_json_text(text: &str, out: &mut Vec<u8>) {
    write_text(text.as_bytes(), out);
}

/// The same of bytes that are UTF-8.
fn write_text(bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let is_escaped = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    out.push(b'"');
    // Mostly there is nothing to escape.
    let plain = leading_chunks(bytes, is_escaped);
    let mut start = 0;
    for (at, &byte) in (plain..).zip(&bytes[plain..]) {
        if !is_escaped(byte) {
            continue;
        }
        out.extend_from_slice(&bytes[start..at]);
        start = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}
