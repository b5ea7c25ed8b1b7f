//! The shard's part of compaction (`log/compact.rs`): what to rewrite, which records are still the newest, and moving
//! them to their new places. A bounded number of records a turn; the copying is a job.

use super::Shard;
use crate::clock::Version;
use crate::limits::{COMPACTION_IDLE_US, COMPACTION_INTERVAL_US, COMPACTION_RECORDS_PER_TURN, TOMBSTONE_RETENTION_US};
use crate::log::compact::{self, Candidate, Fate, Rewrite, RewriteDone, Source};
use crate::log::index::SegmentIndex;
use crate::log::job::Job;
use crate::log::{Location, Position, Usage};
use crate::schema::{Retention, TableId};
use std::collections::BTreeMap;

/// How long what a rewrite had to keep is not counted as garbage again.
const RESTING_US: u64 = TOMBSTONE_RETENTION_US / 8;

#[derive(Default)]
pub(super) struct Compaction {
    phase: Phase,
    next_look_us: u64,
    /// What could not be dropped from a segment when it was rewritten, and until when that is believed.
    kept: BTreeMap<u32, (u64, u64)>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    /// Looking up the entries of the last source's index, so far as many as it has fates.
    LookingUp {
        rewrite: Rewrite,
        at: usize,
    },
    /// What the look-ups have seen must be on disk, before older versions may go.
    WaitingForDisk {
        rewrite: Rewrite,
        seq: u64,
    },
    Rewriting {
        output: u32,
    },
    /// Moving records to their places in the new segment.
    Moving {
        segment: u32,
        sources: Vec<u32>,
        moved: Vec<Location>,
        at: usize,
    },
    /// Readers may still see a version in the old segments that is about to be replaced.
    Settling {
        sources: Vec<u32>,
        seq: u64,
    },
}

impl Shard {
    /// Nothing is changed that may be needed for repair.
    fn must_not_compact(&self) -> bool {
        self.log.damage().is_some() || self.log.is_fenced()
    }

    /// Whether compaction has something to do in the next turn.
    pub(super) fn compacts(&self) -> bool {
        let has_work = match self.compaction.phase {
            Phase::LookingUp { .. } | Phase::Moving { .. } => true,
            Phase::WaitingForDisk { seq, .. } | Phase::Settling { seq, .. } => self.log.durable_seq() >= seq,
            Phase::Idle | Phase::Rewriting { .. } => false,
        };
        has_work && !self.must_not_compact()
    }

    pub(super) fn compaction_deadline_us(&self) -> Option<u64> {
        let is_idle = matches!(self.compaction.phase, Phase::Idle) && !self.must_not_compact();
        let waits = is_idle && !self.log.sealed().is_empty();
        waits.then_some(self.compaction.next_look_us + COMPACTION_IDLE_US)
    }

    /// One turn's worth of compaction.
    pub(super) fn compact(&mut self) {
        if self.must_not_compact() {
            return;
        }
        self.compaction.phase = match std::mem::take(&mut self.compaction.phase) {
            Phase::Idle => self.look(),
            Phase::LookingUp { rewrite, at } => self.look_up(rewrite, at),
            Phase::WaitingForDisk { mut rewrite, seq } if self.log.durable_seq() >= seq => {
                self.note_drops(&rewrite);
                rewrite.durable_seq = seq;
                let output = rewrite.output;
                self.log.enqueue(Job::Rewrite(rewrite));
                Phase::Rewriting { output }
            }
            Phase::Moving { segment, sources, moved, at } => self.move_some(segment, sources, moved, at),
            Phase::Settling { sources, seq } if self.log.durable_seq() >= seq => {
                self.log.drop_replaced(sources);
                Phase::Idle
            }
            waiting => waiting,
        };
    }

