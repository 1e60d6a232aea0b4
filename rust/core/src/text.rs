//! The one form of an experience's text, and when two texts say the same.

use unicode_normalization::UnicodeNormalization;

use crate::error::Error;

/// Marks whose presence at the end of a text does not make it another lesson.
const CLOSING: [char; 11] = ['.', ',', ';', ':', '!', '?', '。', '、', '؟', '،', '۔'];

/// Brings a text into its one form: a single line, runs of white space (newlines included) as one space.
///
/// # Errors
/// Returns the reason, in words, if the text says nothing or holds a control character.
pub fn clean(text: &str) -> Result<String, String> {
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if let Some(control) = line.chars().find(|c| c.is_control()) {
        return Err(format!("the text holds the control character U+{:04X}", u32::from(control)));
    }
    if trimmed(&line).is_empty() && key(&line).is_empty() {
        return Err("the text is empty".to_owned());
    }
    Ok(line)
}

/// What two texts have in common exactly if one is a duplicate of the other.
///
/// Unicode NFKC, lower case, runs of white space as one space, no closing punctuation. Nothing is stripped inside
/// a text: "use C" and "use C++" stay two lessons.
pub fn key(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    if text.is_ascii() {
        // NFKC leaves ASCII as it is.
        fold_into(&mut folded, text.chars().map(|c| c.to_ascii_lowercase()));
    } else {
        fold_into(&mut folded, text.nfkc().flat_map(char::to_lowercase).nfkc());
    }
    folded.truncate(trimmed(&folded).len());
    folded
}

fn fold_into(folded: &mut String, chars: impl Iterator<Item = char>) {
    let mut gap = false;
    for c in chars {
        if c.is_whitespace() {
            gap = !folded.is_empty();
        } else {
            if gap {
                folded.push(' ');
                gap = false;
            }
            folded.push(c);
        }
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_end_matches(|c: char| c == ' ' || CLOSING.contains(&c))
}

/// Texts that lie one after another in `data`: text i from offset i to offset i + 1.
pub fn cut<'a>(data: &'a [u8], offsets: &[u64]) -> Result<Vec<&'a str>, Error> {
    let wrong = |reason: String| Error::Texts(reason);
    offsets
        .windows(2)
        .enumerate()
        .map(|(place, ends)| {
            let at = |end: usize| ends.get(end).and_then(|offset| usize::try_from(*offset).ok());
            let bytes = at(0).zip(at(1)).and_then(|(start, end)| data.get(start..end));
            let bytes = bytes.ok_or_else(|| wrong(format!("text {place} is not inside the data")))?;
            std::str::from_utf8(bytes).map_err(|error| wrong(format!("text {place}: {error}")))
        })
        .collect()
}

/// The words of a folded text: runs of letters, digits and marks that hang on them; a symbol is a word of its own.
///
/// Punctuation that only divides (commas, quotes, brackets, …) is passed over, operators are not: "x < 0" and
/// "x > 0" have different words.
pub fn words(folded: &str) -> impl Iterator<Item = &str> {
    Words { rest: folded }
}

struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let start = self.rest.find(|c: char| !divides(c))?;
        let rest = self.rest.get(start..)?;
        let first = rest.chars().next()?;
        let end = if wordy(first) {
            rest.find(|c: char| !wordy(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (word, after) = rest.split_at_checked(end)?;
        self.rest = after;
        Some(word)
    }
}

fn wordy(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || (!c.is_ascii() && (c.is_alphanumeric() || is_mark(c)))
}

fn is_mark(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c) || c == '\u{200d}' || c == '\u{200c}'
}

fn divides(c: char) -> bool {
    matches!(
        c,
        ' ' | '.'
            | ','
            | ';'
            | ':'
            | '!'
            | '?'
            | '"'
            | '\''
            | '('
            | ')'
            | '['
            | ']'
            | '{'
            | '}'
            | '`'
            | '-'
            | '/'
            | '\u{2010}'..='\u{2027}'
            | '\u{3001}'..='\u{3003}'
            | '\u{3008}'..='\u{3011}'
    ) || c.is_whitespace()
        || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::{clean, key, words};

    #[test]
    fn a_text_becomes_one_line() {
        assert_eq!(
            clean("  When it\r\nrains,\t take\u{2028}cover. "),
            Ok("When it rains, take cover.".into())
        );
    }

    #[test]
    fn nothing_and_control_characters_are_refused() {
        for nothing in ["", " \n ", "...", " ?! "] {
            assert_eq!(clean(nothing), Err("the text is empty".into()));
        }
        assert_eq!(clean("a\0b"), Err("the text holds the control character U+0000".into()));
        assert_eq!(clean("a\u{1b}[31m"), Err("the text holds the control character U+001B".into()));
    }

    #[test]
    fn case_width_spacing_and_closing_marks_make_no_difference() {
        assert_eq!(key("Ｃheck  the ﬁle!"), key("check the file"));
        assert_eq!(key("  Check\tTHE file.. "), "check the file");
        assert_ne!(key("use C"), key("use C++"));
    }

    #[test]
    fn a_word_is_a_run_and_a_symbol_its_own() {
        let found: Vec<&str> = words("if x<0 (or n_1 >= 3.5), don't: café c++").collect();
        assert_eq!(
            found,
            ["if", "x", "<", "0", "or", "n_1", ">", "=", "3", "5", "don", "t", "café", "c", "+", "+"]
        );
    }
}
