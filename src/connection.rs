//! One connection as its shard's thread sees it: the session that speaks its protocol, the bytes that session has not
//! taken yet, and how far its closing has come.

use crate::protocol::framing::Framing;
use crate::protocol::http::session::HttpSession;
use crate::protocol::mqtt::session::MqttSession;
use crate::protocol::sse::SseSession;
use crate::protocol::ws::echo::EchoSession;
use crate::protocol::ws::records::RecordsSession;
use crate::protocol::ws::tunnel::TunnelSession;
use crate::protocol::{Catalog, Context, Flow, Scratch, Session, Upgrade, format::Format};
use crate::reactor::Slot;
use crate::tls::stream::{Event, TlsStream};
use shards::command::{Completion, ConnectionRef};
use shards::outbox::{Outboxes, SendBuffer};
use shards::shard::Shard;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use tracing::info;

/// Bytes that may wait for a blocked session before its socket is no longer read.
const CARRY_PAUSE_BYTES: usize = 256 << 10;
/// How long a goodbye may take to be read, and the peer to hang up after it.
const LINGER_US: u64 = 2_000_000;
/// How long one send may take: this, and a second more for each of so many bytes.
const SEND_STALL_US: u64 = 60_000_000;
const SEND_BYTES_PER_S: u64 = 64 << 10;
/// How long a TLS handshake may take, from the start of the connection.
const HANDSHAKE_US: u64 = 5_000_000;

