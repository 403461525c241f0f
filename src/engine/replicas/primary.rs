//! Which server takes the writes: asked anew for every connection, for it may have changed. Sentinels and the nodes of a
//! cluster are asked all at once. Whoever was cut off from the others may name one that is no primary any more: of those who
//! answer in time the one that knows of the latest fail-over is believed.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisConnectionInfo, Value, cmd, pipe};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::super::metrics::ExchangeFailure;
use super::connect::{Failed, connection, info, password};
use super::settings::{Door, ReplicasSettings, Way};

/// How long others may take after the first has answered.
const OTHERS: Duration = Duration::from_millis(30);

/// A server, and what was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    pub(super) door: Door,
    /// How often the primary had changed when this was known; greater is later.
    latest: u64,
    /// How long a silent primary is waited for before another takes its place, where Sentinels say so.
    pub(super) down_after: Option<Duration>,
}

/// The server that takes the writes of a fleet.
pub(super) async fn primary(settings: &ReplicasSettings) -> Result<Primary, Failed> {
    let (doors, of) = match &settings.redis.way {
        Way::Server(door) => return Ok(Primary { door: door.clone(), latest: 0, down_after: None }),
        Way::Sentinels(doors, name) => (doors, Asked::Sentinel(name.clone())),
        Way::Cluster(doors) => (doors, Asked::Node(format!("{{{}}}", settings.prefix))),
    };
    let (settings, of) = (Arc::new(settings.clone()), Arc::new(of));
    let mut asking = JoinSet::new();
    for door in doors.clone() {
        let (settings, of) = (settings.clone(), of.clone());
        asking.spawn(async move {
            match &*of {
                Asked::Sentinel(name) => ask_sentinel(&settings, &door, name).await,
                Asked::Node(key) => ask_node(&settings, &door, key).await,
            }
        });
    }
    latest(asking, doors.len()).await
}

/// What the one with the latest news says, of those so many who are asked and answer in time.
async fn latest(mut asking: JoinSet<Result<Primary, Failed>>, count: usize) -> Result<Primary, Failed> {
    let (mut answers, mut why) = (Vec::new(), None);
    // Without an answer it ends when all have failed, or with whoever waits for this.
    let mut until = None;
    loop {
        let next = match until {
            None => asking.join_next().await,
            Some(until) => timeout_at(until, asking.join_next()).await.ok().flatten(),
        };
        match next {
            Some(Ok(Ok(answer))) => {
                until = until.or(Some(Instant::now() + OTHERS));
                answers.push(answer);
            }
            Some(Ok(Err(failed))) => why = Some(failed),
            Some(Err(_)) => {}
            None => break,
        }
        if answers.len() > count / 2 {
            break;
        }
    }
    let nobody = || why.unwrap_or_else(|| Failed::new(ExchangeFailure::Other, "nobody says which server takes writes"));
    answers.into_iter().max_by_key(|answer| answer.latest).ok_or_else(nobody)
}

/// Who is asked for what.
enum Asked {
    /// For the primary of this name.
    Sentinel(String),
    /// For that of keys with this tag.
    Node(String),
}

/// A Sentinel has no users of Redis: it is asked as nobody, and with the password of Redis if it wants one.
async fn ask_sentinel(settings: &ReplicasSettings, door: &Door, name: &str) -> Result<Primary, Failed> {
    let mut question = cmd("SENTINEL");
    question.arg("MASTER").arg(name);
    let nobody = RedisConnectionInfo::default();
    let (mut asked, _driver) = connection(settings, door, &nobody).await?;
    let answer = match question.query_async::<Value>(&mut asked).await {
        Err(error) if error.code() == Some("NOAUTH") => {
            let Some(password) = password(settings)? else { return Err(error.into()) };
            let (mut asked, _driver) = connection(settings, door, &nobody.set_password(password)).await?;
            question.query_async(&mut asked).await?
        }
        answer => answer?,
    };
    let unread = || Failed::new(ExchangeFailure::Other, "a Sentinel answers what cannot be understood");
    told_by_sentinel(&answer, door).ok_or_else(unread)
}

async fn ask_node(settings: &ReplicasSettings, door: &Door, key: &str) -> Result<Primary, Failed> {
    let (mut asked, _driver) = connection(settings, door, &info(settings)?).await?;
    let mut questions = pipe();
    questions.cmd("CLUSTER").arg("KEYSLOT").arg(key);
    questions.cmd("CLUSTER").arg("SLOTS").cmd("CLUSTER").arg("INFO");
    let (slot, slots, about): (u64, Value, String) = questions.query_async(&mut asked).await?;
    let unowned = || Failed::new(ExchangeFailure::Other, "the cluster is not whole: nobody has the slot of the keys");
    told_by_node(slot, &slots, &about, door).ok_or_else(unowned)
}

