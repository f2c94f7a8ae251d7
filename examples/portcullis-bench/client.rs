//! The light client that makes the load: MQTT 3.1.1 in octets, over mutual TLS 1.3.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Result;
use crate::pki::Device;

/// A client that is connected.
pub struct Client {
    pub stream: TlsStream<TcpStream>,
}

impl Client {
    /// Connect and wait for CONNACK. Clients of different numbers come from different addresses, so
    /// that ports do not run out.
    pub async fn connect(to: SocketAddr, device: &Device, number: usize) -> Result<Self> {
        Self::connect_within(to, device, number, PATIENCE).await
    }

    /// The same with another limit.
    pub async fn connect_within(
        to: SocketAddr,
        device: &Device,
        number: usize,
        limit: Duration,
    ) -> Result<Self> {
        timeout(limit, Self::try_connect(to, device, number))
            .await
            .map_err(|_| "no CONNACK in time")?
    }

    async fn try_connect(to: SocketAddr, device: &Device, number: usize) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_nodelay(true)?;
        socket.set_reuseaddr(true)?;
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(number % ADDRESSES)? + 1);
        socket.bind((from, 0).into())?;
        let stream = socket.connect(to).await?;
        let name = ServerName::try_from("localhost")?;
        let connector = TlsConnector::from(Arc::clone(device));
        let mut stream = connector.connect(name, stream).await?;
        stream.write_all(&packet::connect(number)).await?;
        stream.flush().await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        match answer {
            [0x20, 2, _, 0] => Ok(Self { stream }),
            other => Err(format!("not the CONNACK that was hoped for: {other:?}").into()),
        }
    }

    /// Subscribe, and wait until that is acknowledged.
    pub async fn subscribe(&mut self, topic: &str, qos: u8) -> Result<()> {
        self.stream
            .write_all(&packet::subscribe(topic, qos))
            .await?;
        self.stream.flush().await?;
        let mut answer = [0; 5];
        timeout(PATIENCE, self.stream.read_exact(&mut answer)).await??;
        match answer {
            [0x90, 3, 0, 1, granted] if granted == qos => Ok(()),
            other => Err(format!("not the SUBACK that was hoped for: {other:?}").into()),
        }
    }

    /// Whether the broker answers a ping; not if the connection has ended.
    pub async fn is_served(&mut self) -> bool {
        let mut answer = [0; 2];
        let ping = async {
            self.stream.write_all(&[0xc0, 0]).await?;
            self.stream.flush().await?;
            self.stream.read_exact(&mut answer).await
        };
        matches!(timeout(PATIENCE, ping).await, Ok(Ok(_))) && answer == [0xd0, 0]
    }

    /// DISCONNECT, and close.
    pub async fn disconnect(mut self) -> Result<()> {
        self.stream.write_all(&[0xe0, 0]).await?;
        self.stream.shutdown().await?;
        Ok(())
    }

    /// Wait until the broker has closed its end, without a look at what it says before. Gives the
    /// socket, which is still open here.
    pub async fn ended(self) -> TcpStream {
        let (socket, _) = self.stream.into_inner();
        let mut octets = [0; 64];
        while let Ok(ready) = socket.ready(Interest::READABLE).await
            && !ready.is_read_closed()
        {
            // To be told again.
            while matches!(socket.try_read(&mut octets), Ok(1..)) {}
        }
        socket
    }
}

/// Packets of MQTT 3.1.1.
pub mod packet {
    /// A clean session that stays for ten minutes without a word.
    pub fn connect(number: usize) -> Vec<u8> {
        let id = format!("bench-{number}");
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2];
        body.extend(600_u16.to_be_bytes());
        string(&mut body, &id);
        packet(0x10, &body)
    }

    pub fn subscribe(topic: &str, qos: u8) -> Vec<u8> {
        let mut body = vec![0, 1];
        string(&mut body, topic);
        body.push(qos);
        packet(0x82, &body)
    }

    /// `number` counts with QoS 1 only.
    pub fn publish(into: &mut Vec<u8>, topic: &str, qos: u8, number: u16, payload: &[u8]) {
        let length = 2 + topic.len() + usize::from(qos > 0) * 2 + payload.len();
        into.push(0x30 | qos << 1);
        remaining(into, length);
        string(into, topic);
        if qos > 0 {
            into.extend(number.to_be_bytes());
        }
        into.extend(payload);
    }

    fn packet(first: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![first];
        remaining(&mut packet, body.len());
        packet.extend(body);
        packet
    }

    /// MQTT 3.1.1, 2.2.3.
    fn remaining(into: &mut Vec<u8>, mut length: usize) {
        loop {
            let low = (length % 128) as u8;
            length /= 128;
            into.push(if length > 0 { low | 0x80 } else { low });
            if length == 0 {
                return;
            }
        }
    }

    fn string(into: &mut Vec<u8>, text: &str) {
        into.extend((text.len() as u16).to_be_bytes());
        into.extend(text.as_bytes());
    }

    /// The first packet: its type and flags, and where its body and its end are. `None` if more
    /// octets are needed.
    pub fn first(octets: &[u8]) -> Option<(u8, usize, usize)> {
        let (mut length, mut shift, mut at) = (0, 0, 1);
        loop {
            let octet = *octets.get(at)?;
            length |= usize::from(octet & 0x7f) << shift;
            (shift, at) = (shift + 7, at + 1);
            if octet & 0x80 == 0 {
                let end = at + length;
                return (octets.len() >= end).then(|| (octets[0], at, end));
            }
        }
    }
}

/// Addresses of loopback that clients come from.
const ADDRESSES: usize = 200;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
