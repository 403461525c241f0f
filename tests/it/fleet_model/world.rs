//! The world of a schedule: replicas, clients, faults, and what is checked of every read.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Instant;

use anteroom::engine::clock;
use anteroom::policy::coherence::ledger::Tick;
use anteroom::policy::replicas::exchange::{self, Hint, Micros, Reply, Request};
use anteroom::policy::replicas::known::FleetTime;
use anteroom::policy::replicas::member::{Action, By, History, Lost, Rules};
use anteroom::policy::replicas::pending::Ticket;
use anteroom::policy::replicas::wire::{Item, decode, encode};

use super::Mutation;
use super::contacts::{Contacts, LookUp, Shows};
use super::redis::{LOG, Redis};
use super::replica::{CONTACTS, Entry, Flight, LISTS, PLACES, Places, Replica};
use super::tier::{Packet, Said};

const LEASE: u64 = 100_000;
pub(super) const TTL: u64 = 600_000;
/// For so long after a write something may follow it that nobody tells of, in milliseconds.
pub(super) const SETTLE: u32 = 150;
/// At which age an answer expires that was fetched meanwhile.
const EXPIRY: u64 = 60_000;
const END: u64 = 1_500_000;
/// Until then everything has ended.
const LAST: u64 = END + 4_000_000;
pub(super) const TELL: u64 = 200_000;
const ANSWER: u64 = 40_000;
const ASK: u64 = 20_000;
const ALONE_TTL: u64 = 80_000;
const KINDS: u32 = 20;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) reads: u64,
    pub(super) hits: u64,
    pub(super) alone: u64,
    pub(super) fetches: u64,
    pub(super) settled: u64,
    pub(super) timer: u64,
    pub(super) untold: u64,
    pub(super) epochs: u64,
    pub(super) gaps: u64,
    pub(super) left_out: u64,
    pub(super) stale: u64,
    pub(super) own: u64,
    pub(super) old: u64,
    pub(super) parked: u64,
    pub(super) flights_at_once: u64,
    pub(super) adopted: u64,
    pub(super) refused: u64,
    pub(super) held: u64,
    pub(super) doubled: u64,
    pub(super) late: u64,
    pub(super) followed: u64,
    pub(super) excused: u64,
}

impl Told {
    pub(super) fn is_bad(&self) -> bool {
        self.stale + self.own + self.old + self.parked + self.late > 0 || self.flights_at_once > 2
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (all, one) in [
            (&mut self.reads, other.reads),
            (&mut self.hits, other.hits),
            (&mut self.alone, other.alone),
            (&mut self.fetches, other.fetches),
            (&mut self.settled, other.settled),
            (&mut self.timer, other.timer),
            (&mut self.untold, other.untold),
            (&mut self.epochs, other.epochs),
            (&mut self.gaps, other.gaps),
            (&mut self.left_out, other.left_out),
            (&mut self.stale, other.stale),
            (&mut self.own, other.own),
            (&mut self.old, other.old),
            (&mut self.parked, other.parked),
            (&mut self.adopted, other.adopted),
            (&mut self.refused, other.refused),
            (&mut self.held, other.held),
            (&mut self.doubled, other.doubled),
            (&mut self.late, other.late),
            (&mut self.followed, other.followed),
            (&mut self.excused, other.excused),
        ] {
            *all += one;
        }
        self.flights_at_once = self.flights_at_once.max(other.flights_at_once);
    }
}

struct Read {
    list: usize,
    replica: usize,
    incarnation: u64,
    begun: u64,
    /// What was acknowledged as told before it began, and by its own replica.
    needs: u64,
    needs_own: u64,
    arrived: Option<Tick>,
    leased: bool,
    again: bool,
    done: bool,
}

/// A fetched answer.
#[derive(Clone, Copy)]
pub(super) struct Landing {
    pub(super) list: usize,
    flight: u64,
    value: u64,
    pub(super) noted: Tick,
    pub(super) local: Micros,
    real: u64,
    /// Whose its source was known to be when it was asked for, and when it came.
    pub(super) before: [Option<u64>; 2],
}

/// Where an answer is from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Brought {
    /// The upstream.
    Fetched,
    /// The upstream, and only those may have it who came before it was asked.
    NotKept,
    /// Another replica.
    Adopted,
}

