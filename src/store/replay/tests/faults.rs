//! Full and hanging disks, damaged and foreign files.

use std::os::unix::fs::PermissionsExt;

use futures_util::FutureExt;

use super::*;

#[tokio::test]
async fn full_disk_is_told_and_paid_when_it_heals() {
    let mut bench = Bench::new();
    bench.with(|connection| {
        let pages: i64 = connection
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap();
        connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .unwrap();
    });
    // What still fits on the pages there are is kept; then it is full.
    let mut number = 0_u8;
    while bench.store().keep(nonce(number, 9), 0).await == Durable::Yes {
        number += 1;
    }
    assert!(bench.store().is_failing());
    // Nobody waits for a disk that is known to fail.
    let kept = bench.store().keep(nonce(254, 9), 0).now_or_never();
    assert_eq!(kept, Some(Durable::NotYet));
    bench.with(|connection| {
        connection
            .pragma_update_and_check(None, "max_page_count", 1_000_000, |_| Ok(()))
            .unwrap();
    });
    bench.healed().await;
    assert_eq!(bench.store().keep(nonce(255, 9), 0).await, Durable::Yes);
    let kept = bench.reopen().nonces;
    assert_eq!(kept.len(), usize::from(number) + 3);
    assert!(kept.contains(&nonce(number, 9)) && kept.contains(&nonce(254, 9)));
}

#[tokio::test]
async fn disk_that_hangs_is_not_waited_for_and_gets_what_it_is_owed() {
    let mut bench = Bench::new();
    let release = bench.hold();
    tokio::time::pause();
    assert_eq!(bench.store().keep(nonce(1, 9), 0).await, Durable::NotYet);
    assert!(bench.store().is_failing());
    assert_eq!(bench.store().keep(nonce(2, 9), 0).await, Durable::NotYet);
    tokio::time::resume();
    drop(release);
    bench.healed().await;
    assert_eq!(bench.store().keep(nonce(3, 9), 0).await, Durable::Yes);
    assert_eq!(bench.reopen().nonces.len(), 3);
}

#[tokio::test]
async fn disk_that_hangs_for_long_fills_no_memory_and_the_file_tells_what_it_lacks() {
    let mut bench = Bench::new();
    let release = bench.hold();
    tokio::time::pause();
    for number in 0..2 * MOST_WAITING {
        let nonce = NonceRecord {
            hash: u128::try_from(number).unwrap(),
            ..nonce(0, 9)
        };
        assert_eq!(bench.store().keep(nonce, 0).await, Durable::NotYet);
    }
    assert_eq!(bench.store().slots.available_permits(), 0);
    tokio::time::resume();
    drop(release);
    bench.healed().await;
    assert_eq!(bench.store().slots.available_permits(), MOST_WAITING);
    assert_eq!(bench.store().keep(nonce(1, 12), 0).await, Durable::Yes);
    let loaded = bench.reopen();
    assert_eq!(
        (loaded.nonces, loaded.forgotten),
        (vec![nonce(1, 12)], 10),
        "of minute 9, some are missing"
    );
}

#[tokio::test]
async fn what_is_owed_is_written_before_the_end() {
    let mut bench = Bench::new();
    bench.with(|connection| connection.pragma_update(None, "query_only", true).unwrap());
    assert_eq!(bench.store().keep(nonce(1, 9), 0).await, Durable::NotYet);
    bench.with(|connection| connection.pragma_update(None, "query_only", false).unwrap());
    assert_eq!(bench.reopen().nonces, [nonce(1, 9)]);
}

#[tokio::test]
async fn replaced_file_takes_nothing_until_it_is_put_back() {
    let mut bench = Bench::new();
    let aside = bench.directory.path().join("moved.db");
    fs::rename(bench.path(), &aside).unwrap();
    assert_eq!(bench.store().keep(nonce(1, 9), 0).await, Durable::NotYet);
    fs::write(bench.path(), "").unwrap();
    assert_eq!(bench.store().keep(nonce(2, 9), 0).await, Durable::NotYet);
    assert!(bench.store().is_failing());
    fs::rename(&aside, bench.path()).unwrap();
    bench.healed().await;
    assert_eq!(bench.reopen().nonces.len(), 2);
}

/// What becomes of the file, then what is found in the place where it was put.
fn assert_given_up(what: &str, spoil: impl FnOnce(&std::path::Path)) {
    let mut bench = Bench::new();
    for number in 0..200 {
        block_on(bench.store().keep(nonce(number, 9), 0));
    }
    bench.store = None;
    spoil(&bench.path());
    let spoilt = fs::read(bench.path()).unwrap();
    let loaded = bench.open(Missing::New);
    assert_eq!((loaded.nonces.len(), loaded.forgotten), (0, LOST), "{what}");
    let aside = files::with_suffix(&bench.path(), ".damaged");
    assert_eq!(fs::read(aside).unwrap(), spoilt, "{what}");
    assert_eq!(bench.reopen().forgotten, LOST, "{what}");
    let kept = block_on(bench.store().keep(nonce(1, LOST), 0));
    assert_eq!(kept, Durable::Yes, "{what}");
}

#[test]
fn file_that_cannot_be_read_is_moved_aside_and_its_time_is_unknown() {
    assert_given_up("no database", |path| {
        fs::write(path, "my shopping list, which is rather long. ".repeat(50)).unwrap();
    });
    assert_given_up("cut off", |path| {
        let octets = fs::read(path).unwrap();
        fs::write(path, &octets[..octets.len() / 2]).unwrap();
    });
    assert_given_up("a page of zeros", |path| {
        let mut octets = fs::read(path).unwrap();
        let last = octets.len() - 4096;
        octets[last..].fill(0);
        fs::write(path, octets).unwrap();
    });
    for edit in [
        "PRAGMA user_version = 2",
        "PRAGMA application_id = 7",
        "DELETE FROM forgotten",
        "DROP TABLE forgotten",
        "DROP TABLE nonce; CREATE TABLE nonce (x)",
        "UPDATE nonce SET access_key = 'a b' WHERE hash = (SELECT min(hash) FROM nonce)",
        "PRAGMA ignore_check_constraints = ON; UPDATE nonce SET hash = x'00' WHERE hash = (SELECT min(hash) FROM nonce)",
    ] {
        assert_given_up(edit, |path| {
            let hand = Connection::open(path).unwrap();
            hand.execute_batch(edit).unwrap();
        });
    }
}

#[test]
fn file_that_others_may_read_or_that_is_in_use_stops_the_start() {
    let mut bench = Bench::new();
    let open = |path: &std::path::Path| {
        let opened = ReplayStore::open(path, Missing::Lost, Some(LOST));
        opened.err().unwrap().to_string()
    };
    let error = open(&bench.path());
    assert!(error.contains("another program has it open"), "{error}");
    bench.store = None;
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o640)).unwrap();
    let error = open(&bench.path());
    let command = format!("chmod 600 {}", bench.path().display());
    assert!(error.contains(&command), "{error}");
}

#[tokio::test]
async fn files_are_for_the_owner_only() {
    let bench = Bench::new();
    bench.store().keep(nonce(1, 9), 0).await;
    for file in fs::read_dir(bench.directory.path()).unwrap() {
        let path = file.unwrap().path();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
}
