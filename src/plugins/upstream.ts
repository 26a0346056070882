import fp from 'fastify-plugin'
import { UpstreamClient } from './upstream-client.ts'

/** The services that admission depends on. */
export interface Upstream {
  identity: UpstreamClient
  content: UpstreamClient
  /** Longest time one question may take, retry included, ms. */
  deadlineMs: number
}

declare module 'fastify' {
  interface FastifyInstance { upstream: Upstream }
}

export interface UpstreamOptions {
  identityUrl: string
  contentUrl: string
  deadlineMs: number
}

export default fp<UpstreamOptions>(async function upstream (fastify, { identityUrl, contentUrl, deadlineMs }) {
  const identity = new UpstreamClient({ baseUrl: identityUrl, deadlineMs })
  const content = new UpstreamClient({ baseUrl: contentUrl, deadlineMs })
  fastify.decorate('upstream', { identity, content, deadlineMs })
  fastify.addHook('onClose', async () => { await Promise.all([identity.close(), content.close()]) })
}, { name: 'upstream' })
