//! The upstream's truth in the model, and what has been promised of it.
//!
//! Two installations, of which the proxy has one as its upstream at a time. In each, sources 0 and 1 are one contact's,
//! sources 2 and 4 another's, source 5 a third's, source 3 is missing until it is created for the first; merges give the
//! sources of one contact to another. A list shows the version of its contact: 0 is a 404, 1 is `[]`, and versions only
//! grow. Each change has a version, and each fact that it changes shows it from then on: the contact's name, who has seen
//! a conversation, its newest message, an older one; each read shows some of these. In some schedules lists of some sources name nobody at any version, in some the upstream shows no contact but
//! in lists (a hash is demanded), and in some it tells origins apart.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Dice;

pub const INBOX: &str = "in";
pub const SOURCES: usize = 6;
/// The source that is missing at first.
pub const CREATED: usize = 3;
pub const CONTACTS: usize = 3;
pub const WORLDS: usize = 2;

/// What was merged past the proxy, or by a write of which nobody could say whose it was, is known when everything that
/// was believed, or kept by such a belief, has reached its greatest age.
const FORGOTTEN: Duration = Duration::from_secs(18);

/// What reads show of a source, by the version of the last change: the contact's card, and three facts of each conversation
/// that was one contact's at first. 0 is what is not there.
pub type Facts = [u64; FACTS];
const FACTS: usize = 1 + 3 * CONTACTS;
/// The place of the contact's card among the facts.
pub const CARD: usize = 0;

/// A fact of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Who has seen it.
    Seen,
    /// Its newest message.
    Newest,
    /// What an older message says.
    Older,
}

impl Said {
    pub const ALL: [Self; 3] = [Self::Seen, Self::Newest, Self::Older];

    /// Its place among the facts.
    pub fn of(self, first: usize) -> usize {
        1 + self as usize * CONTACTS + first
    }
}

/// What a change changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The contact's card.
    Card,
    /// Nothing but the list: there is one conversation more.
    Opens,
    /// A fact of the conversation that was this contact's at first.
    Says(Said, usize),
}

/// Other schedules have other contacts.
pub fn source_name(seed: u64, source: usize) -> String {
    format!("v{seed}s{source}")
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something under a source.
    Under(usize, What),
    /// A source is created for the first contact.
    Create(usize),
    /// The contact of a source becomes the one that another contact has become.
    Merge { source: usize, into: usize },
    /// The same by the contacts' ids.
    MergeContacts { from: usize, into: usize },
    /// Something of the conversation that was this contact's at first; there is none before its second version.
    Conversation(Said, usize),
    /// Something of a contact, by its id.
    Contact(usize, What),
}

/// A write as it was sent: what it is to do, and how long after the proxy has given up on it, if so.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub change: Change,
    pub late: Option<Duration>,
}

/// What the effect of a write was.
pub struct Done {
    world: usize,
    touched: Vec<Touched>,
    /// The conversation that it was about, if that is all that it names.
    conversation: Option<usize>,
    /// The source that was named in its path, if one was.
    own: Option<usize>,
    moves: bool,
}

/// A list that was changed, as it is after that.
#[derive(Clone, Copy, Debug)]
pub struct Touched {
    source: usize,
    version: u64,
    /// The conversations in it, by the contacts whose they were at first, a bit each.
    shows: u64,
    /// The facts that were changed.
    facts: Facts,
}

/// What a source has shown.
#[derive(Clone, Copy)]
struct Shown {
    version: u64,
    since: Instant,
    /// A write had this effect after the proxy had given up on it.
    late: bool,
}

/// Whether the proxy may not know whose a source is.
#[derive(Clone, Copy, Default)]
struct Unknown {
    until: Option<Instant>,
    /// Writes that have moved it, of which it is open whether anybody could say whose it was.
    open: u32,
}

