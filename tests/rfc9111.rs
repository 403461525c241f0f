//! `policy/rfc9111/` against a second opinion, the crate `http-cache-semantics`, on random heads of both directions: whether an answer
//! is stored, and whether it is then used for another request at a later time.
//!
//! The crate follows RFC 7234 and says itself where it is simple. So each disagreement must be one of those that are listed in
//! [`REASONS`], with the paragraph that decides it, and what that paragraph says. `RFC9111_SAMPLES` is how many are tried.

#![allow(unreachable_pub, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "what a test needs must be there, and figures are shown")]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anteroom::policy::rfc9111::cache_control::{RequestDirectives, Restriction};
use anteroom::policy::rfc9111::freshness::{Arrival, Control};
use anteroom::policy::rfc9111::reuse::{Reuse, Terms, reuse};
use anteroom::policy::rfc9111::storable::{Asked, storable};
use anteroom::policy::rfc9111::vary::Chosen;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};

/// When the answer came, since 1970: Sun, 06 Nov 1994 08:49:37 GMT.
const RECEIVED: Duration = Duration::from_secs(784_111_777);

const ARRIVAL: Arrival = Arrival { version: Version::HTTP_11, asked: RECEIVED, received: RECEIVED };

/// Random numbers that are the same for the same seed (xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % sides as u64).unwrap()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.roll(times) == 0
    }
}

/// An answer, the request that it was given to, and a later one.
#[derive(Debug)]
struct Sample {
    status: StatusCode,
    answer: HeaderMap,
    first: HeaderMap,
    second: HeaderMap,
    /// How long after the answer came the second request does.
    later: Duration,
}

const RESPONSE_DIRECTIVES: [&str; 21] = [
    "max-age=10",
    "max-age=100",
    "max-age=100",
    "max-age=1000",
    "max-age=200000",
    "max-age=0",
    "s-maxage=300",
    "s-maxage=50",
    "s-maxage=0",
    "public",
    "private",
    "no-store",
    "no-cache",
    "must-revalidate",
    "no-transform",
    "foo",
    "foo=\"bar\"",
    "max-age=\"30\"",
    "max-age=x",
    "max-age=-1",
    "stale-if-error=60",
];
const STRANGE_RESPONSE_DIRECTIVES: [&str; 22] = [
    "MAX-AGE=20",
    "No-Store",
    "proxy-revalidate",
    "must-understand",
    "immutable",
    "stale-while-revalidate=30",
    "no-cache=\"x-a\"",
    "private=\"x-a\"",
    "no-cache=\"x-a, x-b\"",
    "foo=\"a, no-store\"",
    "foo=\"a, max-age=5\"",
    "foo=\"unclosed, max-age=5",
    "max-age = 10",
    "max-age=+10",
    "max-age=10.5",
    "max-age='10'",
    "max-age=99999999999999999999999",
    "max-age=",
    "max-age",
    "max-age=10\"",
    "s-maxage=x",
    "",
];
const REQUEST_DIRECTIVES: [&str; 12] = [
    "no-cache",
    "no-store",
    "max-age=0",
    "max-age=5",
    "max-age=50",
    "max-stale",
    "max-stale=5",
    "max-stale=50",
    "min-fresh=5",
    "min-fresh=50",
    "foo",
    "only-if-cached",
];
const STRANGE_REQUEST_DIRECTIVES: [&str; 7] = [
    "No-Cache",
    "max-age=x",
    "max-stale=x",
    "min-fresh=x",
    "max-age=\"5\"",
    "foo=\"a, no-cache\"",
    "max-age=99999999999999999999999",
];
const DATES: [&str; 6] = [
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sun, 06 Nov 1994 08:50:17 GMT",
    "Sun, 06 Nov 1994 08:48:57 GMT",
    "Sun, 06 Nov 1994 07:49:37 GMT",
    "Sat, 05 Nov 1994 08:49:37 GMT",
    "Tue, 06 Nov 1984 08:49:37 GMT",
];
const STRANGE_DATES: [&str; 7] = [
    "0",
    "",
    "Sunday, 06-Nov-94 08:50:17 GMT",
    "Sun Nov  6 08:50:17 1994",
    "Sun, 06 Nov 1994 08:50:17 +0000",
    "Sun, 06 Nov 1994 08:50:17 AEST",
    "Fri, 06 Nov 1959 08:49:37 GMT",
];
const STATUSES: [u16; 12] = [200, 203, 204, 300, 301, 302, 307, 404, 410, 414, 501, 308];
const STRANGE_STATUSES: [u16; 10] = [201, 206, 299, 303, 400, 403, 499, 500, 503, 599];

