//! What a request is.

/// `cache.credentials`: what a list request with credentials is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsRule {
    /// It may not be shared: it passes by the cache.
    Bypass,
    /// The upstream reads none on this route (`api.md` section 9): shared, and the credentials are not sent.
    Ignore,
}
