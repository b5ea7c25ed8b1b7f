//! Requests about many records: listing them, streamed in key order and never held as a whole, and deleting them.

use super::session::{HttpSession, Pending, Resource};
use crate::protocol::format::{self, Format};
use crate::protocol::{Context, Flow, explain, target_of};
use shards::command::{Operation, Outcome, Refusal, Token, Write};
use shards::event::Body;
use shards::scan::{ScanRef, Step};
use shards::schema::TableId;

/// Rows are gathered to pieces of about this size.
const PIECE_BYTES: usize = 16 << 10;
/// Deletes of one request that are under way at once.
const DELETES_MAX: usize = 256;

/// A collection on its way to the client.
pub(super) struct Listing {
    pub scan: ScanRef,
    format: Format,
    /// Status and fields have been sent.
    begun: bool,
    first: bool,
}

/// A collection on its way out.
pub(super) struct Clearing {
    pub scan: ScanRef,
    table: TableId,
    under_way: usize,
    at_end: bool,
    problem: Option<(u16, String)>,
    format: Format,
}

impl Clearing {
    /// Nothing is under way that would carry it on.
    pub fn waits_for_room(&self) -> bool {
        self.under_way == 0
    }
}

/// The bytes around rows: an array, but in MessagePack a sequence (compat §7.1).
fn opening(format: Format) -> &'static [u8] {
    match format {
        Format::Json => b"[",
        Format::Cbor => &[0x9f],
        Format::MessagePack => b"",
    }
}

fn closing(format: Format) -> &'static [u8] {
    match format {
        Format::Json => b"]",
        Format::Cbor => &[0xff],
        Format::MessagePack => b"",
    }
}

impl HttpSession {
    pub(super) fn list(&mut self, context: &mut Context<'_>, resource: &Resource<'_>, format: Format) -> Flow {
        let Some(target) = target_of(resource.resolved, context.catalog) else {
            return self.problem(context, 404, "not_found", "no record can have such a key");
        };
        self.exchange.keep_alive &= self.exchange.minor == 1;
        if self.exchange.head_only {
            self.exchange.respond_in_pieces(context, format.media_type(), &[]);
            return self.answered(context);
        }
        let token = Token { connection: context.connection, tag: 0 };
        let scan = context.shard.scan(token, target);
        self.pending = Pending::Listing(Box::new(Listing { scan, format, begun: false, first: true }));
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
            let mut step = Step::Wait;
            while piece.len() < PIECE_BYTES {
                step = context.shard.scan_step(listing.scan);
                let Step::Row { row, .. } = &step else { break };
                if std::mem::take(&mut listing.first) {
                    piece.extend_from_slice(opening(listing.format));
                } else if listing.format == Format::Json {
                    piece.push(b',');
                }
                format::encode(listing.format, row.body.document(), &mut piece);
            }
            if step == Step::End {
                if listing.first {
                    piece.extend_from_slice(opening(listing.format));
                }
                piece.extend_from_slice(closing(listing.format));
            }
            if step == Step::Damaged {
                context.shard.close_scan(listing.scan);
                if !listing.begun {
                    let refusal = Refusal::Damaged;
                    let (status, code) = super::records::status_of(&refusal);
                    return self.problem(context, status, code, &explain(&refusal));
                }
                self.exchange.keep_alive = false; // the answer stays without its end, and the client sees it
                return self.answered(context);
            }
            if (step != Step::Wait || !piece.is_empty()) && !std::mem::replace(&mut listing.begun, true) {
                self.exchange.respond_in_pieces(context, listing.format.media_type(), &[]);
            }
            self.write_piece(context, &piece, step == Step::End);
            match step {
                Step::Row { .. } | Step::Damaged => {}
                Step::Wait => {
                    self.pending = Pending::Listing(listing);
                    return Flow::Blocked;
                }
                Step::End => {
                    context.shard.close_scan(listing.scan);
                    return self.answered(context);
                }
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

    pub(super) fn clear(&mut self, context: &mut Context<'_>, resource: &Resource<'_>, format: Format) -> Flow {
        let Some(target) = target_of(resource.resolved, context.catalog) else {
            return self.problem(context, 404, "not_found", "no record can have such a key");
        };
        let token = Token { connection: context.connection, tag: 0 };
        let scan = context.shard.scan(token, target);
        let clearing = Clearing { scan, table: resource.table, under_way: 0, at_end: false, problem: None, format };
        self.pending = Pending::Clearing(Box::new(clearing));
        Flow::Blocked
    }

    pub(super) fn continue_clearing(&mut self, context: &mut Context<'_>, mut clearing: Box<Clearing>) -> Flow {
        while !clearing.at_end && clearing.under_way < DELETES_MAX && context.shard.has_room() {
            match context.shard.scan_step(clearing.scan) {
                Step::Row { row, .. } => {
                    let token = Some(Token { connection: context.connection, tag: 0 });
                    context.shard.submit(Write {
                        token,
                        ..Write::new(Operation::Delete, clearing.table, Body::new(row.body.key(), &[]))
                    });
                    clearing.under_way += 1;
                }
                Step::Wait => break,
                Step::Damaged => {
                    clearing.at_end = true;
                    let refusal = Refusal::Damaged;
                    clearing.problem = Some((super::records::status_of(&refusal).0, explain(&refusal)));
                }
                Step::End => clearing.at_end = true,
            }
        }
        self.finish_clearing(context, clearing)
    }

    pub(super) fn cleared_one(
        &mut self,
        context: &mut Context<'_>,
        mut clearing: Box<Clearing>,
        outcome: &Outcome,
    ) -> Flow {
        clearing.under_way -= 1;
        if let Outcome::Refused(refusal) = outcome {
            clearing.at_end = true;
            clearing.problem = Some((super::records::status_of(refusal).0, explain(refusal)));
        }
        if clearing.under_way <= DELETES_MAX / 2 {
            return self.continue_clearing(context, clearing);
        }
        self.pending = Pending::Clearing(clearing);
        Flow::Blocked
    }

    fn finish_clearing(&mut self, context: &mut Context<'_>, clearing: Box<Clearing>) -> Flow {
        if !clearing.at_end || clearing.under_way > 0 {
            self.pending = Pending::Clearing(clearing);
            return Flow::Blocked;
        }
        context.shard.close_scan(clearing.scan);
        match &clearing.problem {
            Some((status, problem)) => self.problem(context, *status, "not_all_deleted", problem),
            None => {
                self.exchange.document(context, 200, clearing.format, &[0xc3], |_| {});
                self.answered(context)
            }
        }
    }
}
