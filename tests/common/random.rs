//! Random cases of property tests, by proptest. Unit tests include this file too.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// `count` cases, the same in each run. With `PROPTEST_CASES` set, as many, of a random seed or of
/// `PROPTEST_RNG_SEED`. A failure prints its smallest case, which becomes a test of its own.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => ProptestConfig { cases: count, rng_seed: RngSeed::Fixed(1), ..config },
    }
}
