//! The REST interface beyond single records in JSON: conditions on writes, what answers are written as and how they are
//! compressed, many records by one request, and what the server says of itself.

#[path = "../common/mod.rs"]
mod common;

mod bulk;
mod idempotency;
mod joins;
mod preconditions;
mod representations;

use common::{Options, Server};
use std::process::Command;
use tempfile::TempDir;

const SCHEMA: &str = r#"
"""
What a shop sells.
"""
type Goods @table @export {
  id: ID @primaryKey
  "As on the label."
  name: String! @indexed
  price: Float
  count: Int
  sold: Boolean
  since: Date
  tags: [String]
  size: Size
}

type Size {
  width: Int
  height: Int
}

type Numbered @table @export {
  id: Long @primaryKey
  text: String
}

type Free @table @export {
  id: ID @primaryKey
}

type Brand @table @export {
  id: ID @primaryKey
  name: String @indexed
  country: Int
  land: Country @relationship(from: country)
  products: [Product] @relationship(to: brandId)
}

type Country @table @export {
  id: Long @primaryKey
  name: String
  brands: [Brand] @relationship(to: "country")
}

type Product @table @export {
  id: ID @primaryKey
  name: String
  price: Int @indexed
  brandId: ID @indexed
  brand: Brand @relationship(from: brandId)
  partIds: [ID]
  parts: [Product] @relationship(from: partIds)
  partOf: [Product] @relationship(to: partIds)
}
"#;

fn start(shards: usize) -> (TempDir, Server) {
    let dir = TempDir::with_prefix("tablecast-rest-").expect("make a folder");
    common::server::write_app(dir.path(), SCHEMA);
    let app = Some(dir.path().to_owned());
    let server = Server::start(Options { app, ..Options::default() }.shards(shards));
    (dir, server)
}

/// What curl prints.
fn curl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("curl").args(["--silent", "--show-error"]).args(arguments).output().expect("run curl");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
