import { createPublicKey, hash } from 'node:crypto'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import { createSigner, createVerifier } from 'fast-jwt'
import { LRUCache } from 'lru-cache'
import type { PlaybackKey } from '../../config/playback-keys.ts'
import { isKeyPairMaterial } from '../../config/secret-material.ts'
import { type Jwks, type PlaybackClaims, PlaybackClaimsSchema } from '../../schemas.ts'

/** Who a playback token speaks for. */
export interface SessionIdentity {
  sessionId: string
  userId: string
  profileId: string
  contentId: string
  deviceId: string
}

export type TokenVerification =
  | { valid: true, claims: PlaybackClaims }
  | { valid: false, reason: 'malformed' | 'unknown-key' | 'signature' | 'expired' | 'not-yet-valid' | 'claims' }

export interface PlaybackTokensOptions {
  /** Signs, and verifies. */
  signing: PlaybackKey
  /** Only verify: the previous key during a rotation, or the next one. */
  accepted: readonly PlaybackKey[]
  lifeSeconds: number
  onIssued?: () => void
  onRejected?: (reason: string) => void
}

export const ISSUER = 'viewing-service'
const MAX_LENGTH = 4096
/** Instances agree on Redis' time, not on the moment at which they read it. */
const LEEWAY_SECONDS = 5
/** Longest life the configuration can ask for. Without a bound, one token dated far ahead would outlive every session. */
const MAX_LIFE_SECONDS = 365 * 86_400
/**
 * A token whose signature was verified is not verified again; its times are checked on every call. Measured: 0.6 µs instead of 11 (HS256),
 * 90 (ES256) and 130 (EdDSA); where sessions outnumber the places, HS256 pays 3 µs for nothing. An entry is 0.95 kB, 2.3 kB with
 * the longest ids, which is twice the token's length in both cases: so the places are counted in bytes, about 33,000 usual tokens.
 */
const REMEMBERED_BYTES = 32 * 1024 * 1024
const REMEMBERED = 50_000
/** A token that nobody has shown for this long (four heartbeats) gives up its place to any other. */
const IDLE_MS = 120_000
const ONE_OF = 16
const MOST_HEADERS = 16
/** Any moment but 0, which the library takes for none. */
const PROBE_MS = 1_000_000_000_000
const COMPACT = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/
const claimsSchema = TypeCompiler.Compile(PlaybackClaimsSchema)

/** `shownMs`: when it was last asked for. */
interface Remembered { claims: PlaybackClaims, shownMs: number }
interface Verifier { alg: string, verify: (token: string) => unknown }

/**
 * Issues and checks playback tokens: JWT (RFC 7519) in JWS compact form, as RFC 8725 advises: the algorithm belongs to the key
 * and is never taken from the token.
 */
