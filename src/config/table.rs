//! The one table of settings. The file, the environment, the errors, `anteroom config` and `config/anteroom.toml` are
//! all made from it.
//!
//! A new setting is a field of `Draft`, a row here, and a line in `Config::build`; a new kind of value is a `Form`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::Value;

use super::addresses::ADDRESSES;
use super::listen::ListenAddress;
use super::redis::{CUT_OFF, PREFIX_OF_KEYS, REDIS, REPLICAS_MODE, REPLICAS_SECRET};
use super::settings::{LogClient, LogFormat, LogOnly};
use super::values::{
    ADDRESS, AUTO, BASE_URLS, BR_LEVEL, CODINGS, COMPRESS, COUNT, CREDENTIALS, DROP, DURATION, ENDPOINT, GZIP_LEVEL,
    HOST_RULE, LOG_CLIENT, LOG_FILTER, LOG_FORMAT, LOG_ONLY, MEMORY, NETWORKS, OBEDIENCE, PATH, PROTOCOL_RULE, QUERY,
    ROUTES, SECRET, SECRETS, SHARE, SIZE, STATUSES, SWITCH, TIME_LIMIT, TTL, URL_PATH, VALIDATE, ZSTD_LEVEL,
};
use crate::engine::replicas::settings::{CutOff, Mode, RedisAddress};
use crate::engine::upstream::settings::BaseUrl;
use crate::policy::http::client::{HostRule, ProtocolRule};
use crate::policy::http::encoding::Coding;
use crate::policy::http::freshness::Ttl;
use crate::policy::http::kept_body::Compress;
use crate::policy::http::key::QueryRule;
use crate::policy::http::route::CredentialsRule;
use crate::policy::payload::Validate;
use crate::policy::resource::ReadKind;
use crate::policy::secret::Secret;

/// One setting.
pub(super) struct Setting {
    /// Section and name, such as `cache.ttl`.
    pub(super) name: &'static str,
    pub(super) preset: Preset,
    /// One line: what it is for, or why the default is what it is.
    pub(super) why: &'static str,
    pub(super) secret: bool,
    /// The path of a file.
    pub(super) path: bool,
    pub(super) set: fn(&mut Draft, &Value) -> Result<(), String>,
    /// Whether two drafts have the same value.
    pub(super) same: fn(&Draft, &Draft) -> bool,
    /// The value as TOML, if there is one.
    pub(super) show: fn(&Draft) -> Option<String>,
}

/// What a setting is when nobody sets it. All texts are TOML.
pub(super) enum Preset {
    Default(&'static str),
    /// Off, with an example of what it could be.
    Unset(&'static str),
    /// A mistake, with an example of what it could be.
    Required(&'static str),
}

impl Setting {
    /// `cache` of `cache.ttl`.
    pub(super) fn section(&self) -> &'static str {
        self.name.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// `ttl` of `cache.ttl`.
    pub(super) fn key(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, key)| key)
    }

    /// `ANTEROOM_CACHE__TTL` of `cache.ttl`.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_uppercase().replace('.', "__"))
    }
}

/// What the names of all variables begin with.
pub(super) const PREFIX: &str = "ANTEROOM_";

/// The setting of that name.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    TABLE.iter().find(|setting| setting.name == name)
}

