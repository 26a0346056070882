// Prometheus and promtool: from PATH, from the cache outside the checkout, or from Debian's package into that cache.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'

const executable = path => { try { accessSync(path, constants.X_OK); return true } catch { return false } }

/** Path of `prometheus` or `promtool`; undefined where it is not and cannot be fetched. */
export function findPrometheus (program) {
  const inPath = (process.env.PATH ?? '').split(delimiter).map(folder => join(folder, program)).find(executable)
  if (inPath !== undefined) return inPath
  const folder = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'viewing-service', 'tools', 'prometheus')
  const path = join(folder, 'usr', 'bin', program)
  if (executable(path)) return path
  mkdirSync(join(folder, '..'), { recursive: true })
  const build = mkdtempSync(join(folder, '..', 'prometheus-'))
  try {
    const run = (...command) => spawnSync(command[0], command.slice(1), { cwd: build, stdio: 'ignore' }).status === 0
    const download = () => run('apt-get', 'download', 'prometheus')
    if (!download() && !(run('apt-get', 'update', '-qq') && download())) return undefined
    const archive = readdirSync(build).find(name => name.endsWith('.deb'))
    if (archive === undefined || !run('dpkg', '-x', archive, 'out')) return undefined
    rmSync(folder, { recursive: true, force: true })
    renameSync(join(build, 'out'), folder)
  } catch (error) {
    // Another process may have been faster; its folder is as good.
    if (!executable(path)) throw error
  } finally {
    rmSync(build, { recursive: true, force: true })
  }
  return executable(path) ? path : undefined
}
