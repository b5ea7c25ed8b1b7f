//! Requests that may be repeated (`Idempotency-Key`, draft-ietf-httpapi-idempotency-key-header): however often one comes,
//! also after a crash, it is carried out once.
//!
//! What was asked for and the key that its record has, or was given, are noted first, under the name that the client has
//! given the request. The write itself carries a receipt, which is stored in the same batch: a shard that has the
//! receipt does not apply the write again. Both are forgotten after a day.

use super::records::What;
use super::representation::Representation;
use super::request::Request;
use super::session::{HttpSession, Pending};
use crate::protocol::{Context, Flow, explain, status_of};
use shards::clock::Version;
use shards::command::{Operation, Outcome, Precondition, Refusal, Token, Write};
use shards::document::{Reader, Token as Value, Writer, attribute};
use shards::event::{Body, Terms};
use shards::session::Receipt;

/// How long a request is remembered, in milliseconds.
const REMEMBERED_MS: u64 = 24 * 3600 * 1000;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 255;

/// A request that may come again.
#[derive(Clone)]
pub(super) struct Promise {
    /// Whose it is, and how the client calls it.
    name: String,
    /// What was asked for, to tell it from another request under the same name.
    asked: String,
    expires_ms: u64,
    /// Of the note that is there.
    noted: Option<Version>,
}

/// A write that is noted before it is made.
pub(super) struct Promised {
    promise: Promise,
    write: Write,
    what: What,
    representation: Representation,
}

/// FNV-1a: beside a checksum of another kind, to tell bodies apart.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

impl HttpSession {
    /// Refuses a name for what is not one write.
    pub(super) fn refuse_name(&mut self, context: &mut Context<'_>, request: &Request<'_>) -> Option<Flow> {
        request.field("idempotency-key")?;
        Some(self.problem(context, 501, "not_implemented", "Idempotency-Key is for writes of one record"))
    }

    /// Has a write made; once only, if the client has given the request a name.
    pub(super) fn submit(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        write: Write,
        what: What,
        representation: Representation,
    ) -> Flow {
        let Some(text) = request.field("idempotency-key") else {
            context.shard.submit(write);
            return self.wait(representation, what);
        };
        // A string of structured fields (RFC 9651 §3.3.3); many clients leave the quotes out.
        let name = text.trim_matches('"');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            let detail = format!("Idempotency-Key: expected 1 to {NAME_BYTES_MAX} printable characters");
            return self.problem(context, 400, "bad_idempotency_key", &detail);
        }
        let Request { method, path, query, body, .. } = request;
        let identity = context.identity.unwrap_or_default();
        let [content_type, if_match, if_none_match] =
            ["content-type", "if-match", "if-none-match"].map(|name| request.field(name).unwrap_or_default());
        let digest = format!("{} {:08x} {:016x}", body.len(), crc32c::crc32c(body), fnv(body));
        let promise = Promise {
            name: format!("{}/{identity}/{name}", identity.len()),
            asked: format!("{method} {path}?{query} {content_type} {if_match} {if_none_match} {digest}"),
            expires_ms: context.shard.now_us() / 1000 + REMEMBERED_MS,
            noted: None,
        };
        self.promise(context, Operation::Insert, Promised { promise, write, what, representation })
    }

    /// Notes what is about to be written.
    fn promise(&mut self, context: &mut Context<'_>, operation: Operation, promised: Promised) -> Flow {
        let Some(table) = context.shard.receipts() else {
            return self.problem(context, 501, "not_implemented", "Idempotency-Key is not served by this server");
        };
        let Promised { promise, write, .. } = &promised;
        let mut note = Vec::new();
        note.write_map(3);
        note.write_str("expires");
        note.write_uint(promise.expires_ms);
        note.write_str("asked");
        note.write_str(&promise.asked);
        note.write_str("key");
        note.write_bytes(write.body.key());
        let body = Body::new(format!("asked/{}", promise.name).as_bytes(), &note);
        let token = Some(Token { connection: context.connection, tag: 0 });
        let terms = Terms { expires_ms: Some(promise.expires_ms), ..Terms::default() };
        // What others have noted meanwhile holds.
        let precondition = promise.noted.map(|version| Box::new(Precondition::Is(vec![version])));
        context.shard.submit(Write { token, terms, precondition, ..Write::new(operation, table, body) });
        self.pending = Pending::Promised(Box::new(promised));
        Flow::Blocked
    }

    pub(super) fn continue_promise(
        &mut self,
        context: &mut Context<'_>,
        mut promised: Box<Promised>,
        outcome: Outcome,
    ) -> Flow {
        match outcome {
            Outcome::Written { version, .. } => promised.promise.noted = Some(version),
            Outcome::Refused(Refusal::Exists | Refusal::Precondition) => {
                if let Some(table) = context.shard.receipts() {
                    let token = Token { connection: context.connection, tag: 0 };
                    let key = format!("asked/{}", promised.promise.name);
                    context.shard.read(token, table, key.as_bytes());
                }
                self.pending = Pending::Promised(promised);
                return Flow::Blocked;
            }
            Outcome::Refused(refusal) => {
                let (status, code) = status_of(&refusal);
                return self.problem(context, status, code, &explain(&refusal));
            }
            Outcome::Record(None) => {
                promised.promise.noted = None; // forgotten just now
                return self.promise(context, Operation::Insert, *promised);
            }
            Outcome::Record(Some(stored)) => {
                let value = |name| attribute(&stored.document, name).and_then(|value| Reader::new(value).next());
                let (Some(Value::Str(asked)), Some(Value::Bytes(key)), Some(Value::Int(expires_ms))) =
                    (value("asked"), value("key"), value("expires"))
                else {
                    return self.problem(context, 500, "broken_note", "what was noted of this request is not readable");
                };
                if asked != promised.promise.asked {
                    let detail = "this Idempotency-Key was given to another request";
                    return self.problem(context, 422, "idempotency_key_reused", detail);
                }
                // Both are forgotten together.
                promised.promise.expires_ms = expires_ms as u64;
                promised.promise.noted = Some(stored.version);
                promised.write.body = Body::new(key, promised.write.body.document());
                if let What::Created { key: own, retry, .. } = &mut promised.what {
                    *own = key.to_vec();
                    retry.iter_mut().for_each(|(_, write)| write.body = promised.write.body.clone());
                }
            }
        }
        let Promised { promise, mut write, mut what, representation } = *promised;
        if let What::Created { promise: own, .. } = &mut what {
            *own = Some(promise.clone());
        }
        let (key, expires_ms) = (format!("done/{}", promise.name).into(), Some(promise.expires_ms));
        write.receipt = Some(Receipt { key, expires_ms });
        context.shard.submit(write);
        self.wait(representation, what)
    }

    /// The key that was noted is another record's: the next one.
    pub(super) fn promise_again(
        &mut self,
        context: &mut Context<'_>,
        promise: Promise,
        write: Write,
        what: What,
        representation: Representation,
    ) -> Flow {
        self.promise(context, Operation::Put, Promised { promise, write, what, representation })
    }
}
