//! MQTT 3.1.1 and 5.0 (OASIS): `packet.rs` and `property.rs` are the codec, `session.rs` the state machine of one
//! connection, `publish.rs` and `inbound.rs` what becomes of what the client publishes, `subscribe.rs` what it is sent,
//! `resume.rs` what outlives the connection.

mod inbound;
pub mod packet;
pub mod property;
mod publish;
mod resume;
pub mod session;
mod subscribe;
