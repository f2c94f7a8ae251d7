//! `portcullis ca`

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{ClientError, Connection, EXIT_CODES, Proof, read_file, usage};
use super::impact::{self, Change};
use super::show::{self, field};
use super::{lookup, proof, schedule};
use crate::admin::action::Action;
use crate::config::secret::Secret;

/// Register the CAs that sign device certificates, and switch them off and on.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum CaCommand {
    /// List the registered CAs.
    List,
    /// Show one CA.
    Show(Which),
    /// Register a CA, with proof that its key is yours; on the broker's host also without.
    Register(RegisterArgs),
    /// Get a register code, for when the CA's key is on another host.
    RegisterCode,
    /// Switch a CA off: its devices are cut off and refused.
    Inactivate(InactivateArgs),
    /// Switch a CA on: its devices are let in again.
    Activate(ActivateArgs),
    /// Delete a CA and the device certificates recorded under it.
    Delete(ChangeArgs),
}

/// A change of a CA that may cut somebody off.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    which: Which,
    /// Say what would be cut off, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also if that locks administrators out.
    #[arg(long)]
    force: bool,
}

/// Arguments of `portcullis ca inactivate`.
#[derive(Debug, Args)]
pub struct InactivateArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// End the live connections over this time, such as 90s, 10m or 1h, instead of at once. Nobody
    /// new gets in meanwhile. Run the command again without it to end the rest at once.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "at")]
    over: Option<Duration>,
    /// Not now, but at this time: in UTC, such as 2026-11-25T22:00:00Z, or from now, such as 90m.
    #[arg(long, value_name = "TIME", value_parser = schedule::moment)]
    at: Option<SystemTime>,
    /// Activate it again after this time, such as 2h, unless somebody changes it before. A CA that is
    /// inactive already stays so, if it was to stay so for good or for longer.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    back_after: Option<Duration>,
}

/// Arguments of `portcullis ca activate`.
#[derive(Debug, Args)]
pub struct ActivateArgs {
    #[command(flatten)]
    which: Which,
    /// Not now, but at this time: in UTC, such as 2026-11-25T22:00:00Z, or from now, such as 90m.
    #[arg(long, value_name = "TIME", value_parser = schedule::moment)]
    at: Option<SystemTime>,
}

/// One CA.
#[derive(Debug, Args)]
pub struct Which {
    /// Serial number or name of the CA.
    #[arg(value_name = "SN|NAME")]
    ca: String,
}

/// Arguments of `portcullis ca register`.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// Name for the CA, 1 to 64 characters.
    name: String,
    /// PEM file of the CA certificate.
    #[arg(value_name = "CA.pem")]
    certificate: PathBuf,
    /// PEM file of the CA's private key. It is used here and never sent.
    #[arg(long, value_name = "CA.key")]
    key: Option<PathBuf>,
    /// PEM file of a verification certificate that the CA signed, with the register code as
    /// common name; see `portcullis ca register-code`.
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    verification: Option<PathBuf>,
    /// Also if that locks administrators out.
    #[arg(long)]
    force: bool,
}

impl CaCommand {
    /// Carry out the command.
    ///
    /// # Errors
    /// Why it did not succeed.
    pub fn run(self, connection: &Connection) -> Result<(), ClientError> {
        match self {
            Self::List => list(connection),
            Self::Show(which) => show_one(connection, &which.ca),
            Self::Register(arguments) => register(connection, &arguments),
            Self::RegisterCode => register_code(connection),
            Self::Inactivate(arguments) => inactivate(connection, &arguments),
            Self::Activate(arguments) => activate(connection, &arguments),
            Self::Delete(arguments) => delete(connection, &arguments),
        }
    }
}

fn list(connection: &Connection) -> Result<(), ClientError> {
    let all = lookup::cas(connection)?;
    show::result(connection, &json!(all), || {
        if all.is_empty() {
            return format!(
                "No CA is registered. Register one: portcullis ca register NAME CA.pem --key CA.key{}\n",
                connection.options
            );
        }
        let row = |ca: &Value| {
            vec![
                field(ca, "CaName"),
                field(ca, "Sn"),
                show::status(ca),
                show::time(ca, "ValidEnd"),
            ]
        };
        show::table(
            &["NAME", "SN", "STATUS", "VALID UNTIL"],
            all.iter().map(row),
        )
    });
    Ok(())
}

