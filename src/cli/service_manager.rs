//! What systemd is told (`sd_notify(3)`), if it wants to know; without it nothing happens.

use std::time::Duration;

use sd_notify::{NotifyState, notify};

/// The program serves. From now on systemd's watchdog, if there is one, hears that its runtime is alive.
pub(super) fn ready() {
    tell(NotifyState::Ready);
    if let Some(patience) = sd_notify::watchdog_enabled().filter(|patience| *patience > Duration::ZERO) {
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(patience / 2);
            loop {
                ticks.tick().await;
                tell(NotifyState::Watchdog);
            }
        });
    }
}

/// Another process has taken over. It has the whole of the watchdog's patience until its own word counts.
pub(super) fn main_process_is(id: u32) {
    tell(NotifyState::Watchdog);
    tell(NotifyState::MainPid(id));
}

/// The drain has begun.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = notify(&[state]) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
