//! `GET /top?seconds=10`: who asked most within the seconds after this was asked.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::reply;
use crate::engine::body::Body;
use crate::engine::clock;
use crate::engine::problem::problem;
use crate::engine::top::Seen;
use crate::policy::heavy::{Counted, Heavy};
use crate::state::State;

/// For how long it is watched: as it is asked for, or this.
const USUAL: u64 = 10;
const LONGEST: u64 = 60;
/// The most that are told of each kind.
const LINES: usize = 50;

/// Watches, and tells what was seen. Whoever leaves meanwhile ends it.
pub(super) async fn top(state: &Arc<State>, head: &Parts) -> Response<Body> {
    let Some(seconds) = seconds(head.uri.query()) else {
        return problem(StatusCode::BAD_REQUEST, "write /top?seconds=10, from 1 to 60", false);
    };
    let Some(watch) = state.observation.top.watch() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "three are watching already", false);
    };
    let began = clock::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let took = clock::since(began);
    match watch.end() {
        Some(seen) => reply::long_text(head, "application/json", document(&seen, took).to_string()),
        None => problem(StatusCode::INTERNAL_SERVER_ERROR, "nothing was watched", false),
    }
}

/// What the query asks for; none if it cannot be had.
fn seconds(query: Option<&str>) -> Option<u64> {
    let Some(query) = query else { return Some(USUAL) };
    let seconds = query.strip_prefix("seconds=")?.parse().ok()?;
    (1..=LONGEST).contains(&seconds).then_some(seconds)
}

fn document(seen: &Seen, took: Duration) -> Value {
    json!({
        "seconds": reply::seconds(took),
        "requests": seen.requests,
        "skipped": seen.skipped,
        "inboxes": table(&seen.inboxes),
        "contacts": table(&seen.contacts),
    })
}

/// The first by each measure: of whoever is among the first by any of them nothing is missing.
fn table(heavy: &Heavy<u64>) -> Value {
    let measures: [fn(&Counted) -> u64; 3] =
        [|counted| counted.requests, |counted| counted.bytes, |counted| counted.misses];
    let mut first: Vec<(u64, Counted)> = Vec::new();
    for by in measures {
        for one in heavy.first(LINES, by) {
            if !first.contains(&one) {
                first.push(one);
            }
        }
    }
    let rows = first.iter().map(|(hash, Counted { requests, bytes, misses })| {
        json!({ "hash": format!("{hash:016x}"), "requests": requests, "bytes": bytes, "misses": misses })
    });
    json!({ "counted": heavy.len(), "too_few_by": heavy.too_few(), "first": rows.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_watched_for_a_minute_at_most() {
        for (query, expected) in [
            (None, Some(10)),
            (Some("seconds=1"), Some(1)),
            (Some("seconds=60"), Some(60)),
            (Some("seconds=0"), None),
            (Some("seconds=61"), None),
            (Some("seconds=-1"), None),
            (Some("seconds="), None),
            (Some("second=1"), None),
            (Some(""), None),
        ] {
            assert_eq!(seconds(query), expected, "{query:?}");
        }
    }

    #[test]
    fn the_first_by_every_measure_are_told_once() {
        let mut heavy = Heavy::new(1000);
        for who in 0..200 {
            for _ in 0..=who {
                heavy.count(who, 1000 - who, who == 3);
            }
        }
        let told = table(&heavy);
        let first = told["first"].as_array().unwrap();
        assert_eq!((&first[0]["hash"], &told["counted"]), (&"00000000000000c7".into(), &200.into()));
        assert!(first.iter().any(|row| row["hash"] == "0000000000000003" && row["misses"] == 4));
        assert!(first.len() <= 3 * LINES);
    }
}
