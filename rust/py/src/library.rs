//! Wraps `tfgrpo_core::Library`.

use std::collections::BTreeMap;
use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyBytes;
use tfgrpo_core::{Error, Lender, Operation, TokenPrior, Tokenizer, Twin};

use crate::error::refused;

#[pyclass(frozen, module = "tfgrpo._core")]
pub struct Library(tfgrpo_core::Library);

/// Text, ids, tokens, digest, and the character and token at which the part for one batch begins.
type Prior = (String, Vec<String>, u64, String, (usize, u64));

#[pymethods]
impl Library {
    #[new]
    fn new() -> Self {
        Self(tfgrpo_core::Library::default())
    }

    #[staticmethod]
    #[pyo3(signature = (data, index=None))]
    fn from_json(py: Python<'_>, data: &[u8], index: Option<PyBuffer<u8>>) -> PyResult<Self> {
        let index: Option<Arc<dyn Lender>> =
            index.map(Lent::new).transpose()?.map(|lent| Arc::new(lent) as _);
        py.detach(|| match &index {
            Some(index) => tfgrpo_core::Library::from_json_and_index(data, index),
            None => tfgrpo_core::Library::from_json(data),
        })
        .map(Self)
        .map_err(refused)
    }

    fn to_json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| self.0.to_json()).map_err(refused)?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn to_index<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let bytes = py.detach(|| self.0.to_index());
        PyBytes::new(py, &bytes)
    }

    fn entries_json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| self.0.entries_json()).map_err(refused)?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn entry_json<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let json = self.0.entry_json(id).map_err(refused)?;
        Ok(json.map(|json| PyBytes::new(py, &json)))
    }

    fn id_of(&self, name: &str) -> Option<String> {
        self.0.find(name).map(|entry| entry.id.to_string())
    }

    #[pyo3(signature = (operations, vectors=None))]
    fn apply<'py>(
        &self,
        py: Python<'py>,
        operations: &[u8],
        vectors: Option<PyBuffer<f32>>,
    ) -> PyResult<(Self, Bound<'py, PyBytes>)> {
        let vectors = numbers(py, vectors)?;
        let (library, report) = py
            .detach(|| {
                let (library, report) = self.0.apply_with(Operation::list_from_json(operations)?, &vectors);
                Ok((library, report.to_json()?))
            })
            .map_err(refused)?;
        Ok((Self(library), PyBytes::new(py, &report)))
    }

    fn with_credit(&self, credit: BTreeMap<String, f64>) -> PyResult<Self> {
        self.0.with_credit(&credit).map(Self).map_err(refused)
    }

    fn with_tokenizer(&self, py: Python<'_>, tokenizer: &str) -> PyResult<Self> {
        let tokenizer = tokenizer_named(tokenizer)?;
        Ok(Self(py.detach(|| self.0.with_tokenizer(tokenizer))))
    }

    fn with_vectors(&self, py: Python<'_>, vectors: PyBuffer<f32>, dimensions: usize) -> PyResult<Self> {
        let vectors = numbers(py, Some(vectors))?;
        py.detach(|| self.0.with_vectors(&vectors, dimensions)).map(Self).map_err(refused)
    }

    #[pyo3(signature = (text, k, vector=None))]
    fn judge<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        k: usize,
        vector: Option<PyBuffer<f32>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let vector = vector.map(|vector| numbers(py, Some(vector))).transpose()?;
        let json = py.detach(|| self.0.judge(text, vector.as_deref(), k).to_json()).map_err(refused)?;
        Ok(PyBytes::new(py, &json))
    }

    fn deduplicate<'py>(
        &self,
        py: Python<'py>,
        data: &[u8],
        offsets: PyBuffer<u64>,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let offsets = offsets.to_vec(py)?;
        let (texts, experiences) = py
            .detach(|| {
                let texts = tfgrpo_core::text::cut(data, &offsets)?;
                let twins = self.0.deduplicate(&texts);
                let (mut texts, mut experiences) = (Vec::new(), Vec::new());
                for twin in twins {
                    let (text, experience) = match twin {
                        None => (-1, 0),
                        Some(Twin::Text(place)) => {
                            let place = i64::try_from(place);
                            (place.map_err(|_| Error::Invariant("a place fits into 63 bits"))?, 0)
                        }
                        Some(Twin::Experience(id)) => (-1, u64::from(id.number().get())),
                    };
                    texts.extend_from_slice(&text.to_ne_bytes());
                    experiences.extend_from_slice(&experience.to_ne_bytes());
                }
                Ok::<_, Error>((texts, experiences))
            })
            .map_err(refused)?;
        Ok((PyBytes::new(py, &texts), PyBytes::new(py, &experiences)))
    }

    #[pyo3(signature = (questions, each, vectors=None))]
    fn relevant(
        &self,
        py: Python<'_>,
        questions: Vec<PyBackedStr>,
        each: usize,
        vectors: Option<PyBuffer<f32>>,
    ) -> PyResult<Vec<String>> {
        let vectors = numbers(py, vectors)?;
        let found = py.detach(|| self.0.relevant(&strs(&questions), &vectors, each));
        Ok(found.iter().map(ToString::to_string).collect())
    }

    #[pyo3(signature = (heading, token_budget, questions=Vec::new(), each=0, vectors=None))]
    fn prior(
        &self,
        py: Python<'_>,
        heading: &str,
        token_budget: u64,
        questions: Vec<PyBackedStr>,
        each: usize,
        vectors: Option<PyBuffer<f32>>,
    ) -> PyResult<Prior> {
        let vectors = numbers(py, vectors)?;
        let TokenPrior { text, ids, tokens, digest, stable } = py.detach(|| {
            self.0.prior_with(heading, token_budget, |library| {
                library.relevant(&strs(&questions), &vectors, each)
            })
        });
        Ok((text, ids.iter().map(ToString::to_string).collect(), tokens, digest, stable))
    }

    #[getter]
    fn version(&self) -> u64 {
        self.0.version()
    }

    #[getter]
    fn next_id(&self) -> u64 {
        self.0.next_id()
    }

    #[getter]
    fn digest(&self) -> &str {
        self.0.digest()
    }

    #[getter]
    fn tokenizer(&self) -> &'static str {
        self.0.tokenizer().name()
    }

    #[getter]
    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

