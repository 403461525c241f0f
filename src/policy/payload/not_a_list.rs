//! Why a body is not a list.

use std::fmt;

use crate::policy::resource::ReadKind;

/// The body is not a complete JSON text of the kind that was asked for: nothing that may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAList {
    /// The byte at which it showed.
    pub at: usize,
    /// In which way.
    pub why: Why,
}

impl NotAList {
    /// Not even JSON by its content type: a page for people in the place of this.
    pub fn page_for_people(read: ReadKind) -> Self {
        Self { at: 0, why: Why::other_than(read) }
    }
}

/// Why a body is not a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Something else where an array belongs: an object, a page of HTML.
    NotAnArray,
    /// Something else where an object belongs.
    NotAnObject,
    /// It ends too early.
    Truncated,
    /// It is not JSON.
    Malformed,
    /// A string is not UTF-8.
    NotUtf8,
    /// It goes on after its end.
    Trailing,
    /// Nested to [`DEPTH_LIMIT`](super::DEPTH_LIMIT) levels.
    TooDeep,
    /// 4 GiB or more.
    TooLarge,
}

impl Why {
    /// Of whatever is not of the kind that a read gives.
    pub(super) fn other_than(read: ReadKind) -> Self {
        match read {
            ReadKind::Conversations | ReadKind::Messages => Self::NotAnArray,
            ReadKind::Conversation | ReadKind::Contact => Self::NotAnObject,
        }
    }
}

impl fmt::Display for NotAList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::NotAnArray => "not a JSON array",
            Why::NotAnObject => "not a JSON object",
            Why::Truncated if self.at == 0 => return f.write_str("an empty body"),
            Why::Truncated => "cut off",
            Why::Malformed => "not valid JSON",
            Why::NotUtf8 => "a string that is not UTF-8",
            Why::Trailing => "more after its end",
            Why::TooDeep => "nested too deeply",
            Why::TooLarge => "4 GiB or more",
        };
        write!(f, "{why}, at byte {}", self.at)
    }
}

impl std::error::Error for NotAList {}
