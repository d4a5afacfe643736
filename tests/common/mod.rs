//! What several test programs share.

/// Says that a test is skipped and what is `missing`; where `MIRAGE_TEST_ALL` is set, that is a failure.
#[track_caller]
pub fn skip(missing: &str) {
    assert!(std::env::var_os("MIRAGE_TEST_ALL").is_none(), "MIRAGE_TEST_ALL is set, but {missing}");
    println!("skipped: {missing}");
}
