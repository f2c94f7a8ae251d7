//! Messages as fast as the broker takes them: publishers with a full window each, and subscribers
//! that open it again.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, TryAcquireError};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::Result;
use crate::client::{Client, packet};
use crate::pace::Ticks;
use crate::pki::{Device, ORGANIZATION};

/// Messages of QoS 1 that may be unacknowledged, at each end; brokers are set up for as many.
pub const INFLIGHT: usize = 100;
/// Messages on their way from all publishers together.
const WINDOW: usize = 1000;
/// Most messages of one write.
const BATCH: usize = 64;

/// Who sends what to whom.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub publishers: usize,
    pub subscribers: usize,
    pub qos: u8,
    /// Octets of a payload.
    pub size: usize,
}

/// The load, until it is dropped.
pub struct Load {
    meter: Arc<Meter>,
    publishers: JoinSet<Result<()>>,
    /// Those that read: they go on until the broker ends the connection.
    subscribers: JoinSet<Result<()>>,
}

struct Meter {
    shape: Shape,
    began: Instant,
    sent: AtomicU64,
    delivered: AtomicU64,
    windows: Vec<Window>,
    latencies: Mutex<Vec<Duration>>,
}

/// What one publisher may still send.
struct Window {
    delivered: AtomicU64,
    room: Semaphore,
    unacknowledged: Semaphore,
}

/// How a publisher goes about it.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As fast as it is taken.
    Full,
    /// One message after each such time.
    Every(Duration),
}

impl Load {
    /// Connect all clients and begin.
    pub async fn start(
        to: SocketAddr,
        devices: &[Device],
        shape: Shape,
        pace: Pace,
    ) -> Result<Self> {
        let window = (WINDOW / shape.publishers).max(1);
        let window = || Window {
            delivered: AtomicU64::new(0),
            room: Semaphore::new(window),
            unacknowledged: Semaphore::new(INFLIGHT),
        };
        let meter = Arc::new(Meter {
            shape,
            began: Instant::now(),
            sent: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            windows: (0..shape.publishers).map(|_| window()).collect(),
            latencies: Mutex::new(Vec::new()),
        });
        let (mut publishers, mut subscribers) = (JoinSet::new(), JoinSet::new());
        let mut number = 0;
        let mut client = async || {
            number += 1;
            Client::connect(to, &devices[number % devices.len()], number).await
        };
        for _ in 0..shape.subscribers {
            let mut client = client().await?;
            client.subscribe(&topic(), shape.qos).await?;
            subscribers.spawn(subscriber(client, Arc::clone(&meter)));
        }
        let mut ready = Vec::new();
        for _ in 0..shape.publishers {
            ready.push(client().await?);
        }
        for (number, client) in ready.into_iter().enumerate() {
            let (reader, writer) = tokio::io::split(client.stream);
            subscribers.spawn(acknowledged(reader, number, Arc::clone(&meter)));
            publishers.spawn(publisher(writer, number, pace, Arc::clone(&meter)));
        }
        Ok(Self {
            meter,
            publishers,
            subscribers,
        })
    }

    /// Messages that have arrived at subscribers.
    pub fn delivered(&self) -> u64 {
        self.meter.delivered.load(Ordering::Relaxed)
    }

    /// How long the messages took that have arrived since this was asked last.
    pub async fn latencies(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.meter.latencies.lock().await)
    }

    /// Stop sending, and wait for what is on its way; gives how many deliveries are missing.
    pub async fn stop(mut self) -> Result<u64> {
        for window in &self.meter.windows {
            window.room.close();
        }
        // A client that ended by itself says why.
        let ends = async {
            while let Some(ended) = self.publishers.join_next().await {
                ended??;
            }
            Result::Ok(())
        };
        tokio::time::timeout(STOP, ends)
            .await
            .map_err(|_| "acknowledgements are missing")??;
        let subscribers = self.meter.shape.subscribers as u64;
        let mut delivered = self.delivered();
        loop {
            tokio::time::sleep(QUIET).await;
            let missing = self.meter.sent.load(Ordering::Relaxed) * subscribers;
            let now = self.delivered();
            if now == delivered {
                while let Some(ended) = self.subscribers.try_join_next() {
                    ended??;
                }
                return Ok(missing.saturating_sub(now));
            }
            delivered = now;
        }
    }
}

/// Stock rumqttd lets devices publish below their organization only.
fn topic() -> String {
    format!("/tenants/{ORGANIZATION}/load")
}

