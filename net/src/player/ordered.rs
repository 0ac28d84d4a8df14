//! Work done on all cores whose results are taken in order, a bounded number ahead.

use std::num::NonZero;
use std::ops::Range;
use std::sync::mpsc;
use std::thread;

/// Calls `work` for each index, on all cores, and `take` for each result, in order on this thread. At most two results a
/// core wait to be taken. Stops at the first error in the order of the indices.
pub(super) fn in_order<T: Send, E: Send>(
    range: Range<u32>,
    work: impl Fn(u32) -> Result<T, E> + Sync,
    mut take: impl FnMut(u32, T) -> Result<(), E>,
) -> Result<(), E> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = cores.min(range.len()).max(1);
    thread::scope(|scope| {
        // Worker w takes every threads-th index from w on, so that each result's place is known.
        let results: Vec<_> = (0..threads)
            .map(|worker| {
                let (send, receive) = mpsc::sync_channel(1);
                let (work, indices) = (&work, range.clone().skip(worker).step_by(threads));
                scope.spawn(move || {
                    for index in indices {
                        let result = work(index);
                        let failed = result.is_err();
                        // No receiver: an earlier piece failed.
                        if send.send(result).is_err() || failed {
                            break;
                        }
                    }
                });
                receive
            })
            .collect();
        for (index, results) in range.clone().zip(results.iter().cycle()) {
            match results.recv() {
                Ok(result) => take(index, result?)?,
                // The worker panicked, and the scope will say so.
                Err(_) => break,
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn results_come_in_order_and_whole() {
        for count in [0, 1, 2, 3, 100] {
            let mut taken = Vec::new();
            in_order(
                5..5 + count,
                |i| Ok::<_, ()>(i * 2),
                |i, double| {
                    taken.push((i, double));
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(taken, (5..5 + count).map(|i| (i, i * 2)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_in_order_stops_all() {
        let mut taken = 0;
        let result = in_order(
            0..1000,
            |i| if i >= 7 { Err(i) } else { Ok(()) },
            |_, ()| {
                taken += 1;
                Ok(())
            },
        );
        assert_eq!((result, taken), (Err(7), 7));

        let worked = AtomicU32::new(0);
        let result = in_order(
            0..1000,
            |i| Ok(worked.fetch_add(1, Ordering::Relaxed) + i),
            |i, _| {
                if i == 3 { Err("full") } else { Ok(()) }
            },
        );
        assert_eq!(result, Err("full"));
        assert!(worked.into_inner() < 1000);
    }
}
