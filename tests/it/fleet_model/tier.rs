//! What replicas fetch for each other: what `ask.lua`, `land.lua` and `renew.lua` do, in Rust, and what `proxy/tier.rs` does,
//! by the same decisions.

use std::collections::BTreeMap;

use anteroom::policy::replicas::exchange::{Epoch, Micros};
use anteroom::policy::replicas::known::Stamp;

use super::Mutation;
use super::replica::{Entry, Knows, LISTS, Places};
use super::world::{Brought, Event, TTL, World};

const READ: u64 = 10_000;
const POLL: u64 = 4_000;
const FETCH_LEASE: u64 = 200_000;
const FETCH_WAIT: u64 = 400_000;
const REFUSALS: u32 = 3;

/// An answer in Redis.
#[derive(Clone, Copy)]
pub(super) struct Value {
    id: u64,
    stamp: Stamp,
    shows: u64,
    places: Places,
    began: u64,
    clock: u64,
    real: u64,
    expires: Option<u64>,
    /// Until when it lies there.
    until: u64,
    /// The release that it was written by: the other one cannot read it.
    release: u32,
}

/// A fetch under way, or one whose answer is for nobody else.
#[derive(Clone, Copy)]
struct Held {
    token: u64,
    stamp: Stamp,
    until: u64,
    own: bool,
}

/// What lies in Redis for all replicas.
#[derive(Clone, Default)]
pub(super) struct Tier {
    answers: BTreeMap<usize, Value>,
    fetches: BTreeMap<usize, Held>,
}

/// What is sent there.
#[derive(Clone)]
pub(super) enum Packet {
    Ask { list: usize, flight: u64, ask: u64, epoch: Epoch, least: u64, seq: u64, refused: Option<u64> },
    Renew { list: usize, token: u64 },
    Land { list: usize, stamp: Stamp, token: Option<u64>, value: Option<Value> },
}

/// What it says.
#[derive(Clone, Copy)]
pub(super) enum Said {
    Answer(Value),
    Held,
    Own,
    Granted,
    /// It takes no writes.
    Error,
}

impl Tier {
    fn ask(&mut self, now: u64, packet: &Packet, read_only: bool) -> Option<Said> {
        let Packet::Ask { list, flight, epoch, least, seq, refused, .. } = packet else { return None };
        if let Some(value) = self.answers.get(list).filter(|value| now < value.until)
            && value.stamp.epoch == *epoch
            && value.stamp.seq >= *least
            && Some(value.id) != *refused
        {
            return Some(Said::Answer(*value));
        }
        if let Some(held) = self.fetches.get(list).filter(|held| now < held.until)
            && held.stamp.epoch == *epoch
            && held.stamp.seq >= *least
            && (held.own || held.token != *flight)
        {
            return Some(if held.own { Said::Own } else { Said::Held });
        }
        if read_only {
            return Some(Said::Error);
        }
        let stamp = Stamp { epoch: *epoch, seq: *seq };
        self.fetches.insert(*list, Held { token: *flight, stamp, until: now + FETCH_LEASE, own: false });
        Some(Said::Granted)
    }

    fn obey(&mut self, now: u64, packet: &Packet) {
        match *packet {
            Packet::Ask { .. } => {}
            Packet::Renew { list, token } => {
                if let Some(held) = self.fetches.get_mut(&list).filter(|held| held.token == token && now < held.until) {
                    held.until = now + FETCH_LEASE;
                }
            }
            Packet::Land { list, stamp, token, value } => {
                if let Some(value) = value {
                    let there = self.answers.get(&list).filter(|there| now < there.until);
                    let newer =
                        there.is_some_and(|there| there.stamp.epoch == stamp.epoch && there.stamp.seq > stamp.seq);
                    if !newer {
                        self.answers.insert(list, value);
                    }
                }
                if let Some(held) = self.fetches.get_mut(&list).filter(|held| Some(held.token) == token) {
                    (held.own, held.until) = (value.is_none(), if value.is_some() { 0 } else { now + FETCH_LEASE });
                }
            }
        }
    }
}