async fn publisher(
    mut stream: WriteHalf<TlsStream<TcpStream>>,
    number: usize,
    pace: Pace,
    meter: Arc<Meter>,
) -> Result<()> {
    let (Shape { qos, size, .. }, topic) = (meter.shape, topic());
    let window = &meter.windows[number];
    let mut payload = vec![b'x'; size];
    payload[..2].copy_from_slice(&u16::try_from(number)?.to_be_bytes());
    let mut octets = Vec::new();
    let mut packet_id = 0;
    let mut ticks = match pace {
        Pace::Full => None,
        Pace::Every(time) => Some(Ticks::each(time)?),
    };
    // When messages were to be sent that have not been: who is late with them says so.
    let mut due = VecDeque::new();
    loop {
        if let Some(ticks) = &mut ticks
            && due.is_empty()
        {
            due.extend(ticks.due().await);
        }
        // One by one, also if they are late.
        let most = ticks.as_ref().map_or(BATCH, |_| 1);
        octets.clear();
        let mut count = 0;
        while count < most {
            // The first is waited for, the others come along.
            match take(&window.room, count == 0).await {
                Taken::Yes => {}
                Taken::NotYet => break,
                Taken::Never => return Ok(()),
            }
            if qos > 0 && !matches!(take(&window.unacknowledged, count == 0).await, Taken::Yes) {
                window.room.add_permits(1);
                break;
            }
            let sent = due.pop_front().unwrap_or_else(Instant::now) - meter.began;
            payload[2..10].copy_from_slice(&u64::try_from(sent.as_nanos())?.to_be_bytes());
            packet_id = packet_id % (INFLIGHT as u16 * 4) + 1;
            packet::publish(&mut octets, &topic, qos, packet_id, &payload);
            count += 1;
        }
        meter.sent.fetch_add(count as u64, Ordering::Relaxed);
        stream.write_all(&octets).await?;
        stream.flush().await?;
    }
}

/// What came of asking for room.
enum Taken {
    Yes,
    NotYet,
    /// The load ends.
    Never,
}

async fn take(from: &Semaphore, wait: bool) -> Taken {
    let permit = match from.try_acquire() {
        Err(TryAcquireError::NoPermits) if wait => from.acquire().await.ok(),
        Err(TryAcquireError::NoPermits) => return Taken::NotYet,
        other => other.ok(),
    };
    match permit {
        Some(permit) => {
            permit.forget();
            Taken::Yes
        }
        None => Taken::Never,
    }
}

/// Read what the broker says to a publisher.
async fn acknowledged(
    mut stream: ReadHalf<TlsStream<TcpStream>>,
    number: usize,
    meter: Arc<Meter>,
) -> Result<()> {
    let mut octets = Octets::default();
    loop {
        octets.read(&mut stream).await?;
        let mut count = 0;
        octets.each(|first, _| count += usize::from(first == 0x40));
        meter.windows[number].unacknowledged.add_permits(count);
    }
}

async fn subscriber(client: Client, meter: Arc<Meter>) -> Result<()> {
    let Shape {
        publishers,
        subscribers,
        qos,
        ..
    } = meter.shape;
    let topic = topic().len();
    let mut stream = client.stream;
    let mut octets = Octets::default();
    let mut counts = vec![0_u64; publishers];
    let (mut answer, mut latencies) = (Vec::new(), Vec::new());
    loop {
        octets.read(&mut stream).await?;
        answer.clear();
        let now = meter.began.elapsed();
        octets.each(|first, body| {
            if first & 0xf0 != 0x30 {
                return;
            }
            let id = 2 + topic;
            let payload = id + usize::from(first & 6 > 0) * 2;
            if qos > 0 {
                answer.extend([0x40, 2, body[id], body[id + 1]]);
            }
            let from = usize::from(body[payload]) << 8 | usize::from(body[payload + 1]);
            counts[from] += 1;
            let mut sent = [0; 8];
            sent.copy_from_slice(&body[payload + 2..payload + 10]);
            latencies.push(now.saturating_sub(Duration::from_nanos(u64::from_be_bytes(sent))));
        });
        if subscribers == 1 && publishers == 1 {
            meter.latencies.lock().await.append(&mut latencies);
        }
        latencies.clear();
        if !answer.is_empty() {
            stream.write_all(&answer).await?;
            stream.flush().await?;
        }
        for (count, window) in counts.iter_mut().zip(&meter.windows) {
            let new = std::mem::take(count);
            if new == 0 {
                continue;
            }
            meter.delivered.fetch_add(new, Ordering::Relaxed);
            // A message has left the window when all subscribers have it.
            let all = subscribers as u64;
            let before = window.delivered.fetch_add(new, Ordering::Relaxed);
            let done = (before + new) / all - before / all;
            window.room.add_permits(usize::try_from(done)?);
        }
    }
}

/// What was read and not yet taken apart.
#[derive(Default)]
struct Octets {
    buffer: Vec<u8>,
    used: usize,
}

impl Octets {
    async fn read(&mut self, stream: &mut (impl AsyncReadExt + Unpin)) -> Result<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.reserve(32 * 1024);
        match stream.read_buf(&mut self.buffer).await? {
            0 => Err("the broker has closed the connection".into()),
            _ => Ok(()),
        }
    }

    /// Look at each whole packet: its first octet, and its body.
    fn each(&mut self, mut look: impl FnMut(u8, &[u8])) {
        while let Some((first, body, end)) = packet::first(&self.buffer[self.used..]) {
            look(first, &self.buffer[self.used + body..self.used + end]);
            self.used += end;
        }
    }
}

/// Nothing arrives for so long: nothing is on its way any more.
const QUIET: Duration = Duration::from_millis(300);
/// How long publishers may wait for acknowledgements in the end.
const STOP: Duration = Duration::from_secs(5);
