//! Who may come in. So far there are no users: a client on this machine, or one with a certificate that the server's CA
//! has signed for a name, may do everything if it shows no credentials (compat §8, `authorizeLocal`); everybody else
//! nothing. Plain listeners are on loopback only, for the same reason.

use crate::protocol::{Authority, Credentials};
use std::net::IpAddr;

pub struct NoUsers;

impl Authority for NoUsers {
    fn admits(&self, address: IpAddr, identity: Option<&str>, credentials: Option<Credentials<'_>>) -> bool {
        // Credentials of a user that does not exist are wrong, whoever shows them.
        credentials.is_none() && (identity.is_some() || address.to_canonical().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_or_a_certificate_without_credentials() {
        let wrong = Credentials { username: "a", password: b"b" };
        let cases = [
            ("127.0.0.1", None, None, true),
            ("127.9.9.9", None, None, true),
            ("::1", None, None, true),
            ("::ffff:127.0.0.1", None, None, true),
            ("10.0.0.1", None, None, false),
            ("::2", None, None, false),
            ("10.0.0.1", Some("device-7"), None, true),
            ("10.0.0.1", Some("device-7"), Some(wrong), false),
            ("127.0.0.1", None, Some(wrong), false),
        ];
        for (address, identity, credentials, expected) in cases {
            let admits = NoUsers.admits(address.parse().unwrap(), identity, credentials);
            assert_eq!(admits, expected, "{address} {identity:?}");
        }
    }
}
