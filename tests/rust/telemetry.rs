//! The hub and the ledger. One test: both are the process's own.

use seawall::stats::{Record, Source, Word};
use seawall::telemetry::{self, Call, Listener, Note, Request};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Ears(Mutex<Vec<(&'static str, usize)>>);

impl Listener for Ears {
    fn ended(&self, call: &Call) {
        self.0.lock().unwrap().push((call.operation, call.requests.len()));
    }

    fn abandoned(&self, operation: &'static str, _begun_ns: u64, requests: &[Request]) {
        self.0.lock().unwrap().push((operation, requests.len() + 100));
    }
}

const SECOND: u64 = 1_000_000_000;

fn request(source: Source, error: &str) -> Request {
    Request { source, error: Word::of(error), took_ns: Some(SECOND / 4), ..Request::default() }
}

fn call(source: Source, begun_ns: u64, ok: bool) -> Call {
    let error = if ok { Word::NONE } else { Word::of("E") };
    let record = Record { latency_ns: SECOND, attempts: 2, retries: 1, source, error, ok, tokens: 7, ..Record::default() };
    let requests = vec![request(source, "E"), request(source, error.as_str())];
    Call { operation: "chat", begun_ns, record, requests, notes: vec![note()], ..Call::default() }
}

fn note() -> Note {
    let name = seawall::events::RETRY_SCHEDULED;
    Note { at_ns: 1, name, place: Word::of("p"), number: 1, span_ns: 2, reason: "", error: Word::of("E") }
}

#[test]
fn calls_are_counted_and_told_only_while_somebody_watches() {
    let source = Source::of("p", "m", "host:1");
    let series = |now| telemetry::snapshot(now).into_iter().find(|series| series.source == source);
    telemetry::ended(&call(source, 0, true));
    assert!(!telemetry::is_on() && series(0).is_none());

    let watching = telemetry::watch();
    let ears = Arc::new(Ears::default());
    let listening = telemetry::listen(ears.clone());
    for at in 0..60 {
        telemetry::ended(&call(source, at * SECOND, at % 2 == 0));
    }
    telemetry::passed(61 * SECOND, SECOND, source);
    telemetry::abandoned("chat", 0, &[request(source, "given up")]);
    telemetry::abandoned("chat", 0, &[]);
    assert_eq!(ears.0.lock().unwrap().iter().filter(|told| **told == ("chat", 2)).count(), 60);
    assert_eq!(ears.0.lock().unwrap()[60..], [("call", 1), ("chat", 101)]);

    let seen = series(62 * SECOND).unwrap();
    let calls = &seen.calls.tally;
    assert_eq!((calls.total, calls.errors, calls.attempts, calls.retries, calls.tokens), (61, 30, 121, 60, 420));
    assert_eq!(seen.calls.errors, [(Word::of("E"), 30)]);
    let counted = |error: &str| seen.requests.iter().find(|(word, _)| *word == Word::of(error)).map(|(_, count)| *count);
    assert_eq!([counted(""), counted("E"), counted("given up")], [Some(31), Some(90), Some(1)]);
    assert_eq!(seen.request_latencies.len(), 122);
    assert_eq!(seen.timeline.sum().total, 61);
    assert_eq!(
        seen.timeline.slots().map(|(_, slot)| slot.tally.total).filter(|total| *total > 0).collect::<Vec<_>>(),
        [9, 10, 10, 10, 10, 10, 2]
    );
    assert_eq!(series(3600 * SECOND).unwrap().timeline.sum().total, 0, "a quarter of an hour is kept, at that time");

    let failures = telemetry::failures();
    assert_eq!(failures.len(), 30);
    assert!(failures.is_sorted_by_key(|failed| failed.at_ns));
    assert_eq!((failures[0].record.error, failures[0].requests.len(), &failures[0].notes), (Word::of("E"), 2, &vec![note()]));
    for at in 0..60 {
        telemetry::ended(&call(source, (100 + at) * SECOND, false));
    }
    assert_eq!(telemetry::failures().len(), 50);
    assert_eq!(telemetry::failures()[49].at_ns, 160 * SECOND);

    drop(listening);
    telemetry::ended(&call(source, 0, true));
    assert_eq!(ears.0.lock().unwrap().len(), 62 + 60);
    drop(watching);
    let before = series(0).unwrap().calls.tally.total;
    telemetry::ended(&call(source, 0, true));
    assert_eq!(series(0).unwrap().calls.tally.total, before);
}
