//! A client of rustls on the other side, without a socket: bytes come in pieces of every size, and spoilt.

use super::*;
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use shards::outbox::Splice;
use std::io::{Read, Write};

struct Configs {
    server: Arc<ServerConfig>,
    client: ClientConfig,
}

/// Both sides show a certificate of one CA, which makes handshakes long.
fn configs(version: &'static SupportedProtocolVersion) -> Configs {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = || {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "device-7");
        let certificate = params.signed_by(&key, &ca).unwrap();
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    };
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = issue();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
    let server = server.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let (chain, key) = issue();
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let client = client.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    Configs { server: Arc::new(server), client }
}

/// Server and client, and all that the server has understood.
struct Pair {
    server: TlsStream,
    client: ClientConnection,
    heard: Vec<u8>,
    /// All that the client has understood.
    read: Vec<u8>,
    identity: Option<Arc<str>>,
    ended: bool,
}

impl Pair {
    fn new(configs: &Configs) -> Pair {
        let server = TlsStream::new(configs.server.clone(), true).unwrap();
        let client = ClientConnection::new(Arc::new(configs.client.clone()), "localhost".try_into().unwrap()).unwrap();
        Pair { server, client, heard: Vec::new(), read: Vec::new(), identity: None, ended: false }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.server.receive(bytes);
        self.server.advance(&mut |event| match event {
            Event::Established { identity } => self.identity = identity,
            Event::Plain(bytes) => self.heard.extend_from_slice(bytes),
            Event::Ended => self.ended = true,
        })
    }

    /// What the client has to say.
    fn said(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Lets the client read all that the server sends; gives the buffer of the outbox if that was the last of it.
    fn answer(&mut self, is_last: bool) -> Option<SendBuffer> {
        let sealed = self.server.seal(is_last).unwrap()?;
        assert!(sealed.splices.is_empty());
        assert!(sealed.len() <= SEND_BYTES_MAX + SEND_BYTES_MAX / 8, "{}", sealed.len());
        assert!(self.server.seal(is_last).unwrap().is_none(), "one send is under way");
        let mut bytes = &sealed.bytes[..];
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            let available = self.client.process_new_packets().unwrap().plaintext_bytes_to_read();
            let start = self.read.len();
            self.read.resize(start + available, 0);
            self.client.reader().read_exact(&mut self.read[start..]).unwrap();
        }
        self.server.sent()
    }

    /// Both sides go on until none has anything to say; the server gets pieces of this size.
    fn settle(&mut self, piece: usize) {
        loop {
            let said = self.said();
            for piece in said.chunks(piece) {
                self.receive(piece).unwrap();
                self.answer(false);
            }
            self.answer(false);
            if said.is_empty() && !self.client.wants_write() {
                return;
            }
        }
    }
}

#[test]
fn pieces_of_every_size() {
    for version in rustls::ALL_VERSIONS {
        for fragment in [None, Some(64)] {
            let mut configs = configs(version);
            configs.client.max_fragment_size = fragment;
            for piece in [1, 2, 7, 100, 1000, 100_000] {
                let mut pair = Pair::new(&configs);
                pair.settle(piece);
                assert!(pair.server.is_open() && !pair.client.is_handshaking());
                assert_eq!(pair.identity.as_deref(), Some("device-7"));
                let text = b"plain".repeat(5000);
                pair.client.writer().write_all(&text).unwrap();
                pair.settle(piece);
                assert_eq!(pair.heard, text);
                assert_eq!(pair.server.pending.capacity(), 0, "an idle connection holds no buffer");
                assert_eq!(pair.server.outgoing.capacity(), 0);
            }
        }
    }
}

