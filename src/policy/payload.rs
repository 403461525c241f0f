//! Checks a list against the published contract, trims it, and reads its scopes, in one pass over the bytes.
//!
//! The contract is [`schema`]: the published page with the requiredness and nullability that `api.md` sections 4 and 5
//! read from the server's code. A list is never parsed into a tree. The reader walks the bytes once; it refuses what is
//! not JSON, compares what is with the contract, notes the scopes that coherence needs (also those of parts that trimming
//! takes away) and what is kept. If anything goes, the writer copies what is kept as it stands: key order, spelling of
//! numbers, escapes. Only white space beside parts that go, and between conversations, is lost with them.
//!
//! Hostile bodies are bounded: 127 levels of nesting, 4 GiB, closed sets of labels, limited numbers of scopes and names.
//! The time is linear in the body.

mod read;
mod report;
mod scan;
pub mod schema;
mod scopes;
#[cfg(test)]
pub(crate) mod tests;
mod token;
mod trim;
mod write;

use std::fmt;

use bytes::Bytes;

pub use report::{MAX_UNKNOWN_NAMES, UnknownKeys, Violation, ViolationKind, Violations};
pub use scan::DEPTH_LIMIT;
pub use scopes::{BodyScopes, MAX_ACCOUNTS, MAX_CONTACTS, MAX_DISPLAY_IDS, MAX_UUIDS};
pub use trim::{Trim, TrimMistake};

use read::Reader;
use schema::Label;

/// Longer bodies are not worked on a thread that others wait for: a pass takes about a millisecond per megabyte.
pub const INLINE_LIMIT: usize = 256 * 1024;

/// `payload.validate`: what becomes of a list that differs from the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Validate {
    /// Differences are not looked for.
    Off,
    /// They are counted and sampled; the list is served and stored.
    #[default]
    Report,
    /// Such a list is neither stored nor served.
    Enforce,
}

/// `payload.*`, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PayloadSettings {
    /// `payload.validate`.
    pub validate: Validate,
    /// `payload.trim.*`, compiled.
    pub trim: Trim,
}

/// What one pass found and made.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The list to serve: the body itself, not a copy, if nothing was taken away.
    pub body: Bytes,
    /// Whether something was.
    pub changed: bool,
    /// What differs from the contract; nothing if that was not asked for.
    pub violations: Violations,
    /// Keys that are not on the published page.
    pub unknown_keys: UnknownKeys,
    /// What the list was made from, read before anything was taken away.
    pub scopes: BodyScopes,
}

/// The body is not a complete JSON array: not a list that may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAList {
    /// The byte at which it showed.
    pub at: usize,
    /// In which way.
    pub why: Why,
}

impl NotAList {
    /// Not even JSON by its content type: a page for people.
    pub const HTML: Self = Self { at: 0, why: Why::NotAnArray };
}

/// Why a body is not a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Something else: an object, a page of HTML.
    NotAnArray,
    /// It ends too early.
    Truncated,
    /// It is not JSON.
    Malformed,
    /// A string is not UTF-8.
    NotUtf8,
    /// It goes on after its end.
    Trailing,
    /// Nested to [`DEPTH_LIMIT`] levels.
    TooDeep,
    /// 4 GiB or more.
    TooLarge,
}

impl fmt::Display for NotAList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::NotAnArray => "not a JSON array",
            Why::Truncated => "cut off",
            Why::Malformed => "not valid JSON",
            Why::NotUtf8 => "a string that is not UTF-8",
            Why::Trailing => "more after the end of the array",
            Why::TooDeep => "nested too deeply",
            Why::TooLarge => "4 GiB or more",
        };
        write!(f, "{why}, at byte {}", self.at)
    }
}

impl std::error::Error for NotAList {}

/// The pass: checks, reads scopes, trims.
///
/// Takes time in proportion to the body; one longer than [`INLINE_LIMIT`] belongs on a blocking thread.
pub fn apply(body: &Bytes, settings: &PayloadSettings) -> Result<Outcome, NotAList> {
    let reader = reader(body, settings);
    finish(reader, body, settings).map(|(outcome, _)| outcome)
}

/// Scopes alone, for when lists are neither checked nor trimmed; refuses the same bodies.
pub fn scopes(body: &[u8]) -> Result<BodyScopes, NotAList> {
    refuse_too_large(body)?;
    let untrimmed = Trim::none();
    let mut reader = Reader::new(body, &untrimmed, false);
    reader.list()?;
    Ok(reader.scopes.finish())
}

/// How many bytes a field takes up, keys included; what contains others includes them.
pub type Weight = (&'static str, u64);

/// The pass, which also weighs: how many bytes each key takes up with its values, in the order of the contract.
pub fn weigh(body: &Bytes, settings: &PayloadSettings) -> Result<(Outcome, Vec<Weight>), NotAList> {
    let mut reader = reader(body, settings);
    reader.weights = Some(Box::new([0; schema::LABELS]));
    let (outcome, weights) = finish(reader, body, settings)?;
    let weights = Label::all().map(|label| (label.path(), weights.as_deref().map_or(0, |weights| weights[label.0])));
    Ok((outcome, weights.filter(|(_, bytes)| *bytes > 0).collect()))
}

fn reader<'a>(body: &'a Bytes, settings: &'a PayloadSettings) -> Reader<'a> {
    Reader::new(body, &settings.trim, settings.validate != Validate::Off)
}

type Weights = Option<Box<[u64; schema::LABELS]>>;

fn finish(mut reader: Reader<'_>, body: &Bytes, settings: &PayloadSettings) -> Result<(Outcome, Weights), NotAList> {
    refuse_too_large(body)?;
    reader.list()?;
    let Reader { violations, unknown, scopes, plan, changed, weights, .. } = reader;
    let kept = if changed { Bytes::from(plan.write(body, &settings.trim)) } else { body.clone() };
    let (unknown_keys, scopes) = (unknown.finish(), scopes.finish());
    Ok((Outcome { body: kept, changed, violations, unknown_keys, scopes }, weights))
}

/// Offsets are noted in 32 bits.
fn refuse_too_large(body: &[u8]) -> Result<(), NotAList> {
    match u32::try_from(body.len()) {
        Ok(_) => Ok(()),
        Err(_) => Err(NotAList { at: 0, why: Why::TooLarge }),
    }
}
