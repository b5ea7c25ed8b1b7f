//! SDL text → tokens with their places. Called by `parser`. Commas, comments and a byte order mark are whitespace
//! (GraphQL 2.1).

use crate::diagnostic::{Diagnostics, Place};

#[derive(Clone, Debug, PartialEq)]
pub enum Token<'a> {
    Punctuation(char),
    Name(&'a str),
    Int(&'a str),
    Float(&'a str),
    Text(String),
    /// After the last token, as often as asked.
    End,
}

impl Token<'_> {
    /// For messages: `found …`.
    pub fn describe(&self) -> String {
        match self {
            Token::Punctuation(c) => format!("`{c}`"),
            Token::Name(text) | Token::Int(text) | Token::Float(text) => format!("`{text}`"),
            Token::Text(_) => "a string".to_owned(),
            Token::End => "the end of the file".to_owned(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Lexeme<'a> {
    pub token: Token<'a>,
    pub place: Place<'a>,
    /// The first token of its line: where the parser may pick up again after an error.
    pub first_of_line: bool,
}

/// All tokens, `End` last. Errors are reported and the text in question is left out.
pub fn lex<'a>(file: &'a str, text: &'a str, diagnostics: &mut Diagnostics) -> Vec<Lexeme<'a>> {
    let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lexer = Lexer { place: Place { file, line: 1, column: 1 }, rest };
    let mut lexemes: Vec<Lexeme<'a>> = Vec::new();
    loop {
        lexer.skip_ignored();
        let place = lexer.place;
        let first_of_line = lexemes.last().is_none_or(|last| last.place.line < place.line);
        match lexer.token() {
            Ok(token) => {
                let is_end = token == Token::End;
                lexemes.push(Lexeme { token, place, first_of_line });
                if is_end {
                    return lexemes;
                }
            }
            Err((place, message)) => diagnostics.error(place, message),
        }
    }
}

type Failure<'a> = (Place<'a>, String);

struct Lexer<'a> {
    /// Of the first character of `rest`.
    place: Place<'a>,
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn advance(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' || (c == '\r' && !self.rest.starts_with('\n')) {
            self.place.line += 1;
            self.place.column = 1;
        } else {
            self.place.column += 1;
        }
        Some(c)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let before = self.rest;
        while self.peek().is_some_and(&wanted) {
            self.advance();
        }
        &before[..before.len() - self.rest.len()]
    }

    fn skip_ignored(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | ','));
            if self.peek() != Some('#') {
                return;
            }
            self.take_while(|c| c != '\n' && c != '\r');
        }
    }

    /// Consumes at least one character, except at the end.
    fn token(&mut self) -> Result<Token<'a>, Failure<'a>> {
        let place = self.place;
        match self.peek() {
            None => Ok(Token::End),
            Some('"') if self.rest.starts_with("\"\"\"") => self.block_string().map(Token::Text),
            Some('"') => self.string().map(Token::Text),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => Ok(Token::Name(self.take_while(is_name))),
            Some(c) if c.is_ascii_digit() || c == '-' => self.number(),
            Some(c) => {
                self.advance();
                match c {
                    '!' | '$' | '&' | '(' | ')' | ':' | '=' | '@' | '[' | ']' | '{' | '|' | '}' => {
                        Ok(Token::Punctuation(c))
                    }
                    _ => Err((place, format!("unexpected character {c:?}"))),
                }
            }
        }
    }

    fn number(&mut self) -> Result<Token<'a>, Failure<'a>> {
        let place = self.place;
        let text = self.take_while(|c| is_name(c) || matches!(c, '.' | '+' | '-'));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (text, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let whole = whole.strip_prefix('-').unwrap_or(whole);
        let is_number = digits(whole)
            && (whole == "0" || !whole.starts_with('0'))
            && fraction.is_none_or(digits)
            && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)));
        match (is_number, fraction.or(exponent)) {
            (false, _) => Err((place, format!("`{text}` is not a number"))),
            (true, None) => Ok(Token::Int(text)),
            (true, Some(_)) => Ok(Token::Float(text)),
        }
    }

    /// `"…"` on one line (GraphQL 2.9.4).
    fn string(&mut self) -> Result<String, Failure<'a>> {
        let start = self.place;
        self.advance();
        let mut text = String::new();
        let mut failure = None;
        loop {
            let place = self.place;
            match self.peek() {
                None | Some('\n' | '\r') => return Err((start, "the string is not closed (expected `\"`)".to_owned())),
                Some('"') => {
                    self.advance();
                    return failure.map_or(Ok(text), Err);
                }
                Some('\\') => {
                    self.advance();
                    match self.escape() {
                        Some(c) => text.push(c),
                        None => failure = failure.or(Some((place, "unknown escape in the string".to_owned()))),
                    }
                }
                Some(c) => {
                    self.advance();
                    text.push(c);
                }
            }
        }
    }

    /// After the backslash.
    fn escape(&mut self) -> Option<char> {
        let c = self.peek().filter(|c| !matches!(c, '\n' | '\r'))?;
        self.advance();
        match c {
            '"' | '\\' | '/' => Some(c),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'u' if self.peek() == Some('{') => {
                self.advance();
                let digits = self.take_while(|c| c.is_ascii_hexdigit());
                if self.peek() != Some('}') {
                    return None;
                }
                self.advance();
                u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)
            }
            'u' => {
                let high = self.four_digits()?;
                if !(0xd800..0xdc00).contains(&high) {
                    return char::from_u32(high);
                }
                // A surrogate pair: two escapes for one character.
                if !self.rest.starts_with("\\u") {
                    return None;
                }
                self.advance();
                self.advance();
                let low = self.four_digits().filter(|low| (0xdc00..0xe000).contains(low))?;
                char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
            }
            _ => None,
        }
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.rest.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        self.skip(4);
        u32::from_str_radix(digits, 16).ok()
    }

    fn block_string(&mut self) -> Result<String, Failure<'a>> {
        let start = self.place;
        self.skip(3);
        let mut raw = String::new();
        loop {
            if self.rest.starts_with("\"\"\"") {
                self.skip(3);
                return Ok(dedent(&raw));
            }
            if self.rest.starts_with("\\\"\"\"") {
                self.skip(4);
                raw.push_str("\"\"\"");
                continue;
            }
            let c = self.advance().ok_or_else(|| (start, "the string is not closed (expected `\"\"\"`)".to_owned()))?;
            raw.push(c);
        }
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.advance();
        }
    }
}

