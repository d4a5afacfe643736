//! Schedules and samplers.
/// One update of a sampler: `x0 = clip(a·x + b·output)`, `next = c·x + d·output + e·x0 + s·noise`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// a
    pub x0_from_x: f64,
    /// b
    pub x0_from_output: f64,
    /// Bound of x0 on both sides.
    pub clip: Option<f64>,
    /// c
    pub next_from_x: f64,
    /// d
    pub next_from_output: f64,
    /// e
    pub next_from_x0: f64,
    /// s
    pub next_from_noise: f64,
}
/// Stand-in until the samplers land.
#[derive(Debug, thiserror::Error)]
pub enum Error {}
