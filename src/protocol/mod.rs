//! The protocols: bytes ⇄ packets ⇄ engine commands. Pure: no clock, no socket, no runtime, no thread.
//!
//! Each connection has one [`Session`], a state machine that is handed received bytes and completions and writes into
//! the connection's outbox. An HTTP session may hand its connection over to another protocol ([`Upgrade`]). What
//! subscribers are sent is not written by sessions but encoded once per event in `frames.rs`.

pub mod format;
pub mod frames;
pub mod framing;
pub mod http;
pub mod mqtt;
pub mod path;
pub mod payload;
mod percent;
pub mod query;
pub mod sse;
pub mod watch;
pub mod ws;

use format::{Decoder, Format};
use shards::command::{Completion, ConnectionRef, Refusal};
use shards::counters::Counter;
use shards::log::Position;
use shards::scan::owner;
use shards::schema::{TableDef, TableId};
use shards::shard::Shard;
use shards::topic::{Resolved, Routes, Target};
use shards::validate::Rule;
use std::net::IpAddr;
use std::sync::Arc;

/// Everything sessions need to know of the app; made once at start, the same for all shards.
pub struct Catalog {
    /// By number; `None` where a table is no longer declared.
    pub tables: Vec<Option<Arc<TableDef>>>,
    pub rest: Routes,
    pub sse: Routes,
    pub ws: Routes,
    pub mqtt: Routes,
    pub static_files: http::files::StaticFiles,
    /// Path of the WebSocket that echoes, if the app has one.
    pub web_socket_echo: Option<String>,
    /// Origins that other pages may have; `*`: every one.
    pub cors: Vec<String>,
    /// Who may come in.
    pub authority: Box<dyn Authority>,
    pub health: Arc<http::health::Health>,
}

impl Catalog {
    pub fn table(&self, id: TableId) -> &TableDef {
        self.tables[usize::from(id.0)].as_deref().expect("routes lead to declared tables")
    }
}

/// What a client says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    pub username: &'a str,
    pub password: &'a [u8],
}

/// Decides who may come in; the `auth` module has the real one.
pub trait Authority: Send + Sync {
    /// Whether a client from `address` may do everything there is. `identity`: whom a certificate that was verified says
    /// it is. Without credentials it is that, or whom the address makes it.
    fn admits(&self, address: IpAddr, identity: Option<&str>, credentials: Option<Credentials<'_>>) -> bool;
}

/// Buffers that all sessions of a shard use in turn.
#[derive(Default)]
pub struct Scratch {
    pub decoder: Decoder,
    /// Unmasked bytes of WebSocket frames.
    pub unmasked: Vec<u8>,
    /// Of HTTP responses.
    date: http::response::DateText,
    packet: Vec<u8>,
    /// Key, properties and document of what is being published.
    body: Vec<u8>,
}

/// What a session may touch while it is called.
pub struct Context<'a> {
    pub shard: &'a mut Shard,
    pub catalog: &'a Catalog,
    pub scratch: &'a mut Scratch,
    pub connection: ConnectionRef,
    pub address: IpAddr,
    /// Whom the client's certificate names, where TLS has verified one.
    pub identity: Option<&'a str>,
    /// How bytes are wrapped on their way out.
    pub framing: framing::Framing,
}

impl Context<'_> {
    /// The time of this turn, in microseconds, on a clock that never jumps: for deadlines.
    pub fn ticks_us(&self) -> u64 {
        self.shard.ticks_us()
    }

    /// Writes one packet or response into the outbox.
    pub fn write(&mut self, body: impl FnOnce(&mut Vec<u8>)) {
        match self.framing {
            framing::Framing::None => self.shard.outboxes.write(self.connection, body),
            framing::Framing::WebSocket => {
                let packet = wrap(&mut self.scratch.packet, body);
                self.shard.outboxes.write(self.connection, |out| out.extend_from_slice(packet));
            }
        }
    }

    /// Writes one MQTT packet that is no message.
    pub fn write_packet(&mut self, body: impl FnOnce(&mut Vec<u8>)) {
        self.count(Counter::AnswersSent, 1);
        self.write(body);
    }

    pub fn count(&mut self, counter: Counter, by: u64) {
        self.shard.outboxes.counters[counter] += by;
    }

    /// Writes a packet that must not be sent before the session has been saved.
    pub fn hold(&mut self, body: impl FnOnce(&mut Vec<u8>)) {
        self.count(Counter::AnswersSent, 1);
        match self.framing {
            framing::Framing::None => self.shard.outboxes.hold(self.connection, body),
            framing::Framing::WebSocket => {
                let packet = wrap(&mut self.scratch.packet, body);
                self.shard.outboxes.hold(self.connection, |out| out.extend_from_slice(packet));
            }
        }
    }
}

/// A packet in a binary frame.
fn wrap(scratch: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
    scratch.clear();
    let mut packet = Vec::new();
    body(&mut packet);
    framing::write_header(framing::Opcode::Binary, packet.len(), scratch);
    scratch.extend_from_slice(&packet);
    scratch
}

