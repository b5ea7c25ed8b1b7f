//! HTTP/1.1 (RFC 9110, RFC 9112) and the REST interface over it (compat §6, §7). `request.rs` reads requests,
//! `representation.rs` and `protocol/path.rs` find out what they are about, `session.rs` is the state machine of one connection,
//! `records.rs` (with `promise.rs`), `collection.rs` (with `joins.rs`) and `bulk.rs` do what they ask for, `describe.rs`
//! says what there is, `response.rs` writes the answers (`coding.rs` makes them smaller), `upgrade.rs` hands
//! connections over to SSE, WebSocket and MQTT.

mod bulk;
mod coding;
mod collection;
mod describe;
pub mod files;
pub mod health;
mod joins;
mod promise;
mod records;
mod representation;
pub mod request;
pub(super) mod response;
pub mod session;
mod sorter;
mod upgrade;
