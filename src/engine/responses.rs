//! Answers that say themselves how they may be cached, in memory, bounded by bytes: several of one key, chosen between by what
//! requests say (RFC 9111 section 4.1).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::ETAG;
use http::{HeaderMap, Method, StatusCode};
use moka::Expiry;
use moka::ops::compute::Op;
use moka::sync::Cache;

use super::fetch_result::Private;
use super::memory::taken_whole;
use super::metrics::Metrics;
use super::store::{Failure, StoreSettings, cause_label};
use super::upstream::error::UpstreamError;
use crate::policy::coherence::ledger::{Place, Tick};
use crate::policy::http::key::Key;
use crate::policy::rfc9111::form;
use crate::policy::rfc9111::part::{Extent, is_same};
use crate::policy::rfc9111::reuse::Terms;
use crate::policy::rfc9111::vary::Chosen;

/// The most answers of one key: whoever varies by more asks again.
const MOST: usize = 32;
/// How long an answer that is of no use by itself any more is kept to be asked for by its validator.
const KEPT_TO_ASK: Duration = Duration::from_secs(60 * 60);
/// The longest that anything is kept, whatever it says.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A stored answer.
#[derive(Debug)]
pub struct Stored {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, as others get them: without those of one connection, `Age` and a length.
    pub fields: HeaderMap,
    /// Its whole body, in the coding in which it came.
    pub body: Bytes,
    /// Which part of the whole the body is, if it is one.
    pub part: Option<Extent>,
    /// What of a request chose it.
    pub chosen: Chosen,
    /// On what terms it is used again.
    pub terms: Terms,
    /// When it was made, since 1970.
    pub made: Duration,
    /// When its head came, by both clocks.
    pub received: (Instant, Duration),
    /// The tick noted before its fetch began.
    pub noted: Tick,
    /// Where the last changes of what it is made from are written.
    pub places: Box<[Place]>,
    /// It names no contact: whose it is was learned, and is asked again when it is validated.
    pub nameless: bool,
    /// From when on it is validated before use, because it was fetched while what it is made from was unsettled.
    pub unsettled: Option<Instant>,
    /// The settings that shaped it.
    pub fingerprint: u64,
    /// The last fetch that was to bring a newer one and failed.
    pub failure: Failure,
}

impl Stored {
    /// How old it is.
    pub fn age(&self, now: Instant) -> Duration {
        self.terms.age(now.saturating_duration_since(self.received.0))
    }

    /// Bytes in memory, about, with what moka and the allocator keep.
    fn weight(&self) -> usize {
        const BOOKKEEPING: usize = 500;
        let field = |name: &str, value: usize| name.len() + value + 100;
        let fields: usize = self.fields.iter().map(|(name, value)| field(name.as_str(), value.len())).sum();
        taken_whole(self.body.len())
            + fields
            + self.chosen.weight()
            + self.places.len() * size_of::<Place>()
            + BOOKKEEPING
    }

    /// Whether another, which was given to a request with these fields, takes its place: it would have been given to that
    /// request, too, whatever fields either of them is chosen by. A part takes the place of the whole only if it is of another.
    fn gives_way_to(&self, newer: &Self, asked: &HeaderMap) -> bool {
        let is_of_another = self.fields.get(ETAG) != newer.fields.get(ETAG);
        let is_in_it = newer.part.is_none_or(|newer| self.part.is_some_and(|part| newer.has(part)));
        self.fingerprint != newer.fingerprint || self.chosen.matches(asked) && (is_in_it || is_of_another)
    }

    /// The greater, the rather it is chosen.
    fn order(&self) -> (bool, Duration, Tick, bool) {
        (!self.chosen.is_for_all(), self.made, self.noted, self.part.is_none())
    }

    /// Whether a request asks for no more than what there is of it.
    pub fn is_enough_for(&self, method: &Method, asked: &HeaderMap) -> bool {
        self.part.is_none_or(|part| {
            *method == Method::GET && part.has_what_is_asked(asked) && self.shape().is_the_one_meant(asked)
        })
    }

