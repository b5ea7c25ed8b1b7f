//! The conformance statements of MQTT 3.1.1 and 5.0, from outside: `clauses.txt` lists each of them, whom it concerns,
//! and the test that bears its number or why there is none. Tests of both versions have their bodies in [`both`].

mod both;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod rig;
mod table;
mod tests;
mod v3;
mod v5;
mod wire;
