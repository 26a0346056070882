import { closeSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { LineOutput } from '../../src/line-output.ts'
import { keys, tagOfSlot } from '../../src/redis/keys.ts'
import { pipe } from '../support/pipe.ts'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { buildTestApp, newUser, start } from '../support/test-app.ts'
import { waitFor } from '../support/wait-for.ts'

const { skip, program } = requireRedis()

/** The application with its events on a pipe, and the count of events in its outboxes. */
async function onPipe (t: Test, env: Record<string, string> = {}) {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const ends = pipe(t)
  const { app } = await buildTestApp(t, redis.url, env, { eventLines: new LineOutput(ends.writer, { shared: false }) })
  const store = new Redis(redis.url)
  t.teardown(() => { store.disconnect() })
  const waiting = async (): Promise<number> => (await Promise.all((await store.keys('outbox:*')).map(async key => await store.xlen(key)))).reduce((sum, length) => sum + length, 0)
  const fill = (): void => { for (;;) try { writeSync(ends.writer, '.'.repeat(4_096)) } catch { return } }
  return { ...ends, app, waiting, store, fill }
}

t.test('an event leaves its outbox when its line is in the pipe, not before', { skip }, async t => {
  const { app, read, waiting, fill } = await onPipe(t)
  fill()
  const { status, body } = await start(app, newUser())
  t.equal(status, 201, 'a start does not wait for the reader of the log')
  await sleep(200)
  t.equal(await waiting(), 1)

  const text = [read().toString()]
  await waitFor('the event to leave the outbox', async () => await waiting() === 0)
  text.push(read().toString())
  t.match(text.join(''), new RegExp(`"event_type":"playback.started","session_id":"${body.session.session_id}"`))
})

t.test('without a reader of the log starts are answered, and their events stay for another instance', { skip }, async t => {
  const { app, reader, waiting } = await onPipe(t)
  closeSync(reader)
  for (let i = 0; i < 3; i++) t.equal((await start(app, newUser())).status, 201)
  await waitFor('the failures to be counted', async () => /^viewing_event_failures_total [1-9]/m.test((await app.inject('/metrics')).body))
  t.equal(await waiting(), 3)
})

t.test('a reader that does not read holds up no other work of a sweep: silent sessions still end', { skip }, async t => {
  const { app, store, read, waiting, fill } = await onPipe(t, { SESSION_TIMEOUT: '3s', HEARTBEAT_INTERVAL: '1s', SWEEP_INTERVAL: '1s' })
  const { body } = await start(app, newUser())
  const [outbox = ''] = await store.keys('outbox:*')
  const [[, fields = []] = []] = await store.xrange(outbox, '-', '+')
  fill()
  // What another instance has left, ten seconds ago.
  await store.xadd(keys.outbox(tagOfSlot(5)), `${Date.now() - 10_000}-0`, ...fields)
  const { body: silent } = await start(app, newUser())
  for (const { session } of [body, silent]) {
    await waitFor('a silent session to end', async () => await store.exists(`ended:{${session.session_id}}`) === 1, 20_000)
  }
  await waitFor('the events to go out with a reader', async () => { read(); return await waiting() === 0 }, 20_000)
})
