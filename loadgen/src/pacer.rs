//! A clock for schedules: a thread that wakes up when the next message is due and says so through a socket, since timers
//! of runtimes are as coarse as a millisecond.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Ticks do not come closer than this.
const TICK_MIN: Duration = Duration::from_micros(50);

/// Begins to tick at `start`, this often a second, until `over`. The socket is readable after each tick.
pub fn start(start: Instant, per_second: f64, over: Arc<AtomicBool>) -> std::io::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let reader = TcpStream::connect(listener.local_addr()?)?;
    let (mut writer, _) = listener.accept()?;
    writer.set_nodelay(true)?;
    writer.set_nonblocking(true)?; // a tick that nobody takes is not missed
    let period = Duration::from_secs_f64(1.0 / per_second).max(TICK_MIN);
    std::thread::Builder::new().name("pacer".into()).spawn(move || {
        let mut next = start;
        while !over.load(Ordering::Relaxed) {
            let now = Instant::now();
            match next.checked_duration_since(now) {
                Some(left) => std::thread::sleep(left.min(Duration::from_millis(100))),
                None => {
                    let _ = writer.write(&[0]);
                    let late = now.duration_since(next).as_nanos() / period.as_nanos().max(1);
                    next += period * (late as u32 + 1);
                }
            }
        }
    })?;
    Ok(reader)
}
