//! Measured staleness: a list that was fetched again and differs says for how long the older one could be served.
//!
//! Nobody waits for any of it: the looking back begins when a flight has landed, in tasks of its own, a few at once.
//! What cannot be looked at then is left out, so these are samples.
//!
//! An audit asks as every refetch does, with the validator of what is kept: it is as good as that validator. It is the
//! upstream's answer, so it is kept, and lists that are audited are fresher than others.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;

use crate::engine::aside::aside_if;
use crate::engine::clock;
use crate::engine::metrics::{Audited, Untold};
use crate::engine::store::Entry;
use crate::engine::fetch_result::FetchResult;
use crate::policy::coherence::changes::{Change, Changes, Older, Verdict, compare};
use crate::policy::http::freshness::served_until;
use crate::policy::http::key::Key;
use crate::policy::coherence::ledger::{Moment, Of, Place, Scope, Tick};
use crate::policy::payload::Trim;
use crate::policy::resource::{ReadKind, Resource};
use crate::state::State;
use crate::state::upstream::Active;

/// Longer lists are not compared by a thread that serves others: 10 ms for 256 KiB in which everything differs.
const INLINE_LIMIT: usize = 32 * 1024;
/// The messages of a page (`api.md` section 2).
const PAGE: usize = 20;
/// How long there are no audits at all after one has failed.
const REST: Duration = Duration::from_secs(10);
/// How far an answer's `Date` may be from now, beside the time that its fetch took, before the upstream's clock counts
/// as another one: it has whole seconds.
const SAME_CLOCK_MS: u64 = 2_000;
/// How often the ledger is looked at while an event is waited for, so that places are free again early.
const LOOKS: u32 = 8;

/// A flight under way, as far as its answer may tell of changes.
pub(crate) struct Refetch {
    pub(crate) state: Arc<State>,
    /// The settings it was made under.
    pub(crate) active: Arc<Active>,
    pub(crate) key: Key,
    /// What was kept when it began.
    pub(crate) captured: Option<Arc<Entry>>,
    /// It was begun by an audit.
    pub(crate) audits: bool,
}

impl Refetch {
    /// The flight has landed, and nobody has its answer yet: what takes time goes into a task.
    pub(crate) fn result(self, result: Option<&FetchResult>) {
        // What somebody has told of is not measured: webhooks that come late have a metric of their own. Nor is what a
        // superseded flight brings, since that has put the list out of date itself.
        let untold = |captured: &Arc<Entry>| self.state.invalidation.is_untold(captured);
        let captured = self.captured.as_ref().filter(|captured| {
            captured.answer.status == StatusCode::OK && captured.fingerprint == self.active.fingerprint
        });
        match (captured, result) {
            (_, Some(FetchResult::Answer { status: StatusCode::NOT_MODIFIED, .. })) => self.audited(Audited::Same),
            (Some(captured), Some(FetchResult::Answer { entry, status: StatusCode::OK, stored: true, .. })) => {
                let untold = untold(captured);
                if untold || self.audits {
                    let (old, new) = (captured.clone(), entry.clone());
                    self.look_back(old, new, untold);
                }
            }
            (Some(captured), Some(FetchResult::Answer { entry, status: StatusCode::NOT_FOUND, .. })) => {
                self.audited(Audited::Differs);
                if untold(captured) {
                    let served = self.served(captured, entry);
                    self.measure(&Changes::gone(), &served);
                }
            }
            (None, Some(FetchResult::Answer { status: StatusCode::OK, stored: true, .. })) => self.audited(Audited::Skipped),
            // Which is the newer nobody knows, and no audit asks for one.
            (_, Some(FetchResult::Adopted(_))) => {}
            _ => self.audited(Audited::Failed),
        }
    }

    fn audited(&self, how: Audited) {
        if self.audits {
            audit_ended(&self.state, how);
        }
    }

    /// Compares the two answers aside.
    fn look_back(self, old: Arc<Entry>, new: Arc<Entry>, untold: bool) {
        let Ok(permit) = self.state.observation.staleness.comparing.clone().try_acquire_owned() else {
            return self.audited(Audited::Skipped);
        };
        let served = self.served(&old, &new);
        let trim = &self.active.config.payload.trim;
        let resource = self.key.resource();
        let older = Older { asked: served.asked, by_status: trim.filters_statuses(), newest: newest(resource, trim) };
        let (tasks, drained) = (self.state.lifecycle.tasks.clone(), self.state.lifecycle.drained.clone());
        let looking = async move {
            let is_long = old.answer.body.length().max(new.answer.body.length()) >= INLINE_LIMIT;
            // What this process has packed it can unpack.
            let plain = |entry: &Entry| entry.answer.body.plain().unwrap_or_default();
            let work = move || {
                let _permit = permit;
                let [old, new] = [&old, &new].map(|entry| as_list(resource, plain(entry)));
                compare(&old, &new, older)
            };
            let changes = aside_if(is_long, work).await;
            self.audited(if changes.verdict() == Verdict::Same { Audited::Same } else { Audited::Differs });
            if let Some(event) = untold.then(|| self.measure(&changes, &served)).flatten() {
                drop(self);
                event.wait().await;
            }
        };
        // A drain waits for tasks: this one is worth no time then.
        tasks.spawn(async move { drained.run_until_cancelled(looking).await });
    }

