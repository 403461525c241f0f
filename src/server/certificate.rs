//! Looks whether certificate and key of the public listener have changed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::engine::tls::Renewal;
use crate::state::State;

/// How often the files are read. Their bytes are compared: what they are links to, and when that was changed, does not
/// matter.
const EVERY: Duration = Duration::from_secs(5);

/// Puts a new pair in force when the files have changed, until it is dropped. A bad one is told of once.
pub async fn watch(state: Arc<State>) {
    if state.tls.is_none() {
        return;
    }
    let mut told = None;
    loop {
        sleep(EVERY).await;
        let with = state.clone();
        // Files may be on a disk that is slow to answer.
        let renewal = tokio::task::spawn_blocking(move || with.renew_certificate(with.active().config.tls.as_ref()));
        match renewal.await {
            Ok(Ok(renewal)) => {
                if renewal == Renewal::Renewed {
                    tracing::info!("certificate and key were read again: new connections get them");
                }
                told = None;
            }
            Ok(Err(what)) => {
                if told.as_ref() != Some(&what) {
                    tracing::warn!(%what, "the certificate stays as it was");
                }
                told = Some(what);
            }
            // The program ends.
            Err(_) => return,
        }
    }
}
