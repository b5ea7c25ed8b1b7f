//! What must be true: everything that was applied, in order, as it was seen on its way to the disk, and what follows from
//! it for a shard that has been recovered, for an acknowledgement and for a subscriber.

use crate::Random;
use shards::command::Operation;
use shards::document::{Reader, Token, Writer};
use shards::limits::TOMBSTONE_RETENTION_US;
use shards::log::Position;
use shards::log::format::{ALIGNMENT, BatchHeader, HEADER_BYTES, Record, RecordKind, SegmentHeader};
use shards::schema::{Attribute, Deliver, Durability, Export, Kind, Retention, Role, TableDef, TableId};
use shards::shard::Shard;
use std::collections::BTreeMap;
use std::sync::Arc;

pub type Check<T = ()> = Result<T, String>;

pub const MEMORY: usize = 1;
pub const EXPIRING: usize = 2;
pub const EXPIRES_AT: usize = 3;
pub const FORGETFUL: usize = 4;
pub const COMMITTED: usize = 5;
pub const TABLES: usize = 6;
/// The attribute that says when a record of table [`EXPIRES_AT`] vanishes.
pub const EXPIRY: &str = "x";

/// The tables of every world; their names are their numbers.
pub fn tables() -> Vec<(TableId, Arc<TableDef>)> {
    let attribute = |name: &str, kind, role| Attribute {
        name: name.into(),
        kind,
        required: false,
        indexed: false,
        role,
        description: None,
    };
    let define = |number: usize| {
        let mut table = TableDef {
            name: number.to_string(),
            database: "data".into(),
            exports: vec![Export { path: number.to_string(), rest: true, sse: true, ws: true, mqtt: true }],
            attributes: vec![attribute("id", Kind::Id, Role::Plain)],
            primary_key: Some(0),
            sealed: false,
            durability: Durability::Disk,
            deliver: Deliver::Applied,
            expiration_ms: None,
            retention: Retention::default(),
            relations: Vec::new(),
            description: None,
        };
        match number {
            MEMORY => table.durability = Durability::Memory,
            EXPIRING => table.expiration_ms = Some(5_000),
            EXPIRES_AT => {
                table.attributes.push(attribute(EXPIRY, Kind::Long, Role::ExpiresAt));
                table.retention.window_us = 10_000_000;
            }
            FORGETFUL => table.retention.window_us = 0,
            COMMITTED => {
                table.deliver = Deliver::Committed;
                table.retention.window_us = 60_000_000;
            }
            _ => {}
        }
        (TableId(number as u16), Arc::new(table))
    };
    (0..TABLES).map(define).collect()
}

/// A write as a client sent it.
#[derive(Clone)]
pub struct Submitted {
    pub operation: Operation,
    pub table: usize,
    pub key: Vec<u8>,
    /// Names and encoded values.
    pub sent: Vec<(String, Vec<u8>)>,
    /// Where it was found in the log.
    pub seq: Option<u64>,
}

impl Submitted {
    pub fn document(&self) -> Vec<u8> {
        if self.operation == Operation::Delete { Vec::new() } else { encode(&self.sent) }
    }

    /// The document that must be stored where `previous` is the record so far.
    fn expected(&self, previous: Option<&[u8]>) -> Vec<u8> {
        let mut properties = match (self.operation, previous) {
            (Operation::Patch, Some(previous)) => decode(previous),
            _ => Vec::new(),
        };
        let mut set = |name: &str, value: &[u8]| match properties.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value.to_vec(),
            None => properties.push((name.to_owned(), value.to_vec())),
        };
        self.sent.iter().for_each(|(name, value)| set(name, value));
        if self.operation != Operation::Message {
            let mut key = Vec::new();
            key.write_str(std::str::from_utf8(&self.key).expect("keys are texts"));
            set("id", &key);
        }
        encode(&properties)
    }
}

fn encode(properties: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    out.write_map(properties.len() as u32);
    for (name, value) in properties {
        out.write_str(name);
        out.extend_from_slice(value);
    }
    out
}

fn decode(document: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut reader = Reader::new(document);
    let Some(Token::Map(count)) = reader.next() else { return Vec::new() };
    let property = |_| Some((reader.key()?.to_owned(), reader.value()?.to_vec()));
    (0..count).map_while(property).collect()
}

fn integer(document: &[u8], name: &str) -> Option<u64> {
    match Reader::new(shards::document::attribute(document, name)?).next()? {
        Token::Int(number) => u64::try_from(number).ok(),
        Token::Uint(number) => Some(number),
        _ => None,
    }
}

