//! Work that takes the processor for long, on a thread beside those that serve.

use std::panic::resume_unwind;

use tokio::task::{JoinHandle, spawn_blocking};

/// What the work gives. A panic of it goes on here. When the program ends before the work has begun, this never ends: whoever
/// waits ends with the program, too.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    of(spawn_blocking(work)).await
}

/// The same if the work `is_long`; else it is done here, on the thread that serves.
pub async fn aside_if<T: Send + 'static>(is_long: bool, work: impl FnOnce() -> T + Send + 'static) -> T {
    if is_long { aside(work).await } else { work() }
}

async fn of<T>(work: JoinHandle<T>) -> T {
    match work.await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_worked_out_is_given_and_a_panic_goes_on() {
        assert_eq!(aside(|| 7).await, 7);
        let panicked = tokio::spawn(aside(|| panic!("at work"))).await;
        assert!(panicked.is_err_and(|failed| failed.is_panic()));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_never_begins_is_no_panic() {
        let never = tokio::spawn(std::future::pending::<()>());
        never.abort();
        let waited = tokio::time::timeout(Duration::from_secs(1), of(never)).await;
        assert!(waited.is_err(), "it waits with whoever else is to end");
    }
}
