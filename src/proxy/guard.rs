//! What a write may have changed: out of date on every way out, once a byte of it may have reached the upstream; and
//! who is behind which source, from the moment a write begins that may change it.

use std::sync::Arc;
use std::time::Duration;

use super::contact::{Asked, Who};
use crate::engine::clock;
use crate::engine::metrics::InvalidationSource;
use crate::policy::coherence::answer_ids::{AnswerIds, Named};
use crate::policy::coherence::beliefs::Belief;
use crate::policy::coherence::causes::Cause;
use crate::policy::coherence::ledger::{Of, Place, Scope, Tick};
use crate::policy::coherence::reach::{Happening, Reach};
use crate::policy::http::client::Client;
use crate::policy::http::route::{Effect, Source, Target};
use crate::state::State;
use crate::state::invalidation::Invalidation;
use crate::state::upstream::Active;

/// How long a write that may merge contacts waits for another one that may merge the same, before it is sent all the
/// same: the contacts between the two would be known to nobody.
const TURN: Duration = Duration::from_secs(5);

/// How long a write that names a conversation alone waits for merges under way to say whose it is by then.
const MERGES: Duration = Duration::from_secs(1);

/// What a write does, as far as that is plain, and in which conversation.
pub(super) type Does = (Happening, Option<u64>);

/// What a write may have changed.
pub(super) struct InvalidationGuard {
    state: Arc<State>,
    active: Arc<Active>,
    places: Vec<Place>,
    /// Places of many lists: only if the upstream has had all of the request. Whoever breaks off was told nothing, and
    /// strangers can do so as often as they like.
    shared: Vec<Place>,
    /// Who is behind which source.
    identities: Vec<Place>,
    /// Whom it concerns, as far as that is known.
    contacts: Vec<u64>,
    /// Its number among the writes under way.
    write: u64,
    /// The tick after its beginning was written.
    began: Tick,
    /// The source whose contact the answer shows.
    shown: Option<(Source, u64)>,
    /// What the upstream said of what was done, if it has answered, or might have.
    effect: Option<Effect>,
    /// Whether a byte may have reached the upstream.
    pub(super) armed: bool,
    everything: bool,
    /// How far it reaches, in which conversation, and the message that it has written.
    reach: Reach,
    conversation: Option<u64>,
    message: Option<u64>,
    /// Whether it may have merged a contact of whom nobody knew who it was.
    pub(super) merges_unknown: bool,
}

impl InvalidationGuard {
    /// A write begins. If it may change who is behind a source, this waits for its turn, and nothing that was believed
    /// of them is believed any more. None if the other replicas cannot be told of that, and writes are to be refused then.
    pub(super) async fn begin(asking: Asking<'_>, targets: &[Target], named: &Named, does: Does) -> Option<Self> {
        let deadline = tokio::time::Instant::now() + TURN;
        let mut guard = loop {
            if let Some(guard) = Self::in_turn(asking, targets, named, does, deadline).await.ok()? {
                break guard;
            }
        };
        guard.began = guard.state.invalidation.ledger.now();
        for target in targets {
            guard.touch(target, named);
        }
        guard.state.invalidation.identities.write_touches(guard.write, &guard.places);
        Some(guard)
    }

