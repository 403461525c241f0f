//! Reads past the cache, "lists" here whatever they give: those that may not be shared, and those whose answers cannot be.

use std::time::Instant;

use http::{Response, StatusCode, header};

use super::no_list;
use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::body::{Body, Watched};
use crate::engine::metrics::{Ending, InvalidationSource, Limit};
use crate::engine::upstream::error::UpstreamError;
use crate::policy::http::key::Key;
use crate::policy::http::no_list::NoList;
use crate::policy::http::route::{BypassReason, Source};
use crate::policy::resource::ReadKind;

/// The source of which an answer may show the contact. Lists are too long to be read on their way.
fn learns_from(key: &Key) -> Option<Source> {
    let source = || Source { inbox: key.inbox().to_owned(), contact: key.contact().to_owned() };
    (key.read() != ReadKind::Conversations).then(source)
}

impl ClientRequest {
    /// A list whose answers cannot be shared: everyone asks alone, but no more at once than `upstream.max_in_flight`. The
    /// answer has begun by the deadline.
    pub(crate) async fn alone(&mut self, key: &Key, why: &'static str, deadline: Instant) -> Answered {
        let deadline = deadline.into();
        let take = self.state.upstream.in_flight.take(self.client_network());
        let Ok(Some(place)) = tokio::time::timeout_at(deadline, take).await else {
            let problem = self.busy("too many requests for lists that cannot be shared");
            return (problem, Outcome::own(Ending::Failed).detail("too-many-in-flight").beyond(Limit::MaxInFlight));
        };
        let outcome = Outcome::forwarded(Ending::Miss, "uri-miss").detail(why);
        let learns = learns_from(key);
        match tokio::time::timeout_at(deadline, self.send_on(learns)).await.unwrap_or(Err(UpstreamError::Timeout)) {
            Ok(response) => {
                self.note_passing_list(key, &response);
                let outcome = outcome.status(response.status());
                let response = response.map(|body| Body::stream(Watched::guarded(body, place)));
                (self.as_passed(response), outcome)
            }
            Err(error) => self.failed(error),
        }
    }

    /// A list that may not be shared: passed on, and compared with what is kept.
    pub(crate) async fn bypass(&mut self, key: &Key, reason: BypassReason) -> Answered {
        self.state.metrics.bypass.with_label_values(&[reason.label()]).inc();
        let outcome = Outcome::forwarded(Ending::Bypass, "bypass").detail(reason.label());
        match self.send_on(learns_from(key)).await {
            Ok(response) => {
                self.note_passing_list(key, &response);
                let outcome = outcome.status(response.status());
                (self.as_passed(response), outcome)
            }
            Err(error) => self.failed(error),
        }
    }

    /// Whoever sees this list must not see an older one afterwards: if it differs from what is kept, or from what may
    /// be about to land, that is out of date.
    fn note_passing_list(&self, key: &Key, response: &Response<Body>) {
        let (base, path) = (self.active.upstream.base(), self.head.uri.path_and_query().map_or("/", |path| path.as_str()));
        if let Ok(asked) = base.join(path)
            && let Some(what) = NoList::of_head(response.status(), response.headers(), &asked)
        {
            no_list::tell(&self.state, response.status(), what, None);
        }
        // A 404 is an answer, too.
        if !matches!(response.status(), StatusCode::OK | StatusCode::NOT_MODIFIED | StatusCode::NOT_FOUND) {
            return;
        }
        let (cache, seen) = (&self.state.cache, response.headers().get(header::ETAG));
        let keys: Vec<Key> = std::iter::once(key.clone()).chain(self.key_of_origin(key)).collect();
        // In this order: a flight stores its answer before it is no longer under way.
        let under_way = keys.iter().any(|key| cache.flights.is_under_way(key));
        let kept: Vec<bool> = keys
            .iter()
            .filter_map(|key| cache.store.get(key))
            .map(|kept| seen.is_some() && kept.answer.upstream_etag().as_ref() == seen)
            .collect();
        let differs = kept.contains(&false) || (kept.is_empty() && cache.has_variants(key));
        if under_way || differs {
            self.state.invalidation.invalidate_list(key, InvalidationSource::Bypass);
        }
    }
}

