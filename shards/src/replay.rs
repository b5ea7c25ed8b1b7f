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
    /// Nothing but to know whether everything after this is still in the log. `is_exact`: and whether it is a place in
    /// the log as it is now, after crashes.
    Check { start: Start, is_exact: bool },
    /// What was in flight: these events (in order) and the current state of these records.
    Again { events: Vec<Position>, rows: Vec<(TableId, Box<[u8]>)> },
    /// The next events.
    After {
        from: Position,
        hint: Option<Location>,
        mode: Mode,
        /// So many at most.
        count: usize,
    },
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// After this.
    Position(Position),
    /// After this time, in microseconds since 1970.
    Time(u64),
    /// Before so many of the newest states of the record.
    Previous(usize),
}

/// Where a stream begins.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamStart {
    /// After these places of all shards.
    Positions(Vec<Position>),
    /// After this time, in microseconds since 1970.
    Time(u64),
    /// Before so many of the newest states of the one record that it shows.
    Previous(usize),
}

/// Which events.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// Those that are delivered at least once; after `at_most_once` newest states as well.
    Reliable {
        at_most_once: Option<Position>,
    },
    /// Newest states.
    Newest,
    Everything,
}

/// The answer.
pub struct Replayed {
    pub connection: ConnectionRef,
    pub answer: Answer,
}

pub enum Answer {
    Checked {
        is_complete: bool,
        /// The place itself, or one not after the time.
        from: Position,
    },
    /// Events in order, then rows, as puts without a position of their own.
    Again { events: Vec<Event>, rows: Vec<Event> },
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
