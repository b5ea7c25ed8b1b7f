//! The single-producer single-consumer ring that carries messages from one shard to another, and the bell that wakes a
//! sleeping one. The only code of the engine that two threads touch at once.
//!
//! Each side keeps a copy of the other's index and looks at the shared one only when the copy says full or empty.
//! Sleeping (measurements.md §5.6): the consumer publishes "asleep", fences, looks at its rings again and only then
//! sleeps; the producer pushes, fences, and signals only if it is the one that takes "asleep" back.
//!
//! `tests/ring_loom.rs` compiles this file against loom's atomics (module `sync`) and walks every interleaving.

use super::sync::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell, fence};
use crossbeam_utils::CachePadded;
use std::mem::MaybeUninit;

struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Next slot to read; written by the consumer.
    head: CachePadded<AtomicUsize>,
    /// Next slot to write; written by the producer.
    tail: CachePadded<AtomicUsize>,
}

// SAFETY: a slot is touched by one side at a time: the producer owns the slots from `tail` to `head + capacity`, the
// consumer those from `head` to `tail`; release stores and acquire loads of the indices hand slots over.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: see above; the values themselves may be sent.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.load(Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        while head != tail {
            let slot = &self.slots[head & (self.slots.len() - 1)];
            // SAFETY: both sides are gone, and the slots from head to tail hold values.
            slot.with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The writing end.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    head_seen: usize,
}

/// The reading end.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
}

/// A ring of `capacity` slots, a power of two.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity.is_power_of_two(), "slots are found by masking");
    let shared = Arc::new(Shared {
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
    });
    let producer = Producer { shared: shared.clone(), tail: 0, head_seen: 0 };
    (producer, Consumer { shared, head: 0, tail_seen: 0 })
}

impl<T> Producer<T> {
    /// Puts a message in; gives it back where the ring is full.
    pub fn push(&mut self, message: T) -> Result<(), T> {
        let capacity = self.shared.slots.len();
        if self.tail.wrapping_sub(self.head_seen) == capacity {
            self.head_seen = self.shared.head.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) == capacity {
                return Err(message);
            }
        }
        let slot = &self.shared.slots[self.tail & (capacity - 1)];
        // SAFETY: the slot lies outside head..tail, so the consumer does not touch it before the store below.
        slot.with_mut(|slot| unsafe {
            (*slot).write(message);
        });
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest message out.
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let slot = &self.shared.slots[self.head & (self.shared.slots.len() - 1)];
        // SAFETY: the slot lies inside head..tail, written before the producer's release store.
        let message = slot.with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.shared.head.store(self.head, Ordering::Release);
        Some(message)
    }

    /// Whether nothing waits right now.
    pub fn is_empty(&mut self) -> bool {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.load(Ordering::Acquire);
        }
        self.head == self.tail_seen
    }
}

/// Says whether a shard sleeps. One per shard, shared with its peers.
pub struct Bell {
    sleeping: CachePadded<AtomicBool>,
}

impl Default for Bell {
    fn default() -> Self {
        Bell { sleeping: CachePadded::new(AtomicBool::new(false)) }
    }
}

impl Bell {
    /// The owner says that it is about to sleep. It must look at its rings once more after this.
    pub fn publish_asleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The owner is awake.
    pub fn publish_awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// A peer has pushed. True: it must now wake the owner, and nobody else will.
    pub fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel)
    }
}
