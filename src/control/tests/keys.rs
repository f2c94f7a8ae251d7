//! Access keys: made, limited, switched off and deleted; kept, encrypted, and taken over.

use std::sync::Arc;

use super::world::{World, caller, host, parts};
use crate::ca::lifecycle::Status;
use crate::control::access_key::{AccessKey, KeyOrigin};
use crate::control::grant::KeyGrant;
use crate::control::keys::{CreatedKey, KeyChange, KeySettings};
use crate::control::policy::Policy;
use crate::control::seal::EncryptionKey;
use crate::control::{Caller, Control, ControlError, Door, Grant, Need, PageRequest};
use crate::secret::Secret;
use crate::store::KeptSecret;

const RESOURCE: &str = "acs:mq:cn-hangzhou:owner:post-cn-1";

impl World {
    async fn key(&self, policy: Option<Policy>) -> CreatedKey {
        let account = "owner".parse().unwrap();
        self.control
            .create_key(&host(), account, "for a test", policy)
            .await
            .unwrap()
    }

    fn grant(&self, key: &CreatedKey) -> Option<Grant> {
        let key = self.control.access_keys().get(&key.key.id)?;
        (key.status == Status::Active).then(|| Grant::Key(Arc::clone(&key.grant)))
    }
}

fn encryption(digit: &str) -> Option<EncryptionKey> {
    EncryptionKey::from_hex(&Secret::new(digit.repeat(64)))
}

fn reads_only() -> Policy {
    let text = r#"{"Version":"1","Statement":{"Effect":"Allow","Action":["mq:Get*","mq:MqttInstanceAccess"],"Resource":"*"}}"#;
    Policy::from_json(text).unwrap()
}

#[tokio::test]
async fn created_key_signs_for_its_account_and_survives_a_restart() {
    let mut world = World::new().await;
    let made = world.key(Some(reads_only())).await;
    assert!(made.owns_an_instance);
    assert!(made.secret.reveal().len() >= 30);
    let other = world.key(None).await;
    assert_ne!(made.secret, other.secret);
    assert_ne!(made.key.id, other.key.id);
    for restart in [false, true] {
        if restart {
            world.restart().await;
        }
        let key = world.control.access_keys().get(&made.key.id).unwrap();
        assert_eq!(key.secret, made.secret);
        assert_eq!(key.account.as_str(), "owner");
        let grant = world.grant(&made).unwrap();
        assert!(grant.check(Need::GetCaCertificate, RESOURCE).is_ok());
        assert!(grant.check(Need::RegisterCa, RESOURCE).is_err());
    }
}

#[tokio::test]
async fn disabled_or_deleted_key_is_out_at_once_and_after_a_restart() {
    let mut world = World::new().await;
    let (disabled, deleted) = (world.key(None).await, world.key(None).await);
    let under_way = [&disabled, &deleted].map(|key| world.grant(key).unwrap());
    let off = KeyChange::Status(Status::Inactive);
    let id = disabled.key.id.as_str();
    let changed = world.control.change_key(&host(), id, off).await.unwrap();
    assert_eq!(changed.status, Status::Inactive);
    let id = deleted.key.id.as_str();
    world.control.delete_key(&host(), id).await.unwrap();
    for grant in under_way {
        assert!(grant.check(Need::GetCaCertificate, RESOURCE).is_err());
    }
    for restart in [false, true] {
        if restart {
            world.restart().await;
        }
        assert!(world.grant(&disabled).is_none());
        assert!(world.grant(&deleted).is_none());
    }
    let on = KeyChange::Status(Status::Active);
    let id = disabled.key.id.as_str();
    world.control.change_key(&host(), id, on).await.unwrap();
    assert!(world.grant(&disabled).is_some());
    let id = deleted.key.id.as_str();
    let gone = world.control.delete_key(&host(), id).await;
    assert!(matches!(gone, Err(ControlError::KeyNotFound(_))));
}

#[tokio::test]
async fn new_policy_binds_calls_that_are_under_way() {
    let world = World::new().await;
    let key = world.key(None).await;
    let under_way = world.grant(&key).unwrap();
    let change = KeyChange::Policy(Some(reads_only()));
    let id = key.key.id.as_str();
    world.control.change_key(&host(), id, change).await.unwrap();
    assert!(under_way.check(Need::RegisterCa, RESOURCE).is_err());
    let grant = world.grant(&key).unwrap();
    assert!(grant.check(Need::GetRegisterCode, RESOURCE).is_ok());
    assert!(grant.check(Need::RegisterCa, RESOURCE).is_err());
}

#[tokio::test]
async fn repeated_change_of_a_key_changes_nothing_and_disturbs_no_call() {
    let world = World::new().await;
    let key = world.key(Some(reads_only())).await;
    let under_way = world.grant(&key).unwrap();
    let commits = world.store.kept.lock().unwrap().seq;
    let id = key.key.id.as_str();
    for change in [
        KeyChange::Status(Status::Active),
        KeyChange::Policy(Some(reads_only())),
    ] {
        world.control.change_key(&host(), id, change).await.unwrap();
    }
    assert_eq!(under_way.check(Need::GetRegisterCode, RESOURCE), Ok(()));
    assert_eq!(world.store.kept.lock().unwrap().seq, commits);
}

