//! What connections ask of tables, what they are told, and the messages in which shards pass both on.

use crate::clock::Version;
use crate::event::{Body, Event, Terms};
use crate::log::Position;
use crate::log::past::Upto;
use crate::query::plan::Plan;
use crate::replay::{ReplayRequest, Replayed};
use crate::scan::{Chunk, ScanRef};
use crate::schema::{Durability, TableId};
use crate::session::{Receipt, Will};
use crate::shard::Sharing;
use crate::subscription::SubscriptionRef;
use crate::topic::KeyFilter;
use crate::validate::Violation;
use bytes::Bytes;
use std::sync::Arc;

/// A connection, anywhere in this process. The generation tells it from earlier ones with the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionRef {
    pub shard: u16,
    pub index: u32,
    pub generation: u32,
}

/// Whom an answer is for: a connection of this shard, and a number that is its own affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub connection: ConnectionRef,
    pub tag: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Create or replace.
    Put,
    /// Create; refused where the key exists.
    Insert,
    /// Shallow merge; creates.
    Patch,
    Delete,
    /// Append to the log and deliver; the record stays as it is.
    Message,
}

#[derive(Clone, Debug)]
pub struct Write {
    pub operation: Operation,
    pub table: TableId,
    /// Key and document as sent (a well-formed map; empty for a delete or an empty message).
    pub body: Body,
    pub terms: Terms,
    /// Who wants to know. `None`: nobody waits for the outcome.
    pub token: Option<Token>,
    /// It came at QoS 2: a second one with the same receipt is not applied.
    pub receipt: Option<Receipt>,
    /// It is made only where this holds.
    pub precondition: Option<Box<Precondition>>,
}

/// What must be there for a write to be made (RFC 9110 §13.1).
#[derive(Clone, Debug, PartialEq)]
pub enum Precondition {
    Exists,
    Absent,
    /// One of these versions.
    Is(Vec<Version>),
    /// None of these.
    IsNot(Vec<Version>),
}

impl Precondition {
    /// Whether it holds of a record; `None`: there is none.
    pub fn holds(&self, version: Option<Version>) -> bool {
        match (self, version) {
            (Precondition::Exists, version) => version.is_some(),
            (Precondition::Absent, version) => version.is_none(),
            (Precondition::Is(versions), version) => version.is_some_and(|own| versions.contains(&own)),
            (Precondition::IsNot(versions), version) => version.is_none_or(|own| !versions.contains(&own)),
        }
    }
}

impl Write {
    /// One whose outcome nobody waits for.
    pub fn new(operation: Operation, table: TableId, body: Body) -> Write {
        let (terms, token, receipt, precondition) = (Terms::RELIABLE, None, None, None);
        Write { operation, table, body, terms, token, receipt, precondition }
    }

    /// What it costs to have this command waiting: 1, and 1 more for each KiB.
    pub fn weight(&self) -> u32 {
        weight(self.body.len())
    }
}

fn weight(bytes: usize) -> u32 {
    1 + (bytes >> 10) as u32
}

/// A stored record.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub version: Version,
    pub document: Bytes,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    /// Done.
    Written {
        version: Version,
        position: Position,
        existed: bool,
        /// What this answer has waited for.
        durability: Durability,
    },
    Refused(Refusal),
    Record(Option<Stored>),
}

/// Why a write was not made.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It breaks the schema, in these ways.
    Invalid(Vec<Violation>),
    /// An insert of a key that exists.
    Exists,
    /// Its precondition does not hold.
    Precondition,
    /// The record would be larger than a segment of the log can hold, or a patch has made it too large.
    TooLarge,
    /// There is no room for another segment.
    DiskFull,
    /// An earlier flush has failed; the server is about to stop.
    Fenced,
    /// The shard that owns the key has found that something which was acknowledged cannot be read.
    Damaged,
    /// History does not reach back so far.
    Forgotten,
}

