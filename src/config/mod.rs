//! Text to a checked `Config`, or every mistake at once.
//!
//! Values come from flags, the environment, a file and the defaults, in this order of strength. One table names every
//! setting; each room owns the struct that it obeys, and only this module knows the text.

mod addresses;
mod base_url;
mod changes;
mod clashes;
mod endpoint;
mod fixed;
mod in_force;
mod listen;
mod listing;
mod mistakes;
mod origin;
mod redis;
mod replicas;
mod routes;
mod settings;
mod shown;
mod sources;
mod table;
mod telling;
mod tls;
mod values;
mod words;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use changes::Changes;
pub use in_force::InForce;
pub use listen::ListenAddress;
pub use listing::example;
pub use mistakes::ConfigError;
pub use settings::{
    AdminSettings, FetchSettings, LogClient, LogFormat, LogOnly, LogSettings, OriginSettings, RequestSettings,
    ServerSettings, SettleSettings,
};
pub use sources::{Flags, SettingsFile};

use crate::engine::flights::FlightSettings;
use crate::engine::rates::{Rate, RateSettings};
use crate::engine::replicas::settings::ReplicasSettings;
use crate::engine::spans::TracingSettings;
use crate::engine::store::StoreSettings;
use crate::engine::tls::TlsSettings;
use crate::engine::upstream::settings::UpstreamSettings;
use crate::engine::upstream::ways::check_certificates;
use crate::policy::coherence::webhook::WebhookSettings;
use crate::policy::http::client::{ForwardSettings, HostRule, TrustedProxies};
use crate::policy::http::encoding::EncodingSettings;
use crate::policy::http::freshness::{Lifetimes, Ttl};
use crate::policy::http::kept_body::Compress;
use crate::policy::http::key::QueryRule;
use crate::policy::http::route::CredentialsRule;
use crate::policy::payload::{PayloadSettings, Trim};
use crate::policy::resource::Routes;
use crate::policy::secret::Secret;
use clashes::{CLASHES, Clash};
use in_force::Read;
use mistakes::Place;
use sources::{Environment, Origin, Reading};
use table::{Draft, given};

/// Where a file of settings is looked for if none is named.
const USUAL_FILES: [&str; 2] = ["anteroom.toml", "/etc/anteroom/anteroom.toml"];

/// Every setting, read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `listen.address`, `admin.address`, the limits on heads and `drain`.
    pub server: ServerSettings,
    /// `limits.requests`, `limits.body` and `limits.rate`.
    pub requests: RequestSettings,
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
    /// `cache.ttl = "origin"`, and what is obeyed then.
    pub origin: Option<OriginSettings>,
    /// `cache.routes`.
    pub routes: Routes,
    /// `cache.query`.
    pub query: QueryRule,
    /// `cache.compress`.
    pub compress: Compress,
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
    /// `tracing`.
    pub tracing: TracingSettings,
    /// `replicas`, if `replicas.redis` is set.
    pub replicas: Option<ReplicasSettings>,
}

/// A `Config`, and the account of where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What the program obeys.
    pub config: Config,
    listing: String,
    draft: Draft,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// What `anteroom config` prints: every setting in force, with its source. It is TOML that can be read again;
    /// secrets are `***` and commented out.
    pub fn listing(&self) -> &str {
        &self.listing
    }

    /// Every setting in force once these were read, with its source; `started` is what the program began with, of which
    /// some stay until it ends.
    pub fn in_force(&self, started: &Self) -> Vec<InForce> {
        let [started, read] = [started, self].map(|Self { draft, origins, .. }| Read { draft, origins });
        in_force::in_force(started, read)
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
    load_preset(&[], file, flags, environment)
}

/// The same for a command that has defaults of its own: `presets`, by name and as TOML, are weaker than all but the usual
/// defaults.
pub fn load_preset<K: Into<OsString>, V: Into<OsString>>(
    presets: &[(&str, &str)],
    file: SettingsFile,
    flags: &Flags,
    environment: impl IntoIterator<Item = (K, V)>,
) -> Result<Loaded, ConfigError> {
    let (mut reading, file) = read(presets, file, environment);
    reading.flags(flags);
    check(&mut reading);
    let Reading { draft, origins, mistakes, .. } = reading;
    if mistakes.is_empty() {
        let listing = listing::in_force(&draft, &origins);
        Ok(Loaded { config: build(draft.clone()), listing, draft, origins })
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
    let (reading, file) = read(&[], file, environment);
    let address = reading.draft.admin.filter(|_| reading.is_certain("admin.address"));
    AdminAccess { address: address.ok_or_else(|| ConfigError::new(file, reading.mistakes)), token: reading.draft.token }
}

/// The settings that say what a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRules {
    /// `cache.routes`.
    pub routes: Routes,
    /// `cache.query`.
    pub query: QueryRule,
    /// `cache.credentials`.
    pub credentials: CredentialsRule,
    /// `webhook.path`, if webhooks are received.
    pub webhooks: Option<String>,
    /// `cache.ttl = "origin"`.
    pub by_origin: bool,
}

