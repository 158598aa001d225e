//! The key `retry`.

use quorate_model::workflow::Retry;
use quorate_model::workflow::validate::RETRIES_MAX;

use super::Code;
use super::document::Value;
use super::section::{Item, Reader, Schema};

/// The largest factor that delays may grow by: more is a slip.
const BACKOFF_MAX: f64 = 100.0;

const RETRY: Schema = Schema {
    what: "`retry`",
    keys: &["limit", "delay", "backoff", "max_delay"],
    spellings: &[("interval_sec", "delay"), ("max_interval_sec", "max_delay")],
    later: &["jitter", "on", "exit_code"],
    hints: &[("attempts", "say `limit`: attempts after the first")],
};

/// `retry: 3`, or a mapping.
pub(super) fn read<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Retry {
    let mut retry = Retry::default();
    if let Value::Scalar(_) = item.node.value {
        retry.limit = reader.whole(item, RETRIES_MAX).unwrap_or(0);
        return retry;
    }
    let Some(fields) = reader.fields(item.node, &item.path, &RETRY) else { return retry };
    if let Some(item) = fields.get("limit") {
        retry.limit = reader.whole(item, RETRIES_MAX).unwrap_or(0);
    } else if !fields.is_refused {
        let message = "`retry` needs a `limit`".to_owned();
        let help = "add, for example, `limit: 3`: attempts after the first";
        let place = fields.place;
        reader.report.error_with_help(Code::MissingKey, place, &item.path, message, help);
    }
    if let Some(delay) = fields.get("delay").and_then(|item| reader.duration(item)) {
        retry.delay = delay;
        retry.max_delay = retry.max_delay.max(delay);
    }
    if let Some(item) = fields.get("backoff") {
        retry.backoff_permille = backoff(reader, item);
    }
    if let Some(item) = fields.get("max_delay")
        && let Some(max_delay) = reader.duration(item)
    {
        if max_delay < retry.delay {
            let message = "`max_delay` is shorter than `delay`".to_owned();
            reader.bad_value(item, Code::Conflict, message);
        }
        retry.max_delay = max_delay;
    }
    retry
}

fn backoff<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> u32 {
    let Some(scalar) = reader.scalar(item, "a number") else { return 1_000 };
    match scalar.json().as_f64().filter(|factor| (1.0..=BACKOFF_MAX).contains(factor)) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 100")]
        Some(factor) => (factor * 1_000.0).round() as u32,
        None => {
            let message = format!("`backoff` must be a number from 1 to {BACKOFF_MAX}");
            reader.bad_value(item, Code::BadValue, message);
            1_000
        }
    }
}
