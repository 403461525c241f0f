//! Before a fetch: what another replica has fetched is as good, if nothing has changed since; and what another one fetches
//! just now is waited for. After it: what came is there for the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::fetch::{Fetch, Found, Purpose};
use super::made_from::comparable;
use crate::engine::aside::{aside, aside_if};
use crate::engine::clock;
use crate::engine::fetch_result::FetchResult;
use crate::engine::flights::Interest;
use crate::engine::metrics::{ExchangeFailure, TierAsked};
use crate::engine::replicas::seal::{HEAD, OVERHEAD, Seal};
use crate::engine::replicas::tier::{ForOthers, Said, Tier, Turn};
use crate::engine::sources::Compared;
use crate::engine::store::Entry;
use crate::policy::coherence::ledger::Place;
use crate::policy::coherence::shown::AskedAt;
use crate::policy::http::freshness::{Freshness, judge, ttl};
use crate::policy::http::shared_answer::{self, Facts};
use crate::policy::payload::{self, INLINE_LIMIT, PayloadSettings};
use crate::policy::replicas::exchange::Name;
use crate::policy::replicas::known::Stamp;

/// How often Redis is asked whether another's fetch has ended, if it does not say so.
const POLL: Duration = Duration::from_millis(20);
/// Answers that may be refused before a replica fetches for itself.
const REFUSALS: usize = 3;
/// What an answer has besides its body, at most.
const FIELDS: usize = 64 * 1024;
/// How far ahead of what is known the time of another replica may be, in milliseconds.
const AHEAD: u64 = 1_000;

/// What is known when a fetch begins, for whoever gets its answer.
#[derive(Clone, Copy)]
pub(super) struct Knows {
    stamp: Stamp,
    /// By the clock of Redis, at the latest.
    began: u64,
    clock: u64,
}

impl Fetch {
    /// The way to what the others have, if this fetch may take it: its readers know what was acknowledged when they came,
    /// and all get the same.
    fn tier(&self) -> Option<&Arc<Tier>> {
        let shares = matches!(self.purpose, Purpose::ForReaders | Purpose::Behind) && self.key.origin().is_none();
        self.state.tier.as_ref().filter(|_| shares)
    }

    fn longest(&self) -> usize {
        usize::try_from(self.active.config.fetch.max_body).unwrap_or(usize::MAX).saturating_add(FIELDS)
    }

    /// Looks for what the others have, and waits for what one of them fetches.
    pub(super) async fn of_others(&self, interest: &Interest<FetchResult>) -> Found {
        let Some(tier) = self.tier() else { return Found::Nothing(None) };
        let looking = self.look(tier);
        if !matches!(self.purpose, Purpose::ForReaders) {
            return looking.await;
        }
        tokio::select! {
            biased;
            found = looking => found,
            () = interest.gone() => Found::Unwanted,
        }
    }

    async fn look(&self, tier: &Arc<Tier>) -> Found {
        let name = tier.seal.name(&self.key, self.active.fingerprint);
        let (began, metrics) = (clock::now(), &self.state.metrics.replicas.tier);
        // A reader waits for so long in all, and for another fetch after this one.
        let limit = tier.settings.fetch_wait.min(self.active.config.flights.wait / 3);
        // Before the first look: what ends between a look and the wait for it has been heard.
        let mut landings = tier.fleet.landings();
        let (mut waited, mut refused, mut refusals) = (false, None, 0);
        let found = loop {
            match self.ask(tier, &name, refused.as_deref()).await {
                Some(Said::Answer(value, _room)) => match self.adopt(tier, value).await {
                    Ok(entry) => {
                        metrics.asked(TierAsked::Adopted);
                        break Found::Adopted(entry);
                    }
                    Err((why, head)) => {
                        metrics.asked(why);
                        (refused, refusals) = (Some(head), refusals + 1);
                        if refusals >= REFUSALS {
                            break Found::Nothing(None);
                        }
                    }
                },
                Some(Said::Held) if clock::since(began) < limit => {
                    if !std::mem::replace(&mut waited, true) {
                        metrics.asked(TierAsked::Held);
                    }
                    let left = limit.saturating_sub(clock::since(began));
                    let _ = tokio::time::timeout(POLL.min(left), landed(&mut landings, &name)).await;
                }
                Some(Said::Granted(turn)) => {
                    metrics.asked(TierAsked::Granted);
                    break Found::Nothing(Some(turn));
                }
                Some(Said::Own) => {
                    metrics.asked(TierAsked::Own);
                    break Found::Nothing(None);
                }
                Some(Said::Held) | None => break Found::Nothing(None),
            }
        };
        if waited {
            metrics.waited.observe(clock::since(began).as_secs_f64());
        }
        found
    }

