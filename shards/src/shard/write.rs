//! Reads and writes of records: the owner's side and the asking side.

use super::{Pending, Shard};
use crate::clock::Version;
use crate::command::{self, Data, Operation, Outcome, Refusal, Stored, Write};
use crate::counters::Counter;
use crate::document::{self, Token};
use crate::event::{Body, Event, EventKind, Terms};
use crate::log::format::{Record, RecordHead, RecordKind};
use crate::log::{Room, Unreadable};
use crate::scan::owner;
use crate::schema::{Deliver, Durability, Role, TableDef, TableId};
use crate::session::{Receipt, StoredSession};
use crate::table::Entry;
use crate::validate::{Mode, Subject};
use bytes::Bytes;

/// What a receipt takes up in the log.
const RECEIPT_BYTES: usize = 160;
/// What validation adds to a document at most: a key property, two times, headers.
const DOCUMENT_SLACK_BYTES: usize = 4 * crate::limits::KEY_BYTES_MAX;

impl Shard {
    /// Sends a write to the shard that owns its key. An outcome follows if it has a token.
    pub fn submit(&mut self, write: Write) {
        self.outstanding += write.weight() as usize;
        let owner = owner(write.table, write.body.key(), self.shards());
        self.send_data(owner, Data::Write(write));
    }

    /// Asks for a record; an [`Outcome::Record`] follows.
    pub fn read(&mut self, token: command::Token, table: TableId, key: &[u8]) {
        self.outstanding += 1;
        let owner = owner(table, key, self.shards());
        self.send_data(owner, Data::Read { token, table, key: key.into() });
    }

    /// The record that readers see.
    pub fn peek(&self, table: TableId, key: &[u8]) -> Result<Option<Stored>, Unreadable> {
        if self.tables_are_missing {
            return Err(Unreadable);
        }
        let Some(entry) = self.table(table).visible(key) else { return Ok(None) };
        let record = self.log.read(entry.location)?;
        let stored = || Stored { version: entry.version, document: Bytes::copy_from_slice(record.document) };
        Ok((!has_expired(&record, self.now_ms())).then(stored))
    }

    /// The record that a write meets, unless it has expired; and when what is stored there expires.
    fn present(&self, table: TableId, key: &[u8]) -> Result<(Option<Entry>, Option<u64>), Unreadable> {
        match self.table(table).get(key) {
            Some(entry) if entry.expires => {
                let record = self.log.read(entry.location)?;
                Ok(((!has_expired(&record, self.now_ms())).then_some(entry), record.terms.expires_ms))
            }
            entry => Ok((entry, None)),
        }
    }

    pub(super) fn receive_write(&mut self, from: u16, write: Write) {
        if !self.deferred.is_empty() || self.links.is_congested() {
            return self.deferred.push_back((from, Data::Write(write)));
        }
        if let Some(write) = self.try_apply(from, write) {
            self.deferred.push_back((from, Data::Write(write)));
        }
    }

    /// Writes that had to wait, in their order. Their number is bounded by the credit of those who sent them.
    pub(super) fn apply_deferred(&mut self) {
        while !self.links.is_congested()
            && let Some((from, message)) = self.deferred.pop_front()
        {
            match message {
                Data::Write(write) => {
                    if let Some(write) = self.try_apply(from, write) {
                        return self.deferred.push_front((from, Data::Write(write)));
                    }
                }
                message => self.apply_session_message(from, message),
            }
        }
    }

