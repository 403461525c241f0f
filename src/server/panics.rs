//! Panics: each ends what met it, is counted, and is told without what it was about.

use std::panic::PanicHookInfo;
use std::sync::Arc;

use crate::engine::metrics::Metrics;

/// What is to be done first when anything panics. The message stays unsaid: it may hold what a client sent.
pub fn hook(metrics: Arc<Metrics>) -> impl Fn(&PanicHookInfo<'_>) + Send + Sync + 'static {
    move |info| {
        metrics.panics.inc();
        // A literal is a part of the program; what was put together at run time may be anything.
        let message = info.payload().downcast_ref::<&'static str>().copied().unwrap_or("not told");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, message, "a panic: what met it has ended, the rest goes on");
    }
}
