//! Every error of the documentation that the certificate operations can come to, as the vendor's
//! SDKs show it: code, text, HTTP status, request id, class of the exception.

use serde_json::{Value, json};

use crate::harness::Broker;
use crate::harness::configured::{Configured, FOREIGN_INSTANCE, SECOND_INSTANCE};
use crate::harness::pki::Ca;
use crate::harness::sdk::{Caller, Sdk, Style};
use crate::life_cycle::is_request_id;
use crate::unfit;

/// The operations with the parameters that each demands besides the instance.
const OPERATIONS: [(&str, &[&str]); 13] = [
    ("GetRegisterCode", &[]),
    (
        "RegisterCaCertificate",
        &["CaName", "CaContent", "VerificationContent"],
    ),
    ("GetCaCertificate", &["Sn"]),
    ("ListCaCertificate", &["PageNo", "PageSize"]),
    ("ActiveCaCertificate", &["Sn"]),
    ("InactivateCaCertificate", &["Sn"]),
    ("DeleteCaCertificate", &["Sn"]),
    ("ListDeviceCertificate", &["PageNo", "PageSize"]),
    (
        "ListDeviceCertificateByCaSn",
        &["CaSn", "PageNo", "PageSize"],
    ),
    ("GetDeviceCertificate", &["CaSn", "DeviceSn"]),
    ("ActiveDeviceCertificate", &["CaSn", "DeviceSn"]),
    ("InactivateDeviceCertificate", &["CaSn", "DeviceSn"]),
    ("DeleteDeviceCertificate", &["CaSn", "DeviceSn"]),
];

/// What the documentation says: code, its text, HTTP status on the operations' own pages, and
/// status after the vendor's adjustment.
const ERRORS: [(&str, &str, u16, u16); 12] = [
    (
        "ParameterFieldCheckFailed",
        "Failed to validate the parameters. The parameters may be missing or invalid.",
        400,
        400,
    ),
    (
        "FindCaBySnError",
        "Failed to find the CA by the SN. Please check sn is valid.",
        500,
        400,
    ),
    (
        "FindDeviceBySnError",
        "Failed to find the device certificate by the SN. Please check sn is valid",
        500,
        400,
    ),
    (
        "MqttInstanceNotFound",
        "Specified instance is not found",
        500,
        400,
    ),
    (
        "MqttOwnerCheckError",
        "Failed to validate the instance permission",
        500,
        403,
    ),
    (
        "RegisterCodeError",
        "Register code error in verification certificate.",
        500,
        400,
    ),
    ("RegisterCodeUsed", "Register code has been used.", 500, 401),
    ("CaNumExceed", "CA certificate num exceed.", 500, 401),
    (
        "CertificateContentError",
        "Certificate content error, please check ca/verification certificate content. \
         BasicConstraints extension should be set to true in CA certificate.",
        500,
        401,
    ),
    ("SnNotUnique", "Sn is not unique in global.", 500, 401),
    (
        "ApiNotSupport",
        "The specified API is not supported.",
        404,
        404,
    ),
    (
        "InvalidApi.NotFound",
        "Specified api is not found, please check your url and method.",
        404,
        404,
    ),
];

