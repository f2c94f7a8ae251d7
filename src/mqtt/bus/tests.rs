use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::*;
use crate::mqtt::topics::{Subscription, TopicLimits};

mod direct;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text, &TopicLimits::default()).unwrap()
}

fn topic(text: &str) -> TopicName {
    TopicName::parse(text, &TopicLimits::default()).unwrap()
}

fn settings(shards: usize) -> BusSettings {
    BusSettings {
        shards,
        window_bytes: 64 << 10,
        publish_timeout: Duration::from_secs(60),
        heartbeat_interval: Duration::from_millis(20),
        stuck_after: Duration::from_secs(20),
    }
}

/// The next `count` deliveries of a link.
async fn take(link: &mut ShardLink, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let more = tokio::time::timeout(Duration::from_secs(60), link.recv());
        taken.extend(more.await.expect("nothing arrives any more"));
    }
    assert_eq!(taken.len(), count, "more arrived than was published");
    taken
}

/// All messages that all shards have taken.
fn taken(bus: &Bus) -> u64 {
    let all = bus.lanes.destinations.iter();
    all.flat_map(|to| (0..bus.shards()).map(|from| to.taken_from(from)))
        .sum()
}

/// Kill the router each time when so many more messages have been taken: now in the middle of what is
/// being sent again, now much later.
fn kill_again_and_again(bus: &Bus, after: [u64; 6]) -> JoinHandle<()> {
    let bus = bus.clone();
    tokio::spawn(async move {
        for some in after.into_iter().cycle() {
            let (epoch, before) = (bus.lanes.epoch(), taken(&bus));
            while taken(&bus) < before + some {
                tokio::task::yield_now().await;
            }
            bus.kill_router_for_tests();
            while bus.lanes.epoch() == epoch {
                tokio::task::yield_now().await;
            }
        }
    })
}

#[tokio::test]
async fn overlapping_filters_get_a_frame_once_per_shard() {
    let (bus, mut links) = Bus::start(settings(2)).await.unwrap();
    let wide = bus.subscribe(1, &filter("#")).unwrap();
    let narrow = bus.subscribe(1, &filter("a/+")).unwrap();
    let other = bus.subscribe(0, &filter("a/b")).unwrap();
    let frame = Bytes::from_static(b"frame");
    let routed = bus.publish(0, &topic("a/b"), frame.clone()).await.unwrap();
    assert_eq!((routed.shards, routed.filters), (2, 3));
    let got = take(&mut links[1], 1).await.remove(0);
    assert_eq!(got.filters().collect::<Vec<_>>(), [wide, narrow]);
    assert_eq!((got.source, got.frame.clone()), (0, frame.clone()));
    let got = take(&mut links[0], 1).await.remove(0);
    assert_eq!(got.filters().collect::<Vec<_>>(), [other]);

    bus.unsubscribe(1, narrow);
    bus.publish(1, &topic("a/b"), frame).await.unwrap();
    let got = take(&mut links[1], 1).await.remove(0);
    assert_eq!(got.filters().collect::<Vec<_>>(), [wide]);
}

#[tokio::test]
async fn a_shared_group_gets_each_frame_once() {
    let (bus, mut links) = Bus::start(settings(2)).await.unwrap();
    let Ok(Subscription::Shared(group)) =
        Subscription::parse("$share/g/+", &TopicLimits::default())
    else {
        panic!("not shared")
    };
    let share = bus
        .share_join(0, &group, SessionKey(7), Presence::Online)
        .unwrap();
    bus.share_join(1, &group, SessionKey(8), Presence::Online)
        .unwrap();
    for number in 0..10_u8 {
        let frame = Bytes::copy_from_slice(&[number]);
        let routed = bus.publish(0, &topic("a"), frame).await.unwrap();
        assert_eq!(
            routed,
            Routed {
                shards: 1,
                filters: 0,
                shares: 1
            }
        );
    }
    for (link, session) in links.iter_mut().zip([SessionKey(7), SessionKey(8)]) {
        for delivery in take(link, 5).await {
            assert_eq!(delivery.shared().collect::<Vec<_>>(), [(session, share)]);
        }
    }
    bus.share_leave(share, SessionKey(8));
    bus.publish_to_share(1, share, Bytes::from_static(b"again"))
        .await
        .unwrap();
    assert_eq!(take(&mut links[0], 1).await[0].frame, "again");
}

#[tokio::test]
async fn nobody_subscribed_is_told_and_costs_nothing() {
    let (bus, _links) = Bus::start(settings(1)).await.unwrap();
    let routed = bus
        .publish(0, &topic("a"), Bytes::from_static(b"x"))
        .await
        .unwrap();
    assert_eq!(routed, Routed::default());
    assert!(bus.publish(1, &topic("a"), Bytes::new()).await.is_err());
    assert!(bus.subscribe(1, &filter("a")).is_err());
}

