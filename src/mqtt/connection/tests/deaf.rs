//! Clients that take nothing any more: what they have said counts all the same.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::harness::*;

/// The server's end of a connection on which nothing can be sent from some time on.
struct Breaking {
    stream: DuplexStream,
    is_broken: Arc<AtomicBool>,
    /// Octets are taken until they are flushed, as TLS does it.
    is_buffered: bool,
}

impl Breaking {
    fn check(&self, is_flush: bool) -> io::Result<()> {
        match self.is_broken.load(Ordering::Acquire) && (is_flush || !self.is_buffered) {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        }
    }
}

impl AsyncRead for Breaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Breaking {
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

/// A client `c` with a will for topic `will`, and what breaks its connection.
async fn breaking(world: &World, is_buffered: bool) -> (Client5, Arc<AtomicBool>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let is_broken = Arc::new(AtomicBool::new(false));
    let stream = Breaking {
        stream: far,
        is_broken: is_broken.clone(),
        is_buffered,
    };
    let mut client = Client5::new(near, world.serve(&device("c"), stream));
    let connect = v5::Connect {
        last_will: will(0),
        ..connect5("c")
    };
    client.send(connect).await;
    client.recv().await;
    (client, is_broken)
}

/// A client that is told of the will.
async fn watcher(world: &World) -> Client5 {
    let mut watcher = world.simple5("w").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    watcher
}

#[tokio::test]
async fn a_client_that_takes_nothing_any_more_is_heard_all_the_same() {
    let world = World::start().await;
    let mut watcher = watcher(&world).await;
    let (stream, cut) = world.dial_with(&device("c"), 64);
    let mut client = Client5::new(stream, cut);
    let connect = v5::Connect {
        last_will: will(0),
        ..connect5("c")
    };
    client.send(connect).await;
    client.recv().await;
    // More answers than there is room for, then DISCONNECT.
    client.send_raw(&PING.repeat(64)).await;
    client.send_raw(&[0xE0, 0]).await;
    drop(client);
    world.until("c", |session| session.is_none()).await;
    watcher.settle().await;
}

#[tokio::test]
async fn the_last_word_of_a_client_may_come_after_its_connection_broke() {
    let world = World::start().await;
    let mut watcher = watcher(&world).await;
    let (mut client, is_broken) = breaking(&world, false).await;
    is_broken.store(true, Ordering::Release);
    let sent = &world.broker.hub().sys.tally.packets_sent;
    let before = sent.get();
    client.send_raw(&PING).await;
    while sent.get() == before {
        tokio::task::yield_now().await;
    }
    client.send_raw(&[0xE0, 0]).await;
    world.until("c", |session| session.is_none()).await;
    watcher.settle().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_and_says_nothing_is_given_up_soon() {
    for is_buffered in [false, true] {
        let world = World::start().await;
        let mut watcher = watcher(&world).await;
        let (mut client, is_broken) = breaking(&world, is_buffered).await;
        client.subscribe("t", QoS::AtMostOnce).await;
        is_broken.store(true, Ordering::Release);
        // More than is collected in one go: meanwhile nothing is read from it.
        let large = v5_publish::Publish {
            payload: vec![b'x'; 100_000].into(),
            ..message("t", QoS::AtMostOnce, "")
        };
        watcher.send(large).await;
        assert_eq!(watcher.message().await.topic, "will");
    }
}