    /// It, as far as its forms depend on it.
    pub fn shape(&self) -> form::Stored<'_> {
        let length = self.part.map_or(self.body.len() as u64, |part| part.of);
        form::Stored { status: self.status, fields: &self.fields, length, part: self.part, received: self.received.1 }
    }
}

/// Why nothing was chosen.
#[derive(Clone, Debug)]
pub enum Missing {
    /// Nothing is stored for the target.
    Target,
    /// What is stored is for other requests.
    Choice,
    /// Only this part of it is stored.
    Rest(Arc<Stored>),
}

/// What a fetch brings.
#[derive(Clone)]
pub enum Fetched {
    /// The upstream's answer.
    Answer {
        /// As it came, for whoever asked. None if it said that what is stored still holds.
        first: Option<Private>,
        /// As others may have it on its terms; none if nobody else may.
        stored: Option<Arc<Stored>>,
        /// The upstream's status: 304 if it was asked whether a stored one still holds.
        status: StatusCode,
        /// It was put into the store.
        kept: bool,
        /// The request had conditions of its own, or wanted a part, and the upstream was asked about what is stored instead.
        asked_otherwise: bool,
    },
    /// It had come meanwhile.
    Found(Arc<Stored>),
    /// The upstream gave none.
    Failed(UpstreamError),
    /// It breaks the contract, which is enforced: how, by path.
    BreaksContract(Arc<str>),
    /// Nothing was asked: there was no place in time, or nobody waited any more.
    NotSent,
}

impl Fetched {
    /// The metric label of the fetch's end.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Answer { stored: None, .. } => "not_storable",
            Self::Answer { .. } | Self::Found(_) => "answered",
            Self::Failed(UpstreamError::Timeout) => "deadline",
            Self::Failed(UpstreamError::Spared(_)) => "spared",
            Self::Failed(_) => "upstream_error",
            Self::BreaksContract(_) => "breaks_contract",
            Self::NotSent => "not_sent",
        }
    }
}

/// Those of one key, the last that came first.
type OfKey = Arc<[Arc<Stored>]>;

/// All stored answers.
pub struct Responses {
    cache: Cache<Key, OfKey>,
}

