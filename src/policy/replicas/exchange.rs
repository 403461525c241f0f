//! What a replica and the fleet's log say to each other, once it is read: plain data.

use super::wire::Item;

/// A time on this machine's own clock, in microseconds. It goes on while the machine sleeps.
pub type Micros = u64;
/// A history of the log: another one after anything of it was lost.
pub type Epoch = [u8; 16];
/// A running replica.
pub type MemberId = [u8; 16];

/// What an answer is called in Redis: nobody can tell whose it is who lacks the secret.
pub type Name = [u8; 16];

/// A place in the log, with the random mark of what stands there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The how-manieth entry of its epoch.
    pub seq: u64,
    /// Its mark: after the log was set back, the same number has another.
    pub tag: u64,
}

/// What a replica says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number among those of this replica, rising: a late packet is known by it.
    pub number: u64,
    /// The epoch it knows.
    pub epoch: Option<Epoch>,
    /// How far it has applied the log.
    pub applied: Position,
    /// It has no lease.
    pub fresh: bool,
    /// It knows the epoch for so long that no lease from before it can be left.
    pub ripe: bool,
    /// It takes no lease any more.
    pub leaving: bool,
    /// What it has to tell.
    pub items: Vec<Item>,
    /// Members that were not heard of for so long that their leases have run out, with their last number.
    pub silent: Vec<(MemberId, u64)>,
}

/// Why an epoch began, if this exchange began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Began {
    /// Nothing was there.
    Missing,
    /// The server is another process.
    Run,
    /// The log ended before what this replica has applied.
    Ahead,
    /// The log had something else in the place of what this replica has applied.
    Tag,
}

/// What the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The epoch.
    pub epoch: Epoch,
    /// Why it began, if it did just now.
    pub began: Option<Began>,
    /// The end of the log.
    pub last: Position,
    /// How far all members have applied it.
    pub settled: u64,
    /// No lease from before the epoch is left.
    pub ripe: bool,
    /// Where this replica's own items are, if it told any.
    pub own: Option<u64>,
    /// What follows in the log on what the replica has applied; for another epoch the latest.
    pub entries: Vec<Entry>,
    /// Members that have not applied the whole log, with their last numbers.
    pub behind: Vec<(MemberId, u64)>,
    /// Members at all.
    pub members: u32,
    /// This replica was left out meanwhile.
    pub unknown: bool,
    /// The others have other settings or another secret: nothing was done but to tell so.
    pub disagrees: bool,
    /// The server's time, in milliseconds.
    pub now: u64,
    /// Which of its clocks that is: another one after it was set back.
    pub clock: u64,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub at: Position,
    /// Who wrote it.
    pub member: MemberId,
    /// What it tells.
    pub items: Vec<Item>,
}

/// What is told ahead of the next exchange. It may be lost, late, doubled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// An entry was appended.
    Appended(Epoch, Entry),
    /// All members have applied so much.
    Settled(Epoch, Position),
    /// The fetch of the answer of this name has ended.
    Landed(Name),
}