fn show_one(connection: &Connection, text: &str) -> Result<(), ClientError> {
    let ca = lookup::ca(connection, text)?;
    show::result(connection, &ca, || {
        let proved = match field(&ca, "RegistrationCode").is_empty() {
            true => "no: registered on the broker's host",
            false => "yes, with a register code",
        };
        show::fields(&[
            ("Name", field(&ca, "CaName")),
            ("SN", field(&ca, "Sn")),
            ("Status", show::status(&ca)),
            ("Valid from", show::time(&ca, "ValidBegin")),
            ("Valid until", show::time(&ca, "ValidEnd")),
            ("Key proved", proved.to_owned()),
            ("CRLs", field(&ca, "CrlPolicy")),
        ]) + "\n"
            + &pem(&ca, "CaContent")
    });
    Ok(())
}

/// The PEM as it is, if it is one.
pub(super) fn pem(value: &Value, name: &str) -> String {
    let text = value.get(name).and_then(Value::as_str).unwrap_or_default();
    text.chars()
        .filter(|c| c.is_ascii_graphic() || [' ', '\n'].contains(c))
        .collect()
}

fn register(connection: &Connection, arguments: &RegisterArgs) -> Result<(), ClientError> {
    let ca = read_file(&arguments.certificate)?;
    let verification = match (&arguments.key, &arguments.verification) {
        (Some(key), _) => {
            let key = Secret::new(read_file(key)?);
            let prover = proof::Prover::new(&ca, &key)?;
            let answer = connection.call(Action::GetRegisterCode, &[])?;
            Some(prover.verification(&field(&answer, "RegisterCode"))?)
        }
        (None, Some(path)) => Some(read_file(path)?),
        (None, None) if connection.proof() == Proof::Host => None,
        (None, None) => {
            return Err(usage(
                "prove that the CA's key is yours with --key or --verification; only on the broker's host (--socket) can a CA be registered without".to_owned(),
            ));
        }
    };
    let mut fields = vec![("CaName", arguments.name.as_str()), ("CaContent", &ca)];
    fields.extend(
        verification
            .as_deref()
            .map(|it| ("VerificationContent", it)),
    );
    fields.extend(arguments.force.then_some(("Force", "true")));
    let answer = connection.call(Action::RegisterCaCertificate, &fields)?;
    show::result(connection, &answer, || {
        let (sn, options) = (field(&answer, "Sn"), &connection.options);
        let unproved = match verification {
            Some(_) => "",
            None => "Nobody proved to hold its key; the audit log says so.\n",
        };
        format!(
            "CA {} is registered and active: devices that it signed can connect.\n{unproved}SN    {sn}\nUndo  portcullis ca inactivate {sn}{options}\n",
            arguments.name
        )
    });
    Ok(())
}

fn register_code(connection: &Connection) -> Result<(), ClientError> {
    let answer = connection.call(Action::GetRegisterCode, &[])?;
    show::result(connection, &answer, || {
        let (code, options) = (field(&answer, "RegisterCode"), &connection.options);
        format!(
            "Register code  {code}\n\
             \n\
             It is good for one CA. Where the CA's key is, sign a certificate with the code as common name:\n\
             \n  \
               openssl req -new -newkey rsa:2048 -nodes -keyout verification.key -subj '/CN={code}' -out verification.csr\n  \
               openssl x509 -req -in verification.csr -CA CA.pem -CAkey CA.key -CAcreateserial -days 1 -sha256 -out verification.pem\n\
             \n\
             Then register the CA:\n\
             \n  \
               portcullis ca register NAME CA.pem --verification verification.pem{options}\n"
        )
    });
    Ok(())
}

fn inactivate(connection: &Connection, arguments: &InactivateArgs) -> Result<(), ClientError> {
    let (ca, sn) = find(connection, &arguments.change.which.ca)?;
    let name = field(&ca, "CaName");
    let settled =
        arguments
            .change
            .settle(connection, &ca, Change::Inactivate, &arguments.typed())?;
    if settled == Settled::ShownOnly {
        return Ok(());
    }
    let seconds = |time: &Option<Duration>| time.map(|time| time.as_secs().max(1).to_string());
    let (over, back) = (seconds(&arguments.over), seconds(&arguments.back_after));
    let mut fields = arguments.change.fields(&sn);
    fields.extend(back.as_deref().map(|back| ("ActivateAfterSeconds", back)));
    if let Some(at) = arguments.at {
        let planned = schedule::plan(connection, "Inactivate", at, fields)?;
        show::result(connection, &planned, || {
            schedule::said(connection, &planned)
        });
        return Ok(());
    }
    fields.extend(
        over.as_deref()
            .map(|over| ("EndConnectionsOverSeconds", over)),
    );
    let answer = connection.call(Action::InactivateCaCertificate, &fields)?;
    show::result(connection, &answer, || {
        let activation = answer.get("Activation");
        let was_inactive = field(&ca, "Status") == "0";
        let mut what = match (was_inactive, has_changed(&answer)) {
            (true, false) => "was inactive before; nothing changed.".to_owned(),
            (true, true) => format!("was inactive before. {}.", show::ended(&answer)),
            (false, _) => format!(
                "is inactive: its devices are refused. {}.",
                show::ended(&answer)
            ),
        };
        what += &cancelled(&answer);
        if back.is_some() && activation.is_none() {
            what += " It was to stay inactive, and does: no activation is planned.";
        }
        let options = &connection.options;
        let planned = activation.map(|it| schedule::said(connection, it));
        format!(
            "CA {name} ({sn}) {what}\n{}Undo  portcullis ca activate {sn}{options}\n",
            planned.unwrap_or_default()
        )
    });
    Ok(())
}

