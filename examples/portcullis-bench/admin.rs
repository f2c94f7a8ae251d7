//! Calls of the management API over the socket for administrators on the host.

use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::Result;

/// A connection to the socket.
pub struct Admin(SendRequest<Full<Bytes>>);

impl Admin {
    pub async fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Make a call; gives what was answered to it if it was done.
    pub async fn call(&mut self, action: &str, parameters: &[(&str, &str)]) -> Result<String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", action);
        form.extend_pairs(parameters);
        let request = Request::post("/")
            .header("host", "localhost")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form.finish())))?;
        // The answer to the call before may have come a moment before the connection has done with it.
        self.0.ready().await?;
        let answer = self.0.send_request(request).await?;
        let status = answer.status();
        let text = answer.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&text).into_owned();
        match status.is_success() {
            true => Ok(text),
            false => Err(format!("{action}: {status}: {text}").into()),
        }
    }
}
