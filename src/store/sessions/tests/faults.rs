//! Full and hanging disks, damaged and foreign files, crashes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::*;
use crate::store::files;

#[tokio::test]
async fn crash_leaves_what_some_transaction_left() {
    let bench = Bench::new();
    for key in 1..=12 {
        put(bench.store(), &example(key, 20));
        bench.store().flush().await.unwrap();
        if key > 2 {
            assert_eq!(bench.store().forget(key - 2).await, Durable::Yes);
        }
    }
    let database = fs::read(bench.path()).unwrap();
    let log = fs::read(files::with_suffix(&bench.path(), "-wal")).unwrap();
    let mut seen = 0;
    for cut in (0..=log.len()).rev().step_by(4_001) {
        let mut copy = Bench {
            directory: tempfile::tempdir().unwrap(),
            store: None,
        };
        let wal = files::with_suffix(&copy.path(), "-wal");
        for (path, content) in [(&copy.path(), &database[..]), (&wal, &log[..cut])] {
            files::ensure_private(path).unwrap();
            fs::write(path, content).unwrap();
        }
        let kept = copy.reopen().await;
        assert!(kept.unreadable.is_empty());
        // Whole sessions, and none that was forgotten before a later one was written.
        for (key, session) in &kept.sessions {
            assert_eq!(session, &example(*key, 20), "cut at {cut}");
        }
        let keys: Vec<u64> = kept.sessions.keys().copied().collect();
        assert!(keys.len() <= 3, "{keys:?}");
        assert!(keys.windows(2).all(|two| two[1] == two[0] + 1), "{keys:?}");
        seen += keys.len();
    }
    assert!(seen > 20, "{seen}");
}

