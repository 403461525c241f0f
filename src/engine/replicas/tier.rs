//! Answers that lie in Redis for all replicas, and who fetches one: asked before a fetch, told after it. Every wait has a
//! limit, and whatever fails means that a replica fetches for itself.

use std::sync::Arc;
use std::time::Duration;

use redis::{Script, Value};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::super::aside::aside;
use super::super::metrics::{ExchangeFailure, Metrics, TierAsked, TierPut};
use super::connect::Failed;
use super::fleet::Fleet;
use super::lane::Lane;
use super::link::{answer_key, hints_of};
use super::seal::{HEAD, OVERHEAD, Seal};
use super::settings::TierSettings;
use crate::policy::replicas::exchange::Name;
use crate::policy::replicas::known::Stamp;

/// Askings at once, and answers being put there at once: more do without.
const AT_ONCE: usize = 64;
/// An answer up to this many bytes is taken as it comes; for a longer one there has to be room.
const SHORT: usize = 256 * 1024;
/// Room for longer answers, in pieces of [`PIECE`]: each way.
const ROOM: usize = 32 * 1024;
const PIECE: usize = 1024;
/// How long it may take until an answer is put there.
const PUTTING: Duration = Duration::from_secs(2);

/// What Redis says to whoever needs an answer.
pub enum Said {
    /// It has this one, sealed.
    Answer(Vec<u8>, Option<OwnedSemaphorePermit>),
    /// Another replica fetches it.
    Held,
    /// Whoever asked is to fetch it, and the others wait for that.
    Granted(Turn),
    /// Whoever asked is to fetch it for himself.
    Own,
}

/// The way to what lies in Redis.
pub struct Tier {
    /// What it obeys.
    pub settings: TierSettings,
    /// How answers are sealed.
    pub seal: Seal,
    /// What its replicas know.
    pub fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    scripts: [Script; 3],
    hints: String,
    asking: Lane,
    putting: Lane,
    asks: Semaphore,
    puts: Arc<Semaphore>,
    room: [Arc<Semaphore>; 2],
}

/// Whose turn it is to fetch: told to go on for as long as this is there, and to be over when it is dropped.
pub struct Turn {
    tier: Arc<Tier>,
    name: Name,
    token: [u8; 16],
    stamp: Stamp,
    _renewing: AbortOnDropHandle<()>,
    is_over: bool,
}

/// Makes an answer, sealed.
pub type Make = Box<dyn FnOnce(&Seal) -> Option<Vec<u8>> + Send>;

/// An answer for the others.
pub struct ForOthers {
    /// What its fetch knew.
    pub stamp: Stamp,
    /// How long it may lie there.
    pub lasts: Duration,
    /// Makes it, sealed; none if it cannot be made.
    pub make: Make,
    /// How long it will be, about.
    pub length: usize,
}

impl Tier {
    /// Connects, in time. None if that is not wanted.
    pub fn new(fleet: &Arc<Fleet>, metrics: &Arc<Metrics>) -> Option<Arc<Self>> {
        let settings = &fleet.settings;
        let tier = settings.tier?;
        let scripts = [include_str!("ask.lua"), include_str!("land.lua"), include_str!("renew.lua")].map(Script::new);
        Some(Arc::new(Self {
            settings: tier,
            seal: Seal::new(settings),
            fleet: fleet.clone(),
            metrics: metrics.clone(),
            scripts,
            hints: hints_of(&settings.prefix),
            asking: Lane::new(settings.clone()),
            putting: Lane::new(settings.clone()),
            asks: Semaphore::new(AT_ONCE),
            puts: Arc::new(Semaphore::new(AT_ONCE)),
            room: [(); 2].map(|()| Arc::new(Semaphore::new(ROOM))),
        }))
    }

    /// The keys of an answer and of its fetch.
    fn keys(&self, name: &Name) -> [String; 2] {
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        ["v", "f"].map(|kind| answer_key(&self.fleet.settings, &name, kind))
    }

    /// What there is for a name, that knows at least this entry of the log, and is not the one of this head.
    ///
    /// # Errors
    /// If Redis does not say so within [`TierSettings::read_timeout`], or cannot.
    pub async fn ask(
        self: &Arc<Self>,
        name: &Name,
        stamp: Stamp,
        least: u64,
        longest: usize,
        refused: Option<&[u8]>,
    ) -> Result<Said, Failed> {
        let limit = self.settings.read_timeout;
        timeout(limit, self.ask_without_limit(name, stamp, least, longest, refused))
            .await
            .unwrap_or_else(|_| Err(Failed::too_slow(limit)))
    }

    async fn ask_without_limit(
        self: &Arc<Self>,
        name: &Name,
        stamp: Stamp,
        least: u64,
        longest: usize,
        refused: Option<&[u8]>,
    ) -> Result<Said, Failed> {
        let _asking = self.asks.acquire().await.expect("never closed");
        let token: [u8; 16] = self.seal.draw().ok_or_else(|| Failed::new(ExchangeFailure::Other, "no random bytes"))?;
        let mut refused = refused.map(<[u8]>::to_vec).unwrap_or_default();
        let (mut most, mut room) = (SHORT.min(longest), None);
        // It may be too long, then another one, or have room: then it is asked for once more.
        for _ in 0..3 {
            let mut invocation = self.scripts[0].prepare_invoke();
            let [answer, fetch] = self.keys(name);
            invocation.key(answer).key(fetch);
            invocation
                .arg(&Seal::beginning(&stamp.epoch)[..])
                .arg(least)
                .arg(&token[..])
                .arg(format!("{:016}", stamp.seq));
            invocation.arg(millis(self.settings.fetch_lease)).arg(most).arg(&refused);
            let Some((word, head, length)) = read(self.asking.run(&invocation, self.settings.read_timeout).await?)
            else {
                break;
            };
            return Ok(match &word[..] {
                b"answer" => Said::Answer(head, room),
                b"held" => Said::Held,
                b"own" => Said::Own,
                b"granted" => Said::Granted(self.turn(*name, token, stamp)),
                b"long" => {
                    room = if length <= longest { self.room(0, length) } else { None };
                    if room.is_some() {
                        most = length;
                    } else {
                        self.metrics.replicas.tier.asked(TierAsked::TooLong);
                        refused = head;
                    }
                    continue;
                }
                _ => break,
            });
        }
        Err(Failed::new(ExchangeFailure::Other, "the reply is not one of the script"))
    }

