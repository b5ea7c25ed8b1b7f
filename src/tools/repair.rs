//! `tablecast repair`: makes damaged shards usable again with everything that can be read, and says what is lost.
//!
//! Each gap of a shard's log ([`super::examine`]) is closed by a rewritten segment with what can be salvaged; its header
//! gives it the seqs of the gap, and the checksum that the segment behind it expects. The files that are taken out of
//! the log are kept in `damaged-<UTC time>/` inside the shard's directory.
//!
//! The order makes it safe to be interrupted anywhere:
//!
//! 1. The files to be taken out are linked into the new directory. Nothing else has changed.
//! 2. The rewritten segments are made, each under the name `staged` until it is whole and on disk. Their numbers are the
//!    highest, so that each stands from then on for the files whose events it covers. With some of them written the log
//!    is still damaged, no server opens it, and a repair goes on with what is left: the old files are still there, and
//!    what they hold of later gaps is still taken.
//! 3. The old names are removed; the links keep the data. With some of them removed the log is whole, or as damaged as
//!    before in files that hold nothing that is still needed.
//! 4. Indexes that are missing or wrong are made again. A server would do the same.

use super::ToolError;
use super::data::{Data, EXIT_DAMAGED, date_text, key_text, print, version_text};
use super::examine::{Examined, Gap, Index, Role, Segment};
use super::salvage::{Run, records};
use super::verify::{examine_all, is_damaged, lost_text, problem_text};
use shards::clock::Version;
use shards::limits::SEGMENT_BYTES_MAX;
use shards::log::format::{Record, RecordKind, SegmentHeader};
use shards::log::index::SegmentIndex;
use shards::log::job;
use shards::log::segment::{Rewriter, Walk, write_index};
use shards::manifest::DataDirectory;
use shards::schema::TableId;
use shards::storage::{Directory, FileName, Storage};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The exit code. Without `accept_loss` nothing is changed.
pub fn run(path: &Path, accept_loss: bool) -> Result<u8, ToolError> {
    let data = Data::open(path)?;
    // Held to the end: a server must not append to what is repaired.
    let _lock = accept_loss.then(|| DataDirectory::open(path, data.manifest.shards)).transpose()?;
    let before = examine_all(&data)?;
    if !is_damaged(&before) {
        print("nothing to repair");
        return Ok(0);
    }
    for (shard, examined) in (0..).zip(&before) {
        match examined {
            Some(examined) if examined.is_damaged() => print_loss(&data, shard, examined),
            Some(_) => {}
            None => print(&format!("shard {shard}: {} is missing, with all its records", data.shard_name(shard))),
        }
    }
    if !accept_loss {
        print("\nNothing was changed. To go on without what is lost: tablecast repair --accept-loss");
        return Ok(EXIT_DAMAGED);
    }
    for (shard, examined) in (0..).zip(before) {
        let failed = |error| ToolError::Io(data.shard_path(shard), error);
        let directory = Directory::open(&data.shard_path(shard)).map_err(failed)?;
        let Some(examined) = examined.filter(Examined::is_damaged) else { continue };
        let aside = repair(&directory, &data.shard_path(shard), shard, examined).map_err(failed)?;
        let aside =
            aside.map_or(String::new(), |name| format!("; what was taken out is in {}/{name}", data.shard_name(shard)));
        print(&format!("shard {shard}: repaired{aside}"));
    }
    for (shard, after) in (0..).zip(examine_all(&data)?) {
        if let Some(after) = after.filter(Examined::is_damaged) {
            let problem = after.problems.into_iter().next();
            let (file, offset) = problem.as_ref().map_or_else(Default::default, |it| (it.file.clone(), it.offset));
            let error = after.verdict.err().map(|error| error.to_string());
            let why = error.or(problem.map(|it| it.what)).unwrap_or_else(|| "a gap is left".to_owned());
            let file = data.shard_path(shard).join(file);
            return Err(ToolError::Damaged { file, offset, what: format!("{why}, also after the repair") });
        }
    }
    Ok(0)
}

fn print_loss(data: &Data, shard: u16, examined: &Examined) {
    print(&format!("shard {shard}:"));
    for problem in &examined.problems {
        print(&format!("  {}", problem_text(data, shard, problem)));
    }
    let lost: Vec<_> = examined.lost().collect();
    if lost.is_empty() {
        print("  no event is lost");
    }
    for lost in &lost {
        print(&format!("  lost: {}", lost_text(lost)));
    }
    let known = consequences(examined);
    for ((table, key), loss) in &known {
        print(&format!("  {}", consequence_text(&data.table_name(*table), key, loss)));
    }
    match (lost.is_empty(), names_all(examined)) {
        (true, _) => {}
        (false, true) if known.is_empty() => {
            print("  no record changes: of all that were in it newer versions are left")
        }
        (false, true) => print("  all other records are what they were"),
        (false, false) => print(
            "  which records were in it is not known in full: any of this shard may be gone, or an older version again",
        ),
    }
}

