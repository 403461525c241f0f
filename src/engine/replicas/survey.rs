//! What Redis is: its version, what it may throw away, what the user may do,
//! and whether a fail-over can leave two servers that both take writes.

use std::time::Duration;

use redis::{Script, pipe};

use super::connect::{Failed, connection, info};
use super::link::{Names, answer_key};
use super::primary::{Primary, primary};
use super::settings::{ReplicasSettings, Way};

/// The oldest with which all of this was tried.
const OLDEST: (u32, u32) = (6, 2);
/// How much sooner a primary has to notice that it is cut off than others take its place.
const SOONER: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Survey {
    /// Name and version of the server.
    pub server: String,
    /// What somebody should mend, in words.
    pub warnings: Vec<String>,
    /// Whether no fail-over leaves two servers that take writes.
    pub failover_safe: bool,
}

/// What the server says of itself, and what is known besides.
struct Facts<'a> {
    /// `INFO`: a line for each fact.
    info: &'a str,
    way: &'a Way,
    /// Whether answers lie there, too.
    holds_answers: bool,
    /// `min-replicas-max-lag`, if the user may ask for it.
    longest_lag: Option<Duration>,
    down_after: Option<Duration>,
    denied: Vec<String>,
}

/// Looks, over a connection of its own, with no limit on time.
pub async fn survey(settings: &ReplicasSettings, names: &Names) -> Result<Survey, Failed> {
    let Primary { door, down_after, .. } = primary(settings).await?;
    let (mut asked, _driver) = connection(settings, &door, &info(settings)?).await?;
    let mut questions = pipe();
    for section in ["server", "replication", "memory", "cluster"] {
        questions.cmd("INFO").arg(section);
    }
    let info: Vec<String> = questions.query_async(&mut asked).await?;
    // Many users may not ask for this, and it is no matter to most.
    let lag: Result<Vec<String>, _> =
        redis::cmd("CONFIG").arg("GET").arg("min-replicas-max-lag").query_async(&mut asked).await;
    let lag = lag.ok().and_then(|pair| pair.get(1)?.parse().ok()).map(Duration::from_secs);
    let check = Script::new(include_str!("check.lua"));
    let mut check = check.prepare_invoke();
    check.key(names.fleet()).key(names.log()).arg(names.hints());
    check.arg(settings.tier.map_or_else(String::new, |_| answer_key(settings, "0", "v")));
    let denied = check.invoke_async(&mut asked).await?;
    let (way, holds_answers) = (&settings.redis.way, settings.tier.is_some());
    Ok(found(&Facts { info: &info.concat(), way, holds_answers, longest_lag: lag, down_after, denied }))
}

fn found(facts: &Facts) -> Survey {
    let of = |name: &str| facts.info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let (name, version) = match (of("server_name"), of("valkey_version"), of("redis_version")) {
        (Some("valkey"), Some(version), _) => ("Valkey", version),
        (_, _, version) => ("Redis", version.unwrap_or("of no version")),
    };
    let mut warnings = Vec::new();
    let mut numbers = of("redis_version").unwrap_or_default().split('.').map_while(|part| part.parse::<u32>().ok());
    if (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) < OLDEST {
        warnings.push(format!("{name} {version} is older than 6.2, the oldest with which this was tried"));
    }
    let policy = of("maxmemory_policy").unwrap_or_default();
    let is_limited = of("maxmemory").is_some_and(|limit| limit != "0");
    if policy == "noeviction" && is_limited && facts.holds_answers {
        warnings.push(
            "maxmemory-policy is noeviction: Redis takes no writes once it is full of lists, and all replicas are alone; set \
             volatile-lru, or replicas.tier = false"
                .to_owned(),
        );
    }
    if policy.starts_with("allkeys") && is_limited {
        warnings.push(format!(
            "maxmemory-policy is {policy}: Redis may throw away what replicas share, and each time everything kept is out of \
             date once; set volatile-lru"
        ));
    }
    if !facts.denied.is_empty() {
        let denied = facts.denied.join(", ");
        warnings.push(format!("the user of replicas.redis may not run {denied} (docs/scale.md has what it needs)"));
    }
    let unsafe_failover = unsafe_failover(facts, of("connected_slaves"), of("min_slaves_good_slaves").is_some());
    let failover_safe = unsafe_failover.is_none();
    warnings.extend(unsafe_failover);
    Survey { server: format!("{name} {version}"), warnings, failover_safe }
}

