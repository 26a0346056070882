import { readFile, writeFile } from 'node:fs/promises'
import pino from 'pino'
import { buildApp } from './app.ts'
import { loadConfig } from './config.ts'
import { resolveDependencies } from './embedded/dependencies.ts'

/** Writes `openapi.yaml` from the routes' schemas (`--write`), or fails when the file differs from them (`--check`). */
const FILE = new URL('../openapi.yaml', import.meta.url)
const HEADER = '# Generated from the route schemas by `npm run openapi:write`; edits here are lost.\n'

const { version }: { version: string } = JSON.parse(await readFile(new URL('../package.json', import.meta.url), 'utf8'))
const config = loadConfig({})
const dependencies = await resolveDependencies(config)
const app = await buildApp({
  config,
  version,
  logger: pino({ level: 'silent' }),
  connect: { target: dependencies.redis, commandTimeoutMs: config.redis.commandTimeoutMs, scripts: { shebang: dependencies.shebang } },
  identityUrl: dependencies.identityUrl,
  contentUrl: dependencies.contentUrl,
  eventLines: { write: () => true, written: async () => {} },
  draining: () => false
})
await app.ready()
const text = HEADER + app.swagger({ yaml: true })
await app.close()
await dependencies.close()

if (process.argv.includes('--write')) {
  await writeFile(FILE, text)
} else if (await readFile(FILE, 'utf8').catch(() => '') !== text) {
  process.stderr.write('openapi.yaml differs from the routes: run `npm run openapi:write`\n')
  process.exitCode = 1
}