/// The tokeniser with this name.
pub fn tokenizer_named(name: &str) -> PyResult<Tokenizer> {
    Tokenizer::parse(name).ok_or_else(|| refused(Error::Tokenizer(name.to_owned())))
}

fn strs(texts: &[PyBackedStr]) -> Vec<&str> {
    texts.iter().map(|text| &**text).collect()
}

fn numbers(py: Python<'_>, buffer: Option<PyBuffer<f32>>) -> PyResult<Vec<f32>> {
    buffer.map_or(Ok(Vec::new()), |buffer| buffer.to_vec(py))
}

/// The bytes of an object that keeps them.
struct Lent {
    buffer: PyBuffer<u8>,
}

impl Lent {
    fn new(buffer: PyBuffer<u8>) -> PyResult<Self> {
        if !buffer.is_c_contiguous() || !buffer.readonly() {
            return Err(refused(Error::Index("give it as read-only contiguous bytes".to_owned())));
        }
        Ok(Self { buffer })
    }
}

impl AsRef<[u8]> for Lent {
    #[allow(unsafe_code)]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the buffer is contiguous and read-only (`new`), so `buf_ptr` leads to `len_bytes` bytes that nobody
        // changes through it, and its exporter is held, and may not move it, as long as the buffer is.
        unsafe { std::slice::from_raw_parts(self.buffer.buf_ptr().cast(), self.buffer.len_bytes()) }
    }
}
