//! A folded text as tokens: words, numbers, code and the symbols that mean something; other marks are dropped.

use std::borrow::Cow;

use unicode_normalization::char::is_combining_mark;

use super::lists::lists;
use crate::invariant::promised;

/// What a token is: only words have inflections, synonyms and mistypings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Number,
    /// An identifier or another mix of letters, digits and marks: compared exactly.
    Code,
    Symbol,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) kind: Kind,
    /// A comma or another mark that parts clauses stands before it.
    pub(super) comma: bool,
    /// A hyphen joins it to the token before.
    pub(super) joined: bool,
}

/// Reads a text from its start to its end, once.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token<'a>>,
    comma: bool,
    joined: bool,
    /// For each open round bracket, whether it is a symbol.
    round: Vec<bool>,
    /// How many square and curly brackets are open.
    nested: usize,
    /// The token of a "*" run that may open an emphasis, and the run's length.
    emphasis: Option<(usize, usize)>,
    /// Tokens that turned out to be emphasis marks.
    marks: Vec<usize>,
    /// A single quotation mark is open.
    quoted: bool,
}

/// The tokens of a text.
pub(super) fn lex(text: &str) -> Vec<Token<'_>> {
    let mut reader = Reader {
        text,
        at: 0,
        tokens: Vec::with_capacity(text.len() / 5 + 2),
        comma: false,
        joined: false,
        round: Vec::new(),
        nested: 0,
        emphasis: None,
        marks: Vec::new(),
        quoted: false,
    };
    while let Some(c) = reader.peek(0) {
        reader.step(c);
    }
    let Reader { mut tokens, marks, .. } = reader;
    if !marks.is_empty() {
        let mut marks = marks.into_iter().peekable();
        let mut place = 0;
        tokens.retain(|_| {
            let mark = marks.next_if_eq(&place).is_some();
            place += 1;
            !mark
        });
    }
    tokens
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || (!c.is_ascii() && (c.is_alphanumeric() || is_combining_mark(c)))
}

fn hyphen(c: char) -> bool {
    matches!(c, '-' | '\u{2010}' | '\u{2011}' | '\u{2212}')
}

