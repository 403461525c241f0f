//! The contract of the reads, in the order of the published page: a list of conversations, one of them, messages, a contact.
//!
//! Read it beside the page: one row per key, top to bottom. The page gives types only; what may be absent and what may
//! be null is `api.md` section 4 (what the server's code emits) with the exceptions of section 5. Only `status` is a
//! closed enum; `message_type`, `content_type`, `file_type` and the sender's `type` have all grown and stay open.
//! Strings that look like dates are strings. Unknown keys are allowed at every level.

/// The four values of a conversation's `status`: the one closed enum (`api.md` section 5, point 6).
pub const STATUSES: [&str; 4] = ["open", "resolved", "pending", "snoozed"];

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A number without a fraction; `1.0` is one, as in JSON Schema.
    Integer,
    /// Any number: widths of videos are floats (`api.md` section 5, point 4).
    Number,
    /// A string.
    Text,
    /// `true` or `false`.
    Flag,
    /// One of [`STATUSES`].
    Status,
    /// An array of strings.
    Texts,
    /// An object nobody looks into (`api.md` section 5, point 7).
    Opaque,
    /// Whatever the server sends: a key that is not on the page, known from `api.md` section 4.
    Anything,
    /// An object with a shape of its own.
    One(&'static Shape),
    /// An array of such objects.
    Many(&'static Shape),
}

/// One key of the page.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The path as trim rules, metrics and reports write it: array levels are not written.
    pub path: &'static str,
    /// The key itself: the last part of the path.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether the server always sends it.
    pub required: bool,
    /// Whether null is a value that the server sends.
    pub nullable: bool,
    /// What the pass remembers of it, beside checking it.
    pub(super) role: Role,
}

/// An object of the page.
#[derive(Debug)]
pub struct Shape {
    /// Its keys, in the order of the page.
    pub fields: &'static [Field],
    /// The label of an element of an array of this shape, such as `messages[]`.
    pub element: Label,
    /// Whether such an array may hold null (`api.md` section 5, point 5).
    pub null_elements: bool,
    /// Its place among [`SHAPES`].
    pub(super) index: usize,
    /// The label of its first field; the others follow.
    pub(super) first: usize,
    /// One bit per required field.
    pub(super) required: u32,
}

/// What coherence, trimming or the report want to know of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing.
    None,
    /// Scope, and the order of conversations.
    DisplayId,
    /// Scope.
    Uuid,
    /// The filter of conversations.
    Status,
    /// The array that is trimmed to the newest.
    Messages,
    /// The order of messages.
    CreatedAt,
    /// An object whose id is a scope only if its type says so.
    Sender,
    /// Scope, if the sender is a contact.
    SenderId,
    /// Says whether the sender is a contact.
    SenderType,
    /// Scope.
    ContactId,
    /// Scope, with the display id.
    AccountId,
    // What else is marked, each by its number.
    Seen(u8),
    MessageId,
    MessageType,
    Content,
    Card(u8),
    SenderCard(u8),
    UpdatedAt,
}

impl Role {
    /// Whether nothing is remembered of it but a mark.
    pub(super) fn is_mark_alone(self) -> bool {
        matches!(self, Self::Seen(_) | Self::MessageId | Self::MessageType)
    }
}

// Shorthand of the tables: whether the key may be absent, and whether it may be null.
const ALWAYS: bool = true;
const MAYBE: bool = false;
const NULL: bool = true;
const NEVER: bool = false;

/// How many keys each shape has, in the order of [`SHAPES`].
const FIELDS: [usize; 6] = [8, 9, 16, 16, 19, 6];

#[rustfmt::skip]
const CONVERSATION_ROWS: &[Field; FIELDS[0]] = &[ // section 4.1
    row("id",                                    Kind::Integer,               ALWAYS, NEVER),
    row("uuid",                                  Kind::Text,                  ALWAYS, NEVER),
    row("inbox_id",                              Kind::Integer,               ALWAYS, NEVER),
    row("contact_last_seen_at",                  Kind::Integer,               ALWAYS, NEVER),
    row("status",                                Kind::Status,                ALWAYS, NEVER),
    row("agent_last_seen_at",                    Kind::Integer,               ALWAYS, NEVER),
    row("messages",                              Kind::Many(&MESSAGE),        ALWAYS, NEVER),
    row("contact",                               Kind::One(&CONTACT),         ALWAYS, NULL),
];

