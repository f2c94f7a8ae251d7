//! Clients that take nothing any more: what they have said counts all the same.

use std::sync::atomic::Ordering;

use rmqtt_codec::types::QoS;

use super::faulty::{WIDE, faulty};
use super::harness::*;
use crate::mqtt::connection::FAREWELL_LIMIT;
use crate::mqtt::settings::Settings;

/// Send a packet to the broker, and wait until it has processed it.
async fn be_heard(client: &mut Client5, world: &World) {
    let heard = &world.broker.hub().sys.tally.packets_received;
    let before = heard.get();
    client.send_raw(&PING).await;
    until(|| heard.get() > before).await;
}

/// A client that is told of the will.
async fn watcher(world: &World) -> Client5 {
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    watcher
}

/// Who is told of the will of `c`, and `c`, to which nothing can be sent any more.
async fn watched_and_broken(world: &World) -> (Client5, Client5) {
    let watcher = watcher(world).await;
    let (client, faults) = faulty(world, WIDE, 0).await;
    faults.is_broken.store(true, Ordering::Release);
    (watcher, client)
}

#[tokio::test]
async fn a_client_that_takes_nothing_any_more_is_heard_all_the_same() {
    let world = World::start().await;
    let mut watcher = watcher(&world).await;
    let mut client = world.narrow5(64, with_will(0)).await;
    // More answers than there is room for, then DISCONNECT.
    client.send_raw(&PING.repeat(64)).await;
    client.send_raw(&[0xE0, 0]).await;
    drop(client);
    world.until("c", |session| session.is_none()).await;
    watcher.settle().await;
}

#[tokio::test]
async fn the_last_word_of_a_client_may_come_after_its_connection_broke() {
    let world = World::start().await;
    let (mut watcher, mut client) = watched_and_broken(&world).await;
    tokio::time::pause();
    // A long farewell: it takes more time than silence may.
    for _ in 0..8 {
        be_heard(&mut client, &world).await;
        tokio::time::advance(FAREWELL_LIMIT / 2).await;
    }
    client.send_raw(&[0xE0, 0]).await;
    world.until("c", |session| session.is_none()).await;
    tokio::time::resume();
    watcher.settle().await;
}

#[tokio::test]
async fn a_word_that_comes_octet_by_octet_over_a_broken_connection_is_waited_for() {
    let world = World::start().await;
    let (mut watcher, mut client) = watched_and_broken(&world).await;
    tokio::time::pause();
    be_heard(&mut client, &world).await;
    let octets = &world.broker.hub().sys.tally.octets_received;
    for octet in [&PUBLISH[..], &[0xE0, 0]].concat() {
        let before = octets.get();
        client.send_raw(&[octet]).await;
        until(|| octets.get() > before).await;
        tokio::time::advance(FAREWELL_LIMIT / 2).await;
    }
    world.until("c", |session| session.is_none()).await;
    tokio::time::resume();
    watcher.settle().await;
}

/// QoS 0, to `t`.
const PUBLISH: [u8; 6] = [0x30, 4, 0, 1, b't', 0];

#[test]
fn answers_that_nobody_takes_keep_nothing_from_being_heard() {
    let (done, until_done) = std::sync::mpsc::channel();
    // In a thread of its own, since what goes round for ever can be waited for by no other task.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let world = World::start().await;
            let (mut watcher, mut client) = watched_and_broken(&world).await;
            // More of them than may wait.
            client.send_raw(&PING.repeat(4_096)).await;
            client.send_raw(&[0xE0, 0]).await;
            world.until("c", |session| session.is_none()).await;
            watcher.settle().await;
        });
        done.send(())
    });
    until_done.recv_timeout(3 * PATIENCE).unwrap();
}

#[tokio::test]
async fn a_client_that_takes_nothing_and_never_stops_is_given_up_in_the_end() {
    let world = World::start().await;
    let (mut watcher, mut client) = watched_and_broken(&world).await;
    tokio::time::pause();
    let mut left = Settings::default().limits.write_timeout + FAREWELL_LIMIT;
    while let Some(less) = left.checked_sub(FAREWELL_LIMIT / 2) {
        left = less;
        if world.broker.session("c").is_some() {
            be_heard(&mut client, &world).await;
        }
        tokio::time::advance(FAREWELL_LIMIT / 2).await;
    }
    world.until("c", |session| session.is_none()).await;
    tokio::time::resume();
    assert_eq!(watcher.message().await.topic, "will");
}

#[tokio::test]
async fn a_client_that_takes_nothing_and_says_nothing_is_given_up_soon() {
    for is_buffered in [false, true] {
        let world = World::start().await;
        let mut watcher = watcher(&world).await;
        let (mut client, faults) = faulty(&world, WIDE, 0).await;
        client.subscribe("t", QoS::AtMostOnce).await;
        faults.is_buffered.store(is_buffered, Ordering::Release);
        faults.is_broken.store(true, Ordering::Release);
        // More than is collected in one go: meanwhile nothing is read from it.
        watcher.send(large()).await;
        assert_eq!(watcher.message().await.topic, "will");
    }
}
