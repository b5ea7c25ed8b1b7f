//! MQTT sessions: who holds which client identifier, and what of a session outlives its connection.
//!
//! Each identifier belongs to one shard, found by its hash, so that two connections on different shards that claim the
//! same one are put in order (MQTT 5 §3.1.4, [MQTT-3.1.4-3]). What outlives the connection is a record of the system
//! table [`sessions_table`]: subscriptions, how far each shard's events have been sent, what is in flight, the will. An
//! offline session is that record and nothing else; what it misses is read from the log when it comes back.
//!
//! What a client has sent at QoS 2 and not released yet is a record of [`receipts_table`], in the log of the shard that
//! took the message, in the same batch as the message: both are there after a crash, or neither. So is a write by a
//! request that may be repeated (`Idempotency-Key` of HTTP).

use crate::client::{Inflight, Partly, Phase, Progress, Source};
use crate::command::{ConnectionRef, Operation, Write};
use crate::document::{Reader, Token, Writer};
use crate::event::{Body, Terms};
use crate::log::Position;
use crate::schema::{Attribute, Durability, Export, Kind, Retention, Role, TableDef, TableId};
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The database of the tables that are the server's own.
pub const SYSTEM: &str = "system";
/// Where [`figures_table`] is exported: MQTT's customary place (MQTT 5 §4.7.2).
pub const FIGURES_PATH: &str = "$SYS";

fn system_table(name: &str) -> TableDef {
    let key = Attribute {
        name: "id".into(),
        kind: Kind::String,
        required: false,
        indexed: false,
        role: Role::Plain,
        description: None,
    };
    TableDef {
        database: SYSTEM.into(),
        attributes: vec![key],
        primary_key: Some(0),
        retention: Retention { window_us: 0, bytes: None },
        ..TableDef::new(name)
    }
}

/// One record for each session that outlives its connection, by client identifier.
pub fn sessions_table() -> TableDef {
    system_table("sessions")
}

/// One record for each message that was received at QoS 2 and is not released, and for each request that may be
/// repeated.
pub fn receipts_table() -> TableDef {
    system_table("receipts")
}

/// What the server says of itself to MQTT clients, one record for each figure. Those of an earlier run are not loaded.
pub fn figures_table() -> TableDef {
    let export = Export { path: FIGURES_PATH.into(), rest: false, sse: false, ws: false, mqtt: true };
    TableDef { exports: vec![export], durability: Durability::Memory, ..system_table("figures") }
}

/// All tables of the server's own; that of figures is the last.
pub fn system_tables() -> [TableDef; 3] {
    [sessions_table(), receipts_table(), figures_table()]
}

/// The key of a QoS 2 message's receipt. All of a session begin with [`receipts_of`].
pub fn receipt_key(session: u64, packet_id: u16) -> String {
    format!("{}{packet_id}", receipts_of(session))
}

pub fn receipts_of(session: u64) -> String {
    format!("{session:016x}-")
}

/// Names a write that may be sent again and is made once: it is noted with the write, in the same batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// In [`receipts_table`].
    pub key: Box<str>,
    /// When it may be forgotten, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

/// Sends a will when its time has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Will {
    pub operation: Operation,
    pub table: TableId,
    pub body: Body,
    pub qos: u8,
    /// How long after it was sent it is worth delivering, in seconds.
    pub message_expiry_s: Option<u32>,
    /// How long after the connection has ended it is sent, in seconds.
    pub delay_s: u32,
}

