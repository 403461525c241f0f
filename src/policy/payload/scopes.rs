//! What a list says about what it was made from: the scopes of its body (`coherence.md`, table of scopes).
//!
//! Every number here is bounded, whatever the body says: an answer carries its scopes for as long as it is kept.

/// More conversations than this share one scope for CSAT writes.
pub const MAX_UUIDS: usize = 32;
/// More contacts than this and the answer must not be kept: a change to one of them could be missed.
pub const MAX_CONTACTS: usize = 256;
/// More conversations than this share one scope for writes of the account API.
pub const MAX_DISPLAY_IDS: usize = 1024;
/// More accounts than this (there is one) is treated like too many display ids.
pub const MAX_ACCOUNTS: usize = 8;
/// A UUID has 36 bytes; longer ones cannot be told apart and count as too many.
const MAX_UUID_BYTES: usize = 64;

/// The scopes of one list: without duplicates, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyScopes {
    /// Ids of the contacts: of conversations, and of senders whose type is `contact`.
    pub contacts: Vec<u64>,
    /// There were more contacts than [`MAX_CONTACTS`]: the answer must not be kept.
    pub too_many_contacts: bool,
    /// UUIDs of the conversations, in lower case, as a database compares them. Empty if there are too many.
    pub uuids: Vec<String>,
    /// There were more UUIDs than [`MAX_UUIDS`]: any CSAT write must invalidate the answer.
    pub too_many_uuids: bool,
    /// The accounts, of contacts and attachments. In practice one.
    pub accounts: Vec<u64>,
    /// The display ids of the conversations, unique in their account. Empty if there are too many.
    pub display_ids: Vec<u64>,
    /// There were more than [`MAX_DISPLAY_IDS`] (or [`MAX_ACCOUNTS`]): any write of the account API must invalidate it.
    pub too_many_conversations: bool,
}

impl BodyScopes {
    /// Account and display id of every conversation. A list is of one account, so a conversation that does not name its
    /// account (its contact is null) has that of the others; with two, both count.
    pub fn conversations(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let displays = |account| self.display_ids.iter().map(move |&display| (account, display));
        self.accounts.iter().flat_map(move |&account| displays(account))
    }
}

/// Gathers scopes while a body is read.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    contacts: Ids<MAX_CONTACTS>,
    accounts: Ids<MAX_ACCOUNTS>,
    displays: Ids<MAX_DISPLAY_IDS>,
    uuids: Vec<String>,
    too_many_uuids: bool,
    // Of the sender being read; its type may come after its id, and hostile bodies name both twice.
    sender_ids: Ids<MAX_CONTACTS>,
    sender_is_contact: bool,
}

impl Gathering {
    pub(super) fn contact(&mut self, id: u64) {
        self.contacts.add(id);
    }

    pub(super) fn account(&mut self, id: u64) {
        self.accounts.add(id);
    }

    pub(super) fn display_id(&mut self, id: u64) {
        self.displays.add(id);
    }

    pub(super) fn uuid(&mut self, uuid: &[u8]) {
        if self.too_many_uuids || self.uuids.last().is_some_and(|last| last.as_bytes().eq_ignore_ascii_case(uuid)) {
            return;
        }
        let lower = String::from_utf8_lossy(&uuid[..uuid.len().min(MAX_UUID_BYTES)]).to_ascii_lowercase();
        if !self.uuids.contains(&lower) {
            self.uuids.push(lower);
        }
        if self.uuids.len() > MAX_UUIDS || uuid.len() > MAX_UUID_BYTES {
            self.too_many_uuids = true;
            self.uuids = Vec::new();
        }
    }

    pub(super) fn begin_sender(&mut self) {
        self.sender_ids.clear();
        self.sender_is_contact = false;
    }

    pub(super) fn sender_id(&mut self, id: u64) {
        self.sender_ids.add(id);
    }

