//! What publishers give to shards themselves, and what goes through the router beside it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use super::*;

/// What the sessions of one shard have got: sources and frames, in order.
#[derive(Clone, Default)]
struct Got(Arc<Mutex<Vec<(usize, Bytes)>>>);

impl Got {
    fn push(&self, source: usize, frame: Bytes) {
        self.0.lock().unwrap().push((source, frame));
    }

    fn frames(&self) -> Vec<Bytes> {
        let got = self.0.lock().unwrap();
        got.iter().map(|(_, frame)| frame.clone()).collect()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    async fn until(&self, count: usize) {
        let all = async {
            while self.len() < count {
                tokio::task::yield_now().await;
            }
        };
        let arrived = tokio::time::timeout(Duration::from_secs(60), all).await;
        assert!(arrived.is_ok(), "{} of {count} arrived", self.len());
    }
}

/// Give what the link gets to the sessions of its shard, for ever; now and then not at once.
fn drain(mut link: ShardLink, got: Got) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut some = 0_u32;
        loop {
            for delivery in link.recv().await {
                some = some.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                for _ in 0..some >> 30 {
                    tokio::task::yield_now().await;
                }
                got.push(delivery.source, delivery.frame);
            }
        }
    })
}

/// Wait until the links of these shards wait.
async fn until_waiting(bus: &Bus, shards: &[usize]) {
    let waits = |shard: &usize| {
        bus.lanes.destinations[*shard]
            .waiting
            .load(Ordering::Acquire)
    };
    while !shards.iter().all(waits) {
        tokio::task::yield_now().await;
    }
}

/// Publish; whether it was done, and how many shards got it the direct way.
fn now(bus: &Bus, from: usize, name: &str, frame: &Bytes, got: &[Got]) -> (bool, usize) {
    let mut given = 0;
    let attempt = bus.publish_now(from, &topic(name), frame, |to, _, _| {
        given += 1;
        got[to].push(from, frame.clone());
    });
    (matches!(attempt.unwrap(), Attempt::Done(_)), given)
}

