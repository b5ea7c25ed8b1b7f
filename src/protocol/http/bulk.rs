//! Writing many records by one request: PUT or POST of an array to a collection, or of a sequence of documents (NDJSON,
//! RFC 8742), which is taken as it comes, however long it is. Each record is a write of its own; those that are refused
//! are listed in the answer.

use super::records::{KEY_TRIES, created, key_in};
use super::representation::{JSON, Representation};
use super::request::{Incoming, Request, RequestError, Sequence};
use super::session::{HttpSession, Pending, Resource};
use crate::protocol::format::Format;
use crate::protocol::{Context, Flow, explain, payload, status_of};
use shards::command::{Operation, Outcome, Refusal, Token, Write};
use shards::document::{Reader, Token as Value, Writer};
use shards::event::Body;
use shards::key::KeyCodec;
use shards::schema::TableId;
use std::collections::VecDeque;

/// Writes that are under way at once.
const WRITES_MAX: usize = 256;
/// Refusals that the answer lists, and bytes of what it says of each.
const LISTED_MAX: usize = 1000;
const TEXT_BYTES_MAX: usize = 512;

pub(super) struct Bulk {
    table: TableId,
    operation: Operation,
    source: Source,
    /// Documents so far; the first is number 1.
    count: u64,
    written: u64,
    refused: u64,
    listed: Vec<(u64, String)>,
    /// Of the answer, should something have been refused.
    status: u16,
    /// Why the rest of the body could not be read.
    broken: Option<String>,
    under_way: VecDeque<UnderWay>,
}

struct UnderWay {
    number: u64,
    /// The key was generated: if it is taken the next one is tried, so many times.
    retry: Option<(u32, Write)>,
}

enum Source {
    /// The elements of an array that has been read.
    Array { document: Vec<u8>, at: usize, left: u32 },
    /// The body as it comes.
    Sequence(Box<Arriving>),
}

struct Arriving {
    incoming: Incoming,
    sequence: Sequence,
    /// What has come and has not been taken: from `at` on.
    bytes: Vec<u8>,
    at: usize,
    /// Bytes from `at` on in which no line ends.
    scanned: usize,
    /// Passing over the rest of a line that is too long.
    skips: bool,
    /// Bytes from `at` on in which no item ends: looked at again when there are twice as many.
    tried: usize,
}

/// What is next in a body.
enum Next {
    /// A document in canonical form, or why there is none.
    Item(Result<Vec<u8>, String>),
    /// More of the body is needed.
    More,
    End,
    /// Nothing after this can be understood.
    Broken(String),
}

impl Bulk {
    fn new(table: TableId, is_post: bool, source: Source) -> Bulk {
        let operation = if is_post { Operation::Insert } else { Operation::Put };
        let (listed, under_way) = (Vec::new(), VecDeque::new());
        Bulk {
            table,
            operation,
            source,
            count: 0,
            written: 0,
            refused: 0,
            listed,
            status: 400,
            broken: None,
            under_way,
        }
    }

    /// Whether it is the client's turn.
    pub fn waits_for_input(&self) -> bool {
        self.under_way.is_empty() && matches!(self.source, Source::Sequence(_))
    }

    fn refuse(&mut self, number: u64, status: u16, what: String) {
        self.refused += 1;
        self.status = self.status.max(status);
        if self.listed.len() < LISTED_MAX {
            let end = what.floor_char_boundary(TEXT_BYTES_MAX);
            self.listed.push((number, what[..end].to_owned()));
        }
    }

