// Checks the alert rules, their tests, the dashboard and the runbook against each other and, with `--metrics <file or URL>`,
// against what the service really measures.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { parse } from 'yaml'
import { findPrometheus } from './operations/prometheus-package.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const RULES = 'deploy/prometheus/rules.yml'
const TESTS = 'deploy/prometheus/rules.test.yml'
const DASHBOARD = 'deploy/grafana/viewing-service.json'
const OPENAPI = 'openapi.yaml'
const RUNBOOK = 'docs/runbook.md'
const SEVERITIES = ['critical', 'warning', 'info']
/** Names that are Prometheus' own. */
const BUILT_IN = new Set(['up', 'ALERTS'])
/** What the libraries of Node's metrics call their metrics is not ours to mend. */
const LIBRARY = /^nodejs_/

const counts = { passed: 0, failed: 0, skipped: 0 }
const text = path => readFileSync(join(ROOT, path), 'utf8')

function report (name, faults) {
  counts[faults.length === 0 ? 'passed' : 'failed']++
  console.log(`${faults.length === 0 ? 'ok    ' : 'FAULT '} ${name}`)
  for (const fault of faults) console.log(`         ${fault}`)
}
function skip (name, reason) {
  counts.skipped++
  console.log(`skip   ${name}: ${reason}`)
}

/** Runs promtool. @returns its lines and whether it was content. */
function promtool (program, args, input) {
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd: ROOT, encoding: 'utf8', input })
  const lines = `${stdout ?? ''}\n${stderr ?? ''}\n${error?.message ?? ''}`.split('\n').map(line => line.trim()).filter(line => line !== '')
  return { status, lines, faults: status === 0 ? [] : lines }
}

/** Metrics that a PromQL expression reads: identifiers that are no function, keyword, label or text. */
function metricsOf (expr) {
  const bare = expr
    .replaceAll(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/g, '')
    .replaceAll(/\{[^}]*\}/g, ' ')
    .replaceAll(/\[[^\]]*\]/g, ' ')
    .replaceAll(/\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, ' ')
    .replaceAll(/\boffset\s+\w+/g, ' ')
  const names = [...bare.matchAll(/(?<![\w.:])([a-zA-Z_:][\w:]*)(?!\s*\()/g)].map(match => match[1])
    // A backtracked match is the head of a function's name.
    .filter(name => !new RegExp(`(?<![\\w.:])${name}\\w*\\s*\\(`).test(bare))
  return [...new Set(names)].filter(name => !/^(?:and|or|unless|by|without|on|ignoring|bool|inf|nan|group_left|group_right)$/i.test(name))
}

/** The panels' expressions, with Grafana's variables replaced by values that Prometheus accepts. */
function readDashboard () {
  const dashboard = JSON.parse(text(DASHBOARD))
  const faults = []
  const variables = new Map(dashboard.templating.list.map(({ name, type, current }) => [name, type === 'textbox' ? String(current.value) : '.*']))
  for (const needed of ['datasource', 'job', 'instance']) if (!variables.has(needed)) faults.push(`no variable ${needed}`)
  const fill = (expr, where) => expr
    .replaceAll(/\$(?:__rate_interval|__interval|__range)\b/g, '5m')
    .replaceAll(/\$\{?(\w+)\}?/g, (whole, name) => {
      if (!variables.has(name)) faults.push(`${where}: ${whole} is no variable of the dashboard`)
      return variables.get(name) ?? '.*'
    })
  const queries = []
  const ids = new Set()
  for (const panel of dashboard.panels.flatMap(panel => [panel, ...(panel.panels ?? [])])) {
    if (ids.has(panel.id)) faults.push(`panel id ${panel.id} is used twice`)
    ids.add(panel.id)
    if (panel.type !== 'row' && (panel.targets ?? []).length === 0) faults.push(`panel "${panel.title}" asks nothing`)
    for (const { refId, expr, datasource } of panel.targets ?? []) {
      if (datasource?.uid !== '${datasource}') faults.push(`panel "${panel.title}" names a data source of its own`) // eslint-disable-line no-template-curly-in-string
      queries.push({ where: `panel "${panel.title}" ${refId}`, expr: fill(expr, panel.title) })
    }
  }
  for (const { name, expr } of dashboard.annotations?.list ?? []) if (expr !== undefined) queries.push({ where: `annotation "${name}"`, expr: fill(expr, name) })
  for (const { name, definition } of dashboard.templating.list) {
    const selector = /^label_values\((.*),\s*\w+\)$/.exec(definition ?? '')?.[1]
    if (selector !== undefined) queries.push({ where: `variable ${name}`, expr: fill(selector, name) })
  }
  return { queries, faults }
}

/** Checks queries as if they were recorded. */
function checkQueries (program, queries) {
  const folder = mkdtempSync(join(tmpdir(), 'viewing-dashboard-'))
  try {
    const file = join(folder, 'dashboard.yml')
    const rules = queries.map(({ expr }, index) => ({ record: `dashboard:query_${index}`, expr }))
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'dashboard', rules }] }))
    return promtool(program, ['check', 'rules', '--lint=none', file]).faults
      .map(line => line.replace(/dashboard:query_(\d+)/, (_, index) => queries[Number(index)].where).replace(file, DASHBOARD))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** All names that a scrape can hold, series or not yet. */
