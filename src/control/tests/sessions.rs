//! The operations on sessions: who may, what is refused, what is audited.

use std::sync::{Arc, Mutex};

use super::permissions::with_policy;
use super::world::{World, caller, host};
use super::{INSTANCE, PAGE};
use crate::control::grant::KeyGrant;
use crate::control::sessions::{Closed, Later, Presence, SessionView, Sessions, Wanted};
use crate::control::{Answer, Caller, ControlError, Door, Grant, Page, PageRequest};
use crate::testing::TestCa;

/// One client, `c`, is connected; notes what it is asked to do.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<String>>,
    /// Revoked as soon as its caller was found to be allowed.
    revokes: Mutex<Option<Arc<KeyGrant>>>,
}

impl Fake {
    fn of(world: &World) -> Arc<Self> {
        let fake = Arc::new(Self::default());
        let instance = INSTANCE.parse().unwrap();
        world.control.serve_sessions(&instance, fake.clone());
        fake
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Sessions for Fake {
    fn longest_client_id(&self) -> usize {
        if let Some(key) = self.revokes.lock().unwrap().take() {
            key.revoke();
        }
        8
    }

    fn close<'a>(&'a self, client_id: &'a str) -> Later<'a, Closed> {
        self.note(format!("close {client_id}"));
        let closed = match client_id {
            "c" => Closed::Ended,
            _ => Closed::NotConnected,
        };
        Box::pin(async move { closed })
    }

    fn is_online(&self, client_id: &str) -> bool {
        client_id == "c"
    }

    fn get(&self, client_id: &str) -> Option<SessionView> {
        self.note(format!("get {client_id}"));
        None
    }

    fn list(&self, wanted: Wanted, page: PageRequest) -> Later<'_, Page<SessionView>> {
        let sn = wanted.ca_sn.map(|sn| sn.to_string());
        self.note(format!("list {sn:?} {:?} {}", wanted.presence, page.size));
        Box::pin(async {
            Page {
                items: Vec::new(),
                total: 7,
            }
        })
    }

    fn count(&self) -> usize {
        7
    }
}

/// Every operation on sessions, as this caller on this instance: whether it was carried out.
async fn all(world: &World, caller: &Caller, instance: &str) -> Vec<Result<(), ControlError>> {
    fn plain<T>(answer: Answer<T>) -> Result<(), ControlError> {
        answer.map(drop)
    }
    let control = &world.control;
    vec![
        plain(control.close_connection(caller, instance, "c").await),
        plain(control.is_online(caller, instance, "c")),
        plain(control.are_online(caller, instance, &["c"])),
        plain(control.get_session(caller, instance, "c")),
        plain(
            control
                .list_sessions(caller, instance, None, None, PAGE)
                .await,
        ),
    ]
}

#[tokio::test]
async fn closing_is_recorded_with_intent_and_outcome() {
    let world = World::new().await;
    let fake = Fake::of(&world);
    for (client, closed, detail) in [
        ("c", Closed::Ended, "the connection ended"),
        (
            "nobody",
            Closed::NotConnected,
            "the client was not connected",
        ),
    ] {
        let before = world.audit_lines().len();
        let answer = world
            .control
            .close_connection(&caller(), INSTANCE, client)
            .await;
        assert_eq!(answer.unwrap(), closed);
        assert_eq!(fake.asked(), [format!("close {client}")]);
        let lines = world.audit_lines().split_off(before);
        let phases: Vec<_> = lines.iter().map(|line| line["phase"].clone()).collect();
        assert_eq!(phases, ["intent", "done"]);
        for line in &lines {
            assert_eq!(line["action"], "CloseConnection");
            assert_eq!(line["subject"], format!("client:{client}"));
            assert_eq!(line["instance"], INSTANCE);
        }
        assert_eq!(lines[1]["detail"], detail);
    }
}

#[tokio::test]
async fn key_revoked_while_its_call_is_under_way_closes_and_sees_nothing() {
    let world = World::new().await;
    let fake = Fake::of(&world);
    let revoked_meanwhile = || {
        let key = Arc::new(KeyGrant::new(None));
        *fake.revokes.lock().unwrap() = Some(Arc::clone(&key));
        Caller {
            grant: Grant::Key(key),
            ..caller()
        }
    };
    let by = revoked_meanwhile();
    let closed = world.control.close_connection(&by, INSTANCE, "c").await;
    assert!(
        matches!(closed, Err(ControlError::PermissionDenied(_))),
        "{closed:?}"
    );
    assert!(fake.asked().is_empty(), "nothing was closed");
    let lines = world.audit_lines();
    let phases: Vec<_> = lines.iter().map(|line| line["phase"].clone()).collect();
    assert_eq!(phases, ["intent", "failed"]);
    let by = revoked_meanwhile();
    let listed = world
        .control
        .list_sessions(&by, INSTANCE, None, None, PAGE)
        .await;
    assert!(
        matches!(listed, Err(ControlError::PermissionDenied(_))),
        "{listed:?}"
    );
}

#[tokio::test]
async fn what_can_be_no_client_id_is_refused_and_nothing_is_asked() {
    let world = World::new().await;
    let fake = Fake::of(&world);
    let control = &world.control;
    let caller = caller();
    for bad in [
        "",
        "a\0",
        "a\nb",
        "a\u{7f}",
        "a\u{85}",
        "123456789",
        "ääääa",
    ] {
        let closed = control.close_connection(&caller, INSTANCE, bad).await;
        let online = control.is_online(&caller, INSTANCE, bad).map(drop);
        let batch = control.are_online(&caller, INSTANCE, &["c", bad]).map(drop);
        let shown = control.get_session(&caller, INSTANCE, bad).map(drop);
        for answer in [closed.map(drop), online, batch, shown] {
            assert!(
                matches!(answer, Err(ControlError::Parameter(_))),
                "{bad:?}: {answer:?}"
            );
        }
        let last = world.audit_lines().pop().unwrap();
        assert_eq!(last["phase"], "refused");
        assert_eq!(last["code"], "parameter");
        let subject = last["subject"].as_str().unwrap();
        assert!(!subject.contains(char::is_control), "{subject:?}");
    }
    assert_eq!(fake.asked(), Vec::<String>::new());
    assert!(control.is_online(&caller, INSTANCE, "c").unwrap());
    let several = control.are_online(&caller, INSTANCE, &["x", "c", "c", "ääää"]);
    assert_eq!(several.unwrap(), [false, true, true, false]);
}

#[tokio::test]
async fn each_operation_on_sessions_needs_its_action() {
    let world = World::new().await;
    let fake = Fake::of(&world);
    for (actions, allowed) in [
        (
            &["mq:CloseConnection"][..],
            [true, false, false, false, false],
        ),
        (
            &["mq:MqttInstanceAccess"],
            [false, true, false, false, false],
        ),
        (
            &["mq:BatchQuerySessionByClientIds"],
            [false, false, true, false, false],
        ),
        (&["mq:ListSessions"], [false; 5]),
        (
            &["mq:ListSessions", "mq:MqttInstanceAccess"],
            [false, true, false, true, true],
        ),
        (&["mq:*"], [true; 5]),
    ] {
        let answers = all(&world, &with_policy(actions, "*"), INSTANCE).await;
        for (answer, allowed) in answers.iter().zip(allowed) {
            match answer {
                Ok(()) => assert!(allowed, "{actions:?}: {answers:?}"),
                Err(ControlError::PermissionDenied(_)) => assert!(!allowed, "{actions:?}"),
                Err(error) => panic!("{error:?}"),
            }
        }
        let closed = fake.asked().contains(&"close c".to_owned());
        assert_eq!(closed, allowed[0], "{actions:?}");
    }
}

#[tokio::test]
async fn another_account_and_another_instance_reach_no_sessions() {
    let world = World::new().await;
    let fake = Fake::of(&world);
    let stranger = Caller {
        account: "stranger".parse().unwrap(),
        ..caller()
    };
    for answer in all(&world, &stranger, INSTANCE).await {
        assert!(matches!(answer, Err(ControlError::NotOwner { .. })));
    }
    for answer in all(&world, &caller(), "post-cn-elsewhere").await {
        assert!(matches!(answer, Err(ControlError::InstanceNotFound(_))));
    }
    assert_eq!(fake.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn sessions_are_listed_by_a_ca_that_is_registered_and_by_presence() {
    let world = World::new().await;
    let fake = Fake::of(&world);
    let sn = world.register(&TestCa::root("a", 0xf269), "a").await;
    let caller = caller();
    let list = |ca_sn, presence| {
        world
            .control
            .list_sessions(&caller, INSTANCE, ca_sn, presence, PAGE)
    };
    // However the operator writes the serial number.
    let page = list(Some("F2:69"), Some(Presence::Online)).await.unwrap();
    assert_eq!(page.total, 7);
    list(None, None).await.unwrap();
    let asked = [
        format!("list Some({sn:?}) Some(Online) 100"),
        "list None None 100".to_owned(),
    ];
    assert_eq!(fake.asked(), asked);
    let unknown = list(Some("77"), None).await;
    assert!(matches!(unknown, Err(ControlError::CaNotFound(_))));
    let none = list(Some(""), None).await;
    assert!(matches!(none, Err(ControlError::Parameter(_))));
    assert_eq!(fake.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn instances_are_shown_to_those_who_may_see_them() {
    let world = World::new().await;
    let control = &world.control;
    let seen = |caller: &Caller| control.list_instances(caller).len();
    let before = control.list_instances(&caller()).remove(0);
    assert_eq!(before.sessions, 0, "no broker yet");
    let _fake = Fake::of(&world);
    let shown = control.list_instances(&caller()).remove(0);
    assert_eq!(shown.id.as_str(), INSTANCE);
    assert_eq!(shown.account.as_str(), "owner");
    assert_eq!(shown.region, "cn-hangzhou");
    assert_eq!((shown.connections, shown.sessions), (0, 7));

    let stranger = Caller {
        account: "stranger".parse().unwrap(),
        ..caller()
    };
    assert_eq!(seen(&stranger), 0);
    let on_the_host = Caller {
        account: "stranger".parse().unwrap(),
        ..host()
    };
    assert_eq!(on_the_host.door, Door::Host);
    assert_eq!(seen(&on_the_host), 1);
    assert_eq!(seen(&with_policy(&["mq:ListInstances"], "*")), 1);
    assert_eq!(seen(&with_policy(&["mq:CloseConnection"], "*")), 0);
    let elsewhere = with_policy(&["mq:*"], "acs:mq:*:*:post-cn-other");
    assert_eq!(seen(&elsewhere), 0);
}

#[tokio::test]
async fn sessions_of_an_instance_that_does_not_serve_yet_are_not_guessed() {
    let world = World::new().await;
    for answer in all(&world, &caller(), INSTANCE).await {
        assert!(matches!(answer, Err(ControlError::Internal(_))));
    }
    assert_eq!(world.audit_lines().pop().unwrap()["phase"], "refused");
}
