//! Measurement: what is timed, how the numbers are summed up, and how they are shown.
pub mod ceilings;
pub mod chart;
pub mod compare;
pub mod executor;
pub mod memory;
pub mod paced;
pub mod peers;
pub mod present;
pub mod readiness;
pub mod report;
pub mod roofline;
pub mod statistics;
pub mod trace;
