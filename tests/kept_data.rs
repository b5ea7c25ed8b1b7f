//! Promise 21: old data opens. For every format that was released a data directory is kept here, with what a server of
//! that time said of it.

mod common;

use common::{Options, Server, get, normal};
use std::path::Path;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("make a folder");
    for entry in std::fs::read_dir(from).expect("read a folder") {
        let entry = entry.expect("read a folder");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy a file");
        }
    }
}

#[test]
fn data_of_every_format_opens_with_any_number_of_shards() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kept");
    let mut formats = 0;
    for entry in std::fs::read_dir(&kept).expect("tests/kept") {
        let format = entry.expect("tests/kept").path();
        if !format.is_dir() {
            continue;
        }
        formats += 1;
        for shards in [2, 1, 3] {
            let folder = tempfile::tempdir().expect("a folder");
            let data = folder.path().join("data");
            copy(&format.join("data"), &data);
            let options = Options { app: Some(format.join("app")), data: Some(data), ..Options::default() };
            let mut server = Server::start(options.shards(shards));
            for table in ["Things", "Brief", "Tickets", "Loose"] {
                let expected = std::fs::read(format.join(format!("expected/{table}.json"))).expect("what was there");
                let expected: serde_json::Value = serde_json::from_slice(&expected).expect("JSON");
                let found = get(server.http(), &format!("/{table}/")).json();
                assert_eq!(normal(found), normal(expected), "{}: {table} with {shards} shards", format.display());
            }
            let opaque = get(server.http(), "/any/topic/at/all");
            assert_eq!(opaque.body, b"not JSON");
            assert!(server.terminate().success());
        }
    }
    assert!(formats > 0);
}

#[test]
fn data_of_a_format_that_is_not_known_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("manifest.json"), r#"{"format":1,"shards":2,"tables":[]}"#).expect("write");
    let options = Options { data: Some(folder.path().to_owned()), ..Options::default() };
    let refused = Server::try_start(options).expect_err("refused");
    assert!(refused.contains("has format 1; this version reads formats 2 to 3"), "{refused}");
}
