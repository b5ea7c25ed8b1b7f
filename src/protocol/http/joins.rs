//! Queries that reach into other tables. What a condition says of related records is asked first, and what that finds
//! takes its place in the query; related records that are selected are asked for afterwards, page by page, and become
//! attributes of the rows.

use super::collection::{ChangeOrder, ListOrder};
use super::session::{HttpSession, Pending};
use crate::protocol::query::relation::{Expansion, Join, collect, extended, keys};
use crate::protocol::{Context, Flow, explain, status_of};
use shards::command::{Refusal, Token};
use shards::document::Writer;
use shards::event::Body;
use shards::query::{Comparison, Condition, Query, Scalar, Test};
use shards::scan::{Row, ScanRef, Step};
use shards::schema::TableId;
use shards::topic::{KeyFilter, Target};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Records of another table that a condition may find, and related records of a page.
const FOUND_MAX: usize = 10_000;
/// Bytes of the related records of a page.
const FOUND_BYTES_MAX: usize = 4 << 20;
/// Rows whose related records are asked for at once.
const PAGE_ROWS: usize = 64;

/// Why a request is given up: status, code and words.
pub(super) type Problem = (u16, &'static str, String);

fn too_many(table: TableId, context: &Context<'_>) -> Problem {
    let name = &context.catalog.table(table).name;
    (
        400,
        "join_too_large",
        format!(
            "too many records of {name} would be joined (more than {FOUND_MAX}, or {FOUND_BYTES_MAX} bytes): ask for fewer"
        ),
    )
}

fn damaged() -> Problem {
    let refusal = Refusal::Damaged;
    let (status, code) = status_of(&refusal);
    (status, code, explain(&refusal))
}

/// What is to be done once a query stands for itself.
pub(super) enum Order {
    List(ListOrder),
    Change(ChangeOrder),
}

impl Order {
    fn query_mut(&mut self) -> &mut Query {
        match self {
            Order::List(order) => &mut order.query,
            Order::Change(order) => &mut order.query,
        }
    }
}

/// A query whose joins are being asked.
pub(super) struct Joining {
    joins: Vec<Join>,
    at: usize,
    scan: ScanRef,
    /// Records that the current one has found, and their values.
    rows: usize,
    found: BTreeSet<Scalar>,
    order: Order,
}

impl Joining {
    pub fn close(&self, context: &mut Context<'_>) {
        context.shard.close_scan(self.scan);
    }
}

fn open(context: &mut Context<'_>, table: TableId, condition: Condition) -> ScanRef {
    let query = Arc::new(Query { condition: Some(condition), ..Query::default() });
    let plan = context.shard.plan(table, query).map(Arc::new);
    let token = Token { connection: context.connection, tag: 0 };
    context.shard.scan(token, Target { table, path: 0, filter: KeyFilter::all() }, plan)
}

impl HttpSession {
    /// Has the joins of a query asked, and then the query itself.
    pub(super) fn join(&mut self, context: &mut Context<'_>, joins: Vec<Join>, order: Order) -> Flow {
        let Some(first) = joins.first() else { return self.carry_out(context, order) };
        let scan = open(context, first.table, first.condition.clone());
        self.pending =
            Pending::Joining(Box::new(Joining { joins, at: 0, scan, rows: 0, found: BTreeSet::new(), order }));
        Flow::Blocked
    }

    fn carry_out(&mut self, context: &mut Context<'_>, order: Order) -> Flow {
        match order {
            Order::List(order) => self.list(context, order),
            Order::Change(order) => self.change(context, order),
        }
    }

    pub(super) fn continue_joining(&mut self, context: &mut Context<'_>, mut joining: Box<Joining>) -> Flow {
        loop {
            let join = &joining.joins[joining.at];
            match context.shard.scan_step(joining.scan) {
                Step::Row { row, .. } => {
                    joining.rows += 1;
                    collect(row.body.document(), &join.collect, &mut joining.found);
                }
                Step::Wait => {
                    self.pending = Pending::Joining(joining);
                    return Flow::Blocked;
                }
                Step::Damaged => return self.give_up_joining(context, &joining, damaged()),
                Step::End => {
                    context.shard.close_scan(joining.scan);
                    let found: Arc<[Scalar]> = std::mem::take(&mut joining.found).into_iter().collect();
                    for later in &mut joining.joins[joining.at + 1..] {
                        later.condition.fill_in(joining.at, &found);
                    }
                    if let Some(condition) = &mut joining.order.query_mut().condition {
                        condition.fill_in(joining.at, &found);
                    }
                    joining.at += 1;
                    joining.rows = 0;
                    let Some(next) = joining.joins.get(joining.at) else {
                        return self.carry_out(context, joining.order);
                    };
                    joining.scan = open(context, next.table, next.condition.clone());
                }
            }
            // Some have many values, and a number stands for its digits as well.
            if joining.rows > FOUND_MAX || joining.found.len() > 4 * FOUND_MAX {
                let problem = too_many(joining.joins[joining.at].table, context);
                return self.give_up_joining(context, &joining, problem);
            }
        }
    }

    fn give_up_joining(&mut self, context: &mut Context<'_>, joining: &Joining, problem: Problem) -> Flow {
        joining.close(context);
        self.problem(context, problem.0, problem.1, &problem.2)
    }
}

/// Rows on their way to become whole.
pub(super) struct Pages {
    expansions: Arc<[Expansion]>,
    rows: Vec<Row>,
    expanding: Option<Expanding>,
    ready: VecDeque<Row>,
}

impl Pages {
    /// `None`: nothing of other tables is wanted.
    pub fn new(expansions: Vec<Expansion>) -> Option<Pages> {
        let is_wanted = !expansions.is_empty();
        is_wanted.then(|| Pages {
            expansions: expansions.into(),
            rows: Vec::new(),
            expanding: None,
            ready: VecDeque::new(),
        })
    }

    /// The next row of a scan, with what is related to it.
    pub fn step(&mut self, context: &mut Context<'_>, scan: ScanRef) -> Result<Step, Problem> {
        loop {
            if let Some(row) = self.ready.pop_front() {
                return Ok(Step::Row { target: 0, row });
            }
            if let Some(expanding) = &mut self.expanding {
                if !expanding.step(context)? {
                    return Ok(Step::Wait);
                }
                let documents = self.expanding.take().map(|expanding| expanding.documents).unwrap_or_default();
                let rows = self.rows.drain(..).zip(documents);
                self.ready.extend(rows.map(|(row, it)| Row { body: Body::new(row.body.key(), &it), ..row }));
                continue;
            }
            match context.shard.scan_step(scan) {
                Step::Row { row, .. } => {
                    self.rows.push(row);
                    if self.rows.len() < PAGE_ROWS {
                        continue;
                    }
                }
                Step::Wait | Step::End if !self.rows.is_empty() => {}
                step => return Ok(step),
            }
            let documents = self.rows.iter().map(|row| row.body.document().to_vec()).collect();
            self.expanding = Some(Expanding::new(self.expansions.clone(), documents));
        }
    }

    pub fn close(&self, context: &mut Context<'_>) {
        if let Some(expanding) = &self.expanding {
            expanding.close(context);
        }
    }
}

/// Documents that are given their related records, one attribute after the other.
struct Expanding {
    expansions: Arc<[Expansion]>,
    at: usize,
    documents: Vec<Vec<u8>>,
    scan: Option<ScanRef>,
    found: Vec<Vec<u8>>,
    bytes: usize,
    /// What was found is given its own related records.
    nested: Option<Box<Expanding>>,
}

impl Expanding {
    fn new(expansions: Arc<[Expansion]>, documents: Vec<Vec<u8>>) -> Expanding {
        Expanding { expansions, at: 0, documents, scan: None, found: Vec::new(), bytes: 0, nested: None }
    }

    /// True: all is there.
    fn step(&mut self, context: &mut Context<'_>) -> Result<bool, Problem> {
        loop {
            let Some(expansion) = self.expansions.get(self.at) else { return Ok(true) };
            if let Some(nested) = &mut self.nested {
                if !nested.step(context)? {
                    return Ok(false);
                }
                self.found = self.nested.take().map(|nested| nested.documents).unwrap_or_default();
                self.give(context)?;
                continue;
            }
            let Some(scan) = self.scan else {
                let mut wanted = BTreeSet::new();
                self.documents.iter().for_each(|document| collect(document, &expansion.own, &mut wanted));
                if wanted.is_empty() {
                    self.give(context)?;
                    continue;
                }
                let comparison = Comparison::OneOf(wanted.into_iter().collect());
                let test = Test { path: expansion.other.clone(), comparison };
                self.scan = Some(open(context, expansion.table, Condition::Test(test)));
                continue;
            };
            match context.shard.scan_step(scan) {
                Step::Row { row, .. } => {
                    self.bytes += row.body.document().len();
                    self.found.push(row.body.document().to_vec());
                    if self.found.len() > FOUND_MAX || self.bytes > FOUND_BYTES_MAX {
                        return Err(too_many(expansion.table, context));
                    }
                }
                Step::Wait => return Ok(false),
                Step::Damaged => return Err(damaged()),
                Step::End => {
                    context.shard.close_scan(scan);
                    self.scan = None;
                    let nested: Arc<[Expansion]> = expansion.nested.as_slice().into();
                    if nested.is_empty() {
                        self.give(context)?;
                    } else {
                        self.nested = Some(Box::new(Expanding::new(nested, std::mem::take(&mut self.found))));
                    }
                }
            }
        }
    }

    /// Gives each document those of the found records that belong to it.
    fn give(&mut self, context: &Context<'_>) -> Result<(), Problem> {
        let expansion = &self.expansions[self.at];
        let mut bytes = 0;
        let mut by_key: HashMap<Scalar, Vec<usize>> = HashMap::new();
        for (number, found) in self.found.iter().enumerate() {
            for key in keys(found, &expansion.other) {
                by_key.entry(key).or_default().push(number);
            }
        }
        for document in &mut self.documents {
            let mut related: Vec<usize> = Vec::new();
            for key in keys(document, &expansion.own) {
                let new = by_key.get(&key).into_iter().flatten().filter(|number| !related.contains(number));
                let new: Vec<usize> = new.copied().collect();
                related.extend(new);
            }
            bytes += related.iter().map(|number| self.found[*number].len()).sum::<usize>();
            if bytes > FOUND_BYTES_MAX {
                return Err(too_many(expansion.table, context));
            }
            let mut value = Vec::new();
            if expansion.many {
                value.write_array(related.len() as u32);
                related.iter().for_each(|number| value.extend_from_slice(&self.found[*number]));
            } else {
                match related.first() {
                    Some(number) => value.extend_from_slice(&self.found[*number]),
                    None => value.write_null(),
                }
            }
            *document = extended(document, &expansion.attribute, &value);
        }
        self.found.clear();
        self.bytes = 0;
        self.at += 1;
        Ok(())
    }

    fn close(&self, context: &mut Context<'_>) {
        self.scan.iter().for_each(|scan| context.shard.close_scan(*scan));
        self.nested.iter().for_each(|nested| nested.close(context));
    }
}
