import { createHmac, createPublicKey, generateKeyPairSync, verify } from 'node:crypto'
import t from 'tap'
import { acceptedKeys, signingKey } from '../../src/config/playback-keys.ts'
import { PlaybackTokens } from '../../src/modules/token/playback-tokens.ts'

const NOW = 1_795_000_000_000
const WHO = { sessionId: '3f0c9a52-8f6e-4d0b-9c41-5a1726e05132', userId: 'user123', profileId: 'profile456', contentId: 'content789', deviceId: 'device101' }
const SECRET = 'first-signing-key-0123456789-abcdefgh'

const tokensOf = (secret: string, accepted?: string): PlaybackTokens => {
  const problems: string[] = []
  const tokens = new PlaybackTokens({ signing: signingKey(secret, problems), accepted: acceptedKeys(accepted, problems), lifeSeconds: 3_600 })
  if (problems.length > 0) throw new Error(problems.join())
  return tokens
}
const part = (token: string, index: number): Record<string, unknown> => JSON.parse(Buffer.from(token.split('.')[index] ?? '', 'base64url').toString())
const forge = (header: object, payload: unknown, key = SECRET): string => {
  const input = [header, payload].map(value => Buffer.from(JSON.stringify(value)).toString('base64url')).join('.')
  return `${input}.${createHmac('sha256', key).update(input).digest('base64url')}`
}

t.test('a token has exactly the promised claims and header, and is equal within a second', async t => {
  const tokens = tokensOf(SECRET)
  const { token, expiresAtMs } = tokens.issue(WHO, NOW)
  t.same(Object.keys(part(token, 0)).sort(), ['alg', 'kid', 'typ'])
  t.same(Object.keys(part(token, 1)).sort(), ['content_id', 'device_id', 'exp', 'iat', 'iss', 'jti', 'nbf', 'profile_id', 'session_id', 'sub', 'user_id'])
  t.match(part(token, 1), { iss: 'viewing-service', sub: 'user123', iat: NOW / 1_000, nbf: NOW / 1_000, exp: NOW / 1_000 + 3_600 })
  t.equal(expiresAtMs, NOW + 3_600_000)
  t.equal(tokens.issue(WHO, NOW + 999).token, token)
  t.equal(tokens.verify(token, NOW).valid, true)
})

t.test('time is judged by the moment given, with five seconds of leeway, on remembered tokens too', async t => {
  const tokens = tokensOf(SECRET)
  const { token } = tokens.issue(WHO, NOW)
  for (let round = 0; round < 2; round++) {
    t.equal(tokens.verify(token, NOW + 3_604_999).valid, true)
    t.match(tokens.verify(token, NOW + 3_605_000), { valid: false, reason: 'expired' })
    t.equal(tokens.verify(token, NOW - 5_000).valid, true)
    t.match(tokens.verify(token, NOW - 5_001), { valid: false, reason: 'not-yet-valid' })
  }
})

t.test('with more sessions than places the remembered stay; idle ones give up their places', async t => {
  const tokens = tokensOf(SECRET)
  const long = 'x'.repeat(120)
  let made = 0
  const shown = (count: number, nowMs: number): string[] => Array.from({ length: count }, () => {
    const { token } = tokens.issue({ ...WHO, userId: `${long}${made++}`, profileId: long, contentId: long, deviceId: long }, nowMs)
    if (!tokens.verify(token, nowMs).valid) throw new Error('an own token is not valid')
    return token
  })
  const kept = (list: string[], nowMs: number): number => list.filter(token => tokens.recall(token, nowMs) !== undefined).length
  // 32 MiB are some 14,000 of these.
  const first = shown(10_000, NOW)
  t.equal(kept(first, NOW), first.length, 'each, while there is room')
  const beyond = shown(20_000, NOW)
  t.ok(kept(first, NOW) > 0.8 * first.length, 'most of them stay when twice as many come')
  t.ok(kept(beyond, NOW) < 0.5 * beyond.length)
  const later = NOW + 130_000
  const next = shown(3_000, later)
  t.equal(kept(next, later), next.length, 'whoever comes when the others are idle is taken')
})