function namesIn (exposition) {
  const names = new Set()
  for (const [, name, type] of exposition.matchAll(/^# TYPE (\S+) (\S+)/gm)) {
    const suffixes = type === 'histogram' ? ['_bucket', '_sum', '_count'] : type === 'summary' ? ['', '_sum', '_count'] : ['']
    for (const suffix of suffixes) names.add(name + suffix)
  }
  return names
}

/** Labels that a scrape, or Prometheus itself, adds. */
const SCRAPED = new Set(['job', 'instance', 'namespace', 'le'])

/** Selectors on labels that no series of the metric has; a metric without series says nothing. */
function unknownLabels (expr, exposition) {
  return [...expr.matchAll(/([a-zA-Z_]\w*)\{([^}]*)\}/g)].flatMap(([, metric, selector]) => {
    const series = [...exposition.matchAll(new RegExp(`^${metric}\\{(.*)\\} `, 'gm'))].map(match => match[1])
    const labels = [...selector.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map(match => match[1]).filter(label => !SCRAPED.has(label))
    return series.length === 0 ? [] : labels.filter(label => !series.some(line => line.includes(`${label}="`))).map(label => `${metric} has no label ${label}`)
  })
}

const readMetrics = async source => {
  if (!/^https?:/.test(source)) return readFileSync(source, 'utf8')
  const answer = await fetch(source)
  if (!answer.ok) throw new Error(`${source} answered ${answer.status}`)
  return await answer.text()
}

const { values: { metrics: source } } = parseArgs({ options: { metrics: { type: 'string' } } })
const rules = parse(text(RULES)).groups.flatMap(group => group.rules)
const alerts = rules.filter(rule => rule.alert !== undefined)
const recorded = new Set(rules.flatMap(rule => rule.record ?? []))
const dashboard = readDashboard()

report(`alerts say what they must (${alerts.length})`, alerts.flatMap(({ alert, labels, annotations }) => [
  ...(SEVERITIES.includes(labels?.severity) ? [] : [`${alert}: severity is not one of ${SEVERITIES.join(', ')}`]),
  ...['summary', 'description', 'runbook_url'].filter(name => !annotations?.[name]).map(name => `${alert}: no ${name}`),
  ...(annotations?.runbook_url === `${RUNBOOK}#${alert.toLowerCase()}` ? [] : [`${alert}: runbook_url is not ${RUNBOOK}#${alert.toLowerCase()}`])
]))

const tests = text(TESTS)
report('every alert has a test', alerts.filter(({ alert }) => !new RegExp(`alertname="${alert}"`).test(tests)).map(({ alert }) => `${alert}: none`))

const sections = existsSync(join(ROOT, RUNBOOK)) ? [...text(RUNBOOK).matchAll(/^#{2,4} (Viewing\w+)[ \t]*$/gm)].map(match => match[1]) : []
report('every alert has a section in the runbook, and the reverse', [
  ...alerts.filter(({ alert }) => !sections.includes(alert)).map(({ alert }) => `${alert}: no section in ${RUNBOOK}`),
  ...sections.filter(section => !alerts.some(({ alert }) => alert === section)).map(section => `${section}: a section without an alert`),
  ...sections.filter((section, index) => sections.indexOf(section) !== index).map(section => `${section}: two sections`)
])

report(`dashboard: variables, data source, panels (${dashboard.queries.length} queries)`, dashboard.faults)

const expressions = [...rules.map(({ record, alert, expr }) => ({ where: record ?? alert, expr })), ...dashboard.queries]
const read = expressions.flatMap(({ where, expr }) => metricsOf(expr).map(name => ({ where, name })))
report('names of recorded series exist', read.filter(({ name }) => name.includes(':') && !recorded.has(name)).map(({ where, name }) => `${where}: ${name}`))

const paths = new Set(Object.keys(parse(text(OPENAPI)).paths).map(path => path.replaceAll(/\{(\w+)\}/g, ':$1')))
report('routes are in the document', expressions.flatMap(({ where, expr }) => [...expr.matchAll(/\broute="([^"]*)"/g)]
  .filter(([, route]) => !paths.has(route)).map(([, route]) => `${where}: ${route}`)))

const exposition = source === undefined ? undefined : await readMetrics(source)
const noMetrics = 'start the service and give --metrics <file or URL of /metrics>'
if (exposition === undefined) skip('names of metrics and labels exist', noMetrics)
else {
  const known = namesIn(exposition)
  const wanted = read.filter(({ name }) => !name.includes(':') && !BUILT_IN.has(name))
  report(`names of metrics exist (${new Set(wanted.map(({ name }) => name)).size})`, wanted.filter(({ name }) => !known.has(name)).map(({ where, name }) => `${where}: ${name}`))
  report('their labels exist', expressions.flatMap(({ where, expr }) => unknownLabels(expr, exposition).map(fault => `${where}: ${fault}`)))
}

const program = findPrometheus('promtool')
if (program === undefined) {
  const reason = 'promtool is neither in PATH nor to be had by apt-get'
  const names = ['promtool check rules', 'promtool test rules', 'promtool on the dashboard', 'promtool check metrics']
  // Where all checks have to run, one that cannot is a fault.
  for (const name of names) process.env.CI === 'true' ? report(name, [reason]) : skip(name, reason)
} else {
  report('promtool check rules', promtool(program, ['check', 'rules', '--lint=all', '--lint-fatal', RULES]).faults)
  report('promtool on the dashboard', checkQueries(program, dashboard.queries))
  if (exposition === undefined) skip('promtool check metrics', noMetrics)
  else {
    // 3: readable, with remarks.
    const { status, lines } = promtool(program, ['check', 'metrics'], exposition)
    report('promtool check metrics', status === 0 || status === 3 ? lines.filter(line => !LIBRARY.test(line)) : lines)
  }
  report('promtool test rules', promtool(program, ['test', 'rules', TESTS]).faults)
}

console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
process.exitCode = counts.failed === 0 ? 0 : 1
