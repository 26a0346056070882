import type { FastifyReply, FastifyRequest, RouteHandlerMethod } from 'fastify'
import fp from 'fastify-plugin'
import { ProblemError } from '../problems.ts'
import { FORWARDED, type RegionPolicy, vouchedRegion } from './auth.ts'
import { doubtfulFailure, doubtfulVerdicts, failedBeats, refusesWrites } from './region/doubt.ts'
import { type ForwardedAnswer, OtherRegion, type OtherRole } from './region/other-region.ts'
import { RegionRole } from './region/role.ts'

/** How this instance stands to the other region. */
export interface Region {
  role: () => 'writer' | 'reader'
  /** Whether a reader answers reads from its own Redis. */
  fresh: () => boolean
  other: () => OtherRole
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Only with `WRITER_URL`. */
    region?: Region
  }
  interface FastifyRequest {
    /** A token that authentication takes out of the body, and that the other region needs. */
    bodyToken: string | null
  }
}

export interface RegionOptions {
  writerUrl: string
  deadlineMs: number
  policy: RegionPolicy
  /** Traces are on: then their library writes the trace headers. */
  traced: boolean
}

const LOOK_MS = 1_000
/** Of a request, nothing else goes on: credentials, the retry key, the trace. */
const HEADERS = ['accept', 'authorization', 'idempotency-key', 'user-agent', 'x-gateway-secret', 'x-scope', 'x-user-id']
const TRACE_HEADERS = ['traceparent', 'tracestate']
/** Of an answer, what belongs to one connection, or what this instance says itself. */
const OWN_HEADERS = /^(connection|keep-alive|transfer-encoding|content-length|date|vary|access-control-.*)$/

type Result = 'answered' | 'failed' | 'unreachable' | 'refused'

/**
 * Two regions, one of which writes. Registered only with `WRITER_URL`. A reader answers reads from its replica and forwards the rest; what a lagging
 * replica cannot know it asks the writer. It wraps the handlers, so a request is validated and its credential checked before it goes anywhere.
 */
