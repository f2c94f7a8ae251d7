//! Lists of revoked certificates: in force and on disk when they are answered, also when something
//! fails.

mod faults;
mod files;
mod parts;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::world::{World, caller, host};
use super::{INSTANCE, PAGE};
use crate::ca::crl::CrlPolicy;
use crate::control::crl::{CrlChanged, NewCrl};
use crate::control::{Caller, ControlError, CrlRefusal, Door, Effective, OnInactivate};
use crate::store::{Change, CrlDer};
use crate::testing::crl::{ONLY_DEVICES, TestCrl};
use crate::testing::{TestCa, TestDevice, ca_params, now_secs};
use crate::tls::live::{Cut, LivePeer};

type Imported = Result<CrlChanged, ControlError>;

impl World {
    async fn import(&self, ca: &TestCa, crl: &TestCrl) -> Imported {
        self.import_as(&caller(), None, crl.der(ca)).await
    }

    async fn import_as(&self, caller: &Caller, ca: Option<&str>, content: Vec<u8>) -> Imported {
        let new = NewCrl {
            content: Bytes::from(content),
            ca: ca.map(str::to_owned),
            ..NewCrl::default()
        };
        self.control.import_crl(caller, INSTANCE, new).await
    }

    async fn policy(&self, sn: &str, policy: CrlPolicy) -> usize {
        let changed = self
            .control
            .set_crl_policy(&host(), INSTANCE, sn, policy)
            .await;
        changed.unwrap().sessions_ended
    }

    fn reason(&self, device: &TestDevice) -> &'static str {
        match self.admit(device) {
            Ok(_) => "admitted",
            Err(refusal) => refusal.reason(),
        }
    }

    async fn record_and_connect(&self, device: &TestDevice) -> LivePeer {
        self.enter(self.record(device).await)
    }

    fn advance(&self, by: Duration) {
        *self.time.lock().unwrap() += by;
    }
}

/// Wait for it.
async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .expect("it holds in the end");
}

#[tokio::test]
async fn revoked_device_is_refused_and_cut_and_stays_out_after_a_restart() {
    let (mut world, ca) = (World::new().await, TestCa::root("ca", 0xca));
    let sn = world.register(&ca, "ca").await;
    let (bad, good) = (ca.issue("bad", 5), ca.issue("good", 6));
    let (bad_live, good_live) = (
        world.record_and_connect(&bad).await,
        world.record_and_connect(&good).await,
    );
    let imported = world
        .import(&ca, &TestCrl::revoking(7, &[5]))
        .await
        .unwrap();
    assert!(imported.changed);
    assert_eq!(imported.sessions_ended, 1);
    assert_eq!(imported.crl.ca_sn.as_ref().unwrap().to_string(), sn);
    assert_eq!(
        (bad_live.cut(), good_live.cut()),
        (Some(Cut::Revoked), None)
    );
    assert_eq!(
        (world.reason(&bad), world.reason(&good)),
        ("device_revoked", "admitted")
    );

    let lines = world.audit_lines();
    let of = |phase: &str| {
        lines
            .iter()
            .find(|it| it["action"] == "ImportCrl" && it["phase"] == phase)
    };
    assert_eq!(of("intent").unwrap()["subject"], "crl:00ca/7");
    assert!(
        of("intent").unwrap()["detail"]
            .as_str()
            .unwrap()
            .contains("CRL 7 of CN=ca, 1 entries")
    );
    assert_eq!(of("done").unwrap()["detail"], "1 live connections ended");

    world.restart().await;
    assert_eq!(
        (world.reason(&bad), world.reason(&good)),
        ("device_revoked", "admitted")
    );
    let listed = world
        .control
        .list_crls(&caller(), INSTANCE, Some(&sn), PAGE)
        .await
        .unwrap();
    assert_eq!(listed.items, std::slice::from_ref(&imported.crl));
    // Repeated, it changes nothing.
    let again = world.import(&ca, &TestCrl::revoking(7, &[5])).await;
    assert!(
        matches!(
            again,
            Err(ControlError::CrlRefused(CrlRefusal::NumberGoesBack { .. }))
        ),
        "signed anew"
    );
    world
        .control
        .delete_crl(&caller(), INSTANCE, &imported.crl.id.to_string())
        .await
        .unwrap();
    assert_eq!(world.reason(&bad), "admitted");
    world.restart().await;
    assert_eq!(world.reason(&bad), "admitted");
}

