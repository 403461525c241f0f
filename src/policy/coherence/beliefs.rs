//! Which contact is behind a source is a belief, and out of date as answers are: when it holds, what an answer teaches, and
//! which writes under way may change it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::ledger::{Ledger, Moment, Place, Tick};

/// What an answer has shown of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belief {
    /// The contact.
    pub contact: u64,
    /// The tick noted before the request that has shown it.
    pub noted: Tick,
    /// When that request began.
    pub began: Instant,
}

impl Belief {
    /// Whether nothing has changed it since it was shown, and it is no older than this. `identities` is where changes of it
    /// are written: of the source and of the contact.
    pub fn holds(&self, ledger: &Ledger, identities: &[Place], now: Instant, at_most: Duration) -> bool {
        ledger.is_current(self.noted, identities) && now.saturating_duration_since(self.began) <= at_most
    }
}

/// What follows when an answer shows whose a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lesson {
    /// Nothing: a change since it was asked for may have given the source to another one, or may do so yet.
    Nothing,
    /// The same; and what was believed is not known any more.
    Forget,
    /// It is believed.
    Believe,
    /// Another one was believed without a change that is known of: contacts were merged past the proxy. What was made for, or
    /// known of, the `older` one is out of date; whether the answer is believed.
    Merged {
        /// The contact that was shown by the request which began first.
        older: u64,
        /// Whether that is not the one just shown, and nothing may change it yet.
        believe: bool,
    },
}

/// What an answer teaches that shows this, where this was known, each with its identities. `is_settled`: nobody has said
/// that these may go on changing at the time when it was asked for.
pub fn learn(
    ledger: &Ledger,
    known: Option<(Belief, [Place; 2])>,
    (shown, identities): (Belief, [Place; 2]),
    is_settled: bool,
) -> Lesson {
    let holds = ledger.is_current(shown.noted, &identities);
    match known.filter(|(known, _)| known.contact != shown.contact) {
        Some(_) if !holds => Lesson::Forget,
        Some((known, places)) if ledger.is_current(known.noted, &places) => {
            let is_newer = known.began <= shown.began;
            let older = if is_newer { known.contact } else { shown.contact };
            Lesson::Merged { older, believe: is_newer && is_settled }
        }
        _ if holds && is_settled => Lesson::Believe,
        _ => Lesson::Nothing,
    }
}

/// Writes under way, and what of all this they may change.
#[derive(Debug, Default)]
pub struct Moves {
    last: u64,
    under_way: BTreeMap<u64, UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    /// The identities that it may change; none if it changes none.
    places: Vec<Place>,
    /// The contacts behind them when it began.
    contacts: Vec<u64>,
    /// Contacts that were merged by others while it was under way.
    merged: Vec<u64>,
    /// Whom it merges becomes somebody whom only its answer names.
    to_unknown: bool,
    /// What is made from whom it names.
    touches: Vec<Place>,
    /// What other replicas were told that it may change, and in which entry of the log.
    told: Vec<u32>,
    seq: Option<u64>,
    /// What this one may change is to be asked anew before it is sent: another replica's write came before that entry, may
    /// have changed the same, and has ended since this one began; or nobody knows whether one has.
    is_late: bool,
    /// What such writes may have changed that ended while this one was under way.
    beside: Vec<Place>,
}

impl Moves {
    /// A write begins that may change these identities, of these contacts. Gives its number.
    pub fn begins(&mut self, places: &[Place], contacts: &[u64]) -> u64 {
        self.last += 1;
        let write = UnderWay { places: places.to_vec(), contacts: contacts.to_vec(), ..UnderWay::default() };
        self.under_way.insert(self.last, write);
        self.last
    }

    /// Whether a write is under way that may change one of these identities.
    pub fn is_moving(&self, places: &[Place]) -> bool {
        self.under_way.values().any(|write| write.places.iter().any(|place| places.contains(place)))
    }

    /// What others may have made of the contacts of a write that is still under way: those that were merged meanwhile,
    /// and those that may be about to.
    pub fn moved_meanwhile(&self, write: u64) -> Vec<u64> {
        let others = self.under_way.iter().filter(|(number, _)| **number != write);
        let about_to = others.flat_map(|(_, other)| other.contacts.iter().copied());
        about_to.chain(self.under_way.get(&write).into_iter().flat_map(|own| own.merged.iter().copied())).collect()
    }

    /// The contacts that writes under way may be about to merge, or have merged already.
    pub fn contacts(&self) -> Vec<u64> {
        self.under_way.values().flat_map(|write| write.contacts.iter().copied()).collect()
    }

