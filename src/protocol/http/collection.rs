//! Requests about many records: listing them, streamed and never held as a whole, and deleting or patching them.

use super::coding::{CODED_BYTES_MIN, Encoder};
use super::representation::{Representation, Rows};
use super::request::Request;
use super::session::{HttpSession, Pending, Resource};
use super::sorter::{Sorter, TooMany};
use crate::protocol::{Context, Flow, explain, query, status_of, target_of};
use shards::command::{Operation, Outcome, Refusal, Token, Write};
use shards::event::Body;
use shards::key::KeyCodec;
use shards::query::Query;
use shards::query::plan::Plan;
use shards::query::project::{Select, Subject};
use shards::scan::{Row, ScanRef, Step};
use shards::schema::{Role, TableDef, TableId};
use std::sync::Arc;

/// Rows are gathered to pieces of about this size.
const PIECE_BYTES: usize = 16 << 10;
/// Writes of one request that are under way at once.
const WRITES_MAX: usize = 256;

/// A collection on its way to the client.
pub(super) struct Listing {
    pub scan: ScanRef,
    representation: Representation,
    rows: Rows,
    encoder: Option<Encoder>,
    query: Arc<Query>,
    codec: KeyCodec,
    /// Rows that are still to be passed over, and that may still be sent.
    offset: u64,
    left: u64,
    /// Where rows do not come in the order that is wanted.
    sorter: Option<Sorter>,
    /// Status and fields have been sent.
    begun: bool,
    /// Reused memory: a row as it is wanted.
    document: Vec<u8>,
}

/// Records on their way out, or to another state.
pub(super) struct Changing {
    pub scan: ScanRef,
    table: TableId,
    /// What is patched in; nothing: they are deleted.
    patch: Option<Box<[u8]>>,
    under_way: usize,
    at_end: bool,
    problem: Option<(u16, String)>,
    representation: Representation,
}

impl Changing {
    /// Nothing is under way that would carry it on.
    pub fn waits_for_room(&self) -> bool {
        self.under_way == 0
    }
}

impl Listing {
    fn project(&mut self, row: &Row) {
        self.document.clear();
        let subject = Subject {
            codec: self.codec,
            key: row.body.key(),
            version: row.version,
            expires_ms: row.terms.expires_ms,
            document: row.body.document(),
        };
        self.query.select.project(&subject, &mut self.document);
    }

    /// Appends the row that was projected last.
    fn write(&mut self, piece: &mut Vec<u8>) {
        self.rows.write(&self.document, piece);
        self.left -= 1;
    }

    /// Takes rows until a piece is full, the scan waits or nothing more is wanted.
    fn fill(&mut self, context: &mut Context<'_>, piece: &mut Vec<u8>) -> Result<Step, TooMany> {
        while let Some(Sorter::Sorted(rows)) = &mut self.sorter {
            if piece.len() >= PIECE_BYTES {
                return Ok(Step::Wait); // only for the outbox
            }
            let Some(row) = rows.next() else { return Ok(Step::End) };
            self.document = row;
            self.write(piece);
        }
        while piece.len() < PIECE_BYTES {
            if self.left == 0 {
                return Ok(Step::End);
            }
            let step = context.shard.scan_step(self.scan);
            match (&step, &mut self.sorter) {
                (Step::Row { .. }, None) if self.offset > 0 => self.offset -= 1,
                (Step::Row { row, .. }, None) => {
                    self.project(row);
                    self.write(piece);
                }
                (Step::Row { row, .. }, Some(_)) => {
                    self.project(row);
                    let mut place = Vec::new();
                    self.query.place(row.body.key(), row.body.document(), &mut place);
                    if let Some(sorter) = &mut self.sorter {
                        sorter.add(place, &self.document)?;
                    }
                }
                (Step::End, Some(sorter)) => {
                    sorter.sort(self.offset);
                    return self.fill(context, piece);
                }
                _ => return Ok(step),
            }
        }
        Ok(Step::Wait)
    }
}

/// The columns of a table as CSV: what is selected, or else what is declared. Undeclared attributes of the first record
/// follow.
fn columns(select: &Select, definition: &TableDef) -> Vec<Box<str>> {
    match select {
        Select::All => {
            definition.attributes.iter().filter(|it| it.role != Role::Virtual).map(|it| (*it.name).into()).collect()
        }
        Select::Object(fields) => fields.iter().map(|field| field.name.clone()).collect(),
        Select::Value(_) | Select::Array(_) => Vec::new(),
    }
}

