//! Reads and writes of records: the owner's side and the asking side.

use super::{Pending, Shard};
use crate::command::{Data, Operation, Outcome, Refusal, Stored, Token, Write};
use crate::event::{Body, Event, EventKind};
use crate::log::Room;
use crate::log::format::RecordKind;
use crate::scan::owner;
use crate::schema::{Durability, Role, TableId};
use crate::table::Entry;
use crate::validate::{Mode, Subject};
use bytes::Bytes;

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
    pub fn read(&mut self, token: Token, table: TableId, key: &[u8]) {
        self.outstanding += 1;
        let owner = owner(table, key, self.shards());
        self.send_data(owner, Data::Read { token, table, key: key.into() });
    }

    pub(super) fn stored(&self, table: TableId, key: &[u8]) -> Option<Stored> {
        let entry = self.table(table).get(key)?;
        let record = self.log.read(entry.location)?;
        Some(Stored { version: entry.version, document: Bytes::copy_from_slice(record.document) })
    }

    pub(super) fn receive_write(&mut self, from: u16, write: Write) {
        if !self.deferred.is_empty() || self.links.is_congested() {
            return self.deferred.push_back((from, write));
        }
        if let Err(write) = self.try_apply(from, write) {
            self.deferred.push_back((from, write));
        }
    }

    /// Writes that had to wait, in their order. Their number is bounded by the credit of those who sent them.
    pub(super) fn apply_deferred(&mut self) {
        while !self.links.is_congested()
            && let Some((from, write)) = self.deferred.pop_front()
        {
            if let Err(write) = self.try_apply(from, write) {
                return self.deferred.push_front((from, write));
            }
        }
    }

    /// Applies a write, or gives it back where the log has no room just now.
    fn try_apply(&mut self, from: u16, write: Write) -> Result<(), Write> {
        let previous = self.table(write.table).get(write.body.key());
        let stored = self.load_previous(&write, previous);
        // A record must reach its readers whole: patches do not make it larger than a packet may be.
        let too_large =
            write.operation == Operation::Patch && stored + write.body.len() > 2 * self.limits.packet_bytes_max;
        let refusal = match self.log.room(write.body.len() + stored + DOCUMENT_SLACK_BYTES) {
            _ if too_large => Refusal::TooLarge,
            Room::Yes if write.operation == Operation::Insert && previous.is_some() => Refusal::Exists,
            Room::Yes => match self.apply(from, &write, previous) {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            },
            Room::Wait => return Err(write),
            Room::TooLarge => Refusal::TooLarge,
            Room::Full => Refusal::DiskFull,
            Room::Fenced => Refusal::Fenced,
        };
        self.answer(from, &write, Outcome::Refused(refusal));
        Ok(())
    }

    /// Copies the record that is replaced where its content matters; gives its length.
    fn load_previous(&mut self, write: &Write, previous: Option<Entry>) -> usize {
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
        if needed
            && let Some(entry) = previous
            && let Some(record) = self.log.read(entry.location)
        {
            self.previous.extend_from_slice(record.document);
        }
        self.previous.len()
    }

    fn apply(&mut self, from: u16, write: &Write, previous: Option<Entry>) -> Result<(), Refusal> {
        let version = self.clock.stamp(self.now_us);
        let key = write.body.key();
        let (record_kind, kind, mode) = match write.operation {
            Operation::Put | Operation::Insert => (RecordKind::Put, EventKind::Put, Mode::Replace),
            Operation::Patch => (RecordKind::Put, EventKind::Put, Mode::Merge),
            Operation::Delete => (RecordKind::Delete, EventKind::Delete, Mode::Message),
            Operation::Message => (RecordKind::Message, EventKind::Message, Mode::Message),
        };
        let table = &mut self.tables[usize::from(write.table.0)];
        let definition = table.definition.clone().expect("commands name declared tables");
        let previous_document = previous.is_some().then_some(self.previous.as_slice()).filter(|old| !old.is_empty());
        let subject =
            Subject { table: &definition, codec: table.codec, key, mode, previous: previous_document, version };
        let builder = &mut self.builder;
        let location = self
            .log
            .append(record_kind, write.table, version, key, |out| match write.body.document() {
                [] => Ok(()),
                sent => builder.build(&subject, sent, out),
            })
            .map_err(|refused| refused.map_or(Refusal::TooLarge, Refusal::Invalid))?;
        match kind {
            EventKind::Put => table.set(key, Entry { location, version }),
            EventKind::Delete => _ = table.remove(key),
            EventKind::Message => {}
        }
        let position = self.log.position();
        let document = self.log.read(location).map_or(&[][..], |record| record.document);
        let event = Event {
            kind,
            table: write.table,
            version,
            shard: self.index,
            position,
            qos: write.qos,
            origin: write.origin,
            body: Body::new(key, document),
        };
        let outcome = Outcome::Written { version, position, existed: previous.is_some() };
        match (definition.durability, write.token) {
            (Durability::Disk, Some(token)) => {
                self.pending.push_back(Pending { seq: position.seq, from, token, outcome, weight: write.weight() });
            }
            _ => self.answer(from, write, outcome),
        }
        self.fan_out(event);
        Ok(())
    }

    fn answer(&mut self, from: u16, write: &Write, outcome: Outcome) {
        let weight = write.weight();
        match write.token {
            Some(token) => self.send_data(from, Data::Outcome { token, outcome, weight }),
            None => self.credits[usize::from(from)] += weight,
        }
    }
}