/// Whether settings live below that name.
pub(super) fn is_section(name: &str) -> bool {
    TABLE.iter().any(|setting| setting.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The setting somebody may have meant, if one is near enough.
pub(super) fn nearest(name: &str) -> Option<&'static Setting> {
    let name = name.to_lowercase().replace('-', "_");
    let key = name.rsplit('.').next().unwrap_or(&name);
    let mut same_key = TABLE.iter().filter(|setting| setting.key() == key);
    if let (Some(only), None) = (same_key.next(), same_key.next()) {
        return Some(only);
    }
    let distance = |setting: &&Setting| strsim::osa_distance(setting.name, &name);
    TABLE.iter().min_by_key(distance).filter(|setting| distance(setting) * 3 <= key.len().max(3))
}

/// Values on their way to a `Config`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Draft {
    pub(super) listen: Option<Vec<ListenAddress>>,
    pub(super) proxy_protocol: Option<bool>,
    pub(super) trusted_proxies: Option<Vec<IpNet>>,
    pub(super) tls_certificate: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) token: Option<Secret>,
    pub(super) connections: Option<usize>,
    pub(super) connections_per_address: Option<usize>,
    pub(super) client_head_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) head: Option<u64>,
    pub(super) head_memory: Option<u64>,
    pub(super) requests: Option<usize>,
    pub(super) requests_per_address: Option<usize>,
    pub(super) body: Option<u64>,
    pub(super) rate: Option<usize>,
    pub(super) burst: Option<usize>,
    pub(super) hit_rate: Option<usize>,
    pub(super) hit_burst: Option<usize>,
    pub(super) upstream: Option<Vec<BaseUrl>>,
    pub(super) forwarded_proto: Option<ProtocolRule>,
    pub(super) host: Option<HostRule>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) head_timeout: Option<Duration>,
    pub(super) fetch_timeout: Option<Duration>,
    pub(super) stall_timeout: Option<Duration>,
    pub(super) pool_idle: Option<Duration>,
    pub(super) lookup_interval: Option<Duration>,
    pub(super) connection_max_age: Option<Duration>,
    pub(super) max_in_flight: Option<usize>,
    pub(super) max_queued: Option<usize>,
    pub(super) requests_per_minute: Option<usize>,
    pub(super) breaker: Option<bool>,
    pub(super) http2: Option<bool>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) memory: Option<u64>,
    pub(super) max_body: Option<u64>,
    pub(super) fetch_memory: Option<u64>,
    pub(super) ttl: Option<Ttl>,
    pub(super) ttl_with_events: Option<Duration>,
    pub(super) ttl_without_events: Option<Duration>,
    pub(super) stale_while_revalidate: Option<Duration>,
    pub(super) stale_if_error: Option<Duration>,
    pub(super) negative_ttl: Option<Duration>,
    pub(super) settle: Option<Duration>,
    pub(super) settle_unknown: Option<Duration>,
    pub(super) routes: Option<Vec<ReadKind>>,
    pub(super) query: Option<QueryRule>,
    pub(super) compress: Option<Compress>,
    pub(super) credentials: Option<CredentialsRule>,
    pub(super) client_directives: Option<bool>,
    pub(super) serve_outdated_on_error: Option<bool>,
    pub(super) wait: Option<Duration>,
    pub(super) max_waiters: Option<usize>,
    pub(super) validate: Option<Validate>,
    pub(super) messages_per_conversation: Option<usize>,
    pub(super) statuses: Option<Vec<String>>,
    pub(super) drop: Option<Vec<String>>,
    pub(super) sort_conversations: Option<bool>,
    pub(super) offer: Option<Vec<Coding>>,
    pub(super) min_size: Option<u64>,
    pub(super) zstd_level: Option<i32>,
    pub(super) br_level: Option<i32>,
    pub(super) gzip_level: Option<i32>,
    pub(super) webhook_path: Option<String>,
    pub(super) webhook_secrets: Option<Vec<Secret>>,
    pub(super) unsigned_token: Option<Secret>,
    pub(super) webhook_max_age: Option<Duration>,
    pub(super) webhook_silent_after: Option<Duration>,
    pub(super) observe_cable: Option<bool>,
    pub(super) audit_share: Option<f64>,
    pub(super) redis: Option<RedisAddress>,
    pub(super) redis_ca_file: Option<PathBuf>,
    pub(super) redis_password_file: Option<PathBuf>,
    pub(super) replicas_secret: Option<Secret>,
    pub(super) replicas_prefix: Option<String>,
    pub(super) replicas_mode: Option<Mode>,
    pub(super) cut_off: Option<CutOff>,
    pub(super) lease: Option<Duration>,
    pub(super) replicas_timeout: Option<Duration>,
    pub(super) ask_within: Option<Duration>,
    pub(super) tell_within: Option<Duration>,
    pub(super) alone_ttl: Option<Duration>,
    pub(super) tier: Option<bool>,
    pub(super) read_timeout: Option<Duration>,
    pub(super) fetch_lease: Option<Duration>,
    pub(super) fetch_wait: Option<Duration>,
    pub(super) drain_notice: Option<Duration>,
    pub(super) drain_deadline: Option<Duration>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) log_level: Option<String>,
    pub(super) log_hits: Option<f64>,
    pub(super) log_only: Option<LogOnly>,
    pub(super) log_slow: Option<Duration>,
    pub(super) log_client: Option<LogClient>,
    pub(super) tracing_endpoint: Option<String>,
    pub(super) tracing_sample: Option<f64>,
}

/// What has a default, or was found missing before.
pub(super) fn given<T>(value: Option<T>) -> T {
    value.expect("what has no default was found missing before")
}

