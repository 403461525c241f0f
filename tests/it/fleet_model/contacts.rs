//! Who is behind which source, and what is known of that: as `proxy/guard.rs`, `proxy/made_from.rs` and `proxy/write.rs` do,
//! by the same decisions.

use std::time::{Duration, Instant};

use anteroom::policy::coherence::beliefs::{self, Belief, Lesson};
use anteroom::policy::coherence::ledger::{Moment, Place, Tick};
use anteroom::policy::replicas::exchange::Micros;
use anteroom::policy::replicas::pending::Ticket;
use anteroom::policy::replicas::wire::Item;

use super::Mutation;
use super::replica::{CONTACTS, LISTS, NAMELESS, Places};
use super::world::{Event, Landing, TELL, TTL, World, Write};

/// For how long others know that contacts may be merged, in milliseconds.
const MOVING: u32 = 1_500;
/// How long a write waits for another one that may merge the same.
const TURN: Micros = 1_300_000;

/// What the upstream has.
pub(super) struct Contacts {
    /// Contacts are merged.
    pub(super) merge: bool,
    pub(super) behind: [u64; LISTS],
    /// Whether a list names whose it is: an empty one does not.
    pub(super) named: [bool; LISTS],
    /// Of some merge others could not be told.
    pub(super) untold: bool,
}

impl Default for Contacts {
    fn default() -> Self {
        Self { merge: false, behind: [0, 0, 1], named: [true; LISTS], untold: false }
    }
}

impl Contacts {
    pub(super) fn shown(&self, list: usize) -> Option<u64> {
        Some(self.behind[list]).filter(|_| self.named[list])
    }
}

/// What a list shows.
#[derive(Clone, Copy)]
pub(super) struct Shows {
    pub(super) value: u64,
    pub(super) contact: Option<u64>,
}

/// Somebody asks whose a source is.
pub(super) struct LookUp {
    list: usize,
    noted: Tick,
    began: Micros,
    why: Why,
    found: Option<u64>,
}

enum Why {
    /// A list that names nobody was fetched.
    Landed(Landing),
    /// A write may merge it.
    Begin(usize),
    /// A write was about it.
    Wrote(usize),
}

impl World {
    // The upstream.

    /// What a write changes, at the time when it does.
    pub(super) fn changed_by(&mut self, write: usize) -> Vec<usize> {
        let (list, moves, reaches) = (self.writes[write].list, self.writes[write].moves, self.writes[write].reaches);
        let contact = self.contacts.behind[list];
        let mut concerns = vec![contact];
        if moves {
            let other = (contact + 1 + self.until(CONTACTS - 2)) % CONTACTS;
            concerns.push(other);
            for of in &mut self.contacts.behind {
                if *of == contact {
                    *of = other;
                }
            }
        } else if self.contacts.merge && self.chance(15) {
            self.contacts.named[list] = true;
        }
        if self.contacts.merge {
            self.writes[write].is_clear = !moves || self.chance(85);
            let names = self.writes[write].is_clear && self.chance(60);
            self.writes[write].names = Some(self.contacts.behind[list]).filter(|_| names);
        } else {
            self.writes[write].names = Some(contact);
        }
        let behind = self.contacts.behind;
        let is_changed = |other: &usize| *other == list || reaches && concerns.contains(&behind[*other]);
        let lists: Vec<usize> = (0..LISTS).filter(is_changed).collect();
        self.writes[write].lists.clone_from(&lists);
        lists
    }

    pub(super) fn looked_at(&mut self, id: u64) {
        let behind = self.contacts.behind;
        if let Some(look_up) = self.look_ups.get_mut(&id) {
            look_up.found = Some(behind[look_up.list]);
        }
    }

    // A replica.

    fn look_up(&mut self, at: usize, list: usize, why: Why) {
        self.next += 1;
        let id = self.next;
        let (noted, began) = (self.replicas[at].ledger.now(), self.replicas[at].local(self.now));
        self.look_ups.insert(id, LookUp { list, noted, began, why, found: None });
        let took = 300 + self.until(8_000);
        let answered = self.now + self.until(took);
        self.at(answered, None, Event::LookedAt(id));
        self.at(self.now + took, Some(at), Event::LookedUp(id));
    }

