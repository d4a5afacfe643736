//! Where the heads of a tensor lie in memory.

/// Why attention refused its arguments. Nothing is written when one of these is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttentionError {
    /// A size or stride that cannot be run.
    #[error("attention: {what}: {reason}")]
    Shape {
        /// Which argument is meant.
        what: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A slice that ends before the last value its layout names.
    #[error("attention: {what}: the layout reaches {needed} values, the slice holds {found}")]
    Length {
        /// Which argument is meant.
        what: &'static str,
        /// Values that the layout needs.
        needed: usize,
        /// Values in the slice.
        found: usize,
    },
}

/// Sizes and strides (in values) of `(batch, heads, tokens, head_dim)`; the values of a head lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLayout {
    /// How many independent sequences.
    pub batch: usize,
    /// Heads of each.
    pub heads: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Values of one token in one head.
    pub head_dim: usize,
    /// Distance from one sequence to the next.
    pub batch_stride: usize,
    /// Distance from one head to the next.
    pub head_stride: usize,
    /// Distance from one token to the next.
    pub token_stride: usize,
}

impl HeadLayout {
    /// `(batch, heads, tokens, head_dim)`, dense: each head's tokens lie together.
    pub fn heads_major(batch: usize, heads: usize, tokens: usize, head_dim: usize) -> Self {
        let head_stride = tokens.saturating_mul(head_dim);
        Self {
            batch,
            heads,
            tokens,
            head_dim,
            batch_stride: heads.saturating_mul(head_stride),
            head_stride,
            token_stride: head_dim,
        }
    }

    /// `(batch, tokens, heads · head_dim)`, dense: what a projection gives and the next one takes.
    pub fn tokens_major(batch: usize, heads: usize, tokens: usize, head_dim: usize) -> Self {
        let token_stride = heads.saturating_mul(head_dim);
        Self {
            batch,
            heads,
            tokens,
            head_dim,
            batch_stride: tokens.saturating_mul(token_stride),
            head_stride: head_dim,
            token_stride,
        }
    }

    /// How many values a slice must hold, or why the layout cannot be run.
    pub(super) fn extent(&self, what: &'static str) -> Result<usize, AttentionError> {
        let sizes = [self.batch, self.heads, self.tokens, self.head_dim];
        if sizes.contains(&0) {
            return Err(AttentionError::Shape {
                what,
                reason: format!("(batch, heads, tokens, head_dim) is {sizes:?}; every size must be at least 1"),
            });
        }
        self.axes()
            .iter()
            .try_fold(self.head_dim, |extent, &(size, stride)| (size - 1).checked_mul(stride)?.checked_add(extent))
            .filter(|&extent| extent <= isize::MAX as usize / size_of::<f32>())
            .ok_or_else(|| AttentionError::Shape { what, reason: format!("{self:?} reaches further than memory can") })
    }

    /// Refuses a layout in which two values could share a place, so that it can be written in parallel.
    pub(super) fn expect_disjoint(&self, what: &'static str) -> Result<(), AttentionError> {
        let mut axes = self.axes();
        axes.sort_by_key(|&(_, stride)| stride);
        let mut span = self.head_dim;
        for (size, stride) in axes {
            if size == 1 {
                continue;
            }
            if stride < span {
                return Err(AttentionError::Shape {
                    what,
                    reason: format!(
                        "in {self:?} rows overlap: a stride of {stride} is less than the {span} values it must step over"
                    ),
                });
            }
            span += (size - 1) * stride;
        }
        Ok(())
    }

    /// Where the values of one token begin.
    #[inline(always)]
    pub(super) fn offset(&self, batch: usize, head: usize, token: usize) -> usize {
        batch * self.batch_stride + head * self.head_stride + token * self.token_stride
    }

    fn axes(&self) -> [(usize, usize); 3] {
        [(self.batch, self.batch_stride), (self.heads, self.head_stride), (self.tokens, self.token_stride)]
    }
}