    pub(super) fn sender_is_contact(&mut self) {
        self.sender_is_contact = true;
    }

    /// Whether it was a contact.
    pub(super) fn end_sender(&mut self) -> bool {
        if self.sender_is_contact {
            self.contacts.too_many |= self.sender_ids.too_many;
            for &id in &self.sender_ids.ids {
                self.contacts.add(id);
            }
        }
        self.sender_is_contact
    }

    pub(super) fn finish(self) -> BodyScopes {
        let (contacts, too_many_contacts) = self.contacts.finish();
        let (accounts, too_many_accounts) = self.accounts.finish();
        let (display_ids, too_many_displays) = self.displays.finish();
        let mut uuids = self.uuids;
        uuids.sort_unstable();
        BodyScopes {
            contacts,
            too_many_contacts,
            uuids,
            too_many_uuids: self.too_many_uuids,
            accounts,
            display_ids,
            too_many_conversations: too_many_displays || too_many_accounts,
        }
    }
}

/// At most `MAX` different numbers.
#[derive(Debug, Default)]
struct Ids<const MAX: usize> {
    ids: Vec<u64>,
    too_many: bool,
}

impl<const MAX: usize> Ids<MAX> {
    fn add(&mut self, id: u64) {
        // Most bodies name one contact and one account, over and over.
        if self.ids.last() == Some(&id) || self.too_many {
            return;
        }
        self.ids.push(id);
        if self.ids.len() >= 2 * MAX {
            self.tidy();
        }
    }

    fn clear(&mut self) {
        self.ids.clear();
        self.too_many = false;
    }

    fn tidy(&mut self) {
        self.ids.sort_unstable();
        self.ids.dedup();
        if self.ids.len() > MAX {
            self.too_many = true;
            self.ids = Vec::new();
        }
    }

    fn finish(mut self) -> (Vec<u64>, bool) {
        self.tidy();
        self.ids.shrink_to_fit();
        (self.ids, self.too_many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_bounded() {
        let mut gathering = Gathering::default();
        for round in 0..100 {
            for id in 0..MAX_CONTACTS as u64 {
                gathering.contact(id * 7 % 1000 + round % 2 * 7);
            }
            gathering.display_id(u64::MAX - round);
        }
        gathering.account(3);
        let scopes = gathering.finish();
        assert!(scopes.contacts.is_sorted_by(|a, b| a < b));
        assert_eq!(scopes.conversations().count(), 100);
        assert!(!scopes.too_many_conversations);

        let mut gathering = Gathering::default();
        (0..100_000).for_each(|id| gathering.contact(id));
        (0..=MAX_DISPLAY_IDS as u64).for_each(|id| gathering.display_id(id));
        (0..=MAX_UUIDS).for_each(|n| gathering.uuid(format!("{n}").as_bytes()));
        let scopes = gathering.finish();
        assert!(scopes.too_many_contacts && scopes.too_many_conversations && scopes.too_many_uuids);
        assert!(scopes.contacts.is_empty() && scopes.display_ids.is_empty() && scopes.uuids.is_empty());
    }

    #[test]
    fn exactly_the_limit_is_not_too_many() {
        let mut gathering = Gathering::default();
        for _ in 0..5 {
            (0..MAX_CONTACTS as u64).for_each(|id| gathering.contact(id));
            (0..MAX_UUIDS).for_each(|n| gathering.uuid(format!("A{n}").as_bytes()));
        }
        let scopes = gathering.finish();
        assert_eq!((scopes.contacts.len(), scopes.uuids.len()), (MAX_CONTACTS, MAX_UUIDS));
        assert!(scopes.uuids.iter().all(|uuid| uuid.starts_with('a')), "compared without case");
    }

    #[test]
    fn a_uuid_too_long_to_keep_counts_as_too_many() {
        let mut gathering = Gathering::default();
        gathering.uuid(&[b'a'; 65]);
        assert!(gathering.finish().too_many_uuids);
    }
}
