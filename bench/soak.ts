import { requireRedis } from '../test/support/requirements.ts'
import { bestGenerator, load } from './load.ts'
import { cpuSeconds, residentMebibytes } from './processes.ts'
import { buildWorld } from './scenarios.ts'

/** Whether memory and cost stay as they are: one instance under the mixed load, minute by minute. `node bench/soak.ts 10` (minutes). */
const [minutes = 10] = process.argv.slice(2).map(Number)
const world = await buildWorld({ redisProgram: requireRedis().program, sessions: 5_000, fill: 0, wanted: name => name === 'mixed', peer: undefined, against: undefined })
const scenario = world.scenarios.at(-1)
if (scenario === undefined) throw new Error('no scenario')
const { url, pids, requests } = scenario
for (let minute = 1; minute <= minutes; minute++) {
  const before = cpuSeconds(pids())
  const { count, errors, p95, perSecond } = await load(bestGenerator(), { url, requests, connections: 64, seconds: 60 })
  process.stdout.write(`minute ${String(minute).padStart(2)}  ${perSecond.toFixed(0)} requests/s  ${((cpuSeconds(pids()) - before) / count * 1e6).toFixed(1)} us CPU  p95 ${p95.toFixed(2)} ms  ` +
    `RSS ${residentMebibytes(pids()).toFixed(0)} MiB  errors ${errors}\n`)
}
await world.close()
