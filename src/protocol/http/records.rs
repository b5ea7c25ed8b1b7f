//! Requests about one record, and the description of a table (compat §6.2).

use super::request::Request;
use super::response::{Body, write_field};
use super::session::{HttpSession, NOT_ACCEPTABLE, Pending, Resource};
use crate::protocol::format::{DecodeError, Format};
use crate::protocol::{Context, Flow, explain, payload, status_of};
use shards::clock::Version;
use shards::command::{Operation, Outcome, Precondition, Refusal, Stored, Token, Write};
use shards::document::{self, Writer};
use shards::event;
use shards::key::{KeyCodec, encode_integer};
use shards::query::project::{Select, Subject};
use shards::schema::{Durability, Kind, TableId};

/// How many keys are generated for one record, where clients have taken those that came next.
const KEY_TRIES: u32 = 64;

/// A request about a record whose outcome is on its way.
pub(super) struct Waiting {
    format: Format,
    what: What,
}

enum What {
    /// `acceptable`: a document in the chosen format may be sent; if not, only what is stored opaque.
    Read {
        attribute: Option<String>,
        select: Select,
        key: Vec<u8>,
        codec: KeyCodec,
        if_none_match: Vec<String>,
        acceptable: bool,
    },
    /// PUT and PATCH. `returned`: the record is to be sent (RFC 7240 §4.2).
    Written {
        returned: Option<(TableId, Vec<u8>)>,
    },
    Deleted,
    /// POST. The write is kept where the key was generated: if it is taken the next one is tried, so many times.
    Created {
        table: TableId,
        key: Vec<u8>,
        retry: Option<(u32, Write)>,
    },
}

/// What a query selects of a record.
fn select_of(stored: Stored, select: &Select, codec: KeyCodec, key: &[u8]) -> Stored {
    if *select == Select::All {
        return stored;
    }
    let Stored { version, document } = &stored;
    let subject = Subject { codec, key, version: *version, expires_ms: None, document };
    let mut selected = Vec::new();
    select.project(&subject, &mut selected);
    Stored { version: *version, document: selected.into() }
}

/// What an acknowledgement means: the write is on disk, or in memory and on its way there.
fn write_durability(durability: Durability, out: &mut Vec<u8>) {
    let value = match durability {
        Durability::Disk => "disk",
        Durability::Memory => "memory",
    };
    write_field("Durability", value, out);
}

/// The entity tag of a version in a format (`None`: opaque, the same bytes in each): opaque itself, quoted.
fn write_etag(version: Version, format: Option<Format>, out: &mut String) {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = Vec::new();
    let mut rest = version.0;
    while rest > 0 || digits.is_empty() {
        digits.push(DIGITS[(rest % 36) as usize]);
        rest /= 36;
    }
    out.push('"');
    out.extend(digits.iter().rev().map(|digit| *digit as char));
    // A strong validator tells representations apart (RFC 9110 §8.8.1).
    out.push_str(match format {
        None | Some(Format::Json) => "",
        Some(Format::Cbor) => "-c",
        Some(Format::MessagePack) => "-m",
    });
    out.push('"');
}

/// The version in an entity tag of ours, in whatever format the record was sent.
fn version_of(tag: &str) -> Option<Version> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?.split('-').next()?;
    u64::from_str_radix(digits, 36).ok().map(Version)
}

