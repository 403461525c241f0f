//! In which order the addresses of the upstream are tried, and which are left out for a while.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// An attempt has so much time before the next address is tried beside it (RFC 8305 section 5).
pub const STAGGER: Duration = Duration::from_millis(250);
/// How long an address is left out after one failure. Each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest that an address is left out before it is probed.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An address of one of the upstream's URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which of the URLs, from zero.
    pub url: usize,
    /// Where.
    pub address: SocketAddr,
}

/// What is known of one address.
#[derive(Debug)]
struct Known {
    target: Target,
    /// Since it last worked.
    failures: u32,
    /// Left out until then; none if it works as far as is known.
    left_out: Option<Instant>,
}

/// All addresses that are known.
#[derive(Debug, Default)]
pub struct Addresses {
    known: Vec<Known>,
    turn: usize,
}

/// What one connection is tried with.
#[derive(Debug, PartialEq, Eq)]
pub struct Order {
    /// All of them, the best first.
    pub targets: Vec<Target>,
    /// One of those left out that is to be tried behind: no request waits for it.
    pub probe: Option<Target>,
}

impl Addresses {
    /// The addresses of a URL are these now. Gives those that are gone. What was known of the others stays.
    pub fn replace(&mut self, url: usize, found: &[SocketAddr]) -> Vec<Target> {
        let stays = |target: &Target| target.url != url || found.contains(&target.address);
        let gone = self.known.iter().map(|known| known.target).filter(|target| !stays(target)).collect();
        self.known.retain(|known| stays(&known.target));
        for &address in found {
            let target = Target { url, address };
            if !self.known.iter().any(|known| known.target == target) {
                self.known.push(Known { target, failures: 0, left_out: None });
            }
        }
        gone
    }

    /// The order for the next connection. URLs take turns, and so do the addresses of one family; within a URL the two
    /// families alternate, IPv6 first (RFC 8305 section 4). What is left out comes last: if nothing else works, it is
    /// tried all the same.
    pub fn order(&mut self, now: Instant) -> Order {
        let turn = self.turn;
        // Who finds nothing asks again.
        self.turn = turn.wrapping_add(usize::from(!self.known.is_empty()));
        let live: Vec<Target> =
            self.known.iter().filter(|known| known.left_out.is_none()).map(|known| known.target).collect();
        let mut urls: Vec<usize> = live.iter().map(|target| target.url).collect();
        urls.sort_unstable();
        urls.dedup();
        rotate(&mut urls, turn);
        let round = turn / urls.len().max(1);
        let mut targets = Vec::with_capacity(self.known.len());
        for url in urls {
            let of_family = |six: bool| {
                let is_of_it = |target: &&Target| target.url == url && target.address.is_ipv6() == six;
                let mut targets: Vec<Target> = live.iter().filter(is_of_it).copied().collect();
                rotate(&mut targets, round);
                targets
            };
            let (mut six, mut four) = (of_family(true).into_iter(), of_family(false).into_iter());
            loop {
                let pair = [six.next(), four.next()];
                if pair == [None, None] {
                    break;
                }
                targets.extend(pair.into_iter().flatten());
            }
        }
        let mut left_out: Vec<&mut Known> = self.known.iter_mut().filter(|known| known.left_out.is_some()).collect();
        left_out.sort_by_key(|known| known.left_out);
        // While nothing works, requests try all of them anyway.
        let due = left_out.first_mut().filter(|known| !targets.is_empty() && known.left_out <= Some(now));
        let probe = due.map(|known| {
            // Nobody else probes it meanwhile.
            known.left_out = Some(now + LONGEST_PAUSE);
            known.target
        });
        targets.extend(left_out.iter().map(|known| known.target));
        Order { targets, probe }
    }

    /// It could not be connected to, or was so slow that another was faster. Whether that is news.
    pub fn failed(&mut self, target: Target, now: Instant) -> bool {
        let Some(known) = self.find(target) else { return false };
        let is_news = known.left_out.is_none();
        let pause = FIRST_PAUSE.saturating_mul(1 << known.failures.min(8)).min(LONGEST_PAUSE);
        known.failures = known.failures.saturating_add(1);
        known.left_out = Some(now + pause);
        is_news
    }

    /// It was connected to. Whether that is news.
    pub fn succeeded(&mut self, target: Target) -> bool {
        let Some(known) = self.find(target) else { return false };
        known.failures = 0;
        known.left_out.take().is_some()
    }

    /// How many are used, and how many left out.
    pub fn counts(&self) -> (usize, usize) {
        let used = self.known.iter().filter(|known| known.left_out.is_none()).count();
        (used, self.known.len() - used)
    }

    fn find(&mut self, target: Target) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.target == target)
    }
}

fn rotate<T>(list: &mut [T], turn: usize) {
    if !list.is_empty() {
        list.rotate_left(turn % list.len());
    }
}

