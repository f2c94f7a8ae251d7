//! The operations on sessions and instances: their parameters and answers.
//!
//! `CloseConnection`, the two queries and `ListInstances` are the vendor's; `ListSessions` is ours.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Outcome, field, page, required};
use crate::admin::errors::ApiError;
use crate::admin::params::Params;
use crate::control::sessions::{Closed, InstanceView, Presence, SessionView};
use crate::control::{Caller, Control, Page, PageRequest};

/// The most clients that may be asked after in one call.
const MOST_CLIENTS: usize = 10;

/// End the connection of a client.
pub(super) async fn close(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let client_id = required(params, "ClientId")?;
    let closed = control
        .close_connection(caller, instance, client_id)
        .await?;
    Ok(closed_connection(closed))
}

/// Whether a client is connected.
pub(super) fn query(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let client_id = required(params, "ClientId")?;
    let online = control.is_online(caller, instance, client_id)?;
    Ok(json!({ "OnlineStatus": online }))
}

/// Whether each of some clients is connected.
pub(super) fn query_batch(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let client_ids = client_ids(params)?;
    let online = control.are_online(caller, instance, &client_ids)?;
    let list: Vec<Value> = client_ids
        .iter()
        .zip(online)
        .map(|(id, online)| json!({ "ClientId": id, "OnlineStatus": online }))
        .collect();
    Ok(json!({ "OnlineStatusList": list }))
}

/// A page of the sessions, or the session of one client.
pub(super) async fn list(
    control: &Control,
    caller: &Caller,
    instance: &str,
    params: &Params,
) -> Outcome {
    let page = page(params)?;
    let listed = match params.get("ClientId") {
        Some(client_id) => {
            let found = control.get_session(caller, instance, client_id)?;
            let total = usize::from(found.is_some());
            let items = found.into_iter().skip(page.offset()).collect();
            Page { items, total }
        }
        None => {
            let ca_sn = params.get("CaSn");
            let presence = presence(params)?;
            control
                .list_sessions(caller, instance, ca_sn, presence, page)
                .await?
        }
    };
    Ok(sessions(listed, page))
}

/// The instances that the caller may see.
pub(super) fn instances(control: &Control, caller: &Caller, params: &Params) -> Outcome {
    // Whoever asks for a tag does not want the others.
    if params.get("Tags").is_some_and(|tags| !tags.is_empty()) {
        return Err(field(
            "Tags cannot be given: instances have none.".to_owned(),
        ));
    }
    let all: Vec<_> = control
        .list_instances(caller)
        .into_iter()
        .map(Instance::from)
        .collect();
    // Unlike elsewhere, the vendor has a text for the code and for the success here.
    Ok(json!({ "Code": "200", "Success": "true", "Message": SUCCESS, "Instances": all }))
}

/// `ClientIdList.1` to `ClientIdList.10`, in the order of their numbers.
fn client_ids(params: &Params) -> Result<Vec<&str>, ApiError> {
    let wrong = || {
        field(format!(
            "Give 1 to {MOST_CLIENTS} client ids as ClientIdList.1 to ClientIdList.{MOST_CLIENTS}."
        ))
    };
    let names: Vec<String> = (1..=MOST_CLIENTS)
        .map(|number| format!("ClientIdList.{number}"))
        .collect();
    let given = params
        .names()
        .filter(|name| name.starts_with("ClientIdList"));
    if given
        .into_iter()
        .any(|name| !names.iter().any(|it| it == name))
    {
        return Err(wrong());
    }
    let ids: Vec<_> = names.iter().filter_map(|name| params.get(name)).collect();
    match ids.is_empty() {
        true => Err(wrong()),
        false => Ok(ids),
    }
}

fn presence(params: &Params) -> Result<Option<Presence>, ApiError> {
    match params.get("OnlineStatus") {
        None => Ok(None),
        Some("true") => Ok(Some(Presence::Online)),
        Some("false") => Ok(Some(Presence::Away)),
        Some(_) => Err(field("OnlineStatus must be true or false.".to_owned())),
    }
}

/// The vendor's text.
const SUCCESS: &str = "operation success.";

/// The code stays 200 if there was nothing to close: some of the SDKs take any other for an
/// exception, and whoever repeats a call whose answer was lost has reached what they wanted.
fn closed_connection(closed: Closed) -> Value {
    let (success, message, ended) = match closed {
        Closed::Ended => (true, SUCCESS, 1),
        Closed::Told => (
            true,
            "The connection has been told to end and has not ended yet.",
            1,
        ),
        Closed::NotConnected => (
            false,
            "No client with this id is connected; nothing was closed.",
            0,
        ),
    };
    json!({ "Code": 200, "Success": success, "Message": message, "ConnectionsEnded": ended })
}

