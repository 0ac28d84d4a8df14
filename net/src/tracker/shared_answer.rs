//! One answer for all who ask while it is being made, so that a flood of one question costs what one asker costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Answers to one question.
pub(super) struct SharedAnswer<T> {
    /// Makings that have begun.
    begun: AtomicU64,
    /// The newest answer, and which making it is of.
    newest: Arc<Mutex<(u64, Option<T>)>>,
}

impl<T> Default for SharedAnswer<T> {
    fn default() -> Self {
        SharedAnswer { begun: AtomicU64::new(0), newest: Arc::new(Mutex::new((0, None))) }
    }
}

impl<T: Clone + Send + 'static> SharedAnswer<T> {
    /// An answer whose making began after this call: another asker's, or one that `make` makes, in a task of its own that goes on where
    /// the asker goes away. At most one is being made at a time. `None`: the making panicked.
    pub(super) async fn get(&self, make: impl Future<Output = Option<T>> + Send + 'static) -> Option<T> {
        let asked = self.begun.load(Ordering::SeqCst);
        let mut newest = Arc::clone(&self.newest).lock_owned().await;
        if newest.0 > asked {
            return newest.1.clone();
        }
        let making = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let made = tokio::spawn(async move {
            *newest = (making, None);
            newest.1 = make.await;
            newest.1.clone()
        });
        made.await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_share_and_nobody_gets_an_answer_from_before() {
        let shared = Arc::new(SharedAnswer::default());
        let made = Arc::new(AtomicUsize::new(0));
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let make = async {
                    begun.send(()).unwrap();
                    gone.await.unwrap();
                    Some(0)
                };
                shared.get(make).await
            }
        });
        has_begun.await.unwrap();
        let ask = || {
            let (shared, made) = (Arc::clone(&shared), Arc::clone(&made));
            async move { shared.get(async move { Some(made.fetch_add(1, Ordering::SeqCst) + 1) }).await }
        };
        let waiting = async { tokio::join!(ask(), ask(), ask()) };
        let release = async { go.send(()).unwrap() };
        let (answers, ()) = tokio::join!(waiting, release);
        assert_eq!(first.await.unwrap(), Some(0));
        // The one that was under way when they asked is of before.
        assert_eq!(answers, (Some(1), Some(1), Some(1)));
        assert_eq!(ask().await, Some(2));
    }

    #[tokio::test]
    async fn a_making_that_fails_is_no_answer() {
        let shared = SharedAnswer::<u8>::default();
        assert_eq!(shared.get(async { panic!("it fails") }).await, None);
        assert_eq!(shared.get(async { Some(1) }).await, Some(1));
    }
}
