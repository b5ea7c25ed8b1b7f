//! MQTT 3.1.1 and 5.0 (OASIS): `packet.rs` and `property.rs` are the codec, `session.rs` the state machine of one
//! connection, `publish.rs` what becomes of an incoming PUBLISH.

pub mod packet;
pub mod property;
mod publish;
pub mod session;
