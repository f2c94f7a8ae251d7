//! A client of MQTT 5 that costs little, so that there can be thousands.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    Codec, Connect, ConnectAck, ConnectAckReason, Packet, PublishAck, PublishAckReason,
    PublishProperties, Subscribe, SubscriptionOptions,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::{Decoder, Encoder};

use super::{Authority, World};

/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// The connection is gone, or there was none.
#[derive(Debug)]
pub struct Lost;

/// Numbers that follow from a seed (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Others, for another task.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below this one.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A time below so many milliseconds.
    pub fn time(&mut self, milliseconds: u64) -> Duration {
        Duration::from_millis(self.below(milliseconds))
    }

    /// So many octets.
    pub fn octets(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// A connection to the broker that has no handshake yet, from an address of its own.
pub async fn reach(world: &World, dice: &mut Dice) -> Result<TcpStream, Lost> {
    let socket = TcpSocket::new_v4().map_err(|_| Lost)?;
    let [.., third, fourth] = dice.next().to_be_bytes();
    let from = Ipv4Addr::new(127, 1, third, fourth);
    socket
        .bind(SocketAddr::new(from.into(), 0))
        .map_err(|_| Lost)?;
    let connected = timeout(PATIENCE, socket.connect(world.address)).await;
    connected.map_err(|_| Lost)?.map_err(|_| Lost)
}

/// A connection whose handshake is done, as far as this side sees it.
pub async fn handshake(
    world: &World,
    config: &Arc<ClientConfig>,
    dice: &mut Dice,
) -> Result<TlsStream<TcpStream>, Lost> {
    let socket = reach(world, dice).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(config.clone());
    let connected = timeout(PATIENCE, connector.connect(name, socket)).await;
    connected.map_err(|_| Lost)?.map_err(|_| Lost)
}

/// A client that has its CONNACK.
pub struct Client {
    pub stream: TlsStream<TcpStream>,
    codec: Codec,
    buffer: BytesMut,
    pub ack: ConnectAck,
}

impl Client {
    /// Connect as a device of this authority.
    ///
    /// # Panics
    /// If it gets in although the authority was off all the time.
    pub async fn connect(
        world: &World,
        authority: &Authority,
        device: u64,
        connect: Connect,
        dice: &mut Dice,
    ) -> Result<Self, Lost> {
        let before = authority.off.load(Ordering::SeqCst);
        let config = &authority.devices[device as usize % authority.devices.len()];
        let stream = handshake(world, config, dice).await?;
        let mut client = Self {
            stream,
            codec: Codec::default(),
            buffer: BytesMut::new(),
            ack: ConnectAck::default(),
        };
        client.send(connect).await?;
        match client.next().await? {
            Packet::ConnectAck(ack) if ack.reason_code == ConnectAckReason::Success => {
                let still = authority.off.load(Ordering::SeqCst) == before;
                assert!(
                    before.is_multiple_of(2) || !still,
                    "an inactive CA let a client in"
                );
                world.count("connected");
                client.ack = *ack;
                Ok(client)
            }
            _ => Err(Lost),
        }
    }

    pub async fn send(&mut self, packet: impl Into<Packet>) -> Result<(), Lost> {
        let mut octets = BytesMut::new();
        self.codec.encode(packet.into(), &mut octets).unwrap();
        let sent = timeout(PATIENCE, self.stream.write_all(&octets)).await;
        sent.map_err(|_| Lost)?.map_err(|_| Lost)
    }

    pub async fn next(&mut self) -> Result<Packet, Lost> {
        loop {
            match self.codec.decode(&mut self.buffer) {
                Ok(Some((packet, _))) => return Ok(packet),
                Ok(None) => {}
                Err(error) => panic!("the broker sent what is no packet: {error}"),
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            match read {
                Ok(Ok(1..)) => {}
                _ => return Err(Lost),
            }
        }
    }

    /// The next PUBLISH; what comes before it is passed over.
    pub async fn message(&mut self) -> Result<Publish, Lost> {
        loop {
            match self.next().await? {
                Packet::Publish(publish) => return Ok(*publish),
                Packet::Disconnect(_) => return Err(Lost),
                _ => {}
            }
        }
    }

    /// Send a SUBSCRIBE for these.
    pub async fn ask_for(&mut self, filters: Vec<String>, qos: QoS) -> Result<(), Lost> {
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        let named = |filter| (ByteString::from(filter), options);
        self.send(Subscribe {
            packet_id: NonZeroU16::MIN,
            id: None,
            user_properties: Vec::new(),
            topic_filters: filters.into_iter().map(named).collect(),
        })
        .await
    }

    /// Subscribe to these, and wait for the answer.
    pub async fn subscribe(&mut self, filters: Vec<String>, qos: QoS) -> Result<(), Lost> {
        self.ask_for(filters, qos).await?;
        loop {
            match self.next().await? {
                Packet::SubscribeAck(_) => return Ok(()),
                Packet::Disconnect(_) => return Err(Lost),
                _ => {}
            }
        }
    }

    pub async fn acknowledge(&mut self, packet_id: NonZeroU16) -> Result<(), Lost> {
        self.send(Packet::PublishAck(PublishAck {
            packet_id,
            reason_code: PublishAckReason::Success,
            properties: Vec::new(),
            reason_string: None,
        }))
        .await
    }

    /// Take what comes for so long, acknowledging it.
    pub async fn read_for(&mut self, time: Duration) -> Result<u64, Lost> {
        let end = tokio::time::sleep(time);
        tokio::pin!(end);
        let mut taken = 0;
        loop {
            tokio::select! {
                () = &mut end => return Ok(taken),
                message = self.message() => {
                    let message = message?;
                    taken += 1;
                    if let (QoS::AtLeastOnce, Some(id)) = (message.qos, message.packet_id) {
                        self.acknowledge(id).await?;
                    }
                }
            }
        }
    }
}

/// A CONNECT whose session waits for so many seconds.
pub fn hello(client_id: &str, seconds: u32) -> Connect {
    Connect {
        clean_start: seconds == 0,
        session_expiry_interval_secs: seconds,
        keep_alive: 60,
        ..Connect::default()
    }
    .client_id(client_id)
}

/// A message; its packet id counts from QoS 1 on.
pub fn message(topic: String, qos: QoS, retain: bool, id: u16, payload: Vec<u8>) -> Packet {
    Packet::from(Publish {
        dup: false,
        retain,
        qos,
        topic: topic.into(),
        packet_id: NonZeroU16::new(id).filter(|_| qos != QoS::AtMostOnce),
        payload: Bytes::from(payload),
        properties: Some(PublishProperties::default()),
    })
}
