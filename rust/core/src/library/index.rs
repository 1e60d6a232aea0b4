//! The index file: what is derived from a library's texts, so that a large one opens without making it again.
//!
//! Columns stand one after another, each at a multiple of 64 bytes and with a checksum (XXH3), so the file can be
//! mapped and read in place. It belongs to one library, whose digest it states; it can always be made anew.

use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::chunk::{Chunk, Weight};
use super::experience::Experience;
use super::snapshot::Library;
use crate::column::{Column, Lender};
use crate::digest::Sum;
use crate::embed;
use crate::error::{Error, Result};
use crate::invariant::promised;
use crate::minhash::Signature;
use crate::postings::Postings;
use crate::scan::Code;
use crate::tokens::Tokenizer;

const MAGIC: &[u8; 8] = b"tfgrpoIX";
const VERSION: u32 = 1;
const ALIGNMENT: usize = 64;
/// Ids, tokens, signatures, codes, inverse norms, vectors, postings.
const SECTIONS: usize = 7;
/// Magic, version, tokeniser, dimensions, rows, digest of the library, of the word table, then per section its length
/// and its checksum, then the checksum of all this.
const HEADER: usize = 8 + 4 + 4 + 8 + 8 + 64 + 8 + SECTIONS * 16 + 8;

impl Library {
    /// The index file of this library.
    pub fn to_index(&self) -> Vec<u8> {
        let ids: Vec<u32> = self.entries().map(|entry| entry.id.number().get()).collect();
        let tokens: Vec<u64> = self.entries().map(|entry| entry.tokens).collect();
        let postings = self.postings.gather(|number| !self.stale || ids.binary_search(&number).is_ok());
        let mut columns: [Vec<u8>; SECTIONS] = Default::default();
        let [id_bytes, token_bytes, signatures, codes, norms, vectors, posting_bytes] = &mut columns;
        id_bytes.extend_from_slice(bytemuck::cast_slice(&ids));
        token_bytes.extend_from_slice(bytemuck::cast_slice(&tokens));
        for chunk in &self.chunks {
            signatures.extend_from_slice(bytemuck::cast_slice(&chunk.signatures));
            codes.extend_from_slice(bytemuck::cast_slice(&chunk.codes));
            norms.extend_from_slice(bytemuck::cast_slice(&chunk.inverse_norms));
            vectors.extend_from_slice(bytemuck::cast_slice(&chunk.vectors));
        }
        posting_bytes.extend_from_slice(bytemuck::cast_slice(&postings));

        let mut file =
            Vec::with_capacity(HEADER + columns.iter().map(|column| column.len() + ALIGNMENT).sum::<usize>());
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&VERSION.to_le_bytes());
        file.extend_from_slice(&tokenizer_number(self.tokenizer).to_le_bytes());
        file.extend_from_slice(&(self.dimensions() as u64).to_le_bytes());
        file.extend_from_slice(&(ids.len() as u64).to_le_bytes());
        file.extend_from_slice(self.digest().as_bytes());
        file.extend_from_slice(&self.table().to_le_bytes());
        for column in &columns {
            file.extend_from_slice(&(column.len() as u64).to_le_bytes());
            file.extend_from_slice(&xxh3_64(column).to_le_bytes());
        }
        file.extend_from_slice(&xxh3_64(&file).to_le_bytes());
        for column in &columns {
            file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
            file.extend_from_slice(column);
        }
        file
    }

    /// What the vectors were made by: our word table, or nothing that is known here.
    fn table(&self) -> u64 {
        if self.given.is_some() { 0 } else { embed::fingerprint() }
    }

    /// Reads a library file with its index: nothing derived is made again, and the index is read in place.
    ///
    /// An index of another library, of another version of this one, or with vectors of another word table is passed
    /// over: what is derived is made anew.
    ///
    /// # Errors
    /// As `from_json`, and [`Error::Index`] if the index is damaged.
    pub fn from_json_and_index(json: &[u8], index: &Arc<dyn Lender>) -> Result<Self> {
        let (mut library, mut entries, stated) = Self::parse(json)?;
        let columns = Columns::read(index)?;
        let current = columns.table == 0 || columns.table == embed::fingerprint();
        if columns.digest != stated || columns.tokenizer != library.tokenizer || !current {
            return Self::from_json(json);
        }
        if columns.ids.len() != entries.len()
            || columns.ids.iter().zip(&entries).any(|(number, entry)| *number != entry.id.number().get())
        {
            return Err(Error::Index("it has other experiences".to_owned()));
        }
        library.given = (columns.table == 0).then_some(columns.dimensions);
        for (entry, tokens) in entries.iter_mut().zip(columns.tokens.iter()) {
            entry.tokens = *tokens;
            entry.credit += 0.0;
        }
        let entries: Vec<Arc<Experience>> = entries.into_iter().map(Arc::new).collect();
        let digests: Vec<Sum> = entries.par_iter().map(|entry| entry.digest()).collect();
        let mut touched = Vec::new();
        let mut row = 0;
        for rows in entries.chunk_by(|a, b| a.id.number().chunk() == b.id.number().chunk()) {
            let Some(first) = rows.first() else { continue };
            let number = first.id.number().chunk();
            let range = row..row + rows.len();
            row = range.end;
            let digests = digests.get(range.clone()).ok_or(Error::Invariant("each row has a digest"))?;
            let chunk = columns
                .chunk(index, number, rows, digests, range)
                .ok_or_else(|| Error::Index("a column is too short".to_owned()))?;
            library.chunks.push(Arc::new(chunk));
            library.digests.push([0; 32]);
            touched.push(number);
        }
        library.postings = Postings::lent(columns.postings)
            .ok_or_else(|| Error::Index("its postings are not sorted".to_owned()))?;
        library.seal(&touched);
        library.verified(stated)
    }
}

