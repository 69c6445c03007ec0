"""librdkafka's cases, through confluent-kafka for Python."""

import time

from confluent_kafka import (
    OFFSET_END, Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType,
)

import harness
from harness import BROKER, Record, topic_name

# The commits that a rebalance may refuse; the records are read again by whoever has the partition now.
REBALANCING = {KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS, KafkaError.UNKNOWN_MEMBER_ID}


def record(message):
    """A message as a record; raises what is not a message."""
    if message.error():
        raise KafkaException(message.error())
    return Record(
        message.value(), message.key(), message.headers() or [], message.timestamp()[1], message.partition(), message.offset()
    )


class Sender:
    def __init__(self, **settings):
        self.producer = Producer({"bootstrap.servers": BROKER, "acks": "all", "linger.ms": 5, **settings})

    def send(self, topic, records):
        failures = []
        report = lambda error, _: failures.append(error) if error else None
        for each in records:
            while True:
                try:
                    self.producer.produce(
                        topic, each.value, each.key, each.partition, on_delivery=report, timestamp=each.timestamp or 0, headers=each.headers
                    )
                    break
                except BufferError:
                    self.producer.poll(0.1)
        assert self.producer.flush(60) == 0, "records were not delivered within 60 s"
        if failures:
            raise KafkaException(failures[0])

    def close(self):
        self.producer.flush(60)


class Reader:
    def __init__(self, topic, start):
        self.topic = topic
        self.consumer = Consumer({"bootstrap.servers": BROKER, "group.id": "none", "enable.auto.commit": False})
        self.consumer.assign([TopicPartition(topic, 0, start)])

    def read(self, count):
        found, deadline = [], time.monotonic() + harness.WAIT_SECONDS
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} records read"
            found += [record(message) for message in self.consumer.consume(min(count - len(found), 1000), 0.5)]
        return found

    def seek(self, offset):
        self.consumer.seek(TopicPartition(self.topic, 0, offset))

    def close(self):
        self.consumer.close()


class Member:
    def __init__(self, topic, group, settings):
        self.topic = topic
        self.consumer = Consumer(
            {
                "bootstrap.servers": BROKER,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 300,
                **settings,
            }
        )
        self.consumer.subscribe([topic])

    def poll(self):
        return [record(message) for message in self.consumer.consume(500, 0.1)]

    def commit(self, offsets):
        positions = [TopicPartition(self.topic, partition, offset) for partition, offset in offsets.items()]
        try:
            self.consumer.commit(offsets=positions, asynchronous=False)
            return True
        except KafkaException as error:
            if error.args[0].code() in REBALANCING:
                return False
            raise

    def close(self):
        self.consumer.close()


class Librdkafka(harness.Adapter):
    name = "librdkafka"
    notes = {"admin": "without the offset of the newest timestamp, for which it asks in a version that does not know of it"}
    member_settings = {}

    def __init__(self):
        self.admin = AdminClient({"bootstrap.servers": BROKER})

    def create(self, topic, partitions=1, config=None):
        try:
            self.admin.create_topics([NewTopic(topic, partitions, -1, config=config or {})])[topic].result(30)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                raise harness.TopicExists from error
            raise

    def delete(self, topic):
        self.admin.delete_topics([topic])[topic].result(30)

    def partitions(self, topic):
        found = self.admin.list_topics(timeout=30).topics.get(topic)
        return len(found.partitions) if found else 0

    def sender(self, codec="none", idempotent=False):
        return Sender(**{"compression.type": codec, "enable.idempotence": idempotent})

    def reader(self, topic, start=0):
        return Reader(topic, start)

    def bounds(self, topic):
        reader = Reader(topic, 0)
        found = reader.consumer.get_watermark_offsets(TopicPartition(topic, 0), 30)
        reader.close()
        return found

    def offset_for_time(self, topic, timestamp):
        reader = Reader(topic, 0)
        [found] = reader.consumer.offsets_for_times([TopicPartition(topic, 0, timestamp)], 30)
        reader.close()
        if found.error:
            raise KafkaException(found.error)
        return None if found.offset == OFFSET_END else found.offset

    def consumer(self, topic, group):
        return Member(topic, group, self.member_settings)

    def administer(self, topic, group):
        self.administer_topic(topic)
        listed = self.admin.list_consumer_groups().result(30)
        assert not listed.errors and group in [each.group_id for each in listed.valid], listed
        described = self.admin.describe_consumer_groups([group])[group].result(30)
        assert described.state == ConsumerGroupState.EMPTY and not described.members, described
        commit = lambda: self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(30).topic_partitions
        assert [(each.partition, each.offset) for each in commit()] == [(0, 40)], commit()
        moved = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 50)])
        self.admin.alter_consumer_group_offsets([moved])[group].result(30)
        assert [each.offset for each in commit()] == [50], commit()
        self.admin.delete_consumer_groups([group])[group].result(30)
        assert group not in [each.group_id for each in self.admin.list_consumer_groups().result(30).valid]

    def administer_topic(self, topic):
        cluster = self.admin.describe_cluster().result(30)
        assert len(cluster.nodes) == BROKER.count(",") + 1 and cluster.controller.id in [node.id for node in cluster.nodes] and cluster.cluster_id, cluster
        hour = ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)
        wanted = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[hour])
        self.admin.incremental_alter_configs([wanted])[wanted].result(30)
        retention = lambda: self.admin.describe_configs([wanted])[wanted].result(30)["retention.ms"].value
        harness.wait_for("the setting", lambda: retention() == "3600000")
        self.admin.create_partitions([NewPartitions(topic, 4)])[topic].result(30)
        harness.wait_for("four partitions", lambda: self.partitions(topic) == 4)
        described = self.admin.describe_topics(TopicCollection([topic]))[topic].result(30)
        assert len(described.partitions) == 4 and all(each.leader for each in described.partitions), described
        first = TopicPartition(topic, 0, 10)
        assert self.admin.delete_records([first])[first].result(30).low_watermark == 10
        assert self.bounds(topic) == (10, 100), self.bounds(topic)
        partition = TopicPartition(topic, 0)
        for spec, expected in ((OffsetSpec.earliest(), 10), (OffsetSpec.latest(), 100)):
            found = self.admin.list_offsets({partition: spec})[partition].result(30)
            assert found.offset == expected, found.offset


class Cooperative(Librdkafka):
    """Members that keep their partitions while a rebalance is under way."""

    name = "librdkafka-cooperative"
    member_settings = {"partition.assignment.strategy": "cooperative-sticky"}


def acks(adapter):
    topic = topic_name(adapter, "acks")
    adapter.create(topic)
    for setting in ("0", "1", "all"):
        sender = Sender(acks=setting)
        sender.send(topic, [Record(setting.encode())])
        # Nothing tells that acks=0 has arrived, but the end of the partition.
        harness.wait_for(f"acks={setting}", lambda: adapter.bounds(topic)[1] == ("0", "1", "all").index(setting) + 1)
    assert [each.value for each in harness.read(adapter, topic, 3)] == [b"0", b"1", b"all"]


def too_large(adapter):
    topic = topic_name(adapter, "large")
    adapter.create(topic, config={"max.message.bytes": "2000"})
    harness.send(adapter, topic, [Record(b"x" * 1500)])
    try:
        harness.send(adapter, topic, [Record(b"x" * 3000)])
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE, error
    else:
        raise AssertionError("a record above max.message.bytes was taken")


harness.main(
    Librdkafka(),
    {"acks": acks, "too-large": too_large, "group-cooperative": lambda _: harness.group(Cooperative())},
)
