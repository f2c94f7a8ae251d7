//! `portcullis crl`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::{ClientError, Connection, EXIT_CODES, printable, usage};
use super::lookup;
use super::show::{self, field, number};
use crate::admin::action::Action;
use crate::ca::crl::CrlPolicy;

/// Import the lists of certificates that CAs have revoked, and say what is demanded of them.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum CrlCommand {
    /// Import a CRL: what it revokes is cut off and refused.
    Import(ImportArgs),
    /// List the CRLs in force.
    List(ListArgs),
    /// Show one CRL.
    Show(Which),
    /// Delete a CRL: what only it revoked is let in again.
    Delete(Which),
    /// Say whether the devices of a CA need a CRL that vouches for them.
    Policy(PolicyArgs),
}

/// Arguments of `portcullis crl import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Serial number or name of the CA that signed it.
    #[arg(value_name = "SN|NAME")]
    ca: String,
    /// The CRL, in DER or PEM.
    file: PathBuf,
    /// Import it even if it locks administrators out.
    #[arg(long)]
    force: bool,
}

/// Arguments of `portcullis crl list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of this CA: serial number or name.
    #[arg(long, value_name = "SN|NAME")]
    ca: Option<String>,
}

/// One CRL.
#[derive(Debug, Args)]
pub struct Which {
    /// Id of the CRL or the beginning of it, or serial number or name of a CA that has but one.
    #[arg(value_name = "ID|SN|NAME")]
    crl: String,
}

/// Arguments of `portcullis crl policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Serial number or name of the CA.
    #[arg(value_name = "SN|NAME")]
    ca: String,
    /// What is demanded.
    policy: Policy,
}

/// What is demanded of the CRLs of a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// A CRL that covers the device must be there and in date.
    Required,
    /// If there are CRLs that cover the device, one of them must be in date.
    InDate,
    /// What a CRL revokes is refused, and nothing else is demanded.
    Optional,
}

impl CrlCommand {
    /// Carry out the command.
    ///
    /// # Errors
    /// Why it did not succeed.
    pub fn run(self, connection: &Connection) -> Result<(), ClientError> {
        match self {
            Self::Import(arguments) => import(connection, &arguments),
            Self::List(arguments) => list(connection, arguments.ca.as_deref()),
            Self::Show(which) => show_one(connection, &which.crl),
            Self::Delete(which) => delete(connection, &which.crl),
            Self::Policy(arguments) => policy(connection, &arguments),
        }
    }
}

fn import(connection: &Connection, arguments: &ImportArgs) -> Result<(), ClientError> {
    let path = &arguments.file;
    let content = std::fs::read(path)
        .map_err(|error| usage(format!("{} cannot be read: {error}", path.display())))?;
    let ca = lookup::ca(connection, &arguments.ca)?;
    let sn = field(&ca, "Sn");
    let mut fields = vec![("CaSn", sn.as_str())];
    fields.extend(arguments.force.then_some(("Force", "true")));
    let octets = content.len();
    let answer = connection.call_with(Action::ImportCrl, &fields, Some(content));
    let answer = answer.map_err(|error| match error {
        // The broker closes the connection on a body that is too large while it is being sent.
        ClientError::Unreachable { .. } if octets > LARGE => usage(format!(
            "the CRL has {octets} octets, and the broker did not take them over the network ({error}); import it on the broker's host (--socket), or from a file that the configuration names"
        )),
        error => error,
    })?;
    show::result(connection, &answer, || {
        let crl = answer.get("Data").unwrap_or(&Value::Null);
        let name = format!(
            "CRL {} of CA {}",
            field(crl, "CrlNumber"),
            field(&ca, "CaName")
        );
        match answer.get("Changed").and_then(Value::as_bool) {
            Some(false) => format!("{name} was in force before; nothing changed.\n"),
            _ => format!(
                "{name} is in force: the certificates on it ({}) are refused. {}.\n{}",
                number(crl, "Entries"),
                show::ended(&answer),
                expired(crl)
            ),
        }
    });
    Ok(())
}

/// A warning, if the list is old.
fn expired(crl: &Value) -> String {
    match crl.get("Expired").and_then(Value::as_bool) {
        Some(true) => format!(
            "It has expired ({}): certificates that were revoked since are not on it.\n",
            show::time(crl, "NextUpdate")
        ),
        _ => String::new(),
    }
}

