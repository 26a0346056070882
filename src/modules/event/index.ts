import fp from 'fastify-plugin'
import { EventRelay, type RelayObserver } from './event-relay.ts'
import { type EventSink, LogSink, type WriteLine } from './event-sink.ts'

declare module 'fastify' {
  interface FastifyInstance {
    events: EventRelay
    eventSink: EventSink
  }
}

export interface EventOptions {
  /** Where the log sink writes. */
  writeLine: WriteLine
  observer: RelayObserver
}

export default fp<EventOptions>(async function event (fastify, { writeLine, observer }) {
  const { client, clock } = fastify.store
  const sink = new LogSink(writeLine)
  const relay = new EventRelay({ client, clock, sink, observer })
  fastify.decorate('eventSink', sink)
  fastify.decorate('events', relay)
  fastify.addSweepTask({ name: 'left-over events', run: async slots => { await relay.shipLeftOvers(slots) } })
  fastify.addHook('onClose', async () => {
    await relay.drain()
    await sink.close()
  })
}, { name: 'event', dependencies: ['redis', 'sweep'] })