/// The number that makes a document unique.
pub const TAG: &str = "u";

/// An event as it stands in the log.
#[derive(Clone)]
pub struct Event {
    pub kind: RecordKind,
    pub table: usize,
    pub key: Vec<u8>,
    pub document: Vec<u8>,
    pub version: u64,
    pub expires_ms: Option<u64>,
    /// The last event of this key before it; messages and states apart.
    pub previous: Option<u64>,
    /// An acknowledgement named it.
    acknowledged: bool,
}

type Key = (usize, Vec<u8>);

/// The history of one shard.
#[derive(Clone, Default)]
pub struct Model {
    /// The event of seq n is at n - 1.
    events: Vec<Event>,
    states: BTreeMap<Key, u64>,
    messages: BTreeMap<Key, u64>,
}

/// What a recovered shard is measured against.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// What was acknowledged.
    pub floor: u64,
    /// What was applied.
    pub ceiling: u64,
    /// The highest epoch of which a position may have been given out.
    pub epoch: u32,
    pub now_us: u64,
}

impl Model {
    pub fn last_seq(&self) -> u64 {
        self.events.len() as u64
    }

    pub fn last_version(&self) -> u64 {
        self.events.last().map_or(0, |event| event.version)
    }

    pub fn event(&self, seq: u64) -> Option<&Event> {
        self.events.get(seq.checked_sub(1)? as usize)
    }

    pub fn seq_of(&self, version: u64) -> Option<u64> {
        self.events.binary_search_by_key(&version, |event| event.version).ok().map(|at| at as u64 + 1)
    }

    /// The newest state of each key.
    pub fn states(&self) -> impl Iterator<Item = (&Event, u64)> {
        self.states.values().filter_map(|seq| Some((self.event(*seq)?, *seq)))
    }

    /// What came after `seq` never was.
    pub fn truncate(&mut self, seq: u64) {
        while self.last_seq() > seq {
            let Some(event) = self.events.pop() else { return };
            let newest = if event.kind == RecordKind::Message { &mut self.messages } else { &mut self.states };
            let key = (event.table, event.key);
            match event.previous {
                Some(previous) => newest.insert(key, previous),
                None => newest.remove(&key),
            };
        }
    }

    /// Takes note of a batch on its way to the disk, when everything up to `synced` had been flushed: each event must be
    /// what a client asked for, once. Gives the seq of the last one.
    pub fn learn(&mut self, batch: &[u8], synced: u64, submitted: &mut BTreeMap<u64, Submitted>) -> Check<u64> {
        let (header, _) = BatchHeader::decode(batch).ok_or("a commit does not begin with a batch header")?;
        if header.durable_seq != synced {
            return Err(format!("a batch names {} as flushed, not {synced}", header.durable_seq));
        }
        if header.first_seq != self.last_seq() + 1 {
            return Err(format!("batch of seq {} follows {}", header.first_seq, self.last_seq()));
        }
        let mut rest = &batch[HEADER_BYTES..];
        for _ in 0..header.count {
            let (record, length) = Record::decode(rest).ok_or("a record of a commit cannot be read")?;
            rest = &rest[length..];
            self.learn_record(&record, submitted)?;
        }
        Ok(self.last_seq())
    }

