import cluster from 'node:cluster'
import Fastify from 'fastify'
import { SessionStore } from '../src/modules/session/session-store.ts'
import plainHttp from '../src/plugins/plain-http.ts'
import { RedisClock } from '../src/redis/clock.ts'
import { createClient } from '../src/redis/connect.ts'

/**
 * The least a JSON POST costs with Fastify: 200, a schema for the body and one for the answer. What the service is measured against. On top of it,
 * where asked for: `WORKERS`; `PLAIN=1`, requests read as the service reads them; `REDIS`, its host:port: each request renews a session.
 */
const { WORKERS = '1', PLAIN, REDIS } = process.env

async function sessions (address: string): Promise<SessionStore> {
  const { hostname, port } = new URL(`redis://${address}`)
  const client = createClient({ target: { kind: 'single', host: hostname, port: Number(port), tls: false, db: 0 }, commandTimeoutMs: 1_000 })
  await client.connect()
  return new SessionStore({ client, clock: new RedisClock(), endedTtlMs: 1_000, heartbeatGapMs: 1 })
}

async function serve (): Promise<void> {
  const fastify = Fastify({ logger: false })
  if (PLAIN !== undefined) await fastify.register(plainHttp, { prefix: '/', maxBodyBytes: 16_384, requestMs: 10_000 })
  const schema = {
    body: { type: 'object', required: ['position'], properties: { position: { type: 'number' } } },
    response: { 200: { type: 'object', properties: { session_id: { type: 'string' }, status: { type: 'string' }, position: { type: 'number' } } } }
  }
  const store = REDIS === undefined ? undefined : await sessions(REDIS)
  fastify.post('/', { schema }, async () => ({ session_id: '3f0c9a52-8f6e-4d0b-9c41-5a1726e05132', status: 'active', position: 1 }))
  fastify.post<{ Params: { id: string }, Body: { position: number } }>('/api/playback/session/:id/heartbeat', { schema }, async ({ params: { id }, body: { position } }) => {
    const renewal = await store?.heartbeat(id, position)
    return { session_id: id, status: renewal?.outcome === 'renewed' ? renewal.status : 'unknown', position }
  })
  process.stdout.write(`${JSON.stringify({ msg: 'listening', address: await fastify.listen({ host: '127.0.0.1', port: 0 }) })}\n`)
}

if (cluster.isPrimary && Number(WORKERS) > 1) for (let worker = 0; worker < Number(WORKERS); worker++) cluster.fork()
else await serve()
// Ends by itself, so that --cpu-prof can write its profile.
process.once('SIGTERM', () => { process.exit(0) })