/// What a listener's connections speak at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Http,
    Mqtt,
    Https,
    Mqtts,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Mqtt => "mqtt",
            Kind::Https => "https",
            Kind::Mqtts => "mqtts",
        }
    }

    fn session(self, ticks_us: u64) -> Box<dyn Session> {
        match self {
            Kind::Http | Kind::Https => Box::new(HttpSession::new(ticks_us)),
            Kind::Mqtt | Kind::Mqtts => Box::new(MqttSession::new(ticks_us, None, Format::Json)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    /// Nothing more is read; what is in the outbox still goes out.
    Draining {
        since_us: u64,
    },
    /// All is sent and said; the peer may hang up first.
    Lingering {
        since_us: u64,
    },
    /// Given up; the reactor will release it.
    Closed,
}

pub struct Connection {
    pub slot: Slot,
    pub state: State,
    kind: Kind,
    pub address: IpAddr,
    /// Whom the client's certificate names.
    identity: Option<Arc<str>>,
    /// Between the socket and all else, if the listener's kind says so. Taken out while it works.
    pub tls: Option<Box<TlsStream>>,
    /// Taken out while it is called.
    session: Option<Box<dyn Session>>,
    /// Received, but not taken by the session.
    carry: Vec<u8>,
    /// The session waits for a completion.
    pub blocked: bool,
    /// It waits for room for commands, and stands in the thread's list of those.
    pub starved: bool,
    /// The socket is not read.
    pub paused: bool,
    /// The peer sends no more.
    pub peer_ended: bool,
    /// The socket's end came while bytes of a handshake waited for their turn: it comes behind them.
    pub hung_up: bool,
    pub opened_us: u64,
    pub heard: bool,
    /// When the send under way must be complete.
    pub send_deadline_us: Option<NonZeroU64>,
    /// When its place in the wheel comes up; other places that it had count for nothing.
    pub comes_up_us: u64,
}

/// What all calls of sessions need from their thread.
pub struct Surroundings<'a> {
    pub shard: &'a mut Shard,
    pub catalog: &'a Catalog,
    pub scratch: &'a mut Scratch,
}

impl Connection {
    pub fn open(kind: Kind, slot: Slot, address: IpAddr, tls: Option<Box<TlsStream>>, ticks_us: u64) -> Connection {
        Connection {
            slot,
            state: State::Open,
            kind,
            address,
            identity: None,
            tls,
            session: Some(kind.session(ticks_us)),
            carry: Vec::new(),
            blocked: false,
            starved: false,
            paused: false,
            peer_ended: false,
            hung_up: false,
            opened_us: ticks_us,
            heard: false,
            send_deadline_us: None,
            comes_up_us: u64::MAX,
        }
    }

    pub fn reference(&self, shard: u16) -> ConnectionRef {
        ConnectionRef { shard, index: self.slot.index, generation: self.slot.generation }
    }

    fn call<R>(
        &mut self,
        around: &mut Surroundings<'_>,
        body: impl FnOnce(&mut Box<dyn Session>, &mut Context<'_>) -> R,
    ) -> R {
        let mut session = self.session.take().expect("a session is called by its connection only");
        let connection = self.reference(around.shard.index());
        let mut context = Context {
            shard: around.shard,
            catalog: around.catalog,
            scratch: around.scratch,
            connection,
            address: self.address,
            identity: self.identity.as_deref(),
            framing: Framing::None,
        };
        let result = body(&mut session, &mut context);
        self.session = Some(session);
        result
    }

    /// Takes received bytes. Those of a TLS handshake wait for [`Connection::advance_tls`]: it takes its time.
    pub fn receive(&mut self, around: &mut Surroundings<'_>, bytes: &[u8]) {
        let Some(tls) = &mut self.tls else { return self.hear(around, bytes) };
        if self.state == State::Open {
            tls.receive(bytes);
            if tls.is_open() {
                self.advance_tls(around);
            }
        }
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Hands what TLS makes of received bytes to the session.
    pub fn advance_tls(&mut self, around: &mut Surroundings<'_>) {
        let Some(mut tls) = self.tls.take() else { return };
        let result = tls.advance(&mut |event| match event {
            Event::Established { identity } => {
                self.identity = identity;
                self.session = Some(self.kind.session(around.shard.ticks_us())); // its time begins now
            }
            Event::Plain(bytes) => self.hear(around, bytes),
            Event::Ended => self.end_of_input(around),
        });
        self.tls = Some(tls);
        if let Err(reason) = result {
            if self.state == State::Open {
                info!(client = %self.address, "TLS connection closed: {reason}");
            }
            self.close(around);
        }
    }

    /// Hands bytes to the session: as they lie in the receive buffer, unless some are left from before.
    fn hear(&mut self, around: &mut Surroundings<'_>, bytes: &[u8]) {
        if self.state != State::Open {
            return;
        }
        self.heard = true;
        if self.blocked {
            return self.carry.extend_from_slice(bytes);
        }
        if self.carry.is_empty() {
            let taken = self.feed(around, bytes);
            if self.state == State::Open {
                self.carry.extend_from_slice(&bytes[taken..]);
            }
        } else {
            self.carry.extend_from_slice(bytes);
            self.feed_carry(around);
        }
    }

    fn feed_carry(&mut self, around: &mut Surroundings<'_>) {
        let mut carry = std::mem::take(&mut self.carry);
        let taken = self.feed(around, &carry);
        if taken == carry.len() || self.state != State::Open {
            return; // an idle connection holds no buffer
        }
        carry.drain(..taken);
        self.carry = carry;
    }

    /// Gives the session input until it wants no more; tells how much it took.
    fn feed(&mut self, around: &mut Surroundings<'_>, input: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let (taken, flow) = self.call(around, |session, context| session.receive(context, &input[at..]));
            at += taken;
            let upgraded = matches!(flow, Flow::Upgrade(_));
            self.follow(around, flow);
            let goes_on = upgraded || (taken > 0 && at < input.len());
            if !goes_on || self.blocked || self.state != State::Open {
                return at;
            }
        }
    }

    /// Something that the session asked for is done.
    pub fn complete(&mut self, around: &mut Surroundings<'_>, completion: Completion) {
        if self.state != State::Open {
            return;
        }
        let flow = self.call(around, |session, context| session.complete(context, completion));
        let unblocked = matches!(flow, Flow::Continue) && self.blocked;
        self.follow(around, flow);
        if unblocked {
            self.retry(around);
        }
    }

    /// Lets a blocked session go on with what it was sent meanwhile.
    pub fn retry(&mut self, around: &mut Surroundings<'_>) {
        self.blocked = false;
        self.feed_carry(around);
        if self.peer_ended && !self.blocked {
            self.close(around);
        }
    }

    fn follow(&mut self, around: &mut Surroundings<'_>, flow: Flow) {
        match flow {
            Flow::Continue => {}
            Flow::Blocked => self.blocked = true,
            Flow::Close => self.close(around),
            Flow::Upgrade(upgrade) => self.upgrade(around, *upgrade),
        }
    }

    fn upgrade(&mut self, around: &mut Surroundings<'_>, upgrade: Upgrade) {
        type Next = (Box<dyn Session>, Flow);
        let (next, flow) = self.call(around, |_, context| -> Next {
            match upgrade {
                Upgrade::Sse { watch } => (Box::new(SseSession::open(context, watch)), Flow::Continue),
                Upgrade::WebSocket { watch, format } => {
                    let (session, flow) = RecordsSession::open(context, watch, format);
                    (Box::new(session), flow)
                }
                Upgrade::MqttOverWebSocket { incoming, outgoing } => {
                    let inner = Box::new(MqttSession::new(context.ticks_us(), incoming, outgoing));
                    (Box::new(TunnelSession::new(inner)), Flow::Continue)
                }
                Upgrade::WebSocketEcho => (Box::new(EchoSession::new(context.ticks_us())), Flow::Continue),
            }
        });
        self.session = Some(next);
        self.follow(around, flow);
    }

    /// The peer has sent its last byte.
    pub fn end_of_input(&mut self, around: &mut Surroundings<'_>) {
        self.peer_ended = true;
        if self.state == State::Open && !self.blocked {
            self.close(around);
        }
    }

    /// Ends the session; what it wrote still goes out.
    pub fn close(&mut self, around: &mut Surroundings<'_>) {
        if self.state == State::Open {
            self.state = State::Draining { since_us: around.shard.ticks_us() };
            self.carry = Vec::new();
            self.call(around, |session, context| session.end(context));
        }
    }

    /// The server is about to stop.
    pub fn stop(&mut self, around: &mut Surroundings<'_>) {
        if self.is_handshaking() {
            self.close(around);
        } else if self.state == State::Open {
            let flow = self.call(around, |session, context| session.stop(context));
            self.follow(around, flow);
        }
    }

    /// When [`Connection::expire`] is due.
    pub fn deadline(&self) -> u64 {
        match self.state {
            State::Open if self.is_handshaking() => self.opened_us + HANDSHAKE_US,
            State::Open => {
                let session = self.session.as_ref().and_then(|session| session.deadline()).unwrap_or(u64::MAX);
                session.min(self.send_deadline_us.map_or(u64::MAX, NonZeroU64::get))
            }
            // What has been said must be able to arrive, however slow the line.
            State::Draining { since_us } => self.send_deadline_us.map_or(since_us + LINGER_US, NonZeroU64::get),
            State::Lingering { since_us } => since_us + LINGER_US,
            State::Closed => u64::MAX,
        }
    }

    /// Its deadline has passed. True: break the connection off.
    pub fn expire(&mut self, around: &mut Surroundings<'_>) -> bool {
        let ticks_us = around.shard.ticks_us();
        let stalled = self.send_deadline_us.is_some_and(|at| ticks_us >= at.get());
        match self.state {
            State::Open if stalled || self.is_handshaking() => {
                self.close(around);
                true
            }
            State::Open => {
                let flow = self.call(around, |session, context| session.expire(context));
                self.follow(around, flow);
                false
            }
            State::Draining { .. } | State::Lingering { .. } => true,
            State::Closed => false,
        }
    }

    /// Whether the end of what the socket gives is the end that the peer wanted: over TLS it says so beforehand.
    pub fn may_end(&self) -> bool {
        self.tls.is_none() || self.peer_ended || self.state != State::Open
    }

    /// Whether all has been sent that is to be said. `drained`: nothing waits in the outbox.
    pub fn is_finished(&self, drained: bool) -> bool {
        self.tls.as_ref().map_or(drained, |tls| tls.is_finished(drained))
    }

    /// Whether TLS has something to send beside what waits in the outbox, and does not stand in the list of those.
    pub fn joins_senders(&mut self) -> bool {
        let is_closing = matches!(self.state, State::Draining { .. });
        let Some(tls) = &mut self.tls else { return false };
        let joins = !tls.queued && tls.wants_send(is_closing);
        tls.queued |= joins;
        joins
    }

    /// What TLS has to send now: what waits in the outbox, and what it says itself.
    ///
    /// # Errors
    /// It cannot be encrypted.
    pub fn seal(&mut self, outboxes: &mut Outboxes, shard: u16, ticks_us: u64) -> Result<Option<SendBuffer>, String> {
        let reference = self.reference(shard);
        let Some(tls) = &mut self.tls else { return Ok(None) };
        tls.queued = false;
        let mut bytes = 0;
        if tls.wants_plain()
            && let Some(buffer) = outboxes.take(reference.index)
        {
            bytes = buffer.len();
            tls.give_plain(buffer);
        }
        let is_last = matches!(self.state, State::Draining { .. }) && outboxes.is_drained(reference);
        let sealed = tls.seal(is_last)?;
        if sealed.is_some() && self.send_deadline_us.is_none() {
            self.begin_send(ticks_us, bytes);
        }
        Ok(sealed)
    }

    /// A send is complete. Gives the outbox's buffer back when all of it has been sent.
    pub fn sent(&mut self, buffer: SendBuffer) -> Option<SendBuffer> {
        let buffer = match &mut self.tls {
            None => Some(buffer),
            Some(tls) => tls.sent(),
        };
        if self.tls.as_ref().is_none_or(|tls| !tls.is_sending_plain()) {
            self.send_deadline_us = None;
        }
        buffer
    }

    /// A send of so many bytes begins.
    pub fn begin_send(&mut self, ticks_us: u64, bytes: usize) -> u64 {
        let deadline_us = ticks_us + SEND_STALL_US + bytes as u64 * 1_000_000 / SEND_BYTES_PER_S;
        self.send_deadline_us = NonZeroU64::new(deadline_us);
        deadline_us
    }

    /// Whether the socket should not be read now: too much waits for a blocked session, or for a handshake's turn.
    pub fn wants_pause(&self) -> bool {
        self.blocked && self.carry.len() > CARRY_PAUSE_BYTES
            || self.tls.as_ref().is_some_and(|tls| tls.has_much_pending())
    }
}
