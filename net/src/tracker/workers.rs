//! Arithmetic and the store, off the async threads: as many jobs at once as there are cores, a bounded queue before them, and
//! no more than a few jobs of any one subscriber or network.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::wire::api::ApiError;

/// A bounded pool, for jobs of whom `K` tells apart.
pub(super) struct Workers<K> {
    count: u32,
    /// Places of running and waiting jobs.
    places: usize,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Jobs of one at most; 0: any number.
    most_of_each: u32,
    of_each: OfEach<K>,
}

type OfEach<K> = Arc<Mutex<HashMap<K, u32>>>;

impl<K: Copy + Eq + Hash + Send + 'static> Workers<K> {
    /// `running` jobs at once, `waiting` more in the queue, `most_of_each` of one; 0: any number.
    pub(super) fn new(running: usize, waiting: usize, most_of_each: u32) -> Self {
        Workers {
            most_of_each,
            count: running as u32,
            places: running + waiting,
            running: Arc::new(Semaphore::new(running)),
            waiting: Arc::new(Semaphore::new(running + waiting)),
            of_each: Arc::default(),
        }
    }

    /// Runs a job. Errors: [`ApiError::Busy`] where the queue is full, [`ApiError::Internal`] where the job panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        // The permits go along with the job: it runs to its end even if the caller goes away.
        let place = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| ApiError::Busy)?;
        let permit = Arc::clone(&self.running).acquire_owned().await.map_err(|_| ApiError::Busy)?;
        let job = move || {
            let _held = (place, permit);
            job()
        };
        tokio::task::spawn_blocking(job).await.map_err(|_| ApiError::Internal)
    }

    /// Jobs that run, and jobs that wait.
    pub(super) fn load(&self) -> (u64, u64) {
        let running = (self.count as usize).saturating_sub(self.running.available_permits());
        let taken = self.places.saturating_sub(self.waiting.available_permits());
        (running as u64, taken.saturating_sub(running) as u64)
    }

    /// Takes no more jobs, and waits for those that run: some outlive who asked for them.
    pub(super) async fn finish(&self) {
        self.waiting.close();
        let _ = self.running.acquire_many(self.count).await;
        self.running.close();
    }

    /// Runs a job for one of many. Errors: those of [`Workers::run`], and [`ApiError::Rate`] where it has too many
    /// already.
    pub(super) async fn run_for<T: Send + 'static>(
        &self,
        whom: K,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = Turn::take(&self.of_each, whom, self.most_of_each)?;
        self.run(move || {
            let _turn = turn;
            job()
        })
        .await
    }
}

/// One of somebody's places.
struct Turn<K: Eq + Hash> {
    of_each: OfEach<K>,
    whom: K,
}

impl<K: Copy + Eq + Hash> Turn<K> {
    fn take(of_each: &OfEach<K>, whom: K, most: u32) -> Result<Self, ApiError> {
        let mut counts = of_each.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(whom).or_default();
        if most > 0 && *count >= most {
            return Err(ApiError::Rate);
        }
        *count += 1;
        Ok(Turn { of_each: Arc::clone(of_each), whom })
    }
}

impl<K: Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        let mut counts = self.of_each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.whom) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.whom);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use swarmseal_core::SubscriberId;

    use super::*;

    #[tokio::test]
    async fn the_queue_and_each_member_s_share_are_bounded() {
        let workers = Arc::new(Workers::new(1, 1, 8));
        let (release, wait) = mpsc::channel::<()>();
        let (started, running) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let workers = Arc::clone(&workers);
            async move {
                let job = move || (started.send(()), wait.recv()).1;
                workers.run_for(SubscriberId([1; 32]), job).await
            }
        });
        running.await.unwrap();
        let mut second = Box::pin(workers.run(|| 2));
        // Polled once, it stands in the queue; there is no place for a third.
        assert!(futures_poll_once(second.as_mut()).await.is_none());
        assert_eq!(workers.run(|| 3).await, Err(ApiError::Busy));
        assert_eq!(workers.load(), (1, 1));
        release.send(()).unwrap();
        first.await.unwrap().unwrap().unwrap();
        assert_eq!(second.await, Ok(2));

        let turns: Vec<Turn<_>> =
            (0..8).map(|_| Turn::take(&workers.of_each, SubscriberId([1; 32]), 8).unwrap()).collect();
        assert_eq!(workers.run_for(SubscriberId([1; 32]), || ()).await, Err(ApiError::Rate));
        assert_eq!(workers.run_for(SubscriberId([2; 32]), || ()).await, Ok(()));
        drop(turns);
        assert_eq!(workers.run_for(SubscriberId([1; 32]), || ()).await, Ok(()));
    }

    async fn futures_poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match future.as_mut().poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
