//! Damaged rows, full disks, wrong files.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

#[tokio::test]
async fn a_row_that_is_no_record_fails_the_snapshot_and_is_named() {
    let cases = [
        ("crl", "UPDATE crl SET id = upper(id)", "id "),
        ("crl", "UPDATE crl SET sha256 = ''", "sha256 "),
        ("crl", "UPDATE crl SET issuer = x'00'", "issuer "),
        (
            "crl",
            "UPDATE crl SET imported_at_ms = ''",
            "imported_at_ms ",
        ),
        (
            "crl_policy",
            "UPDATE crl_policy SET policy = 'none'",
            "policy ",
        ),
        (
            "crl_policy",
            "UPDATE crl_policy SET issuer = '7'",
            "issuer ",
        ),
        ("ca", "UPDATE ca SET id = 'zz' || substr(id, 3)", "id "),
        ("ca", "UPDATE ca SET id = upper(id)", "id "),
        ("ca", "UPDATE ca SET id = x'00'", "id "),
        ("ca", "UPDATE ca SET der = x'300107'", "id "),
        ("ca", "UPDATE ca SET der = x'3002'", "der "),
        ("ca", "UPDATE ca SET der = 'text'", "der "),
        ("ca", "UPDATE ca SET status = 'Active'", "status "),
        ("ca", "UPDATE ca SET status = 1", "status "),
        ("ca", "UPDATE ca SET instance = 'a b'", "instance "),
        (
            "ca",
            "UPDATE ca SET registered_at_ms = 'soon'",
            "registered_at_ms ",
        ),
        ("ca", "UPDATE ca SET name = CAST(x'ff' AS TEXT)", "name "),
        ("device", "UPDATE device SET serial = '0001'", "serial "),
        ("device", "UPDATE device SET serial = '1'", "serial "),
        ("device", "UPDATE device SET serial = 'ff00'", "serial "),
        (
            "device",
            "UPDATE device SET serial = '00' || hex(zeroblob(30))",
            "serial ",
        ),
        ("device", "UPDATE device SET issuer = ''", "issuer "),
        ("device", "UPDATE device SET status = ''", "status "),
        ("device", "UPDATE device SET ca = issuer", "ca "),
        (
            "device",
            "UPDATE device SET der = substr(der, 1, 3)",
            "der ",
        ),
        (
            "device",
            "UPDATE device SET first_seen_ms = 1.5",
            "first_seen_ms ",
        ),
        (
            "register_code",
            "UPDATE register_code SET used = 2",
            "used ",
        ),
        (
            "register_code",
            "UPDATE register_code SET account = ''",
            "account ",
        ),
        (
            "register_code",
            "UPDATE register_code SET code = x'00'",
            "code ",
        ),
        ("access_key", "UPDATE access_key SET id = 'a b'", "id "),
        (
            "access_key",
            "UPDATE access_key SET account = ''",
            "account ",
        ),
        (
            "access_key",
            "UPDATE access_key SET status = 'on'",
            "status ",
        ),
        (
            "access_key",
            "UPDATE access_key SET secret = NULL",
            "secret ",
        ),
        (
            "access_key",
            "UPDATE access_key SET sealed_secret = x'00'",
            "secret ",
        ),
        (
            "access_key",
            "UPDATE access_key SET secret = NULL, sealed_secret = 'text'",
            "sealed_secret ",
        ),
        (
            "access_key",
            "UPDATE access_key SET policy = x'00'",
            "policy ",
        ),
    ];
    let bench = Bench::new();
    let store = bench.store();
    let changes = vec![
        Change::PutCa(ca(1, Status::Active)),
        put_device(1, 1, Status::Active),
        Change::PutRegisterCode(code(1, false)),
        Change::PutAccessKey(key(2, Status::Active)),
        crl(1, 1),
        Change::PutCrlPolicy(crl_policy(1, CrlPolicy::Required)),
    ];
    store.commit(0, changes.clone()).await.unwrap();
    let hand = bench.by_hand();
    hand.execute_batch("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF")
        .unwrap();
    for (at, edit, column) in cases {
        hand.execute(edit, []).unwrap();
        match store.snapshot().await {
            Err(StoreError::Corrupt { table, row, what }) => {
                assert_eq!((table, row.as_str()), (at, "rowid 1"), "{edit}");
                assert!(what.starts_with(column), "{edit}: {what}");
            }
            other => panic!("{edit}: {other:?}"),
        }
        hand.execute_batch(
            "DELETE FROM device; DELETE FROM ca; DELETE FROM register_code; \
             DELETE FROM access_key; DELETE FROM crl; DELETE FROM crl_policy",
        )
        .unwrap();
        let head = store.head().await.unwrap();
        store.commit(head, changes.clone()).await.unwrap();
        store.snapshot().await.unwrap();
    }
    hand.execute("DELETE FROM head", []).unwrap();
    assert!(matches!(
        store.snapshot().await,
        Err(StoreError::Corrupt { table: "head", .. })
    ));
    assert!(store.commit(99, Vec::new()).await.is_err());
}

