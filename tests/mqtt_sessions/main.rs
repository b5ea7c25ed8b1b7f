//! Sessions, wills, shared subscriptions, topic aliases and flow control with foreign clients ([`sessions`],
//! [`features`]), and what is hard on any broker ([`nasty`], [`storm`]).

#[path = "../mqtt_clauses/client.rs"]
#[allow(dead_code)] // this suite uses a part of it
mod client;
#[path = "../common/mod.rs"]
mod common;
mod features;
mod foreign;
mod nasty;
#[path = "../mqtt_clauses/rig.rs"]
#[allow(dead_code)]
mod rig;
mod sessions;
mod storm;
#[path = "../mqtt_clauses/wire.rs"]
#[allow(dead_code)]
mod wire;