/// What is known of a key whose newest record in some segment is lost.
struct Loss {
    kind: RecordKind,
    version: Version,
    /// The newest one that is left.
    left: Option<(Version, RecordKind)>,
}

type Keys = BTreeMap<(TableId, Vec<u8>), Loss>;

/// Indexes of segments that cannot be read in full, each with its segment where that is still there.
fn witnesses(examined: &Examined) -> impl Iterator<Item = (&SegmentIndex, Option<&Segment>)> {
    let of_segments = examined.segments.iter().filter_map(|segment| match (&segment.index, segment.role) {
        (Index::Sound(index), Role::Damaged | Role::Headless) => Some((index, Some(segment))),
        (Index::Differs(index), Role::Sound) => Some((index, Some(segment))),
        _ => None,
    });
    of_segments.chain(examined.orphans.iter().map(|index| (index, None)))
}

/// Whether indexes name the records of all that is lost.
fn names_all(examined: &Examined) -> bool {
    let is_named = |lost: &Range<u64>| {
        let mut at = lost.start;
        let mut ends: Vec<_> = witnesses(examined).map(|(index, _)| *index.end()).collect();
        ends.sort_by_key(|end| end.first_seq);
        for end in ends.iter().filter(|end| end.first_seq <= lost.end) {
            at = if end.first_seq <= at { at.max(end.next_seq) } else { at };
        }
        at >= lost.end
    };
    examined.lost().all(is_named)
}

/// The records that are not what they were, as far as indexes name them: an index outlives its segment.
fn consequences(examined: &Examined) -> Keys {
    let mut keys = Keys::new();
    for (index, segment) in witnesses(examined) {
        for entry in (0..index.len()).map(|at| index.entry(at)) {
            let is_left = segment.is_some_and(|segment| match &segment.salvage {
                Some(salvage) => salvage.holds(entry.offset as usize),
                None => entry.offset < segment.end.end,
            });
            if !is_left {
                let loss = Loss { kind: entry.kind, version: entry.version, left: None };
                let key = (entry.table, entry.key.to_vec());
                if keys.get(&key).is_none_or(|other| other.version < loss.version) {
                    keys.insert(key, loss);
                }
            }
        }
    }
    if !keys.is_empty() {
        visit_left(examined, &mut |record| {
            if let Some(loss) = keys.get_mut(&(record.table, record.key.to_vec()))
                && record.kind != RecordKind::Message
                && loss.left.is_none_or(|(version, _)| version < record.version)
            {
                loss.left = Some((record.version, record.kind));
            }
        });
    }
    keys.retain(|_, loss| {
        let left = loss.left.filter(|(version, _)| *version > loss.version);
        let was_there = loss.kind == RecordKind::Put;
        let is_there = loss.left.is_some_and(|(_, kind)| kind == RecordKind::Put);
        left.is_none() && (was_there || is_there)
    });
    keys
}

/// Shows all records that a repaired log holds.
fn visit_left(examined: &Examined, visit: &mut dyn FnMut(&Record<'_>)) {
    for segment in &examined.segments {
        let bytes = examined.snapshot.bytes(FileName::Segment(segment.number)).unwrap_or_default();
        if let (Role::Sound, Some(header)) = (segment.role, segment.header) {
            let mut walk = Walk::new(header, bytes);
            while let Some(batch) = walk.next_batch() {
                batch.records().for_each(|found| visit(&found.record));
            }
        }
    }
    for gap in &examined.gaps {
        for (number, run) in runs(examined, gap) {
            let bytes = examined.snapshot.bytes(FileName::Segment(number)).unwrap_or_default();
            for numbered in records(&bytes[run.bytes.clone()], run.first_seq) {
                visit(&numbered.record);
            }
        }
    }
}

fn consequence_text(table: &str, key: &[u8], loss: &Loss) -> String {
    let (key, hex) = key_text(key);
    let key = hex.map_or(key.clone(), |hex| format!("{key} (key {hex})"));
    let lost = version_text(loss.version);
    match (loss.kind, loss.left) {
        (RecordKind::Delete, Some((version, _))) => {
            format!("{table}/{key}: its delete of {lost} is lost, the version of {} is back", version_text(version))
        }
        (_, Some((version, RecordKind::Put))) => {
            format!("{table}/{key}: the version of {lost} is lost, that of {} is back", version_text(version))
        }
        _ => format!("{table}/{key}: the version of {lost} is lost, and with it the record"),
    }
}

/// What can be salvaged for a gap, in order: the number of the segment, and where in it.
fn runs<'a>(examined: &'a Examined, gap: &Gap) -> Vec<(u32, &'a Run)> {
    let salvaged = examined.segments.iter().filter_map(|segment| Some((segment.number, segment.salvage.as_ref()?)));
    let mut runs: Vec<(u32, &Run)> =
        salvaged.flat_map(|(number, salvage)| salvage.runs.iter().map(move |run| (number, run))).collect();
    runs.retain(|(_, run)| run.first_seq < gap.next_seq && run.next_seq > gap.first_seq);
    runs.sort_by_key(|(number, run)| (run.first_seq, *number));
    runs
}

