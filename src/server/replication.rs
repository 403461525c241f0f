//! This replica's exchange with the others, as long as the process lives: it drives `policy::replicas::member` and obeys it.

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::survey;
use crate::engine::clock;
use crate::engine::replicas::connect::Failed;
use crate::engine::replicas::fleet::{Fleet, Standing};
use crate::engine::replicas::keys;
use crate::engine::replicas::link::{Hints, Link, Names};
use crate::policy::replicas::exchange::{Began, Hint, Micros, Reply, Request};
use crate::policy::replicas::known::FleetTime;
use crate::policy::replicas::member::{Action, By, History, Lost, Member};
use crate::policy::replicas::wire::Item;
use crate::state::State;

/// The longest time between two looks: the process may have ended its work meanwhile.
const LOOK: Duration = Duration::from_millis(200);
/// Time between two attempts to listen to hints.
const LISTEN_EVERY: Micros = 1_000_000;
/// Leases that may pass without a hint, though the log grew, before they are subscribed to anew.
const HINTLESS: Micros = 3;

/// What an exchange came to, and the connection if it can be used again.
type Exchanged = (Option<Link>, Result<Reply, Failed>);

/// An exchange that was sent and has not ended.
struct UnderWay {
    number: u64,
    sent: Micros,
    left_out: usize,
    ending: Pin<Box<dyn Future<Output = Exchanged> + Send>>,
}

/// The exchange of one replica.
struct Replication {
    fleet: Arc<Fleet>,
    names: Arc<Names>,
    member: Member,
    random: RandomState,
    drawn: u64,
    link: Option<Link>,
    under_way: Option<UnderWay>,
    hints: Option<Hints>,
    /// When it was last tried to listen to them.
    listened: Option<Micros>,
    /// Since when the log has grown without a hint.
    unhinted: Option<Micros>,
    told: Standing,
    is_leaving: bool,
    /// The last look at Redis.
    survey: Option<AbortOnDropHandle<()>>,
}

/// What happens next.
enum Event {
    Exchanged(Exchanged),
    Hint(Option<Hint>),
    News(bool),
    Time,
}

/// Exchanges until the state is gone.
pub(super) async fn run(state: Weak<State>, fleet: Arc<Fleet>) {
    let mut replication = Replication::new(fleet);
    loop {
        {
            let Some(state) = state.upgrade() else { return };
            replication.look(&state);
        }
        let event = replication.next().await;
        let Some(state) = state.upgrade() else { return };
        replication.handle(event, &state);
    }
}

impl Replication {
    fn new(fleet: Arc<Fleet>) -> Self {
        let random = RandomState::new();
        let names = Names::new(&fleet.settings.prefix, keys::of_agreement(&fleet.settings));
        let rules = fleet.rules();
        let mut this = Self {
            fleet,
            names: Arc::new(names),
            member: Member::new([0; 16], rules),
            random,
            drawn: 0,
            link: None,
            under_way: None,
            hints: None,
            listened: None,
            unhinted: None,
            told: Standing::Asking,
            is_leaving: false,
            survey: None,
        };
        this.member = Member::new(this.draw_16(), rules);
        this
    }

    /// Does what is due.
    fn look(&mut self, state: &Arc<State>) {
        if self.fleet.is_leaving() && !self.is_leaving {
            self.is_leaving = true;
            let actions = self.member.leave();
            self.obey(actions, state);
        }
        let fleet = self.fleet.clone();
        let actions = self.member.poll(clock::boot(), &mut fleet.pending());
        self.obey(actions, state);
        self.tell(state, None);
    }

    async fn next(&mut self) -> Event {
        let fleet = self.fleet.clone();
        let now = clock::boot();
        let wait = Duration::from_micros(self.member.next_poll(now, &fleet.pending()).saturating_sub(now));
        tokio::select! {
            biased;
            exchanged = ending(self.under_way.as_mut()) => Event::Exchanged(exchanged),
            hint = heard(self.hints.as_mut()) => Event::Hint(hint),
            // While one is under way whatever is to be told goes with the next.
            wanted = fleet.news() => Event::News(wanted),
            () = tokio::time::sleep(wait.min(LOOK)) => Event::Time,
        }
    }

