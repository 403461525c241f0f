//! One replica's part in the fleet: when to speak with the log, what to make of its replies, until when memory may be
//! served, and when the others have been told. It decides, and does nothing; whoever drives it obeys the actions in their
//! order.
//!
//! A **lease** says until when this replica may serve from memory: everything that was acknowledged as told when a reader
//! came is in its ledger by then. It counts from the moment an exchange was *sent*, for the reply says nothing of later.
//! A change is **told** when every member has applied it, or when every lease that anybody could have had has run out.

use std::collections::{BTreeMap, VecDeque};

use super::exchange::{Began, Entry, Epoch, Hint, MemberId, Micros, Position, Reply, Request};
use super::known::Told;
use super::pending::{Pending, Ticket};
use super::wire::Item;

/// Between two exchanges, for each member: 2,500 a second at most, however many members.
const SPACING: Micros = 400;
/// After a failure: at first, and at most, before it is tried again.
const RETRY: (Micros, Micros) = (40_000, 1_000_000);
/// Where every read asks there is no lease to renew: how often the log is read at rest.
const REST_WITHOUT_LEASE: Micros = 150_000;
/// The longest lease there can be (`replicas.lease`): how long members with other settings are waited for.
const LONGEST_LEASE: Micros = 10_000_000;
/// Tags that are remembered, for what was just settled.
const TAGS: usize = 256;

/// What it obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long a lease lasts; zero: every read asks.
    pub lease: Micros,
    /// Whether a change is told as soon as it is appended (`replicas.mode = "async"`), unless contacts may be merged: who
    /// does not know of that takes a contact for another, and what a write has changed for what it has not.
    pub told_when_appended: bool,
}

impl Rules {
    /// After so long every lease that anybody could have had when it began has run out, on a clock that is a hundredth
    /// slow.
    pub fn margin(&self) -> Micros {
        margin_of(self.lease)
    }
}

fn margin_of(lease: Micros) -> Micros {
    lease + lease / 100 + 5_000
}

/// Why everything is out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Another epoch, and why it began, if that was this replica's doing.
    Epoch(Option<Began>),
    /// The log no longer has what came in between.
    Gap,
}

/// What is known of a log from whose beginning this replica has not read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Which log.
    pub epoch: Epoch,
    /// All that follows this entry is known.
    pub complete: u64,
    /// That, with whose entries it may be.
    pub told: Told,
    /// The last entry.
    pub last: u64,
}

/// By what a change was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// All members have applied it.
    Settled,
    /// The leases of those who have not have run out.
    Timer,
    /// It is in the log; nobody waits for more.
    Appended,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the log.
    Send(Request),
    /// Everything is out of date.
    Lose(Lost, History),
    /// This is out of date, as this entry of the log tells.
    Apply(u64, Vec<Item>),
    /// This entry is one's own: it was obeyed before it was told.
    Own(u64, Vec<Item>),
    /// All before has been obeyed: until then memory may be served. Zero: not any more.
    Lease(Micros),
    /// What was pushed up to here is in the log.
    Appended(Ticket),
    /// And has been told.
    Told(Ticket, By),
}

/// What was appended and is not told yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    ticket: Ticket,
    seq: u64,
    epoch: Epoch,
    until: Micros,
    /// Whether it tells that contacts may be merged.
    merges: bool,
}

/// The exchange under way.
#[derive(Debug)]
struct UnderWay {
    number: u64,
    sent: Micros,
    applied: u64,
    items: Vec<Item>,
    ticket: Ticket,
}

/// One replica.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and nearly all combinations happen")]
pub struct Member {
    id: MemberId,
    rules: Rules,
    number: u64,
    epoch: Option<Epoch>,
    applied: Position,
    tags: VecDeque<Position>,
    /// What the log knows that this replica has applied.
    confirmed: u64,
    /// When the epoch was first seen.
    seen: Micros,
    ripe: bool,
    settled: u64,
    lease: Micros,
    under_way: Option<UnderWay>,
    wanted: bool,
    next_at: Micros,
    rest_until: Micros,
    retry: Micros,
    failed: bool,
    leaving: bool,
    disagrees: bool,
    members: u32,
    /// Members behind: their number, and since when it has been that.
    behind: BTreeMap<MemberId, (u64, Micros)>,
    waiting: VecDeque<Waiting>,
}

