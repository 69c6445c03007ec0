"""SIGKILL under load: everything that was acknowledged is read back, at its offset and in order.

kills.py BROKER GIGABYTES KILLS: librdkafka (and kcat, if it is installed) produce that much in all, with acks=all and the
five codecs in turn, while the broker is killed that many times, at moments drawn at random. Prints one line a case.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BINARY, GIGABYTES, KILLS = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
PARTITIONS = 4
VALUE_BYTES = 4096
# Retries reach the broker in the order in which they were sent; without idempotence they may stand there twice.
SETTINGS = {"acks": "all", "max.in.flight.requests.per.connection": 1, "message.timeout.ms": 300_000, "linger.ms": 5,
            "batch.size": 1_000_000, "queue.buffering.max.kbytes": 200_000}
TRANSIENT = {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE}


class Broker:
    """A broker process that comes back at the same address each time it is killed."""

    def __init__(self, folder):
        self.folder, self.address, self.restarts = folder, "127.0.0.1:0", []
        self.start()

    def start(self):
        begun = time.monotonic()
        log = open(os.path.join(self.folder, "broker.log"), "a")
        data = os.path.join(self.folder, "data")
        self.process = subprocess.Popen(
            [BINARY, "--data-dir", data, "--listen", self.address], stdout=subprocess.PIPE, stderr=log, text=True
        )
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            sys.exit(f"not ok start: the broker ended with {self.process.wait()}; see {self.folder}/broker.log")
        self.address = line.split()[1]
        self.restarts.append(time.monotonic() - begun)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.start()


def value(number):
    """A record that names itself and of which half compresses."""
    return b"%012d" % number + NOISE[number % 997 : number % 997 + VALUE_BYTES // 2] + b"." * (VALUE_BYTES // 2 - 12)


NOISE = random.Random(1).randbytes(VALUE_BYTES + 1000)


class Load(threading.Thread):
    """One producer into one topic; remembers the offset of each acknowledged record."""

    def __init__(self, address, codec, records):
        super().__init__()
        self.topic, self.records, self.failures = f"kills-{codec}", records, []
        self.acknowledged = [{} for _ in range(PARTITIONS)]  # offset -> number
        self.producer = Producer({"bootstrap.servers": address, "compression.type": codec, **SETTINGS})

    def delivered(self, error, message):
        if error is None:
            self.acknowledged[message.partition()][message.offset()] = int(message.value()[:12])
        else:
            self.failures.append(str(error))

    def run(self):
        for number in range(self.records):
            while True:
                try:
                    self.producer.produce(self.topic, value(number), partition=number % PARTITIONS, on_delivery=self.delivered)
                    break
                except BufferError:
                    self.producer.poll(0.1)
            if number % 64 == 0:
                self.producer.poll(0)
        self.left = self.producer.flush(300)


def read_back(address, load):
    """Compares what a partition holds with what was acknowledged. Returns complaints."""
    complaints = []
    for partition, acknowledged in enumerate(load.acknowledged):
        reader = Consumer({"bootstrap.servers": address, "group.id": "none", "enable.auto.commit": False,
                           "enable.partition.eof": True, "check.crcs": True, "fetch.message.max.bytes": 4_000_000})
        reader.assign([TopicPartition(load.topic, partition, 0)])
        found, furthest, done = 0, -1, False
        while not done:
            for message in reader.consume(5000, 0.5):
                if message.error():
                    if message.error().code() == KafkaError._PARTITION_EOF:
                        done = True
                    elif message.error().code() not in TRANSIENT:
                        complaints.append(f"partition {partition}: {message.error()}")
                        done = True
                    continue
                number = int(message.value()[:12])
                if message.value() != value(number):
                    complaints.append(f"partition {partition}, offset {message.offset()}: the record is not as it was sent")
                expected = acknowledged.get(message.offset())
                if expected is not None:
                    found += 1
                    if expected != number:
                        complaints.append(f"partition {partition}, offset {message.offset()}: {number}, acknowledged was {expected}")
                # A repeat of a batch goes back by less than a batch; what is new goes on by one step.
                if number > furthest:
                    if furthest >= 0 and number != furthest + PARTITIONS:
                        complaints.append(f"partition {partition}: {number} follows {furthest}")
                    furthest = number
        reader.close()
        if found != len(acknowledged):
            complaints.append(f"partition {partition}: {len(acknowledged) - found} of {len(acknowledged)} acknowledged records are gone")
    return complaints


def with_kcat(broker, folder, records):
    """kcat sends a file while the broker is killed; all its lines are there, in order, at least once."""
    lines = os.path.join(folder, "lines")
    with open(lines, "w") as out:
        out.writelines(f"{number:012} {'.' * 1000}\n" for number in range(records))
    options = [f"-X{name}={setting}" for name, setting in SETTINGS.items()]
    # -E: kcat would otherwise end as soon as it has no connection, before librdkafka has tried to connect again.
    sender = subprocess.Popen(["kcat", "-q", "-E", "-P", "-b", broker.address, "-t", "kills-kcat", "-p", "0", *options, "-l", lines])
    for _ in range(2):
        time.sleep(0.3)
        broker.kill()
    if sender.wait(300) != 0:
        return ["kcat ended with an error"]
    reader = subprocess.run(["kcat", "-q", "-C", "-b", broker.address, "-t", "kills-kcat", "-p", "0", "-o", "beginning", "-e"],
                            stdout=subprocess.PIPE, text=True, timeout=300)
    furthest = -1
    for line in reader.stdout.splitlines():
        number = int(line.split()[0])
        if number > furthest + 1:
            return [f"kcat: {number} follows {furthest}"]
        furthest = max(furthest, number)
    return [] if furthest == records - 1 else [f"kcat: {furthest + 1} of {records} lines are there"]


def main():
    folder = tempfile.mkdtemp(prefix="durability-", dir=os.environ.get("WORK"))
    broker = Broker(folder)
    admin = AdminClient({"bootstrap.servers": broker.address})
    topics = [f"kills-{codec}" for codec in CODECS] + ["kills-kcat"]
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, -1) for topic in topics]).values():
        future.result(30)
    records = int(GIGABYTES * 1e9 / VALUE_BYTES / len(CODECS))
    loads = [Load(broker.address, codec, records) for codec in CODECS]
    total = records * len(CODECS)
    for load in loads:
        load.start()
    done = lambda: sum(len(offsets) for load in loads for offsets in load.acknowledged)
    moments = sorted(random.uniform(0.02, 0.95) * total for _ in range(KILLS))
    begun = time.monotonic()
    while any(load.is_alive() for load in loads):
        time.sleep(0.05)  # the pace of looking, not a wait for something to be true
        if moments and done() >= moments[0]:
            moments.pop(0)
            broker.kill()
            print(f"# killed with {done()} of {total} records acknowledged; back in {broker.restarts[-1] * 1000:.0f} ms", flush=True)
    print(f"# {total} records of {VALUE_BYTES} bytes in {time.monotonic() - begun:.0f} s", flush=True)
    failed = False
    for load in loads:
        complaints = load.failures + read_back(broker.address, load)
        if load.left:
            complaints.append(f"{load.left} records were never answered")
        failed |= report(load.topic, complaints, f"{sum(map(len, load.acknowledged))} acknowledged records read back")
    if shutil.which("kcat"):
        failed |= report("kills-kcat", with_kcat(broker, folder, max(records, 20_000)), "")
    else:
        print("skip kills-kcat: kcat is not installed")
    broker.process.terminate()
    code = broker.process.wait(60)
    failed |= report("clean-stop", [] if code == 0 else [f"ended with {code}"], "")
    if not failed:
        shutil.rmtree(folder)
    sys.exit(failed)


def report(case, complaints, remark):
    if complaints:
        print(f"not ok {case}: {len(complaints)} complaints, the first: {complaints[0]}", flush=True)
    else:
        print(f"ok {case}" + (f"  # {remark}" if remark else ""), flush=True)
    return bool(complaints)


main()
