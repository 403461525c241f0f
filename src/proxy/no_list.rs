//! What comes in a list's place and is none: counted, and told of now and then with what is likely wrong.

use std::fmt::Display;

use http::StatusCode;

use crate::engine::clock;
use crate::policy::http::no_list::NoList;
use crate::state::State;

/// Tells of what came instead of a list; `why` is what reading it gave. Where a redirect leads is not told: a list's
/// path is a credential.
pub(crate) fn tell(state: &State, status: StatusCode, what: NoList, why: Option<&dyn Display>) {
    state.metrics.no_lists.with_label_values(&[what.label()]).inc();
    if state.observation.may_tell_of_no_list(clock::now()) {
        let why = why.map(ToString::to_string);
        let status = status.as_u16();
        tracing::warn!(likely = what.label(), why, "a {status} of the upstream is not a list; likely {}", what.likely_cause());
    }
}
