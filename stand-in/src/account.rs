//! What the one account and its two inboxes are called.

/// The one account.
pub(super) const ACCOUNT: i64 = 7;

/// The inbox whose contacts are seeded: `visitor-a` (typical), `visitor-b` (verified, every odd shape there is),
/// `visitor-c` and `phone:+15550100003` (no conversations).
pub const INBOX: &str = "hmUxdYZ7nFu4KqJ8sT2vWbXc";

/// A second inbox of the same account, in which `visitor-b` has a conversation.
pub const OTHER_INBOX: &str = "Qz3LpR9aVtE6wYs1NkGdMj5B";

/// The numeric ids of the two inboxes, as the samples have them.
pub(super) const INBOX_ID: i64 = 23;
pub(super) const OTHER_INBOX_ID: i64 = 31;
