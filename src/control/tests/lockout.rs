//! Changes that would lock administrators out.

use bytes::Bytes;

use super::INSTANCE;
use super::world::{TestStore, World, caller, host, parts};
use crate::ca::id::CaKeyId;
use crate::ca::lifecycle::Status;
use crate::ca::topology::SameKey;
use crate::control::crl::NewCrl;
use crate::control::impact::Intended;
use crate::control::lockout::{LockedOut, Lockouts};
use crate::control::schedule::NewSchedule;
use crate::control::{Answer, Back, Caller, Control, ControlError, Door, Manner, Principal};
use crate::testing::crl::TestCrl;
use crate::testing::{TestCa, ca_params};

/// A world in which these CAs make administrators.
pub(super) async fn with_admins(admins: &[&TestCa], same_key: SameKey) -> World {
    let store = std::sync::Arc::new(TestStore::default());
    let directory = tempfile::tempdir().unwrap();
    let time = std::sync::Arc::new(std::sync::Mutex::new(std::time::SystemTime::now()));
    let mut parts = parts(&store, directory.path().join("audit.jsonl"), &time);
    parts.instances[0].same_key = same_key;
    parts.instances[0].admin_cas = admins.iter().map(|ca| ca.certificate()).collect();
    World {
        control: Control::open(parts).await.unwrap(),
        store,
        directory,
        time,
    }
}

/// An administrator inside the broker whose CA has this serial number.
fn administrator(ca_sn: &str) -> Caller {
    Caller {
        principal: Principal::Certificate {
            ca_sn: ca_sn.parse().unwrap(),
            serial: "99".parse().unwrap(),
            issuer: CaKeyId::from_bytes([0; 32]),
            not_after: i64::MAX,
        },
        door: Door::Mqtt,
        ..caller()
    }
}

fn locked_out<T>(answer: Answer<T>) -> Option<LockedOut> {
    match answer {
        Ok(_) => None,
        Err(ControlError::LocksOut(out)) => Some(out),
        Err(other) => panic!("{other}"),
    }
}

fn all(ca_sns: &[&str]) -> Option<LockedOut> {
    let ca_sns = ca_sns.iter().map(|sn| sn.parse().unwrap()).collect();
    Some(LockedOut::Administrators { ca_sns })
}

impl World {
    async fn switch_off(&self, caller: &Caller, sn: &str, lockouts: Lockouts) -> Option<LockedOut> {
        let (off, pace) = (Status::Inactive, Default::default());
        let back = Back::Never;
        let manner = Manner {
            lockouts,
            pace,
            back,
        };
        let switched = self.control.switch_ca(caller, INSTANCE, sn, off, manner);
        locked_out(switched.await)
    }

    async fn import_unless(
        &self,
        caller: &Caller,
        crl: Vec<u8>,
        lockouts: Lockouts,
    ) -> Option<LockedOut> {
        let new = NewCrl {
            content: Bytes::from(crl),
            file: (caller.door == Door::System).then(|| "/etc/root.crl".into()),
            lockouts,
            ..NewCrl::default()
        };
        locked_out(self.control.import_crl(caller, INSTANCE, new).await)
    }

    async fn is_active(&self, sn: &str) -> bool {
        let ca = self.control.get_ca(&host(), INSTANCE, sn).await.unwrap();
        ca.status == Status::Active
    }
}

#[tokio::test]
async fn inactivation_that_locks_out_the_last_administrators_is_refused_unless_forced() {
    let root = TestCa::root("root", 1);
    let admin = root.issue_ca(ca_params("admin", 2));
    let world = with_admins(&[&admin], SameKey::Deny).await;
    let (root_sn, other) = (world.register(&root, "root").await, TestCa::root("x", 3));
    let other_sn = world.register(&other, "other").await;
    let operator = admin.issue("operator", 4);
    for caller in [caller(), host()] {
        let refused = world.switch_off(&caller, &root_sn, Lockouts::Refuse).await;
        assert_eq!(refused, all(&["2"]));
        let last = world.audit_lines().pop().unwrap();
        assert_eq!(last["phase"], "refused");
        assert_eq!(last["code"], "locks_out");
        assert!(world.is_active(&root_sn).await && world.admit(&operator).is_ok());
        let preview = world
            .control
            .preview_ca_change(&caller, INSTANCE, &root_sn, Intended::Inactivate)
            .await;
        assert_eq!(preview.unwrap().locked_out, all(&["2"]));
    }
    // One that has nothing to do with them.
    let other_off = world
        .switch_off(&caller(), &other_sn, Lockouts::Refuse)
        .await;
    assert_eq!(other_off, None);
    let forced = world
        .switch_off(&caller(), &root_sn, Lockouts::Accept)
        .await;
    assert_eq!(forced, None);
    assert!(!world.is_active(&root_sn).await && world.admit(&operator).is_err());
    // Nobody is locked out by repeating it.
    let again = world
        .switch_off(&caller(), &root_sn, Lockouts::Refuse)
        .await;
    assert_eq!(again, None);
}

