//! Promise 17: rings lose and reorder nothing, and a sleeper is always woken. `ring.rs` compiled against loom's
//! atomics; every interleaving of two threads over a ring of two slots.

mod sync {
    pub use loom::cell::UnsafeCell;
    pub use loom::sync::Arc;
    pub use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
}

#[path = "../src/ring.rs"]
#[allow(dead_code)]
mod ring;

use loom::thread;

#[test]
fn messages_arrive_once_and_in_order() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring::ring::<Box<u32>>(2);
        let writer = thread::spawn(move || {
            for number in 0..3 {
                let mut message = Box::new(number);
                while let Err(back) = producer.push(message) {
                    message = back;
                    thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < 3 {
            match consumer.pop() {
                Some(message) => {
                    assert_eq!(*message, next);
                    next += 1;
                }
                None => thread::yield_now(),
            }
        }
        assert!(consumer.pop().is_none());
        writer.join().unwrap();
    });
}

#[test]
fn what_is_left_is_dropped_with_the_ring() {
    loom::model(|| {
        let (mut producer, consumer) = ring::ring(2);
        let value = loom::sync::Arc::new(());
        let copy = value.clone();
        let writer = thread::spawn(move || {
            producer.push(copy).unwrap();
        });
        drop(consumer);
        writer.join().unwrap();
        assert_eq!(loom::sync::Arc::strong_count(&value), 1);
    });
}

/// The consumer goes to sleep only if it saw nothing after saying so; the producer then rings. Lost wake-ups would
/// leave the message in the ring with nobody told.
#[test]
fn a_sleeper_with_mail_is_rung() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring::ring::<u32>(2);
        let bell = loom::sync::Arc::new(ring::Bell::default());
        let peer = bell.clone();
        let writer = thread::spawn(move || {
            producer.push(7).unwrap();
            (peer.must_ring(), producer)
        });
        bell.publish_asleep();
        let sleeps = consumer.is_empty();
        let (rung, _producer) = writer.join().unwrap();
        assert!(!sleeps || rung, "asleep with a message and nobody rang");
    });
}
