import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import autocannon from 'autocannon'
import { startRedis } from '../test/support/redis-server.ts'
import { requireRedis } from '../test/support/requirements.ts'
import { startProgram, startService } from '../test/support/service-process.ts'
import { startStubUpstream } from '../test/support/stub-upstream.ts'

/**
 * Load on the built service by autocannon, each variant in turn and round after round in one run, so that whatever the machine does it
 * does to all. What counts is server CPU per request and its ratio to the floor; requests per second depend on the generator beside it.
 */
const { values } = parseArgs({ options: { rounds: { type: 'string', default: '3' }, seconds: { type: 'string', default: '5' }, only: { type: 'string', default: '' }, json: { type: 'boolean', default: false } } })
const SESSIONS = 2_000
const CONNECTIONS = 64

interface Target { url: string, pid: number, requests: autocannon.Request[] }
interface Round { microseconds: number, redisMicroseconds: number, perSecond: number, p95: number, p99: number, errors: number }

/** CPU seconds that a process has used (utime and stime of `/proc/<pid>/stat`, 100 ticks a second). */
function cpuSeconds (pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}
const residentMebibytes = (pid: number): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1_024
const median = (numbers: number[]): number => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? NaN

const redis = await startRedis({ program: requireRedis().program })
const upstream = await startStubUpstream()
const env = { REDIS_URL: redis.url, IDENTITY_URL: upstream.identityUrl, CONTENT_URL: upstream.contentUrl, UPSTREAM_DEADLINE: '2s', MAX_CONCURRENT_STREAMS: '100' }
const json = { 'content-type': 'application/json' }

async function service (more: Record<string, string>, requestsOf: (url: string) => Promise<autocannon.Request[]>): Promise<Target> {
  const { url, pid, lines } = await startService({ ...env, ...more })
  // Event lines are kept by the test support; a benchmark has no use for them.
  lines.push = () => 0
  return { url, pid, requests: await requestsOf(url) }
}

async function sessions (url: string): Promise<Array<{ id: string, token: string }>> {
  const made: Array<{ id: string, token: string }> = []
  for (let from = 0; from < SESSIONS; from += 50) {
    made.push(...await Promise.all(Array.from({ length: 50 }, async (_, index) => {
      const response = await fetch(`${url}/api/playback/session`, { method: 'POST', headers: json, body: startBody(`bench-${process.pid}-${from + index}`) })
      const { session, playback_token: token } = await response.json() as { session: { session_id: string }, playback_token: string }
      return { id: session.session_id, token }
    })))
  }
  return made
}
const startBody = (user: string): string => JSON.stringify({ user_id: user, profile_id: 'p', content_id: 'content789', device_id: 'd', on_limit: 'supersede_oldest' })
const heartbeats = async (url: string): Promise<autocannon.Request[]> => (await sessions(url)).map(({ id, token }, position) => ({
  method: 'POST', path: `/api/playback/session/${id}/heartbeat`, headers: { ...json, authorization: `Bearer ${token}` }, body: JSON.stringify({ position })
}))
const validations = async (url: string): Promise<autocannon.Request[]> => (await sessions(url)).map(({ token }) => ({
  method: 'POST', path: '/api/playback/token/validate', headers: json, body: JSON.stringify({ token })
}))
const creations = async (): Promise<autocannon.Request[]> => Array.from({ length: 20_000 }, (_, index) => ({
  method: 'POST', path: '/api/playback/session', headers: json, body: startBody(`creator-${process.pid}-${index}`)
}))

const all: Record<string, () => Promise<Target>> = {
  floor: async () => ({ ...await startProgram(new URL('floor.ts', import.meta.url), {}), requests: [{ method: 'POST', path: '/', headers: json, body: '{"position":1}' }] }),
  'heartbeat, events off': async () => await service({ HEARTBEAT_EVENTS: 'off' }, heartbeats),
  'heartbeat, events sampled': async () => await service({ HEARTBEAT_EVENTS: 'sampled' }, heartbeats),
  'heartbeat, events all': async () => await service({ HEARTBEAT_EVENTS: 'all' }, heartbeats),
  validate: async () => await service({}, validations),
  create: async () => await service({}, creations)
}
const names = Object.keys(all).filter(name => name === 'floor' || name.includes(values.only))
const targets = new Map<string, Target>()
for (const name of names) targets.set(name, await (all[name] ?? all.floor ?? (() => { throw new Error(name) }))())

async function round ({ url, pid, requests }: Target): Promise<Round> {
  const [before, redisBefore] = [cpuSeconds(pid), cpuSeconds(redis.pid())]
  const result = await autocannon({ url, connections: CONNECTIONS, duration: Number(values.seconds), requests })
  const count = result['2xx']
  return {
    microseconds: (cpuSeconds(pid) - before) / count * 1e6,
    redisMicroseconds: (cpuSeconds(redis.pid()) - redisBefore) / count * 1e6,
    perSecond: result.requests.average,
    p95: result.latency.p97_5,
    p99: result.latency.p99,
    errors: result.non2xx + result.errors
  }
}

const rounds = new Map<string, Round[]>(names.map(name => [name, []]))
for (const [, target] of targets) await autocannon({ url: target.url, connections: CONNECTIONS, duration: 2, requests: target.requests })
for (let turn = 0; turn < Number(values.rounds); turn++) {
  for (const [name, target] of targets) rounds.get(name)?.push(await round(target))
}
const floor = median((rounds.get('floor') ?? []).map(({ microseconds }) => microseconds))
const rows = names.map(name => {
  const own = rounds.get(name) ?? []
  const pick = (key: keyof Round): number => median(own.map(each => each[key]))
  return { name, 'CPU µs': pick('microseconds'), 'of floor': pick('microseconds') / floor, 'Redis µs': pick('redisMicroseconds'), '1/s': pick('perSecond'), 'p97.5 ms': pick('p95'), 'p99 ms': pick('p99'), errors: pick('errors'), 'RSS MiB': residentMebibytes(targets.get(name)?.pid ?? 0) }
})
if (values.json) process.stdout.write(`${JSON.stringify({ node: process.version, rounds: Number(values.rounds), seconds: Number(values.seconds), rows }, undefined, 2)}\n`)
else for (const { name, ...figures } of rows) process.stdout.write(`${name.padEnd(28)} ${Object.entries(figures).map(([key, value]) => `${key} ${value.toFixed(2)}`).join('  ')}\n`)
process.exit(0)