#[tokio::test]
async fn administrator_does_not_cut_off_the_branch_it_sits_on() {
    let root = TestCa::root("root", 1);
    let (below, apart) = (
        root.issue_ca(ca_params("admin", 2)),
        TestCa::root("second", 3),
    );
    let world = with_admins(&[&below, &apart], SameKey::Deny).await;
    let sn = world.register(&root, "root").await;
    let own = administrator("2");
    let refused = world.switch_off(&own, &sn, Lockouts::Refuse).await;
    let ca_sn = "2".parse().unwrap();
    assert_eq!(refused, Some(LockedOut::Caller { ca_sn }));
    assert!(world.is_active(&sn).await);
    // For others somebody is left.
    let preview = world
        .control
        .preview_ca_change(&caller(), INSTANCE, &sn, Intended::Inactivate)
        .await;
    assert_eq!(preview.unwrap().locked_out, None);
    let forced = world.switch_off(&own, &sn, Lockouts::Accept).await;
    assert_eq!(forced, None);
    let back = world
        .control
        .set_ca_status(&host(), INSTANCE, &sn, Status::Active)
        .await;
    back.unwrap();
    let by_the_other = world
        .switch_off(&administrator("3"), &sn, Lockouts::Refuse)
        .await;
    assert_eq!(by_the_other, None);
}

#[tokio::test]
async fn deletion_that_locks_administrators_out_is_refused_unless_forced() {
    let root = TestCa::root("root", 1);
    let admin = root.issue_ca(ca_params("admin", 2));
    let world = with_admins(&[&admin], SameKey::AllowActive).await;
    let renewed = TestCa::self_signed_with(ca_params("root", 3), root.key.clone());
    let old_sn = world.register(&root, "root").await;
    let new_sn = world.register(&renewed, "renewed").await;
    assert_eq!(
        world.switch_off(&host(), &old_sn, Lockouts::Refuse).await,
        None,
        "the renewed one carries it on"
    );
    let control = &world.control;
    let deleted = control
        .remove_ca(&host(), INSTANCE, &new_sn, Lockouts::Refuse)
        .await;
    assert_eq!(locked_out(deleted), all(&["2"]));
    assert!(world.is_active(&new_sn).await);
    // To delete the inactive one locks nobody out.
    let deleted = control
        .remove_ca(&host(), INSTANCE, &new_sn, Lockouts::Accept)
        .await;
    assert_eq!(locked_out(deleted), None);
    assert!(world.admit(&admin.issue("operator", 4)).is_err());
    let deleted = control.delete_ca(&host(), INSTANCE, &old_sn).await;
    assert_eq!(locked_out(deleted), None);
    assert!(world.admit(&admin.issue("operator", 5)).is_ok());
}

#[tokio::test]
async fn registration_that_locks_administrators_out_is_refused_unless_forced() {
    let root = TestCa::root("root", 1);
    let middle = root.issue_ca(ca_params("middle", 2));
    let admin = middle.issue_ca(ca_params("admin", 3));
    let world = with_admins(&[&admin], SameKey::Deny).await;
    let sn = world.register(&root, "root").await;
    // Nobody knows yet that the root stands above them.
    assert_eq!(world.switch_off(&host(), &sn, Lockouts::Refuse).await, None);
    let operator = admin.issue("operator", 4);
    assert!(world.admit(&operator).is_ok());
    let control = &world.control;
    let register = |lockouts| {
        let pem = middle.pem();
        async move {
            let registered = control
                .register(&host(), INSTANCE, "middle", &pem, None, lockouts)
                .await;
            locked_out(registered)
        }
    };
    assert_eq!(register(Lockouts::Refuse).await, all(&["3"]));
    assert!(world.admit(&operator).is_ok());
    assert_eq!(register(Lockouts::Accept).await, None);
    assert!(world.admit(&operator).is_err());
}

#[tokio::test]
async fn crl_that_locks_administrators_out_is_refused_unless_it_is_forced() {
    let root = TestCa::root("root", 1);
    let middle = root.issue_ca(ca_params("middle", 7));
    let admin = middle.issue_ca(ca_params("admin", 2));
    let world = with_admins(&[&admin], SameKey::Deny).await;
    world.register(&root, "root").await;
    world.register(&middle, "middle").await;
    let operator = admin.issue("operator", 4);
    // Their CA is below one that it is about.
    let crl = TestCrl::revoking(1, &[7]).der(&root);
    let own = Some(LockedOut::Caller {
        ca_sn: "2".parse().unwrap(),
    });
    let doors = [
        (caller(), all(&["2"])),
        (host(), all(&["2"])),
        (administrator("2"), own),
    ];
    for (caller, out) in doors {
        let refused = world
            .import_unless(&caller, crl.clone(), Lockouts::Refuse)
            .await;
        assert_eq!(refused, out);
        assert_eq!(world.audit_lines().pop().unwrap()["code"], "locks_out");
        assert!(world.admit(&operator).is_ok());
        assert!(world.store.kept.lock().unwrap().crls.is_empty());
    }
    // What is on it besides does not matter, and one of which they are not on needs nothing.
    let other = TestCrl::revoking(1, &[8, 9]).der(&root);
    let taken = world
        .import_unless(&caller(), other, Lockouts::Refuse)
        .await;
    assert_eq!(taken, None);
    let crl = TestCrl::revoking(2, &[7]).der(&root);
    let forced = world.import_unless(&caller(), crl, Lockouts::Accept).await;
    assert_eq!(forced, None);
    assert!(world.admit(&operator).is_err());
    let lines = world.audit_lines();
    let intent = lines.iter().rfind(|it| it["phase"] == "intent").unwrap();
    let detail = intent["detail"].as_str().unwrap();
    assert!(
        detail.contains("forced: it would lock out every"),
        "{detail}"
    );
    // They are out already: the next issue needs no force.
    let next = TestCrl::revoking(3, &[7, 8]).der(&root);
    let taken = world.import_unless(&caller(), next, Lockouts::Refuse).await;
    assert_eq!(taken, None);
}

