use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::message::{Message, SharedBudget};
use super::room::Dropped;
use super::*;
use crate::ca::id::{CaKeyId, CertSerial};
use crate::ca::registry::Purpose;
use crate::mqtt::bus::SessionKey;
use crate::mqtt::frame::{self, Audience, Frame};
use crate::mqtt::topics::TopicName;
use crate::mqtt::wire::{Ack, AckKind, Incoming};
use crate::store::sessions::record::HolderRecord;

pub(super) fn session(limits: Limits, overflow: Overflow, budget: &Arc<SharedBudget>) -> Session {
    let limits = Arc::new(limits);
    Session::new(
        SessionKey(1),
        "c".into(),
        false,
        limits,
        overflow,
        budget.clone(),
    )
}

pub(super) fn connect(receive_maximum: u16) -> Connect {
    Connect {
        version: Version::V5,
        clean_start: false,
        keep_alive: 0,
        client_id: "c".into(),
        session_expiry: 100,
        receive_maximum,
        max_packet: u32::MAX,
        alias_maximum: 0,
        wants_auth: false,
        will: None,
    }
}

pub(super) fn frame(topic: &str, payload: &[u8], expires_at: Option<u64>) -> Frame {
    frame::Message {
        qos: QoS::ExactlyOnce,
        retain: false,
        audience: Audience::Everybody,
        publisher: 7,
        expires_at,
        topic: &TopicName::parse(topic.to_owned(), &Default::default()).unwrap(),
        properties: &[],
        payload,
    }
    .encode()
}

pub(super) fn holder() -> HolderRecord {
    let serial = CertSerial::from_be_bytes(&[1]).unwrap();
    HolderRecord {
        purpose: Purpose::Device,
        administrator: false,
        issuer: CaKeyId::from_bytes([1; 32]),
        serial: serial.clone(),
        common_name: None,
        ca_sn: serial,
        address: ([127, 0, 0, 1], 1).into(),
        since_ms: 0,
    }
}

pub(super) fn queued(frame: Frame, qos: QoS) -> Message {
    Message {
        frame,
        qos,
        retain: false,
        subscription_ids: Vec::new(),
        queued_at: 0,
    }
}

fn small(messages: usize) -> Limits {
    Limits {
        queue_messages: messages,
        ..Limits::default()
    }
}

fn will(delay: u32) -> Option<(TopicName, Will)> {
    let topic = TopicName::parse("w", &Default::default()).unwrap();
    let will = Will {
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "w".into(),
        payload: Bytes::new(),
        delay,
        expiry: None,
        properties: Bytes::new(),
        declared_text: false,
    };
    Some((topic, will))
}

#[test]
fn a_full_queue_drops_by_policy_and_counts() {
    for (overflow, kept) in [(Overflow::DropNewest, b"AB"), (Overflow::DropOldest, b"DE")] {
        let budget = Arc::new(SharedBudget::new(1 << 20));
        let mut session = session(small(2), overflow, &budget);
        session.connect(&connect(10), None, 100);
        let dropped: usize = (b'A'..=b'E')
            .map(|payload| {
                let message = queued(frame("t", &[payload], None), QoS::AtLeastOnce);
                session.enqueue(message).dropped.queue_full
            })
            .sum();
        assert_eq!(dropped, 3);
        let mut out = BytesMut::new();
        assert_eq!(session.transmit(0, &mut out, 1 << 20).messages, 2);
        let payloads: Vec<u8> = out.iter().copied().filter(u8::is_ascii_uppercase).collect();
        assert_eq!(payloads, kept);
    }
}

/// The payloads that the session sends now, one octet each.
fn sent_now(session: &mut Session, now: u64) -> Vec<u8> {
    let mut out = BytesMut::new();
    session.transmit(now, &mut out, 1 << 20);
    out.iter().copied().filter(u8::is_ascii_uppercase).collect()
}

fn queued_at(payload: u8, expires_at: Option<u64>, at: i64) -> Message {
    Message {
        queued_at: at,
        ..queued(frame("t", &[payload], expires_at), QoS::AtLeastOnce)
    }
}

#[test]
fn what_is_of_no_use_makes_room_first_whatever_the_policy() {
    for overflow in [Overflow::DropNewest, Overflow::DropOldest] {
        let budget = Arc::new(SharedBudget::new(1 << 20));
        let limits = Limits {
            queue_age: Some(std::time::Duration::from_secs(10)),
            ..small(4)
        };
        let mut session = session(limits, overflow, &budget);
        session.connect(&connect(10), None, 100);
        for message in [
            queued_at(b'A', None, 0),
            queued_at(b'B', None, 5_000),
            queued_at(b'C', Some(9_000), 5_000),
            queued_at(b'D', None, 6_000),
        ] {
            assert_eq!(session.enqueue(message).dropped, Dropped::default());
        }
        // A is too old, C has expired: there is room for two more.
        let taken = session.enqueue(queued_at(b'E', None, 11_000));
        let gone = Dropped {
            expired: 1,
            too_old: 1,
            ..Dropped::default()
        };
        assert_eq!((taken.queued, taken.dropped), (true, gone));
        assert!(session.enqueue(queued_at(b'F', None, 11_000)).queued);
        let taken = session.enqueue(queued_at(b'G', None, 11_000));
        assert_eq!(taken.dropped.queue_full, 1);
        let kept = match overflow {
            Overflow::DropNewest => b"BDEF",
            Overflow::DropOldest => b"DEFG",
        };
        assert_eq!(sent_now(&mut session, 11_000), kept);
    }
}

