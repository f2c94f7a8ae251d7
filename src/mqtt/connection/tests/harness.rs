//! A broker without sockets, and clients of both versions.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use rmqtt_codec::types::QoS;
use rmqtt_codec::{v3, v5};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio_util::codec::{Decoder, Encoder};
use tokio_util::sync::CancellationToken;

pub(super) use super::packets::*;
use crate::ca::id::{CaKeyId, CertSerial};
use crate::ca::path::Admitted;
use crate::ca::registry::DeviceKey;
use crate::mqtt::Broker;
use crate::mqtt::connection;
use crate::mqtt::hub::Hooks;
use crate::mqtt::identity::Peer;
use crate::mqtt::persist::{Keeper, Restored};
use crate::mqtt::settings::Settings;
use crate::tls::live::Cut;
use crate::tls::peer::{Purpose, VerifiedPeer};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct World {
    pub(super) broker: Broker,
    pub(super) shutdown: CancellationToken,
}

/// Who connects.
#[derive(Clone)]
pub(super) struct Who {
    pub(super) name: &'static str,
    pub(super) serial: u8,
    pub(super) issuer: u8,
    pub(super) purpose: Purpose,
}

pub(super) fn device(name: &'static str) -> Who {
    Who {
        name,
        serial: 1,
        issuer: 1,
        purpose: Purpose::Device,
    }
}

pub(super) fn admin() -> Who {
    Who {
        name: "admin",
        serial: 9,
        issuer: 9,
        purpose: Purpose::Admin,
    }
}

struct TestPeer {
    verified: VerifiedPeer,
    cut: watch::Receiver<Option<Cut>>,
}

impl Peer for TestPeer {
    fn verified(&self) -> &VerifiedPeer {
        &self.verified
    }
    fn cut(&self) -> Option<Cut> {
        *self.cut.borrow()
    }
    async fn until_cut(&self) -> Cut {
        let mut cut = self.cut.clone();
        match cut.wait_for(Option::is_some).await.map(|cut| *cut) {
            Ok(Some(cut)) => cut,
            _ => std::future::pending().await,
        }
    }
    fn cut_words(&self) -> Option<String> {
        self.cut().map(|cut| format!("in all detail: {cut}"))
    }
}

fn verified(who: &Who) -> VerifiedPeer {
    let serial = |octet| CertSerial::from_be_bytes(&[octet]).unwrap();
    let key = CaKeyId::from_bytes([who.issuer; 32]);
    let device = DeviceKey {
        issuer: key,
        serial: serial(who.serial),
    };
    let ca_sn = serial(who.issuer);
    let admitted = Admitted::for_test(who.purpose, device, ca_sn, Some(who.name));
    VerifiedPeer::new("post-cn-test".parse().unwrap(), admitted)
}

/// More filters for `t/x` than a publisher serves by itself.
pub(super) const THROUGH_THE_ROUTER: [&str; 9] = [
    "t/x", "t/+", "t/#", "+/x", "+/+", "+/#", "#", "t/x/#", "+/x/#",
];

/// More than one, so that messages go from one to another.
const SHARDS: usize = 2;

impl World {
    pub(super) async fn start() -> Self {
        Self::with(Settings::default(), Hooks::default()).await
    }

    pub(super) async fn with(mut settings: Settings, hooks: Hooks) -> Self {
        settings.bus.shards = SHARDS;
        Self {
            broker: Broker::start(settings, hooks).await.unwrap(),
            shutdown: CancellationToken::new(),
        }
    }

    pub(super) async fn resumed(mut settings: Settings, keeper: Keeper) -> (Self, Restored) {
        settings.bus.shards = SHARDS;
        let resumed = Broker::resume(settings, Hooks::default(), keeper).await;
        let (broker, restored) = resumed.unwrap();
        let shutdown = CancellationToken::new();
        (Self { broker, shutdown }, restored)
    }

    /// A connection of this peer, with a buffer of so many octets each way.
    pub(super) fn dial_with(
        &self,
        who: &Who,
        buffer: usize,
    ) -> (DuplexStream, watch::Sender<Option<Cut>>) {
        let (near, far) = tokio::io::duplex(buffer);
        (near, self.serve(who, far))
    }

