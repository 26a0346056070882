import { Redis } from 'ioredis'
import t from 'tap'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { buildTestApp, call, newUser, start, type StartBody } from '../support/test-app.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip } = requireRedis()
/** Until the seconds that an answer names have passed since now. */
const retryAfter = async ({ headers }: { headers: Record<string, unknown> }): Promise<void> => {
  const until = performance.now() + Number(headers['retry-after']) * 1_000
  await waitFor('Retry-After', () => performance.now() >= until)
}

t.test('heartbeats of a session, by the gap between them', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const { app, events } = await buildTestApp(t, redis.url, { HEARTBEAT_MIN_GAP: '1s' })
  const begin = async (): Promise<{ path: string, token: string }> => {
    const { body }: { body: StartBody } = await start(app, newUser())
    return { path: `/session/${body.session.session_id}`, token: body.playback_token }
  }
  const limited = async (): Promise<number> => Number(/^viewing_requests_limited_total\{kind="session"\} (\d+)/m.exec((await app.inject('/metrics')).body)?.[1] ?? 0)
  const { path, token } = await begin()
  const beat = async (position: number) => await call(app, 'POST', `${path}/heartbeat`, token, { position })

  t.equal((await beat(1)).status, 200, 'at once after the start')
  const refused = await beat(2)
  t.match(refused, { status: 429, headers: { 'retry-after': '1' }, body: { code: 'too-many-heartbeats' } })
  t.match(await call(app, 'GET', path, token), { status: 200, body: { session: { status: 'active', position: 1 } } }, 'the session lives as it was')
  t.equal((await call(app, 'POST', `${path}/pause`, token)).status, 200)
  t.equal((await beat(3)).status, 200, 'at once after a pause')
  t.equal((await beat(4)).status, 429)
  await retryAfter(refused)
  t.equal((await beat(5)).status, 200, 'after the seconds that Retry-After names')
  t.equal((await beat(6)).status, 429)

  const others = [await begin(), await begin()] as const
  const batch = async (...tokens: string[]): Promise<object> => (await call(app, 'POST', '/heartbeats', undefined, { heartbeats: tokens.map((own, at) => ({ playback_token: own, position: 10 + at })) })).body
  const id = others[0].path.slice('/session/'.length)
  t.match(await batch(others[0].token, token, others[0].token, 'garbage', others[1].token), {
    results: [{ status: 200, session_id: id, position: 10 }, { status: 429, code: 'too-many-heartbeats' }, { status: 429, session_id: id, code: 'too-many-heartbeats' }, { status: 401 }, { status: 200 }]
  }, 'in a batch each item for itself; of two of one session the first counts')
  t.match(await call(app, 'GET', others[0].path, others[0].token), { body: { session: { position: 10 } } })
  t.equal(await limited(), 5, 'each refusal is counted')
  t.same(events.filter(event => event.event_type === 'playback.heartbeat' && [2, 4, 6, 11, 12].includes(event.metadata.position)), [], 'a refused heartbeat is no event')

  for (const [method, ending] of [['POST', '/stop'], ['POST', '/complete'], ['DELETE', '']] as const) {
    const own = await begin()
    await call(app, 'POST', `${own.path}/heartbeat`, own.token, { position: 1 })
    t.equal((await call(app, method, `${own.path}${ending}`, own.token)).status, 200, `${method} ${ending} right after a heartbeat`)
    t.equal((await call(app, 'POST', `${own.path}/heartbeat`, own.token, { position: 2 })).status, 410, 'and then it is over, not too soon')
  }
})

t.test('many heartbeats of one session at once: one counts in each gap', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const apps = [(await buildTestApp(t, redis.url, { HEARTBEAT_MIN_GAP: '15s' })).app, (await buildTestApp(t, redis.url, { HEARTBEAT_MIN_GAP: '15s' })).app] as const
  const { body } = await start(apps[0], newUser())
  const answers = await Promise.all(Array.from({ length: 200 }, async (_, at) => (await call(at % 2 === 0 ? apps[0] : apps[1], 'POST', `/session/${body.session.session_id}/heartbeat`, body.playback_token, { position: at })).status))
  t.same([answers.filter(status => status === 200).length, answers.filter(status => status === 429).length], [1, 199])
})

