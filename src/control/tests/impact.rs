//! What a preview says, and that it is what the change then does.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};

use super::INSTANCE;
use super::permissions::with_policy;
use super::world::{World, caller, host};
use crate::ca::error::OffReason;
use crate::ca::lifecycle::Status;
use crate::ca::outlook::Shift;
use crate::ca::topology::SameKey;
use crate::control::explain::MOST_WAITING;
use crate::control::impact::{
    CaImpact, CaLine, ClientLine, Few, Intended, MOST_CLIENTS, Seen, Way,
};
use crate::control::{Caller, ControlError, Grant, OnInactivate};
use crate::testing::{TestCa, TestDevice, ca_params};
use crate::tls::live::LivePeer;
use crate::tls::peer::VerifiedPeer;

impl World {
    async fn preview(&self, sn: &str, change: Intended) -> CaImpact {
        let state = || {
            let registry = self.control.registry(&INSTANCE.parse().unwrap()).unwrap();
            let seq = self.store.kept.lock().unwrap().seq;
            let shown = format!("{registry:?}");
            // When it was last looked for lists that have expired is the clock's affair.
            let (before, after) = shown.split_once("looked: ").unwrap();
            let after = after.trim_start_matches(|c: char| c == '-' || c.is_ascii_digit());
            let shown = [before, after].concat();
            (shown, seq, self.audit_lines().len())
        };
        let before = state();
        let control = &self.control;
        let impact = control
            .preview_ca_change(&caller(), INSTANCE, sn, change)
            .await
            .unwrap();
        assert_eq!(state(), before, "a preview changes nothing");
        impact
    }

    /// A connected device.
    fn connect(&self, device: &TestDevice, chain: &[&TestCa]) -> LivePeer {
        let instance = INSTANCE.parse().unwrap();
        let registry = self.control.registry(&instance).unwrap();
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|ca| ca.der.clone()).collect();
        let admitted = registry
            .admit(&device.der, &chain, UnixTime::now())
            .unwrap();
        self.enter(VerifiedPeer::new(instance, admitted))
    }

    async fn inactivate(&self, sn: &str) -> usize {
        let changed = self
            .control
            .set_ca_status(&host(), INSTANCE, sn, Status::Inactive)
            .await;
        changed.unwrap().sessions_ended
    }

    async fn delete(&self, sn: &str) -> usize {
        let changed = self.control.delete_ca(&host(), INSTANCE, sn).await;
        changed.unwrap().sessions_ended
    }
}

fn line<'a>(few: &'a Few<CaLine>, name: &str) -> &'a CaLine {
    few.items.iter().find(|it| it.name == name).unwrap()
}

fn others(impact: &CaImpact) -> Vec<(String, Way)> {
    let others = impact.still_admitted_by.items.iter();
    others.map(|it| (it.name.clone(), it.way)).collect()
}

/// A root with a renewal, an issuing CA below it, and a CA of its own.
struct Family {
    root: TestCa,
    renewed: TestCa,
    issuing: TestCa,
    other: TestCa,
}

impl Family {
    async fn register(world: &World) -> Self {
        let root = TestCa::root("root", 1);
        let family = Self {
            renewed: TestCa::self_signed_with(ca_params("root", 2), root.key.clone()),
            issuing: root.issue_ca(ca_params("issuing", 3)),
            other: TestCa::root("other", 4),
            root,
        };
        world.register(&family.root, "root").await;
        world.register(&family.renewed, "renewed").await;
        world.register(&family.issuing, "issuing").await;
        world.register(&family.other, "other").await;
        family
    }
}

