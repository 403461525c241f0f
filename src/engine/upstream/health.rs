//! What the upstream's failures leave behind: a count by class, and a line now and then.

use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;

use super::error::UpstreamError;
use super::settings::BaseUrl;
use crate::engine::clock;
use crate::engine::metrics::Metrics;
use crate::policy::upstream_health::UpstreamHealth;

/// Told of every answer and every failure.
pub struct Health {
    /// Locked for a comparison of instants.
    state: Mutex<UpstreamHealth>,
    base: BaseUrl,
    metrics: Arc<Metrics>,
}

impl Health {
    pub(super) fn new(base: BaseUrl, metrics: Arc<Metrics>) -> Self {
        Self { state: Mutex::default(), base, metrics }
    }

    /// The upstream gave no answer, or not the whole of it. A client's own fault says nothing of the upstream.
    pub fn failed(&self, error: UpstreamError) {
        let Some(class) = error.class() else { return };
        self.metrics.upstream_errors.with_label_values(&[class.label()]).inc();
        if let Some(count) = self.note_failure() {
            tracing::warn!(error = class.label(), count, "{}", error.told_of(&self.base));
        }
    }

    /// It answered a shared fetch that it cannot serve it.
    pub fn refused(&self, status: StatusCode) {
        if let Some(count) = self.note_failure() {
            let status = status.as_u16();
            tracing::warn!(status, count, "the upstream {} answers lists with an error", self.base.authority);
        }
    }

    /// It answered.
    pub(super) fn answered(&self) {
        let recovered = self.state.lock().unwrap_or_else(PoisonError::into_inner).answered(clock::now());
        if let Some(recovered) = recovered {
            let failed_for_s = recovered.after.as_secs();
            tracing::info!(failed_for_s, count = recovered.failures, "the upstream {} answers again", self.base.authority);
        }
    }

    fn note_failure(&self) -> Option<u64> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).failed(clock::now())
    }
}
