//! What one request may ask of the proxy at most, whatever it asks for: a place among all, a bucket that is not empty,
//! a body that is not too long.

use std::net::IpAddr;

use http::{HeaderValue, StatusCode, header};

use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::metrics::{Ending, Limit};
use crate::engine::rates::Bucket;
use crate::engine::requests::{Full, WithoutPlace};
use crate::policy::http::client::limited_as;
use crate::policy::http::framing::announces_more_than;
use crate::policy::http::route::Route;

impl ClientRequest {
    /// Who it is where each client has limits.
    pub(crate) fn limited_as(&self) -> Option<IpAddr> {
        limited_as(&self.head.headers, self.side.peer, &self.active.config.forward.trusted)
    }

    /// The answer to a request that is beyond a limit. What is taken from memory, perhaps, is asked again when that is
    /// known. Webhooks are the installation's own and have limits of their own: a refusal would mark a message as failed.
    pub(crate) fn beyond_limits(&self, route: &Route, full: Option<Full>) -> Option<Answered> {
        if matches!(route, Route::Webhook) {
            return None;
        }
        if let Some(full) = full {
            return Some(self.without_room(full));
        }
        if announces_more_than(self.active.config.requests.body, &self.head.headers) {
            let problem = self.problem(StatusCode::PAYLOAD_TOO_LARGE, "the request's body is longer than it may be");
            return Some((problem, Outcome::own(Ending::Refused).detail("length").beyond(Limit::Body)));
        }
        let may_be_a_hit = matches!(route, Route::Read(_) | Route::Cached(_) | Route::Preflight);
        if may_be_a_hit { None } else { self.asks_too_often(Bucket::Upstream) }
    }

    /// Takes one off the client's bucket; the answer if it is empty.
    pub(crate) fn asks_too_often(&self, bucket: Bucket) -> Option<Answered> {
        let after = self.active.rates.take(bucket, || self.limited_as()).err()?;
        let limit = match bucket {
            Bucket::Upstream => Limit::Rate,
            Bucket::Hits => Limit::HitRate,
        };
        Some(self.too_many("this address asks too often; try again later", after, "rate", limit))
    }

    /// Beyond which of the limits a request would be that would end so, in the order of the request path; nothing is taken.
    pub(super) fn would_be_beyond(&self, route: &Route, foreseen: &Outcome) -> Option<(Outcome, &'static str)> {
        let of_rate = match (route, foreseen.ending) {
            (Route::Webhook, _) => return None,
            // Where the answers say how they are cached, that only what is kept is wanted is asked first.
            (Route::Cached(_), Ending::Refused) => None,
            (_, Ending::Hit | Ending::Stale) => {
                Some((Bucket::Hits, Limit::HitRate, "the address that asks is beyond limits.hit_rate: 429"))
            }
            _ => Some((Bucket::Upstream, Limit::Rate, "the address that asks is beyond limits.rate: 429")),
        };
        let refused = |word, limit| Outcome::own(Ending::Refused).detail(word).beyond(limit);
        if announces_more_than(self.active.config.requests.body, &self.head.headers) {
            return Some((refused("length", Limit::Body), "its body is longer than limits.body: 413"));
        }
        let (bucket, limit, why) = of_rate?;
        let looked = self.active.rates.look(bucket, || self.limited_as());
        looked.is_err().then(|| (refused("rate", limit), why))
    }

    fn without_room(&self, full: Full) -> Answered {
        let (mut response, outcome) = match full {
            Full::InAll => {
                let outcome = Outcome::own(Ending::Refused).detail("too-many").beyond(Limit::Requests);
                (self.busy("too many requests are being answered; try again"), outcome)
            }
            Full::OfClient => {
                let detail = "too many requests of this address are being answered; try again";
                self.too_many(detail, 1, "too-many-of-address", Limit::RequestsPerAddress)
            }
        };
        response.extensions_mut().insert(WithoutPlace);
        (response, outcome)
    }

    fn too_many(&self, detail: &str, after: u64, word: &'static str, limit: Limit) -> Answered {
        let mut response = self.problem(StatusCode::TOO_MANY_REQUESTS, detail);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after));
        (response, Outcome::own(Ending::Refused).detail(word).beyond(limit))
    }
}
