// The cases of the Node clients: `main(client)` runs them against the brokers at argv[2]. What a client offers:
//
//   name, codecs, idempotence       what it is called, and what it can do
//   notes                           by case: what of it the client leaves out or does in its own way; or why it has no means for it
//   headers, nulls                  the headers, and the pairs of key and value, that it can send and read
//   noAppendTime                    it reads the producer's timestamps whatever the topic's timestamp type is
//   create(topic, partitions, config)   throws TopicExists when there is such a topic
//   remove(topic), partitions(topic)    the number of partitions is 0 of a topic that does not exist
//   sender({ codec, idempotent })   send(topic, records), which returns when all are acknowledged by all; close()
//   reader(topic, start)            read(count), seek(offset), close(): partition 0, as without a group as can be
//   bounds(topic)                   the first offset of partition 0, and its end
//   offsetForTime(topic, time)      the offset of the first record of partition 0 that is not older, or null
//   administer(topic, group)        asks all that the client's administration knows about a topic of 100 records in one partition,
//                                   and a group without members that has committed 40 of them. It changes a setting, the number of
//                                   partitions and the group's offsets, deletes records and, in the end, the group
//   consume(topic, group, handle)   a member of a group. It hands each record to `handle` and commits up to the last one for
//                                   which that returns true. stop() leaves the group; `failure` is why it ended by itself
//
// A record has `key` and `value` (buffers or null), `headers` (pairs), `timestamp` (milliseconds), `partition` and `offset` (numbers).

import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

export const broker = process.argv[2]
export const allCodecs = ['none', 'gzip', 'snappy', 'lz4', 'zstd']
const records = process.env.SHORT ? 2_000 : 50_000
const chunk = 1_000 // records of one request: not every client divides what it is given
const run = randomBytes(4).toString('hex')
const caseSeconds = 120
const waitSeconds = 60
const groupPartitions = 6

export class TopicExists extends Error {}
class Skip extends Error {}

export const bytes = text => Buffer.from(String(text))
export const allHeaders = [['a', bytes(1)], ['b', bytes(2)], ['a', bytes(3)], ['empty', bytes('')], ['null', null]]
export const allNulls = [[null, bytes('value')], [bytes('key'), null], [null, null], [bytes(''), bytes('')], [bytes('key'), bytes('value')]]

export function check (holds, otherwise) {
  if (!holds) throw new Error(typeof otherwise === 'function' ? otherwise() : otherwise)
}

// What is compared and shown: buffers as text, null as null, big integers as numbers.
export const text = value => JSON.stringify(value, (_, each) => (
  each?.type === 'Buffer' ? Buffer.from(each.data).toString() : typeof each === 'bigint' ? Number(each) : each))

export async function waitFor (what, condition, members = []) {
  const deadline = Date.now() + waitSeconds * 1000
  while (!(await condition())) {
    for (const member of members) {
      if (member.failure) throw member.failure
    }
    check(Date.now() < deadline, () => `waited ${waitSeconds} s for ${what()}`)
    await sleep(10)
  }
}

const topicName = (client, name) => `${client.name}-${name}-${run}`

async function send (client, topic, sent, options = {}) {
  const sender = await client.sender({ codec: 'none', idempotent: false, ...options })
  const complete = sent.map(each => ({ key: null, headers: [], partition: 0, ...each }))
  for (let start = 0; start < sent.length; start += chunk) await sender.send(topic, complete.slice(start, start + chunk))
  await sender.close()
}

async function read (client, topic, count) {
  const reader = await client.reader(topic, 0)
  const found = await reader.read(count)
  await reader.close()
  return found
}

async function numbered (client, name, start = Date.now() - 1_000_000) {
  const topic = topicName(client, name)
  await client.create(topic, 1)
  await send(client, topic, Array.from({ length: 100 }, (_, number) => ({ value: bytes(number), timestamp: start + number * 1000 })))
  return topic
}

