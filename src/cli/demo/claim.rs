//! What an act claims, and how that is told.

use std::time::Duration;

use super::client::Answer;
use super::counted::Counted;

/// What came of an act.
#[derive(Debug)]
pub(super) struct Told {
    /// How long the client waited; `None` if the act was left out.
    took: Option<Duration>,
    words: String,
    /// Whether its claim held.
    pub(super) holds: bool,
}

impl Told {
    /// Of an act that was not played.
    pub(super) fn left_out(why: String) -> Self {
        Self { took: None, words: why, holds: true }
    }
}

/// A claim about what was waited for, and not about an answer.
pub(super) fn claim_state(words: impl Into<String>, took: Duration, holds: bool) -> Told {
    let words = words.into();
    Told { took: Some(took), words: if holds { words } else { format!("DID NOT HOLD: {words}") }, holds }
}

/// A claim that held, or what there was instead.
#[expect(clippy::unnecessary_wraps, reason = "the end of acts that may have failed before")]
pub(super) fn claim(words: impl Into<String>, answer: &Answer, grown: Counted, holds: bool) -> Result<Told, String> {
    let mut words = words.into();
    if !holds {
        let Counted {
            upstream,
            hits,
            misses,
            joined,
            by_write,
            by_webhook,
            by_cable,
            by_replica,
            stood_in,
            untold,
            ..
        } = grown;
        words = format!(
            "DID NOT HOLD: {words}\n{:29}status {}, Cache-Status: {}\n{:29}upstream {upstream}, hits {hits}, misses \
             {misses}, joined {joined}, stood in {stood_in}, told by write {by_write}, webhook {by_webhook}, cable \
             {by_cable}, replica {by_replica}, untold {untold}",
            "",
            answer.status.as_u16(),
            answer.cache_status(),
            "",
        );
    }
    Ok(Told { took: Some(answer.took), words, holds })
}

/// A line for an act.
pub(super) fn for_people(act: &str, told: Result<Told, String>) -> String {
    let told = told.unwrap_or_else(|why| Told { took: None, words: format!("DID NOT HOLD: {why}"), holds: false });
    let took = told.took.map(|took| format!("{:.1} ms", took.as_secs_f64() * 1000.0)).unwrap_or_default();
    format!("  {act:16}{took:>9}  {}\n", told.words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};

    fn answer() -> Answer {
        let headers =
            HeaderMap::from_iter([("cache-status".parse().unwrap(), "anteroom; hit; ttl=3".parse().unwrap())]);
        Answer { status: StatusCode::OK, headers, body: "[]".into(), took: Duration::from_micros(1234) }
    }

    #[test]
    fn a_claim_that_held_is_a_line_with_its_time() {
        let told = claim("from memory", &answer(), Counted::default(), true).unwrap();
        assert!(told.holds);
        assert_eq!(for_people("hit", Ok(told)), "  hit                1.2 ms  from memory\n");
    }

    #[test]
    fn one_that_did_not_is_told_with_what_there_was_instead() {
        let grown = Counted { upstream: 2, ..Counted::default() };
        let told = claim("from memory", &answer(), grown, false).unwrap();
        assert!(!told.holds);
        let line = for_people("hit", Ok(told));
        for part in ["DID NOT HOLD: from memory", "status 200", "anteroom; hit; ttl=3", "upstream 2"] {
            assert!(line.contains(part), "{line}");
        }
        let line = for_people("hit", Err("no answer in time".to_owned()));
        assert_eq!(line, "  hit                        DID NOT HOLD: no answer in time\n");
    }
}
