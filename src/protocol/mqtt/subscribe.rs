//! SUBSCRIBE and UNSUBSCRIBE. They are answered when every shard concerned knows of the subscriptions and, where the
//! session outlives the connection, when they are on disk.

use super::packet::{Filter, Version, reason, write_suback, write_unsuback};
use super::property::Properties;
use super::session::MqttSession;
use crate::protocol::format::Format;
use crate::protocol::frames::{Encoding, Protocol};
use crate::protocol::framing::Framing;
use crate::protocol::query::{self, Parameters};
use crate::protocol::{Context, Flow};
use litemap::LiteMap;
use shards::log::Position;
use shards::query::Query;
use shards::session::StoredSubscription;
use shards::subscription::{Request, SubscriptionRef};
use shards::topic::{self, Target};
use std::sync::Arc;
use tracing::debug;

/// Events of live queries are delivered at most once.
const LIVE_QUERY_QOS: u8 = 0;

/// A subscription of this connection.
pub(super) struct Own {
    pub reference: SubscriptionRef,
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub identifier: Option<u32>,
    pub format: Format,
    /// Of a live query: only records that it wants.
    pub query: Option<Box<str>>,
}

/// A SUBACK or UNSUBACK that waits.
pub(super) struct Replying {
    packet: Vec<u8>,
    /// Subscriptions that are not known everywhere.
    waiting: Vec<SubscriptionRef>,
    /// Those that begin with the answer.
    granted: Vec<SubscriptionRef>,
    /// The session is being saved: the number of the save.
    save: Option<u64>,
}