    fn handle(&mut self, event: Event, state: &Arc<State>) {
        match event {
            Event::Exchanged((link, result)) => self.exchanged(link, result, state),
            Event::Hint(Some(Hint::Landed(name))) => self.fleet.landed(name),
            Event::Hint(Some(hint)) => {
                self.unhinted = None;
                let actions = self.member.hinted(hint, clock::boot());
                self.obey(actions, state);
            }
            Event::Hint(None) => self.hints = None,
            Event::News(true) => self.member.want(),
            Event::News(false) | Event::Time => {}
        }
    }

    fn exchanged(&mut self, link: Option<Link>, result: Result<Reply, Failed>, state: &Arc<State>) {
        let Some(UnderWay { number, sent, left_out, .. }) = self.under_way.take() else { return };
        let (now, metrics) = (clock::boot(), &state.metrics.replicas);
        let fleet = self.fleet.clone();
        match result {
            Ok(reply) => {
                metrics.exchange.observe(Duration::from_micros(now - sent).as_secs_f64());
                metrics.left_out.inc_by(left_out as u64);
                self.link = link;
                let grown = reply.entries.iter().any(|entry| entry.member != self.member.id());
                self.mind_hints(grown, now);
                if !reply.disagrees {
                    fleet.log().time = FleetTime { said: reply.now, clock: reply.clock, asked: sent, got: now };
                }
                let actions = self.member.replied(number, reply, now, &mut fleet.pending());
                self.obey(actions, state);
                fleet.pending().entered();
                fleet.set_known(self.member.is_cut_off(), self.member.disagrees(), self.member.members(), Some(sent));
                metrics.members.set(self.member.members().into());
                metrics.lag.set(i64::try_from(self.member.unsettled()).unwrap_or(i64::MAX));
                if self.is_leaving {
                    fleet.set_left();
                }
            }
            Err(why) => {
                metrics.failures.with_label_values(&[why.kind.label()]).inc();
                let jitter = self.draw();
                self.member.failed(number, now, jitter, &mut fleet.pending());
                (self.link, self.hints, self.unhinted) = (None, None, None);
                fleet.set_known(self.member.is_cut_off(), self.member.disagrees(), self.member.members(), None);
                self.tell(state, Some(&why));
            }
        }
    }

    /// Hints only save time, and a connection may be dead without saying so: if the log grows and nothing is heard, it is
    /// listened to anew.
    fn mind_hints(&mut self, grown: bool, now: Micros) {
        let silence = self.fleet.rules().margin() * HINTLESS;
        if self.unhinted.is_some_and(|since| now - since >= silence) {
            self.hints = None;
        } else if grown && self.hints.is_some() {
            self.unhinted = self.unhinted.or(Some(now));
        }
        if self.hints.is_none() && self.listened.is_none_or(|last| now - last >= LISTEN_EVERY) {
            self.hints = Some(Hints::subscribe(self.fleet.settings.clone(), &self.names));
            (self.listened, self.unhinted) = (Some(now), None);
        }
    }

    fn obey(&mut self, actions: Vec<Action>, state: &Arc<State>) {
        for action in actions {
            match action {
                Action::Send(request) => self.send(request),
                // In these orders: whoever sees a change in the ledger sees in which entry it was told.
                Action::Lose(lost, History { epoch, complete, told, last }) => {
                    self.fleet.log().known.begin(epoch, complete, last, &told);
                    let anew = matches!(lost, Lost::Epoch(_));
                    state.invalidation.lost(anew, &told);
                    if anew {
                        let (settings, names) = (self.fleet.settings.clone(), self.names.clone());
                        self.survey = Some(survey::begin(settings, names, state.metrics.clone()));
                    }
                    say_lost(lost, state);
                }
                Action::Apply(seq, items) => {
                    self.fleet.log().known.note(seq, &items);
                    obey(seq, items, state);
                    self.fleet.log().known.applied(seq);
                }
                Action::Own(seq, items) => {
                    state.invalidation.entered(seq, &items);
                    let mut log = self.fleet.log();
                    log.known.note(seq, &items);
                    log.known.applied(seq);
                }
                Action::Lease(until) => self.fleet.set_lease(until),
                Action::Appended(ticket) => self.fleet.set_appended(ticket),
                Action::Told(ticket, by) => self.fleet.set_told(ticket, by == By::Timer),
            }
        }
    }

