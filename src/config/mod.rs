//! Text to a checked `Config`, or every mistake at once.
//!
//! Values come from flags, the environment, a file and the defaults, in this order of strength. One table names every
//! setting; each room owns the struct that it obeys, and only this module knows the text.

mod base_url;
mod changes;
mod listing;
mod mistakes;
mod settings;
mod shown;
mod sources;
mod table;
mod values;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub use changes::Changes;
use http::uri::Scheme;
pub use listing::example;
pub use mistakes::ConfigError;
pub use settings::{
    AdminSettings, FetchSettings, LogClient, LogFormat, LogOnly, LogSettings, ServerSettings, SettleSettings,
};
pub use sources::{Flags, SettingsFile};

use crate::engine::flights::FlightSettings;
use crate::engine::store::StoreSettings;
use crate::engine::tls::{Tls, TlsSettings};
use crate::engine::upstream::connector::check_certificates;
use crate::engine::upstream::settings::{BaseUrl, UpstreamSettings};
use crate::policy::coherence::webhook::WebhookSettings;
use crate::policy::http::client::{ForwardSettings, HostRule, TrustedProxies};
use crate::policy::http::encoding::EncodingSettings;
use crate::policy::http::freshness::Lifetimes;
use crate::policy::http::key::QueryRule;
use crate::policy::http::route::CredentialsRule;
use crate::policy::payload::{PayloadSettings, Trim};
use crate::policy::secret::Secret;
use mistakes::Place;
use sources::{Environment, Origin, Reading};
use table::Draft;

/// Where a file of settings is looked for if none is named.
const USUAL_FILES: [&str; 2] = ["anteroom.toml", "/etc/anteroom/anteroom.toml"];

/// Every setting, read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `listen.address`, `admin.address`, the limits on heads and `drain`.
    pub server: ServerSettings,
    /// `listen.tls`.
    pub tls: Option<TlsSettings>,
    /// `admin.token`.
    pub admin: AdminSettings,
    /// `upstream`, but for what concerns shared fetches alone.
    pub upstream: UpstreamSettings,
    /// `listen.trusted_proxies`, `upstream.forwarded_proto` and `upstream.host`.
    pub forward: ForwardSettings,
    /// `cache.memory`.
    pub store: StoreSettings,
    /// `cache.ttl` and its kin.
    pub lifetimes: Lifetimes,
    /// `cache.query`.
    pub query: QueryRule,
    /// `cache.credentials`.
    pub credentials: CredentialsRule,
    /// `cache.serve_outdated_on_error`: whether an answer known to be older than a write may stand in for a failed
    /// fetch.
    pub serve_outdated_on_error: bool,
    /// The limits of a shared fetch.
    pub fetch: FetchSettings,
    /// The limits of waiting for one.
    pub flights: FlightSettings,
    /// `cache.settle` and `cache.settle_unknown`.
    pub settle: SettleSettings,
    /// `payload`, with the trim compiled.
    pub payload: PayloadSettings,
    /// `encoding`.
    pub encoding: EncodingSettings,
    /// `webhook`.
    pub webhook: WebhookSettings,
    /// `cable.observe`: whether events that pass through WebSockets are heard.
    pub observe_cable: bool,
    /// `audit.share`: the share of hits that are fetched again behind.
    pub audit_share: f64,
    /// `log`.
    pub log: LogSettings,
}

/// A `Config`, and the account of where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What the program obeys.
    pub config: Config,
    listing: String,
    draft: Draft,
}

impl Loaded {
    /// What `anteroom config` prints: every setting in force, with its source. It is TOML that can be read again;
    /// secrets are `***` and commented out.
    pub fn listing(&self) -> &str {
        &self.listing
    }

    /// What reading the settings again has changed: this is what the program started with, `current` what was in force
    /// until now.
    pub fn changes_to(&self, current: &Self, new: &Self) -> Changes {
        changes::changes(&self.draft, &current.draft, &new.draft)
    }
}

/// Reads all sources and checks them. `environment` is all of it: it is asked for settings and for secrets.
pub fn load<K: Into<OsString>, V: Into<OsString>>(
    file: SettingsFile,
    flags: &Flags,
    environment: impl IntoIterator<Item = (K, V)>,
) -> Result<Loaded, ConfigError> {
    let (mut reading, file) = read(file, environment);
    reading.flags(flags);
    check(&mut reading);
    let Reading { draft, origins, mistakes, .. } = reading;
    if mistakes.is_empty() {
        let listing = listing::in_force(&draft, &origins);
        Ok(Loaded { config: build(draft.clone()), listing, draft })
    } else {
        Err(ConfigError::new(file, mistakes))
    }
}

/// What the commands that ask a running proxy need of its settings.
#[derive(Debug)]
pub struct AdminAccess {
    /// `admin.address`, or why it cannot be told.
    pub address: Result<SocketAddr, ConfigError>,
    /// `admin.token`, if there is one that can be read.
    pub token: Option<Secret>,
}

