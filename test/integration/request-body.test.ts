import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import requestBody, { Message } from '../../src/plugins/request-body.ts'
import { waitFor } from '../support/wait-for.ts'

const LIMIT = 20_000
const WIDE = 200_000

/** Bodies as sockets bring them: in parts, late, too long, cut off; after each, the next request on the same connection is answered. */
t.test('a body taken whole is what a stream would have brought', async t => {
  const fastify = Fastify({ http: { IncomingMessage: Message }, bodyLimit: LIMIT })
  await fastify.register(requestBody, { limit: LIMIT })
  const errors: string[] = []
  let messages = 0
  const closed: string[] = []
  fastify.addHook('onRequest', async ({ raw, url }) => {
    messages++
    raw.once('close', () => { closed.push(url) })
    // An API's credential takes a while: the body is here before anyone wants it.
    if (url === '/late' || url === '/late/wide') await sleep(20)
    if (url === '/refused') throw Object.assign(new Error('no'), { statusCode: 401 })
  })
  fastify.addHook('onError', async (_request, _reply, error) => { errors.push(`${error.code} ${error.statusCode}`) })
  const echo = async ({ body }: { body: unknown }): Promise<unknown> => ({ length: JSON.stringify(body ?? null).length, body })
  for (const url of ['/', '/late', '/refused']) fastify.post(url, echo)
  for (const url of ['/wide', '/late/wide']) fastify.post(url, { bodyLimit: WIDE }, echo)
  fastify.get('/', async () => ({ length: 0 }))
  await fastify.register(async scope => {
    scope.addContentTypeParser('text/stream', (_request, payload, done) => {
      let length = 0
      payload.on('data', (chunk: Buffer) => { length += chunk.length })
      payload.on('end', () => { done(null, length) })
    })
    scope.post('/stream', async ({ body }) => ({ length: body }))
  })
  const address = new URL(await fastify.listen({ port: 0, host: '127.0.0.1' }))
  t.teardown(async () => { await fastify.close() })

  function open (): { socket: Socket, answers: () => string[] } {
    const socket = connect(Number(address.port), '127.0.0.1')
    let text = ''
    socket.setEncoding('utf8').on('data', (piece: string) => { text += piece }).on('error', () => { /* cut after its answer */ })
    return { socket, answers: () => text.split(/(?=HTTP\/1\.1 )/).filter(answer => answer.includes('\r\n\r\n')) }
  }
  const head = (url: string, length: number | 'chunked', type = 'application/json', method = 'POST'): string =>
    `${method} ${url} HTTP/1.1\r\nHost: x\r\nContent-Type: ${type}\r\n${length === 'chunked' ? 'Transfer-Encoding: chunked' : `Content-Length: ${length}`}\r\n\r\n`
  const textOf = (length: number): string => JSON.stringify({ text: 'x'.repeat(length) })
  const post = (url: string, body: string): string => head(url, Buffer.byteLength(body)) + body
  const chunk = (text: string): string => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`

  /** Sends the pieces one after the other, then a small request: both have to be answered. */
  async function answered (t: Test, pieces: string[], status: number, expected: string | RegExp): Promise<void> {
    const { socket, answers } = open()
    for (const piece of pieces) {
      socket.write(piece)
      await sleep(15)
    }
    socket.write(post('/', '{"next":true}'))
    await waitFor('both answers', () => answers().length === 2)
    t.match(answers()[0], new RegExp(`^HTTP/1\\.1 ${status} `))
    t.match(answers()[0], expected)
    t.match(answers()[1], '"next":true', 'the connection goes on')
    socket.destroy()
  }

  t.test('parts', async t => {
    await answered(t, [post('/', '{"a":"ü€"}')], 200, '"a":"ü€"')
    const bytes = '{"a":"ü€","b":[1,2,3]}'
    await answered(t, [head('/', Buffer.byteLength(bytes)), ...bytes], 200, '"a":"ü€","b":[1,2,3]')
    await answered(t, [head('/', 'chunked'), chunk('{"a":'), chunk('12'), chunk('3}'), '0\r\n\r\n'], 200, '"a":123')
  })

  t.test('a body that is here before it is wanted, a little and a lot', async t => {
    await answered(t, [post('/late', textOf(100))], 200, '"length":111')
    await answered(t, [post('/late', textOf(LIMIT - 100))], 200, `"length":${LIMIT - 100 + 11}`)
    await answered(t, [post('/late/wide', textOf(WIDE - 100))], 200, `"length":${WIDE - 100 + 11}`)
    await answered(t, [post('/wide', textOf(WIDE - 100))], 200, `"length":${WIDE - 100 + 11}`)
  })

  t.test('pipelined', async t => {
    const { socket, answers } = open()
    socket.write(post('/late', textOf(1)) + post('/', textOf(2)) + post('/wide', textOf(30_000)) + post('/', textOf(4)))
    await waitFor('four answers', () => answers().length === 4)
    t.same(answers().map(answer => /"length":(\d+)/.exec(answer)?.[1]), ['12', '13', '30011', '15'])
    socket.destroy()
  })

  t.test('too long: announced, sent in chunks, before and after it is wanted; none; no JSON', async t => {
    const chunked = (url: string, ...texts: string[]): string => head(url, 'chunked') + texts.map(chunk).join('') + '0\r\n\r\n'
    for (const url of ['/', '/late']) {
      for (const [bytes, expected] of [
        [head(url, LIMIT + 1), 'FST_ERR_CTP_BODY_TOO_LARGE'],
        [post(url, textOf(LIMIT)), 'FST_ERR_CTP_BODY_TOO_LARGE'],
        [chunked(url, textOf(LIMIT)), 'FST_ERR_CTP_BODY_TOO_LARGE'],
        [chunked(url, textOf(LIMIT).slice(0, 900), textOf(LIMIT)), 'FST_ERR_CTP_BODY_TOO_LARGE'],
        [chunked(url), 'FST_ERR_CTP_EMPTY_JSON_BODY'],
        [head(url, 0), 'FST_ERR_CTP_EMPTY_JSON_BODY'],
        [post(url, '{"a":'), 'FST_ERR_CTP_INVALID_JSON_BODY'],
        [post(url, '{"__proto__":{}}'), 'FST_ERR_CTP_INVALID_JSON_BODY']
      ] as const) {
        const { socket, answers } = open()
        socket.write(bytes)
        await waitFor(`${url} to answer`, () => answers().length === 1)
        t.match(answers()[0], new RegExp(`^HTTP/1\\.1 ${expected.includes('LARGE') ? 413 : 400} [\\s\\S]*connection: close[\\s\\S]*${expected}`, 'i'))
        socket.destroy()
      }
    }
  })

  t.test('nobody wants it', async t => {
    await answered(t, [head('/', 0, 'application/json', 'GET')], 200, '"length":0')
    await answered(t, [post('/refused', textOf(10))], 401, 'no')
    await answered(t, [head('/refused', 100_011), textOf(100_000)], 401, 'no')
    await answered(t, [post('/nowhere', textOf(10_000))], 404, 'nowhere')
  })

  t.test('read as a stream it is one', async t => {
    await answered(t, [head('/stream', 100_000, 'text/stream'), 'x'.repeat(60_000), 'x'.repeat(40_000)], 200, '"length":100000')
    await answered(t, [`${head('/stream', 10, 'text/stream')}${'x'.repeat(10)}`], 200, '"length":10')
  })

  t.test('cut off', async t => {
    for (const url of ['/', '/late']) {
      errors.length = 0
      const before = messages
      const { socket } = open()
      socket.write(head(url, 100) + '{"a":')
      await waitFor('the request to be seen', () => messages > before)
      await sleep(40)
      socket.destroy()
      await waitFor('its end to be noticed', () => errors.length > 0)
      t.match(errors, [/ 400$/])
    }
    closed.length = 0
    const { socket } = open()
    socket.write(head('/', 100) + '{')
    await sleep(20)
    socket.destroy()
    await once(socket, 'close')
    await waitFor('the request to be closed', () => closed.includes('/'))
  })

  t.test('an idle connection holds on to nothing', async t => {
    const { socket, answers } = open()
    socket.write(post('/', '{}'))
    await waitFor('the answer', () => answers().length === 1)
    const [server] = await new Promise<Socket[]>(resolve => { fastify.server.once('request', ({ socket }: Message) => { resolve([socket]) }); socket.write(post('/', '{}')) })
    await waitFor('both answers', () => answers().length === 2)
    t.equal(Reflect.get(Object(Reflect.get(Object(server), 'parser')), 'incoming'), null)
    socket.destroy()
  })
})
