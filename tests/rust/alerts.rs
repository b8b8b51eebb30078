//! The story of an incident with rules of one's own: holds, reminders and silences, in virtual time.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use seawall::engine::Instant;
use seawall::monitor::{Alert, Kind, Language, Level, METRICS, Metric, Monitor, Record, Rule, Rules};

const SECOND: u64 = 1_000_000_000;

fn call(ok: bool) -> Record {
    Record { ok, latency_ns: SECOND / 10, ..Record::default() }
}

fn slow(seconds: u64) -> Record {
    Record { ok: true, latency_ns: seconds * SECOND, ..Record::default() }
}

fn at(seconds: u64) -> Instant {
    Instant(seconds * SECOND)
}

/// A monitor that only looks at this.
fn only(window: usize, rules: &[(Metric, Rule)], remind: Option<u64>) -> Monitor {
    let mut all = Rules::silent();
    rules.iter().for_each(|(metric, rule)| all.set(*metric, *rule));
    all.remind_every = remind.map(Duration::from_secs);
    Monitor::with_rules(window, all)
}

fn limits(metric: Metric, limits: [f64; 3]) -> Rule {
    Rule { limits, ..Rule::usual(metric) }
}

fn kinds(alerts: &[Alert]) -> Vec<(Kind, Level)> {
    alerts.iter().map(|alert| (alert.kind, alert.level)).collect()
}

const NO: f64 = f64::INFINITY;

