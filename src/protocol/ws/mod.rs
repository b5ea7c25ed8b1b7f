//! WebSocket (RFC 6455): `frame.rs` reads frames and messages, `records.rs` streams records to a client, `duplex.rs` is what a
//! client may say there, `tunnel.rs` carries another protocol (MQTT) in binary messages, `echo.rs` is for conformance
//! suites; `keepalive.rs` finds clients that are gone.

mod duplex;
pub mod echo;
pub mod frame;
mod keepalive;
pub mod records;
pub mod tunnel;
