//! What becomes of a disk when the power fails at any point of its journal, and of one that rots: each state is opened and
//! measured against the oracle.

use crate::Random;
use crate::disk::{Disk, Effect, Files, Platter};
use crate::oracle::{Bounds, Check, Model, promised};
use crate::world::{Tables, World, links, open};
use shards::link::Links;
use shards::shard::Shard;
use shards::storage::FileName;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Of so many recoveries one is interrupted at each of its writes.
const INTERRUPTED: usize = 24;
/// After one of so many recoveries the jobs run, and the shard is measured again.
const WITH_JOBS: usize = 24;
/// A recovery or a job is over long before so many turns.
const TURNS_MAX: usize = 200;

/// Opens images of one shard.
pub struct Opener<'a> {
    index: u16,
    shards: usize,
    tables: &'a Tables,
    model: &'a Model,
    /// Links that are made for all shards at once.
    stock: Vec<Links>,
    pub images: u64,
}

impl<'a> Opener<'a> {
    pub fn new(index: usize, shards: usize, tables: &'a Tables, model: &'a Model) -> Opener<'a> {
        Opener { index: index as u16, shards, tables, model, stock: Vec::new(), images: 0 }
    }

    fn links(&mut self) -> Links {
        let index = usize::from(self.index);
        self.stock.pop().unwrap_or_else(|| links(self.shards).swap_remove(index))
    }

    fn open(&mut self, disk: &Disk, random: &mut Random, now_us: u64) -> Check<Shard> {
        self.images += 1;
        let links = self.links();
        open(self.index, links, self.tables, disk, random.number(), now_us)
            .map_err(|error| format!("does not open: {error}"))
    }

    /// Opens one image and measures it; gives the seq at which it ends.
    pub fn check(&mut self, files: &Files, bounds: Bounds, random: &mut Random) -> Check<u64> {
        let disk = Disk::new(files, random.number());
        let mut shard = self.open(&disk, random, bounds.now_us)?;
        let seq = self.model.verify(&shard, self.tables, bounds)?;
        let bounds = Bounds { floor: seq, ceiling: seq, ..bounds };
        if random.below(INTERRUPTED) == 0 {
            let journal = disk.journal().to_vec();
            self.interrupt(files, &journal, bounds, random)?;
        }
        if random.below(WITH_JOBS) == 0 {
            let now_us = run_jobs(&mut shard, &disk, bounds.now_us, TURNS_MAX)?;
            let bounds = Bounds { now_us, ..bounds };
            self.model.verify(&shard, self.tables, bounds).map_err(|error| format!("after its jobs: {error}"))?;
        }
        Ok(seq)
    }

    /// Recovery is itself interrupted, at each of its writes: the next one must come to the same end.
    fn interrupt(&mut self, files: &Files, journal: &[Effect], bounds: Bounds, random: &mut Random) -> Check {
        let mut platter = Platter::new(files);
        for (at, effect) in journal.iter().enumerate() {
            platter.apply(effect);
            let files = platter.crash(journal.get(at + 1), random);
            let disk = Disk::new(&files, random.number());
            let result = self.open(&disk, random, bounds.now_us);
            result.and_then(|shard| self.model.verify(&shard, self.tables, bounds)).map_err(|error| {
                format!("recovery interrupted after {} of {} writes: {error}", at + 1, journal.len())
            })?;
        }
        Ok(())
    }
}

/// Runs what a shard wants of its disk until it rests; gives the time then.
fn run_jobs(shard: &mut Shard, disk: &Disk, mut now_us: u64, turns_max: usize) -> Check<u64> {
    let mut quiet = 0;
    for _ in 0..turns_max {
        now_us += 600_000;
        shard.begin_turn(now_us, now_us);
        shard.receive();
        let mut rests = true;
        while let Some(request) = shard.storage_request() {
            rests = false;
            // What is wrong, the shard says by itself.
            let _ = shard.storage_complete(request.run(disk));
        }
        shard.end_turn();
        quiet = if rests { quiet + 1 } else { 0 };
        if quiet > 8 || shard.damage().is_some() {
            break;
        }
    }
    Ok(now_us)
}

/// Cuts the power at each point of what a shard's disk went through; `each` hears of every image.
pub fn crash_everywhere(
    world: &World,
    at: usize,
    random: &mut Random,
    each: &mut dyn FnMut(usize, u64),
) -> Check<(u64, Platter)> {
    let node = &world.nodes[at];
    let journal = node.disk.journal();
    let mut opener = Opener::new(at, world.nodes.len(), &world.tables, &node.model);
    let mut platter = Platter::new(&node.base);
    for done in 0..=journal.len() {
        let next = journal.get(done);
        let variants = match next {
            _ if platter.is_open() => 3,
            Some(Effect::Create { .. }) => 2,
            _ => 1,
        };
        for variant in 0..variants {
            let files = platter.crash(next.filter(|_| variant == 1), random);
            let checked = opener.check(&files, world.bounds_at(at, done), random);
            let seq = checked.map_err(|error| {
                let last = done.checked_sub(1).map_or(String::new(), |last| journal[last].to_string());
                format!("shard {at}, after write {done} of {} ({last}), variant {variant}: {error}", journal.len())
            })?;
            each(done, seq);
        }
        if let Some(effect) = next {
            platter.apply(effect);
        }
    }
    Ok((opener.images, platter))
}

