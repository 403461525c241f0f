//! Answers in memory, bounded by bytes.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use moka::notification::RemovalCause;
use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache;
use tokio::sync::OnceCell;

use super::allocator::size_class;
use super::clock;
use super::memory::taken;
use super::metrics::Metrics;
use super::places_kept::Places;
use crate::policy::coherence::ledger::{Place, Tick};
use crate::policy::http::attempts::Failed;
use crate::policy::http::encoding::Coding;
use crate::policy::http::freshness::Aging;
use crate::policy::http::key::Key;
use crate::policy::http::pieces::Pieces;
use crate::policy::http::representation::Prepared;
use crate::policy::resource::Resource;

/// Sources whose parts are counted apart: a quarter of a million words.
const PARTS: usize = 1 << 18;

/// What the store obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// `cache.memory`, in bytes: all stored answers with their bookkeeping.
    pub memory: u64,
}

/// An answer and what decides whether it may be served.
#[derive(Debug)]
pub struct Entry {
    /// What is sent.
    pub answer: Prepared,
    /// When its fetch began.
    pub began: Instant,
    /// The tick noted before its fetch began.
    pub noted: Tick,
    /// Where the last changes of what it is made from are written.
    pub places: Places,
    /// What shaped it; after a change of settings an answer with another fingerprint is unusable.
    pub fingerprint: u64,
    /// What few answers have from the beginning.
    rare: Option<Box<Rare>>,
    /// What few answers get.
    more: OnceLock<Box<More>>,
}

// With what `Arc` adds it takes 160 bytes of the allocator; a byte more, and it takes 192.
const _: () = assert!(size_of::<Entry>() + 2 * size_of::<usize>() <= 160);

/// What is otherwise with few answers.
#[derive(Clone, Copy, Debug, Default)]
struct Rare {
    /// The upstream's age of the answer when its fetch began (RFC 9111 section 5.1), in seconds: zero from the API itself.
    initial_age: u32,
    /// The age at which it expires because it was fetched while its scopes were unsettled, in milliseconds.
    unsettled_expiry: Option<NonZeroU32>,
    /// Where it is written that readers of another origin have seen a newer answer, if the upstream tells them apart.
    variants: Option<Place>,
    /// It names no contact.
    nameless: bool,
}

/// What comes to an answer while it is stored, if it does.
#[derive(Debug, Default)]
struct More {
    /// The body in codings, each made once; `None` if it could not be made or there was no memory for it.
    codings: [OnceCell<Option<Pieces>>; Coding::ALL.len()],
    /// The last fetch that was to bring a newer one and failed.
    failure: Failure,
}

/// How the last fetch failed that was to bring something newer, if one did.
#[derive(Debug, Default)]
pub struct Failure(Mutex<Option<Failed>>);

