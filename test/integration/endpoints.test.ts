import { Ajv2020 } from 'ajv/dist/2020.js'
import type { FastifyInstance, InjectOptions } from 'fastify'
import t, { type Test } from 'tap'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { buildTestApp, newUser, type TestApp } from '../support/test-app.ts'
import { waitFor } from '../support/wait-for.ts'

const { program, skip } = requireRedis()
const API = '/api/playback'
const ABSENT = '3f0c9a52-8f6e-4d0b-9c41-5a1726e05132'
interface Answer { status: number, headers: Record<string, unknown>, body: Record<string, never> & { session: { session_id: string }, playback_token: string } }

/** Calls the application and holds each answer against the document: its status must be listed there and its body must fit. */
function client (t: Test, app: FastifyInstance) {
  const document = structuredClone(Object(app.swagger()))
  const ajv = new Ajv2020({ strict: false, validateFormats: false })
  ajv.addSchema(document, 'document')
  const patterns = Object.keys(document.paths).map(path => ({ path, pattern: new RegExp(`^${path.replace(/\{[a-z_]+\}/g, '[^/]+')}$`) }))
  return async (method: 'GET' | 'POST' | 'DELETE', url: string, token?: string, payload?: InjectOptions['payload'], headers: Record<string, string> = {}): Promise<Answer> => {
    const request: InjectOptions = { method, url, headers: { ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...headers }, ...(payload === undefined ? {} : { payload }) }
    // On a machine that other tests keep busy a request may be shed: it is repeated, as its clients do.
    const response = await waitFor('an answer', async () => {
      const answer = await app.inject(request)
      return !answer.body.includes('"code":"overloaded"') && answer
    }, 60_000)
    const body = response.json()
    const path = patterns.find(({ pattern }) => pattern.test(url.split('?', 1)[0] ?? ''))?.path ?? ''
    const listed = document.paths[path]?.[method.toLowerCase()]?.responses?.[response.statusCode]
    if (listed === undefined) t.fail(`${method} ${path} answered ${response.statusCode}, which the document does not list: ${response.body}`)
    const [type] = Object.keys(listed?.content ?? {})
    const pointer = ['paths', path, method.toLowerCase(), 'responses', String(response.statusCode), 'content', type ?? '', 'schema'].map(part => part.replaceAll('~', '~0').replaceAll('/', '~1')).map(encodeURIComponent).join('/')
    if (type !== undefined && !ajv.validate({ $ref: `document#/${pointer}` }, body)) t.fail(`${method} ${path} ${response.statusCode}: ${ajv.errorsText()}`)
    if (response.headers['x-request-id'] === undefined) t.fail('every answer has a request id')
    return { status: response.statusCode, headers: response.headers, body }
  }
}
type Call = ReturnType<typeof client>

async function setUp (t: Test, env: Record<string, string> = {}): Promise<TestApp & { call: Call, begin: (user: string, more?: object, headers?: Record<string, string>) => Promise<Answer> }> {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const made = await buildTestApp(t, redis.url, env)
  const call = client(t, made.app)
  const begin = async (user: string, more: object = {}, headers: Record<string, string> = {}): Promise<Answer> =>
    await call('POST', `${API}/session`, undefined, { user_id: user, profile_id: 'p', content_id: 'content789', device_id: 'tv', ...more }, headers)
  return { ...made, call, begin }
}
const pathOf = (answer: Answer): string => `${API}/session/${answer.body.session.session_id}`

t.test('start', { skip }, async t => {
  const { app, begin, call, upstream } = await setUp(t)
  const user = newUser()
  const first = await begin(user, { position: 1.5, metadata: { quality: '1080p' } }, { 'idempotency-key': 'a' })
  t.equal(first.status, 201)
  t.same(Object.keys(first.body).sort(), ['concurrency', 'heartbeat_interval', 'playback_token', 'session', 'token_expires_at'])
  t.same(Object.keys(first.body.session).sort(), ['content_id', 'device_id', 'last_heartbeat', 'position', 'profile_id', 'session_id', 'started_at', 'status', 'user_id'])
  t.match(first.body, { heartbeat_interval: 30, concurrency: { active: 1, limit: 4 }, session: { status: 'active', position: 1.5, user_id: user } })

  const again = await begin(user, { metadata: { quality: '1080p' }, position: 1.5 }, { 'idempotency-key': 'a' })
  t.equal(again.status, 200)
  t.same(again.body, first.body, 'the same key and body, in another order: the same answer, token included')
  t.match(await begin(user, {}, { 'idempotency-key': 'a' }), { status: 422, body: { code: 'idempotency-key-reused' } })
  await call('POST', `${pathOf(first)}/stop`, first.body.playback_token, {})
  t.match(await begin(user, { position: 1.5, metadata: { quality: '1080p' } }, { 'idempotency-key': 'a' }), { status: 410, body: { code: 'session-ended', reason: 'stopped' } })

  upstream.behave('identity', { json: { entitled: false, reason: 'lapsed' } })
  t.match(await begin(newUser()), { status: 403, body: { code: 'not-entitled', reason: 'lapsed' } })
  upstream.behave('identity', 'ok')
  upstream.behave('content', { json: { available: false } })
  t.match(await begin(newUser(), { content_id: 'other' }), { status: 403, body: { code: 'content-unavailable' } })
  upstream.behave('content', 'status-500')
  t.match(await begin(newUser(), { content_id: 'third' }), { status: 503, headers: { 'retry-after': /^\d+$/ }, body: { code: 'availability-unknown' } })
  upstream.behave('content', 'ok')
  t.equal((await app.inject({ url: `${API}/concurrency/nobody` })).json().limit_source, 'default')
})

