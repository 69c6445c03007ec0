// The cases of @platformatic/kafka.

import { randomUUID } from 'node:crypto'
import zlib from 'node:zlib'

import { Admin, ConfigResourceTypes, Consumer, IncrementalAlterConfigOperationTypes, Producer } from '@platformatic/kafka'

import { TopicExists, allCodecs, allHeaders, allNulls, broker, check, main, text, waitFor } from './shared/harness.mjs'

const base = { clientId: 'platformatic', bootstrapBrokers: broker.split(','), retries: 5, retryDelay: 50 }
const admin = new Admin(base)

const toRecord = message => ({
  key: message.key ?? null,
  value: message.value ?? null,
  headers: [...message.headers].map(([name, value]) => [String(name), value]),
  timestamp: Number(message.timestamp),
  partition: message.partition,
  offset: Number(message.offset)
})

// Does the error, or one that it consists of, have this name in the protocol?
const isError = (error, id) => error.apiId === id || (error.errors ?? []).some(each => isError(each, id)) || (error.cause && isError(error.cause, id))

// Runs `body` with a consumer that is in no group.
async function withConsumer (body) {
  const consumer = new Consumer({ ...base, groupId: randomUUID() })
  try {
    return await body(consumer)
  } finally {
    await consumer.close(true)
  }
}

const client = {
  name: 'platformatic-kafka',
  codecs: allCodecs.filter(name => name !== 'zstd' || zlib.zstdCompressSync), // Node brings zstd from 22.15 on
  idempotence: true,
  notes: {
    'produce-consume-zstd': 'it uses the zstd of Node, which has one from 22.15 on',
    timestamps: "without LogAppendTime: it shows the producer's timestamps whatever the batch's attributes say",
    seek: 'by a new stream that begins at the offset: it has no seek'
  },
  headers: allHeaders,
  nulls: allNulls,
  noAppendTime: true, // it adds the differences to the first timestamp, whatever the type

  async create (topic, partitions, config = {}) {
    try {
      const configs = Object.entries(config).map(([name, value]) => ({ name, value }))
      await admin.createTopics({ topics: [topic], partitions, replicas: 1, configs })
    } catch (error) {
      throw isError(error, 'TOPIC_ALREADY_EXISTS') ? new TopicExists() : error
    }
  },

  remove: topic => admin.deleteTopics({ topics: [topic] }),

  async partitions (topic) {
    try {
      const found = await admin.metadata({ topics: [topic], forceUpdate: true })
      return found.topics.get(topic).partitionsCount
    } catch (error) {
      if (error.message.startsWith('Unknown topic')) return 0
      throw error
    }
  },

  async sender ({ codec, idempotent }) {
    const producer = new Producer({ ...base, idempotent, acks: -1, compression: codec })
    return {
      send: (topic, records) => producer.send({
        messages: records.map(({ key, value, headers, timestamp, partition }) => ({
          topic,
          partition,
          key,
          value,
          // A map with the names as buffers, which are all different, keeps their order and the repeated ones.
          headers: new Map(headers.map(([name, content]) => [Buffer.from(name), content])),
          timestamp: timestamp && BigInt(timestamp)
        }))
      }),
      close: () => producer.close()
    }
  },

  async reader (topic, start) {
    let consumer, stream, records
    const open = async offset => {
      consumer = new Consumer({ ...base, groupId: randomUUID(), maxWaitTime: 200 })
      const offsets = [{ topic, partition: 0, offset: BigInt(offset) }]
      stream = await consumer.consume({ topics: [topic], mode: 'manual', offsets, autocommit: false })
      records = stream[Symbol.asyncIterator]()
    }
    const close = async () => {
      await stream.close()
      await consumer.close(true)
    }
    await open(start)
    return {
      async read (count) {
        const found = []
        while (found.length < count) found.push(toRecord((await records.next()).value))
        return found
      },
      // This client has no seek: a stream begins where it is told to.
      async seek (offset) {
        await close()
        await open(offset)
      },
      close
    }
  },

  bounds: topic => withConsumer(async consumer => {
    const list = async timestamp => Number((await consumer.listOffsets({ topics: [topic], timestamp })).get(topic)[0])
    return [await list(-2n), await list(-1n)]
  }),

  offsetForTime: (topic, time) => withConsumer(async consumer => {
    const found = await consumer.listOffsetsWithTimestamps({ topics: [topic], timestamp: BigInt(time) })
    const { offset } = found.get(topic).get(0)
    return offset === -1n ? null : Number(offset)
  }),

  async administer (topic, groupId) {
    await administerTopic(topic)
    const group = (await admin.describeGroups({ groups: [groupId] })).get(groupId)
    check((await admin.listGroups()).has(groupId), 'the group is not listed')
    check(group.state === 'EMPTY' && group.members.size === 0, () => text(group))
    const committed = async () => {
      const [{ topics: [found] }] = await admin.listConsumerGroupOffsets({ groups: [groupId] })
      return Number(found.partitions[0].committedOffset)
    }
    check(await committed() === 40, 'not the offset that was committed')
    await admin.alterConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionOffsets: [{ partition: 0, offset: 50n }] }] })
    check(await committed() === 50, 'not the offset that was set')
    await admin.deleteConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionIndexes: [0] }] })
    await admin.deleteGroups({ groups: [groupId] })
    check(!(await admin.listGroups()).has(groupId), 'the group is still listed')
  },

  async consume (topic, groupId, handle) {
    const consumer = new Consumer({ ...base, groupId, sessionTimeout: 6000, heartbeatInterval: 300, rebalanceTimeout: 10000, maxWaitTime: 200 })
    const stream = await consumer.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: false })
    const member = { failure: null }
    let stopping = false
    const reading = (async () => {
      let accepted = []
      for await (const message of stream) {
        if (handle(toRecord(message))) accepted.push(message)
        if (accepted.length > 0 && (stream.readableLength === 0 || accepted.length > 100)) {
          await commit(accepted)
          accepted = []
        }
      }
    })().catch(error => { if (!stopping) member.failure = error })
    member.stop = async () => {
      stopping = true
      await stream.close()
      await reading
      await consumer.close(true)
    }
    return member
  }
}

