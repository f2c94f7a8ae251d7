//! A connection that says its last words in one go.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The encrypted stream of a client. When it is shut down, the alert that says so and the end of the
/// TCP connection leave together: of thousands that are told to go at once, each has a segment less
/// and is woken once less.
#[derive(Debug)]
pub(super) struct Stream {
    // On the heap: the task of a connection has room for each future that it is handed through, and
    // keeps it.
    tls: Box<TlsStream<TcpStream>>,
    is_closing: bool,
}

impl Stream {
    pub(super) fn new(tls: TlsStream<TcpStream>) -> Self {
        Self {
            tls: Box::new(tls),
            is_closing: false,
        }
    }

    /// What is written from here on waits for the end of the connection, or for 200 ms (tcp(7)).
    #[cfg(target_os = "linux")]
    fn cork(&self) {
        // Without it they are two segments, and nothing else is different.
        if let Err(error) = SockRef::from(self.tls.get_ref().0).set_tcp_cork(true) {
            tracing::debug!(%error, "TCP_CORK could not be set");
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn cork(&self) {}
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(context, octets)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closing {
            self.is_closing = true;
            self.cork();
        }
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}
