//! What a client sent ⇄ a document: the content types of compat §7. An object in a known format is that document;
//! anything else is opaque and becomes `{contentType, data}`, to be passed on verbatim.

use super::format::{DecodeError, Decoder, Format};
use shards::document::{Reader, Token, Writer, is_content_type};

/// The content type of bytes that nobody has named.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// Appends the canonical document of a payload; true: written as JSON, it gives the payload again. Without a content type,
/// what starts with `{` and parses as JSON is an object.
pub fn document(
    content_type: Option<&str>,
    payload: &[u8],
    decoder: &mut Decoder,
    out: &mut Vec<u8>,
) -> Result<bool, DecodeError> {
    let start = out.len();
    let Some(content_type) = content_type else {
        let object = payload.first() == Some(&b'{') && decoder.decode(Format::Json, payload, out).is_ok();
        if !object {
            write_opaque(OCTET_STREAM, payload, out);
        }
        return Ok(object && decoder.is_exact());
    };
    match Format::of_media_type(content_type) {
        Some(format) => {
            decoder.decode(format, payload, out)?;
            if is_map(&out[start..]) {
                return Ok(decoder.is_exact());
            }
            out.truncate(start);
            write_opaque(content_type, payload, out);
        }
        None => write_opaque(content_type, payload, out),
    }
    Ok(false)
}

/// Whether a document is an object, as records are.
pub fn is_map(document: &[u8]) -> bool {
    matches!(Reader::new(document).next(), Some(Token::Map(_)))
}

/// Text stays text, so that it reads well in JSON; other data are bytes.
fn write_opaque(content_type: &str, payload: &[u8], out: &mut Vec<u8>) {
    let content_type = if is_content_type(content_type) { content_type } else { OCTET_STREAM };
    out.write_map(2);
    out.write_str("contentType");
    out.write_str(content_type);
    out.write_str("data");
    let is_text = content_type.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"));
    match std::str::from_utf8(payload) {
        Ok(text) if is_text => out.write_str(text),
        _ => out.write_bytes(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::format::write_json;

    #[test]
    fn payloads_become_documents() {
        let buffer = |bytes: &[u8], content_type: &str| {
            let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
            format!(r#"{{"contentType":"{content_type}","data":{{"type":"Buffer","data":[{}]}}}}"#, list.join(","))
        };
        let cases: [(Option<&str>, &[u8], String); 8] = [
            (None, br#"{"a":1}"#, r#"{"a":1}"#.into()),
            (None, b"{bad", buffer(b"{bad", OCTET_STREAM)),
            (None, b"[1]", buffer(b"[1]", OCTET_STREAM)),
            (None, b"", buffer(b"", OCTET_STREAM)),
            (Some("application/cbor"), &[0xa1, 0x61, 0x61, 0x01], r#"{"a":1}"#.into()),
            (Some("application/json; charset=utf-8"), br#" {"a":1}"#, r#"{"a":1}"#.into()),
            (Some("application/cbor"), &[0x01], buffer(&[1], "application/cbor")),
            (Some("text/plain"), b"on", r#"{"contentType":"text/plain","data":"on"}"#.into()),
        ];
        for (content_type, payload, expected) in cases {
            let mut out = Vec::new();
            document(content_type, payload, &mut Decoder::default(), &mut out).unwrap();
            let mut json = Vec::new();
            write_json(&out, &mut json);
            assert_eq!(String::from_utf8(json).unwrap(), expected);
        }
        assert!(document(Some("application/json"), b"{bad", &mut Decoder::default(), &mut Vec::new()).is_err());
    }
}
