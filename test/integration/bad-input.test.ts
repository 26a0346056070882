import { once } from 'node:events'
import { connect } from 'node:net'
import { Redis } from 'ioredis'
import t from 'tap'
import { startRedis } from '../support/redis-server.ts'
import { requireRedis } from '../support/requirements.ts'
import { buildTestApp, call, newUser, start } from '../support/test-app.ts'

const { program, skip } = requireRedis()
const MARK = 'do-not-echo-me'

t.test('bad input is a 4xx problem, echoes nothing and stores nothing', { skip }, async t => {
  const redis = await startRedis({ program })
  t.teardown(async () => { await redis.close() })
  const { app, log } = await buildTestApp(t, redis.url)
  const store = new Redis(redis.url)
  t.teardown(() => { store.disconnect() })
  const { body: session } = await start(app, newUser())
  const token = session.playback_token
  const path = `/api/playback/session/${session.session.session_id}`
  const stored = async (): Promise<number> => (await store.keys('session:*')).length + (await store.keys('concurrency:*')).length
  const before = await stored()
  const good = { user_id: 'u', profile_id: 'p', content_id: 'c', device_id: 'd' }

  async function refused (name: string, status: number, request: { method?: 'GET' | 'POST' | 'PUT' | 'DELETE', url: string, payload?: unknown, headers?: Record<string, string> }): Promise<void> {
    const { payload, ...rest } = request
    const answer = await app.inject({
      method: 'POST', ...rest, ...(payload === undefined ? {} : { payload: typeof payload === 'string' ? payload : JSON.stringify(payload) }), headers: { 'content-type': 'application/json', ...rest.headers }
    })
    t.equal(answer.statusCode, status, name)
    t.match(String(answer.headers['content-type']), /^application\/problem\+json/, name)
    const problem = answer.json<Record<string, unknown>>()
    for (const member of ['type', 'title', 'status', 'detail', 'instance', 'code', 'request_id']) t.ok(member in problem, `${name}: ${member}`)
    t.notMatch({ ...problem, instance: '' }, new RegExp(MARK), `${name}: nothing is echoed`)
  }
  const url = '/api/playback/session'
  const deep = '['.repeat(100_000) + ']'.repeat(100_000)

  const ids: unknown[] = [1, null, true, ['a'], {}, '', 'a b', 'a{b}', 'a\nb', 'ä', '\u0000', '\ud800', 'x'.repeat(129), MARK + '!']
  for (const id of ids) await refused(`user_id ${JSON.stringify(id).slice(0, 20)}`, 400, { url, payload: { ...good, user_id: id } })
  for (const position of ['120', null, [], -1, 10_000_000.1, 1e308, 0.0001, true]) {
    await refused(`position ${JSON.stringify(position)}`, 400, { url, payload: { ...good, position } })
    await refused(`beat ${JSON.stringify(position)}`, 400, { url: `${path}/heartbeat`, payload: { position }, headers: { authorization: `Bearer ${token}` } })
  }
  await refused('unknown member', 400, { url, payload: { ...good, [MARK]: MARK } })
  await refused('missing member', 400, { url, payload: { user_id: 'u' } })
  await refused('__proto__', 400, { url, payload: '{"__proto__":{"a":1},"user_id":"u","profile_id":"p","content_id":"c","device_id":"d"}' })
  await refused('constructor', 400, { url, payload: '{"constructor":{"prototype":{"a":1}},"user_id":"u"}' })
  await refused('no JSON', 400, { url, payload: `{"user_id": ${MARK}` })
  await refused('no body', 400, { url, payload: '' })
  await refused('an array', 400, { url, payload: [good] })
  await refused('deep JSON', 413, { url, payload: deep })
  await refused('deep JSON within the batch limit', 400, { url: '/api/playback/heartbeats', payload: `{"heartbeats":${deep}}` })
  await refused('1,001 heartbeats', 400, { url: '/api/playback/heartbeats', payload: { heartbeats: Array.from({ length: 1_001 }, () => ({ playback_token: 'x', position: 1 })) } })
  await refused('token and tokens', 400, { url: '/api/playback/token/validate', payload: { token, tokens: [token] } })
  await refused('neither token nor tokens', 400, { url: '/api/playback/token/validate', payload: {} })
  await refused('over 16 KiB', 413, { url, payload: { ...good, user_id: 'x'.repeat(16 * 1024) } })
  await refused('over 2 MiB', 413, { url: '/api/playback/heartbeats', payload: 'x'.repeat(2 * 1024 * 1024 + 1) })
  for (const type of ['text/plain', 'multipart/form-data; boundary=x', 'application/xml', 'application/jsonx', MARK]) await refused(`content type ${type}`, 415, { url, payload: 'x', headers: { 'content-type': type } })
  for (const key of ['', 'x'.repeat(256), 'a b', 'ä']) await refused(`Idempotency-Key ${key.slice(0, 5)}`, 400, { url, payload: good, headers: { 'idempotency-key': key } })
  await refused('an id that is none', 400, { method: 'GET', url: `${url}/${MARK}`, headers: { authorization: `Bearer ${token}` } })
  await refused('an upper-case id', 400, { method: 'GET', url: path.toUpperCase().replace('/API/PLAYBACK/SESSION', url), headers: { authorization: `Bearer ${token}` } })
  await refused('a bad escape', 400, { method: 'GET', url: '/api/playback/concurrency/%zz' })
  await refused('braces in a path', 400, { method: 'GET', url: '/api/playback/concurrency/%7Bx%7D' })
  await refused('an unknown path', 404, { method: 'GET', url: `/api/${MARK}` })
  for (const action of ['pause', 'resume', 'stop', 'complete']) await refused(`null as the body of ${action}`, 400, { url: `${path}/${action}`, payload: 'null', headers: { authorization: `Bearer ${token}` } })
  await refused('null as the body of refresh', 400, { url: '/api/playback/token/refresh', payload: 'null', headers: { authorization: `Bearer ${token}` } })
  for (const wrong of [1, null, ['x'], 'x'.repeat(4_097)]) await refused(`a beacon's token beside a credential: ${JSON.stringify(wrong).slice(0, 10)}`, 400, { url: `${path}/stop`, payload: { playback_token: wrong }, headers: { authorization: `Bearer ${token}` } })
  await refused('another method', 405, { method: 'PUT', url, payload: good })
  await refused('an unknown query', 400, { method: 'DELETE', url: `${path}?reason=${MARK}`, headers: { authorization: `Bearer ${token}` } })
  for (const credential of ['Bearer', 'Bearer  ', 'Basic abc', `Bearer ${MARK}`, `Bearer ${'x'.repeat(9_000)}`]) await refused(`credential ${credential.slice(0, 12)}`, 401, { method: 'GET', url: path, headers: { authorization: credential } })

  t.equal(await stored(), before, 'nothing was stored')
  t.equal((await call(app, 'GET', `/session/${session.session.session_id}`, token)).body.session?.['position'], 0, 'the session is as it was')
  t.equal(log.filter(line => line.includes(token)).length, 0, 'no token is in a log')
  t.same(log.filter(line => line.includes(MARK) && !line.includes(`/${MARK}`)), [], 'nor any value that was sent')
  t.equal(log.filter(line => line.includes('"level":50')).length, 0, 'none was a fault of ours')

  t.test('a record that cannot be read fails its user alone', async t => {
    const [broken, whole] = [newUser(), newUser()]
    const { body } = await start(app, broken)
    await start(app, whole)
    await store.set(`session:{${body.session.session_id}}`, MARK)
    const answers = await Promise.all([broken, whole].map(async user => await app.inject(`/api/playback/concurrency/${user}`)))
    t.same(answers.map(({ statusCode }) => statusCode), [500, 200])
    t.notMatch(answers[0]?.body, new RegExp(MARK))
    t.equal(answers[1]?.json<{ active: number }>().active, 1)
  })

  t.test('raw bytes and endless headers', async t => {
    const address = await app.listen({ port: 0, host: '127.0.0.1' })
    const port = Number(new URL(address).port)
    for (const [bytes, status] of [['\u0000\u0001garbage\r\n\r\n', 400], [`GET / HTTP/1.1\r\nHost: x\r\nA: ${'x'.repeat(40_000)}\r\n\r\n`, 431], ['GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n', 400]] as const) {
      t.match(await sendRaw(port, bytes), new RegExp(`^HTTP/1.1 ${status} [\\s\\S]*application/problem\\+json`))
    }
    t.match(await sendRaw(port, 'QUERY /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'), /^HTTP\/1.1 405 [\s\S]*allow: GET, HEAD/, 'a method that Node knows and no route takes')
    t.equal((await app.inject('/health/live')).statusCode, 200)

    const halves = [`POST ${url} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"user_id":`, 'GET /health/live HTTP/1.1\r\nHost:', '']
    for (const half of await Promise.all(halves.map(async bytes => await sendRaw(port, bytes)))) {
      t.match(half, /^HTTP\/1.1 408 [\s\S]*application\/problem\+json[\s\S]*"code":"request-timeout"/, 'a socket that does not finish its request is cut')
    }
  })
})

/** What is answered until the server cuts the connection. */
async function sendRaw (port: number, bytes: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  let answer = ''
  socket.setEncoding('utf8').on('data', (text: string) => { answer += text }).on('error', () => { /* it may be cut after the answer */ })
  socket.write(bytes)
  await once(socket, 'close')
  return answer
}
