import { createHash } from 'node:crypto'
import { tracingChannel } from 'node:diagnostics_channel'
import { FastifyOtelInstrumentation } from '@fastify/otel'
import { context, propagation, type Span, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { UndiciInstrumentation } from '@opentelemetry/instrumentation-undici'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { BatchSpanProcessor, ParentBasedSampler, TraceIdRatioBasedSampler, TracerProvider } from '@opentelemetry/sdk-trace'
import fp from 'fastify-plugin'
import { readScript, SCRIPTS, type ScriptName } from '../redis/scripts.ts'

export interface TracingOptions {
  /** Base URL of the OTLP receiver (HTTP); `/v1/traces` is added. */
  endpoint: string
  serviceName: string
  version: string
  /** Share of the traces begun here that are kept, 0 to 1; a caller's decision is followed. */
  ratio: number
}

/** What an ioredis channel tells of a command (its `tracing.ts`). `args` may hold user ids and stay out of the spans. */
interface CommandMessage { command?: string, args?: string[], batchSize?: number, serverAddress?: string, serverPort?: number, error?: unknown }

/**
 * OpenTelemetry traces, sent by OTLP/HTTP. Loaded only when an endpoint is configured: switched off it costs nothing, not even its
 * memory. Spans hold routes, methods and script names, never ids of users or sessions.
 */
export default fp<TracingOptions>(async function tracing (fastify, { endpoint, serviceName, version, ratio }) {
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.name': serviceName, 'service.version': version }),
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(ratio) }),
    spanProcessors: [new BatchSpanProcessor({ exporter: new OTLPTraceExporter({ url: `${endpoint.replace(/\/$/, '')}/v1/traces` }) })]
  })
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  propagation.setGlobalPropagator(new W3CTraceContextPropagator())
  trace.setGlobalTracerProvider(provider)

  const http = new FastifyOtelInstrumentation({
    instrumentHooks: false,
    ignorePaths: ({ url }) => url.startsWith('/health') || url === '/metrics' || url.startsWith('/docs'),
    // The path names users and sessions; the route says all that a trace needs.
    requestHook: (span, { method, routeOptions: { url = 'unknown' } }) => { span.updateName(`${method} ${url}`).setAttribute('url.path', url) }
  })
  http.setTracerProvider(provider)
  await fastify.register(http.plugin())
  const upstream = new UndiciInstrumentation({
    requireParentforSpans: true,
    requestHook: (span, { path }) => { span.setAttributes({ 'url.full': '', 'url.query': '', 'url.path': path.split('?', 1)[0] ?? '' }) }
  })
  upstream.setTracerProvider(provider)
  const stopRedis = traceRedis(provider)

  fastify.addHook('onClose', async () => {
    stopRedis()
    upstream.disable()
    // An unreachable receiver must not hold up the end of the process.
    await Promise.race([provider.shutdown().catch(() => {}), new Promise(resolve => setTimeout(resolve, 2_000).unref())])
    trace.disable()
    propagation.disable()
    context.disable()
  })
}, { name: 'tracing' })

/** Headers that carry the trace of the running request to whoever reads them; none outside a request. */
export function traceHeaders (): Record<string, string> {
  const headers: Record<string, string> = {}
  propagation.inject(context.active(), headers)
  return headers
}

/** A span for each command of a request, by the client's own diagnostics channel; what runs outside requests has none. */
function traceRedis (provider: TracerProvider): () => void {
  const tracer = provider.getTracer('viewing-service/redis')
  const names = scriptNames()
  const spans = new WeakMap<object, Span>()
  const handlers = {
    start (message: object) {
      if (trace.getActiveSpan() === undefined) return
      const { command = '', args, batchSize, serverAddress, serverPort }: CommandMessage = message
      const name = names.get(args?.[0] ?? '') ?? command.toUpperCase()
      spans.set(message, tracer.startSpan(`redis ${name}`, {
        kind: SpanKind.CLIENT,
        attributes: {
          'db.system.name': 'redis',
          'db.operation.name': name,
          ...(batchSize === undefined ? {} : { 'db.operation.batch.size': batchSize }),
          ...(serverAddress === undefined ? {} : { 'server.address': serverAddress, 'server.port': serverPort ?? 0 })
        }
      }))
    },
    end () {},
    asyncStart () {},
    asyncEnd (message: object) { spans.get(message)?.end() },
    error (message: object) {
      const { error }: CommandMessage = message
      spans.get(message)?.setStatus({ code: SpanStatusCode.ERROR, message: error instanceof Error ? error.name : 'error' })
    }
  }
  const channel = tracingChannel<object, object>('ioredis:command')
  channel.subscribe(handlers)
  return () => { channel.unsubscribe(handlers) }
}

/** By what a script goes over the wire, its SHA-1 (EVALSHA) or its text (EVAL), to its name. */
function scriptNames (): Map<string, ScriptName> {
  const names = new Map<string, ScriptName>()
  for (const name of Object.keys(SCRIPTS).filter((key): key is ScriptName => key in SCRIPTS)) {
    for (const text of [readScript(name, { shebang: true }), readScript(name, { shebang: false })]) {
      names.set(text, name).set(createHash('sha1').update(text).digest('hex'), name)
    }
  }
  return names
}