async function create (client) {
  const topic = topicName(client, 'create')
  await client.create(topic, 3)
  await waitFor(() => 'the topic to be known', async () => (await client.partitions(topic)) === 3)
  await client.create(topic, 3).then(
    () => check(false, 'the same topic was created twice'),
    error => { if (!(error instanceof TopicExists)) throw error }
  )
  await client.remove(topic)
  await waitFor(() => 'the topic to be gone', async () => (await client.partitions(topic)) === 0)
}

const codec = name => async client => {
  if (!client.codecs.includes(name)) throw new Skip(`this client has no ${name}`)
  const topic = topicName(client, name)
  await client.create(topic, 1)
  const sent = Array.from({ length: records }, (_, number) => ({ value: bytes(`${number} of a codec, of a codec, of a codec`) }))
  await send(client, topic, sent, { codec: name })
  expectValues(sent, await read(client, topic, records))
}

function expectValues (sent, found) {
  sent.forEach((each, index) => check(each.value.equals(found[index].value), () => `record ${index} is ${found[index].value}`))
}

async function idempotence (client) {
  if (!client.idempotence) throw new Skip('this client has none')
  const topic = topicName(client, 'idempotence')
  await client.create(topic, 1)
  const sent = Array.from({ length: records }, (_, number) => ({ value: bytes(number) }))
  await send(client, topic, sent, { idempotent: true })
  const bounds = await client.bounds(topic)
  check(text(bounds) === text([0, records]), `the partition has offsets ${bounds}`)
  expectValues(sent, await read(client, topic, records))
}

async function headers (client) {
  const topic = topicName(client, 'headers')
  await client.create(topic, 1)
  await send(client, topic, [{ value: bytes('some'), headers: client.headers }, { value: bytes('none') }])
  const found = (await read(client, topic, 2)).map(each => each.headers)
  check(text(found) === text([client.headers, []]), `read ${text(found)}`)
}

async function timestamps (client) {
  const start = Date.now() - 5_000
  const sent = [start, start + 2_000, start + 1_000]
  const topic = topicName(client, 'timestamps')
  await client.create(topic, 1)
  await send(client, topic, sent.map(timestamp => ({ value: bytes('x'), timestamp })))
  const found = (await read(client, topic, 3)).map(each => each.timestamp)
  check(text(found) === text(sent), `read ${found}`)
  if (client.noAppendTime) return
  await client.create(`${topic}-append`, 1, { 'message.timestamp.type': 'LogAppendTime' })
  await send(client, `${topic}-append`, [{ value: bytes('x'), timestamp: start }])
  const [appended] = await read(client, `${topic}-append`, 1)
  check(appended.timestamp > start + 4_000, "LogAppendTime, but the producer's timestamp is read")
}

async function nulls (client) {
  const topic = topicName(client, 'nulls')
  await client.create(topic, 1)
  await send(client, topic, client.nulls.map(([key, value]) => ({ key, value })))
  const found = (await read(client, topic, client.nulls.length)).map(({ key, value }) => [key, value])
  check(text(found) === text(client.nulls), `read ${text(found)}`)
}

async function seek (client) {
  const topic = await numbered(client, 'seek')
  const reader = await client.reader(topic, 10)
  for (const offset of [10, 40, 0, 99]) {
    if (offset !== 10) await reader.seek(offset)
    const [found] = await reader.read(1)
    check(found.offset === offset && String(found.value) === String(offset), `offset ${offset} is ${found.offset}: ${found.value}`)
  }
  await reader.close()
  const bounds = await client.bounds(topic)
  check(text(bounds) === text([0, 100]), `the partition has offsets ${bounds}`)
}

async function offsetsByTime (client) {
  const start = Date.now() - 1_000_000
  const topic = await numbered(client, 'offsets-by-time', start)
  for (const [after, expected] of [[49_500, 50], [50_000, 50], [-1, 0], [100_000, null]]) {
    const found = await client.offsetForTime(topic, start + after)
    check(found === expected, `${after} ms after the first: ${found}, not ${expected}`)
  }
}

