//! How many files and connections the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, as the runtimes of Go and Java do: each connection and each open segment is one, and
/// the usual soft limit of 1,024 is a leftover of `select(2)`, which nothing here uses.
pub(super) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, ?limit, "the limit of open files cannot be raised: raise it with ulimit -n");
    }
}