impl Failure {
    /// One has failed: `judge` is told how the one before did, and says what follows.
    pub fn note(&self, judge: impl FnOnce(Option<Failed>) -> Failed) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(judge(*last));
    }

    /// How it failed, if it did.
    pub fn last(&self) -> Option<Failed> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// An entry whose refetch has not failed.
    pub fn new(answer: Prepared, began: Instant, noted: Tick, places: Box<[Place]>, fingerprint: u64) -> Self {
        Self { answer, began, noted, places: places.into(), fingerprint, rare: None, more: OnceLock::new() }
    }

    /// The same with the upstream's age of it.
    #[must_use]
    pub fn aged(self, initial_age: Duration) -> Self {
        let initial_age = u32::try_from(initial_age.as_secs()).unwrap_or(u32::MAX);
        if initial_age == self.rare().initial_age { self } else { self.with(|rare| rare.initial_age = initial_age) }
    }

    /// The same, expiring at this age whatever the TTL.
    #[must_use]
    pub fn expiring(self, at: Duration) -> Self {
        let milliseconds = u32::try_from(at.as_millis()).unwrap_or(u32::MAX);
        self.with(|rare| rare.unsettled_expiry = NonZeroU32::new(milliseconds.max(1)))
    }

    /// The same, put out of date by what readers of another origin have seen.
    #[must_use]
    pub fn varying(self, variants: Place) -> Self {
        self.with(|rare| rare.variants = Some(variants))
    }

    /// The same, naming a contact or none.
    #[must_use]
    pub fn naming_nobody(self, nameless: bool) -> Self {
        if nameless == self.nameless() { self } else { self.with(|rare| rare.nameless = nameless) }
    }

    fn with(mut self, change: impl FnOnce(&mut Rare)) -> Self {
        change(self.rare.get_or_insert_default());
        self
    }

    fn rare(&self) -> Rare {
        self.rare.as_deref().copied().unwrap_or_default()
    }

    /// Where it is written that readers of another origin have seen a newer answer, if the upstream tells them apart.
    pub fn variants(&self) -> Option<Place> {
        self.rare().variants
    }

    /// It names no contact: whose it is was learned, and is asked again when it is revalidated.
    pub fn nameless(&self) -> bool {
        self.rare().nameless
    }

    /// The upstream's age of the answer when its fetch began.
    pub fn initial_age(&self) -> Duration {
        Duration::from_secs(self.rare().initial_age.into())
    }

    /// How old it is now, with the upstream's age of it.
    pub fn age(&self, now: Instant) -> Duration {
        self.initial_age() + now.saturating_duration_since(self.began)
    }

    /// The age at which it expires because it was fetched while its scopes were unsettled, if it was.
    pub fn unsettled_expiry(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.rare().unsettled_expiry?.get().into()))
    }

    /// What time and circumstance say of it.
    pub fn aging(&self, now: Instant) -> Aging {
        Aging {
            age: now.saturating_duration_since(self.began),
            negative: self.answer.status == StatusCode::NOT_FOUND,
            unsettled_expiry: self.unsettled_expiry(),
        }
    }

    /// The body in a coding, if it was made already.
    pub fn coded(&self, coding: Coding) -> &OnceCell<Option<Pieces>> {
        &self.more.get_or_init(Box::default).codings[coding as usize]
    }

    /// The codings its body was made in, with their bytes.
    pub fn forms(&self) -> Vec<(Coding, usize)> {
        let codings = self.more.get().map_or(&[][..], |more| &more.codings[..]);
        let made = |(coding, cell): (Coding, &OnceCell<Option<Pieces>>)| Some((coding, cell.get()?.as_ref()?.len()));
        Coding::ALL.into_iter().zip(codings).filter_map(made).collect()
    }

    /// Its refetch has failed: `judge` is told how it failed before, and says what follows.
    pub fn failed(&self, judge: impl FnOnce(Option<Failed>) -> Failed) {
        self.more.get_or_init(Box::default).failure.note(judge);
    }

    /// How its last refetch failed, if it did.
    pub fn failure(&self) -> Option<Failed> {
        self.more.get()?.failure.last()
    }

    /// Bytes in memory, about: the answer, its places, and what moka and the allocator keep for each entry.
    fn weight(&self, key: &Key) -> u32 {
        // Of moka 220, of the allocator for all that is small 20, and the sizes of what is always there.
        const BOOKKEEPING: usize = 240 + 160 + 64 + 32;
        let codings = self.more.get().map_or(&[][..], |more| &more.codings[..]);
        let more = if codings.is_empty() { 0 } else { size_class(size_of::<More>()) };
        let coded: usize = codings.iter().filter_map(|coded| Some(64 + taken(coded.get()?.as_ref()?))).sum();
        let rare = self.rare.as_ref().map_or(0, |_| size_class(size_of::<Rare>()));
        let body = taken(self.answer.body.kept());
        let key = size_class(2 * size_of::<usize>() + key.weight());
        let weight = self.answer.weight() + body + more + coded + rare + key + self.places.weight() + BOOKKEEPING;
        u32::try_from(weight).unwrap_or(u32::MAX)
    }
}

/// All stored answers.
pub struct Store {
    cache: Cache<Key, Arc<Entry>>,
    parts: Arc<Parts>,
    /// The age at which an answer is let go of.
    longest: Duration,
}

