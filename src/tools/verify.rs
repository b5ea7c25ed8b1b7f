//! `tablecast verify`: reads everything and changes nothing. Also while a server runs.

use super::ToolError;
use super::data::{Data, EXIT_DAMAGED, counted, print};
use super::examine::{Examined, Problem, Role};
use crate::progress::Shown;
use serde_json::{Value, json};
use shards::progress::Progress;
use shards::storage::FileName;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The exit code.
pub fn run(path: &Path, as_json: bool) -> Result<u8, ToolError> {
    let data = Data::open(path)?;
    let shards = examine_all(&data)?;
    let is_damaged = is_damaged(&shards);
    if as_json {
        let all: Vec<Value> = (0..).zip(&shards).map(|(shard, it)| shard_json(&data, shard, it.as_ref())).collect();
        let status = if is_damaged { "damaged" } else { "ok" };
        let path = data.path.display().to_string();
        print(&json!({ "data": path, "format": data.manifest.format, "status": status, "shards": all }).to_string());
    } else {
        (0..).zip(&shards).for_each(|(shard, it)| print_shard(&data, shard, it.as_ref()));
    }
    Ok(if is_damaged { EXIT_DAMAGED } else { 0 })
}

/// All shards, in order. `None`: the directory of the shard is missing.
pub fn examine_all(data: &Data) -> Result<Vec<Option<Examined>>, ToolError> {
    let progress = Arc::new(Progress::default());
    let _shown = Shown::start("reading the log", progress.clone());
    let read = |shard| match Examined::read(&data.shard_path(shard), shard, &progress) {
        Ok(examined) => Ok(Some(examined)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ToolError::Io(data.shard_path(shard), error)),
    };
    (0..data.manifest.shards).map(read).collect()
}

/// A directory that is missing is no damage where no shard has got as far as a segment.
pub fn is_damaged(shards: &[Option<Examined>]) -> bool {
    let is_used = shards.iter().flatten().any(|shard| !shard.segments.is_empty());
    shards.iter().any(|shard| shard.as_ref().map_or(is_used, Examined::is_damaged))
}

/// `events 3 to 9 (at most 7 records)`.
pub fn lost_text(lost: &Range<u64>) -> String {
    let count = lost.end - lost.start;
    match count {
        1 => format!("event {}", lost.start),
        _ => format!("events {} to {} (at most {})", lost.start, lost.end - 1, counted(count, "record")),
    }
}

/// `shard-00/00000002.log, offset 64: what is wrong`.
pub fn problem_text(data: &Data, shard: u16, problem: &Problem) -> String {
    let lost = problem.lost.as_ref().map_or(String::new(), |lost| format!("; lost: {}", lost_text(lost)));
    let Problem { file, offset, what, .. } = problem;
    format!("{}/{file}, offset {offset}: {what}{lost}", data.shard_name(shard))
}

fn verdict(examined: &Examined) -> &'static str {
    match &examined.verdict {
        _ if examined.is_damaged() => "damaged",
        Ok(None) => "clean",
        Ok(Some(_)) => "clean but for a torn tail",
        Err(_) => "damaged",
    }
}

fn sound_segments(examined: &Examined) -> u64 {
    examined.segments.iter().filter(|segment| segment.role == Role::Sound).count() as u64
}

fn print_shard(data: &Data, shard: u16, examined: Option<&Examined>) {
    let name = data.shard_name(shard);
    let Some(examined) = examined else { return print(&format!("shard {shard}: damaged\n  {name} is missing")) };
    let (segments, records) = (sound_segments(examined), examined.records());
    print(&format!(
        "shard {shard}: {}; {}, {}, events up to {}",
        verdict(examined),
        counted(segments, "sound segment"),
        counted(records, "record"),
        examined.next_seq - 1
    ));
    match &examined.verdict {
        Ok(None) => {}
        Ok(Some(place)) => print(&format!(
            "  {name}/{}, offset {}: what follows was not finished and never acknowledged; a start cuts it off",
            FileName::Segment(place.segment),
            place.offset
        )),
        Err(error) => print(&format!("  a start says: {error}")),
    }
    for problem in &examined.problems {
        print(&format!("  {}", problem_text(data, shard, problem)));
    }
    for note in &examined.notes {
        print(&format!("  {name}: {note}"));
    }
}

fn range_json(range: &Range<u64>) -> Value {
    json!({ "first": range.start, "last": range.end - 1, "records_at_most": range.end - range.start })
}

fn shard_json(data: &Data, shard: u16, examined: Option<&Examined>) -> Value {
    let name = data.shard_name(shard);
    let Some(examined) = examined else {
        return json!({ "shard": shard, "directory": name, "status": "missing" });
    };
    let status = match &examined.verdict {
        _ if examined.is_damaged() => "damaged",
        Ok(Some(_)) => "torn tail",
        _ => "clean",
    };
    let tail = examined.verdict.as_ref().ok().and_then(|cut| *cut);
    let tail = tail.map(|at| json!({ "file": FileName::Segment(at.segment).to_string(), "offset": at.offset }));
    let problem = |problem: &Problem| {
        let lost = problem.lost.as_ref().map(range_json);
        json!({ "file": format!("{name}/{}", problem.file), "offset": problem.offset, "what": problem.what, "lost": lost })
    };
    json!({
        "shard": shard,
        "directory": name,
        "status": status,
        "error": examined.verdict.as_ref().err().map(ToString::to_string),
        "torn_tail": tail,
        "segments": sound_segments(examined),
        "records": examined.records(),
        "next_seq": examined.next_seq,
        "durable_seq": examined.durable_seq,
        "problems": examined.problems.iter().map(problem).collect::<Vec<_>>(),
        "lost": examined.lost().map(range_json).collect::<Vec<_>>(),
        "notes": examined.notes,
    })
}
