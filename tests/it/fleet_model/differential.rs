//! `exchange.lua` in a real Redis and its double here are asked the same, thousands of times: what they say is the same.

use anteroom::config::{self, Flags, SettingsFile};
use anteroom::engine::replicas::link::{Link, Names};
use anteroom::engine::replicas::settings::ReplicasSettings;
use anteroom::policy::replicas::exchange::{Epoch, MemberId, Position, Reply, Request};
use anteroom::policy::replicas::wire::Item;

use super::Mutation;
use super::redis::Redis as Double;
use crate::support::redis::Redis;

/// Longer than the log ever is: `MAXLEN ~` cuts it by what is good for the server.
const LONGEST: usize = 4096;
const PREFIX: &str = "differential";

fn exchanges() -> u32 {
    std::env::var("DIFFERENTIAL_EXCHANGES").ok().and_then(|count| count.parse().ok()).unwrap_or(4_000)
}

fn settings(redis: &Redis) -> ReplicasSettings {
    let text = redis.settings("upstream.url = \"http://127.0.0.1:9\"");
    let none = std::iter::empty::<(String, String)>();
    let loaded = config::load(SettingsFile::Text("a.toml".into(), text), &Flags::default(), none);
    loaded.expect("settings").config.replicas.expect("replicas")
}

/// What somebody remembers of a reply.
#[derive(Clone, Default)]
struct Asker {
    number: u64,
    epoch: Option<Epoch>,
    /// Where it has been: it may say any of it.
    been: Vec<Position>,
}

struct Course {
    random: u64,
    askers: Vec<Asker>,
    epochs: Vec<Epoch>,
}

impl Course {
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 27)
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.draw() % count as u64).unwrap()
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.draw() % 100 < percent
    }

    fn id(at: usize) -> MemberId {
        (at as u128 + 1).to_be_bytes()
    }

    /// Mostly what a replica would say, and now and then something that only a late, confused or restarted one would.
    fn request(&mut self, at: usize) -> Request {
        let late = self.chance(8);
        let asker = &mut self.askers[at];
        if !late {
            asker.number += 1;
        }
        let (number, epoch, been) = (asker.number, asker.epoch, asker.been.clone());
        let mut applied = been.last().copied().unwrap_or_default();
        if !been.is_empty() && self.chance(20) {
            applied = been[self.below(been.len())];
        }
        if self.chance(2) {
            applied.tag ^= 1;
        }
        if self.chance(1) {
            applied.seq += 1 + self.draw() % 3;
        }
        let other = self.below(self.epochs.len().max(1));
        let other = self.epochs.get(other).copied();
        let epoch = if self.chance(4) { other } else { epoch };
        let items = match self.below(4) {
            0 | 1 => Vec::new(),
            2 => vec![Item::Heard],
            _ => vec![
                Item::Places { places: vec![7, 9], settle: 5, gone: self.chance(50) },
                Item::Everything { gone: false },
            ],
        };
        let silent = self.below(self.askers.len());
        let guess = self.askers[silent].number.saturating_sub(self.draw() % 2);
        let silent = if self.chance(6) { vec![(Self::id(silent), guess)] } else { Vec::new() };
        // Without an epoch there is nothing that was applied.
        let applied = if epoch.is_none() { Position::default() } else { applied };
        let (fresh, ripe, leaving) = (self.chance(15), self.chance(15), self.chance(4));
        Request { number, epoch, applied, fresh, ripe, leaving, items, silent }
    }

    fn heard(&mut self, at: usize, reply: &Reply) {
        let asker = &mut self.askers[at];
        if asker.epoch != Some(reply.epoch) {
            (asker.epoch, asker.been) = (Some(reply.epoch), Vec::new());
            self.epochs.push(reply.epoch);
        }
        let asker = &mut self.askers[at];
        asker.been.extend(reply.entries.iter().map(|entry| entry.at));
        asker.been.push(reply.last);
    }
}

/// What must be alike: neither the time nor the order of members.
fn alike(mut reply: Reply) -> Reply {
    reply.behind.sort_unstable();
    (reply.now, reply.clock) = (0, 0);
    reply
}

#[tokio::test]
async fn the_script_in_redis_and_its_double_say_the_same() {
    let redis = Redis::start(&[]).await;
    let settings = settings(&redis);
    let (names, mut link) = (Names::new(PREFIX, [3; 16]), Link::open(&settings).await.expect("Redis"));
    let mut double = Double { run: 1, ..Double::default() };
    let mut course = Course { random: 5, askers: vec![Asker::default(); 5], epochs: Vec::new() };
    let (mut began, mut own, mut unknown, mut settled, mut left_out) = (0, 0, 0, 0, 0);
    for at in 0..exchanges() {
        match course.draw() % 200 {
            0 => {
                redis.ask("FLUSHALL").await;
                (double.head, double.members) = (None, std::collections::BTreeMap::new());
                double.log.clear();
            }
            1 => {
                redis.ask(&format!("DEL {{{PREFIX}}}:1:log")).await;
                double.log.clear();
            }
            2 => {
                redis.ask(&format!("XTRIM {{{PREFIX}}}:1:log MAXLEN = 2")).await;
                while double.log.len() > 2 {
                    double.log.pop_front();
                }
            }
            3 => {
                // A process that has begun again.
                let which = course.below(5);
                course.askers[which] = Asker { number: course.askers[which].number, ..Asker::default() };
            }
            _ => {}
        }
        let which = course.below(5);
        let request = course.request(which);
        let random = (u128::from(course.draw()) << 64 | u128::from(course.draw()), course.draw());
        let reply = link
            .exchange(&names, Course::id(which), &request, (random.0.to_be_bytes(), random.1))
            .await
            .unwrap_or_else(|error| panic!("{at}: {error} of {request:?}"));
        let (expected, _, out) = double.exchange(Mutation::None, Course::id(which), &request, random, (0, LONGEST));
        course.heard(which, &reply);
        (own, unknown) = (own + u32::from(reply.own.is_some()), unknown + u32::from(reply.unknown));
        (began, settled, left_out) =
            (began + u32::from(reply.began.is_some()), settled.max(reply.settled), left_out + out);
        assert_eq!(alike(reply), alike(expected), "exchange {at}: {request:?}");
    }
    println!("{began} epochs, {own} batches, settled up to {settled}, {unknown} unknown, {left_out} left out");
    assert!(began > 20 && own > 500 && settled > 20 && unknown > 20 && left_out > 20, "all of it happens");
}