#[tokio::test]
async fn preview_says_what_inactivating_then_does() {
    let world = World::new().await;
    let family = Family::register(&world).await;
    let (a, b, c) = (
        family.root.issue("a", 0x11),
        family.issuing.issue("b", 0x12),
        family.other.issue("c", 0x13),
    );
    for device in [&a, &b, &c] {
        world.record(device).await;
    }
    let live = [world.connect(&a, &[]), world.connect(&b, &[])];
    let strange = world.connect(&c, &[]);
    live[1].is_called("pump-7", "127.0.0.1:4711".parse().unwrap());

    let impact = world.preview("1", Intended::Inactivate).await;
    assert_eq!(
        (impact.ca.name.as_str(), impact.ca.shift),
        ("root", Shift::Off)
    );
    assert_eq!(impact.on_inactivate, OnInactivate::Cut);
    assert_eq!(impact.connections, 2);
    let mut clients = impact.clients.clone().unwrap();
    clients.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(
        clients[1],
        ClientLine {
            called: Some(("pump-7".to_owned(), "127.0.0.1:4711".parse().unwrap())),
            ca_sn: "3".parse().unwrap(),
            device_sn: "12".parse().unwrap(),
            name: "b".to_owned(),
        }
    );
    assert_eq!(clients[0].called, None, "it has not sent CONNECT");
    assert_eq!((impact.devices.recorded, impact.devices.connected), (2, 2));
    assert_eq!(impact.same_key_policy, SameKey::Deny);
    let renewed = line(&impact.same_key, "renewed");
    assert_eq!(renewed.off, None);
    assert_eq!(
        renewed.off_after,
        Some(OffReason::Sibling("1".parse().unwrap()))
    );
    let issuing = line(&impact.below, "issuing");
    assert_eq!((issuing.shift, issuing.devices), (Shift::Off, 1));
    assert_eq!((impact.same_key.total, impact.below.total), (1, 1));
    assert_eq!(impact.above.total, 0);
    assert_eq!(others(&impact), []);
    assert_eq!(impact.locked_out, None);

    let below = world.preview("3", Intended::Inactivate).await;
    assert_eq!(below.connections, 1);
    let above: Vec<_> = below
        .above
        .items
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(above.len(), 2);
    assert!(above.contains(&"root") && above.contains(&"renewed"));

    assert_eq!(world.inactivate("1").await, impact.connections);
    assert!(live.iter().all(|live| live.cut().is_some()));
    assert_eq!(strange.cut(), None);
    let again = world.preview("1", Intended::Inactivate).await;
    assert_eq!((again.connections, again.devices.recorded), (0, 0));
    assert_eq!((again.ca.shift, again.ca.devices), (Shift::None, 1));
    assert_eq!(again.ca.status, Status::Inactive);
}

#[tokio::test]
async fn preview_under_the_milder_policy_says_who_carries_the_devices_on() {
    let world = World::with(SameKey::AllowActive, OnInactivate::Cut).await;
    let family = Family::register(&world).await;
    let a = family.root.issue("a", 0x11);
    world.record(&a).await;
    let live = world.connect(&a, &[]);
    let impact = world.preview("1", Intended::Inactivate).await;
    assert_eq!(impact.same_key_policy, SameKey::AllowActive);
    assert_eq!((impact.connections, impact.devices.recorded), (0, 0));
    assert_eq!(others(&impact), [("renewed".to_owned(), Way::SameKey)]);
    assert_eq!(world.inactivate("1").await, 0);
    assert_eq!(live.cut(), None);
    // Now the renewed one is all that carries them.
    let impact = world.preview("2", Intended::Inactivate).await;
    assert_eq!((impact.connections, impact.below.total), (1, 1));
    assert_eq!(others(&impact), []);
    assert_eq!(world.inactivate("2").await, 1);
    assert!(live.cut().is_some());
}

#[tokio::test]
async fn preview_of_a_deletion_says_who_gets_in_again_or_all_the_same() {
    let world = World::new().await;
    let family = Family::register(&world).await;
    let live = world.connect(&family.issuing.issue("b", 0x12), &[]);
    let impact = world.preview("3", Intended::Delete).await;
    assert_eq!(impact.connections, 1);
    let both = ["root", "renewed"].map(|name| (name.to_owned(), Way::Above));
    assert_eq!(others(&impact), both);
    assert_eq!(world.delete("3").await, 1);
    assert!(live.cut().is_some());

    // A sibling stays: nothing ends.
    let live = world.connect(&family.root.issue("a", 0x11), &[]);
    let impact = world.preview("1", Intended::Delete).await;
    assert_eq!(impact.connections, 0);
    assert_eq!(others(&impact), [("renewed".to_owned(), Way::SameKey)]);
    world.inactivate("1").await;
    assert!(live.cut().is_some());
    let impact = world.preview("1", Intended::Delete).await;
    let again: Vec<_> = impact
        .let_in_again
        .items
        .iter()
        .map(|it| &it.name)
        .collect();
    assert_eq!(again, ["renewed"]);
    world.delete("1").await;
    assert!(world.admit(&family.root.issue("a", 0x11)).is_ok());
}

