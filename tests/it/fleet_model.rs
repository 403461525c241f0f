//! The fleet under random schedules: `policy::replicas::member` and the ledger as the program has them, between a Redis and a
//! network that do what Redis and networks do. Time is a number; a schedule is its seed.
//!
//! Each mutation is a rule left out. The checker must find it wrong, or it would find nothing.

mod contacts;
mod differential;
mod redis;
mod replica;
mod tier;
mod world;

use world::{Told, World};

/// A rule left out, or a server or a fault that is not there otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    /// None: the rules as they are.
    None,
    /// Writes are acknowledged when they are in the log (`async`), and checked for the bound that is promised of it.
    Async,
    /// The same, checked for what `strict` promises.
    AcknowledgedAtOnce,
    /// Hits ask for no lease.
    Bus,
    /// After a new epoch nobody waits for old leases.
    NotRipe,
    /// The server says nothing of having lost anything.
    NoEpoch,
    /// A new epoch puts nothing out of date.
    KeptOnNewEpoch,
    /// The lease counts from the reply.
    LeaseFromReply,
    /// Without a lease what is young is served.
    AloneFromMemory,
    /// A reader without a lease takes no tick of his own.
    AloneByTick,
    /// What could not be told is promised as if it were.
    UntoldIsTold,
    /// The marks in the log are not compared, and it is set back.
    NoTag,
    /// A gap in the log puts nothing out of date.
    GapIgnored,
    /// Members can be lost by themselves.
    MembersApart,
    /// What another replica has fetched is taken whatever was told since.
    AdoptBlind,
    /// The same though something has changed here that is not told yet.
    UntoldAdopted,
    /// Whoever has no lease takes it, too.
    AloneAdopts,
    /// It tells what was known when it had come.
    StampAtLanding,
    /// Whoever joins takes it that nothing was told before.
    HistoryIgnored,
    /// It is as old as the clock of Redis says, wherever that was set.
    AnyClock,
    /// Others are not told that something may follow.
    SettleNotTold,
    /// Whoever joins does not know that something may follow what was told before.
    SettleForgotten,
    /// What was fetched while something might follow lives as long as others, elsewhere.
    ExpiryNotShared,
    /// What a newer release tells is skipped.
    UnknownSkipped,
    /// Whoever is behind a source stays it.
    BelievedForEver,
    /// Others are not told that contacts are about to be merged.
    MoveNotTold,
    /// Of a list that names nobody it is not asked whose it is.
    NamelessOfNobody,
    /// Of merges under way nothing is looked at.
    MovesIgnored,
    /// Two replicas merge the same contact at once.
    NoTurns,
    /// The order of merges in a log that is lost is taken for that in the next.
    OrderOfLostLog,
    /// One that goes on in a new log comes after what that log told first.
    GoesOnAsNew,
}

/// How many schedules: a million with `make model`.
fn schedules() -> u64 {
    std::env::var("MODEL_SCHEDULES").ok().and_then(|count| count.parse().ok()).unwrap_or(400)
}

/// How often it is told how far it has come.
const PROGRESS_EVERY: u64 = 50_000;

#[expect(clippy::print_stderr, reason = "a long run tells how far it is")]
fn run(mutation: Mutation, faults: &[u32], seeds: std::ops::Range<u64>) -> (Told, Option<u64>) {
    let (mut all, mut first) = (Told::default(), None);
    let (begin, many) = (seeds.start, seeds.end - seeds.start > PROGRESS_EVERY);
    for seed in seeds {
        let world = if seed % 2 == 0 { World::new } else { World::merging };
        let told = world(mutation, faults, seed).run();
        if told.is_bad() {
            first = first.or(Some(seed));
        }
        // Of a million it takes half an hour to come to the end.
        if many && told.is_bad() {
            eprintln!("{mutation:?}: wrong in {seed}");
        }
        if many && seed > begin && (seed - begin).is_multiple_of(PROGRESS_EVERY) {
            eprintln!("{mutation:?}: {} schedules", seed - begin);
        }
        all.add(&told);
    }
    (all, first)
}

