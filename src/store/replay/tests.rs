//! The file across restarts and crashes, and under faults.

mod faults;

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::store::files;

/// What [`Loaded::forgotten`] is in these tests when the file was lost.
const LOST: i64 = 1_000;

struct Bench {
    directory: TempDir,
    store: Option<ReplayStore>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            directory: tempfile::tempdir().unwrap(),
            store: None,
        };
        assert_eq!(bench.open(Missing::New), Loaded::default());
        bench
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("replay.db")
    }

    fn store(&self) -> &ReplayStore {
        self.store.as_ref().unwrap()
    }

    fn open(&mut self, missing: Missing) -> Loaded {
        let (store, mut loaded) = ReplayStore::open(&self.path(), missing, Some(LOST)).unwrap();
        self.store = Some(store);
        loaded.nonces.sort();
        loaded
    }

    fn reopen(&mut self) -> Loaded {
        self.store = None;
        self.open(Missing::Lost)
    }

    /// Run something on the writer's connection, and wait until it is done.
    fn with(&self, act: impl FnOnce(&Connection) + Send + 'static) {
        let (done, wait) = mpsc::channel();
        let act = Box::new(move |connection: &Connection| {
            act(connection);
            done.send(()).unwrap();
        });
        self.store().writer.ask(Request::With(act)).unwrap();
        wait.recv().unwrap();
    }

    /// Hold the writer up until the returned sender is dropped.
    fn hold(&self) -> mpsc::Sender<()> {
        let (release, wait) = mpsc::channel::<()>();
        let (holding, held) = mpsc::channel();
        let act = Box::new(move |_: &Connection| {
            holding.send(()).unwrap();
            let _ = wait.recv();
        });
        self.store().writer.ask(Request::With(act)).unwrap();
        held.recv().unwrap();
        release
    }

    /// Wait until what was owed is written.
    async fn healed(&self) {
        while self.store().is_failing() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How many transactions are in the log (SQLite's file format, 4.1: a frame that ends one
    /// tells the size of the database).
    fn commits(&self) -> usize {
        let log = fs::read(files::with_suffix(&self.path(), "-wal")).unwrap();
        let word = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
        let frame = usize::try_from(word(8)).unwrap() + 24;
        let frames = (32..log.len()).step_by(frame);
        frames.filter(|&at| word(at + 4) != 0).count()
    }
}

fn nonce(number: u8, minute: i64) -> NonceRecord {
    NonceRecord {
        key: format!("key-{}", number % 3).parse().unwrap(),
        hash: u128::from(number) << 120 | 7,
        minute,
    }
}

#[tokio::test]
async fn kept_nonces_are_there_after_a_restart() {
    let mut bench = Bench::new();
    let all: Vec<_> = (0..20).map(|n| nonce(n, i64::from(n))).collect();
    for nonce in &all {
        assert_eq!(bench.store().keep(nonce.clone(), 0).await, Durable::Yes);
    }
    let loaded = bench.reopen();
    let mut expected = all;
    expected.sort();
    assert_eq!((loaded.nonces, loaded.forgotten), (expected, 0));
    assert_eq!(bench.store().keep(nonce(99, 5), 0).await, Durable::Yes);
    assert_eq!(bench.reopen().nonces.len(), 21);
}

#[tokio::test]
async fn crash_loses_no_answered_nonce_and_a_log_cut_anywhere_is_not_damaged() {
    let bench = Bench::new();
    for number in 0..12 {
        bench.store().keep(nonce(number, 50), 0).await;
    }
    let database = fs::read(bench.path()).unwrap();
    let log = fs::read(files::with_suffix(&bench.path(), "-wal")).unwrap();
    let mut counts = Vec::new();
    for cut in (0..=log.len()).rev().step_by(1999) {
        let mut copy = Bench {
            directory: tempfile::tempdir().unwrap(),
            store: None,
        };
        let wal = files::with_suffix(&copy.path(), "-wal");
        for (path, content) in [(&copy.path(), &database[..]), (&wal, &log[..cut])] {
            files::ensure_private(path).unwrap();
            fs::write(path, content).unwrap();
        }
        let loaded = copy.open(Missing::Lost);
        let kept = u8::try_from(loaded.nonces.len()).unwrap();
        for number in 0..kept {
            assert!(loaded.nonces.contains(&nonce(number, 50)), "cut at {cut}");
        }
        // Without its tables it is a file that was lost.
        assert!(loaded.forgotten == 0 || (kept == 0 && loaded.forgotten == LOST));
        counts.push(kept);
    }
    assert_eq!(counts.first(), Some(&12));
    assert!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
}

#[tokio::test]
async fn nonces_that_wait_together_share_one_flush() {
    let mut bench = Bench::new();
    let before = bench.commits();
    let release = bench.hold();
    let store = bench.store();
    let mut waiting: Vec<_> = (0..50)
        .map(|n| Box::pin(store.keep(nonce(n, 9), 0)))
        .collect();
    // One look at each sends it off.
    for keep in &mut waiting {
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(
                keep.as_mut().poll(context).is_pending()
            ))
            .await
        );
    }
    drop(release);
    for keep in waiting {
        assert_eq!(keep.await, Durable::Yes);
    }
    assert_eq!(bench.commits(), before + 1);
    assert_eq!(bench.reopen().nonces.len(), 50);
}

#[tokio::test]
async fn expired_nonces_go_and_the_file_says_up_to_when() {
    let mut bench = Bench::new();
    for number in 0..10 {
        bench
            .store()
            .keep(nonce(number, i64::from(number)), 0)
            .await;
    }
    bench.store().keep(nonce(10, 10), 8).await;
    // A clock that is set back brings nothing back, and what has expired is not written.
    bench.store().keep(nonce(11, 11), 3).await;
    assert_eq!(bench.store().keep(nonce(7, 7), 3).await, Durable::Yes);
    let loaded = bench.reopen();
    assert_eq!(loaded.forgotten, 8);
    let minutes: Vec<_> = loaded.nonces.iter().map(|nonce| nonce.minute).collect();
    let mut sorted = minutes.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [8, 9, 10, 11]);
    assert_eq!(bench.reopen(), loaded, "to open it changes nothing");
}

#[test]
fn file_that_was_lost_is_told_apart_from_one_that_never_was() {
    for empty in [false, true] {
        for (missing, forgotten) in [(Missing::New, 0), (Missing::Lost, LOST)] {
            let mut bench = Bench {
                directory: tempfile::tempdir().unwrap(),
                store: None,
            };
            if empty {
                files::ensure_private(&bench.path()).unwrap();
            }
            assert_eq!(bench.open(missing).forgotten, forgotten);
            // It is written down at once: the next start knows it, too.
            assert_eq!(bench.reopen().forgotten, forgotten);
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("replay.db");
    let error = ReplayStore::open(&path, Missing::Lost, None).err().unwrap();
    assert!(error.to_string().contains("clock is not set"), "{error}");
}

#[test]
fn log_without_its_database_is_not_taken_for_one() {
    let mut bench = Bench::new();
    block_on(bench.store().keep(nonce(1, 5), 0));
    let log = fs::read(files::with_suffix(&bench.path(), "-wal")).unwrap();
    bench.store = None;
    fs::remove_file(bench.path()).unwrap();
    let wal = files::with_suffix(&bench.path(), "-wal");
    files::ensure_private(&wal).unwrap();
    fs::write(&wal, log).unwrap();
    let loaded = bench.open(Missing::Lost);
    assert_eq!((loaded.nonces.len(), loaded.forgotten), (0, LOST));
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}