    /// The identities that writes under way may be about to change, or have changed already.
    pub fn places(&self) -> Vec<Place> {
        self.under_way.values().flat_map(|write| write.places.iter().copied()).collect()
    }

    /// Whom this write merges becomes somebody whom only its answer names.
    pub fn goes_to_unknown(&mut self, write: u64) {
        if let Some(under_way) = self.under_way.get_mut(&write) {
            under_way.to_unknown = true;
        }
    }

    /// The writes under way of that kind: a conversation may be in a list already that nobody can name.
    pub fn to_unknown(&self) -> Vec<u64> {
        self.under_way.iter().filter(|(_, write)| write.to_unknown).map(|(number, _)| *number).collect()
    }

    /// Whether one of these is still under way.
    pub fn is_under_way(&self, writes: &[u64]) -> bool {
        writes.iter().any(|write| self.under_way.contains_key(write))
    }

    /// A write may change what is made from these.
    pub fn touches(&mut self, write: u64, places: &[Place]) {
        if let Some(under_way) = self.under_way.get_mut(&write) {
            under_way.touches = places.to_vec();
        }
    }

    /// What the others under way may have changed already: what was just created belongs to whom they name.
    pub fn touched_by_others(&self, write: u64) -> Vec<Place> {
        let others = self.under_way.iter().filter(|(number, _)| **number != write);
        others.flat_map(|(_, other)| other.touches.iter().copied()).collect()
    }

    /// Other replicas are told that a write may change this.
    pub fn tells(&mut self, write: u64, places: &[u32]) {
        if let Some(under_way) = self.under_way.get_mut(&write) {
            under_way.told = places.to_vec();
        }
    }

    /// What was told so stands in this entry of the log.
    pub fn entered(&mut self, told: &[u32], seq: u64) {
        if let Some(write) = self.under_way.values_mut().find(|write| write.told == told) {
            write.seq = Some(seq);
        }
    }

    /// Whether it is not the turn of a write, which the others were told of: of those that may change the same another one
    /// comes before it in the log, or has ended since it was asked what this one may change.
    pub fn is_behind(&self, write: u64, elsewhere: &Elsewhere, now: Moment) -> bool {
        let Some(own) = self.under_way.get(&write) else { return false };
        own.is_late || own.seq.is_some_and(|seq| elsewhere.comes_before(Some(seq), &own.places, now))
    }

    /// A write of another replica has ended that may have changed this, and had begun in this entry of the log.
    pub fn ended_elsewhere(&mut self, places: &[Place], began: Option<u64>) {
        for write in self.under_way.values_mut() {
            let came_before = write.seq.is_none_or(|own| began.is_none_or(|began| began < own));
            write.is_late |= came_before && write.places.iter().any(|place| places.contains(place));
            if write.beside.len() < MOST_BESIDE {
                write.beside.extend_from_slice(places);
            }
        }
    }

    /// A part of the log was missed, or lost with all that was told before (`anew`): of other replicas' writes that may have
    /// changed the same nobody knows whether they have ended, and the entries of another log say nothing of who comes first.
    pub fn missed(&mut self, anew: bool) {
        for write in self.under_way.values_mut() {
            write.is_late = true;
            write.seq = write.seq.filter(|_| !anew);
        }
    }

    /// What other replicas' writes may have changed that ended while this one was under way.
    pub fn beside(&self, write: u64) -> Vec<Place> {
        self.under_way.get(&write).map(|write| write.beside.clone()).unwrap_or_default()
    }

    /// What other replicas were told of each write that is still under way.
    pub fn told(&self) -> Vec<Vec<u32>> {
        self.under_way.values().map(|write| write.told.clone()).filter(|told| !told.is_empty()).collect()
    }

    /// A write has ended. If it may have `merged` contacts, the others under way hear of it. Gives what other replicas were
    /// told that it may change.
    pub fn ends(&mut self, write: u64, merged: &[u64]) -> Vec<u32> {
        let ended = self.under_way.remove(&write).unwrap_or_default();
        for other in self.under_way.values_mut() {
            other.merged.extend_from_slice(merged);
        }
        ended.told
    }
}

/// About so many places of writes that ended meanwhile are remembered for one that is under way.
const MOST_BESIDE: usize = 1_000;
/// Writes under way in other replicas that are remembered at most; the oldest are forgotten first.
const MOST_ELSEWHERE: usize = 4_096;

/// The entry of a log that is gone: entries count from one.
const LOST: u64 = 0;