    fn learn_record(&mut self, record: &Record<'_>, submitted: &mut BTreeMap<u64, Submitted>) -> Check {
        let (table, seq) = (usize::from(record.table.0), self.last_seq() + 1);
        let key = (table, record.key.to_vec());
        let what = format!("seq {seq} ({:?} of {table}/{})", record.kind, String::from_utf8_lossy(record.key));
        if record.version.0 <= self.last_version() {
            return Err(format!("{what}: version {} does not rise", record.version.0));
        }
        let now_ms = record.version.0 / 1000;
        let newest = if record.kind == RecordKind::Message { &mut self.messages } else { &mut self.states };
        let previous = newest.insert(key.clone(), seq);
        let before = previous.and_then(|seq| self.event(seq));
        let exists = before.is_some_and(|event| event.kind == RecordKind::Put && !event.is_expired(now_ms));
        if record.kind == RecordKind::Delete {
            let asked = submitted.values_mut().find(|write| {
                write.operation == Operation::Delete
                    && write.seq.is_none()
                    && (write.table, &write.key) == (table, &key.1)
            });
            let expired = before.is_some_and(|event| event.is_expired(now_ms));
            match asked {
                _ if expired => {}
                Some(write) => write.seq = Some(seq),
                None => return Err(format!("{what}: nobody asked for it")),
            }
        } else {
            let tag = integer(record.document, TAG).ok_or_else(|| format!("{what}: a document without tag"))?;
            let write = submitted.get_mut(&tag).ok_or_else(|| format!("{what}: tag {tag} was never sent"))?;
            if let Some(seq) = write.seq.replace(seq) {
                return Err(format!("{what}: tag {tag} was applied as seq {seq} before"));
            }
            let kind = if write.operation == Operation::Message { RecordKind::Message } else { RecordKind::Put };
            if (write.table, &write.key, kind) != (table, &key.1, record.kind) {
                return Err(format!("{what}: tag {tag} asked for something else"));
            }
            // A record that ends in this very millisecond was there or not: versions run ahead of the clock.
            let may_exist = before.is_some_and(|event| event.kind == RecordKind::Put && !event.is_expired(now_ms - 1));
            let expected = write.expected(before.filter(|_| exists).map(|event| event.document.as_slice()));
            let or = write.expected(before.filter(|_| may_exist).map(|event| event.document.as_slice()));
            if expected != record.document && or != record.document {
                return Err(format!("{what}: {:?} instead of {:?}", decode(record.document), decode(&expected)));
            }
            if write.operation == Operation::Insert && exists {
                return Err(format!("{what}: an insert replaced a record"));
            }
        }
        let expires_ms = match (table, record.kind) {
            (EXPIRING, RecordKind::Put) => Some(now_ms + 5_000),
            (EXPIRES_AT, RecordKind::Put) => integer(record.document, EXPIRY),
            _ => None,
        };
        if expires_ms != record.terms.expires_ms {
            return Err(format!("{what}: expires at {:?} instead of {expires_ms:?}", record.terms.expires_ms));
        }
        self.events.push(Event {
            kind: record.kind,
            table,
            key: key.1,
            document: record.document.to_vec(),
            version: record.version.0,
            expires_ms,
            previous,
            acknowledged: false,
        });
        Ok(())
    }

    /// The newest state of a key, if it is known to be flushed.
    pub fn flushed_state(&self, table: usize, key: &[u8], synced: u64) -> Option<u64> {
        self.states.get(&(table, key.to_vec())).copied().filter(|seq| *seq <= synced)
    }

    /// A client has read a key: no older state than `floor`, none that was not on disk where the table says so.
    pub fn verify_read(
        &self,
        table: usize,
        key: &[u8],
        version: u64,
        document: &[u8],
        floor: u64,
        synced: u64,
    ) -> Check {
        let seq = self.seq_of(version).ok_or_else(|| format!("version {version} was read and never written"))?;
        let event = &self.events[seq as usize - 1];
        let same = (event.kind, event.table, event.key.as_slice(), event.document.as_slice())
            == (RecordKind::Put, table, key, document);
        if !same || seq < floor || (table == COMMITTED && seq > synced) {
            let key = String::from_utf8_lossy(key);
            return Err(format!("a reader of {table}/{key} got seq {seq}; {floor} is known, {synced} is on disk"));
        }
        Ok(())
    }

    /// Whether a key may have had no record since its state `floor`.
    pub fn may_be_absent(&self, table: usize, key: &[u8], floor: u64, now_us: u64) -> bool {
        let is_gone = |event: &Event| event.kind == RecordKind::Delete || event.is_expired(now_us / 1000);
        self.event(floor).is_none_or(is_gone)
            || self.events[floor as usize..]
                .iter()
                .any(|event| (event.table, event.key.as_slice()) == (table, key) && is_gone(event))
    }

    /// A write was acknowledged as the event of this seq.
    pub fn acknowledge(&mut self, seq: u64, version: u64, write: &Submitted) -> Check {
        let event = seq.checked_sub(1).and_then(|at| self.events.get_mut(at as usize));
        let event = event.ok_or_else(|| format!("seq {seq} was acknowledged and never written"))?;
        let kind = match write.operation {
            Operation::Delete => RecordKind::Delete,
            Operation::Message => RecordKind::Message,
            _ => RecordKind::Put,
        };
        let same = (event.kind, event.table, &event.key) == (kind, write.table, &write.key)
            && event.version == version
            && (kind == RecordKind::Delete || write.seq == Some(seq));
        if !same || std::mem::replace(&mut event.acknowledged, true) {
            return Err(format!("seq {seq} was acknowledged for another write, or twice"));
        }
        Ok(())
    }