/// A row: name, what it is if not set, form, field of the draft, why.
macro_rules! setting {
    ($name:literal, $preset:expr, $form:ident, $field:ident, $why:literal) => {
        Setting {
            name: $name,
            preset: $preset,
            why: $why,
            secret: $form.secret,
            path: $form.path,
            set: |draft, value| {
                draft.$field = Some(($form.read)(value)?);
                Ok(())
            },
            same: |one, other| one.$field == other.$field,
            show: |draft| draft.$field.as_ref().map(|value| ($form.show)(value)),
        }
    };
}

use Preset::{Default as Is, Required, Unset};

/// Every setting there is, section by section.
#[rustfmt::skip]
pub(super) static TABLE: &[Setting] = &[
    setting!("listen.address", Is(r#""0.0.0.0:8080""#), ADDRESSES, listen,
        "the public listener, or a list; port 0 takes any free one and prints it; \"unix:/run/anteroom.sock\" is a socket"),
    setting!("listen.proxy_protocol", Is("false"), SWITCH, proxy_protocol,
        "the PROXY protocol (1 and 2) of connections from listen.trusted_proxies; these must begin with it"),

    setting!("listen.trusted_proxies", Is("[]"), NETWORKS, trusted_proxies,
        "networks of proxies whose X-Forwarded-* and Forwarded are believed, such as [\"10.0.0.0/8\"]; [] is none"),

    setting!("listen.tls.certificate", Unset(r#""/etc/anteroom/certificate.pem""#), PATH, tls_certificate,
        "PEM: with its key, TLS on the public listener; both are read again when they change"),
    setting!("listen.tls.key", Unset(r#""/etc/anteroom/key.pem""#), PATH, tls_key,
        "PEM: its private key, without a password"),

    setting!("admin.address", Is(r#""127.0.0.1:9180""#), ADDRESS, admin,
        "the private listener: metrics, health, purge; not 9090, which is Prometheus"),
    setting!("admin.token", Unset(r#"{ file = "/run/secrets/anteroom-admin-token" }"#), SECRET, token,
        "bearer token for purge and explain; without it they are off"),

    setting!("limits.connections", Is("16384"), COUNT, connections,
        "connections of clients at once, fewer if ulimit -n is low; idle ones make room, else new ones are closed"),
    setting!("limits.connections_per_address", Is("512"), COUNT, connections_per_address,
        "the same for one client address, an IPv6 one by /64; not for listen.trusted_proxies and Unix sockets"),
    setting!("limits.head_timeout", Is(r#""15s""#), TIME_LIMIT, client_head_timeout,
        "from the first byte of a head, or of a handshake, to its end; then 408"),
    setting!("limits.idle_timeout", Is(r#""60s""#), TIME_LIMIT, idle_timeout,
        "how long a connection may wait for its next request"),
    setting!("limits.head", Is(r#""64KiB""#), SIZE, head,
        "the longest head of a request; more is answered 431, as more than 100 fields are"),
    setting!("limits.head_memory", Is(r#""32MiB""#), SIZE, head_memory,
        "heads that have not ended, beyond 8 KiB each, all together; what finds no room is answered 431"),
    setting!("limits.requests", Is("32768"), COUNT, requests,
        "requests of clients at once, until their answers are taken; more get 503; webhooks are not refused"),
    setting!("limits.requests_per_address", Is("2048"), COUNT, requests_per_address,
        "the same for one client address, an IPv6 one by /64; more get 429; not for listen.trusted_proxies"),
    setting!("limits.body", Is(r#""1GiB""#), SIZE, body,
        "the longest body of a request, then 413; a message of the API may have 15 attachments of 40 MiB"),
    setting!("limits.rate", Unset("50"), COUNT, rate,
        "requests a second of one client address (as above), then 429; hits and webhooks do not count"),
    setting!("limits.burst", Is("100"), COUNT, burst,
        "with limits.rate: so many may come at once"),
    setting!("limits.hit_rate", Unset("500"), COUNT, hit_rate,
        "the same for hits, which cost the upstream nothing: answers from memory a second"),
    setting!("limits.hit_burst", Is("1000"), COUNT, hit_burst,
        "with limits.hit_rate: so many may come at once"),

    setting!("upstream.url", Required(r#""https://app.omnivibe.com.br""#), BASE_URLS, upstream,
        "where the API is; a list: several doors of one installation; no default would be safe"),
    setting!("upstream.forwarded_proto", Is(r#""client""#), PROTOCOL_RULE, forwarded_proto,
        "the protocol that the API is told: what the client used (\"client\"), or always \"http\" or \"https\""),
    setting!("upstream.host", Is(r#""upstream""#), HOST_RULE, host,
        "the Host that the API gets: that of upstream.url (\"upstream\"), the client's (\"client\"), or this name, for TLS too"),
    setting!("upstream.connect_timeout", Is(r#""3s""#), TIME_LIMIT, connect_timeout,
        "name look-up, TCP and TLS together"),
    setting!("upstream.head_timeout", Is(r#""20s""#), TIME_LIMIT, head_timeout,
        "from the end of the request to the head of the answer; the API itself gives up at 15 s"),
    setting!("upstream.fetch_timeout", Is(r#""30s""#), TIME_LIMIT, fetch_timeout,
        "a whole shared fetch, from the first byte sent to the last one read"),
    setting!("upstream.stall_timeout", Is(r#""60s""#), TIME_LIMIT, stall_timeout,
        "bodies passed through: no byte either way for that long ends them; so does a request's below 256 bytes a second"),
    setting!("upstream.pool_idle", Is(r#""10s""#), TIME_LIMIT, pool_idle,
        "how long an unused connection is kept; below the upstream's own keep-alive"),
    setting!("upstream.lookup_interval", Is(r#""5s""#), TIME_LIMIT, lookup_interval,
        "how often the upstream's name is looked up again while requests are sent; whoever answers minds the TTL"),
    setting!("upstream.connection_max_age", Is(r#""5m""#), TIME_LIMIT, connection_max_age,
        "an older connection carries no further request, so that none holds on to where the upstream was"),
    setting!("upstream.max_in_flight", Is("32"), COUNT, max_in_flight,
        "shared fetches at once; more wait, within their limits"),
    setting!("upstream.max_queued", Is("1024"), COUNT, max_queued,
        "so many fetches wait for their place at most; more are refused at once"),
    setting!("upstream.requests_per_minute", Unset("3000"), COUNT, requests_per_minute,
        "requests to the upstream in any minute, all together; a tenth is kept for writes"),
    setting!("upstream.breaker", Is("true"), SWITCH, breaker,
        "whether an upstream that gives nothing but failures is left alone, but for one request a second"),
    setting!("upstream.http2", Is(r#""auto""#), AUTO, http2,
        "HTTP/2 for shared fetches if an https upstream offers it (\"auto\"), or \"off\"; not with another upstream.host"),
    setting!("upstream.ca_file", Unset(r#""/etc/anteroom/ca.pem""#), PATH, ca_file,
        "PEM certificates trusted besides the system's; a relative path in this file goes by its folder"),

    setting!("cache.memory", Is(r#""256MiB""#), MEMORY, memory,
        "all stored answers, with bookkeeping"),
    setting!("cache.max_body", Is(r#""16MiB""#), SIZE, max_body,
        "larger lists pass through, unkept"),
    setting!("cache.fetch_memory", Is(r#""128MiB""#), MEMORY, fetch_memory,
        "bodies being collected, all together"),
    setting!("cache.ttl", Is(r#""15s""#), TTL, ttl,
        "how long an answer is served without asking, from the moment its fetch began; \"origin\": as it says (RFC 9111)"),
    setting!("cache.ttl_with_events", Unset(r#""5m""#), DURATION, ttl_with_events,
        "the TTL while webhooks arrive; what a lost one would have told is seen that much later"),
    setting!("cache.ttl_without_events", Unset(r#""5s""#), DURATION, ttl_without_events,
        "the TTL while webhooks are set up and do not arrive; without it that is cache.ttl"),
    setting!("cache.stale_while_revalidate", Is(r#""15s""#), DURATION, stale_while_revalidate,
        "after the TTL: served for that long while a refresh runs behind"),
    setting!("cache.stale_if_error", Is(r#""10m""#), DURATION, stale_if_error,
        "the age up to which an answer may stand in for a failed fetch, 0s: never; if not set, no less than the TTLs"),
    setting!("cache.negative_ttl", Is(r#""0s""#), DURATION, negative_ttl,
        "the TTL of a 404; none, because clients wipe their storage on a 404"),
    setting!("cache.settle", Is(r#""5s""#), DURATION, settle,
        "how long bots and automations may still change a list after a write"),
    setting!("cache.settle_unknown", Is(r#""30s""#), DURATION, settle_unknown,
        "the same, after a write whose outcome is unclear"),
    setting!("cache.routes", Is(r#"["conversations", "conversation", "messages", "contact"]"#), ROUTES, routes,
        "what is answered from memory: the list, one conversation, its messages, the contact; the rest passes"),
    setting!("cache.query", Is(r#""key""#), QUERY, query,
        "another query is another answer (\"key\"), right for any fork; the stock API reads but one of messages (\"ignore\")"),
    setting!("cache.compress", Is(r#""off""#), COMPRESS, compress,
        "lists are kept in zstd (\"zstd\"): about three times as many, but each is unpacked for clients that do not take it"),
    setting!("cache.credentials", Is(r#""bypass""#), CREDENTIALS, credentials,
        "lists asked for with credentials pass by the cache (\"bypass\"); the stock API reads none there (\"ignore\")"),
    setting!("cache.client_directives", Is(r#""ignore""#), OBEDIENCE, client_directives,
        "with ttl = \"origin\": what Cache-Control of requests asks for, such as no-cache, is done (\"obey\") or not (\"ignore\")"),
    setting!("cache.serve_outdated_on_error", Is("false"), SWITCH, serve_outdated_on_error,
        "whether an answer known to be older than a write may stand in for a failed fetch"),
    setting!("cache.wait", Is(r#""25s""#), TIME_LIMIT, wait,
        "how long one reader waits in all: for a place, for a fetch that others share, and for a second one"),
    setting!("cache.max_waiters", Is("20000"), COUNT, max_waiters,
        "readers waiting at once, for all fetches together"),

    setting!("payload.validate", Is(r#""report""#), VALIDATE, validate,
        "lists against the published contract: \"off\", \"report\" what differs, or \"enforce\": such lists are not served"),
    setting!("payload.trim.messages_per_conversation", Unset("50"), COUNT, messages_per_conversation,
        "only so many messages of each conversation are served: the newest"),
    setting!("payload.trim.statuses", Is("[]"), STATUSES, statuses,
        "only conversations of these statuses are served, such as [\"open\", \"pending\"]; [] is all"),
    setting!("payload.trim.drop", Is("[]"), DROP, drop,
        "fields that are not served, such as [\"contact.email\", \"messages.sender.phone_number\"]"),
    setting!("payload.trim.sort_conversations", Is("false"), SWITCH, sort_conversations,
        "conversations by id; the upstream's order is unspecified"),

    setting!("encoding.offer", Is(r#"["zstd", "br", "gzip"]"#), CODINGS, offer,
        "codings that lists are sent in, the preferred first; [] is none"),
    setting!("encoding.min_size", Is(r#""1KiB""#), SIZE, min_size,
        "shorter lists are sent as they are"),
    setting!("encoding.zstd_level", Is("3"), ZSTD_LEVEL, zstd_level,
        "1 (fast) to 19 (small)"),
    setting!("encoding.br_level", Is("5"), BR_LEVEL, br_level,
        "0 (fast) to 11 (small)"),
    setting!("encoding.gzip_level", Is("6"), GZIP_LEVEL, gzip_level,
        "1 (fast) to 9 (small)"),

    setting!("webhook.path", Is(r#""/_anteroom/webhooks""#), URL_PATH, webhook_path,
        "where webhooks come, on the public listener; answered only if a secret or a token is set"),
    setting!("webhook.secrets", Is("[]"), SECRETS, webhook_secrets,
        "the secrets that the application signs with, such as [{ file = \"/run/secrets/webhook\" }]; any of them will do"),
    setting!("webhook.unsigned_token", Unset(r#"{ file = "/run/secrets/webhook-token" }"#), SECRET, unsigned_token,
        "for servers too old to sign: they call webhook.path with ?token= and this"),
    setting!("webhook.max_age", Is(r#""5m""#), TIME_LIMIT, webhook_max_age,
        "how far the time of a signature may lie from now, either way"),
    setting!("webhook.silent_after", Is(r#""1m""#), TIME_LIMIT, webhook_silent_after,
        "webhooks are silent if none came for so long after a message, which must cause one"),

    setting!("cable.observe", Is("true"), SWITCH, observe_cable,
        "events that pass through WebSockets outdate lists too, before the client has them; they pass uncompressed then"),

    setting!("audit.share", Is("0.0"), SHARE, audit_share,
        "share of hits that are fetched again behind, to measure how stale they were, 0.0 to 1.0"),

    setting!("replicas.redis", Unset(r#""redis://127.0.0.1:6379""#), REDIS, redis,
        "where replicas share: redis://, rediss://, unix:///, redis+sentinel://, redis+cluster://"),
    setting!("replicas.ca_file", Unset(r#""/etc/anteroom/redis-ca.pem""#), PATH, redis_ca_file,
        "PEM certificates trusted besides the system's, with rediss://"),
    setting!("replicas.password_file", Unset(r#""/run/secrets/redis-password""#), PATH, redis_password_file,
        "the password for it; read at each connection"),
    setting!("replicas.secret", Unset(r#"{ file = "/run/secrets/anteroom-replicas" }"#), REPLICAS_SECRET, replicas_secret,
        "32 random bytes or more, the same for all replicas; required with replicas.redis"),
    setting!("replicas.prefix", Is(r#""anteroom""#), PREFIX_OF_KEYS, replicas_prefix,
        "what its keys in Redis begin with"),
    setting!("replicas.mode", Is(r#""strict""#), REPLICAS_MODE, replicas_mode,
        "writes are acknowledged when every replica knows of them (\"strict\"), or when Redis does (\"async\")"),
    setting!("replicas.cut_off", Is(r#""pass""#), CUT_OFF, cut_off,
        "writes while Redis gives no answer: they pass, and the others are told later (\"pass\"), or are refused (\"refuse\")"),
    setting!("replicas.lease", Is(r#""500ms""#), DURATION, lease,
        "how long a replica serves from memory after it has asked; so long a stopped one delays a write. 0s: every read asks"),
    setting!("replicas.timeout", Is(r#""150ms""#), TIME_LIMIT, replicas_timeout,
        "how long Redis may take to answer; less than half of replicas.lease"),
    setting!("replicas.ask_within", Is(r#""50ms""#), TIME_LIMIT, ask_within,
        "how long a reader waits for a lease before its list is fetched"),
    setting!("replicas.tell_within", Is(r#""1s""#), TIME_LIMIT, tell_within,
        "how long a write waits for Redis before replicas.cut_off says what becomes of it"),
    setting!("replicas.alone_ttl", Is(r#""500ms""#), DURATION, alone_ttl,
        "with mode = \"async\": the age up to which lists are served while Redis gives no answer"),
    setting!("replicas.tier", Is("true"), SWITCH, tier,
        "what one replica has fetched lies in Redis, sealed, for the others, and only one fetches at a time"),
    setting!("replicas.read_timeout", Is(r#""50ms""#), TIME_LIMIT, read_timeout,
        "how long Redis may take to say what it has before a replica fetches for itself"),
    setting!("replicas.fetch_lease", Is(r#""1s""#), TIME_LIMIT, fetch_lease,
        "how long a fetch counts as under way after its replica was last heard of: so long the others wait if it dies"),
    setting!("replicas.fetch_wait", Is(r#""2s""#), TIME_LIMIT, fetch_wait,
        "how long another replica's fetch is waited for, at most"),

    setting!("drain.notice", Is(r#""5s""#), DURATION, drain_notice,
        "told to stop: how long /ready says 503 while requests are still taken"),
    setting!("drain.deadline", Is(r#""30s""#), DURATION, drain_deadline,
        "after that: how long answers in flight may take"),

    setting!("log.format", Is(r#""auto""#), LOG_FORMAT, log_format,
        "\"pretty\", \"json\", or \"auto\": pretty on a terminal, else json"),
    setting!("log.level", Is(r#""info""#), LOG_FILTER, log_level,
        "a level, or a filter such as \"info,anteroom=debug\"; of libraries nothing finer than info is told"),
    setting!("log.hits", Is("0.0"), SHARE, log_hits,
        "share of hits that get an access line, 0.0 to 1.0; all other requests always do"),
    setting!("log.only", Is(r#""all""#), LOG_ONLY, log_only,
        "\"all\", or \"trouble\": access lines only of requests that failed or were slow"),
    setting!("log.slow", Is(r#""0s""#), DURATION, log_slow,
        "what takes so long is slow, and gets an access line whatever it is; 0s: nothing is"),
    setting!("log.client", Is(r#""hash""#), LOG_CLIENT, log_client,
        "clients' addresses in access lines: \"hash\" (another after each start), \"whole\", or \"off\""),

    setting!("tracing.endpoint", Unset(r#""http://127.0.0.1:4318""#), ENDPOINT, tracing_endpoint,
        "a collector of spans, which takes OTLP over HTTP; without it nothing is traced"),
    setting!("tracing.sample", Is("0.1"), SHARE, tracing_sample,
        "share of requests that are traced, 0.0 to 1.0; a client's traceparent decides for its own"),
];
