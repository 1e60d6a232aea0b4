//! The experience library: an immutable snapshot with a version and a digest.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest;
use crate::error::{Error, Result};
use crate::operation::{OperationKind, is_zero};
use crate::prior;
use crate::text;
use crate::tokens;

const FORMAT: &str = "tfgrpo-library";
const FORMAT_VERSION: u64 = 1;

/// Every integer up to here is the same in any JSON reader.
const LARGEST_NUMBER: u64 = 1 << 53;

/// The identity of an experience, written "E1", "E2", …: never reused, never renumbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(u64);

impl Id {
    /// The id with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Reads "E7". Anything else ("e7", "E07", "[E7]") is no id.
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.strip_prefix('E')?.parse().ok()?;
        (number > 0 && Self(number).to_string() == text).then_some(Self(number))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "E{}", self.0)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no experience id"))
    }
}

/// One change in an experience's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// The library version that came of it.
    pub version: u64,
    /// ADD or MODIFY.
    pub operation: OperationKind,
    /// The text from then on.
    pub text: String,
    /// The groups it rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// One lesson in natural language.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experience {
    /// Its identity.
    pub id: Id,
    /// The lesson, one line.
    pub text: String,
    /// The experiences it was made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Id>,
    /// Every group that it rests on, over its whole life.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// The library version in which it appeared.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub created: u64,
    /// The library version in which its text last changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changed: u64,
    /// The token count of its line in a prior. Derived: counted at insertion and again on loading.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokens: u64,
    /// What it was measured to be worth. Bookkeeping: no part of the digest.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub credit: f64,
    /// Its lineage, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Revision>,
}

#[allow(clippy::trivially_copy_pass_by_ref, clippy::float_cmp)] // serde passes references; the default is exact
fn is_nought(number: &f64) -> bool {
    *number == 0.0
}

/// An immutable experience library. [`Library::apply`] is the only way from one to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Library {
    version: u64,
    next_id: u64,
    digest: String,
    entries: Vec<Experience>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    format_version: u64,
    version: u64,
    next_id: u64,
    digest: String,
    entries: Vec<Experience>,
}

/// What every version of the format has; read first, so that another version is named as such.
#[derive(Deserialize)]
struct Header {
    format: String,
    format_version: u64,
}

impl Default for Library {
    fn default() -> Self {
        Self::seal(0, 1, Vec::new())
    }
}

impl Library {
    /// Closes a snapshot: `entries` in id order, their token counts right.
    pub(crate) fn seal(version: u64, next_id: u64, entries: Vec<Experience>) -> Self {
        let digest = digest::hex(&canonical(version, next_id, &entries));
        Self { version, next_id, digest, entries }
    }