#[tokio::test]
async fn full_disk_is_told_and_what_must_be_forgotten_is_when_it_heals() {
    let mut bench = Bench::new();
    put(bench.store(), &example(1, 10));
    bench.store().flush().await.unwrap();
    bench.with(|connection| {
        let pages: i64 = connection
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap();
        connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .unwrap();
    });
    let before = bench.store().failures();
    let (forgotten, again) = {
        // Together with what does not fit, so that it fails with it.
        let release = bench.hold();
        put(bench.store(), &example(2, 10_000));
        let forgotten = bench.store().forget(1);
        // A flush ends what is tried together; it is not tried again before it was looked at.
        let (answer, _) = oneshot::channel();
        bench.store().ask(Request::Flush(answer)).unwrap();
        let (again, _) = bench.hold_later();
        drop(release);
        (forgotten, again)
    };
    assert_eq!(forgotten.await, Durable::NotYet);
    assert!(bench.store().failures() > before && bench.store().is_in_trouble());
    drop(again);
    // It needs no room, so it is done although the disk is full; what does not fit is given up.
    while bench.store().is_in_trouble() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    put(bench.store(), &example(3, 10_000));
    assert!(bench.store().flush().await.is_err());
    bench.with(|connection| {
        connection
            .pragma_update_and_check(None, "max_page_count", 1_000_000, |_| Ok(()))
            .unwrap();
    });
    put(bench.store(), &example(3, 10_000));
    bench.store().flush().await.unwrap();
    let kept = bench.reopen().await;
    assert_eq!(kept.sessions.keys().copied().collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn disk_that_is_known_to_fail_is_not_waited_for_and_gets_what_it_is_owed() {
    let mut bench = Bench::new();
    put(bench.store(), &example(1, 10));
    put(bench.store(), &example(2, 10));
    bench.store().flush().await.unwrap();
    bench.with(|connection| connection.pragma_update(None, "query_only", true).unwrap());
    assert_eq!(bench.store().forget(1).await, Durable::NotYet);
    assert!(bench.store().is_in_trouble());
    let release = bench.hold();
    let forgotten = bench.store().forget(2).now_or_never();
    assert_eq!(forgotten, Some(Durable::NotYet));
    drop(release);
    bench.with(|connection| connection.pragma_update(None, "query_only", false).unwrap());
    assert!(bench.reopen().await.sessions.is_empty());
}

#[tokio::test]
async fn disk_that_hangs_is_not_waited_for() {
    let mut bench = Bench::new();
    put(bench.store(), &example(1, 10));
    bench.store().flush().await.unwrap();
    let release = bench.hold();
    tokio::time::pause();
    assert_eq!(bench.store().forget(1).await, Durable::NotYet);
    tokio::time::resume();
    // That is told, and nobody else waits.
    assert!(bench.store().is_in_trouble());
    let forgotten = bench.store().forget(2).now_or_never();
    assert_eq!(forgotten, Some(Durable::NotYet));
    drop(release);
    put(bench.store(), &example(3, 1));
    bench.store().flush().await.unwrap();
    assert!(!bench.store().is_in_trouble());
    let kept = bench.reopen().await;
    assert_eq!(kept.sessions.keys().copied().collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn replaced_file_takes_nothing_until_it_is_put_back() {
    let mut bench = Bench::new();
    put(bench.store(), &example(1, 1));
    bench.store().flush().await.unwrap();
    let aside = bench.directory.path().join("moved.db");
    fs::rename(bench.path(), &aside).unwrap();
    assert_eq!(bench.store().forget(1).await, Durable::NotYet);
    fs::rename(&aside, bench.path()).unwrap();
    while bench.store().is_in_trouble() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(bench.reopen().await.sessions.is_empty());
}

/// The files that were put aside.
fn aside(bench: &Bench) -> Vec<Vec<u8>> {
    let files = fs::read_dir(bench.directory.path()).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains(".damaged-"))
        .map(|path| fs::read(path).unwrap())
        .collect()
}

async fn assert_put_aside(what: &str, spoil: impl FnOnce(&Path)) {
    let mut bench = Bench::new();
    for key in 0..50 {
        put(bench.store(), &example(key, 20));
    }
    bench.store = None;
    spoil(&bench.path());
    let spoilt = fs::read(bench.path()).unwrap();
    assert_eq!(bench.reopen().await, Kept::default(), "{what}");
    assert!(aside(&bench).contains(&spoilt), "{what}");
    put(bench.store(), &example(1, 1));
    assert_eq!(bench.reopen().await.sessions.len(), 1, "{what}");
}

fn edit(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn file_that_cannot_be_read_is_put_aside_and_a_new_one_begun() {
    assert_put_aside("no database", |path| {
        fs::write(path, "my shopping list, which is rather long. ".repeat(50)).unwrap();
    })
    .await;
    assert_put_aside("cut off", |path| {
        let octets = fs::read(path).unwrap();
        fs::write(path, &octets[..octets.len() / 2]).unwrap();
    })
    .await;
    assert_put_aside("a page of zeros", |path| {
        let mut octets = fs::read(path).unwrap();
        let last = octets.len() - 8192;
        octets[last..].fill(0);
        fs::write(path, octets).unwrap();
    })
    .await;
    assert_put_aside("another program's", |path| {
        edit(path, "PRAGMA application_id = 7");
    })
    .await;
}

#[tokio::test]
async fn file_of_a_newer_version_in_use_or_open_to_others_stops_the_start() {
    let mut bench = Bench::new();
    let refused = |path: &Path| SqliteSessions::open(path).err().unwrap().to_string();
    put(bench.store(), &example(1, 1));
    bench.store().flush().await.unwrap();
    let error = refused(&bench.path());
    assert!(error.contains("another program has it open"), "{error}");
    bench.store = None;
    edit(&bench.path(), "PRAGMA user_version = 99");
    let error = refused(&bench.path());
    assert!(error.contains("start the newer"), "{error}");
    edit(&bench.path(), "PRAGMA user_version = 1");
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o640)).unwrap();
    let error = refused(&bench.path());
    let command = format!("chmod 600 {}", bench.path().display());
    assert!(error.contains(&command), "{error}");
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(bench.reopen().await.sessions.len(), 1);
}

#[tokio::test]
async fn row_that_makes_no_sense_is_told_with_its_session_and_the_rest_is_read() {
    for (sql, told) in [
        (
            "UPDATE session SET issuer = 'x' WHERE key = 1",
            (Some(1), "session"),
        ),
        (
            "UPDATE session SET next_packet_id = 70000 WHERE key = 1",
            (Some(1), "session"),
        ),
        (
            "UPDATE session SET address = '' WHERE key = 1",
            (Some(1), "session"),
        ),
        (
            "UPDATE subscription SET options = 'x' WHERE session = 1",
            (Some(1), "subscription"),
        ),
        (
            "UPDATE received SET packet_id = -1 WHERE session = 1",
            (Some(1), "received"),
        ),
        (
            "UPDATE in_flight SET payload = 5 WHERE session = 1 AND place = 0",
            (Some(1), "in_flight"),
        ),
        (
            "UPDATE queued SET subscription_ids = x'0102' WHERE session = 1",
            (Some(1), "queued"),
        ),
        (
            "UPDATE queued SET topic = CAST(x'ff' AS TEXT) WHERE session = 1",
            (Some(1), "queued"),
        ),
        (
            "UPDATE queued SET number = -1 WHERE session = 1",
            (Some(1), "queued"),
        ),
        (
            "INSERT INTO retained VALUES ('a', 1, 1, NULL, 'text', x'', 0)",
            (None, "retained"),
        ),
    ] {
        let mut bench = Bench::new();
        put(bench.store(), &example(1, 1));
        put(bench.store(), &example(2, 1));
        bench.store = None;
        edit(&bench.path(), sql);
        let kept = bench.reopen().await;
        assert_eq!(kept.unreadable, [told], "{sql}");
        assert_eq!(kept.sessions[&2], example(2, 1), "{sql}");
    }
}

#[tokio::test]
async fn files_are_for_the_owner_only_and_removed_when_nothing_is_kept() {
    let bench = Bench::new();
    put(bench.store(), &example(1, 1));
    bench.store().flush().await.unwrap();
    for file in fs::read_dir(bench.directory.path()).unwrap() {
        let path = file.unwrap().path();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    let Bench { directory, store } = bench;
    // A crash leaves the log beside the file.
    std::mem::forget(store);
    let path = directory.path().join("sessions-x.db");
    assert!(remove(&path).unwrap());
    assert!(!remove(&path).unwrap());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn octets_that_were_changed_harm_nobody(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        block_on(async {
            let mut bench = Bench::new();
            for key in 1..=5 {
                put(bench.store(), &example(key, 10));
            }
            bench.store = None;
            let mut octets = fs::read(bench.path()).unwrap();
            for (place, octet) in &changes {
                let place = place.index(octets.len());
                octets[place] = *octet;
            }
            fs::write(bench.path(), octets).unwrap();
            // It is read, or put aside, or refused with a reason; nothing else.
            if let Ok(store) = SqliteSessions::open(&bench.path()) {
                bench.store = Some(store);
                let (to, mut rows) = mpsc::channel(64);
                let read = bench.store().load(to);
                let take = async { while rows.recv().await.is_some() {} };
                let _ = tokio::join!(read, take);
                put(bench.store(), &example(9, 1));
                let _ = bench.store().flush().await;
            }
        });
    }
}
