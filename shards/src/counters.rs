//! What a shard counts: plain numbers that only its own thread touches. Now and then the thread copies them to where
//! others can read them (root crate, `sys_topics.rs`).

use std::ops::{Index, IndexMut};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// MQTT packets from clients, of any type.
    PacketsReceived,
    /// MQTT packets to clients that are not messages.
    AnswersSent,
    /// Messages (PUBLISH) from and to MQTT clients, and the bytes of their payloads.
    MessagesReceived,
    MessagesSent,
    PayloadBytesReceived,
    PayloadBytesSent,
    /// Messages at QoS 0 that slow readers were not given.
    MessagesDropped,
    /// Of MQTT connections.
    BytesReceived,
    BytesSent,
    /// Connections that were accepted, of any protocol.
    Sockets,
    /// CONNECT packets.
    Connects,
    /// Stored sessions whose time was over.
    SessionsExpired,
    /// MQTT clients that are connected now.
    Clients,
    /// Those of them of whose session something is stored.
    ClientsStored,
    /// Sessions of which something is stored now, of connected clients or not.
    SessionsStored,
    /// Subscriptions of connections, of any protocol.
    Subscriptions,
    /// Of them, those that are shared.
    SharedSubscriptions,
    /// Records of the app's tables, and what they take up in the log.
    Records,
    RecordBytes,
}

impl Counter {
    /// How many there are.
    pub const COUNT: usize = Counter::RecordBytes as usize + 1;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters(pub [u64; Counter::COUNT]);

impl Index<Counter> for Counters {
    type Output = u64;

    fn index(&self, counter: Counter) -> &u64 {
        &self.0[counter as usize]
    }
}

impl IndexMut<Counter> for Counters {
    fn index_mut(&mut self, counter: Counter) -> &mut u64 {
        &mut self.0[counter as usize]
    }
}
