//! SHA-256 in lower-case hexadecimal: the identity of libraries and priors, checkable with any tool.

use sha2::{Digest, Sha256};

/// The SHA-256 digest of `bytes` as 64 lower-case hexadecimal characters.
pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        text.extend([byte >> 4, byte & 15].iter().filter_map(|d| char::from_digit(u32::from(*d), 16)));
        text
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn agrees_with_the_published_test_vector() {
        assert_eq!(super::hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
