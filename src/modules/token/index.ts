import fp from 'fastify-plugin'
import { PlaybackTokens, type PlaybackTokensOptions } from './playback-tokens.ts'

declare module 'fastify' {
  interface FastifyInstance { tokens: PlaybackTokens }
}

export default fp<PlaybackTokensOptions>(async function token (fastify, options) {
  fastify.decorate('tokens', new PlaybackTokens(options))
}, { name: 'token' })
