//! `portcullis session`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{ClientError, Connection, EXIT_CODES, printable, quoted};
use super::lookup;
use super::show::{self, field, number};
use crate::admin::action::Action;
use crate::admin::errors::Code;

/// Look at the sessions of clients, and end their connections.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum SessionCommand {
    /// List the sessions, with and without connection.
    List(ListArgs),
    /// Show one session.
    Show(Which),
    /// End the connection of a client; it may connect again.
    Close(Which),
}

/// Arguments of `portcullis session list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of clients that this CA let in: serial number or name.
    #[arg(long, value_name = "SN|NAME")]
    ca: Option<String>,
    /// Only those of clients that are connected.
    #[arg(long)]
    online: bool,
}

/// One client.
#[derive(Debug, Args)]
pub struct Which {
    /// The client id.
    #[arg(value_name = "CLIENT_ID")]
    client_id: String,
}

impl SessionCommand {
    /// Carry out the command.
    ///
    /// # Errors
    /// Why it did not succeed.
    pub fn run(self, connection: &Connection) -> Result<(), ClientError> {
        match self {
            Self::List(arguments) => list(connection, &arguments),
            Self::Show(which) => show_one(connection, &which.client_id),
            Self::Close(which) => close(connection, &which.client_id),
        }
    }
}

fn list(connection: &Connection, arguments: &ListArgs) -> Result<(), ClientError> {
    let ca_sn = match &arguments.ca {
        Some(text) => Some(field(&lookup::ca(connection, text)?, "Sn")),
        None => None,
    };
    let mut wanted = Vec::new();
    if let Some(sn) = &ca_sn {
        wanted.push(("CaSn", sn.as_str()));
    }
    if arguments.online {
        wanted.push(("OnlineStatus", "true"));
    }
    let all = lookup::all_pages(connection, Action::ListSessions, "SessionVOS", &wanted)?;
    show::result(connection, &json!(all), || {
        if all.is_empty() {
            return match wanted.is_empty() {
                true => "There are no sessions; a client has one while it is connected, or for as long as it asks for.\n",
                false => "There are no such sessions.\n",
            }
            .to_owned();
        }
        let row = |session: &Value| {
            vec![
                field(session, "ClientId"),
                presence(session),
                field(session, "DeviceName"),
                field(session, "CaSn"),
                field(session, "PeerAddress"),
                since(session),
                number(session, "Subscriptions"),
                number(session, "QueuedMessages"),
            ]
        };
        let heads = [
            "CLIENT ID",
            "STATE",
            "NAME",
            "CA SN",
            "FROM",
            "SINCE",
            "SUBSCRIPTIONS",
            "QUEUED",
        ];
        show::table(&heads, all.iter().map(row))
    });
    Ok(())
}

fn show_one(connection: &Connection, client_id: &str) -> Result<(), ClientError> {
    let session = find(connection, client_id)?;
    show::result(connection, &session, || {
        let from = match online(&session) {
            true => "From",
            false => "Last from",
        };
        show::fields(&[
            ("Client id", field(&session, "ClientId")),
            ("State", presence(&session)),
            (from, field(&session, "PeerAddress")),
            ("Since", since(&session)),
            ("Name", field(&session, "DeviceName")),
            ("Device SN", field(&session, "DeviceSn")),
            ("CA SN", field(&session, "CaSn")),
            ("Subscriptions", number(&session, "Subscriptions")),
            ("Queued", number(&session, "QueuedMessages")),
        ])
    });
    Ok(())
}

fn close(connection: &Connection, client_id: &str) -> Result<(), ClientError> {
    // Whoever may close, but not look, is told less about what was closed.
    let session = match find(connection, client_id) {
        Ok(session) => Some(session),
        Err(ClientError::Refused { code, .. }) if code == Code::PermissionCheckFailed.as_str() => {
            None
        }
        Err(error) => return Err(error),
    };
    let shown = printable(client_id);
    show::confirm(
        connection,
        &format!("End the connection of client {shown}? It may connect again."),
    )?;
    let answer = connection.call(Action::CloseConnection, &[("ClientId", client_id)])?;
    show::result(connection, &answer, || {
        if answer.get("Success") != Some(&Value::Bool(true)) {
            return format!("Client {shown} is not connected; nothing was closed.\n");
        }
        let keep_out = match &session {
            Some(session) => format!(
                "portcullis device inactivate {} --ca {}{}",
                quoted(&field(session, "DeviceSn")),
                quoted(&field(session, "CaSn")),
                connection.options
            ),
            None => format!("portcullis device inactivate DEVICE{}", connection.options),
        };
        format!(
            "The connection of client {shown} was ended; the client may connect again.\nKeep it out  {keep_out}\n"
        )
    });
    Ok(())
}

fn find(connection: &Connection, client_id: &str) -> Result<Value, ClientError> {
    let wanted = [("ClientId", client_id)];
    let found = lookup::all_pages(connection, Action::ListSessions, "SessionVOS", &wanted)?;
    found.into_iter().next().ok_or_else(|| {
        ClientError::NotFound(format!(
            "there is no session with the client id {:?}; `portcullis session list{}` shows those there are",
            printable(client_id),
            connection.options
        ))
    })
}

fn online(session: &Value) -> bool {
    session.get("OnlineStatus") == Some(&Value::Bool(true))
}

fn presence(session: &Value) -> String {
    match online(session) {
        true => "online",
        false => "away",
    }
    .to_owned()
}

fn since(session: &Value) -> String {
    match online(session) {
        true => show::time(session, "ConnectedSince"),
        false => "-".to_owned(),
    }
}
