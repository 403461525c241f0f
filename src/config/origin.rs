//! `cache.ttl = "origin"`: what is set for it, and what says nothing beside it.

use std::time::Duration;

use super::mistakes::Place;
use super::settings::OriginSettings;
use super::sources::{Origin, Reading};
use super::table::{self, Draft};
use crate::policy::http::freshness::Ttl;

/// How long it is believed who is behind a source, where no TTL says how old lists may be.
pub(super) const BELIEVED: Duration = Duration::from_secs(15);

/// Settings that say what the answers say themselves then, or change what is sent as it came. Whoever sets one means it.
const WITHOUT_EFFECT: [&str; 13] = [
    "cache.ttl_with_events",
    "cache.ttl_without_events",
    "cache.stale_while_revalidate",
    "cache.negative_ttl",
    "cache.credentials",
    "cache.compress",
    "cache.serve_outdated_on_error",
    "payload.trim.messages_per_conversation",
    "payload.trim.statuses",
    "payload.trim.drop",
    "payload.trim.sort_conversations",
    "audit.share",
    "encoding.offer",
];

/// What is obeyed if the answers themselves say.
pub(super) fn settings(draft: &Draft) -> Option<OriginSettings> {
    let (Some(Ttl::Origin), Some(obeys_clients), Some(stale_if_error)) =
        (draft.ttl, draft.client_directives, draft.stale_if_error)
    else {
        return None;
    };
    Some(OriginSettings { obeys_clients, stale_if_error })
}

/// Tells of what was set and would have no effect.
pub(super) fn check(reading: &mut Reading) {
    if reading.draft.ttl != Some(Ttl::Origin) {
        if reading.draft.client_directives == Some(true) {
            tell(
                reading,
                "cache.client_directives",
                "a TTL that is set holds for every client; write ttl = \"origin\", or leave the first out",
            );
        }
        return;
    }
    for name in WITHOUT_EFFECT {
        if !matches!(reading.origins.get(name), None | Some(Origin::Default | Origin::Command)) {
            tell(
                reading,
                name,
                "answers are cached as they say themselves, and sent as they came; leave the first out",
            );
        }
    }
}

fn tell(reading: &mut Reading, name: &'static str, what: &str) {
    let told = |name: &str| {
        let value = table::find(name).and_then(|setting| (setting.show)(&reading.draft))?;
        Some(format!("{name} = {value} ({})", reading.origins.get(name)?))
    };
    if let (Some(first), Some(second)) = (told(name), told("cache.ttl")) {
        reading.mistake(Place::Together, format!("{first} and {second}: {what}"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Config, Flags, SettingsFile, load};

    fn read(text: &str) -> Result<Config, String> {
        let flags = Flags { upstream: Some("http://api.test".into()), ..Flags::default() };
        let file = SettingsFile::Text(PathBuf::from("some.toml"), text.to_owned());
        let none = std::iter::empty::<(String, String)>();
        load(file, &flags, none).map(|loaded| loaded.config).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn the_answers_say_or_the_operator() {
        let config = read("cache.ttl = \"origin\"\ncache.client_directives = \"obey\"").unwrap();
        let expected = OriginSettings { obeys_clients: true, stale_if_error: Duration::from_secs(600) };
        assert_eq!((config.origin, config.lifetimes.ttl), (Some(expected), BELIEVED));
        assert_eq!(read("cache.ttl = \"20s\"").unwrap().origin, None);
        assert!(read("cache.ttl = \"upstream\"").unwrap_err().contains("or \"origin\""));
        assert!(read("cache.ttl = \"origin\"\ncache.stale_if_error = \"1s\"").unwrap().origin.is_some());
    }

    #[test]
    fn what_would_have_no_effect_is_told() {
        for (setting, text) in [
            ("cache.stale_while_revalidate", "\"15s\""),
            ("cache.negative_ttl", "\"1s\""),
            ("cache.ttl_with_events", "\"1m\""),
            ("cache.credentials", "\"ignore\""),
            ("payload.trim.drop", "[\"contact.email\"]"),
        ] {
            let mistakes = read(&format!("cache.ttl = \"origin\"\n{setting} = {text}")).unwrap_err();
            assert!(mistakes.contains(setting) && mistakes.contains("cache.ttl = \"origin\""), "{mistakes}");
        }
        let mistakes = read("cache.client_directives = \"obey\"").unwrap_err();
        assert!(mistakes.contains("cache.client_directives") && mistakes.contains("origin"), "{mistakes}");
    }
}
