//! What a client may say on a WebSocket on records that was opened with `?duplex`: writes, which are acknowledged with a
//! place in the history, and further subscriptions on the same socket. Each frame is an object in the socket's format:
//!
//! ```text
//! {"type":"put"|"patch"|"message","id":…,"value":{…},"path":"Sensors","ref":…}     → {"type":"ack","ref":…,"version":…,"position":…}
//! {"type":"delete","id":…}                                                         → the same
//! {"type":"subscribe","path":"/Sensors/?temp=gt=30","ref":…}                       → {"type":"subscribed","ref":…}
//! {"type":"unsubscribe","ref":…}                                                   → {"type":"unsubscribed","ref":…}
//! ```
//!
//! `path` names another table than the socket's own, `ref` is any value and comes back. What cannot be done is answered
//! with `{"type":"problem","ref":…,"status":…,"detail":…}`.

use crate::protocol::format::Format;
use crate::protocol::path::{decode, split_suffix};
use crate::protocol::watch::{Stream, Watch};
use crate::protocol::{Context, explain, payload, status_of, write_place};
use shards::command::{Operation, Outcome, Token, Write};
use shards::document::{Reader, Token as Value, Writer, attribute};
use shards::event::Body;
use shards::key::KeyCodec;
use shards::schema::TableId;
use shards::topic::{KeyFilter, Resolved, Target};
use std::collections::HashMap;

/// A write on its way.
struct Waiting {
    reference: Box<[u8]>,
    table: TableId,
    key: Box<[u8]>,
}

pub struct Duplex {
    /// The socket's own table and, where it is about one record, that key.
    target: Target,
    encoding: u8,
    next_tag: u64,
    waiting: HashMap<u64, Waiting>,
    /// Further subscriptions, by their references.
    pub streams: Vec<(Box<[u8]>, Stream)>,
}

/// Why a frame is not followed: status and words.
type Problem = (u16, String);

fn problem(status: u16, detail: impl Into<String>) -> Problem {
    (status, detail.into())
}

fn text<'a>(document: &'a [u8], name: &str) -> Option<&'a str> {
    match Reader::new(attribute(document, name)?).next()? {
        Value::Str(text) => Some(text),
        _ => None,
    }
}

/// Begins an answer of so many members beside `type` and `ref`.
fn begin(kind: &str, reference: &[u8], members: u32, out: &mut Vec<u8>) {
    out.write_map(1 + u32::from(!reference.is_empty()) + members);
    out.write_str("type");
    out.write_str(kind);
    if !reference.is_empty() {
        out.write_str("ref");
        out.extend_from_slice(reference);
    }
}

impl Duplex {
    pub fn new(target: Target, encoding: u8) -> Duplex {
        Duplex { target, encoding, next_tag: 0, waiting: HashMap::new(), streams: Vec::new() }
    }

    /// Follows a frame; appends the answer, if there is one already.
    pub fn frame(&mut self, context: &mut Context<'_>, format: Format, data: &[u8], out: &mut Vec<u8>) {
        let mut document = Vec::new();
        if let Err(error) = context.scratch.decoder.decode(format, data, &mut document) {
            return write_problem(&[], &problem(400, error.to_string()), out);
        }
        let reference = attribute(&document, "ref").unwrap_or_default();
        let result = match text(&document, "type") {
            Some("put") => self.write(context, Operation::Put, &document, reference),
            Some("patch") => self.write(context, Operation::Patch, &document, reference),
            Some("message") => self.write(context, Operation::Message, &document, reference),
            Some("delete") => self.write(context, Operation::Delete, &document, reference),
            Some("subscribe") => {
                self.subscribe(context, &document, reference).map(|()| begin("subscribed", reference, 0, out))
            }
            Some("unsubscribe") => {
                self.unsubscribe(context, reference).map(|()| begin("unsubscribed", reference, 0, out))
            }
            _ => Err(problem(400, "expected type: put, patch, delete, message, subscribe or unsubscribe")),
        };
        if let Err(problem) = result {
            write_problem(reference, &problem, out);
        }
    }

    /// The table of a frame: the one it names, or the socket's own.
    fn table(&self, context: &Context<'_>, document: &[u8]) -> Result<TableId, Problem> {
        let Some(path) = text(document, "path") else { return Ok(self.target.table) };
        let path = path.strip_prefix('/').unwrap_or(path);
        let resolved = context.catalog.ws.resolve(path).filter(|resolved| resolved.rest.is_empty());
        resolved.map(|resolved| resolved.table).ok_or_else(|| problem(404, format!("no table is exported at {path}")))
    }