    /// What is left of each key where the log ends with `seq`.
    fn states_at(&self, seq: u64) -> BTreeMap<Key, u64> {
        let mut states = self.states.clone();
        for later in (seq + 1..=self.last_seq()).rev() {
            let event = &self.events[later as usize - 1];
            if event.kind != RecordKind::Message {
                let key = (event.table, event.key.clone());
                match event.previous {
                    Some(previous) => states.insert(key, previous),
                    None => states.remove(&key),
                };
            }
        }
        states
    }

    /// Whether a recovered shard holds what it must, and nothing else. Gives the seq of its last event.
    pub fn verify(&self, shard: &Shard, tables: &[(TableId, Arc<TableDef>)], bounds: Bounds) -> Check<u64> {
        let Bounds { floor, ceiling, now_us, epoch } = bounds;
        let Position { seq, epoch: own_epoch } = shard.log().position();
        if own_epoch <= epoch {
            return Err(format!("begins epoch {own_epoch}: positions of epoch {epoch} were given out"));
        }
        if seq < floor || seq > ceiling {
            return Err(format!("ends with seq {seq}: {floor} was acknowledged, {ceiling} applied"));
        }
        let states = self.states_at(seq);
        let mut records = [0; TABLES];
        for ((table, key), state) in &states {
            let event = &self.events[*state as usize - 1];
            let id = TableId(*table as u16);
            let what = || format!("{table}/{} (seq {state} of {seq})", String::from_utf8_lossy(key));
            let exists = event.kind == RecordKind::Put && !event.is_expired(now_us / 1000);
            let found = shard.peek(id, key).map_err(|_| format!("{} cannot be read", what()))?;
            match found {
                None if !exists => {}
                Some(found) if exists => {
                    records[*table] += 1;
                    if found.version.0 != event.version || found.document != event.document {
                        return Err(format!("{} is {found:?} instead of {:?}", what(), event.document));
                    }
                }
                None => return Err(format!("{} is missing", what())),
                Some(found) => return Err(format!("{} is {found:?} but was deleted or has expired", what())),
            }
        }
        for (id, _) in tables {
            let known = shard.table(*id).entries().count();
            if known != records[usize::from(id.0)] {
                return Err(format!("table {} has {known} records, not {}", id.0, records[usize::from(id.0)]));
            }
        }
        self.verify_history(shard, tables, &states, seq, now_us)?;
        Ok(seq)
    }

    fn verify_history(
        &self,
        shard: &Shard,
        tables: &[(TableId, Arc<TableDef>)],
        states: &BTreeMap<Key, u64>,
        last: u64,
        now_us: u64,
    ) -> Check {
        // The clock may have gone back a little since history was dropped.
        let is_recent = |event: &Event, window_us: u64| event.version.saturating_add(window_us) > now_us + 1000;
        let window_us = |event: &Event| tables[event.table].1.retention.window_us;
        let mut needed: Vec<bool> =
            self.events[..last as usize].iter().map(|event| is_recent(event, window_us(event))).collect();
        for seq in states.values() {
            let event = &self.events[*seq as usize - 1];
            needed[*seq as usize - 1] |= match event.kind {
                RecordKind::Put => !event.is_expired(now_us / 1000),
                _ => is_recent(event, TOMBSTONE_RETENTION_US),
            };
        }
        let mut before = 0;
        let mut wrong = None;
        shard.log().history(&mut |seq, record| {
            if wrong.is_some() {
                return;
            }
            let Some(event) = self.event(seq).filter(|_| seq > before && seq <= last) else {
                wrong = Some(format!("history has seq {seq} after {before}, of {last}"));
                return;
            };
            let same = (record.kind, usize::from(record.table.0), record.key, record.document)
                == (event.kind, event.table, event.key.as_slice(), event.document.as_slice())
                && (record.version.0, record.terms.expires_ms) == (event.version, event.expires_ms);
            if !same {
                wrong = Some(format!("history has another event as seq {seq}"));
            }
            if let Some(missing) = (before + 1..seq).find(|missing| needed[*missing as usize - 1]) {
                wrong = Some(self.missing(missing, now_us));
            }
            before = seq;
        });
        if wrong.is_none() {
            wrong = (before + 1..=last).find(|seq| needed[*seq as usize - 1]).map(|seq| self.missing(seq, now_us));
        }
        wrong.map_or(Ok(()), Err)
    }

    fn missing(&self, seq: u64, now_us: u64) -> String {
        let event = &self.events[seq as usize - 1];
        let age_s = now_us.saturating_sub(event.version) / 1_000_000;
        let key = String::from_utf8_lossy(&event.key);
        format!("history lacks seq {seq}: {:?} of {}/{key}, {age_s} s old", event.kind, event.table)
    }
}