async function administerTopic (topic) {
  const resource = { resourceType: ConfigResourceTypes.TOPIC, resourceName: topic }
  const configs = [{ name: 'retention.ms', value: '3600000', configOperation: IncrementalAlterConfigOperationTypes.SET }]
  await admin.incrementalAlterConfigs({ resources: [{ ...resource, configs }] })
  const describe = () => admin.describeConfigs({ resources: [{ ...resource, configurationKeys: ['retention.ms'] }], includeSynonyms: true })
  await waitFor(() => 'the setting', async () => (await describe())[0].configs[0].value === '3600000')
  await admin.createPartitions({ topics: [{ name: topic, count: 4 }] })
  await waitFor(() => 'four partitions', async () => (await client.partitions(topic)) === 4)
  const deleted = await admin.deleteRecords({ topics: [{ name: topic, partitions: [{ partition: 0, offset: 10n }] }] })
  check(deleted[0].partitions[0].lowWatermark === 10n, () => text(deleted))
  const newest = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp: -3n }] }] })
  check(newest[0].partitions[0].offset === 99n, () => text(newest))
  const folders = await admin.describeLogDirs({ topics: [{ name: topic, partitions: [0] }] })
  check(folders.some(({ results }) => results[0].topics.some(each => each.name === topic)), () => text(folders))
}

// Commits the last message of each partition. What a rebalance refuses is read again by whoever has the partition now.
async function commit (messages) {
  const last = new Map(messages.map(message => [message.partition, message]))
  for (const message of last.values()) {
    try {
      await message.commit()
    } catch (error) {
      if (!['REBALANCE_IN_PROGRESS', 'ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID'].some(id => isError(error, id))) throw error
    }
  }
}

await main(client)
