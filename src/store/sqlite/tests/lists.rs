//! Lists of revoked certificates: each row has its file, and no other file stays.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn digest_of(change: &Change) -> CrlDigest {
    match change {
        Change::PutCrl { record, .. } => record.digest,
        other => panic!("{other:?}"),
    }
}

impl Bench {
    fn crls(&self) -> PathBuf {
        self.directory.path().join("crls")
    }

    fn files(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.crls()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    /// Wait for the thread of the files to be done with what it was asked.
    async fn settled(&self) {
        let _ = self.store().crl(CrlDigest::of_der(b"none")).await;
    }
}

fn name(change: &Change) -> String {
    format!("{}.crl", digest_of(change))
}

#[tokio::test]
async fn file_is_there_with_its_row_and_goes_with_it() {
    let mut bench = Bench::new();
    let (first, second, other) = (crl(1, 1), crl(1, 2), crl(2, 1));
    bench.store().commit(0, vec![first.clone()]).await.unwrap();
    let path = bench.crls().join(name(&first));
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&bench.crls()), mode(&path)), (0o700, 0o600));
    bench
        .store()
        .commit(1, vec![second.clone(), other.clone()])
        .await
        .unwrap();
    bench.settled().await;
    assert_eq!(bench.files(), [name(&second), name(&other)].into());
    bench.reopen();
    let read = bench.store().crl(digest_of(&second)).await.unwrap();
    assert_eq!(CrlDigest::of_der(&read.0), digest_of(&second));
    bench.store().commit(2, vec![delete_crl(1)]).await.unwrap();
    bench.settled().await;
    assert_eq!(bench.files(), [name(&other)].into());
}

#[tokio::test]
async fn commit_that_is_refused_leaves_the_old_file() {
    let bench = Bench::new();
    let (kept, refused) = (crl(1, 1), crl(1, 2));
    bench.store().commit(0, vec![kept.clone()]).await.unwrap();
    let conflict = bench.store().commit(7, vec![refused]).await;
    assert!(matches!(conflict, Err(StoreError::Conflict { .. })));
    bench.settled().await;
    assert_eq!(bench.files(), [name(&kept)].into());
}

#[tokio::test]
async fn what_a_crash_left_without_a_row_goes_at_the_next_start() {
    let mut bench = Bench::new();
    let kept = crl(1, 1);
    bench.store().commit(0, vec![kept.clone()]).await.unwrap();
    for orphan in [name(&crl(1, 2)), name(&crl(1, 3)) + ".new"] {
        fs::write(bench.crls().join(orphan), "half").unwrap();
    }
    fs::write(bench.crls().join("notes.txt"), "an operator's").unwrap();
    bench.reopen();
    assert_eq!(bench.files(), [name(&kept), "notes.txt".to_owned()].into());
}