#[tokio::test]
async fn connections_that_go_on_are_told_as_such() {
    let world = World::with(SameKey::Deny, OnInactivate::Keep).await;
    let family = Family::register(&world).await;
    let _live = world.connect(&family.other.issue("c", 0x13), &[]);
    let impact = world.preview("4", Intended::Inactivate).await;
    assert_eq!(
        (impact.connections, impact.on_inactivate),
        (1, OnInactivate::Keep)
    );
    assert_eq!(world.inactivate("4").await, 0);
}

#[tokio::test]
async fn intermediate_that_nobody_registered_leads_to_other_cas() {
    let world = World::new().await;
    let (a, b) = (TestCa::root("a", 1), TestCa::root("b", 2));
    world.register(&a, "a").await;
    world.register(&b, "b").await;
    let issuing = a.issue_ca(ca_params("issuing", 3));
    let crossed = b.issue_ca_with(ca_params("issuing", 4), issuing.key.clone());
    let one = world.connect(&issuing.issue("one", 0x11), &[&issuing]);
    let impact = world.preview("1", Intended::Inactivate).await;
    assert_eq!((impact.connections, others(&impact)), (1, Vec::new()));
    let two = world.connect(&issuing.issue("two", 0x12), &[&crossed]);
    let impact = world.preview("1", Intended::Inactivate).await;
    assert_eq!(impact.connections, 1);
    assert_eq!(others(&impact), [("b".to_owned(), Way::Seen)]);
    world.inactivate("1").await;
    assert!(one.cut().is_some() && two.cut().is_none());
}

#[tokio::test]
async fn devices_are_told_by_when_they_were_last_connected() {
    let world = World::new().await;
    let ca = TestCa::root("ca", 1);
    world.register(&ca, "ca").await;
    let began = world.control.began_ms();
    let devices: Vec<_> = (0x10..0x15).map(|serial| ca.issue("d", serial)).collect();
    let pass = |days: u64| *world.time.lock().unwrap() += Duration::from_secs(days * 24 * 3600);
    let mut peers = Vec::new();
    for device in &devices {
        peers.push(world.record(device).await);
    }
    pass(1);
    world.control.device_seen(&peers[1]);
    pass(7);
    world.control.device_seen(&peers[2]);
    // The clock goes back: the later time stays.
    *world.time.lock().unwrap() -= Duration::from_secs(3600);
    world.control.device_seen(&peers[2]);
    let _live = world.connect(&devices[3], &[]);
    let off = world
        .control
        .set_device_status(&host(), INSTANCE, "1", "14", Status::Inactive)
        .await;
    off.unwrap();

    let impact = world.preview("1", Intended::Inactivate).await;
    let tally = impact.devices;
    assert_eq!((tally.recorded, tally.inactive), (5, 1));
    assert_eq!((tally.connected, tally.not_seen), (1, 0));
    // The first and the last were seen eight days ago, when they were recorded.
    let seen = (tally.within_day, tally.within_week, tally.earlier);
    assert_eq!(seen, (1, 1, 2));
    let last = tally.last_seen_ms.unwrap();
    assert!((last - began - 8 * 24 * 3600 * 1000).abs() < 3600 * 1000);

    let of_device = |sn: &'static str, change| {
        let control = world.control.clone();
        async move {
            let preview = control
                .preview_device_change(&caller(), INSTANCE, "1", sn, change)
                .await;
            preview.unwrap()
        }
    };
    let connected = of_device("13", Intended::Inactivate).await;
    assert_eq!((connected.connections, connected.seen), (1, Seen::Now));
    assert_eq!(connected.clients.unwrap().len(), 1);
    let away = of_device("12", Intended::Inactivate).await;
    assert_eq!((away.connections, away.seen), (0, Seen::At(last)));
    let forgotten = of_device("13", Intended::Delete).await;
    assert_eq!(forgotten.connections, 0, "its connection goes on");
    let missing = world
        .control
        .preview_device_change(&caller(), INSTANCE, "1", "99", Intended::Delete)
        .await;
    assert!(matches!(missing, Err(ControlError::DeviceNotFound(_))));
}

