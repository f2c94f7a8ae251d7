//! Several plans for one CA: a denial is not undone by a clock that knows nothing of it.

use super::*;

#[tokio::test]
async fn temporary_cut_ends_and_shortens_no_other() {
    let (mut world, _, sn) = world().await;
    // Off for good: the end of a temporary cut would undo that.
    world.set(&sn, Status::Inactive).await;
    let switched = world.cut_for(&host(), &sn, HOUR).await.unwrap();
    assert_eq!((switched.changed.changed, switched.back), (false, None));
    world.pass(2 * HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
    world.set(&sn, Status::Active).await;

    let long = world.cut_for(&host(), &sn, 12 * HOUR).await.unwrap();
    let short = world.cut_for(&host(), &sn, HOUR).await.unwrap();
    assert_eq!((short.cancelled, &short.back), (0, &long.back));
    let longer = world.cut_for(&host(), &sn, 20 * HOUR).await.unwrap();
    assert_eq!((longer.cancelled, world.planned().await), (1, 1));
    world.restart().await;
    world.pass(19 * HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
    world.pass(HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Active);
}

#[tokio::test]
async fn end_of_a_temporary_cut_is_one_change_with_it() {
    let (mut world, ca, sn) = world().await;
    world.store.broken.store(true, Ordering::Relaxed);
    let failed = world.cut_for(&host(), &sn, HOUR).await;
    assert!(matches!(failed, Err(ControlError::NotDurable(_))));
    assert!(world.admit(&ca.issue("device", 9)).is_err());
    world.store.broken.store(false, Ordering::Relaxed);
    // Tried again, it has one end, and both are on disk.
    let again = world.cut_for(&host(), &sn, HOUR).await.unwrap();
    assert!(again.back.is_some());
    world.restart().await;
    assert_eq!(world.planned().await, 1);
    assert_eq!(world.state(&sn).await, Status::Inactive);
    world.pass(HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Active);
}

#[tokio::test]
async fn activation_that_the_disk_delayed_does_not_overtake_an_inactivation() {
    let (mut world, ca, sn) = world().await;
    world.set(&sn, Status::Inactive).await;
    world.plan(&sn, Status::Inactive, 2 * HOUR).await;
    world.plan(&sn, Status::Active, HOUR).await;
    world.store.broken.store(true, Ordering::Relaxed);
    world.pass(HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
    // It is shown as it was planned, whenever it is tried again.
    let listed = world.control.list_schedules(&host(), INSTANCE, PAGE).await;
    assert!(listed.unwrap().items[0].at_ms <= world.in_ms(Duration::ZERO));
    world.pass(HOUR).await;
    world.store.broken.store(false, Ordering::Relaxed);
    world.pass(HOUR).await;
    assert!(world.admit(&ca.issue("device", 9)).is_err());
    assert_eq!(
        (world.planned().await, world.state(&sn).await),
        (0, Status::Inactive)
    );
    world.restart().await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
}

#[tokio::test]
async fn of_two_plans_for_one_moment_the_denial_holds() {
    let (world, _, sn) = world().await;
    // The names of plans are random: so often that each order comes.
    for round in 0..12 {
        world.set(&sn, Status::Active).await;
        let cut = world.cut_for(&host(), &sn, HOUR).await.unwrap();
        let at_ms = cut.back.unwrap().at_ms;
        let from_now = u64::try_from(at_ms - world.in_ms(Duration::ZERO)).unwrap();
        let same = Duration::from_millis(from_now);
        world.plan(&sn, Status::Inactive, same).await;
        world.pass(HOUR).await;
        assert_eq!(world.state(&sn).await, Status::Inactive, "{round}");
        assert_eq!(world.planned().await, 0);
    }
}

#[tokio::test]
async fn planned_denial_is_not_undone_by_what_was_planned_before_it() {
    let (world, _, sn) = world().await;
    world.cut_for(&host(), &sn, 12 * HOUR).await.unwrap();
    world.plan(&sn, Status::Inactive, 2 * HOUR).await;
    world.pass(2 * HOUR).await;
    assert_eq!(world.planned().await, 0);
    world.pass(12 * HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);

    // Who plans an activation after it wants that.
    world.set(&sn, Status::Active).await;
    world.plan(&sn, Status::Inactive, HOUR).await;
    world.plan(&sn, Status::Active, 2 * HOUR).await;
    world.pass(HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
    world.pass(HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Active);
}

#[tokio::test]
async fn end_of_a_planned_cut_goes_if_the_ca_is_off_for_good_or_for_longer() {
    let (world, _, sn) = world().await;
    let window = |from_now| {
        let (back, off) = (Back::After(HOUR), Status::Inactive);
        let (world, sn) = (&world, &sn);
        async move {
            world
                .plan_with(&host(), sn, off, from_now, back)
                .await
                .unwrap()
        }
    };
    // Cuts before it do not end it, nor does it end them.
    window(10 * HOUR).await;
    world.cut_for(&host(), &sn, HOUR).await.unwrap();
    assert_eq!(world.planned().await, 3);
    world.pass(HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Active);
    world.pass(9 * HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
    world.pass(HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Active);
    // Off for longer.
    window(HOUR).await;
    world.cut_for(&host(), &sn, 5 * HOUR).await.unwrap();
    world.pass(3 * HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
    world.pass(2 * HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Active);
    // Off for good.
    world.set(&sn, Status::Inactive).await;
    window(HOUR).await;
    world.pass(3 * HOUR).await;
    assert_eq!(
        (world.planned().await, world.state(&sn).await),
        (0, Status::Inactive)
    );
}

#[tokio::test]
async fn hand_on_the_store_that_switches_a_ca_off_cancels_its_activations() {
    let (mut world, ca, sn) = world().await;
    world.plan(&sn, Status::Active, HOUR).await;
    {
        let mut kept = world.store.kept.lock().unwrap();
        kept.cas[0].status = Status::Inactive;
        kept.seq += 1;
    }
    world.store.changed.notify_waiters();
    while world.admit(&ca.issue("device", 9)).is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.planned().await, 0);
    // Owed to the disk, and paid with the next change.
    world.set(&sn, Status::Inactive).await;
    world.restart().await;
    world.pass(2 * HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
}

#[tokio::test]
async fn clock_that_tells_no_time_makes_nothing_due() {
    let (world, _, sn) = world().await;
    world.cut_for(&host(), &sn, HOUR).await.unwrap();
    let before = std::mem::replace(&mut *world.time.lock().unwrap(), UNIX_EPOCH - HOUR);
    world.control.0.do_what_is_due().await;
    assert_eq!(world.state(&sn).await, Status::Inactive);
    *world.time.lock().unwrap() = before;
    world.pass(HOUR).await;
    assert_eq!(world.state(&sn).await, Status::Active);
}

#[tokio::test]
async fn audit_log_says_which_plans_went_and_what_was_refused() {
    let (world, ca, sn) = world().await;
    let cut = world.cut_for(&host(), &sn, HOUR).await.unwrap();
    let by_hand = cut.back.unwrap().id.to_string();
    world.set(&sn, Status::Inactive).await;
    world.set(&sn, Status::Active).await;
    let overtaken = world
        .plan(&sn, Status::Active, 3 * HOUR)
        .await
        .id
        .to_string();
    world.plan(&sn, Status::Inactive, HOUR).await;
    world.pass(HOUR).await;
    let with_the_ca = world.plan(&sn, Status::Active, HOUR).await.id.to_string();
    let deleted = world.control.delete_ca(&host(), INSTANCE, &sn).await;
    deleted.unwrap();
    let audit = world.audit_lines();
    for (id, action) in [
        (by_hand, "InactivateCaCertificate"),
        (overtaken, "InactivateCaCertificate"),
        (with_the_ca, "DeleteCaCertificate"),
    ] {
        let told = format!("cancels schedule {id}");
        let tells = |line: &&serde_json::Value| {
            line["action"] == action && line["detail"].to_string().contains(&told)
        };
        assert!(audit.iter().any(|line| tells(&line)), "{told}");
    }
    let again = world.register(&ca, "again").await;
    let (caller, off) = (host(), Status::Inactive);
    let past = world.plan_as(&caller, &again, off, Duration::ZERO);
    past.await.unwrap_err();
    let refused = world.audit_lines();
    let refused = refused.iter().find(|line| line["phase"] == "refused");
    let detail = refused.unwrap()["detail"].as_str().unwrap();
    assert!(detail.starts_with(&format!("CA {again} at ")), "{detail}");
}