#[tokio::test]
async fn settings_out_of_range_are_refused() {
    for wrong in [
        BusSettings {
            shards: 0,
            ..settings(1)
        },
        BusSettings {
            shards: 257,
            ..settings(1)
        },
        BusSettings {
            window_bytes: 1,
            ..settings(1)
        },
        BusSettings {
            heartbeat_interval: Duration::ZERO,
            ..settings(1)
        },
    ] {
        assert!(matches!(
            Bus::start(wrong).await,
            Err(BusError::Setting { .. })
        ));
    }
}

#[tokio::test]
async fn a_full_window_holds_publishers_back_and_then_refuses() {
    let impatient = BusSettings {
        publish_timeout: Duration::from_millis(50),
        ..settings(2)
    };
    let (bus, mut links) = Bus::start(impatient).await.unwrap();
    bus.subscribe(1, &filter("#")).unwrap();
    bus.subscribe(0, &filter("both")).unwrap();
    let frame = Bytes::from(vec![0; 10_000]);
    let mut sent = 0;
    let error = loop {
        match bus.publish(0, &topic("a"), frame.clone()).await {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, BusError::Overloaded { shard: 1, .. }),
        "{error}"
    );
    assert!((5..=7).contains(&sent), "{sent}");
    // All or nothing: the shard with room does not get it either.
    assert!(bus.publish(0, &topic("both"), frame.clone()).await.is_err());
    take(&mut links[1], sent).await;
    bus.publish(0, &topic("both"), Bytes::from_static(b"last"))
        .await
        .unwrap();
    assert_eq!(take(&mut links[0], 1).await[0].frame, "last");
    assert_eq!(take(&mut links[1], 1).await[0].frame, "last");
}

#[tokio::test]
async fn a_frame_larger_than_the_window_goes_alone() {
    let (bus, mut links) = Bus::start(settings(1)).await.unwrap();
    bus.subscribe(0, &filter("#")).unwrap();
    let large = Bytes::from(vec![7; 1 << 20]);
    for _ in 0..3 {
        bus.publish(0, &topic("a"), large.clone()).await.unwrap();
        assert_eq!(take(&mut links[0], 1).await[0].frame, large);
    }
}

#[tokio::test]
async fn a_shard_that_is_gone_holds_nobody_back() {
    let (bus, mut links) = Bus::start(settings(2)).await.unwrap();
    bus.subscribe(0, &filter("#")).unwrap();
    bus.subscribe(1, &filter("#")).unwrap();
    drop(links.pop());
    for _ in 0..20 {
        let frame = Bytes::from(vec![0; 10_000]);
        bus.publish(1, &topic("a"), frame).await.unwrap();
        take(&mut links[0], 1).await;
    }
}

#[tokio::test]
async fn cancelled_receives_lose_nothing() {
    let (bus, mut links) = Bus::start(settings(1)).await.unwrap();
    bus.subscribe(0, &filter("#")).unwrap();
    let publisher = tokio::spawn(async move {
        for number in 0..5_000_u32 {
            let frame = Bytes::copy_from_slice(&number.to_be_bytes());
            bus.publish(0, &topic("a"), frame).await.unwrap();
        }
        bus
    });
    let mut expected = 0_u32;
    while expected < 5_000 {
        tokio::select! {
            biased;
            batch = links[0].recv() => {
                for delivery in batch {
                    assert_eq!(delivery.frame, expected.to_be_bytes()[..]);
                    expected += 1;
                }
            }
            () = tokio::task::yield_now() => {}
        }
    }
    publisher.await.unwrap();
}

#[tokio::test]
async fn a_hundred_thousand_topics_leave_nothing_behind() {
    let (bus, mut links) = Bus::start(settings(1)).await.unwrap();
    bus.subscribe(0, &filter("fleet/#")).unwrap();
    let size = bus.lanes.directory.size();
    let mut taken = 0;
    for number in 0..100_000_u32 {
        let name = topic(&format!("fleet/{number}/ü"));
        bus.publish(0, &name, Bytes::from_static(b"x"))
            .await
            .unwrap();
        if number % 200 == 199 {
            taken += take(&mut links[0], 200).await.len();
        }
    }
    assert_eq!(taken, 100_000);
    assert_eq!(bus.lanes.directory.size(), size);
    let progress = bus.lanes.tend(0);
    assert_eq!((progress[0].sent, progress[0].taken), (100_000, 100_000));
}

/// Publish numbered messages, one of which the router never gets.
async fn publish_and_lose(bus: &Bus, count: u8, lost: u8) {
    for number in 0..count {
        let outlet = (number == lost).then(|| bus.lanes.take_outlet(0));
        let frame = Bytes::copy_from_slice(&[number]);
        bus.publish(0, &topic("a"), frame).await.unwrap();
        if let Some(outlet) = outlet {
            bus.lanes.put_outlet(0, outlet);
        }
    }
}

fn numbers(deliveries: &[Delivery]) -> Vec<u8> {
    deliveries.iter().map(|got| got.frame[0]).collect()
}

#[tokio::test]
async fn a_router_that_skips_a_message_is_replaced_and_the_rest_arrives_in_order() {
    let (bus, mut links) = Bus::start(settings(2)).await.unwrap();
    bus.subscribe(1, &filter("#")).unwrap();
    publish_and_lose(&bus, 10, 4).await;
    let got = take(&mut links[1], 10).await;
    assert_eq!(numbers(&got), (0..10).collect::<Vec<_>>());
    assert_eq!(bus.routers(), 2);
}

