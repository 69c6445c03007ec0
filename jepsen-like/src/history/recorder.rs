//! The writing side of a history.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Done, Event, Failure, HistoryError, Op, OpId, ProcessId, Step};

/// Where a [`Recorder`] puts its events.
struct Tape {
    events: Vec<Event>,
    next_id: u64,
    sink: Option<Box<dyn Write + Send>>,
    sink_error: Option<io::Error>,
}

/// An append-only record of a run, shared by all of its clients.
///
/// With a sink every event is also written as a line at once, so that the history of a run that is cut short remains.
#[derive(Clone)]
pub struct Recorder {
    tape: Arc<Mutex<Tape>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// Records in memory.
    pub fn new() -> Self {
        Self::with(None)
    }

    /// Records in memory and writes each event to the sink. A sink's error ends the writing and is reported by
    /// [`Recorder::finish`].
    pub fn with_sink(sink: impl Write + Send + 'static) -> Self {
        Self::with(Some(Box::new(sink)))
    }

    fn with(sink: Option<Box<dyn Write + Send>>) -> Self {
        let tape = Tape { events: Vec::new(), next_id: 0, sink, sink_error: None };
        Self { tape: Arc::new(Mutex::new(tape)) }
    }

    /// An operation starts. The name that comes back ends it.
    pub fn invoke(&self, process: ProcessId, time_ns: u64, op: Op) -> Pending {
        let mut tape = self.lock();
        let id = OpId(tape.next_id);
        tape.next_id += 1;
        tape.put(Event { id, process, time_ns, step: Step::Invoke(op) });
        drop(tape);
        Pending { recorder: self.clone(), id, process }
    }

    /// Something happens to a process that it asks of nobody: it starts and ends at once.
    pub fn note(&self, process: ProcessId, time_ns: u64, op: Op) {
        self.invoke(process, time_ns, op).ok(time_ns, Done::Done);
    }

    /// How many events there are so far.
    pub fn len(&self) -> usize {
        self.lock().events.len()
    }

    /// Whether nothing was recorded yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the events so far.
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// Takes the events out and flushes the sink. Operations still under way stay without an end; what they record
    /// from now on belongs to no history.
    ///
    /// # Errors
    /// The first error of the sink.
    pub fn finish(&self) -> Result<Vec<Event>, HistoryError> {
        let mut tape = self.lock();
        if let Some(error) = tape.sink_error.take() {
            return Err(error.into());
        }
        if let Some(sink) = &mut tape.sink {
            sink.flush()?;
        }
        Ok(std::mem::take(&mut tape.events))
    }

    fn lock(&self) -> MutexGuard<'_, Tape> {
        // Every change of the tape is one push: a panic elsewhere leaves nothing half done.
        self.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tape {
    fn put(&mut self, event: Event) {
        if let Some(sink) = &mut self.sink
            && let Err(error) = write_event(sink, &event)
        {
            self.sink = None;
            self.sink_error = Some(error);
        }
        self.events.push(event);
    }
}

/// An operation under way. Dropped without an end, it stays without one, which counts as unknown.
#[must_use = "an operation that is never ended counts as unknown"]
pub struct Pending {
    recorder: Recorder,
    id: OpId,
    process: ProcessId,
}

impl Pending {
    /// The operation's name.
    pub fn id(&self) -> OpId {
        self.id
    }

    /// It happened.
    pub fn ok(self, time_ns: u64, done: Done) {
        self.end(time_ns, Step::Ok(done));
    }

    /// It certainly did not happen and never will.
    pub fn fail(self, time_ns: u64, failure: Failure) {
        self.end(time_ns, Step::Fail(failure));
    }

    /// It may have happened.
    pub fn unknown(self, time_ns: u64, failure: Failure) {
        self.end(time_ns, Step::Unknown(failure));
    }

    fn end(self, time_ns: u64, step: Step) {
        self.recorder.lock().put(Event { id: self.id, process: self.process, time_ns, step });
    }
}

fn write_event(sink: &mut dyn Write, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    sink.write_all(&line)
}

/// Writes events as JSON lines.
///
/// # Errors
/// What the sink says.
pub fn write_events(mut sink: impl Write, events: &[Event]) -> Result<(), HistoryError> {
    for event in events {
        write_event(&mut sink, event)?;
    }
    sink.flush()?;
    Ok(())
}
