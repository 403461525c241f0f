//! What each write and each event puts out of date, for each read: one table. A row that reaches too far costs needless
//! fetches; one that does not reach far enough, the one promise of this program.
//!
//! The list shows everything, so everything reaches it. What the others show is `api.md` sections 2 to 4 and 7.4.

use std::fmt::Write as _;

use http::Method;

use super::event::{Event, Touched};
use super::ledger::{Of, Scope};
use super::shown::Fact;
use crate::policy::resource::{Part, leading_number};

/// How far something reaches among the answers that show one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// To none.
    Nothing,
    /// To those of the conversation that it is about.
    Its,
    /// To those of the conversation that were asked for with a `before` that is later than the message.
    Later,
    /// To all of the contact.
    All,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// `POST .../conversations`.
    OpensConversation,
    /// `POST .../conversations/{V}/toggle_status`.
    TogglesStatus,
    /// `POST .../conversations/{V}/update_last_seen`.
    Sees,
    /// `POST .../conversations/{V}/messages`.
    WritesMessage,
    /// `PATCH` or `PUT` of a message.
    AnswersMessage,
    /// `PATCH` or `PUT` of a contact, its creation, its verification.
    ChangesContact,
    /// `PATCH` or `PUT` of a survey.
    AnswersSurvey,
    /// A write that is not plainly one of those: in another spelling, with another method, or through the account API.
    Writes,
    /// An event.
    Event(Event),
    /// A read shows something newer than others have shown.
    Shows(Fact),
}

/// How far something reaches: for each of [`Part::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach([Extent; Part::ALL.len()]);

/// A row: what happens, in words; and how far it reaches, for each of [`Part::ALL`].
type Row = (Happening, &'static str, [Extent; Part::ALL.len()], &'static str);

use Extent::{All, Its, Later, Nothing};
use Happening as H;

/// The table.
#[rustfmt::skip]
pub const TABLE: [Row; 20] = [
    //                                                                     conversation, newest, before, contact
    (H::OpensConversation,  "`POST .../conversations`",                          [Nothing, Nothing, Nothing, Nothing],
        "what is new is kept nowhere yet, but in lists"),
    (H::TogglesStatus,      "`POST .../toggle_status`",                          [Its,     Its,     Nothing, Nothing],
        "a survey may follow"),
    (H::Sees,               "`POST .../update_last_seen`",                       [Its,     Nothing, Nothing, Nothing],
        "messages do not show who has read them"),
    (H::WritesMessage,      "`POST .../messages`",                               [All,     Its,     Later,   Nothing],
        "the contact in a conversation says when it was last active"),
    (H::AnswersMessage,     "`PATCH`, `PUT .../messages/{M}`",                   [Its,     Its,     Its,     Nothing], ""),
    (H::ChangesContact,     "`PATCH`, `PUT` of a contact, creation, verification", [All,   All,     All,     All],
        "messages show who sent them; contacts may be merged"),
    (H::AnswersSurvey,      "`PATCH`, `PUT .../csat_survey/{uuid}`",             [Its,     Its,     Its,     Nothing],
        "pages of messages name no uuid: the pages of all contacts"),
    (H::Writes,             "any other write, the account API",                  [All,     All,     All,     All],
        "of a conversation that is named through the account API, those of it"),
    (H::Event(Event::MessageCreated), "`message_created`",                       [All,     Its,     Later,   Nothing],
        "as if it were written"),
    (H::Event(Event::MessageUpdated), "`message_updated`",                       [Its,     Its,     Its,     Nothing],
        "edited, deleted, answered, delivered, read"),
    (H::Event(Event::ConversationCreated), "`conversation_created`",             [Nothing, Nothing, Nothing, Nothing], "as if it were opened"),
    (H::Event(Event::ConversationUpdated), "`conversation_updated`",             [Its,     Nothing, Nothing, Nothing], ""),
    (H::Event(Event::ConversationStatusChanged), "`conversation_status_changed`", [Its,    Nothing, Nothing, Nothing],
        "what it brings about has events of its own"),
    (H::Event(Event::ContactCreated), "`contact_created`",                       [All,     All,     All,     All], ""),
    (H::Event(Event::ContactUpdated), "`contact_updated`",                       [All,     All,     All,     All],
        "it tells of every message of the contact, too"),
    (H::Event(Event::Other), "an event of another name",                         [All,     All,     All,     All],
        "nobody knows"),
    (H::Shows(Fact::Newest), "a read shows another newest message",              [Its,     Its,     Nothing, Nothing],
        "but not the read itself"),
    (H::Shows(Fact::State), "a read shows another status, or who has seen it",   [Its,     Nothing, Nothing, Nothing],
        "but not the read itself"),
    (H::Shows(Fact::Card),  "a read shows another name or address",              [All,     All,     All,     All],
        "but not the read itself"),
    (H::Shows(Fact::Record), "a read shows a contact that has changed",          [All,     Nothing, Nothing, Nothing],
        "but not the read itself"),
];

