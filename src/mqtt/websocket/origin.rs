//! Where a page comes from that a browser connects for (RFC 6454).

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

/// The origin of a page: scheme, host and port, in the form that browsers send.
///
/// Browsers show a device certificate to whichever page asks, and let any page connect to any
/// server; only the header `Origin` tells the server which page it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(String);

/// Why a text is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the origin of a page, such as https://console.example.com, without a path")]
pub struct OriginError;

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // An address of its own ends where a path begins, and the parser adds the path.
        if text.ends_with('/') || text.contains(['@', '*', '?', '#']) {
            return Err(OriginError);
        }
        let uri: Uri = text.parse().map_err(|_| OriginError)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(OriginError);
        };
        if uri.path() != "/" || authority.host().is_empty() {
            return Err(OriginError);
        }
        let (scheme, host) = (scheme.to_ascii_lowercase(), authority.host());
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => None,
            Some(port) => {
                let port = port.strip_prefix(':').and_then(|port| port.parse().ok());
                Some(port.filter(|port: &u16| *port != 0).ok_or(OriginError)?)
            }
            None => return Err(OriginError),
        };
        let host = host.to_ascii_lowercase();
        // Browsers leave out the port that a scheme has by itself.
        let port = port.filter(|port| !matches!((&*scheme, port), ("https", 443) | ("http", 80)));
        Ok(Self(match port {
            None => format!("{scheme}://{host}"),
            Some(port) => format!("{scheme}://{host}:{port}"),
        }))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for (text, origin) in [
            ("https://Console.Example.COM", "https://console.example.com"),
            ("HTTPS://a.example:443", "https://a.example"),
            ("http://a.example:80", "http://a.example"),
            ("https://a.example:8443", "https://a.example:8443"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("app://obsidian.md", "app://obsidian.md"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), origin);
            assert_eq!(origin.parse::<Origin>().unwrap().to_string(), origin);
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "null",
            "*",
            "https://*.example.com",
            "console.example.com",
            "https://a.example/",
            "https://a.example/x",
            "https://a.example?x",
            "https://user@a.example",
            "https://",
            "https://a.example:",
            "https://a.example:99999",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(OriginError), "{text}");
        }
    }
}
