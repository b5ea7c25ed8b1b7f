//! Content negotiation (RFC 9110 §12.5.1) with the server's own weights (compat §7.1).

use crate::protocol::format::Format;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Representation {
    Document(Format),
    EventStream,
}

/// What of the things that the server can send the client likes best. `None`: nothing (406). `members` are those of
/// the Accept field; without any the client takes JSON.
pub fn negotiate<'a>(members: impl Iterator<Item = &'a str>) -> Option<Representation> {
    let mut best: Option<(f32, Representation)> = None;
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
            "application/json" => (0.8, Representation::Document(Format::Json)),
            "text/event-stream" => (0.8, Representation::EventStream),
            "*/*" | "application/*" => (0.5, Representation::Document(Format::Json)),
            _ => continue,
        };
        let score = quality * weight;
        if score > best.map_or(0.0, |(score, _)| score) {
            best = Some((score, representation));
        }
    }
    match best {
        Some((_, representation)) => Some(representation),
        None if any => None,
        None => Some(Representation::Document(Format::Json)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_liked_wins() {
        use Representation::{Document, EventStream};
        let cases = [
            ("", Some(Document(Format::Json))),
            ("*/*", Some(Document(Format::Json))),
            ("text/html, application/xhtml+xml, */*;q=0.8", Some(Document(Format::Json))),
            ("application/json, application/cbor", Some(Document(Format::Cbor))),
            ("application/json, application/cbor;q=0.5", Some(Document(Format::Json))),
            ("application/X-MsgPack", Some(Document(Format::MessagePack))),
            ("text/event-stream", Some(EventStream)),
            ("text/event-stream, */*", Some(EventStream)),
            ("application/json;q=0", None),
            ("text/html", None),
        ];
        for (accept, expected) in cases {
            let members = accept.split(',').map(str::trim).filter(|member| !member.is_empty());
            assert_eq!(negotiate(members), expected, "{accept}");
        }
    }
}
