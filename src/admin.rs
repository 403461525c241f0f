//! Private listener.

use crate::policy::secret::Secret;

/// What the private listener obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// `admin.token`: the bearer token of `POST /purge`; without it purge is off.
    pub token: Option<Secret>,
}
