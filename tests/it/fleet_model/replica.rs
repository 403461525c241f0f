//! One replica: the member and the ledger as the program has them, and around them a cache of three lists.

use std::collections::BTreeMap;

use anteroom::policy::coherence::ledger::{Ledger, Moment, Place, Tick};
use anteroom::policy::replicas::exchange::{MemberId, Micros};
use anteroom::policy::replicas::known::{FleetTime, Known, Stamp};
use anteroom::policy::replicas::member::{Member, Rules};
use anteroom::policy::replicas::pending::{Pending, Ticket};

/// Places that lists are made of: their own, and two contacts that lists share.
pub(super) const PLACES: u32 = 5;
pub(super) const LISTS: usize = 3;

/// What a list is made from.
pub(super) fn places_of(list: usize) -> [u32; 2] {
    [[0, 3], [1, 3], [2, 4]][list]
}

/// A kept answer.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) value: u64,
    pub(super) noted: Tick,
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

    pub(super) fn outdate(&self, places: &[u32]) {
        for place in places {
            self.ledger.invalidate(self.place(*place));
        }
    }

    /// It may go on changing until then, by its own clock.
    pub(super) fn unsettle(&self, places: &[u32], until: Micros) {
        for place in places {
            self.ledger.unsettle(self.place(*place), Moment(until));
        }
    }

    pub(super) fn is_unsettled(&self, list: usize, at: Micros) -> bool {
        let Moment(until) = self.ledger.unsettled_until(&places_of(list).map(|place| self.place(place)));
        at < until
    }

    pub(super) fn is_current(&self, list: usize, noted: Tick) -> bool {
        self.ledger.is_current(noted, &places_of(list).map(|place| self.place(place)))
    }
}
