//! Who may plan and cancel, and who must still be allowed to when it is due.

use super::*;
use crate::ca::id::CaKeyId;
use crate::ca::topology::SameKey;
use crate::control::Door;
use crate::control::crl::NewCrl;
use crate::control::tests::lockout::with_admins;
use crate::control::tests::permissions::with_policy;
use crate::testing::crl::TestCrl;

const ACCESS: &str = "mq:MqttInstanceAccess";

fn administrator(issuer: CaKeyId, not_after: i64) -> Caller {
    Caller {
        principal: Principal::Certificate {
            ca_sn: "01".parse().unwrap(),
            serial: "05".parse().unwrap(),
            issuer,
            not_after,
        },
        door: Door::Mqtt,
        ..caller()
    }
}

#[tokio::test]
async fn activation_by_an_administrator_who_is_revoked_since_is_not_made() {
    let admins = TestCa::root("admins", 1);
    for revoked in [false, true] {
        let world = with_admins(&[&admins], SameKey::Deny).await;
        let sn = world.register(&TestCa::root("ca", 2), "ca").await;
        let key = admins.certificate().key_id();
        world.set(&sn, Status::Inactive).await;
        let caller = administrator(key, i64::MAX);
        let planned = world.plan_as(&caller, &sn, Status::Active, HOUR).await;
        planned.unwrap();
        if revoked {
            let new = NewCrl {
                content: TestCrl::revoking(1, &[5]).der(&admins).into(),
                ..NewCrl::default()
            };
            let imported = world.control.import_crl(&host(), INSTANCE, new).await;
            imported.unwrap();
        }
        world.pass(HOUR).await;
        let active = world.state(&sn).await == Status::Active;
        assert_eq!((active, world.planned().await), (!revoked, 0));
    }
}

#[tokio::test]
async fn administrator_who_cannot_be_asked_for_then_plans_no_activation() {
    let admins = TestCa::root("admins", 1);
    let world = with_admins(&[&admins], SameKey::Deny).await;
    let sn = world.register(&TestCa::root("ca", 2), "ca").await;
    let key = admins.certificate().key_id();
    let soon = world.in_ms(HOUR).div_euclid(1000) - 10;
    let denied = |answer: Option<ControlError>| {
        assert!(
            matches!(answer, Some(ControlError::PermissionDenied(_))),
            "{answer:?}"
        );
    };
    for caller in [
        administrator(key, soon),
        administrator(CaKeyId::from_bytes([7; 32]), i64::MAX),
    ] {
        let planned = world.plan_as(&caller, &sn, Status::Active, HOUR).await;
        denied(planned.err());
        denied(world.cut_for(&caller, &sn, HOUR).await.err());
        let (off, back) = (Status::Inactive, Back::After(HOUR));
        let planned = world.plan_with(&caller, &sn, off, HOUR / 2, back).await;
        denied(planned.err());
        // To deny is another matter.
        world.plan_as(&caller, &sn, off, HOUR).await.unwrap();
    }
    assert_eq!(world.state(&sn).await, Status::Active);
}

#[tokio::test]
async fn right_to_deny_keeps_no_denial_from_coming() {
    let (world, _, sn) = world().await;
    let cuts = with_policy(
        &["mq:UnregisterCaCertificate", "mq:ListCaCertificate", ACCESS],
        "*",
    );
    let lets = with_policy(
        &["mq:ActiveCaCertificate", "mq:ListCaCertificate", ACCESS],
        "*",
    );
    let off = world.plan(&sn, Status::Inactive, HOUR).await.id.to_string();
    let cancel = |caller: &Caller, id: &str| {
        let (control, caller, id) = (world.control.clone(), caller.clone(), id.to_owned());
        async move { control.cancel_schedule(&caller, INSTANCE, &id).await }
    };
    let refused = cancel(&cuts, &off).await;
    assert!(matches!(refused, Err(ControlError::PermissionDenied(_))));
    cancel(&lets, &off).await.unwrap();
    for caller in [&cuts, &lets] {
        let on = world.plan(&sn, Status::Active, HOUR).await.id.to_string();
        cancel(caller, &on).await.unwrap();
    }
    // A cut that ends by itself lets in.
    let refused = world.cut_for(&cuts, &sn, HOUR).await;
    assert!(matches!(refused, Err(ControlError::PermissionDenied(_))));
    assert_eq!(world.state(&sn).await, Status::Active);
    let both = Back::After(HOUR);
    let refused = world
        .plan_with(&cuts, &sn, Status::Inactive, HOUR, both)
        .await;
    assert!(matches!(refused, Err(ControlError::PermissionDenied(_))));
    assert_eq!(world.planned().await, 0);
}

#[tokio::test]
async fn activation_is_cancelled_although_the_disk_fails_and_an_inactivation_with_its_end() {
    let (mut world, _, sn) = world().await;
    let cut = world.cut_for(&host(), &sn, HOUR).await.unwrap();
    let id = cut.back.unwrap().id.to_string();
    world.store.broken.store(true, Ordering::Relaxed);
    let cancelled = world.control.cancel_schedule(&host(), INSTANCE, &id).await;
    assert!(matches!(cancelled, Err(ControlError::NotDurable(_))));
    world.store.broken.store(false, Ordering::Relaxed);
    world.pass(2 * HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
    world.set(&sn, Status::Active).await;
    world.restart().await;
    assert_eq!(world.planned().await, 0);

    let back = Back::After(HOUR);
    let window = world
        .plan_with(&host(), &sn, Status::Inactive, HOUR, back)
        .await;
    assert_eq!(world.planned().await, 2);
    let id = window.unwrap().id.to_string();
    let cancelled = world.control.cancel_schedule(&host(), INSTANCE, &id).await;
    cancelled.unwrap();
    assert_eq!(world.planned().await, 0);
}
