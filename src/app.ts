import cors from '@fastify/cors'
import { randomUUID } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import Fastify, { type FastifyBaseLogger, type FastifyInstance } from 'fastify'
import type { Config } from './config.ts'
import { RequestLog, requestLogger } from './logger.ts'
import concurrency from './modules/concurrency/index.ts'
import entitlement from './modules/entitlement/index.ts'
import event from './modules/event/index.ts'
import type { EventLines } from './modules/event/event-sink.ts'
import lifecycle from './modules/lifecycle/index.ts'
import session from './modules/session/index.ts'
import token from './modules/token/index.ts'
import answerHeaders from './plugins/answer-headers.ts'
import auth from './plugins/auth.ts'
import gauges from './plugins/gauges.ts'
import metrics from './plugins/metrics.ts'
import overload from './plugins/overload.ts'
import plainHttp from './plugins/plain-http.ts'
import problemDetails, { clientErrorHandler, frameworkErrors } from './plugins/problem-details.ts'
import rateLimit from './plugins/rate-limit.ts'
import redis from './plugins/redis.ts'
import swagger from './plugins/swagger.ts'
import sweep from './plugins/sweep.ts'
import upstream from './plugins/upstream.ts'
import type { ConnectOptions } from './redis/connect.ts'
import concurrencyRoutes from './routes/concurrency.ts'
import heartbeatsRoutes from './routes/heartbeats.ts'
import operationsRoutes from './routes/operations.ts'
import sessionRoutes from './routes/session.ts'
import startRoutes from './routes/start.ts'
import tokenRoutes from './routes/token.ts'
import { SHARED_SCHEMAS } from './schemas.ts'

export interface AppOptions {
  config: Config
  version: string
  logger: FastifyBaseLogger
  /** Where Redis and the upstream services are: as configured, or embedded. */
  connect: ConnectOptions
  identityUrl: string
  contentUrl: string
  /** Where events without a broker are written. */
  eventLines: EventLines
  draining: () => boolean
  aggregateMetrics?: () => Promise<string>
}

const API = '/api/playback'
/** Largest body of all routes but the two batch routes, bytes. */
const BODY_BYTES = 16 * 1024
/** A request has to be here in full by then, ms; 408 else. */
const REQUEST_MS = 10_000
/**
 * Lengths count as JavaScript has them (`unicode: false`), not by a loop over the characters, which was a quarter of a batch's cost: every text
 * with a bound is ASCII, or wrong anyway. The option is marked as deprecated in Ajv 8, and the warning of that is all that is kept from the log.
 */
const AJV_OPTIONS = {
  coerceTypes: false,
  removeAdditional: false,
  useDefaults: false,
  multipleOfPrecision: 4,
  unicode: false,
  logger: { ...console, warn: (text: string) => { if (!text.startsWith('DEPRECATED: option unicode.')) console.warn(text) } }
} as const
const REQUEST_ID = /^[A-Za-z0-9._-]{1,64}$/

/** The caller's id where it is one; else this process and how manieth request: a UUID for each costs five times as much. */
function requestIds (): (request: { headers: IncomingHttpHeaders }) => string {
  const instance = randomUUID().slice(0, 8)
  let count = 0
  return ({ headers }) => {
    const given = headers['x-request-id']
    return typeof given === 'string' && REQUEST_ID.test(given) ? given : `${instance}-${(count++).toString(36)}`
  }
}

