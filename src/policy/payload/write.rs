//! What is kept of a list, and the copy made of it.
//!
//! The copy is made of long runs: what lies between two parts that go is copied as it stands, white space included.
//!
//! The plan holds 16 bytes per kept conversation, and per kept message if messages are limited; the copy is allocated
//! once, in its exact length. That bounds the memory of a pass: body in, body out, and the plan.

use std::ops::Range;

use super::scan::{Cursor, Scan};
use super::trim::{Fate, Rules, Trim};
use crate::policy::resource::ReadKind;

/// Which bytes go with the members of an object that go: each with one comma, so that what is left is an object. The
/// reader measures by it and the writer copies by it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cuts {
    /// Where the last member ended, if one before it stays.
    last_end: Option<usize>,
}

impl Cuts {
    pub(super) fn keep(&mut self, end: usize) {
        self.last_end = Some(end);
    }

    /// A member from its key to its end goes; `next` is where the next key stands.
    pub(super) fn drop(&mut self, key_at: usize, end: usize, next: Option<usize>) -> Range<usize> {
        match &mut self.last_end {
            Some(last_end) => std::mem::replace(last_end, end)..end, // with the comma before it
            None => key_at..next.unwrap_or(end),                     // with the comma after it
        }
    }
}

/// A conversation that stays. Offsets fit 32 bits: longer bodies are refused before they are read.
#[derive(Clone, Copy, Debug)]
struct KeptConversation {
    start: u32,
    end: u32,
    /// Those without an id that can be read come last.
    id: u64,
}

/// A message that stays, as far as is known.
#[derive(Clone, Copy, Debug)]
struct KeptMessage {
    /// Those without a time that can be read are the oldest.
    created_at: i64,
    start: u32,
    size: u32,
}

impl KeptMessage {
    /// What makes one message newer than another: its time, then its place.
    fn age(&self) -> (i64, u32) {
        (self.created_at, self.start)
    }
}

/// Which parts of a body stay.
#[derive(Debug, Default)]
pub(super) struct Plan {
    conversations: Vec<KeptConversation>,
    /// Of all conversations, in the order of the body; empty if messages are not limited.
    messages: Vec<KeptMessage>,
    /// Of the kept parts, without what goes between them.
    bytes: usize,
}

impl Plan {
    /// How many messages are noted.
    pub(super) fn messages(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn keep_conversation(&mut self, start: usize, end: usize, id: Option<u64>, removed: usize) {
        self.bytes += end - start - removed;
        let kept = KeptConversation { start: offset(start), end: offset(end), id: id.unwrap_or(u64::MAX) };
        push(&mut self.conversations, kept);
    }

    /// Takes back the messages noted since, because their conversation goes.
    pub(super) fn forget_messages(&mut self, since: usize) {
        self.messages.truncate(since);
    }

    /// Notes a message, unless `limit` newer ones are noted since `first`; then an older one goes, or it does. True if
    /// one went. The messages since `first` are a heap with the oldest on top, so a long conversation costs no more
    /// memory than what is kept of it.
    pub(super) fn offer_message(
        &mut self,
        first: usize,
        limit: usize,
        created_at: Option<i64>,
        start: usize,
        size: usize,
    ) -> bool {
        let offered =
            KeptMessage { created_at: created_at.unwrap_or(i64::MIN), start: offset(start), size: offset(size) };
        if self.messages.len() - first < limit {
            push(&mut self.messages, offered);
            sift_up(&mut self.messages[first..]);
            return false;
        }
        if let Some(oldest) = self.messages.get_mut(first)
            && offered.age() > oldest.age()
        {
            *oldest = offered;
            sift_down(&mut self.messages[first..]);
        }
        true
    }

    /// Puts the messages since `first` back into the order of the body; gives the length of an array of them.
    pub(super) fn settle_messages(&mut self, first: usize) -> usize {
        let messages = &mut self.messages[first..];
        messages.sort_unstable_by_key(|message| message.start);
        array_length(messages.len(), messages.iter().map(|message| message.size as usize).sum())
    }

    /// Sorts by id, then by place. True if that changed anything.
    pub(super) fn sort_conversations(&mut self) -> bool {
        let order = |kept: &KeptConversation| (kept.id, kept.start);
        let changes = !self.conversations.is_sorted_by_key(order);
        self.conversations.sort_unstable_by_key(order); // in place, and stable by way of the second key
        changes
    }

    /// Copies what is kept of the body, which this read gave, that the plan was made from.
    pub(super) fn write(mut self, body: &[u8], trim: &Trim, read: ReadKind) -> Vec<u8> {
        self.conversations.shrink_to_fit();
        self.messages.shrink_to_fit();
        let is_list = read == ReadKind::Conversations;
        let length = if is_list { array_length(self.conversations.len(), self.bytes) } else { self.bytes };
        let cursor = Cursor::new(body);
        let mut writer = Writer { cursor, body, trim, plan: &self, from: 0, out: Vec::with_capacity(length) };
        // The reader has been over these bytes: nothing can be wrong with them. Were it otherwise, the copy would be
        // short of its planned length, which the tests look for.
        let written = if is_list { writer.conversations() } else { writer.document(read) };
        debug_assert!(written.is_ok() && writer.out.len() == length, "the copy has the planned length");
        writer.out
    }
}

/// The length of an array without white space.
fn array_length(elements: usize, bytes: usize) -> usize {
    2 + bytes + elements.saturating_sub(1)
}

/// Grows by an eighth instead of doubling: the plan is to stay at 16 bytes for each part.
fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + 64);
    }
    list.push(item);
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("longer bodies are refused before they are read")
}

