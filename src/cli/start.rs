//! What the log says when the proxy starts: what runs, and what somebody may not have meant.

use std::net::SocketAddr;

use crate::config::Config;
use crate::engine::build_info::{COMMIT, VERSION};
use crate::engine::descriptors::open_files_limit;
use crate::server::connections::{needed_for, within};
use crate::server::listeners::Addresses;

/// One line of what runs, and one of each thing that is likely a mistake.
pub(super) fn tell(config: &Config, addresses: &Addresses) {
    let admin = addresses.admin;
    let public: Vec<String> = addresses.public.iter().map(ToString::to_string).collect();
    let base = &config.upstream.base;
    tracing::info!(
        version = VERSION,
        commit = COMMIT,
        // Its path is nobody's business who reads logs.
        upstream = format!("{}://{}", base.scheme, base.authority),
        listen = public.join(" "),
        admin = %admin,
        ttl = config.origin.map_or_else(|| format!("{:?}", config.lifetimes.ttl), |_| "origin".to_owned()),
        mode = mode(config),
        "started",
    );
    for warning in warnings(config, admin, open_files_limit()) {
        tracing::warn!("{warning}");
    }
}

/// Who tells of changes.
fn mode(config: &Config) -> &'static str {
    match (config.webhook.are_received(), config.observe_cable) {
        (false, false) => "writes",
        (true, false) => "writes and webhooks",
        (false, true) => "writes and cable",
        (true, true) => "writes, webhooks and cable",
    }
}

fn warnings(config: &Config, admin: SocketAddr, open_files: Option<u64>) -> Vec<String> {
    let mut warnings = Vec::new();
    if !admin.ip().to_canonical().is_loopback() && config.admin.token.is_none() {
        warnings.push(format!(
            "the private listener {admin} can be reached from other machines and there is no admin.token: metrics and \
             settings are open to whoever reaches it; let nobody else, or listen on 127.0.0.1"
        ));
    }
    let limit = config.server.connections;
    let (room, needed) = (within(limit, open_files), needed_for(limit));
    if room < limit {
        warnings.push(format!(
            "{} files may be open (ulimit -n): {room} clients can be connected at once, and not limits.connections = \
             {limit}; allow {needed}, or lower the setting",
            open_files.unwrap_or_default(),
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, SettingsFile, load};

    fn warned(settings: &str, admin: &str, open_files: Option<u64>) -> Vec<String> {
        let flags = Flags { upstream: Some("http://127.0.0.1:3000".into()), ..Flags::default() };
        let none = std::iter::empty::<(String, String)>();
        let config = load(SettingsFile::Text("test.toml".into(), settings.into()), &flags, none).unwrap().config;
        warnings(&config, admin.parse().unwrap(), open_files)
    }

    #[test]
    fn a_private_listener_that_is_open_to_the_world_without_a_token_is_told() {
        for (settings, admin, expected) in [
            ("", "127.0.0.1:9180", 0),
            ("", "[::1]:9180", 0),
            ("", "[::ffff:127.0.0.1]:9180", 0),
            ("", "0.0.0.0:9180", 1),
            ("", "10.0.0.7:9180", 1),
            ("admin.token = 'hush-hush'", "0.0.0.0:9180", 0),
        ] {
            let warned = warned(settings, admin, None);
            assert_eq!(warned.len(), expected, "{admin}: {warned:?}");
            assert!(warned.iter().all(|warning| warning.contains("admin.token")));
        }
    }

    #[test]
    fn too_few_open_files_for_the_limits_set_are_told() {
        let few = "limits.connections = 100";
        assert_eq!(warned(few, "127.0.0.1:1", Some(214)), Vec::<String>::new());
        let warned = warned(few, "127.0.0.1:1", Some(211));
        assert!(warned[0].contains("ulimit -n") && warned[0].contains("allow 214"), "{warned:?}");
    }
}