    /// Applies a write, or gives it back where the log has no room just now.
    fn try_apply(&mut self, from: u16, mut write: Write) -> Option<Write> {
        if write.receipt.as_ref().is_some_and(|receipt| self.has_receipt(receipt)) {
            self.answer_again(from, &write);
            return None;
        }
        let met = self.present(write.table, write.body.key()).and_then(|(previous, expires_ms)| {
            let stored = self.load_previous(&write, previous)?;
            Ok((previous, expires_ms, stored))
        });
        let Ok((previous, expires_ms, stored)) = met else {
            self.answer(from, &write, Outcome::Refused(Refusal::Damaged));
            return None;
        };
        // A record must reach its readers whole: patches do not make it larger than a packet may be.
        let too_large =
            write.operation == Operation::Patch && stored + write.body.len() > 2 * self.limits.packet_bytes_max;
        let version = previous.map(|entry| entry.version);
        let holds = write.precondition.as_ref().is_none_or(|precondition| precondition.holds(version));
        // What a put leaves free is enough to delete something on a full disk.
        let slack = if write.body.document().is_empty() { 0 } else { DOCUMENT_SLACK_BYTES };
        let receipt_bytes = write.receipt.as_ref().map_or(0, |receipt| RECEIPT_BYTES + receipt.key.len());
        let refusal = match self.log.room(write.body.len() + stored + slack + receipt_bytes) {
            _ if too_large => Refusal::TooLarge,
            Room::Yes if !holds => Refusal::Precondition,
            Room::Yes if write.operation == Operation::Insert && previous.is_some() => Refusal::Exists,
            Room::Yes => match self.apply(from, &mut write, previous, expires_ms) {
                Ok(()) => {
                    if let Some(receipt) = &write.receipt {
                        self.note_receipt(receipt);
                    }
                    return None;
                }
                Err(refusal) => refusal,
            },
            Room::Wait => return Some(write),
            Room::TooLarge => Refusal::TooLarge,
            Room::Full => Refusal::DiskFull,
            Room::Fenced => Refusal::Fenced,
            Room::Damaged => Refusal::Damaged,
        };
        self.answer(from, &write, Outcome::Refused(refusal));
        None
    }

    /// Copies the record that is replaced where its content matters; gives its length.
    fn load_previous(&mut self, write: &Write, previous: Option<Entry>) -> Result<usize, Unreadable> {
        self.previous.clear();
        let keeps_created = || {
            self.table(write.table).definition.as_ref().is_some_and(|definition| {
                definition.attributes.iter().any(|attribute| attribute.role == Role::CreatedTime)
            })
        };
        let needed = match write.operation {
            Operation::Patch => true,
            Operation::Put => previous.is_some() && keeps_created(),
            _ => false,
        };
        if needed && let Some(entry) = previous {
            self.previous.extend_from_slice(self.log.read(entry.location)?.document);
        }
        Ok(self.previous.len())
    }

