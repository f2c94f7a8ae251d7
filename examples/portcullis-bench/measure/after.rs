//! After an inactivation is answered nobody is served: attempts that begin after the answer, and
//! those that were under way when it came.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::RwLock;
use tokio::task::JoinSet;

use super::{Bench, inactivate};
use crate::Result;
use crate::broker::Kind;
use crate::client::Client;
use crate::report::Section;

/// What the attempts know, and what became of them.
#[derive(Default)]
struct State {
    /// Odd from the answer to an inactivation until the call to activate again.
    off: AtomicU64,
    /// Held while the CA is switched on, so that no attempt begins in between unnoticed.
    turn: RwLock<()>,
    done: AtomicBool,
    begun_after: AtomicU64,
    under_way: AtomicU64,
    /// Begun after the answer, and answered with CONNACK.
    let_in: AtomicU64,
    /// Under way at the answer, let in, and still served after it.
    served: AtomicU64,
    admitted: AtomicU64,
}

pub async fn run(bench: &Bench) -> Result<Section> {
    let seed = bench.seed().await?;
    let broker = bench.start(Kind::Portcullis, &seed)?;
    let state = Arc::new(State::default());
    let mut attempts = JoinSet::new();
    for number in 0..AT_ONCE {
        let device = Arc::clone(&bench.devices[number % bench.devices.len()]);
        let (state, address) = (Arc::clone(&state), broker.address);
        attempts.spawn(async move {
            while !state.done.load(Ordering::SeqCst) {
                let before = state.off.load(Ordering::SeqCst);
                let client = Client::connect(address, &device, number).await;
                let after = state.off.load(Ordering::SeqCst);
                note(&state, before, after, client).await;
            }
        });
    }
    let wanted = bench.size(1_000_000) as u64;
    let began = Instant::now();
    let mut inactivations = 0;
    while state.begun_after.load(Ordering::SeqCst) < wanted {
        // The broker ends an admin connection that has been there for long, and this takes longer.
        let mut admin = inactivate::connect(&broker).await?;
        inactivate::call(&mut admin, &bench.pki.devices, "InactivateCaCertificate").await?;
        state.off.fetch_add(1, Ordering::SeqCst);
        inactivations += 1;
        tokio::time::sleep(OFF).await;
        let turn = state.turn.write().await;
        state.off.fetch_add(1, Ordering::SeqCst);
        drop(turn);
        inactivate::call(&mut admin, &bench.pki.devices, "ActiveCaCertificate").await?;
        tokio::time::sleep(ON).await;
    }
    state.done.store(true, Ordering::SeqCst);
    while attempts.join_next().await.is_some() {}
    let [begun_after, under_way, let_in, served, admitted] = [
        &state.begun_after,
        &state.under_way,
        &state.let_in,
        &state.served,
        &state.admitted,
    ]
    .map(|counter| counter.load(Ordering::SeqCst));
    let note = format!(
        "{inactivations} inactivations in {} s: {begun_after} attempts began after an answer, of \
         which **{let_in}** were let in; {under_way} were under way at an answer, of which \
         **{served}** were served after it; {admitted} were let in while the CA was active.",
        began.elapsed().as_secs(),
    );
    Ok(Section {
        grids: Vec::new(),
        notes: vec![note],
    })
}

/// Count what became of an attempt. The state was read before it began and after it ended.
async fn note(state: &State, before: u64, after: u64, client: Result<Client>) {
    let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::SeqCst);
    let off = |phase: u64| phase % 2 == 1;
    if off(before) && before == after {
        add(&state.begun_after);
        if client.is_ok() {
            add(&state.let_in);
        }
        return;
    }
    let Ok(mut client) = client else {
        if off(after) {
            add(&state.under_way);
        }
        return;
    };
    add(&state.admitted);
    if !off(after) {
        client.disconnect().await.ok();
        return;
    }
    // Whoever is answered to a question that was put after the answer is served after it.
    let turn = state.turn.read().await;
    if state.off.load(Ordering::SeqCst) == after {
        add(&state.under_way);
        if client.is_served().await {
            add(&state.served);
        }
    }
    drop(turn);
}

const AT_ONCE: usize = 64;
/// How long the CA is off, and on.
const OFF: Duration = Duration::from_millis(1500);
const ON: Duration = Duration::from_millis(30);
