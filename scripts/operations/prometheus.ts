import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { track } from '../../test/support/children.ts'
import { freePort } from '../../test/support/redis-server.ts'
import { waitFor } from '../../test/support/wait-for.ts'
import { findPrometheus } from './prometheus-package.mjs'

export interface Series { metric: Record<string, string>, values: Array<[atSeconds: number, value: string]> }

export interface Prometheus {
  url: string
  /** `host:port` of everything that is scraped as job `viewing-service`. */
  setTargets: (targets: readonly string[]) => Promise<void>
  setRules: (text: string) => Promise<void>
  /** Names of the alerts that fire now. */
  firing: () => Promise<Set<string>>
  value: (expr: string) => Promise<number | undefined>
  range: (expr: string, fromSeconds: number, toSeconds: number, stepSeconds: number) => Promise<Series[]>
  close: () => Promise<void>
}

/** A real Prometheus with a store of its own, on a free loopback port. */
export async function startPrometheus ({ rules, scrapeMs, timeoutMs = scrapeMs }: { rules: string, scrapeMs: number, timeoutMs?: number }): Promise<Prometheus> {
  const program = findPrometheus('prometheus')
  if (program === undefined) throw new Error('prometheus is neither in PATH nor to be had by apt-get')
  const folder = await mkdtemp(join(tmpdir(), 'viewing-prometheus-'))
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const targets = join(folder, 'targets.json')
  const rulesFile = join(folder, 'rules.yml')
  await writeFile(targets, '[]')
  await writeFile(rulesFile, rules)
  await writeFile(join(folder, 'prometheus.yml'), JSON.stringify({
    global: { scrape_interval: `${scrapeMs}ms`, scrape_timeout: `${timeoutMs}ms`, evaluation_interval: `${scrapeMs}ms` },
    rule_files: [rulesFile],
    scrape_configs: [{ job_name: 'viewing-service', file_sd_configs: [{ files: [targets], refresh_interval: '1s' }] }]
  }))
  const child: ChildProcess = spawn(program, [
    `--config.file=${join(folder, 'prometheus.yml')}`, `--storage.tsdb.path=${join(folder, 'data')}`, `--web.listen-address=127.0.0.1:${port}`, '--web.enable-lifecycle', '--log.level=error'
  ], { stdio: ['ignore', 'inherit', 'inherit'] })
  track(child)
  const ask = async (path: string): Promise<{ data: { alerts?: Array<{ state: string, labels: { alertname: string } }>, result?: unknown[] } }> => {
    const response = await fetch(`${url}/api/v1/${path}`)
    if (!response.ok) throw new Error(`Prometheus answered ${response.status}: ${await response.text()}`)
    return Object(await response.json())
  }
  await waitFor('Prometheus', async () => await fetch(`${url}/-/ready`).then(({ ok }) => ok, () => false), 30_000)
  return {
    url,
    setTargets: async list => {
      // By renaming: Prometheus may read at any moment.
      await writeFile(`${targets}.new`, JSON.stringify([{ targets: list }]))
      await rename(`${targets}.new`, targets)
    },
    setRules: async text => {
      await writeFile(rulesFile, text)
      const { status } = await fetch(`${url}/-/reload`, { method: 'POST' })
      if (status !== 200) throw new Error(`Prometheus does not take the rules: ${status}`)
    },
    firing: async () => new Set((await ask('alerts')).data.alerts?.filter(({ state }) => state === 'firing').map(({ labels }) => labels.alertname)),
    value: async expr => {
      const [first] = (await ask(`query?query=${encodeURIComponent(expr)}`)).data.result ?? []
      const value: unknown = Object(first).value?.[1]
      return value === undefined ? undefined : Number(value)
    },
    range: async (expr, from, to, step) => {
      const { data } = await ask(`query_range?query=${encodeURIComponent(expr)}&start=${from}&end=${to}&step=${step}`)
      return (data.result ?? []).map(series => ({ metric: Object(series).metric, values: Object(series).values }))
    },
    close: async () => {
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
      await rm(folder, { recursive: true, force: true })
    }
  }
}