impl Reach {
    /// To everything of somebody.
    pub const EVERYTHING: Self = Self([All; Part::ALL.len()]);

    /// How far something reaches, by the table. What it does not have reaches everything.
    pub fn of(happening: Happening) -> Self {
        let row = TABLE.iter().find(|(row, ..)| *row == happening);
        row.map_or(Self::EVERYTHING, |(_, _, extents, _)| Self(*extents))
    }

    /// How far it reaches among the answers that show a part.
    pub fn to(self, part: Part) -> Extent {
        self.0[part as usize]
    }

    /// What is out of date of somebody, the list first, after something that was about this conversation, or about one
    /// that is not known. Which pages a new message reaches, [`later`](Self::later) says.
    pub fn scopes(self, of: Of<'_>, conversation: Option<u64>) -> impl Iterator<Item = Scope<'_>> {
        let parts = Part::ALL.into_iter().filter_map(move |part| match (self.to(part), conversation) {
            (Nothing | Later, _) => None,
            (Its, Some(_)) => Some(Scope::Part(part, of, conversation)),
            (Its | All, _) => Some(Scope::Part(part, of, None)),
        });
        of.list().into_iter().chain(parts)
    }

    /// The same of a conversation alone, whosever it is.
    pub fn of_conversation<'a>(self, account: Option<u64>, display: u64) -> impl Iterator<Item = Scope<'a>> {
        let whose = account.map(Of::Account).into_iter().chain([Of::Anybody]);
        let parts = Part::ALL.into_iter().filter(move |part| !matches!(self.to(*part), Nothing | Later));
        let parts = parts.filter(|part| *part != Part::Contact);
        parts.flat_map(move |part| whose.clone().map(move |of| Scope::Part(part, of, Some(display))))
    }

    /// What is out of date after an event. A contact with an identifier in several inboxes may see the conversation in each
    /// of their lists: the contact's id stands for them all. If the event names none, those that have the conversation
    /// already are known by it; large lists do not name theirs.
    pub fn touched(self, touched: &Touched) -> impl Iterator<Item = Scope<'_>> {
        let conversation = touched.conversation.map(|(_, display)| display);
        let contacts = touched.contacts.iter().map(|id| Of::Contact(*id));
        let whose = touched.source.as_deref().map(Of::Source).into_iter().chain(contacts);
        let of_list = touched.conversation.map(|(account, display)| Scope::AccountConversation(account, display));
        let any = touched.conversation.filter(|_| touched.contacts.is_empty()).map(|_| Scope::AnyConversation);
        let parts = touched.conversation.map(|(account, display)| self.of_conversation(Some(account), display));
        let of_somebody = whose.flat_map(move |of| self.scopes(of, conversation));
        of_somebody.chain(of_list).chain(any).chain(parts.into_iter().flatten())
    }

    /// The pages of older messages of a conversation, if some of them may have a new message.
    pub fn later(self, conversation: Option<u64>) -> Option<Scope<'static>> {
        let of = conversation.map_or(Of::Everybody, |_| Of::Anybody);
        (self.to(Part::Before) == Later).then_some(Scope::Part(Part::Before, of, conversation))
    }
}

/// What a write to a path below a contact's is, exactly as published, and of which conversation. What is spelt otherwise, or
/// may be taken for another method, is some write.
pub fn of_write(method: &Method, below: Option<&str>) -> (Happening, Option<u64>) {
    let (posts, edits) = (*method == Method::POST, *method == Method::PATCH || *method == Method::PUT);
    let segments: Vec<&str> = below.into_iter().flat_map(|below| below.split('/')).collect();
    let number = |text: &str| leading_number(text).filter(|number| number.to_string() == text);
    let happening = match &segments[..] {
        [] if edits => H::ChangesContact,
        ["conversations"] if posts => H::OpensConversation,
        ["conversations", _, "toggle_status"] if posts => H::TogglesStatus,
        ["conversations", _, "update_last_seen"] if posts => H::Sees,
        ["conversations", _, "messages"] if posts => H::WritesMessage,
        ["conversations", _, "messages", message] if edits && number(message).is_some() => H::AnswersMessage,
        _ => return (H::Writes, None),
    };
    match segments.get(1).map(|display| number(display)) {
        Some(None) => (H::Writes, None),
        display => (happening, display.flatten()),
    }
}

