import t from 'tap'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { buildTestApp, newUser, start } from '../support/test-app.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip } = requireRedis()

t.test('LOG_FORMAT=ecs: every line is of the Elastic Common Schema, events and errors too', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const { app, log, eventLines } = await buildTestApp(t, redis.url, { LOG_FORMAT: 'ecs', REDIS_COMMAND_TIMEOUT: '200ms' })
  const user = newUser()
  t.equal((await start(app, user, {}, { 'x-request-id': 'first' })).status, 201)
  await app.inject(`/api/playback/concurrency/${user}?secret=1`)
  await app.inject('/nowhere')
  app.log.error({ err: new TypeError('broken', { cause: new Error('inner') }) }, 'a fault')
  await redis.kill()
  t.equal((await start(app, user, {}, { 'x-request-id': 'second' })).status, 503)
  await waitFor('the lines', () => log.some(line => line.includes('request refused')) && eventLines.length > 0)

  const lines: Array<Record<string, unknown>> = [...log, ...eventLines].map(line => JSON.parse(line))
  t.ok(lines.length >= 6)
  for (const line of lines) {
    t.match(line, { '@timestamp': /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, 'log.level': /^(info|warn|error)$/, 'ecs.version': /^8\./, message: /./, 'service.name': 'viewing-service' })
    t.notOk('msg' in line || 'level' in line || 'time' in line || 'reqId' in line, 'nothing of pino\'s own names')
  }
  for (const text of [...log, ...eventLines]) t.equal(new Set(text.match(/"(?:@timestamp|ecs\.version|message|service\.name)":/g)).size, 4)
  t.match(lines.find(line => line['http.request.id'] === 'first'), {
    'http.request.method': 'POST', 'url.path': '/api/playback/session', 'http.response.status_code': 201, 'event.duration': Number, message: 'request completed'
  })
  t.ok(Number(lines.find(line => line['http.request.id'] === 'first')?.['event.duration']) > 10_000, 'nanoseconds')
  t.match(lines.find(line => line.message === 'request refused'), { 'http.request.id': 'second', code: 'store-unavailable', 'log.level': 'warn' })
  const fault = lines.find(line => line.message === 'a fault')
  t.match(fault, { 'log.level': 'error', error: { type: 'TypeError', message: 'broken', stack_trace: /TypeError: broken\n\s+at / } })
  t.notOk(log.some(line => line.includes(user) || line.includes('secret')), 'no user and no query in the service\'s own lines')
  t.match(lines.find(({ stream }) => stream === 'event'), { message: 'LOG playback.started', event: { event_type: 'playback.started', user_id: user } })
})
