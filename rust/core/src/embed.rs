//! The default embedding: the sum of the rows of a static word table, which lies in the binary and is read in place.
//!
//! The sum is exact integer arithmetic, so a text has the same vector on every machine and in any order of its words.

#![allow(clippy::inline_always)] // what is compiled for several instruction sets must be inlined into each

use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::error::{Error, Result};

/// The length of the vectors of the default embedding.
pub const DIMENSIONS: usize = 256;
/// The length of the longest vectors that a library takes from elsewhere.
pub const LARGEST_DIMENSIONS: usize = 4096;

const MAGIC: &[u8] = b"tfgwords";
const VERSION: usize = 1;
const HEAD: usize = 32;
const BODY: usize = 64;
const EMPTY: u16 = u16::MAX;
/// What marks a row as the continuation of a word.
const CONTINUED: &[u8] = b"##";
/// How many rows are added at once: few enough that no i32 overflows, as each adds at most 128 * 65535 < 2^23.
const BATCH: usize = 32;
/// 256 / sqrt(k): the weight of each of the k pieces of a word that has no row, so that it weighs as one rare word.
const SHARES: [u32; 9] = [256, 256, 181, 148, 128, 114, 105, 97, 91];
const WORDS: &[u8] = include_bytes!("../assets/words.bin");

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
        hash.update(bytes.get(..HEAD).unwrap_or_default());
        hash.update(bytes.get(BODY..).unwrap_or_default());
        if bytes.get(HEAD..BODY) != Some(hash.finalize().as_slice()) {
            return Err(Error::Words("its content does not have the checksum that it states"));
        }
        Ok(table)
    }

    /// Reads the head only: what is compiled into the binary is checked by a test, not at every start.
    fn read(bytes: &'a [u8]) -> Result<Self> {
        let field = |i: usize| -> Option<usize> {
            let four = bytes.get(8 + 4 * i..)?.first_chunk::<4>()?;
            usize::try_from(u32::from_le_bytes(*four)).ok()
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
        let at = |row: usize| usize::try_from(u32::from_le_bytes(*self.ends.get(row)?)).ok();
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
            rest = rest.get(taken..).unwrap_or_default();
        }
        let share = SHARES.get(count).copied().unwrap_or(91);
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
                self.add_run(folded.get(start..at).unwrap_or_default(), &mut sum);
                run = None;
            }
            if alone {
                self.add_run(folded.get(at..at + character.len_utf8()).unwrap_or_default(), &mut sum);
            } else if let (None, Some(digits)) = (run, kind) {
                run = Some((at, digits));
            }
        }
        if let Some((start, _)) = run {
            self.add_run(folded.get(start..).unwrap_or_default(), &mut sum);
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

/// Rows that wait to be added, and the exact sum of those that were: every integer below 2^53 is an f64.
struct Sum<'a> {
    waiting: [(&'a [i8; DIMENSIONS], i32); BATCH],
    count: usize,
    total: [f64; DIMENSIONS],
}

/// A function on slices as what `dispatch` compiles for each instruction set. A closure will not do: it is compiled
/// once, for the least machine, and then called.
macro_rules! dispatched {
    ($name:ident($($field:ident: $type:ty),*) -> $output:ty = $function:ident) => {
        struct $name<'a>($($type),*);

        impl pulp::WithSimd for $name<'_> {
            type Output = $output;

            #[inline(always)]
            fn with_simd<S: pulp::Simd>(self, _: S) -> $output {
                let Self($($field),*) = self;
                $function($($field),*)
            }
        }
    };
}

dispatched!(AddRows(rows: &'a [(&'a [i8; DIMENSIONS], i32)], total: &'a mut [f64; DIMENSIONS]) -> () = add_rows);
dispatched!(Normalise(total: &'a [f64; DIMENSIONS]) -> [f32; DIMENSIONS] = normalise);
dispatched!(Quantise(vector: &'a [f32], values: &'a mut [i8]) -> f32 = quantise_lanes);
dispatched!(Code(values: &'a [i8]) -> [u64; 4] = code_lanes);

static NOTHING: [i8; DIMENSIONS] = [0; DIMENSIONS];

impl<'a> Sum<'a> {
    fn new() -> Self {
        Self { waiting: [(&NOTHING, 0); BATCH], count: 0, total: [0.0; DIMENSIONS] }
    }

    fn push(&mut self, values: &'a [i8; DIMENSIONS], weight: i32) {
        if self.count == BATCH {
            self.flush();
        }
        if let Some(place) = self.waiting.get_mut(self.count) {
            *place = (values, weight);
            self.count += 1;
        }
    }

    fn flush(&mut self) {
        let waiting = self.waiting.get(..self.count).unwrap_or_default();
        let total = &mut self.total;
        pulp::Arch::new().dispatch(AddRows(waiting, total));
        self.count = 0;
    }

    fn finish(mut self) -> [f32; DIMENSIONS] {
        let waiting = self.waiting.get(..self.count).unwrap_or_default();
        let total = &mut self.total;
        pulp::Arch::new().dispatch(AddRows(waiting, total));
        pulp::Arch::new().dispatch(Normalise(total))
    }
}

/// The vector at length 1. Inlined like [`add_rows`].
#[inline(always)]
fn normalise(total: &[f64; DIMENSIONS]) -> [f32; DIMENSIONS] {
    let mut lanes = [0.0_f64; 8]; // a fixed shape of the sum, whatever the width of the machine's vectors
    for eight in total.as_chunks::<8>().0 {
        for (lane, value) in lanes.iter_mut().zip(eight) {
            *lane += value * value;
        }
    }
    let norm = lanes.iter().sum::<f64>().sqrt();
    let inverse = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    #[allow(clippy::cast_possible_truncation)] // rounding to f32 is what is wanted
    total.map(|value| (value * inverse) as f32)
}

/// Inlined into each instruction set that `dispatch` chooses from. A part of 64 columns at a time stays in registers.
#[inline(always)]
fn add_rows(rows: &[(&[i8; DIMENSIONS], i32)], total: &mut [f64; DIMENSIONS]) {
    const PART: usize = 64;
    for (part, total) in total.as_chunks_mut::<PART>().0.iter_mut().enumerate() {
        let mut sums = [0_i32; PART];
        for (values, weight) in rows {
            if let Some(values) = values.as_chunks::<PART>().0.get(part) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += i32::from(*value) * weight;
                }
            }
        }
        for (total, sum) in total.iter_mut().zip(&sums) {
            *total += f64::from(*sum);
        }
    }
}

/// Whether a character belongs to a script without spaces whose characters are words: CJK ideographs.
fn is_ideograph(character: char) -> bool {
    matches!(u32::from(character), 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x3FFFF)
}

/// The table in the binary; `None` cannot happen with the table that the tests have read.
fn table() -> Option<&'static Table<'static>> {
    static TABLE: OnceLock<Option<Table<'static>>> = OnceLock::new();
    TABLE.get_or_init(|| Table::read(WORDS).ok()).as_ref()
}

/// Adds up the weighted rows of the words of `folded`, a text that `text::key` has folded.
///
/// A word is a run of letters or a run of digits; an ideograph is one by itself. A word without a row is put together
/// from pieces. The result has length 1, or is all zeros when nothing of the text is known.
pub fn embed(folded: &str) -> [f32; DIMENSIONS] {
    table().map_or([0.0; DIMENSIONS], |table| table.embed(folded))
}

/// What tells this word table from another: vectors of two tables cannot be compared.
pub(crate) fn fingerprint() -> u64 {
    WORDS.get(HEAD..).and_then(|rest| rest.first_chunk()).map_or(0, |first| u64::from_le_bytes(*first))
}

/// Whether `word`, folded, is a whole word of the table.
pub fn knows(word: &str) -> bool {
    table().is_some_and(|table| table.knows(word))
}

/// The int8 form of a vector of any length, `round(x * 127 / max|x|)` with halves to even, and one over its length, so
/// that cosine = dot * inverse * inverse. The inverse of the zero vector is 0. Values that are not finite count as 0.
pub fn quantise(vector: &[f32]) -> (Vec<i8>, f32) {
    let mut values = vec![0; vector.len()];
    let inverse = pulp::Arch::new().dispatch(Quantise(vector, &mut values));
    (values, inverse)
}

#[inline(always)]
fn quantise_lanes(vector: &[f32], values: &mut [i8]) -> f32 {
    const LANES: usize = 16;
    /// 1.5 * 2^52: a small number added to it leaves its nearest integer (halves to even) in the lowest bits. `round`
    /// is a call for each value.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let finite = |x: f32| if x.is_finite() { x } else { 0.0 };
    let mut lanes = [0.0_f32; LANES]; // a maximum is the same in any order, and in lanes it needs no waiting
    for part in vector.chunks(LANES) {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *lane = lane.max(finite(*x).abs());
        }
    }
    let most = lanes.iter().fold(0.0_f32, |most, x| most.max(*x));
    if most == 0.0 {
        return 0.0;
    }
    // In f64, since 127 / most may be beyond an f32.
    let scale = 127.0 / f64::from(most);
    for (value, x) in values.iter_mut().zip(vector) {
        let exact = f64::from(finite(*x)) * scale;
        #[allow(clippy::cast_possible_truncation)] // the lowest byte is the number, which is at most 127
        {
            *value = (exact + ROUND).to_bits() as i8;
        }
    }
    // 2^31 / 127^2 is far above the length of a part.
    let square: i64 = values
        .chunks(4096)
        .map(|part| i64::from(part.iter().map(|value| i32::from(*value) * i32::from(*value)).sum::<i32>()))
        .sum();
    #[allow(clippy::cast_possible_truncation)] // rounding to f32 is what is wanted
    {
        (1.0 / (square as f64).sqrt()) as f32
    }
}

/// The sign code: bit i is set if value i is greater than 0. The first 256 values count; missing ones give 0.
pub fn code(values: &[i8]) -> [u64; 4] {
    pulp::Arch::new().dispatch(Code(values))
}

#[inline(always)]
fn code_lanes(values: &[i8]) -> [u64; 4] {
    let mut code = [0_u64; 4];
    for (word, values) in code.iter_mut().zip(values.chunks(64)) {
        for (bit, value) in values.iter().enumerate() {
            *word |= u64::from(*value > 0) << bit;
        }
    }
    code
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // the sums are exact
mod tests {
    use super::{BATCH, SHARES, Table, WORDS, code, embed, knows, quantise};

    #[test]
    fn the_table_in_the_binary_is_whole() {
        let Ok(table) = Table::parse(WORDS) else { unreachable!("the table must parse") };
        let (rows, whole) = table.rows();
        assert!(rows > 30_000 && whole > 25_000 && WORDS.len() <= 10_000_000, "{rows} {whole}");
    }

    #[test]
    fn a_batch_of_the_heaviest_rows_does_not_overflow() {
        assert!(i32::try_from(BATCH * 128 * 65_535).is_ok());
        for (pieces, share) in SHARES.iter().enumerate().skip(1) {
            let exact = 256.0 / (pieces as f64).sqrt();
            assert!((f64::from(*share) - exact).abs() < 1.0, "{pieces}");
        }
    }

    #[test]
    fn whole_words_are_known_and_pieces_are_not() {
        for word in ["the", "not", "function", "database", "a", "7"] {
            assert!(knows(word), "{word}");
        }
        for word in ["", "##ing", "ing ", "databsae", "qqqxzv", "The"] {
            assert!(!knows(word), "{word}");
        }
    }

    #[test]
    fn unknown_words_are_put_together_and_accents_do_not_matter() {
        assert!(embed("pseudoblorfification").iter().any(|x| *x != 0.0));
        assert_eq!(embed("cliché"), embed("cliche"));
        assert_eq!(embed("🙂 … !"), [0.0; 256]);
        assert_eq!(embed("python3"), embed("3 python"));
    }

    #[test]
    fn codes_are_of_the_first_256_signs() {
        assert_eq!(code(&[1, 0, -1, 5]), [0b1001, 0, 0, 0]);
        assert_eq!(code(&[1; 300]), [u64::MAX; 4]);
        assert_eq!(code(&[]), [0; 4]);
    }

    #[test]
    fn the_zero_vector_has_no_norm() {
        assert_eq!(quantise(&[0.0; 3]), (vec![0; 3], 0.0));
        assert_eq!(quantise(&[]), (vec![], 0.0));
        assert_eq!(quantise(&[f32::NAN, 1e-40]), (vec![0, 127], 1.0 / 127.0));
    }
}
