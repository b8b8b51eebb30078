//! The monitor: levels against a naive model, and the story of an incident.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use seawall::monitor::{Alert, Kind, Language, Level, Metric, Monitor, Record, Rule, Rules, Span};

const SECOND: u64 = 1_000_000_000;

fn call(ok: bool) -> Record {
    Record { ok, latency_ns: SECOND / 10, ..Record::default() }
}

fn feed(monitor: &Monitor, times: usize, record: Record) -> Vec<Alert> {
    (0..times).filter_map(|at| monitor.record(at as u64, record)).collect()
}

fn kinds(alerts: &[Alert]) -> Vec<(Kind, Level)> {
    alerts.iter().map(|alert| (alert.kind, alert.level)).collect()
}

/// The level of every metric after each call, by looking at the whole history again: no state but the levels before.
fn levels_of(history: &[Record], window: usize, table: [(f64, f64); 3]) -> Vec<[Level; 4]> {
    let mut levels = vec![[Level::Normal; 4]];
    for end in 1..=history.len() {
        let kept = &history[end.saturating_sub(window)..end];
        let share = |what: fn(&Record) -> bool| kept.iter().filter(|record| what(record)).count();
        let mean =
            kept.iter().map(|record| f64::from(u32::try_from(record.latency_ns / 1000).unwrap())).sum::<f64>() / 1e6 / kept.len() as f64;
        let (errors, retried) = (share(|record| !record.ok), share(|record| record.retries > 0));
        let before = *levels.last().unwrap();
        let open = before != [Level::Normal; 4];
        let judged = open || kept.len() >= window.min(10);
        let failing = history[..end].iter().rev().take_while(|record| !record.ok).count();
        let mut now = [if failing >= 5 { Level::Emergency } else { Level::Normal }, Level::Normal, Level::Normal, Level::Normal];
        let values = [(errors as f64 / kept.len() as f64, errors), (retried as f64 / kept.len() as f64, retried), (mean, usize::MAX)];
        for (at, ((value, events), (warning, critical))) in values.into_iter().zip(table).enumerate().filter(|_| judged) {
            let held = before[at + 1];
            let holds = |level, limit: f64| held >= level && value > limit * 0.8;
            now[at + 1] = if value > critical || holds(Level::Critical, critical) {
                Level::Critical
            } else if value > warning && events > 1 || holds(Level::Warning, warning) {
                Level::Warning
            } else {
                Level::Normal
            };
        }
        levels.push(now);
    }
    levels.split_off(1)
}

fn history() -> impl Strategy<Value = Vec<Record>> {
    // Phases, each with its own chance of failing and of being retried: incidents begin, ease and end.
    let phase = (0..100_u32, 0..100_u32, prop_oneof![Just(100_u64), 1_000..9_000_u64], 1..60_usize);
    let calls = phase.prop_flat_map(|(failing, retried, ms, calls)| {
        vec((0..100_u32, 0..100_u32), calls..=calls).prop_map(move |dice| {
            dice.into_iter()
                .map(|(one, other)| Record {
                    ok: one * 3 >= failing,
                    retries: u32::from(other * 6 < retried),
                    latency_ns: ms * 1_000_000,
                    ..Record::default()
                })
                .collect::<Vec<_>>()
        })
    });
    vec(calls, 1..8).prop_map(|phases| phases.concat())
}

