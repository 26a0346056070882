import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { createSigner } from 'fast-jwt'
import { Redis } from 'ioredis'
import { readScript } from '../src/redis/scripts.ts'
import { startRedis, type RedisServer } from '../test/support/redis-server.ts'
import { fill } from './fill.ts'
import type { Request } from './load.ts'
import { launch, type Measured } from './processes.ts'

/** What is asked of the service, with sessions, tokens and users that differ from request to request. */

export interface Scenario {
  name: string
  url: string
  pids: () => number[]
  redis: RedisServer
  requests: readonly Request[]
  /** Heartbeats or tokens in one request. */
  units: number
  /** Before each round. */
  prepare?: () => Promise<void>
}

export interface World { scenarios: Scenario[], close: () => Promise<void> }
export interface WorldOptions {
  redisProgram: string
  /** Live sessions that heartbeats and validations are spread over. */
  sessions: number
  /** Further live sessions that nobody asks about during the run. */
  fill: number
  wanted: (name: string) => boolean
  /** Program of the Go peer, where it could be built. */
  peer: string | undefined
  /** Root of another build to measure beside this one. */
  against: string | undefined
  /** Environment of that other build alone. */
  againstEnv?: Record<string, string>
}

const BATCH = 100
const USERS = 20_000
const PROFILES = 5
const SECRET = 'bench-playback-key-of-more-than-thirty-two-bytes'
const ACCESS = { AUTH_MODE: 'jwt', AUTH_JWT_SECRET: 'bench-access-key-of-more-than-thirty-two-bytes', AUTH_ISSUER: 'https://id.example', AUTH_AUDIENCE: 'playback' }
const JSON_TYPE = { 'content-type': 'application/json' }
const API = '/api/playback'

const sign = createSigner({ key: ACCESS.AUTH_JWT_SECRET, algorithm: 'HS256', expiresIn: 86_400_000, iss: ACCESS.AUTH_ISSUER, aud: ACCESS.AUTH_AUDIENCE })
const accessToken = (user: string): Record<string, string> => ({ authorization: `Bearer ${sign({ sub: user })}` })
const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
/** Flags of Node for what is measured, as `BENCH_NODE_FLAGS=--cpu-prof`. */
const FLAGS = (process.env.BENCH_NODE_FLAGS ?? '').split(' ').filter(flag => flag !== '')
/** As the image starts it. */
const OWN_FLAGS = ['--enable-source-maps', '--min-semi-space-size=16', '--max-semi-space-size=16', '--no-parallel-scavenge', '--heap-growing-percent=50']
const node = (program: string): string[] => [process.execPath, ...OWN_FLAGS, ...FLAGS, program]

const start = (user: string, profile: string, more: object = {}): Request => ({
  method: 'POST',
  path: `${API}/session`,
  headers: { ...JSON_TYPE, ...accessToken(user) },
  body: JSON.stringify({ user_id: user, profile_id: profile, content_id: 'content789', device_id: 'television-4711', ...more })
})

/** After the first few of a user each ends his oldest session. */
const takeOver = (user: string): Request => start(`evening-${user}`, 'profile-1', { on_limit: 'supersede_oldest' })

interface Live { id: string, token: string, user: string }

async function startSessions (url: string, count: number): Promise<Live[]> {
  const made: Live[] = []
  for (let from = 0; from < count; from += 64) {
    made.push(...await Promise.all(Array.from({ length: Math.min(64, count - from) }, async (_, index) => {
      const user = `viewer-${from + index}`
      const { path, method, headers, body = '' } = start(user, 'profile-1')
      const answer = await fetch(url + path, { method, headers, body })
      if (answer.status !== 201) throw new Error(`start: ${answer.status} ${await answer.text()}`)
      const { session, playback_token: token } = await answer.json() as { session: { session_id: string }, playback_token: string }
      return { id: session.session_id, token, user }
    })))
  }
  return made
}

const chunks = <T>(items: readonly T[], size: number): T[][] => Array.from({ length: Math.floor(items.length / size) }, (_, at) => items.slice(at * size, at * size + size))
const post = (path: string, body: unknown, headers: Record<string, string> = {}): Request => ({ method: 'POST', path: `${API}${path}`, headers: { ...JSON_TYPE, ...headers }, body: JSON.stringify(body) })

