//! What a policy does not allow is refused, whichever operation it is, and is audited.

use std::sync::Arc;

use super::INSTANCE;
use super::world::{World, caller};
use crate::ca::lifecycle::Status;
use crate::control::grant::KeyGrant;
use crate::control::policy::Policy;
use crate::control::{Caller, ControlError, Door, Grant, Need, PageRequest};
use crate::testing::TestCa;

pub(super) fn with_policy(actions: &[&str], resource: &str) -> Caller {
    let actions = serde_json::json!(actions);
    let text = format!(
        r#"{{"Version": "1", "Statement": {{"Effect": "Allow", "Action": {actions}, "Resource": "{resource}"}}}}"#
    );
    let policy = Policy::from_json(&text).unwrap();
    Caller {
        grant: Grant::Key(Arc::new(KeyGrant::new(Some(policy)))),
        ..caller()
    }
}

/// Whether each operation is refused for want of permission.
async fn refused(world: &World, caller: &Caller, sn: &str) -> Vec<(Need, bool)> {
    let control = &world.control;
    let page = PageRequest { number: 1, size: 1 };
    let denied =
        |result: Option<ControlError>| matches!(result, Some(ControlError::PermissionDenied(_)));
    let mut all = Vec::new();
    let mut note = |need, error| all.push((need, denied(error)));
    let code = control.register_code(caller, INSTANCE).await;
    note(Need::GetRegisterCode, code.err());
    let registered = control.register_ca(caller, INSTANCE, "x", "", "").await;
    note(Need::RegisterCa, registered.err());
    let ca = control.get_ca(caller, INSTANCE, sn).await;
    note(Need::GetCaCertificate, ca.err());
    let cas = control.list_cas(caller, INSTANCE, page).await;
    note(Need::ListCaCertificate, cas.err());
    for (need, status) in [
        (Need::ActiveCaCertificate, Status::Active),
        (Need::UnregisterCaCertificate, Status::Inactive),
    ] {
        let changed = control.set_ca_status(caller, INSTANCE, sn, status).await;
        note(need, changed.err());
    }
    for (need, ca) in [
        (Need::ListDeviceCertificate, None),
        (Need::ListDeviceCertificateByCaSn, Some(sn)),
    ] {
        let devices = control.list_devices(caller, INSTANCE, ca, page).await;
        note(need, devices.err());
    }
    let device = control.get_device(caller, INSTANCE, sn, "7").await;
    note(Need::GetDeviceCertificate, device.err());
    for (need, status) in [
        (Need::ActiveDeviceCertificate, Status::Active),
        (Need::UnregisterDeviceCertificate, Status::Inactive),
    ] {
        let changed = control.set_device_status(caller, INSTANCE, sn, "7", status);
        note(need, changed.await.err());
    }
    let deleted = control.delete_device(caller, INSTANCE, sn, "7").await;
    note(Need::DeleteDeviceCertificate, deleted.err());
    let deleted = control.delete_ca(caller, INSTANCE, sn).await;
    note(Need::DeleteCaCertificate, deleted.err());
    all
}

#[tokio::test]
async fn each_operation_needs_its_own_action() {
    let world = World::new().await;
    let sn = world.register(&TestCa::root("a", 1), "a").await;
    let all = refused(&world, &caller(), &sn).await;
    assert!(all.iter().all(|(_, refused)| !refused));
    for (only, _) in all {
        let world = World::new().await;
        let sn = world.register(&TestCa::root("a", 1), "a").await;
        let one = with_policy(&[only.action(), "mq:MqttInstanceAccess"], "*");
        let allowed: Vec<_> = refused(&world, &one, &sn)
            .await
            .into_iter()
            .filter_map(|(need, refused)| (!refused).then_some(need))
            .collect();
        assert_eq!(allowed, [only]);
    }
}

#[tokio::test]
async fn policy_of_another_resource_allows_nothing() {
    let world = World::new().await;
    let sn = world.register(&TestCa::root("a", 1), "a").await;
    let own = format!("acs:mq:cn-hangzhou:owner:{INSTANCE}");
    for (resource, reaches) in [
        (own.as_str(), true),
        ("acs:mq:*:owner:*", true),
        ("acs:mq:cn-beijing:*:*", false),
        ("acs:mq:*:another:*", false),
        ("acs:mq:*:*:post-cn-other", false),
    ] {
        let caller = with_policy(&["mq:*"], resource);
        let answer = world.control.get_ca(&caller, INSTANCE, &sn).await;
        assert_eq!(answer.is_ok(), reaches, "{resource}");
    }
}

#[tokio::test]
async fn refusal_names_action_and_resource_and_is_audited() {
    let world = World::new().await;
    let sn = world.register(&TestCa::root("a", 1), "a").await;
    let caller = with_policy(&["mq:Get*", "mq:MqttInstanceAccess"], "*");
    let error = world
        .control
        .set_ca_status(&caller, INSTANCE, &sn, Status::Inactive)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("mq:UnregisterCaCertificate"), "{error}");
    assert!(error.contains("acs:mq:cn-hangzhou:owner:"), "{error}");
    let last = world.audit_lines().pop().unwrap();
    assert_eq!(last["phase"], "refused");
    assert_eq!(last["code"], "permission_denied");
    assert_eq!(last["action"], "InactivateCaCertificate");
}

#[tokio::test]
async fn revoked_key_changes_nothing_any_more() {
    let world = World::new().await;
    let sn = world.register(&TestCa::root("a", 1), "a").await;
    let key = Arc::new(KeyGrant::new(None));
    let caller = Caller {
        grant: Grant::Key(Arc::clone(&key)),
        ..caller()
    };
    let inactivate = || {
        world
            .control
            .set_ca_status(&caller, INSTANCE, &sn, Status::Inactive)
    };
    inactivate().await.unwrap();
    key.revoke();
    let error = inactivate().await.unwrap_err();
    assert!(matches!(error, ControlError::PermissionDenied(_)));
}

#[tokio::test]
async fn key_revoked_while_its_call_waits_for_its_turn_gets_no_register_code() {
    let world = World::new().await;
    let key = Arc::new(KeyGrant::new(None));
    let caller = Caller {
        grant: Grant::Key(Arc::clone(&key)),
        ..caller()
    };
    let turn = world.control.0.turn.lock().await;
    let waits = tokio::spawn({
        let control = world.control.clone();
        async move { control.register_code(&caller, INSTANCE).await }
    });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!waits.is_finished());
    key.revoke();
    drop(turn);
    let answer = waits.await.unwrap();
    assert!(
        matches!(answer, Err(ControlError::PermissionDenied(_))),
        "{answer:?}"
    );
    assert!(world.store.kept.lock().unwrap().register_codes.is_empty());
}

#[tokio::test]
async fn another_account_is_no_owner_whatever_its_policy() {
    let world = World::new().await;
    let sn = world.register(&TestCa::root("a", 1), "a").await;
    let stranger = Caller {
        account: "stranger".parse().unwrap(),
        ..with_policy(&["*"], "*")
    };
    for door in [Door::Http, Door::Mqtt] {
        let stranger = Caller {
            door,
            ..stranger.clone()
        };
        let error = world.control.get_ca(&stranger, INSTANCE, &sn).await;
        assert!(matches!(error, Err(ControlError::NotOwner { .. })));
    }
}
