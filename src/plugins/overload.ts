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

const SAMPLE_MS = 1_000

export default fp<{ shed: (kind: LoadClass) => void }>(async function overload (fastify, { shed }) {
  // Without limits of its own it only measures: its hook asks for `routeOptions` each time, which Fastify makes anew (5 % of a heartbeat).
  await fastify.register(underPressure, { sampleInterval: SAMPLE_MS })
  let countsFromMs = Infinity
  fastify.addHook('onReady', async () => { countsFromMs = performance.now() + 2 * SAMPLE_MS })
  fastify.addHook('onRequest', (request, _reply, done) => {
    const { eventLoopDelay } = fastify.memoryUsage()
    // Infinity: nothing was measured yet. Nor is a process overloaded because its start took long: that would be the first thing its viewers read.
    if (eventLoopDelay <= LIMITS.start || eventLoopDelay === Infinity || performance.now() < countsFromMs) {
      done()
      return
    }
    const { config, url } = request.routeOptions
    const kind = config.load ?? (url?.startsWith('/api/') === true ? 'read' : 'never')
    if (eventLoopDelay <= LIMITS[kind]) {
      done()
      return
    }
    shed(kind)
    done(new ProblemError('overloaded', 'The service takes less work now; try again shortly.', { retryAfterSeconds: 1 + Math.floor(Math.random() * 3) }))
  })
}, { name: 'overload' })
