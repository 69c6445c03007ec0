"""The cases of the Python clients. Each client is an `Adapter`; `main` runs the cases against the brokers at argv[1]."""

import os
import signal
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field

BROKER = sys.argv[1]
SHORT = bool(os.environ.get("SHORT"))
RECORDS = 2_000 if SHORT else 50_000
RUN = uuid.uuid4().hex[:8]
ALL_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
# Seconds that a case may take, and that one wait inside of it may.
CASE_SECONDS = 120
WAIT_SECONDS = 60


@dataclass
class Record:
    """One record, as it is sent or as it was read. Timestamps are milliseconds since 1970."""

    value: bytes | None
    key: bytes | None = None
    headers: list = field(default_factory=list)
    timestamp: int | None = None
    partition: int = 0
    offset: int = -1


class TopicExists(Exception):
    """What `Adapter.create` raises when there is such a topic."""


class Skip(Exception):
    """What a case raises that the client has no means for."""


class Adapter:
    """What the cases need of a client. Senders, readers and members are closed by whoever opened them."""

    name = ""
    # By case: what of it this client leaves out, or does in its own way; or why it has no means for it.
    notes = {}
    codecs = ALL_CODECS
    idempotence = True
    headers = [("a", b"1"), ("b", b"2"), ("a", b"3"), ("empty", b""), ("null", None)]
    # Keys and values; a client that refuses a pair leaves it out.
    nulls = [(None, b"value"), (b"key", None), (None, None), (b"", b""), (b"key", b"value")]

    def create(self, topic, partitions=1, config=None):
        raise NotImplementedError

    def delete(self, topic):
        raise NotImplementedError

    def partitions(self, topic):
        """The number of partitions, 0 of a topic that does not exist. Creates none."""
        raise NotImplementedError

    def sender(self, codec="none", idempotent=False):
        """An object with `send(topic, records)`, which returns when all are acknowledged by all, and `close()`."""
        raise NotImplementedError

    def reader(self, topic, start=0):
        """An object with `read(count)`, `seek(offset)` and `close()` for partition 0, without a group."""
        raise NotImplementedError

    def bounds(self, topic):
        """The first offset of partition 0, and its end."""
        raise NotImplementedError

    def offset_for_time(self, topic, timestamp):
        """The offset of the first record of partition 0 that is not older, or None."""
        raise NotImplementedError

    def consumer(self, topic, group):
        """A member of a group, without automatic commits: `poll()` returns records, `commit({partition: offset})`
        returns whether the group took it, `close()` leaves the group."""
        raise NotImplementedError

    def administer(self, topic, group):
        """Asks all that the client's administration knows about a topic of 100 records in one partition, and a group without
        members that has committed 40 of them. It changes a setting, the number of partitions and the group's offsets, deletes
        records and, in the end, the group."""
        raise NotImplementedError


class Member(threading.Thread):
    """A member that hands each record to `handle`, and commits up to the last record for which `handle` says so."""

    def __init__(self, adapter, topic, group, handle):
        super().__init__(daemon=True)
        self.adapter, self.topic, self.group, self.handle = adapter, topic, group, handle
        self.stopping, self.failure = threading.Event(), None
        self.start()

    def run(self):
        try:
            consumer = self.adapter.consumer(self.topic, self.group)
            try:
                while not self.stopping.is_set():
                    offsets = {}
                    for record in consumer.poll():
                        if self.handle(record):
                            offsets[record.partition] = record.offset + 1
                    if offsets:
                        consumer.commit(offsets)
            finally:
                consumer.close()
        except Exception as error:  # shown by whoever waits for the member
            self.failure = error

    def stop(self):
        self.stopping.set()
        self.join(WAIT_SECONDS)
        assert not self.is_alive(), "a member does not end"
        self.check()

    def check(self):
        if self.failure:
            raise self.failure


def wait_for(what, condition, members=()):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        for member in members:
            member.check()
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS} s for {what() if callable(what) else what}"
        time.sleep(0.01)


def topic_name(adapter, case):
    return f"{adapter.name}-{case}-{RUN}"


def send(adapter, topic, records, **options):
    sender = adapter.sender(**options)
    sender.send(topic, records)
    sender.close()


