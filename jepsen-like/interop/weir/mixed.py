"""A group in which Weir's client, librdkafka's and Java's share the partitions of a topic:

    mixed.py BROKER WEIR JARS ASSIGNOR FOLDER

Members come and go while records are produced, and each record is read. Java's consumers read on after they have committed
for a rebalance, so that some records may be read twice; those that Weir's client hands to itself may not.
"""

import collections
import json
import os
import signal
import subprocess
import sys
import threading
import time

broker, weir, jars, assignor, folder = sys.argv[1:]
case = f"mixed-group-{assignor}"
name = f"{case}-{os.getpid()}-{int(time.time())}"
java_assignor = "org.apache.kafka.clients.consumer." + {
    "range": "RangeAssignor", "roundrobin": "RoundRobinAssignor", "cooperative-sticky": "CooperativeStickyAssignor",
}[assignor]
commands = {
    "weir": [weir, "-b", broker, "consume", name, "-g", name, "--from", "beginning", "--assignor", assignor],
    "kcat": ["kcat", "-q", "-u", "-b", broker, "-G", name, "-X", f"partition.assignment.strategy={assignor}",
             "-X", "auto.offset.reset=earliest", "-X", "heartbeat.interval.ms=500", name],
    "java": ["java", "-Xmx128m", "-cp", jars, "org.apache.kafka.tools.consumer.ConsoleConsumer",
             "--bootstrap-server", broker, "--group", name, "--topic", name, "--from-beginning",
             "--consumer-property", f"partition.assignment.strategy={java_assignor}",
             "--consumer-property", "heartbeat.interval.ms=500"],
}
members = {}
outputs = []


def ask(*arguments):
    answer = subprocess.run([weir, "-b", broker, "-o", "json", *arguments], capture_output=True, text=True)
    return json.loads(answer.stdout) if answer.returncode == 0 else None


def start(kind, number):
    outputs.append(os.path.join(folder, f"{name}-{kind}{number}"))
    with open(outputs[-1], "wb") as out, open(outputs[-1] + ".err", "wb") as err:
        members[kind, number] = subprocess.Popen(commands[kind], stdout=out, stderr=err)


def stop(kind, number):
    member = members.pop((kind, number))
    member.send_signal(signal.SIGTERM)
    member.wait(30)


def wait_until(what, condition):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: {ask('group', 'describe', name)}")
        time.sleep(0.1)


def divided():
    """Every member that runs has partitions, and all of them together have all."""
    groups = ask("group", "describe", name)
    held = [len(member["partitions"]) for member in groups[0]["members"]] if groups else []
    return len(held) == len(members) and min(held, default=0) > 0 and sum(held) == 6


def read():
    """Who has read each record."""
    readers = collections.defaultdict(list)
    for path in outputs:
        with open(path, "rb") as lines:
            for line in lines.read().split(b"\n")[:-1]:
                readers[line].append(path.rsplit("-", 1)[1])
    return readers


class Load(threading.Thread):
    """Produces numbers until it is told to stop."""

    def __init__(self):
        super().__init__()
        self.stopping = threading.Event()
        self.count = 0
        self.producer = subprocess.Popen([weir, "-b", broker, "produce", name], stdin=subprocess.PIPE)

    def run(self):
        while not self.stopping.wait(0.02):
            for _ in range(20):
                self.producer.stdin.write(b"%d\n" % self.count)
                self.count += 1
            self.producer.stdin.flush()

    def end(self):
        self.stopping.set()
        self.join()
        self.producer.stdin.close()
        if self.producer.wait(30) != 0:
            raise RuntimeError("producing failed")


def run():
    subprocess.run([weir, "-b", broker, "topic", "create", name, "-p", "6"], check=True, stdout=subprocess.DEVNULL)
    load = Load()
    load.start()
    for step in [("weir", 1), ("java", 1), ("kcat", 1), ("weir", 2), ("java", 1), ("weir", 1), ("java", 2)]:
        stop(*step) if step in members else start(*step)
        wait_until(f"the group is divided after {step}", divided)
    load.end()
    wait_until("everything is read", lambda: len(read()) >= load.count)
    twice = [who for who in read().values() if len(who) > 1]
    ours = sum(1 for who in twice if all(reader.startswith("weir") for reader in who))
    if ours:
        return f"not ok {case}: {ours} of {load.count} records were read twice by Weir's clients"
    return f"ok {case}" + (f"  # {len(twice)} of {load.count} records were read twice" if twice else "")


try:
    told = run()
except Exception as error:
    told = f"not ok {case}: {str(error) or repr(error)}".replace("\n", " ")
for member in list(members):
    stop(*member)
ask("group", "delete", name)
ask("topic", "delete", name)
print(told)
sys.exit(0 if told.startswith("ok") else 1)