/// Where the private listener is, and its token, by the file and the environment. Mistakes elsewhere in them are left to
/// the proxy itself: whoever asks it need not be able to read all its secrets.
pub fn admin_access<K: Into<OsString>, V: Into<OsString>>(
    file: SettingsFile,
    environment: impl IntoIterator<Item = (K, V)>,
) -> AdminAccess {
    let (reading, file) = read(file, environment);
    let address = reading.draft.admin.filter(|_| reading.is_certain("admin.address"));
    AdminAccess { address: address.ok_or_else(|| ConfigError::new(file, reading.mistakes)), token: reading.draft.token }
}

/// Reads the file and the environment; gives the file's name, too, if there is one.
fn read<K: Into<OsString>, V: Into<OsString>>(
    file: SettingsFile,
    environment: impl IntoIterator<Item = (K, V)>,
) -> (Reading, Option<PathBuf>) {
    let mut reading = Reading::new(Environment::new(environment));
    let file = match sources::find_file(file, &USUAL_FILES.map(Path::new)) {
        Ok(None) => None,
        Ok(Some((path, text))) => {
            reading.file(&path, &text);
            Some(path)
        }
        Err((path, what)) => {
            reading.unreadable_file(what);
            Some(path)
        }
    };
    reading.variables();
    (reading, file)
}

/// What is missing, what cannot be used, and what does not go together.
fn check(reading: &mut Reading) {
    give_way(reading);
    if let (Some(file), Some(origin)) = (&reading.draft.ca_file, reading.origins.get("upstream.ca_file").cloned())
        && let Err(what) = check_certificates(file)
    {
        // Somebody may have put a secret here by mistake.
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let what = what.replace(&*name, shown::shown_text(&name));
        reading.reject(table::find("upstream.ca_file").expect("a setting"), origin, &what);
    }
    if reading.is_missing("upstream.url") {
        let what = "upstream.url: is not set; give --upstream URL, set ANTEROOM_UPSTREAM__URL, or write \
                    url = \"https://...\" below [upstream] in a file of settings";
        reading.mistake(Place::Together, what.to_owned());
    }
    check_tls(reading);
    for Clash { first, second, clashes, what } in CLASHES {
        let (draft, origins) = (&reading.draft, &reading.origins);
        let told = |name: &str| {
            let value = table::find(name).and_then(|setting| (setting.show)(draft))?;
            Some(format!("{name} = {value} ({})", origins.get(name)?))
        };
        // A setting that could not be read was told of already.
        if let (Some(first), Some(second)) = (told(first), told(second))
            && clashes(draft) == Some(true)
        {
            let what = format!("{first} and {second}: {what}");
            reading.mistake(Place::Together, what);
        }
    }
}

/// A default does not stand against what was set: nobody who writes a long TTL has thought of the other.
fn give_way(reading: &mut Reading) {
    let Draft { ttl, ttl_with_events, ttl_without_events, stale_if_error, .. } = &reading.draft;
    let ttls = [
        ("cache.ttl", *ttl),
        ("cache.ttl_with_events", *ttl_with_events),
        ("cache.ttl_without_events", *ttl_without_events),
    ];
    let known = ttls.into_iter().filter(|(name, _)| reading.origins.contains_key(name));
    let longest = known.filter_map(|(name, ttl)| Some((ttl?, name))).max();
    if let Some((longest, name)) = longest
        && reading.origins.get("cache.stale_if_error") == Some(&Origin::Default)
        && *stale_if_error < Some(longest)
    {
        reading.draft.stale_if_error = Some(longest);
        reading.origins.insert("cache.stale_if_error", Origin::RaisedTo(name));
    }
}

/// Certificate and key: both or none, and a pair.
fn check_tls(reading: &mut Reading) {
    let what = match (&reading.draft.tls_certificate, &reading.draft.tls_key) {
        (None, None) => return,
        (Some(certificate), Some(key)) => {
            let settings = TlsSettings { certificate: certificate.clone(), key: key.clone() };
            Tls::load(&settings).err()
        }
        (Some(_), None) => Some("listen.tls.certificate is set and listen.tls.key is not; set both".to_owned()),
        (None, Some(_)) => Some("listen.tls.key is set and listen.tls.certificate is not; set both".to_owned()),
    };
    if let Some(what) = what {
        reading.mistake(Place::Together, what);
    }
}

/// Two settings that are right each for itself, but not together.
struct Clash {
    first: &'static str,
    second: &'static str,
    /// `None` if one of them has no value.
    clashes: fn(&Draft) -> Option<bool>,
    what: &'static str,
}

