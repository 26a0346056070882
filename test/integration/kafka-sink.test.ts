import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { KafkaSink } from '../../src/modules/event/kafka-sink.ts'
import type { PlaybackEvent } from '../../src/schemas.ts'
import { type KafkaCluster, readTopic, requireKafka, startKafka } from '../support/kafka-broker.ts'
import { waitFor } from '../support/wait-for.ts'

const { library, skip } = requireKafka()
const PARTITIONS = 6
const silent = { debug: () => {}, info: () => {}, warn: () => {} }

function event (session: string, seq: number): PlaybackEvent {
  return {
    event_type: 'playback.paused',
    session_id: session,
    user_id: 'u',
    profile_id: 'p',
    content_id: 'c',
    device_id: 'd',
    timestamp: new Date().toISOString(),
    metadata: { position: seq },
    event_id: `${session}:${seq}`,
    seq,
    schema_version: '1.0'
  }
}

/** Sends events of many sessions, each session's in order, while `fault` happens; checks the topic with an independent reader. */
async function underFault (t: Test, kafka: KafkaCluster, topic: string, fault: () => Promise<void>): Promise<void> {
  await kafka.createTopic(topic, PARTITIONS)
  const sink = new KafkaSink({ brokers: kafka.addresses.split(','), topic, clientId: 'test', log: silent })
  t.teardown(async () => { await sink.close() })
  await waitFor('the sink to connect', () => sink.ready())
  const curtain = new AbortController()
  const acknowledged: string[] = []
  const sessions = Promise.all(Array.from({ length: 200 }, async (_, number) => {
    for (let seq = 1; !curtain.signal.aborted; seq++) {
      const sent = event(`session-${number}`, seq)
      await sink.send([sent])
      acknowledged.push(sent.event_id)
      await sleep(5)
    }
  }))
  await waitFor('events to flow', () => acknowledged.length > 2_000, 30_000)
  const before = acknowledged.length
  await fault()
  await waitFor('events to flow again', () => acknowledged.length > before + 4_000, 60_000)
  curtain.abort()
  await sessions

  const records = readTopic(kafka.addresses, topic)
  const first = new Map<string, { partition: number, offset: number, seq: number, session: string }>()
  for (const { partition, offset, payload } of records) {
    const read = JSON.parse(payload) as PlaybackEvent
    if (!first.has(read.event_id)) first.set(read.event_id, { partition, offset, seq: read.seq, session: read.session_id })
  }
  t.equal(acknowledged.filter(id => !first.has(id)).length, 0, `none of ${acknowledged.length} acknowledged events is lost`)
  t.equal(new Set(acknowledged).size, acknowledged.length)
  const last = new Map<string, number>()
  const inOrder = [...first.values()].sort((a, b) => a.partition - b.partition || a.offset - b.offset).every(({ session, seq }) => {
    const ordered = seq === (last.get(session) ?? 0) + 1
    last.set(session, seq)
    return ordered
  })
  t.ok(inOrder, 'the events of each session are in order and without a gap')
  t.ok(new Set([...first.values()].map(({ partition }) => partition)).size > 1, 'sessions are spread over partitions')
  t.comment(`${records.length} records, ${records.length - first.size} of them repeats`)
}

t.test('three brokers', { skip }, async t => {
  const kafka = await startKafka(library, 3)
  t.teardown(async () => { await kafka.close() })

  t.test('the leader of a partition is killed under load', async t => {
    await underFault(t, kafka, 'leader-killed', async () => {
      const leader = await kafka.leaderOf('leader-killed', 0)
      await kafka.brokers[leader]?.kill()
      const next = await waitFor('another leader', async () => {
        const now = await kafka.leaderOf('leader-killed', 0)
        return now !== leader && now + 1
      }, 30_000)
      t.not(next - 1, leader, 'another broker leads')
      await kafka.brokers[leader]?.restart()
    })
  })

  t.test('the leader of a partition is paused under load', async t => {
    await underFault(t, kafka, 'leader-paused', async () => {
      const leader = await kafka.leaderOf('leader-paused', 0)
      kafka.brokers[leader]?.pause()
      await sleep(6_000)
      kafka.brokers[leader]?.resume()
    })
  })
})

t.test('a service starts without Kafka and connects when it comes', { skip }, async t => {
  const kafka = await startKafka(library)
  t.teardown(async () => { await kafka.close() })
  await kafka.createTopic('late', 1)
  await kafka.brokers[0]?.kill()
  const sink = new KafkaSink({ brokers: [kafka.addresses], topic: 'late', clientId: 'test', log: silent })
  t.teardown(async () => { await sink.close() })
  t.equal(sink.ready(), false)
  await t.rejects(sink.send([event('s', 1)]), 'an event is refused, so it stays in the outbox')
  await kafka.brokers[0]?.restart()
  await waitFor('the sink to connect', () => sink.ready(), 30_000)
  await sink.send([event('s', 1)])
  t.equal(readTopic(kafka.addresses, 'late').length, 1)
})
