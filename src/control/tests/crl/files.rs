//! Lists that come from files, which are tried again.

use super::*;

impl World {
    /// As the watcher of the files does it.
    async fn import_file(
        &self,
        ca: Option<&str>,
        content: &[u8],
        told: Option<String>,
    ) -> Imported {
        let system = Caller {
            door: Door::System,
            ..caller()
        };
        let new = NewCrl {
            content: Bytes::copy_from_slice(content),
            ca: ca.map(str::to_owned),
            file: Some("/etc/crls/plant.crl".into()),
            told,
            ..NewCrl::default()
        };
        self.control.import_crl(&system, INSTANCE, new).await
    }
}

#[tokio::test]
async fn file_that_is_refused_again_for_the_same_reason_leaves_no_other_record() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let der = TestCrl::revoking(1, &[5]).der(&ca);
    let error = world.import_file(None, &der, None).await.unwrap_err();
    let first = world.audit_lines();
    let last = first.last().unwrap();
    assert_eq!(last["phase"], "refused");
    let detail = last["detail"].as_str().unwrap();
    assert!(detail.contains("no registered CA"), "{detail}");
    assert!(detail.ends_with("from /etc/crls/plant.crl"), "{detail}");
    let told = Some(error.to_string());
    let again = world.import_file(None, &der, told.clone()).await;
    assert!(again.is_err());
    assert_eq!(world.audit_lines().len(), first.len());
    // Another fault is told.
    let other = world.import_file(Some("plant 7"), &der, told.clone()).await;
    assert!(
        matches!(other, Err(ControlError::CaNotFound(_))),
        "{other:?}"
    );
    assert_eq!(world.audit_lines().len(), first.len() + 1);
    world.register(&ca, "plant 7").await;
    let taken = world.import_file(Some("plant 7"), &der, told).await;
    assert!(taken.unwrap().changed);
}

#[tokio::test]
async fn set_of_the_cas_has_a_number_that_goes_up() {
    let (world, ca) = (World::new().await, TestCa::root("ca", 1));
    let changes = || world.control.ca_changes(&INSTANCE.parse().unwrap());
    let before = changes();
    let sn = world.register(&ca, "ca").await;
    let registered = changes();
    assert!(registered > before);
    let (control, host) = (&world.control, host());
    let off = control.set_ca_status(&host, INSTANCE, &sn, crate::ca::lifecycle::Status::Inactive);
    off.await.unwrap();
    assert_eq!(changes(), registered, "its state is another matter");
    control.delete_ca(&host, INSTANCE, &sn).await.unwrap();
    assert!(changes() > registered);
}