    /// `expired_at`: when what is stored there expires. Takes the body where it becomes the event's.
    fn apply(
        &mut self,
        from: u16,
        write: &mut Write,
        previous: Option<Entry>,
        expired_at: Option<u64>,
    ) -> Result<(), Refusal> {
        let Shard { tables, log, builder, clock, expiries, .. } = self;
        let version = clock.stamp(self.now_us);
        let key = write.body.key();
        let (record_kind, kind, mode) = match write.operation {
            Operation::Put | Operation::Insert => (RecordKind::Put, EventKind::Put, Mode::Replace),
            Operation::Patch => (RecordKind::Put, EventKind::Put, Mode::Merge),
            Operation::Delete => (RecordKind::Delete, EventKind::Delete, Mode::Message),
            Operation::Message => (RecordKind::Message, EventKind::Message, Mode::Message),
        };
        let table = &mut tables[usize::from(write.table.0)];
        let definition = table.definition.as_deref().expect("commands name declared tables");
        let (durability, deliver) = (definition.durability, definition.deliver);
        let previous_document = previous.is_some().then_some(self.previous.as_slice()).filter(|old| !old.is_empty());
        let subject =
            Subject { table: definition, codec: table.codec, key, mode, previous: previous_document, version };
        let terms = write.terms;
        let may_expire = definition.may_expire() && record_kind == RecordKind::Put;
        let head = RecordHead {
            kind: record_kind,
            table: write.table,
            version,
            may_expire: may_expire || terms.expires_ms.is_some(),
            qos: terms.qos,
            publisher: terms.publisher,
            key,
            properties: write.body.properties(),
        };
        let mut is_as_sent = true;
        let placed = log
            .append(&head, |start, out| match write.body.document() {
                [] => Ok(terms.expires_ms),
                sent => {
                    is_as_sent = builder.build(&subject, sent, out)?;
                    let own = if may_expire { expiry(definition, version, &out[start..]) } else { None };
                    Ok([own, terms.expires_ms].into_iter().flatten().min())
                }
            })
            .map_err(|refused| refused.map_or(Refusal::TooLarge, Refusal::Invalid))?;
        let entry =
            Entry { location: placed.location, version, bytes: placed.bytes, expires: placed.expires_ms.is_some() };
        // A message that is to come exactly once must not be heard of and then lost with its receipt: its publisher
        // would send it again. And what comes behind something that waits, waits as well.
        let must_wait = write.receipt.is_some() || !self.held_back.is_empty();
        let is_delayed = deliver == Deliver::Applied && must_wait;
        let holds_back = deliver == Deliver::Committed || is_delayed;
        // A message changes nothing that readers see.
        if holds_back && kind != EventKind::Message {
            table.hold_back(key, table.get(key));
        }
        let (replaced, after) = match kind {
            EventKind::Put => {
                log.hold(entry.location.segment, write.table, entry.bytes.into());
                (table.set(key, entry), Some(entry))
            }
            EventKind::Delete => (table.remove(key), None),
            EventKind::Message | EventKind::Leave => (None, None),
        };
        if let Some(replaced) = replaced {
            log.release(replaced.location.segment, write.table, replaced.bytes.into());
        }
        // One that has expired was shown to nobody lately.
        let shown = replaced.filter(|_| table.watchers != 0 && !holds_back && previous.is_some());
        let old = shown.and_then(|old| log.read(old.location).ok());
        let before = old.map(|old| Bytes::copy_from_slice(old.document));
        let document = || log.read(placed.location).map_or(&[][..], |record| record.document);
        if !table.indexes.is_empty() && kind != EventKind::Message {
            if kind == EventKind::Put {
                table.indexes.insert(key, document());
            }
            // What is held back is still seen.
            if let Some(replaced) = replaced.filter(|_| !holds_back)
                && let Ok(old) = log.read(replaced.location)
            {
                table.indexes.remove(key, old.document);
            }
        }
        if let (Some(at_ms), Some(replaced)) = (expired_at, replaced) {
            expiries.remove(&(at_ms, replaced.version, write.table, key.into()));
        }
        if let (Some(at_ms), EventKind::Put) = (placed.expires_ms, kind) {
            expiries.insert((at_ms, version, write.table, key.into()));
        }
        let position = log.position();
        // Mostly nobody listens to what is written: then there is nothing to copy.
        let is_heard = holds_back || table.is_heard();
        let changed =
            (is_heard && !is_as_sent).then(|| Body::with_properties(key, write.body.properties(), document()));
        let existed = previous.is_some();
        let outcome = Outcome::Written { version, position, existed, durability };
        match write.token {
            Some(token) if durability == Durability::Disk || is_delayed => {
                self.pending.push_back(Pending { seq: position.seq, from, token, outcome, weight: write.weight() });
            }
            _ => self.answer(from, write, outcome),
        }
        let event = is_heard.then(|| Event {
            kind,
            table: write.table,
            version,
            shard: self.index,
            position,
            reached: position,
            terms: Terms { expires_ms: placed.expires_ms, ..terms },
            body: changed.unwrap_or_else(|| std::mem::take(&mut write.body)),
            previous: before,
        });
        match event {
            Some(event) if holds_back => self.held_back.push_back((event, after)),
            Some(event) => self.fan_out(event),
            None => self.seen[usize::from(self.index)] = self.reached(),
        }
        Ok(())
    }

    fn has_receipt(&self, receipt: &Receipt) -> bool {
        let found = self.system.receipts.and_then(|table| self.table(table).get(receipt.key.as_bytes()));
        let is_over = |entry: Entry| {
            entry.expires && self.log.read(entry.location).is_ok_and(|record| has_expired(&record, self.now_ms()))
        };
        found.is_some_and(|entry| !is_over(entry))
    }

