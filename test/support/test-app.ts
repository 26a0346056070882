import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { buildApp } from '../../src/app.ts'
import { loadConfig } from '../../src/config.ts'
import { createLogger } from '../../src/logger.ts'
import type { RedisTarget } from '../../src/config/redis-target.ts'
import type { EventLines } from '../../src/modules/event/event-sink.ts'
import type { PlaybackEvent } from '../../src/schemas.ts'
import { withUser } from './least-privilege.ts'
import { UNLIMITED } from './service-process.ts'
import { type StubUpstream, startStubUpstream } from './stub-upstream.ts'

export interface TestApp {
  app: FastifyInstance
  upstream: StubUpstream
  events: PlaybackEvent[]
  /** The lines of the log sink, as they are. */
  eventLines: string[]
  /** All log lines, for checks that nothing secret is in them. */
  log: string[]
}

/** The whole application in this process, on the given Redis, with real stub upstreams over HTTP. Closed with the test. */
export async function buildTestApp (t: Test, redisUrl: string, env: Record<string, string> = {}, given: { upstream?: StubUpstream, target?: RedisTarget, eventLines?: EventLines } = {}): Promise<TestApp> {
  const upstream = given.upstream ?? await startStubUpstream()
  const events: PlaybackEvent[] = []
  const eventLines: string[] = []
  const log: string[] = []
  const config = loadConfig({ ...withUser({ REDIS_URL: redisUrl }), IDENTITY_URL: upstream.identityUrl, CONTENT_URL: upstream.contentUrl, UPSTREAM_DEADLINE: '2s', ...UNLIMITED, ...env })
  const target = given.target ?? config.redis.target
  if (target === undefined) throw new Error('a test application needs a Redis')
  const app = await buildApp({
    config,
    version: '0.0.0-test',
    logger: createLogger({ level: 'info', format: config.log.format }, false, { write: line => { log.push(line) } }),
    connect: { target, commandTimeoutMs: config.redis.commandTimeoutMs },
    identityUrl: upstream.identityUrl,
    contentUrl: upstream.contentUrl,
    eventLines: given.eventLines ?? {
      write: line => {
        eventLines.push(line)
        events.push((JSON.parse(line) as { event: PlaybackEvent }).event)
        return true
      },
      written: async () => {}
    },
    draining: () => false
  })
  await app.ready()
  t.teardown(async () => {
    await app.close()
    if (given.upstream === undefined) await upstream.close()
  })
  return { app, upstream, events, eventLines, log }
}

let users = 0
/** A user id no other test uses. */
export function newUser (): string {
  return `user-${process.pid}-${Date.now().toString(36)}-${users++}`
}

export interface StartBody { session: { session_id: string, status: string, position: number }, playback_token: string, concurrency: { active: number, limit: number } }

/** One start; `body` and `headers` add to a plain request of the user. */
export async function start (app: FastifyInstance, userId: string, body: Record<string, unknown> = {}, headers: Record<string, string> = {}) {
  const response = await app.inject({
    method: 'POST',
    url: '/api/playback/session',
    headers,
    payload: { user_id: userId, profile_id: 'profile456', content_id: 'content789', device_id: 'device101', ...body }
  })
  return { status: response.statusCode, headers: response.headers, body: response.json<StartBody & Record<string, never>>() }
}

/** One call on a session with its playback token. */
export async function call (app: FastifyInstance, method: 'GET' | 'POST' | 'DELETE', path: string, token: string | undefined, payload?: object) {
  const response = await app.inject({
    method,
    url: `/api/playback${path}`,
    headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    ...(payload === undefined ? {} : { payload })
  })
  return { status: response.statusCode, headers: response.headers, body: response.json<Record<string, never>>() }
}