    /// The beginning, unless another one that may change the same is under way: then none, when that has ended. After the
    /// deadline it begins all the same.
    async fn in_turn(
        asking: Asking<'_>,
        targets: &[Target],
        named: &Named,
        does: Does,
        deadline: tokio::time::Instant,
    ) -> Result<Option<Self>, Untold> {
        let Invalidation { ledger, identities, .. } = &asking.state.invalidation;
        let noted = ledger.now();
        let moving = asking.what_may_move(targets, named).await;
        let places = moving.places.clone();
        if places.is_empty() {
            return Ok(Some(Self::of(asking, identities.write_begins(), moving, does)));
        }
        let takes_turns = || tokio::time::Instant::now() < deadline;
        let invalidation = &asking.state.invalidation;
        let at_rest = || async { drop(tokio::time::timeout_at(deadline, invalidation.come_to_rest(&places)).await) };
        let taken = takes_turns() && invalidation.is_moving_elsewhere(&places);
        let Some(write) = (!taken).then(|| identities.move_begins(&places, &moving.contacts, takes_turns())).flatten()
        else {
            at_rest().await;
            return Ok(None);
        };
        let guard = Self::of(asking, write, moving, does);
        // Somebody may have come and gone since the contacts were asked for.
        if takes_turns() && !ledger.is_current(noted, &places) {
            return Ok(None);
        }
        let before = invalidation.ticket();
        for place in &places {
            invalidation.outdate(*place, Cause::Write);
        }
        invalidation.tell_moves(write, &places, &guard.contacts);
        // The other replicas shall believe nothing of them either while it is under way.
        if !invalidation.told_since(before).await && invalidation.refuses_untold() {
            return Err(Untold);
        }
        if takes_turns() && invalidation.is_behind(write) {
            drop(guard);
            at_rest().await;
            return Ok(None);
        }
        Ok(Some(guard))
    }

    fn of(asking: Asking<'_>, write: u64, moving: Moving, does: Does) -> Self {
        let Asking { state, active, .. } = asking;
        let Moving { places, contacts, unknown } = moving;
        Self {
            state: state.clone(),
            active: active.clone(),
            places: Vec::with_capacity(8),
            shared: Vec::new(),
            identities: places,
            contacts,
            write,
            began: state.invalidation.ledger.now(),
            shown: None,
            effect: None,
            armed: false,
            everything: false,
            reach: Reach::of(does.0),
            conversation: does.1,
            message: None,
            merges_unknown: unknown,
        }
    }

    /// What is known of it before it is sent.
    fn touch(&mut self, target: &Target, named: &Named) {
        let Self { state, active, .. } = self;
        let Invalidation { ledger, identities, sources, .. } = &state.invalidation;
        let mut scopes: Vec<Scope<'_>> = Vec::new();
        match target {
            Target::Contact(Source { inbox, contact }) | Target::Identity(Source { inbox, contact }) => {
                scopes.extend(self.reach.scopes(Of::Source(contact), self.conversation));
                // Even what is not believed any more may be true of a list that is kept.
                self.contacts.extend(sources.belief(active.whose(inbox, contact)).map(|belief| belief.contact));
            }
            Target::DisplayId { inbox, display } => {
                let account = identities.account(active.fingerprint, inbox);
                scopes.extend(account.map(|account| Scope::AccountConversation(account, *display)));
                scopes.extend(self.reach.of_conversation(account, *display));
            }
            Target::Creation { inbox } => {
                scopes.push(Scope::Missing(inbox));
                scopes.extend(named.source.iter().flat_map(|source| Reach::EVERYTHING.scopes(Of::Source(source), None)));
            }
            Target::Csat { uuid } => {
                scopes.push(Scope::Conversation(uuid));
                let pages = Reach::of(Happening::AnswersSurvey).scopes(Of::Everybody, None);
                self.shared.extend(pages.chain([Scope::AnyConversation]).map(|scope| ledger.place(&scope)));
            }
            Target::AccountConversation { account, display } => {
                scopes.push(Scope::AccountConversation(*account, *display));
                scopes.extend(Reach::EVERYTHING.of_conversation(Some(*account), *display));
                self.shared.push(ledger.place(&Scope::AnyConversation));
            }
            Target::AccountContact { id } => self.contacts.push(*id),
            Target::Account { account } => {
                for display in &named.displays {
                    scopes.push(Scope::AccountConversation(*account, *display));
                    scopes.extend(Reach::EVERYTHING.of_conversation(Some(*account), *display));
                }
                scopes.extend(named.source.iter().flat_map(|source| Reach::EVERYTHING.scopes(Of::Source(source), None)));
                self.shared.push(ledger.place(&Scope::AnyConversation));
            }
        }
        self.places.extend(scopes.iter().map(|scope| ledger.place(scope)));
    }

