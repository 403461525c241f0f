//! What a flight brings to those who wait for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::response::Parts;
use http::{HeaderValue, Response, StatusCode};

use crate::engine::body::Body;
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
    /// An answer that another replica has fetched, for whoever it is current for; it is in the store.
    Adopted(Arc<Entry>),
    /// An answer for one reader, as it comes; everyone else asks alone.
    Private(Private),
    /// No answer.
    Failed(Failure),
    /// Nothing was asked: before there was a place for it, nobody waited for it any more.
    NotSent,
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
    /// It answered that it cannot, or will not for the one who asked.
    Answered(ErrorAnswer),
    /// Its list breaks the contract, which is enforced; the first violations by path, never a value.
    BreaksContract(Arc<str>),
}

impl Failure {
    /// The class of the upstream's error, if it gave no answer (RFC 9209).
    pub fn class(&self) -> Option<&'static str> {
        match self {
            Self::Upstream(error) => error.proxy_error(),
            Self::Answered(_) | Self::BreaksContract(_) => None,
        }
    }
}

/// An answer that is an error.
#[derive(Clone, Debug)]
pub struct ErrorAnswer {
    /// What it says.
    pub answer: Arc<Prepared>,
    /// For how long the upstream wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The addresses of the one who asked, if it may be about him: then it is nobody else's.
    pub asker: Option<HeaderValue>,
}

impl FetchResult {
    /// The metric label of the flight's end.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Answer { .. } => "answered",
            Self::Adopted(_) => "adopted",
            Self::Private(private) => private.why,
            Self::Failed(Failure::Upstream(UpstreamError::Timeout)) => "deadline",
            Self::Failed(Failure::Upstream(UpstreamError::Spared(_))) => "spared",
            Self::Failed(Failure::BreaksContract(_)) => "breaks_contract",
            Self::Failed(Failure::Answered(ErrorAnswer { asker: Some(_), .. })) => "refused",
            Self::Failed(_) => "upstream_error",
            Self::NotSent => "not_sent",
        }
    }
}
