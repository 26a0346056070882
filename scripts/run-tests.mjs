// Runs the tests: builds the service (the e2e tests start it as processes), then tap over the files named, or over all.
// Plain JavaScript, so that a Node too old for the rest can still say so. The last line is `N passed, N failed, N skipped`.
import { spawn, spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { createInterface } from 'node:readline'

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major < 22 || (major === 22 && minor < 18)) {
  process.stderr.write(`Node ${process.versions.node} is too old to run TypeScript. \`npm ci\` brings Node 26 as a package where there is one for this platform; else install Node 22.18 or newer.\n`)
  process.exit(1)
}

const bin = name => new URL(`../node_modules/.bin/${name}`, import.meta.url).pathname
rmSync(new URL('../dist', import.meta.url), { recursive: true, force: true })
const build = spawnSync(process.execPath, [bin('tsc'), '-p', 'tsconfig.build.json'], { stdio: 'inherit' })
if (build.status !== 0) process.exit(1)

const tap = spawn(process.execPath, [bin('tap'), 'run', '--reporter=tap', ...process.argv.slice(2)], {
  stdio: ['ignore', 'pipe', 'inherit'],
  env: { ...process.env, REDOCLY_TELEMETRY: 'off', KAFKAJS_NO_PARTITIONER_WARNING: '1' }
})
const counts = { total: 0, pass: 0, fail: 0, skip: 0 }
const skipped = []
let summarised = false
let failing = -1
let path = []
for await (const line of createInterface({ input: tap.stdout })) {
  const indent = line.search(/\S/)
  const text = line.trim()
  if (text.startsWith('# Subtest: ')) path = [...path.slice(0, indent / 4), text.slice(11)]
  if (failing >= 0) {
    // The diagnostics of a failure are indented by two more than it.
    if (indent > failing && !/^(not )?ok /.test(text)) {
      process.stdout.write(`${line}\n`)
      continue
    }
    failing = -1
  }
  if (text.startsWith('not ok ') && !/ # (SKIP|TODO)/i.test(text)) {
    process.stdout.write(`\nFAILED ${path.slice(0, Math.floor(indent / 4)).join(' > ')}\n${line}\n`)
    failing = indent
  } else if (text.startsWith('# measured ')) {
    process.stdout.write(`${text}\n`)
  } else if (/^ok .* # SKIP/i.test(text)) {
    skipped.push(`${path[0] ?? ''}: ${text.replace(/^ok \d+ - /, '')}`)
  } else if (indent === 0 && text.startsWith('ok ')) {
    process.stdout.write(`${text}\n`)
  } else if (indent === 0 && text.startsWith('# { total:')) {
    summarised = true
    for (const [, name, value] of text.matchAll(/(\w+): (\d+)/g)) counts[name] = Number(value)
  }
}
const code = await new Promise(resolve => { tap.exitCode === null ? tap.once('exit', resolve) : resolve(tap.exitCode) })
for (const reason of skipped) process.stdout.write(`skipped: ${reason}\n`)
const failed = counts.fail + (code !== 0 && counts.fail === 0 ? 1 : 0)
if (!summarised) process.stdout.write('tap ended without a summary\n')
process.stdout.write(`${counts.pass} passed, ${failed} failed, ${counts.skip} skipped\n`)
process.exit(failed > 0 || counts.pass === 0 || !summarised ? 1 : 0)
