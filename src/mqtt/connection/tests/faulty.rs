//! Connections that fail to do something.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::harness::*;

/// What a stream holds that is not to be full.
pub(super) const WIDE: usize = 1 << 20;

/// What a connection does not do.
#[derive(Default)]
pub(super) struct Faults {
    /// Nothing can be sent.
    pub(super) is_broken: AtomicBool,
    /// Octets are taken until they are flushed, as TLS does it.
    pub(super) is_buffered: AtomicBool,
    /// What comes is not seen, and when it is, it wakes nobody.
    pub(super) is_hidden: AtomicBool,
    /// Looks at what is hidden.
    pub(super) looks: AtomicUsize,
}

/// The server's end of a connection with faults.
struct Faulty {
    stream: DuplexStream,
    faults: Arc<Faults>,
}

impl Faulty {
    fn check(&self, is_flush: bool) -> io::Result<()> {
        let Faults {
            is_broken,
            is_buffered,
            ..
        } = &*self.faults;
        match is_broken.load(Ordering::Acquire)
            && (is_flush || !is_buffered.load(Ordering::Acquire))
        {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        }
    }
}

impl AsyncRead for Faulty {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.faults.is_hidden.load(Ordering::Acquire) {
            self.faults.looks.fetch_add(1, Ordering::AcqRel);
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(false)?;
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(true)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(true)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A client `c` with a will for topic `will`, over a stream that holds so many octets, and the faults
/// that its connection can have.
pub(super) async fn faulty(
    world: &World,
    buffer: usize,
    keep_alive: u16,
) -> (Client5, Arc<Faults>) {
    let (near, far) = tokio::io::duplex(buffer);
    let faults = Arc::<Faults>::default();
    let stream = Faulty {
        stream: far,
        faults: faults.clone(),
    };
    let mut client = Client5::new(near, world.serve(&device("c"), stream));
    client.send(with_will(keep_alive)).await;
    client.recv().await;
    (client, faults)
}