proptest! {
    #[test]
    fn levels_equal_the_naive_models_and_the_story_is_told_once(history in history(), window in prop_oneof![1..12_usize, 20..120_usize]) {
        let monitor = Monitor::new(window);
        let expected = levels_of(&history, window, [(0.05, 0.10), (0.03, 0.05), (2.0, 5.0)]);
        let mut open: Option<Level> = None;
        let mut incidents = 0;
        let (mut calmer, mut eased) = (0, 0);
        for (at, (record, levels)) in history.iter().zip(expected).enumerate() {
            let alert = monitor.record(at as u64, *record);
            let level = levels.into_iter().max().unwrap();
            prop_assert_eq!(monitor.level(), level, "after call {}", at);
            let said = alert.as_ref().map(|alert| alert.kind);
            calmer = if open.is_some_and(|told| Level::Normal < level && level < told) { calmer + 1 } else { 0 };
            let want = match open {
                None => (level > Level::Normal).then_some(Kind::Raised),
                Some(_) if level == Level::Normal => Some(Kind::Resolved),
                Some(told) if level > told => Some(Kind::Escalated),
                Some(_) => (calmer >= window << eased).then_some(Kind::Deescalated),
            };
            prop_assert_eq!(said, want, "at call {}", at);
            incidents += u64::from(want == Some(Kind::Raised));
            eased = if want == Some(Kind::Raised) { 0 } else { eased + usize::from(want == Some(Kind::Deescalated)) };
            if want.is_some() {
                (open, calmer) = ((level > Level::Normal).then_some(level), 0);
            }
            if let Some(alert) = alert {
                prop_assert_eq!(alert.incident, incidents);
                prop_assert_eq!(alert.level, level);
                prop_assert!(alert.peak >= alert.level);
                prop_assert!(!alert.readings.is_empty());
                if alert.kind != Kind::Resolved {
                    let over: Vec<_> = alert.readings.iter().map(|reading| (reading.metric, reading.level)).collect();
                    let judged = [Metric::Outage, Metric::ErrorRate, Metric::RetryRate, Metric::AvgLatency];
                    let want: Vec<_> = judged.into_iter().zip(levels).filter(|(_, level)| *level > Level::Normal).collect();
                    prop_assert_eq!(over, want);
                }
            }
        }
    }
}

#[test]
fn the_documents_incident_is_told_in_two_lines() {
    let monitor = Monitor::new(100);
    assert_eq!(feed(&monitor, 100, call(true)), []);
    assert_eq!(kinds(&feed(&monitor, 50, call(false))), [(Kind::Raised, Level::Emergency)]);
    let over = feed(&monitor, 500, call(true));
    assert_eq!(kinds(&over), [(Kind::Resolved, Level::Normal)]);
    assert_eq!((over[0].peak, over[0].at_ns), (Level::Emergency, 95), "resolved with 4 of the last 100 failed, not later");
}

#[test]
fn a_total_outage_is_told_at_the_fifth_failed_call_and_only_once() {
    let monitor = Monitor::new(100);
    let alerts = feed(&monitor, 20, call(false));
    assert_eq!(kinds(&alerts), [(Kind::Raised, Level::Emergency)]);
    assert_eq!(alerts[0].at_ns, 4);
    assert_eq!(alerts[0].text(Language::Chinese), "⚠️  告警: 服务完全不可用 连续失败5次（紧急）");
    assert_eq!(alerts[0].text(Language::English), "ALERT (emergency): total outage, 5 failures in a row");
}

#[test]
fn one_success_in_a_young_window_does_not_end_an_outage() {
    let monitor = Monitor::new(100);
    assert_eq!(feed(&monitor, 5, call(false)).len(), 1);
    assert_eq!(feed(&monitor, 1, call(true)), []);
    assert_eq!(monitor.level(), Level::Critical);
    assert_eq!(feed(&monitor, 8, call(false)), [], "the relapse is part of the same story");
}

#[test]
fn a_relapse_after_a_whole_calmer_window_is_told_again() {
    let monitor = Monitor::new(10);
    feed(&monitor, 5, call(false));
    // Half of the calls fail: critical, but no outage.
    let half: Vec<Alert> = (0..10).flat_map(|_| [monitor.record(0, call(true)), monitor.record(0, call(false))]).flatten().collect();
    assert_eq!(kinds(&half), [(Kind::Deescalated, Level::Critical)]);
    let relapse = feed(&monitor, 6, call(false));
    assert_eq!(kinds(&relapse), [(Kind::Escalated, Level::Emergency)]);
    assert_eq!(relapse[0].incident, 1);
}

