import { createHash, generateKeyPairSync, type KeyObject } from 'node:crypto'
import t from 'tap'
import { ConfigError, DEVELOPMENT_SECRET, loadConfig } from '../../src/config.ts'

type Env = Record<string, string>

/** Strong by the rule: 32 bytes or more, 10 different characters or more, no telling word. */
const KEYS = {
  playback: 'q7Jx2mVbL9sWcZ4kRt8YdHn3PfGu6EaK',
  next: 'W3eR5tY7uI9oP1aS2dF4gH6jK8lZ0xCv',
  gateway: 'mN8bV6cX4zL2kJ0hG9fD7sA5pO3iU1yT'
}

const PRODUCTION: Env = {
  NODE_ENV: 'production',
  JWT_SECRET: KEYS.playback,
  AUTH_MODE: 'gateway',
  AUTH_GATEWAY_SECRET: KEYS.gateway,
  REDIS_ADDR: 'redis:6379',
  IDENTITY_URL: 'http://identity',
  CONTENT_URL: 'http://content'
}

/** The variables that are refused, sorted; empty if none is. */
function blamed (env: Env): string[] {
  try {
    loadConfig(env)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems.map(problem => problem.slice(0, problem.indexOf(':'))).sort()
    throw error
  }
}

const pair = (curve: 'P-256' | 'P-384' | 'ed25519') => curve === 'ed25519' ? generateKeyPairSync('ed25519') : generateKeyPairSync('ec', { namedCurve: curve })
const privatePem = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }).toString()
const publicPem = (key: KeyObject) => key.export({ type: 'spki', format: 'pem' }).toString()
const kidOf = (bytes: string | Buffer) => createHash('sha256').update(bytes).digest('hex').slice(0, 8)

t.test('a text is an HS256 key; its kid is the start of its SHA-256', async t => {
  const { signing, accepted, generated } = loadConfig({ JWT_SECRET: KEYS.playback, JWT_SECRETS_ACCEPTED: ` ${KEYS.next} ,, other` }).token
  t.same(signing, { kid: kidOf(KEYS.playback), alg: 'HS256', material: KEYS.playback })
  t.same(accepted, [
    { kid: kidOf(KEYS.next), alg: 'HS256', material: KEYS.next },
    { kid: kidOf('other'), alg: 'HS256', material: 'other' }
  ])
  t.equal(generated, false)
})

t.test('a PEM private key signs by its curve, and has the kid of its public half', async t => {
  for (const [curve, alg] of [['P-256', 'ES256'], ['ed25519', 'EdDSA']] as const) {
    const { privateKey, publicKey } = pair(curve)
    const { token } = loadConfig({ JWT_SECRET: privatePem(privateKey), JWT_SECRETS_ACCEPTED: publicPem(publicKey) })
    t.equal(token.signing.alg, alg)
    t.equal(token.signing.kid, kidOf(publicKey.export({ type: 'spki', format: 'der' })))
    t.same(token.accepted, [{ kid: token.signing.kid, alg, material: publicPem(publicKey) }])
    const oneLine = loadConfig({ JWT_SECRET: privatePem(privateKey).replaceAll('\n', '\\n') })
    t.same(oneLine.token.signing.kid, token.signing.kid, 'with \\n written out, as in an env file')
  }
})

t.test('several public keys may follow one another, and a private one is kept as its public half', async t => {
  const [one, two] = [pair('P-256'), pair('ed25519')]
  const { accepted } = loadConfig({ JWT_SECRET: KEYS.playback, JWT_SECRETS_ACCEPTED: `${publicPem(one.publicKey)}${privatePem(two.privateKey)}` }).token
  t.same(accepted.map(key => key.alg), ['ES256', 'EdDSA'])
  t.same(accepted.map(key => key.material), [publicPem(one.publicKey), publicPem(two.publicKey)])
})

t.test('a key that cannot be used is refused, never passed over', async t => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const good = publicPem(pair('P-256').publicKey)
  for (const material of [privatePem(pair('P-384').privateKey), privatePem(rsa.privateKey), good, '-----BEGIN PRIVATE KEY-----']) {
    t.same(blamed({ JWT_SECRET: material }), ['JWT_SECRET'])
  }
  for (const material of [publicPem(pair('P-384').publicKey), publicPem(rsa.publicKey), '-----BEGIN PUBLIC KEY-----', `${good},${KEYS.next}`, `${good}${good.slice(0, 60)}`]) {
    t.same(blamed({ JWT_SECRETS_ACCEPTED: material }), ['JWT_SECRETS_ACCEPTED'])
  }
})

t.test('the idempotency secret is its own, or derived from the signing key', async t => {
  t.equal(loadConfig({ IDEMPOTENCY_SECRET: 'mine' }).idempotencySecret, 'mine')
  const one = loadConfig({ JWT_SECRET: 'one' }).idempotencySecret
  t.match(one, /^[0-9a-f]{64}$/)
  t.equal(loadConfig({ JWT_SECRET: 'one' }).idempotencySecret, one)
  t.ok(loadConfig({ JWT_SECRET: 'two' }).idempotencySecret !== one)
})

