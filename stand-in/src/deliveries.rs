//! Webhooks as tests handle them: receivers come and go, deliveries are held, looked at and sent again.

use http::Uri;

use super::log::Gate;
use super::stand_in::StandIn;
use super::webhooks::{Delivery, Fate, Webhook};

impl StandIn {
    /// From now on this receiver is told what happens, besides those there are. Panics if its URL is not an
    /// `http` one; the message does not repeat it.
    pub fn send_webhooks_to(&self, webhook: Webhook) {
        let url: Option<Uri> = webhook.url.parse().ok();
        let is_http = url.is_some_and(|it| it.scheme_str() == Some("http") && it.authority().is_some());
        assert!(is_http, "a webhook needs the URL of a receiver, with http");
        self.shared.outbox.add(webhook, self.shared.stopping.child_token());
    }

    /// Takes all receivers away. What was not sent yet never is, and what is under way is given up.
    pub fn stop_webhooks(&self) {
        self.shared.outbox.clear();
    }

    /// Every delivery that has ended, in the order in which they did.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.deliveries.read(<[Delivery]>::to_vec)
    }

    /// Waits until a condition on the deliveries so far holds. Fails the test after 20 s, naming `what`.
    pub async fn wait_for_deliveries(&self, what: &str, condition: impl Fn(&[Delivery]) -> bool) {
        self.shared.deliveries.wait_for(what, condition).await;
    }

    /// Deliveries that were dropped because too many waited.
    pub fn dropped_deliveries(&self) -> usize {
        self.shared.outbox.dropped()
    }

    /// Sets up a gate for all deliveries. They come to it when they are due and are signed when they leave it; up to
    /// 256 stand there at once.
    pub fn hold_deliveries(&self) -> Gate {
        self.hold_deliveries_when(|_| true)
    }

    /// Sets up a gate for some deliveries: all others overtake them.
    pub fn hold_deliveries_when(&self, condition: impl Fn(&Delivery) -> bool + Send + Sync + 'static) -> Gate {
        self.shared.delivery_gates.hold("deliveries".to_owned(), Box::new(condition))
    }

    /// Sends a delivery once more, as a queue does that runs a job twice: the same id and body, signed anew.
    pub async fn deliver_again(&self, delivery: &Delivery) -> Fate {
        let mut delivery = delivery.clone();
        delivery.send().await;
        let fate = delivery.fate;
        self.shared.deliveries.note(delivery);
        fate
    }

    /// Sends a delivery once more, byte for byte with its old signature, as a stranger would who has overheard it.
    pub async fn replay_delivery(&self, delivery: &Delivery) -> Fate {
        let mut delivery = delivery.clone();
        delivery.send_as_it_is().await;
        let fate = delivery.fate;
        self.shared.deliveries.note(delivery);
        fate
    }
}
