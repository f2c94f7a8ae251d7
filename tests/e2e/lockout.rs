//! Changes that would lock administrators out.

use serde_json::json;

use crate::control_channel::Admin;
use crate::harness::Version;
use crate::harness::broker::{INSTANCE, program};
use crate::harness::fleet::{Fleet, Setup};
use crate::harness::pki::{Ca, ca_params, crl_pem, new_key, serial};

/// Administrators below a root that is registered for devices.
struct Administrated {
    fleet: Fleet,
    root: Ca,
    admin: Ca,
}

impl Administrated {
    fn start() -> Self {
        Self::start_with("")
    }

    /// With this in the configuration besides.
    fn start_with(more: &str) -> Self {
        let root = Ca::root("the root of everything");
        let admin = root.issue_ca(ca_params("the administrators"), &new_key());
        let setup = Setup::new()
            .instance(INSTANCE, "owner", "127.0.0.1:0", &[])
            .with("[admin.control_channel]\nca = \"admin-ca.pem\"\ncommon_names = [\"admin\"]\n")
            .with(more);
        setup.write("admin-ca.pem", &admin.pem());
        let fleet = setup.start();
        fleet.api(INSTANCE).register("root", &root);
        Self { fleet, root, admin }
    }

    fn connect(&self) -> Admin {
        let admin = self.admin.device("admin");
        let client = self
            .fleet
            .client(INSTANCE, "localhost", &admin, Version::V13);
        Admin::over(client.connect().unwrap())
    }

    /// The command line, over the broker's socket.
    fn host(&self, arguments: &[&str]) -> crate::harness::process::Finished {
        let mut command = program();
        command.current_dir(self.fleet.broker.home().path());
        command.args(arguments);
        crate::harness::process::Process::spawn(&mut command).finish()
    }
}

