import { type Static, Type } from '@sinclair/typebox'

/**
 * Every environment variable the service reads: the one source of validation, of the defaults, of `.env.example` and of the README's table.
 * Values here are already converted (see `../config.ts`): durations are milliseconds, lists are arrays.
 */

const DURATION = { minimum: 1, maximum: 365 * 86_400_000, unit: 'duration' }
const duration = (fallback: string, description: string) => Type.Integer({ ...DURATION, default: fallback, description })
/** A duration that may be 0, which switches something off. */
const optionalGap = (description: string) => Type.Optional(Type.Integer({ ...DURATION, minimum: 0, description }))
const url = (schemes: string, description: string) =>
  Type.Optional(Type.String({ pattern: `^(${schemes})://[^\\s]+$`, maxLength: 2048, description }))
const secret = (description: string) => Type.Optional(Type.String({ minLength: 1, maxLength: 8192, secret: true, description }))
const list = (description: string) => Type.Optional(Type.Array(Type.String({ minLength: 1 }), { minItems: 1, maxItems: 64, description }))
const choice = <const T extends string>(values: readonly T[], description: string, fallback?: NoInfer<T>) =>
  Type.Union(values.map(value => Type.Literal(value)), { enum: values, description, ...(fallback === undefined ? {} : { default: fallback }) })

