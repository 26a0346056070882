import { type EventEmitter } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { PlainRequest } from '../../src/plugins/plain-http/messages.ts'
import { exchange, get, open, post, startServer, textOf } from '../support/plain-server.ts'
import { waitFor } from '../support/wait-for.ts'

t.setTimeout(120_000)

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

t.test('what can no longer become a plain head is refused, not waited for', async t => {
  const { port } = await startServer(t, true)
  for (const bytes of ['GET /api/echo HTTP/1.1\nhost: x\n\n', 'GET /api/echo HTTP/1.1\r\nhost: x\0', 'GET /api/echo HTTP/1.1\rhost: x']) {
    const { socket, answers, text } = open(port)
    socket.write(bytes)
    await waitFor('an answer', () => answers() > 0)
    t.match(text(), /^HTTP\/1\.1 400 /, JSON.stringify(bytes))
    socket.destroy()
  }
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
