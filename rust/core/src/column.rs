//! A column of a chunk: values of its own, or a stretch of a file's bytes that somebody else holds.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::invariant::promised;
use bytemuck::Pod;

/// Bytes that stay where they are and as they are, such as a mapped file.
pub trait Lender: AsRef<[u8]> + Send + Sync {}

impl<T: AsRef<[u8]> + Send + Sync> Lender for T {}

/// Values one after another; read as a slice. A lent column becomes its own on the first change.
#[derive(Clone)]
pub(crate) enum Column<T> {
    Own(Vec<T>),
    Lent(Arc<dyn Lender>, Range<usize>),
}

impl<T: Pod> Column<T> {
    /// The values in a range of bytes; `None` if they are not there, or not whole, or not aligned as values are.
    pub fn lent(lender: &Arc<dyn Lender>, range: Range<usize>) -> Option<Self> {
        let bytes = (**lender).as_ref().get(range.clone())?;
        bytemuck::try_cast_slice::<u8, T>(bytes).ok()?;
        Some(Self::Lent(Arc::clone(lender), range))
    }

    /// The values, to be changed.
    pub fn own(&mut self) -> &mut Vec<T> {
        loop {
            match self {
                Self::Own(values) => return values,
                Self::Lent(..) => *self = Self::Own(self.to_vec()),
            }
        }
    }
}

impl<T: Pod> Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Own(values) => values,
            // It was verified when it was lent.
            Self::Lent(lender, range) => {
                let bytes = promised((**lender).as_ref().get(range.clone()), "a lender keeps its bytes");
                promised(bytemuck::try_cast_slice(bytes).ok(), "lent bytes stay aligned")
            }
        }
    }
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Column<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}
