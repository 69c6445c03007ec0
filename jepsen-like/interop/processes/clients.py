"""librdkafka's part of a run with real processes: two producers and a consumer, written down as a history.

clients.py BOOTSTRAP TOPIC:PARTITIONS,... ORIGIN-NS FIRST-PROCESS HISTORY: works until the standard input ends. The lines and
the payloads are those of jepsen-like/src/history.rs and workload.rs; times are the system's monotonic clock from ORIGIN-NS on.
"""

import json
import random
import struct
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

BOOTSTRAP, TOPICS, ORIGIN_NS, FIRST_PROCESS, HISTORY = sys.argv[1:]
ORIGIN_NS, FIRST_PROCESS = int(ORIGIN_NS), int(FIRST_PROCESS)
PARTITIONS = [(name, partition) for name, count in (topic.rsplit(":", 1) for topic in TOPICS.split(",")) for partition in range(int(count))]
# Values and operations of other clients are far below.
FIRST_VALUE, FIRST_OP = 1 << 40, 1 << 40
RECORDS_A_SECOND = 100
ANSWERS_MAX_S = 60
COMMON = {"bootstrap.servers": BOOTSTRAP, "socket.timeout.ms": 2000, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 300,
          "retry.backoff.ms": 20, "retry.backoff.max.ms": 300, "topic.metadata.refresh.interval.ms": 1000}
MASK = (1 << 64) - 1
stopped = threading.Event()


class History:
    def __init__(self, path):
        self.file, self.lock, self.next_op = open(path, "w"), threading.Lock(), FIRST_OP

    def invoke(self, process, op, at=None):
        with self.lock:
            number, self.next_op = self.next_op, self.next_op + 1
            self.write(number, process, {"invoke": op}, at)
        return number

    def end(self, number, process, step, at=None):
        with self.lock:
            self.write(number, process, step, at)

    def write(self, number, process, step, at):
        line = {"id": number, "process": process, "time_ns": now() if at is None else at, "step": step}
        self.file.write(json.dumps(line, separators=(",", ":")) + "\n")


def now():
    return time.monotonic_ns() - ORIGIN_NS


def filling(value, size):
    """SplitMix64, seeded with the value."""
    words, state = bytearray(), value
    while len(words) < size:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
        words += struct.pack(">Q", word ^ (word >> 31))
    return bytes(words[:size])


def payload(value, size):
    return b"weir" + struct.pack(">Q", value) + filling(value, max(size - 12, 0))


def value_of(data):
    """The value of a payload; None where any byte of it is not what was written."""
    if data is None or len(data) < 12 or data[:4] != b"weir":
        return None
    value = struct.unpack(">Q", data[4:12])[0]
    return value if data[12:] == filling(value, len(data) - 12) else None


def log(topic, partition):
    return f"{topic}/{partition}"


def produce(process, settings):
    producer = Producer({**COMMON, "acks": "all", "message.timeout.ms": 20_000, "linger.ms": 2, **settings})
    own = random.Random(process)
    value = FIRST_VALUE + (process << 32)

    def delivered(number):
        def ended(error, message):
            if error is None:
                history.end(number, process, {"ok": {"sent": {"offset": message.offset()}}})
            else:
                # Whether the last attempt arrived is not known.
                history.end(number, process, {"unknown": {"error": str(error)}})
        return ended

    while not stopped.wait(own.uniform(0, 2 / RECORDS_A_SECOND)):
        topic, partition = own.choice(PARTITIONS)
        number = history.invoke(process, {"send": {"log": log(topic, partition), "value": value, "acks": "all"}})
        try:
            producer.produce(topic, payload(value, own.randrange(300)), partition=partition, on_delivery=delivered(number))
        except (BufferError, KafkaException) as error:
            history.end(number, process, {"fail": {"error": str(error)}})
        value += 1
        producer.poll(0)
    producer.flush(ANSWERS_MAX_S)


def consume(process):
    consumer = Consumer({**COMMON, "group.id": "none", "enable.auto.commit": False, "auto.offset.reset": "earliest", "check.crcs": True,
                         "fetch.wait.max.ms": 100, "fetch.error.backoff.ms": 50})
    number = history.invoke(process, {"assign": {"logs": [log(*partition) for partition in PARTITIONS]}})
    consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in PARTITIONS])
    history.end(number, process, {"ok": "done"})
    while not stopped.is_set():
        begun = now()
        messages = consumer.consume(1000, 0.2)
        ended, polled = now(), {}
        for message in messages:
            if message.error() is None:
                records = polled.setdefault(log(message.topic(), message.partition()), [])
                records.append([message.offset(), value_of(message.value())])
            elif message.error().code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
                continue  # it goes on by itself
            else:
                print(message.error(), file=sys.stderr)
        for name, records in polled.items():
            number = history.invoke(process, {"poll": {"log": name, "from": None}}, begun)
            history.end(number, process, {"ok": {"polled": {"records": records}}}, ended)
    consumer.close()


history = History(HISTORY)
threads = [
    threading.Thread(target=produce, args=(FIRST_PROCESS, {"enable.idempotence": True})),
    # Both are idempotent: without numbers, what waits for an answer of the old leader comes behind what goes to the new one.
    threading.Thread(target=produce, args=(FIRST_PROCESS + 1, {"enable.idempotence": True, "compression.type": "lz4"})),
    threading.Thread(target=consume, args=(FIRST_PROCESS + 2,)),
]
for thread in threads:
    thread.start()
sys.stdin.read()
stopped.set()
for thread in threads:
    thread.join()
history.file.close()
