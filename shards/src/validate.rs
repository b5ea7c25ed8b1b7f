//! From what a client sent to what is stored: validation and coercion by the schema with all errors collected
//! (compat §2.3), shallow merge for a patch, the key property, created and updated times. Called by the shard that owns
//! the record, straight into the open batch of its log.

use crate::clock::Version;
use crate::date::{parse_iso, write_iso};
use crate::document::{Date, Reader, Token, Writer};
use crate::key::KeyCodec;
use crate::limits::{PROPERTIES_MAX, VIOLATIONS_MAX};
use crate::schema::{Attribute, Kind, Object, Role, TableDef};
use std::ops::Range;

/// One property that breaks the schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// Dotted path of the property.
    pub property: String,
    pub rule: Rule,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// The value (a canonical document) is not of the declared kind; the text says what it must be.
    MustBe { value: Vec<u8>, what: &'static str },
    /// Undeclared property of a sealed table or object.
    NotAllowed,
    /// Missing or null.
    Required,
    /// `@relationship` and `@computed` attributes are never assigned.
    NotAssignable,
    /// A record has at most [`PROPERTIES_MAX`] properties.
    TooMany,
}

/// Which write is being made of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The whole record is replaced.
    Replace,
    /// The properties given replace those of the stored record.
    Merge,
    /// Not stored as a record: validated and coerced, nothing is added.
    Message,
}

/// What a write is about.
pub struct Subject<'a> {
    pub table: &'a TableDef,
    pub codec: KeyCodec,
    /// Encoded; empty for a message to the table's own topic.
    pub key: &'a [u8],
    pub mode: Mode,
    /// The record as it is stored now.
    pub previous: Option<&'a [u8]>,
    pub version: Version,
}

/// Reusable scratch of one shard: no allocation per write once warm.
#[derive(Default)]
pub struct Builder {
    entries: Vec<Entry>,
    coerced: Vec<u8>,
    path: String,
    /// The properties that were sent are stored as they stand in the sent document, in their order; what is added stands
    /// behind them.
    is_verbatim: bool,
}

/// One top-level property: where its name stands and where its value stands.
#[derive(Clone)]
struct Entry {
    source: Source,
    name: Range<usize>,
    value: Value,
}

#[derive(Clone)]
enum Value {
    /// In the text that `source` names.
    Verbatim(Range<usize>),
    /// In `Builder::coerced`.
    Coerced(Range<usize>),
}

#[derive(Clone, Copy, PartialEq)]
enum Source {
    Sent,
    Previous,
}

impl Builder {
    /// Appends to `out` the document to store for the `sent` one, or tells all that is wrong with it. `sent` must be a
    /// well-formed map. True: it is the sent one, byte for byte.
    pub fn build(&mut self, subject: &Subject<'_>, sent: &[u8], out: &mut Vec<u8>) -> Result<bool, Vec<Violation>> {
        self.entries.clear();
        self.coerced.clear();
        self.is_verbatim = true;
        let count = |document: &[u8]| match Reader::new(document).next() {
            Some(Token::Map(count)) => count as usize,
            _ => 0,
        };
        if count(sent) + subject.previous.map_or(0, count) > 2 * PROPERTIES_MAX || count(sent) > PROPERTIES_MAX {
            return Err(vec![Violation { property: String::new(), rule: Rule::TooMany }]);
        }
        self.read(sent, Source::Sent);
        let mut violations = Vec::new();
        self.check(subject, sent, &mut violations);
        if !violations.is_empty() {
            return Err(violations);
        }
        if subject.mode == Mode::Merge {
            self.merge(subject, sent);
        }
        if subject.mode != Mode::Message {
            self.set_key(subject, sent);
            self.set_times(subject, sent);
        }
        if self.is_verbatim && self.entries.len() == count(sent) {
            out.extend_from_slice(sent);
            return Ok(true);
        }
        self.emit(subject, sent, out);
        Ok(false)
    }

