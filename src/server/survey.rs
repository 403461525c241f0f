//! Looks at Redis whenever the replicas begin anew in it, which is also how a replica begins, and now and then; says what
//! somebody should mend.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::engine::metrics::Metrics;
use crate::engine::replicas::connect::Failed;
use crate::engine::replicas::link::Names;
use crate::engine::replicas::settings::ReplicasSettings;
use crate::engine::replicas::survey::{Survey, survey};

/// How long a look may take, and the time to the next after one that failed and one that did not.
const PATIENCE: Duration = Duration::from_secs(2);
const AFTER_FAILURE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(300);

/// Looks now and every few minutes, as long as somebody has this. What was told is not told again.
pub(super) fn begin(settings: ReplicasSettings, names: Arc<Names>, metrics: Arc<Metrics>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut told = None;
        loop {
            let looked = tokio::time::timeout(PATIENCE, survey(&settings, &names)).await;
            let pause = match looked.unwrap_or_else(|_| Err(Failed::too_slow(PATIENCE))) {
                Ok(found) => {
                    metrics.replicas.failover_safe.set(i64::from(found.failover_safe));
                    if told.as_ref() != Some(&found) {
                        tell(&found);
                        told = Some(found);
                    }
                    AFTER
                }
                // Why Redis does not answer is told where it matters.
                Err(why) => {
                    tracing::debug!(%why, "Redis could not be looked at");
                    AFTER_FAILURE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }))
}

fn tell(found: &Survey) {
    tracing::info!(server = found.server, "this is the Redis that the replicas share through");
    for warning in &found.warnings {
        tracing::warn!(server = found.server, "{warning}");
    }
}
