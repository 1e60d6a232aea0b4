//! The library file: JSON that people can read and that states its digest.

use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::experience::Experience;
use super::format::{
    FORMAT, FORMAT_VERSION, LARGEST_ID, LARGEST_VERSION, Retired, SECOND_VERSION, SecondFormat,
};
use super::id::Number;
use super::line;
use super::seen::{Meaning, Seen};
use super::snapshot::Library;
use crate::error::{Error, Result};
use crate::minhash::Signer;
use crate::operation::is_zero;
use crate::text;
use crate::tokens::Tokenizer;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<E> {
    format: String,
    format_version: u64,
    version: u64,
    next_id: u64,
    digest: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    compacted: u64,
    #[serde(default)]
    tokenizer: Tokenizer,
    entries: Vec<E>,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    retired: Vec<Retired>,
}

/// What every version of the format has; read first, so that another version is named as such.
#[derive(Deserialize)]
struct Header {
    format: String,
    format_version: u64,
}

impl Library {
    /// Reads a library file and verifies its digest. Derived columns are made anew.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let (mut library, entries, stated) = Self::parse(bytes)?;
        let tokenizer = library.tokenizer;
        let rows: Vec<_> = entries
            .into_par_iter()
            .map(|mut entry| {
                entry.tokens = line::line_tokens(tokenizer, entry.id.number(), &entry.text);
                entry.credit += 0.0;
                let seen = Seen::new(&entry.text, Signer::default());
                let meaning = Meaning::of(&seen.key);
                (Arc::new(entry), seen, meaning)
            })
            .collect();
        let mut touched = Vec::new();
        let mut postings = Vec::new();
        for (entry, seen, meaning) in rows {
            let number = entry.id.number().get();
            postings.extend(seen.hashes().map(|hash| (hash, number)));
            touched.push(library.put(seen.row(entry, &meaning)));
        }
        touched.dedup();
        library.postings.extend(postings, |_| true);
        library.seal(&touched);
        library.verified(stated)
    }

    /// A library that was put together from a file, if it is what the file states.
    pub(crate) fn verified(self, stated: String) -> Result<Self> {
        if self.digest() != stated {
            return Err(Error::Digest { stated, actual: self.digest().to_owned() });
        }
        self.check().map_err(Error::Format)?;
        Ok(self)
    }

    /// The empty library with a file's head, the file's entries in id order, and the digest it states.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, Vec<Experience>, String)> {
        let format = |error: serde_json::Error| Error::Format(error.to_string());
        let header: Header = serde_json::from_slice(bytes).map_err(format)?;
        if header.format != FORMAT {
            return Err(Error::Format(format!("its format is {:?}, not {FORMAT:?}", header.format)));
        }
        if !(SECOND_VERSION..=FORMAT_VERSION).contains(&header.format_version) {
            return Err(Error::FormatVersion { found: header.format_version, expected: FORMAT_VERSION });
        }
        let file: File<Experience> = serde_json::from_slice(bytes).map_err(format)?;
        if file.version > LARGEST_VERSION || file.next_id > LARGEST_ID {
            return Err(Error::Format(format!(
                "version is above {LARGEST_VERSION} or next_id above {LARGEST_ID}"
            )));
        }
        let mut previous = Number::new(0);
        for entry in &file.entries {
            let number = entry.id.number();
            if number <= previous || u64::from(number.get()) >= file.next_id {
                return Err(Error::Format(format!(
                    "{} is out of order, twice there, or not below next_id {}",
                    entry.id, file.next_id
                )));
            }
            previous = number;
        }
        let File { compacted, retired, .. } = file;
        let second = SecondFormat { compacted, retired };
        if header.format_version == FORMAT_VERSION && second != SecondFormat::default() {
            return Err(Error::Format("it has a log, which its format_version has not".to_owned()));
        }
        let library = Self {
            version: file.version,
            next_id: file.next_id,
            second: (header.format_version == SECOND_VERSION).then(|| Arc::new(second)),
            tokenizer: file.tokenizer,
            ..Self::default()
        };
        Ok((library, file.entries, file.digest))
    }

    /// Writes the library file: indented JSON, one experience with its lineage an entry, a newline at the end.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let second = self.second.as_deref().cloned().unwrap_or_default();
        let file = File {
            format: FORMAT.to_owned(),
            format_version: self.format_version(),
            version: self.version,
            next_id: self.next_id,
            digest: self.digest().to_owned(),
            compacted: second.compacted,
            tokenizer: self.tokenizer,
            entries: self.entries().collect(),
            retired: second.retired,
        };
        let mut bytes = serde_json::to_vec_pretty(&file).map_err(|error| Error::Format(error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The living experiences as a JSON array in the shape of `tfgrpo.types.Experience`.
    pub fn entries_json(&self) -> Result<Vec<u8>> {
        let entries: Vec<&Experience> = self.entries().collect();
        serde_json::to_vec(&entries).map_err(|error| Error::Format(error.to_string()))
    }

    /// The living experience that is called `id`, in the same shape; `None` if there is none.
    pub fn entry_json(&self, id: &str) -> Result<Option<Vec<u8>>> {
        let json = self.find(id).map(serde_json::to_vec).transpose();
        json.map_err(|error| Error::Format(error.to_string()))
    }

    /// Verifies what a digest cannot: a file that another program wrote in full.
    fn check(&self) -> std::result::Result<(), String> {
        for entry in self.entries() {
            let Experience { id, created, changed, .. } = entry;
            if text::clean(&entry.text).as_deref() != Ok(&*entry.text) {
                return Err(format!("the text of {id} is not one clean line"));
            }
            if created > changed || *changed > self.version || !entry.credit.is_finite() {
                return Err(format!("{id} has impossible versions or credit"));
            }
            if !entry.history.is_sorted_by_key(|revision| revision.version)
                || entry.history.first().is_none_or(|first| first.version != *created)
                || entry.history.last().is_none_or(|last| last.text != entry.text || last.version != *changed)
            {
                return Err(format!("the history of {id} does not lead to its text"));
            }
        }
        Ok(())
    }
}
