//! One replica: the member and the ledger as the program has them, and around them a cache of three lists.

use std::collections::BTreeMap;

use anteroom::policy::coherence::beliefs::{Belief, Elsewhere, Moves};
use anteroom::policy::coherence::ledger::{Ledger, Moment, Place, Tick};
use anteroom::policy::replicas::exchange::{MemberId, Micros};
use anteroom::policy::replicas::known::{FleetTime, Known, Stamp};
use anteroom::policy::replicas::member::{Member, Rules};
use anteroom::policy::replicas::pending::{Pending, Ticket};
use anteroom::policy::replicas::wire::Item;

pub(super) const LISTS: usize = 3;
/// Who may be behind their sources.
pub(super) const CONTACTS: u64 = 3;
/// Each list, each contact, whose each source is, who each contact is, and what names nobody.
pub(super) const PLACES: u32 = 13;
/// What names nobody.
pub(super) const NAMELESS: Places = Places(1 << 12);

/// A set of places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(u32);

impl Places {
    pub(super) fn of(numbers: &[u32]) -> Self {
        Self(numbers.iter().fold(0, |all, number| all | 1 << number))
    }

    pub(super) fn own(list: usize) -> Self {
        Self(1 << list)
    }

    pub(super) fn contact(contact: u64) -> Self {
        Self(1 << (3 + contact))
    }

    pub(super) fn source(list: usize) -> Self {
        Self(1 << (6 + list))
    }

    pub(super) fn identity(contact: u64) -> Self {
        Self(1 << (9 + contact))
    }

    /// Whose a source is, and who that is.
    pub(super) fn identities(list: usize, contact: u64) -> Self {
        Self::source(list).and(Self::identity(contact))
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn numbers(self) -> impl Iterator<Item = u32> {
        (0..PLACES).filter(move |place| self.0 & 1 << place != 0)
    }

    pub(super) fn listed(self) -> Vec<u32> {
        self.numbers().collect()
    }
}

/// A kept answer.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) value: u64,
    pub(super) noted: Tick,
    /// What it was made from.
    pub(super) places: Places,
    /// By the replica's own clock, and in fact.
    pub(super) local: Micros,
    pub(super) real: u64,
    /// At which age it expires: it was fetched while more might follow.
    pub(super) expires: Option<u64>,
}

/// A fetch under way, and who waits for it.
pub(super) struct Flight {
    pub(super) id: u64,
    pub(super) noted: Tick,
    pub(super) waiters: Vec<usize>,
    /// Whose its source was known to be when it began.
    pub(super) before: Option<u64>,
    /// What it knew when it began, for the others.
    pub(super) knows: Option<Knows>,
    /// It has the turn.
    pub(super) token: Option<u64>,
    /// How often the tier was asked for it, and when first; none: not any more.
    pub(super) asks: Option<(u64, u64)>,
    pub(super) refused: Option<u64>,
    pub(super) refusals: u32,
}

/// What a fetch knows when it begins.
#[derive(Clone, Copy)]
pub(super) struct Knows {
    pub(super) stamp: Stamp,
    /// By the clock of Redis, in milliseconds.
    pub(super) began: u64,
    pub(super) clock: u64,
}

pub(super) struct Replica {
    pub(super) incarnation: u64,
    pub(super) alive: bool,
    pub(super) stopped_until: u64,
    pub(super) cut_until: u64,
    pub(super) slow: u64,
    pub(super) rate: f64,
    pub(super) member: Member,
    pub(super) pending: Pending,
    pub(super) ledger: Ledger,
    pub(super) known: Known,
    pub(super) time: FleetTime,
    /// The exchange under way, and when it was sent.
    pub(super) sent: (u64, Micros),
    /// The release that it is of.
    pub(super) release: u32,
    pub(super) lease: Micros,
    pub(super) knows_epoch: bool,
    pub(super) wake_at: u64,
    pub(super) store: [Option<Entry>; LISTS],
    pub(super) flights: BTreeMap<usize, Flight>,
    /// Readers without a lease, for the flight after the one under way.
    pub(super) after: BTreeMap<usize, Vec<usize>>,
    /// Readers who wait for a lease.
    pub(super) asking: Vec<usize>,
    /// Writes that are not acknowledged.
    pub(super) writes: Vec<(Ticket, usize)>,
    pub(super) appended: Ticket,
    /// Of each list: the last of its own writes that was acknowledged, told or not.
    pub(super) own: [u64; LISTS],
    /// Who is behind each source, as far as it knows, and which writes may change that.
    pub(super) beliefs: [Option<Belief>; LISTS],
    pub(super) moves: Moves,
    pub(super) elsewhere: Elsewhere,
    /// Writes that wait until the others know that they begin.
    pub(super) begins: Vec<(Ticket, usize)>,
}

