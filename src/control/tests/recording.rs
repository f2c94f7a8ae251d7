//! What is recorded, and what is done, while the log or the store cannot be written or does not
//! answer.

use std::collections::HashMap;
use std::fs;

use super::world::{caller, host};
use super::*;
use crate::ca::certificate::to_pem;
use crate::ca::error::Refusal;
use crate::control::Back;
use crate::control::crl::NewCrl;
use crate::control::lockout::Lockouts;
use crate::control::schedule::NewSchedule;
use crate::store::{DeviceId, DeviceRecord};
use crate::testing::crl::TestCrl;

const MOMENT: Duration = Duration::from_millis(20);

const LOG: &str = "impatient.jsonl";

/// A world that waits for the store no longer than a moment. That store is in memory; the log is
/// on a real disk, which may take longer.
async fn impatient() -> World {
    let mut world = World::new().await;
    world
        .restart_with(LOG, |it| it.patience.store = MOMENT)
        .await;
    world
}

impl World {
    async fn try_set(&self, sn: &str, status: Status) -> Result<(), ControlError> {
        let caller = host();
        let set = self.control.set_ca_status(&caller, INSTANCE, sn, status);
        set.await.map(drop)
    }

    fn recorded(&self) -> Vec<serde_json::Value> {
        let path = self.directory.path().join(LOG);
        crate::audit::verify(&path).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }

