//! Reading a file of records: where one ends and the next begins, and the parts of one. Memory is bounded by the largest
//! record that is accepted, whatever the file holds.

use super::Form;
use std::io::{self, BufRead, Read};

/// What was found in the input.
pub enum Item<'a> {
    /// The bytes of one record, and the number of its line, or of the item.
    Record(u64, &'a [u8]),
    /// It is larger than any record can be.
    TooLarge(u64),
    /// What follows cannot be told apart any more.
    Broken {
        number: u64,
        at: u64,
        what: &'static str,
    },
    End,
}

pub struct Input<R> {
    from: R,
    form: Form,
    item_bytes_max: usize,
    number: u64,
    buffer: Vec<u8>,
    /// Where the next item begins in the buffer (CBOR).
    start: usize,
    /// Bytes of all items so far.
    pub consumed: u64,
}

const CHUNK_BYTES: usize = 256 << 10;

impl<R: BufRead> Input<R> {
    pub fn new(from: R, form: Form, item_bytes_max: usize) -> Input<R> {
        Input { from, form, item_bytes_max, number: 0, buffer: Vec::new(), start: 0, consumed: 0 }
    }

    pub fn next(&mut self) -> io::Result<Item<'_>> {
        match self.form {
            Form::Ndjson => self.next_line(),
            Form::Cbor => self.next_item(),
        }
    }

    /// Empty lines are counted and left out.
    fn next_line(&mut self) -> io::Result<Item<'_>> {
        loop {
            self.buffer.clear();
            let limit = self.item_bytes_max as u64 + 1;
            let mut count = self.from.by_ref().take(limit).read_until(b'\n', &mut self.buffer)?;
            if count == 0 {
                return Ok(Item::End);
            }
            self.number += 1;
            self.consumed += count as u64;
            if count > self.item_bytes_max && self.buffer.last() != Some(&b'\n') {
                while count > 0 && self.buffer.last() != Some(&b'\n') {
                    self.buffer.clear();
                    count = self.from.by_ref().take(limit).read_until(b'\n', &mut self.buffer)?;
                    self.consumed += count as u64;
                }
                return Ok(Item::TooLarge(self.number));
            }
            if !self.buffer.iter().all(u8::is_ascii_whitespace) {
                return Ok(Item::Record(self.number, &self.buffer));
            }
        }
    }

    fn next_item(&mut self) -> io::Result<Item<'_>> {
        self.number += 1;
        let number = self.number;
        loop {
            let rest = &self.buffer[self.start..];
            match cbor_end(rest, 0, 0) {
                Ok(end) => {
                    let start = self.start;
                    self.start += end;
                    self.consumed += end as u64;
                    return Ok(Item::Record(number, &self.buffer[start..start + end]));
                }
                Err(CborEnd::Malformed(what)) => return Ok(Item::Broken { number, at: self.consumed, what }),
                Err(CborEnd::More) if rest.len() > self.item_bytes_max => {
                    let what = "an item larger than a record can be";
                    return Ok(Item::Broken { number, at: self.consumed, what });
                }
                Err(CborEnd::More) => {}
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            // Twice as much as there is, so that a large item is not walked too often.
            let wanted = CHUNK_BYTES.max(self.buffer.len());
            if self.from.by_ref().take(wanted as u64).read_to_end(&mut self.buffer)? == 0 {
                return Ok(match self.buffer.is_empty() {
                    true => Item::End,
                    false => {
                        Item::Broken { number, at: self.consumed, what: "the input ends in the middle of an item" }
                    }
                });
            }
        }
    }
}

/// The parts of a record, as they stand in the input.
#[derive(Default)]
pub struct Parts<'a> {
    pub table: Option<&'a [u8]>,
    pub id: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    pub fn of(form: Form, item: &'a [u8]) -> Result<Parts<'a>, String> {
        let mut parts = Parts::default();
        let visit = |name: &[u8], value: &'a [u8]| {
            match name {
                b"table" => parts.table = Some(value),
                b"id" => parts.id = Some(value),
                b"value" => parts.value = Some(value),
                b"version" => {} // the engine gives a new one
                _ => {
                    let name = String::from_utf8_lossy(name);
                    return Err(format!("{name:?} is not known (expected table, id, version and value)"));
                }
            }
            Ok(())
        };
        match form {
            Form::Ndjson => json_members(item, visit)?,
            Form::Cbor => cbor_members(item, visit)?,
        }
        Ok(parts)
    }
}