impl Sample {
    fn random(dice: &mut Dice) -> Self {
        let mut answer = HeaderMap::new();
        let strange = |dice: &mut Dice| dice.once_in(25);
        for _ in 0..dice.one(&[0, 1, 1, 1, 1, 2]) {
            let count = dice.one(&[1, 1, 1, 2, 2, 3]);
            let line = directives(dice, count, &RESPONSE_DIRECTIVES, &STRANGE_RESPONSE_DIRECTIVES);
            answer.append(header::CACHE_CONTROL, line);
        }
        for (name, often) in [(header::DATE, 2), (header::EXPIRES, 3), (header::LAST_MODIFIED, 3)] {
            if dice.once_in(often) {
                let date = if strange(dice) {
                    dice.one(&STRANGE_DATES)
                } else if name == header::DATE {
                    DATES[dice.roll(3)]
                } else {
                    dice.one(&DATES)
                };
                answer.append(name.clone(), HeaderValue::from_static(date));
                if strange(dice) {
                    answer.append(name, HeaderValue::from_static(date));
                }
            }
        }
        let values: [(&str, usize, &[&str]); 6] = [
            ("age", 4, &["0", "5", "40", "5, 40", "x", "-5", "5.5", "99999999999999999999999"]),
            ("vary", 4, &["foo", "Foo", "foo, bar", "accept-language", "*", "foo, *"]),
            ("pragma", 30, &["no-cache"]),
            ("set-cookie", 20, &["a=b"]),
            ("cdn-cache-control", 30, &["max-age=60", "no-store", "max-age=x", "", "foo"]),
            ("etag", 3, &["\"a\"", "W/\"a\""]),
        ];
        for (name, often, texts) in values {
            if dice.once_in(often) {
                // The first few are the usual ones.
                let text = if strange(dice) { dice.one(texts) } else { texts[dice.roll(texts.len().min(3))] };
                answer.append(HeaderName::from_static(name), HeaderValue::from_static(text));
            }
        }
        let status = if strange(dice) { dice.one(&STRANGE_STATUSES) } else { dice.one(&STATUSES) };
        let later = Duration::from_secs(dice.one(&[0, 1, 4, 4, 7, 20, 45, 70, 500, 100_000]));
        let (first, second) = (fields(dice), fields(dice));
        Self { status: StatusCode::from_u16(status).unwrap(), answer, first, second, later }
    }

    /// Whether it is stored, and then used, as we see it.
    fn ours(&self) -> (bool, bool) {
        let Self { status, answer, first, second, later } = self;
        let control = Control::of(answer);
        let asked = Asked {
            has_credentials: first.contains_key(header::AUTHORIZATION),
            no_store: RequestDirectives::of(first).no_store,
        };
        let is_stored = storable(asked, *status, answer, &control, RECEIVED).is_ok();
        let chosen = Chosen::of(answer, first);
        let terms = Terms::of(*status, answer, &control, ARRIVAL);
        let is_chosen = chosen.is_some_and(|chosen| chosen.matches(second));
        let reuse = reuse(&terms, terms.age(*later), &RequestDirectives::of(second));
        (is_stored, is_stored && is_chosen && !matches!(reuse, Reuse::No(_)))
    }

    /// The same in the other opinion.
    fn theirs(&self) -> (bool, bool) {
        let request = |fields: &HeaderMap| {
            let mut request = Request::new(());
            *request.method_mut() = Method::GET;
            *request.headers_mut() = fields.clone();
            request
        };
        let mut response = Response::new(());
        (*response.status_mut(), *response.headers_mut()) = (self.status, self.answer.clone());
        let received = UNIX_EPOCH + RECEIVED;
        let policy = CachePolicy::new_options(&request(&self.first), &response, received, CacheOptions::default());
        let now: SystemTime = received + self.later;
        let is_used = matches!(policy.before_request(&request(&self.second), now), BeforeRequest::Fresh(_));
        (policy.is_storable(), policy.is_storable() && is_used)
    }
}

/// A line of directives.
fn directives(dice: &mut Dice, count: usize, usual: &[&'static str], strange: &[&'static str]) -> HeaderValue {
    let line: Vec<&str> =
        (0..count).map(|_| if dice.once_in(40) { dice.one(strange) } else { dice.one(usual) }).collect();
    HeaderValue::try_from(line.join(dice.one(&[", ", ","]))).unwrap()
}

