//! Lets go of stored answers that are of no use any more, behind.

use std::sync::Weak;

use tokio_util::task::AbortOnDropHandle;

use crate::engine::clock;
use crate::state::State;

/// Sweeps now and again, as long as somebody has this.
pub(super) fn begin(state: Weak<State>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(state) = state.upgrade() {
            // All answers are looked at: a thread that serves would stand still for that.
            let swept = tokio::task::spawn_blocking(move || state.cache.store.sweep(clock::now()));
            let Ok(pause) = swept.await else { return };
            tokio::time::sleep(pause).await;
        }
    }))
}
