//! What goes into admission and what comes out of it.

use super::meter::Kind;

/// What the user says that the provider allows. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Calls in flight at once.
    pub concurrency: Option<u64>,
    /// Calls a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute, in and out together.
    pub tokens_per_minute: Option<u64>,
    /// Tokens in a minute.
    pub input_tokens_per_minute: Option<u64>,
    /// Tokens out a minute.
    pub output_tokens_per_minute: Option<u64>,
}

/// What a call uses, or is expected to: tokens in and out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of the answers.
    pub output: u64,
}

impl Demand {
    pub(super) fn of(self, kind: Kind) -> f64 {
        match kind {
            Kind::Requests => 1.0,
            Kind::Tokens => self.input.saturating_add(self.output) as f64,
            Kind::InputTokens => self.input as f64,
            Kind::OutputTokens => self.output as f64,
        }
    }
}

/// How a granted call ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// It was answered and used this much; `None`: as much as was expected, as far as is known.
    Done(Option<Demand>),
    /// 429: it used nothing, and asks for a pause of so many seconds, if it says.
    RateLimited(Option<f64>),
    /// 503 or 529: it used nothing; growth stands still, and the pause is kept if one is asked for.
    Overloaded(Option<f64>),
    /// No answer in time; what it used is not known.
    TimedOut,
    /// It failed otherwise and used nothing.
    Failed,
}

/// What a poll found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Poll {
    /// The tickets that may go now, in order.
    pub granted: Vec<u64>,
    /// When to poll again even if nothing is released; `None`: only a submission or release can change anything.
    pub next_wake: Option<f64>,
}

/// What the head of the queue waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Nobody waits, or the next poll will grant.
    None,
    /// The provider paused all grants.
    Cut,
    /// All places are taken.
    Concurrency,
    /// Requests, configured or told by headers.
    Requests,
    /// Tokens in and out together.
    Tokens,
    /// Tokens in.
    InputTokens,
    /// Tokens out.
    OutputTokens,
    /// Nothing is known of the provider yet.
    Ramp,
    /// A limit that only 429s tell.
    Hidden,
}

impl Binding {
    /// Its name, as progress displays show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cut => "provider cut",
            Self::Concurrency => "concurrency",
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input tokens",
            Self::OutputTokens => "output tokens",
            Self::Ramp => "ramp",
            Self::Hidden => "hidden limit",
        }
    }

    pub(super) const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Requests => Self::Requests,
            Kind::Tokens => Self::Tokens,
            Kind::InputTokens => Self::InputTokens,
            Kind::OutputTokens => Self::OutputTokens,
        }
    }
}

/// The state at one instant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// Calls granted and not released.
    pub in_flight: usize,
    /// Calls that wait.
    pub waiting: usize,
    /// When the pause after a 429 ends, while there is one.
    pub paused_until: Option<f64>,
    /// What the head of the queue waits for.
    pub binding: Binding,
    /// Calls that may be in flight at once; `None` is unbounded.
    pub places: Option<u64>,
    /// Calls a second that the rates permit a call like the head of the queue, or of one token; `None` is unbounded.
    pub permitted: Option<f64>,
    /// Calls sent a second, over the last ten seconds.
    pub achieved: f64,
    /// 429s so far.
    pub limited: u64,
}
