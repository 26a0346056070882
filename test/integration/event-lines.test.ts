import { closeSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { LineOutput } from '../../src/line-output.ts'
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
  return { ...ends, app, waiting }
}

t.test('an event leaves its outbox when its line is in the pipe, not before', { skip }, async t => {
  const { app, writer, read, waiting } = await onPipe(t)
  let full = false
  while (!full) try { writeSync(writer, '.'.repeat(4_096)) } catch { full = true }

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
