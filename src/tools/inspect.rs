//! `tablecast inspect`: what stands where in a data directory, as a table or as lines of JSON. It judges nothing but
//! checksums (`verify` does) and shows what can be read of damaged files too. Also while a server runs.

use super::ToolError;
use super::data::{Data, date_text, key_text, print, version_text};
use super::salvage::{Batch, Numbered, Part, parts, records};
use super::snapshot::Snapshot;
use crate::protocol::format::{Format, encode};
use clap::Args;
use serde_json::{Value, json};
use shards::log::format::{HEADER_BYTES, RecordKind, SegmentHeader};
use shards::log::index::SegmentIndex;
use shards::log::mark;
use shards::storage::FileName;
use std::path::Path;

/// What is to be shown.
#[derive(Args, Debug)]
pub struct Asked {
    /// Only this shard
    #[arg(long, value_name = "N")]
    shard: Option<u16>,
    /// Only the segments of this number, with their batches
    #[arg(long, value_name = "N")]
    segment: Option<u32>,
    /// Show the records
    #[arg(long)]
    records: bool,
    /// Print lines of JSON
    #[arg(long)]
    json: bool,
}

/// The exit code.
pub fn run(path: &Path, asked: &Asked) -> Result<u8, ToolError> {
    let data = Data::open(path)?;
    let shards = data.manifest.shards;
    if let Some(shard) = asked.shard.filter(|shard| *shard >= shards) {
        let last = shards - 1;
        return Err(ToolError::Refused(format!("--shard {shard}: the data directory has shards 0 to {last}")));
    }
    let out = Output { data: &data, asked };
    out.manifest();
    for shard in (0..shards).filter(|shard| asked.shard.is_none_or(|only| only == *shard)) {
        let snapshot = Snapshot::take(&data.shard_path(shard)).map_err(ToolError::io(&data.shard_path(shard)))?;
        out.shard(shard, &snapshot);
    }
    Ok(0)
}

struct Output<'a> {
    data: &'a Data,
    asked: &'a Asked,
}

