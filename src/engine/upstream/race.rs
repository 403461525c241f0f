//! One connection by several addresses: each has its time, the first that works is taken (RFC 8305).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout, timeout_at};

use super::addresses::NoAddress;
use super::connect_failure::{ConnectFailure, Stage};
use super::ways::{Ways, Wire};
use crate::engine::clock;
use crate::engine::metrics::ErrorClass;
use crate::policy::addresses::{STAGGER, Target, patience};

/// An attempt that has not ended.
struct Attempt {
    target: Target,
    began: Instant,
    /// Only TLS is missing.
    is_connected: Arc<AtomicBool>,
}

impl Attempt {
    fn stage(&self) -> Stage {
        if self.is_connected.load(Ordering::Acquire) { Stage::Tls } else { Stage::Address }
    }
}

type Ended = (Target, Result<Wire, (Stage, ConnectFailure)>);

struct Race<'w> {
    ways: &'w Arc<Ways>,
    /// Whether HTTP/2 is offered.
    http2: bool,
    /// All that were begun end with this.
    attempts: JoinSet<Ended>,
    under_way: Vec<Attempt>,
    /// The one that came furthest of those that failed.
    failure: Option<(Stage, ConnectFailure)>,
}

/// A connection, and where it leads.
pub(super) async fn race(ways: &Arc<Ways>, http2: bool) -> Result<(Wire, Target), ConnectFailure> {
    let deadline = clock::now() + ways.connect_timeout;
    let order = match timeout_at(deadline.into(), ways.addresses.order()).await {
        Ok(Ok(order)) => order,
        Ok(Err(NoAddress)) => return Err(ConnectFailure::unresolved()),
        Err(_) => return Err(ConnectFailure::too_late(Stage::Name)),
    };
    if let Some(target) = order.probe {
        tokio::spawn(probe(ways.clone(), target));
    }
    let mut race = Race { ways, http2, attempts: JoinSet::new(), under_way: Vec::new(), failure: None };
    let count = order.targets.len();
    let mut waiting = order.targets.into_iter();
    loop {
        let newest = race.under_way.last();
        let next_at = newest.map_or(clock::now(), |newest| {
            newest.began + patience(newest.stage() == Stage::Tls, ways.connect_timeout, count)
        });
        if next_at <= clock::now()
            && let Some(target) = waiting.next()
        {
            race.begin(target);
            continue;
        }
        if race.under_way.is_empty() {
            return Err(race.failure.map_or_else(ConnectFailure::unresolved, |(_, failure)| failure));
        }
        let wake_at = if waiting.len() > 0 { next_at.min(deadline) } else { deadline };
        tokio::select! {
            Some(ended) = race.attempts.join_next() => {
                // An attempt that panicked is dealt with by the deadline.
                if let Ok(ended) = ended
                    && let Some(won) = race.ended(ended)
                {
                    return Ok(won);
                }
            }
            () = sleep_until(wake_at.into()) => {
                if wake_at == deadline {
                    return Err(race.too_late());
                }
            }
        }
    }
}

impl Race<'_> {
    fn begin(&mut self, target: Target) {
        let (ways, http2, is_connected) = (self.ways.clone(), self.http2, Arc::new(AtomicBool::new(false)));
        self.under_way.push(Attempt { target, began: clock::now(), is_connected: is_connected.clone() });
        self.attempts.spawn(async move { (target, ways.open(target, http2, &is_connected).await) });
    }

    /// What follows from an attempt's end; the connection, if it is one.
    fn ended(&mut self, (target, result): Ended) -> Option<(Wire, Target)> {
        let at = self.under_way.iter().position(|attempt| attempt.target == target)?;
        let ended = self.under_way.remove(at);
        match result {
            Ok(wire) => {
                self.ways.addresses.succeeded(target);
                let now = clock::now();
                let overtaken = |attempt: &&Attempt| {
                    attempt.began < ended.began && now.saturating_duration_since(attempt.began) >= STAGGER
                };
                for attempt in self.under_way.iter().filter(overtaken) {
                    self.ways.addresses.failed(attempt.target);
                }
                Some((wire, target))
            }
            Err((stage, failure)) => {
                // What is missing on this side says nothing of the address.
                if failure.class != ErrorClass::ProxyInternalError {
                    self.ways.addresses.failed(target);
                }
                if self.failure.is_none_or(|(furthest, _)| stage >= furthest) {
                    self.failure = Some((stage, failure));
                }
                None
            }
        }
    }

    /// None has come in time.
    fn too_late(&self) -> ConnectFailure {
        for attempt in &self.under_way {
            self.ways.addresses.failed(attempt.target);
        }
        ConnectFailure::too_late(self.under_way.iter().map(Attempt::stage).max().unwrap_or(Stage::Address))
    }
}

/// Tries an address that is left out, behind. It must be as fast as the others need not wait for.
async fn probe(ways: Arc<Ways>, target: Target) {
    let is_connected = AtomicBool::new(false);
    let mut opening = std::pin::pin!(ways.open(target, false, &is_connected));
    let opened = match timeout(STAGGER, &mut opening).await {
        Ok(opened) => opened.is_ok(),
        Err(_) if !is_connected.load(Ordering::Acquire) => false,
        Err(_) => matches!(timeout(ways.connect_timeout, opening).await, Ok(Ok(_))),
    };
    if opened { ways.addresses.succeeded(target) } else { ways.addresses.failed(target) }
}
