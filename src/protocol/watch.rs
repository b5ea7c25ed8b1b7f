//! What a stream over SSE or WebSocket shows: records or messages of one path, perhaps only those that a query wants,
//! from now on or from an earlier place. Both protocols share how it begins, goes on after a break, and begins anew.

use super::query::{self, Parameters};
use super::{Catalog, Context, target_of};
use shards::client::{Client, Pace};
use shards::command::Completion;
use shards::document::Writer;
use shards::log::Position;
use shards::query::Query;
use shards::replay::StreamStart;
use shards::subscription::{Request, SubscriptionRef};
use shards::topic::{KeyFilter, Resolved, Target};
use std::sync::Arc;

/// Appends what a client is told whose place is gone, as a document: events are missing, the current records follow.
pub fn write_reset(out: &mut Vec<u8>) {
    out.write_map(3);
    out.write_str("id");
    out.write_null();
    out.write_str("type");
    out.write_str("reset");
    out.write_str("value");
    out.write_null();
}

/// What is to be shown.
#[derive(Clone, Debug)]
pub struct Watch {
    pub target: Target,
    pub query: Option<Arc<Query>>,
    pub start: Option<StreamStart>,
    /// Of a WebSocket: its client writes, and subscribes to more.
    pub is_duplex: bool,
    /// What has changed of a record will do, where its state before was sent.
    pub patches: bool,
    /// Events in a second.
    pub max_rate: Option<f64>,
}

impl Watch {
    /// The client that it is shown to.
    pub fn client(&self, encoding: u8) -> Client {
        Client::stream(encoding, self.max_rate.map(Pace::new))
    }
}

/// Reads what [`super::frames::write_positions`] wrote.
fn positions(text: &str) -> Option<Vec<Position>> {
    let position = |part: &str| {
        let (epoch, seq) = part.split_once('-')?;
        Some(Position { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? })
    };
    text.split('_').map(position).collect()
}

/// A place in the history of a server: positions of its shards, or a time (milliseconds since 1970, or ISO 8601).
pub fn start_of(text: &str) -> Option<StreamStart> {
    if let Some(positions) = positions(text) {
        return Some(StreamStart::Positions(positions));
    }
    let date = shards::date::parse_iso(text).map(|date| date.as_millis());
    let millis = date.or_else(|| text.parse::<f64>().ok()).filter(|millis| (0.0..=8.64e15).contains(millis))?;
    Some(StreamStart::Time((millis * 1000.0).round() as u64))
}

/// Checks that what this server would answer is not older than a place in the history. Whoever was told of a place was
/// told by a server that has been there: one that has not is another, or has lost what it had.
///
/// # Errors
/// Status and words.
pub fn check_min(context: &Context<'_>, text: &str) -> Result<(), (u16, &'static str)> {
    let min = positions(text).ok_or((400, "min: expected a position, as a write or a stream has told it"))?;
    let shard = &*context.shard;
    let own = min.get(usize::from(shard.index())).filter(|_| min.len() == shard.shards());
    match own {
        Some(own) if shard.log().knows(*own) => Ok(()),
        _ => Err((412, "min: this server has not come to that position: it is another one's, or was lost")),
    }
}

impl Watch {
    /// What a path, a query string and the place that a client has come to ask for.
    ///
    /// # Errors
    /// Why that cannot be shown.
    pub fn new(
        resolved: Resolved<'_>,
        query: Query,
        parameters: &Parameters,
        last_event_id: Option<&str>,
        catalog: &Catalog,
    ) -> Result<Watch, String> {
        let target = target_of(resolved, catalog).ok_or("no record can have such a key")?;
        if query.limit.is_some() || !query.sort.is_empty() {
            return Err("limit and sort have no meaning for a stream: it shows all that the conditions find".into());
        }
        if !parameters.joins.is_empty() || !parameters.expansions.is_empty() {
            return Err("a stream does not reach into other tables: it would not hear of their changes".into());
        }
        if parameters.explain {
            return Err("explain is answered by GET, not by a stream".into());
        }
        // A place that a client was told is newer than the one in its URL. Browsers send back whatever they were told
        // last, and give up at a refusal: one that is none of ours is a place that is gone.
        let start = match (last_event_id.filter(|id| !id.is_empty()), &parameters.start_time) {
            (Some(id), _) => Some(start_of(id).unwrap_or(StreamStart::Positions(Vec::new()))),
            (None, Some(text)) => {
                Some(start_of(text).ok_or_else(|| format!("`{text}` is neither a position nor a time"))?)
            }
            (None, None) => None,
        };
        let is_record = matches!(target.filter, KeyFilter::Exact { .. });
        let start = match (start, parameters.previous_count) {
            (start, None) => start,
            (None, Some(_)) if !is_record => return Err("previousCount is for the stream of one record".into()),
            (None, Some(count)) => Some(StreamStart::Previous(count)),
            (Some(start), Some(_)) if last_event_id.is_some() => Some(start), // it comes back
            (Some(_), Some(_)) => return Err("startTime and previousCount do not go together".into()),
        };
        if parameters.patch && matches!(start, Some(StreamStart::Time(_))) {
            return Err("patch needs the states before: it does not go on from a time".into());
        }
        if parameters.patch && query.select.names_terms() {
            return Err("patch does not tell of $updatedtime and $expiresAt".into());
        }
        if parameters.max_rate.is_some() && parameters.previous_count.is_some() {
            return Err("maxRate and previousCount do not go together: history is shown as it was".into());
        }
        if parameters.at.is_some() || parameters.min.is_some() {
            return Err("at and min are for GET of records, not for a stream".into());
        }
        // Changes are told of live queries: one that wants everything, if nothing else.
        let query = (parameters.patch || query != Query::default()).then(|| Arc::new(query));
        let (is_duplex, patches, max_rate) = (parameters.duplex, parameters.patch, parameters.max_rate);
        Ok(Watch { target, query, start, is_duplex, patches, max_rate })
    }

