//! Tokens in their normal form: contractions written out, number words as digits, known phrases as one token.

use std::borrow::Cow;

use super::lex::{Kind, Token};
use super::table::{Entry, PHRASE, table};
use crate::invariant::promised;

/// A token with what the lists say of it.
#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
    pub(super) token: Token<'a>,
    pub(super) entry: Option<&'static Entry>,
}

impl Item<'_> {
    pub(super) fn same(&self, other: &Self) -> bool {
        self.token.kind == other.token.kind && self.token.text == other.token.text
    }

    pub(super) fn is(&self, flag: fn(&Entry) -> bool) -> bool {
        self.entry.is_some_and(flag)
    }
}

/// The normal form of a stretch of tokens.
pub(super) fn normalised<'a>(tokens: &[Token<'a>]) -> Vec<Item<'a>> {
    let mut items: Vec<Item<'a>> = Vec::with_capacity(tokens.len() + 4);
    for token in tokens {
        if token.kind == Kind::Word && token.text.is_ascii() {
            word(token, &mut items);
        } else {
            push(token.clone(), &mut items);
        }
    }
    if items.iter().any(|item| item.is(|e| !e.opens.is_empty())) { with_phrases(items) } else { items }
}

fn push<'a>(token: Token<'a>, items: &mut Vec<Item<'a>>) {
    let entry = match token.kind {
        Kind::Number => None,
        _ => table().get(&token.text),
    };
    items.push(Item { token, entry });
}

/// One word: itself, or the words that a contraction stands for, or a number.
fn word<'a>(token: &Token<'a>, items: &mut Vec<Item<'a>>) {
    let text: &str = &token.text;
    let mut both = |first: &str, second: &'static str| {
        push(Token { text: Cow::Owned(first.to_owned()), ..token.clone() }, items);
        push(Token { text: Cow::Borrowed(second), kind: Kind::Word, comma: false, joined: false }, items);
    };
    if let Some((stem, ending)) = text.split_once('\'') {
        let be = ["it", "that", "there", "what", "here", "he", "she", "who", "where"];
        match ending {
            "t" => match stem.strip_suffix('n') {
                Some("ca") => return both("can", "not"),
                Some("wo") => return both("will", "not"),
                Some("sha") => return both("shall", "not"),
                Some(stem) if !stem.is_empty() => return both(stem, "not"),
                _ => {}
            },
            "re" => return both(stem, "are"),
            "ll" => return both(stem, "will"),
            "ve" => return both(stem, "have"),
            "m" => return both(stem, "am"),
            "s" if be.contains(&stem) => return both(stem, "is"),
            _ => {}
        }
    }
    let entry = table().get(text);
    if let Some(verb) = entry.and_then(|e| e.contracted) {
        return both(verb, "not");
    }
    let power = match text {
        "hundred" => Some(100),
        "thousand" => Some(1000),
        "million" => Some(1_000_000),
        _ => None,
    };
    if let Some(power) = power
        && let Some(last) = items.last_mut().filter(|last| last.token.kind == Kind::Number && !token.comma)
        && let Some(value) = last.token.text.parse::<u64>().ok().and_then(|n| n.checked_mul(power))
    {
        last.token.text = Cow::Owned(value.to_string());
        return;
    }
    if let Some(value) = entry.and_then(|e| e.number) {
        // "twenty-one" is 21, "twenty 1" is not: both must be words, of which the tens keep their mark.
        if let Some(last) =
            items.last_mut().filter(|last| tens(last) && (1..10).contains(&value) && !token.comma)
            && let Ok(before) = last.token.text.parse::<u64>()
        {
            last.token.text = Cow::Owned((before + value).to_string());
            return;
        }
        let number = Token { text: Cow::Owned(value.to_string()), kind: Kind::Number, ..token.clone() };
        items.push(Item { token: number, entry: None });
        return;
    }
    items.push(Item { token: token.clone(), entry });
}

/// Whether an item came from "twenty", "thirty" ...: an owned number; those read from digits are borrowed.
fn tens(item: &Item<'_>) -> bool {
    item.token.kind == Kind::Number
        && matches!(item.token.text, Cow::Owned(_))
        && item.token.text.len() == 2
        && item.token.text.ends_with('0')
        && item.token.text != "10"
}

/// Puts known phrases together, the longest first.
fn with_phrases(items: Vec<Item<'_>>) -> Vec<Item<'_>> {
    let mut made = Vec::with_capacity(items.len());
    let mut rest = items.into_iter();
    loop {
        let (text, entry, length) = phrase_at(rest.as_slice());
        let Some(first) = rest.next() else { return made };
        if length == 0 {
            made.push(first);
        } else {
            let token = Token { text: Cow::Owned(text), kind: Kind::Word, ..first.token };
            made.push(Item { token, entry });
            rest.by_ref().take(length - 1).for_each(drop);
        }
    }
}

/// The longest phrase that the items begin with, what the lists say of it, and its words' number: 0 if there is none.
fn phrase_at(items: &[Item<'_>]) -> (String, Option<&'static Entry>, usize) {
    let seconds = items.first().and_then(|first| first.entry).map(|e| e.opens.as_slice()).unwrap_or_default();
    let second = items.get(1).map(|item| item.token.text.as_ref()).unwrap_or_default();
    if seconds.iter().any(|known| known == second) {
        for length in (2..=PHRASE.min(items.len())).rev() {
            let words = promised(items.get(..length), "a phrase is no longer than the text");
            if words.iter().skip(1).any(|word| word.token.comma) {
                continue;
            }
            let texts: Vec<&str> = words.iter().map(|word| word.token.text.as_ref()).collect();
            let text = texts.join(" ");
            let entry = table().get(&text);
            if entry.is_some() {
                return (text, entry, length);
            }
        }
    }
    (String::new(), None, 0)
}