t.test('the limit, take-over, and who holds the slots', { skip }, async t => {
  const { begin, call } = await setUp(t)
  const user = newUser()
  const held: Answer[] = []
  for (let i = 0; i < 4; i++) held.push(await begin(user, { device_id: `device${i}` }))
  t.same(held.map(({ status }) => status), [201, 201, 201, 201], 'the plan\'s 4 counts, not the default 3')
  const refused = await begin(user)
  t.match(refused, { status: 409, body: { code: 'concurrency-limit-reached', limit: 4, active: 4 } })
  const { sessions }: { sessions: Array<Record<string, string>> } = Object(refused.body)
  t.same(sessions.map(({ device_id: device }) => device).sort(), ['device0', 'device1', 'device2', 'device3'])
  t.same(Object.keys(sessions[0] ?? {}).sort(), ['content_id', 'device_id', 'expires_at', 'last_heartbeat', 'profile_id', 'session_id', 'started_at', 'status'])
  const seconds = Number(refused.headers['retry-after'])
  t.ok(seconds > 80 && seconds <= 90, `the first slot falls free in ${seconds} s of the 90`)
  t.match(await call('GET', `${API}/concurrency/${user}`), { status: 200, body: { user_id: user, limit: 4, limit_source: 'plan', active: 4, available: 0 } })

  const over = await begin(user, { device_id: 'phone', on_limit: 'supersede_oldest' })
  t.equal(over.status, 201)
  const [oldest, second] = held as [Answer, Answer]
  t.match(await call('GET', pathOf(oldest), oldest.body.playback_token), { status: 410, body: { reason: 'superseded', ended_by: 'phone', may_retry: false, ended_at: /Z$/ } })
  const named = await begin(user, { device_id: 'laptop', supersede: [second.body.session.session_id, ABSENT, over.body.session.session_id.replace(/^./, digit => digit === 'a' ? 'b' : 'a')] })
  t.equal(named.status, 201, 'ids of others and of nobody are ignored')
  t.match(await call('POST', `${pathOf(second)}/heartbeat`, second.body.playback_token, { position: 1 }), { status: 410, body: { reason: 'superseded', ended_by: 'laptop' } })
  t.match(await call('DELETE', `${API}/concurrency/${user}`), { status: 200, body: { ended: 4 } })
  t.match(await call('GET', pathOf(named), named.body.playback_token), { status: 410, body: { reason: 'terminated', may_retry: false } })
  t.match(await call('GET', `${API}/concurrency/${user}`), { body: { active: 0, sessions: [] } })
  const roomy = await begin(user)
  t.equal((await begin(user, { supersede: [roomy.body.session.session_id] })).status, 201)
  t.equal((await call('GET', pathOf(roomy), roomy.body.playback_token)).status, 410, 'a named session ends even where there is room')
})