impl Event {
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }
}

/// The highest seq that any sound header in these bytes names as flushed.
pub fn promised(bytes: &[u8]) -> u64 {
    let segment = SegmentHeader::decode(bytes).map_or(0, |header| header.first_seq.saturating_sub(1));
    let batches = (0..bytes.len()).step_by(ALIGNMENT).filter_map(|at| BatchHeader::decode(&bytes[at..]));
    batches.map(|(header, _)| header.durable_seq).max().unwrap_or(0).max(segment)
}

/// What one subscriber was shown.
#[derive(Default)]
pub struct Subscriber {
    /// The newest event of each key; messages and states apart.
    seen: BTreeMap<(usize, Vec<u8>, bool), u64>,
    /// The newest live event of each owner and table.
    live: BTreeMap<(u16, usize), u64>,
}

/// A frame as a subscriber gets it.
#[derive(Clone, Debug)]
pub struct Shown {
    pub kind: RecordKind,
    pub table: usize,
    pub key: Vec<u8>,
    pub version: u64,
    pub document_checksum: u32,
    /// A row of the snapshot.
    pub is_row: bool,
    /// What was on the owner's disk by then.
    pub synced: u64,
    /// When it was shown: what had expired by then is no row, though the event was made earlier.
    pub now_ms: u64,
}

impl Subscriber {
    /// A frame from shard `owner`, whose history is `model`.
    pub fn take(&mut self, owner: u16, shown: &Shown, model: &Model) -> Check {
        let what = || format!("{shown:?} from shard {owner}");
        let seq = model.seq_of(shown.version).ok_or_else(|| format!("{}: no such event", what()))?;
        let Some(event) = model.event(seq) else { return Err(what()) };
        let same = (event.kind, event.table, &event.key) == (shown.kind, shown.table, &shown.key)
            && crc32c::crc32c(&event.document) == shown.document_checksum;
        if !same {
            return Err(format!("{}: seq {seq} is something else", what()));
        }
        if shown.table == COMMITTED && seq > shown.synced {
            return Err(format!("{}: seq {seq} was not on disk", what()));
        }
        let is_message = event.kind == RecordKind::Message;
        let before = self.seen.insert((event.table, event.key.clone(), is_message), seq);
        let previous = event.previous.and_then(|seq| model.event(seq));
        let follows = match before {
            Some(_) if shown.is_row => false,
            Some(before) => event.previous == Some(before),
            // Had the record existed, it had been a row.
            None if !shown.is_row && !is_message => {
                previous.is_none_or(|event| event.kind == RecordKind::Delete || event.is_expired(shown.now_ms))
            }
            None => true,
        };
        if !follows {
            return Err(format!("{}: seq {seq} after {before:?}, the one before is {:?}", what(), event.previous));
        }
        if !shown.is_row {
            let live = self.live.entry((owner, event.table)).or_default();
            if *live >= seq {
                return Err(format!("{}: seq {seq} after {live}", what()));
            }
            *live = seq;
        }
        Ok(())
    }

    /// Whether the newest state of every record was shown.
    pub fn verify(&self, model: &Model, covers: impl Fn(&Event) -> bool, now_us: u64) -> Check {
        for (event, seq) in model.states() {
            let known = self.seen.get(&(event.table, event.key.clone(), false));
            let must = event.kind == RecordKind::Put && !event.is_expired(now_us / 1000);
            if covers(event) && known != Some(&seq) && (must || known.is_some()) {
                let key = String::from_utf8_lossy(&event.key);
                return Err(format!("a subscriber saw {known:?} of {}/{key}, not seq {seq}", event.table));
            }
        }
        Ok(())
    }
}

/// A document's properties: the tag, and data that compresses badly.
pub fn properties(tag: u64, data_bytes: usize, random: &mut Random) -> Vec<(String, Vec<u8>)> {
    let (mut number, mut data) = (Vec::new(), Vec::new());
    number.write_uint(tag);
    let bytes: Vec<u8> = (0..data_bytes).map(|_| random.number() as u8).collect();
    data.write_bytes(&bytes);
    vec![(TAG.to_owned(), number), ("d".to_owned(), data)]
}

/// The same for a time.
pub fn time_property(at_ms: u64) -> (String, Vec<u8>) {
    let mut value = Vec::new();
    value.write_int(at_ms as i64);
    (EXPIRY.to_owned(), value)
}
