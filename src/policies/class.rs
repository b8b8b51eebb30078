//! The one table of failure classes: what a failure means for retry, fallback and breaker when nothing else was said.

/// What kind of failure an outcome is. Each error that reaches a policy has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Timeout, connection, 408, 409, 5xx, 529.
    Transient,
    /// 429 with or without `Retry-After`.
    RateLimited,
    /// 429 `insufficient_quota`, 402: waiting does not help, another account may.
    Quota,
    /// 400, 413, 422: the request itself is wrong.
    Permanent,
    /// 401, 403: the credentials are wrong; only other credentials or another endpoint can help.
    Auth,
    /// 404: no such model or path.
    NotFound,
    /// The prompt is too long for the model.
    ContextWindow,
    /// The provider refused the content.
    ContentFilter,
    /// 200 with broken JSON, HTML, no choices, a stream cut short.
    Malformed,
    /// Everything else: a `ValueError`, a user's own exception.
    Unknown,
}

/// When an alternative may be tried for a class, if the user listed none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FallbackRule {
    /// Any alternative.
    Always,
    /// Only an alternative with other credentials or another endpoint.
    OtherCredentials,
    /// Never: the request would fail the same way.
    Never,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The class this row is about.
    pub class: Class,
    /// Its public name, as `seawall.classify` gives it.
    pub name: &'static str,
    /// Retried by default; `None` where only a listed class decides.
    pub retry: Option<bool>,
    /// Which alternatives are tried by default.
    pub fallback: FallbackRule,
    /// Counted as a failure by the breakers of guards and models.
    pub breaker: bool,
}

const fn row(class: Class, name: &'static str, retry: Option<bool>, fallback: FallbackRule, breaker: bool) -> Row {
    Row { class, name, retry, fallback, breaker }
}

/// Every class once, in the order of [`Class`].
pub const CLASSES: [Row; 10] = [
    row(Class::Transient, "transient", Some(true), FallbackRule::Always, true),
    row(Class::RateLimited, "rate_limited", Some(true), FallbackRule::Always, false),
    row(Class::Quota, "quota", Some(false), FallbackRule::Always, false),
    row(Class::Permanent, "permanent", Some(false), FallbackRule::Never, false),
    row(Class::Auth, "auth", Some(false), FallbackRule::OtherCredentials, false),
    row(Class::NotFound, "not_found", Some(false), FallbackRule::Always, false),
    row(Class::ContextWindow, "context_window", Some(false), FallbackRule::Always, false),
    row(Class::ContentFilter, "content_filter", Some(false), FallbackRule::Always, false),
    row(Class::Malformed, "malformed", Some(true), FallbackRule::Always, true),
    row(Class::Unknown, "unknown", None, FallbackRule::Always, false),
];

impl Class {
    /// This class's row.
    pub fn row(self) -> &'static Row {
        &CLASSES[self as usize]
    }

    /// The class of that public name.
    pub fn named(name: &str) -> Option<Class> {
        CLASSES.iter().find(|r| r.name == name).map(|r| r.class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_own_row() {
        for (i, r) in CLASSES.iter().enumerate() {
            assert_eq!(r.class as usize, i);
            assert_eq!(Class::named(r.name), Some(r.class));
        }
    }
}