/// So many of those that were heard of last are remembered whether or not they have ended.
const RECENT: usize = 64;

/// Writes under way in other replicas that may change whose sources are.
#[derive(Debug, Default)]
pub struct Elsewhere {
    under_way: Vec<Move>,
    /// How many there were, and what the last ones may have changed.
    heard: u64,
    recent: VecDeque<Vec<Place>>,
}

#[derive(Debug)]
struct Move {
    /// Of those heard of, which: the same when it is told again.
    number: u64,
    places: Vec<Place>,
    /// The entry of the log that tells of it; [`LOST`] if that is gone.
    seq: u64,
    /// Until when it is believed to be under way if nobody tells of its end.
    until: Moment,
}

impl Elsewhere {
    /// One goes on that was told in a log which is gone: it comes before all that this one tells, and is known once.
    pub fn goes_on(&mut self, places: Vec<Place>, now: Moment, until: Moment) {
        let known = self.under_way.iter().position(|other| other.seq == LOST && other.places == places);
        let known = known.map(|at| self.under_way.remove(at).number);
        self.add(known, places, LOST, now, until);
    }

    /// One begins.
    pub fn begins(&mut self, places: Vec<Place>, seq: u64, now: Moment, until: Moment) {
        self.add(None, places, seq, now, until);
    }

