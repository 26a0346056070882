import { createHmac } from 'node:crypto'
import { isIP } from 'node:net'
import type { TSchema } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { acceptedKeys, type PlaybackKey, signingKey } from './config/playback-keys.ts'
import { addresses, redisTarget, type RedisTarget } from './config/redis-target.ts'
import { type SettingName, type Settings, SettingsSchema } from './config/settings.ts'

export type AuthConfig =
  | { mode: 'none' }
  | { mode: 'gateway', gatewaySecret: string }
  | { mode: 'jwt', issuer: string, audience: string, jwtSecret?: string, jwksUrl?: string }

export interface KafkaSasl { mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512', username: string, password: string }
export type EventSinkConfig = { kind: 'log' } | { kind: 'kafka', brokers: string[], topic: string, tls: boolean, sasl: KafkaSasl | undefined }

/** The settings in the shape the code uses; frozen. Times are milliseconds unless the name says otherwise. */
export interface Config {
  production: boolean
  http: { host: string, port: number, workers: number, trustProxy: string[], shutdownDelayMs: number, corsOrigins: string[] }
  log: { level: Settings['LOG_LEVEL'], format: 'json' | 'ecs' | 'pretty' | 'auto' }
  redis: { target: RedisTarget | undefined, commandTimeoutMs: number }
  admission: { durability: 'replicated' | 'local' | 'auto' }
  upstream: { identityUrl: string | undefined, contentUrl: string | undefined, deadlineMs: number, freshMs: number, staleMs: number, defaultRegion: string }
  /** The other region; `undefined`: there is none. */
  region: { writerUrl: string, deadlineMs: number } | undefined
  token: { signing: PlaybackKey, accepted: PlaybackKey[], lifeSeconds: number, generated: boolean }
  idempotencySecret: string
  auth: AuthConfig
  session: { limit: number, timeoutMs: number, heartbeatMs: number, heartbeatGapMs: number, ttlMs: number, endedTtlMs: number, sweepMs: number }
  /** Requests of one user; 0: no limit. */
  rateLimit: { perMinute: number }
  event: { sink: EventSinkConfig, heartbeats: Settings['HEARTBEAT_EVENTS'], outboxBytes: number }
  /** `undefined`: off. */
  tracing: { endpoint: string, serviceName: string, ratio: number } | undefined
  postgresUrlGiven: boolean
}

/** All that is wrong with the environment, at once. Holds names and reasons, never values. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly string[]

  constructor (problems: readonly string[]) {
    super(`The configuration is invalid:\n${problems.map(problem => `  - ${problem}`).join('\n')}`)
    this.problems = problems
  }
}

/** Development only: makes `npm start` work with nothing set. Refused in production, announced at start. */
export const DEVELOPMENT_SECRET = 'viewing-service-development-secret-do-not-use'
const MIN_SECRET_BYTES = 32
const LONGEST_DEFAULT_GAP_MS = 1_000
const UNITS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/**
 * Reads the configuration from environment variables. Empty variables count as unset; variables the service does not know are ignored.
 * @throws ConfigError naming every invalid variable.
 */
export function loadConfig (env: Readonly<Record<string, string | undefined>>): Config {
  const { settings, invalid, problems } = readSettings(env)
  const further: string[] = []
  const config = build(settings, further)
  checkFormats(settings, further)
  checkRelations(settings, config, further)
  // What is said about a variable that is already refused would be about the default in its place.
  problems.push(...further.filter(problem => !invalid.some(name => new RegExp(`\\b${name}\\b`).test(problem))))
  if (problems.length > 0) throw new ConfigError(problems)
  return deepFreeze(config)
}

/** Milliseconds of `90s`, `24h`, `300ms`, `1h30m`, or of a bare number of seconds; undefined if it is none of these. */
export function parseDuration (text: string): number | undefined {
  if (/^\d{1,12}$/.test(text)) return Number(text) * 1_000
  if (!/^(\d{1,12}(ms|s|m|h|d))+$/.test(text)) return undefined
  let total = 0
  for (const [, amount, unit] of text.matchAll(/(\d+)(ms|s|m|h|d)/g)) total += Number(amount) * (UNITS[unit ?? ''] ?? 0)
  return total
}

/** The settings, with the default in the place of every invalid one, so that the rules between the others can still be checked. */
function readSettings (env: Readonly<Record<string, string | undefined>>): { settings: Settings, invalid: SettingName[], problems: string[] } {
  const values: Record<string, unknown> = {}
  const invalid: SettingName[] = []
  const problems: string[] = []
  for (const name of Object.keys(SettingsSchema.properties) as SettingName[]) {
    const schema: TSchema = SettingsSchema.properties[name]
    const fallback: unknown = schema.default === undefined ? undefined : convert(String(schema.default), schema)
    const text = env[name]?.trim()
    const value = text ? convert(text, schema) : fallback
    const valid = value === undefined || Value.Check(schema, value)
    if (!valid) {
      invalid.push(name)
      problems.push(`${name}: ${expectation(schema)}`)
    }
    const used = valid ? value : fallback
    if (used !== undefined) values[name] = used
  }
  if (!Value.Check(SettingsSchema, values)) throw new TypeError('a default of the settings does not fit its schema')
  return { settings: values, invalid, problems }
}

/** What cannot be converted stays text, so that the schema check names it. */
function convert (text: string, schema: TSchema): unknown {
  if (schema.unit === 'duration') return parseDuration(text) ?? text
  if (schema.type === 'integer') return /^-?\d{1,15}$/.test(text) ? Number(text) : text
  if (schema.type === 'boolean') return text === 'true' ? true : text === 'false' ? false : text
  if (schema.type === 'array') return text.split(',').map(item => item.trim()).filter(item => item !== '')
  return text
}

function expectation (schema: TSchema): string {
  if (schema.unit === 'duration') return `must be a duration such as 500ms, 90s, 24h, ${schema.minimum === 0 ? 'or 0 for none' : 'more than 0'}, at most 365d`
  if (Array.isArray(schema.enum)) return `must be one of ${schema.enum.join(', ')}`
  if (schema.type === 'integer') return `must be a whole number from ${schema.minimum} to ${schema.maximum}`
  if (schema.type === 'boolean') return 'must be true or false'
  if (schema.type === 'array') return `must be a comma-separated list of ${schema.minItems} to ${schema.maxItems} entries`
  if (schema.pattern !== undefined) return `must match ${schema.pattern}`
  return `must be ${schema.minLength} to ${schema.maxLength} characters`
}

function build (settings: Settings, problems: string[]): Config {
  const generated = settings.JWT_SECRET === undefined
  const signing = signingKey(settings.JWT_SECRET ?? DEVELOPMENT_SECRET, problems)
  return {
    production: settings.NODE_ENV === 'production',
    http: {
      host: settings.HOST,
      port: settings.PORT,
      workers: settings.WORKERS,
      trustProxy: settings.TRUST_PROXY ?? [],
      shutdownDelayMs: settings.SHUTDOWN_DELAY,
      corsOrigins: settings.CORS_ORIGINS ?? []
    },
    log: { level: settings.LOG_LEVEL, format: settings.LOG_FORMAT ?? 'auto' },
    redis: { target: redisTarget(settings, problems), commandTimeoutMs: settings.REDIS_COMMAND_TIMEOUT },
    admission: { durability: settings.ADMISSION_DURABILITY ?? 'auto' },
    upstream: {
      identityUrl: settings.IDENTITY_URL,
      contentUrl: settings.CONTENT_URL,
      deadlineMs: settings.UPSTREAM_DEADLINE,
      freshMs: settings.DECISION_FRESH,
      staleMs: settings.DECISION_STALE,
      defaultRegion: settings.DEFAULT_REGION
    },
    region: settings.WRITER_URL === undefined ? undefined : { writerUrl: settings.WRITER_URL, deadlineMs: settings.WRITER_DEADLINE },
    token: {
      signing,
      accepted: acceptedKeys(settings.JWT_SECRETS_ACCEPTED, problems),
      lifeSeconds: Math.floor(settings.JWT_EXPIRATION / 1_000),
      generated
    },
    idempotencySecret: settings.IDEMPOTENCY_SECRET ??
      createHmac('sha256', signing.material).update('viewing-service idempotency').digest('hex'),
    auth: authConfig(settings, problems),
    session: {
      limit: settings.MAX_CONCURRENT_STREAMS,
      timeoutMs: settings.SESSION_TIMEOUT,
      heartbeatMs: settings.HEARTBEAT_INTERVAL,
      heartbeatGapMs: settings.HEARTBEAT_MIN_GAP ?? Math.min(LONGEST_DEFAULT_GAP_MS, settings.HEARTBEAT_INTERVAL / 2),
      ttlMs: settings.SESSION_TTL,
      endedTtlMs: settings.ENDED_TTL,
      sweepMs: settings.SWEEP_INTERVAL
    },
    rateLimit: { perMinute: settings.USER_RATE_LIMIT },
    event: { sink: eventSink(settings, problems), heartbeats: settings.HEARTBEAT_EVENTS, outboxBytes: settings.OUTBOX_BYTES },
    tracing: settings.OTEL_EXPORTER_OTLP_ENDPOINT === undefined
      ? undefined
      : { endpoint: settings.OTEL_EXPORTER_OTLP_ENDPOINT, serviceName: settings.OTEL_SERVICE_NAME, ratio: Number(settings.OTEL_TRACES_SAMPLER_ARG) },
    postgresUrlGiven: settings.POSTGRES_URL !== undefined
  }
}

function eventSink (settings: Settings, problems: string[]): EventSinkConfig {
  const brokers = settings.KAFKA_BROKERS
  const kind = settings.EVENT_SINK ?? (brokers === undefined ? 'log' : 'kafka')
  if (kind === 'log') return { kind }
  if (brokers === undefined) problems.push('KAFKA_BROKERS: required with EVENT_SINK=kafka')
  else addresses('KAFKA_BROKERS', brokers, problems)
  const { KAFKA_SASL_MECHANISM: mechanism, KAFKA_SASL_USERNAME: username, KAFKA_SASL_PASSWORD: password } = settings
  const given = [mechanism, username, password].filter(part => part !== undefined).length
  // Half a set would be taken for none, and the service would go on without events.
  if (given !== 0 && given !== 3) problems.push('KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD: all three or none')
  return {
    kind,
    brokers: [...brokers ?? []],
    topic: settings.KAFKA_TOPIC,
    tls: settings.KAFKA_TLS,
    sasl: mechanism === undefined || username === undefined || password === undefined ? undefined : { mechanism, username, password }
  }
}

function authConfig (settings: Settings, problems: string[]): AuthConfig {
  const mode = settings.AUTH_MODE ?? 'none'
  if (mode === 'none') return { mode }
  if (mode === 'gateway') {
    if (settings.AUTH_GATEWAY_SECRET === undefined) problems.push('AUTH_GATEWAY_SECRET: required with AUTH_MODE=gateway')
    return { mode, gatewaySecret: settings.AUTH_GATEWAY_SECRET ?? '' }
  }
  if (settings.AUTH_ISSUER === undefined) problems.push('AUTH_ISSUER: required with AUTH_MODE=jwt')
  if (settings.AUTH_AUDIENCE === undefined) problems.push('AUTH_AUDIENCE: required with AUTH_MODE=jwt')
  if ((settings.AUTH_JWT_SECRET === undefined) === (settings.AUTH_JWKS_URL === undefined)) {
    problems.push('AUTH_JWT_SECRET, AUTH_JWKS_URL: exactly one is required with AUTH_MODE=jwt')
  }
  return {
    mode,
    issuer: settings.AUTH_ISSUER ?? '',
    audience: settings.AUTH_AUDIENCE ?? '',
    ...(settings.AUTH_JWT_SECRET === undefined ? {} : { jwtSecret: settings.AUTH_JWT_SECRET }),
    ...(settings.AUTH_JWKS_URL === undefined ? {} : { jwksUrl: settings.AUTH_JWKS_URL })
  }
}

/** What a pattern cannot tell. */
function checkFormats (settings: Settings, problems: string[]): void {
  for (const name of ['IDENTITY_URL', 'CONTENT_URL', 'WRITER_URL', 'AUTH_JWKS_URL', 'POSTGRES_URL', 'OTEL_EXPORTER_OTLP_ENDPOINT'] as const) {
    const value = settings[name]
    if (value !== undefined && !URL.canParse(value)) problems.push(`${name}: must be a URL`)
  }
  if (settings.TRUST_PROXY?.some(entry => !isSubnet(entry))) problems.push('TRUST_PROXY: each entry must be an IP address or a subnet such as 10.0.0.0/8')
  if (settings.CORS_ORIGINS?.some(entry => entry !== '*' && !isOrigin(entry))) {
    problems.push('CORS_ORIGINS: each entry must be * or an origin such as https://player.example.com, without a path')
  }
}

function isSubnet (text: string): boolean {
  const [address = '', prefix, ...rest] = text.split('/')
  const version = isIP(address)
  return version !== 0 && rest.length === 0 && (prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= (version === 4 ? 32 : 128)))
}

