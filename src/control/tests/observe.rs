//! Who is told of changes, and of which.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::INSTANCE;
use super::world::{World, caller, host, parts};
use crate::ca::crl::CrlPolicy;
use crate::ca::lifecycle::Status;
use crate::control::keys::KeyChange;
use crate::control::observe::{Durability, Happened, Observer, Subject, TrustChange};
use crate::control::policy::Policy;
use crate::control::{Caller, Control, Door, Grant, InstanceSettings};
use crate::testing::{TestCa, now_secs};

#[derive(Default)]
struct Told(Mutex<Vec<TrustChange>>);

impl Observer for Told {
    fn changed(&self, change: &TrustChange) {
        self.0.lock().unwrap().push(change.clone());
    }
}

impl Told {
    fn of(control: &Control, instance: &str) -> Arc<Self> {
        let told = Arc::new(Self::default());
        control.observe(&instance.parse().unwrap(), told.clone());
        told
    }

    fn take(&self) -> Vec<TrustChange> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    #[track_caller]
    fn one(&self) -> TrustChange {
        let mut all = self.take();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

#[tokio::test]
async fn what_has_changed_is_told_once_with_who_changed_it() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 0xab));
    let told = Told::of(&world.control, INSTANCE);
    let sn = world.register(&ca, "ca").await;
    let change = told.one();
    assert_eq!(change.subject, Subject::Ca { sn: sn.clone() });
    assert_eq!(change.happened, Happened::Registered);
    assert_eq!((change.before, change.after), (None, Some("active")));
    assert_eq!(
        (change.principal.as_str(), change.door),
        ("host:root", "host")
    );

    let peer = world.record(&ca.issue("d", 2)).await;
    let device = Subject::Device {
        ca_sn: sn.clone(),
        serial: "02".to_owned(),
    };
    let change = loop {
        if let Some(change) = told.take().pop() {
            break change;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(change.subject, device);
    assert_eq!(change.happened, Happened::Recorded);
    assert_eq!(change.request_id, None);

    let control = &world.control;
    let (registry, peers) = (
        control.registry(peer.instance()).unwrap(),
        control.peers(peer.instance()).unwrap(),
    );
    let _live = peers.enter(peer, &registry, now_secs()).unwrap();
    for _ in 0..2 {
        control
            .set_ca_status(&caller(), INSTANCE, "AB", Status::Inactive)
            .await
            .unwrap();
    }
    // The second time nothing has changed.
    let change = told.one();
    assert_eq!(change.happened, Happened::Inactivated);
    assert_eq!(
        (change.before, change.after),
        (Some("active"), Some("inactive"))
    );
    assert_eq!(change.connections_ended, Some(1));
    assert_eq!(change.durability, Durability::OnDisk);
    assert_eq!(change.principal, "access_key:AK1");
    assert_eq!(change.door, "http");
    assert_eq!(change.address, caller().address);
    assert_eq!(change.action, "InactivateCaCertificate");
    let audited = world.audit_lines();
    let audited = audited.iter().find(|line| line["action"] == change.action);
    let audited = audited.unwrap();
    assert_eq!(audited["origin"]["request_id"], change.request_id.unwrap());
    assert_eq!(audited["origin"]["principal"], change.principal);
    assert_eq!(audited["origin"]["door"], change.door);

    let host = host();
    let set = async |status| {
        let done = control.set_device_status(&host, INSTANCE, &sn, "02", status);
        done.await.unwrap();
        told.one()
    };
    assert_eq!(set(Status::Inactive).await.happened, Happened::Inactivated);
    assert_eq!(set(Status::Active).await.happened, Happened::Activated);
    control
        .delete_device(&host, INSTANCE, &sn, "02")
        .await
        .unwrap();
    let change = told.one();
    assert_eq!(
        (change.happened, change.subject),
        (Happened::Deleted, device)
    );

    control
        .set_ca_status(&host, INSTANCE, &sn, Status::Active)
        .await
        .unwrap();
    assert_eq!(told.one().happened, Happened::Activated);
    control.delete_ca(&host, INSTANCE, &sn).await.unwrap();
    let change = told.one();
    assert_eq!(change.happened, Happened::Deleted);
    assert_eq!((change.before, change.after), (Some("active"), None));
}

#[tokio::test]
async fn policy_of_crls_is_told_as_such_and_never_as_an_activation() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let (control, host) = (&world.control, host());
    let off = control.set_ca_status(&host, INSTANCE, &sn, Status::Inactive);
    off.await.unwrap();
    let told = Told::of(control, INSTANCE);
    for (policy, before, after) in [
        (CrlPolicy::Required, "optional", "required"),
        (CrlPolicy::InDate, "required", "in_date"),
        (CrlPolicy::Optional, "in_date", "optional"),
    ] {
        for _ in 0..2 {
            let set = control.set_crl_policy(&host, INSTANCE, &sn, policy);
            set.await.unwrap();
        }
        // The second time nothing has changed.
        let change = told.one();
        assert_eq!(change.happened, Happened::CrlPolicyChanged);
        assert_eq!(change.subject, Subject::Ca { sn: sn.clone() });
        assert_eq!((change.before, change.after), (Some(before), Some(after)));
    }
}

