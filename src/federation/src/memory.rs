//! How the caches of this crate share the memory that they may take.

/// What they may take where nobody says how much that is, in bytes.
pub const MEMORY: usize = 4 << 20;

/// Roughly what one entry takes, with names of usual length and what the cache itself needs for it, in bytes.
const DELEGATION: usize = 144;
const ROUTE: usize = 320;
const ADDRESSES: usize = 600;
const KEYS: usize = 400;

/// What each may have: so many entries, or so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// To whom names are delegated. Who shares a large room with thousands of servers needs all of these for each message,
    /// and to ask again takes a request.
    pub(crate) delegations: usize,
    /// How hosts are reached. It is looked at again every half minute in any case.
    pub(crate) routes: usize,
    /// The addresses that hosts had, for when no name server answers; and what name servers said, for as long as that counts.
    pub(crate) addresses: usize,
    /// Servers' keys. Those that are forgotten are read from the store again.
    pub(crate) keys: usize,
    /// Answers to questions, in bytes.
    pub(crate) answers: usize,
}

impl Shares {
    /// The shares of so many bytes. More than half is left to the destinations of what is sent, which are no cache: every
    /// server that shares a room is one.
    pub(crate) fn of(bytes: usize) -> Self {
        let part = |sixteenths: usize| bytes / 16 * sixteenths;
        Self {
            delegations: part(3) / DELEGATION,
            routes: part(1) / ROUTE,
            addresses: part(1) / ADDRESSES,
            keys: part(1) / KEYS,
            answers: part(1),
        }
    }

    /// What is left to destinations.
    #[cfg(test)]
    pub(crate) const fn destinations(bytes: usize) -> usize {
        bytes / 16 * 9
    }
}

#[cfg(test)]
mod tests {
    use super::{ADDRESSES, DELEGATION, KEYS, MEMORY, ROUTE, Shares};

    #[test]
    fn everything_full_fits_and_5000_servers_are_found_without_asking_again() {
        for bytes in [2 << 20, MEMORY, 64 << 20] {
            let shares = Shares::of(bytes);
            let full = shares.delegations * DELEGATION
                + shares.routes * ROUTE
                + shares.addresses * ADDRESSES
                + shares.keys * KEYS
                + shares.answers;
            assert!(full + Shares::destinations(bytes) <= bytes);
        }
        assert!(Shares::of(MEMORY).delegations >= 5_000);
    }
}
