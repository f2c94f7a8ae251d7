//! Changes of trust from plan to answer, over a store that can be made to fail.

mod crl;
mod deny_first;
mod impact;
mod keys;
mod lockout;
mod observe;
mod other_hand;
mod pace;
mod permissions;
mod recording;
mod registering;
mod schedules;
mod sessions;
mod start;
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use self::world::{World, caller, host};
use crate::ca::error::Refusal;
use crate::ca::lifecycle::Status;
use crate::ca::topology::SameKey;
use crate::control::{Control, ControlError, Effective, OnInactivate, PageRequest};
use crate::store::Change;
use crate::testing::{TestCa, TestDevice, ca_params};
use crate::tls::live::Cut;
use crate::tls::peer::VerifiedPeer;

const INSTANCE: &str = "post-cn-test0001";
const PAGE: PageRequest = PageRequest {
    number: 1,
    size: 100,
};

#[tokio::test]
async fn inactivation_is_in_force_and_on_disk_when_it_is_answered() {
    let (mut world, ca) = (World::new().await, TestCa::root("ca", 0xabcd));
    let sn = world.register(&ca, "ca").await;
    let device = ca.issue("d", 2);
    assert!(world.admit(&device).is_ok());
    // However the operator writes the serial number.
    let changed = world
        .control
        .set_ca_status(&caller(), INSTANCE, "AB:CD", Status::Inactive)
        .await
        .unwrap();
    assert_eq!(
        (changed.sn.to_string(), changed.changed),
        (sn.clone(), true)
    );
    assert!(matches!(
        world.admit(&device),
        Err(Refusal::CaInactive { .. })
    ));
    let id = ca.certificate().id();
    assert_eq!(world.store.status(id), Some(Status::Inactive));
    let view = world
        .control
        .get_ca(&caller(), INSTANCE, &sn)
        .await
        .unwrap();
    assert_eq!(view.status, Status::Inactive);
    assert_eq!(view.effective, Effective::Inactive);

    let again = world
        .control
        .set_ca_status(&caller(), INSTANCE, &sn, Status::Inactive)
        .await
        .unwrap();
    assert!(!again.changed);

    world.restart().await;
    assert!(matches!(
        world.admit(&device),
        Err(Refusal::CaInactive { .. })
    ));
    world
        .control
        .set_ca_status(&caller(), INSTANCE, &sn, Status::Active)
        .await
        .unwrap();
    assert!(world.admit(&device).is_ok());
    assert_eq!(world.store.status(id), Some(Status::Active));
}

#[tokio::test]
async fn live_connections_of_the_ca_are_told_and_no_others() {
    let world = World::new().await;
    let (ca, other) = (TestCa::root("ca", 1), TestCa::root("other", 2));
    let sn = world.register(&ca, "ca").await;
    world.register(&other, "other").await;
    let instance = INSTANCE.parse().unwrap();
    let (registry, peers) = (
        world.control.registry(&instance).unwrap(),
        world.control.peers(&instance).unwrap(),
    );
    let enter = |device: &TestDevice| {
        let peer = VerifiedPeer::new(instance.clone(), world.admit(device).unwrap());
        peers
            .enter(peer, &registry, crate::testing::now_secs())
            .unwrap()
    };
    let (one, two) = (enter(&ca.issue("a", 3)), enter(&other.issue("b", 4)));
    let changed = world
        .control
        .set_ca_status(&caller(), INSTANCE, &sn, Status::Inactive)
        .await
        .unwrap();
    assert_eq!(changed.sessions_ended, 1);
    assert_eq!((one.cut(), two.cut()), (Some(Cut::CaInactive), None));
}

