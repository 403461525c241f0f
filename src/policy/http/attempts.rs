//! When the upstream is asked again for what it could not give, and whom its refusals are about.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, StatusCode, header};

use crate::policy::coherence::ledger::Moment;

/// A failing upstream is asked at most this often for one list that has an answer to stand in.
pub const PAUSE: Duration = Duration::from_secs(1);
/// The longest that `Retry-After` is heeded: half of what `cache.stale_if_error` is by default, so that the upstream is
/// asked at least once more before the answer that stands in is too old; and what a wrong field costs at most.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// How the upstream does, as far as shared fetches know.
#[derive(Debug, Default)]
pub struct Health {
    /// Outages so far: each begins with the first failure after a success.
    outages: u64,
    /// When the present one began.
    failing_since: Option<Moment>,
}

/// A failed fetch of one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The pause that follows from it.
    until: Moment,
    /// In which outage; none has the number zero.
    outage: u64,
    /// It is not the upstream as a whole: what becomes of others says nothing of it.
    is_own: bool,
}

/// Whether the upstream may be asked for something now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// As if nothing had failed.
    AsUsual,
    /// To see whether it works again: within the budget that all lists share.
    Probe,
    /// Not now.
    NotYet,
}

impl Health {
    /// A fetch brought an answer: whatever failed before says nothing any more.
    pub fn succeeded(&mut self) {
        self.failing_since = None;
    }

    /// A fetch failed. `earlier` is how the same list failed before, if no answer lies between the two. If it was asked for
    /// before its pause had ended, since the upstream had worked for others, the trouble is its own.
    pub fn failed(&mut self, earlier: Option<Failed>, now: Moment, until: Moment) -> Failed {
        let is_own = earlier.is_some_and(|earlier| now < earlier.until && !self.is_of_this_outage(earlier));
        if self.failing_since.is_none() {
            self.outages += 1;
            self.failing_since = Some(now);
        }
        Failed { until, outage: self.outages, is_own }
    }

    /// Whether the upstream may be asked for a list whose last fetch failed like this.
    pub fn attempt(&self, last: Option<Failed>, now: Moment) -> Attempt {
        let Some(failed) = last else { return Attempt::AsUsual };
        let still_fails = self.is_of_this_outage(failed);
        match now < failed.until {
            true if still_fails || failed.is_own => Attempt::NotYet,
            false if still_fails => Attempt::Probe,
            _ => Attempt::AsUsual,
        }
    }

    /// Whether nothing has come from the upstream for a while but failures: one is not yet an outage.
    pub fn is_down(&self, now: Moment) -> bool {
        let pause = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
        self.failing_since.is_some_and(|Moment(since)| now.0.saturating_sub(since) >= pause)
    }

    fn is_of_this_outage(&self, failed: Failed) -> bool {
        self.failing_since.is_some() && failed.outage == self.outages
    }
}

impl Failed {
    /// The upstream refused one asker: that says nothing of the upstream, and others' answers say nothing of it.
    pub fn for_one_asker(until: Moment) -> Self {
        Self { until, outage: 0, is_own: true }
    }

    /// When its pause ends.
    pub fn until(self) -> Moment {
        self.until
    }
}

/// Whether an answer may be about the one who asked. All of a shared request is made from its key but the addresses in
/// `X-Forwarded-For`, which are those of the reader who led: a refusal may be his alone (RFC 9110 section 15.5), unless
/// it says something of the list or of its path.
pub fn is_about_the_asker(status: StatusCode) -> bool {
    let about_the_list = matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE | StatusCode::URI_TOO_LONG
    );
    status.is_client_error() && !about_the_list
}

