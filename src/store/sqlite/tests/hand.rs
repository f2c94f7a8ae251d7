//! Edits with the `sqlite3` command while the broker runs.

use std::process::Command;

use super::*;

#[tokio::test]
async fn an_edit_by_hand_gets_a_number_and_wakes_who_waits() {
    let bench = Bench::new();
    let store = bench.store();
    let put = vec![Change::PutCa(ca(1, Status::Active))];
    assert_eq!(store.commit(0, put.clone()).await.unwrap(), 1);

    let hand = bench.by_hand();
    hand.execute("UPDATE ca SET status = 'inactive'", [])
        .unwrap();
    assert_eq!(store.changed(1).await.unwrap(), 2);
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.seq, 2);
    assert_eq!(snapshot.cas[0].status, Status::Inactive);

    // Not noticed yet when somebody commits against the state before it.
    let release = bench.hold();
    hand.execute("UPDATE ca SET name = 'x'", []).unwrap();
    let (stale, head, ()) = tokio::join!(store.commit(2, put), store.head(), async {
        drop(release);
    });
    assert!(
        matches!(stale, Err(StoreError::Conflict { head: 3, .. })),
        "{stale:?}"
    );
    assert_eq!(head.unwrap(), 3);
    assert_eq!(store.snapshot().await.unwrap().cas[0].name, "x");

    // Whatever it does to the number itself.
    hand.execute("UPDATE head SET seq = 0", []).unwrap();
    assert_eq!(store.head().await.unwrap(), 4);
    assert_eq!(store.commit(4, Vec::new()).await.unwrap(), 5);
}

#[tokio::test]
async fn a_ca_deleted_by_hand_takes_its_devices_along() {
    let bench = Bench::new();
    let store = bench.store();
    let changes = vec![
        Change::PutCa(ca(1, Status::Active)),
        Change::PutCa(ca(2, Status::Active)),
        put_device(1, 1, Status::Active),
        put_device(2, 2, Status::Active),
    ];
    store.commit(0, changes).await.unwrap();
    let hand = bench.by_hand();
    hand.pragma_update(None, "foreign_keys", false).unwrap();
    hand.execute("DELETE FROM ca WHERE name = 'ca 1'", [])
        .unwrap();
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.devices, [device(2, 2, Status::Active)]);
}

#[tokio::test]
async fn the_database_itself_refuses_a_hand_that_slips() {
    let bench = Bench::new();
    let put = vec![Change::PutCa(ca(1, Status::Active))];
    bench.store().commit(0, put).await.unwrap();
    let hand = bench.by_hand();
    for edit in [
        "UPDATE ca SET status = 'off'",
        "UPDATE ca SET status = NULL",
        "UPDATE ca SET id = upper(id)",
        "UPDATE ca SET der = 'x'",
    ] {
        assert!(hand.execute(edit, []).is_err(), "{edit}");
    }
    // The form that operators will use.
    let changed = hand.execute("UPDATE ca SET status = 'inactive' WHERE name = 'ca 1'", []);
    assert_eq!(changed.unwrap(), 1);
}

#[tokio::test]
async fn the_sqlite3_command_reads_and_edits_the_live_file() {
    let bench = Bench::new();
    let mut record = ca(1, Status::Active);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0xf2, 0x69]));
    record.der = params.self_signed(&key).unwrap().der().to_vec();
    record.id = CaId::of_der(&record.der);
    let put = vec![Change::PutCa(record)];
    bench.store().commit(0, put).await.unwrap();
    let output = Command::new("sqlite3")
        .arg(bench.path())
        .arg("SELECT sn, name, status FROM ca; UPDATE ca SET status = 'inactive' WHERE sn = '00f269'")
        .output();
    let Ok(output) = output else {
        return; // The command is not installed.
    };
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "00f269|ca 1|active\n"
    );
    assert_eq!(bench.store().changed(1).await.unwrap(), 2);
    let snapshot = bench.store().snapshot().await.unwrap();
    assert_eq!(snapshot.cas[0].status, Status::Inactive);
}
