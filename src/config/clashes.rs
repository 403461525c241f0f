//! Settings that are right each for itself, but not together.

use std::net::{IpAddr, SocketAddr};

use super::listen::{ListenAddress, overlap};
use super::table::Draft;
use crate::engine::upstream::settings::BaseUrl;
use crate::policy::payload::Trim;

/// Two settings that are right each for itself, but not together.
pub(super) struct Clash {
    pub(super) first: &'static str,
    pub(super) second: &'static str,
    /// `None` if one of them has no value.
    pub(super) clashes: fn(&Draft) -> Option<bool>,
    pub(super) what: &'static str,
}

pub(super) const CLASHES: &[Clash] = &[
    Clash {
        first: "listen.address",
        second: "admin.address",
        clashes: |draft| {
            let (public, admin) = (draft.listen.as_ref()?, draft.admin?);
            let twice = public.iter().enumerate().any(|(at, one)| public[..at].iter().any(|other| one.overlaps(other)));
            Some(twice || public.iter().filter_map(ListenAddress::port).any(|one| overlap(one, admin)))
        },
        what: "two listeners would take the same port; give them different ones",
    },
    Clash {
        first: "upstream.url",
        second: "listen.address",
        clashes: |draft| {
            let urls = draft.upstream.as_ref()?;
            let mut ports = draft.listen.as_ref()?.iter().filter_map(ListenAddress::port);
            Some(ports.any(|port| urls.iter().any(|url| leads_to(url, port))))
        },
        what: "the upstream would be this proxy itself; write where the API is",
    },
    Clash {
        first: "upstream.url",
        second: "admin.address",
        clashes: |draft| {
            let admin = draft.admin?;
            Some(draft.upstream.as_ref()?.iter().any(|url| leads_to(url, admin)))
        },
        what: "the upstream would be this proxy's private listener; write where the API is",
    },
    Clash {
        first: "cache.max_body",
        second: "cache.memory",
        clashes: |draft| Some(draft.max_body? > draft.memory?),
        what: "the largest list would not fit into the cache; lower the first or raise the second",
    },
    Clash {
        first: "cache.max_body",
        second: "cache.fetch_memory",
        clashes: |draft| Some(draft.max_body? > draft.fetch_memory?),
        what: "the largest list could never be collected; lower the first or raise the second",
    },
    Clash {
        first: "cache.stale_if_error",
        second: "cache.ttl",
        clashes: |draft| Some(!draft.stale_if_error?.is_zero() && draft.stale_if_error? < draft.ttl?.fixed()?),
        what: "both are ages, and the first would end before the second; raise the first, or write 0s for never",
    },
    Clash {
        first: "cache.stale_if_error",
        second: "cache.ttl_with_events",
        clashes: |draft| Some(!draft.stale_if_error?.is_zero() && draft.stale_if_error? < draft.ttl_with_events?),
        what: "both are ages, and the first would end before the second; raise the first, or write 0s for never",
    },
    Clash {
        first: "cache.stale_if_error",
        second: "cache.ttl_without_events",
        clashes: |draft| Some(!draft.stale_if_error?.is_zero() && draft.stale_if_error? < draft.ttl_without_events?),
        what: "both are ages, and the first would end before the second; raise the first, or write 0s for never",
    },
    Clash {
        first: "cache.ttl_without_events",
        second: "cache.ttl_with_events",
        clashes: |draft| Some(draft.ttl_without_events? > draft.ttl_with_events?),
        what: "lists would be kept longer when nobody tells that they have changed; swap them",
    },
    Clash {
        first: "cache.ttl_with_events",
        second: "webhook.secrets",
        clashes: |draft| {
            draft.ttl_with_events?;
            Some(draft.webhook_secrets.as_ref()?.is_empty() && draft.unsigned_token.is_none())
        },
        what: "no event would ever arrive; set webhook.secrets, or leave the first out",
    },
    Clash {
        first: "payload.trim.drop",
        second: "payload.trim.statuses",
        clashes: |draft| Some(Trim::compile(None, draft.statuses.as_ref()?, draft.drop.as_ref()?, false).is_err()),
        what: "conversations are chosen by the status that would be dropped; leave one of the two out",
    },
];

/// Whether an upstream's URL is that of a listener: by its address, or by a name that is always this machine's.
fn leads_to(upstream: &BaseUrl, listener: SocketAddr) -> bool {
    let host = upstream.host();
    let same_host = match host.parse::<IpAddr>() {
        Ok(ip) => ip == listener.ip() || (listener.ip().is_unspecified() && (ip.is_loopback() || ip.is_unspecified())),
        Err(_) => {
            host.eq_ignore_ascii_case("localhost") && (listener.ip().is_loopback() || listener.ip().is_unspecified())
        }
    };
    same_host && listener.port() == upstream.port()
}
