import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t from 'tap'
import { readTopic, requireKafka, startKafka } from '../support/kafka-broker.ts'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { type ServiceProcess, startService } from '../support/service-process.ts'
import { startStubUpstream } from '../support/stub-upstream.ts'
import { waitFor } from '../support/wait-for.ts'

const redisPart = requireRedis()
const kafkaPart = requireKafka()
const TOPIC = 'playback.events'
const KILLS = 10
const BROKER_AWAY_MS = 20_000

interface Event { event_id: string, event_type: string, session_id: string, seq: number, metadata: { reason?: string } }

t.test('ten kill -9 of instances and a broker away for 20 s lose no event and repeat none after dedupe', {
  skip: redisPart.skip !== false ? redisPart.skip : kafkaPart.skip
}, async t => {
  const redis = await startRedis({ program: redisPart.program })
  t.teardown(async () => { await redis.close() })
  const upstream = await startStubUpstream()
  t.teardown(async () => { await upstream.close() })
  const kafka = await startKafka(kafkaPart.library)
  t.teardown(async () => { await kafka.close() })
  await kafka.createTopic(TOPIC, 6)
  const env = {
    REDIS_URL: redis.url,
    IDENTITY_URL: upstream.identityUrl,
    CONTENT_URL: upstream.contentUrl,
    UPSTREAM_DEADLINE: '2s',
    KAFKA_BROKERS: kafka.addresses,
    SESSION_TIMEOUT: '6s',
    HEARTBEAT_INTERVAL: '2s',
    SWEEP_INTERVAL: '1s'
  }
  const instances: ServiceProcess[] = await Promise.all([startService(env), startService(env)])
  t.teardown(async () => { await Promise.all(instances.map(async instance => { await instance.close() })) })

  const admitted = new Set<string>()
  let abandoned = 0
  const curtain = new AbortController()
  /** Repeats a call, on whichever instance is there, until one answers below 500. */
  async function insist (path: string, headers: Record<string, string>, body: object): Promise<{ status: number, body: { session: { session_id: string }, playback_token: string } }> {
    for (;;) {
      const instance = instances[Math.floor(Math.random() * instances.length)]
      try {
        const response = await fetch(`${instance?.url}/api/playback${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body), signal: AbortSignal.timeout(3_000) })
        const answer = await response.json() as { session: { session_id: string }, playback_token: string }
        if (response.status < 500) return { status: response.status, body: answer }
      } catch { /* the instance was killed, or is starting */ }
      await sleep(20)
    }
  }
  async function viewer (number: number): Promise<void> {
    for (let round = 0; !curtain.signal.aborted; round++) {
      const { status, body } = await insist('/session', { 'idempotency-key': `key-${number}-${round}` }, { user_id: `viewer-${number}`, profile_id: 'p', content_id: 'content789', device_id: `d${round}`, on_limit: 'supersede_oldest' })
      if (status !== 200 && status !== 201) throw new Error(`start answered ${status}`)
      admitted.add(body.session.session_id)
      const path = `/session/${body.session.session_id}`
      const headers = { authorization: `Bearer ${body.playback_token}` }
      await insist(`${path}/heartbeat`, headers, { position: round })
      await insist(`${path}/pause`, headers, {})
      if (Math.random() < 0.1) abandoned++
      else await insist(`${path}/stop`, headers, {})
      await sleep(20)
    }
  }
  const viewers = Promise.all(Array.from({ length: 12 }, async (_, number) => { await viewer(number) }))

  const broker = kafka.brokers[0]
  const brokerFault = (async () => {
    await sleep(3_000)
    await broker?.kill()
    await sleep(BROKER_AWAY_MS)
    await broker?.restart()
  })()
  let kills = 0
  for (; kills < KILLS; kills++) {
    await sleep(2_500)
    const victim = kills % 2
    instances[victim]?.signal('SIGKILL')
    t.equal((await instances[victim]?.exited)?.signal, 'SIGKILL', 'the instance was killed')
    instances[victim] = await startService(env)
  }
  await brokerFault
  curtain.abort()
  await viewers
  t.ok(admitted.size > 100, `${admitted.size} sessions were played, ${abandoned} of them abandoned`)
  t.ok(abandoned > 0, 'some viewers vanished without a stop')

  const store = new Redis(redis.url)
  t.teardown(() => { store.disconnect() })
  const left = async (pattern: string): Promise<string[]> => await store.keys(pattern)
  await waitFor('every session to end and every outbox to be empty', async () =>
    (await left('session:*')).length === 0 && (await left('outbox:*')).length === 0, 60_000)
  t.same(await left('concurrency:*'), [], 'no slot is leaked')
  t.same(await left('user:*'), [], 'no index entry is left')
  t.same(await left('due:*'), [], 'no due entry is left')

  const records = readTopic(kafka.addresses, TOPIC)
  const events = new Map<string, Event>()
  for (const record of records) {
    const event = JSON.parse(record.payload) as Event
    if (record.key !== event.session_id) t.fail('a record is keyed by its session')
    if (event.event_type !== 'playback.heartbeat') events.set(event.event_id, event)
  }
  const bySession = new Map<string, Event[]>()
  for (const event of events.values()) bySession.set(event.session_id, [...bySession.get(event.session_id) ?? [], event])
  const wrong = [...admitted].filter(id => {
    const own = bySession.get(id) ?? []
    return own.filter(({ event_type: type }) => type === 'playback.started').length !== 1 ||
      own.filter(({ event_type: type }) => type === 'playback.stopped' || type === 'playback.completed').length !== 1 ||
      new Set(own.map(({ seq }) => seq)).size !== own.length ||
      own.map(({ seq }) => seq).sort((a, b) => a - b).some((seq, index) => seq !== index + 1)
  })
  t.same(wrong.slice(0, 3).map(id => bySession.get(id)), [], 'each session has one start, one end, and every seq between')
  t.same([...bySession.keys()].filter(id => !admitted.has(id)), [], 'no session is told of that nobody was admitted to')
  t.comment(`${records.length} records, ${events.size} lifecycle events of ${admitted.size} sessions, ${abandoned} abandoned`)
})
