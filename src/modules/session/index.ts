import fp from 'fastify-plugin'
import { SessionStore } from './session-store.ts'

declare module 'fastify' {
  interface FastifyInstance { sessions: SessionStore }
}

export interface SessionOptions { endedTtlMs: number, heartbeatGapMs: number }

export default fp<SessionOptions>(async function session (fastify, options) {
  const { client, clock } = fastify.store
  fastify.decorate('sessions', new SessionStore({ client, clock, ...options }))
}, { name: 'session', dependencies: ['redis'] })