def read(adapter, topic, count):
    reader = adapter.reader(topic)
    found = reader.read(count)
    reader.close()
    return found


def create(adapter):
    topic = topic_name(adapter, "create")
    adapter.create(topic, 3)
    wait_for("the topic to be known", lambda: adapter.partitions(topic) == 3)
    try:
        adapter.create(topic, 3)
        raise AssertionError("the same topic was created twice")
    except TopicExists:
        pass
    adapter.delete(topic)
    wait_for("the topic to be gone", lambda: adapter.partitions(topic) == 0)


def codec(name):
    def case(adapter):
        if name not in adapter.codecs:
            raise Skip(f"this client has no {name}")
        topic = topic_name(adapter, name)
        adapter.create(topic)
        values = [f"{number} of a codec, of a codec, of a codec".encode() for number in range(RECORDS)]
        send(adapter, topic, [Record(value) for value in values], codec=name)
        assert [record.value for record in read(adapter, topic, RECORDS)] == values, "not the records that were sent"

    return case


def idempotence(adapter):
    if not adapter.idempotence:
        raise Skip("this client has none")
    topic = topic_name(adapter, "idempotence")
    adapter.create(topic)
    sender = adapter.sender(idempotent=True)
    for start in range(0, RECORDS, 500):
        sender.send(topic, [Record(str(number).encode()) for number in range(start, start + 500)])
    sender.close()
    assert adapter.bounds(topic) == (0, RECORDS), adapter.bounds(topic)
    found = [int(record.value) for record in read(adapter, topic, RECORDS)]
    assert found == list(range(RECORDS)), "not the records that were sent, once each and in their order"


def headers(adapter):
    topic = topic_name(adapter, "headers")
    adapter.create(topic)
    send(adapter, topic, [Record(b"some", headers=adapter.headers), Record(b"none")])
    some, none = read(adapter, topic, 2)
    assert some.headers == adapter.headers, some.headers
    assert none.headers == [], none.headers


def timestamps(adapter):
    topic, start = topic_name(adapter, "timestamps"), int(time.time() * 1000) - 5_000
    adapter.create(topic)
    sent = [start, start + 2_000, start + 1_000]
    send(adapter, topic, [Record(b"x", timestamp=timestamp) for timestamp in sent])
    assert (found := [record.timestamp for record in read(adapter, topic, 3)]) == sent, found
    topic += "-append"
    adapter.create(topic, config={"message.timestamp.type": "LogAppendTime"})
    send(adapter, topic, [Record(b"x", timestamp=start)])
    [record] = read(adapter, topic, 1)
    assert record.timestamp > start + 4_000, "LogAppendTime, but the producer's timestamp is read"


def nulls(adapter):
    topic = topic_name(adapter, "nulls")
    adapter.create(topic)
    send(adapter, topic, [Record(value, key) for key, value in adapter.nulls])
    found = [(record.key, record.value) for record in read(adapter, topic, len(adapter.nulls))]
    assert found == adapter.nulls, found


def numbered(adapter, case, count=100, start=None):
    """A topic with this many records, a second apart, each with its offset as value."""
    topic = topic_name(adapter, case)
    adapter.create(topic)
    times = [None if start is None else start + number * 1000 for number in range(count)]
    send(adapter, topic, [Record(str(number).encode(), timestamp=time) for number, time in enumerate(times)])
    return topic


def seek(adapter):
    topic = numbered(adapter, "seek")
    reader = adapter.reader(topic, 10)
    for position in (None, 40, 0, 99):
        if position is not None:
            reader.seek(position)
        [record] = reader.read(1)
        expected = 10 if position is None else position
        assert (record.offset, record.value) == (expected, str(expected).encode()), (expected, record)
    reader.close()
    assert adapter.bounds(topic) == (0, 100), adapter.bounds(topic)


def offsets_by_time(adapter):
    start = int(time.time() * 1000) - 1_000_000
    topic = numbered(adapter, "offsets-by-time", start=start)
    for timestamp, expected in ((start + 49_500, 50), (start + 50_000, 50), (start - 1, 0), (start + 100_000, None)):
        found = adapter.offset_for_time(topic, timestamp)
        assert found == expected, f"{timestamp - start} ms after the first: {found}, not {expected}"


