//! Do events arrive? Webhooks that were set up and come no more look just like a quiet day, but for writes that must
//! cause one.

use std::time::Duration;

use http::{Method, StatusCode};

use super::atomic::{AtomicU64, Ordering};
use super::ledger::Moment;

/// What is known of the application's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// None has come yet, and none is owed for long.
    Unknown,
    /// They come.
    Arriving,
    /// One was owed for too long, since then.
    Silent {
        /// When the write was answered that should have caused one.
        since: Moment,
    },
}

/// The last event, and the first write since then that must cause one. Zero is never.
#[derive(Debug, Default)]
pub struct Watermark {
    heard: AtomicU64,
    /// When that write began, and in the lowest bits for how many seconds it went on: one number, so that nobody sees
    /// half of it.
    owed: AtomicU64,
}

/// Enough for writes of twelve days and programs of five centuries.
const SECONDS_BITS: u32 = 20;
const SECONDS: u64 = (1 << SECONDS_BITS) - 1;

impl Watermark {
    /// A genuine event has come.
    pub fn heard(&self, Moment(now): Moment) {
        self.heard.fetch_max(now.max(1), Ordering::Relaxed);
    }

    /// A write was done that must cause an event; `began` is from before it was sent, since its event may be here
    /// before its answer. It is due from the answer on: an upload may have gone on for minutes.
    pub fn owed(&self, Moment(began): Moment, Moment(answered): Moment) {
        let heard = self.heard.load(Ordering::Relaxed);
        // The first moment of all is not never.
        let began = began.max(1);
        let took = answered.saturating_sub(began) / 1000;
        let write = began << SECONDS_BITS | took.min(SECONDS);
        // The first one since the last event counts; what was owed before that has been paid.
        let first = |owed: u64| (owed >> SECONDS_BITS <= heard).then_some(write);
        // An event that came after the write began may have been this write's.
        if began > heard {
            let _ = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, first);
        }
    }

    /// Whether events arrive.
    pub fn events(&self, Moment(now): Moment, silent_after: Duration) -> Events {
        let (heard, owed) = (self.heard.load(Ordering::Relaxed), self.owed.load(Ordering::Relaxed));
        let (began, took) = (owed >> SECONDS_BITS, owed & SECONDS);
        let since = began + took * 1000;
        let limit = u64::try_from(silent_after.as_millis()).unwrap_or(u64::MAX);
        if began > heard && now.saturating_sub(since) > limit {
            Events::Silent { since: Moment(since) }
        } else if heard > 0 {
            Events::Arriving
        } else {
            Events::Unknown
        }
    }
}

/// Whether a write that ended so must cause an event, whatever the application holds of it: a new message does. Others
/// may find all as it was, and say nothing (`api.md` section 2).
pub fn must_cause_an_event(method: &Method, path: &str, status: StatusCode) -> bool {
    *method == Method::POST
        && status.is_success()
        && path.contains("/public/api/v1/inboxes/")
        && path.trim_end_matches('/').ends_with("/messages")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn events_are_silent_once_one_is_owed_for_too_long() {
        let mark = Watermark::default();
        assert_eq!(mark.events(Moment(1_000_000), LIMIT), Events::Unknown, "nothing was owed");
        mark.owed(Moment(5_000), Moment(5_010));
        mark.owed(Moment(6_000), Moment(6_010));
        assert_eq!(mark.events(Moment(65_000), LIMIT), Events::Unknown);
        assert_eq!(mark.events(Moment(65_001), LIMIT), Events::Silent { since: Moment(5_000) });
        mark.heard(Moment(70_000));
        assert_eq!(mark.events(Moment(1_000_000), LIMIT), Events::Arriving);
        mark.owed(Moment(80_000), Moment(80_200));
        assert_eq!(mark.events(Moment(140_000), LIMIT), Events::Arriving);
        assert_eq!(mark.events(Moment(140_001), LIMIT), Events::Silent { since: Moment(80_000) });
        mark.heard(Moment(150_000));
        assert_eq!(mark.events(Moment(150_000), LIMIT), Events::Arriving);
    }

    #[test]
    fn a_write_in_the_first_moment_of_all_counts() {
        let mark = Watermark::default();
        mark.owed(Moment(0), Moment(0));
        assert_eq!(mark.events(Moment(60_002), LIMIT), Events::Silent { since: Moment(1) });
    }

    #[test]
    fn an_event_that_is_here_before_its_writes_answer_is_not_owed() {
        let mark = Watermark::default();
        mark.heard(Moment(10_500));
        mark.owed(Moment(10_000), Moment(11_000));
        assert_eq!(mark.events(Moment(1_000_000), LIMIT), Events::Arriving);
    }

    #[test]
    fn an_upload_that_took_longer_than_the_limit_is_no_silence_yet() {
        let mark = Watermark::default();
        mark.heard(Moment(1_000));
        mark.owed(Moment(10_000), Moment(200_500));
        assert_eq!(mark.events(Moment(200_500), LIMIT), Events::Arriving);
        assert_eq!(mark.events(Moment(260_000), LIMIT), Events::Arriving);
        assert_eq!(mark.events(Moment(260_001), LIMIT), Events::Silent { since: Moment(200_000) });
        // What came while it went on has paid for it.
        mark.heard(Moment(150_000));
        assert_eq!(mark.events(Moment(1_000_000), LIMIT), Events::Arriving);
        mark.owed(Moment(300_000), Moment(u64::MAX));
        assert_eq!(mark.events(Moment(u64::MAX), LIMIT), Events::Silent { since: Moment(300_000 + SECONDS * 1000) });
    }

    #[test]
    fn only_a_new_message_must_cause_an_event() {
        let conversations = "/chat/public/api/v1/inboxes/i/contacts/c/conversations";
        for (method, path, status, expected) in [
            ("POST", format!("{conversations}/7/messages"), 200, true),
            ("POST", format!("{conversations}/7/messages"), 422, false),
            ("PATCH", format!("{conversations}/7/messages/9"), 200, false),
            ("POST", conversations.to_owned(), 200, false),
            ("POST", format!("{conversations}/7/toggle_status"), 200, false),
            ("POST", "/api/v1/accounts/1/conversations/7/messages".to_owned(), 200, false),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(must_cause_an_event(&method, &path, status), expected, "{method} {path} {status}");
        }
    }
}
