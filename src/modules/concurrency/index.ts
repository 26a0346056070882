import fp from 'fastify-plugin'
import { SlotStore } from './slot-store.ts'

declare module 'fastify' {
  interface FastifyInstance { slots: SlotStore }
}

export interface ConcurrencyOptions { timeoutMs: number, ttlMs: number, endedTtlMs: number }

export default fp<ConcurrencyOptions>(async function concurrency (fastify, options) {
  const { client, clock, admission, pulse } = fastify.store
  fastify.decorate('slots', new SlotStore({ client, clock, admission, pulse, ...options }))
}, { name: 'concurrency', dependencies: ['redis'] })
