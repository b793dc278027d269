//! Numbers, positions and the contracts for time and chance that every other crate speaks in.
//!
//! Is: identifiers of the server's own making, `Pos`, and the traits through which time and randomness enter.
//! Is not: any I/O beyond reading the system's clock and random source; knows no event, no table, no HTTP.

mod clock;
mod numbers;
mod random;

pub use clock::{Clock, Millis, MockClock, SystemClock};
pub use numbers::{EventNum, Pos, RoomNum, StateKeyNum, UserNum};
pub use random::{Random, SeededRandom, SystemRandom, random_string};