impl Store {
    /// An empty store. moka evicts the least valuable (TinyLFU); freshness is ours, since moka's clock knows nothing
    /// of when a fetch began. From the age of `longest` on no answer is of use whatever happens: [`Self::sweep`] lets go of it
    /// a little later, so that it can still be said to be too old. moka would keep another node for each.
    pub fn new(settings: StoreSettings, longest: Duration, metrics: &Metrics) -> Self {
        let longest = longest.saturating_add(longest / 8);
        let evictions = metrics.evictions.clone();
        let parts = Arc::new(Parts::default());
        let kept = parts.clone();
        let cache = Cache::builder()
            .max_capacity(settings.memory)
            .weigher(|key: &Key, entry: &Arc<Entry>| entry.weight(key))
            .eviction_listener(move |key: Arc<Key>, entry: Arc<Entry>, cause| {
                kept.goes(&key);
                let cause = match cause {
                    RemovalCause::Explicit if entry.aging(clock::now()).age >= longest => RemovalCause::Expired,
                    cause => cause,
                };
                evictions.with_label_values(&[cause_label(cause)]).inc();
            })
            .build();
        Self { cache, parts, longest }
    }

    /// What is kept for a key, current or not.
    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.cache.get(key)
    }

    /// Keeps an answer, unless one from a later fetch is kept. moka runs over its bound under bursts of large values
    /// if its pending work waits.
    pub fn put(&self, key: Key, entry: Arc<Entry>) {
        let place = self.parts.place(&key);
        // At once: between a look and an insertion a newer one may come.
        self.cache.entry(key).and_compute_with(|stored| match stored {
            Some(stored) if stored.value().noted > entry.noted => Op::Nop,
            _ => {
                self.parts.comes(place);
                Op::Put(entry)
            }
        });
        self.cache.run_pending_tasks();
    }

    /// Weighs an entry anew, since moka weighs at insertion only; a newer one that took its place stays.
    pub fn reweigh(&self, key: &Key, entry: &Arc<Entry>) {
        self.cache.entry_by_ref(key).and_compute_with(|stored| match stored {
            Some(stored) if Arc::ptr_eq(stored.value(), entry) => {
                self.parts.comes(self.parts.place(key));
                Op::Put(entry.clone())
            }
            _ => Op::Nop,
        });
        self.cache.run_pending_tasks();
    }

    /// Whether another read of this key's source may be kept: never no, if one is.
    pub fn may_have_others(&self, key: &Key) -> bool {
        if key.resource() == Resource::Conversations {
            return self.parts.count(key) > 0;
        }
        let list = Key::new(key.inbox(), key.contact(), None);
        let own = u32::from(self.cache.contains_key(key));
        key.host().is_some() || self.parts.count(key) > own || self.cache.contains_key(&list)
    }

    /// Forgets what is kept for a key, unless it is from a later fetch than the one noted; says whether there was any.
    pub fn forget(&self, key: &Key, noted: Tick) -> bool {
        let done = self.cache.entry_by_ref(key).and_compute_with(|stored| match stored {
            Some(stored) if stored.value().noted <= noted => Op::Remove,
            _ => Op::Nop,
        });
        matches!(done, CompResult::Removed(_))
    }

    /// Lets go of what is of no use any more, and says how long it is to the next time: at least an eighth of what an answer may
    /// live, so that all are looked at eight times at most.
    pub fn sweep(&self, now: Instant) -> Duration {
        let mut next = self.longest;
        for (key, entry) in &self.cache {
            let left = self.longest.saturating_sub(entry.aging(now).age);
            if left.is_zero() {
                self.forget(&key, entry.noted);
            } else {
                next = next.min(left);
            }
        }
        self.cache.run_pending_tasks();
        next.max(self.longest / 8).max(Duration::from_secs(1))
    }

    /// Lets go of everything.
    pub fn clear(&self) {
        self.cache.invalidate_all();
        self.cache.run_pending_tasks();
    }

    /// Everything that is kept.
    pub fn all(&self) -> impl Iterator<Item = (Arc<Key>, Arc<Entry>)> {
        self.cache.iter()
    }

    /// How many answers are kept, and their weight in bytes.
    pub fn size(&self) -> (u64, u64) {
        self.cache.run_pending_tasks();
        (self.cache.entry_count(), self.cache.weighted_size())
    }
}

/// How many answers that are no lists are kept of each source, by a hash of it: of who shares one, too.
struct Parts {
    counts: Box<[AtomicU32]>,
    hasher: RandomState,
}

impl Default for Parts {
    fn default() -> Self {
        Self { counts: (0..PARTS).map(|_| AtomicU32::new(0)).collect(), hasher: RandomState::new() }
    }
}

