import { createHmac, createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto'
import t from 'tap'
import { acceptedKeys, signingKey } from '../../src/config/playback-keys.ts'
import { PlaybackTokens } from '../../src/modules/token/playback-tokens.ts'

/** `TOKEN_MUTANTS=1000000` for the long run; `TOKEN_SEED` repeats or varies one. */
const MUTANTS = Number(process.env.TOKEN_MUTANTS ?? 100_000)
const SEED = Number(process.env.TOKEN_SEED ?? 20_261_124)
const NOW = 1_795_000_000_000
const LATER = NOW / 1_000 + 100_000
const EARLIER = NOW / 1_000 - 100_000
const SECRET = 'first-signing-key-0123456789-abcdefgh'
const P256_ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n

type Parts = [header: string, payload: string, signature: string]
type Random = (below: number) => number
interface Issuer { alg: string, secret: string, tokens: PlaybackTokens, valid: string[], publicTexts: Array<string | Buffer> }

const privatePem = (key: KeyObject): string => key.export({ type: 'pkcs8', format: 'pem' }).toString()
const encode = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
const decode = (part: string): Record<string, unknown> => JSON.parse(Buffer.from(part, 'base64url').toString())
const partsOf = (token: string): Parts => token.split('.') as Parts
const hmac = (input: string, key: string | Buffer, hash = 'sha256'): string => createHmac(hash, key).update(input).digest('base64url')

function tokensOf (secret: string, accepted?: string): PlaybackTokens {
  const problems: string[] = []
  const tokens = new PlaybackTokens({ signing: signingKey(secret, problems), accepted: acceptedKeys(accepted, problems), lifeSeconds: 3_600 })
  if (problems.length > 0) throw new Error(problems.join())
  return tokens
}

/** As the service signs, with any header and payload. */
function signAs ({ alg, secret }: Issuer, header: unknown, payload: unknown): string {
  const input = `${encode(header)}.${encode(payload)}`
  if (alg === 'HS256') return `${input}.${hmac(input, secret)}`
  return `${input}.${sign(alg === 'ES256' ? 'sha256' : null, Buffer.from(input), { key: createPrivateKey(secret), dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
}

function issuerOf (alg: string, secret: string): Issuer {
  const tokens = tokensOf(secret)
  const valid = ['user123', 'user-basic', 'u'].map(userId =>
    tokens.issue({ sessionId: '3f0c9a52-8f6e-4d0b-9c41-5a1726e05132', userId, profileId: 'profile456', contentId: 'content789', deviceId: 'device101' }, NOW).token)
  if (alg === 'HS256') return { alg, secret, tokens, valid, publicTexts: ['', decode(partsOf(valid[0] ?? '')[0]).kid as string, 'viewing-service'] }
  const key = createPublicKey(secret)
  const pem = key.export({ type: 'spki', format: 'pem' }).toString()
  const jwks = tokens.jwks()
  return { alg, secret, tokens, valid, publicTexts: [pem, pem.trim(), ` ${pem}`, `key: ${pem}`, key.export({ type: 'spki', format: 'der' }), JSON.stringify(jwks.keys[0]), JSON.stringify(jwks), ''] }
}

const ISSUERS: Issuer[] = [
  issuerOf('HS256', SECRET),
  issuerOf('ES256', privatePem(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)),
  issuerOf('EdDSA', privatePem(generateKeyPairSync('ed25519').privateKey))
]
const [HS, ES, ED] = ISSUERS as [Issuer, Issuer, Issuer]
const ALL_VALID = new Set(ISSUERS.flatMap(({ valid }) => valid))

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n'
const ALGORITHMS = ['none', 'None', 'NONE', 'nOnE', '', 'HS256', 'HS384', 'HS512', 'RS256', 'PS256', 'ES256', 'ES384', 'EdDSA', 'Ed25519', 'hs256', null, 256, ['HS256'], { alg: 'HS256' }]
const KIDS = ['', '0', '../../../dev/null', '/dev/null', "' OR 1=1 --", '__proto__', 'constructor', 'toString', '*', null, 0, true, [], {}, 'a'.repeat(300)]
const CLAIM_EDITS: Array<(claims: Record<string, unknown>, random: Random) => unknown> = [
  (claims, random) => ({ ...claims, exp: Number(claims.exp) + 1 + random(1e9) }),
  (claims, random) => ({ ...claims, exp: 1 + random(NOW / 1_000 - 10) }),
  claims => ({ ...claims, iat: LATER, nbf: LATER, exp: LATER + 3_600 }),
  claims => ({ ...claims, iat: EARLIER, nbf: EARLIER, exp: EARLIER + 3_600 }),
  (claims, random) => ({ ...claims, nbf: Number(claims.nbf) - 1 - random(1_000) }),
  (claims, random) => ({ ...claims, iat: Number(claims.iat) + 1 + random(1_000) }),
  claims => ({ ...claims, exp: String(claims.exp) }),
  claims => ({ ...claims, exp: [claims.exp] }),
  claims => ({ ...claims, exp: null }),
  claims => ({ ...claims, exp: Number(claims.exp) + 0.5 }),
  claims => ({ ...claims, exp: 2 ** 53 }),
  claims => ({ ...claims, exp: -1 }),
  ({ exp: _, ...claims }) => claims,
  ({ nbf: _, ...claims }) => claims,
  ({ session_id: _, ...claims }) => claims,
  claims => ({ ...claims, iss: 'platform' }),
  claims => ({ ...claims, iss: ['viewing-service', 'platform'] }),
  claims => ({ ...claims, iss: '' }),
  claims => ({ ...claims, aud: 'playback' }),
  claims => ({ ...claims, aud: [] }),
  claims => ({ ...claims, sub: 'somebody-else' }),
  claims => ({ ...claims, user_id: 'somebody-else' }),
  claims => ({ ...claims, session_id: '*' }),
  claims => ({ ...claims, admin: true }),
  claims => ({ claims }),
  claims => [claims],
  claims => encode(JSON.stringify(claims)),
  () => null,
  () => ({}),
  () => 'claims'
]

const any = <T>(list: readonly T[], random: Random): T => list[random(list.length)] as T
const other = (issuer: Issuer, random: Random): string => any(any(ISSUERS.filter(one => one !== issuer), random).valid, random)
const replaced = (parts: Parts, index: number, text: string): string => parts.map((part, at) => at === index ? text : part).join('.')

/** Every way of making something that is not a token of that issuer, and might be taken for one. */
const MUTATORS: Record<string, (token: string, issuer: Issuer, random: Random) => string> = {
  'letters changed, left out, put in': (token, _issuer, random) => {
    const text = [...token]
    for (let changes = 1 + random(3); changes > 0; changes--) {
      const at = random(text.length)
      text.splice(at, random(3) === 0 ? 0 : 1, ...(random(3) === 0 ? [] : [ALPHABET.charAt(random(ALPHABET.length))]))
    }
    return text.join('')
  },
  'a bit of the decoded bytes flipped': (token, _issuer, random) => {
    const parts = partsOf(token)
    const index = random(3)
    const bytes = Buffer.from(parts[index] ?? '', 'base64url')
    const at = random(bytes.length)
    bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8))
    return replaced(parts, index, bytes.toString('base64url'))
  },
  'segments in another order': (token, _issuer, random) => {
    const [a, b, c] = partsOf(token)
    return any([[a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]], random).join('.')
  },
  'segments of other tokens': (token, issuer, random) => {
    const [own, next] = [partsOf(token), partsOf(random(2) === 0 ? other(issuer, random) : any(issuer.valid, random))]
    return own.map((part, index) => random(2) === 0 ? part : next[index]).join('.')
  },
  'segments repeated or missing': (token, _issuer, random) => {
    const parts = partsOf(token)
    return any([[...parts, ...parts], [parts[0], ...parts], [...parts, parts[2]], [...parts, ''], ['', ...parts], parts.slice(0, 2), parts.slice(1), [parts[0], '', parts[2]], [parts[0], parts[1], '']], random).join('.')
  },
  'cut off': (token, _issuer, random) => random(2) === 0 ? token.slice(0, random(token.length)) : token.slice(1 + random(token.length)),
  'other spare bits in the last digit': (token, _issuer, random) => {
    const parts = partsOf(token)
    const index = random(3)
    const part = parts[index] ?? ''
    const digits = ALPHABET.slice(0, 62) + '-_'
    const spare = part.length % 4 === 2 ? 16 : part.length % 4 === 3 ? 4 : 1
    if (spare === 1) return replaced(parts, index, `${part}${any(['=', '==', 'A', 'AA', 'AAA'], random)}`)
    const last = digits.indexOf(part.slice(-1))
    return replaced(parts, index, part.slice(0, -1) + digits.charAt(last - last % spare + (last % spare + 1 + random(spare - 1)) % spare))
  },
  'padding, blanks, another alphabet': (token, _issuer, random) => {
    const parts = partsOf(token)
    const index = random(3)
    return any([
      `${token}=`, `${token}==`, ` ${token}`, `${token}\n`, `${token}\0`, `Bearer ${token}`, `"${token}"`, `${token}.`, `.${token}`, token.replaceAll('.', '..'),
      replaced(parts, index, `${parts[index]}=`), replaced(parts, index, Buffer.from(parts[index] ?? '', 'base64url').toString('base64') + '='),
      replaced(parts, index, Buffer.from(parts[index] ?? '', 'base64url').toString('hex')), encodeURIComponent(token).replaceAll('.', '%2E'), token.toUpperCase()
    ], random)
  },
  'letters beyond ASCII': (token, _issuer, random) => {
    const at = random(token.length)
    const code = token.charCodeAt(at)
    return token.slice(0, at) + any([String.fromCharCode(code + 0x100), String.fromCharCode(code + 0xfee0), `${token.charAt(at)}\u0301`, '\u200b', '\ufeff', '\ud800', '\u{1f600}', '\uff0e'], random) + token.slice(at + random(2))
  },
  huge: (token, _issuer, random) => {
    const [header, payload, signature] = partsOf(token)
    const size = 1 + random(20_000)
    return any([`${token}${'A'.repeat(4_096)}`, `${'A'.repeat(size)}.${payload}.${signature}`, `${header}.${payload}${'A'.repeat(size)}.${signature}`, `${header}.${payload}.${signature}${'A'.repeat(size)}`, '.'.repeat(size), `${encode('['.repeat(2_500))}.${payload}.${signature}`], random)
  },
  'another algorithm': (token, issuer, random) => {
    const [header, payload, signature] = partsOf(token)
    const input = `${encode({ ...decode(header), alg: any(ALGORITHMS.filter(alg => alg !== issuer.alg), random) })}.${payload}`
    return `${input}.${any(['', signature, hmac(input, ''), 'AA', hmac(input, any(issuer.publicTexts, random), any(['sha256', 'sha384', 'sha512'], random))], random)}`
  },
  'another key id': (token, issuer, random) => {
    const [header, payload, signature] = partsOf(token)
    const kid = random(2) === 0 ? any(KIDS, random) : decode(partsOf(other(issuer, random))[0]).kid
    const tampered = { ...decode(header), kid }
    return random(2) === 0 ? `${encode(tampered)}.${payload}.${signature}` : signAs(issuer, tampered, decode(payload))
  },
  'a header with more, less or other members, well signed': (token, issuer, random) => {
    const [header, payload] = partsOf(token)
    const { alg, kid, typ } = decode(header)
    const headers = [{ alg, kid }, { alg, typ }, { kid, typ }, { alg, kid, typ: 'at+jwt' }, { alg, kid, typ: 'jwt' }, [alg, kid, typ], 'header', null, ...['crit', 'jku', 'jwk', 'x5u', 'x5c', 'b64', 'zip', 'cty', 'enc'].map(name => ({ alg, kid, typ, [name]: any(['x', ['exp'], false, {}], random) }))]
    return signAs(issuer, any(headers, random), decode(payload))
  },
  'other claims, old signature': (token, _issuer, random) => {
    const [header, payload, signature] = partsOf(token)
    return `${header}.${encode(any(CLAIM_EDITS, random)(decode(payload), random))}.${signature}`
  },
  'other claims, signed with what is public': (token, issuer, random) => {
    const [header, payload] = partsOf(token)
    const input = `${random(2) === 0 ? header : encode({ ...decode(header), alg: 'HS256' })}.${encode(any(CLAIM_EDITS, random)(decode(payload), random))}`
    return `${input}.${hmac(input, random(4) === 0 ? randomBytes(32) : any(issuer.publicTexts, random))}`
  },
  // Only a fault of ours could make these; the verifier has to tell them from its own nevertheless. The first edit alone is such as we might have made.
  'impossible claims, well signed': (token, issuer, random) => {
    const [header, payload] = partsOf(token)
    return signAs(issuer, decode(header), any(CLAIM_EDITS.slice(1), random)(decode(payload), random))
  },
  'blank or borrowed signatures': (token, issuer, random) => {
    const [header, payload, signature] = partsOf(token)
    const bytes = Buffer.from(signature, 'base64url')
    return `${header}.${payload}.${any([Buffer.alloc(64), Buffer.alloc(32), Buffer.alloc(64, 0xff), Buffer.concat([bytes, bytes]), Buffer.concat([bytes, Buffer.alloc(1)]), bytes.subarray(0, 16), Buffer.from(bytes).reverse(),
      Buffer.from(partsOf(other(issuer, random))[2], 'base64url'), Buffer.concat([Buffer.from([0x30, 0x44, 2, 32]), bytes.subarray(0, 32), Buffer.from([2, 32]), bytes.subarray(32)])], random).toString('base64url')}`
  }
}

t.test('no mutant of a token is accepted and none throws', async t => {
  let state = SEED >>> 0
  const random: Random = below => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor(((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32 * below)
  }
  // The verifiers know the valid tokens already: a mutant must not be taken for a remembered one either.
  for (const { tokens, valid } of ISSUERS) t.ok(valid.every(token => tokens.verify(token, NOW).valid))
  const names = Object.keys(MUTATORS)
  const reasons = new Map<string, Map<string, number>>(names.map(name => [name, new Map()]))
  const accepted: string[] = []
  let same = 0
  for (let made = 0; made < MUTANTS;) {
    // A key pair's verification costs ten times an HMAC's; a fifth of the mutants is theirs.
    const issuer = random(5) > 0 ? HS : random(2) === 0 ? ES : ED
    const name = names[made % names.length] ?? ''
    const mutant = MUTATORS[name]?.(any(issuer.valid, random), issuer, random) ?? ''
    if (ALL_VALID.has(mutant)) {
      same++
      continue
    }
    made++
    const verification = issuer.tokens.verify(mutant, NOW)
    if (verification.valid) accepted.push(`${issuer.alg}, ${name}: ${mutant}`)
    else reasons.get(name)?.set(verification.reason, (reasons.get(name)?.get(verification.reason) ?? 0) + 1)
  }
  t.same(accepted.slice(0, 5), [], `${accepted.length} accepted`)
  for (const [name, counts] of reasons) t.comment(`${name}: ${[...counts].map(([reason, count]) => `${count} ${reason}`).join(', ')}`)
  const refusals = new Set([...reasons.values()].flatMap(counts => [...counts.keys()]))
  for (const reason of ['malformed', 'unknown-key', 'signature', 'claims', 'expired', 'not-yet-valid']) t.ok(refusals.has(reason), `some got as far as ${reason}`)
  t.comment(`${MUTANTS} mutants, seed ${SEED}; ${same} others were a valid token again and do not count`)
})

t.test('each published advisory of fast-jwt', async t => {
  const refused = (issuer: Issuer, token: string, name: string): void => { t.equal(issuer.tokens.verify(token, NOW).valid, false, name) }
  const [header, payload] = partsOf(HS.valid[0] ?? '')
  const claims = decode(payload)
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey
  const pkcs1 = rsa.export({ type: 'pkcs1', format: 'pem' }).toString()
  /** No key may be set up for HMAC that the whole world knows. */
  const noSecret = (material: string, name: string): void => {
    t.throws(() => tokensOf(material), `${name}: cannot sign`)
    t.throws(() => new PlaybackTokens({ signing: { kid: 'a', alg: 'HS256', material }, accepted: [], lifeSeconds: 60 }), `${name}: not by another way either`)
    t.throws(() => new PlaybackTokens({ signing: signingKey(SECRET, []), accepted: [{ kid: 'b', alg: 'HS256', material }], lifeSeconds: 60 }), `${name}: cannot verify`)
  }
  const asHmac = ({ valid }: Issuer, key: string | Buffer): string => {
    const [ownHeader, ownPayload] = partsOf(valid[0] ?? '')
    const input = `${encode({ ...decode(ownHeader), alg: 'HS256' })}.${ownPayload}`
    return `${input}.${hmac(input, key)}`
  }

  noSecret(pkcs1, 'CVE-2023-48223 (GHSA-c2ff-88x2-x9pg), an RSA public key in PKCS #1')
  for (const blank of [' ', '\t', '\n', '\r\n ', '\u00a0', '\ufeff']) noSecret(`${blank}${pkcs1}`, `CVE-2026-34950 (GHSA-mvf2-f6gm-w987), after ${JSON.stringify(blank)}`)
  for (const prefix of ['x', '# key\n', 'Bag Attributes\n', '\0']) noSecret(`${prefix}${pkcs1}`, `CVE-2026-107722 (GHSA-ww5h-9m49-7xx4), after ${JSON.stringify(prefix)}`)
  for (const text of [JSON.stringify(rsa.export({ format: 'jwk' })), JSON.stringify({ keys: [rsa.export({ format: 'jwk' })] }, null, 2), ` ${JSON.stringify(ES.tokens.jwks())}`]) {
    noSecret(text, 'CVE-2026-107724 (GHSA-g3jj-5cmm-3hxx), a JWK or JWKS as text')
  }
  for (const issuer of [ES, ED]) for (const key of issuer.publicTexts) refused(issuer, asHmac(issuer, key), `${issuer.alg}: the same confusion by a token, ${String(key).slice(0, 12)}…`)

  refused(HS, signAs(HS, decode(header), { ...claims, iss: ['https://attacker.example', 'viewing-service'] }), 'CVE-2025-30144 (GHSA-gm45-q3v2-6cf8), a list of issuers')
  for (const more of [{ crit: ['x-policy'], 'x-policy': 'mfa' }, { crit: [] }, { crit: ['b64'], b64: false }]) refused(HS, signAs(HS, { ...decode(header), ...more }, claims), 'CVE-2026-35042 (GHSA-hm7r-c7qw-ghp6), crit')
  refused(HS, signAs(HS, decode(header), [claims]), 'CVE-2026-107723 (GHSA-5hjw-83fp-phq9), a list as payload')
  t.throws(() => new PlaybackTokens({ signing: { kid: 'a', alg: 'HS256', material: '' }, accepted: [], lifeSeconds: 60 }), 'CVE-2026-107720 (GHSA-8wpc-h4q6-8fxv), an empty key')
  refused(HS, `${header}.${payload}.`, 'CVE-2026-107720, no signature')
  for (const kid of KIDS) {
    const input = `${encode({ ...decode(header), kid })}.${payload}`
    refused(HS, `${input}.${hmac(input, '')}`, `CVE-2026-44351 (GHSA-gmvf-9v4p-v8jc), an empty key for kid ${JSON.stringify(kid).slice(0, 20)}`)
  }
  const began = performance.now()
  refused(HS, signAs(HS, decode(header), { ...claims, iss: 'a'.repeat(2_500) + '!', aud: 'a'.repeat(200) + '!' }), 'CVE-2026-35041 (GHSA-cjw9-ghj4-fwxf), text made for backtracking')
  t.ok(performance.now() - began < 1_000, 'and it is refused at once')
  for (let round = 0; round < 6; round++) {
    t.same(HS.valid.map(token => HS.tokens.verify(token, NOW)).map(verified => verified.valid && verified.claims.user_id), ['user123', 'user-basic', 'u'],
      'CVE-2026-35039 (GHSA-rp9m-7r4c-75qg), CVE-2026-35040 (GHSA-3j8v-cgw4-2g6q): remembered or not, each token has its own claims, every time')
  }
  const { iat: _, ...withoutIat } = claims
  refused(HS, signAs(HS, decode(header), withoutIat), 'GHSA-x937-hj6v-793p, no iat')
  const [fresh = ''] = HS.valid
  t.match(HS.tokens.verify(fresh, NOW), { valid: true })
  t.match(HS.tokens.verify(fresh, NOW + 3_605_000), { valid: false, reason: 'expired' }, 'GHSA-x937-hj6v-793p, a remembered token ends with its exp')
  t.match(HS.tokens.verify(fresh, NOW - 5_001), { valid: false, reason: 'not-yet-valid' }, 'GHSA-687g-22h4-j4w4, the tolerance is five seconds for both ends')
})

t.test('the second signature that ECDSA has by its mathematics says the same and nothing else', async t => {
  const [header, payload, signature] = partsOf(ES.valid[0] ?? '')
  const bytes = Buffer.from(signature, 'base64url')
  const mirrored = (P256_ORDER - BigInt(`0x${bytes.subarray(32).toString('hex')}`)).toString(16).padStart(64, '0')
  const twin = `${header}.${payload}.${Buffer.concat([bytes.subarray(0, 32), Buffer.from(mirrored, 'hex')]).toString('base64url')}`
  t.same(ES.tokens.verify(twin, NOW), ES.tokens.verify(ES.valid[0] ?? '', NOW), 'RFC 7518 asks for no low s, so other issuers\' tokens have either')
  const next = partsOf(ES.valid[1] ?? '')
  t.equal(ES.tokens.verify(`${next[0]}.${next[1]}.${partsOf(twin)[2]}`, NOW).valid, false)
})
