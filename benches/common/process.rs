//! Servers as child processes: how they are started, and the time that they use. And what is on the command line.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// The value of `--name`, or else the default.
pub fn argument(name: &str, default: &str) -> String {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| *argument == format!("--{name}"));
    at.and_then(|at| arguments.get(at + 1).cloned()).unwrap_or_else(|| default.to_owned())
}

pub fn number(name: &str, default: usize) -> usize {
    argument(name, &default.to_string()).parse().expect("a number")
}

/// A server that ends with its owner.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(command: &mut Command) -> Process {
        Process { child: command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program())) }
    }

    /// Starts a server of ours; gives the addresses that it says it listens at, for each of `kinds`.
    pub fn start_listening<const N: usize>(command: &mut Command, kinds: [&str; N]) -> (Process, [SocketAddr; N]) {
        let mut process = Process::start(command.stdout(Stdio::piped()));
        let mut lines = BufReader::new(process.child.stdout.take().expect("piped")).lines();
        let addresses = kinds.map(|kind| {
            let start = format!("listening {kind} ");
            let line = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with(&start));
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("an address")
        });
        (process, addresses)
    }

    /// Seconds of CPU that it has used, user and system.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("/proc");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
        ticks / 100.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
