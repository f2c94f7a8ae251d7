//! `portcullis key`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{ClientError, Connection, EXIT_CODES, Proof, read_file, usage};
use super::lookup;
use super::show::{self, field};
use crate::admin::action::Action;
use crate::app::private_file;
use crate::secret::Secret;

/// Access keys, which sign requests to the admin API: create, limit, disable and delete them.
/// Works on the broker's host only.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum KeyCommand {
    /// Create an access key. Its secret is shown this once.
    Create(CreateArgs),
    /// List the access keys.
    List,
    /// Show one access key with its policy.
    Show(Which),
    /// Refuse all requests of a key from now on; `enable` takes that back.
    Disable(Which),
    /// Take the requests of a key again.
    Enable(Which),
    /// Give a key another policy, or all rights of its account.
    SetPolicy(PolicyArgs),
    /// Delete a key for good.
    Delete(Which),
}

/// Arguments of `portcullis key create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Account that the key belongs to [default: the owner of the instance]
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// What the key is for, at most 128 characters
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// JSON file with a policy of the vendor's form; without one the key may do everything on its
    /// account's instances
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Write a key file for --key-file here, with mode 0600, instead of showing the secret
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Arguments of `portcullis key set-policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// Id of the access key
    #[arg(value_name = "ACCESS_KEY_ID")]
    id: String,
    /// JSON file with the policy
    #[arg(value_name = "FILE", required_unless_present = "everything")]
    policy: Option<PathBuf>,
    /// Everything on the account's instances
    #[arg(long, conflicts_with = "policy")]
    everything: bool,
}

/// One access key.
#[derive(Debug, Args)]
pub struct Which {
    /// Id of the access key
    #[arg(value_name = "ACCESS_KEY_ID")]
    id: String,
}

impl KeyCommand {
    /// Carry out the command.
    ///
    /// # Errors
    /// Why it did not succeed.
    pub fn run(self, connection: &Connection) -> Result<(), ClientError> {
        if connection.proof() == Proof::Key {
            return Err(usage(
                "access keys are managed on the broker's host: run this there, as root or the user that the broker runs as, and name the broker's socket with --socket if it is not found".to_owned(),
            ));
        }
        match self {
            Self::Create(arguments) => create(connection, &arguments),
            Self::List => list(connection),
            Self::Show(which) => show_one(connection, &which.id),
            Self::Disable(which) => set_status(connection, &which.id, "Inactive"),
            Self::Enable(which) => set_status(connection, &which.id, "Active"),
            Self::SetPolicy(arguments) => set_policy(connection, &arguments),
            Self::Delete(which) => delete(connection, &which.id),
        }
    }
}

fn create(connection: &Connection, arguments: &CreateArgs) -> Result<(), ClientError> {
    if let Some(path) = &arguments.out
        && path.exists()
    {
        return Err(usage(format!(
            "{} exists already; a key file is not overwritten",
            path.display()
        )));
    }
    let policy = arguments.policy.as_deref().map(read_file).transpose()?;
    let mut fields = Vec::new();
    fields.extend(connection.named_instance().map(|it| ("MqttInstanceId", it)));
    fields.extend(arguments.account.as_deref().map(|it| ("Account", it)));
    fields.extend(arguments.comment.as_deref().map(|it| ("Comment", it)));
    fields.extend(policy.as_deref().map(|it| ("Policy", it)));
    let mut key = access_key(connection.call(Action::CreateAccessKey, &fields)?);
    let id = field(&key, "AccessKeyId");
    if let Some(path) = &arguments.out {
        write_key_file(connection, path, &key, &id)?;
        if let Some(fields) = key.as_object_mut() {
            fields.remove("AccessKeySecret");
        }
    }
    show::result(connection, &key, || {
        let may = match policy {
            None => "everything on the instances of its account",
            Some(_) => "what its policy allows",
        };
        let account = field(&key, "Account");
        let mut text = match &arguments.out {
            Some(path) => format!(
                "Access key {id} of account {account} is good for {may}.\nKey file  {}\n",
                path.display()
            ),
            None => format!(
                "Access key {id} of account {account} is good for {may}.\n\
                 AccessKeyId      {id}\n\
                 AccessKeySecret  {}\n\
                 The secret is not shown again.\n",
                field(&key, "AccessKeySecret")
            ),
        };
        if key.get("OwnsAnInstance") == Some(&json!(false)) {
            text += &format!(
                "Note: no instance here belongs to account {account}, so it can do nothing yet.\n"
            );
        }
        text + &format!("Undo  portcullis key delete {id}{}\n", connection.options)
    });
    Ok(())
}

fn write_key_file(
    connection: &Connection,
    path: &Path,
    key: &Value,
    id: &str,
) -> Result<(), ClientError> {
    let secret = Secret::new(field(key, "AccessKeySecret"));
    let mut file = json!({ "AccessKeyId": id, "AccessKeySecret": secret.reveal() });
    if let (Some(instance), Some(fields)) = (connection.named_instance(), file.as_object_mut()) {
        fields.insert("MqttInstanceId".to_owned(), json!(instance));
    }
    let text = Secret::new(format!("{file:#}\n"));
    // A path without a directory is one in this directory.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    private_file::write(&path, text.reveal().as_bytes()).map_err(|error| {
        usage(format!(
            "the key file {} cannot be written: {error}. The key {id} exists, and its secret is lost: delete it (portcullis key delete {id}{}) and create another",
            path.display(),
            connection.options
        ))
    })
}

fn list(connection: &Connection) -> Result<(), ClientError> {
    let all = lookup::access_keys(connection)?;
    show::result(connection, &json!(all), || {
        if all.is_empty() {
            return format!(
                "There is no access key. Create one: portcullis key create{}\n",
                connection.options
            );
        }
        let row = |key: &Value| {
            vec![
                field(key, "AccessKeyId"),
                field(key, "Account"),
                status(key),
                rights(key).to_owned(),
                field(key, "CreateDate"),
                field(key, "Comment"),
            ]
        };
        let heads = ["ID", "ACCOUNT", "STATUS", "MAY DO", "CREATED", "COMMENT"];
        show::table(&heads, all.iter().map(row))
    });
    Ok(())
}

fn show_one(connection: &Connection, id: &str) -> Result<(), ClientError> {
    let key = lookup::access_key(connection, id)?;
    show::result(connection, &key, || {
        let policy = match field(&key, "Policy") {
            none if none.is_empty() => String::new(),
            policy => format!("\n{policy}\n"),
        };
        show::fields(&[
            ("Id", field(&key, "AccessKeyId")),
            ("Account", field(&key, "Account")),
            ("Status", status(&key)),
            ("May do", rights(&key).to_owned()),
            ("Created", field(&key, "CreateDate")),
            ("Comment", field(&key, "Comment")),
        ]) + &policy
    });
    Ok(())
}

fn set_status(connection: &Connection, id: &str, status: &str) -> Result<(), ClientError> {
    let before = lookup::access_key(connection, id)?;
    let id = field(&before, "AccessKeyId");
    if status == "Inactive" {
        show::confirm(
            connection,
            &format!("Disable access key {id}? Its requests are refused from now on."),
        )?;
    }
    let fields = [("UserAccessKeyId", id.as_str()), ("Status", status)];
    let key = access_key(connection.call(Action::UpdateAccessKey, &fields)?);
    show::result(connection, &key, || {
        let same = field(&before, "Status") == status;
        match (status, same) {
            ("Active", true) => format!("Access key {id} was enabled before; nothing changed.\n"),
            ("Active", false) => format!("Access key {id} is enabled: its requests are taken.\n"),
            (_, true) => format!("Access key {id} was disabled before; nothing changed.\n"),
            (_, false) => format!(
                "Access key {id} is disabled: its requests are refused.\nUndo  portcullis key enable {id}{}\n",
                connection.options
            ),
        }
    });
    Ok(())
}

fn set_policy(connection: &Connection, arguments: &PolicyArgs) -> Result<(), ClientError> {
    let policy = match (&arguments.policy, arguments.everything) {
        (Some(path), _) => read_file(path)?,
        (None, true) => String::new(),
        (None, false) => return Err(usage("give a policy file or --everything".to_owned())),
    };
    let fields = [
        ("UserAccessKeyId", arguments.id.as_str()),
        ("Policy", &policy),
    ];
    let key = access_key(connection.call(Action::UpdateAccessKey, &fields)?);
    show::result(connection, &key, || {
        format!(
            "Access key {} may do {} from now on.\n",
            field(&key, "AccessKeyId"),
            match policy.is_empty() {
                true => "everything on its account's instances",
                false => "what the policy allows",
            }
        )
    });
    Ok(())
}

fn delete(connection: &Connection, id: &str) -> Result<(), ClientError> {
    let id = field(&lookup::access_key(connection, id)?, "AccessKeyId");
    show::confirm(
        connection,
        &format!("Delete access key {id}? Its requests are refused from now on, for good."),
    )?;
    let answer = connection.call(Action::DeleteAccessKey, &[("UserAccessKeyId", &id)])?;
    show::result(connection, &answer, || {
        format!("Access key {id} is deleted.\n")
    });
    Ok(())
}

/// The key in the answer.
fn access_key(mut answer: Value) -> Value {
    answer
        .get_mut("AccessKey")
        .map(Value::take)
        .unwrap_or_default()
}

fn status(key: &Value) -> String {
    match field(key, "Status").as_str() {
        "Active" => "enabled".to_owned(),
        _ => "disabled".to_owned(),
    }
}

fn rights(key: &Value) -> &'static str {
    match field(key, "Policy").is_empty() {
        true => "everything",
        false => "by policy",
    }
}
