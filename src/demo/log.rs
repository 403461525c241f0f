//! What was asked of the stand-in, and gates that hold requests until a test lets them go.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// How long a test waits for a fact before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request as it arrived.
#[derive(Clone)]
pub struct Seen {
    /// The method on the wire, before any override.
    pub method: Method,
    /// Path and query, byte for byte.
    pub target: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The length of the body, once it was read to its end.
    pub body_length: Option<u64>,
    /// The body, once it was read to its end; not kept for direct uploads.
    pub body: Bytes,
    /// Whether this asks for the conversation list, in any spelling of its path.
    pub is_list: bool,
    /// The decoded contact identifier in the path.
    pub source_id: Option<String>,
}

impl Seen {
    /// Whether this may change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }
}

/// Paths hold contact identifiers, which are credentials: only what is not secret is shown.
impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Seen");
        shown.field("method", &self.method).field("is_list", &self.is_list).field("body_length", &self.body_length);
        shown.finish_non_exhaustive()
    }
}

/// Says which requests a gate or a fault concerns.
#[derive(Clone)]
pub struct Matcher(Arc<dyn Fn(&Seen) -> bool + Send + Sync>);

impl Matcher {
    /// Requests for which `condition` holds.
    pub fn when(condition: impl Fn(&Seen) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(condition))
    }

    /// Every request.
    pub fn any() -> Self {
        Self::when(|_| true)
    }

    /// Every request for a conversation list.
    pub fn lists() -> Self {
        Self::when(|seen| seen.is_list)
    }

    /// Requests for the list of one contact.
    pub fn list_of(source_id: &str) -> Self {
        let source_id = source_id.to_owned();
        Self::when(move |seen| seen.is_list && seen.source_id.as_ref() == Some(&source_id))
    }

    /// Every request with a method that may change something.
    pub fn writes() -> Self {
        Self::when(Seen::is_write)
    }

    /// Requests with this method and exactly this path and query.
    pub fn request(method: Method, target: &str) -> Self {
        let target = target.to_owned();
        Self::when(move |seen| seen.method == method && seen.target == target)
    }

    /// Whether it concerns this request.
    pub fn matches(&self, seen: &Seen) -> bool {
        (self.0)(seen)
    }
}

/// The requests so far, in order of arrival.
pub(super) struct Log {
    kept: usize,
    all: Mutex<Kept>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    seen: Vec<Seen>,
    /// How many were forgotten: the place of the first one in `seen`.
    forgotten: usize,
}

impl Log {
    /// A log of the newest `kept` requests.
    pub(super) fn new(kept: usize) -> Self {
        Self { kept: kept.max(1), all: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// Notes a request and gives its place.
    pub(super) fn note(&self, seen: Seen) -> usize {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.seen.len() >= self.kept {
            // Half at once, so that forgetting costs little per request.
            let half = all.seen.len().div_ceil(2);
            all.seen.drain(..half);
            all.forgotten += half;
        }
        all.seen.push(seen);
        let place = all.forgotten + all.seen.len() - 1;
        drop(all);
        self.changes.send_modify(|changes| *changes += 1);
        place
    }

    /// Adds what is known only once the body was read.
    pub(super) fn note_body(&self, place: usize, length: u64, body: Bytes) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let place = place.checked_sub(all.forgotten);
        if let Some(seen) = place.and_then(|place| all.seen.get_mut(place)) {
            (seen.body_length, seen.body) = (Some(length), body);
        }
        drop(all);
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&[Seen]) -> T) -> T {
        look(&self.all.lock().unwrap_or_else(PoisonError::into_inner).seen)
    }

    pub(super) async fn wait_for(&self, what: &str, condition: impl Fn(&[Seen]) -> bool) {
        let mut changes = self.changes.subscribe();
        let met = changes.wait_for(|_| self.read(&condition));
        if timeout(PATIENCE, met).await.is_err() {
            let count = self.read(<[Seen]>::len);
            panic!("waited {PATIENCE:?} in vain for {what}; the stand-in has seen {count} requests");
        }
    }
}

/// Where a gate stands on a request's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The request is here, nothing has been read or changed for it.
    BeforeReading,
    /// The answer has been made from the data of this moment; not a byte of it was sent.
    AfterReading,
    /// The write is done; not a byte of its answer was sent.
    Acknowledging,
}

/// A gate: matching requests stop at it until they are released. Dropping it opens it for good.
pub struct Gate {
    shut: Arc<Shut>,
}

struct Shut {
    point: Point,
    matcher: Matcher,
    arrived: watch::Sender<usize>,
    /// One permit for each release; closed once the gate is open for good.
    passes: Semaphore,
}

impl Gate {
    /// Lets one request go: the one that has waited longest, or the next to arrive.
    pub fn release_one(&self) {
        self.shut.passes.add_permits(1);
    }

    /// Opens the gate: everyone waiting goes on, and nobody stops here any more.
    pub fn release_all(&self) {
        self.shut.passes.close();
    }

    /// Waits until `count` requests, in all, have come to the gate.
    pub async fn arrived(&self, count: usize) {
        let mut arrived = self.shut.arrived.subscribe();
        if timeout(PATIENCE, arrived.wait_for(|arrived| *arrived >= count)).await.is_err() {
            let arrived = *self.shut.arrived.borrow();
            panic!("waited {PATIENCE:?} in vain for {count} requests at {:?}; {arrived} came", self.shut.point);
        }
    }

    /// How many requests, in all, have come to the gate.
    pub fn arrivals(&self) -> usize {
        *self.shut.arrived.borrow()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.release_all();
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("point", &self.shut.point).field("arrivals", &self.arrivals()).finish()
    }
}

/// All gates that stand.
#[derive(Default)]
pub(super) struct Gates {
    standing: Mutex<Vec<Arc<Shut>>>,
}

impl Gates {
    pub(super) fn hold(&self, point: Point, matcher: Matcher) -> Gate {
        let shut = Shut { point, matcher, arrived: watch::Sender::new(0), passes: Semaphore::new(0) };
        let shut = Arc::new(shut);
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&shut));
        Gate { shut }
    }

    /// Stops at every gate that stands here for this request, one after the other.
    pub(super) async fn pass(&self, point: Point, seen: &Seen) {
        let gates = {
            let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
            standing.retain(|gate| !gate.passes.is_closed());
            standing.clone()
        };
        for gate in gates.iter().filter(|gate| gate.point == point && gate.matcher.matches(seen)) {
            gate.arrived.send_modify(|arrived| *arrived += 1);
            if let Ok(pass) = gate.passes.acquire().await {
                pass.forget();
            }
        }
    }
}