/// Shows the members of a JSON object. Only their ends are looked for: whoever decodes them checks them.
fn json_members<'a>(
    line: &'a [u8],
    mut visit: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), String>,
) -> Result<(), String> {
    let wrong = |at: usize, expected: &str| match line.get(at) {
        Some(byte) => format!("expected {expected} at byte {at}, found `{}`", byte.escape_ascii()),
        None => format!("expected {expected} at byte {at}, found the end"),
    };
    let space = |mut at: usize| {
        while line.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    };
    let expect = |at: usize, byte: u8, expected: &str| {
        let at = space(at);
        if line.get(at) == Some(&byte) { Ok(at + 1) } else { Err(wrong(at, expected)) }
    };
    let mut at = space(expect(0, b'{', "an object")?);
    if line.get(at) == Some(&b'}') {
        at += 1;
    } else {
        loop {
            let start = expect(at, b'"', "a name")?;
            let end = json_end(line, start - 1).ok_or_else(|| wrong(line.len(), "the end of a name"))?;
            let value = space(expect(end, b':', "`:`")?);
            at = json_end(line, value).ok_or_else(|| wrong(line.len(), "the end of a value"))?;
            if at == value {
                return Err(wrong(at, "a value"));
            }
            visit(&line[start..end - 1], &line[value..at])?;
            at = space(at);
            match line.get(at) {
                Some(b',') => at += 1,
                Some(b'}') => break at += 1,
                _ => return Err(wrong(at, "`,` or `}`")),
            }
        }
    }
    let end = space(at);
    if end < line.len() { Err(wrong(end, "the end of the line")) } else { Ok(()) }
}

/// Where the JSON value that begins at `at` ends.
fn json_end(line: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match line.get(at)? {
            b'"' => {
                at += 1;
                loop {
                    match line.get(at)? {
                        b'"' => break,
                        b'\\' => at += 2,
                        _ => at += 1,
                    }
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1).unwrap_or(usize::MAX),
            _ if depth == 0 => {
                while line.get(at).is_some_and(|byte| !byte.is_ascii_whitespace() && !b",}]:\"".contains(byte)) {
                    at += 1;
                }
                return Some(at);
            }
            _ => {}
        }
        match depth {
            usize::MAX => return Some(at), // it ends before it begins
            0 => return Some(at + 1),
            _ => at += 1,
        }
    }
}

