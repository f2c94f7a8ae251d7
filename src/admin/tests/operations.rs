//! The operations over a real registry, store and audit log.

use super::*;
use crate::audit::{AuditLog, Rotation};
use crate::ca::topology::SameKey;
use crate::cli::ca::CaCommand;
use crate::cli::client::ClientError;
use crate::control::keys::KeySettings;
use crate::control::{
    Control, ControlParts, ControlSettings, Door, InstanceSettings, OnInactivate,
};
use crate::store::sqlite::SqliteStore;
use crate::testing::{TestCa, TestDevice};
use crate::tls::peer::VerifiedPeer;

pub(super) struct World {
    pub(super) server: Server,
    pub(super) control: Control,
    _data: tempfile::TempDir,
}

impl World {
    pub(super) fn new(admin_ca: Option<&TestCa>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&data.path().join("db").join("registry.sqlite")).unwrap();
        let audit = AuditLog::open(&data.path().join("audit.log"), Rotation::default(), 0).unwrap();
        let parts = ControlParts {
            store: Arc::new(store),
            audit,
            instances: vec![InstanceSettings {
                id: INSTANCE.parse().unwrap(),
                account: "owner".parse().unwrap(),
                region: "cn-hangzhou".to_owned(),
                same_key: SameKey::Deny,
                on_inactivate: OnInactivate::Cut,
                admin_cas: admin_ca.iter().map(|ca| ca.certificate()).collect(),
            }],
            settings: ControlSettings::default(),
            keys: KeySettings::default(),
            clock: Arc::new(SystemTime::now),
            patience: Default::default(),
        };
        let runtime = runtime();
        let control = runtime.block_on(Control::open(parts)).unwrap();
        let server = Server::start(runtime, Arc::new(control.clone()), Setup::default());
        Self {
            server,
            control,
            _data: data,
        }
    }

    pub(super) fn client(&self) -> Connection {
        self.server.client("http", "operator", &[])
    }

    pub(super) fn peer(&self, device: &TestDevice) -> VerifiedPeer {
        let instance = INSTANCE.parse().unwrap();
        let registry = self.control.registry(&instance).unwrap();
        let admitted = registry
            .admit(&device.der, &[], crate::testing::now())
            .unwrap();
        VerifiedPeer::new(instance, admitted)
    }

    /// What `portcullis ca register` does.
    fn register(&self, name: &str, ca: &TestCa) -> Result<(), ClientError> {
        let files = self.server.files.path();
        let (pem, key) = (files.join("ca.pem"), files.join("ca.key"));
        std::fs::write(&pem, ca.pem()).unwrap();
        std::fs::write(&key, ca.key.serialize_pem()).unwrap();
        let line = [
            "ca",
            "register",
            name,
            pem.to_str().unwrap(),
            "--key",
            key.to_str().unwrap(),
        ];
        self.command(&line[1..])
    }

    fn command(&self, line: &[&str]) -> Result<(), ClientError> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(subcommand)]
            command: CaCommand,
        }
        let line: Line = clap::Parser::parse_from([&["ca"], line].concat());
        let client = self.server.client("http", "operator", &["--yes"]);
        line.command.run(&client)
    }
}