t.test('each AUTH_MODE asks for what it needs', async t => {
  t.same(blamed({ AUTH_MODE: 'gateway' }), ['AUTH_GATEWAY_SECRET'])
  t.same(blamed({ AUTH_MODE: 'jwt' }), ['AUTH_AUDIENCE', 'AUTH_ISSUER', 'AUTH_JWT_SECRET, AUTH_JWKS_URL'])
  const jwt = { AUTH_MODE: 'jwt', AUTH_ISSUER: 'https://id', AUTH_AUDIENCE: 'plays' }
  t.same(blamed({ ...jwt, AUTH_JWT_SECRET: 'a', AUTH_JWKS_URL: 'https://id/jwks' }), ['AUTH_JWT_SECRET, AUTH_JWKS_URL'])
  t.same(loadConfig({ ...jwt, AUTH_JWT_SECRET: 'a' }).auth, { mode: 'jwt', issuer: 'https://id', audience: 'plays', jwtSecret: 'a' })
  t.same(loadConfig({ ...jwt, AUTH_JWKS_URL: 'https://id/jwks' }).auth, { mode: 'jwt', issuer: 'https://id', audience: 'plays', jwksUrl: 'https://id/jwks' })
  t.same(loadConfig({ AUTH_MODE: 'gateway', AUTH_GATEWAY_SECRET: 'a' }).auth, { mode: 'gateway', gatewaySecret: 'a' })
  t.same(loadConfig({ AUTH_MODE: 'none' }).auth, { mode: 'none' })
})

t.test('a playback key is no other key, not even one that only verifies', async t => {
  const jwt = { AUTH_MODE: 'jwt', AUTH_ISSUER: 'i', AUTH_AUDIENCE: 'a' }
  t.same(blamed({ ...jwt, JWT_SECRET: 'one', AUTH_JWT_SECRET: 'one' }), ['AUTH_JWT_SECRET'])
  t.same(blamed({ ...jwt, JWT_SECRET: 'one', JWT_SECRETS_ACCEPTED: 'old,two', AUTH_JWT_SECRET: 'two' }), ['AUTH_JWT_SECRET'])
  t.same(blamed({ AUTH_MODE: 'gateway', JWT_SECRET: 'one', AUTH_GATEWAY_SECRET: 'one' }), ['AUTH_GATEWAY_SECRET'])
  t.same(blamed({ ...jwt, AUTH_JWT_SECRET: DEVELOPMENT_SECRET }), ['AUTH_JWT_SECRET'])
})

t.test('production starts with everything given, and with nothing missing', async t => {
  t.equal(loadConfig(PRODUCTION).production, true)
  t.same(blamed({ NODE_ENV: 'production' }), [
    'AUTH_MODE', 'CONTENT_URL', 'IDENTITY_URL', 'JWT_SECRET', 'REDIS_URL, REDIS_ADDR, REDIS_CLUSTER or REDIS_SENTINELS'
  ])
  t.same(blamed({ ...PRODUCTION, AUTH_MODE: 'none' }), ['AUTH_MODE'])
  t.same(blamed({ ...PRODUCTION, AUTH_MODE: '' }), ['AUTH_MODE'])
})

t.test('production refuses weak secrets wherever they stand; development takes them', async t => {
  const weak = {
    short: KEYS.next.slice(0, 31),
    monotonous: 'abababab'.repeat(8),
    telling: `my-Password-${KEYS.next}`,
    development: DEVELOPMENT_SECRET
  }
  for (const [why, value] of Object.entries(weak)) {
    t.same(blamed({ ...PRODUCTION, JWT_SECRET: value }), ['JWT_SECRET'], `JWT_SECRET: ${why}`)
    for (const name of ['JWT_SECRETS_ACCEPTED', 'AUTH_GATEWAY_SECRET', 'IDEMPOTENCY_SECRET']) {
      t.same(blamed({ ...PRODUCTION, [name]: value }), [name], `${name}: ${why}`)
    }
    const jwt = { AUTH_MODE: 'jwt', AUTH_ISSUER: 'i', AUTH_AUDIENCE: 'a', AUTH_JWT_SECRET: value }
    t.same(blamed({ ...PRODUCTION, ...jwt }), ['AUTH_JWT_SECRET'], `AUTH_JWT_SECRET: ${why}`)
  }
  t.same(blamed({ ...PRODUCTION, JWT_SECRETS_ACCEPTED: KEYS.next, IDEMPOTENCY_SECRET: KEYS.next }), [])
  t.same(blamed({ ...PRODUCTION, JWT_SECRET: privatePem(pair('ed25519').privateKey) }), [], 'a key pair has no length to judge')
  t.same(blamed({ JWT_SECRET: 'short' }), [])
})
