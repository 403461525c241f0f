//! One fetch per key; everyone else waits for it. A flight is a task of its own: a client that leaves cancels nothing that
//! has been sent. What has not been sent knows when nobody waits for it any more.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::policy::coherence::ledger::Tick;
use crate::policy::http::key::Key;

/// What flights obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightSettings {
    /// `cache.wait`: how long one reader waits in all.
    pub wait: Duration,
    /// `cache.max_waiters`: readers waiting at once, for all flights together.
    pub max_waiters: usize,
}

/// The flights under way. `T` is what a flight brings; everyone who waits gets a clone.
pub struct Flights<T> {
    table: Arc<Mutex<Table<T>>>,
    waiters: Arc<AtomicUsize>,
    max_waiters: usize,
    tasks: TaskTracker,
}

struct Table<T> {
    next_id: u64,
    under_way: HashMap<Key, Flight<T>>,
}

struct Flight<T> {
    id: u64,
    noted: Tick,
    land: Arc<watch::Sender<Word<T>>>,
    sent: Arc<AtomicBool>,
}

/// What those who wait are told.
enum Word<T> {
    /// Nothing yet.
    None,
    /// What it will bring is for whoever began it, and nobody else.
    ForItsLeader,
    /// What it brought.
    Landed(T),
}

/// What a reader holds who waits for a flight.
pub struct Ticket<T> {
    /// Which flight.
    pub id: u64,
    /// The tick noted before its fetch began.
    pub noted: Tick,
    result: watch::Receiver<Word<T>>,
    /// Another began it.
    follows: bool,
    sent: Arc<AtomicBool>,
    place: Option<WaiterPlace>,
}

/// What a fetch knows of those who wait for it.
pub struct Interest<T> {
    land: Arc<watch::Sender<Word<T>>>,
    sent: Arc<AtomicBool>,
}

/// What came of asking for a flight.
pub enum Joined<T> {
    /// This reader's asking began it.
    Led(Ticket<T>),
    /// It was under way.
    Followed(Ticket<T>),
    /// None is needed: an answer had come meanwhile.
    Settled(T),
    /// Too many readers wait already.
    Crowded,
}

/// Why a ticket brought nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    /// The reader's own limit passed first.
    WaitedLongEnough,
    /// The flight's task ended without a word.
    Dropped,
    /// What the flight will bring is for whoever began it.
    ForItsLeader,
}

/// What a flight needs from whoever begins it.
pub struct NewFlight<B, S> {
    /// Noted before anything is sent.
    pub noted: Tick,
    /// Begins the fetch. It has its own deadline.
    pub fetch: B,
    /// Called before anybody gets what it brought, with how it ended.
    pub on_end: S,
}

/// How a flight ended, for whoever began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlightEnd {
    /// It brought something.
    Arrived {
        /// A later flight had taken its place.
        superseded: bool,
    },
    /// Its fetch panicked, or its task was dropped.
    Dropped,
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// No flight is under way.
    pub fn new(settings: FlightSettings) -> Self {
        let table = Table { next_id: 0, under_way: HashMap::new() };
        Self {
            table: Arc::new(Mutex::new(table)),
            waiters: Arc::default(),
            max_waiters: settings.max_waiters,
            tasks: TaskTracker::new(),
        }
    }

    /// Joins the flight of a key if it `is_joinable`, else asks `settled` once more for an answer (the flight may
    /// have landed since the reader looked), else begins one.
    pub fn join<B, F, S>(
        &self,
        key: &Key,
        is_joinable: impl FnOnce(u64, Tick) -> bool,
        settled: impl FnOnce() -> Option<T>,
        begin: impl FnOnce() -> NewFlight<B, S>,
    ) -> Joined<T>
    where
        B: FnOnce(Interest<T>) -> F,
        F: Future<Output = T> + Send + 'static,
        S: FnOnce(FlightEnd, Option<&T>) + Send + 'static,
    {
        let Some(place) = self.take_place() else { return Joined::Crowded };
        let mut table = self.lock();
        if let Some(flight) = table.under_way.get(key)
            && !matches!(*flight.land.borrow(), Word::ForItsLeader)
            && is_joinable(flight.id, flight.noted)
        {
            let (id, noted, result, sent) = (flight.id, flight.noted, flight.land.subscribe(), flight.sent.clone());
            return Joined::Followed(Ticket { id, noted, result, follows: true, sent, place: Some(place) });
        }
        // An answer is stored before its flight is removed, and both happen before this lock was had.
        if let Some(answer) = settled() {
            return Joined::Settled(answer);
        }
        let NewFlight { noted, fetch, on_end } = begin();
        let id = table.next_id;
        table.next_id += 1;
        let (land, result) = watch::channel(Word::None);
        let (land, sent) = (Arc::new(land), Arc::<AtomicBool>::default());
        table.under_way.insert(key.clone(), Flight { id, noted, land: land.clone(), sent: sent.clone() });
        drop(table);
        let fetch = fetch(Interest { land: land.clone(), sent: sent.clone() });
        let running = Running { table: self.table.clone(), key: key.clone(), id, land, on_end: Some(on_end) };
        self.tasks.spawn(running.run(fetch));
        Joined::Led(Ticket { id, noted, result, follows: false, sent, place: Some(place) })
    }

    /// The flight of this key that is under way, if it is one of those; none if too many readers wait already.
    pub fn under_way_if(&self, key: &Key, is_one: impl FnOnce(Tick) -> bool) -> Option<Ticket<T>> {
        let place = self.take_place()?;
        let table = self.lock();
        let flight = table.under_way.get(key).filter(|flight| is_one(flight.noted))?;
        let (id, noted, result, sent) = (flight.id, flight.noted, flight.land.subscribe(), flight.sent.clone());
        // Nothing of it is for him: only its end.
        Some(Ticket { id, noted, result, follows: false, sent, place: Some(place) })
    }

    /// Whether a flight of this key is under way.
    pub fn is_under_way(&self, key: &Key) -> bool {
        self.lock().under_way.contains_key(key)
    }

    /// The keys of the flights under way.
    pub fn keys_under_way(&self) -> Vec<Key> {
        self.lock().under_way.keys().cloned().collect()
    }

    /// Flights under way, superseded ones too.
    pub fn under_way(&self) -> usize {
        self.tasks.len()
    }

    fn take_place(&self) -> Option<WaiterPlace> {
        let place = WaiterPlace(self.waiters.clone());
        let before = self.waiters.fetch_add(1, Ordering::Relaxed);
        (before < self.max_waiters).then_some(place)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table<T>> {
        lock(&self.table)
    }
}

