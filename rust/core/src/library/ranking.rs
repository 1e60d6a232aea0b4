//! The order in which experiences enter a prior that cannot hold all.

use std::sync::Arc;

use super::chunk::{Chunk, Weight};

/// Who comes first when not all fit: the higher credit, then the older. Experiences without credit need no list.
#[derive(Debug)]
pub(crate) struct Ranking {
    pub above: Vec<Weight>,
    pub below: Vec<Weight>,
    /// The tokens of the shortest line.
    pub least: u64,
}

impl Ranking {
    pub fn new(chunks: &[Arc<Chunk>]) -> Self {
        let (mut above, mut below, mut least) = (Vec::new(), Vec::new(), u64::MAX);
        for weight in chunks.iter().flat_map(|chunk| &chunk.weights) {
            least = least.min(weight.tokens.into());
            if weight.credit > 0.0 {
                above.push(*weight);
            } else if weight.credit < 0.0 {
                below.push(*weight);
            }
        }
        let order = |a: &Weight, b: &Weight| b.credit.total_cmp(&a.credit).then(a.number.cmp(&b.number));
        above.sort_by(order);
        below.sort_by(order);
        Self { above, below, least }
    }
}
