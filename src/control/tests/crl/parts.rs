//! Parts of lists, CAs that go, other hands and rights.

use super::*;

#[tokio::test]
async fn connections_go_on_where_the_instance_says_so() {
    let world = World::with(Default::default(), OnInactivate::Keep).await;
    let ca = TestCa::root("ca", 1);
    world.register(&ca, "ca").await;
    let device = ca.issue("d", 5);
    let live = world.record_and_connect(&device).await;
    let imported = world
        .import(&ca, &TestCrl::revoking(1, &[5]))
        .await
        .unwrap();
    assert_eq!((imported.sessions_ended, live.cut()), (0, None));
    assert_eq!(world.reason(&device), "device_revoked");
}

#[tokio::test]
async fn lists_of_parts_are_apart_and_bounded_together() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    let part = |number, point: &str, revoked: &[u64]| {
        TestCrl::revoking(number, revoked).for_points(&[point], &[ONLY_DEVICES])
    };
    world.import(&ca, &part(5, "http://a", &[5])).await.unwrap();
    // Its number is its own.
    world.import(&ca, &part(1, "http://b", &[6])).await.unwrap();
    assert_eq!(world.reason(&ca.issue("d", 5)), "device_revoked");
    assert_eq!(world.reason(&ca.issue("d", 6)), "device_revoked");
    let third = world.import(&ca, &part(1, "http://c", &[7])).await;
    assert!(matches!(
        third,
        Err(ControlError::CrlRefused(CrlRefusal::TooMany(2)))
    ));
    let long: Vec<u64> = (100..200).collect();
    let many = world.import(&ca, &part(2, "http://b", &long)).await;
    assert!(
        matches!(
            many,
            Err(ControlError::CrlRefused(CrlRefusal::TooManyEntries(100)))
        ),
        "{many:?}"
    );
    let large = world.import_as(&caller(), None, vec![0x30; 1 << 20]).await;
    assert!(large.unwrap_err().to_string().contains("the most is"));
    world
        .import(&ca, &part(2, "http://b", &long[..99]))
        .await
        .unwrap();
    let listed = world
        .control
        .list_crls(&caller(), INSTANCE, None, PAGE)
        .await
        .unwrap();
    assert_eq!((listed.total, listed.items.len()), (2, 2));
}

#[tokio::test]
async fn deleting_a_ca_keeps_its_lists_for_paths_over_it() {
    let (mut world, root) = (World::new().await, TestCa::root("root", 1));
    let middle = root.issue_ca(ca_params("middle", 2));
    world.register(&root, "root").await;
    let sn = world.register(&middle, "middle").await;
    let bad = middle.issue("bad", 5);
    world
        .import(&middle, &TestCrl::revoking(1, &[5]))
        .await
        .unwrap();
    world
        .control
        .delete_ca(&host(), INSTANCE, &sn)
        .await
        .unwrap();
    let over_the_root = |world: &World| world.admit_over(&bad, &[&middle]).unwrap_err().reason();
    assert_eq!(over_the_root(&world), "device_revoked");
    world.restart().await;
    assert_eq!(over_the_root(&world), "device_revoked");
    let listed = world
        .control
        .list_crls(&host(), INSTANCE, None, PAGE)
        .await
        .unwrap();
    let [left] = listed.items.as_slice() else {
        panic!("{listed:?}")
    };
    assert_eq!(left.ca_sn, None);
    assert!(left.issuer.contains("middle"));
    // Nobody is there who could have signed another one.
    let next = world.import(&middle, &TestCrl::new(2)).await;
    assert!(next.unwrap_err().to_string().contains("no registered CA"));
    world
        .control
        .delete_crl(&host(), INSTANCE, &left.id.to_string())
        .await
        .unwrap();
    assert!(world.admit_over(&bad, &[&middle]).is_ok());
}

#[tokio::test]
async fn deleting_a_ca_lets_a_ca_that_it_revoked_back_only_when_that_is_on_disk() {
    let (world, root) = (World::new().await, TestCa::root("root", 1));
    let middle = root.issue_ca(ca_params("middle", 2));
    let sn = world.register(&root, "root").await;
    let middle_sn = world.register(&middle, "middle").await;
    let device = middle.issue("d", 5);
    world
        .import(&root, &TestCrl::revoking(1, &[2]))
        .await
        .unwrap();
    assert_eq!(world.reason(&device), "ca_revoked");
    let view = world
        .control
        .get_ca(&host(), INSTANCE, &middle_sn)
        .await
        .unwrap();
    assert!(
        matches!(view.effective, Effective::Revoked { .. }),
        "{:?}",
        view.effective
    );
    world.store.broken.store(true, Ordering::Relaxed);
    assert!(
        world
            .control
            .delete_ca(&host(), INSTANCE, &sn)
            .await
            .is_err()
    );
    assert_eq!(world.reason(&device), "ca_revoked");
}

#[tokio::test]
async fn list_put_into_the_store_by_another_hand_is_taken_over() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    let device = ca.issue("d", 5);
    let live = world.record_and_connect(&device).await;
    let der = TestCrl::revoking(1, &[5]).der(&ca);
    let crl = TestCrl::revoking(1, &[5]).verified(&ca).unwrap();
    let record = crate::store::CrlRecord {
        instance: INSTANCE.parse().unwrap(),
        id: crl.id(),
        issuer: crl.issuer(),
        digest: crate::ca::id::CrlDigest::of_der(&der),
        imported_at_ms: 0,
    };
    let put = Change::PutCrl {
        record: record.clone(),
        der: CrlDer(der.into()),
    };
    world.store.apply(vec![put]);
    until(|| live.cut() == Some(Cut::Revoked)).await;
    assert_eq!(world.reason(&device), "device_revoked");
    // And taken out again; nothing is let in by a store that cannot be read.
    let kept = world.store.lists.lock().unwrap().clone();
    world.store.lists.lock().unwrap().clear();
    let mut next = record.clone();
    next.digest = crate::ca::id::CrlDigest::from_bytes([7; 32]);
    world.store.kept.lock().unwrap().crls = vec![next];
    world.store.apply(vec![]);
    until(|| !world.control.is_ready()).await;
    assert_eq!(world.reason(&device), "device_revoked");
    *world.store.lists.lock().unwrap() = kept;
    let delete = Change::DeleteCrl {
        instance: record.instance,
        id: record.id,
    };
    world.store.apply(vec![delete]);
    until(|| world.reason(&device) == "admitted").await;
    assert!(world.control.is_ready());
}

#[tokio::test]
async fn nobody_imports_or_deletes_without_the_right() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    world.register(&ca, "ca").await;
    let stranger = Caller {
        account: "somebody".parse().unwrap(),
        ..caller()
    };
    let der = TestCrl::revoking(1, &[5]).der(&ca);
    let refused = world.import_as(&stranger, None, der).await;
    assert!(
        matches!(refused, Err(ControlError::NotOwner { .. })),
        "{refused:?}"
    );
    let listed = world
        .control
        .list_crls(&stranger, INSTANCE, None, PAGE)
        .await;
    assert!(listed.is_err());
}
