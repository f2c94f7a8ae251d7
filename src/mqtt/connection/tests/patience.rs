//! For how long clients are waited for that say nothing or take nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::faulty::{Faults, WIDE, faulty};
use super::harness::*;
use crate::mqtt::connection::WRITE_TARGET;
use crate::mqtt::hub::Hooks;
use crate::mqtt::settings::Settings;

/// In seconds.
const KEEP_ALIVE: u16 = 4;
/// One and a half times that.
const LIMIT: Duration = Duration::from_secs(6);

/// Everybody who has something to do has had a turn.
async fn turns() {
    for _ in 0..256 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_silent_client_is_let_go_after_the_keep_alive() {
    let world = World::start().await;
    let connect = v5::Connect {
        keep_alive: 1,
        ..connect5("c")
    };
    let (mut client, _) = world.connect5(&device("c"), connect).await;
    assert_eq!(client.farewell().await, 0x8D);
}

#[tokio::test]
async fn a_slow_consumer_is_let_go() {
    let mut settings = Settings::default();
    settings.limits.write_timeout = Duration::from_millis(50);
    let world = World::with(settings, Hooks::default()).await;
    let _client = world.stuck5().await;
    world.until("c", |session| session.is_none()).await;
}

/// A client that has said something that is not seen yet, although it was looked for. Time is paused.
async fn unseen(world: &World) -> (Client5, Arc<Faults>) {
    let (mut client, faults) = faulty(world, WIDE, KEEP_ALIVE).await;
    tokio::time::pause();
    faults.is_hidden.store(true, Ordering::Release);
    client.send_raw(&PING).await;
    until(|| faults.looks.load(Ordering::Acquire) > 0).await;
    (client, faults)
}

#[tokio::test]
async fn what_is_there_when_the_time_is_up_counts() {
    let world = World::start().await;
    let (mut client, faults) = unseen(&world).await;
    // From here on nothing but the time wakes the connection.
    faults.is_hidden.store(false, Ordering::Release);
    assert!(matches!(client.recv().await, v5::Packet::PingResponse));
}

#[tokio::test]
async fn what_is_seen_late_after_a_pause_of_the_whole_process_counts() {
    let world = World::start().await;
    let (mut client, faults) = unseen(&world).await;
    let before = faults.looks.load(Ordering::Acquire);
    tokio::time::advance(10 * LIMIT).await;
    // Its time is up, and it is not known yet that it has said something.
    until(|| faults.looks.load(Ordering::Acquire) > before).await;
    faults.is_hidden.store(false, Ordering::Release);
    assert!(matches!(client.recv().await, v5::Packet::PingResponse));
    // The next time it has said nothing.
    assert_eq!(client.farewell().await, 0x8D);
}

#[tokio::test]
async fn who_falls_silent_after_answers_that_it_did_not_take_is_let_go_in_time() {
    // What is read at once is little, or more than may be answered at once.
    for buffer in [64, 64 << 10] {
        falls_silent_after_many_answers(buffer).await;
    }
}

async fn falls_silent_after_many_answers(buffer: usize) {
    let world = World::start().await;
    let client = world.narrow5(buffer, with_will(KEEP_ALIVE)).await;
    tokio::time::pause();
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    // More answers than there is room for.
    let floods = tokio::spawn(async move {
        for _ in 0..64 {
            writer.write_all(&PING.repeat(4_096)).await.unwrap();
        }
        writer
    });
    let tally = &world.broker.hub().sys.tally;
    let full = (WRITE_TARGET + buffer) / PING.len();
    until(|| tally.packets_received.get() >= full as u64).await;
    turns().await;
    assert!(!floods.is_finished());
    tokio::time::advance(2 * LIMIT).await;
    let mut answers = vec![0; 64 * 4_096 * PING.len()];
    reader.read_exact(&mut answers).await.unwrap();
    let silent = tokio::time::Instant::now();
    let mut farewell = Vec::new();
    let reading = tokio::time::timeout(3 * LIMIT, reader.read_to_end(&mut farewell));
    reading.await.unwrap().unwrap();
    assert_eq!(farewell.get(2), Some(&0x8D));
    let waited = silent.elapsed();
    assert!(waited <= LIMIT + LIMIT / 10, "{waited:?}");
    drop(floods.await);
    tokio::time::resume();
}

#[tokio::test]
async fn who_falls_silent_after_messages_that_had_to_wait_is_let_go_in_time() {
    const MESSAGES: usize = 8;
    let mut settings = Settings::default();
    // There is room for one at a time.
    settings.bus.window_bytes = 64 << 10;
    let world = World::with(settings, Hooks::default()).await;
    let mut other = world.simple5("o").await;
    for filter in THROUGH_THE_ROUTER {
        other.subscribe(filter, QoS::AtMostOnce).await;
    }
    let mut client = world.narrow5(1 << 20, with_will(KEEP_ALIVE)).await;
    for _ in 0..MESSAGES {
        let sent = v5_publish::Publish {
            payload: vec![b'x'; 60_000].into(),
            ..message("t/x", QoS::AtMostOnce, "")
        };
        client.send(sent).await;
    }
    let tally = &world.broker.hub().sys.tally;
    until(|| tally.messages_received.get() >= MESSAGES as u64).await;
    tokio::time::pause();
    let silent = tokio::time::Instant::now();
    assert_eq!(client.farewell().await, 0x8D);
    let waited = silent.elapsed();
    assert!(waited <= LIMIT + LIMIT / 10, "{waited:?}");
}

/// A client that is sent so many large messages, and takes none yet. Time is paused.
async fn overwhelmed(world: &World, messages: usize) -> Client5 {
    let mut client = world.narrow5(64, with_will(KEEP_ALIVE)).await;
    client.subscribe("t", QoS::AtMostOnce).await;
    let mut other = world.simple5("p").await;
    for _ in 0..messages {
        other.send(large()).await;
    }
    other.settle().await;
    tokio::time::pause();
    client
}

#[tokio::test]
async fn while_a_client_is_not_read_it_is_not_known_to_be_silent() {
    let world = World::start().await;
    let mut client = overwhelmed(&world, 1).await;
    tokio::time::sleep(LIMIT / 2).await;
    // Nobody reads that before the message is taken, and it is not all.
    client.send_raw(&PING[..1]).await;
    tokio::time::sleep(LIMIT).await;
    assert!(matches!(client.recv().await, v5::Packet::Publish(_)));
    tokio::time::sleep(LIMIT - LIMIT / 6).await;
    client.send_raw(&PING[1..]).await;
    assert!(matches!(client.recv().await, v5::Packet::PingResponse));
}

#[tokio::test]
async fn who_turns_out_to_have_said_nothing_while_it_was_not_read_is_let_go_soon() {
    let world = World::start().await;
    let mut client = overwhelmed(&world, 1).await;
    // A look in time does not know.
    tokio::time::sleep(LIMIT + LIMIT / 10).await;
    assert!(matches!(client.recv().await, v5::Packet::Publish(_)));
    let silent = tokio::time::Instant::now();
    assert_eq!(client.farewell().await, 0x8D);
    assert!(silent.elapsed() <= LIMIT / 5, "{:?}", silent.elapsed());
}

#[tokio::test]
async fn who_takes_slowly_and_says_nothing_is_let_go() {
    let world = World::start().await;
    let mut client = overwhelmed(&world, 4).await;
    tokio::time::sleep(LIMIT - LIMIT / 6).await;
    // Then there is the next, and no room for words.
    assert!(matches!(client.recv().await, v5::Packet::Publish(_)));
    tokio::time::sleep(LIMIT - LIMIT / 6).await;
    assert!(world.broker.session("c").is_some());
    assert!(matches!(client.recv().await, v5::Packet::Publish(_)));
    tokio::time::sleep(LIMIT / 2).await;
    assert!(world.broker.session("c").is_none());
}

#[tokio::test]
async fn who_takes_slowly_and_has_something_to_say_stays() {
    const MESSAGES: usize = 6;
    let world = World::start().await;
    let mut client = overwhelmed(&world, MESSAGES).await;
    for _ in 0..MESSAGES {
        tokio::time::sleep(LIMIT / 2).await;
        client.send_raw(&PING).await;
        tokio::time::sleep(LIMIT / 3).await;
        while !matches!(client.recv().await, v5::Packet::Publish(_)) {}
    }
    client.settle().await;
}

#[tokio::test]
async fn who_is_not_read_when_a_pause_of_the_whole_process_is_over_stays() {
    let world = World::start().await;
    let (mut client, faults) = faulty(&world, 64, KEEP_ALIVE).await;
    client.subscribe("t", QoS::AtMostOnce).await;
    let mut other = world.simple5("p").await;
    tokio::time::pause();
    faults.is_hidden.store(true, Ordering::Release);
    client.send_raw(&PING).await;
    // The pause, and what wakes everybody at its end.
    let sent = world.broker.hub().sys.tally.octets_sent.get();
    tokio::time::advance(2 * LIMIT).await;
    other.send(large()).await;
    until(|| world.broker.hub().sys.tally.octets_sent.get() > sent).await;
    turns().await;
    faults.is_hidden.store(false, Ordering::Release);
    // The second look.
    tokio::time::sleep(2 * LIMIT).await;
    assert!(matches!(client.recv().await, v5::Packet::Publish(_)));
    assert!(matches!(client.recv().await, v5::Packet::PingResponse));
}

#[tokio::test]
async fn who_says_nothing_is_let_go_also_if_every_look_is_late() {
    let world = World::start().await;
    let (_client, faults) = faulty(&world, WIDE, KEEP_ALIVE).await;
    tokio::time::pause();
    faults.is_hidden.store(true, Ordering::Release);
    for _ in 0..2 {
        let before = faults.looks.load(Ordering::Acquire);
        tokio::time::advance(10 * LIMIT).await;
        until(|| faults.looks.load(Ordering::Acquire) > before).await;
    }
    world.until_away("c").await;
}

#[tokio::test]
async fn who_takes_nothing_is_let_go_also_if_every_look_is_late() {
    let world = World::start().await;
    let mut client = world.narrow5(64, with_will(0)).await;
    client.subscribe("t", QoS::AtMostOnce).await;
    let mut other = world.simple5("p").await;
    let octets = &world.broker.hub().sys.tally.octets_sent;
    let before = octets.get();
    other.send(large()).await;
    // What its stream holds, and no more.
    until(|| octets.get() >= before + 64).await;
    tokio::time::pause();
    for _ in 0..2 {
        tokio::time::advance(10 * Settings::default().limits.write_timeout).await;
        turns().await;
    }
    world.until_away("c").await;
}

#[tokio::test]
async fn who_says_nothing_is_let_go_whatever_it_is_sent() {
    let world = World::start().await;
    let (mut client, _) = faulty(&world, WIDE, KEEP_ALIVE).await;
    client.subscribe("t", QoS::AtMostOnce).await;
    let mut other = world.simple5("p").await;
    tokio::time::pause();
    for _ in 0..4 {
        other.send(large()).await;
        match client.recv().await {
            v5::Packet::Publish(_) => tokio::time::advance(LIMIT - Duration::from_secs(1)).await,
            v5::Packet::Disconnect(packet) => {
                assert_eq!(u8::from(packet.reason_code), 0x8D);
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("it is waited for as long as there is something for it");
}

#[tokio::test]
async fn a_client_is_heard_however_much_there_is_for_it() {
    const MESSAGES: usize = 20;
    let world = World::start().await;
    let mut client = world.narrow5(4_096, with_will(0)).await;
    client.subscribe("t", QoS::AtMostOnce).await;
    let mut other = world.simple5("p").await;
    for _ in 0..MESSAGES {
        other.send(large()).await;
    }
    other.settle().await;
    client.send_raw(&PING).await;
    let mut messages = 0;
    while let v5::Packet::Publish(_) = client.recv().await {
        messages += 1;
    }
    assert!(messages < MESSAGES / 2, "the answer came behind {messages}");
    while messages < MESSAGES {
        assert!(matches!(client.recv().await, v5::Packet::Publish(_)));
        messages += 1;
    }
}
