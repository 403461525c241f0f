//! The closed sets that labels come from.

use http::{Method, StatusCode};

use crate::policy::coherence::event::Event;
use crate::policy::http::no_list::NoList;
use crate::policy::http::route::BypassReason;
use crate::policy::payload::{ViolationKind, schema};

/// Declares an enumeration whose values are labels.
macro_rules! closed_set {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$says:meta])* $value:ident => $label:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$says])* $value,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$value,)+];
            /// Their labels, in the same order.
            pub(super) const LABELS: &'static [&'static str] = &[$($label,)+];

            /// The metric label and the word in the log.
            pub const fn label(self) -> &'static str {
                Self::LABELS[self as usize]
            }
        }
    };
}

closed_set! {
    /// How a request ended; the first label of most metrics.
    pub enum Ending {
        /// From memory, fresh.
        Hit => "hit",
        /// From memory, older than its TTL.
        Stale => "stale",
        /// This request led the fetch.
        Miss => "miss",
        /// It waited for another's fetch.
        Joined => "joined",
        /// A list that may not be shared.
        Bypass => "bypass",
        /// Not ours: passed on untouched.
        Pass => "pass",
        /// It may have changed something.
        Write => "write",
        /// A webhook of the application.
        Webhook => "webhook",
        /// Not passed on.
        Refused => "refused",
        /// The upstream gave no answer, and there was none to stand in.
        Failed => "failed",
    }
}

closed_set! {
    /// What came of a webhook.
    pub enum WebhookResult {
        /// Lists are out of date.
        Outdated => "outdated",
        /// It changes no list.
        NoChange => "no_change",
        /// It is genuine and should change lists, but names none that could be found.
        Unattributed => "unattributed",
        /// It is not signed, or its token is wrong.
        Unsigned => "unsigned",
        /// Its signature is wrong.
        BadSignature => "bad_signature",
        /// It was signed too long ago, or in the future.
        TooOld => "too_old",
        /// It is genuine, and not an event in JSON.
        Malformed => "malformed",
        /// It is longer than may be read.
        TooLarge => "too_large",
        /// It ended early, or took too long.
        CutShort => "cut_short",
        /// Too many were being read.
        Crowded => "crowded",
    }
}

impl WebhookResult {
    /// Whether such a webhook is the application's own: it was signed, and is not too old.
    pub fn is_genuine(self) -> bool {
        matches!(self, Self::Outdated | Self::NoChange | Self::Unattributed | Self::Malformed)
    }
}

closed_set! {
    /// Who told of a change.
    pub enum InvalidationSource {
        /// A write that passed through.
        Write => "write",
        /// A webhook.
        Webhook => "webhook",
        /// An event that passed through a WebSocket.
        Cable => "cable",
        /// Whoever runs the proxy.
        Purge => "purge",
        /// A fetch that was overtaken, or given up on.
        Flight => "flight",
        /// A list that passed by the cache and differed.
        Bypass => "bypass",
        /// Another replica.
        Replica => "replica",
    }
}

closed_set! {
    /// What became of an audit.
    pub enum Audited {
        /// The list was the same.
        Same => "same",
        /// It differed.
        Differs => "differs",
        /// It could not be fetched.
        Failed => "failed",
        /// The upstream had enough to do.
        Skipped => "skipped",
    }
}

closed_set! {
    /// Why nobody had told of a change.
    pub enum Untold {
        /// The event came later.
        EventLate => "event_late",
        /// It never came.
        EventLost => "event_lost",
        /// There is none for such a change.
        NoEvent => "no_event",
        /// The change is older than what was kept.
        Bug => "bug",
    }
}

