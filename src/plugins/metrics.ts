import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import fastifyMetrics from 'fastify-metrics'
import type { ProblemCode } from '../problems.ts'
import { RouteDurations } from './route-durations.ts'

/** The service's own measurements; labels are bounded, never an id of a user or session. */
export interface Measurements {
  sessionStarted: () => void
  sessionEnded: (reason: string) => void
  startRefused: (code: ProblemCode | string) => void
  upstreamCalled: (upstream: string, result: string, seconds: number) => void
  decisionLookedUp: (upstream: string, result: string) => void
  eventSent: (type: string, count: number) => void
  eventDropped: (type: string, count: number) => void
  eventsLost: (events: number) => void
  eventFailed: () => void
  tokenIssued: () => void
  tokenRejected: (reason: string) => void
  shed: (kind: string) => void
  limited: (kind: 'user' | 'session') => void
  /** Registers gauges that are read when metrics are scraped. */
  gauge: (name: string, help: string, read: () => number) => void
}

declare module 'fastify' {
  interface FastifyInstance { measure: Measurements }
}

export interface MetricsOptions {
  version: string
  /** Metrics of all workers, when this is one of several. */
  aggregate: (() => Promise<string>) | undefined
}

/** From 1 ms: the targets are 10 to 100 ms. */
const BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5]

export default fp<MetricsOptions>(async function metrics (fastify, { version, aggregate }) {
  await fastify.register(fastifyMetrics.default, {
    endpoint: null,
    clearRegisterOnInit: true,
    routeMetrics: { enabled: false }
  })
  const durations = new RouteDurations('http_request_duration_seconds', 'Requests by method, route and status.', BUCKETS)
  fastify.addHook('onRoute', route => {
    const [method = ''] = [route.method].flat()
    if (method === 'HEAD' || method === 'OPTIONS') return
    const observe = durations.forRoute(method, route.url)
    route.onResponse = [...[route.onResponse ?? []].flat(), (_request: FastifyRequest, reply: FastifyReply, done: () => void) => {
      observe(reply.statusCode, reply.elapsedTime / 1_000)
      done()
    }]
  })
  const { client } = fastify.metrics
  const counter = <Label extends string>(name: string, help: string, ...labelNames: Label[]) => new client.Counter({ name, help, labelNames })
  const started = counter('viewing_sessions_started_total', 'Sessions admitted.')
  const ended = counter('viewing_sessions_ended_total', 'Sessions ended, by reason.', 'reason')
  const refused = counter('viewing_starts_refused_total', 'Starts refused, by problem code.', 'code')
  const upstream = new client.Histogram({
    name: 'viewing_upstream_duration_seconds', help: 'Calls to the identity and content services.', labelNames: ['upstream', 'result'], buckets: BUCKETS
  })
  const lookups = counter('viewing_decision_lookups_total', 'Entitlement and availability lookups, by where the answer came from.', 'upstream', 'result')
  const sent = counter('viewing_events_sent_total', 'Events acknowledged by the sink.', 'type')
  const dropped = counter('viewing_events_dropped_total', 'Heartbeat events dropped under pressure.', 'type')
  const lost = counter('viewing_events_lost_total', 'Events given up because the outbox was past its capacity.')
  const failed = counter('viewing_event_failures_total', 'Failed attempts to ship or remove events; they are tried again.')
  const issued = counter('viewing_tokens_issued_total', 'Playback tokens issued.')
  const rejected = counter('viewing_tokens_rejected_total', 'Playback tokens refused, by reason.', 'reason')
  const shed = counter('viewing_requests_shed_total', 'Requests refused under overload.', 'kind')
  const limited = counter('viewing_requests_limited_total', 'Requests and heartbeats refused by a rate limit.', 'kind')
  const build = new client.Gauge({ name: 'viewing_build_info', help: 'Version of the service.', labelNames: ['version', 'node'] })
  build.set({ version, node: process.version }, 1)

  fastify.decorate('measure', {
    sessionStarted: () => { started.inc() },
    sessionEnded: reason => { ended.inc({ reason }) },
    startRefused: code => { refused.inc({ code }) },
    upstreamCalled: (name, result, seconds) => { upstream.observe({ upstream: name, result }, seconds) },
    decisionLookedUp: (name, result) => { lookups.inc({ upstream: name, result }) },
    eventSent: (type, count) => { sent.inc({ type }, count) },
    eventDropped: (type, count) => { dropped.inc({ type }, count) },
    eventsLost: events => { lost.inc(events) },
    eventFailed: () => { failed.inc() },
    tokenIssued: () => { issued.inc() },
    tokenRejected: reason => { rejected.inc({ reason }) },
    shed: kind => { shed.inc({ kind }) },
    limited: kind => { limited.inc({ kind }) },
    gauge: (name, help, read) => {
      const gauge: { set: (value: number) => void } = new client.Gauge({ name, help, collect: () => { gauge.set(read()) } })
    }
  })

  fastify.get('/metrics', {
    schema: {
      operationId: 'getMetrics',
      tags: ['operations'],
      summary: 'Prometheus metrics',
      response: { 200: { description: 'Prometheus text format.', content: { 'text/plain': { schema: { type: 'string' } } } } }
    },
    logLevel: 'warn'
  }, async (_request, reply) => {
    reply.header('content-type', client.register.contentType)
    return await (aggregate?.() ?? client.register.metrics())
  })
}, { name: 'metrics' })
