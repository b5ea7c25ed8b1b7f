//! Output of child processes: lines through a channel, and a bounded tail of standard error kept for diagnosis.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How much of a child's output is kept.
const KEPT: usize = 256 * 1024;

/// The end of what a child wrote, at most 256 KiB.
#[derive(Clone, Default)]
pub struct Tail(Arc<Mutex<Vec<u8>>>, Arc<AtomicBool>);

impl Tail {
    pub fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap();
        kept.extend_from_slice(bytes);
        if kept.len() > 2 * KEPT {
            let surplus = kept.len() - KEPT;
            kept.drain(..surplus);
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// The whole text of a child that has ended: waits (not for ever) until its last bytes are read.
    pub fn text_at_end(&self) -> String {
        poll(Duration::from_secs(2), || self.1.load(Ordering::Acquire).then_some(()));
        self.text()
    }
}

/// Reads `from` to its end in a thread of its own.
pub fn tail(mut from: impl Read + Send + 'static) -> Tail {
    let kept = Tail::default();
    let into = kept.clone();
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            into.push(&buffer[..n]);
        }
        into.1.store(true, Ordering::Release);
    });
    kept
}

/// The lines of `from`, without their ends; the channel disconnects at the end of the stream.
pub fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while let Ok(1..) = from.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            if send.send(text).is_err() {
                // Nobody listens any more: keep draining, so that the child never blocks on a full pipe.
                let _ = std::io::copy(&mut from, &mut std::io::sink());
                return;
            }
            line.clear();
        }
    });
    receive
}

/// Asks `probe` again and again until it answers or `within` is over.
pub fn poll<T>(within: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// [`poll`] that panics with `what` when the time is over.
#[track_caller]
pub fn eventually<T>(what: &str, within: Duration, probe: impl FnMut() -> Option<T>) -> T {
    match poll(within, probe) {
        Some(found) => found,
        None => panic!("not within {within:?}: {what}"),
    }
}

/// The exit status of a child that ends within the time.
pub fn wait_exit(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    poll(within, || child.try_wait().expect("wait for a child"))
}

/// Sends a signal to a child that has not been waited for.
pub fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: kill only takes integers; the child is not reaped yet, so that the id is still its own.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}