    fn write(
        &mut self,
        context: &mut Context<'_>,
        operation: Operation,
        document: &[u8],
        reference: &[u8],
    ) -> Result<(), Problem> {
        let table = self.table(context, document)?;
        let codec = KeyCodec::of(context.catalog.table(table));
        let mut bytes = Vec::new();
        match (attribute(document, "id"), &self.target.filter) {
            (Some(id), _) => {
                codec.encode_value(id, &mut bytes).ok_or_else(|| problem(400, "the id is no key of this table"))?;
            }
            (None, KeyFilter::Exact { key, .. }) if table == self.target.table => bytes.extend_from_slice(key),
            _ => return Err(problem(400, "expected the id of a record")),
        }
        let key_bytes = bytes.len();
        if operation != Operation::Delete {
            let value = attribute(document, "value").filter(|value| payload::is_map(value));
            bytes.extend_from_slice(value.ok_or_else(|| problem(400, "expected a value, which is an object"))?);
        }
        let key = bytes[..key_bytes].into();
        self.next_tag += 1;
        let token = Some(Token { connection: context.connection, tag: self.next_tag });
        let body = Body::from_parts(bytes, key_bytes, 0);
        context.shard.submit(Write { token, ..Write::new(operation, table, body) });
        self.waiting.insert(self.next_tag, Waiting { reference: reference.into(), table, key });
        Ok(())
    }

    /// A write is done: appends the answer.
    pub fn written(&mut self, context: &Context<'_>, tag: u64, outcome: &Outcome, out: &mut Vec<u8>) {
        let Some(Waiting { reference, table, key }) = self.waiting.remove(&tag) else { return };
        match outcome {
            Outcome::Refused(refusal) => {
                write_problem(&reference, &(status_of(refusal).0, explain(refusal)), out);
            }
            Outcome::Written { version, position, .. } => {
                begin("ack", &reference, 2, out);
                out.write_str("version");
                out.write_float(version.as_millis());
                out.write_str("position");
                let place = write_place(context, table, &key, *position);
                out.write_str(std::str::from_utf8(&place).unwrap_or_default());
            }
            Outcome::Record(_) => {}
        }
    }

    fn subscribe(&mut self, context: &mut Context<'_>, document: &[u8], reference: &[u8]) -> Result<(), Problem> {
        if reference.is_empty() || self.streams.iter().any(|(own, _)| **own == *reference) {
            return Err(problem(400, "expected a ref that no other subscription of this socket has"));
        }
        if self.streams.len() >= context.shard.limits().subscriptions_max {
            return Err(problem(429, "the socket has as many subscriptions as it may"));
        }
        let url = text(document, "path").ok_or_else(|| problem(400, "expected a path"))?;
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let path = decode(path).ok_or_else(|| problem(400, "the path is not valid percent-encoded UTF-8"))?;
        let catalog = context.catalog;
        let resolved = catalog.ws.resolve(path.strip_prefix('/').unwrap_or(&path));
        let resolved = resolved.ok_or_else(|| problem(404, format!("no table is exported at {path}")))?;
        let rest = split_suffix(resolved.rest, catalog.table(resolved.table)).rest;
        let watch = Watch::parse(Resolved { rest, ..resolved }, query, None, catalog);
        let watch = watch.map_err(|what| problem(400, what))?;
        if watch.start.is_some() || watch.max_rate.is_some() {
            return Err(problem(400, "a place to go on from and maxRate are given where the socket is opened"));
        }
        let (stream, _) = Stream::open(context, watch, self.encoding);
        self.streams.push((reference.into(), stream));
        Ok(())
    }

    fn unsubscribe(&mut self, context: &mut Context<'_>, reference: &[u8]) -> Result<(), Problem> {
        let at = self.streams.iter().position(|(own, _)| **own == *reference);
        let at = at.ok_or_else(|| problem(404, "no subscription of this socket has that ref"))?;
        self.streams.remove(at).1.leave(context);
        Ok(())
    }
}

fn write_problem(reference: &[u8], (status, detail): &Problem, out: &mut Vec<u8>) {
    begin("problem", reference, 2, out);
    out.write_str("status");
    out.write_uint(u64::from(*status));
    out.write_str("detail");
    out.write_str(detail);
}