/// What requests are by the file and the environment, for who explains one without a running proxy. Mistakes elsewhere are
/// left to the proxy itself.
///
/// # Errors
/// The mistakes, if one of these settings cannot be told.
pub fn request_rules<K: Into<OsString>, V: Into<OsString>>(
    file: SettingsFile,
    environment: impl IntoIterator<Item = (K, V)>,
) -> Result<RequestRules, ConfigError> {
    let (reading, file) = read(&[], file, environment);
    let names = ["cache.routes", "cache.query", "cache.credentials", "cache.ttl", "webhook.path"];
    let Draft { routes, query, credentials, ttl, webhook_path, webhook_secrets, unsigned_token, .. } = &reading.draft;
    match (query, credentials, webhook_path) {
        (Some(query), Some(credentials), Some(path)) if names.iter().all(|name| reading.is_certain(name)) => {
            let received =
                unsigned_token.is_some() || webhook_secrets.as_ref().is_some_and(|secrets| !secrets.is_empty());
            let webhooks = received.then(|| path.clone());
            Ok(RequestRules {
                routes: routes.as_deref().map_or(Routes::ALL, Routes::of),
                query: *query,
                credentials: *credentials,
                webhooks,
                by_origin: *ttl == Some(Ttl::Origin),
            })
        }
        _ => Err(ConfigError::new(file, reading.mistakes)),
    }
}

/// Reads the file and the environment; gives the file's name, too, if there is one.
fn read<K: Into<OsString>, V: Into<OsString>>(
    presets: &[(&str, &str)],
    file: SettingsFile,
    environment: impl IntoIterator<Item = (K, V)>,
) -> (Reading, Option<PathBuf>) {
    let mut reading = Reading::new(Environment::new(environment));
    reading.presets(presets);
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
    tls::check(reading);
    origin::check(reading);
    replicas::check(reading);
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
        ("cache.ttl", ttl.and_then(Ttl::fixed)),
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

/// A draft without mistakes, sorted into the rooms.
fn build(draft: Draft) -> Config {
    let (requests, origin) = (requests_of(&draft), origin::settings(&draft));
    let (log, tracing, replicas) = (telling::log(&draft), telling::tracing(&draft), replicas::settings(&draft));
    let mut urls = given(draft.upstream).into_iter();
    Config {
        requests,
        tls: draft.tls_certificate.zip(draft.tls_key).map(|(certificate, key)| TlsSettings { certificate, key }),
        server: ServerSettings {
            listen: given(draft.listen),
            proxy_protocol: given(draft.proxy_protocol),
            connections: given(draft.connections),
            connections_per_address: given(draft.connections_per_address),
            head_timeout: given(draft.client_head_timeout),
            idle_timeout: given(draft.idle_timeout),
            admin: given(draft.admin),
            head: given(draft.head),
            head_memory: given(draft.head_memory),
            drain_notice: given(draft.drain_notice),
            drain_deadline: given(draft.drain_deadline),
        },
        admin: AdminSettings { token: draft.token },
        upstream: UpstreamSettings {
            base: given(urls.next()),
            others: urls.collect(),
            lookup_interval: given(draft.lookup_interval),
            connection_max_age: given(draft.connection_max_age),
            requests_per_minute: draft.requests_per_minute,
            breaker: given(draft.breaker),
            // The connections of HTTP/2 are shared, and each request names its authority: one for all.
            http2: given(draft.http2) && draft.host == Some(HostRule::Upstream),
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
            ttl: given(draft.ttl).fixed().unwrap_or(origin::BELIEVED),
            ttl_with_events: draft.ttl_with_events,
            ttl_without_events: draft.ttl_without_events,
            stale_while_revalidate: given(draft.stale_while_revalidate),
            stale_if_error: given(draft.stale_if_error),
            negative_ttl: given(draft.negative_ttl),
        },
        origin,
        routes: Routes::of(&given(draft.routes)),
        query: given(draft.query),
        compress: given(draft.compress),
        credentials: given(draft.credentials),
        serve_outdated_on_error: given(draft.serve_outdated_on_error),
        fetch: FetchSettings {
            timeout: given(draft.fetch_timeout),
            max_in_flight: given(draft.max_in_flight),
            max_queued: given(draft.max_queued),
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
        tracing,
        replicas,
        log,
    }
}

/// What requests of clients obey.
fn requests_of(draft: &Draft) -> RequestSettings {
    let rate = |rate: Option<usize>, burst| rate.map(|rate| Rate::new(rate, given(burst)));
    RequestSettings {
        at_once: given(draft.requests),
        per_address: given(draft.requests_per_address),
        body: given(draft.body),
        rates: RateSettings { upstream: rate(draft.rate, draft.burst), hits: rate(draft.hit_rate, draft.hit_burst) },
    }
}

#[cfg(test)]
mod tests;
