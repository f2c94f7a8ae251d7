//! Edits of the store by another hand that meet changes of this process.

use std::sync::Arc;

use super::INSTANCE;
use super::world::{World, host};
use crate::ca::error::Refusal;
use crate::ca::lifecycle::Status;
use crate::ca::topology::SameKey;
use crate::control::{ControlError, OnInactivate};
use crate::store::{CaRecord, DeviceRecord};
use crate::testing::{TestCa, now_secs};
use crate::tls::peer::VerifiedPeer;

impl World {
    /// Edit the store as another hand would; told or not yet told to who follows it.
    fn edit(&self, told: bool, edit: impl FnOnce(&mut crate::store::Snapshot)) {
        {
            let mut kept = self.store.kept.lock().unwrap();
            edit(&mut kept);
            kept.seq += 1;
        }
        if told {
            self.store.changed.notify_waiters();
        }
    }

    /// Give the follower time to take over what was edited.
    async fn settle(&self) {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    }

    /// Make the device inactive; what follows from that is done.
    async fn shut_out(&self, ca_sn: &str, device_sn: &str) {
        self.set_device(ca_sn, device_sn, Status::Inactive).await;
        self.settle().await;
    }
}

#[tokio::test]
async fn ca_moved_to_another_instance_admits_nobody_here() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    world.settle().await;
    let device = ca.issue("d", 2);
    world.edit(true, |kept| {
        kept.cas[0].instance = "another".parse().unwrap();
    });
    world.settle().await;
    assert_eq!(world.admit(&device), Err(Refusal::UnknownCa));
}

#[tokio::test]
async fn device_put_in_as_inactive_stays_so_although_it_connects_meanwhile() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    world.settle().await;
    let device = ca.issue("d", 2);
    let admitted = world.admit(&device).unwrap();
    world.edit(false, |kept| {
        kept.devices.push(DeviceRecord {
            instance: INSTANCE.parse().unwrap(),
            issuer: admitted.device().issuer,
            serial: admitted.device().serial.clone(),
            ca: ca.certificate().id(),
            name: String::new(),
            status: Status::Inactive,
            first_seen_ms: 0,
        });
    });
    let peer = VerifiedPeer::new(INSTANCE.parse().unwrap(), admitted);
    world.control.device_admitted(&peer);
    world.settle().await;
    assert_eq!(
        world.store.kept.lock().unwrap().devices[0].status,
        Status::Inactive
    );
    assert_eq!(world.admit(&device), Err(Refusal::DeviceInactive));
}

#[tokio::test]
async fn edit_is_not_taken_over_while_a_device_is_on_record_twice() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let device = ca.issue("d", 2);
    world.record(&device).await;
    world.shut_out(&sn, "02").await;
    // A damaged index hides the row that was there before; any edit has all of them read again.
    world.edit(true, |kept| {
        let before = DeviceRecord {
            status: Status::Active,
            ..kept.devices[0].clone()
        };
        kept.devices.insert(0, before);
    });
    world.settle().await;
    assert_eq!(world.admit(&device), Err(Refusal::DeviceInactive));
    assert!(!world.control.is_ready());
}

#[tokio::test]
async fn denial_of_a_device_that_another_hand_deletes_meanwhile_is_kept() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let device = ca.issue("d", 2);
    world.record(&device).await;
    world.settle().await;
    let caller = host();
    let get = || world.control.get_device(&caller, INSTANCE, &sn, "02");
    assert!(get().await.unwrap().not_after > 0);
    world.edit(false, |kept| kept.devices.clear());
    world.store.certificates.lock().unwrap().clear();
    world.shut_out(&sn, "02").await;
    assert_eq!(world.admit(&device), Err(Refusal::DeviceInactive));
    assert!(world.control.is_ready());
    let shown = get().await.unwrap();
    assert_eq!(
        (shown.status, shown.pem.as_str(), shown.not_after),
        (Status::Inactive, "", 0)
    );
}

