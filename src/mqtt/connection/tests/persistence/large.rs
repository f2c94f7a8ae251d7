//! How long many sessions take.

use super::*;
use crate::ca::id::{CaKeyId, CertSerial};
use crate::ca::registry::Purpose;
use crate::store::sessions::SessionStore;
use crate::store::sessions::record::{
    HolderRecord, MessageRecord, SessionRecord, SubscriptionRecord, WholeSession, Write,
};

/// 100,000 sessions with 1,000,000 messages: `cargo test --release -- --ignored --nocapture
/// many_sessions_are_restored_and_written`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half a gigabyte of disk and memory; for measuring"]
async fn many_sessions_are_restored_and_written() {
    let place = Place::new();
    let path = place.directory.path().join("sessions-x.db");
    let store = SqliteSessions::open(&path).unwrap();
    for key in 0..100_000 {
        store.room().await;
        store.write(Write::Session(Box::new(large(key))));
    }
    store.flush().await.unwrap();
    drop(store);
    let began = std::time::Instant::now();
    let (world, restored) = place.start().await;
    println!("restored in {:?}", began.elapsed());
    assert_eq!((restored.sessions, restored.messages), (100_000, 1_000_000));
    for cell in world.broker.hub().registry.after(None, 100_000) {
        cell.session().outdate();
    }
    let began = std::time::Instant::now();
    assert_eq!(world.broker.finish(PATIENCE * 10).await, Missed::default());
    println!("written in {:?}", began.elapsed());
}

fn large(key: u64) -> WholeSession {
    let message = |number: usize| MessageRecord {
        qos: 1,
        retain: false,
        expires_at_ms: None,
        queued_at_ms: 1_000,
        subscription_ids: Vec::new(),
        topic: "plant/7/line/3/state".into(),
        properties: Default::default(),
        payload: format!("{number:0100}").into(),
    };
    let serial = CertSerial::from_be_bytes(&(key + 1).to_be_bytes()).unwrap();
    WholeSession {
        session: SessionRecord {
            key,
            client_id: format!("device-{key}").into(),
            holder: HolderRecord {
                purpose: Purpose::Device,
                administrator: false,
                issuer: CaKeyId::from_bytes([1; 32]),
                serial: serial.clone(),
                common_name: Some(format!("device-{key}")),
                ca_sn: serial,
                address: ([127, 0, 0, 1], 1).into(),
                since_ms: 5,
            },
            expires_at_ms: None,
            next_packet_id: 1,
        },
        will: None,
        subscriptions: vec![SubscriptionRecord {
            filter: format!("plant/{key}/#"),
            options: 1,
            identifier: None,
        }],
        received: Vec::new(),
        in_flight: Vec::new(),
        queue: (0..10).map(message).collect(),
        first: 0,
    }
}
