//! A small MQTT client on a raw socket, for tests: it sends what it is told, right or wrong, and shows every packet that
//! comes back.

use crate::common::{Connection, PATIENCE};
use crate::wire::{self, Ack, ConnAck, Connect, DISCONNECT, PINGREQ, Packet, Properties, Publish, ack, hex};
use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

/// How long what must not come is waited for, where nothing that comes later can show its absence.
pub const PAUSE: Duration = Duration::from_millis(250);

/// Why there is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The server has closed the connection.
    Closed,
    /// Nothing came in time.
    Late,
}

pub struct Client {
    pub level: u8,
    pub id: String,
    pub connack: ConnAck,
    pub connection: Connection,
    /// The largest packet that this client takes.
    limit: usize,
    /// The largest topic alias that it takes.
    alias_maximum: u32,
    /// The length of the last packet.
    pub length: usize,
    /// What came while something else was waited for.
    early: VecDeque<Packet>,
    next_id: u16,
    aliases: HashMap<u32, String>,
}

impl Client {
    /// A TCP connection without a CONNECT.
    #[track_caller]
    pub fn raw(addr: SocketAddr, level: u8) -> Client {
        Self::on(Connection::open(addr), level)
    }

    pub fn on(connection: Connection, level: u8) -> Client {
        Client {
            level,
            id: String::new(),
            connack: ConnAck::default(),
            connection,
            limit: usize::MAX,
            alias_maximum: 0,
            length: 0,
            early: VecDeque::new(),
            next_id: 0,
            aliases: HashMap::new(),
        }
    }

    /// Connects; the error is what came instead of an acceptance.
    pub fn try_open(addr: SocketAddr, connect: &Connect) -> Result<Client, Result<ConnAck, Gone>> {
        let mut client = Self::on(Connection::try_open(addr).map_err(|_| Err(Gone::Closed))?, connect.level);
        client.try_connect(connect)?;
        Ok(client)
    }

    fn try_connect(&mut self, connect: &Connect) -> Result<(), Result<ConnAck, Gone>> {
        self.id = connect.id.clone();
        if let Some(bytes) = connect.properties.number(wire::id::MAXIMUM_PACKET) {
            self.limit = bytes as usize;
        }
        self.alias_maximum = connect.properties.number(wire::id::ALIAS_MAXIMUM).unwrap_or(0);
        self.try_send(&connect.bytes()).map_err(|_| Err(Gone::Closed))?;
        match self.read(PATIENCE) {
            Ok(Packet::ConnAck(connack)) if connack.code == 0 => {
                self.connack = connack;
                Ok(())
            }
            Ok(Packet::ConnAck(connack)) => Err(Ok(connack)),
            Ok(packet) => panic!("instead of CONNACK: {packet:?}"),
            Err(gone) => Err(Err(gone)),
        }
    }

    /// Connects, and is accepted.
    #[track_caller]
    pub fn open(addr: SocketAddr, connect: &Connect) -> Client {
        match Self::try_open(addr, connect) {
            Ok(client) => client,
            Err(Ok(connack)) => panic!("{} was refused: {connack:?}", connect.id),
            Err(Err(gone)) => panic!("{}: no CONNACK: {gone:?}", connect.id),
        }
    }

    /// A clean session.
    #[track_caller]
    pub fn clean(addr: SocketAddr, level: u8, id: &str) -> Client {
        Self::open(addr, &Connect::clean(level, id))
    }

    /// A session that goes on; whether it was there is checked.
    #[track_caller]
    pub fn lasting(addr: SocketAddr, level: u8, id: &str, present: bool) -> Client {
        let client = Self::open(addr, &Connect::lasting(level, id));
        assert_eq!(client.connack.present, present, "Session Present of {id}");
        client
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.connection.send(bytes);
    }

