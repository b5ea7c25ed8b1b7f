//! Another number of shards: the data directory is rewritten at start, and every record is there. Killed in the middle
//! of it, the old layout is intact.

mod common;

use common::wire::{Mqtt, publish};
use common::{Options, Server, get};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const RECORDS: usize = 20_000;

fn fill(server: &Server) {
    let mut mqtt = Mqtt::open(server.mqtt(), 4, "writer");
    for from in (0..RECORDS).step_by(500) {
        let mut batch = Vec::new();
        for number in from..from + 500 {
            let payload = format!(r#"{{"n":{number},"pad":"{}"}}"#, "x".repeat(300 + number % 97));
            let topic = format!("Sensors/key-{}", number * 7 % RECORDS);
            batch.extend(publish(4, &topic, payload.as_bytes(), (1, true), (number - from + 1) as u16));
        }
        std::io::Write::write_all(&mut mqtt.connection.stream(), &batch).expect("send");
        for _ in 0..500 {
            assert_eq!(mqtt.next().expect("PUBACK").0, 0x40);
        }
    }
}

fn folders(server: &Server) -> Vec<String> {
    let entries = std::fs::read_dir(server.data()).expect("the data directory");
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("shard-"));
    names.sort();
    names
}

#[test]
fn another_number_of_shards_keeps_every_record_even_if_killed_in_the_middle() {
    let mut server = Server::start(Options::default().shards(2));
    fill(&server);
    let before = get(server.http(), "/Sensors/");
    assert_eq!(before.json().as_array().expect("an array").len(), RECORDS);
    let id = get(server.http(), "/Sensors/key-7").header("etag").expect("ETag").to_owned();
    assert!(server.terminate().success());

    let mut interrupted = 0;
    for round in 0..8u64 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tablecast"))
            .env_remove("TABLECAST_TEST_IO")
            .args(["run", &server.app().display().to_string(), "--data", &server.data().display().to_string()])
            .args(["--shards", "3", "--http", "127.0.0.1:0", "--mqtt", "off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start");
        // As soon as the new layout is begun, or a little later.
        let end = Instant::now() + Duration::from_secs(5);
        while folders(&server).len() <= 2 && Instant::now() < end {}
        std::thread::sleep(Duration::from_millis(3 * round));
        child.kill().expect("kill");
        child.wait().expect("wait");
        let found = folders(&server);
        if !found.contains(&"shard-00".to_owned()) {
            break; // it was faster
        }
        interrupted += usize::from(found.len() > 2);
    }
    assert!(interrupted > 0, "never killed in the middle");
    for shards in [3, 1, 4] {
        server.options_mut().shards = shards;
        server.restart();
        assert_eq!(folders(&server).len(), shards, "the old layout is gone: {:?}", folders(&server));
        let after = get(server.http(), "/Sensors/");
        assert!(after.body == before.body, "{shards} shards: another content");
        assert_eq!(get(server.http(), "/Sensors/key-7").header("etag"), Some(&*id), "versions are kept");
    }
    // It goes on as before.
    let mut mqtt = Mqtt::open(server.mqtt(), 4, "writer");
    mqtt.put("Sensors/key-7", b"{\"n\":-1}", 1);
    assert_eq!(get(server.http(), "/Sensors/key-7").json()["n"], -1);
}
