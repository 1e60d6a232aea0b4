//! The learned token prior: a library rendered into a prompt, under a hard token budget.
//!
//! Providers cache the prefix of a prompt, so what was written stays where it is: the prior is a log. Since the last
//! compaction an edit appends a line and a withdrawal another one. The log is derived from the experiences' own
//! history; the same library gives the same bytes.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use crate::chunk::Weight;
use crate::digest;
use crate::library::{Experience, Id, Library};
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

/// The share of a log that may be superseded before it is compacted. Dead lines cost tokens in every prompt, a compaction
/// one reading of the whole prior that no cache serves: a fifth is where the bill is lowest for prompts in waves (see
/// `docs/design/core.md`).
const DEAD_SHARE: f64 = 0.2;

/// One line of the log.
#[derive(Debug, Clone, Copy)]
struct LogLine<'a> {
    version: u64,
    id: Id,
    text: &'a str,
    kind: Kind,
    /// Its tokens where they are known.
    counted: Option<u64>,
    /// Whether it is what the library says now.
    living: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Said,
    Revised,
    Withdrawn,
}

impl LogLine<'_> {
    fn write(&self, log: &mut String) {
        let Self { id, text, .. } = self;
        // Writing to a String cannot fail.
        let _ = match self.kind {
            Kind::Said => writeln!(log, "[{id}] {text}"),
            Kind::Revised => writeln!(log, "[{id}] (revised) {text}"),
            Kind::Withdrawn => writeln!(log, "[{id}] (withdrawn: follow it no longer)"),
        };
    }

    fn tokens(&self, tokenizer: Tokenizer) -> u64 {
        self.counted.unwrap_or_else(|| {
            let mut text = String::new();
            self.write(&mut text);
            tokenizer.count(&text)
        })
    }
}

/// The lines that an experience has in a log compacted at `compacted`.
fn lines_of(
    entry: &Experience,
    compacted: u64,
    withdrawn: Option<u64>,
) -> impl Iterator<Item = LogLine<'_>> + '_ {
    let id = entry.id;
    let base = entry.history.iter().rposition(|revision| revision.version <= compacted);
    let first = base.unwrap_or(0);
    let last = entry.history.len().saturating_sub(1);
    let said = entry.history.iter().enumerate().skip(first).map(move |(place, revision)| {
        let kind = if place == first { Kind::Said } else { Kind::Revised };
        let living = place == last && withdrawn.is_none();
        LogLine {
            version: revision.version.max(compacted),
            id,
            text: &revision.text,
            kind,
            counted: (living && kind == Kind::Said).then_some(entry.tokens),
            living,
        }
    });
    let gone = withdrawn.map(|version| LogLine {
        version,
        id,
        text: "",
        kind: Kind::Withdrawn,
        counted: None,
        living: false,
    });
    said.chain(gone)
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
    /// Renders the library: its log if that fits into `budget`, else the experiences that go first, in id order.
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
        if let Some((log, tokens)) = self.log_within(room) {
            if log.is_empty() {
                return TokenPrior::empty();
            }
            for line in log {
                line.write(&mut text);
            }
            let stable = (text.chars().count(), head + tokens);
            let ids = self.entries().map(|entry| entry.id).collect();
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

    /// The log and its tokens, if there are at most `room` of them.
    fn log_within(&self, room: u64) -> Option<(Vec<LogLine<'_>>, u64)> {
        if self.tokens() + self.dead > room {
            return None;
        }
        let log = self.log();
        let tokens = log.iter().map(|line| line.tokens(self.tokenizer)).sum();
        (tokens <= room).then_some((log, tokens))
    }

    /// Every line since the last compaction, as it happened.
    fn log(&self) -> Vec<LogLine<'_>> {
        let living = self.entries().flat_map(|entry| lines_of(entry, self.compacted, None));
        let retired = self
            .retired
            .iter()
            .flat_map(|gone| lines_of(&gone.experience, self.compacted, Some(gone.version)));
        let mut log: Vec<LogLine<'_>> = living.chain(retired).collect();
        log.sort_by_key(|line| (line.version, line.id));
        log
    }

    /// The tokens of the log's lines that say nothing any more. What `apply` keeps up to date.
    pub(crate) fn count_dead(&self) -> u64 {
        self.log().iter().filter(|line| !line.living).map(|line| line.tokens(self.tokenizer)).sum()
    }

    /// Tokens of the lines that `entry` leaves dead in the log when it is revised or withdrawn.
    pub(crate) fn superseded(&self, entry: &Experience) -> u64 {
        lines_of(entry, self.compacted, None).last().map_or(0, |line| line.tokens(self.tokenizer))
    }

    /// Tokens of the line that withdraws `id`.
    pub(crate) fn withdrawal(&self, id: Id) -> u64 {
        let line = LogLine { version: 0, id, text: "", kind: Kind::Withdrawn, counted: None, living: false };
        line.tokens(self.tokenizer)
    }

    /// Whether so much of the log is dead that it should be written anew.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn wants_compaction(&self) -> bool {
        self.dead as f64 > DEAD_SHARE * (self.tokens() + self.dead) as f64
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
