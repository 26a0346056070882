import t from 'tap'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { buildTestApp, newUser, start } from '../support/test-app.ts'

const { program, skip } = requireRedis()
const ORIGIN = 'https://player.example'
const ID = '3f0c9a52-8f6e-4d0b-9c41-5a1726e05132'

t.test('browser players of listed origins, and no others', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const { app } = await buildTestApp(t, redis.url, { CORS_ORIGINS: `${ORIGIN},http://localhost:5173`, USER_RATE_LIMIT: '1' })
  const document: { paths: Record<string, object> } = Object(app.swagger())
  const operations = Object.entries(document.paths).filter(([path]) => path.startsWith('/api/')).flatMap(([path, item]) => Object.keys(item).map(method => ({ url: path.replace('{session_id}', ID).replace('{user_id}', 'u'), method: method.toUpperCase() })))
  t.ok(operations.some(({ method }) => method === 'DELETE') && operations.length >= 13, `${operations.length} operations`)
  const preflight = async (url: string, method: string, origin: string) => await app.inject({
    method: 'OPTIONS', url, headers: { origin, 'access-control-request-method': method, 'access-control-request-headers': 'authorization,content-type,idempotency-key' }
  })
  for (const { url, method } of operations) {
    for (const origin of [ORIGIN, 'http://localhost:5173']) {
      const { statusCode, headers } = await preflight(url, method, origin)
      t.match([statusCode, headers['access-control-allow-origin'], headers.vary], [204, origin, /Origin/i], `${method} ${url}`)
      t.ok(String(headers['access-control-allow-methods']).split(/, */).includes(method), `${method} ${url} may be asked for`)
      t.match(headers['access-control-allow-headers'], /authorization.*content-type.*idempotency-key/)
      t.equal(headers['access-control-max-age'], '600')
    }
    for (const origin of ['https://evil.example', 'https://player.example.evil.example', 'http://player.example', 'null']) {
      t.equal((await preflight(url, method, origin)).headers['access-control-allow-origin'], undefined, `${method} ${url}: not ${origin}`)
    }
  }

  const user = newUser()
  const exposed = /retry-after.*x-request-id.*location/
  t.match((await start(app, user, {}, { origin: ORIGIN })).headers, { 'access-control-allow-origin': ORIGIN, 'access-control-expose-headers': exposed, location: /./ })
  t.match(await start(app, user, {}, { origin: ORIGIN }), { status: 429, headers: { 'access-control-allow-origin': ORIGIN, 'access-control-expose-headers': exposed, 'retry-after': /^\d+$/ } }, 'a refusal can be read too')
  t.match((await app.inject({ url: `/api/playback/session/${ID}`, headers: { origin: ORIGIN } })).headers, { 'access-control-allow-origin': ORIGIN, 'access-control-expose-headers': exposed })
  t.equal((await start(app, newUser(), {}, { origin: 'https://evil.example' })).headers['access-control-allow-origin'], undefined)
  t.equal((await start(app, newUser(), {}, { origin: ORIGIN })).headers['access-control-allow-credentials'], undefined, 'tokens are sent by the page, never by the browser itself')

  const closed = (await buildTestApp(t, redis.url)).app
  const answer = await closed.inject({ method: 'OPTIONS', url: '/api/playback/session', headers: { origin: ORIGIN, 'access-control-request-method': 'POST' } })
  t.match([answer.statusCode, answer.headers['access-control-allow-origin']], [405, undefined], 'without the setting there is no CORS')
})

t.test('every answer of the API is data and never a page; the pages have what pages need', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const { app } = await buildTestApp(t, redis.url)
  // Over a socket: the fixed headers are written by the server's own kind of answer.
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  const { body } = await start(app, newUser())
  const session = `/api/playback/session/${body.session.session_id}`
  const ask = async (path: string, init: RequestInit = {}): Promise<{ status: number, headers: Record<string, string> }> => {
    const { status, headers } = await fetch(url + path, init)
    return { status, headers: Object.fromEntries(headers) }
  }
  const withToken = { authorization: `Bearer ${body.playback_token}`, 'content-type': 'application/json' }
  const answers = await Promise.all([
    ask(session, { headers: withToken }), ask(session), ask(`${session}/heartbeat`, { method: 'POST', headers: withToken, body: '{"position":-1}' }), ask('/nowhere'), ask('/health')
  ])
  t.same(answers.map(({ status }) => status), [200, 401, 400, 404, 200])
  for (const { status, headers } of answers) {
    const names = ['x-content-type-options', 'content-security-policy', 'cache-control', 'x-powered-by', 'server', 'strict-transport-security', 'set-cookie'] as const
    t.same(names.map(name => headers[name]), ['nosniff', "default-src 'none'; frame-ancestors 'none'", 'no-store', undefined, undefined, undefined, undefined], String(status))
    t.match(headers['x-request-id'], /./)
  }
  t.equal((await ask('/.well-known/jwks.json')).headers['cache-control'], 'public, max-age=300', "a route's own takes the place")
  const page = await ask('/docs/')
  t.equal(page.status, 200)
  t.match(page.headers, { 'content-security-policy': /default-src 'self'/, 'x-frame-options': 'SAMEORIGIN', 'referrer-policy': 'no-referrer' })
  t.equal(page.headers['x-content-type-options'], 'nosniff')
  t.equal(page.headers['strict-transport-security'], undefined, 'TLS ends in front of the service, and so does HSTS begin there')
})
