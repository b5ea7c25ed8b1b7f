//! JSON merge patches (RFC 7396) of canonical documents.

use shards::document::{Reader, Token, Writer};
use std::collections::HashMap;

/// Appends what makes one document another. `None`: no merge patch does, because a null is to be set, which in a patch
/// means that something is removed; or because they are no objects.
pub fn write_merge_patch(from: &[u8], to: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (from, to) = (members(from)?, members(to)?);
    let before: HashMap<&str, &[u8]> = from.iter().copied().collect();
    let after: HashMap<&str, &[u8]> = to.iter().copied().collect();
    let gone: Vec<&str> = from.iter().map(|(name, _)| *name).filter(|name| !after.contains_key(name)).collect();
    let changed = to.into_iter().filter(|(name, value)| before.get(name) != Some(value));
    let changed: Vec<(&str, &[u8])> = changed.collect();
    out.write_map((gone.len() + changed.len()) as u32);
    for name in gone {
        out.write_str(name);
        out.write_null();
    }
    for (name, value) in changed {
        out.write_str(name);
        let own = before.get(name).copied().unwrap_or_default();
        if is_map(own) && is_map(value) {
            write_merge_patch(own, value, out)?;
        } else if sets_null(value) {
            return None;
        } else {
            out.extend_from_slice(value);
        }
    }
    Some(())
}

fn is_map(value: &[u8]) -> bool {
    matches!(Reader::new(value).next(), Some(Token::Map(_)))
}

/// Names and values of an object.
fn members(document: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    let mut reader = Reader::new(document);
    let Token::Map(count) = reader.next()? else { return None };
    (0..count).map(|_| Some((reader.key()?, reader.value()?))).collect()
}

/// Whether a value is null, or an object that has one. Arrays are replaced as they are.
fn sets_null(value: &[u8]) -> bool {
    match members(value) {
        Some(members) => members.iter().any(|(_, value)| sets_null(value)),
        None => matches!(Reader::new(value).next(), Some(Token::Null)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::format::{Decoder, Format, write_json};

    /// The examples of RFC 7396, appendix A, that objects and no set nulls are in; and what no patch can do.
    #[test]
    fn a_patch_makes_one_of_the_other() {
        let cases = [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, Some(r#"{"a":"c"}"#)),
            (r#"{"a":"b"}"#, r#"{"a":"b","b":"c"}"#, Some(r#"{"b":"c"}"#)),
            (r#"{"a":"b","b":"c"}"#, r#"{"b":"c"}"#, Some(r#"{"a":null}"#)),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, Some(r#"{"a":"c"}"#)),
            (r#"{"a":{"b":"c","x":1}}"#, r#"{"a":{"b":"d","x":1}}"#, Some(r#"{"a":{"b":"d"}}"#)),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"x":1}}"#, Some(r#"{"a":{"b":null,"x":1}}"#)),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1,null]}"#, Some(r#"{"a":[1,null]}"#)),
            (r#"{"a":1}"#, r#"{"a":1}"#, Some("{}")),
            (r#"{"a":1}"#, r#"{"a":null}"#, None),
            (r#"{"a":1}"#, r#"{"a":{"b":null}}"#, None),
            (r#"{"a":null}"#, r#"{"a":null,"b":2}"#, Some(r#"{"b":2}"#)),
            ("[1]", r#"{"a":1}"#, None),
        ];
        let document = |json: &str| {
            let mut out = Vec::new();
            Decoder::default().decode(Format::Json, json.as_bytes(), &mut out).expect("JSON");
            out
        };
        for (from, to, expected) in cases {
            let mut out = Vec::new();
            let patch = write_merge_patch(&document(from), &document(to), &mut out).map(|()| {
                let mut json = Vec::new();
                write_json(&out, &mut json);
                String::from_utf8(json).expect("UTF-8")
            });
            assert_eq!(patch.as_deref(), expected, "{from} to {to}");
        }
    }
}
