use super::*;
use crate::policy::http::fields::map;

const ARRIVAL: Arrival = Arrival {
    version: http::Version::HTTP_11,
    asked: Duration::from_secs(784_111_776),
    received: Duration::from_secs(784_111_777),
};
const RFC: Duration = Duration::ZERO;

fn terms(cache_control: &'static str) -> Terms {
    let head = map(&[("cache-control", cache_control), ("age", "2")]);
    Terms::of(StatusCode::OK, &head, &Control::of(&head), ARRIVAL)
}

fn asked(cache_control: &'static str) -> RequestDirectives {
    RequestDirectives::of(&map(&[("cache-control", cache_control)]))
}

fn judge(said: &'static str, age: u64, wanted: &'static str) -> Reuse {
    reuse(&terms(said), Duration::from_secs(age), &asked(wanted))
}

#[test]
fn terms_are_read_from_the_head() {
    let read = terms("max-age=10, stale-while-revalidate=5, stale-if-error=7");
    assert_eq!(read.lifetime, Duration::from_secs(10));
    assert_eq!(read.initial_age, Duration::from_secs(3), "what it was told, and the second that it took");
    assert_eq!(read.age(Duration::from_secs(4)), Duration::from_secs(7));
    assert_eq!([read.seconds_left(Duration::from_secs(7)), read.seconds_left(Duration::from_secs(13))], [3, -3]);
    assert_eq!(read.of_use_for(RFC), Duration::from_secs(14));
    assert_eq!(terms("max-age=10").of_use_for(Duration::from_secs(5)), Duration::from_secs(12));
    assert_eq!(terms("max-age=10, must-revalidate").of_use_for(Duration::from_secs(5)), Duration::from_secs(7));
    assert!(terms("no-cache").needs_validation && !terms("no-cache=\"a\"").needs_validation);
}

/// Section 4: fresh, or allowed to be served stale, or validated. Section 4.2: fresh is a lifetime above the age.
#[test]
fn an_answer_is_reused_as_long_as_it_is_fresh() {
    for (said, age, expected) in [
        ("max-age=10", 0, Reuse::Fresh),
        ("max-age=10", 9, Reuse::Fresh),
        ("max-age=10", 10, Reuse::No(Why::Stale)),
        ("max-age=0", 0, Reuse::No(Why::Stale)),
        ("no-cache, max-age=10", 0, Reuse::No(Why::Stale)),
        ("no-cache=\"a\", max-age=10", 0, Reuse::Fresh),
        ("must-revalidate, max-age=10", 9, Reuse::Fresh),
        ("must-revalidate, max-age=10", 10, Reuse::No(Why::Stale)),
    ] {
        assert_eq!(judge(said, age, "x"), expected, "{said} at {age}");
    }
}

/// RFC 5861 section 3; RFC 9111 section 4.2.4.
#[test]
fn an_answer_is_sent_while_it_is_asked_for_behind_if_it_says_so() {
    for (said, age, expected) in [
        ("max-age=10, stale-while-revalidate=5", 10, Reuse::WhileRevalidating),
        ("max-age=10, stale-while-revalidate=5", 14, Reuse::WhileRevalidating),
        ("max-age=10, stale-while-revalidate=5", 15, Reuse::No(Why::Stale)),
        ("max-age=10, stale-while-revalidate=5, must-revalidate", 11, Reuse::No(Why::Stale)),
        ("max-age=10, stale-while-revalidate=5, proxy-revalidate", 11, Reuse::No(Why::Stale)),
        ("s-maxage=10, stale-while-revalidate=5", 11, Reuse::No(Why::Stale)),
        ("no-cache, max-age=10, stale-while-revalidate=5", 11, Reuse::No(Why::Stale)),
    ] {
        assert_eq!(judge(said, age, "x"), expected, "{said} at {age}");
    }
}

/// Section 5.2.1.
#[test]
fn a_request_may_want_less_or_more() {
    let (request, stale) = (Reuse::No(Why::Request), Reuse::No(Why::Stale));
    for (said, age, wanted, expected) in [
        ("max-age=10", 5, "no-cache", request),
        ("max-age=10", 5, "max-age=0", request),
        ("max-age=10", 5, "max-age=4", request),
        ("max-age=10", 5, "max-age=5", Reuse::Fresh),
        ("max-age=10", 5, "min-fresh=5", Reuse::Fresh),
        ("max-age=10", 5, "min-fresh=6", request),
        ("max-age=10", 12, "max-stale=1", stale),
        ("max-age=10", 12, "max-stale=2", Reuse::Stale),
        ("max-age=10", 12, "max-stale", Reuse::Stale),
        ("max-age=10", 12, "max-stale=x", stale),
        ("max-age=10, must-revalidate", 12, "max-stale", stale),
        ("max-age=10, proxy-revalidate", 12, "max-stale", stale),
        ("s-maxage=10", 12, "max-stale", stale),
        ("no-cache, max-age=10", 5, "max-stale", stale),
        ("max-age=10", 12, "max-stale, max-age=11", stale),
        ("max-age=10", 12, "max-stale, max-age=12", Reuse::Stale),
        ("max-age=10, stale-while-revalidate=5", 12, "max-age=11", stale),
        ("max-age=10, stale-while-revalidate=5", 12, "min-fresh=0", stale),
        ("max-age=10, stale-while-revalidate=5", 12, "no-cache", request),
    ] {
        assert_eq!(judge(said, age, wanted), expected, "{said} at {age} for {wanted}");
    }
}

/// Sections 4.2.4 and 5.2.2.2; RFC 5861 section 4.
#[test]
fn a_stale_answer_stands_in_for_an_error_unless_it_says_otherwise() {
    for (said, age, wanted, expected) in [
        ("max-age=10", 15, "x", true),
        ("max-age=10", 29, "x", true),
        ("max-age=10", 30, "x", false),
        ("max-age=10, stale-if-error=60", 69, "x", true),
        ("max-age=10, stale-if-error=60", 70, "x", false),
        ("max-age=10, stale-if-error=2", 15, "x", false),
        ("max-age=10, must-revalidate", 15, "x", false),
        ("max-age=10, proxy-revalidate, stale-if-error=60", 15, "x", false),
        ("s-maxage=10, stale-if-error=60", 15, "x", false),
        ("no-cache, stale-if-error=60", 1, "x", false),
        ("max-age=10", 5, "x", true),
        ("max-age=10, must-revalidate", 5, "x", true),
        ("max-age=10", 15, "no-cache", false),
        ("max-age=10", 15, "max-age=5", false),
        ("max-age=10", 15, "min-fresh=1", false),
    ] {
        let found = stands_in(&terms(said), Duration::from_secs(age), &asked(wanted), Duration::from_secs(20));
        assert_eq!(found, expected, "{said} at {age} for {wanted}");
    }
    let errors: Vec<u16> = (200..1000).filter(|status| is_error(StatusCode::from_u16(*status).unwrap())).collect();
    assert_eq!(errors, [500, 502, 503, 504]);
}
