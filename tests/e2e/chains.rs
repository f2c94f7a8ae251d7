//! Which path counts: intermediates, re-issued and renewed CAs, shared names and serials.

use rcgen::SerialNumber;
use rmqtt_codec::v5::DisconnectReasonCode;
use rustls::AlertDescription::{AccessDenied, UnknownCA};

use crate::harness::api::Api;
use crate::harness::pki::{Ca, ca_params, device_params, new_key, sn};
use crate::harness::tls::{BOTH, Version};
use crate::harness::{Broker, wait_until};

#[test]
fn device_under_intermediate_is_refused_when_only_the_intermediate_is_inactive() {
    refused_without("ca-b-issuing");
}

#[test]
fn device_under_intermediate_is_refused_when_only_the_root_is_inactive() {
    refused_without("ca-b");
}

fn refused_without(ca: &str) {
    let broker = Broker::start();
    let api = broker.api();
    let sn = api.sn_of(ca);
    let b1 = broker.identity("device-b1");
    assert_eq!(b1.chain.len(), 2, "leaf and intermediate");
    for version in BOTH {
        let live = broker.client(&b1, version).connect().unwrap();
        api.inactivate(&sn);
        assert_eq!(
            live.wait_disconnect(),
            DisconnectReasonCode::AdministrativeAction
        );
        broker.client(&b1, version).refused_with(AccessDenied);
        api.activate(&sn);
        assert!(broker.client(&b1, version).admitted());
    }
}

#[test]
fn listing_says_why_an_active_ca_admits_nobody() {
    let broker = Broker::start();
    let api = broker.api();
    let shown = |name: &str| {
        let all = api.list();
        let found = all.into_iter().find(|ca| ca["CaName"] == name);
        found.unwrap()
    };
    assert_eq!(shown("ca-b-issuing")["EffectiveStatus"], "1");
    let root = api.sn_of("ca-b");
    api.inactivate(&root);
    let issuing = shown("ca-b-issuing");
    assert_eq!(issuing["Status"], "1", "its own state");
    assert_eq!(issuing["EffectiveStatus"], "0");
    let reason = issuing["EffectiveReason"].as_str().unwrap();
    assert!(reason.contains(&root), "{reason}");
    assert_eq!(shown("ca-a")["EffectiveStatus"], "1");
}

#[test]
fn device_that_sends_only_its_leaf_is_refused_when_the_root_is_inactive() {
    let broker = Broker::start();
    let api = broker.api();
    let mut b1 = broker.identity("device-b1");
    b1.chain.truncate(1);
    assert!(broker.admits(&b1), "the issuing CA is registered itself");
    api.inactivate(&api.sn_of("ca-b"));
    for version in BOTH {
        broker.client(&b1, version).refused_with(AccessDenied);
    }
}

#[test]
fn device_under_unregistered_intermediate_follows_the_root() {
    let broker = Broker::start();
    let api = broker.api();
    let root = Ca::load(&broker, "ca-a");
    let middle = root.issue_ca(ca_params("an issuing CA nobody registered"), &new_key());
    let device = middle.issue_device(device_params("device"), &[&middle]);
    assert!(broker.admits(&device));
    api.inactivate(&root.sn());
    for version in BOTH {
        broker.client(&device, version).refused_with(AccessDenied);
    }
}

/// Rule 3: another certificate of an inactive intermediate does not walk around it.
#[test]
fn reissued_intermediate_of_an_inactive_one_is_refused() {
    let broker = Broker::start();
    let api = broker.api();
    let root = Ca::load(&broker, "ca-b");
    let issuing = Ca::load(&broker, "ca-b-issuing");
    let reissued = root.issue_ca(same_subject(&issuing), &issuing.key_pem);
    assert_ne!(reissued.sn(), issuing.sn());
    let device = issuing.issue_device(device_params("device"), &[&reissued]);
    assert!(broker.admits(&device), "while both are active");

    api.inactivate(&issuing.sn());
    for version in BOTH {
        broker.client(&device, version).refused_with(AccessDenied);
    }
}

/// Rule 3 again, with the copy signed by a CA that is active.
#[test]
fn cross_signed_copy_of_an_inactive_intermediate_is_refused() {
    let broker = Broker::start();
    let api = broker.api();
    let other_root = Ca::load(&broker, "ca-a");
    let issuing = Ca::load(&broker, "ca-b-issuing");
    let crossed = other_root.issue_ca(same_subject(&issuing), &issuing.key_pem);
    let device = issuing.issue_device(device_params("device"), &[&crossed]);
    assert!(broker.admits(&device));

    api.inactivate(&issuing.sn());
    for version in BOTH {
        broker.client(&device, version).refused_with(AccessDenied);
    }
}

/// And with a root that is off, cross-signed by one that is on.
#[test]
fn cross_signed_copy_of_an_inactive_root_is_refused() {
    let broker = Broker::start();
    let api = broker.api();
    let (a, b) = (Ca::load(&broker, "ca-a"), Ca::load(&broker, "ca-b"));
    let issuing = Ca::load(&broker, "ca-b-issuing");
    let crossed = a.issue_ca(same_subject(&b), &b.key_pem);
    let device = issuing.issue_device(device_params("device"), &[&issuing, &crossed]);
    assert!(broker.admits(&device));
    api.inactivate(&b.sn());
    for version in BOTH {
        broker.client(&device, version).refused_with(AccessDenied);
    }
}

#[test]
fn decoy_certificate_in_the_chain_changes_nothing() {
    let broker = Broker::start();
    let api = broker.api();
    let (a, b) = (Ca::load(&broker, "ca-a"), Ca::load(&broker, "ca-b"));
    let device = a.issue_device(device_params("device"), &[&b]);
    api.inactivate(&a.sn());
    for version in BOTH {
        broker.client(&device, version).refused_with(AccessDenied);
    }
    api.activate(&a.sn());
    api.inactivate(&b.sn());
    assert!(broker.admits(&device), "the decoy is not on the path");
}