    pub(super) fn looked_up(&mut self, at: usize, id: u64) {
        let LookUp { list, noted, began, why, found } = self.look_ups.remove(&id).expect("it was asked");
        let contact = found.expect("it was answered");
        if matches!(why, Why::Landed(_)) && self.chance(10) {
            // The upstream did not say.
            let Why::Landed(landing) = why else { unreachable!() };
            return self.admitted(at, landing, None);
        }
        self.learn(at, list, (contact, noted, began));
        match why {
            Why::Landed(landing) => self.owned(at, landing, contact),
            Why::Begin(write) => self.may_begin(at, write, contact, noted),
            Why::Wrote(write) => self.asked_for(at, write, contact),
        }
    }

    fn instant(&self, at: Micros) -> Instant {
        self.since + Duration::from_micros(at)
    }

    fn identities(&self, at: usize, list: usize, contact: u64) -> [Place; 2] {
        [Places::source(list), Places::identity(contact)].map(|place| self.replicas[at].with(place, |places| places[0]))
    }

    /// As `believed` of `state/invalidation.rs`.
    fn believed(&self, at: usize, list: usize) -> Option<u64> {
        let replica = &self.replicas[at];
        let belief = replica.beliefs[list].filter(|_| self.is_leased(at))?;
        if self.mutation == Mutation::BelievedForEver {
            return Some(belief.contact);
        }
        let places = self.identities(at, list, belief.contact);
        let is_moving = (replica.moves.is_moving(&places) || self.is_moving_elsewhere(at, &places))
            && self.mutation != Mutation::MovesIgnored;
        let now = self.instant(replica.local(self.now));
        let holds = belief.holds(&replica.ledger, &places, now, Duration::from_micros(TTL)) && !is_moving;
        holds.then_some(belief.contact)
    }

    fn is_moving_elsewhere(&self, at: usize, places: &[Place]) -> bool {
        let replica = &self.replicas[at];
        replica.elsewhere.is_moving(places, Moment(replica.local(self.now)))
    }

    /// As `learn` there.
    fn learn(&mut self, at: usize, list: usize, (contact, noted, began): (u64, Tick, Micros)) {
        let with_places = |belief: Belief| (belief, self.identities(at, list, belief.contact));
        let known = self.replicas[at].beliefs[list].map(with_places);
        let shown = with_places(Belief { contact, noted, began: self.instant(began) });
        let ledger = &self.replicas[at].ledger;
        let is_settled = ledger.unsettled_until(&shown.1) <= Moment(began)
            && (!self.is_moving_elsewhere(at, &shown.1) || self.mutation == Mutation::MovesIgnored);
        match beliefs::learn(ledger, known, shown, is_settled) {
            Lesson::Nothing => {}
            Lesson::Forget => self.replicas[at].beliefs[list] = None,
            Lesson::Believe => self.replicas[at].beliefs[list] = Some(shown.0),
            Lesson::Merged { older, believe } => {
                self.changed(at, Places::contact(older).and(Places::identity(older)), 0);
                if believe {
                    self.replicas[at].beliefs[list] = Some(shown.0);
                }
                self.drive(at);
            }
        }
    }

    /// As `made_from` of `proxy/made_from.rs`.
    pub(super) fn made_from(&mut self, at: usize, mut landing: Landing, contact: Option<u64>) {
        let list = landing.list;
        landing.before[1] = self.replicas[at].beliefs[list].map(|belief| belief.contact);
        if let Some(contact) = contact {
            if self.contacts.merge {
                self.learn(at, list, (contact, landing.noted, landing.local));
            }
            return self.admitted(at, landing, Some(Places::own(list).and(Places::contact(contact))));
        }
        match self.believed(at, list) {
            Some(contact) => self.owned(at, landing, contact),
            None => self.look_up(at, list, Why::Landed(landing)),
        }
    }

    /// As `own_up` there.
    fn owned(&mut self, at: usize, landing: Landing, contact: u64) {
        let list = landing.list;
        if self.mutation == Mutation::NamelessOfNobody {
            return self.admitted(at, landing, Some(Places::own(list)));
        }
        let mut places =
            Places::own(list).and(Places::contact(contact)).and(Places::identities(list, contact)).and(NAMELESS);
        for before in landing.before.into_iter().flatten() {
            places = places.and(Places::contact(before)).and(Places::identity(before));
        }
        for moving in self.replicas[at].moves.contacts() {
            places = places.and(Places::contact(moving));
        }
        let replica = &self.replicas[at];
        let elsewhere = replica.moving_elsewhere(replica.local(self.now));
        self.admitted(at, landing, Some(places.and(elsewhere)));
    }

