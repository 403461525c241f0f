//! What the request path and the exchange with the fleet share: the lease, what is to be told, and who waits until it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, watch};
use tokio::time::timeout;

use super::super::clock;
use super::settings::{CutOff, Mode, ReplicasSettings};
use crate::policy::coherence::ledger::PLACES;
use crate::policy::replicas::exchange::{Micros, Name};
use crate::policy::replicas::known::{FleetTime, Known};
use crate::policy::replicas::member::Rules;
use crate::policy::replicas::pending::{Pending, Ticket};
use crate::policy::replicas::wire::Item;

/// How much longer than the rules say somebody waits until a change is told: for the task that tells to be scheduled.
const GRACE: Duration = Duration::from_millis(500);
/// How long the start waits for the first exchange before requests are taken without one.
const JOINING: Duration = Duration::from_secs(5);

/// Fetches that have ended and were not heard of yet, at most.
const LANDINGS: usize = 256;

/// Where a replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may serve from memory.
    Leased,
    /// Its lease is over, and the next exchange may bring one.
    Asking,
    /// Redis cannot be reached, or gives no answer: readers get only what is fetched for them.
    Alone,
    /// The others have other settings, or another secret.
    Disagrees,
    /// It is told to stop.
    Leaving,
}

impl Standing {
    /// In a word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Leased => "leased",
            Self::Asking => "asking",
            Self::Alone => "alone",
            Self::Disagrees => "disagrees",
            Self::Leaving => "leaving",
        }
    }
}

/// A replica's part in the fleet, for everybody in this process.
pub struct Fleet {
    /// What it obeys.
    pub settings: ReplicasSettings,
    began: Micros,
    pending: Mutex<Pending>,
    log: Mutex<Log>,
    /// Until when memory may be served. Stored after all that the ledger had to be told.
    lease: AtomicU64,
    cut_off: AtomicBool,
    disagrees: AtomicBool,
    leaving: AtomicBool,
    /// When the last exchange that was answered was sent.
    heard: AtomicU64,
    wanted: AtomicBool,
    members: AtomicU64,
    news: Notify,
    leases: watch::Sender<Micros>,
    appended: watch::Sender<Ticket>,
    /// And whether it took until leases had run out.
    told: watch::Sender<(Ticket, bool)>,
    left: watch::Sender<bool>,
    /// Fetches of other replicas that have ended. Who is too slow to hear all asks all the same.
    landings: broadcast::Sender<Name>,
}

/// What is known of the fleet's log.
pub struct Log {
    /// What its entries told.
    pub known: Known,
    /// What time Redis has.
    pub time: FleetTime,
}

/// How the others were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// All of them have said so.
    Settled,
    /// Not all have, and those have no lease any more.
    Timer,
    /// Not yet: Redis could not be reached in time.
    CutOff,
}

impl Fleet {
    /// Nothing has been exchanged yet.
    pub fn new(settings: ReplicasSettings) -> Self {
        Self {
            settings,
            began: clock::boot(),
            pending: Mutex::default(),
            log: Mutex::new(Log { known: Known::new(PLACES), time: FleetTime::default() }),
            lease: AtomicU64::new(0),
            cut_off: AtomicBool::new(true),
            disagrees: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            members: AtomicU64::new(0),
            news: Notify::new(),
            leases: watch::Sender::new(0),
            appended: watch::Sender::new(Ticket::default()),
            told: watch::Sender::new(Default::default()),
            left: watch::Sender::new(false),
            landings: broadcast::Sender::new(LANDINGS),
        }
    }

    /// What the member of this fleet obeys.
    pub fn rules(&self) -> Rules {
        Rules { lease: micros(self.settings.lease), told_when_appended: self.settings.mode == Mode::Async }
    }

    /// Whether memory may be served to a reader who comes now. The time is read before the lease, and both before
    /// anything else is looked at.
    pub fn is_leased(&self) -> bool {
        clock::boot() < self.lease.load(Ordering::Acquire)
    }

    /// Waits for a lease, if there is use in it: whether memory may be served to a reader who came when this was called.
    pub async fn ask(&self) -> bool {
        let arrived = clock::boot();
        if arrived < self.lease.load(Ordering::Acquire) {
            return true;
        }
        if self.cut_off.load(Ordering::Acquire) {
            return false;
        }
        let mut leases = self.leases.subscribe();
        self.wanted.store(true, Ordering::Release);
        self.news.notify_one();
        let answered = leases.wait_for(|lease| arrived < *lease || self.cut_off.load(Ordering::Acquire));
        timeout(self.settings.ask_within, answered).await.is_ok_and(|lease| lease.is_ok_and(|lease| arrived < *lease))
    }

    /// The others are to be told of this: with the next exchange, at rest some time after.
    pub fn tell(&self, item: Item) {
        self.pending().push(item);
    }