closed_set! {
    /// Why the upstream gave no answer: the error types of RFC 9209 section 2.3.
    pub enum ErrorClass {
        /// Its name was not resolved in time.
        DnsTimeout => "dns_timeout",
        /// Its name cannot be resolved.
        DnsError => "dns_error",
        /// It cannot be connected to, for another reason than those below.
        DestinationUnavailable => "destination_unavailable",
        /// There is no way to its address.
        DestinationIpUnroutable => "destination_ip_unroutable",
        /// Nobody listens there.
        ConnectionRefused => "connection_refused",
        /// It closed the connection before it answered.
        ConnectionTerminated => "connection_terminated",
        /// There was no connection in time.
        ConnectionTimeout => "connection_timeout",
        /// The TLS handshake failed; most often it does not speak TLS.
        TlsProtocolError => "tls_protocol_error",
        /// Its certificate is not good.
        TlsCertificateError => "tls_certificate_error",
        /// It refused the TLS handshake.
        TlsAlertReceived => "tls_alert_received",
        /// Its answer broke off.
        HttpResponseIncomplete => "http_response_incomplete",
        /// It did not answer in time.
        HttpResponseTimeout => "http_response_timeout",
        /// Its answer is not HTTP.
        HttpProtocolError => "http_protocol_error",
        /// Something is missing on this side, such as file descriptors.
        ProxyInternalError => "proxy_internal_error",
    }
}

closed_set! {
    /// What came of a message that passed through a WebSocket.
    pub enum CableResult {
        /// Lists are out of date.
        Outdated => "outdated",
        /// It tells of no change.
        NoChange => "no_change",
        /// It is too long, or in a form that is not read.
        NotUnderstood => "not_understood",
    }
}

closed_set! {
    /// Why an exchange with Redis failed.
    pub enum ExchangeFailure {
        /// It could not be connected to, or the connection broke.
        Connection => "connection",
        /// It did not answer in time.
        Timeout => "timeout",
        /// It knows no such user or password, or the user lacks a right.
        Denied => "denied",
        /// It takes no writes: it is a replica itself.
        ReadOnly => "read_only",
        /// It takes no writes since its own replicas are missing.
        NoReplicas => "no_replicas",
        /// It has no memory left.
        Full => "full",
        /// Anything else.
        Other => "other",
    }
}

closed_set! {
    /// What came of looking for an answer of another replica.
    pub enum TierAsked {
        /// There was one, and it is served.
        Adopted => "adopted",
        /// There was one that a change has put out of date.
        Outdated => "outdated",
        /// There was one that is older than it may be, or whose age is not known.
        TooOld => "too_old",
        /// There was one that is not sealed by a replica of this fleet for this key.
        Unopened => "unopened",
        /// There was one that is too long, or for which there is no memory.
        TooLong => "too_long",
        /// There was none, and another replica fetches it: waited for.
        Held => "held",
        /// There was none: this replica fetches it, and the others wait.
        Granted => "granted",
        /// There is none for others: this replica fetches its own.
        Own => "own",
        /// Redis did not say in time.
        Timeout => "timeout",
        /// Redis could not say.
        Failed => "failed",
    }
}

closed_set! {
    /// What became of an answer that others may have.
    pub enum TierPut {
        /// It is there.
        Put => "put",
        /// A newer one is.
        Older => "older",
        /// Too many, or too long ones, were under way.
        Dropped => "dropped",
        /// Redis did not take it.
        Failed => "failed",
    }
}

closed_set! {
    /// A limit of the settings, by the name of its setting.
    pub enum Limit {
        /// Of all clients.
        Connections => "limits.connections",
        /// Of one client address.
        ConnectionsPerAddress => "limits.connections_per_address",
        /// A head or a handshake took too long.
        HeadTimeout => "limits.head_timeout",
        /// No request came for long.
        IdleTimeout => "limits.idle_timeout",
        /// A head was too long, or had too many fields.
        Head => "limits.head",
        /// There was no room for the rest of a head.
        HeadMemory => "limits.head_memory",
        /// Of all clients.
        Requests => "limits.requests",
        /// Of one client address.
        RequestsPerAddress => "limits.requests_per_address",
        /// A request's body was too long.
        Body => "limits.body",
        /// One client address asked too often.
        Rate => "limits.rate",
        /// The same for answers from memory.
        HitRate => "limits.hit_rate",
        /// A client gave no more of its body, or took no more of an answer.
        StallTimeout => "upstream.stall_timeout",
        /// Too many readers waited.
        MaxWaiters => "cache.max_waiters",
        /// There was no place among the fetches in time.
        MaxInFlight => "upstream.max_in_flight",
        /// Too many fetches waited for their place.
        MaxQueued => "upstream.max_queued",
    }
}