impl Will {
    pub fn into_write(self, now_ms: u64) -> Write {
        let expires_ms = self.message_expiry_s.map(|seconds| now_ms + u64::from(seconds) * 1000);
        let terms = Terms { qos: self.qos, publisher: 0, expires_ms };
        Write { terms, ..Write::new(self.operation, self.table, self.body) }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct StoredSubscription {
    pub filter: Box<str>,
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub identifier: Option<u32>,
    /// Not all current records were handed out.
    pub is_unfinished: bool,
    /// Of payloads; the protocol's affair.
    pub format: u8,
    pub since: Option<Arc<[Position]>>,
    /// Of a live query; the protocol's affair.
    pub query: Option<Box<str>>,
}

/// What is kept of a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredSession {
    /// Names the session in the log; another one under the same client identifier has another.
    pub number: u64,
    /// Seconds after the end of its connection; `None`: never.
    pub expiry_s: Option<u32>,
    /// When its connection ended; `None`: it is connected, or the server was killed.
    pub ended_ms: Option<u64>,
    pub will: Option<Will>,
    pub subscriptions: Vec<StoredSubscription>,
    pub progress: Progress,
}

fn write_positions(positions: &[Position], out: &mut Vec<u8>) {
    out.write_array(2 * positions.len() as u32);
    for position in positions {
        out.write_uint(position.epoch.into());
        out.write_uint(position.seq);
    }
}

/// Reads the values of a stored session; `None` from any of these means that it is none.
struct Values<'a>(Reader<'a>);

impl<'a> Values<'a> {
    fn array(&mut self) -> Option<u32> {
        match self.0.next()? {
            Token::Array(count) => Some(count),
            _ => None,
        }
    }

    fn uint(&mut self) -> Option<u64> {
        self.optional()?
    }

