import Fastify from 'fastify'

/** The least a JSON POST costs with Fastify: 200, a schema for the body and one for the answer. What the service is measured against. */
const fastify = Fastify({ logger: false })
fastify.post('/', {
  schema: {
    body: { type: 'object', required: ['position'], properties: { position: { type: 'number' } } },
    response: { 200: { type: 'object', properties: { session_id: { type: 'string' }, status: { type: 'string' }, position: { type: 'number' } } } }
  }
}, async () => ({ session_id: '3f0c9a52-8f6e-4d0b-9c41-5a1726e05132', status: 'active', position: 1 }))
process.stdout.write(`${JSON.stringify({ msg: 'listening', address: await fastify.listen({ host: '127.0.0.1', port: 0 }) })}\n`)
// Ends by itself, so that --cpu-prof can write its profile.
process.once('SIGTERM', () => { process.exit(0) })