    /// Looks for something to rewrite.
    fn look(&mut self) -> Phase {
        if self.ticks_us < self.compaction.next_look_us {
            return Phase::Idle;
        }
        let sealed = self.log.sealed();
        self.compaction.next_look_us = self.ticks_us + COMPACTION_INTERVAL_US;
        // What is dropped depends on what older segments hold: their indexes say so.
        let indexed = sealed.iter().take_while(|sealed| sealed.is_indexed).count();
        let mut newer_history = Vec::new();
        let mut drops: Vec<Vec<bool>> = Vec::new();
        let mut candidates = Vec::new();
        for (at, sealed) in sealed.iter().enumerate().rev() {
            let Some(usage) = self.log.usage(sealed.segment) else { continue };
            let drop_history = self.droppable_tables(usage, &mut newer_history);
            if at >= indexed {
                continue;
            }
            let tables = usage.tables.iter().zip(&drop_history);
            let garbage: u64 = tables.filter(|(_, drop)| **drop).map(|(table, _)| table.bytes - table.live).sum();
            let bytes = usage.tables.iter().map(|table| table.bytes).sum();
            let kept = self.compaction.kept.get(&sealed.segment);
            let kept = kept.filter(|(_, until_us)| self.ticks_us < *until_us).map_or(0, |(kept, _)| *kept);
            let droppable = garbage.saturating_sub(kept);
            candidates.push(Candidate { segment: sealed.segment, bytes, droppable });
            drops.push(drop_history);
        }
        candidates.reverse();
        drops.reverse();
        let Some(range) = compact::plan(&candidates, self.limits.segments.max as u64) else { return Phase::Idle };
        let older = candidates[..range.start].iter().map(|candidate| candidate.segment).collect();
        let source = |(candidate, drop_history): (&Candidate, &Vec<bool>)| Source {
            segment: candidate.segment,
            fates: Vec::new(),
            drop_history: drop_history.clone(),
        };
        let sources = candidates[range.clone()].iter().zip(&drops[range]).map(source).collect();
        let keep_deletes_from = Version(self.now_us.saturating_sub(TOMBSTONE_RETENTION_US));
        let (output, bytes_max) = (self.log.number(), self.limits.segments.max);
        Phase::LookingUp {
            rewrite: Rewrite { output, sources, older, durable_seq: 0, bytes_max, keep_deletes_from },
            at: 0,
        }
    }

    /// Of which tables a segment's history may be dropped. `newer` gathers the bytes of history in newer segments.
    fn droppable_tables(&self, usage: &Usage, newer: &mut Vec<u64>) -> Vec<bool> {
        if newer.len() < usage.tables.len() {
            newer.resize(usage.tables.len(), 0);
        }
        let shards = self.shards() as u64;
        let tables = usage.tables.iter().zip(newer).zip(&self.tables);
        tables
            .map(|((usage_of, newer), table)| {
                *newer += usage_of.bytes - usage_of.live;
                let Retention { window_us, bytes } =
                    table.definition.as_ref().map(|definition| definition.retention).unwrap_or_default();
                let has_passed = usage.max_version.0.saturating_add(window_us) <= self.now_us;
                has_passed || bytes.is_some_and(|bytes| *newer > bytes / shards)
            })
            .collect()
    }

    /// Where history is about to be dropped, readers that come back are told so.
    fn note_drops(&mut self, rewrite: &Rewrite) {
        for source in &rewrite.sources {
            let Some(end) = self.index_of(source.segment).map(|index| *index.end()) else { continue };
            let upto = Position { epoch: end.epoch, seq: end.next_seq.saturating_sub(1) };
            self.prune(&source.drop_history, upto);
        }
    }

    fn prune(&mut self, tables: &[bool], upto: Position) {
        if self.pruned.len() < tables.len() {
            self.pruned.resize(tables.len(), Position::default());
        }
        for (pruned, _) in self.pruned.iter_mut().zip(tables).filter(|(_, dropped)| **dropped) {
            *pruned = upto.max(*pruned);
        }
    }

