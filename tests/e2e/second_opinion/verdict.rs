//! The gate's decision on a scene, OpenSSL's, and whether they fit together.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use portcullis::ca::certificate::{CaCertificate, to_pem};
use portcullis::ca::error::{PathMember, Refusal};
use portcullis::ca::lifecycle::Status;
use portcullis::ca::registry::{Purpose, Registry};
use portcullis::ca::topology::SameKey;
use portcullis::tls::server_config::algorithms;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::scene::Scene;

/// How the two fit together.
#[derive(Debug)]
pub enum Agreement {
    BothAccept,
    BothRefuse,
    /// By a rule that OpenSSL does not have, or does not apply to a CA that it is told to trust.
    GateIsStricter,
}

/// Compare the two.
///
/// # Panics
/// If they differ and it is not known why.
pub fn compare(scene: &Scene, directory: &Path) -> Agreement {
    let registry = Registry::new(SameKey::Deny, algorithms());
    let mut registered = Vec::new();
    for der in &scene.registered {
        // What may not be registered cannot let anybody in.
        let Ok(certificate) = CaCertificate::from_der(der) else {
            continue;
        };
        let inserted = registry.insert(Arc::new(certificate), Purpose::Device, Status::Active);
        if inserted.is_ok() {
            registered.push(der);
        }
    }
    let sent: Vec<_> = scene.sent.iter().collect();
    let gate = registry.admit(&scene.device, &scene.sent, UnixTime::now());
    match gate.map(drop).map_err(|refused| refused.refusal) {
        Ok(()) => {
            // OpenSSL follows one path and does not come back from a wrong turn: it is asked about
            // each CA and each choice of intermediates alone.
            let path = subsets(&sent).any(|sent| {
                let mut each = registered.iter();
                each.any(|ca| openssl(directory, &[ca], &sent, &scene.device))
            });
            assert!(path, "the gate accepts what OpenSSL does not: {scene:#?}");
            Agreement::BothAccept
        }
        Err(refusal) => match openssl(directory, &registered, &sent, &scene.device) {
            false => Agreement::BothRefuse,
            true => {
                assert!(is_explained(&refusal), "{refusal:?} in {scene:#?}");
                Agreement::GateIsStricter
            }
        },
    }
}

/// Why the gate refuses what `openssl verify` accepts.
fn is_explained(refusal: &Refusal) -> bool {
    match refusal {
        // OpenSSL lets a CA log in as a device.
        Refusal::Misused {
            who: PathMember::Device,
            rule,
        } => rule.contains("it is a CA certificate"),
        // RFC 5280, 4.2.1.9, does not count certificates that a CA made for itself; the gate does.
        Refusal::Misused {
            who: PathMember::Ca(_) | PathMember::Intermediate,
            rule,
        } => rule.contains("path length"),
        // A bound on the work for those who are not known yet.
        Refusal::ChainTooLarge => true,
        _ => false,
    }
}

fn openssl(
    directory: &Path,
    registered: &[&CertificateDer<'_>],
    sent: &[&CertificateDer<'_>],
    device: &CertificateDer<'_>,
) -> bool {
    if registered.is_empty() {
        return false;
    }
    let file = |name: &str, certificates: &[&CertificateDer<'_>]| {
        let path = directory.join(name);
        // What is no certificate stops OpenSSL before it decides.
        let pem: String = certificates
            .iter()
            .filter(|der| der.len() > 2)
            .map(|der| to_pem(der))
            .collect();
        std::fs::write(&path, pem).unwrap();
        path
    };
    let mut command = Command::new("openssl");
    command
        .args([
            "verify",
            "-partial_chain",
            "-purpose",
            "sslclient",
            "-trusted",
        ])
        .arg(file("registered.pem", registered));
    if sent.iter().any(|der| der.len() > 2) {
        command.arg("-untrusted").arg(file("sent.pem", sent));
    }
    let output = command.arg(file("device.pem", &[device])).output().unwrap();
    output.status.success()
}

/// All choices of them, in their order.
fn subsets<'a>(
    of: &'a [&'a CertificateDer<'static>],
) -> impl Iterator<Item = Vec<&'a CertificateDer<'static>>> {
    let most = of.len().min(10);
    (0..1_u32 << most).map(move |chosen| {
        let mut picked = Vec::new();
        for (place, der) in of.iter().take(most).enumerate() {
            if chosen & (1 << place) != 0 {
                picked.push(*der);
            }
        }
        picked
    })
}
