//! YAML as a tree of text with positions. Called by `app::config` and `settings`, which both want to say where a
//! mistake stands and to judge scalar text themselves (a setting is the same text in a file, a variable and a flag).

use crate::diagnostic::{Diagnostics, Place};
use saphyr_parser::{Event, Parser, ScalarStyle};

/// Deep enough for anything written by hand; a bound so that no file can exhaust the stack.
const DEPTH_MAX: usize = 16;

#[derive(Debug, PartialEq)]
pub struct Node<'a> {
    pub place: Place<'a>,
    pub value: Value<'a>,
}

#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    Scalar {
        text: String,
        /// Not quoted, so that `true`, `~` and the like have their special meaning.
        plain: bool,
    },
    List(Vec<Node<'a>>),
    Map(Vec<Entry<'a>>),
}

#[derive(Debug, PartialEq)]
pub struct Entry<'a> {
    pub key: String,
    pub key_place: Place<'a>,
    pub value: Node<'a>,
}

impl<'a> Node<'a> {
    /// The text of a scalar that is not null.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    pub fn boolean(&self) -> Option<bool> {
        match &self.value {
            Value::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    pub fn map(&self) -> Option<&[Entry<'a>]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// For messages: `found a list`.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing".to_owned(),
            Value::Scalar { text, .. } => format!("`{text}`"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

/// The root node; `None` for an empty file, or after an error that was reported.
pub fn parse<'a>(file: &'a str, text: &str, diagnostics: &mut Diagnostics) -> Option<Node<'a>> {
    let mut loader = Loader { file, events: Parser::new_from_str(text.trim_start_matches('\u{feff}')) };
    match loader.document(diagnostics) {
        Ok(root) => root,
        Err((place, message)) => {
            diagnostics.error(place, message);
            None
        }
    }
}

type Failure<'a> = (Place<'a>, String);

struct Loader<'a, 't> {
    file: &'a str,
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
}

impl<'a, 't> Loader<'a, 't> {
    fn next(&mut self) -> Result<(Event<'t>, Place<'a>), Failure<'a>> {
        let place = |mark: &saphyr_parser::Marker| Place {
            file: self.file,
            line: u32::try_from(mark.line()).unwrap_or(u32::MAX),
            column: u32::try_from(mark.col() + 1).unwrap_or(u32::MAX),
        };
        match self.events.next() {
            Some(Ok((event, span))) => Ok((event, place(&span.start))),
            Some(Err(error)) => Err((place(error.marker()), error.info().to_owned())),
            None => Ok((Event::StreamEnd, Place::whole(self.file))),
        }
    }

    fn document(&mut self, diagnostics: &mut Diagnostics) -> Result<Option<Node<'a>>, Failure<'a>> {
        let mut root = None;
        loop {
            let (event, place) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                _ if root.is_some() => return Err((place, "a second YAML document (expected one)".to_owned())),
                event => root = Some(self.node(event, place, DEPTH_MAX, diagnostics)?),
            }
        }
    }

    fn node(
        &mut self,
        event: Event<'t>,
        place: Place<'a>,
        depth: usize,
        diagnostics: &mut Diagnostics,
    ) -> Result<Node<'a>, Failure<'a>> {
        if depth == 0 {
            return Err((place, format!("nested too deeply (expected at most {DEPTH_MAX} levels)")));
        }
        let value = match event {
            Event::Scalar(text, style, ..) => {
                Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(..) => Value::List(self.list(depth - 1, diagnostics)?),
            Event::MappingStart(..) => Value::Map(self.map(depth - 1, diagnostics)?),
            Event::Alias(_) => return Err((place, "aliases are not supported (expected a value)".to_owned())),
            _ => return Err((place, "expected a value".to_owned())),
        };
        Ok(Node { place, value })
    }

    fn list(&mut self, depth: usize, diagnostics: &mut Diagnostics) -> Result<Vec<Node<'a>>, Failure<'a>> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, place) => items.push(self.node(event, place, depth, diagnostics)?),
            }
        }
    }

    fn map(&mut self, depth: usize, diagnostics: &mut Diagnostics) -> Result<Vec<Entry<'a>>, Failure<'a>> {
        let mut entries: Vec<Entry<'a>> = Vec::new();
        loop {
            let (key, key_place) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                (Event::Scalar(text, ..), place) => (text.into_owned(), place),
                (_, place) => return Err((place, "expected a name before the `:`".to_owned())),
            };
            let (event, place) = self.next()?;
            let value = self.node(event, place, depth, diagnostics)?;
            if entries.iter().any(|entry| entry.key == key) {
                diagnostics.error(key_place, format!("`{key}` is given twice"));
            } else {
                entries.push(Entry { key, key_place, value });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_kinds() {
        let mut diagnostics = Diagnostics::default();
        let text = "# top\nrest: true\nstatic:\n  files: 'web/**'\n  list: [a, \"b\"]\nnone:\n";
        let root = parse("c.yaml", text, &mut diagnostics).expect("parses");
        let entries = root.map().expect("a map");
        assert_eq!(entries[0].value.boolean(), Some(true));
        let files = &entries[1].value.map().expect("a map")[0];
        assert_eq!((files.key_place.line, files.key_place.column), (4, 3));
        assert_eq!((files.value.place.line, files.value.place.column), (4, 10));
        assert_eq!(files.value.text(), Some("web/**"));
        assert!(entries[2].value.is_null());
        assert!(diagnostics.lines().is_empty());
    }

    #[test]
    fn errors() {
        let deep = format!("a: {}{}", "[".repeat(40), "]".repeat(40));
        for (text, expected) in [
            ("a: 1\nb: 2\na: 3\n", "c.yaml:3:1: error: `a` is given twice"),
            ("a: &x 1\nb: *x\n", "c.yaml:2:4: error: aliases are not supported"),
            ("a: 1\n---\nb: 2\n", "c.yaml:3:1: error: a second YAML document"),
            ("a: 'open\n", "c.yaml:1:4: error: "),
            ("a: [1, 2\n", "c.yaml:2:1: error: "),
            ("? [a]\n: 1\n", "c.yaml:1:3: error: expected a name"),
            (&deep, "c.yaml:1:19: error: nested too deeply"),
        ] {
            let mut diagnostics = Diagnostics::default();
            parse("c.yaml", text, &mut diagnostics);
            let lines = diagnostics.lines();
            assert!(lines.len() == 1 && lines[0].starts_with(expected), "{text:?} gave {lines:?}");
        }
    }
}
