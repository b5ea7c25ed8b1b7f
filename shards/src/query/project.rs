//! What of a record a query wants: whole records, or attributes as bare values, objects or arrays.

use super::Path;
use crate::clock::Version;
use crate::document::{Reader, Token, Writer};
use crate::event::Event;
use crate::key::KeyCodec;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Select {
    /// Everything that is stored.
    #[default]
    All,
    /// `select(a)`: the bare value.
    Value(Field),
    /// `select(a,b)`
    Object(Vec<Field>),
    /// `select([a,b])`
    Array(Vec<Field>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// As it is named in the result.
    pub name: Box<str>,
    pub source: Source,
    /// `a{x,y}`: what of it, or of its elements.
    pub select: Box<Select>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Path(Path),
    /// `$id`
    Key,
    /// `$updatedtime`
    Version,
    /// `$expiresAt`
    Expires,
}

/// What is known of a record beside its document.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub codec: KeyCodec,
    pub key: &'a [u8],
    pub version: Version,
    pub expires_ms: Option<u64>,
    pub document: &'a [u8],
}

impl<'a> Subject<'a> {
    /// The record as an event has left it.
    pub fn of(codec: KeyCodec, event: &'a Event) -> Subject<'a> {
        let (key, document) = (event.body.key(), event.body.document());
        Subject { codec, key, version: event.version, expires_ms: event.terms.expires_ms, document }
    }
}

/// The value at a path, as it is stored.
fn value_at<'a>(document: &'a [u8], path: &[Box<str>]) -> Option<&'a [u8]> {
    path.iter().try_fold(document, |document, name| crate::document::attribute(document, name))
}

impl Select {
    /// Whether something that is no part of the document is selected: the version, or when the record ends.
    pub fn names_terms(&self) -> bool {
        let fields = match self {
            Select::All => return false,
            Select::Value(field) => std::slice::from_ref(field),
            Select::Object(fields) | Select::Array(fields) => fields,
        };
        fields.iter().any(|field| matches!(field.source, Source::Version | Source::Expires))
    }

    /// Appends what is selected of a record, as a document.
    pub fn project(&self, subject: &Subject<'_>, out: &mut Vec<u8>) {
        match self {
            Select::All => out.extend_from_slice(subject.document),
            Select::Value(field) => field.write(subject, out),
            Select::Object(fields) => {
                out.write_map(fields.len() as u32);
                for field in fields {
                    out.write_str(&field.name);
                    field.write(subject, out);
                }
            }
            Select::Array(fields) => {
                out.write_array(fields.len() as u32);
                fields.iter().for_each(|field| field.write(subject, out));
            }
        }
    }

    /// The same of a value inside a record, or of each element of an array.
    fn project_value(&self, subject: &Subject<'_>, value: &[u8], out: &mut Vec<u8>) {
        let mut reader = Reader::new(value);
        match (self, reader.next()) {
            (Select::All, _) | (_, None) => out.extend_from_slice(value),
            (_, Some(Token::Array(count))) => {
                out.write_array(count);
                for _ in 0..count {
                    match reader.value() {
                        Some(element) => self.project_value(subject, element, out),
                        None => out.write_null(),
                    }
                }
            }
            (_, Some(Token::Map(_))) => self.project(&Subject { document: value, ..*subject }, out),
            _ => out.extend_from_slice(value),
        }
    }
}

impl Field {
    fn write(&self, subject: &Subject<'_>, out: &mut Vec<u8>) {
        match &self.source {
            Source::Path(path) => match value_at(subject.document, path) {
                Some(value) => self.select.project_value(subject, value, out),
                None => out.write_null(),
            },
            Source::Key => subject.codec.write_value(subject.key, out),
            Source::Version => out.write_float(subject.version.as_millis()),
            Source::Expires => match subject.expires_ms {
                Some(at_ms) => out.write_uint(at_ms),
                None => out.write_null(),
            },
        }
    }
}
