//! WebSocket (RFC 6455): `frame.rs` reads frames and messages, `records.rs` streams records to a client, `tunnel.rs`
//! carries another protocol (MQTT) in binary messages.

pub mod frame;
pub mod records;
pub mod tunnel;