#[tokio::test]
async fn a_router_that_keeps_the_last_message_back_is_replaced() {
    let impatient = BusSettings {
        stuck_after: Duration::from_millis(200),
        ..settings(2)
    };
    let (bus, mut links) = Bus::start(impatient).await.unwrap();
    bus.subscribe(1, &filter("#")).unwrap();
    publish_and_lose(&bus, 3, 2).await;
    let got = take(&mut links[1], 3).await;
    assert_eq!(numbers(&got), [0, 1, 2]);
    assert!(bus.routers() >= 2);
}

#[tokio::test]
async fn a_shard_that_takes_its_time_loses_nothing_to_the_rotation_of_the_log() {
    let (bus, mut links) = Bus::start(settings(3)).await.unwrap();
    bus.subscribe(0, &filter("#")).unwrap();
    for size in [1, 50, 400, 5_000] {
        let publishers: Vec<_> = (0..3)
            .map(|shard| {
                let bus = bus.clone();
                tokio::spawn(async move {
                    for _ in 0..2_000 {
                        let frame = Bytes::from(vec![0; size]);
                        bus.publish(shard, &topic("a"), frame).await.unwrap();
                    }
                })
            })
            .collect();
        let mut taken = 0;
        while taken < 6_000 {
            // The window fills up before each batch is taken.
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            taken += links[0].recv().await.len();
        }
        assert_eq!(taken, 6_000);
        for publisher in publishers {
            publisher.await.unwrap();
        }
    }
    assert_eq!(bus.routers(), 1);
}

/// Several publishers on each of several shards, receivers on all, and the router killed for
/// real again and again: everything arrives, once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_killed_again_and_again_loses_and_doubles_nothing() {
    const SHARDS: usize = 3;
    const PUBLISHERS: u32 = 2;
    const MESSAGES: u32 = 4_000;
    let (bus, links) = Bus::start(settings(SHARDS)).await.unwrap();
    for shard in 0..SHARDS {
        bus.subscribe(shard, &filter("all/#")).unwrap();
        bus.subscribe(shard, &filter("all/+")).unwrap();
        bus.subscribe(shard, &filter(&format!("only/{shard}")))
            .unwrap();
    }
    let mut publishers = Vec::new();
    for shard in 0..SHARDS {
        for publisher in 0..PUBLISHERS {
            let bus = bus.clone();
            publishers.push(tokio::spawn(async move {
                for number in 0..MESSAGES {
                    let name = match number % 4 {
                        0 => topic(&format!("all/{number}")),
                        other => topic(&format!("only/{}", other as usize % SHARDS)),
                    };
                    let mut frame = vec![0; 8 + (number as usize % 50) * 20];
                    frame[..4].copy_from_slice(&publisher.to_be_bytes());
                    frame[4..8].copy_from_slice(&number.to_be_bytes());
                    bus.publish(shard, &name, frame.into()).await.unwrap();
                }
            }));
        }
    }
    let receivers: Vec<_> = links
        .into_iter()
        .map(|mut link| {
            tokio::spawn(async move {
                let wanted = |number: &u32| {
                    number.is_multiple_of(4) || (*number % 4) as usize % SHARDS == link.shard()
                };
                let numbers: Vec<u32> = (0..MESSAGES).filter(wanted).collect();
                let total = numbers.len() * SHARDS * PUBLISHERS as usize;
                let mut got: HashMap<(usize, u32), Vec<u32>> = HashMap::new();
                for delivery in take(&mut link, total).await {
                    let publisher = u32::from_be_bytes(delivery.frame[..4].try_into().unwrap());
                    let number = u32::from_be_bytes(delivery.frame[4..8].try_into().unwrap());
                    let filters = if number.is_multiple_of(4) { 2 } else { 1 };
                    assert_eq!(delivery.filters().count(), filters);
                    got.entry((delivery.source, publisher))
                        .or_default()
                        .push(number);
                }
                assert_eq!(got.len(), SHARDS * PUBLISHERS as usize);
                for (publisher, order) in got {
                    assert!(order == numbers, "from {publisher:?}");
                }
                link
            })
        })
        .collect();
    let killer = kill_again_and_again(&bus, [1, 700, 1, 13, 900, 150]);
    for publisher in publishers {
        publisher.await.unwrap();
    }
    killer.abort();
    let mut links = Vec::new();
    for receiver in receivers {
        links.push(receiver.await.unwrap());
    }
    assert!(
        bus.lanes.epoch() > 10,
        "killed {} times",
        bus.lanes.epoch() - 1
    );
    // Nothing comes twice afterwards either.
    for (shard, mut link) in links.into_iter().enumerate() {
        let name = topic(&format!("only/{shard}"));
        bus.publish(0, &name, Bytes::from_static(b"end"))
            .await
            .unwrap();
        assert_eq!(take(&mut link, 1).await[0].frame, "end");
    }
}
