//! How many files and connections this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The limit (`ulimit -n`), where the system tells it: on Linux.
pub fn open_files_limit() -> Option<u64> {
    limit_in(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

/// Raises the limit to the one that the system allows (`ulimit -Hn`): the lower one is for programs of the past.
pub fn raise_open_files_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Where that is forbidden the limit stays, and is reckoned with.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// The soft limit; `unlimited` is none.
fn limit_in(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             63453                63453                processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(limit_in(limits), Some(1024));
        assert_eq!(limit_in(&limits.replace("1024 ", "unlimited ")), None);
        assert_eq!(limit_in(""), None);
    }
}
