//! What a client is sent: the queue, the window of unacknowledged messages, topic aliases.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;

use super::Session;
use super::message::{Aliases, Message, SharedBudget, write};
use crate::mqtt::settings::{Limits, Overflow};
use crate::mqtt::wire::encode::Outgoing;
use crate::mqtt::wire::publish::PublishOut;
use crate::mqtt::wire::{Ack, AckKind, QoS, Version, reason};

/// What became of a message, or of those that had to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Whether the message waits to be sent.
    pub queued: bool,
    /// Messages that were dropped because the queue is full.
    pub dropped: usize,
}

/// What was written by [`Session::transmit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// PUBLISH packets.
    pub messages: usize,
    /// Octets of their payloads.
    pub payload: usize,
    /// Other packets.
    pub others: usize,
    /// Messages that expired before they could be sent.
    pub expired: usize,
    /// Messages larger than the client takes (3.1.2.11.4).
    pub too_large: usize,
}

#[derive(Debug)]
pub(super) struct Outbound {
    control: VecDeque<Outgoing>,
    queue: VecDeque<Message>,
    /// In the order of sending, which is the cyclic order of the packet ids.
    inflight: VecDeque<InFlight>,
    /// How many of `inflight`, from the front, were sent on this connection.
    sent: usize,
    next_id: u16,
    window: usize,
    aliases: Aliases,
    overflow: Overflow,
    max_messages: usize,
    max_bytes: usize,
    bytes: usize,
    budget: Arc<SharedBudget>,
}

#[derive(Debug)]
struct InFlight {
    id: NonZeroU16,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// PUBLISH is not acknowledged. `true`: it was sent on an earlier connection.
    Published(Message, bool),
    /// PUBREL is not acknowledged.
    Released,
}

impl Session {
    /// Queue a message for the client.
    pub fn enqueue(&mut self, message: Message) -> Taken {
        self.outbound.enqueue(message)
    }

    /// Drop messages of the queue's front that the client may not read: of the first `unchecked`
    /// the last `most`, so that those that make room meanwhile were not checked yet. Gives how
    /// many are left to check, and how many were dropped.
    ///
    /// What was sent before and is not acknowledged stays: the client has been given it.
    pub fn sift(
        &mut self,
        unchecked: usize,
        most: usize,
        may_read: impl Fn(&str) -> bool,
    ) -> (usize, usize) {
        self.outbound.sift(unchecked, most, may_read)
    }

    /// Whether there is something that may be sent now.
    pub fn has_something_to_send(&self) -> bool {
        let out = &self.outbound;
        !out.control.is_empty()
            || out.resends()
            || match out.queue.front() {
                None => false,
                Some(message) => message.qos == QoS::AtMostOnce || out.window_is_open(),
            }
    }

    /// Packets that answer the client and wait to be sent.
    pub fn answers_waiting(&self) -> usize {
        self.outbound.control.len()
    }

    /// Write what may be sent now, until `out` has `target` octets or more.
    pub fn transmit(&mut self, now: u64, out: &mut BytesMut, target: usize) -> Sent {
        let mut sent = Sent::default();
        let Some(link) = self.link else {
            return sent;
        };
        let outbound = &mut self.outbound;
        while out.len() < target {
            if let Some(packet) = outbound.control.pop_front() {
                packet.encode(link.version, link.max_packet, out);
                sent.others += 1;
            } else if outbound.resends() {
                outbound.resend(link.version, link.max_packet, now, out, &mut sent);
            } else if !outbound.send_next(link.version, link.max_packet, now, out, &mut sent) {
                break;
            }
        }
        sent
    }
}

impl Outbound {
    pub(super) fn new(limits: &Limits, overflow: Overflow, budget: Arc<SharedBudget>) -> Self {
        Self {
            control: VecDeque::new(),
            queue: VecDeque::new(),
            inflight: VecDeque::new(),
            sent: 0,
            next_id: 1,
            window: 1,
            aliases: Aliases::default(),
            overflow,
            max_messages: limits.queue_messages,
            max_bytes: limits.queue_bytes,
            bytes: 0,
            budget,
        }
    }