    // Writes: as `begin` of `proxy/guard.rs`.

    pub(super) fn begin(&mut self, at: usize, write: usize) {
        let (list, moves) = (self.writes[write].list, self.writes[write].moves);
        let replica = &mut self.replicas[at];
        if !moves {
            self.writes[write].number = replica.moves.begins(&[], &[]);
            self.writes[write].contacts.extend(replica.beliefs[list].map(|belief| belief.contact));
            return self.sends(at, write);
        }
        if self.writes[write].began == 0 {
            self.writes[write].began = replica.local(self.now);
        }
        let noted = replica.ledger.now();
        match self.believed(at, list) {
            Some(contact) => self.may_begin(at, write, contact, noted),
            None => self.look_up(at, list, Why::Begin(write)),
        }
    }

    fn may_begin(&mut self, at: usize, write: usize, contact: u64, noted: Tick) {
        let (list, since) = (self.writes[write].list, self.writes[write].began);
        let identities = Places::identities(list, contact);
        let places = self.identities(at, list, contact);
        let in_turn = self.replicas[at].local(self.now) < since + TURN;
        let replica = &mut self.replicas[at];
        let now = Moment(replica.local(self.now));
        let is_taken = (replica.moves.is_moving(&places) || replica.elsewhere.is_moving(&places, now))
            && self.mutation != Mutation::MovesIgnored;
        if in_turn && (is_taken || !replica.ledger.is_current(noted, &places)) {
            let again = if is_taken { 500 + self.until(2_000) } else { 1 };
            return self.after(at, again, Event::Begin(write));
        }
        // Between the two nobody could say whose it was.
        self.contacts.untold |= is_taken && self.mutation != Mutation::MovesIgnored;
        let number = replica.moves.begins(&places, &[contact]);
        let shown = replica.beliefs[list].map(|belief| belief.contact);
        let own = &mut self.writes[write];
        (own.number, own.identities) = (number, identities);
        own.contacts.extend([contact].into_iter().chain(shown));
        if self.mutation == Mutation::MoveNotTold {
            return self.sends(at, write);
        }
        self.changed(at, identities, 0);
        let places = identities.and(Places::contact(contact)).listed();
        self.replicas[at].moves.tells(number, &places);
        let told = self.replicas[at].pending.push(Item::Moves { places, at_most: MOVING, again: false });
        self.replicas[at].begins.push((told, write));
        self.after(at, TELL, Event::BeginLimit(write));
        self.drive(at);
    }

    /// The others know that it begins.
    pub(super) fn begun(&mut self, at: usize, ticket: Ticket) {
        let begins = &mut self.replicas[at].begins;
        let due: Vec<usize> = begins.iter().filter(|(of, _)| *of <= ticket).map(|(_, write)| *write).collect();
        begins.retain(|(of, _)| *of > ticket);
        for write in due {
            if self.is_behind(at, write) {
                self.withdraws(at, write);
            } else {
                self.sends(at, write);
            }
        }
    }

    /// Whether another replica's merge of the same comes before this one.
    fn is_behind(&self, at: usize, write: usize) -> bool {
        let Write { number, began, .. } = self.writes[write];
        let (replica, local) = (&self.replicas[at], self.replicas[at].local(self.now));
        let is_behind = replica.moves.is_behind(number, &replica.elsewhere, Moment(local));
        local < began + TURN && self.mutation != Mutation::NoTurns && is_behind
    }

    /// It begins anew when the other one has ended.
    fn withdraws(&mut self, at: usize, write: usize) {
        self.ends(at, write, &[]);
        self.writes[write].contacts.clear();
        let again = 500 + self.until(2_000);
        self.after(at, again, Event::Begin(write));
        self.drive(at);
    }

    fn ends(&mut self, at: usize, write: usize, merged: &[u64]) {
        let (number, replica) = (self.writes[write].number, &mut self.replicas[at]);
        let told = replica.moves.ends(number, merged);
        if !told.is_empty() {
            replica.pending.push(Item::Moved { places: told });
        }
    }

    /// It could not be told: it begins all the same.
    pub(super) fn begin_limit(&mut self, at: usize, write: usize) {
        let begins = &mut self.replicas[at].begins;
        if let Some(place) = begins.iter().position(|(_, of)| *of == write) {
            begins.remove(place);
            self.contacts.untold = true;
            self.sends(at, write);
        }
    }

