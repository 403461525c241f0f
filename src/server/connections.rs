//! Who is connected: how many in all and for each address, and who goes when there is no room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use crate::policy::http::client::network_of;

/// Descriptors beside those of clients and of the upstream: the private listener, files, what the runtime needs.
const OTHERS: u64 = 64;

/// The account of a listener's connections.
#[derive(Debug)]
pub(super) struct Connections {
    limit: usize,
    per_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: Slab<Place>,
    /// How many of each address are there to stay.
    by_address: HashMap<IpAddr, usize>,
    /// How many have been told to go.
    leaving: usize,
    /// Where the search for an idle one goes on.
    hand: usize,
}

/// A connection's place.
#[derive(Debug)]
struct Place {
    /// The address, if it has a limit.
    address: Option<IpAddr>,
    progress: Arc<Progress>,
    /// Cancelled when it is to go.
    leave: CancellationToken,
    told_to_go: bool,
}

/// A place that is held; it is free when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    at: usize,
    connections: Arc<Connections>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All are taken, and busy.
    InAll,
    /// Those of this address are taken, and busy.
    OfAddress,
}

impl Connections {
    /// So many in all, and so many for each address.
    pub(super) fn new(limit: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { limit, per_address, open: Mutex::default() })
    }

    /// A place, if need be that of an idle connection, which is told to go by its token. Without an address there is no
    /// limit of its own.
    pub(super) fn take(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        progress: Arc<Progress>,
        leave: CancellationToken,
    ) -> Result<Held, Full> {
        let address = address.map(network_of);
        let mut open = self.lock();
        let of_address = address.and_then(|address| open.by_address.get(&address)).copied().unwrap_or_default();
        if of_address >= self.per_address && !open.make_room(address) {
            return Err(Full::OfAddress);
        }
        if open.all.len() - open.leaving >= self.limit && !open.make_room(None) {
            return Err(Full::InAll);
        }
        if let Some(address) = address {
            *open.by_address.entry(address).or_default() += 1;
        }
        let at = open.all.insert(Place { address, progress, leave, told_to_go: false });
        drop(open);
        Ok(Held { at, connections: self.clone() })
    }

    /// Held for some hundred steps at most, but for a search among connections that are all busy.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Tells an idle connection to go, one of this address if one is given. Those that had a request since they were
    /// last looked at are passed over once: so the one that has been idle long is found without a clock.
    fn make_room(&mut self, address: Option<IpAddr>) -> bool {
        let places = self.all.capacity();
        for _ in 0..2 * places {
            self.hand = (self.hand + 1) % places;
            let Some(place) = self.all.get_mut(self.hand) else { continue };
            let fits = !place.told_to_go && (address.is_none() || place.address == address);
            if fits && place.progress.is_idle() && !place.progress.take_used() {
                place.told_to_go = true;
                place.leave.cancel();
                self.leaving += 1;
                let address = place.address;
                self.forget(address);
                return true;
            }
        }
        false
    }

    fn forget(&mut self, address: Option<IpAddr>) {
        if let Some(address) = address
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        let place = open.all.remove(self.at);
        if place.told_to_go {
            open.leaving -= 1;
        } else {
            open.forget(place.address);
        }
    }
}

/// How many clients may be connected: the limit that is set, or what the open files allow, when those that the rest of
/// the program needs are taken off, and a third of the others is kept for the upstream.
pub fn within(limit: usize, open_files: Option<u64>) -> usize {
    let Some(open_files) = open_files else { return limit };
    let room = (open_files - OTHERS.min(open_files / 2)) / 3 * 2;
    limit.min(usize::try_from(room).unwrap_or(usize::MAX).max(1))
}

/// How many open files so many clients need.
pub fn needed_for(limit: usize) -> u64 {
    (limit as u64).div_ceil(2) * 3 + OTHERS
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::server::heads::Heads;

    fn progress() -> Arc<Progress> {
        Arc::new(Progress::new(Arc::new(Heads::new(1024))))
    }

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    #[test]
    fn idle_ones_make_room_and_the_one_that_was_used_last_stays() {
        let connections = Connections::new(2, 10);
        let tokens: [_; 3] = std::array::from_fn(|_| CancellationToken::new());
        let (used, unused) = (progress(), progress());
        let _first = connections.take(Some(address(1)), used.clone(), tokens[0].clone()).unwrap();
        let _second = connections.take(Some(address(2)), unused, tokens[1].clone()).unwrap();
        used.begin(false);
        used.answered();
        let _third = connections.take(Some(address(3)), progress(), tokens[2].clone()).unwrap();
        assert_eq!(tokens.each_ref().map(CancellationToken::is_cancelled), [false, true, false]);
    }

    #[test]
    fn busy_ones_stay_and_new_ones_are_refused() {
        let connections = Connections::new(1, 10);
        let busy = progress();
        let token = CancellationToken::new();
        let first = connections.take(Some(address(1)), busy.clone(), token.clone()).unwrap();
        busy.begin(false);
        let refused = connections.take(Some(address(2)), progress(), CancellationToken::new());
        assert_eq!(refused.err(), Some(Full::InAll));
        assert!(!token.is_cancelled());
        drop(first);
        assert!(connections.take(Some(address(2)), progress(), CancellationToken::new()).is_ok());
    }

    #[test]
    fn an_address_has_a_limit_of_its_own_and_makes_room_for_itself() {
        let connections = Connections::new(10, 1);
        let token = CancellationToken::new();
        let other = CancellationToken::new();
        let _other = connections.take(Some(address(2)), progress(), other.clone()).unwrap();
        let busy = progress();
        let first = connections.take(Some(address(1)), busy.clone(), token.clone()).unwrap();
        busy.begin(false);
        let again = || connections.take(Some(address(1)), progress(), CancellationToken::new());
        assert_eq!(again().err(), Some(Full::OfAddress));
        let unlimited: Vec<_> =
            (0..5).map(|_| connections.take(None, progress(), CancellationToken::new()).unwrap()).collect();
        busy.answered();
        // It was used: passed over once, and then told to go.
        let second = again().unwrap();
        assert!(token.is_cancelled() && !other.is_cancelled());
        drop((first, second, unlimited));
        let open = connections.lock();
        assert_eq!((open.by_address.len(), open.leaving, open.all.len()), (1, 0, 1));
    }

    #[test]
    fn descriptors_are_kept_for_the_upstream_and_for_the_rest() {
        assert_eq!(within(16_384, None), 16_384);
        assert_eq!(within(16_384, Some(1_000_000)), 16_384);
        assert_eq!(within(16_384, Some(1024)), 640);
        assert_eq!(within(16_384, Some(64)), 20);
        assert_eq!(within(16_384, Some(1)), 1);
        for limit in [1, 100, 16_384] {
            assert_eq!(within(limit, Some(needed_for(limit))), limit);
        }
    }
}
