import cluster from 'node:cluster'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import closeWithGrace from 'close-with-grace'
import { buildApp } from './app.ts'
import { type Config, ConfigError, loadConfig } from './config.ts'
import { type Dependencies, resolveDependencies } from './embedded/dependencies.ts'
import { LineOutput } from './line-output.ts'
import { createLogger } from './logger.ts'
import { keepTickShape } from './tick-shape.ts'
import { joinMetrics, runPrimary, workerMetrics } from './workers.ts'

/** Process entry: the only reader of the environment. One process, or a primary and its workers. */
const { version }: { version: string } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))

function readConfig (): Config {
  try {
    return loadConfig(process.env)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exit(78) // EX_CONFIG of sysexits.h: trying again will not help
  }
}

const config = readConfig()
// To touch `process.stdout` makes a pipe non-blocking, as the output wants it.
const terminal = process.stdout.isTTY
// One writer for log and events: two on one descriptor cut each other's lines where a pipe is full.
const out = new LineOutput(1, { shared: config.http.workers > 1 })
process.on('exit', () => { out.flushSync() })
const log = createLogger(config.log, terminal, out)

async function serve (dependencies: Dependencies): Promise<void> {
  let draining = false
  if (cluster.isWorker) joinMetrics()
  const app = await buildApp({
    config,
    version,
    logger: log,
    connect: { target: dependencies.redis, commandTimeoutMs: config.redis.commandTimeoutMs, scripts: { shebang: dependencies.shebang } },
    identityUrl: dependencies.identityUrl,
    contentUrl: dependencies.contentUrl,
    eventLines: out,
    draining: () => draining,
    ...(cluster.isWorker ? { aggregateMetrics: workerMetrics } : {})
  })
  // Readiness goes first, so that no new traffic is sent here; what is on its way is still answered.
  closeWithGrace({ delay: config.http.shutdownDelayMs + 10_000, logger: log }, async ({ signal, err }) => {
    if (err !== undefined) log.fatal({ err }, 'ending after a fault')
    else log.info({ signal }, 'draining')
    draining = true
    if (err === undefined) await sleep(config.http.shutdownDelayMs)
    await app.close()
    await dependencies.close()
    log.info('ended')
    await out.written().catch(() => { /* nobody reads it */ })
  })
  const address = await app.listen({ host: config.http.host, port: config.http.port })
  announce(address.replace('0.0.0.0', '127.0.0.1').replace('[::]', '127.0.0.1'), dependencies)
}

function announce (address: string, dependencies: Dependencies): void {
  if (config.auth.mode === 'none') log.warn('AUTH_MODE=none: nobody proves user_id; never expose this')
  if (config.token.generated) log.warn('JWT_SECRET is not set: signing with the development secret')
  if (config.postgresUrlGiven) log.info('POSTGRES_URL is accepted and not used: there is no history yet')
  log.info({ address, version, redis: dependencies.redisDescription, upstream: dependencies.upstreamDescription, events: config.event.sink.kind, auth: config.auth.mode }, 'listening')
  if (config.production || cluster.isWorker) return
  log.info(`try: curl -s ${address}/api/playback/session -H 'content-type: application/json' -d '{"user_id":"user123","profile_id":"profile456","content_id":"content789","device_id":"device101"}'`)
  log.info(`documentation: ${address}/docs`)
}

await keepTickShape()
try {
  if (cluster.isPrimary && config.http.workers > 1) await runPrimary(config, log, await resolveDependencies(config))
  else await serve(await resolveDependencies(config))
} catch (error) {
  log.fatal({ err: error }, 'the service could not start')
  process.exitCode = 1
  setTimeout(() => { process.exit(1) }, 500).unref()
}
