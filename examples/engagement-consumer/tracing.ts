import { context, propagation, ROOT_CONTEXT, SpanKind } from '@opentelemetry/api'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { resourceFromAttributes } from '@opentelemetry/resources'
import { BatchSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace'

export interface Traced {
  /** Does the work in a span that continues the trace in the record's headers; a record without one begins its own. */
  process: (topic: string, headers: Readonly<Record<string, unknown>>, work: () => void) => void
  close: () => Promise<void>
}

/** Loaded only where a receiver (OTLP over HTTP) is configured. */
export function startTracing (endpoint: string): Traced {
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.name': 'engagement-consumer' }),
    spanProcessors: [new BatchSpanProcessor({ exporter: new OTLPTraceExporter({ url: `${endpoint.replace(/\/$/, '')}/v1/traces` }), scheduledDelayMillis: 1_000 })]
  })
  propagation.setGlobalPropagator(new W3CTraceContextPropagator())
  const tracer = provider.getTracer('engagement-consumer')
  return {
    process (topic, headers, work) {
      const parent = propagation.extract(ROOT_CONTEXT, { traceparent: String(headers.traceparent ?? ''), tracestate: String(headers.tracestate ?? '') })
      const span = tracer.startSpan(`process ${topic}`, {
        kind: SpanKind.CONSUMER,
        attributes: { 'messaging.system': 'kafka', 'messaging.destination.name': topic, 'messaging.operation.type': 'process' }
      }, parent)
      try {
        context.with(parent, work)
      } finally {
        span.end()
      }
    },
    close: async () => { await provider.shutdown().catch(() => { /* a receiver that is away must not hold up the end */ }) }
  }
}
