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