#[track_caller]
fn refused(result: Result<Value, ClientError>) -> String {
    match result {
        Err(ClientError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ca_lives_from_registration_to_deletion() {
    let world = World::new(None);
    let client = world.client();
    let ca = TestCa::root("root a", 0xf269);
    world.register("ca-a", &ca).unwrap();

    let sn = [("Sn", "F2:69")];
    let shown = client.call(Action::GetCaCertificate, &sn).unwrap();
    let data = &shown["Data"];
    assert_eq!(data["Sn"], "00f269");
    assert_eq!(data["CaName"], "ca-a");
    assert_eq!(data["CaContent"], ca.pem());
    assert_eq!(data["Status"], "1");
    assert!(
        data["VerificationContent"]
            .as_str()
            .unwrap()
            .contains("BEGIN CERTIFICATE")
    );
    assert!(!data["RegistrationCode"].as_str().unwrap().is_empty());
    assert!(data["ValidBegin"].as_str().unwrap().ends_with("000"));

    let listed = client
        .call(
            Action::ListCaCertificate,
            &[("PageNo", "1"), ("PageSize", "10")],
        )
        .unwrap();
    assert_eq!(listed["Data"]["CaCertificateVOS"], json!([data]));
    assert_eq!(listed["Data"]["Total"], 1);
    assert_eq!(listed["Data"]["PageNo"], 1);
    assert_eq!(listed["Data"]["PageSize"], 10);

    for (action, status) in [
        (Action::InactivateCaCertificate, "0"),
        (Action::InactivateCaCertificate, "0"),
        (Action::ActiveCaCertificate, "1"),
        (Action::ActiveCaCertificate, "1"),
    ] {
        assert_eq!(client.call(action, &sn).unwrap()["Sn"], "00f269");
        let shown = client.call(Action::GetCaCertificate, &sn).unwrap();
        assert_eq!(shown["Data"]["Status"], status);
    }
    assert_eq!(
        client.call(Action::DeleteCaCertificate, &sn).unwrap()["Sn"],
        "00f269"
    );
    assert!(
        client
            .call(Action::GetCaCertificate, &sn)
            .unwrap_err()
            .is_not_found()
    );
}

#[test]
fn device_is_recorded_shown_switched_and_deleted() {
    let world = World::new(None);
    let client = world.client();
    let ca = TestCa::root("root a", 0xa);
    world.register("ca-a", &ca).unwrap();
    let peer = world.peer(&ca.issue("device 7", 7));
    world.control.device_admitted(&peer);

    let names = [("CaSn", "0a"), ("DeviceSn", "07")];
    // Recorded in the background.
    let shown = loop {
        match client.call(Action::GetDeviceCertificate, &names) {
            Ok(shown) => break shown,
            Err(error) => assert!(error.is_not_found(), "{error}"),
        }
    };
    let data = &shown["Data"];
    assert_eq!(data["DeviceName"], "device 7");
    assert_eq!(data["DeviceSn"], "07");
    assert_eq!(data["CaSn"], "0a");
    assert_eq!(data["Status"], "1");
    let page = [("PageNo", "1"), ("PageSize", "1")];
    let listed = client.call(Action::ListDeviceCertificate, &page).unwrap();
    assert_eq!(listed["Data"]["DeviceCertificateVOS"], json!([data]));
    let by_ca = [("CaSn", "0a"), ("PageNo", "2"), ("PageSize", "1")];
    let listed = client
        .call(Action::ListDeviceCertificateByCaSn, &by_ca)
        .unwrap();
    assert_eq!(listed["Data"]["DeviceCertificateVOS"], json!([]));
    assert_eq!(listed["Data"]["Total"], 1);
    for (action, status) in [
        (Action::InactivateDeviceCertificate, "0"),
        (Action::ActiveDeviceCertificate, "1"),
    ] {
        assert_eq!(client.call(action, &names).unwrap()["DeviceSn"], "07");
        let shown = client.call(Action::GetDeviceCertificate, &names).unwrap();
        assert_eq!(shown["Data"]["Status"], status);
    }
    assert_eq!(
        client
            .call(Action::DeleteDeviceCertificate, &names)
            .unwrap()["DeviceSn"],
        "07"
    );
    assert!(
        client
            .call(Action::GetDeviceCertificate, &names)
            .unwrap_err()
            .is_not_found()
    );
}

#[test]
fn registration_says_what_is_wrong_with_it() {
    let world = World::new(None);
    let client = world.client();
    let ca = TestCa::root("root a", 1);
    let register = |ca_pem: &str, verification: &str| {
        client.call(
            Action::RegisterCaCertificate,
            &[
                ("CaName", "n"),
                ("CaContent", ca_pem),
                ("VerificationContent", verification),
            ],
        )
    };
    let code = || {
        let answer = client.call(Action::GetRegisterCode, &[]).unwrap();
        answer["RegisterCode"].as_str().unwrap().to_owned()
    };
    let proof = |ca: &TestCa, code: &str| crate::ca::certificate::to_pem(&ca.issue(code, 99).der);

    let good = code();
    let unknown = proof(&ca, "not-a-code");
    assert_eq!(refused(register(&ca.pem(), &unknown)), "RegisterCodeError");
    let other = TestCa::root("root a", 2);
    let forged = proof(&other, &good);
    assert_eq!(
        refused(register(&ca.pem(), &forged)),
        "CertificateContentError"
    );
    assert_eq!(
        refused(register("no pem", &proof(&ca, &good))),
        "CertificateContentError"
    );
    let leaf = crate::ca::certificate::to_pem(&ca.issue("leaf", 5).der);
    assert_eq!(
        refused(register(&leaf, &proof(&ca, &good))),
        "CertificateContentError"
    );

    // As some clients send it: line breaks spelled out.
    let spelled = ca.pem().replace('\n', "\\n");
    assert_eq!(register(&spelled, &proof(&ca, &good)).unwrap()["Sn"], "01");
    assert_eq!(
        refused(register(&other.pem(), &proof(&other, &good))),
        "RegisterCodeUsed"
    );
    let twin = TestCa::root("another root", 1);
    assert_eq!(
        refused(register(&twin.pem(), &proof(&twin, &code()))),
        "SnNotUnique"
    );
}

#[test]
fn refusals_have_the_codes_of_the_documentation() {
    let world = World::new(None);
    let client = world.client();
    let missing = |action| refused(client.call(action, &[]));
    for action in Action::ALL {
        let code = match action.is_open_to(Door::Http) {
            true if [Action::GetRegisterCode, Action::ListInstances].contains(action) => continue,
            true => "ParameterFieldCheckFailed",
            false => "InvalidApi.NotFound",
        };
        assert_eq!(missing(*action), code, "{action:?}");
    }
    let error = client
        .call(Action::InactivateCaCertificate, &[("Sn", "0b")])
        .unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert_eq!(error.to_string(), Code::FindCaBySnError.message());
    let names = [("CaSn", "0a"), ("DeviceSn", "07")];
    let error = client
        .call(Action::InactivateDeviceCertificate, &names)
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    // Their pages know no code for the CA.
    let text = Code::FindDeviceBySnError.message();
    assert!(error.to_string().starts_with(text), "{error}");

    let stranger = world.server.client("http", "stranger", &[]);
    assert_eq!(
        refused(stranger.call(Action::GetRegisterCode, &[])),
        "MqttOwnerCheckError"
    );
    let elsewhere = world
        .server
        .client("http", "operator", &["--instance", "post-cn-none"]);
    let error = elsewhere.call(Action::GetRegisterCode, &[]).unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let nobody = world.server.client("http", "nobody", &[]);
    let code = refused(nobody.call(Action::GetRegisterCode, &[]));
    assert_eq!(code, "InvalidAccessKeyId.NotFound");
}

#[test]
fn command_line_takes_names_and_says_what_is_missing() {
    let world = World::new(None);
    world.register("ca-a", &TestCa::root("root a", 1)).unwrap();
    world.register("same", &TestCa::root("root b", 2)).unwrap();
    world.register("same", &TestCa::root("root c", 3)).unwrap();
    for line in [
        &["list"][..],
        &["show", "ca-a"],
        &["show", "01"],
        &["inactivate", "ca-a"],
        &["activate", "ca-a"],
        &["register-code"],
        &["delete", "ca-a"],
    ] {
        world
            .command(line)
            .unwrap_or_else(|error| panic!("{line:?}: {error}"));
    }
    assert_eq!(world.command(&["show", "ca-a"]).unwrap_err().exit_code(), 4);
    let error = world.command(&["inactivate", "same"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("02, 03"), "{error}");
}

#[test]
fn no_access_key_is_made_for_the_owner_of_an_instance_that_is_not_there() {
    let world = World::new(None);
    let host = crate::control::Caller {
        principal: crate::control::Principal::Host("root".to_owned()),
        account: "host".parse().unwrap(),
        grant: crate::control::Grant::Everything,
        door: Door::Host,
        address: None,
        request_id: crate::ca::id::RequestId::from_random([7; 16]),
    };
    let create = |instance: &str| {
        let mut params = Params::default();
        params
            .insert("MqttInstanceId".to_owned(), instance.to_owned())
            .unwrap();
        let action = Action::CreateAccessKey;
        runtime().block_on(crate::admin::operations::execute(
            &world.control,
            &host,
            action,
            &params,
        ))
    };
    let refused = create("post-cn-nowhere").unwrap_err();
    assert_eq!(refused.code, Code::MqttInstanceNotFound);
    assert!(world.control.access_keys().all().is_empty());
    let made = create(INSTANCE).unwrap();
    assert_eq!(made["AccessKey"]["Account"], "owner");
}