    /// For a server that may close meanwhile.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.connection.stream().write_all(bytes)
    }

    /// The next packet from the socket. One that no server may send is a panic.
    pub fn read(&mut self, within: Duration) -> Result<Packet, Gone> {
        self.connection.within(within);
        self.read_whole().map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Gone::Closed,
            ErrorKind::TimedOut => Gone::Late,
            _ => panic!("read: {e}"),
        })
    }

    fn read_whole(&mut self) -> std::io::Result<Packet> {
        let mut header = 2;
        let length = loop {
            let seen = self.connection.ahead(header)?;
            match wire::read_variable(&seen[1..]) {
                Ok(Some((length, _))) => break length,
                Ok(None) => header += 1,
                Err(why) => panic!("the server sent {}: {why}", hex(seen)),
            }
        };
        self.connection.ahead(header + length)?;
        let whole = self.connection.take(header + length)?;
        assert!(whole.len() <= self.limit, "{} bytes, the client takes {}: {}", whole.len(), self.limit, hex(&whole));
        self.length = whole.len();
        let packet = wire::decode(whole[0], &whole[header..], self.level);
        let mut packet = packet.unwrap_or_else(|why| panic!("the server sent {}: {why}", hex(&whole)));
        if let Packet::Publish(publish) = &mut packet {
            self.resolve(publish);
        }
        Ok(packet)
    }

    /// A topic alias is given its topic.
    fn resolve(&mut self, publish: &mut Publish) {
        let alias = publish.properties.number(wire::id::ALIAS);
        let maximum = self.alias_maximum;
        assert!(alias.is_none_or(|alias| (1..=maximum).contains(&alias)), "alias {alias:?} of at most {maximum}");
        match alias {
            Some(alias) if publish.topic.is_empty() => match self.aliases.get(&alias) {
                Some(topic) => publish.topic = topic.clone(),
                None => panic!("topic alias {alias} was never given a topic: {publish:?}"),
            },
            Some(alias) => drop(self.aliases.insert(alias, publish.topic.clone())),
            None => assert!(!publish.topic.is_empty(), "a PUBLISH without a topic: {publish:?}"),
        }
    }

    /// The next packet.
    pub fn next_within(&mut self, within: Duration) -> Result<Packet, Gone> {
        match self.early.pop_front() {
            Some(packet) => Ok(packet),
            None => self.read(within),
        }
    }

    #[track_caller]
    pub fn next(&mut self) -> Packet {
        self.next_within(PATIENCE).unwrap_or_else(|gone| panic!("{} (MQTT {}): {gone:?}", self.id, self.level))
    }

    /// The first packet that is wanted; others wait for [`Self::next`].
    #[track_caller]
    pub fn wait<T>(&mut self, what: &str, wanted: impl Fn(&Packet) -> Option<T>) -> T {
        if let Some(at) = self.early.iter().position(|packet| wanted(packet).is_some()) {
            let packet = self.early.remove(at).expect("it was just there");
            return wanted(&packet).expect("it was just wanted");
        }
        loop {
            match self.read(PATIENCE) {
                Ok(packet) => match wanted(&packet) {
                    Some(found) => return found,
                    None => self.early.push_back(packet),
                },
                Err(gone) => panic!("{} (MQTT {}): no {what}: {gone:?}; so far {:?}", self.id, self.level, self.early),
            }
        }
    }

    /// The next packet, which is a PUBLISH; it is not acknowledged.
    #[track_caller]
    pub fn message(&mut self) -> Publish {
        match self.next() {
            Packet::Publish(publish) => publish,
            other => panic!("instead of PUBLISH: {other:?}"),
        }
    }

    /// The next packet, which is a PUBLISH; it is acknowledged to the end.
    #[track_caller]
    pub fn take(&mut self) -> Publish {
        let publish = self.message();
        self.acknowledge(&publish);
        publish
    }

    /// The same after a crash of the server: a PUBREL that was answered just before it may come again.
    #[track_caller]
    pub fn take_after_crash(&mut self) -> Publish {
        loop {
            match self.next() {
                Packet::PubRel(release) => self.send(&ack(0x70, release.id)),
                Packet::Publish(publish) => {
                    self.acknowledge(&publish);
                    return publish;
                }
                other => panic!("instead of PUBLISH: {other:?}"),
            }
        }
    }

    /// The next `n` messages' payloads.
    #[track_caller]
    pub fn take_texts(&mut self, n: usize) -> Vec<String> {
        (0..n).map(|_| self.take().text()).collect()
    }

    /// All that QoS 1 or 2 asks for.
    #[track_caller]
    pub fn acknowledge(&mut self, publish: &Publish) {
        match publish.qos {
            1 => self.send(&ack(0x40, publish.id)),
            2 => {
                self.send(&ack(0x50, publish.id));
                let id = publish.id;
                self.wait("PUBREL", |packet| matches!(packet, Packet::PubRel(ack) if ack.id == id).then_some(()));
                self.send(&ack(0x70, publish.id));
            }
            _ => {}
        }
    }

    /// A packet identifier that this client does not use otherwise.
    pub fn new_id(&mut self) -> u16 {
        self.next_id = self.next_id % 60_000 + 1;
        self.next_id
    }

    #[track_caller]
    pub fn sub_ack(&mut self, id: u16) -> Ack {
        self.wait("SUBACK", |packet| match packet {
            Packet::SubAck(ack) if ack.id == id => Some(ack.clone()),
            _ => None,
        })
    }

    /// Subscribes and gives the codes.
    #[track_caller]
    pub fn try_subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.new_id();
        self.send(&wire::subscribe(self.level, id, &Properties::default(), filters));
        self.sub_ack(id).codes
    }

    /// Subscribes to a filter and is granted the QoS (the lowest two bits of the options).
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        assert_eq!(self.try_subscribe(&[(filter, options)]), [options & 3], "SUBACK for {filter}");
    }

    /// Subscribes with a subscription identifier.
    #[track_caller]
    pub fn subscribe_as(&mut self, number: u32, filter: &str, options: u8) {
        let id = self.new_id();
        let properties = Properties(vec![(wire::id::SUBSCRIPTION, wire::Value::Variable(number))]);
        self.send(&wire::subscribe(self.level, id, &properties, &[(filter, options)]));
        assert_eq!(self.sub_ack(id).codes, [options & 3], "SUBACK for {filter}");
    }

    #[track_caller]
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Ack {
        let id = self.new_id();
        self.send(&wire::unsubscribe(self.level, id, filters));
        self.wait("UNSUBACK", |packet| match packet {
            Packet::UnsubAck(ack) if ack.id == id => Some(ack.clone()),
            _ => None,
        })
    }

    /// The acknowledgement of this type (4: PUBACK, 5: PUBREC, 7: PUBCOMP) and identifier.
    #[track_caller]
    pub fn ack(&mut self, kind: u8, id: u16) -> Ack {
        self.wait(&format!("acknowledgement {kind} of {id}"), |packet| match (kind, packet) {
            (4, Packet::PubAck(ack)) | (5, Packet::PubRec(ack)) | (7, Packet::PubComp(ack)) if ack.id == id => {
                Some(ack.clone())
            }
            _ => None,
        })
    }

    /// Sends a PUBLISH; the packet identifier, if there is one.
    #[track_caller]
    pub fn start(&mut self, publish: &Publish) -> u16 {
        let mut publish = publish.clone();
        if publish.qos > 0 && publish.id == 0 {
            publish.id = self.new_id();
        }
        self.send(&publish.bytes(self.level));
        publish.id
    }

    /// Publishes with all that its QoS asks for; the first acknowledgement's code.
    #[track_caller]
    pub fn try_publish(&mut self, publish: &Publish) -> u8 {
        let id = self.start(publish);
        match publish.qos {
            1 => self.ack(4, id).code(),
            2 => {
                let code = self.ack(5, id).code();
                if code < 0x80 {
                    self.send(&ack(0x62, id));
                    assert_eq!(self.ack(7, id).code(), 0, "PUBCOMP");
                }
                code
            }
            _ => 0,
        }
    }

    /// Publishes, and the server takes it. After QoS 0 a PINGRESP shows that it has been read.
    #[track_caller]
    pub fn publish(&mut self, publish: &Publish) {
        let code = self.try_publish(publish);
        assert!(code < 0x80, "PUBLISH to {}: {code:#04x}", publish.topic);
        if publish.qos == 0 {
            self.ping();
        }
    }

    /// What was sent before has been read.
    #[track_caller]
    pub fn ping(&mut self) {
        self.send(&PINGREQ);
        self.wait("PINGRESP", |packet| matches!(packet, Packet::PingResp).then_some(()));
    }

    /// Nothing has come and nothing comes, but the answer to a PINGREQ after a pause.
    #[track_caller]
    pub fn quiet(&mut self) {
        if let Ok(packet) = self.next_within(PAUSE) {
            panic!("{}: nothing was to come, but {packet:?}", self.id);
        }
        self.send(&PINGREQ);
        assert_eq!(self.next(), Packet::PingResp, "{}", self.id);
    }

    /// Reads until the server closes: what came before that.
    #[track_caller]
    pub fn closed(&mut self) -> Vec<Packet> {
        let mut seen: Vec<Packet> = self.early.drain(..).collect();
        let end = Instant::now() + PATIENCE;
        loop {
            match self.read(end.saturating_duration_since(Instant::now())) {
                Ok(packet) => seen.push(packet),
                Err(Gone::Closed) => return seen,
                Err(Gone::Late) => panic!("{} (MQTT {}): not closed; so far {seen:?}", self.id, self.level),
            }
        }
    }

    /// Reads until the server closes, and nothing but the goodbye of the version comes: in MQTT 5 a DISCONNECT, whose
    /// code is given, in 3.1.1 nothing.
    #[track_caller]
    pub fn ended(&mut self) -> Option<u8> {
        match (self.level, &self.closed()[..]) {
            (5, [Packet::Disconnect { code, .. }]) => Some(*code),
            (4, []) => None,
            (_, seen) => panic!("{} (MQTT {}) ended with {seen:?}", self.id, self.level),
        }
    }

    /// The same for an end with a known code.
    #[track_caller]
    pub fn ended_with(&mut self, code: u8) {
        let expected = (self.level == 5).then_some(code);
        assert_eq!(self.ended(), expected, "{} (MQTT {}): reason {code:#04x} is right", self.id, self.level);
    }

    /// Says DISCONNECT and waits until the server has closed.
    #[track_caller]
    pub fn end(mut self) {
        self.send(&DISCONNECT);
        for packet in self.closed() {
            assert!(!matches!(packet, Packet::Disconnect { .. }), "the server answered DISCONNECT: {packet:?}");
        }
    }

    /// Closes the connection without a word.
    pub fn cut(self) {
        let _ = self.connection.stream().shutdown(Shutdown::Both);
    }
}
