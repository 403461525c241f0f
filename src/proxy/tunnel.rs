//! A WebSocket: the request for it, and the two connections tied together.

use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use tokio_util::io::InspectReader;

use super::access_log::{About, TunnelRecord};
use super::cable;
use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::body::Body;
use crate::engine::metrics::{Ending, Raised};
use crate::engine::tunnel;

impl ClientRequest {
    /// A WebSocket: if the upstream agrees, both connections are tied together until one ends.
    pub(crate) async fn tunnel(mut self, about: About) -> Answered {
        // HTTP/1.0 has no way to switch.
        let Some(upgraded_client) = self.head.extensions.remove::<OnUpgrade>() else { return self.pass(None).await };
        let Some(mut request) = self.forwarded() else { return self.unsendable() };
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        let observes = self.active.config.observe_cable;
        if observes {
            // What is compressed cannot be read.
            request.headers_mut().remove(header::SEC_WEBSOCKET_EXTENSIONS);
        }
        let exchange = self.active.upstream.exchange();
        let mut response = match self.tally.waiting(self.active.upstream.switch(request)).await {
            Ok(response) => response,
            Err(error) => return self.failed(error),
        };
        let outcome = Outcome::forwarded(Ending::Pass, "bypass").status(response.status());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let response = response.map(|body| self.active.upstream.watch(body, exchange));
            return (self.as_passed(response), outcome);
        }
        let upgraded_upstream = hyper::upgrade::on(&mut response);
        let (silence, drained) = (self.active.upstream.settings().stall_timeout, self.state.lifecycle.drained.clone());
        let gauge = self.state.metrics.tunnels.clone();
        let mut observe = cable::observer(self.state.clone(), observes);
        let record = TunnelRecord::begin(about, &self.active.config.log);
        let state = self.state.clone();
        self.state.lifecycle.tasks.spawn(async move {
            let _open = Raised::new(&gauge);
            let _exchange = exchange;
            let mut sent = record.sent();
            let hear = |piece: &[u8]| {
                let touches = observe(piece);
                sent(piece);
                touches
            };
            let held = || cable::told(state.clone());
            if let (Ok(client), Ok(upstream)) = tokio::join!(upgraded_client, upgraded_upstream) {
                let (client, upstream) = (hyper_util::rt::TokioIo::new(client), hyper_util::rt::TokioIo::new(upstream));
                let client = InspectReader::new(client, record.received());
                // A tunnel may break at any time: that is its normal end.
                let _ = tunnel::copy(client, upstream, silence, drained, hear, held).await;
            }
            drop(record);
        });
        let mut switched = self.as_passed(response.map(|_| Body::empty()));
        switched.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        switched.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        (switched, outcome)
    }
}
