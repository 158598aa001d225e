//! `http`: a request.

use serde_json::{Map, Value as Json, json};

use super::super::document::Value;
use super::super::report::Path;
use super::super::section::{Item, Reader, Schema};
use super::super::{Code, name};
use super::{Response, template, templates, tree};

/// Redirects that a request may follow: more is a loop.
const REDIRECTS_MAX: u32 = 20;

/// Statuses that a task may name.
const STATUSES_MAX: usize = 50;

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

pub(in crate::spec) const HTTP: Schema = Schema {
    what: "`http`",
    keys: &[
        "method",
        "url",
        "query",
        "headers",
        "body",
        "json",
        "form",
        "expect",
        "timeout",
        "redirects",
        "tls",
        "job",
    ],
    spellings: &[("uri", "url"), ("data", "body"), ("params", "query")],
    later: &[],
    hints: &[("auth", "say it in `headers`, as `authorization: Bearer ...`, from a secret")],
};

pub(in crate::spec) const EXPECT: Schema = Schema {
    what: "`expect`",
    keys: &["status", "condition"],
    spellings: &[("when", "condition")],
    later: &[],
    hints: &[("body", "say `condition: response.text == \"ok\"`")],
};

pub(in crate::spec) const TLS: Schema = Schema {
    what: "`tls`",
    keys: &["ca", "verify"],
    spellings: &[],
    later: &["cert", "key"],
    hints: &[],
};

pub(in crate::spec) const JOB: Schema = Schema {
    what: "`job`",
    keys: &["poll", "every", "done", "failed"],
    spellings: &[("url", "poll"), ("interval", "every")],
    later: &["cancel"],
    hints: &[],
};

/// Reads `http`, and the `outputs` of its task. Answers what the worker is told.
pub(in super::super) fn read<'n>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    outputs: Option<Item<'n, '_>>,
    index: usize,
) -> Json {
    let mut params = Map::new();
    let mut response = Response::default();
    response.outputs(reader, outputs);
    if let Value::Scalar(_) = item.node.value {
        let url = template(reader, item, index);
        params.extend(url.map(|url| ("url".to_owned(), json!(url))));
    } else {
        request(reader, item, index, &mut params, &mut response);
    }
    response.into_params(&mut params);
    params.into()
}

fn request<'n>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    index: usize,
    params: &mut Map<String, Json>,
    response: &mut Response,
) {
    let Some(fields) = reader.fields(item.node, &item.path, &HTTP) else { return };
    let mut put = |key: &str, value: Option<Json>| {
        params.extend(value.map(|value| (key.to_owned(), value)));
    };
    let get = |key| fields.get(key);
    put("method", get("method").and_then(|item| method(reader, item)));
    match get("url") {
        Some(item) => put("url", template(reader, item, index).map(Json::from)),
        None if fields.is_refused => {}
        None => {
            let message = "`http` needs a `url`".to_owned();
            reader.report.error(Code::MissingKey, fields.place, &item.path, message);
        }
    }
    put("query", get("query").map(|item| templates(reader, item, index).into()));
    put("headers", get("headers").map(|item| headers(reader, item, index)));
    let bodies = ["body", "json", "form"].map(|key| get(key).map(|item| (key, item)));
    put("body", body(reader, &bodies, index));
    put("timeout_ms", get("timeout").and_then(|item| reader.timeout(item)).map(|ms| json!(ms.0)));
    put(
        "redirects",
        get("redirects").and_then(|item| reader.whole(item, REDIRECTS_MAX)).map(Json::from),
    );
    put("tls", get("tls").and_then(|item| tls(reader, item)));
    if let Some(item) = get("expect") {
        expect(reader, item, response);
    }
    put("job", get("job").and_then(|item| job(reader, item, index, response)));
}

fn method<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Option<Json> {
    let text = reader.fixed(item)?;
    let method = text.to_ascii_uppercase();
    if METHODS.contains(&method.as_str()) {
        return Some(method.into());
    }
    let help = match name::nearest(text, METHODS) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known are {}", METHODS.join(", ")),
    };
    let message = format!("{text:?} is no method");
    reader.report.error_with_help(Code::BadValue, item.node.place, &item.path, message, help);
    None
}

fn headers<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>, index: usize) -> Json {
    let texts = templates(reader, item, index);
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    for header in texts.keys().filter(|name| name.is_empty() || !name.bytes().all(is_token)) {
        let message = format!("{header:?} is no name of a header");
        reader.bad_value(item, Code::BadName, message);
    }
    texts.into()
}

/// `body` as it is, `json` or `form`: one of them.
fn body<'n>(
    reader: &mut Reader<'n>,
    given: &[Option<(&str, Item<'n, '_>)>],
    index: usize,
) -> Option<Json> {
    let mut given = given.iter().flatten();
    let (key, item) = *given.next()?;
    if let Some((other, item)) = given.next() {
        let message = format!("`{key}` and `{other}` exclude each other");
        let place = item.key.map_or(item.node.place, |key| key.place);
        reader.report.error(Code::Conflict, place, &item.path, message);
    }
    Some(match key {
        "json" => json!({ "json": tree(reader, item, index) }),
        "form" => json!({ "form": templates(reader, item, index) }),
        _ => json!({ "text": template(reader, item, index)? }),
    })
}

fn tls<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Option<Json> {
    let fields = reader.fields(item.node, &item.path, &TLS)?;
    let ca = fields.get("ca").and_then(|item| reader.fixed(item));
    let verify = fields.get("verify").is_none_or(|item| reader.flag(item));
    Some(json!({ "ca": ca, "verify": verify }))
}

fn expect<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>, response: &mut Response) {
    let Some(fields) = reader.fields(item.node, &item.path, &EXPECT) else { return };
    if let Some(item) = fields.get("status") {
        response.0.insert("status".to_owned(), statuses(reader, item));
    }
    response.condition(reader, "condition", fields.get("condition"));
}

fn statuses<'n>(reader: &mut Reader<'n>, item: Item<'n, '_>) -> Json {
    let mut statuses = Vec::new();
    reader.one_or_more(item, "a status or a list of them", |reader, item| {
        match reader.whole(item, 599) {
            Some(status) if status >= 200 => statuses.push(status),
            Some(status) => {
                let message = format!("{status} is no status of a response: 200 to 599 are");
                reader.bad_value(item, Code::BadValue, message);
            }
            None => {}
        }
    });
    if statuses.len() > STATUSES_MAX {
        let message = format!("{} statuses; {STATUSES_MAX} is the most", statuses.len());
        reader.bad_value(item, Code::Limit, message);
    }
    json!(statuses)
}

fn job<'n>(
    reader: &mut Reader<'n>,
    item: Item<'n, '_>,
    index: usize,
    response: &mut Response,
) -> Option<Json> {
    let fields = reader.fields(item.node, &item.path, &JOB)?;
    for (key, why) in [
        ("poll", "where the state of the job is: a URL that is the same for every attempt"),
        ("done", "a condition over that state, as `response.json.state == \"done\"`"),
    ] {
        if fields.get(key).is_none() && !fields.is_refused {
            let message = format!("`job` needs `{key}`");
            let path: &Path<'_> = &item.path;
            let help = why.to_owned();
            reader.report.error_with_help(Code::MissingKey, fields.place, path, message, help);
        }
    }
    response.condition(reader, "done", fields.get("done"));
    response.condition(reader, "failed", fields.get("failed"));
    let poll = fields.get("poll").and_then(|item| template(reader, item, index));
    let every = fields.get("every").and_then(|item| reader.timeout(item));
    Some(json!({ "poll": poll, "every_ms": every.map(|every| every.0) }))
}
