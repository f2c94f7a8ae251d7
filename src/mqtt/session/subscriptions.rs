//! What a session is subscribed to, and what of the bus's deliveries is for it.

use std::collections::HashMap;
use std::num::NonZeroU16;

use super::message::Message;
use super::room::Taken;
use super::{Session, lower};
use crate::mqtt::bus::{ById, FilterId, ShareId};
use crate::mqtt::frame::{Audience, Frame};
use crate::mqtt::topics::Subscription;
use crate::mqtt::wire::encode::Outgoing;
use crate::mqtt::wire::packets::Options;
use crate::mqtt::wire::{QoS, reason};

/// The subscriptions of a session.
#[derive(Debug, Default)]
pub struct Subscriptions {
    places: HashMap<Subscription, Place>,
    terms: ById<Place, Terms>,
}

/// The name the bus has for a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// A filter of the shard.
    Filter(FilterId),
    /// A shared group.
    Share(ShareId),
}

#[derive(Debug, Clone, Copy)]
struct Terms {
    options: Options,
    id: Option<u32>,
}

impl Subscriptions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Where a subscription is, if there is one.
    pub fn get(&self, subscription: &Subscription) -> Option<Place> {
        self.places.get(subscription).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Subscription, Place)> {
        self.places
            .iter()
            .map(|(subscription, &place)| (subscription, place))
    }

    /// All of them with their options and identifiers.
    pub(super) fn terms(&self) -> impl Iterator<Item = (&Subscription, Options, Option<u32>)> {
        self.places.iter().filter_map(|(subscription, place)| {
            let terms = self.terms.get(place)?;
            Some((subscription, terms.options, terms.id))
        })
    }

    /// Add a subscription or change its terms. Whether it is new.
    pub fn insert(
        &mut self,
        subscription: Subscription,
        place: Place,
        options: Options,
        id: Option<u32>,
    ) -> bool {
        self.terms.insert(place, Terms { options, id });
        self.places.insert(subscription, place).is_none()
    }

    /// Take a subscription out.
    pub fn remove(&mut self, subscription: &Subscription) -> Option<Place> {
        let place = self.places.remove(subscription)?;
        self.terms.remove(&place);
        Some(place)
    }

    /// Take all out.
    pub fn drain(&mut self) -> Vec<(Subscription, Place)> {
        self.terms.clear();
        self.places.drain().collect()
    }
}

impl Session {
    /// The subscriptions, to change them.
    pub fn subscriptions_mut(&mut self) -> &mut Subscriptions {
        &mut self.subscriptions
    }

    /// Answer SUBSCRIBE with a reason code for each filter.
    pub fn subscribed(&mut self, id: NonZeroU16, codes: Vec<u8>) {
        self.send(Outgoing::SubAck(id, codes));
    }

    /// Answer UNSUBSCRIBE; `true` for each filter there was a subscription for.
    pub fn unsubscribed(&mut self, id: NonZeroU16, existed: &[bool]) {
        let code = |existed: &bool| match existed {
            true => reason::SUCCESS,
            false => reason::NO_SUBSCRIPTION,
        };
        self.send(Outgoing::UnsubAck(id, existed.iter().map(code).collect()));
    }

    /// Take a frame that matched these subscriptions, as one message: with the highest QoS of
    /// them and all their identifiers (3.3.4).
    pub fn deliver(
        &mut self,
        frame: &Frame,
        places: impl IntoIterator<Item = Place>,
        now: u64,
    ) -> Taken {
        let own = frame.publisher() == self.key.0;
        let mut highest: Option<QoS> = None;
        let mut as_published = false;
        let mut subscription_ids = Vec::new();
        for place in places {
            let Some(terms) = self.subscriptions.terms.get(&place) else {
                continue;
            };
            if own && terms.options.no_local {
                continue;
            }
            highest = Some(match highest {
                Some(qos) if qos > terms.options.qos => qos,
                _ => terms.options.qos,
            });
            as_published |= terms.options.retain_as_published;
            subscription_ids.extend(terms.id);
        }
        let Some(highest) = highest else {
            return Taken::default();
        };
        let retain = frame.retain() && as_published;
        self.admit(frame, highest, retain, subscription_ids, now)
    }

    /// Take a retained message for a subscription just made (3.3.1.3).
    pub fn deliver_retained(&mut self, frame: &Frame, place: Place, now: u64) -> Taken {
        let Some(terms) = self.subscriptions.terms.get(&place).copied() else {
            return Taken::default();
        };
        if terms.options.no_local && frame.publisher() == self.key.0 {
            return Taken::default();
        }
        let ids = terms.id.into_iter().collect();
        self.admit(frame, terms.options.qos, true, ids, now)
    }

    fn admit(&mut self, frame: &Frame, most: QoS, retain: bool, ids: Vec<u32>, now: u64) -> Taken {
        let qos = lower(frame.qos(), most);
        let absent = self.link.is_none() && qos == QoS::AtMostOnce;
        if absent || (frame.audience() == Audience::Administrators && !self.administrator) {
            return Taken::default();
        }
        self.enqueue(Message {
            frame: frame.clone(),
            qos,
            retain,
            subscription_ids: ids,
            queued_at: i64::try_from(now).unwrap_or(i64::MAX),
        })
    }
}
