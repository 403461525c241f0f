//! What a flight brings to those who wait for it.

use std::sync::{Arc, Mutex, PoisonError};

use http::response::Parts;
use http::{Response, StatusCode};

use crate::engine::body::Body;
use crate::engine::metrics::ErrorClass;
use crate::engine::store::Entry;
use crate::engine::upstream::error::UpstreamError;
use crate::policy::http::representation::Prepared;

/// What a flight brings.
#[derive(Clone)]
pub enum FetchResult {
    /// An answer for whoever it is current for.
    Answer {
        /// The answer, and what it was made from.
        entry: Arc<Entry>,
        /// What the upstream answered: 304 if it was asked whether the answer still holds.
        status: StatusCode,
        /// It was put into the store.
        stored: bool,
        /// Not everything it was made from is known: only for readers who had arrived when its fetch began.
        only_early: bool,
    },
    /// An answer for one reader, as it comes; everyone else asks alone.
    Private(Private),
    /// No answer.
    Failed(Failure),
}

/// An answer that cannot be shared, and why.
#[derive(Clone)]
pub struct Private {
    /// Whoever takes it first has it.
    response: Arc<Mutex<Option<Response<Body>>>>,
    /// `too_large` or `not_storable`.
    pub why: &'static str,
}

impl Private {
    /// An answer that nobody has taken yet.
    pub(crate) fn new(head: Parts, body: Body, why: &'static str) -> Self {
        Self { response: Arc::new(Mutex::new(Some(Response::from_parts(head, body)))), why }
    }

    /// The answer, if nobody has taken it.
    pub fn take(&self) -> Option<Response<Body>> {
        self.response.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The upstream gave none.
    Upstream(UpstreamError),
    /// It answered that it cannot: 5xx or 429.
    Answered(Arc<Prepared>),
    /// Its list breaks the contract, which is enforced; the first violations by path, never a value.
    BreaksContract(Arc<str>),
}

impl Failure {
    /// The class of the upstream's error, if it gave no answer (RFC 9209).
    pub fn class(&self) -> Option<&'static str> {
        match self {
            Self::Upstream(error) => error.class().map(ErrorClass::label),
            Self::Answered(_) | Self::BreaksContract(_) => None,
        }
    }
}

impl FetchResult {
    /// The metric label of the flight's end.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Answer { .. } => "answered",
            Self::Private(private) => private.why,
            Self::Failed(Failure::Upstream(UpstreamError::Timeout)) => "deadline",
            Self::Failed(Failure::BreaksContract(_)) => "breaks_contract",
            Self::Failed(_) => "upstream_error",
        }
    }
}