/// How often rot was found, and how often it hit nothing that counts.
#[derive(Clone, Copy, Default)]
pub struct Rot {
    pub trials: u64,
    pub reported: u64,
}

/// Damages the files of a shard at rest in many ways: the damage is reported, or nothing is lost by it.
pub fn rot(world: &World, at: usize, files: &Files, trials: u64, random: &mut Random) -> Check<Rot> {
    let node = &world.nodes[at];
    let last = node.model.last_seq();
    let bounds = Bounds { floor: last, ceiling: last, epoch: 0, now_us: world.now_us };
    let mut rot = Rot::default();
    let mut opener = Opener::new(at, world.nodes.len(), &world.tables, &node.model);
    for _ in 0..trials {
        let Some((mut damaged, mut what)) = damage(files, random) else { continue };
        let mut bounds = bounds;
        if random.below(4) == 0 && damaged.remove(&FileName::Mark).is_some() {
            // The last flush is not promised then, what any header names is.
            bounds.floor = damaged.values().map(|bytes| promised(bytes)).max().unwrap_or(0);
            what.push_str(", without the mark");
        }
        let fork = random.fork();
        let trial = || -> Check<bool> {
            let mut random = fork;
            let disk = Disk::new(&damaged, random.number());
            let Ok(mut shard) = opener.open(&disk, &mut random, bounds.now_us) else { return Ok(true) };
            let now_us = run_jobs(&mut shard, &disk, bounds.now_us, TURNS_MAX)?;
            if shard.damage().is_some() {
                return Ok(true);
            }
            // Compaction has dropped what the events replaced that were lost with the mark: nothing more can be asked.
            let seq = shard.log().position().seq;
            if (bounds.floor..last).contains(&seq) {
                return Ok(false);
            }
            node.model.verify(&shard, &world.tables, Bounds { now_us, ..bounds })?;
            Ok(false)
        };
        let reported = catch_unwind(AssertUnwindSafe(trial)).unwrap_or_else(|_| Err("a panic".into()));
        let reported = reported.map_err(|error| format!("shard {at}, {what}, and nothing is said: {error}"))?;
        rot.trials += 1;
        rot.reported += u64::from(reported);
    }
    Ok(rot)
}

/// A copy that has rotted, and how.
fn damage(files: &Files, random: &mut Random) -> Option<(Files, String)> {
    let mut damaged = files.clone();
    let names: Vec<FileName> = files.keys().copied().collect();
    let segments: Vec<FileName> = names.iter().copied().filter(|name| matches!(name, FileName::Segment(_))).collect();
    let any = random.below(5) == 0;
    let pool = if any { &names } else { &segments };
    let name = *pool.get(random.below(pool.len().max(1)))?;
    let other = segments[random.below(segments.len())];
    let length = files[&name].len();
    let in_use = files[&name].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if in_use == 0 {
        return None;
    }
    let bytes = Arc::make_mut(damaged.get_mut(&name)?);
    let place = random.below(in_use);
    let what = match random.below(9) {
        0..=1 => {
            bytes[place] ^= 1 << random.below(8);
            format!("bit of {name} flipped at {place}")
        }
        2 => {
            let place = random.below(in_use.min(128));
            bytes[place] ^= 1 << random.below(8);
            format!("bit of {name} flipped in its headers at {place}")
        }
        3 => {
            bytes.truncate(place);
            format!("{name} cut to {place} of {length}")
        }
        4 => {
            let start = place / 4096 * 4096;
            bytes[start..(start + 4096).min(length)].fill(0);
            format!("page of {name} zeroed at {start}")
        }
        5 => {
            let end = (place + 1 + random.below(600)).min(length);
            bytes[place..end].iter_mut().for_each(|byte| *byte = random.number() as u8);
            format!("bytes {place}..{end} of {name} at random")
        }
        6 if !any && name != other => {
            let (a, b) = (files[&name].clone(), files[&other].clone());
            damaged.insert(name, b);
            damaged.insert(other, a);
            format!("{name} and {other} swapped")
        }
        7 if name != other => {
            damaged.insert(name, files[&other].clone());
            format!("{name} is a copy of {other}")
        }
        8 => {
            damaged.remove(&name);
            format!("{name} removed")
        }
        _ => {
            let garbage = (0..random.below(9000)).map(|_| random.number() as u8).collect();
            let file = match random.below(4) {
                0 => FileName::Mark,
                1 => FileName::Staged,
                2 => FileName::Index(1 + random.below(99) as u32),
                _ => FileName::Segment(1 + random.below(99) as u32),
            };
            damaged.insert(file, Arc::new(garbage));
            format!("{file} made of garbage")
        }
    };
    Some((damaged, what))
}