impl Responses {
    /// An empty store.
    pub fn new(settings: StoreSettings, metrics: &Metrics) -> Self {
        let evictions = metrics.evictions.clone();
        let weigh = |key: &Key, all: &OfKey| {
            let weight = key.weight() + all.iter().map(|one| one.weight()).sum::<usize>();
            u32::try_from(weight).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder()
            .max_capacity(settings.memory)
            .expire_after(AsTheySay)
            .weigher(weigh)
            .eviction_listener(move |_, _, cause| evictions.with_label_values(&[cause_label(cause)]).inc())
            .build();
        Self { cache }
    }

    /// The answer for a request with this method and these fields; else what is missing. Of several that would do, it is the one
    /// that was made last; but one that says what it is chosen by is before those that do not, which may have been made for
    /// those who prefer nothing (RFC 9111 section 4.1).
    pub fn choose(
        &self,
        key: &Key,
        method: &Method,
        asked: &HeaderMap,
        fingerprint: u64,
    ) -> Result<Arc<Stored>, Missing> {
        let Some(all) = self.cache.get(key) else { return Err(Missing::Target) };
        let fitting = || all.iter().rev().filter(|one| one.fingerprint == fingerprint && one.chosen.matches(asked));
        let enough = fitting().filter(|one| one.is_enough_for(method, asked)).max_by_key(|one| one.order());
        let part = || fitting().max_by_key(|one| one.order()).cloned().map_or(Missing::Choice, Missing::Rest);
        enough.cloned().ok_or_else(part)
    }

    /// A part that lies beside, or overlaps, another one of the same whole (RFC 9111 section 3.4), for a request with these
    /// fields.
    pub fn part_beside(
        &self,
        key: &Key,
        asked: &HeaderMap,
        fields: &HeaderMap,
        extent: Extent,
        fingerprint: u64,
    ) -> Option<Arc<Stored>> {
        let all = self.cache.get(key)?;
        let mut fitting = all.iter().filter(|one| one.fingerprint == fingerprint && one.chosen.matches(asked));
        let is_beside = |one: &&Arc<Stored>| {
            one.part.is_some_and(|part| part.with(extent).is_some()) && is_same(&one.fields, fields)
        };
        fitting.find(is_beside).cloned()
    }

    /// What requests of a key differ by, as the last answer had it: a text that is the same for those that are given the same.
    pub fn text_of(&self, key: &Key, asked: &HeaderMap) -> String {
        let last = self.cache.get(key).and_then(|all| all.first().cloned());
        last.map(|last| last.chosen.text_of(asked)).unwrap_or_default()
    }

    /// Keeps an answer that was given to a request with these fields, beside those that others are given; unless what a later
    /// fetch brought would have been given to that request, too. Says whether it is kept.
    pub fn put(&self, key: Key, stored: &Arc<Stored>, asked: &HeaderMap) -> bool {
        let mut is_kept = true;
        self.cache.entry(key).and_compute_with(|all| {
            let all = all.map(moka::Entry::into_value).unwrap_or_default();
            let is_newer = |other: &Stored| other.noted > stored.noted && other.chosen.matches(asked);
            is_kept = !all.iter().any(|other| is_newer(other) && stored.gives_way_to(other, asked));
            if !is_kept {
                return Op::Nop;
            }
            let mut kept = vec![stored.clone()];
            kept.extend(all.iter().filter(|other| !other.gives_way_to(stored, asked)).take(MOST - 1).cloned());
            Op::Put(kept.into())
        });
        self.cache.run_pending_tasks();
        is_kept
    }

    /// Forgets an answer, if it is there still; says whether it was.
    pub fn forget(&self, key: &Key, stored: &Arc<Stored>) -> bool {
        let mut was_there = false;
        self.cache.entry_by_ref(key).and_compute_with(|all| {
            let all = all.map(moka::Entry::into_value).unwrap_or_default();
            let rest: OfKey = all.iter().filter(|other| !Arc::ptr_eq(other, stored)).cloned().collect();
            was_there = rest.len() < all.len();
            if rest.is_empty() { Op::Remove } else { Op::Put(rest) }
        });
        was_there
    }

    /// Lets go of everything.
    pub fn clear(&self) {
        self.cache.invalidate_all();
        self.cache.run_pending_tasks();
    }

    /// Everything that is kept.
    pub fn all(&self) -> impl Iterator<Item = (Arc<Key>, Arc<Stored>)> {
        self.cache.iter().flat_map(|(key, all)| all.iter().map(|one| (key.clone(), one.clone())).collect::<Vec<_>>())
    }

    /// How many keys have answers, and their weight in bytes.
    pub fn size(&self) -> (u64, u64) {
        self.cache.run_pending_tasks();
        (self.cache.entry_count(), self.cache.weighted_size())
    }
}

/// How long the answers of a key are kept: as long as one of them is of use.
struct AsTheySay;

impl AsTheySay {
    fn of(all: &OfKey) -> Duration {
        let longest = all.iter().map(|one| one.terms.of_use_for(KEPT_TO_ASK)).max().unwrap_or_default();
        longest.saturating_add(KEPT_TO_ASK).min(LONGEST)
    }
}

impl Expiry<Key, OfKey> for AsTheySay {
    fn expire_after_create(&self, _: &Key, all: &OfKey, _: Instant) -> Option<Duration> {
        Some(Self::of(all))
    }

    fn expire_after_update(&self, _: &Key, all: &OfKey, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(Self::of(all))
    }
}
