//! A connection to Redis for what may fail: a task makes it and the next, and nobody waits for one longer than for an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{ScriptInvocation, Value};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::super::metrics::ExchangeFailure;
use super::connect::Failed;
use super::link::Link;
use super::settings::ReplicasSettings;

/// How long a connection may take to be made.
const OPENING: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// Answers in a row that may not come in time before the connection counts as dead.
const LATE: u32 = 3;

/// A connection that is made anew when it has failed.
pub(super) struct Lane {
    links: watch::Receiver<Option<Arc<Link>>>,
    late: AtomicU32,
    broken: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

impl Lane {
    pub(super) fn new(settings: ReplicasSettings) -> Self {
        let (give, links) = watch::channel(None);
        let broken = Arc::<Notify>::default();
        let task = tokio::spawn(keep(settings, give, broken.clone()));
        Self { links, late: AtomicU32::new(0), broken, _task: AbortOnDropHandle::new(task) }
    }

    /// Runs a script, which has so long to answer.
    pub(super) async fn run(&self, invocation: &ScriptInvocation<'_>, limit: Duration) -> Result<Value, Failed> {
        let running = async {
            let mut links = self.links.clone();
            let link = links.wait_for(Option::is_some).await.ok().and_then(|link| link.clone());
            let link = link.ok_or_else(|| Failed::new(ExchangeFailure::Connection, "there is no connection"))?;
            link.run(invocation).await
        };
        let Ok(answered) = timeout(limit, running).await else {
            if self.late.fetch_add(1, Ordering::Relaxed) + 1 >= LATE {
                self.broken.notify_one();
            }
            return Err(Failed::too_slow(limit));
        };
        self.late.store(0, Ordering::Relaxed);
        // One that takes no writes any more, or has the keys no more, is not asked again.
        let elsewhere = [ExchangeFailure::Connection, ExchangeFailure::ReadOnly, ExchangeFailure::Other];
        if matches!(&answered, Err(why) if elsewhere.contains(&why.kind)) {
            self.broken.notify_one();
        }
        answered
    }
}

/// Keeps a connection until nobody wants one.
async fn keep(settings: ReplicasSettings, give: watch::Sender<Option<Arc<Link>>>, broken: Arc<Notify>) {
    while !give.is_closed() {
        if let Ok(Ok(link)) = timeout(OPENING, Link::open(&settings)).await {
            give.send_replace(Some(Arc::new(link)));
            broken.notified().await;
            give.send_replace(None);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
