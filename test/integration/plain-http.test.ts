import { type EventEmitter, once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import plainHttp from '../../src/plugins/plain-http.ts'
import { PlainRequest } from '../../src/plugins/plain-http/messages.ts'
import { readHead } from '../../src/plugins/plain-http/request-head.ts'
import { clientErrorHandler } from '../../src/plugins/problem-details.ts'
import { waitFor } from '../support/wait-for.ts'

t.setTimeout(120_000)
const PREFIX = '/api/'
const LIMIT = 20_000
const PLAIN_BYTES = LIMIT - 100
const KEEP_ALIVE_MS = 1_000
const REQUEST_MS = 2_000

interface Server { fastify: FastifyInstance, port: number, plain: () => number, seen: () => number }

/** The same routes, with and without the plugin. */
async function startServer (t: Test, withPlain: boolean, keepAliveTimeout = KEEP_ALIVE_MS): Promise<Server> {
  const fastify = Fastify({ bodyLimit: LIMIT, clientErrorHandler, forceCloseConnections: 'idle', keepAliveTimeout, http: { headersTimeout: REQUEST_MS, connectionsCheckingInterval: 200 }, requestTimeout: REQUEST_MS, return503OnClosing: false })
  // What it does with a client that says no more, and listens: answers it. Node does so only when it is told.
  Reflect.set(fastify.server, 'httpAllowHalfOpen', true)
  let [plain, seen] = [0, 0]
  if (withPlain) await fastify.register(plainHttp, { prefix: PREFIX, maxBodyBytes: PLAIN_BYTES, requestMs: REQUEST_MS })
  fastify.addHook('onRequest', async ({ raw }) => {
    seen++
    if (raw instanceof PlainRequest) plain++
  })
  const echo = async ({ method, url, headers, body, ip, hostname, query }: FastifyRequest): Promise<unknown> => ({ method, url, headers, body: body ?? null, ip, hostname, query })
  fastify.all('/api/echo', echo)
  fastify.all('/other/echo', echo)
  fastify.all('/api/late', async request => {
    await sleep(20)
    return await echo(request)
  })
  fastify.post('/api/slow', async request => {
    await sleep(300)
    return await echo(request)
  })
  fastify.get('/api/bytes', async (_request, reply) => reply.type('application/octet-stream').header('set-cookie', ['a=1', 'b=2']).send(Buffer.from([0, 255, 128, 13, 10])))
  fastify.get('/api/none', async (_request, reply) => reply.code(204).send())
  fastify.get('/api/text', async () => 'gr\u00fc\u00dfe \u20ac')
  fastify.get('/api/broken', async (_request, reply) => reply.header('x-text', 'a\r\nset-cookie: stolen=1').send('x'))
  fastify.get('/api/own', async (_request, reply) => reply.header('cache-control', 'max-age=60').send('x'))
  fastify.get('/api/leave', async (_request, reply) => reply.header('connection', 'close').send('x'))
  const address = await fastify.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(async () => { await fastify.close() })
  return { fastify, port: Number(new URL(address).port), plain: () => plain, seen: () => seen }
}

/**
 * An answer without what differs from run to run, and without the headers that only the plugin adds. To a client that has said its last word the
 * plugin says that the connection ends, Node only ends it.
 */
function normalised (text: string): string[] {
  return text.split(/(?=HTTP\/1\.1 \d{3} )/).map(answer => {
    const [head = '', ...body] = answer.split('\r\n\r\n')
    const [status = '', ...fields] = head.split('\r\n')
    const kept = fields.map(field => field.replace(/^[^:]+/, name => name.toLowerCase())).filter(field => !/^(date|connection|keep-alive|x-content-type-options|content-security-policy|cache-control): /.test(field))
    return [status, ...kept.toSorted(), body.join('\r\n\r\n')].join('\n')
  })
}

/** Sends the pieces, says no more, and gives all that is answered. `before`: a request that is answered first. */
async function exchange (port: number, pieces: readonly string[], before?: string): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => { chunks.push(chunk) }).on('error', () => { /* cut after its answer */ })
  const closed = once(socket, 'close')
  if (before !== undefined) {
    socket.write(before)
    await once(socket, 'data')
  }
  for (const [at, piece] of pieces.entries()) {
    if (at > 0) await sleep(3)
    socket.write(Buffer.from(piece, 'latin1'))
  }
  socket.end()
  await closed
  return Buffer.concat(chunks).toString()
}

