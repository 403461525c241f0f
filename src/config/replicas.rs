//! What of `replicas` goes together, and what replicas obey.

use std::time::Duration;

use super::mistakes::Place;
use super::shown::shown_text;
use super::sources::Reading;
use super::table::{Draft, given};
use crate::engine::replicas::settings::{ReplicasSettings, TierSettings};
use crate::engine::upstream::ways::check_certificates;

/// Leases that make sense, if there are any.
const LEASES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(10)];
/// What does not go together.
pub(super) fn check(reading: &mut Reading) {
    let mut mistakes = Vec::new();
    let Draft {
        redis,
        replicas_secret,
        redis_password_file,
        redis_ca_file,
        lease,
        replicas_timeout,
        tell_within,
        read_timeout,
        fetch_lease,
        ..
    } = &reading.draft;
    if redis.is_none() {
        return;
    }
    if replicas_secret.is_none() && reading.is_missing("replicas.secret") {
        mistakes.push(
            "replicas.secret: is not set, and replicas.redis is; write { file = \"...\" } with the same 32 bytes \
                       or more for all replicas"
                .to_owned(),
        );
    }
    if let Some(file) = redis_password_file
        && let Err(error) = std::fs::read(file)
    {
        let file = file.display().to_string();
        mistakes.push(format!("replicas.password_file: {} cannot be read ({error})", shown_text(&file)));
    }
    if let Some(file) = redis_ca_file {
        let is_tls = redis.as_ref().is_some_and(|address| address.way.is_tls());
        match check_certificates(file) {
            _ if !is_tls => mistakes.push(
                "replicas.ca_file is set, and replicas.redis does not begin with rediss: nothing would be encrypted"
                    .to_owned(),
            ),
            Err(what) => mistakes.push(format!("replicas.ca_file: {what}")),
            Ok(()) => {}
        }
    }
    if let Some(lease) = lease.filter(|lease| !lease.is_zero()) {
        if !(LEASES[0]..=LEASES[1]).contains(&lease) {
            mistakes.push("replicas.lease: write 50ms to 10s, or 0s for every read to ask".to_owned());
        } else if replicas_timeout.is_some_and(|timeout| timeout >= lease / 2) {
            mistakes.push(
                "replicas.timeout and replicas.lease: a lease would end before it can be renewed; let the first be \
                           less than half of the second"
                    .to_owned(),
            );
        }
    }
    if tell_within.is_some() && *tell_within <= *replicas_timeout {
        mistakes.push(
            "replicas.tell_within and replicas.timeout: no write could wait for one answer of Redis; raise the first"
                .to_owned(),
        );
    }
    if let (Some(read_timeout), Some(fetch_lease)) = (*read_timeout, *fetch_lease)
        && fetch_lease < read_timeout * 4
    {
        mistakes.push(
            "replicas.fetch_lease and replicas.read_timeout: a fetch would count as over before that it goes on can be told; let \
             the first be four times the second or more"
                .to_owned(),
        );
    }
    for what in mistakes {
        reading.mistake(Place::Together, what);
    }
}

/// What replicas obey, if there are any.
pub(super) fn settings(draft: &Draft) -> Option<ReplicasSettings> {
    Some(ReplicasSettings {
        redis: draft.redis.clone()?,
        ca_file: draft.redis_ca_file.clone(),
        password_file: draft.redis_password_file.clone(),
        secret: given(draft.replicas_secret.clone()),
        prefix: given(draft.replicas_prefix.clone()),
        mode: given(draft.replicas_mode),
        cut_off: given(draft.cut_off),
        lease: given(draft.lease),
        timeout: given(draft.replicas_timeout),
        ask_within: given(draft.ask_within),
        tell_within: given(draft.tell_within),
        alone_ttl: given(draft.alone_ttl),
        tier: given(draft.tier).then(|| TierSettings {
            read_timeout: given(draft.read_timeout),
            fetch_lease: given(draft.fetch_lease),
            fetch_wait: given(draft.fetch_wait),
        }),
    })
}