#[tokio::test]
async fn of_many_devices_all_are_read_and_the_first_that_is_none_is_named() {
    let bench = Bench::new();
    let store = bench.store();
    // One name is longer than all that is taken out of the database at a time.
    let numbered = |number: u16| DeviceRecord {
        serial: CertSerial::from_be_bytes(&[&[1], &number.to_be_bytes()[..]].concat()).unwrap(),
        name: match number {
            300 => "x".repeat(300_000),
            number => format!("device {number}"),
        },
        ..device(1, 1 + u8::from(number.is_multiple_of(2)), Status::Active)
    };
    let devices: Vec<_> = (1..=1500).map(numbered).collect();
    let cas = [1, 2].map(|number| Change::PutCa(ca(number, Status::Active)));
    let puts = devices.iter().cloned().map(|record| Change::PutDevice {
        record,
        der: device_der(1),
    });
    let changes = cas.into_iter().chain(puts).collect();
    store.commit(0, changes).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().devices, devices);
    let parts = store.snapshot_by_parts().await.unwrap();
    assert_eq!((parts.rest.seq, parts.rest.cas.len()), (1, 2));
    assert_eq!(parts.rest.devices, []);
    assert_eq!(parts.devices.await.unwrap(), devices);

    let hand = bench.by_hand();
    // No room is made for as many as the highest rowid says.
    assert_eq!(rows::devices_at_most(&hand).unwrap(), 1500);
    let edit = "UPDATE device SET rowid = 9223372036854775807 WHERE rowid = 1500";
    hand.execute(edit, []).unwrap();
    assert!((1500..100_000).contains(&rows::devices_at_most(&hand).unwrap()));
    assert_eq!(store.snapshot().await.unwrap().devices, devices);
    hand.execute_batch("PRAGMA ignore_check_constraints = ON")
        .unwrap();
    // The one is found by who takes the rows out, the other by who reads them.
    for (edit, first) in [
        ("UPDATE device SET der = 'text' WHERE rowid = 900", 900),
        ("UPDATE device SET status = 'on' WHERE rowid = 899", 899),
        ("UPDATE device SET name = x'00' WHERE rowid = 2", 2),
        ("UPDATE device SET serial = '1' WHERE rowid = 1", 1),
    ] {
        hand.execute(edit, []).unwrap();
        match store.snapshot().await {
            Err(StoreError::Corrupt { table, row, .. }) => {
                assert_eq!((table, row), ("device", format!("rowid {first}")));
            }
            other => panic!("{edit}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_record_that_could_not_be_read_back_is_not_written() {
    let bench = Bench::new();
    let mut foreign = ca(1, Status::Active);
    foreign.id = ca(2, Status::Active).id;
    let torn = Change::PutDevice {
        record: device(1, 3, Status::Active),
        der: device_der(1).slice(..3),
    };
    let changes = [
        vec![Change::PutCa(foreign)],
        vec![Change::PutCa(ca(3, Status::Active)), torn],
    ];
    for changes in changes {
        let result = bench.store().commit(0, changes).await;
        assert!(
            matches!(result, Err(StoreError::Corrupt { .. })),
            "{result:?}"
        );
    }
    assert_eq!(bench.store().snapshot().await.unwrap(), Snapshot::default());
}

#[tokio::test]
async fn a_full_or_read_only_disk_fails_the_callers_and_heals() {
    let bench = Bench::new();
    let store = bench.store();
    let mut large = ca(1, Status::Active);
    large.verification_pem = Some("x".repeat(100_000));
    let large = vec![Change::PutCa(large)];
    let small = vec![Change::PutCa(ca(2, Status::Active))];

    bench.with(|connection| {
        let pages: i64 = connection
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap();
        connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .unwrap();
    });
    let release = bench.hold();
    let (full, with_it, head, ()) = tokio::join!(
        store.commit(0, large.clone()),
        store.commit(0, Vec::new()),
        store.head(),
        async { drop(release) },
    );
    for result in [full, with_it] {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
    }
    assert_eq!(head.unwrap(), 0);
    bench.with(|connection| {
        connection
            .pragma_update_and_check(None, "max_page_count", 1_000_000, |_| Ok(()))
            .unwrap();
    });
    assert_eq!(store.commit(0, large).await.unwrap(), 1);

    bench.with(|connection| connection.pragma_update(None, "query_only", true).unwrap());
    let error = store.commit(1, small.clone()).await.unwrap_err();
    assert!(error.to_string().contains("readonly"), "{error}");
    assert_eq!(store.snapshot().await.unwrap().seq, 1);
    bench.with(|connection| connection.pragma_update(None, "query_only", false).unwrap());
    assert_eq!(store.commit(1, small).await.unwrap(), 2);
}

#[tokio::test]
async fn a_second_broker_is_refused_until_the_first_is_gone() {
    let mut bench = Bench::new();
    let error = SqliteStore::open(&bench.path()).err().unwrap().to_string();
    assert!(error.contains("another broker uses"), "{error}");
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    assert_eq!(bench.store().commit(0, Vec::new()).await.unwrap(), 1);
    bench.reopen();
    assert_eq!(bench.store().head().await.unwrap(), 1);
}

#[test]
fn files_are_for_the_owner_only_and_refused_otherwise() {
    let mut bench = Bench::new();
    block_on(bench.store().commit(0, Vec::new())).unwrap();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let path = files::with_suffix(&bench.path(), suffix);
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{suffix}");
    }
    bench.store = None;
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o640)).unwrap();
    let error = SqliteStore::open(&bench.path()).err().unwrap().to_string();
    let command = format!("chmod 600 {}", bench.path().display());
    assert!(error.contains(&command), "{error}");
}