    /// As `attribute` of `proxy/write.rs`.
    pub(super) fn answered(&mut self, at: usize, write: usize) {
        let list = self.writes[write].list;
        if !self.contacts.merge {
            return self.finish(at, write);
        }
        if let Some(contact) = self.writes[write].names {
            self.writes[write].contacts.push(contact);
            if !self.writes[write].moves {
                let (noted, began) = (self.writes[write].noted.expect("it was sent"), self.writes[write].began);
                self.learn(at, list, (contact, noted, began));
            }
            return self.finish(at, write);
        }
        match self.believed(at, list) {
            Some(contact) => self.asked_for(at, write, contact),
            None => self.look_up(at, list, Why::Wrote(write)),
        }
    }

    /// As `asked` of `proxy/guard.rs`.
    fn asked_for(&mut self, at: usize, write: usize, contact: u64) {
        let number = self.writes[write].number;
        self.writes[write].contacts.push(contact);
        let meanwhile = self.replicas[at].moves.moved_meanwhile(number);
        self.writes[write].contacts.extend(meanwhile);
        self.finish(at, write);
    }

    /// As `finish` there.
    fn finish(&mut self, at: usize, write: usize) {
        let (list, moves, number) = (self.writes[write].list, self.writes[write].moves, self.writes[write].number);
        if !self.contacts.merge {
            let contact = self.writes[write].names.expect("it names it");
            let reaches = self.writes[write].reaches;
            let shared = if reaches { Places::contact(contact) } else { Places::default() };
            self.replicas[at].moves.ends(number, &[]);
            return self.outdates(at, write, Places::own(list).and(shared), Places::default());
        }
        if moves {
            let meanwhile = self.replicas[at].moves.moved_meanwhile(number);
            self.writes[write].contacts.extend(meanwhile);
        }
        // Whoever is being merged may be the one whom it was about.
        let under_way = self.replicas[at].moves.contacts();
        let places = self.replicas[at].moves.places();
        let reached = under_way.into_iter().fold(Places::default(), |all, contact| all.and(Places::contact(contact)));
        let numbers: Vec<u32> = places.iter().map(|place| place.number()).collect();
        let replica = &self.replicas[at];
        let beside: Vec<u32> = replica.moves.beside(number).iter().map(|place| place.number()).collect();
        let elsewhere = replica.moving_elsewhere(replica.local(self.now)).and(Places::of(&beside));
        let elsewhere = if self.mutation == Mutation::MovesIgnored { Places::default() } else { elsewhere };
        self.changed(at, reached.and(Places::of(&numbers)).and(elsewhere), 0);
        let contacts = self.writes[write].contacts.clone();
        let places = contacts.iter().fold(Places::own(list), |all, contact| all.and(Places::contact(*contact)));
        let mut of_whom = Places::default();
        if moves {
            let identities = self.writes[write].identities;
            of_whom = contacts.iter().fold(identities, |all, contact| all.and(Places::identity(*contact)));
        }
        if let Some(contact) = self.writes[write].names {
            let began = self.writes[write].noted.expect("it was sent");
            self.writes[write].undisturbed = self.replicas[at].is_current(Places::identities(list, contact), began);
        }
        self.outdates(at, write, places, of_whom);
    }

    /// The log has lost what was told of those under way.
    pub(super) fn tell_moves_again(&mut self, at: usize) {
        for places in self.replicas[at].moves.told() {
            let again = self.mutation != Mutation::GoesOnAsNew;
            self.replicas[at].pending.push(Item::Moves { places, at_most: MOVING, again });
        }
    }

    /// The end of it: what it has shown is believed, and the others hear what it may have merged.
    pub(super) fn moved(&mut self, at: usize, write: usize) {
        let list = self.writes[write].list;
        if !self.contacts.merge {
            return;
        }
        let began = self.instant(self.replicas[at].local(self.now));
        let (moves, names, mut contacts) =
            (self.writes[write].moves, self.writes[write].names, self.writes[write].contacts.clone());
        if let Some(contact) = names.filter(|_| moves && self.writes[write].undisturbed) {
            let noted = self.replicas[at].ledger.now();
            self.replicas[at].beliefs[list] = Some(Belief { contact, noted, began });
        }
        contacts.sort_unstable();
        contacts.dedup();
        let merged = if moves && contacts.len() > 1 { contacts } else { Vec::new() };
        self.ends(at, write, &merged);
    }
}