    /// The same of a path and a query string that are still together.
    ///
    /// # Errors
    /// Why that cannot be shown.
    pub fn parse(
        resolved: Resolved<'_>,
        text: &str,
        last_event_id: Option<&str>,
        catalog: &Catalog,
    ) -> Result<Watch, String> {
        let (query, parameters) =
            query::parse(text, catalog.table(resolved.table), &catalog.tables).map_err(|error| error.to_string())?;
        Watch::new(resolved, query, &parameters, last_event_id, catalog)
    }
}

/// A stream that is shown. The connection must have been attached as [`shards::client::Client::stream`].
pub struct Stream {
    watch: Watch,
    encoding: u8,
    subscription: Option<SubscriptionRef>,
}

/// What has become of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Nothing,
    /// The place that it was to go on from is gone: the client must be told, before anything else. It begins anew.
    Reset,
}

impl Stream {
    /// Begins a stream; tells whether its place is gone already.
    pub fn open(context: &mut Context<'_>, watch: Watch, encoding: u8) -> (Stream, Progress) {
        let mut stream = Stream { watch, encoding, subscription: None };
        match &stream.watch.start {
            // The place of a server with another number of shards, or of another server.
            Some(StreamStart::Positions(positions)) if positions.len() != context.shard.shards() => {
                stream.subscribe(context, false);
                return (stream, Progress::Reset);
            }
            Some(start) => {
                let targets = Arc::new([stream.watch.target.clone()]);
                context.shard.check_start(context.connection, targets, start);
            }
            None => stream.subscribe(context, false),
        }
        (stream, Progress::Nothing)
    }

    fn subscribe(&mut self, context: &mut Context<'_>, goes_on: bool) {
        let (since, after_us) = match self.watch.start.take().filter(|_| goes_on) {
            None => (None, 0),
            Some(StreamStart::Positions(positions)) => (Some(positions.into()), 0),
            Some(StreamStart::Previous(_)) => (Some(vec![Position::default(); context.shard.shards()].into()), 0),
            Some(StreamStart::Time(after_us)) => {
                (Some(vec![Position::default(); context.shard.shards()].into()), after_us)
            }
        };
        let request = Request {
            snapshot: !goes_on,
            since,
            after_us,
            query: self.watch.query.clone(),
            patches: self.watch.patches,
            ..Request::new(context.connection, vec![self.watch.target.clone()], self.encoding)
        };
        self.subscription = Some(context.shard.subscribe(request));
    }

    pub fn complete(&mut self, context: &mut Context<'_>, completion: &Completion) -> Progress {
        match completion {
            // Others of the connection have begun without asking.
            Completion::Checked { .. } if self.subscription.is_some() => {}
            Completion::Checked { is_complete: true, .. } => self.subscribe(context, true),
            Completion::Checked { is_complete: false, .. } | Completion::Lost { .. } => {
                self.leave(context);
                context.shard.begin_anew(context.connection);
                // Nobody has been told of what came before.
                let is_first = matches!(self.watch.start.take(), Some(StreamStart::Previous(_)));
                self.subscribe(context, false);
                return if is_first { Progress::Nothing } else { Progress::Reset };
            }
            Completion::Subscribed { subscription, .. } if self.subscription == Some(*subscription) => {
                context.shard.start(*subscription);
                context.shard.resume_client(context.connection);
            }
            _ => {}
        }
        Progress::Nothing
    }

    pub fn leave(&mut self, context: &mut Context<'_>) {
        if let Some(subscription) = self.subscription.take() {
            context.shard.unsubscribe(subscription);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_positions_or_times() {
        let at = |epoch, seq| Position { epoch, seq };
        assert_eq!(start_of("1-5"), Some(StreamStart::Positions(vec![at(1, 5)])));
        assert_eq!(start_of("1-5_2-0"), Some(StreamStart::Positions(vec![at(1, 5), at(2, 0)])));
        assert_eq!(start_of("1767657294123.25"), Some(StreamStart::Time(1_767_657_294_123_250)));
        assert_eq!(start_of("1970-01-01T00:00:01Z"), Some(StreamStart::Time(1_000_000)));
        for none in ["", "x", "1-", "1-5_", "-5", "NaN", "1e300"] {
            assert_eq!(start_of(none), None, "{none}");
        }
    }
}
