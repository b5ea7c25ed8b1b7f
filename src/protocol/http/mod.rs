//! HTTP/1.1 (RFC 9110, RFC 9112) and the REST interface over it (compat §6, §7). `request.rs` reads requests,
//! `negotiate.rs` and `protocol/path.rs` find out what they are about, `session.rs` is the state machine of one connection,
//! `records.rs` and `collection.rs` do what they ask for, `response.rs` writes the answers, `upgrade.rs` hands
//! connections over to SSE, WebSocket and MQTT.

mod collection;
pub mod files;
pub mod health;
mod negotiate;
mod records;
pub mod request;
mod response;
pub mod session;
mod sorter;
mod upgrade;