enum CborEnd {
    /// More bytes are needed.
    More,
    Malformed(&'static str),
}

/// Nesting of an item: more than that of the deepest record in its envelope, with a tag on every level.
const CBOR_DEPTH_MAX: usize = 4 * shards::limits::DOCUMENT_DEPTH_MAX;
const CBOR_TEXT: u8 = 3;
const CBOR_MAP: u8 = 5;
const CBOR_BREAK: u8 = 0xff;

/// Major type, argument (`None`: indefinite length), and where the head ends.
fn cbor_head(bytes: &[u8], at: usize) -> Result<(u8, Option<u64>, usize), CborEnd> {
    let first = *bytes.get(at).ok_or(CborEnd::More)?;
    let (major, low) = (first >> 5, first & 31);
    let width = match low {
        0..=23 => return Ok((major, Some(low.into()), at + 1)),
        24..=27 => 1 << (low - 24),
        31 if (2..=5).contains(&major) => return Ok((major, None, at + 1)),
        _ => return Err(CborEnd::Malformed("a reserved header, or a break where none belongs")),
    };
    let number = bytes.get(at + 1..at + 1 + width).ok_or(CborEnd::More)?;
    let number = number.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    Ok((major, Some(number), at + 1 + width))
}

/// Where the data item that begins at `at` ends. Only that is looked for: whoever decodes it checks the rest.
fn cbor_end(bytes: &[u8], at: usize, depth: usize) -> Result<usize, CborEnd> {
    if depth > CBOR_DEPTH_MAX {
        return Err(CborEnd::Malformed("nested too deep"));
    }
    let (major, argument, mut at) = cbor_head(bytes, at)?;
    let items = match (major, argument) {
        (0 | 1 | 7, _) => return Ok(at),
        (2 | 3, Some(length)) => {
            let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
            let end = end.ok_or(CborEnd::Malformed("a length beyond all memory"))?;
            return if end <= bytes.len() { Ok(end) } else { Err(CborEnd::More) };
        }
        (6, _) => Some(1),
        (CBOR_MAP, Some(pairs)) => Some(pairs.checked_mul(2).ok_or(CborEnd::Malformed("a length beyond all memory"))?),
        (_, items) => items,
    };
    let mut left = items;
    while left != Some(0) {
        if left.is_none() && *bytes.get(at).ok_or(CborEnd::More)? == CBOR_BREAK {
            return Ok(at + 1);
        }
        at = cbor_end(bytes, at, depth + 1)?;
        left = left.map(|left| left - 1);
    }
    Ok(at)
}

/// Shows the members of a CBOR map that is known to be complete.
fn cbor_members<'a>(
    item: &'a [u8],
    mut visit: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), String>,
) -> Result<(), String> {
    let wrong = || "expected a map with text keys".to_owned();
    let (CBOR_MAP, mut left, mut at) = cbor_head(item, 0).map_err(|_| wrong())? else { return Err(wrong()) };
    while left != Some(0) && !(left.is_none() && item.get(at) == Some(&CBOR_BREAK)) {
        let (CBOR_TEXT, Some(_), name) = cbor_head(item, at).map_err(|_| wrong())? else { return Err(wrong()) };
        let value = cbor_end(item, at, 0).map_err(|_| wrong())?;
        at = cbor_end(item, value, 0).map_err(|_| wrong())?;
        visit(&item[name..value], &item[value..at])?;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(form: Form, item: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut found = Vec::new();
        let visit = |name: &[u8], value: &[u8]| {
            found.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
            Ok(())
        };
        match form {
            Form::Ndjson => json_members(item, visit)?,
            Form::Cbor => cbor_members(item, visit)?,
        }
        Ok(found)
    }

    #[test]
    fn the_members_of_a_line() {
        let line = br#" {"a" : "x\"}," ,"b":{"c":[1,"]"]},"d":-1.5e3 , "e":null} "#;
        let expected = [("a", r#""x\"},""#), ("b", r#"{"c":[1,"]"]}"#), ("d", "-1.5e3"), ("e", "null")]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        assert_eq!(members(Form::Ndjson, line), Ok(expected.to_vec()));
        assert_eq!(members(Form::Ndjson, b"{}"), Ok(vec![]));
        for (line, error) in [
            ("[1]", "expected an object at byte 0, found `[`"),
            ("{\"a\":1", "expected `,` or `}` at byte 6, found the end"),
            ("{\"a\" 1}", "expected `:` at byte 5, found `1`"),
            ("{\"a\":}", "expected a value at byte 5, found `}`"),
            ("{\"a\":\"x}", "expected the end of a value at byte 8, found the end"),
            ("{a:1}", "expected a name at byte 1, found `a`"),
            ("{\"a\":1} x", "expected the end of the line at byte 8, found `x`"),
        ] {
            assert_eq!(members(Form::Ndjson, line.as_bytes()), Err(error.to_owned()), "{line}");
        }
    }

    #[test]
    fn items_are_found_however_the_input_is_cut() {
        // {"a": 1}, {_ "b": [_ 1, h'00ff', 1(0.5)]}, {}
        let first: &[u8] = &[0xa1, 0x61, b'a', 1];
        let second: &[u8] =
            &[0xbf, 0x61, b'b', 0x9f, 1, 0x42, 0, 255, 0xc1, 0xfb, 0x3f, 0xe0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let whole = [first, second, &[0xa0]].concat();
        for length in 1..=whole.len() {
            let from = io::BufReader::with_capacity(1, &whole[..length]);
            let mut input = Input::new(from, Form::Cbor, 1000);
            let mut found = Vec::new();
            let broken = loop {
                match input.next().unwrap() {
                    Item::Record(_, item) => found.extend_from_slice(item),
                    Item::Broken { at, .. } => break Some(at as usize),
                    Item::End => break None,
                    Item::TooLarge(_) => panic!("nothing is"),
                }
            };
            let ends = [first.len(), first.len() + second.len(), whole.len()];
            let last = ends.into_iter().filter(|end| *end <= length).max().unwrap_or(0);
            assert_eq!(found, whole[..last]);
            assert_eq!(broken, (last < length).then_some(last));
        }
        assert_eq!(members(Form::Cbor, second).map(|all| all.len()), Ok(1));
        assert!(members(Form::Cbor, &[0xa1, 1, 1]).is_err());
    }

    #[test]
    fn lines_that_are_too_long_are_stepped_over() {
        let text = format!("{{}}\n\n{}\n{{}}", "x".repeat(50));
        let mut input = Input::new(io::BufReader::with_capacity(3, text.as_bytes()), Form::Ndjson, 10);
        assert!(matches!(input.next().unwrap(), Item::Record(1, b"{}\n")));
        assert!(matches!(input.next().unwrap(), Item::TooLarge(3)));
        assert!(matches!(input.next().unwrap(), Item::Record(4, b"{}")));
        assert!(matches!(input.next().unwrap(), Item::End));
        assert_eq!(input.consumed, text.len() as u64);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200),
                                            text in "[\\[\\]{}:,\"\\\\a1 ]{0,40}") {
            let _ = cbor_end(&bytes, 0, 0);
            let _ = members(Form::Cbor, &bytes);
            let _ = members(Form::Ndjson, &bytes);
            let _ = members(Form::Ndjson, text.as_bytes());
        }
    }
}
