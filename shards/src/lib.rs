//! The engine of tablecast: tables, their log, topics, subscriptions, outboxes and the rings between shards.
//! No socket, no runtime, no wire format; deterministic: bytes, completions and the time are arguments.
//!
//! Read [`shard`] first: it is the turn that everything else serves.

pub mod clock;
pub mod date;
pub mod document;
pub mod key;
pub mod limits;
pub mod log;
pub mod ring;
pub mod schema;
pub mod storage;
mod sync;
pub mod topic;
pub mod validate;
