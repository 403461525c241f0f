//! What was asked of the stand-in and what it sent, and gates that hold either until a test lets it go.

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

/// What there was so far, in order: requests as they arrived, deliveries as they ended.
pub(super) struct Log<T> {
    kept: usize,
    all: Mutex<Kept<T>>,
    changes: watch::Sender<u64>,
}

struct Kept<T> {
    seen: Vec<T>,
    /// How many were forgotten: the place of the first one in `seen`.
    forgotten: usize,
}

impl<T> Log<T> {
    /// A log of the newest `kept` entries.
    pub(super) fn new(kept: usize) -> Self {
        let all = Mutex::new(Kept { seen: Vec::new(), forgotten: 0 });
        Self { kept: kept.max(1), all, changes: watch::Sender::new(0) }
    }

    /// Notes an entry and gives its place.
    pub(super) fn note(&self, seen: T) -> usize {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.seen.len() >= self.kept {
            // Half at once, so that forgetting costs little per entry.
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

    pub(super) fn read<R>(&self, look: impl FnOnce(&[T]) -> R) -> R {
        look(&self.all.lock().unwrap_or_else(PoisonError::into_inner).seen)
    }

    pub(super) async fn wait_for(&self, what: &str, condition: impl Fn(&[T]) -> bool) {
        let mut changes = self.changes.subscribe();
        let met = changes.wait_for(|_| self.read(&condition));
        if timeout(PATIENCE, met).await.is_err() {
            let count = self.read(<[T]>::len);
            panic!("waited {PATIENCE:?} in vain for {what}; the stand-in has noted {count} of them");
        }
    }
}

impl Log<Seen> {
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

/// A gate: what matches stops at it until it is released. Dropping it opens it for good.
pub struct Gate {
    shut: Arc<Shut>,
}

struct Shut {
    /// Where it stands, for whoever waits in vain.
    place: String,
    arrived: watch::Sender<usize>,
    /// One permit for each release; closed once the gate is open for good.
    passes: Semaphore,
}

impl Gate {
    /// Lets one go: the one that has waited longest, or the next to arrive.
    pub fn release_one(&self) {
        self.shut.passes.add_permits(1);
    }

    /// Opens the gate: everyone waiting goes on, and nobody stops here any more.
    pub fn release_all(&self) {
        self.shut.passes.close();
    }

    /// Waits until `count`, in all, have come to the gate.
    pub async fn arrived(&self, count: usize) {
        let mut arrived = self.shut.arrived.subscribe();
        if timeout(PATIENCE, arrived.wait_for(|arrived| *arrived >= count)).await.is_err() {
            let (arrived, place) = (*self.shut.arrived.borrow(), &self.shut.place);
            panic!("waited {PATIENCE:?} in vain for {count} {place}; {arrived} came");
        }
    }

    /// How many, in all, have come to the gate.
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
        f.debug_struct("Gate").field("place", &self.shut.place).field("arrivals", &self.arrivals()).finish()
    }
}

/// All gates that stand, each with what says whom it concerns.
pub(super) struct Gates<M> {
    standing: Mutex<Vec<(M, Arc<Shut>)>>,
}

impl<M> Default for Gates<M> {
    fn default() -> Self {
        Self { standing: Mutex::default() }
    }
}

impl<M> Gates<M> {
    pub(super) fn hold(&self, place: String, matcher: M) -> Gate {
        let shut = Arc::new(Shut { place, arrived: watch::Sender::new(0), passes: Semaphore::new(0) });
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).push((matcher, Arc::clone(&shut)));
        Gate { shut }
    }

    /// Stops at every gate that concerns this one, one after the other.
    pub(super) async fn pass(&self, concerned: impl Fn(&M) -> bool) {
        let gates: Vec<_> = {
            let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
            standing.retain(|(_, gate)| !gate.passes.is_closed());
            standing.iter().filter(|(matcher, _)| concerned(matcher)).map(|(_, gate)| Arc::clone(gate)).collect()
        };
        for gate in gates {
            gate.arrived.send_modify(|arrived| *arrived += 1);
            if let Ok(pass) = gate.passes.acquire().await {
                pass.forget();
            }
        }
    }
}