    fn room(&self, way: usize, length: usize) -> Option<OwnedSemaphorePermit> {
        let pieces = u32::try_from(length.div_ceil(PIECE)).ok()?;
        self.room[way].clone().try_acquire_many_owned(pieces).ok()
    }

    fn turn(self: &Arc<Self>, name: Name, token: [u8; 16], stamp: Stamp) -> Turn {
        let tier = self.clone();
        let renewing = tokio::spawn(async move {
            let TierSettings { read_timeout, fetch_lease, .. } = tier.settings;
            loop {
                tokio::time::sleep(fetch_lease / 3).await;
                let mut invocation = tier.scripts[2].prepare_invoke();
                let [_, fetch] = tier.keys(&name);
                invocation.key(fetch).arg(&token[..]).arg(millis(fetch_lease));
                // If it could not be told, the others may fetch, too.
                drop(tier.asking.run(&invocation, read_timeout).await);
            }
        });
        Turn { tier: self.clone(), name, token, stamp, _renewing: AbortOnDropHandle::new(renewing), is_over: false }
    }

    /// A fetch has ended, behind whoever waits for it: what it brought for others, and whose turn it was, if it was anybody's.
    pub fn landed(self: &Arc<Self>, name: Name, brought: Option<ForOthers>, mut turn: Option<Turn>) {
        let token = turn.as_mut().map(Turn::over);
        if brought.is_none() && token.is_none() {
            return;
        }
        let Ok(permit) = self.puts.clone().try_acquire_owned() else {
            // That the fetch is over they hear when its time is.
            return self.metrics.replicas.tier.put(TierPut::Dropped);
        };
        let tier = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // The others wait until it is put there.
            let _turn = turn;
            let (value, stamp, lasts, _room) = tier.made(brought).await;
            let Some(stamp) = stamp.or(token.map(|(_, stamp)| stamp)) else { return };
            let said = tier.tell_landed(&name, stamp, token.map(|(token, _)| token), &value, lasts).await;
            if !value.is_empty() {
                tier.metrics.replicas.tier.put(said);
            }
        });
    }

    async fn made(
        self: &Arc<Self>,
        brought: Option<ForOthers>,
    ) -> (Vec<u8>, Option<Stamp>, Duration, Option<OwnedSemaphorePermit>) {
        let none = (Vec::new(), None, Duration::ZERO, None);
        let Some(ForOthers { stamp, lasts, make, length }) = brought else { return none };
        let room = if length > SHORT { self.room(1, length + OVERHEAD) } else { None };
        if length > SHORT && room.is_none() {
            self.metrics.replicas.tier.put(TierPut::Dropped);
            return none;
        }
        let made = if length > SHORT {
            let tier = self.clone();
            aside(move || make(&tier.seal)).await
        } else {
            make(&self.seal)
        };
        made.map_or(none, |value| (value, Some(stamp), lasts, room))
    }

    async fn tell_landed(
        &self,
        name: &Name,
        stamp: Stamp,
        token: Option<[u8; 16]>,
        value: &[u8],
        lasts: Duration,
    ) -> TierPut {
        let mut invocation = self.scripts[1].prepare_invoke();
        let [answer, fetch] = self.keys(name);
        invocation.key(answer).key(fetch);
        let token = token.map(|token| token.to_vec()).unwrap_or_default();
        invocation.arg(&Seal::beginning(&stamp.epoch)[..]).arg(stamp.seq).arg(token).arg(value);
        invocation
            .arg(millis(lasts))
            .arg(millis(self.settings.fetch_lease))
            .arg(&self.hints)
            .arg([&b"l"[..], name].concat());
        match self.putting.run(&invocation, PUTTING).await {
            Ok(Value::BulkString(said)) if said == b"older" => TierPut::Older,
            Ok(_) => TierPut::Put,
            Err(_) => TierPut::Failed,
        }
    }
}

impl Turn {
    /// How it ended is told by somebody else from here on.
    fn over(&mut self) -> ([u8; 16], Stamp) {
        self.is_over = true;
        (self.token, self.stamp)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Nothing came of it: the others need not wait.
        if !self.is_over
            && let Ok(runtime) = Handle::try_current()
        {
            let (tier, name, (token, stamp)) = (self.tier.clone(), self.name, self.over());
            runtime.spawn(async move { tier.tell_landed(&name, stamp, Some(token), &[], Duration::ZERO).await });
        }
    }
}

/// The reply of `ask.lua`: a word, bytes if it has any, and a length if it has one.
fn read(value: Value) -> Option<(Vec<u8>, Vec<u8>, usize)> {
    let Value::Array(values) = value else { return None };
    let mut values = values.into_iter();
    let mut bytes = || match values.next() {
        None => Some(Vec::new()),
        Some(Value::BulkString(bytes)) => Some(bytes),
        Some(_) => None,
    };
    let (word, head) = (bytes()?, bytes()?);
    let length = match values.next() {
        None => 0,
        Some(Value::Int(length)) => usize::try_from(length).ok()?,
        Some(_) => return None,
    };
    (word != b"long" || head.len() == HEAD).then_some((word, head, length))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