    /// When an answer was served of which this flight's takes the place: until now, also while this one was being
    /// fetched; fresh, stale, or, if a fetch had failed before, in its place. By the upstream's clock, as the times in
    /// lists are.
    fn served(&self, captured: &Entry, new: &Entry) -> Served {
        let (now, wall) = (clock::now(), millis(clock::wall()));
        let lifetimes = self.state.lifetimes(&self.active, now);
        let usable = served_until(captured.unsettled_expiry(), &lifetimes);
        let stood_in = captured.failure().map_or(Duration::ZERO, |_| lifetimes.stale_if_error);
        let age = now.saturating_duration_since(captured.began);
        let served = Served::between(wall, age, captured.initial_age(), usable.max(stood_in));
        let fetching = now.saturating_duration_since(new.began).saturating_add(new.initial_age());
        served.by_their_clock(wall, fetching, new.answer.made_at(), captured.answer.made_at())
    }

    /// Says for how long the captured answer could be served though nobody had told that it had changed, and why nobody
    /// had. What may still be told is waited for.
    fn measure(&self, changes: &Changes, served: &Served) -> Option<Awaited> {
        if let Some(stale_for) = changes.stale_for(served.asked, served.until) {
            self.state.metrics.staleness.observe(stale_for.as_secs_f64());
        }
        if !self.active.config.webhook.are_received() {
            return None;
        }
        match changes.verdict() {
            Verdict::Same => {}
            Verdict::NoEvent => untold_change(&self.state, Untold::NoEvent),
            Verdict::Overlooked => {
                untold_change(&self.state, Untold::Bug);
                let contact = self.state.observation.pseudonyms.contact(self.key.inbox(), self.key.contact());
                tracing::error!(
                    contact = format!("{contact:016x}"),
                    "a kept list lacked a message from long before it was fetched; is the upstream's clock right?"
                );
            }
            Verdict::EventDue => return self.awaited(changes.has(Change::MessageAdded)),
        }
        None
    }

    fn awaited(&self, by_a_message: bool) -> Option<Awaited> {
        let captured = self.captured.as_ref()?;
        let permit = self.state.observation.staleness.awaiting.clone().try_acquire_owned().ok()?;
        // What puts one list or one inbox out of date is no event, and the place of long lists is that of others too.
        let ours = [Scope::List(self.key.text_of_list()), Scope::Inbox(self.key.inbox()), Scope::AnyConversation];
        let ours = ours.map(|scope| self.state.invalidation.ledger.place(&scope)).into_iter();
        let ours: Vec<Place> = ours.chain(self.state.invalidation.places_of(&self.key, Of::Everybody)).collect();
        let places = captured.places.iter().copied().filter(|place| !ours.contains(place));
        Some(Awaited {
            state: self.state.clone(),
            noted: captured.noted,
            places: places.collect(),
            limit: self.active.config.webhook.silent_after,
            by_a_message,
            _permit: permit,
        })
    }
}

/// An event that should have come, and may still. Holds no body.
struct Awaited {
    state: Arc<State>,
    noted: Tick,
    places: Box<[Place]>,
    limit: Duration,
    /// Every webhook tells of messages; some are not asked to tell of the rest.
    by_a_message: bool,
    _permit: OwnedSemaphorePermit,
}

impl Awaited {
    /// Waits until the event has come, or need not be waited for any longer. A write to the same lists looks the same.
    async fn wait(self) {
        let ledger = &self.state.invalidation.ledger;
        let has_come = || !ledger.is_current(self.noted, &self.places);
        let began = clock::now();
        for look in 1..=LOOKS {
            if has_come() {
                break;
            }
            let until = self.limit / LOOKS * look;
            tokio::time::sleep(until.saturating_sub(clock::now().saturating_duration_since(began))).await;
        }
        if !ledger.is_current(self.noted, &[]) {
            // Everything was purged or shaped anew: what came besides cannot be told.
            return;
        }
        let class = if has_come() { Untold::EventLate } else { Untold::EventLost };
        untold_change(&self.state, class);
        if class == Untold::EventLost && self.by_a_message {
            // If no other has come since, webhooks are silent, though no client may have written.
            let found = self.state.invalidation.epoch.moment(began);
            self.state.invalidation.watermark.owed(found, found);
        }
    }
}

