//! What happened since the last `POST /configure`.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// One key's calls; times in seconds since the first request.
pub struct Call {
    /// How often it was served.
    pub served: u32,
    /// How long its answer takes.
    pub latency: f64,
    /// When it was let through, the last time.
    pub admitted: f64,
    /// Prompt and completion tokens.
    pub tokens: u64,
}

/// The counters.
#[derive(Default)]
pub struct Counts {
    /// Chat completions that arrived, refused ones too.
    pub requests: u64,
    /// Answers that were written to the end.
    pub served: u64,
    /// Of those, streams.
    pub streamed: u64,
    /// 429s.
    pub rate_limited: u64,
    /// Calls that were let through and whose client went away before the answer's end.
    pub aborted: u64,
    /// Tokens of served calls, in and out.
    pub tokens: u64,
    /// Sum of the marks of served answers, one for each choice: what an honest client adds up to.
    pub marks: u64,
    /// Calls being answered now.
    pub in_flight: u64,
    /// The most at once.
    pub peak: u64,
    /// When the last call was let through, and when the last answer was complete.
    pub last_admitted: f64,
    /// See above.
    pub last_served: f64,
    /// What the limiter had permitted by then: calls and tokens.
    pub permitted_admitted: (f64, f64),
    /// See above.
    pub permitted_served: (f64, f64),
    /// Seconds since the epoch of the first request.
    pub first: f64,
    /// By key, where that is asked for.
    pub keys: HashMap<String, Call>,
}

impl Counts {
    /// As JSON.
    pub fn json(&self, keys: bool) -> Value {
        let mut value = json!({
            "requests": self.requests, "served": self.served, "streamed": self.streamed, "rate_limited": self.rate_limited,
            "aborted": self.aborted, "tokens": self.tokens, "marks": self.marks, "in_flight": self.in_flight,
            "peak_in_flight": self.peak, "last_admitted": self.last_admitted, "last_served": self.last_served,
            "permitted": self.permitted_served.0, "permitted_tokens": self.permitted_served.1,
            "permitted_admitted": self.permitted_admitted.0, "first": self.first, "server_cpu": cpu(),
        });
        if keys {
            value["keys"] = self
                .keys
                .iter()
                .map(|(key, call)| {
                    let row = json!({"served": call.served, "latency": call.latency,
                        "admitted": call.admitted, "tokens": call.tokens});
                    (key.clone(), row)
                })
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        value
    }
}

/// Seconds since the epoch.
pub fn epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// CPU seconds of this process, which has one thread; 0 where the system does not say.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}
