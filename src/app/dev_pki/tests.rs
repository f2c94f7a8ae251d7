use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::Duration;
use time::macros::datetime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::plan::Role;
use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

fn ensure(directory: &Path, now: OffsetDateTime) -> Result<DevPki, DevPkiError> {
    let instance = "post-cn-dev00001".parse().unwrap();
    DevPki::ensure(directory, "http://127.0.0.1:8080", &instance, now)
}

fn tree() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("certs/dev");
    (directory, path)
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn chain(directory: &Path, name: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(directory.join(format!("{name}.pem")))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// The path from `name` to `anchor` as webpki, the verifier of the gate, sees it.
fn verifies(directory: &Path, name: &str, anchor: &str, usage: webpki::KeyUsage) -> bool {
    let chain = chain(directory, name);
    let anchor = self::chain(directory, anchor).remove(0);
    let anchor = webpki::anchor_from_trusted_cert(&anchor).unwrap();
    let leaf = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
    let now = std::time::Duration::from_secs(NOW.unix_timestamp() as u64);
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &[anchor],
        &chain[1..],
        rustls_pki_types::UnixTime::since_unix_epoch(now),
        usage,
        None,
        None,
    )
    .is_ok()
}

#[test]
fn first_run_makes_every_file_of_the_interface_private() {
    let (_guard, directory) = tree();
    let pki = ensure(&directory, NOW).unwrap();
    assert_eq!(pki.notes(), [Note::Created(13)]);

    let mut expected: Vec<String> = PIECES
        .iter()
        .flat_map(|piece| [format!("{}.pem", piece.name), format!("{}.key", piece.name)])
        .chain(["admin-key.json".to_owned()])
        .collect();
    expected.sort();
    let found = contents(&directory);
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), expected);
    for name in found.keys() {
        let mode = fs::metadata(directory.join(name)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
    }
    let mode = fs::metadata(&directory).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(pki.admin_key().secret.reveal().len() >= 30);
    assert!(!format!("{pki:?}").contains(pki.admin_key().secret.reveal()));
}

#[test]
fn certificates_verify_to_their_own_ca_only() {
    let (_guard, directory) = tree();
    ensure(&directory, NOW).unwrap();
    let client = webpki::KeyUsage::client_auth;
    for (device, own) in [
        ("device-a1", "ca-a"),
        ("device-a2", "ca-a"),
        ("device-b1", "ca-b"),
        ("device-b1", "ca-b-issuing"),
        ("device-b2", "ca-b"),
        ("device-x1", "ca-x"),
        ("admin", "admin-ca"),
    ] {
        assert!(verifies(&directory, device, own, client()), "{device}");
        for other in ["ca-a", "ca-b", "ca-x", "admin-ca", "server-ca"] {
            if other != own && !(device.starts_with("device-b") && other == "ca-b") {
                assert!(!verifies(&directory, device, other, client()), "{device}");
            }
        }
        let server = webpki::KeyUsage::server_auth();
        assert!(!verifies(&directory, device, own, server), "{device}");
    }
    let server = webpki::KeyUsage::server_auth();
    assert!(verifies(&directory, "server", "server-ca", server));
    assert!(!verifies(&directory, "server", "server-ca", client()));
    assert_eq!(chain(&directory, "device-b1").len(), 2);
    assert_eq!(chain(&directory, "device-a1").len(), 1);
}

#[test]
fn server_certificate_is_for_localhost_and_the_loopback_addresses() {
    let (_guard, directory) = tree();
    ensure(&directory, NOW).unwrap();
    let server = chain(&directory, "server").remove(0);
    let server = webpki::EndEntityCert::try_from(&server).unwrap();
    for name in ["localhost", "127.0.0.1", "::1"] {
        let name = name.try_into().unwrap();
        server.verify_is_valid_for_subject_name(&name).unwrap();
    }
}

#[test]
fn serials_are_positive_long_and_distinct_and_dates_are_as_documented() {
    let (_guard, directory) = tree();
    ensure(&directory, NOW).unwrap();
    let mut serials = std::collections::HashSet::new();
    for piece in &PIECES {
        let der = chain(&directory, piece.name).remove(0);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let serial = certificate.raw_serial();
        assert_eq!(serial.len(), 16, "{}", piece.name);
        assert!((0x40..0x80).contains(&serial[0]), "{}", piece.name);
        assert!(serials.insert(serial.to_vec()));
        let validity = certificate.validity();
        assert_eq!(validity.not_before.timestamp(), NOW.unix_timestamp() - 3600);
        let days = (validity.not_after.timestamp() - NOW.unix_timestamp()) / 86_400;
        let expected = match piece.role {
            Role::Authority { .. } => 3652,
            Role::Client { .. } | Role::Server { .. } => 365,
        };
        assert_eq!(days, expected, "{}", piece.name);
    }
}

#[test]
fn second_run_changes_nothing() {
    let (_guard, directory) = tree();
    ensure(&directory, NOW).unwrap();
    let before = contents(&directory);
    let pki = ensure(&directory, NOW).unwrap();
    assert_eq!(pki.notes(), []);
    assert_eq!(contents(&directory), before);
}

