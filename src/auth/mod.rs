//! Who may come in. So far there are no users: a client on this machine that shows no credentials may do everything
//! (compat §8, `authorizeLocal`), everybody else nothing. The server listens on loopback only, for the same reason.

use crate::protocol::{Authority, Credentials};
use std::net::IpAddr;

pub struct LocalOnly;

impl Authority for LocalOnly {
    fn admits(&self, address: IpAddr, credentials: Option<Credentials<'_>>) -> bool {
        // Credentials of a user that does not exist are wrong, wherever they come from.
        credentials.is_none() && address.to_canonical().is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_without_credentials() {
        let wrong = Credentials { username: "a", password: b"b" };
        let cases = [
            ("127.0.0.1", None, true),
            ("127.9.9.9", None, true),
            ("::1", None, true),
            ("::ffff:127.0.0.1", None, true),
            ("10.0.0.1", None, false),
            ("::2", None, false),
            ("127.0.0.1", Some(wrong), false),
        ];
        for (address, credentials, expected) in cases {
            assert_eq!(LocalOnly.admits(address.parse().unwrap(), credentials), expected, "{address}");
        }
    }
}
