//! The reads of a contact that are answered from memory: what each is called, which path it has, and which part of what
//! is known of somebody it shows. Whatever keeps, fetches or serves an answer takes its key, and knows nothing of this.

/// Which read. A closed set: these are the words of `cache.routes`, of the log and of a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadKind {
    /// All conversations of a contact, with their messages.
    Conversations,
    /// One of them, with its messages.
    Conversation,
    /// The newest messages of one, or those before one of them, a page at a time.
    Messages,
    /// The contact.
    Contact,
}

impl ReadKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Conversations, Self::Conversation, Self::Messages, Self::Contact];
    /// Their words.
    pub const LABELS: [&'static str; 4] = ["conversations", "conversation", "messages", "contact"];

    /// In a word.
    pub const fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }

    /// What comes with it, for people: "a list", "a page of messages".
    pub const fn words(self) -> &'static str {
        ["a list", "a conversation", "a page of messages", "a contact"][self as usize]
    }
}

/// `cache.routes`: the reads that are answered from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routes(u8);

impl Routes {
    /// Every read.
    pub const ALL: Self = Self((1 << ReadKind::ALL.len()) - 1);

    /// These reads.
    pub fn of(reads: &[ReadKind]) -> Self {
        Self(reads.iter().fold(0, |all, read| all | 1 << *read as u8))
    }

    /// Whether a read is among them.
    pub const fn has(self, read: ReadKind) -> bool {
        self.0 & 1 << read as u8 != 0
    }
}

/// What of a contact is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// All its conversations.
    Conversations,
    /// One of them, by its display id.
    Conversation(u64),
    /// Messages of one of them.
    Messages(u64),
    /// The contact itself.
    Contact,
}

impl Resource {
    /// Which read asks for it.
    pub const fn read(self) -> ReadKind {
        match self {
            Self::Conversations => ReadKind::Conversations,
            Self::Conversation(_) => ReadKind::Conversation,
            Self::Messages(_) => ReadKind::Messages,
            Self::Contact => ReadKind::Contact,
        }
    }

    /// The conversation that it is of, if it is of one.
    pub const fn conversation(self) -> Option<u64> {
        match self {
            Self::Conversation(display) | Self::Messages(display) => Some(display),
            Self::Conversations | Self::Contact => None,
        }
    }

    /// What a path names below a contact's, exactly as published; `None` is the contact's path itself.
    pub fn canonical(below: Option<&str>) -> Option<Self> {
        let Some(below) = below else { return Some(Self::Contact) };
        let below = below.strip_prefix("conversations")?;
        if below.is_empty() {
            return Some(Self::Conversations);
        }
        let below = below.strip_prefix('/')?;
        match below.split_once('/') {
            None => canonical_number(below).map(Self::Conversation),
            Some((display, "messages")) => canonical_number(display).map(Self::Messages),
            Some(_) => None,
        }
    }

    /// What a path names below a contact's as the upstream may read it, its segments parted and decoded. Of a display id
    /// Ruby takes the number at its beginning.
    pub fn aliased(below: &[&str]) -> Option<Self> {
        match below {
            [] => Some(Self::Contact),
            ["conversations"] => Some(Self::Conversations),
            ["conversations", display] => leading_number(display).map(Self::Conversation),
            ["conversations", display, "messages"] => leading_number(display).map(Self::Messages),
            _ => None,
        }
    }

    /// The end of its path, below that of its contact.
    pub fn path(self) -> String {
        match self {
            Self::Conversations => "/conversations".into(),
            Self::Conversation(display) => format!("/conversations/{display}"),
            Self::Messages(display) => format!("/conversations/{display}/messages"),
            Self::Contact => String::new(),
        }
    }
}

/// What an answer other than the list shows: each changes at times of its own. The table in `coherence::reach` says when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A conversation with its messages, and its contact in full.
    Conversation,
    /// The newest messages of a conversation, with those who sent them.
    Newest,
    /// The messages before one of them.
    Before,
    /// The contact.
    Contact,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Conversation, Self::Newest, Self::Before, Self::Contact];
}

/// The number that is written here, as the API itself writes one.
fn canonical_number(text: &str) -> Option<u64> {
    const LONGEST: usize = 18;
    let is_canonical =
        !text.starts_with('0') && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_canonical { text.parse().ok() } else { None }
}

/// The `before` of a page of messages, if a query says that and nothing else.
pub fn page_before(query: &str) -> Option<u64> {
    canonical_number(query.strip_prefix("before=")?)
}

/// The number at the beginning of a text: what Ruby makes of an id in a path.
pub fn leading_number(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_published_spelling_is_canonical() {
        for (below, resource) in [
            (None, Some(Resource::Contact)),
            (Some("conversations"), Some(Resource::Conversations)),
            (Some("conversations/7"), Some(Resource::Conversation(7))),
            (Some("conversations/7/messages"), Some(Resource::Messages(7))),
            (Some(""), None),
            (Some("conversations/"), None),
            (Some("conversations/7/"), None),
            (Some("conversations/07"), None),
            (Some("conversations/0"), None),
            (Some("conversations/7x"), None),
            (Some("conversations/+7"), None),
            (Some("conversations/7.json"), None),
            (Some("conversations/%37"), None),
            (Some("conversations/1234567890123456789"), None),
            (Some("conversations/7/messages/"), None),
            (Some("conversations/7/messages/8"), None),
            (Some("conversations/7/toggle_status"), None),
            (Some("conversationsX"), None),
            (Some("messages"), None),
        ] {
            assert_eq!(Resource::canonical(below), resource, "{below:?}");
            if let Some(resource) = resource {
                let path = resource.path();
                assert_eq!(Resource::canonical(path.strip_prefix('/')), Some(resource), "{path}");
            }
        }
    }

    #[test]
    fn other_spellings_are_known_for_what_the_upstream_takes_them_for() {
        assert_eq!(Resource::aliased(&["conversations", "07-x"]), Some(Resource::Conversation(7)));
        assert_eq!(Resource::aliased(&["conversations", "7", "messages"]), Some(Resource::Messages(7)));
        assert_eq!(Resource::aliased(&["conversations", "x"]), None);
        assert_eq!(Resource::aliased(&["conversations", "7", "else"]), None);
    }

    #[test]
    fn a_page_says_before_which_message_it_is_and_no_more() {
        for (query, before) in [
            ("before=12", Some(12)),
            ("before=", None),
            ("before=x", None),
            ("before=012", None),
            ("before=12&before=13", None),
            ("before=12&a=b", None),
            ("after=12", None),
            ("befor%65=12", None),
        ] {
            assert_eq!(page_before(query), before, "{query}");
        }
    }

    #[test]
    fn routes_are_a_set() {
        let some = Routes::of(&[ReadKind::Messages, ReadKind::Contact, ReadKind::Messages]);
        for read in ReadKind::ALL {
            assert_eq!(some.has(read), matches!(read, ReadKind::Messages | ReadKind::Contact));
            assert!(Routes::ALL.has(read) && !Routes::of(&[]).has(read));
        }
    }
}
