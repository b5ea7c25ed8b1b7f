//! Short, plain JSON → the canonical form in one pass: no index of structure, no tape. What most devices send is like
//! this, and is read in two thirds of the instructions of simd-json's two passes (an object of 128 bytes). Whatever is
//! not plain (escapes, long containers, large numbers, deep nesting) and whatever is wrong is left to simd-json: nothing
//! is decided here.

use super::json::leading_chunks;
use shards::document::Writer;

/// Longer texts are simd-json's: what it prepares pays there.
pub(super) const BYTES_MAX: usize = 1 << 10;
const DEPTH_MAX: usize = 8;
/// Containers whose length fits into their first byte.
const ITEMS_MAX: u8 = 15;
/// Digits of a number that is certainly an `i64`.
const DIGITS_MAX: usize = 18;

/// Appends the canonical form of a plain text; true: written as JSON, it gives the same text. `None`: it is not plain; what
/// was appended is to be taken back.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    let mut reader = Reader { input, at: 0, is_exact: true };
    reader.space();
    reader.value(out, 0)?;
    reader.space();
    (reader.at == input.len()).then_some(reader.is_exact)
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    /// Nothing so far would be written in another way.
    is_exact: bool,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
            self.is_exact = false;
        }
    }

    /// Takes a byte that must come next, and the space around it.
    fn punctuation(&mut self, byte: u8) -> Option<()> {
        self.space();
        let is_there = self.peek()? == byte;
        self.at += 1;
        self.space();
        is_there.then_some(())
    }

    /// Whether a container ends here; if not, what separates its items is taken.
    fn ends(&mut self, end: u8, is_first: bool) -> Option<bool> {
        self.space();
        if self.peek()? == end {
            self.at += 1;
            return Some(true);
        }
        if !is_first {
            self.punctuation(b',')?;
        }
        Some(false)
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.peek()? {
            b'"' => {
                let text = self.text()?;
                // Bytes have the form of an object with this in it.
                if text == b"Buffer" {
                    return None;
                }
                out.write_text(text);
            }
            b'{' => {
                self.at += 1;
                self.container(0x80, b'}', out, |reader, out| {
                    if reader.peek()? != b'"' {
                        return None;
                    }
                    out.write_text(reader.text()?);
                    reader.punctuation(b':')?;
                    reader.value(out, depth + 1)
                })?;
            }
            b'[' => {
                self.at += 1;
                self.container(0x90, b']', out, |reader, out| reader.value(out, depth + 1))?;
            }
            b't' => self.word(b"true").map(|()| out.write_bool(true))?,
            b'f' => self.word(b"false").map(|()| out.write_bool(false))?,
            b'n' => self.word(b"null").map(|()| out.write_null())?,
            _ => self.number(out)?,
        }
        Some(())
    }

    /// The items of a container, behind a head of one byte.
    fn container(
        &mut self,
        head: u8,
        end: u8,
        out: &mut Vec<u8>,
        mut item: impl FnMut(&mut Reader<'a>, &mut Vec<u8>) -> Option<()>,
    ) -> Option<()> {
        let head_at = out.len();
        out.push(head);
        let mut count = 0;
        while !self.ends(end, count == 0)? {
            count += 1;
            if count > ITEMS_MAX {
                return None;
            }
            item(self, out)?;
        }
        out[head_at] |= count;
        Some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let is_there = self.input[self.at..].starts_with(word);
        self.at += word.len();
        is_there.then_some(())
    }

    /// What is between the quotes: UTF-8, with nothing escaped (RFC 8259 §7).
    fn text(&mut self) -> Option<&'a [u8]> {
        let rest = &self.input[self.at + 1..];
        let mut length = leading_chunks(rest, |byte| !(0x20..0x80).contains(&byte) | (byte == b'"') | (byte == b'\\'));
        let mut seen = 0;
        // Eight bytes at a time, up to the first of interest.
        while let Some(word) = rest.get(length..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*word);
            let special = special(word);
            seen |= word;
            if special != 0 {
                length += special.trailing_zeros() as usize / 8;
                break;
            }
            length += 8;
        }
        loop {
            match *rest.get(length)? {
                b'"' => break,
                b'\\' | 0..0x20 => return None,
                byte => seen |= u64::from(byte),
            }
            length += 1;
        }
        let text = &rest[..length];
        if seen & HIGH_BITS != 0 && std::str::from_utf8(text).is_err() {
            return None;
        }
        self.at += length + 2;
        Some(text)
    }

    /// A number (RFC 8259 §6).
    fn number(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let start = self.at;
        let is_negative = self.peek()? == b'-';
        self.at += usize::from(is_negative);
        let mut number: i64 = 0;
        let digits = self.digits(|digit| number = number.wrapping_mul(10).wrapping_add(i64::from(digit)));
        let has_leading_zero = digits > 1 && self.input[self.at - digits] == b'0';
        if digits == 0 || digits > DIGITS_MAX || has_leading_zero {
            return None;
        }
        let mut is_float = false;
        if self.peek() == Some(b'.') {
            self.at += 1;
            is_float = true;
            if self.digits(|_| {}) == 0 {
                return None;
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            is_float = true;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits(|_| {}) == 0 {
                return None;
            }
        }
        if is_float {
            self.is_exact &= is_shortest(&self.input[start + usize::from(is_negative)..self.at]);
            let text = std::str::from_utf8(&self.input[start..self.at]).ok()?;
            let number: f64 = text.parse().ok()?;
            out.write_float(Some(number).filter(|number| number.is_finite())?);
        } else if is_negative {
            out.write_int(Some(-number).filter(|number| *number != 0)?);
        } else {
            out.write_int(number);
        }
        Some(())
    }

    /// Takes digits; gives their number.
    fn digits(&mut self, mut take: impl FnMut(u8)) -> usize {
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            take(digit - b'0');
            self.at += 1;
        }
        self.at - start
    }
}

