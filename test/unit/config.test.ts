import t from 'tap'
import { ConfigError, DEVELOPMENT_SECRET, loadConfig, parseDuration } from '../../src/config.ts'
import { SettingsSchema } from '../../src/config/settings.ts'

type Env = Record<string, string>

/** Strong by the rule: 32 bytes or more, 10 different characters or more, no telling word. */
const KEYS = {
  playback: 'q7Jx2mVbL9sWcZ4kRt8YdHn3PfGu6EaK',
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

/** What is wrong with the environment, one text per problem; empty if nothing is. */
function problemsOf (env: Env): readonly string[] {
  try {
    loadConfig(env)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}

/** The variables that the problems begin with, sorted. */
const blamed = (env: Env) => problemsOf(env).map(problem => problem.slice(0, problem.indexOf(':'))).sort()

t.test('nothing set gives the stated defaults', async t => {
  const config = loadConfig({})
  t.equal(config.production, false)
  t.same(config.http, { host: '0.0.0.0', port: 8080, workers: 1, trustProxy: [], shutdownDelayMs: 1_000, corsOrigins: [] })
  t.same(config.session, { limit: 3, timeoutMs: 90_000, heartbeatMs: 30_000, heartbeatGapMs: 1_000, ttlMs: 86_400_000, endedTtlMs: 3_600_000, sweepMs: 5_000 })
  t.same(config.rateLimit, { perMinute: 120 })
  t.same(config.redis, { target: undefined, commandTimeoutMs: 500 })
  t.same(config.upstream, { identityUrl: undefined, contentUrl: undefined, deadlineMs: 300, freshMs: 60_000, staleMs: 600_000, defaultRegion: 'US' })
  t.same(config.auth, { mode: 'none' })
  t.same(config.admission, { durability: 'auto' })
  t.same(config.log, { level: 'info', format: 'auto' })
  t.same(config.event, { sink: { kind: 'log' }, heartbeats: 'all', outboxBytes: 268_435_456 })
  t.equal(config.token.lifeSeconds, 3_600)
  t.equal(config.token.generated, true)
  t.equal(config.token.signing.material, DEVELOPMENT_SECRET)
  t.equal(config.postgresUrlGiven, false)
})

t.test('every variable has a description, and every default fits its schema', async t => {
  for (const [name, schema] of Object.entries(SettingsSchema.properties)) t.ok((schema.description ?? '').length > 10, name)
  t.same(problemsOf({}), [])
})

t.test('empty and blank variables count as unset, unknown ones are ignored, values are trimmed', async t => {
  const config = loadConfig({ PORT: '', SESSION_TIMEOUT: '  ', JWT_SECRET: '', NO_SUCH_SETTING: 'x', HEARTBEAT_INTERVAL: ' 20s\n' })
  t.equal(config.http.port, 8080)
  t.equal(config.session.timeoutMs, 90_000)
  t.equal(config.token.generated, true)
  t.equal(config.session.heartbeatMs, 20_000)
})

t.test('the configuration is frozen, down to the last list', async t => {
  const config = loadConfig({ TRUST_PROXY: '10.0.0.0/8', JWT_SECRETS_ACCEPTED: 'one,two' })
  for (const part of [config, config.session, config.http.trustProxy, config.token.accepted, config.token.accepted[0]]) t.ok(Object.isFrozen(part))
  t.throws(() => { config.session.limit = 99 }, TypeError)
})

t.test('durations take units, sums of units, and bare seconds', async t => {
  const expected: Record<string, number | undefined> = {
    '300ms': 300,
    '90s': 90_000,
    '5m': 300_000,
    '24h': 86_400_000,
    '7d': 604_800_000,
    '1h30m': 5_400_000,
    '1m500ms': 60_500,
    90: 90_000,
    0: 0,
    '': undefined,
    s: undefined,
    '1.5h': undefined,
    '-1s': undefined,
    '10 s': undefined,
    '1w': undefined,
    '1H': undefined,
    '1h30': undefined,
    '1e3s': undefined
  }
  for (const [text, ms] of Object.entries(expected)) t.equal(parseDuration(text), ms, `"${text}"`)
  t.equal(loadConfig({ SESSION_TIMEOUT: '60' }).session.timeoutMs, 60_000)
})

t.test('a value of the wrong kind is named with what is expected', async t => {
  const cases: Array<[Env, RegExp]> = [
    [{ PORT: 'http' }, /^PORT: must be a whole number from 0 to 65535$/],
    [{ PORT: '65536' }, /^PORT: /],
    [{ PORT: '80.5' }, /^PORT: /],
    [{ WORKERS: '0' }, /^WORKERS: must be a whole number from 1 to 64$/],
    [{ MAX_CONCURRENT_STREAMS: '101' }, /^MAX_CONCURRENT_STREAMS: must be a whole number from 1 to 100$/],
    [{ SESSION_TTL: 'soon' }, /^SESSION_TTL: must be a duration/],
    [{ SWEEP_INTERVAL: '0s' }, /^SWEEP_INTERVAL: must be a duration/],
    [{ HEARTBEAT_MIN_GAP: '-1s' }, /^HEARTBEAT_MIN_GAP: must be a duration such as 500ms, 90s, 24h, or 0 for none/],
    [{ SWEEP_INTERVAL: '366d' }, /^SWEEP_INTERVAL: must be a duration/],
    [{ NODE_ENV: 'prod' }, /^NODE_ENV: must be one of development, test, production$/],
    [{ LOG_LEVEL: 'loud' }, /^LOG_LEVEL: must be one of /],
    [{ AUTH_MODE: 'open' }, /^AUTH_MODE: must be one of jwt, gateway, none$/],
    [{ REDIS_TLS: 'yes' }, /^REDIS_TLS: must be true or false$/],
    [{ REDIS_DB: '16' }, /^REDIS_DB: /],
    [{ DEFAULT_REGION: 'usa' }, /^DEFAULT_REGION: must match /],
    [{ CORS_ORIGINS: ' , ' }, /^CORS_ORIGINS: must be a comma-separated list of 1 to 64 entries$/],
    [{ CORS_ORIGINS: 'https://a.example/path' }, /^CORS_ORIGINS: each entry must be \* or an origin/],
    [{ CORS_ORIGINS: 'a.example' }, /^CORS_ORIGINS: /],
    [{ TRUST_PROXY: '10.0.0.0/8,gateway' }, /^TRUST_PROXY: each entry must be an IP address or a subnet/],
    [{ TRUST_PROXY: '10.0.0.0/33' }, /^TRUST_PROXY: /],
    [{ TRUST_PROXY: '10.0.0.0/' }, /^TRUST_PROXY: /],
    [{ IDENTITY_URL: 'identity:80' }, /^IDENTITY_URL: must match /],
    [{ CONTENT_URL: 'http://[bad' }, /^CONTENT_URL: must be a URL$/],
    [{ POSTGRES_URL: 'mysql://db/x' }, /^POSTGRES_URL: must match /],
    [{ KAFKA_TOPIC: 'a b' }, /^KAFKA_TOPIC: must match /]
  ]
  for (const [env, problem] of cases) {
    const problems = problemsOf(env)
    t.equal(problems.length, 1, JSON.stringify(env))
    t.match(problems[0], problem)
  }
})

t.test('values at the edges are taken', async t => {
  t.same(problemsOf({ PORT: '0', WORKERS: '64', MAX_CONCURRENT_STREAMS: '100', REDIS_ADDR: 'r:1', REDIS_DB: '15', REDIS_TLS: 'true' }), [])
  t.same(problemsOf({ TRUST_PROXY: '127.0.0.1, 10.0.0.0/8, ::1, fd00::/8', CORS_ORIGINS: '*' }), [])
  t.same(problemsOf({ CORS_ORIGINS: 'https://player.example,http://localhost:5173', POSTGRES_URL: 'postgres://u:p@db/x' }), [])
  t.equal(loadConfig({ POSTGRES_URL: 'postgresql://db/x' }).postgresUrlGiven, true)
})

t.test('all problems come at once: kinds, rules between variables, and what production refuses', async t => {
  t.same(blamed({ NODE_ENV: 'production', PORT: 'x', LOG_LEVEL: 'y', SESSION_TIMEOUT: '3h', KAFKA_BROKERS: 'nowhere', REDIS_CLUSTER: 'a' }), [
    'AUTH_MODE', 'CONTENT_URL', 'IDENTITY_URL', 'JWT_SECRET', 'KAFKA_BROKERS', 'LOG_LEVEL', 'PORT', 'REDIS_CLUSTER', 'SESSION_TIMEOUT', 'SESSION_TTL'
  ])
  const message = t.throws(() => loadConfig({ PORT: 'x', WORKERS: 'y' }), ConfigError)
  t.match(String(message), /invalid:\n {2}- PORT: .*\n {2}- WORKERS: /)
})

t.test('a refused variable is named once, and not for the rules it takes part in', async t => {
  t.same(blamed({ SESSION_TIMEOUT: 'x', SESSION_TTL: '1s' }), ['SESSION_TIMEOUT'])
  t.same(blamed({ ...PRODUCTION, IDENTITY_URL: 'x' }), ['IDENTITY_URL'])
  t.same(blamed({ ...PRODUCTION, AUTH_MODE: 'x' }), ['AUTH_MODE'])
})

t.test('no value is echoed, whatever is wrong with it', async t => {
  const value = 'Zx9Marker'
  const known = Object.keys(SettingsSchema.properties)
  const everything = Object.fromEntries(known.map(name => [name, value]))
  const broken: Env[] = [
    everything,
    { ...everything, NODE_ENV: 'production', AUTH_MODE: 'jwt' },
    { JWT_SECRET: `-----BEGIN PRIVATE KEY-----\n${value}\n-----END PRIVATE KEY-----` },
    { JWT_SECRETS_ACCEPTED: `-----BEGIN PUBLIC KEY-----\n${value}\n-----END PUBLIC KEY-----` },
    { REDIS_URL: `redis://:%ZZ${value}@redis:6379` },
    { REDIS_CLUSTER: `${value},${value}` }
  ]
  for (const env of broken) {
    const error = t.throws(() => loadConfig(env), ConfigError)
    t.ok(!String(error instanceof Error ? `${error.message}${error.stack}` : error).includes(value))
  }
})

t.test('session times have to fit each other', async t => {
  t.same(blamed({ SESSION_TIMEOUT: '2h' }), ['SESSION_TIMEOUT'])
  t.same(blamed({ SESSION_TIMEOUT: '119m' }), [])
  t.same(blamed({ SESSION_TTL: '899s' }), ['SESSION_TTL'])
  t.same(blamed({ SESSION_TTL: '900s' }), [])
  t.same(blamed({ HEARTBEAT_INTERVAL: '46s' }), ['HEARTBEAT_INTERVAL'])
  t.same(blamed({ HEARTBEAT_INTERVAL: '45s' }), [])
  t.same(blamed({ HEARTBEAT_INTERVAL: '900ms' }), ['HEARTBEAT_INTERVAL'])
  t.same(blamed({ HEARTBEAT_INTERVAL: '1500ms' }), ['HEARTBEAT_INTERVAL'])
  t.same(blamed({ HEARTBEAT_INTERVAL: '1s' }), [])
  t.same(blamed({ HEARTBEAT_MIN_GAP: '15001ms' }), ['HEARTBEAT_MIN_GAP'])
  t.same(blamed({ HEARTBEAT_MIN_GAP: '15s' }), [])
  const gap = (env: Env): number => loadConfig(env).session.heartbeatGapMs
  t.same([gap({}), gap({ HEARTBEAT_INTERVAL: '1s' }), gap({ HEARTBEAT_MIN_GAP: '0' }), gap({ HEARTBEAT_MIN_GAP: '2s' })], [1_000, 500, 0, 2_000])
  t.same(blamed({ JWT_EXPIRATION: '59s' }), ['JWT_EXPIRATION'])
  t.same(blamed({ JWT_EXPIRATION: '60s' }), [])
  t.same(blamed({ JWT_EXPIRATION: '61m' }), ['ENDED_TTL'])
  t.same(blamed({ JWT_EXPIRATION: '61m', ENDED_TTL: '61m' }), [])
})

t.test('each way to name a Redis is understood', async t => {
  const target = (env: Env) => loadConfig(env).redis.target
  t.same(target({ REDIS_ADDR: 'redis:6380' }), { kind: 'single', host: 'redis', port: 6380, tls: false, db: 0 })
  t.same(target({ REDIS_ADDR: '[::1]:6379', REDIS_TLS: 'true', REDIS_DB: '2' }), { kind: 'single', host: '::1', port: 6379, tls: true, db: 2 })
  t.same(target({ REDIS_URL: 'redis://redis' }), { kind: 'single', host: 'redis', port: 6379, tls: false, db: 0 })
  t.same(target({ REDIS_URL: 'rediss://me:p%40ss@redis:1/3' }), { kind: 'single', host: 'redis', port: 1, tls: true, db: 3, username: 'me', password: 'p@ss' })
  t.same(target({ REDIS_URL: 'redis://[::1]:1' }), { kind: 'single', host: '::1', port: 1, tls: false, db: 0 })
  t.same(target({ REDIS_URL: 'redis://redis', REDIS_DB: '4', REDIS_USERNAME: 'me', REDIS_PASSWORD: 'word' }),
    { kind: 'single', host: 'redis', port: 6379, tls: false, db: 4, username: 'me', password: 'word' })
  t.same(target({ REDIS_CLUSTER: 'a:1, b:2', REDIS_PASSWORD: 'word' }),
    { kind: 'cluster', nodes: [{ host: 'a', port: 1 }, { host: 'b', port: 2 }], tls: false, password: 'word' })
  t.same(target({ REDIS_SENTINELS: 'a:1,b:2', REDIS_DB: '1' }),
    { kind: 'sentinel', sentinels: [{ host: 'a', port: 1 }, { host: 'b', port: 2 }], name: 'mymaster', tls: false, db: 1 })
  t.match(target({ REDIS_SENTINELS: 'a:1', REDIS_SENTINEL_NAME: 'plays' }), { name: 'plays' })
})

t.test('REDIS_URL wins over REDIS_ADDR, and what it says over the separate variables', async t => {
  t.match(loadConfig({ REDIS_URL: 'redis://one', REDIS_ADDR: 'two:1' }).redis.target, { host: 'one' })
  t.match(loadConfig({ REDIS_URL: 'redis://u:p@one/5', REDIS_USERNAME: 'x', REDIS_PASSWORD: 'y', REDIS_DB: '1' }).redis.target, { username: 'u', password: 'p', db: 5 })
})

t.test('a Redis that cannot be meant is refused', async t => {
  const cases: Array<[Env, string]> = [
    [{ REDIS_URL: 'http://redis' }, 'REDIS_URL'],
    [{ REDIS_URL: 'redis:///0' }, 'REDIS_URL'],
    [{ REDIS_URL: 'redis://redis/zero' }, 'REDIS_URL'],
    [{ REDIS_URL: 'redis://redis:99999' }, 'REDIS_URL'],
    [{ REDIS_ADDR: 'redis' }, 'REDIS_ADDR'],
    [{ REDIS_ADDR: 'redis:0' }, 'REDIS_ADDR'],
    [{ REDIS_ADDR: 'redis:65536' }, 'REDIS_ADDR'],
    [{ REDIS_ADDR: 'redis://redis:6379' }, 'REDIS_ADDR'],
    [{ REDIS_CLUSTER: 'a:1,b' }, 'REDIS_CLUSTER'],
    [{ REDIS_SENTINELS: 'a:1,:2' }, 'REDIS_SENTINELS'],
    [{ REDIS_CLUSTER: 'a:1', REDIS_DB: '1' }, 'REDIS_DB'],
    [{ REDIS_CLUSTER: 'a:1', REDIS_SENTINELS: 'b:1' }, 'REDIS_URL or REDIS_ADDR, REDIS_CLUSTER, REDIS_SENTINELS'],
    [{ REDIS_CLUSTER: 'a:1', REDIS_ADDR: 'b:1' }, 'REDIS_URL or REDIS_ADDR, REDIS_CLUSTER, REDIS_SENTINELS']
  ]
  for (const [env, name] of cases) t.same(blamed(env), [name], JSON.stringify(env))
})

t.test('a second region is one that is named; a cluster cannot have one', async t => {
  t.equal(loadConfig({}).region, undefined)
  t.same(loadConfig({ WRITER_URL: 'https://viewing.eu.example/base' }).region, { writerUrl: 'https://viewing.eu.example/base', deadlineMs: 2_000 })
  t.same(loadConfig({ WRITER_URL: 'http://a', WRITER_DEADLINE: '500ms', REDIS_SENTINELS: 'a:1' }).region, { writerUrl: 'http://a', deadlineMs: 500 })
  t.same(blamed({ WRITER_URL: 'http://a', REDIS_CLUSTER: 'a:1' }), ['WRITER_URL'])
  t.same(blamed({ WRITER_URL: 'redis://a' }), ['WRITER_URL'])
  t.same(blamed({ WRITER_URL: 'http://[bad' }), ['WRITER_URL'])
})

t.test('events go to Kafka exactly when brokers are given or asked for', async t => {
  t.same(loadConfig({ KAFKA_BROKERS: 'a:1,b:2', KAFKA_TOPIC: 'plays' }).event.sink, { kind: 'kafka', brokers: ['a:1', 'b:2'], topic: 'plays', tls: false, sasl: undefined })
  t.same(loadConfig({ KAFKA_BROKERS: 'a:1', EVENT_SINK: 'log' }).event.sink, { kind: 'log' })
  t.same(blamed({ EVENT_SINK: 'kafka' }), ['KAFKA_BROKERS'])
  t.same(blamed({ KAFKA_BROKERS: 'a:1,b' }), ['KAFKA_BROKERS'])
  const sasl = { KAFKA_BROKERS: 'a:1', KAFKA_SASL_MECHANISM: 'plain', KAFKA_SASL_USERNAME: 'u', KAFKA_SASL_PASSWORD: 'p' }
  t.match(loadConfig({ ...sasl, KAFKA_TLS: 'true' }).event.sink, { tls: true, sasl: { mechanism: 'plain', username: 'u', password: 'p' } })
  for (const name of ['KAFKA_SASL_MECHANISM', 'KAFKA_SASL_USERNAME', 'KAFKA_SASL_PASSWORD']) t.match(blamed({ ...sasl, [name]: '' }), ['KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD'], `${name} is missing`)
  t.ok(blamed({ ...sasl, NODE_ENV: 'production' }).includes('KAFKA_SASL_MECHANISM'), 'no readable password in production')
  t.notOk(blamed({ ...sasl, NODE_ENV: 'production', KAFKA_TLS: 'true' }).includes('KAFKA_SASL_MECHANISM'))
})
