//! A buffer of f32 on cache-line bounds, kept by a thread from call to call.

/// f32 scratch whose start lies on a cache line, so that no aligned vector straddles two.
#[derive(Debug, Default)]
pub struct Scratch {
    lines: Vec<Line>,
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Scratch {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// At least `len` f32 with whatever was left in them, zeros at first. Grows, never shrinks.
    pub fn take(&mut self, len: usize) -> &mut [f32] {
        let lines = len.div_ceil(16);
        if self.lines.len() < lines {
            // Nothing has to be kept, so nothing is copied.
            self.lines = vec![Line([0.0; 16]); lines];
        }
        // SAFETY: `lines` holds `16 · lines` initialised f32 in a row, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), lines * 16) }
    }
}