t.test('a session while it lives', { skip }, async t => {
  const { app, begin, call } = await setUp(t, { JWT_EXPIRATION: '10m' })
  const started = await begin(newUser())
  const [path, token] = [pathOf(started), started.body.playback_token]
  t.match(await call('GET', path, token), { status: 200, body: { session: { status: 'active' } } })
  const beat = await call('POST', `${path}/heartbeat`, token, { position: 12.345, metadata: { network: 'wifi' } })
  t.equal(beat.status, 200)
  t.same(Object.keys(beat.body).sort(), ['heartbeat_interval', 'last_heartbeat', 'position', 'session_id', 'status'], 'a young token is not renewed')
  t.match(await call('POST', `${path}/pause`, token, { position: 20 }), { status: 200, body: { session: { status: 'paused', position: 20 } } })
  t.match(await call('POST', `${path}/pause`, token, {}), { status: 409, body: { code: 'illegal-transition', session_status: 'paused' } })
  t.match(await call('POST', `${path}/heartbeat`, token, { position: 20 }), { body: { status: 'paused' } }, 'a heartbeat does not undo a pause')
  t.match(await call('POST', `${path}/resume`, token), { status: 200, body: { session: { status: 'active' } } })
  t.equal((await call('POST', `${path}/resume`, token)).status, 409)
  t.equal((await call('GET', `${API}/session/${ABSENT}`, token)).status, 404)

  const user = newUser()
  const old = app.tokens.issue({ sessionId: started.body.session.session_id, userId: String(Object(started.body.session).user_id), profileId: 'p', contentId: 'content789', deviceId: 'tv' }, app.store.clock.nowMs() - 6 * 60_000).token
  const renewed = await call('POST', `${path}/heartbeat`, old, { position: 21 })
  t.ok(renewed.body.playback_token, 'a token past half its life is renewed by the heartbeat')
  t.equal((await call('GET', path, renewed.body.playback_token)).status, 200)
  t.match(await call('POST', `${API}/token/refresh`, undefined, { token }), { status: 200, body: { playback_token: /\./ } })
  t.equal((await call('POST', `${API}/token/refresh`, token)).status, 200, 'the token may come as a bearer')
  t.equal((await call('POST', `${API}/token/refresh`, undefined, { token: 'garbage' })).status, 401)

  const gone = await begin(user)
  await call('DELETE', `${pathOf(gone)}?reason=stopped`, gone.body.playback_token)
  t.match(await call('POST', `${API}/token/refresh`, undefined, { token: gone.body.playback_token }), { status: 410, body: { reason: 'stopped' } })
  t.match(await call('POST', `${path}/stop`, undefined, `{"position":22,"playback_token":"${token}"}`, { 'content-type': 'text/plain' }), { status: 200, body: { session: { status: 'stopped', position: 22 } } }, 'as navigator.sendBeacon sends it')
})

t.test('how a session ends', { skip }, async t => {
  const { begin, call, events } = await setUp(t, { SESSION_TIMEOUT: '2s', HEARTBEAT_INTERVAL: '1s', SWEEP_INTERVAL: '200ms' })
  const causes: Array<[string, (started: Answer) => Promise<Answer>, string, string, string]> = [
    ['stop', async started => await call('POST', `${pathOf(started)}/stop`, started.body.playback_token, { position: 5 }), 'playback.stopped', 'client', 'stopped'],
    ['DELETE ?reason=stopped', async started => await call('DELETE', `${pathOf(started)}?reason=stopped`, started.body.playback_token), 'playback.stopped', 'client', 'stopped'],
    ['complete', async started => await call('POST', `${pathOf(started)}/complete`, started.body.playback_token, {}), 'playback.completed', 'client', 'completed'],
    ['DELETE', async started => await call('DELETE', pathOf(started), started.body.playback_token), 'playback.completed', 'client', 'completed'],
    ['silence', async started => await waitFor('the end', async () => { const read = await call('GET', pathOf(started), started.body.playback_token); return read.status === 410 && read }), 'playback.stopped', 'expired', 'expired'],
    ['take-over', async started => await begin(String(Object(started.body.session).user_id), { supersede: [started.body.session.session_id], device_id: 'phone' }), 'playback.stopped', 'superseded', 'superseded'],
    ['sign-out', async started => await call('DELETE', `${API}/concurrency/${String(Object(started.body.session).user_id)}`), 'playback.stopped', 'terminated', 'terminated']
  ]
  for (const [cause, end, type, reason, endReason] of causes) {
    const started = await begin(newUser())
    const ending = await end(started)
    const token = started.body.playback_token
    const byClient = reason === 'client'
    if (byClient) t.match(ending, { status: 200, body: { session: { status: 'stopped', end_reason: endReason, ended_at: /Z$/ } } }, cause)
    t.match(await call('POST', `${pathOf(started)}/heartbeat`, token, { position: 9 }), { status: 410, body: { code: 'session-ended', reason: endReason, ended_at: /Z$/, may_retry: endReason === 'expired' } }, cause)
    const repeated = await call('POST', `${pathOf(started)}/stop`, token, { position: 99 })
    if (byClient) t.same([repeated.status, repeated.body], [200, ending.body], `${cause}: repeating an ending answers the first`)
    else t.equal(repeated.status, 410, `${cause}: it was not the client's ending`)
    const id = started.body.session.session_id
    const own = await waitFor('its events', () => { const found = events.filter(event => event.session_id === id && event.event_type !== 'playback.heartbeat'); return found.length >= 2 && found })
    t.match(own, [{ event_type: 'playback.started', seq: 1, event_id: new RegExp(`^${id}:1:\\d{13}$`) }, { event_type: type, seq: 2, metadata: { reason }, event_id: new RegExp(`^${id}:\\d{13}:end$`) }], cause)
    t.equal(own.length, 2, `${cause}: one terminal event`)
    t.same(Object.keys(own[0] ?? {}).sort(), ['content_id', 'device_id', 'event_id', 'event_type', 'metadata', 'profile_id', 'schema_version', 'seq', 'session_id', 'timestamp', 'user_id'])
  }
})