/// A CA of which two certificates are registered, and their serial numbers.
fn registered_twice(api: &Api) -> (Ca, [String; 2]) {
    let old = Ca::root("a renewed CA");
    let renewed = Ca::self_signed(ca_params("a renewed CA"), &old.key_pem);
    let sns = [api.register("old", &old), api.register("renewed", &renewed)];
    (old, sns)
}

#[test]
fn renewed_ca_is_off_while_one_of_its_certificates_is() {
    let broker = Broker::start();
    let api = broker.api();
    let (old, sns) = registered_twice(&api);
    let device = old.device("device");
    assert!(broker.admits(&device));
    for sn in &sns {
        api.inactivate(sn);
        let client = broker.client(&device, Version::V13);
        client.refused_with(AccessDenied);
        api.activate(sn);
        assert!(broker.admits(&device));
    }
}

#[test]
fn device_that_is_off_stays_so_when_the_certificate_that_it_is_listed_under_is_deleted() {
    let broker = Broker::start();
    let api = broker.api();
    let (old, sns) = registered_twice(&api);
    let device = old.device("device");
    assert!(broker.admits(&device));
    let serial = sn(&device.chain[0]);
    let under = |api: &Api| {
        sns.clone().into_iter().find_map(|ca_sn| {
            let which = [("CaSn", ca_sn.as_str()), ("DeviceSn", serial.as_str())];
            let answer = api.call("GetDeviceCertificate", &which);
            (answer.status == 200).then(|| answer.json()["Data"].take())
        })
    };
    let recorded = wait_until("the device is recorded", || under(&api));
    let ca_sn = recorded["CaSn"].as_str().unwrap();
    let which = [("CaSn", ca_sn), ("DeviceSn", serial.as_str())];
    api.call("InactivateDeviceCertificate", &which).ok();
    api.call("DeleteCaCertificate", &[("Sn", ca_sn)]).ok();
    let refused = |broker: &Broker| {
        let client = broker.client(&device, Version::V13);
        client.refused_with(AccessDenied);
    };
    refused(&broker);
    let broker = Broker::restart(broker.kill9());
    refused(&broker);
    let shown = under(&broker.api()).unwrap();
    assert_ne!(shown["CaSn"], ca_sn);
    assert_eq!(shown["DeviceContent"], recorded["DeviceContent"]);
    assert_eq!(shown["Status"], "0");
}

#[test]
fn two_cas_with_one_subject_are_two_cas() {
    let broker = Broker::start();
    let api = broker.api();
    let (one, two) = (Ca::root("the same name"), Ca::root("the same name"));
    api.register("one", &one);
    api.register("two", &two);
    let (first, second) = (one.device("first"), two.device("second"));
    for version in BOTH {
        assert!(broker.client(&first, version).admitted());
        assert!(broker.client(&second, version).admitted());
        for (off, refused, accepted) in [(&one, &first, &second), (&two, &second, &first)] {
            api.inactivate(&off.sn());
            broker.client(refused, version).refused_with(AccessDenied);
            assert!(broker.client(accepted, version).admitted());
            api.activate(&off.sn());
        }
    }
}

#[test]
fn unregistered_ca_with_the_subject_of_a_registered_one_is_unknown() {
    let broker = Broker::start();
    let registered = Ca::load(&broker, "ca-a");
    let forged = Ca::self_signed(same_subject(&registered), &new_key());
    let device = forged.issue_device(device_params("device"), &[&registered]);
    for version in BOTH {
        let end = broker.client(&device, version).refusal();
        // The name leads to ca-a, the signature does not hold.
        let allowed = [UnknownCA, rustls::AlertDescription::DecryptError];
        assert!(
            matches!(end, crate::harness::End::Alert(alert) if allowed.contains(&alert)),
            "{end}"
        );
    }
}

#[test]
fn second_ca_with_the_same_serial_number_is_not_registered() {
    let broker = Broker::start();
    let api = broker.api();
    let serial = SerialNumber::from(0x00f2_6900_ba87_u64);
    let with_serial = |name: &str| {
        let mut params = ca_params(name);
        params.serial_number = Some(serial.clone());
        Ca::self_signed(params, &new_key())
    };
    let (one, two) = (with_serial("one"), with_serial("two"));
    assert_eq!(api.register("one", &one), "00f26900ba87");
    let answer = api.try_register("two", &two);
    assert_eq!(answer.code(), "SnNotUnique", "{answer:?}");
    assert!(broker.admits(&one.device("device")));
    let client = broker.client(&two.device("device"), Version::V13);
    client.refused_with(UnknownCA);
}

/// A CA certificate's parameters with the subject of that one.
pub fn same_subject(ca: &Ca) -> rcgen::CertificateParams {
    let (_, parsed) = x509_parser::parse_x509_certificate(&ca.der).unwrap();
    let name = parsed.subject().iter_common_name().next().unwrap();
    let mut params = ca_params(name.as_str().unwrap());
    let attributes = parsed.subject().iter_attributes().count();
    assert!(attributes <= 2, "common name, perhaps an organization");
    if let Some(organization) = parsed.subject().iter_organization().next() {
        params.distinguished_name = rcgen::DistinguishedName::new();
        for attribute in parsed.subject().iter_attributes() {
            let text = attribute.as_str().unwrap();
            let organization = text == organization.as_str().unwrap();
            let kind = if organization {
                rcgen::DnType::OrganizationName
            } else {
                rcgen::DnType::CommonName
            };
            params.distinguished_name.push(kind, text);
        }
    }
    params
}