/** The composition root: what there is, in the order in which it starts; it closes in the reverse order. */
export async function buildApp (options: AppOptions): Promise<FastifyInstance> {
  const { config, version, connect, identityUrl, contentUrl, eventLines, draining } = options
  const { limit, timeoutMs, heartbeatMs, heartbeatGapMs, ttlMs, endedTtlMs, sweepMs } = config.session
  const policy = { defaultRegion: config.upstream.defaultRegion, trustProxy: config.http.trustProxy }
  const fastify: FastifyInstance = Fastify({
    loggerInstance: options.logger,
    logController: new RequestLog(),
    childLoggerFactory: requestLogger(config.log.format),
    genReqId: requestIds(),
    trustProxy: config.http.trustProxy.length > 0 ? [...config.http.trustProxy] : false,
    bodyLimit: BODY_BYTES,
    requestTimeout: REQUEST_MS,
    // Node looks every 30 s unless told: a socket that sends one byte a minute would live that much longer.
    http: { headersTimeout: REQUEST_MS, connectionsCheckingInterval: 1_000 },
    keepAliveTimeout: 65_000,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    routerOptions: { maxParamLength: 512 },
    ajv: { customOptions: AJV_OPTIONS },
    clientErrorHandler,
    frameworkErrors
  })
  fastify.removeContentTypeParser('text/plain')
  await fastify.register(plainHttp, { prefix: `${API}/`, maxBodyBytes: BODY_BYTES, requestMs: REQUEST_MS })
  for (const schema of SHARED_SCHEMAS) fastify.addSchema(schema)

  await fastify.register(problemDetails)
  // Loaded only when it is wanted: its packages cost memory and start-up time.
  const tracing = config.tracing === undefined ? undefined : await import('./plugins/tracing.ts')
  if (tracing !== undefined && config.tracing !== undefined) await fastify.register(tracing.default, { ...config.tracing, version })
  await fastify.register(metrics, { version, aggregate: options.aggregateMetrics })
  const { measure } = fastify
  await fastify.register(overload, { shed: measure.shed })
  await fastify.register(answerHeaders, { draining })
  if (config.http.corsOrigins.length > 0) {
    await fastify.register(cors, { origin: config.http.corsOrigins.includes('*') ? '*' : [...config.http.corsOrigins], methods: ['GET', 'POST', 'DELETE'], exposedHeaders: ['retry-after', 'x-request-id', 'location'], maxAge: 600 })
  }
  await fastify.register(swagger, { version })

  await fastify.register(redis, { config, connect })
  await fastify.register(rateLimit, { ...config.rateLimit, limited: () => { measure.limited('user') } })
  await fastify.register(sweep, { sweepMs })
  await fastify.register(upstream, { identityUrl, contentUrl, deadlineMs: config.upstream.deadlineMs })

  await fastify.register(event, {
    sink: config.event.sink,
    heartbeats: config.event.heartbeats,
    lines: eventLines,
    lineFormat: config.log.format === 'ecs' ? 'ecs' : 'json',
    outboxBytes: config.event.outboxBytes,
    traceHeaders: tracing?.traceHeaders,
    observer: { sent: measure.eventSent, dropped: measure.eventDropped, lost: measure.eventsLost, failed: measure.eventFailed }
  })
  await fastify.register(session, { endedTtlMs, heartbeatGapMs })
  await fastify.register(entitlement, {
    freshMs: config.upstream.freshMs,
    staleMs: config.upstream.staleMs,
    onCall: call => { measure.upstreamCalled(call.upstream, call.result, call.durationSeconds) },
    onLookup: lookup => { measure.decisionLookedUp(lookup.upstream, lookup.source) }
  })
  await fastify.register(concurrency, { timeoutMs, ttlMs, endedTtlMs })
  await fastify.register(token, { ...config.token, onIssued: measure.tokenIssued, onRejected: measure.tokenRejected })
  await fastify.register(lifecycle, {
    limit,
    timeoutMs,
    heartbeatMs,
    ttlMs,
    endedTtlMs,
    tokenLifeMs: config.token.lifeSeconds * 1_000,
    idempotencySecret: config.idempotencySecret,
    observer: { started: measure.sessionStarted, ended: measure.sessionEnded, refused: measure.startRefused, tooSoon: () => { measure.limited('session') } }
  })
  await fastify.register(auth, { auth: config.auth, nowMs: () => fastify.store.clock.nowMs() })
  await fastify.register(gauges)
  // Loaded only where there is a second region; its wrappers go round the routes that come after it.
  if (config.region !== undefined) {
    const { default: region } = await import('./plugins/region.ts')
    await fastify.register(region, { ...config.region, policy, traced: tracing !== undefined })
  }

  await fastify.register(operationsRoutes, { draining })
  await fastify.register(startRoutes, { prefix: `${API}/session`, region: policy })
  await fastify.register(sessionRoutes, { prefix: `${API}/session` })
  await fastify.register(heartbeatsRoutes, { prefix: API })
  await fastify.register(tokenRoutes, { prefix: `${API}/token` })
  await fastify.register(concurrencyRoutes, { prefix: `${API}/concurrency` })
  return fastify
}