#[test]
fn last_administrators_are_not_locked_out_by_any_door_unless_it_is_forced() {
    let world = Administrated::start();
    let (api, sn) = (world.fleet.api(INSTANCE), world.root.sn());
    let mut admin = world.connect();
    // The vendor's operation, as the vendor's clients call it.
    let answer = api.call("InactivateCaCertificate", &[("Sn", &sn)]);
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(answer.code(), "PermissionCheckFailed");
    assert!(answer.text.contains("Force=true"), "{answer:?}");
    assert!(answer.text.contains(&world.admin.sn()), "{answer:?}");
    let own = admin.command("InactivateCaCertificate", json!({"Sn": sn}));
    assert_eq!(own["Code"], "PermissionCheckFailed", "{own}");
    assert!(
        own["Message"].as_str().unwrap().contains("lock you out"),
        "{own}"
    );
    let host = world.host(&["ca", "inactivate", "root", "--yes"]);
    assert_eq!(host.code, 1, "{host:?}");
    assert!(host.stderr.contains("Force=true"), "{host:?}");
    let told = world.host(&["ca", "inactivate", "root", "--dry-run"]);
    assert_eq!(told.code, 0, "{told:?}");
    for text in ["LOCKED OUT", "--force", "of the administrators"] {
        assert!(told.stdout.contains(text), "{text} in\n{}", told.stdout);
    }
    let told = admin.command(
        "PreviewCaCertificateChange",
        json!({"Sn": sn, "Change": "Inactivate"}),
    );
    assert_eq!(told["Data"]["LockedOut"], "caller", "{told}");
    assert_eq!(told["Data"]["Connections"], 1, "its own");
    assert_eq!(api.status(&sn), "1");
    let bad = api.call("InactivateCaCertificate", &[("Sn", &sn), ("Force", "yes")]);
    assert_eq!(bad.code(), "ParameterFieldCheckFailed");
    let audit = std::fs::read_to_string(world.fleet.broker.data().join("audit.log")).unwrap();
    assert_eq!(audit.matches("\"locks_out\"").count(), 3, "each attempt");

    let forced = world.host(&["ca", "inactivate", "root", "--yes", "--force"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    assert!(forced.stdout.contains("1 live connection"), "{forced:?}");
    admin.mqtt.wait_end();
    assert_eq!(api.status(&sn), "0");
    // They are out already: repeating it needs no force.
    api.inactivate(&sn);
    api.activate(&sn);
    world.connect();
}

#[test]
fn crl_that_locks_administrators_out_needs_force_but_from_a_file() {
    let world = Administrated::start();
    let api = world.fleet.api(INSTANCE);
    let sn = || serial(&world.admin.der);
    let tomorrow = time::OffsetDateTime::now_utc() + time::Duration::days(1);
    let crl = |number| world.root.crl_of(number, [sn()], tomorrow, None);
    let mut admin = world.connect();
    let pem = crl_pem(&crl(1));
    let answer = api.call("ImportCrl", &[("CrlContent", &pem)]);
    assert_eq!(answer.code(), "PermissionCheckFailed", "{answer:?}");
    assert!(answer.text.contains("Force=true"), "{answer:?}");
    let own = admin.command("ImportCrl", json!({"CrlContent": pem}));
    assert!(
        own["Message"].as_str().unwrap().contains("lock you out"),
        "{own}"
    );
    let path = world.fleet.file("root.crl.pem");
    std::fs::write(&path, &pem).unwrap();
    let path = path.to_str().unwrap();
    let host = world.host(&["crl", "import", "root", path]);
    assert_eq!(host.code, 1, "{host:?}");
    assert!(api.crls().is_empty());
    let audit = std::fs::read_to_string(world.fleet.broker.data().join("audit.log")).unwrap();
    assert_eq!(audit.matches("\"locks_out\"").count(), 3, "each attempt");
    let forced = world.host(&["crl", "import", "root", path, "--force"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    admin.mqtt.wait_end();
}

#[test]
fn watched_crl_that_locks_administrators_out_is_imported_and_told() {
    let world = Administrated::start_with(
        "[registry]\ncrl_poll_seconds = 1\n[[instance.crl]]\npath = \"root.crl\"\n",
    );
    let sn = serial(&world.admin.der);
    let tomorrow = time::OffsetDateTime::now_utc() + time::Duration::days(1);
    let admin = world.connect();
    let path = world.fleet.file("root.crl");
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, world.root.crl_of(1, [sn], tomorrow, None)).unwrap();
    std::fs::rename(&unfinished, &path).unwrap();
    admin.mqtt.wait_end();
    let line = world.fleet.broker.wait_log("it is told", |line| {
        line.contains("has locked administrators out")
    });
    assert!(
        line.contains("ERROR") && line.contains("root.crl"),
        "{line}"
    );
    assert!(line.contains(&world.admin.sn()), "{line}");
}

#[test]
fn registering_a_ca_that_locks_administrators_out_needs_force() {
    let root = Ca::root("a root");
    let middle = root.issue_ca(ca_params("between"), &new_key());
    let admin = middle.issue_ca(ca_params("the administrators"), &new_key());
    let setup = Setup::new()
        .instance(INSTANCE, "owner", "127.0.0.1:0", &[])
        .with("[admin.control_channel]\nca = \"admin-ca.pem\"\ncommon_names = [\"admin\"]\n");
    setup.write("admin-ca.pem", &admin.pem());
    let fleet = setup.start();
    let api = fleet.api(INSTANCE);
    let sn = api.register("root", &root);
    // What stands between is not known: they are not below it yet.
    api.inactivate(&sn);
    let admits = || {
        let admin = admin.device("admin");
        let client = fleet.client(INSTANCE, "localhost", &admin, Version::V13);
        client.admitted()
    };
    assert!(admits());
    let answer = api.try_register("between", &middle);
    assert_eq!(answer.code(), "PermissionCheckFailed", "{answer:?}");
    assert!(admits());
    let code = api.register_code();
    let verification = middle.verification(&code);
    let wanted = [
        ("CaName", "between"),
        ("CaContent", &middle.pem()),
        ("VerificationContent", &verification),
        ("Force", "true"),
    ];
    api.call("RegisterCaCertificate", &wanted).ok();
    assert!(!admits());
}
