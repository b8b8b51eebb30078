//! The one table of names: every metric, and every attribute of spans. Exporters, dashboards, alert rules and their page are held to it.

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many values are at most so large.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// How the numbers of several processes are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Together {
    /// They add up.
    Sum,
    /// The largest is taken.
    Most,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// In full, with the suffix that its kind asks for.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Of the base units; empty for a plain count.
    pub unit: &'static str,
    /// What its series are told apart by.
    pub labels: &'static [&'static str],
    /// Over several processes.
    pub together: Together,
    /// What it says, in a line.
    pub help: &'static str,
    place: usize,
}

impl Metric {
    /// Its place in [`METRICS`].
    pub fn place(&self) -> usize {
        self.place
    }

    /// What OpenMetrics calls the family: a counter's samples have a suffix that it has not.
    pub fn family(&self) -> &'static str {
        self.name.strip_suffix("_total").filter(|_| self.kind == Kind::Counter).unwrap_or(self.name)
    }
}

/// The upper limits of a histogram's buckets, in seconds. A bucket holds what is over the limit before it.
pub const BUCKETS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0];

/// Makes a constant for each row, and the table.
macro_rules! metrics {
    ($($constant:ident = $name:literal, $kind:ident, $unit:literal, [$($label:literal),*], $together:ident, $help:literal;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)] // the rows' numbers
        enum Row { $($constant,)* }
        $(
            #[doc = $help]
            pub static $constant: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                together: Together::$together,
                help: $help,
                place: Row::$constant as usize,
            };
        )*
        /// Every metric.
        pub static METRICS: &[&Metric] = &[$(&$constant,)*];
    };
}

metrics! {
    CALLS = "seawall_calls_total", Counter, "", ["pipeline", "model", "endpoint", "outcome"], Sum,
        "Calls that are over, by outcome: ok, or the class of the error that was raised";
    CALLS_ABANDONED = "seawall_calls_abandoned_total", Counter, "", ["pipeline", "model", "endpoint"], Sum,
        "Calls that were cancelled or closed early after something was sent; they have no outcome";
    REQUESTS = "seawall_requests_total", Counter, "", ["pipeline", "model", "endpoint", "outcome"], Sum,
        "Attempts (requests, or calls of the function) by outcome: ok, or the class of the error";
    RETRIES = "seawall_retries_total", Counter, "", ["pipeline", "model", "endpoint"], Sum,
        "Attempts after a call's first one at the same model or function";
    FALLBACKS = "seawall_fallbacks_total", Counter, "", ["pipeline", "model", "endpoint"], Sum,
        "Calls that an alternative answered; the labels are those of the alternative";
    TOKENS = "seawall_tokens_total", Counter, "", ["pipeline", "model", "endpoint", "type"], Sum,
        "Tokens used as the provider counts them, by type: input, output";
    COST = "seawall_cost_total", Counter, "", ["pipeline", "model", "endpoint"], Sum,
        "Estimated cost by seawall.prices, in the unit of that table (US dollars)";
    CALL_DURATION = "seawall_call_duration_seconds", Histogram, "seconds", ["pipeline", "model", "endpoint"], Sum,
        "How long calls took, with retries, waits and fallbacks";
    REQUEST_DURATION = "seawall_request_duration_seconds", Histogram, "seconds", ["pipeline", "model", "endpoint"], Sum,
        "How long attempts took whose end was waited for";
    FIRST_TOKEN = "seawall_time_to_first_token_seconds", Histogram, "seconds", ["pipeline", "model", "endpoint"], Sum,
        "From the beginning of a call to the first content of its stream";
    CIRCUIT_STATE = "seawall_circuit_state", Gauge, "", ["name", "state"], Sum,
        "How many circuit breakers of that name are in that state, over all processes";
    CIRCUIT_OPENINGS = "seawall_circuit_openings_total", Counter, "", ["name"], Sum,
        "How often circuit breakers of that name opened";
    CIRCUIT_REJECTIONS = "seawall_circuit_rejections_total", Counter, "", ["name"], Sum,
        "Calls that circuit breakers of that name turned away";
    MONITOR_LEVEL = "seawall_monitor_level", Gauge, "", ["name"], Most,
        "How bad it is by the monitor of that name: 0 normal, 1 warning, 2 critical, 3 emergency";
    PROCESSES = "seawall_processes", Gauge, "", [], Sum,
        "Processes that are alive and whose numbers are in this scrape";
    BUILD_INFO = "seawall_build_info", Gauge, "", ["version"], Most,
        "1, with the version of seawall";
}

