import { parseArgs } from 'node:util'
import { parse } from 'yaml'
import { AVAILABILITY } from './operations/scenarios-availability.ts'
import { DEPENDENCIES } from './operations/scenarios-dependencies.ts'
import { LIMIT } from './operations/scenarios-limit.ts'
import { shortenRules } from './operations/shorten-rules.ts'
import { type Row, type Scenario, Trial } from './operations/trial.ts'
import { rulesText, startWorld } from './operations/world.ts'

/**
 * Tries the runbook: for every alert the fault is brought on, a real Prometheus has to fire it, the runbook's action is carried out, and the alert
 * has to end. The rules are those of deploy/prometheus, with their times divided (`shorten-rules.ts`); everything else is as it is.
 */
const { values: { only = '', factor = '60' } } = parseArgs({ options: { only: { type: 'string' }, factor: { type: 'string' } } })
/** Two scrapes have to fit in the shortest window of the rules, two minutes. */
const SCRAPE_MS = 500

const all = [...AVAILABILITY, ...LIMIT, ...DEPENDENCIES]
const wanted = new RegExp(only)
const names: string[] = Object(parse(rulesText())).groups.flatMap((group: { rules: Array<{ alert?: string }> }) => group.rules.flatMap(({ alert }) => alert ?? []))
const unknown = all.flatMap(({ alerts }) => alerts).filter(alert => !names.includes(alert))
if (unknown.length > 0) throw new Error(`not in the rules: ${unknown.join()}`)

async function attempt (scenario: Scenario): Promise<Row[]> {
  const shorten = (text: string): string => shortenRules(scenario.rules?.(text) ?? text, scenario.factor ?? Number(factor))
  const scrapeMs = scenario.scrapeMs ?? SCRAPE_MS
  const world = await startWorld({ ...scenario.world, rules: shorten(rulesText()), scrapeMs })
  const trial = new Trial({ ...world, changeRules: async change => { await world.prometheus.setRules(shorten(change(rulesText()))) } }, scenario.alerts)
  try {
    await scenario.play(trial)
    return trial.rows()
  } finally {
    await trial.close()
    await world.close()
  }
}

const rows: Row[] = []
const failed: string[] = []
for (const scenario of all.filter(({ alerts }) => alerts.some(alert => wanted.test(alert)))) {
  process.stdout.write(`${scenario.alerts.join(', ')}\n`)
  try {
    rows.push(...await attempt(scenario))
  } catch (error) {
    failed.push(`${scenario.alerts.join(', ')}: ${error instanceof Error ? error.message : String(error)}`)
    process.stdout.write(`    FAILED ${failed.at(-1)}\n`)
  }
}
const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`
process.stdout.write('\n| alert | fault | fired after | action | ended after | fired too |\n|---|---|---|---|---|---|\n')
for (const { alert, fault, firedMs, action, resolvedMs, also } of rows) process.stdout.write(`| ${alert} | ${fault} | ${seconds(firedMs)} | ${action} | ${resolvedMs < 0 ? 'before the action' : seconds(resolvedMs)} | ${also.join(', ')} |\n`)
const untried = names.filter(name => !all.some(({ alerts }) => alerts.includes(name)))
if (untried.length > 0) process.stdout.write(`without a trial: ${untried.join(', ')}\n`)
process.stdout.write(`${rows.length} passed, ${failed.length} failed\n`)
process.exit(failed.length === 0 && rows.length > 0 ? 0 : 1)