function isOrigin (text: string): boolean {
  return /^https?:/.test(text) && URL.canParse(text) && new URL(text).origin === text
}

/** Rules between variables, and what production refuses. */
function checkRelations (settings: Settings, config: Config, problems: string[]): void {
  const { session, token } = config
  const require = (holds: boolean, problem: string): void => { if (!holds) problems.push(problem) }
  require(session.timeoutMs < 7_200_000, 'SESSION_TIMEOUT: must be under 2h')
  require(session.ttlMs >= 10 * session.timeoutMs, 'SESSION_TTL: must be at least 10 times SESSION_TIMEOUT')
  require(2 * session.heartbeatMs <= session.timeoutMs, 'HEARTBEAT_INTERVAL: must be at most half of SESSION_TIMEOUT')
  // Clients are told whole seconds: a rounded interval could be longer than half of T.
  require(session.heartbeatMs >= 1_000 && session.heartbeatMs % 1_000 === 0, 'HEARTBEAT_INTERVAL: must be whole seconds, at least 1s')
  // A client that beats in time must never be told that it is too soon, network delays included.
  require(2 * session.heartbeatGapMs <= session.heartbeatMs, 'HEARTBEAT_MIN_GAP: must be at most half of HEARTBEAT_INTERVAL')
  require(token.lifeSeconds * 1_000 >= 2 * session.heartbeatMs, 'JWT_EXPIRATION: must be at least twice HEARTBEAT_INTERVAL')
  require(session.endedTtlMs >= token.lifeSeconds * 1_000, 'ENDED_TTL: must be at least JWT_EXPIRATION')
  // Redis itself refuses REPLICAOF on the nodes of a cluster.
  require(config.region === undefined || config.redis.target?.kind !== 'cluster', 'WRITER_URL: not with REDIS_CLUSTER: a cluster cannot be the replica of another')
  const playback = [token.signing, ...token.accepted].map(key => key.material)
  for (const name of ['AUTH_JWT_SECRET', 'AUTH_GATEWAY_SECRET'] as const) {
    const value = settings[name]
    require(value === undefined || !playback.includes(value), `${name}: must differ from the playback keys`)
  }
  if (!config.production) return
  require(!token.generated, 'JWT_SECRET: required in production')
  require(settings.AUTH_MODE === 'jwt' || settings.AUTH_MODE === 'gateway', 'AUTH_MODE: must be jwt or gateway in production')
  require(config.redis.target !== undefined, 'REDIS_URL, REDIS_ADDR, REDIS_CLUSTER or REDIS_SENTINELS: one is required in production')
  require(settings.KAFKA_SASL_MECHANISM !== 'plain' || settings.KAFKA_TLS, 'KAFKA_SASL_MECHANISM: plain sends the password readably; production needs KAFKA_TLS=true with it')
  require(config.upstream.identityUrl !== undefined, 'IDENTITY_URL: required in production')
  require(config.upstream.contentUrl !== undefined, 'CONTENT_URL: required in production')
  const strong = (name: string, value: string | undefined): void => {
    require(value === undefined || isStrong(value), `${name}: too weak for production: ${MIN_SECRET_BYTES} random bytes or more`)
  }
  for (const key of token.generated ? token.accepted : [token.signing, ...token.accepted]) {
    if (key.alg === 'HS256') strong(key === token.signing ? 'JWT_SECRET' : 'JWT_SECRETS_ACCEPTED', key.material)
  }
  for (const name of ['AUTH_JWT_SECRET', 'AUTH_GATEWAY_SECRET', 'IDEMPOTENCY_SECRET'] as const) strong(name, settings[name])
}

function isStrong (value: string): boolean {
  const words = /secret|password|changeme|example|default|development/i
  return Buffer.byteLength(value) >= MIN_SECRET_BYTES && new Set(value).size >= 10 && !words.test(value)
}

function deepFreeze<T extends object> (value: T): T {
  for (const inner of Object.values(value)) if (inner !== null && typeof inner === 'object') deepFreeze(inner)
  return Object.freeze(value)
}