/// What a reader must see.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    /// What was acknowledged.
    pub acknowledged: u64,
    /// What was purged is gone: nothing older.
    pub purged: u64,
    /// The same of both, fact by fact.
    pub facts: Facts,
    /// The same of a list that does not have the conversation.
    pub absent: Facts,
}

/// One installation.
struct World {
    versions: [u64; CONTACTS],
    cards: [u64; CONTACTS],
    /// What is said of the conversation that was this contact's at first.
    said: [[u64; 3]; CONTACTS],
    /// Which contact each one is now.
    became: [usize; CONTACTS],
    /// Whose each source is.
    owner: [Option<usize>; SOURCES],
    /// The last write that was sent before a late creation made this source.
    came_after: [u64; SOURCES],
    shown: [Vec<Shown>; SOURCES],
    /// The same of each fact.
    facts_shown: Vec<[Vec<Shown>; FACTS]>,
    facts_needed: [Facts; SOURCES],
    absent_needed: [Facts; SOURCES],
    /// The conversations that agents have begun past the proxy, by the contacts whose they were at first, a bit each.
    begun_past: u64,
    acknowledged: [u64; SOURCES],
    /// The conversations of which it was acknowledged that they are in a list.
    shows: [u64; SOURCES],
    purged: [u64; SOURCES],
    unknown: [Unknown; SOURCES],
    /// Contacts were merged past the proxy.
    merged_past: bool,
}

/// What a schedule is like.
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
#[derive(Clone, Copy)]
pub struct Manner {
    /// Whether a contact is shown to whoever has no hash.
    pub shows_contacts: bool,
    /// The sources whose lists name nobody, a bit each.
    pub nameless: u64,
    /// `Vary: Origin`.
    pub tells_origins: bool,
    /// What else may happen.
    pub trouble: Trouble,
    /// There are conversations from the beginning.
    pub has_begun: bool,
    /// Most of it is reading, and about one source.
    pub is_narrow: bool,
}

/// What else may happen in a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// Lists come at once, and some writes have their effect after the proxy has given up on them.
    LateWrites,
    /// Agents merge contacts past the proxy.
    MergesPast,
}

impl Manner {
    pub fn of(seed: u64, dice: &mut Dice) -> Self {
        let shows_contacts = !seed.is_multiple_of(5);
        let nameless = match dice.below(10) {
            0..4 => 0,
            4..7 => dice.below(1 << SOURCES),
            _ => u64::MAX,
        };
        let trouble = match dice.below(10) {
            // Of what nobody knows whose it was, it is not known that it may still come.
            0 if shows_contacts => Trouble::LateWrites,
            1 => Trouble::MergesPast,
            _ => Trouble::None,
        };
        let is_narrow = dice.percent(50);
        let nameless = if is_narrow { 0 } else { nameless };
        let has_begun = dice.percent(if is_narrow { 90 } else { 40 });
        Self { shows_contacts, nameless, tells_origins: dice.percent(20), trouble, has_begun, is_narrow }
    }

    pub fn is_nameless(&self, source: usize) -> bool {
        self.nameless & (1 << source) != 0
    }
}

pub struct Register {
    pub seed: u64,
    pub manner: Manner,
    /// The last version, and of which installation each one is.
    last: u64,
    of: HashMap<u64, usize>,
    worlds: [World; WORLDS],
    ops: u64,
    plans: HashMap<u64, Plan>,
    done: HashMap<u64, Done>,
}

impl World {
    fn new(now: Instant) -> Self {
        let owner = [Some(0), Some(0), Some(1), None, Some(1), Some(2)];
        let first = |version| vec![Shown { version, since: now, late: false }];
        let mut world = Self {
            versions: [1; CONTACTS],
            cards: [1; CONTACTS],
            said: [[1; 3]; CONTACTS],
            became: [0, 1, 2],
            owner,
            came_after: [0; SOURCES],
            shown: owner.map(|owner| first(u64::from(owner.is_some()))),
            facts_shown: vec![std::array::from_fn(|_| Vec::new()); SOURCES],
            facts_needed: [[0; FACTS]; SOURCES],
            absent_needed: [[0; FACTS]; SOURCES],
            begun_past: 0,
            acknowledged: owner.map(|owner| u64::from(owner.is_some())),
            shows: [0; SOURCES],
            purged: [0; SOURCES],
            unknown: [Unknown::default(); SOURCES],
            merged_past: false,
        };
        world.note(&[]);
        world
    }

