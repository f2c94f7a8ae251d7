//! The JSON shapes of successful answers, without the request id that all of them carry.

use serde::Serialize;
use serde_json::{Value, json};

use crate::ca::crl::Wanting;
use crate::ca::id::CertSerial;
use crate::ca::lifecycle::Status;
use crate::control::pace::Pace;
use crate::control::{CaView, Changed, DeviceView, Effective, Manner, Page, PageRequest, Switched};

/// A CA certificate; every field is a string. The vendor's fields, and after them ours: whether
/// it admits devices, why not if it does not although it is active, and what is demanded of its
/// CRLs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ca {
    registration_code: String,
    ca_name: String,
    sn: String,
    ca_content: String,
    verification_content: String,
    valid_begin: String,
    valid_end: String,
    status: &'static str,
    effective_status: &'static str,
    effective_reason: String,
    crl_policy: &'static str,
}

/// A device certificate; every field is a string.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Device {
    ca_sn: String,
    device_sn: String,
    device_name: String,
    device_content: String,
    valid_begin: String,
    valid_end: String,
    status: &'static str,
}

impl From<CaView> for Ca {
    fn from(ca: CaView) -> Self {
        let (effective, effective_reason) = match ca.effective {
            Effective::Active => (Status::Active, String::new()),
            Effective::Inactive => (Status::Inactive, "it is inactive".to_owned()),
            Effective::InactiveSibling { sn } => (
                Status::Inactive,
                format!("certificate {sn} of the same key is inactive"),
            ),
            Effective::InactiveAbove { sn } => {
                (Status::Inactive, format!("CA {sn} above it is inactive"))
            }
            Effective::Revoked { sn, crl } => (
                Status::Inactive,
                format!("certificate {sn} is on CRL {crl}"),
            ),
            Effective::NoCrl(Wanting::Missing) => (
                Status::Inactive,
                "it must have a CRL, and none is imported".to_owned(),
            ),
            Effective::NoCrl(Wanting::Expired { crl }) => {
                (Status::Inactive, format!("its CRL {crl} has expired"))
            }
            Effective::OutsideValidity => (
                Status::Inactive,
                "it has expired or is not valid yet".to_owned(),
            ),
        };
        Self {
            effective_status: digit(effective),
            effective_reason,
            crl_policy: ca.crl_policy.word(),
            registration_code: ca.register_code.unwrap_or_default(),
            ca_name: ca.name,
            sn: ca.sn.to_string(),
            ca_content: ca.pem,
            verification_content: ca.verification_pem.unwrap_or_default(),
            valid_begin: milliseconds(ca.not_before),
            valid_end: milliseconds(ca.not_after),
            status: digit(ca.status),
        }
    }
}

impl From<DeviceView> for Device {
    fn from(device: DeviceView) -> Self {
        Self {
            ca_sn: device.ca_sn.to_string(),
            device_sn: device.serial.to_string(),
            device_name: device.name,
            device_content: device.pem,
            valid_begin: milliseconds(device.not_before),
            valid_end: milliseconds(device.not_after),
            status: digit(device.status),
        }
    }
}

/// The answer that shows one CA.
pub fn one_ca(ca: CaView) -> Value {
    json!({ "Data": Ca::from(ca) })
}

/// The answer that shows one device.
pub fn one_device(device: DeviceView) -> Value {
    json!({ "Data": Device::from(device) })
}

/// One page of CAs.
pub fn cas(page: Page<CaView>, request: PageRequest) -> Value {
    let items: Vec<Ca> = page.items.into_iter().map(Ca::from).collect();
    json!({ "Data": {
        "CaCertificateVOS": items,
        "PageNo": request.number,
        "PageSize": request.size,
        "Total": page.total,
    }})
}

/// One page of devices.
pub fn devices(page: Page<DeviceView>, request: PageRequest) -> Value {
    let items: Vec<Device> = page.items.into_iter().map(Device::from).collect();
    json!({ "Data": {
        "DeviceCertificateVOS": items,
        "PageNo": request.number,
        "PageSize": request.size,
        "Total": page.total,
    }})
}

