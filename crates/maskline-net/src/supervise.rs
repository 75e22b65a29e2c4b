//! Watching the node's tasks.
//!
//! None of them may end before the node is stopped. A task that panicked has left its calls in the
//! middle of a step: to go on would mean calls that nobody ends. So the process ends, its
//! supervisor starts it again, and the sessions are adopted from the journal.

use tokio::task::JoinSet;

/// The status that the process ends with after a panic: an internal software error (`EX_SOFTWARE`).
const EXIT_STATUS: i32 = 70;

/// Waits until all tasks have ended; on a panic, the process ends.
pub(crate) async fn watch(tasks: JoinSet<()>) {
    watch_with(tasks, || std::process::exit(EXIT_STATUS)).await;
}

async fn watch_with(mut tasks: JoinSet<()>, die: impl Fn()) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(
                %error,
                "a task of the SIP node panicked, which is a bug: the process ends; \
                 started again, it finishes the calls from the journal"
            );
            die();
        }
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_task_ends_the_process_and_an_orderly_end_does_not() {
        let deaths = Cell::new(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        watch_with(tasks, || deaths.set(deaths.get() + 1)).await;
        assert_eq!(deaths.get(), 0);

        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        tasks.spawn(async { panic!("on purpose") });
        watch_with(tasks, || deaths.set(deaths.get() + 1)).await;
        assert_eq!(deaths.get(), 1);
    }
}