impl<'a> Reader<'a> {
    /// The character that many bytes ahead.
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead..)?.chars().next()
    }

    fn behind(&self) -> Option<char> {
        self.text.get(..self.at)?.chars().next_back()
    }

    fn step(&mut self, c: char) {
        let starts_fraction = c == '.' && self.peek(1).is_some_and(|n| n.is_ascii_digit());
        if in_word(c) || (starts_fraction && !self.behind().is_some_and(in_word)) {
            return self.word();
        }
        let next = self.peek(c.len_utf8());
        let before = self.behind();
        let after_word = before.is_some_and(in_word);
        let before_word = next.is_some_and(in_word);
        match c {
            _ if c.is_whitespace() => self.skip(c),
            '"' | '`' | '“' | '”' | '„' | '«' | '»' | '•' | '\u{200b}' | '\u{feff}' | '\u{fe0f}' => {
                self.skip(c);
            }
            '\'' | '’' | '‘' => {
                let prime = after_word && !self.quoted && self.last_is_short();
                if prime {
                    return self.symbol("'", c.len_utf8());
                }
                self.quoted = !after_word && before_word;
                self.skip(c);
            }
            ',' | ';' | ':' | '、' | '،' if self.nested == 0 => self.pause(c),
            ':' if next == Some(':') => self.symbol("::", 2),
            '.' | '?' | '。' | '؟' | '۔' | '…' => self.pause(c),
            '!' if next == Some('=') => self.symbol("≠", 2),
            '!' if !(before_word || before == Some(')') || (after_word && self.last_is_short())) => {
                self.pause(c);
            }
            '–' | '—' | '―' => {
                let range = before.is_some_and(char::is_numeric) && next.is_some_and(char::is_numeric);
                if range { self.symbol("-", c.len_utf8()) } else { self.pause(c) }
            }
            _ if hyphen(c) => self.hyphen(c, next, before),
            '·' if !self.last_is_short() => self.skip(c),
            '*' => self.star(before),
            '<' if next == Some('=') => self.symbol("≤", 2),
            '>' if next == Some('=') => self.symbol("≥", 2),
            '⁄' => self.symbol("/", c.len_utf8()),
            '(' => {
                let prose = !after_word && self.opens_prose();
                self.round.push(!prose);
                if prose { self.pause(c) } else { self.symbol("(", 1) }
            }
            ')' => {
                if self.round.pop().unwrap_or(false) {
                    self.symbol(")", 1);
                } else {
                    self.pause(c);
                }
            }
            '[' | '{' => {
                self.nested += 1;
                self.symbol(if c == '[' { "[" } else { "{" }, 1);
            }
            ']' | '}' => {
                self.nested = self.nested.saturating_sub(1);
                self.symbol(if c == ']' { "]" } else { "}" }, 1);
            }
            _ => {
                let text = promised(
                    self.text.get(self.at..self.at + c.len_utf8()),
                    "the lexer stands between characters",
                );
                self.symbol(text, c.len_utf8());
            }
        }
    }

    fn skip(&mut self, c: char) {
        self.at += c.len_utf8();
    }

    fn pause(&mut self, c: char) {
        self.skip(c);
        self.comma = true;
    }

    fn push(&mut self, text: Cow<'a, str>, kind: Kind) {
        let (comma, joined) = (std::mem::take(&mut self.comma), std::mem::take(&mut self.joined));
        self.tokens.push(Token { text, kind, comma: comma && !self.tokens.is_empty(), joined });
    }

    fn symbol(&mut self, text: &'a str, bytes: usize) {
        self.at += bytes;
        self.push(Cow::Borrowed(text), Kind::Symbol);
    }

    /// Whether the last token is a number, one letter or a symbol, as in a formula.
    fn last_is_short(&self) -> bool {
        self.tokens.last().is_some_and(|token| match token.kind {
            Kind::Number | Kind::Symbol => true,
            Kind::Word | Kind::Code => token.text.chars().nth(1).is_none(),
        })
    }

    /// Whether what comes after that many bytes is a number or one letter, as in a formula.
    fn next_is_short(&self, ahead: usize) -> bool {
        let rest =
            promised(self.text.get(self.at + ahead..), "the lexer stands between characters").trim_start();
        let mut chars = rest.chars();
        chars.next().is_some_and(|c| c.is_numeric() || c == '(' || !chars.next().is_some_and(in_word))
    }

    /// Whether a bracket opened here holds words and no formula: it begins with a word of more than one letter, or "e.g.".
    fn opens_prose(&self) -> bool {
        let mut chars = promised(self.text.get(self.at + 1..), "the lexer stands between characters").chars();
        let letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
        letter(chars.next())
            && matches!(chars.next(), Some(c) if c.is_alphabetic() || (c == '.' && letter(chars.next())))
    }

    fn hyphen(&mut self, c: char, next: Option<char>, before: Option<char>) {
        let bytes = c.len_utf8();
        if c == '\u{2212}' {
            return self.symbol("-", bytes); // a minus sign is never a dash
        }
        if next == Some('>') {
            return self.symbol("→", bytes + 1);
        }
        let after_word = before.is_some_and(|b| in_word(b) || b == ')' || b == ']');
        if next == Some('-') {
            let run = promised(self.text.get(self.at..), "the lexer stands between characters")
                .bytes()
                .take_while(|b| *b == b'-')
                .count();
            let flag = !after_word && self.peek(run).is_some_and(in_word);
            if (flag || (after_word && self.last_is_short())) && run == 2 {
                return self.symbol("--", run);
            }
            self.at += run;
            self.comma = true;
            return;
        }
        let before_word = next.is_some_and(in_word);
        match (after_word, before_word) {
            (true, true) => {
                if self.last_is_short() && self.next_is_short(bytes) {
                    self.symbol("-", bytes);
                } else {
                    self.at += bytes;
                    self.joined = true;
                }
            }
            // A sign, a flag or a minus: "-5", "-v", "(-x".
            (false, true) => self.symbol("-", bytes),
            _ if (self.last_is_short() && self.next_is_short(bytes)) || next == Some('(') => {
                self.symbol("-", bytes);
            }
            _ => self.pause(c),
        }
    }

    /// A run of stars is an emphasis if it opens before and closes after a word, and a symbol otherwise.
    fn star(&mut self, before: Option<char>) {
        let run = promised(self.text.get(self.at..), "the lexer stands between characters")
            .bytes()
            .take_while(|b| *b == b'*')
            .count();
        let touches_left = before.is_some_and(|b| !b.is_whitespace() && b != '(');
        let touches_right = self.peek(run).is_some_and(|n| !n.is_whitespace());
        if !touches_right && !touches_left && self.tokens.is_empty() {
            self.at += run; // a bullet
            return;
        }
        let place = self.tokens.len();
        let comma = self.comma;
        let text = promised(self.text.get(self.at..self.at + run), "the lexer stands between characters");
        self.symbol(text, run);
        match self.emphasis {
            Some((open, length)) if length == run && touches_left && !self.peek(0).is_some_and(in_word) => {
                self.marks.extend([open, place]);
                self.emphasis = None;
                self.comma = comma;
            }
            _ if touches_right && !touches_left => {
                self.emphasis = Some((place, run));
                self.comma = comma;
            }
            _ => {}
        }
    }

    /// A word, number or piece of code, from here to its end.
    fn word(&mut self) {
        let start = self.at;
        let (mut letters, mut digits, mut inner) = (false, false, false);
        let mut last = ' ';
        while let Some(c) = self.peek(0) {
            if in_word(c) {
                digits |= c.is_numeric();
                letters |= !c.is_numeric();
                inner |= c == '_';
            } else {
                let next = self.peek(c.len_utf8());
                let digit_follows = next.is_some_and(|n| n.is_ascii_digit());
                let joins = match c {
                    '\'' | '’' => last.is_alphabetic() && next.is_some_and(char::is_alphabetic),
                    '.' => next.is_some_and(in_word),
                    ',' => !letters && last.is_ascii_digit() && digit_follows && self.nested == 0,
                    ':' => !letters && last.is_ascii_digit() && digit_follows,
                    '-' | '+' => {
                        // 1e-5
                        let number =
                            promised(self.text.get(start..self.at), "the lexer stands between characters");
                        let mantissa = number.strip_suffix('e').unwrap_or("x");
                        digit_follows
                            && mantissa.ends_with(|d: char| d.is_ascii_digit())
                            && mantissa.bytes().all(|b| b.is_ascii_digit() || b == b'.')
                    }
                    _ => false,
                };
                if !joins {
                    break;
                }
                inner |= matches!(c, '.' | '-' | '+') && (letters || !digit_follows);
            }
            last = c;
            self.at += c.len_utf8();
        }
        // "c++", "c#", "f#": marks that belong to a name.
        let rest = promised(self.text.get(self.at..), "the lexer stands between characters");
        let marks = rest.bytes().take_while(|b| matches!(b, b'+' | b'#')).count();
        if marks > 0
            && letters
            && !digits
            && !self.peek(marks).is_some_and(|n| in_word(n) || n == '=' || n == '(')
        {
            self.at += marks;
            inner = true;
        }
        let text = promised(self.text.get(start..self.at), "the lexer stands between characters");
        if letters && !digits && !inner {
            let text =
                if text.contains('’') { Cow::Owned(text.replace('’', "'")) } else { Cow::Borrowed(text) };
            self.push(text, Kind::Word);
        } else if !inner && text.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            self.number(text);
        } else if !letters && !inner {
            self.push(Cow::Borrowed(text), Kind::Number);
        } else {
            self.push(Cow::Borrowed(text), Kind::Code);
        }
    }

    /// A number with what is stuck to it: "10ms" is "10 ms", "2nd" is "second", "1,000" is "1000".
    fn number(&mut self, text: &'a str) {
        let end =
            text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ',' | ':')).unwrap_or(text.len());
        let Some((number, unit)) = text.split_at_checked(end) else { return };
        if !unit.chars().all(char::is_alphabetic) {
            return self.push(Cow::Borrowed(text), Kind::Code);
        }
        if matches!(unit, "st" | "nd" | "rd" | "th") {
            let place = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            return match place.and_then(|n| lists().ordinals.get(n)) {
                Some(ordinal) => self.push(Cow::Borrowed(ordinal), Kind::Word),
                None => self.push(Cow::Borrowed(text), Kind::Code),
            };
        }
        let mut groups = number.split(',');
        let whole = promised(groups.next(), "a split has a first part");
        let thousands = number.contains(',')
            && (1..=3).contains(&whole.len())
            && groups.all(|group| group.split('.').next().is_some_and(|g| g.len() == 3));
        let number = match number {
            _ if thousands => Cow::Owned(number.replace(',', "")),
            _ if number.starts_with('.') => Cow::Owned(format!("0{number}")),
            _ => Cow::Borrowed(number),
        };
        self.push(number, Kind::Number);
        if !unit.is_empty() {
            self.push(Cow::Borrowed(unit), Kind::Word);
        }
    }
}
