import underPressure from '@fastify/under-pressure'
import fp from 'fastify-plugin'
import { ProblemError } from '../problems.ts'

/**
 * How dear a request is when the process is overloaded, in the order in which requests are refused: starts first, then reads
 * and heartbeats, and endings never, because they free capacity. Set by a route in `config.load`; else `read` for the API. Health, metrics and
 * the document are never refused: an overloaded process has to stay visible.
 */
export type LoadClass = 'start' | 'read' | 'heartbeat' | 'never'

declare module 'fastify' {
  interface FastifyContextConfig { load?: LoadClass }
}

/** Event-loop delay from which a class is refused, ms. */
const LIMITS: Record<LoadClass, number> = { start: 500, read: 1_000, heartbeat: 2_000, never: Infinity }

export default fp<{ shed: (kind: LoadClass) => void }>(async function overload (fastify, { shed }) {
  await fastify.register(underPressure, {
    maxEventLoopDelay: LIMITS.start,
    pressureHandler: (request, _reply, _type, value) => {
      const { config, url } = request.routeOptions
      const kind = config.load ?? (url?.startsWith('/api/') === true ? 'read' : 'never')
      if ((value ?? 0) <= LIMITS[kind]) return
      shed(kind)
      throw new ProblemError('overloaded', 'The service takes less work now; try again shortly.', { retryAfterSeconds: 1 + Math.floor(Math.random() * 3) })
    }
  })
}, { name: 'overload' })
