//! Records that no gate can be made of.

use super::world::{World, parts};
use crate::ca::id::CertSerial;
use crate::ca::lifecycle::Status;
use crate::control::Control;
use crate::control::start::OpenError;
use crate::store::{DeviceRecord, StoreError};
use crate::testing::TestCa;

#[tokio::test]
async fn nothing_is_served_if_a_device_is_on_record_twice() {
    let world = World::new().await;
    let ca = TestCa::root("ca", 1);
    world.register(&ca, "ca").await;
    let device = ca.issue("d", 5);
    world.record(&device).await;
    {
        let mut kept = world.store.kept.lock().unwrap();
        let again = DeviceRecord {
            status: Status::Inactive,
            ..kept.devices[0].clone()
        };
        // With many others, so that several threads put them into the gate.
        let others = (0..1_000_u16).map(|number| DeviceRecord {
            serial: CertSerial::from_be_bytes(&[&[9], &number.to_be_bytes()[..]].concat()).unwrap(),
            ..again.clone()
        });
        let others: Vec<_> = others.collect();
        kept.devices.extend(others);
        kept.devices.push(again);
    }
    let log = world.directory.path().join("another.jsonl");
    match Control::open(parts(&world.store, log, &world.time)).await {
        Err(OpenError::Store(StoreError::Corrupt { row, what, .. })) => {
            assert!(
                row.ends_with("serial 05") && what.contains("twice"),
                "{row}: {what}"
            );
        }
        other => panic!("{:?}", other.map(drop)),
    }
}