    fn read(&mut self, document: &[u8], source: Source) {
        let mut reader = Reader::new(document);
        let Some(Token::Map(count)) = reader.next() else { return };
        for _ in 0..count {
            let Some(name) = reader.text_bytes() else { return };
            let end = reader.position();
            let Some(value) = reader.value() else { return };
            let entry = Entry {
                source,
                name: end - name.len()..end,
                value: Value::Verbatim(reader.position() - value.len()..reader.position()),
            };
            // Of a name given twice the last value counts, as in JavaScript.
            match self.entries.iter_mut().find(|known| document.get(known.name.clone()) == Some(name)) {
                Some(known) => {
                    *known = entry;
                    self.is_verbatim = false;
                }
                None => self.entries.push(entry),
            }
        }
    }

    fn find(&self, name: &str, sent: &[u8]) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| entry.source == Source::Sent && &sent[entry.name.clone()] == name.as_bytes())
    }

    fn check(&mut self, subject: &Subject<'_>, sent: &[u8], violations: &mut Vec<Violation>) {
        let table = subject.table;
        for (index, attribute) in table.attributes.iter().enumerate() {
            let is_key = table.primary_key == Some(index);
            let found = self.find(&attribute.name, sent);
            let managed = matches!(attribute.role, Role::CreatedTime | Role::UpdatedTime);
            if (is_key || managed) && subject.mode != Mode::Message {
                continue; // the server sets these, whatever was sent
            }
            let value = match found.map(|index| &self.entries[index].value) {
                Some(Value::Verbatim(range)) => Some(&sent[range.clone()]),
                _ => None,
            };
            match value {
                None if subject.mode == Mode::Replace => check_absent(attribute, &attribute.name, violations),
                None => {}
                Some(_) if attribute.role == Role::Virtual => {
                    violations.push(Violation { property: attribute.name.clone(), rule: Rule::NotAssignable });
                }
                Some(value) => {
                    let start = self.coerced.len();
                    let errors = violations.len();
                    let Builder { coerced, path, .. } = self;
                    path.clear();
                    path.push_str(&attribute.name);
                    coerce(&attribute.kind, attribute.required, value, path, coerced, violations);
                    if errors == violations.len() && self.coerced[start..] != *value {
                        let range = start..self.coerced.len();
                        self.entries[found.unwrap_or_default()].value = Value::Coerced(range);
                        self.is_verbatim = false;
                    } else {
                        self.coerced.truncate(start);
                    }
                }
            }
        }
        if table.sealed {
            for entry in &self.entries {
                let name = &sent[entry.name.clone()];
                if !table.attributes.iter().any(|attribute| attribute.name.as_bytes() == name) {
                    let property = String::from_utf8_lossy(name).into_owned();
                    violations.push(Violation { property, rule: Rule::NotAllowed });
                }
            }
        }
    }

    /// Stored properties keep their places; those that were sent take their values; new ones follow.
    fn merge(&mut self, subject: &Subject<'_>, sent: &[u8]) {
        let Some(previous) = subject.previous else { return };
        self.is_verbatim = false;
        let mut patch = std::mem::take(&mut self.entries);
        self.read(previous, Source::Previous);
        for entry in &mut self.entries {
            let name = &previous[entry.name.clone()];
            if let Some(at) = patch.iter().position(|patched| &sent[patched.name.clone()] == name) {
                *entry = patch.remove(at);
            }
        }
        self.entries.append(&mut patch);
    }

    fn name<'a>(&self, entry: &Entry, subject: &Subject<'a>, sent: &'a [u8]) -> &'a [u8] {
        match entry.source {
            Source::Sent => &sent[entry.name.clone()],
            Source::Previous => &subject.previous.unwrap_or_default()[entry.name.clone()],
        }
    }

    /// Sets a property to a value in `coerced`, in its place where it is there.
    fn set(&mut self, name: &str, value: Range<usize>, subject: &Subject<'_>, sent: &[u8]) {
        let Some(at) = self.entries.iter().position(|entry| self.name(entry, subject, sent) == name.as_bytes()) else {
            return self.append(name, value);
        };
        let is_same = match &self.entries[at] {
            Entry { source: Source::Sent, value: Value::Verbatim(own), .. } => {
                sent[own.clone()] == self.coerced[value.clone()]
            }
            _ => false,
        };
        if !is_same {
            self.entries[at].value = Value::Coerced(value);
            self.is_verbatim = false;
        }
    }

    /// The key of the path always wins over the body's (compat §2.4).
    fn set_key(&mut self, subject: &Subject<'_>, sent: &[u8]) {
        let Some(index) = subject.table.primary_key else { return };
        let start = self.coerced.len();
        subject.codec.write_value(subject.key, &mut self.coerced);
        let value = start..self.coerced.len();
        self.set(&subject.table.attributes[index].name, value, subject, sent);
    }

    fn set_times(&mut self, subject: &Subject<'_>, sent: &[u8]) {
        for attribute in &subject.table.attributes {
            let start = self.coerced.len();
            match attribute.role {
                Role::UpdatedTime => write_time(&attribute.kind, subject.version, &mut self.coerced),
                Role::CreatedTime => {
                    let kept =
                        subject.previous.and_then(|document| crate::document::attribute(document, &attribute.name));
                    match kept {
                        Some(value) => self.coerced.extend_from_slice(value),
                        None => write_time(&attribute.kind, subject.version, &mut self.coerced),
                    }
                }
                _ => continue,
            }
            let value = start..self.coerced.len();
            self.set(&attribute.name, value, subject, sent);
        }
    }

    /// Adds a property whose name stands in neither text: name and value are both kept in `coerced`, and the entry's
    /// empty name says so.
    fn append(&mut self, name: &str, value: Range<usize>) {
        let start = self.coerced.len();
        self.coerced.write_str(name);
        self.coerced.extend_from_within(value);
        let value = Value::Coerced(start..self.coerced.len());
        self.entries.push(Entry { source: Source::Sent, name: 0..0, value });
    }

    fn emit(&self, subject: &Subject<'_>, sent: &[u8], out: &mut Vec<u8>) {
        out.write_map(self.entries.len() as u32);
        let mut entries = &self.entries[..];
        if self.is_verbatim {
            let mut reader = Reader::new(sent);
            let _ = reader.next(); // how many there are
            out.extend_from_slice(&sent[reader.position()..]);
            let added = entries.iter().position(|entry| entry.name == (0..0));
            entries = &entries[added.unwrap_or(entries.len())..];
        }
        for entry in entries {
            if entry.name != (0..0) {
                out.write_text(self.name(entry, subject, sent));
            }
            let source = match entry.source {
                Source::Sent => sent,
                Source::Previous => subject.previous.unwrap_or_default(),
            };
            out.extend_from_slice(match &entry.value {
                Value::Verbatim(range) => &source[range.clone()],
                Value::Coerced(range) => &self.coerced[range.clone()],
            });
        }
    }
}

