//! Week 2: attention without the tokens x tokens matrix.
use crate::Result;
use crate::ops::Ops;
/// Pass-through until the kernels land.
pub fn install(ops: Ops) -> Result<Ops> {
    Ok(ops)
}
