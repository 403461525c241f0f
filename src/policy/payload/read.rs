//! The pass: one walk over the body that checks it against the contract, gathers its scopes, and notes what is kept.
//!
//! Nothing is written here. What the trim rules keep is noted in a [`Plan`], which also sums up how long the result will
//! be, so that [`super::write`] allocates it once and exactly; a list that loses nothing is never copied.

use super::marks::Marking;
use super::not_a_list::{NotAList, Why};
use super::report::{Place, UnknownTally, ViolationKind, Violations};
use super::scan::{Cursor, Scan};
use super::schema::{CONTACT_INBOX, CONVERSATION, Field, Kind, LABELS, Label, MESSAGE, Role, SHAPES, STATUSES, Shape};
use super::scopes::Gathering;
use super::token::{Text, digits, is_integral, seconds};
use super::trim::{Fate, Rules, Trim};
use super::write::{Cuts, Plan};
use crate::policy::resource::ReadKind;

/// The walker and what it has found so far.
pub(super) struct Reader<'a> {
    cursor: Cursor<'a>,
    trim: &'a Trim,
    /// Rules for every conversation, or for what is no list; none if they are copied as they stand.
    rules: Option<&'a Rules>,
    checks: bool,
    place: Place,
    conversation: ConversationNotes,
    created_at: Option<i64>,
    /// Per shape: which field came last time after which. Servers send keys in a steady order, which is not the page's.
    guesses: [[u8; 33]; SHAPES.len()],
    pub(super) violations: Violations,
    pub(super) unknown: UnknownTally,
    pub(super) scopes: Gathering,
    pub(super) marks: Marking<'a>,
    pub(super) plan: Plan,
    /// Whether the rules take anything away.
    pub(super) changed: bool,
    /// Bytes per label, keys included; only counted for reports.
    pub(super) weights: Option<Box<[u64; LABELS]>>,
}

/// How many messages of a conversation may be noted before it is known to stay: half of the memory a pass has to spare.
const NOTED_IN_VAIN: usize = 2048;

