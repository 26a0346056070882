import fp from 'fastify-plugin'
import { ProblemError } from '../problems.ts'
import { UserRateLimit } from '../redis/rate-limit.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * Counts one request of that user, whoever makes it for him. Asked before anything dear, never for an ending or a heartbeat.
     * @throws ProblemError 429 when he has used up his requests; Redis errors.
     */
    countRequest: (userId: string) => Promise<void>
  }
}

export interface RateLimitOptions {
  /** Requests of one user per minute, and at once; 0: no limit. */
  perMinute: number
  limited: () => void
}

export default fp<RateLimitOptions>(async function rateLimit (fastify, { perMinute, limited }) {
  const { client, clock } = fastify.store
  const limit = perMinute === 0 ? undefined : new UserRateLimit({ client, clock, perMinute })
  fastify.decorate('countRequest', async userId => {
    // A reader of a second region cannot write to its Redis: what it forwards the writer counts, what it reads nobody does.
    if (limit === undefined || fastify.region?.role() === 'reader') return
    const waitMs = await limit.take(userId)
    if (waitMs === 0) return
    limited()
    throw new ProblemError('rate-limited', 'The user asks too often.', { retryAfterSeconds: Math.ceil(waitMs / 1_000) })
  })
}, { name: 'rate-limit', dependencies: ['redis'] })