#[tokio::test]
async fn same_list_again_changes_nothing_and_leaves_no_record() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    let der = TestCrl::revoking(7, &[5]).der(&ca);
    let first = world.import_as(&caller(), None, der.clone()).await.unwrap();
    let records = world.audit_lines().len();
    world.advance(Duration::from_secs(5));
    let second = world.import_as(&caller(), None, der).await.unwrap();
    assert!(first.changed && !second.changed);
    assert_eq!(second.crl, first.crl);
    assert_eq!(world.audit_lines().len(), records);
}

#[tokio::test]
async fn list_that_is_not_taken_changes_nothing_and_is_audited() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let other = TestCa::root("other", 2);
    let sn = world.register(&ca, "ca").await;
    let other_sn = world.register(&other, "other").await;
    world
        .import(&ca, &TestCrl::revoking(7, &[5]))
        .await
        .unwrap();
    let issued = now_secs() - 60;
    let cases = [
        (
            ca_named(&sn),
            TestCrl::revoking(6, &[]).der(&ca),
            "does not go up",
        ),
        (
            ca_named(&sn),
            TestCrl::revoking(7, &[]).der(&ca),
            "does not go up",
        ),
        (
            None,
            TestCrl::revoking(8, &[]).issued_at(issued - 60).der(&ca),
            "issued before",
        ),
        (
            None,
            TestCrl::revoking(8, &[]).issued_at(issued + 3600).der(&ca),
            "in the future",
        ),
        (
            ca_named(&other_sn),
            TestCrl::revoking(8, &[]).der(&ca),
            "another CA",
        ),
        (
            None,
            TestCrl::revoking(8, &[]).der(&TestCa::root("ca", 1)),
            "no registered CA",
        ),
        (
            None,
            TestCrl::revoking(8, &[]).der(&TestCa::root("x", 1)),
            "no registered CA",
        ),
        (None, b"garbage".to_vec(), "neither DER"),
        (
            None,
            TestCrl::revoking(8, &[]).der(&ca)[..80].to_vec(),
            "cannot be read",
        ),
    ];
    for (named, content, says) in cases {
        let refused = world.import_as(&caller(), named.as_deref(), content).await;
        let error = refused.unwrap_err();
        assert!(matches!(error, ControlError::CrlRefused(_)), "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
        let last = world.audit_lines().pop().unwrap();
        assert_eq!(
            (&last["phase"], &last["code"]),
            (&"refused".into(), &"crl_refused".into())
        );
    }
    let unknown = world.import_as(&caller(), Some("77"), b"x".to_vec()).await;
    assert!(matches!(unknown, Err(ControlError::CaNotFound(_))));
    assert_eq!(world.reason(&ca.issue("bad", 5)), "device_revoked");
    assert_eq!(world.store.kept.lock().unwrap().crls.len(), 1);
}

fn ca_named(sn: &str) -> Option<String> {
    Some(sn.to_owned())
}

#[tokio::test]
async fn configuration_may_name_the_ca_by_its_name() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "plant 7").await;
    let der = TestCrl::revoking(1, &[5]).der(&ca);
    let system = Caller {
        door: Door::System,
        ..caller()
    };
    let (host, network) = (host(), caller());
    for (door, name) in [
        (&system, "plant 8"),
        (&host, "plant 7"),
        (&network, "plant 7"),
    ] {
        let refused = world.import_as(door, Some(name), der.clone()).await;
        assert!(refused.is_err(), "{name} {:?}", door.door);
    }
    assert!(world.import_as(&system, Some("plant 7"), der).await.is_ok());
}

#[tokio::test]
async fn list_without_an_entry_lets_it_in_only_when_it_is_on_disk() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    world
        .import(&ca, &TestCrl::revoking(1, &[5]))
        .await
        .unwrap();
    let (five, six) = (ca.issue("five", 5), ca.issue("six", 6));
    let live = world.record_and_connect(&six).await;
    world.store.broken.store(true, Ordering::Relaxed);
    let refused = world.import(&ca, &TestCrl::revoking(2, &[6])).await;
    assert!(
        matches!(refused, Err(ControlError::NotDurable(_))),
        "{refused:?}"
    );
    assert!(!world.control.is_ready());
    assert_eq!(
        (world.reason(&five), world.reason(&six)),
        ("device_revoked", "device_revoked")
    );
    assert_eq!(live.cut(), Some(Cut::Revoked));
    // What is owed is paid without being asked; from then on the new list counts alone.
    world.store.broken.store(false, Ordering::Relaxed);
    until(|| world.reason(&five) == "admitted").await;
    assert!(world.control.is_ready());
    assert_eq!(world.reason(&six), "device_revoked");
    assert_eq!(world.store.kept.lock().unwrap().crls.len(), 1);
}