/// The answer to a registration.
pub fn registered_ca(sn: &CertSerial) -> Value {
    json!({ "Sn": sn.to_string() })
}

/// The answer to a change of a CA. The vendor's has the serial number; ours also says how many
/// live connections were ended.
pub fn changed_ca(changed: &Changed) -> Value {
    json!({ "Sn": changed.sn.to_string(), "ConnectionsEnded": changed.sessions_ended })
}

/// The answer to a CA that was switched: with a pace, the connections are ending.
pub fn switched_ca(switched: &Switched, manner: Manner) -> Value {
    let mut answer = changed_ca(&switched.changed);
    if let Value::Object(fields) = &mut answer {
        if let Pace::Over(time) = manner.pace {
            fields.insert(
                "ConnectionsEnding".to_owned(),
                json!(switched.sessions_ending),
            );
            let seconds = json!(time.as_secs());
            fields.insert("EndConnectionsOverSeconds".to_owned(), seconds);
        }
        if switched.cancelled > 0 {
            fields.insert("SchedulesCancelled".to_owned(), json!(switched.cancelled));
        }
    }
    answer
}

/// The answer to a change of a device, likewise.
pub fn changed_device(changed: &Changed) -> Value {
    json!({ "DeviceSn": changed.sn.to_string(), "ConnectionsEnded": changed.sessions_ended })
}

/// The answer with a register code.
pub fn register_code(code: &str) -> Value {
    json!({ "RegisterCode": code })
}

/// Unix seconds as the API writes a time: milliseconds, as a decimal string.
pub(super) fn milliseconds(seconds: i64) -> String {
    seconds.saturating_mul(1000).to_string()
}

fn digit(status: Status) -> &'static str {
    match status {
        Status::Inactive => "0",
        Status::Active => "1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::id::CaId;

    #[test]
    fn ca_has_the_names_and_types_of_the_vendor() {
        let view = CaView {
            instance: "post-cn-1".parse().unwrap(),
            id: CaId::of_der(b"x"),
            sn: "F2:69".parse().unwrap(),
            name: "mqtt_ca".to_owned(),
            pem: "-----BEGIN CERTIFICATE-----\n".to_owned(),
            verification_pem: None,
            register_code: Some("code".to_owned()),
            not_before: 1_654_137_303,
            not_after: 1_969_497_303,
            status: Status::Inactive,
            effective: Effective::Inactive,
            crl_policy: crate::ca::crl::CrlPolicy::Optional,
            subject: "CN=x".to_owned(),
            registered_at_ms: 5,
        };
        let page = PageRequest {
            number: 2,
            size: 10,
        };
        let listed = Page {
            items: vec![view],
            total: 11,
        };
        assert_eq!(
            cas(listed, page),
            json!({ "Data": {
                "CaCertificateVOS": [{
                    "RegistrationCode": "code",
                    "CaName": "mqtt_ca",
                    "Sn": "00f269",
                    "CaContent": "-----BEGIN CERTIFICATE-----\n",
                    "VerificationContent": "",
                    "ValidBegin": "1654137303000",
                    "ValidEnd": "1969497303000",
                    "Status": "0",
                    "EffectiveStatus": "0",
                    "EffectiveReason": "it is inactive",
                    "CrlPolicy": "optional",
                }],
                "PageNo": 2,
                "PageSize": 10,
                "Total": 11,
            }})
        );
    }

    #[test]
    fn device_has_the_names_and_types_of_the_vendor() {
        let view = DeviceView {
            instance: "post-cn-1".parse().unwrap(),
            ca_sn: "f269".parse().unwrap(),
            serial: "7".parse().unwrap(),
            name: "mqtt_device".to_owned(),
            pem: "pem".to_owned(),
            not_before: 0,
            not_after: 1,
            status: Status::Active,
            first_seen_ms: 5,
        };
        assert_eq!(
            one_device(view),
            json!({ "Data": {
                "CaSn": "00f269",
                "DeviceSn": "07",
                "DeviceName": "mqtt_device",
                "DeviceContent": "pem",
                "ValidBegin": "0",
                "ValidEnd": "1000",
                "Status": "1",
            }})
        );
    }
}
