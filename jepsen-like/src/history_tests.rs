use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;

fn send(value: u64) -> Op {
    Op::Send { log: Log::new("t", 0), value, acks: Acks::All, keyed: None }
}

#[test]
fn a_recorded_history_survives_json_lines() {
    let recorder = Recorder::new();
    let process = ProcessId(1);
    let first = recorder.invoke(process, 10, send(1));
    let second = recorder.invoke(process, 11, send(2));
    second.ok(12, Done::Sent { offset: Some(0) });
    first.unknown(13, Failure::Error("timed out".to_owned()));
    let poll = recorder.invoke(ProcessId(2), 14, Op::Poll { log: Log::new("t", 0), from: Some(0) });
    poll.ok(15, Done::Polled { records: vec![Record::new(0, 2), Record { offset: 1, value: None }] });
    let poll = recorder.invoke(ProcessId(2), 16, Op::Poll { log: Log::new("t", 0), from: Some(2) });
    poll.fail(17, Failure::Corrupt(Span { from: 2, to: 3 }));
    let _ = recorder.invoke(ProcessId(3), 18, Op::Assign { logs: vec![Log::new("a.b-c", 7)] });

    let events = recorder.finish().unwrap();
    let mut text = Vec::new();
    write_events(&mut text, &events).unwrap();
    let read = History::read_from(text.as_slice()).unwrap();
    assert_eq!(read.operations(), History::from_events(events).unwrap().operations());
    assert_eq!(read.operations().len(), 5);
    assert_eq!(read.operations()[4].outcome, Outcome::Unknown(None));
    assert_eq!(read.end_ns(), 18);
}

#[test]
fn the_format_of_a_line_is_frozen() {
    let recorder = Recorder::new();
    let op = recorder.invoke(ProcessId(2), 1_200_000, send(41));
    op.ok(3_400_000, Done::Sent { offset: Some(12) });
    let poll = recorder.invoke(ProcessId(3), 5, Op::Poll { log: Log::new("t", 0), from: None });
    poll.ok(6, Done::Polled { records: vec![Record::new(3, 9)] });
    let mut text = Vec::new();
    write_events(&mut text, &recorder.events()).unwrap();
    let expected = r#"{"id":0,"process":2,"time_ns":1200000,"step":{"invoke":{"send":{"log":"t/0","value":41,"acks":"all"}}}}
{"id":0,"process":2,"time_ns":3400000,"step":{"ok":{"sent":{"offset":12}}}}
{"id":1,"process":3,"time_ns":5,"step":{"invoke":{"poll":{"log":"t/0","from":null}}}}
{"id":1,"process":3,"time_ns":6,"step":{"ok":{"polled":{"records":[[3,9]]}}}}
"#;
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}

#[test]
fn the_format_of_a_groups_lines_is_frozen() {
    let recorder = Recorder::new();
    let (process, group): (_, Arc<str>) = (ProcessId(3), "g".into());
    let op = Op::Subscribe { group: group.clone(), instance: None, topics: vec!["t".into()] };
    recorder.note(process, 1, op);
    let join = recorder.invoke(process, 2, Op::Join { group: group.clone() });
    let member = Member { id: "c-1".into(), generation: 4 };
    let log = Log::new("t", 0);
    join.ok(3, Done::Joined { member: member.clone(), assigned: vec![log.clone()], kept: Vec::new() });
    let op = Op::Commit { group: group.clone(), log: log.clone(), offset: 13, member: Some(member) };
    recorder.invoke(process, 4, op).unknown(5, Failure::Error("timed out".to_owned()));
    let fetch = recorder.invoke(process, 6, Op::FetchOffset { group: group.clone(), log: log.clone() });
    fetch.ok(7, Done::Offset { offset: Some(13) });
    recorder.note(process, 8, Op::Release { group, logs: vec![log], lost: true });
    recorder.note(process, 9, Op::Crash);
    let mut text = Vec::new();
    write_events(&mut text, &recorder.events()).unwrap();
    let expected = r#"{"id":0,"process":3,"time_ns":1,"step":{"invoke":{"subscribe":{"group":"g","instance":null,"topics":["t"]}}}}
{"id":0,"process":3,"time_ns":1,"step":{"ok":"done"}}
{"id":1,"process":3,"time_ns":2,"step":{"invoke":{"join":{"group":"g"}}}}
{"id":1,"process":3,"time_ns":3,"step":{"ok":{"joined":{"member":{"id":"c-1","generation":4},"assigned":["t/0"],"kept":[]}}}}
{"id":2,"process":3,"time_ns":4,"step":{"invoke":{"commit":{"group":"g","log":"t/0","offset":13,"member":{"id":"c-1","generation":4}}}}}
{"id":2,"process":3,"time_ns":5,"step":{"unknown":{"error":"timed out"}}}
{"id":3,"process":3,"time_ns":6,"step":{"invoke":{"fetch-offset":{"group":"g","log":"t/0"}}}}
{"id":3,"process":3,"time_ns":7,"step":{"ok":{"offset":{"offset":13}}}}
{"id":4,"process":3,"time_ns":8,"step":{"invoke":{"release":{"group":"g","logs":["t/0"],"lost":true}}}}
{"id":4,"process":3,"time_ns":8,"step":{"ok":"done"}}
{"id":5,"process":3,"time_ns":9,"step":{"invoke":"crash"}}
{"id":5,"process":3,"time_ns":9,"step":{"ok":"done"}}
"#;
    assert_eq!(String::from_utf8(text.clone()).unwrap(), expected);
    let read = History::read_from(text.as_slice()).unwrap();
    assert_eq!(read.operations(), History::from_events(recorder.events()).unwrap().operations());
}

#[test]
fn an_operation_that_ends_twice_or_never_began_is_refused() {
    let end = |id| Event { id: OpId(id), process: ProcessId(0), time_ns: 1, step: Step::Ok(Done::Done) };
    let begin = |id| Event { id: OpId(id), process: ProcessId(0), time_ns: 0, step: Step::Invoke(send(id)) };
    for events in [vec![end(0)], vec![begin(0), end(0), end(0)], vec![begin(0), begin(0)]] {
        assert!(matches!(History::from_events(events), Err(HistoryError::Order { .. })));
    }
}

#[test]
fn a_line_that_is_no_event_is_named_by_its_number() {
    let text = "{\"id\":0,\"process\":0,\"time_ns\":0,\"step\":{\"ok\":\"done\"}}\nnonsense\n";
    let error = History::read_from(text.as_bytes()).unwrap_err();
    assert!(matches!(error, HistoryError::Line { line: 2, .. }), "{error}");
}

#[test]
fn a_sink_gets_every_event_at_once_and_its_error_is_told() {
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut held = self.0.lock().unwrap();
            if held.len() > 150 {
                return Err(io::Error::other("full"));
            }
            held.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sink = Shared::default();
    let recorder = Recorder::with_sink(sink.clone());
    recorder.invoke(ProcessId(0), 0, send(1)).ok(1, Done::Done);
    assert_eq!(sink.0.lock().unwrap().iter().filter(|&&b| b == b'\n').count(), 2);
    let _ = recorder.invoke(ProcessId(0), 2, send(2));
    assert!(matches!(recorder.finish(), Err(HistoryError::Io(_))));
}
