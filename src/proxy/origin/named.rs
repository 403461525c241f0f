//! What else a write has changed: the answers that its own answer names (RFC 9111 section 4.4).

use http::{Method, Response};

use crate::engine::body::Body;
use crate::engine::metrics::InvalidationSource;
use crate::policy::http::route::{Route, Rules, classify};
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
        let rules = Rules { webhooks: None, ..self.active.rules() };
        for target in named(&self.head.uri, response.headers(), &places) {
            let route = classify(&Method::GET, &target.into(), &http::HeaderMap::new(), rules);
            if let Route::Cached(key) = route {
                self.state.invalidation.invalidate_list(&self.key_of_host(key), InvalidationSource::Write);
            }
        }
    }
}