t.test('requests of a user', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const { app, upstream } = await buildTestApp(t, redis.url, { USER_RATE_LIMIT: '6' })
  const store = new Redis({ port: redis.port })
  t.teardown(() => { store.disconnect() })
  /** As if so many requests had come just now. */
  const use = async (user: string, requests: number): Promise<void> => {
    const [seconds, micros] = (await store.time()).map(Number) as [number, number]
    await store.set(`rate:{${user}}`, String(seconds * 1e6 + micros + requests * 10e6))
  }
  const user = newUser()
  const { body: { session, playback_token: token } } = await start(app, user)
  const path = `/session/${session.session_id}`
  const counted: Record<string, () => Promise<{ status: number, headers: Record<string, unknown>, body: object }>> = {
    start: async () => await start(app, user, { on_limit: 'supersede_oldest' }),
    'start with a repeated key': async () => await start(app, user, {}, { 'idempotency-key': 'same' }),
    'GET session': async () => await call(app, 'GET', path, token),
    pause: async () => await call(app, 'POST', `${path}/pause`, token),
    resume: async () => await call(app, 'POST', `${path}/resume`, token),
    refresh: async () => await call(app, 'POST', '/token/refresh', undefined, { token }),
    'GET concurrency': async () => await call(app, 'GET', `/concurrency/${user}`, undefined),
    'DELETE concurrency': async () => await call(app, 'DELETE', `/concurrency/${user}`, undefined)
  }
  for (const [name, ask] of Object.entries(counted)) {
    await use(user, 5.5)
    const asked = upstream.calls.identity + upstream.calls.content
    const refused = await ask()
    t.match(refused, { status: 429, headers: { 'retry-after': /^[1-5]$/ }, body: { code: 'rate-limited' } }, name)
    t.equal(upstream.calls.identity + upstream.calls.content, asked, `${name}: nobody was asked`)
    await use(user, 5)
    t.not((await ask()).status, 429, `${name}: in its turn it passes`)
    t.match(await ask(), { status: 429 }, `${name}: and has been counted`)
  }
  t.match((await app.inject('/metrics')).body, /^viewing_requests_limited_total\{kind="user"\} 16$/m)
  await use(user, 5.1)
  const soon = await counted['GET concurrency']?.()
  t.match(soon, { status: 429, headers: { 'retry-after': '1' } })
  await retryAfter(soon ?? { headers: {} })
  t.equal((await counted['GET concurrency']?.())?.status, 200, 'after the seconds that Retry-After names')

  t.test('endings, heartbeats and validation are never refused', async t => {
    for (const [method, ending] of [['POST', '/stop'], ['POST', '/complete'], ['DELETE', '']] as const) {
      const viewer = newUser()
      const { body } = await start(app, viewer)
      const own = `/session/${body.session.session_id}`
      await use(viewer, 60)
      t.equal((await call(app, 'GET', own, body.playback_token)).status, 429, 'the user has used up his requests')
      for (let i = 0; i < 10; i++) t.equal((await call(app, 'POST', `${own}/heartbeat`, body.playback_token, { position: i })).status, 200)
      t.match(await call(app, 'POST', '/heartbeats', undefined, { heartbeats: [{ playback_token: body.playback_token, position: 11 }] }), { status: 200, body: { results: [{ status: 200 }] } })
      t.match(await call(app, 'POST', '/token/validate', undefined, { token: body.playback_token }), { status: 200, body: { valid: true } })
      for (let i = 0; i < 10; i++) t.equal((await call(app, method, `${own}${ending}`, body.playback_token)).status, 200, `${method} ${ending}`)
    }
  })

  t.test('a request that is no good is not counted, and one user\'s requests are not another\'s', async t => {
    const viewer = newUser()
    await use(viewer, 5)
    t.equal((await start(app, viewer, { device_id: 'no good' })).status, 400)
    t.equal((await start(app, newUser())).status, 201)
    t.equal((await start(app, viewer)).status, 201)
    t.equal((await start(app, viewer)).status, 429)
  })

  t.test('without Redis the answer is the route\'s: 503', async t => {
    await redis.kill()
    await waitFor('the loss to be noticed', async () => (await call(app, 'GET', path, token)).status === 503)
    t.match(await call(app, 'GET', path, token), { status: 503, body: { code: 'store-unavailable' } })
    await redis.restart()
    await waitFor('Redis to be used again', async () => (await call(app, 'GET', path, token)).status === 404)
  })
})
