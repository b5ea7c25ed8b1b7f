//! Promise: an offline session is its record in the log and nothing else.

mod common;

use common::{START_US, World, bytes_of};
use shards::client::{Inflight, Phase, Progress, Source};
use shards::log::Position;
use shards::session::{StoredSession, StoredSubscription, sessions_table};

const SESSIONS: u64 = 100_000;
const MAX_BYTES: u64 = 100 << 20;

/// Of the process, as the kernel sees it, without pages that are only cached.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux says so");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn session(number: u64) -> StoredSession {
    let subscription = |topic: &str| StoredSubscription {
        filter: format!("building-7/floor-{}/sensor-{number}/{topic}", number % 30).into(),
        qos: 1,
        no_local: false,
        retain_as_published: false,
        identifier: None,
        is_unfinished: false,
        format: 0,
        since: None,
        query: None,
    };
    let position = Position { epoch: 3, seq: 1_000_000 + number };
    let inflight = |packet_id| Inflight {
        packet_id,
        phase: Phase::AtLeastOnce,
        shared: None,
        source: Source::Event { shard: 0, position, path: 0 },
    };
    StoredSession {
        number,
        expiry_s: Some(86_400),
        ended_ms: Some(START_US / 1000),
        will: None,
        subscriptions: ["commands", "settings/#", "+/broadcast"].map(subscription).into(),
        progress: Progress {
            positions: vec![position; 4],
            inflight: vec![inflight(1), inflight(2)],
            ..Progress::default()
        },
    }
}

#[test]
fn a_hundred_thousand_offline_sessions_cost_less_than_100_mib() {
    let folder = tempfile::tempdir().unwrap();
    let before = anonymous_bytes();
    for role in ["stored", "opened again"] {
        let mut world = World::open(folder.path(), &sessions_table(), START_US);
        if role == "stored" {
            for first in (0..SESSIONS).step_by(5_000) {
                for number in first..first + 5_000 {
                    let (client_id, own) = (format!("device-{number:08}"), session(number));
                    let expires_ms = own.expires_ms(START_US / 1000);
                    world.shard.save_session(&client_id, &own, expires_ms, None);
                }
                world.turn(10_000, []);
            }
        }
        (0..2_000).for_each(|_| world.turn(1_000, [])); // those that were found at start are looked at
        assert_eq!(world.shard.table(common::TABLE).len() as u64, SESSIONS);
        let stored = world.shard.peek(common::TABLE, b"device-00000007").unwrap().expect("it is there");
        assert_eq!(StoredSession::decode(&stored.document), Some(session(7)));
        let bytes = anonymous_bytes() - before;
        println!("{SESSIONS} sessions, {role}: {} bytes of memory each, {} in files", bytes / SESSIONS, {
            bytes_of(folder.path(), ".log") / SESSIONS
        });
        assert!(bytes < MAX_BYTES, "{role}: {bytes} bytes");
    }
    // And all of them end by themselves.
    let mut world = World::open(folder.path(), &sessions_table(), START_US + 2 * 86_400_000_000);
    (0..500).for_each(|_| world.turn(1_000, []));
    assert!(world.shard.table(common::TABLE).is_empty());
}
