//! Fresh, stale but usable, or too old.

use std::time::Duration;

use crate::policy::coherence::watermark::Events;

/// `cache.ttl`: who says how long answers are fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// The operator, for all alike.
    Fixed(Duration),
    /// The answers themselves (RFC 9111).
    Origin,
}

impl Ttl {
    /// The operator's, if he says.
    pub fn fixed(self) -> Option<Duration> {
        match self {
            Self::Fixed(ttl) => Some(ttl),
            Self::Origin => None,
        }
    }
}

/// How long an answer may be used, counted from the moment its fetch began: so the age of anything served is bounded
/// by construction, however long the fetch took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// `cache.ttl`: served without asking anybody.
    pub ttl: Duration,
    /// `cache.ttl_with_events`: the same while the application's events arrive.
    pub ttl_with_events: Option<Duration>,
    /// `cache.ttl_without_events`: the same while events are set up and do not arrive.
    pub ttl_without_events: Option<Duration>,
    /// `cache.stale_while_revalidate`: after the TTL, served while a refresh runs behind (RFC 5861 section 3).
    pub stale_while_revalidate: Duration,
    /// `cache.stale_if_error`: the age up to which an answer may stand in for a failed fetch (RFC 5861 section 4).
    pub stale_if_error: Duration,
    /// `cache.negative_ttl`: the TTL of a 404; zero keeps none.
    pub negative_ttl: Duration,
}

impl Lifetimes {
    /// Those in force while events are so. Where none are set up, `cache.ttl` stands.
    #[must_use]
    pub fn while_events_are(self, events: Option<Events>) -> Self {
        let instead = match events {
            None => None,
            Some(Events::Arriving) => self.ttl_with_events,
            Some(Events::Unknown | Events::Silent { .. }) => self.ttl_without_events,
        };
        Self { ttl: instead.unwrap_or(self.ttl), ..self }
    }

    /// The age beyond which no answer is of use, whatever happens.
    pub fn longest(&self) -> Duration {
        let ttls = [Some(self.ttl), self.ttl_with_events, self.ttl_without_events];
        let ttl = ttls.into_iter().flatten().max().unwrap_or_default();
        ttl.saturating_add(self.stale_while_revalidate).max(self.stale_if_error).max(self.negative_ttl)
    }
}

/// What a current answer is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Served as it is.
    Fresh,
    /// Served as it is, and refreshed behind.
    Stale,
    /// Only instead of an error.
    OnlyOnError,
    /// Not at all.
    TooOld,
}

/// What time and circumstance say of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aging {
    /// Since its fetch began.
    pub age: Duration,
    /// It is a 404.
    pub negative: bool,
    /// The age at which it expires whatever the TTL, because it was fetched while its scopes were unsettled.
    pub unsettled_expiry: Option<Duration>,
}

/// Judges a **current** answer by its age.
pub fn judge(aging: Aging, lifetimes: &Lifetimes) -> Freshness {
    let Aging { age, negative, unsettled_expiry } = aging;
    if age < ttl(&aging, lifetimes) {
        Freshness::Fresh
    } else if negative {
        // A 404 is an answer, but never a stand-in: clients wipe their storage on it.
        Freshness::TooOld
    } else if age < served_until(unsettled_expiry, lifetimes) {
        Freshness::Stale
    } else if age < lifetimes.stale_if_error {
        Freshness::OnlyOnError
    } else {
        Freshness::TooOld
    }
}

/// What a stored answer is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Served without asking anybody.
    Hit,
    /// Served, and refreshed behind (RFC 5861 section 3).
    WhileRevalidating,
    /// Served only instead of a failed fetch (RFC 5861 section 4).
    IfError,
    /// Not at all.
    Not,
}

/// What a stored answer is used for: one that is out of date at most instead of an error, if the operator allows that
/// (`cache.serve_outdated_on_error`).
pub fn use_of(freshness: Freshness, is_current: bool, outdated_on_error: bool) -> Use {
    match (freshness, is_current) {
        (Freshness::TooOld, _) => Use::Not,
        (_, false) if outdated_on_error => Use::IfError,
        (_, false) => Use::Not,
        (Freshness::Fresh, true) => Use::Hit,
        (Freshness::Stale, true) => Use::WhileRevalidating,
        (Freshness::OnlyOnError, true) => Use::IfError,
    }
}