t.test('a rotation interrupts nobody, and a dropped key is dropped', async t => {
  const second = 'second-signing-key-0123456789-abcdefg'
  const [before, prepared, after, done] = [tokensOf(SECRET), tokensOf(SECRET, second), tokensOf(second, SECRET), tokensOf(second)]
  const [old, fresh] = [before.issue(WHO, NOW).token, after.issue(WHO, NOW).token]
  for (const tokens of [prepared, after]) t.ok([old, fresh].every(token => tokens.verify(token, NOW).valid))
  t.match(done.verify(old, NOW), { valid: false, reason: 'unknown-key' })
})

t.test('ES256 and EdDSA verify with the published key alone', async t => {
  for (const [pair, alg] of [[generateKeyPairSync('ec', { namedCurve: 'P-256' }), 'ES256'], [generateKeyPairSync('ed25519'), 'EdDSA']] as const) {
    const tokens = tokensOf(pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString())
    const { token } = tokens.issue(WHO, NOW)
    const [jwk] = tokens.jwks().keys
    t.match(jwk, { alg, use: 'sig', kid: part(token, 0).kid })
    t.notOk('d' in Object(jwk), 'no private half')
    const [header, payload, signature] = token.split('.')
    const key = createPublicKey({ key: { ...jwk }, format: 'jwk' })
    t.ok(verify(alg === 'ES256' ? 'sha256' : null, Buffer.from(`${header}.${payload}`), { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature ?? '', 'base64url')))
    t.equal(tokens.verify(token, NOW).valid, true)
    // Algorithm confusion: the public key as an HMAC secret (CVE-2023-48223, CVE-2026-34950).
    const pem = key.export({ type: 'spki', format: 'pem' }).toString()
    t.equal(tokens.verify(forge({ alg: 'HS256', typ: 'JWT', kid: jwk?.kid }, part(token, 1), pem), NOW).valid, false)
  }
})

t.test('what is signed with the right key but is no token of ours is refused', async t => {
  const tokens = tokensOf(SECRET)
  const { token } = tokens.issue(WHO, NOW)
  const header = part(token, 0)
  const claims = part(token, 1)
  t.equal(tokens.verify(forge(header, claims), NOW).valid, true, 'the forge itself makes good tokens')
  const forged: Record<string, string> = {
    'alg none': `${Buffer.from(JSON.stringify({ ...header, alg: 'none' })).toString('base64url')}.${token.split('.')[1]}.`,
    HS384: forge({ ...header, alg: 'HS384' }, claims),
    RS256: forge({ ...header, alg: 'RS256' }, claims),
    crit: forge({ ...header, crit: ['b64'], b64: false }, claims),
    jku: forge({ ...header, jku: 'http://evil' }, claims),
    'no kid': forge({ alg: 'HS256', typ: 'JWT' }, claims),
    'another kid': forge({ ...header, kid: '../../key' }, claims),
    'an array': forge(header, [claims]),
    'a string': forge(header, 'claims'),
    'an audience': forge(header, { ...claims, aud: 'playback' }),
    'another issuer': forge(header, { ...claims, iss: 'platform' }),
    'another subject': forge(header, { ...claims, sub: 'other' }),
    'a text as exp': forge(header, { ...claims, exp: '9999999999' }),
    'a fraction as exp': forge(header, { ...claims, exp: 1_999_999_999.5 }),
    'no exp': forge(header, { ...claims, exp: undefined }),
    'an extra claim': forge(header, { ...claims, admin: true }),
    'too long': `${token}${'A'.repeat(4096)}`,
    padding: `${token}=`,
    whitespace: `${token} `,
    'four parts': `${token}.x`
  }
  for (const [name, text] of Object.entries(forged)) t.equal(tokens.verify(text, NOW).valid, false, name)
})
