//! Places among the fetches at once. Whoever waits for one stands in the line of his client, and the lines take turns:
//! a client who asks for much waits for himself, not others for him. No client holds all places: a quarter is for others,
//! or one whose lists hang would keep everybody from an upstream that works.

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
    /// Only while nobody waits, but the one client who holds all he may.
    free: usize,
    /// So many may be one client's.
    share: usize,
    held: HashMap<IpAddr, usize>,
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
pub struct Place {
    places: Option<Places>,
    /// Whose it is.
    client: Option<IpAddr>,
}

impl Places {
    /// So many, and so many who may wait for one.
    pub fn new(count: usize, longest: usize) -> Self {
        let (turns, lines, held) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        let share = count - count / 4;
        Self(Arc::new(Mutex::new(Queue { longest, waiting: 0, free: count, share, held, next: 0, turns, lines })))
    }

    /// A place, as soon as it is this client's turn; none if too many wait already. Who no longer waits is no longer in
    /// line.
    pub async fn take(&self, client: IpAddr) -> Option<Place> {
        let (mut waiting, given) = {
            let mut queue = self.lock();
            if queue.free > 0 && queue.may_hold_more(client) {
                queue.free -= 1;
                queue.hold(client);
                return Some(self.place(Some(client)));
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
        Some(self.place(None))
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.lock().free
    }

    /// How many wait for one.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    fn place(&self, client: Option<IpAddr>) -> Place {
        Place { places: Some(self.clone()), client }
    }

    /// Gives a client's place back, or on to whose turn it is.
    fn give_back(&self, mut client: Option<IpAddr>) {
        loop {
            let next = {
                let mut queue = self.lock();
                if let Some(client) = client {
                    queue.let_go(client);
                }
                let next = queue.leave_next();
                match &next {
                    Some((client, _)) => queue.hold(*client),
                    None => queue.free += 1,
                }
                next
            };
            let Some((next, give)) = next else { return };
            match give.send(self.place(Some(next))) {
                Ok(()) => return,
                // He has gone meanwhile. His place is given to the next, here and not by its end.
                Err(mut place) => place.places = None,
            }
            client = Some(next);
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

    fn may_hold_more(&self, client: IpAddr) -> bool {
        self.held.get(&client).is_none_or(|held| *held < self.share)
    }

    fn hold(&mut self, client: IpAddr) {
        *self.held.entry(client).or_default() += 1;
    }

    fn let_go(&mut self, client: IpAddr) {
        if let Some(held) = self.held.get_mut(&client) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&client);
            }
        }
    }

    /// Takes out of line whose turn it is, of those who may have a place; his client's next turn is after all others'.
    fn leave_next(&mut self) -> Option<(IpAddr, oneshot::Sender<Place>)> {
        // At most one client holds all he may.
        let (turn, client) = self.turns.iter().find(|(_, client)| self.may_hold_more(**client))?;
        let (turn, client) = (*turn, *client);
        self.turns.remove(&turn);
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
        Some((client, give))
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
        if let Some(places) = self.places.take() {
            places.give_back(self.client);
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
    async fn a_quarter_of_the_places_is_for_others() {
        let places = Places::new(4, 1000);
        let (told, names) = mpsc::channel();
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(places.take(client(1)).await.unwrap());
        }
        waits(&places, 1, "a", &told).await;
        assert_eq!(places.free(), 1);
        let others = places.take(client(2)).await.unwrap();
        waits(&places, 2, "b", &told).await;
        drop(others);
        tokio::task::yield_now().await;
        let (name, others) = names.try_recv().unwrap();
        assert_eq!(name, "b", "the first in line holds all he may");
        drop(held.pop());
        tokio::task::yield_now().await;
        let (name, last) = names.try_recv().unwrap();
        assert_eq!(name, "a");
        drop((others, last, held));
        assert_eq!((places.free(), places.waiting()), (4, 0));
        assert!(places.lock().held.is_empty());
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