#[test]
fn a_message_that_waited_too_long_is_not_sent_and_one_sent_before_is_sent_again() {
    let budget = Arc::new(SharedBudget::new(1 << 20));
    let limits = Limits {
        queue_age: Some(std::time::Duration::from_secs(10)),
        ..Limits::default()
    };
    let mut session = session(limits, Overflow::DropNewest, &budget);
    session.connect(&connect(1), None, 100);
    session.enqueue(queued_at(b'A', None, 0));
    session.enqueue(queued_at(b'B', None, 0));
    session.enqueue(queued_at(b'C', None, 5_000));
    assert_eq!(sent_now(&mut session, 1_000), b"A");
    session.disconnect(Departure::Lost, 1_000);
    session.connect(&connect(3), None, 100);
    let mut out = BytesMut::new();
    let sent = session.transmit(15_000, &mut out, 1 << 20);
    assert_eq!((sent.messages, sent.too_old), (2, 1));
    session.disconnect(Departure::Lost, 15_000);
    session.enqueue(queued_at(b'D', None, 15_000));
    assert_eq!(session.drop_useless(25_000).too_old, 0);
    assert_eq!(session.drop_useless(25_001).too_old, 1);
    drop(session);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_message_that_never_fits_and_messages_on_the_way_drive_no_other_out() {
    let one = queued(frame("t", b"A", None), QoS::AtLeastOnce).size();
    let budget = Arc::new(SharedBudget::new(1 << 20));
    let limits = Limits {
        queue_bytes: 3 * one,
        ..Limits::default()
    };
    let mut session = session(limits, Overflow::DropOldest, &budget);
    session.connect(&connect(1), None, 100);
    session.enqueue(queued_at(b'A', None, 0));
    assert_eq!(sent_now(&mut session, 0), b"A");
    session.enqueue(queued_at(b'B', None, 0));
    session.enqueue(queued_at(b'C', None, 0));
    // With A on the way there is room for two, and never for three.
    let large = vec![b'X'; 2 * one];
    let taken = session.enqueue(queued(frame("t", &large, None), QoS::AtLeastOnce));
    assert_eq!((taken.queued, taken.dropped.queue_full), (false, 1));
    let taken = session.enqueue(queued_at(b'D', None, 0));
    assert_eq!((taken.queued, taken.dropped.queue_full), (true, 1));
    session.disconnect(Departure::Lost, 0);
    session.connect(&connect(10), None, 100);
    assert_eq!(sent_now(&mut session, 0), b"ACD");
}

#[test]
fn what_all_sessions_have_waiting_is_counted_apart() {
    let one = queued(frame("t", b"A", None), QoS::AtLeastOnce).size();
    let budget = Arc::new(SharedBudget::new(2 * one));
    for overflow in [Overflow::DropNewest, Overflow::DropOldest] {
        let mut first = session(Limits::default(), overflow, &budget);
        let mut second = session(Limits::default(), overflow, &budget);
        assert!(first.enqueue(queued_at(b'A', None, 0)).queued);
        assert!(second.enqueue(queued_at(b'B', None, 0)).queued);
        let taken = second.enqueue(queued_at(b'C', None, 0));
        assert_eq!(taken.dropped.all_queues_full, 1);
        assert_eq!(taken.queued, overflow == Overflow::DropOldest);
        // Others' messages cannot be driven out: the session's own stay, too.
        let large = vec![b'X'; one];
        let taken = second.enqueue(queued(frame("t", &large, None), QoS::AtLeastOnce));
        assert_eq!((taken.queued, taken.dropped.all_queues_full), (false, 1));
        assert_eq!((first.waiting(), second.waiting()), (1, 1));
    }
    assert_eq!(budget.used(), 0);
}

#[test]
fn what_may_not_be_read_leaves_the_queue_bit_by_bit_and_the_rest_keeps_its_order() {
    let budget = Arc::new(SharedBudget::new(1 << 20));
    let mut session = session(small(9), Overflow::DropOldest, &budget);
    session.connect(&connect(10), None, 100);
    let add = |session: &mut Session, topic: &str, payload: u8| {
        let message = queued(frame(topic, &[payload], None), QoS::AtLeastOnce);
        session.enqueue(message);
    };
    for payload in b'A'..=b'I' {
        let topic = if payload % 2 == 0 { "no" } else { "yes" };
        add(&mut session, topic, payload);
    }
    let mut unchecked = session.waiting();
    let mut dropped = Vec::new();
    while unchecked > 0 {
        let (left, now) = session.sift(unchecked, 2, |topic| topic == "yes");
        unchecked = left;
        dropped.push(now);
        if dropped.len() == 1 {
            // Messages come meanwhile, and the oldest makes room: it was not checked yet.
            add(&mut session, "yes", b'Y');
            add(&mut session, "yes", b'Z');
        }
    }
    // H, then nothing, then F, D and B; A had to make room.
    assert_eq!(dropped, [1, 0, 1, 1, 1]);
    let used = budget.used();
    let mut out = BytesMut::new();
    let sent = session.transmit(0, &mut out, 1 << 20).messages;
    let payloads: Vec<u8> = out.iter().copied().filter(u8::is_ascii_uppercase).collect();
    assert_eq!((sent, &payloads[..]), (6, &b"CEGIYZ"[..]));
    assert_eq!(used % 6, 0, "each of the six counts for the same");
}

#[test]
fn octets_are_given_back_to_the_budget() {
    let budget = Arc::new(SharedBudget::new(10_000));
    let mut session = session(Limits::default(), Overflow::DropNewest, &budget);
    session.connect(&connect(10), None, 100);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        assert!(
            session
                .enqueue(queued(frame("t", b"x", Some(5)), qos))
                .queued
        );
    }
    assert!(
        !session
            .enqueue(queued(frame("t", &[0; 10_000], None), QoS::AtLeastOnce))
            .queued
    );
    let mut out = BytesMut::new();
    session.transmit(0, &mut out, 1 << 20);
    for (kind, id) in [
        (AckKind::PubAck, 1),
        (AckKind::PubRec, 2),
        (AckKind::PubComp, 2),
    ] {
        let id = NonZeroU16::new(id).unwrap();
        session
            .on_packet(
                Incoming::Ack(Ack {
                    kind,
                    id,
                    reason: 0,
                }),
                0,
            )
            .unwrap();
    }
    assert_eq!((budget.used(), session.waiting()), (0, 0));
    session.enqueue(queued(frame("t", b"x", None), QoS::AtMostOnce));
    session.enqueue(queued(frame("t", b"x", None), QoS::AtLeastOnce));
    assert!(budget.used() > 0);
    drop(session);
    assert_eq!(budget.used(), 0);
}