#[test]
fn a_newer_schema_is_refused_and_not_touched() {
    let mut bench = Bench::new();
    bench.store = None;
    let newer = migrations::newest() + 1;
    bench
        .by_hand()
        .execute(
            "INSERT INTO schema_version (version, name) VALUES ($1, 'tomorrow')",
            [newer],
        )
        .unwrap();
    let before = fs::read(bench.path()).unwrap();
    let error = SqliteStore::open(&bench.path()).err().unwrap().to_string();
    assert!(
        error.contains(&format!("schema version {newer}")),
        "{error}"
    );
    assert_eq!(fs::read(bench.path()).unwrap(), before);
}

#[test]
fn what_is_no_database_is_refused_and_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    files::ensure_private(&path).unwrap();
    fs::write(&path, "my shopping list, which is rather long. ".repeat(50)).unwrap();
    let before = fs::read(&path).unwrap();
    let error = SqliteStore::open(&path).err().unwrap().to_string();
    assert!(error.contains("cannot be read as a database"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(SqliteStore::open(Path::new("/proc/nowhere/registry.db")).is_err());
}

#[test]
fn a_directory_that_cannot_be_written_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(closed.join("probe"), "").is_ok() {
        return; // The superuser may write everywhere.
    }
    let error = SqliteStore::open(&closed.join("registry.db"))
        .err()
        .unwrap();
    assert!(error.to_string().contains("cannot be created"), "{error}");
}

#[tokio::test]
async fn a_replaced_file_fails_every_call() {
    let bench = Bench::new();
    let store = bench.store();
    fs::rename(bench.path(), bench.directory.path().join("old.db")).unwrap();
    fs::write(bench.path(), "").unwrap();
    for error in [
        store.commit(0, Vec::new()).await.unwrap_err(),
        store.head().await.unwrap_err(),
        store.snapshot().await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("was replaced"), "{error}");
    }
    store.changed(0).await.unwrap();
}