export default fp<RegionOptions>(async function region (fastify, { writerUrl, deadlineMs, policy, traced }) {
  const { store, log } = fastify
  const role = new RegionRole(store, log)
  const other = new OtherRegion({ url: writerUrl, deadlineMs })
  const forwarded = new fastify.metrics.client.Counter({ name: 'viewing_region_forwarded_total', help: 'Requests forwarded to the other region, by result.', labelNames: ['result'] })
  const gauge = (name: string, help: string, read: () => number): void => {
    // Of several workers the worst counts, not the sum.
    const own: { set: (value: number) => void } = new fastify.metrics.client.Gauge({ name, help, aggregator: 'max', collect: () => { own.set(read()) } })
  }
  gauge('viewing_region_writer', 'Whether this instance writes to its own Redis.', () => Number(!role.reading))
  gauge('viewing_region_other_writer', 'Whether the other region says that it writes.', () => Number(other.role === 'writer'))
  gauge('viewing_replication_lag_seconds', 'Since the replica of a reader last heard from its master; 0 for a writer.', () => role.silentSeconds)

  fastify.decorate('region', { role: () => role.reading ? 'reader' : 'writer', fresh: () => role.fresh, other: () => other.role })
  fastify.decorateRequest('bodyToken', null)
  fastify.addHook('preValidation', (request, _reply, done) => {
    const { playback_token: token }: Record<string, unknown> = { ...Object(request.body) }
    if (typeof token === 'string') request.bodyToken = token
    done()
  })

  async function forward (request: FastifyRequest, reply: FastifyReply, own: () => Promise<unknown>): Promise<unknown> {
    const count = (result: Result): void => { forwarded.inc({ result }) }
    if (request.headers[FORWARDED] !== undefined) {
      // The other region takes us for the writer. Either we have become it just now, or there is none: never send it round in a circle.
      await role.lookAgain()
      if (!role.reading) return await own()
      count('refused')
      throw new ProblemError('no-writer', 'Neither region takes writes now; the same request may be repeated.', { retryAfterSeconds: 1 })
    }
    let answer: ForwardedAnswer
    try {
      answer = await other.send({ method: request.method, path: request.url, headers: headersOf(request), body: bodyOf(request) })
    } catch (error) {
      count('unreachable')
      await role.lookAgain()
      throw new ProblemError('writer-unreachable', 'The region that takes writes did not answer; the same request may be repeated.', { retryAfterSeconds: 1, cause: error })
    }
    if (answer.status === 503 && answer.body.includes('"no-writer"')) {
      await role.lookAgain()
      if (!role.reading) return await own()
    }
    count(answer.status < 500 ? 'answered' : 'failed')
    reply.code(answer.status)
    for (const [name, value] of Object.entries(answer.headers)) if (value !== undefined && !OWN_HEADERS.test(name)) reply.header(name, value)
    return answer.body
  }

  function headersOf (request: FastifyRequest): Record<string, string> {
    const headers: Record<string, string> = { [FORWARDED]: '1', 'x-request-id': request.id, 'x-forwarded-for': request.ip }
    for (const name of traced ? HEADERS : [...HEADERS, ...TRACE_HEADERS]) {
      const value = request.headers[name]
      if (typeof value === 'string') headers[name] = value
    }
    if (request.body !== undefined && request.body !== null) headers['content-type'] = 'application/json'
    // What the player says of its region must not gain weight by passing through us: we judge it here, and the writer takes our word.
    if (operationOf(request) === 'createSession' && request.principal !== null) {
      headers['x-region'] = vouchedRegion(request, request.principal, Object(request.body).region, policy)
    }
    return headers
  }

  async function asWriter (request: FastifyRequest, reply: FastifyReply, own: () => Promise<unknown>): Promise<unknown> {
    try {
      const answer = await own()
      if (operationOf(request) !== 'recordHeartbeats' || !failedBeats(answer)) return answer
      await role.lookAgain()
      return role.reading ? await forward(request, reply, own) : answer
    } catch (error) {
      if (!refusesWrites(error)) throw error
      role.refused()
      return await forward(request, reply, own)
    }
  }

  async function asReader (request: FastifyRequest, reply: FastifyReply, own: () => Promise<unknown>): Promise<unknown> {
    const validation = operationOf(request) === 'validateToken'
    if (validation && Object(request.body).live === false) return await own()
    if (!role.fresh || !(validation || request.method === 'GET' || request.method === 'HEAD')) return await forward(request, reply, own)
    try {
      const answer = await own()
      if (!validation || !doubtfulVerdicts(request.body, answer, store.clock.nowMs())) return answer
    } catch (error) {
      if (!doubtfulFailure(error)) throw error
    }
    return await forward(request, reply, own)
  }

  const wrapped = new WeakSet<RouteHandlerMethod>()
  fastify.addHook('onRoute', route => {
    const { handler } = route
    // A HEAD route is made of its GET route and brings the handler that is wrapped already.
    if (!route.url.startsWith('/api/') || wrapped.has(handler)) return
    route.handler = async function (request, reply) {
      const own = async (): Promise<unknown> => await handler.call(this, request, reply)
      return role.reading ? await asReader(request, reply, own) : await asWriter(request, reply, own)
    }
    wrapped.add(route.handler)
  })

  const failed = (error: unknown): void => { log.error({ err: error }, 'Redis inspection failed') }
  store.client.on('ready', () => { role.look().catch(failed) })
  await Promise.all([role.look(), other.probe()])
  const timer = setInterval(() => { Promise.all([role.look(), other.probe()]).catch(failed) }, LOOK_MS)
  timer.unref()
  fastify.addHook('onClose', async () => {
    clearInterval(timer)
    await other.close()
  })
}, { name: 'region', dependencies: ['redis', 'metrics', 'auth'] })

const operationOf = ({ routeOptions: { schema } }: FastifyRequest): string | undefined => schema?.operationId

function bodyOf ({ body, bodyToken }: FastifyRequest): string | undefined {
  if (body === undefined || body === null) return undefined
  return JSON.stringify(bodyToken === null ? body : { ...Object(body), playback_token: bodyToken })
}
