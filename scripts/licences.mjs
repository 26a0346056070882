// Holds the licence of every production package against a list of those that ask for no more than to be named, and writes docs/licences.md
// (`--write`) or says what differs from it (`--check`). What a package says of itself must be what the lock says of it.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'

const ALLOWED = new Set(['0BSD', 'Apache-2.0', 'BlueOak-1.0.0', 'BSD-2-Clause', 'BSD-3-Clause', 'CC0-1.0', 'ISC', 'MIT', 'MIT-0', 'Unlicense'])
const ROOT = new URL('..', import.meta.url)
const LIST = new URL('docs/licences.md', ROOT)
const [mode] = process.argv.slice(2)
if (mode !== '--write' && mode !== '--check') throw new Error('usage: licences.mjs --write | --check')

const { packages } = JSON.parse(readFileSync(new URL('package-lock.json', ROOT), 'utf8'))
/** Old packages have an object, or several. Anything but a plain name is for a person to judge. */
const ofPackage = ({ license, licenses }) => license?.type ?? license ?? licenses?.map(({ type }) => type).join(' OR ')
const faults = []
const names = new Map()
let held = 0
for (const [path, entry] of Object.entries(packages)) {
  if (path === '' || entry.dev) continue
  const name = `${path.replace(/^.*node_modules\//, '')} ${entry.version}`
  const before = faults.length
  const file = new URL(`${path}/package.json`, ROOT)
  if (!ALLOWED.has(entry.license)) faults.push(`${name}: ${entry.license ?? 'no licence'} is not on the list`)
  // The copies of Node for other platforms are not installed.
  if (existsSync(file)) {
    const said = ofPackage(JSON.parse(readFileSync(file, 'utf8')))
    if (said !== entry.license) faults.push(`${name}: ${said} by itself, ${entry.license} in the lock`)
  } else if (!entry.optional) faults.push(`${name}: not installed, run \`npm ci\``)
  if (faults.length === before) held++
  names.set(entry.license, (names.get(entry.license) ?? new Set()).add(name))
}

const text = `# Licences of the production packages

Generated from package-lock.json by \`npm run licences:write\`; \`npm run licences:check\` fails on a licence that is not on the list in
\`scripts/licences.mjs\`. \`npm run sbom\` prints a bill of materials with the development packages;
the image holds its own, \`/app/sbom.cdx.json\`, of what is in it.

${[...names].sort(([a], [b]) => a < b ? -1 : 1).map(([licence, list]) => `## ${licence}\n\n${[...list].sort().join(' · ')}\n`).join('\n')}`
if (existsSync(LIST) && readFileSync(LIST, 'utf8') === text) held++
else if (mode === '--write') {
  writeFileSync(LIST, text)
  held++
} else faults.push('docs/licences.md differs from package-lock.json: run `npm run licences:write`')

for (const fault of faults) process.stdout.write(`FAILED ${fault}\n`)
process.stdout.write(`${held} passed, ${faults.length} failed\n`)
process.exitCode = faults.length === 0 && held > 100 ? 0 : 1
