//! From HTTP to WebSocket (RFC 6455, section 4.2): one request, and its answer.

use std::convert::Infallible;
use std::sync::OnceLock;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::origin::Origin;
use super::stream::WebSocket;

/// What clients of a WebSocket address may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// The path of the only resource there is. Default `/mqtt`.
    pub path: String,
    /// The pages that browsers may connect for. Default: none, and only clients that are no
    /// browsers get in: those name no page, or the address that they connect to.
    pub origins: Vec<Origin>,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            path: "/mqtt".to_owned(),
            origins: Vec::new(),
        }
    }
}

/// Why a request does not lead to a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoUpgrade {
    #[error("there is nothing at this path")]
    Path,
    #[error("only GET leads to a WebSocket")]
    Method,
    #[error("this is a WebSocket: ask for an upgrade to it, with HTTP/1.1")]
    NotAsked,
    #[error("only version 13 of WebSocket is spoken")]
    Version,
    #[error("Host or Sec-WebSocket-Key is missing or wrong")]
    Malformed,
    #[error("pages of this origin may not connect; websocket_origins lists those that may")]
    Origin,
    #[error("offer the subprotocol mqtt (Sec-WebSocket-Protocol: mqtt)")]
    Subprotocol,
    /// What came is no HTTP that is understood, is too long, or ended too early. Answered by the
    /// parser, if at all.
    #[error("no request came that is understood")]
    NoRequest,
}

impl NoUpgrade {
    /// The name in logs and metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Method => "method",
            Self::NotAsked => "not_asked",
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::Origin => "origin",
            Self::Subprotocol => "subprotocol",
            Self::NoRequest => "no_request",
        }
    }

    fn answer(self) -> Response<Full<Bytes>> {
        let (status, header) = match self {
            Self::Path => (StatusCode::NOT_FOUND, None),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, Some((ALLOW, "GET"))),
            Self::NotAsked => (StatusCode::UPGRADE_REQUIRED, None),
            Self::Version => (
                StatusCode::UPGRADE_REQUIRED,
                Some((SEC_WEBSOCKET_VERSION, VERSION)),
            ),
            Self::Malformed | Self::Subprotocol | Self::NoRequest => {
                (StatusCode::BAD_REQUEST, None)
            }
            Self::Origin => (StatusCode::FORBIDDEN, None),
        };
        let mut answer = Response::new(Full::from(format!("{self}\n")));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        let connection = match status {
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                "upgrade, close"
            }
            _ => "close",
        };
        headers.insert(CONNECTION, HeaderValue::from_static(connection));
        if let Some((name, value)) = header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

/// Read a request and answer it. The caller bounds the time.
///
/// # Errors
/// Why there is no WebSocket; the client has been told.
pub(super) async fn upgrade<S>(io: S, door: &Door) -> Result<WebSocket<S>, NoUpgrade>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    // There is one request at most: an answer that is no upgrade closes the connection.
    let decided = OnceLock::new();
    let service = service_fn(|request: Request<_>| {
        let decision = door.decide(&request);
        let answer = match &decision {
            Ok(accept) => switch(accept.clone()),
            Err(refusal) => refusal.answer(),
        };
        let _ = decided.set(decision.map(|_| ()));
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let connection = http1::Builder::new()
        .max_buf_size(REQUEST_MAX)
        .serve_connection(TokioIo::new(io), service)
        .without_shutdown();
    let finished = connection.await;
    let finished = finished.map(|parts| (parts.io.into_inner(), parts.read_buf));
    let decided = decided.into_inner().unwrap_or(Err(NoUpgrade::NoRequest));
    match (finished, decided) {
        (Ok((io, ahead)), Ok(())) => Ok(WebSocket::new(io, ahead)),
        (Ok((mut io, _)), Err(refusal)) => {
            let _ = io.shutdown().await;
            Err(refusal)
        }
        (Err(_), decided) => Err(decided.err().unwrap_or(NoUpgrade::NoRequest)),
    }
}

impl Door {
    /// What accepts the request, if it may be.
    fn decide<B>(&self, request: &Request<B>) -> Result<HeaderValue, NoUpgrade> {
        let headers = request.headers();
        if request.uri().path() != self.path {
            return Err(NoUpgrade::Path);
        }
        if request.method() != Method::GET {
            return Err(NoUpgrade::Method);
        }
        let asked = request.version() == Version::HTTP_11
            && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
            && tokens(headers, &UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket"));
        if !asked {
            return Err(NoUpgrade::NotAsked);
        }
        if only(headers, &SEC_WEBSOCKET_VERSION) != Some(VERSION.as_bytes()) {
            return Err(NoUpgrade::Version);
        }
        let key = only(headers, &SEC_WEBSOCKET_KEY).and_then(accept);
        let (Some(accept), Some(host)) = (key, only(headers, &HOST)) else {
            return Err(NoUpgrade::Malformed);
        };
        if headers.contains_key(ORIGIN) && !self.admits(only(headers, &ORIGIN), host) {
            return Err(NoUpgrade::Origin);
        }
        if !tokens(headers, &SEC_WEBSOCKET_PROTOCOL).any(|token| token == SUBPROTOCOL) {
            return Err(NoUpgrade::Subprotocol);
        }
        Ok(accept)
    }

    /// Whether pages of this origin may connect. Those of the address itself may: there are none,
    /// as it serves none and nobody else has its certificate, but some clients that are no browsers
    /// name it.
    fn admits(&self, origin: Option<&[u8]>, host: &[u8]) -> bool {
        let origin = origin.and_then(|it| std::str::from_utf8(it).ok()?.parse().ok());
        let own = std::str::from_utf8(host).ok();
        let own = own.and_then(|host| format!("https://{host}").parse().ok());
        origin.is_some_and(|it: Origin| self.origins.contains(&it) || own == Some(it))
    }
}

/// The answer that makes a WebSocket of the connection.
fn switch(accept: HeaderValue) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    answer
}

/// The proof that the key was read (RFC 6455, section 4.2.2).
fn accept(key: &[u8]) -> Option<HeaderValue> {
    if STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    // SHA-1 proves nothing here but that this is a WebSocket server.
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    HeaderValue::try_from(STANDARD.encode(hash.finish())).ok()
}

/// The tokens of a header that is a list, over all its lines.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',').map(str::trim))
}

/// The value of a header that may be there once only.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => Some(line.as_bytes()),
        _ => None,
    }
}

/// The only subprotocol: MQTT (MQTT 5.0 and 3.1.1, section 6).
const SUBPROTOCOL: &str = "mqtt";

/// The only version of WebSocket that there is (RFC 6455, section 4.1).
const VERSION: &str = "13";

/// Octets of a request.
const REQUEST_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests;