/// The table, for people.
pub fn page() -> String {
    let mut page =
        String::from("| what happens | `conversation` | `messages`, newest | `messages`, `before` | `contact` | |\n");
    page.push_str("|---|---|---|---|---|---|\n");
    for (_, words, extents, why) in TABLE {
        let _ = write!(page, "| {words}");
        for extent in extents {
            let _ = write!(page, " | {}", ["", "its", "its later ones", "all"][extent as usize]);
        }
        let _ = writeln!(page, " | {why} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_write_that_is_plainly_one_is_less_than_everything() {
        for (method, below, happening, conversation) in [
            ("POST", Some("conversations"), H::OpensConversation, None),
            ("POST", Some("conversations/7/toggle_status"), H::TogglesStatus, Some(7)),
            ("POST", Some("conversations/7/update_last_seen"), H::Sees, Some(7)),
            ("POST", Some("conversations/7/messages"), H::WritesMessage, Some(7)),
            ("PATCH", Some("conversations/7/messages/9"), H::AnswersMessage, Some(7)),
            ("PUT", Some("conversations/7/messages/9"), H::AnswersMessage, Some(7)),
            ("PATCH", None, H::ChangesContact, None),
            ("POST", None, H::Writes, None),
            ("POST", Some("conversations/7"), H::Writes, None),
            ("POST", Some("conversations/07/messages"), H::Writes, None),
            ("POST", Some("conversations/7x/update_last_seen"), H::Writes, None),
            ("POST", Some("conversations/7/messages/"), H::Writes, None),
            ("DELETE", Some("conversations/7/messages/9"), H::Writes, None),
            ("PATCH", Some("conversations/7/messages/9-x"), H::Writes, None),
            ("GET", Some("conversations/7/messages"), H::Writes, None),
        ] {
            let method: Method = method.parse().unwrap();
            assert_eq!(of_write(&method, below), (happening, conversation), "{method} {below:?}");
        }
    }

    #[test]
    fn what_is_about_a_conversation_that_nobody_knows_reaches_all_of_them() {
        let scopes = |reach: Reach, conversation| reach.scopes(Of::Contact(42), conversation).collect::<Vec<_>>();
        let part = |part, conversation| Scope::Part(part, Of::Contact(42), conversation);
        let answers = Reach::of(H::AnswersMessage);
        let parts = [Part::Conversation, Part::Newest, Part::Before];
        for conversation in [Some(7), None] {
            let expected = parts.map(|of| part(of, conversation));
            assert_eq!(scopes(answers, conversation)[..], [&[Scope::Contact(42)][..], &expected].concat());
        }
        let writes = Reach::of(H::WritesMessage);
        let expected = [Scope::Contact(42), part(Part::Conversation, None), part(Part::Newest, Some(7))];
        assert_eq!(scopes(writes, Some(7)), expected);
        assert_eq!(writes.later(Some(7)), Some(Scope::Part(Part::Before, Of::Anybody, Some(7))));
        assert_eq!((answers.later(Some(7)), Reach::EVERYTHING.later(None)), (None, None));
        assert_eq!(Reach::of(H::Event(Event::InboxUpdated)), Reach::EVERYTHING, "what the table does not have");
    }

    #[test]
    fn a_contact_stands_for_all_of_its_lists_and_else_the_conversation_does() {
        let touched = |source: Option<&str>, contacts: &[u64], conversation| Touched {
            source: source.map(str::to_owned),
            contacts: contacts.to_vec(),
            conversation,
        };
        let lists = |touched: &Touched| {
            let scopes = Reach::EVERYTHING.touched(touched).filter(|scope| !matches!(scope, Scope::Part(..)));
            scopes.map(|scope| format!("{scope:?}")).collect::<Vec<_>>().join(" ")
        };
        for (touched, expected) in [
            (touched(None, &[], None), ""),
            (touched(Some("s"), &[], None), "Source(\"s\")"),
            (touched(None, &[1, 2], None), "Contact(1) Contact(2)"),
            (touched(Some("s"), &[1], Some((7, 9))), "Source(\"s\") Contact(1) AccountConversation(7, 9)"),
            (touched(Some("s"), &[], Some((7, 9))), "Source(\"s\") AccountConversation(7, 9) AnyConversation"),
        ] {
            assert_eq!((lists(&touched).as_str(), touched.is_empty()), (expected, expected.is_empty()));
        }
        // What is known of a conversation alone is out of date by that, of whatever account an answer says it is.
        let event = Reach::of(H::Event(Event::MessageUpdated));
        let touched = touched(None, &[], Some((7, 9)));
        let parts: Vec<_> = event.touched(&touched).collect();
        for of in [Of::Account(7), Of::Anybody] {
            assert!(parts.contains(&Scope::Part(Part::Newest, of, Some(9))), "{of:?}");
        }
    }

    /// `docs/reads.md` shows the table as it stands here.
    #[test]
    fn the_documentation_shows_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reads.md");
        let shown = std::fs::read_to_string(path).expect("docs/reads.md is there");
        if std::env::var_os("UPDATE").is_some() {
            let table = shown.lines().skip_while(|line| !line.starts_with("| what happens |"));
            let old: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
            let new = shown.replace(&(old.join("\n") + "\n"), &page());
            std::fs::write(path, new).expect("it can be written");
            return;
        }
        assert!(shown.contains(&page()), "docs/reads.md shows another table than this:\n{}", page());
    }
}