/// The outbox's buffer goes out in parts, in order, and comes back behind the last.
#[test]
fn one_send_after_the_other() {
    for version in rustls::ALL_VERSIONS {
        let configs = configs(version);
        for shared in [0, 1, 5_000, 65_536, 300_000] {
            let mut pair = Pair::new(&configs);
            pair.settle(4096);
            let splices = [(10, shared), (10, 20), (900, 70_000)];
            let splices = splices.map(|(at, size)| Splice { at, bytes: Bytes::from(vec![size as u8; size]) });
            let buffer =
                SendBuffer { bytes: b"0123456789".repeat(100), splices: splices.into(), ..SendBuffer::default() };
            let (mut expected, total) = (Vec::new(), buffer.len());
            buffer.pieces(0, |piece| expected.extend_from_slice(piece));
            pair.server.give_plain(buffer);
            let mut sends = 0;
            loop {
                // What the client says meanwhile does not come between.
                pair.client.refresh_traffic_keys().ok();
                let said = pair.said();
                let (first, rest) = said.split_at(said.len() / 2);
                pair.receive(first).unwrap();
                let back = pair.answer(true);
                pair.receive(rest).unwrap();
                sends += 1;
                if back.is_some() {
                    break;
                }
                assert!(!pair.server.is_finished(true) && pair.server.is_sending_plain());
            }
            assert_eq!(sends, total.div_ceil(SEND_BYTES_MAX));
            assert!(pair.read == expected, "{total} bytes in {sends} sends");
            // Then the goodbye, once.
            assert!(pair.server.wants_send(true) && !pair.server.wants_send(false));
            pair.answer(true);
            assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
            assert!(pair.server.is_finished(true) && !pair.server.wants_send(true));
        }
    }
}

#[test]
fn the_end_of_the_clients_half() {
    for version in rustls::ALL_VERSIONS {
        let mut pair = Pair::new(&configs(version));
        pair.settle(4096);
        pair.client.writer().write_all(b"last").unwrap();
        pair.client.send_close_notify();
        let said = pair.said();
        pair.receive(&said).unwrap();
        assert!(pair.ended && pair.heard == b"last");
        pair.receive(b"what follows does not count").unwrap();
        assert!(pair.server.pending.is_empty());
        pair.server.give_plain(SendBuffer { bytes: b"answer".to_vec(), ..SendBuffer::default() });
        assert!(pair.answer(true).is_some());
        assert_eq!(pair.read, b"answer");
    }
}

/// Bytes that are spoilt, lost or repeated end in an error or in nothing, never in a panic, and never in plaintext that
/// was not said.
#[test]
fn spoilt_bytes() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    for version in rustls::ALL_VERSIONS {
        let mut configs = configs(version);
        let mut failed = 0;
        for round in 0..200 {
            configs.client.max_fragment_size = (round % 3 == 0).then_some(100);
            let mut pair = Pair::new(&configs);
            let mut spoils = random(6);
            let text = b"plain".repeat(50);
            for turn in 0..10 {
                if turn == 4 && !pair.client.is_handshaking() {
                    pair.client.writer().write_all(&text).ok();
                    pair.client.refresh_traffic_keys().ok();
                }
                let mut said = pair.said();
                if spoils == 0 && !said.is_empty() {
                    let at = random(said.len());
                    match random(3) {
                        0 => said[at] ^= 1 << random(8),
                        1 => drop(said.remove(at)),
                        _ => said.insert(at, said[at]),
                    }
                }
                spoils = spoils.wrapping_sub(1);
                let piece = 1 + random(200);
                let result = said.chunks(piece).try_for_each(|piece| pair.receive(piece));
                if pair.server.is_open() && !pair.server.is_sending_plain() {
                    pair.server.give_plain(SendBuffer { bytes: vec![1; 100], ..SendBuffer::default() });
                }
                let Ok(Some(sealed)) = pair.server.seal(turn == 9) else { continue };
                pair.server.sent();
                let mut bytes = &sealed.bytes[..];
                while !bytes.is_empty() && pair.client.read_tls(&mut bytes).is_ok_and(|read| read > 0) {
                    if pair.client.process_new_packets().is_err() {
                        break;
                    }
                }
                failed += usize::from(result.is_err());
            }
            assert!(text.starts_with(&pair.heard));
        }
        assert!(failed > 20, "{failed}");
    }
}