fn check_absent(attribute: &Attribute, path: &str, violations: &mut Vec<Violation>) {
    if attribute.required && attribute.role == Role::Plain {
        violations.push(Violation { property: path.to_owned(), rule: Rule::Required });
    }
}

fn write_time(kind: &Kind, version: Version, out: &mut Vec<u8>) {
    match kind {
        Kind::Date => out.write_date(Date::from_micros(version.0)),
        Kind::String => {
            let mut text = String::new();
            write_iso(Date::from_micros(version.0), &mut text);
            out.write_str(&text);
        }
        _ => out.write_float(version.as_millis()),
    }
}

const INT_RANGE: std::ops::RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;
const LONG_RANGE: std::ops::RangeInclusive<i64> = -(1 << 53)..=1 << 53;

/// Appends `value` as `kind` wants it, or says what is wrong. `path` names the property and is left as it was.
fn coerce(
    kind: &Kind,
    required: bool,
    value: &[u8],
    path: &mut String,
    out: &mut Vec<u8>,
    violations: &mut Vec<Violation>,
) {
    let mut reader = Reader::new(value);
    let Some(token) = reader.next() else { return };
    if violations.len() >= VIOLATIONS_MAX {
        return; // enough is said
    }
    if token == Token::Null {
        if required {
            violations.push(Violation { property: path.clone(), rule: Rule::Required });
        }
        return out.write_null();
    }
    let what = match (kind, token) {
        (Kind::Any, _)
        | (Kind::String | Kind::Id, Token::Str(_))
        | (Kind::Boolean, Token::Bool(_))
        | (Kind::Float, Token::Int(_) | Token::Uint(_) | Token::Float(_))
        | (Kind::Date, Token::Date(_))
        | (Kind::BigInt, Token::Int(_) | Token::Uint(_))
        | (Kind::Bytes | Kind::Blob, Token::Bytes(_)) => return out.extend_from_slice(value),
        (Kind::Int | Kind::Long, Token::Int(_) | Token::Float(_)) => {
            let range = if *kind == Kind::Int { INT_RANGE } else { LONG_RANGE };
            match token {
                Token::Int(number) if range.contains(&number) => return out.write_int(number),
                // 20.0 is an integer to a client whose numbers are all floats.
                Token::Float(number) if number.fract() == 0.0 && range.contains(&(number as i64)) => {
                    return out.write_int(number as i64);
                }
                _ => name_of(kind),
            }
        }
        (Kind::Id, Token::Array(count))
            if count > 0 && (0..count).all(|_| matches!(reader.next(), Some(Token::Str(_)))) =>
        {
            return out.extend_from_slice(value);
        }
        (Kind::Date, Token::Str(text)) => match parse_iso(text) {
            Some(date) => return out.write_date(date),
            None => name_of(kind),
        },
        (Kind::Date, Token::Int(_) | Token::Float(_)) => {
            let millis = match token {
                Token::Int(number) => number as f64,
                Token::Float(number) => number,
                _ => f64::NAN,
            };
            match Date::from_millis(millis) {
                Some(date) => return out.write_date(date),
                None => name_of(kind),
            }
        }
        (Kind::BigInt, Token::Str(text)) => match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(number), _) => return out.write_int(number),
            (_, Ok(number)) => return out.write_uint(number),
            _ => name_of(kind),
        },
        (Kind::BigInt, Token::Float(number)) if number.fract() == 0.0 && number.abs() < 9.2e18 => {
            return out.write_int(number as i64);
        }
        (Kind::Bytes | Kind::Blob, Token::Str(text)) => return out.write_bytes(text.as_bytes()),
        (Kind::Array(element), Token::Array(count)) => {
            out.write_array(count);
            for index in 0..count {
                let Some(item) = reader.value() else { return };
                nested(path, &index.to_string(), |path| {
                    coerce(&element.kind, element.required, item, path, out, violations);
                });
            }
            return;
        }
        (Kind::Object(object), Token::Map(count)) => {
            return coerce_object(object, count, reader, path, out, violations);
        }
        _ => name_of(kind),
    };
    // A long value is not repeated.
    let value = if value.len() <= 256 { value.to_vec() } else { vec![0xc0] };
    violations.push(Violation { property: path.clone(), rule: Rule::MustBe { value, what } });
}

