//! A draft without mistakes to what the log and traces obey.

use super::settings::LogSettings;
use super::table::{Draft, given};
use crate::engine::spans::TracingSettings;

/// What the log obeys.
pub(super) fn log(draft: &Draft) -> LogSettings {
    LogSettings {
        format: given(draft.log_format),
        level: given(draft.log_level.clone()),
        hits: given(draft.log_hits),
        only: given(draft.log_only),
        slow: given(draft.log_slow),
        client: given(draft.log_client),
    }
}

/// What traces obey.
pub(super) fn tracing(draft: &Draft) -> TracingSettings {
    TracingSettings { endpoint: draft.tracing_endpoint.clone(), sample: given(draft.tracing_sample) }
}