    /// What there is to be seen of a source.
    fn facts(&self, source: usize) -> Facts {
        let mut facts = [0; FACTS];
        let Some(contact) = self.owner[source] else { return facts };
        facts[CARD] = self.cards[contact];
        for first in (0..CONTACTS).filter(|first| self.became[*first] == contact && self.versions[contact] > 1) {
            for said in Said::ALL {
                facts[said.of(first)] = self.said[first][said as usize];
            }
        }
        facts
    }

    fn version(&self, source: usize) -> u64 {
        self.owner[source].map_or(0, |contact| self.versions[contact])
    }

    fn sources_of(&self, contact: usize) -> Vec<usize> {
        (0..SOURCES).filter(|source| self.owner[*source] == Some(contact)).collect()
    }

    /// These sources as they are, and of their facts those that are not what they were before.
    fn touched(&self, sources: Vec<usize>, before: &[Facts; SOURCES]) -> Vec<Touched> {
        let shows = |source: usize| {
            let contact = self.owner[source].filter(|contact| self.versions[*contact] > 1);
            let firsts = (0..CONTACTS).filter(|first| contact == Some(self.became[*first]));
            firsts.fold(0, |all, first| all | 1 << first)
        };
        let changed = |source: usize| {
            let now = self.facts(source);
            std::array::from_fn(|fact| if now[fact] == before[source][fact] { 0 } else { now[fact] })
        };
        let touched =
            |source| Touched { source, version: self.version(source), shows: shows(source), facts: changed(source) };
        sources.into_iter().map(touched).collect()
    }

    /// Notes what every list shows by now; of those of `late` it was open until now.
    fn note(&mut self, late: &[usize]) {
        for source in 0..SOURCES {
            let version = self.version(source);
            if self.shown[source].last().is_none_or(|last| last.version != version) {
                let late = late.contains(&source);
                self.shown[source].push(Shown { version, since: Instant::now(), late });
            }
            let facts = self.facts(source);
            for (shown, version) in self.facts_shown[source].iter_mut().zip(facts) {
                if shown.last().is_none_or(|last| last.version != version) {
                    shown.push(Shown { version, since: Instant::now(), late: false });
                }
            }
        }
    }

    fn is_unknown(&self, source: usize) -> bool {
        let Unknown { until, open } = self.unknown[source];
        open > 0 || until.is_some_and(|until| Instant::now() < until)
    }

    fn need(&mut self, Touched { source, version, shows, facts }: Touched) {
        self.acknowledged[source] = self.acknowledged[source].max(version);
        self.shows[source] |= shows;
        self.need_facts(source, &facts, true);
    }

    /// `absent`: of a list that does not have the conversation, too.
    fn need_facts(&mut self, source: usize, facts: &Facts, absent: bool) {
        let raise =
            |all: &mut Facts| all.iter_mut().zip(facts).for_each(|(needed, fact)| *needed = (*needed).max(*fact));
        raise(&mut self.facts_needed[source]);
        if absent {
            raise(&mut self.absent_needed[source]);
        }
    }

    /// Two contacts become one. Two whose lists are empty become one whose list is empty; of others the newer version
    /// stays, so that one of the lists is as it was.
    fn merge(&mut self, from: usize, into: usize) {
        self.versions[into] = self.versions[into].max(self.versions[from]);
        self.cards[into] = self.cards[into].max(self.cards[from]);
        for owner in self.owner.iter_mut().filter(|owner| **owner == Some(from)) {
            *owner = Some(into);
        }
        for became in self.became.iter_mut().filter(|became| **became == from) {
            *became = into;
        }
    }
}

