//! What a packet of the client makes the connection do.

use std::collections::HashSet;
use std::num::NonZeroU16;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::end::End;
use super::{Connection, Published, Publishing};
use crate::mqtt::access::{Permission, Publishing as Purpose};
use crate::mqtt::bus::{Attempt, BusError, Routed};
use crate::mqtt::frame::{Audience, Message};
use crate::mqtt::identity::Peer;
use crate::mqtt::metrics::{self, Ending};
use crate::mqtt::session::subscriptions::Place;
use crate::mqtt::session::{Fault, Step, ToPublish, ToSubscribe};
use crate::mqtt::shard::Cell;
use crate::mqtt::shared::Presence;
use crate::mqtt::topics::Subscription;
use crate::mqtt::wire::packets::{Options, RetainHandling};
use crate::mqtt::wire::{Incoming, QoS, Version, reason};

/// Filters of one packet that are subscribed before others get their turn.
const FILTERS_AT_A_TIME: usize = 64;

impl<S, P> Connection<'_, S, P>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    P: Peer,
{
    pub(super) async fn on_packet(
        &mut self,
        cell: &Arc<Cell>,
        packet: Incoming,
        now: u64,
    ) -> Result<(), End> {
        if let Incoming::Disconnect(packet) = &packet {
            self.left_with = Some(packet.reason);
        }
        let step = cell.session().on_packet(packet, now)?;
        match step {
            Step::Nothing => Ok(()),
            Step::Publish(message) => self.publish(cell, &message, now),
            Step::Subscribe(wanted) => {
                // It gives others their turn in between.
                self.wakes.flush();
                self.count_came();
                self.subscribe(cell, wanted).await;
                Ok(())
            }
            Step::Unsubscribe(id, filters) => {
                self.unsubscribe(cell, id, filters);
                Ok(())
            }
            Step::Leave(departure) => Err(End::silent(Ending::ClientLeft, departure)),
        }
    }

    fn publish(&mut self, cell: &Arc<Cell>, message: &ToPublish, now: u64) -> Result<(), End> {
        let qos = message.packet.qos;
        match self.publishing("publish", &message.topic) {
            Purpose::Message => {}
            Purpose::Denied(_) => return self.deny(cell, message.id, qos),
            Purpose::Command => {
                let peer = self.peer.verified();
                let begun = self.hub.run_command(peer, self.remote, cell.shard, message);
                let code = match begun {
                    true => reason::SUCCESS,
                    false => reason::QUOTA_EXCEEDED,
                };
                cell.session().published(message.id, qos, code);
                return Ok(());
            }
        }
        let frame = Message {
            qos,
            retain: message.packet.retain,
            audience: Audience::Everybody,
            publisher: cell.key.0,
            expires_at: message.expires_at,
            topic: &message.topic,
            properties: &message.packet.properties,
            payload: &message.packet.payload,
        }
        .encode();
        let published = Published {
            id: message.id,
            qos,
            payload: message.packet.payload.len(),
        };
        let shard = cell.shard;
        let attempt = self
            .hub
            .publish_now(shard, &message.topic, &frame, now, &mut self.wakes);
        match attempt {
            Ok(Attempt::Done(routed)) => self.has_published(cell, published, Ok(routed)),
            Err(error) => self.has_published(cell, published, Err(error)),
            Ok(Attempt::NotNow(unsent)) => {
                let hub = self.hub.clone();
                self.publishing = Some(Publishing {
                    message: published,
                    result: Box::pin(
                        async move { hub.publish_waiting(shard, unsent, &frame).await },
                    ),
                });
                Ok(())
            }
        }
    }

    /// The bus has taken the message that had to wait, or not.
    pub(super) fn finish_publish(
        &mut self,
        cell: &Cell,
        result: Result<Routed, BusError>,
    ) -> Result<(), End> {
        match self.publishing.take() {
            Some(publishing) => self.has_published(cell, publishing.message, result),
            None => Ok(()),
        }
    }

    /// The bus or the sessions have the message, or nobody has.
    fn has_published(
        &mut self,
        cell: &Cell,
        Published { id, qos, payload }: Published,
        result: Result<Routed, BusError>,
    ) -> Result<(), End> {
        match result {
            Ok(routed) => {
                self.came.messages += 1;
                self.came.payload += payload;
                let code = match routed.filters + routed.shares {
                    0 => reason::NO_MATCHING_SUBSCRIBERS,
                    _ => reason::SUCCESS,
                };
                cell.session().published(id, qos, code);
                Ok(())
            }
            Err(error) => {
                let _in_span = self.span.enter();
                tracing::error!(%error, "the bus did not take a message");
                cell.session().not_published(id, qos);
                Err(End::saying(
                    Ending::BusOverloaded,
                    reason::SERVER_BUSY,
                    "the server cannot take the message now",
                ))
            }
        }
    }