/// The fields of a request.
fn fields(dice: &mut Dice) -> HeaderMap {
    let mut fields = HeaderMap::new();
    if dice.once_in(4) {
        let count = dice.one(&[1, 1, 2]);
        fields.append(header::CACHE_CONTROL, directives(dice, count, &REQUEST_DIRECTIVES, &STRANGE_REQUEST_DIRECTIVES));
    }
    let values: [(&str, usize, &[&str]); 5] = [
        ("foo", 2, &["1", "1", "1", "1", "1", "2", "1,2", "1, 2"]),
        ("bar", 3, &["1", "1", "2"]),
        ("accept-language", 3, &["de", "de", "de", "de", "en", "DE"]),
        ("authorization", 12, &["Basic x"]),
        ("pragma", 40, &["no-cache"]),
    ];
    for (name, often, texts) in values {
        if dice.once_in(often) {
            fields.append(HeaderName::from_static(name), HeaderValue::from_static(dice.one(texts)));
        }
    }
    fields
}

/// Why the two may disagree about a sample: a name, the paragraph that decides, and whether it is about this sample.
type Reason = (&'static str, &'static str, fn(&Sample) -> bool);

/// The lines of a field as one text in lower case.
fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    let lines: Vec<String> = headers.get_all(name).iter().map(|line| line.to_str().unwrap().to_owned()).collect();
    lines.join(", ")
}

fn says(sample: &Sample, words: &[&str]) -> bool {
    let said = text(&sample.answer, &header::CACHE_CONTROL);
    words.iter().any(|word| said.to_ascii_lowercase().contains(word))
}

fn asks(sample: &Sample, words: &[&str]) -> bool {
    let asked =
        format!("{}, {}", text(&sample.first, &header::CACHE_CONTROL), text(&sample.second, &header::CACHE_CONTROL));
    words.iter().any(|word| asked.to_ascii_lowercase().contains(word))
}

const REASONS: &[Reason] = &[
    ("any final status is stored if the answer says so", "RFC 9111 section 3", |sample| {
        STRANGE_STATUSES.contains(&sample.status.as_u16())
    }),
    ("names of directives have no case", "RFC 9111 section 5.2", |sample| {
        let said = [&sample.answer, &sample.first, &sample.second].map(|fields| text(fields, &header::CACHE_CONTROL));
        said.iter().any(|said| said.bytes().any(|byte| byte.is_ascii_uppercase()))
    }),
    ("a comma between quotes parts nothing", "RFC 9110 section 5.6.4", |sample| {
        says(sample, &["foo=\"a", "foo=\"unclosed", "x-a, x-b", "10\""]) || asks(sample, &["foo=\"a"])
    }),
    ("a number is digits, and what is none is zero", "RFC 9111 sections 1.2.2 and 4.2.1", |sample| {
        let said = text(&sample.answer, &header::CACHE_CONTROL);
        let is_bare = said.split(',').any(|one| matches!(one.trim(), "max-age" | "max-age="));
        is_bare || says(sample, &["= 10", "=+10", "=99999", "max-age=10\""]) || asks(sample, &["=x", "=99999"])
    }),
    ("of several values the smallest", "RFC 9111 section 4.2.1", |sample| {
        // There the first counts, and forbids stale.
        [&sample.answer, &sample.first, &sample.second].iter().any(|fields| {
            let said = text(fields, &header::CACHE_CONTROL).to_ascii_lowercase();
            let parts: Vec<&str> = said.split(',').map(str::trim).collect();
            let name = |part: &'_ str| part.split('=').next().unwrap_or_default().to_owned();
            // It takes one that is in quotes for another each time.
            let differ = |one: &str, other: &str| name(one) == name(other) && (one != other || one.contains('"'));
            parts.iter().enumerate().any(|(at, one)| parts[..at].iter().any(|other| differ(one, other)))
        })
    }),
    ("named fields are about these fields", "RFC 9111 sections 5.2.2.4 and 5.2.2.7", |sample| {
        let said = Control::of(&sample.answer).directives;
        [said.no_cache, said.private].iter().any(|restriction| matches!(restriction, Restriction::Fields(_)))
    }),
    ("must-understand", "RFC 9111 section 5.2.2.3", |sample| says(sample, &["must-understand"])),
    ("stale-while-revalidate", "RFC 5861 section 3", |sample| says(sample, &["stale-while-revalidate"])),
    ("immutable gives no lifetime", "RFC 8246 section 2", |sample| says(sample, &["immutable"])),
    ("proxy-revalidate is about stale answers", "RFC 9111 section 5.2.2.8", |sample| {
        says(sample, &["proxy-revalidate"])
    }),
    ("s-maxage forbids stale", "RFC 9111 section 5.2.2.10", |sample| {
        says(sample, &["s-maxage"]) && asks(sample, &["max-stale"])
    }),
    ("CDN-Cache-Control", "RFC 9213 section 2.1", |sample| sample.answer.contains_key("cdn-cache-control")),
    ("Set-Cookie forbids nothing", "RFC 9111 section 7.3", |sample| sample.answer.contains_key(header::SET_COOKIE)),
    ("Pragma of an answer says nothing", "RFC 9111 section 5.4", |sample| sample.answer.contains_key(header::PRAGMA)),
    ("Pragma counts where there is no Cache-Control", "RFC 9111 section 5.4", |sample| {
        sample.second.contains_key(header::PRAGMA) && sample.second.contains_key(header::CACHE_CONTROL)
    }),
    ("Age: the first member, at most 2^31", "RFC 9111 sections 1.2.2 and 5.1", |sample| {
        let age = text(&sample.answer, &header::AGE);
        age.contains(',') || age.len() > 10
    }),
    (
        "dates are in one of three forms, and there is one of them",
        "RFC 9110 section 5.6.7; RFC 9111 section 5.3",
        |sample| {
            [header::DATE, header::EXPIRES, header::LAST_MODIFIED].iter().any(|name| {
                sample.answer.get_all(name).iter().count() > 1
                    || sample
                        .answer
                        .get(name)
                        .is_some_and(|date| STRANGE_DATES[2..].iter().any(|strange| date == strange))
            })
        },
    ),
    ("what is fresh without a word: a day at most", "RFC 9111 section 4.2.2", |sample| {
        sample.later > Duration::from_secs(24 * 3600) && sample.answer.contains_key(header::LAST_MODIFIED)
    }),
    ("max-stale: as long as it says", "RFC 9111 section 5.2.1.2", |sample| {
        let terms = Terms::of(sample.status, &sample.answer, &Control::of(&sample.answer), ARRIVAL);
        let stale_for = terms.age(sample.later).saturating_sub(terms.lifetime);
        RequestDirectives::of(&sample.second).max_stale == Some(stale_for)
    }),
    ("max-stale is no leave to use what needs validation", "RFC 9111 section 5.2.2.4", |sample| {
        says(sample, &["no-cache"]) && asks(sample, &["max-stale"])
    }),
    ("max-stale and min-fresh at once", "RFC 9111 sections 5.2.1.2 and 5.2.1.3", |sample| {
        asks(sample, &["max-stale"]) && asks(sample, &["min-fresh"])
    }),
    ("white space and case that mean nothing", "RFC 9111 section 4.1", |sample| {
        let bare = |fields: &HeaderMap, name: &str| {
            fields.get(name).map(|value: &HeaderValue| value.to_str().unwrap().replace(' ', "").to_lowercase())
        };
        let alike = |name: &str| {
            sample.first.get(name) != sample.second.get(name) && bare(&sample.first, name) == bare(&sample.second, name)
        };
        sample.answer.contains_key(header::VARY) && (alike("foo") || alike("accept-language"))
    }),
];