#[test]
fn no_schedule_lets_anybody_read_what_is_older_than_an_acknowledged_write() {
    let (told, first) = run(Mutation::None, &[], 0..schedules());
    println!("{} schedules: {told:?}", schedules());
    assert_eq!(first, None, "{told:?}");
    assert!(told.reads > 10 * schedules() && told.hits > told.reads / 10, "it does something: {told:?}");
    assert!(told.settled > 0 && told.timer > 0 && told.untold > 0 && told.epochs > 0 && told.alone > 0, "{told:?}");
    assert!(told.left_out > 0 && told.gaps > 0, "{told:?}");
    assert!(told.adopted > schedules() && told.refused > 0 && told.held > 0 && told.followed > 0, "{told:?}");
}

#[test]
fn without_writes_and_faults_no_two_fetch_the_same_at_once() {
    let mut all = Told::default();
    for seed in 0..schedules() {
        let told = World::calm(seed).run();
        assert_eq!((told.doubled, told.is_bad()), (0, false), "{seed}: {told:?}");
        all.add(&told);
    }
    assert!(all.fetches > schedules() && all.held > 0 && all.adopted > 0, "{all:?}");
}

#[test]
fn async_keeps_its_bound() {
    // In 4715 a write through one replica follows a merge through another one.
    for seeds in [0..schedules(), 4_715..4_716] {
        let (told, first) = run(Mutation::Async, &[], seeds);
        assert_eq!(first, None, "{told:?}");
    }
}

#[test]
fn each_rule_left_out_is_found_wrong() {
    let mut unfound = Vec::new();
    // From where one is found soon.
    for (mutation, faults, seeds) in [
        (Mutation::AcknowledgedAtOnce, &[][..], 0..200),
        (Mutation::Bus, &[], 0..200),
        (Mutation::NotRipe, &[4, 5, 6, 2], 0..4_000),
        (Mutation::NoEpoch, &[7, 8, 5, 6], 0..4_000),
        (Mutation::KeptOnNewEpoch, &[5, 6, 2, 3], 0..4_000),
        (Mutation::LeaseFromReply, &[0, 1, 14, 12], 400..30_000),
        (Mutation::AloneFromMemory, &[2, 3], 0..4_000),
        (Mutation::AloneByTick, &[2, 3], 400..8_000),
        (Mutation::UntoldIsTold, &[2, 3], 0..4_000),
        (Mutation::NoTag, &[18], 50..4_000),
        (Mutation::GapIgnored, &[2, 3, 0], 0..8_000),
        (Mutation::MembersApart, &[10, 2], 0..8_000),
        (Mutation::AdoptBlind, &[], 0..400),
        (Mutation::UntoldAdopted, &[2, 3, 14], 0..8_000),
        (Mutation::AloneAdopts, &[2, 3], 0..8_000),
        (Mutation::StampAtLanding, &[], 1500..2_000),
        (Mutation::HistoryIgnored, &[11, 13], 2_100..8_000),
        (Mutation::AnyClock, &[19], 200..8_000),
        (Mutation::SettleNotTold, &[], 0..2_000),
        (Mutation::SettleForgotten, &[11, 13], 450..8_000),
        (Mutation::ExpiryNotShared, &[], 0..4_000),
        (Mutation::UnknownSkipped, &[], 0..2_000),
    ] {
        let found = seeds.into_iter().find(|seed| World::new(mutation, faults, *seed).run().is_bad());
        println!("{mutation:?}: {found:?}");
        if found.is_none() {
            unfound.push(mutation);
        }
    }
    for (mutation, seeds) in [
        (Mutation::BelievedForEver, 0..2_000),
        (Mutation::MoveNotTold, 0..4_000),
        (Mutation::NamelessOfNobody, 0..2_000),
        (Mutation::MovesIgnored, 0..4_000),
        (Mutation::NoTurns, 3_400..8_000),
        (Mutation::OrderOfLostLog, 209_329..209_330),
        (Mutation::GoesOnAsNew, 917_801..917_802),
    ] {
        let found = seeds.into_iter().find(|seed| World::merging(mutation, &[], *seed).run().is_bad());
        println!("{mutation:?}: {found:?}");
        if found.is_none() {
            unfound.push(mutation);
        }
    }
    assert_eq!(unfound, [], "of these the checker finds nothing");
}