/// The parts of an index file, in place.
struct Columns {
    tokenizer: Tokenizer,
    digest: String,
    dimensions: usize,
    table: u64,
    ids: Column<u32>,
    tokens: Column<u64>,
    signatures: Range<usize>,
    codes: Range<usize>,
    norms: Range<usize>,
    vectors: Range<usize>,
    postings: Column<u64>,
}

impl Columns {
    fn read(index: &Arc<dyn Lender>) -> Result<Self> {
        if cfg!(target_endian = "big") {
            return Err(Error::Index("it is read on little-endian machines only".to_owned()));
        }
        let bytes = (**index).as_ref();
        let refuse = |reason: &str| Error::Index(reason.to_owned());
        let header = bytes.get(..HEADER).ok_or_else(|| refuse("it is too short"))?;
        let mut fields = Fields(header);
        if fields.take(8)? != MAGIC {
            return Err(refuse("it does not begin like one"));
        }
        let version = fields.u32()?;
        if version != VERSION {
            return Err(Error::Index(format!("it has version {version}, this tfgrpo reads {VERSION}")));
        }
        let (covered, checksum) = header.split_at(HEADER - 8);
        if checksum != xxh3_64(covered).to_le_bytes() {
            return Err(refuse("its header is damaged"));
        }
        let tokenizer = tokenizer_of(fields.u32()?).ok_or_else(|| refuse("its tokenizer is unknown"))?;
        let dimensions = fields.size()?;
        let rows = fields.size()?;
        let digest = String::from_utf8_lossy(fields.take(64)?).into_owned();
        let table = fields.u64()?;
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(SECTIONS);
        let mut at = HEADER;
        for _ in 0..SECTIONS {
            let (length, checksum) = (fields.size()?, fields.u64()?);
            let start = at.next_multiple_of(ALIGNMENT);
            let range = start..start.saturating_add(length);
            let section = bytes.get(range.clone()).ok_or_else(|| refuse("it ends too early"))?;
            if promised(bytes.get(at..start), "a section that is there begins behind its padding")
                .iter()
                .any(|byte| *byte != 0)
                || xxh3_64(section) != checksum
            {
                return Err(refuse("a column is damaged"));
            }
            at = range.end;
            ranges.push(range);
        }
        if at != bytes.len() {
            return Err(refuse("something follows its end"));
        }
        let [ids, tokens, signatures, codes, norms, vectors, postings]: [Range<usize>; SECTIONS] =
            ranges.try_into().map_err(|_| refuse("it has other columns"))?;
        let aligned = || refuse("its columns are not aligned; map the file or read it into aligned memory");
        let (ids, tokens) = (
            Column::<u32>::lent(index, ids).ok_or_else(aligned)?,
            Column::<u64>::lent(index, tokens).ok_or_else(aligned)?,
        );
        let whole = |range: &Range<usize>, width: usize| Some(range.len()) == rows.checked_mul(width);
        if ids.len() != rows
            || tokens.len() != rows
            || !(1..=embed::LARGEST_DIMENSIONS).contains(&dimensions)
            || !whole(&signatures, size_of::<Signature>())
            || !whole(&codes, size_of::<Code>())
            || !whole(&norms, size_of::<f32>())
            || !whole(&vectors, dimensions)
        {
            return Err(refuse("its columns have different lengths"));
        }
        let postings = Column::lent(index, postings).ok_or_else(aligned)?;
        Ok(Self {
            tokenizer,
            digest,
            dimensions,
            table,
            ids,
            tokens,
            signatures,
            codes,
            norms,
            vectors,
            postings,
        })
    }

    /// The chunk with these rows.
    fn chunk(
        &self,
        index: &Arc<dyn Lender>,
        number: u64,
        entries: &[Arc<Experience>],
        digests: &[Sum],
        rows: Range<usize>,
    ) -> Option<Chunk> {
        fn part<T: Pod>(
            index: &Arc<dyn Lender>,
            section: &Range<usize>,
            rows: &Range<usize>,
            width: usize,
        ) -> Option<Column<T>> {
            Column::lent(index, section.start + rows.start * width..section.start + rows.end * width)
        }
        let weights: Vec<Weight> = entries.iter().map(|entry| Weight::of(entry)).collect();
        Some(Chunk {
            number,
            entries: entries.to_vec(),
            digests: digests.to_vec(),
            signatures: part(index, &self.signatures, &rows, size_of::<Signature>())?,
            vectors: part(index, &self.vectors, &rows, self.dimensions)?,
            inverse_norms: part(index, &self.norms, &rows, size_of::<f32>())?,
            codes: part(index, &self.codes, &rows, size_of::<Code>())?,
            tokens: weights.iter().map(|weight| u64::from(weight.tokens)).sum(),
            weights,
        })
    }
}

fn tokenizer_number(tokenizer: Tokenizer) -> u32 {
    match tokenizer {
        Tokenizer::O200k => 0,
        Tokenizer::Cl100k => 1,
    }
}

fn tokenizer_of(number: u32) -> Option<Tokenizer> {
    [Tokenizer::O200k, Tokenizer::Cl100k].into_iter().find(|t| tokenizer_number(*t) == number)
}

/// Little-endian fields one after another.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let parts = self.0.split_at_checked(length);
        let (field, rest) = parts.ok_or(Error::Invariant("the header of an index has all its fields"))?;
        self.0 = rest;
        Ok(field)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Error::Invariant("a field has the length that was taken"))
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length.
    fn size(&mut self) -> Result<usize> {
        let size = self.u64()?;
        usize::try_from(size).map_err(|_| Error::Index(format!("{size} is no length on this machine")))
    }
}
