//! What differed from the contract: counts from closed sets, a few example places, never a value.

use std::fmt::Write as _;

use super::schema::{Kind, LABELS, Label, Shape};
use crate::policy::resource::ReadKind;

/// How a value breaks the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ViolationKind {
    /// A required key is absent.
    Missing,
    /// A value of another type.
    WrongType,
    /// A string that is none of a closed enum's.
    UnknownEnumValue,
    /// Null where none may be.
    Null,
}

impl ViolationKind {
    /// Every kind.
    pub const ALL: [ViolationKind; 4] =
        [ViolationKind::Missing, ViolationKind::WrongType, ViolationKind::UnknownEnumValue, ViolationKind::Null];

    /// The label of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            ViolationKind::Missing => "missing",
            ViolationKind::WrongType => "wrong_type",
            ViolationKind::UnknownEnumValue => "unknown_enum_value",
            ViolationKind::Null => "null",
        }
    }

    /// Whether a value of this label can break the contract so.
    pub fn can_be(self, label: Label) -> bool {
        let field = label.field();
        match self {
            ViolationKind::Missing => field.is_some_and(|field| field.required),
            ViolationKind::WrongType => field.is_none_or(|field| !matches!(field.kind, Kind::Anything)),
            ViolationKind::UnknownEnumValue => field.is_some_and(|field| matches!(field.kind, Kind::Status)),
            ViolationKind::Null => field.is_none_or(|field| !field.nullable && !matches!(field.kind, Kind::Anything)),
        }
    }
}

/// How many different unknown keys are told apart by name.
pub const MAX_UNKNOWN_NAMES: usize = 32;
/// Unknown keys are a stranger's text; this much of one is shown.
const MAX_NAME_BYTES: usize = 64;
/// Violations with an example place. There are few hundred different ones at most; the first tell the story.
const MAX_EXAMPLES: usize = 32;

/// The violations of one list.
#[derive(Clone, Debug, Default)]
pub struct Violations {
    /// One count per label and kind; made when the first violation is seen.
    counts: Option<Box<[[u64; ViolationKind::ALL.len()]; LABELS]>>,
    examples: Vec<(Label, ViolationKind, String)>,
}

/// All violations of one field in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation<'a> {
    /// The path, from a closed set: array levels are not written.
    pub field: &'static str,
    /// In which way.
    pub kind: ViolationKind,
    /// How often.
    pub count: u64,
    /// Where first, such as `[0].messages[3].status`, for the first few.
    pub example: Option<&'a str>,
}

impl Violations {
    /// Whether the list keeps the contract.
    pub fn is_empty(&self) -> bool {
        self.counts.is_none()
    }

    /// How many there are in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().flat_map(|counts| counts.iter().flatten()).sum()
    }

    /// What differs, in the order of the contract.
    pub fn iter(&self) -> impl Iterator<Item = Violation<'_>> {
        let counts = self.counts.as_deref();
        let all = Label::all().flat_map(|label| ViolationKind::ALL.map(|kind| (label, kind)));
        all.filter_map(move |(label, kind)| {
            let count = counts?[label.0][kind as usize];
            let example = self.examples.iter().find(|example| (example.0, example.1) == (label, kind));
            let example = example.map(|(_, _, place)| place.as_str());
            (count > 0).then_some(Violation { field: label.path(), kind, count, example })
        })
    }

    /// The first violations met, one short text each, for a problem document or a log line.
    pub fn first(&self, n: usize) -> Vec<String> {
        self.examples.iter().take(n).map(|(_, kind, place)| format!("{place}: {}", kind.as_str())).collect()
    }

    pub(super) fn add(&mut self, label: Label, kind: ViolationKind, place: Place) {
        let counts = self.counts.get_or_insert_with(|| Box::new([[0; ViolationKind::ALL.len()]; LABELS]));
        let count = &mut counts[label.0][kind as usize];
        *count += 1;
        if *count == 1 && self.examples.len() < MAX_EXAMPLES {
            self.examples.push((label, kind, place.of(label.path())));
        }
    }
}

/// Keys that the published page does not list: worth knowing, no violation.
#[derive(Clone, Debug, Default)]
pub struct UnknownKeys {
    /// How many there are in all.
    pub total: u64,
    /// Path and count of the first [`MAX_UNKNOWN_NAMES`] different ones. The last part is the server's text, shortened,
    /// without control characters: for reports and logs, not for metric labels.
    pub names: Vec<(String, u64)>,
}

