//! Work on many things at once that does nothing but reckon.

use std::cmp::Ordering;

use rayon::ThreadPoolBuilder;
use rayon::iter::{IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

/// Do this to every item, on all processors, with threads that end with it. Gives the results in the
/// order of the items.
///
/// Waits for all of them. Where no threads can be started, the caller's does it all.
pub(crate) fn map<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    if items.len() <= FEW {
        return items.into_iter().map(work).collect();
    }
    on_threads(
        items,
        |items| items.into_par_iter().map(&work).collect(),
        |items| items.into_iter().map(&work).collect(),
    )
}

/// Do this with every item, as [`map`].
pub(crate) fn each<T: Sync>(items: &[T], work: impl Fn(&T) + Send + Sync) {
    if items.len() <= FEW {
        return items.iter().for_each(work);
    }
    on_threads(
        items,
        |items| items.par_iter().for_each(&work),
        |items| items.iter().for_each(&work),
    );
}

/// Put them in this order, as [`map`]. Of two that are equal, either may come first.
pub(crate) fn sort<T: Send>(items: &mut [T], order: impl Fn(&T, &T) -> Ordering + Send + Sync) {
    if items.len() <= FEW {
        return items.sort_unstable_by(order);
    }
    on_threads(
        items,
        |items| items.par_sort_unstable_by(&order),
        |items| items.sort_unstable_by(&order),
    );
}

/// Do both, side by side if the system has a thread to give. Gives what both come to. What one of them
/// does with other functions of this module, a thread that has nothing to do helps with.
pub(crate) fn join<A: Send, B: Send>(
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B + Send,
) -> (A, B) {
    on_threads(
        (one, other),
        |(one, other)| rayon::join(one, other),
        |(one, other)| (one(), other()),
    )
}

/// The first of the two ways on the threads that this is on already, or else on as many new ones as
/// there are processors; the second where none can be started.
fn on_threads<I: Send, R: Send>(
    input: I,
    shared: impl FnOnce(I) -> R + Send,
    alone: impl FnOnce(I) -> R,
) -> R {
    if rayon::current_thread_index().is_some() {
        return shared(input);
    }
    match ThreadPoolBuilder::new().build() {
        Ok(threads) => threads.install(|| shared(input)),
        Err(_) => alone(input),
    }
}

/// Not worth a thread.
const FEW: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items_however_many_there_are() {
        for count in [0, 1, FEW, FEW + 1, 10 * FEW + 7] {
            let expected: Vec<_> = (0..count).map(|it| it * 2).collect();
            assert_eq!(map((0..count).collect(), |it| it * 2), expected);
        }
    }

    #[test]
    fn every_item_has_its_turn_once_and_all_are_put_in_order() {
        for count in [0, 1, FEW, FEW + 1, 10 * FEW + 7] {
            let mut items: Vec<_> = (0..count).rev().map(AtomicUsize::new).collect();
            each(&items, |it| {
                it.fetch_add(1, Relaxed);
            });
            let mut items: Vec<_> = items.iter_mut().map(|it| *it.get_mut()).collect();
            sort(&mut items, Ord::cmp);
            assert!(items.into_iter().eq(1..=count));
        }
    }

    #[test]
    fn what_is_done_side_by_side_is_done_on_the_same_threads() {
        let threads = || map((0..100 * FEW).collect(), |_| std::thread::current().id());
        let all_there_are = || rayon::broadcast(|_| std::thread::current().id());
        let (all, (one, other)) = join(all_there_are, || join(threads, threads));
        assert!([one, other].concat().iter().all(|it| all.contains(it)));
    }

    #[test]
    fn a_panic_of_one_is_a_panic_of_all() {
        let items: Vec<_> = (0..10 * FEW).collect();
        let all = std::panic::catch_unwind(|| map(items, |it| assert_ne!(it, 5 * FEW)));
        assert!(all.is_err());
    }
}
