//! Two clients that do nothing wrong, whose connections break now and then.

use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Packet, PublishAckReason};
use tokio_util::sync::CancellationToken;

use super::World;
use super::client::{Client, Dice, Lost, hello, message};

/// Seconds that their sessions wait.
const EXPIRY: u32 = 600;
/// A connection breaks after so many messages, on average.
const BREAKS_AFTER: u64 = 200;
/// Between two messages.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the last message may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Send and receive numbers at QoS 1 until it is enough.
///
/// # Panics
/// If a number that was acknowledged does not arrive, or one arrives out of order.
pub async fn run(world: &World, number: usize, mut dice: Dice, enough: &CancellationToken) {
    let topic = format!("pair/{number}");
    let acknowledged = AtomicU64::new(0);
    let done = CancellationToken::new();
    let id = format!("pair-{number}-reader");
    let mut reader = enter(world, &id, &mut dice).await;
    assert!(!reader.ack.session_present);
    while reader
        .subscribe(vec![topic.clone()], QoS::AtLeastOnce)
        .await
        .is_err()
    {
        reader = enter(world, &id, &mut dice).await;
    }
    let others = dice.fork();
    let writes = async {
        write(world, number, &topic, others, enough, &acknowledged).await;
        done.cancel();
    };
    let reads = read(world, reader, &id, dice, &done, &acknowledged);
    let ((), seen) = tokio::join!(writes, reads);
    assert!(seen >= acknowledged.load(Ordering::SeqCst));
}

/// Connect, as often as it takes.
async fn enter(world: &World, id: &str, dice: &mut Dice) -> Client {
    for _ in 0..20 {
        let steady = &world.authorities[0];
        match Client::connect(world, steady, 0, hello(id, EXPIRY), dice).await {
            Ok(client) => return client,
            Err(Lost) => world.count("pair: connected in vain"),
        }
    }
    panic!("{id} does not get in any more");
}

async fn write(
    world: &World,
    number: usize,
    topic: &str,
    mut dice: Dice,
    enough: &CancellationToken,
    acknowledged: &AtomicU64,
) {
    let id = format!("pair-{number}-writer");
    let mut client = enter(world, &id, &mut dice).await;
    for next in 1_u64.. {
        while publish(&mut client, topic, next).await.is_err() {
            world.count("pair: sent again");
            client = enter(world, &id, &mut dice).await;
        }
        world.count("pair: acknowledged");
        acknowledged.store(next, Ordering::SeqCst);
        if enough.is_cancelled() {
            break;
        }
        if dice.below(BREAKS_AFTER) == 0 {
            drop(client);
            client = enter(world, &id, &mut dice).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
    leave(client).await;
}

async fn publish(client: &mut Client, topic: &str, number: u64) -> Result<(), Lost> {
    let payload = number.to_be_bytes().to_vec();
    // One at a time, so that any id does.
    let packet = message(topic.to_owned(), QoS::AtLeastOnce, false, 1, payload);
    client.send(packet).await?;
    loop {
        match client.next().await? {
            Packet::PublishAck(ack) if ack.reason_code == PublishAckReason::Success => {
                return Ok(());
            }
            Packet::PublishAck(_) | Packet::Disconnect(_) => return Err(Lost),
            _ => {}
        }
    }
}

/// Read until all has arrived that was acknowledged; gives the last number.
async fn read(
    world: &World,
    mut client: Client,
    id: &str,
    mut dice: Dice,
    done: &CancellationToken,
    acknowledged: &AtomicU64,
) -> u64 {
    let has_all = |seen| seen >= acknowledged.load(Ordering::SeqCst);
    let mut seen = 0;
    let arrives = async {
        loop {
            let taken = tokio::select! {
                taken = client.message() => taken,
                () = done.cancelled(), if has_all(seen) => match has_all(seen) {
                    true => break,
                    // There was one more when it was done.
                    false => continue,
                },
            };
            let breaks = dice.below(BREAKS_AFTER) == 0;
            let kept = match taken {
                Ok(message) => {
                    let number = u64::from_be_bytes(message.payload[..].try_into().unwrap());
                    // What was seen may come again; what was not may not be left out.
                    assert!(number <= seen + 1, "{id}: {number} follows {seen}");
                    seen = seen.max(number);
                    world.count("pair: received");
                    let packet_id = message.packet_id.unwrap_or(NonZeroU16::MIN);
                    match breaks {
                        true => Err(Lost),
                        false => client.acknowledge(packet_id).await,
                    }
                }
                Err(Lost) => Err(Lost),
            };
            if kept.is_err() {
                client = enter(world, id, &mut dice).await;
                assert!(client.ack.session_present, "{id}: its session is gone");
            }
            if done.is_cancelled() && has_all(seen) {
                break;
            }
        }
    };
    tokio::select! {
        () = arrives => {}
        () = async { done.cancelled().await; tokio::time::sleep(PATIENCE).await } => {
            let last = acknowledged.load(Ordering::SeqCst);
            panic!("{id}: the messages up to {last} do not arrive");
        }
    }
    leave(client).await;
    seen
}

/// Leave, and let the session end with the connection.
async fn leave(mut client: Client) {
    use rmqtt_codec::v5::{Disconnect, DisconnectReasonCode};
    let disconnect = Disconnect {
        reason_code: DisconnectReasonCode::NormalDisconnection,
        session_expiry_interval_secs: Some(0),
        server_reference: None,
        reason_string: None,
        user_properties: Vec::new(),
    };
    client
        .send(Packet::Disconnect(disconnect))
        .await
        .expect("it is still connected");
    while client.next().await.is_ok() {}
}