const CLASHES: &[Clash] = &[
    Clash {
        first: "listen.address",
        second: "admin.address",
        clashes: |draft| Some(overlap(draft.listen?, draft.admin?)),
        what: "both listeners would take the same port; give them different ones",
    },
    Clash {
        first: "upstream.url",
        second: "listen.address",
        clashes: |draft| Some(leads_to(draft.upstream.as_ref()?, draft.listen?)),
        what: "the upstream would be this proxy itself; write where the API is",
    },
    Clash {
        first: "upstream.url",
        second: "admin.address",
        clashes: |draft| Some(leads_to(draft.upstream.as_ref()?, draft.admin?)),
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
        clashes: |draft| Some(!draft.stale_if_error?.is_zero() && draft.stale_if_error? < draft.ttl?),
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

/// Whether two listeners would want the same port of the same address. `[::]` takes the port for IPv4 as well.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let takes_all =
        |all: SocketAddr, other: SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || other.is_ipv4());
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || takes_all(a, b) || takes_all(b, a))
}

/// Whether an upstream's URL is that of a listener: by its address, or by a name that is always this machine's.
fn leads_to(upstream: &BaseUrl, listener: SocketAddr) -> bool {
    let usual = if upstream.scheme == Scheme::HTTPS { 443 } else { 80 };
    let host = upstream.authority.host().trim_start_matches('[').trim_end_matches(']');
    let same_host = match host.parse::<IpAddr>() {
        Ok(ip) => ip == listener.ip() || (listener.ip().is_unspecified() && (ip.is_loopback() || ip.is_unspecified())),
        Err(_) => {
            host.eq_ignore_ascii_case("localhost") && (listener.ip().is_loopback() || listener.ip().is_unspecified())
        }
    };
    same_host && listener.port() == upstream.authority.port_u16().unwrap_or(usual)
}

/// A draft without mistakes, sorted into the rooms.
fn build(draft: Draft) -> Config {
    Config {
        tls: draft.tls_certificate.zip(draft.tls_key).map(|(certificate, key)| TlsSettings { certificate, key }),
        server: ServerSettings {
            listen: given(draft.listen),
            admin: given(draft.admin),
            head: given(draft.head),
            head_memory: given(draft.head_memory),
            drain_notice: given(draft.drain_notice),
            drain_deadline: given(draft.drain_deadline),
        },
        admin: AdminSettings { token: draft.token },
        upstream: UpstreamSettings {
            base: given(draft.upstream),
            connect_timeout: given(draft.connect_timeout),
            head_timeout: given(draft.head_timeout),
            stall_timeout: given(draft.stall_timeout),
            pool_idle: given(draft.pool_idle),
            server_name: match &draft.host {
                Some(HostRule::Name(name)) => Some(name.host().to_owned()),
                _ => None,
            },
            ca_file: draft.ca_file,
        },
        forward: ForwardSettings {
            trusted: TrustedProxies(given(draft.trusted_proxies)),
            protocol: given(draft.forwarded_proto),
            host: given(draft.host),
        },
        store: StoreSettings { memory: given(draft.memory) },
        lifetimes: Lifetimes {
            ttl: given(draft.ttl),
            ttl_with_events: draft.ttl_with_events,
            ttl_without_events: draft.ttl_without_events,
            stale_while_revalidate: given(draft.stale_while_revalidate),
            stale_if_error: given(draft.stale_if_error),
            negative_ttl: given(draft.negative_ttl),
        },
        query: given(draft.query),
        credentials: given(draft.credentials),
        serve_outdated_on_error: given(draft.serve_outdated_on_error),
        fetch: FetchSettings {
            timeout: given(draft.fetch_timeout),
            max_in_flight: given(draft.max_in_flight),
            max_body: given(draft.max_body),
            memory: given(draft.fetch_memory),
        },
        flights: FlightSettings { wait: given(draft.wait), max_waiters: given(draft.max_waiters) },
        settle: SettleSettings { settle: given(draft.settle), settle_unknown: given(draft.settle_unknown) },
        payload: PayloadSettings {
            validate: given(draft.validate),
            trim: Trim::compile(
                draft.messages_per_conversation,
                &given(draft.statuses),
                &given(draft.drop),
                given(draft.sort_conversations),
            )
            .expect("each part was checked, and that they go together"),
        },
        encoding: EncodingSettings {
            offer: given(draft.offer),
            min_size: given(draft.min_size),
            zstd_level: given(draft.zstd_level),
            br_level: given(draft.br_level).unsigned_abs(),
            gzip_level: given(draft.gzip_level).unsigned_abs(),
        },
        webhook: WebhookSettings {
            path: given(draft.webhook_path),
            secrets: given(draft.webhook_secrets),
            unsigned_token: draft.unsigned_token,
            max_age: given(draft.webhook_max_age),
            silent_after: given(draft.webhook_silent_after),
        },
        observe_cable: given(draft.observe_cable),
        audit_share: given(draft.audit_share),
        log: LogSettings {
            format: given(draft.log_format),
            level: given(draft.log_level),
            hits: given(draft.log_hits),
            only: given(draft.log_only),
            slow: given(draft.log_slow),
            client: given(draft.log_client),
        },
    }
}

fn given<T>(value: Option<T>) -> T {
    value.expect("what has no default was found missing before")
}

#[cfg(test)]
mod tests;
