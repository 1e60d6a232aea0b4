//! The word table: read in place from its bytes, and added up for a text.

use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::lanes::{DIMENSIONS, Sum};
use crate::error::{Error, Result};
use crate::invariant::promised;

const MAGIC: &[u8] = b"tfgwords";
const VERSION: usize = 1;
pub(super) const HEAD: usize = 32;
const BODY: usize = 64;
const EMPTY: u16 = u16::MAX;
/// What marks a row as the continuation of a word.
const CONTINUED: &[u8] = b"##";
/// 256 / sqrt(k): the weight of each of the k pieces of a word that has no row, so that it weighs as one rare word.
pub(super) const SHARES: [u32; 9] = [256, 256, 181, 148, 128, 114, 105, 97, 91];

/// A word table over its bytes: rows of int8, an integer weight a row, and an open-addressing hash of the words.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    values: &'a [[i8; DIMENSIONS]],
    weights: &'a [[u8; 2]],
    ends: &'a [[u8; 4]],
    slots: &'a [[u8; 2]],
    strings: &'a [u8],
    longest: usize,
}

impl<'a> Table<'a> {
    /// Reads a table, and refuses bytes that are damaged or of another version.
    ///
    /// # Errors
    /// [`Error::Words`] says what is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let table = Self::read(bytes)?;
        let mut hash = Sha256::new();
        hash.update(promised(bytes.get(..HEAD), "a table that was read has a head"));
        hash.update(promised(bytes.get(BODY..), "a table that was read has a body"));
        if bytes.get(HEAD..BODY) != Some(hash.finalize().as_slice()) {
            return Err(Error::Words("its content does not have the checksum that it states"));
        }
        Ok(table)
    }

    /// Reads the head only: what is compiled into the binary is checked by a test, not at every start.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let field = |i: usize| -> Option<usize> {
            let four = bytes.get(8 + 4 * i..)?.first_chunk::<4>()?;
            Some(u32::from_le_bytes(*four) as usize)
        };
        let short = Error::Words("it is cut short");
        if !bytes.starts_with(MAGIC) {
            return Err(Error::Words("it does not begin with the name of the format"));
        }
        let (Some(version), Some(dimensions), Some(rows), Some(slots), Some(strings), Some(longest)) =
            (field(0), field(1), field(2), field(3), field(4), field(5))
        else {
            return Err(short);
        };
        if version != VERSION {
            return Err(Error::Words("it is of another version of the format"));
        }
        if dimensions != DIMENSIONS || rows >= usize::from(EMPTY) || !slots.is_power_of_two() || slots <= rows
        {
            return Err(Error::Words("its head holds numbers that no table has"));
        }
        let rest = bytes.get(BODY..).ok_or_else(|| short.clone())?;
        let total = [rows * (DIMENSIONS + 2 + 4), slots.saturating_mul(2), strings];
        if total.iter().fold(0_usize, |sum, part| sum.saturating_add(*part)) != rest.len() {
            return Err(Error::Words("its length is not what its head says"));
        }
        let (values, rest) = rest.split_at_checked(rows * DIMENSIONS).ok_or_else(|| short.clone())?;
        let (weights, rest) = rest.split_at_checked(rows * 2).ok_or_else(|| short.clone())?;
        let (ends, rest) = rest.split_at_checked(rows * 4).ok_or_else(|| short.clone())?;
        let (slots, strings) = rest.split_at_checked(slots * 2).ok_or(short)?;
        Ok(Self {
            values: bytemuck::cast_slice::<u8, i8>(values).as_chunks().0,
            weights: weights.as_chunks().0,
            ends: ends.as_chunks().0,
            slots: slots.as_chunks().0,
            strings,
            longest,
        })
    }

    /// How many rows the table has, and how many of them are whole words.
    pub fn rows(&self) -> (usize, usize) {
        let whole =
            (0..self.values.len()).filter_map(|row| self.key(row)).filter(|key| !key.starts_with(CONTINUED));
        (self.values.len(), whole.count())
    }

    fn key(&self, row: usize) -> Option<&'a [u8]> {
        let at = |row: usize| Some(u32::from_le_bytes(*self.ends.get(row)?) as usize);
        let start = if row == 0 { 0 } else { at(row - 1)? };
        self.strings.get(start..at(row)?)
    }

    /// The row of `mark` followed by `word`, whose hash is given.
    fn find(&self, hash: Fnv, mark: &[u8], word: &[u8]) -> Option<u16> {
        let wrap = self.slots.len() - 1;
        let mut slot = hash.slot() & wrap;
        for _ in 0..self.slots.len() {
            let row = u16::from_le_bytes(*self.slots.get(slot)?);
            if row == EMPTY {
                return None;
            }
            let key = self.key(usize::from(row))?;
            if key.strip_prefix(mark) == Some(word) {
                return Some(row);
            }
            slot = (slot + 1) & wrap;
        }
        None
    }

    /// Whether a word has a row of its own; a piece that only continues words has none.
    pub fn knows(&self, word: &str) -> bool {
        let word = word.as_bytes();
        word.len() <= self.longest
            && !word.starts_with(CONTINUED)
            && self.find(Fnv::NEW.with(word), b"", word).is_some()
    }

    /// Adds the rows of a run of letters or of digits: its own, or those of its pieces by greedy longest match.
    fn add_run(&self, run: &str, sum: &mut Sum<'a>) {
        if run.len() <= self.longest
            && let Some(row) = self.find(Fnv::NEW.with(run.as_bytes()), b"", run.as_bytes())
        {
            self.add(row, 256, sum);
        } else if run.is_ascii() {
            self.add_pieces(run, sum);
        } else {
            // The model reads letters without their accents.
            let plain: String = run.nfd().filter(|c| !is_combining_mark(*c)).collect();
            self.add_pieces(&plain, sum);
        }
    }

    fn add_pieces(&self, run: &str, sum: &mut Sum<'a>) {
        let (mut pieces, mut count) = ([0_u16; 8], 0);
        let mut rest = run;
        let mut mark: &[u8] = b"";
        while !rest.is_empty() {
            // The longest prefix that has a row; every prefix's hash falls out of hashing the longest one.
            let (mut hash, mut best) = (Fnv::NEW.with(mark), None);
            let mut at = 0;
            for character in rest.chars() {
                let next = at + character.len_utf8();
                let Some(bytes) = rest.as_bytes().get(at..next) else { break };
                if next > self.longest {
                    break;
                }
                hash = hash.with(bytes);
                if let Some(row) =
                    rest.as_bytes().get(..next).and_then(|prefix| self.find(hash, mark, prefix))
                {
                    best = Some((row, next));
                }
                at = next;
            }
            let skipped = rest.chars().next().map_or(rest.len(), char::len_utf8);
            let taken = best.map_or(skipped, |(_, end)| end);
            if let Some((row, _)) = best {
                if let Some(place) = pieces.get_mut(count) {
                    *place = row;
                    count += 1;
                } else {
                    self.add(row, 91, sum); // of a run without end: each further piece as of eight
                }
                mark = CONTINUED;
            }
            rest = promised(rest.get(taken..), "a piece ends between characters");
        }
        let share = promised(SHARES.get(count).copied(), "at most eight pieces are kept");
        for row in pieces.iter().take(count) {
            self.add(*row, share, sum);
        }
    }

    fn add(&self, row: u16, share: u32, sum: &mut Sum<'a>) {
        let row = usize::from(row);
        if let (Some(values), Some(weight)) = (self.values.get(row), self.weights.get(row)) {
            let weight = (u32::from(u16::from_le_bytes(*weight)) * share) >> 8;
            sum.push(values, weight.cast_signed());
        }
    }

    /// Adds up the weighted rows of the words of a folded text; see [`embed`].
    pub fn embed(&self, folded: &str) -> [f32; DIMENSIONS] {
        let mut sum = Sum::new();
        let mut run: Option<(usize, bool)> = None; // where it began, and whether it is of digits
        for (at, character) in folded.char_indices() {
            let kind = if character.is_ascii_lowercase() {
                Some(false)
            } else if character.is_ascii_digit() {
                Some(true)
            } else if !character.is_alphanumeric() {
                None
            } else {
                Some(character.is_numeric())
            };
            let alone = is_ideograph(character);
            if let Some((start, digits)) = run
                && (alone || kind != Some(digits))
            {
                self.add_run(promised(folded.get(start..at), "a run is of whole characters"), &mut sum);
                run = None;
            }
            if alone {
                let ideograph = folded.get(at..at + character.len_utf8());
                self.add_run(promised(ideograph, "a character is whole"), &mut sum);
            } else if let (None, Some(digits)) = (run, kind) {
                run = Some((at, digits));
            }
        }
        if let Some((start, _)) = run {
            self.add_run(promised(folded.get(start..), "a run is of whole characters"), &mut sum);
        }
        sum.finish()
    }
}

/// FNV-1a, which gives the hash of every prefix on the way.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Fnv {
    const NEW: Self = Self(0xcbf2_9ce4_8422_2325);

    fn with(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    fn slot(self) -> usize {
        #[allow(clippy::cast_possible_truncation)] // the low bits are what is wanted
        {
            (self.0 ^ (self.0 >> 32)) as usize
        }
    }
}

/// Whether a character belongs to a script without spaces whose characters are words: CJK ideographs.
fn is_ideograph(character: char) -> bool {
    matches!(u32::from(character), 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x3FFFF)
}
