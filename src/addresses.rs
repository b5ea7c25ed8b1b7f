//! How many connections each client address has: one that has too many must not keep others out. Shared by all threads,
//! which come here when a connection opens and when it is gone.

use shards::limits::CONNECTIONS_PER_ADDRESS;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub struct Addresses {
    max: usize,
    /// Clients on this machine are counted as well.
    counts_loopback: bool,
    connections: Mutex<HashMap<IpAddr, usize>>,
}

/// Whom an address stands for: of IPv6, where a client has as many as it likes, the network of 64 bits.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

impl Addresses {
    /// `max`: as the operator has set it.
    pub fn new(max: Option<usize>) -> Addresses {
        Addresses {
            max: max.unwrap_or(CONNECTIONS_PER_ADDRESS),
            counts_loopback: max.is_some(),
            connections: Mutex::default(),
        }
    }

    fn counts(&self, address: IpAddr) -> bool {
        self.counts_loopback || !address.to_canonical().is_loopback()
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has come in. False: it is one too many.
    #[must_use]
    pub fn enter(&self, address: IpAddr) -> bool {
        if !self.counts(address) {
            return true;
        }
        let mut connections = self.connections();
        let count = connections.entry(client_of(address)).or_default();
        let may_enter = *count < self.max;
        *count += usize::from(may_enter);
        may_enter
    }

    /// A connection that had entered is gone.
    pub fn leave(&self, address: IpAddr) {
        if !self.counts(address) {
            return;
        }
        let mut connections = self.connections();
        let client = client_of(address);
        if let Some(count) = connections.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_bound() {
        let addresses = Addresses::new(Some(2));
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        assert!(addresses.enter(one) && addresses.enter(address("::ffff:192.0.2.1")) && addresses.enter(other));
        assert!(!addresses.enter(one));
        addresses.leave(one);
        assert!(addresses.enter(one) && !addresses.enter(one));
        let network = [address("2001:db8::1"), address("2001:db8::ffff:2"), address("2001:db8:0:1::1")];
        assert!(addresses.enter(network[0]) && addresses.enter(network[1]) && addresses.enter(network[2]));
        assert!(!addresses.enter(network[0]), "one network");
        assert!(addresses.enter(address("::1")) && addresses.enter(address("::1")) && !addresses.enter(address("::1")));
    }

    #[test]
    fn this_machine_is_not_counted_unless_asked_for() {
        let addresses = Addresses::new(None);
        let (loopback, stranger) = ("127.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap());
        assert!((0..1000).all(|_| addresses.enter(loopback)));
        assert_eq!((0..1000).filter(|_| addresses.enter(stranger)).count(), CONNECTIONS_PER_ADDRESS);
        (0..CONNECTIONS_PER_ADDRESS).for_each(|_| addresses.leave(stranger));
        assert!(addresses.connections().is_empty(), "nobody is remembered who has nothing");
    }
}
