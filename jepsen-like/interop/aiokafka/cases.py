"""aiokafka's cases. Its coroutines run on a loop of their own, so that heartbeats go on whatever the cases wait for."""

import asyncio
import logging
import threading

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import CommitFailedError, IllegalOperation, TopicAlreadyExistsError, for_code

import harness
from harness import BROKER, Record

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what matters is raised
LOOP = asyncio.new_event_loop()
threading.Thread(target=LOOP.run_forever, daemon=True).start()


def wait(coroutine):
    """Runs a coroutine on the loop and returns what it returns."""
    return asyncio.run_coroutine_threadsafe(coroutine, LOOP).result(harness.WAIT_SECONDS)


async def started(kind, *arguments, **settings):
    """A client, made on the loop and started."""
    client = kind(*arguments, bootstrap_servers=BROKER, **settings)
    await client.start()
    return client


def record(found):
    return Record(found.value, found.key, list(found.headers), found.timestamp, found.partition, found.offset)


class Sender:
    def __init__(self, codec, idempotent):
        compression = None if codec == "none" else codec
        self.producer = wait(
            started(AIOKafkaProducer, acks="all", compression_type=compression, enable_idempotence=idempotent, linger_ms=5)
        )

    def send(self, topic, records):
        wait(self.deliver(topic, records))

    async def deliver(self, topic, records):
        sent = [
            await self.producer.send(
                topic, each.value, each.key, each.partition, timestamp_ms=each.timestamp, headers=each.headers or None
            )
            for each in records
        ]
        await asyncio.gather(*sent)

    def close(self):
        wait(self.producer.stop())


class Reader:
    def __init__(self, topic, start):
        self.partition = TopicPartition(topic, 0)
        self.consumer = wait(self.assigned(start))

    async def assigned(self, start):
        consumer = await started(AIOKafkaConsumer, enable_auto_commit=False)
        consumer.assign([self.partition])
        consumer.seek(self.partition, start)
        return consumer

    def read(self, count):
        return wait(self.collect(count))

    async def collect(self, count):
        return [record(await self.consumer.getone(self.partition)) for _ in range(count)]

    def seek(self, offset):
        self.consumer.seek(self.partition, offset)

    def close(self):
        wait(self.consumer.stop())


class Member:
    def __init__(self, topic, group):
        self.topic = topic
        self.consumer = wait(
            started(
                AIOKafkaConsumer, topic, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest",
                session_timeout_ms=6000, heartbeat_interval_ms=300,
            )
        )

    def poll(self):
        return [record(each) for records in wait(self.consumer.getmany(timeout_ms=100)).values() for each in records]

    def commit(self, offsets):
        try:
            wait(self.consumer.commit({TopicPartition(self.topic, partition): offset for partition, offset in offsets.items()}))
            return True
        except (CommitFailedError, IllegalOperation):  # a rebalance took the partition; the records are read again
            return False

    def close(self):
        wait(self.consumer.stop())


class Aiokafka(harness.Adapter):
    name = "aiokafka"
    notes = {"nulls": "without a record that has neither key nor value, which this client refuses"}
    nulls = [pair for pair in harness.Adapter.nulls if pair != (None, None)]

    def __init__(self):
        self.admin = wait(started(AIOKafkaAdminClient))

    def create(self, topic, partitions=1, config=None):
        response = wait(self.admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config or {})]))
        for _, code, *_ in response.topic_errors:
            if code == TopicAlreadyExistsError.errno:
                raise harness.TopicExists
            if code:
                raise for_code(code)

    def delete(self, topic):
        response = wait(self.admin.delete_topics([topic]))
        for _, code in response.topic_error_codes:
            if code:
                raise for_code(code)

    def partitions(self, topic):
        if topic not in wait(self.admin.list_topics()):
            return 0
        [found] = wait(self.admin.describe_topics([topic]))
        return len(found["partitions"])

    def sender(self, codec="none", idempotent=False):
        return Sender(codec, idempotent)

    def reader(self, topic, start=0):
        return Reader(topic, start)

    def bounds(self, topic):
        reader = Reader(topic, 0)
        [start] = wait(reader.consumer.beginning_offsets([reader.partition])).values()
        [end] = wait(reader.consumer.end_offsets([reader.partition])).values()
        reader.close()
        return start, end

    def offset_for_time(self, topic, timestamp):
        reader = Reader(topic, 0)
        found = wait(reader.consumer.offsets_for_times({reader.partition: timestamp}))[reader.partition]
        reader.close()
        return found.offset if found else None

    def consumer(self, topic, group):
        return Member(topic, group)

    def administer(self, topic, group):
        assert len(wait(self.admin.describe_cluster())["brokers"]) == BROKER.count(",") + 1
        wait(self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "3600000"})]))
        describe = lambda: wait(self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
        harness.wait_for("the setting", lambda: "3600000" in str(describe()))
        wait(self.admin.create_partitions({topic: NewPartitions(4)}))
        harness.wait_for("four partitions", lambda: self.partitions(topic) == 4)
        partition = TopicPartition(topic, 0)
        assert wait(self.admin.delete_records({partition: RecordsToDelete(10)})) == {partition: 10}
        assert self.bounds(topic) == (10, 100), self.bounds(topic)
        listed = wait(self.admin.list_consumer_groups())
        assert (group, "consumer") in listed, listed
        [described] = wait(self.admin.describe_consumer_groups([group]))
        assert "Empty" in str(described), described
        offsets = wait(self.admin.list_consumer_group_offsets(group))
        assert offsets[partition].offset == 40, offsets


harness.main(Aiokafka())