    fn add(&mut self, known: Option<u64>, places: Vec<Place>, seq: u64, now: Moment, until: Moment) {
        self.under_way.retain(|other| other.until > now);
        if self.under_way.len() >= MOST_ELSEWHERE {
            self.under_way.remove(0);
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(places.clone());
        self.heard += 1;
        self.under_way.push(Move { number: known.unwrap_or(self.heard), places, seq, until });
    }

    /// The log begins anew. Those of the old one may be under way, or their end may be lost with it: they come before all that
    /// the new one tells.
    pub fn begin_anew(&mut self) {
        for other in &mut self.under_way {
            other.seq = LOST;
        }
    }

    /// How many have been heard of.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// What those may have changed that were heard of since there were so many. Whoever wrote meanwhile without a lease did
    /// not know of them, though they came before it in the log.
    pub fn heard_since(&self, heard: u64) -> Vec<Place> {
        let new = usize::try_from(self.heard.saturating_sub(heard)).unwrap_or(usize::MAX);
        self.recent.iter().rev().take(new).flatten().copied().collect()
    }

    /// One that had these places has ended: gives the entry of the log in which it had begun.
    pub fn ends(&mut self, places: &[Place]) -> Option<u64> {
        let at = self.under_way.iter().position(|other| other.places == places)?;
        Some(self.under_way.remove(at).seq)
    }

    /// Whether one is under way that may change one of these.
    pub fn is_moving(&self, places: &[Place], now: Moment) -> bool {
        self.comes_before(None, places, now)
    }

    /// The same of those that come before this entry of the log: it is their turn.
    fn comes_before(&self, seq: Option<u64>, places: &[Place], now: Moment) -> bool {
        let earlier = |other: &&Move| seq.is_none_or(|seq| other.seq < seq);
        self.under_way(now).filter(earlier).any(|other| other.places.iter().any(|place| places.contains(place)))
    }

    /// All that those under way may change.
    pub fn places(&self, now: Moment) -> Vec<Place> {
        self.under_way(now).flat_map(|other| other.places.iter().copied()).collect()
    }

    /// The numbers of those under way.
    pub fn numbers(&self, now: Moment) -> Vec<u64> {
        self.under_way(now).map(|other| other.number).collect()
    }

    fn under_way(&self, now: Moment) -> impl Iterator<Item = &Move> {
        self.under_way.iter().filter(move |other| other.until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> (Ledger, [Place; 4]) {
        let ledger = Ledger::new(8, [1, 2]);
        let places = [0, 1, 2, 3].map(|number| ledger.place_of(number).expect("a place"));
        (ledger, places)
    }

    #[test]
    fn an_answer_teaches_what_nothing_has_changed_since() {
        let (ledger, [source, one, two, _]) = ledger();
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let began = [0, 1, 2].map(|seconds| start + Duration::from_secs(seconds));
        let belief = |contact, at: usize| Belief { contact, noted: ledger.now(), began: began[at] };
        let first = (belief(1, 0), [source, one]);
        assert_eq!(learn(&ledger, None, first, true), Lesson::Believe);
        assert_eq!(learn(&ledger, None, first, false), Lesson::Nothing);
        // Another one without a change that is known of: whichever was asked for first is the older.
        let later = (belief(2, 1), [source, two]);
        assert_eq!(learn(&ledger, Some(first), later, true), Lesson::Merged { older: 1, believe: true });
        assert_eq!(learn(&ledger, Some(later), first, true), Lesson::Merged { older: 1, believe: false });
        ledger.invalidate(one);
        assert_eq!(learn(&ledger, Some(first), later, true), Lesson::Believe, "that is known of");
        assert_eq!(learn(&ledger, Some(later), first, true), Lesson::Forget);
        assert!(!first.0.holds(&ledger, &first.1, began[1], Duration::from_secs(9)));
        assert!(later.0.holds(&ledger, &later.1, began[2], Duration::from_secs(1)));
        assert!(!later.0.holds(&ledger, &later.1, began[2], Duration::from_millis(999)), "it is too old");
    }

    #[test]
    fn who_comes_later_in_the_log_waits_for_who_comes_before() {
        let (_, [a, b, c, _]) = ledger();
        let (mut moves, mut elsewhere, now) = (Moves::default(), Elsewhere::default(), Moment(10));
        let own = moves.begins(&[a], &[7]);
        moves.tells(own, &[0]);
        elsewhere.begins(vec![a, b], 5, now, Moment(20));
        assert!(!moves.is_behind(own, &elsewhere, now), "the log says nothing of this one yet");
        moves.entered(&[0], 4);
        assert!(!moves.is_behind(own, &elsewhere, now), "the other one comes later");
        let second = moves.begins(&[b], &[8]);
        moves.tells(second, &[1]);
        moves.entered(&[1], 6);
        assert!(moves.is_behind(second, &elsewhere, now) && !moves.is_behind(second, &elsewhere, Moment(20)));
        assert!(elsewhere.is_moving(&[b, c], now) && !elsewhere.is_moving(&[c], now));
        // It has ended since the contacts were asked for.
        let began = elsewhere.ends(&[a, b]);
        moves.ended_elsewhere(&[a, b], began);
        assert!(moves.is_behind(second, &elsewhere, now) && !moves.is_behind(own, &elsewhere, now));
        assert_eq!((moves.beside(own), elsewhere.places(now)), (vec![a, b], vec![]));
        assert_eq!((moves.ends(second, &[]), moves.told()), (vec![1], vec![vec![0]]));
        assert_eq!((elsewhere.heard(), elsewhere.heard_since(0), elsewhere.heard_since(1)), (1, vec![a, b], vec![]));
        for seq in 0..10_000 {
            elsewhere.begins(vec![c], seq, now, Moment(20));
        }
        assert_eq!(elsewhere.places(now).len(), MOST_ELSEWHERE);
    }

    #[test]
    fn in_a_new_log_nobody_takes_the_order_of_the_old_one_for_his_turn() {
        let (_, [a, b, c, _]) = ledger();
        let (mut moves, mut elsewhere, now) = (Moves::default(), Elsewhere::default(), Moment(10));
        let own = moves.begins(&[a], &[7]);
        moves.tells(own, &[0]);
        moves.entered(&[0], 21);
        elsewhere.begins(vec![a, b], 20, now, Moment(20));
        elsewhere.begins(vec![a, c], 22, now, Moment(20));
        moves.missed(false);
        assert!(moves.is_behind(own, &elsewhere, Moment(20)), "others may have come and gone");
        moves.ends(own, &[]);
        let again = moves.begins(&[a], &[7]);
        moves.tells(again, &[0]);
        // All of it is lost, perhaps with the end of the other two.
        elsewhere.begin_anew();
        moves.missed(true);
        moves.entered(&[0], 1);
        assert!(moves.is_behind(again, &elsewhere, now));
        moves.ends(again, &[]);
        let third = moves.begins(&[a], &[7]);
        moves.tells(third, &[0]);
        moves.entered(&[0], 2);
        assert!(moves.is_behind(third, &elsewhere, now), "nobody has told of their ends");
        let numbers = elsewhere.numbers(now);
        // One goes on; of the other nothing is heard any more.
        elsewhere.goes_on(vec![a, b], now, Moment(30));
        assert!(moves.is_behind(third, &elsewhere, Moment(20)) && !moves.is_behind(third, &elsewhere, Moment(30)));
        assert_eq!(elsewhere.numbers(now), [numbers[1], numbers[0]], "whoever waits for it goes on waiting");
        elsewhere.ends(&[a, b]);
        assert_eq!(elsewhere.places(now), [a, c], "it is known once");
    }
}
