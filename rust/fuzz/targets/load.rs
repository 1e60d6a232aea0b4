//! No bytes make loading panic, and what loads is what was written.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tfgrpo_core::{Lender, Library, Operation, OperationKind};

struct Bytes(Vec<u64>, usize);

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        // Eight bytes at a time, so that the columns are aligned as in a mapped file.
        let bytes = self.0.as_ptr().cast::<u8>();
        unsafe { std::slice::from_raw_parts(bytes, self.1) }
    }
}

fn lent(bytes: &[u8]) -> Arc<dyn Lender> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(8), 0);
    let words = padded.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
    Arc::new(Bytes(words.collect(), bytes.len()))
}

fn sample() -> Library {
    let add = |text: &str| Operation {
        kind: OperationKind::Add,
        target: None,
        text: text.to_owned(),
        base_version: 0,
        source: String::new(),
        index: 0,
        sources: Vec::new(),
        parents: Vec::new(),
    };
    Library::default().apply(vec![add("check the units"), add("when it rains, take cover")]).0
}

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (place, mask, bytes) = input;
    if let Ok(library) = Library::from_json(bytes) {
        let again = Library::from_json(&library.to_json().unwrap()).unwrap();
        assert_eq!(again.digest(), library.digest());
    }
    let library = sample();
    let json = library.to_json().unwrap();
    assert!(Library::from_json_and_index(&json, &lent(bytes)).is_err());
    let mut index = library.to_index();
    let place = usize::from(place) % index.len();
    index[place] ^= mask;
    assert_eq!(Library::from_json_and_index(&json, &lent(&index)).is_ok(), mask == 0);
});