#[rustfmt::skip]
const MESSAGE_ROWS: &[Field; FIELDS[1]] = &[ // section 4.2
    row("messages.id",                           Kind::Integer,               ALWAYS, NEVER),
    row("messages.content",                      Kind::Text,                  ALWAYS, NULL),
    row("messages.message_type",                 Kind::Integer,               ALWAYS, NEVER),
    row("messages.content_type",                 Kind::Text,                  ALWAYS, NEVER),
    row("messages.content_attributes",           Kind::Opaque,                ALWAYS, NEVER),
    row("messages.created_at",                   Kind::Integer,               ALWAYS, NEVER),
    row("messages.conversation_id",              Kind::Integer,               ALWAYS, NEVER),
    row("messages.attachments",                  Kind::Many(&ATTACHMENT),     MAYBE,  NEVER),
    row("messages.sender",                       Kind::One(&SENDER),          MAYBE,  NEVER),
];

// Only the base keys are always there, the rest depends on `file_type`. `thumb_url` may be null although section 5
// does not say so: section 4.4 has incoming Instagram files whose `data_url` and `thumb_url` are both null.
#[rustfmt::skip]
const ATTACHMENT_ROWS: &[Field; FIELDS[2]] = &[ // section 4.4
    row("messages.attachments.id",               Kind::Integer,               ALWAYS, NEVER),
    row("messages.attachments.message_id",       Kind::Integer,               ALWAYS, NEVER),
    row("messages.attachments.file_type",        Kind::Text,                  ALWAYS, NEVER),
    row("messages.attachments.account_id",       Kind::Integer,               ALWAYS, NEVER),
    row("messages.attachments.extension",        Kind::Text,                  MAYBE,  NULL),
    row("messages.attachments.data_url",         Kind::Text,                  MAYBE,  NULL),
    row("messages.attachments.thumb_url",        Kind::Text,                  MAYBE,  NULL),
    row("messages.attachments.file_size",        Kind::Integer,               MAYBE,  NEVER),
    row("messages.attachments.width",            Kind::Number,                MAYBE,  NULL),
    row("messages.attachments.height",           Kind::Number,                MAYBE,  NULL),
    row("messages.attachments.coordinates_lat",  Kind::Number,                MAYBE,  NEVER),
    row("messages.attachments.coordinates_long", Kind::Number,                MAYBE,  NEVER),
    row("messages.attachments.fallback_title",   Kind::Text,                  MAYBE,  NULL),
    row("messages.attachments.meta",             Kind::Opaque,                MAYBE,  NEVER),
    row("messages.attachments.transcribed_text", Kind::Text,                  MAYBE,  NEVER),
    // Not on the page: the MIME type, since 4.13.
    row("messages.attachments.content_type",     Kind::Anything,              MAYBE,  NULL),
];

#[rustfmt::skip]
const SENDER_ROWS: &[Field; FIELDS[3]] = &[ // section 4.6: the kinds of sender share id, name and type
    row("messages.sender.id",                    Kind::Integer,               ALWAYS, NEVER),
    row("messages.sender.name",                  Kind::Text,                  ALWAYS, NULL),
    row("messages.sender.avatar_url",            Kind::Text,                  MAYBE,  NEVER),
    row("messages.sender.thumbnail",             Kind::Text,                  MAYBE,  NEVER),
    row("messages.sender.type",                  Kind::Text,                  ALWAYS, NEVER),
    row("messages.sender.available_name",        Kind::Text,                  MAYBE,  NULL),
    row("messages.sender.availability_status",   Kind::Text,                  MAYBE,  NULL),
    row("messages.sender.email",                 Kind::Text,                  MAYBE,  NULL),
    row("messages.sender.phone_number",          Kind::Text,                  MAYBE,  NULL),
    row("messages.sender.identifier",            Kind::Text,                  MAYBE,  NULL),
    row("messages.sender.blocked",               Kind::Flag,                  MAYBE,  NEVER),
    row("messages.sender.additional_attributes", Kind::Opaque,                MAYBE,  NULL),
    row("messages.sender.custom_attributes",     Kind::Opaque,                MAYBE,  NULL),
    row("messages.sender.description",           Kind::Text,                  MAYBE,  NULL),
    row("messages.sender.created_at",            Kind::Text,                  MAYBE,  NULL),
    // Not on the page: since 4.15, with the companies feature.
    row("messages.sender.company_id",            Kind::Anything,              MAYBE,  NULL),
];