#[tokio::test]
async fn file_that_is_missing_changed_or_open_to_others_is_an_error() {
    let bench = Bench::new();
    let list = crl(1, 1);
    bench.store().commit(0, vec![list.clone()]).await.unwrap();
    let path = bench.crls().join(name(&list));
    let read = || async {
        let result = bench.store().crl(digest_of(&list)).await;
        result.map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(read().await, Ok(()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(read().await.unwrap_err().contains("chmod 600"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "something else").unwrap();
    assert!(read().await.unwrap_err().contains("not what was written"));
    fs::remove_file(&path).unwrap();
    assert!(read().await.unwrap_err().contains("is missing"));
}

#[tokio::test]
async fn list_that_cannot_be_written_fails_the_commit_and_heals() {
    let bench = Bench::new();
    // A file where the directory is to be.
    fs::write(bench.crls(), "in the way").unwrap();
    let error = bench.store().commit(0, vec![crl(1, 1)]).await.unwrap_err();
    assert!(error.to_string().contains("crls"), "{error}");
    assert_eq!(bench.store().snapshot().await.unwrap(), Snapshot::default());
    fs::remove_file(bench.crls()).unwrap();
    assert_eq!(bench.store().commit(0, vec![crl(1, 1)]).await.unwrap(), 1);
}

#[tokio::test]
async fn list_that_cannot_be_finished_leaves_nothing_behind() {
    let bench = Bench::new();
    let list = crl(1, 1);
    // In the way of its name, so that all of it is written when it fails.
    let path = bench.crls().join(name(&list));
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(bench.crls(), fs::Permissions::from_mode(0o700)).unwrap();
    for _ in 0..2 {
        assert!(bench.store().commit(0, vec![list.clone()]).await.is_err());
        assert_eq!(bench.files(), [name(&list)].into(), "that is the directory");
    }
    fs::remove_dir(&path).unwrap();
    assert_eq!(bench.store().commit(0, vec![list]).await.unwrap(), 1);
}

#[tokio::test]
async fn commit_that_fails_leaves_the_files_of_both_since_a_crash_may_bring_it_back() {
    let bench = Bench::new();
    let (kept, failed) = (crl(1, 1), crl(1, 2));
    bench.store().commit(0, vec![kept.clone()]).await.unwrap();
    bench.with(|connection| connection.pragma_update(None, "query_only", true).unwrap());
    let error = bench.store().commit(1, vec![failed.clone()]).await;
    assert!(matches!(error, Err(StoreError::Database(_))), "{error:?}");
    bench.settled().await;
    assert_eq!(bench.files(), [name(&kept), name(&failed)].into());
    bench.with(|connection| connection.pragma_update(None, "query_only", false).unwrap());
    bench.store().commit(1, vec![failed.clone()]).await.unwrap();
    bench.settled().await;
    assert_eq!(bench.files(), [name(&failed)].into());
}

#[tokio::test]
async fn policy_that_demands_nothing_has_no_row() {
    let bench = Bench::new();
    let put = |policy| vec![Change::PutCrlPolicy(crl_policy(1, policy))];
    bench
        .store()
        .commit(0, put(CrlPolicy::Required))
        .await
        .unwrap();
    assert_eq!(
        bench.store().snapshot().await.unwrap().crl_policies.len(),
        1
    );
    bench
        .store()
        .commit(1, put(CrlPolicy::Optional))
        .await
        .unwrap();
    assert_eq!(bench.store().snapshot().await.unwrap().crl_policies, []);
}

#[tokio::test]
async fn record_with_another_digest_is_not_written() {
    let bench = Bench::new();
    let (Change::PutCrl { record, .. }, Change::PutCrl { der, .. }) = (crl(1, 1), crl(1, 2)) else {
        panic!()
    };
    let error = bench
        .store()
        .commit(0, vec![Change::PutCrl { record, der }])
        .await;
    assert!(
        matches!(error, Err(StoreError::Corrupt { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn other_commits_do_not_wait_for_a_large_list() {
    let bench = Bench::new();
    let der = CrlDer(vec![0x55; 64 << 20].into());
    let Change::PutCrl { mut record, .. } = crl(1, 1) else {
        panic!()
    };
    record.digest = CrlDigest::of_der(&der.0);
    let large = bench
        .store()
        .commit(1, vec![Change::PutCrl { record, der }]);
    tokio::pin!(large);
    assert!(futures_poll_once(large.as_mut()).await.is_none());
    // The file is being written now; this one is answered before it is done.
    let small = bench
        .store()
        .commit(0, vec![Change::PutRegisterCode(code(1, false))]);
    tokio::select! {
        biased;
        small = small => assert_eq!(small.unwrap(), 1),
        _ = &mut large => panic!("the large one was first"),
    }
    assert_eq!(large.await.unwrap(), 2);
}

#[tokio::test]
async fn list_that_was_prepared_is_not_written_again_and_goes_if_nothing_names_it() {
    let bench = Bench::new();
    let (named, unnamed) = (crl(1, 1), crl(2, 1));
    for change in [&named, &unnamed] {
        let Change::PutCrl { record, der } = change.clone() else {
            panic!()
        };
        bench.store().prepare_crl(record.digest, der).await.unwrap();
    }
    assert_eq!(bench.files(), [name(&named), name(&unnamed)].into());
    let inode = |change: &Change| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(bench.crls().join(name(change))).unwrap().ino()
    };
    let before = inode(&named);
    bench.store().commit(0, vec![named.clone()]).await.unwrap();
    bench.settled().await;
    assert_eq!(inode(&named), before);
    assert_eq!(bench.files(), [name(&named)].into());
    // What went meanwhile is written with the commit.
    bench
        .store()
        .commit(1, vec![unnamed.clone()])
        .await
        .unwrap();
    assert!(bench.store().crl(digest_of(&unnamed)).await.is_ok());
}