/** Everything that is measured, running. */
export async function buildWorld ({ redisProgram, sessions, fill: filled, wanted, peer, against, againstEnv = {} }: WorldOptions): Promise<World> {
  const running: Array<{ close: () => Promise<void> }> = []
  const keep = <T extends { close: () => Promise<void> }>(one: T): T => { running.push(one); return one }
  const steady = keep(await startRedis({ program: redisProgram }))
  const fresh = keep(await startRedis({ program: redisProgram }))
  const upstream = keep(await launch(node(here('upstream.ts')), {}))
  const service = async (root: string, redis: RedisServer, workers: number): Promise<Measured> => keep(await launch(node(`${root}/dist/server.js`), {
    ...ACCESS,
    JWT_SECRET: SECRET,
    REDIS_URL: redis.url,
    IDENTITY_URL: upstream.url,
    CONTENT_URL: upstream.url,
    UPSTREAM_DEADLINE: '2s',
    DECISION_FRESH: '2s',
    SESSION_TIMEOUT: '1h',
    SESSION_TTL: '24h',
    // On, and out of the way: the generator is more eager than any viewer.
    USER_RATE_LIMIT: '60000',
    HEARTBEAT_MIN_GAP: '1ms',
    WORKERS: String(workers),
    ...(root === against ? againstEnv : {})
  }))

  const floor = keep(await launch(node(here('floor.ts')), {}))
  const scenarios: Scenario[] = [{ name: 'floor', url: floor.url, pids: floor.pids, redis: steady, requests: [{ method: 'POST', path: '/', headers: JSON_TYPE, body: '{"position":1}' }], units: 1 }]

  // A service that has served starts is dearer afterwards: one of its own makes the sessions, so that builds are compared in the same state.
  const seeder = await service(here('..'), steady, 1)
  const live = await startSessions(seeder.url, sessions)
  await seeder.close()
  await fill(steady.url, filled)
  const lists: Record<string, { requests: Request[], units: number }> = {
    heartbeat: { units: 1, requests: live.map(({ id, token }, position) => post(`/session/${id}/heartbeat`, { position }, { authorization: `Bearer ${token}` })) },
    'heartbeats by 100': { units: BATCH, requests: chunks(live, BATCH).map(chunk => post('/heartbeats', { heartbeats: chunk.map(({ token }, position) => ({ playback_token: token, position })) })) },
    validate: { units: 1, requests: live.map(({ token }) => post('/token/validate', { token })) },
    'validate by 100': { units: BATCH, requests: chunks(live, BATCH).map(chunk => post('/token/validate', { tokens: chunk.map(({ token }) => token) })) },
    'validate by 100, live:false': { units: BATCH, requests: chunks(live, BATCH).map(chunk => post('/token/validate', { tokens: chunk.map(({ token }) => token), live: false })) },
    // An evening: of 100 requests 85 are heartbeats, 10 validations, 5 starts, which take the place of the user's oldest session.
    mixed: {
      units: 1,
      requests: live.flatMap(({ id, token, user }, at) => [
        post(`/session/${id}/heartbeat`, { position: at }, { authorization: `Bearer ${token}` }),
        ...(at % 17 < 2 ? [post('/token/validate', { token })] : []),
        ...(at % 17 === 0 ? [takeOver(user)] : [])
      ])
    },
    'take-over': { units: 1, requests: live.map(({ user }) => takeOver(user)) },
    concurrency: { units: 1, requests: live.map(({ user }) => ({ method: 'GET', path: `${API}/concurrency/${user}`, headers: accessToken(user) })) }
  }
  /** The floor, with what a heartbeat has beside it added step by step: what the rest of the service costs is the difference. */
  const steps: Record<string, Record<string, string>> = {
    'floor, 2 workers': { WORKERS: '2' },
    'floor, plain requests': { PLAIN: '1' },
    'floor, plain requests, 2 workers': { PLAIN: '1', WORKERS: '2' },
    'floor, plain requests and Redis': { PLAIN: '1', REDIS: steady.address },
    'floor, Redis': { REDIS: steady.address },
    'floor, plain requests and Redis, 2 workers': { PLAIN: '1', REDIS: steady.address, WORKERS: '2' }
  }
  for (const [name, env] of Object.entries(steps).filter(([name]) => wanted(name))) {
    const { url, pids } = keep(await launch(node(here('floor.ts')), env))
    scenarios.push({ name, url, pids, redis: steady, ...(lists.heartbeat ?? { requests: [], units: 1 }) })
  }
  const builds: Array<{ root: string, suffix: string }> = [{ root: here('..'), suffix: '' }, ...(against === undefined ? [] : [{ root: against, suffix: ' (other)' }])]
  for (const { root, suffix } of builds) {
    for (const workers of [1, 2]) {
      const name = (what: string): string => `${what}${workers === 1 ? '' : `, ${workers} workers`}${suffix}`
      const steadyNames = Object.keys(lists).filter(what => wanted(name(what)))
      if (steadyNames.length > 0) {
        const { url, pids } = await service(root, steady, workers)
        for (const what of steadyNames) scenarios.push({ name: name(what), url, pids, redis: steady, ...(lists[what] ?? { requests: [], units: 1 }) })
      }
      if (!wanted(name('create'))) continue
      const { url, pids } = await service(root, fresh, workers)
      const requests = Array.from({ length: PROFILES }, (_, profile) => profile).flatMap(profile => Array.from({ length: USERS }, (_, user) => start(`starter-${user}`, `profile-${profile}`)))
      scenarios.push({ name: name('create'), url, pids, redis: fresh, requests, units: 1, prepare: async () => { await flush(fresh) } })
    }
  }
  if (peer !== undefined && wanted('heartbeat, Go')) {
    const script = readScript('heartbeat')
    const redis = new Redis(steady.url)
    await redis.script('LOAD', script)
    redis.disconnect()
    const go = keep(await launch([peer], { REDIS: steady.address, JWT_SECRET: SECRET, SCRIPT_SHA: createHash('sha1').update(script).digest('hex') }))
    scenarios.push({ name: 'heartbeat, Go net/http', url: go.url, pids: go.pids, redis: steady, ...(lists.heartbeat ?? { requests: [], units: 1 }) })
  }
  return { scenarios, close: async () => { for (const one of running.reverse()) await one.close() } }
}

async function flush (server: RedisServer): Promise<void> {
  const redis = new Redis(server.url)
  await redis.flushall()
  redis.disconnect()
}