/// A session. Times are strings, as the vendor has them; counts are numbers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Session {
    client_id: String,
    online_status: bool,
    ca_sn: String,
    device_sn: String,
    device_name: String,
    peer_address: String,
    /// Milliseconds; empty if the client is away.
    connected_since: String,
    subscriptions: usize,
    queued_messages: usize,
}

impl From<SessionView> for Session {
    fn from(session: SessionView) -> Self {
        Self {
            client_id: session.client_id,
            online_status: session.presence == Presence::Online,
            ca_sn: session.ca_sn.to_string(),
            device_sn: session.device_sn.to_string(),
            device_name: session.common_name,
            peer_address: session.address.to_string(),
            connected_since: session
                .connected_since_ms
                .map(|since| since.to_string())
                .unwrap_or_default(),
            subscriptions: session.subscriptions,
            queued_messages: session.queued,
        }
    }
}

fn sessions(listed: Page<SessionView>, request: PageRequest) -> Value {
    let items: Vec<Session> = listed.items.into_iter().map(Session::from).collect();
    json!({ "Data": {
        "SessionVOS": items,
        "PageNo": request.number,
        "PageSize": request.size,
        "Total": listed.total,
    }})
}

/// An instance: of the vendor's fields those that there is something for, and after them ours.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    instance_id: String,
    instance_name: String,
    instance_status: u8,
    region_id: String,
    account: String,
    connections: usize,
    sessions: usize,
}

/// The vendor's number for an instance that is in service.
const IN_SERVICE: u8 = 5;

impl From<InstanceView> for Instance {
    fn from(instance: InstanceView) -> Self {
        Self {
            instance_name: instance.id.to_string(),
            instance_id: instance.id.to_string(),
            instance_status: IN_SERVICE,
            region_id: instance.region,
            account: instance.account.to_string(),
            connections: instance.connections,
            sessions: instance.sessions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::errors::Code;

    #[test]
    fn clients_are_taken_in_the_order_of_their_numbers() {
        let read = |text: &str| {
            let params = Params::decode(text).unwrap();
            client_ids(&params)
                .map(|ids| ids.join(" "))
                .map_err(|error| error.code)
        };
        assert_eq!(read("ClientIdList.1=a"), Ok("a".to_owned()));
        let ten: Vec<_> = (1..=10).map(|n| format!("ClientIdList.{n}=c{n}")).collect();
        let ten = ten.join("&");
        assert_eq!(read(&ten), Ok("c1 c2 c3 c4 c5 c6 c7 c8 c9 c10".to_owned()));
        for bad in [
            "",
            "InstanceId=x",
            "ClientIdList=a%2Cb",
            "ClientIdList.0=a",
            "ClientIdList.01=a",
            "ClientIdList.11=a",
            "ClientIdList.=a",
            "ClientIdList.1.2=a",
            &format!("{ten}&ClientIdList.11=a"),
        ] {
            assert_eq!(read(bad), Err(Code::ParameterFieldCheckFailed), "{bad}");
        }
    }

    #[test]
    fn closing_never_looks_like_an_exception() {
        for (closed, success) in [
            (Closed::Ended, true),
            (Closed::Told, true),
            (Closed::NotConnected, false),
        ] {
            let answer = closed_connection(closed);
            assert_eq!(answer["Code"], 200);
            assert_eq!(answer["Success"], success);
            assert!(answer["Message"].is_string());
        }
    }

    #[test]
    fn session_has_strings_for_times_and_numbers_for_counts() {
        let view = SessionView {
            client_id: "c".to_owned(),
            presence: Presence::Online,
            ca_sn: "f269".parse().unwrap(),
            device_sn: "7".parse().unwrap(),
            common_name: "thermometer".to_owned(),
            address: "[::1]:5".parse().unwrap(),
            connected_since_ms: Some(1_654_137_303_000),
            subscriptions: 2,
            queued: 3,
        };
        let page = PageRequest { number: 1, size: 5 };
        let away = SessionView {
            presence: Presence::Away,
            connected_since_ms: None,
            ..view.clone()
        };
        let items = vec![view, away];
        let body = sessions(Page { items, total: 7 }, page);
        assert_eq!(
            body["Data"]["SessionVOS"][0],
            json!({
                "ClientId": "c",
                "OnlineStatus": true,
                "CaSn": "00f269",
                "DeviceSn": "07",
                "DeviceName": "thermometer",
                "PeerAddress": "[::1]:5",
                "ConnectedSince": "1654137303000",
                "Subscriptions": 2,
                "QueuedMessages": 3,
            })
        );
        let away = &body["Data"]["SessionVOS"][1];
        assert_eq!(away["OnlineStatus"], false);
        assert_eq!(away["ConnectedSince"], "");
        assert_eq!(body["Data"]["Total"], 7);
    }
}
