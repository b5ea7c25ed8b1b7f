//! The engine of tablecast: tables, their log, topics, subscriptions, outboxes and the rings between shards.
//! No socket, no runtime, no wire format; deterministic: bytes, completions and the time are arguments.
//!
//! Read [`shard`] first: it is the turn that everything else serves.

pub mod client;
pub mod clock;
pub mod command;
pub mod counters;
pub mod date;
pub mod document;
pub mod event;
pub mod index;
pub mod key;
pub mod limits;
pub mod link;
mod live;
pub mod log;
pub mod manifest;
pub mod outbox;
pub mod progress;
pub mod query;
mod record_key;
pub mod replay;
pub mod reshard;
pub mod ring;
pub mod scan;
pub mod schema;
pub mod session;
pub mod shard;
pub mod storage;
pub mod subscription;
mod sync;
pub mod table;
pub mod topic;
pub mod validate;
