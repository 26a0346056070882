import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { requireRedis } from '../test/support/requirements.ts'
import { bestGenerator, load } from './load.ts'
import { cpuSeconds, loopbackBytes, residentMebibytes } from './processes.ts'
import { buildWorld } from './scenarios.ts'

/**
 * What one instance takes: idle, and at a mixed load of a given rate. `node bench/resources.ts 10 2000` (seconds, requests per second).
 * Network is what the loopback carried: the generator's, Redis' and the upstream services' traffic with the instance, each way once.
 */
const [seconds = 10, rate = 2_000] = process.argv.slice(2).map(Number)
const world = await buildWorld({ redisProgram: requireRedis().program, sessions: 5_000, fill: 0, wanted: name => name === 'mixed', peer: undefined, against: undefined })
const scenario = world.scenarios.at(-1)
if (scenario === undefined) throw new Error('no scenario')
const { url, pids, redis: server, requests } = scenario
const redis = new Redis(server.url)
const connections = async (): Promise<number> => (String(await redis.client('LIST')).match(/name=viewing-service/g) ?? []).length

async function report (what: string, during: () => Promise<{ p95: number } | undefined>): Promise<void> {
  const processes = pids()
  const [cpu, redisCpu, bytes, began] = [cpuSeconds(processes), cpuSeconds([server.pid()]), loopbackBytes(), performance.now()]
  const result = await during()
  const took = (performance.now() - began) / 1_000
  process.stdout.write(`${what.padEnd(28)} ${((cpuSeconds(processes) - cpu) / took).toFixed(3)} cores  Redis ${((cpuSeconds([server.pid()]) - redisCpu) / took).toFixed(3)} cores  ` +
    `${((loopbackBytes() - bytes) * 8 / took / 1e6).toFixed(2)} Mbit/s  ${await connections()} Redis connections  RSS ${residentMebibytes(processes).toFixed(0)} MiB` +
    `${result === undefined ? '' : `  p95 ${result.p95.toFixed(2)} ms`}\n`)
}

await report('idle', async () => { await sleep(seconds * 1_000); return undefined })
await report(`mixed, ${rate} requests/s`, async () => await load(bestGenerator(), { url, requests, connections: 32, seconds, rate }))
redis.disconnect()
await world.close()
