//! Threads that run one at a time, in every order there is.
//!
//! A race is a matter of which thread goes on at which point. Here the points are calls of
//! [`point`], in the code under test and in the test; [`explore`] runs its actors once for each
//! order in which they can pass them, or in which they do with so many interruptions at most.
//! Locks are real: who would block calls [`wait_until`] first.
//! Threads that are no actors pass through both without stopping.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Something that runs beside others.
pub(crate) type Actor = Box<dyn FnOnce() + Send>;

thread_local! {
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

/// An actor's side of the schedule.
struct Turn {
    number: usize,
    given: Receiver<()>,
    back: Sender<(usize, Stop)>,
}

/// Why an actor stopped.
enum Stop {
    /// It can go on.
    Point,
    /// It can go on when somebody else has.
    Blocked,
    Done(std::thread::Result<()>),
}

/// Let the schedule say who goes on.
pub(crate) fn point() {
    give_back(Stop::Point);
}

/// Go on when `holds`, which only others can bring about.
pub(crate) fn wait_until(holds: impl Fn() -> bool) {
    let acts = TURN.with_borrow(Option::is_some);
    while acts && !holds() {
        give_back(Stop::Blocked);
    }
}

fn give_back(stop: Stop) {
    TURN.with_borrow(|turn| {
        if let Some(turn) = turn {
            turn.back.send((turn.number, stop)).unwrap();
            turn.given.recv().unwrap();
        }
    });
}

/// Run the actors that `stage` makes in every order in which at most `interruptions` times one
/// stops that could go on, each order on a new stage. Gives how many orders there are.
///
/// # Panics
/// If an actor does, or if all wait for each other; the order is in the message.
pub(crate) fn explore(interruptions: usize, mut stage: impl FnMut() -> Vec<Actor>) -> usize {
    // At each turn: who of those that can go on goes on, and how many they are.
    let mut plan: Vec<(usize, usize)> = Vec::new();
    let mut orders = 0;
    loop {
        run(stage(), interruptions, &mut plan);
        orders += 1;
        while plan.last().is_some_and(|(who, of)| who + 1 == *of) {
            plan.pop();
        }
        match plan.last_mut() {
            Some((who, _)) => *who += 1,
            None => return orders,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Ready,
    Blocked,
    Done,
}

/// One order: as planned, and from there on the first that can.
fn run(actors: Vec<Actor>, interruptions: usize, plan: &mut Vec<(usize, usize)>) {
    let (back, stops) = channel();
    let mut states = vec![State::Ready; actors.len()];
    let (mut order, mut left) = (Vec::new(), interruptions);
    let turns: Vec<_> = (0..)
        .zip(actors)
        .map(|(number, actor)| {
            let ((turn, given), back) = (channel(), back.clone());
            std::thread::spawn(move || act(number, actor, given, back));
            turn
        })
        .collect();
    for depth in 0.. {
        let mut ready: Vec<_> = (0..states.len())
            .filter(|number| states[*number] == State::Ready)
            .collect();
        let last = order.last().copied();
        let could_go_on = last.is_some_and(|last| ready.contains(&last));
        ready.sort_by_key(|number| Some(*number) != last);
        if could_go_on && left == 0 {
            ready.truncate(1);
        }
        if ready.is_empty() {
            let all_done = states.iter().all(|state| *state == State::Done);
            assert!(all_done, "all wait for each other, in the order {order:?}");
            return;
        }
        if plan.len() == depth {
            plan.push((0, ready.len()));
        }
        let chosen = ready[plan[depth].0];
        if could_go_on && Some(chosen) != last {
            left -= 1;
        }
        order.push(chosen);
        turns[chosen].send(()).unwrap();
        let (number, stop) = stops.recv().unwrap();
        assert_eq!(number, chosen, "only one runs at a time");
        states[chosen] = match stop {
            Stop::Blocked => State::Blocked,
            Stop::Point | Stop::Done(Ok(())) => {
                for state in &mut states {
                    if *state == State::Blocked {
                        *state = State::Ready;
                    }
                }
                match stop {
                    Stop::Point => State::Ready,
                    Stop::Blocked | Stop::Done(_) => State::Done,
                }
            }
            Stop::Done(Err(panic)) => {
                eprintln!("in the order {order:?}");
                resume_unwind(panic);
            }
        };
    }
}

fn act(number: usize, actor: Actor, given: Receiver<()>, back: Sender<(usize, Stop)>) {
    if given.recv().is_err() {
        return;
    }
    let done = back.clone();
    TURN.set(Some(Turn {
        number,
        given,
        back,
    }));
    let result = catch_unwind(AssertUnwindSafe(actor));
    TURN.set(None);
    // Nobody listens when another actor has failed.
    let _ = done.send((number, Stop::Done(result)));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn every_order_comes_once() {
        let text = Arc::new(Mutex::new(String::new()));
        let mut seen = HashSet::new();
        let orders = explore(usize::MAX, || {
            seen.insert(std::mem::take(&mut *text.lock().unwrap()));
            let actor = |name| -> Actor {
                let text = Arc::clone(&text);
                Box::new(move || {
                    for stretch in 0..3 {
                        if stretch > 0 {
                            point();
                        }
                        text.lock().unwrap().push_str(name);
                    }
                })
            };
            vec![actor("a"), actor("b")]
        });
        seen.insert(text.lock().unwrap().clone());
        // 6! / (3! 3!), and nothing before the first.
        assert_eq!((orders, seen.len()), (20, 21));
        let once = explore(1, || {
            let actor = || -> Actor { Box::new(point) };
            vec![actor(), actor()]
        });
        // aabb, abba and the same the other way round; not abab.
        assert_eq!(once, 4);
    }

    #[test]
    #[should_panic(expected = "all wait for each other")]
    fn who_waits_for_nobody_is_found() {
        explore(0, || vec![Box::new(|| wait_until(|| false))]);
    }
}