#[tokio::test]
async fn denial_is_kept_although_another_hand_deletes_the_ca_that_the_device_is_listed_under() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let device = ca.issue("d", 3);
    let live = world.enter(world.record(&device).await);
    let renewed = TestCa::self_signed_with(crate::testing::ca_params("ca", 2), Arc::clone(&ca.key));
    world.register(&renewed, "renewed").await;
    // One that has nothing to do with it, and is before the other in the store.
    let mut others = (3..).map(|serial| TestCa::root("other", serial));
    let other = others.find(|it| it.certificate().id() < renewed.certificate().id());
    let other = world.register(&other.unwrap(), "other").await;
    world.settle().await;
    world.edit(false, |kept| {
        kept.cas.retain(|it| it.id != ca.certificate().id());
        kept.devices.clear();
    });
    let (control, caller) = (&world.control, host());
    let denied = control.set_device_status(&caller, INSTANCE, &sn, "03", Status::Inactive);
    denied.await.unwrap();
    assert!(live.cut().is_some());
    world.settle().await;
    assert_eq!(world.admit(&device), Err(Refusal::DeviceInactive));
    assert!(control.is_ready());
    let kept = || {
        let kept = world.store.kept.lock().unwrap();
        (kept.devices[0].ca, kept.devices[0].status)
    };
    let place = renewed.certificate().id();
    assert_ne!(kept(), (place, Status::Inactive));
    // It does not go with that one.
    control.delete_ca(&caller, INSTANCE, &other).await.unwrap();
    assert_eq!(kept(), (place, Status::Inactive));
    assert_eq!(world.admit(&device), Err(Refusal::DeviceInactive));
}

#[tokio::test]
async fn device_that_another_hand_switched_off_stays_so_when_its_ca_is_deleted() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let renewed = TestCa::self_signed_with(crate::testing::ca_params("ca", 2), Arc::clone(&ca.key));
    for (ca, name) in [(&ca, "old"), (&renewed, "new")] {
        world.register(ca, name).await;
    }
    let device = ca.issue("d", 3);
    let under = world.record(&device).await.ca();
    let (sn, heir) = match under == ca.certificate().id() {
        true => ("1", renewed.certificate().id()),
        false => ("2", ca.certificate().id()),
    };
    world.settle().await;
    world.edit(false, |kept| kept.devices[0].status = Status::Inactive);
    let deleted = world.control.delete_ca(&host(), INSTANCE, sn).await;
    assert!(deleted.unwrap().changed);
    world.settle().await;
    let kept = world.store.kept.lock().unwrap().devices.clone();
    assert_eq!((kept[0].ca, kept[0].status), (heir, Status::Inactive));
    assert_eq!(world.admit(&device), Err(Refusal::DeviceInactive));
}

#[tokio::test]
async fn devices_that_meet_an_edit_are_recorded_all_the_same() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    world.settle().await;
    world.edit(false, |kept| kept.cas[0].name = "by hand".to_owned());
    world.record(&ca.issue("d", 2)).await;
    assert_eq!(world.store.kept.lock().unwrap().devices.len(), 1);
}

#[tokio::test]
async fn nothing_is_allowed_over_an_edit_that_was_not_known() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let device = ca.issue("d", 2);
    world.settle().await;
    world.edit(false, |kept| {
        kept.cas.push(CaRecord {
            instance: INSTANCE.parse().unwrap(),
            id: ca.certificate().id(),
            name: "by hand".to_owned(),
            status: Status::Inactive,
            der: ca.der.to_vec(),
            verification_pem: None,
            register_code: None,
            registered_at_ms: 0,
        });
    });
    let first = world
        .control
        .register_ca_unproved(&host(), INSTANCE, "ca", &ca.pem())
        .await;
    assert!(matches!(first, Err(ControlError::Internal(_))), "{first:?}");
    assert_eq!(
        world.store.status(ca.certificate().id()),
        Some(Status::Inactive)
    );
    assert!(world.admit(&device).is_err());
    // What was edited is known now, and the call is answered from it.
    let again = world
        .control
        .register_ca_unproved(&host(), INSTANCE, "ca", &ca.pem())
        .await;
    assert!(matches!(again, Err(ControlError::SnNotUnique(_))));
    let on = world
        .control
        .set_ca_status(&host(), INSTANCE, "1", Status::Active)
        .await;
    assert!(on.unwrap().changed);
    assert!(world.admit(&device).is_ok());
}

