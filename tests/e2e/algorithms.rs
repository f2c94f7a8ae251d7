//! Signature algorithms of certificates and keys: those that are taken, and those that must not be.
//! OpenSSL makes the certificates and is the client, since it knows more algorithms than we take.

use std::path::Path;
use std::process::Command;

use crate::harness::Broker;
use crate::harness::broker::program;
use crate::harness::process::Process;

/// A kind of key, as OpenSSL's `genpkey` takes it.
type Key = &'static [&'static str];

const RSA_2048: Key = &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const RSA_1024: Key = &["RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
const P_256: Key = &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const P_384: Key = &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
const P_521: Key = &["EC", "-pkeyopt", "ec_paramgen_curve:P-521"];
const SECP256K1: Key = &["EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"];
const ED25519: Key = &["ED25519"];
const ED448: Key = &["ED448"];

/// How OpenSSL is to sign, as `req` takes it.
type Signing = &'static [&'static str];

const PSS: Signing = &[
    "-sha256",
    "-sigopt",
    "rsa_padding_mode:pss",
    "-sigopt",
    "rsa_pss_saltlen:digest",
];

/// What OpenSSL has in its directory.
struct Pki<'a>(&'a Path);

impl Pki<'_> {
    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        let output = command
            .args(arguments)
            .current_dir(self.0)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments:?}: {text}");
    }

    fn key(&self, name: &str, key: Key) {
        let file = format!("{name}.key");
        self.openssl(&[&["genpkey", "-out", &file, "-algorithm"], key].concat());
    }

    /// A CA, signed by its own key.
    fn ca(&self, name: &str, key: Key, signing: Signing) {
        self.key(name, key);
        let (key, pem, subject) = (
            format!("{name}.key"),
            format!("{name}.pem"),
            format!("/CN={name}"),
        );
        let options = [
            "req",
            "-x509",
            "-config",
            "openssl.cnf",
            "-extensions",
            "ca",
        ];
        let files = ["-key", &key, "-out", &pem, "-subj", &subject, "-days", "2"];
        self.openssl(&[&options[..], &files, signing].concat());
    }

    /// A device of that CA.
    fn device(&self, name: &str, key: Key, ca: &str, signing: Signing) {
        self.key(name, key);
        let (key, pem, subject) = (
            format!("{name}.key"),
            format!("{name}.pem"),
            format!("/CN={name}"),
        );
        let (ca, ca_key) = (format!("{ca}.pem"), format!("{ca}.key"));
        let options = [
            "req",
            "-x509",
            "-config",
            "openssl.cnf",
            "-extensions",
            "device",
        ];
        let files = ["-key", &key, "-out", &pem, "-subj", &subject, "-days", "1"];
        let above = ["-CA", &ca, "-CAkey", &ca_key];
        self.openssl(&[&options[..], &files, &above, signing].concat());
    }

    /// Whether the device is let in, and CONNECT answered.
    fn is_admitted(&self, broker: &Broker, device: &str) -> bool {
        // CONNECT of MQTT 3.1.1 with a clean session and the client id "c", then DISCONNECT.
        let packets = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c\xe0\x00";
        std::fs::write(self.0.join("packets"), packets).unwrap();
        // It stays for as long as the broker does not end the connection.
        let mut command = Command::new("timeout");
        command
            .args([
                "20",
                "openssl",
                "s_client",
                "-quiet",
                "-connect",
                &broker.mqtt.to_string(),
            ])
            .args([
                "-cert",
                &format!("{device}.pem"),
                "-key",
                &format!("{device}.key"),
            ])
            // What OpenSSL does not like itself is offered all the same.
            .args(["-cipher", "DEFAULT@SECLEVEL=0"])
            .stdin(std::fs::File::open(self.0.join("packets")).unwrap())
            .current_dir(self.0);
        let output = command.output().unwrap();
        assert_ne!(output.status.code(), Some(124), "{device}: no answer");
        // CONNACK with return code 0.
        output.stdout == *b"\x20\x02\x00\x00"
    }
}

const CONFIG: &str = "[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[device]
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
";

#[test]
fn algorithms_that_are_strong_are_taken_and_no_others() {
    let broker = Broker::start();
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki(directory.path());
    std::fs::write(directory.path().join("openssl.cnf"), CONFIG).unwrap();

    let taken: [(&str, Key, Signing); 10] = [
        ("rsa-sha256", RSA_2048, &["-sha256"]),
        ("rsa-sha384", RSA_2048, &["-sha384"]),
        ("rsa-sha512", RSA_2048, &["-sha512"]),
        ("rsa-pss", RSA_2048, PSS),
        ("p256-sha256", P_256, &["-sha256"]),
        ("p256-sha384", P_256, &["-sha384"]),
        ("p384-sha256", P_384, &["-sha256"]),
        ("p384-sha384", P_384, &["-sha384"]),
        ("p521-sha512", P_521, &["-sha512"]),
        ("ed25519", ED25519, &[]),
    ];
    for (ca, key, signing) in taken {
        pki.ca(ca, key, signing);
        register(&broker, &pki, ca);
        let device = format!("device-{ca}");
        pki.device(&device, key, ca, signing);
        assert!(pki.is_admitted(&broker, &device), "{device}");
    }

    // Each below a CA that lets in others.
    let not_taken: [(&str, Key, &str, Signing); 7] = [
        ("rsa-sha1", RSA_2048, "rsa-sha256", &["-sha1"]),
        ("rsa-sha224", RSA_2048, "rsa-sha256", &["-sha224"]),
        ("rsa-md5", RSA_2048, "rsa-sha256", &["-md5"]),
        ("ecdsa-sha1", P_256, "p256-sha256", &["-sha1"]),
        ("rsa-1024", RSA_1024, "rsa-sha256", &["-sha256"]),
        ("secp256k1", SECP256K1, "p256-sha256", &["-sha256"]),
        ("ed448", ED448, "p256-sha256", &["-sha256"]),
    ];
    for (device, key, ca, signing) in not_taken {
        pki.device(device, key, ca, signing);
        assert!(!pki.is_admitted(&broker, device), "{device}");
        // What the handshake comes to is what the explanation says.
        assert_eq!(explained(&broker, &pki, device), 5, "{device}");
    }
    assert_eq!(explained(&broker, &pki, "device-p256-sha256"), 0);
    assert!(pki.is_admitted(&broker, "device-rsa-sha256"));
    broker.wait_log("why, in words", |line| {
        line.contains("client certificate refused") && line.contains("SHA-256 or more, are taken")
    });
}

/// The exit code of an explanation.
fn explained(broker: &Broker, pki: &Pki<'_>, device: &str) -> i32 {
    let socket = broker.data().join("admin.sock");
    let mut command = program();
    command
        .arg("explain")
        .arg(pki.0.join(format!("{device}.pem")));
    let finished = Process::spawn(command.arg("--socket").arg(socket)).finish();
    finished.code
}

fn register(broker: &Broker, pki: &Pki<'_>, ca: &str) {
    let pem = pki.0.join(format!("{ca}.pem"));
    let socket = broker.data().join("admin.sock");
    let mut command = program();
    command.args(["ca", "register", ca]).arg(pem);
    let finished = Process::spawn(command.arg("--socket").arg(socket)).finish();
    assert_eq!(finished.code, 0, "{ca}: {}", finished.stderr);
}
