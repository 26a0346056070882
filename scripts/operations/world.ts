import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { requireKafka, startKafka } from '../../test/support/kafka-broker.ts'
import { freePort, startRedis } from '../../test/support/redis-server.ts'
import { requireRedis } from '../../test/support/requirements.ts'
import { type ServiceProcess, startService } from '../../test/support/service-process.ts'
import { startPrometheus } from './prometheus.ts'
import { Traffic } from './traffic.ts'
import { startUpstreamServices } from './upstream-services.ts'

export interface WorldOptions {
  instances?: number
  kafka?: boolean
  replica?: boolean
  env?: Record<string, string>
  rules: string
  scrapeMs: number
  timeoutMs?: number
}

const TOPIC = 'playback.events'
const RULES = fileURLToPath(new URL('../../deploy/prometheus/rules.yml', import.meta.url))
const PROBE_MS = 500

export const rulesText = (): string => readFileSync(RULES, 'utf8')
export type World = Awaited<ReturnType<typeof startWorld>>

/** A Redis, a Kafka, the two services, instances of the built service, probes as an orchestrator sends them, a Prometheus, and viewers. */
export async function startWorld ({ instances: count = 1, kafka: withKafka = false, replica: withReplica = false, env = {}, rules, scrapeMs, timeoutMs }: WorldOptions) {
  if (!existsSync(new URL('../../dist/server.js', import.meta.url))) throw new Error('build the service first: npm run build')
  const closers: Array<() => Promise<unknown> | void> = []
  const close = async (): Promise<void> => { for (const end of closers.reverse()) await end() }
  try {
    const { program } = requireRedis()
    const redis = await startRedis({ program })
    closers.push(async () => { await redis.close() })
    const replicaArgs = ['--replicaof', redis.host, String(redis.port), '--repl-diskless-sync-delay', '0']
    const replica = withReplica ? await startRedis({ program, args: replicaArgs }) : undefined
    closers.push(async () => { await replica?.close() })
    const kafka = withKafka ? await startKafka(requireKafka().library) : undefined
    closers.push(async () => { await kafka?.close() })
    await kafka?.createTopic(TOPIC, 3)
    const services = await startUpstreamServices()
    closers.push(async () => { await services.close() })
    const prometheus = await startPrometheus({ rules, scrapeMs, ...(timeoutMs === undefined ? {} : { timeoutMs }) })
    closers.push(async () => { await prometheus.close() })

    const base: Record<string, string> = {
      REDIS_URL: redis.url,
      IDENTITY_URL: services.url,
      CONTENT_URL: services.url,
      EVENT_SINK: kafka === undefined ? 'log' : 'kafka',
      ...(kafka === undefined ? {} : { KAFKA_BROKERS: kafka.addresses }),
      ...env
    }
    const instances: Array<{ port: number, process: ServiceProcess | undefined, url: string }> = []
    const targets = async (): Promise<void> => { await prometheus.setTargets(instances.map(({ port }) => `127.0.0.1:${port}`)) }
    const start = async (at: number, more: Record<string, string> = {}): Promise<ServiceProcess> => {
      const instance = instances[at] ?? { port: await freePort(), process: undefined, url: '' }
      instances[at] = instance
      instance.url = `http://127.0.0.1:${instance.port}`
      instance.process = await startService({ ...base, LOG_LEVEL: 'info', PORT: String(instance.port), ...more })
      return instance.process
    }
    for (let at = 0; at < count; at++) await start(at)
    closers.push(async () => { await Promise.all(instances.map(async ({ process }) => { process?.signal('SIGCONT'); await process?.close() })) })
    await targets()

    const over = new AbortController()
    const probes = (async () => {
      while (!over.signal.aborted) {
        await Promise.all(instances.map(async ({ url }) => { await fetch(`${url}/health/ready`, { signal: AbortSignal.timeout(PROBE_MS * 4) }).then(async answer => await answer.arrayBuffer(), () => undefined) }))
        await sleep(PROBE_MS)
      }
    })()
    closers.push(async () => { over.abort(); await probes })
    let turn = 0
    const traffic = new Traffic(() => {
      const up = instances.filter(({ process }) => process !== undefined)
      return up[turn++ % up.length]?.url
    })
    closers.push(() => { traffic.close() })

    return {
      redis,
      replica,
      kafka,
      services,
      prometheus,
      instances,
      traffic,
      /** Starts an instance again, on its old port. */
      start,
      /** SIGKILL, as a crash. */
      kill: async (at: number) => {
        const instance = instances[at]
        await instance?.process?.close()
        if (instance !== undefined) instance.process = undefined
      },
      /** Forgets an instance that is gone for good. */
      remove: async (at: number) => {
        instances.splice(at, 1)
        await targets()
      },
      addInstance: async () => {
        await start(instances.length)
        await targets()
      },
      /** `redis-cli …` on the master; gives what it prints. */
      redisCli: (...args: string[]): string => {
        const { status, stdout, stderr } = spawnSync('redis-cli', ['-u', redis.url, ...args], { encoding: 'utf8' })
        if (status !== 0) throw new Error(`redis-cli ${args.join(' ')}: ${stderr}`)
        return stdout.trim()
      },
      url: (): string => instances[0]?.url ?? '',
      close
    }
  } catch (error) {
    await close()
    throw error
  }
}