impl World {
    /// The network, and the server behind it.
    fn packet(&mut self, at: usize, packet: Packet) {
        let arrives = self.now + self.hop() + self.slowness(at);
        let cut = self.replicas[at].cut_until;
        let arrives = if self.now < cut {
            if self.chance(50) {
                return;
            }
            cut.max(arrives)
        } else {
            arrives
        };
        self.at(arrives, Some(at), Event::Packet(packet));
    }

    pub(super) fn served(&mut self, at: usize, packet: Packet) {
        if self.now < self.down_until {
            return;
        }
        if self.now < self.stalled_until {
            return self.at(self.stalled_until, Some(at), Event::Packet(packet));
        }
        let (now, read_only) = (self.now, self.now < self.read_only_until);
        let Packet::Ask { list, flight, ask, .. } = packet else {
            if !read_only {
                self.redis.tier.obey(now, &packet);
            }
            return;
        };
        let said = self.redis.tier.ask(now, &packet, read_only).expect("it was asked");
        if self.now < self.replicas[at].cut_until && self.chance(60) {
            return;
        }
        let back = self.now + self.hop() + self.slowness(at);
        self.at(back.max(self.replicas[at].cut_until), Some(at), Event::Said(list, flight, ask, said));
    }

    /// Before a fetch.
    pub(super) fn seek(&mut self, at: usize, list: usize) {
        let may =
            self.is_leased(at) && !self.replicas[at].member.is_cut_off() || self.mutation == Mutation::AloneAdopts;
        let replica = &mut self.replicas[at];
        let stamp = replica.known.stamp().filter(|_| may);
        let blind = self.mutation == Mutation::AdoptBlind;
        let least = if blind { 0 } else { replica.known.least(Places::own(list).numbers()) };
        let flight = replica.flights.get_mut(&list).expect("it is under way");
        let (Some(Stamp { epoch, seq }), Some((ask, _))) = (stamp, &mut flight.asks) else {
            return self.fetch(at, list);
        };
        *ask += 1;
        let (flight, ask, refused) = (flight.id, *ask, flight.refused);
        self.after(at, READ, Event::SaidLimit(list, flight, ask));
        self.packet(at, Packet::Ask { list, flight, ask, epoch, least, seq, refused });
    }

    /// The flight that still waits for this.
    fn asks(&self, at: usize, list: usize, flight: u64, ask: u64) -> Option<u64> {
        let flight = self.replicas[at].flights.get(&list).filter(|under_way| under_way.id == flight)?;
        flight.asks.filter(|asks| asks.0 == ask).map(|(_, since)| since)
    }

    pub(super) fn said_limit(&mut self, at: usize, list: usize, flight: u64, ask: u64) {
        if self.asks(at, list, flight, ask).is_some() {
            self.fetch(at, list);
        }
    }

    pub(super) fn said(&mut self, at: usize, list: usize, flight: u64, ask: u64, said: Said) {
        let Some(since) = self.asks(at, list, flight, ask) else { return };
        // Another one may come: this ask is over.
        if let Some((ask, _)) = &mut self.replicas[at].flights.get_mut(&list).expect("it is under way").asks {
            *ask += 1;
        }
        match said {
            Said::Answer(value) => {
                if let Some(entry) = self.adopt(at, list, value) {
                    self.told.adopted += 1;
                    return self.brought(at, list, entry, Brought::Adopted);
                }
                self.told.refused += 1;
                let flight = self.replicas[at].flights.get_mut(&list).expect("it is under way");
                (flight.refused, flight.refusals) = (Some(value.id), flight.refusals + 1);
                if flight.refusals >= REFUSALS { self.fetch(at, list) } else { self.seek(at, list) }
            }
            Said::Held if self.now < since + FETCH_WAIT => {
                self.told.held += 1;
                let wait = self.until(POLL);
                self.after(at, wait, Event::Seek(list, flight));
            }
            Said::Granted => {
                let under_way = self.replicas[at].flights.get_mut(&list).expect("it is under way");
                under_way.token = Some(flight);
                self.fetch(at, list);
                self.after(at, FETCH_LEASE / 3, Event::Renew(list, flight));
            }
            Said::Held | Said::Own | Said::Error => self.fetch(at, list),
        }
    }

