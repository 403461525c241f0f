//! Which answers are out of date: scopes, ticks, and the one rule.
//!
//! > An answer is served only if its fetch began after the last change to everything it was made from.
//!
//! A fixed table of places, each the tick of the last change to any scope that hashes there. Sharing a place costs a
//! needless fetch, never a stale answer. Nothing grows, nothing expires, and invalidating everything is one store.
//!
//! # Memory order
//!
//! - A write takes its tick with `AcqRel` **after** the upstream has answered it. A fetch that notes a tick at least
//!   as late (`Acquire`) thus begins after the upstream has committed the write.
//! - A write raises its places (`Release`) **before** its client sees the answer. A reader who has heard of the
//!   acknowledgement comes after that store, by whatever way it heard; coherence of one atomic then shows it a tick
//!   no older than the write's.
//! - `fetch_max`, since two writes may reach one place in the other order than they took their ticks.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::atomic::{AtomicU64, Ordering};
use crate::policy::resource::Part;

/// The places of a ledger in a running proxy: two tables of 8 MiB.
pub const PLACES: usize = 1 << 20;

/// Something an answer is made from, or that a change touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// A contact identifier, in whatever inbox.
    Source(&'a str),
    /// A contact, by its account-wide id.
    Contact(u64),
    /// A conversation, by its uuid in lower case.
    Conversation(&'a str),
    /// A conversation, by account and display id.
    AccountConversation(u64, u64),
    /// Any conversation: for answers that hold too many to name each.
    AnyConversation,
    /// That a contact is missing from this inbox.
    Missing(&'a str),
    /// That a contact identifier is missing: an answer that shows it puts that out of date.
    Absent(&'a str),
    /// An inbox, by its identifier.
    Inbox(&'a str),
    /// One list, by the text of its key.
    List(&'a str),
    /// Which contact is behind a contact identifier.
    IdentityOfSource(&'a str),
    /// Which sources are a contact's.
    Identity(u64),
    /// What names nobody: empty lists and 404s. Out of date after a write of which nobody can say whose it was.
    Nameless,
    /// Everything of an account.
    Account(u64),
    /// The answers to one list for readers of different origins, by the text that their keys share.
    Variants(&'a str),
    /// What reads other than the list show of somebody: of one conversation, or of all.
    Part(Part, Of<'a>, Option<u64>),
}

/// Whose it is what a [`Part`] shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of<'a> {
    /// A contact identifier's, in whatever inbox.
    Source(&'a str),
    /// A contact's, by its account-wide id.
    Contact(u64),
    /// An account's.
    Account(u64),
    /// Of whatever account: for answers that do not say of which they are.
    Anybody,
    /// Of whatever conversation: for answers that show no uuid, when something is known by that alone.
    Everybody,
}

impl<'a> Of<'a> {
    /// The scope of the list, which shows all of it.
    pub fn list(self) -> Option<Scope<'a>> {
        match self {
            Self::Source(source) => Some(Scope::Source(source)),
            Self::Contact(id) => Some(Scope::Contact(id)),
            Self::Account(_) | Self::Anybody | Self::Everybody => None,
        }
    }
}

/// A point in the order of changes: one counter for all places, since a scope learned from a body is compared with a
/// tick that was noted before the body was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    /// Its place in the order.
    pub(super) fn number(self) -> u64 {
        self.0
    }

    /// The tick at this place.
    pub(super) fn of(number: u64) -> Self {
        Self(number)
    }
}

/// Where a scope's last change is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u32);

impl Place {
    /// Its number in the table: what replicas with the same keys call it.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Milliseconds on the monotonic clock since the process began: what the ledger knows of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

/// The last change to everything.
pub struct Ledger {
    hash_key: [u64; 2],
    counter: AtomicU64,
    /// The last place is the one of everything.
    changed: Box<[AtomicU64]>,
    unsettled: Box<[AtomicU64]>,
}

impl Ledger {
    /// A ledger of `places` places; `hash_key` is random in production, or made of a secret that replicas share, since
    /// contact ids can be guessed and whoever could aim at a place could keep an answer from being shared.
    pub fn new(places: usize, hash_key: [u64; 2]) -> Self {
        let table = |length| (0..length).map(|_| AtomicU64::new(0)).collect();
        Self { hash_key, counter: AtomicU64::new(0), changed: table(places + 1), unsettled: table(places) }
    }

    /// The place of a scope.
    pub fn place(&self, scope: &Scope<'_>) -> Place {
        let mut hasher = SipHasher13::new_with_keys(self.hash_key[0], self.hash_key[1]);
        match scope {
            Scope::Source(text) => hash_text(&mut hasher, 0, text),
            Scope::Contact(id) => hash_numbers(&mut hasher, 1, &[*id]),
            Scope::Conversation(text) => hash_text(&mut hasher, 2, text),
            Scope::AccountConversation(account, display) => hash_numbers(&mut hasher, 3, &[*account, *display]),
            Scope::AnyConversation => hash_numbers(&mut hasher, 4, &[]),
            Scope::Missing(text) => hash_text(&mut hasher, 5, text),
            Scope::Inbox(text) => hash_text(&mut hasher, 6, text),
            Scope::List(text) => hash_text(&mut hasher, 7, text),
            Scope::IdentityOfSource(text) => hash_text(&mut hasher, 8, text),
            Scope::Identity(id) => hash_numbers(&mut hasher, 9, &[*id]),
            Scope::Nameless => hash_numbers(&mut hasher, 10, &[]),
            Scope::Account(id) => hash_numbers(&mut hasher, 11, &[*id]),
            Scope::Variants(text) => hash_text(&mut hasher, 12, text),
            Scope::Absent(text) => hash_text(&mut hasher, 14, text),
            Scope::Part(part, of, conversation) => {
                hash_numbers(
                    &mut hasher,
                    13,
                    &[*part as u64, conversation.map_or(0, |display| display.saturating_add(1))],
                );
                match of {
                    Of::Source(text) => hash_text(&mut hasher, 0, text),
                    Of::Contact(id) => hash_numbers(&mut hasher, 1, &[*id]),
                    Of::Account(id) => hash_numbers(&mut hasher, 2, &[*id]),
                    Of::Anybody => hash_numbers(&mut hasher, 3, &[]),
                    Of::Everybody => hash_numbers(&mut hasher, 4, &[]),
                }
            }
        }
        let places = self.unsettled.len() as u64;
        Place(u32::try_from(hasher.finish() % places).expect("a table has fewer than 2^32 places"))
    }

    /// The place of this number; none if the table is shorter.
    pub fn place_of(&self, number: u32) -> Option<Place> {
        ((number as usize) < self.unsettled.len()).then_some(Place(number))
    }

    /// The tick to note: before the first byte of a fetch is sent, or when a reader arrives.
    pub fn now(&self) -> Tick {
        Tick(self.counter.load(Ordering::Acquire))
    }

    /// A tick that nobody else has, to note before a fetch begins: of two fetches it says which one began later.
    pub fn own_tick(&self) -> Tick {
        Tick(self.counter.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// What is made from this place and was noted before this tick is out of date; what was noted then is not.
    pub fn supersede(&self, place: Place, Tick(tick): Tick) {
        self.changed[place.0 as usize].fetch_max(tick, Ordering::Release);
    }

    /// Everything made from what is in this place is out of date from here on. Gives the tick of the change.
    pub fn invalidate(&self, place: Place) -> Tick {
        self.raise(&self.changed[place.0 as usize])
    }

    /// Every answer is out of date from here on.
    pub fn invalidate_all(&self) -> Tick {
        self.raise(self.changed.last().expect("the place of everything is always there"))
    }

    fn raise(&self, place: &AtomicU64) -> Tick {
        let tick = self.counter.fetch_add(1, Ordering::AcqRel) + 1;
        place.fetch_max(tick, Ordering::Release);
        Tick(tick)
    }

    /// Whether nothing in these places has changed after `noted`.
    pub fn is_current(&self, noted: Tick, places: &[Place]) -> bool {
        let everything = self.changed.last().expect("the place of everything is always there");
        let holds = |place: &AtomicU64| place.load(Ordering::Acquire) <= noted.0;
        holds(everything) && places.iter().all(|place| holds(&self.changed[place.0 as usize]))
    }

    /// The tick of the last change in a place, for whoever asks why something is out of date.
    pub fn last_change(&self, place: Place) -> Tick {
        Tick(self.changed[place.0 as usize].load(Ordering::Acquire))
    }

    /// The tick of the last change to everything.
    pub fn last_change_of_all(&self) -> Tick {
        Tick(self.changed.last().expect("the place of everything is always there").load(Ordering::Acquire))
    }

    /// What is in this place may go on changing until then, though nobody says so: bots answer, automations run.
    pub fn unsettle(&self, place: Place, until: Moment) {
        self.unsettled[place.0 as usize].fetch_max(until.0, Ordering::AcqRel);
    }

    /// Until when what is in these places may go on changing.
    pub fn unsettled_until(&self, places: &[Place]) -> Moment {
        let until = places.iter().map(|place| self.unsettled[place.0 as usize].load(Ordering::Acquire)).max();
        Moment(until.unwrap_or(0))
    }
}

fn hash_text(hasher: &mut SipHasher13, kind: u8, text: &str) {
    hasher.write_u8(kind);
    hasher.write(text.as_bytes());
}

fn hash_numbers(hasher: &mut SipHasher13, kind: u8, numbers: &[u64]) {
    hasher.write_u8(kind);
    for number in numbers {
        hasher.write_u64(*number);
    }
}