    /// A number or null.
    fn optional(&mut self) -> Option<Option<u64>> {
        match self.0.next()? {
            Token::Null => Some(None),
            Token::Int(value) => Some(Some(value.try_into().ok()?)),
            Token::Uint(value) => Some(Some(value)),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&'a str> {
        match self.0.next()? {
            Token::Str(text) => Some(text),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        match self.0.next()? {
            Token::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn positions(&mut self) -> Option<Vec<Position>> {
        let count = self.array()? / 2;
        (0..count).map(|_| Some(Position { epoch: self.uint()?.try_into().ok()?, seq: self.uint()? })).collect()
    }

    fn partly(&mut self) -> Option<Vec<Partly>> {
        let count = self.array()? / 4;
        let one = |_| {
            let shard = self.uint()?.try_into().ok()?;
            let position = Position { epoch: self.uint()?.try_into().ok()?, seq: self.uint()? };
            Some(Partly { shard, position, paths: self.uint()? })
        };
        (0..count).map(one).collect()
    }

    fn will(&mut self) -> Option<Will> {
        let operation = match self.uint()? {
            0 => Operation::Put,
            1 => Operation::Delete,
            _ => Operation::Message,
        };
        let table = TableId(self.uint()?.try_into().ok()?);
        let body = Body::with_properties(self.bytes()?, self.bytes()?, self.bytes()?);
        let qos = self.uint()?.min(2) as u8;
        let message_expiry_s = self.optional()?.map(|seconds| seconds as u32);
        Some(Will { operation, table, body, qos, message_expiry_s, delay_s: self.uint()? as u32 })
    }

    fn subscription(&mut self) -> Option<StoredSubscription> {
        let count = self.array()?;
        let filter = self.text()?.into();
        let (qos, flags) = (self.uint()?.min(2) as u8, self.uint()?);
        let identifier = self.optional()?.map(|identifier| identifier as u32);
        let format = self.uint()? as u8;
        let since = self.positions()?;
        let query = if count > 6 { Some(self.text()?.into()) } else { None };
        Some(StoredSubscription {
            query,
            filter,
            qos,
            no_local: flags & 1 != 0,
            retain_as_published: flags & 2 != 0,
            is_unfinished: flags & 4 != 0,
            identifier,
            format,
            since: (!since.is_empty()).then(|| since.into()),
        })
    }

    fn inflight(&mut self) -> Option<Inflight> {
        let count = self.array()?;
        let packet_id = self.uint()?.try_into().ok()?;
        let phase = match self.uint()? {
            1 => Phase::AtLeastOnce,
            2 => Phase::ExactlyOnce,
            _ => Phase::Released,
        };
        let source = if count == 4 {
            Source::Row { table: TableId(self.uint()?.try_into().ok()?), key: self.bytes()?.into() }
        } else {
            let shard = self.uint()?.try_into().ok()?;
            let position = Position { epoch: self.uint()?.try_into().ok()?, seq: self.uint()? };
            let path = if count == 5 { 0 } else { self.uint()? as u8 };
            Source::Event { shard, position, path }
        };
        Some(Inflight { packet_id, phase, shared: None, source })
    }
}

impl StoredSession {
    /// As a canonical document.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let optional = |value: Option<u64>, out: &mut Vec<u8>| match value {
            Some(value) => out.write_uint(value),
            None => out.write_null(),
        };
        out.write_map(8);
        out.write_str("session");
        out.write_uint(self.number);
        out.write_str("expiry");
        optional(self.expiry_s.map(u64::from), &mut out);
        out.write_str("ended");
        optional(self.ended_ms, &mut out);
        out.write_str("will");
        match &self.will {
            None => out.write_null(),
            Some(will) => {
                out.write_array(8);
                out.write_uint(match will.operation {
                    Operation::Put | Operation::Insert | Operation::Patch => 0,
                    Operation::Delete => 1,
                    Operation::Message => 2,
                });
                out.write_uint(will.table.0.into());
                [will.body.key(), will.body.properties(), will.body.document()]
                    .iter()
                    .for_each(|bytes| out.write_bytes(bytes));
                out.write_uint(will.qos.into());
                optional(will.message_expiry_s.map(u64::from), &mut out);
                out.write_uint(will.delay_s.into());
            }
        }
        out.write_str("subscriptions");
        out.write_array(self.subscriptions.len() as u32);
        for own in &self.subscriptions {
            out.write_array(6 + u32::from(own.query.is_some()));
            out.write_str(&own.filter);
            out.write_uint(own.qos.into());
            let flags = [own.no_local, own.retain_as_published, own.is_unfinished];
            out.write_uint((0..).zip(flags).map(|(bit, flag)| u64::from(flag) << bit).sum());
            optional(own.identifier.map(u64::from), &mut out);
            out.write_uint(own.format.into());
            write_positions(own.since.as_deref().unwrap_or_default(), &mut out);
            if let Some(query) = &own.query {
                out.write_str(query);
            }
        }
        out.write_str("positions");
        write_positions(&self.progress.positions, &mut out);
        out.write_str("partly");
        out.write_array(4 * self.progress.partly.len() as u32);
        for Partly { shard, position, paths } in &self.progress.partly {
            [u64::from(*shard), position.epoch.into(), position.seq, *paths]
                .iter()
                .for_each(|own| out.write_uint(*own));
        }
        out.write_str("inflight");
        out.write_array(self.progress.inflight.len() as u32);
        for own in &self.progress.inflight {
            out.write_array(if matches!(own.source, Source::Row { .. }) { 4 } else { 6 });
            out.write_uint(own.packet_id.into());
            out.write_uint(match own.phase {
                Phase::AtLeastOnce => 1,
                Phase::ExactlyOnce => 2,
                Phase::Released => 3,
            });
            match &own.source {
                Source::Row { table, key } => {
                    out.write_uint(table.0.into());
                    out.write_bytes(key);
                }
                Source::Event { shard, position, path } => {
                    out.write_uint((*shard).into());
                    out.write_uint(position.epoch.into());
                    out.write_uint(position.seq);
                    out.write_uint((*path).into());
                }
            }
        }
        out
    }

    /// `None`: it is none, or of a later version.
    pub fn decode(document: &[u8]) -> Option<StoredSession> {
        let values = |name: &str| crate::document::attribute(document, name).map(|value| Values(Reader::new(value)));
        let mut subscriptions = values("subscriptions")?;
        let mut inflight = values("inflight")?;
        let mut will = values("will")?;
        Some(StoredSession {
            number: values("session")?.uint()?,
            expiry_s: values("expiry")?.optional()?.map(|seconds| seconds as u32),
            ended_ms: values("ended")?.optional()?,
            will: if will.array().is_some() { Some(will.will()?) } else { None },
            subscriptions: (0..subscriptions.array()?).map(|_| subscriptions.subscription()).collect::<Option<_>>()?,
            progress: Progress {
                positions: values("positions")?.positions()?,
                partly: values("partly").map_or(Some(Vec::new()), |mut partly| partly.partly())?,
                inflight: (0..inflight.array()?).map(|_| inflight.inflight()).collect::<Option<_>>()?,
            },
        })
    }

    /// When it ends, in milliseconds since 1970, if its connection ends now.
    pub fn expires_ms(&self, now_ms: u64) -> Option<u64> {
        self.expiry_s.map(|seconds| now_ms + u64::from(seconds) * 1000)
    }
}

/// Wills that wait for the end of their delay: one for each client identifier.
#[derive(Default)]
pub struct Wills {
    /// By when they are due, in milliseconds since 1970.
    queue: BTreeMap<(u64, Box<str>), Will>,
    due_ms: HashMap<Box<str>, u64>,
}

impl Wills {
    pub fn insert(&mut self, due_ms: u64, client_id: &str, will: Will) {
        self.remove(client_id);
        self.due_ms.insert(client_id.into(), due_ms);
        self.queue.insert((due_ms, client_id.into()), will);
    }

    pub fn remove(&mut self, client_id: &str) -> Option<Will> {
        let due_ms = self.due_ms.remove(client_id)?;
        self.queue.remove(&(due_ms, client_id.into()))
    }

    /// When the first is due.
    pub fn next_ms(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((due_ms, _), _)| *due_ms)
    }

    /// The first, if it is due.
    pub fn take_due(&mut self, now_ms: u64) -> Option<(Box<str>, Will)> {
        self.next_ms().filter(|due_ms| *due_ms <= now_ms)?;
        let ((_, client_id), will) = self.queue.pop_first()?;
        self.due_ms.remove(&client_id);
        Some((client_id, will))
    }
}

struct Holder {
    connection: ConnectionRef,
    /// The one that has claimed the identifier since, and whether it wants nothing of what is stored.
    next: Option<(ConnectionRef, bool)>,
}

/// Who holds which client identifier, at the shard that it belongs to.
#[derive(Default)]
pub struct Sessions {
    holders: HashMap<Box<str>, Holder>,
}

/// What follows from a claim.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    Granted,
    /// This one has to go first.
    Evict(ConnectionRef),
}

