//! Alerts in words.

use super::alert::{Alert, Kind, Reading};
use super::level::{Level, Metric};

/// The language of the words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Chinese.
    Chinese,
}

impl Alert {
    /// The alert as one line.
    pub fn text(&self, language: Language) -> String {
        let parts: Vec<String> = self.readings.iter().map(|reading| part(reading, self.kind, language)).collect();
        let parts = parts.join(", ");
        match (language, self.kind) {
            (Language::English, Kind::Raised) => format!("ALERT ({}): {parts}", self.level.name()),
            (Language::English, Kind::Escalated) => format!("ALERT escalated ({}): {parts}", self.level.name()),
            (Language::English, Kind::Resolved) => format!("ALERT resolved: {parts}"),
            (Language::Chinese, Kind::Raised) => format!("⚠️  告警: {parts}（{}）", chinese(self.level)),
            (Language::Chinese, Kind::Escalated) => format!("⚠️  告警升级: {parts}（{}）", chinese(self.level)),
            (Language::Chinese, Kind::Resolved) => format!("✅ 告警解除: {parts}"),
        }
    }
}

fn chinese(level: Level) -> &'static str {
    match level {
        Level::Normal => "正常",
        Level::Warning => "警告",
        Level::Critical => "严重",
        Level::Emergency => "紧急",
    }
}

fn part(reading: &Reading, kind: Kind, language: Language) -> String {
    let Reading { metric, value, limit, .. } = *reading;
    let over = kind != Kind::Resolved;
    let percent = value * 100.0;
    match language {
        Language::English => match metric {
            Metric::Outage if over => format!("total outage, {value} failures in a row"),
            Metric::Outage => "calls succeed again".to_owned(),
            Metric::ErrorRate => format!("error rate {percent:.2}% (limit {:.2}%)", limit * 100.0),
            Metric::RetryRate => format!("retry rate {percent:.2}% (limit {:.2}%)", limit * 100.0),
            Metric::AvgLatency => format!("mean latency {value:.2}s (limit {limit:.2}s)"),
        },
        Language::Chinese => {
            let high = if over { "过高" } else { "" };
            match metric {
                Metric::Outage if over => format!("服务完全不可用 连续失败{value}次"),
                Metric::Outage => "服务已恢复".to_owned(),
                Metric::ErrorRate => format!("错误率{high} {percent:.2}%"),
                Metric::RetryRate => format!("重试率{high} {percent:.2}%"),
                Metric::AvgLatency => format!("平均延迟{high} {value:.2}秒"),
            }
        }
    }
}
