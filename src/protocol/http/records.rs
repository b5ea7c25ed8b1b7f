//! Requests about one record, and the description of a table (compat §6.2).

use super::coding::uncoded_tag;
use super::promise::Promise;
use super::representation::{JSON, Representation};
use super::request::Request;
use super::response::{Body, write_field};
use super::session::{HttpSession, NOT_ACCEPTABLE, Pending, Resource};
use crate::protocol::format::{Format, form};
use crate::protocol::{Context, Flow, explain, payload, status_of, write_place};
use shards::clock::Version;
use shards::command::{Operation, Outcome, Precondition, Refusal, Stored, Token, Write};
use shards::document;
use shards::event;
use shards::key::{KeyCodec, encode_integer};
use shards::log::past::Upto;
use shards::query::project::{Select, Subject};
use shards::replay::StreamStart;
use shards::scan::owner;
use shards::schema::{Durability, TableDef, TableId};

/// How many keys are generated for one record, where clients have taken those that came next.
pub(super) const KEY_TRIES: u32 = 64;

/// A request about a record whose outcome is on its way.
pub(super) struct Waiting {
    representation: Representation,
    what: What,
}

pub(super) enum What {
    /// `acceptable`: a document in the chosen format may be sent; if not, only what is stored opaque.
    Read {
        attribute: Option<String>,
        select: Select,
        key: Vec<u8>,
        codec: KeyCodec,
        if_none_match: Vec<String>,
        acceptable: bool,
        /// It is the answer to a write.
        written: Option<(Durability, Vec<u8>)>,
    },
    /// PUT and PATCH. `returned`: the record is to be sent (RFC 7240 §4.2).
    Written {
        returned: bool,
        table: TableId,
        key: Vec<u8>,
    },
    Deleted {
        table: TableId,
        key: Vec<u8>,
    },
    /// POST. The write is kept where the key was generated: if it is taken the next one is tried, so many times.
    Created {
        table: TableId,
        key: Vec<u8>,
        retry: Option<(u32, Write)>,
        /// The request may come again.
        promise: Option<Promise>,
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

/// What an acknowledgement means: the write is on disk, or in memory and on its way there; and a place in the history
/// of the server at which it has happened.
fn write_done(durability: Durability, place: &[u8], out: &mut Vec<u8>) {
    let value = match durability {
        Durability::Disk => "disk",
        Durability::Memory => "memory",
    };
    write_field("Durability", value, out);
    write_field("Position", std::str::from_utf8(place).unwrap_or_default(), out);
}

/// The entity tag of a version in a representation (`None`: opaque, the same bytes in each): opaque itself, quoted.
fn write_etag(version: Version, representation: Option<Representation>, out: &mut String) {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = [0; 13]; // 36^13 > 2^64
    let (mut at, mut rest) = (digits.len(), version.0);
    while rest > 0 || at == digits.len() {
        at -= 1;
        digits[at] = DIGITS[(rest % 36) as usize];
        rest /= 36;
    }
    out.push('"');
    out.extend(digits[at..].iter().map(|digit| char::from(*digit)));
    // A strong validator tells representations apart (RFC 9110 §8.8.1).
    out.push_str(representation.map_or("", Representation::tag));
    out.push('"');
}

/// The version in an entity tag of ours, in whatever format the record was sent.
fn version_of(tag: &str) -> Option<Version> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?.split(['-', '.']).next()?;
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
    pub(super) fn wait(&mut self, representation: Representation, what: What) -> Flow {
        self.pending = Pending::Record(Box::new(Waiting { representation, what }));
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
        representation: Option<Representation>,
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
        let acceptable = representation.is_some();
        let what = What::Read { attribute, select, key, codec, if_none_match, acceptable, written: None };
        self.wait(representation.unwrap_or(JSON), what)
    }

    /// The record as it was after a place, or at a time.
    pub(super) fn read_past(
        &mut self,
        context: &mut Context<'_>,
        resource: &Resource<'_>,
        representation: Option<Representation>,
        select: Select,
        at: StreamStart,
    ) -> Flow {
        let key = match self.key(context, resource) {
            Ok(key) => key,
            Err(flow) => return flow,
        };
        let shards = context.shard.shards();
        let upto = match at {
            StreamStart::Time(at_us) => Upto::Time(at_us),
            StreamStart::Positions(positions) if positions.len() == shards => {
                Upto::Position(positions[usize::from(owner(resource.table, &key, shards))])
            }
            _ => {
                let (status, code) = status_of(&Refusal::Forgotten);
                return self.problem(context, status, code, "the position is that of another server");
            }
        };
        let token = Token { connection: context.connection, tag: 0 };
        context.shard.read_past(token, resource.table, &key, upto);
        let (attribute, if_none_match) = (resource.attribute.map(str::to_owned), Vec::new());
        let codec = KeyCodec::of(context.catalog.table(resource.table));
        let acceptable = representation.is_some();
        let what = What::Read { attribute, select, key, codec, if_none_match, acceptable, written: None };
        self.wait(representation.unwrap_or(JSON), what)
    }

    /// Refuses a body that is compressed.
    pub(super) fn check_coding(&mut self, context: &mut Context<'_>, request: &Request<'_>) -> Result<(), Flow> {
        if request.field("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
            let detail = "bodies are taken as they are, without a content coding";
            return Err(self.problem(context, 415, "unsupported_content_encoding", detail));
        }
        Ok(())
    }

    /// The body as a canonical document after `out`'s first bytes, or an answer that says what is wrong with it.
    pub(super) fn content(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        table: TableId,
        out: &mut Vec<u8>,
    ) -> Result<(), Flow> {
        self.check_coding(context, request)?;
        if self.incoming.is_some() {
            let detail = "a sequence of records is written to a collection, whose path ends with a slash";
            return Err(self.problem(context, 415, "unsupported_media_type", detail));
        }
        if request.body.is_empty() {
            return Err(self.problem(context, 400, "no_body", "a body with the record is required"));
        }
        let content_type = request.field("content-type").filter(|text| !text.is_empty());
        let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        let is_form = essence.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        let decoder = &mut context.scratch.decoder;
        let decoded = match content_type.and_then(Format::of_media_type) {
            Some(format) => decoder.decode(format, request.body, out).map_err(|error| error.to_string()),
            // `curl -d` calls everything a form.
            None if is_form && request.body.starts_with(b"{") => {
                Err("it looks like JSON: send it with Content-Type: application/json".into())
            }
            None if is_form => form::decode(request.body, context.catalog.table(table), out),
            None => {
                payload::document(content_type, request.body, decoder, out).map(drop).map_err(|error| error.to_string())
            }
        };
        decoded.map_err(|what| self.problem(context, 400, "bad_body", &what))
    }

    /// The same of a body that is one record.
    pub(super) fn body(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        table: TableId,
        out: &mut Vec<u8>,
    ) -> Result<(), Flow> {
        let start = out.len();
        self.content(context, request, table, out)?;
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
        representation: Representation,
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
        let (table, key) = (resource.table, bytes.clone());
        let precondition = match precondition(request) {
            Ok(precondition) => precondition,
            Err(what) => return self.problem(context, 400, "bad_precondition", what),
        };
        let (operation, what) = match request.method {
            "PUT" => (Operation::Put, What::Written { returned: wants_it, table, key }),
            "PATCH" => (Operation::Patch, What::Written { returned: wants_it, table, key }),
            _ => (Operation::Delete, What::Deleted { table, key }),
        };
        if operation != Operation::Delete
            && let Err(flow) = self.body(context, request, table, &mut bytes)
        {
            return flow;
        }
        let body = event::Body::from_parts(bytes, key_bytes, 0);
        let token = Some(Token { connection: context.connection, tag: 0 });
        let write = Write { token, precondition, ..Write::new(operation, resource.table, body) };
        self.submit(context, request, write, what, representation)
    }

    /// POST of one record to a collection: the key is the record's, or a new one.
    pub(super) fn create(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        table: TableId,
        representation: Representation,
        sent: &[u8],
    ) -> Flow {
        let definition = context.catalog.table(table);
        let codec = KeyCodec::of(definition);
        let mut key = Vec::new();
        let is_given = match key_in(sent, definition, codec, &mut key) {
            Ok(is_given) => is_given,
            Err(what) => return self.problem(context, 400, "bad_key", &what),
        };
        if !is_given && !self.generate_key(context, table, codec, &mut key) {
            return self.problem(context, 409, "no_keys_left", "all keys of this table have been given out");
        }
        let write = created(context, table, &key, sent);
        let retry = (!is_given).then(|| (KEY_TRIES, write.clone()));
        self.submit(context, request, write, What::Created { table, key, retry, promise: None }, representation)
    }

    /// False: there are no keys left.
    pub(super) fn generate_key(
        &self,
        context: &mut Context<'_>,
        table: TableId,
        codec: KeyCodec,
        key: &mut Vec<u8>,
    ) -> bool {
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
        let Waiting { representation, what } = waiting;
        match (outcome, what) {
            // Somebody has deleted it meanwhile.
            (Outcome::Record(None), What::Read { written: Some((durability, place)), .. }) => {
                self.exchange.respond(context, 204, |out| write_done(durability, &place, out), None);
            }
            (
                Outcome::Record(stored),
                What::Read { attribute, select, key, codec, if_none_match, acceptable, written },
            ) => {
                let representation = Some(representation).filter(|_| acceptable);
                let stored = stored.map(|stored| select_of(stored, &select, codec, &key));
                return self.found(context, representation, stored, attribute.as_deref(), &if_none_match, written);
            }
            (
                Outcome::Refused(Refusal::Exists),
                What::Created { table, retry: Some((tries @ 1.., write)), promise, .. },
            ) => {
                // The generated key is taken: the next one.
                let mut key = Vec::new();
                let codec = KeyCodec::of(context.catalog.table(table));
                if !self.generate_key(context, table, codec, &mut key) {
                    return self.problem(context, 409, "no_keys_left", "all keys of this table have been given out");
                }
                let again = created(context, table, &key, write.body.document());
                let retry = Some((tries - 1, again.clone()));
                let what = What::Created { table, key, retry, promise: None };
                if let Some(promise) = promise {
                    return self.promise_again(context, promise, again, what, representation);
                }
                context.shard.submit(again);
                return self.wait(representation, what);
            }
            (Outcome::Refused(refusal), _) => {
                let (status, code) = status_of(&refusal);
                return self.problem(context, status, code, &explain(&refusal));
            }
            (Outcome::Written { durability, position, .. }, What::Created { table, key, .. }) => {
                let place = write_place(context, table, &key, position);
                let codec = KeyCodec::of(context.catalog.table(table));
                let mut id = Vec::new();
                codec.write_value(&key, &mut id);
                let mut scratch = String::new();
                let location = percent_encode(codec.text(&key, &mut scratch));
                self.exchange.document(context, 201, representation, &id, None, |out| {
                    write_field("Location", &location, out);
                    write_done(durability, &place, out);
                });
            }
            (Outcome::Written { durability, position, .. }, What::Deleted { table, key }) => {
                let place = write_place(context, table, &key, position);
                let fields = |out: &mut Vec<u8>| write_done(durability, &place, out);
                self.exchange.document(context, 200, representation, &[0xc3], None, fields);
            }
            (Outcome::Written { durability, position, .. }, What::Written { returned: true, table, key }) => {
                let written = Some((durability, write_place(context, table, &key, position)));
                let token = Token { connection: context.connection, tag: 0 };
                context.shard.read(token, table, &key);
                let (attribute, if_none_match, select) = (None, Vec::new(), Select::All);
                let codec = KeyCodec::of(context.catalog.table(table));
                let what = What::Read { attribute, select, key, codec, if_none_match, acceptable: true, written };
                return self.wait(representation, what);
            }
            (Outcome::Written { durability, position, .. }, What::Written { table, key, .. }) => {
                let place = write_place(context, table, &key, position);
                self.exchange.respond(context, 204, |out| write_done(durability, &place, out), None);
            }
            (Outcome::Record(_) | Outcome::Written { .. }, _) => self.exchange.respond(context, 204, |_| {}, None),
        }
        self.answered(context)
    }

    fn found(
        &mut self,
        context: &mut Context<'_>,
        representation: Option<Representation>,
        stored: Option<Stored>,
        attribute: Option<&str>,
        if_none_match: &[String],
        written: Option<(Durability, Vec<u8>)>,
    ) -> Flow {
        let fields = |out: &mut Vec<u8>| {
            written.iter().for_each(|(durability, place)| write_done(*durability, place, out));
        };
        let Some(stored) = stored else {
            self.exchange.respond(context, 404, |_| {}, None);
            return self.answered(context);
        };
        let opaque = if attribute.is_none() { document::opaque(&stored.document) } else { None };
        if opaque.is_none() && representation.is_none() {
            return self.problem(context, 406, "not_acceptable", NOT_ACCEPTABLE);
        }
        let mut etag = String::with_capacity(24);
        write_etag(stored.version, representation.filter(|_| opaque.is_none()), &mut etag);
        let representation = representation.unwrap_or(JSON);
        let is_known = |tag: &&String| **tag == "*" || uncoded_tag(tag.strip_prefix("W/").unwrap_or(tag)) == etag;
        if let Some(known) = if_none_match.iter().find(is_known) {
            let known = if known == "*" { &etag } else { known.strip_prefix("W/").unwrap_or(known) };
            self.exchange.respond(context, 304, |out| write_field("ETag", known, out), None);
            return self.answered(context);
        }
        let etag = Some(etag.as_str());
        match (attribute, opaque) {
            (Some(name), _) => match document::attribute(&stored.document, name) {
                Some(value) => self.exchange.document(context, 200, representation, value, etag, fields),
                None => self.exchange.respond(context, 404, |_| {}, None),
            },
            (None, Some((content_type, bytes))) => {
                self.exchange.respond(context, 200, fields, Some(Body { content_type, bytes, etag }));
            }
            (None, None) => self.exchange.document(context, 200, representation, &stored.document, etag, fields),
        }
        self.answered(context)
    }
}

/// The key that a record names, encoded. False: it names none.
///
/// # Errors
/// It is no key of this table.
pub(super) fn key_in(
    document: &[u8],
    definition: &TableDef,
    codec: KeyCodec,
    key: &mut Vec<u8>,
) -> Result<bool, String> {
    let name = definition.primary_key.map(|index| &definition.attributes[index].name);
    match name.and_then(|name| document::attribute(document, name)).filter(|value| *value != [0xc0]) {
        None => Ok(false),
        Some(value) if codec.encode_value(value, key).is_some() => Ok(true),
        Some(_) => Err("the key in the body is not valid for this table".into()),
    }
}

pub(super) fn created(context: &Context<'_>, table: TableId, key: &[u8], document: &[u8]) -> Write {
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
