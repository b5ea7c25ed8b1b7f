//! Sessions at the shard that their client identifier belongs to: claims of connections, stored sessions, wills that
//! are due; and receipts of QoS 2 at the shards that took the messages.

use super::write::has_expired;
use super::{Pending, Shard};
use crate::command::{self, ConnectionRef, Control, Data, Operation, Outcome, Write};
use crate::event::{Body, Terms};
use crate::limits::SESSIONS_PER_TURN;
use crate::scan::owner;
use crate::schema::TableId;
use crate::session::{Claim, StoredSession, Will, receipts_of};
use bytes::Bytes;

impl Shard {
    /// Claims an MQTT client identifier; [`command::Completion::Joined`] follows. `clean`: what is stored of the session goes.
    pub fn join(&mut self, client_id: &str, connection: ConnectionRef, clean: bool) {
        let owner = self.session_owner(client_id);
        self.send_data(owner, Data::Join { client_id: client_id.into(), connection, clean });
    }

    /// The connection gives its client identifier up. `will` is sent after its delay unless the session goes on.
    pub fn leave(&mut self, client_id: &str, connection: ConnectionRef, will: Option<Will>) {
        let owner = self.session_owner(client_id);
        self.send_data(owner, Data::Leave { client_id: client_id.into(), connection, will });
    }

    /// Stores what is to be kept of a session; until `expires_ms`, if that is given.
    pub fn save_session(
        &mut self,
        client_id: &str,
        session: &StoredSession,
        expires_ms: Option<u64>,
        token: Option<command::Token>,
    ) {
        let body = Body::new(client_id.as_bytes(), &session.encode());
        self.write_session(Operation::Put, body, expires_ms, token);
    }

    /// Nothing is kept of a session any more.
    pub fn discard_session(&mut self, client_id: &str, number: u64) {
        self.write_session(Operation::Delete, Body::new(client_id.as_bytes(), &[]), None, None);
        self.forget_session(number);
    }

    fn write_session(
        &mut self,
        operation: Operation,
        body: Body,
        expires_ms: Option<u64>,
        token: Option<command::Token>,
    ) {
        let Some(table) = self.system.sessions else { return };
        let terms = Terms { expires_ms, ..Terms::default() };
        self.submit(Write { terms, token, ..Write::new(operation, table, body) });
    }

    /// Where receipts are kept.
    pub fn receipts(&self) -> Option<TableId> {
        self.system.receipts
    }

    /// A message that was received at QoS 2 is released; an outcome follows from each shard that is asked.
    pub fn release_receipt(&mut self, token: command::Token, shard: u16, key: &str) {
        let Some(table) = self.system.receipts else { return };
        let body = Body::new(key.as_bytes(), &[]);
        let (terms, token) = (Terms::default(), Some(token));
        let write = Write { terms, token, ..Write::new(Operation::Delete, table, body) };
        self.outstanding += write.weight() as usize;
        self.send_data(shard, Data::Write(write));
    }

    /// A session has ended: its receipts and its places in groups go.
    pub(super) fn forget_session(&mut self, session: u64) {
        for shard in 0..self.shards() as u16 {
            self.send_data(shard, Data::ForgetSession { session });
        }
    }

    pub(super) fn drop_receipts(&mut self, session: u64) {
        let Some(table) = self.system.receipts else { return };
        let prefix = receipts_of(session);
        let keys = self.table(table).keys_below(prefix.as_bytes());
        for key in keys {
            let (body, terms) = (Body::new(&key, &[]), Terms::default());
            let write = Write { terms, ..Write::new(Operation::Delete, table, body) };
            self.outstanding += write.weight() as usize;
            self.receive_write(self.index, write);
        }
    }

    /// Answers for a message that has been taken already, once that is on disk.
    pub(super) fn answer_again(&mut self, from: u16, write: &Write) {
        let Some(token) = write.token else { return };
        let position = self.log.position();
        let version = crate::clock::Version(0);
        let durability = crate::schema::Durability::Disk;
        let outcome = Outcome::Written { version, position, existed: true, durability };
        let weight = write.weight();
        if self.log.is_clean() {
            return self.send_data(from, Data::Outcome { token, outcome, weight });
        }
        self.pending.push_back(Pending { seq: position.seq, from, token, outcome, weight });
    }

    /// The table of sessions decides as for any other key.
    fn session_owner(&self, client_id: &str) -> u16 {
        let table = self.system.sessions.unwrap_or(TableId(u16::MAX));
        owner(table, client_id.as_bytes(), self.shards())
    }

    /// Claims and writes of one session stay in their order.
    pub(super) fn session_message(&mut self, from: u16, message: Data) {
        if self.deferred.is_empty() {
            self.apply_session_message(from, message);
        } else {
            self.deferred.push_back((from, message));
        }
    }