// Section 5, point 1: of a contact only these four are never null.
#[rustfmt::skip]
const CONTACT_ROWS: &[Field; FIELDS[4]] = &[ // section 4.5
    row("contact.id",                            Kind::Integer,               ALWAYS, NEVER),
    row("contact.name",                          Kind::Text,                  ALWAYS, NULL),
    row("contact.email",                         Kind::Text,                  ALWAYS, NULL),
    row("contact.phone_number",                  Kind::Text,                  ALWAYS, NULL),
    row("contact.identifier",                    Kind::Text,                  ALWAYS, NULL),
    row("contact.blocked",                       Kind::Flag,                  ALWAYS, NEVER),
    row("contact.additional_attributes",         Kind::Opaque,                ALWAYS, NULL),
    row("contact.custom_attributes",             Kind::Opaque,                ALWAYS, NULL),
    row("contact.contact_type",                  Kind::Text,                  ALWAYS, NULL),
    row("contact.country_code",                  Kind::Text,                  ALWAYS, NULL),
    row("contact.last_activity_at",              Kind::Text,                  ALWAYS, NULL),
    row("contact.created_at",                    Kind::Text,                  ALWAYS, NULL),
    row("contact.updated_at",                    Kind::Text,                  ALWAYS, NULL),
    row("contact.last_name",                     Kind::Text,                  ALWAYS, NULL),
    row("contact.middle_name",                   Kind::Text,                  ALWAYS, NULL),
    row("contact.location",                      Kind::Text,                  ALWAYS, NULL),
    row("contact.account_id",                    Kind::Integer,               ALWAYS, NEVER),
    row("contact.company_id",                    Kind::Integer,               MAYBE,  NULL), // absent before 4.7
    row("contact.label_list",                    Kind::Texts,                 ALWAYS, NEVER),
];

// A contact as its own path shows it (section 2), which is not how a conversation does.
#[rustfmt::skip]
const CONTACT_INBOX_ROWS: &[Field; FIELDS[5]] = &[
    row("contact_inbox.source_id",               Kind::Text,                  ALWAYS, NEVER),
    row("contact_inbox.pubsub_token",            Kind::Text,                  ALWAYS, NULL),
    row("contact_inbox.id",                      Kind::Integer,               ALWAYS, NEVER),
    row("contact_inbox.name",                    Kind::Text,                  ALWAYS, NULL),
    row("contact_inbox.email",                   Kind::Text,                  ALWAYS, NULL),
    row("contact_inbox.phone_number",            Kind::Text,                  ALWAYS, NULL),
];

/// A conversation: an element of the list.
pub static CONVERSATION: Shape = Shape::new(0, CONVERSATION_ROWS, NEVER);
/// A message of a conversation.
pub static MESSAGE: Shape = Shape::new(1, MESSAGE_ROWS, NEVER);
/// An attachment of a message; the array may hold null.
pub static ATTACHMENT: Shape = Shape::new(2, ATTACHMENT_ROWS, NULL);
/// The sender of a message, of any type.
pub static SENDER: Shape = Shape::new(3, SENDER_ROWS, NEVER);
/// The contact of a conversation.
pub static CONTACT: Shape = Shape::new(4, CONTACT_ROWS, NEVER);
/// A contact in an inbox, by itself.
pub static CONTACT_INBOX: Shape = Shape::new(5, CONTACT_INBOX_ROWS, NEVER);

/// Every shape, in the order of its labels.
pub static SHAPES: [&Shape; FIELDS.len()] = [&CONVERSATION, &MESSAGE, &ATTACHMENT, &SENDER, &CONTACT, &CONTACT_INBOX];

/// How many labels there are: every field, every kind of element, and an element of `contact.label_list`.
pub const LABELS: usize = fields_before(FIELDS.len()) + FIELDS.len() + 1;

/// A place of the contract, from a closed set: a field or an element of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub(super) usize);

impl Label {
    /// An element of `contact.label_list`.
    pub(super) const LABEL_LIST: Label = Label(LABELS - 1);

    /// Every label.
    pub fn all() -> impl Iterator<Item = Label> {
        (0..LABELS).map(Label)
    }

    /// The field, unless the label is an element's.
    pub fn field(self) -> Option<&'static Field> {
        SHAPES.iter().find_map(|shape| shape.fields.get(self.0.wrapping_sub(shape.first)))
    }

    /// How reports and metrics call it: `messages.sender.id`, or `messages[]` for an element.
    pub fn path(self) -> &'static str {
        const ELEMENTS: [&str; FIELDS.len() + 1] = [
            "[]",
            "messages[]",
            "messages.attachments[]",
            "messages.sender[]",
            "contact[]",
            "contact_inbox[]",
            "contact.label_list[]",
        ];
        self.field().map_or_else(|| ELEMENTS[self.0 - fields_before(FIELDS.len())], |field| field.path)
    }
}