impl Parts {
    /// Where the answers to this key are counted; none if they are lists.
    fn place(&self, key: &Key) -> Option<usize> {
        (key.resource() != Resource::Conversations).then(|| self.index(key))
    }

    fn index(&self, key: &Key) -> usize {
        usize::try_from(self.hasher.hash_one(key.contact()) % PARTS as u64).unwrap_or_default()
    }

    fn count(&self, key: &Key) -> u32 {
        self.counts[self.index(key)].load(Ordering::Acquire)
    }

    fn comes(&self, place: Option<usize>) {
        if let Some(place) = place {
            self.counts[place].fetch_add(1, Ordering::AcqRel);
        }
    }

    fn goes(&self, key: &Key) {
        if let Some(place) = self.place(key) {
            self.counts[place].fetch_sub(1, Ordering::AcqRel);
        }
    }
}

pub(super) fn cause_label(cause: RemovalCause) -> &'static str {
    match cause {
        RemovalCause::Expired => "expired",
        RemovalCause::Explicit => "explicit",
        RemovalCause::Replaced => "replaced",
        RemovalCause::Size => "size",
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::policy::coherence::ledger::Ledger;

    const LONGEST: Duration = Duration::from_secs(64);
    const KEPT: Duration = Duration::from_secs(72);

    fn entry(began: Instant) -> Entry {
        let answer = Prepared::again(StatusCode::OK, &HeaderMap::new(), None, None, bytes::Bytes::new().into());
        Entry::new(answer, began, Ledger::new(1 << 10, [1, 2]).now(), Box::default(), 0)
    }

    #[test]
    fn what_is_of_no_use_any_more_is_swept_away_and_counted() {
        let metrics = Metrics::new();
        let store = Store::new(StoreSettings { memory: 1 << 20 }, LONGEST, &metrics);
        let (old, now) = (clock::now(), clock::now() + KEPT);
        let keys = ["old", "new"].map(|contact| Key::new("inbox", contact, None));
        store.put(keys[0].clone(), Arc::new(entry(old)));
        store.put(keys[1].clone(), Arc::new(entry(now.checked_sub(Duration::from_secs(40)).unwrap())));
        assert_eq!(store.sweep(now), Duration::from_secs(32), "until the other one");
        assert_eq!(keys.map(|key| store.get(&key).is_some()), [false, true]);
        assert_eq!(store.sweep(now + Duration::from_secs(31)), KEPT / 8, "not sooner");
        assert_eq!(store.size().0, 1);
    }

    #[test]
    fn it_is_known_whether_other_reads_of_a_source_are_kept() {
        let store = Store::new(StoreSettings { memory: 1 << 20 }, LONGEST, &Metrics::new());
        let of = |resource| Key::of(resource, "inbox", "someone", None);
        let (list, contact, page) = (of(Resource::Conversations), of(Resource::Contact), of(Resource::Messages(7)));
        let others = || [&list, &contact, &page].map(|key| store.may_have_others(key));
        assert_eq!(others(), [false; 3]);
        let kept = Arc::new(entry(clock::now()));
        store.put(list.clone(), kept.clone());
        assert_eq!(others(), [false, true, true]);
        store.put(page.clone(), kept.clone());
        store.put(page.clone(), kept.clone());
        store.reweigh(&page, &kept);
        store.forget(&list, kept.noted);
        store.size();
        assert_eq!(others(), [true, true, false]);
        store.clear();
        store.size();
        assert_eq!(others(), [false; 3]);
    }

    #[test]
    fn what_few_answers_have_is_kept_beside() {
        let place = Ledger::new(1 << 10, [1, 2]).place(&crate::policy::coherence::ledger::Scope::Contact(7));
        let plain = entry(clock::now()).aged(Duration::ZERO).naming_nobody(false);
        assert!(plain.rare.is_none() && plain.variants().is_none() && plain.unsettled_expiry().is_none());
        let rare =
            plain.aged(Duration::from_secs(5)).expiring(Duration::from_secs(7)).varying(place).naming_nobody(true);
        assert_eq!(
            (rare.initial_age(), rare.unsettled_expiry()),
            (Duration::from_secs(5), Some(Duration::from_secs(7)))
        );
        assert_eq!((rare.variants(), rare.nameless()), (Some(place), true));
    }
}
