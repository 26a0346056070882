import { requireRedis } from '../test/support/requirements.ts'
import { bestGenerator, load } from './load.ts'
import { cpuSeconds, residentMebibytes } from './processes.ts'
import { buildWorld } from './scenarios.ts'

/**
 * Whether memory and cost stay as they are: one instance under the mixed load, minute by minute. `node bench/soak.ts 10` (minutes);
 * `node bench/soak.ts 10 512 1`: 512 connections (64), all opened anew each second (60).
 */
const [minutes = 10, connections = 64, seconds = 60] = process.argv.slice(2).map(Number)
const world = await buildWorld({ redisProgram: requireRedis().program, sessions: 8_000, fill: 0, wanted: name => name === 'mixed', peer: undefined, against: undefined })
const scenario = world.scenarios.at(-1)
if (scenario === undefined) throw new Error('no scenario')
const { url, pids, requests } = scenario
for (let minute = 1; minute <= minutes; minute++) {
  const before = cpuSeconds(pids())
  const loads: Array<{ count: number, errors: number, p95: number, perSecond: number, rss: number }> = []
  for (let spent = 0; spent < 60; spent += seconds) loads.push({ ...await load(bestGenerator(), { url, requests, connections, seconds }), rss: residentMebibytes(pids()) })
  const sum = (of: (one: typeof loads[number]) => number): number => loads.reduce((total, one) => total + of(one), 0)
  const most = (of: (one: typeof loads[number]) => number): number => Math.max(...loads.map(of))
  process.stdout.write(`minute ${String(minute).padStart(2)}  ${(sum(one => one.perSecond) / loads.length).toFixed(0)} requests/s  ${((cpuSeconds(pids()) - before) / sum(one => one.count) * 1e6).toFixed(1)} us CPU  ` +
    `p95 ${most(one => one.p95).toFixed(2)} ms  RSS at most ${most(one => one.rss).toFixed(0)} MiB  errors ${sum(one => one.errors)}\n`)
}
await world.close()
