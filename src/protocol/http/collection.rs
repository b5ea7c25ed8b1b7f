//! Requests about many records: listing them, streamed and never held as a whole, and deleting or patching them.

use super::coding::{CODED_BYTES_MIN, Encoder};
use super::joins::{Pages, Problem};
use super::representation::{Representation, Rows};
use super::request::Request;
use super::session::{HttpSession, Pending, Resource};
use super::sorter::{Sorter, TooMany};
use crate::protocol::query::Parameters;
use crate::protocol::query::relation::Expansion;
use crate::protocol::{Context, Flow, explain, query, status_of};
use shards::command::{Operation, Outcome, Refusal, Token, Write};
use shards::event::Body;
use shards::key::KeyCodec;
use shards::query::Query;
use shards::query::plan::Plan;
use shards::query::project::{Select, Subject};
use shards::scan::{Row, ScanRef, Step};
use shards::schema::{Role, TableDef, TableId};
use shards::topic::Target;
use std::sync::Arc;

/// Rows are gathered to pieces of about this size.
const PIECE_BYTES: usize = 16 << 10;
/// Writes of one request that are under way at once.
const WRITES_MAX: usize = 256;

/// A collection that is asked for.
pub(super) struct ListOrder {
    pub target: Target,
    pub query: Query,
    pub representation: Representation,
    /// How it would be carried out is wanted, and not what it finds.
    pub is_explained: bool,
    pub expansions: Vec<Expansion>,
    /// It is about one record, which is the answer.
    pub is_single: bool,
}

/// Records that are to be deleted, or changed by a patch.
pub(super) struct ChangeOrder {
    pub target: Target,
    pub query: Query,
    pub representation: Representation,
    pub patch: Option<Box<[u8]>>,
}

/// A collection on its way to the client.
pub(super) struct Listing {
    pub scan: ScanRef,
    pages: Option<Pages>,
    is_single: bool,
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
    pub fn close(&self, context: &mut Context<'_>) {
        context.shard.close_scan(self.scan);
        self.pages.iter().for_each(|pages| pages.close(context));
    }

    fn step(&mut self, context: &mut Context<'_>) -> Result<Step, Problem> {
        let step = match &mut self.pages {
            Some(pages) => pages.step(context, self.scan)?,
            None => context.shard.scan_step(self.scan),
        };
        if step == Step::Damaged {
            let (status, code) = status_of(&Refusal::Damaged);
            return Err((status, code, explain(&Refusal::Damaged)));
        }
        Ok(step)
    }

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
    fn fill(&mut self, context: &mut Context<'_>, piece: &mut Vec<u8>) -> Result<Step, Problem> {
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
            let step = self.step(context)?;
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
                        sorter.add(place, &self.document).map_err(|TooMany| {
                            let detail = "too many records to sort: add limit(), or @indexed to the attribute";
                            (400, "sort_too_large", detail.to_owned())
                        })?;
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
    ) -> Result<(Query, Parameters), Flow> {
        let (definition, tables) = (context.catalog.table(resource.table), &context.catalog.tables);
        let essence = request.field("content-type").and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        let is_text =
            ["application/x-www-form-urlencoded", "text/plain"].iter().any(|it| essence.eq_ignore_ascii_case(it));
        let parsed = if is_text && !request.body.starts_with(b"{") {
            let text = std::str::from_utf8(request.body).unwrap_or("\u{fffd}").trim();
            query::parse(text, definition, tables).map_err(|error| error.to_string())
        } else {
            let mut document = Vec::new();
            self.body(context, request, resource.table, &mut document)?;
            query::object::read(&document, definition, tables)
        };
        parsed.map_err(|what| self.problem(context, 400, "bad_query", &what))
    }