#[tokio::test]
async fn what_is_refused_is_not_told_and_what_the_disk_does_not_have_is_told_as_such() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let sn = world.register(&ca, "ca").await;
    let told = Told::of(&world.control, INSTANCE);
    let (control, host) = (&world.control, host());
    let stranger = Caller {
        account: "somebody-else".parse().unwrap(),
        ..caller()
    };
    for (caller, sn) in [
        (&stranger, sn.as_str()),
        (&caller(), "ff"),
        (&caller(), "x"),
    ] {
        let refused = control.set_ca_status(caller, INSTANCE, sn, Status::Inactive);
        assert!(refused.await.is_err());
    }
    assert_eq!(told.take(), []);

    world.store.broken.store(true, Ordering::Relaxed);
    let refused = control.set_ca_status(&host, INSTANCE, &sn, Status::Active);
    let _ = refused.await;
    assert_eq!(told.take(), []);
    let denied = control.set_ca_status(&host, INSTANCE, &sn, Status::Inactive);
    assert!(denied.await.is_err());
    let change = told.one();
    assert_eq!(change.happened, Happened::Inactivated);
    assert_eq!(change.durability, Durability::InMemory);
    assert_eq!(change.connections_ended, None);
    let allowed = control.set_ca_status(&host, INSTANCE, &sn, Status::Active);
    assert!(allowed.await.is_err());
    assert_eq!(told.take(), []);
}

#[tokio::test]
async fn keys_are_told_in_the_instances_of_their_account_only_and_without_their_secret() {
    let world = World::new().await;
    let mut parts = parts(&world.store, world.directory.path().join("a"), &world.time);
    for (id, account) in [("post-cn-two", "owner"), ("post-cn-other", "tenant")] {
        parts.instances.push(InstanceSettings {
            id: id.parse().unwrap(),
            account: account.parse().unwrap(),
            region: "cn-hangzhou".to_owned(),
            same_key: Default::default(),
            on_inactivate: Default::default(),
            admin_cas: Vec::new(),
        });
    }
    let control = Control::open(parts).await.unwrap();
    let told = [INSTANCE, "post-cn-two", "post-cn-other"].map(|id| Told::of(&control, id));
    let [first, second, tenant] = &told;
    let account = "owner".parse().unwrap();
    let key = control
        .create_key(&host(), account, "for a test", None)
        .await
        .unwrap();
    let id = key.key.id.to_string();
    let mut happened = vec![first.one()];
    assert_eq!(second.one().happened, Happened::Created);
    let policy =
        r#"{"Version":"1","Statement":{"Effect":"Allow","Action":"mq:Get*","Resource":"*"}}"#;
    let policy = Some(Policy::from_json(policy).unwrap());
    for change in [
        KeyChange::Policy(policy),
        KeyChange::Status(Status::Inactive),
        KeyChange::Status(Status::Active),
    ] {
        control.change_key(&host(), &id, change).await.unwrap();
        happened.push(first.one());
    }
    let again = KeyChange::Status(Status::Active);
    control.change_key(&host(), &id, again).await.unwrap();
    assert_eq!(first.take(), []);
    control.delete_key(&host(), &id).await.unwrap();
    happened.push(first.one());
    for change in &happened {
        assert_eq!(change.subject, Subject::AccessKey { id: id.clone() });
        assert!(!format!("{change:?}").contains(key.secret.reveal()));
    }
    let words: Vec<_> = happened
        .iter()
        .map(|change| change.happened.as_str())
        .collect();
    assert_eq!(
        words,
        [
            "created",
            "policy_changed",
            "inactivated",
            "activated",
            "deleted"
        ]
    );
    assert_eq!(second.take().len(), 4);
    assert_eq!(tenant.take(), []);
}

#[tokio::test]
async fn one_instance_is_not_told_of_another() {
    let world = World::new().await;
    let mut parts = parts(&world.store, world.directory.path().join("a"), &world.time);
    parts.instances.push(InstanceSettings {
        id: "post-cn-two".parse().unwrap(),
        account: "owner".parse().unwrap(),
        region: "cn-hangzhou".to_owned(),
        same_key: Default::default(),
        on_inactivate: Default::default(),
        admin_cas: Vec::new(),
    });
    let control = Control::open(parts).await.unwrap();
    let (here, there) = (
        Told::of(&control, INSTANCE),
        Told::of(&control, "post-cn-two"),
    );
    let ca = TestCa::root("ca", 1);
    let caller = Caller {
        door: Door::Host,
        grant: Grant::Everything,
        ..caller()
    };
    control
        .register_ca_unproved(&caller, "post-cn-two", "ca", &ca.pem())
        .await
        .unwrap();
    assert_eq!(there.one().happened, Happened::Registered);
    assert_eq!(here.take(), []);
}

#[tokio::test]
async fn what_another_hand_does_to_the_store_is_told() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    world.record(&ca.issue("d", 2)).await;
    let told = Told::of(&world.control, INSTANCE);
    let edit = async |edit: fn(&mut crate::store::Snapshot)| {
        {
            let mut kept = world.store.kept.lock().unwrap();
            edit(&mut kept);
            kept.seq += 1;
        }
        world.store.changed.notify_waiters();
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        let change = told.one();
        assert_eq!(
            (change.principal.as_str(), change.door),
            ("system", "store")
        );
        (change.subject, change.happened)
    };
    let device = Subject::Device {
        ca_sn: "01".to_owned(),
        serial: "02".to_owned(),
    };
    let ca = Subject::Ca {
        sn: "01".to_owned(),
    };
    let done = edit(|kept| kept.devices[0].status = Status::Inactive).await;
    assert_eq!(done, (device.clone(), Happened::Inactivated));
    let done = edit(|kept| kept.devices.clear()).await;
    assert_eq!(done, (device, Happened::Deleted));
    let done = edit(|kept| kept.cas[0].status = Status::Inactive).await;
    assert_eq!(done, (ca.clone(), Happened::Inactivated));
    let done = edit(|kept| kept.cas.clear()).await;
    assert_eq!(done, (ca, Happened::Deleted));
}