/// Names and values, one after the other.
fn told_by_sentinel(answer: &Value, asked: &Door) -> Option<Primary> {
    let Value::Array(fields) = answer else { return None };
    let of =
        |name: &str| fields.chunks(2).find(|pair| text(&pair[0]) == Some(name)).and_then(|pair| text(pair.get(1)?));
    let down_after = of("down-after-milliseconds").and_then(|text| text.parse().ok()).map(Duration::from_millis);
    Some(Primary {
        door: asked.beside(of("ip")?, of("port")?.parse().ok()?),
        latest: of("config-epoch")?.parse().ok()?,
        down_after,
    })
}

/// First slot, last slot, and who has them, the primary first.
fn told_by_node(slot: u64, slots: &Value, about: &str, asked: &Door) -> Option<Primary> {
    let about = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    if about("cluster_state") != Some("ok") {
        return None;
    }
    let Value::Array(ranges) = slots else { return None };
    let owner = ranges.iter().find_map(|range| {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(owner), ..] = &range[..] else { return None };
        let is_there = (u64::try_from(*first).ok()?..=u64::try_from(*last).ok()?).contains(&slot);
        is_there.then_some(owner)
    })?;
    let [host, Value::Int(port), ..] = &owner[..] else { return None };
    // One that does not know its own address is the one that was asked.
    let host = text(host).filter(|host| !host.is_empty()).or(asked.host())?;
    let latest = about("cluster_current_epoch")?.parse().ok()?;
    Some(Primary { door: asked.beside(host, u16::try_from(*port).ok()?), latest, down_after: None })
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(answers: &[Option<(u64, u64)>]) -> JoinSet<Result<Primary, Failed>> {
        let mut asking = JoinSet::new();
        for answer in answers.iter().copied() {
            asking.spawn(async move {
                let Some((milliseconds, latest)) = answer else { return Err(Failed::too_slow(OTHERS)) };
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                Ok(Primary { door: Door::Tcp("h".into(), 1), latest, down_after: None })
            });
        }
        asking
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_news_of_those_who_answer_in_time_is_believed() {
        for (answers, believed) in [
            // One that was cut off answers first, and another one soon after.
            (vec![Some((0, 1)), Some((10, 5)), Some((60_000, 9))], Some(5)),
            (vec![Some((0, 1)), Some((60_000, 5)), Some((60_000, 9))], Some(1)),
            (vec![None, Some((9_000, 2)), None], Some(2)),
            (vec![Some((0, 7)), Some((1, 3)), Some((2, 2))], Some(7)),
            (vec![None, None], None),
        ] {
            let told = latest(asking(&answers), answers.len()).await.ok().map(|told| told.latest);
            assert_eq!(told, believed, "{answers:?}");
        }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn a_sentinel_names_the_primary_and_how_late_it_knows_that() {
        let fields =
            ["name", "shop", "ip", "10.0.0.7", "port", "6380", "config-epoch", "4", "down-after-milliseconds", "5000"];
        let answer = Value::Array(fields.iter().map(|field| bulk(field)).collect());
        let told = told_by_sentinel(&answer, &Door::Tls("sentinel".into(), 26379)).unwrap();
        let door = Door::Tls("10.0.0.7".into(), 6380);
        assert_eq!(told, Primary { door, latest: 4, down_after: Some(Duration::from_secs(5)) });
        for wrong in [Value::Nil, Value::Array(vec![bulk("ip")]), Value::Array(vec![])] {
            assert_eq!(told_by_sentinel(&wrong, &Door::Tcp("s".into(), 1)), None);
        }
    }

    #[test]
    fn a_node_names_the_owner_of_a_slot_unless_the_cluster_is_not_whole() {
        let owner = |host: &str, port| Value::Array(vec![bulk(host), Value::Int(port), bulk("id")]);
        let slots = Value::Array(vec![
            Value::Array(vec![Value::Int(0), Value::Int(99), owner("10.0.0.1", 7001)]),
            Value::Array(vec![Value::Int(100), Value::Int(16383), owner("", 7002), owner("10.0.0.9", 7009)]),
        ]);
        let asked = Door::Tcp("node".into(), 7000);
        let whole = "cluster_state:ok\r\ncluster_current_epoch:6\r\n";
        let told = |slot| told_by_node(slot, &slots, whole, &asked).map(|told| (told.door, told.latest));
        assert_eq!(told(99), Some((Door::Tcp("10.0.0.1".into(), 7001), 6)));
        assert_eq!(told(100), Some((Door::Tcp("node".into(), 7002), 6)));
        assert_eq!(told(16384), None);
        assert_eq!(told_by_node(1, &slots, "cluster_state:fail\r\ncluster_current_epoch:6\r\n", &asked), None);
        assert_eq!(told_by_node(1, &Value::Array(vec![Value::Array(vec![])]), whole, &asked), None);
    }
}
