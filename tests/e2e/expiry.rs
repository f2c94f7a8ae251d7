//! Dates: the device's, and the anchor's own.

use rcgen::CertificateParams;
use rustls::AlertDescription::CertificateExpired;
use time::{Duration, OffsetDateTime};

use crate::harness::pki::{Ca, ca_params, device_params, new_key};
use crate::harness::tls::BOTH;
use crate::harness::{Broker, End, wait_until};

#[test]
fn expired_device_is_refused() {
    let broker = Broker::start();
    let ca = Ca::load(&broker, "ca-a");
    let mut params = device_params("expired");
    params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
    params.not_after = OffsetDateTime::now_utc() - Duration::minutes(5);
    let device = ca.issue_device(params, &[]);
    for version in BOTH {
        let client = broker.client(&device, version);
        client.refused_with(CertificateExpired);
    }
}

#[test]
fn device_not_yet_valid_is_refused() {
    let broker = Broker::start();
    let ca = Ca::load(&broker, "ca-a");
    let mut params = device_params("from tomorrow on");
    params.not_before = OffsetDateTime::now_utc() + Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(2);
    let device = ca.issue_device(params, &[]);
    for version in BOTH {
        let end = broker.client(&device, version).refusal();
        assert!(matches!(end, End::Alert(_)), "{end}");
    }
}

/// `webpki` does not look at the dates of an anchor; we must.
#[test]
fn device_of_a_ca_that_expired_after_registration_is_refused() {
    let broker = Broker::start();
    let api = broker.api();
    // Registering must win the race against the clock, on slow machines too.
    let (ca, expires) = [3, 6, 12, 24]
        .into_iter()
        .find_map(|seconds| {
            let params = short_lived(seconds);
            let expires = params.not_after;
            let ca = Ca::self_signed(params, &new_key());
            let answer = api.try_register("short-lived", &ca);
            if answer.status != 200 {
                assert_eq!(answer.code(), "CertificateContentError", "{answer:?}");
            }
            (answer.status == 200).then_some((ca, expires))
        })
        .expect("a CA with a life of 24 seconds can be registered");
    let device = ca.device("device that lives longer than its CA");

    wait_until("the CA has expired", || {
        (OffsetDateTime::now_utc() > expires + Duration::seconds(1)).then_some(())
    });
    for version in BOTH {
        let client = broker.client(&device, version);
        client.refused_with(CertificateExpired);
    }
    assert_eq!(api.status(&ca.sn()), "1", "its own state is another matter");
}

#[test]
fn expired_intermediate_is_refused() {
    let broker = Broker::start();
    let root = Ca::load(&broker, "ca-a");
    let mut params = ca_params("an intermediate that has expired");
    params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
    params.not_after = OffsetDateTime::now_utc() - Duration::minutes(5);
    let middle = root.issue_ca(params, &new_key());
    let device = middle.issue_device(device_params("device"), &[&middle]);
    for version in BOTH {
        let client = broker.client(&device, version);
        client.refused_with(CertificateExpired);
    }
}

#[test]
fn expired_ca_is_not_registered() {
    let broker = Broker::start();
    let mut params = ca_params("long gone");
    params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
    params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    let ca = Ca::self_signed(params, &new_key());
    let answer = broker.api().try_register("expired", &ca);
    assert_eq!(answer.code(), "CertificateContentError", "{answer:?}");
}

fn short_lived(seconds: i64) -> CertificateParams {
    let mut params = ca_params("a short-lived CA");
    params.not_after = OffsetDateTime::now_utc() + Duration::seconds(seconds);
    params
}