    /// What Redis says; none if it fails to.
    async fn ask(&self, tier: &Arc<Tier>, name: &Name, refused: Option<&[u8]>) -> Option<Said> {
        let captured = self.captured.as_ref().map(|captured| &captured.places[..]).unwrap_or_default();
        let places = self.state.invalidation.path_places(&self.key);
        let places = places.iter().chain(captured).map(|place| place.number());
        let (stamp, least) = {
            let log = tier.fleet.log();
            (log.known.stamp(), log.known.least(places))
        };
        let stamp = stamp.filter(|_| !tier.fleet.serves_nothing_kept())?;
        let (began, metrics) = (clock::now(), &self.state.metrics.replicas.tier);
        let said = tier.ask(name, stamp, least, self.longest() + OVERHEAD, refused).await;
        metrics.seconds.observe(clock::since(began).as_secs_f64());
        if let Err(why) = &said {
            metrics.asked(if why.kind == ExchangeFailure::Timeout { TierAsked::Timeout } else { TierAsked::Failed });
        }
        said.ok()
    }

    /// What another replica has fetched, if it may be served here: else why not, and what it begins with.
    async fn adopt(&self, tier: &Arc<Tier>, value: Vec<u8>) -> Result<Arc<Entry>, (TierAsked, Vec<u8>)> {
        let head = value.get(..HEAD).unwrap_or_default().to_vec();
        self.adopted(tier, value).await.map_err(|why| (why, head))
    }

    async fn adopted(&self, tier: &Arc<Tier>, value: Vec<u8>) -> Result<Arc<Entry>, TierAsked> {
        let (key, fingerprint) = (&self.key, self.active.fingerprint);
        let opened = if value.len() < INLINE_LIMIT {
            tier.seal.open(value, key, fingerprint)
        } else {
            let (tier, key) = (tier.clone(), key.clone());
            aside(move || tier.seal.open(value, &key, fingerprint)).await
        };
        let (stamp, value) = opened.ok_or(TierAsked::Unopened)?;
        let value = self.state.cache.memory.adopt(value.into()).map_err(|_| TierAsked::TooLong)?;
        let (mut answer, facts) = shared_answer::read(value.slice(HEAD..)).ok_or(TierAsked::Unopened)?;
        drop(value);
        answer.body = answer.body.moved(|body| self.state.cache.memory.kept(body.to_bytes()));
        let ledger = &self.state.invalidation.ledger;
        // First: what is seen to change after this puts it out of date, and what changed before is known to be told, or
        // to wait for that.
        let noted = ledger.now();
        let age = age_of(tier, stamp, &facts)?;
        let places: Option<Box<[Place]>> = facts.places.iter().map(|place| ledger.place_of(*place)).collect();
        let now = clock::now();
        let began = now.checked_sub(age).ok_or(TierAsked::TooOld)?;
        // What was shown here under other settings it was not compared with.
        let in_force = self.state.active();
        if in_force.fingerprint != fingerprint || in_force.reshaped.is_some_and(|since| began <= since) {
            return Err(TierAsked::TooOld);
        }
        let answer = answer.sharing(|head| self.state.cache.heads.share(head));
        let mut entry = Entry::new(answer, began, noted, places.ok_or(TierAsked::Unopened)?, fingerprint)
            .aged(Duration::from_secs(facts.initial_age.into()))
            .naming_nobody(facts.nameless);
        if facts.expires > 0 {
            entry = entry.expiring(Duration::from_millis(facts.expires.into()));
        }
        if judge(entry.aging(now), &self.state.lifetimes(&self.active, now)) != Freshness::Fresh {
            return Err(TierAsked::TooOld);
        }
        let entry = Arc::new(entry);
        if !self.agrees(&entry, began).await {
            return Err(TierAsked::Outdated);
        }
        self.state.cache.store.put(key.clone(), entry.clone());
        // In this order: a purge looks through the store after it has been noted.
        if self.state.invalidation.is_purged(&entry) {
            self.state.cache.store.forget(key, noted);
        }
        Ok(entry)
    }