/// Held briefly, never across an await; a panic while it is held leaves the table whole.
fn lock<T>(table: &Mutex<Table<T>>) -> std::sync::MutexGuard<'_, Table<T>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone> Ticket<T> {
    /// Waits until the flight lands, or is known to bring nothing for this reader; at most so long.
    pub async fn wait(&mut self, limit: Duration) -> Result<T, Lost> {
        let follows = self.follows;
        let is_over = |word: &Word<T>| match word {
            Word::None => false,
            Word::ForItsLeader => follows,
            Word::Landed(_) => true,
        };
        match tokio::time::timeout(limit, self.result.wait_for(is_over)).await {
            Ok(Ok(word)) => match &*word {
                Word::Landed(result) => Ok(result.clone()),
                Word::None | Word::ForItsLeader => Err(Lost::ForItsLeader),
            },
            Ok(Err(_)) => Err(Lost::Dropped),
            Err(_) => Err(Lost::WaitedLongEnough),
        }
    }

    /// Whether its fetch has been sent, or still waits for a place.
    pub fn was_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// Gives up the place among those who wait, but not what the flight may bring.
    pub fn leave_place(&mut self) {
        self.place = None;
    }
}

impl<T> Interest<T> {
    /// Ends when nobody waits for the flight.
    pub async fn gone(&self) {
        self.land.closed().await;
    }

    /// What it will bring is for whoever began it: the others need not wait, and nobody joins it any more.
    pub fn is_for_its_leader(&self) {
        self.land.send_if_modified(|word| {
            let is_new = matches!(word, Word::None);
            if is_new {
                *word = Word::ForItsLeader;
            }
            is_new
        });
    }

    /// The fetch is sent from now on.
    pub fn sent(&self) {
        self.sent.store(true, Ordering::Relaxed);
    }
}

struct WaiterPlace(Arc<AtomicUsize>);

impl Drop for WaiterPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The end of a flight, on every way out.
struct Running<T, S: FnOnce(FlightEnd, Option<&T>)> {
    table: Arc<Mutex<Table<T>>>,
    key: Key,
    id: u64,
    land: Arc<watch::Sender<Word<T>>>,
    on_end: Option<S>,
}

impl<T, S: FnOnce(FlightEnd, Option<&T>)> Running<T, S> {
    async fn run(mut self, fetch: impl Future<Output = T>) {
        // If this panics or is dropped, `Drop` does the rest.
        let brought = fetch.await;
        let superseded = !self.remove();
        if let Some(on_end) = self.on_end.take() {
            on_end(FlightEnd::Arrived { superseded }, Some(&brought));
        }
        self.land.send_replace(Word::Landed(brought));
    }

    /// Removes the flight, by its own id: an old one's end does not remove its successor.
    fn remove(&self) -> bool {
        let mut table = lock(&self.table);
        match table.under_way.entry(self.key.clone()) {
            Entry::Occupied(flight) if flight.get().id == self.id => {
                flight.remove();
                true
            }
            _ => false,
        }
    }
}

impl<T, S: FnOnce(FlightEnd, Option<&T>)> Drop for Running<T, S> {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            self.remove();
            on_end(FlightEnd::Dropped, None);
        }
    }
}
