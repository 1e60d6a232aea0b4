//! What the server does, as one JSON object: given on the command line or by `POST /configure`.

use serde::Deserialize;

/// All settings; what is left out has its default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long answers take.
    pub latency: Latency,
    /// Bytes of an answer's text.
    pub answer_bytes: Option<usize>,
    /// Pieces of a streamed answer; 40 by default.
    pub chunks: Option<u32>,
    /// Tokens of one answer; 100 by default. Prompt tokens are a quarter of the request's bytes.
    pub completion_tokens: Option<u64>,
    /// What is permitted.
    pub limit: Limit,
    /// Canned answers: the first rule whose text stands in the request's body; without one, filler.
    pub answers: Vec<Rule>,
    /// Keep what is known of each key for `GET /counts?keys=1`.
    pub record_keys: bool,
}

/// Canned answers to requests whose body holds `contains`, one of them by the call's hash.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What the body must hold, byte for byte.
    pub contains: String,
    /// The answers to choose from.
    pub choices: Vec<String>,
}

/// Constant, or log-normal around `seconds` with a share of stragglers. The call's hash decides.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latency {
    /// The median.
    pub seconds: f64,
    /// Standard deviation of the logarithm; 0 is a constant.
    pub sigma: f64,
    /// How many of the calls are stragglers, 0 to 1.
    pub straggler_share: f64,
    /// How many times longer a straggler takes.
    pub straggler_factor: f64,
    /// Another seed gives other calls other times.
    pub seed: u64,
}

/// What the limiter permits, and what it says about it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limit {
    /// Calls a second; none is no limit.
    pub rate: Option<f64>,
    /// The bucket's size in calls; 1 at least.
    pub burst: f64,
    /// Seconds of a fixed window, in place of a bucket: `rate * window` calls in each.
    pub window: Option<f64>,
    /// Tokens a minute, in and out together; charged when a call is let through.
    pub tokens_per_minute: Option<f64>,
    /// The token bucket's size.
    pub token_burst: f64,
    /// Somebody else who takes from the same bucket.
    pub stranger: Option<Stranger>,
    /// What the headers say.
    pub headers: Headers,
    /// The rate from some second on.
    pub changes: Vec<Change>,
    /// Whether a 429 carries `retry-after` and `retry-after-ms`.
    pub retry_after: bool,
}

/// Comes for `on` seconds, goes for `off` seconds, and takes `rate` calls a second while here.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stranger {
    /// Calls a second.
    pub rate: f64,
    /// Seconds of presence; it begins absent.
    pub on: f64,
    /// Seconds of absence.
    pub off: f64,
}

/// From `at` seconds after the first request the rate is `rate`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Seconds.
    pub at: f64,
    /// Calls a second.
    pub rate: f64,
}

/// What the limit headers say.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Headers {
    /// The truth.
    #[default]
    Exact,
    /// Nothing.
    Hidden,
    /// Twice the limit, and all of it left, always.
    Lie,
}