    /// Whether an answer that another replica has asked for at the earliest then hides nothing that another read has shown
    /// here: all that it shows otherwise is newer. What it shows is known from here on.
    async fn agrees(&self, entry: &Arc<Entry>, began: Instant) -> bool {
        let Self { state, key, active, .. } = self;
        if entry.answer.status != StatusCode::OK {
            return true;
        }
        let (kept, read) = (entry.answer.body.clone(), key.read());
        let is_long = kept.length() >= INLINE_LIMIT;
        let work = move || Some(payload::apply_to(read, &kept.plain().ok()?, &PayloadSettings::default()).ok()?.marks);
        let marks = aside_if(is_long, work).await;
        state.invalidation.is_there(key, &state.cache.store);
        let Some(marks) = marks.and_then(|marks| comparable(key, &marks)) else { return true };
        let asked = AskedAt::Elsewhere(state.invalidation.epoch.moment(began));
        let arrived = state.invalidation.came();
        let answer = Compared { key, fingerprint: active.fingerprint, marks: &marks, asked, arrived };
        let differences = state.invalidation.sources.adopt(&answer, || state.cache.may_have_others(key));
        if let Some(differences) = &differences {
            state.invalidation.differs(key, entry.noted, differences, false);
        }
        differences.is_some()
    }

    /// What is known when the fetch begins: now.
    pub(super) fn knows(&self) -> Option<Knows> {
        let tier = self.state.tier.as_ref().filter(|tier| !tier.fleet.serves_nothing_kept())?;
        let log = tier.fleet.log();
        Some(Knows { stamp: log.known.stamp()?, began: log.time.earliest(clock::boot()), clock: log.time.clock })
    }

    /// The fetch has ended: the others get what came, behind whoever waits for it here.
    pub(super) fn hand_on(&self, knows: Option<Knows>, turn: Option<Turn>, result: &FetchResult) {
        let Some(tier) = &self.state.tier else { return };
        let brought = match result {
            FetchResult::Answer { entry, stored: true, .. } => {
                knows.and_then(|knows| self.for_others(knows, entry, clock::now()))
            }
            _ => None,
        };
        tier.landed(tier.seal.name(&self.key, self.active.fingerprint), brought, turn);
    }

    /// An answer that all replicas may have, as long as it is fresh.
    fn for_others(&self, knows: Knows, entry: &Arc<Entry>, now: Instant) -> Option<ForOthers> {
        let aging = entry.aging(now);
        let lasts = ttl(&aging, &self.state.lifetimes(&self.active, now)).saturating_sub(aging.age);
        let length = entry.answer.body.kept().len();
        let is_for_all = entry.variants().is_none() && self.state.invalidation.is_current(entry);
        if !is_for_all || lasts.is_zero() || length > self.longest() {
            return None;
        }
        let (entry, key, fingerprint) = (entry.clone(), self.key.clone(), self.active.fingerprint);
        let Knows { stamp, began, clock } = knows;
        let facts = Facts {
            places: entry.places.iter().map(|place| place.number()).collect(),
            began,
            clock,
            initial_age: u32::try_from(entry.initial_age().as_secs()).unwrap_or(u32::MAX),
            expires: aging.unsettled_expiry.map_or(0, |age| u32::try_from(age.as_millis()).unwrap_or(u32::MAX)),
            nameless: entry.nameless(),
        };
        let make = Box::new(move |seal: &Seal| {
            seal.seal(stamp, &key, fingerprint, &shared_answer::write(&entry.answer, &facts)?)
        });
        Some(ForOthers { stamp, lasts, make, length })
    }
}

/// How old an answer of another replica is, if nothing that it was made from has changed since its fetch began.
fn age_of(tier: &Tier, stamp: Stamp, facts: &Facts) -> Result<Duration, TierAsked> {
    if tier.fleet.pending().is_untold(&facts.places) {
        return Err(TierAsked::Outdated);
    }
    let log = tier.fleet.log();
    if log.known.refuses(stamp, facts.places.iter().copied()).is_some() {
        return Err(TierAsked::Outdated);
    }
    let now = log.time.latest(clock::boot());
    if log.time.clock != facts.clock || facts.began > now + AHEAD {
        return Err(TierAsked::TooOld);
    }
    Ok(Duration::from_millis(now.saturating_sub(facts.began)))
}

/// Waits until a fetch of this name has ended; not for long, for that may not be heard.
async fn landed(landings: &mut Receiver<Name>, name: &Name) {
    loop {
        match landings.recv().await {
            Ok(landed) if landed != *name => {}
            // Of those that were missed it may be one.
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}