export class PlaybackTokens {
  readonly #options: PlaybackTokensOptions
  readonly #sign: (payload: Record<string, unknown>) => string
  readonly #verifiers: ReadonlyMap<string, Verifier>
  readonly #verified = new LRUCache<string, Remembered>({
    max: REMEMBERED, maxSize: REMEMBERED_BYTES, sizeCalculation: (_remembered, token) => 2 * token.length
  })

  /** Of tokens that were valid, by the text of their header. */
  readonly #byHeader = new Map<string, Verifier>()
  #turn = 0

  /** @throws Error when a key is not usable or two keys share an id, so that a bad key ends the start, not a playback. */
  constructor (options: PlaybackTokensOptions) {
    this.#options = options
    const keys = distinct([options.signing, ...options.accepted])
    const { kid, alg, material } = options.signing
    this.#verifiers = new Map(keys.map(key => [key.kid, {
      alg: key.alg,
      verify: createVerifier({ key: verifyingMaterial(key), algorithms: [key.alg], cache: false, ignoreExpiration: true, ignoreNotBefore: true })
    }]))
    this.#sign = createSigner({ key: material, algorithm: alg, kid })
    const probe = this.#issue({ sessionId: '00000000-0000-4000-8000-000000000000', userId: '-', profileId: '-', contentId: '-', deviceId: '-' }, PROBE_MS)
    if (!this.#verify(probe.token, PROBE_MS).valid) throw new Error('the playback signing key cannot verify what it signs')
    this.#verified.clear()
  }

  /** The token of a session from `nowMs` (Redis time) on. Equal arguments of one second give equal claims. */
  issue (identity: SessionIdentity, nowMs: number): { token: string, expiresAtMs: number } {
    const issued = this.#issue(identity, nowMs)
    this.#options.onIssued?.()
    return issued
  }

  /** Checks form, key, signature, claims and time (`nowMs`: Redis time, 5 s leeway). Never throws. */
  verify (token: string, nowMs: number): TokenVerification {
    const verification = this.#verify(token, nowMs)
    if (!verification.valid) this.#options.onRejected?.(verification.reason)
    return verification
  }

  /** The claims of a token that has passed `verify` here before and is in time; undefined for any other, which may not even be a playback token. */
  recall (token: string, nowMs: number): PlaybackClaims | undefined {
    const claims = this.#remembered(token, nowMs)
    return claims !== undefined && inTime(claims, nowMs).valid ? claims : undefined
  }

  /** Whether less than half of the token's life is left. */
  needsRenewal ({ iat, exp }: PlaybackClaims, nowMs: number): boolean {
    return exp - nowMs / 1_000 < (exp - iat) / 2
  }

  /** Public keys for verifiers without a secret (RFC 7517); none with HS256. */
  jwks (): Jwks {
    const keys: Jwks['keys'] = []
    for (const key of distinct([this.#options.signing, ...this.#options.accepted])) {
      if (key.alg === 'HS256') continue
      const { kty, crv, x, y } = createPublicKey(key.material).export({ format: 'jwk' })
      if (kty !== undefined && crv !== undefined && x !== undefined) keys.push({ kty, crv, x, ...(y === undefined ? {} : { y }), kid: key.kid, alg: key.alg, use: 'sig' })
    }
    return { keys }
  }

  #issue ({ sessionId, userId, profileId, contentId, deviceId }: SessionIdentity, nowMs: number): { token: string, expiresAtMs: number } {
    const iat = Math.floor(nowMs / 1_000)
    const exp = iat + this.#options.lifeSeconds
    const jti = hash('sha256', `${sessionId}:${iat}`, 'hex').slice(0, 32)
    const claims: PlaybackClaims = {
      session_id: sessionId, user_id: userId, profile_id: profileId, content_id: contentId, device_id: deviceId, iss: ISSUER, sub: userId, iat, exp, nbf: iat, jti
    }
    return { token: this.#sign(claims), expiresAtMs: exp * 1_000 }
  }

  #verify (token: string, nowMs: number): TokenVerification {
    if (token.length > MAX_LENGTH) return { valid: false, reason: 'malformed' }
    const claims = this.#remembered(token, nowMs)
    if (claims !== undefined) return inTime(claims, nowMs)
    if (!COMPACT.test(token) || !hasCanonicalEnd(token)) return { valid: false, reason: 'malformed' }
    const header = token.slice(0, token.indexOf('.'))
    const verifier = this.#byHeader.get(header) ?? this.#verifierFor(header)
    if (typeof verifier === 'string') return { valid: false, reason: verifier }
    let payload: unknown
    try {
      payload = verifier.verify(token)
    } catch {
      return { valid: false, reason: 'signature' }
    }
    if (!claimsSchema.Check(payload) || !consistent(payload)) return { valid: false, reason: 'claims' }
    // A header that was looked at once and led to a key does so again; there are as many as spellings of our keys' headers.
    if (this.#byHeader.size < MOST_HEADERS) this.#byHeader.set(header, verifier)
    this.#remember(token, Object.freeze(payload), nowMs)
    return inTime(payload, nowMs)
  }

  #remembered (token: string, nowMs: number): PlaybackClaims | undefined {
    const known = this.#verified.get(token)
    if (known === undefined) return undefined
    known.shownMs = nowMs
    return known.claims
  }

  /**
   * Each token while there is room or an idle one to drop, else one of sixteen. Sessions beat in turn, so with more of them than places the
   * token that was shown longest ago is the next to come: a cache that took all would hit none, and fill the heap's old generation with what it drops.
   */
  #remember (token: string, claims: PlaybackClaims, nowMs: number): void {
    const full = this.#verified.calculatedSize + 2 * token.length > REMEMBERED_BYTES || this.#verified.size >= REMEMBERED
    if (full && !this.#oldestIsIdle(nowMs) && this.#turn++ % ONE_OF !== 0) return
    this.#verified.set(token, { claims, shownMs: nowMs })
  }

  #oldestIsIdle (nowMs: number): boolean {
    const oldest = this.#verified.rvalues().next().value
    return oldest !== undefined && nowMs - oldest.shownMs > IDLE_MS
  }

  /** Our tokens' headers hold exactly alg, typ and kid; anything else (`crit`, `jku`, `b64`, …) is not ours. */
  #verifierFor (header: string): Verifier | 'malformed' | 'unknown-key' {
    let parsed: unknown
    try {
      parsed = JSON.parse(Buffer.from(header, 'base64url').toString())
    } catch {
      return 'malformed'
    }
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return 'malformed'
    const { alg, typ, kid, ...others }: Record<string, unknown> = { ...parsed }
    if (typ !== 'JWT' || typeof kid !== 'string' || Object.keys(others).length > 0) return 'malformed'
    const verifier = this.#verifiers.get(kid)
    return verifier === undefined || verifier.alg !== alg ? 'unknown-key' : verifier
  }
}