#[test]
fn an_error_rate_that_grows_slowly_escalates_step_by_step() {
    let monitor = Monitor::new(100);
    feed(&monitor, 100, call(true));
    let mut told = Vec::new();
    for _ in 0..12 {
        told.extend(feed(&monitor, 1, call(false)));
        told.extend(feed(&monitor, 3, call(true)));
    }
    assert_eq!(kinds(&told), [(Kind::Raised, Level::Warning), (Kind::Escalated, Level::Critical)]);
    assert_eq!(told[0].readings[0].value, 0.06);
    assert_eq!(told[0].text(Language::Chinese), "⚠️  告警: 错误率过高 6.00%（警告）");
    assert_eq!(told[1].text(Language::Chinese), "⚠️  告警升级: 错误率过高 11.00%（严重）");
    assert_eq!(told[1].text(Language::English), "ALERT escalated (critical): error rate 11.00% (limit 10.00%)");
    let over = feed(&monitor, 200, call(true));
    assert_eq!(kinds(&over), [(Kind::Resolved, Level::Normal)]);
    assert_eq!(over[0].text(Language::English), "ALERT resolved: error rate 4.00% (limit 5.00%)");
    assert_eq!(over[0].text(Language::Chinese), "✅ 告警解除: 错误率 4.00%");
}

#[test]
fn metrics_that_fail_together_make_one_alert_that_names_them() {
    let monitor = Monitor::new(100);
    let bad = Record { ok: false, retries: 2, latency_ns: 6 * SECOND, ..Record::default() };
    feed(&monitor, 9, call(true));
    let alerts = feed(&monitor, 4, bad);
    assert_eq!(kinds(&alerts), [(Kind::Raised, Level::Critical)]);
    let names: Vec<_> = alerts[0].readings.iter().map(|reading| reading.metric.name()).collect();
    assert_eq!(names, ["retry_rate"], "a single error is no early warning, a single retry of ten is over the document's limit");
    let after = feed(&monitor, 6, bad);
    assert_eq!(kinds(&after), [(Kind::Escalated, Level::Emergency)]);
    let names: Vec<_> = after[0].readings.iter().map(|reading| reading.metric.name()).collect();
    assert_eq!(names, ["outage", "error_rate", "retry_rate", "avg_latency"]);
    assert_eq!(
        after[0].text(Language::Chinese),
        "⚠️  告警升级: 服务完全不可用 连续失败5次, 错误率过高 35.71%, 重试率过高 35.71%, 平均延迟过高 2.21秒（紧急）"
    );
}

#[test]
fn a_limit_of_ones_own_stands_alone_and_takes_effect_with_the_next_call() {
    let monitor = Monitor::new(100);
    monitor.set_limit(Metric::ErrorRate, 0.5);
    let mixed = |monitor: &Monitor, bad: usize| -> Vec<Alert> {
        (0..100).filter_map(|at| monitor.record(at, call((at as usize % 10) < 10 - bad))).collect()
    };
    assert_eq!(mixed(&monitor, 4), [], "40 % under a limit of 50 %");
    monitor.set_limit(Metric::ErrorRate, 0.3);
    assert_eq!(kinds(&feed(&monitor, 1, call(true))), [(Kind::Raised, Level::Critical)]);
    monitor.set_limit(Metric::ErrorRate, f64::INFINITY);
    assert_eq!(kinds(&feed(&monitor, 1, call(true))), [(Kind::Resolved, Level::Normal)]);
    monitor.set_limit(Metric::ErrorRate, 0.10);
    assert_eq!(monitor.rules(), Rules::default(), "the usual limit brings the usual warning back");
}

#[test]
fn what_hovers_at_a_limit_is_not_told_again_and_again() {
    let monitor = Monitor::new(20);
    feed(&monitor, 20, Record { latency_ns: 1_900_000_000, ok: true, ..Record::default() });
    // The mean goes to and fro between 1.9 s and 2.1 s.
    let alerts: Vec<Alert> = (0..20)
        .flat_map(|round| {
            let ms = if round % 2 == 0 { 2_100 } else { 1_900 };
            feed(&monitor, 20, Record { latency_ns: ms * 1_000_000, ok: true, ..Record::default() })
        })
        .collect();
    assert_eq!(kinds(&alerts), [(Kind::Raised, Level::Warning)]);
}