t.test('many at once', { skip }, async t => {
  const { begin, call } = await setUp(t, { SESSION_TIMEOUT: '2s', HEARTBEAT_INTERVAL: '1s', SWEEP_INTERVAL: '10m' })
  const lapsed = await begin(newUser())
  await waitFor('it to lapse', async () => Object((await call('POST', `${API}/token/validate`, undefined, { token: lapsed.body.playback_token })).body).valid === false)
  const [live, ended] = [await begin(newUser()), await begin(newUser())]
  await call('POST', `${pathOf(ended)}/stop`, ended.body.playback_token, {})
  const tokens = Array.from({ length: 1_000 }, (_, index) => [live.body.playback_token, 'garbage', ended.body.playback_token, lapsed.body.playback_token][index % 4] ?? '')
  const verdicts: Array<{ valid: boolean, reason?: string }> = Object((await call('POST', `${API}/token/validate`, undefined, { tokens })).body).results
  t.equal(verdicts.length, 1_000)
  for (const [index, valid] of [true, false, false, false].entries()) t.ok(verdicts.filter((_, at) => at % 4 === index).every(verdict => verdict.valid === valid), `item ${index} in order`)
  t.match(verdicts.slice(0, 4), [{ valid: true, claims: { session_id: live.body.session.session_id } }, { valid: false }, { valid: false, reason: 'ended' }, { valid: false, reason: 'lapsed' }])
  const alone: Array<{ valid: boolean }> = Object((await call('POST', `${API}/token/validate`, undefined, { tokens: tokens.slice(0, 4), live: false })).body).results
  t.same(alone.map(({ valid }) => valid), [true, false, true, true], 'live:false judges the token alone')

  const beats = tokens.map((token, position) => ({ playback_token: token, position }))
  const { results }: { results: Array<{ status: number, code?: string, position?: number }> } = Object((await call('POST', `${API}/heartbeats`, undefined, { heartbeats: beats })).body)
  t.equal(results.length, 1_000)
  t.match(results.slice(0, 4), [{ status: 200, position: 0 }, { status: 401, code: 'unauthorized' }, { status: 410, code: 'session-ended' }, { status: 200, position: 3 }], 'a lapsed session that no script has ended lives again')
})

t.test('operating routes', { skip }, async t => {
  const { app, call, begin, log } = await setUp(t)
  for (const path of ['/health', '/health/live', '/health/ready']) t.equal((await call('GET', path)).status, 200, path)
  for (const [path, type] of [['/docs', /html/], ['/openapi.json', /json/], ['/openapi.yaml', /yaml/], ['/metrics', /text\/plain/], ['/.well-known/jwks.json', /json/]] as const) {
    const answer = await app.inject({ url: path })
    t.equal(answer.statusCode, 200, path)
    t.match(answer.headers['content-type'], type, path)
  }
  const user = newUser()
  const metric = async (name: string): Promise<number> => Number(new RegExp(`^${name.replace(/[{}]/g, '\\$&')} (\\S+)$`, 'm').exec((await app.inject('/metrics')).body)?.[1] ?? 0)
  for (let i = 0; i < 5; i++) await begin(user)
  await call('DELETE', `${API}/concurrency/${user}`)
  t.equal(await metric('viewing_sessions_started_total'), 4)
  t.equal(await metric('viewing_starts_refused_total{code="concurrency-limit-reached"}'), 1)
  t.equal(await metric('viewing_sessions_ended_total{reason="terminated"}'), 4)
  t.match((await app.inject('/metrics')).body, /http_request_duration_seconds_bucket\{le="0.001",/)
  const named = await app.inject({ url: '/health', headers: { 'x-request-id': 'from-the-caller.1' } })
  t.equal(named.headers['x-request-id'], 'from-the-caller.1')
  t.same(log.filter(line => line.includes(user)), [], 'no user id is in a log line')
  const requests = log.map(line => JSON.parse(line) as { reqId?: string, req?: object }).filter(line => line.req !== undefined)
  t.ok(requests.length > 5 && requests.every(line => typeof line.reqId === 'string'), 'every request line has its id')
})
