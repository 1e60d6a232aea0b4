//! The learned token prior: a library rendered into a prompt, under a hard token budget.
//!
//! One line an experience, in id order: the same library gives the same bytes, and an addition leaves the bytes before it,
//! which providers cache. An edit changes its line in place. `docs/adr/0002-prior-as-a-list.md` says why.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use crate::chunk::Weight;
use crate::digest;
use crate::library::{Id, Library};
use crate::tokens::Tokenizer;

/// What goes into the prompt. The same library, heading, budget and batch give the same bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenPrior {
    /// Heading and lines; empty if no experience fits.
    pub text: String,
    /// The living experiences in it, in id order.
    pub ids: Vec<Id>,
    /// The exact token count of the whole text by the library's tokeniser.
    pub tokens: u64,
    /// The SHA-256 digest of the text's UTF-8 bytes.
    pub digest: String,
    /// Character and token of `text` behind which the part begins that was chosen for one batch of questions: all before
    /// it is the same for every batch. The end of the text where nothing was.
    pub stable: (usize, u64),
}

/// The tokens of a line are those of its id and those of the rest: each tokeniser cuts between "]" and a space.
pub(crate) fn head_tokens(tokenizer: Tokenizer, id: Id) -> u64 {
    tokenizer.count(&format!("[{id}]"))
}

/// The tokens of a line behind its id.
pub(crate) fn body_tokens(tokenizer: Tokenizer, text: &str) -> u64 {
    tokenizer.count(&format!(" {text}\n"))
}

/// The tokens of the line of an experience.
pub(crate) fn line_tokens(tokenizer: Tokenizer, id: Id, text: &str) -> u64 {
    head_tokens(tokenizer, id) + body_tokens(tokenizer, text)
}

/// Who comes first when not all fit: the higher credit, then the older. Experiences without credit need no list.
#[derive(Debug)]
pub(crate) struct Ranking {
    above: Vec<Weight>,
    below: Vec<Weight>,
    /// The tokens of the shortest line.
    least: u64,
}

impl Ranking {
    fn new(library: &Library) -> Self {
        let (mut above, mut below, mut least) = (Vec::new(), Vec::new(), u64::MAX);
        for weight in library.chunks.iter().flat_map(|chunk| &chunk.weights) {
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

/// Experiences chosen under a budget.
struct Packing {
    left: u64,
    least: u64,
    tokens: u64,
    chosen: Vec<Id>,
}

impl Packing {
    /// Takes those that fit and that may enter. One that does not fit is passed over, and shorter ones behind it may
    /// still enter.
    fn take<'w>(&mut self, offered: impl Iterator<Item = &'w Weight>, may: impl Fn(Id) -> bool) {
        for weight in offered {
            if self.left < self.least {
                return;
            }
            let tokens = u64::from(weight.tokens);
            if tokens <= self.left && may(weight.id()) {
                self.left -= tokens;
                self.tokens += tokens;
                self.chosen.push(weight.id());
            }
        }
    }
}

impl Library {
    /// Renders the library: every experience if they fit into `budget`, else those that go first. In id order.
    pub fn prior(&self, heading: &str, budget: u64) -> TokenPrior {
        self.prior_with(heading, budget, |_| Vec::new())
    }

    /// As `prior`; where not all experiences fit, half of the budget goes by credit and the rest to those that are
    /// `relevant` to a batch of questions, the most relevant first, in a part of their own behind the others.
    /// `relevant` is asked only then.
    pub fn prior_with(
        &self,
        heading: &str,
        budget: u64,
        relevant: impl FnOnce(&Self) -> Vec<Id>,
    ) -> TokenPrior {
        let mut text = heading.to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        // A line begins with "[" after a newline, where each tokeniser cuts: lines add up to the whole text.
        let head = self.tokenizer.count(&text);
        let Some(room) = budget.checked_sub(head) else { return TokenPrior::empty() };
        if self.tokens() <= room {
            let ids: Vec<Id> = self.entries().map(|entry| entry.id).collect();
            if ids.is_empty() {
                return TokenPrior::empty();
            }
            self.write_lines(&mut text, &ids);
            let stable = (text.chars().count(), head + self.tokens());
            return TokenPrior::new(text, ids, stable.1, stable);
        }
        let (core, rest) = self.pack(room, &relevant(self));
        if core.chosen.is_empty() && rest.chosen.is_empty() {
            return TokenPrior::empty();
        }
        self.write_lines(&mut text, &core.chosen);
        let stable = (text.chars().count(), head + core.tokens);
        self.write_lines(&mut text, &rest.chosen);
        let tokens = stable.1 + rest.tokens;
        let mut ids = core.chosen;
        ids.extend(rest.chosen);
        ids.sort_unstable();
        TokenPrior::new(text, ids, tokens, stable)
    }

    fn write_lines(&self, text: &mut String, ids: &[Id]) {
        let entries = || ids.iter().filter_map(|id| self.get(*id));
        // A line has its text, and around it at most "[E", ten digits, "] " and a newline.
        text.reserve(entries().map(|entry| entry.text.len() + 15).sum());
        for entry in entries() {
            let _ = write!(text, "[{}] ", entry.id); // writing to a String cannot fail
            text.push_str(&entry.text);
            text.push('\n');
        }
    }

    /// Who fills `room` tokens: by credit alone, or by credit and by relevance. Each part in id order.
    fn pack(&self, room: u64, relevant: &[Id]) -> (Packing, Packing) {
        let ranking = self.ranking.get_or_init(|| Arc::new(Ranking::new(self)));
        let zeros = self.chunks.iter().flat_map(|chunk| &chunk.weights).filter(|weight| weight.credit == 0.0);
        let ranked = ranking.above.iter().chain(zeros).chain(&ranking.below);
        let whole = if relevant.is_empty() { room } else { room / 2 };
        let packing = |left| Packing { left, least: ranking.least, tokens: 0, chosen: Vec::new() };
        let mut core = packing(whole);
        core.take(ranked.clone(), |_| true);
        core.chosen.sort_unstable();
        let mut rest = packing(room - core.tokens);
        if !relevant.is_empty() {
            let outside = |id| core.chosen.binary_search(&id).is_err();
            rest.take(relevant.iter().filter_map(|id| self.weight(*id)), outside);
            let taken: BTreeSet<Id> = rest.chosen.iter().copied().collect();
            rest.take(ranked, |id| outside(id) && !taken.contains(&id));
            rest.chosen.sort_unstable();
        }
        (core, rest)
    }

    fn weight(&self, id: Id) -> Option<&Weight> {
        let chunk = self.chunk(id)?;
        chunk.weights.get(chunk.place(id)?)
    }
}

impl TokenPrior {
    fn empty() -> Self {
        Self::new(String::new(), Vec::new(), 0, (0, 0))
    }

    fn new(text: String, ids: Vec<Id>, tokens: u64, stable: (usize, u64)) -> Self {
        Self { digest: digest::hex(text.as_bytes()), text, ids, tokens, stable }
    }
}