impl HttpSession {
    /// The query in the body of QUERY: an object, or what a URL would say.
    pub(super) fn query_in(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        resource: &Resource<'_>,
    ) -> Result<Query, Flow> {
        let definition = context.catalog.table(resource.table);
        let essence = request.field("content-type").and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        let is_text =
            ["application/x-www-form-urlencoded", "text/plain"].iter().any(|it| essence.eq_ignore_ascii_case(it));
        let parsed = if is_text && !request.body.starts_with(b"{") {
            let text = std::str::from_utf8(request.body).unwrap_or("\u{fffd}").trim();
            query::parse(text, definition).map(|(query, _)| query).map_err(|error| error.to_string())
        } else {
            let mut document = Vec::new();
            self.body(context, request, resource.table, &mut document)?;
            query::object::read(&document, definition)
        };
        parsed.map_err(|what| self.problem(context, 400, "bad_query", &what))
    }

    pub(super) fn list(
        &mut self,
        context: &mut Context<'_>,
        resource: &Resource<'_>,
        representation: Representation,
        query: Arc<Query>,
        is_explained: bool,
    ) -> Flow {
        let Some(target) = target_of(resource.resolved, context.catalog) else {
            return self.problem(context, 404, "not_found", "no record can have such a key");
        };
        let plan = context.shard.plan(resource.table, query.clone());
        if let Some(plan) = plan.as_ref().filter(|_| is_explained) {
            let mut document = Vec::new();
            query::explain(plan, &mut document);
            self.exchange.document(context, 200, representation, &document, None, |_| {});
            return self.answered(context);
        }
        self.exchange.keep_alive &= self.exchange.minor == 1;
        if self.exchange.head_only {
            self.exchange.respond_in_pieces(context, representation.media_type(), representation.fields());
            return self.answered(context);
        }
        let is_sorted = plan.as_ref().is_none_or(|plan| plan.is_sorted);
        let sorter = (!is_sorted).then(|| Sorter::new(query.limit.map(|limit| limit.saturating_add(query.offset))));
        let token = Token { connection: context.connection, tag: 0 };
        let scan = context.shard.scan(token, target, plan.map(Arc::new));
        let definition = context.catalog.table(resource.table);
        self.pending = Pending::Listing(Box::new(Listing {
            scan,
            representation,
            rows: Rows::new(representation, columns(&query.select, definition)),
            encoder: self.exchange.coding.map(Encoder::new),
            codec: KeyCodec::of(definition),
            offset: query.offset,
            left: query.limit.unwrap_or(u64::MAX),
            query,
            sorter,
            begun: false,
            document: Vec::new(),
        }));
        Flow::Blocked
    }

    /// Writes rows until the scan waits, the outbox is full enough, or all is said.
    pub(super) fn continue_listing(&mut self, context: &mut Context<'_>, mut listing: Box<Listing>) -> Flow {
        loop {
            if context.shard.outboxes.stall(context.connection, Some(listing.scan)) {
                self.pending = Pending::Listing(listing);
                return Flow::Blocked;
            }
            let mut piece = Vec::new();
            let step = match listing.fill(context, &mut piece) {
                Ok(step) => step,
                Err(TooMany) => {
                    context.shard.close_scan(listing.scan);
                    let detail = "too many records to sort: add limit(), or @indexed to the attribute";
                    return self.problem(context, 400, "sort_too_large", detail);
                }
            };
            if step == Step::End {
                listing.rows.finish(&mut piece);
            }
            if step == Step::Damaged {
                context.shard.close_scan(listing.scan);
                if !listing.begun {
                    let refusal = Refusal::Damaged;
                    let (status, code) = status_of(&refusal);
                    return self.problem(context, status, code, &explain(&refusal));
                }
                self.exchange.keep_alive = false; // the answer stays without its end, and the client sees it
                return self.answered(context);
            }
            if (step == Step::End || !piece.is_empty()) && !std::mem::replace(&mut listing.begun, true) {
                // A short answer is not worth encoding: it is all there already.
                if step == Step::End && piece.len() < CODED_BYTES_MIN {
                    listing.encoder = None;
                }
                let mut fields = listing.representation.fields().to_vec();
                fields.extend(
                    listing.encoder.as_ref().and(self.exchange.coding).map(|it| ("Content-Encoding", it.name())),
                );
                self.exchange.respond_in_pieces(context, listing.representation.media_type(), &fields);
            }
            match (&mut listing.encoder, step == Step::End) {
                (None, is_last) => self.write_piece(context, &piece, is_last),
                (Some(encoder), false) => {
                    encoder.write(&piece);
                    self.write_piece(context, &encoder.take(), false);
                }
                (Some(encoder), true) => {
                    encoder.write(&piece);
                    let encoder = listing.encoder.take();
                    self.write_piece(context, &encoder.map_or_else(Vec::new, Encoder::finish), true);
                }
            }
            if step == Step::End {
                context.shard.close_scan(listing.scan);
                return self.answered(context);
            }
            if piece.len() < PIECE_BYTES {
                self.pending = Pending::Listing(listing);
                return Flow::Blocked;
            }
        }
    }

