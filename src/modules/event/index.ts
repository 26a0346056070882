import type { FastifyBaseLogger } from 'fastify'
import fp from 'fastify-plugin'
import type { EventSinkConfig } from '../../config.ts'
import { EventRelay, type HeartbeatSampling, type RelayObserver } from './event-relay.ts'
import { OutboxCapacity, type OutboxLevel } from './outbox-capacity.ts'
import { type EventLines, type EventSink, type LineFormat, LogSink } from './event-sink.ts'

declare module 'fastify' {
  interface FastifyInstance {
    events: EventRelay
    eventSink: EventSink
    outboxLevel: () => OutboxLevel
  }
}

export interface EventOptions {
  sink: EventSinkConfig
  heartbeats: HeartbeatSampling
  /** Where the log sink writes. */
  lines: EventLines
  lineFormat: LineFormat
  /** Bytes per shard for events not yet delivered. */
  outboxBytes: number
  observer: RelayObserver
  traceHeaders?: (() => Record<string, string>) | undefined
}

/** Loaded only where it is used: its client is 5 MB. */
async function kafkaSink (to: Extract<EventSinkConfig, { kind: 'kafka' }>, log: FastifyBaseLogger): Promise<EventSink> {
  const { KafkaSink } = await import('./kafka-sink.ts')
  return new KafkaSink({
    ...to,
    clientId: 'viewing-service',
    log: {
      debug: (details, text) => { log.debug(details, text) },
      info: (details, text) => { log.info(details, text) },
      warn: (details, text) => { log.warn(details, text) }
    }
  })
}

export default fp<EventOptions>(async function event (fastify, { sink: to, heartbeats, lines, lineFormat, outboxBytes, observer, traceHeaders }) {
  const { client, clock } = fastify.store
  const sink = to.kind === 'log' ? new LogSink(lines, lineFormat) : await kafkaSink(to, fastify.log)
  const capacity = new OutboxCapacity({ client, maxBytes: outboxBytes, lost: observer.lost })
  const relay = new EventRelay({ client, clock, sink, heartbeats, capacity, observer, traceHeaders })
  fastify.decorate('eventSink', sink)
  fastify.decorate('events', relay)
  fastify.decorate('outboxLevel', () => capacity.level)
  fastify.addSweepTask({ name: 'left-over events', run: async slots => { await relay.shipLeftOvers(slots) } })
  fastify.addHook('onClose', async () => {
    await relay.drain()
    await sink.close()
  })
}, { name: 'event', dependencies: ['redis', 'sweep'] })
