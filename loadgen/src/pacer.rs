//! A clock for schedules: a thread that wakes up when the next message is due and says so through a socket, since timers
//! of runtimes are as coarse as a millisecond.

use crate::shared::{Phase, Shared};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ticks do not come closer than this.
const TICK_MIN: Duration = Duration::from_micros(50);

/// Ticks from `start_ns` on, this often a second, to the end of the run. The socket is readable after each tick.
pub fn start(shared: Arc<Shared>, start_ns: u64, per_second: f64) -> std::io::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let reader = TcpStream::connect(listener.local_addr()?)?;
    let (mut writer, _) = listener.accept()?;
    writer.set_nodelay(true)?;
    writer.set_nonblocking(true)?; // a tick that nobody takes is not missed
    let period = Duration::from_secs_f64(1.0 / per_second).max(TICK_MIN);
    std::thread::Builder::new().name("pacer".into()).spawn(move || {
        let mut next = shared.instant(start_ns);
        while shared.phase() != Phase::Done {
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