/// Removes the common indentation and the blank lines at both ends (GraphQL 2.9.4, BlockStringValue).
fn dedent(raw: &str) -> String {
    let is_blank = |line: &&str| line.trim_matches([' ', '\t']).is_empty();
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let common = raw.lines().skip(1).filter(|line| !is_blank(line)).map(indent).min().unwrap_or(0);
    let strip = |(number, line): (usize, &'_ str)| -> String {
        if number == 0 { line.to_owned() } else { line.get(common..).unwrap_or("").to_owned() }
    };
    let lines: Vec<String> = raw.lines().enumerate().map(strip).collect();
    let first = lines.iter().position(|line| !is_blank(&line.as_str())).unwrap_or(lines.len());
    let last = lines.iter().rposition(|line| !is_blank(&line.as_str())).map_or(first, |last| last + 1);
    lines[first..last].join("\n")
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> (Vec<Token<'_>>, Vec<String>) {
        let mut diagnostics = Diagnostics::default();
        let mut lexemes = lex("s", text, &mut diagnostics);
        assert_eq!(lexemes.pop().map(|last| last.token), Some(Token::End));
        (lexemes.into_iter().map(|lexeme| lexeme.token).collect(), diagnostics.lines())
    }

    #[test]
    fn valid() {
        let text = |text: &str| Token::Text(text.to_owned());
        for (input, expected) in [
            ("\u{feff}type A", vec![Token::Name("type"), Token::Name("A")]),
            ("# only a comment", vec![]),
            (
                ",,[a!],",
                vec![Token::Punctuation('['), Token::Name("a"), Token::Punctuation('!'), Token::Punctuation(']')],
            ),
            (
                "0 -12 1.5 2e3 -1.5E-7",
                vec![
                    Token::Int("0"),
                    Token::Int("-12"),
                    Token::Float("1.5"),
                    Token::Float("2e3"),
                    Token::Float("-1.5E-7"),
                ],
            ),
            (r#""" "a\"b\n\u0041\u{1F600}\uD83D\uDE00""#, vec![text(""), text("a\"b\nA😀😀")]),
            (
                "\"\"\"\n  one\n    two \\\"\"\" \n\n  three\n  \"\"\" x",
                vec![text("one\n  two \"\"\" \n\nthree"), Token::Name("x")],
            ),
            (r#"""" inline """"#, vec![text(" inline ")]),
            (r#""""""""#, vec![text("")]),
        ] {
            assert_eq!(tokens(input), (expected, vec![]), "{input:?}");
        }
    }

    #[test]
    fn errors() {
        for (input, count, expected) in [
            ("a ; b", 2, "s:1:3: error: unexpected character ';'"),
            ("a\r\n\tå b", 2, "s:2:2: error: unexpected character 'å'"),
            ("a\rb ?", 2, "s:2:3: error: unexpected character '?'"),
            ("\"open\nb", 1, "s:1:1: error: the string is not closed (expected `\"`)"),
            ("x \"\"\"open\nb", 1, "s:1:3: error: the string is not closed (expected `\"\"\"`)"),
            (r#""a\x" b"#, 1, "s:1:3: error: unknown escape in the string"),
            (r#""\u12" b"#, 1, "s:1:2: error: unknown escape in the string"),
            (r#""\u{110000}" b"#, 1, "s:1:2: error: unknown escape in the string"),
            (r#""\u{12" b"#, 1, "s:1:2: error: unknown escape in the string"),
            (r#""\uD83D" b"#, 1, "s:1:2: error: unknown escape in the string"),
            ("01", 0, "s:1:1: error: `01` is not a number"),
            ("-", 0, "s:1:1: error: `-` is not a number"),
            ("1.", 0, "s:1:1: error: `1.` is not a number"),
            ("1e", 0, "s:1:1: error: `1e` is not a number"),
            ("12ab", 0, "s:1:1: error: `12ab` is not a number"),
        ] {
            let (tokens, lines) = tokens(input);
            assert_eq!((tokens.len(), lines), (count, vec![expected.to_owned()]), "{input:?}");
        }
    }
}
