//! When two requests may share one answer.

/// `cache.query`: what the query string does to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryRule {
    /// Another query is another answer: right for any fork.
    Key,
    /// The upstream reads no query on this route (`api.md` section 3), so it neither parts answers nor is sent on.
    Ignore,
}
