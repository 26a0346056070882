import helmet from '@fastify/helmet'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import fp from 'fastify-plugin'

/** Operations that may come without a body. The library calls every body required. */
const WITHOUT_BODY = ['pauseSession', 'resumeSession', 'stopSession', 'completeSession', 'refreshToken']

/** The document, made of the routes' own schemas, and its page. */
export default fp<{ version: string }>(async function document (fastify, { version }) {
  await fastify.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Viewing Service',
        version,
        description: 'May this person start playing this, here, now? And does the answer still hold while the film runs?',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' }
      },
      servers: [{ url: '/', description: 'This service.' }],
      tags: [
        { name: 'session', description: 'One playback, from start to end.' },
        { name: 'concurrency', description: 'The concurrent-stream limit of a user.' },
        { name: 'token', description: 'Playback tokens.' },
        { name: 'operations', description: 'For operators and verifiers.' }
      ],
      components: {
        securitySchemes: {
          accessToken: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'The platform\'s access token (`AUTH_MODE=jwt`).' },
          playbackToken: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT', description: 'The session\'s own playback token.' },
          gateway: { type: 'apiKey', in: 'header', name: 'X-Gateway-Secret', description: 'An authenticated gateway (`AUTH_MODE=gateway`), with `X-User-Id` or `X-Scope`.' }
        }
      }
    },
    transformObject: made => {
      if ('swaggerObject' in made) return made.swaggerObject
      for (const path of Object.values(made.openapiObject.paths ?? {})) {
        const operation = path?.post
        if (operation?.requestBody !== undefined && WITHOUT_BODY.includes(operation.operationId ?? '')) operation.requestBody = { ...operation.requestBody, required: false }
      }
      return made.openapiObject
    },
    refResolver: { buildLocalReference: (json, _base, _fragment, index) => typeof json.$id === 'string' ? json.$id : `def-${index}` }
  })
  await fastify.register(async function page (scope) {
    // The page is also looked at over plain HTTP. HSTS speaks for a whole host: that is for whoever ends TLS, in front of the service.
    await scope.register(helmet, { strictTransportSecurity: false, contentSecurityPolicy: { directives: { upgradeInsecureRequests: null } } })
    await scope.register(swaggerUi, { routePrefix: '/docs', staticCSP: true })
  })

  const hidden = { schema: { hide: true }, logLevel: 'warn' as const }
  fastify.get('/openapi.json', hidden, async () => fastify.swagger())
  fastify.get('/openapi.yaml', hidden, async (_request, reply) => reply.type('application/yaml').send(fastify.swagger({ yaml: true })))
}, { name: 'swagger' })