/// The labels of an enumeration of the policy.
macro_rules! labels_of {
    ($name:ident) => {
        &{
            let mut labels = [""; $name::ALL.len()];
            let mut at = 0;
            while at < labels.len() {
                labels[at] = $name::ALL[at].label();
                at += 1;
            }
            labels
        }
    };
}

pub(super) const EVENTS: &[&str] = labels_of!(Event);
pub(super) const NO_LISTS: &[&str] = labels_of!(NoList);
pub(super) const BYPASS_REASONS: &[&str] = labels_of!(BypassReason);
pub(super) const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];
/// What a request to the upstream came to: a class of status, or what went wrong. `client`: the client's own body
/// broke off or stood still.
pub(super) const UPSTREAM_RESULTS: &[&str] =
    &["1xx", "2xx", "3xx", "4xx", "5xx", "other", "connect", "timeout", "reset", "malformed", "client"];
pub(super) const CONNECTION_ERRORS: &[&str] = &[
    "accept",
    "timeout",
    "too_large",
    "parse",
    "incomplete",
    "answer_broken",
    "io",
    "flood",
    "tls_left",
    "tls_refused",
    "tls_timeout",
    "tls_plain",
    "too_many",
    "too_many_of_address",
    "proxy_protocol",
];
pub(super) const FLIGHT_ENDS: &[&str] = &[
    "answered",
    "adopted",
    "too_large",
    "not_storable",
    "upstream_error",
    "deadline",
    "breaks_contract",
    "refused",
    "not_sent",
    "spared",
    "superseded",
    "dropped",
    "waiter_deadline",
];
/// What the settings allow, for a graph to show beside what is used.
pub(super) const LIMITS: &[&str] =
    &["cache_bytes", "body_bytes", "upstream_in_flight", "waiters", "connections", "requests"];

/// The label of a method; strangers' methods share one.
pub fn method_label(method: &Method) -> &'static str {
    METHODS[method_index(method)]
}

pub(super) fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

pub(super) fn class_index(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).checked_sub(1).map_or(5, |class| class.min(5))
}

/// The label of a status class.
pub fn class_label(status: StatusCode) -> &'static str {
    CLASSES[class_index(status)]
}

/// The ways in which a list can differ from the contract: by field and by kind.
pub(super) fn violations() -> impl Iterator<Item = [&'static str; 2]> {
    schema::Label::all().flat_map(|label| {
        let kinds = ViolationKind::ALL.into_iter().filter(move |kind| kind.can_be(label));
        kinds.map(move |kind| [label.path(), kind.as_str()])
    })
}

#[cfg(test)]
mod tests {
    use crate::engine::metrics::Metrics;
    use crate::policy::http::exposition::Exposition;

    /// A rate needs a value to begin from: the first list that differs is seen, too.
    #[test]
    fn what_differs_from_the_contract_is_counted_from_zero() {
        let text = String::from_utf8(Metrics::new().render(Exposition::Prometheus)).unwrap();
        let series = |labels: &str| text.contains(&format!("anteroom_payload_violations_total{{{labels}}} 0\n"));
        for kind in ["missing", "wrong_type", "null"] {
            assert!(series(&format!("field=\"id\",kind=\"{kind}\"")), "{kind}");
        }
        assert!(series("field=\"status\",kind=\"unknown_enum_value\"") && series("field=\"[]\",kind=\"null\""));
        assert!(!text.contains("field=\"id\",kind=\"unknown_enum_value\""), "an integer is of no enum");
    }
}
