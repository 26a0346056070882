import cluster, { type Worker } from 'node:cluster'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import client from '@prometheus-io/client'
import closeWithGrace from 'close-with-grace'
import type { Logger } from 'pino'
import type { Config } from './config.ts'
import type { Dependencies } from './embedded/dependencies.ts'

/** Several processes on one port: the primary starts, watches and ends them, and adds up their metrics. */

interface MetricsRequest { type: 'metrics-request', id: string }
interface MetricsAnswer { type: 'metrics-answer', id: string, text: string }

const RESTART_DELAY_MS = 1_000
const ANSWER_MS = 2_000
/** The instance's: start times of workers cannot be added up, so the sum leaves them out. */
const START_TIME = `# HELP process_start_time_seconds Start time of the primary process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds ${Math.round(Date.now() / 1_000 - process.uptime())}
`

/** @throws Error when the embedded in-process Redis is all there is: workers need one they can share at speed. */
export async function runPrimary (config: Config, log: Logger, dependencies: Dependencies): Promise<void> {
  if (!dependencies.shebang) throw new Error('WORKERS above 1 needs a real Redis: install redis-server or set REDIS_URL')
  const { redis } = dependencies
  const embedded = config.redis.target === undefined && redis.kind === 'single' ? { REDIS_URL: `redis://${redis.host}:${redis.port}` } : {}
  const env = { ...embedded, IDENTITY_URL: dependencies.identityUrl, CONTENT_URL: dependencies.contentUrl }
  const registry = new client.AggregatorRegistry()
  let ending = false

  const start = (): void => {
    const worker = cluster.fork(env)
    worker.on('message', (message: MetricsRequest) => {
      if (message?.type === 'metrics-request') answer(registry, worker, message.id).catch(error => { log.warn({ err: error }, 'metrics could not be added up') })
    })
  }
  cluster.on('exit', (worker, code, signal) => {
    if (ending) return
    log.error({ worker: worker.id, code, signal }, 'a worker ended; starting another')
    setTimeout(start, RESTART_DELAY_MS)
  })
  for (let i = 0; i < config.http.workers; i++) start()

  closeWithGrace({ delay: config.http.shutdownDelayMs + 15_000, logger: log }, async () => {
    ending = true
    const workers = Object.values(cluster.workers ?? {}).filter(worker => worker !== undefined)
    await Promise.all(workers.map(async worker => {
      const ended = once(worker, 'exit')
      worker.process.kill('SIGTERM') // worker.kill() would first cut its connections
      await ended
    }))
    await dependencies.close()
  })
}

async function answer (registry: InstanceType<typeof client.AggregatorRegistry>, worker: Worker, id: string): Promise<void> {
  const reply: MetricsAnswer = { type: 'metrics-answer', id, text: `${await registry.clusterMetrics()}${START_TIME}` }
  worker.send(reply)
}

/** In a worker: answers the primary's questions for metrics from now on. */
export function joinMetrics (): void {
  // Its constructor is what listens; a worker needs nothing else of it.
  Reflect.construct(client.AggregatorRegistry, [])
}

/** In a worker: the metrics of all workers, from the primary. @throws Error when it does not answer in time. */
export async function workerMetrics (): Promise<string> {
  const id = randomUUID()
  const text = new Promise<string>(resolve => {
    const listen = (message: MetricsAnswer): void => {
      if (message?.type !== 'metrics-answer' || message.id !== id) return
      process.off('message', listen)
      resolve(message.text)
    }
    process.on('message', listen)
  })
  process.send?.({ type: 'metrics-request', id } satisfies MetricsRequest)
  return await Promise.race([text, sleep(ANSWER_MS, undefined, { ref: false }).then(() => { throw new Error('the primary did not answer') })])
}
