import fp from 'fastify-plugin'
import { Lifecycle, type LifecycleObserver } from './lifecycle.ts'
import { Reaper } from './reaper.ts'
import { Starter } from './start.ts'

declare module 'fastify' {
  interface FastifyInstance {
    lifecycle: Lifecycle
    starter: Starter
    reaper: Reaper
  }
}

export interface LifecycleOptions {
  limit: number
  timeoutMs: number
  heartbeatMs: number
  ttlMs: number
  endedTtlMs: number
  tokenLifeMs: number
  idempotencySecret: string
  observer: LifecycleObserver
}

export default fp<LifecycleOptions>(async function lifecycle (fastify, options) {
  const { sessions, slots, entitlements, tokens, events, store } = fastify
  const parts = { sessions, slots, entitlements, tokens, events, clock: store.clock, pulse: store.pulse, ...options }
  const reaper = new Reaper({
    client: store.client,
    clock: store.clock,
    pulse: store.pulse,
    timeoutMs: options.timeoutMs,
    ttlMs: options.ttlMs,
    endedTtlMs: options.endedTtlMs,
    publish: entries => { events.publish(entries) },
    expired: () => { options.observer.ended('expired') }
  })
  fastify.decorate('lifecycle', new Lifecycle(parts))
  fastify.decorate('starter', new Starter(parts, options.idempotencySecret))
  fastify.decorate('reaper', reaper)
  fastify.addSweepTask({ name: 'reaper', run: async slots => { await reaper.run(slots) } })
}, { name: 'lifecycle', dependencies: ['session', 'entitlement', 'concurrency', 'token', 'event', 'sweep'] })