impl Output<'_> {
    fn manifest(&self) {
        let manifest = &self.data.manifest;
        let tables: Vec<String> =
            (0..manifest.tables.len()).map(|at| self.data.table_name(shards::schema::TableId(at as u16))).collect();
        if self.asked.json {
            let path = self.data.path.display().to_string();
            let (format, shards, layout) = (manifest.format, manifest.shards, manifest.layout);
            let line = json!({
                "type": "manifest", "data": path, "format": format, "shards": shards, "layout": layout, "tables": tables,
            });
            return print(&line.to_string());
        }
        print(&format!("{}: format {}, {} shards", self.data.path.display(), manifest.format, manifest.shards));
        for (number, table) in tables.iter().enumerate() {
            print(&format!("table {number}: {table}"));
        }
    }

    fn shard(&self, shard: u16, snapshot: &Snapshot) {
        let name = self.data.shard_name(shard);
        let durable_seq = snapshot.bytes(FileName::Mark).map(|bytes| mark::decode(bytes, shard).durable_seq);
        if self.asked.json {
            let line = json!({ "type": "shard", "shard": shard, "directory": name, "mark": durable_seq });
            print(&line.to_string());
        } else {
            let mark = durable_seq.map_or("no mark file".to_owned(), |seq| format!("marked durable up to {seq}"));
            print(&format!("\nshard {shard} in {name}: {mark}"));
            print(
                "SEGMENT        KIND       EPOCH        FIRST SEQ         NEXT SEQ  BATCHES    RECORDS       BYTES  INDEX",
            );
        }
        for number in snapshot.segments().filter(|number| self.asked.segment.is_none_or(|only| only == *number)) {
            self.segment(shard, snapshot, number);
        }
    }

    fn segment(&self, shard: u16, snapshot: &Snapshot, number: u32) {
        let bytes = snapshot.bytes(FileName::Segment(number)).unwrap_or_default();
        let header = SegmentHeader::decode(bytes);
        let start = if header.is_some() { HEADER_BYTES } else { 0 };
        let all = || parts(bytes, start, header.map_or(shard, |header| header.shard), header.map(|header| header.salt));
        let (mut batches, mut count, mut next_seq) = (0, 0, header.map(|header| header.first_seq));
        for part in all() {
            if let Part::Batch(batch) = part {
                batches += 1;
                for record in records(batch.body, batch.header.first_seq) {
                    count += 1;
                    next_seq = next_seq.max(Some(record.seq + 1));
                }
            }
        }
        next_seq = header.and_then(|header| header.rewritten).map(|rewritten| rewritten.next_seq).or(next_seq);
        let kind = match header {
            Some(header) if header.rewritten.is_some() => "rewritten",
            Some(_) => "appended",
            None if batches == 0 && bytes.iter().all(|byte| *byte == 0) => "not begun",
            None => "no header",
        };
        let index = match snapshot.share(FileName::Index(number)).map(SegmentIndex::decode) {
            None => "absent",
            Some(Some(_)) => "present",
            Some(None) => "damaged",
        };
        let (epoch, first_seq) = (header.map(|it| it.epoch), header.map(|it| it.first_seq));
        let file = FileName::Segment(number);
        if self.asked.json {
            let line = json!({
                "type": "segment", "shard": shard, "segment": number, "file": file.to_string(), "kind": kind,
                "epoch": epoch, "first_seq": first_seq, "next_seq": next_seq, "batches": batches, "records": count,
                "bytes": bytes.len(), "index": index,
            });
            print(&line.to_string());
        } else {
            let text = |number: Option<u64>| number.map_or("?".to_owned(), |number| number.to_string());
            print(&format!(
                "{file}  {kind:9}  {:>5}  {:>15}  {:>15}  {batches:>7}  {count:>9}  {:>10}  {index}",
                text(epoch.map(u64::from)),
                text(first_seq),
                text(next_seq),
                bytes.len()
            ));
        }
        if self.asked.segment.is_none() && !self.asked.records {
            return;
        }
        let mut chain = header.map(|header| header.previous_checksum);
        for part in all() {
            match part {
                Part::Unreadable(range) => self.unreadable(shard, number, range),
                Part::Batch(batch) => {
                    let follows = chain.is_none_or(|checksum| checksum == batch.header.previous_checksum);
                    chain = Some(batch.checksum);
                    self.batch(shard, number, &batch, follows);
                }
            }
        }
    }

    fn unreadable(&self, shard: u16, segment: u32, range: std::ops::Range<usize>) {
        if self.asked.json {
            let line = json!({
                "type": "unreadable", "shard": shard, "segment": segment, "offset": range.start, "end": range.end,
            });
            print(&line.to_string());
        } else {
            print(&format!("  offset {}: cannot be read up to {}", range.start, range.end));
        }
    }

    fn batch(&self, shard: u16, segment: u32, batch: &Batch<'_>, follows: bool) {
        let header = &batch.header;
        if self.asked.json {
            let line = json!({
                "type": "batch", "shard": shard, "segment": segment, "offset": batch.at, "seq": header.first_seq,
                "records": header.count, "durable_seq": header.durable_seq, "epoch": header.epoch,
                "bytes": header.body_bytes, "sound": batch.is_sound, "follows": follows,
            });
            print(&line.to_string());
        } else {
            print(&format!(
                "  batch at {}: seq {}, {} records, durable {}, epoch {}, {} bytes, body {}{}",
                batch.at,
                header.first_seq,
                header.count,
                header.durable_seq,
                header.epoch,
                header.body_bytes,
                if batch.is_sound { "sound" } else { "damaged" },
                if follows { "" } else { ", does not follow the batch before" }
            ));
        }
        if self.asked.records {
            for record in records(batch.body, header.first_seq) {
                let offset = batch.at + HEADER_BYTES + record.offset;
                self.record(shard, segment, offset, &record);
            }
        }
    }

    fn record(&self, shard: u16, segment: u32, offset: usize, numbered: &Numbered<'_>) {
        let record = &numbered.record;
        let kind = match record.kind {
            RecordKind::Put => "put",
            RecordKind::Delete => "delete",
            RecordKind::Message => "message",
        };
        let table = self.data.table_name(record.table);
        let (key, hex) = key_text(record.key);
        let expires = record.terms.expires_ms.map(|at| date_text(at.saturating_mul(1000)));
        let mut document = Vec::new();
        if !record.document.is_empty() {
            encode(Format::Json, record.document, &mut document);
        }
        let version = version_text(record.version);
        if self.asked.json {
            let document: Value = serde_json::from_slice(&document).unwrap_or(Value::Null);
            let line = json!({
                "type": "record", "shard": shard, "segment": segment, "offset": offset, "seq": numbered.seq,
                "kind": kind, "table": table, "key": key, "key_hex": hex, "version": version, "expires": expires,
                "bytes": numbered.bytes.len(), "document": document,
            });
            print(&line.to_string());
        } else {
            let hex = hex.map_or(String::new(), |hex| format!(" (key {hex})"));
            let expires = expires.map_or(String::new(), |at| format!(" expires {at}"));
            let document = String::from_utf8_lossy(&document).into_owned();
            let seq = numbered.seq;
            print(&format!("    {seq} at {offset}: {kind} {table}/{key}{hex} {version}{expires} {document}"));
        }
    }
}
