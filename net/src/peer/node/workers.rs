//! Slow work off the async threads: so many jobs at a time, the others in a queue.
//!
//! A thread that has done a job takes the next one by itself. Where there is a queue, no thread is woken and none goes to
//! sleep between two pieces.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

/// A node's workers. What bounds the queue is who asks for the jobs: the pieces under way of a torrent.
pub(super) struct Workers {
    most: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    running: usize,
}

impl Workers {
    /// `most` jobs at a time.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Workers { most, queue: Mutex::default() })
    }

    /// Runs `job` where blocking is allowed, then `report` with its result, `None` where it panicked. To be called inside a tokio
    /// runtime.
    pub(super) fn run<T>(
        self: &Arc<Self>,
        job: impl FnOnce() -> T + Send + 'static,
        report: impl FnOnce(Option<T>) + Send + 'static,
    ) {
        let mut queue = self.queue();
        queue.jobs.push_back(Box::new(|| report(catch_unwind(AssertUnwindSafe(job)).ok())));
        if queue.running < self.most {
            queue.running += 1;
            let workers = self.clone();
            tokio::task::spawn_blocking(move || workers.work());
        }
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            // The report is a message to a task: it does not panic, and a worker that is lost would never come back.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        let job = queue.jobs.pop_front();
        queue.running -= usize::from(job.is_none());
        job
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue();
        write!(f, "Workers({} of {} running, {} jobs wait)", queue.running, self.most, queue.jobs.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn so_many_run_at_a_time_and_all_run() {
        let workers = Workers::new(2);
        let (sender, results) = mpsc::channel();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // Two by two, or they wait for ever.
        let both = Arc::new(Barrier::new(2));
        for number in 0..40 {
            let (sender, running, most, both) = (sender.clone(), running.clone(), most.clone(), both.clone());
            let job = move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                both.wait();
                running.fetch_sub(1, Ordering::SeqCst);
                number
            };
            workers.run(job, move |result| sender.send(result).unwrap());
        }
        let mut done: Vec<i32> = (0..40).map(|_| results.recv_timeout(DEADLINE).unwrap().unwrap()).collect();
        done.sort_unstable();
        assert_eq!((done, most.load(Ordering::SeqCst)), ((0..40).collect(), 2));
    }

    #[tokio::test]
    async fn a_job_that_panics_is_reported_and_costs_no_worker() {
        let workers = Workers::new(1);
        let (sender, results) = mpsc::channel();
        for fails in [true, false] {
            let sender = sender.clone();
            let job = move || assert!(!fails, "as it should");
            workers.run(job, move |result| sender.send(result).unwrap());
        }
        assert_eq!(results.recv_timeout(DEADLINE).unwrap(), None);
        assert_eq!(results.recv_timeout(DEADLINE).unwrap(), Some(()));
    }
}
