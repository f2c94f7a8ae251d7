//! Keeps a router alive: notices that one is dead, silent or wrong, and puts a new one in place.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::StartError;
use super::lanes::{Cause, Lanes, Progress, Trouble};
use super::rumqttd::{self, Heart, Links, RouterGone};

/// Open the first router.
pub(super) async fn start(lanes: &Lanes) -> Result<Heart, StartError> {
    let (links, heart) = open(lanes).await?;
    lanes.install(FIRST_EPOCH, links);
    Ok(heart)
}

/// Watch the router and replace it whenever it fails, for ever.
pub(super) async fn run(
    lanes: Arc<Lanes>,
    mut heart: Heart,
    mut troubles: mpsc::UnboundedReceiver<Trouble>,
) {
    let mut epoch = FIRST_EPOCH;
    loop {
        let cause = watch(&lanes, epoch, &mut heart, &mut troubles).await;
        let noticed = Instant::now();
        metrics::counter!("portcullis_bus_router_failures_total", "cause" => cause.as_str())
            .increment(1);
        tracing::error!(
            cause = cause.as_str(),
            epoch,
            "the router failed and is being replaced; publishers wait, nothing is lost"
        );
        lanes.uninstall();
        if cause != Cause::Gone {
            heart.poison();
        }
        epoch += 1;
        heart = replace(&lanes, epoch).await;
        tracing::info!(
            epoch,
            replaced_ms = noticed.elapsed().as_millis() as u64,
            "the new router is in place"
        );
    }
}

/// Returns when something is wrong with the router, and says what.
async fn watch(
    lanes: &Lanes,
    epoch: u64,
    heart: &mut Heart,
    troubles: &mut mpsc::UnboundedReceiver<Trouble>,
) -> Cause {
    // The limits are counted in ticks, not in time, so that a process that was stopped for a
    // while does not blame the router.
    let interval = lanes.settings.heartbeat_interval;
    let limit = lanes
        .settings
        .stuck_after
        .as_nanos()
        .div_ceil(interval.as_nanos().max(1))
        .max(1);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unanswered = 0;
    let mut stalls = Stalls::new(lanes.settings.shards);
    loop {
        tokio::select! {
            biased;
            beat = heart.beat() => match beat {
                Ok(()) => unanswered = 0,
                Err(RouterGone) => return Cause::Gone,
            },
            // The sender lives in `lanes`, so there is always another one to wait for.
            Some(trouble) = troubles.recv() => {
                if trouble.epoch == epoch {
                    return trouble.cause;
                }
            }
            _ = ticks.tick() => {
                if unanswered >= limit {
                    return Cause::Silent;
                }
                // Also what gets a router going again that fell asleep with work to do.
                if heart.ask().is_err() {
                    return Cause::Gone;
                }
                unanswered += 1;
                if stalls.longest(lanes) >= limit {
                    return Cause::Stalled;
                }
            }
        }
    }
}

/// Open routers until there is one.
async fn replace(lanes: &Lanes, epoch: u64) -> Heart {
    let mut pause = FIRST_PAUSE;
    loop {
        match open(lanes).await {
            Ok((links, heart)) => {
                lanes.install(epoch, links);
                return heart;
            }
            Err(error) => {
                metrics::counter!("portcullis_bus_router_open_failures_total").increment(1);
                tracing::error!(epoch, %error, "no new router yet; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

/// Opening blocks, for ever if the router dies meanwhile, so it has a thread that nobody joins:
/// a runtime waits for its own blocking threads when it shuts down.
async fn open(lanes: &Lanes) -> Result<(Links, Heart), StartError> {
    let shards = lanes.settings.shards;
    let log_bytes = lanes.settings.window_bytes;
    let limit = lanes.settings.stuck_after;
    let (done, opened) = oneshot::channel();
    std::thread::Builder::new()
        .name("bus-open".to_owned())
        .spawn(move || {
            // It fails if nobody waits any more.
            let _ = done.send(rumqttd::open(shards, log_bytes, limit));
        })?;
    match tokio::time::timeout(limit, opened).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(StartError::Died),
        Err(_) => Err(StartError::Silent {
            waited_ms: limit.as_millis(),
        }),
    }
}

/// For how many ticks each lane has owed messages to a shard that waits for them.
struct Stalls {
    /// By source, then by destination.
    lanes: Vec<Vec<(Progress, u128)>>,
}

impl Stalls {
    fn new(shards: usize) -> Self {
        Self {
            lanes: vec![vec![(Progress::default(), 0); shards]; shards],
        }
    }

    /// Count this tick. The longest stall, in ticks.
    fn longest(&mut self, lanes: &Lanes) -> u128 {
        let mut longest = 0;
        for (source, known) in self.lanes.iter_mut().enumerate() {
            let now = lanes.tend(source);
            for (((before, ticks), now), destination) in
                known.iter_mut().zip(now).zip(&lanes.destinations)
            {
                // What was already sent at the last tick is owed; what came later may wait.
                let owes = before.sent > now.taken
                    && before.taken == now.taken
                    && destination.waiting.load(Ordering::Acquire);
                *ticks = if owes { *ticks + 1 } else { 0 };
                *before = now;
                longest = longest.max(*ticks);
            }
        }
        longest
    }
}

const FIRST_EPOCH: u64 = 1;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(2);