    /// All that the others were to be told until now.
    pub fn ticket(&self) -> Ticket {
        self.pending().ticket()
    }

    /// Waits until all that came before this ticket is told. If Redis cannot be reached in time it is told later.
    pub async fn told(&self, ticket: Ticket) -> Told {
        let (mut appended, mut told) = (self.appended.subscribe(), self.told.subscribe());
        self.news.notify_one();
        if !matches!(timeout(self.settings.tell_within, appended.wait_for(|done| *done >= ticket)).await, Ok(Ok(_))) {
            return Told::CutOff;
        }
        // The longest that a lease of another one may still last.
        let limit = Duration::from_micros(self.rules().margin()) + GRACE;
        match timeout(limit, told.wait_for(|(done, _)| *done >= ticket)).await {
            Ok(Ok(told)) if !told.1 => Told::Settled,
            _ => Told::Timer,
        }
    }

    /// Whether writes are refused because Redis has not answered for as long as a lease lasts.
    pub fn refuses_writes(&self) -> bool {
        self.settings.cut_off == CutOff::Refuse && !self.has_heard_lately()
    }

    fn has_heard_lately(&self) -> bool {
        let heard = self.heard.load(Ordering::Acquire);
        heard > 0 && clock::boot().saturating_sub(heard) <= micros(self.settings.lease.max(self.settings.timeout * 2))
    }

    /// Where it stands.
    pub fn standing(&self) -> Standing {
        let is = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        if is(&self.leaving) {
            Standing::Leaving
        } else if is(&self.disagrees) {
            Standing::Disagrees
        } else if self.is_leased() || self.settings.lease.is_zero() && !is(&self.cut_off) {
            Standing::Leased
        } else if is(&self.cut_off) {
            Standing::Alone
        } else {
            Standing::Asking
        }
    }

    /// Whether a reader who came now would get nothing that is kept.
    pub fn serves_nothing_kept(&self) -> bool {
        !matches!(self.standing(), Standing::Leased | Standing::Asking)
    }

    /// Whether it is too early to say that requests may come: the first exchange has not been answered.
    pub fn is_joining(&self) -> bool {
        self.heard.load(Ordering::Acquire) == 0 && clock::boot().saturating_sub(self.began) < micros(JOINING)
    }

    /// How many members the fleet has, as far as is known.
    pub fn members(&self) -> u64 {
        self.members.load(Ordering::Relaxed)
    }

    /// It takes no lease any more.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.lease.store(0, Ordering::Release);
        self.news.notify_one();
    }

    /// Whether it is told to stop.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// What is to be told. Held briefly, never across an await.
    pub fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the log. Held briefly, never across an await.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fetch of an answer has ended.
    pub fn landed(&self, name: Name) {
        // Nobody may wait for any.
        let _ = self.landings.send(name);
    }

    /// Fetches that end from here on.
    pub fn landings(&self) -> broadcast::Receiver<Name> {
        self.landings.subscribe()
    }

    /// Something is to be told, or somebody waits for a lease; says whether anybody does.
    pub async fn news(&self) -> bool {
        self.news.notified().await;
        self.wanted.swap(false, Ordering::AcqRel)
    }

    /// Until then memory may be served; all before has been obeyed.
    pub fn set_lease(&self, until: Micros) {
        let until = if self.is_leaving() { 0 } else { until };
        self.lease.store(until, Ordering::Release);
        self.leases.send_replace(until);
    }

    /// What is known after an exchange that was sent then, if one was answered.
    pub fn set_known(&self, is_cut_off: bool, disagrees: bool, members: u32, heard: Option<Micros>) {
        self.cut_off.store(is_cut_off, Ordering::Release);
        self.disagrees.store(disagrees, Ordering::Release);
        self.members.store(members.into(), Ordering::Relaxed);
        if let Some(heard) = heard {
            self.heard.store(heard, Ordering::Release);
        }
        // Whoever waits for a lease hears that there will be none.
        self.leases.send_modify(|_| ());
    }

    /// What was pushed up to here is in the log.
    pub fn set_appended(&self, ticket: Ticket) {
        self.appended.send_replace(ticket);
    }

    /// What was pushed up to here is told; `by_timer`: since the leases of those who have not said so have run out.
    pub fn set_told(&self, ticket: Ticket, by_timer: bool) {
        self.told.send_replace((ticket, by_timer));
    }

    /// The others know that this replica takes no lease any more.
    pub fn set_left(&self) {
        self.left.send_replace(true);
    }

    /// Waits until they do, no longer than an exchange may take.
    pub async fn left(&self) {
        let mut left = self.left.subscribe();
        let _ = timeout(self.settings.timeout * 2, left.wait_for(|left| *left)).await;
    }
}

fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
