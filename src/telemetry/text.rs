//! A snapshot as Prometheus reads it: its text format 0.0.4, or OpenMetrics 1.0.

use super::names::BUCKETS;
use super::snapshot::{Snapshot, Value};
use std::fmt::Write;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a reader wants that sends this `Accept`; ours where it does not say.
    pub fn wanted(accept: &str) -> Format {
        let weight = |part: &str, kind: &str| {
            let mut words = part.split(';').map(str::trim);
            if !words.next().is_some_and(|word| word.eq_ignore_ascii_case(kind)) {
                return None;
            }
            let weight = words.find_map(|word| word.strip_prefix("q=")?.trim().parse::<f64>().ok());
            Some(weight.unwrap_or(1.0))
        };
        let best = |kind: &str| accept.split(',').filter_map(|part| weight(part, kind)).fold(0.0, f64::max);
        let open = best("application/openmetrics-text");
        if open > 0.0 && open >= best("text/plain") { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The text.
pub fn text(snapshot: &Snapshot, format: Format) -> String {
    let mut out = String::new();
    // Writing to a text cannot fail.
    let _ = write(&mut out, snapshot, format);
    out
}

fn write(out: &mut String, snapshot: &Snapshot, format: Format) -> std::fmt::Result {
    for (metric, samples) in snapshot.families() {
        let family = if format == Format::OpenMetrics { metric.family() } else { metric.name };
        writeln!(out, "# TYPE {family} {}", metric.kind.name())?;
        if format == Format::OpenMetrics && !metric.unit.is_empty() {
            writeln!(out, "# UNIT {family} {}", metric.unit)?;
        }
        writeln!(out, "# HELP {family} {}", metric.help)?;
        for (labels, value) in samples {
            let mut pairs = String::new();
            for (name, value) in metric.labels.iter().zip(labels) {
                let comma = if pairs.is_empty() { "" } else { "," };
                write!(pairs, "{comma}{name}=\"{}\"", escaped(value))?;
            }
            match value {
                Value::Number(number) if pairs.is_empty() => writeln!(out, "{} {number:?}", metric.name)?,
                Value::Number(number) => writeln!(out, "{}{{{pairs}}} {number:?}", metric.name)?,
                Value::Spread(counts, sum) => {
                    let comma = if pairs.is_empty() { "" } else { "," };
                    let mut so_far = 0;
                    for (at, count) in counts.iter().enumerate() {
                        so_far += count;
                        let limit = BUCKETS.get(at).map_or_else(|| "+Inf".to_owned(), |limit| format!("{limit:?}"));
                        writeln!(out, "{}_bucket{{{pairs}{comma}le=\"{limit}\"}} {so_far}", metric.name)?;
                    }
                    writeln!(out, "{}_sum{{{pairs}}} {sum:?}", metric.name)?;
                    writeln!(out, "{}_count{{{pairs}}} {so_far}", metric.name)?;
                }
            }
        }
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    Ok(())
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_for_openmetrics_gets_it_and_nobody_else_does() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Format::wanted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::wanted("application/openmetrics-text; version=1.0.0"), Format::OpenMetrics);
        for other in
            ["", "*/*", "text/html", "text/plain", "text/plain, application/openmetrics-text;q=0.1", "application/openmetrics-text;q=0"]
        {
            assert_eq!(Format::wanted(other), Format::Prometheus, "{other}");
        }
    }
}