/// What is known of the conversation being read.
#[derive(Default)]
struct ConversationNotes {
    id: Option<u64>,
    /// Whether its status is one to keep; the last one counts, as for any client.
    listed: Option<bool>,
    /// The same at the conversation's end, looked up ahead.
    listed_ahead: Option<bool>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(read: ReadKind, body: &'a [u8], trim: &'a Trim, checks: bool) -> Reader<'a> {
        Reader {
            cursor: Cursor::new(body),
            trim,
            rules: trim.rules_of(read),
            checks,
            place: Place::beginning(read),
            conversation: ConversationNotes::default(),
            created_at: None,
            guesses: std::array::from_fn(|_| std::array::from_fn(|previous| u8::try_from(previous).unwrap_or(0))),
            violations: Violations::default(),
            unknown: UnknownTally::default(),
            scopes: Gathering::default(),
            marks: Marking::of(read),
            plan: Plan::default(),
            changed: false,
            weights: None,
        }
    }

    /// Reads the whole body.
    pub(super) fn document(&mut self) -> Result<(), NotAList> {
        let result = self.whole();
        result.map_err(|why| NotAList { at: self.cursor.at(), why })
    }

    fn whole(&mut self) -> Scan<()> {
        let (read, first) = (self.place.read, self.cursor.peek()?);
        let other = Why::other_than(read);
        if first != if other == Why::NotAnArray { b'[' } else { b'{' } {
            return Err(other);
        }
        let start = self.cursor.at();
        let removed = match read {
            ReadKind::Conversations => return self.conversations(),
            ReadKind::Conversation => self.object(&CONVERSATION, self.rules)?,
            ReadKind::Messages => self.elements(&MESSAGE, self.rules)?,
            ReadKind::Contact => self.object(&CONTACT_INBOX, self.rules)?,
        };
        if read != ReadKind::Contact {
            self.marks.end_conversation(self.conversation.id, read == ReadKind::Conversation);
        }
        self.plan.keep_conversation(start, self.cursor.at(), None, removed);
        self.cursor.end()
    }

    fn conversations(&mut self) -> Scan<()> {
        let mut more = self.cursor.first_element()?;
        while more {
            self.conversation = ConversationNotes::default();
            let start = self.cursor.at();
            let messages = self.plan.messages();
            let removed = self.element(&CONVERSATION, self.rules)?;
            self.marks.end_conversation(self.conversation.id, true);
            if !self.is_listed(self.conversation.listed) {
                self.changed = true;
                self.plan.forget_messages(messages);
            } else if !self.trim.is_none() {
                self.plan.keep_conversation(start, self.cursor.at(), self.conversation.id, removed);
            }
            self.place.conversation += 1;
            more = self.cursor.next_element()?;
        }
        self.cursor.end()?;
        if self.trim.sort {
            self.changed |= self.plan.sort_conversations();
        }
        Ok(())
    }

    /// An element of an array of objects. Like everything below, gives how many bytes the rules take from it.
    fn element(&mut self, shape: &'static Shape, rules: Option<&'a Rules>) -> Scan<usize> {
        match self.cursor.peek()? {
            b'{' => return self.object(shape, rules),
            b'n' if shape.null_elements => {}
            b'n' => self.violation(shape.element, ViolationKind::Null),
            _ => self.violation(shape.element, ViolationKind::WrongType),
        }
        self.anything(rules)
    }

    fn object(&mut self, shape: &'static Shape, rules: Option<&'a Rules>) -> Scan<usize> {
        let (mut seen, mut previous, mut removed) = (0_u32, 0, 0);
        let mut cuts = Cuts::default();
        let mut more = self.cursor.first_key()?;
        while more {
            let key_at = self.cursor.at();
            let (found, key) = self.key(shape, previous)?;
            let fate = rules.map_or(Fate::Keep, |rules| rules.fate(key));
            let first_byte = self.cursor.colon()?;
            let inside = if let Some(i) = found {
                seen |= 1 << i;
                previous = i + 1;
                let (field, label) = (&shape.fields[i], Label(shape.first + i));
                let inside = self.value(field, label, first_byte, fate.inside())?;
                if let Some(weights) = &mut self.weights {
                    weights[label.0] += (self.cursor.at() - key_at) as u64;
                }
                if self.checks && !field.is_published() {
                    self.unknown.add(shape, field.name.as_bytes());
                }
                inside
            } else {
                if self.checks {
                    self.unknown.add(shape, key.raw());
                }
                self.anything(fate.inside())?
            };
            let end = self.cursor.at();
            more = self.cursor.next_key()?;
            removed += self.member(&mut cuts, fate, key_at, end, inside, more);
        }
        let missing = shape.required & !seen;
        if missing != 0 {
            for i in (0..shape.fields.len()).filter(|i| missing & (1 << i) != 0) {
                self.violation(Label(shape.first + i), ViolationKind::Missing);
            }
        }
        Ok(removed)
    }

    /// After a member, the cursor being on the next key, if there is one.
    #[inline]
    fn member(&mut self, cuts: &mut Cuts, fate: Fate, key_at: usize, end: usize, inside: usize, more: bool) -> usize {
        if matches!(fate, Fate::Drop) {
            self.changed = true;
            cuts.drop(key_at, end, more.then_some(self.cursor.at())).len()
        } else {
            cuts.keep(end);
            inside
        }
    }

    /// Reads a key and finds its field. The field that followed the previous one last time is tried first.
    fn key(&mut self, shape: &'static Shape, previous: usize) -> Scan<(Option<usize>, Text<'a>)> {
        let start = self.cursor.at();
        let guess = usize::from(self.guesses[shape.index][previous]);
        if let Some(field) = shape.fields.get(guess)
            && self.cursor.key_is(field.name)
        {
            return Ok((Some(guess), self.cursor.text_since(start, false)));
        }
        let key = self.cursor.text()?;
        let found = if key.escaped {
            let name = key.decoded();
            shape.fields.iter().position(|field| field.name == name)
        } else {
            shape.fields.iter().position(|field| field.name.as_bytes() == key.raw())
        };
        if let Some(i) = found {
            self.guesses[shape.index][previous] = u8::try_from(i).unwrap_or(0);
        }
        Ok((found, key))
    }

    /// The value of a field.
    fn value(&mut self, field: &'static Field, label: Label, first_byte: u8, rules: Option<&'a Rules>) -> Scan<usize> {
        let start = self.cursor.at();
        if field.role != Role::None {
            self.note_begins(field.role);
        }
        let fits = match (first_byte, field.kind) {
            (b'"', kind) => {
                let escaped = self.cursor.string()?;
                if field.role != Role::None {
                    self.note_text(field.role, self.cursor.text_since(start, escaped));
                }
                match kind {
                    Kind::Status if !is_status(self.cursor.text_since(start, escaped)) => {
                        self.violation(label, ViolationKind::UnknownEnumValue);
                        true
                    }
                    Kind::Text | Kind::Status | Kind::Anything => true,
                    _ => false,
                }
            }
            (b'-' | b'0'..=b'9', kind) => {
                let plain = self.cursor.number()?;
                let token = self.cursor.since(start);
                if field.role != Role::None {
                    self.note_number(field.role, token);
                }
                match kind {
                    Kind::Integer => plain || is_integral(token),
                    Kind::Number | Kind::Anything => true,
                    _ => false,
                }
            }
            (b'n', kind) => {
                self.cursor.scalar()?;
                if !field.nullable && !matches!(kind, Kind::Anything) {
                    self.violation(label, ViolationKind::Null);
                }
                true
            }
            (b'{', Kind::One(shape)) if field.role == Role::Sender => {
                self.scopes.begin_sender();
                self.marks.begin_sender();
                let removed = self.object(shape, rules)?;
                if self.scopes.end_sender() {
                    self.marks.sender_is_contact();
                }
                return Ok(removed);
            }
            (b'{', Kind::One(shape)) => return self.object(shape, rules),
            (b'[', Kind::Many(shape)) => return self.elements(shape, rules),
            (b'[', Kind::Texts) => return self.texts(rules),
            (b'{', Kind::Opaque) | (_, Kind::Anything) => return self.anything(rules),
            (b't' | b'f', Kind::Flag) => {
                self.cursor.scalar()?;
                true
            }
            _ => {
                self.violation(label, ViolationKind::WrongType);
                return self.anything(rules);
            }
        };
        if !fits {
            self.violation(label, ViolationKind::WrongType);
        }
        Ok(0)
    }

    /// A key named again replaces what it said before, as for any client.
    fn note_begins(&mut self, role: Role) {
        match role {
            Role::DisplayId => self.conversation.id = None,
            Role::Status => self.conversation.listed = Some(false),
            Role::CreatedAt => self.created_at = None,
            _ => {}
        }
    }

    /// An array of messages or attachments.
    fn elements(&mut self, shape: &'static Shape, rules: Option<&'a Rules>) -> Scan<usize> {
        let start = self.cursor.at();
        let is_messages = shape.index == MESSAGE.index;
        let limit = self.trim.messages.filter(|_| is_messages && self.place.read != ReadKind::Messages);
        let notes = limit.is_some_and(|limit| self.notes_messages(limit));
        let (first, mut removed) = (self.plan.messages(), 0);
        let mut index = 0;
        let mut more = self.cursor.first_element()?;
        while more {
            *(if is_messages { &mut self.place.message } else { &mut self.place.attachment }) = index;
            if is_messages {
                self.created_at = None;
                self.marks.begin_message();
            }
            let at = self.cursor.at();
            removed += self.element(shape, rules)?;
            if is_messages {
                self.marks.end_message();
            }
            if let Some(limit) = limit
                && notes
            {
                let size = self.cursor.at() - at - removed;
                removed = 0; // it is in the sizes of the messages
                self.changed |= self.plan.offer_message(first, limit, self.created_at, at, size);
            }
            index += 1;
            more = self.cursor.next_element()?;
        }
        Ok(if notes { self.cursor.at() - start - self.plan.settle_messages(first) } else { removed })
    }

    /// `contact.label_list`.
    fn texts(&mut self, rules: Option<&'a Rules>) -> Scan<usize> {
        let (mut index, mut removed) = (0, 0);
        let mut more = self.cursor.first_element()?;
        while more {
            self.place.message = index;
            match self.cursor.peek()? {
                b'"' => {}
                b'n' => self.violation(Label::LABEL_LIST, ViolationKind::Null),
                _ => self.violation(Label::LABEL_LIST, ViolationKind::WrongType),
            }
            removed += self.anything(rules)?;
            index += 1;
            more = self.cursor.next_element()?;
        }
        Ok(removed)
    }

    /// A value that the contract does not look into. Rules go through arrays as if they were not there.
    fn anything(&mut self, rules: Option<&'a Rules>) -> Scan<usize> {
        let (Some(rules), byte @ (b'{' | b'[')) = (rules, self.cursor.peek()?) else {
            self.cursor.skip()?;
            return Ok(0);
        };
        let mut removed = 0;
        if byte == b'[' {
            let mut more = self.cursor.first_element()?;
            while more {
                removed += self.anything(Some(rules))?;
                more = self.cursor.next_element()?;
            }
            return Ok(removed);
        }
        let mut cuts = Cuts::default();
        let mut more = self.cursor.first_key()?;
        while more {
            let key_at = self.cursor.at();
            let fate = rules.fate(self.cursor.text()?);
            self.cursor.colon()?;
            let inside = self.anything(fate.inside())?;
            let end = self.cursor.at();
            more = self.cursor.next_key()?;
            removed += self.member(&mut cuts, fate, key_at, end, inside, more);
        }
        Ok(removed)
    }

    fn note_text(&mut self, role: Role, text: Text<'a>) {
        self.marks.note(role, text.token);
        match role {
            Role::Content | Role::Card(_) | Role::SenderCard(_) | Role::UpdatedAt => {}
            Role::Uuid if text.escaped => self.scopes.uuid(text.decoded().as_bytes()),
            Role::Uuid => self.scopes.uuid(text.raw()),
            Role::Status => self.conversation.listed = Some(self.trim.statuses.iter().any(|status| text.is(status))),
            Role::SenderType if text.is("contact") => self.scopes.sender_is_contact(),
            // Digits in quotes are not what the contract says, but they name the same contact.
            _ if text.escaped => self.note_id(role, text.decoded().as_bytes()),
            _ => self.note_id(role, text.raw()),
        }
    }

    fn note_number(&mut self, role: Role, token: &'a [u8]) {
        self.marks.note(role, token);
        if !role.is_mark_alone() {
            self.note_id(role, token);
        }
    }

    fn note_id(&mut self, role: Role, token: &[u8]) {
        if role == Role::CreatedAt {
            self.created_at = seconds(token);
            return;
        }
        let Some(id) = digits(token) else { return };
        match role {
            Role::DisplayId => {
                self.conversation.id = Some(id);
                self.scopes.display_id(id);
            }
            Role::ContactId => self.scopes.contact(id),
            Role::SenderId => self.scopes.sender_id(id),
            Role::AccountId => self.scopes.account(id),
            _ => {}
        }
    }

    fn is_listed(&self, listed: Option<bool>) -> bool {
        self.trim.statuses.is_empty() || self.place.read != ReadKind::Conversations || listed == Some(true)
    }

    /// Whether to note the newest messages of a conversation that may yet turn out to go. A few may be noted in vain; if
    /// it may be many, the rest of the conversation is looked through for its status, once.
    fn notes_messages(&mut self, limit: usize) -> bool {
        if self.is_listed(self.conversation.listed) || limit <= NOTED_IN_VAIN {
            return true;
        }
        if self.conversation.listed_ahead.is_none() {
            // What is wrong with the rest will be found when it is read.
            self.conversation.listed_ahead = Some(self.status_ahead().unwrap_or(false));
        }
        self.conversation.listed_ahead == Some(true)
    }

    /// Whether the last status from here on is one to keep, the cursor being on the value of `messages`.
    fn status_ahead(&self) -> Scan<bool> {
        let mut listed = false;
        let mut ahead = self.cursor.clone();
        ahead.skip()?;
        while ahead.next_key()? {
            let is_status = ahead.text()?.is("status");
            if ahead.colon()? == b'"' {
                let text = ahead.text()?;
                listed = if is_status { self.trim.statuses.iter().any(|status| text.is(status)) } else { listed };
            } else {
                listed &= !is_status;
                ahead.skip()?;
            }
        }
        Ok(listed)
    }

    fn violation(&mut self, label: Label, kind: ViolationKind) {
        if self.checks {
            self.violations.add(label, kind, self.place);
        }
    }
}

fn is_status(text: Text<'_>) -> bool {
    STATUSES.iter().any(|status| text.is(status))
}
