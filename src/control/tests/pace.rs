//! Connections that end over a time.

use std::time::Duration;

use super::INSTANCE;
use super::world::{World, host};
use crate::ca::lifecycle::Status;
use crate::control::crl::NewCrl;
use crate::control::impact::Intended;
use crate::control::pace::Pace;
use crate::control::{Manner, Switched};
use crate::testing::crl::TestCrl;
use crate::testing::{TestCa, TestDevice, ca_params};
use crate::tls::live::LivePeer;

impl World {
    async fn switch(&self, sn: &str, status: Status, pace: Pace) -> Switched {
        let manner = Manner {
            pace,
            ..Manner::default()
        };
        let (control, caller) = (&self.control, host());
        let switched = control.switch_ca(&caller, INSTANCE, sn, status, manner);
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
        let peer = world.enter(world.record(&device).await);
        named(&peer);
        live.push(peer);
    }
    (world, ca, sn, live)
}

/// It has a session.
fn named(live: &LivePeer) {
    live.is_called("device", "127.0.0.1:9".parse().unwrap());
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

/// Long, since what is done between two passes takes real time.
const OVER: Pace = Pace::Over(Duration::from_secs(1_000));

#[tokio::test]
async fn connections_end_one_after_the_other_and_nobody_gets_in_meanwhile() {
    let (world, ca, sn, live) = connected(20).await;
    let other = TestCa::root("other", 2);
    world.register(&other, "other").await;
    let spared = world.enter(world.record(&other.issue("device", 1)).await);
    let changed = world.switch(&sn, Status::Inactive, OVER).await;
    assert_eq!(
        (changed.changed.sessions_ended, changed.sessions_ending),
        (0, 20)
    );
    let audit = world.audit_lines();
    let told = audit
        .iter()
        .find(|line| line["phase"] == "done" && line["after"] == "inactive");
    let detail = "20 live connections are ending over 1000 s";
    assert_eq!(told.unwrap()["detail"], detail);
    assert!(world.admit(&ca.issue("late", 9)).is_err());
    assert!(ended(&live) <= 1);
    pass(Duration::from_secs(500)).await;
    let half = ended(&live);
    assert!((8..=12).contains(&half), "{half}");
    // Those that came first go first.
    assert_eq!(ended(&live[..half]), half);
    pass(Duration::from_secs(501)).await;
    assert_eq!(ended(&live), 20);
    assert_eq!(spared.cut(), None);
}

#[tokio::test]
async fn plain_inactivation_ends_the_rest_at_once() {
    let (world, _, sn, live) = connected(10).await;
    world.switch(&sn, Status::Inactive, OVER).await;
    pass(Duration::from_secs(300)).await;
    let before = ended(&live);
    assert!((1..10).contains(&before), "{before}");
    let changed = world.switch(&sn, Status::Inactive, Pace::AtOnce).await;
    assert_eq!(
        (ended(&live), changed.changed.sessions_ended),
        (10, 10 - before)
    );
}

#[tokio::test]
async fn preview_counts_those_that_are_ending_and_would_end_at_once() {
    let (world, _, sn, live) = connected(10).await;
    world.switch(&sn, Status::Inactive, OVER).await;
    pass(Duration::from_secs(300)).await;
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
    assert_eq!(changed.changed.sessions_ended, left);
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
    pass(Duration::from_secs(400)).await;
    let before = ended(&live);
    world.switch(&sn, Status::Active, Pace::AtOnce).await;
    pass(Duration::from_secs(6_000)).await;
    assert_eq!(ended(&live), before);
    // The pace that was given first is over.
    world.switch(&sn, Status::Inactive, OVER).await;
    let slower = Pace::Over(Duration::from_secs(1_000_000));
    world.switch(&sn, Status::Active, Pace::AtOnce).await;
    world.switch(&sn, Status::Inactive, slower).await;
    pass(Duration::from_secs(6_000)).await;
    assert!(ended(&live) <= before + 3, "{}", ended(&live));
}

#[tokio::test]
async fn authority_below_that_is_switched_off_itself_ends_at_once() {
    let world = World::new().await;
    let root = TestCa::root("root", 1);
    let below = root.issue_ca(ca_params("below", 2));
    let sn = world.register(&root, "root").await;
    let below_sn = world.register(&below, "below").await;
    let live = world.enter(world.record(&below.issue("device", 3)).await);
    named(&live);
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

#[tokio::test]
async fn other_changes_spare_whom_they_do_not_deny() {
    let (world, ca, sn, live) = connected(4).await;
    let slow = Pace::Over(Duration::from_secs(36_000));
    world.switch(&sn, Status::Inactive, slow).await;
    // The devices have the serial numbers from 100 on.
    let new = NewCrl {
        content: TestCrl::revoking(1, &[101]).der(&ca).into(),
        ..NewCrl::default()
    };
    let imported = world.control.import_crl(&host(), INSTANCE, new).await;
    assert_eq!(imported.unwrap().sessions_ended, 1);
    assert_eq!((ended(&live), live[1].cut().is_some()), (1, true));
    // Another certificate of the authority denies by itself.
    let renewed = TestCa::self_signed_with(ca_params("ca", 2), ca.key.clone());
    let renewed_sn = world.register(&renewed, "renewed").await;
    world
        .switch(&renewed_sn, Status::Active, Pace::AtOnce)
        .await;
    assert_eq!(ended(&live), 1);
    world
        .switch(&renewed_sn, Status::Inactive, Pace::AtOnce)
        .await;
    assert_eq!(ended(&live), 4);
}

#[tokio::test]
async fn whom_no_pace_ends_is_left_to_none() {
    let (world, root, sn, live) = connected(2).await;
    // Nobody knows yet that it stands below the root.
    let between = root.issue_ca(ca_params("between", 2));
    let below = between.issue_ca(ca_params("below", 3));
    world.register(&below, "below").await;
    let device = world.enter(world.record(&below.issue("device", 9)).await);
    named(&device);
    let slow = Pace::Over(Duration::from_secs(36_000));
    world.switch(&sn, Status::Inactive, slow).await;
    assert_eq!((ended(&live), device.cut()), (0, None));
    world.register(&between, "between").await;
    assert!(device.cut().is_some());
    assert_eq!(ended(&live), 0);
}

#[tokio::test]
async fn nobody_begins_a_session_and_nobody_is_left_when_the_ca_is_deleted() {
    let (world, ca, sn, live) = connected(3).await;
    // Through the handshake, and silent since.
    let silent = world.enter(world.record(&ca.issue("silent", 9)).await);
    let slow = Pace::Over(Duration::from_secs(36_000));
    let switched = world.switch(&sn, Status::Inactive, slow).await;
    assert_eq!(
        (switched.changed.sessions_ended, switched.sessions_ending),
        (1, 3)
    );
    assert!(silent.cut().is_some());
    assert_eq!(ended(&live), 0);
    let deleted = world.control.delete_ca(&host(), INSTANCE, &sn).await;
    assert_eq!((deleted.unwrap().sessions_ended, ended(&live)), (3, 3));
    assert!(
        world
            .control
            .0
            .paces
            .of(&INSTANCE.parse().unwrap())
            .is_empty()
    );
}
