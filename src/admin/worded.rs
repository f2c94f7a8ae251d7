//! An answer in words where hyper gives none.
//!
//! What hyper cannot read as a request it answers by itself, with a status and no body. The
//! vendor's clients make nothing of an answer that is not a JSON object; these get one, too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::admin::errors::{ApiError, Code};
use crate::admin::service;

/// The stream of a connection, with hyper on this side of it.
///
/// An answer of hyper's own is a head with `content-length: 0`, written in one piece. No answer
/// of the router's is empty, and no body of its has a line break of HTTP in it.
pub(super) struct Worded<S> {
    stream: S,
    host_id: Arc<str>,
    /// What is to be sent in place of what hyper wrote.
    instead: Vec<u8>,
}

impl<S> Worded<S> {
    pub(super) fn new(stream: S, host_id: Arc<str>) -> Self {
        Self {
            stream,
            host_id,
            instead: Vec::new(),
        }
    }

    /// The same answer with a body, if this is one without.
    fn with_body(&self, written: &[u8]) -> Option<Vec<u8>> {
        let head = std::str::from_utf8(written.get(..written.len().min(LONGEST))?).ok()?;
        let status = head.strip_prefix("HTTP/1.1 4")?.get(..2)?;
        if head.len() != written.len() || !head.ends_with("\r\n\r\n") || !head.contains(NO_BODY) {
            return None;
        }
        let error = match status {
            "14" | "31" => ApiError::from(Code::HeadTooLarge),
            _ => ApiError::with_detail(Code::ParameterCheckFailed, "It cannot be read as HTTP."),
        };
        let request_id = service::request_id().ok()?;
        let body = error.body(request_id, &self.host_id).to_string();
        let fields = format!(
            "\r\ncontent-type: application/json; charset=utf-8\r\nx-acs-request-id: {request_id}\r\n\
             content-length: {}\r\n",
            body.len()
        );
        Some((head.replacen(NO_BODY, &fields, 1) + &body).into_bytes())
    }
}

impl<S: AsyncWrite + Unpin> Worded<S> {
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.instead))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Worded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Worded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        written: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_instead(cx))?;
        match this.with_body(written) {
            None => Pin::new(&mut this.stream).poll_write(cx, written),
            Some(instead) => {
                // Sent by the flush that follows.
                this.instead = instead;
                Poll::Ready(Ok(written.len()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_instead(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_instead(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

const NO_BODY: &str = "\r\ncontent-length: 0\r\n";

/// No head of hyper's own is longer.
const LONGEST: usize = 512;