/// What followed a write, and nobody told of.
struct Followed {
    list: usize,
    value: u64,
    when: u64,
    write: usize,
    /// When the write was answered.
    answered: u64,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Write {
    pub(super) list: usize,
    /// It may change whose the source is.
    pub(super) moves: bool,
    /// It changes what all lists of its contact show.
    pub(super) reaches: bool,
    /// When it was acknowledged as told.
    pub(super) told: Option<u64>,
    /// The lists that it has changed.
    pub(super) lists: Vec<usize>,
    pub(super) value: u64,
    pub(super) replica: usize,
    pub(super) incarnation: u64,
    pub(super) done: bool,
    /// The contact that its answer shows; whether the answer says what was done.
    pub(super) names: Option<u64>,
    pub(super) is_clear: bool,
    /// What its replica knows of it: whom it concerns, which identities it may change, its number among those under way.
    pub(super) contacts: Vec<u64>,
    pub(super) identities: Places,
    pub(super) number: u64,
    /// Nobody else has changed since whose its source is.
    pub(super) undisturbed: bool,
    /// What was noted before it was sent, and when.
    pub(super) noted: Option<Tick>,
    pub(super) began: Micros,
    /// How many merges in other replicas were known when it began.
    pub(super) heard: u64,
}

pub(super) enum Event {
    Packet(Packet),
    Said(usize, u64, u64, Said),
    SaidLimit(usize, u64, u64),
    Seek(usize, u64),
    Renew(usize, u64),
    /// What follows a write, and nobody tells of.
    Follows(usize, u64),
    Wake,
    Arrive(Request),
    Reply(u64, Box<Reply>),
    NoReply(u64),
    Hint(Hint),
    Client,
    Fault,
    Read(usize),
    AskLimit(usize),
    Commit(usize),
    Answered(usize),
    TellLimit(usize),
    Upstream(u64, usize),
    Fetched(usize, u64, Micros, u64),
    Begin(usize),
    BeginLimit(usize),
    /// Somebody asks whose a source is.
    LookedAt(u64),
    LookedUp(u64),
    Dies,
    Born,
    Leave,
}

pub(super) struct World {
    pub(super) mutation: Mutation,
    kinds: Vec<u32>,
    random: u64,
    pub(super) now: u64,
    pub(super) next: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    /// What happens, to which replica, and of which incarnation.
    events: BTreeMap<u64, (Option<(usize, u64)>, Event)>,
    pub(super) redis: Redis,
    runs: u64,
    copy: Redis,
    copied_at: u64,
    pub(super) down_until: u64,
    pub(super) stalled_until: u64,
    pub(super) read_only_until: u64,
    pub(super) replicas: Vec<Replica>,
    pub(super) contacts: Contacts,
    /// What the replicas' clocks count from.
    pub(super) since: Instant,
    values: [u64; LISTS],
    last_value: u64,
    fetched: BTreeMap<u64, Shows>,
    pub(super) look_ups: BTreeMap<u64, LookUp>,
    followed: Vec<Followed>,
    /// When somebody last lost what was told.
    lost_at: u64,
    /// How far the clock of Redis is from the true one, in milliseconds: ahead, with room for less.
    ahead: u64,
    /// By how much it was set back in all, in microseconds.
    back: u64,
    /// Marks of entries that the newer release has written in a way of its own.
    newer: BTreeSet<u64>,
    /// Nobody writes, and nothing fails.
    pub(super) calm: bool,
    /// Acknowledged as told: list, value, when.
    acknowledged: Vec<(usize, u64, u64)>,
    reads: Vec<Read>,
    pub(super) writes: Vec<Write>,
    hints_lost: u64,
    late: u64,
    pub(super) told: Told,
}

impl World {
    pub(super) fn new(mutation: Mutation, kinds: &[u32], seed: u64) -> Self {
        let mut world = Self {
            mutation,
            kinds: kinds.to_vec(),
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03,
            now: 0,
            next: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            redis: Redis { run: 1, ..Redis::default() },
            runs: 1,
            copy: Redis::default(),
            copied_at: 0,
            down_until: 0,
            stalled_until: 0,
            read_only_until: 0,
            replicas: Vec::new(),
            contacts: Contacts::default(),
            since: clock::now(),
            values: [1; LISTS],
            last_value: 1,
            fetched: BTreeMap::new(),
            look_ups: BTreeMap::new(),
            followed: Vec::new(),
            lost_at: 0,
            ahead: 10_000,
            back: 0,
            newer: BTreeSet::new(),
            calm: false,
            acknowledged: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            hints_lost: 0,
            late: 0,
            told: Told::default(),
        };
        world.hints_lost = [0, 0, 5, 50, 100][world.below(5)];
        world.late = [0, 1, 3][world.below(3)];
        for at in 0..2 + world.below(3) {
            let begins = world.until(if at < 2 { 30_000 } else { 400_000 });
            world.joins(begins);
        }
        for _ in 0..2 + world.below(4) {
            let begins = world.until(50_000);
            world.at(begins, None, Event::Client);
        }
        for _ in 0..world.below(7) {
            let at = 20_000 + world.until(END - 220_000);
            world.at(at, None, Event::Fault);
        }
        world
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.draw() % count as u64).unwrap()
    }

    pub(super) fn until(&mut self, most: u64) -> u64 {
        self.draw() % (most + 1)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.draw() % 100 < percent
    }

    pub(super) fn at(&mut self, time: u64, replica: Option<usize>, event: Event) {
        self.next += 1;
        let whose = replica.map(|at| (at, self.replicas[at].incarnation));
        self.queue.push(Reverse((time.max(self.now), self.next)));
        self.events.insert(self.next, (whose, event));
    }

