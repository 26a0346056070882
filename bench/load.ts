import { execFile, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import autocannon from 'autocannon'
import { Client } from 'undici'

/** Two generators behind one shape: autocannon, which is always there, and wrk, which takes a quarter of its CPU and so leaves more for the service. */

export interface Request { method: 'GET' | 'POST' | 'DELETE', path: string, headers: Record<string, string>, body?: string }

export interface LoadOptions {
  url: string
  requests: readonly Request[]
  connections: number
  seconds: number
  /** Requests per second; unset: as fast as answers come. */
  rate?: number
}

export interface LoadResult { count: number, errors: number, p50: number, p95: number, p99: number, perSecond: number }

export type GeneratorName = 'wrk' | 'autocannon'

export function wrkVersion (): string | undefined {
  return /wrk \S+/.exec(spawnSync('wrk', ['--version'], { encoding: 'utf8' }).stdout ?? '')?.[0]
}

/** wrk where it is installed. */
export const bestGenerator = (): GeneratorName => wrkVersion() === undefined ? 'autocannon' : 'wrk'

export async function load (generator: GeneratorName, options: LoadOptions): Promise<LoadResult> {
  return generator === 'wrk' ? await byWrk(options) : await byAutocannon(options)
}

/** More than autocannon sends. */
const MOST_PER_SECOND = 10_000

async function byAutocannon ({ url, requests: all, connections, seconds, rate }: LoadOptions): Promise<LoadResult> {
  // It makes each of them before it begins.
  const requests = all.slice(0, seconds * (rate ?? MOST_PER_SECOND))
  const times: number[] = []
  const result = await new Promise<autocannon.Result>((resolve, reject) => {
    // Each connection goes through a list from its beginning: with one for all of them a session's heartbeats would come at once, which is too soon.
    const shares = Array.from({ length: connections }, (_, share) => requests.length < connections ? [...requests] : requests.filter((_, at) => at % connections === share))
    let clients = 0
    const setupClient = (client: autocannon.Client): void => { client.setRequests(shares[clients++ % connections] ?? []) }
    const instance = autocannon({ url, connections, duration: seconds, requests: shares[0] ?? [], setupClient, ...(rate === undefined ? {} : { overallRate: rate }) }, (error, value) => {
      if (error === null || error === undefined) resolve(value)
      else reject(error)
    })
    instance.on('response', (_client, _status, _bytes, milliseconds) => { times.push(milliseconds) })
  })
  return { count: result['2xx'], errors: result.non2xx + result.errors + result.timeouts, ...percentiles(times), perSecond: result['2xx'] / result.duration }
}

function percentiles (times: number[]): Pick<LoadResult, 'p50' | 'p95' | 'p99'> {
  times.sort((a, b) => a - b)
  const at = (share: number): number => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? NaN
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
}

/** Mean pause of a connection of which a rate is asked, ms: wrk counts them in whole ones. */
const PAUSE_MS = 20
const WITNESSES = 8
/** What they ask together, requests per second: a part of the rate that is asked for. */
const WITNESSED = WITNESSES * 1_000 / PAUSE_MS
/** In which all connections open at once, and code that has been idle is compiled again. */
const SETTLING_MS = 1_000

/**
 * The times, ms, that a few more clients see while others make the load. wrk's own are no measure where its connections pause: it looks through all of
 * their timers at each turn, and called 10 ms and more what such a client saw as 3.
 */
async function witness (url: string, requests: readonly Request[], seconds: number): Promise<{ times: number[], count: number }> {
  const times: number[] = []
  let count = 0
  const from = performance.now() + SETTLING_MS
  const until = from + seconds * 1_000
  await Promise.all(Array.from({ length: WITNESSES }, async (_, index) => {
    const client = new Client(url)
    for (let at = Math.floor(index * requests.length / WITNESSES); performance.now() < until; at++) {
      await sleep(Math.random() * 2 * PAUSE_MS)
      const request = requests[at % requests.length]
      if (request === undefined) break
      const began = performance.now()
      const { body } = await client.request({ method: request.method, path: request.path, headers: request.headers, ...(request.body === undefined ? {} : { body: request.body }) })
      await body.dump()
      count++
      if (began > from) times.push(performance.now() - began)
    }
    await client.close()
  }))
  return { times, count }
}

const MAX_PLAYERS = 1_000

/**
 * Requests are read once, whole, from a file; each is its length on a line and then its bytes. With a rate each connection pauses between an answer
 * and its next request, as players do: up to twice the mean, by chance, so that they do not come in step.
 */
const wrkScript = (pauseMs: number): string => `
local requests, at = {}, 0
${pauseMs === 0 ? '' : `function delay () return math.random(0, ${Math.round(2 * pauseMs)}) end`}
function init (args)
  local file = assert(io.open(args[1], 'rb'))
  for line in file:lines() do requests[#requests + 1] = file:read(tonumber(line)) end
  file:close()
end
function request ()
  at = at % #requests + 1
  return requests[at]
end
function done (summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"count":%d,"errors":%d,"us":%d,"p50":%f,"p95":%f,"p99":%f}\\n', summary.requests - e.status,
    e.connect + e.read + e.write + e.status + e.timeout, summary.duration, latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000))
end
`

let folder: string | undefined
const lists = new WeakMap<readonly Request[], string>()

/** A list is written once: its making, at each round, would be counted as work of the machine under load. */
function listed (requests: readonly Request[]): string {
  const known = lists.get(requests)
  if (known !== undefined) return known
  if (folder === undefined) {
    const made = mkdtempSync(join(tmpdir(), 'viewing-wrk-'))
    process.on('exit', () => { rmSync(made, { recursive: true, force: true }) })
    folder = made
  }
  const path = join(folder, randomUUID())
  writeFileSync(path, requests.map(raw).map(text => `${Buffer.byteLength(text)}\n${text}`).join(''))
  lists.set(requests, path)
  return path
}

async function byWrk ({ url, requests, connections, seconds, rate }: LoadOptions): Promise<LoadResult> {
  const list = listed(requests)
  const own = rate === undefined ? undefined : Math.max(1, rate - WITNESSED)
  const players = own === undefined ? connections : Math.max(connections, Math.min(MAX_PLAYERS, Math.ceil(own * PAUSE_MS / 1_000)))
  const script = `${list}.lua`
  writeFileSync(script, wrkScript(own === undefined ? 0 : players / own * 1_000))
  const [{ stdout }, seen] = await Promise.all([
    promisify(execFile)('wrk', ['-t1', `-c${players}`, `-d${rate === undefined ? seconds : seconds + SETTLING_MS / 1_000}s`, '--timeout', '10s', '-s', script, url, '--', list]),
    rate === undefined ? undefined : witness(url, requests, seconds)
  ])
  const { us, count: made, ...result }: Omit<LoadResult, 'perSecond'> & { us: number } = JSON.parse(/RESULT (.*)/.exec(stdout)?.[1] ?? '{}')
  const count = made + (seen?.count ?? 0)
  return { ...result, ...(seen === undefined ? {} : percentiles(seen.times)), count, perSecond: count / us * 1e6 }
}

function raw ({ method, path, headers, body = '' }: Request): string {
  const lines = Object.entries({ host: 'playback.example', ...headers, ...(body === '' ? {} : { 'content-length': String(Buffer.byteLength(body)) }) }).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body}`
}
