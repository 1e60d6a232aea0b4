//! The learned token prior: a library rendered into a prompt, under a hard token budget.

use crate::digest;
use crate::library::{Experience, Id, Library};
use crate::tokens;

/// What goes into the prompt. The same library and budget give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPrior {
    /// Heading and one line an experience; empty if no experience fits.
    pub text: String,
    /// The chosen experiences, in id order.
    pub ids: Vec<Id>,
    /// The exact token count of the whole text.
    pub tokens: u64,
    /// The SHA-256 digest of the text's UTF-8 bytes.
    pub digest: String,
}

/// The line of an experience in a prior.
pub(crate) fn line(id: Id, text: &str) -> String {
    format!("[{id}] {text}\n")
}

impl Library {
    /// Packs the library: all experiences, or those of highest credit (then lowest id) that fit into `budget`.
    ///
    /// An entry that does not fit is passed over, and smaller ones after it may still enter. Chosen entries stand
    /// in id order, so with equal credits an appended experience leaves the bytes before it as they were.
    pub fn prior(&self, heading: &str, budget: u64) -> TokenPrior {
        let mut heading = heading.to_owned();
        if !heading.is_empty() && !heading.ends_with('\n') {
            heading.push('\n');
        }
        let mut ranked: Vec<&Experience> = self.entries().iter().collect();
        ranked.sort_by(|a, b| b.credit.total_cmp(&a.credit).then(a.id.cmp(&b.id)));

        // A line begins with "[" after a newline, where o200k always cuts: lines add up to the whole text.
        let mut spent = tokens::count(&heading);
        let mut chosen: Vec<&Experience> = Vec::new();
        for entry in ranked {
            if spent + entry.tokens <= budget {
                spent += entry.tokens;
                chosen.push(entry);
            }
        }
        chosen.sort_by_key(|entry| entry.id);

        let mut text = if chosen.is_empty() { String::new() } else { heading };
        for entry in &chosen {
            text.push_str(&line(entry.id, &entry.text));
        }
        TokenPrior {
            ids: chosen.iter().map(|entry| entry.id).collect(),
            tokens: tokens::count(&text),
            digest: digest::hex(text.as_bytes()),
            text,
        }
    }
}