def group(adapter):
    """A group of three loses a member and gains one while records are produced; each record is consumed."""
    topic, partitions = topic_name(adapter, "group"), 6
    adapter.create(topic, partitions)
    produced, lock, ending = [], threading.Lock(), threading.Event()
    consumed, owned = set(), {}  # all values; the partitions that each member read since the last change
    failures = []

    def produce():
        try:
            sender = adapter.sender()
            while not ending.is_set():
                batch = [Record(str(len(produced) + index).encode(), partition=index) for index in range(partitions)]
                sender.send(topic, batch)
                produced.extend(record.value for record in batch)
                time.sleep(0.005)  # the pace
            sender.close()
        except Exception as error:
            failures.append(error)

    def join(name):
        def handle(record):
            with lock:
                consumed.add(record.value)
                owned.setdefault(name, set()).add(record.partition)
            return True

        return Member(adapter, topic, f"{topic}-group", handle)

    def shared(names):
        """Have these members, and no others, read all the partitions?"""
        with lock:
            return set(owned) == set(names) and set().union(*owned.values()) == set(range(partitions))

    def settled(names):
        """Waits until the records since now are read by all of these members."""
        with lock:
            owned.clear()
        describe = lambda: f"{names} to read all partitions; read: {owned}, failed: {failures}"
        wait_for(describe, lambda: shared(names), members.values())

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    members = {name: join(name) for name in "abc"}
    try:
        settled("abc")
        members.pop("b").stop()
        settled("ac")
        members["d"] = join("d")
        settled("acd")
        ending.set()
        producer.join(WAIT_SECONDS)
        assert not failures, failures
        wait_for(lambda: f"{len(set(produced) - consumed)} of {len(produced)} records", lambda: set(produced) <= consumed, members.values())
    finally:
        ending.set()
        for member in members.values():
            member.stop()


def commit_resume(adapter):
    topic, committed = numbered(adapter, "commit-resume"), 40
    for start, end in ((0, committed), (committed, 100)):
        found = []

        def handle(record):
            found.append(record.offset)
            return record.offset < committed

        member = Member(adapter, topic, f"{topic}-group", handle)
        wait_for(lambda: f"records {start} to {end}; read: {found[:5]}", lambda: len(found) >= end - start, [member])
        member.stop()
        assert found[: end - start] == list(range(start, end)), f"began with {found[:3]}, not with {start}"


def admin(adapter):
    topic, read = numbered(adapter, "admin"), threading.Event()

    def handle(record):
        if record.offset == 99:
            read.set()
        return record.offset < 40

    member = Member(adapter, topic, f"{topic}-group", handle)
    wait_for("all records", read.is_set, [member])
    member.stop()
    adapter.administer(topic, f"{topic}-group")


CASES = {
    "create": create,
    **{f"produce-consume-{name}": codec(name) for name in ALL_CODECS},
    "idempotence": idempotence,
    "headers": headers,
    "timestamps": timestamps,
    "nulls": nulls,
    "seek": seek,
    "offsets-by-time": offsets_by_time,
    "group": group,
    "commit-resume": commit_resume,
    "admin": admin,
}


def on_alarm(_signal, _frame):
    raise TimeoutError(f"not done within {CASE_SECONDS} s")


def main(adapter, more_cases=None):
    """Prints one line a case, and ends with 1 if one failed."""
    signal.signal(signal.SIGALRM, on_alarm)
    failed = False
    for name, case in {**CASES, **(more_cases or {})}.items():
        signal.alarm(CASE_SECONDS)
        try:
            case(adapter)
            print(f"ok {name}  # {adapter.notes[name]}" if name in adapter.notes else f"ok {name}", flush=True)
        except Skip as why:
            print(f"skip {name}: {adapter.notes.get(name, why)}", flush=True)
        except Exception as error:  # whatever the client raises is the case's outcome
            failed = True
            why = str(error).replace("\n", " ")
            print(f"not ok {name}: {type(error).__name__}: {why}", flush=True)
        signal.alarm(0)
    sys.stdout.flush()
    os._exit(failed)  # without waiting for threads of a client that hangs
