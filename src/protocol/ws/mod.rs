//! WebSocket (RFC 6455): `frame.rs` reads frames and messages, `records.rs` streams records to a client, `duplex.rs` is what a
//! client may say there, `tunnel.rs` carries another protocol (MQTT) in binary messages.

mod duplex;
pub mod frame;
pub mod records;
pub mod tunnel;
