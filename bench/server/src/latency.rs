//! How long a call takes: decided by its hash alone, so the same call takes the same time in every engine.

use crate::settings::Latency;

/// Seconds.
pub fn seconds(latency: &Latency, hash: u64) -> f64 {
    if latency.sigma == 0.0 && latency.straggler_share == 0.0 {
        return latency.seconds;
    }
    let mut state = hash ^ latency.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (a, b, c) = (uniform(&mut state), uniform(&mut state), uniform(&mut state));
    // Box-Muller; 1 - a is never 0.
    let normal = (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    let drawn = latency.seconds * (latency.sigma * normal).exp();
    if c < latency.straggler_share { drawn * latency.straggler_factor } else { drawn }
}

/// In [0, 1); the generator is SplitMix64.
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_what_was_asked_for() {
        let latency =
            Latency { seconds: 2.0, sigma: 1.0, straggler_share: 0.02, straggler_factor: 20.0, seed: 1 };
        let mut drawn: Vec<f64> = (0..100_000).map(|hash| seconds(&latency, hash)).collect();
        drawn.sort_by(f64::total_cmp);
        assert!((drawn[50_000] / 2.0 - 1.0).abs() < 0.05, "{}", drawn[50_000]);
        let mean = drawn.iter().sum::<f64>() / 1e5;
        // exp(1/2) and the stragglers' share.
        assert!((mean / (2.0 * 1.6487 * 1.38) - 1.0).abs() < 0.05, "{mean}");
        assert_eq!(seconds(&latency, 7), seconds(&latency, 7));
    }
}
