//! tablecast: a real-time table server. `main.rs` calls [`cli::main`]; start reading at [`server`].

mod addresses;
pub mod app;
pub mod auth;
pub mod cli;
#[doc(hidden)] // for the tests that drive sessions without sockets
pub mod connection;
pub mod diagnostic;
pub mod progress;
pub mod protocol;
pub mod reactor;
pub mod server;
pub mod settings;
mod shard_thread;
mod sys_topics;
mod tls;
pub mod tools;
mod wheel;
mod yaml;