/// When an answer could be served, by the wall clock, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Served {
    /// When it was made, at the latest; from then on it could be out of date.
    asked: u64,
    /// The last moment at which anybody may have had it.
    until: u64,
}

impl Served {
    /// An answer of this age, which is not served any more beyond an age of `usable`, at this moment by the wall clock.
    fn between(wall: u64, age: Duration, initial_age: Duration, usable: Duration) -> Self {
        let unused = age.saturating_sub(usable);
        let ago = |duration: Duration| wall.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        Self { asked: ago(age.saturating_add(initial_age)), until: ago(unused) }
    }

    /// The same by the upstream's clock, as far as it tells it: the answer that took its place, which was `fetching` for
    /// so long until `wall`, was `made` then, and this one was made `before`.
    fn by_their_clock(self, wall: u64, fetching: Duration, made: Option<u64>, before: Option<u64>) -> Self {
        let earliest = wall.saturating_sub(u64::try_from(fetching.as_millis()).unwrap_or(u64::MAX));
        let within = earliest.saturating_sub(SAME_CLOCK_MS)..=wall.saturating_add(SAME_CLOCK_MS);
        let made = made.filter(|made| !within.contains(made)).unwrap_or(wall);
        let theirs = |ours: u64| ours.saturating_add(made).saturating_sub(wall);
        // Between the two more time may have passed than this process has noticed: it may have been halted.
        Self { asked: theirs(self.asked).min(before.unwrap_or(u64::MAX)), until: theirs(self.until) }
    }
}

/// What a read gave as the list has it.
fn as_list(resource: Resource, body: Bytes) -> Bytes {
    let (before, after) = match resource {
        Resource::Conversations => return body,
        Resource::Conversation(_) => ("[".to_owned(), "]"),
        Resource::Messages(display) => (format!("[{{\"id\":{display},\"messages\":"), "}]"),
        Resource::Contact => ("[{\"id\":0,\"contact\":".to_owned(), "}]"),
    };
    [before.as_bytes(), &body, after.as_bytes()].concat().into()
}

/// How many messages of a conversation it has at most.
fn newest(resource: Resource, trim: &Trim) -> Option<usize> {
    if resource.read() == ReadKind::Messages { Some(PAGE) } else { trim.newest_messages() }
}

fn millis(wall: SystemTime) -> u64 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn untold_change(state: &State, class: Untold) {
    state.metrics.untold_changes.with_label_values(&[class.label()]).inc();
}

/// Counts an audit. After a failed one there are none for a while.
pub(crate) fn audit_ended(state: &State, how: Audited) {
    if how == Audited::Failed {
        let Moment(until) = state.invalidation.epoch.moment_after(clock::now(), REST);
        state.observation.staleness.rests_until.fetch_max(until, Ordering::Relaxed);
    }
    state.metrics.audits.with_label_values(&[how.label()]).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_was_served_until_another_took_its_place_or_it_was_too_old() {
        const NOW: u64 = 1_781_182_950_000;
        for (age, initial_age, usable, asked, until) in [
            (5, 0, 25, 5, 0),
            (25, 0, 25, 25, 0),
            (40, 0, 25, 40, 15),
            (40, 7, 25, 47, 15),
            (5, 7, 25, 12, 0),
            (40, 0, 600, 40, 0),
        ] {
            let served = Served::between(NOW, seconds(age), seconds(initial_age), seconds(usable));
            let expected = Served { asked: NOW - asked * 1000, until: NOW - until * 1000 };
            assert_eq!(served, expected, "{age} {initial_age} {usable}");
        }
        let (wall, took) = (NOW, seconds(3));
        let served = Served { asked: NOW - 20_000, until: NOW };
        let by = |made: u64, before| {
            let theirs = served.by_their_clock(wall, took, Some(made), before);
            (NOW.cast_signed() - theirs.asked.cast_signed(), NOW.cast_signed() - theirs.until.cast_signed())
        };
        for (ahead, before, expected) in [
            // A second lost by rounding and the fetch's own time are no other clock.
            (0, None, (20_000, 0)),
            (2_000, None, (20_000, 0)),
            (-5_000, None, (20_000, 0)),
            (3_000, None, (17_000, -3_000)),
            (-60_000, None, (80_000, 60_000)),
            (60_000, None, (-40_000, -60_000)),
            (0, Some(-18_000), (20_000, 0)),
            // This process was halted for ten minutes.
            (0, Some(-620_000), (620_000, 0)),
        ] {
            let at = |after| NOW.saturating_add_signed(after);
            assert_eq!(by(at(ahead), before.map(at)), expected, "{ahead} {before:?}");
        }
        assert_eq!(served.by_their_clock(wall, took, None, None), served);
        let beyond = Served::between(5, Duration::MAX, Duration::MAX, Duration::MAX);
        assert_eq!(beyond, Served { asked: 0, until: 5 });
    }
}