    /// The upstream has answered, and this is what it says of what was done; or it has had all of the request.
    pub(super) fn answered(&mut self, effect: Effect) {
        self.effect = Some(effect);
        if effect == Effect::Nothing {
            self.armed = false;
        }
    }

    /// Adds what the answer shows. Of a spelling that can be read in two ways it is not known which source was meant.
    pub(super) fn shown(&mut self, ids: &AnswerIds, targets: &[Target]) {
        let ledger = &self.state.invalidation.ledger;
        self.contacts.extend(ids.contact);
        self.message = ids.message;
        if let Some(source) = &ids.source {
            let scopes = Reach::EVERYTHING.scopes(Of::Source(source), None);
            self.places.extend(scopes.map(|scope| ledger.place(&scope)));
        }
        let creates = |target: &Target| matches!(target, Target::Creation { .. } | Target::Account { .. });
        if let Some(source) = ids.source.as_ref().filter(|_| targets.iter().any(creates)) {
            self.identities.push(ledger.place(&Scope::IdentityOfSource(source)));
        }
        if let Some(uuid) = &ids.uuid {
            self.places.push(ledger.place(&Scope::Conversation(uuid)));
        }
        let mut sources = targets.iter().filter_map(|target| match (target, &ids.source) {
            (Target::Identity(source), _) => Some(source.clone()),
            (Target::Creation { inbox }, Some(source)) => {
                Some(Source { inbox: inbox.clone(), contact: source.clone() })
            }
            _ => None,
        });
        if let (Some(source), None, Some(contact)) = (sources.next(), sources.next(), ids.contact) {
            self.shown = Some((source, contact));
        }
    }

    /// Adds a contact whom the upstream has named when it was asked afterwards: others may have merged it meanwhile.
    pub(super) fn asked(&mut self, contact: u64) {
        self.contacts.push(contact);
        self.contacts.extend(self.state.invalidation.identities.moved_meanwhile(self.write));
    }

    /// It may move conversations to somebody whom only its answer names: others that name one of these wait for that.
    pub(super) fn goes_to_unknown(&self) {
        self.state.invalidation.identities.goes_to_unknown(self.write);
    }

    /// Whether it is known whose its conversation is, if it names nothing else: another write under way may have moved that
    /// into a list which does not have it yet, of a contact whom only its answer names. Waits for those.
    pub(super) async fn is_of_known(&self) -> bool {
        let moves = !self.identities.is_empty();
        let merges_end = self.state.invalidation.merges_end();
        moves || !self.contacts.is_empty() || tokio::time::timeout(MERGES, merges_end).await.is_ok()
    }

    /// Nobody can say whose it was: whatever names nobody may be theirs.
    pub(super) fn nobody_knows(&mut self) {
        self.places.push(self.state.invalidation.ledger.place(&Scope::Nameless));
        self.state.metrics.writes_unattributed.inc();
    }

    /// Neither the request nor the answer says what was changed: everything, if it was done.
    pub(super) fn everything(&mut self) {
        self.everything = self.effect == Some(Effect::Committed);
    }

