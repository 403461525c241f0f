//! What is kept of a list, and the copy made of it.
//!
//! The plan holds 16 bytes per kept conversation, and per kept message if messages are limited; the copy is allocated
//! once, in its exact length. That bounds the memory of a pass: body in, body out, and the plan.

use super::scan::{Cursor, Scan};
use super::trim::{Fate, Rules, Trim};

/// The length of an object or array whose parts are known: brackets, parts, commas.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    parts: usize,
    bytes: usize,
}

impl Size {
    pub(super) fn add(&mut self, bytes: usize) {
        self.parts += 1;
        self.bytes += bytes;
    }

    pub(super) fn total(self) -> usize {
        2 + self.bytes + self.parts.saturating_sub(1)
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
    size: Size,
}

impl Plan {
    /// How many messages are noted.
    pub(super) fn messages(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn keep_conversation(&mut self, start: usize, end: usize, id: Option<u64>, size: usize) {
        self.size.add(size);
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

    /// Puts the messages since `first` back into the order of the body; gives their sizes.
    pub(super) fn settle_messages(&mut self, first: usize) -> impl Iterator<Item = usize> + '_ {
        let messages = &mut self.messages[first..];
        messages.sort_unstable_by_key(|message| message.start);
        messages.iter().map(|message| message.size as usize)
    }

    /// Sorts by id, then by place. True if that changed anything.
    pub(super) fn sort_conversations(&mut self) -> bool {
        let order = |kept: &KeptConversation| (kept.id, kept.start);
        let changes = !self.conversations.is_sorted_by_key(order);
        self.conversations.sort_unstable_by_key(order); // in place, and stable by way of the second key
        changes
    }

    /// Copies what is kept of the body that the plan was made from.
    pub(super) fn write(mut self, body: &[u8], trim: &Trim) -> Vec<u8> {
        self.conversations.shrink_to_fit();
        self.messages.shrink_to_fit();
        let mut out = Vec::with_capacity(self.size.total());
        let mut writer = Writer { cursor: Cursor::new(body), body, trim, messages: &self.messages, out: &mut out };
        // The reader has been over these bytes: nothing can be wrong with them. Were it otherwise, the copy would be
        // short of its planned length, which the tests look for.
        let written = writer.conversations(&self.conversations);
        debug_assert!(written.is_ok() && out.len() == self.size.total(), "the copy has the planned length");
        out
    }
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
    messages: &'a [KeptMessage],
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn conversations(&mut self, kept: &[KeptConversation]) -> Scan<()> {
        self.out.push(b'[');
        for (i, conversation) in kept.iter().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            let (start, end) = (conversation.start as usize, conversation.end as usize);
            match self.trim.conversation_rules() {
                Some(rules) if self.body[start] == b'{' => {
                    self.cursor.jump(start);
                    self.object(rules, self.trim.messages.is_some())?;
                }
                Some(rules) => {
                    self.cursor.jump(start);
                    self.value(rules)?;
                }
                None => self.out.extend_from_slice(&self.body[start..end]),
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// A value in which something may go.
    fn value(&mut self, rules: &Rules) -> Scan<()> {
        match self.cursor.peek()? {
            b'{' => self.object(rules, false),
            b'[' => {
                self.out.push(b'[');
                let mut more = self.cursor.first_element()?;
                while more {
                    self.value(rules)?;
                    more = self.cursor.next_element()?;
                    if more {
                        self.out.push(b',');
                    }
                }
                self.out.push(b']');
                Ok(())
            }
            _ => self.copy(),
        }
    }

    fn object(&mut self, rules: &Rules, limits_messages: bool) -> Scan<()> {
        self.out.push(b'{');
        let mut is_first = true;
        let mut more = self.cursor.first_key()?;
        while more {
            let key = self.cursor.string()?;
            let byte = self.cursor.colon()?;
            let fate = rules.fate(key);
            if matches!(fate, Fate::Drop) {
                self.cursor.skip()?;
            } else {
                if !is_first {
                    self.out.push(b',');
                }
                is_first = false;
                self.out.extend_from_slice(key.token);
                self.out.push(b':');
                match fate.inside() {
                    inside if limits_messages && byte == b'[' && key.is("messages") => self.newest(inside)?,
                    Some(rules) => self.value(rules)?,
                    None => self.copy()?,
                }
            }
            more = self.cursor.next_key()?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// The messages that the plan keeps. The ones before the first of them, usually most, are not looked at again.
    fn newest(&mut self, rules: Option<&Rules>) -> Scan<()> {
        let array = self.cursor.at();
        let next = self.messages.partition_point(|message| (message.start as usize) < array);
        let mut kept = self.messages[next..].iter().map(|message| message.start as usize).peekable();
        self.out.push(b'[');
        let mut is_first = true;
        let mut more = self.cursor.first_element()?;
        if more && self.trim.messages != Some(0) {
            // An array that is not empty keeps one at least, so the next one noted is its own.
            kept.peek().into_iter().for_each(|&start| self.cursor.jump(start));
        }
        while more {
            if kept.next_if_eq(&self.cursor.at()).is_some() {
                if !is_first {
                    self.out.push(b',');
                }
                is_first = false;
                match rules {
                    Some(rules) => self.value(rules)?,
                    None => self.copy()?,
                }
            } else {
                self.cursor.skip()?;
            }
            more = self.cursor.next_element()?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// A value as it stands.
    fn copy(&mut self) -> Scan<()> {
        self.cursor.peek()?;
        let start = self.cursor.at();
        self.cursor.skip()?;
        self.out.extend_from_slice(self.cursor.since(start));
        Ok(())
    }
}