    /// Sends an exchange; one that does not end in time has failed, and its connection is not used again.
    fn send(&mut self, request: Request) {
        let (number, left_out, sent) = (request.number, request.silent.len(), clock::boot());
        let (id, names, settings) = (self.member.id(), self.names.clone(), self.fleet.settings.clone());
        let (random, limit, link) = ((self.draw_16(), self.draw()), settings.timeout, self.link.take());
        let ending = Box::pin(async move {
            let exchange = async {
                let mut link = match link {
                    Some(link) => link,
                    None => Link::open(&settings).await?,
                };
                let reply = link.exchange(&names, id, &request, random).await?;
                Ok((link, reply))
            };
            match tokio::time::timeout(limit, exchange).await {
                Ok(Ok((link, reply))) => (Some(link), Ok(reply)),
                Ok(Err(why)) => (None, Err(why)),
                Err(_) => (None, Err(Failed::too_slow(limit))),
            }
        });
        self.under_way = Some(UnderWay { number, sent, left_out, ending });
    }

    /// One line for each change of what readers get.
    fn tell(&mut self, state: &State, why: Option<&Failed>) {
        let (standing, before) = (self.fleet.standing(), self.told);
        state.metrics.replicas.stands(standing.label());
        // That it asks is over at once.
        if standing == before || standing == Standing::Asking {
            return;
        }
        self.told = standing;
        let members = self.member.members();
        match (standing, why) {
            (Standing::Leased, _) => tracing::info!(members, "shares what has changed with the other replicas"),
            (Standing::Alone, Some(why)) => {
                tracing::warn!(%why, reason = why.kind.label(), "Redis gives no answer: every list is fetched until it does");
            }
            (Standing::Alone, None) => self.told = before,
            (Standing::Disagrees, _) => tracing::error!(
                "the replicas in Redis have another replicas.secret, mode or lease: every list is fetched until they agree"
            ),
            (Standing::Leaving, _) => tracing::info!("leaves the other replicas"),
            (Standing::Asking, _) => {}
        }
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.random.hash_one(self.drawn)
    }

    fn draw_16(&mut self) -> [u8; 16] {
        let (first, second) = (self.draw(), self.draw());
        (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
    }
}

async fn ending(under_way: Option<&mut UnderWay>) -> Exchanged {
    match under_way {
        Some(under_way) => under_way.ending.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn heard(hints: Option<&mut Hints>) -> Option<Hint> {
    match hints {
        Some(hints) => hints.next().await,
        None => std::future::pending().await,
    }
}

/// Obeys what other replicas tell.
fn obey(seq: u64, items: Vec<Item>, state: &Arc<State>) {
    let mut purges = false;
    for item in items {
        purges |= matches!(item, Item::Places { gone: true, .. } | Item::Everything { gone: true });
        state.invalidation.obey(seq, item);
    }
    if purges {
        // It looks at everything that is kept: not by a thread that serves others.
        let state = state.clone();
        tokio::task::spawn_blocking(move || state.forget_purged(|_, _| ()));
    }
}

/// What was told is lost, or may be.
fn say_lost(lost: Lost, state: &State) {
    let metrics = &state.metrics.replicas;
    let Lost::Epoch(began) = lost else {
        metrics.gaps.inc();
        tracing::warn!("the log in Redis no longer has what was missed: everything kept is out of date once");
        return;
    };
    let cause = match began {
        Some(Began::Missing) => "missing",
        Some(Began::Run) => "run",
        Some(Began::Ahead) => "ahead",
        Some(Began::Tag) => "tag",
        None => "other",
    };
    metrics.epochs.with_label_values(&[cause]).inc();
    tracing::info!(cause, "the replicas begin anew in Redis: everything kept is out of date once");
}