/// A story: raised, changed and resolved, never the same level twice, numbered one by one; reminders say what was said.
fn is_well_formed(alerts: &[Alert]) -> Result<(), TestCaseError> {
    let mut open: Option<(u64, Level)> = None;
    let mut last = 0;
    for alert in alerts {
        match (open, alert.kind) {
            (None, Kind::Raised) => {
                prop_assert!(alert.incident > last && alert.level > Level::Normal, "{alert:?}");
                prop_assert_eq!(alert.previous, Level::Normal);
                last = alert.incident;
                open = Some((alert.incident, alert.level));
            }
            (Some((incident, level)), kind) => {
                prop_assert_eq!(alert.incident, incident);
                prop_assert_eq!(alert.previous, level);
                match kind {
                    Kind::Escalated => prop_assert!(alert.level > level, "{alert:?}"),
                    Kind::Deescalated => prop_assert!(Level::Normal < alert.level && alert.level < level, "{alert:?}"),
                    Kind::Reminder => prop_assert_eq!(alert.level, level),
                    Kind::Resolved => prop_assert_eq!(alert.level, Level::Normal),
                    Kind::Raised => prop_assert!(false, "raised twice: {alert:?}"),
                }
                open = (kind != Kind::Resolved).then_some((incident, alert.level));
            }
            (None, _) => prop_assert!(false, "nothing was raised: {alert:?}"),
        }
        prop_assert!(alert.peak >= alert.level);
        prop_assert!(!alert.readings.is_empty(), "{alert:?}");
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Step {
    Calls(Vec<Record>),
    Wait(u64),
    Silence(u64),
    EndSilence,
}

fn step() -> impl Strategy<Value = Step> {
    let record = (0..100_u32, 0..100_u32, prop_oneof![4 => Just(1_u64), 1 => 1..9_u64]);
    let calls = (0..110_u32, vec(record, 1..40)).prop_map(|(failing, dice)| {
        let record = |(one, other, s): (u32, u32, u64)| Record {
            ok: one >= failing,
            fallback: other > 80,
            retries: other / 60,
            latency_ns: s * SECOND / 2,
            ..Record::default()
        };
        Step::Calls(dice.into_iter().map(record).collect())
    });
    prop_oneof![6 => calls, 3 => (0..90_u64).prop_map(Step::Wait), 1 => (1..60_u64).prop_map(Step::Silence), 1 => Just(Step::EndSilence)]
}

fn rules() -> impl Strategy<Value = Rules> {
    let rule = (0..METRICS.len(), 1..9_u32, 1..5_u32, 0..40_u64, 0..40_u64, 0.3..=1.0_f64, 1..20_u64);
    (vec(rule, 0..6), proptest::option::of(20..60_u64)).prop_map(|(changes, remind)| {
        let mut rules = Rules::default();
        for (metric, first, step, hold, clear_hold, clear, minimum) in changes {
            let row = &METRICS[metric];
            let scale = if row.name == "outage" { 1.0 } else { 10.0 };
            let up = [first, first + step, first + 2 * step].map(|limit| f64::from(limit) / scale);
            let given = if row.is_low_bad { up.map(|limit| 1.0 - limit / 2.0) } else { up };
            let spans = (Duration::from_secs(hold), Duration::from_secs(clear_hold));
            rules.set(row.metric, Rule { limits: given, minimum, clear, hold: spans.0, clear_hold: spans.1 });
        }
        rules.remind_every = remind.map(Duration::from_secs);
        rules
    })
}

proptest! {
    #[test]
    fn whatever_happens_the_listeners_hear_a_story(rules in rules(), steps in vec(step(), 1..25), window in 1..60_usize) {
        let monitor = Monitor::with_rules(window, rules);
        let (mut now, mut silences, mut made) = (1_000_u64, Vec::new(), Vec::new());
        let tick = |now: u64, made: &mut Vec<Alert>| {
            // What has an alarm is told when it rings, and there is nothing to tell before.
            let due = monitor.due();
            let told = monitor.tick(at(now), now);
            assert!(told.is_empty() || due <= at(now), "told before it was due: {told:?}");
            assert!(monitor.due() > at(now), "still due after it was told");
            made.extend(told);
        };
        for step in steps {
            match step {
                Step::Calls(records) => for record in records {
                    made.extend(monitor.record(now * SECOND, record));
                    tick(now, &mut made);
                },
                Step::Wait(seconds) => for _ in 0..seconds {
                    now += 1;
                    tick(now, &mut made);
                },
                Step::Silence(seconds) => silences.push(monitor.silence(at(now + seconds), None)),
                Step::EndSilence => {
                    silences.pop().map(|id| monitor.end_silence(id));
                    tick(now, &mut made);
                }
            }
        }
        let heard: Vec<Alert> = made.iter().filter(|alert| !alert.is_silenced).cloned().collect();
        is_well_formed(&heard)?;
        let kept = monitor.alerts();
        prop_assert_eq!(&kept[..], &made[made.len() - kept.len()..]);
        // Once all silences are over, the listeners know how things are.
        made.extend(monitor.tick(at(now + 1_000), 0));
        if monitor.level() > Level::Normal {
            let last = made.iter().rfind(|alert| !alert.is_silenced).unwrap();
            prop_assert!(last.kind != Kind::Resolved, "an incident that lasts was not told");
        }
        prop_assert!(monitor.silences(at(now + 1_000)).is_empty());
    }

    #[test]
    fn percentiles_are_judged_as_if_all_calls_were_sorted(seconds in vec(0..20_u64, 200), limit in 1..19_u64) {
        // With a window of eight or less each record is looked at.
        let monitor = only(8, &[(Metric::P95, Rule { limits: [limit as f64 + 0.5, NO, NO], minimum: 1, clear: 1.0, ..Rule::usual(Metric::P95) })], None);
        for (number, latency) in seconds.iter().enumerate() {
            monitor.record(number as u64, slow(*latency));
            let kept = &seconds[(number + 1).saturating_sub(8)..=number];
            let want = kept.iter().any(|latency| *latency > limit);
            prop_assert_eq!(monitor.level() > Level::Normal, want, "{:?}", kept);
        }
    }
}

#[test]
fn what_is_bad_is_said_after_its_hold_whether_or_not_a_call_comes() {
    let rule = Rule { hold: Duration::from_secs(30), ..limits(Metric::ErrorRate, [0.5, NO, NO]) };
    let monitor = only(10, &[(Metric::ErrorRate, rule)], None);
    for _ in 0..10 {
        assert_eq!(monitor.record(10 * SECOND, call(false)), None);
    }
    assert_eq!((monitor.level(), monitor.due()), (Level::Normal, at(40)));
    assert_eq!(monitor.tick(at(39), 0), []);
    let told = monitor.tick(at(40), 40);
    assert_eq!(kinds(&told), [(Kind::Raised, Level::Warning)]);
    assert_eq!((told[0].since_ns, monitor.due()), (40, Instant::NEVER));
    // As long, since nothing else was said of it.
    let good = Rule { clear_hold: Duration::from_secs(5), ..rule };
    let mut rules = monitor.rules();
    rules.set(Metric::ErrorRate, good);
    monitor.set_rules(rules);
    for _ in 0..10 {
        assert_eq!(monitor.record(50 * SECOND, call(true)), None);
    }
    assert!(at(50) < monitor.due() && monitor.due() <= at(55));
    assert_eq!(kinds(&monitor.tick(at(55), 0)), [(Kind::Resolved, Level::Normal)]);
}

#[test]
fn what_gets_better_within_its_hold_is_never_said() {
    let rule = Rule { hold: Duration::from_secs(30), ..limits(Metric::Outage, [NO, NO, 3.0]) };
    let monitor = only(10, &[(Metric::Outage, rule)], None);
    for second in 0..100 {
        // Three failures, and a success 20 seconds later: again and again.
        assert_eq!(monitor.record(second * 10 * SECOND, call(second % 5 == 4)), None, "{second}");
        assert_eq!(monitor.tick(at(second * 10), 0), []);
    }
    assert_eq!((monitor.level(), monitor.alerts().len()), (Level::Normal, 0));
}

#[test]
fn worse_levels_have_holds_of_their_own() {
    let rule = Rule { hold: Duration::from_secs(10), minimum: 1, ..limits(Metric::AvgLatency, [1.0, 2.0, 3.0]) };
    let monitor = only(1, &[(Metric::AvgLatency, rule)], None);
    monitor.record(0, slow(2));
    monitor.record(5 * SECOND, slow(9));
    assert_eq!(kinds(&monitor.tick(at(10), 0)), [(Kind::Raised, Level::Warning)]);
    assert_eq!(kinds(&monitor.tick(at(15), 0)), [(Kind::Escalated, Level::Emergency)], "critical has lasted as long");
}

#[test]
fn an_incident_that_lasts_is_told_again_if_that_is_asked_for() {
    let monitor = only(10, &[(Metric::Outage, Rule::usual(Metric::Outage))], Some(60));
    (0..5).for_each(|_| drop(monitor.record(0, call(false))));
    assert_eq!(monitor.due(), at(60));
    assert_eq!(kinds(&monitor.tick(at(60), 1)), [(Kind::Reminder, Level::Emergency)]);
    assert_eq!(monitor.tick(at(119), 1), []);
    let again = monitor.tick(at(300), 1);
    assert_eq!(kinds(&again), [(Kind::Reminder, Level::Emergency)], "once, however late");
    assert_eq!(again[0].text(Language::English), "ALERT continues (emergency): total outage, 5 failures in a row");
    assert_eq!(again[0].text(Language::Chinese), "⚠️  告警持续: 服务完全不可用 连续失败5次（紧急）");
    assert_eq!(monitor.record(301 * SECOND, call(true)).map(|alert| alert.kind), Some(Kind::Resolved));
    assert_eq!((monitor.due(), monitor.tick(at(10_000), 0)), (Instant::NEVER, vec![]));
}

#[test]
fn no_calls_are_no_proof_that_it_works_again() {
    let monitor = Monitor::new(10);
    (0..5).for_each(|_| drop(monitor.record(0, call(false))));
    assert_eq!(monitor.tick(at(1_000_000), 0), []);
    assert_eq!(monitor.level(), Level::Emergency);
}

#[test]
fn what_hovers_between_two_levels_is_told_ever_more_rarely() {
    let monitor = only(5, &[(Metric::AvgLatency, Rule { clear: 1.0, ..limits(Metric::AvgLatency, [1.0, 2.0, NO]) })], None);
    (0..5).for_each(|_| drop(monitor.record(0, slow(3))));
    // A whole window at each level in turn.
    for turn in 0..2_000_u64 {
        let seconds = if turn / 10 % 2 == 0 { 3 } else { 2 };
        monitor.record(0, slow(seconds));
    }
    let told = kinds(&monitor.alerts());
    assert_eq!(told[0], (Kind::Raised, Level::Critical));
    assert_eq!(told[1..], [(Kind::Deescalated, Level::Warning), (Kind::Escalated, Level::Critical)], "then only after two windows");
}

#[test]
fn a_silence_holds_back_what_is_over_by_its_end() {
    let monitor = Monitor::new(10);
    let id = monitor.silence(at(100), Some("deploy".into()));
    let raised = (0..5).filter_map(|_| monitor.record(0, call(false))).collect::<Vec<_>>();
    assert!(raised[0].is_silenced && monitor.alerts()[0].is_silenced);
    let over = (0..20).filter_map(|_| monitor.record(SECOND, call(true))).collect::<Vec<_>>();
    assert!(over[0].is_silenced && over[0].kind == Kind::Resolved);
    assert_eq!(monitor.silences(at(2)).iter().map(|s| (s.id, s.reason.clone())).collect::<Vec<_>>(), [(id, Some("deploy".into()))]);
    assert_eq!((monitor.due(), monitor.tick(at(100), 0)), (at(100), vec![]));
    assert_eq!((monitor.due(), monitor.end_silence(id)), (Instant::NEVER, false));
}

#[test]
fn an_incident_that_outlasts_the_silence_is_told_once() {
    let monitor = only(10, &[(Metric::Outage, Rule::usual(Metric::Outage))], Some(60));
    monitor.silence(at(50), None);
    let longer = monitor.silence(at(500), None);
    (0..5).for_each(|_| drop(monitor.record(7, call(false))));
    assert_eq!(monitor.tick(at(300), 0), [], "nobody is reminded of what is silenced");
    assert!(monitor.end_silence(longer));
    assert_eq!(monitor.due(), at(0), "at once");
    let told = monitor.tick(at(301), 301);
    assert_eq!(kinds(&told), [(Kind::Raised, Level::Emergency)]);
    let alert = &told[0];
    assert_eq!((alert.is_silenced, alert.incident, alert.since_ns, alert.at_ns, alert.previous), (false, 1, 7, 301, Level::Normal));
    assert_eq!(monitor.tick(at(302), 0), []);
    assert_eq!(monitor.due(), at(361), "reminders go by what was heard");
}

#[test]
fn an_end_that_was_silenced_is_told_after_it_and_before_what_is_new() {
    let monitor = only(10, &[(Metric::Outage, Rule::usual(Metric::Outage))], None);
    (0..5).for_each(|_| drop(monitor.record(0, call(false))));
    let id = monitor.silence(at(100), None);
    monitor.record(1, call(true));
    (0..5).for_each(|_| drop(monitor.record(2, call(false))));
    monitor.end_silence(id);
    let told = monitor.tick(at(3), 3);
    assert_eq!(
        told.iter().map(|alert| (alert.kind, alert.incident, alert.at_ns)).collect::<Vec<_>>(),
        [(Kind::Resolved, 1, 3), (Kind::Raised, 2, 3)]
    );
}

#[test]
fn what_was_silenced_in_between_is_no_part_of_the_story() {
    let monitor = Monitor::new(5);
    (0..5).for_each(|_| drop(monitor.record(0, call(false))));
    let id = monitor.silence(at(100), None);
    let half = (0..40).filter_map(|turn| monitor.record(1, call(turn % 2 == 0))).collect::<Vec<_>>();
    assert_eq!(kinds(&half), [(Kind::Deescalated, Level::Critical)]);
    (0..10).for_each(|_| drop(monitor.record(2, call(true))));
    monitor.end_silence(id);
    let told = monitor.tick(at(3), 3);
    assert_eq!(told.iter().map(|alert| (alert.kind, alert.previous)).collect::<Vec<_>>(), [(Kind::Resolved, Level::Emergency)]);
}

#[test]
fn a_silence_that_changed_nothing_ends_without_a_word() {
    let monitor = Monitor::new(10);
    (0..5).for_each(|_| drop(monitor.record(0, call(false))));
    monitor.silence(at(100), None);
    (0..50).for_each(|_| drop(monitor.record(1, call(false))));
    assert_eq!(monitor.tick(at(100), 0), []);
    assert_eq!(monitor.alerts().len(), 1);
}

#[test]
fn a_restart_keeps_silences_and_forgets_who_knows_what() {
    let monitor = Monitor::new(10);
    (0..5).for_each(|_| drop(monitor.record(0, call(false))));
    monitor.silence(at(100), None);
    monitor.restart(10);
    assert_eq!((monitor.silences(at(1)).len(), monitor.level(), monitor.due()), (1, Level::Normal, at(100)));
    assert_eq!(monitor.tick(at(100), 0), []);
}

#[test]
fn the_success_rate_is_bad_below_its_limits() {
    let monitor = only(10, &[(Metric::SuccessRate, limits(Metric::SuccessRate, [0.9, 0.5, 0.2]))], None);
    (0..10).for_each(|_| drop(monitor.record(0, call(true))));
    let told: Vec<Alert> = (0..10).filter_map(|_| monitor.record(0, call(false))).collect();
    assert_eq!(kinds(&told), [(Kind::Raised, Level::Warning), (Kind::Escalated, Level::Critical), (Kind::Escalated, Level::Emergency)]);
    assert_eq!((told[0].readings[0].value, told[1].readings[0].value), (0.8, 0.4), "9 of 10 are not below 90 %");
    assert_eq!(told[1].text(Language::English), "ALERT escalated (critical): success rate 40.00% (limit 50.00%)");
    assert_eq!(told[1].text(Language::Chinese), "⚠️  告警升级: 成功率过低 40.00%（严重）");
    let over: Vec<Alert> = (0..10).filter_map(|_| monitor.record(0, call(true))).collect();
    assert_eq!(over.last().map(|alert| (alert.kind, alert.readings[0].value)), Some((Kind::Resolved, 1.0)), "92 % are needed");
}

#[test]
fn fallbacks_and_percentiles_have_rules_if_asked_for() {
    let rules = [(Metric::FallbackRate, limits(Metric::FallbackRate, [0.3, NO, NO])), (Metric::P99, limits(Metric::P99, [2.0, NO, NO]))];
    let monitor = only(200, &rules, None);
    let other = Record { fallback: true, ..call(true) };
    let told: Vec<Alert> = (0..10).filter_map(|turn| monitor.record(0, if turn < 6 { call(true) } else { other })).collect();
    assert_eq!(told[0].text(Language::English), "ALERT (warning): fallback rate 40.00% (limit 30.00%)");
    (0..200).for_each(|_| drop(monitor.record(0, call(true))));
    assert_eq!(monitor.level(), Level::Normal);
    // Three of 200 are more than 1 %; it is looked at every 25 calls.
    (0..3).for_each(|_| drop(monitor.record(0, slow(3))));
    let late: Vec<Alert> = (0..25).filter_map(|_| monitor.record(0, call(true))).collect();
    assert_eq!(late[0].readings[0].metric, Metric::P99);
    assert!((late[0].readings[0].value / 3.0 - 1.0).abs() < 0.02);
}

#[test]
fn levels_without_a_limit_are_passed_over_and_the_limit_shown_is_the_one_crossed() {
    let monitor = only(10, &[(Metric::ErrorRate, limits(Metric::ErrorRate, [0.2, NO, 0.6]))], None);
    (0..5).for_each(|_| drop(monitor.record(0, call(true))));
    let told: Vec<Alert> = (0..10).filter_map(|_| monitor.record(0, call(false))).collect();
    assert_eq!(kinds(&told), [(Kind::Raised, Level::Warning), (Kind::Escalated, Level::Emergency)]);
    assert_eq!(told.iter().map(|alert| alert.readings[0].limit).collect::<Vec<_>>(), [0.2, 0.6]);
}

#[test]
fn minimum_counts_calls_and_is_never_more_than_the_window_holds() {
    for (window, minimum, first) in [(100, 30, 30), (20, 30, 20), (100, 1, 2)] {
        let rule = Rule { minimum, ..limits(Metric::ErrorRate, [0.1, NO, NO]) };
        let monitor = only(window, &[(Metric::ErrorRate, rule)], None);
        let told: Vec<u64> = (1..=60).filter(|number| monitor.record(*number, call(false)).is_some()).collect();
        assert_eq!(told, [first], "one failure alone is no warning");
    }
}
