//! Reading events again from the log, for a client that is behind: what it asks a shard for, and what it gets.
//! `shard/replay.rs` does it.

use crate::command::ConnectionRef;
use crate::event::Event;
use crate::log::{Location, Position};
use crate::schema::TableId;
use crate::topic::Target;
use std::sync::Arc;

pub struct ReplayRequest {
    pub connection: ConnectionRef,
    /// What the client has subscribed to.
    pub targets: Arc<[Target]>,
    pub wanted: Wanted,
}

pub enum Wanted {
    /// Nothing but to know whether everything after this is still in the log.
    Check(Position),
    /// What was in flight: these events (in order) and the current state of these records.
    Again { events: Vec<Position>, rows: Vec<(TableId, Box<[u8]>)> },
    /// The next events.
    After {
        from: Position,
        hint: Option<Location>,
        /// After this, also what is delivered at most once.
        at_most_once: Option<Position>,
        /// So many at most.
        count: usize,
    },
}

/// The answer.
pub struct Replayed {
    pub connection: ConnectionRef,
    pub answer: Answer,
}

pub enum Answer {
    Checked {
        is_complete: bool,
    },
    /// Events in order, then rows, as puts without a position of their own.
    Again {
        events: Vec<Event>,
        rows: Vec<Event>,
    },
    After {
        events: Vec<ReplayedEvent>,
        /// Everything up to here was looked at.
        upto: Position,
        hint: Option<Location>,
        /// Events after `upto` come as they happen, behind this answer.
        is_live: bool,
        /// Messages that are delivered at most once, and hence left out.
        left_out: u64,
    },
    /// Some of it is no longer in the log.
    Gone,
}

pub struct ReplayedEvent {
    pub event: Event,
    /// It still is the state of its record.
    pub is_newest: bool,
}
