//! Schedules and samplers.
