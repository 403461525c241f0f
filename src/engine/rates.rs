//! How often one client may ask: a bucket for each, and an end to how many buckets there are.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use super::clock;

/// Clients are told apart in so many tables, each with a lock of its own.
const TABLES: usize = 16;
/// So many clients a table remembers of each of its two generations: 65,536 in all, in some 5 MB.
const CLIENTS: usize = 2048;

/// `limits.rate` and `limits.burst`, or the same for hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So often.
    per_second: NonZeroU32,
    /// So often at once.
    burst: NonZeroU32,
}

impl Rate {
    /// So often a second, and so often at once. Neither is ever none.
    pub fn new(per_second: usize, burst: usize) -> Self {
        let count = |count: usize| {
            u32::try_from(count).map_or(NonZeroU32::MAX, |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN))
        };
        Self { per_second: count(per_second), burst: count(burst) }
    }
}

/// How often one client may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateSettings {
    /// For what costs the upstream something, or may.
    pub upstream: Option<Rate>,
    /// For answers from memory.
    pub hits: Option<Rate>,
}

/// What a request is taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// `limits.rate`.
    Upstream,
    /// `limits.hit_rate`.
    Hits,
}

/// The buckets of all clients.
#[derive(Default)]
pub struct Rates {
    upstream: Option<Arc<Buckets>>,
    hits: Option<Arc<Buckets>>,
}

impl Rates {
    /// Those of these settings. A rate that is the same as before goes on with what its clients have taken.
    pub fn after(before: &Self, settings: RateSettings) -> Self {
        let buckets = |rate: Option<Rate>, before: &Option<Arc<Buckets>>| {
            let rate = rate?;
            let same = before.clone().filter(|buckets| buckets.rate == rate);
            Some(same.unwrap_or_else(|| Arc::new(Buckets::new(rate))))
        };
        Self { upstream: buckets(settings.upstream, &before.upstream), hits: buckets(settings.hits, &before.hits) }
    }

    /// Takes one request off a client's bucket; else after how many seconds there is one again. `client` is only asked
    /// for if there is a limit; who has none is not limited.
    pub fn take(&self, bucket: Bucket, client: impl FnOnce() -> Option<IpAddr>) -> Result<(), u64> {
        let Some(buckets) = self.of(bucket) else { return Ok(()) };
        client().map_or(Ok(()), |client| buckets.ask(&Asking { client, takes: true }))
    }

    /// The same, without taking anything.
    pub fn look(&self, bucket: Bucket, client: impl FnOnce() -> Option<IpAddr>) -> Result<(), u64> {
        let Some(buckets) = self.of(bucket) else { return Ok(()) };
        client().map_or(Ok(()), |client| buckets.ask(&Asking { client, takes: false }))
    }

    fn of(&self, bucket: Bucket) -> Option<&Buckets> {
        match bucket {
            Bucket::Upstream => self.upstream.as_deref(),
            Bucket::Hits => self.hits.as_deref(),
        }
    }
}

/// The buckets of one rate.
struct Buckets {
    rate: Rate,
    limiter: RateLimiter<Asking, Clients, Since, NoOpMiddleware<Duration>>,
}

/// Whose bucket, and whether one is taken off it or somebody only looks.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Asking {
    client: IpAddr,
    takes: bool,
}

impl Buckets {
    fn new(rate: Rate) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self { rate, limiter: RateLimiter::new(quota, Clients::default(), Since(clock::now())) }
    }

    fn ask(&self, asking: &Asking) -> Result<(), u64> {
        self.limiter.check_key(asking).map_err(|until| {
            let wait = until.wait_time_from(self.limiter.clock().now());
            u64::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX).max(1)
        })
    }
}

/// The process's clock, as the limiter reads it.
struct Since(Instant);

impl Clock for Since {
    type Instant = Duration;

    fn now(&self) -> Duration {
        clock::since(self.0)
    }
}

/// What clients have taken. Whoever floods this with addresses makes it forget others, whose buckets are then full
/// again: it never grows beyond its bound, and never limits one client for another.
struct Clients {
    tables: [Mutex<Table>; TABLES],
    hasher: RandomState,
}

