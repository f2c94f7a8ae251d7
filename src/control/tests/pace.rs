//! Connections that end over a time.

use std::time::Duration;

use super::INSTANCE;
use super::world::{World, host};
use crate::ca::lifecycle::Status;
use crate::control::Changed;
use crate::control::impact::Intended;
use crate::control::lockout::Lockouts;
use crate::control::pace::Pace;
use crate::testing::{TestCa, TestDevice};
use crate::tls::live::LivePeer;

impl World {
    async fn switch(&self, sn: &str, status: Status, pace: Pace) -> Changed {
        let (control, caller) = (&self.control, host());
        let switched = control.switch_ca(&caller, INSTANCE, sn, status, Lockouts::Refuse, pace);
        switched.await.unwrap()
    }
}

/// A world with a CA and so many connected devices of it.
async fn connected(count: u64) -> (World, TestCa, String, Vec<LivePeer>) {
    let world = World::new().await;
    let ca = TestCa::root("ca", 1);
    let sn = world.register(&ca, "ca").await;
    let mut live = Vec::new();
    for number in 0..count {
        let device: TestDevice = ca.issue("device", 100 + number);
        live.push(world.enter(world.record(&device).await));
    }
    (world, ca, sn, live)
}

fn ended(live: &[LivePeer]) -> usize {
    live.iter().filter(|live| live.cut().is_some()).count()
}

/// Let so much time pass. While something is waited for that is no timer, time must not be made up.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::sleep(time).await;
    tokio::time::resume();
}

const OVER: Pace = Pace::Over(Duration::from_secs(10));

#[tokio::test]
async fn connections_end_one_after_the_other_and_nobody_gets_in_meanwhile() {
    let (world, ca, sn, live) = connected(20).await;
    let other = TestCa::root("other", 2);
    world.register(&other, "other").await;
    let spared = world.enter(world.record(&other.issue("device", 1)).await);
    let changed = world.switch(&sn, Status::Inactive, OVER).await;
    assert_eq!(changed.sessions_ended, 20, "are ending");
    assert!(world.admit(&ca.issue("late", 9)).is_err());
    assert!(ended(&live) <= 1);
    pass(Duration::from_secs(5)).await;
    let half = ended(&live);
    assert!((8..=12).contains(&half), "{half}");
    // Those that came first go first.
    assert_eq!(ended(&live[..half]), half);
    pass(Duration::from_millis(5_001)).await;
    assert_eq!(ended(&live), 20);
    assert_eq!(spared.cut(), None);
}

#[tokio::test]
async fn plain_inactivation_ends_the_rest_at_once() {
    let (world, _, sn, live) = connected(10).await;
    world.switch(&sn, Status::Inactive, OVER).await;
    pass(Duration::from_secs(3)).await;
    let before = ended(&live);
    assert!((1..10).contains(&before), "{before}");
    let changed = world.switch(&sn, Status::Inactive, Pace::AtOnce).await;
    assert_eq!((ended(&live), changed.sessions_ended), (10, 10 - before));
}

#[tokio::test]
async fn preview_counts_those_that_are_ending_and_would_end_at_once() {
    let (world, _, sn, live) = connected(10).await;
    world.switch(&sn, Status::Inactive, OVER).await;
    pass(Duration::from_secs(3)).await;
    let left = live.len() - ended(&live);
    assert!((1..10).contains(&left), "{left}");
    for change in [Intended::Inactivate, Intended::Delete] {
        let preview = world
            .control
            .preview_ca_change(&host(), INSTANCE, &sn, change)
            .await
            .unwrap();
        assert_eq!((preview.connections, preview.ending), (0, left));
        assert_eq!(preview.clients.unwrap().len(), left);
    }
    let changed = world.switch(&sn, Status::Inactive, Pace::AtOnce).await;
    assert_eq!(changed.sessions_ended, left);
    let preview = world
        .control
        .preview_ca_change(&host(), INSTANCE, &sn, Intended::Inactivate)
        .await;
    assert_eq!(preview.unwrap().ending, 0);
}

#[tokio::test]
async fn activation_keeps_those_that_are_left_also_if_a_slower_pace_follows() {
    let (world, _, sn, live) = connected(10).await;
    world.switch(&sn, Status::Inactive, OVER).await;
    pass(Duration::from_secs(4)).await;
    let before = ended(&live);
    world.switch(&sn, Status::Active, Pace::AtOnce).await;
    pass(Duration::from_secs(60)).await;
    assert_eq!(ended(&live), before);
    // The pace that was given first is over.
    world.switch(&sn, Status::Inactive, OVER).await;
    let slower = Pace::Over(Duration::from_secs(10_000));
    world.switch(&sn, Status::Active, Pace::AtOnce).await;
    world.switch(&sn, Status::Inactive, slower).await;
    pass(Duration::from_secs(60)).await;
    assert!(ended(&live) <= before + 3, "{}", ended(&live));
}

#[tokio::test]
async fn authority_below_that_is_switched_off_itself_ends_at_once() {
    let world = World::new().await;
    let root = TestCa::root("root", 1);
    let below = root.issue_ca(crate::testing::ca_params("below", 2));
    let sn = world.register(&root, "root").await;
    let below_sn = world.register(&below, "below").await;
    let live = world.enter(world.record(&below.issue("device", 3)).await);
    world
        .switch(
            &sn,
            Status::Inactive,
            Pace::Over(Duration::from_secs(3_600)),
        )
        .await;
    assert_eq!(live.cut(), None);
    world
        .switch(&below_sn, Status::Inactive, Pace::AtOnce)
        .await;
    assert!(live.cut().is_some());
}
