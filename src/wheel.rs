//! The one timer wheel of a shard thread. When a connection's place comes up it is asked for its deadline anew, and put
//! back if that has moved. Moving a deadline further away therefore costs nothing; one that comes nearer takes another
//! place, and the old place counts for nothing.

/// Microseconds of one step.
const STEP_US: u64 = 100_000;
/// Steps of one turn of the wheel; later deadlines are looked at once a turn.
const STEPS: u64 = 1024;

pub struct Wheel<T> {
    steps: Vec<Vec<T>>,
    /// The step that was looked at last.
    at: u64,
    count: usize,
}

impl<T> Wheel<T> {
    pub fn new(ticks_us: u64) -> Wheel<T> {
        Wheel { steps: (0..STEPS).map(|_| Vec::new()).collect(), at: ticks_us / STEP_US, count: 0 }
    }

    fn step(&self, deadline_us: u64) -> u64 {
        (deadline_us / STEP_US + 1).clamp(self.at + 1, self.at + STEPS - 1)
    }

    /// When an item with this deadline would come up: soon after it, or earlier.
    pub fn comes_up_us(&self, deadline_us: u64) -> u64 {
        self.step(deadline_us) * STEP_US
    }

    pub fn insert(&mut self, deadline_us: u64, item: T) {
        let step = self.step(deadline_us);
        self.steps[(step % STEPS) as usize].push(item);
        self.count += 1;
    }

    /// Moves everything whose place has come up into `due`.
    pub fn advance(&mut self, ticks_us: u64, due: &mut Vec<T>) {
        let target = ticks_us / STEP_US;
        // After a long sleep one turn of the wheel has seen everything.
        let from = self.at.max(target.saturating_sub(STEPS));
        for step in from..target {
            due.append(&mut self.steps[((step + 1) % STEPS) as usize]);
        }
        self.at = self.at.max(target);
        self.count -= due.len();
    }

    /// When something comes up next.
    pub fn next_us(&self) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        (self.at + 1..self.at + STEPS)
            .find(|step| !self.steps[(step % STEPS) as usize].is_empty())
            .map(|step| step * STEP_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_up_after_their_deadline_and_not_long_after() {
        let start = 1_795_301_616_000_000;
        let mut wheel = Wheel::new(start);
        let deadlines: Vec<u64> = (0..200).map(|n| start + n * 777_777).collect();
        for deadline in &deadlines {
            wheel.insert(*deadline, *deadline);
        }
        let mut seen = 0;
        let mut due = Vec::new();
        let mut now = start;
        while let Some(next) = wheel.next_us() {
            assert!(next > now);
            now = next;
            wheel.advance(now, &mut due);
            for item in due.drain(..) {
                if item > now {
                    wheel.insert(item, item); // it lies beyond one turn
                    continue;
                }
                assert!(now - item <= 2 * STEP_US, "late by {}", now - item);
                seen += 1;
            }
        }
        assert_eq!(seen, deadlines.len());
    }

    #[test]
    fn a_long_sleep_loses_nothing() {
        let mut wheel = Wheel::new(0);
        (0..100).for_each(|n| wheel.insert(n * STEP_US * 7, n));
        let mut due = Vec::new();
        wheel.advance(STEP_US * STEPS * 5, &mut due);
        assert_eq!((due.len(), wheel.next_us()), (100, None));
    }
}