#[test]
fn what_has_expired_is_not_sent_and_the_rest_says_how_long_it_lasts() {
    let budget = Arc::new(SharedBudget::new(1 << 20));
    let mut session = session(Limits::default(), Overflow::DropNewest, &budget);
    session.connect(&connect(10), None, 100);
    session.enqueue(queued(frame("t", b"old", Some(1_000)), QoS::AtLeastOnce));
    session.enqueue(queued(frame("t", b"new", Some(9_500)), QoS::AtLeastOnce));
    let mut out = BytesMut::new();
    let sent = session.transmit(2_000, &mut out, 1 << 20);
    assert_eq!((sent.messages, sent.expired), (1, 1));
    // Topic "t", packet id 1, one property: expiry of 8 seconds.
    assert_eq!(
        &out[..],
        b"\x32\x0e\x00\x01t\x00\x01\x05\x02\x00\x00\x00\x08new"
    );
}

#[test]
fn wills_and_expiry_fall_due_in_their_order() {
    let budget = Arc::new(SharedBudget::new(1 << 20));
    let mut session = session(Limits::default(), Overflow::DropNewest, &budget);
    // The delay is shorter than the session lasts.
    session.connect(&connect(10), will(5), 10);
    assert!(session.disconnect(Departure::Lost, 1_000).will.is_none());
    assert_eq!(session.deadline(), Some(6_000));
    let due = session.on_time(6_000);
    assert!(due.will.is_some() && !due.ended);
    assert_eq!(session.deadline(), Some(11_000));
    assert!(session.on_time(11_000).ended);
    // The delay is longer: the end of the session is the end of the delay.
    session.connect(&connect(10), will(50), 10);
    session.disconnect(Departure::Lost, 0);
    assert_eq!(session.deadline(), Some(10_000));
    let due = session.on_time(10_000);
    assert!(due.will.is_some() && due.ended);
    // For ever, and without a will.
    session.connect(&connect(10), None, u32::MAX);
    session.disconnect(Departure::Lost, 0);
    assert_eq!(session.deadline(), None);
    // No session beyond the connection.
    session.connect(&connect(10), will(50), 0);
    let due = session.disconnect(Departure::Lost, 0);
    assert!(due.will.is_some() && due.ended);
}
