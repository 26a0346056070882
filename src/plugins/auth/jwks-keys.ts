import { createPublicKey } from 'node:crypto'
import { request } from 'undici'
import { ProblemError } from '../../problems.ts'

/** One verification key: PEM text (verifiers are kept for keys given as text only) and the one algorithm it may be used with. */
export interface AccessKey { pem: string, alg: string }

const FETCH_MS = 2_000
const MAX_BYTES = 64 * 1024
/** Keys are fetched anew after this long, in the background of use. */
const FRESH_MS = 10 * 60_000
/** An unknown `kid` asks again, but a flood of forged ones asks no more often than this. */
const COOL_DOWN_MS = 10_000
/** How long the last good keys are trusted while the endpoint errs. */
const STALE_MS = 24 * 3_600_000
/** RFC 7518, section 3.3: shorter RSA keys must not be used. */
const MIN_RSA_BITS = 2048

/** Public keys of the platform's access tokens, from its JWKS (RFC 7517). */
export class JwksKeys {
  readonly #url: string
  readonly #clock: () => number
  #keys = new Map<string, AccessKey>()
  #fetchedAt = -Infinity
  #triedAt = -Infinity
  #fetching: Promise<void> | undefined
  #away = false
  readonly #report: (away: boolean) => void

  /**
   * @param report told when the endpoint gives no keys any more, and when it does again
   * @param clock monotonic, ms
   */
  constructor (url: string, report: (away: boolean) => void = () => {}, clock: () => number = () => performance.now()) {
    this.#url = url
    this.#report = report
    this.#clock = clock
  }

  /** The key of that id; undefined if the platform has none. @throws ProblemError 503 while that cannot be known. */
  async find (kid: string): Promise<AccessKey | undefined> {
    const age = this.#clock() - this.#fetchedAt
    const known = age < STALE_MS ? this.#keys.get(kid) : undefined
    // After a time without requests the keys are fetched before one is believed: else a withdrawn one would be, once more. In an outage it is not waited for.
    if (known === undefined || (age > 2 * FRESH_MS && !this.#away)) await this.#refresh()
    else if (age > FRESH_MS) this.#refresh().catch(() => { /* the old keys go on working */ })
    const found = this.#clock() - this.#fetchedAt < STALE_MS ? this.#keys.get(kid) : undefined
    if (found === undefined && this.#away) {
      throw new ProblemError('credential-unverifiable', 'The keys of access tokens cannot be fetched now.', { retryAfterSeconds: 5 })
    }
    return found
  }

  async #refresh (): Promise<void> {
    if (this.#fetching === undefined) {
      if (this.#clock() - this.#triedAt < COOL_DOWN_MS) return
      this.#triedAt = this.#clock()
      this.#fetching = this.#fetch().catch(() => false).then(fetched => {
        this.#fetching = undefined
        if (this.#away !== fetched) return
        this.#away = !fetched
        this.#report(this.#away)
      })
    }
    await this.#fetching
  }

  /**
   * Whether there are new keys. Keeps what it had when the answer is no key set, or one without any usable key. Redirects are not followed: the
   * keys come from the address that was configured. @throws when it is away, too slow, or sends no JSON.
   */
  async #fetch (): Promise<boolean> {
    const { statusCode, body } = await request(this.#url, { headers: { accept: 'application/json' }, signal: AbortSignal.timeout(FETCH_MS) })
    if (statusCode !== 200) {
      await body.dump({ limit: MAX_BYTES })
      return false
    }
    let text = ''
    for await (const chunk of body.setEncoding('utf8')) {
      text += String(chunk)
      if (Buffer.byteLength(text) > MAX_BYTES) return false
    }
    const keys = readKeys(JSON.parse(text))
    if (keys.size === 0) return false
    this.#keys = keys
    this.#fetchedAt = this.#clock()
    return true
  }
}

function readKeys (document: unknown): Map<string, AccessKey> {
  const keys = new Map<string, AccessKey>()
  const list: unknown = typeof document === 'object' && document !== null && 'keys' in document ? document.keys : undefined
  for (const item of Array.isArray(list) ? list : []) {
    if (typeof item !== 'object' || item === null) continue
    const jwk: Record<string, unknown> = { ...item }
    const alg = algorithmOf(jwk)
    if (alg === undefined || typeof jwk.kid !== 'string' || (jwk.use !== undefined && jwk.use !== 'sig')) continue
    try {
      const key = createPublicKey({ key: jwk, format: 'jwk' })
      if ((key.asymmetricKeyDetails?.modulusLength ?? MIN_RSA_BITS) < MIN_RSA_BITS) continue
      keys.set(jwk.kid, { pem: key.export({ type: 'spki', format: 'pem' }).toString(), alg })
    } catch { /* one unusable key must not cost the others */ }
  }
  return keys
}

/** The algorithm belongs to the key (RFC 8725, section 3.1), never to the token. */
function algorithmOf ({ kty, crv, alg }: Record<string, unknown>): string | undefined {
  const natural = kty === 'RSA' ? 'RS256' : kty === 'EC' && crv === 'P-256' ? 'ES256' : kty === 'OKP' && crv === 'Ed25519' ? 'EdDSA' : undefined
  return alg === undefined || alg === natural ? natural : undefined
}
