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
const OUTAGE_MS = 120_000
/** Loops of viewers, each of whom starts and stops on one service, then on the other, and rests. */
const LOOPS = 4
const REST_MS = 20
/** The promise is 1.1; a test allows twice the excess. */
const MAX_RATIO = 1.2
/** A fifth of what the events of the outage would take in memory. */
const MAX_GROWTH_BYTES = 12 * 1024 * 1024
const KEPT_MEMORY = new URL('../support/kept-memory.ts', import.meta.url)

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(0)} MiB`
const p95 = (values: number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.95)] ?? NaN

/**
 * Two services under the same load at the same time, each with a Redis database and a broker of its own; one broker is killed for two
 * minutes. The other service is the measure: whatever else this machine does, it does to both.
 */
t.test('two minutes without Kafka change no answer, no latency and no memory, and everything arrives', {
  skip: redisPart.skip !== false ? redisPart.skip : kafkaPart.skip
}, async t => {
  const redis = await startRedis({ program: redisPart.program })
  const upstream = await startStubUpstream()
  const brokers = [await startKafka(kafkaPart.library), await startKafka(kafkaPart.library)] as const
  t.teardown(async () => { await Promise.all([redis.close(), upstream.close(), ...brokers.map(async broker => { await broker.close() })]) })
  const services = await Promise.all(brokers.map(async (broker, index) => {
    await broker.createTopic(TOPIC, 3)
    const service = await startService({
      REDIS_URL: `${redis.url}/${index}`, IDENTITY_URL: upstream.identityUrl, CONTENT_URL: upstream.contentUrl, UPSTREAM_DEADLINE: '2s', KAFKA_BROKERS: broker.addresses
    }, { preload: KEPT_MEMORY })
    t.teardown(async () => { await service.close() })
    return service
  }))
  const [away, control] = services as [ServiceProcess, ServiceProcess]
  let number = 0
  const sessions = new Map(services.map(service => [service, 0]))

  async function post (service: ServiceProcess, path: string, headers: Record<string, string>, body: object) {
    const began = performance.now()
    const response = await fetch(`${service.url}/api/playback${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) })
    const answer = await response.json() as { session: { session_id: string }, playback_token: string }
    return { status: response.status, ms: performance.now() - began, answer }
  }
  /** One viewer who starts and stops; gives the statuses and how long the start took. */
  async function watch (service: ServiceProcess): Promise<{ statuses: string, ms: number }> {
    const started = await post(service, '/session', {}, { user_id: `viewer-${number++}`, profile_id: 'p', content_id: 'content789', device_id: 'd' })
    const { session: { session_id: id }, playback_token: token } = started.answer
    const stopped = await post(service, `/session/${id}/stop`, { authorization: `Bearer ${token}` }, {})
    sessions.set(service, (sessions.get(service) ?? 0) + 1)
    return { statuses: `${started.status} ${stopped.status}`, ms: started.ms }
  }
  async function load (durationMs: number): Promise<Map<ServiceProcess, Array<{ statuses: string, ms: number }>>> {
    const seen = new Map<ServiceProcess, Array<{ statuses: string, ms: number }>>(services.map(service => [service, []]))
    const until = performance.now() + durationMs
    await Promise.all(Array.from({ length: LOOPS }, async (_, loop) => {
      for (let turn = loop; performance.now() < until; turn++) {
        // In turns of order, and one after the other: neither may profit from being second.
        for (const service of turn % 2 === 0 ? [away, control] : [control, away]) seen.get(service)?.push(await watch(service))
        await sleep(REST_MS)
      }
    }))
    return seen
  }
  /** What a service keeps once its garbage is collected: objects and the buffers beside them. */
  const keptBytes = async (service: ServiceProcess): Promise<number> => {
    const before = service.lines.length
    service.signal('SIGWINCH')
    const told = (): unknown => service.lines.slice(before).findLast(line => 'kept_bytes' in line)?.kept_bytes
    await waitFor('the service to tell what it keeps', async () => told() !== undefined)
    return Number(told())
  }
  const ready = async (service: ServiceProcess): Promise<{ status: number, body: string }> => {
    const response = await fetch(`${service.url}/health/ready`)
    return { status: response.status, body: await response.text() }
  }

  await load(10_000)
  const before = await Promise.all(services.map(keptBytes))
  await brokers[0].brokers[0]?.kill()
  const seen = await load(OUTAGE_MS)
  const during = await ready(away)
  t.equal(during.status, 200, 'ready without Kafka')
  t.match(during.body, /degraded/)
  for (const service of services) t.same(new Set(seen.get(service)?.map(({ statuses }) => statuses)), new Set(['201 200']), 'every answer is the same')
  const [slow, normal] = [p95((seen.get(away) ?? []).map(({ ms }) => ms)), p95((seen.get(control) ?? []).map(({ ms }) => ms))]
  t.ok(slow <= normal * MAX_RATIO, `p95 of a start ${slow.toFixed(1)} ms without Kafka, ${normal.toFixed(1)} ms with it`)
  const after = await Promise.all(services.map(keptBytes))
  const [grown = NaN, normally = NaN] = after.map((bytes, index) => bytes - (before[index] ?? 0))
  t.ok(grown - normally < MAX_GROWTH_BYTES, `what is kept grew by ${mebibytes(grown)} without Kafka, ${mebibytes(normally)} with it`)
  const store = new Redis(redis.url)
  t.teardown(() => { store.disconnect() })
  const outboxes = async (): Promise<number> => (await store.keys('outbox:*')).length
  t.ok(await outboxes() > 100, 'the events wait in Redis: Kafka was away')

  await brokers[0].brokers[0]?.restart()
  await waitFor('every outbox to be empty', async () => await outboxes() === 0, 60_000)
  const ids = new Set(readTopic(brokers[0].addresses, TOPIC).map(({ payload }) => (JSON.parse(payload) as { event_id: string }).event_id))
  t.equal(ids.size, 2 * (sessions.get(away) ?? 0), 'everything arrived: a start and an end of each session')
  t.match((await ready(away)).body, /"events":{"status":"up"/)
  t.comment(`${sessions.get(away)} sessions each; p95 ${slow.toFixed(2)} ms without, ${normal.toFixed(2)} ms with Kafka; memory ${after.map(mebibytes).join(', ')}`)
})