/// What becomes of the connection after a call.
#[derive(Debug, Default)]
pub enum Flow {
    /// More input is welcome.
    #[default]
    Continue,
    /// No more input until a completion says otherwise.
    Blocked,
    /// Send what is in the outbox, then close.
    Close,
    /// Go on in another protocol, with the input that is left.
    Upgrade(Box<Upgrade>),
}

/// A connection that leaves HTTP. The response head has been written.
#[derive(Debug)]
pub enum Upgrade {
    Sse {
        watch: watch::Watch,
    },
    /// Records of a path; `Err`: the reason with which to close at once.
    WebSocket {
        watch: Result<watch::Watch, (u16, String)>,
        format: Format,
    },
    /// MQTT in binary frames; the upgrade's `Content-Type` and `Accept` say what payloads are.
    MqttOverWebSocket {
        incoming: Option<Format>,
        outgoing: Format,
    },
    /// A WebSocket that sends back what it is sent.
    WebSocketEcho,
}

/// One connection's protocol.
pub trait Session: Send {
    /// Takes what it can from the input; gives how many bytes it took. Called again, with more behind, for the rest.
    fn receive(&mut self, context: &mut Context<'_>, input: &[u8]) -> (usize, Flow);

    /// Something that it asked of the shard is done.
    fn complete(&mut self, context: &mut Context<'_>, completion: Completion) -> Flow;

    /// When [`Session::expire`] is due, if nothing happens before; on the clock of [`Context::ticks_us`].
    fn deadline(&self) -> Option<u64>;

    fn expire(&mut self, context: &mut Context<'_>) -> Flow;

    /// The server is about to stop: say goodbye.
    fn stop(&mut self, context: &mut Context<'_>) -> Flow;

    /// The connection is gone, or about to be. Called once, whatever the reason.
    fn end(&mut self, context: &mut Context<'_>);
}

/// A place in the history of the server at which a write has happened, as text: what this shard knows of the others, and
/// the write.
pub fn write_place(context: &Context<'_>, table: TableId, key: &[u8], position: Position) -> Vec<u8> {
    let mut seen = context.shard.seen().to_vec();
    let shard = usize::from(owner(table, key, seen.len()));
    seen[shard] = seen[shard].max(position);
    let mut text = Vec::new();
    frames::write_positions(&seen, &mut text);
    text
}

/// Status (RFC 9110 §15) and code of a write that was refused.
pub fn status_of(refusal: &Refusal) -> (u16, &'static str) {
    match refusal {
        Refusal::Invalid(_) => (400, "invalid_record"),
        Refusal::Exists => (409, "exists"),
        Refusal::Precondition => (412, "precondition_failed"),
        Refusal::TooLarge => (413, "too_large"),
        Refusal::DiskFull => (507, "disk_full"),
        Refusal::Fenced => (503, "disk_failed"),
        Refusal::Damaged => (503, "data_damaged"),
        Refusal::Forgotten => (410, "history_gone"),
    }
}

/// Says why a write was refused, in one line (compat §2.3).
pub fn explain(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Exists => "Record already exists".into(),
        Refusal::Precondition => "The record is not in the state that the request asks for".into(),
        Refusal::TooLarge => "The record would be too large".into(),
        Refusal::DiskFull => "The disk is full".into(),
        Refusal::Fenced => "The disk has failed; the server is stopping".into(),
        Refusal::Damaged => "Stored data of this shard is damaged; see /health".into(),
        Refusal::Forgotten => "History of this table is not kept so far back; see retention of @table".into(),
        Refusal::Invalid(violations) => {
            let say = |violation: &shards::validate::Violation| {
                let property = &violation.property;
                match &violation.rule {
                    Rule::MustBe { value, what } => {
                        let mut json = Vec::new();
                        format::write_json(value, &mut json);
                        format!("Value {} in property {property} must be {what}", String::from_utf8_lossy(&json))
                    }
                    Rule::NotAllowed => format!("Property {property} is not allowed"),
                    Rule::Required => {
                        format!("Property {property} is required (and does not allow null values)")
                    }
                    Rule::TooMany => format!("A record has at most {} properties", shards::limits::PROPERTIES_MAX),
                    Rule::NotAssignable => format!("Property {property} is computed or related and cannot be assigned"),
                }
            };
            violations.iter().map(say).collect::<Vec<_>>().join(". ")
        }
    }
}

/// The records that the rest of a path names (compat §6.1): one, those below a prefix, or all. `None`: no record can
/// have such a key.
pub fn target_of(resolved: Resolved<'_>, catalog: &Catalog) -> Option<Target> {
    use shards::key::KeyCodec;
    use shards::topic::KeyFilter;
    let Resolved { table, path, rest, slash } = resolved;
    let filter = match rest {
        "" if slash => KeyFilter::all(),
        // `/T//`: an empty key that has lost its name must not stand for the whole table.
        "/" => return None,
        rest => match rest.strip_suffix('/') {
            Some(prefix) => KeyFilter::below(prefix),
            None => KeyFilter::exact(rest, KeyCodec::of(catalog.table(table)))?,
        },
    };
    Some(Target { table, path, filter })
}
