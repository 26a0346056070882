import fp from 'fastify-plugin'
import { Entitlements, type EntitlementsOptions } from './entitlements.ts'

export type { Decision, Question } from './entitlements.ts'
export type { CallReport, UpstreamName } from './guarded-call.ts'
export type { LookupReport } from './verdict-cache.ts'

declare module 'fastify' {
  interface FastifyInstance { entitlements: Entitlements }
}

export type EntitlementOptions = Pick<EntitlementsOptions, 'freshMs' | 'staleMs' | 'maxEntries' | 'clock' | 'random' | 'onCall' | 'onLookup'>

export default fp<EntitlementOptions>(async function entitlement (fastify, options) {
  const { identity, content, deadlineMs } = fastify.upstream
  fastify.decorate('entitlements', new Entitlements({
    ...options,
    deadlineMs,
    askIdentity: (path, query, signal) => identity.get(path, query, signal),
    askContent: (path, query, signal) => content.get(path, query, signal),
    onCircuit: ({ upstream, open, reason }) => {
      if (open) fastify.log.error({ upstream, reason }, 'an upstream keeps failing: only probed until it answers again')
      else fastify.log.info({ upstream }, 'an upstream answers again')
    }
  }))
}, { name: 'entitlement', dependencies: ['upstream'] })