#[tokio::test]
async fn disabled_key_stays_out_in_memory_when_the_disk_fails() {
    use std::sync::atomic::Ordering;
    let world = World::new().await;
    let key = world.key(None).await;
    world.store.broken.store(true, Ordering::Relaxed);
    let off = KeyChange::Status(Status::Inactive);
    let id = key.key.id.as_str();
    let result = world.control.change_key(&host(), id, off).await;
    assert!(matches!(result, Err(ControlError::NotDurable(_))));
    assert!(world.grant(&key).is_none());
    let account = "owner".parse().unwrap();
    let more = world.control.create_key(&host(), account, "", None).await;
    assert!(matches!(more, Err(ControlError::Internal(_))));
}

#[tokio::test]
async fn keys_are_for_the_host_only_and_bounded() {
    let world = World::new().await;
    let key = world.key(None).await;
    let id = key.key.id.as_str();
    for door in [Door::Http, Door::Mqtt] {
        let caller = Caller { door, ..caller() };
        let control = &world.control;
        let page = PageRequest { number: 1, size: 9 };
        let denied = [
            control
                .create_key(&caller, "owner".parse().unwrap(), "", None)
                .await
                .err(),
            control.list_keys(&caller, page).await.err(),
            control
                .change_key(&caller, id, KeyChange::Policy(None))
                .await
                .err(),
            control.delete_key(&caller, id).await.err(),
        ];
        for error in denied {
            assert!(matches!(error, Some(ControlError::PermissionDenied(_))));
        }
    }
    world.key(None).await;
    world.key(None).await;
    let account = "owner".parse().unwrap();
    let fourth = world.control.create_key(&host(), account, "", None).await;
    assert!(matches!(fourth, Err(ControlError::TooManyKeys(3))));
    let lines = world.audit_lines();
    let last = lines.last().unwrap();
    assert_eq!(last["action"], "CreateAccessKey");
    assert_eq!(last["phase"], "refused");
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains(key.secret.reveal()));
    assert!(text.contains(&format!("access_key:{id}")));
}

#[tokio::test]
async fn key_of_the_configuration_is_not_for_commands() {
    let world = World::new().await;
    let mut parts = parts(
        &world.store,
        world.directory.path().join("second.jsonl"),
        &world.time,
    );
    parts.keys.configured = vec![AccessKey {
        id: "configured".parse().unwrap(),
        secret: Secret::new("s".to_owned()),
        account: "owner".parse().unwrap(),
        grant: Arc::new(KeyGrant::new(None)),
        status: Status::Active,
        origin: KeyOrigin::Configuration,
    }];
    let control = Control::open(parts).await.unwrap();
    let deleted = control.delete_key(&host(), "configured").await;
    assert!(matches!(deleted, Err(ControlError::KeyIsConfigured(_))));
    let page = PageRequest { number: 1, size: 9 };
    let listed = control.list_keys(&host(), page).await.unwrap();
    assert_eq!(listed.items[0].origin, KeyOrigin::Configuration);
}

#[tokio::test]
async fn secrets_are_encrypted_once_the_configuration_has_a_key() {
    let world = World::new().await;
    let plain = world.key(None).await;
    let open = async |name: &str, digit: Option<&str>| {
        let path = world.directory.path().join(name);
        let mut parts = parts(&world.store, path, &world.time);
        parts.keys = KeySettings {
            encryption: digit.and_then(encryption),
            ..KeySettings::default()
        };
        Control::open(parts).await
    };
    let control = open("2.jsonl", Some("a")).await.unwrap();
    let account = "owner".parse().unwrap();
    let second = control
        .create_key(&host(), account, "", None)
        .await
        .unwrap();
    let kept = world.store.kept.lock().unwrap().access_keys.clone();
    assert_eq!(kept.len(), 2);
    for key in &kept {
        assert!(matches!(key.secret, KeptSecret::Sealed(_)), "{key:?}");
    }
    for made in [&plain, &second] {
        let key = control.access_keys().get(&made.key.id).unwrap();
        assert_eq!(key.secret, made.secret);
    }
    control.close().await;
    let again = open("3.jsonl", Some("a")).await.unwrap();
    let key = again.access_keys().get(&plain.key.id).unwrap();
    assert_eq!(key.secret, plain.secret);
    for (name, digit, says) in [
        ("4.jsonl", None, "admin.secret_encryption_file"),
        ("5.jsonl", Some("b"), "cannot be decrypted"),
    ] {
        let error = open(name, digit).await.err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn keys_changed_by_another_hand_are_taken_over() {
    let world = World::new().await;
    let keys = [world.key(None).await, world.key(None).await];
    let third = world.key(None).await;
    let under_way = keys.each_ref().map(|key| world.grant(key).unwrap());
    {
        let mut kept = world.store.kept.lock().unwrap();
        kept.access_keys.retain(|key| key.id != keys[0].key.id);
        for key in &mut kept.access_keys {
            if key.id == keys[1].key.id {
                key.status = Status::Inactive;
            } else {
                key.policy = Some("no policy".to_owned());
            }
        }
        kept.seq += 1;
    }
    world.store.changed.notify_waiters();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    for grant in under_way {
        assert!(grant.check(Need::GetCaCertificate, RESOURCE).is_err());
    }
    assert!(world.grant(&keys[0]).is_none());
    assert!(world.grant(&keys[1]).is_none());
    assert!(world.grant(&third).is_none(), "its policy cannot be read");
}
