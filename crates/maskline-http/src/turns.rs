//! Whose turn it is to have something done that takes long: each sub-account has a line of its own, and
//! only who is at its front waits together with those of the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// Requests of one sub-account for work of one kind that have a place: they wait, are worked on, or their
/// answer is being sent.
const MOST_PLACES: usize = 16;

/// A line for each sub-account that has anything in it; the others are forgotten.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<BTreeMap<String, Line>>>);

#[derive(Default)]
struct Line {
    front: Arc<AsyncMutex<()>>,
    places: usize,
}

impl Lines {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in a sub-account's line, unless it has `most` already.
    pub(crate) fn place(&self, owner: &str, most: usize) -> Option<Place> {
        let mut lines = self.lines();
        if lines.get(owner).is_some_and(|line| line.places >= most) {
            return None;
        }
        Some(self.join(&mut lines, owner))
    }

    /// A place in a sub-account's line, however long it is, once it is at the front.
    pub(crate) async fn front(&self, owner: &str) -> (OwnedMutexGuard<()>, Place) {
        let place = self.join(&mut self.lines(), owner);
        (place.front().await, place)
    }

    fn join(&self, lines: &mut BTreeMap<String, Line>, owner: &str) -> Place {
        let line = lines.entry(owner.to_owned()).or_default();
        line.places += 1;
        Place {
            lines: self.clone(),
            owner: owner.to_owned(),
            front: Arc::clone(&line.front),
        }
    }
}

/// A place in a line, given back when dropped. Whoever is at the front keeps it meanwhile.
pub(crate) struct Place {
    lines: Lines,
    owner: String,
    front: Arc<AsyncMutex<()>>,
}

impl Place {
    /// Waits for the front of the line, which is left when what this gives is dropped.
    async fn front(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.front).lock_owned().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lines();
        if let Some(line) = lines.get_mut(&self.owner) {
            line.places = line.places.saturating_sub(1);
            if line.places == 0 {
                lines.remove(&self.owner);
            }
        }
    }
}

/// Work of one kind that takes long: so much at once, and of each sub-account one at a time.
pub(crate) struct LongWork {
    lines: Lines,
    at_once: Arc<Semaphore>,
}

impl LongWork {
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            lines: Lines::default(),
            at_once: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// Waits for a sub-account's turn, if not too many wait for it already.
    pub(crate) async fn turn(&self, owner: &str) -> Result<Turn, ApiError> {
        let place = self
            .lines
            .place(owner, MOST_PLACES)
            .ok_or(ApiError::TooManyAtOnce)?;
        let front = place.front().await;
        // Closed by nobody.
        let one = Arc::clone(&self.at_once).acquire_owned().await.ok();
        Ok(Turn { one, front, place })
    }
}

/// A turn, which ends when it is dropped.
pub(crate) struct Turn {
    one: Option<OwnedSemaphorePermit>,
    front: OwnedMutexGuard<()>,
    // The last to be dropped: who comes to a forgotten line is at its front at once.
    place: Place,
}

impl Turn {
    /// Does the work on a thread of its own, to its end although nobody may wait for it, and ends the
    /// turn. The place goes with what comes of it, for as long as that takes memory.
    pub(crate) async fn work<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, Place), ApiError> {
        let done = tokio::task::spawn_blocking(move || {
            let turn = self;
            (work(), turn.ended())
        });
        done.await.map_err(|_| ApiError::Panicked)
    }

    fn ended(self) -> Place {
        let Self { one, front, place } = self;
        drop((one, front));
        place
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::thread;
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;

    /// What a future gives without waiting.
    fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ready) => Some(ready),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn long_work_is_done_elsewhere_two_at_a_time_and_one_of_each_sub_account() {
        let work = Arc::new(LongWork::new(2));
        let here = thread::current().id();
        let counts: Arc<[AtomicUsize; 4]> = Arc::default();
        let most = Arc::new(AtomicUsize::new(0));
        let mut all = JoinSet::new();
        for number in 0..32 {
            let (work, counts, most) = (Arc::clone(&work), Arc::clone(&counts), Arc::clone(&most));
            all.spawn(async move {
                let owner = number % 3;
                let job = move || {
                    let of_owner = counts[owner].fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(
                        counts[3].fetch_add(1, Ordering::SeqCst) + 1,
                        Ordering::SeqCst,
                    );
                    thread::sleep(Duration::from_millis(2));
                    counts[3].fetch_sub(1, Ordering::SeqCst);
                    counts[owner].fetch_sub(1, Ordering::SeqCst);
                    (of_owner, thread::current().id())
                };
                let turn = work.turn(&owner.to_string()).await.unwrap();
                turn.work(job).await.unwrap().0
            });
        }
        for (of_owner, thread) in all.join_all().await {
            assert_ne!(thread, here);
            assert_eq!(of_owner, 1);
        }
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert!(work.lines.lines().is_empty(), "nobody is remembered");
    }

    #[tokio::test]
    async fn a_long_line_of_one_is_as_long_as_it_may_be_and_in_no_other_s_way() {
        let work = LongWork::new(2);
        let first = now_or_never(work.turn("market")).unwrap().unwrap();
        let mut waiting: Vec<_> = (1..MOST_PLACES)
            .map(|_| Box::pin(work.turn("market")))
            .collect();
        for turn in &mut waiting {
            assert!(now_or_never(turn.as_mut()).is_none());
        }
        let refused = now_or_never(work.turn("market")).unwrap();
        assert!(matches!(refused, Err(ApiError::TooManyAtOnce)));
        for _ in 0..3 {
            now_or_never(work.turn("shop")).unwrap().unwrap();
        }
        // Who gives up gives its place back.
        drop(waiting.pop());
        let mut last = Box::pin(work.turn("market"));
        assert!(now_or_never(last.as_mut()).is_none());
        drop(first);
        waiting.push(last);
        for turn in waiting {
            let turn = turn.await.unwrap();
            turn.work(|| ()).await.unwrap();
        }
        assert!(work.lines.lines().is_empty());
    }

    #[tokio::test]
    async fn who_must_not_be_refused_waits_however_many_do() {
        let lines = Lines::default();
        let first = now_or_never(lines.front("market")).unwrap();
        let waiting: Vec<_> = (0..2 * MOST_PLACES)
            .map(|_| Box::pin(lines.front("market")))
            .map(|mut front| {
                assert!(now_or_never(front.as_mut()).is_none());
                front
            })
            .collect();
        assert!(now_or_never(lines.front("shop")).is_some());
        drop(first);
        for front in waiting {
            drop(now_or_never(front).unwrap());
        }
        assert!(lines.lines().is_empty());
    }

    #[tokio::test]
    async fn a_turn_is_lost_to_no_panic_and_a_place_lasts_as_long_as_what_came_of_it() {
        let work = LongWork::new(1);
        for _ in 0..2 {
            let turn = work.turn("market").await.unwrap();
            let panics = turn.work(|| unreachable!("planted")).await;
            assert!(matches!(panics, Err(ApiError::Panicked)));
        }
        let mut places = Vec::new();
        for _ in 0..MOST_PLACES {
            let turn = work.turn("market").await.unwrap();
            places.push(turn.work(|| ()).await.unwrap().1);
        }
        let refused = work.turn("market").await;
        assert!(matches!(refused, Err(ApiError::TooManyAtOnce)));
        places.pop();
        drop(work.turn("market").await.unwrap());
        places.clear();
        assert!(work.lines.lines().is_empty());
    }
}