#[test]
fn a_second_incident_knows_nothing_of_the_first() {
    let monitor = Monitor::new(10);
    feed(&monitor, 5, call(false));
    feed(&monitor, 20, call(true));
    let slow = Record { ok: true, latency_ns: 4 * SECOND, ..Record::default() };
    let second = [feed(&monitor, 10, slow), feed(&monitor, 20, call(true))].concat();
    assert_eq!(kinds(&second), [(Kind::Raised, Level::Warning), (Kind::Resolved, Level::Normal)]);
    assert_eq!((second[1].incident, second[1].peak, second[1].since_ns), (2, Level::Warning, second[0].at_ns));
    assert_eq!(second[1].readings.iter().map(|reading| reading.metric).collect::<Vec<_>>(), [Metric::AvgLatency]);
}

#[test]
fn restarting_forgets_calls_and_incidents_but_not_the_rules() {
    let monitor = Monitor::new(100);
    monitor.set_limit(Metric::RetryRate, 0.9);
    feed(&monitor, 30, call(false));
    monitor.restart(5);
    let now = monitor.snapshot(0);
    assert_eq!(
        (now.window.total, now.lifetime.total, now.level, now.failures_in_a_row, now.span),
        (0, 0, Level::Normal, 0, Span::Calls(5))
    );
    assert!(monitor.whole(0).1.latencies.is_empty());
    assert_eq!((monitor.alerts().len(), monitor.entries().len()), (0, 0));
    assert_eq!(monitor.rules().of(Metric::RetryRate).limits[1], 0.9);
}

#[test]
fn the_last_calls_are_those_that_came_last() {
    let monitor = Monitor::new(5);
    (0..8).for_each(|at| drop(monitor.record(at, call(true))));
    let times = |most: usize| monitor.recent(most).iter().map(|entry| entry.at_ns).collect::<Vec<u64>>();
    assert_eq!((times(2), times(5), times(9), times(0)), (vec![6, 7], vec![3, 4, 5, 6, 7], vec![3, 4, 5, 6, 7], vec![]));
    assert!(Monitor::new(Span::Time(1_000)).recent(3).is_empty());
}

#[test]
fn the_history_of_alerts_is_bounded() {
    let monitor = Monitor::new(1);
    for at in 0..500 {
        monitor.record(at, call(at % 2 == 0));
    }
    let alerts = monitor.alerts();
    assert_eq!((alerts.len(), alerts[99].at_ns, alerts[0].at_ns), (100, 499, 400));
}