impl Sessions {
    pub fn join(&mut self, client_id: &str, connection: ConnectionRef, clean: bool) -> Claim {
        match self.holders.get_mut(client_id) {
            None => {
                self.holders.insert(client_id.into(), Holder { connection, next: None });
                Claim::Granted
            }
            Some(holder) => {
                let waiting = holder.next.replace((connection, clean));
                Claim::Evict(waiting.map_or(holder.connection, |(waiting, _)| waiting))
            }
        }
    }

    /// The connection is gone. Gives the one that holds the identifier now, if it has just got it.
    pub fn leave(&mut self, client_id: &str, connection: ConnectionRef) -> Option<(ConnectionRef, bool)> {
        let holder = self.holders.get_mut(client_id)?;
        if holder.connection != connection {
            holder.next.take_if(|(next, _)| *next == connection);
            return None;
        }
        match holder.next.take() {
            Some((next, clean)) => {
                holder.connection = next;
                Some((next, clean))
            }
            None => {
                self.holders.remove(client_id);
                None
            }
        }
    }

    /// Whether a connection holds the identifier.
    pub fn holds(&self, client_id: &str) -> bool {
        self.holders.contains_key(client_id)
    }

    pub fn len(&self) -> usize {
        self.holders.len()
    }

    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn connection(index: u32) -> ConnectionRef {
        ConnectionRef { shard: 0, index, generation: 1 }
    }

