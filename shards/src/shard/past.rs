//! Earlier states of records: the shard that owns one searches its log, some of it each turn.

use super::Shard;
use super::write::has_expired;
use crate::command::{ConnectionRef, Data, Outcome, Refusal, Stored, Token};
use crate::limits::REPLAY_RECORDS_PER_TURN;
use crate::log::Position;
use crate::log::past::{PastState, Search, Upto};
use crate::replay::{Answer, Replayed};
use crate::scan::owner;
use crate::schema::TableId;
use bytes::Bytes;

/// A search, and whom it is for.
pub(super) struct PastTask {
    from: u16,
    search: Search,
    /// What had been shown to readers when it began.
    reached: Position,
    goal: Goal,
}

enum Goal {
    /// The newest state of those that are looked for.
    Read(Token),
    /// The place before all of them.
    Start(ConnectionRef),
}

impl Shard {
    /// Asks for the record as it was; the answer is that of [`Shard::read`].
    pub fn read_past(&mut self, token: Token, table: TableId, key: &[u8], upto: Upto) {
        self.outstanding += 1;
        let owner = owner(table, key, self.shards());
        self.send_data(owner, Data::ReadPast { token, table, key: key.into(), upto });
    }

    pub(super) fn search_state(&mut self, from: u16, token: Token, table: TableId, key: &[u8], upto: Upto) {
        if matches!(upto, Upto::Position(position) if !self.log.knows(position)) {
            let outcome = Outcome::Refused(Refusal::Forgotten);
            return self.send_data(from, Data::Outcome { token, outcome, weight: 1 });
        }
        let reached = self.reached();
        let search = self.log.search(table, key, upto, 1, reached);
        self.pasts.push_back(PastTask { from, search, reached, goal: Goal::Read(token) });
    }

    /// A stream is to begin before the newest states of a record.
    pub(super) fn search_start(
        &mut self,
        from: u16,
        connection: ConnectionRef,
        table: TableId,
        key: &[u8],
        count: usize,
    ) {
        let reached = self.reached();
        let search = self.log.search(table, key, Upto::Now, count, reached);
        self.pasts.push_back(PastTask { from, search, reached, goal: Goal::Start(connection) });
    }

    pub(super) fn serve_pasts(&mut self) {
        let mut left = REPLAY_RECORDS_PER_TURN;
        while left > 0
            && let Some(mut task) = self.pasts.pop_front()
        {
            if !self.log.go_on(&mut task.search, &mut left) {
                self.pasts.push_back(task); // the others, too, get their turn
                return;
            }
            let data = match task.goal {
                Goal::Read(token) => Data::Outcome { token, outcome: self.past_outcome(&task.search), weight: 1 },
                Goal::Start(connection) => {
                    Data::Replayed(Replayed { connection, answer: self.past_start(&task.search, task.reached) })
                }
            };
            self.send_data(task.from, data);
        }
    }

    fn pruned(&self, table: TableId) -> Position {
        self.pruned.get(usize::from(table.0)).copied().unwrap_or_default()
    }

    fn past_outcome(&self, search: &Search) -> Outcome {
        let pruned = self.pruned(search.table);
        let current = self.table(search.table).visible(&search.key);
        let is_current = |state: &PastState| current.filter(|entry| entry.version == state.version);
        match search.found.back() {
            // What was in between may have been dropped.
            Some(state) if is_current(state).is_none() && (state.position < pruned || search.is_lost) => {
                Outcome::Refused(Refusal::Forgotten)
            }
            Some(state) if state.is_delete => Outcome::Record(None),
            // The current one may have been moved meanwhile.
            Some(state) => match self.log.read(is_current(state).map_or(state.location, |entry| entry.location)) {
                Ok(record) if matches!(search.upto, Upto::Time(at) if has_expired(&record, at / 1000)) => {
                    Outcome::Record(None)
                }
                Ok(record) => {
                    let document = Bytes::copy_from_slice(record.document);
                    Outcome::Record(Some(Stored { version: state.version, document }))
                }
                Err(_) => Outcome::Refused(Refusal::Damaged),
            },
            None if pruned > Position::default() || search.is_lost => Outcome::Refused(Refusal::Forgotten),
            None => Outcome::Record(None),
        }
    }

    fn past_start(&self, search: &Search, reached: Position) -> Answer {
        let before = |position: Position| Position { seq: position.seq.saturating_sub(1), ..position };
        let pruned = self.pruned(search.table);
        match (search.found.front(), search.found.back()) {
            (Some(first), Some(last)) => {
                let is_complete = last.position > pruned && !search.is_lost;
                Answer::Checked { is_complete, from: before(first.position).max(pruned) }
            }
            _ => {
                let is_complete = !search.is_lost && self.table(search.table).visible(&search.key).is_none();
                Answer::Checked { is_complete, from: reached }
            }
        }
    }
}