#[tokio::test]
async fn devices_that_were_not_connected_since_the_start_are_told_as_such() {
    let mut world = World::new().await;
    let ca = TestCa::root("ca", 1);
    world.register(&ca, "ca").await;
    let device = ca.issue("d", 2);
    world.record(&device).await;
    world.restart().await;
    let impact = world
        .control
        .preview_ca_change(&caller(), INSTANCE, "1", Intended::Inactivate)
        .await;
    let tally = impact.unwrap().devices;
    assert_eq!((tally.recorded, tally.not_seen), (1, 1));
    world.record(&device).await;
    let impact = world
        .control
        .preview_ca_change(&caller(), INSTANCE, "1", Intended::Inactivate)
        .await;
    let tally = impact.unwrap().devices;
    assert_eq!((tally.recorded, tally.within_day), (1, 1));
}

#[tokio::test]
async fn preview_needs_the_right_to_see_and_names_clients_to_those_who_may() {
    let world = World::new().await;
    let ca = TestCa::root("ca", 1);
    world.register(&ca, "ca").await;
    let device = ca.issue("d", 2);
    world.record(&device).await;
    let live: Vec<_> = (0..=MOST_CLIENTS)
        .map(|_| world.connect(&device, &[]))
        .collect();
    let control = &world.control;
    let as_caller = |caller: Caller| async move {
        let of_ca = control.preview_ca_change(&caller, INSTANCE, "1", Intended::Inactivate);
        let of_device =
            control.preview_device_change(&caller, INSTANCE, "1", "2", Intended::Inactivate);
        (of_ca.await, of_device.await)
    };
    let denied = |error: ControlError| matches!(error, ControlError::PermissionDenied(_));
    let access = "mq:MqttInstanceAccess";
    let (of_ca, of_device) = as_caller(with_policy(&["mq:List*", access], "*")).await;
    assert!(denied(of_ca.unwrap_err()) && denied(of_device.unwrap_err()));
    let (of_ca, of_device) = as_caller(with_policy(&["mq:Get*", access], "*")).await;
    let (of_ca, of_device) = (of_ca.unwrap(), of_device.unwrap());
    assert_eq!(
        (of_ca.connections, of_device.connections),
        (live.len(), live.len())
    );
    assert!(of_ca.clients.is_none() && of_device.clients.is_none());
    let (of_ca, of_device) = as_caller(with_policy(&["mq:*"], "*")).await;
    for clients in [of_ca.unwrap().clients, of_device.unwrap().clients] {
        assert_eq!(clients.unwrap().len(), MOST_CLIENTS);
    }
    let stranger = Caller {
        account: "stranger".parse().unwrap(),
        ..caller()
    };
    let (of_ca, _) = as_caller(stranger).await;
    assert!(matches!(of_ca, Err(ControlError::NotOwner { .. })));
}

/// More than are looked at in one go.
#[tokio::test]
async fn many_devices_are_counted_whole() {
    const COUNT: usize = 2_500;
    let world = World::new().await;
    let (ca, other) = (TestCa::root("ca", 1), TestCa::root("other", 2));
    world.register(&ca, "ca").await;
    world.register(&other, "other").await;
    let device = ca.issue("d", 3);
    world.record(&device).await;
    world.record(&other.issue("e", 4)).await;
    let mut record = world.store.kept.lock().unwrap().devices[0].clone();
    assert_eq!(record.name, "d");
    let mut changes = Vec::new();
    for serial in 0..COUNT - 1 {
        let octets = (0x1_0000 + serial).to_be_bytes();
        record.serial = crate::ca::id::CertSerial::from_be_bytes(&octets).unwrap();
        changes.push(crate::store::Change::PutDevice {
            record: record.clone(),
            der: Default::default(),
        });
    }
    world.store.kept.lock().unwrap().devices.reserve(COUNT);
    let seq = world.store.apply(changes);
    let known = || world.store.kept.lock().unwrap().seq;
    // By another hand: taken over.
    loop {
        let impact = world.preview_counts("1").await;
        if impact == (COUNT, COUNT) {
            break;
        }
        assert!(impact.0 <= COUNT);
        tokio::task::yield_now().await;
    }
    assert_eq!(known(), seq);
    assert!(!world.store.broken.load(Ordering::Relaxed));
}

impl World {
    async fn preview_counts(&self, sn: &str) -> (usize, usize) {
        let control = &self.control;
        let impact = control
            .preview_ca_change(&caller(), INSTANCE, sn, Intended::Inactivate)
            .await
            .unwrap();
        (impact.ca.devices, impact.devices.recorded)
    }
}