export const SettingsSchema = Type.Object({
  NODE_ENV: choice(['development', 'test', 'production'], '`production` refuses weak secrets, embedded dependencies, an evicting Redis and `AUTH_MODE=none`.', 'development'),
  HOST: Type.String({ default: '0.0.0.0', minLength: 1, maxLength: 255, description: 'Address to listen on.' }),
  PORT: Type.Integer({ default: '8080', minimum: 0, maximum: 65_535, description: 'Port to listen on; 0 takes a free one.' }),
  WORKERS: Type.Integer({ default: '1', minimum: 1, maximum: 64, description: 'Worker processes sharing the port; metrics are aggregated.' }),
  TRUST_PROXY: list('Subnets of the reverse proxies whose `X-Forwarded-*`, `X-Region` and `region` count, comma separated (`10.0.0.0/8`).'),
  SHUTDOWN_DELAY: duration('1s', 'After SIGTERM: how long requests are still taken while readiness is already off.'),

  REDIS_URL: url('redis|rediss', 'One Redis server, `redis://[user:password@]host:port[/db]`; `rediss://` for TLS. Wins over `REDIS_ADDR`.'),
  REDIS_ADDR: Type.Optional(Type.String({ pattern: '^\\S+:[0-9]{1,5}$', maxLength: 300, description: 'One Redis server, `host:port`.' })),
  REDIS_CLUSTER: list('Redis Cluster: some of its nodes, `host:port,host:port`.'),
  REDIS_SENTINELS: list('Redis Sentinel: the sentinels, `host:port,host:port`.'),
  REDIS_SENTINEL_NAME: Type.String({ default: 'mymaster', minLength: 1, maxLength: 128, description: 'Name of the master that the sentinels watch.' }),
  REDIS_USERNAME: Type.Optional(Type.String({ minLength: 1, maxLength: 256, description: 'ACL user for Redis.' })),
  REDIS_PASSWORD: secret('Password for Redis.'),
  REDIS_DB: Type.Integer({ default: '0', minimum: 0, maximum: 15, description: 'Redis database; only 0 with a cluster.' }),
  REDIS_TLS: Type.Boolean({ default: 'false', description: 'TLS for `REDIS_ADDR`, `REDIS_CLUSTER` and `REDIS_SENTINELS`.' }),
  REDIS_COMMAND_TIMEOUT: duration('500ms', 'Longest wait for one Redis answer; then the call is 503.'),
  ADMISSION_DURABILITY: Type.Optional(choice(['replicated', 'local'], '`replicated`: a start is answered 201 only once a replica has it. `local`: once the master has it. Unset: `replicated` exactly while Redis has replicas.')),

  IDENTITY_URL: url('https?', 'Identity service, asked for the entitlement.'),
  CONTENT_URL: url('https?', 'Content service, asked for the availability.'),
  UPSTREAM_DEADLINE: duration('300ms', 'Longest time one entitlement or availability question may add to a start, retry included.'),
  DECISION_FRESH: duration('60s', 'How long a positive entitlement or availability answer is reused.'),
  DECISION_STALE: duration('10m', 'How long a positive answer may still be used while its service errs.'),
  DEFAULT_REGION: Type.String({ default: 'US', pattern: '^[A-Z]{2}$', description: 'Region (ISO 3166-1 alpha-2) of callers whose region is not vouched for.' }),

  WRITER_URL: url('https?', 'Two regions: base URL of the service in the other one. An instance whose Redis is a replica forwards writes there. Unset: one region.'),
  WRITER_DEADLINE: duration('2s', 'Two regions: longest wait for the other region\'s answer to a forwarded request; then 503.'),

  JWT_SECRET: secret('Signs playback tokens: 32 bytes or more for HS256, or a PEM private key (P-256 for ES256, Ed25519 for EdDSA).'),
  JWT_SECRETS_ACCEPTED: secret('Further keys that verify playback tokens during a rotation: secrets separated by commas, or PEM public keys one after another.'),
  JWT_EXPIRATION: duration('1h', 'Life of a playback token; heartbeats renew it.'),
  IDEMPOTENCY_SECRET: secret('Derives session ids from Idempotency-Keys; default: derived from `JWT_SECRET`. Set it before rotating `JWT_SECRET`.'),

  AUTH_MODE: Type.Optional(choice(['jwt', 'gateway', 'none'], 'Who proves `user_id`: an access token, an authenticated gateway, or nobody (outside production only, and the default there).')),
  AUTH_JWT_SECRET: secret('`AUTH_MODE=jwt`: HS256 secret of the platform\'s access tokens.'),
  AUTH_JWKS_URL: url('https?', '`AUTH_MODE=jwt`: JWKS of the platform\'s access tokens (RS256, ES256, EdDSA).'),
  AUTH_ISSUER: Type.Optional(Type.String({ minLength: 1, maxLength: 2048, description: '`AUTH_MODE=jwt`: required `iss`.' })),
  AUTH_AUDIENCE: Type.Optional(Type.String({ minLength: 1, maxLength: 2048, description: '`AUTH_MODE=jwt`: required `aud`.' })),
  AUTH_GATEWAY_SECRET: secret('`AUTH_MODE=gateway`: value of `X-Gateway-Secret`.'),

  MAX_CONCURRENT_STREAMS: Type.Integer({ default: '3', minimum: 1, maximum: 100, description: 'Limit of users whose plan names none.' }),
  SESSION_TIMEOUT: duration('90s', 'T: a session silent for longer loses its slot.'),
  HEARTBEAT_INTERVAL: duration('30s', 'h: how often clients are told to beat; at most T/2.'),
  HEARTBEAT_MIN_GAP: optionalGap('A heartbeat sooner after the last one of its session is 429; 0: none is. Default: 1s, or half of `HEARTBEAT_INTERVAL` where that is shorter.'),
  SESSION_TTL: duration('24h', 'Safety TTL of session keys; at least 10 T.'),
  ENDED_TTL: duration('1h', 'How long an ended session is remembered; at least `JWT_EXPIRATION`.'),
  USER_RATE_LIMIT: Type.Integer({ default: '120', minimum: 0, maximum: 60_000, description: 'Requests of one user per minute, and as many at once; more are 429. Endings and heartbeats do not count. 0: no limit.' }),
  SWEEP_INTERVAL: duration('5s', 'How often silent sessions and left-over events are looked for.'),

  EVENT_SINK: Type.Optional(choice(['kafka', 'log'], 'Where playback events go; `log`: one line each on standard output. Default: `kafka` when `KAFKA_BROKERS` is set, else `log`.')),
  KAFKA_BROKERS: list('Some of the Kafka brokers, `host:port,host:port`.'),
  KAFKA_TOPIC: Type.String({ default: 'playback.events', pattern: '^[a-zA-Z0-9._-]{1,249}$', description: 'Topic of the playback events; it must exist.' }),
  KAFKA_TLS: Type.Boolean({ default: 'false', description: 'TLS to the Kafka brokers.' }),
  KAFKA_SASL_MECHANISM: Type.Optional(choice(['plain', 'scram-sha-256', 'scram-sha-512'], 'How the service proves itself to Kafka. Unset: not at all. `plain` needs `KAFKA_TLS` in production.')),
  KAFKA_SASL_USERNAME: Type.Optional(Type.String({ minLength: 1, maxLength: 256, description: 'User for Kafka, with `KAFKA_SASL_MECHANISM`.' })),
  KAFKA_SASL_PASSWORD: secret('Password for Kafka, with `KAFKA_SASL_MECHANISM`.'),
  HEARTBEAT_EVENTS: choice(['all', 'sampled', 'off'], 'Heartbeat events: of every heartbeat, of the first one in each minute of a session, or none.', 'all'),
  OUTBOX_BYTES: Type.Integer({ default: '268435456', minimum: 65_536, maximum: 2 ** 40, description: 'Redis memory, in bytes and per shard, for events not yet delivered; the oldest go first, counted.' }),

  CORS_ORIGINS: list('Origins of browser players, comma separated; `*` for any. Unset: no CORS.'),
  LOG_LEVEL: choice(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], 'Least severe level that is logged.', 'info'),
  LOG_FORMAT: Type.Optional(choice(['json', 'ecs', 'pretty'], 'Log lines as pino JSON, Elastic Common Schema, or for people. Default: `pretty` on a terminal, else `json`.')),
  OTEL_EXPORTER_OTLP_ENDPOINT: url('https?', 'Receiver of OpenTelemetry traces (OTLP over HTTP, base URL). Unset: tracing is off and not even loaded.'),
  OTEL_SERVICE_NAME: Type.String({ default: 'viewing-service', minLength: 1, maxLength: 128, description: '`service.name` of the traces.' }),
  OTEL_TRACES_SAMPLER_ARG: Type.String({ default: '1', pattern: '^(0(\\.[0-9]{1,6})?|1)$', description: 'Share of the traces begun here that are kept, 0 to 1; the decision of a caller is followed.' }),
  POSTGRES_URL: url('postgres|postgresql', 'Reserved for viewing history; accepted and validated, not used.'),
}, { additionalProperties: false })

export type Settings = Static<typeof SettingsSchema>
export type SettingName = keyof Settings