#[tokio::test]
async fn denial_over_an_edit_that_was_not_known_is_made_at_once() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    world.settle().await;
    world.edit(false, |kept| kept.cas[0].name = "by hand".to_owned());
    let off = world
        .control
        .set_ca_status(&host(), INSTANCE, &sn, Status::Inactive)
        .await;
    assert!(off.unwrap().changed);
    assert_eq!(
        world.store.status(ca.certificate().id()),
        Some(Status::Inactive)
    );
    assert!(world.control.is_ready());
}

#[tokio::test]
async fn register_code_removed_by_another_hand_is_good_for_nothing() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let code = world
        .control
        .register_code(&super::world::caller(), INSTANCE)
        .await
        .unwrap();
    world.settle().await;
    world.edit(true, |kept| kept.register_codes.clear());
    world.settle().await;
    let result = world.register_with(&ca, &ca.issue(&code, 5)).await;
    assert!(
        matches!(result, Err(ControlError::RegisterCodeUnknown)),
        "{result:?}"
    );
}

#[tokio::test]
async fn device_moved_to_another_certificate_is_listed_once() {
    let (world, old) = (World::new().await, TestCa::root("ca", 1));
    let new = TestCa::self_signed_with(crate::testing::ca_params("ca", 2), Arc::clone(&old.key));
    world.register(&old, "old").await;
    world.register(&new, "new").await;
    let device = old.issue("d", 3);
    let peer = world.record(&device).await;
    world.settle().await;
    let other = if peer.ca() == old.certificate().id() {
        new.certificate().id()
    } else {
        old.certificate().id()
    };
    world.edit(true, |kept| kept.devices[0].ca = other);
    world.settle().await;
    let page = world
        .control
        .list_devices(&host(), INSTANCE, None, super::PAGE)
        .await
        .unwrap();
    assert_eq!((page.total, page.items.len()), (1, 1));
}

#[tokio::test]
async fn sessions_that_are_kept_stay_when_something_else_is_edited() {
    let world = World::with(SameKey::Deny, OnInactivate::Keep).await;
    let ca = TestCa::root("ca", 1);
    let sn = world.register(&ca, "ca").await;
    let peer = world.record(&ca.issue("d", 2)).await;
    let instance = INSTANCE.parse().unwrap();
    let (registry, peers) = (
        world.control.registry(&instance).unwrap(),
        world.control.peers(&instance).unwrap(),
    );
    let live = peers.enter(peer, &registry, now_secs()).unwrap();
    world
        .control
        .set_ca_status(&host(), INSTANCE, &sn, Status::Inactive)
        .await
        .unwrap();
    world.settle().await;
    assert_eq!(live.cut(), None);
    world.edit(true, |kept| kept.cas[0].name = "by hand".to_owned());
    world.settle().await;
    assert_eq!(live.cut(), None);
}

#[tokio::test]
async fn device_switched_off_by_another_hand_loses_its_connections() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    let peer = world.record(&ca.issue("d", 2)).await;
    world.settle().await;
    let instance = INSTANCE.parse().unwrap();
    let (registry, peers) = (
        world.control.registry(&instance).unwrap(),
        world.control.peers(&instance).unwrap(),
    );
    let live = peers.enter(peer, &registry, now_secs()).unwrap();
    world.edit(true, |kept| kept.devices[0].status = Status::Inactive);
    world.settle().await;
    assert!(live.cut().is_some());
}
