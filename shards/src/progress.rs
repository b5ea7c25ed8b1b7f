//! How far long work has come: counted by the work, from any thread, and shown by whoever started it.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub struct Progress {
    done: AtomicU64,
    /// 0: not known yet.
    total: AtomicU64,
}

impl Progress {
    pub fn add(&self, amount: u64) {
        self.done.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn expect(&self, amount: u64) {
        self.total.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// What is still to be done.
    pub fn left(&self) -> u64 {
        self.total.load(Ordering::Relaxed).saturating_sub(self.done())
    }

    /// 0 to 100; `None`: not known yet.
    pub fn percent(&self) -> Option<u64> {
        let total = self.total.load(Ordering::Relaxed);
        (total > 0).then(|| (self.done() * 100 / total).min(100))
    }
}
