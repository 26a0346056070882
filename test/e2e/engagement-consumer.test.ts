import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
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
const RESTARTS = 4

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
  const read = async (url: string): Promise<{ waiting_for_earlier: number, repeats_dropped: number }> => await (await fetch(url)).json() as { waiting_for_earlier: number, repeats_dropped: number }

  let consumer = await startConsumer()
  for (let restart = 0; restart < RESTARTS; restart++) {
    // A different moment each time: before, in the middle of and after a save.
    await sleep(2_000 + restart * 350)
    await consumer.kill()
    consumer = await startConsumer()
  }
  curtain.abort()
  await viewers
  t.teardown(async () => { await consumer.kill() })

  const whole = async () => {
    const engagement = new Engagement()
    const events = readTopic(kafka.addresses, TOPIC).map(({ payload }) => JSON.parse(payload))
    for (const event of events) engagement.apply(event)
    return { view: engagement.view(), events: events.length }
  }
  const last = await waitFor('the consumer to have read everything', async () => {
    const expected = await whole()
    return JSON.stringify(sorted(await read(consumer.url))) === JSON.stringify(sorted(expected.view)) && expected
  }, 60_000)
  t.ok(last.events > 200, `${last.events} events`)
  t.same(last.view.live_viewers, {}, 'everyone has left')
  t.equal(last.view.waiting_for_earlier, 0)
  t.equal(last.view.repeats_dropped, 0, 'a restart repeats nothing')
})

/** Titles appear in the order in which partitions were read. */
function sorted (value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).map(([name, member]) => [name, sorted(member)]))
}
