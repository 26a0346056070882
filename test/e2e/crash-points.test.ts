import { Redis } from 'ioredis'
import t from 'tap'
import { readTopic, requireKafka, startKafka } from '../support/kafka-broker.ts'
import { freePort, startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { type ServiceProcess, startService } from '../support/service-process.ts'
import { startStubUpstream } from '../support/stub-upstream.ts'
import { waitFor } from '../support/wait-for.ts'

const redisPart = requireRedis()
const kafkaPart = requireKafka()
const TOPIC = 'playback.events'
const PRELOAD = new URL('../support/crash-point.mjs', import.meta.url)

/** Every call that is waited for, in the order in which each operation makes it. */
const POINTS = {
  relay: ['before:outboxLengths', 'after:outboxLengths', 'before:xrange', 'after:xrange', 'before:send', 'after:send', 'before:acknowledgeEvents', 'after:acknowledgeEvents'],
  create: ['after:get', 'before:upstream', 'after:upstream', 'before:createSession', 'after:createSession', 'before:wait', 'after:wait',
    'before:send', 'after:send', 'before:acknowledgeEvents', 'after:acknowledgeEvents'],
  end: ['before:endSession', 'after:endSession', 'before:send', 'after:send', 'before:acknowledgeEvents', 'after:acknowledgeEvents'],
  change: ['before:changeStatus', 'after:changeStatus', 'before:send', 'after:acknowledgeEvents'],
  sweep: ['before:pulse', 'after:pulse', 'before:dueSessions', 'after:dueSessions', 'after:get', 'before:zadd', 'after:zadd', 'before:reapSession', 'after:reapSession', 'before:send'],
} as const

interface Event { event_id: string, event_type: string, session_id: string, user_id: string, seq: number }
interface Started { session: { session_id: string }, playback_token: string }

t.test('kill -9 at each await of create, change, end, sweep and relay, and everything converges', {
  skip: redisPart.skip !== false ? redisPart.skip : kafkaPart.skip
}, async t => {
  const redis = await startRedis({ program: redisPart.program })
  // With a replica an admission waits for it: one more await.
  const replica = await startRedis({ program: redisPart.program, args: ['--replicaof', redis.host, String(redis.port), '--repl-diskless-sync-delay', '0'] })
  t.teardown(async () => { await Promise.all([replica.close(), redis.close()]) })
  const store = new Redis(redis.url)
  t.teardown(() => { store.disconnect() })
  await waitFor('the replica to be in sync', async () => (await store.info('replication')).includes('state=online'))
  const upstream = await startStubUpstream()
  const kafka = await startKafka(kafkaPart.library)
  t.teardown(async () => { await Promise.all([upstream.close(), kafka.close()]) })
  await kafka.createTopic(TOPIC, 2)
  const env = {
    REDIS_URL: redis.url,
    IDENTITY_URL: upstream.identityUrl,
    CONTENT_URL: upstream.contentUrl,
    UPSTREAM_DEADLINE: '2s',
    KAFKA_BROKERS: kafka.addresses,
    SESSION_TIMEOUT: '2s',
    HEARTBEAT_INTERVAL: '1s',
    SWEEP_INTERVAL: '200ms',
    HEARTBEAT_EVENTS: 'off'
  }
  const post = async (service: ServiceProcess, path: string, headers: Record<string, string>, body: object = {}): Promise<{ status: number, body: Started }> => {
    const response = await fetch(`${service.url}/api/playback${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) })
    return { status: response.status, body: await response.json() as Started }
  }
  const begin = async (service: ServiceProcess, name: string) =>
    await post(service, '/session', { 'idempotency-key': name }, { user_id: name, profile_id: 'p', content_id: 'content789', device_id: 'd' })
  /** Answers the started session, by a service that has everything it needs. */
  const begun = async (service: ServiceProcess, name: string): Promise<Started> => await waitFor(`a start of ${name}`, async () => {
    const { status, body } = await begin(service, name)
    return status < 300 && body
  })
  const arm = async (service: ServiceProcess): Promise<void> => {
    service.signal('SIGWINCH')
    await waitFor('the point to be armed', () => service.lines.some(line => line.msg === 'armed'))
  }
  const connected = async (service: ServiceProcess): Promise<void> => {
    await waitFor('Kafka to be connected', () => service.lines.some(line => line.msg === 'connected to Kafka'))
  }
  const names = ['left-over']

  // What the relay is to bring home: events of an instance that never reached Kafka.
  const mute = await startService({ ...env, KAFKA_BROKERS: `127.0.0.1:${await freePort()}` })
  t.teardown(async () => { await mute.close() })
  const left = await begun(mute, 'left-over')
  await post(mute, `/session/${left.session.session_id}/stop`, { authorization: `Bearer ${left.playback_token}` })
  await mute.close()
  t.ok((await store.keys('outbox:*')).length > 0, 'events are left over')

  for (const [operation, points] of Object.entries(POINTS)) {
    for (const point of points) {
      const name = `${operation}-${point.replace(':', '-')}`
      const service = await startService({ ...env, CRASH_POINT: point }, { preload: PRELOAD })
      t.teardown(async () => { await service.close() })
      await connected(service)
      if (operation !== 'relay') names.push(name)
      // The instance dies under the call, so what the caller reads is a broken connection.
      const last = async (call: () => Promise<unknown>): Promise<void> => { await arm(service); await call().catch(() => {}) }
      if (operation === 'create') await last(async () => await begin(service, name))
      else if (operation === 'relay') await arm(service)
      else {
        const { session, playback_token: token } = await begun(service, name)
        const path = `/session/${session.session_id}`
        const bearer = { authorization: `Bearer ${token}` }
        await waitFor('earlier events to be acknowledged, so that the next one is this operation\'s', async () => {
          if ((await post(service, `${path}/heartbeat`, bearer, { position: 1 })).status !== 200) throw new Error('the session did not stay live')
          return (await store.keys('outbox:*')).length === 0
        })
        if (operation === 'end') await last(async () => await post(service, `${path}/stop`, bearer))
        else if (operation === 'change') await last(async () => await post(service, `${path}/pause`, bearer))
        else {
          await arm(service)
          // A living session is put off by the sweep, a silent one is ended by it.
          if (point.endsWith('zadd')) await beatUntilGone(service, async () => await post(service, `${path}/heartbeat`, bearer, { position: 1 }))
        }
      }
      t.match(await service.exited, { signal: 'SIGKILL' }, `${operation}, ${point}: the instance was killed there`)
    }
  }

  const service = await startService(env)
  t.teardown(async () => { await service.close() })
  for (const name of names.filter(each => each.startsWith('create-'))) {
    const { status } = await waitFor('an answer', async () => { const answer = await begin(service, name); return answer.status < 500 && answer })
    t.ok([200, 201, 410].includes(status), `${name}: the retry finds its session, makes it, or reads that it ended: ${status}`)
  }
  await waitFor('every session to end and every outbox to be empty', async () =>
    (await store.keys('session:*')).length === 0 && (await store.keys('outbox:*')).length === 0, 60_000)
  for (const pattern of ['concurrency:*', 'user:*', 'due:*', 'lost:*']) t.same(await store.keys(pattern), [], `no ${pattern} is left`)

  const events = new Map<string, Event>()
  for (const { payload } of readTopic(kafka.addresses, TOPIC)) {
    const event = JSON.parse(payload) as Event
    if (event.event_type !== 'playback.heartbeat') events.set(event.event_id, event)
  }
  for (const name of names) {
    const own = [...events.values()].filter(event => event.user_id === name)
    t.equal(new Set(own.map(event => event.session_id)).size, 1, `${name}: one session`)
    t.equal(own.filter(event => event.event_type === 'playback.started').length, 1, `${name}: one start`)
    t.equal(own.filter(event => event.event_type === 'playback.stopped').length, 1, `${name}: one end`)
    t.same(own.map(event => event.seq).sort((a, b) => a - b), own.map((_, index) => index + 1), `${name}: every seq once`)
  }
})

/** Beats like a living viewer until the service is gone. */
async function beatUntilGone (service: ServiceProcess, beat: () => Promise<unknown>): Promise<void> {
  let gone = false
  const exited = service.exited.then(() => { gone = true })
  await waitFor('the end of the instance', async () => {
    await beat().catch(() => {})
    return gone
  }, 60_000)
  await exited
}