fn frame(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn a_shard_that_waits_is_given_frames_without_the_router() {
    let (bus, links) = Bus::start(settings(2)).await.unwrap();
    let got = [Got::default(), Got::default()];
    let id = bus.subscribe(1, &filter("#")).unwrap();
    let links: Vec<_> = links.into_iter().zip(&got).collect();
    let drains: Vec<_> = links
        .into_iter()
        .map(|(l, g)| drain(l, g.clone()))
        .collect();
    until_waiting(&bus, &[0, 1]).await;
    let mut named = Vec::new();
    let attempt = bus.publish_now(0, &topic("a"), &frame("1"), |to, filters, members| {
        named.push((to, filters.to_vec(), members.len()));
    });
    let Attempt::Done(routed) = attempt.unwrap() else {
        panic!("it is not behind");
    };
    assert_eq!((routed.shards, routed.filters), (1, 1));
    assert_eq!(named, [(1, vec![id], 0)]);
    assert_eq!(taken(&bus), 0, "the router had nothing to do");
    assert!(bus.is_idle());
    // Nobody is subscribed; there is no such shard.
    bus.unsubscribe(1, id);
    assert_eq!(now(&bus, 0, "a", &frame("2"), &got), (true, 0));
    assert!(
        bus.publish_now(2, &topic("a"), &frame("3"), |_, _, _| ())
            .is_err()
    );
    drains.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_link_that_nobody_asks_for_more_gets_everything_through_the_router() {
    let (bus, mut links) = Bus::start(settings(1)).await.unwrap();
    let got = [Got::default()];
    bus.subscribe(0, &filter("#")).unwrap();
    assert_eq!(now(&bus, 0, "a", &frame("1"), &got), (true, 0));
    let taken = take(&mut links[0], 1).await;
    // It has been taken, but whoever took it may not have done with it.
    assert_eq!(now(&bus, 0, "a", &frame("2"), &got), (true, 0));
    drop(taken);
    assert_eq!(take(&mut links[0], 1).await[0].frame, "2");
    // Nobody gets anything when the link is gone.
    drop(links);
    assert_eq!(now(&bus, 0, "a", &frame("3"), &got), (true, 0));
}

#[tokio::test]
async fn what_follows_a_frame_that_is_on_its_way_goes_behind_it() {
    let (bus, mut links) = Bus::start(settings(2)).await.unwrap();
    let got = [Got::default(), Got::default()];
    bus.subscribe(1, &filter("#")).unwrap();
    let one = drain(links.pop().unwrap(), got[1].clone());
    until_waiting(&bus, &[1]).await;
    let outlet = bus.lanes.take_outlet(0);
    bus.publish(0, &topic("a"), frame("1")).await.unwrap();
    // The link waits, and yet: the lane is not clear. The lane of the other source is.
    assert_eq!(now(&bus, 0, "a", &frame("2"), &got), (true, 0));
    assert_eq!(now(&bus, 1, "a", &frame("other"), &got), (true, 1));
    bus.lanes.put_outlet(0, outlet);
    // Another one makes the router's link notice that two are missing.
    assert_eq!(now(&bus, 0, "a", &frame("3"), &got), (true, 0));
    got[1].until(4).await;
    assert_eq!(got[1].frames(), ["other", "1", "2", "3"]);
    until_waiting(&bus, &[1]).await;
    assert_eq!(now(&bus, 0, "a", &frame("4"), &got), (true, 1));
    one.abort();
}

#[tokio::test]
async fn a_crowd_and_many_filters_are_not_served_by_the_publisher() {
    let (bus, mut links) = Bus::start(settings(1)).await.unwrap();
    let got = [Got::default()];
    let id = bus.subscribe(0, &filter("a/#")).unwrap();
    let one = drain(links.remove(0), got[0].clone());
    for (crowd, direct) in [(Crowd::Large, 0), (Crowd::Small, 1)] {
        bus.note_crowd(0, id, crowd);
        until_waiting(&bus, &[0]).await;
        assert_eq!(now(&bus, 0, "a/b", &frame("x"), &got), (true, direct));
        got[0].until(1 + direct).await;
    }
    for other in ["#", "+/#", "+/b", "+/+", "a/b", "a/+", "a/b/#"] {
        bus.subscribe(0, &filter(other)).unwrap();
    }
    until_waiting(&bus, &[0]).await;
    assert_eq!(now(&bus, 0, "a/b", &frame("x"), &got), (true, 1));
    bus.subscribe(0, &filter("+/b/#")).unwrap();
    until_waiting(&bus, &[0]).await;
    assert_eq!(now(&bus, 0, "a/b", &frame("x"), &got), (true, 0));
    got[0].until(4).await;
    one.abort();
}

#[tokio::test]
async fn if_one_shard_has_no_room_none_gets_the_frame() {
    let (bus, mut links) = Bus::start(settings(2)).await.unwrap();
    let got = [Got::default(), Got::default()];
    bus.subscribe(0, &filter("#")).unwrap();
    bus.subscribe(1, &filter("#")).unwrap();
    bus.subscribe(1, &filter("fill")).unwrap();
    let mut behind = links.pop().unwrap();
    let one = drain(links.pop().unwrap(), got[0].clone());
    let large = Bytes::from(vec![0; 10_000]);
    let mut sent = 0;
    loop {
        until_waiting(&bus, &[0]).await;
        let before = got[0].len();
        let (done, given) = now(&bus, 0, "a", &large, &got);
        assert_eq!(given, usize::from(done));
        assert_eq!(got[0].len() - before, given);
        match done {
            true => sent += 1,
            false => break,
        }
    }
    assert!((5..=7).contains(&sent), "{sent}");
    // Room again: it goes both ways at once.
    take(&mut behind, sent).await;
    assert_eq!(now(&bus, 0, "a", &large, &got), (true, 1));
    take(&mut behind, 1).await;
    one.abort();
}

#[tokio::test]
async fn a_message_that_did_not_fit_is_sent_when_there_is_room() {
    let (bus, mut links) = Bus::start(settings(1)).await.unwrap();
    bus.subscribe(0, &filter("#")).unwrap();
    let large = Bytes::from(vec![0; 10_000]);
    let mut sent = 0;
    let unsent = loop {
        let attempt = bus.publish_now(0, &topic("a"), &large, |_, _, _| ());
        match attempt.unwrap() {
            Attempt::Done(_) => sent += 1,
            Attempt::NotNow(unsent) => break unsent,
        }
    };
    let last = bus.publish_waiting(0, unsent, frame("last"));
    let (routed, got) = tokio::join!(last, take(&mut links[0], sent + 1));
    assert_eq!(routed.unwrap().filters, 1);
    assert_eq!(got[sent].frame, "last");
}

/// The bus is not idle while a publisher gives; and one that panics leaves everything usable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giving_is_waited_for_and_may_fail() {
    let (bus, mut links) = Bus::start(settings(1)).await.unwrap();
    let got = [Got::default()];
    bus.subscribe(0, &filter("#")).unwrap();
    let one = drain(links.remove(0), got[0].clone());
    until_waiting(&bus, &[0]).await;
    let (given, begun) = (AtomicBool::new(false), Barrier::new(2));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            begun.wait();
            bus.is_idle() && given.load(Ordering::SeqCst)
        });
        let attempt = bus.publish_now(0, &topic("a"), &frame("1"), |_, _, _| {
            begun.wait();
            std::thread::yield_now();
            given.store(true, Ordering::SeqCst);
        });
        assert!(matches!(attempt, Ok(Attempt::Done(_))));
        assert!(asking.join().unwrap());
    });
    let failing = {
        let bus = bus.clone();
        std::thread::spawn(move || {
            let _ = bus.publish_now(0, &topic("a"), &frame("2"), |_, _, _| panic!("as a defect"));
        })
    };
    assert!(failing.join().is_err());
    assert!(bus.is_idle());
    assert_eq!(now(&bus, 0, "a", &frame("3"), &got), (true, 1));
    bus.publish(0, &topic("a"), frame("4")).await.unwrap();
    got[0].until(2).await;
    one.abort();
}

