//! Waiting for what must come to pass, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// Between two looks. Short against everything that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `look` finds something; fails the test with `what` if that takes too long.
#[track_caller]
pub(crate) fn until<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    match within(limit, &mut look) {
        Some(found) => found,
        None => panic!("not within {limit:?}: {what}"),
    }
}

/// The same, where it may also not come to pass.
pub(crate) fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(LOOK_EVERY);
    }
}