/// The status where an operation's own page says another than most do.
fn documented(code: &str, operation: &str, usual: u16) -> u16 {
    match (code, operation) {
        ("ParameterFieldCheckFailed", "InactivateCaCertificate" | "GetRegisterCode") => 500,
        ("MqttOwnerCheckError", "InactivateCaCertificate" | "ActiveCaCertificate") => 403,
        _ => usual,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Profile {
    Documented,
    Adjusted,
}

#[test]
fn python_sdk_sees_every_documented_error() {
    every_error(Profile::Documented, &[Style::Sync, Style::SyncV1]);
}

#[test]
fn asynchronous_python_sdk_sees_every_documented_error() {
    every_error(Profile::Documented, &[Style::Async]);
}

#[test]
fn older_python_core_sees_every_documented_error() {
    every_error(Profile::Documented, &[Style::CoreGet, Style::CoreForm]);
}

#[test]
fn node_clients_see_every_documented_error() {
    let styles = [Style::PopGet, Style::PopPost, Style::OpenApi];
    every_error(Profile::Documented, &styles);
}

#[test]
fn every_sdk_sees_the_adjusted_statuses() {
    let styles = [
        Style::Sync,
        Style::Async,
        Style::CoreTyped,
        Style::PopPost,
        Style::OpenApi,
    ];
    every_error(Profile::Adjusted, &styles);
}

fn every_error(profile: Profile, styles: &[Style]) {
    let configured = Configured {
        admin: match profile {
            Profile::Documented => "",
            Profile::Adjusted => "status_profile = \"adjusted\"",
        },
        registry: "max_cas = 2",
        ..Configured::default()
    };
    let broker = configured.start();
    let sn = broker.api().register("known", &Ca::root("known"));
    let elsewhere = Ca::root("registered in another instance");
    broker.api().register_in(SECOND_INSTANCE, &elsewhere);
    for style in styles {
        let errors = Errors {
            sdk: Sdk::new(&broker, *style),
            profile,
            style: *style,
        };
        errors.parameters();
        errors.instances();
        errors.serial_numbers(&sn, &elsewhere.sn());
        errors.registrations(&broker, &elsewhere);
        errors.operations();
    }
    let page = json!({"PageNo": "1", "PageSize": "100"});
    let sdk = Sdk::new(&broker, styles[0]);
    let all = sdk.ok("ListCaCertificate", page)["Data"].clone();
    assert_eq!(all["Total"], 1, "refusals change nothing: {all}");
    assert_eq!(all["CaCertificateVOS"][0]["Status"], "1");
}

struct Errors {
    sdk: Sdk,
    profile: Profile,
    style: Style,
}

impl Errors {
    /// Check that the call comes to this error, and all that is to be said of it.
    #[track_caller]
    fn expect(&self, code: &str, operation: &str, arguments: Value) {
        let error = self.sdk.error(operation, arguments);
        let what = format!("{:?}, {operation}: {error}", self.style);
        assert_eq!(error["code"], code, "{what}");
        let row = ERRORS.iter().find(|(found, ..)| *found == code);
        let (_, text, usual, adjusted) = row.unwrap();
        let status = match self.profile {
            Profile::Documented => documented(code, operation, *usual),
            Profile::Adjusted => *adjusted,
        };
        assert_eq!(error["status"], status, "{what}");
        let message = error["message"].as_str().unwrap();
        let prefix = match self.style {
            Style::Sync | Style::Async | Style::SyncV1 => format!("code: {status}, {text}"),
            Style::OpenApi => format!("{code}: code: {status}, {text}"),
            _ => (*text).to_owned(),
        };
        assert!(message.starts_with(&prefix), "{what}");
        let id = error["request_id"].as_str().unwrap_or_default();
        assert!(is_request_id(id), "{what}");
        if self.style.is_current_python() {
            let kind = match status {
                500.. => "ServerException",
                _ => "ClientException",
            };
            assert_eq!(error["kind"], kind, "{what}");
            assert!(message.ends_with(&format!("request id: {id}")), "{what}");
            assert!(error["data"]["HostId"].is_string(), "{what}");
        }
    }

    fn parameters(&self) {
        for (operation, names) in OPERATIONS {
            for missing in names.iter().copied().chain(["MqttInstanceId"]) {
                let mut arguments = good(names);
                arguments[missing] = Value::Null;
                let failed = "ParameterFieldCheckFailed";
                self.expect(failed, operation, arguments.clone());
                arguments[missing] = json!("");
                self.expect(failed, operation, arguments);
            }
        }
        let long = "1".repeat(200);
        for bad in ["no number", "0x1", "12:zz", &long] {
            for operation in ["GetCaCertificate", "DeleteCaCertificate"] {
                self.expect("ParameterFieldCheckFailed", operation, json!({"Sn": bad}));
            }
        }
        for (page, size) in [
            ("0", "1"),
            ("1", "0"),
            ("1", "101"),
            ("-1", "1"),
            ("1", "x"),
        ] {
            let arguments = json!({"PageNo": page, "PageSize": size});
            self.expect("ParameterFieldCheckFailed", "ListCaCertificate", arguments);
        }
    }

    fn instances(&self) {
        for (operation, names) in OPERATIONS {
            let mut arguments = good(names);
            for unknown in ["post-cn-unknown1", "no instance/at all"] {
                arguments["MqttInstanceId"] = json!(unknown);
                self.expect("MqttInstanceNotFound", operation, arguments.clone());
            }
            arguments["MqttInstanceId"] = json!(FOREIGN_INSTANCE);
            self.expect("MqttOwnerCheckError", operation, arguments);
        }
    }

    fn serial_numbers(&self, known: &str, elsewhere: &str) {
        for operation in [
            "GetCaCertificate",
            "ActiveCaCertificate",
            "InactivateCaCertificate",
            "DeleteCaCertificate",
        ] {
            for unknown in ["0123456789", elsewhere] {
                self.expect("FindCaBySnError", operation, json!({"Sn": unknown}));
            }
        }
        let page = json!({"CaSn": "0123456789", "PageNo": "1", "PageSize": "1"});
        self.expect("FindCaBySnError", "ListDeviceCertificateByCaSn", page);
        for operation in [
            "GetDeviceCertificate",
            "ActiveDeviceCertificate",
            "InactivateDeviceCertificate",
            "DeleteDeviceCertificate",
        ] {
            for ca in [known, elsewhere, "0123456789"] {
                let unknown = json!({"CaSn": ca, "DeviceSn": "0123456789"});
                self.expect("FindDeviceBySnError", operation, unknown);
            }
        }
    }

    fn registrations(&self, broker: &Broker, elsewhere: &Ca) {
        let api = broker.api();
        let new = Ca::root("a CA of the customer's");
        let expect = |code, ca: &str, verification: &str| {
            let arguments = json!({
                "CaName": "name",
                "CaContent": ca,
                "VerificationContent": verification,
            });
            self.expect(code, "RegisterCaCertificate", arguments);
        };
        let code = api.register_code();
        let good = new.verification(&code);
        for (what, ca) in unfit::cas() {
            println!("{what}");
            expect("CertificateContentError", &ca, &good);
        }
        for (what, verification) in unfit::verifications(&new, &code) {
            println!("{what}");
            expect("CertificateContentError", &new.pem(), &verification);
        }
        for wrong in [
            "13274673-8f90-4630-bea1-9cccb25756ad",
            "not a code",
            &code.to_uppercase(),
            &broker
                .api_of("stranger-key.json")
                .register_code_of(FOREIGN_INSTANCE),
            &api.register_code_of(SECOND_INSTANCE),
        ] {
            expect("RegisterCodeError", &new.pem(), &new.verification(wrong));
        }
        // It is signed by the right key, and its name is no code.
        expect("RegisterCodeError", &new.pem(), &new.pem());
        // The same serial number in this process, whatever the instance and the key.
        for taken in [elsewhere.sn(), api.sn_of("known")] {
            let twin = unfit::with_serial(&taken);
            expect("SnNotUnique", &twin.pem(), &twin.verification(&code));
        }
        let sn = api.register_with("second of two", &new, &good);
        let other = Ca::root("a third CA");
        expect("RegisterCodeUsed", &other.pem(), &other.verification(&code));
        let fresh = other.verification(&api.register_code());
        expect("CaNumExceed", &other.pem(), &fresh);
        api.call("DeleteCaCertificate", &[("Sn", &sn)]).ok();
    }

    fn operations(&self) {
        self.expect("InvalidApi.NotFound", "GetCaCertificates", json!({}));
        let others = json!({"MqttInstanceId": null, "InstanceId": "post-cn-unknown1"});
        self.expect("ApiNotSupport", "DisasterRecovery", others);
    }
}

/// Arguments that are all there.
fn good(names: &[&str]) -> Value {
    names.iter().map(|name| (*name, "1")).collect()
}