#[tokio::test]
async fn crl_from_a_file_is_imported_whomever_it_locks_out_and_says_so() {
    let root = TestCa::root("root", 1);
    let admin = root.issue_ca(ca_params("admin", 2));
    let world = with_admins(&[&admin], SameKey::Deny).await;
    world.register(&root, "root").await;
    let system = Caller {
        principal: Principal::System,
        door: Door::System,
        ..caller()
    };
    let crl = TestCrl::revoking(1, &[2]).der(&root);
    let taken = world.import_unless(&system, crl, Lockouts::Refuse).await;
    assert_eq!(taken, None);
    assert!(world.admit(&admin.issue("operator", 4)).is_err());
    let lines = world.audit_lines();
    let intent = lines.iter().rfind(|it| it["phase"] == "intent").unwrap();
    let detail = intent["detail"].as_str().unwrap();
    assert!(detail.contains("the administrators' CA 02"), "{detail}");
    assert!(detail.contains("no administrator"), "{detail}");
}

#[tokio::test]
async fn administrator_does_not_revoke_its_own_certificate() {
    let admin = TestCa::root("admin", 2);
    let world = with_admins(&[&admin], SameKey::Deny).await;
    let crl = TestCrl::revoking(1, &[0x99]).der(&admin);
    let mut own = administrator("2");
    if let Principal::Certificate { issuer, .. } = &mut own.principal {
        *issuer = admin.certificate().key_id();
    }
    let refused = world
        .import_unless(&own, crl.clone(), Lockouts::Refuse)
        .await;
    let sn = "99".parse().unwrap();
    assert_eq!(refused, Some(LockedOut::Certificate { sn }));
    let by_another = world.import_unless(&caller(), crl, Lockouts::Refuse).await;
    assert_eq!(by_another, None);
}

#[tokio::test]
async fn what_is_forced_is_in_the_audit_log() {
    let root = TestCa::root("root", 1);
    let admin = root.issue_ca(ca_params("admin", 2));
    let world = with_admins(&[&admin], SameKey::Deny).await;
    let (sn, other) = (world.register(&root, "root").await, TestCa::root("x", 3));
    let other_sn = world.register(&other, "other").await;
    let noted = |world: &World| {
        let lines = world.audit_lines();
        let intent = lines.iter().rfind(|it| it["phase"] == "intent").unwrap();
        intent["detail"].as_str().unwrap_or_default().to_owned()
    };
    world.switch_off(&host(), &other_sn, Lockouts::Accept).await;
    assert_eq!(noted(&world), "", "nobody is locked out by it");
    let control = &world.control;
    let soon = crate::testing::now_secs() * 1000 + 3_600_000;
    let host = host();
    let new = NewSchedule {
        status: Status::Inactive,
        at_ms: soon,
        back: Back::Never,
        lockouts: Lockouts::Accept,
    };
    let soon = control.schedule_ca(&host, INSTANCE, &sn, new);
    soon.await.unwrap();
    assert!(
        noted(&world).contains("; forced: it would"),
        "{}",
        noted(&world)
    );
    world.switch_off(&host, &sn, Lockouts::Accept).await;
    assert!(
        noted(&world).starts_with("forced: it would"),
        "{}",
        noted(&world)
    );
    let world = with_admins(&[&admin], SameKey::AllowActive).await;
    let sn = world.register(&root, "root").await;
    let renewed = TestCa::self_signed_with(ca_params("root", 7), root.key.clone());
    world.register(&renewed, "renewed").await;
    world.switch_off(&host, &sn, Lockouts::Accept).await;
    let deleted = world
        .control
        .remove_ca(&host, INSTANCE, "7", Lockouts::Accept);
    deleted.await.unwrap();
    assert!(
        noted(&world).starts_with("forced: it would"),
        "{}",
        noted(&world)
    );
}

#[tokio::test]
async fn what_would_lock_out_is_told_in_words() {
    let out = LockedOut::Administrators {
        ca_sns: vec!["2".parse().unwrap(), "3".parse().unwrap()],
    };
    assert!(out.to_string().ends_with("CA 02, 03"), "{out}");
    let own = LockedOut::Caller {
        ca_sn: "2".parse().unwrap(),
    };
    assert!(own.to_string().contains("lock you out"), "{own}");
}
