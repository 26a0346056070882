import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import { track } from './children.ts'
import { freePort, type RedisServer, startRedis } from './redis-server.ts'
import { type ServiceProcess, startService } from './service-process.ts'
import { type StubUpstream, startStubUpstream } from './stub-upstream.ts'
import { startTcpLink, type TcpLink } from './tcp-link.ts'
import { waitFor } from './wait-for.ts'

export interface RegionSide {
  redis: RedisServer
  /** A client with all rights. */
  admin: Redis
  service: ServiceProcess
}

export interface TwoRegions {
  upstream: StubUpstream
  /** The writer at first. */
  west: RegionSide
  /** The reader at first; its Redis is a replica of west's. */
  east: RegionSide
  /** The replication from west to east, the one from east to west after a promotion, and the requests from east to west. */
  replication: TcpLink
  backwards: TcpLink
  requests: TcpLink
}

type Env = Record<string, string>

/** Two regions in miniature: two Redis servers, one the replica of the other, and a built service before each. Closed with the test. */
export async function startTwoRegions (t: Test, program: string, { delayMs = 0, both = {}, west = {}, east = {}, redisArgs = [] as string[] }: { delayMs?: number, both?: Env, west?: Env, east?: Env, redisArgs?: string[] } = {}): Promise<TwoRegions> {
  const upstream = await startStubUpstream()
  upstream.behave('identity', { json: { entitled: true } })
  const args = ['--repl-diskless-sync-delay', '0', ...redisArgs]
  const first = await startRedis({ program, args })
  t.teardown(async () => { await first.close() })
  const replication = await startTcpLink(first.port, delayMs)
  t.teardown(async () => { await replication.close() })
  const second = await startRedis({ program, args: [...args, '--replicaof', replication.host, String(replication.port)] })
  t.teardown(async () => { await second.close() })
  const backwards = await startTcpLink(second.port, delayMs)
  t.teardown(async () => { await backwards.close() })
  const [westPort, eastPort] = [await freePort(), await freePort()]
  const requests = await startTcpLink(westPort, delayMs)
  t.teardown(async () => { await Promise.all([requests.close(), upstream.close()]) })

  const admins = [first, second].map(({ host, port }) => {
    const admin = new Redis({ host, port, maxRetriesPerRequest: 0, retryStrategy: () => 50 })
    admin.on('error', () => { /* away on purpose */ })
    t.teardown(() => { admin.disconnect() })
    return admin
  })
  const [adminWest, adminEast] = admins
  if (adminWest === undefined || adminEast === undefined) throw new Error('no clients')
  await waitFor('the replica to be in step', async () => (await adminEast.info('replication')).includes('master_link_status:up'), 30_000)

  const common = { IDENTITY_URL: upstream.identityUrl, CONTENT_URL: upstream.contentUrl, UPSTREAM_DEADLINE: '10s', WRITER_DEADLINE: '5s', ...both }
  const serve = async (env: Env): Promise<ServiceProcess> => {
    const service = await startService({ ...common, ...env })
    t.teardown(async () => { await service.close() })
    return service
  }
  const [serviceWest, serviceEast] = await Promise.all([
    serve({ PORT: String(westPort), REDIS_URL: first.url, WRITER_URL: `http://127.0.0.1:${eastPort}`, ...west }),
    serve({ PORT: String(eastPort), REDIS_URL: second.url, WRITER_URL: `http://127.0.0.1:${requests.port}`, ...east })
  ])
  const regions = {
    upstream, replication, backwards, requests, west: { redis: first, admin: adminWest, service: serviceWest }, east: { redis: second, admin: adminEast, service: serviceEast }
  }
  await waitFor('the roles to be known', async () => await roleOf(serviceWest) === 'writer' && await roleOf(serviceEast) === 'reader', 30_000)
  await waitFor('the west to know that starts can be replicated', async () => (await metric(serviceWest, 'viewing_admission_replicated')) !== 0 || west.ADMISSION_DURABILITY === 'local', 30_000)
  return regions
}

export interface Answer { status: number, headers: Headers, body: Record<string, unknown> & { code?: string, playback_token?: string, session?: { session_id: string, status: string }, results?: Array<Record<string, unknown>> } }

/** One call of the API, or of any path that begins with `/health`. */
export async function call ({ url }: { url: string }, method: string, path: string, { token, body, headers = {} }: { token?: string | undefined, body?: object | string, headers?: Env } = {}): Promise<Answer> {
  const response = await fetch(`${url}${path.startsWith('/health') ? '' : '/api/playback'}${path}`, {
    method,
    headers: { ...(body === undefined || typeof body === 'string' ? {} : { 'content-type': 'application/json' }), ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) })
  })
  return { status: response.status, headers: response.headers, body: Object(await response.json()) }
}

export async function begin (service: { url: string }, user: string, { key, more = {}, token, headers = {} }: { key?: string, more?: object, token?: string, headers?: Env } = {}): Promise<Answer & { id: string, token: string }> {
  const answer = await call(service, 'POST', '/session', {
    token, body: { user_id: user, profile_id: 'p', content_id: 'content789', device_id: 'd', ...more }, headers: { ...(key === undefined ? {} : { 'idempotency-key': key }), ...headers }
  })
  return { ...answer, id: answer.body.session?.session_id ?? '', token: answer.body.playback_token ?? '' }
}

export async function roleOf (service: { url: string }): Promise<unknown> {
  return (await call(service, 'GET', '/health/ready')).body.role
}

/** A metric's value, summed over its series whose labels contain `labels`; 0 where there is none. */
export async function metric ({ url }: { url: string }, name: string, labels = ''): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text()
  return [...text.matchAll(new RegExp(`^${name}(\\{.*\\})? (\\S+)$`, 'gm'))].filter(([, found = '']) => found.includes(labels)).reduce((sum, [, , value]) => sum + Number(value), 0)
}

const SCRIPT = fileURLToPath(new URL('../../deploy/regions/promote.sh', import.meta.url))

/** Runs the promotion script. `until`: kills it (SIGKILL) as soon as its output matches. */
export async function promote (args: readonly string[], { until, env = {} }: { until?: RegExp, env?: Env } = {}): Promise<{ code: number | null, output: string }> {
  const child = spawn('bash', [SCRIPT, ...args], { env: { PATH: process.env.PATH ?? '', ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  track(child)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (until?.test(output) === true) child.kill('SIGKILL')
    })
  }
  await once(child, 'close')
  return { code: child.exitCode, output }
}
export const ends = ({ west, east, backwards }: Pick<TwoRegions, 'west' | 'east' | 'backwards'>): string[] =>
  ['--from', west.redis.address, '--to', east.redis.address, '--to-as', `${backwards.host}:${backwards.port}`]