impl MqttSession {
    pub(super) fn subscribe(
        &mut self,
        context: &mut Context<'_>,
        packet_id: u16,
        properties: &Properties<'_>,
        filters: &[Filter<'_>],
    ) -> Flow {
        let format = properties.user("format").map(Format::of_name);
        let query = properties.user("query");
        let mut waiting = Vec::new();
        let mut codes = Vec::new();
        for filter in filters {
            let granted = match format {
                Some(None) => Err(reason::UNSPECIFIED),
                _ => {
                    let format = format.flatten().unwrap_or(self.outgoing);
                    self.subscribe_one(context, filter, format, properties.subscription_identifier(), query)
                }
            };
            codes.push(match granted {
                Ok(subscription) => {
                    waiting.push(subscription);
                    if query.is_some() { LIVE_QUERY_QOS } else { filter.qos }
                }
                Err(code) => {
                    debug!(client = %self.client_id, filter = filter.filter, "SUBSCRIBE refused: {code:#x}");
                    if self.is_v5() { code } else { reason::UNSPECIFIED }
                }
            });
        }
        // A filter that was given twice: the second subscription has replaced the first.
        waiting.retain(|waiting| self.subscriptions.values().any(|own| own.reference == *waiting));
        let mut packet = Vec::new();
        write_suback(self.version, packet_id, &codes, &mut packet);
        self.reply(context, packet, waiting)
    }

    fn subscribe_one(
        &mut self,
        context: &mut Context<'_>,
        filter: &Filter<'_>,
        format: Format,
        identifier: Option<u32>,
        query: Option<&str>,
    ) -> Result<SubscriptionRef, u8> {
        let (targets, group) = targets_of(context, filter.filter)?;
        let live = live_query(context, query, &targets, group.as_deref())?;
        let replaced = self.subscriptions.get(filter.filter);
        let existing = replaced.map(|own| own.reference);
        // At QoS 0 there is nothing left that it would have to be given.
        let reliable = replaced.filter(|own| own.qos > 0 && group.is_none()).map(|own| own.reference);
        if existing.is_none() && self.subscriptions.len() >= context.shard.limits().subscriptions_max {
            return Err(reason::QUOTA_EXCEEDED);
        }
        let is_v5 = self.is_v5();
        let snapshot = match filter.retain_handling {
            0 => true,
            1 => existing.is_none_or(|existing| !context.shard.is_live(existing)), // what it had not been given yet
            _ => false,
        };
        let mut own = Own {
            reference: SubscriptionRef { index: 0, generation: 0 },
            qos: if live.is_some() { LIVE_QUERY_QOS } else { filter.qos },
            no_local: is_v5 && filter.no_local,
            retain_as_published: is_v5 && filter.retain_as_published,
            identifier,
            format,
            query: query.map(Box::from),
        };
        // What it had not been given yet is not lost [MQTT-3.8.4-4].
        let since = reliable.and_then(|replaced| context.shard.begins(replaced));
        own.reference = self.open(context, &own, (targets, group), live, snapshot, since);
        let subscription = own.reference;
        self.has_no_local |= own.no_local;
        self.keep(filter.filter.into(), own);
        if let Some(replaced) = existing {
            context.shard.unsubscribe(replaced); // the new one hears already [MQTT-3.8.4-3]
        }
        Ok(subscription)
    }

    /// Subscribes at the shard.
    fn open(
        &self,
        context: &mut Context<'_>,
        own: &Own,
        (targets, group): (Vec<Target>, Option<Box<str>>),
        query: Option<Arc<Query>>,
        snapshot: bool,
        since: Option<Arc<[Position]>>,
    ) -> SubscriptionRef {
        context.shard.subscribe(Request {
            connection: context.connection,
            targets,
            encoding: self.encoding(context, own.format),
            qos: own.qos,
            no_local: if own.no_local { self.number } else { 0 },
            retain_as_published: own.retain_as_published,
            identifier: own.identifier,
            snapshot,
            since,
            group,
            after_us: 0,
            query,
            patches: false,
        })
    }

    /// What messages to this client are encoded as.
    pub(super) fn encoding(&self, context: &Context<'_>, format: Format) -> u8 {
        let protocol = match (self.version, context.framing) {
            (Version::V4, Framing::None) => Protocol::MqttV4,
            (Version::V5, Framing::None) => Protocol::MqttV5,
            (Version::V4, Framing::WebSocket) => Protocol::MqttV4OverWebSocket,
            (Version::V5, Framing::WebSocket) => Protocol::MqttV5OverWebSocket,
        };
        Encoding { protocol, format }.code()
    }

    /// Subscribes again to what a stored session had; `None`: there is no such table any more.
    pub(super) fn reopen(&mut self, context: &mut Context<'_>, stored: &StoredSubscription) -> Option<SubscriptionRef> {
        let targets = targets_of(context, &stored.filter).ok()?;
        let query = live_query(context, stored.query.as_deref(), &targets.0, targets.1.as_deref()).ok()?;
        let shards = context.shard.shards();
        let since = stored.since.clone().unwrap_or_else(|| vec![Position::default(); shards].into());
        let mut own = Own {
            reference: SubscriptionRef { index: 0, generation: 0 },
            qos: stored.qos,
            no_local: stored.no_local,
            retain_as_published: stored.retain_as_published,
            identifier: stored.identifier.filter(|_| self.is_v5()),
            format: Format::ALL[usize::from(stored.format).min(Format::ALL.len() - 1)],
            query: stored.query.clone(),
        };
        own.reference = self.open(context, &own, targets, query, stored.is_unfinished, Some(since));
        let subscription = own.reference;
        self.has_no_local |= own.no_local;
        self.keep(stored.filter.clone(), own);
        Some(subscription)
    }

    pub(super) fn unsubscribe(&mut self, context: &mut Context<'_>, packet_id: u16, filters: &[&str]) -> Flow {
        let mut codes = Vec::new();
        for filter in filters {
            codes.push(match self.subscriptions.remove(*filter) {
                Some(own) => {
                    context.shard.unsubscribe(own.reference);
                    reason::SUCCESS
                }
                None => reason::NO_SUBSCRIPTION_EXISTED,
            });
        }
        let mut packet = Vec::new();
        write_unsuback(self.version, packet_id, &codes, &mut packet);
        self.reply(context, packet, Vec::new())
    }

    fn reply(&mut self, context: &mut Context<'_>, packet: Vec<u8>, waiting: Vec<SubscriptionRef>) -> Flow {
        let granted = waiting.clone();
        self.replying = Some(Box::new(Replying { packet, waiting, granted, save: None }));
        self.finish_replying(context)
    }

    /// Every shard concerned knows of a subscription.
    pub(super) fn confirmed(&mut self, context: &mut Context<'_>, subscription: SubscriptionRef) -> Flow {
        let Some(replying) = &mut self.replying else { return Flow::Continue };
        replying.waiting.retain(|waiting| *waiting != subscription);
        self.finish_replying(context)
    }

    /// Sends the answer and lets the subscriptions begin, once all that it waits for is there.
    pub(super) fn finish_replying(&mut self, context: &mut Context<'_>) -> Flow {
        let Some(replying) = &self.replying else { return Flow::Continue };
        if !replying.waiting.is_empty() {
            return Flow::Blocked;
        }
        if self.is_durable() {
            let save = match replying.save {
                Some(save) => save,
                None => self.save(context),
            };
            let is_saved = self.saves.done >= save;
            if let Some(replying) = self.replying.as_mut().filter(|_| !is_saved) {
                replying.save = Some(save);
                return Flow::Blocked;
            }
        }
        let Some(replying) = self.replying.take() else { return Flow::Continue };
        context.write_packet(|out| out.extend_from_slice(&replying.packet));
        for subscription in replying.granted {
            context.shard.start(subscription);
        }
        Flow::Continue
    }

    fn keep(&mut self, filter: Box<str>, own: Own) {
        if self.subscriptions.is_empty() {
            self.subscriptions = LiteMap::with_capacity(1); // most clients have just one
        }
        self.subscriptions.insert(filter, own);
    }

    /// What is stored of the subscriptions.
    pub(super) fn stored_subscriptions(&self, context: &mut Context<'_>) -> Vec<StoredSubscription> {
        let stored = |(filter, own): (_, &Own)| StoredSubscription {
            filter: Box::clone(filter),
            qos: own.qos,
            no_local: own.no_local,
            retain_as_published: own.retain_as_published,
            identifier: own.identifier,
            is_unfinished: !context.shard.has_begun(own.reference),
            format: own.format as u8,
            since: context.shard.since(own.reference),
            query: own.query.clone(),
        };
        self.subscriptions.iter().map(stored).collect()
    }
}

/// The query of a SUBSCRIBE's user property `query`, or the reason code with which it is refused.
fn live_query(
    context: &Context<'_>,
    text: Option<&str>,
    targets: &[Target],
    group: Option<&str>,
) -> Result<Option<Arc<Query>>, u8> {
    let Some(text) = text else { return Ok(None) };
    let ([target], None) = (targets, group) else {
        debug!("a live query needs a filter of one table, and is not shared");
        return Err(reason::TOPIC_FILTER_INVALID);
    };
    match query::parse(text, context.catalog.table(target.table), &context.catalog.tables) {
        Ok((query, parameters))
            if query.limit.is_none() && query.sort.is_empty() && parameters == Parameters::default() =>
        {
            Ok(Some(Arc::new(query)))
        }
        Ok(_) => {
            debug!("limit, sort and parameters have no meaning for a live query");
            Err(reason::UNSPECIFIED)
        }
        Err(error) => {
            debug!("{error}");
            Err(reason::UNSPECIFIED)
        }
    }
}

/// What a topic filter covers, and the group that it is shared with, if any; or the reason code with which it is refused.
pub(super) fn targets_of(context: &Context<'_>, filter: &str) -> Result<(Vec<Target>, Option<Box<str>>), u8> {
    let shared = match filter.strip_prefix("$share/") {
        None => None,
        Some(rest) => {
            let (group, own) = rest.split_once('/').ok_or(reason::TOPIC_FILTER_INVALID)?;
            if group.is_empty() || group.contains(['+', '#']) || own.is_empty() {
                return Err(reason::TOPIC_FILTER_INVALID); // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
            }
            Some((own, rest.into()))
        }
    };
    let (filter, group) = shared.map_or((filter, None), |(own, group)| (own, Some(group)));
    let levels = topic::parse_filter(filter).map_err(|_| reason::TOPIC_FILTER_INVALID)?;
    let targets = context.catalog.mqtt.compile(&levels);
    if targets.is_empty() {
        return Err(reason::TOPIC_FILTER_INVALID); // no such table (compat §3.4)
    }
    Ok((targets, group))
}