    /// Phases and details of the records of this action.
    fn recorded_of(&self, action: &str) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let records = self.recorded().into_iter();
        let records = records.filter(|it| it["action"] == action);
        records
            .map(|it| (text(&it["phase"]), text(&it["detail"])))
            .collect()
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn log_that_hangs_keeps_no_denial_from_being_made() {
    let mut world = World::new().await;
    let (one, two) = (TestCa::root("one", 1), TestCa::root("two", 2));
    let (sn, other) = (
        world.register(&one, "one").await,
        world.register(&two, "two").await,
    );
    world
        .restart_with(LOG, |it| it.patience.audit = MOMENT)
        .await;
    let held = world.control.0.recorder.log().hold();
    for (sn, ca) in [(&sn, &one), (&other, &two)] {
        let denied = world.try_set(sn, Status::Inactive).await;
        assert!(
            matches!(denied, Err(ControlError::Unrecorded(_))),
            "{denied:?}"
        );
        let refused = world.admit(&ca.issue("d", 9));
        assert!(matches!(refused, Err(Refusal::CaInactive { .. })));
        assert_eq!(
            world.store.status(ca.certificate().id()),
            Some(Status::Inactive)
        );
    }
    // What cannot be recorded before allows nothing.
    let allowed = world.try_set(&sn, Status::Active).await;
    assert!(
        matches!(allowed, Err(ControlError::Internal(_))),
        "{allowed:?}"
    );
    assert!(!world.control.is_ready());
    drop(held);
    // The log gets all of it when it answers, in order.
    world.until(|it| it.control.is_ready()).await;
    let recorded = world.recorded_of("InactivateCaCertificate");
    let phases: Vec<_> = recorded.iter().map(|(phase, _)| phase.as_str()).collect();
    assert_eq!(phases, ["intent", "done", "intent", "done"]);
    assert!(recorded[1].1.contains("the intent was not recorded before"));
}

#[tokio::test]
async fn denial_that_could_not_be_recorded_is_recorded_when_the_log_can_be_written() {
    let (world, ca) = (impatient().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let path = world.directory.path().join(LOG);
    let away = path.with_extension("away");
    fs::rename(&path, &away).unwrap();
    let denied = world.try_set(&sn, Status::Inactive).await;
    assert!(
        matches!(denied, Err(ControlError::Unrecorded(_))),
        "{denied:?}"
    );
    assert_eq!(
        world.store.status(ca.certificate().id()),
        Some(Status::Inactive)
    );
    assert!(!world.control.is_ready());
    fs::rename(&away, &path).unwrap();
    world.until(|it| it.control.is_ready()).await;
    let recorded = world.recorded_of("InactivateCaCertificate");
    let [(phase, detail)] = &recorded[..] else {
        panic!("{recorded:?}")
    };
    assert_eq!(phase, "done");
    assert!(
        detail.contains("the intent was not recorded before"),
        "{detail}"
    );
}

#[tokio::test]
async fn store_that_hangs_keeps_no_denial_from_being_made() {
    let world = impatient().await;
    let (one, two) = (TestCa::root("one", 1), TestCa::root("two", 2));
    let (sn, other) = (
        world.register(&one, "one").await,
        world.register(&two, "two").await,
    );
    world.try_set(&sn, Status::Inactive).await.unwrap();
    world
        .store
        .silent
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let allowed = world.try_set(&sn, Status::Active).await;
    assert!(
        matches!(allowed, Err(ControlError::Unanswered(_))),
        "{allowed:?}"
    );
    assert!(world.admit(&one.issue("d", 9)).is_err());
    let denied = world.try_set(&other, Status::Inactive).await;
    assert!(
        matches!(denied, Err(ControlError::NotDurable(_))),
        "{denied:?}"
    );
    let refused = world.admit(&two.issue("d", 9));
    assert!(matches!(refused, Err(Refusal::CaInactive { .. })));
    assert!(!world.control.is_ready());
    // It says that it is off, and is right: also if the disk makes the activation later.
    let again = world.try_set(&sn, Status::Inactive).await;
    assert!(
        matches!(again, Err(ControlError::NotDurable(_))),
        "{again:?}"
    );
    let admitted =
        || world.admit(&one.issue("d", 9)).is_ok() || world.admit(&two.issue("d", 9)).is_ok();
    world.store.answer();
    world
        .until(|it| {
            assert!(!admitted());
            it.control.is_ready()
        })
        .await;
    for ca in [&one, &two] {
        assert_eq!(
            world.store.status(ca.certificate().id()),
            Some(Status::Inactive)
        );
    }
    // Nor does whoever follows the store find it.
    world.try_set(&other, Status::Active).await.unwrap();
    assert!(world.admit(&one.issue("d", 9)).is_err());
    assert!(world.admit(&two.issue("d", 9)).is_ok());
}

#[tokio::test]
async fn what_a_hanging_store_makes_late_is_taken_back() {
    let world = impatient().await;
    let (one, two) = (TestCa::root("one", 1), TestCa::root("two", 2));
    let sn = world.register(&one, "one").await;
    world.try_set(&sn, Status::Inactive).await.unwrap();
    let before = world.store.kept.lock().unwrap().clone();
    let silent = |it| {
        world
            .store
            .silent
            .store(it, std::sync::atomic::Ordering::Relaxed)
    };
    let caller = host();
    for late in 0..3 {
        silent(true);
        let pem = two.pem();
        let unanswered = match late {
            0 => world
                .control
                .delete_ca(&caller, INSTANCE, &sn)
                .await
                .map(drop),
            1 => {
                let new = NewSchedule {
                    status: Status::Active,
                    at_ms: crate::testing::now_secs() * 1000 + 3_600_000,
                    back: Back::Never,
                    lockouts: Lockouts::Refuse,
                };
                let plan = world.control.schedule_ca(&caller, INSTANCE, &sn, new);
                plan.await.map(drop)
            }
            _ => {
                let register = world
                    .control
                    .register_ca_unproved(&caller, INSTANCE, "two", &pem);
                register.await.map(drop)
            }
        };
        assert!(
            matches!(unanswered, Err(ControlError::Unanswered(_))),
            "{late}: {unanswered:?}"
        );
        world.store.answer();
        world.until(|it| it.control.is_ready()).await;
        let kept = world.store.kept.lock().unwrap().clone();
        assert_eq!(
            (kept.cas, kept.schedules),
            (before.cas.clone(), before.schedules.clone())
        );
        assert!(world.admit(&one.issue("d", 9)).is_err());
        assert!(world.admit(&two.issue("d", 9)).is_err());
    }
}

#[tokio::test]
async fn devices_that_a_hanging_store_deletes_late_are_put_back_as_they_were() {
    late_deletions_are_taken_back(false).await;
}

#[tokio::test]
async fn devices_that_a_hanging_store_moves_late_are_moved_back() {
    late_deletions_are_taken_back(true).await;
}

async fn late_deletions_are_taken_back(with_heir: bool) {
    let world = impatient().await;
    let ca = TestCa::root("ca", 1);
    let sn = world.register(&ca, "ca").await;
    for serial in [5, 6] {
        world.record(&ca.issue("d", serial)).await;
    }
    if with_heir {
        let params = crate::testing::ca_params("ca", 2);
        let renewed = TestCa::self_signed_with(params, Arc::clone(&ca.key));
        world.register(&renewed, "renewed").await;
    }
    let (control, caller) = (&world.control, host());
    control
        .set_device_status(&caller, INSTANCE, &sn, "05", Status::Inactive)
        .await
        .unwrap();
    world.try_set(&sn, Status::Inactive).await.unwrap();
    let kept = || {
        let mut devices = world.store.kept.lock().unwrap().devices.clone();
        devices.sort_by_key(|device| device.serial.clone());
        (devices, world.store.certificates.lock().unwrap().clone())
    };
    let before = kept();
    assert_eq!((before.0.len(), before.1.len()), (2, 2));
    // An active one that went with its CA is recorded again when it connects.
    let denied_alone = |(mut devices, mut certificates): (Vec<DeviceRecord>, HashMap<_, _>)| {
        devices.retain(|device| device.status == Status::Inactive);
        certificates.retain(|device: &DeviceId, _| *device == devices[0].id());
        (devices, certificates)
    };
    for whole_ca in [false, true] {
        world
            .store
            .silent
            .store(true, std::sync::atomic::Ordering::Relaxed);
        let deleted = match whole_ca {
            true => control.delete_ca(&caller, INSTANCE, &sn).await,
            false => control.delete_device(&caller, INSTANCE, &sn, "05").await,
        };
        assert!(
            matches!(deleted, Err(ControlError::Unanswered(_))),
            "{deleted:?}"
        );
        world.store.answer();
        assert_ne!(kept(), before);
        world.until(|it| it.control.is_ready()).await;
        match whole_ca && !with_heir {
            true => assert_eq!(denied_alone(kept()), denied_alone(before.clone())),
            false => assert_eq!(kept(), before),
        }
    }
}

#[tokio::test]
async fn devices_are_found_and_shut_out_while_their_certificates_cannot_be_read() {
    let world = impatient().await;
    let ca = TestCa::root("ca", 1);
    let sn = world.register(&ca, "ca").await;
    let device = ca.issue("d", 5);
    world.record(&device).await;
    let (control, caller) = (&world.control, host());
    let hangs = &world.store.lookups_hang;
    hangs.store(true, std::sync::atomic::Ordering::Relaxed);
    let shown = || control.get_device(&caller, INSTANCE, &sn, "05");
    let found = shown().await.unwrap();
    assert_eq!((found.name.as_str(), found.pem.as_str()), ("d", ""));
    let switch = |status| control.set_device_status(&caller, INSTANCE, &sn, "05", status);
    switch(Status::Inactive).await.unwrap();
    assert_eq!(world.admit(&device), Err(Refusal::DeviceInactive));
    // What cannot be taken back is not begun.
    let before = world.store.kept.lock().unwrap().clone();
    let deleted = control.delete_device(&caller, INSTANCE, &sn, "05").await;
    assert!(
        matches!(deleted, Err(ControlError::Unanswered(_))),
        "{deleted:?}"
    );
    assert_eq!(*world.store.kept.lock().unwrap(), before);
    assert_eq!(world.admit(&device), Err(Refusal::DeviceInactive));
    assert!(control.is_ready());
    hangs.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(shown().await.unwrap().pem, to_pem(&device.der));
    control
        .delete_device(&caller, INSTANCE, &sn, "05")
        .await
        .unwrap();
    assert!(world.admit(&device).is_ok());
}

#[tokio::test]
async fn list_is_not_deleted_while_the_store_is_known_to_hang() {
    let world = impatient().await;
    let (ca, other) = (TestCa::root("ca", 1), TestCa::root("other", 2));
    let (_, sn) = (
        world.register(&ca, "ca").await,
        world.register(&other, "other").await,
    );
    let new = NewCrl {
        content: TestCrl::revoking(1, &[9]).der(&ca).into(),
        ..NewCrl::default()
    };
    let list = world
        .control
        .import_crl(&host(), INSTANCE, new)
        .await
        .unwrap();
    world
        .store
        .silent
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let denied = world.try_set(&sn, Status::Inactive).await;
    assert!(
        matches!(denied, Err(ControlError::NotDurable(_))),
        "{denied:?}"
    );
    let (host, id) = (host(), list.crl.id.to_string());
    let deleted = world.control.delete_crl(&host, INSTANCE, &id).await;
    assert!(
        matches!(deleted, Err(ControlError::Unanswered(_))),
        "{deleted:?}"
    );
    world.store.answer();
    world.until(|it| it.control.is_ready()).await;
    let refused = world.admit(&ca.issue("d", 9));
    assert!(
        matches!(refused, Err(Refusal::Revoked { .. })),
        "{refused:?}"
    );
    world
        .control
        .delete_crl(&host, INSTANCE, &id)
        .await
        .unwrap();
    assert!(world.admit(&ca.issue("d", 9)).is_ok());
}

#[tokio::test]
async fn caller_that_is_refused_again_and_again_does_not_fill_the_log() {
    let world = impatient().await;
    let before = world.recorded().len();
    let caller = caller();
    for _ in 0..500 {
        let set = world
            .control
            .set_ca_status(&caller, INSTANCE, "0a", Status::Inactive);
        assert!(matches!(set.await, Err(ControlError::CaNotFound(_))));
    }
    assert!((60..=70).contains(&(world.recorded().len() - before)));
}

#[tokio::test]
async fn what_another_hand_changes_is_recorded() {
    let (world, ca) = (impatient().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let mut record = world.store.kept.lock().unwrap().cas[0].clone();
    record.status = Status::Inactive;
    world.store.apply(vec![Change::PutCa(record)]);
    world
        .until(|it| it.recorded_of("TakeOverFromStore").len() == 1)
        .await;
    let record = world.recorded().pop().unwrap();
    assert_eq!(record["subject"], format!("ca:{sn}"));
    assert_eq!(
        (&record["before"], &record["after"]),
        (&"active".into(), &"inactive".into())
    );
    assert_eq!(record["origin"]["door"], "store");
}
