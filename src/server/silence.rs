//! Looks whether webhooks have fallen silent, so that the log tells of it though nobody asks for anything.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::engine::clock;
use crate::state::State;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);

/// Looks on until it is dropped.
pub async fn watch(state: Arc<State>) {
    loop {
        sleep(EVERY).await;
        // Whoever looks first tells.
        state.silent_for(clock::now());
    }
}