const BASE64URL = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

/** The last digit of base64url has spare bits (RFC 4648, section 3.5): only the canonical spelling of a signature is accepted, where they are 0. */
function hasCanonicalEnd (token: string): boolean {
  const over = (token.length - token.lastIndexOf('.') - 1) % 4
  const last = BASE64URL.indexOf(token.charAt(token.length - 1))
  return over === 0 || (over === 2 && last % 16 === 0) || (over === 3 && last % 4 === 0)
}

/** What the schema cannot say of claims: they are as `issue` makes them. */
function consistent ({ iss, sub, user_id: userId, iat, nbf, exp }: PlaybackClaims): boolean {
  return iss === ISSUER && sub === userId && nbf === iat && exp > iat && exp - iat <= MAX_LIFE_SECONDS
}

function inTime (claims: PlaybackClaims, nowMs: number): TokenVerification {
  const now = nowMs / 1_000
  if (now >= claims.exp + LEEWAY_SECONDS) return { valid: false, reason: 'expired' }
  if (now < claims.nbf - LEEWAY_SECONDS) return { valid: false, reason: 'not-yet-valid' }
  return { valid: true, claims }
}

/** A key that is both signing and accepted counts once. */
function distinct (keys: readonly PlaybackKey[]): PlaybackKey[] {
  const byId = new Map<string, PlaybackKey>()
  for (const key of keys) {
    const known = byId.get(key.kid)
    if (known === undefined) byId.set(key.kid, key)
    else if (known.alg !== key.alg || verifyingMaterial(known) !== verifyingMaterial(key)) throw new Error(`two playback keys share the id ${key.kid}`)
  }
  return [...byId.values()]
}

function verifyingMaterial ({ kid, alg, material }: PlaybackKey): string {
  if (alg !== 'HS256') return createPublicKey(material).export({ type: 'spki', format: 'pem' }).toString()
  if (isKeyPairMaterial(material)) throw new Error(`playback key ${kid}: a key pair's material is no secret for HS256`)
  return material
}