    pub(super) fn apply_session_message(&mut self, from: u16, message: Data) {
        match message {
            Data::Join { client_id, connection, clean } => match self.sessions.join(&client_id, connection, clean) {
                Claim::Granted => self.grant(&client_id, connection, clean),
                Claim::Evict(previous) => self.send_control(previous.shard, Control::Evict { connection: previous }),
            },
            Data::Leave { client_id, connection, will } => {
                if let Some(will) = will {
                    let due_ms = self.now_ms() + u64::from(will.delay_s) * 1000;
                    self.wills.insert(due_ms, &client_id, will);
                }
                if let Some((next, clean)) = self.sessions.leave(&client_id, connection) {
                    self.grant(&client_id, next, clean);
                }
            }
            Data::ForgetSession { session } => {
                self.drop_receipts(session);
                self.forget_member(session);
            }
            message => self.data(from, message),
        }
    }

    /// As it was written last, though readers may not see that yet.
    fn stored_session(&self, client_id: &str) -> Option<(StoredSession, Bytes)> {
        let entry = self.table(self.system.sessions?).get(client_id.as_bytes())?;
        let record = self.log.read(entry.location).ok()?;
        if has_expired(&record, self.now_ms()) {
            return None;
        }
        Some((StoredSession::decode(record.document)?, Bytes::copy_from_slice(record.document)))
    }

    /// The identifier belongs to this connection now.
    fn grant(&mut self, client_id: &str, connection: ConnectionRef, clean: bool) {
        let stored = self.stored_session(client_id);
        let mut will = self.wills.remove(client_id);
        if !self.sessions_are_adopted && will.is_none() {
            will = stored.as_ref().and_then(|(session, _)| session.will.clone()); // it has not been looked at yet
        }
        let has_ended = stored.as_ref().is_none_or(|(session, _)| session.expiry_s == Some(0));
        if clean || has_ended {
            // The session has ended: its will goes now [MQTT-3.1.3-9].
            if let Some(will) = will {
                let write = will.into_write(self.now_ms());
                self.submit(write);
            }
            if let Some((session, _)) = &stored {
                self.discard_session(client_id, session.number);
            }
        }
        let bound = self.limits.sessions_max.div_ceil(self.shards());
        let has_room = stored.is_some() || self.system.sessions.is_some_and(|table| self.table(table).len() < bound);
        let stored = stored.filter(|_| !clean && !has_ended).map(|(_, document)| document);
        self.send_data(connection.shard, Data::Joined { connection, stored, has_room });
    }

    /// After a start: what was connected when the server was killed has ended now.
    pub(super) fn adopt_sessions(&mut self) {
        let Some(table) = self.system.sessions.filter(|_| !self.sessions_are_adopted) else { return };
        let after = std::mem::take(&mut self.adopted_upto);
        let keys = self.table(table).keys_after(&after, SESSIONS_PER_TURN);
        self.sessions_are_adopted = keys.len() < SESSIONS_PER_TURN;
        self.adopted_upto = keys.last().cloned().unwrap_or_default();
        let now_ms = self.now_ms();
        for key in keys {
            let Ok(client_id) = std::str::from_utf8(&key) else { continue };
            if self.sessions.holds(client_id) {
                continue; // it is back already
            }
            let Some((mut session, _)) = self.stored_session(client_id) else { continue };
            let ended_ms = session.ended_ms.unwrap_or(now_ms);
            if let Some(will) = session.will.clone() {
                let due_ms = ended_ms + u64::from(will.delay_s) * 1000;
                let until_ms = session.expires_ms(ended_ms).unwrap_or(u64::MAX);
                self.wills.insert(due_ms.min(until_ms.max(now_ms)), client_id, will);
            }
            if session.ended_ms.is_none() {
                session.ended_ms = Some(now_ms);
                // One that ends with its connection is there for its will, which is sent first.
                let expires_ms = session.expires_ms(now_ms).filter(|_| session.expiry_s != Some(0));
                self.save_session(client_id, &session, expires_ms, None);
            }
        }
    }

    /// Sends the wills whose delay is over, a bounded number.
    pub(super) fn send_wills(&mut self) {
        let now_ms = self.now_ms();
        for _ in 0..SESSIONS_PER_TURN {
            let Some((client_id, will)) = self.wills.take_due(now_ms) else { return };
            let write = will.into_write(now_ms);
            self.submit(write);
            // It is not sent again after a restart.
            if let Some((mut session, _)) = self.stored_session(&client_id) {
                session.will = None;
                match session.expiry_s {
                    Some(0) => self.discard_session(&client_id, session.number),
                    _ => {
                        let expires_ms = session.expires_ms(session.ended_ms.unwrap_or(now_ms));
                        self.save_session(&client_id, &session, expires_ms, None);
                    }
                }
            }
        }
    }

    /// When the next will is due, on the clock of [`Shard::ticks_us`].
    pub(super) fn will_deadline_us(&self) -> Option<u64> {
        let due_ms = self.wills.next_ms()?;
        Some(self.ticks_us.saturating_add(due_ms.saturating_mul(1000).saturating_sub(self.now_us)))
    }
}