    fn finish(&mut self) -> Vec<u64> {
        let Self { state, active, .. } = self;
        let (ledger, identities) = (&state.invalidation.ledger, &state.invalidation.identities);
        let moves = !self.identities.is_empty();
        if moves {
            // Merged by others while it was under way: it may have merged them, too.
            self.contacts.extend(identities.moved_meanwhile(self.write));
        }
        self.places.extend(identities.beside(self.write));
        if self.contacts.is_empty() {
            // Its conversation may be one that another write has just begun, whose lists do not have it yet.
            self.places.extend(identities.touched_by_others(self.write));
        }
        state.invalidation.reach_who_moves(Cause::Write);
        self.contacts.sort_unstable();
        self.contacts.dedup();
        let later = self.reach.later(self.conversation);
        let later = later.filter(|_| state.invalidation.pages.may_have(self.conversation, self.message));
        let scopes = self.contacts.iter().flat_map(|contact| self.reach.scopes(Of::Contact(*contact), self.conversation));
        self.places.extend(scopes.chain(later).map(|scope| ledger.place(&scope)));
        let committed = self.effect == Some(Effect::Committed);
        if self.effect.is_some() {
            self.places.append(&mut self.shared);
        }
        if moves {
            self.identities.extend(self.contacts.iter().map(|contact| ledger.place(&Scope::Identity(*contact))));
        }
        let undisturbed = self.shown.take().filter(|(source, contact)| {
            let places = state.invalidation.identity_places(&source.contact, *contact);
            committed && ledger.is_current(self.began, &places)
        });
        let settle = if committed { active.config.settle.settle } else { active.config.settle.settle_unknown };
        // Who is behind a source does not go on changing after a clear answer.
        for (places, unsettled) in [(&mut self.places, true), (&mut self.identities, !committed)] {
            places.sort_unstable();
            places.dedup();
            for place in places {
                let settle = if unsettled { settle } else { Duration::ZERO };
                state.invalidation.outdate_for(*place, settle, Cause::Write);
            }
        }
        if self.everything {
            state.invalidation.outdate_all(Cause::Write);
        }
        if let Some((source, contact)) = undisturbed {
            let belief = Belief { contact, noted: ledger.now(), began: clock::now() };
            state.invalidation.sources.believe(active.whose(&source.inbox, &source.contact), belief);
        }
        state.metrics.invalidated(InvalidationSource::Write);
        if moves && self.contacts.len() > 1 { std::mem::take(&mut self.contacts) } else { Vec::new() }
    }
}

/// The other replicas could not be told.
struct Untold;

impl Drop for InvalidationGuard {
    fn drop(&mut self) {
        let merged = if self.armed { self.finish() } else { Vec::new() };
        // Last: until then nobody believes what it may have changed.
        let told = self.state.invalidation.identities.write_ends(self.write, &merged);
        self.state.invalidation.tell_moved(told);
    }
}

/// What a write may change of who is behind which source.
struct Moving {
    places: Vec<Place>,
    /// The contacts behind them before.
    contacts: Vec<u64>,
    /// Whether there are others whom nobody knows.
    unknown: bool,
}

/// Who asks, and under which settings.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) state: &'a Arc<State>,
    pub(super) active: &'a Arc<Active>,
    pub(super) peer: &'a Client,
}

impl<'a> Asking<'a> {
    /// The question whose a source is.
    pub(super) fn about(self, inbox: &'a str, source: &'a str) -> Asked<'a> {
        Asked { state: self.state, active: self.active, inbox, source, peer: self.peer }
    }

    /// The identities that a write may change, and the contacts behind them: afterwards nobody could say who they were.
    async fn what_may_move(self, targets: &[Target], named: &Named) -> Moving {
        let (mut sources, mut contacts, mut unknown) = (Vec::new(), Vec::new(), false);
        for target in targets {
            match target {
                Target::Identity(Source { inbox, contact }) => {
                    sources.push(contact.as_str());
                    match self.about(inbox, contact).contact().await {
                        Who::Contact(contact) => contacts.push(contact),
                        Who::Nobody => {}
                        Who::Unknown => unknown = true,
                    }
                }
                Target::Creation { .. } => sources.extend(named.source.as_deref()),
                Target::Account { .. } => {
                    sources.extend(named.source.as_deref());
                    contacts.extend(named.contacts.iter().copied());
                }
                Target::AccountContact { id } => contacts.push(*id),
                Target::Contact(_)
                | Target::DisplayId { .. }
                | Target::Csat { .. }
                | Target::AccountConversation { .. } => {}
            }
        }
        let ledger = &self.state.invalidation.ledger;
        let of_sources = sources.iter().map(|source| ledger.place(&Scope::IdentityOfSource(source)));
        let of_contacts = contacts.iter().map(|contact| ledger.place(&Scope::Identity(*contact)));
        Moving { places: of_sources.chain(of_contacts).collect(), contacts, unknown }
    }
}
