//! Checks a list, or what another read gives, against the published contract, trims it, and reads its scopes, in one pass
//! over the bytes. What is said of lists holds for a conversation, a page of messages and a contact by itself.
//!
//! The contract is [`schema`]: the published page with the requiredness and nullability that `api.md` sections 4 and 5
//! read from the server's code. A list is never parsed into a tree. The reader walks the bytes once; it refuses what is
//! not JSON, compares what is with the contract, notes the scopes that coherence needs (also those of parts that trimming
//! takes away) and what is kept. If anything goes, the writer copies what is kept as it stands: key order, spelling of
//! numbers, escapes. Only white space beside parts that go, between conversations, and between messages if their number is
//! limited, is lost with them.
//!
//! Hostile bodies are bounded: 127 levels of nesting, 4 GiB, closed sets of labels, limited numbers of scopes and names.
//! The time is linear in the body.

mod json_schema;
mod marks;
mod not_a_list;
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

use bytes::Bytes;

use crate::policy::resource::ReadKind;

pub use json_schema::json_schema;
pub use marks::{ConversationMarks, Marks};
pub use not_a_list::{NotAList, Why};
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
    /// Keys that are not on the published page; none if differences were not asked for.
    pub unknown_keys: UnknownKeys,
    /// What the list was made from, read before anything was taken away.
    pub scopes: BodyScopes,
    /// What it shows that other reads show, too, before anything was taken away.
    pub marks: Marks,
}

/// The pass over a list: checks, reads scopes, trims.
///
/// Takes time in proportion to the body; one longer than [`INLINE_LIMIT`] belongs on a blocking thread.
pub fn apply(body: &Bytes, settings: &PayloadSettings) -> Result<Outcome, NotAList> {
    apply_to(ReadKind::Conversations, body, settings)
}

/// The same over what any read gives.
pub fn apply_to(read: ReadKind, body: &Bytes, settings: &PayloadSettings) -> Result<Outcome, NotAList> {
    let reader = reader(read, body, settings);
    finish(read, reader, body, settings).map(|(outcome, _)| outcome)
}

/// Scopes alone, for when lists are neither checked nor trimmed; refuses the same bodies.
pub fn scopes(body: &[u8]) -> Result<BodyScopes, NotAList> {
    refuse_too_large(body)?;
    let untrimmed = Trim::none();
    let mut reader = Reader::new(ReadKind::Conversations, body, &untrimmed, false);
    reader.document()?;
    Ok(reader.scopes.finish())
}

/// How many bytes a field takes up, keys included; what contains others includes them.
pub type Weight = (&'static str, u64);

/// The pass, which also weighs: how many bytes each key takes up with its values, in the order of the contract.
pub fn weigh(read: ReadKind, body: &Bytes, settings: &PayloadSettings) -> Result<(Outcome, Vec<Weight>), NotAList> {
    let mut reader = reader(read, body, settings);
    reader.weights = Some(Box::new([0; schema::LABELS]));
    let (outcome, weights) = finish(read, reader, body, settings)?;
    let weights = Label::all().map(|label| (label.path(), weights.as_deref().map_or(0, |weights| weights[label.0])));
    Ok((outcome, weights.filter(|(_, bytes)| *bytes > 0).collect()))
}

fn reader<'a>(read: ReadKind, body: &'a Bytes, settings: &'a PayloadSettings) -> Reader<'a> {
    Reader::new(read, body, &settings.trim, settings.validate != Validate::Off)
}

type Weights = Option<Box<[u64; schema::LABELS]>>;

fn finish(
    read: ReadKind,
    mut reader: Reader<'_>,
    body: &Bytes,
    settings: &PayloadSettings,
) -> Result<(Outcome, Weights), NotAList> {
    refuse_too_large(body)?;
    reader.document()?;
    let Reader { violations, unknown, scopes, marks, plan, changed, weights, .. } = reader;
    let kept = if changed { Bytes::from(plan.write(body, &settings.trim, read)) } else { body.clone() };
    let (unknown_keys, scopes, marks) = (unknown.finish(), scopes.finish(), marks.finish());
    Ok((Outcome { body: kept, changed, violations, unknown_keys, scopes, marks }, weights))
}

/// Offsets are noted in 32 bits.
fn refuse_too_large(body: &[u8]) -> Result<(), NotAList> {
    match u32::try_from(body.len()) {
        Ok(_) => Ok(()),
        Err(_) => Err(NotAList { at: 0, why: Why::TooLarge }),
    }
}