    /// After a start: what rewritten segments may have dropped earlier.
    pub(super) fn note_pruned(&mut self) {
        let rewritten = self.log.sealed().iter().filter(|sealed| self.log.is_rewritten(sealed.segment));
        let found: Vec<(Vec<bool>, Position)> = rewritten
            .filter_map(|sealed| {
                let usage = self.log.usage(sealed.segment)?;
                let epoch = sealed.index.as_ref()?.end().epoch;
                let passed = |table: &crate::table::Table| {
                    let Retention { window_us, bytes } =
                        table.definition.as_ref().map(|definition| definition.retention).unwrap_or_default();
                    bytes.is_some() || usage.max_version.0.saturating_add(window_us) <= self.now_us
                };
                let tables = self.tables.iter().map(passed).collect();
                Some((tables, Position { epoch, seq: sealed.next_seq.saturating_sub(1) }))
            })
            .collect();
        found.iter().for_each(|(tables, upto)| self.prune(tables, *upto));
    }

    fn index_of(&self, segment: u32) -> Option<&SegmentIndex> {
        self.log.sealed().iter().find(|sealed| sealed.segment == segment)?.index.as_ref()
    }

    fn look_up(&mut self, mut rewrite: Rewrite, mut at: usize) -> Phase {
        let mut left = COMPACTION_RECORDS_PER_TURN;
        while let Some(source) = rewrite.sources.get_mut(at) {
            let Some(index) = self.index_of(source.segment) else { return Phase::Idle };
            let from = source.fates.len();
            let count = left.min(index.len() - from);
            source.fates.extend((from..from + count).map(|number| {
                let entry = index.entry(number);
                let location = Location { segment: source.segment, offset: entry.offset };
                match self.tables.get(usize::from(entry.table.0)).and_then(|table| table.get(entry.key)) {
                    Some(newest) if newest.location == location => Fate::Live,
                    Some(_) => Fate::Superseded,
                    None => Fate::Covering,
                }
            }));
            if source.fates.len() < index.len() {
                return Phase::LookingUp { rewrite, at };
            }
            left -= count;
            at += 1;
        }
        Phase::WaitingForDisk { rewrite, seq: self.log.position().seq }
    }

    /// The job is done.
    pub(super) fn rewritten(&mut self, mut done: RewriteDone) {
        let (segment, sources) = (done.segment, done.sources.clone());
        let moved = std::mem::take(&mut done.moved);
        let is_awaited = matches!(self.compaction.phase, Phase::Rewriting { output } if output == segment);
        if is_awaited && self.log.replace(done) {
            self.compaction.phase = Phase::Moving { segment, sources, moved, at: 0 };
        } else {
            self.log.drop_replaced(vec![segment]);
        }
    }

    /// A job has failed; perhaps the rewrite.
    pub(super) fn job_failed(&mut self) {
        if matches!(self.compaction.phase, Phase::Rewriting { .. }) && !self.log.rewrites() {
            self.compaction.phase = Phase::Idle;
            self.compaction.next_look_us = self.ticks_us + 10 * COMPACTION_INTERVAL_US;
        }
    }

    fn move_some(&mut self, segment: u32, sources: Vec<u32>, moved: Vec<Location>, mut at: usize) -> Phase {
        let Shard { log, tables, .. } = self;
        let mut live: Vec<(TableId, u64)> = Vec::new();
        if let Some(index) =
            log.sealed().iter().find(|sealed| sealed.segment == segment).and_then(|own| own.index.as_ref())
        {
            let until = (at + COMPACTION_RECORDS_PER_TURN).min(moved.len());
            for (number, from) in moved[..until].iter().enumerate().skip(at) {
                let entry = index.entry(number);
                let to = Location { segment, offset: entry.offset };
                let table = tables.get_mut(usize::from(entry.table.0));
                if table.is_some_and(|table| table.moved(entry.key, *from, to)) {
                    live.push((entry.table, entry.bytes.into()));
                }
            }
            at = until;
        }
        for (table, bytes) in live {
            log.hold(segment, table, bytes);
        }
        if at < moved.len() {
            return Phase::Moving { segment, sources, moved, at };
        }
        let kept = log.usage(segment).map_or(0, |usage| usage.tables.iter().map(|own| own.bytes - own.live).sum());
        sources.iter().for_each(|source| _ = self.compaction.kept.remove(source));
        self.compaction.kept.insert(segment, (kept, self.ticks_us + RESTING_US));
        Phase::Settling { sources, seq: self.log.position().seq }
    }
}