    /// Serve this peer over this stream. Gives what its trust is ended with.
    pub(super) fn serve<S>(&self, who: &Who, stream: S) -> watch::Sender<Option<Cut>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, cut) = watch::channel(None);
        let peer = TestPeer {
            verified: verified(who),
            cut,
        };
        let (hub, shutdown) = (self.broker.hub().clone(), self.shutdown.clone());
        let remote: SocketAddr = "127.0.0.1:1".parse().unwrap();
        tokio::spawn(async move { connection::run(&hub, stream, peer, remote, &shutdown).await });
        sender
    }

    pub(super) fn dial(&self, who: &Who) -> (DuplexStream, watch::Sender<Option<Cut>>) {
        self.dial_with(who, 1 << 20)
    }

    /// An MQTT 5 client that has sent this CONNECT.
    pub(super) async fn client5(&self, who: &Who, connect: v5::Connect) -> Client5 {
        let (stream, cut) = self.dial(who);
        let mut client = Client5::new(stream, cut);
        client.send(connect).await;
        client
    }

    /// An MQTT 5 client that is connected, and whether its session existed.
    pub(super) async fn connect5(
        &self,
        who: &Who,
        connect: v5::Connect,
    ) -> (Client5, v5::ConnectAck) {
        let mut client = self.client5(who, connect).await;
        match client.recv().await {
            v5::Packet::ConnectAck(ack) => {
                assert_eq!(ack.reason_code, v5::ConnectAckReason::Success);
                (client, *ack)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Client `c` with this CONNECT, connected over a stream that holds so many octets.
    pub(super) async fn narrow5(&self, buffer: usize, connect: v5::Connect) -> Client5 {
        let (stream, cut) = self.dial_with(&device("c"), buffer);
        let mut client = Client5::new(stream, cut);
        client.send(connect).await;
        client.recv().await;
        client
    }

    /// Client `c`, for which there is more than its stream holds, and less than keeps it from being read.
    pub(super) async fn stuck5(&self) -> Client5 {
        let mut client = self.narrow5(64, connect5("c")).await;
        client.subscribe("a", QoS::AtMostOnce).await;
        let mut other = self.simple5("p").await;
        for _ in 0..64 {
            let payload = "0123456789012345678901234567890123456789";
            let sent = message("a", QoS::AtLeastOnce, payload);
            other.publish(sent).await;
        }
        client
    }

    pub(super) async fn simple5(&self, id: &'static str) -> Client5 {
        self.connect5(&device(id), connect5(id)).await.0
    }

    /// A 3.1.1 client that is connected.
    pub(super) async fn connect3(&self, who: &Who, connect: v3::Connect) -> (Client3, bool) {
        let (stream, cut) = self.dial(who);
        let mut client = Client3::new(stream, cut);
        client.send(connect).await;
        match client.recv().await {
            v3::Packet::ConnectAck(ack) => {
                assert_eq!(ack.return_code, v3::ConnectAckReason::ConnectionAccepted);
                (client, ack.session_present)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Wait until the broker's view of a session is such.
    pub(super) async fn until(
        &self,
        client_id: &str,
        what: impl Fn(Option<crate::mqtt::broker::SessionInfo>) -> bool,
    ) {
        until(|| what(self.broker.session(client_id))).await;
    }

    pub(super) async fn until_away(&self, client_id: &str) {
        self.until(client_id, |info| info.is_none_or(|info| !info.connected))
            .await;
    }
}

/// Wait until that is so. By the clock of the wall: the other may stand.
pub(super) async fn until(what: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !what() {
        assert!(start.elapsed() < PATIENCE, "it never came to that");
        tokio::task::yield_now().await;
    }
}

macro_rules! client {
    ($name:ident, $version:ident, $codec:expr) => {
        pub(super) struct $name {
            pub(super) stream: DuplexStream,
            pub(super) cut: watch::Sender<Option<Cut>>,
            codec: $version::Codec,
            input: BytesMut,
        }

        impl $name {
            pub(super) fn new(stream: DuplexStream, cut: watch::Sender<Option<Cut>>) -> Self {
                Self {
                    stream,
                    cut,
                    codec: $codec,
                    input: BytesMut::new(),
                }
            }

            pub(super) async fn send(&mut self, packet: impl Into<$version::Packet>) {
                let mut out = BytesMut::new();
                self.codec.encode(packet.into(), &mut out).unwrap();
                self.send_raw(&out).await;
            }

            pub(super) async fn send_raw(&mut self, octets: &[u8]) {
                self.stream.write_all(octets).await.unwrap();
            }

            /// The next packet; `None` at the end of the stream.
            pub(super) async fn next(&mut self) -> Option<$version::Packet> {
                loop {
                    if let Some((packet, _)) = self.codec.decode(&mut self.input).unwrap() {
                        return Some(packet);
                    }
                    let read = self.stream.read_buf(&mut self.input);
                    match tokio::time::timeout(PATIENCE, read)
                        .await
                        .expect("nothing came")
                    {
                        Ok(octets) if octets > 0 => {}
                        _ => return None,
                    }
                }
            }

            pub(super) async fn recv(&mut self) -> $version::Packet {
                self.next().await.expect("the connection ended")
            }

            /// A round trip, after which everything sent before has been processed, and nothing
            /// else has come.
            pub(super) async fn settle(&mut self) {
                self.send($version::Packet::PingRequest).await;
                match self.recv().await {
                    $version::Packet::PingResponse => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    };
}

client!(Client5, v5, v5::Codec::new(0, 0));
client!(Client3, v3, v3::Codec::new(0));

/// The pings of a flood: they are read in pieces of 512, 1,024 and 2,048 octets.
pub(super) const PINGS: u64 = 256 + 512 + 1_024;

/// A PINGREQ.
pub(super) const PING: [u8; 2] = [0xc0, 0];

impl Client5 {
    /// Send very many pings at once.
    pub(super) async fn flood(&mut self) {
        self.send_raw(&PING.repeat(PINGS as usize)).await;
    }

    pub(super) async fn subscribe(&mut self, filter: &str, qos: QoS) -> v5::SubscribeAckReason {
        self.subscribe_with(filter, options(qos), None).await
    }

    pub(super) async fn subscribe_with(
        &mut self,
        filter: &str,
        options: v5::SubscriptionOptions,
        id: Option<u32>,
    ) -> v5::SubscribeAckReason {
        self.send(v5::Subscribe {
            packet_id: pid(77),
            id: id.map(|id| id.try_into().unwrap()),
            user_properties: Vec::new(),
            topic_filters: vec![(filter.into(), options)],
        })
        .await;
        match self.recv().await {
            v5::Packet::SubscribeAck(ack) => {
                assert_eq!(ack.packet_id, pid(77));
                assert_eq!(ack.status.len(), 1);
                ack.status[0]
            }
            other => panic!("{other:?}"),
        }
    }

    /// The next message, acknowledged as its QoS demands.
    pub(super) async fn message(&mut self) -> v5_publish::Publish {
        let message = self.message_unacknowledged().await;
        match (message.qos, message.packet_id) {
            (QoS::AtLeastOnce, Some(packet_id)) => {
                self.send(ack(packet_id)).await;
            }
            (QoS::ExactlyOnce, Some(packet_id)) => {
                self.send(v5::Packet::PublishReceived(ack(packet_id))).await;
                match self.recv().await {
                    v5::Packet::PublishRelease(release) => assert_eq!(release.packet_id, packet_id),
                    other => panic!("{other:?}"),
                }
                self.send(v5::Packet::PublishComplete(ack2(packet_id)))
                    .await;
            }
            _ => {}
        }
        message
    }

    pub(super) async fn message_unacknowledged(&mut self) -> v5_publish::Publish {
        match self.recv().await {
            v5::Packet::Publish(message) => *message,
            other => panic!("{other:?}"),
        }
    }

    /// Publish, and wait for the last acknowledgement; its reason code.
    pub(super) async fn publish(&mut self, message: v5_publish::Publish) -> u8 {
        let (qos, id) = (message.qos, message.packet_id);
        self.send(message).await;
        match qos {
            QoS::AtMostOnce => {
                self.settle().await;
                0
            }
            QoS::AtLeastOnce => match self.recv().await {
                v5::Packet::PublishAck(ack) => {
                    assert_eq!(Some(ack.packet_id), id);
                    ack.reason_code.into()
                }
                other => panic!("{other:?}"),
            },
            QoS::ExactlyOnce => {
                let code = match self.recv().await {
                    v5::Packet::PublishReceived(ack) => u8::from(ack.reason_code),
                    other => panic!("{other:?}"),
                };
                if code < 0x80 {
                    self.send(v5::Packet::PublishRelease(ack2(id.unwrap())))
                        .await;
                    match self.recv().await {
                        v5::Packet::PublishComplete(ack) => {
                            assert_eq!(u8::from(ack.reason_code), 0)
                        }
                        other => panic!("{other:?}"),
                    }
                }
                code
            }
        }
    }

    /// The DISCONNECT that ends the connection, after which nothing comes.
    pub(super) async fn farewell(&mut self) -> u8 {
        loop {
            match self.next().await {
                Some(v5::Packet::Disconnect(packet)) => {
                    assert!(self.next().await.is_none());
                    return packet.reason_code.into();
                }
                Some(_) => {}
                None => panic!("no DISCONNECT"),
            }
        }
    }
}
