"""kafka-python's cases."""

import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import CommitFailedError, KafkaTimeoutError, TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

import harness
from harness import BROKER, Record


def record(found):
    return Record(found.value, found.key, list(found.headers), found.timestamp, found.partition, found.offset)


class Sender:
    def __init__(self, codec, idempotent):
        self.producer = KafkaProducer(
            bootstrap_servers=BROKER, acks="all", compression_type=None if codec == "none" else codec,
            enable_idempotence=idempotent, linger_ms=5,
        )

    def send(self, topic, records):
        sent = [
            self.producer.send(
                topic, each.value, each.key, headers=each.headers or None, partition=each.partition, timestamp_ms=each.timestamp
            )
            for each in records
        ]
        self.producer.flush(60)
        for future in sent:
            future.get(60)

    def close(self):
        self.producer.close(30)


class Reader:
    def __init__(self, topic, start):
        self.partition = TopicPartition(topic, 0)
        self.consumer = KafkaConsumer(bootstrap_servers=BROKER, group_id=None, enable_auto_commit=False)
        self.consumer.assign([self.partition])
        self.consumer.seek(self.partition, start)

    def read(self, count):
        found, deadline = [], time.monotonic() + harness.WAIT_SECONDS
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} records read"
            polled = self.consumer.poll(500, max_records=count - len(found))
            found += [record(each) for records in polled.values() for each in records]
        return found

    def seek(self, offset):
        self.consumer.seek(self.partition, offset)

    def close(self):
        self.consumer.close()


class Member:
    def __init__(self, topic, group):
        self.topic = topic
        self.consumer = KafkaConsumer(
            topic, bootstrap_servers=BROKER, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest",
            session_timeout_ms=6000, heartbeat_interval_ms=300,
        )
        # A leader without the topic's metadata would assign nothing, and begin once more a moment later.
        self.consumer.partitions_for_topic(topic)

    def poll(self):
        # When the time is over in the middle of a rebalance, this version may never come to the end of it.
        return [record(each) for records in self.consumer.poll(2000).values() for each in records]

    def commit(self, offsets):
        positions = {
            TopicPartition(self.topic, partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()
        }
        try:
            # While a rebalance is under way, a commit is repeated until its time is over, and holds up the rebalance.
            self.consumer.commit(positions, timeout_ms=1000)
            return True
        except (CommitFailedError, KafkaTimeoutError):  # the records are read again by whoever has the partition now
            return False

    def close(self):
        self.consumer.close(autocommit=False)


class KafkaPython(harness.Adapter):
    name = "kafka-python"
    notes = {
        "headers": "without a null, which this client refuses as a header's value",
        "nulls": "without a record that has neither key nor value, which this client refuses",
    }
    headers = [header for header in harness.Adapter.headers if header[1] is not None]
    nulls = [pair for pair in harness.Adapter.nulls if pair != (None, None)]

    def __init__(self):
        self.admin = KafkaAdminClient(bootstrap_servers=BROKER)

    def create(self, topic, partitions=1, config=None):
        try:
            self.admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config or {})])
        except TopicAlreadyExistsError as error:
            raise harness.TopicExists from error

    def delete(self, topic):
        self.admin.delete_topics([topic])

    def partitions(self, topic):
        if topic not in self.admin.list_topics():
            return 0
        [found] = self.admin.describe_topics([topic])
        return len(found["partitions"])

    def sender(self, codec="none", idempotent=False):
        return Sender(codec, idempotent)

    def reader(self, topic, start=0):
        return Reader(topic, start)

    def bounds(self, topic):
        reader = Reader(topic, 0)
        [start] = reader.consumer.beginning_offsets([reader.partition]).values()
        [end] = reader.consumer.end_offsets([reader.partition]).values()
        reader.close()
        return start, end

    def offset_for_time(self, topic, timestamp):
        reader = Reader(topic, 0)
        found = reader.consumer.offsets_for_times({reader.partition: timestamp})[reader.partition]
        reader.close()
        return found.offset if found else None

    def consumer(self, topic, group):
        return Member(topic, group)

    def administer(self, topic, group):
        assert len(self.admin.describe_cluster()["brokers"]) == BROKER.count(",") + 1, self.admin.describe_cluster()
        self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "3600000"})])
        describe = lambda: self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        harness.wait_for("the setting", lambda: "3600000" in str(describe()))
        self.admin.create_partitions({topic: NewPartitions(4)})
        harness.wait_for("four partitions", lambda: self.partitions(topic) == 4)
        partition = TopicPartition(topic, 0)
        self.admin.delete_records({partition: 10})
        assert self.bounds(topic) == (10, 100), self.bounds(topic)
        assert topic in str(self.admin.describe_log_dirs()), self.admin.describe_log_dirs()
        listed = lambda: group in str(self.admin.list_groups())
        assert listed(), self.admin.list_groups()
        assert "Empty" in str(self.admin.describe_groups([group])), self.admin.describe_groups([group])
        offsets = self.admin.list_group_offsets({group: [partition]})
        assert "40" in str(offsets), offsets
        self.admin.alter_group_offsets(group, {partition: OffsetAndMetadata(50, "", -1)})
        self.admin.delete_groups([group])
        assert not listed(), self.admin.list_groups()


harness.main(KafkaPython())
