//! How long many sessions take.

use std::time::Instant;

use super::*;

/// 100,000 sessions with 1,000,000 messages: `cargo test --release -- --ignored --nocapture
/// many_sessions_are_timed`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a gigabyte of disk; for measuring"]
async fn many_sessions_are_timed() {
    let mut bench = Bench::new();
    let began = Instant::now();
    for key in 0..100_000 {
        bench.store().room().await;
        put(bench.store(), &example(key, 10));
    }
    bench.store().flush().await.unwrap();
    println!("written in {:?}", began.elapsed());
    let began = Instant::now();
    bench.store = None;
    println!("closed in {:?}", began.elapsed());
    let size = std::fs::metadata(bench.path()).unwrap().len();
    let began = Instant::now();
    bench.store = Some(SqliteSessions::open(&bench.path()).unwrap());
    println!("opened in {:?}, {} MiB", began.elapsed(), size >> 20);
    let began = Instant::now();
    let (to, mut rows) = mpsc::channel::<Vec<Row>>(4);
    let take = async {
        let mut count = 0;
        while let Some(batch) = rows.recv().await {
            count += batch.len();
        }
        count
    };
    let (read, count) = tokio::join!(bench.store().load(to), take);
    read.unwrap();
    println!("{count} rows read in {:?}", began.elapsed());
    assert!(count > 1_000_000);
    let began = Instant::now();
    let forgets: Vec<_> = (0..100_000).map(|key| bench.store().forget(key)).collect();
    let mut slowest = std::time::Duration::ZERO;
    for forget in forgets {
        assert_eq!(forget.await, Durable::Yes);
        slowest = slowest.max(began.elapsed());
    }
    println!("all forgotten in {slowest:?}");
}
