import t from 'tap'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { buildTestApp, call, newUser, start } from '../support/test-app.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip } = requireRedis()

t.test('a session starts, beats and stops', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const { app, events } = await buildTestApp(t, redis.url)
  const { status, body } = await start(app, newUser())
  t.equal(status, 201)
  const path = `/session/${body.session.session_id}`
  t.equal((await call(app, 'POST', `${path}/heartbeat`, body.playback_token, { position: 10 })).status, 200)
  t.equal((await call(app, 'POST', `${path}/stop`, body.playback_token, { position: 12 })).status, 200)
  t.equal((await call(app, 'POST', `${path}/heartbeat`, body.playback_token, { position: 10 })).status, 410)
  await waitFor('every event', () => events.length === 3)
  // A heartbeat's is gathered for a moment: it may come before the ending or after it.
  const types = events.map(event => event.event_type)
  t.same(types.filter(type => type !== 'playback.heartbeat'), ['playback.started', 'playback.stopped'])
  t.equal(types.filter(type => type === 'playback.heartbeat').length, 1)
})
