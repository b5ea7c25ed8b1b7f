//! What a message carries: who has sent it, which one it is, and when it was meant to be sent; as a JSON object that any
//! server passes on, whatever it wraps it in.

use memchr::memmem::Finder;
use std::sync::LazyLock;

/// Begins the value that everything is in.
const MARK: &[u8] = b"\"lg\":\"";
/// Begins what makes the message as long as it is to be.
const FILL: &[u8] = b",\"fill\":\"";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Of the run: others' messages are not counted.
    pub run: u32,
    pub publisher: u32,
    pub topic: u32,
    /// Of this publisher to this topic, from 0 on.
    pub number: u64,
    /// Nanoseconds since the run began.
    pub time_ns: u64,
}

/// What follows the stamp in its message.
#[derive(Clone, Copy, Debug)]
pub struct Rest<'a> {
    bytes: &'a [u8],
    /// Length of the message up to here.
    head: usize,
}

impl Rest<'_> {
    /// Whether it is what [`Stamp::write`] has put there, for a message of so many bytes.
    pub fn is_whole(&self, bytes: usize) -> bool {
        let Some(fill) = bytes.checked_sub(self.head + FILL.len() + 2) else { return true };
        let Some(rest) = self.bytes.strip_prefix(FILL) else { return false };
        rest.get(..fill).is_some_and(|own| own.iter().all(|byte| *byte == b'x')) && rest.get(fill) == Some(&b'"')
    }
}

impl Stamp {
    /// Appends the message, of `bytes` bytes if it has room for them.
    pub fn write(&self, bytes: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(b'{');
        out.extend_from_slice(MARK);
        for (index, number) in [self.run.into(), self.publisher.into(), self.topic.into(), self.number, self.time_ns]
            .into_iter()
            .enumerate()
        {
            if index > 0 {
                out.push(b'.');
            }
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
        out.push(b'"');
        if let Some(fill) = bytes.checked_sub(out.len() - start + FILL.len() + 2) {
            out.extend_from_slice(FILL);
            out.resize(out.len() + fill, b'x');
            out.push(b'"');
        }
        out.push(b'}');
    }

    /// Finds it in a message; with it comes what follows.
    pub fn read(message: &[u8]) -> Option<(Stamp, Rest<'_>)> {
        static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MARK));
        // At its usual place, or somewhere in what it was wrapped in.
        let is_first = message.get(1..).is_some_and(|rest| rest.starts_with(MARK));
        let at = if is_first { 1 } else { FINDER.find(message)? } + MARK.len();
        let mut numbers = [0u64; 5];
        let mut index = 0;
        for (digits, byte) in message[at..].iter().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    numbers[index] = numbers[index].checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
                }
                b'.' if index < 4 => index += 1,
                b'"' if index == 4 => {
                    let [run, publisher, topic, number, time_ns] = numbers;
                    let small = |number: u64| u32::try_from(number).ok();
                    let (run, publisher, topic) = (small(run)?, small(publisher)?, small(topic)?);
                    // A brace, the mark, the numbers, and a quote.
                    let rest = Rest { bytes: &message[at + digits + 1..], head: 1 + MARK.len() + digits + 1 };
                    return Some((Stamp { run, publisher, topic, number, time_ns }, rest));
                }
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_found_whatever_is_around_them() {
        let stamp = Stamp { run: 7, publisher: 0, topic: 99, number: u64::MAX, time_ns: 123_456 };
        for bytes in [0, 80, 128, 4096] {
            let mut message = Vec::new();
            stamp.write(bytes, &mut message);
            assert!(message.len() == bytes || (bytes < 100 && message.len() < 100), "{}", message.len());
            serde_json::from_slice::<serde_json::Value>(&message).expect("JSON");
            let wrapped = [b"data: {\"type\":\"put\",\"value\":", &message[..], b"}\n\n"].concat();
            let (found, rest) = Stamp::read(&wrapped).expect("a stamp");
            assert_eq!(found, stamp);
            assert!(rest.is_whole(bytes) && (bytes < 100 || !rest.is_whole(bytes + 1)));
            let damaged = wrapped.iter().map(|byte| if *byte == b'x' { b'y' } else { *byte }).collect::<Vec<u8>>();
            assert!(bytes < 100 || !Stamp::read(&damaged).expect("a stamp").1.is_whole(bytes));
        }
        for other in
            ["", "{}", "{\"lg\":\"1.2.3\"}", "{\"lg\":\"1.2.3.4.5.6\"}", "{\"lg\":\"1.2.3.4.99999999999999999999999\"}"]
        {
            assert!(Stamp::read(other.as_bytes()).is_none(), "{other}");
        }
    }
}
