//! Work on many things at once that does nothing but reckon.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, available_parallelism, scope};

/// Do this to every item, on all processors. Gives the results in the order of the items.
///
/// Waits for all of them. Where no thread can be started, the caller's does it all.
pub(crate) fn map<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let others = match items.len() > AT_A_TIME {
        true => available_parallelism().map_or(0, |all| NonZero::get(all) - 1),
        false => 0,
    };
    let waiting = Mutex::new(items.into_iter().enumerate());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let some: Vec<_> = waiting.by_ref().take(AT_A_TIME).collect();
        (!some.is_empty()).then_some(some)
    };
    let take_turns = || {
        let mut done = Vec::new();
        while let Some(some) = next() {
            done.extend(some.into_iter().map(|(place, item)| (place, work(item))));
        }
        done
    };
    let mut done = scope(|scope| {
        let start = |_| {
            let thread = Builder::new().name("work".to_owned());
            thread.spawn_scoped(scope, take_turns).ok()
        };
        let threads: Vec<_> = (0..others).filter_map(start).collect();
        let mut done = take_turns();
        for thread in threads {
            match thread.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Items that a thread takes at a time.
const AT_A_TIME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items_however_many_there_are() {
        for count in [0, 1, AT_A_TIME, AT_A_TIME + 1, 10 * AT_A_TIME + 7] {
            let expected: Vec<_> = (0..count).map(|it| it * 2).collect();
            assert_eq!(map((0..count).collect(), |it| it * 2), expected);
        }
    }

    #[test]
    fn a_panic_of_one_is_a_panic_of_all() {
        let items: Vec<_> = (0..10 * AT_A_TIME).collect();
        let all = std::panic::catch_unwind(|| map(items, |it| assert_ne!(it, 5 * AT_A_TIME)));
        assert!(all.is_err());
    }
}