impl Register {
    pub fn new(seed: u64, manner: Manner) -> Self {
        let now = Instant::now();
        let mut register = Self {
            seed,
            manner,
            last: 1,
            of: HashMap::new(),
            worlds: [World::new(now), World::new(now)],
            ops: 0,
            plans: HashMap::new(),
            done: HashMap::new(),
        };
        for (world, contact) in (0..WORLDS).flat_map(|world| (0..CONTACTS).map(move |contact| (world, contact))) {
            if manner.has_begun {
                register.raise(world, contact, What::Opens);
                register.worlds[world].note(&[]);
            }
        }
        register
    }

    /// A write is about to be sent.
    pub fn plan(&mut self, plan: Plan) -> u64 {
        self.ops += 1;
        self.plans.insert(self.ops, plan);
        self.ops
    }

    pub fn planned(&self, op: u64) -> Option<Plan> {
        self.plans.get(&op).copied()
    }

    /// The account-wide id of a contact: no two installations have the same.
    pub fn contact_id(&self, world: usize, contact: usize) -> u64 {
        ((self.seed * WORLDS as u64 + world as u64) * CONTACTS as u64) + contact as u64 + 1
    }

    /// The display id of the conversation that was this contact's at first.
    pub fn display_id(&self, world: usize, contact: usize) -> u64 {
        self.contact_id(world, contact) + 1_000_000_000
    }

    pub fn uuid(&self, world: usize, contact: usize) -> String {
        format!("ab{:06x}-0000-4000-8000-{:012x}", self.seed & 0xff_ffff, self.contact_id(world, contact))
    }

    /// The conversations in the list of a source, by the contacts whose they were at first, and its contact.
    pub fn conversations(&self, world: usize, source: usize) -> Option<(u64, Vec<usize>)> {
        let World { owner, became, .. } = &self.worlds[world];
        let contact = owner[source]?;
        Some((self.contact_id(world, contact), (0..CONTACTS).filter(|first| became[*first] == contact).collect()))
    }

    pub fn shown(&self, world: usize, source: usize) -> u64 {
        self.worlds[world].version(source)
    }

    /// What there is to be seen of a source.
    pub fn facts(&self, world: usize, source: usize) -> Facts {
        self.worlds[world].facts(source)
    }

    /// Which conversation has this display id.
    pub fn first_of(&self, world: usize, display: u64) -> Option<usize> {
        (0..CONTACTS).find(|first| self.display_id(world, *first) == display)
    }

    /// When a fact of a source stopped to show this version.
    pub fn fact_replaced(&self, world: usize, source: usize, fact: usize, version: u64) -> Option<Instant> {
        let shown = &self.worlds[world].facts_shown[source][fact];
        shown.iter().find(|shown| shown.version > version).map(|shown| shown.since)
    }

    /// What a reader of this source must see from here on.
    pub fn needed(&self, world: usize, source: usize) -> Needed {
        let World { acknowledged, purged, facts_needed, absent_needed, .. } = &self.worlds[world];
        let (facts, absent) = (facts_needed[source], absent_needed[source]);
        Needed { acknowledged: acknowledged[source], purged: purged[source], facts, absent }
    }

    /// Whether a list of this installation has ever shown this version.
    pub fn is_of(&self, world: usize, version: u64) -> bool {
        version < 2 || self.of.get(&version) == Some(&world)
    }

    pub fn merged_past(&self, world: usize) -> bool {
        self.worlds[world].merged_past
    }

    /// When a source stopped to show this version, and whether that was by an effect after the proxy had given up.
    pub fn replaced(&self, world: usize, source: usize, version: u64) -> Option<(Instant, bool)> {
        let later = self.worlds[world].shown[source].iter().find(|shown| shown.version > version);
        later.map(|Shown { since, late, .. }| (*since, *late))
    }