fn coerce_object(
    object: &Object,
    count: u32,
    mut reader: Reader<'_>,
    path: &mut String,
    out: &mut Vec<u8>,
    violations: &mut Vec<Violation>,
) {
    out.write_map(count);
    let start = reader.clone();
    for _ in 0..count {
        let (Some(name), Some(value)) = (reader.key(), reader.value()) else { return };
        out.write_str(name);
        nested(path, name, |path| match object.attributes.iter().find(|attribute| attribute.name == name) {
            Some(attribute) => coerce(&attribute.kind, attribute.required, value, path, out, violations),
            None => {
                if object.sealed {
                    violations.push(Violation { property: path.clone(), rule: Rule::NotAllowed });
                }
                out.extend_from_slice(value);
            }
        });
    }
    for attribute in object.attributes.iter().filter(|attribute| attribute.required) {
        let mut names = start.clone();
        let present = (0..count).any(|_| {
            let name = names.key();
            names.value();
            name == Some(attribute.name.as_str())
        });
        if !present {
            nested(path, &attribute.name, |path| check_absent(attribute, path, violations));
        }
    }
}

/// Runs `body` with `path` extended by `.name`.
fn nested(path: &mut String, name: &str, body: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('.');
    path.push_str(name);
    body(path);
    path.truncate(length);
}

/// The end of the message of compat §2.3.
fn name_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::String => "a string",
        Kind::Id => "a string, or an array of strings",
        Kind::Int => "an integer (from -2147483648 to 2147483647)",
        Kind::Long => "an integer (from -9007199254740992 to 9007199254740992)",
        Kind::Float => "a number",
        Kind::Boolean => "a boolean",
        Kind::Date => "a Date",
        Kind::BigInt => "a bigint",
        Kind::Bytes => "a Buffer or Uint8Array",
        Kind::Blob => "a Blob",
        Kind::Array(_) => "an Array",
        Kind::Object(_) => "an object",
        Kind::Any => "anything",
    }
}

#[cfg(test)]
mod tests;
