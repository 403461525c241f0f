//! Anything that is not ours: passed on as it is.

use http::{Response, StatusCode};

use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::body::{Body, Read, read_at_most};
use crate::engine::clock;
use crate::engine::metrics::Ending;
use crate::engine::upstream::error::UpstreamError;
use crate::policy::coherence::answer_ids;
use crate::policy::http::headers::is_json;
use crate::policy::http::route::Source;
use crate::state::invalidation::Shown;

/// Answers up to this size are read for the contact they show while they pass.
const LEARN_FROM: u64 = 64 * 1024;

impl ClientRequest {
    /// Anything that is not ours. If its answer shows the contact of a source, that is learned on the way.
    pub(crate) async fn pass(mut self, source: Option<Source>) -> Answered {
        match self.send_on(source).await {
            Ok(response) => {
                self.invalidate_named(&response);
                let outcome = Outcome::forwarded(Ending::Pass, "bypass").status(response.status());
                (self.as_passed(response), outcome)
            }
            Err(error) => self.failed(error),
        }
    }

    /// Sends the request on as it is and gives the answer as it comes.
    pub(crate) async fn send_on(&mut self, learn: Option<Source>) -> Result<Response<Body>, UpstreamError> {
        let Some(request) = self.forwarded() else { return Err(UpstreamError::Malformed) };
        let (noted, began) = (self.state.invalidation.ledger.now(), clock::now());
        let exchange = self.active.upstream.exchange();
        let response = self.tally.waiting(self.active.upstream.send(request)).await?;
        let response = response.map(|body| self.active.upstream.watch(body, exchange));
        match learn {
            Some(Source { inbox, contact }) => {
                self.learn(Shown { whose: self.active.whose(&inbox, &contact), noted, began }, response).await
            }
            None => Ok(response),
        }
    }

    /// Reads a short answer on its way for the contact it shows.
    async fn learn(
        &self,
        shown: Shown<'_>,
        response: Response<Body>,
    ) -> Result<Response<Body>, UpstreamError> {
        let length = http_body::Body::size_hint(response.body()).exact();
        let is_json = is_json(response.headers());
        if response.status() != StatusCode::OK || !is_json || length.is_none_or(|length| length > LEARN_FROM) {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let body = match read_at_most(body, usize::MAX).await {
            Ok(Read::Whole(read)) => {
                let ids = answer_ids::of_answer(&read);
                if let Some(contact) = ids.contact {
                    self.state.invalidation.learn(shown, contact);
                }
                self.state.invalidation.learn_token(&ids, self.active.config.observe_cable);
                Body::from(read)
            }
            Ok(Read::Longer(body)) => body,
            Err(_) => return Err(UpstreamError::Incomplete),
        };
        Ok(Response::from_parts(head, body))
    }
}
