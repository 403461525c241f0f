//! What is left out of a list: `payload.trim.*`, compiled once, every mistake reported.

use std::fmt;

use super::schema::{CONTACT_INBOX, CONVERSATION, Field, Kind, SHAPES, STATUSES, Shape};
use super::token::Text;
use crate::policy::resource::ReadKind;

/// The compiled rules. [`Trim::none`] leaves lists as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trim {
    /// Keep the newest of each conversation.
    pub(super) messages: Option<usize>,
    /// Keep conversations of these statuses; all if empty.
    pub(super) statuses: Vec<&'static str>,
    /// Which fields go.
    pub(super) rules: Rules,
    /// Order conversations by id.
    pub(super) sort: bool,
}

/// A mistake in a trim setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrimMistake {
    /// The setting with its place, such as `payload.trim.drop[2]`.
    pub setting: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

impl fmt::Display for TrimMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.problem)
    }
}

/// What becomes of the keys of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Rules(Vec<(String, Rule)>);

/// What becomes of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Rule {
    Drop,
    Inside(Rules),
}

/// What becomes of one key, as the two walks over a body ask it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate<'r> {
    Keep,
    Drop,
    /// It stays, and something in it may not.
    Inside(&'r Rules),
}

impl<'r> Fate<'r> {
    pub(super) fn inside(self) -> Option<&'r Rules> {
        if let Fate::Inside(rules) = self { Some(rules) } else { None }
    }
}

impl Rules {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn fate(&self, key: Text<'_>) -> Fate<'_> {
        match self.0.iter().find(|(name, _)| key.is(name)) {
            None => Fate::Keep,
            Some((_, Rule::Drop)) => Fate::Drop,
            Some((_, Rule::Inside(rules))) => Fate::Inside(rules),
        }
    }

    /// What becomes of what is in this key, if it stays.
    fn within(&self, name: &str) -> Option<&Rules> {
        self.0.iter().find(|(key, _)| key == name).and_then(|(_, rule)| match rule {
            Rule::Inside(rules) => Some(rules),
            Rule::Drop => None,
        })
    }

    fn add(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let at = self.0.iter().position(|(name, _)| name == first).unwrap_or_else(|| {
            self.0.push(((*first).to_owned(), Rule::Inside(Rules::default())));
            self.0.len() - 1
        });
        match &mut self.0[at].1 {
            rule if rest.is_empty() => *rule = Rule::Drop,
            Rule::Inside(rules) => rules.add(rest),
            Rule::Drop => {} // a part of what goes anyway
        }
    }
}

impl Trim {
    /// Nothing is left out.
    pub fn none() -> Trim {
        Trim::default()
    }

    /// Whether lists stay as they are.
    pub fn is_none(&self) -> bool {
        self.messages.is_none() && self.statuses.is_empty() && self.rules.is_empty() && !self.sort
    }

    /// Whether conversations are ordered.
    pub fn sorts(&self) -> bool {
        self.sort
    }

    /// Whether conversations are left out by their status.
    pub fn filters_statuses(&self) -> bool {
        !self.statuses.is_empty()
    }

    /// How many messages of a conversation are left, if their number is limited.
    pub fn newest_messages(&self) -> Option<usize> {
        self.messages
    }

    /// What becomes of the keys of what a read gives, as of the same where a conversation has it; none if it is copied as it
    /// stands. Pages of messages are as long as they are.
    pub(super) fn rules_of(&self, read: ReadKind) -> Option<&Rules> {
        match read {
            ReadKind::Conversations | ReadKind::Conversation => self.conversation_rules(),
            ReadKind::Messages => self.rules.within("messages"),
            ReadKind::Contact => self.rules.within("contact"),
        }
    }

    /// What becomes of a conversation's keys; none if kept conversations are copied as they stand.
    pub(super) fn conversation_rules(&self) -> Option<&Rules> {
        (self.messages.is_some() || !self.rules.is_empty()).then_some(&self.rules)
    }