    pub(super) fn seeks(&mut self, at: usize, list: usize, flight: u64) {
        if self.replicas[at].flights.get(&list).is_some_and(|under_way| under_way.id == flight) {
            self.seek(at, list);
        }
    }

    pub(super) fn renew(&mut self, at: usize, list: usize, flight: u64) {
        if self.replicas[at].flights.get(&list).is_some_and(|under_way| under_way.id == flight) {
            self.packet(at, Packet::Renew { list, token: flight });
            self.after(at, FETCH_LEASE / 3, Event::Renew(list, flight));
        }
    }

    /// As `adopted` of `proxy/tier.rs`.
    fn adopt(&mut self, at: usize, list: usize, value: Value) -> Option<Entry> {
        let (mutation, local) = (self.mutation, self.replicas[at].local(self.now));
        let replica = &mut self.replicas[at];
        let noted = replica.ledger.now();
        let places = value.places;
        let is_untold = mutation != Mutation::UntoldAdopted && replica.pending.is_untold(&places.listed());
        let is_blind = mutation == Mutation::AdoptBlind;
        let is_refused = !is_blind && replica.known.refuses(value.stamp, places.numbers()).is_some();
        let is_readable = replica.release >= value.release;
        if is_untold
            || is_refused
            || !is_readable
            || replica.time.clock != value.clock && mutation != Mutation::AnyClock
        {
            return None;
        }
        let age = (replica.time.latest(local).saturating_sub(value.began)) * 1000;
        if age >= TTL.min(value.expires.unwrap_or(TTL)) {
            return None;
        }
        let expires = value.expires.filter(|_| mutation != Mutation::ExpiryNotShared);
        let entry =
            Entry { value: value.shows, noted, places, local: local.saturating_sub(age), real: value.real, expires };
        if replica.store[list].is_none_or(|kept| kept.noted <= noted) {
            replica.store[list] = Some(entry);
        }
        Some(entry)
    }

    /// What a fetch knows that begins now.
    pub(super) fn knows(&self, at: usize) -> Option<Knows> {
        let replica = &self.replicas[at];
        if !self.is_leased(at) {
            return None;
        }
        let local: Micros = replica.local(self.now);
        Some(Knows { stamp: replica.known.stamp()?, began: replica.time.earliest(local), clock: replica.time.clock })
    }

    /// After a fetch: for the others, and that it is over.
    pub(super) fn hand_on(
        &mut self,
        at: usize,
        list: usize,
        (entry, kept): (Entry, bool),
        (knows, token): (Option<Knows>, Option<u64>),
    ) {
        let knows = if self.mutation == Mutation::StampAtLanding { self.knows(at) } else { knows };
        let is_current = kept && self.replicas[at].is_current(entry.places, entry.noted);
        self.next += 1;
        let (id, release) = (self.next, self.replicas[at].release);
        let value = knows.filter(|_| is_current).map(|Knows { stamp, began, clock }| Value {
            id,
            stamp,
            shows: entry.value,
            places: entry.places,
            began,
            clock,
            real: entry.real,
            expires: entry.expires,
            until: entry.real + TTL.min(entry.expires.unwrap_or(TTL)),
            release,
        });
        let Some(stamp) = knows.map(|knows| knows.stamp).or_else(|| self.replicas[at].known.stamp()) else { return };
        if value.is_some() || token.is_some() {
            self.packet(at, Packet::Land { list, stamp, token, value });
        }
    }

    /// Whether another replica has the turn to fetch the same.
    pub(super) fn is_fetched_elsewhere(&self, at: usize, list: usize) -> bool {
        debug_assert!(list < LISTS);
        let fetches = |replica: &super::replica::Replica| {
            replica.alive && replica.flights.get(&list).is_some_and(|flight| flight.token.is_some())
        };
        self.replicas.iter().enumerate().any(|(other, replica)| other != at && fetches(replica))
    }
}
