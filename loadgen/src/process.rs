//! What a process costs, from its CPU clock and `/proc`.

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time, of threads that have ended, too.
    pub cpu_s: f64,
    /// Of the threads that there are: one that ends takes its own with it.
    pub context_switches: u64,
    /// Memory of its own that is in use, and all that is resident.
    pub anonymous_bytes: u64,
    pub resident_bytes: u64,
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// In nanoseconds' precision, where `/proc` has ticks of 10 ms.
fn cpu_s(process: u32) -> Option<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(process).ok()?)).ok()?;
    let time = clock_gettime(clock).ok()?;
    Some(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

impl Usage {
    /// Of some processes together; those that are gone count nothing.
    pub fn of(processes: &[u32]) -> Usage {
        let mut usage = Usage::default();
        for process in processes {
            let Ok(status) = fs::read_to_string(format!("/proc/{process}/status")) else { continue };
            usage.anonymous_bytes += field(&status, "RssAnon:") << 10;
            usage.resident_bytes += field(&status, "VmRSS:") << 10;
            usage.cpu_s += cpu_s(*process).unwrap_or(0.0);
            for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                usage.context_switches +=
                    field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:");
            }
        }
        usage
    }

    /// What has been used since an earlier look; memory is as it is now.
    pub fn since(&self, before: &Usage) -> Usage {
        Usage {
            cpu_s: self.cpu_s - before.cpu_s,
            context_switches: self.context_switches.saturating_sub(before.context_switches),
            ..*self
        }
    }
}

/// With which a process was started.
pub fn command_line(process: u32) -> String {
    let words = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ")
}

/// A process and all that it has started.
pub fn family(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    let mut at = 0;
    while at < all.len() {
        for task in fs::read_dir(format!("/proc/{}/task", all[at])).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        at += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_time() {
        let own = [std::process::id()];
        let before = Usage::of(&own);
        let work = || {
            let started = std::time::Instant::now();
            while started.elapsed().as_millis() < 50 {
                std::hint::black_box(0);
            }
        };
        std::thread::spawn(work).join().expect("it ends");
        let used = Usage::of(&own).since(&before);
        assert!(used.cpu_s > 0.02 && used.resident_bytes > 0, "{used:?}");
        assert_eq!(Usage::of(&[u32::MAX]), Usage::default());
        assert_eq!(family(own[0])[0], own[0]);
        assert!(command_line(own[0]).contains("loadgen"));
    }
}