impl Replica {
    pub(super) fn new(id: MemberId, rules: Rules, rate: f64, incarnation: u64) -> Self {
        Self {
            incarnation,
            alive: true,
            stopped_until: 0,
            cut_until: 0,
            slow: 0,
            rate,
            member: Member::new(id, rules),
            pending: Pending::default(),
            ledger: Ledger::new(PLACES as usize, [1, 2]),
            known: Known::new(PLACES as usize),
            time: FleetTime::default(),
            sent: (0, 0),
            release: 1,
            lease: 0,
            knows_epoch: false,
            wake_at: u64::MAX,
            store: [None; LISTS],
            flights: BTreeMap::new(),
            after: BTreeMap::new(),
            asking: Vec::new(),
            writes: Vec::new(),
            appended: Ticket::default(),
            own: [0; LISTS],
            beliefs: [None; LISTS],
            moves: Moves::default(),
            elsewhere: Elsewhere::default(),
            begins: Vec::new(),
        }
    }

    /// What its clock says.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn local(&self, now: u64) -> Micros {
        (now as f64 * self.rate) as Micros
    }

    pub(super) fn place(&self, number: u32) -> Place {
        self.ledger.place_of(number).expect("a place")
    }

    /// With these places as the ledger knows them.
    pub(super) fn with<T>(&self, places: Places, look: impl FnOnce(&[Place]) -> T) -> T {
        let (mut found, mut count) = ([self.place(0); PLACES as usize], 0);
        for number in places.numbers() {
            (found[count], count) = (self.place(number), count + 1);
        }
        look(&found[..count])
    }

    /// What other replicas may be about to merge.
    pub(super) fn moving_elsewhere(&self, local: Micros) -> Places {
        let numbers: Vec<u32> = self.elsewhere.places(Moment(local)).iter().map(|place| place.number()).collect();
        Places::of(&numbers)
    }

    /// Another replica tells of its merges.
    pub(super) fn hears_of_move(&mut self, seq: u64, item: &Item, local: Micros) {
        let known = |places: &[u32]| places.iter().map(|number| self.place(*number)).collect::<Vec<_>>();
        match item {
            Item::Moves { places, at_most, again } => {
                let until = Moment(local + Micros::from(*at_most) * 1000);
                let places = known(places);
                match again {
                    true => self.elsewhere.goes_on(places, Moment(local), until),
                    false => self.elsewhere.begins(places, seq, Moment(local), until),
                }
            }
            Item::Moved { places } => {
                let places = known(places);
                let began = self.elsewhere.ends(&places);
                self.moves.ended_elsewhere(&places, began);
            }
            Item::Places { .. } | Item::Everything { .. } | Item::Heard => {}
        }
    }

    pub(super) fn outdate(&self, places: Places) {
        for number in places.numbers() {
            self.ledger.invalidate(self.place(number));
        }
    }

    /// It may go on changing until then, by its own clock.
    pub(super) fn unsettle(&self, places: Places, until: Micros) {
        for number in places.numbers() {
            self.ledger.unsettle(self.place(number), Moment(until));
        }
    }

    pub(super) fn is_unsettled(&self, places: Places, at: Micros) -> bool {
        let Moment(until) = self.with(places, |places| self.ledger.unsettled_until(places));
        at < until
    }

    pub(super) fn is_current(&self, places: Places, noted: Tick) -> bool {
        self.with(places, |places| self.ledger.is_current(noted, places))
    }
}
