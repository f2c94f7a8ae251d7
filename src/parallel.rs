//! Work on many things at once that does nothing but reckon.

use rayon::ThreadPoolBuilder;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

/// Do this to every item, on all processors, with threads that end with it. Gives the results in the
/// order of the items.
///
/// Waits for all of them. Where no threads can be started, the caller's does it all.
pub(crate) fn map<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    let threads = || ThreadPoolBuilder::new().build().ok();
    match (items.len() > FEW).then(threads).flatten() {
        Some(threads) => threads.install(|| items.into_par_iter().map(work).collect()),
        None => items.into_iter().map(work).collect(),
    }
}

/// Do both, side by side if the system has a thread to give. Gives what both come to.
pub(crate) fn join<A: Send, B: Send>(
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B + Send,
) -> (A, B) {
    match ThreadPoolBuilder::new().num_threads(2).build() {
        Ok(threads) => threads.join(one, other),
        Err(_) => (one(), other()),
    }
}

/// Not worth a thread.
const FEW: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items_however_many_there_are() {
        for count in [0, 1, FEW, FEW + 1, 10 * FEW + 7] {
            let expected: Vec<_> = (0..count).map(|it| it * 2).collect();
            assert_eq!(map((0..count).collect(), |it| it * 2), expected);
        }
    }

    #[test]
    fn a_panic_of_one_is_a_panic_of_all() {
        let items: Vec<_> = (0..10 * FEW).collect();
        let all = std::panic::catch_unwind(|| map(items, |it| assert_ne!(it, 5 * FEW)));
        assert!(all.is_err());
    }
}