    /// Submits the writes of documents that are there, as far as they fit. True: all there are have been submitted.
    fn submit(&mut self, session: &HttpSession, context: &mut Context<'_>) -> Result<bool, String> {
        while self.under_way.len() < WRITES_MAX && context.shard.has_room() {
            let item = match self.source.next(context) {
                Next::Item(item) => item,
                Next::More => return Ok(false),
                Next::End => return Ok(true),
                Next::Broken(what) => return Err(what),
            };
            self.count += 1;
            let number = self.count;
            match item.and_then(|document| self.write_of(session, context, &document)) {
                Ok((write, is_generated)) => {
                    let token = Some(Token { connection: context.connection, tag: number });
                    let write = Write { token, ..write };
                    let retry = is_generated.then(|| (KEY_TRIES, write.clone()));
                    context.shard.submit(write);
                    self.under_way.push_back(UnderWay { number, retry });
                }
                Err(what) => self.refuse(number, 400, what),
            }
        }
        Ok(false)
    }

    /// The write of a document, and whether its key was generated.
    fn write_of(
        &self,
        session: &HttpSession,
        context: &mut Context<'_>,
        document: &[u8],
    ) -> Result<(Write, bool), String> {
        if !payload::is_map(document) {
            return Err("a record is an object".into());
        }
        let definition = context.catalog.table(self.table);
        let codec = KeyCodec::of(definition);
        let mut key = Vec::new();
        let is_given = key_in(document, definition, codec, &mut key)?;
        if self.operation == Operation::Put {
            if !is_given {
                return Err("the record has no key".into());
            }
            return Ok((Write::new(Operation::Put, self.table, Body::new(&key, document)), false));
        }
        if !is_given && !session.generate_key(context, self.table, codec, &mut key) {
            return Err("all keys of this table have been given out".into());
        }
        Ok((created(context, self.table, &key, document), !is_given))
    }
}

impl Source {
    fn array(document: Vec<u8>) -> Source {
        let mut reader = Reader::new(&document);
        let left = match reader.next() {
            Some(Value::Array(count)) => count,
            _ => 0,
        };
        let at = reader.position();
        Source::Array { document, at, left }
    }

    fn next(&mut self, context: &mut Context<'_>) -> Next {
        match self {
            Source::Array { left: 0, .. } => Next::End,
            Source::Array { document, at, left } => {
                let mut reader = Reader::new(&document[*at..]);
                let value = reader.value().unwrap_or_default().to_vec();
                *at += value.len();
                *left -= 1;
                Next::Item(Ok(value))
            }
            Source::Sequence(arriving) => arriving.next(context),
        }
    }
}

impl Arriving {
    fn next(&mut self, context: &mut Context<'_>) -> Next {
        let bytes_max = context.shard.limits().packet_bytes_max;
        let is_whole = self.incoming.is_at_end();
        let next = match self.sequence {
            Sequence::Ndjson => self.next_line(context, bytes_max, is_whole),
            Sequence::Cbor => self.next_item(context, bytes_max, is_whole),
        };
        if matches!(next, Next::More | Next::End) {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        next
    }

    fn next_line(&mut self, context: &mut Context<'_>, bytes_max: usize, is_whole: bool) -> Next {
        loop {
            let rest = &self.bytes[self.at..];
            let end = rest[self.scanned..].iter().position(|byte| *byte == b'\n').map(|end| end + self.scanned);
            let is_too_long = end.unwrap_or(rest.len()) > bytes_max;
            let (line, taken) = match end {
                Some(end) => (&rest[..end], end + 1),
                None if is_whole && rest.is_empty() => return Next::End,
                None if is_whole => (rest, rest.len()),
                None if is_too_long || self.skips => {
                    let is_first = !std::mem::replace(&mut self.skips, true);
                    (self.at, self.scanned) = (self.bytes.len(), 0);
                    match is_first {
                        true => return Next::Item(Err(format!("the line is longer than {bytes_max} bytes"))),
                        false => return Next::More,
                    }
                }
                None => {
                    self.scanned = rest.len();
                    return Next::More;
                }
            };
            self.scanned = 0;
            if std::mem::take(&mut self.skips) || line.iter().all(u8::is_ascii_whitespace) {
                self.at += taken;
                continue;
            }
            let mut document = Vec::new();
            let decoded = match is_too_long {
                true => Err(format!("the line is longer than {bytes_max} bytes")),
                false => {
                    let decoded = context.scratch.decoder.decode(Format::Json, line, &mut document);
                    decoded.map_err(|error| error.to_string())
                }
            };
            self.at += taken;
            return Next::Item(decoded.map(|()| document));
        }
    }

    fn next_item(&mut self, context: &mut Context<'_>, bytes_max: usize, is_whole: bool) -> Next {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return if is_whole { Next::End } else { Next::More };
        }
        if !is_whole && rest.len() < 2 * self.tried && rest.len() <= bytes_max {
            return Next::More;
        }
        let mut document = Vec::new();
        match context.scratch.decoder.decode_cbor_item(rest, &mut document) {
            Ok(Some(length)) if length <= bytes_max => {
                self.at += length;
                self.tried = 0;
                Next::Item(Ok(document))
            }
            Ok(None) if is_whole => Next::Broken("it ends within an item".into()),
            Ok(None) if rest.len() <= bytes_max => {
                self.tried = rest.len();
                Next::More
            }
            Ok(_) => Next::Broken(format!("an item is longer than {bytes_max} bytes")),
            Err(error) => Next::Broken(error.to_string()),
        }
    }