/// Whether the last good answer may be served instead of this one: if the upstream could not, or would not for now.
pub fn is_for_now(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// For how long the upstream wants to be left alone (RFC 9110 section 10.2.3): seconds, or a date by its own clock if it
/// tells that, else by ours, which is `since_1970`. At most `LONGEST_PAUSE`.
pub fn retry_after(headers: &HeaderMap, since_1970: Duration) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let date = |text: &str| httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok();
    let value = text(header::RETRY_AFTER)?;
    let pause = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        value.parse().map_or(LONGEST_PAUSE, Duration::from_secs)
    } else {
        let now = text(header::DATE).and_then(date).unwrap_or(since_1970);
        date(value)?.checked_sub(now)?
    };
    (!pause.is_zero()).then(|| pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Moment {
        Moment(millis)
    }

    #[test]
    fn a_failed_list_is_asked_for_again_after_a_pause_within_the_budget() {
        let mut health = Health::default();
        assert_eq!(health.attempt(None, at(0)), Attempt::AsUsual);
        let failed = Some(health.failed(None, at(0), at(1000)));
        assert_eq!(health.attempt(failed, at(999)), Attempt::NotYet);
        assert_eq!(health.attempt(failed, at(1000)), Attempt::Probe);
        assert_eq!(health.attempt(None, at(999)), Attempt::AsUsual, "another list has not failed");
        let again = Some(health.failed(failed, at(1000), at(2000)));
        assert_eq!(health.attempt(again, at(1999)), Attempt::NotYet);
        assert_eq!(health.attempt(again, at(2000)), Attempt::Probe);
    }

    #[test]
    fn with_the_first_success_every_list_is_asked_for_as_usual() {
        let mut health = Health::default();
        let lists: Vec<_> = (0..100).map(|list| Some(health.failed(None, at(list), at(list + 1000)))).collect();
        health.succeeded();
        assert!(lists.iter().all(|failed| health.attempt(*failed, at(200)) == Attempt::AsUsual));
        // The next outage is another one.
        let next = health.failed(None, at(300), at(1300));
        assert_eq!(health.attempt(Some(next), at(1300)), Attempt::Probe);
        assert!(lists.iter().all(|failed| health.attempt(*failed, at(400)) == Attempt::AsUsual));
    }

    #[test]
    fn a_list_that_fails_while_others_do_not_has_a_pause_of_its_own() {
        let mut health = Health::default();
        let first = health.failed(None, at(0), at(1000));
        health.succeeded();
        let second = health.failed(Some(first), at(10), at(1010));
        health.succeeded();
        assert_eq!(health.attempt(Some(second), at(1009)), Attempt::NotYet);
        assert_eq!(health.attempt(Some(second), at(1010)), Attempt::AsUsual, "not a matter of the budget");
        // Then nothing works any more: it is like all others.
        health.failed(None, at(1010), at(2010));
        let third = health.failed(Some(second), at(1020), at(2020));
        assert_eq!(health.attempt(Some(third), at(2020)), Attempt::Probe);
        // Two outages with time between them are not its own trouble.
        health.succeeded();
        let fourth = health.failed(Some(third), at(5000), at(35_000));
        health.succeeded();
        assert_eq!(health.attempt(Some(fourth), at(5100)), Attempt::AsUsual);
    }

    #[test]
    fn a_refusal_of_one_asker_ends_with_its_time_and_with_nothing_else() {
        let mut health = Health::default();
        let refused = Some(Failed::for_one_asker(at(30_000)));
        for _ in 0..2 {
            assert_eq!(health.attempt(refused, at(29_999)), Attempt::NotYet);
            assert_eq!(health.attempt(refused, at(30_000)), Attempt::AsUsual);
            health.failed(None, at(0), at(1000));
        }
        health.succeeded();
        assert_eq!(health.attempt(refused, at(29_999)), Attempt::NotYet);
    }

    #[test]
    fn one_failure_is_not_yet_an_outage() {
        let mut health = Health::default();
        assert!(!health.is_down(at(5000)));
        health.failed(None, at(5000), at(6000));
        health.failed(None, at(5900), at(6900));
        assert!(!health.is_down(at(5999)));
        assert!(health.is_down(at(6000)));
        health.succeeded();
        assert!(!health.is_down(at(9000)));
    }

    #[test]
    fn what_is_about_the_one_who_asked() {
        for status in [400, 401, 403, 407, 422, 429, 431, 451] {
            assert!(is_about_the_asker(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for status in [200, 301, 304, 404, 405, 410, 414, 500, 503] {
            assert!(!is_about_the_asker(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        let for_now: Vec<u16> = [200, 401, 403, 404, 429, 500, 503]
            .into_iter()
            .filter(|&code| is_for_now(StatusCode::from_u16(code).unwrap()))
            .collect();
        assert_eq!(for_now, [429, 500, 503]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let wall = Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        let told = |fields: &[(header::HeaderName, &'static str)]| {
            let headers =
                fields.iter().map(|(name, value)| (name.clone(), http::HeaderValue::from_static(value))).collect();
            retry_after(&headers, wall).map(|pause| pause.as_secs())
        };
        let after = |value| told(&[(header::RETRY_AFTER, value)]);
        assert_eq!(told(&[]), None);
        for (value, expected) in [
            ("30", Some(30)),
            (" 7 ", Some(7)),
            ("0", None),
            ("86400", Some(300)),
            ("99999999999999999999999", Some(300)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None),
            ("Sat, 06 Nov 2094 08:00:00 GMT", Some(300)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(after(value), expected, "{value:?}");
        }
        let by_its_clock =
            [(header::RETRY_AFTER, "Mon, 07 Nov 1994 00:00:20 GMT"), (header::DATE, "Mon, 07 Nov 1994 00:00:00 GMT")];
        assert_eq!(told(&by_its_clock), Some(20));
    }
}