    /// MQTT 5 says no in the acknowledgement, and nothing at QoS 0; 3.1.1 has no way to say no, so
    /// the connection ends (MQTT 3.1.1, 3.3.5).
    fn deny(&mut self, cell: &Cell, id: Option<NonZeroU16>, qos: QoS) -> Result<(), End> {
        match self.decoder.version() {
            Some(Version::V5) => {
                cell.session().published(id, qos, reason::NOT_AUTHORIZED);
                Ok(())
            }
            _ => {
                cell.session().not_published(id, qos);
                Err(Fault::new(reason::NOT_AUTHORIZED, "it may not be published there").into())
            }
        }
    }

    /// One packet can name very many filters, and each can match very many retained messages: others
    /// get their turn between the filters, a cut is looked for, and nothing more is looked up
    /// when the session's queue is full.
    async fn subscribe(&mut self, cell: &Arc<Cell>, wanted: ToSubscribe) {
        let mut codes = Vec::with_capacity(wanted.filters.len());
        let mut renewed = Vec::new();
        let mut seen = HashSet::new();
        for (index, filter) in wanted.filters.into_iter().enumerate() {
            if index % FILTERS_AT_A_TIME == FILTERS_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
                if self.must_end(cell).is_some() {
                    return;
                }
            }
            codes.push(match filter {
                Err(code) => code,
                Ok((subscription, options)) => {
                    let id = wanted.subscription_id;
                    let (code, retained) = self.subscribe_one(cell, &subscription, options, id);
                    // Once for each packet, however often the packet names the filter.
                    if let Some(place) = retained
                        && seen.insert(place)
                    {
                        renewed.push((subscription, place));
                    }
                    code
                }
            });
        }
        cell.session().subscribed(wanted.id, codes);
        let now = self.hub.now();
        for (subscription, place) in renewed {
            let filter = subscription.filter();
            let figures = self.hub.figures(filter);
            let any_figures = !figures.is_empty();
            let mut retained = self.hub.retained.matching(filter, now);
            retained.extend(figures);
            let mut full = false;
            {
                let mut session = cell.session();
                for frame in retained {
                    let taken = session.deliver_retained(&frame, place, now);
                    metrics::dropped_from_queue(&taken.dropped);
                    self.hub
                        .sys
                        .tally
                        .messages_dropped
                        .add(taken.dropped.for_room());
                    full |= taken.dropped.for_room() > 0;
                }
            }
            if any_figures {
                self.hub.figures_given();
            }
            if full || self.must_end(cell).is_some() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Subscribe to one filter. Gives its reason code, and the place whose retained messages are due.
    fn subscribe_one(
        &mut self,
        cell: &Arc<Cell>,
        subscription: &Subscription,
        options: Options,
        id: Option<u32>,
    ) -> (u8, Option<Place>) {
        let permission = self.subscribing("subscribe", subscription.filter());
        if let Permission::Denied(_) = permission {
            return (reason::NOT_AUTHORIZED, None);
        }
        let (known, count) = {
            let session = cell.session();
            let subscriptions = session.subscriptions();
            (subscriptions.get(subscription), subscriptions.len())
        };
        let place = match known {
            Some(place) => place,
            None if count >= self.hub.limits.max_subscriptions => {
                return (reason::QUOTA_EXCEEDED, None);
            }
            None => {
                let Some(shard) = self.hub.registry.shards().get(cell.shard) else {
                    return (reason::UNSPECIFIED, None);
                };
                match shard.subscribe(cell, subscription, Presence::Online) {
                    Ok(place) => place,
                    Err(error) => {
                        let _in_span = self.span.enter();
                        tracing::error!(%error, "the bus did not take a subscription");
                        return (reason::UNSPECIFIED, None);
                    }
                }
            }
        };
        let mut session = cell.session();
        let subscriptions = session.subscriptions_mut();
        subscriptions.insert(subscription.clone(), place, options, id);
        let send_retained = match (subscription, options.retain_handling) {
            (Subscription::Shared(_), _) | (_, RetainHandling::Never) => false,
            (Subscription::Plain(_), RetainHandling::Always) => true,
            (Subscription::Plain(_), RetainHandling::IfNew) => known.is_none(),
        };
        (options.qos.value(), send_retained.then_some(place))
    }

    fn unsubscribe(
        &mut self,
        cell: &Arc<Cell>,
        id: NonZeroU16,
        filters: Vec<Option<Subscription>>,
    ) {
        let mut existed = Vec::with_capacity(filters.len());
        for subscription in filters {
            existed.push(subscription.is_some_and(|known| self.end_subscription(cell, &known)));
        }
        cell.session().unsubscribed(id, &existed);
    }

    /// End a subscription; whether there was one.
    pub(super) fn end_subscription(&self, cell: &Cell, subscription: &Subscription) -> bool {
        let place = cell.session().subscriptions_mut().remove(subscription);
        if let Some(place) = place
            && let Some(shard) = self.hub.registry.shards().get(cell.shard)
        {
            shard.unsubscribe(cell.key, subscription, place);
        }
        place.is_some()
    }
}