/// Several publishers on each of several shards, some of whose messages must go through the router,
/// receivers that take their time, and the router killed again and again: everything arrives, once,
/// in the order of each publisher, whichever way each message went.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_order_of_each_publisher_holds_across_both_ways() {
    const SHARDS: usize = 3;
    const PUBLISHERS: u32 = 2;
    const MESSAGES: u32 = 6_000;
    let (bus, links) = Bus::start(settings(SHARDS)).await.unwrap();
    let got: Vec<Got> = (0..SHARDS).map(|_| Got::default()).collect();
    for shard in 0..SHARDS {
        bus.subscribe(shard, &filter("all/#")).unwrap();
        bus.subscribe(shard, &filter(&format!("only/{shard}")))
            .unwrap();
    }
    let links = links.into_iter().zip(&got);
    let drains: Vec<_> = links.map(|(l, g)| drain(l, g.clone())).collect();
    let direct = Arc::new(AtomicUsize::new(0));
    let mut publishers = Vec::new();
    for from in 0..SHARDS {
        for publisher in 0..PUBLISHERS {
            let (bus, got, direct) = (bus.clone(), got.clone(), direct.clone());
            publishers.push(tokio::spawn(async move {
                for number in 0..MESSAGES {
                    let name = match number % 4 {
                        0 => topic("all/x"),
                        other => topic(&format!("only/{}", other as usize % SHARDS)),
                    };
                    let mut frame = vec![0; 8 + (number as usize % 50) * 20];
                    frame[..4].copy_from_slice(&publisher.to_be_bytes());
                    frame[4..8].copy_from_slice(&number.to_be_bytes());
                    let frame = Bytes::from(frame);
                    // Some at once behind each other, then a while of the direct way.
                    if number % 37 < 3 {
                        bus.publish(from, &name, frame).await.unwrap();
                        continue;
                    }
                    let attempt = bus.publish_now(from, &name, &frame, |to, _, _| {
                        direct.fetch_add(1, Ordering::Relaxed);
                        got[to].push(from, frame.clone());
                    });
                    if let Attempt::NotNow(unsent) = attempt.unwrap() {
                        bus.publish_waiting(from, unsent, frame).await.unwrap();
                    }
                    if number.is_multiple_of(5) {
                        tokio::task::yield_now().await;
                    }
                }
            }));
        }
    }
    let killer = kill_again_and_again(&bus, [1, 30, 1, 13, 90, 15]);
    for publisher in publishers {
        publisher.await.unwrap();
    }
    killer.abort();
    let mut all = 0;
    for (shard, got) in got.iter().enumerate() {
        let wanted =
            |number: &u32| number.is_multiple_of(4) || (*number % 4) as usize % SHARDS == shard;
        let numbers: Vec<u32> = (0..MESSAGES).filter(wanted).collect();
        let total = numbers.len() * SHARDS * PUBLISHERS as usize;
        got.until(total).await;
        let mut orders: HashMap<(usize, u32), Vec<u32>> = HashMap::new();
        for (source, frame) in got.0.lock().unwrap().iter() {
            let publisher = u32::from_be_bytes(frame[..4].try_into().unwrap());
            let number = u32::from_be_bytes(frame[4..8].try_into().unwrap());
            orders.entry((*source, publisher)).or_default().push(number);
        }
        assert_eq!(orders.len(), SHARDS * PUBLISHERS as usize);
        for (publisher, order) in orders {
            assert!(order == numbers, "from {publisher:?} to {shard}");
        }
        assert_eq!(got.len(), total, "more arrived than was published");
        all += total;
    }
    let direct = direct.load(Ordering::Relaxed);
    assert!(direct > 100, "{direct} of {all} went the direct way");
    assert!(taken(&bus) > 100, "{} through the router", taken(&bus));
    assert_eq!(direct as u64 + taken(&bus), all as u64);
    assert!(
        bus.lanes.epoch() > 3,
        "killed {} times",
        bus.lanes.epoch() - 1
    );
    drains.iter().for_each(JoinHandle::abort);
}