    /// Takes some of the input, not more than a part at once: what is there already is the beginning of a longer item.
    fn receive(&mut self, input: &[u8]) -> Result<usize, RequestError> {
        const PART: usize = 64 << 10;
        let mut taken = 0;
        while taken < PART {
            let piece = self.incoming.next(&input[taken..input.len().min(PART)])?;
            if piece.taken == 0 {
                break;
            }
            taken += piece.taken;
            self.bytes.extend_from_slice(piece.data);
        }
        Ok(taken)
    }
}

impl HttpSession {
    /// PUT or POST to a collection: one new record, or many.
    pub(super) fn write_collection(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        resource: &Resource<'_>,
        representation: Representation,
    ) -> Flow {
        let is_post = request.method == "POST";
        if self.incoming.is_some()
            && let Some(flow) = self.refuse_name(context, request)
        {
            return flow;
        }
        let source = match (self.incoming.take(), request.field("content-type").and_then(Sequence::of_media_type)) {
            (Some((incoming, expects_continue)), Some(sequence)) => {
                if let Err(flow) = self.check_coding(context, request) {
                    return flow;
                }
                if expects_continue {
                    context.write(|out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
                }
                self.exchange.keep_alive = request.keeps_alive() && !self.stopping;
                let (bytes, at, scanned, skips, tried) = (Vec::new(), 0, 0, false, 0);
                Source::Sequence(Box::new(Arriving { incoming, sequence, bytes, at, scanned, skips, tried }))
            }
            _ => {
                let mut document = Vec::new();
                if let Err(flow) = self.content(context, request, resource.table, &mut document) {
                    return flow;
                }
                match Reader::new(&document).next() {
                    Some(Value::Array(_)) => {
                        if let Some(flow) = self.refuse_name(context, request) {
                            return flow;
                        }
                        Source::array(document)
                    }
                    Some(Value::Map(_)) if is_post => {
                        return self.create(context, request, resource.table, representation, &document);
                    }
                    _ => {
                        let expected = if is_post { "an object or an array of objects" } else { "an array of objects" };
                        return self.problem(context, 400, "bad_body", &format!("expected {expected}"));
                    }
                }
            }
        };
        let bulk = Bulk::new(resource.table, is_post, source);
        self.continue_bulk(context, Box::new(bulk), &[]).1
    }

    /// Takes what it can of the body, and writes it; gives how much of the input was taken.
    pub(super) fn continue_bulk(
        &mut self,
        context: &mut Context<'_>,
        mut bulk: Box<Bulk>,
        input: &[u8],
    ) -> (usize, Flow) {
        let mut taken = 0;
        self.since_us = context.ticks_us();
        loop {
            let is_at_end = match bulk.submit(self, context) {
                Ok(is_at_end) => is_at_end,
                Err(what) => {
                    self.break_off(&mut bulk, what);
                    true
                }
            };
            if is_at_end && bulk.under_way.is_empty() {
                return (taken, self.finish_bulk(context, *bulk));
            }
            if is_at_end || bulk.under_way.len() >= WRITES_MAX || !context.shard.has_room() {
                self.pending = Pending::Bulk(bulk);
                return (taken, Flow::Blocked);
            }
            let received = match &mut bulk.source {
                Source::Sequence(arriving) => arriving.receive(&input[taken..]),
                Source::Array { .. } => Ok(0),
            };
            match received {
                Ok(0) => {
                    self.pending = Pending::Bulk(bulk);
                    return (taken, Flow::Continue);
                }
                Ok(bytes) => taken += bytes,
                Err(error) => self.break_off(&mut bulk, error.what.into()),
            }
        }
    }

    /// One of the writes is done.
    pub(super) fn wrote_one(
        &mut self,
        context: &mut Context<'_>,
        mut bulk: Box<Bulk>,
        number: u64,
        outcome: &Outcome,
    ) -> Flow {
        if let Some(at) = bulk.under_way.iter().position(|own| own.number == number)
            && let Some(under_way) = bulk.under_way.remove(at)
        {
            match (outcome, under_way.retry) {
                (Outcome::Refused(Refusal::Exists), Some((tries @ 1.., write))) => {
                    let codec = KeyCodec::of(context.catalog.table(bulk.table));
                    let mut key = Vec::new();
                    if self.generate_key(context, bulk.table, codec, &mut key) {
                        let body = Body::new(&key, write.body.document());
                        let again = Write { body, ..write };
                        context.shard.submit(again.clone());
                        bulk.under_way.push_back(UnderWay { number, retry: Some((tries - 1, again)) });
                    } else {
                        bulk.refuse(number, 409, "all keys of this table have been given out".into());
                    }
                }
                (Outcome::Refused(refusal), _) => bulk.refuse(number, status_of(refusal).0, explain(refusal)),
                _ => bulk.written += 1,
            }
        }
        if bulk.under_way.len() > WRITES_MAX / 2 {
            self.pending = Pending::Bulk(bulk);
            return Flow::Blocked;
        }
        self.continue_bulk(context, bulk, &[]).1
    }

    /// The rest of the body cannot be understood.
    fn break_off(&mut self, bulk: &mut Bulk, what: String) {
        self.exchange.keep_alive = false;
        bulk.broken = Some(what);
        bulk.source = Source::array(Vec::new());
    }

    fn finish_bulk(&mut self, context: &mut Context<'_>, bulk: Bulk) -> Flow {
        if let Some(what) = &bulk.broken {
            let detail = format!("the body cannot be read after {} records: {what}", bulk.count);
            return self.refuse_bulk(context, &bulk, &detail);
        }
        if bulk.refused > 0 {
            let detail = format!("{} of {} records were refused; the others are written", bulk.refused, bulk.count);
            return self.refuse_bulk(context, &bulk, &detail);
        }
        if bulk.operation == Operation::Put {
            self.exchange.respond(context, 204, |_| {}, None);
        } else {
            let mut document = Vec::new();
            document.write_map(1);
            document.write_str("written");
            document.write_uint(bulk.written);
            self.exchange.document(context, 201, JSON, &document, None, |_| {});
        }
        self.answered(context)
    }

    fn refuse_bulk(&mut self, context: &mut Context<'_>, bulk: &Bulk, detail: &str) -> Flow {
        let mut members = Vec::new();
        for (name, count) in [("written", bulk.written), ("refused", bulk.refused)] {
            members.write_str(name);
            members.write_uint(count);
        }
        members.write_str("errors");
        members.write_array(bulk.listed.len() as u32);
        for (number, what) in &bulk.listed {
            members.write_map(2);
            members.write_str("record");
            members.write_uint(*number);
            members.write_str("detail");
            members.write_str(what);
        }
        self.exchange.problem_with(context, bulk.status, "not_all_written", detail, (3, &members), |_| {});
        self.answered(context)
    }
}
