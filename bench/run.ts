import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { requireRedis } from '../test/support/requirements.ts'
import { bestGenerator, load, wrkVersion } from './load.ts'
import { cpuSeconds, machineSeconds, residentMebibytes } from './processes.ts'
import { type Baseline, type Curve, html, machine, regressions, type Report, type Row, table, withRows } from './report.ts'
import { buildWorld, type Scenario } from './scenarios.ts'

/**
 * Load on the built service, each scenario in turn and round after round in one run, so that whatever the machine does it does to all.
 * What counts is server CPU per request and its ratio to the floor; requests per second depend on what else the machine has to do.
 */
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '3' },
    connections: { type: 'string', default: '64' },
    sessions: { type: 'string', default: '2000' },
    fill: { type: 'string', default: '0' },
    only: { type: 'string', default: '' },
    generator: { type: 'string', default: bestGenerator() },
    rates: { type: 'boolean', default: false },
    against: { type: 'string' },
    /** `NAME=value` for the other build alone. */
    'against-env': { type: 'string', multiple: true, default: [] },
    json: { type: 'string' },
    html: { type: 'string' },
    compare: { type: 'boolean', default: false },
    save: { type: 'boolean', default: false }
  }
})
const BASELINE = new URL('baseline.json', import.meta.url)
/** Parts of the highest throughput that a day has: night, morning, afternoon, evening, and the evening of a premiere. */
const DAY = [0.1, 0.25, 0.5, 0.75, 0.9]
const generator = values.generator === 'wrk' ? 'wrk' : 'autocannon'
const [roundCount, seconds, connections] = [Number(values.rounds), Number(values.seconds), Number(values.connections)]
const only = new RegExp(values.only)

interface Round { cpu: number, redis: number, others: number, perSecond: number, p50: number, p95: number, p99: number, errors: number }
const median = (numbers: number[]): number => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? NaN

async function measure ({ url, pids, redis, requests, units, prepare }: Scenario, seconds: number, rate?: number): Promise<Round> {
  await prepare?.()
  const processes = pids()
  const used = (): { service: number, ofRedis: number, all: number } => ({ service: cpuSeconds(processes), ofRedis: cpuSeconds([redis.pid()]), all: machineSeconds() })
  const before = used()
  const result = await load(generator, { url, requests, connections, seconds, ...(rate === undefined ? {} : { rate }) })
  const after = used()
  const done = result.count * units
  const each = (from: number, to: number): number => (to - from) / done * 1e6
  const [cpu, ofRedis, all] = [each(before.service, after.service), each(before.ofRedis, after.ofRedis), each(before.all, after.all)]
  return { ...result, cpu, redis: ofRedis, others: all - cpu - ofRedis, perSecond: result.perSecond * units }
}

/** The peer for the ceiling, built where Go is. */
function buildPeer (): string | undefined {
  const program = join(tmpdir(), 'viewing-bench-peer')
  const built = ['go', '/usr/local/go/bin/go'].some(go => spawnSync(go, ['build', '-o', program, fileURLToPath(new URL('peer/main.go', import.meta.url))], { stdio: ['ignore', 'ignore', 'inherit'] }).status === 0)
  return built ? program : undefined
}

const { program } = requireRedis()
const redisVersion = /v=(\S+)/.exec(spawnSync(program, ['--version'], { encoding: 'utf8' }).stdout)?.[1] ?? program
const world = await buildWorld({
  redisProgram: program, sessions: Number(values.sessions), fill: Number(values.fill), wanted: name => only.test(name), peer: only.test('heartbeat, Go') ? buildPeer() : undefined, against: values.against, againstEnv: Object.fromEntries(values['against-env'].map(entry => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)]))
})
const rounds = new Map<Scenario, Round[]>(world.scenarios.map(scenario => [scenario, []]))
async function measureAll (count: number): Promise<Row[]> {
  for (const scenario of world.scenarios) await measure(scenario, 4)
  for (let turn = 0; turn < count; turn++) for (const scenario of world.scenarios) rounds.get(scenario)?.push(await measure(scenario, seconds))
  const floors = rounds.get(world.scenarios[0] ?? raise()) ?? []
  return [...rounds].map(([{ name, pids }, own]) => {
    const pick = (key: keyof Round): number => median(own.map(each => each[key]))
    return {
      name,
      cpu: pick('cpu'),
      ofFloor: median(own.map(({ cpu }, at) => cpu / (floors[at]?.cpu ?? NaN))),
      lowest: Math.min(...own.map(({ cpu }) => cpu)) / Math.min(...floors.map(({ cpu }) => cpu)),
      redis: pick('redis'),
      others: pick('others'),
      idle: Math.max(0, 100 - median(own.map(({ cpu, redis, others, perSecond }) => (cpu + redis + others) * perSecond)) / cpus().length / 1e4),
      perSecond: pick('perSecond'),
      p50: pick('p50'),
      p95: pick('p95'),
      p99: pick('p99'),
      rss: residentMebibytes(pids()),
      errors: own.reduce((sum, { errors }) => sum + errors, 0)
    }
  })
}
const stored = (): Baseline => JSON.parse(readFileSync(BASELINE, 'utf8'))
function raise (): never { throw new Error('no scenario') }

let rows = await measureAll(roundCount)
const curves: Curve[] = []
if (values.rates) {
  for (const scenario of world.scenarios.filter(({ units }) => units === 1)) {
    const highest = rows.find(({ name }) => name === scenario.name)?.perSecond ?? 0
    for (const share of DAY) {
      const { perSecond, p50, p95, p99, cpu } = await measure(scenario, seconds, Math.round(highest * share))
      curves.push({ name: scenario.name, load: share, perSecond, p50, p95, p99, cpu })
    }
  }
}

let worse: string[] = []
if (values.compare) {
  const baseline = stored()
  if (baseline.generator !== generator) throw new Error(`the baseline was measured with ${baseline.generator}, this is ${generator}`)
  worse = regressions(rows, baseline)
  // Again before it counts: somebody else may have been at work on the machine. Rounds add up.
  for (let again = 0; worse.length > 0 && again < 3; again++) worse = regressions(rows = await measureAll(roundCount), baseline)
}
const report: Report = { machine: machine(generator === 'wrk' ? wrkVersion() ?? 'wrk' : 'autocannon', redisVersion), rows, curves }
process.stdout.write(`${table(report)}\n`)
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`)
if (values.html !== undefined) writeFileSync(values.html, html(report))
if (values.save) writeFileSync(BASELINE, `${JSON.stringify(withRows(existsSync(BASELINE) ? stored() : { generator, ofFloor: {} }, rows), undefined, 2)}\n`)
await world.close()
for (const line of worse) process.stdout.write(`WORSE ${line}\n`)
const errors = rows.reduce((sum, row) => sum + row.errors, 0)
if (errors > 0) process.stdout.write(`${errors} requests failed\n`)
process.exit(worse.length > 0 || errors > 0 ? 1 : 0)