#[test]
fn expired_end_entities_are_renewed_and_cas_stay() {
    let (_guard, directory) = tree();
    ensure(&directory, NOW).unwrap();
    let before = contents(&directory);
    let pki = ensure(&directory, NOW + Duration::days(400)).unwrap();
    assert_eq!(pki.notes().len(), 7);
    let after = contents(&directory);
    for piece in &PIECES {
        let name = format!("{}.pem", piece.name);
        let is_ca = matches!(piece.role, Role::Authority { .. });
        assert_eq!(before[&name] == after[&name], is_ca, "{name}");
    }
}

#[test]
fn expired_registered_ca_is_told_and_left_alone() {
    let (_guard, directory) = tree();
    ensure(&directory, NOW).unwrap();
    let before = contents(&directory);
    let pki = ensure(&directory, NOW + Duration::days(3660)).unwrap();
    let after = contents(&directory);
    for name in REGISTERED_CAS {
        assert!(pki.notes().contains(&Note::RegisteredCaExpired(name)));
        assert_eq!(
            before[&format!("{name}.pem")],
            after[&format!("{name}.pem")]
        );
    }
    for name in ["server-ca", "admin-ca", "ca-x"] {
        assert_ne!(
            before[&format!("{name}.pem")],
            after[&format!("{name}.pem")]
        );
        assert_eq!(
            before[&format!("{name}.key")],
            after[&format!("{name}.key")]
        );
    }
}

#[test]
fn tree_interrupted_after_any_file_is_completed() {
    let (_guard, directory) = tree();
    ensure(&directory, NOW).unwrap();
    let whole = contents(&directory);
    // The order in which the files are written: of each piece the key, then the certificate.
    let order: Vec<String> = PIECES
        .iter()
        .flat_map(|piece| [format!("{}.key", piece.name), format!("{}.pem", piece.name)])
        .collect();
    for kept in 0..order.len() {
        let (_guard, partial) = tree();
        private_file::create_directory(&partial).unwrap();
        for name in &order[..kept] {
            fs::write(partial.join(name), &whole[name]).unwrap();
        }
        ensure(&partial, NOW).unwrap();
        let now = contents(&partial);
        assert_eq!(now.len(), whole.len(), "{kept} files kept");
        for name in &order[..kept / 2 * 2] {
            assert_eq!(now[name], whole[name], "{name}, {kept} files kept");
        }
        let client = webpki::KeyUsage::client_auth();
        assert!(verifies(&partial, "device-b2", "ca-b", client));
    }
}

#[test]
fn ca_without_key_or_with_a_foreign_key_is_refused_by_name() {
    let (_guard, directory) = tree();
    ensure(&directory, NOW).unwrap();
    let key = fs::read(directory.join("ca-a.key")).unwrap();
    fs::remove_file(directory.join("ca-a.key")).unwrap();
    let error = ensure(&directory, NOW).unwrap_err().to_string();
    assert!(error.contains("ca-a.key"), "{error}");

    fs::copy(directory.join("ca-b.key"), directory.join("ca-a.key")).unwrap();
    let error = ensure(&directory, NOW).unwrap_err().to_string();
    assert!(error.contains("does not belong to the key"), "{error}");

    fs::write(directory.join("ca-a.key"), key).unwrap();
    fs::write(directory.join("ca-a.pem"), "half a fi").unwrap();
    let error = ensure(&directory, NOW).unwrap_err().to_string();
    assert!(error.contains("no certificate in the file"), "{error}");
}

#[test]
fn removed_root_leaves_the_registered_intermediate_alone_and_says_so() {
    let (_guard, directory) = tree();
    ensure(&directory, NOW).unwrap();
    fs::remove_file(directory.join("ca-b.pem")).unwrap();
    fs::remove_file(directory.join("ca-b.key")).unwrap();
    let pki = ensure(&directory, NOW).unwrap();
    let orphaned = Note::RegisteredCaOrphaned {
        name: "ca-b-issuing",
        issuer: "ca-b",
    };
    assert!(pki.notes().contains(&orphaned));
    assert!(verifies(
        &directory,
        "device-b1",
        "ca-b-issuing",
        webpki::KeyUsage::client_auth()
    ));
}

#[test]
fn admin_key_keeps_its_secret_and_takes_the_real_endpoint() {
    let (_guard, directory) = tree();
    let mut pki = ensure(&directory, NOW).unwrap();
    let secret = pki.admin_key().secret.clone();
    pki.set_endpoint("http://127.0.0.1:41234").unwrap();
    let again = ensure(&directory, NOW).unwrap();
    assert_eq!(again.admin_key().secret, secret);
    assert_eq!(again.admin_key().endpoint, "http://127.0.0.1:41234");

    let text = fs::read_to_string(again.admin_key_file()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["AccessKeySecret"], secret.reveal());
    assert_eq!(json["MqttInstanceId"], "post-cn-dev00001");

    fs::write(again.admin_key_file(), "{").unwrap();
    let error = ensure(&directory, NOW).unwrap_err().to_string();
    assert!(error.contains("admin-key.json"), "{error}");
}

#[test]
fn files_that_others_can_read_are_made_private() {
    let (_guard, directory) = tree();
    ensure(&directory, NOW).unwrap();
    let key = directory.join("server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let pki = ensure(&directory, NOW).unwrap();
    assert_eq!(pki.notes(), [Note::Tightened(key.clone())]);
    assert!(!private_file::is_open_to_others(&key).unwrap());
}