/// What a shard tells its connections after a turn.
#[derive(Debug)]
pub enum Completion {
    Outcome {
        token: Token,
        outcome: Outcome,
    },
    /// Every shard concerned knows of the subscription; it waits to be started.
    Subscribed {
        connection: ConnectionRef,
        subscription: SubscriptionRef,
    },
    /// A scan has records to take, or is at its end.
    ScanReady {
        token: Token,
        scan: ScanRef,
    },
    /// The client identifier now belongs to this connection; with what was stored of the session.
    Joined {
        connection: ConnectionRef,
        stored: Option<Bytes>,
        /// Something may be stored of it.
        has_room: bool,
    },
    /// Another connection took over the client identifier.
    Evicted {
        connection: ConnectionRef,
    },
    /// A message at QoS 2 that was in flight is no longer there: its identifier is to be released.
    Release {
        connection: ConnectionRef,
        packet_id: u16,
    },
    /// Whether all that a resumed client is to be given is still in the log.
    Checked {
        connection: ConnectionRef,
        is_complete: bool,
    },
    /// Frames are held until the session has been saved.
    Unsaved {
        connection: ConnectionRef,
    },
    /// The client is so far behind that what it should be given is no longer in the log.
    Lost {
        connection: ConnectionRef,
    },
    /// The connection does not read what it is sent; it must be closed.
    Overflowed {
        connection: ConnectionRef,
    },
}

/// The control lane between two shards: small, rare, served first.
pub enum Control {
    /// Events under this filter concern the sender from now on; to be confirmed.
    Interest {
        table: TableId,
        filter: KeyFilter,
        subscription: SubscriptionRef,
    },
    NoInterest {
        table: TableId,
        filter: KeyFilter,
    },
    /// The sender has live queries of the table, or no more.
    Watch {
        table: TableId,
        on: bool,
    },
    /// The next records behind a place.
    Scan {
        scan: ScanRef,
        table: TableId,
        filter: KeyFilter,
        plan: Option<Arc<Plan>>,
        after: Option<Box<[u8]>>,
    },
    /// Commands of this weight without a waiting client were carried out.
    Credit {
        weight: u32,
    },
    /// Events are to be read from the log, for a client of the sender.
    Replay(ReplayRequest),
    Evict {
        connection: ConnectionRef,
    },
}

/// The data lane: order matters here, a chunk of a scan against the events around it.
pub enum Data {
    Write(Write),
    Read {
        token: Token,
        table: TableId,
        key: Box<[u8]>,
    },
    /// The record as it was.
    ReadPast {
        token: Token,
        table: TableId,
        key: Box<[u8]>,
        upto: Upto,
    },
    /// The weight is the command's.
    Outcome {
        token: Token,
        outcome: Outcome,
        weight: u32,
    },
    Event(Event),
    /// Events under the filter come from here on.
    Interested {
        subscription: SubscriptionRef,
        reached: Position,
    },
    /// Everything of the sender up to here has been delivered.
    Reached(Position),
    Replayed(Replayed),
    Sharing(Sharing),
    /// A connection claims a client identifier.
    Join {
        client_id: Box<str>,
        connection: ConnectionRef,
        /// What is stored of the session is not wanted.
        clean: bool,
    },
    Joined {
        connection: ConnectionRef,
        stored: Option<Bytes>,
        has_room: bool,
    },
    Leave {
        client_id: Box<str>,
        connection: ConnectionRef,
        /// To be sent after its delay.
        will: Option<Will>,
    },
    /// A session has ended; what it has written comes before this.
    ForgetSession {
        session: u64,
    },
    Chunk {
        scan: ScanRef,
        chunk: Chunk,
        position: Position,
    },
}

impl Data {
    /// What it costs to have this message waiting.
    pub fn weight(&self) -> u32 {
        match self {
            Data::Write(write) => write.weight(),
            Data::Event(event) | Data::Sharing(Sharing::Event { event, .. }) => {
                weight(event.body.len() + event.previous.as_ref().map_or(0, Bytes::len))
            }
            Data::Chunk { .. } | Data::Replayed(_) => weight(crate::limits::SCAN_CHUNK_BYTES),
            _ => 1,
        }
    }
}