/// The age up to which an answer is fresh.
pub fn ttl(aging: &Aging, lifetimes: &Lifetimes) -> Duration {
    let of_kind = if aging.negative { lifetimes.negative_ttl } else { lifetimes.ttl };
    aging.unsettled_expiry.map_or(of_kind, |expiry| expiry.min(of_kind))
}

/// The age up to which a list that stays current is served while the upstream works, stale or not.
pub fn served_until(unsettled_expiry: Option<Duration>, lifetimes: &Lifetimes) -> Duration {
    let aging = Aging { age: Duration::ZERO, negative: false, unsettled_expiry };
    let grace = if unsettled_expiry.is_some() { Duration::ZERO } else { lifetimes.stale_while_revalidate };
    ttl(&aging, lifetimes).saturating_add(grace)
}

/// The age at which an answer expires that was fetched before its scopes had settled: as long after landing as the
/// fetch itself took, at least a second, so that a slow upstream is not asked without a pause.
pub fn unsettled_expiry(fetch_took: Duration) -> Duration {
    fetch_took.saturating_add(fetch_took.max(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const LIFETIMES: Lifetimes = Lifetimes {
        ttl: seconds(15),
        ttl_with_events: None,
        ttl_without_events: None,
        stale_while_revalidate: seconds(10),
        stale_if_error: seconds(600),
        negative_ttl: seconds(3),
    };

    #[test]
    fn an_answer_passes_through_its_ages() {
        let judge = |age, negative, unsettled_expiry| judge(Aging { age, negative, unsettled_expiry }, &LIFETIMES);
        for (age, negative, unsettled, expected) in [
            (seconds(0), false, None, Freshness::Fresh),
            (Duration::from_millis(14_999), false, None, Freshness::Fresh),
            (seconds(15), false, None, Freshness::Stale),
            (seconds(25), false, None, Freshness::OnlyOnError),
            (seconds(600), false, None, Freshness::TooOld),
            (seconds(2), true, None, Freshness::Fresh),
            (seconds(3), true, None, Freshness::TooOld),
            (seconds(1), false, Some(seconds(2)), Freshness::Fresh),
            (seconds(2), false, Some(seconds(2)), Freshness::OnlyOnError),
            (seconds(15), false, Some(seconds(40)), Freshness::OnlyOnError),
        ] {
            assert_eq!(judge(age, negative, unsettled), expected, "{age:?} {negative} {unsettled:?}");
        }
    }

    #[test]
    fn what_is_out_of_date_is_never_a_hit() {
        use Freshness::{Fresh, OnlyOnError, Stale, TooOld};
        for (freshness, current, on_error) in [
            (Fresh, Use::Hit, Use::IfError),
            (Stale, Use::WhileRevalidating, Use::IfError),
            (OnlyOnError, Use::IfError, Use::IfError),
            (TooOld, Use::Not, Use::Not),
        ] {
            assert_eq!([true, false].map(|allowed| use_of(freshness, true, allowed)), [current, current]);
            assert_eq!(use_of(freshness, false, true), on_error);
            assert_eq!(use_of(freshness, false, false), Use::Not);
        }
    }

    #[test]
    fn a_list_is_served_until_it_is_no_longer_stale() {
        let unsettled = [(None, 25), (Some(seconds(2)), 2), (Some(seconds(40)), 15)];
        for (unsettled_expiry, until) in unsettled {
            assert_eq!(served_until(unsettled_expiry, &LIFETIMES), seconds(until));
            let judge = |age| judge(Aging { age, negative: false, unsettled_expiry }, &LIFETIMES);
            assert!(matches!(judge(seconds(until - 1)), Freshness::Fresh | Freshness::Stale));
            assert_eq!(judge(seconds(until)), Freshness::OnlyOnError);
        }
    }

    #[test]
    fn endless_lifetimes_do_not_overflow() {
        let forever = Lifetimes { ttl: Duration::MAX, stale_while_revalidate: Duration::MAX, ..LIFETIMES };
        let aging = Aging { age: seconds(u64::MAX / 2), negative: false, unsettled_expiry: None };
        assert_eq!(judge(aging, &forever), Freshness::Fresh);
    }

    #[test]
    fn an_unsettled_answer_lives_a_second_or_as_long_as_its_fetch_took() {
        assert_eq!(unsettled_expiry(Duration::from_millis(40)), Duration::from_millis(1040));
        assert_eq!(unsettled_expiry(seconds(4)), seconds(8));
    }
}
