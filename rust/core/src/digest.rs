//! SHA-256: the identity of libraries and priors, checkable with any tool.

use sha2::{Digest, Sha256};

/// A SHA-256 digest.
pub type Sum = [u8; 32];

/// The SHA-256 digest of `bytes` as 64 lower-case hexadecimal characters.
pub fn hex(bytes: &[u8]) -> String {
    written(&sum(bytes))
}

/// The SHA-256 digest of `bytes`.
pub fn sum(bytes: &[u8]) -> Sum {
    Sha256::digest(bytes).into()
}

/// A digest in hexadecimal.
pub fn written(sum: &Sum) -> String {
    sum.iter().fold(String::with_capacity(64), |mut text, byte| {
        text.extend([byte >> 4, byte & 15].iter().filter_map(|d| char::from_digit(u32::from(*d), 16)));
        text
    })
}

/// The digest of a node of a tree: its number, how many are below it, and their digests.
pub fn tree(number: u64, below: &[Sum]) -> Sum {
    let mut hash = Sha256::new();
    hash.update(number.to_be_bytes());
    hash.update((below.len() as u64).to_be_bytes());
    for sum in below {
        hash.update(sum);
    }
    hash.finalize().into()
}

/// Bytes under a digest: every field as a netstring ("5:hello"), every list led by its length.
#[derive(Default)]
pub(crate) struct Netstrings(Vec<u8>);

impl Netstrings {
    pub fn put(&mut self, field: &str) {
        self.number(field.len() as u64);
        self.0.push(b':');
        self.0.extend_from_slice(field.as_bytes());
    }

    /// A number as a field.
    pub fn count(&mut self, number: u64) {
        let digits = number.max(1).ilog10() + 1; // 0 has one digit, like 1
        self.number(u64::from(digits));
        self.0.push(b':');
        self.number(number);
    }

    /// Its decimal digits, without a String in between.
    fn number(&mut self, number: u64) {
        if number > 9 {
            self.number(number / 10);
        }
        self.0.push(b'0' + (number % 10) as u8);
    }

    pub fn list<T: AsRef<str>>(&mut self, items: &[T]) {
        self.count(items.len() as u64);
        for item in items {
            self.put(item.as_ref());
        }
    }

    pub fn sum(&self) -> Sum {
        sum(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn agrees_with_the_published_test_vector() {
        assert_eq!(super::hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn fields_are_netstrings() {
        let mut fields = super::Netstrings::default();
        fields.put("hello");
        fields.count(0);
        fields.count(120);
        fields.list(&["", "ab"]);
        assert_eq!(fields.0, b"5:hello1:03:1201:20:2:ab");
    }
}