/// Why two servers may take writes at once. The smaller part of a cluster stops by itself.
fn unsafe_failover(facts: &Facts, replicas: Option<&str>, is_fenced: bool) -> Option<String> {
    let fails_over = match facts.way {
        Way::Server(_) => replicas.is_some_and(|count| count != "0"),
        Way::Sentinels(..) => true,
        Way::Cluster(_) => false,
    };
    let why = match (is_fenced, facts.longest_lag, facts.down_after) {
        _ if !fails_over => return None,
        (false, ..) => "its min-replicas-to-write is 0".to_owned(),
        (true, Some(lag), Some(down)) if lag + SOONER > down => {
            format!(
                "its min-replicas-max-lag ({lag:?}) is not a second shorter than down-after-milliseconds ({down:?})"
            )
        }
        (true, ..) => return None,
    };
    Some(format!(
        "Redis may fail over, and {why}: a primary that is cut off goes on to take writes, and what is acknowledged there is \
         not known elsewhere (docs/scale.md)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::replicas::settings::Door;

    const FINE: &str = "redis_version:7.0.15\r\nconnected_slaves:0\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n";

    fn server() -> Way {
        Way::Server(Door::Tcp("h".into(), 6379))
    }

    fn look(info: &str, way: &Way) -> Survey {
        found(&Facts { info, way, holds_answers: true, longest_lag: None, down_after: None, denied: Vec::new() })
    }

    #[test]
    fn nothing_is_said_of_a_server_that_does() {
        let fine = Survey { server: "Redis 7.0.15".into(), warnings: vec![], failover_safe: true };
        assert_eq!(look(FINE, &server()), fine);
        let valkey = "server_name:valkey\r\nvalkey_version:8.1.1\r\n".to_owned() + FINE;
        assert_eq!(look(&valkey, &server()).server, "Valkey 8.1.1");
        assert_eq!(look(&FINE.replace("noeviction", "allkeys-lru"), &server()).warnings.len(), 0, "it has no limit");
    }

    #[test]
    fn what_is_to_be_mended_is_said() {
        for (info, part) in [
            (FINE.replace("7.0.15", "6.0.16"), "older than 6.2"),
            (FINE.replace("7.0.15", "5.0"), "older than 6.2"),
            (FINE.replace("maxmemory:0", "maxmemory:9").replace("noeviction", "allkeys-lfu"), "allkeys-lfu"),
            (FINE.replace("maxmemory:0", "maxmemory:9"), "full of lists"),
            (FINE.replace("connected_slaves:0", "connected_slaves:1"), "min-replicas-to-write is 0"),
        ] {
            let warnings = look(&info, &server()).warnings;
            assert!(warnings.len() == 1 && warnings[0].contains(part), "{part}: {warnings:?}");
        }
        let way = server();
        let facts = Facts {
            info: FINE,
            way: &way,
            holds_answers: true,
            longest_lag: None,
            down_after: None,
            denied: vec!["XADD".into()],
        };
        assert!(found(&facts).warnings[0].contains("may not run XADD"));
    }

    #[test]
    fn a_failover_is_safe_if_a_primary_that_is_cut_off_stops_first() {
        let sentinels = Way::Sentinels(vec![Door::Tcp("s".into(), 26379)], "shop".into());
        let cluster = Way::Cluster(vec![Door::Tcp("n".into(), 7000)]);
        let replicated = FINE.replace("connected_slaves:0", "connected_slaves:1");
        let fenced = replicated.clone() + "min_slaves_good_slaves:1\r\n";
        for (info, way, lag, down, is_safe) in [
            (FINE, &server(), 10, 30, true),
            (&replicated, &server(), 10, 30, false),
            (&fenced, &server(), 10, 30, true),
            // One that has no replica now may have one when it fails.
            (FINE, &sentinels, 10, 30, false),
            (&fenced, &sentinels, 10, 30, true),
            (&fenced, &sentinels, 10, 11, true),
            (&fenced, &sentinels, 10, 10, false),
            (&replicated, &cluster, 10, 30, true),
        ] {
            let [longest_lag, down_after] = [lag, down].map(|seconds| Some(Duration::from_secs(seconds)));
            let survey = found(&Facts { info, way, holds_answers: true, longest_lag, down_after, denied: Vec::new() });
            assert_eq!(survey.failover_safe, is_safe, "{way:?} {lag} {down} {info}");
            assert_eq!(survey.warnings.is_empty(), is_safe);
        }
    }
}
