//! The open connections to the upstream, so that none is used again that is too old or leads where the upstream is not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper_util::client::legacy::connect::{CaptureConnection, Connected};

use crate::engine::clock;
use crate::policy::addresses::Target;

/// How often the old ones are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What is known of a connection as long as anybody holds it.
#[derive(Debug)]
pub(super) struct Opened {
    at: Instant,
    target: Target,
    gone: AtomicBool,
    retired: AtomicBool,
}

impl Opened {
    /// Now.
    pub(super) fn new(target: Target) -> Self {
        let [gone, retired] = [const { AtomicBool::new(false) }; 2];
        Self { at: clock::now(), target, gone, retired }
    }

    /// It has ended.
    pub(super) fn end(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Whether it carries no further request.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

/// All that have carried a request.
pub(super) struct Connections {
    max_age: Duration,
    open: Mutex<Open>,
}

struct Open {
    swept: Instant,
    /// By the place in memory of what is known of each.
    by_place: HashMap<usize, (Arc<Opened>, Option<CaptureConnection>)>,
}

impl Connections {
    /// None, and how old they may become.
    pub(super) fn new(max_age: Duration) -> Self {
        Self { max_age, open: Mutex::new(Open { swept: clock::now(), by_place: HashMap::new() }) }
    }

    /// This one carries a request.
    pub(super) fn note(&self, connection: &CaptureConnection) {
        let Some(opened) = opened_of(connection.connection_metadata().as_ref()) else { return };
        let place = Arc::as_ptr(&opened) as usize;
        self.lock().by_place.entry(place).or_insert_with(|| (opened, Some(connection.clone())));
    }

    /// This one will, of our own pool, which asks whether it may.
    pub(super) fn note_own(&self, opened: &Arc<Opened>) {
        self.lock().by_place.insert(Arc::as_ptr(opened) as usize, (opened.clone(), None));
    }

    /// Those that are too old carry no further request.
    pub(super) fn sweep(&self, now: Instant) {
        let mut open = self.lock();
        if now.saturating_duration_since(open.swept) < SWEEP_EVERY {
            return;
        }
        open.swept = now;
        open.retire(|opened| now.saturating_duration_since(opened.at) >= self.max_age);
    }

    /// The upstream is no longer at these addresses.
    pub(super) fn leave(&self, targets: &[Target]) {
        self.lock().retire(|opened| targets.contains(&opened.target));
    }

    /// Held briefly; a panic while it is held leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn retire(&mut self, is_to_end: impl Fn(&Opened) -> bool) {
        self.by_place.retain(|_, (opened, connection)| {
            let ends = is_to_end(opened);
            if ends {
                opened.retired.store(true, Ordering::Release);
                if let Some(connection) = connection
                    && let Some(connected) = connection.connection_metadata().as_ref()
                {
                    connected.poison();
                }
            }
            !ends && !opened.is_gone()
        });
    }
}

fn opened_of(connection: Option<&Connected>) -> Option<Arc<Opened>> {
    let mut extras = http::Extensions::new();
    connection?.get_extras(&mut extras);
    extras.remove::<Arc<Opened>>()
}
