//! What one subscriber was given of what it was promised: each message once, in its order.

use crate::payload::Stamp;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The messages of one publisher to one topic, as one subscriber has seen them.
#[derive(Clone, Debug)]
struct Stream {
    publisher: u32,
    topic: u32,
    /// The number that comes next.
    next: u64,
    /// Numbers before it that have not come, as ranges.
    gaps: Vec<(u64, u64)>,
    /// The newest one may come once more: a stream that begins anew shows it as the state that it finds.
    repeats: bool,
}

/// What a subscriber was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// Every message, at least once; the first copies in order.
    AtLeastOnce,
    /// Every message, once, in order.
    ExactlyOnce,
    /// The newest message of each stream in the end; none twice or out of order.
    Newest,
    /// None twice or out of order.
    AtMostOnce,
}

impl Promise {
    pub fn name(self) -> &'static str {
        match self {
            Promise::AtLeastOnce => "at least once",
            Promise::ExactlyOnce => "exactly once",
            Promise::Newest => "newest state",
            Promise::AtMostOnce => "at most once",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Messages that came, the first time.
    pub delivered: u64,
    pub duplicated: u64,
    /// First copies that came after a later message.
    pub reordered: u64,
    /// Messages that did not come, where a later one of the same topic did.
    pub passed_over: u64,
    /// Messages that did not come, nor any after them.
    pub cut_off: u64,
}

impl Verdict {
    pub fn add(&mut self, other: &Verdict) {
        self.delivered += other.delivered;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.passed_over += other.passed_over;
        self.cut_off += other.cut_off;
    }

    /// What of it breaks a promise.
    pub fn broken(&self, promise: Promise) -> Vec<String> {
        let lost = self.passed_over + self.cut_off;
        let found = [
            (lost, "lost", matches!(promise, Promise::AtLeastOnce | Promise::ExactlyOnce)),
            (self.cut_off, "newest state missing", promise == Promise::Newest),
            (self.duplicated, "duplicated", promise != Promise::AtLeastOnce),
            (self.reordered, "out of order", true),
        ];
        let broken = found.into_iter().filter(|(count, _, is_promised)| *count > 0 && *is_promised);
        broken.map(|(count, what, _)| format!("{count} {what}")).collect()
    }
}

#[derive(Default)]
pub struct Tracker {
    streams: Vec<Stream>,
    /// Where each is, by publisher and topic.
    places: HashMap<(u32, u32), usize>,
    /// Where the last message belonged: the next one likely does, too.
    last: usize,
    verdict: Verdict,
}

impl Tracker {
    /// A message has come. False: not for the first time.
    pub fn note(&mut self, stamp: &Stamp) -> bool {
        let Stamp { publisher, topic, .. } = *stamp;
        let is_of = |stream: &Stream| (stream.publisher, stream.topic) == (publisher, topic);
        if !self.streams.get(self.last).is_some_and(is_of) {
            self.last = *self.places.entry((publisher, topic)).or_insert_with(|| {
                self.streams.push(Stream { publisher, topic, next: 0, gaps: Vec::new(), repeats: false });
                self.streams.len() - 1
            });
        }
        let stream = &mut self.streams[self.last];
        if stamp.number >= stream.next {
            if stamp.number > stream.next {
                stream.gaps.push((stream.next, stamp.number));
            }
            stream.next = stamp.number + 1;
            self.verdict.delivered += 1;
            return true;
        }
        if stamp.number + 1 == stream.next && std::mem::take(&mut stream.repeats) {
            return false;
        }
        let Some(at) = stream.gaps.iter().position(|(from, to)| (*from..*to).contains(&stamp.number)) else {
            self.verdict.duplicated += 1;
            return false;
        };
        let (from, to) = stream.gaps.swap_remove(at);
        let parts = [(from, stamp.number), (stamp.number + 1, to)];
        stream.gaps.extend(parts.into_iter().filter(|(from, to)| from < to));
        self.verdict.delivered += 1;
        self.verdict.reordered += 1;
        true
    }

    /// The subscriber begins anew, and is shown current states first.
    pub fn begin_anew(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.repeats = true);
    }

    /// The end: `sent` says how many messages each publisher has sent to each topic that the subscriber listens to.
    pub fn finish(&self, sent: impl Iterator<Item = ((u32, u32), u64)>) -> Verdict {
        let mut verdict = self.verdict;
        for ((publisher, topic), count) in sent {
            let stream = self.places.get(&(publisher, topic)).map(|at| &self.streams[*at]);
            verdict.cut_off += count.saturating_sub(stream.map_or(0, |stream| stream.next));
        }
        let gaps = self.streams.iter().flat_map(|stream| &stream.gaps);
        verdict.passed_over = gaps.map(|(from, to)| to - from).sum();
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(numbers: &[u64], sent: u64) -> Verdict {
        let mut tracker = Tracker::default();
        for number in numbers {
            tracker.note(&Stamp { number: *number, ..Stamp::default() });
        }
        tracker.finish([((0, 0), sent)].into_iter())
    }

    #[test]
    fn everything_that_can_go_wrong_is_counted() {
        assert_eq!(seen(&[0, 1, 2], 3), Verdict { delivered: 3, ..Verdict::default() });
        let expected = Verdict { delivered: 4, duplicated: 2, reordered: 1, passed_over: 2, cut_off: 3 };
        assert_eq!(seen(&[0, 0, 3, 5, 2, 2], 9), expected);
        assert_eq!(seen(&[], 2), Verdict { cut_off: 2, ..Verdict::default() });
        let mut tracker = Tracker::default();
        for number in [0, 1] {
            tracker.note(&Stamp { number, ..Stamp::default() });
            tracker.begin_anew();
        }
        let notes = [1, 1, 0].map(|number| tracker.note(&Stamp { number, ..Stamp::default() }));
        assert_eq!((notes, tracker.verdict.duplicated), ([false; 3], 2), "the newest one may come again, once");
    }

    #[test]
    fn each_promise_is_broken_by_what_it_excludes() {
        let verdict = |numbers: &[u64], promise| seen(numbers, 4).broken(promise);
        assert!(verdict(&[0, 1, 1, 2, 3], Promise::AtLeastOnce).is_empty());
        assert_eq!(verdict(&[0, 1, 1, 2, 3], Promise::ExactlyOnce), ["1 duplicated"]);
        assert_eq!(verdict(&[0, 2, 3], Promise::AtLeastOnce), ["1 lost"]);
        assert!(verdict(&[3], Promise::Newest).is_empty());
        assert_eq!(verdict(&[2], Promise::Newest), ["1 newest state missing"]);
        assert!(verdict(&[], Promise::AtMostOnce).is_empty());
        assert_eq!(verdict(&[1, 0], Promise::AtMostOnce), ["1 out of order"]);
    }
}
