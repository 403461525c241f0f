//! What else a write has changed: the answers that its own answer names (RFC 9111 section 4.4).

use http::{HeaderMap, Method, Response, Uri};

use crate::engine::body::Body;
use crate::engine::metrics::InvalidationSource;
use crate::policy::http::key::Key;
use crate::policy::http::route::{Route, Rules, classify, names_another_target};
use crate::policy::resource::ReadKind;
use crate::policy::rfc9111::invalidate::{Place, invalidates, named};
use crate::proxy::request::ClientRequest;

impl ClientRequest {
    /// Puts out of date what the answer to a write names, before the client sees it. Its own target was put out of date already.
    pub(crate) fn invalidate_named(&self, response: &Response<Body>) {
        let config = &self.active.config;
        if config.origin.is_none() || !invalidates(&self.head.method, response.status()) {
            return;
        }
        let (client, base) = (self.client(), self.active.upstream.base());
        let asked = client.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let places = [
            Place { authority: base.authority.as_str(), prefix: &base.prefix },
            Place { authority: asked, prefix: "" },
        ];
        for target in named(&self.head.uri, response.headers(), &places) {
            if let Some(key) = self.kept_at(&target.into(), &HeaderMap::new()) {
                self.state.invalidation.invalidate_list(&self.key_of_host(key), InvalidationSource::Write);
            }
        }
    }

    /// Whether the target of this write is itself a list that is kept as the answers to it say. Of what is written to the others,
    /// a failure may have changed something.
    pub(crate) fn is_to_a_kept_list(&self) -> bool {
        self.active.config.origin.is_some()
            && !names_another_target(&self.head.headers)
            && self.kept_at(&self.head.uri, &self.head.headers).is_some_and(|key| key.read() == ReadKind::Conversations)
    }

    /// Whose answers there are kept as they say themselves.
    fn kept_at(&self, target: &Uri, asked: &HeaderMap) -> Option<Key> {
        let rules = Rules { webhooks: None, ..self.active.rules() };
        match classify(&Method::GET, target, asked, rules) {
            Route::Cached(key) => Some(key),
            _ => None,
        }
    }
}
