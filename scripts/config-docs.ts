/**
 * Writes `.env.example`, the configuration table of README.md and the variables in the chart's values.schema.json from the settings' schema
 * (`--write`), or says what differs from it (`--check`).
 * The table stands between the markers; the rest of README.md is left alone. Exit code 1: a difference, or no place for the table.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import type { TSchema } from '@sinclair/typebox'
import { SettingsSchema } from '../src/config/settings.ts'
import { withSettings } from './values-schema.ts'

const ENV_EXAMPLE = new URL('../.env.example', import.meta.url)
const README = new URL('../README.md', import.meta.url)
const VALUES_SCHEMA = new URL('../helm/viewing-service/values.schema.json', import.meta.url)
const BEGIN = '<!-- config:begin -->'
const END = '<!-- config:end -->'
const COMMENT_WIDTH = 100

interface Setting { name: string, fallback: string | undefined, meaning: string, secret: boolean }

const settings: Setting[] = Object.entries<TSchema>(SettingsSchema.properties).map(([name, schema]) => ({
  name,
  fallback: schema.default === undefined ? undefined : String(schema.default),
  meaning: [schema.description ?? '', Array.isArray(schema.enum) ? `One of ${schema.enum.map(value => `\`${value}\``).join(', ')}.` : ''].filter(part => part !== '').join(' '),
  secret: schema.secret === true
}))

function envExample (): string {
  const blocks = settings.map(({ name, fallback, meaning, secret }) => [
    ...wrap(secret ? `${meaning} Secret.` : meaning).map(line => `# ${line}`),
    `# ${name}=${fallback ?? ''}`
  ].join('\n'))
  return [
    '# Every variable the service reads, with its default. All may stay unset outside production.',
    '# A duration is a number with a unit (500ms, 90s, 24h, 1h30m); without one it is seconds.',
    '',
    blocks.join('\n\n'),
    ''
  ].join('\n')
}

function table (): string {
  const cell = (text: string) => text.replaceAll('|', '\\|')
  return [
    '| Variable | Default | Meaning |',
    '|---|---|---|',
    ...settings.map(({ name, fallback, meaning, secret }) =>
      `| \`${name}\` | ${fallback === undefined ? '' : `\`${cell(fallback)}\``} | ${cell(meaning)}${secret ? ' **Secret.**' : ''} |`)
  ].join('\n')
}

/** Lines of at most `COMMENT_WIDTH` characters, broken between words. */
function wrap (text: string): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > COMMENT_WIDTH) {
      lines.push(line)
      line = word
    } else {
      line = line === '' ? word : `${line} ${word}`
    }
  }
  return [...lines, line]
}

/** README.md with the table in its place, or why it has none. */
function readmeWithTable (): { text: string } | { missing: string } {
  if (!existsSync(README)) return { missing: `README.md is missing: it must hold ${BEGIN} and ${END}` }
  const text = readFileSync(README, 'utf8')
  const begin = text.indexOf(BEGIN)
  const end = text.indexOf(END)
  if (begin < 0 || end < begin) return { missing: `README.md: needs ${BEGIN}, then ${END}, each on a line of its own` }
  return { text: `${text.slice(0, begin + BEGIN.length)}\n${table()}\n${text.slice(end)}` }
}

/** Writes or compares one file; true if it is as it should be afterwards. */
function settle (file: URL, name: string, text: string, write: boolean): boolean {
  if (existsSync(file) && readFileSync(file, 'utf8') === text) return true
  if (write) {
    writeFileSync(file, text)
    console.log(`${name} written`)
    return true
  }
  console.error(`${name} differs from src/config/settings.ts: run \`npm run docs:write\``)
  return false
}

const [mode] = process.argv.slice(2)
if (mode !== '--write' && mode !== '--check') {
  console.error('usage: config-docs.ts --write | --check')
  process.exitCode = 1
} else {
  const write = mode === '--write'
  const readme = readmeWithTable()
  const fine = [
    settle(ENV_EXAMPLE, '.env.example', envExample(), write),
    'missing' in readme ? (console.error(readme.missing), false) : settle(README, 'README.md', readme.text, write),
    settle(VALUES_SCHEMA, 'helm/viewing-service/values.schema.json', withSettings(readFileSync(VALUES_SCHEMA, 'utf8')), write)
  ]
  if (fine.includes(false)) process.exitCode = 1
}
