//! Where a listener binds. A setting of `http` and `mqtt`; the reactor asks for its sockets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// No listener.
    Off,
    Listen {
        /// `localhost` or an IP address, without brackets.
        host: String,
        /// 0: the system chooses.
        port: u16,
    },
}

impl Address {
    pub const EXPECTED: &'static str = "a port, localhost:port, IP address:port, or off";

    pub fn localhost(port: u16) -> Address {
        Address::Listen { host: "localhost".to_owned(), port }
    }

    /// Names other than `localhost` are not accepted: what they stand for could change, and with it who may reach us.
    pub fn parse(text: &str) -> Option<Address> {
        if text == "off" {
            return Some(Address::Off);
        }
        if let Some(port) = parse_port(text) {
            return Some(Address::localhost(port));
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            return parse_port(port).map(Address::localhost);
        }
        // Our own reading of the port: the standard library's accepts leading zeros.
        let (_, port) = text.rsplit_once(':')?;
        let address: SocketAddr = text.parse().ok()?;
        Some(Address::Listen { host: address.ip().to_string(), port: parse_port(port)? })
    }

    /// Both families for `localhost`: clients differ in which they try first. Empty if off.
    pub fn sockets(&self) -> Vec<SocketAddr> {
        match self {
            Address::Off => Vec::new(),
            Address::Listen { host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => vec![SocketAddr::new(ip, *port)],
                Err(_) => vec![
                    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), *port),
                    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), *port),
                ],
            },
        }
    }

    /// Whether only this machine can reach it. True if off.
    pub fn is_loopback(&self) -> bool {
        self.sockets().iter().all(|socket| socket.ip().to_canonical().is_loopback())
    }
}

fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Off => f.write_str("off"),
            Address::Listen { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Listen { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing() {
        for (text, shown, sockets, loopback) in [
            ("9926", "localhost:9926", "127.0.0.1:9926 [::1]:9926", true),
            ("0", "localhost:0", "127.0.0.1:0 [::1]:0", true),
            ("localhost:1883", "localhost:1883", "127.0.0.1:1883 [::1]:1883", true),
            ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", true),
            ("127.1.2.3:80", "127.1.2.3:80", "127.1.2.3:80", true),
            ("[::1]:9926", "[::1]:9926", "[::1]:9926", true),
            ("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80", true),
            ("0.0.0.0:80", "0.0.0.0:80", "0.0.0.0:80", false),
            ("[::]:80", "[::]:80", "[::]:80", false),
            ("192.168.1.2:80", "192.168.1.2:80", "192.168.1.2:80", false),
            ("off", "off", "", true),
        ] {
            let address = Address::parse(text).expect(text);
            let found: Vec<String> = address.sockets().iter().map(SocketAddr::to_string).collect();
            assert_eq!(
                (address.to_string().as_str(), found.join(" ").as_str(), address.is_loopback()),
                (shown, sockets, loopback),
                "{text}"
            );
        }
        for text in
            ["", "65536", "-1", "+1", "example.org:80", "localhost", "localhost:", ":80", "::1:80", "1.2.3.4", "*:80"]
        {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
