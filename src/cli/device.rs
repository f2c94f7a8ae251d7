//! `portcullis device`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ca::pem;
use super::client::{ClientError, Connection, EXIT_CODES};
use super::impact::{self, Change};
use super::lookup;
use super::show::{self, field};
use crate::admin::action::Action;

/// Look at the device certificates that connected, and switch single ones off and on.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum DeviceCommand {
    /// List the recorded device certificates.
    List(ListArgs),
    /// Show one device certificate.
    Show(Which),
    /// Switch a device off: it is cut off and refused.
    Inactivate(InactivateArgs),
    /// Switch a device on: it is let in again.
    Activate(Which),
    /// Forget a device certificate; it is recorded again, as active, when it next connects.
    Delete(Which),
}

/// Arguments of `portcullis device list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of this CA: serial number or name.
    #[arg(long, value_name = "SN|NAME")]
    ca: Option<String>,
}

/// One device.
#[derive(Debug, Args)]
pub struct Which {
    /// Serial number or name (common name) of the device certificate.
    #[arg(value_name = "SN|NAME")]
    device: String,
    /// Serial number or name of its CA; needed if several CAs have such a device.
    #[arg(long, value_name = "SN|NAME")]
    ca: Option<String>,
}

/// Arguments of `portcullis device inactivate`.
#[derive(Debug, Args)]
pub struct InactivateArgs {
    #[command(flatten)]
    which: Which,
    /// Say what would be cut off, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// A device that was found.
struct Found {
    device: Value,
    ca_sn: String,
    sn: String,
    name: String,
}

impl DeviceCommand {
    /// Carry out the command.
    ///
    /// # Errors
    /// Why it did not succeed.
    pub fn run(self, connection: &Connection) -> Result<(), ClientError> {
        match self {
            Self::List(arguments) => list(connection, arguments.ca.as_deref()),
            Self::Show(which) => show_one(connection, &which),
            Self::Inactivate(arguments) => inactivate(connection, &arguments),
            Self::Activate(which) => activate(connection, &which),
            Self::Delete(which) => delete(connection, &which),
        }
    }
}

fn list(connection: &Connection, ca: Option<&str>) -> Result<(), ClientError> {
    let ca = ca_sn(connection, ca)?;
    let all = lookup::devices(connection, ca.as_deref())?;
    show::result(connection, &json!(all), || {
        if all.is_empty() {
            return "No device certificate is recorded; one is when it first connects.\n"
                .to_owned();
        }
        let row = |device: &Value| {
            vec![
                field(device, "DeviceName"),
                field(device, "DeviceSn"),
                field(device, "CaSn"),
                show::status(device),
                show::time(device, "ValidEnd"),
            ]
        };
        let heads = ["NAME", "SN", "CA SN", "STATUS", "VALID UNTIL"];
        show::table(&heads, all.iter().map(row))
    });
    Ok(())
}

fn show_one(connection: &Connection, which: &Which) -> Result<(), ClientError> {
    let found = find(connection, which)?;
    let device = &found.device;
    show::result(connection, device, || {
        show::fields(&[
            ("Name", found.name.clone()),
            ("SN", found.sn.clone()),
            ("CA SN", found.ca_sn.clone()),
            ("Status", show::status(device)),
            ("Valid from", show::time(device, "ValidBegin")),
            ("Valid until", show::time(device, "ValidEnd")),
        ]) + "\n"
            + &pem(device, "DeviceContent")
    });
    Ok(())
}

fn inactivate(connection: &Connection, arguments: &InactivateArgs) -> Result<(), ClientError> {
    let found = find(connection, &arguments.which)?;
    if arguments.dry_run {
        let change = Change::Inactivate;
        let impact = impact::of_device(connection, &found.ca_sn, &found.sn, change)?;
        impact::show_device(connection, &impact, change);
        return Ok(());
    }
    show::confirm(
        connection,
        &format!("Inactivate device {found}? It is cut off now and refused from then on."),
    )?;
    let answer = found.call(connection, Action::InactivateDeviceCertificate)?;
    show::result(connection, &answer, || {
        let what = match field(&found.device, "Status").as_str() {
            "0" => "was inactive before; nothing changed.",
            _ => "is inactive: it was cut off and is refused.",
        };
        let Found { sn, ca_sn, .. } = &found;
        let options = &connection.options;
        format!(
            "Device {found} {what}\nUndo  portcullis device activate {sn} --ca {ca_sn}{options}\n"
        )
    });
    Ok(())
}

fn activate(connection: &Connection, which: &Which) -> Result<(), ClientError> {
    let found = find(connection, which)?;
    let answer = found.call(connection, Action::ActiveDeviceCertificate)?;
    show::result(connection, &answer, || {
        let what = match field(&found.device, "Status").as_str() {
            "1" => "was active before; nothing changed.",
            _ => "is active: it can connect if its CA is active.",
        };
        format!("Device {found} {what}\n")
    });
    Ok(())
}

fn delete(connection: &Connection, which: &Which) -> Result<(), ClientError> {
    let found = find(connection, which)?;
    show::confirm(
        connection,
        &format!(
            "Delete the record of device {found}? It is recorded again, as active, when it next connects."
        ),
    )?;
    let answer = found.call(connection, Action::DeleteDeviceCertificate)?;
    show::result(connection, &answer, || {
        format!("The record of device {found} is deleted.\n")
    });
    Ok(())
}

fn find(connection: &Connection, which: &Which) -> Result<Found, ClientError> {
    let ca = ca_sn(connection, which.ca.as_deref())?;
    let device = lookup::device(connection, ca.as_deref(), &which.device)?;
    Ok(Found {
        ca_sn: field(&device, "CaSn"),
        sn: field(&device, "DeviceSn"),
        name: field(&device, "DeviceName"),
        device,
    })
}

fn ca_sn(connection: &Connection, ca: Option<&str>) -> Result<Option<String>, ClientError> {
    ca.map(|text| lookup::ca(connection, text).map(|ca| field(&ca, "Sn")))
        .transpose()
}

impl Found {
    fn call(&self, connection: &Connection, action: Action) -> Result<Value, ClientError> {
        connection.call(action, &[("CaSn", &self.ca_sn), ("DeviceSn", &self.sn)])
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} of CA {})", self.name, self.sn, self.ca_sn)
    }
}