fn sift_up(heap: &mut [KeptMessage]) {
    let mut child = heap.len() - 1;
    while child > 0 {
        let parent = (child - 1) / 2;
        if heap[parent].age() <= heap[child].age() {
            break;
        }
        heap.swap(parent, child);
        child = parent;
    }
}

fn sift_down(heap: &mut [KeptMessage]) {
    let mut parent = 0;
    loop {
        let left = 2 * parent + 1;
        let right_is_older = left + 1 < heap.len() && heap[left + 1].age() < heap[left].age();
        let older = left + usize::from(right_is_older);
        if older >= heap.len() || heap[parent].age() <= heap[older].age() {
            break;
        }
        heap.swap(parent, older);
        parent = older;
    }
}

/// Copies kept parts. It must take the same turns as the reader; the planned length is the witness.
struct Writer<'a> {
    cursor: Cursor<'a>,
    body: &'a [u8],
    trim: &'a Trim,
    plan: &'a Plan,
    /// Where what has not been copied yet begins.
    from: usize,
    out: Vec<u8>,
}

impl Writer<'_> {
    /// What is no list, and of which something goes.
    fn document(&mut self, read: ReadKind) -> Scan<()> {
        let Some(whole) = self.plan.conversations.first() else { return Ok(()) };
        self.from = whole.start as usize;
        self.cursor.jump(self.from);
        if let Some(rules) = self.trim.rules_of(read) {
            let limits_messages = read == ReadKind::Conversation && self.trim.messages.is_some();
            if limits_messages { self.object(rules, true)? } else { self.value(rules)? }
        }
        self.copy_to(whole.end as usize);
        Ok(())
    }

    fn conversations(&mut self) -> Scan<()> {
        self.out.push(b'[');
        for (i, conversation) in self.plan.conversations.iter().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            self.from = conversation.start as usize;
            if let Some(rules) = self.trim.conversation_rules() {
                self.cursor.jump(self.from);
                match self.cursor.peek()? {
                    b'{' => self.object(rules, self.trim.messages.is_some())?,
                    _ => self.value(rules)?,
                }
            }
            self.copy_to(conversation.end as usize);
        }
        self.out.push(b']');
        Ok(())
    }

    /// Copies what lies before, as it stands.
    fn copy_to(&mut self, end: usize) {
        self.out.extend_from_slice(&self.body[self.from..end]);
        self.from = end;
    }

    /// Passes over a value in which something may go.
    fn value(&mut self, rules: &Rules) -> Scan<()> {
        match self.cursor.peek()? {
            b'{' => self.object(rules, false)?,
            b'[' => {
                let mut more = self.cursor.first_element()?;
                while more {
                    self.value(rules)?;
                    more = self.cursor.next_element()?;
                }
            }
            _ => self.cursor.skip_known(),
        }
        Ok(())
    }

    fn object(&mut self, rules: &Rules, limits_messages: bool) -> Scan<()> {
        let mut cuts = Cuts::default();
        let mut more = self.cursor.first_key()?;
        while more {
            let key_at = self.cursor.at();
            let escaped = self.cursor.skip_known_string();
            let key = self.cursor.text_since(key_at, escaped);
            let byte = self.cursor.colon()?;
            let fate = rules.fate(key);
            match fate {
                Fate::Drop => self.cursor.skip_known(),
                _ if limits_messages && byte == b'[' && key.is("messages") => self.newest(fate.inside())?,
                Fate::Inside(rules) => self.value(rules)?,
                Fate::Keep => self.cursor.skip_known(),
            }
            let end = self.cursor.at();
            more = self.cursor.next_key()?;
            if matches!(fate, Fate::Drop) {
                let cut = cuts.drop(key_at, end, more.then_some(self.cursor.at()));
                self.copy_to(cut.start);
                self.from = cut.end;
            } else {
                cuts.keep(end);
            }
        }
        Ok(())
    }

    /// The messages that the plan keeps. The ones before the first of them, usually most, are not looked at again.
    fn newest(&mut self, rules: Option<&Rules>) -> Scan<()> {
        let array = self.cursor.at();
        let next = self.plan.messages.partition_point(|message| (message.start as usize) < array);
        let mut kept = self.plan.messages[next..].iter().peekable();
        self.copy_to(array + 1);
        let mut more = self.cursor.first_element()?;
        if more && self.trim.messages != Some(0) {
            // An array that is not empty keeps one at least, so the next one noted is its own.
            kept.peek().into_iter().for_each(|message| self.cursor.jump(message.start as usize));
        }
        let mut is_first = true;
        while more {
            let at = self.cursor.at();
            if let Some(message) = kept.next_if(|message| message.start as usize == at) {
                if !is_first {
                    self.out.push(b',');
                }
                is_first = false;
                self.from = at;
                match rules {
                    Some(rules) => self.value(rules)?,
                    None => self.cursor.jump(at + message.size as usize),
                }
                self.copy_to(self.cursor.at());
            } else {
                self.cursor.skip_known();
            }
            more = self.cursor.next_element()?;
        }
        self.from = self.cursor.at() - 1; // the closing bracket
        Ok(())
    }
}
