//! Promises, each held by a module, over real sockets.

mod ledger;
