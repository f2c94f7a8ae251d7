//! `portcullis explain`

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde_json::Value;

use super::client::{ClientError, Connection, read_file, usage};
use super::lookup;
use super::show::{self, field};
use crate::admin::action::Action;
use crate::ca::certificate::to_pem;
use crate::ca::explain::Chain;

/// Arguments of `portcullis explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// PEM file with the device's certificate first and after it what the device sends besides;
    /// `-` is standard input. A private key in it is not sent.
    #[arg(value_name = "CERT.pem")]
    chain: PathBuf,
}

impl ExplainArgs {
    /// Ask the broker, and print what it says. The exit code is 5 if it would refuse:
    /// another than if it does not answer the question.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn run(&self, connection: &Connection) -> Result<ExitCode, ClientError> {
        let chain = certificates(&self.read()?)?;
        let answer = connection.call(Action::ExplainCertificate, &[("ChainContent", &chain)])?;
        let data = lookup::data(answer);
        show::result(connection, &data, || text(&data, &connection.options));
        Ok(match accepted(&data) {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(WOULD_REFUSE),
        })
    }

    fn read(&self) -> Result<String, ClientError> {
        if self.chain.as_os_str() != "-" {
            return read_file(&self.chain);
        }
        let mut text = String::new();
        // One octet more, so that what is too much is told.
        let most = u64::try_from(Chain::MOST_OCTETS).unwrap_or(u64::MAX);
        std::io::stdin()
            .take(most.saturating_add(1))
            .read_to_string(&mut text)
            .map_err(|error| usage(format!("standard input cannot be read: {error}")))?;
        Ok(text)
    }
}

/// The certificates of a PEM text and nothing else: a key that stands beside them stays here.
fn certificates(text: &str) -> Result<String, ClientError> {
    if text.len() > Chain::MOST_OCTETS {
        return Err(usage(format!(
            "the chain has more than {} octets",
            Chain::MOST_OCTETS
        )));
    }
    let mut chain = String::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        match section {
            Ok((SectionKind::Certificate, der)) => chain.push_str(&to_pem(&der)),
            Ok(_) => {}
            Err(error) => return Err(usage(format!("the PEM cannot be read: {error}"))),
        }
    }
    match chain.is_empty() {
        true => Err(usage(
            "there is no certificate in it; it must begin with -----BEGIN CERTIFICATE-----"
                .to_owned(),
        )),
        false => Ok(chain),
    }
}

/// The exit code if the chain would be refused.
const WOULD_REFUSE: u8 = 5;

fn text(data: &Value, options: &str) -> String {
    let mut text = match accepted(data) {
        true => format!(
            "accepted: device {} would be let in over CA {}\n",
            field(data, "DeviceSn"),
            field(data, "CaSn")
        ),
        false => format!(
            "refused: {} ({})\n",
            field(data, "Detail"),
            field(data, "Reason")
        ),
    };
    let (hint, command) = (field(data, "Hint"), field(data, "HintCommand"));
    if !hint.is_empty() {
        text += &format!("to do: {hint}\n");
    }
    if !command.is_empty() {
        text += &format!("       portcullis {command}{options}\n");
    }
    for (number, path) in (1..).zip(list(data, "Paths")) {
        text += &match accepted(path) {
            true => format!("\npath {number}: accepted\n"),
            false => format!("\npath {number}: {}\n", field(path, "Detail")),
        };
        let rows = list(path, "Certificates").iter().map(|it| {
            vec![
                format!("  {}", field(it, "Role")),
                field(it, "Sn"),
                state(it),
                show::time(it, "ValidEnd"),
                name(it),
            ]
        });
        text += &show::table(&["  ROLE", "SN", "STATE", "VALID UNTIL", "SUBJECT"], rows);
    }
    let left_out = data.get("PathsLeftOut").and_then(Value::as_u64);
    if let Some(more @ 1..) = left_out {
        text += &format!("\n{more} more CAs have a name that fits; they are not shown.\n");
    }
    text + &unused(data)
}

/// What was sent and is on no path.
fn unused(data: &Value) -> String {
    let mut text = String::new();
    for it in list(data, "Certificates") {
        let unread = field(it, "Fault");
        if !unread.is_empty() {
            text += &format!("\na certificate that was sent cannot be read: {unread}\n");
        } else if it.get("Used") == Some(&Value::Bool(false)) {
            text += &format!(
                "\nsent, but on no path: {} ({})\n",
                field(it, "Sn"),
                field(it, "Subject")
            );
        }
    }
    text
}

fn state(step: &Value) -> String {
    let (state, reason) = (field(step, "State"), field(step, "StateReason"));
    match reason.is_empty() {
        true => state,
        false => format!("{state}: {reason}"),
    }
}

fn name(step: &Value) -> String {
    let (name, subject) = (field(step, "CaName"), field(step, "Subject"));
    match name.is_empty() {
        true => subject,
        false => format!("{subject} [{name}]"),
    }
}

fn accepted(value: &Value) -> bool {
    value.get("Accepted") == Some(&Value::Bool(true))
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    let list = value.get(name).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}