/// Two generations: when the young one is full, it is the old one, and the one before is forgotten. Who asks again is
/// young again.
#[derive(Default)]
struct Table {
    young: HashMap<IpAddr, Nanos>,
    old: HashMap<IpAddr, Nanos>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { tables: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

impl Table {
    fn get(&self, client: &IpAddr) -> Option<Nanos> {
        self.young.get(client).or_else(|| self.old.get(client)).copied()
    }

    fn put(&mut self, client: IpAddr, taken: Nanos) {
        if self.young.len() >= CLIENTS && !self.young.contains_key(&client) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(client, taken);
    }
}

impl StateStore for Clients {
    type Key = Asking;

    fn measure_and_replace<T, F, E>(&self, asking: &Asking, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        #[expect(clippy::cast_possible_truncation, reason = "any part of a hash will do")]
        let at = self.hasher.hash_one(asking.client) as usize % TABLES;
        // Held for a few steps; a panic while it is held leaves it whole.
        let mut table = self.tables[at].lock().unwrap_or_else(PoisonError::into_inner);
        let before = table.get(&asking.client);
        let decided = decide(before);
        // Who is refused is remembered, too: asking on shall not make anybody forgotten.
        let after = decided.as_ref().ok().map(|(_, after)| *after).or(before);
        if let Some(after) = after.filter(|_| asking.takes) {
            table.put(asking.client, after);
        }
        decided.map(|(allowed, _)| allowed)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn rates(upstream: Option<(usize, usize)>, hits: Option<(usize, usize)>) -> Rates {
        let rate = |(per_second, burst)| Rate::new(per_second, burst);
        Rates::after(&Rates::default(), RateSettings { upstream: upstream.map(rate), hits: hits.map(rate) })
    }

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    fn take(rates: &Rates, bucket: Bucket, number: u32) -> Result<(), u64> {
        rates.take(bucket, || Some(address(number)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_a_burst_and_then_his_rate_and_is_told_when() {
        let rates = rates(Some((2, 3)), None);
        for _ in 0..3 {
            assert_eq!(take(&rates, Bucket::Upstream, 1), Ok(()));
        }
        assert_eq!(take(&rates, Bucket::Upstream, 1), Err(1));
        for _ in 0..4 {
            let looked = [1, 2].map(|number| rates.look(Bucket::Upstream, || Some(address(number))));
            assert_eq!(looked, [Err(1), Ok(())], "who looks takes nothing");
        }
        assert_eq!(take(&rates, Bucket::Upstream, 2), Ok(()), "another has his own");
        assert_eq!(take(&rates, Bucket::Hits, 1), Ok(()), "no limit of this kind");
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(take(&rates, Bucket::Upstream, 1), Ok(()));
        assert_eq!(take(&rates, Bucket::Upstream, 1), Err(1));
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..3 {
            assert_eq!(take(&rates, Bucket::Upstream, 1), Ok(()), "no more than the burst is saved up");
        }
        assert_eq!(take(&rates, Bucket::Upstream, 1), Err(1));
    }

    #[tokio::test(start_paused = true)]
    async fn hits_have_a_bucket_of_their_own_and_who_has_no_address_has_no_limit() {
        let rates = rates(Some((1, 1)), Some((1, 2)));
        assert_eq!(take(&rates, Bucket::Upstream, 1), Ok(()));
        assert_eq!(take(&rates, Bucket::Upstream, 1), Err(1));
        assert_eq!((take(&rates, Bucket::Hits, 1), take(&rates, Bucket::Hits, 1)), (Ok(()), Ok(())));
        assert_eq!(take(&rates, Bucket::Hits, 1), Err(1));
        for _ in 0..10 {
            assert_eq!(rates.take(Bucket::Upstream, || None), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_nobody_is_looked_at() {
        for bucket in [Bucket::Upstream, Bucket::Hits] {
            assert_eq!(Rates::default().take(bucket, || panic!("who it is does not matter")), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_a_reload_leaves_alone_goes_on() {
        let before = rates(Some((1, 1)), Some((1, 1)));
        assert_eq!((take(&before, Bucket::Upstream, 1), take(&before, Bucket::Hits, 1)), (Ok(()), Ok(())));
        let settings = RateSettings { upstream: Some(Rate::new(1, 1)), hits: Some(Rate::new(1, 2)) };
        let after = Rates::after(&before, settings);
        assert_eq!((take(&after, Bucket::Upstream, 1), take(&after, Bucket::Hits, 1)), (Err(1), Ok(())));
        assert_eq!(take(&Rates::after(&after, RateSettings::default()), Bucket::Upstream, 1), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_takes_no_more_memory_and_who_goes_on_asking_is_not_forgotten() {
        let rates = rates(Some((1, 1)), None);
        assert_eq!(take(&rates, Bucket::Upstream, 0), Ok(()));
        for number in 1..300_000_u32 {
            let flood = Ipv6Addr::from_bits(u128::from(number) << 64).into();
            assert_eq!(rates.take(Bucket::Upstream, || Some(flood)), Ok(()));
            if number % 1000 == 0 {
                assert_eq!(take(&rates, Bucket::Upstream, 0), Err(1), "{number}");
            }
        }
        let clients = rates.upstream.map(Arc::into_inner).unwrap().unwrap().limiter.into_state_store();
        let tables = clients.tables.map(|table| table.into_inner().unwrap());
        let (most, capacity) = (TABLES * CLIENTS * 2, TABLES * CLIENTS * 4);
        let held: usize = tables.iter().map(|table| table.young.len() + table.old.len()).sum();
        assert!(held > most / 4 && held <= most, "{held}");
        assert!(tables.iter().map(|table| table.young.capacity() + table.old.capacity()).sum::<usize>() <= capacity);
    }
}
