//! A load generator for MQTT, SSE, WebSocket, HTTP and redis servers: what a server does per second of its CPU time, how
//! late its messages are, and whether it keeps its promises. It shares no codec and no runtime with the server of this
//! project.
//!
//! Start at `run.rs`, which leads a run through its phases; `worker.rs` is what each thread does.

mod cli;
mod compare;
mod figures;
mod floor;
mod history;
mod link;
mod pacer;
mod payload;
mod process;
mod profile;
mod publisher;
mod reads;
mod report;
mod run;
mod runtime;
mod scenario;
mod shared;
mod signal;
mod subscriber;
mod target;
mod verify;
mod wire;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::main() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(what) => {
            eprintln!("loadgen: {what}");
            ExitCode::from(2)
        }
    }
}
