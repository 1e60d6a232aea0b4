//! A promise that code makes to itself, where no error can be returned.

/// The value that is promised to be there. A broken promise stops a debug build; a release build goes on with the type's
/// default, which is safe: an empty slice or text, a zero.
///
/// Where a `Result` can be returned, [`Error::Invariant`](crate::Error::Invariant) takes its place.
#[inline(always)]
#[allow(clippy::inline_always)] // it stands in the loops that SIMD dispatch compiles for each instruction set
pub(crate) fn promised<T: Default>(value: Option<T>, promise: &str) -> T {
    debug_assert!(value.is_some(), "broken promise: {promise}");
    value.unwrap_or_default()
}
