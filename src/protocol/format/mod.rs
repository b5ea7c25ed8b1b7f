//! The formats of documents at the edges (architecture §9): JSON, CBOR and MessagePack ⇄ the canonical form, token by
//! token, never through a tree. YAML and CSV are only written, forms only read.

mod cbor;
pub mod csv;
pub mod form;
mod json;
mod lossless;
mod merge_patch;
mod plain_json;
mod yaml;

use shards::document;

pub use json::{write_float, write_json, write_json_text};
pub use lossless::write_lossless;
pub use merge_patch::write_merge_patch;
pub use yaml::write_yaml;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Format {
    Json = 0,
    Cbor = 1,
    MessagePack = 2,
}

impl Format {
    pub const ALL: [Format; 3] = [Format::Json, Format::Cbor, Format::MessagePack];

    /// The media type, without parameters.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Cbor => "application/cbor",
            Format::MessagePack => "application/x-msgpack",
        }
    }

    /// The format of a media type; parameters are left out of account.
    pub fn of_media_type(media_type: &str) -> Option<Format> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        if is("application/json") || (essence.len() > 5 && essence.to_ascii_lowercase().ends_with("+json")) {
            Some(Format::Json)
        } else if is("application/cbor") {
            Some(Format::Cbor)
        } else if is("application/x-msgpack") || is("application/msgpack") || is("application/vnd.msgpack") {
            Some(Format::MessagePack)
        } else {
            None
        }
    }

    /// The format of a URL suffix or of the `format` user property.
    pub fn of_name(name: &str) -> Option<Format> {
        match name {
            "json" => Some(Format::Json),
            "cbor" => Some(Format::Cbor),
            "msgpack" => Some(Format::MessagePack),
            _ => None,
        }
    }
}

/// Why bytes are no document.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodeError {
    pub format: Format,
    /// What is wrong, for people.
    pub what: String,
    /// Offset in the input, in bytes.
    pub at: usize,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let format = match self.format {
            Format::Json => "JSON",
            Format::Cbor => "CBOR",
            Format::MessagePack => "MessagePack",
        };
        write!(f, "the {format} is not valid at byte {}: {}", self.at, self.what)
    }
}

/// Reads documents of any format. One per shard: its buffers are reused from document to document.
#[derive(Default)]
pub struct Decoder {
    json: json::Scratch,
    is_exact: bool,
}

impl Decoder {
    /// Appends the canonical form of exactly one value. Where it fails, `out` is left as it was.
    pub fn decode(&mut self, format: Format, input: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let start = out.len();
        self.is_exact = false;
        let result = match format {
            Format::Json => self.json.decode(input, out).map(|is_exact| self.is_exact = is_exact),
            Format::Cbor => cbor::decode(input, out),
            Format::MessagePack => match document::check(input) {
                Ok(()) => {
                    out.extend_from_slice(input);
                    Ok(())
                }
                Err(at) => {
                    let what = "expected one value: text keys, no unknown extensions, not nested too deep".to_owned();
                    Err(DecodeError { format, what, at })
                }
            },
        };
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// Whether the last document was read from the JSON that it would be written as. (False says nothing.)
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Appends the canonical form of the CBOR data item at the start of the input, and gives its length. `None`: its end
    /// is not there.
    ///
    /// # Errors
    /// No item begins so. `out` is left as it was.
    pub fn decode_cbor_item(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, DecodeError> {
        let start = out.len();
        let result = cbor::decode_item(input, out);
        if !matches!(result, Ok(Some(_))) {
            out.truncate(start);
        }
        result
    }

    /// Appends the canonical form of what [`write_lossless`] wrote. Where it fails, `out` is left as it was.
    pub fn decode_lossless(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let start = out.len();
        self.json.read(input, |nodes| lossless::read(nodes, out)).inspect_err(|_| out.truncate(start))
    }
}

/// Appends a canonical document in another format.
pub fn encode(format: Format, document: &[u8], out: &mut Vec<u8>) {
    match format {
        Format::Json => write_json(document, out),
        Format::Cbor => cbor::write_cbor(document, out),
        Format::MessagePack => out.extend_from_slice(document),
    }
}

#[cfg(test)]
pub(crate) mod tests;
