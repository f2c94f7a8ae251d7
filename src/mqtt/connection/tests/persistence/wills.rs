//! What falls due while the broker is down, or because it ends.

use super::*;

#[tokio::test]
async fn will_waits_for_its_delay_across_a_restart_and_goes_out_once() {
    let place = Place::new();
    let (world, _) = place.start().await;
    let (mut watcher, _) = world.connect5(&device("w"), lasting("w")).await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    for (id, delay) in [("soon", 10), ("later", 500), ("back", 500)] {
        let connect = v5::Connect {
            last_will: will(delay),
            ..lasting(id)
        };
        world.connect5(&device(id), connect).await;
    }
    let (world, _) = place.restart(world).await;
    // Who comes back in time has it forgotten.
    world.connect5(&device("back"), lasting("back")).await;
    assert!(
        world
            .broker
            .hub()
            .registry
            .get("later")
            .unwrap()
            .session()
            .deadline()
            .is_some()
    );
    place.stop(world).await;
    place.pass(20_000);
    let (world, _) = place.start().await;
    let (mut watcher, connack) = world.connect5(&device("w"), lasting("w")).await;
    assert!(connack.session_present);
    let message = watcher.message().await;
    let properties = message.properties.unwrap();
    assert_eq!(&message.payload[..], b"gone");
    assert_eq!(properties.content_type.unwrap(), "text/plain");
    assert_eq!(properties.user_properties, [("k".into(), "v".into())]);
    watcher.settle().await;
    place.stop(world).await;
    place.pass(500_000);
    let (world, _) = place.start().await;
    let (mut watcher, _) = world.connect5(&device("w"), lasting("w")).await;
    watcher.message().await;
    watcher.settle().await;
}

#[tokio::test]
async fn will_without_delay_goes_out_when_the_broker_ends() {
    let place = Place::new();
    let (world, _) = place.start().await;
    let (mut watcher, _) = world.connect5(&device("w"), lasting("w")).await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    drop(watcher);
    world.until_away("w").await;
    let connect = v5::Connect {
        last_will: will(0),
        ..connect5("x")
    };
    let _connected = world.connect5(&device("x"), connect).await;
    let (world, restored) = place.restart(world).await;
    assert_eq!((restored.sessions, restored.messages), (1, 1));
    let (mut watcher, _) = world.connect5(&device("w"), lasting("w")).await;
    assert_eq!(payloads(&mut watcher, 1).await, ["gone"]);
}

#[tokio::test]
async fn what_expires_while_the_broker_is_down_is_gone_and_a_will_is_not() {
    let place = Place::new();
    let (world, _) = place.start().await;
    let short = v5::Connect {
        session_expiry_interval_secs: 100,
        last_will: will(1_000),
        ..lasting("short")
    };
    world.connect5(&device("short"), short.clone()).await;
    let (mut long, _) = world.connect5(&device("long"), lasting("long")).await;
    long.subscribe("#", QoS::AtLeastOnce).await;
    drop(long);
    world.until_away("long").await;
    let mut publisher = world.simple5("p").await;
    let expiring = |payload, seconds| {
        let mut message = retained("t", payload);
        message.properties.as_mut().unwrap().message_expiry_interval = seconds;
        message
    };
    publisher
        .publish(expiring("brief", std::num::NonZeroU32::new(50)))
        .await;
    publisher
        .publish(expiring("lasting", std::num::NonZeroU32::new(500)))
        .await;
    let other = v5_publish::Publish {
        topic: "u".into(),
        ..expiring("brief", std::num::NonZeroU32::new(50))
    };
    publisher.publish(other).await;
    place.stop(world).await;
    place.pass(200_000);

    let (world, restored) = place.start().await;
    assert_eq!((restored.sessions, restored.expired), (1, 1));
    assert_eq!(
        (restored.messages, restored.retained, restored.dropped),
        (1, 1, 3)
    );
    let (_, connack) = world.connect5(&device("short"), short).await;
    assert!(!connack.session_present);
    let (mut long, _) = world.connect5(&device("long"), lasting("long")).await;
    let message = long.message().await;
    assert_eq!(&message.payload[..], b"lasting");
    let left = message
        .properties
        .unwrap()
        .message_expiry_interval
        .unwrap()
        .get();
    assert!((290..=300).contains(&left), "{left}");
    // The session that ended had a will.
    assert_eq!(payloads(&mut long, 1).await, ["gone"]);
}