#[test]
fn a_second_opinion_on_rfc_9111() {
    let number =
        |name: &str, otherwise: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let samples = number("RFC9111_SAMPLES", 50_000);
    let mut dice = Dice(number("RFC9111_SEED", 0x9111).max(1));
    let mut disagreements: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    let (mut agreed, mut beyond_doubt, mut used) = (0, 0, 0);
    for at in 0..samples {
        let sample = Sample::random(&mut dice);
        let (ours, theirs) = (sample.ours(), sample.theirs());
        let reasons: Vec<&Reason> = REASONS.iter().filter(|(_, _, applies)| applies(&sample)).collect();
        beyond_doubt += u64::from(reasons.is_empty());
        used += u64::from(ours.1);
        if ours == theirs {
            agreed += 1;
            continue;
        }
        assert!(!reasons.is_empty(), "sample {at}: (stored, used) is {ours:?} here and {theirs:?} there: {sample:#?}");
        // Where only one reason applies, it is that.
        if let [(name, paragraph, _)] = reasons[..] {
            disagreements.entry(name).or_insert((0, paragraph)).0 += 1;
        }
    }
    println!("{samples} samples: {agreed} agreed, {beyond_doubt} without a reason to disagree, {used} used");
    for (name, (count, paragraph)) in &disagreements {
        println!("{count:8}  {name} ({paragraph})");
    }
    assert!(beyond_doubt * 2 > samples && used * 10 > samples, "the samples say too little");
    // Who lists a reason shows that it is one.
    let unused: Vec<&str> =
        REASONS.iter().map(|(name, ..)| *name).filter(|name| !disagreements.contains_key(name)).collect();
    assert!(samples < 50_000 || unused.is_empty(), "nobody disagrees by these: {unused:?}");
}
