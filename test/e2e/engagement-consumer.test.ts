import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import t from 'tap'
import { Engagement } from '../../examples/engagement-consumer/engagement.ts'
import { track } from '../support/children.ts'
import { readTopic, requireKafka, startKafka } from '../support/kafka-broker.ts'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { startService } from '../support/service-process.ts'
import { startStubUpstream } from '../support/stub-upstream.ts'
import { waitFor } from '../support/wait-for.ts'

const redisPart = requireRedis()
const kafkaPart = requireKafka()
const TOPIC = 'playback.events'
const MAIN = fileURLToPath(new URL('../../examples/engagement-consumer/main.ts', import.meta.url))
const RESTARTS = 3
type View = ReturnType<Engagement['view']>

t.test('an engagement consumer that is killed again and again ends with what one uninterrupted reading gives', {
  skip: redisPart.skip !== false ? redisPart.skip : kafkaPart.skip
}, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'viewing-consumer-'))
  const redis = await startRedis({ program: redisPart.program })
  const upstream = await startStubUpstream()
  const kafka = await startKafka(kafkaPart.library)
  t.teardown(async () => {
    await Promise.all([redis.close(), upstream.close(), kafka.close()])
    rmSync(folder, { recursive: true, force: true })
  })
  await kafka.createTopic(TOPIC, 3)
  const service = await startService({ REDIS_URL: redis.url, IDENTITY_URL: upstream.identityUrl, CONTENT_URL: upstream.contentUrl, UPSTREAM_DEADLINE: '5s', KAFKA_BROKERS: kafka.addresses })
  t.teardown(async () => { await service.close() })

  async function startConsumer (): Promise<{ url: string, kill: () => Promise<void> }> {
    const child = spawn(process.execPath, [MAIN], {
      env: { PATH: process.env.PATH ?? '', KAFKA_BROKERS: kafka.addresses, STATE_FILE: join(folder, 'state.json'), PORT: '0', TABLE: 'off' }, stdio: ['ignore', 'pipe', 'inherit']
    })
    track(child)
    const url = await new Promise<string>(resolve => {
      createInterface({ input: child.stdout }).on('line', line => {
        const found = /http:\S+/.exec(line)?.[0]
        if (found !== undefined) resolve(found)
      })
    })
    return { url, kill: async () => { const ended = once(child, 'exit'); child.kill('SIGKILL'); await ended } }
  }
  const post = async (path: string, token: string, body: object = {}): Promise<{ session: { session_id: string }, playback_token: string }> => {
    const response = await fetch(`${service.url}/api/playback${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...(token === '' ? {} : { authorization: `Bearer ${token}` }) }, body: JSON.stringify(body) })
    return await response.json() as { session: { session_id: string }, playback_token: string }
  }
  const curtain = new AbortController()
  async function viewer (number: number): Promise<void> {
    for (let round = 0; !curtain.signal.aborted; round++) {
      const { session: { session_id: id }, playback_token: token } = await post('/session', '', { user_id: `viewer-${number}`, profile_id: 'p', content_id: `title-${number % 3}`, device_id: 'd' })
      await post(`/session/${id}/heartbeat`, token, { position: round })
      await post(`/session/${id}/pause`, token)
      await sleep(100)
      await post(`/session/${id}/resume`, token)
      await post(`/session/${id}/${round % 2 === 0 ? 'stop' : 'complete'}`, token, { position: round })
    }
  }
  const viewers = Promise.all(Array.from({ length: 6 }, async (_, number) => { await viewer(number) }))
  const read = async (url: string): Promise<View> => await (await fetch(url)).json() as View

  let consumer = await startConsumer()
  for (let restart = 0; restart < RESTARTS; restart++) {
    const first = JSON.stringify(await read(consumer.url))
    await waitFor('the consumer to go on', async () => JSON.stringify(await read(consumer.url)) !== first, 60_000)
    // A different moment each time: before, in the middle of and after a save.
    await sleep(300 + restart * 350)
    await consumer.kill()
    consumer = await startConsumer()
  }
  curtain.abort()
  await viewers
  t.teardown(async () => { await consumer.kill() })

  const store = new Redis(redis.url)
  t.teardown(() => { store.disconnect() })
  await waitFor('every event to be delivered', async () => (await store.keys('outbox:*')).length === 0, 60_000)
  const events = readTopic(kafka.addresses, TOPIC).map(({ payload }) => JSON.parse(payload))
  const uninterrupted = new Engagement()
  for (const event of events) uninterrupted.apply(event)
  const expected = uninterrupted.view()
  const view = await waitFor('the consumer to have read everything', async () => {
    const answer = await read(consumer.url)
    return JSON.stringify(sorted(answer)) === JSON.stringify(sorted(expected)) && answer
  }, 60_000)
  t.ok(events.length > 200, `${events.length} events`)
  t.same(view.live_viewers, {}, 'everyone has left')
  t.equal(view.waiting_for_earlier, 0)
  t.equal(view.repeats_dropped, 0, 'a restart repeats nothing')
})

/** Titles appear in the order in which partitions were read. */
function sorted (value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).map(([name, member]) => [name, sorted(member)]))
}