    fn raise(&mut self, world: usize, contact: usize, what: What) {
        self.last += 1;
        self.of.insert(self.last, world);
        let world = &mut self.worlds[world];
        world.versions[contact] = self.last;
        match what {
            What::Card => world.cards[contact] = self.last,
            What::Opens => {}
            What::Says(said, first) => world.said[first][said as usize] = self.last,
        }
    }

    /// What a write does, at once; whose it was, or nothing if there is no such thing.
    pub fn effect(&mut self, op: u64, world: usize) -> Option<usize> {
        let Plan { change, late } = self.planned(op)?;
        let (mut own, mut moves, mut created) = (None, false, false);
        let before: [Facts; SOURCES] = std::array::from_fn(|source| self.worlds[world].facts(source));
        let contact = match change {
            Change::Under(source, what) => {
                own = Some(source);
                let World { owner, versions, became, .. } = &self.worlds[world];
                // A conversation is there if it is this contact's.
                let is_there = |contact: &usize| match what {
                    What::Says(_, first) => versions[*contact] > 1 && became[first] == *contact,
                    _ => true,
                };
                owner[source].filter(is_there)?
            }
            Change::Create(source) => {
                (own, moves, created) = (Some(source), true, true);
                let first = self.worlds[world].became[0];
                if late.is_some() && self.worlds[world].owner[source].is_none() {
                    self.worlds[world].came_after[source] = self.ops;
                }
                *self.worlds[world].owner[source].get_or_insert(first)
            }
            Change::Merge { source, .. } => {
                (own, moves) = (Some(source), true);
                self.worlds[world].owner[source]?
            }
            Change::MergeContacts { from, into } => {
                moves = true;
                // By an id that is gone nobody is found.
                let are_there = [from, into].iter().all(|contact| self.worlds[world].became[*contact] == *contact);
                Some(from).filter(|_| are_there)?
            }
            Change::Conversation(_, first) => {
                let contact = self.worlds[world].became[first];
                Some(contact).filter(|contact| self.worlds[world].versions[*contact] > 1)?
            }
            Change::Contact(contact, _) => {
                Some(contact).filter(|contact| self.worlds[world].became[*contact] == *contact)?
            }
        };
        let (contact, raises) = match change {
            Change::Merge { into, .. } | Change::MergeContacts { into, .. } => {
                let into = self.worlds[world].became[into];
                let are_empty = self.worlds[world].versions[into].max(self.worlds[world].versions[contact]) == 1;
                if into != contact {
                    self.worlds[world].merge(contact, into);
                }
                (into, !are_empty && (into == contact || op.is_multiple_of(2)))
            }
            _ => (contact, !created),
        };
        let what = match change {
            Change::Under(_, what) | Change::Contact(_, what) => what,
            Change::Conversation(said, first) => What::Says(said, first),
            Change::Create(_) | Change::Merge { .. } | Change::MergeContacts { .. } => What::Card,
        };
        if raises {
            self.raise(world, contact, what);
        }
        let world_of = &self.worlds[world];
        let sources = match change {
            Change::Create(source) => vec![source],
            // Lists that name nobody show no conversation.
            Change::Conversation(..) => {
                world_of.sources_of(contact).into_iter().filter(|source| !self.manner.is_nameless(*source)).collect()
            }
            _ => world_of.sources_of(contact),
        };
        let touched = world_of.touched(sources, &before);
        // A write that names a conversation reaches the lists that have it.
        let reaches = |one: &&Touched| match change {
            Change::Conversation(_, first) => world_of.shows[one.source] & (1 << first) != 0,
            // Through a source that nobody had when it was sent: whose it would be, nobody could say.
            Change::Under(source, _) => one.source == source || op > world_of.came_after[source],
            _ => true,
        };
        let late: Vec<usize> =
            touched.iter().filter(|_| late.is_some()).filter(reaches).map(|one| one.source).collect();
        self.worlds[world].note(&late);
        if moves && !self.manner.shows_contacts {
            for Touched { source, .. } in &touched {
                self.worlds[world].unknown[*source].open += 1;
            }
        }
        let conversation = if let Change::Conversation(_, first) = change { Some(first) } else { None };
        self.done.insert(op, Done { world, touched, conversation, own, moves });
        Some(contact)
    }