    fn write_piece(&self, context: &mut Context<'_>, piece: &[u8], last: bool) {
        let chunked = self.exchange.minor == 1;
        context.write(|out| {
            if !chunked {
                return out.extend_from_slice(piece);
            }
            if !piece.is_empty() {
                crate::protocol::framing::write_chunk(piece, out);
            }
            if last {
                out.extend_from_slice(b"0\r\n\r\n");
            }
        });
    }

    /// DELETE and PATCH of a collection, or of those of its records that a query finds.
    pub(super) fn change(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        resource: &Resource<'_>,
        representation: Representation,
        query: Query,
    ) -> Flow {
        let Some(target) = target_of(resource.resolved, context.catalog) else {
            return self.problem(context, 404, "not_found", "no record can have such a key");
        };
        if query.limit.is_some() || !query.sort.is_empty() || query.select != Default::default() {
            let detail =
                "limit, sort and select have no meaning here: all records that the conditions find are changed";
            return self.problem(context, 400, "bad_query", detail);
        }
        let table = resource.table;
        let mut patch = None;
        if request.method == "PATCH" {
            let mut document = Vec::new();
            if let Err(flow) = self.body(context, request, table, &mut document) {
                return flow;
            }
            patch = Some(document.into());
        }
        // In the order of keys: what a patch changes must not move ahead of the scan.
        let query = Arc::new(query);
        let plan = match patch {
            Some(_) => Some(Plan::by_key(query)),
            None => context.shard.plan(table, query),
        };
        let token = Token { connection: context.connection, tag: 0 };
        let scan = context.shard.scan(token, target, plan.map(Arc::new));
        let changing = Changing { scan, table, patch, under_way: 0, at_end: false, problem: None, representation };
        self.pending = Pending::Changing(Box::new(changing));
        Flow::Blocked
    }

    pub(super) fn continue_changing(&mut self, context: &mut Context<'_>, mut changing: Box<Changing>) -> Flow {
        while !changing.at_end && changing.under_way < WRITES_MAX && context.shard.has_room() {
            match context.shard.scan_step(changing.scan) {
                Step::Row { row, .. } => {
                    let token = Some(Token { connection: context.connection, tag: 0 });
                    let (operation, document) = match &changing.patch {
                        Some(patch) => (Operation::Patch, &**patch),
                        None => (Operation::Delete, &[][..]),
                    };
                    let body = Body::new(row.body.key(), document);
                    context.shard.submit(Write { token, ..Write::new(operation, changing.table, body) });
                    changing.under_way += 1;
                }
                Step::Wait => break,
                Step::Damaged => {
                    changing.at_end = true;
                    let refusal = Refusal::Damaged;
                    changing.problem = Some((status_of(&refusal).0, explain(&refusal)));
                }
                Step::End => changing.at_end = true,
            }
        }
        self.finish_changing(context, changing)
    }

    pub(super) fn changed_one(
        &mut self,
        context: &mut Context<'_>,
        mut changing: Box<Changing>,
        outcome: &Outcome,
    ) -> Flow {
        changing.under_way -= 1;
        if let Outcome::Refused(refusal) = outcome {
            changing.at_end = true;
            changing.problem = Some((status_of(refusal).0, explain(refusal)));
        }
        if changing.under_way <= WRITES_MAX / 2 {
            return self.continue_changing(context, changing);
        }
        self.pending = Pending::Changing(changing);
        Flow::Blocked
    }

    fn finish_changing(&mut self, context: &mut Context<'_>, changing: Box<Changing>) -> Flow {
        if !changing.at_end || changing.under_way > 0 {
            self.pending = Pending::Changing(changing);
            return Flow::Blocked;
        }
        context.shard.close_scan(changing.scan);
        match (&changing.problem, &changing.patch) {
            (Some((status, problem)), Some(_)) => self.problem(context, *status, "not_all_changed", problem),
            (Some((status, problem)), None) => self.problem(context, *status, "not_all_deleted", problem),
            (None, Some(_)) => {
                self.exchange.respond(context, 204, |_| {}, None);
                self.answered(context)
            }
            (None, None) => {
                self.exchange.document(context, 200, changing.representation, &[0xc3], None, |_| {});
                self.answered(context)
            }
        }
    }
}