/// A key in the making of [`UnknownKeys`]: compared as it stands in the body, without making a string of it.
#[derive(Debug, Default)]
pub(super) struct UnknownTally {
    total: u64,
    names: Vec<(usize, Box<[u8]>, u64)>,
}

impl UnknownTally {
    pub(super) fn add(&mut self, shape: &Shape, name: &[u8]) {
        self.total += 1;
        let name = &name[..name.len().min(MAX_NAME_BYTES)];
        let is_it = |(index, known, _): &&mut (usize, Box<[u8]>, u64)| *index == shape.index && **known == *name;
        if let Some((_, _, count)) = self.names.iter_mut().find(is_it) {
            *count += 1;
        } else if self.names.len() < MAX_UNKNOWN_NAMES {
            self.names.push((shape.index, name.into(), 1));
        }
    }

    pub(super) fn finish(self) -> UnknownKeys {
        let name = |(index, name, count): (usize, Box<[u8]>, u64)| {
            let parent = super::schema::SHAPES[index].path();
            let shown: String = String::from_utf8_lossy(&name).chars().filter(|c| !c.is_control()).collect();
            (if parent.is_empty() { shown } else { format!("{parent}.{shown}") }, count)
        };
        UnknownKeys { total: self.total, names: self.names.into_iter().map(name).collect() }
    }
}

/// Where in the arrays the reader is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// What all of it is.
    pub(super) read: ReadKind,
    pub(super) conversation: usize,
    /// Also the element of `contact.label_list`: a conversation's contact is not read inside a message.
    pub(super) message: usize,
    pub(super) attachment: usize,
}

impl Place {
    /// At the beginning of what a read gives.
    pub(super) fn beginning(read: ReadKind) -> Self {
        Self { read, conversation: 0, message: 0, attachment: 0 }
    }

    /// The path with the array levels written: `messages.sender.id` is `[0].messages[3].sender.id`.
    fn of(self, path: &str) -> String {
        let mut place = format!("[{}]", self.conversation);
        let (path, is_element) = path.strip_suffix("[]").map_or((path, false), |path| (path, true));
        let mut names = path.split('.').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            place.push('.');
            place.push_str(name);
            let index = match name {
                "messages" | "label_list" => self.message,
                "attachments" => self.attachment,
                _ => continue,
            };
            if is_element || names.peek().is_some() {
                write!(place, "[{index}]").expect("a string takes it");
            }
        }
        // What is not in a list has not all of its levels.
        let above = match self.read {
            ReadKind::Conversations => "",
            ReadKind::Conversation => "[0].",
            ReadKind::Messages => "[0].messages",
            ReadKind::Contact => "[0].contact_inbox.",
        };
        place.strip_prefix(above).map(str::to_owned).unwrap_or(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::payload::schema::{CONTACT, MESSAGE};

    #[test]
    fn places_write_the_array_levels() {
        let place = Place { read: ReadKind::Conversations, conversation: 1, message: 22, attachment: 3 };
        for (path, expected) in [
            ("[]", "[1]"),
            ("status", "[1].status"),
            ("messages", "[1].messages"),
            ("messages[]", "[1].messages[22]"),
            ("messages.id", "[1].messages[22].id"),
            ("messages.attachments", "[1].messages[22].attachments"),
            ("messages.attachments[]", "[1].messages[22].attachments[3]"),
            ("messages.attachments.width", "[1].messages[22].attachments[3].width"),
            ("messages.sender.type", "[1].messages[22].sender.type"),
            ("contact.label_list", "[1].contact.label_list"),
            ("contact.label_list[]", "[1].contact.label_list[22]"),
        ] {
            assert_eq!(place.of(path), expected);
        }
    }

    #[test]
    fn unknown_names_are_bounded_and_printable() {
        let mut tally = UnknownTally::default();
        for n in 0..1000 {
            tally.add(&MESSAGE, format!("group_{n}").as_bytes());
        }
        let unknown = tally.finish();
        assert_eq!((unknown.total, unknown.names.len()), (1000, MAX_UNKNOWN_NAMES));
        assert_eq!(unknown.names[0], ("messages.group_0".to_owned(), 1));

        let mut tally = UnknownTally::default();
        tally.add(&CONTACT, "\u{9b}31m\u{7f}".repeat(100).as_bytes());
        let (name, _) = &tally.finish().names[0];
        assert!(name.len() < 128 && name.chars().all(|c| !c.is_control()), "{name:?}");
    }
}