    /// A write was answered: whatever it did before, every later reader of what it touched sees. If nobody could say
    /// whose it was, that holds of its own source alone, and of the others only the bound on age. One that names a
    /// conversation and nothing else reaches the lists of which it was acknowledged that they have it.
    pub fn acknowledge(&mut self, op: u64, attributed: bool) -> Option<Vec<Touched>> {
        let Done { world, touched, conversation, own, moves } = self.done.remove(&op)?;
        let counts_open = moves && !self.manner.shows_contacts;
        let world = &mut self.worlds[world];
        for one in &touched {
            let source = one.source;
            if moves {
                let unknown = &mut world.unknown[source];
                unknown.open -= u32::from(counts_open);
                if !attributed {
                    unknown.until = Some(Instant::now() + FORGOTTEN);
                }
            }
            let is_there = conversation.is_none_or(|first| world.shows[source] & (1 << first) != 0);
            if own == Some(source) || (attributed && is_there && !world.is_unknown(source)) {
                world.need(*one);
            }
            // What is read by the id of a conversation is known to be of it. A list from before it was begun is not, if that
            // was past the proxy.
            if let Some(first) = conversation.filter(|_| attributed && !world.is_unknown(source)) {
                let begun_here = world.begun_past & (1 << first) == 0;
                world.need_facts(source, &one.facts, begun_here || is_there);
            }
        }
        Some(touched)
    }

    /// A change that no request made: its contact, and what it touched.
    pub fn change(&mut self, world: usize, source: usize, is_of_contact: bool) -> Option<(usize, Vec<Touched>)> {
        let contact = self.worlds[world].owner[source]?;
        let before: [Facts; SOURCES] = std::array::from_fn(|source| self.worlds[world].facts(source));
        let what = if is_of_contact { What::Card } else { What::Says(Said::Newest, contact) };
        let World { versions, became, begun_past, .. } = &mut self.worlds[world];
        if versions[contact] == 1 {
            (0..CONTACTS).filter(|first| became[*first] == contact).for_each(|first| *begun_past |= 1 << first);
        }
        self.raise(world, contact, what);
        self.worlds[world].note(&[]);
        let world = &self.worlds[world];
        Some((contact, world.touched(world.sources_of(contact), &before)))
    }

    /// The event of such a change has arrived.
    pub fn heard(&mut self, world: usize, touched: &[Touched]) {
        let world = &mut self.worlds[world];
        for one in touched {
            if !world.is_unknown(one.source) {
                world.need(*one);
            }
        }
    }

    /// Somebody merges two contacts past the proxy, of which nobody tells it.
    pub fn merge_past(&mut self, world: usize, source: usize, into: usize) -> Option<()> {
        let world = &mut self.worlds[world];
        let (from, into) = (world.owner[source]?, world.became[into]);
        world.merge(from, into);
        world.note(&[]);
        world.merged_past = true;
        for source in world.sources_of(into) {
            world.unknown[source].until = Some(Instant::now() + FORGOTTEN);
        }
        Some(())
    }

    /// A source is purged, and all lists of its contact if the proxy had its list.
    pub fn purge(&mut self, world: usize, source: usize, with_siblings: bool) {
        // While contacts are being merged it is open whose its list was.
        let moves = self.done.values().any(|done| done.moves && done.world == world);
        let world = &mut self.worlds[world];
        let siblings = world.owner[source].filter(|_| with_siblings && !moves).map(|contact| world.sources_of(contact));
        let mut all = siblings.unwrap_or_default();
        all.retain(|gone| !world.is_unknown(*gone));
        for gone in all.into_iter().chain([source]) {
            world.purged[gone] = world.purged[gone].max(world.version(gone));
            let facts = world.facts(gone);
            world.need_facts(gone, &facts, true);
        }
    }
}