#[tokio::test]
async fn required_list_vouches_only_when_it_is_on_disk() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let device = ca.issue("d", 5);
    world.policy(&sn, CrlPolicy::Required).await;
    assert_eq!(world.reason(&device), "crl_missing");
    world.store.broken.store(true, Ordering::Relaxed);
    assert!(world.import(&ca, &TestCrl::new(1)).await.is_err());
    assert_eq!(world.reason(&device), "crl_missing");
    world.store.broken.store(false, Ordering::Relaxed);
    until(|| world.reason(&device) == "admitted").await;
}

#[tokio::test]
async fn deleting_a_list_allows_nothing_before_it_is_durable() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    let imported = world
        .import(&ca, &TestCrl::revoking(1, &[5]))
        .await
        .unwrap();
    let id = imported.crl.id.to_string();
    world.store.broken.store(true, Ordering::Relaxed);
    let refused = world.control.delete_crl(&caller(), INSTANCE, &id).await;
    assert!(
        matches!(refused, Err(ControlError::Internal(_))),
        "{refused:?}"
    );
    assert_eq!(world.reason(&ca.issue("d", 5)), "device_revoked");
    world.store.broken.store(false, Ordering::Relaxed);
    for bad in ["", "zz", &"0".repeat(64)] {
        let none = world.control.delete_crl(&caller(), INSTANCE, bad).await;
        assert!(matches!(none, Err(ControlError::CrlNotFound(_))), "{bad}");
    }
}

#[tokio::test]
async fn policy_is_in_force_durable_and_cuts_whom_nothing_vouches_for() {
    let (mut world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let device = ca.issue("d", 5);
    let live = world.record_and_connect(&device).await;
    assert_eq!(world.policy(&sn, CrlPolicy::InDate).await, 0);
    assert_eq!(live.cut(), None);
    assert_eq!(world.policy(&sn, CrlPolicy::Required).await, 1);
    assert_eq!(live.cut(), Some(Cut::NoCrl));
    let view = || async { world.control.get_ca(&host(), INSTANCE, &sn).await.unwrap() };
    assert_eq!(view().await.crl_policy, CrlPolicy::Required);
    assert!(matches!(view().await.effective, Effective::NoCrl(_)));
    world.restart().await;
    assert_eq!(world.reason(&device), "crl_missing");
    // Toward allow: on disk first.
    world.store.broken.store(true, Ordering::Relaxed);
    let refused = world
        .control
        .set_crl_policy(&host(), INSTANCE, &sn, CrlPolicy::Optional)
        .await;
    assert!(refused.is_err());
    assert_eq!(world.reason(&device), "crl_missing");
    world.store.broken.store(false, Ordering::Relaxed);
    world.policy(&sn, CrlPolicy::Optional).await;
    assert_eq!(world.reason(&device), "admitted");
    // Toward deny: in memory first.
    world.store.broken.store(true, Ordering::Relaxed);
    let owed = world
        .control
        .set_crl_policy(&host(), INSTANCE, &sn, CrlPolicy::Required)
        .await;
    assert!(matches!(owed, Err(ControlError::NotDurable(_))));
    assert_eq!(world.reason(&device), "crl_missing");
}

#[tokio::test]
async fn list_that_expires_while_it_is_demanded_cuts_and_refuses() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let device = ca.issue("d", 5);
    let end = now_secs() + 1000;
    world
        .import(&ca, &TestCrl::new(1).until(end))
        .await
        .unwrap();
    world.policy(&sn, CrlPolicy::Required).await;
    let live = world.record_and_connect(&device).await;
    world.advance(Duration::from_secs(990));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(live.cut(), None);
    world.advance(Duration::from_secs(15));
    until(|| live.cut() == Some(Cut::NoCrl)).await;
    assert_eq!(world.reason(&device), "crl_expired");
    let late = world.import(&ca, &TestCrl::new(2).until(end + 1)).await;
    assert!(
        matches!(late, Err(ControlError::CrlRefused(CrlRefusal::Expired))),
        "{late:?}"
    );
    world
        .import(&ca, &TestCrl::new(2).until(end + 3600))
        .await
        .unwrap();
    assert_eq!(world.reason(&device), "admitted");
}
