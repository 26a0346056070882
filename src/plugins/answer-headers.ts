import fp from 'fastify-plugin'

export interface AnswerHeadersOptions {
  draining: () => boolean
}

/**
 * Headers of every answer. An API's answers are data and never a page: what the OWASP REST Security Cheat Sheet asks for is fixed text. Helmet
 * builds a page's headers anew for each answer (5 % of a heartbeat), so the pages under /docs alone have it.
 */
export default fp<AnswerHeadersOptions>(async function answerHeaders (fastify, { draining }) {
  // Set when the request comes, not in onSend: without such hooks Fastify answers without one more turn. Routes may set their own over these.
  fastify.addHook('onRequest', (request, reply, done) => {
    reply.headers({
      'x-request-id': request.id,
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
      // Answers hold tokens and what a user watches (RFC 6750, section 5.3).
      'cache-control': 'no-store'
    })
    // A process that is about to end asks its keep-alive clients to leave, before it closes on them.
    if (draining()) reply.header('connection', 'close')
    done()
  })
}, { name: 'answer-headers' })
