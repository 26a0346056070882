import { createHash, timingSafeEqual } from 'node:crypto'
import fastifyJwt from '@fastify/jwt'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { AuthConfig } from '../config.ts'
import { ProblemError } from '../problems.ts'
import { JwksKeys } from './auth/jwks-keys.ts'
import type { Principal } from './auth/principal.ts'

export { mayActFor, type Principal } from './auth/principal.ts'
export { type RegionPolicy, vouchedRegion } from './auth/region.ts'

type Hook = (request: FastifyRequest) => Promise<void>

export interface Auth {
  /** For the start and the user's slots: whoever can prove, or vouch for, a user. Never a playback token. */
  user: Hook
  /** For one session: its playback token, its user, or a service credential. */
  session: Hook
  /** As `session`; without an Authorization header the token may be in the body, which is only there after parsing. */
  beacon: { onRequest: Hook, preValidation: Hook }
}

declare module 'fastify' {
  interface FastifyInstance { auth: Auth }
  interface FastifyRequest {
    principal: Principal | null
    verifyAccessToken: (options?: { decode?: object, verify?: object }) => Promise<Record<string, unknown>>
  }
}

export interface AuthOptions {
  auth: AuthConfig
  /** Redis' time, ms: the instance's own clock decides nothing. */
  nowMs: () => number
}

const ADMIN_SCOPE = 'playback:admin'
const LEEWAY_SECONDS = 5
const USER_ID = /^[A-Za-z0-9._:@|+=-]{1,128}$/
const ACCESS_ALGORITHMS = ['RS256', 'ES256', 'EdDSA'] as const

export default fp<AuthOptions>(async function auth (fastify, { auth: config, nowMs }) {
  fastify.decorateRequest('principal', null)
  if (config.mode === 'jwt') await registerAccessTokens()

  /** Access tokens are verified with the platform's keys alone: a playback token cannot pass, whatever it claims. */
  async function registerAccessTokens (): Promise<void> {
    if (config.mode !== 'jwt') return
    const { jwtSecret, jwksUrl, issuer, audience } = config
    const jwks = jwksUrl === undefined ? undefined : new JwksKeys(jwksUrl)
    await fastify.register(fastifyJwt, {
      namespace: 'access',
      jwtVerify: 'verifyAccessToken',
      decode: { complete: true },
      secret: async (_request: FastifyRequest, token: unknown) => {
        if (jwtSecret !== undefined) return jwtSecret
        const { kid, alg } = headerOf(token)
        const key = await jwks?.find(kid)
        if (key === undefined || key.alg !== alg) throw unauthorized()
        return key.pem
      },
      verify: {
        algorithms: jwtSecret === undefined ? [...ACCESS_ALGORITHMS] : ['HS256'],
        allowedIss: issuer,
        allowedAud: audience,
        requiredClaims: ['sub', 'exp', 'iss', 'aud'],
        ignoreExpiration: true,
        ignoreNotBefore: true
      }
    })
  }

  async function byAccessToken (request: FastifyRequest): Promise<Principal> {
    if (config.mode !== 'jwt') throw unauthorized()
    let claims: Record<string, unknown>
    try {
      claims = await request.verifyAccessToken()
    } catch (error) {
      throw error instanceof ProblemError ? error : unauthorized()
    }
    const { sub, exp, nbf } = claims
    const now = nowMs() / 1_000
    if (typeof exp !== 'number' || now >= exp + LEEWAY_SECONDS) throw unauthorized()
    if (nbf !== undefined && (typeof nbf !== 'number' || now < nbf - LEEWAY_SECONDS)) throw unauthorized()
    if (scopesOf(claims).includes(ADMIN_SCOPE)) return { kind: 'admin' }
    if (typeof sub !== 'string' || !USER_ID.test(sub)) throw unauthorized()
    return { kind: 'user', userId: sub }
  }

  /** undefined when the request shows no gateway secret at all. */
  function byGateway ({ headers }: FastifyRequest): Principal | undefined {
    const shown = headers['x-gateway-secret']
    if (config.mode !== 'gateway' || shown === undefined) return undefined
    if (typeof shown !== 'string' || !sameSecret(shown, config.gatewaySecret)) throw unauthorized()
    if (headers['x-scope'] === ADMIN_SCOPE) return { kind: 'admin' }
    const userId = headers['x-user-id']
    if (userId === undefined) return { kind: 'gateway' }
    if (typeof userId !== 'string' || !USER_ID.test(userId)) throw unauthorized()
    return { kind: 'user', userId }
  }

  function byPlaybackToken (token: string): Principal {
    const verification = fastify.tokens.verify(token, nowMs())
    if (!verification.valid) throw unauthorized()
    return { kind: 'session', claims: verification.claims }
  }

  const session: Hook = async request => {
    const gateway = byGateway(request)
    if (gateway !== undefined) {
      // A gateway that names no user vouches for none: a session id alone is no proof of anything.
      if (gateway.kind === 'gateway') throw unauthorized()
      request.principal = gateway
      return
    }
    const token = bearerOf(request)
    if (token === undefined) throw unauthorized()
    request.principal = claimsToBePlayback(token) ? byPlaybackToken(token) : await byAccessToken(request)
  }

  fastify.decorate('auth', {
    user: async request => {
      if (config.mode === 'none') request.principal = { kind: 'anyone' }
      else if (config.mode === 'jwt') request.principal = await byAccessToken(request)
      else request.principal = byGateway(request) ?? null
      if (request.principal === null) throw unauthorized()
    },
    session,
    beacon: {
      onRequest: async request => {
        if (request.headers.authorization !== undefined || request.headers['x-gateway-secret'] !== undefined) await session(request)
      },
      preValidation: async request => {
        if (request.principal !== null) return
        const { body } = request
        const token = typeof body === 'object' && body !== null && 'playback_token' in body ? body.playback_token : undefined
        if (typeof token !== 'string') throw unauthorized()
        request.principal = byPlaybackToken(token)
      }
    }
  })
}, { name: 'auth', dependencies: ['token'] })

function unauthorized (): ProblemError {
  return new ProblemError('unauthorized', 'A valid credential is required.')
}

function bearerOf ({ headers }: FastifyRequest): string | undefined {
  return /^bearer +([A-Za-z0-9_.-]{1,8192})$/i.exec(headers.authorization ?? '')?.[1]
}

/** Only tells which keys a token is to be verified with; proves nothing. */
function claimsToBePlayback (token: string): boolean {
  try {
    const payload: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())
    return typeof payload === 'object' && payload !== null && 'iss' in payload && payload.iss === 'viewing-service'
  } catch {
    return true
  }
}

function headerOf (token: unknown): { kid: string, alg: string } {
  const header: unknown = typeof token === 'object' && token !== null && 'header' in token ? token.header : undefined
  if (typeof header === 'object' && header !== null && 'kid' in header && 'alg' in header) {
    if (typeof header.kid === 'string' && typeof header.alg === 'string') return { kid: header.kid, alg: header.alg }
  }
  throw unauthorized()
}

/** `scope` as RFC 8693 has it (space separated), and the lists that several identity providers send instead. */
function scopesOf ({ scope, scp }: Record<string, unknown>): string[] {
  return [scope, scp].flatMap(value => typeof value === 'string' ? value.split(' ') : Array.isArray(value) ? value.map(String) : [])
}

/** Compares hashes, so that neither content nor length shows in the time it takes. */
function sameSecret (shown: string, expected: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(shown), digest(expected))
}