    /// After so long by the replica's own clock.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn after(&mut self, replica: usize, wait: u64, event: Event) {
        let real = (wait as f64 / self.replicas[replica].rate) as u64 + 1;
        self.at(self.now + real, Some(replica), event);
    }

    fn rules(&self) -> Rules {
        Rules { lease: LEASE, told_when_appended: self.mutation == Mutation::Async }
    }

    fn joins(&mut self, when: u64) {
        let (id, rate) = (self.id(), self.rate());
        self.replicas.push(Replica::new(id, self.rules(), rate, 0));
        let at = self.replicas.len() - 1;
        let newer = self.chance(25) && !self.contacts.merge;
        self.replicas[at].release = 1 + u32::from(newer);
        self.at(when, Some(at), Event::Wake);
    }

    fn id(&mut self) -> [u8; 16] {
        (u128::from(self.draw()) << 64 | u128::from(self.draw())).to_be_bytes()
    }

    fn rate(&mut self) -> f64 {
        1.0 + (self.until(10_000) as f64 - 5_000.0) / 1_000_000.0
    }

    /// Contacts are merged, and not every answer names whose it is.
    pub(super) fn merging(mutation: Mutation, kinds: &[u32], seed: u64) -> Self {
        let mut world = Self::new(mutation, kinds, seed);
        world.contacts.merge = true;
        for list in 0..LISTS {
            world.contacts.behind[list] = world.until(CONTACTS - 1);
            world.contacts.named[list] = world.chance(40);
        }
        for replica in &mut world.replicas {
            replica.release = 1;
        }
        world
    }

    /// Without writes and without faults.
    pub(super) fn calm(seed: u64) -> Self {
        let mut world = Self::new(Mutation::None, &[], seed);
        (world.calm, world.late, world.hints_lost) = (true, 0, 0);
        world
    }

    pub(super) fn run(mut self) -> Told {
        while let Some(Reverse((time, number))) = self.queue.pop() {
            if time > LAST {
                break;
            }
            self.now = time;
            if time > self.copied_at {
                (self.copy, self.copied_at) = (self.redis.clone(), time + 1_000 + self.until(59_000));
            }
            let Some((whose, event)) = self.events.remove(&number) else { continue };
            if let Some((at, incarnation)) = whose {
                let replica = &self.replicas[at];
                let is_of_network = matches!(event, Event::Arrive(_) | Event::Packet(_));
                let is_other = replica.incarnation != incarnation;
                if !matches!(event, Event::Born) && (is_other || !replica.alive && !is_of_network) {
                    continue;
                }
                if time < replica.stopped_until && !is_of_network {
                    let until = replica.stopped_until;
                    self.queue.push(Reverse((until, number)));
                    self.events.insert(number, (whose, event));
                    continue;
                }
            }
            self.happens(whose.map(|(at, _)| at), event);
        }
        let parked = self.reads.iter().filter(|read| !read.done).count()
            + self.writes.iter().filter(|write| !write.done).count();
        self.told.parked = parked as u64;
        self.told
    }

    fn happens(&mut self, replica: Option<usize>, event: Event) {
        match (event, replica) {
            (Event::Wake, Some(at)) => {
                self.replicas[at].wake_at = u64::MAX;
                self.drive(at);
            }
            (Event::Arrive(request), Some(at)) => self.serve(at, request),
            (Event::Packet(packet), Some(at)) => self.served(at, packet),
            (Event::Said(list, flight, ask, said), Some(at)) => self.said(at, list, flight, ask, said),
            (Event::SaidLimit(list, flight, ask), Some(at)) => self.said_limit(at, list, flight, ask),
            (Event::Seek(list, flight), Some(at)) => self.seeks(at, list, flight),
            (Event::Renew(list, flight), Some(at)) => self.renew(at, list, flight),
            (Event::Follows(write, answered), _) => {
                self.last_value += 1;
                self.told.followed += 1;
                for list in self.writes[write].lists.clone() {
                    self.values[list] = self.last_value;
                    self.followed.push(Followed { list, value: self.last_value, when: self.now, write, answered });
                }
            }
            (Event::Reply(number, reply), Some(at)) => self.replied(at, number, *reply),
            (Event::NoReply(number), Some(at)) => self.no_reply(at, number),
            (Event::Hint(hint), Some(at)) => {
                let local = self.replicas[at].local(self.now);
                let hint = match hint {
                    Hint::Appended(epoch, entry) => Hint::Appended(epoch, self.as_read(at, entry)),
                    hint => hint,
                };
                let actions = self.replicas[at].member.hinted(hint, local);
                self.obey(at, actions);
                self.drive(at);
            }
            (Event::Client, _) => self.client(),
            (Event::Fault, _) if self.calm => {}
            (Event::Fault, _) => self.fault(),
            (Event::Read(read), Some(at)) => self.read(at, read),
            (Event::AskLimit(read), Some(at)) => {
                if let Some(place) = self.replicas[at].asking.iter().position(|asking| *asking == read) {
                    self.replicas[at].asking.remove(place);
                    self.alone(at, read);
                }
            }
            (Event::Commit(write), _) => {
                self.last_value += 1;
                self.writes[write].value = self.last_value;
                for list in self.changed_by(write) {
                    self.values[list] = self.last_value;
                }
            }
            (Event::Begin(write), Some(at)) => self.begin(at, write),
            (Event::BeginLimit(write), Some(at)) => self.begin_limit(at, write),
            (Event::LookedAt(id), _) => self.looked_at(id),
            (Event::LookedUp(id), Some(at)) => self.looked_up(at, id),
            (Event::Answered(write), Some(at)) => self.answered(at, write),
            (Event::TellLimit(write), Some(at)) => self.tell_limit(at, write),
            (Event::Upstream(flight, list), _) => {
                let shows = Shows { value: self.values[list], contact: self.contacts.shown(list) };
                self.fetched.insert(flight, shows);
            }
            (Event::Fetched(list, flight, local, real), Some(at)) => self.landed(at, list, flight, local, real),
            (Event::Dies, Some(at)) => self.dies(at),
            (Event::Born, Some(at)) if !self.replicas[at].alive => {
                let (id, rate) = (self.id(), self.rate());
                let (cut, incarnation) = (self.replicas[at].cut_until, self.replicas[at].incarnation + 1);
                self.replicas[at] = Replica::new(id, self.rules(), rate, incarnation);
                self.replicas[at].cut_until = cut;
                // Who begins again may be of the newer release.
                let newer = self.chance(50) && !self.contacts.merge;
                self.replicas[at].release = 1 + u32::from(newer);
                self.at(self.now, Some(at), Event::Wake);
            }
            (Event::Leave, Some(at)) => self.leaves(at),
            _ => {}
        }
    }

    // The exchange.

    pub(super) fn drive(&mut self, at: usize) {
        let local = self.replicas[at].local(self.now);
        let replica = &mut self.replicas[at];
        let actions = replica.member.poll(local, &mut replica.pending);
        self.obey(at, actions);
        let replica = &self.replicas[at];
        let wake = replica.member.next_poll(local, &replica.pending).max(local + 1);
        if self.now < END + 3_000_000 && wake != Micros::MAX && wake < replica.wake_at {
            self.replicas[at].wake_at = wake;
            self.after(at, wake - local, Event::Wake);
        }
    }

    fn obey(&mut self, at: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(request) => self.send(at, request),
                Action::Lose(lost, History { epoch, complete, told, last }) => {
                    let complete = if self.mutation == Mutation::HistoryIgnored { 0 } else { complete };
                    self.replicas[at].known.begin(epoch, complete, last, &told);
                    // What else was told nobody knows.
                    if complete > 0 || matches!(lost, Lost::Epoch(Some(_))) {
                        self.lost_at = self.now;
                    }
                    // Nor that contacts are being merged.
                    self.contacts.untold |= complete > 0 && self.writes.iter().any(|write| write.moves && !write.done);
                    let local = self.replicas[at].local(self.now);
                    let anew = matches!(lost, Lost::Epoch(_));
                    if anew && self.mutation != Mutation::OrderOfLostLog {
                        self.replicas[at].elsewhere.begin_anew();
                    }
                    // The last one comes first.
                    for (seq, item) in
                        told.iter().rev().flat_map(|(seq, items)| items.iter().map(move |item| (*seq, item)))
                    {
                        self.replicas[at].hears_of_move(seq, item, local);
                        if let Item::Places { places, settle, .. } = item
                            && self.mutation != Mutation::SettleForgotten
                        {
                            self.replicas[at].unsettle(Places::of(places), local + Micros::from(*settle) * 1000);
                        }
                    }
                    match lost {
                        Lost::Gap => self.told.gaps += 1,
                        Lost::Epoch(_) => {
                            self.told.epochs += 1;
                            self.tell_moves_again(at);
                        }
                    }
                    let ignored = match lost {
                        Lost::Gap => self.mutation == Mutation::GapIgnored,
                        Lost::Epoch(_) => self.mutation == Mutation::KeptOnNewEpoch,
                    };
                    self.replicas[at].knows_epoch = true;
                    if !ignored {
                        self.replicas[at].ledger.invalidate_all();
                    }
                    if self.mutation != Mutation::OrderOfLostLog {
                        self.replicas[at].moves.missed(anew);
                    }
                }
                Action::Apply(seq, items) => {
                    let (local, told) = (self.replicas[at].local(self.now), self.mutation != Mutation::SettleNotTold);
                    let replica = &mut self.replicas[at];
                    replica.known.note(seq, &items);
                    for item in items {
                        match item {
                            Item::Places { places, settle, .. } => {
                                let places = Places::of(&places);
                                if told && settle > 0 {
                                    replica.unsettle(places, local + Micros::from(settle) * 1000);
                                }
                                replica.outdate(places);
                            }
                            Item::Moves { .. } | Item::Moved { .. } => replica.hears_of_move(seq, &item, local),
                            Item::Everything { .. } | Item::Heard => {
                                replica.ledger.invalidate_all();
                            }
                        }
                    }
                    replica.known.applied(seq);
                }
                Action::Own(seq, items) => {
                    let replica = &mut self.replicas[at];
                    for item in &items {
                        if let Item::Moves { places, .. } = item {
                            replica.moves.entered(places, seq);
                        }
                    }
                    replica.known.note(seq, &items);
                    replica.known.applied(seq);
                }
                Action::Lease(until) => self.replicas[at].lease = until,
                Action::Appended(ticket) => {
                    self.replicas[at].appended = ticket;
                    if matches!(self.mutation, Mutation::AcknowledgedAtOnce | Mutation::Bus) {
                        self.tell(at, ticket, By::Appended);
                    }
                }
                Action::Told(ticket, by) => self.tell(at, ticket, by),
            }
        }
    }

    fn tell(&mut self, at: usize, ticket: Ticket, by: By) {
        let due: Vec<usize> =
            self.replicas[at].writes.iter().filter(|(of, _)| *of <= ticket).map(|(_, write)| *write).collect();
        self.replicas[at].writes.retain(|(of, _)| *of > ticket);
        for write in due {
            // By now all is known that came before it in the log.
            let missed = self.replicas[at].elsewhere.heard_since(self.writes[write].heard);
            if !missed.is_empty() && self.mutation != Mutation::MovesIgnored {
                self.writes[write].heard = self.replicas[at].elsewhere.heard();
                let missed: Vec<u32> = missed.iter().map(|place| place.number()).collect();
                self.changed(at, Places::of(&missed), 0);
                let ticket = self.replicas[at].pending.ticket();
                self.replicas[at].writes.push((ticket, write));
                continue;
            }
            match by {
                By::Timer => self.told.timer += 1,
                By::Settled | By::Appended => self.told.settled += 1,
            }
            self.acknowledge(at, write, true);
        }
        self.begun(at, ticket);
    }

    pub(super) fn hop(&mut self) -> u64 {
        let late = if self.draw() % 100 < self.late { self.until(30_000) } else { 0 };
        30 + self.until(170) + late
    }

    fn send(&mut self, at: usize, request: Request) {
        let number = request.number;
        self.replicas[at].sent = (number, self.replicas[at].local(self.now));
        let arrives = self.now + self.hop() + self.slowness(at);
        self.after(at, ANSWER, Event::NoReply(number));
        let cut = self.replicas[at].cut_until;
        if self.now < cut {
            // Half of the packets are lost, the others are late.
            if self.chance(50) {
                return;
            }
            return self.at(cut.max(arrives), Some(at), Event::Arrive(request));
        }
        self.at(arrives, Some(at), Event::Arrive(request));
    }

    pub(super) fn slowness(&mut self, at: usize) -> u64 {
        let slow = self.replicas[at].slow;
        self.until(slow)
    }

    fn serve(&mut self, at: usize, request: Request) {
        if self.now < self.down_until {
            return;
        }
        if self.now < self.stalled_until {
            return self.at(self.stalled_until, Some(at), Event::Arrive(request));
        }
        let back = self.now + self.hop() + self.slowness(at);
        let cut = self.replicas[at].cut_until;
        if self.now < self.read_only_until {
            return self.at(back, Some(at), Event::NoReply(request.number));
        }
        let random = (u128::from(self.draw()) << 64 | u128::from(self.draw()), self.draw());
        let (id, mutation) = (self.replicas[at].member.id(), self.mutation);
        if self.replicas[at].release == 2 {
            self.newer.insert(random.1);
        }
        let clock = self.now / 1000 + self.ahead;
        let (reply, hints, left_out) = self.redis.exchange(mutation, id, &request, random, (clock, LOG));
        self.told.left_out += left_out;
        for hint in hints {
            for other in 0..self.replicas.len() {
                let lost = self.draw() % 100 < self.hints_lost;
                if !lost && self.replicas[other].alive && self.now >= self.replicas[other].cut_until {
                    for _ in 0..if self.chance(2) { 2 } else { 1 } {
                        let heard = self.now + self.hop();
                        self.at(heard, Some(other), Event::Hint(hint.clone()));
                    }
                }
            }
        }
        let back = if self.now < cut {
            if self.chance(60) {
                return;
            }
            cut.max(back)
        } else {
            back
        };
        self.at(back, Some(at), Event::Reply(request.number, Box::new(reply)));
    }

    /// A batch as this release reads it: what the newer one has written is everything to the older.
    fn as_read(&mut self, at: usize, mut entry: exchange::Entry) -> exchange::Entry {
        if self.replicas[at].release == 1 && self.newer.contains(&entry.at.tag) {
            let unknown = |item: &Item| {
                let mut bytes = encode(std::slice::from_ref(item));
                bytes[1] = 99;
                decode(&bytes, PLACES)
            };
            // For how long something may follow is lost with it.
            self.lost_at = self.now;
            let skipped = self.mutation == Mutation::UnknownSkipped;
            entry.items = if skipped { Vec::new() } else { entry.items.iter().flat_map(unknown).collect() };
        }
        entry
    }

    fn replied(&mut self, at: usize, number: u64, mut reply: Reply) {
        let local = self.replicas[at].local(self.now);
        reply.entries = reply.entries.into_iter().map(|entry| self.as_read(at, entry)).collect();
        let replica = &mut self.replicas[at];
        if replica.sent.0 == number {
            replica.time = FleetTime { said: reply.now, clock: reply.clock, asked: replica.sent.1, got: local };
        }
        let before = replica.lease;
        let actions = replica.member.replied(number, reply, local, &mut replica.pending);
        self.obey(at, actions);
        self.replicas[at].pending.entered();
        let replica = &mut self.replicas[at];
        let rises = replica.lease > before;
        match self.mutation {
            Mutation::LeaseFromReply if rises => replica.lease = local + LEASE,
            _ => {}
        }
        self.asked(at);
        self.drive(at);
    }

    fn no_reply(&mut self, at: usize, number: u64) {
        let (local, jitter) = (self.replicas[at].local(self.now), self.draw());
        let replica = &mut self.replicas[at];
        replica.member.failed(number, local, jitter, &mut replica.pending);
        self.asked(at);
        self.drive(at);
    }

    // Reads.

    pub(super) fn is_leased(&self, at: usize) -> bool {
        let replica = &self.replicas[at];
        replica.local(self.now) < replica.lease || self.mutation == Mutation::Bus && replica.knows_epoch
    }

    fn asked(&mut self, at: usize) {
        let (leased, cut_off) = (self.is_leased(at), self.replicas[at].member.is_cut_off());
        if leased || cut_off {
            for read in std::mem::take(&mut self.replicas[at].asking) {
                if leased { self.leased(at, read) } else { self.alone(at, read) }
            }
        }
    }

    fn read(&mut self, at: usize, read: usize) {
        if self.is_leased(at) {
            self.leased(at, read);
        } else if self.replicas[at].member.is_cut_off() {
            self.alone(at, read);
        } else {
            self.replicas[at].asking.push(read);
            self.replicas[at].member.want();
            self.after(at, ASK, Event::AskLimit(read));
            self.drive(at);
        }
    }

    fn leased(&mut self, at: usize, read: usize) {
        let list = self.reads[read].list;
        let replica = &self.replicas[at];
        self.reads[read].leased = true;
        self.reads[read].arrived = Some(replica.ledger.now());
        if let Some(entry) = replica.store[list]
            && replica.is_current(entry.places, entry.noted)
            && replica.local(self.now) - entry.local < TTL.min(entry.expires.unwrap_or(TTL))
        {
            self.told.hits += 1;
            return self.reply(read, entry, true);
        }
        self.join(at, read);
    }

    /// Only what is fetched from now on; in `async` also what is young.
    fn alone(&mut self, at: usize, read: usize) {
        self.told.alone += 1;
        let list = self.reads[read].list;
        let replica = &self.replicas[at];
        let by_tick = self.mutation == Mutation::AloneByTick;
        let arrived = if by_tick { replica.ledger.now() } else { replica.ledger.own_tick() };
        self.reads[read].leased = false;
        self.reads[read].arrived = Some(arrived);
        if matches!(self.mutation, Mutation::AloneFromMemory | Mutation::Async)
            && let Some(entry) = replica.store[list]
            && replica.is_current(entry.places, entry.noted)
            && replica.local(self.now) - entry.local < ALONE_TTL
        {
            return self.reply(read, entry, true);
        }
        match self.replicas[at].flights.get_mut(&list) {
            Some(flight) if arrived <= flight.noted => flight.waiters.push(read),
            Some(_) => self.replicas[at].after.entry(list).or_default().push(read),
            None => self.depart(at, list, vec![read]),
        }
    }

    fn join(&mut self, at: usize, read: usize) {
        let (list, again, arrived) = (self.reads[read].list, self.reads[read].again, self.reads[read].arrived);
        let replica = &self.replicas[at];
        let good = replica.flights.get(&list).is_some_and(|flight| {
            if again { arrived <= Some(flight.noted) } else { replica.is_current(Places::own(list), flight.noted) }
        });
        match self.replicas[at].flights.get_mut(&list) {
            Some(flight) if good => flight.waiters.push(read),
            _ => self.depart(at, list, vec![read]),
        }
    }

    /// A flight begins: it asks what the others have, unless its readers get only what is fetched from now on.
    fn depart(&mut self, at: usize, list: usize, waiters: Vec<usize>) {
        self.next += 1;
        let (id, noted) = (self.next, self.replicas[at].ledger.own_tick());
        let is_direct = |read: &usize| !self.reads[*read].leased || self.reads[*read].again;
        let direct = self.mutation != Mutation::AloneAdopts && waiters.iter().any(is_direct);
        let asks = Some((0, self.now)).filter(|_| !direct);
        let before = self.replicas[at].beliefs[list].map(|belief| belief.contact);
        let flight = Flight { id, noted, waiters, before, knows: None, token: None, asks, refused: None, refusals: 0 };
        if let Some(superseded) = self.replicas[at].flights.insert(list, flight) {
            // Whoever waits for it goes on to wait: here, for the new one.
            self.replicas[at].flights.get_mut(&list).unwrap().waiters.extend(superseded.waiters);
        }
        if direct { self.fetch(at, list) } else { self.seek(at, list) }
    }

    /// The upstream is asked.
    pub(super) fn fetch(&mut self, at: usize, list: usize) {
        let knows = self.knows(at);
        let flight = self.replicas[at].flights.get_mut(&list).expect("it is under way");
        (flight.knows, flight.asks) = (knows, None);
        let (id, has_turn) = (flight.id, flight.token.is_some());
        self.told.fetches += 1;
        self.told.doubled += u64::from(has_turn && self.is_fetched_elsewhere(at, list));
        let local = self.replicas[at].local(self.now);
        let took = 500 + self.until(24_500);
        let answered = self.now + self.until(took);
        self.at(answered, None, Event::Upstream(id, list));
        let real = self.now;
        self.at(self.now + took, Some(at), Event::Fetched(list, id, local, real));
    }

    fn landed(&mut self, at: usize, list: usize, flight: u64, local: Micros, real: u64) {
        let Some(shows) = self.fetched.remove(&flight) else { return };
        let Some(current) = self.replicas[at].flights.get(&list).filter(|current| current.id == flight) else { return };
        let landing = Landing {
            list,
            flight,
            value: shows.value,
            noted: current.noted,
            local,
            real,
            before: [current.before, None],
        };
        self.made_from(at, landing, shows.contact);
    }

    /// It is known what an answer was made from; none: whose it is does not get known.
    pub(super) fn admitted(&mut self, at: usize, landing: Landing, places: Option<Places>) {
        let Landing { list, flight, value, noted, local, real, .. } = landing;
        let replica = &mut self.replicas[at];
        let Some(current) = replica.flights.get(&list).filter(|current| current.id == flight) else { return };
        let for_others = (current.knows, current.token);
        let kept = places.is_some();
        let places = places.unwrap_or(Places::own(list));
        let expires = Some(EXPIRY).filter(|_| replica.is_unsettled(places, local));
        let entry = Entry { value, noted, places, local, real, expires };
        if replica.store[list].is_none_or(|there| there.noted <= noted) {
            replica.store[list] = Some(entry).filter(|_| kept);
        }
        self.hand_on(at, list, (entry, kept), for_others);
        self.brought(at, list, entry, if kept { Brought::Fetched } else { Brought::NotKept });
    }

    /// What a flight brought is given to whoever it is good for.
    pub(super) fn brought(&mut self, at: usize, list: usize, entry: Entry, how: Brought) {
        let adopted = how == Brought::Adopted;
        let Flight { noted, waiters, .. } = self.replicas[at].flights.remove(&list).unwrap();
        for read in waiters {
            let (arrived, leased) = (self.reads[read].arrived, self.reads[read].leased);
            // Of what was adopted nobody knows that its fetch began after anybody came.
            let early = arrived <= Some(noted) && !adopted;
            let alone = adopted && self.mutation == Mutation::AloneAdopts;
            let shared = (leased || alone) && how != Brought::NotKept;
            if early || shared && self.replicas[at].is_current(entry.places, entry.noted) {
                self.reply(read, entry, adopted);
            } else if leased {
                self.reads[read].again = true;
                self.join(at, read);
            } else {
                self.replicas[at].after.entry(list).or_default().push(read);
            }
        }
        if !self.replicas[at].flights.contains_key(&list)
            && let Some(next) = self.replicas[at].after.remove(&list)
        {
            self.depart(at, list, next);
        }
    }

    /// What is promised of every read.
    fn reply(&mut self, read: usize, entry: Entry, from_memory: bool) {
        let Read { list, needs, needs_own, begun, leased, .. } = self.reads[read];
        if std::mem::replace(&mut self.reads[read].done, true) {
            return;
        }
        self.told.reads += 1;
        // Nobody could be told that contacts are being merged: whose lists others' writes change is not known (`pass`).
        if self.contacts.untold {
            self.told.excused += 1;
            return self.go_on();
        }
        if entry.value < needs {
            let newer = self
                .acknowledged
                .iter()
                .filter(|(of, value, when)| *of == list && *value > entry.value && *when <= begun);
            let since = newer.map(|(_, _, when)| begun - when).max().unwrap_or(0);
            let margin = self.rules().margin();
            let allowed = if leased { margin } else { margin.max(ALONE_TTL) + margin };
            if self.mutation != Mutation::Async || since > allowed {
                self.told.stale += 1;
            }
        }
        if entry.value < needs_own {
            self.told.own += 1;
        }
        // What follows a write is seen when the answer from before it has expired, if nobody lost what was told. In `async`
        // whoever serves this may learn of the write a little later than its client.
        let learned = if self.mutation == Mutation::Async { self.rules().margin() } else { 0 };
        let follows = |followed: &Followed| {
            followed.list == list
                && followed.value > entry.value
                && followed.when + EXPIRY * 102 / 100 + 4_000 + self.back < begun
                && self.lost_at < followed.answered
                && self.writes[followed.write].told.is_some_and(|told| told + learned <= begun)
        };
        // What may follow is not known of whoever it was merged into.
        if from_memory && leased && !self.contacts.merge && self.followed.iter().any(follows) {
            self.told.late += 1;
        }
        if from_memory && self.now - entry.real > TTL * 102 / 100 + 2_000 + self.back {
            self.told.old += 1;
        }
        self.go_on();
    }

    // Clients and writes.

    fn go_on(&mut self) {
        let pause = [1, 100, 3_000, 20_000, 90_000][self.below(5)];
        self.at(self.now + pause, None, Event::Client);
    }

    fn client(&mut self) {
        if self.now > END {
            return;
        }
        let up: Vec<usize> = (0..self.replicas.len()).filter(|at| self.replicas[*at].alive).collect();
        if up.is_empty() {
            return self.at(self.now + 5_000, None, Event::Client);
        }
        let at = up[self.below(up.len())];
        let incarnation = self.replicas[at].incarnation;
        let list = if self.chance(50) { 0 } else { self.below(LISTS) };
        if self.calm || self.chance(70) {
            let needs =
                self.acknowledged.iter().filter(|(of, ..)| *of == list).map(|(_, value, _)| *value).max().unwrap_or(0);
            let needs_own = self.replicas[at].own[list];
            self.reads.push(Read {
                list,
                replica: at,
                incarnation,
                begun: self.now,
                needs,
                needs_own,
                arrived: None,
                leased: false,
                again: false,
                done: false,
            });
            return self.at(self.now, Some(at), Event::Read(self.reads.len() - 1));
        }
        let moves = self.contacts.merge && self.chance(20);
        let reaches = self.contacts.merge || self.chance(50);
        self.writes.push(Write {
            list,
            moves,
            reaches,
            told: None,
            lists: Vec::new(),
            value: 0,
            replica: at,
            incarnation,
            done: false,
            names: None,
            is_clear: true,
            contacts: Vec::new(),
            identities: Places::default(),
            number: 0,
            undisturbed: false,
            noted: None,
            began: 0,
            heard: self.replicas[at].elsewhere.heard(),
        });
        let write = self.writes.len() - 1;
        if self.contacts.merge {
            self.at(self.now, Some(at), Event::Begin(write));
        } else {
            self.begin(at, write);
        }
    }

    /// To the upstream.
    pub(super) fn sends(&mut self, at: usize, write: usize) {
        let replica = &self.replicas[at];
        self.writes[write].noted = Some(replica.ledger.now());
        self.writes[write].began = replica.local(self.now);
        let took = 1_000 + self.until(19_000);
        let commits = self.now + self.until(took);
        self.at(commits, None, Event::Commit(write));
        self.at(self.now + took, Some(at), Event::Answered(write));
    }

    /// It is known what a write may have changed: that is out of date, and told.
    pub(super) fn outdates(&mut self, at: usize, write: usize, places: Places, moved: Places) {
        // Bots answer, automations run.
        let settle = if self.chance(30) { SETTLE } else { 0 };
        if settle > 0 {
            let when = self.now + self.until(u64::from(settle) * 950);
            self.at(when, None, Event::Follows(write, self.now));
        }
        let unclear = if self.writes[write].is_clear { 0 } else { SETTLE };
        self.changed(at, places, settle.max(unclear));
        self.changed(at, moved, unclear);
        self.moved(at, write);
        let ticket = self.replicas[at].pending.ticket();
        self.replicas[at].writes.push((ticket, write));
        self.after(at, TELL, Event::TellLimit(write));
        self.drive(at);
    }

    /// Something is out of date, and goes on changing for so many milliseconds.
    pub(super) fn changed(&mut self, at: usize, places: Places, settle: u32) {
        let local = self.replicas[at].local(self.now);
        let replica = &mut self.replicas[at];
        if settle > 0 {
            replica.unsettle(places, local + Micros::from(settle) * 1000);
        }
        if places != Places::default() {
            replica.pending.push(Item::Places { places: places.listed(), settle, gone: false });
            replica.outdate(places);
        }
    }

    /// It is not in the log in time: acknowledged all the same, and no more is promised of it.
    fn tell_limit(&mut self, at: usize, write: usize) {
        let appended = self.replicas[at].appended;
        let waits = self.replicas[at].writes.iter().position(|(ticket, of)| *of == write && *ticket > appended);
        if let Some(place) = waits {
            self.replicas[at].writes.remove(place);
            self.told.untold += 1;
            self.contacts.untold |= self.writes[write].moves;
            self.acknowledge(at, write, self.mutation == Mutation::UntoldIsTold);
        }
    }

    fn acknowledge(&mut self, at: usize, write: usize, told: bool) {
        let Write { value, ref lists, .. } = self.writes[write];
        let lists = lists.clone();
        self.writes[write].done = true;
        self.writes[write].told = Some(self.now).filter(|_| told);
        for list in lists {
            let own = &mut self.replicas[at].own[list];
            *own = value.max(*own);
            if told {
                self.acknowledged.push((list, value, self.now));
            }
        }
        self.go_on();
    }

    // Faults.

    fn dies(&mut self, at: usize) {
        let incarnation = self.replicas[at].incarnation;
        if !std::mem::replace(&mut self.replicas[at].alive, false) {
            return;
        }
        let mut clients = 0;
        for read in
            self.reads.iter_mut().filter(|read| !read.done && (read.replica, read.incarnation) == (at, incarnation))
        {
            (read.done, clients) = (true, clients + 1);
        }
        for write in self
            .writes
            .iter_mut()
            .filter(|write| !write.done && (write.replica, write.incarnation) == (at, incarnation))
        {
            (write.done, clients) = (true, clients + 1);
        }
        for _ in 0..clients {
            self.go_on();
        }
        let back = self.now + 2_000 + self.until(148_000);
        self.at(back, Some(at), Event::Born);
    }

    fn leaves(&mut self, at: usize) {
        let actions = self.replicas[at].member.leave();
        self.obey(at, actions);
        self.asked(at);
        self.drive(at);
        let dies = self.now + 1_000 + self.until(59_000);
        self.at(dies, Some(at), Event::Dies);
    }

    fn fault(&mut self) {
        let at = self.below(self.replicas.len());
        let lasts =
            [3_000 + self.until(37_000), 40_000 + self.until(110_000), 100_000 + self.until(300_000)][self.below(3)];
        let until = self.now + lasts;
        let kind = if self.kinds.is_empty() {
            [self.below(KINDS as usize)].map(|kind| if kind == 18 { 19 } else { u32::try_from(kind).unwrap() })[0]
        } else {
            let kind = self.below(self.kinds.len());
            self.kinds[kind]
        };
        match kind {
            0 | 1 => self.replicas[at].stopped_until = until.max(self.replicas[at].stopped_until),
            2 | 3 => self.replicas[at].cut_until = until.max(self.replicas[at].cut_until),
            4 => self.stalled_until = until,
            5 => self.redis = Redis { run: self.redis.run, ..Redis::default() },
            6..=8 => {
                self.runs += 1;
                self.redis = if kind == 6 { Redis::default() } else { self.copy.clone() };
                (self.redis.run, self.down_until) = (self.runs, self.now + lasts / 3);
            }
            9 => self.read_only_until = until,
            10 => match self.below(2) {
                0 if self.mutation == Mutation::MembersApart => self.redis.members.clear(),
                0 => (self.redis.head, self.redis.members) = (None, BTreeMap::new()),
                _ => self.redis.log.clear(),
            },
            11 => self.at(self.now, Some(at), Event::Dies),
            12 => self.late = 3 + self.until(27),
            14..=16 => self.replicas[at].slow = [0, 8_000, 18_000][self.below(3)],
            17 => self.at(self.now, Some(at), Event::Leave),
            19 => {
                let steps = self.until(6_000);
                self.ahead = (self.ahead + steps).saturating_sub(3_000);
                // A step of about a second is not noticed: what others have fetched seems younger by as much.
                self.back += Some(3_000_u64.saturating_sub(steps) * 1000).filter(|back| *back < 1_200_000).unwrap_or(0);
            }
            18 => {
                let copy = self.copy.clone();
                self.redis.set_back(&copy);
            }
            _ if self.replicas.len() < 6 => self.joins(self.now),
            _ => {}
        }
    }
}
