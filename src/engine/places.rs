//! Places among the fetches at once. Whoever waits for one stands in the line of his client, and the lines take turns:
//! a client who asks for much waits for himself, not others for him.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::body::Guard;

/// The places.
#[derive(Clone)]
pub struct Places(Arc<Mutex<Queue>>);

struct Queue {
    /// So many may wait.
    longest: usize,
    waiting: usize,
    /// Only while nobody waits.
    free: usize,
    /// What turns and numbers are given from.
    next: u64,
    /// Whose turn is when.
    turns: BTreeMap<u64, IpAddr>,
    lines: HashMap<IpAddr, Line>,
}

/// Those of one client who wait.
struct Line {
    turn: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Place>>,
}

/// A place, until it is dropped.
pub struct Place(Option<Places>);

impl Places {
    /// So many, and so many who may wait for one.
    pub fn new(count: usize, longest: usize) -> Self {
        let (turns, lines) = (BTreeMap::new(), HashMap::new());
        Self(Arc::new(Mutex::new(Queue { longest, waiting: 0, free: count, next: 0, turns, lines })))
    }

    /// A place, as soon as it is this client's turn; none if too many wait already. Who no longer waits is no longer in
    /// line.
    pub async fn take(&self, client: IpAddr) -> Option<Place> {
        let (mut waiting, given) = {
            let mut queue = self.lock();
            if queue.free > 0 {
                queue.free -= 1;
                return Some(self.place());
            }
            if queue.waiting >= queue.longest {
                return None;
            }
            let (give, given) = oneshot::channel();
            let number = queue.enter(client, give);
            (InLine { places: self, client, number: Some(number) }, given)
        };
        let place = given.await;
        waiting.number = None;
        Some(place.expect("who stands in line is given a place, or leaves"))
    }

    /// A place, if one is free.
    pub fn take_free(&self) -> Option<Place> {
        let mut queue = self.lock();
        queue.free = queue.free.checked_sub(1)?;
        Some(self.place())
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.lock().free
    }

    /// How many wait for one.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    fn place(&self) -> Place {
        Place(Some(self.clone()))
    }

    /// Gives a place back, or on to whose turn it is.
    fn give_back(&self) {
        loop {
            let next = {
                let mut queue = self.lock();
                let next = queue.leave_next();
                queue.free += usize::from(next.is_none());
                next
            };
            let Some(next) = next else { return };
            match next.send(self.place()) {
                Ok(()) => return,
                // He has gone meanwhile. His place is given to the next, here and not by its end.
                Err(mut place) => place.0 = None,
            }
        }
    }

    /// Held briefly; a panic while it is held leaves the lines whole.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn enter(&mut self, client: IpAddr, give: oneshot::Sender<Place>) -> u64 {
        let number = self.number();
        self.waiting += 1;
        let Self { turns, lines, .. } = self;
        let line = lines.entry(client).or_insert_with(|| {
            turns.insert(number, client);
            Line { turn: number, waiting: BTreeMap::new() }
        });
        line.waiting.insert(number, give);
        number
    }

    /// Takes out of line whose turn it is; his client's next turn is after all others'.
    fn leave_next(&mut self) -> Option<oneshot::Sender<Place>> {
        let (_, client) = self.turns.pop_first()?;
        let turn = self.number();
        let line = self.lines.get_mut(&client)?;
        let (_, give) = line.waiting.pop_first()?;
        self.waiting -= 1;
        if line.waiting.is_empty() {
            self.lines.remove(&client);
        } else {
            line.turn = turn;
            self.turns.insert(turn, client);
        }
        Some(give)
    }

    fn leave(&mut self, client: IpAddr, number: u64) {
        let Some(line) = self.lines.get_mut(&client) else { return };
        self.waiting -= usize::from(line.waiting.remove(&number).is_some());
        if line.waiting.is_empty() {
            self.turns.remove(&line.turn);
            self.lines.remove(&client);
        }
    }
}

/// Given back with the body.
impl Guard for Place {}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.0.take() {
            places.give_back();
        }
    }
}

/// Somebody who waits; if he leaves, he leaves the line.
struct InLine<'p> {
    places: &'p Places,
    client: IpAddr,
    number: Option<u64>,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.places.lock().leave(self.client, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn client(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    /// Waits in line as a task; tells its name when it has a place, and keeps it until told.
    async fn waits(places: &Places, number: u8, name: &'static str, told: &mpsc::Sender<(&'static str, Place)>) {
        let (places, told, before) = (places.clone(), told.clone(), places.waiting());
        let waiting = places.clone();
        tokio::spawn(async move {
            let place = places.take(client(number)).await.unwrap();
            told.send((name, place)).unwrap();
        });
        while waiting.waiting() == before {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn clients_take_turns() {
        let places = Places::new(1, 1000);
        let (told, names) = mpsc::channel();
        let mut place = places.take(client(1)).await.unwrap();
        for name in ["a1", "a2", "a3", "a4"] {
            waits(&places, 1, name, &told).await;
        }
        for (number, name) in [(2, "b1"), (3, "c1"), (2, "b2")] {
            waits(&places, number, name, &told).await;
        }
        for expected in ["a1", "b1", "c1", "a2", "b2", "a3", "a4"] {
            drop(place);
            tokio::task::yield_now().await;
            let name;
            (name, place) = names.try_recv().unwrap();
            assert_eq!(name, expected);
        }
        assert_eq!((places.free(), places.waiting()), (0, 0));
        drop(place);
        assert_eq!(places.free(), 1);
    }

    #[tokio::test]
    async fn who_leaves_is_no_longer_in_line_and_loses_no_place() {
        let places = Places::new(1, 1000);
        let place = places.take(client(1)).await.unwrap();
        let mut leaving: Vec<_> = (0..1000).map(|_| Box::pin(places.take(client(2)))).collect();
        for one in &mut leaving {
            assert!(futures_are_pending(one).await);
        }
        assert_eq!(places.waiting(), 1000);
        assert!(places.take(client(3)).await.is_none(), "the line has its end");
        // The first is given a place, and leaves before he knows.
        drop(place);
        drop(leaving);
        assert_eq!((places.free(), places.waiting()), (1, 0));
        assert!(places.0.lock().unwrap().turns.is_empty());
        assert!(places.take_free().is_some() && places.take_free().is_some(), "given back at once");
    }

    async fn futures_are_pending(future: &mut std::pin::Pin<Box<impl Future<Output = Option<Place>>>>) -> bool {
        std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn a_place_is_taken_out_of_turn_only_if_nobody_waits() {
        let places = Places::new(2, 1000);
        let (first, second) = (places.take_free().unwrap(), places.take(client(1)).await.unwrap());
        assert!(places.take_free().is_none());
        let (told, names) = mpsc::channel();
        waits(&places, 1, "waiting", &told).await;
        drop(first);
        assert!(places.take_free().is_none(), "it was given on");
        tokio::task::yield_now().await;
        drop((second, names.try_recv().unwrap()));
        assert_eq!(places.free(), 2);
    }
}
