//! What `src/engine/replicas/exchange.lua` does, in Rust.

use std::collections::{BTreeMap, VecDeque};

use anteroom::policy::replicas::exchange::{Began, Entry, Epoch, Hint, MemberId, Position, Reply, Request};

use super::Mutation;
use super::tier::Tier;

/// Entries of the log: few, so that gaps happen.
pub(super) const LOG: usize = 6;
/// So far the clock may be set back without being another one, in milliseconds.
const BACK: u64 = 1_000;

/// What is in Redis, and which process that is.
#[derive(Clone, Default)]
pub(super) struct Redis {
    pub(super) run: u64,
    pub(super) head: Option<Head>,
    pub(super) members: BTreeMap<MemberId, (u64, u64)>,
    pub(super) log: VecDeque<Entry>,
    /// What its clock said last, in milliseconds, and which of its clocks that is.
    pub(super) said: u64,
    pub(super) clock: u64,
    pub(super) tier: Tier,
}

#[derive(Clone)]
pub(super) struct Head {
    epoch: Epoch,
    run: u64,
    last: Position,
    settled: u64,
    ripe: bool,
}

impl Redis {
    fn begin(&mut self, random: u128) {
        let (epoch, run) = (random.to_be_bytes(), self.run);
        self.head = Some(Head { epoch, run, last: Position::default(), settled: 0, ripe: false });
        self.members.clear();
        self.log.clear();
    }

    /// One exchange: the reply, hints, and how many were left out.
    pub(super) fn exchange(
        &mut self,
        mutation: Mutation,
        id: MemberId,
        request: &Request,
        random: (u128, u64),
        (now, longest): (u64, usize),
    ) -> (Reply, Vec<Hint>, u64) {
        let deaf = mutation == Mutation::NoEpoch;
        let mut began = None;
        match &self.head {
            None => began = Some(Began::Missing),
            Some(head) if head.run != self.run && !deaf => began = Some(Began::Run),
            Some(head) if Some(head.epoch) == request.epoch && !deaf => {
                let there = self.log.iter().find(|entry| entry.at.seq == request.applied.seq);
                if request.applied.seq > head.last.seq {
                    began = Some(Began::Ahead);
                } else if there.is_some_and(|entry| entry.at.tag != request.applied.tag) && mutation != Mutation::NoTag
                {
                    began = Some(Began::Tag);
                }
            }
            Some(_) => {}
        }
        if began.is_some() {
            self.begin(random.0);
        }
        if now + BACK < self.said {
            self.clock += 1;
        }
        self.said = now;
        let mut head = self.head.clone().expect("it was begun");
        let same = request.epoch == Some(head.epoch);
        head.ripe |= request.ripe && same;
        let (mut unknown, mut late) = (false, false);
        match self.members.get(&id).copied() {
            Some((_, number)) if request.number <= number => late = true,
            _ if request.leaving => drop(self.members.remove(&id)),
            there => {
                let position = if same && !request.fresh {
                    unknown = there.is_none();
                    there.map_or(0, |there| there.0).max(request.applied.seq)
                } else {
                    head.last.seq
                };
                self.members.insert(id, (position, request.number));
            }
        }
        let (mut hints, mut own) = (Vec::new(), None);
        if !request.items.is_empty() {
            head.last = Position { seq: head.last.seq + 1, tag: random.1 };
            own = Some(head.last.seq);
            let entry = Entry { at: head.last, member: id, items: request.items.clone() };
            self.log.push_back(entry.clone());
            if self.log.len() > longest {
                self.log.pop_front();
            }
            if let Some(member) = self.members.get_mut(&id).filter(|_| !late)
                && member.0 + 1 == head.last.seq
            {
                member.0 = head.last.seq;
            }
            hints.push(Hint::Appended(head.epoch, entry));
        }
        let mut left_out = 0;
        for (silent, number) in &request.silent {
            if self.members.get(silent).is_some_and(|there| there.1 == *number) {
                self.members.remove(silent);
                left_out += 1;
            }
        }
        let least = self.members.values().map(|member| member.0).min().unwrap_or(head.last.seq);
        if least > head.settled {
            head.settled = least;
            let known = self.log.iter().find(|entry| entry.at.seq == least).map(|entry| entry.at);
            hints.extend(known.map(|at| Hint::Settled(head.epoch, at)));
        }
        let entries = self.log.iter().filter(|entry| !same || entry.at.seq > request.applied.seq).cloned().collect();
        let behind = self.members.iter().filter(|(other, there)| **other != id && there.0 < head.last.seq);
        let reply = Reply {
            epoch: head.epoch,
            began,
            last: head.last,
            settled: head.settled,
            ripe: head.ripe || mutation == Mutation::NotRipe,
            own,
            entries,
            behind: behind.map(|(other, there)| (*other, there.1)).collect(),
            members: u32::try_from(self.members.len()).unwrap(),
            unknown,
            disagrees: false,
            now,
            clock: self.clock,
        };
        self.head = Some(head);
        (reply, hints, left_out)
    }

    /// All of it, as it was then, in the process that runs.
    pub(super) fn set_back(&mut self, copy: &Self) {
        let run = self.run;
        *self = Self { run, ..copy.clone() };
        if let Some(head) = &mut self.head {
            head.run = run;
        }
    }
}