    /// Reads a library file and verifies its digest.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let format = |error: serde_json::Error| Error::Format(error.to_string());
        let header: Header = serde_json::from_slice(bytes).map_err(format)?;
        if header.format != FORMAT {
            return Err(Error::Format(format!("its format is {:?}, not {FORMAT:?}", header.format)));
        }
        if header.format_version != FORMAT_VERSION {
            return Err(Error::FormatVersion { found: header.format_version, expected: FORMAT_VERSION });
        }
        let mut file: File = serde_json::from_slice(bytes).map_err(format)?;
        for entry in &mut file.entries {
            entry.tokens = tokens::count(&prior::line(entry.id, &entry.text));
            entry.credit += 0.0;
        }
        let library = Self::seal(file.version, file.next_id, file.entries);
        if library.digest != file.digest {
            return Err(Error::Digest { stated: file.digest, actual: library.digest });
        }
        library.check().map_err(Error::Format)?;
        Ok(library)
    }

    /// Writes the library file: indented JSON, one experience with its lineage an entry, a newline at the end.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let file = File {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            version: self.version,
            next_id: self.next_id,
            digest: self.digest.clone(),
            entries: self.entries.clone(),
        };
        let mut bytes = serde_json::to_vec_pretty(&file).map_err(|error| Error::Format(error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The number of changes since the empty library.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The number of the next new experience.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// The SHA-256 digest of version, next id and entries, without their derived tokens and their credit.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The living experiences, in id order.
    pub fn entries(&self) -> &[Experience] {
        &self.entries
    }

    /// The living experience with this id.
    pub fn get(&self, id: Id) -> Option<&Experience> {
        let place = self.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.entries.get(place)
    }

    /// The living experiences as a JSON array in the shape of `tfgrpo.types.Experience`.
    pub fn entries_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.entries).map_err(|error| Error::Format(error.to_string()))
    }

    /// The same library with new credits; experiences that `credits` does not name keep theirs.
    ///
    /// Version and digest stay: credit is bookkeeping about a library, not a change of it. It does steer which
    /// experiences a prior too small for all of them holds; `TokenPrior` has its own digest for that reason.
    pub fn with_credit(&self, credits: &BTreeMap<String, f64>) -> Result<Self> {
        let mut library = self.clone();
        for (name, &credit) in credits {
            if !credit.is_finite() {
                return Err(Error::Credit { id: name.clone(), credit: credit.to_string() });
            }
            let entry = Id::parse(name).and_then(|id| {
                let place = library.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
                library.entries.get_mut(place)
            });
            // Adding 0.0 turns a negative zero, which JSON would not keep, into zero.
            entry.ok_or_else(|| Error::UnknownExperience(name.clone()))?.credit = credit + 0.0;
        }
        Ok(library)
    }

    /// Verifies what a digest cannot: a file that another program wrote in full.
    fn check(&self) -> std::result::Result<(), String> {
        if self.version.max(self.next_id) > LARGEST_NUMBER {
            return Err(format!("version or next_id is above {LARGEST_NUMBER}"));
        }
        let mut previous = None;
        for entry in &self.entries {
            let Experience { id, created, changed, .. } = entry;
            if previous >= Some(id) || id.0 >= self.next_id {
                return Err(format!(
                    "{id} is out of order, twice there, or not below next_id {}",
                    self.next_id
                ));
            }
            previous = Some(id);
            if text::clean(&entry.text).as_ref() != Ok(&entry.text) {
                return Err(format!("the text of {id} is not one clean line"));
            }
            if created > changed || *changed > self.version || !entry.credit.is_finite() {
                return Err(format!("{id} has impossible versions or credit"));
            }
            if entry.history.last().is_none_or(|last| last.text != entry.text || last.version != *changed) {
                return Err(format!("the history of {id} does not end with its text"));
            }
        }
        Ok(())
    }
}

/// The bytes under the digest: every field as a netstring ("5:hello"), every list led by its length.
fn canonical(version: u64, next_id: u64, entries: &[Experience]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut put = |field: &str| {
        bytes.extend_from_slice(field.len().to_string().as_bytes());
        bytes.push(b':');
        bytes.extend_from_slice(field.as_bytes());
    };
    let list = |items: &[String], put: &mut dyn FnMut(&str)| {
        put(&items.len().to_string());
        for item in items {
            put(item);
        }
    };
    put(FORMAT);
    for number in [FORMAT_VERSION, version, next_id, entries.len() as u64] {
        put(&number.to_string());
    }
    for entry in entries {
        let Experience { id, text, parents, sources, created, changed, tokens: _, credit: _, history } =
            entry;
        put(&id.to_string());
        put(text);
        put(&created.to_string());
        put(&changed.to_string());
        list(&parents.iter().map(ToString::to_string).collect::<Vec<_>>(), &mut put);
        list(sources, &mut put);
        put(&history.len().to_string());
        for Revision { version, operation, text, sources } in history {
            put(&version.to_string());
            put(operation.name());
            put(text);
            list(sources, &mut put);
        }
    }
    bytes
}