    pub(super) fn list(&mut self, context: &mut Context<'_>, order: ListOrder) -> Flow {
        let ListOrder { target, query, representation, is_explained, expansions, is_single } = order;
        let (table, query) = (target.table, Arc::new(query));
        let plan = context.shard.plan(table, query.clone());
        if let Some(plan) = plan.as_ref().filter(|_| is_explained) {
            let mut document = Vec::new();
            query::explain(plan, &mut document);
            self.exchange.document(context, 200, representation, &document, None, |_| {});
            return self.answered(context);
        }
        self.exchange.keep_alive &= self.exchange.minor == 1;
        if self.exchange.head_only && !is_single {
            self.exchange.respond_in_pieces(context, representation.media_type(), representation.fields());
            return self.answered(context);
        }
        let is_sorted = plan.as_ref().is_none_or(|plan| plan.is_sorted);
        let sorter = (!is_sorted).then(|| Sorter::new(query.limit.map(|limit| limit.saturating_add(query.offset))));
        let token = Token { connection: context.connection, tag: 0 };
        let scan = context.shard.scan(token, target, plan.map(Arc::new));
        let definition = context.catalog.table(table);
        self.pending = Pending::Listing(Box::new(Listing {
            scan,
            pages: Pages::new(expansions),
            is_single,
            representation,
            rows: Rows::new(representation, columns(&query.select, definition)),
            encoder: None,
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
            if listing.is_single {
                return self.continue_single(context, listing);
            }
            if context.shard.outboxes.stall(context.connection, Some(listing.scan)) {
                self.pending = Pending::Listing(listing);
                return Flow::Blocked;
            }
            let mut piece = Vec::new();
            let step = match listing.fill(context, &mut piece) {
                Ok(step) => step,
                Err((status, code, detail)) => {
                    listing.close(context);
                    if !listing.begun {
                        return self.problem(context, status, code, &detail);
                    }
                    self.exchange.keep_alive = false; // the answer stays without its end, and the client sees it
                    return self.answered(context);
                }
            };
            if step == Step::End {
                listing.rows.finish(&mut piece);
            }
            if (step == Step::End || !piece.is_empty()) && !std::mem::replace(&mut listing.begun, true) {
                // A short answer is not worth encoding: it is all there already.
                let is_short = step == Step::End && piece.len() < CODED_BYTES_MIN;
                let coding = self.exchange.coding.filter(|_| !is_short);
                listing.encoder = coding.map(Encoder::new);
                let mut fields = listing.representation.fields().to_vec();
                fields.extend(coding.map(|coding| ("Content-Encoding", coding.name())));
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
                listing.close(context);
                return self.answered(context);
            }
            if piece.len() < PIECE_BYTES {
                self.pending = Pending::Listing(listing);
                return Flow::Blocked;
            }
        }
    }

    /// The one record, once it and all that is related to it are there.
    fn continue_single(&mut self, context: &mut Context<'_>, mut listing: Box<Listing>) -> Flow {
        let step = match listing.step(context) {
            Ok(Step::Wait) => {
                self.pending = Pending::Listing(listing);
                return Flow::Blocked;
            }
            step => step,
        };
        listing.close(context);
        match step {
            Ok(Step::Row { row, .. }) => {
                listing.project(&row);
                self.exchange.document(context, 200, listing.representation, &listing.document, None, |_| {});
            }
            Ok(_) => self.exchange.respond(context, 404, |_| {}, None),
            Err((status, code, detail)) => self.exchange.problem(context, status, code, &detail),
        }
        self.answered(context)
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

    /// The patch in the body, and checks of what a change of a collection may say.
    pub(super) fn patch_in(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        table: TableId,
        query: &Query,
    ) -> Result<Option<Box<[u8]>>, Flow> {
        if query.limit.is_some() || !query.sort.is_empty() || query.select != Default::default() {
            let detail =
                "limit, sort and select have no meaning here: all records that the conditions find are changed";
            return Err(self.problem(context, 400, "bad_query", detail));
        }
        if request.method != "PATCH" {
            return Ok(None);
        }
        let mut document = Vec::new();
        self.body(context, request, table, &mut document)?;
        Ok(Some(document.into()))
    }

    /// DELETE and PATCH of a collection, or of those of its records that a query finds.
    pub(super) fn change(&mut self, context: &mut Context<'_>, order: ChangeOrder) -> Flow {
        let ChangeOrder { target, query, representation, patch } = order;
        let (table, query) = (target.table, Arc::new(query));
        // In the order of keys: what a patch changes must not move ahead of the scan.
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