// A group of three loses a member and gains one while records are produced; each record is consumed.
async function group (client) {
  const topic = topicName(client, 'group')
  await client.create(topic, groupPartitions)
  const consumed = new Set()
  let owned = {} // who read which partitions since the last change
  const members = {}
  const join = async name => {
    members[name] = await client.consume(topic, `${topic}-group`, record => {
      consumed.add(Number(record.value))
      owned[name] = (owned[name] ?? new Set()).add(record.partition)
      return true
    })
  }
  // Waits until the records from now on are read by all of the members, and from all partitions.
  const settled = () => {
    owned = {}
    const names = Object.keys(members)
    return waitFor(
      () => `${names} to read all partitions; read: ${text(Object.entries(owned).map(([name, set]) => [name, [...set]]))}`,
      () => names.every(name => owned[name]) && new Set(Object.values(owned).flatMap(set => [...set])).size === groupPartitions,
      [producing, ...Object.values(members)]
    )
  }
  const producing = { ending: false, count: 0 }
  const done = produceUntil(client, topic, producing).catch(error => { producing.failure = error })
  try {
    await Promise.all(['a', 'b', 'c'].map(join))
    await settled()
    const leaver = members.b
    delete members.b
    await leaver.stop()
    await settled()
    await join('d')
    await settled()
    producing.ending = true
    await done
    if (producing.failure) throw producing.failure
    const complete = () => { for (let n = 0; n < producing.count; n++) if (!consumed.has(n)) return false; return true }
    await waitFor(() => `${producing.count} records; ${consumed.size} are read`, complete, Object.values(members))
  } finally {
    producing.ending = true
    await Promise.all(Object.values(members).map(member => member.stop()))
  }
}

async function produceUntil (client, topic, producing) {
  const sender = await client.sender({ codec: 'none', idempotent: false })
  while (!producing.ending) {
    const batch = Array.from({ length: groupPartitions }, (_, partition) => (
      { key: null, value: bytes(producing.count + partition), headers: [], partition }))
    await sender.send(topic, batch)
    producing.count += groupPartitions
    await sleep(10) // the pace
  }
  await sender.close()
}

async function commitResume (client) {
  const topic = await numbered(client, 'commit-resume')
  const committed = 40
  for (const [start, end] of [[0, committed], [committed, 100]]) {
    const found = []
    const member = await client.consume(topic, `${topic}-group`, record => {
      found.push(record.offset)
      return record.offset < committed
    })
    await waitFor(() => `records ${start} to ${end}; read ${found.length}`, () => found.length >= end - start, [member])
    await member.stop()
    for (let index = 0; index < end - start; index++) {
      check(found[index] === start + index, `began with ${found[0]}, not with ${start}`)
    }
  }
}

async function admin (client) {
  const topic = await numbered(client, 'admin')
  let last = -1
  const member = await client.consume(topic, `${topic}-group`, record => {
    last = record.offset
    return record.offset < 40
  })
  await waitFor(() => `all records; read up to ${last}`, () => last === 99, [member])
  await member.stop()
  await client.administer(topic, `${topic}-group`)
}

const cases = {
  create,
  ...Object.fromEntries(allCodecs.map(name => [`produce-consume-${name}`, codec(name)])),
  idempotence,
  headers,
  timestamps,
  nulls,
  seek,
  'offsets-by-time': offsetsByTime,
  group,
  'commit-resume': commitResume,
  admin
}

// Runs the cases, prints a line for each, and ends the process with 1 if one failed.
export async function main (client) {
  let failed = 0
  process.on('unhandledRejection', error => console.error(error))
  for (const [name, body] of Object.entries(cases)) {
    const note = client.notes[name]
    const limit = new AbortController()
    const tooLate = sleep(caseSeconds * 1000, null, { signal: limit.signal }).then(() => check(false, `not done within ${caseSeconds} s`))
    try {
      await Promise.race([body(client), tooLate])
      console.log(note ? `ok ${name}  # ${note}` : `ok ${name}`)
    } catch (error) {
      if (error instanceof Skip) {
        console.log(`skip ${name}: ${note ?? error.message}`)
      } else {
        failed = 1
        console.log(`not ok ${name}: ${String(error.errors?.[0] ?? error).replaceAll('\n', ' ')}`)
      }
    }
    tooLate.catch(() => {}) // it is over
    limit.abort()
  }
  process.exit(failed)
}