/// Whether a fraction without a sign is what its number is written as: so few digits come back as they are, if none is
/// one too many, and the number is neither so small nor so large that it is written with an exponent.
fn is_shortest(text: &[u8]) -> bool {
    const DIGITS_MAX: usize = 15;
    let Some(point) = text.iter().position(|byte| *byte == b'.') else { return false };
    let (whole, fraction) = (&text[..point], &text[point + 1..]);
    let is_small = whole == b"0" && fraction.starts_with(b"0000");
    text.len() <= DIGITS_MAX + 1
        && fraction.iter().all(u8::is_ascii_digit)
        && (fraction == b"0" || !fraction.ends_with(b"0"))
        && !is_small
}

const LOW_BITS: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);

/// The high bit of each of eight bytes that is a quote, a backslash or a control character. The lowest is right; above it
/// may stand others.
fn special(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(LOW_BITS) & !word;
    let quote = zero(word ^ (LOW_BITS * u64::from(b'"')));
    let backslash = zero(word ^ (LOW_BITS * u64::from(b'\\')));
    let control = word.wrapping_sub(LOW_BITS * 0x20) & !word;
    (quote | backslash | control) & HIGH_BITS
}

#[cfg(test)]
mod tests {
    use super::super::json::Scratch;
    use super::*;
    use proptest::prelude::*;

    /// What is read here, simd-json reads in the same way. Gives whether it was.
    fn agrees(text: &[u8]) -> bool {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let Some(is_exact) = decode(text, &mut ours) else { return false };
        let mut written = Vec::new();
        super::super::write_json(&ours, &mut written);
        assert!(!is_exact || written == text, "{}", String::from_utf8_lossy(text));
        let parsed = Scratch::default().decode_by_tape(text, &mut theirs);
        assert!(parsed.is_ok() && ours == theirs, "{}: {ours:x?} {theirs:x?}", String::from_utf8_lossy(text));
        true
    }

    #[test]
    fn texts_that_would_be_written_again_are_known() {
        let is_exact = |text: &str| decode(text.as_bytes(), &mut Vec::new()).expect(text);
        for text in [r#"{"temp":21.5,"at":[1,-2,0.001,123456.0],"é":null,"on":true}"#, "0.0", "-0.5", "\"x/y\""] {
            assert!(is_exact(text) && agrees(text.as_bytes()), "{text}");
        }
        for text in [r#"{"a": 1}"#, "[1 ]", " 1", "1.50", "1e3", "0.00001", "1234567890.123456", "12345678901234567.5"]
        {
            assert!(!is_exact(text) && agrees(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn plain_texts_are_read_and_others_are_left() {
        let plain = [
            r#"{"temp":21.5,"location":"hall 4","tags":["a","b"],"on":true,"off":false,"none":null,"count":-12345}"#,
            " { \"a\" : [ ] , \"b\" : { } }\r\n\t",
            r#""a text of more than eight bytes, and more than thirty-one""#,
            r#""Grüße aus Zürich, 東京""#,
            "0",
            "123456789012345678",
            "[-1,-32,-33,-128,-129,-32768,-32769,127,128,255,256,65535,65536,4294967296]",
            "[1.0,0.1,1e3,1E-3,-0.5,123456789.123456789,5e-324,1.7976931348623157e308,-0.0]",
        ];
        for text in plain {
            assert!(agrees(text.as_bytes()), "{text}");
        }
        let others: [&[u8]; 28] = [
            b"",
            b" ",
            b"{",
            b"[1",
            b"[1,]",
            b"[,1]",
            b"{\"a\"}",
            b"{\"a\":}",
            b"{\"a\":1,}",
            b"{a:1}",
            b"tru",
            b"nulL",
            b"01",
            b"-",
            b"-0",
            b"1.",
            b".5",
            b"1e",
            b"1e400",
            b"1234567890123456789",
            b"\"a",
            b"\"\n\"",
            b"\"\\n\"",
            b"\"\xff\"",
            b"[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]",
            b"[[[[[[[[[[1]]]]]]]]]]",
            b"1 2",
            br#"{"type":"Buffer","data":[1,2]}"#,
        ];
        for text in others {
            assert!(!agrees(text), "{}", String::from_utf8_lossy(text));
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_simd_json(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just(r#"{"a":"#), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just(" "), Just("1"), Just("-"),
                    Just("0"), Just(".5"), Just("e"), Just("+"), Just("\"b\""), Just("\""), Just("\\"), Just("true"),
                    Just("null"), Just("é"), Just("\u{1}"), Just("12345678"), Just("\"abcdefghijklm\""),
                ],
                0..20,
            ),
        ) {
            agrees(pieces.concat().as_bytes());
        }

        #[test]
        fn numbers_agree(int in any::<i64>(), float in any::<f64>(), digits in "-?[0-9]{1,20}(\\.[0-9]{1,20})?(e-?[0-9]{1,3})?", short in "-?(0|[1-9][0-9]{0,9})\\.[0-9]{1,9}") {
            agrees(int.to_string().as_bytes());
            agrees(format!("{float:?}").as_bytes());
            agrees(digits.as_bytes());
            agrees(short.as_bytes());
        }

        #[test]
        fn texts_agree(text in "\\PC{0,40}", at in 0usize..40, byte in any::<u8>()) {
            let mut bytes = format!("\"{text}\"").into_bytes();
            agrees(&bytes);
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            agrees(&bytes);
        }
    }
}