#[tokio::test]
async fn denial_stands_in_memory_when_the_disk_fails() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let (device, id) = (ca.issue("d", 2), ca.certificate().id());
    world.store.broken.store(true, Ordering::Relaxed);
    let inactivate = async || {
        world
            .control
            .set_ca_status(&host(), INSTANCE, &sn, Status::Inactive)
            .await
    };
    for _ in 0..2 {
        assert!(matches!(
            inactivate().await,
            Err(ControlError::NotDurable(_))
        ));
        assert!(matches!(
            world.admit(&device),
            Err(Refusal::CaInactive { .. })
        ));
        assert!(!world.control.is_ready());
    }
    // Nothing is allowed that cannot be kept.
    let result = world
        .control
        .set_ca_status(&host(), INSTANCE, &sn, Status::Active)
        .await;
    assert!(matches!(result, Err(ControlError::Internal(_))));
    assert!(world.admit(&device).is_err());
    assert_eq!(world.store.status(id), Some(Status::Active));

    world.store.broken.store(false, Ordering::Relaxed);
    assert!(!inactivate().await.unwrap().changed);
    assert_eq!(world.store.status(id), Some(Status::Inactive));
    assert!(world.control.is_ready());
}

#[tokio::test(start_paused = true)]
async fn denial_that_is_owed_to_the_disk_is_paid_without_being_asked() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    world.store.broken.store(true, Ordering::Relaxed);
    let result = world
        .control
        .set_ca_status(&host(), INSTANCE, &sn, Status::Inactive)
        .await;
    assert!(matches!(result, Err(ControlError::NotDurable(_))));
    world.store.broken.store(false, Ordering::Relaxed);
    while world.store.status(ca.certificate().id()) != Some(Status::Inactive) {
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    while !world.control.is_ready() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn change_goes_on_when_its_caller_goes_away() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    {
        let host = host();
        let call = world
            .control
            .set_ca_status(&host, INSTANCE, &sn, Status::Inactive);
        tokio::pin!(call);
        // One look is enough to send it off.
        let looked = std::future::poll_fn(|context| {
            std::task::Poll::Ready(call.as_mut().poll(context).is_pending())
        });
        assert!(looked.await);
    }
    while world.store.status(ca.certificate().id()) != Some(Status::Inactive) {
        tokio::task::yield_now().await;
    }
    world.control.close().await;
    assert!(matches!(
        world
            .control
            .set_ca_status(&host(), INSTANCE, &sn, Status::Active)
            .await,
        Err(ControlError::ShuttingDown)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_changes_leave_the_last_answered_one_everywhere() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let (device, id) = (ca.issue("d", 2), ca.certificate().id());
    for _ in 0..20 {
        let calls = (0..8).map(|n| {
            let (control, sn) = (world.control.clone(), sn.clone());
            tokio::spawn(async move {
                let status = if n % 2 == 0 {
                    Status::Inactive
                } else {
                    Status::Active
                };
                control
                    .set_ca_status(&host(), INSTANCE, &sn, status)
                    .await
                    .unwrap();
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        let kept = world.store.status(id).unwrap();
        let shown = world.control.get_ca(&host(), INSTANCE, &sn).await.unwrap();
        assert_eq!(shown.status, kept);
        assert_eq!(world.admit(&device).is_ok(), kept == Status::Active);
        let last = world.audit_lines().into_iter().next_back().unwrap();
        assert_eq!(last["after"], kept.to_string());
    }
}

#[tokio::test]
async fn registration_demands_the_proof_of_possession() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let code = || async {
        world
            .control
            .register_code(&caller(), INSTANCE)
            .await
            .unwrap()
    };
    let unknown = world.register_with(&ca, &ca.issue("no-such-code", 5)).await;
    assert!(matches!(unknown, Err(ControlError::RegisterCodeUnknown)));

    let good = code().await;
    let forged = TestCa::root("ca", 9).issue(&good, 5);
    let result = world.register_with(&ca, &forged).await;
    assert!(matches!(result, Err(ControlError::CaRefused(_))));

    let proof = ca.issue(&good, 5);
    assert_eq!(world.register_with(&ca, &proof).await.unwrap(), "01");
    let view = world
        .control
        .get_ca(&caller(), INSTANCE, "1")
        .await
        .unwrap();
    assert_eq!(view.register_code.as_deref(), Some(good.as_str()));
    assert_eq!(view.effective, Effective::Active);

    let used = TestCa::root("b", 2);
    let result = world.register_with(&used, &used.issue(&good, 5)).await;
    assert!(matches!(result, Err(ControlError::RegisterCodeUsed)));

    let same_sn = TestCa::root("c", 1);
    let result = world
        .register_with(&same_sn, &same_sn.issue(&code().await, 5))
        .await;
    assert!(matches!(result, Err(ControlError::SnNotUnique(_))));

    let late = code().await;
    *world.time.lock().unwrap() += Duration::from_secs(24 * 3600 - 3600);
    let ca = TestCa::root("d", 3);
    assert!(matches!(
        world.register_with(&ca, &ca.issue(&late, 5)).await,
        Err(ControlError::CaRefused(_)) // the proof has expired by now
    ));
    *world.time.lock().unwrap() += Duration::from_secs(7200);
    let mut params = crate::testing::device_params(&late, 6);
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(30);
    let mut long = ca_params("e", 4);
    long.not_after = params.not_after;
    let ca = TestCa::self_signed(long);
    assert!(matches!(
        world.register_with(&ca, &ca.issue_device(params)).await,
        Err(ControlError::RegisterCodeUnknown)
    ));
    // A code of another account is none.
    let mut stranger = caller();
    stranger.account = "stranger".parse().unwrap();
    assert!(matches!(
        world.control.register_code(&stranger, INSTANCE).await,
        Err(ControlError::NotOwner { .. })
    ));
    assert!(matches!(
        world
            .control
            .register_ca_unproved(&caller(), INSTANCE, "x", &ca.pem())
            .await,
        Err(ControlError::PermissionDenied(_))
    ));
}

#[tokio::test]
async fn listing_shows_pages_and_no_more_cas_than_allowed() {
    let world = World::new().await;
    for serial in 1..=4 {
        world
            .register(
                &TestCa::root(&format!("ca-{serial}"), serial),
                &format!("ca-{serial}"),
            )
            .await;
        *world.time.lock().unwrap() += Duration::from_millis(1);
    }
    let fifth = TestCa::root("ca-5", 5);
    assert!(matches!(
        world
            .control
            .register_ca_unproved(&host(), INSTANCE, "ca-5", &fifth.pem())
            .await,
        Err(ControlError::TooManyCas(4))
    ));
    let page = |number, size| {
        let control = world.control.clone();
        async move {
            control
                .list_cas(&caller(), INSTANCE, PageRequest { number, size })
                .await
                .unwrap()
        }
    };
    let names: Vec<_> = page(2, 3)
        .await
        .items
        .into_iter()
        .map(|ca| ca.name)
        .collect();
    assert_eq!(names, ["ca-4"]);
    assert_eq!(page(1, 100).await.total, 4);
    assert!(page(9, 3).await.items.is_empty());
    let nowhere = world.control.list_cas(&caller(), "nowhere", PAGE).await;
    assert!(matches!(nowhere, Err(ControlError::InstanceNotFound(_))));
}

#[tokio::test]
async fn devices_are_recorded_switched_deleted_and_recorded_again() {
    let (mut world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    let device = ca.issue("pump", 0x20);
    world.record(&device).await;
    let shown = world
        .control
        .get_device(&caller(), INSTANCE, "01", "20")
        .await
        .unwrap();
    assert_eq!(
        (shown.name.as_str(), shown.status),
        ("pump", Status::Active)
    );

    let set = |control: Control, status| async move {
        control
            .set_device_status(&caller(), INSTANCE, "01", "20", status)
            .await
            .unwrap()
    };
    assert!(set(world.control.clone(), Status::Inactive).await.changed);
    assert_eq!(world.admit(&device), Err(Refusal::DeviceInactive));
    world.restart().await;
    assert_eq!(world.admit(&device), Err(Refusal::DeviceInactive));
    set(world.control.clone(), Status::Active).await;
    assert!(world.admit(&device).is_ok());
    set(world.control.clone(), Status::Inactive).await;
    world
        .control
        .delete_device(&caller(), INSTANCE, "01", "20")
        .await
        .unwrap();
    world.record(&device).await;
    let all = world
        .control
        .list_devices(&caller(), INSTANCE, None, PAGE)
        .await
        .unwrap();
    assert_eq!((all.total, all.items.len()), (1, 1));
    let missing = world
        .control
        .get_device(&caller(), INSTANCE, "01", "21")
        .await;
    assert!(matches!(missing, Err(ControlError::DeviceNotFound(_))));
}

#[tokio::test]
async fn deleted_ca_takes_its_devices_along_unless_a_sibling_carries_them() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    let device = ca.issue("d", 2);
    world.record(&device).await;
    world
        .control
        .set_device_status(&caller(), INSTANCE, "01", "02", Status::Inactive)
        .await
        .unwrap();
    let renewed = TestCa::self_signed_with(ca_params("ca", 3), Arc::clone(&ca.key));
    world.register(&renewed, "renewed").await;
    world
        .control
        .delete_ca(&caller(), INSTANCE, "01")
        .await
        .unwrap();
    // The denial of the device goes over to the renewed certificate.
    assert_eq!(world.admit(&device), Err(Refusal::DeviceInactive));
    let shown = world
        .control
        .get_device(&caller(), INSTANCE, "03", "02")
        .await
        .unwrap();
    assert_eq!(shown.status, Status::Inactive);
    world
        .control
        .delete_ca(&caller(), INSTANCE, "03")
        .await
        .unwrap();
    assert_eq!(world.admit(&device), Err(Refusal::UnknownCa));
    assert!(world.store.kept.lock().unwrap().devices.is_empty());
}

#[tokio::test]
async fn states_changed_by_another_hand_are_taken_over() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let other = TestCa::root("other", 2);
    let sn = world.register(&other, "other").await;
    world.register(&ca, "ca").await;
    let device = ca.issue("d", 2);
    let by_hand = |status| {
        let mut record = world.store.kept.lock().unwrap().cas.last().unwrap().clone();
        record.status = status;
        assert_eq!(record.name, "ca");
        world.store.apply(vec![Change::PutCa(record)]);
    };
    by_hand(Status::Inactive);
    while world.admit(&device).is_ok() {
        tokio::task::yield_now().await;
    }
    by_hand(Status::Active);
    while world.admit(&device).is_err() {
        tokio::task::yield_now().await;
    }
    // At the same moment as a change of ours: neither is lost.
    by_hand(Status::Inactive);
    world
        .control
        .set_ca_status(&host(), INSTANCE, &sn, Status::Inactive)
        .await
        .unwrap();
    assert!(world.admit(&device).is_err());
    assert!(world.admit(&other.issue("e", 3)).is_err());
}

#[tokio::test]
async fn every_change_is_audited_with_intent_and_outcome() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    world
        .control
        .set_ca_status(&caller(), INSTANCE, "1", Status::Inactive)
        .await
        .unwrap();
    let missing = world
        .control
        .set_ca_status(&caller(), INSTANCE, "99", Status::Inactive)
        .await;
    assert!(matches!(missing, Err(ControlError::CaNotFound(_))));
    let lines: Vec<_> = world
        .audit_lines()
        .into_iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            (text("phase"), text("action"), text("subject"))
        })
        .collect();
    let of = |phase: &str, action: &str, subject: &str| {
        (phase.to_owned(), action.to_owned(), subject.to_owned())
    };
    assert_eq!(
        lines,
        [
            of("intent", "RegisterCaCertificate", "ca:01"),
            of("done", "RegisterCaCertificate", "ca:01"),
            of("intent", "InactivateCaCertificate", "ca:01"),
            of("done", "InactivateCaCertificate", "ca:01"),
            of("refused", "InactivateCaCertificate", "ca:99"),
        ]
    );
}

#[tokio::test]
async fn sessions_are_kept_where_the_instance_says_so() {
    let (world, ca) = (
        World::with(SameKey::Deny, OnInactivate::Keep).await,
        TestCa::root("ca", 1),
    );
    let sn = world.register(&ca, "ca").await;
    let instance = INSTANCE.parse().unwrap();
    let registry = world.control.registry(&instance).unwrap();
    let peer = VerifiedPeer::new(instance.clone(), world.admit(&ca.issue("d", 2)).unwrap());
    let peers = world.control.peers(&instance).unwrap();
    let live = peers
        .enter(peer, &registry, crate::testing::now_secs())
        .unwrap();
    let changed = world
        .control
        .set_ca_status(&host(), INSTANCE, &sn, Status::Inactive)
        .await;
    assert_eq!(changed.unwrap().sessions_ended, 0);
    assert_eq!(live.cut(), None);
    assert!(world.admit(&ca.issue("e", 3)).is_err());
}
