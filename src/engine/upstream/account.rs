//! What is counted of requests to the upstream and of their answers. No label is looked up for what is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use prometheus::{Histogram, IntCounter};

use super::error::UpstreamError;
use super::health::Health;
use crate::engine::body::Guard;
use crate::engine::clock;
use crate::engine::metrics::{Metrics, Raised, class_label};

/// The first status of each class, and one beyond them all.
const FIRST_OF_CLASS: [u16; 6] = [100, 200, 300, 400, 500, 600];

/// The account of one client.
pub(super) struct Account {
    /// By the class of their status.
    answers: [IntCounter; FIRST_OF_CLASS.len()],
    head: Histogram,
    whole: Histogram,
    metrics: Arc<Metrics>,
}

impl Account {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let answers = FIRST_OF_CLASS.map(|first| {
            let class = class_label(StatusCode::from_u16(first).expect("a status has three digits"));
            metrics.upstream_requests.with_label_values(&[class])
        });
        let [head, whole] = ["head", "whole"].map(|phase| metrics.upstream_duration.with_label_values(&[phase]));
        Self { answers, head, whole, metrics }
    }

    /// The head of an answer has come.
    pub(super) fn answered(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        self.answers[class.min(FIRST_OF_CLASS.len() - 1)].inc();
        self.head.observe(took.as_secs_f64());
    }

    /// None will.
    pub(super) fn failed(&self, error: UpstreamError, took: Duration) {
        self.metrics.upstream_requests.with_label_values(&[error.label()]).inc();
        self.head.observe(took.as_secs_f64());
    }
}

/// An exchange with the upstream that is under way.
pub struct Exchange {
    _in_flight: Raised,
    began: Instant,
    health: Arc<Health>,
    account: Arc<Account>,
}

impl Exchange {
    pub(super) fn begin(health: &Arc<Health>, account: &Arc<Account>) -> Self {
        Self {
            _in_flight: Raised::new(&account.metrics.upstream_in_flight),
            began: clock::now(),
            health: health.clone(),
            account: account.clone(),
        }
    }
}

impl Guard for Exchange {
    fn whole(&mut self) {
        let took = clock::now().saturating_duration_since(self.began);
        self.account.whole.observe(took.as_secs_f64());
    }

    fn broken(&mut self) {
        self.health.failed(UpstreamError::Incomplete);
    }
}
