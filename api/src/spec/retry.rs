//! The key `retry`.

use quorate_model::workflow::validate::RETRIES_MAX;
use quorate_model::workflow::{Retry, RetryCause};

use super::Code;
use super::document::Value;
use super::section::{Item, Reader, Schema};

/// The largest factor that delays may grow by: more is a slip.
const BACKOFF_MAX: f64 = 100.0;

pub(super) const RETRY: Schema = Schema {
    what: "`retry`",
    keys: &["limit", "delay", "backoff", "max_delay", "jitter", "on"],
    spellings: &[("interval_sec", "delay"), ("max_interval_sec", "max_delay"), ("exit_code", "on")],
    later: &[],
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
    if let Some(item) = fields.get("jitter") {
        retry.jitter_permille = jitter(reader, item);
    }
    if let Some(item) = fields.get("on") {
        reader.one_or_more(item, "a failure or a list of them", |reader, item| {
            retry.on.extend(cause(reader, item));
        });
    }
    retry
}

fn jitter<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> u32 {
    let Some(scalar) = reader.scalar(item, "a number") else { return 0 };
    match scalar.json().as_f64().filter(|share| (0.0..=1.0).contains(share)) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1")]
        Some(share) => (share * 1_000.0).round() as u32,
        None => {
            let message = "`jitter` must be a number from 0 to 1".to_owned();
            reader.bad_value(item, Code::BadValue, message);
            0
        }
    }
}

/// `exit:75`, or the code alone.
fn cause<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Option<RetryCause> {
    let text = reader.fixed(item)?;
    let known = match text {
        "exit" => Some(RetryCause::Exit),
        "signal" => Some(RetryCause::Signal),
        "timeout" => Some(RetryCause::Timeout),
        "worker_lost" => Some(RetryCause::WorkerLost),
        other => {
            let code = other.strip_prefix("exit:").unwrap_or(other).trim().parse::<i32>();
            code.ok().filter(|code| (1..=255).contains(code)).map(RetryCause::ExitCode)
        }
    };
    if known.is_none() {
        let message = format!(
            "{text:?} is no failure; say exit, exit:75 (1 to 255), signal, timeout or worker_lost"
        );
        reader.bad_value(item, Code::BadValue, message);
    }
    known
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
