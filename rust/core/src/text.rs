//! The one form of an experience's text, and when two texts say the same.

use unicode_normalization::UnicodeNormalization;

/// Marks whose presence at the end of a text does not make it another lesson.
const CLOSING: [char; 11] = ['.', ',', ';', ':', '!', '?', '。', '、', '؟', '،', '۔'];

/// Brings a text into its one form: a single line, runs of white space (newlines included) as one space.
///
/// # Errors
/// Returns the reason, in words, if the text says nothing or holds a control character.
pub fn clean(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    if let Some(control) = line.chars().find(|c| c.is_control()) {
        return Err(format!("the text holds the control character U+{:04X}", u32::from(control)));
    }
    if key(&line).is_empty() {
        return Err("the text is empty".to_owned());
    }
    Ok(line)
}

/// What two texts have in common exactly if one is a duplicate of the other.
///
/// Unicode NFKC, lower case, runs of white space as one space, no closing punctuation. Nothing is stripped inside
/// a text: "use C" and "use C++" stay two lessons.
pub fn key(text: &str) -> String {
    let folded: String = text.nfkc().flat_map(char::to_lowercase).nfkc().collect();
    let words: Vec<&str> = folded.split_whitespace().collect();
    words.join(" ").trim_end_matches(|c: char| c == ' ' || CLOSING.contains(&c)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::{clean, key};

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
        assert_ne!(key("use C"), key("use C++"));
    }
}