    /// Reads the settings `payload.trim.*`, in their order.
    ///
    /// A path in `drop` names keys from the conversation down, array levels unwritten: `messages.sender.phone_number`.
    /// Inside objects that the contract does not look into, such as `messages.content_attributes`, any path will do. A
    /// path that the contract does not know is a mistake unless it ends in `?`.
    pub fn compile(
        messages_per_conversation: Option<usize>,
        statuses: &[String],
        drop: &[String],
        sort_conversations: bool,
    ) -> Result<Trim, Vec<TrimMistake>> {
        let mut mistakes = Vec::new();
        let mut trim = Trim { messages: messages_per_conversation, sort: sort_conversations, ..Trim::none() };
        for (i, status) in statuses.iter().enumerate() {
            if let Some(known) = STATUSES.into_iter().find(|known| known == status) {
                trim.statuses.push(known);
            } else {
                let problem = format!("{status:?} is not a status; write one of {}", STATUSES.join(", "));
                mistakes.push(TrimMistake { setting: format!("payload.trim.statuses[{i}]"), problem });
            }
        }
        for (i, path) in drop.iter().enumerate() {
            match parse(path) {
                // Trimmed twice, such a list would lose every conversation.
                Ok(names) if names == ["status"] && !statuses.is_empty() => mistakes.push(TrimMistake {
                    setting: format!("payload.trim.drop[{i}]"),
                    problem: "\"status\" is what payload.trim.statuses goes by; drop one of the two".to_owned(),
                }),
                Ok(names) => trim.rules.add(&names),
                Err(problem) => {
                    mistakes.push(TrimMistake { setting: format!("payload.trim.drop[{i}]"), problem });
                }
            }
        }
        if mistakes.is_empty() { Ok(trim) } else { Err(mistakes) }
    }
}

/// The names of a path that may be dropped, or what is wrong with it.
fn parse(path: &str) -> Result<Vec<&str>, String> {
    let (wanted, lenient) = path.strip_suffix('?').map_or((path, false), |wanted| (wanted, true));
    let names: Vec<&str> = wanted.split('.').collect();
    if names.iter().any(|name| name.is_empty()) {
        return Err(format!("{path:?} has an empty part; write a path such as \"contact.email\""));
    }
    if let Some(name) = names.iter().find(|name| name.contains(['[', ']'])) {
        return Err(format!("{name:?}: array levels are not written; write \"messages.sender.email\""));
    }
    if lenient {
        return Ok(names);
    }
    let mut shape: &Shape = &CONVERSATION;
    for (depth, name) in names.iter().enumerate() {
        let Some(field) = shape.field(name) else {
            return Err(format!("{path:?} is not in the contract; {}", advice(shape, name, wanted)));
        };
        match field.kind {
            Kind::One(next) | Kind::Many(next) => shape = next,
            Kind::Opaque | Kind::Anything => break,
            _ if depth + 1 < names.len() => return Err(format!("{:?} has no keys of its own", field.path)),
            _ => {}
        }
    }
    Ok(names)
}

/// The paths somebody may have meant: those that end like this one, or else the nearest key beside it.
fn advice(shape: &Shape, name: &str, wanted: &str) -> String {
    // What a contact by itself shows goes with what a conversation shows of it.
    let in_list = SHAPES.iter().filter(|shape| shape.path() != CONTACT_INBOX.path());
    let fields = || in_list.clone().flat_map(|shape| shape.fields);
    let ends_so = |path: &str| path.strip_suffix(wanted).is_some_and(|rest| rest.ends_with('.'));
    let mut meant: Vec<&str> = fields().map(|field| field.path).filter(|path| ends_so(path)).collect();
    if meant.is_empty() {
        let distance = |known: &str| edits(known, name);
        let mut begins_so = shape.fields.iter().filter(|field| field.name.starts_with(name));
        let nearest = match (begins_so.next(), begins_so.next()) {
            (Some(only), None) => Some(only),
            _ => shape.fields.iter().min_by_key(|field| distance(field.name)),
        };
        let near = |field: &&Field| distance(field.name) <= 1 + name.len() / 4 || field.name.starts_with(name);
        meant.extend(nearest.filter(near).map(|field| field.path));
    }
    let meant: Vec<String> = meant.iter().map(|path| format!("{path:?}")).collect();
    match meant.len() {
        0 => "add \"?\" to drop an unknown key".to_owned(),
        1..=3 => format!("did you mean {}? (add \"?\" to drop an unknown key)", meant.join(" or ")),
        _ => format!("write the whole path, such as {}", meant[0]),
    }
}

/// How many characters must be changed to make one name of the other.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop(paths: &[&str]) -> Result<Trim, Vec<String>> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        Trim::compile(None, &[], &paths, false).map_err(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn paths_of_the_contract_and_anything_inside_opaque_objects() {
        for path in [
            "uuid",
            "messages",
            "contact",
            "contact.email",
            "contact.label_list",
            "messages.sender.phone_number",
            "messages.attachments.meta",
            "messages.attachments.meta.first_name",
            "messages.attachments.content_type",
            "messages.content_attributes.email.html_content",
            "contact.custom_attributes.a.b.c.d",
            "messages.sender.company_id",
            "group?",
            "group.members.name?",
            "messages.sender.badge?",
            "contact.email?",
        ] {
            assert!(drop(&[path]).is_ok(), "{path}");
        }
    }

    #[test]
    fn mistakes_name_the_setting_and_the_way_out_all_at_once() {
        let statuses = ["open".to_owned(), "Closed".to_owned()];
        let paths = ["contact.emial", "messages[].id", "contact.email.x", "contact..id", "", "group", "status", "?"];
        let paths = paths.map(str::to_owned);
        let mistakes = Trim::compile(Some(3), &statuses, &paths, true).expect_err("all but one status are wrong");
        let texts: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "payload.trim.statuses[1]: \"Closed\" is not a status; write one of open, resolved, pending, snoozed",
                "payload.trim.drop[0]: \"contact.emial\" is not in the contract; did you mean \"contact.email\"? \
                 (add \"?\" to drop an unknown key)",
                "payload.trim.drop[1]: \"messages[]\": array levels are not written; write \"messages.sender.email\"",
                "payload.trim.drop[2]: \"contact.email\" has no keys of its own",
                "payload.trim.drop[3]: \"contact..id\" has an empty part; write a path such as \"contact.email\"",
                "payload.trim.drop[4]: \"\" has an empty part; write a path such as \"contact.email\"",
                "payload.trim.drop[5]: \"group\" is not in the contract; add \"?\" to drop an unknown key",
                "payload.trim.drop[6]: \"status\" is what payload.trim.statuses goes by; drop one of the two",
                "payload.trim.drop[7]: \"?\" has an empty part; write a path such as \"contact.email\"",
            ]
        );
    }

    #[test]
    fn the_path_that_was_meant_is_named_if_it_is_near() {
        const OR: &str = "(add \"?\" to drop an unknown key)";
        for (path, expected) in [
            ("messages.sender.phone", format!("did you mean \"messages.sender.phone_number\"? {OR}")),
            ("messages.sender.phone_nubmer", format!("did you mean \"messages.sender.phone_number\"? {OR}")),
            ("mesages.content", format!("did you mean \"messages\"? {OR}")),
            ("sender.phone_number", format!("did you mean \"messages.sender.phone_number\"? {OR}")),
            ("sender", format!("did you mean \"messages.sender\"? {OR}")),
            ("email", format!("did you mean \"messages.sender.email\" or \"contact.email\"? {OR}")),
            ("identifier", format!("did you mean \"messages.sender.identifier\" or \"contact.identifier\"? {OR}")),
            ("contact.zebra", "add \"?\" to drop an unknown key".to_owned()),
            ("contact.c", "add \"?\" to drop an unknown key".to_owned()),
            ("conversations.id", "add \"?\" to drop an unknown key".to_owned()),
        ] {
            let mistakes = drop(&[path]).expect_err(path);
            assert_eq!(mistakes, [format!("payload.trim.drop[0]: {path:?} is not in the contract; {expected}")]);
        }
    }

    #[test]
    fn a_part_of_what_goes_anyway_changes_nothing() {
        let whole = drop(&["contact"]).expect("valid");
        for paths in [["contact", "contact.email"], ["contact.email", "contact"]] {
            assert_eq!(drop(&paths).expect("valid").rules, whole.rules);
        }
    }
}