/// Repairs one shard. Gives the name of the directory with the files that were taken out of the log.
fn repair(directory: &Directory, path: &Path, shard: u16, examined: Examined) -> io::Result<Option<String>> {
    let set_aside: Vec<FileName> = examined
        .segments
        .iter()
        .filter(|segment| segment.is_set_aside())
        .flat_map(|segment| [FileName::Index(segment.number), FileName::Segment(segment.number)])
        .filter(|file| examined.snapshot.bytes(*file).is_some())
        .chain(examined.useless_indexes().into_iter().map(FileName::Index))
        .collect();
    let aside = if set_aside.is_empty() { None } else { Some(link_aside(directory, path, &set_aside)?) };
    let mut number = examined.snapshot.highest() + 1;
    for gap in &examined.gaps {
        number = fill(directory, shard, &examined, gap, number)?;
    }
    for file in set_aside {
        directory.remove(file)?;
    }
    for segment in examined.segments.iter().filter(|segment| segment.role == Role::Sound) {
        let cut = examined.verdict.as_ref().ok().and_then(|cut| *cut);
        let is_tail = segment.is_empty() || cut.is_some_and(|cut| cut.segment == segment.number);
        let is_wanted = match segment.index {
            Index::Sound(_) => false,
            Index::Absent => !is_tail,
            Index::Unreadable | Index::Differs(_) => true,
        };
        if is_wanted {
            let bytes = examined.snapshot.bytes(FileName::Segment(segment.number)).unwrap_or_default();
            if let Ok((_, index)) = job::index(segment.number, bytes) {
                write_index(directory, segment.number, &index)?;
            }
        }
    }
    Ok(aside)
}

/// Gives files a second name in a new directory.
fn link_aside(directory: &Directory, path: &Path, files: &[FileName]) -> io::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time: String = date_text(now.as_secs() * 1_000_000).replace(".000Z", "Z").replace([':', '-'], "");
    let mut name = format!("damaged-{time}");
    let mut attempt = 1;
    while let Err(error) = std::fs::create_dir(path.join(&name)) {
        if error.kind() != io::ErrorKind::AlreadyExists {
            return Err(error);
        }
        attempt += 1;
        name = format!("damaged-{time}-{attempt}");
    }
    let aside = path.join(&name);
    for file in files {
        std::fs::hard_link(directory.path(*file), aside.join(file.to_string()))?;
    }
    File::open(&aside)?.sync_all()?;
    File::open(path)?.sync_all()?;
    Ok(name)
}

/// Writes the rewritten segments that close a gap, the first of them under this number. Gives the number that is free
/// then.
fn fill(directory: &Directory, shard: u16, examined: &Examined, gap: &Gap, number: u32) -> io::Result<u32> {
    let runs = runs(examined, gap);
    let salt = uuid::Uuid::new_v4().as_u64_pair().0;
    let newest = runs.iter().map(|(_, run)| run.epoch).max().unwrap_or(0);
    let epoch = newest.max(gap.epochs.0).min(gap.epochs.1);
    // Nobody can check what stood between: any number will do where nothing follows that knows better.
    let last_checksum = gap.last_checksum.unwrap_or(salt as u32);
    let mut header = SegmentHeader {
        shard,
        segment: number,
        epoch,
        salt,
        first_seq: gap.first_seq,
        previous_checksum: gap.previous_checksum,
        rewritten: None,
    };
    let mut rewriter = Rewriter::new(directory, header, examined.durable_seq)?;
    let mut next_seq = gap.first_seq;
    for (source, run) in runs {
        let bytes = examined.snapshot.bytes(FileName::Segment(source)).unwrap_or_default();
        for numbered in records(&bytes[run.bytes.clone()], run.first_seq) {
            if numbered.seq < next_seq || numbered.seq >= gap.next_seq {
                continue; // another file had it already, or a sound segment has it
            }
            if rewriter.bytes() + numbered.bytes.len() > SEGMENT_BYTES_MAX && numbered.seq > header.first_seq {
                rewriter.finish(numbered.seq, salt as u32, epoch)?;
                header.segment += 1;
                (header.first_seq, header.previous_checksum) = (numbered.seq, salt as u32);
                rewriter = Rewriter::new(directory, header, examined.durable_seq)?;
            }
            rewriter.push(numbered.seq, run.epoch, numbered.bytes)?;
            next_seq = numbered.seq + 1;
        }
    }
    rewriter.finish(gap.next_seq, last_checksum, epoch)?;
    Ok(header.segment + 1)
}