#[tokio::test]
async fn key_that_is_revoked_while_its_call_waits_is_told_nothing() {
    let world = World::new().await;
    let ca = TestCa::root("ca", 1);
    world.register(&ca, "ca").await;
    let (device, at) = (ca.issue("d", 2), &world.control.0.instances);
    let at = &at[&INSTANCE.parse().unwrap()];
    let chain = crate::ca::certificate::to_pem(&device.der);
    for explain in [true, false] {
        let caller = with_policy(&["mq:*"], "*");
        let Grant::Key(key) = &caller.grant else {
            panic!("{caller:?}");
        };
        let turn = at.aside.acquire().await.unwrap();
        let control = &world.control;
        let call = async {
            match explain {
                true => control.explain(&caller, INSTANCE, &chain).await.map(drop),
                false => control
                    .preview_ca_change(&caller, INSTANCE, "1", Intended::Inactivate)
                    .await
                    .map(drop),
            }
        };
        let (answer, ()) = tokio::join!(call, async {
            key.revoke();
            drop(turn);
        });
        assert!(matches!(answer, Err(ControlError::PermissionDenied(_))));
    }
}

#[tokio::test]
async fn calls_over_the_network_wait_for_their_turn_and_not_for_ever() {
    let world = World::new().await;
    let ca = TestCa::root("ca", 1);
    world.register(&ca, "ca").await;
    let at = &world.control.0.instances[&INSTANCE.parse().unwrap()];
    let turn = at.aside.acquire().await.unwrap();
    tokio::time::pause();
    let control = &world.control;
    let preview = |caller| async move {
        let caller: Caller = caller;
        control
            .preview_ca_change(&caller, INSTANCE, "1", Intended::Inactivate)
            .await
    };
    assert!(matches!(preview(caller()).await, Err(ControlError::Busy)));
    // An operator on the host waits for nobody.
    assert_eq!(preview(host()).await.unwrap().connections, 0);
    drop(turn);
    assert!(preview(caller()).await.is_ok());
}

/// One step of it.
async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        let polled = Pin::new(&mut future).poll(context);
        Poll::Ready(match polled {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn few_calls_wait_and_the_rest_are_told_at_once() {
    let world = World::new().await;
    let ca = TestCa::root("ca", 1);
    world.register(&ca, "ca").await;
    let at = &world.control.0.instances[&INSTANCE.parse().unwrap()];
    let turn = at.aside.acquire().await.unwrap();
    let control = &world.control;
    let caller = caller();
    let preview =
        || Box::pin(control.preview_ca_change(&caller, INSTANCE, "1", Intended::Inactivate));
    let device = || {
        let change = Intended::Inactivate;
        Box::pin(control.preview_device_change(&caller, INSTANCE, "1", "2", change))
    };
    world.record(&ca.issue("d", 2)).await;
    let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| preview()).collect();
    for call in &mut waiting {
        assert!(poll_once(call.as_mut()).await.is_none());
    }
    // Without any time passing.
    let one_more = poll_once(preview().as_mut()).await;
    assert!(matches!(one_more, Some(Err(ControlError::Busy))));
    let of_a_device = poll_once(device().as_mut()).await;
    assert!(matches!(of_a_device, Some(Err(ControlError::Busy))));
    drop(waiting.pop());
    let mut next = preview();
    assert!(poll_once(next.as_mut()).await.is_none());
    drop(turn);
    for call in waiting.into_iter().chain([next]) {
        assert!(call.await.is_ok());
    }
    assert!(device().await.is_ok());
}

#[tokio::test]
async fn administrators_ca_above_is_no_way_in_for_devices() {
    let world = World::new().await;
    let admin = TestCa::root("admin", 1);
    let below = admin.issue_ca(ca_params("below", 2));
    let at = &world.control.0.instances[&INSTANCE.parse().unwrap()];
    let certificate = std::sync::Arc::new(admin.certificate());
    at.registry
        .insert(
            certificate,
            crate::ca::registry::Purpose::Admin,
            Status::Active,
        )
        .unwrap();
    world.register(&below, "below").await;
    let device = below.issue("d", 3);
    assert!(world.admit(&device).is_ok());
    let impact = world.preview("2", Intended::Delete).await;
    assert_eq!((impact.above.total, others(&impact)), (1, Vec::new()));
    world.delete("2").await;
    assert!(world.admit_over(&device, &[&below]).is_err());
}
