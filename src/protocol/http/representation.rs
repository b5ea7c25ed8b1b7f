//! What answers are written as, and its choice by content negotiation (RFC 9110 §12.5.1) with the server's own weights
//! (compat §7.1).

use crate::protocol::format::{self, Format, csv};
use shards::document::{Reader, Token};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    Document(Format),
    /// A JSON text on each line.
    Ndjson,
    Csv,
    Yaml,
}

pub const JSON: Representation = Representation::Document(Format::Json);

/// What a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    Representation(Representation),
    EventStream,
}

impl Representation {
    pub fn media_type(self) -> &'static str {
        match self {
            Representation::Document(format) => format.media_type(),
            Representation::Ndjson => "application/x-ndjson",
            Representation::Csv => "text/csv; charset=utf-8",
            Representation::Yaml => "text/yaml; charset=utf-8",
        }
    }

    /// Fields of an answer beside its type.
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Representation::Csv => &[("Content-Disposition", "attachment; filename=\"data.csv\"")],
            _ => &[],
        }
    }

    /// What tells its entity tags from those of JSON.
    pub fn tag(self) -> &'static str {
        match self {
            JSON => "",
            Representation::Document(Format::Cbor) => "-c",
            Representation::Document(_) => "-m",
            Representation::Ndjson => "-n",
            Representation::Csv => "-v",
            Representation::Yaml => "-y",
        }
    }

    /// Appends one document.
    pub fn write(self, document: &[u8], out: &mut Vec<u8>) {
        match self {
            Representation::Document(format) => format::encode(format, document, out),
            Representation::Yaml => format::write_yaml(document, 0, out),
            Representation::Ndjson | Representation::Csv => Rows::new(self, Vec::new()).write(document, out),
        }
    }
}

/// Many documents as one: an array, but in MessagePack and NDJSON a sequence (compat §7.1).
pub struct Rows {
    representation: Representation,
    /// The columns of CSV; those of the first record are added.
    columns: Vec<Box<str>>,
    pub is_first: bool,
}

impl Rows {
    pub fn new(representation: Representation, columns: Vec<Box<str>>) -> Rows {
        Rows { representation, columns, is_first: true }
    }

    pub fn write(&mut self, document: &[u8], out: &mut Vec<u8>) {
        let is_first = std::mem::take(&mut self.is_first);
        match self.representation {
            Representation::Document(format) => {
                match (format, is_first) {
                    (Format::Json, true) => out.push(b'['),
                    (Format::Json, false) => out.push(b','),
                    (Format::Cbor, true) => out.push(0x9f), // an array of indefinite length
                    _ => {}
                }
                format::encode(format, document, out);
            }
            Representation::Ndjson => {
                format::write_json(document, out);
                out.push(b'\n');
            }
            Representation::Yaml => {
                out.extend_from_slice(b"- ");
                format::write_yaml(document, 2, out);
            }
            Representation::Csv => {
                let mut reader = Reader::new(document);
                if let (true, Some(Token::Map(count))) = (is_first, reader.next()) {
                    for _ in 0..count {
                        let (Some(name), Some(_)) = (reader.key(), reader.value()) else { break };
                        if !self.columns.iter().any(|own| **own == *name) {
                            self.columns.push(name.into());
                        }
                    }
                    csv::write_names(self.columns.iter().map(|name| &**name), out);
                }
                csv::write_row(document, self.columns.iter().map(|name| &**name), out);
            }
        }
    }

    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let end: &[u8] = match (self.representation, self.is_first) {
            (JSON, true) => b"[]",
            (JSON, false) => b"]",
            (Representation::Document(Format::Cbor), true) => &[0x80],
            (Representation::Document(Format::Cbor), false) => &[0xff],
            (Representation::Yaml, true) => b"[]\n",
            (Representation::Csv, true) if !self.columns.is_empty() => {
                return csv::write_names(self.columns.iter().map(|name| &**name), out);
            }
            _ => b"",
        };
        out.extend_from_slice(end);
    }
}

/// What of the things that the server can send the client likes best. `None`: nothing (406). `members` are those of
/// the Accept field; without any the client takes JSON.
pub fn negotiate<'a>(members: impl Iterator<Item = &'a str>) -> Option<Accepted> {
    let mut best: Option<(f32, Accepted)> = None;
    let mut any = false;
    for member in members {
        any = true;
        let mut parameters = member.split(';').map(str::trim);
        let range = parameters.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parameters
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(1.0, |(_, value)| value.trim().parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0));
        let (weight, representation) = match range.as_str() {
            "application/cbor" => (1.0, Representation::Document(Format::Cbor)),
            "application/x-msgpack" | "application/msgpack" | "application/vnd.msgpack" => {
                (0.9, Representation::Document(Format::MessagePack))
            }
            "application/json" | "text/event-stream" => (0.8, JSON),
            "text/yaml" | "application/yaml" => (0.7, Representation::Yaml),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => (0.7, Representation::Ndjson),
            "*/*" | "application/*" => (0.5, JSON),
            "text/csv" => (0.1, Representation::Csv),
            _ => continue,
        };
        let accepted = match range.as_str() {
            "text/event-stream" => Accepted::EventStream,
            _ => Accepted::Representation(representation),
        };
        let score = quality * weight;
        if score > best.map_or(0.0, |(score, _)| score) {
            best = Some((score, accepted));
        }
    }
    match best {
        Some((_, accepted)) => Some(accepted),
        None if any => None,
        None => Some(Accepted::Representation(JSON)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_liked_wins() {
        let json = Some(Accepted::Representation(JSON));
        let of = |representation| Some(Accepted::Representation(representation));
        let cases = [
            ("", json),
            ("*/*", json),
            ("text/html, application/xhtml+xml, */*;q=0.8", json),
            ("application/json, application/cbor", of(Representation::Document(Format::Cbor))),
            ("application/json, application/cbor;q=0.5", json),
            ("application/X-MsgPack", of(Representation::Document(Format::MessagePack))),
            ("text/csv", of(Representation::Csv)),
            ("text/csv, application/yaml", of(Representation::Yaml)),
            ("application/x-ndjson", of(Representation::Ndjson)),
            ("text/event-stream", Some(Accepted::EventStream)),
            ("text/event-stream, */*", Some(Accepted::EventStream)),
            ("application/json;q=0", None),
            ("text/html", None),
        ];
        for (accept, expected) in cases {
            let members = accept.split(',').map(str::trim).filter(|member| !member.is_empty());
            assert_eq!(negotiate(members), expected, "{accept}");
        }
    }
}
