//! From what an operator types to the CA or device that is meant.

use serde_json::Value;

use super::client::{ClientError, Connection, printable, usage};
use super::show::field;
use crate::admin::action::Action;
use crate::ca::id::CertSerial;

/// The CA with this serial number or, if there is none, with this name.
///
/// # Errors
/// If there is none, or the name is that of several.
pub(super) fn ca(connection: &Connection, text: &str) -> Result<Value, ClientError> {
    if text.parse::<CertSerial>().is_ok() {
        match connection.call(Action::GetCaCertificate, &[("Sn", text)]) {
            Ok(answer) => return Ok(data(answer)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let all = cas(connection)?;
    pick("CA", text, ("CaName", "Sn"), all)
}

/// The device with this serial number or name; among those of `ca_sn`, if given.
///
/// # Errors
/// If there is none, or several are meant.
pub(super) fn device(
    connection: &Connection,
    ca_sn: Option<&str>,
    text: &str,
) -> Result<Value, ClientError> {
    let serial = text.parse::<CertSerial>().ok().map(|it| it.to_string());
    if let (Some(ca_sn), Some(serial)) = (ca_sn, &serial) {
        // It may be a name, or only the listing be allowed.
        let fields = [("CaSn", ca_sn), ("DeviceSn", serial)];
        if let Ok(answer) = connection.call(Action::GetDeviceCertificate, &fields) {
            return Ok(data(answer));
        }
    }
    let all = devices(connection, ca_sn)?;
    let by_serial: Vec<_> = all
        .iter()
        .filter(|device| Some(field(device, "DeviceSn")) == serial)
        .cloned()
        .collect();
    if by_serial.len() > 1 {
        return Err(several("device", text, "DeviceSn", &by_serial));
    }
    match by_serial.into_iter().next() {
        Some(device) => Ok(device),
        None => pick("device", text, ("DeviceName", "DeviceSn"), all),
    }
}

/// Every access key.
///
/// # Errors
/// If the broker refuses or cannot be reached.
pub(super) fn access_keys(connection: &Connection) -> Result<Vec<Value>, ClientError> {
    all_pages(connection, Action::ListAccessKeys, "AccessKeys", &[])
}

/// The access key of this id.
///
/// # Errors
/// If there is none.
pub(super) fn access_key(connection: &Connection, id: &str) -> Result<Value, ClientError> {
    let all = access_keys(connection)?;
    let found = all.iter().find(|key| field(key, "AccessKeyId") == id);
    found.cloned().ok_or_else(|| {
        ClientError::NotFound(format!(
            "there is no access key {:?}; see `portcullis key list{}`",
            printable(id),
            connection.options
        ))
    })
}

/// Every CA of the instance.
///
/// # Errors
/// If the broker refuses or cannot be reached.
pub(super) fn cas(connection: &Connection) -> Result<Vec<Value>, ClientError> {
    all_pages(
        connection,
        Action::ListCaCertificate,
        "CaCertificateVOS",
        &[],
    )
}

/// Every device of the instance, or of one CA.
///
/// # Errors
/// If the broker refuses or cannot be reached.
pub(super) fn devices(
    connection: &Connection,
    ca_sn: Option<&str>,
) -> Result<Vec<Value>, ClientError> {
    let list = "DeviceCertificateVOS";
    match ca_sn {
        None => all_pages(connection, Action::ListDeviceCertificate, list, &[]),
        Some(sn) => {
            let action = Action::ListDeviceCertificateByCaSn;
            all_pages(connection, action, list, &[("CaSn", sn)])
        }
    }
}

/// What the answer is about.
pub(super) fn data(mut answer: Value) -> Value {
    answer.get_mut("Data").map(Value::take).unwrap_or_default()
}

/// Every entry of a listing.
///
/// # Errors
/// If the broker refuses or cannot be reached.
pub(super) fn all_pages(
    connection: &Connection,
    action: Action,
    list: &str,
    fields: &[(&str, &str)],
) -> Result<Vec<Value>, ClientError> {
    const SIZE: usize = 100;
    let mut all = Vec::new();
    for number in 1_usize.. {
        let number = number.to_string();
        let size = SIZE.to_string();
        let mut fields = fields.to_vec();
        fields.extend([("PageNo", number.as_str()), ("PageSize", size.as_str())]);
        let mut answer = connection.call(action, &fields)?;
        let page = answer.pointer_mut(&format!("/Data/{list}"));
        let Some(Value::Array(page)) = page.map(Value::take) else {
            break;
        };
        let last = page.len() < SIZE;
        all.extend(page);
        if last {
            break;
        }
    }
    Ok(all)
}

fn pick(
    what: &str,
    text: &str,
    (name, sn): (&str, &str),
    all: Vec<Value>,
) -> Result<Value, ClientError> {
    let mut named: Vec<_> = all
        .iter()
        .filter(|it| field(it, name) == text)
        .cloned()
        .collect();
    match named.len() {
        1 => named.pop().ok_or_else(|| usage(String::new())),
        0 => Err(ClientError::NotFound(format!(
            "there is no {what} with the serial number or name {:?}{}",
            printable(text),
            candidates(&all, name, sn)
        ))),
        _ => Err(several(what, text, sn, &named)),
    }
}

fn several(what: &str, text: &str, sn: &str, found: &[Value]) -> ClientError {
    let found: Vec<_> = found
        .iter()
        .map(|it| match field(it, "CaSn") {
            ca if ca.is_empty() || sn == "Sn" => field(it, sn),
            ca => format!("{} --ca {ca}", field(it, sn)),
        })
        .collect();
    usage(format!(
        "there are several {what}s {:?}; say which: {}",
        printable(text),
        found.join(", ")
    ))
}

fn candidates(all: &[Value], name: &str, sn: &str) -> String {
    const MOST: usize = 10;
    if all.is_empty() {
        return "; none is registered".to_owned();
    }
    let shown: Vec<_> = all
        .iter()
        .take(MOST)
        .map(|it| format!("{} ({})", field(it, name), field(it, sn)))
        .collect();
    let more = match all.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; there are {}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn all() -> Vec<Value> {
        vec![
            json!({"CaName": "a", "Sn": "01"}),
            json!({"CaName": "b", "Sn": "02"}),
            json!({"CaName": "b", "Sn": "03"}),
        ]
    }

    #[test]
    fn name_is_taken_if_it_is_that_of_one() {
        let names = ("CaName", "Sn");
        assert_eq!(pick("CA", "a", names, all()).unwrap()["Sn"], "01");
        let error = pick("CA", "b", names, all()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("02, 03"), "{error}");
        let error = pick("CA", "c", names, all()).unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().contains("a (01), b (02)"), "{error}");
    }
}