/// How long an attempt has before the next address is tried beside it: once it has the address, and only TLS is missing,
/// half of its share of the time, since two handshakes for each connection would be a burden.
pub fn patience(is_connected: bool, limit: Duration, addresses: usize) -> Duration {
    let half_share = limit / u32::try_from(addresses.max(1) * 2).unwrap_or(u32::MAX);
    if is_connected { half_share } else { half_share.min(STAGGER) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times() -> impl Fn(u64) -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        move |millis| start + Duration::from_millis(millis)
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn firsts(addresses: &mut Addresses, now: Instant, count: usize) -> Vec<SocketAddr> {
        (0..count).map(|_| addresses.order(now).targets[0].address).collect()
    }

    #[test]
    fn families_alternate_and_every_address_has_its_turn() {
        let (mut addresses, time) = (Addresses::default(), times());
        let [a, b, c, d] = ["1.1.1.1:1", "1.1.1.2:1", "[::1]:1", "[::2]:1"].map(at);
        addresses.replace(0, &[a, b, c, d]);
        let order = |addresses: &mut Addresses| -> Vec<SocketAddr> {
            addresses.order(time(0)).targets.iter().map(|target| target.address).collect()
        };
        assert_eq!(order(&mut addresses), [c, a, d, b]);
        assert_eq!(order(&mut addresses), [d, b, c, a]);
        assert_eq!(order(&mut addresses), [c, a, d, b]);
    }

    #[test]
    fn urls_take_turns_and_a_dead_one_is_passed_over() {
        let (mut addresses, time) = (Addresses::default(), times());
        let [a, b] = ["1.1.1.1:1", "1.1.1.2:1"].map(at);
        addresses.replace(0, &[a]);
        addresses.replace(1, &[b]);
        assert_eq!(firsts(&mut addresses, time(0), 4), [a, b, a, b]);
        assert!(addresses.failed(Target { url: 0, address: a }, time(0)));
        assert_eq!(firsts(&mut addresses, time(0), 4), [b; 4]);
        assert_eq!(addresses.counts(), (1, 1));
    }

    #[test]
    fn what_is_left_out_is_tried_last_and_probed_by_one_when_its_pause_is_over() {
        let (mut addresses, time) = (Addresses::default(), times());
        let [a, b] = ["1.1.1.1:1", "1.1.1.2:1"].map(at);
        addresses.replace(0, &[a, b]);
        let dead = Target { url: 0, address: a };
        assert!(addresses.failed(dead, time(0)) && !addresses.failed(dead, time(0)));
        let order = addresses.order(time(1999));
        assert_eq!((order.targets.last(), order.probe), (Some(&dead), None), "the second failure doubles the pause");
        assert_eq!(addresses.order(time(2000)).probe, Some(dead));
        assert_eq!(addresses.order(time(2000)).probe, None, "one probe at a time");
        assert!(addresses.succeeded(dead) && !addresses.succeeded(dead));
        assert_eq!(addresses.counts(), (2, 0));
    }

    #[test]
    fn when_all_are_left_out_all_are_tried() {
        let (mut addresses, time) = (Addresses::default(), times());
        let [a, b] = ["1.1.1.1:1", "1.1.1.2:1"].map(at);
        addresses.replace(0, &[a, b]);
        for address in [b, a] {
            addresses.failed(Target { url: 0, address }, time(if address == a { 5 } else { 0 }));
        }
        let order = addresses.order(time(60_000));
        assert_eq!(order.targets.iter().map(|target| target.address).collect::<Vec<_>>(), [b, a]);
        assert_eq!(order.probe, None);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let (mut addresses, time) = (Addresses::default(), times());
        let [a, b] = ["1.1.1.1:1", "1.1.1.2:1"].map(at);
        addresses.replace(0, &[a, b]);
        let dead = Target { url: 0, address: a };
        for _ in 0..1000 {
            addresses.failed(dead, time(0));
        }
        assert_eq!(addresses.order(time(29_999)).probe, None);
        assert_eq!(addresses.order(time(30_000)).probe, Some(dead));
    }

    #[test]
    fn a_name_that_moves_takes_its_old_addresses_away_and_keeps_what_is_known_of_the_rest() {
        let (mut addresses, time) = (Addresses::default(), times());
        let [a, b, c] = ["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"].map(at);
        addresses.replace(0, &[a, b]);
        addresses.failed(Target { url: 0, address: b }, time(0));
        assert_eq!(addresses.replace(0, &[b, c]), [Target { url: 0, address: a }]);
        assert_eq!(firsts(&mut addresses, time(0), 2), [c, c]);
        assert_eq!(addresses.replace(1, &[a]), []);
    }

    #[test]
    fn each_address_has_its_share_of_the_time() {
        let seconds = Duration::from_secs;
        assert_eq!(patience(false, seconds(3), 2), STAGGER);
        assert_eq!(patience(true, seconds(3), 2), Duration::from_millis(750));
        assert!(patience(false, seconds(3), 100) * 100 < seconds(2), "the last one is begun with time left");
    }
}