impl Member {
    /// A replica that has just begun.
    pub fn new(id: MemberId, rules: Rules) -> Self {
        Self {
            id,
            rules,
            number: 0,
            epoch: None,
            applied: Position::default(),
            tags: VecDeque::new(),
            confirmed: 0,
            seen: 0,
            ripe: false,
            settled: 0,
            lease: 0,
            under_way: None,
            wanted: true,
            next_at: 0,
            rest_until: 0,
            retry: RETRY.0,
            failed: true,
            leaving: false,
            disagrees: false,
            members: 0,
            behind: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Its name in the log.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// Whether there is no use in asking for a lease now: the last exchange failed, or the fleet has other settings.
    pub fn is_cut_off(&self) -> bool {
        self.failed || self.leaving || self.disagrees
    }

    /// Whether the others have other settings.
    pub fn disagrees(&self) -> bool {
        self.disagrees
    }

    /// How many members there are, as far as is known.
    pub fn members(&self) -> u32 {
        self.members
    }

    /// Entries of the log that this replica has applied and not all others have, as far as is known.
    pub fn unsettled(&self) -> u64 {
        self.applied.seq.saturating_sub(self.settled)
    }

    /// Somebody has something to tell, or waits for a lease.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// It is told to stop: it takes no lease any more, not even from the exchange under way.
    pub fn leave(&mut self) -> Vec<Action> {
        (self.leaving, self.wanted, self.lease) = (true, true, 0);
        vec![Action::Lease(0)]
    }

    /// What is due now.
    pub fn poll(&mut self, now: Micros, pending: &mut Pending) -> Vec<Action> {
        let mut actions = Vec::new();
        self.tell(now, &mut actions);
        self.wanted |= now >= self.rest_until || self.silent(now).next().is_some();
        if self.under_way.is_some() || now < self.next_at || !self.has_news(pending) {
            return actions;
        }
        self.number += 1;
        self.wanted = false;
        self.rest_until = now + if self.rules.lease == 0 { REST_WITHOUT_LEASE } else { self.rules.lease / 3 };
        let (items, ticket) = (pending.take(), pending.ticket());
        let request = Request {
            number: self.number,
            epoch: self.epoch,
            applied: self.applied,
            fresh: now >= self.lease,
            ripe: self.epoch.is_some() && now >= self.seen + self.rules.margin(),
            leaving: self.leaving,
            items: items.clone(),
            silent: self.silent(now).collect(),
        };
        self.under_way = Some(UnderWay { number: self.number, sent: now, applied: self.applied.seq, items, ticket });
        actions.push(Action::Send(request));
        actions
    }

    fn has_news(&self, pending: &Pending) -> bool {
        self.wanted || !pending.is_empty() || self.applied.seq > self.confirmed
    }

    /// When it is to be polled next, if nothing happens before.
    pub fn next_poll(&self, now: Micros, pending: &Pending) -> Micros {
        let send = if self.has_news(pending) { self.next_at } else { self.rest_until.max(self.next_at) };
        let send = self.under_way.is_none().then_some(send);
        let timer = self.waiting.front().map(|waiting| waiting.until);
        let ripe = Some(self.seen + self.rules.margin()).filter(|ripe| !self.waiting.is_empty() && *ripe > now);
        [send, timer, ripe].into_iter().flatten().min().unwrap_or(Micros::MAX)
    }

    /// The exchange of this number has brought no reply; `jitter` is anything, other for each replica. What it told is to
    /// be told again.
    pub fn failed(&mut self, number: u64, now: Micros, jitter: u64, pending: &mut Pending) {
        let Some(under_way) = self.under_way.take_if(|under_way| under_way.number == number) else { return };
        pending.put_back(under_way.items);
        (self.failed, self.wanted) = (true, true);
        self.next_at = now + self.retry / 2 + jitter % (self.retry / 2);
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    /// The reply to the exchange of this number. A reply to another one is late, and nothing.
    pub fn replied(&mut self, number: u64, reply: Reply, now: Micros, pending: &mut Pending) -> Vec<Action> {
        let Some(under_way) = self.under_way.take_if(|under_way| under_way.number == number) else { return Vec::new() };
        let mut actions = Vec::new();
        (self.failed, self.retry) = (false, RETRY.0);
        (self.members, self.disagrees) = (reply.members, reply.disagrees);
        self.next_at = now + SPACING * Micros::from(reply.members.max(1));
        self.watch(&reply.behind, now);
        if reply.disagrees {
            pending.put_back(under_way.items);
            self.lease = 0;
            actions.push(Action::Lease(0));
            return actions;
        }
        if self.epoch == Some(reply.epoch) {
            self.catch_up(reply.entries, reply.last, &mut actions);
            self.confirmed = self.confirmed.max(under_way.applied);
        } else {
            // Whoever had a lease is forgotten with the members: nobody is told of anything until those have run out.
            (self.epoch, self.seen, self.settled, self.confirmed) = (Some(reply.epoch), now, 0, 0);
            self.tags.clear();
            self.lease = 0;
            let history = self.skip_to(reply.entries, reply.last);
            actions.push(Action::Lose(Lost::Epoch(reply.began), history));
        }
        self.ripe = reply.ripe;
        self.settled = self.settled.max(reply.settled);
        if let Some(seq) = reply.own {
            let until = now + self.rules.margin();
            // Of too many that wait it is told as everything.
            let merges =
                under_way.items.iter().any(|item| matches!(item, Item::Moves { .. } | Item::Everything { .. }));
            self.waiting.push_back(Waiting { ticket: under_way.ticket, seq, epoch: reply.epoch, until, merges });
            actions.push(Action::Appended(under_way.ticket));
        }
        if reply.unknown || self.leaving {
            self.lease = 0;
        } else {
            self.lease = self.lease.max(under_way.sent + self.rules.lease);
        }
        actions.push(Action::Lease(self.lease));
        self.tell(now, &mut actions);
        actions
    }

    /// Something was told ahead of the next exchange.
    pub fn hinted(&mut self, hint: Hint, now: Micros) -> Vec<Action> {
        let mut actions = Vec::new();
        match hint {
            Hint::Appended(epoch, entry) if self.epoch == Some(epoch) => {
                if entry.at.seq == self.applied.seq + 1 {
                    self.apply(entry, &mut actions);
                } else if entry.at.seq > self.applied.seq {
                    self.wanted = true;
                }
            }
            // Only by the tag is it known to be about the log that this replica knows.
            Hint::Settled(epoch, at) if self.epoch == Some(epoch) && self.tags.contains(&at) => {
                self.settled = self.settled.max(at.seq);
                self.tell(now, &mut actions);
            }
            Hint::Appended(..) | Hint::Settled(..) | Hint::Landed(_) => {}
        }
        actions
    }

    /// Applies what follows; if something between is missing, everything is out of date once.
    fn catch_up(&mut self, entries: Vec<Entry>, last: Position, actions: &mut Vec<Action>) {
        let mut after = Vec::new();
        for entry in entries {
            if entry.at.seq == self.applied.seq + 1 {
                self.apply(entry, actions);
            } else if entry.at.seq > self.applied.seq {
                after.push(entry);
            }
        }
        if self.applied.seq < last.seq {
            let history = self.skip_to(after, last);
            actions.push(Action::Lose(Lost::Gap, history));
        }
    }

    /// Takes all up to here as applied, since everything is out of date. What the last entries tell is known.
    fn skip_to(&mut self, entries: Vec<Entry>, last: Position) -> History {
        let (mut complete, mut told) = (last.seq, Told::new());
        for entry in entries.into_iter().rev() {
            if entry.at.seq == complete && complete > 0 {
                complete -= 1;
                told.push((entry.at.seq, entry.items));
            }
        }
        self.applied_up_to(last);
        History { epoch: self.epoch.unwrap_or_default(), complete, told, last: last.seq }
    }

    /// One's own was obeyed before it was told.
    fn apply(&mut self, entry: Entry, actions: &mut Vec<Action>) {
        self.applied_up_to(entry.at);
        let (is_own, seq) = (entry.member == self.id, entry.at.seq);
        actions.push(if is_own { Action::Own(seq, entry.items) } else { Action::Apply(seq, entry.items) });
    }

    fn applied_up_to(&mut self, at: Position) {
        self.applied = at;
        self.tags.push_back(at);
        if self.tags.len() > TAGS {
            self.tags.pop_front();
        }
    }

    /// Since when each member behind has been silent.
    fn watch(&mut self, behind: &[(MemberId, u64)], now: Micros) {
        let before = std::mem::take(&mut self.behind);
        let since = |id, number| before.get(&id).filter(|(last, _)| *last == number).map_or(now, |(_, since)| *since);
        let others = behind.iter().filter(|(id, _)| *id != self.id);
        self.behind = others.map(|&(id, number)| (id, (number, since(id, number)))).collect();
    }

    /// Members whose number has been the same for so long that their leases have run out.
    fn silent(&self, now: Micros) -> impl Iterator<Item = (MemberId, u64)> {
        let margin = match self.rules.lease {
            _ if self.disagrees => margin_of(LONGEST_LEASE),
            0 => margin_of(REST_WITHOUT_LEASE),
            _ => self.rules.margin(),
        };
        self.behind.iter().filter(move |(_, (_, since))| now >= since + margin).map(|(id, (number, _))| (*id, *number))
    }

    fn is_ripe(&self, now: Micros) -> bool {
        self.ripe || now >= self.seen + self.rules.margin()
    }

    /// What has been told by now. What was appended earlier is told earlier.
    fn tell(&mut self, now: Micros, actions: &mut Vec<Action>) {
        while let Some(waiting) = self.waiting.front() {
            let is_settled = Some(waiting.epoch) == self.epoch && self.is_ripe(now) && self.settled >= waiting.seq;
            let is_enough = self.rules.told_when_appended && !waiting.merges;
            let by = if is_enough || self.rules.lease == 0 {
                By::Appended
            } else if is_settled {
                By::Settled
            } else if now >= waiting.until {
                By::Timer
            } else {
                return;
            };
            actions.push(Action::Told(waiting.ticket, by));
            self.waiting.pop_front();
        }
    }
}