    pub(super) fn connect(&mut self, window: u16, max_aliases: u16) {
        self.control.clear();
        self.sent = 0;
        self.window = usize::from(window.max(1));
        self.aliases = Aliases::new(max_aliases);
    }

    /// QoS 0 is for those who are there (4.1): it does not wait for the next connection.
    pub(super) fn disconnect(&mut self) {
        self.control.clear();
        self.aliases = Aliases::default();
        self.sent = 0;
        let mut freed = 0;
        self.queue.retain(|message| {
            let keep = message.qos != QoS::AtMostOnce;
            if !keep {
                freed += message.size();
            }
            keep
        });
        self.free(freed);
        for entry in &mut self.inflight {
            if let Stage::Published(_, again) = &mut entry.stage {
                *again = true;
            }
        }
    }

    pub(super) fn control(&mut self, packet: Outgoing) {
        self.control.push_back(packet);
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.inflight.len()
    }

    fn enqueue(&mut self, message: Message) -> Taken {
        let size = message.size();
        let mut taken = Taken::default();
        while !self.has_room(size) {
            let oldest = match self.overflow {
                Overflow::DropNewest => None,
                Overflow::DropOldest => self.queue.pop_front(),
            };
            taken.dropped += 1;
            match oldest {
                None => return taken,
                Some(oldest) => self.free(oldest.size()),
            }
        }
        self.bytes += size;
        self.budget.used.fetch_add(size, Ordering::Relaxed);
        self.queue.push_back(message);
        taken.queued = true;
        taken
    }

    fn sift(
        &mut self,
        unchecked: usize,
        most: usize,
        may_read: impl Fn(&str) -> bool,
    ) -> (usize, usize) {
        let unchecked = unchecked.min(self.queue.len());
        let left = unchecked.saturating_sub(most);
        let mut checked = self.queue.range(left..unchecked);
        if checked.all(|message| may_read(message.frame.topic())) {
            return (left, 0);
        }
        let (mut place, mut freed) = (0, 0);
        let before = self.queue.len();
        self.queue.retain(|message| {
            let checked = (left..unchecked).contains(&place);
            place += 1;
            let keep = !checked || may_read(message.frame.topic());
            if !keep {
                freed += message.size();
            }
            keep
        });
        self.free(freed);
        (left, before - self.queue.len())
    }

    fn has_room(&self, size: usize) -> bool {
        self.queue.len() < self.max_messages
            && self.bytes + size <= self.max_bytes
            && self.budget.used().saturating_add(size) <= self.budget.max
    }

    fn free(&mut self, size: usize) {
        self.bytes = self.bytes.saturating_sub(size);
        self.budget.used.fetch_sub(size, Ordering::Relaxed);
    }

    /// Whether something of an earlier connection is to be sent again now.
    fn resends(&self) -> bool {
        match self.inflight.get(self.sent).map(|entry| &entry.stage) {
            None => false,
            Some(Stage::Released) => true,
            Some(Stage::Published(..)) => self.sent < self.window,
        }
    }

    fn window_is_open(&self) -> bool {
        self.sent == self.inflight.len()
            && self.inflight.len() < self.window
            && self
                .inflight
                .front()
                .is_none_or(|oldest| oldest.id.get() != self.next_id)
    }

    fn resend(
        &mut self,
        version: Version,
        max_packet: u32,
        now: u64,
        out: &mut BytesMut,
        sent: &mut Sent,
    ) {
        let Some(entry) = self.inflight.get(self.sent) else {
            return;
        };
        match &entry.stage {
            Stage::Released => {
                Outgoing::Ack(AckKind::PubRel, entry.id, reason::SUCCESS)
                    .encode(version, max_packet, out);
                sent.others += 1;
                self.sent += 1;
            }
            Stage::Published(message, dup) => {
                let packet = PublishOut {
                    dup: *dup,
                    id: Some(entry.id),
                    ..message.packet(now)
                };
                if write(packet, &mut self.aliases, version, max_packet, out) {
                    sent.messages += 1;
                    sent.payload += message.frame.payload().len();
                    self.sent += 1;
                } else {
                    // The client takes smaller packets now than before: it cannot have this one.
                    sent.too_large += 1;
                    let size = message.size();
                    self.inflight.remove(self.sent);
                    self.free(size);
                }
            }
        }
    }

