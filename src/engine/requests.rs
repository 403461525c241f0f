//! Requests of clients that are being answered: how many there may be, in all and for one client. Each is one from the
//! end of its head until its answer has been handed over, however slowly that is taken.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Clients are counted in so many places, by a hash that nobody outside knows: no lock, and no more memory for more of
/// them. Two that share one share the limit.
const PLACES: usize = 4096;

/// The account of all requests.
pub struct Requests {
    limit: usize,
    per_client: usize,
    all: AtomicUsize,
    by_client: Box<[AtomicUsize]>,
    /// What decides who shares a place: to be added, and to be multiplied with, which is odd.
    mixing: (u64, u64),
}

/// Why there is no room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// There are too many in all.
    InAll,
    /// There are too many of this client.
    OfClient,
}

/// Marks the answer to a request that has no place: nothing of it may wait for its client.
#[derive(Clone, Copy, Debug)]
pub struct WithoutPlace;

/// A request that is being answered, until this is dropped.
pub struct InFlight {
    requests: Arc<Requests>,
    client: Option<usize>,
}

impl Requests {
    /// So many in all, and so many of one client.
    pub fn new(limit: usize, per_client: usize) -> Arc<Self> {
        let by_client = (0..PLACES).map(|_| AtomicUsize::new(0)).collect();
        let random = RandomState::new();
        let mixing = (random.hash_one(0), random.hash_one(1) | 1);
        Arc::new(Self { limit, per_client, all: AtomicUsize::new(0), by_client, mixing })
    }

    /// How many there are.
    pub fn under_way(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    /// One more request. A client without an address has no limit of its own.
    pub fn begin(self: &Arc<Self>, client: Option<IpAddr>) -> Result<InFlight, Full> {
        if !raise(&self.all, self.limit) {
            return Err(Full::InAll);
        }
        let mut begun = InFlight { requests: self.clone(), client: None };
        if let Some(client) = client {
            let place = self.place_of(client);
            if !raise(&self.by_client[place], self.per_client) {
                return Err(Full::OfClient);
            }
            begun.client = Some(place);
        }
        Ok(begun)
    }

    /// The highest bits of a product with a secret, which any two clients share as rarely as two random numbers.
    #[expect(clippy::cast_possible_truncation, reason = "the bits of an address fold into 64, and the place is short")]
    fn place_of(&self, client: IpAddr) -> usize {
        let bits = match client {
            IpAddr::V4(address) => address.to_bits().into(),
            IpAddr::V6(address) => address.to_bits() as u64 ^ (address.to_bits() >> 64) as u64,
        };
        let (added, factor) = self.mixing;
        (bits.wrapping_add(added).wrapping_mul(factor) >> (64 - PLACES.ilog2())) as usize
    }
}

/// Counts one more, unless there are so many already.
fn raise(count: &AtomicUsize, limit: usize) -> bool {
    let more = |before: usize| (before < limit).then_some(before + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.requests.all.fetch_sub(1, Ordering::Relaxed);
        if let Some(place) = self.client {
            self.requests.by_client[place].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn requests(limit: usize, per_client: usize) -> Arc<Requests> {
        Requests::new(limit, per_client)
    }

    const CLIENT: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));

    #[test]
    fn there_is_an_end_in_all_and_for_each_client() {
        let requests = requests(3, 2);
        let first: Vec<_> = (0..2).map(|_| requests.begin(CLIENT).unwrap_or_else(|full| panic!("{full:?}"))).collect();
        assert_eq!(requests.begin(CLIENT).err(), Some(Full::OfClient));
        let other = requests.begin(None);
        assert!(other.is_ok() && requests.begin(None).err() == Some(Full::InAll));
        assert_eq!(requests.begin(CLIENT).err(), Some(Full::InAll));
        assert_eq!(requests.under_way(), 3);
        drop(first);
        assert!(requests.begin(CLIENT).is_ok());
        drop(other);
        assert_eq!(requests.under_way(), 0);
        assert!(requests.by_client.iter().all(|count| count.load(Ordering::Relaxed) == 0));
    }
}
