//! Command line to exit code.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// What a burst of connections has freed goes back to the system within seconds; glibc's allocator keeps most of it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    anteroom::cli::main()
}