fn list(connection: &Connection, ca: Option<&str>) -> Result<(), ClientError> {
    let ca_sn = match ca {
        Some(text) => Some(field(&lookup::ca(connection, text)?, "Sn")),
        None => None,
    };
    let all = crls(connection, ca_sn.as_deref())?;
    show::result(connection, &json!(all), || {
        if all.is_empty() {
            return "There are no CRLs. Import one: portcullis crl import CA FILE\n".to_owned();
        }
        let row = |crl: &Value| {
            vec![
                short_id(crl),
                field(crl, "CaSn"),
                field(crl, "Issuer"),
                field(crl, "CrlNumber"),
                number(crl, "Entries"),
                until(crl),
                field(crl, "CrlPolicy"),
            ]
        };
        let heads = [
            "ID",
            "CA",
            "ISSUER",
            "NUMBER",
            "ENTRIES",
            "NEXT UPDATE",
            "POLICY",
        ];
        show::table(&heads, all.iter().map(row))
    });
    Ok(())
}

fn show_one(connection: &Connection, text: &str) -> Result<(), ClientError> {
    let crl = find(connection, text)?;
    show::result(connection, &crl, || {
        let points = crl.get("DistributionPoints").and_then(Value::as_array);
        let points: Vec<_> = points
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(printable)
            .collect();
        let points = match points.is_empty() {
            true => "all".to_owned(),
            false => points.join(" "),
        };
        show::fields(&[
            ("Id", field(&crl, "CrlId")),
            ("CA", field(&crl, "CaSn")),
            ("Issuer", field(&crl, "Issuer")),
            ("Number", field(&crl, "CrlNumber")),
            ("Issued", show::time(&crl, "ThisUpdate")),
            ("Next update", until(&crl)),
            ("Entries", number(&crl, "Entries")),
            ("Certificates", field(&crl, "Certificates")),
            ("Points", points),
            ("Policy", field(&crl, "CrlPolicy")),
            ("Imported", show::time(&crl, "ImportedAt")),
            ("SHA-256", field(&crl, "Sha256")),
        ])
    });
    Ok(())
}

fn delete(connection: &Connection, text: &str) -> Result<(), ClientError> {
    let crl = find(connection, text)?;
    let name = format!(
        "CRL {} of {}",
        field(&crl, "CrlNumber"),
        field(&crl, "Issuer")
    );
    // Where one is demanded, somebody may be left whom none vouches for.
    let cut = match field(&crl, "CrlPolicy") == CrlPolicy::Required.word() {
        true => " Its CA must have a CRL: devices that no other one covers are cut off now.",
        false => "",
    };
    show::confirm(
        connection,
        &format!("Delete {name}? What only it revoked is let in again.{cut}"),
    )?;
    let id = field(&crl, "CrlId");
    let answer = connection.call(Action::DeleteCrl, &[("CrlId", &id)])?;
    show::result(connection, &answer, || {
        let ended = match answer.get("ConnectionsEnded").and_then(Value::as_u64) {
            Some(0) | None => String::new(),
            Some(_) => format!(" {}.", show::ended(&answer)),
        };
        format!("{name} is deleted.{ended}\n")
    });
    Ok(())
}

fn policy(connection: &Connection, arguments: &PolicyArgs) -> Result<(), ClientError> {
    let ca = lookup::ca(connection, &arguments.ca)?;
    let (name, sn) = (field(&ca, "CaName"), field(&ca, "Sn"));
    let policy = match arguments.policy {
        Policy::Required => CrlPolicy::Required,
        Policy::InDate => CrlPolicy::InDate,
        Policy::Optional => CrlPolicy::Optional,
    };
    if policy != CrlPolicy::Optional {
        let crls = crls(connection, Some(&sn))?;
        if let Some(cut) = cut_by(policy, &crls) {
            let demanded = match policy {
                CrlPolicy::Required => "Require a CRL",
                CrlPolicy::InDate | CrlPolicy::Optional => "Require CRLs in date",
            };
            show::confirm(
                connection,
                &format!("{demanded} for CA {name} ({sn})? {cut}"),
            )?;
        }
    }
    let fields = [("Sn", sn.as_str()), ("CrlPolicy", policy.word())];
    let answer = connection.call(Action::SetCrlPolicy, &fields)?;
    show::result(connection, &answer, || {
        let what = match policy {
            CrlPolicy::Required => "must have a CRL in date that covers its devices.",
            CrlPolicy::InDate => "must have CRLs in date, if it has any.",
            CrlPolicy::Optional => "needs no CRL; those that it has count.",
        };
        format!("CA {name} ({sn}) {what} {}.\n", show::ended(&answer))
    });
    Ok(())
}

