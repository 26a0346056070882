import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { readPanels } from './dashboard/panels.ts'
import { renderPage } from './dashboard/page.ts'
import { rulesText, startWorld, type World } from './operations/world.ts'

/**
 * The dashboard with real data: viewers on two instances of the built service, with faults, scraped by a real Prometheus; each panel's own expressions
 * over that time, drawn where the panel stands, photographed by Chromium. It shows what the queries give; it is not Grafana.
 */
const { values: { out, html: keepHtml, quick } } = parseArgs({
  options: {
    out: { type: 'string', default: fileURLToPath(new URL('../docs/dashboard.png', import.meta.url)) },
    html: { type: 'string' },
    /** A third of the time, to work on the drawing. */
    quick: { type: 'boolean', default: false }
  }
})
const SCRAPE_MS = 2_000
const STEP_SECONDS = 2
/** As Grafana: four scrapes. */
const RATE_SECONDS = 4 * SCRAPE_MS / 1_000
const HEARTBEAT_SECONDS = 1

async function runLoad (world: World): Promise<void> {
  const part = async (name: string, seconds: number): Promise<void> => {
    process.stdout.write(`${name}\n`)
    await sleep(seconds * 1_000 / (quick ? 3 : 1))
  }
  const { habits } = world.traffic
  const { manners } = world.services
  // Longer than T: some sessions fall silent.
  Object.assign(habits, { startsPerSecond: 12, beats: 4, restMs: 1_000, atLimit: 0.08, denied: 0.03, takeOver: 0.3, viewers: 300 })
  await part('an ordinary evening', 50)
  await world.kafka?.brokers[0]?.kill()
  await part('Kafka is away', 45)
  await world.kafka?.brokers[0]?.restart()
  await part('Kafka is back', 30)
  manners.content.delayMs = 180
  manners.content.errors = 0.2
  await part('the content service is slow and errs', 40)
  world.services.mend()
  await part('all is well', 15)
  habits.startsPerSecond = 30
  manners.identity.errors = 1
  await part('a premiere, and the identity service is down', 25)
  world.services.mend()
  await part('all is well', 25)
  world.redis.pause()
  await part('Redis hangs', 8)
  world.redis.resume()
  await part('all is well', 25)
}

const world = await startWorld({
  instances: 2,
  kafka: true,
  replica: true,
  rules: rulesText(),
  scrapeMs: SCRAPE_MS,
  env: { SESSION_TIMEOUT: '8s', HEARTBEAT_INTERVAL: `${HEARTBEAT_SECONDS}s`, SWEEP_INTERVAL: '1s', DECISION_FRESH: '5s', DECISION_STALE: '8s', SHUTDOWN_DELAY: '100ms' }
})
const folder = mkdtempSync(join(tmpdir(), 'viewing-dashboard-'))
try {
  const from = Math.ceil(Date.now() / 1_000 / STEP_SECONDS) * STEP_SECONDS + 2 * RATE_SECONDS
  await runLoad(world)
  const to = Math.floor(Date.now() / 1_000 / STEP_SECONDS) * STEP_SECONDS
  const { html, empty, height } = await renderPage(world.prometheus, readPanels({ rateSeconds: RATE_SECONDS, heartbeatSeconds: HEARTBEAT_SECONDS }), from, to, STEP_SECONDS)
  const file = keepHtml ?? join(folder, 'dashboard.html')
  writeFileSync(file, html)
  const { status, stderr } = spawnSync('chromium', [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--hide-scrollbars',
    `--user-data-dir=${join(folder, 'profile')}`, `--window-size=1600,${height}`, '--force-device-scale-factor=0.8', `--screenshot=${out}`, `file://${file}`
  ], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`chromium could not take the picture: ${stderr}`)
  process.stdout.write(`${out}: ${(statSync(out).size / 1_024).toFixed(0)} KiB; panels without data: ${empty.join(', ') || 'none'}\n`)
} finally {
  await world.close()
  rmSync(folder, { recursive: true, force: true })
}
process.exit(0)