/// What a write is subject to (RFC 9110 §13.1.1, §13.1.2).
///
/// # Errors
/// Two fields that are not served together.
fn precondition(request: &Request<'_>) -> Result<Option<Box<Precondition>>, &'static str> {
    let tags = |name: &str| -> Option<Vec<String>> {
        request.field(name).is_some().then(|| request.list(name).map(str::to_owned).collect())
    };
    // A weak tag never matches a strong comparison; a tag that is not ours matches nothing.
    let versions = |tags: &[String]| tags.iter().filter_map(|tag| version_of(tag)).collect();
    let is_any = |tags: &[String]| tags.iter().any(|tag| tag == "*");
    Ok(match (tags("if-match"), tags("if-none-match")) {
        (None, None) => None,
        (Some(_), Some(_)) => return Err("If-Match and If-None-Match at once"),
        (Some(tags), None) if is_any(&tags) => Some(Box::new(Precondition::Exists)),
        (Some(tags), None) => Some(Box::new(Precondition::Is(versions(&tags)))),
        (None, Some(tags)) if is_any(&tags) => Some(Box::new(Precondition::Absent)),
        (None, Some(tags)) => Some(Box::new(Precondition::IsNot(versions(&tags)))),
    })
}

impl HttpSession {
    fn wait(&mut self, format: Format, what: What) -> Flow {
        self.pending = Pending::Record(Box::new(Waiting { format, what }));
        Flow::Blocked
    }

    /// The encoded key of a resource, or an answer that says why it has none.
    fn key(&mut self, context: &mut Context<'_>, resource: &Resource<'_>) -> Result<Vec<u8>, Flow> {
        let mut key = Vec::new();
        match KeyCodec::of(context.catalog.table(resource.table)).encode_text(resource.resolved.rest, &mut key) {
            Ok(()) => Ok(key),
            Err(error) => {
                let detail = format!("invalid key `{}`: {error}", resource.resolved.rest);
                Err(self.problem(context, 400, "bad_key", &detail))
            }
        }
    }

    pub(super) fn read(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        resource: &Resource<'_>,
        format: Option<Format>,
        select: Select,
    ) -> Flow {
        let key = match self.key(context, resource) {
            Ok(key) => key,
            Err(flow) => return flow,
        };
        let token = Token { connection: context.connection, tag: 0 };
        context.shard.read(token, resource.table, &key);
        let attribute = resource.attribute.map(str::to_owned);
        let if_none_match = request.list("if-none-match").map(str::to_owned).collect();
        let codec = KeyCodec::of(context.catalog.table(resource.table));
        let what = What::Read { attribute, select, key, codec, if_none_match, acceptable: format.is_some() };
        self.wait(format.unwrap_or(Format::Json), what)
    }

    /// The body as a canonical document after `out`'s first bytes, or an answer that says what is wrong with it.
    pub(super) fn body(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Flow> {
        let content_type = request.field("content-type").filter(|text| !text.is_empty());
        let start = out.len();
        if request.field("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
            return Err(self.problem(context, 415, "unsupported_content_encoding", "no content coding is supported"));
        }
        if request.body.is_empty() {
            return Err(self.problem(context, 400, "no_body", "a body with the record is required"));
        }
        let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        for later in ["application/x-www-form-urlencoded", "application/x-ndjson", "application/ndjson", "text/csv"] {
            if essence.eq_ignore_ascii_case(later) {
                let detail = format!(
                    "{later} is not supported; send application/json, application/cbor or application/x-msgpack"
                );
                return Err(self.problem(context, 415, "unsupported_media_type", &detail));
            }
        }
        let decoder = &mut context.scratch.decoder;
        let decoded: Result<(), DecodeError> = match content_type.and_then(Format::of_media_type) {
            Some(format) => decoder.decode(format, request.body, out),
            None => payload::document(content_type, request.body, decoder, out),
        };
        if let Err(error) = decoded {
            return Err(self.problem(context, 400, "bad_body", &error.to_string()));
        }
        if !payload::is_map(&out[start..]) {
            return Err(self.problem(context, 400, "bad_body", "a record is an object"));
        }
        Ok(())
    }

    pub(super) fn write(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        resource: &Resource<'_>,
        format: Format,
    ) -> Flow {
        if resource.attribute.is_some() {
            return self.problem(context, 400, "bad_path", "an attribute is changed by PATCH of its record");
        }
        let mut bytes = match self.key(context, resource) {
            Ok(key) => key,
            Err(flow) => return flow,
        };
        let key_bytes = bytes.len();
        let wants_it = request.list("prefer").any(|own| own.eq_ignore_ascii_case("return=representation"));
        let returned = wants_it.then(|| (resource.table, bytes.clone()));
        let precondition = match precondition(request) {
            Ok(precondition) => precondition,
            Err(what) => return self.problem(context, 400, "bad_precondition", what),
        };
        let (operation, what) = match request.method {
            "PUT" => (Operation::Put, What::Written { returned }),
            "PATCH" => (Operation::Patch, What::Written { returned }),
            _ => (Operation::Delete, What::Deleted),
        };
        if operation != Operation::Delete
            && let Err(flow) = self.body(context, request, &mut bytes)
        {
            return flow;
        }
        let body = event::Body::from_parts(bytes, key_bytes, 0);
        let token = Some(Token { connection: context.connection, tag: 0 });
        let write = Write { token, precondition, ..Write::new(operation, resource.table, body) };
        context.shard.submit(write);
        self.wait(format, what)
    }

    /// POST to a collection: the key is the body's, or a new one.
    pub(super) fn create(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        resource: &Resource<'_>,
        format: Format,
    ) -> Flow {
        let mut sent = Vec::new();
        if let Err(flow) = self.body(context, request, &mut sent) {
            return flow;
        }
        let table = context.catalog.table(resource.table);
        let codec = KeyCodec::of(table);
        let given = table.primary_key.and_then(|index| document::attribute(&sent, &table.attributes[index].name));
        let mut key = Vec::new();
        let is_given = match given.filter(|value| *value != [0xc0]) {
            Some(value) if codec.encode_value(value, &mut key).is_some() => true,
            Some(_) => return self.problem(context, 400, "bad_key", "the key in the body is not valid for this table"),
            None => false,
        };
        if !is_given && !self.generate_key(context, resource.table, codec, &mut key) {
            return self.problem(context, 409, "no_keys_left", "all keys of this table have been given out");
        }
        let write = created(context, resource.table, &key, &sent);
        let retry = (!is_given).then(|| (KEY_TRIES, write.clone()));
        context.shard.submit(write);
        self.wait(format, What::Created { table: resource.table, key, retry })
    }

    /// False: there are no keys left.
    fn generate_key(&self, context: &mut Context<'_>, table: TableId, codec: KeyCodec, key: &mut Vec<u8>) -> bool {
        key.clear();
        let shards = context.shard.shards();
        match codec {
            KeyCodec::Text => key.extend_from_slice(uuid::Uuid::new_v4().to_string().as_bytes()),
            KeyCodec::Integer => match context.shard.table_mut(table).generate_key(shards) {
                Some(number) => encode_integer(number, key),
                None => return false,
            },
            KeyCodec::Auto => {
                let Some(number) = context.shard.table_mut(table).generate_key(shards) else { return false };
                codec.encode_text(&number.to_string(), key).expect("a number is a key");
            }
        }
        true
    }

    pub(super) fn record_done(&mut self, context: &mut Context<'_>, waiting: Waiting, outcome: Outcome) -> Flow {
        let Waiting { format, what } = waiting;
        match (outcome, what) {
            (Outcome::Record(stored), What::Read { attribute, select, key, codec, if_none_match, acceptable }) => {
                let format = Some(format).filter(|_| acceptable);
                let stored = stored.map(|stored| select_of(stored, &select, codec, &key));
                return self.found(context, format, stored, attribute.as_deref(), &if_none_match);
            }
            (Outcome::Refused(Refusal::Exists), What::Created { table, retry: Some((tries @ 1.., write)), .. }) => {
                // The generated key is taken: the next one.
                let mut key = Vec::new();
                let codec = KeyCodec::of(context.catalog.table(table));
                if !self.generate_key(context, table, codec, &mut key) {
                    return self.problem(context, 409, "no_keys_left", "all keys of this table have been given out");
                }
                let again = created(context, table, &key, write.body.document());
                context.shard.submit(again.clone());
                return self.wait(format, What::Created { table, key, retry: Some((tries - 1, again)) });
            }
            (Outcome::Refused(refusal), _) => {
                let (status, code) = status_of(&refusal);
                return self.problem(context, status, code, &explain(&refusal));
            }
            (Outcome::Written { durability, .. }, What::Created { table, key, .. }) => {
                let codec = KeyCodec::of(context.catalog.table(table));
                let mut id = Vec::new();
                codec.write_value(&key, &mut id);
                let mut scratch = String::new();
                let location = percent_encode(codec.text(&key, &mut scratch));
                self.exchange.document(context, 201, format, &id, |out| {
                    write_field("Location", &location, out);
                    write_durability(durability, out);
                });
            }
            (Outcome::Written { durability, .. }, What::Deleted) => {
                self.exchange.document(context, 200, format, &[0xc3], |out| write_durability(durability, out));
            }
            (Outcome::Written { .. }, What::Written { returned: Some((table, key)) }) => {
                let token = Token { connection: context.connection, tag: 0 };
                context.shard.read(token, table, &key);
                let (attribute, if_none_match, select) = (None, Vec::new(), Select::All);
                let codec = KeyCodec::of(context.catalog.table(table));
                return self
                    .wait(format, What::Read { attribute, select, key, codec, if_none_match, acceptable: true });
            }
            (Outcome::Written { durability, .. }, _) => {
                self.exchange.respond(context, 204, |out| write_durability(durability, out), None);
            }
            (Outcome::Record(_), _) => self.exchange.respond(context, 204, |_| {}, None),
        }
        self.answered(context)
    }

    fn found(
        &mut self,
        context: &mut Context<'_>,
        format: Option<Format>,
        stored: Option<Stored>,
        attribute: Option<&str>,
        if_none_match: &[String],
    ) -> Flow {
        let Some(stored) = stored else {
            self.exchange.respond(context, 404, |_| {}, None);
            return self.answered(context);
        };
        let opaque = if attribute.is_none() { document::opaque(&stored.document) } else { None };
        if opaque.is_none() && format.is_none() {
            return self.problem(context, 406, "not_acceptable", NOT_ACCEPTABLE);
        }
        let mut etag = String::new();
        write_etag(stored.version, format.filter(|_| opaque.is_none()), &mut etag);
        let format = format.unwrap_or(Format::Json);
        let is_known = |tag: &String| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag;
        let write_tag = |out: &mut Vec<u8>| write_field("ETag", &etag, out);
        if if_none_match.iter().any(is_known) {
            self.exchange.respond(context, 304, write_tag, None);
            return self.answered(context);
        }
        match (attribute, opaque) {
            (Some(name), _) => match document::attribute(&stored.document, name) {
                Some(value) => self.exchange.document(context, 200, format, value, write_tag),
                None => self.exchange.respond(context, 404, |_| {}, None),
            },
            (None, Some((content_type, bytes))) => {
                self.exchange.respond(context, 200, write_tag, Some(Body { content_type, bytes }));
            }
            (None, None) => self.exchange.document(context, 200, format, &stored.document, write_tag),
        }
        self.answered(context)
    }

    /// GET of the exported path itself: what the table is.
    pub(super) fn describe(&mut self, context: &mut Context<'_>, resource: &Resource<'_>, format: Format) -> Flow {
        let table = context.catalog.table(resource.table);
        let mut out = Vec::new();
        out.write_map(4);
        for (name, value) in [("records", "./"), ("name", table.name.as_str()), ("database", table.database.as_str())] {
            out.write_str(name);
            out.write_str(value);
        }
        out.write_str("attributes");
        out.write_array(table.attributes.len() as u32);
        for (index, attribute) in table.attributes.iter().enumerate() {
            let is_key = table.primary_key == Some(index);
            out.write_map(2 + u32::from(is_key) + u32::from(attribute.indexed) + u32::from(attribute.required));
            out.write_str("name");
            out.write_str(&attribute.name);
            out.write_str("type");
            out.write_str(type_name(&attribute.kind));
            for (name, on) in
                [("isPrimaryKey", is_key), ("indexed", attribute.indexed), ("required", attribute.required)]
            {
                if on {
                    out.write_str(name);
                    out.write_bool(true);
                }
            }
        }
        self.exchange.document(context, 200, format, &out, |_| {});
        self.answered(context)
    }
}

fn type_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Any => "Any",
        Kind::Id => "ID",
        Kind::Int => "Int",
        Kind::Long => "Long",
        Kind::Float => "Float",
        Kind::String => "String",
        Kind::Boolean => "Boolean",
        Kind::Date => "Date",
        Kind::BigInt => "BigInt",
        Kind::Bytes => "Bytes",
        Kind::Blob => "Blob",
        Kind::Array(_) => "array",
        Kind::Object(_) => "object",
    }
}

fn created(context: &Context<'_>, table: TableId, key: &[u8], document: &[u8]) -> Write {
    Write {
        token: Some(Token { connection: context.connection, tag: 0 }),
        ..Write::new(Operation::Insert, table, event::Body::new(key, document))
    }
}

/// The text as a path segment (RFC 3986 §3.3).
fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=@".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
