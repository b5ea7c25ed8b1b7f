//! Whether a client that says nothing is still there: it is sent a Ping (RFC 6455 §5.5.2), and given up if it is silent
//! for as long again.

use crate::protocol::Context;
use crate::protocol::framing::{Opcode, write_header};

/// A client that was silent for so long is asked.
const PING_US: u64 = 30_000_000;

pub struct Keepalive {
    heard_us: u64,
    pinged: bool,
}

impl Keepalive {
    pub fn new(ticks_us: u64) -> Keepalive {
        Keepalive { heard_us: ticks_us, pinged: false }
    }

    /// The client has said something, whatever it is.
    pub fn heard(&mut self, ticks_us: u64) {
        *self = Keepalive::new(ticks_us);
    }

    /// When [`Keepalive::expire`] is due.
    pub fn deadline(&self) -> u64 {
        self.heard_us + PING_US * (1 + u64::from(self.pinged))
    }

    /// Asks. False: it has been asked before, and is gone.
    pub fn expire(&mut self, context: &mut Context<'_>) -> bool {
        if self.pinged {
            return false;
        }
        self.pinged = true;
        context.write(|out| write_header(Opcode::Ping, 0, out));
        true
    }
}