#[test]
fn eight_threads_lose_nothing() {
    let monitor = Arc::new(Monitor::new(1_000));
    let barrier = Arc::new(Barrier::new(8));
    let workers: Vec<_> = (0..8_u32)
        .map(|worker| {
            let (monitor, barrier) = (Arc::clone(&monitor), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                let record = Record {
                    ok: worker % 2 == 0,
                    retries: worker,
                    tokens: 7,
                    latency_ns: u64::from(worker),
                    fallback: worker == 1,
                    ..Record::default()
                };
                feed(&monitor, 5_000, record);
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let now = monitor.snapshot(0);
    assert_eq!((now.lifetime.total, now.lifetime.errors, now.lifetime.retried), (40_000, 20_000, 35_000));
    assert_eq!((now.lifetime.retries, now.lifetime.tokens, now.lifetime.latency_ns), (140_000, 280_000, 140_000));
    assert_eq!((now.lifetime.fallbacks, now.window.total), (5_000, 1_000));
    let kept = monitor.entries();
    assert_eq!(now.window.errors as usize, kept.iter().filter(|entry| !entry.record.ok).count());
    assert_eq!(now.window.latency_ns, kept.iter().map(|entry| u128::from(entry.record.latency_ns)).sum::<u128>());
}

fn rule(metric: Metric, emergencies: f64) -> impl Strategy<Value = (Metric, Rule)> {
    let limit = |often: f64| {
        let limit = (1..60_u32).prop_map(|percent| f64::from(percent) / 100.0);
        prop::option::weighted(often, limit).prop_map(|limit| limit.unwrap_or(f64::INFINITY))
    };
    let hold = prop_oneof![4 => Just(0_u64), 1 => 1..40_u64].prop_map(Duration::from_secs);
    (limit(0.6), limit(0.6), limit(emergencies), 0..30_u64, hold.clone(), hold).prop_map(
        move |(warning, critical, emergency, minimum, hold, clear_hold)| {
            (metric, Rule { limits: [warning, critical, emergency], minimum, hold, clear_hold, ..Rule::usual(metric) })
        },
    )
}

/// What is slow may be worse than what fails.
fn rules() -> impl Strategy<Value = Vec<(Metric, Rule)>> {
    let rate = |metric| rule(metric, 0.1);
    (rate(Metric::ErrorRate), rate(Metric::RetryRate), rate(Metric::FallbackRate), rule(Metric::AvgLatency, 0.6))
        .prop_map(|(errors, retries, fallbacks, latency)| vec![errors, retries, fallbacks, latency])
}

/// The same calls time and again, as where one trouble lasts, and some of them slow.
fn lasting() -> impl Strategy<Value = Vec<Record>> {
    let ms = || prop_oneof![3 => Just(50_u64), 1 => Just(500), 1 => Just(5_000)];
    let kind = (any::<bool>(), any::<bool>(), any::<bool>(), vec((ms(), 1..30_usize), 1..4));
    let calls = kind.prop_map(|(ok, retried, fallback, parts)| {
        let call = |ms: u64| Record { ok, retries: retried.into(), fallback, latency_ns: ms * 1_000_000, ..Record::default() };
        parts.into_iter().flat_map(|(ms, times)| std::iter::repeat_n(call(ms), times)).collect::<Vec<_>>()
    });
    vec(calls, 1..6).prop_map(|calls| calls.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// What has not changed is not judged again: nobody can tell. A rule about tokens, and one with a hold, have every call judged.
    #[test]
    fn a_judgement_that_still_holds_is_the_one_that_would_be_made(
        first in rules(),
        then in rules(),
        tail in prop::option::weighted(0.3, rule(Metric::P95, 0.6)),
        calls in (lasting(), lasting()),
        span in prop_oneof![3 => (3..15_usize).prop_map(Span::Calls), 1 => (5..40_u64).prop_map(|seconds| Span::Time(seconds * SECOND))],
    ) {
        // Percentiles are looked at once in a while: what changes between two looks is judged at the next.
        let tail = tail.map(|(metric, rule)| (metric, Rule { minimum: 1, ..rule }));
        let hold = Duration::from_secs(1);
        let watching = Rule { limits: [f64::INFINITY, 1e18, f64::INFINITY], hold, ..Rule::usual(Metric::Tokens) };
        let with = |rules: &[(Metric, Rule)], extra: Option<Rule>| {
            let mut made = Rules::default();
            rules.iter().copied().chain(tail).chain(extra.map(|rule| (Metric::Tokens, rule))).for_each(|(metric, rule)| made.set(metric, rule));
            made
        };
        let (monitor, other) = (Monitor::with_rules(span, with(&first, None)), Monitor::with_rules(span, with(&first, Some(watching))));
        for (at, record) in calls.0.iter().chain(&calls.1).enumerate() {
            if at == calls.0.len() {
                monitor.set_rules(with(&then, None));
                other.set_rules(with(&then, Some(watching)));
            }
            let now = at as u64 * SECOND;
            prop_assert_eq!(monitor.record(now, *record), other.record(now, *record), "at call {}", at);
            prop_assert_eq!((monitor.level(), monitor.due()), (other.level(), other.due()), "after call {}", at);
        }
    }
}
