// kafkajs's cases. It brings gzip; the other codecs are plugged in, as its users do.

import { randomUUID } from 'node:crypto'

import { lz4Compress, lz4Decompress } from '@platformatic/wasm-utils'
import kafkajs from 'kafkajs'
import snappy from 'kafkajs-snappy'
import zstdCodec from 'zstd-codec'

import { TopicExists, allCodecs, allNulls, broker, bytes, check, main, text, waitFor } from './shared/harness.mjs'

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, Partitioners, logLevel } = kafkajs
const types = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }

CompressionCodecs[CompressionTypes.Snappy] = snappy
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async encoder => lz4Compress(encoder.buffer),
  decompress: async buffer => lz4Decompress(buffer)
})
const zstd = await new Promise(resolve => zstdCodec.ZstdCodec.run(found => resolve(new found.Simple())))
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer))
})

const kafka = new Kafka({ brokers: broker.split(','), logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50 } })
const admin = kafka.admin()

// Each name has one value or a list of values; the order between different names is lost.
const toHeaders = pairs => {
  const headers = {}
  for (const [name, value] of pairs) headers[name] = name in headers ? [headers[name], value].flat() : value
  return headers
}
const fromHeaders = headers => Object.entries(headers).flatMap(([name, values]) => [values].flat().map(value => [name, value]))

const toRecord = (partition, message) => ({
  key: message.key,
  value: message.value,
  headers: fromHeaders(message.headers ?? {}),
  timestamp: Number(message.timestamp),
  partition,
  offset: Number(message.offset)
})

const client = {
  name: 'kafkajs',
  codecs: allCodecs,
  idempotence: true,
  notes: {
    'produce-consume-snappy': 'with the codec of kafkajs-snappy',
    'produce-consume-lz4': 'with the codec of @platformatic/wasm-utils',
    'produce-consume-zstd': 'with the codec of zstd-codec',
    headers: 'without a null, at which this client fails; values of one name stand together, as it keeps headers in an object',
    seek: 'as the only member of a group: this client reads in no other way',
    'offsets-by-time': 'the end of the partition stands for no such record'
  },
  headers: [['a', bytes(1)], ['a', bytes(3)], ['b', bytes(2)], ['empty', bytes('')]],
  nulls: allNulls,

  async create (topic, numPartitions, config = {}) {
    const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }))
    // False stands for a topic that was there; the replication factor is the broker's default.
    const created = await admin.createTopics({ topics: [{ topic, numPartitions, replicationFactor: -1, configEntries }] })
    if (!created) throw new TopicExists()
  },

  remove: topic => admin.deleteTopics({ topics: [topic] }),

  async partitions (topic) {
    if (!(await admin.listTopics()).includes(topic)) return 0
    const { topics: [found] } = await admin.fetchTopicMetadata({ topics: [topic] })
    return found.partitions.length
  },

  async sender ({ codec, idempotent }) {
    const producer = kafka.producer({
      idempotent,
      maxInFlightRequests: idempotent ? 1 : null,
      allowAutoTopicCreation: false,
      createPartitioner: Partitioners.DefaultPartitioner
    })
    await producer.connect()
    return {
      send: (topic, records) => producer.send({
        topic,
        acks: -1,
        compression: types[codec],
        messages: records.map(({ key, value, headers, timestamp, partition }) => (
          { key, value, partition, headers: toHeaders(headers), timestamp: timestamp && String(timestamp) }))
      }),
      close: () => producer.disconnect()
    }
  },

  // This client reads with a group only, so each reader is alone in one of its own.
  async reader (topic, start) {
    const consumer = kafka.consumer({ groupId: randomUUID(), maxWaitTimeInMs: 200, heartbeatInterval: 300, sessionTimeout: 6000 })
    let queue = []
    let sought = null
    const seek = offset => {
      queue = []
      sought = offset
      consumer.seek({ topic, partition: 0, offset: String(offset) })
    }
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        // What was fetched before the seek may still come.
        if (sought !== null && Number(message.offset) !== sought) return
        sought = null
        queue.push(toRecord(partition, message))
      }
    })
    if (start > 0) seek(start)
    return {
      seek,
      async read (count) {
        await waitFor(() => `${count} records; read ${queue.length}`, () => queue.length >= count)
        return queue.splice(0, count)
      },
      close: () => consumer.disconnect()
    }
  },

  async bounds (topic) {
    const [{ low, high }] = await admin.fetchTopicOffsets(topic)
    return [Number(low), Number(high)]
  },

  async offsetForTime (topic, time) {
    const [{ offset }] = await admin.fetchTopicOffsetsByTimestamp(topic, time)
    const [, end] = await client.bounds(topic)
    return Number(offset) === end ? null : Number(offset) // the end stands for no such record
  },

  async administer (topic, groupId) {
    const cluster = await admin.describeCluster()
    check(cluster.brokers.length === broker.split(',').length && cluster.brokers.some(({ nodeId }) => nodeId === cluster.controller), () => text(cluster))
    const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
    const configEntries = [{ name: 'retention.ms', value: '3600000' }]
    await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries }] })
    const describe = () => admin.describeConfigs({ resources: [{ ...resource, configNames: ['retention.ms'] }], includeSynonyms: false })
    await waitFor(() => 'the setting', async () => (await describe()).resources[0].configEntries[0].configValue === '3600000')
    await client.bounds(topic) // has this client learn who leads, which it does not ask before it deletes
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '10' }] })
    const listed = async () => (await admin.listGroups()).groups.some(group => group.groupId === groupId)
    check(await listed(), 'the group is not listed')
    const { groups: [group] } = await admin.describeGroups([groupId])
    check(group.state === 'Empty' && group.protocolType === 'consumer' && group.members.length === 0, () => text(group))
    const committed = async () => {
      const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [topic] })
      return partitions.find(each => each.partition === 0).offset
    }
    check(await committed() === '40', 'not the offset that was committed')
    await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '50' }] })
    check(await committed() === '50', 'not the offset that was set')
    await admin.resetOffsets({ groupId, topic, earliest: true })
    check(await committed() === '-2', 'not what this client commits for the first offset')
    await admin.deleteGroups([groupId])
    check(!(await listed()), 'the group is still listed')
    // Last, as this client does not wait for the leaders of partitions that are new.
    await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] })
    await waitFor(() => 'four partitions', async () => (await client.partitions(topic)) === 4)
  },

  async consume (topic, groupId, handle) {
    const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 200, heartbeatInterval: 300, sessionTimeout: 6000, rebalanceTimeout: 10000 })
    const member = { failure: null, stop: () => consumer.disconnect() }
    consumer.on(consumer.events.CRASH, ({ payload }) => { if (!payload.restart) member.failure = payload.error })
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      // What this throws while a rebalance is under way, the client handles: it joins again and reads the records once more.
      eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
        let accepted = null
        for (const message of batch.messages) {
          if (handle(toRecord(batch.partition, message))) accepted = message.offset
          resolveOffset(message.offset)
        }
        if (accepted !== null) await consumer.commitOffsets([{ topic, partition: batch.partition, offset: String(BigInt(accepted) + 1n) }])
        await heartbeat()
      }
    })
    return member
  }
}

await admin.connect()
await main(client)
