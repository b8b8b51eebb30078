//! Alerts in words.

use super::alert::{Alert, Kind, Reading};
use super::level::{Level, Metric, Unit};

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
        let parts = if parts.is_empty() { "-".to_owned() } else { parts.join(", ") };
        let word = match (language, self.kind) {
            (Language::English, Kind::Resolved) => return format!("ALERT resolved: {parts}"),
            (Language::Chinese, Kind::Resolved) => return format!("✅ 告警解除: {parts}"),
            (Language::English, Kind::Raised) => "",
            (Language::English, Kind::Escalated) => " escalated",
            (Language::English, Kind::Deescalated) => " de-escalated",
            (Language::English, Kind::Reminder) => " continues",
            (Language::Chinese, Kind::Raised) => "",
            (Language::Chinese, Kind::Escalated) => "升级",
            (Language::Chinese, Kind::Deescalated) => "降级",
            (Language::Chinese, Kind::Reminder) => "持续",
        };
        match language {
            Language::English => format!("ALERT{word} ({}): {parts}", self.level.name()),
            Language::Chinese => format!("⚠️  告警{word}: {parts}（{}）", chinese(self.level)),
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
    let row = metric.row();
    let bad = match (over, row.is_low_bad) {
        (false, _) => "",
        (true, true) => "过低",
        (true, false) => "过高",
    };
    match (language, row.unit) {
        (Language::English, _) if metric == Metric::Outage && over => format!("total outage, {value} failures in a row"),
        (Language::English, _) if metric == Metric::Outage => "calls succeed again".to_owned(),
        (Language::Chinese, _) if metric == Metric::Outage && over => format!("服务完全不可用 连续失败{value}次"),
        (Language::Chinese, _) if metric == Metric::Outage => "服务已恢复".to_owned(),
        (Language::English, Unit::Share) => format!("{} {:.2}% (limit {:.2}%)", row.english, value * 100.0, limit * 100.0),
        (Language::English, Unit::Seconds) => format!("{} {value:.2}s (limit {limit:.2}s)", row.english),
        (Language::English, Unit::Calls | Unit::Number) => format!("{} {value} (limit {limit})", row.english),
        (Language::Chinese, Unit::Share) => format!("{}{bad} {:.2}%", row.chinese, value * 100.0),
        (Language::Chinese, Unit::Seconds) => format!("{}{bad} {value:.2}秒", row.chinese),
        (Language::Chinese, Unit::Calls | Unit::Number) => format!("{}{bad} {value}", row.chinese),
    }
}
