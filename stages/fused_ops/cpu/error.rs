//! What can be wrong with a call of these kernels, said before any work is done.

/// Why a kernel refused its arguments.
///
/// Nothing is written to the output when one of these is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// A slice does not hold as many values as the shape says.
    #[error("{what}: {found} values given, {expected} needed for shape {shape}")]
    Length {
        /// Which argument is meant.
        what: &'static str,
        /// The shape that the slice should fill.
        shape: String,
        /// Values the shape needs.
        expected: usize,
        /// Values the slice holds.
        found: usize,
    },
    /// A shape that no kernel can run: zero sizes, or more values than can be addressed.
    #[error("{what}: {reason}")]
    Shape {
        /// Which argument is meant.
        what: &'static str,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
}

/// Multiplies sizes; an overflow is an error that names `what`.
pub(super) fn product(what: &'static str, sizes: &[usize]) -> Result<usize, KernelError> {
    sizes
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
        // Slices end at isize::MAX bytes, and padding may still be added to the sizes.
        .filter(|&count| count < isize::MAX as usize / 64)
        .ok_or_else(|| KernelError::Shape {
            what,
            reason: format!("shape {sizes:?} has more values than memory can hold"),
        })
}

/// Checks that `found` values fill the shape `sizes` exactly.
pub(super) fn expect_length(what: &'static str, sizes: &[usize], found: usize) -> Result<(), KernelError> {
    let expected = product(what, sizes)?;
    if expected == found {
        return Ok(());
    }
    Err(KernelError::Length { what, shape: format!("{sizes:?}"), expected, found })
}

/// Refuses a shape in which a size is zero.
pub(super) fn expect_nonzero(what: &'static str, sizes: &[usize]) -> Result<(), KernelError> {
    if sizes.contains(&0) {
        return Err(KernelError::Shape {
            what,
            reason: format!("shape {sizes:?} has a size of zero; every size must be at least 1"),
        });
    }
    Ok(())
}
