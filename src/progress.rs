//! Progress of long work: a bar on a terminal, a line now and then elsewhere, nothing if it is done within a second.
//! Used by the server's start and by the offline verbs; the work itself only counts.

use shards::progress::Progress;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Shows progress on standard error until it is dropped.
pub struct Shown {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

const BAR_AFTER: Duration = Duration::from_secs(1);
const LINE_EVERY: Duration = Duration::from_secs(5);
const REDRAW: Duration = Duration::from_millis(100);
const WIDTH: usize = 40;

impl Shown {
    /// `what` is a verb with -ing.
    pub fn start(what: &'static str, progress: Arc<Progress>) -> Shown {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let body = move || show(what, &progress, &stopped);
        // Without a thread there is no bar; the work goes on.
        let thread = std::thread::Builder::new().name("progress".into()).spawn(body).ok();
        Shown { stop, thread }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn show(what: &str, progress: &Progress, stop: &AtomicBool) {
    let is_terminal = std::io::stderr().is_terminal();
    let started = Instant::now();
    let mut next_line = BAR_AFTER;
    let mut drawn = false;
    while !stop.load(Ordering::Acquire) {
        std::thread::park_timeout(REDRAW);
        if started.elapsed() < next_line {
            continue;
        }
        let seconds = started.elapsed().as_secs();
        // Nobody may be reading; the work goes on all the same.
        let _ = if is_terminal {
            drawn = true;
            write!(std::io::stderr(), "\r{}", bar(what, progress, seconds))
        } else {
            next_line += LINE_EVERY;
            match progress.percent() {
                Some(percent) => writeln!(std::io::stderr(), "{what}: {percent} % after {seconds} s"),
                None => writeln!(std::io::stderr(), "{what}: {} after {seconds} s", progress.done()),
            }
        };
    }
    if drawn {
        let _ = write!(std::io::stderr(), "\r{:1$}\r", "", what.len() + WIDTH + 20);
    }
}

fn bar(what: &str, progress: &Progress, seconds: u64) -> String {
    match progress.percent() {
        Some(percent) => {
            let filled = percent as usize * WIDTH / 100;
            format!("{what} [{}{}] {percent:3} % {seconds} s", "#".repeat(filled), "-".repeat(WIDTH - filled))
        }
        None => format!("{what} {} {seconds} s", progress.done()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_as_the_work_is_done() {
        let progress = Progress::default();
        progress.add(5);
        assert_eq!(bar("reading", &progress, 2), "reading 5 2 s");
        progress.expect(20);
        let expected = format!("reading [{}{}]  25 % 3 s", "#".repeat(10), "-".repeat(30));
        assert_eq!(bar("reading", &progress, 3), expected);
        progress.add(100);
        assert!(bar("reading", &progress, 3).contains("100 %"));
    }
}