/// One attribute of spans or of their events: its name, where it is (`call`, `attempt`, `event`), and what it says.
pub type Attribute = (&'static str, &'static [&'static str], &'static str);

/// Every attribute. Those of others' names are OpenTelemetry's conventions for generative AI, for HTTP and for servers.
pub const ATTRIBUTES: &[Attribute] = &[
    ("gen_ai.operation.name", &["call"], "chat or embeddings, of calls of models"),
    ("gen_ai.provider.name", &["call"], "who serves the model, as far as the host tells; openai for a host that is not known"),
    ("gen_ai.request.model", &["call", "attempt"], "the model that was asked"),
    ("gen_ai.request.stream", &["call"], "true where the answer was asked for in pieces"),
    ("gen_ai.response.model", &["call"], "the model that says it answered"),
    ("gen_ai.response.time_to_first_chunk", &["call"], "seconds to the first content of a stream"),
    ("gen_ai.usage.input_tokens", &["call"], "tokens of the prompt, as the provider counts them"),
    ("gen_ai.usage.output_tokens", &["call"], "tokens of the answer"),
    ("server.address", &["call", "attempt"], "the host"),
    ("server.port", &["call", "attempt"], "its port"),
    ("http.response.status_code", &["attempt"], "the HTTP status of a failure"),
    ("http.request.resend_count", &["attempt"], "how many attempts there were before this one"),
    ("error.type", &["call", "attempt", "event"], "the class of the error; on a call that was given up, cancelled"),
    ("seawall.pipeline", &["call"], "the pipeline's name, or the guarded function's"),
    ("seawall.attempts", &["call"], "attempts, of all models or functions together"),
    ("seawall.retries", &["call"], "attempts after the first one at the same model or function"),
    ("seawall.fallback", &["call"], "true where an alternative answered"),
    ("seawall.cost", &["call"], "estimated cost by seawall.prices"),
    ("seawall.request_id", &["attempt"], "the provider's id of the request"),
    ("seawall.place", &["event"], "the pipeline, breaker or model where it happened"),
    ("seawall.number", &["event"], "attempts made, or the number of the alternative"),
    ("seawall.seconds", &["event"], "the wait that follows, or the time taken"),
    ("seawall.reason", &["event"], "why, where there are several reasons"),
];

/// One instrument of OpenTelemetry's: its name, kind, unit and meaning.
pub type Instrument = (&'static str, &'static str, &'static str, &'static str);

/// Every instrument.
pub const INSTRUMENTS: &[Instrument] = &[
    ("gen_ai.client.operation.duration", "histogram", "s", "how long calls of models took, with retries, waits and fallbacks"),
    ("gen_ai.client.token.usage", "histogram", "{token}", "tokens of a call, by gen_ai.token.type: input, output"),
    ("gen_ai.client.operation.time_to_first_chunk", "histogram", "s", "seconds to the first content of a stream"),
    ("seawall.call.duration", "histogram", "s", "how long calls of guarded functions took"),
    ("seawall.requests", "counter", "{request}", "attempts, by error.type where they failed"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for (place, metric) in METRICS.iter().enumerate() {
            assert_eq!(metric.place(), place);
            assert!(
                metric.name.starts_with("seawall_") && metric.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{}",
                metric.name
            );
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.unit.is_empty() || metric.family().ends_with(metric.unit), "{}", metric.name);
            assert!(METRICS[place + 1..].iter().all(|other| other.family() != metric.family()), "{}", metric.name);
        }
        assert!(BUCKETS.is_sorted());
    }
}
