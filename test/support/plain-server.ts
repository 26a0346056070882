import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import type { Test } from 'tap'
import plainHttp from '../../src/plugins/plain-http.ts'
import { PlainRequest } from '../../src/plugins/plain-http/messages.ts'
import { clientErrorHandler } from '../../src/plugins/problem-details.ts'

/** A server of plain requests, and clients that write and read its bytes. */

export const PREFIX = '/api/'
export const LIMIT = 20_000
export const PLAIN_BYTES = LIMIT - 100
const KEEP_ALIVE_MS = 1_000
const REQUEST_MS = 2_000

export interface Server { fastify: FastifyInstance, port: number, plain: () => number, seen: () => number }

/** The same routes, with and without the plugin. */
export async function startServer (t: Test, withPlain: boolean, keepAliveTimeout = KEEP_ALIVE_MS): Promise<Server> {
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

/** Sends the pieces, says no more, and gives all that is answered. `before`: a request that is answered first. */
export async function exchange (port: number, pieces: readonly string[], before?: string): Promise<string> {
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

export function open (port: number): { socket: Socket, text: () => string, answers: () => number, closed: () => boolean } {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  let text = ''
  socket.setEncoding('utf8').on('data', (piece: string) => { text += piece }).on('error', () => { /* cut after its answer */ })
  return { socket, text: () => text, answers: () => text.match(/HTTP\/1\.1 /g)?.length ?? 0, closed: () => socket.destroyed }
}

export const post = (url: string, body: string, fields = 'content-type: application/json\r\n'): string => `POST ${url} HTTP/1.1\r\nhost: x\r\n${fields}content-length: ${Buffer.byteLength(body)}\r\n\r\n${Buffer.from(body).toString('latin1')}`
export const get = (url: string, fields = ''): string => `GET ${url} HTTP/1.1\r\nHost: x\r\n${fields}\r\n`
export const textOf = (length: number): string => JSON.stringify({ text: 'x'.repeat(length - 11) })
