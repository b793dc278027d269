//! Chance as a parameter: the system's random source for the server, a seeded one for tests.

use parking_lot::Mutex;
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom as RingRandom},
};

/// Where a part of the server gets unpredictable bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills `target` with random bytes.
    fn fill(&self, target: &mut [u8]);
}

/// The operating system's random source.
#[derive(Clone, Debug)]
pub struct SystemRandom(RingRandom);

impl SystemRandom {
    /// The system's source.
    #[expect(clippy::disallowed_methods, reason = "the one place that may ask")]
    pub fn new() -> Self {
        Self(RingRandom::new())
    }
}

impl Default for SystemRandom {
    fn default() -> Self {
        Self::new()
    }
}

impl Random for SystemRandom {
    fn fill(&self, target: &mut [u8]) {
        self.0.fill(target).expect(
            "the operating system's random source works, or no secret of ours would be one",
        );
    }
}

/// A source whose bytes follow from its seed, for tests.
#[derive(Debug)]
pub struct SeededRandom(Mutex<([u8; 32], u64)>);

impl SeededRandom {
    /// The source that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut state = [0; 32];
        state[..8].copy_from_slice(&seed.to_be_bytes());
        Self(Mutex::new((state, 0)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, target: &mut [u8]) {
        let mut guard = self.0.lock();
        for chunk in target.chunks_mut(32) {
            guard.1 += 1;
            let mut input = [0; 40];
            input[..32].copy_from_slice(&guard.0);
            input[32..].copy_from_slice(&guard.1.to_be_bytes());
            let block = digest::digest(&digest::SHA256, &input);
            chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
        }
    }
}

/// A random string of `length` ASCII letters and digits; about 5.95 bits of entropy a character.
pub fn random_string(random: &dyn Random, length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut out = String::with_capacity(length);
    let mut pool = [0; 64];
    while out.len() < length {
        random.fill(&mut pool);
        // Bytes of 248 and more are thrown away, so that every character is equally likely.
        for byte in pool.iter().filter(|byte| **byte < 248) {
            if out.len() == length {
                break;
            }
            out.push(char::from(ALPHABET[usize::from(byte % 62)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Random, SeededRandom, random_string};

    #[test]
    fn strings_have_the_length_asked_for_and_differ() {
        let random = SeededRandom::new(7);
        let (first, second) = (random_string(&random, 43), random_string(&random, 43));
        assert_eq!(first.len(), 43);
        assert_ne!(first, second);
    }

    #[test]
    fn equal_seeds_give_equal_bytes() {
        let (mut first, mut second) = ([0; 70], [0; 70]);
        SeededRandom::new(1).fill(&mut first);
        SeededRandom::new(1).fill(&mut second);
        assert_eq!(first, second);
    }
}