fn activate(connection: &Connection, arguments: &ActivateArgs) -> Result<(), ClientError> {
    let (ca, sn) = find(connection, &arguments.which.ca)?;
    let name = field(&ca, "CaName");
    if let Some(at) = arguments.at {
        let planned = schedule::plan(connection, "Activate", at, vec![("Sn", &sn)])?;
        show::result(connection, &planned, || {
            schedule::said(connection, &planned)
        });
        return Ok(());
    }
    let answer = connection.call(Action::ActiveCaCertificate, &[("Sn", &sn)])?;
    show::result(connection, &answer, || {
        let what = match (field(&ca, "Status").as_str(), has_changed(&answer)) {
            ("1", false) => "was active before; nothing changed.",
            ("1", true) => "was active before.",
            _ => "is active: its devices can connect.",
        };
        format!("CA {name} ({sn}) {what}{}\n", cancelled(&answer))
    });
    Ok(())
}

/// Whether the answer tells of anything besides the state of the CA.
fn has_changed(answer: &Value) -> bool {
    let numbers = [
        "ConnectionsEnded",
        "ConnectionsEnding",
        "SchedulesCancelled",
    ];
    let number = |name| answer.get(name).and_then(Value::as_u64);
    answer.get("Activation").is_some() || numbers.into_iter().any(|name| number(name) > Some(0))
}

fn cancelled(answer: &Value) -> String {
    match answer.get("SchedulesCancelled").and_then(Value::as_u64) {
        None | Some(0) => String::new(),
        Some(1) => " 1 planned activation is cancelled.".to_owned(),
        Some(count) => format!(" {count} planned activations are cancelled."),
    }
}

fn delete(connection: &Connection, arguments: &ChangeArgs) -> Result<(), ClientError> {
    let (ca, sn) = find(connection, &arguments.which.ca)?;
    let name = field(&ca, "CaName");
    if arguments.settle(connection, &ca, Change::Delete, "")? == Settled::ShownOnly {
        return Ok(());
    }
    let answer = connection.call(Action::DeleteCaCertificate, &arguments.fields(&sn))?;
    show::result(connection, &answer, || {
        format!("CA {name} ({sn}) and the device certificates recorded under it are deleted.\n")
    });
    Ok(())
}

/// What became of a change before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    /// It was to be shown only.
    ShownOnly,
    /// It is to be made.
    GoOn,
}

impl InactivateArgs {
    /// How and when, as it can be typed again.
    fn typed(&self) -> String {
        let seconds = |name, time: Option<Duration>| {
            time.map(|time| format!(" --{name} {}s", time.as_secs().max(1)))
        };
        let at = self
            .at
            .map(|at| format!(" --at {}", humantime::format_rfc3339_seconds(at)));
        let all = [
            at,
            seconds("over", self.over),
            seconds("for", self.back_after),
        ];
        all.into_iter().flatten().collect()
    }
}

impl ChangeArgs {
    /// Show what the change would do, or ask whether to make it. `typed` are the other options.
    fn settle(
        &self,
        connection: &Connection,
        ca: &Value,
        change: Change,
        typed: &str,
    ) -> Result<Settled, ClientError> {
        if self.dry_run {
            let impact = impact::of_ca(connection, &field(ca, "Sn"), change)?;
            impact::show_ca(connection, &impact, change, typed);
            return Ok(Settled::ShownOnly);
        }
        impact::confirm_ca(connection, ca, change, self.force)?;
        Ok(Settled::GoOn)
    }

    fn fields<'a>(&self, sn: &'a str) -> Vec<(&'static str, &'a str)> {
        let force = self.force.then_some(("Force", "true"));
        std::iter::once(("Sn", sn)).chain(force).collect()
    }
}

fn find(connection: &Connection, text: &str) -> Result<(Value, String), ClientError> {
    let ca = lookup::ca(connection, text)?;
    let sn = field(&ca, "Sn");
    Ok((ca, sn))
}
