//! `mirage generate`
