//! Which connection holds which MQTT client identifier. Each identifier belongs to one shard, found by its hash, so
//! that two connections on different shards that claim the same one are put in order (MQTT 5 §3.1.4, [MQTT-3.1.4-3]).

use crate::command::ConnectionRef;
use hashbrown::HashMap;

#[derive(Default)]
pub struct Sessions {
    holders: HashMap<Box<str>, ConnectionRef>,
}

impl Sessions {
    /// Gives the identifier to a connection; returns the one that has to go.
    pub fn join(&mut self, client_id: Box<str>, connection: ConnectionRef) -> Option<ConnectionRef> {
        self.holders.insert(client_id, connection).filter(|previous| *previous != connection)
    }

    /// The connection is gone. Another one that took over meanwhile keeps the identifier.
    pub fn leave(&mut self, client_id: &str, connection: ConnectionRef) {
        if self.holders.get(client_id) == Some(&connection) {
            self.holders.remove(client_id);
        }
    }

    pub fn len(&self) -> usize {
        self.holders.len()
    }

    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}
