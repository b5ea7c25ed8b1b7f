//! Any bytes in any pieces, any order of turns, any slowness of disks, and crashes: no session panics, no outbox grows
//! beyond its bound, and what is sent is MQTT. The world is that of `tests/session_model`.
#![no_main]

#[path = "../../session_model/world.rs"]
#[allow(dead_code)]
mod world;

#[path = "../../mqtt_clauses/wire.rs"]
#[allow(dead_code)]
mod wire;

use libfuzzer_sys::fuzz_target;
use shards::limits::{Limits, OUTBOX_RESERVE_BYTES, SegmentSizes};
use std::collections::VecDeque;
use wire::{Connect, Properties, Publish, Value, Will, id};
use world::{Chance, World};

const PACKET_BYTES_MAX: usize = 8 << 10;
const OUTBOX_BYTES_MAX: usize = 16 << 10;
const CLIENTS: usize = 3;
const TOPICS: [&str; 4] = ["a/b", "a/c", "d", "s/x"];
const FILTERS: [&str; 6] = ["a/#", "+/b", "d", "#", "$share/g/s/x", "a/+/#"];

/// A connection: its line, the version its client speaks, and what has come and is not whole.
struct Client {
    line: usize,
    level: u8,
    rx: Vec<u8>,
}

/// What has come must be packets of a server.
fn read(world: &mut World, client: &mut Client) {
    client.rx.extend(world.take(client.line));
    while let Some(Some((length, bytes))) = client.rx.get(1..).map(|rest| wire::read_variable(rest).expect("a length"))
    {
        if client.rx.len() < 1 + bytes + length {
            return;
        }
        let packet: Vec<u8> = client.rx.drain(..1 + bytes + length).collect();
        let read = |level| wire::decode(packet[0], &packet[1 + bytes..], level);
        // Bytes that are no CONNECT may have named another version.
        read(client.level).or_else(|_| read(9 - client.level)).expect("a packet of a server");
    }
}

fn packet(chance: &mut Chance, level: u8, name: &str) -> Vec<u8> {
    let topic = TOPICS[chance.below(TOPICS.len())];
    let packet_id = 1 + chance.below(6) as u16;
    match chance.below(12) {
        0 => {
            let mut connect = Connect { clean: chance.one_in(3), ..Connect::clean(level, name) };
            if level == 5 {
                connect = connect.with(id::SESSION_EXPIRY, Value::Four([0, 2, 3600][chance.below(3)]));
                connect = connect.with(id::RECEIVE_MAXIMUM, Value::Two(1 + chance.below(4) as u16));
                connect = connect.with(id::ALIAS_MAXIMUM, Value::Two(chance.below(3) as u16));
            }
            if chance.one_in(3) {
                connect = connect.will(Will::new(topic, "will").qos(chance.below(3) as u8));
            }
            connect.bytes()
        }
        1..4 => {
            let payload = vec![b'x'; [1, 100, 5000][chance.below(3)]];
            let publish = Publish { retain: chance.one_in(4), dup: false, ..Publish::new(topic, payload) };
            match chance.below(3) as u8 {
                0 => publish.bytes(level),
                qos => Publish { dup: chance.one_in(3), ..publish.qos(qos).id(packet_id) }.bytes(level),
            }
        }
        4 | 5 => {
            let options = chance.below(if level == 5 { 48 } else { 3 }) as u8;
            let filter = FILTERS[chance.below(FILTERS.len())];
            wire::subscribe(level, packet_id, &Properties::default(), &[(filter, options)])
        }
        6 => wire::unsubscribe(level, packet_id, &[FILTERS[chance.below(FILTERS.len())]]),
        7..10 => wire::ack([0x40, 0x50, 0x62, 0x70][chance.below(4)], packet_id),
        10 => [wire::PINGREQ, wire::DISCONNECT][chance.below(2)].to_vec(),
        _ => (0..1 + chance.below(16)).map(|_| chance.below(256) as u8).collect(),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let segments = SegmentSizes { first: 4 * PACKET_BYTES_MAX, max: 16 * PACKET_BYTES_MAX, ..SegmentSizes::default() };
    let limits = Limits {
        packet_bytes_max: PACKET_BYTES_MAX,
        outbox_bytes_max: OUTBOX_BYTES_MAX,
        segments,
        ..Limits::default()
    };
    let mut chance = Chance::Bytes(VecDeque::from(bytes.to_vec()));
    let shards = 1 + chance.below(2);
    let mut world = World::new(shards, chance, limits);
    let mut clients: Vec<Option<Client>> = (0..CLIENTS).map(|_| None).collect();
    while !world.chance.is_empty() {
        let at = world.chance.below(CLIENTS);
        match (world.chance.below(16), &mut clients[at]) {
            (0, Some(client)) => {
                let is_reset = world.chance.one_in(2);
                world.hang_up(client.line, is_reset);
                clients[at] = None;
            }
            (1, _) if world.chance.one_in(16) => {
                world.crash();
                clients.iter_mut().flatten().for_each(|client| read(&mut world, client));
                clients.iter_mut().for_each(|client| *client = None);
            }
            (2, _) => world.pass(1_500_000),
            (3..9, _) => {
                let shard = world.chance.below(shards);
                world.turn(shard);
            }
            (_, Some(client)) => {
                read(&mut world, client);
                let bytes = packet(&mut world.chance, client.level, ["a", "b"][at % 2]);
                world.send(client.line, &bytes);
            }
            (_, place) => {
                let (shard, level) = (world.chance.below(shards), 4 + world.chance.below(2) as u8);
                *place = Some(Client { line: world.connect(shard), level, rx: Vec::new() });
            }
        }
    }
    world.settle();
    clients.iter_mut().flatten().for_each(|client| read(&mut world, client));
    // One packet may stand behind the bound, and the last words.
    let bound = OUTBOX_BYTES_MAX + 2 * PACKET_BYTES_MAX + OUTBOX_RESERVE_BYTES;
    assert!(world.outbox_bytes_most <= bound, "{} bytes wait in an outbox", world.outbox_bytes_most);
});
