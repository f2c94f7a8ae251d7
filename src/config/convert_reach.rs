//! How clients reach an instance besides MQTT over TLS: WebSocket, and through which proxies.

use std::net::IpAddr;

use hyper::Uri;
use ipnet::IpNet;

use super::fault::Faults;
use super::{WebSocket, file};
use crate::mqtt::listener::Proxies;
use crate::mqtt::websocket::upgrade::Door;

/// The address for WebSocket, if there is one, and what clients may ask for there.
pub(super) fn websocket(
    faults: &mut Faults,
    key: &str,
    written: &file::Instance,
) -> Option<Option<WebSocket>> {
    let at = |name: &str| format!("{key}.{name}");
    let listen = match &written.websocket_listen {
        Some(text) => faults.parse(&at("websocket_listen"), text).map(Some),
        None => Some(None),
    };
    let path = written.websocket_path.clone();
    let uri = path.parse().ok().filter(|uri: &Uri| uri.path() == path);
    if !path.starts_with('/') || uri.is_none_or(|uri| uri.query().is_some()) {
        let what = "must be the path of a URL, such as /mqtt, without ? and #";
        faults.add(&at("websocket_path"), &path, what);
    }
    let origins = written.websocket_origins.iter().enumerate();
    let origins = origins
        .filter_map(|(index, text)| {
            faults.parse(&format!("{key}.websocket_origins[{index}]"), text)
        })
        .collect();
    let door = Door { path, origins };
    Some(listen?.map(|listen| WebSocket { listen, door }))
}

/// The proxies before the addresses of an instance.
pub(super) fn proxies(faults: &mut Faults, key: &str, written: &file::Instance) -> Option<Proxies> {
    let words = [("off", Version::Off), ("v2", Version::V2)];
    let version = faults.word(
        &format!("{key}.proxy_protocol"),
        &written.proxy_protocol,
        &words,
    );
    let trusted: Vec<Option<IpNet>> = written
        .proxy_trusted
        .iter()
        .enumerate()
        .map(|(index, text)| match network(text) {
            Ok(network) => Some(network),
            Err(what) => {
                faults.add(&format!("{key}.proxy_trusted[{index}]"), text, what);
                None
            }
        })
        .collect();
    if version? == Version::Off {
        return Some(Proxies::None);
    }
    if trusted.is_empty() {
        let what = "the networks of the proxies are required with proxy_protocol = \"v2\", \
                    since whoever can send a header can name any address";
        faults.missing(&format!("{key}.proxy_trusted"), what);
    }
    let trusted: Option<Vec<IpNet>> = trusted.into_iter().collect();
    trusted.map(Proxies::Trusted)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Off,
    V2,
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text
        .parse()
        .map_err(|_| "must be a network, such as 10.0.0.0/8, or an address".to_owned())?;
    match network.trunc() == network {
        true => Ok(network),
        false => Err(format!(
            "has bits behind its prefix; the network is {}",
            network.trunc()
        )),
    }
}
