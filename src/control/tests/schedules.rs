//! Changes that are made at a time: once, also after a crash, and never against what was done by
//! hand since.

use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

mod overtaking;
mod rights;

use super::world::{World, caller, host};
use super::{INSTANCE, PAGE};
use crate::ca::lifecycle::Status;
use crate::control::keys::KeyChange;
use crate::control::lockout::Lockouts;
use crate::control::schedule::{NewSchedule, ScheduleView};
use crate::control::{Answer, Back, Caller, ControlError, Grant, Manner, Principal, Switched};
use crate::testing::TestCa;

const HOUR: Duration = Duration::from_secs(3_600);

impl World {
    fn in_ms(&self, from_now: Duration) -> i64 {
        let at = *self.time.lock().unwrap() + from_now;
        i64::try_from(at.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
    }

    async fn plan(&self, sn: &str, status: Status, from_now: Duration) -> ScheduleView {
        let planned = self.plan_as(&host(), sn, status, from_now).await;
        planned.unwrap()
    }

    async fn plan_as(
        &self,
        caller: &Caller,
        sn: &str,
        status: Status,
        from_now: Duration,
    ) -> Answer<ScheduleView> {
        let planned = self.plan_with(caller, sn, status, from_now, Back::Never);
        planned.await
    }

    async fn plan_with(
        &self,
        caller: &Caller,
        sn: &str,
        status: Status,
        from_now: Duration,
        back: Back,
    ) -> Answer<ScheduleView> {
        let new = NewSchedule {
            status,
            at_ms: self.in_ms(from_now),
            back,
            lockouts: Lockouts::Refuse,
        };
        let planned = self.control.schedule_ca(caller, INSTANCE, sn, new).await;
        // Of two plans one is the later.
        *self.time.lock().unwrap() += Duration::from_millis(1);
        planned.map(|planned| planned.change)
    }

    /// Off now, and on again after this time.
    async fn cut_for(&self, caller: &Caller, sn: &str, time: Duration) -> Answer<Switched> {
        let manner = Manner {
            back: Back::After(time),
            ..Manner::default()
        };
        let off = Status::Inactive;
        self.control
            .switch_ca(caller, INSTANCE, sn, off, manner)
            .await
    }

    async fn planned(&self) -> usize {
        let listed = self.control.list_schedules(&caller(), INSTANCE, PAGE).await;
        listed.unwrap().total
    }

    async fn pass(&self, time: Duration) {
        *self.time.lock().unwrap() += time;
        // So does the clock that cannot be set.
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
        self.control.0.do_what_is_due().await;
    }

    async fn set(&self, sn: &str, status: Status) {
        let caller = host();
        let set = self.control.set_ca_status(&caller, INSTANCE, sn, status);
        set.await.unwrap();
    }

    async fn state(&self, sn: &str) -> Status {
        let shown = self.control.get_ca(&caller(), INSTANCE, sn).await;
        shown.unwrap().status
    }
}

async fn world() -> (World, TestCa, String) {
    let world = World::new().await;
    let ca = TestCa::root("ca", 1);
    let sn = world.register(&ca, "ca").await;
    (world, ca, sn)
}

#[tokio::test]
async fn change_is_made_at_its_time_and_ends_who_is_connected() {
    let (world, ca, sn) = world().await;
    let live = world.enter(world.record(&ca.issue("device", 9)).await);
    world.plan(&sn, Status::Inactive, HOUR).await;
    world.plan(&sn, Status::Active, 2 * HOUR).await;
    world.pass(HOUR - Duration::from_secs(1)).await;
    assert_eq!((world.state(&sn).await, live.cut()), (Status::Active, None));
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
    assert!(live.cut().is_some());
    assert!(world.admit(&ca.issue("late", 10)).is_err());
    assert_eq!(world.planned().await, 1);
    world.pass(HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Active);
    assert_eq!(world.planned().await, 0);
    let audit = world.audit_lines();
    let told = audit.iter().filter(|line| {
        line["origin"]["principal"] == "system" && line.to_string().contains("scheduled by host:")
    });
    // Intents; the outcomes follow them.
    assert_eq!(told.count(), 2);
}

#[tokio::test]
async fn what_was_due_while_the_broker_was_down_is_done_before_it_serves() {
    let (mut world, ca, sn) = world().await;
    let other = world.register(&TestCa::root("other", 2), "other").await;
    world.plan(&sn, Status::Inactive, HOUR).await;
    world.plan(&other, Status::Inactive, HOUR).await;
    world.plan(&other, Status::Active, 2 * HOUR).await;
    let id = ca.certificate().id();
    *world.time.lock().unwrap() += 3 * HOUR;
    assert_eq!(world.store.status(id), Some(Status::Active));
    world.restart().await;
    assert_eq!(world.store.status(id), Some(Status::Inactive));
    assert!(world.admit(&ca.issue("device", 9)).is_err());
    assert_eq!(world.state(&other).await, Status::Active);
    assert_eq!(world.planned().await, 0);
    world.restart().await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
}

#[tokio::test]
async fn denial_by_hand_is_not_undone_by_a_clock() {
    let (world, _, sn) = world().await;
    // Off for an hour, and somebody makes it for good.
    world.cut_for(&host(), &sn, HOUR).await.unwrap();
    world.set(&sn, Status::Inactive).await;
    assert_eq!(world.planned().await, 0, "although nothing else changed");
    world.pass(2 * HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
    // A planned denial stays, whatever is done by hand before.
    world.plan(&sn, Status::Inactive, HOUR).await;
    world.set(&sn, Status::Active).await;
    world.pass(HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
}

#[tokio::test]
async fn activation_by_a_key_that_may_not_any_more_is_not_made_and_a_denial_is() {
    let (world, _, sn) = world().await;
    let other = world.register(&TestCa::root("other", 2), "other").await;
    let created = world
        .control
        .create_key(&host(), caller().account, "plans", None)
        .await;
    let key = created.unwrap().key;
    let with_key = Caller {
        principal: Principal::AccessKey(key.id.clone()),
        grant: Grant::Everything,
        ..caller()
    };
    world.set(&sn, Status::Inactive).await;
    for (sn, status) in [(&sn, Status::Active), (&other, Status::Inactive)] {
        let planned = world.plan_as(&with_key, sn, status, HOUR).await;
        planned.unwrap();
    }
    let off = KeyChange::Status(Status::Inactive);
    let id = key.id.as_str();
    world.control.change_key(&host(), id, off).await.unwrap();
    world.pass(HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
    assert_eq!(world.state(&other).await, Status::Inactive);
    assert_eq!(world.planned().await, 0);
    let refused = world.audit_lines();
    let refused = refused.iter().filter(|line| line["phase"] == "refused");
    let refused: Vec<_> = refused.map(|line| line["detail"].to_string()).collect();
    let told = format!("scheduled by access_key:{id} for ");
    assert!(
        refused.len() == 1 && refused[0].contains(&told),
        "{refused:?}"
    );
}

#[tokio::test]
async fn schedule_goes_with_its_ca_and_means_no_other_of_its_serial_number() {
    let (world, ca, sn) = world().await;
    world.plan(&sn, Status::Inactive, HOUR).await;
    let deleted = world.control.delete_ca(&host(), INSTANCE, &sn).await;
    deleted.unwrap();
    assert_eq!(world.planned().await, 0);
    assert_eq!(world.register(&ca, "again").await, sn);
    world.pass(2 * HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Active);
}

#[tokio::test]
async fn failing_disk_denies_in_time_and_allows_when_it_heals() {
    let (mut world, ca, sn) = world().await;
    let other = world.register(&TestCa::root("other", 2), "other").await;
    world.set(&other, Status::Inactive).await;
    world.plan(&sn, Status::Inactive, HOUR).await;
    world.plan(&other, Status::Active, HOUR).await;
    world.store.broken.store(true, Ordering::Relaxed);
    world.pass(HOUR).await;
    assert!(world.admit(&ca.issue("device", 9)).is_err());
    assert_eq!(world.state(&other).await, Status::Inactive);
    world.store.broken.store(false, Ordering::Relaxed);
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.state(&other).await, Status::Active);
    world.restart().await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
    assert_eq!(world.planned().await, 0);
}

#[tokio::test]
async fn cancelled_change_is_not_made_and_times_that_make_no_sense_are_refused() {
    let (mut world, _, sn) = world().await;
    let plan = world.plan(&sn, Status::Inactive, HOUR).await;
    let id = plan.id.to_string();
    let cancelled = world
        .control
        .cancel_schedule(&caller(), INSTANCE, &id)
        .await;
    assert_eq!(cancelled.unwrap(), plan);
    let again = world
        .control
        .cancel_schedule(&caller(), INSTANCE, &id)
        .await;
    assert!(matches!(again, Err(ControlError::ScheduleNotFound(_))));
    world.restart().await;
    world.pass(2 * HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Active);
    for at_ms in [
        i64::MIN,
        0,
        world.in_ms(Duration::ZERO),
        world.in_ms(60_000 * HOUR),
        i64::MAX,
    ] {
        let new = NewSchedule {
            status: Status::Inactive,
            at_ms,
            back: Back::Never,
            lockouts: Lockouts::Refuse,
        };
        let planned = world.control.schedule_ca(&host(), INSTANCE, &sn, new).await;
        assert!(
            matches!(planned, Err(ControlError::Parameter(_))),
            "{at_ms}"
        );
    }
}