    /// Notes, in the batch of the message, that it was taken.
    fn note_receipt(&mut self, receipt: &Receipt) {
        let Some(table) = self.system.receipts else { return };
        let (operation, body) = (Operation::Put, Body::new(receipt.key.as_bytes(), &[0x80]));
        let terms = Terms { expires_ms: receipt.expires_ms, ..Terms::default() };
        let mut write = Write { terms, ..Write::new(operation, table, body) };
        let weight = write.weight();
        // There is room for it, and nothing of it can be refused.
        let _ = self.apply(self.index, &mut write, None, None);
        self.credits[usize::from(self.index)] -= weight; // nobody was waiting for it
    }

    /// Delivers what was held back until it was on disk.
    pub(super) fn release_held_back(&mut self) {
        let durable = self.log.durable_seq();
        while self.held_back.front().is_some_and(|(event, _)| event.position.seq <= durable) {
            let Some((mut event, after)) = self.held_back.pop_front() else { break };
            if event.kind != EventKind::Message {
                let Shard { tables, log, .. } = self;
                let (table, key) = (&mut tables[usize::from(event.table.0)], event.body.key());
                let (has_indexes, is_watched) = (!table.indexes.is_empty(), table.watchers != 0);
                if (has_indexes || is_watched)
                    && let Some(before) = table.visible(key)
                    && let Ok(old) = log.read(before.location)
                {
                    table.indexes.remove(key, old.document);
                    event.previous = is_watched.then(|| Bytes::copy_from_slice(old.document));
                }
                table.commit(event.body.key(), after);
            }
            self.fan_out(event);
        }
    }

    /// Removes records that have expired, a bounded number; nobody is told.
    pub(super) fn evict_expired(&mut self) {
        let now_ms = self.now_ms();
        for _ in 0..crate::limits::EXPIRED_PER_TURN {
            if self.expiries.first().is_none_or(|(at_ms, ..)| *at_ms > now_ms) {
                return;
            }
            let Some((_, version, id, key)) = self.expiries.pop_first() else { return };
            let table = &mut self.tables[usize::from(id.0)];
            if let Some(entry) = table.get(&key).filter(|entry| entry.version == version) {
                table.remove(&key);
                if !table.indexes.is_empty()
                    && let Ok(old) = self.log.read(entry.location)
                {
                    table.indexes.remove(&key, old.document);
                }
                if self.system.sessions == Some(id) {
                    self.outboxes.counters[Counter::SessionsExpired] += 1;
                    let document = self.log.read(entry.location).map(|record| StoredSession::decode(record.document));
                    if let Ok(Some(session)) = document {
                        self.forget_session(session.number);
                    }
                }
                self.log.release(entry.location.segment, id, entry.bytes.into());
            }
        }
    }

    fn answer(&mut self, from: u16, write: &Write, outcome: Outcome) {
        let weight = write.weight();
        match write.token {
            Some(token) => self.send_data(from, Data::Outcome { token, outcome, weight }),
            None => self.credits[usize::from(from)] += weight,
        }
    }
}

pub(super) fn has_expired(record: &Record<'_>, now_ms: u64) -> bool {
    record.terms.expires_ms.is_some_and(|at| at <= now_ms)
}

/// When a record ends, in milliseconds since 1970: what its `@expiresAt` attribute says, else the table.
fn expiry(definition: &TableDef, version: Version, document: &[u8]) -> Option<u64> {
    let own = definition.attributes.iter().find(|attribute| attribute.role == Role::ExpiresAt);
    let said = own.and_then(|own| document::attribute(document, &own.name)).and_then(|value| {
        match document::Reader::new(value).next()? {
            Token::Int(at) => Some(at.max(1) as u64),
            Token::Uint(at) => Some(at),
            Token::Float(at) if at.is_finite() => Some((at as u64).max(1)),
            Token::Date(date) => Some((date.as_millis() as u64).max(1)),
            Token::Str(text) => crate::date::parse_iso(text).map(|date| (date.as_millis() as u64).max(1)),
            _ => None,
        }
    });
    said.or_else(|| definition.expiration_ms.map(|after| (version.0 / 1000).saturating_add(after)))
}
