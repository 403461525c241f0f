//! The tasks that tell what is in the outbox.
//!
//! One takes out what is due and gives each delivery a task of its own, so nothing keeps its order.

use std::sync::{Arc, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::outbox::Job;
use super::shared::Shared;

/// Deliveries under way at once, held ones too: the rest stays in the queue.
const WORKERS: usize = 256;

/// Sends what is due until the stand-in stops.
pub(super) async fn send(shared: Arc<Shared>) {
    let workers = Arc::new(Semaphore::new(WORKERS));
    let next = async || {
        let worker = Arc::clone(&workers).acquire_owned().await.expect("never closed");
        (worker, shared.outbox.next().await)
    };
    loop {
        let (worker, job) = tokio::select! {
            () = shared.stopping.cancelled() => return,
            next = next() => next,
        };
        shared.tasks.spawn(deliver(Arc::clone(&shared), job, worker));
    }
}

/// One delivery: held at the gates, sent once, noted.
async fn deliver(shared: Arc<Shared>, job: Job, _worker: OwnedSemaphorePermit) {
    let Job { stopped, mut delivery, about, lost } = job;
    if !lost {
        let sent = async {
            shared.delivery_gates.pass(|condition| condition(&delivery)).await;
            delivery.send().await;
        };
        tokio::select! {
            () = stopped.cancelled() => return,
            () = sent => {}
        }
    }
    if let (Some((id, message_id)), Some(complaint)) = (about, delivery.complaint()) {
        let mut world = shared.world.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever deleted the conversation in the meantime has nothing to see any more.
        let _ = world.fail_message(id, message_id, &complaint);
    }
    // The log comes last: whoever waits for it finds everything done.
    shared.deliveries.note(delivery);
}