/** The plain requests at the beginning, and what comes after them. */
function messagesOf (text: string): string[] {
  const bytes = Buffer.from(text, 'latin1')
  const head = readHead(bytes, PREFIX, PLAIN_BYTES)
  const end = typeof head === 'object' ? head.bodyAt + head.bodyLength : bytes.length
  return end >= bytes.length ? [text] : [text.slice(0, end), ...messagesOf(text.slice(end))]
}

const post = (url: string, body: string, fields = 'content-type: application/json\r\n'): string => `POST ${url} HTTP/1.1\r\nhost: x\r\n${fields}content-length: ${Buffer.byteLength(body)}\r\n\r\n${Buffer.from(body).toString('latin1')}`
const get = (url: string, fields = ''): string => `GET ${url} HTTP/1.1\r\nHost: x\r\n${fields}\r\n`
const textOf = (length: number): string => JSON.stringify({ text: 'x'.repeat(length - 11) })
const bytewise = (text: string): string[] => [...text]

/** How a request is sent, and whether it is to be read by the plugin. */
const CASES: Array<[name: string, plain: boolean, pieces: string[]]> = [
  ['a small body', true, [post('/api/echo', '{"a":1}')]],
  ['no body', true, [post('/api/echo', '', '')]],
  ['an empty JSON body', true, [post('/api/echo', '')]],
  ['a body without a length', true, ['POST /api/echo HTTP/1.1\r\nhost: x\r\n\r\n']],
  ['UTF-8', true, [post('/api/echo', '{"a":"\u00fc\u20ac\ud83d\ude00"}')]],
  ['bytes that are no UTF-8', true, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"a":"\xff"}']],
  ['no JSON', true, [post('/api/echo', '{"a":')]],
  ['a poisoned prototype', true, [post('/api/echo', '{"__proto__":{"a":1}}')]],
  ['plain text', true, [post('/api/echo', 'hello', 'Content-Type: text/plain\r\n')]],
  ['a media type nobody reads', true, [post('/api/echo', 'hello', 'content-type: application/xml\r\n')]],
  ['byte by byte', true, bytewise(post('/api/echo', '{"a":"b"}'))],
  ['head and body apart', true, [post('/api/echo', '{"a":"b"}').slice(0, -9), '{"a":"b"}']],
  ['two heads and a half', true, [post('/api/echo', '1') + post('/api/late', '2') + post('/api/echo', '3').slice(0, 20), post('/api/echo', '3').slice(20)]],
  ['ten in one packet', true, [Array.from({ length: 10 }, (_, n) => post(n % 3 === 0 ? '/api/late' : '/api/echo', `{"n":${n}}`)).join('')]],
  ['more while one is answered', true, [post('/api/late', '1'), post('/api/echo', '2'), get('/api/echo'), post('/api/late', '3')]],
  ['GET, query and escapes', true, [get('/api/echo?a=1&b=%20c&a=2')]],
  ['DELETE', true, ['DELETE /api/echo HTTP/1.1\r\nhost: x\r\n\r\n']],
  ['names in other cases, no space, an empty value', true, [get('/api/echo', 'X-One:1\r\nx-TWO: 2 2\r\nX-Empty:\r\nX-Empty2: \r\n')]],
  ['keep-alive', true, [get('/api/echo', 'Connection: Keep-Alive\r\n'), get('/api/echo')]],
  ['an answer of bytes, two cookies', true, [get('/api/bytes')]],
  ['an answer without a body', true, [get('/api/none') + get('/api/text')]],
  ['an unknown route', true, [get('/api/nowhere') + get('/api/echo')]],
  ['a bad escape in the path', true, [get('/api/%zz') + get('/api/echo')]],
  ['an answer that ends the connection', true, [get('/api/leave') + get('/api/echo')]],
  ['a body of the limit', true, [post('/api/echo', textOf(PLAIN_BYTES))]],
  ['a body above the limit of the plugin', false, [post('/api/echo', textOf(PLAIN_BYTES + 1))]],
  ['a body above the limit of the route', false, [post('/api/echo', textOf(LIMIT + 1))]],
  ['a body that is announced too long', false, [`POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${LIMIT + 1}\r\n\r\n`]],
  ['half a body', false, [post('/api/echo', '{"a":1}').slice(0, -2)]],
  ['half a head', false, [post('/api/echo', '{"a":1}').slice(0, 40)]],
  ['nothing', false, ['']],
  ['another path', false, [get('/other/echo') + get('/api/echo')]],
  ['a whole address', false, [get('http://x/api/echo')]],
  ['HEAD, PUT, OPTIONS', false, ['HEAD /api/echo HTTP/1.1\r\nhost: x\r\n\r\nPUT /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\nOPTIONS /api/echo HTTP/1.1\r\nhost: x\r\n\r\n']],
  ['chunks', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{"a\r\n', '4\r\n":1}\r\n0\r\n\r\n']],
  ['chunks and a length', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n']],
  ['two lengths', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\n12345']],
  ['lengths that are none', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: +4\r\n\r\n1234']],
  ['a length in hexadecimal', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 0x4\r\n\r\n1234']],
  ['a length of two', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4, 4\r\n\r\n1234']],
  ['an expectation', false, ['POST /api/echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n', '1']],
  ['an upgrade', false, [get('/api/echo', 'connection: upgrade\r\nupgrade: h2c\r\n')]],
  ['no host', false, ['GET /api/echo HTTP/1.1\r\n\r\n']],
  ['no fields', false, ['GET /api/echo HTTP/1.1\r\n\r\n']],
  ['two hosts', false, ['GET /api/echo HTTP/1.1\r\nhost: x\r\nHost: y\r\n\r\n']],
  ['a field twice', false, [get('/api/echo', 'x-a: 1\r\nX-A: 2\r\nauthorization: a\r\nAuthorization: b\r\n')]],
  ['a folded field', false, [get('/api/echo', 'x-a: 1\r\n 2\r\n')]],
  ['a space before the colon', false, [get('/api/echo', 'x-a : 1\r\n')]],
  ['space around a value', false, [get('/api/echo', 'x-a: \t 1 \t \r\n')]],
  ['a field without a name', false, [get('/api/echo', ': 1\r\n')]],
  ['a field that has a name of objects', false, [get('/api/echo', 'constructor: 1\r\n')]],
  ['a field outside ASCII', false, [get('/api/echo', 'x-a: \xfc\r\n')]],
  ['a control character', false, [get('/api/echo', 'x-a: a\x01b\r\n')]],
  ['LF alone', false, ['GET /api/echo HTTP/1.1\nhost: x\n\n']],
  ['CR alone', false, [get('/api/echo', 'x-a: a\rb\r\n')]],
  ['an empty line before', false, [`\r\n${get('/api/echo')}`]],
  ['HTTP/1.0', false, ['GET /api/echo HTTP/1.0\r\nhost: x\r\n\r\n']],
  ['HTTP/1.0 with keep-alive', false, ['GET /api/echo HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n' + get('/api/echo')]],
  ['HTTP/2', false, ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n']],
  ['TLS', false, ['\x16\x03\x01\x02\x00\x01\x00\x01\xfc']],
  ['a close', false, [get('/api/echo', 'connection: close\r\n') + get('/api/echo')]],
  ['a body with GET', false, ['GET /api/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1' + get('/api/echo')]],
  ['a body with DELETE', false, ['DELETE /api/echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n1' + get('/api/echo')]],
  ['a head of 10 KiB', false, [get('/api/echo', `x-a: ${'a'.repeat(10_000)}\r\n`)]],
  ['a head of 20 KiB', false, [get('/api/echo', `x-a: ${'a'.repeat(20_000)}\r\n`)]]
]

t.test('a plain request is answered as Node answers it, every other one by Node', async t => {
  const [node, own] = [await startServer(t, false), await startServer(t, true)]
  for (const [name, plain, pieces] of CASES) {
    const before = own.plain()
    const [expected, found] = await Promise.all([exchange(node.port, pieces), exchange(own.port, pieces)])
    t.same(normalised(found), normalised(expected), name)
    t.equal(own.plain() > before, plain, `${name}: read by ${plain ? 'the plugin' : 'Node'}`)
  }
  t.equal(node.plain(), 0)

  t.test('after a plain one', async t => {
    for (const [name, , pieces] of CASES) {
      const [expected, found] = await Promise.all([exchange(node.port, pieces, post('/api/echo', '0')), exchange(own.port, pieces, post('/api/echo', '0'))])
      t.same(normalised(found), normalised(expected), name)
    }
  })

  t.test('what cannot be read comes after what is being answered', async t => {
    const answers = normalised(await exchange(own.port, [post('/api/late', '0'), '\0\r\n\r\n']))
    t.same(answers.map(answer => answer.slice(0, 12)), ['HTTP/1.1 200', 'HTTP/1.1 400'])
  })

  t.test('whatever becomes of the bytes', async t => {
    let seed = 20_261_125
    const random = (below: number): number => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) % below
    const noise = ['\r', '\n', '\r\n', ' ', '\t', ':', '\0', '\x7f', '\xe4', '#', '%', '"', 'a', '0', 'x-a: 1\r\n', 'Host: y\r\n', 'content-length: 3\r\n', 'transfer-encoding: chunked\r\n', 'Connection: close\r\n', '\r\n\r\n', get('/api/echo')]
    const originals = CASES.filter(([, plain]) => plain).map(([, , pieces]) => pieces.join('')).filter(text => text.length < 1_000)
    for (let round = 0; round < 120; round++) {
      await Promise.all(Array.from({ length: 25 }, async () => {
        let text = originals[random(originals.length)] ?? ''
        for (let changes = 1 + random(2); changes > 0; changes--) {
          const at = random(text.length)
          text = text.slice(0, at) + (noise[random(noise.length)] ?? '') + text.slice(at + random(3))
        }
        const [first = '', ...others] = messagesOf(text)
        const cut = random(first.length)
        // One by one: what Node cannot read it refuses before it has answered what came before, and loses that answer.
        for (const pieces of [random(2) === 0 ? [first] : [first.slice(0, cut), first.slice(cut)], ...others.map(other => [other])]) {
          const [expected, found] = await Promise.all([exchange(node.port, pieces), exchange(own.port, pieces)])
          if (JSON.stringify(normalised(found)) !== JSON.stringify(normalised(expected))) t.same(normalised(found), normalised(expected), JSON.stringify(pieces))
        }
      }))
    }
    t.ok(own.plain() > 500, `of 3,000 mutants ${own.plain()} requests were plain`)
  })
})

t.test('headers', async t => {
  const { port } = await startServer(t, true)
  const [echo, own, broken] = [await exchange(port, [get('/api/echo')]), await exchange(port, [get('/api/own')]), await exchange(port, [get('/api/broken') + get('/api/echo')])]
  t.match(echo, /^HTTP\/1\.1 200 OK\r\nx-content-type-options: nosniff\r\ncontent-security-policy: default-src 'none'; frame-ancestors 'none'\r\ncache-control: no-store\r\n/)
  t.match(echo, /\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n/)
  t.match(own, /cache-control: max-age=60\r\n/)
  t.notMatch(own, /no-store/, 'a route\'s own takes the place of the fixed one')
  t.match(broken, /^HTTP\/1\.1 500 /)
  t.notMatch(broken, /^set-cookie/m, 'a value does not break out of its line')
  t.equal(broken.match(/HTTP\/1\.1 /g)?.length, 2, 'and the connection goes on')
})

function open (port: number): { socket: Socket, text: () => string, answers: () => number, closed: () => boolean } {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  let text = ''
  socket.setEncoding('utf8').on('data', (piece: string) => { text += piece }).on('error', () => { /* cut after its answer */ })
  return { socket, text: () => text, answers: () => text.match(/HTTP\/1\.1 /g)?.length ?? 0, closed: () => socket.destroyed }
}

t.test('time', async t => {
  const { port } = await startServer(t, true)
  const half = open(port)
  half.socket.write(post('/api/echo', '{"a":1}').slice(0, -3))
  const silent = open(port)
  const idle = open(port)
  idle.socket.write(get('/api/echo'))
  const slow = open(port)
  const drip = (async () => {
    for (const byte of post('/api/echo', 'x'.repeat(120))) {
      slow.socket.write(byte)
      await sleep(20)
    }
  })()
  await waitFor('all to be closed', () => [half, silent, idle, slow].every(({ closed }) => closed()))
  await drip
  for (const { text } of [half, silent, slow]) t.match(text(), /^HTTP\/1\.1 408 [\s\S]*"code":"request-timeout"/)
  t.match(idle.text(), /^HTTP\/1\.1 200 [\s\S]*\r\nConnection: keep-alive\r\nKeep-Alive: timeout=1\r\n/)
})

t.test('a client that leaves', async t => {
  const { fastify, port, seen } = await startServer(t, true)
  let aborted: boolean | undefined
  let finished = false
  fastify.server.on('request', (request: PlainRequest, answer: EventEmitter) => {
    request.once('close', () => { aborted = request.aborted })
    answer.once('finish', () => { finished = true })
  })
  const { socket } = open(port)
  socket.write(post('/api/slow', '1'))
  await waitFor('the request', () => seen() === 1)
  socket.resetAndDestroy()
  await waitFor('its client to be missed', () => aborted !== undefined)
  t.equal(aborted, true)
  t.equal(finished, false)
  await waitFor('its handler to end all the same', () => finished)
  t.match(await exchange(port, [get('/api/echo')]), /^HTTP\/1\.1 200 /, 'and the server goes on')
})

t.test('a client that asks and does not read gets no further answer made until it reads', async t => {
  for (const length of [500, 15_000]) {
    const { port, seen } = await startServer(t, true, 60_000)
    const socket = connect({ port, host: '127.0.0.1' })
    const count = 15_000_000 / length
    socket.pause().on('error', error => { t.error(error) }).write(post('/api/echo', textOf(length)).repeat(count))
    let last = -1
    await waitFor('the server to wait for its reader', async () => {
      const before = last
      last = seen()
      await sleep(200)
      return last === before && last > 0
    })
    t.ok(last < count, `${last} of ${count} were answered`)
    let text = ''
    let answers = 0
    socket.setEncoding('latin1').on('data', (piece: string) => {
      text += piece
      answers += text.match(/HTTP\/1\.1 200 /g)?.length ?? 0
      text = text.slice(-12).replace(/^.*HTTP\/1\.1 200 /s, '')
    })
    socket.resume()
    await waitFor('all answers', () => answers === count, 60_000)
    t.equal(seen(), count)
    socket.destroy()
  }
  const { port } = await startServer(t, true)
  const socket = connect({ port, host: '127.0.0.1' })
  const cut = new Promise(resolve => { socket.once('close', resolve) })
  socket.pause().on('error', () => { /* it is cut while it writes */ }).write(post('/api/echo', textOf(15_000)).repeat(1_000))
  await cut
  t.pass('whoever never reads is cut')
})

t.test('the end of the server', async t => {
  const { fastify, port, seen } = await startServer(t, true)
  const [idle, busy, fresh] = [open(port), open(port), open(port)]
  idle.socket.write(get('/api/echo'))
  await waitFor('the first answer', () => idle.answers() === 1)
  busy.socket.write(post('/api/late', '1') + post('/api/echo', '2'))
  await waitFor('the request', () => seen() === 2)
  const closed = fastify.close()
  await waitFor('the idle connection to be closed', () => idle.closed())
  await waitFor('the busy one to be answered', () => busy.closed())
  t.match(busy.text(), /^HTTP\/1\.1 200 [\s\S]*Connection: close\r\n/)
  fresh.socket.destroy()
  await closed
  t.equal(fastify.server.listening, false)
})
