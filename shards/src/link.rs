//! The rings of one shard to and from its peers. Owned by the shard; the only way in which shards touch each other.
//!
//! What finds no room in a lane waits in a backlog here. Backlogs are bounded by what fills them: commands by the
//! credit of the sender, outcomes by the credit of the receiver, events because a shard with a long backlog applies no
//! more writes (`Shard::is_congested`). Inbound lanes are drained whatever waits outbound, so two full shards cannot
//! block each other.

use crate::command::{Control, Data};
use crate::limits::{LANE_BACKLOG_MAX, RING_CONTROL_SLOTS, RING_DATA_SLOTS};
use crate::ring::{Bell, Consumer, Producer, ring};
use std::collections::VecDeque;
use std::sync::Arc;

/// Wakes a shard that sleeps in its reactor.
pub trait Wake: Send + Sync {
    fn wake(&self);
}

struct Lane<T> {
    ring: Producer<T>,
    backlog: VecDeque<T>,
    /// Of the backlog.
    weight: usize,
    weigh: fn(&T) -> u32,
}

impl<T> Lane<T> {
    fn push(&mut self, message: T) {
        let refused = if self.backlog.is_empty() { self.ring.push(message).err() } else { Some(message) };
        if let Some(message) = refused {
            self.weight += (self.weigh)(&message) as usize;
            self.backlog.push_back(message);
        }
    }

    fn retry(&mut self) -> bool {
        let before = self.backlog.len();
        while let Some(message) = self.backlog.pop_front() {
            let weight = (self.weigh)(&message) as usize;
            if let Err(message) = self.ring.push(message) {
                self.backlog.push_front(message);
                break;
            }
            self.weight -= weight;
        }
        self.backlog.len() < before
    }
}

struct Peer {
    control: Lane<Control>,
    data: Lane<Data>,
    inbound_control: Consumer<Control>,
    inbound_data: Consumer<Data>,
    bell: Arc<Bell>,
    wake: Arc<dyn Wake>,
    /// Something was pushed since the bell was last looked at.
    touched: bool,
}

pub struct Links {
    peers: Vec<Option<Peer>>,
    bell: Arc<Bell>,
}

/// The links of every shard of a server, one [`Links`] for each of `wakes`.
pub fn mesh(wakes: &[Arc<dyn Wake>]) -> Vec<Links> {
    let bells: Vec<Arc<Bell>> = wakes.iter().map(|_| Arc::new(Bell::default())).collect();
    let mut links: Vec<Links> =
        bells.iter().map(|bell| Links { peers: wakes.iter().map(|_| None).collect(), bell: bell.clone() }).collect();
    for a in 0..wakes.len() {
        for b in 0..a {
            let (control_to_b, control_from_a) = ring(RING_CONTROL_SLOTS);
            let (control_to_a, control_from_b) = ring(RING_CONTROL_SLOTS);
            let (data_to_b, data_from_a) = ring(RING_DATA_SLOTS);
            let (data_to_a, data_from_b) = ring(RING_DATA_SLOTS);
            let peer = |control, data, inbound_control, inbound_data, of: usize| Peer {
                control: Lane { ring: control, backlog: VecDeque::new(), weight: 0, weigh: |_| 1 },
                data: Lane { ring: data, backlog: VecDeque::new(), weight: 0, weigh: Data::weight },
                inbound_control,
                inbound_data,
                bell: bells[of].clone(),
                wake: wakes[of].clone(),
                touched: false,
            };
            links[a].peers[b] = Some(peer(control_to_b, data_to_b, control_from_b, data_from_b, b));
            links[b].peers[a] = Some(peer(control_to_a, data_to_a, control_from_a, data_from_a, a));
        }
    }
    links
}

impl Links {
    /// Number of shards, this one included.
    pub fn shards(&self) -> usize {
        self.peers.len()
    }

    fn peer(&mut self, to: u16) -> &mut Peer {
        self.peers[usize::from(to)].as_mut().expect("a shard sends itself nothing")
    }

    pub fn send_control(&mut self, to: u16, message: Control) {
        let peer = self.peer(to);
        peer.control.push(message);
        peer.touched = true;
    }

    pub fn send_data(&mut self, to: u16, message: Data) {
        let peer = self.peer(to);
        peer.data.push(message);
        peer.touched = true;
    }

    pub fn receive_control(&mut self, from: u16) -> Option<Control> {
        self.peers[usize::from(from)].as_mut()?.inbound_control.pop()
    }

    pub fn receive_data(&mut self, from: u16) -> Option<Data> {
        self.peers[usize::from(from)].as_mut()?.inbound_data.pop()
    }

    /// Moves backlogs on and wakes the peers that sleep on something sent to them. Once per turn.
    pub fn flush(&mut self) {
        for peer in self.peers.iter_mut().flatten() {
            let moved = peer.control.retry() | peer.data.retry();
            if (peer.touched || moved) && peer.bell.must_ring() {
                peer.wake.wake();
            }
            peer.touched = false;
        }
    }

    /// Whether so much waits for a peer that nothing more should be made for it.
    pub fn is_congested(&self) -> bool {
        self.peers.iter().flatten().any(|peer| peer.data.weight > LANE_BACKLOG_MAX)
    }

    fn has_mail(&mut self) -> bool {
        let waiting = |peer: &mut Peer| !peer.inbound_control.is_empty() || !peer.inbound_data.is_empty();
        self.peers.iter_mut().flatten().any(waiting)
    }

    fn has_backlog(&self) -> bool {
        self.peers.iter().flatten().any(|peer| !peer.data.backlog.is_empty() || !peer.control.backlog.is_empty())
    }

    /// Says that the shard is about to sleep; false: it must not, something waits. [`Links::wake_up`] follows either way.
    pub fn may_sleep(&mut self) -> bool {
        self.bell.publish_asleep();
        !self.has_mail() && !self.has_backlog()
    }

    pub fn wake_up(&mut self) {
        self.bell.publish_awake();
    }
}
