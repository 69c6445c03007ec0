//! Producing at a steady rate, or as fast as librdkafka can.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use hdrhistogram::Histogram;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::Report;

#[derive(Args)]
pub(crate) struct Options {
    /// Where the broker is.
    #[arg(long)]
    bootstrap: String,
    /// The topic; it is created.
    #[arg(long)]
    topic: String,
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    #[arg(long, default_value_t = -1)]
    replicas: i32,
    /// Records a second in all; 0: as fast as possible.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Size of a record's value in bytes.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Length of the measurement.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds at the same rate before it, not measured.
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// Settings of the topic: name=value.
    #[arg(long = "topic-setting", value_name = "NAME=VALUE")]
    topic_settings: Vec<String>,
    /// Settings of librdkafka: name=value.
    #[arg(long = "setting", short = 'X', value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

/// What the delivery callbacks write down.
struct Deliveries {
    measured_from: Instant,
    taken: Mutex<Taken>,
}

struct Taken {
    latencies_us: Histogram<u64>,
    failed: u64,
    last: Instant,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    /// When the record was due.
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, result: &DeliveryResult<'_>, due: Box<Instant>) {
        if *due < self.measured_from {
            return;
        }
        let now = Instant::now();
        let mut taken = self.taken.lock().expect("no callback panics while it holds the lock");
        taken.last = now;
        match result {
            Ok(_) => taken.latencies_us.saturating_record((now - *due).as_micros() as u64),
            Err(_) => taken.failed += 1,
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<Report> {
    create_topic(options)?;
    let start = Instant::now() + Duration::from_millis(200);
    let measured_from = start + Duration::from_secs_f64(options.warmup);
    let taken =
        Taken { latencies_us: Histogram::new_with_max(600_000_000, 3)?, failed: 0, last: measured_from };
    let context = Deliveries { measured_from, taken: Mutex::new(taken) };
    let producer: ThreadedProducer<Deliveries> = client(options)?
        .set("acks", "all")
        .set("message.timeout.ms", "60000")
        .create_with_context(context)
        .context("librdkafka refuses the settings")?;
    send(options, &producer, start)?;
    producer.flush(Duration::from_secs(60)).context("records were still unanswered after 60 s")?;
    let taken = producer.context().taken.lock().expect("no callback panics while it holds the lock");
    let latencies = &taken.latencies_us;
    Ok(Report {
        records: latencies.len(),
        failed: taken.failed,
        bytes: latencies.len() * options.size as u64,
        seconds: (taken.last - measured_from).as_secs_f64(),
        p50_us: latencies.value_at_quantile(0.5),
        p99_us: latencies.value_at_quantile(0.99),
        p999_us: latencies.value_at_quantile(0.999),
        max_us: latencies.max(),
    })
}

fn send(options: &Options, producer: &ThreadedProducer<Deliveries>, start: Instant) -> Result<()> {
    let noise: Vec<u8> = (0..options.size + 4096)
        .scan(1u32, |state, _| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*state >> 24) as u8)
        })
        .collect();
    let end = start + Duration::from_secs_f64(options.warmup + options.seconds);
    for number in 0u64.. {
        let due = match options.rate {
            0 => Instant::now().max(start),
            rate => start + Duration::from_nanos(number * 1_000_000_000 / rate),
        };
        if due >= end {
            break;
        }
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(early);
        }
        let at = (number % 4096) as usize;
        let partition = (number % options.partitions as u64) as i32;
        let mut record = BaseRecord::<(), [u8], _>::with_opaque_to(&options.topic, Box::new(due))
            .partition(partition)
            .payload(&noise[at..at + options.size]);
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error).context("librdkafka refuses a record");
            }
            std::thread::sleep(Duration::from_micros(200)); // its queue is full: the callbacks make room
            record = refused;
        }
    }
    Ok(())
}

fn client(options: &Options) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &options.bootstrap);
    for setting in &options.settings {
        let (name, value) =
            setting.split_once('=').with_context(|| format!("'{setting}' is not name=value"))?;
        config.set(name, value);
    }
    Ok(config)
}

fn create_topic(options: &Options) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(options)?.create()?;
    let mut topic =
        NewTopic::new(&options.topic, options.partitions, TopicReplication::Fixed(options.replicas));
    for setting in &options.topic_settings {
        let (name, value) =
            setting.split_once('=').with_context(|| format!("'{setting}' is not name=value"))?;
        topic = topic.set(name, value);
    }
    let wait = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let created = block_on(admin.create_topics([&topic], &wait)).context("the topic cannot be created")?;
    match created.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((name, code))) => bail!("the topic {name} cannot be created: {code}"),
        None => bail!("the broker said nothing of the topic"),
    }
}

/// Waits for a future whose waker is called by a thread of librdkafka's.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