    #[test]
    fn an_identifier_passes_on_when_its_holder_has_left() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.join("a", connection(1), false), Claim::Granted);
        assert_eq!(sessions.join("a", connection(2), false), Claim::Evict(connection(1)));
        assert_eq!(sessions.join("a", connection(3), true), Claim::Evict(connection(2)), "the last one counts");
        assert_eq!(sessions.leave("a", connection(2)), None);
        assert_eq!(sessions.leave("a", connection(1)), Some((connection(3), true)));
        assert_eq!(sessions.leave("a", connection(1)), None, "twice");
        assert_eq!(sessions.leave("a", connection(3)), None);
        assert!(sessions.is_empty());
    }

    fn position() -> impl Strategy<Value = Position> {
        (any::<u32>(), any::<u64>()).prop_map(|(epoch, seq)| Position { epoch, seq })
    }

    prop_compose! {
        fn inflight()(packet_id in 1u16.., phase in 0..3, row in any::<Option<Vec<u8>>>(), shard in any::<u16>(),
                      position in position()) -> Inflight {
            let phase = [Phase::AtLeastOnce, Phase::ExactlyOnce, Phase::Released][phase as usize];
            let source = match row {
                Some(key) => Source::Row { table: TableId(shard), key: key.into() },
                None => Source::Event { shard, position, path: 1 },
            };
            Inflight { packet_id, phase, shared: None, source }
        }
    }

    prop_compose! {
        fn subscription()(filter in ".{1,20}", qos in 0u8..3, no_local in any::<bool>(), rap in any::<bool>(),
                          is_unfinished in any::<bool>(),
                          identifier in any::<Option<u32>>(), format in any::<u8>(),
                          since in proptest::collection::vec(position(), 0..3)) -> StoredSubscription {
            let since = (!since.is_empty()).then(|| since.into());
            let filter: Box<str> = filter.into();
            let query = (qos == 0).then(|| filter.clone());
            StoredSubscription { filter, qos, no_local, retain_as_published: rap, identifier, is_unfinished, format, since, query }
        }
    }

    prop_compose! {
        fn will()(operation in 0..3, table in any::<u16>(), key in any::<Vec<u8>>(), properties in any::<Vec<u8>>(),
                  document in any::<Vec<u8>>(), qos in 0u8..3, message_expiry_s in any::<Option<u32>>(),
                  delay_s in any::<u32>()) -> Will {
            let operation = [Operation::Put, Operation::Delete, Operation::Message][operation as usize];
            let body = Body::with_properties(&key, &properties, &document);
            Will { operation, table: TableId(table), body, qos, message_expiry_s, delay_s }
        }
    }

    proptest! {
        #[test]
        fn sessions_survive(
            number in any::<u64>(), expiry_s in any::<Option<u32>>(), ended_ms in any::<Option<u64>>(),
            will in proptest::option::of(will()), subscriptions in proptest::collection::vec(subscription(), 0..5),
            positions in proptest::collection::vec(position(), 0..5),
            partly in proptest::collection::vec((any::<u16>(), position(), any::<u64>()), 0..3),
            inflight in proptest::collection::vec(inflight(), 0..5),
        ) {
            let partly = partly.into_iter().map(|(shard, position, paths)| Partly { shard, position, paths }).collect();
            let progress = Progress { positions, partly, inflight };
            let session = StoredSession { number, expiry_s, ended_ms, will, subscriptions, progress };
            let document = session.encode();
            prop_assert!(crate::document::is_well_formed(&document));
            prop_assert_eq!(StoredSession::decode(&document), Some(session));
        }

        #[test]
        fn any_document_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = StoredSession::decode(&bytes);
        }
    }
}
