"""librdkafka's cases: prints one line a case, ends with 1 if one failed."""

import os
import sys
import time
import uuid

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BROKER = sys.argv[1]
RECORDS = 2_000 if os.environ.get("SHORT") else 50_000
RUN = uuid.uuid4().hex[:8]


def topic(name):
    return f"librdkafka-{name}-{RUN}"


def consumer(**settings):
    return Consumer(
        {"bootstrap.servers": BROKER, "group.id": "none", "enable.auto.commit": False, "enable.partition.eof": True, **settings}
    )


def create(name, partitions=1, **config):
    admin = AdminClient({"bootstrap.servers": BROKER})
    admin.create_topics([NewTopic(topic(name), partitions, -1, config=config)])[topic(name)].result(30)


def produce(name, records, partition=0, **settings):
    """Sends (key, value, headers, timestamp) and returns the reports, in order."""
    reports = []
    producer = Producer({"bootstrap.servers": BROKER, "acks": "all", "linger.ms": 5, **settings})
    for key, value, headers, timestamp in records:
        while True:
            try:
                producer.produce(
                    topic(name), value, key, partition, headers=headers, timestamp=timestamp,
                    on_delivery=lambda error, message: reports.append((error, message)),
                )
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0, "records were not delivered within 60 s"
    for error, _ in reports:
        assert error is None, error
    return [message for _, message in reports]


def read(name, start=0, partition=0, **settings):
    """All records of a partition from `start` to its end."""
    reader, found, deadline = consumer(**settings), [], time.monotonic() + 60
    reader.assign([TopicPartition(topic(name), partition, start)])
    while time.monotonic() < deadline:
        for message in reader.consume(1000, 1.0):
            if message.error() is None:
                found.append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                reader.close()
                return found
            else:
                raise KafkaException(message.error())
    raise AssertionError(f"no end of the partition within 60 s, {len(found)} records read")


def codec(name):
    def case():
        create(name)
        values = [f"{number} of a codec, of a codec, of a codec".encode() for number in range(RECORDS)]
        produce(name, [(None, value, None, 0) for value in values], **{"compression.type": name})
        assert [message.value() for message in read(name)] == values, "not the records that were sent"

    return case


def details():
    create("details")
    now = int(time.time() * 1000)
    headers = [("a", b"1"), ("a", b"2"), ("null", None)]
    produce("details", [(b"key", b"value", headers, now), (None, None, None, now + 1), (b"", b"", [], now + 2)])
    first, second, third = read("details")
    assert (first.key(), first.value(), first.headers(), first.timestamp()[1]) == (b"key", b"value", headers, now)
    assert (second.key(), second.value()) == (None, None), "null key and value"
    assert (third.key(), third.value()) == (b"", b""), "empty key and value"


def seek_and_times():
    create("times")
    start = int(time.time() * 1000) - 1_000_000
    produce("times", [(None, str(number).encode(), None, start + number * 1000) for number in range(100)])
    assert read("times", start=40)[0].value() == b"40"
    reader = consumer()
    assert reader.get_watermark_offsets(TopicPartition(topic("times"), 0), 30) == (0, 100)
    [found] = reader.offsets_for_times([TopicPartition(topic("times"), 0, start + 49_500)], 30)
    assert found.offset == 50, found
    reader.close()


def partitions():
    create("partitions", 3)
    for partition in range(3):
        produce("partitions", [(None, f"{partition}-{number}".encode(), None, 0) for number in range(10)], partition)
    for partition in range(3):
        expected = [f"{partition}-{number}".encode() for number in range(10)]
        assert [message.value() for message in read("partitions", partition=partition)] == expected


def acks():
    create("acks")
    for setting in ("0", "1", "all"):
        produce("acks", [(None, setting.encode(), None, 0)], acks=setting)
    deadline = time.monotonic() + 10
    while (found := [message.value() for message in read("acks")]) != [b"0", b"1", b"all"]:
        assert time.monotonic() < deadline, found


def too_large():
    create("large", **{"max.message.bytes": "2000"})
    produce("large", [(None, b"x" * 1500, None, 0)])
    reports = []
    producer = Producer({"bootstrap.servers": BROKER, "acks": "all"})
    producer.produce(topic("large"), b"x" * 3000, on_delivery=lambda error, _: reports.append(error))
    producer.flush(30)
    assert reports and reports[0] is not None and reports[0].code() == KafkaError.MSG_SIZE_TOO_LARGE, reports


def administration():
    admin = AdminClient({"bootstrap.servers": BROKER})
    create("admin", 4)
    assert len(admin.list_topics(topic("admin"), 30).topics[topic("admin")].partitions) == 4
    try:
        create("admin", 4)
        raise AssertionError("the same topic was created twice")
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS, error
    admin.delete_topics([topic("admin")])[topic("admin")].result(30)
    assert topic("admin") not in admin.list_topics(timeout=30).topics


CASES = {
    **{f"codec-{name}": codec(name) for name in ("none", "gzip", "snappy", "lz4", "zstd")},
    "headers-nulls-timestamps": details,
    "seek-and-offsets-by-time": seek_and_times,
    "partitions": partitions,
    "acks": acks,
    "too-large": too_large,
    "create-and-delete": administration,
}

failed = False
for name, case in CASES.items():
    try:
        case()
        print(f"ok {name}", flush=True)
    except Exception as error:  # whatever the client raises is the case's outcome
        failed = True
        print(f"not ok {name}: {type(error).__name__}: {error}", flush=True)
sys.exit(failed)
