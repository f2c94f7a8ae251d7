//! What a client is sent: the queue, the window of unacknowledged messages, topic aliases. How much
//! may wait, and what makes room, stands in [`room`](super::room).

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::BytesMut;

use super::Session;
use super::kept::{OnDisk, Unfit};
use super::message::{Aliases, Message, SharedBudget, write};
use super::room::{Room, Taken};
use crate::mqtt::settings::{Limits, Overflow};
use crate::mqtt::wire::encode::Outgoing;
use crate::mqtt::wire::publish::PublishOut;
use crate::mqtt::wire::{Ack, AckKind, QoS, Version, reason};

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
    /// Messages that waited longer than messages may.
    pub too_old: usize,
    /// Messages larger than the client takes (3.1.2.11.4).
    pub too_large: usize,
}

#[derive(Debug)]
pub(super) struct Outbound {
    control: VecDeque<Outgoing>,
    pub(super) queue: VecDeque<Message>,
    pub(super) room: Room,
    /// In the order of sending, which is the cyclic order of the packet ids.
    pub(super) inflight: VecDeque<InFlight>,
    /// How many of `inflight`, from the front, were sent on this connection.
    sent: usize,
    pub(super) next_id: u16,
    window: usize,
    aliases: Aliases,
    pub(super) on_disk: OnDisk,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: NonZeroU16,
    pub(super) stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// PUBLISH is not acknowledged. `true`: it was sent on an earlier connection.
    Published(Message, bool),
    /// PUBREL is not acknowledged.
    Released,
}

impl Session {
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

    /// The client takes no answers any more.
    pub fn drop_answers(&mut self) {
        self.outbound.control.clear();
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
            room: Room::new(limits, overflow, budget),
            inflight: VecDeque::new(),
            sent: 0,
            next_id: 1,
            window: 1,
            aliases: Aliases::default(),
            on_disk: OnDisk::Nothing,
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
        self.drop_from_queue(|message| message.qos == QoS::AtMostOnce);
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
                    self.room.free(size);
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
        let too_old = self.room.is_too_old(next, now);
        let Some(message) = self.pop() else {
            return false;
        };
        if message.has_expired(now) || too_old {
            match too_old {
                true => sent.too_old += 1,
                false => sent.expired += 1,
            }
            self.room.free(message.size());
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
            self.room.free(message.size());
            return true;
        }
        sent.messages += 1;
        sent.payload += message.frame.payload().len();
        match id {
            None => self.room.free(message.size()),
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
                self.room.free(size);
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

    /// What is on disk, if anything, is not how it is.
    pub(super) fn outdate(&mut self) {
        if self.on_disk != OnDisk::Nothing {
            self.on_disk = OnDisk::Outdated;
        }
    }

    /// Put what was on the way before the queue, in order.
    pub(super) fn restore_in_flight(&mut self, entry: InFlight) -> Result<(), Unfit> {
        if let (Some(first), Some(last)) = (self.inflight.front(), self.inflight.back())
            && distance(first.id, entry.id) <= distance(first.id, last.id)
        {
            return Err(Unfit::Unreadable("packet ids are not in order"));
        }
        if let Stage::Published(message, _) = &entry.stage {
            self.room.take(message.size());
        }
        self.inflight.push_back(entry);
        Ok(())
    }

    pub(super) fn restore_queued(&mut self, number: u64, message: Message, now: u64) -> Taken {
        if self.queue.is_empty() && matches!(self.on_disk, OnDisk::UpTo { .. }) {
            self.room.first = number;
        }
        let end = self.room.first + self.queue.len() as u64;
        if number != end {
            self.outdate();
        }
        let taken = self.enqueue_at(message, now);
        if let OnDisk::UpTo { .. } = self.on_disk {
            let first = self.room.first;
            let end = first + self.queue.len() as u64;
            self.on_disk = OnDisk::UpTo { first, end };
        }
        taken
    }

    pub(super) fn restore_ends(&mut self) -> Result<(), Unfit> {
        if let (Some(first), Some(last)) = (self.inflight.front(), self.inflight.back()) {
            let next = NonZeroU16::new(self.next_id).unwrap_or(NonZeroU16::MIN);
            let is_free = distance(first.id, next) > distance(first.id, last.id);
            if !is_free && next != first.id {
                self.next_id = last.id.checked_add(1).unwrap_or(NonZeroU16::MIN).get();
            }
        }
        match self.room.is_over_limit() {
            true => Err(Unfit::OverLimit("more is on the way than may be")),
            false => Ok(()),
        }
    }

    fn finish(&mut self, place: Option<usize>) {
        let Some(place) = place else {
            return;
        };
        if let Some(entry) = self.inflight.remove(place) {
            if self.inflight.is_empty() {
                // As in the queue.
                self.inflight.clear();
            }
            if place < self.sent {
                self.sent -= 1;
            }
            if let Stage::Published(message, _) = entry.stage {
                self.room.free(message.size());
            }
        }
    }

    fn find(&self, id: NonZeroU16) -> Option<usize> {
        let first = self.inflight.front()?.id;
        if first == id {
            return Some(0);
        }
        self.inflight
            .binary_search_by_key(&distance(first, id), |entry| distance(first, entry.id))
            .ok()
    }
}

/// How far a packet id is behind another, going around.
fn distance(first: NonZeroU16, id: NonZeroU16) -> u16 {
    id.get().wrapping_sub(first.get())
}
