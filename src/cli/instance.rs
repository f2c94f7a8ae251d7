//! `portcullis instance`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{ClientError, Connection, EXIT_CODES, printable, usage};
use super::show::{self, field, number};
use crate::admin::action::Action;

/// Look at the instances of the broker.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum InstanceCommand {
    /// List the instances that the access key reaches.
    List,
    /// Show one instance.
    Show(Which),
}

/// One instance.
#[derive(Debug, Args)]
pub struct Which {
    /// The instance [default: the one that is administered]
    #[arg(value_name = "ID")]
    id: Option<String>,
}

impl InstanceCommand {
    /// Carry out the command.
    ///
    /// # Errors
    /// Why it did not succeed.
    pub fn run(self, connection: &Connection) -> Result<(), ClientError> {
        match self {
            Self::List => list(connection),
            Self::Show(which) => show_one(connection, which.id.as_deref()),
        }
    }
}

fn list(connection: &Connection) -> Result<(), ClientError> {
    let all = instances(connection)?;
    show::result(connection, &json!(all), || {
        if all.is_empty() {
            return "The access key reaches no instance.\n".to_owned();
        }
        let row = |instance: &Value| {
            vec![
                field(instance, "InstanceId"),
                status(instance),
                field(instance, "RegionId"),
                field(instance, "Account"),
                number(instance, "Connections"),
                number(instance, "Sessions"),
            ]
        };
        let heads = [
            "INSTANCE",
            "STATUS",
            "REGION",
            "ACCOUNT",
            "CONNECTIONS",
            "SESSIONS",
        ];
        show::table(&heads, all.iter().map(row))
    });
    Ok(())
}

fn show_one(connection: &Connection, id: Option<&str>) -> Result<(), ClientError> {
    let all = instances(connection)?;
    let instance = match (id.or(connection.named_instance()), all.as_slice()) {
        (Some(id), _) => all
            .iter()
            .find(|instance| field(instance, "InstanceId") == id)
            .ok_or_else(|| {
                ClientError::NotFound(format!(
                    "there is no instance {:?}, or none that is yours; see `portcullis instance list{}`",
                    printable(id),
                    connection.options
                ))
            })?,
        (None, [only]) => only,
        (None, _) => {
            return Err(usage(format!(
                "say which instance; `portcullis instance list{}` shows them",
                connection.options
            )));
        }
    };
    show::result(connection, instance, || {
        show::fields(&[
            ("Instance", field(instance, "InstanceId")),
            ("Status", status(instance)),
            ("Region", field(instance, "RegionId")),
            ("Account", field(instance, "Account")),
            ("Connections", number(instance, "Connections")),
            ("Sessions", number(instance, "Sessions")),
        ])
    });
    Ok(())
}

fn instances(connection: &Connection) -> Result<Vec<Value>, ClientError> {
    let mut answer = connection.call(Action::ListInstances, &[])?;
    match answer.get_mut("Instances").map(Value::take) {
        Some(Value::Array(all)) => Ok(all),
        _ => Ok(Vec::new()),
    }
}

/// The vendor's number in words.
fn status(instance: &Value) -> String {
    match instance.get("InstanceStatus").and_then(Value::as_u64) {
        Some(5) => "in service",
        _ => "?",
    }
    .to_owned()
}
