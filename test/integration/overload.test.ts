import t from 'tap'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { buildTestApp, call, newUser, start } from '../support/test-app.ts'

const { program, skip } = requireRedis()
/** Longer than the delay from which starts are refused, shorter than that of reads. */
const BLOCK_MS = 700

t.test('an overloaded process refuses starts, and goes on taking heartbeats and endings', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  // Only the load is under test: nothing else may time out while the loop is blocked.
  const { app } = await buildTestApp(t, redis.url, { REDIS_COMMAND_TIMEOUT: '1m', UPSTREAM_DEADLINE: '1m' })
  const { body } = await start(app, newUser())
  const path = `/session/${body.session.session_id}`

  let blocked = true
  const block = (): void => {
    const until = performance.now() + BLOCK_MS
    while (performance.now() < until) { /* the work of too many requests */ }
    if (blocked) setImmediate(block)
  }
  block()
  let refused = await start(app, newUser())
  while (refused.status === 201) refused = await start(app, newUser())
  t.match(refused, { status: 503, headers: { 'retry-after': /^[1-3]$/ }, body: { code: 'overloaded' } })
  t.equal((await call(app, 'POST', `${path}/heartbeat`, body.playback_token, { position: 1 })).status, 200)
  t.equal((await call(app, 'POST', `${path}/stop`, body.playback_token, {})).status, 200)
  for (const path of ['/health/live', '/metrics', '/openapi.json']) t.equal((await app.inject(path)).statusCode, 200, `${path} stays`)
  blocked = false
  while ((await start(app, newUser())).status !== 201) await new Promise(resolve => setTimeout(resolve, 50))
  t.match((await app.inject('/metrics')).body, /viewing_requests_shed_total\{[^}]*start[^}]*\} [1-9]/)
})
