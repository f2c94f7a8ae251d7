//! Disks that are full or come too late, and an audit log that fails.

use super::*;
use crate::ca::lifecycle::Status;
use crate::control::change::Toward;
use crate::control::start::OpenError;

/// A list that is too large for what room there is.
fn large(number: u8) -> TestCrl {
    let others: Vec<u64> = (100..160).collect();
    TestCrl::revoking(number, &[&[6], &others[..]].concat())
}

/// A world with two CAs, whose disk has no room for a large list of the first one.
async fn full() -> (World, TestCa, TestCa, String) {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let other = TestCa::root("other", 2);
    world.register(&ca, "ca").await;
    let other_sn = world.register(&other, "other").await;
    world
        .import(&ca, &TestCrl::revoking(1, &[5]))
        .await
        .unwrap();
    world.store.room.store(1024, Ordering::Relaxed);
    let owed = world.import(&ca, &large(2)).await;
    assert!(matches!(owed, Err(ControlError::NotDurable(_))), "{owed:?}");
    (world, ca, other, other_sn)
}

impl World {
    async fn switch_to(&self, sn: &str, status: Status) -> Result<bool, ControlError> {
        let (control, caller) = (&self.control, caller());
        let changed = control.set_ca_status(&caller, INSTANCE, sn, status).await;
        changed.map(|changed| changed.changed)
    }

    fn tried(&self) -> usize {
        self.store.lists_tried.load(Ordering::Relaxed)
    }

    fn kept_crls(&self) -> usize {
        self.store.kept.lock().unwrap().crls.len()
    }
}

#[tokio::test]
async fn list_that_does_not_fit_on_the_disk_holds_up_nothing_else() {
    let (world, ca, other, other_sn) = full().await;
    let other_id = other.certificate().id();
    // Toward deny and toward allow.
    for status in [Status::Inactive, Status::Active] {
        assert!(world.switch_to(&other_sn, status).await.unwrap());
        assert_eq!(world.store.status(other_id), Some(status));
    }
    // A list that fits, of whichever CA.
    let small = world.import(&other, &TestCrl::revoking(1, &[7])).await;
    assert!(small.unwrap().changed);
    assert_eq!(world.kept_crls(), 2);
    assert_eq!(world.reason(&other.issue("d", 7)), "device_revoked");
    // What does not fit denies, and nothing that it lets in is let in.
    let both = [ca.issue("five", 5), ca.issue("six", 6)];
    assert!(!world.control.is_ready());
    for device in &both {
        assert_eq!(world.reason(device), "device_revoked");
    }
    let again = world.import(&ca, &large(3)).await;
    assert!(matches!(again, Err(ControlError::NotDurable(_))));
    world.store.room.store(0, Ordering::Relaxed);
    until(|| world.control.is_ready()).await;
    assert_eq!(world.reason(&both[0]), "admitted");
    assert_eq!(world.reason(&both[1]), "device_revoked");
    let tried = world.tried();
    world.switch_to(&other_sn, Status::Inactive).await.unwrap();
    assert_eq!(world.tried(), tried, "nothing is owed");
    assert_eq!(
        world.kept_crls(),
        2,
        "of the large one the last issue alone"
    );
}

#[tokio::test]
async fn list_that_does_not_fit_is_written_seldom_and_goes_when_it_is_deleted() {
    let (world, ca, _, other_sn) = full().await;
    {
        let inner = &world.control.0;
        let mut turn = inner.turn.lock().await;
        for _ in 0..6 {
            let paid = inner.commit(&mut turn, Vec::new(), Toward::Deny).await;
            assert!(paid.is_err(), "whoever asks has it tried");
        }
        let tried = world.tried();
        assert!(!inner.pay(&mut turn).await);
        assert_eq!(world.tried(), tried);
    }
    let tried = world.tried();
    world.switch_to(&other_sn, Status::Inactive).await.unwrap();
    assert_eq!(world.tried(), tried);
    let caller = caller();
    let page = world.control.list_crls(&caller, INSTANCE, None, PAGE);
    let id = page.await.unwrap().items[0].id.to_string();
    let deleted = world.control.delete_crl(&caller, INSTANCE, &id).await;
    assert!(deleted.unwrap().changed);
    assert!(world.control.is_ready(), "nothing is owed any more");
    assert_eq!(world.kept_crls(), 0);
    for serial in [5, 6] {
        assert_eq!(world.reason(&ca.issue("d", serial)), "admitted");
    }
}

#[tokio::test]
async fn list_that_has_expired_when_it_is_kept_leaves_nobody_connected() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let now = now_secs();
    let long = TestCrl::new(1).until(now + 7 * 24 * 3600);
    world.import(&ca, &long).await.unwrap();
    world.policy(&sn, CrlPolicy::InDate).await;
    let live = world.record_and_connect(&ca.issue("d", 5)).await;
    world.store.broken.store(true, Ordering::Relaxed);
    let short = TestCrl::new(2).until(now + 3600);
    assert!(world.import(&ca, &short).await.is_err());
    world.advance(Duration::from_secs(2 * 3600));
    assert_eq!(live.cut(), None, "the one on disk vouches");
    world.store.broken.store(false, Ordering::Relaxed);
    until(|| live.cut() == Some(Cut::NoCrl)).await;
}

#[tokio::test]
async fn list_that_is_on_disk_counts_though_the_audit_log_failed() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    world.policy(&sn, CrlPolicy::Required).await;
    let device = ca.issue("d", 5);
    let log = world.directory.path().join("audit.jsonl");
    let away = log.with_extension("away");
    std::fs::rename(&log, &away).unwrap();
    let imported = world.import(&ca, &TestCrl::new(1)).await;
    assert!(imported.is_err(), "{imported:?}");
    assert_eq!(world.kept_crls(), 1);
    assert_eq!(world.reason(&device), "admitted");
    std::fs::rename(&away, &log).unwrap();
}

#[tokio::test]
async fn policy_of_an_instance_that_is_gone_does_not_stop_the_start_and_its_list_does() {
    let (mut world, ca) = (World::new().await, TestCa::root("ca", 1));
    let gone: crate::ca::id::InstanceId = "gone".parse().unwrap();
    let issuer = ca.certificate().key_id();
    let policy = crate::store::CrlPolicyRecord {
        instance: gone.clone(),
        issuer,
        policy: CrlPolicy::Required,
    };
    world.store.kept.lock().unwrap().crl_policies.push(policy);
    world.restart().await;
    let der = TestCrl::revoking(1, &[5]).der(&ca);
    let crl = TestCrl::revoking(1, &[5]).verified(&ca).unwrap();
    let record = crate::store::CrlRecord {
        instance: gone.clone(),
        id: crl.id(),
        issuer,
        digest: crate::ca::id::CrlDigest::of_der(&der),
        imported_at_ms: 0,
    };
    let der = CrlDer(der.into());
    world.store.apply(vec![Change::PutCrl { record, der }]);
    let log = world.directory.path().join("another.jsonl");
    let parts = super::super::world::parts(&world.store, log, &world.time);
    match crate::control::Control::open(parts).await {
        Err(OpenError::UnknownInstance(instance)) => assert_eq!(instance, gone),
        other => panic!("{:?}", other.map(drop)),
    }
}
