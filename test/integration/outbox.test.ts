import { Redis } from 'ioredis'
import t from 'tap'
import { readTopic, requireKafka, startKafka } from '../support/kafka-broker.ts'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { buildTestApp, call, newUser, start } from '../support/test-app.ts'
import { waitFor } from '../support/wait-for.ts'

const redisPart = requireRedis()
const kafkaPart = requireKafka()
const SESSIONS = 400

t.test('while Kafka is away every call answers as before, and what passes the capacity is dropped oldest first and counted exactly', {
  skip: redisPart.skip !== false ? redisPart.skip : kafkaPart.skip
}, async t => {
  const redis = await startRedis({ program: redisPart.program })
  t.teardown(async () => { await redis.close() })
  const kafka = await startKafka(kafkaPart.library)
  t.teardown(async () => { await kafka.close() })
  await kafka.createTopic('playback.events', 3)
  await kafka.brokers[0]?.kill()

  const { app } = await buildTestApp(t, redis.url, { KAFKA_BROKERS: kafka.addresses, OUTBOX_BYTES: '65536', SWEEP_INTERVAL: '1s' })
  const store = new Redis(redis.url)
  t.teardown(() => { store.disconnect() })
  const sum = async (pattern: string, read: (key: string) => Promise<number>): Promise<number> =>
    (await Promise.all((await store.keys(pattern)).map(read))).reduce((total, value) => total + value, 0)
  const waiting = async (): Promise<number> => await sum('outbox:*', async key => await store.xlen(key))
  const lost = async (): Promise<number> => await sum('lost:*', async key => Number(await store.get(key)))
  const metric = async (name: string): Promise<number> => Number(new RegExp(`^${name}(?:\\{.*\\})? (\\d+)$`, 'm').exec((await app.inject('/metrics')).body)?.[1])

  t.equal((await app.inject('/health/ready')).statusCode, 200, 'degraded is not unready')
  t.equal((await app.inject('/health/ready')).json<{ status: string }>().status, 'degraded')
  let written = 0
  for (let i = 0; i < SESSIONS; i++) {
    const { status, body } = await start(app, newUser())
    const stopped = await call(app, 'POST', `/session/${body.session.session_id}/stop`, body.playback_token, {})
    if (status !== 201 || stopped.status !== 200) t.fail('a call answers otherwise without Kafka')
    written += 2
  }
  await waitFor('the outbox to be cut to its capacity', async () => await lost() > 0 && await sum('outbox:*', async key => Number(await store.memory('USAGE', key, 'SAMPLES', 0))) <= 65_536)
  t.equal(await waiting() + await lost(), written, 'each event waits or is counted as lost')
  t.equal(await metric('viewing_events_lost_total'), await lost(), 'the metric is the count in Redis')
  t.ok(await metric('viewing_outbox_events') > 0)

  await kafka.brokers[0]?.restart()
  await waitFor('the outbox to empty', async () => await waiting() === 0, 60_000)
  const delivered = new Set(readTopic(kafka.addresses, 'playback.events').map(({ payload }) => (JSON.parse(payload) as { event_id: string }).event_id))
  t.equal(delivered.size + await lost(), written, 'everything that was not given up has arrived')
  await waitFor('readiness to be whole again', async () => (await app.inject('/health/ready')).json<{ status: string }>().status === 'ok')
})
