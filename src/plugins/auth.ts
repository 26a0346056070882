import type { FastifyRequest, onRequestHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import type { AuthConfig } from '../config.ts'
import { TOKEN_LENGTH } from '../schemas.ts'
import { PLAYBACK_ISSUER, registerAccessTokens } from './auth/access-tokens.ts'
import { bearerOf, Gateway, unauthorized } from './auth/credentials.ts'
import type { Principal } from './auth/principal.ts'

export { mayActFor, type Principal } from './auth/principal.ts'
export { FORWARDED, type RegionPolicy, vouchedRegion } from './auth/region.ts'

type Hook = (request: FastifyRequest) => Promise<void>

export interface Auth {
  /** For the start and the user's slots: whoever can prove, or vouch for, a user. Never a playback token. */
  user: Hook
  /** For one session: its playback token, its user, or a service credential. */
  session: onRequestHookHandler
  /** As `session`; without a credential in the headers the token may be in the body, which is only there after parsing. */
  beacon: { onRequest: Hook, preValidation: Hook }
}

declare module 'fastify' {
  interface FastifyInstance { auth: Auth }
  interface FastifyRequest { principal: Principal | null }
}

export interface AuthOptions {
  auth: AuthConfig
  /** Redis' time, ms: the instance's own clock decides nothing. */
  nowMs: () => number
}

/**
 * Who calls? Sets `request.principal`, or ends the request with 401 (503 while the platform's keys cannot be had).
 * What the caller may then do is decided where it is done.
 */
export default fp<AuthOptions>(async function auth (fastify, { auth: config, nowMs }) {
  fastify.decorateRequest('principal', null)
  const gateway = config.mode === 'gateway' ? new Gateway(config.gatewaySecret) : undefined
  const byAccessToken = config.mode === 'jwt' ? await registerAccessTokens(fastify, config, nowMs) : undefined

  function byPlaybackToken (token: string): Principal {
    const verification = fastify.tokens.verify(token, nowMs())
    if (!verification.valid) throw unauthorized()
    return { kind: 'session', claims: verification.claims }
  }

  async function userPrincipal (request: FastifyRequest): Promise<Principal> {
    if (config.mode === 'none') return { kind: 'anyone' }
    const vouched = gateway?.vouch(request.headers)
    if (vouched !== undefined) return vouched
    const token = bearerOf(request.raw)
    if (token === undefined || byAccessToken === undefined) throw unauthorized()
    return await byAccessToken(request, token)
  }

  /** undefined when the headers hold no credential for a session, as opposed to a bad one. Only an access token has to be waited for. */
  function sessionPrincipal (request: FastifyRequest): Promise<Principal> | Principal | undefined {
    const vouched = gateway?.vouch(request.headers)
    // A gateway that names no user vouches for none: a session id alone is no proof of anything. It may pass on the player's token.
    if (vouched !== undefined && vouched.kind !== 'gateway') return vouched
    const token = bearerOf(request.raw)
    if (token === undefined) return undefined
    const claims = fastify.tokens.recall(token, nowMs())
    if (claims !== undefined) return { kind: 'session', claims }
    if (claimsToBePlayback(token)) return byPlaybackToken(token)
    if (byAccessToken === undefined) throw unauthorized()
    return byAccessToken(request, token)
  }

  fastify.decorate('auth', {
    user: async request => { request.principal = await userPrincipal(request) },
    // With a callback: most callers are known at once, and a promise would make each of them wait a turn.
    session: (request, _reply, done) => {
      const settle = (principal: Principal | undefined): void => {
        request.principal = principal ?? null
        done(principal === undefined ? unauthorized() : undefined)
      }
      try {
        const principal = sessionPrincipal(request)
        if (principal instanceof Promise) principal.then(settle, done)
        else settle(principal)
      } catch (error) {
        done(error instanceof Error ? error : unauthorized())
      }
    },
    beacon: {
      onRequest: async request => { request.principal = await sessionPrincipal(request) ?? null },
      preValidation: async request => {
        const token = takeToken(request.body)
        if (request.principal !== null) return
        if (typeof token !== 'string') throw unauthorized()
        request.principal = byPlaybackToken(token)
      }
    }
  })
}, { name: 'auth', dependencies: ['token'] })

/** Takes `playback_token` out of a parsed body: past this point nobody needs it, and it cannot get into a log. What the schema refuses stays in it. */
function takeToken (body: unknown): unknown {
  if (typeof body !== 'object' || body === null || !('playback_token' in body)) return undefined
  const token = body.playback_token
  if (typeof token !== 'string' || token.length > TOKEN_LENGTH) return undefined
  Reflect.deleteProperty(body, 'playback_token')
  return token
}

/** Only tells which keys a token is to be verified with; proves nothing. What cannot be read is left to the stricter of the two. */
function claimsToBePlayback (token: string): boolean {
  try {
    const payload: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())
    return typeof payload === 'object' && payload !== null && 'iss' in payload && payload.iss === PLAYBACK_ISSUER
  } catch {
    return true
  }
}
