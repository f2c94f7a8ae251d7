//! Changes toward deny that must not allow anything on their way.

use std::sync::atomic::Ordering;

use super::INSTANCE;
use super::world::{World, host};
use crate::ca::error::Refusal;
use crate::ca::lifecycle::Status;
use crate::control::ControlError;
use crate::testing::{TestCa, ca_params, now_secs};
use crate::tls::live::Cut;
use crate::tls::peer::VerifiedPeer;

#[tokio::test]
async fn connections_of_an_inactive_device_end_although_the_disk_fails() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let peer = world.record(&ca.issue("d", 2)).await;
    let instance = INSTANCE.parse().unwrap();
    let (registry, peers) = (
        world.control.registry(&instance).unwrap(),
        world.control.peers(&instance).unwrap(),
    );
    let live = peers.enter(peer, &registry, now_secs()).unwrap();
    world.store.broken.store(true, Ordering::Relaxed);
    let result = world
        .control
        .set_device_status(&host(), INSTANCE, &sn, "02", Status::Inactive)
        .await;
    assert!(matches!(result, Err(ControlError::NotDurable(_))));
    assert_eq!(live.cut(), Some(Cut::DeviceInactive));
}

#[tokio::test]
async fn connections_ended_with_a_device_are_in_the_audit_log() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let peer = world.record(&ca.issue("d", 2)).await;
    let instance = INSTANCE.parse().unwrap();
    let (registry, peers) = (
        world.control.registry(&instance).unwrap(),
        world.control.peers(&instance).unwrap(),
    );
    let _live = peers.enter(peer, &registry, now_secs()).unwrap();
    let changed = world
        .control
        .set_device_status(&host(), INSTANCE, &sn, "02", Status::Inactive)
        .await
        .unwrap();
    assert_eq!(changed.sessions_ended, 1);
    let last = world.audit_lines().into_iter().next_back().unwrap();
    assert_eq!(last["detail"], "1 live connections ended");
}

/// A root that is off, a CA below it, and one below that.
async fn three_levels(world: &World) -> (TestCa, String, TestCa) {
    let root = TestCa::root("root", 1);
    let middle = root.issue_ca(ca_params("middle", 2));
    let lower = middle.issue_ca(ca_params("lower", 3));
    let root_sn = world.register(&root, "root").await;
    let middle_sn = world.register(&middle, "middle").await;
    world.register(&lower, "lower").await;
    world
        .control
        .set_ca_status(&host(), INSTANCE, &root_sn, Status::Inactive)
        .await
        .unwrap();
    (middle, middle_sn, lower)
}

#[tokio::test]
async fn deleting_a_ca_that_is_off_allows_nothing_before_it_is_durable() {
    let world = World::new().await;
    let (_, middle_sn, lower) = three_levels(&world).await;
    let device = lower.issue("d", 4);
    assert!(world.admit(&device).is_err());
    world.store.broken.store(true, Ordering::Relaxed);
    let result = world.control.delete_ca(&host(), INSTANCE, &middle_sn).await;
    assert!(
        matches!(result, Err(ControlError::Internal(_))),
        "{result:?}"
    );
    assert!(matches!(
        world.admit(&device),
        Err(Refusal::CaInactive { .. })
    ));
}

#[tokio::test]
async fn inactive_device_stays_out_when_its_ca_is_deleted_and_another_stands_above() {
    let mut world = World::new().await;
    let root = TestCa::root("root", 1);
    let middle = root.issue_ca(ca_params("middle", 2));
    world.register(&root, "root").await;
    let sn = world.register(&middle, "middle").await;
    let device = middle.issue("d", 3);
    let peer: VerifiedPeer = world.record(&device).await;
    assert_eq!(peer.ca(), middle.certificate().id());
    world
        .control
        .set_device_status(&host(), INSTANCE, &sn, "03", Status::Inactive)
        .await
        .unwrap();
    world
        .control
        .delete_ca(&host(), INSTANCE, &sn)
        .await
        .unwrap();
    let after = |world: &World| world.admit_over(&device, &[&middle]);
    assert_eq!(after(&world), Err(Refusal::DeviceInactive));
    world.restart().await;
    assert_eq!(after(&world), Err(Refusal::DeviceInactive));
    // It is listed under the root now, and can be switched on there.
    world
        .control
        .set_device_status(&host(), INSTANCE, "01", "03", Status::Active)
        .await
        .unwrap();
    assert!(world.admit_over(&device, &[&middle]).is_ok());
}

#[tokio::test]
async fn inactive_device_of_a_ca_that_nobody_registered_stays_out_when_the_one_it_came_over_is_deleted()
 {
    let mut world = World::new().await;
    let (one, two) = (TestCa::root("one", 1), TestCa::root("two", 2));
    let sn = world.register(&one, "one").await;
    world.register(&two, "two").await;
    let issuing = one.issue_ca(ca_params("issuing", 3));
    let crossed = two.issue_ca_with(ca_params("issuing", 4), issuing.key.clone());
    let device = issuing.issue("d", 5);
    let peer = world.record_over(&device, &[&issuing]).await;
    assert_eq!(peer.ca(), one.certificate().id());
    let (control, caller) = (&world.control, host());
    world.set_device(&sn, "05", Status::Inactive).await;
    control.delete_ca(&caller, INSTANCE, &sn).await.unwrap();
    let after = |world: &World| world.admit_over(&device, &[&crossed]);
    assert_eq!(after(&world), Err(Refusal::DeviceInactive));
    world.restart().await;
    assert_eq!(after(&world), Err(Refusal::DeviceInactive));
}

#[tokio::test]
async fn what_allows_one_device_does_not_allow_another_of_its_serial_number() {
    let world = World::new().await;
    let (one, two) = (TestCa::root("one", 1), TestCa::root("two", 2));
    let sn = world.register(&one, "one").await;
    let other_sn = world.register(&two, "two").await;
    let issuing = one.issue_ca(ca_params("issuing", 3));
    let crossed = two.issue_ca_with(ca_params("issuing", 4), issuing.key.clone());
    let (device, own) = (issuing.issue("d", 5), two.issue("own", 5));
    world.record_over(&device, &[&issuing]).await;
    world.record(&own).await;
    let (control, caller) = (&world.control, host());
    let set = |ca_sn, status| world.set_device(ca_sn, "05", status);
    set(&sn, Status::Inactive).await;
    set(&other_sn, Status::Inactive).await;
    // Both are listed under one CA now.
    control.delete_ca(&caller, INSTANCE, &sn).await.unwrap();
    let of_issuing = || world.admit_over(&device, &[&crossed]);
    set(&other_sn, Status::Active).await;
    assert!(world.admit(&own).is_ok());
    assert_eq!(of_issuing(), Err(Refusal::DeviceInactive));
    let shown = control.get_device(&caller, INSTANCE, &other_sn, "05").await;
    assert_eq!(shown.unwrap().status, Status::Active);
    let deleted = control.delete_device(&caller, INSTANCE, &other_sn, "05");
    deleted.await.unwrap();
    assert_eq!(of_issuing(), Err(Refusal::DeviceInactive));
    // Now it is the only one of that number.
    set(&other_sn, Status::Active).await;
    assert!(of_issuing().is_ok());
}