/// Who is cut off by such a policy, if anybody may be.
fn cut_by(policy: CrlPolicy, crls: &[Value]) -> Option<&'static str> {
    let is_expired = |crl: &Value| crl.get("Expired").and_then(Value::as_bool) == Some(true);
    let of_devices = |crl: &&Value| field(crl, "Certificates") != "cas";
    let mut of_devices = crls.iter().filter(of_devices);
    match policy {
        CrlPolicy::Required => Some(match of_devices.any(|crl| !is_expired(crl)) {
            true => "Devices that none covers are cut off now, and all of them when it expires.",
            false => {
                "There is none in date: all its devices are cut off now and refused until one is imported."
            }
        }),
        CrlPolicy::InDate if crls.iter().any(is_expired) => {
            Some("A CRL has expired: devices that no other one covers are cut off now.")
        }
        CrlPolicy::InDate | CrlPolicy::Optional => None,
    }
}

fn crls(connection: &Connection, ca_sn: Option<&str>) -> Result<Vec<Value>, ClientError> {
    let wanted: Vec<_> = ca_sn.map(|sn| ("CaSn", sn)).into_iter().collect();
    lookup::all_pages(connection, Action::ListCrls, "CrlVOS", &wanted)
}

/// The CRL whose id begins so, or the only one of this CA.
fn find(connection: &Connection, text: &str) -> Result<Value, ClientError> {
    let lower = text.to_ascii_lowercase();
    let by_id = |crl: &Value| lower.len() >= 4 && field(crl, "CrlId").starts_with(&lower);
    let mut found = crls(connection, None)?;
    found.retain(by_id);
    if found.is_empty() {
        let sn = field(&lookup::ca(connection, text)?, "Sn");
        found = crls(connection, Some(&sn))?;
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(ClientError::NotFound(format!(
            "CA {:?} has no CRL",
            printable(text)
        ))),
        several => {
            let ids: Vec<_> = several.iter().map(short_id).collect();
            Err(usage(format!(
                "there are several CRLs {:?}; say which: {}",
                printable(text),
                ids.join(", ")
            )))
        }
    }
}

fn short_id(crl: &Value) -> String {
    field(crl, "CrlId").chars().take(16).collect()
}

fn until(crl: &Value) -> String {
    let until = show::time(crl, "NextUpdate");
    match crl.get("Expired").and_then(Value::as_bool) {
        Some(true) => until + " (expired)",
        _ => until,
    }
}

/// In base64 it is as long as the body of a request over the network may be by default.
const LARGE: usize = 180 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_is_asked_where_somebody_may_be_cut_off() {
        let crl = |expired: bool, certificates: &str| json!({"Expired": expired, "Certificates": certificates});
        let says = |policy, crls: &[Value], text: Option<&str>| {
            let said = cut_by(policy, crls);
            assert_eq!(said.is_some(), text.is_some(), "{policy}: {said:?}");
            assert!(said.unwrap_or_default().contains(text.unwrap_or_default()));
        };
        says(CrlPolicy::Optional, &[crl(true, "all")], None);
        says(CrlPolicy::InDate, &[], None);
        says(CrlPolicy::InDate, &[crl(false, "all")], None);
        let old_and_new = [crl(false, "all"), crl(true, "devices")];
        says(CrlPolicy::InDate, &old_and_new, Some("has expired"));
        says(CrlPolicy::Required, &old_and_new, Some("that none covers"));
        says(CrlPolicy::Required, &[], Some("none in date"));
        says(
            CrlPolicy::Required,
            &[crl(true, "all")],
            Some("none in date"),
        );
        says(
            CrlPolicy::Required,
            &[crl(false, "cas")],
            Some("none in date"),
        );
    }
}