    /// Send or discard the next message of the queue; `false` if there is none that may go.
    fn send_next(
        &mut self,
        version: Version,
        max_packet: u32,
        now: u64,
        out: &mut BytesMut,
        sent: &mut Sent,
    ) -> bool {
        let Some(next) = self.queue.front() else {
            return false;
        };
        if next.qos != QoS::AtMostOnce && !self.window_is_open() {
            return false;
        }
        let Some(message) = self.queue.pop_front() else {
            return false;
        };
        if message.frame.expires_at().is_some_and(|at| at <= now) {
            sent.expired += 1;
            self.free(message.size());
            return true;
        }
        let id = match message.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => NonZeroU16::new(self.next_id),
        };
        let packet = PublishOut {
            id,
            ..message.packet(now)
        };
        if !write(packet, &mut self.aliases, version, max_packet, out) {
            sent.too_large += 1;
            self.free(message.size());
            return true;
        }
        sent.messages += 1;
        sent.payload += message.frame.payload().len();
        match id {
            None => self.free(message.size()),
            Some(id) => {
                self.next_id = self.next_id.checked_add(1).unwrap_or(1);
                self.inflight.push_back(InFlight {
                    id,
                    stage: Stage::Published(message, false),
                });
                self.sent += 1;
            }
        }
        true
    }

    /// An acknowledgement of the client, and the answer to it. One that belongs to nothing
    /// changes nothing.
    pub(super) fn on_ack(&mut self, ack: Ack) -> Option<Outgoing> {
        let place = self.find(ack.id);
        let stage = place.and_then(|place| self.inflight.get_mut(place));
        let release = |code| Some(Outgoing::Ack(AckKind::PubRel, ack.id, code));
        match (ack.kind, stage.map(|entry| &mut entry.stage)) {
            (AckKind::PubAck, Some(Stage::Published(message, _)))
                if message.qos == QoS::AtLeastOnce =>
            {
                self.finish(place);
                None
            }
            (AckKind::PubRec, Some(stage @ Stage::Published(..))) => {
                let Stage::Published(message, _) = stage else {
                    return None;
                };
                if message.qos != QoS::ExactlyOnce {
                    return None;
                }
                if ack.reason >= reason::UNSPECIFIED {
                    self.finish(place);
                    return None;
                }
                let size = message.size();
                *stage = Stage::Released;
                self.free(size);
                release(reason::SUCCESS)
            }
            (AckKind::PubRec, Some(Stage::Released)) => release(reason::SUCCESS),
            (AckKind::PubRec, None) if ack.reason < reason::UNSPECIFIED => {
                release(reason::PACKET_ID_NOT_FOUND)
            }
            (AckKind::PubComp, Some(Stage::Released)) => {
                self.finish(place);
                None
            }
            _ => None,
        }
    }

    fn finish(&mut self, place: Option<usize>) {
        let Some(place) = place else {
            return;
        };
        if let Some(entry) = self.inflight.remove(place) {
            if place < self.sent {
                self.sent -= 1;
            }
            if let Stage::Published(message, _) = entry.stage {
                self.free(message.size());
            }
        }
    }

    fn find(&self, id: NonZeroU16) -> Option<usize> {
        let first = self.inflight.front()?.id.get();
        let distance = |id: NonZeroU16| id.get().wrapping_sub(first);
        self.inflight
            .binary_search_by_key(&distance(id), |entry| distance(entry.id))
            .ok()
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