impl Shape {
    const fn new(index: usize, fields: &'static [Field], null_elements: bool) -> Shape {
        let mut required = 0;
        let mut i = 0;
        while i < fields.len() {
            required |= (fields[i].required as u32) << i;
            i += 1;
        }
        // The elements' labels follow the fields of all shapes.
        let element = Label(fields_before(FIELDS.len()) + index);
        Shape { fields, element, null_elements, index, first: fields_before(index), required }
    }

    /// The path of the object, as in [`Field::path`]; empty for the conversation itself.
    pub fn path(&self) -> &'static str {
        self.element.path().trim_end_matches("[]")
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Field {
    /// Whether the published page lists the key.
    pub fn is_published(&self) -> bool {
        !matches!(self.kind, Kind::Anything)
    }
}

/// How many fields the shapes before this one have.
const fn fields_before(shape: usize) -> usize {
    let (mut fields, mut i) = (0, 0);
    while i < shape {
        fields += FIELDS[i];
        i += 1;
    }
    fields
}

const fn row(path: &'static str, kind: Kind, required: bool, nullable: bool) -> Field {
    let bytes = path.as_bytes();
    let mut start = bytes.len();
    while start > 0 && bytes[start - 1] != b'.' {
        start -= 1;
    }
    Field { path, name: path.split_at(start).1, kind, required, nullable, role: role(path) }
}

const fn role(path: &str) -> Role {
    const ROLES: [(&str, Role); 27] = [
        ("id", Role::DisplayId),
        ("uuid", Role::Uuid),
        ("status", Role::Status),
        ("messages", Role::Messages),
        ("messages.created_at", Role::CreatedAt),
        ("messages.sender", Role::Sender),
        ("messages.sender.id", Role::SenderId),
        ("messages.sender.type", Role::SenderType),
        ("messages.attachments.account_id", Role::AccountId),
        ("contact.id", Role::ContactId),
        ("contact.account_id", Role::AccountId),
        ("contact_inbox.id", Role::ContactId),
        ("contact_last_seen_at", Role::Seen(0)),
        ("agent_last_seen_at", Role::Seen(1)),
        ("messages.id", Role::MessageId),
        ("messages.message_type", Role::MessageType),
        ("messages.content", Role::Content),
        ("messages.sender.name", Role::SenderCard(0)),
        ("messages.sender.email", Role::SenderCard(1)),
        ("messages.sender.phone_number", Role::SenderCard(2)),
        ("contact.name", Role::Card(0)),
        ("contact.email", Role::Card(1)),
        ("contact.phone_number", Role::Card(2)),
        ("contact.updated_at", Role::UpdatedAt),
        ("contact_inbox.name", Role::Card(0)),
        ("contact_inbox.email", Role::Card(1)),
        ("contact_inbox.phone_number", Role::Card(2)),
    ];
    let mut i = 0;
    while i < ROLES.len() {
        if same(ROLES[i].0.as_bytes(), path.as_bytes()) {
            return ROLES[i].1;
        }
        i += 1;
    }
    Role::None
}

/// `==`, which const functions do not have yet.
const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn labels_are_the_paths_of_the_tables() {
        let paths: Vec<&str> = Label::all().map(Label::path).collect();
        assert_eq!(paths.len(), LABELS);
        assert_eq!(paths[0], "id");
        assert_eq!(MESSAGE.element.path(), "messages[]");
        assert_eq!(ATTACHMENT.element.path(), "messages.attachments[]");
        assert_eq!(Label::LABEL_LIST.path(), "contact.label_list[]");
        let mut unique = paths.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), paths.len(), "no path twice");
        for shape in SHAPES {
            for (i, field) in shape.fields.iter().enumerate() {
                assert_eq!(Label(shape.first + i).path(), field.path);
                assert!(field.path.ends_with(field.name));
            }
            assert!(shape.fields.len() <= 32, "one bit per field");
        }
    }

    /// The page's example, read as the list of what is published: the tables hold exactly its keys.
    #[test]
    fn tables_hold_the_keys_of_the_page() {
        let page: Value = serde_json::from_str(crate::policy::payload::tests::PAGE_EXAMPLE).expect("valid JSON");
        let conversation = &page[0];
        let message = &conversation["messages"][0];
        for (shape, example) in [
            (&CONVERSATION, conversation),
            (&MESSAGE, message),
            (&ATTACHMENT, &message["attachments"][0]),
            (&SENDER, &message["sender"]),
            (&CONTACT, &conversation["contact"]),
        ] {
            let mut here: Vec<&str> =
                shape.fields.iter().filter(|field| field.is_published()).map(|field| field.name).collect();
            here.sort_unstable();
            let mut there: Vec<&str> = example.as_object().expect("an object").keys().map(String::as_str).collect();
            there.sort_unstable();
            assert_eq!(here, there);
        }
    }
}
