//! What a URL path names (compat §6.1): a record, an attribute of one, a collection, or a table's description; and the
//! format that its suffix asks for.

use crate::protocol::format::Format;
use crate::protocol::percent;
use shards::limits::TOPIC_BYTES_MAX;
use shards::schema::TableDef;
use std::borrow::Cow;

/// Percent-decodes a path. `None`: not UTF-8, a broken escape, a NUL, or too long.
pub fn decode(path: &str) -> Option<Cow<'_, str>> {
    if path.contains('\0') || path.len() > 3 * TOPIC_BYTES_MAX {
        return None;
    }
    percent::decode(path).filter(|text| !text.contains('\0'))
}

/// The end of a path, taken off it.
#[derive(Debug, PartialEq)]
pub struct Suffix<'a> {
    pub rest: &'a str,
    pub format: Option<Format>,
    pub attribute: Option<&'a str>,
}

/// Takes `.json`, `.cbor`, `.msgpack` or `.attribute` off the rest of a path; other dots are part of the key.
pub fn split_suffix<'a>(rest: &'a str, table: &TableDef) -> Suffix<'a> {
    let plain = Suffix { rest, format: None, attribute: None };
    let Some((before, name)) = rest.rsplit_once('.').filter(|(_, name)| !name.contains('/')) else { return plain };
    if let Some(format) = Format::of_name(name) {
        return Suffix { rest: before, format: Some(format), attribute: None };
    }
    let declared = table.attributes.iter().any(|attribute| attribute.name == name);
    let of_a_record = !before.is_empty() && !before.ends_with('/');
    if declared && of_a_record { Suffix { rest: before, format: None, attribute: Some(name) } } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_or_refused() {
        let cases = [
            ("/a/b", Some("/a/b")),
            ("/led%2Fsign", Some("/led/sign")),
            ("/%C3%A4", Some("/ä")),
            ("/a+b", Some("/a+b")),
            ("/%", None),
            ("/%4", None),
            ("/%zz", None),
            ("/%ff", None),
            ("/%00", None),
        ];
        for (path, expected) in cases {
            assert_eq!(decode(path).as_deref(), expected, "{path}");
        }
    }
}
