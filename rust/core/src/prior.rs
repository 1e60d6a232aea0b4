//! The learned token prior: a library rendered into a prompt, under a hard token budget.
//!
//! One line an experience, in id order: the same library gives the same bytes, and an addition leaves the bytes before it,
//! which providers cache. An edit changes its line in place. `docs/adr/0002-prior-as-a-list.md` says why.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use crate::digest;
use crate::library::{Experience, Id, Library, Number, Ranking, Weight};

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

/// One line an experience, led by its number.
fn write_lines(text: &mut String, entries: &[&Experience]) {
    // A line has its text, and around it at most "[E", ten digits, "] " and a newline.
    text.reserve(entries.iter().map(|entry| entry.text.len() + 15).sum());
    for entry in entries {
        let _ = write!(text, "[{}] ", entry.id.number()); // writing to a String cannot fail
        text.push_str(&entry.text);
        text.push('\n');
    }
}

/// Experiences chosen under a budget.
#[derive(Default)]
struct Packing {
    left: u64,
    least: u64,
    tokens: u64,
    chosen: Vec<Number>,
}

impl Packing {
    /// Takes those that fit and that may enter. One that does not fit is passed over, and shorter ones behind it may
    /// still enter.
    fn take<'w>(&mut self, offered: impl Iterator<Item = &'w Weight>, may: impl Fn(Number) -> bool) {
        for weight in offered {
            if self.left < self.least {
                return;
            }
            let tokens = u64::from(weight.tokens);
            if tokens <= self.left && may(weight.number) {
                self.left -= tokens;
                self.tokens += tokens;
                self.chosen.push(weight.number);
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
        let (mut entries, tokens, rest) = if self.tokens() <= room {
            (self.entries().collect(), self.tokens(), Packing::default())
        } else {
            let (core, rest) = self.pack(room, &relevant(self));
            (self.named(&core.chosen), core.tokens, rest)
        };
        write_lines(&mut text, &entries);
        let stable = (text.chars().count(), head + tokens);
        let others = self.named(&rest.chosen);
        write_lines(&mut text, &others);
        entries.extend(others);
        if entries.is_empty() {
            return TokenPrior::empty();
        }
        let mut ids: Vec<Id> = entries.iter().map(|entry| entry.id).collect();
        ids.sort_unstable();
        TokenPrior::new(text, ids, stable.1 + rest.tokens, stable)
    }

    /// The experiences with these numbers, all of which live.
    fn named(&self, numbers: &[Number]) -> Vec<&Experience> {
        let entries: Vec<&Experience> = numbers.iter().filter_map(|number| self.get(*number)).collect();
        debug_assert_eq!(entries.len(), numbers.len(), "an experience was chosen that does not live");
        entries
    }

    /// Who fills `room` tokens: by credit alone, or by credit and by relevance. Each part in id order.
    fn pack(&self, room: u64, relevant: &[Id]) -> (Packing, Packing) {
        let ranking = self.ranking.get_or_init(|| Arc::new(Ranking::new(&self.chunks)));
        let zeros = self.chunks.iter().flat_map(|chunk| &chunk.weights).filter(|weight| weight.credit == 0.0);
        let ranked = ranking.above.iter().chain(zeros).chain(&ranking.below);
        let whole = if relevant.is_empty() { room } else { room / 2 };
        let packing = |left| Packing { left, least: ranking.least, tokens: 0, chosen: Vec::new() };
        let mut core = packing(whole);
        core.take(ranked.clone(), |_| true);
        core.chosen.sort_unstable();
        let mut rest = packing(room - core.tokens);
        if !relevant.is_empty() {
            let outside = |number| core.chosen.binary_search(&number).is_err();
            rest.take(relevant.iter().filter_map(|id| self.weight(id.number())), outside);
            let taken: BTreeSet<Number> = rest.chosen.iter().copied().collect();
            rest.take(ranked, |number| outside(number) && !taken.contains(&number));
            rest.chosen.sort_unstable();
        }
        (core, rest)
    }

    fn weight(&self, number: Number) -> Option<&Weight> {
        let chunk = self.chunk(number)?;
        chunk.weights.get(chunk.place(number)?)
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
