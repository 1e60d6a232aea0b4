//! The identity of an experience: a number in its library and a tag of its origin.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Netstrings;

/// Numbers of a chunk: those that agree in all but the lowest eight bits.
const SPAN: u32 = 256;

/// The number of an experience in its library, written "E7": given in order, never given again.
///
/// Prompts show it alone. It names an experience within one library only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(u32);

impl Number {
    /// This number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// As an integer.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number of the chunk that it is in.
    pub(super) fn chunk(self) -> u64 {
        u64::from(self.0 / SPAN)
    }

    /// Its place in a chunk that holds every number.
    pub(super) fn place(self) -> usize {
        (self.0 % SPAN) as usize
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "E{}", self.0)
    }
}

/// The identity of an experience, written "E7-1f0c66ba": the same for the same origin, in any library.
///
/// The tag behind the number is made of the experience's origin, so libraries that learned different lessons share no id.
/// Ids from files of `format_version` 2 have no tag and stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id {
    number: Number,
    tag: Option<u32>,
}

impl Id {
    /// The id of an experience with this origin: its first text, the groups that it rests on, the experiences that it was
    /// made from, and the version in which it appeared.
    pub fn of(number: Number, text: &str, sources: &[String], parents: &[Self], created: u64) -> Self {
        let mut origin = Netstrings::default();
        origin.count(number.0.into());
        origin.put(text);
        origin.list(sources);
        origin.list(&parents.iter().map(ToString::to_string).collect::<Vec<_>>());
        origin.count(created);
        let [a, b, c, d, ..] = origin.sum();
        Self { number, tag: Some(u32::from_be_bytes([a, b, c, d])) }
    }

    /// Its number.
    pub const fn number(self) -> Number {
        self.number
    }

    /// Whether somebody who says `name` means this id: all of it, or its number alone.
    pub(crate) fn is_called(self, name: Self) -> bool {
        self.number == name.number && (name.tag.is_none() || name.tag == self.tag)
    }

    /// Reads "E7" or "E7-1f0c66ba". Anything else ("e7", "E07", "[E7]", "E7-1F0C66BA") is no id.
    pub fn parse(text: &str) -> Option<Self> {
        let body = text.strip_prefix('E')?;
        let (number, tag) = body.split_once('-').map_or((body, None), |(number, tag)| (number, Some(tag)));
        let number = Number(number.parse().ok()?);
        let tag = match tag {
            Some(tag) => Some(u32::from_str_radix(tag, 16).ok()?),
            None => None,
        };
        let id = Self { number, tag };
        (number.0 > 0 && id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag {
            Some(tag) => write!(formatter, "{}-{tag:08x}", self.number),
            None => write!(formatter, "{}", self.number),
        }
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no experience id"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Id, Number};

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        for written in ["E1", "E12-00ab34ef", "E4294967295-ffffffff"] {
            assert_eq!(Id::parse(written).map(|id| id.to_string()).as_deref(), Some(written));
        }
        for other in
            ["", "E", "E0", "E01", "e1", "1", "[E1]", "E1-", "E1-ab", "E1-00AB34EF", "E1-00ab34ef0", "E+1"]
        {
            assert_eq!(Id::parse(other), None, "{other}");
        }
    }

    #[test]
    fn each_part_of_the_origin_makes_another_id() {
        let id = |number, text: &str, source: &str, parents: &[Id], created| {
            Id::of(Number::new(number), text, &[source.to_owned()], parents, created)
        };
        let one = id(1, "check units", "g", &[], 1);
        assert_eq!(one, id(1, "check units", "g", &[], 1));
        for other in [
            id(2, "check units", "g", &[], 1),
            id(1, "check unit", "g", &[], 1),
            id(1, "check units", "h", &[], 1),
            id(1, "check units", "g", &[one], 1),
            id(1, "check units", "g", &[], 2),
        ] {
            assert_ne!(
                one.to_string().split_once('-').map(|(_, tag)| tag.to_owned()),
                other.to_string().split_once('-').map(|(_, tag)| tag.to_owned())
            );
        }
    }
}
